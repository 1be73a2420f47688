"""One run's sending: the canary first, then the rest, on an event loop of its own; signals, start time, opt-out files."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from runner.breaker import Breaker
from runner.campaign import Campaign
from runner.engine import Ending, Engine, Orders
from runner.errors import InputError
from runner.eventloop import loop_factory, steady_clock, undisturbed
from runner.ledger.base import Hold, now_us
from runner.ledger.slots import Slots
from runner.ledger.sql import SqlLedger
from runner.lock import SenderHold
from runner.moments import moment_text
from runner.optoutwatch import watch_optouts
from runner.pace import Pace
from runner.progress import Progress
from runner.recorder import COMPANY, Recorder
from runner.retry import RetryPolicy
from runner.sharedpace import open_shared_pace
from runner.sharing import open_gate, place_at_sender
from runner.signals import end_orderly_on_signals
from runner.transport import Transport
from runner.turns import Gate

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
    owner: str  # which process this is, in words for others

    def run(self, limit: int | None) -> Ending:
        """Send to at most `limit` recipients. May be called again: the ledger knows how far it has come."""
        return self.run_here(limit)

    def run_here(self, limit: int | None) -> Ending:
        """The same, in this process. Each call takes a place at the sender of its own: a question may lie between two."""
        if not self.campaign.rates or self.ledger.shared:
            return self._run_loop(limit, None)
        with place_at_sender(self.campaign, self.ledger, self.campaign_id, self.owner, self.progress.note) as place:
            if place is None:
                why = "stopped from another terminal while waiting for another campaign"
                return Ending(self.ledger.state(self.campaign_id), why)
            return self._run_loop(limit, place)

    def _run_loop(self, limit: int | None, place: SenderHold | None) -> Ending:
        try:
            with undisturbed(), asyncio.Runner(loop_factory=loop_factory()) as loop:
                return loop.run(self._drive(limit, place))
        finally:
            end_orderly_on_signals()

    def with_canary(self, canary: int, limit: int | None, go_on: Callable[[str], bool]) -> Ending:
        """`canary` recipients first; the rest only when their outcomes are within the breaker's limits and `go_on` agrees."""
        ending = self.run_here(canary)
        if ending.word != "limit":
            return ending
        why = self.breaker.small_sample()
        if why:
            return Ending("stopped", why)
        if not go_on(f"The first {canary:,} are settled. Go on with the rest?"):
            return Ending("limit", f"stopped after the first {canary:,}, as you wished")
        return self.run(limit - canary if limit is not None else None)

    async def _drive(self, limit: int | None, place: SenderHold | None) -> Ending:
        campaign = self.campaign
        sender_id = self.ledger.campaign(campaign.name).sender_id
        hold = Hold(self.campaign_id, self.run_id, sender_id)
        recorder = Recorder(self.ledger, hold, company=COMPANY if self.ledger.shared else 0.0)
        async with (
            self._gate(sender_id, place) as gate,
            Transport(
                connections=campaign.concurrency,
                timeout=campaign.send.timeout,
                keep=campaign.send.keep_connections,
            ) as transport,
        ):
            engine = Engine(
                recorder=recorder,
                transport=transport,
                build=partial(campaign.provider.build, campaign.settings),
                read=partial(campaign.provider.judge, campaign.settings),
                pace=gate,
                progress=self.progress,
                orders=Orders(
                    concurrency=campaign.concurrency,
                    policy=RetryPolicy(campaign.send.retries, campaign.send.backoff),
                    deadline=self.deadline,
                    limit=limit,
                    only=self.only,
                ),
                clock=place.clock if place is not None else steady_clock(),
                wall=now_us,
                random=random.random,
                breaker=self.breaker,
            )
            stop = _Stop(engine, self.progress)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, stop)
            watch = asyncio.create_task(self.watch_optouts(recorder.call), name="opt-outs")
            try:
                await self.wait_for_start(engine.drain, stop.asked)
                return await engine.run()
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                await recorder.close()

    def _gate(self, sender_id: int, place: SenderHold | None) -> AbstractAsyncContextManager[Gate]:
        """The budget that all machines share, where the ledger is for many; else our own, for as long as we are alone."""
        slots, rates = Slots(self.ledger, sender_id), self.campaign.rates
        if self.ledger.shared:
            return open_shared_pace(slots, rates)
        alone = partial(_pace, self.campaign, self.ledger, sender_id)
        if place is None:
            return contextlib.nullcontext(alone())
        return open_gate(place, alone, slots, rates, self.progress.note)

    async def watch_optouts(self, call: Callable[[Callable[[], int]], Awaitable[int]]) -> None:
        """Numbers added to a suppression file while the run goes on count from now on, as those of `optout add` do.

        `call` makes a call of the ledger off the event loop.
        """

        async def suppress(numbers: Sequence[str], source: str) -> None:
            await call(lambda: self.ledger.suppress(numbers, source, self.campaign_id))

        try:
            await watch_optouts(self.campaign, suppress)
        except InputError as error:
            self.progress.note(f"a suppression file can no longer be read, its last state counts: {error.problems[0]}")

    async def wait_for_start(self, drain: Callable[[str, str], None], asked: asyncio.Event) -> None:
        """Until `start_at`, or until a signal has `asked` to stop; `drain` when the campaign is paused or cancelled."""
        start_at = self.campaign.start_at
        if start_at is None or start_at <= time.time():
            return
        self.progress.note(f"waiting until {moment_text(start_at)}")
        while start_at > time.time() and not asked.is_set():
            state = self.ledger.state(self.campaign_id)
            if state != "open":
                drain(state, f"the campaign was {state} from another terminal")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), min(start_at - time.time(), STATE_SECONDS))


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
            self._progress.note("stopping: waiting for the replies on the way (Ctrl-C again stops at once)")
            self.asked.set()
            self._engine.drain("drained", "stopped by a signal")


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
    now = ledger.clock()
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
