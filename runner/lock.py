"""Kernel locks, which die with their holder however it dies. Never a pid file.

One run per campaign at a time; and one run per sender at a time, so that two campaigns through one account never exceed its
limit together. Lock files stay: removing one would let a third process lock a file that a second is about to open.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import LedgerError, LockedError
from runner.files import private_folder

LOOKS, LOOK_SECONDS = 20, 0.05  # a holder needs a moment from taking the lock to writing its name


@contextmanager
def campaign_lock(folder: Path, campaign: str, holder: str) -> Iterator[None]:
    """Hold `folder`/.lock while the block runs. Raises LockedError at once, naming who holds it.

    `holder` is text for the other side to read.
    """
    private_folder(folder)
    with _opened(folder / ".lock") as lock:
        if not lock.take(holder):
            raise LockedError.held(campaign, lock.holder())
        yield


@contextmanager
def sender_lock(folder: Path, sender: str, holder: str, wait: Callable[[str], bool]) -> Iterator[bool]:
    """Hold the sender's lock in `folder` while the block runs; yields whether it is held.

    While another run holds it, `wait` is called with that run's own words; it sleeps a moment, or returns False to give up.
    """
    private_folder(folder)
    with _opened(folder / f".sender-{sender}.lock") as lock:
        held = True
        while not lock.take(holder):
            if not wait(lock.holder()):
                held = False
                break
        yield held


class _Lock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._held = False

    def take(self, holder: str) -> bool:
        """Whether the lock is ours now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # a file system without locks
            raise LedgerError(
                f"{self._path} cannot be locked: {error.strerror}. Put the workspace on a local disk"
            ) from None
        with suppress(OSError):  # a full disk: the name is a courtesy, the lock is held all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder.encode(), 0)
        self._held = True
        return True

    def holder(self) -> str:
        """The words of whoever holds it. Measured: 1 in 150 of those who came at the same time asked before they were written."""
        for _ in range(LOOKS):
            time.sleep(LOOK_SECONDS)
            words = os.pread(self._descriptor, 500, 0).decode(errors="replace").strip()
            if words:
                return words
        return "another program"

    def leave(self) -> None:
        """Take our name away and let go; after a kill the name stays until the next holder writes its own."""
        with suppress(OSError):
            if self._held:
                os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[_Lock]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"{path} cannot be opened for writing: {error.strerror}") from None
    lock = _Lock(path, descriptor)
    try:
        yield lock
    finally:
        lock.leave()
