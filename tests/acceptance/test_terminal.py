"""What a person sees: the commands in a real pseudo-terminal of 80 columns, with and without colours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from acceptance.workbench import OpenSandbox, Workbench, numbers, until
from runner.sandbox import Action, Drop, Rule, Scenario

COLUMNS = 80
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A command whose standard output and error are one terminal."""

    def __init__(self, bench: Workbench, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        kept = {key: value for key, value in bench.environment.items() if key != "COLUMNS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=bench.root,
            env={**kept, "TERM": "xterm-256color", **environment},
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while part := os.read(self._master, 65536):
                self._seen += part

    @property
    def seen(self) -> str:
        """Everything so far, escape sequences included."""
        return self._seen.decode(errors="replace").replace("\r\n", "\n")

    def wait(self, code: int) -> str:
        """Wait for the end; everything that was seen."""
        assert self.process.wait(60) == code, self.seen
        self._reader.join(10)
        return self.seen

    def close(self) -> None:
        """End it if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        os.close(self._master)


@contextlib.contextmanager
def on_screen(bench: Workbench, *arguments: str, **environment: str) -> Iterator[Screen]:
    """The command in its terminal; it ends with the block."""
    screen = Screen(bench, *arguments, **environment)
    try:
        yield screen
    finally:
        screen.close()


def shown(bench: Workbench, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """What the command shows from its beginning to its end."""
    with on_screen(bench, *arguments, **(environment or {})) as screen:
        return screen.wait(code)


def lines(text: str) -> list[str]:
    """What can be read, line by line; a bar that is drawn over itself counts as lines."""
    return re.split(r"[\r\n]+", ESCAPE.sub("", text))


@pytest.fixture
def campaign(bench: Workbench, open_sandbox: OpenSandbox) -> str:
    """A campaign with a row of every kind."""
    phones = numbers(30)
    rules = (
        Rule(Action("refused", status=400), phone=phones[3]),
        Rule(Action("lost", drop=Drop.AFTER_READ), phone=phones[4]),
    )
    box = open_sandbox(Scenario(magic=False, latency=(0.1, 0.1), rules=rules))
    people = [(f"+{phone}", f"n{i}") for i, phone in enumerate(phones)]
    bench.audience([*people, ("12345", "short"), ("", "blank"), (f"+{phones[0]}", "again")])
    return bench.campaign(box.url, send={"concurrency": 1, "rate": ["20/s", "600/min"]})


def test_check_plan_send_and_status_are_coloured_and_fit_into_80_columns(bench: Workbench, campaign: str) -> None:
    check = shown(bench, "check", campaign)
    assert "\x1b[1mspring" in check
    assert "\x1b[31m\x1b[1m3 rows cannot be sent:" in check
    sent = shown(bench, "send", campaign, "--yes", code=1)
    for ink, word in (("32", "accepted"), ("31", "rejected"), ("33", "unknown")):
        assert f"\x1b[{ink}m{word}\x1b[0m" in sent
    plan = shown(bench, "plan", campaign)
    assert "\x1b[32malready accepted\x1b[0m" in plan
    status = shown(bench, "status")
    assert "\x1b[33munknown\x1b[0m" in status
    assert "\x1b[31mrejected: bad_request\x1b[0m" in status
    for text in (check, plan, sent, status):
        assert [line for line in lines(text) if len(line) > COLUMNS] == []
    column = {line.index(re.findall(r"\d+", line)[0]) for line in lines(status) if re.match(r"  \w+ +\d\d$", line)}
    assert len(column) == 1  # numbers stand under each other


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_nothing_is_coloured_where_colour_is_not_wanted(
    bench: Workbench, campaign: str, environment: dict[str, str]
) -> None:
    for command in (("check", campaign), ("plan", campaign)):
        assert "\x1b[" not in shown(bench, *command, environment=environment)


def test_neither_a_pipe_nor_json_is_ever_coloured(bench: Workbench, campaign: str) -> None:
    assert "\x1b" not in bench.run("check", campaign).must(0).out
    for command in (("check", campaign, "--json"), ("plan", campaign, "--json")):
        assert "\x1b" not in shown(bench, *command)


def test_a_stopped_run_goes_on_with_its_bar_where_it_was(bench: Workbench, campaign: str) -> None:
    with on_screen(bench, "send", campaign, "--yes") as screen:
        until(lambda: re.search(r"\| (\d+) of 30, .*/s, .* left", screen.seen) is not None, what="the bar")
        time.sleep(0.5)
        screen.process.send_signal(signal.SIGINT)
        first = screen.wait(130)
    done = max(int(number) for number in re.findall(r"\| (\d+) of 30", first))
    assert 0 < done < 30
    assert [line for line in lines(first) if len(line) > COLUMNS] == []

    again = shown(bench, "send", campaign, "--yes", code=1)
    bar = re.findall(r"(\d+)%\|[^|]*\| (\d+) of 30", again)
    assert bar[0] == (str(round(done / 30 * 100)), str(done))
    assert bar[-1] == ("100", "30")
    assert lines(again)[-1] == ""


def test_a_text_that_would_command_the_terminal_is_shown_and_not_obeyed(bench: Workbench, campaign: str) -> None:
    people = [("+905320000001", "\x1b]0;owned\x07\x1b[2J"), ("\x1b[31m12345", "x")]
    bench.audience(people)
    preview = shown(bench, "preview", campaign)
    check = shown(bench, "check", campaign)
    for text in (preview, check):
        assert "\x1b]" not in text
        assert "\x1b[2J" not in text
        assert "\x1b[31m12345" not in text
    assert "render_error" in check
