"""Group commit: what the engine wants recorded goes to the ledger in batches, from one writer thread.

A batch is committed as soon as the one before is: with 50 requests in flight 50 intents share one sync of the disk, and a
single request waits for one. Where several come together, the next few milliseconds' worth are waited for: without that half
of the workers wait for a commit while the others' replies come in, and there are twice as many commits and hand-overs between
the threads (measured: a third more messages a second).

Outcomes go first in their batch, so when an intent is durable the worker's previous outcome is too: never more rows in
flight in the ledger than requests in flight. Claims go last, with a batch that there is anyway (measured: a twentieth more
messages a second than with commits of their own, one for every four batches).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from runner.errors import TakenOverError
from runner.ledger.base import Applied, Claim, Finish, Hold, Intent, Wanted
from runner.ledger.slots import Slots
from runner.ledger.sql import SqlLedger

T = TypeVar("T")

COMPANY = 0.05  # seconds that an outcome waits for an intent to share its commit, where a commit goes over the network
CLAIM_COMPANY = 0.2  # seconds that a claim waits for a batch to go with, while there are recipients left to begin
BLOCK_SECONDS = 0.003  # in which those who were given slots, or got their replies, together ask for their commit
DENSE = 2  # intents in a batch; after more than these the next batch is waited for


class Recorder:
    """The engine's only way to the ledger. `failed` is the error that ended all writing, if any."""

    def __init__(self, ledger: SqlLedger, hold: Hold, *, company: float = 0.0) -> None:
        self._ledger = ledger
        self._hold = hold
        self._company = company  # seconds that outcomes wait for an intent to share its commit
        self._asked = asyncio.Event()  # somebody waits for a commit
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._finishes: list[Finish] = []
        self._intents: list[Intent] = []
        self._waiting: list[asyncio.Future[Applied]] = []  # one for each intent, and one for who wants claims
        self._wanted: Wanted | None = None
        self._alone = False  # these claims wait no longer for a batch to go with
        self._dense = False
        self._flying = (
            0  # durable intents without an outcome (or of a worker that was stopped: the others then wait in vain)
        )
        self._landed = asyncio.Event()  # none of them
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pump: asyncio.Task[None] | None = None
        self._on_failure: Callable[[BaseException], None] = lambda _: None
        self.failed: BaseException | None = None
        self.state = "open"

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Start the pump; `on_failure` is called once when the ledger cannot be written any more."""
        self._on_failure = on_failure
        self._pump = asyncio.create_task(self._run(), name="recorder")

    async def begin(self, intent: Intent) -> str | None:
        """Returns when the intent is durable (None), or the word for why a last gate refused it. Raises LedgerError."""
        if self.failed is not None:
            raise self.failed
        self._intents.append(intent)
        said = self._ask()
        self._asked.set()
        self._wake()
        applied = await said
        return applied.refused.get(intent.claim.id)

    async def claim(self, wanted: Wanted, *, hurry: bool) -> Sequence[Claim]:
        """Claim recipients; one caller at a time. Raises TakenOverError, LedgerError.

        Without `hurry` with the next batch, if one comes soon: in a commit of their own they would part those whose replies
        come together, and each of the two groups would need its own commits from then on.
        """
        if self.failed is not None:
            raise self.failed
        self._wanted = wanted
        said = self._ask()
        patience = asyncio.get_running_loop().call_later(0.0 if hurry else CLAIM_COMPANY, self._claim_alone)
        try:
            applied = await said
        finally:
            patience.cancel()
        if not applied.ours:
            raise TakenOverError.said()
        return applied.claims

    def _claim_alone(self) -> None:
        if self._wanted is not None:  # else they are with a batch just now
            self._alone = True
            self._asked.set()
            self._wake()

    def _ask(self) -> asyncio.Future[Applied]:
        """What the ledger says to the next batch."""
        said: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._waiting.append(said)
        return said

    def finish(self, finish: Finish) -> None:
        """Record what became of an attempt, with the next batch."""
        self._finishes.append(finish)
        self._flying -= 1
        if self._flying <= 0:
            self._landed.set()
        self._wake()

    def _wake(self) -> None:
        if self.failed is None:  # after a failure nobody would ever say 'idle' again
            self._idle.clear()
            self._work.set()

    async def next_due(self, only: Sequence[str] | None) -> int | None:
        """When the next waiting recipient may be tried; None when nobody waits."""
        return await self.call(lambda: self._ledger.next_due(self._hold, only))

    async def campaign_state(self) -> str:
        """open, paused or cancelled."""
        return await self.call(lambda: self._ledger.state(self._hold.campaign_id))

    async def pause_sender(self, seconds: float) -> None:
        """Remember the sender's cool-down, which lasts so long from now on, for other runs and workers."""
        await self.call(lambda: Slots(self._ledger, self._hold.sender_id).pause(seconds))

    async def release(self, ids: Sequence[int]) -> None:
        """Claimed rows that were never begun are pending again."""
        await self.call(lambda: self._ledger.release(self._hold, ids))

    async def call(self, function: Callable[[], T]) -> T:
        """Run any other ledger call in the writer thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, function)

    async def flush(self) -> None:
        """Wait until everything said so far is durable. Raises the ledger's error."""
        self._asked.set()
        await self._idle.wait()
        if self.failed is not None:
            raise self.failed

    async def close(self) -> None:
        """Write what is left and let go of the thread. Raises the ledger's error if something could not be written."""
        if self.failed is None:
            await self._idle.wait()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        try:
            if self._finishes:  # the ledger failed earlier: try once more, outcomes are worth it
                finishes, self._finishes = self._finishes, []
                self._ledger.use_spare_space()
                await self.call(lambda: self._ledger.apply(self._hold, finishes, ()))
        finally:
            self._writer.shutdown()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._finishes or self._intents or self._alone:
                await self._gather()
                self._asked.clear()
                finishes, self._finishes = self._finishes, []
                intents, self._intents = self._intents, []
                waiting, self._waiting = self._waiting, []
                wanted, self._wanted, self._alone = self._wanted, None, False
                self._dense = len(intents) > DENSE
                try:
                    applied = await self.call(partial(self._ledger.apply, self._hold, finishes, intents, wanted))
                except BaseException as error:
                    self._fail(error, finishes, waiting)
                    return
                self.state = applied.state
                self._flying += len(intents) - len(applied.refused)
                self._landed.clear()
                for each in waiting:
                    if not each.done():
                        each.set_result(applied)
            self._idle.set()

    async def _gather(self) -> None:
        """A commit over the network is worth waiting for others: outcomes for an intent, the first intent of a block of slots
        for the rest of it (measured with PostgreSQL: half the commits)."""
        if self._company and not self._intents:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._company)
        if self._company:
            await asyncio.sleep(BLOCK_SECONDS)
        elif self._dense and self._flying > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._landed.wait(), BLOCK_SECONDS)
            await asyncio.sleep(0)  # whose reply was the last one asks for the next intent now

    def _fail(self, error: BaseException, finishes: list[Finish], waiting: list[asyncio.Future[Applied]]) -> None:
        """Nothing more is begun; outcomes are kept for a last try at the end."""
        self.failed = error
        self._finishes = finishes + self._finishes
        for each in (*waiting, *self._waiting):
            if not each.done():
                each.set_exception(error)
                each.exception()  # somebody may have stopped waiting; that is no news then
        self._idle.set()
        self._on_failure(error)
