"""What is particular to the shared ledger: a server that goes away, answers that are lost, locks across machines, addresses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import postgres
import pytest
from cutproxy import CutProxy
from ledgers import ACCEPTED, ANNA, BORIS, CEM, Clock, Run, audience, plan

from runner.errors import InputError, LedgerError, LockedError, TakenOverError
from runner.ledger import open_ledger
from runner.ledger.address import explain
from runner.ledger.base import Finish
from runner.ledger.postgres import PostgresLedger, open_postgres
from runner.ledger.sql import SqlLedger
from runner.model import Outcome, Status, Verdict

Opener = Callable[..., SqlLedger]


@pytest.fixture
def url() -> str:
    return postgres.shared().database()


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens ledgers that are closed at the end."""
    ledgers: list[SqlLedger] = []

    def open_one(url: str, *, create: bool = True, patience: float = 20.0) -> SqlLedger:
        ledgers.append(open_postgres(url, create=create, clock=Clock(), patience=patience))
        return ledgers[-1]

    yield open_one
    for ledger in ledgers:
        ledger.close()


@pytest.fixture(scope="module")
def fragile() -> Iterator[postgres.Server]:
    """A server that a test may stop; it must start it again."""
    server = postgres.start_server()
    yield server
    server.close()


def run_of(ledger: SqlLedger, *phones: str) -> Run:
    return Run(ledger, plan(ledger, audience(*phones)), Clock())


def rows(ledger: SqlLedger) -> list[tuple[str, int]]:
    return [(row.status, row.attempts) for row in ledger.results(ledger.campaign("spring").id)]


# --- lost answers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(url: str) -> Iterator[CutProxy]:
    proxy = CutProxy(urlsplit(url).port or 0)
    yield proxy
    proxy.close()


def through(proxy: CutProxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")


@pytest.mark.parametrize("times", [1, 3])
def test_a_batch_whose_commit_was_never_confirmed_is_in_the_ledger_once(
    url: str, proxy: CutProxy, opened: Opener, times: int
) -> None:
    ledger = opened(through(proxy, url))
    told: list[str] = []
    ledger.tell = told.append
    run = run_of(ledger, ANNA, BORIS)
    proxy.lose(b"COMMIT", times)
    claims = run.claim()
    assert [claim.message.phone for claim in claims] == [ANNA, BORIS]
    proxy.lose(b"COMMIT", times)
    assert run.begin(*claims) == {}
    assert rows(ledger) == [("in_flight", 1)] * 2
    assert len(ledger.recent_starts(run.sender, 0, 10)) == 2
    proxy.lose(b"COMMIT", times)
    run.finish(claims[0], ACCEPTED, Status.ACCEPTED)
    assert rows(ledger) == [("accepted", 1), ("in_flight", 1)]
    assert proxy.lost == 3 * times
    assert told.count("the ledger is back") == 3


def test_a_batch_that_never_reached_the_server_is_written_then(url: str, proxy: CutProxy, opened: Opener) -> None:
    ledger = opened(through(proxy, url))
    run = run_of(ledger, ANNA)
    (claim,) = run.claim()
    proxy.lose(b"UPDATE recipients SET status = 'in_flight'")
    assert run.begin(claim) == {}
    assert proxy.lost == 1
    assert rows(ledger) == [("in_flight", 1)]


# --- a server that is away --------------------------------------------------------------------------------------------


def test_a_run_waits_for_a_server_that_comes_back(fragile: postgres.Server, opened: Opener) -> None:
    ledger = opened(fragile.database())
    told: list[str] = []
    ledger.tell = told.append
    run = run_of(ledger, ANNA, BORIS)
    claims = run.claim()
    fragile.stop()
    back = threading.Timer(1.0, fragile.start)
    back.start()
    assert run.begin(*claims) == {}
    assert rows(ledger) == [("in_flight", 1)] * 2
    back.join()
    assert [text.split(":")[0] for text in told] == [
        "the ledger is away, nothing is sent until it is back",
        "the ledger is back",
    ]
    assert postgres.PASSWORD not in "".join(told)


def test_a_server_that_stays_away_ends_the_run_after_the_patience_and_only_once(
    fragile: postgres.Server, opened: Opener
) -> None:
    ledger = opened(fragile.database(), patience=2)
    run = run_of(ledger, ANNA)
    (claim,) = run.claim()
    fragile.stop(at_once=False)
    try:
        begun = time.monotonic()
        with pytest.raises(LedgerError, match=r"(?s)Connection refused.*fix: start the server.*waited"):
            run.begin(claim)
        assert 1.8 < time.monotonic() - begun < 30
        begun = time.monotonic()
        with pytest.raises(LedgerError, match="Connection refused"):
            ledger.release(run.hold, [claim.id])
        assert time.monotonic() - begun < 1.8  # the patience is used up
    finally:
        fragile.start()
    assert run.begin(claim) == {}


# --- one run of a campaign at a time ----------------------------------------------------------------------------------


def test_a_campaign_is_held_by_one_on_all_machines_and_the_others_read_by_whom(url: str, opened: Opener) -> None:
    first, second = opened(url), opened(url)
    with first.campaign_lock("spring", "process 42 on anna-laptop"):
        with pytest.raises(LockedError, match="spring is being sent by process 42 on anna-laptop"):  # noqa: SIM117 - in turn
            with second.campaign_lock("spring", "process 1 on here"):
                pass
        with second.campaign_lock("autumn", "process 1 on here"):
            pass
    with second.campaign_lock("spring", "process 1 on here"):
        pass


HOLD = """
import sys
from runner.ledger.postgres import open_postgres
ledger = open_postgres(sys.stdin.readline().strip(), create=False)
with ledger.campaign_lock("spring", "process %d on another machine" % __import__("os").getpid()):
    sys.stdout.write("held\\n"); sys.stdout.flush()
    sys.stdin.readline()
"""


def test_the_lock_of_a_killed_holder_is_free(url: str, opened: Opener) -> None:
    ledger = opened(url)
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(url + "\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"process {holder.pid} on another machine"):  # noqa: SIM117 - in turn
        with ledger.campaign_lock("spring", "me"):
            pass
    holder.kill()
    holder.communicate()
    deadline = time.monotonic() + 10
    while True:
        try:
            with ledger.campaign_lock("spring", "me"):
                break
        except LockedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_run_whose_lock_was_lost_is_stopped_by_the_one_that_takes_over(url: str, opened: Opener) -> None:
    first, second = opened(url), opened(url)
    with first.campaign_lock("spring", "the first"):
        old = run_of(first, ANNA, BORIS, CEM)
        flying, waiting, _ = old.claim()
        old.begin(flying)
        postgres.shared().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the first'"
        )
        deadline = time.monotonic() + 10
        while postgres.shared().execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'the first'"):
            assert time.monotonic() < deadline
        with second.campaign_lock("spring", "the second"):
            second.recover(old.campaign)
            new = Run(second, old.campaign, Clock())
            assert old.begin(waiting) == {waiting.id: "taken_over"}
            with pytest.raises(TakenOverError):
                old.claim()
            assert [claim.message.phone for claim in new.claim()] == [BORIS, CEM]
            old.finish(flying, ACCEPTED, Status.ACCEPTED)
    assert rows(second) == [("accepted", 1), ("claimed", 0), ("claimed", 0)]


def test_two_campaigns_can_be_planned_at_the_same_time(url: str, opened: Opener) -> None:
    people = [f"90533{i:07d}" for i in range(500)]
    ledgers = [opened(url) for _ in range(4)]
    together = threading.Barrier(4)

    def adopt(number: int) -> None:
        together.wait()
        plan(ledgers[number], audience(*people), name=f"campaign-{number}")

    threads = [threading.Thread(target=adopt, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        campaign = ledgers[0].campaign(f"campaign-{number}")
        assert ledgers[0].counts(campaign.id).by_status == {Status.PENDING: 500}


# --- durability, and what is stored -----------------------------------------------------------------------------------


def test_a_server_with_asynchronous_commits_by_default_cannot_weaken_the_promise(url: str, opened: Opener) -> None:
    name = url.rsplit("/", 1)[1]
    shared = postgres.shared()
    for default, wanted in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        shared.execute(f"ALTER DATABASE {name} SET synchronous_commit = {default}")
        with opened(url).writing() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == wanted


def test_a_dry_run_leaves_nothing_in_an_empty_database(opened: Opener) -> None:
    url = postgres.shared().database(empty=True)
    for _ in range(2):
        ledger = opened(url, create=False)
        assert ledger.campaigns() == []
        with ledger.stage() as staging:
            staging.add(audience(ANNA, BORIS, ANNA))
            staging.settle("spring", "first")
            assert staging.difference().to_send == 2
    name = url.rsplit("/", 1)[1]
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert postgres.shared().execute(tables, name) == []


def test_a_provider_whose_reply_holds_a_nul_character_does_not_stop_the_run(url: str, opened: Opener) -> None:
    ledger = opened(url)
    run = run_of(ledger, ANNA)
    (claim,) = run.claim()
    run.begin(claim)
    outcome = Outcome(Verdict.REJECTED, "bad_request", code="4\x0000", detail="no\0 such number")
    done = Finish(claim.id, 1, outcome, Status.REJECTED, 1)
    ledger.apply(run.hold, [done], ())
    (row,) = ledger.results(run.campaign)
    assert (row.status, row.code, row.detail) == ("rejected", "4\ufffd00", "no\ufffd such number")


def test_a_database_that_others_use_is_left_alone(opened: Opener) -> None:
    url = postgres.shared().database(empty=True)
    name = url.rsplit("/", 1)[1]
    postgres.shared().execute("CREATE TABLE campaigns (id int)", name)
    for create in (True, False):
        with pytest.raises(LedgerError, match=r"another program's database.*\n    fix: give the ledger a database"):
            opened(url, create=create)


# --- addresses --------------------------------------------------------------------------------------------------------


def away(url: str, old: str, new: str) -> str:
    assert old in url
    return url.replace(old, new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: away(url, "invented", "wrong-one"), r"(?s)authentication failed.*fix: check the user name"),
        (lambda url: away(url, "tester:", "nobody-known:"), r"(?s)authentication failed.*fix: check the user name"),
        (lambda url: url.rsplit("/", 1)[0] + "/nowhere", r"(?s)does not exist.*fix: make the database first"),
        (lambda url: away(url, f":{urlsplit(url).port}/", ":1/"), r"(?s)refused.*fix: start the server"),
        (lambda url: away(url, "127.0.0.1", "no-such-host.invalid"), r"(?s)fix: check the host's name"),
        (lambda url: url + "?sslmode=require", r"(?s)fix: the server has no TLS"),
    ],
    ids=["password", "user", "database", "port", "host", "no TLS"],
)
def test_a_server_that_refuses_says_what_to_mend(url: str, change: Callable[[str], str], message: str) -> None:
    with pytest.raises(LedgerError, match=message) as caught:
        open_ledger(change(url), create=True)
    assert "%2Fword" not in str(caught.value)
    assert "pass/word" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ('server "db" failed: SSL error: certificate verify failed', "authority in sslrootcert"),
        ('server certificate for "a" does not match host name "b"', "use that name"),
        ('root certificate file "/x" does not exist\nEither provide the file or change sslmode', "sslrootcert=FILE"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.9", no encryption', "pg_hba.conf must"),
        ("cannot execute INSERT in a read-only transaction", "name the primary"),
        ("could not extend file: No space left on device", "free some space"),
    ],
)
def test_what_a_server_says_is_told_with_what_to_do(said: str, fix: str) -> None:
    assert fix in explain(said)
    assert said.split("\n", maxsplit=1)[0] in explain(said)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("mysql://anna:hunter2-x@db/campaigns", "no ledger can be kept in 'mysql'"),
        ("sqlite:///reports/ledger.sqlite3", "give the path alone"),
        ("postgresql://anna:hunter2-x@y@db/campaigns", "write @ as %40"),
        ("postgresql://anna:hunter2-x/y@db/campaigns", "write @ as %40"),
        ("postgresql://anna:hunter2-x?y@db/campaigns", "write @ as %40"),
        ("postgresql://anna:hunter2-x%zz@db/campaigns", "write @ as %40"),
        ("postgresql://anna:hunter2-x@db:port/campaigns", "the port is not a number"),
        ("postgresql://anna:hunter2-x@db/campaigns?sslmod=require", "did you mean sslmode"),
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_its_password(place: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_ledger(place, create=False)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_in_nothing_that_is_shown(url: str, opened: Opener) -> None:
    ledger = opened(url)
    assert isinstance(ledger, PostgresLedger)
    shown = [
        repr(ledger),
        ledger.name,
        repr(ledger._engine),
        repr(ledger._address),
        repr(vars(ledger)),
        str(ledger._engine.url),
    ]
    with pytest.raises(LedgerError) as caught, ledger.writing() as connection:
        connection.exec_driver_sql("SELECT * FROM no_such_table")
    shown += [str(caught.value), repr(caught.value.__cause__)]
    for text in shown:
        assert "pass/word" not in text
        assert "%2Fword" not in text
    assert ledger.name.startswith("postgresql://tester@127.0.0.1:")


# --- making and upgrading it ------------------------------------------------------------------------------------------

OPEN = """
import sys
from runner.ledger import open_ledger
from runner.ledger.address import explain
sys.stdout.write("ready\\n"); sys.stdout.flush()
place = sys.stdin.readline().strip()
ledger = open_ledger(place, create=True)
sys.stdout.write(ledger.fingerprint("x")); ledger.close()
"""


def open_in_processes(place: str, n: int = 4) -> set[str]:
    """What so many processes see in a ledger that they open in the same moment."""
    command = [sys.executable, "-c", OPEN]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(place + "\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * n
    return answers


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_ledger_that_four_processes_make_at_once_is_one(kind: str, tmp_path: Path) -> None:
    place = postgres.shared().database(empty=True) if kind == "postgres" else str(tmp_path / "ledger.sqlite3")
    assert len(open_in_processes(place)) == 1


def test_without_the_driver_it_is_said_how_to_install_it(url: str, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not here')")
    code = "from runner.ledger import open_ledger\nimport sys\nopen_ledger(sys.argv[1], create=True)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, check=False, env=environment
    )
    assert 'pip install "campaign-runner[postgres]"' in done.stderr
    assert "%2Fword" not in done.stderr
