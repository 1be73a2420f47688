"""The real command with its ledger in a real PostgreSQL. The judge is the stand-in provider's own log."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import postgres
import pytest

from acceptance.workbench import Finished, OpenSandbox, Running, Workbench, by_phone, numbers, until
from runner.sandbox import Sandbox, Scenario

SLOW = Scenario(magic=False, latency=(0.15, 0.15))
IMPATIENT = (
    "import runner.ledger.postgres as p; p.open_postgres.__kwdefaults__['patience'] = 1.5; "
    "from runner.cli import main; main()"
)


@pytest.fixture
def url(bench: Workbench) -> str:
    """A new database, named in the workspace's .env as a person would."""
    url = postgres.shared().database(empty=True)
    bench.write(".env", f"CAMPAIGN_LEDGER={url}\n")
    return url


@pytest.fixture(scope="module")
def fragile() -> Iterator[postgres.Server]:
    """A server that a test may stop."""
    server = postgres.start_server()
    yield server
    server.close()


def people(*phones: str) -> list[tuple[str, str]]:
    return [(f"+{phone}", f"n{phone[-3:]}") for phone in phones]


def begun_slowly(
    bench: Workbench, open_sandbox: OpenSandbox, count: int, concurrency: int = 8
) -> tuple[str, Sandbox, Running]:
    """A campaign that is being sent: some requests have been answered, most have not been made."""
    box = open_sandbox(SLOW)
    bench.audience(people(*numbers(count)))
    campaign = bench.campaign(box.url, send={"rate": "unlimited", "concurrency": concurrency})
    running = bench.start("send", campaign, "--yes")
    until(lambda: len(box.log) >= 16 or running.process.poll() is not None, what="16 requests")
    return campaign, box, running


def test_three_hundred_people_get_their_message_once_and_the_workspace_has_no_ledger_file(
    bench: Workbench, box: Sandbox, url: str
) -> None:
    phones = numbers(300)
    bench.audience(people(*phones))
    campaign = bench.campaign(box.url, send={"rate": "unlimited"})
    planned = bench.run("plan", campaign).must(0)
    name = url.rsplit("/", 1)[1]
    assert postgres.shared().execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", name) == []
    sent = bench.send(campaign).must(0)
    assert sorted(by_phone(box)) == phones
    assert set(bench.statuses().values()) == {"accepted"}
    assert "Nothing to send" in bench.send(campaign).must(0).out
    assert len(box.log) == 300
    assert list((bench.root / "reports").glob("*.sqlite3")) == []
    assert "pass" not in "".join(done.out + done.err for done in (planned, sent))
    assert "accepted  300" in bench.run("status", "spring").must(0).out


def test_practice_stays_out_of_the_shared_ledger(bench: Workbench, url: str) -> None:
    bench.audience(people(*numbers(5)))
    campaign = bench.campaign()
    bench.send(campaign, "--sandbox").must(0)
    name = url.rsplit("/", 1)[1]
    assert postgres.shared().execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", name) == []
    assert (bench.root / "reports" / "sandbox.sqlite3").is_file()


def test_of_two_runners_in_two_workspaces_one_sends(
    bench: Workbench, open_sandbox: OpenSandbox, url: str, tmp_path: Path
) -> None:
    campaign, box, running = begun_slowly(bench, open_sandbox, 150, concurrency=1)
    other = Workbench(tmp_path / "elsewhere", bench.environment, bench.stack)
    other.audience(people(*numbers(150)))
    other.campaign(box.url, send={"rate": "unlimited", "concurrency": 50})
    refused = other.send(campaign, "--ledger", url).must(4)
    assert f"process {running.process.pid} on " in refused.err
    running.signal(signal.SIGTERM)
    running.wait().must(130)
    other.send(campaign, "--ledger", url).must(0)
    assert sorted(by_phone(box)) == numbers(150)
    assert set(other.statuses().values()) == {"accepted"}


def test_after_a_kill_the_next_send_goes_on(bench: Workbench, open_sandbox: OpenSandbox, url: str) -> None:
    campaign, box, running = begun_slowly(bench, open_sandbox, 150)
    running.signal(signal.SIGKILL)
    running.wait()
    _once_the_lock_is_free(bench, campaign)
    statuses = bench.statuses()
    unknown = {phone for phone, status in statuses.items() if status == "unknown"}
    assert len(unknown) <= 8
    assert {status for phone, status in statuses.items() if phone not in unknown} == {"accepted"}
    seen = by_phone(box)  # nobody twice
    assert set(numbers(150)) - set(seen) <= unknown


def _once_the_lock_is_free(bench: Workbench, campaign: str) -> Finished:
    """The server notices a killed holder at once, but not before it has been told by the operating system."""
    deadline = time.monotonic() + 20
    while True:
        done = bench.send(campaign)
        if done.code != 4 or time.monotonic() > deadline:
            return done.must(1 if "unknown" in done.out else 0)


def test_a_server_that_is_restarted_in_the_middle_holds_the_run_up_and_nothing_more(
    bench: Workbench, open_sandbox: OpenSandbox, fragile: postgres.Server
) -> None:
    bench.write(".env", f"CAMPAIGN_LEDGER={fragile.database()}\n")
    _, box, running = begun_slowly(bench, open_sandbox, 150)
    fragile.stop()
    time.sleep(1.0)  # what was on the way is answered, and nothing new may leave
    during = len(box.log)
    time.sleep(0.5)
    assert len(box.log) == during
    fragile.start()
    done = running.wait().must(0)
    assert sorted(by_phone(box)) == numbers(150)
    assert set(bench.statuses().values()) == {"accepted"}
    assert "the ledger is away" in done.err
    assert "the ledger is back" in done.err


def test_a_server_that_stays_away_ends_the_run_and_nothing_is_sent_after(
    bench: Workbench, open_sandbox: OpenSandbox, fragile: postgres.Server
) -> None:
    bench.write(".env", f"CAMPAIGN_LEDGER={fragile.database()}\n")
    box = open_sandbox(SLOW)
    bench.audience(people(*numbers(100)))
    campaign = bench.campaign(box.url, send={"rate": "unlimited", "concurrency": 8})
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "send", campaign, "--yes"],
        cwd=bench.root,
        env=bench.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Running(process)
    bench.stack.callback(running.close)
    until(lambda: len(box.log) >= 20 or process.poll() is not None, what="20 requests")
    fragile.stop()
    try:
        time.sleep(0.5)
        during = len(box.log)
        done = running.wait().must(3)
        assert len(box.log) == during
        assert "fix: start the server" in done.err + done.out
        assert "Traceback" not in done.err
        refused = bench.send(campaign).must(3)
        assert "Connection refused" in refused.err
        assert "pass" not in done.err + done.out + refused.err
    finally:
        fragile.start()
    bench.send(campaign)
    statuses = bench.statuses()
    unknown = {phone for phone, status in statuses.items() if status == "unknown"}
    assert len(unknown) <= 8
    assert set(numbers(100)) - set(by_phone(box)) <= unknown


def test_a_ledger_that_was_copied_knows_who_was_sent_what(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(40)))
    campaign = bench.campaign(box.url, send={"rate": "unlimited"})
    bench.send(campaign, "--limit", "30").must(0)
    bench.run("optout", "add", "+905320000035").must(0)
    url = postgres.shared().database(empty=True)
    copied = bench.run("ledger", "copy", "reports/ledger.sqlite3", url, "--json").must(0).json()
    assert (copied["rows"]["recipients"], copied["rows"]["attempts"], copied["rows"]["suppressions"]) == (40, 30, 1)
    assert "pass" not in str(copied)
    bench.write(".env", f"CAMPAIGN_LEDGER={url}\n")
    bench.send(campaign).must(0)
    assert len(by_phone(box)) == 39
    assert "Nothing to send" in bench.send(campaign).must(0).out
    full = bench.run("ledger", "copy", "reports/ledger.sqlite3", "-").must(3)
    assert "is not empty" in full.err
    back = bench.run("ledger", "copy", "-", "back.sqlite3").must(0)
    assert "pass" not in back.out + back.err
    assert "Nothing to send" in bench.send(campaign, "--ledger", "back.sqlite3").must(0).out
    with closing(sqlite3.connect(bench.root / "back.sqlite3")) as file:
        assert file.execute("SELECT count(*) FROM attempts").fetchone() == (39,)


def test_a_ledger_in_use_is_not_copied(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    _, _, running = begun_slowly(bench, open_sandbox, 150)
    refused = bench.run("ledger", "copy", "reports/ledger.sqlite3", "copy.sqlite3").must(4)
    assert f"process {running.process.pid} on " in refused.err
    assert not (bench.root / "copy.sqlite3").exists()
    running.signal(signal.SIGTERM)
    running.wait().must(130)


def test_a_ledger_that_cannot_be_reached_stops_every_command_in_words(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(3)))
    campaign = bench.campaign(box.url)
    for command in (["send", campaign, "--yes"], ["status"]):
        done = bench.run(*command, "--ledger", "postgresql://anna:hunter2-x@127.0.0.1:1/campaigns").must(3)
        assert "fix: start the server" in done.err
        assert "hunter2" not in done.err + done.out
    wrong = bench.run("status", "--ledger", "mysql://anna:hunter2-x@db/campaigns").must(2)
    assert "hunter2" not in wrong.err
    assert box.log == []
