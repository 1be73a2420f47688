"""What is particular to the embedded ledger: one file, its rights, its locks, and what is left when it is not there."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import ACCEPTED, ANNA, BORIS, Clock, Run, audience, draft, plan
from sqlalchemy import event, text

from runner.errors import LedgerError, UnknownCampaignError
from runner.ledger import open_ledger
from runner.ledger import sqlite as sqlite_ledger
from runner.ledger.base import Finish, Intent
from runner.ledger.bulk import AT_ONCE
from runner.ledger.sqlite import open_sqlite
from runner.model import Status


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reports" / "ledger.sqlite3"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_and_its_folder_are_private_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        ledger = open_ledger(path, create=True)
        plan(ledger, audience(ANNA))
        ledger.close()
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert sorted(each.name for each in path.parent.iterdir()) == ["ledger.sqlite3"]


def test_a_missing_ledger_reads_as_an_empty_one_and_leaves_nothing_behind(path: Path) -> None:
    ledger = open_ledger(path, create=False)
    assert ledger.campaigns() == []
    assert ledger.suppressions() == []
    with pytest.raises(UnknownCampaignError, match="none yet"):
        ledger.campaign("spring")
    for _ in range(2):
        with ledger.stage() as staging:
            staging.add(audience(ANNA, BORIS, ANNA))
            staging.settle("spring", "first")
            assert ledger.campaigns() == []  # while a plan is being looked at
            assert len(ledger.fingerprint("token")) == 24
            assert staging.difference().to_send == 2
    ledger.close()
    assert list(path.parent.parent.iterdir()) == []


def test_missing_ledgers_do_not_share_anything(path: Path) -> None:
    first, second = open_ledger(path, create=False), open_ledger(path, create=False)
    first.suppress([ANNA], "practice")
    assert [phone for phone, _, _ in first.suppressions()] == [ANNA]
    assert second.suppressions() == []
    first.close()
    second.close()


def test_a_dry_run_leaves_an_existing_ledger_as_it_was(path: Path) -> None:
    ledger = open_ledger(path, create=True)
    plan(ledger, audience(ANNA))
    ledger.close()
    before = path.read_bytes()
    looking = open_ledger(path, create=False)
    with looking.stage() as staging:
        staging.add(audience(ANNA, BORIS))
        staging.settle("spring", "first")
        assert staging.difference().to_send == 2
        staging.fingerprint(b"")
    looking.close()
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["ledger.sqlite3"]


def test_an_empty_file_that_a_killed_program_left_reads_as_an_empty_ledger(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    ledger = open_ledger(path, create=False)
    assert ledger.campaigns() == []
    ledger.close()
    assert path.stat().st_size == 0
    ledger = open_ledger(path, create=True)
    plan(ledger, audience(ANNA))
    ledger.close()


@pytest.mark.parametrize("name", ["a b", "ÖÇŞ", "100%", "why?", "a#b", "a&b=c", "%20"])
def test_the_ledger_lies_where_it_was_asked_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "ledger.sqlite3"
    ledger = open_ledger(path, create=True)
    plan(ledger, audience(ANNA))
    ledger.close()
    assert path.stat().st_size > 0
    assert sorted(each.name for each in tmp_path.iterdir()) == [name]


def test_a_locked_ledger_says_so_and_what_to_do(path: Path) -> None:
    ledger = open_sqlite(path, create=True, busy=0.1)
    plan(ledger, audience(ANNA))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(LedgerError) as caught:
            ledger.suppress([ANNA], "by hand")
        assert "the ledger ledger.sqlite3 cannot be used: database is locked" in str(caught.value)
        assert "fix: another program holds the file; close it" in str(caught.value)
        with pytest.raises(LedgerError, match="database is locked"):
            ledger.campaigns()
        with pytest.raises(LedgerError, match="database is locked"):
            open_sqlite(path, create=True, busy=0.1)
    finally:
        other.close()
    assert ledger.suppress([ANNA], "by hand") == 1
    ledger.close()


@pytest.mark.parametrize("campaigns", [["spring"], ["spring", "summer"], ["spring", "spring"]])
def test_whatever_was_planned_the_database_itself_refuses_a_number_twice(path: Path, campaigns: list[str]) -> None:
    ledger = open_ledger(path, create=True)
    for name in campaigns:
        plan(ledger, audience(ANNA, BORIS), name=name)
    ledger.close()
    with sqlite3.connect(path) as database, pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        database.execute(
            "INSERT INTO recipients (campaign_id, position, row, phone, status) "
            "SELECT campaign_id, 9, 9, phone, 'pending' FROM recipients LIMIT 1"
        )


def test_late_in_a_run_a_claim_does_not_go_past_everybody_who_is_settled(path: Path) -> None:
    """Seen: the database took the order of all rows for the way, and a run of a million took twice as long."""
    ledger = open_sqlite(path, create=True)
    run = Run(ledger, plan(ledger, audience(*(f"9053{i:08d}" for i in range(3000)))), Clock())
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    event.listen(ledger._engine, "checkout", lambda driver, *_: driver.set_progress_handler(count, 10))

    def taken(call: Callable[[], object]) -> int:
        nonlocal steps
        steps = 0
        call()
        return steps

    early = taken(lambda: run.claim(10))
    with ledger.writing() as connection:
        connection.execute(text("UPDATE recipients SET status = 'accepted' WHERE position < 2900"))
    assert taken(lambda: run.claim(10)) < 2 * early
    assert taken(lambda: ledger.next_due(run.hold)) < 500  # of a hundred who wait; of all rows it is ten times as many
    ledger.close()


def test_a_plan_that_cannot_be_adopted_changes_nothing_and_can_be_tried_again(path: Path) -> None:
    ledger = open_sqlite(path, create=True, busy=0.1)
    campaign = plan(ledger, audience(ANNA))
    other = sqlite3.connect(path, isolation_level=None)
    with ledger.stage() as staging:
        staging.add(audience(ANNA, BORIS))
        staging.settle("spring", "first")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="database is locked"):
            ledger.adopt(staging, draft())
        other.execute("ROLLBACK")
        assert ledger.counts(campaign).by_status == {Status.PENDING: 1}
    other.close()
    plan(ledger, audience(ANNA, BORIS))
    assert ledger.counts(campaign).by_status == {Status.PENDING: 2}
    ledger.close()


def test_a_file_that_is_no_ledger_is_refused_in_words(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("phone,name\n" * 100)
    for create in (True, False):
        with pytest.raises(
            LedgerError, match=r"file is not a database\n    fix: this is not a ledger; move the file away"
        ):
            open_ledger(path, create=create)


def test_a_ledger_of_another_version_is_refused(path: Path) -> None:
    open_ledger(path, create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '999' WHERE key = 'version'")
    connection.close()
    with pytest.raises(LedgerError, match="has version 999, this program reads version"):
        open_ledger(path, create=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match="cannot be opened for writing"):
        open_ledger(tmp_path / "reports" / "ledger.sqlite3", create=True)
    tmp_path.chmod(0o700)


def test_a_symbolic_link_in_the_ledgers_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="cannot be opened for writing"):
        open_ledger(path, create=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_named_as_such(path: Path) -> None:
    ledger = open_sqlite(path, create=True, clock=Clock())
    plan(ledger, audience(ANNA))
    with ledger.stage() as staging:
        staging.add(audience(*(f"9053{i:08d}" for i in range(500))))
        staging.settle("spring", "first")
        pages = staging.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        staging.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # of this connection only
        staging.rest()
        with pytest.raises(LedgerError, match=r"(?s)database or disk is full.*free some space"):
            ledger.adopt(staging, draft())
    assert ledger.counts(ledger.campaign("spring").id).total == 1
    ledger.close()


def test_a_batch_has_the_same_number_of_statements_whatever_its_size(path: Path) -> None:
    """The driver waits for the interpreter's lock after each: one for each row would take a second beside a busy event loop."""
    clock = Clock()
    ledger = open_sqlite(path, create=True, clock=clock)
    run = Run(ledger, plan(ledger, audience(*(f"90532{i:07d}" for i in range(120)))), clock)
    said: list[str] = []

    @event.listens_for(ledger._engine, "checkout")
    def _trace(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_trace_callback(said.append)

    counts, begun = [], run.claim(3)
    run.begin(*begun)
    for n in (5, 100):
        said.clear()
        claims = run.claim(n)
        assert len(claims) == n
        done = [Finish(claim.id, 1, ACCEPTED, Status.ACCEPTED, clock()) for claim in begun]
        assert ledger.apply(run.hold, done, [Intent(claim, clock()) for claim in claims]).refused == {}
        counts.append(len(said))
        begun = claims
    assert counts[0] == counts[1]
    assert counts[0] < 30
    ledger.close()


@pytest.mark.parametrize("n", [1, 3, 64, 65, AT_ONCE + 1])
def test_a_batch_is_recorded_whole_and_nothing_else_is(path: Path, n: int) -> None:
    """Rows go to the database in statements of a power of two: what fills one up must do nothing."""
    ledger = open_sqlite(path, create=True)
    run = Run(ledger, plan(ledger, audience(*(f"90532{i:07d}" for i in range(n + 2)))), Clock())
    claims = run.claim(n)
    assert run.begin(*claims) == {}
    done = [Finish(claim.id, 1, replace(ACCEPTED, queue_id=f"q{claim.id}"), Status.ACCEPTED, 1) for claim in claims]
    ledger.apply(run.hold, done, [])
    ledger.close()
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT id, status, queue_id FROM recipients ORDER BY id").fetchall()
        tries = database.execute("SELECT recipient_id, number, verdict FROM attempts ORDER BY recipient_id").fetchall()
    assert rows[:n] == [(claim.id, "accepted", f"q{claim.id}") for claim in claims]
    assert [row[1:] for row in rows[n:]] == [("pending", "")] * 2
    assert tries == [(claim.id, 1, "accepted") for claim in claims]


def test_a_message_writes_as_much_whatever_the_order_of_the_numbers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: every change of status rewrote an index over the numbers, on a page of its own when they are in no order."""
    # A log of all written pages, which the ledger does not have by itself: here it counts them.
    counting = ("journal_mode = WAL", "wal_autocheckpoint = 0")
    monkeypatch.setattr(sqlite_ledger, "PRAGMAS", (*sqlite_ledger.PRAGMAS, *counting))
    written = []
    for name, step in (("in-order", 1), ("in-no-order", 7_919)):  # a prime: every number once
        ledger = open_sqlite(path.with_name(f"{name}.sqlite3"), create=True)
        run = Run(ledger, plan(ledger, audience(*(f"90532{i * step % 20_000:07d}" for i in range(20_000)))), Clock())
        log = path.with_name(f"{name}.sqlite3-wal")
        before = log.stat().st_size
        for _ in range(4):
            claims = run.claim(50)
            assert run.begin(*claims) == {}
            done = [Finish(claim.id, 1, ACCEPTED, Status.ACCEPTED, 1) for claim in claims]
            ledger.apply(run.hold, done, [])
        written.append(log.stat().st_size - before)
        ledger.close()
    assert written[0] > 0
    assert written[1] < 1.2 * written[0]


def test_only_a_skipped_row_can_let_go_of_its_number(path: Path) -> None:
    ledger = open_ledger(path, create=True)
    plan(ledger, audience(ANNA, BORIS, ANNA))
    ledger.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT status, live FROM recipients").fetchall() == [
            ("pending", 1),
            ("pending", 1),
            ("skipped", 0),
        ]
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            database.execute("UPDATE recipients SET live = 0 WHERE id = 1")
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            database.execute("UPDATE recipients SET status = 'pending' WHERE id = 3")
