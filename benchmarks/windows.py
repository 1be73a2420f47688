"""What a limit allows, and what was made of it: worst sliding windows and ideal times. Pure arithmetic on nanoseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` requests in any window of `seconds`."""

    count: int
    seconds: int

    @property
    def text(self) -> str:
        """As it stands in a campaign file."""
        return f"{self.count}/{ {1: 's', 60: 'min', 3600: 'h'}[self.seconds] }"


def worst_window(times: Sequence[int], seconds: int) -> int:
    """The most arrivals in any half-open window of this length. `times` are sorted."""
    length = seconds * SECOND
    worst = start = 0
    for end, time in enumerate(times):
        while time - times[start] >= length:
            start += 1
        worst = max(worst, end - start + 1)
    return worst


def windows_over(times: Sequence[int], limit: Limit) -> int:
    """How many windows that end with an arrival hold more than the limit allows."""
    length, over, start = limit.seconds * SECOND, 0, 0
    for end, time in enumerate(times):
        while time - times[start] >= length:
            start += 1
        over += end - start + 1 > limit.count
    return over


def room_ms(times: Sequence[int], limits: Sequence[Limit]) -> float | None:
    """By how much the tightest window was too long to hold one request too many; below nought it held one. None: too few."""
    spare = [
        times[i + limit.count] - times[i] - limit.seconds * SECOND
        for limit in limits
        for i in range(len(times) - limit.count)
    ]
    return min(spare) / 1e6 if spare else None


def ideal_seconds(count: int, limits: Sequence[Limit]) -> float:
    """From the first of `count` requests to the last, evenly spaced by the shortest window, as fast as all limits allow."""
    shortest = min(limits, key=lambda limit: limit.seconds)
    gap = shortest.seconds / shortest.count
    times: list[float] = []
    for i in range(count):
        earliest = times[-1] + gap if times else 0.0
        for limit in limits:
            if i >= limit.count:
                earliest = max(earliest, times[i - limit.count] + limit.seconds)
        times.append(earliest)
    return times[-1] if times else 0.0


def share_used(times: Sequence[int], limits: Sequence[Limit]) -> float:
    """Ideal time by the time that passed between the first and the last arrival."""
    return ideal_seconds(len(times), limits) / ((times[-1] - times[0]) / SECOND)
