"""Rates and durations as people write them: `20/s`, `10/min`, `30s`, `5min`, `2h`. Pure text in, numbers out."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}

# The same for Python's re and for the regular expressions of a JSON Schema, so that an editor and the program agree.
RATE_PATTERN = r"\s*([0-9]{1,7})\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)\s*"
DURATION_PATTERN = r"\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(ms|s|sec|m|min|h|d|day|days)\s*"
_RATE = re.compile(RATE_PATTERN)
_DURATION = re.compile(DURATION_PATTERN)
_UNIT = {
    "sec": "s", "second": "s", "m": "min", "minute": "min", "hour": "h", "d": "day", "days": "day",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in any sliding window of `window` seconds."""

    count: int
    window: float

    @property
    def per_second(self) -> float:
        """The long-run rate in requests a second."""
        return self.count / self.window

    def __str__(self) -> str:
        unit = next((name for name, seconds in SECONDS.items() if seconds == self.window), None)
        return f"{self.count}/{unit}" if unit else f"{self.count} in {duration_text(self.window)}"


def parse_rate(text: str) -> Rate:
    """`20/s`, `10/min`, `500/h`, `2000/day`. Raises ValueError with words for a person."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write a whole number and a unit: 20/s, 10/min, 500/h or 2000/day")
    count, unit = int(match[1]), match[2]
    if count == 0:
        raise ValueError(f"{text!r} would never send anything; the smallest rate is 1/day")
    return Rate(count, SECONDS[_UNIT.get(unit, unit)])


def parse_duration(text: str) -> float:
    """`500ms`, `30s`, `5min`, `2h`, `1day` in seconds. Raises ValueError with words for a person."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 30s, 5min, 2h or 1day")
    unit = match[2]
    return float(match[1]) * SECONDS[_UNIT.get(unit, unit)]


def duration_text(seconds: float) -> str:
    """A duration for people, in its two largest units: `45 s`, `6 min`, `3 h 28 min`, `2 days 4 h`."""
    if seconds < 1:
        return "under 1 s" if seconds > 0 else "0 s"
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    parts = [
        f"{days} day{'s' if days > 1 else ''}" if days else "",
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes else "",
        f"{secs} s" if secs else "",
    ]
    return " ".join([part for part in parts if part][:2])
