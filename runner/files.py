"""Private files that are either whole or not there: what a reader opens was written to its end.

A file is written beside its target, flushed to the disk, and renamed over it; then the folder is flushed, so that the
new name survives a power cut too (POSIX rename(2) is atomic, but only an fsync of the directory makes it durable).
Files are 0600 and folders made here 0700, because they hold phone numbers.

A writer holds a lock on its temporary file for as long as it lives. The kernel drops the lock when the process dies,
however it dies, so the next writer can tell a killed process's leftovers from another's work in progress without
trusting process numbers (which are reused, and mean nothing on a shared folder).
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from runner.errors import CampaignError, InputError, Problem

if sys.platform != "win32":
    import fcntl

_WINDOWS = sys.platform == "win32"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a writable, seekable binary file that takes the place of `path` when the block ends well.

    When the block raises, the temporary file is removed and whatever was at `path` stays as it was. Missing parent
    folders are made. Leftovers of killed writers of the same `path` are removed.
    Raises InputError when `path` is a symbolic link or not an ordinary file, or when its folder cannot be written;
    CampaignError when the disk is full (also inside the block) or the finished file cannot be put in place.
    """
    with _in_words(path, InputError):
        _make_folders(path.parent)
        _refuse_what_is_not_a_file(path)
        _sweep(path)
        temporary, handle = _create(path)
    done = False
    try:
        try:
            yield handle
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise CampaignError(_words(path, error)) from error
            raise
        with _in_words(path, CampaignError):
            handle.flush()
            os.fsync(handle.fileno())
            if _WINDOWS:  # an open file cannot be renamed there; elsewhere the lock is kept until the name is final
                handle.close()
            temporary.replace(path)
            done = True
            _flush_folder(path.parent)
    finally:
        with suppress(OSError):  # a full disk would raise again here and hide the first error
            handle.close()
        if not done:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_text(path: Path, *, encoding: str = "utf-8") -> Iterator[TextIO]:
    """`atomic_write` for text; line ends are written as given."""
    with atomic_write(path) as handle:
        text = io.TextIOWrapper(handle, encoding=encoding, newline="")
        try:
            yield text
            text.flush()
        finally:
            with suppress(OSError):  # detaching flushes: on a full disk that would hide the first error
                text.detach()


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all. Raises as `atomic_write` does."""
    with atomic_write(path) as handle:
        handle.write(data)


def private_folder(path: Path) -> Path:
    """`path`, made with its missing parents, readable by the owner alone (0700).

    A folder that is there already keeps its mode: sharing it is a person's own choice.
    Raises InputError when `path` is a symbolic link or a file, or cannot be made.
    """
    with _in_words(path, InputError):
        _make_folders(path)
        mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise InputError(
            Problem(
                str(path),
                "is a symbolic link; results are not written through links",
                "replace the link by a folder, or choose another workspace with --workspace",
            )
        )
    if not stat.S_ISDIR(mode):
        raise InputError(Problem(str(path), "is a file where a folder is needed", "move it away and run again"))
    return path


def check_writable(folder: Path) -> None:
    """Raise InputError when no file can be made in `folder`: found out before anything is sent, not after."""
    with _in_words(folder, InputError):
        path, file = _create(folder / "writable")
        file.close()
        path.unlink()


def _make_folders(path: Path) -> None:
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def _refuse_what_is_not_a_file(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise InputError(
            Problem(str(path), "is a symbolic link; nothing is written through links", "remove the link and run again")
        )
    if not stat.S_ISREG(mode):
        raise InputError(Problem(str(path), "is not an ordinary file", "move it away and run again"))


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def _create(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = _temporary_name(path)
        number = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, 0o600)
        # A sweeper may have come between the creation and the lock; then the name is gone, or about to go.
        if _try_lock(number) and _still_there(temporary, number):
            return temporary, os.fdopen(number, "wb")
        os.close(number)
        temporary.unlink(missing_ok=True)


def _still_there(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(number))
    except FileNotFoundError:
        return False


def _try_lock(number: int) -> bool:
    """False when a living process holds the lock. A file system without locks counts as free for its own writer."""
    if sys.platform != "win32":
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _sweep(path: Path) -> None:
    """Remove the temporary files that dead writers of `path` left behind."""
    ours = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.part")
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if ours.fullmatch(entry.name)]
    for name in names:
        with suppress(OSError):
            _remove_if_abandoned(path.with_name(name))


def _remove_if_abandoned(leftover: Path) -> None:
    if sys.platform == "win32":  # the system itself refuses to remove what a living process has open
        leftover.unlink()
    else:
        number = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises when its writer lives, or locks are unknown
            leftover.unlink(missing_ok=True)
        finally:
            os.close(number)


def _flush_folder(folder: Path) -> None:
    if _WINDOWS:  # a directory cannot be opened there
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems know no such call
            raise
    finally:
        os.close(number)


@contextmanager
def _in_words(path: Path, kind: type[CampaignError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if kind is InputError and error.errno not in _NO_ROOM:
            what, fix = _cause(error)
            raise InputError(Problem(str(path), f"cannot be written: {what}", fix)) from error
        raise CampaignError(_words(path, error)) from error


def _words(path: Path, error: OSError) -> str:
    what, fix = _cause(error)
    return str(Problem(str(path), f"could not be written: {what}; the file is as it was before", fix))


def _cause(error: OSError) -> tuple[str, str]:
    if error.errno in _NO_ROOM:
        return "there is no room left", "free some space on that disk, or raise the quota or file-size limit"
    if isinstance(error, PermissionError):
        return "permission denied", "close the file if another program has it open, and see who owns the folder"
    if isinstance(error, NotADirectoryError):
        return "part of the path is a file, not a folder", "move that file away, or choose another workspace"
    return (error.strerror or type(error).__name__).lower(), "see that the disk is healthy and the folder writable"
