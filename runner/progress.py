"""How a run shows itself while it goes: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm

from runner.model import Status
from runner.pace import seconds_for
from runner.units import Rate, duration_text

LINE_SECONDS = 5.0  # between plain lines
DRAW_SECONDS = 0.1  # between redraws of the bar


class Progress(Protocol):
    """What the engine tells while it runs. Called on the event loop, so it must be quick."""

    def begun(self) -> None:
        """A request is about to leave."""

    def settled(self, status: Status) -> None:
        """A recipient has moved to this status."""

    def note(self, text: str) -> None:
        """Something a person should know now (cooling down, draining ...)."""

    def close(self) -> None:
        """The run is over."""


class Tally:
    """Counts of one run, and the time left under its limits."""

    def __init__(self, total: int, rates: Sequence[Rate], clock: Callable[[], float]) -> None:
        self.total = total
        self.done: dict[Status, int] = {}
        self._rates = rates
        self._clock = clock
        self._started = clock()

    def add(self, status: Status) -> bool:
        """Count; True when the recipient is finished with for this run."""
        self.done[status] = self.done.get(status, 0) + 1
        return status.final

    @property
    def finished(self) -> int:
        """Recipients that are final."""
        return sum(n for status, n in self.done.items() if status.final)

    @property
    def rate(self) -> float:
        """Recipients a second so far."""
        elapsed = self._clock() - self._started
        return self.finished / elapsed if elapsed > 0 else 0.0

    def eta(self) -> float | None:
        """Seconds left: what the limits demand, or what has been reached so far, whichever is longer."""
        left = self.total - self.finished
        reached = left / self.rate if self.rate > 0 else None
        demanded = seconds_for(left + 1, self._rates)
        if reached is None:
            return demanded if self._rates else None
        return max(reached, demanded) if self.finished >= 5 else max(demanded, 0.0) or reached

    def words(self) -> str:
        """`98 accepted, 2 rejected, 1 unknown`."""
        shown = [Status.ACCEPTED, Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN, Status.SKIPPED]
        parts = [f"{self.done[status]:,} {status.value.replace('_', ' ')}" for status in shown if self.done.get(status)]
        return ", ".join(parts) or "nothing yet"


class Bar:
    """One tqdm bar with the numbers that matter."""

    def __init__(self, tally: Tally, *, settled_before: int, stream: TextIO) -> None:
        self._tally = tally
        self._total = tally.total + settled_before
        self._bar: tqdm[NoReturn] = tqdm(
            total=self._total,
            initial=settled_before,
            desc=self._words(settled_before),
            file=stream,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {desc}",  # the bar takes what the words leave of the line
        )
        self._drawn = 0.0

    def begun(self) -> None:
        """Nothing to draw."""

    def settled(self, status: Status) -> None:
        """Move the bar. Drawn here and not by tqdm's own clock: its number and the words beside it must agree."""
        if self._tally.add(status):
            self._bar.n += 1
        now = time.monotonic()
        if now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self._draw()

    def _draw(self) -> None:
        self._bar.set_description_str(self._words(int(self._bar.n)), refresh=False)
        self._bar.refresh()

    def _words(self, done: int) -> str:
        """`45 of 123, 9.9/s, 8 s left, 1 failed`. `done` has those of earlier runs in it."""
        tally = self._tally
        parts = [f"{done:,} of {self._total:,}"]
        if tally.rate > 0:
            parts.append(f"{tally.rate:.1f}/s" if tally.rate >= 1 else f"{tally.rate * 60:.1f}/min")
        eta = tally.eta() if tally.finished < tally.total else None
        if eta:
            parts.append(f"{duration_text(eta)} left")
        failed = tally.done.get(Status.REJECTED, 0) + tally.done.get(Status.NOT_SENT, 0)
        unknown = tally.done.get(Status.UNKNOWN, 0)
        parts += [f"{n:,} {word}" for n, word in ((failed, "failed"), (unknown, "unknown")) if n]
        return ", ".join(parts)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._bar.write(text, file=self._bar.fp)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._draw()
        self._bar.close()


class Lines:
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, tally: Tally, *, settled_before: int, stream: TextIO, clock: Callable[[], float]) -> None:
        self._tally = tally
        self._before = settled_before
        self._stream = stream
        self._clock = clock
        self._last = clock()

    def begun(self) -> None:
        """Nothing to print."""

    def settled(self, status: Status) -> None:
        """Print when it is time."""
        self._tally.add(status)
        now = self._clock()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self._print()

    def _print(self) -> None:
        tally = self._tally
        eta = tally.eta()
        left = f", about {duration_text(eta)} left" if eta is not None and tally.finished < tally.total else ""
        speed = f"{tally.rate:.1f}/s" if tally.rate >= 1 else f"{tally.rate * 60:.1f}/min"
        done, total = tally.finished + self._before, tally.total + self._before
        self._say(f"{done:,} of {total:,}: {tally.words()}; {speed}{left}")

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._say(text)

    def close(self) -> None:
        """The last line."""
        self._print()


class Quiet:
    """Counts only (for --json and tests)."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def begun(self) -> None:
        """Nothing."""

    def settled(self, status: Status) -> None:
        """Count."""
        self._tally.add(status)

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def open_progress(
    tally: Tally, *, settled_before: int = 0, quiet: bool = False, stream: TextIO | None = None
) -> Progress:
    """A bar when stderr is a terminal, lines otherwise."""
    stream = stream if stream is not None else sys.stderr
    if quiet:
        return Quiet(tally)
    if stream.isatty():
        return Bar(tally, settled_before=settled_before, stream=stream)
    return Lines(tally, settled_before=settled_before, stream=stream, clock=time.monotonic)
