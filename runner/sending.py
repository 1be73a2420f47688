"""One run's sending: the canary first, then the rest, on an event loop of its own; signals, start time, opt-out files."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from runner.breaker import Breaker
from runner.campaign import Campaign
from runner.engine import Ending, Engine, Orders
from runner.errors import InputError
from runner.ledger.sql import SqlLedger, now_us
from runner.moments import moment_text
from runner.optoutwatch import watch_optouts
from runner.pace import Pace
from runner.progress import Progress
from runner.recorder import Recorder
from runner.retry import RetryPolicy
from runner.signals import end_orderly_on_signals
from runner.transport import Transport

STATE_SECONDS = 0.5  # how soon a pause or cancel is noticed while waiting for start_at
LONGEST_SET_OFF = 2.0  # seconds from an intent to its request's bytes: the commit, then the gate, which waits no longer


@dataclass(frozen=True, slots=True)
class Sending:
    """What the phases of one run share. `only` are E.164 digits."""

    campaign: Campaign
    ledger: SqlLedger
    campaign_id: int
    run_id: int
    progress: Progress
    breaker: Breaker
    only: tuple[str, ...] | None
    deadline: int | None  # microseconds since the epoch

    def run(self, limit: int | None) -> Ending:
        """Send to at most `limit` recipients. May be called again: the ledger knows how far it has come."""
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as loop:
                return loop.run(self._drive(limit))
        finally:
            end_orderly_on_signals()

    def with_canary(self, canary: int, limit: int | None, go_on: Callable[[str], bool]) -> Ending:
        """`canary` recipients first; the rest only when their outcomes are within the breaker's limits and `go_on` agrees."""
        ending = self.run(canary)
        if ending.word != "limit":
            return ending
        why = self.breaker.small_sample()
        if why:
            return Ending("stopped", why)
        if not go_on(f"The first {canary:,} are settled. Go on with the rest?"):
            return Ending("limit", f"stopped after the first {canary:,}, as you wished")
        return self.run(limit - canary if limit is not None else None)

    async def _drive(self, limit: int | None) -> Ending:
        campaign = self.campaign
        sender_id = self.ledger.campaign(campaign.name).sender_id
        recorder = Recorder(self.ledger, self.campaign_id, self.run_id, sender_id)
        async with Transport(connections=campaign.concurrency, timeout=campaign.send.timeout) as transport:
            engine = Engine(
                recorder=recorder,
                transport=transport,
                build=partial(campaign.provider.build, campaign.settings),
                read=partial(campaign.provider.judge, campaign.settings),
                pace=_pace(campaign, self.ledger, sender_id),
                progress=self.progress,
                orders=Orders(
                    concurrency=campaign.concurrency,
                    policy=RetryPolicy(campaign.send.retries, campaign.send.backoff),
                    deadline=self.deadline,
                    limit=limit,
                    only=self.only,
                ),
                clock=_steady_clock(),
                wall=now_us,
                random=random.random,
                breaker=self.breaker,
            )
            stop = _Stop(engine, self.progress)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, stop)
            watch = asyncio.create_task(self._watch(recorder), name="opt-outs")
            try:
                await self._wait_for_start(engine, stop)
                return await engine.run()
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                await recorder.close()

    async def _watch(self, recorder: Recorder) -> None:
        """Numbers added to a suppression file while the run goes on count from now on, as those of `optout add` do."""

        async def suppress(numbers: Sequence[str], source: str) -> None:
            await recorder.call(lambda: self.ledger.suppress(numbers, source, self.campaign_id))

        try:
            await watch_optouts(self.campaign, suppress)
        except InputError as error:
            self.progress.note(f"a suppression file can no longer be read, its last state counts: {error.problems[0]}")

    async def _wait_for_start(self, engine: Engine, stop: _Stop) -> None:
        start_at = self.campaign.start_at
        if start_at is None or start_at <= time.time():
            return
        self.progress.note(f"waiting until {moment_text(start_at)}")
        while start_at > time.time() and not stop.asked.is_set():
            state = self.ledger.state(self.campaign_id)
            if state != "open":
                engine.drain(state, f"the campaign was {state} from another terminal")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.asked.wait(), min(start_at - time.time(), STATE_SECONDS))


class _Stop:
    """What a signal does: the first one drains, the second one stops at once."""

    def __init__(self, engine: Engine, progress: Progress) -> None:
        self._engine = engine
        self._progress = progress
        self.asked = asyncio.Event()

    def __call__(self) -> None:
        if self.asked.is_set():
            self._progress.note("stopping at once: what is on the wire becomes unknown")
            self._engine.abort()
        else:
            self._progress.note("stopping: waiting for the replies on the way (press Ctrl-C again to stop at once)")
            self.asked.set()
            self._engine.drain("drained", "stopped by a signal")


def _steady_clock() -> Callable[[], int]:
    """The time of day as it was when the run began, and from then on as the machine counts: setting the clock back by an
    hour must not make a row that waits six seconds wait an hour."""
    began = now_us() - time.monotonic_ns() // 1000
    return lambda: began + time.monotonic_ns() // 1000


def deadline_of(campaign: Campaign) -> int | None:
    """When a run that starts now has to end, in microseconds since the epoch."""
    if campaign.deadline_after is not None:
        return now_us() + int(campaign.deadline_after * 1e6)
    return int(campaign.deadline * 1e6) if campaign.deadline is not None else None


def _pace(campaign: Campaign, ledger: SqlLedger, sender_id: int) -> Pace:
    """The budget as earlier runs of any campaign on this sender left it.

    The ledger has the moment of the intent; the request left up to LONGEST_SET_OFF later, and counts from then. (Measured
    without this: 61 requests in a minute under 60/min with a restart in it, the 61st 59.990 s after the first.)
    """
    now = now_us()
    recent: Sequence[int] = ()
    if campaign.rates:
        window = max(rate.window for rate in campaign.rates) + LONGEST_SET_OFF
        recent = ledger.recent_starts(sender_id, now - int(window * 1e6), max(rate.count for rate in campaign.rates))
    paused = ledger.sender(sender_id).paused_until
    return Pace(
        campaign.rates,
        clock=time.monotonic,
        recent=[max(0.0, (now - at) / 1e6 - LONGEST_SET_OFF) for at in recent],
        paused_for=max(0.0, (paused - now) / 1e6),
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the platform has it (a fifth to a third less processor time a request, measured)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
