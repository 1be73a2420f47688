"""Pace: how much of a limit is used and whether any sliding window holds more, by the provider's clock.

The provider answers after 20 ms. Neither side is bound to a core: the machine is shared as it would be, the provider's
process comes first in line where the system allows that, so that its readings are not late.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.figures import Measure, Part, Row, Table, Target
from benchmarks.machine import facts
from benchmarks.rounds import interleaved, say
from benchmarks.serving import Loopback
from benchmarks.windows import Limit, room_ms, share_used, windows_over, worst_window
from benchmarks.workspace import Workspace

REPLY_SECONDS = 0.02
ROUND_SECONDS = 0.1  # of one in flight: the reply, and two commits on a disk that takes its time
RATES = (10, 80, 1000, 3000)


@dataclass(frozen=True, slots=True)
class Case:
    """One way of keeping limits."""

    name: str
    limits: tuple[Limit, ...]
    messages: int
    neighbours: int = 0  # processes that do nothing but compute
    parts: int = 1  # the campaign is sent in so many runs, one straight after the other
    least: float | None = None  # the share of the limit to be used, if there is a target

    @property
    def in_flight(self) -> int:
        """What leaves in ROUND_SECONDS, at least 20."""
        rate = max(limit.count / limit.seconds for limit in self.limits)
        return max(20, round(rate * ROUND_SECONDS))


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of it."""

    share: float
    worst: tuple[int, ...]  # the fullest window of each limit
    over: int  # windows over a limit
    room: float | None  # ms, see `room_ms`
    client_us: float  # of processor time a message, the whole command


def _cases(*, quick: bool) -> list[Case]:
    def case(name: str, limits: tuple[Limit, ...], seconds: float, **more: int) -> Case:
        rate = limits[0].count
        least = None if more or len(limits) > 1 else (0.98 if rate == 3000 else 0.995)
        return Case(name, limits, round(rate * seconds) + 1, least=least, **more)

    if quick:
        return [
            *(case(f"{rate}/s", (Limit(rate, 1),), 2.5) for rate in (10, 80, 1000)),
            case("80/s, a busy neighbour", (Limit(80, 1),), 2.5, neighbours=1),
            case("40/s, a restart", (Limit(40, 1),), 2, parts=2),
            case("20/s and 2,000/h", (Limit(20, 1), Limit(2000, 3600)), 2),
        ]
    cases = [case(f"{rate}/s", (Limit(rate, 1),), 15) for rate in RATES]
    cases += [case(f"{rate}/s, a busy neighbour", (Limit(rate, 1),), 15, neighbours=1) for rate in RATES]
    cases.append(Case("20/s and 300/min, a restart", (Limit(20, 1), Limit(300, 60)), 400, parts=2))
    cases.append(Case("80/s, 1,200/min and 100,000/h", (Limit(80, 1), Limit(1200, 60), Limit(100_000, 3600)), 2000))
    return cases


def pace(*, quick: bool, rounds: int, cases: Sequence[Case] | None = None) -> Part:
    """The part as a whole."""
    cases = list(cases) if cases is not None else _cases(quick=quick)
    say("pace")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Loopback() as server:
        scratch = Path(folder)
        variants: dict[str, Callable[[], Kept]] = {case.name: partial(_keep, server, scratch, case) for case in cases}
        found = interleaved(variants, rounds)
        machine = facts(scratch)
        first = server.real_time
    rows, targets = [], []
    for case in cases:
        kept = found[case.name]
        share = Measure(unit="", values=tuple(each.share for each in kept))
        over = Measure(unit="", values=tuple(float(each.over) for each in kept))
        worst = max(each.worst for each in kept)
        room = tuple(each.room for each in kept if each.room is not None)
        rows.append(
            Row(
                label=case.name,
                cells=(
                    f"{case.messages:,}",
                    f"{case.in_flight}",
                    share,
                    ", ".join(f"{most:,} of {limit.count:,}" for most, limit in zip(worst, case.limits, strict=True)),
                    f"{max(each.over for each in kept):,}",
                    Measure(unit="ms", values=room) if room else "-",
                    Measure(unit="µs", values=tuple(each.client_us for each in kept)) if case.parts == 1 else "-",
                ),
            )
        )
        if case.least is not None:
            targets.append(Target(what=f"share of {case.name} used", rule="at least", limit=case.least, measure=share))
        most = Measure(unit="", values=(max(over.values),))
        targets.append(Target(what=f"windows over the limit, {case.name}", rule="at most", limit=0, measure=most))
    return Part(
        name="pace",
        title="Pace",
        command="make bench-quick" if quick else "make bench",
        quick=quick,
        rounds=rounds,
        machine=machine,
        tables=(
            Table(
                title="Limits as the provider saw them",
                columns=(
                    "",
                    "messages",
                    "in flight",
                    "share used",
                    "fullest window",
                    "windows over",
                    "room left",
                    "CPU a message",
                ),
                rows=tuple(rows),
                note=(
                    "Share used: the shortest time that the limits allow, evenly spaced from a standing start, by the time from "
                    "the first arrival to the last. A restart's own planning is in that time. Fullest window: of all rounds. "
                    "Room left: how much sooner the next request would have had to come to be one too many."
                ),
            ),
        ),
        targets=tuple(targets),
        notes=(
            "Sent with `keep_connections`.",
            "The provider's process had real-time priority."
            if first
            else "The provider's process had no real-time priority (not allowed here): its readings may be late.",
        ),
    )


def _keep(server: Loopback, scratch: Path, case: Case) -> Kept:
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _busy(case.neighbours):
        workspace = Workspace(Path(folder))
        workspace.audience(case.messages)
        workspace.campaign(server.url, in_flight=case.in_flight, rate=[limit.text for limit in case.limits])
        server.reset(1, case.messages, delay=REPLY_SECONDS)
        for part in range(case.parts):
            limit = [] if part == case.parts - 1 else ["--limit", str(case.messages // case.parts)]
            command = workspace.start("send", workspace.file, "--yes", *limit)
            if case.parts == 1:
                server.reset(1, case.messages, delay=REPLY_SECONDS, watch=command.pid)
            command.wait()
        times = server.arrivals(Path(folder))
        if len(times) != case.messages:
            raise RuntimeError(f"{len(times)} requests for {case.messages} recipients")
        return Kept(
            share_used(times, case.limits),
            tuple(worst_window(times, limit.seconds) for limit in case.limits),
            sum(windows_over(times, limit) for limit in case.limits),
            room_ms(times, case.limits),
            server.stretch().client_us,
        )


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Neighbours that use all the processor time they get."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
