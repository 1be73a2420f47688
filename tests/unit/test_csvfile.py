"""Text files as rows: nothing changed, nothing shifted, every fault with its row."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import csvfile
from runner.audience import Audience, Row, open_audience
from runner.errors import InputError


@pytest.fixture(autouse=True, params=["small", "large"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test twice: a file that the csv module reads, and one that pandas reads."""
    monkeypatch.setattr(csvfile, "SMALL_BYTES", csvfile.SMALL_BYTES if request.param == "small" else 0)


def saved(folder: Path, text: str, encoding: str = "utf-8", name: str = "people.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def rows(audience: Audience) -> list[Row]:
    return [row for chunk in audience.rows() for row in chunk]


def values(audience: Audience) -> list[tuple[str, ...]]:
    return [row.values for row in rows(audience)]


def faults(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_audience(path)
    return str(caught.value)


def test_values_that_look_like_numbers_or_nothing_stay_the_text_they_are(tmp_path: Path) -> None:
    odd = ["05320000001", "+905320000001", "9.05E+11", "905320000001.0", "NA", "None", "null", "nan", "", "TRUE", "1e5"]
    path = saved(tmp_path, "name,value\n" + "".join(f"x,{one}\n" for one in odd))
    assert [pair[1] for pair in values(open_audience(path))] == odd


def test_white_space_in_values_is_kept_and_in_headers_removed(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, " name ,\u00a0phone\n  Ada  ,+90 \n"))
    assert audience.columns == ("name", "phone")
    assert values(audience) == [("  Ada  ", "+90 ")]


def test_row_numbers_are_those_a_spreadsheet_shows(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, 'name,note\nAda,"two\r\nlines"\n\nBo,x\n , \nCy,y\n'))
    assert rows(audience) == [
        Row(2, ("Ada", "two\r\nlines")),
        Row(4, ("Bo", "x")),
        Row(6, ("Cy", "y")),
    ]


def test_blank_lines_above_the_header_are_numbered(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "\n,\nname,phone\nAda,1\n"))
    assert audience.header_row == 3
    assert rows(audience) == [Row(4, ("Ada", "1"))]


def test_an_excel_sep_line_is_honoured_and_numbered(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "sep=;\nname;a,b\nAda;1,5\n", "utf-8-sig"))
    assert (audience.delimiter, audience.columns) == (";", ("name", "a,b"))
    assert rows(audience) == [Row(3, ("Ada", "1,5"))]


def test_a_wanted_delimiter_wins(tmp_path: Path) -> None:
    path = saved(tmp_path, "a,b;c\n1,2;3\n")
    assert open_audience(path, delimiter="semicolon").columns == ("a,b", "c")
    assert open_audience(path, delimiter=",").columns == ("a", "b;c")


def test_an_old_mac_file_with_bare_returns_is_read(tmp_path: Path) -> None:
    assert values(open_audience(saved(tmp_path, "a,b\r1,2\r3,4\r"))) == [("1", "2"), ("3", "4")]


def test_a_row_with_too_many_values_is_an_error_and_never_a_shift(tmp_path: Path) -> None:
    text = "name,phone\nAda,+905320000001,x\nBo,+905320000002\nCy,+905320000003,y,z\n"
    said = faults(saved(tmp_path, text))
    assert "people.csv row 2: has 3 values, but row 1 has only 2 columns" in said
    assert "people.csv row 4: has 4 values" in said


def test_hundreds_of_ragged_rows_are_counted_after_the_first_twenty(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_audience(saved(tmp_path, "a,b\n" + "1,2\n" * 60 + "1,2,3\n" * 300))
    assert len(caught.value.problems) == 21
    assert "280 more" in str(caught.value)


def test_empty_cells_at_the_end_of_a_row_are_harmless_and_short_rows_are_filled_up(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "a,b,c\n1,2,3,,, \n4\n5,6\n"))
    assert values(audience) == [("1", "2", "3"), ("4", "", ""), ("5", "6", "")]


def test_empty_columns_at_the_end_are_dropped(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "a,b,,\n1,2,,\n3,4,,\n"))
    assert audience.columns == ("a", "b")
    assert values(audience) == [("1", "2"), ("3", "4")]
    assert audience.notes == ()


def test_an_empty_column_in_the_middle_is_dropped_with_a_note(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "a,,c\n1,,3\n"))
    assert (audience.columns, audience.positions) == (("a", "c"), (0, 2))
    assert values(audience) == [("1", "3")]
    assert "column B" in audience.notes[0]


def test_a_blank_header_above_values_is_an_error_with_its_column_letter(tmp_path: Path) -> None:
    said = faults(saved(tmp_path, "a,,c\n1,,3\n1,2,3\n"))
    assert "people.csv row 1, column B" in said
    assert "the first in row 3" in said


def test_headers_that_are_equal_after_trimming_are_an_error_with_their_letters(tmp_path: Path) -> None:
    assert 'columns A and C have the same name "phone"' in faults(saved(tmp_path, "phone,name, phone \n1,2,3\n"))


def test_headers_that_differ_in_case_are_different(tmp_path: Path) -> None:
    assert open_audience(saved(tmp_path, "phone,Phone\n1,2\n")).columns == ("phone", "Phone")


def test_a_title_above_the_header_is_named(tmp_path: Path) -> None:
    for text in ("Spring customers\nname,phone\nAda,1\nBo,2\n", "Spring customers,,\nname,phone,city\nAda,1,x\n"):
        said = faults(saved(tmp_path, text))
        assert 'holds one cell only ("Spring customers"), but row 2 has' in said
        assert "the first row must be the header" in said


@pytest.mark.parametrize("text", ["", "\n\n", " , \n,,\n", "\ufeff"])
def test_a_file_without_a_word_in_it_is_empty(tmp_path: Path, text: str) -> None:
    assert "the file is empty" in faults(saved(tmp_path, text))


def test_a_header_alone_is_an_audience_of_nobody(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "name;phone"))
    assert audience.columns == ("name", "phone")
    assert rows(audience) == []


def test_a_single_column_needs_no_delimiter(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "phone\n+905320000001\nx, y\n"))
    assert audience.delimiter == ""
    assert values(audience) == [("+905320000001",), ("x, y",)]


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ('name,phone\nAda,1\nBo,"2\nCy,3\n', "row 3, column B", "never closed"),
        ('name,phone\nAda,1\n"Bo "the" man",2\n', "row 3, column A", "goes on after its closing quote"),
        ('name,phone\nAda,1\n"Bo,2\nCy,"3"\n', "row 3, column A", "goes on after its closing quote"),
        ('"name,phone\nAda,1\n', "row 1, column A", "never closed"),
    ],
)
def test_a_quote_that_is_not_closed_rightly_is_an_error_where_it_was_opened(
    tmp_path: Path, text: str, place: str, word: str
) -> None:
    said = faults(saved(tmp_path, text))
    assert place in said
    assert word in said


def test_an_unclosed_quote_in_a_large_file_is_found_without_reading_all_of_it_as_one_value(tmp_path: Path) -> None:
    said = faults(saved(tmp_path, 'name,phone\nAda,"1\n' + "Bo,2\n" * 100_000))
    assert "row 2, column B" in said
    assert "never closed" in said


def test_a_value_of_excels_longest_length_is_fine_and_one_over_the_limit_is_named(tmp_path: Path) -> None:
    assert len(values(open_audience(saved(tmp_path, f"a,b\n1,{'x' * 32_767}\n")))[0][1]) == 32_767
    for size in (100_001, 140_000):
        said = faults(saved(tmp_path, f"a,b\n1,2\n1,{'x' * size}\n"))
        assert "row 3, column B" in said
        assert "100,000" in said


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    assert "more than 4,000,000 characters" in faults(saved(tmp_path, "a\n" + "x" * 4_100_000))


def test_control_characters_in_values_are_kept(tmp_path: Path) -> None:
    assert values(open_audience(saved(tmp_path, "a,b\n1\x01,\x1b[2\n"))) == [("1\x01", "\x1b[2")]


def test_more_columns_than_any_audience_has_are_refused(tmp_path: Path) -> None:
    wide = ",".join(f"c{index}" for index in range(501))
    assert "501 columns" in faults(saved(tmp_path, wide + "\n"))


def test_an_undecodable_file_is_refused_with_the_wanted_encoding_and_read_with_the_right_one(tmp_path: Path) -> None:
    path = saved(tmp_path, "ad;şehir\nIşıl;İzmir\n", "cp1254")
    assert values(open_audience(path, encoding="cp1254")) == [("Işıl", "İzmir")]
    with pytest.raises(InputError, match="row 1"):
        open_audience(path, encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1254"])
def test_the_same_rows_come_out_of_every_encoding(tmp_path: Path, encoding: str) -> None:
    audience = open_audience(saved(tmp_path, "ad;şehir\nIşıl;İzmir\nUğur;Iğdır\n", encoding))
    assert audience.columns == ("ad", "şehir")
    assert values(audience) == [("Işıl", "İzmir"), ("Uğur", "Iğdır")]


def test_chunks_hold_at_most_the_number_asked_for_and_numbering_goes_on(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "n\n" + "".join(f"{index}\n" for index in range(2, 12))))
    chunks = list(audience.rows(chunk=4))
    assert max(map(len, chunks)) <= 4
    assert [row.number for chunk in chunks for row in chunk] == list(range(2, 12))
    assert all(row.values == (str(row.number),) for chunk in chunks for row in chunk)
    with pytest.raises(ValueError, match="chunk"):
        audience.rows(chunk=0)


def test_an_audience_may_be_read_again(tmp_path: Path) -> None:
    audience = open_audience(saved(tmp_path, "n\n1\n2\n"))
    assert rows(audience) == rows(audience)


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "a,b\n1,2\n")
    audience = open_audience(path)
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(InputError, match="changed since"):
        list(audience.rows())
    path.unlink()
    with pytest.raises(InputError, match="changed since"):
        list(audience.rows())


def test_a_change_that_keeps_size_and_time_is_seen_by_the_number_of_records(tmp_path: Path) -> None:
    path = saved(tmp_path, "a,b\n1,2\n3,4\n")
    audience = open_audience(path)
    times = path.stat()
    path.write_text("a,b\n1,2 3,4\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InputError):
        list(audience.rows())


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    table=st.integers(2, 5).flatmap(
        lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=6)
    ),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_a_csv_writer_wrote_comes_back_unchanged(
    table: list[list[str]], delimiter: str, encoding: str, line_end: str
) -> None:
    width = len(table[0]) if table else 2
    with TemporaryDirectory() as folder:
        path = Path(folder) / "people.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            # Python's own writer leaves a bare carriage return unquoted in some releases, which makes it a line end.
            bare = any("\r" in cell for row in table for cell in row)
            writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=1 if bare else 0)
            writer.writerow([f"c{index}" for index in range(width)])
            writer.writerows(table)
        found = rows(open_audience(path, encoding=encoding, delimiter=delimiter))
    expected = [Row(number, tuple(row)) for number, row in enumerate(table, 2) if "".join(row).strip()]
    assert found == expected


MEASURE = """
import resource, sys
from pathlib import Path
from runner import csvfile
from runner.audience import open_audience
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(rows) for rows in open_audience(Path(sys.argv[1])).rows())
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is not there")
def test_a_large_file_is_streamed_in_a_fixed_amount_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write("id,name,phone,city,sku,price,note\n")
        file.writelines(f"{n},Name {n},0532{n:07d},Istanbul,sku{n % 100},19.90,some note\n" for n in range(200_000))
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 200_000
    assert grown < 60, f"{grown} MB above the interpreter and its libraries"


def read_by(limit: int, path: Path, delimiter: str) -> list[Row] | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfile, "SMALL_BYTES", limit)
        try:
            return rows(open_audience(path, encoding="utf-8", delimiter=delimiter))
        except InputError as error:
            return type(error).__name__


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.lists(
        st.sampled_from(
            [*'ab"", ;\t\r\n\u00a0\u2028é', "\r\n", '","', '"\n"', '""', "=1", "#", "\x00", "\x1a", "a,b;c\td"]
        ),
        max_size=40,
    ),
    delimiter=st.sampled_from(",;\t"),
)
def test_both_readers_find_the_same_in_any_text(text: list[str], delimiter: str) -> None:
    with TemporaryDirectory() as folder:
        path = saved(Path(folder), f"name{delimiter}phone{delimiter}city\n" + "".join(text))
        assert read_by(1_000_000, path, delimiter) == read_by(0, path, delimiter)
