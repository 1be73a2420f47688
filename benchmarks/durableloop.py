"""The tuned aiohttp loop with the least that 'nobody twice, nobody lost' needs: a floor for whoever makes that promise.

One narrow table in SQLite with the ledger's own journal and syncs, `in_flight` in it before a request leaves, `accepted` with the
provider's id afterwards; whoever waits shares one commit, all its rows in one statement, from one thread. No plan, gate, hash,
list of attempts, time limit of a whole exchange, reading of refusals, retry, breaker, claim or progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import orjson

JOURNALS = {
    "rollback": ("journal_mode = DELETE", "synchronous = EXTRA"),  # as runner/ledger/sqlite.py
    "wal": ("journal_mode = WAL", "synchronous = FULL"),  # its corruption race takes two connections; here is one
    "none": ("journal_mode = MEMORY", "synchronous = OFF"),  # survives nothing: what the syncs cost
}
COMPANY = 0.003  # seconds in which those whose replies come together ask for one commit; less was no faster (measured)
_SENT = "UPDATE recipients SET status = 'in_flight' WHERE id IN (SELECT value FROM json_each(?))"
_ACCEPTED = (
    "UPDATE recipients SET status = 'accepted', queue_id = x.queue_id FROM "
    "(SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS queue_id FROM json_each(?)) AS x "
    "WHERE recipients.id = x.id"
)


class _Ledger:
    """The table, and who waits for a commit."""

    def __init__(self, path: Path, count: int, journal: str) -> None:
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in JOURNALS[journal]:
            self._file.execute(f"PRAGMA {pragma}")
        self._file.executescript(
            "CREATE TABLE recipients (id INTEGER PRIMARY KEY, status TEXT NOT NULL, queue_id TEXT NOT NULL DEFAULT '')"
        )
        pending = orjson.dumps(list(range(count))).decode()
        self._file.execute("INSERT INTO recipients (id, status) SELECT value, 'pending' FROM json_each(?)", (pending,))
        self._accepted: list[tuple[int, str]] = []
        self._sent: list[int] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._flying = 0
        self._over = False
        self._asked, self._landed = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def begin(self, key: int) -> None:
        """Returns when it is durable that this one may have been sent."""
        durable = asyncio.get_running_loop().create_future()
        self._sent.append(key)
        self._waiting.append(durable)
        self._asked.set()
        await durable

    def finish(self, key: int, queue_id: str) -> None:
        """Durable with the next commit."""
        self._accepted.append((key, queue_id))
        self._flying -= 1
        if not self._flying:
            self._landed.set()
        self._asked.set()

    async def commit(self) -> None:
        """One batch after the other, until `stop`."""
        loop = asyncio.get_running_loop()
        while not self._over:
            await self._asked.wait()
            if self._flying:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._landed.wait(), COMPANY)
                await asyncio.sleep(0)
            self._asked.clear()
            accepted, sent, waiting = self._accepted, self._sent, self._waiting
            self._accepted, self._sent, self._waiting = [], [], []
            await loop.run_in_executor(self._thread, self._write, accepted, sent)
            self._flying += len(sent)
            self._landed.clear()
            for durable in waiting:
                durable.set_result(None)

    def stop(self) -> None:
        """Nobody is to begin any more. (Not by cancelling: in Python 3.11 `wait_for` may swallow that.)"""
        self._over = True
        self._asked.set()

    def close(self) -> None:
        """Write what is left."""
        self._thread.shutdown()
        self._write(self._accepted, [])
        settled = self._file.execute("SELECT count(*) = sum(status = 'accepted') FROM recipients").fetchone()
        self._file.close()
        if settled != (1,):
            raise RuntimeError("the ledger does not say of everybody what became of them")

    def _write(self, accepted: list[tuple[int, str]], sent: list[int]) -> None:
        self._file.execute("BEGIN IMMEDIATE")
        if accepted:
            self._file.execute(_ACCEPTED, (orjson.dumps(accepted).decode(),))
        if sent:
            self._file.execute(_SENT, (orjson.dumps(sent).decode(),))
        self._file.execute("COMMIT")


async def durable_loop(
    session: aiohttp.ClientSession, url: str, body: bytes, count: int, in_flight: int, journal: str
) -> None:
    """Post `body` so many times, with one of JOURNALS."""
    sys.setswitchinterval(0.0005)  # as the runner: the loop must not wait 5 ms for the thread to let go
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ledger = _Ledger(Path(folder) / "ledger.sqlite3", count, journal)
        keys = iter(range(count))

        async def work() -> None:
            for key in keys:
                await ledger.begin(key)
                async with session.post(url, data=body, allow_redirects=False) as response:
                    reply = await response.read()
                ledger.finish(key, orjson.loads(reply)["queue_message_id"])

        async with asyncio.TaskGroup() as group:
            group.create_task(ledger.commit())
            await asyncio.gather(*(work() for _ in range(in_flight)))
            ledger.stop()
        ledger.close()
