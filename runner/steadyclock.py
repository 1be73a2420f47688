"""A clock that nobody can set: the time of day as it once was, carried on by the machine's own counting since it was started.

All processes of one machine count alike, so those who start from the same `offset` read the same time, whatever the time of
day has been set to since.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SteadyClock:
    """Microseconds since the epoch, if the time of day was right when the clock was begun."""

    offset: int

    @classmethod
    def begin(cls) -> SteadyClock:
        """The time of day is believed this once."""
        return cls((time.time_ns() - time.monotonic_ns()) // 1000)

    def __call__(self) -> int:
        return self.offset + time.monotonic_ns() // 1000

    def monotonic(self, moment: int) -> float:
        """The same moment by `time.monotonic`, in seconds."""
        return (moment - self.offset) / 1e6


def counting() -> str:
    """Names who counts: two processes with the same answer read the same `time.monotonic`.

    Not so on two machines, after a restart of the machine, or in a Linux time namespace of its own (time_namespaces(7)).
    """
    words = [socket.gethostname()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    with suppress(OSError):
        words.append(str(Path("/proc/self/ns/time").readlink()))
    return " ".join(words)
