"""Result files: from the ledger of a settled campaign to CSV and XLSX, beside the csv module and XlsxWriter on the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.everyday import Took, timed
from benchmarks.figures import Measure, Part, Row, Table, Target
from benchmarks.machine import facts
from benchmarks.rounds import interleaved, say
from benchmarks.serving import ROOT
from benchmarks.settled import CAMPAIGN, settled_workspace
from benchmarks.workspace import Workspace, environment

SIZES, QUICK_SIZES = (200_000, 1_000_000), (10_000,)
LIMITS = {"xlsx": (40.0, 100.0), "csv": (15.0, 100.0)}  # seconds and MB for the largest size
WAYS = {
    "xlsx": "results.xlsx, with retry.csv and summary.json",
    "csv": "results.csv, with retry.csv and summary.json",
    "read": "the rows alone, read and thrown away",
    "plain-csv": "peer: the csv module",
    "xlsxwriter": "peer: XlsxWriter, constant memory",
    "none": "start-up and imports",
}
REPORT = "campaign report, the whole command (CSV, page)"


@dataclass(frozen=True, slots=True)
class Wrote:
    """One file, or what there is of it."""

    wall: float
    cpu: float
    peak: float
    rows: int


def results(
    *, quick: bool, rounds: int, sizes: tuple[int, ...] | None = None, ways: Sequence[str] = tuple(WAYS)
) -> Part:
    """The part as a whole."""
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    tables, targets = [], []
    machine: dict[str, str] = {}
    for size in sizes:
        say(f"result files, {size:,} rows")
        workspace = settled_workspace(size)
        machine = facts(workspace.root)
        table, wanted = _compare(workspace, size, rounds, ways)
        tables.append(table)
        targets += wanted
    return Part(
        name="results",
        title="Result files",
        quick=quick,
        rounds=rounds,
        machine=machine,
        tables=tuple(tables),
        targets=tuple(targets),
        notes=(
            "From an open ledger to whole files. Peak memory is the process's, imports and all (their part is the last line).",
        ),
    )


def _compare(workspace: Workspace, size: int, rounds: int, ways: Sequence[str]) -> tuple[Table, list[Target]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        variants: dict[str, Callable[[], Wrote]] = {way: partial(_write, way, workspace, scratch) for way in ways}
        variants[REPORT] = partial(_report, workspace, size)
        found = interleaved(variants, rounds)
    base = found["none"]
    rows, targets = [], []
    for way, wrote in found.items():
        wall = Measure(unit="s", values=tuple(each.wall for each in wrote))
        peak = Measure(unit="MB", values=tuple(each.peak for each in wrote))
        above = Measure(unit="MB", values=tuple(each.peak - low.peak for each, low in zip(wrote, base, strict=True)))
        counted = wrote[0].rows
        by_row = Measure(unit="µs", values=tuple(each.cpu / counted * 1e6 for each in wrote)) if counted else "-"
        rows.append(Row(label=WAYS.get(way, way), cells=(f"{counted:,}", wall, by_row, peak, above)))
        if way in LIMITS and size == max(SIZES):
            seconds, megabytes = LIMITS[way]
            what = f"{size:,} result rows as {way.upper()}"
            targets.append(Target(what=what, rule="at most", limit=seconds, measure=wall))
            targets.append(
                Target(what=f"its peak memory, {way.upper()}", rule="at most", limit=megabytes, measure=peak)
            )
    table = Table(
        title=f"{size:,} rows",
        columns=("", "rows", "wall", "CPU a row", "peak memory", "above the imports"),
        rows=tuple(rows),
    )
    return table, targets


def _write(way: str, workspace: Workspace, folder: Path) -> Wrote:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.writers", way, str(workspace.root), str(folder)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Wrote(**json.loads(done.stdout))


def _report(workspace: Workspace, size: int) -> Wrote:
    took: Took = timed(["-m", "runner", "report", CAMPAIGN], workspace.root, codes=(0, 1))
    return Wrote(took.wall, took.cpu, took.peak, size)
