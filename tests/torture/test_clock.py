"""A wall clock that is set while the program runs, and between runs: the true clock is the stand-in's, which never jumps.

Two ways of setting it. Inside Python, where only `time.time` and `time.time_ns` move: for everything that jumps or measures.
And with libfaketime, where the whole process reads another time of day, set before it starts: a jump or a timer is beyond it
(measured with 0.9.10 and monotonic time left alone: gaps of 0 to 970 ms instead of 100 ms at 10/s; sleep raises EINVAL).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from disk import FULL, Bench, check_every_request_was_recorded, program, provider, sends, until

from runner.sandbox import RateLimit, Scenario
from runner.sandbox_log import worst_window
from runner.sandbox_scenario import Action, Rule

DAYS_ON, HOUR_BACK, TRUE = 2 * 86_400, -3_600, 0  # seconds


@pytest.fixture(scope="module")
def library() -> str:
    """libfaketime, where the distribution has put it."""
    program("faketime", "faketime")
    for folder in Path("/usr/lib").glob("*/faketime"):
        if (folder / "libfaketime.so.1").exists():
            return str(folder / "libfaketime.so.1")
    return pytest.fail("faketime is installed without its library")


SITE = """
import os, time
if "MOVED_CLOCK" in os.environ:
    def moved(file=os.environ["MOVED_CLOCK"], true=time.time_ns):
        with open(file) as text:
            return true() + int(text.read()) * 10**9
    time.time_ns = moved
    time.time = lambda: moved() / 1e9
"""


class Clock:
    """The time of day as the campaign process reads it: the true one, moved by so many seconds."""

    def __init__(self, folder: Path, library: str | None = None) -> None:
        folder.mkdir()
        self._file = folder / "moved"
        if library is None:
            (folder / "sitecustomize.py").write_text(SITE)
            path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
            self.environment = {"MOVED_CLOCK": str(self._file), "PYTHONPATH": path}
        else:
            self.environment = {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self.set(TRUE)

    def set(self, moved: int) -> None:
        """Set it from now on, in a process at work too."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{moved:+d}\n")
        beside.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Moves the clock inside Python."""
    return Clock(tmp_path / "clock")


@pytest.fixture
def whole_clock(tmp_path: Path, library: str) -> Clock:
    """Moves the clock of the whole process."""
    return Clock(tmp_path / "clock", library)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workspace of its own; commands still running at the end of the test are ended."""
    made = Bench(tmp_path / "workspace")
    try:
        yield made
    finally:
        made.close()


def test_the_clock_of_these_tests_really_jumps_and_its_timers_do_not(clock: Clock) -> None:
    code = "import time\nfor _ in range(2):\n    print(time.time(), time.monotonic(), flush=True)\n    input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment},
    ) as process:
        assert process.stdout is not None
        before = [float(word) for word in process.stdout.readline().split()]
        clock.set(DAYS_ON)
        out, _ = process.communicate("\n\n", timeout=30)
    wall, steady = (float(now) - then for now, then in zip(out.split(), before, strict=True))
    assert wall > DAYS_ON - 1
    assert steady < 30


def test_the_whole_processs_clock_is_really_another(whole_clock: Clock) -> None:
    whole_clock.set(DAYS_ON)
    told = subprocess.run(
        [sys.executable, "-c", "import datetime; print(datetime.datetime.now(datetime.UTC).timestamp())"],
        env={**os.environ, **whole_clock.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(told.stdout) - time.time() > DAYS_ON - 30


@pytest.mark.parametrize("jump", [DAYS_ON, HOUR_BACK])
def test_the_rate_holds_when_the_clock_jumps_in_the_middle_of_a_run(bench: Bench, clock: Clock, jump: int) -> None:
    with provider() as box:
        bench.people(60 if FULL else 36)
        bench.campaign(box.url, send={"rate": ["10/s"], "concurrency": 10})
        running = bench.start("send", "campaigns/spring.yaml", "--yes", **clock.environment)
        until(lambda: len(sends(box)) >= 12, 60, "the first requests")
        clock.set(jump)
        until(lambda: len(sends(box)) >= 24, 20, "the requests after the jump")
        clock.set(TRUE)
        running.wait().must(0)
        # A busy machine lets requests arrive in bunches: 200 ms are allowed for that. A pace that believed the time of day
        # would let all of them through at once, or none.
        assert worst_window([entry.at_us for entry in sends(box)], 800_000) <= 10
        check_every_request_was_recorded(bench, box)
        assert set(bench.statuses().values()) == {"accepted"}


@pytest.mark.parametrize("jump", [DAYS_ON, HOUR_BACK])
def test_two_runs_that_share_a_sender_keep_its_rate_when_the_clock_jumps(bench: Bench, clock: Clock, jump: int) -> None:
    """Before the second begins, and again while both go on: each has read another time of day."""
    with provider() as box:
        bench.people(240)
        for name in ("spring", "autumn"):
            message = {"caption": f"{name} {{{{ Name }}}}"}
            bench.campaign(box.url, name=name, message=message, send={"rate": ["20/s"], "concurrency": 10})
        first = bench.start("send", "campaigns/spring.yaml", "--yes", **clock.environment)
        until(lambda: len(sends(box)) >= 12, 60, "the first requests")
        clock.set(jump)
        second = bench.start("send", "campaigns/autumn.yaml", "--yes", **clock.environment)
        until(lambda: len([entry for entry in sends(box) if "autumn" in entry.body]) >= 20, 30, "the second's requests")
        clock.set(TRUE)
        for running in (first, second):
            assert "share its pace" in running.wait(30).must(0).err
        assert worst_window([entry.at_us for entry in sends(box)], 800_000) <= 20  # as above
        assert len(sends(box)) == 480


def test_the_rate_holds_over_a_restart_when_the_clock_is_set_back_between_the_runs(bench: Bench, clock: Clock) -> None:
    """One a minute, and the second run begins well within the first one's minute: it has to wait."""
    with provider() as box:
        bench.people(3)
        bench.campaign(box.url, send={"rate": ["1/min"]})
        bench.send_here("--limit", "1").must(0, 1)
        clock.set(HOUR_BACK)
        nobody_is_sent_to(bench, clock, seconds=3)
        assert len(sends(box)) == 1


def nobody_is_sent_to(bench: Bench, clock: Clock, seconds: float) -> None:
    """A run that must wait longer than `seconds`: it is watched for so long, then told to stop."""
    before = len(bench.ask("SELECT 1 FROM runs"))
    running = bench.start("send", "campaigns/spring.yaml", "--yes", **clock.environment)
    until(lambda: len(bench.ask("SELECT 1 FROM runs")) > before, 60, "the run")
    time.sleep(seconds)
    running.process.terminate()
    running.wait()


THROTTLED = Scenario(magic=False, rules=(Rule(Action(status=429, headers=(("Retry-After", "6"),)), times=1),))


@pytest.mark.parametrize("jump", [DAYS_ON, HOUR_BACK])
def test_a_wait_that_the_provider_asked_for_is_kept_when_the_clock_jumps(bench: Bench, clock: Clock, jump: int) -> None:
    """Not shorter, and not longer than a wait begun anew: the rest of the run must not stand still for an hour."""
    with provider(THROTTLED) as box:
        bench.people(3)
        bench.campaign(box.url, send={"concurrency": 1})
        running = bench.start("send", "campaigns/spring.yaml", "--yes", **clock.environment)
        until(lambda: len(sends(box)) >= 1, 60, "the first request")
        time.sleep(0.5)
        clock.set(jump)
        finished = running.wait(15)
        finished.must(0)
        first, second = (entry.at_us / 1e6 for entry in sends(box)[:2])
        assert second - first >= 5.9
        assert len(sends(box)) == 4


def in_words(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def test_a_deadline_is_judged_by_the_clock_at_the_moment_of_sending(bench: Bench, clock: Clock) -> None:
    deadline = datetime.now(UTC) + timedelta(days=1)
    with provider() as box:
        bench.people(200)
        bench.campaign(box.url, send={"rate": ["20/s"], "deadline": in_words(deadline)})
        running = bench.start("send", "campaigns/spring.yaml", "--yes", **clock.environment)
        until(lambda: len(sends(box)) >= 5, 60, "the first requests")
        clock.set(DAYS_ON)
        jumped = time.monotonic()
        finished = running.wait()
        assert time.monotonic() - jumped < 10
        finished.must(1)
        count = len(sends(box))
        assert count < 200
        found = {(row["status"], row["reason"].split(":")[0]) for row in bench.rows()}
        assert {("accepted", ""), ("skipped", "expired")} <= found
        assert found <= {("accepted", ""), ("skipped", "expired"), ("not_sent", "expired")}


@pytest.mark.skipif(not FULL, reason="TORTURE=full: the same as the wait above, with many rows")
def test_a_clock_that_is_set_back_does_not_stretch_a_run_nor_double_anybody(bench: Bench, clock: Clock) -> None:
    """Refused connections are retried after the backoff, although the time of day says that they were tried in the future."""
    busy = Scenario(magic=False, rate_limit=RateLimit(5, 1.0))
    with provider(busy) as box:
        bench.people(15)
        bench.campaign(box.url, send={"concurrency": 10})
        running = bench.start("send", "campaigns/spring.yaml", "--yes", **clock.environment)
        until(lambda: len(sends(box)) >= 5, 60, "the first requests")
        clock.set(HOUR_BACK)
        running.wait(15).must(0)
        taken = [entry.phone for entry in sends(box) if entry.accepted_by_provider]
        assert sorted(taken) == sorted(set(taken))
        assert len(taken) == 15


def test_times_that_run_backwards_break_no_report(bench: Bench, whole_clock: Clock) -> None:
    with provider() as box:
        bench.people(6)
        bench.campaign(box.url)
        whole_clock.set(DAYS_ON)
        bench.run("send", "campaigns/spring.yaml", "--yes", "--limit", "3", **whole_clock.environment).must(0)
        bench.send_here().must(0)  # by the true clock: two days before the first run
        for command in (
            ("status", "spring"),
            ("status", "spring", "--json"),
            ("report", "spring"),
            ("plan", "campaigns/spring.yaml"),
        ):
            bench.here(*command).must(0)
        assert set(bench.statuses().values()) == {"accepted"}
        assert len(sends(box)) == 6
