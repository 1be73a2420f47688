"""What `campaign status` asks of a ledger, through whatever connection it is asked: SQLAlchemy's, or Python's own.

`glance` asks a SQLite ledger without SQLAlchemy, whose import alone takes longer than the answers (measured: 0.4 s).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from runner.ledger.base import (
    RECENT_US,
    SCHEMA_VERSION,
    CampaignRecord,
    Counts,
    Overview,
    PartitionsView,
    RunRecord,
    SenderView,
    StatusView,
    WorkerView,
)
from runner.model import Status

Ask = Callable[[str, Mapping[str, object]], Sequence[Sequence[Any]]]  # a statement with `:name` places -> its rows

# SQLite has no statistics and may go along the order of everybody, past all who are settled: a run of a million took
# 1,024 µs a message, not 480, and counting those who wait 0.3 s, not 1 ms (measured).
WAITING = "campaign_id = :c AND status IN ('pending', 'retry_wait')"
WAITING_ONLY = "INDEXED BY ix_recipients_waiting"

_CAMPAIGN = (
    "SELECT id, name, provider, sender_id, state, columns, phone_column, settings, plan_hash, planned_at "
    "FROM campaigns WHERE name = :name"
)
_LAST_RUN = (
    "SELECT id, started_at, finished_at, owner, ending FROM runs WHERE campaign_id = :c ORDER BY id DESC LIMIT 1"
)
_GROUPS = (
    "SELECT status, reason, CASE WHEN position IS NULL THEN 1 ELSE 0 END, count(*), min(last_attempt_at) "
    "FROM recipients {way} WHERE campaign_id = :c{but} GROUP BY 1, 2, 3"
)
# SQLite sorts whatever it groups, 0.7 µs a row (measured). The two groups that nearly everybody is in are left out of that
# and found by subtraction from two counts along indexes, in the same transaction: 0.25 s for a million rows, not 0.9 s.
_BUT = " AND (position IS NULL OR (status <> 'accepted' AND status <> 'pending') OR reason <> '')"
_ALL = "SELECT count(*) FROM recipients WHERE campaign_id = :c"
_WAITING = f"SELECT count(*) FROM recipients {WAITING_ONLY} WHERE {WAITING}"
_LAST_ID = "SELECT max(id) FROM recipients"
_PARTITIONS = (
    "SELECT run_id, owner, count(*), sum(CASE WHEN done_at > 0 THEN 1 ELSE 0 END), max(beat_at), "
    "max(CASE WHEN done_at = 0 AND epoch > 0 THEN 1 ELSE 0 END) FROM partitions "
    "WHERE run_id = (SELECT max(run_id) FROM partitions WHERE campaign_id = :c) GROUP BY run_id, owner ORDER BY owner"
)
_SENDER = (
    "SELECT provider, paused_until, (SELECT count(*) FROM attempts a WHERE a.sender_id = senders.id AND a.started_at > :since) "
    "FROM senders WHERE id = :id"
)


def names(ask: Ask) -> list[str]:
    """Names of all campaigns, the last planned first."""
    return [str(row[0]) for row in ask("SELECT name FROM campaigns ORDER BY planned_at DESC", {})]


def record(ask: Ask, name: str) -> CampaignRecord | None:
    """One campaign, None when there is none of that name."""
    for row in ask(_CAMPAIGN, {"name": name}):
        return CampaignRecord(
            id=row[0],
            name=row[1],
            provider=row[2],
            sender_id=row[3],
            state=row[4],
            columns=tuple(orjson.loads(row[5])),
            phone_column=row[6],
            settings=orjson.loads(row[7]),
            plan_hash=row[8],
            planned_at=row[9],
        )
    return None


def status(ask: Ask, campaign: CampaignRecord, *, sqlite: bool) -> StatusView:
    """Counts, the last run, the oldest message in flight. One transaction of the caller's."""
    groups = _groups(ask, campaign.id, sqlite=sqlite)
    runs = ask(_LAST_RUN, {"c": campaign.id})
    in_flight = [oldest for word, _, _, _, oldest in groups if word == Status.IN_FLIGHT]
    return StatusView(campaign, _counts(groups), RunRecord(*runs[0]) if runs else None, min(in_flight, default=0))


def counts(ask: Ask, campaign_id: int, *, sqlite: bool) -> Counts:
    """Rows by status and reason, counted in the narrow table. One transaction of the caller's."""
    return _counts(_groups(ask, campaign_id, sqlite=sqlite))


def _counts(groups: Sequence[Sequence[Any]]) -> Counts:
    by_status: dict[Status, int] = {}
    by_reason: dict[tuple[Status, str], int] = {}
    gone = 0
    for word, reason, left, n, _ in groups:
        key = Status(word)
        by_status[key] = by_status.get(key, 0) + n
        if reason:
            by_reason[key, reason] = by_reason.get((key, reason), 0) + n
        gone += n if left else 0
    return Counts(by_status, by_reason, gone)


def _groups(ask: Ask, campaign_id: int, *, sqlite: bool) -> list[Sequence[Any]]:
    """Status, reason, whether the rows are gone from the audience, how many, their oldest attempt (0 may stand for any)."""
    key = {"c": campaign_id}
    if not sqlite:
        return list(ask(_GROUPS.format(way="", but=""), key))
    total, waiting = ask(_ALL, key)[0][0], ask(_WAITING, key)[0][0]
    # Along the order of the campaign where it is one of many, else along the table: a third faster (measured).
    most = 2 * total > (ask(_LAST_ID, {})[0][0] or 0)
    groups = list(ask(_GROUPS.format(way="NOT INDEXED" if most else "", but=_BUT), key))
    pending = waiting - sum(row[3] for row in groups if row[0] in {Status.PENDING, Status.RETRY_WAIT})
    accepted = total - sum(row[3] for row in groups) - pending
    plain = ((Status.ACCEPTED, accepted), (Status.PENDING, pending))
    return groups + [(word.value, "", 0, n, 0) for word, n in plain if n]


def partitions(ask: Ask, campaign_id: int) -> PartitionsView | None:
    """How far the campaign's workers are; None when it never ran on a cluster."""
    rows = ask(_PARTITIONS, {"c": campaign_id})
    if not rows:
        return None
    workers = tuple(WorkerView(owner, n, done, beat, bool(busy)) for _, owner, n, done, beat, busy in rows if owner)
    return PartitionsView(rows[0][0], sum(row[2] for row in rows), sum(row[3] for row in rows), workers)


def sender(ask: Ask, sender_id: int, now: int) -> SenderView:
    """How fast a sender goes; `now` in microseconds."""
    provider, paused_until, begun = ask(_SENDER, {"id": sender_id, "since": now - RECENT_US})[0]
    return SenderView(sender_id, provider, begun, max(0.0, (paused_until - now) / 1e6))


def overview(ask: Ask, campaign: CampaignRecord, now: int, *, sqlite: bool) -> Overview:
    """All of the above. One transaction of the caller's."""
    return Overview(
        status(ask, campaign, sqlite=sqlite), partitions(ask, campaign.id), sender(ask, campaign.sender_id, now)
    )


def glance(path: Path, name: str, now: int) -> list[Overview] | None:
    """The campaign `name` of the ledger in this file, or all of them for ''. Changes nothing.

    None: not to be had so (no such campaign, an older version, another program's file, damaged, busy). Whoever opens the
    ledger then upgrades it, waits for it, or says what is the matter with it.
    """
    try:
        if not path.stat().st_size:
            return None if name else []
        # mode=rw: never made here, and what a killed writer left half done is rolled back as by any reader
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as file:

            def ask(statement: str, values: Mapping[str, object]) -> list[Sequence[Any]]:
                return file.execute(statement, values).fetchall()

            if ask("SELECT value FROM meta WHERE key = 'version'", {}) != [(SCHEMA_VERSION,)]:
                return None
            found = []
            for each in [name] if name else names(ask):
                file.execute("BEGIN")  # each campaign at one moment; none keeps a run from writing longer than it must
                campaign = record(ask, each)
                if campaign is None:
                    return None
                found.append(overview(ask, campaign, now, sqlite=True))
                file.execute("COMMIT")
            return found
    except FileNotFoundError:
        return None if name else []
    except (OSError, sqlite3.Error, ValueError):
        return None
