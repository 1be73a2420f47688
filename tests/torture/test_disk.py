"""Disks that fill up, refuse or fail: sending stops before the next byte, nothing is doubled, and the message says what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disk import (
    FULL,
    Bench,
    check_every_request_was_recorded,
    check_the_ledger_tells_the_truth,
    fill,
    impossible,
    need_root,
    open_database,
    program,
    provider,
    sends,
    sized,
    small_disk,
    until,
)

from runner.errors import LedgerError
from runner.ledger.sqlite import open_sqlite
from runner.sandbox import Scenario

ADVICE = re.compile(r"fix: |free some space|make the file|choose another|move .* away|use the program's version")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workspace of its own; commands still running at the end of the test are ended."""
    made = Bench(tmp_path / "workspace")
    (made.root / "campaigns").mkdir(parents=True)
    try:
        yield made
    finally:
        made.close()


# --- a disk that fills up ---------------------------------------------------------------------------------------------


@contextmanager
def filled_while_sending(bench: Bench, rows: int) -> Iterator[list[str]]:
    """The disk under reports/ is filled while 20 requests wait for their answers. Yields who was sent to."""
    slow = Scenario(magic=False, latency=(1.0, 1.0))
    with small_disk(bench.reports, 2048), provider(slow) as box:
        bench.people(rows)
        bench.campaign(box.url)
        running = bench.start("send", "campaigns/spring.yaml", "--yes")
        until(lambda: len(sends(box)) >= 40, 60, "two rounds of requests")
        ballast = fill(bench.reports)
        ended = running.wait()
        asked = [entry.phone for entry in sends(box)]
        ended.must(3)
        assert "full" in ended.said or "no room" in ended.said
        assert ADVICE.search(ended.said), ended.said
        assert 40 <= len(asked) < rows
        check_every_request_was_recorded(bench, box)
        yield asked
        ballast.unlink(missing_ok=True)
        bench.send_here().must(0, 1)
        check_every_request_was_recorded(bench, box)
        assert len(sends(box)) == rows
        assert len(bench.statuses()) == rows


def test_a_full_disk_stops_the_sending_and_loses_no_outcome_of_the_requests_on_the_wire(bench: Bench) -> None:
    with filled_while_sending(bench, 200) as asked:
        status = {str(phone): word for phone, word in bench.ask("SELECT phone, status FROM recipients")}
        assert {phone: status[phone] for phone in asked} == dict.fromkeys(asked, "accepted")


@pytest.mark.parametrize("kilobytes", sized([64, 4, 160], 1))
def test_a_disk_that_is_full_from_the_start_is_named_before_anything_is_sent(bench: Bench, kilobytes: int) -> None:
    with small_disk(bench.reports, kilobytes), provider() as box:
        bench.people(1000)
        bench.campaign(box.url)
        ended = bench.send().must(2, 3)
        assert ADVICE.search(ended.said), ended.said
        assert sends(box) == []


def test_a_disk_with_less_room_than_is_kept_in_reserve_is_named_before_anything_is_sent(bench: Bench) -> None:
    with small_disk(bench.reports, 2048), provider() as box:
        bench.people(300)
        bench.campaign(box.url)
        bench.send_here("--limit", "1").must(0)
        fill(bench.reports).unlink()
        (bench.reports / "ballast").write_bytes(bytes(2048 * 1024 - used(bench.reports) - 400 * 1024))
        ended = bench.send_here().must(3)
        assert ADVICE.search(ended.said), ended.said
        assert len(sends(box)) == 1


def used(folder: Path) -> int:
    """Bytes taken on the disk of `folder`."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


# --- places that cannot be written ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unprivileged() -> list[str]:
    """root may write everywhere: what to put before the command, so that file modes count for it too."""
    if os.geteuid() != 0:
        return []
    return [program("setpriv", "util-linux"), "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize(
    "place",
    [
        "reports is a file",
        "reports is read-only",
        "the workspace is read-only",
        "the ledger is read-only",
        "the campaign's folder is read-only",
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sent(
    bench: Bench, unprivileged: list[str], place: str
) -> None:
    with provider() as box:
        bench.people(3)
        bench.campaign(box.url)
        if place not in ("reports is a file", "the workspace is read-only"):
            bench.send_here("--limit", "1").must(0)
        before = len(sends(box))
        if place == "reports is a file":
            bench.reports.write_text("not a folder")
        elif place == "reports is read-only":
            bench.reports.chmod(0o500)
        elif place == "the workspace is read-only":
            bench.root.chmod(0o500)
        elif place == "the ledger is read-only":
            bench.ledger.chmod(0o400)
        else:
            (bench.reports / "spring").chmod(0o500)
        ended = bench.send(before=unprivileged).must(2, 3)
        for folder in (bench.root, bench.reports, bench.reports / "spring"):
            if folder.is_dir():
                folder.chmod(0o700)
        assert len(sends(box)) == before
        assert len(ended.err.strip().splitlines()) <= 4
        assert str(bench.reports) in ended.err or "ledger" in ended.err
        assert ADVICE.search(ended.said), ended.said


def test_a_ledger_that_is_garbage_is_refused_and_left_as_it_is(bench: Bench) -> None:
    with provider() as box:
        bench.people(3)
        bench.campaign(box.url)
        garbage = os.urandom(10_000)
        bench.write("reports/ledger.sqlite3", garbage)
        ended = bench.send().must(3)
        assert "not a ledger" in ended.said
        assert bench.ledger.read_bytes() == garbage
        assert sends(box) == []


def test_a_damaged_ledger_is_refused_with_advice(bench: Bench) -> None:
    with provider() as box:
        bench.people(300)
        bench.campaign(box.url)
        bench.send_here("--limit", "1").must(0)
        content = bytearray(bench.ledger.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        bench.ledger.write_bytes(content)
        ended = bench.send().must(3)
        assert ADVICE.search(ended.said), ended.said
        assert len(sends(box)) == 1


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(bench: Bench) -> None:
    with provider() as box:
        bench.people(3)
        bench.campaign(box.url)
        bench.send_here("--limit", "1").must(0)
        with open_database(bench.ledger) as connection:
            connection.execute("UPDATE meta SET value = '999' WHERE key = 'version'")
            connection.commit()
        before = bench.ledger.read_bytes()
        ended = bench.send().must(3)
        assert "version" in ended.err
        assert ADVICE.search(ended.said), ended.said
        assert bench.ledger.read_bytes() == before
        assert len(sends(box)) == 1


def test_a_database_of_another_program_is_refused_and_left_as_it_is(bench: Bench) -> None:
    with provider() as box:
        bench.people(3)
        bench.campaign(box.url)
        bench.reports.mkdir()
        with open_database(bench.ledger) as connection:
            connection.execute("CREATE TABLE customers (name TEXT)")
            connection.commit()
        ended = bench.send().must(3)
        assert "ledger" in ended.err
        with open_database(bench.ledger) as connection:
            assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("customers",)]
        assert sends(box) == []


def test_a_ledger_that_another_program_holds_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = open_sqlite(path, create=True, busy=0.3)
    try:
        with open_database(path) as other:
            other.execute("BEGIN EXCLUSIVE")
            for act in (lambda: ledger.suppress(["905320000001"], "test"), ledger.suppressions, ledger.campaigns):
                with pytest.raises(LedgerError, match="fix: another program holds the file"):
                    act()
            other.rollback()
        assert ledger.suppress(["905320000001"], "test") == 1
    finally:
        ledger.close()


def test_a_held_ledger_stops_a_live_run_and_the_next_one_goes_on(bench: Bench) -> None:
    """The command itself, with the short time-out put in before it starts."""
    short = "import runner.ledger.sqlite as s; s.open_sqlite.__kwdefaults__['busy'] = 0.5; from runner.cli import main; main()"
    slow = Scenario(magic=False, latency=(0.2, 0.2))
    with provider(slow) as box:
        bench.people(200)
        bench.campaign(box.url)
        running = bench.start_code(short, "send", "campaigns/spring.yaml", "--yes")
        until(lambda: len(sends(box)) >= 20, 60, "the first requests")
        with open_database(bench.ledger) as other:
            other.execute("BEGIN EXCLUSIVE")
            ended = running.wait()
            other.rollback()
        ended.must(3)
        assert "another program holds the file" in ended.said
        check_every_request_was_recorded(bench, box)
        bench.send_here().must(0, 1)
        check_every_request_was_recorded(bench, box)
        assert len(sends(box)) == 200


# --- a disk that fails ------------------------------------------------------------------------------------------------

FAULTS = [
    *(("pwrite64", "ENOSPC", n) for n in (1, 4, 16, 40, 70, 100)),
    *(("pwrite64", "EIO", n) for n in (2, 8, 30, 60, 90)),
    *(("fsync,fdatasync", "EIO", n) for n in (1, 2, 5, 9, 14, 20, 30)),
    *(("fsync,fdatasync", "ENOSPC", n) for n in (1, 3, 12)),
]
CHOSEN = [
    ("pwrite64", "ENOSPC", 16),
    ("pwrite64", "EIO", 60),
    ("fsync,fdatasync", "EIO", 1),
    ("fsync,fdatasync", "ENOSPC", 14),
]


@pytest.fixture(scope="module")
def strace() -> str:
    """The program that makes system calls fail; checked, because containers may forbid it."""
    need_root()
    path = program("strace", "strace")
    if subprocess.run(
        [path, "-qq", "-o", os.devnull, shutil.which("true") or "true"], capture_output=True, check=False
    ).returncode:
        impossible("strace may not trace here")
    return path


@pytest.mark.parametrize(("calls", "error", "nth"), FAULTS if FULL else CHOSEN)
def test_every_failing_write_ends_the_run_in_words_and_nothing_is_doubled(
    bench: Bench, strace: str, calls: str, error: str, nth: int
) -> None:
    """From the n-th call on, the disk fails for good; after the repair the next run finishes the campaign."""
    rows = 30
    with provider() as box:
        bench.people(rows)
        bench.campaign(box.url, send={"concurrency": 2})
        trace = bench.root / "trace"
        inject = [
            strace,
            "-f",
            "-qq",
            "-o",
            str(trace),
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={calls}:error={error}:when={nth}+",
        ]
        ended = bench.send(before=inject)
        if "INJECTED" not in trace.read_text():
            pytest.fail(f"the run ended before call {nth}: {ended}")
        ended.must(3 if sends(box) else 2, 3)
        assert ADVICE.search(ended.said), ended.said
        assert len(sends(box)) < rows
        check_every_request_was_recorded(bench, box) if sends(box) else None
        taken = len(sends(box))
        bench.send_here().must(0, 1)
        check_the_ledger_tells_the_truth(bench, box, ("accepted", "unknown"))
        assert len(sends(box)) == rows
        unknown = sum(word == "unknown" for word in bench.statuses().values())
        assert unknown <= min(2, taken)  # the concurrency
