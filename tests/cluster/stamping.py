"""Loaded into every worker of the cluster tests (Dask's `preload`): notes the moment at which each request is written.

CLOCK_MONOTONIC is the machine's, so the moments of all its processes can be compared.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from runner import sharedpace


def _stamp() -> None:
    folder = os.environ.get("CAMPAIGN_TEST_STAMPS")
    if folder is None or hasattr(sharedpace.SharedSlot, "stamped"):  # Dask loads this file more than once
        return
    file = os.open(Path(folder) / f"{os.getpid()}.stamps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sent(_: sharedpace.SharedSlot) -> None:
        os.write(file, b"%d\n" % time.monotonic_ns())

    sharedpace.SharedSlot.sent = sent  # type: ignore[method-assign, assignment]  # to look on, nothing else
    sharedpace.SharedSlot.stamped = True  # type: ignore[attr-defined]


_stamp()
