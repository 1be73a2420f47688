"""Which version a ledger has, and how an older one becomes today's: new tables, or the migrations that are missing.

A new ledger is made from the tables as they stand in `schema`, with the last revision noted; an existing one is asked for its
version first, by a plain SELECT. Alembic is imported only when an upgrade is due: that alone takes half a second.
"""

from __future__ import annotations

import secrets
from typing import Literal

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, text

from runner.errors import LedgerError
from runner.ledger.base import SCHEMA_VERSION

LOCK = 0x63616D706C656467  # the advisory lock of whoever makes or upgrades a ledger in PostgreSQL
State = Literal["current", "older", "missing"]
_revisions = MetaData()
_revision = Table("alembic_version", _revisions, Column("version_num", String(32), primary_key=True))


def revision_of(version: str) -> str:
    """The migration that makes this version: '2' is made by revision '0002'."""
    return version.zfill(4)


def state_of(connection: Connection, name: str) -> State:
    """What is there. Raises LedgerError for a newer ledger, and for another program's tables in the place of ours."""
    there = set(inspect(connection).get_table_names())
    if "meta" not in there:
        from runner.ledger.schema import metadata

        ours = {table.name for table in metadata.sorted_tables}
        sqlite = connection.dialect.name == "sqlite"
        if there if sqlite else there & ours:
            fix = "move it away" if sqlite else "give the ledger a database of its own"
            raise LedgerError(f"{name} is another program's database, not a ledger\n    fix: {fix}")
        return "missing"
    version = str(connection.execute(text("SELECT value FROM meta WHERE key = 'version'")).scalar_one_or_none())
    if version == SCHEMA_VERSION:
        return "current"
    if version.isdecimal() and int(version) < int(SCHEMA_VERSION):
        return "older"
    raise LedgerError(
        f"the ledger {name} has version {version}, this program reads version {SCHEMA_VERSION}: "
        "use the program's version that made it, or a newer one"
    )


def bring_up(connection: Connection, name: str) -> None:
    """Make the ledger, or upgrade it, inside the caller's transaction; the second of two who come together finds it done.

    In SQLite the transaction must hold the write lock from its start.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    match state_of(connection, name):
        case "missing":
            from runner.ledger.schema import metadata

            metadata.create_all(connection, checkfirst=False)
            _revisions.create_all(connection, checkfirst=False)
            connection.execute(_revision.insert().values(version_num=revision_of(SCHEMA_VERSION)))
            values = {"v": SCHEMA_VERSION, "k": secrets.token_hex(32)}
            connection.execute(text("INSERT INTO meta (key, value) VALUES ('version', :v), ('key', :k)"), values)
        case "older":
            _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    from runner.ledger.migrations import upgrade

    version = str(connection.execute(text("SELECT value FROM meta WHERE key = 'version'")).scalar_one())
    if not inspect(connection).has_table("alembic_version"):  # made before there were migrations
        _revisions.create_all(connection)
        connection.execute(_revision.insert().values(version_num=revision_of(version)))
    upgrade(connection, revision_of(SCHEMA_VERSION))
    connection.execute(text("UPDATE meta SET value = :v WHERE key = 'version'"), {"v": SCHEMA_VERSION})
