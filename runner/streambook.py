"""A workbook with one long table: rows are packed into the file as they come, XlsxWriter makes everything around them.

XlsxWriter writes the same workbook twice without its rows, in a few milliseconds: once before them (styles, columns and
header of a sheet) and once after them, when it is known how far they reach and what the further sheets say. Of the first
copy the beginnings of the sheets are used, of the last one their ends and all other parts. A million rows of 18 cells thus
take 100 to 150 MB on disk and no memory that grows (measured: XlsxWriter alone needs twenty times the processor time, and
its parts lie on the disk unpacked, a gigabyte of phone numbers).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import IO, TYPE_CHECKING, BinaryIO, Literal

import xlsxwriter  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed

from runner.header import column_letter
from runner.model import Status
from runner.resultlook import Look
from runner.rowxml import CellKind, RowXml

if TYPE_CHECKING:
    from xlsxwriter.workbook import Workbook  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed
    from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]  # as above

SHEET_ROWS = 1_048_576  # Microsoft, 'Excel specifications and limits'

_ROW_HEIGHT = 30  # points: two lines of a caption; the whole of it shows in the formula bar
_HEADER_HEIGHT = 22
_LEVEL = 2  # of packing. Measured, µs and packed bytes a row: 1 5.0 129, 2 3.7 124, 3 5.1 115, 6 13.0 101
_BATCH = 200  # rows packed at once
_FIRST = (
    "_rels/.rels",
    "docProps/core.xml",
    "xl/theme/theme1.xml",
)  # by these `file` knows it for more than an archive
_KINDS = ("plain", "wrapped", "number", "time")


@dataclass(frozen=True, slots=True)
class BookColumn:
    """One column of the table."""

    name: str
    width: float  # in characters, as Excel counts them
    kind: Literal["plain", "wrapped", "number", "time", "status"]
    ours: bool = True  # the header of the others is of another colour


@dataclass(frozen=True, slots=True)
class BookPlan:
    """What the workbook is, apart from its rows."""

    title: str  # of the table's sheets: 'Results', then 'Results 2' ...
    columns: tuple[BookColumn, ...]
    frozen_columns: int
    properties: dict[str, str | datetime]  # as XlsxWriter's set_properties takes them
    finish_sheet: Callable[[Worksheet], None]  # the print set-up
    sheet_rows: int = SHEET_ROWS  # header included
    words: Mapping[str, Status] = field(default_factory=dict)  # words that look like a status, beside the statuses


class StreamBook:
    """One workbook being written to `handle`. Rows first, in order; then `finish` once; then `close`.

    Raises the OSError itself when the disk does not take it; call `release` at the end in any case.
    """

    def __init__(self, handle: BinaryIO, plan: BookPlan) -> None:
        self._outlet = _Outlet(handle)
        self._archive = zipfile.ZipFile(self._outlet, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._plan = plan
        self._opening = _Frame(plan, [1, 1])
        self._xml = RowXml(self._kinds(), self._opening.words, _ROW_HEIGHT)
        self._lines: list[str] = []
        self._last_rows: list[int] = []  # of the sheets that are full
        self._part: IO[bytes] | None = None
        self._next = 0
        self._written: set[str] = set()

    def add(self, values: Sequence[str]) -> None:
        """The next row: one value for each column, numbers as they stand in XML, '' for none."""
        if self._next > self._plan.sheet_rows:
            self._end_sheet()
        if not self._next:
            self._start_sheet()
        self._lines.append(self._xml.row(self._next, values))
        self._next += 1
        if len(self._lines) >= _BATCH:
            self._flush()

    def finish(self, further: Callable[[Workbook, Look], None] = lambda _book, _look: None) -> None:
        """End the table; `further` adds the sheets that follow it."""
        if not self._next:
            self._start_sheet()
        self._end_sheet()
        frame = _Frame(self._plan, self._last_rows, further)
        if frame.styles != self._opening.styles:  # the rows bear the numbers of the opening frame's formats
            raise RuntimeError("XlsxWriter numbered the formats of one workbook in two ways")
        for name, part in frame.parts.items():
            if name not in self._written:
                self._archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED, _LEVEL)

    def close(self) -> None:
        """Write the list of the parts: the file is whole."""
        self._archive.close()

    def release(self) -> None:
        """Let go of the file, whether it was finished or not."""
        self._outlet.given_up = True
        if self._part is not None:
            self._part.close()
        self._archive.close()

    def _kinds(self) -> list[CellKind]:
        styles = self._opening.styles
        return [
            CellKind(
                column_letter(place),
                styles["plain" if column.kind == "status" else column.kind],
                number=column.kind in ("number", "time"),
                worded=column.kind == "status",
            )
            for place, column in enumerate(self._plan.columns)
        ]

    def _start_sheet(self) -> None:
        if not self._written:
            for name in _FIRST:
                self._archive.writestr(zipfile.ZipInfo(name), self._opening.parts[name], zipfile.ZIP_DEFLATED, _LEVEL)
                self._written.add(name)
        name = _part_name(len(self._last_rows) + 1)
        self._written.add(name)
        self._part = self._archive.open(name, "w", force_zip64=True)
        self._part.write(self._opening.head(min(len(self._last_rows), 1) + 1))
        styles = self._opening.styles
        kinds = [
            CellKind(column_letter(place), styles["header" if column.ours else "own_header"])
            for place, column in enumerate(self._plan.columns)
        ]
        self._lines = [RowXml(kinds, {}, _HEADER_HEIGHT).row(1, [column.name for column in self._plan.columns])]
        self._next = 2

    def _flush(self) -> None:
        assert self._part is not None  # noqa: S101 - rows are only added to an open part
        self._part.write("".join(self._lines).encode())
        self._lines.clear()

    def _end_sheet(self) -> None:
        self._flush()
        self._last_rows.append(self._next - 1)
        part, self._part = self._part, None
        assert part is not None  # noqa: S101 - as above
        try:
            part.write(_Frame(self._plan, self._last_rows).tail(len(self._last_rows)))
        finally:
            part.close()
        self._next = 0


class _Frame:
    """The workbook without its rows. Its parts by name, and the numbers of the formats that rows use."""

    def __init__(
        self,
        plan: BookPlan,
        last_rows: Sequence[int],
        further: Callable[[Workbook, Look], None] = lambda _book, _look: None,
    ) -> None:
        memory = BytesIO()
        book = xlsxwriter.Workbook(
            memory,
            {
                "in_memory": True,
                "strings_to_formulas": False,
                "strings_to_urls": False,
                "strings_to_numbers": False,
            },
        )
        book.set_properties(plan.properties)
        look = Look(book)
        formats = {name: getattr(look, name) for name in (*_KINDS, "header", "own_header")} | look.statuses
        for number, last_row in enumerate(last_rows, 1):
            sheet = book.add_worksheet(plan.title if number == 1 else f"{plan.title} {number}")
            # One height for all: LibreOffice lays wrapped captions over the next rows when a row has no height of its own.
            sheet.set_default_row(_ROW_HEIGHT)
            for place, column in enumerate(plan.columns):
                sheet.set_column(place, place, column.width, None if column.ours else look.plain)
            for place, one in enumerate(formats.values()):  # a specimen of each, to read its number from
                sheet.write_blank(1, place, None, one)
            sheet.freeze_panes(1, plan.frozen_columns)
            sheet.autofilter(0, 0, last_row - 1, len(plan.columns) - 1)
            sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})
            plan.finish_sheet(sheet)
        further(book, look)
        book.close()
        with zipfile.ZipFile(memory) as archive:
            self.parts = {name: archive.read(name) for name in archive.namelist()}
        specimens = re.findall(rb'<c r="[A-Z]+2" s="(\d+)"/>', self.parts[_part_name(1)])
        self.styles = {name: int(number) for name, number in zip(formats, specimens, strict=True)}
        statuses = {**{word: word for word in look.statuses}, **plan.words}
        self.words = {str(word): self.styles[status] for word, status in statuses.items()}

    def head(self, sheet: int) -> bytes:
        """The sheet's XML up to its first row. Its dimension is left out: it would be the specimen's."""
        head, found, _ = self.parts[_part_name(sheet)].partition(b"<sheetData>")
        return re.sub(rb"<dimension [^>]*>", b"", head, count=1) + found

    def tail(self, sheet: int) -> bytes:
        """The sheet's XML after its last row."""
        _, found, tail = self.parts[_part_name(sheet)].partition(b"</sheetData>")
        return found + tail


class _Outlet:
    """The file as zipfile sees it; once given up, it takes everything and keeps nothing.

    An archive that failed (measured: disk full while it was written) writes its last record when it is collected, long
    after the file was closed, and Python reports that on stderr.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.given_up = False

    def write(self, data: bytes, /) -> int:
        return len(data) if self.given_up else self._handle.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0 if self.given_up else self._handle.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self.given_up else self._handle.tell()

    def flush(self) -> None:
        if not self.given_up:
            self._handle.flush()

    def close(self) -> None:
        """Nothing: who opened the file closes it."""


def _part_name(sheet: int) -> str:
    return f"xl/worksheets/sheet{sheet}.xml"
