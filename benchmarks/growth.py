"""Growth: what a message costs and how much memory the whole command needs, as the audience grows.

The whole of `campaign send` each time: plan, send to the loopback provider, result files. The cost of a message is looked at in
each of these phases on its own, for start-up would hide behind a large number and a small ledger flatters the sending.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.figures import Measure, Part, Point, Row, Series, Table, Target, ratios
from benchmarks.machine import CLIENT_CORE, facts
from benchmarks.rounds import interleaved, say
from benchmarks.serving import Loopback, Noted
from benchmarks.watching import Watch
from benchmarks.workspace import Workspace

SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (1_000, 4_000)
IN_FLIGHT = 50


@dataclass(frozen=True, slots=True)
class Grown:
    """One whole `campaign send`."""

    sending_us: float  # processor time a message from the first request to the last
    first_us: float  # the same of the first tenth of the messages
    last_us: float  # and of the last tenth
    server_us: float  # the loopback server's own, meanwhile: the same work for each message, so a gauge of the machine
    all_us: float  # processor time a message of everything, planning and result files included
    rate: float  # messages a second while sending
    wall: float
    peak: float  # MB of the command itself
    child_peak: float  # MB of the process that reads the audience


def growth(*, quick: bool, rounds: int, sizes: tuple[int, ...] | None = None) -> Part:
    """The part as a whole."""
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    say("growth")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Loopback() as server:
        scratch = Path(folder)
        variants: dict[str, Callable[[], Grown]] = {
            f"{size:,}": partial(_grow, server, scratch, size) for size in sizes
        }
        # The smaller ones again after the largest, which takes many minutes: meanwhile the machine may have changed its speed.
        again = {f"{name}, again": variants[name] for name in list(variants)[-2::-1]}
        runs = interleaved(variants | again, rounds)
        found = [_between(runs[name], runs.get(f"{name}, again", runs[name])) for name in variants]
        machine = facts(scratch)

    def over(name: str, unit: str) -> list[Measure]:
        return [Measure(unit=unit, values=tuple(float(getattr(each, name)) for each in grown)) for grown in found]

    sending, whole, rate = over("sending_us", "µs"), over("all_us", "µs"), over("rate", "/s")
    first, last, serving = over("first_us", "µs"), over("last_us", "µs"), over("server_us", "µs")
    wall, peak, child = over("wall", "s"), over("peak", "MB"), over("child_peak", "MB")
    rows = [
        Row(label=f"{size:,}", cells=cells)
        for size, *cells in zip(sizes, sending, first, last, serving, whole, rate, wall, peak, child, strict=True)
    ]
    steps = Measure(unit="MB", values=tuple(b - a for a, b in zip(peak[0].values, peak[-1].values, strict=True)))
    spans = f"{sizes[-1]:,} messages to {sizes[0]:,}"
    targets = (
        Target(
            what=f"CPU a message while sending, {spans}",
            rule="at most",
            limit=1.10,
            measure=ratios(sending[-1].values, sending[0].values),
        ),
        Target(what=f"peak memory of the command, {spans} (MB more)", rule="at most", limit=20.0, measure=steps),
    )

    def series(name: str, title: str, unit: str, measures: list[Measure]) -> Series:
        points = tuple(Point(x=size, y=measure) for size, measure in zip(sizes, measures, strict=True))
        return Series(name=name, title=title, x_label="rows of the audience", y_label=unit, points=points)

    return Part(
        name="growth",
        title="Growth",
        quick=quick,
        rounds=rounds,
        machine=machine,
        tables=(
            Table(
                title=f"A whole campaign send with keep_connections, {IN_FLIGHT} in flight",
                columns=(
                    "rows",
                    "CPU a message, sending",
                    "first tenth",
                    "last tenth",
                    "the server's own",
                    "CPU a message, everything",
                    "messages",
                    "wall",
                    "peak memory",
                    "peak of the reading process",
                ),
                rows=tuple(rows),
                note="Everything: planning, sending, result files (CSV) and start-up, all processes together. The smaller sizes "
                "are sent before and after the largest, and the mean is shown; the loopback server's own cost, the same work for "
                "each message, shows how quick the machine was meanwhile.",
            ),
        ),
        targets=targets if sizes == SIZES else (),  # small sizes say nothing about growth
        series=(
            series("cost", "Processor time a message while sending", "µs", sending),
            series("memory", "Peak memory of the command", "MB", peak),
        ),
    )


def _between(before: Sequence[Grown], after: Sequence[Grown]) -> list[Grown]:
    """The mean of two runs of each round; of the memory, the greater."""
    pairs = [(astuple(a), astuple(b)) for a, b in zip(before, after, strict=True)]
    means = [Grown(*((x + y) / 2 for x, y in zip(a, b, strict=True))) for a, b in pairs]
    return [
        replace(mean, peak=max(a.peak, b.peak), child_peak=max(a.child_peak, b.child_peak))
        for mean, a, b in zip(means, before, after, strict=True)
    ]


def _grow(server: Loopback, scratch: Path, size: int) -> Grown:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        workspace = Workspace(Path(folder))
        workspace.audience(size)
        workspace.campaign(server.url, in_flight=IN_FLIGHT)
        began = time.monotonic()
        command = workspace.start("send", workspace.file, "--yes", core=CLIENT_CORE)
        watch = Watch(command.pid)
        tenth = max(size // 10, 2)
        server.reset(1, tenth, size - tenth + 1, size, watch=command.pid)
        try:
            command.wait()
        finally:
            watch.close()
        wall = time.monotonic() - began
        stretch, noted = server.stretch(), server.noted()
        if server.count() != size:
            raise RuntimeError(f"{server.count()} requests for {size} recipients")

        def cost(a: Noted, b: Noted) -> float:
            return (b.watched_cpu - a.watched_cpu) / (b.count - a.count) / 1e3

        return Grown(
            stretch.client_us,
            cost(noted[0], noted[1]),
            cost(noted[2], noted[3]),
            stretch.server_cpu / stretch.messages * 1e6,
            (watch.own.cpu + watch.children_cpu) / size * 1e6,
            stretch.rate,
            wall,
            watch.own.peak,
            max((use.peak for use in watch.children.values()), default=0.0),
        )
