"""Rows of a worksheet as XML: what goes in is what a spreadsheet program reads, whatever it is."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from pathlib import Path

import openpyxl
import pytest
import python_calamine
from hostile_strings import HOSTILE_STRINGS

from runner.cells import fit
from runner.rowxml import CellKind, RowXml, text_element
from runner.streambook import BookColumn, BookPlan, StreamBook

KINDS = (CellKind("A", 1, number=True), CellKind("B", 2, worded=True), CellKind("C", 3), CellKind("D", 4))


def row(*values: str, at: int = 2) -> str:
    return RowXml(KINDS, {"sent": 9}, 30).row(at, values)


def a_book(path: Path, rows: Sequence[tuple[str, ...]], sheet_rows: int = 1_048_576) -> Path:
    columns = tuple(BookColumn(f"c{n}", 20, "plain") for n in range(len(rows[0])))
    with path.open("wb") as file:
        book = StreamBook(file, BookPlan("Rows", columns, 1, {}, lambda _: None, sheet_rows))
        for one in rows:
            book.add(one)
        book.finish()
        book.close()
    return path


def test_a_row_has_its_number_in_every_cell_and_leaves_out_what_is_blank() -> None:
    assert row("7", "sent", "", "Ayşe 🌷\nhi", at=12) == (
        '<row r="12" ht="30" customHeight="1"><c r="A12" s="1"><v>7</v></c>'
        '<c r="B12" s="9" t="inlineStr"><is><t>sent</t></is></c>'
        '<c r="D12" s="4" t="inlineStr"><is><t>Ayşe 🌷\nhi</t></is></c></row>'
    )


def test_a_word_without_a_look_of_its_own_has_the_columns_look() -> None:
    assert 'r="B2" s="2"' in row("1", "maybe", "x", "y")


@pytest.mark.parametrize(
    ("text", "element"),
    [
        ("a & b <i>", "<t>a &amp; b &lt;i&gt;</t>"),
        (" x", '<t xml:space="preserve"> x</t>'),
        ("x\n", '<t xml:space="preserve">x\n</t>'),
        ("_x0041_", "<t>_x005F_x0041_</t>"),
        ("a\r\nb\rc", "<t>a\nb\nc</t>"),
        ("a\x00b\ud800", "<t>a\ufffdb\ufffd</t>"),
        ("%s %d %", "<t>%s %d %</t>"),
        ("a|b", "<t>a|b</t>"),
        ("<a|b", "<t>&lt;a|b</t>"),
    ],
)
def test_text_is_escaped_the_same_alone_and_among_others(text: str, element: str) -> None:
    assert text_element(text) == element
    for others in (("plain", "plain"), ("\x01", "& <"), ("|", "x"), ("", " ")):
        assert f"<is>{element}</is>" in row("1", "sent", text, others[0])
        assert f"<is>{element}</is>" in row("1", others[1], others[0], text)


def test_every_hostile_text_is_read_back_as_it_was_by_two_readers(tmp_path: Path) -> None:
    rows = [(text, "x", other) for text, other in zip(HOSTILE_STRINGS, reversed(HOSTILE_STRINGS), strict=True)]
    path = a_book(tmp_path / "book.xlsx", rows)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            ET.fromstring(archive.read(name))  # noqa: S314 - our own file: is it well-formed?
        assert b"<f" not in archive.read("xl/worksheets/sheet1.xml")
    calamine = python_calamine.load_workbook(path).get_sheet_by_name("Rows").to_python()[1:]
    book = openpyxl.load_workbook(path)
    by_openpyxl = list(book["Rows"].iter_rows(min_row=2, values_only=True))
    book.close()
    assert len(calamine) == len(by_openpyxl) == len(rows)
    for expected, one, other in zip(rows, calamine, by_openpyxl, strict=True):
        assert list(one) == [fit(text) for text in expected]
        assert [str(cell or "").replace("_x005F_", "_") for cell in other] == [fit(text) for text in expected]


def test_the_package_is_told_from_an_ordinary_archive_by_its_first_parts(tmp_path: Path) -> None:
    """`file` and mail gateways look at the names of the first four."""
    path = a_book(tmp_path / "book.xlsx", [("a", "b")])
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[:4] == [
            "_rels/.rels",
            "docProps/core.xml",
            "xl/theme/theme1.xml",
            "xl/worksheets/sheet1.xml",
        ]
        assert len(set(archive.namelist())) == len(archive.namelist())
        assert archive.testzip() is None


def test_only_the_first_sheet_is_selected(tmp_path: Path) -> None:
    """Two selected sheets are a group in Excel: what is typed into one goes into both."""
    path = a_book(tmp_path / "book.xlsx", [("a", "b")] * 5, sheet_rows=3)
    with zipfile.ZipFile(path) as archive:
        selected = [b"tabSelected" in archive.read(f"xl/worksheets/sheet{number}.xml") for number in (1, 2, 3)]
    assert selected == [True, False, False]


def test_an_unfinished_book_lets_go_of_its_file_without_a_word() -> None:
    handle = io.BytesIO()
    book = StreamBook(handle, BookPlan("Rows", (BookColumn("c", 9, "plain"),), 0, {}, lambda _: None))
    for number in range(1000):
        book.add((f"row {number}",))
    handle.close()
    book.release()
