"""The shared ledger: planning into PostgreSQL, partitions and reservations a second, memory as the audience grows.

The server is one of our own, on this machine and durable (fsync), or the one in CAMPAIGN_TEST_POSTGRES; it shares the two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Measure, Part, Point, Row, Series, Table, Target
from benchmarks.machine import facts
from benchmarks.planning import Planned, plan
from benchmarks.rounds import interleaved, say
from benchmarks.serving import ROOT, Loopback
from benchmarks.workspace import Workspace, environment

if TYPE_CHECKING:
    from postgres import Server

SIZES, QUICK_SIZES = (1_000_000, 5_000_000), (1_000, 4_000)
FLAT = 20.0  # MB
LOADS = {
    "cut": "partitions made, of 1,000 rows",
    "partitions": "partitions taken and finished, one connection",
    "partitions-8": "partitions taken and finished, 8 connections",
    "slots": "reservations of one slot, one connection",
    "slots-8": "reservations of one slot, 8 connections",
    "blocks-8": "slots in blocks of 20, 8 connections",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of something a second; milliseconds for one of them."""

    per_second: float
    each_ms: float


def postgres(*, quick: bool, rounds: int, sizes: tuple[int, ...] | None = None) -> Part:
    """The part as a whole."""
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    say("postgres")
    server = _start()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Loopback() as provider:
            scratch = Path(folder)
            files = {size: _audience(scratch, size) for size in sizes}
            variants: dict[str, Callable[[], Planned]] = {
                f"{size:,}": partial(_plan, server, provider, scratch, file) for size, file in files.items()
            }
            planned = interleaved(variants, rounds)
            database = server.database()
            plan(provider, scratch, files[sizes[0]], CAMPAIGN_LEDGER=database)
            loads = {way: partial(_load, way, database, 0.3 if quick else 3.0) for way in LOADS}
            found = interleaved(loads, rounds)
            machine = facts(scratch) | {"postgresql": str(server.execute("SHOW server_version")[0][0]).split()[0]}
            durable = server.execute("SHOW fsync")[0][0] == "on"
    finally:
        server.close()
    peaks = [Measure(unit="MB", values=tuple(each.peak for each in runs)) for runs in planned.values()]
    rows = [
        Row(
            label=name,
            cells=(
                Measure(unit="s", values=tuple(each.wall for each in runs)),
                Measure(unit="µs", values=tuple(each.wall / size * 1e6 for each in runs)),
                Measure(unit="µs", values=tuple(each.cpu / size * 1e6 for each in runs)),
                peak,
            ),
        )
        for size, (name, runs), peak in zip(sizes, planned.items(), peaks, strict=True)
    ]
    more = Measure(unit="MB", values=tuple(b - a for a, b in zip(peaks[0].values, peaks[-1].values, strict=True)))
    spans = f"{sizes[-1]:,} rows to {sizes[0]:,}"
    flat = Target(what=f"PostgreSQL: peak memory, {spans} (MB more)", rule="at most", limit=FLAT, measure=more)
    return Part(
        name="postgres",
        title="PostgreSQL",
        quick=quick,
        rounds=rounds,
        machine=machine,
        tables=(
            Table(
                title="From a CSV file to a frozen plan in PostgreSQL",
                columns=("rows", "wall", "wall a row", "CPU a row, without the server's", "peak memory"),
                rows=tuple(rows),
            ),
            Table(
                title=f"What the database gives out, after a plan of {sizes[0]:,} rows",
                columns=("", "a second", "each"),
                rows=tuple(
                    Row(
                        label=LOADS[way],
                        cells=(
                            Measure(unit="/s", values=tuple(rate.per_second for rate in rates)),
                            Measure(unit="ms", values=tuple(rate.each_ms for rate in rates)),
                        ),
                    )
                    for way, rates in found.items()
                ),
            ),
        ),
        targets=(flat,) if sizes == SIZES else (),
        series=(
            Series(
                name="postgres-memory",
                title="Peak memory of planning into PostgreSQL",
                x_label="rows of the audience",
                y_label="MB",
                points=tuple(Point(x=size, y=peak) for size, peak in zip(sizes, peaks, strict=True)),
            ),
        ),
        notes=(
            f"The server {'waits' if durable else 'does not wait'} for the disk (fsync), and runs on the same cores.",
        ),
    )


def _start() -> Server:
    """The tests know how to find and start one; here it has to be durable."""
    sys.path.insert(0, str(ROOT / "tests"))
    import postgres as starter

    starter.SETTINGS.update(fsync="on", full_page_writes="on")
    return starter.shared() if os.environ.get(starter.ENVIRONMENT) else starter.start_server()


def _audience(scratch: Path, size: int) -> Path:
    return Workspace(scratch / "files").audience(size).rename(scratch / f"people-{size}.csv")


def _plan(server: Server, provider: Loopback, scratch: Path, audience: Path) -> Planned:
    return plan(provider, scratch, audience, CAMPAIGN_LEDGER=server.database())


def _load(way: str, database: str, seconds: float) -> Rate:
    """One way of benchmarks/ledgerload.py. The address goes through the environment: it holds a password."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledgerload", way, str(seconds)],
        cwd=ROOT,
        env=environment(CAMPAIGN_LEDGER=database),
        stdout=subprocess.PIPE,
        check=True,
    )
    said = json.loads(done.stdout)
    return Rate(said["count"] / said["seconds"], said["seconds"] * said["connections"] / said["calls"] * 1e3)
