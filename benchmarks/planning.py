"""Planning: from a file of people to a frozen plan in the ledger, from the command's start to the first request.

`campaign send --limit 1` reads, normalises, renders, compares and freezes everybody; when its first request arrives the plan is
in the ledger, durable. That moment ends the measure; the command is ended, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.figures import Measure, Part, Row, Table, Target, ratios
from benchmarks.machine import facts
from benchmarks.rounds import interleaved, say
from benchmarks.serving import ROOT, Loopback
from benchmarks.stages import stages_of_planning
from benchmarks.watching import Watch
from benchmarks.workspace import Workspace, environment

ROWS, QUICK_ROWS = 1_000_000, 10_000
SCRIPT_ROWS = 20_000  # the script is measured on so many, and counted by the row
QUICK_SCRIPT_ROWS = 2_000
KINDS = ("csv", "xlsx")
FEW = 10  # rows of the plan that shows what the imports alone need


@dataclass(frozen=True, slots=True)
class Planned:
    """One planning. Seconds of processor time by stage; MB."""

    wall: float
    preparing: float  # the confined process: read, normalise, filter, render
    staging: float  # the command itself while that process lives: rows into the ledger's temporary tables
    freezing: float  # after it: compare, show, adopt, begin the run
    peak: float  # of the larger process

    @property
    def cpu(self) -> float:
        """All together."""
        return self.preparing + self.staging + self.freezing


@dataclass(frozen=True, slots=True)
class Read:
    """What a peer took, by the row."""

    wall_us: float
    cpu_us: float


def planning(
    *, quick: bool, rounds: int, rows: int | None = None, kinds: Sequence[str] = KINDS, whole: bool = True
) -> Part:
    """The part as a whole; without `whole` no script and no stages."""
    rows = rows or (QUICK_ROWS if quick else ROWS)
    say(f"planning, {rows:,} rows")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Loopback() as server:
        scratch = Path(folder)
        source = Workspace(scratch / "files")
        files = {kind: source.audience(rows, kind).rename(scratch / f"people.{kind}") for kind in kinds}
        script_rows = min(rows, QUICK_SCRIPT_ROWS if quick else SCRIPT_ROWS)
        short = {kind: source.audience(script_rows, kind).rename(scratch / f"few.{kind}") for kind in files}
        tiny = {kind: source.audience(FEW, kind).rename(scratch / f"tiny.{kind}") for kind in files}
        variants: dict[str, Callable[[], Planned]] = {}
        peers: dict[str, Callable[[], Read]] = {}
        for kind, file in files.items():
            variants[kind] = partial(plan, server, scratch, file)
            variants[f"{kind} tiny"] = partial(plan, server, scratch, tiny[kind])
            peers[f"{kind} read"] = partial(_read, "csv" if kind == "csv" else "calamine", file)
            if whole:
                peers[f"{kind} script"] = partial(_read, "script", short[kind])
        both: dict[str, Callable[[], Planned | Read]] = {**variants, **peers}
        found = interleaved(both, rounds)
        stages = []
        if whole:
            say("planning, stages")
            stages.append(stages_of_planning(server, scratch, short[kinds[0]], script_rows))
        machine = facts(scratch)
    tables, targets = [], []
    limits = {"csv": (60.0, 200.0), "xlsx": (90.0, 500.0)}
    for kind in files:
        planned = [each for each in found[kind] if isinstance(each, Planned)]
        few = [each for each in found[f"{kind} tiny"] if isinstance(each, Planned)]
        table = _table(kind, rows, script_rows, planned, few, found)
        tables.append(table)
        if rows == ROWS:
            seconds, megabytes = limits[kind]
            wall = Measure(unit="s", values=tuple(each.wall for each in planned))
            above = _above(planned, few)
            targets += [
                Target(what=f"planning {rows:,} rows of {kind.upper()}", rule="at most", limit=seconds, measure=wall),
                Target(
                    what=f"its peak memory above the imports, {kind.upper()}",
                    rule="at most",
                    limit=megabytes,
                    measure=above,
                ),
            ]
    return Part(
        name="planning",
        title="Planning",
        quick=quick,
        rounds=rounds,
        machine=machine,
        tables=(*tables, *stages),
        targets=tuple(targets),
        notes=(
            "From the command's start to the arrival of its first request; the plan is in the ledger and durable by then.",
            f"Above the imports: beyond the peak of the same command with {FEW} rows. Memory is that of the larger process.",
        ),
    )


def _above(planned: list[Planned], few: list[Planned]) -> Measure:
    return Measure(unit="MB", values=tuple(a.peak - b.peak for a, b in zip(planned, few, strict=True)))


def _table(
    kind: str,
    rows: int,
    script_rows: int,
    planned: list[Planned],
    few: list[Planned],
    found: dict[str, list[Planned | Read]],
) -> Table:
    cpu = [each.cpu for each in planned]

    def seconds(name: str, values: list[float], *, peer: bool = False) -> Row:
        us = Measure(unit="µs", values=tuple(value / rows * 1e6 for value in values))
        return Row(
            label=name, cells=(Measure(unit="s", values=tuple(values)), us, ratios(cpu, values) if peer else "-")
        )

    lines = [
        seconds("wall, all of it", [each.wall for each in planned]),
        seconds("CPU, all of it", cpu),
        seconds("CPU: read, normalise, render (confined process)", [each.preparing for each in planned]),
        seconds("CPU: stage the rows meanwhile (command)", [each.staging for each in planned]),
        seconds("CPU: compare, freeze, begin (command)", [each.freezing for each in planned]),
        seconds(f"wall with {FEW} rows: start-up", [each.wall for each in few]),
    ]
    bare = "the csv module" if kind == "csv" else "calamine"
    for end, label in {"read": f"{bare}, rows read and dropped", "script": "a pandas script"}.items():
        reads = [each for each in found.get(f"{kind} {end}", ()) if isinstance(each, Read)]
        if reads:
            lines.append(seconds(f"CPU of a peer: {label}", [each.cpu_us * rows / 1e6 for each in reads], peer=True))
    peak = Measure(unit="MB", values=tuple(each.peak for each in planned))
    lines.append(Row(label="peak memory", cells=(peak, "-", "-")))
    lines.append(Row(label="peak memory above the imports", cells=(_above(planned, few), "-", "-")))
    return Table(
        title=f"{rows:,} rows of {kind.upper()} to a frozen plan",
        columns=("", "", "a row", "planning's CPU to this"),
        rows=tuple(lines),
        note=f"The pandas script was measured on {script_rows:,} rows and counted up.",
    )


def plan(server: Loopback, scratch: Path, audience: Path, **variables: str) -> Planned:
    """Plan and freeze one audience. `variables` for the command's environment, such as another ledger."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        workspace = Workspace(Path(folder))
        workspace.campaign(server.url, audience=workspace.borrow(audience), in_flight=1)
        began = time.monotonic_ns()
        command = workspace.start("send", workspace.file, "--yes", "--limit", "1", core=None, **variables)
        watch = Watch(command.pid)
        server.reset(1, watch=command.pid, delay=60.0)
        try:
            while not (noted := server.noted()):
                if command.process.poll() is not None:
                    command.wait()
                    raise RuntimeError("the command ended without a request")
                time.sleep(0.05)
            watch.look()
        finally:
            watch.close()
            command.kill()
    own = noted[0].watched_cpu / 1e9
    return Planned(
        (noted[0].at - began) / 1e9,
        watch.children_cpu,
        watch.own_at_last_child,
        own - watch.own_at_last_child,
        watch.peak,
    )


def _read(name: str, path: Path) -> Read:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.readers", name, str(path)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    said = json.loads(done.stdout)
    return Read(said["wall"] / said["rows"] * 1e6, said["cpu"] / said["rows"] * 1e6)
