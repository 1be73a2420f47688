"""What changes the ledger: campaigns, runs, claims, people's decisions. The same statements for every database.

A call is one transaction unless it says otherwise. Threads: every method may be called from any thread, one at a time; the
engine calls from a single writer thread.
"""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Connection, Engine, bindparam, text

from runner.ledger.adoption import adopt
from runner.ledger.base import UNCOUNTED, Applied, CampaignDraft, Claim, Finish, Intent, Recovered
from runner.ledger.batches import RELEASED, apply, release
from runner.ledger.reading import LedgerReader
from runner.ledger.schema import SCHEMA_VERSION, metadata
from runner.ledger.staging import Staging
from runner.model import Message, Status

_CLAIM_IDS = (
    "SELECT id FROM recipients WHERE campaign_id = :campaign AND status IN ('pending', 'retry_wait') "
    "AND not_before <= :now {only} ORDER BY position LIMIT :n"
)
_CONTENTS = text(
    "SELECT m.id, m.image, m.caption, m.scheduled_at, m.payload, (SELECT count(*) FROM attempts a WHERE a.recipient_id = m.id "
    "AND a.reason IN :uncounted) FROM messages m WHERE m.id IN :ids"
).bindparams(bindparam("ids", expanding=True), bindparam("uncounted", expanding=True))


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class SqlLedger(LedgerReader):
    """One row per recipient, an append-only list of attempts, suppressions. Any failure to read or write is a LedgerError."""

    def __init__(self, engine: Engine, name: str, clock: Callable[[], int] = now_us) -> None:
        super().__init__(engine, name, clock)

    @abstractmethod
    def _write(self) -> AbstractContextManager[Connection]:
        """A transaction that may write; holds the database's write lock from its start where that is the way."""

    def create(self) -> None:
        """Make the tables if they are not there; refuse a ledger of a newer version."""
        with self._guarded(self._write) as connection:
            metadata.create_all(connection)
            connection.execute(
                text("INSERT INTO meta (key, value) VALUES ('version', :v), ('key', :k) ON CONFLICT DO NOTHING"),
                {"v": SCHEMA_VERSION, "k": secrets.token_hex(32)},
            )
        self.check_version()

    def pause_sender(self, sender_id: int, until: int) -> None:
        """Remember that the provider told this sender to wait, so that a restart waits as well."""
        with self._guarded(self._write) as connection:
            connection.execute(
                text("UPDATE senders SET paused_until = :until WHERE id = :id AND paused_until < :until"),
                {"until": until, "id": sender_id},
            )

    def set_state(self, campaign_id: int, state: str) -> None:
        """open, paused or cancelled; a live run sees it with its next batch."""
        with self._guarded(self._write) as connection:
            connection.execute(
                text("UPDATE campaigns SET state = :state WHERE id = :id"), {"state": state, "id": campaign_id}
            )
            self._audit(connection, campaign_id, "state", state)

    # --- planning -------------------------------------------------------------------------------------------------------

    @contextmanager
    def stage(self) -> Iterator[Staging]:
        """A plan in the making, in one connection's temporary tables."""
        with self._guarded(self._engine.connect) as connection:
            staging = Staging(connection)
            try:
                yield staging
            finally:
                staging.close()

    def adopt(self, staging: Staging, draft: CampaignDraft) -> int:
        """Make the staged plan the campaign's plan, in one transaction. Returns the campaign's id."""
        with self._guarded(lambda: nullcontext(staging.connection)) as connection:
            return adopt(connection, draft, self._clock())

    # --- runs -------------------------------------------------------------------------------------------------------------

    def recover(self, campaign_id: int) -> Recovered:
        """What a dead run left: claimed rows are pending again, rows in flight are unknown. Only under the campaign's lock."""
        why = {"reason": "interrupted", "detail": "the run ended before the reply was recorded", "c": campaign_id}
        with self._guarded(self._write) as connection:
            released = connection.execute(
                text(
                    f"UPDATE recipients SET status = {RELEASED}, run_id = NULL WHERE campaign_id = :c AND status = 'claimed'"
                ),
                {"c": campaign_id},
            ).rowcount
            connection.execute(
                text(
                    "UPDATE attempts SET finished_at = :now, verdict = 'unknown', reason = :reason, detail = :detail "
                    "WHERE finished_at = 0 AND recipient_id IN "
                    "(SELECT id FROM recipients WHERE campaign_id = :c AND status = 'in_flight')"
                ),
                why | {"now": self._clock()},
            )
            unknown = connection.execute(  # without the code of an earlier attempt: this one had no reply
                text(
                    "UPDATE recipients SET status = 'unknown', reason = :reason, detail = :detail, code = '' "
                    "WHERE campaign_id = :c AND status = 'in_flight'"
                ),
                why,
            ).rowcount
        return Recovered(released, unknown)

    def begin_run(self, campaign_id: int, owner: str, plan_hash: str) -> int:
        """A new run; returns its id."""
        with self._guarded(self._write) as connection:
            return int(
                connection.execute(
                    text(
                        "INSERT INTO runs (campaign_id, started_at, owner, plan_hash) VALUES (:c, :now, :owner, :hash) RETURNING id"
                    ),
                    {"c": campaign_id, "now": self._clock(), "owner": owner, "hash": plan_hash},
                ).scalar_one()
            )

    def end_run(self, run_id: int, ending: str) -> None:
        """How a run ended, in a word. Rows it still claims are released."""
        with self._guarded(self._write) as connection:
            connection.execute(
                text("UPDATE runs SET finished_at = :now, ending = :ending WHERE id = :id"),
                {"now": self._clock(), "ending": ending, "id": run_id},
            )
            connection.execute(
                text(
                    f"UPDATE recipients SET status = {RELEASED}, run_id = NULL WHERE status = 'claimed' AND run_id = :id "
                    "AND campaign_id = (SELECT campaign_id FROM runs WHERE id = :id)"
                ),
                {"id": run_id},
            )

    def claim(self, campaign_id: int, run_id: int, n: int, now: int, only: Sequence[str] | None = None) -> list[Claim]:
        """Up to `n` recipients whose time has come, in input order, now held by this run. One conditional UPDATE."""
        condition = "AND phone IN :phones" if only is not None else ""
        ids = _CLAIM_IDS.format(only=condition) + self._claim_lock
        parameters: dict[str, object] = {"campaign": campaign_id, "now": now, "n": n, "run": run_id}
        claiming = text(
            f"UPDATE recipients SET status = 'claimed', run_id = :run WHERE id IN ({ids}) "
            "RETURNING id, phone, attempts, position"
        )
        if only is not None:
            claiming = claiming.bindparams(bindparam("phones", expanding=True))
            parameters["phones"] = list(only)
        with self._guarded(self._write) as connection:
            held = {row[0]: row for row in connection.execute(claiming, parameters)}
            if not held:
                return []
            contents = connection.execute(_CONTENTS, {"ids": list(held), "uncounted": UNCOUNTED})
            claims = [
                Claim(key, Message(held[key][1], image, caption, scheduled_at), payload, held[key][2], uncounted)
                for key, image, caption, scheduled_at, payload, uncounted in contents
            ]
        return sorted(claims, key=lambda claim: int(held[claim.id][3] or 0))

    _claim_lock = ""  # PostgreSQL adds FOR UPDATE SKIP LOCKED

    def apply(
        self, campaign_id: int, run_id: int, sender_id: int, finishes: Sequence[Finish], intents: Sequence[Intent]
    ) -> Applied:
        """One group commit: outcomes first, then intents past the last gates. Durable when it returns.

        An intent of a recipient who has been suppressed since, or of a campaign that has been paused or cancelled, is
        refused in the same transaction that would have recorded it, so no opt-out can slip in between.
        """
        with self._guarded(self._write) as connection:
            return apply(connection, campaign_id, run_id, sender_id, finishes, intents)

    def spare_space(self) -> AbstractContextManager[None]:
        """Keep room on the disk while a run goes on, where the ledger is a file of ours."""
        return nullcontext()

    def use_spare_space(self) -> None:
        """The disk is full: give the room back, for the last outcomes."""

    def release(self, ids: Iterable[int]) -> None:
        """Claimed rows that were not sent after all wait again."""
        keys = list(ids)
        if keys:
            with self._guarded(self._write) as connection:
                release(connection, keys)

    # --- people's decisions ---------------------------------------------------------------------------------------------

    def give_up(self, campaign_id: int, reason: str, detail: str) -> int:
        """Nobody who still waits is sent any more (deadline, cancel): never tried -> skipped, tried -> not_sent."""
        with self._guarded(self._write) as connection:
            changed = connection.execute(
                text(
                    "UPDATE recipients SET status = CASE WHEN attempts = 0 THEN 'skipped' ELSE 'not_sent' END, reason = :reason, "
                    "detail = :detail WHERE campaign_id = :c AND status IN ('pending', 'retry_wait')"
                ),
                {"c": campaign_id, "reason": reason, "detail": detail},
            ).rowcount
            self._audit(connection, campaign_id, reason, f"{changed} rows")
            return int(changed)

    def prove(self, recipient_id: int, evidence: str) -> None:
        """An unknown row was accepted after all: the provider has said so. Leaves an audit row with the evidence."""
        with self._guarded(self._write) as connection:
            campaign_id = connection.execute(
                text(
                    "UPDATE recipients SET status = 'accepted', reason = '', detail = :evidence "
                    "WHERE id = :id AND status = 'unknown' RETURNING campaign_id"
                ),
                {"id": recipient_id, "evidence": evidence},
            ).scalar_one_or_none()
            if campaign_id is not None:
                self._audit(connection, campaign_id, "reconciled", f"row id {recipient_id}: {evidence}")

    def requeue(self, campaign_id: int, statuses: Sequence[Status], reason: str | None, note: str) -> int:
        """By a person's explicit choice: these rows are pending again. Leaves an audit row. Returns how many."""
        wanted = "AND reason = :reason" if reason is not None else ""
        parameters: dict[str, object] = {"c": campaign_id, "statuses": [status.value for status in statuses]}
        if reason is not None:
            parameters["reason"] = reason
        with self._guarded(self._write) as connection:
            changed = connection.execute(
                text(
                    "UPDATE recipients SET status = 'pending', reason = '', detail = '', code = '', queue_id = '', not_before = 0, "
                    f"run_id = NULL WHERE campaign_id = :c AND position IS NOT NULL AND status IN :statuses {wanted}"
                ).bindparams(bindparam("statuses", expanding=True)),
                parameters,
            ).rowcount
            chosen = ", ".join(status.value for status in statuses) + (f" ({reason})" if reason else "")
            self._audit(connection, campaign_id, "requeue", f"{changed} rows: {chosen}; {note}")
            return int(changed)

    def _audit(self, connection: Connection, campaign_id: int, action: str, detail: str) -> None:
        connection.execute(
            text("INSERT INTO audits (at, campaign_id, action, detail) VALUES (:at, :c, :action, :detail)"),
            {"at": self._clock(), "c": campaign_id, "action": action, "detail": detail},
        )

    # --- suppressions -------------------------------------------------------------------------------------------------

    def suppress(self, phones: Iterable[str], source: str, campaign_id: int = 0) -> int:
        """Add numbers (E.164 digits) to the workspace's list, or to one campaign's. Returns how many were new."""
        rows = [{"phone": phone, "c": campaign_id, "source": source, "at": self._clock()} for phone in phones]
        if not rows:
            return 0
        with self._guarded(self._write) as connection:
            before = self._suppressed(connection, campaign_id)
            connection.execute(
                text(
                    "INSERT INTO suppressions (phone, campaign_id, source, added_at) VALUES (:phone, :c, :source, :at) "
                    "ON CONFLICT DO NOTHING"
                ),
                rows,
            )
            return self._suppressed(connection, campaign_id) - before

    def _suppressed(self, connection: Connection, campaign_id: int) -> int:
        return int(
            connection.execute(
                text("SELECT count(*) FROM suppressions WHERE campaign_id = :c"), {"c": campaign_id}
            ).scalar_one()
        )
