"""Private, atomic files: whole or not there, whatever happens to the writer."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.errors import CampaignError, ExitCode, InputError
from runner.files import atomic_text, atomic_write, private_folder, write_bytes

KILLED_HALF_WAY = """
import sys, time
from pathlib import Path
from runner.files import atomic_write
path = Path(sys.argv[1])
with atomic_write(path) as handle:
    handle.write(b"half of the new")
    handle.flush()
    print("ready", flush=True)
    time.sleep(60)
"""

NO_ROOM = """
import resource, sys
from pathlib import Path
from runner.errors import CampaignError
from runner.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_bytes(Path(sys.argv[1]), b"x" * 100_000)
except CampaignError as error:
    print(int(error.exit_code), error)
"""


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def test_a_new_file_has_what_was_written_and_nothing_else_lies_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    with atomic_write(target) as handle:
        handle.write(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    assert listing(tmp_path) == ["results.csv"]


def test_an_old_file_is_replaced_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    write_bytes(target, b"old")
    with atomic_write(target) as handle:
        handle.write(b"new")
        handle.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_an_error_half_way_leaves_the_old_file_and_no_leftovers(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "results.csv"
    write_bytes(target, b"old")
    with pytest.raises(type(error)), atomic_write(target) as handle:
        handle.write(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["results.csv"]


def test_files_and_folders_are_private_even_under_an_open_umask(tmp_path: Path) -> None:
    target = tmp_path / "reports" / "spring" / "results.csv"
    with umask(0), atomic_write(target) as handle:
        temporary = next(target.parent.iterdir())
        assert mode(temporary) == 0o600
        handle.write(b"x")
    assert mode(target) == 0o600
    assert mode(target.parent) == 0o700
    assert mode(target.parent.parent) == 0o700


def test_a_file_that_was_opened_to_others_becomes_private_again(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    target.write_bytes(b"old")
    target.chmod(0o644)
    write_bytes(target, b"new")
    assert mode(target) == 0o600


def test_a_symbolic_link_is_refused_and_what_it_points_to_is_untouched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_bytes(b"precious")
    link = tmp_path / "results.csv"
    link.symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"results\.csv: is a symbolic link.*\n.*remove the link"), atomic_write(link):
        pytest.fail("the block must not run")
    assert elsewhere.read_bytes() == b"precious"
    assert link.is_symlink()


def test_a_dangling_link_is_refused_too(tmp_path: Path) -> None:
    link = tmp_path / "results.csv"
    link.symlink_to(tmp_path / "not-there")
    with pytest.raises(InputError, match="symbolic link"):
        write_bytes(link, b"x")
    assert not (tmp_path / "not-there").exists()


def test_a_folder_or_a_pipe_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(InputError, match="not an ordinary file"):
            write_bytes(tmp_path / name, b"x")


def test_a_file_where_a_folder_should_be_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "reports").write_bytes(b"")
    with pytest.raises(InputError, match="part of the path is a file"):
        write_bytes(tmp_path / "reports" / "results.csv", b"x")


def test_a_killed_writer_leaves_the_old_file_and_the_next_writer_sweeps_its_leftovers(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    write_bytes(target, b"old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_HALF_WAY, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        write_bytes(tmp_path / "other.csv", b"x")
        write_bytes(target, b"second")  # while the first writer lives, its parts are its own
        parts = [name for name in listing(tmp_path) if name.startswith(".results.csv.")]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(parts) == 1
    assert target.read_bytes() == b"second"
    assert set(parts) <= set(listing(tmp_path))
    write_bytes(target, b"new")
    assert listing(tmp_path) == ["other.csv", "results.csv"]
    assert target.read_bytes() == b"new"


def test_the_sweep_touches_nothing_that_is_not_ours(tmp_path: Path) -> None:
    keep = [".results.csv.part", ".results.csv.0123456789abcdef.partial", "results.csv.0123456789abcdef.part"]
    for name in keep:
        (tmp_path / name).write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    planted = tmp_path / ".results.csv.0123456789abcdef.part"
    planted.symlink_to(outside)
    write_bytes(tmp_path / "results.csv", b"x")
    assert {*keep, planted.name, "outside"} < set(listing(tmp_path))
    assert outside.read_bytes() == b"precious"


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    with atomic_write(target) as first:
        first.write(b"first")
        with atomic_write(target) as second:
            second.write(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert listing(tmp_path) == ["results.csv"]


def test_a_full_disk_is_told_in_words_and_the_old_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    write_bytes(target, b"old")
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(target)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"{int(ExitCode.STOPPED)} {target}: could not be written: there is no room left")
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["results.csv"]


def test_an_error_of_the_callers_own_keeps_its_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "results.csv"):
        (tmp_path / "not-there").read_bytes()
    with pytest.raises(CampaignError, match="mine"), atomic_write(tmp_path / "results.csv"):
        raise CampaignError("mine")


def test_text_is_written_with_the_line_ends_and_encoding_given(tmp_path: Path) -> None:
    target = tmp_path / "results.csv"
    with atomic_text(target, encoding="utf-8-sig") as text:
        text.write("ş\r\nü\n")
    assert target.read_bytes() == b"\xef\xbb\xbf\xc5\x9f\r\n\xc3\xbc\n"


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "spring"
    with umask(0):
        assert private_folder(folder) == folder
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    assert private_folder(folder) == folder


def test_a_folder_that_was_there_keeps_the_mode_its_owner_gave_it(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o770)
    private_folder(folder)
    assert mode(folder) == 0o770


def test_a_private_folder_is_never_a_link_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="symbolic link"):
        private_folder(tmp_path / "link")
    with pytest.raises(InputError, match="is a file where a folder is needed"):
        private_folder(tmp_path / "file")
