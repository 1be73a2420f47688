"""One pace for all runs of an embedded ledger that send through one sender.

A run that is alone has its own gate (`pace`), which is exact and asks nobody. When another one comes, the first hands out no
more turns, waits until the requests of all it has handed out are written, and notes in the ledger when everything was sent.
From then on both take slots from there (`sharedpace`), to the end of each: counting goes on over the change, so no window that
reaches across it holds too many. The second one begins only then. (Measured: slots use 97 % of a limit at best, the gate of
its own 99 %; and a run that is alone saves itself a commit for every 50 ms of slots.)
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager

from runner.campaign import Campaign
from runner.cooldown import CoolDown
from runner.ledger.slots import SET_OFF_US, Slots
from runner.ledger.sql import SqlLedger
from runner.lock import SenderHold, sender_lock
from runner.pace import LONGEST_CORRECTION, Pace, RetiredError
from runner.sharedpace import budget_of, open_shared_pace
from runner.turns import Gate, Turn
from runner.units import Rate

LOOK_SECONDS = 0.5  # between looks of a run that is alone at whether another one has come
TURN_SECONDS = 0.1  # between looks of the other one at whether it may come in
WORTH_TELLING = 2.0  # seconds: a wait so long is that for a reply, or for a run that knows of no sharing

SHARED = "other campaigns are being sent through the same account: they share its pace"
SHARED_NOW = "another campaign is being sent through the same account: from now on they share its pace"


@contextmanager
def place_at_sender(
    campaign: Campaign, ledger: SqlLedger, campaign_id: int, owner: str, tell: Callable[[str], None]
) -> Iterator[SenderHold | None]:
    """This run's place at its sender; None when the campaign was paused or cancelled while it waited for one."""

    began, told = time.monotonic(), list[str]()

    def wait(other: str) -> bool:
        if not told and time.monotonic() - began > WORTH_TELLING:
            told.append(other)
            tell(f"waiting: the same account is sending for {other}")
        time.sleep(TURN_SECONDS)
        return ledger.state(campaign_id) == "open"

    sender = ledger.fingerprint(campaign.provider.sender(campaign.settings))
    folder = ledger.folder or campaign.workspace.reports  # two workspaces may have chosen one ledger
    with sender_lock(folder, sender, f"campaign {campaign.name}, {owner}", wait) as hold:
        if hold is None:
            yield None
            return
        if not hold.alone:
            tell(SHARED)
        ledger.steady = hold.clock
        try:
            yield hold
        finally:
            ledger.steady = None


class SwitchingGate:
    """A gate that becomes another one while it is in use. Turns of the first end as turns of the first."""

    def __init__(self, first: Gate) -> None:
        self._gate = first
        self._known = asyncio.Event()  # which one comes next, or that none does
        self._error: BaseException | None = None

    def switch(self, gate: Gate) -> None:
        """From now on this one."""
        self._gate = gate
        self._known.set()

    def fail(self, error: BaseException) -> None:
        """There is no other one: `reserve` raises this."""
        self._error = error
        self._known.set()

    async def reserve(self) -> Turn:
        """See `Gate`. Raises LedgerError."""
        try:
            return await self._gate.reserve()
        except RetiredError:
            await self._known.wait()
        if self._error is not None:
            raise self._error
        return await self._gate.reserve()

    def cool_down(self, asked: float | None = None, slot: Turn | None = None) -> float:
        """See `Gate`."""
        return self._gate.cool_down(asked, slot)

    def reached(self, slot: Turn | None = None) -> None:
        """See `Gate`."""
        self._gate.reached(slot)

    @property
    def cool_downs_in_a_row(self) -> int:
        """See `Gate`."""
        return self._gate.cool_downs_in_a_row


@asynccontextmanager
async def open_gate(
    hold: SenderHold, alone: Callable[[], Pace], slots: Slots, rates: Sequence[Rate], tell: Callable[[str], None]
) -> AsyncIterator[Gate]:
    """The gate of a run with this place at its sender. `alone` makes the one for a run that is alone."""

    def shared(cool: CoolDown | None = None) -> AbstractAsyncContextManager[Gate]:
        return open_shared_pace(slots, rates, rebuild=False, cool=cool, set_off=SET_OFF_US / 1e6)

    async with AsyncExitStack() as stack:
        if not hold.alone:
            yield await stack.enter_async_context(shared())
            return
        since, first = hold.clock(), alone()
        gate = SwitchingGate(first)

        async def change() -> None:
            try:
                cool = await _let_in(hold, first, since, slots, rates)
                gate.switch(await stack.enter_async_context(shared(cool)))
                tell(SHARED_NOW)
            except Exception as error:
                gate.fail(error)

        changing = asyncio.create_task(change(), name="sharing")
        try:
            yield gate
        finally:
            changing.cancel()
            await asyncio.gather(changing, return_exceptions=True)


async def _let_in(hold: SenderHold, first: Pace, since: int, slots: Slots, rates: Sequence[Rate]) -> CoolDown:
    """When another run has come: settle what was sent, and let it in. Raises LedgerError."""
    while not hold.wanted():  # noqa: ASYNC110 - nobody announces a lock
        await asyncio.sleep(LOOK_SECONDS)
    cool = await first.retire()
    slowest = math.ceil((first.slowest + LONGEST_CORRECTION) * 1e6)
    await asyncio.to_thread(slots.follow, budget_of(rates)[0].gap, since, slowest)
    hold.share()
    return cool
