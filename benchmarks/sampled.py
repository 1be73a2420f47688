"""Samples where processor time goes: `python -m benchmarks.sampled OUT sending|planning ARGUMENTS`, or `OUT preparing FILE`.

Every millisecond of the process's processor time (ITIMER_PROF) the stack of each thread is looked at, and the processor time
that this very thread has used since the last look is booked to the innermost frame that has a name in PLACES. `sending` and
`planning` run `campaign ARGUMENTS` and count while an event loop runs in the main thread, or until one does; `preparing` does
by itself what the confined process does with a campaign's audience. OUT gets seconds by thread and stage, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

INTERVAL = 0.001
IMPORTS = "imports"
Places = tuple[tuple[str, str], ...]  # the first pattern that fits a frame's file names its stage

SENDING: Places = (
    (r"/aiohttp/|/yarl/|/multidict/|/runner/(transport|exchange)\.py", "HTTP exchange"),
    (r"/runner/recorder\.py|/concurrent/futures/|/threading\.py|/queue\.py", "group commit, between the threads"),
    (r"/runner/\w*pace\.py|/runner/turns\.py|/runner/cooldown\.py", "pace gate"),
    (r"/runner/progress\.py|/tqdm/", "progress"),
    (r"/runner/providers/|/runner/retry\.py|/runner/breaker\.py", "build the request, read the reply, decide"),
    (r"/runner/optoutwatch\.py", "watching the opt-out files"),
    (r"/runner/engine\.py", "engine: queue and workers"),
)
PLANNING: Places = (
    (r"/sqlalchemy/|/sqlite3/|/runner/ledger/", "ledger: stage, compare, freeze"),
    (
        r"/runner/confinement\.py|/runner/prepare\.py|/runner/pipeline\.py|/threading\.py",
        "taking rows over from the confined process",
    ),
    (r"/runner/plan\.py|/runner/run\.py", "the plan itself"),
    (r"importlib|<frozen", IMPORTS),
)
PREPARING: Places = (
    (r"/phonenumbers/|/runner/phones\.py", "phone numbers"),
    (r"/jinja2/|/runner/(captions|template\w*|filter\w*|column\w*|imageaddress|hazards)\.py|<template", "captions, images, filter"),
    (r"/runner/(audience|csvfile|workbook\w*|header|encoding|delimiter)\.py|/csv\.py", "reading the file"),
    (r"/runner/providers/|/pydantic", "the request's body"),
    (r"/runner/pipeline\.py", "rows: hash of the body, own values as JSON"),
    (r"importlib|<frozen", IMPORTS),
)  # fmt: skip
# All that this thread does. A look comes when the main thread runs Python again, often after the commit is over, and would find
# the thread waiting for the next one.
WHOLE_THREADS = {"ledger": "ledger: statements and commits"}
ELSEWHERE = {
    "sending": "event loop and the kernel's part of the sockets",
    "planning": "elsewhere",
    "preparing": "elsewhere",
}
_WRAPPERS = {"run", "look"}  # they are on every stack and do nothing themselves


class Sampler:
    """Seconds of processor time by (thread, stage)."""

    def __init__(self, places: Places, elsewhere: str, counts: Callable[[], bool]) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self._patterns = tuple((re.compile(pattern), stage) for pattern, stage in places)
        self._elsewhere = elsewhere
        self._counts = counts
        self._stages: dict[str, str] = {}
        self._seen: dict[int, int] = {}  # thread -> its processor time at the last look

    def look(self, _number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        counts = self._counts()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        main = threading.main_thread().ident
        for thread, top in sys._current_frames().items():
            try:
                used = time.clock_gettime_ns(time.pthread_getcpuclockid(thread))
            except OSError:
                continue
            spent, self._seen[thread] = used - self._seen.get(thread, used), used
            if not counts or spent <= 0:
                continue
            name = "main" if thread == main else re.sub(r"[_-]?\d+$", "", names.get(thread, "?"))
            stage = WHOLE_THREADS.get(name) or self._stage(frame if thread == main else top)
            self.seconds[name, stage] = self.seconds.get((name, stage), 0.0) + spent / 1e9

    def _stage(self, frame: FrameType | None) -> str:
        while frame is not None:
            name = frame.f_code.co_filename
            stage = self._stages.get(name)
            if stage is None:
                stage = next((stage for pattern, stage in self._patterns if pattern.search(name)), "")
                self._stages[name] = stage
            if stage and frame.f_code.co_name not in _WRAPPERS:
                return stage
            frame = frame.f_back
        return self._elsewhere

    def save(self, path: Path) -> None:
        """Stop, and write what was found."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = [[thread, stage, seconds] for (thread, stage), seconds in self.seconds.items()]
        path.write_text(json.dumps(found), encoding="utf-8")


def _campaign(arguments: list[str]) -> None:
    from runner.cli import main as campaign

    sys.argv = ["campaign", *arguments]
    campaign()


def _prepare(arguments: list[str]) -> None:
    from runner.campaign import load_campaign
    from runner.pipeline import prepare
    from runner.prepare import task_of
    from runner.workspace import find_workspace

    file = Path(arguments[0])
    place = find_workspace(file, None)
    for _ in prepare(task_of(load_campaign(file, place, dict(os.environ), None))):
        pass


def main() -> None:
    """The command itself, sampled."""
    out, what, *arguments = sys.argv[1:]

    def in_a_loop() -> bool:
        return asyncio._get_running_loop() is not None

    places, counts = {
        "sending": (SENDING, in_a_loop),
        "planning": (PLANNING, lambda: not in_a_loop()),
        "preparing": (PREPARING, lambda: True),
    }[what]
    sampler = Sampler(places, ELSEWHERE[what], counts)
    signal.signal(signal.SIGPROF, sampler.look)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        (_prepare if what == "preparing" else _campaign)(arguments)
    finally:
        sampler.save(Path(out))


if __name__ == "__main__":
    main()
