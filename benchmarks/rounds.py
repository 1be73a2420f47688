"""Rounds: every variant once in each, one after the other, so that a slow minute of the machine falls on all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def interleaved(variants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Name -> what each round brought. Every second round goes through the variants backwards."""
    found: dict[str, list[T]] = {name: [] for name in variants}
    for turn in range(rounds):
        names = list(variants)
        for name in reversed(names) if turn % 2 else names:
            began = time.monotonic()
            found[name].append(variants[name]())
            say(f"  round {turn + 1} of {rounds}, {name}: {time.monotonic() - began:.1f} s")
    return found


def say(text: str) -> None:
    """What is going on, on stderr."""
    print(text, file=sys.stderr, flush=True)
