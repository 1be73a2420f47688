"""The ledger's statements, the same for every database. A call is one transaction unless it says otherwise.

Threads: every method may be called from any thread, one at a time; the engine calls from a single writer thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import orjson
from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.exc import SQLAlchemyError

from runner.errors import LedgerError, UnknownCampaignError
from runner.ledger.adoption import adopt
from runner.ledger.base import (
    Applied,
    CampaignDraft,
    CampaignRecord,
    Claim,
    Counts,
    Finish,
    Intent,
    LedgerRow,
    Recovered,
    RunRecord,
    Sender,
    StatusView,
)
from runner.ledger.schema import SCHEMA_VERSION, metadata
from runner.ledger.staging import Staging
from runner.model import Message, Status

_CLAIM_IDS = (
    "SELECT id FROM recipients WHERE campaign_id = :campaign AND status IN ('pending', 'retry_wait') "
    "AND not_before <= :now {only} ORDER BY position LIMIT :n"
)
_FINISH = text(
    "UPDATE recipients SET status = :status, reason = :reason, detail = :detail, code = :code, queue_id = :queue_id, "
    "not_before = :not_before WHERE id = :id AND status IN ('in_flight', 'unknown')"
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
_RESULT_COLUMNS = (
    "r.row, r.phone, m.raw_phone, r.status, r.reason, r.detail, r.code, r.queue_id, r.attempts, r.first_attempt_at, "
    "r.last_attempt_at, r.delivery, m.image, m.caption, m.own"
)


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class SqlLedger(ABC):
    """One row per recipient, an append-only list of attempts, suppressions. Any failure to read or write is a LedgerError."""

    def __init__(self, engine: Engine, name: str, clock: Callable[[], int] = now_us) -> None:
        self._engine = engine
        self._name = name
        self._clock = clock

    # --- connections --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _write(self) -> AbstractContextManager[Connection]:
        """A transaction that may write; holds the database's write lock from its start where that is the way."""

    @abstractmethod
    def _read(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads."""

    @contextmanager
    def _guarded(self, opening: Callable[[], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        try:
            with opening() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(self._explain(error)) from error

    def _explain(self, error: SQLAlchemyError) -> str:
        cause = getattr(error, "orig", None) or error
        return f"the ledger {self._name} cannot be used: {cause}"

    def create(self) -> None:
        """Make the tables if they are not there; refuse a ledger of a newer version."""
        with self._guarded(self._write) as connection:
            metadata.create_all(connection)
            connection.execute(
                text("INSERT INTO meta (key, value) VALUES ('version', :v), ('key', :k) ON CONFLICT DO NOTHING"),
                {"v": SCHEMA_VERSION, "k": secrets.token_hex(32)},
            )
        self.check_version()

    def check_version(self) -> None:
        """Raise LedgerError when another version of the program made this ledger."""
        with self._guarded(self._read) as connection:
            version = connection.execute(text("SELECT value FROM meta WHERE key = 'version'")).scalar_one_or_none()
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger {self._name} has version {version}, this program reads version {SCHEMA_VERSION}: "
                "use the program's version that made it"
            )

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    # --- campaigns and senders ----------------------------------------------------------------------------------------

    def campaigns(self) -> list[str]:
        """Names of all campaigns, the last planned first."""
        with self._guarded(self._read) as connection:
            return [
                str(row[0]) for row in connection.execute(text("SELECT name FROM campaigns ORDER BY planned_at DESC"))
            ]

    def campaign(self, name: str) -> CampaignRecord:
        """One campaign. Raises UnknownCampaignError."""
        with self._guarded(self._read) as connection:
            row = connection.execute(
                text(
                    "SELECT id, name, provider, sender_id, state, columns, phone_column, settings, plan_hash, planned_at "
                    "FROM campaigns WHERE name = :name"
                ),
                {"name": name},
            ).first()
        if row is None:
            known = ", ".join(self.campaigns()[:10]) or "none yet"
            raise UnknownCampaignError(f"the ledger {self._name} has no campaign {name!r} (campaigns there: {known})")
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

    def fingerprint(self, sender: str) -> str:
        """A keyed hash of what identifies a sender (may hold the token). The key is this ledger's own."""
        with self._guarded(self._read) as connection:
            key = connection.execute(text("SELECT value FROM meta WHERE key = 'key'")).scalar_one()
        return hmac.new(bytes.fromhex(key), sender.encode(), hashlib.sha256).hexdigest()[:24]

    def sender(self, sender_id: int) -> Sender:
        """One sender."""
        with self._guarded(self._read) as connection:
            row = connection.execute(
                text("SELECT id, paused_until FROM senders WHERE id = :id"), {"id": sender_id}
            ).one()
        return Sender(row[0], row[1])

    def pause_sender(self, sender_id: int, until: int) -> None:
        """Remember that the provider told this sender to wait, so that a restart waits as well."""
        with self._guarded(self._write) as connection:
            connection.execute(
                text("UPDATE senders SET paused_until = :until WHERE id = :id AND paused_until < :until"),
                {"until": until, "id": sender_id},
            )

    def recent_starts(self, sender_id: int, since: int, limit: int) -> list[int]:
        """Start times of the sender's last attempts after `since`, oldest first: they still count against the rate."""
        with self._guarded(self._read) as connection:
            rows = connection.execute(
                text(
                    "SELECT started_at FROM attempts WHERE sender_id = :sender AND started_at >= :since "
                    "ORDER BY started_at DESC LIMIT :n"
                ),
                {"sender": sender_id, "since": since, "n": limit},
            )
            return [int(row[0]) for row in rows][::-1]

    def set_state(self, campaign_id: int, state: str) -> None:
        """open, paused or cancelled; a live run sees it with its next batch."""
        with self._guarded(self._write) as connection:
            connection.execute(
                text("UPDATE campaigns SET state = :state WHERE id = :id"), {"state": state, "id": campaign_id}
            )
            self._audit(connection, campaign_id, "state", state)

    def state(self, campaign_id: int) -> str:
        """The campaign's state as another process may have set it."""
        with self._guarded(self._read) as connection:
            return str(
                connection.execute(text("SELECT state FROM campaigns WHERE id = :id"), {"id": campaign_id}).scalar_one()
            )

    # --- planning -------------------------------------------------------------------------------------------------------

    @contextmanager
    def stage(self) -> Iterator[Staging]:
        """A plan in the making, in one connection's temporary tables."""
        try:
            with self._engine.connect() as connection:
                yield Staging(connection)
        except SQLAlchemyError as error:
            raise LedgerError(self._explain(error)) from error

    def adopt(self, staging: Staging, draft: CampaignDraft) -> int:
        """Make the staged plan the campaign's plan, in one transaction. Returns the campaign's id."""
        try:
            return adopt(staging.connection, draft, self._clock())
        except SQLAlchemyError as error:
            raise LedgerError(self._explain(error)) from error

    # --- runs -------------------------------------------------------------------------------------------------------------

    def recover(self, campaign_id: int) -> Recovered:
        """What a dead run left: claimed rows are pending again, rows in flight are unknown. Only under the campaign's lock."""
        now = self._clock()
        with self._guarded(self._write) as connection:
            released = connection.execute(
                text(
                    "UPDATE recipients SET status = CASE WHEN not_before > 0 THEN 'retry_wait' ELSE 'pending' END, run_id = NULL "
                    "WHERE campaign_id = :c AND status = 'claimed'"
                ),
                {"c": campaign_id},
            ).rowcount
            why = {"reason": "interrupted", "detail": "the run ended before the reply was recorded", "c": campaign_id}
            connection.execute(
                text(
                    "UPDATE attempts SET finished_at = :now, verdict = 'unknown', reason = :reason, detail = :detail "
                    "WHERE finished_at = 0 AND recipient_id IN "
                    "(SELECT id FROM recipients WHERE campaign_id = :c AND status = 'in_flight')"
                ),
                why | {"now": now},
            )
            unknown = connection.execute(
                text(
                    "UPDATE recipients SET status = 'unknown', reason = :reason, detail = :detail "
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

    def claim(self, campaign_id: int, run_id: int, n: int, now: int, only: Sequence[str] | None = None) -> list[Claim]:
        """Up to `n` recipients whose time has come, in input order, now held by this run. One conditional UPDATE."""
        condition = "AND phone IN :phones" if only is not None else ""
        ids = _CLAIM_IDS.format(only=condition) + self._claim_lock
        parameters: dict[str, object] = {"campaign": campaign_id, "now": now, "n": n, "run": run_id}
        claiming = text(
            f"UPDATE recipients SET status = 'claimed', run_id = :run WHERE id IN ({ids}) RETURNING id, phone, attempts"
        )
        if only is not None:
            claiming = claiming.bindparams(bindparam("phones", expanding=True))
            parameters["phones"] = list(only)
        with self._guarded(self._write) as connection:
            held = {row[0]: row for row in connection.execute(claiming, parameters)}
            if not held:
                return []
            contents = connection.execute(
                text("SELECT id, image, caption, scheduled_at, payload FROM messages WHERE id IN :ids").bindparams(
                    bindparam("ids", expanding=True)
                ),
                {"ids": list(held)},
            )
            return sorted(
                (
                    Claim(key, Message(held[key][1], image, caption, scheduled_at), payload, held[key][2])
                    for key, image, caption, scheduled_at, payload in contents
                ),
                key=lambda claim: claim.id,
            )

    _claim_lock = ""  # PostgreSQL adds FOR UPDATE SKIP LOCKED

    def apply(
        self, campaign_id: int, run_id: int, sender_id: int, finishes: Sequence[Finish], intents: Sequence[Intent]
    ) -> Applied:
        """One group commit: outcomes first, then intents past the last gates. Durable when it returns.

        An intent of a recipient who has been suppressed since, or of a campaign that has been paused or cancelled, is
        refused in the same transaction that would have recorded it, so no opt-out can slip in between.
        """
        with self._guarded(self._write) as connection:
            if finishes:
                self._apply_finishes(connection, finishes)
            state = str(
                connection.execute(text("SELECT state FROM campaigns WHERE id = :id"), {"id": campaign_id}).scalar_one()
            )
            refused = self._refusals(connection, campaign_id, state, intents) if intents else {}
            passed = [intent for intent in intents if intent.claim.id not in refused]
            if passed:
                self._apply_intents(connection, run_id, sender_id, passed)
            if refused:
                self._apply_refusals(connection, refused)
        return Applied(refused, state)

    def _apply_finishes(self, connection: Connection, finishes: Sequence[Finish]) -> None:
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

    def _refusals(
        self, connection: Connection, campaign_id: int, state: str, intents: Sequence[Intent]
    ) -> dict[int, str]:
        if state != "open":
            return {intent.claim.id: state for intent in intents}
        suppressed = {
            row[0]
            for row in connection.execute(
                text("SELECT phone FROM suppressions WHERE phone IN :phones AND campaign_id IN (0, :c)").bindparams(
                    bindparam("phones", expanding=True)
                ),
                {"phones": [intent.claim.message.phone for intent in intents], "c": campaign_id},
            )
        }
        return {intent.claim.id: "suppressed" for intent in intents if intent.claim.message.phone in suppressed}

    def _apply_intents(self, connection: Connection, run_id: int, sender_id: int, intents: Sequence[Intent]) -> None:
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

    def _apply_refusals(self, connection: Connection, refused: Mapping[int, str]) -> None:
        skipped = [{"id": key} for key, why in refused.items() if why == "suppressed"]
        held_back = [{"id": key} for key, why in refused.items() if why != "suppressed"]
        if skipped:
            connection.execute(
                text(
                    "UPDATE recipients SET status = CASE WHEN attempts = 0 THEN 'skipped' ELSE 'not_sent' END, "
                    "reason = 'suppressed', detail = 'opted out after planning', run_id = NULL "
                    "WHERE id = :id AND status = 'claimed'"
                ),
                skipped,
            )
        if held_back:
            self._release(connection, held_back)

    def release(self, ids: Iterable[int]) -> None:
        """Claimed rows that were not sent after all are pending again."""
        rows = [{"id": key} for key in ids]
        if rows:
            with self._guarded(self._write) as connection:
                self._release(connection, rows)

    def _release(self, connection: Connection, rows: Sequence[Mapping[str, int]]) -> None:
        connection.execute(
            text(
                "UPDATE recipients SET status = CASE WHEN attempts > 0 THEN 'retry_wait' ELSE 'pending' END, run_id = NULL "
                "WHERE id = :id AND status = 'claimed'"
            ),
            rows,
        )

    def next_due(self, campaign_id: int, only: Sequence[str] | None = None) -> int | None:
        """When the next waiting recipient may be tried (microseconds; 0 = now), None when nobody waits."""
        condition = "AND phone IN :phones" if only is not None else ""
        query = text(
            "SELECT min(not_before) FROM recipients "
            f"WHERE campaign_id = :c AND status IN ('pending', 'retry_wait') {condition}"
        )
        parameters: dict[str, object] = {"c": campaign_id}
        if only is not None:
            query = query.bindparams(bindparam("phones", expanding=True))
            parameters["phones"] = list(only)
        with self._guarded(self._read) as connection:
            due = connection.execute(query, parameters).scalar_one()
        return None if due is None else int(due)

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

    def audits(self, campaign_id: int) -> list[tuple[int, str, str]]:
        """What people decided about a campaign: time, action, detail; oldest first."""
        with self._guarded(self._read) as connection:
            rows = connection.execute(
                text("SELECT at, action, detail FROM audits WHERE campaign_id = :c ORDER BY id"), {"c": campaign_id}
            )
            return [(int(at), str(action), str(detail)) for at, action, detail in rows]

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

    def suppressions(self) -> list[tuple[str, str, int]]:
        """The workspace's list: number, source, time; oldest first."""
        with self._guarded(self._read) as connection:
            rows = connection.execute(
                text("SELECT phone, source, added_at FROM suppressions WHERE campaign_id = 0 ORDER BY added_at, phone")
            )
            return [(str(phone), str(source), int(at)) for phone, source, at in rows]

    # --- reading ------------------------------------------------------------------------------------------------------------

    def counts(self, campaign_id: int) -> Counts:
        """Rows by status and reason, in one consistent read of the narrow table."""
        with self._guarded(self._read) as connection:
            return self._counts(connection, campaign_id)

    def _counts(self, connection: Connection, campaign_id: int) -> Counts:
        by_status: dict[Status, int] = {}
        by_reason: dict[tuple[Status, str], int] = {}
        gone = 0
        rows = connection.execute(
            text(
                "SELECT status, reason, CASE WHEN position IS NULL THEN 1 ELSE 0 END, count(*) FROM recipients "
                "WHERE campaign_id = :c GROUP BY 1, 2, 3"
            ),
            {"c": campaign_id},
        )
        for word, reason, left, n in rows:
            status = Status(word)
            by_status[status] = by_status.get(status, 0) + n
            if reason:
                by_reason[status, reason] = by_reason.get((status, reason), 0) + n
            gone += n if left else 0
        return Counts(by_status, by_reason, gone)

    def status(self, name: str) -> StatusView:
        """What `campaign status` shows."""
        campaign = self.campaign(name)
        with self._guarded(self._read) as connection:
            counts = self._counts(connection, campaign.id)
            run = connection.execute(
                text(
                    "SELECT id, started_at, finished_at, owner, ending FROM runs WHERE campaign_id = :c ORDER BY id DESC LIMIT 1"
                ),
                {"c": campaign.id},
            ).first()
            oldest = 0
            if counts[Status.IN_FLIGHT]:
                oldest = connection.execute(
                    text("SELECT min(last_attempt_at) FROM recipients WHERE campaign_id = :c AND status = 'in_flight'"),
                    {"c": campaign.id},
                ).scalar_one()
        return StatusView(campaign, counts, RunRecord(*run) if run is not None else None, int(oldest or 0))

    def results(self, campaign_id: int, page: int = 5000) -> Iterator[LedgerRow]:
        """Every row in input order, those gone from the audience last.

        Read in pages, each its own short transaction: a report of a million rows must not keep a live run from writing.
        """
        last = -1
        query = text(
            f"SELECT r.position, {_RESULT_COLUMNS} FROM recipients r JOIN messages m ON m.id = r.id "
            "WHERE r.campaign_id = :c AND r.position > :last ORDER BY r.position LIMIT :n"
        )
        while True:
            with self._guarded(self._read) as connection:
                rows = connection.execute(query, {"c": campaign_id, "last": last, "n": page}).all()
            for row in rows:
                yield LedgerRow(*row[1:])
            if len(rows) < page:
                break
            last = rows[-1][0]
        with self._guarded(self._read) as connection:
            gone = connection.execute(
                text(
                    f"SELECT {_RESULT_COLUMNS} FROM recipients r JOIN messages m ON m.id = r.id "
                    "WHERE r.campaign_id = :c AND r.position IS NULL ORDER BY r.id"
                ),
                {"c": campaign_id},
            ).all()
        for row in gone:
            yield LedgerRow(*row)
