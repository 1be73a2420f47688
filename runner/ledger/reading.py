"""What is asked of the ledger: campaigns, counts, status, result rows. The same statements for every database.

A call is one read transaction, so what it returns was true at one moment; `results` says what it does instead.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from runner.errors import LedgerError, UnknownCampaignError
from runner.ledger import overview
from runner.ledger.base import CampaignRecord, Counts, Hold, LedgerRow, Overview, Sender, Unknown
from runner.ledger.bulk import ONE_OF, several

T = TypeVar("T")

_RESULT_COLUMNS = (
    "r.row, r.phone, m.raw_phone, r.status, r.reason, r.detail, r.code, r.queue_id, r.attempts, r.first_attempt_at, "
    "r.last_attempt_at, r.delivery, m.image, m.caption, m.own"
)


def whose(connection: Connection, hold: Hold, only: Sequence[str] | None) -> tuple[str, dict[str, object]]:
    """`table WHERE condition` for the recipients who wait in the hold's campaign or partition, and its parameters."""
    way = ""
    condition, parameters = overview.WAITING, dict[str, object](c=hold.campaign_id)
    if hold.partition is not None:
        condition += " AND position BETWEEN :first AND :last"
        parameters |= {"first": hold.partition.first, "last": hold.partition.last}
    if only is not None:
        condition += f" AND phone {ONE_OF[connection.dialect.name]['phones']}"
        parameters["phones"] = several(connection, list(only))
    elif connection.dialect.name == "sqlite":
        way = overview.WAITING_ONLY
    return f"recipients {way} WHERE {condition}", parameters


def asking(connection: Connection) -> overview.Ask:
    """The questions of `overview`, through this connection."""

    def ask(statement: str, values: Mapping[str, object]) -> Sequence[Sequence[Any]]:
        return connection.execute(text(statement), values).all()

    return ask


class LedgerReader(ABC):
    """The reading half of a ledger. Any failure is a LedgerError."""

    def __init__(self, engine: Engine, name: str, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._name = name
        self._clock = clock

    # --- connections --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads."""

    @contextmanager
    def _guarded(self, opening: Callable[[], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        try:
            with opening() as connection:
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:  # the driver's own: `bulk` goes past SQLAlchemy
            raise LedgerError(self._explain(error)) from error

    def _explain(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        return f"the ledger {self._name} cannot be used: {cause}"

    def _lasting(self, attempt: Callable[[bool], T]) -> T:
        """Do one of the calls of a run. Where the database may be away for a moment, it is tried again: attempt(True)."""
        return attempt(False)

    @property
    def name(self) -> str:
        """What people call it: a file's name, or an address without its password."""
        return self._name

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    # --- campaigns and senders ----------------------------------------------------------------------------------------

    def campaigns(self) -> list[str]:
        """Names of all campaigns, the last planned first."""
        with self._guarded(self._read) as connection:
            return overview.names(asking(connection))

    def campaign(self, name: str) -> CampaignRecord:
        """One campaign. Raises UnknownCampaignError."""
        with self._guarded(self._read) as connection:
            record = overview.record(asking(connection), name)
        if record is None:
            known = ", ".join(self.campaigns()[:10]) or "none yet"
            raise UnknownCampaignError(f"the ledger {self._name} has no campaign {name!r} (campaigns there: {known})")
        return record

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

    def state(self, campaign_id: int) -> str:
        """The campaign's state as another process may have set it."""

        def attempt(_: bool) -> str:
            with self._guarded(self._read) as connection:
                query = text("SELECT state FROM campaigns WHERE id = :id")
                return str(connection.execute(query, {"id": campaign_id}).scalar_one())

        return self._lasting(attempt)

    def next_due(self, hold: Hold, only: Sequence[str] | None = None) -> int | None:
        """When the next waiting recipient may be tried (microseconds; 0 = now), None when nobody waits.

        Of the hold's campaign, or of its partition where it has one.
        """

        def attempt(_: bool) -> int | None:
            with self._guarded(self._read) as connection:
                they, parameters = whose(connection, hold, only)
                due = connection.execute(text(f"SELECT min(not_before) FROM {they}"), parameters).scalar_one()
            return None if due is None else int(due)

        return self._lasting(attempt)

    def audits(self, campaign_id: int) -> list[tuple[int, str, str]]:
        """What people decided about a campaign: time, action, detail; oldest first."""
        with self._guarded(self._read) as connection:
            rows = connection.execute(
                text("SELECT at, action, detail FROM audits WHERE campaign_id = :c ORDER BY id"), {"c": campaign_id}
            )
            return [(int(at), str(action), str(detail)) for at, action, detail in rows]

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
            return overview.counts(asking(connection), campaign_id, sqlite=self._is_sqlite)

    def overviews(self, name: str) -> list[Overview]:
        """What `campaign status` shows of this campaign, or of all for ''. Raises UnknownCampaignError."""
        found = []
        for campaign in [self.campaign(each) for each in ([name] if name else self.campaigns())]:
            with self._guarded(self._read) as connection:
                found.append(overview.overview(asking(connection), campaign, self._clock(), sqlite=self._is_sqlite))
        return found

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def attempts(self, campaign_id: int, page: int = 10_000) -> Iterator[tuple[int, int, str, str]]:
        """Every attempt in the order of its start: started, finished (microseconds), verdict, code. Read in pages."""
        with self._guarded(self._read) as connection:
            senders = connection.execute(
                text(
                    "SELECT DISTINCT a.sender_id FROM attempts a JOIN runs r ON r.id = a.run_id WHERE r.campaign_id = :c"
                ),
                {"c": campaign_id},
            ).all()
        yield from heapq.merge(*(self._attempts(campaign_id, sender[0], page) for sender in senders))

    def _attempts(self, campaign_id: int, sender_id: int, page: int) -> Iterator[tuple[int, int, str, str]]:
        """One sender's, along its index."""
        query = text(
            "SELECT a.started_at, a.finished_at, a.verdict, a.code, a.recipient_id, a.number FROM attempts a "
            "WHERE a.sender_id = :sender AND (a.started_at, a.recipient_id, a.number) > (:at, :recipient, :number) "
            "AND a.run_id IN (SELECT id FROM runs WHERE campaign_id = :c) "
            "ORDER BY a.started_at, a.recipient_id, a.number LIMIT :n"
        )
        at, recipient, number = -1, -1, -1
        while True:
            keys = {
                "sender": sender_id,
                "at": at,
                "recipient": recipient,
                "number": number,
                "c": campaign_id,
                "n": page,
            }
            with self._guarded(self._read) as connection:
                rows = connection.execute(query, keys).all()
            for started, finished, verdict, code, recipient, number in rows:  # noqa: B007 - the next page goes on from here
                at = started
                yield started, finished, verdict, code
            if len(rows) < page:
                return

    def unknowns(self, campaign_id: int) -> list[Unknown]:
        """The rows whose fate is not known, in input order."""
        with self._guarded(self._read) as connection:
            rows = connection.execute(
                text(
                    "SELECT r.id, r.row, r.phone, m.image, m.caption, r.last_attempt_at, r.queue_id, r.reason "
                    "FROM recipients r JOIN messages m ON m.id = r.id WHERE r.campaign_id = :c AND r.status = 'unknown' "
                    "ORDER BY r.position, r.id"
                ),
                {"c": campaign_id},
            )
            return [Unknown(*row) for row in rows]

    def results(self, campaign_id: int, page: int = 1000) -> Iterator[LedgerRow]:
        """Every row in input order, those gone from the audience last.

        Read in pages, each its own short transaction: a report of a million rows must not keep a live run from writing.
        """
        make = partial(
            tuple.__new__, LedgerRow
        )  # past its own checks of every row: the columns are the fields, in order
        paging = text(
            f"SELECT {_RESULT_COLUMNS}, r.position FROM recipients r JOIN messages m ON m.id = r.id "
            "WHERE r.campaign_id = :c AND r.position > :last ORDER BY r.position LIMIT :n"
        )
        last = -1
        while True:
            rows = self._tuples(paging, {"c": campaign_id, "last": last, "n": page})
            for row in rows:
                yield make(row[:-1])
            if len(rows) < page:
                break
            last = rows[-1][-1]
        gone = text(
            f"SELECT {_RESULT_COLUMNS} FROM recipients r JOIN messages m ON m.id = r.id "
            "WHERE r.campaign_id = :c AND r.position IS NULL ORDER BY r.id"
        )
        yield from map(make, self._tuples(gone, {"c": campaign_id}))

    def _tuples(self, query: TextClause, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Rows as the driver gives them: SQLAlchemy's own cost a microsecond more each (measured)."""
        with self._guarded(self._read) as connection:
            cursor = connection.execute(query, values).cursor
            assert cursor is not None  # noqa: S101 - a SELECT has one until it has been read
            return list(cursor.fetchall())
