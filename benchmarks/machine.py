"""The machine that is measured on: its cores, what runs on which, and what a reader must know of it (no names, no paths)."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

CLIENT_CORE, SERVER_CORE = 0, 1
LIBRARIES = ("aiohttp", "uvloop", "requests", "sqlalchemy", "jinja2", "phonenumbers", "orjson", "xlsxwriter", "pandas")


def facts(folder: Path) -> dict[str, str]:
    """What stands beside the figures. `folder` is where ledgers and audiences were written."""
    kernel = re.match(r"\d+(\.\d+)*", platform.release())
    return {
        "cores": str(len(cores())),
        "system": f"{platform.system()} {kernel[0] if kernel else ''}".strip(),
        "file system": file_system(folder),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def file_system(folder: Path) -> str:
    """Its type, such as `ext4`: a ledger in memory would have nothing to wait for."""
    best, kind = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, point, name, *_ = line.split()
            if folder.resolve().is_relative_to(point) and len(point) >= len(best):
                best, kind = point, name
    return kind


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started in this block stay on one core; without two cores, or for None, nothing changes."""
    mine = cores()
    if core is None or not {CLIENT_CORE, SERVER_CORE} <= mine or not hasattr(os, "sched_setaffinity"):
        yield
        return
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def cpu_ns(pid: int) -> int:
    """Processor time of all threads of a process so far, in nanoseconds; 0 when it has ended.

    Linux numbers a process's clock by its complement (linux/posix-timers.h); it is exact where /proc counts ticks of 10 ms.
    """
    with contextlib.suppress(OSError):
        return time.clock_gettime_ns((~pid << 3) | 2)
    return 0
