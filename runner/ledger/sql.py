"""What changes the ledger: campaigns, runs, claims, people's decisions. The same statements for every database.

A call is one transaction unless it says otherwise. Threads: every method may be called from any thread, one at a time; the
engine calls from a single writer thread.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, bindparam, text

from runner.errors import TakenOverError
from runner.ledger.adoption import adopt
from runner.ledger.base import Applied, CampaignDraft, Claim, Finish, Hold, Intent, Recovered, Wanted, now_us
from runner.ledger.batches import GIVEN_UP, RELEASED, apply, gate, release
from runner.ledger.bulk import run_many
from runner.ledger.claims import claim
from runner.ledger.reading import LedgerReader
from runner.ledger.staging import Staging
from runner.ledger.upgrading import bring_up, state_of
from runner.model import Status
from runner.steadyclock import SteadyClock

T = TypeVar("T")

_HELD = "SELECT id, status FROM recipients WHERE campaign_id = :c AND status IN ('claimed', 'in_flight') ORDER BY id"
_GIVEN_BACK = f"UPDATE recipients SET status = {RELEASED}, run_id = NULL WHERE id = :id AND status = 'claimed'"
_UNKNOWN_ATTEMPT = (
    "UPDATE attempts SET finished_at = :now, verdict = 'unknown', reason = :reason, detail = :detail "
    "WHERE finished_at = 0 AND recipient_id = :id"
)
_UNKNOWN = (  # without the code of an earlier attempt: this one had no reply
    "UPDATE recipients SET status = 'unknown', reason = :reason, detail = :detail, code = '' "
    "WHERE id = :id AND status = 'in_flight'"
)


class SqlLedger(LedgerReader):
    """One row per recipient, an append-only list of attempts, suppressions. Any failure to read or write is a LedgerError."""

    shared = False  # whether other machines may use it at the same time
    folder: Path | None = None  # where it lies, if it is a file: what guards it lies beside it

    def __init__(self, engine: Engine, name: str, clock: Callable[[], int] = now_us) -> None:
        super().__init__(engine, name, clock)
        self.tell: Callable[[str], None] = lambda _: None  # something a person should know while a run goes on
        self.steady: SteadyClock | None = None  # the clock of all runs that send through one sender, while one goes on

    @abstractmethod
    def _write(self) -> AbstractContextManager[Connection]:
        """A transaction that may write; holds the database's write lock from its start where that is the way."""

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction for the parts of the ledger that stand beside this class (slots, partitions)."""
        return self._guarded(self._write)

    def reading(self) -> AbstractContextManager[Connection]:
        """The same, only to look."""
        return self._guarded(self._read)

    def lasting(self, call: Callable[[], T]) -> T:
        """Do what may be done twice without harm, as often as it takes while the database is away for a moment."""
        return self._lasting(lambda _: call())

    def standing_still(self) -> AbstractContextManager[Connection]:
        """A transaction to read everything in, while nobody changes what it reads."""
        return self._guarded(self._read)

    def clock(self) -> int:
        """This machine's time in microseconds, for what the database has no clock for."""
        return self._clock() if self.steady is None else self.steady()

    def prepare(self, *, create: bool) -> bool:
        """Make the tables if they are not there (with `create`), upgrade those of an older version. Whether there are any.

        Raises LedgerError for a ledger of a newer version, and where another program's tables stand in their place.
        """
        with self._guarded(self._read) as connection:
            state = state_of(connection, self._name)
        if state == "current":
            return True
        if state == "missing" and not create:
            return False
        with self._guarded(self._write) as connection:
            bring_up(connection, self._name)
        return True

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
            return adopt(connection, draft, self._clock(), self._inserting)

    @contextmanager
    def _inserting(self, connection: Connection) -> Iterator[None]:
        """Surrounds the writing of a plan's new rows, within its transaction."""
        del connection
        yield

    # --- runs -------------------------------------------------------------------------------------------------------------

    def recover(self, campaign_id: int) -> Recovered:
        """What a dead run left: claimed rows are pending again, rows in flight are unknown. Only under the campaign's lock.

        A run that is not dead after all (its lock was lost with a connection, or its machine was frozen) may send nothing
        more from here on. That is a commit of its own: whoever commits later has seen it.
        """
        why = {"reason": "interrupted", "detail": "the run ended before the reply was recorded", "c": campaign_id}
        with self._guarded(self._write) as connection:
            connection.execute(text("UPDATE campaigns SET run_id = NULL WHERE id = :c"), why)
            connection.execute(
                text("UPDATE partitions SET epoch = epoch + 1 WHERE campaign_id = :c AND done_at = 0"), why
            )
        with self._guarded(self._write) as connection:
            # One walk over the campaign for both kinds: there is no index for what is true of a few rows for a moment.
            locks = " FOR UPDATE" if connection.dialect.name == "postgresql" else ""
            held = connection.execute(text(_HELD + locks), why).all()
            claimed = [{"id": key} for key, status in held if status == "claimed"]
            in_flight = [why | {"id": key, "now": self._clock()} for key, status in held if status == "in_flight"]
            released = run_many(connection, _GIVEN_BACK, claimed) if claimed else 0
            if not in_flight:
                return Recovered(released, 0)
            run_many(connection, _UNKNOWN_ATTEMPT, in_flight)
            return Recovered(released, run_many(connection, _UNKNOWN, in_flight))

    def begin_run(self, campaign_id: int, owner: str, plan_hash: str) -> int:
        """A new run, which alone may send this campaign from now on; returns its id."""
        with self._guarded(self._write) as connection:
            run_id = int(
                connection.execute(
                    text(
                        "INSERT INTO runs (campaign_id, started_at, owner, plan_hash) VALUES (:c, :now, :owner, :hash) RETURNING id"
                    ),
                    {"c": campaign_id, "now": self._clock(), "owner": owner, "hash": plan_hash},
                ).scalar_one()
            )
            connection.execute(
                text("UPDATE campaigns SET run_id = :run WHERE id = :c"), {"run": run_id, "c": campaign_id}
            )
            return run_id

    def end_run(self, run_id: int, ending: str) -> None:
        """How a run ended, in a word. Rows it still claims are released."""
        self._lasting(lambda _: self._end_run(run_id, ending))

    def _end_run(self, run_id: int, ending: str) -> None:
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

    def claim(self, hold: Hold, n: int, now: int, only: Sequence[str] | None = None) -> Sequence[Claim]:
        """Up to `n` recipients whose time has come, in input order, now held by this run. Raises TakenOverError."""
        applied = self.apply(hold, (), (), Wanted(n, now, only))
        if not applied.ours:
            raise TakenOverError.said()
        return applied.claims

    def apply(
        self, hold: Hold, finishes: Sequence[Finish], intents: Sequence[Intent], wanted: Wanted | None = None
    ) -> Applied:
        """One group commit: outcomes first, then intents past the last gates, then claims. Durable when it returns.

        An intent of a recipient who has been suppressed since, or of a campaign that has been paused, cancelled or taken
        over by another run, is refused in the same transaction that would have recorded it, so no opt-out slips in between.
        Claims go with the rest, for a commit of their own costs as much as that of fifty messages.
        """
        maybe: list[int] = []  # claimed by a try whose commit may have happened unheard: given back first

        def attempt(again: bool) -> Applied:
            with self._guarded(self._write) as connection:
                release(connection, hold, maybe)
                applied = apply(connection, hold, finishes, intents, again=again)
                if wanted is not None and applied.ours:
                    applied = replace(applied, claims=claim(connection, hold, wanted))
                    maybe[:] = [each.id for each in applied.claims]
            return applied

        return self._lasting(attempt)

    def campaign_lock(self, campaign: str, holder: str) -> AbstractContextManager[None]:
        """Hold the campaign on all machines that share the ledger. Raises LockedError.

        A ledger in a file is guarded by a lock on a file beside it (`runner.lock`).
        """
        return nullcontext()

    def spare_space(self, campaign: str) -> AbstractContextManager[None]:
        """Keep room on the disk while a run of this campaign goes on, where the ledger is a file of ours."""
        return nullcontext()

    def use_spare_space(self) -> None:
        """The disk is full: give the room back, for the last outcomes."""

    def release(self, hold: Hold, ids: Iterable[int]) -> None:
        """Rows claimed in this run's name that were not sent after all wait again."""
        keys = list(ids)

        def attempt(_: bool) -> None:
            with self._guarded(self._write) as connection:
                if gate(connection, hold)[1]:  # else whoever took over has settled them
                    release(connection, hold, keys)

        if keys:
            self._lasting(attempt)

    # --- people's decisions ---------------------------------------------------------------------------------------------

    def give_up(self, campaign_id: int, reason: str, detail: str) -> int:
        """Nobody who still waits is sent any more (deadline, cancel): never tried -> skipped, tried -> not_sent."""
        with self._guarded(self._write) as connection:
            changed = connection.execute(
                text(
                    f"UPDATE recipients SET {GIVEN_UP}, reason = :reason, "
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
                    "UPDATE recipients SET status = 'pending', live = 1, reason = '', detail = '', code = '', queue_id = '', "
                    "not_before = 0, run_id = NULL "
                    f"WHERE campaign_id = :c AND position IS NOT NULL AND status IN :statuses {wanted}"
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
