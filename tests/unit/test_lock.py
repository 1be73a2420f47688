"""The campaign's lock, between real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runner.errors import ExitCode, LedgerError, LockedError
from runner.lock import campaign_lock

HOLD = """
import sys
from pathlib import Path
from runner.lock import campaign_lock
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
