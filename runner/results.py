"""The result files of a campaign: the spreadsheet that came in goes back out, with what became of every row.

`write_results` streams the rows once and writes every file as it goes, in constant memory. Each file is replaced only
when it is whole; `summary.json` comes last. Nothing here reads the ledger: rows, counts and words are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from runner.errors import InputError, Problem
from runner.files import private_folder, write_bytes
from runner.resultbook import check_width, result_book
from runner.resultcsv import results_csv, retry_csv
from runner.resultset import COLUMNS, ResultRow, ResultSet
from runner.totals import Group, Summary, Tally

__all__ = ["COLUMNS", "FORMATS", "ResultRow", "ResultSet", "Summary", "Written", "summary", "write_results"]

FORMATS = ("xlsx", "csv")
"""The formats of the results themselves; `retry.csv` and `summary.json` are always written."""


@dataclass(frozen=True, slots=True)
class Written:
    """The files of one campaign as they now lie on disk."""

    paths: Mapping[str, Path]  # file name -> path
    totals: Summary
    groups: tuple[Group, ...]  # the failures, by how to mend them

    @property
    def reconciled(self) -> bool:
        """Whether the totals add up. When they do not, the files are there all the same and say so."""
        return self.totals.reconciled


def summary(results: ResultSet) -> Summary:
    """The totals alone, without writing a file. Reads every row once."""
    tally = Tally()
    for row in results.read_rows():
        tally.add(row)
    return tally.summary(results)


def write_results(
    results: ResultSet, folder: Path, formats: Collection[str], *, also: Callable[[ResultRow], None] | None = None
) -> Written:
    """Write `retry.csv`, `summary.json` and the results in each of `formats` into `folder`.

    `also` is shown every row in passing, so that nobody has to read them again.

    A file of a format that is not asked for is left alone. When anything fails half way, no file is replaced.
    Raises InputError for an unknown format, an audience too wide for a worksheet, or a folder that cannot be written;
    CampaignError when the disk is full.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise InputError(
            Problem("report.formats", f"{', '.join(unknown)}: no such format", f"choose from {', '.join(FORMATS)}")
        )
    if "xlsx" in formats:
        check_width(results)
    private_folder(folder)
    names = [f"results.{kind}" for kind in FORMATS if kind in formats] + ["retry.csv", "summary.json"]
    paths = {name: folder / name for name in names}

    tally = Tally()
    with ExitStack() as files:
        writers: list[Callable[[ResultRow], None]] = [
            tally.add,
            files.enter_context(retry_csv(paths["retry.csv"], results)),
        ]
        if also is not None:
            writers.append(also)
        if "csv" in formats:
            writers.append(files.enter_context(results_csv(paths["results.csv"], results)))
        book = files.enter_context(result_book(paths["results.xlsx"], results)) if "xlsx" in formats else None
        if book:
            writers.append(book.add)
        for row in results.read_rows():
            for write in writers:
                write(row)
        totals, groups = tally.summary(results, tuple(names)), tally.groups()
        if book:
            book.finish(totals, groups)
    write_bytes(paths["summary.json"], totals.to_json())
    return Written(paths, totals, groups)
