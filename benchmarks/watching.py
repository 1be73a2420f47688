"""Processor time and peak memory of a process and its children, looked at from outside while they run (Linux)."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import cpu_ns

LOOK_SECONDS = 0.05
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


@dataclass(slots=True)
class Use:
    """What one process has used so far."""

    cpu: float = 0.0  # seconds of processor time
    peak: float = 0.0  # MB of resident memory (VmHWM), the most at any one time


@dataclass(slots=True)
class Watch:
    """Looks at a process and its children until `close`; what has ended keeps its last figures."""

    pid: int
    own: Use = field(default_factory=Use)
    children: dict[int, Use] = field(default_factory=dict)
    own_at_last_child: float = 0.0  # the process's own processor time when a child of its was last seen
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more looking."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def peak(self) -> float:
        """MB of the largest of the processes."""
        return max([self.own.peak, *(use.peak for use in self.children.values())])

    @property
    def children_cpu(self) -> float:
        """Seconds of processor time of all children."""
        return sum(use.cpu for use in self.children.values())

    def look(self) -> None:
        """Once, now."""
        _update(self.own, self.pid)
        running = [int(pid) for pid in _read(f"/proc/{self.pid}/task/{self.pid}/children").split()]
        for pid in running:
            _update(self.children.setdefault(pid, Use()), pid)
        if running:
            self.own_at_last_child = self.own.cpu

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.look()


def _update(use: Use, pid: int) -> None:
    use.cpu = max(use.cpu, cpu_ns(pid) / 1e9)
    peak = _PEAK.search(_read(f"/proc/{pid}/status"))
    if peak is not None:
        use.peak = max(use.peak, int(peak[1]) / 1024)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return ""


def peak_of_mine() -> float:
    """MB of this process's peak. Not getrusage's: that begins with what the parent had when it forked."""
    found = _PEAK.search(_read("/proc/self/status"))
    return int(found[1]) / 1024 if found is not None else 0.0


def reap(pid: int) -> tuple[int, float]:
    """Wait for the end of a child of ours: its exit code, and the processor time of it and the children it waited for."""
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
