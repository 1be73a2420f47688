"""Writes the results of a settled campaign, one way, in a process of its own: `python -m benchmarks.writers WAY ROOT FOLDER`.

`none` only starts, `read` goes through the rows as the result files see them, `xlsx` and `csv` are the runner's own files,
`plain-csv` is the csv module, `xlsxwriter` is XlsxWriter in its mode for large files. Prints wall, processor time and peak memory.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from benchmarks.settled import CAMPAIGN
from benchmarks.watching import peak_of_mine
from runner.ledger import open_ledger
from runner.outcome_files import result_set
from runner.results import ResultSet, write_results
from runner.resultset import COLUMNS
from runner.workspace import Workspace

PEER_ROWS = 50_000  # of XlsxWriter: it is slow, and its cost by the row does not change


def _rows(results: ResultSet) -> Iterator[list[object]]:
    for row in results.read_rows():
        yield [getattr(row, name, "") for name in COLUMNS] + list(row.own)


def _read(results: ResultSet, _folder: Path) -> int:
    return sum(1 for _ in results.read_rows())


def _own(kind: str) -> Callable[[ResultSet, Path], int]:
    def write(results: ResultSet, folder: Path) -> int:
        return write_results(results, folder, [kind]).totals.input_rows

    return write


def _plain_csv(results: ResultSet, folder: Path) -> int:
    count = 0
    with (folder / "plain.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for row in _rows(results):
            writer.writerow(row)
            count += 1
    return count


def _xlsxwriter(results: ResultSet, folder: Path) -> int:
    import xlsxwriter  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed

    count = 0
    with xlsxwriter.Workbook(folder / "plain.xlsx", {"constant_memory": True, "strings_to_formulas": False}) as book:
        sheet = book.add_worksheet()
        for row in islice(_rows(results), PEER_ROWS):
            sheet.write_row(count, 0, row)
            count += 1
    return count


WAYS: dict[str, Callable[[ResultSet, Path], int]] = {
    "none": lambda _results, _folder: 0,
    "read": _read,
    "csv": _own("csv"),
    "xlsx": _own("xlsx"),
    "plain-csv": _plain_csv,
    "xlsxwriter": _xlsxwriter,
}


def main() -> None:
    """One way, from the ledger to files in FOLDER."""
    way, root, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    place = Workspace(root)
    ledger = open_ledger(place.ledger_path, create=False)
    began, used = time.perf_counter(), time.process_time()
    rows = WAYS[way](result_set(place, ledger, CAMPAIGN), folder)
    took = {"wall": time.perf_counter() - began, "cpu": time.process_time() - used, "rows": rows}
    ledger.close()
    print(json.dumps({**took, "peak": peak_of_mine()}))


if __name__ == "__main__":
    main()
