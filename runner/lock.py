"""Kernel locks, which die with their holder however it dies. Never a pid file.

One run per campaign at a time. Runs of several campaigns through one sender share its pace: see `sender_lock`. Lock files stay:
removing one would let a third process lock a file that a second is about to open.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runner.errors import LedgerError, LockedError
from runner.files import private_folder
from runner.steadyclock import SteadyClock, counting

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
def sender_lock(folder: Path, sender: str, holder: str, wait: Callable[[str], bool]) -> Iterator[SenderHold | None]:
    """A place at the sender while the block runs, alone or among others: see `SenderHold`.

    While another run that was alone makes ready to share, `wait` is called with that run's own words; it sleeps a moment,
    or returns False to give up: None is yielded then.
    """
    private_folder(folder)
    with ExitStack() as stack:
        door, sharers, waiting = (
            stack.enter_context(_opened(folder / f".sender-{sender}.{end}")) for end in ("lock", "sharing", "waiting")
        )
        hold = SenderHold(door, sharers, waiting, holder)
        while not hold.enter():
            if not wait(door.holder()):
                yield None
                return
        yield hold


class SenderHold:
    """One run's place at its sender. `alone`, until it has noticed that another is `wanted` beside it and agrees to `share`.

    Three files. Whoever holds the *door* alone is alone, or about to decide in a moment how to go in. Those who share hold
    *sharing* together, and it names the `clock` they go by; it is taken with the door held, so that nobody is alone while
    anybody shares. Who finds the door held holds *waiting* meanwhile. The kernel lets go of all of them for the dead: the
    heir of one that died alone is alone; those who share with a dead one go on.
    """

    def __init__(self, door: _Lock, sharers: _Lock, waiting: _Lock, holder: str) -> None:
        self._door = door
        self._sharers = sharers
        self._waiting = waiting
        self._holder = holder
        self.alone = False
        self.clock = SteadyClock.begin()

    def enter(self) -> bool:
        """Whether we are in."""
        if not self._door.take(self._holder):
            self._waiting.take(together=True)  # not while somebody looks whether anybody waits: we come again
            return False
        if self._sharers.take():
            self._sharers.release()
            self.alone, self.clock = True, SteadyClock.begin()
        elif not self._join():
            self._waiting.take(together=True)
            self._door.release()
            return False
        self._waiting.release()
        return True

    def _join(self) -> bool:
        """Among those who share; False when they count by another machine's clock, or cannot be understood."""
        offset, _, others = self._sharers.words().partition(" ")
        if others != counting() or not self._sharers.take(together=True):
            return False
        self.clock = SteadyClock(int(offset))
        self._door.release()
        return True

    def wanted(self) -> bool:
        """Whether somebody else waits for this sender, and can be told by which clock to share it."""
        if self._waiting.take():
            self._waiting.release()
            return False
        return self._sharers.write(f"{self.clock.offset} {counting()}")

    def share(self) -> None:
        """No longer alone: from now on by slots only. After `wanted`."""
        if not self._sharers.take(together=True):
            raise LedgerError("another program holds the locks of this sender")
        self.alone = False
        self._door.release()


class _Lock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._named = False

    def take(self, holder: str = "", *, together: bool = False) -> bool:
        """Whether the lock is ours now; `together` with others who took it so, else alone."""
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # a file system without locks
            raise LedgerError(
                f"{self._path} cannot be locked: {error.strerror}. Put the workspace on a local disk"
            ) from None
        if holder:
            self.write(holder)  # on a full disk the name is missing: it is a courtesy, the lock is held all the same
            self._named = True
        return True

    def write(self, words: str) -> bool:
        """Words for the others; False when the disk is full."""
        try:
            os.ftruncate(self._descriptor, 0)
            return os.pwrite(self._descriptor, words.encode(), 0) == len(words.encode())
        except OSError:
            return False

    def words(self) -> str:
        """What was written last."""
        return os.pread(self._descriptor, 500, 0).decode(errors="replace").strip()

    def holder(self) -> str:
        """The words of whoever holds it. Measured: 1 in 150 of those who came at the same time asked before they were written."""
        for _ in range(LOOKS):
            time.sleep(LOOK_SECONDS)
            words = self.words()
            if words:
                return words
        return "another program"

    def release(self) -> None:
        """Take our name away and let go; after a kill the name stays until the next holder writes its own."""
        with suppress(OSError):
            if self._named:
                os.ftruncate(self._descriptor, 0)
                self._named = False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let go, for good."""
        with suppress(OSError):
            self.release()
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
