"""A run's recipients shared out among workers: contiguous ranges of the frozen plan, each with an owner and an epoch.

Whoever takes a partition gets the next epoch, and nobody with an older one can begin another message: `batches.gate` looks
at the epoch in the very transaction that records an intent. In the transaction of the taking, too, what the last owner left is
settled: rows it had claimed wait again, rows in flight are unknown. Its late results still count, see `batches.apply`.
"""

from __future__ import annotations

from sqlalchemy import text

from runner.ledger.base import PartitionHold
from runner.ledger.batches import RELEASED
from runner.ledger.overview import WAITING
from runner.ledger.sql import SqlLedger

_MAKE = (
    "INSERT INTO partitions (campaign_id, run_id, number, first, last) "
    "SELECT :c, :run, (w.n - 1) / :size, min(w.position), max(w.position) FROM "
    "(SELECT position, row_number() OVER (ORDER BY position) AS n FROM recipients "
    f"WHERE {WAITING} AND position IS NOT NULL ORDER BY position {{limit}}) w GROUP BY (w.n - 1) / :size"
)
_TAKE = text(
    "UPDATE partitions SET epoch = epoch + 1, owner = :owner, beat_at = :now WHERE id = :id AND done_at = 0 AND EXISTS "
    "(SELECT 1 FROM campaigns c WHERE c.id = partitions.campaign_id AND c.run_id = partitions.run_id AND c.state = 'open') "
    "RETURNING campaign_id, epoch, first, last"
)
_UNFINISHED = text("SELECT id FROM partitions WHERE run_id = :run AND done_at = 0 ORDER BY number")
_WHY: dict[str, object] = {
    "reason": "interrupted",
    "detail": "the worker was lost before the reply was recorded",
}
_RANGE = "campaign_id = :c AND position BETWEEN :first AND :last"
_RELEASE = text(f"UPDATE recipients SET status = {RELEASED}, run_id = NULL WHERE {_RANGE} AND status = 'claimed'")
_LOST_ATTEMPTS = text(
    "UPDATE attempts SET finished_at = :now, verdict = 'unknown', reason = :reason, detail = :detail WHERE finished_at = 0 "
    f"AND recipient_id IN (SELECT id FROM recipients WHERE {_RANGE} AND status = 'in_flight')"
)
_LOST = text(
    "UPDATE recipients SET status = 'unknown', reason = :reason, detail = :detail, code = '' "
    f"WHERE {_RANGE} AND status = 'in_flight'"
)


class Partitions:
    """The partitions of one ledger. Calls of a run wait for a database that is away for a moment."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger

    def make(self, campaign_id: int, run_id: int, size: int, limit: int | None = None) -> list[int]:
        """Cut those who wait (the first `limit` of them) into partitions of `size` rows, in input order. Their ids."""
        parameters = {"c": campaign_id, "run": run_id, "size": size, **({"limit": limit} if limit is not None else {})}
        with self._ledger.writing() as connection:
            connection.execute(text(_MAKE.format(limit="LIMIT :limit" if limit is not None else "")), parameters)
            return [int(key) for key in connection.execute(_UNFINISHED, {"run": run_id}).scalars()]

    def unfinished(self, run_id: int) -> list[int]:
        """Ids of the partitions that are not done, in input order."""
        with self._ledger.reading() as connection:
            return [int(key) for key in connection.execute(_UNFINISHED, {"run": run_id}).scalars()]

    def take(self, partition_id: int, owner: str) -> PartitionHold | None:
        """Begin or take over. None: it is done, or its run may not send (any more)."""

        def attempt() -> PartitionHold | None:
            now = self._ledger.clock()
            with self._ledger.writing() as connection:
                row = connection.execute(_TAKE, {"id": partition_id, "owner": owner, "now": now}).first()
                if row is None:
                    return None
                campaign_id, epoch, first, last = row
                keys = {"c": campaign_id, "first": first, "last": last, "now": now} | _WHY
                connection.execute(_RELEASE, keys)
                connection.execute(_LOST_ATTEMPTS, keys)
                connection.execute(_LOST, keys)
            return PartitionHold(partition_id, epoch, first, last)

        return self._ledger.lasting(attempt)

    def beat(self, hold: PartitionHold) -> None:
        """A sign of life, for people to see."""
        self._update("UPDATE partitions SET beat_at = :now WHERE id = :id AND epoch = :epoch", hold)

    def finish(self, hold: PartitionHold) -> None:
        """Nobody in it waits any more."""
        self._update("UPDATE partitions SET done_at = :now WHERE id = :id AND epoch = :epoch", hold)

    def _update(self, statement: str, hold: PartitionHold) -> None:
        def attempt() -> None:
            with self._ledger.writing() as connection:
                parameters = {"id": hold.id, "epoch": hold.epoch, "now": self._ledger.clock()}
                connection.execute(text(statement), parameters)

        self._ledger.lasting(attempt)

    def fence(self, campaign_id: int, run_id: int) -> None:
        """The run begins nothing more, wherever its workers are; what is on the way is still recorded."""

        def attempt() -> None:
            with self._ledger.writing() as connection:
                keys = {"c": campaign_id, "run": run_id}
                connection.execute(text("UPDATE campaigns SET run_id = NULL WHERE id = :c AND run_id = :run"), keys)
                connection.execute(
                    text("UPDATE partitions SET epoch = epoch + 1 WHERE run_id = :run AND done_at = 0"), keys
                )

        self._ledger.lasting(attempt)
