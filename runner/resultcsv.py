"""`results.csv` and `retry.csv`: UTF-8 with a byte-order mark (Excel needs it to see UTF-8), RFC 4180 quoting, CRLF.

In `results.csv` a cell that a spreadsheet would take for a formula stands behind an apostrophe, also a number with a
sign (`'+90 ...`): the exact values are in `results.xlsx`. `retry.csv` is meant to be mended and sent, so there only
what could really run is guarded, and numbers such as `+90 532 ...` or `-1,5` stay byte for byte (see `runner.cells`).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.cells import csv_cells, guard_input, iso_time
from runner.files import atomic_text
from runner.resultset import MAY_GO_INTO_RETRY, ResultRow, ResultSet, header, own_cells

BYTE_ORDER_MARK = "\ufeff"
_AT_ONCE = 200  # rows made into lines together


@contextmanager
def results_csv(path: Path, results: ResultSet) -> Iterator[Callable[[ResultRow], None]]:
    """Yield a function that writes one row to `results.csv`; the file is in place when the block ends well."""
    waiting: list[ResultRow] = []
    with atomic_text(path) as text:
        text.write(BYTE_ORDER_MARK)  # not the codec utf-8-sig: it is written in Python and called for every row
        text.write(",".join(csv_cells(header(results.columns))) + "\r\n")

        def write(row: ResultRow) -> None:
            waiting.append(row)
            if len(waiting) >= _AT_ONCE:
                flush()

        def flush() -> None:
            text.write(_lines(waiting, results.columns))
            waiting.clear()

        yield write
        if waiting:
            flush()


def _lines(rows: Sequence[ResultRow], columns: tuple[str, ...]) -> str:
    """Several rows as lines of the file. Column by column: see `csv_cells`."""
    (
        numbers,
        phones,
        statuses,
        _,
        _,
        codes,
        queue_ids,
        providers,
        attempts,
        first,
        last,
        deliveries,
        images,
        captions,
        own,
    ) = zip(*rows, strict=True)
    if set(map(len, own)) != {len(columns)}:
        own = tuple(own_cells(row, columns) for row in rows)
    begun = list(map(iso_time, first))
    cells: list[Iterable[str]] = [
        ["" if number is None else str(number) for number in numbers],
        csv_cells(phones),
        csv_cells(statuses),
        csv_cells([row.why if row.reason or row.detail else "" for row in rows]),
        csv_cells(codes),
        csv_cells(queue_ids),
        csv_cells(providers),
        map(str, attempts),
        begun,
        begun if last == first else map(iso_time, last),
        csv_cells(deliveries),
        csv_cells(images),
        csv_cells(captions),
        *map(csv_cells, zip(*own, strict=True)),
    ]
    return "\r\n".join(map(",".join, zip(*cells, strict=True))) + "\r\n"


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
