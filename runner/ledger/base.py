"""What goes into the ledger and comes out of it, as types. The statements are in `sql.py`, the databases beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.model import Message, Outcome, Status

SCHEMA_VERSION = "3"  # of the ledger's tables, see `upgrading`
RECENT_US = 10_000_000  # what "lately" means for a sender's pace
HELD_BACK = "held_back"  # reason of an attempt whose request was never begun: the run was ending, or told to wait
TAKEN_OVER = "taken_over"  # why an intent is refused: another run (or another worker, for this part of it) may send now
UNCOUNTED = (HELD_BACK, "rate_limited")  # attempts that say nothing about the recipient, so they use up no retry


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class PlannedRow(NamedTuple):
    """One row of the audience as planned: either a frozen message (reason empty) or a reason for skipping it.

    A tuple, in the order of the stage's columns: a million of them go from one process to the other and into the database.
    """

    position: int  # 0, 1, 2 ... in input order
    row: int  # the spreadsheet's row number
    phone: str  # E.164 digits; '' when it could not be read
    country: str
    raw_phone: str
    reason: str
    detail: str
    image: str
    caption: str
    scheduled_at: int | None
    payload: bytes | None  # SHA-256 of the request's body
    own: str  # JSON list of the audience's own values


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """What the ledger knows of a campaign."""

    id: int
    name: str
    provider: str
    sender_id: int
    state: str  # open | paused | cancelled
    columns: tuple[str, ...]
    phone_column: str
    settings: Mapping[str, object]
    plan_hash: str
    planned_at: int


@dataclass(frozen=True, slots=True)
class CampaignDraft:
    """What a plan says of its campaign when it is adopted."""

    name: str
    provider: str
    sender: str  # keyed fingerprint of the sending account
    columns: tuple[str, ...]
    phone_column: str
    settings: Mapping[str, object]
    plan_hash: str


@dataclass(frozen=True, slots=True)
class Sender:
    """The provider account or number that sends. `paused_until` in microseconds; 0 = not paused."""

    id: int
    paused_until: int


@dataclass(frozen=True, slots=True)
class PartitionHold:
    """The part of a run that one worker holds: recipients by position, both ends included. Another `epoch`: no longer."""

    id: int
    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Hold:
    """In whose name something is claimed and sent: one run of a campaign through one sender, or one part of such a run."""

    campaign_id: int
    run_id: int
    sender_id: int
    partition: PartitionHold | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """One recipient held by a run, ready to be sent."""

    id: int
    message: Message
    payload: bytes
    attempts: int  # made so far
    uncounted: int = 0  # of these: for reasons that have nothing to do with the recipient (UNCOUNTED)

    @property
    def counted(self) -> int:
        """Attempts so far that count against the retries."""
        return self.attempts - self.uncounted


@dataclass(frozen=True, slots=True)
class Intent:
    """The wish to send a claimed recipient now; durable before the first byte leaves."""

    claim: Claim
    at: int


@dataclass(frozen=True, slots=True)
class Finish:
    """What became of an attempt, and where the recipient goes from here."""

    recipient_id: int
    attempt: int
    outcome: Outcome
    status: Status
    finished_at: int
    not_before: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Recipients to claim: up to `n` who are due at `now`, in input order; of `only` these numbers."""

    n: int
    now: int
    only: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What the ledger said to a batch: intents that a last gate refused, the campaign's state just then, and who was claimed."""

    refused: Mapping[int, str]  # recipient id -> 'suppressed' | 'paused' | 'cancelled' | 'taken_over'
    state: str
    claims: Sequence[Claim] = ()
    ours: bool = True  # whether this run may still send; another may have taken over


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a campaign by status and by reason. `total` is all rows; the statuses add up to it."""

    by_status: Mapping[Status, int]
    by_reason: Mapping[tuple[Status, str], int]
    gone: int = 0  # rows that are no longer in the audience file, included in all of the above

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.by_status.values())

    def __getitem__(self, status: Status) -> int:
        return self.by_status.get(status, 0)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a run found left over from a dead one."""

    released: int  # claimed rows: no byte was written, they are pending again
    unknown: int  # rows in flight: they may have been sent


class LedgerRow(NamedTuple):
    """One row for the result files. A tuple: there are a million of them, and a frozen dataclass takes 6 µs to make."""

    row: int | None
    phone: str
    raw_phone: str
    status: str
    reason: str
    detail: str
    code: str
    queue_id: str
    attempts: int
    first_attempt_at: int
    last_attempt_at: int
    delivery: str
    image: str
    caption: str
    own: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The audience as planned against the ledger. Every input row is in exactly one of the first three."""

    to_send: int  # new, or planned before and not yet sent
    settled: Mapping[Status, int]  # the ledger has them already, by status
    skipped: Mapping[str, int]  # by reason
    changed: int  # of the settled: the file would now send them something else (it will not)
    gone: Mapping[Status, int]  # in the ledger, no longer in the file
    countries: Mapping[str, int]  # of those to send
    resent: int = 0  # of those to send: attempted before, certainly not sent

    @property
    def rows(self) -> int:
        """Input rows."""
        return self.to_send + sum(self.settled.values()) + sum(self.skipped.values())


@dataclass(frozen=True, slots=True)
class Sample:
    """One planned message or skipped row, for previews."""

    row: int
    phone: str
    raw_phone: str
    reason: str
    detail: str
    image: str
    caption: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One `send`, for status and reports."""

    id: int
    started_at: int
    finished_at: int
    owner: str
    ending: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A row that may or may not have been sent."""

    id: int
    row: int | None
    phone: str
    image: str
    caption: str
    last_attempt_at: int
    queue_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class StatusView:
    """What `campaign status` shows of one campaign."""

    campaign: CampaignRecord
    counts: Counts
    last_run: RunRecord | None
    oldest_in_flight: int  # microseconds; 0 = none
    recent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker's share of a run. `beat_at` in microseconds; `busy`: it has a partition that is not done."""

    owner: str
    taken: int
    done: int
    beat_at: int
    busy: bool


@dataclass(frozen=True, slots=True)
class PartitionsView:
    """The partitions of a campaign's last cluster run."""

    run_id: int
    total: int
    done: int
    workers: tuple[WorkerView, ...]


@dataclass(frozen=True, slots=True)
class SenderView:
    """How fast a sender goes. `begun` requests in the last RECENT_US; `paused` in seconds from now, 0 for not paused."""

    id: int
    provider: str
    begun: int
    paused: float

    @property
    def per_second(self) -> float:
        """Requests a second, lately."""
        return self.begun / RECENT_US * 1e6


@dataclass(frozen=True, slots=True)
class Overview:
    """All that `campaign status` says of one campaign."""

    view: StatusView
    partitions: PartitionsView | None
    sender: SenderView
