"""Kernel locks, which die with their holder however it dies. Never a pid file.

One run per campaign at a time; and one run per sender at a time, so that two campaigns through one account never exceed its
limit together. Lock files stay: removing one would let a third process lock a file that a second is about to open.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import LedgerError, LockedError
from runner.files import private_folder


@contextmanager
def campaign_lock(folder: Path, campaign: str, holder: str) -> Iterator[None]:
    """Hold `folder`/.lock while the block runs. Raises LockedError at once, naming who holds it.

    `holder` is text for the other side to read.
    """
    private_folder(folder)
    with _opened(folder / ".lock") as lock:
        other = lock.take(holder)
        if other is not None:
            raise LockedError(
                f"campaign {campaign} is being sent by {other}; nothing was sent by this command. "
                f"Wait for it, or stop it there with Ctrl-C or from here with: campaign pause {campaign}"
            )
        yield


@contextmanager
def sender_lock(folder: Path, sender: str, holder: str, wait: Callable[[str], bool]) -> Iterator[bool]:
    """Hold the sender's lock in `folder` while the block runs; yields whether it is held.

    While another run holds it, `wait` is called with that run's own words; it sleeps a moment, or returns False to give up.
    """
    private_folder(folder)
    with _opened(folder / f".sender-{sender}.lock") as lock:
        held = True
        while (other := lock.take(holder)) is not None:
            if not wait(other):
                held = False
                break
        yield held


class _Lock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def take(self, holder: str) -> str | None:
        """None when the lock is ours now, else the words of whoever holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(self._descriptor, 500, 0).decode(errors="replace").strip() or "another program"
        except OSError as error:  # a file system without locks
            raise LedgerError(
                f"{self._path} cannot be locked: {error.strerror}. Put the workspace on a local disk"
            ) from None
        with suppress(OSError):  # a full disk: the name is a courtesy, the lock is held all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder.encode(), 0)
        return None


@contextmanager
def _opened(path: Path) -> Iterator[_Lock]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"{path} cannot be opened for writing: {error.strerror}") from None
    try:
        yield _Lock(path, descriptor)
    finally:
        os.close(descriptor)
