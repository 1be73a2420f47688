"""Excel workbooks as rows of text, and the hostile ones that must not reach the parser."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import openpyxl
import pytest
import xlsxwriter  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed
from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]  # as above

from runner import workbook_guard
from runner.audience import Audience, Row, open_audience
from runner.errors import ConfinedError, InputError


def written(folder: Path, fill: Callable[[xlsxwriter.Workbook, Worksheet], None], name: str = "people.xlsx") -> Path:
    path = folder / name
    with xlsxwriter.Workbook(path) as book:
        fill(book, book.add_worksheet("Customers"))
    return path


def table(folder: Path, rows: Sequence[Sequence[object]]) -> Path:
    def fill(_: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        for index, row in enumerate(rows):
            sheet.write_row(index, 0, row)

    return written(folder, fill)


def edited(path: Path, part: str, change: Callable[[bytes], bytes], **added: bytes) -> Path:
    """A copy of the workbook with one part changed, and parts added to it."""
    copy = path.with_name("edited.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == part else old.read(name))
        for name, data in added.items():
            new.writestr(name, data)
    return copy


SHEET = "xl/worksheets/sheet1.xml"


def with_row(path: Path, row: str) -> Path:
    return edited(path, SHEET, lambda xml: xml.replace(b"</sheetData>", row.encode() + b"</sheetData>"))


def rows(audience: Audience) -> list[Row]:
    return [row for chunk in audience.rows() for row in chunk]


def values(audience: Audience) -> list[tuple[str, ...]]:
    return [row.values for row in rows(audience)]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_audience(path)
    return str(caught.value)


def test_every_kind_of_cell_becomes_the_text_the_sheet_means(tmp_path: Path) -> None:
    cases: list[tuple[object, str, str]] = [
        (905320000001, "", "905320000001"),
        (905320000001, "0.00E+00", "905320000001"),
        (19.9, "", "19.9"),
        (0.1 + 0.2, "", "0.3"),
        (-0.0, "", "0"),
        (-3, "", "-3"),
        (True, "", "TRUE"),
        (False, "", "FALSE"),
        (dt.date(2026, 3, 1), "yyyy-mm-dd", "2026-03-01"),
        (dt.datetime.fromisoformat("2026-03-01T14:05:09"), "yyyy-mm-dd hh:mm", "2026-03-01 14:05:09"),
        (dt.time(14, 5, 9), "hh:mm:ss", "14:05:09"),
        (1.5, "[h]:mm:ss", "36:00:00"),
        ("05320000001", "", "05320000001"),
        ("9.05E+11", "", "9.05E+11"),
        (" NA ", "", " NA "),
        ("null", "", "null"),
        ("two\nlines", "", "two\nlines"),
        ("Işıl", "@", "Işıl"),
    ]

    def fill(book: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        sheet.write_row(0, 0, ["key", "value"])
        for index, (value, shape, _) in enumerate(cases, 1):
            sheet.write(index, 0, "x")
            sheet.write(index, 1, value, book.add_format({"num_format": shape} if shape else {}))

    found = values(open_audience(written(tmp_path, fill)))
    assert [pair[1] for pair in found] == [text for _, _, text in cases]


def test_an_empty_cell_is_an_empty_text(tmp_path: Path) -> None:
    path = table(tmp_path, [["a", "b", "c"], ["1"], [None, None, "3"]])
    assert values(open_audience(path)) == [("1", "", ""), ("", "", "3")]


@pytest.mark.parametrize("prefixed", [False, True])
def test_an_error_cell_keeps_its_name_and_is_noted(tmp_path: Path, prefixed: bool) -> None:
    def fill(_: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        sheet.write_row(1, 1, ["a", "b"])
        sheet.write_row(2, 1, ["x", "y"])
        sheet.write_formula(3, 1, "=NA()", None, "#N/A")
        sheet.write_formula(3, 2, "=1/0", None, "#DIV/0!")

    path = written(tmp_path, fill)
    if prefixed:  # a comment makes the quick scan give way to the careful one
        path = edited(path, SHEET, lambda xml: xml.replace(b"<sheetData>", b"<!-- x --><sheetData>"))
    audience = open_audience(path)
    assert values(audience) == [("x", "y"), ("#N/A", "#DIV/0!")]
    assert audience.notes == ("2 cells hold an error such as #N/A (row 4)",)


def test_a_number_too_long_for_excel_is_written_out_and_noted(tmp_path: Path) -> None:
    audience = open_audience(table(tmp_path, [["id"], [1234567890123456789]]))
    assert values(audience)[0][0].isdigit()
    assert len(values(audience)[0][0]) == 19
    assert "more than 15 digits" in audience.notes[0]
    assert "row 2" in audience.notes[0]


def test_a_phone_number_rounded_by_scientific_notation_is_noted(tmp_path: Path) -> None:
    audience = open_audience(table(tmp_path, [["phone"], [905000000000]]))
    assert "six zeros (first in row 2)" in audience.notes[0]


def test_formulas_that_were_never_calculated_are_noted(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["name", "caption"])
    book.active.append(["Ada", '="Hello "&A2'])
    book.save(tmp_path / "people.xlsx")
    audience = open_audience(tmp_path / "people.xlsx")
    assert values(audience) == [("Ada", "")]
    assert "1 formula cells hold no calculated value" in audience.notes[0]


def test_a_calculated_formula_gives_its_value_without_a_note(tmp_path: Path) -> None:
    def fill(_: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_formula(1, 0, '="a"&"b"', None, "ab")
        sheet.write_formula(1, 1, "=1+1", None, 2)

    audience = open_audience(written(tmp_path, fill))
    assert (values(audience), audience.notes) == ([("ab", "2")], ())


def test_row_numbers_are_those_of_the_sheet_with_blank_rows_above_and_between(tmp_path: Path) -> None:
    path = table(tmp_path, [[], [], ["name", "phone"], ["Ada", 1], [], ["  "], ["Bo", 2]])
    audience = open_audience(path)
    assert audience.header_row == 3
    assert rows(audience) == [Row(4, ("Ada", "1")), Row(7, ("Bo", "2"))]


def test_rows_come_in_chunks(tmp_path: Path) -> None:
    audience = open_audience(table(tmp_path, [["n"], *[[n] for n in range(2, 12)]]))
    assert [len(chunk) for chunk in audience.rows(chunk=4)] == [4, 4, 2]


def test_a_table_that_begins_in_another_column_keeps_its_letters(tmp_path: Path) -> None:
    def fill(_: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        sheet.write_row(0, 2, ["a", "a"])

    assert "columns C and D have the same name" in refused(written(tmp_path, fill))


def test_a_blank_header_above_values_is_an_error(tmp_path: Path) -> None:
    said = refused(table(tmp_path, [["a", None, "c"], ["1", "2", "3"]]))
    assert 'people.xlsx, sheet "Customers", row 1, column B: the column has no name' in said


def test_a_merged_title_row_is_an_error_that_says_so(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        sheet.merge_range(0, 0, 0, 2, "Spring customers", book.add_format())
        sheet.write_row(1, 0, ["name", "phone", "city"])

    assert "the first row must be the header" in refused(written(tmp_path, fill))


def test_a_cell_beyond_the_limit_is_named(tmp_path: Path) -> None:
    path = with_row(
        table(tmp_path, [["a", "b"]]), f'<row r="2"><c r="B2" t="inlineStr"><is><t>{"x" * 100_001}</t></is></c></row>'
    )
    assert "row 2, column B" in refused(path)


def several(folder: Path) -> Path:
    path = folder / "people.xlsx"
    with xlsxwriter.Workbook(path) as book:
        for name in ("Notes", "Customers", "Old"):
            book.add_worksheet(name).write_row(0, 0, [f"{name} column"])
        book.get_worksheet_by_name("Customers").activate()
        book.get_worksheet_by_name("Customers").set_first_sheet()
        book.get_worksheet_by_name("Notes").hide()
    return path


def test_the_first_visible_sheet_is_read_and_the_user_told_of_the_others(tmp_path: Path) -> None:
    audience = open_audience(several(tmp_path))
    assert audience.sheet == "Customers"
    assert 'not "Notes", "Old"' in audience.notes[0]


def test_a_sheet_is_chosen_by_name_even_a_hidden_one(tmp_path: Path) -> None:
    audience = open_audience(several(tmp_path), sheet="Notes")
    assert (audience.columns, audience.notes) == (("Notes column",), ())


def test_a_missing_sheet_is_an_error_with_the_sheets_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_audience(several(tmp_path), sheet="customer")
    assert '"Notes", "Customers", "Old"' in caught.value.problems[0].what
    assert caught.value.problems[0].fix == 'did you mean "Customers"?'


def test_an_empty_sheet_or_file_is_empty(tmp_path: Path) -> None:
    assert "the file is empty" in refused(table(tmp_path, []))
    (tmp_path / "none.xlsx").touch()
    assert "the file is empty" in refused(tmp_path / "none.xlsx")


def test_a_header_alone_is_an_audience_of_nobody(tmp_path: Path) -> None:
    assert rows(open_audience(table(tmp_path, [["name", "phone"]]))) == []


def test_a_workbook_of_openpyxl_reads_the_same_as_one_of_xlsxwriter(tmp_path: Path) -> None:
    content: list[list[object]] = [["name", "phone"], ["Ada", 905320000001], ["Bo", "+49 1512 3456789"]]
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in content:
        book.active.append(row)
    book.save(tmp_path / "other.xlsx")
    assert rows(open_audience(tmp_path / "other.xlsx")) == rows(open_audience(table(tmp_path, content)))


@pytest.mark.parametrize(
    "cell",
    [
        '<c r="XFD1048576"><v>1</v></c>',
        "<c r='XFD1048576'><v>1</v></c>",
        '<c s="0" r="XFD1048576"><v>1</v></c>',
        '<c\n r="XFD1048576"><v>1</v></c>',
        '<!-- x --><c r="XFD1048576"><v>1</v></c>',
        '<c r="XFD1048576" t="inlineStr"><is><t>x</t></is></c>',
        "<c/>" * 600 + "<c><v>1</v></c>",
    ],
)
def test_a_cell_in_the_far_corner_is_refused_before_the_parser_allocates_for_it(tmp_path: Path, cell: str) -> None:
    # In a process of its own: where this fails, calamine aborts the process.
    path = with_row(table(tmp_path, [["phone"], [1]]), f'<row r="1048576">{cell}</row>')
    program = (
        "import sys; from pathlib import Path; from runner.audience import open_audience\n"
        "from runner.errors import ConfinedError\n"
        "try: open_audience(Path(sys.argv[1]))\n"
        "except ConfinedError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert "columns allowed" in done.stdout


def test_a_lying_dimension_does_not_hide_the_far_corner(tmp_path: Path) -> None:
    path = table(tmp_path, [["phone"], [1]])
    path = with_row(path, '<row r="9"><c r="XFD9"><v>1</v></c></row>')
    with zipfile.ZipFile(path) as archive:
        assert b'<dimension ref="A1:A2"/>' in archive.read(SHEET)
    assert "has a cell in column XFD, beyond the 500 columns allowed" in refused(path)


def test_a_sheet_within_the_columns_but_almost_empty_is_refused(tmp_path: Path) -> None:
    path = with_row(table(tmp_path, [["phone"], [1]]), '<row r="200000"><c r="SF200000"><v>1</v></c></row>')
    with pytest.raises(ConfinedError, match="reaches to SF200000"):
        open_audience(path)


def test_empty_cells_that_only_carry_a_colour_are_no_reason_to_refuse(tmp_path: Path) -> None:
    path = with_row(table(tmp_path, [["phone"], [1]]), '<row r="3"><c r="XFD3" s="0"/></row>')
    assert values(open_audience(path)) == [("1",)]


def test_the_scan_of_another_sheet_than_the_chosen_one_is_not_done(tmp_path: Path) -> None:
    path = with_row(several(tmp_path), '<row r="9"><c r="XFD9"><v>1</v></c></row>')  # the hidden sheet "Notes"
    assert open_audience(path).sheet == "Customers"
    with pytest.raises(ConfinedError):
        open_audience(path, sheet="Notes")


def test_cells_are_found_across_the_blocks_in_which_a_sheet_is_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: xlsxwriter.Workbook, sheet: Worksheet) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_row(1, 0, ["x", 1.5])
        sheet.write_formula(2, 1, "=NA()", None, "#N/A")

    path = written(tmp_path, fill)
    whole = workbook_guard.scan_sheet(path, "Customers")
    for size in range(1, 60):
        monkeypatch.setattr(workbook_guard, "_BLOCK", size)
        assert workbook_guard.scan_sheet(path, "Customers") == whole
    assert (whole.cells, whole.last_row, whole.last_column, whole.error_text(0)) == (5, 2, 1, "#N/A")


def test_a_part_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = edited(table(tmp_path, [["a"]]), "", bytes, **{"xl/bomb.xml": bytes(20_000_000)})
    with pytest.raises(ConfinedError, match="more than 200 times its size"):
        open_audience(path)


def test_a_workbook_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook_guard, "MAX_BYTES", 1000)
    with pytest.raises(ConfinedError, match="unpacks to"):
        open_audience(table(tmp_path, [["a"]]))


def test_one_enormous_shared_text_is_refused(tmp_path: Path) -> None:
    noise = b"".join(b"%d " % (n * 7919 % 1_000_003) for n in range(800_000))
    path = edited(
        table(tmp_path, [["a"]]),
        "xl/sharedStrings.xml",
        lambda xml: xml.replace(b"</sst>", b"<si><t>" + noise + b"</t></si></sst>"),
    )
    with pytest.raises(ConfinedError, match="more than 4 MB of text"):
        open_audience(path)


@pytest.mark.parametrize("name", ["../outside.xml", "/etc/x", "xl/../../x", "C:/x", "XL/Workbook.xml"])
def test_parts_with_hostile_or_repeated_names_are_refused(tmp_path: Path, name: str) -> None:
    said = refused(edited(table(tmp_path, [["a"]]), "", bytes, **{name: b"x"}))
    assert "leads out of it" in said or "same name" in said


def test_an_archive_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not an .xlsx workbook" in refused(path)


def test_a_declared_size_that_lies_is_found(tmp_path: Path) -> None:
    path = table(tmp_path, [["a"], ["x" * 500]])
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(SHEET).file_size
    data = path.read_bytes()
    assert data.count(size.to_bytes(4, "little")) >= 2
    path.write_bytes(data.replace(size.to_bytes(4, "little"), (size - 100).to_bytes(4, "little")))
    assert "damaged" in refused(path)


def test_a_damaged_workbook_is_an_input_error(tmp_path: Path) -> None:
    path = table(tmp_path, [["a"], ["b"]])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(path)
    path.write_bytes(whole)
    for part, change in (
        (SHEET, lambda xml: xml[:-40]),
        (SHEET, lambda xml: b'<!DOCTYPE x [<!ENTITY a "b">]>' + xml),
        ("xl/workbook.xml", lambda xml: xml.replace(b"<workbook", b'<!DOCTYPE x [<!ENTITY a "b">]><workbook')),
        ("xl/_rels/workbook.xml.rels", lambda _: b"<Relationships/>"),
    ):
        assert "damaged" in refused(edited(path, part, change)), part


@pytest.mark.parametrize("reference", [' r="%d"', ""])
@pytest.mark.parametrize("value", ['<c r="A%d"><v>1</v></c>', "<c><v>1</v></c>"])
def test_a_sheet_with_more_rows_than_there_can_be_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, value: str
) -> None:
    monkeypatch.setattr(workbook_guard, "MAX_ROWS", 1000)
    monkeypatch.setattr(workbook_guard, "_BLOCK", 10_000)
    line = f"<row{reference}>{value}</row>"
    many = "".join(line.replace("%d", str(number)) for number in range(3, 5000))
    path = with_row(table(tmp_path, [("Phone",), ("1",)]), many + "<never read, or it would be called damaged")
    with pytest.raises(ConfinedError, match="more than the 1,000 rows that a worksheet can have"):
        workbook_guard.scan_sheet(path, "Customers")
