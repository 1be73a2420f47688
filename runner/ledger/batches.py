"""Group commit: what a batch of outcomes and intents does to the rows, inside one transaction of the caller.

The order of the statements is the contract: outcomes first, then the last gates, then the intents that pass them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, text

from runner.errors import LedgerError
from runner.ledger.base import Applied, Finish, Intent

# 'unknown' as well: a reply that comes in after another run has given the row up is better evidence than that. The attempt's
# number must be the row's last one: a late reply says nothing about a row that a person has queued again.
_FINISH = text(
    "UPDATE recipients SET status = :status, reason = :reason, detail = :detail, code = :code, queue_id = :queue_id, "
    "not_before = :not_before WHERE id = :id AND attempts = :number AND status IN ('in_flight', 'unknown')"
)
_FINISH_ATTEMPT = text(
    "UPDATE attempts SET finished_at = :finished_at, verdict = :verdict, reason = :reason, code = :code, detail = :detail "
    "WHERE recipient_id = :id AND number = :number"
)
_INTENT = text(
    "UPDATE recipients SET status = 'in_flight', attempts = :number, last_attempt_at = :at, "
    "first_attempt_at = CASE WHEN first_attempt_at = 0 THEN :at ELSE first_attempt_at END "
    "WHERE id = :id AND status = 'claimed' AND run_id = :run"
)
_INTENT_ATTEMPT = text(
    "INSERT INTO attempts (recipient_id, number, run_id, sender_id, started_at) VALUES (:id, :number, :run, :sender, :at)"
)
_SUPPRESSED = text("SELECT phone FROM suppressions WHERE phone IN :phones AND campaign_id IN (0, :c)").bindparams(
    bindparam("phones", expanding=True)
)
_OPTED_OUT = text(
    "UPDATE recipients SET status = CASE WHEN attempts = 0 THEN 'skipped' ELSE 'not_sent' END, "
    "reason = 'suppressed', detail = 'opted out after planning', run_id = NULL "
    "WHERE id = :id AND status = 'claimed'"
)
# What waited for a retry waits again; `not_before` is 0 for everybody else.
RELEASED = "CASE WHEN not_before > 0 THEN 'retry_wait' ELSE 'pending' END"
_RELEASE = text(f"UPDATE recipients SET status = {RELEASED}, run_id = NULL WHERE id = :id AND status = 'claimed'")


def apply(
    connection: Connection,
    campaign_id: int,
    run_id: int,
    sender_id: int,
    finishes: Sequence[Finish],
    intents: Sequence[Intent],
) -> Applied:
    """Record one batch. Raises LedgerError when a recipient about to be sent is no longer held by the run."""
    if finishes:
        _finish(connection, finishes)
    state = str(
        connection.execute(text("SELECT state FROM campaigns WHERE id = :id"), {"id": campaign_id}).scalar_one()
    )
    refused = _refusals(connection, campaign_id, state, intents) if intents else {}
    passed = [intent for intent in intents if intent.claim.id not in refused]
    if passed:
        _begin(connection, run_id, sender_id, passed)
    if refused:
        _refuse(connection, refused)
    return Applied(refused, state)


def release(connection: Connection, ids: Sequence[int]) -> None:
    """Claimed rows that were not sent after all wait again."""
    if ids:
        connection.execute(_RELEASE, [{"id": key} for key in ids])


def _finish(connection: Connection, finishes: Sequence[Finish]) -> None:
    rows = [
        {
            "id": finish.recipient_id,
            "number": finish.attempt,
            "status": finish.status.value,
            "verdict": finish.outcome.verdict.value,
            "reason": finish.outcome.reason,
            "detail": finish.outcome.detail,
            "code": finish.outcome.code,
            "queue_id": finish.outcome.queue_id,
            "not_before": finish.not_before,
            "finished_at": finish.finished_at,
        }
        for finish in finishes
    ]
    connection.execute(_FINISH, rows)
    connection.execute(_FINISH_ATTEMPT, rows)


def _refusals(connection: Connection, campaign_id: int, state: str, intents: Sequence[Intent]) -> dict[int, str]:
    """Recipient id -> why it must not be sent now."""
    if state != "open":
        return {intent.claim.id: state for intent in intents}
    phones = [intent.claim.message.phone for intent in intents]
    suppressed = {row[0] for row in connection.execute(_SUPPRESSED, {"phones": phones, "c": campaign_id})}
    return {intent.claim.id: "suppressed" for intent in intents if intent.claim.message.phone in suppressed}


def _begin(connection: Connection, run_id: int, sender_id: int, intents: Sequence[Intent]) -> None:
    rows = [
        {
            "id": intent.claim.id,
            "number": intent.claim.attempts + 1,
            "at": intent.at,
            "run": run_id,
            "sender": sender_id,
        }
        for intent in intents
    ]
    changed = connection.execute(_INTENT, rows).rowcount
    if changed != len(rows):
        raise LedgerError(
            f"{len(rows) - changed} of {len(rows)} recipients about to be sent are no longer held by this run: "
            "another program has changed the ledger; nothing was sent to them"
        )
    connection.execute(_INTENT_ATTEMPT, rows)


def _refuse(connection: Connection, refused: Mapping[int, str]) -> None:
    opted_out = [{"id": key} for key, why in refused.items() if why == "suppressed"]
    if opted_out:
        connection.execute(_OPTED_OUT, opted_out)
    release(connection, [key for key, why in refused.items() if why != "suppressed"])
