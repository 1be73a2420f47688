"""The campaign's lock and the places at a sender, between real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.errors import ExitCode, LedgerError, LockedError
from runner.lock import SenderHold, campaign_lock, sender_lock
from runner.steadyclock import SteadyClock

HOLD = """
import sys
from pathlib import Path
from runner.lock import SenderHold, campaign_lock, sender_lock
from runner.steadyclock import SteadyClock
with campaign_lock(Path(sys.argv[1]), "spring", "process 4711 on elsewhere"):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
sys.stdin.readline()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_at_once_and_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(LockedError) as caught, campaign_lock(tmp_path, "spring", "me"):
            pytest.fail("two at once")
        message = str(caught.value)
        assert "campaign spring is being sent by process 4711 on elsewhere; nothing was sent by this command" in message
        assert "campaign pause spring" in message
        assert caught.value.exit_code is ExitCode.LOCKED
        other.communicate("\n\n", timeout=10)


def test_the_lock_is_free_when_the_other_lets_go(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "free\n"  # it lives on
        with campaign_lock(tmp_path, "spring", "me"):
            pass
        other.communicate("\n", timeout=10)


def test_a_holder_that_is_killed_frees_it(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=10)
        with campaign_lock(tmp_path, "spring", "me"):
            assert (tmp_path / ".lock").read_text() == "me"


def test_the_name_of_an_earlier_holder_does_not_shine_through(tmp_path: Path) -> None:
    with campaign_lock(tmp_path, "spring", "a rather long name of an earlier holder"):
        pass
    with (
        campaign_lock(tmp_path, "spring", "me"),
        pytest.raises(LockedError, match="is being sent by me;"),
        campaign_lock(tmp_path, "spring", "you"),
    ):
        pytest.fail("two at once")


def test_it_is_let_go_when_the_block_raises(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), campaign_lock(tmp_path, "spring", "me"):
            raise ZeroDivisionError


def test_campaigns_do_not_lock_each_other(tmp_path: Path) -> None:
    with campaign_lock(tmp_path / "spring", "spring", "me"), campaign_lock(tmp_path / "autumn", "autumn", "me"):
        pass


def test_the_file_and_the_folder_made_for_it_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "spring"
    with campaign_lock(folder, "spring", "me"):
        assert stat.S_IMODE((folder / ".lock").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_child_process_does_not_inherit_it(tmp_path: Path) -> None:
    """Or a helper that outlives a killed run would keep the campaign locked."""
    with campaign_lock(tmp_path, "spring", "me"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        with campaign_lock(tmp_path, "spring", "me"):
            pass
        child.communicate(b"\n", timeout=10)


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("keep me")
    with pytest.raises(LedgerError, match="cannot be opened"), campaign_lock(tmp_path, "spring", "me"):
        pytest.fail("followed")
    assert (tmp_path / "precious").read_text() == "keep me"


def test_a_file_system_without_locks_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def no_locks(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(LedgerError, match="cannot be locked: No locks available"), campaign_lock(tmp_path, "s", "me"):
        pytest.fail("held")


def test_a_holder_that_has_only_just_taken_it_is_named_all_the_same(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing = threading.Timer(0.12, lambda: print("process 4712 on elsewhere", file=file, flush=True))
        writing.start()
        with pytest.raises(LockedError, match="process 4712"), campaign_lock(tmp_path, "spring", "me"):
            pytest.fail("held")
        writing.join()


def test_a_name_does_not_outlast_its_holder(tmp_path: Path) -> None:
    with campaign_lock(tmp_path, "spring", "process 4713 on elsewhere"):
        pass
    assert (tmp_path / ".lock").read_text() == ""


# --- a place at a sender --------------------------------------------------------------------------------------------------------

AT_SENDER = """
import sys, time
from pathlib import Path
from runner.lock import sender_lock

def wait(other):
    print("waits for", other, flush=True)
    time.sleep(0.02)
    return True

with sender_lock(Path(sys.argv[1]), "s1", sys.argv[2], wait) as hold:
    print("alone" if hold.alone else "shares", hold.clock.offset, flush=True)
    for line in sys.stdin:
        if line == "share\\n":
            while not hold.wanted():
                time.sleep(0.01)
            hold.share()
        print("did it", flush=True)
"""


class AtSender:
    """Another process with a place at the sender, or waiting for one."""

    def __init__(self, folder: Path, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_SENDER, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def comes_in(self) -> tuple[str, int]:
        """How, and by which clock, once it need not wait any more."""
        while (words := self.says()).startswith("waits"):
            pass
        how, _, offset = words.partition(" ")
        return how, int(offset)

    def share(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("share\n")
        self.process.stdin.flush()
        assert self.says() == "did it"

    def ends(self) -> None:
        self.process.communicate(timeout=10)

    def is_killed(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


@pytest.fixture
def come(tmp_path: Path) -> Iterator[Callable[[str], AtSender]]:
    made: list[AtSender] = []

    def make(name: str) -> AtSender:
        made.append(AtSender(tmp_path, name))
        return made[-1]

    yield make
    for each in made:
        each.is_killed()


def test_who_comes_second_waits_until_the_first_agrees_to_share_and_goes_by_its_clock(
    come: Callable[[str], AtSender],
) -> None:
    first = come("campaign one")
    how, clock = first.comes_in()
    assert how == "alone"
    second = come("campaign two")
    assert second.says() == "waits for campaign one"
    first.share()
    assert second.comes_in() == ("shares", clock)
    third = come("campaign three")
    assert third.comes_in() == ("shares", clock)
    first.ends()
    assert come("campaign four").comes_in() == ("shares", clock)


def test_when_all_who_shared_are_gone_the_next_one_is_alone(come: Callable[[str], AtSender]) -> None:
    first, second = come("one"), None
    first.comes_in()
    second = come("two")
    first.share()
    second.comes_in()
    first.is_killed()
    second.is_killed()
    assert come("three").comes_in()[0] == "alone"


def test_who_waited_for_one_that_was_killed_is_alone(come: Callable[[str], AtSender]) -> None:
    first = come("one")
    first.comes_in()
    second = come("two")
    assert second.says() == "waits for one"
    first.is_killed()
    assert second.comes_in()[0] == "alone"


def test_nobody_is_wanted_any_more_when_who_waited_was_killed(tmp_path: Path, come: Callable[[str], AtSender]) -> None:
    with at_sender(tmp_path) as hold:
        other = come("two")
        assert other.says() == "waits for me"
        assert hold.wanted()
        other.is_killed()
        assert not hold.wanted()
        assert hold.alone


def test_who_counts_time_on_another_machine_waits_until_all_who_share_are_gone(
    tmp_path: Path, come: Callable[[str], AtSender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.lock.counting", lambda: "elsewhere")
    with at_sender(tmp_path) as hold:
        other = come("two")
        assert other.says() == "waits for me"
        while not hold.wanted():
            pass
        hold.share()
        for _ in range(3):
            assert other.says().startswith("waits for")
    assert other.comes_in()[0] == "alone"


def test_who_gives_up_waiting_has_no_place(tmp_path: Path) -> None:
    with at_sender(tmp_path), sender_lock(tmp_path, "s1", "you", lambda other: other != "me") as place:
        assert place is None


def test_senders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with at_sender(tmp_path) as one, at_sender(tmp_path, "s2") as two:
        assert one.alone
        assert two.alone


def test_on_a_full_disk_nobody_is_let_in_who_could_not_learn_the_clock(
    tmp_path: Path, come: Callable[[str], AtSender], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with at_sender(tmp_path) as hold:
        assert come("two").says() == "waits for me"
        monkeypatch.setattr(os, "pwrite", full)
        assert not hold.wanted()


def test_two_clocks_that_began_alike_tell_the_same_time_whatever_has_been_set_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = SteadyClock.begin()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    again = SteadyClock(began.offset)
    moment = began()
    assert 0 <= again() - moment < 1_000_000
    assert abs(began.monotonic(began()) - time.monotonic()) < 1


@contextmanager
def at_sender(folder: Path, sender: str = "s1") -> Iterator[SenderHold]:
    """A place of our own, which nobody else had."""
    with sender_lock(folder, sender, "me", lambda _: False) as hold:
        assert hold is not None
        yield hold
