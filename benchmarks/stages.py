"""Processor time by stage, from a sampled run: its shares, scaled to what that run took."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Measure, Row, Table
from benchmarks.machine import CLIENT_CORE
from benchmarks.sampled import IMPORTS
from benchmarks.serving import Loopback
from benchmarks.workspace import Workspace

LEAST_SHARE = 0.005  # smaller stages are put together
SAMPLED = (
    "Sampled every millisecond of processor time in a run of its own; the sampling itself is in it, so it is dearer than "
    "the runs that were not sampled."
)

Found = Sequence[tuple[str, str, float]]  # thread, stage, seconds


def stages_of_sending(server: Loopback, scratch: Path, count: int, in_flight: int) -> Table:
    """Microseconds a message while sending, by thread and stage."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        workspace = Workspace(Path(folder))
        workspace.audience(count)
        workspace.campaign(server.url, in_flight=in_flight)
        out = Path(folder) / "stages.json"
        command = workspace.start(
            str(out), "sending", "send", workspace.file, "--yes", core=CLIENT_CORE, module=("benchmarks.sampled",)
        )
        server.reset(1, count, watch=command.pid)
        command.wait()
        whole = server.stretch().client_us
        found = _read(out)
    return Table(
        title=f"Processor time a message by stage, {in_flight} in flight (wapim), plain HTTP",
        columns=("", "CPU a message", "share"),
        rows=by_stage(found, whole),
        note=SAMPLED,
    )


def stages_of_planning(server: Loopback, scratch: Path, audience: Path, rows: int) -> Table:
    """Microseconds a row of the two processes that plan, by stage."""
    lines: list[Row] = []
    for what, title in (("preparing", "confined process"), ("planning", "command")):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            workspace = Workspace(Path(folder))
            workspace.campaign(server.url, audience=workspace.borrow(audience), in_flight=1)
            out = Path(folder) / "stages.json"
            arguments = [workspace.file] if what == "preparing" else ["plan", workspace.file]
            workspace.start(str(out), what, *arguments, module=("benchmarks.sampled",)).wait()
            found = [entry for entry in _read(out) if entry[1] != IMPORTS]
        whole = sum(seconds for *_, seconds in found) / rows * 1e6
        lines += [
            Row(label=f"{title}: {line.label}", cells=line.cells) for line in by_stage(found, whole) if line.label
        ]
    return Table(
        title=f"Processor time a row by stage, {rows:,} rows of {audience.suffix[1:].upper()}",
        columns=("", "CPU a row", "share of the process"),
        rows=tuple(lines),
        note=SAMPLED
        + " It was `campaign plan`, so without the freezing; imports, and the pipe between the two, are left out.",
    )


def by_stage(found: Found, whole: float) -> tuple[Row, ...]:
    """The largest first; the small ones together; `whole` in microseconds at the end."""
    total = sum(seconds for *_, seconds in found) or 1.0
    rows: list[Row] = []
    rest = 0.0
    for thread, stage, seconds in sorted(found, key=lambda entry: -entry[2]):
        share = seconds / total
        if share < LEAST_SHARE:
            rest += share
        else:
            label = stage if thread == "main" else f"{stage} ({thread} thread)"
            rows.append(Row(label=label, cells=(_us(share * whole), f"{share:.1%}")))
    if rest:
        rows.append(Row(label="everything else", cells=(_us(rest * whole), f"{rest:.1%}")))
    return (*rows, Row(label="together", cells=(_us(whole), "100 %")))


def _read(path: Path) -> Found:
    return [(str(thread), str(stage), float(seconds)) for thread, stage, seconds in json.loads(path.read_text())]


def _us(value: float) -> Measure:
    return Measure(unit="µs", values=(value,))
