"""The embedded ledger: one SQLite file under reports/.

Why a rollback journal and not WAL: in WAL mode SQLite 3.7.0 to 3.51.2 has a corruption race between two connections, and the
library that comes with Python is often older than the fix; WAL with synchronous=NORMAL lost 200 of 200 acknowledged commits in a
simulated power cut. With group commit the rollback journal makes about 50,000 rows/s durable (measured), far above any
sender's limit. synchronous=EXTRA also syncs the folder, so that a commit survives a power cut that undoes the journal's deletion.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.pool import QueuePool

from runner.errors import LedgerError
from runner.ledger.base import CampaignDraft, now_us
from runner.ledger.sql import SqlLedger
from runner.ledger.staging import Staging

BUSY_SECONDS = 15.0
LOOK_SECONDS = 0.001  # between looks at whether another program has done writing
SPARE_BYTES = 1024 * 1024  # room for the outcomes of 1,000 requests in flight, journal included
CACHE_KB = 8_000
# Renewing a plan of 600,000 rows whose order has changed wrote 6.2 GB with 8 MB, 4.8 with 16, 2.5 with 32, 2.4 with 64 (measured).
ADOPTING_KB = 32_000
PRAGMAS = ("journal_mode = DELETE", "synchronous = EXTRA", f"cache_size = -{CACHE_KB}", "secure_delete = OFF")
# The temporary tables of a plan have a file of their own, which nobody else can open: larger pages make it quicker to fill,
# and wiping it before it is deleted took 1.5 microseconds a row (measured).
TEMPORARY_PRAGMAS = ("temp.page_size = 16384", "temp.secure_delete = OFF")
_NUMBERS = "ux_recipients_phone"
_MANY_NEW = text(  # more than a quarter of what is there
    "SELECT 4 * ((SELECT count(*) FROM staged) - (SELECT count(position) FROM matched)) > (SELECT count(*) FROM recipients)"
)


class SqliteLedger(SqlLedger):
    """A ledger in one file (or in memory, `path` None); `open_sqlite` makes and opens it."""

    def __init__(self, engine: Engine, path: Path | None, name: str, clock: Callable[[], int]) -> None:
        super().__init__(engine, name, clock)
        self._path = path
        self._spare: Path | None = None
        self.folder = path.parent if path is not None else None

    @contextmanager
    def spare_space(self, campaign: str) -> Iterator[None]:
        """A file of SPARE_BYTES beside the ledger while a run goes on; raises LedgerError when there is no room for it."""
        if self._path is None:
            yield
            return
        self._spare = self._path.with_suffix(f".{campaign}.spare")
        try:
            descriptor = os.open(
                self._spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                if os.write(descriptor, bytes(SPARE_BYTES)) < SPARE_BYTES:  # written, not merely promised
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.use_spare_space()
            raise LedgerError(
                f"no room for {self._spare}: {error.strerror}. Nothing was sent\n    fix: {_ADVICE[0][1]}"
            ) from None
        try:
            yield
        finally:
            self.use_spare_space()

    def use_spare_space(self) -> None:
        """Give the room back to the disk, so that outcomes of requests on the way can still be written."""
        if self._spare is not None:
            with suppress(OSError):
                self._spare.unlink(missing_ok=True)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def standing_still(self) -> AbstractContextManager[Connection]:
        """With the write lock: others may read meanwhile."""
        return self._guarded(self._write)

    def adopt(self, staging: Staging, draft: CampaignDraft) -> int:
        """As every ledger does, with more memory for as long as it takes."""
        driver = staging.connection.connection.driver_connection  # a PRAGMA of ours must not begin the transaction
        assert driver is not None  # noqa: S101 - a connection in use has one
        driver.execute(f"PRAGMA main.cache_size = -{ADOPTING_KB}")
        try:
            return super().adopt(staging, draft)
        finally:
            with suppress(sqlite3.Error):
                driver.execute(f"PRAGMA main.cache_size = -{CACHE_KB}")

    @contextmanager
    def _inserting(self, connection: Connection) -> Iterator[None]:
        """Where a good part of the rows is new, the index over their numbers, which come in any order, is made afterwards.

        A million shuffled numbers into an empty ledger wrote 1,872 MB with 8 MB of page cache, 396 MB with 64 MB in 9.7 s;
        made afterwards 414 MB with 8 MB in 4.5 s (measured). Within the transaction: it cannot be missing later.
        """
        if not connection.execute(_MANY_NEW).scalar_one():
            yield
            return
        connection.exec_driver_sql(f"PRAGMA main.cache_size = -{CACHE_KB}")
        making = connection.execute(text(f"SELECT sql FROM sqlite_master WHERE name = '{_NUMBERS}'")).scalar_one()
        connection.execute(text(f"DROP INDEX {_NUMBERS}"))
        yield
        connection.execute(text(making))

    def _explain(self, error: Exception) -> str:
        cause = getattr(error, "orig", None)
        text = str(cause or error)
        advice = next((advice for mark, advice in _ADVICE if mark in text), "")
        return f"the ledger {self._name} cannot be used: {text}" + (f"\n    fix: {advice}" if advice else "")


_ADVICE = (
    (
        "database or disk is full",
        "free some space on the disk, then run the same command again: it goes on where it stopped",
    ),
    ("readonly database", "make the file and its folder writable for you"),
    ("database is locked", "another program holds the file; close it, then run the same command again"),
    ("disk I/O error", "check the disk (and whether it is a network drive: a ledger belongs on a local disk)"),
    ("malformed", "the file is damaged; restore it from a backup"),
    ("not a database", "this is not a ledger; move the file away"),
)


def open_sqlite(
    path: Path | None,
    *,
    create: bool,
    clock: Callable[[], int] = now_us,
    busy: float = BUSY_SECONDS,
    name: str = "in memory",
) -> SqliteLedger:
    """Open the ledger, making file (0600) and folder (0700) if `create`. Raises LedgerError.

    Every wait for another program that writes ends after `busy` seconds.
    Without `create` a missing file gives an empty ledger in memory: looking at a plan leaves nothing behind. So does
    no file at all, under this `name`. A ledger of an older version is upgraded.
    """
    if create and path is not None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise LedgerError(
                f"the ledger {path} cannot be opened for writing: {error.strerror}\n"
                f"    fix: make {path.parent} a folder that you may write in, or name another workspace with --workspace"
            ) from None
    # An empty file: its maker was killed before the first table.
    if path is not None and path.exists() and (create or path.stat().st_size > 0):
        ledger = SqliteLedger(_engine(path, busy), path, path.name, clock)
        if ledger.prepare(create=create):
            return ledger
        ledger.close()
    ledger = SqliteLedger(_engine(None, busy), None, path.name if path is not None else name, clock)
    ledger.prepare(create=True)
    return ledger


def _engine(path: Path | None, busy: float) -> Engine:
    # In memory with a shared cache: several connections see one database, which is gone with the last of them.
    memory = f"sqlite:///file:ledger-{secrets.token_hex(8)}?mode=memory&cache=shared&uri=true"
    engine = create_engine(
        URL.create("sqlite", database=str(path)) if path is not None else memory,  # a path may hold a ? or a %
        poolclass=QueuePool,
        connect_args={"timeout": busy, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, see _begin
        cursor = connection.cursor()
        for pragma in PRAGMAS + TEMPORARY_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("immediate", False):
            _begin_writing(connection, busy)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _begin_writing(connection: Connection, busy: float) -> None:
    """IMMEDIATE takes the write lock first: two writers queue up instead of failing half way.

    SQLite itself looks less and less often, at last every 100 ms, and then whoever has just written is first again.
    (Measured with two runs at 200/s on a slow disk: slots were waited for up to 550 ms, and 59 % of the limit was used.)
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - as `_engine` made it
    deadline = time.monotonic() + busy
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while time.monotonic() < deadline:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    break
                time.sleep(LOOK_SECONDS)
            else:
                return
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # to be refused in the library's own words
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(busy * 1000)}")
