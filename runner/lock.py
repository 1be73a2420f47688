"""One run per campaign at a time: a kernel lock, which dies with its holder however it dies. Never a pid file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import LedgerError, LockedError
from runner.files import private_folder


@contextmanager
def campaign_lock(folder: Path, campaign: str, holder: str) -> Iterator[None]:
    """Hold `folder`/.lock while the block runs. Raises LockedError at once, naming who holds it.

    `holder` is text for the other side to read. The file stays: removing it would let a third process lock a file that the
    second is about to open.
    """
    private_folder(folder)
    path = folder / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"{path} cannot be opened for writing: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(descriptor, 500, 0).decode(errors="replace").strip() or "another program"
            raise LockedError(
                f"campaign {campaign} is being sent by {other}; nothing was sent by this command. "
                f"Wait for it, or stop it there with Ctrl-C or from here with: campaign pause {campaign}"
            ) from None
        except OSError as error:  # a file system without locks
            raise LedgerError(f"{path} cannot be locked: {error.strerror}. Put the workspace on a local disk") from None
        with suppress(OSError):  # a full disk: the name is a courtesy, the lock is held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.close(descriptor)
