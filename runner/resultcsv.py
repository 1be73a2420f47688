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

from runner.cells import csv_cells, guard_input, iso_time
from runner.files import atomic_text
from runner.resultset import MAY_GO_INTO_RETRY, ResultRow, ResultSet, header, own_cells

BYTE_ORDER_MARK = "\ufeff"
_AT_ONCE = 200  # lines handed to the file together


@contextmanager
def results_csv(path: Path, results: ResultSet) -> Iterator[Callable[[ResultRow], None]]:
    """Yield a function that writes one row to `results.csv`; the file is in place when the block ends well."""
    columns, width = results.columns, len(results.columns)
    with atomic_text(path) as text:
        text.write(BYTE_ORDER_MARK)  # not the codec utf-8-sig: it is written in Python and called for every row
        lines = [",".join(csv_cells(header(columns))) + "\r\n"]

        def write(row: ResultRow) -> None:
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
            begun = iso_time(first)
            why = row.why if reason or detail else ""
            values = own if len(own) == width else own_cells(row, columns)
            cells = csv_cells((phone, status, why, code, queue_id, provider, delivery, image, caption, *values))
            cells[6:6] = (str(attempts), begun, begun if last == first else iso_time(last))
            lines.append(f"{'' if number is None else number},{','.join(cells)}\r\n")
            if len(lines) >= _AT_ONCE:
                flush()

        def flush() -> None:
            text.write("".join(lines))
            lines.clear()

        yield write
        flush()


@contextmanager
def retry_csv(path: Path, results: ResultSet) -> Iterator[Callable[[ResultRow], None]]:
    """Yield a function that writes a row to `retry.csv` if it belongs there; in place when the block ends well."""
    columns = results.columns
    with atomic_text(path) as text:
        text.write(BYTE_ORDER_MARK)
        writer = csv.writer(text)
        writer.writerow([guard_input(name) for name in columns])

        def write(row: ResultRow) -> None:
            if row.status in MAY_GO_INTO_RETRY and row.goes_into_retry:  # not of nearly everybody, then
                writer.writerow([guard_input(value) for value in own_cells(row, columns)])

        yield write
