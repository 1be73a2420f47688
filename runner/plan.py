"""Files + ledger -> Plan: what would be sent to whom, what not and why, how long it takes, under one hash.

check, preview, plan and send all make their plan here, the same way; only send adopts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import orjson

from runner.campaign import Campaign
from runner.confinement import prepare_confined
from runner.errors import InputError, Problem
from runner.ledger.base import CampaignDraft, Difference, Sample
from runner.ledger.sql import SqlLedger
from runner.ledger.staging import Staging
from runner.model import SkipReason, Status
from runner.moments import moment_text
from runner.pace import seconds_for
from runner.preflight import ImageReport, check_plan
from runner.prepare import Branches, Opened, Rows, Suppressed, task_of
from runner.units import Rate, duration_text

DUPLICATES_NAMED = 20  # rows named when `duplicates: error` refuses a file


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between a campaign file and the ledger, ready to be looked at. Rates and times: see `pace_text`."""

    campaign: str
    provider: str
    sandbox: bool
    hash: str
    audience: str  # what was read: file, encoding, delimiter, columns
    notes: tuple[str, ...]  # what a person should know about the workspace, the audience and the provider
    columns: tuple[str, ...]
    used: tuple[str, ...]
    unused: tuple[str, ...]
    difference: Difference
    suppression_faults: Mapping[str, tuple[str, ...]]  # file -> entries that could not be read
    samples: Mapping[str, Sequence[Sample]]
    rates: tuple[Rate, ...]
    start_at: float | None
    deadline: float | None
    images: ImageReport | None = None  # when the images were checked
    # branch of the template -> positions of the first rows that took it; when asked for
    branches: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long sending takes at least under the limits."""
        return seconds_for(self.difference.to_send, self.rates)

    def pace_text(self) -> str:
        """`10/min: about 3 h 20 min`."""
        if not self.rates:
            return "no limit"
        limits = " and ".join(str(rate) for rate in self.rates)
        return f"{limits}: {duration_text(self.seconds)}" if self.difference.to_send else limits

    def finish_text(self, now: float) -> str:
        """When sending would be finished if it started now (or at start_at)."""
        begin = max(now, self.start_at or now)
        return moment_text(begin + self.seconds)

    def warnings(self, now: float) -> list[str]:
        """What a person should think about before saying yes."""
        found = list(self.notes)
        difference = self.difference
        if difference.changed:
            found.append(
                f"{difference.changed:,} people have had this campaign already and would now get another caption or image: "
                "they are not written to again"
            )
        if difference.gone:
            gone = sum(difference.gone.values())
            found.append(f"{gone:,} people in the ledger are no longer in the file")
        if difference.settled.get(Status.UNKNOWN):
            found.append(
                f"{difference.settled[Status.UNKNOWN]:,} unknown (may or may not have been sent): never sent again by itself"
            )
        for name, faults in self.suppression_faults.items():
            found.append(f"{name}: {len(faults)} entries cannot be read and suppress nobody ({faults[0]} ...)")
        if self.deadline is not None and max(now, self.start_at or now) + self.seconds > self.deadline:
            found.append(f"the deadline ({moment_text(self.deadline)}) comes before the last message at this rate")
        if not self.rates and not self.sandbox and difference.to_send:
            found.append("no rate limit is set: the provider may refuse messages or ban the number")
        return found


@contextmanager
def open_plan(
    campaign: Campaign,
    ledger: SqlLedger,
    *,
    images: bool = False,
    branches: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Plan, Staging]]:
    """Read everything and compare with the ledger. Writes nothing. Raises InputError with every problem of the files.

    With `images`, or when the campaign says so, every image is fetched once; `note` is told, for that may take a while.
    With `branches` the plan names rows for each branch of the template.
    """
    with ledger.stage() as staging:
        opened: Opened | None = None
        faults: dict[str, tuple[str, ...]] = {}
        taken: Mapping[str, tuple[int, ...]] = {}
        for event in prepare_confined(replace(task_of(campaign), branches=branches)):
            if isinstance(event, Rows):
                staging.add(event.rows)
            elif isinstance(event, Suppressed):
                staging.suppress(event.numbers, event.source)
                if event.fault_count:
                    faults[event.source] = event.faults
            elif isinstance(event, Branches):
                taken = event.rows
            else:
                opened = event
        assert opened is not None  # noqa: S101 - the stream always opens before it ends
        report = check_plan(campaign, staging, note) if images or campaign.message.images == "check" else None
        staging.settle(campaign.name, campaign.audience.duplicates)
        difference = staging.difference()
        if campaign.audience.duplicates == "error" and difference.skipped.get(SkipReason.DUPLICATE):
            raise InputError(*_duplicates(campaign, staging, difference.skipped[SkipReason.DUPLICATE]))
        yield (
            Plan(
                campaign=campaign.name,
                provider=campaign.provider.name,
                sandbox=campaign.workspace.sandbox,
                hash=staging.fingerprint(_preamble(campaign)),
                audience=opened.description,
                notes=(*campaign.workspace.warnings(), *opened.notes, *campaign.provider.abilities.notes),
                columns=opened.columns,
                used=opened.used,
                unused=opened.unused,
                difference=difference,
                suppression_faults=faults,
                samples=staging.samples(),
                rates=campaign.rates,
                start_at=campaign.start_at,
                deadline=campaign.deadline,
                images=report,
                branches=taken,
            ),
            staging,
        )


def _duplicates(campaign: Campaign, staging: Staging, count: int) -> list[Problem]:
    where = campaign.file.where(("audience", "duplicates"))
    named = [
        Problem(f"{campaign.audience_path.name} row {sample.row}", f"{sample.raw_phone!r} is {sample.detail}")
        for sample in staging.skipped()
        if sample.reason == SkipReason.DUPLICATE
    ][:DUPLICATES_NAMED]
    return [
        Problem(where, f"{count:,} rows repeat a number", "remove them, or choose duplicates: first or last"),
        *named,
    ]


def _preamble(campaign: Campaign) -> bytes:
    """What belongs to the plan beside the messages: the account they go through (its address left out: practice has its own)."""
    settings = {name: value for name, value in campaign.public_settings().items() if name != "base_url"}
    return orjson.dumps([campaign.name, settings], option=orjson.OPT_SORT_KEYS)


def _from_root(campaign: Campaign) -> str:
    path, root = campaign.path.resolve(), campaign.workspace.root.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def draft_of(campaign: Campaign, plan: Plan, ledger: SqlLedger) -> CampaignDraft:
    """What the ledger is told when the plan is adopted."""
    return CampaignDraft(
        name=campaign.name,
        provider=campaign.provider.name,
        sender=ledger.fingerprint(campaign.provider.sender(campaign.settings)),
        columns=plan.columns,
        phone_column=campaign.audience.phone,
        settings={
            "file": _from_root(campaign),
            "formats": list(campaign.report.formats),
            "rate": [str(rate) for rate in campaign.rates],
            "rates": [[rate.count, rate.window] for rate in campaign.rates],
        },
        plan_hash=plan.hash,
    )
