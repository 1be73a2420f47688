"""Everyday: how long the small commands take, each in a new process, files cached by the system, beside bare Python."""

from __future__ import annotations

import json
import shutil
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
from benchmarks.serving import ROOT
from benchmarks.settled import settled_workspace
from benchmarks.watching import Watch, reap
from benchmarks.workspace import environment

ROWS, QUICK_ROWS = 1_000_000, 10_000


@dataclass(frozen=True, slots=True)
class Took:
    """One run of a command."""

    wall: float
    cpu: float
    peak: float = 0.0  # MB; looked at every 50 ms, so nothing for the shortest commands


def everyday(*, quick: bool, rounds: int, rows: int | None = None) -> Part:
    """The part as a whole."""
    rows = rows or (QUICK_ROWS if quick else ROWS)
    say(f"everyday, with a ledger of {rows:,} rows")
    workspace = settled_workspace(rows)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        demo = scratch / "demo"
        for name in ("campaigns", "templates"):
            shutil.copytree(ROOT / name, demo / name)
        bare = "python -c pass"
        status = f"campaign status, {rows:,} rows"
        decision = f"resume decision, {rows:,} rows"
        variants: dict[str, Callable[[], Took]] = {
            bare: partial(timed, ["-c", "pass"], scratch),
            "python -c 'import click'": partial(timed, ["-c", "import click"], scratch),
            "campaign --help": partial(timed, ["-m", "runner", "--help"], scratch),
            "campaign check, the demo": partial(
                timed, ["-m", "runner", "check", "campaigns/demo-wapim.yaml"], demo, codes=(0, 1, 2)
            ),
            status: partial(timed, ["-m", "runner", "status"], workspace.root),
            decision: partial(_resume, workspace.ledger),
        }
        if rounds > 1:
            for run in variants.values():
                run()  # so that the system has the files in its cache
        found = interleaved(variants, rounds)
        machine = facts(scratch)
    floor = [took.wall for took in found[bare]]
    walls = {name: Measure(unit="s", values=tuple(each.wall for each in took)) for name, took in found.items()}
    table = Table(
        title="Small commands, from start to exit",
        columns=("", "wall", "CPU", "to bare Python's start"),
        rows=tuple(
            Row(
                label=name,
                cells=(
                    walls[name],
                    Measure(unit="s", values=tuple(each.cpu for each in took)) if took[0].cpu else "-",
                    "-" if name == decision else ratios([each.wall for each in took], floor),
                ),
            )
            for name, took in found.items()
        ),
        note=(
            "The resume decision is timed inside a process, without its start: open the ledger, settle what a killed run "
            "left (rows claimed, rows in flight), begin a run, claim the first rows."
        ),
    )
    targets = [Target(what="campaign --help (s)", rule="at most", limit=0.15, measure=walls["campaign --help"])]
    targets.append(Target(what=f"{status} (s)", rule="at most", limit=0.5, measure=walls[status]))
    targets.append(Target(what=f"{decision} (s)", rule="at most", limit=1.0, measure=walls[decision]))
    return Part(
        name="everyday",
        title="Everyday",
        quick=quick,
        rounds=rounds,
        machine=machine,
        tables=(table,),
        targets=tuple(targets),
        notes=("Files were in the system's cache: each command had run once before.",),
    )


def timed(arguments: Sequence[str], folder: Path, codes: Sequence[int] = (0,)) -> Took:
    """A new Python process, to its end. Raises RuntimeError for another exit code."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None  # noqa: S101 - PIPE gives it
    watch = Watch(process.pid)
    words = process.stderr.read()
    code, cpu = reap(process.pid)
    wall = time.perf_counter() - began
    watch.close()
    process.stderr.close()
    process.returncode = code  # reaped here, not by subprocess
    if code not in codes:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}: {words.decode(errors='replace')[-2000:]}")
    return Took(wall, cpu, watch.peak)


def _resume(ledger: Path) -> Took:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.settled", "resume", str(ledger)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Took(float(json.loads(done.stdout)["seconds"]), 0.0)
