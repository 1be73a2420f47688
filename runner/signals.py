"""What SIGTERM and SIGHUP mean outside the sending itself: the same as Ctrl-C, an orderly end."""

from __future__ import annotations

import signal
from types import FrameType


def end_orderly_on_signals() -> None:
    """SIGTERM and SIGHUP raise KeyboardInterrupt from now on. An event loop that handles them puts the default back
    when it closes, so this is called again after each. A signal that is ignored (nohup) stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
