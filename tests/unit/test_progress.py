"""What a run shows while it goes: on a real terminal, in a pipe, and never on stdout."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runner.model import Status
from runner.progress import LINE_SECONDS, Bar, Lines, Quiet, Tally, open_progress
from runner.units import Rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _stdout_stays_clean(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """In every test here: results may be piped from stdout, so progress never stands there."""
    yield
    assert capfd.readouterr().out == ""


# --- counting ---------------------------------------------------------------------------------------------------------


def test_a_retry_is_not_finished_and_everything_final_is(clock: Clock) -> None:
    tally = Tally(10, [], clock)
    finals = [tally.add(status) for status in Status]
    assert tally.finished == sum(finals) == 5
    assert not tally.add(Status.RETRY_WAIT)
    assert tally.words() == "1 accepted, 1 rejected, 1 not sent, 1 unknown, 1 skipped"


def test_before_anything_has_happened_there_is_nothing_to_divide_by(clock: Clock) -> None:
    tally = Tally(10, [], clock)
    assert (tally.rate, tally.eta(), tally.words()) == (0.0, None, "nothing yet")


def test_the_time_left_knows_the_limits_before_the_first_reply(clock: Clock) -> None:
    tally = Tally(600, [Rate(10, 60.0)], clock)
    assert tally.eta() == pytest.approx(3600)
    two = Tally(100, [Rate(20, 1.0), Rate(50, 3600.0)], clock)
    assert two.eta() == pytest.approx(7200)  # the hourly limit decides, however quickly the first fifty go


def test_the_time_left_follows_what_is_reached_when_that_is_slower(clock: Clock) -> None:
    tally = Tally(1000, [Rate(100, 1.0)], clock)
    for _ in range(100):
        clock.now += 0.1  # 10/s, a tenth of what is allowed
        tally.add(Status.ACCEPTED)
    assert tally.eta() == pytest.approx(90)
    assert tally.rate == pytest.approx(10)


def test_the_time_left_is_never_less_than_the_limits_allow(clock: Clock) -> None:
    tally = Tally(100, [Rate(20, 1.0), Rate(50, 3600.0)], clock)
    for _ in range(40):
        clock.now += 0.05
        tally.add(Status.ACCEPTED)
    eta = tally.eta()
    assert eta is not None
    assert eta >= 3600


def test_at_the_end_nothing_is_left(clock: Clock) -> None:
    tally = Tally(5, [Rate(20, 1.0)], clock)
    for _ in range(5):
        clock.now += 1
        tally.add(Status.ACCEPTED)
    assert tally.eta() == 0.0


# --- lines ------------------------------------------------------------------------------------------------------------


def test_without_a_terminal_there_is_a_line_every_few_seconds_and_one_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(Tally(100, [Rate(10, 1.0)], clock), settled_before=20, stream=stream, clock=clock)
    for i in range(100):
        clock.now += 0.125
        lines.begun()
        lines.settled(Status.REJECTED if i % 10 == 9 else Status.ACCEPTED)
    lines.close()
    assert LINE_SECONDS == 5
    assert stream.getvalue().splitlines() == [
        "60 of 120: 36 accepted, 4 rejected; 8.0/s, about 8 s left",
        "100 of 120: 72 accepted, 8 rejected; 8.0/s, about 2 s left",
        "120 of 120: 90 accepted, 10 rejected; 8.0/s",
    ]


def test_a_slow_sender_is_told_in_messages_a_minute(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(Tally(10, [Rate(10, 60.0)], clock), settled_before=0, stream=stream, clock=clock)
    clock.now += 6
    lines.settled(Status.ACCEPTED)
    assert stream.getvalue() == "1 of 10: 1 accepted; 10.0/min, about 54 s left\n"


def test_a_note_is_a_line_of_its_own_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(Tally(10, [], clock), settled_before=0, stream=stream, clock=clock)
    lines.note("told to slow down: waiting 3 s")
    assert stream.getvalue() == "told to slow down: waiting 3 s\n"


def test_quiet_counts_and_says_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    tally = Tally(1, [], clock)
    progress = open_progress(tally, quiet=True)
    assert isinstance(progress, Quiet)
    progress.begun()
    progress.settled(Status.ACCEPTED)
    progress.note("something")
    progress.close()
    assert tally.finished == 1
    assert capfd.readouterr() == ("", "")


def test_the_default_is_stderr(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    progress = open_progress(Tally(1, [], clock))
    assert isinstance(progress, Lines)
    progress.settled(Status.ACCEPTED)
    progress.close()
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("1 of 1: 1 accepted")


# --- the bar ----------------------------------------------------------------------------------------------------------


class Terminal:
    """A real pseudo-terminal: what a person would see, and the stream to write to."""

    def __init__(self, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._seen = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # EIO: the other end is closed
                return
            if not part:
                return
            self._seen += part

    def close(self) -> str:
        """Everything that was written, escape sequences left out."""
        self.stream.close()
        self._reader.join(10)
        os.close(self._master)
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self._seen.decode())


@contextmanager
def terminal(columns: int = 100) -> Iterator[tuple[Terminal, list[str]]]:
    """The terminal, and a list that holds what was seen on it once the block is over."""
    seen: list[str] = []
    screen = Terminal(columns)
    try:
        yield screen, seen
    finally:
        seen.append(screen.close())


def test_on_a_terminal_there_is_a_bar_with_the_numbers_that_matter(clock: Clock) -> None:
    with terminal() as (screen, seen):
        tally = Tally(10, [Rate(2, 1.0)], clock)
        progress = open_progress(tally, settled_before=10, stream=screen.stream)
        assert isinstance(progress, Bar)
        for i in range(10):
            clock.now += 0.5
            progress.begun()
            progress.settled([Status.ACCEPTED, Status.REJECTED, Status.UNKNOWN][max(0, i - 7)])
        progress.close()
    last = seen[0].rstrip().split("\r")[-1]
    assert re.fullmatch(r"100%\|█+\| 20 of 20, 2\.0/s, 1 failed, 1 unknown", last)
    assert re.match(r"\s*50%\|█+ +\| 10 of 20", seen[0])  # where an earlier run had left it
    for percent, done in re.findall(r"(\d+)%\|[^|]*\| (\d+) of 20", seen[0]):
        assert int(percent) == int(done) * 5  # the bar and the words beside it agree


def test_a_note_stands_above_the_bar_and_the_bar_goes_on_below(clock: Clock) -> None:
    with terminal() as (screen, seen):
        progress = open_progress(Tally(2, [], clock), stream=screen.stream)
        progress.settled(Status.ACCEPTED)
        progress.note("told to slow down: waiting 3 s")
        progress.settled(Status.ACCEPTED)
        progress.close()
    shown = seen[0].replace("\r\n", "\n")
    assert "told to slow down: waiting 3 s\n" in shown
    assert "2 of 2" in shown[shown.index("waiting") :]


@pytest.mark.parametrize("columns", [20, 40, 79, 200])
def test_the_bar_never_wraps(clock: Clock, columns: int) -> None:
    with terminal(columns) as (screen, seen):
        progress = open_progress(Tally(123_456, [Rate(20, 1.0)], clock), stream=screen.stream)
        for _ in range(20):
            clock.now += 0.05
            progress.settled(Status.ACCEPTED)
        progress.close()
    assert max(len(line) for line in re.split(r"[\r\n]", seen[0])) <= columns


def test_the_bar_is_not_drawn_for_every_message(clock: Clock) -> None:
    with terminal() as (screen, seen):
        progress = open_progress(Tally(5000, [], clock), stream=screen.stream)
        for _ in range(5000):
            progress.settled(Status.ACCEPTED)
        progress.close()
    assert seen[0].count("\r") < 200


def test_a_run_that_is_stopped_leaves_the_bar_where_it_is(clock: Clock) -> None:
    with terminal() as (screen, seen):
        progress = open_progress(Tally(10, [], clock), stream=screen.stream)
        progress.settled(Status.ACCEPTED)
        progress.close()
    assert "1 of 10" in seen[0]
    assert seen[0].endswith("\n")
