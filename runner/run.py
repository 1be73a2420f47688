"""Wires the parts for one campaign: lock, plan, confirm, adopt, engine, result files. The only place that knows all of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from runner.campaign import Campaign
from runner.engine import Ending, Engine, Orders
from runner.errors import CampaignError, ExitCode, StalePlanError
from runner.ledger.base import Counts, Recovered
from runner.ledger.sql import SqlLedger, now_us
from runner.lock import campaign_lock
from runner.model import SkipReason, Status
from runner.moments import moment_text
from runner.outcome_files import Written, write_outcome
from runner.pace import Pace
from runner.plan import Plan, draft_of, open_plan
from runner.progress import Progress, Tally, open_progress
from runner.recorder import Recorder
from runner.retry import RetryPolicy
from runner.transport import Transport


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The choices of one `send` that are not in the campaign file."""

    limit: int | None = None
    only: tuple[str, ...] | None = None  # E.164 digits
    approved_hash: str | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class SendReport:
    """What one `send` came to."""

    plan: Plan
    recovered: Recovered
    ending: Ending
    counts: Counts
    attempted: int
    written: Written | None
    elapsed: float

    @property
    def exit_code(self) -> ExitCode:
        """Decided here and nowhere else."""
        if self.written is not None and not self.written.reconciled:
            return ExitCode.BUG
        if self.ending.error is not None:
            return self.ending.error.exit_code
        if self.ending.word in {"stopped", "paused"}:
            return ExitCode.STOPPED
        if self.ending.word == "drained":
            return ExitCode.INTERRUPTED
        if self.ending.word == "nothing":
            return ExitCode.OK
        failed = sum(self.counts[status] for status in (Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN))
        expired = self.counts.by_reason.get((Status.SKIPPED, SkipReason.EXPIRED.value), 0)
        return ExitCode.UNFINISHED if failed or expired or self.ending.word == "cancelled" else ExitCode.OK


def send(
    campaign: Campaign, ledger: SqlLedger, options: SendOptions, approve: Callable[[Plan, Recovered], bool]
) -> SendReport | None:
    """Plan, ask, send, write the results. None when the person said no. Raises CampaignError.

    Everything happens under the campaign's lock, so that a second runner cannot plan what the first is sending.
    """
    folder = campaign.workspace.folder(campaign.name)
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    holder = f"{owner} (since {moment_text(time.time())})"
    with campaign_lock(folder, campaign.name, holder):
        recovered = _recover(campaign, ledger)
        with open_plan(campaign, ledger) as (plan, staging):
            if options.approved_hash is not None and plan.hash != options.approved_hash:
                raise StalePlanError(
                    f"the plan is {plan.hash} now, not {options.approved_hash}: the audience, the template, the campaign "
                    f"file or the opt-outs have changed. Nothing was sent. Look again with: campaign plan {campaign.path}"
                )
            _check_only(campaign, staging.has_number, options)
            staging.rest()
            if plan.difference.to_send and not approve(plan, recovered):
                return None
            campaign_id = ledger.adopt(staging, draft_of(campaign, plan, ledger))
        started = time.monotonic()
        ending, attempted = Ending("nothing"), 0
        if plan.difference.to_send:
            ending, attempted = _run(campaign, ledger, campaign_id, plan, options, owner)
        written, ending = _write(campaign, ledger, ending)
        return SendReport(
            plan, recovered, ending, ledger.counts(campaign_id), attempted, written, time.monotonic() - started
        )


def _recover(campaign: Campaign, ledger: SqlLedger) -> Recovered:
    if campaign.name not in ledger.campaigns():
        return Recovered(0, 0)
    return ledger.recover(ledger.campaign(campaign.name).id)


def _check_only(campaign: Campaign, has_number: Callable[[str], bool], options: SendOptions) -> None:
    missing = [phone for phone in options.only or () if not has_number(phone)]
    if missing:
        from runner.errors import InputError, Problem

        raise InputError(
            *(
                Problem(
                    f"--to {phone}",
                    f"no row of {campaign.audience_path.name} would be sent to this number",
                    "add a row for it (or see with `campaign check` why its row is skipped)",
                )
                for phone in missing
            )
        )


def _write(campaign: Campaign, ledger: SqlLedger, ending: Ending) -> tuple[Written | None, Ending]:
    """The result files; a ledger or disk that fails now must not hide how the run ended."""
    try:
        return write_outcome(campaign.workspace, ledger, campaign.name), ending
    except CampaignError as error:
        return None, Ending(ending.word, ending.why, ending.error or error)


def _run(
    campaign: Campaign, ledger: SqlLedger, campaign_id: int, plan: Plan, options: SendOptions, owner: str
) -> tuple[Ending, int]:
    run_id = ledger.begin_run(campaign_id, owner, plan.hash)
    to_send = len(options.only) if options.only is not None else plan.difference.to_send
    tally = Tally(min(to_send, options.limit or to_send), campaign.rates, time.monotonic)
    progress = open_progress(tally, settled_before=sum(plan.difference.settled.values()), quiet=options.quiet)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as loop:
            ending = loop.run(_drive(campaign, ledger, campaign_id, run_id, options, progress))
    finally:
        progress.close()
    if ending.word == "expired":
        ledger.give_up(campaign_id, SkipReason.EXPIRED, ending.why)
    elif ending.word == "cancelled":
        ledger.give_up(campaign_id, SkipReason.CANCELLED, ending.why)
    if ending.word != "failed":
        ledger.end_run(run_id, ending.word)
    return ending, tally.finished


async def _drive(
    campaign: Campaign,
    ledger: SqlLedger,
    campaign_id: int,
    run_id: int,
    options: SendOptions,
    progress: Progress,
) -> Ending:
    loop = asyncio.get_running_loop()
    sender_id = ledger.campaign(campaign.name).sender_id
    recorder = Recorder(ledger, campaign_id, run_id, sender_id)
    transport = Transport(connections=campaign.concurrency, timeout=campaign.send.timeout)
    async with transport:
        engine = Engine(
            recorder=recorder,
            transport=transport,
            build=partial(campaign.provider.build, campaign.settings),
            read=partial(campaign.provider.judge, campaign.settings),
            pace=_pace(campaign, ledger, sender_id),
            progress=progress,
            orders=Orders(
                concurrency=campaign.concurrency,
                policy=RetryPolicy(campaign.send.retries, campaign.send.backoff),
                deadline=_deadline(campaign),
                limit=options.limit,
                only=options.only,
            ),
            clock=now_us,
            random=random.random,
        )
        stop = _Stop(engine, progress)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
        try:
            if campaign.start_at is not None:
                await _wait_until(campaign.start_at, stop, progress)
            ending = await engine.run()
        finally:
            await recorder.close()
    return ending


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


async def _wait_until(start_at: float, stop: _Stop, progress: Progress) -> None:
    wait = start_at - time.time()
    if wait > 0:
        progress.note(f"waiting until {moment_text(start_at)}")
    while (wait := start_at - time.time()) > 0 and not stop.asked.is_set():
        try:
            await asyncio.wait_for(stop.asked.wait(), min(wait, 60.0))  # in steps: the wall clock may be set meanwhile
        except TimeoutError:
            continue


def _deadline(campaign: Campaign) -> int | None:
    if campaign.deadline_after is not None:
        return now_us() + int(campaign.deadline_after * 1e6)
    return int(campaign.deadline * 1e6) if campaign.deadline is not None else None


def _pace(campaign: Campaign, ledger: SqlLedger, sender_id: int) -> Pace:
    """The budget as earlier runs of any campaign on this sender left it."""
    now = now_us()
    recent: Sequence[int] = ()
    if campaign.rates:
        window = max(rate.window for rate in campaign.rates)
        recent = ledger.recent_starts(sender_id, now - int(window * 1e6), max(rate.count for rate in campaign.rates))
    paused = ledger.sender(sender_id).paused_until
    return Pace(
        campaign.rates,
        clock=time.monotonic,
        recent=[max(0.0, (now - at) / 1e6) for at in recent],
        paused_for=max(0.0, (paused - now) / 1e6),
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the platform has it (a fifth to a third less processor time a request, measured)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
