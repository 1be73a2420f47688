"""One budget per sender for many processes and machines: slots are taken from the ledger in blocks, ahead of need.

A slot is a moment, and it *expires*: a request may leave in [release, release + slack], not later, whatever its process has been
through (a long commit, a busy machine, SIGSTOP). So the requests of any window W come from the slots of W + slack, and with
slots (W + slack + MARGIN) / count apart there are at most `count` of these. What is late takes another slot.

No two clocks are compared. The ledger answers 'your first slot is in d'; it said so between our question and our hearing the
answer, so by our own clock the slot is released at heard + d and expires at asked + d + slack: a slow answer costs slack, never
exactness. (Where the ledger is a file, its clock is the one that all processes of the machine count by: no slack is lost.)
The price is the slack: with 30 ms of it 97 % of a limit a second are used at best.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import insort
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from runner.cooldown import CoolDown, Cooled
from runner.ledger.slots import Budget, Granted, Slots
from runner.pace import POLL, Typical, shortest
from runner.units import Rate

MARGIN = 0.002  # seconds added to every window: timers and clocks of many machines have a grain of 1 ms
SLACK = 0.03  # of the shortest window
LONGEST_SLACK = 0.25  # seconds
BLOCK_SECONDS, BLOCK_AT_MOST = 0.05, 20  # slots taken at once
LONGEST_LEAD = 0.25  # seconds: at most so early is a slot handed out, to make the intent durable and connect meanwhile
PATIENCE = 1.0  # seconds: the longest wait between intent and request
LONGEST_SLEEP = 1.0  # seconds: meanwhile a nearer moment may have been given back
LOOK_AGAIN = 60.0  # seconds between questions while there are no slots to be had
WORTH_PROBING = 0.5  # seconds: a refusal of slots for longer means that somebody was told to slow down

Take = Callable[[int, Budget, float], Awaitable[Granted]]


def budget_of(rates: Sequence[Rate]) -> tuple[Budget, float]:
    """The slots of these limits, and how late one may be used (seconds)."""
    quickest = shortest(rates)
    if quickest is None:
        return Budget(0), LONGEST_SLEEP
    slack = min(SLACK * quickest.window, LONGEST_SLACK)
    spans = {rate: (rate.count, math.ceil((rate.window + slack + MARGIN) * 1e6)) for rate in rates}
    shortest_span = spans.pop(quickest)
    return Budget(math.ceil(shortest_span[1] / shortest_span[0]), tuple(spans.values()), shortest_span), slack


@dataclass(frozen=True, slots=True, order=True)
class _Moment:
    """A slot nobody has yet. `first` is the release of the first one of its block."""

    release: float
    expires: float
    first: float


class Lead:
    """How early a slot must be handed out: for its commit and its connection. Kept by a process from one gate to the next."""

    def __init__(self) -> None:
        self.commit, self.connect = Typical(0.02, LONGEST_LEAD), Typical(0.005, LONGEST_LEAD)

    @property
    def seconds(self) -> float:
        """Seconds before the slot's moment."""
        return min(self.commit.seconds + self.connect.seconds, LONGEST_LEAD)


class SharedSlot:
    """See `Turn`. It stands for one of its gate's moments, and gets it when its connection stands."""

    __slots__ = ("_pace", "begun_at", "left_at", "moment", "over", "patience", "reserved_at")

    def __init__(self, pace: SharedPace, reserved_at: float) -> None:
        self._pace = pace
        self.reserved_at = reserved_at
        self.begun_at: float | None = None  # when `ready` let it go on to connect
        self.moment: _Moment | None = None
        self.left_at: float | None = None
        self.patience = math.inf
        self.over = False

    async def ready(self) -> bool:
        """At once; False when everybody has been told to wait meanwhile, the slot is given back then."""
        return self._pace._ready(self)

    async def leaves(self) -> bool:
        """Wait for the next moment. False: nothing may be written, the slot is given back."""
        return await self._pace._leaves(self)

    def sent(self) -> None:
        """Nothing to do: the slot was used up when it was taken."""

    def answered(self, *, complete: bool = True, came_at: float | None = None) -> None:
        """It is over."""
        del complete, came_at
        if not self.over:
            self._pace._over(self)

    def drop(self) -> None:
        """Nothing will be sent after all: somebody else here may use its moment."""
        self.answered(complete=False)


class SharedPace(Cooled):
    """The gate of one process to one sender's shared budget. `take` asks the ledger for slots.

    `cool`: what the gate before this one has learnt. `set_off`: no request leaves more than so many seconds after its turn.
    """

    def __init__(
        self,
        rates: Sequence[Rate],
        *,
        take: Take,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        lead: Lead | None = None,
        cool: CoolDown | None = None,
        set_off: float = math.inf,
    ) -> None:
        self._budget, self._slack = budget_of(rates)
        gap = self._budget.gap / 1e6
        self._block = BLOCK_AT_MOST if gap == 0 else min(max(round(BLOCK_SECONDS / gap), 1), BLOCK_AT_MOST)
        self._take = take
        self._clock = clock
        self._sleep = sleep
        self._pool: list[_Moment] = []  # in order; nobody has them yet
        self._promised = 0  # slots handed out that will take a moment from the pool
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None
        self._waiting = 0
        self._outstanding = 0  # slots handed out and not over
        self._leaving = 0  # of these: let go, a reply to come
        self._lead = lead or Lead()
        self._cool = cool or CoolDown(clock)
        self._set_off = set_off
        self._answer = Typical(0.005, LONGEST_LEAD)
        self._wait_for_answer = 0.0  # where it does not come out of the slack
        self.late = 0  # moments that expired unused

    async def close(self) -> None:
        """Ask for no more slots."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)

    # --- one request ------------------------------------------------------------------------------------------------

    async def reserve(self) -> SharedSlot:
        """Wait for a turn, first come first served. Raises LedgerError when there is no way to ask for one."""
        self._waiting += 1
        try:
            async with self._turn:
                while True:
                    if self._cool.probing and self._outstanding:
                        self._changed.clear()
                        await self._changed.wait()
                        continue
                    self._expire()
                    if len(self._pool) <= self._promised:
                        await self._filled()
                        continue
                    # The whole block at once: its intents then share one commit.
                    moment = max(self._pool[self._promised].first, self._cool.until)
                    wait = moment - self._lead.seconds - self._clock()
                    if wait <= 0:
                        return self._grant()
                    await self._sleep(min(max(wait, 0.001), LONGEST_SLEEP))
        finally:
            self._waiting -= 1

    def _grant(self) -> SharedSlot:
        self._promised += 1
        self._outstanding += 1
        if self._waiting - 1 > len(self._pool) - self._promised and not self._cool.probing:
            self._fill_up()
        return SharedSlot(self, self._clock())

    def _expire(self) -> None:
        now = self._clock()
        while self._pool and self._pool[0].expires < now:
            self._pool.pop(0)
            self.late += 1

    def _ready(self, slot: SharedSlot) -> bool:
        now = self._clock()
        self._lead.commit.add(now - slot.reserved_at)
        slot.begun_at = now
        slot.patience = min(now + PATIENCE, slot.reserved_at + self._set_off)
        if not slot.over and max(self._cool.until, now) <= slot.patience:
            return True
        slot.drop()
        return False

    async def _leaves(self, slot: SharedSlot) -> bool:
        """The earliest moment goes to whoever is there first: what was late with its commit takes one that is still to come."""
        if slot.begun_at is not None:
            self._lead.connect.add(self._clock() - slot.begun_at)
        try:
            while not slot.over and await self._has_moment(slot):
                assert slot.moment is not None  # noqa: S101 - it has one
                now = self._clock()
                wait = max(slot.moment.release, self._cool.until) - now
                if wait <= 0 and not (self._cool.probing and self._leaving):
                    slot.left_at = now
                    self._leaving += 1
                    return True
                if now + max(wait, 0.0) > slot.patience:
                    break
                await self._sleep(max(wait, 0.001) if wait > 0 else POLL)
        except BaseException:
            slot.drop()
            raise
        slot.drop()
        return False

    async def _has_moment(self, slot: SharedSlot) -> bool:
        """See to it that the slot has a moment that has not expired; False when there is none soon enough."""
        while True:
            now = self._clock()
            if slot.moment is not None:
                if now <= slot.moment.expires:
                    return True
                slot.moment = None
                self._promised += 1
                self.late += 1
            self._expire()
            if self._pool and self._pool[0].release <= slot.patience:
                slot.moment = self._pool.pop(0)
                self._promised -= 1
            elif self._pool or now >= slot.patience:
                return False
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._filled(), slot.patience - now)

    def _over(self, slot: SharedSlot) -> None:
        slot.over = True
        self._outstanding -= 1
        if slot.left_at is not None:
            self._leaving -= 1
        elif slot.moment is None:
            self._promised -= 1
        else:
            insort(self._pool, slot.moment)
        self._changed.set()

    # --- slots ahead of need ----------------------------------------------------------------------------------------------

    async def _filled(self) -> None:
        """Wait for more slots, or for a better time to ask."""
        await asyncio.shield(self._fill_up())

    def _fill_up(self) -> asyncio.Task[None]:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(), name="slots")
            self._filling.add_done_callback(_look_at)
        return self._filling

    async def _fill(self) -> None:
        block = self._block
        if self._wait_for_answer and self._budget.gap:  # or the next block would come when this one is long used up
            block = min(max(block, math.ceil(2e6 * self._wait_for_answer / self._budget.gap)), BLOCK_AT_MOST)
        wanted = min(block, max(self._waiting + self._promised - len(self._pool), 1))
        asked = self._clock()
        granted = await self._take(wanted, self._budget, self._lead.seconds + self._wait_for_answer)
        heard = self._clock()
        if granted.said_at is not None:
            self._answer.add(heard - granted.said_at)
            self._wait_for_answer = self._answer.seconds
            asked = heard = granted.said_at
        if granted.n == 0:
            if granted.delay > WORTH_PROBING:
                self._cool.probing = True
            await self._sleep(min(max(granted.delay, 0.005), LOOK_AGAIN))
            return
        first = heard + granted.delay
        for i in range(granted.n):
            ahead = granted.delay + i * granted.gap
            insort(self._pool, _Moment(heard + ahead, asked + ahead + self._slack, first))


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits for slots hears of it; with nobody waiting it is no news


@asynccontextmanager
async def open_shared_pace(
    slots: Slots,
    rates: Sequence[Rate],
    lead: Lead | None = None,
    *,
    rebuild: bool = True,
    cool: CoolDown | None = None,
    set_off: float = math.inf,
) -> AsyncIterator[SharedPace]:
    """The gate, with a thread of its own for its questions: a slot must not wait for a commit.

    `rebuild`: see `Slots.rebuild`; once for a run is enough. `cool`, `set_off`: see `SharedPace`.
    """
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="slots")

    async def take(n: int, budget: Budget, lead: float) -> Granted:
        return await loop.run_in_executor(thread, slots.reserve, n, budget, lead)

    pace = SharedPace(rates, take=take, clock=time.monotonic, lead=lead, cool=cool, set_off=set_off)
    try:
        if rebuild:
            await loop.run_in_executor(thread, slots.rebuild, budget_of(rates)[0].gap)
        yield pace
    finally:
        await pace.close()
        with suppress(RuntimeError):
            thread.shutdown()
