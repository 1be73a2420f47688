"""`results.xlsx`: the rows on Results (and Results 2, ... past a sheet's last row), then Summary and Failures.

Rows go to disk as they come (XlsxWriter's constant memory); every outside value goes through `cells.write_text`, so no
cell is a formula or a link, whatever it says. Summary and Failures follow the rows because they are counted from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import xlsxwriter  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed
from xlsxwriter.exceptions import FileCreateError  # type: ignore[import-untyped]  # as above

from runner.cells import clean, excel_time, write_text
from runner.errors import InputError, Problem
from runner.files import atomic_write, scratch_folder
from runner.resultlook import Look, print_setup
from runner.resultset import COLUMNS, ResultRow, ResultSet, header, own_cells
from runner.resultsummary import write_failures, write_summary

if TYPE_CHECKING:
    from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]  # as above

    from runner.totals import Group, Summary

SHEET_ROWS = 1_048_576  # Microsoft, 'Excel specifications and limits'
SHEET_COLUMNS = 16_384

_WIDTHS = (7, 17, 11, 36, 8, 24, 10, 9, 25, 25, 10, 38, 60)
_OWN_WIDTHS = (10, 40)  # narrowest and widest column of the audience's own
_ROW_HEIGHT = 30  # points: two lines of a caption; the whole of it shows in the formula bar
_SAMPLE = 200  # rows whose values decide how wide the audience's own columns are


def check_width(results: ResultSet) -> None:
    """Raise InputError when the audience has more columns than fit beside ours in a worksheet."""
    if len(COLUMNS) + len(results.columns) > SHEET_COLUMNS:
        raise InputError(
            Problem(
                "report.formats",
                f"xlsx: the audience has {len(results.columns)} columns; a worksheet holds {SHEET_COLUMNS},"
                f" {len(COLUMNS)} of them ours",
                "ask for csv alone",
            )
        )


@contextmanager
def result_book(path: Path, results: ResultSet, *, sheet_rows: int = SHEET_ROWS) -> Iterator[ResultBook]:
    """Yield a workbook to add rows to and then `finish`; the file is in place when the block ends well."""
    with atomic_write(path) as handle, scratch_folder(path) as scratch:
        book = ResultBook(handle, results, scratch=scratch, sheet_rows=sheet_rows)
        try:
            yield book
            book.close()
        finally:
            book.release()


class _Outlet:
    """The file as XlsxWriter sees it; once given up, it takes everything and keeps nothing.

    A zip archive that failed (measured: disk full while the parts were packed) writes its last record when it is
    collected, long after the file was closed, and Python reports that on stderr.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.given_up = False

    def write(self, data: bytes) -> int:
        return len(data) if self.given_up else self._handle.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0 if self.given_up else self._handle.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self.given_up else self._handle.tell()

    def flush(self) -> None:
        if not self.given_up:
            self._handle.flush()


class ResultBook:
    """One workbook being written. Rows first, in order; then `finish` once; then `close`."""

    def __init__(self, handle: BinaryIO, results: ResultSet, *, scratch: Path, sheet_rows: int) -> None:
        self._outlet = _Outlet(handle)
        self._book = xlsxwriter.Workbook(
            self._outlet,
            {
                "constant_memory": True,
                "tmpdir": str(scratch),
                "strings_to_formulas": False,
                "strings_to_urls": False,
                "strings_to_numbers": False,
                "use_zip64": True,
            },
        )
        written_at = datetime.fromtimestamp(results.generated_at // 1_000_000, UTC)
        self._book.set_properties({"title": clean(f"Results of {results.campaign}"), "created": written_at})
        self._results = results
        self._header = header(results.columns)
        self._look = Look(self._book)
        self._sheet_rows = sheet_rows
        self._own_widths = [len(name) + 3 for name in self._header[len(COLUMNS) :]]  # and room for the filter's arrow
        self._sheets: list[Worksheet] = []
        self._next = 0
        self._written = 0
        self._start_sheet()

    def add(self, row: ResultRow) -> None:
        """Write the next row."""
        if self._next == self._sheet_rows:
            self._close_sheet()
            self._start_sheet()
        sheet, at, look = self._sheets[-1], self._next, self._look
        own = own_cells(row, self._results.columns)
        if row.row is not None:
            sheet.write_number(at, 0, row.row, look.number)
        write_text(sheet, at, 1, row.phone, look.plain)
        write_text(sheet, at, 2, row.status, look.statuses.get(row.status, look.plain))
        for column, text in ((3, row.why), (12, row.caption)):
            if text:
                write_text(sheet, at, column, text, look.wrapped)
        for column, text in (
            (4, row.code),
            (5, row.queue_id),
            (6, row.provider),
            (10, row.delivery),
            (11, row.image),
            *enumerate(own, len(COLUMNS)),
        ):
            if text:
                write_text(sheet, at, column, text, look.plain)
        sheet.write_number(at, 7, row.attempts, look.number)
        for column, time in ((8, row.first_attempt_at), (9, row.last_attempt_at)):
            if time is not None:
                sheet.write_number(at, column, excel_time(time), look.time)
        if self._written < _SAMPLE:
            self._own_widths = [max(width, len(text)) for width, text in zip(self._own_widths, own, strict=True)]
        self._next += 1
        self._written += 1

    def finish(self, totals: Summary, groups: tuple[Group, ...]) -> None:
        """Add the Summary and Failures sheets."""
        self._close_sheet()
        write_summary(self._book, self._look, totals)
        write_failures(self._book, self._look, self._results, groups)

    def close(self) -> None:
        """Write the workbook out. Raises the OSError itself when the disk does not take it."""
        try:
            self._book.close()
        except FileCreateError as error:
            raise error.args[0] from None

    def release(self) -> None:
        """Let go of the file and of the parts on their way to it, whether the workbook was finished or not."""
        self._outlet.given_up = True
        for sheet in self._book.worksheets():
            sheet._opt_close()

    def _start_sheet(self) -> None:
        number = len(self._sheets) + 1
        sheet = self._book.add_worksheet("Results" if number == 1 else f"Results {number}")
        self._sheets.append(sheet)
        # One height for all: LibreOffice lays wrapped captions over the next rows when a row has no height of its own.
        sheet.set_default_row(_ROW_HEIGHT)
        sheet.set_row(0, 22)
        for column, name in enumerate(self._header):
            look = self._look.header if column < len(COLUMNS) else self._look.own_header
            write_text(sheet, 0, column, name, look)
        self._next = 1

    def _close_sheet(self) -> None:
        sheet, look = self._sheets[-1], self._look
        for column, width in enumerate(_WIDTHS):
            sheet.set_column(column, column, width)
        narrow, wide = _OWN_WIDTHS
        for column, width in enumerate(self._own_widths, len(COLUMNS)):
            sheet.set_column(column, column, min(max(width + 2, narrow), wide), look.plain)
        last_column = len(self._header) - 1
        sheet.freeze_panes(1, 3)
        sheet.autofilter(0, 0, self._next - 1, last_column)
        sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})
        print_setup(sheet, campaign=self._results.campaign, sandbox=self._results.sandbox)
