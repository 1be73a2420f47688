"""`results.xlsx`: the rows on Results (and Results 2, ... past a sheet's last row), then Summary and Failures.

Every outside value is stored as text (`runner.rowxml`, `cells.write_text`), so no cell is a formula or a link, whatever it
says. Summary and Failures follow the rows because they are counted from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from runner.cells import clean, excel_time
from runner.errors import InputError, Problem
from runner.files import atomic_write
from runner.resultlook import Look, print_setup
from runner.resultset import COLUMNS, ResultRow, ResultSet, header, own_cells
from runner.resultsummary import write_failures, write_summary
from runner.streambook import SHEET_ROWS, BookColumn, BookPlan, StreamBook

if TYPE_CHECKING:
    from xlsxwriter.workbook import Workbook  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed

    from runner.totals import Group, Summary

SHEET_COLUMNS = 16_384

_Kind = Literal["plain", "wrapped", "number", "time", "status"]
_OURS: tuple[tuple[_Kind, float, float], ...] = (  # of each of COLUMNS: kind, narrowest and widest
    ("number", 7, 7),
    ("plain", 15, 20),
    ("status", 11, 11),
    ("wrapped", 36, 36),
    ("plain", 8, 16),
    ("plain", 12, 44),
    ("plain", 10, 16),
    ("number", 10, 10),
    ("time", 25, 25),
    ("time", 25, 25),
    ("plain", 10, 12),
    ("plain", 20, 60),
    ("wrapped", 60, 60),
)
_OWN: tuple[_Kind, float, float] = ("plain", 10, 40)
_SAMPLE = 200  # rows whose values decide how wide the columns are


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
    with atomic_write(path) as handle:
        book = ResultBook(handle, results, sheet_rows=sheet_rows)
        try:
            yield book
            book.close()
        finally:
            book.release()


class ResultBook:
    """One workbook being written. Rows first, in order; then `finish` once; then `close`."""

    def __init__(self, handle: BinaryIO, results: ResultSet, *, sheet_rows: int) -> None:
        self._handle = handle
        self._results = results
        self._sheet_rows = sheet_rows
        self._width = len(results.columns)
        self._sample: list[ResultRow] = []  # the first rows, until the columns' widths are decided
        self._book: StreamBook | None = None

    def add(self, row: ResultRow) -> None:
        """Write the next row."""
        if self._book is not None:
            self._book.add(self._values(row))
            return
        self._sample.append(row)
        if len(self._sample) >= _SAMPLE:
            self._open()

    def finish(self, totals: Summary, groups: tuple[Group, ...]) -> None:
        """Add the Summary and Failures sheets."""

        def further(book: Workbook, look: Look) -> None:
            write_summary(book, look, totals)
            write_failures(book, look, self._results, groups)

        (self._book or self._open()).finish(further)

    def close(self) -> None:
        """Write the workbook out. Raises the OSError itself when the disk does not take it."""
        if self._book is not None:
            self._book.close()

    def release(self) -> None:
        """Let go of the file, whether the workbook was finished or not."""
        if self._book is not None:
            self._book.release()

    def _open(self) -> StreamBook:
        results = self._results
        names = header(results.columns)
        rows = [self._values(row) for row in self._sample]
        columns = []
        for place, name in enumerate(names):
            kind, narrow, wide = _OURS[place] if place < len(_OURS) else _OWN
            widest = max((len(row[place]) for row in rows), default=0)
            width = min(max(widest + 2, len(name) + 5, narrow), wide)  # and room for the filter's arrow
            columns.append(BookColumn(name, width, kind, ours=place < len(_OURS)))
        book = self._book = StreamBook(
            self._handle,
            BookPlan(
                title="Results",
                columns=tuple(columns),
                frozen_columns=3,
                properties={
                    "title": clean(f"Results of {results.campaign}"),
                    "created": datetime.fromtimestamp(results.generated_at // 1_000_000, UTC),
                },
                finish_sheet=partial(print_setup, campaign=results.campaign, sandbox=results.sandbox),
                sheet_rows=self._sheet_rows,
            ),
        )
        for values in rows:
            book.add(values)
        self._sample.clear()
        return book

    def _values(self, row: ResultRow) -> list[str]:
        (
            number,
            phone,
            status,
            reason,
            detail,
            code,
            queue_id,
            provider,
            attempts,
            first,
            last,
            delivery,
            image,
            caption,
            own,
        ) = row  # at once: fifteen names of a million rows take a second more (measured)
        begun = "" if first is None else repr(excel_time(first))
        return [
            "" if number is None else str(number),
            phone,
            status,
            row.why if reason or detail else "",
            code,
            queue_id,
            provider,
            str(attempts),
            begun,
            begun if last == first else "" if last is None else repr(excel_time(last)),
            delivery,
            image,
            caption,
            *(own if len(own) == self._width else own_cells(row, self._results.columns)),
        ]
