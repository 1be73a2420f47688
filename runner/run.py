"""Wires the parts for one campaign: lock, plan, confirm, adopt, engine, result files. The only place that knows all of them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.breaker import Breaker
from runner.campaign import Campaign
from runner.engine import Ending
from runner.errors import CampaignError, ExitCode, StalePlanError
from runner.files import check_writable
from runner.ledger.base import TAKEN_OVER, Counts, Recovered
from runner.ledger.sql import SqlLedger
from runner.lock import campaign_lock
from runner.model import SkipReason, Status
from runner.moments import moment_text
from runner.outcome_files import Written, write_outcome
from runner.plan import Plan, draft_of, open_plan
from runner.progress import Tally, open_progress
from runner.sending import Sending, deadline_of

if TYPE_CHECKING:
    from runner.clusterplan import Cluster


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The choices of one `send` that are not in the campaign file."""

    limit: int | None = None
    only: tuple[str, ...] | None = None  # E.164 digits
    approved_hash: str | None = None
    quiet: bool = False
    cluster: Cluster | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What a person is asked: whether the plan is right, and whether to go on after the canary."""

    approve: Callable[[Plan, Recovered], bool]
    go_on: Callable[[str], bool]


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
        if self.ending.word in {"stopped", "paused", TAKEN_OVER}:
            return ExitCode.STOPPED
        if self.ending.word == "drained":
            return ExitCode.INTERRUPTED
        if self.ending.word == "nothing":
            return ExitCode.OK
        failed = sum(self.counts[status] for status in (Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN))
        expired = self.counts.by_reason.get((Status.SKIPPED, SkipReason.EXPIRED.value), 0)
        return ExitCode.UNFINISHED if failed or expired or self.ending.word == "cancelled" else ExitCode.OK


def send(campaign: Campaign, ledger: SqlLedger, options: SendOptions, ask: Ask) -> SendReport | None:
    """Plan, ask, send, write the results. None when the person said no. Raises CampaignError.

    Everything happens under the campaign's lock, so that a second runner cannot plan what the first is sending.
    """
    folder = campaign.workspace.folder(campaign.name)
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    holder = f"{owner} (since {moment_text(time.time())})"
    with campaign_lock(folder, campaign.name, holder), ledger.campaign_lock(campaign.name, holder):
        check_writable(folder)
        recovered = _take_up(campaign, ledger)
        with open_plan(campaign, ledger) as (plan, staging):
            if options.approved_hash is not None and plan.hash != options.approved_hash:
                raise StalePlanError(
                    f"the plan is {plan.hash} now, not {options.approved_hash}: the audience, the template, the campaign "
                    f"file or the opt-outs have changed. Nothing was sent. Look again with: campaign plan {campaign.path}"
                )
            _check_only(campaign, staging.has_number, options)
            staging.rest()
            if plan.difference.to_send and not ask.approve(plan, recovered):
                return None
            campaign_id = ledger.adopt(staging, draft_of(campaign, plan, ledger))
        started = time.monotonic()
        ending, attempted = Ending("nothing"), 0
        if plan.difference.to_send:
            ending, attempted = _run(campaign, ledger, campaign_id, plan, options, ask, owner)
        written, ending = _write(campaign, ledger, ending)
        return SendReport(
            plan, recovered, ending, ledger.counts(campaign_id), attempted, written, time.monotonic() - started
        )


def _take_up(campaign: Campaign, ledger: SqlLedger) -> Recovered:
    """What a dead run left is settled; a campaign that was paused or cancelled is open again from here on.

    Not later: a pause or cancel that comes while the plan is made must not be undone.
    """
    if campaign.name not in ledger.campaigns():
        return Recovered(0, 0)
    known = ledger.campaign(campaign.name)
    if known.state != "open":
        ledger.set_state(known.id, "open")
    return ledger.recover(known.id)


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
        again = f"campaign report {campaign.name}" + (" --sandbox" if campaign.workspace.sandbox else "")
        told = CampaignError(  # not the error's own exit code: 2 would say that nothing was sent
            f"what was sent is in the ledger, but the result files could not be written:\n{error}\n"
            f"Write them again with: {again}"
        )
        return None, Ending(ending.word, ending.why, ending.error or told)


def _run(
    campaign: Campaign, ledger: SqlLedger, campaign_id: int, plan: Plan, options: SendOptions, ask: Ask, owner: str
) -> tuple[Ending, int]:
    run_id = ledger.begin_run(campaign_id, owner, plan.hash)
    to_send = len(options.only) if options.only is not None else plan.difference.to_send
    to_send = min(to_send, options.limit or to_send)
    tally = Tally(to_send, campaign.rates, time.monotonic)
    progress = open_progress(tally, settled_before=sum(plan.difference.settled.values()), quiet=options.quiet)
    shared_image = "{" not in campaign.message.image
    breaker = Breaker(campaign.send.stop_when.limits(), shared_image=shared_image)
    parts = (campaign, ledger, campaign_id, run_id, progress, breaker, options.only, deadline_of(campaign), owner)
    sending = Sending(*parts)
    if options.cluster is not None:
        from runner.cluster import ClusterSending

        sending = ClusterSending(*parts, options.cluster)
    canary = campaign.send.canary
    ledger.tell = progress.note
    try:
        with ledger.spare_space(campaign.name):
            if canary is not None and canary < to_send and not plan.difference.settled.get(Status.ACCEPTED):
                ending = sending.with_canary(canary, options.limit, ask.go_on)
            else:
                ending = sending.run(options.limit)
    finally:
        progress.close()
    if ending.word == "expired":
        ledger.give_up(campaign_id, SkipReason.EXPIRED, ending.why)
    elif ending.word == "cancelled":
        ledger.give_up(campaign_id, SkipReason.CANCELLED, ending.why)
    if ending.word != "failed":
        ledger.end_run(run_id, ending.word)
    return ending, tally.finished
