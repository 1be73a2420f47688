"""Suppression files that change while a run goes on: their numbers count from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from runner.campaign import Campaign
from runner.confinement import prepare_confined
from runner.prepare import Suppressed, task_of

LOOK_SECONDS = 1.0

_Stamp = tuple[int, int] | None


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None  # away for a moment, as while an editor saves; what was read before counts
    return found.st_mtime_ns, found.st_size


async def watch_optouts(campaign: Campaign, suppress: Callable[[Sequence[str], str], Awaitable[None]]) -> None:
    """Look at the campaign's suppression files every second; hand every number of a changed one to `suppress`.

    Runs until cancelled. A number that is taken out of a file counts again with the next plan. Raises InputError when a
    changed file cannot be read.
    """
    stamps = {path: _stamp(path) for path in campaign.suppress_paths}
    while stamps:
        await asyncio.sleep(LOOK_SECONDS)
        now = {path: _stamp(path) for path in stamps}
        if any(stamp is not None and stamp != stamps[path] for path, stamp in now.items()):
            for event in await asyncio.to_thread(_read, campaign):
                await suppress(event.numbers, event.source)
        stamps = {path: stamp if stamp is not None else stamps[path] for path, stamp in now.items()}


def _read(campaign: Campaign) -> list[Suppressed]:
    """All files anew, in a confined process; it stops before the audience is opened."""
    found = []
    events = prepare_confined(task_of(campaign))
    for event in events:
        if not isinstance(event, Suppressed):
            break
        found.append(event)
    return found
