"""Older ledgers become today's, with everything in them; and the migrations make what a new ledger is made of."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import postgres
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from ledgers import ACCEPTED, ANNA, BORIS, CEM, Clock, Run, audience, plan
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from test_ledger_postgres import open_in_processes

from runner.errors import LedgerError
from runner.ledger import open_ledger
from runner.ledger.base import SCHEMA_VERSION
from runner.ledger.migrations import upgrade
from runner.ledger.schema import metadata
from runner.model import Status

KINDS = ["sqlite", "postgres"]
OLD_TABLES = (Path(__file__).parent / "ledger_version_1.sql").read_text()
OLD_ROWS = f"""
INSERT INTO meta VALUES ('version', '1'), ('key', 'abababababababababababababababab');
INSERT INTO senders (fingerprint, provider) VALUES ('f', 'wapim');
INSERT INTO campaigns (name, provider, sender_id, columns, phone_column, settings, plan_hash, planned_at)
VALUES ('spring', 'wapim', 1, '["Mobile"]', 'Mobile', '{{}}', 'hash', 1000);
INSERT INTO runs (campaign_id, started_at, owner, plan_hash) VALUES (1, 5, 'process 1 on here', 'hash');
INSERT INTO recipients (campaign_id, position, row, phone, status, attempts) VALUES (1, 0, 2, '{ANNA}', 'accepted', 1);
INSERT INTO recipients (campaign_id, position, row, phone, status) VALUES (1, 1, 3, '{BORIS}', 'pending');
INSERT INTO recipients (campaign_id, position, row, phone, status, reason) VALUES (1, 2, 4, '{ANNA}', 'skipped', 'duplicate');
INSERT INTO messages (raw_phone, country, image, caption, own) VALUES ('', 'TR', 'i', 'c', '[]'), ('', 'TR', 'i', 'c', '[]'),
('', 'TR', '', '', '[]');
INSERT INTO attempts (recipient_id, number, run_id, sender_id, started_at) VALUES (1, 1, 1, 1, 7);
INSERT INTO suppressions VALUES ('905320000099', 0, 'by hand', 3);
"""  # noqa: S608 - invented numbers of ours


def place_for(kind: str, folder: Path) -> str:
    """A place with nothing in it."""
    return postgres.shared().database(empty=True) if kind == "postgres" else str(folder / "ledger.sqlite3")


@contextmanager
def connected(place: str) -> Iterator[Connection]:
    """A connection past the ledger's own code."""
    url = place.replace("postgresql:", "postgresql+psycopg:") if "://" in place else f"sqlite:///{place}"
    engine = create_engine(url)
    _immediate(engine)
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


def _immediate(engine: Engine) -> None:
    """In SQLite: transactions that include what makes tables."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _plain(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def make_version_1(place: str) -> None:
    """As the program made it before there were migrations: the old tables and rows, no list of revisions."""
    if "://" not in place:
        with closing(sqlite3.connect(place)) as file:
            file.executescript(OLD_TABLES + OLD_ROWS)
        return
    with connected(place) as connection:
        upgrade(connection, "0001")
        connection.execute(text("DROP TABLE alembic_version"))
        for statement in filter(str.strip, OLD_ROWS.split(";\n")):
            connection.exec_driver_sql(statement)


def test_the_first_migration_makes_the_tables_that_were_there_before(tmp_path: Path) -> None:
    migrated, old = str(tmp_path / "migrated.sqlite3"), str(tmp_path / "old.sqlite3")
    with connected(migrated) as connection:
        upgrade(connection, "0001")
        connection.execute(text("DROP TABLE alembic_version"))
        made = shape(connection)
    make_version_1(old)
    with connected(old) as connection:
        assert shape(connection) == made


@pytest.mark.parametrize("kind", KINDS)
def test_the_migrations_make_the_tables_of_a_new_ledger(kind: str, tmp_path: Path) -> None:
    place = place_for(kind, tmp_path)
    with connected(place) as connection:
        upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        migrated = shape(connection)
    other = tmp_path / "other"
    other.mkdir()
    fresh = place_for(kind, other)
    open_ledger(fresh, create=True).close()
    with connected(fresh) as connection:
        assert shape(connection) == migrated
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        assert revision == SCHEMA_VERSION.zfill(4)


def shape(connection: Connection) -> dict[str, object]:
    """Every table with its columns, keys and indexes, as the database has them."""
    found = inspect(connection)
    return {
        table: (
            [(each["name"], str(each["type"]), each["nullable"], each["default"]) for each in found.get_columns(table)],
            found.get_pk_constraint(table)["constrained_columns"],
            sorted((str(each["name"]), each["column_names"], each["unique"]) for each in found.get_indexes(table)),
            sorted(each["column_names"] for each in found.get_unique_constraints(table)),
        )
        for table in sorted(found.get_table_names())
    }


@pytest.mark.parametrize("create", [True, False], ids=["to send", "to look"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ledger_of_the_first_version_is_upgraded_with_all_that_is_in_it(
    kind: str, create: bool, tmp_path: Path
) -> None:
    place = place_for(kind, tmp_path)
    make_version_1(place)
    ledger = open_ledger(place, create=create)
    try:
        assert [(row.phone, row.status) for row in ledger.results(1)] == [
            (ANNA, "accepted"),
            (BORIS, "pending"),
            (ANNA, "skipped"),
        ]
        assert [phone for phone, _, _ in ledger.suppressions()] == ["905320000099"]
        assert ledger.recent_starts(1, 0, 10) == [7]
        ledger.recover(1)
        run = Run(ledger, 1, Clock())
        (claim,) = run.claim()
        assert run.begin(claim) == {}
        run.finish(claim, ACCEPTED, Status.ACCEPTED)
        assert ledger.counts(1).by_status == {Status.ACCEPTED: 2, Status.SKIPPED: 1}
        plan(ledger, audience(ANNA, BORIS, ANNA, CEM))
        assert ledger.counts(1).by_status == {Status.ACCEPTED: 2, Status.SKIPPED: 1, Status.PENDING: 1}
    finally:
        ledger.close()
    with connected(place) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(text("SELECT value FROM meta WHERE key = 'version'")).scalar_one() == SCHEMA_VERSION


@pytest.mark.parametrize("kind", KINDS)
def test_four_processes_that_upgrade_at_once_do_it_once(kind: str, tmp_path: Path) -> None:
    place = place_for(kind, tmp_path)
    make_version_1(place)
    assert len(open_in_processes(place)) == 1
    with connected(place) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [(SCHEMA_VERSION.zfill(4),)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_ledger_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    place = place_for(kind, tmp_path)
    ledger = open_ledger(place, create=True)
    plan(ledger, audience(ANNA))
    ledger.close()
    with connected(place) as connection:
        connection.execute(text("UPDATE meta SET value = '999' WHERE key = 'version'"))
    for create in (True, False):
        with pytest.raises(LedgerError, match="has version 999, this program reads version"):
            open_ledger(place, create=create)


def test_a_ledger_of_today_is_opened_without_the_library_for_upgrades(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from runner.ledger import open_ledger\n"
        "for _ in range(2): open_ledger(Path(sys.argv[1]), create=True).close()\n"
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "ledger.sqlite3")], check=True)
