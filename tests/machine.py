"""How much of this machine a test has: limits in seconds are those of an idle one, and are stretched by `crowd()`."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = Path("/proc/stat")  # Linux; proc(5): user nice system idle iowait irq softirq steal
_at_begin = [(0, 0)]  # worked and stolen ticks when the present test began


def _ticks() -> tuple[int, int]:
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, TICKS.read_text().split("\n", 1)[0].split()[1:9])
    except (OSError, ValueError):
        return 0, 0
    return user + nice + system + irq + softirq, steal


def begin() -> None:
    """Count what the host takes away from here on; called at the beginning of each test."""
    _at_begin[0] = _ticks()


def crowd() -> float:
    """How many times slower than alone this machine is: 1 when the processors suffice and the host takes nothing.

    Two things slow a test that waits for processes: more of them than processors, and a host that gives its processors
    to other guests (steal: up to 0.7 of the time was seen on shared machines, with a load average of 1).
    """
    worked, stolen = (now - then for now, then in zip(_ticks(), _at_begin[0], strict=True))
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(1.0, waiting) * (1 + stolen / max(worked, 1))
