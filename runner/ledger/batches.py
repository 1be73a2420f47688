"""Group commit: what a batch of outcomes and intents does to the rows, inside one transaction of the caller.

The order of the statements is the contract: outcomes first, then the last gates, then the intents that pass them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, TextClause, text

from runner.errors import LedgerError
from runner.ledger.base import TAKEN_OVER, Applied, Finish, Hold, Intent
from runner.ledger.bulk import ONE_OF, run_many, several

# 'unknown' as well: a reply that comes in after another run has given the row up is better evidence than that. The attempt's
# number must be the row's last one: a late reply says nothing about a row that a person has queued again.
_FINISH = (
    "UPDATE recipients SET status = :status, reason = :reason, detail = :detail, code = :code, queue_id = :queue_id, "
    "not_before = :not_before WHERE id = :id AND attempts = :number AND status IN ('in_flight', 'unknown')"
)
_FINISH_ATTEMPT = (
    "UPDATE attempts SET finished_at = :finished_at, verdict = :verdict, reason = :reason, code = :code, detail = :detail "
    "WHERE recipient_id = :id AND number = :number"
)
_INTENT = (
    "UPDATE recipients SET status = 'in_flight', attempts = :number, last_attempt_at = :at, "
    "first_attempt_at = CASE WHEN first_attempt_at = 0 THEN :at ELSE first_attempt_at END "
    "WHERE id = :id AND status = 'claimed' AND run_id = :run"
)
_INTENT_ATTEMPT = (
    "INSERT INTO attempts (recipient_id, number, run_id, sender_id, started_at) "
    "VALUES (:id, :number, :run, :sender, :at)"
)
# The earlier try of an apply whose answer was lost may have been committed. No byte was sent for it: taken back whole, and
# then begun (or refused) like any other. The moment, in microseconds, tells its attempt from any other of this run.
_TAKE_BACK = (
    "UPDATE recipients SET status = 'claimed', attempts = :number - 1, "
    "first_attempt_at = CASE WHEN :number = 1 THEN 0 ELSE first_attempt_at END, last_attempt_at = coalesce(("
    "SELECT max(a.started_at) FROM attempts a WHERE a.recipient_id = recipients.id AND a.number < :number), 0) "
    "WHERE id = :id AND status = 'in_flight' AND attempts = :number AND run_id = :run AND last_attempt_at = :at"
)
_TAKE_BACK_ATTEMPT = (
    "DELETE FROM attempts WHERE recipient_id = :id AND number = :number AND run_id = :run AND started_at = :at "
    "AND finished_at = 0 AND EXISTS "
    "(SELECT 1 FROM recipients r WHERE r.id = :id AND r.status = 'claimed' AND r.run_id = :run AND r.attempts = :number - 1)"
)
_SUPPRESSED = {
    name: text(f"SELECT phone FROM suppressions WHERE phone {one_of['phones']} AND campaign_id IN (0, :c)")
    for name, one_of in ONE_OF.items()
}
# Nobody is sent who never was: never tried -> skipped, and the number is free; tried -> not_sent.
GIVEN_UP = "status = CASE WHEN attempts = 0 THEN 'skipped' ELSE 'not_sent' END, live = CASE WHEN attempts = 0 THEN 0 ELSE 1 END"
_OPTED_OUT = (
    f"UPDATE recipients SET {GIVEN_UP}, "
    "reason = 'suppressed', detail = 'opted out after planning', run_id = NULL "
    "WHERE id = :id AND status = 'claimed' AND run_id = :run"
)
# What waited for a retry waits again; `not_before` is 0 for everybody else.
RELEASED = "CASE WHEN not_before > 0 THEN 'retry_wait' ELSE 'pending' END"
_RELEASE = (
    f"UPDATE recipients SET status = {RELEASED}, run_id = NULL WHERE id = :id AND status = 'claimed' AND run_id = :run"
)


def _locking(statement: str) -> dict[bool, TextClause]:
    """A question whose answer must stay true until our commit, with and without the database's word for that."""
    return {False: text(statement), True: text(statement + " FOR SHARE")}


_RUN = _locking("SELECT state, run_id FROM campaigns WHERE id = :campaign")
_EPOCH = _locking("SELECT 1 FROM partitions WHERE id = :partition AND epoch = :epoch")


def gate(connection: Connection, hold: Hold) -> tuple[str, bool]:
    """The campaign's state, and whether whoever has this hold may still send in its name.

    The row that says so is locked against change until the transaction ends (SQLite has one writer anyway). Of the two
    it is the partition's where there is one: its worker alone locks it, so nobody who wants to change it waits for many.
    """
    locks = connection.dialect.name == "postgresql"
    partition = hold.partition
    state, run_id = connection.execute(_RUN[locks and partition is None], {"campaign": hold.campaign_id}).one()
    ours = run_id == hold.run_id
    if ours and partition is not None:
        keys = {"partition": partition.id, "epoch": partition.epoch}
        ours = connection.execute(_EPOCH[locks], keys).first() is not None
    return str(state), ours


def apply(
    connection: Connection, hold: Hold, finishes: Sequence[Finish], intents: Sequence[Intent], *, again: bool = False
) -> Applied:
    """Record one batch. Raises LedgerError when a recipient about to be sent is no longer held by the run.

    Finishes are facts and are recorded whoever may send now. `again`: an earlier try may have been committed, unheard.
    """
    if finishes:
        _finish(connection, finishes)
    state, ours = gate(connection, hold)
    if not ours:  # whoever took over has settled our claims as well; by now the same rows may be theirs
        return Applied({intent.claim.id: TAKEN_OVER for intent in intents}, state, ours=False)
    if again and intents:
        _take_back(connection, hold, intents)
    refused = _refusals(connection, hold, state, intents) if intents else {}
    passed = [intent for intent in intents if intent.claim.id not in refused]
    if passed:
        _begin(connection, hold, passed)
    if refused:
        _refuse(connection, hold, refused)
    return Applied(refused, state)


def release(connection: Connection, hold: Hold, ids: Sequence[int]) -> None:
    """Rows claimed in this run's name that were not sent after all wait again."""
    if ids:
        run_many(connection, _RELEASE, [{"id": key, "run": hold.run_id} for key in ids])


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
    run_many(connection, _FINISH, rows)
    run_many(connection, _FINISH_ATTEMPT, rows)


def _refusals(connection: Connection, hold: Hold, state: str, intents: Sequence[Intent]) -> dict[int, str]:
    """Recipient id -> why it must not be sent now."""
    if state != "open":
        return {intent.claim.id: state for intent in intents}
    phones = [intent.claim.message.phone for intent in intents]
    asked = {"phones": several(connection, phones), "c": hold.campaign_id}
    suppressed = set(connection.execute(_SUPPRESSED[connection.dialect.name], asked).scalars())
    return {intent.claim.id: "suppressed" for intent in intents if intent.claim.message.phone in suppressed}


def _rows(hold: Hold, intents: Sequence[Intent]) -> list[dict[str, int]]:
    return [
        {
            "id": intent.claim.id,
            "number": intent.claim.attempts + 1,
            "at": intent.at,
            "run": hold.run_id,
            "sender": hold.sender_id,
        }
        for intent in intents
    ]


def _take_back(connection: Connection, hold: Hold, intents: Sequence[Intent]) -> None:
    rows = _rows(hold, intents)
    run_many(connection, _TAKE_BACK, rows)
    run_many(connection, _TAKE_BACK_ATTEMPT, rows)


def _begin(connection: Connection, hold: Hold, intents: Sequence[Intent]) -> None:
    rows = _rows(hold, intents)
    changed = run_many(connection, _INTENT, rows)
    if changed != len(rows):
        raise LedgerError(
            f"{len(rows) - changed} of {len(rows)} recipients about to be sent are no longer held by this run: "
            "another program has changed the ledger; nothing was sent to them"
        )
    run_many(connection, _INTENT_ATTEMPT, rows)


def _refuse(connection: Connection, hold: Hold, refused: Mapping[int, str]) -> None:
    opted_out = [{"id": key, "run": hold.run_id} for key, why in refused.items() if why == "suppressed"]
    if opted_out:
        run_many(connection, _OPTED_OUT, opted_out)
    release(connection, hold, [key for key, why in refused.items() if why != "suppressed"])
