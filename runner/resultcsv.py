"""`results.csv` and `retry.csv`: UTF-8 with a byte-order mark (Excel needs it to see UTF-8), RFC 4180 quoting, CRLF.

In `results.csv` a cell that a spreadsheet would take for a formula stands behind an apostrophe, also a number with a
sign (`'+90 ...`): the exact values are in `results.xlsx`. `retry.csv` is meant to be mended and sent, so there only
what could really run is guarded, and numbers such as `+90 532 ...` or `-1,5` stay byte for byte (see `runner.cells`).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.cells import guard, guard_input, iso_time
from runner.files import atomic_text
from runner.resultset import ResultRow, ResultSet, header, own_cells

BYTE_ORDER_MARK = "\ufeff"


@contextmanager
def results_csv(path: Path, results: ResultSet) -> Iterator[Callable[[ResultRow], None]]:
    """Yield a function that writes one row to `results.csv`; the file is in place when the block ends well."""
    columns = results.columns
    with atomic_text(path) as text:
        text.write(BYTE_ORDER_MARK)  # not the codec utf-8-sig: it is written in Python and called for every row
        writer = csv.writer(text)
        writer.writerow([guard(name) for name in header(columns)])

        def write(row: ResultRow) -> None:
            writer.writerow(
                (
                    "" if row.row is None else row.row,
                    guard(row.phone),
                    guard(row.status),
                    guard(row.why),
                    guard(row.code),
                    guard(row.queue_id),
                    guard(row.provider),
                    row.attempts,
                    iso_time(row.first_attempt_at),
                    iso_time(row.last_attempt_at),
                    guard(row.delivery),
                    guard(row.image),
                    guard(row.caption),
                    *map(guard, own_cells(row, columns)),
                )
            )

        yield write


@contextmanager
def retry_csv(path: Path, results: ResultSet) -> Iterator[Callable[[ResultRow], None]]:
    """Yield a function that writes a row to `retry.csv` if it belongs there; in place when the block ends well."""
    columns = results.columns
    with atomic_text(path) as text:
        text.write(BYTE_ORDER_MARK)
        writer = csv.writer(text)
        writer.writerow([guard_input(name) for name in columns])

        def write(row: ResultRow) -> None:
            if row.goes_into_retry:
                writer.writerow([guard_input(value) for value in own_cells(row, columns)])

        yield write
