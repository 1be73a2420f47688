"""The shared ledger: a PostgreSQL database, for teams and for many machines.

Durable means durable here too: `synchronous_commit` is set for every session, so a server that has it off by default cannot
weaken the promise that an attempt is on disk before its first byte leaves. (A server with fsync=off can; docs/ledger.md says so.)
A server that goes away during a run is waited for: nothing is sent meanwhile, for every request needs its commit first.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TypeVar

import psycopg
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from runner.errors import InputError, LedgerError, LockedError, Problem
from runner.ledger.address import Address, explain, passes, read_address
from runner.ledger.base import now_us
from runner.ledger.sql import SqlLedger
from runner.ledger.sqlite import open_sqlite

T = TypeVar("T")

PATIENCE = 60.0  # seconds that a run waits for a server that is away
IDLE_SECONDS = 10  # that a worker may leave a transaction open without a word
LONGEST_PAUSE = 2.0  # seconds between two tries
LOCKS = 0x63616D70  # the first half of every advisory lock of ours; the second is the campaign's
_BACK_SOON = (
    "08",
    "25P03",
    "40001",
    "40P01",
    "53300",
    "57P01",
    "57P02",
    "57P03",
)  # SQLSTATE: lost, deadlock, full, shut down

_SESSION = (  # remote_apply is stronger than on; an unplugged machine is noticed in a minute, so its locks are free then
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') <> 'remote_apply'",
    "SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false), "
    "set_config('tcp_keepalives_count', '3', false)",
    "SET client_encoding = 'UTF8'",
)
_HOLDER = text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = :space AND l.objid = CAST(:key AS bigint) AND l.objsubid = 2 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class _AwayError(LedgerError):
    """The server cannot be reached just now, or could not take part just now; another try may succeed."""


class _TextDumper(StrDumperUnknown):
    """PostgreSQL cannot store the character NUL; a provider's reply or a spreadsheet may hold one."""

    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


class PostgresLedger(SqlLedger):
    """A ledger in a PostgreSQL database; `open_postgres` makes and opens it. `patience` in seconds."""

    shared = True

    def __init__(self, engine: Engine, address: Address, clock: Callable[[], int], patience: float) -> None:
        super().__init__(engine, address.shown, clock)
        self._address = address
        self._patience = patience
        self._away_since: float | None = None

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        # One snapshot for all statements of the call, as in SQLite.
        with self._engine.connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _guarded(self, opening: Callable[[], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        try:
            with opening() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._failure(getattr(error, "orig", None) or error) from error
        except psycopg.Error as error:  # of a COPY, which does not go through SQLAlchemy
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> LedgerError:
        words = self._address.scrub(str(error))
        message = f"the ledger {self._name} cannot be used: {explain(words)}"
        state = getattr(error, "sqlstate", None)
        if state is not None:
            return _AwayError(message) if state.startswith(_BACK_SOON) else LedgerError(message)
        away = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and passes(words)
        return _AwayError(message) if away else LedgerError(message)

    # --- a server that goes away ----------------------------------------------------------------------------------------

    def _lasting(self, attempt: Callable[[bool], T]) -> T:
        """Tried again while the server is away, up to the patience; that is for all calls together until one succeeds."""
        pause, again = 0.05, False
        while True:
            try:
                done = attempt(again)
            except _AwayError as error:
                now = time.monotonic()
                if self._away_since is None:
                    self._away_since = now
                    self.tell(f"the ledger is away, nothing is sent until it is back: {str(error).splitlines()[0]}")
                if now - self._away_since >= self._patience:
                    raise LedgerError(f"{error}\n    (waited {now - self._away_since:.0f} s for it)") from error
                time.sleep(pause)
                pause, again = min(2 * pause, LONGEST_PAUSE), True
            else:
                if self._away_since is not None:
                    self._away_since = None
                    self.tell("the ledger is back")
                return done

    # --- one run of a campaign at a time, on whatever machine ---------------------------------------------------------------

    @contextmanager
    def campaign_lock(self, campaign: str, holder: str) -> Iterator[None]:
        """Hold the campaign while the block runs. Raises LockedError at once, naming who holds it.

        An advisory lock of a connection of its own, which dies with its holder however it dies. Should only the connection
        die and the run go on, another run may begin: from then on the first finds its intents refused, for the ledger
        names the run that may send (`campaigns.run_id`). So losing the lock is no catastrophe and is not watched for.
        """
        digest = hashlib.sha256(campaign.encode()).digest()
        keys = {"space": LOCKS, "key": int.from_bytes(digest[:4], "big", signed=True)}
        with ExitStack() as stack:
            with self._guarded(lambda: nullcontext(stack.enter_context(self._engine.connect()))) as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": holder})
                free = connection.execute(text("SELECT pg_try_advisory_lock(:space, :key)"), keys).scalar_one()
                connection.detach()  # closed at the end, not given back: the lock goes with it
                if not free:
                    raise LockedError.held(campaign, self._holder(connection, campaign, keys))
            yield

    def _holder(self, connection: Connection, campaign: str, keys: dict[str, int]) -> str:
        """In the holder's own words; a server shows those only to members of the same role, else the last run's."""
        unsigned = keys | {"key": keys["key"] % (1 << 32)}
        name = str(connection.execute(_HOLDER, unsigned).scalar_one_or_none() or "")
        if name and "insufficient privilege" not in name:
            return name
        last = "SELECT r.owner FROM runs r JOIN campaigns c ON c.id = r.campaign_id WHERE c.name = :c ORDER BY r.id DESC LIMIT 1"
        return str(connection.execute(text(last), {"c": campaign}).scalar_one_or_none() or "another program")


def open_postgres(
    url: str, *, create: bool, clock: Callable[[], int] = now_us, patience: float = PATIENCE
) -> SqlLedger:
    """Open the ledger in the database at `url`. Raises LedgerError; InputError for an address that is none.

    With `create` its tables are made if they are not there. Without, a database that has none reads as an empty ledger,
    and nothing is written to it: looking at a plan leaves nothing behind. An older ledger is upgraded either way.
    """
    address = read_address(url)
    ledger = PostgresLedger(_engine(address), address, clock, patience)
    try:
        _check_encoding(ledger, address)
        if ledger.prepare(create=create):
            return ledger
    except BaseException:
        ledger.close()
        raise
    ledger.close()
    return open_sqlite(None, create=False, clock=clock, name=address.shown)


def _check_encoding(ledger: PostgresLedger, address: Address) -> None:
    with ledger.writing() as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        fix = "make the database with: createdb --encoding UTF8 --template template0 NAME"
        raise InputError(Problem(address.shown, f"the database keeps its texts in {encoding}, not UTF8", fix))


def open_worker(url: str) -> SqlLedger:
    """Open the ledger for a worker of a cluster, which may be frozen in the middle of a transaction and leave its locks behind:
    the server ends such a transaction after IDLE_SECONDS, so that another worker can take over. Raises LedgerError, InputError.
    """
    address = read_address(url, "the worker's ledger")
    idle = f"SELECT set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', false)"
    return PostgresLedger(_engine(address, idle), address, now_us, PATIENCE)


def _engine(address: Address, *more: str) -> Engine:
    def connect() -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(**dict(address.parameters), autocommit=True)  # type: ignore[arg-type]  # libpq's options by name
        try:
            for statement in (*_SESSION, *more):
                connection.execute(statement.encode())
            connection.autocommit = False
            connection.adapters.register_dumper(str, _TextDumper)
        except BaseException:
            connection.close()
            raise
        return connection

    # Parameters are recipients' data: they stay out of messages and logs.
    return create_engine(
        "postgresql+psycopg://", creator=connect, hide_parameters=True, use_native_hstore=False, pool_use_lifo=True
    )
