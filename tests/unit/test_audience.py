"""Opening an audience: which files are taken, what is said about them, and how a column is found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import openpyxl
import pytest

from runner.audience import Audience, column_index, open_audience, open_table
from runner.errors import InputError


def saved(
    folder: Path, text: str = "name;phone\nAda;1\n", name: str = "customers.csv", encoding: str = "utf-8"
) -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def workbook(folder: Path, rows: list[list[str]], name: str = "customers.xlsx") -> Path:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(row)
    path = folder / name
    book.save(path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_audience(path)
    return str(caught.value)


def test_what_was_detected_is_said_in_one_line(tmp_path: Path) -> None:
    text = "a;b;c;d;e\n1;2;3;4;5\n"
    assert open_audience(saved(tmp_path, text, encoding="utf-8-sig")).describe() == (
        "customers.csv: UTF-8 with BOM, semicolon, 5 columns"
    )
    assert open_audience(saved(tmp_path, "phone\n1\n")).describe() == "customers.csv: UTF-8, 1 column"
    turkish = open_audience(saved(tmp_path, "ad\tşehir\nIşıl\tx\n", "customers.tsv", "cp1254"))
    assert turkish.describe() == "customers.tsv: Windows-1254 (Turkish), tab, 2 columns"
    assert "Windows-1254" in turkish.notes[0]
    sheet = open_audience(workbook(tmp_path, [["name", "phone"], ["Ada", "1"]]))
    assert sheet.describe() == 'customers.xlsx: sheet "Sheet", 2 columns'


def test_an_audience_says_what_kind_of_file_it_is(tmp_path: Path) -> None:
    text = open_audience(saved(tmp_path))
    assert (text.kind, text.encoding, text.delimiter, text.sheet) == ("csv", "utf-8", ";", "")
    sheet = open_audience(workbook(tmp_path, [["a"], ["1"]]))
    assert (sheet.kind, sheet.encoding, sheet.delimiter, sheet.sheet) == ("xlsx", "", "", "Sheet")


@pytest.mark.parametrize("name", ["customers.csv", "customers.TXT", "customers.tsv"])
def test_text_files_are_known_by_their_ending(tmp_path: Path, name: str) -> None:
    assert open_audience(saved(tmp_path, name=name)).columns == ("name", "phone")


def test_a_missing_file_is_named_with_the_nearest_there_is(tmp_path: Path) -> None:
    saved(tmp_path)
    said = refused(tmp_path / "costumers.csv")
    assert "there is no such file" in said
    assert "did you mean 'customers.csv'" in said
    assert "no folder" in refused(tmp_path / "nowhere" / "customers.csv")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").mkdir()
    assert "is a folder" in refused(tmp_path / "customers.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "customers.csv")
    assert "not an ordinary file" in refused(tmp_path / "customers.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that is there but cannot be read by anyone")
def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.symlink_to("/proc/self/mem")
    said = refused(path)
    assert "cannot be read" in said
    assert "permissions" in said


def test_a_link_to_a_file_is_fine_and_a_broken_one_is_missing(tmp_path: Path) -> None:
    path = saved(tmp_path)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    assert open_audience(link).columns == ("name", "phone")
    path.unlink()
    assert "no such file" in refused(link)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("customers.xls", "save it as .xlsx"),
        ("customers.xlsb", "save it as .xlsx"),
        ("customers.XLSM", "save it as .xlsx"),
        ("customers.ods", "save it as .xlsx"),
        ("customers.numbers", "Export To"),
        ("customers.zip", "unpack"),
        ("customers.json", ".csv, .tsv, .txt or .xlsx"),
        ("customers", ".csv, .tsv, .txt or .xlsx"),
    ],
)
def test_other_kinds_of_file_are_refused_with_what_to_do(tmp_path: Path, name: str, cure: str) -> None:
    assert cure in refused(saved(tmp_path, name=name))


def test_a_workbook_under_the_name_of_a_text_file_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["a"]])
    assert "rename it to .xlsx" in refused(path.rename(tmp_path / "customers.csv"))
    old = tmp_path / "old.csv"
    old.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    assert "not text" in refused(old)


def test_a_text_file_under_the_name_of_a_workbook_is_refused(tmp_path: Path) -> None:
    assert "rename it to .csv" in refused(saved(tmp_path, name="customers.xlsx"))


def test_a_workbook_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "customers.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    assert "password" in refused(path)


def test_settings_that_do_not_fit_the_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sheet"):
        open_audience(saved(tmp_path), sheet="Customers")
    book = workbook(tmp_path, [["a"]])
    with pytest.raises(InputError, match="encoding"):
        open_audience(book, encoding="utf-8")
    with pytest.raises(InputError, match="delimiter"):
        open_audience(book, delimiter=",")


def audience(folder: Path, header: str) -> Audience:
    return open_audience(saved(folder, f"{header}\n"), delimiter=",")


def test_a_column_is_found_by_its_very_name_first(tmp_path: Path) -> None:
    assert column_index(audience(tmp_path, "PHONE,phone,Phone"), "phone", "phone", "x.yaml:4:3") == 1


@pytest.mark.parametrize("name", ["mobile no", "MOBILENO", " Mobile  No "])
def test_a_column_is_found_without_regard_to_case_and_spaces_when_there_is_but_one(tmp_path: Path, name: str) -> None:
    assert column_index(audience(tmp_path, "name,Mobile No"), name, "phone", "x.yaml:4:3") == 1


def test_a_turkish_dotted_capital_is_the_same_letter(tmp_path: Path) -> None:
    assert column_index(audience(tmp_path, "name,ŞEHİR"), "şehir", "where", "x.yaml:4:3") == 1


def test_a_name_that_fits_two_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"PHONE" and "Phone"') as caught:
        column_index(audience(tmp_path, "PHONE,Phone"), "phone", "phone", "x.yaml:4:3")
    assert caught.value.problems[0].where == "x.yaml:4:3"


@pytest.mark.parametrize(
    ("header", "name", "likely"),
    [
        ("name,Mobile,city", "Mobil", "Mobile"),
        ("ad,Cep Tel,şehir", "phone", "Cep Tel"),
        ("ad,GSM,şehir", "phone", "GSM"),
        ("name,WhatsApp Number", "phone", "WhatsApp Number"),
        ("ad,TELEFON", "Mobile", "TELEFON"),
        ("concept,reception,Tel.", "phone", "Tel."),
        ("name,mobilePhone", "number", "mobilePhone"),
    ],
)
def test_a_missing_column_is_an_error_with_all_columns_and_the_likeliest(
    tmp_path: Path, header: str, name: str, likely: str
) -> None:
    with pytest.raises(InputError) as caught:
        column_index(audience(tmp_path, header), name, "audience.phone", "x.yaml:4:3")
    (problem,) = caught.value.problems
    assert problem.fix == f'did you mean "{likely}"?'
    assert all(f'"{column}"' in problem.what for column in header.split(","))


def test_where_nothing_is_likely_nothing_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        column_index(audience(tmp_path, "Tel,city"), "consent", "where", "x.yaml:4:3")
    assert caught.value.problems[0].fix == "use one of these"


def test_a_table_without_a_header_has_columns_named_by_letters(tmp_path: Path) -> None:
    table = open_table(saved(tmp_path, "1,2\n3,4\n"), lambda first: first[0] != "1")
    assert (table.columns, table.header_row) == (("A", "B"), 0)
    assert [row.number for rows in table.rows() for row in rows] == [1, 2]
