"""A power cut at any moment loses no acknowledged commit: our own statements and pragmas on a disk that forgets.

The disk is a SQLite VFS in Python. A write is kept as a list of sectors until the file is synced; a name that is made or
deleted is kept until its folder is synced. When the power goes, what was synced is there, and of the rest any part: each
sector written wholly, partly (torn) or not at all, each name made or deleted or not. What survives is read by the library
that comes with Python, which rolls back a journal as it would after a real cut.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw  # brings a SQLite of its own, whose disk can be replaced
import pytest
from disk import FULL, open_database
from sqlalchemy import Engine, event

from runner.ledger.base import CampaignDraft, Finish, Hold, Intent, PlannedRow
from runner.ledger.sqlite import PRAGMAS, open_sqlite
from runner.model import Outcome, Status, Verdict

COMMITS = 200
SEED = 20261121
SECTORS = (512, 4096)
RENEWED = 0x1000  # SQLITE_IOCAP_POWERSAFE_OVERWRITE, as SQLite's own unix disk says of itself


# --- the disk that forgets --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a place, or (without bytes) a cut of the file to that length."""

    at: int
    data: bytes | None


@dataclass(slots=True)
class Inode:
    """One file: what is on the platter for sure, what has been asked for since, and what a reader sees."""

    durable: bytes = b""
    pending: list[Write] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)

    def write(self, at: int, data: bytes) -> None:
        if len(self.seen) < at:
            self.seen.extend(bytes(at - len(self.seen)))
        self.seen[at : at + len(data)] = data
        self.pending.append(Write(at, data))

    def truncate(self, size: int) -> None:
        del self.seen[size:]
        self.pending.append(Write(size, None))

    def sync(self) -> None:
        self.durable = bytes(self.seen)
        self.pending.clear()

    def survivor(self, chance: random.Random, share: float) -> bytes:
        """One way in which the file may look after the cut; `share` of the unsynced sectors have arrived."""
        found = bytearray(self.durable)
        sector = chance.choice(SECTORS)
        for write in self.pending:
            if write.data is None:
                if chance.random() < share:
                    del found[write.at :]
                continue
            for start, piece in _pieces(write.at, write.data, sector):
                if chance.random() >= share:
                    continue
                at, left = start, piece
                if share < 1 and chance.random() < 0.1:  # torn: only the front or the back of it
                    cut = chance.randrange(len(piece) + 1)
                    at, left = chance.choice(((start, piece[:cut]), (start + cut, piece[cut:])))
                if len(found) < at:  # the file has grown over sectors that never arrived: zeros, or what lay there
                    found.extend(chance.choice((bytes, chance.randbytes))(at - len(found)))
                found[at : at + len(left)] = left
        return bytes(found)


def _pieces(at: int, data: bytes, sector: int) -> Iterator[tuple[int, bytes]]:
    start = at
    while start < at + len(data):
        end = min((start // sector + 1) * sector, at + len(data))
        yield start, data[start - at : end - at]
        start = end


@dataclass(slots=True)
class Disk:
    """A folder of files. `on_change` is told of every write, sync, truncation and deletion, before it is done."""

    names: dict[str, Inode] = field(default_factory=dict)
    durable_names: dict[str, Inode] = field(default_factory=dict)
    unsynced: list[tuple[str, Inode | None]] = field(default_factory=list)  # names made, or (None) deleted
    on_change: Callable[[str], None] = lambda _: None

    def make(self, name: str) -> Inode:
        inode = self.names[name] = Inode()
        self.unsynced.append((name, inode))
        return inode

    def delete(self, name: str) -> None:
        del self.names[name]
        self.unsynced.append((name, None))

    def sync_names(self) -> None:
        self.durable_names = dict(self.names)
        self.unsynced.clear()

    def after_a_cut(self, chance: random.Random, share: float) -> dict[str, bytes]:
        """One way in which the folder may look when the power comes back."""
        names = dict(self.durable_names)
        for name, inode in self.unsynced:
            if chance.random() < share:
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
        return {name: inode.survivor(chance, share) for name, inode in names.items()}


class Handle:
    """An open file, with the methods that SQLite wants."""

    def __init__(self, disk: Disk, name: str | None, inode: Inode, flags: int) -> None:
        self._disk = disk
        self._inode = inode
        self._temporary = name is None or bool(flags & apsw.SQLITE_OPEN_DELETEONCLOSE)
        journal = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
        self._syncs_name = bool(flags & journal)  # SQLite's unix disk syncs the folder with a new journal's first sync
        self._lock = 0

    def _tell(self, what: str) -> None:
        if not self._temporary:
            self._disk.on_change(what)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        return bytes(self._inode.seen[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._tell("write")
        self._inode.write(offset, bytes(data))

    def xTruncate(self, size: int) -> None:  # noqa: N802 - SQLite's name
        self._tell("truncate")
        self._inode.truncate(size)

    def xSync(self, _flags: int) -> None:  # noqa: N802 - SQLite's name
        self._tell("sync")
        self._inode.sync()
        if self._syncs_name and not self._temporary:
            self._tell("sync")
            self._disk.sync_names()
            self._syncs_name = False

    def xFileSize(self) -> int:  # noqa: N802 - SQLite's name
        return len(self._inode.seen)

    def xLock(self, level: int) -> None:  # noqa: N802 - SQLite's name
        self._lock = level

    def xUnlock(self, level: int) -> None:  # noqa: N802 - SQLite's name
        self._lock = level

    def xCheckReservedLock(self) -> bool:  # noqa: N802 - SQLite's name
        return False

    def xFileControl(self, _op: int, _pointer: int) -> bool:  # noqa: N802 - SQLite's name
        return False

    def xSectorSize(self) -> int:  # noqa: N802 - SQLite's name
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802 - SQLite's name
        return RENEWED

    def xClose(self) -> None:  # noqa: N802 - SQLite's name
        return


def forgetful(disk: Disk, name: str) -> object:
    """Register `disk` as the SQLite file system `name`. It lives as long as the object returned."""

    class Forgetful(apsw.VFS):
        def __init__(self) -> None:
            super().__init__(name, base="", exclude={"xSetSystemCall", "xGetSystemCall", "xNextSystemCall"})

        def xFullPathname(self, path: str) -> str:  # noqa: N802 - SQLite's name
            return path

        def xAccess(self, path: str, _flags: int) -> bool:  # noqa: N802 - SQLite's name
            return path in disk.names

        def xDelete(self, path: str, sync_folder: bool) -> None:  # noqa: N802 - SQLite's name
            if path not in disk.names:
                raise apsw.IOError  # SQLite then sees that there was nothing to delete
            disk.on_change("delete")
            disk.delete(path)
            if sync_folder:
                disk.on_change("sync")
                disk.sync_names()

        def xOpen(  # type: ignore[override]  # noqa: N802 - SQLite's name, and any object with a file's methods will do
            self, path: Any, flags: list[int]
        ) -> Handle:
            known = path.filename() if isinstance(path, apsw.URIFilename) else path
            flags[1] = flags[0]
            if known is None:
                return Handle(disk, None, Inode(), flags[0])
            inode = disk.names.get(known) or disk.make(known)
            return Handle(disk, known, inode, flags[0])

    return Forgetful()


# --- our statements ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def statements(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a real ledger says to SQLite: made, planned, claimed, then COMMITS group commits of an outcome and an intent."""
    said: list[str] = []

    def listen(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(said.append)

    event.listen(Engine, "connect", listen)
    try:
        ledger = open_sqlite(tmp_path_factory.mktemp("said") / "ledger.sqlite3", create=True)
        try:
            _drive(ledger)
        finally:
            ledger.close()
    finally:
        event.remove(Engine, "connect", listen)
    wanted = [statement for statement in said if not statement.startswith(("PRAGMA", "SELECT", "--"))]
    assert sum(statement.startswith("INSERT INTO attempts") for statement in wanted) == COMMITS
    assert "BEGIN IMMEDIATE" in wanted
    return wanted


def _drive(ledger: Any) -> None:
    with ledger.stage() as staging:
        staging.add(
            [
                PlannedRow(
                    n,
                    n + 2,
                    f"90532{n:07d}",
                    "TR",
                    "",
                    "",
                    "",
                    "https://cdn.example.com/i.jpg",
                    f"Hi {n}",
                    None,
                    b"\1" * 32,
                    "[]",
                )
                for n in range(COMMITS)
            ]
        )
        staging.settle("spring", "first")
        campaign = ledger.adopt(staging, CampaignDraft("spring", "wapim", "sender", ("Phone",), "Phone", {}, "hash"))
    sender = ledger.campaign("spring").sender_id
    hold = Hold(campaign, ledger.begin_run(campaign, "a test", "hash"), sender)
    claims = ledger.claim(hold, COMMITS, 1)
    done: list[Finish] = []
    for claim in claims:
        ledger.apply(hold, done, [Intent(claim, 1)])
        done = [Finish(claim.id, 1, Outcome(Verdict.ACCEPTED, queue_id=f"q{claim.id}"), Status.ACCEPTED, 2)]
    ledger.apply(hold, done, [])


Shares = tuple[float, ...]


@dataclass(slots=True)
class Cut:
    """What one power cut left, and how many attempts had been acknowledged when it came."""

    moment: str
    acknowledged: int
    files: dict[str, bytes]


def cuts(
    statements: list[str], pragmas: tuple[str, ...], chance: random.Random, *, every: int, shares: Callable[[], Shares]
) -> Iterator[Cut]:
    """Replay the statements; cut the power at every sync and at every `every`-th other change, once for each of `shares`."""
    disk = Disk()
    found: list[Cut] = []
    acknowledged = written = changes = 0

    def cut(what: str) -> None:
        nonlocal changes
        changes += 1
        if acknowledged == 0 and written == 0:
            return  # nothing has been promised yet
        if what == "sync" or changes % every == 0:
            found.extend(Cut(f"{what} {changes}", acknowledged, disk.after_a_cut(chance, share)) for share in shares())

    disk.make("/ledger.sqlite3")  # as open_sqlite does, which then writes through a journal and so syncs the folder
    disk.on_change = cut
    vfs = forgetful(disk, "forgetful")
    connection = apsw.Connection("/ledger.sqlite3", vfs="forgetful")
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        for statement in statements:
            connection.execute(statement).fetchall()
            if statement.startswith("INSERT INTO attempts"):
                written += 1
            elif statement == "COMMIT":
                acknowledged = written
                cut("acknowledged")
            yield from found
            found.clear()
        for share in shares():
            yield Cut("the end", acknowledged, disk.after_a_cut(chance, share))
    finally:
        connection.close()
        del vfs


@contextmanager
def revived(folder: Path, files: dict[str, bytes]) -> Iterator[sqlite3.Connection]:
    """The disk after the cut, opened by the library that comes with Python."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name.lstrip("/")).write_bytes(content)
    with open_database(folder / "ledger.sqlite3") as connection:
        yield connection


def lost(folder: Path, cut: Cut) -> int:
    """How many acknowledged attempts are not there any more. Fails when what is there does not fit together."""
    with revived(folder, cut.files) as connection:
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], cut.moment
            attempts = {key for (key,) in connection.execute("SELECT recipient_id FROM attempts")}
            started = {key for (key,) in connection.execute("SELECT id FROM recipients WHERE attempts = 1")}
            settled = {key for (key,) in connection.execute("SELECT id FROM recipients WHERE status = 'accepted'")}
            proved = {key for (key,) in connection.execute("SELECT recipient_id FROM attempts WHERE verdict <> ''")}
        except sqlite3.DatabaseError:
            return cut.acknowledged
        assert attempts == started, f"an intent without its attempt row: {cut.moment}"
        assert settled == proved, f"an outcome without its attempt row: {cut.moment}"
        assert attempts == set(range(1, len(attempts) + 1))
        return max(0, cut.acknowledged - len(attempts))


# --- the promises -----------------------------------------------------------------------------------------------------

SHIPPED = PRAGMAS
NOTHING, SOME, MOST, ALL = (0.0,), (0.3,), (0.8,), (1.0,)


def nothing() -> Shares:
    """Whatever was not synced is gone."""
    return NOTHING


def test_no_acknowledged_commit_is_lost_whenever_the_power_goes(statements: list[str], tmp_path: Path) -> None:
    chance = random.Random(SEED)
    seen = 0

    def shares() -> Shares:
        return (0.0, 0.3, 0.8, 1.0) if FULL else chance.choice((NOTHING, NOTHING, SOME, MOST, ALL))

    for cut in cuts(statements, SHIPPED, chance, every=1 if FULL else 7, shares=shares):
        assert lost(tmp_path, cut) == 0, f"{cut.moment}, seed {SEED}"
        seen += 1
    assert seen > 5 * COMMITS  # each commit syncs its journal twice, the folder twice and the ledger once


@pytest.mark.parametrize(
    "pragmas",
    [
        pytest.param(("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"), id="wal-normal"),
        pytest.param(("journal_mode = DELETE", "synchronous = OFF"), id="off"),
    ],
)
def test_the_unsafe_settings_do_lose_commits_so_the_disk_really_forgets(
    statements: list[str], tmp_path: Path, pragmas: tuple[str, ...]
) -> None:
    *_, last = cuts(statements, pragmas, random.Random(SEED), every=1000, shares=nothing)
    assert last.acknowledged == COMMITS
    assert lost(tmp_path, last) == COMMITS


def test_without_the_folders_sync_a_commit_is_lost_when_the_journals_deletion_is_undone(
    statements: list[str], tmp_path: Path
) -> None:
    """Why the ledger asks for EXTRA: FULL does not sync the deletion, and a journal that comes back rolls the commit back."""
    full = tuple(pragma.replace("EXTRA", "FULL") for pragma in SHIPPED)
    assert full != SHIPPED
    losses = [lost(tmp_path, cut) for cut in cuts(statements, full, random.Random(SEED), every=1000, shares=nothing)]
    assert max(losses) == 1
