"""How fast: one budget per sender, exact in every sliding window. Pure timing; the clock and the sleep are handed in.

Two rules hold at once. *Even spacing* of the shortest window's limit, with a little catching up after a hiccup: no burst at the
start. *Sliding windows*: with a limit of N in W seconds, request k may leave only W after request k-N left. Each limit keeps
a ring of N stamps; two requests with the same place in the ring are at least W apart, so by the pigeonhole principle no
half-open window of length W holds more than N, whatever the order in which the requests really left.

A stamp is taken when the bytes are written, and moved back when the reply shows that the request took longer than the
fastest one so far: it may have arrived later than it was written. (Measured: without this, 1 to 2 % over the limit at the
server at 1,000/s; with it none in 24 runs. A token bucket that starts full lets twice the limit through in its first second.)
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from runner.cooldown import CoolDown, Cooled
from runner.units import Rate

MARGIN = 0.001  # seconds added to every window: between a stamp and the bytes, and between two clocks' ticks
CATCH_UP = 0.2  # seconds of even spacing that may be made up for after a hiccup
LONGEST_LEAD = 0.06  # seconds: at most so early is a slot handed out, to make the intent durable meanwhile
LONGEST_CORRECTION = (
    0.02  # seconds, or 1 % of a longer window: what is slower still is the provider's time, not the way's,
)
OUTLIER = 4  # unless it is so many times as slow as usual: then the way, or the provider's ear, was held up
GIVE_BACK = 2.0  # seconds: the longest wait between intent and request; a slot that must wait longer is given back
LONGEST_SLEEP = 1.0  # seconds: a slot that is dropped meanwhile may make an earlier moment possible
POLL = 0.02  # seconds between looks at whether the probe has been answered
_PENDING = math.inf


class RetiredError(Exception):
    """This gate hands out no more turns; another one has taken its place."""


class _Window:
    """One limit's ring of stamps."""

    def __init__(self, rate: Rate, recent: Sequence[float]) -> None:
        self.count = rate.count
        self.length = rate.window + MARGIN
        self.longest_correction = max(LONGEST_CORRECTION, rate.window / 100)
        self.stamps = array("d", [-math.inf]) * rate.count
        self.next = 0
        for stamp in recent[-rate.count :]:
            self.stamps[self.next % self.count] = stamp
            self.next += 1

    def take(self) -> tuple[int, float]:
        """The next place, and the stamp that stood there."""
        place = self.next % self.count
        self.next += 1
        old, self.stamps[place] = self.stamps[place], _PENDING
        return place, old


class _Usual:
    """How much longer than the fastest a reply usually takes. One that was held up counts little: a pause of the whole machine
    makes many of them (measured: 12 requests read 0.15 s late, and 92 in a second of 80)."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def saw(self, excess: float) -> None:
        """One more reply."""
        self.seconds += 0.05 * (min(excess, 2 * self.seconds + 0.005) - self.seconds)


class Typical:
    """How long something takes, on the long side: mean and twice the mean deviation, as TCP guesses a reply's time."""

    def __init__(self, first_guess: float, longest: float) -> None:
        self._mean = first_guess
        self._off = first_guess / 2
        self._longest = longest

    def add(self, seconds: float) -> None:
        """One more."""
        self._off += 0.1 * (abs(seconds - self._mean) - self._off)
        self._mean += 0.1 * (seconds - self._mean)

    @property
    def seconds(self) -> float:
        """At most the longest."""
        return min(self._mean + 2 * self._off, self._longest)


class Slot:
    """Leave to send one request. `ready`, then `sent` when the bytes are written, `answered` when it is over.

    A slot ends once, with `answered` or `drop`; whatever is called after that changes nothing.
    """

    __slots__ = ("_pace", "even_before", "left_at", "over", "places", "release", "reserved_at", "stamp", "unused")

    def __init__(
        self, pace: Pace, places: Sequence[tuple[int, float]], reserved_at: float, release: float, even_before: float
    ) -> None:
        self._pace = pace
        self.places = places  # in each ring: the place, and the stamp that stood there before
        self.reserved_at = reserved_at
        self.release = release  # not before this moment
        self.even_before = even_before
        self.left_at: float | None = None  # when it was let go
        self.stamp: float | None = None  # when its bytes were written
        self.over = False
        self.unused = False

    def ready(self) -> Coroutine[Any, Any, bool]:
        """Wait for the exact moment. False: the sender has been told to wait meanwhile, the slot is given back."""
        return self._pace._ready(self)

    async def leaves(self) -> bool:
        """At once: `ready` was the moment, and what connecting took is corrected by the stamp."""
        return True

    def sent(self) -> None:
        """The request's bytes are being written."""
        if self.stamp is None and not self.over:
            self._pace._stamp(self)

    def answered(self, *, complete: bool = True, came_at: float | None = None) -> None:
        """It is over: the reply is complete, or lost. Without `sent` before, nothing was used up.

        `came_at`: when the reply's first bytes came, by the pace's own clock. Until they are read the loop may do other things.
        """
        if not self.over:
            self._pace._answered(self, complete=complete, came_at=came_at)

    def drop(self) -> None:
        """Nothing will be sent after all: nothing is used up. After `sent` the same as `answered`."""
        self.answered(complete=False)


class Pace(Cooled):
    """The budget of one sender. `recent` are ages in seconds of its last requests (of earlier runs, too), oldest first."""

    def __init__(
        self,
        rates: Sequence[Rate],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        recent: Sequence[float] = (),
        paused_for: float = 0.0,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        now = clock()
        past = sorted(now - age for age in recent)
        self._windows = [_Window(rate, past) for rate in rates]
        quickest = shortest(rates)
        self._gap = quickest.window / quickest.count if quickest is not None else 0.0
        self._next_even = past[-1] + self._gap if past else -math.inf  # the grid starts with the first request
        self._cool = CoolDown(clock, paused_for)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._lead = Typical(
            0.0, LONGEST_LEAD
        )  # from a turn to its durable intent; a slot that is late is late for ever after
        self._fastest = math.inf
        self._usual = _Usual()
        self._granted: deque[Slot] = deque()  # under a limit: in the order handed out, from the first not yet written
        self._queued = 0  # who has to wait for a turn
        self._unwritten = 0  # slots that are neither written nor over
        self._outstanding = 0  # slots that are not over
        self._leaving = 0  # of these: let go, a reply to come
        self._started = False
        self._retired = False
        self.slowest = 0.0  # seconds: the longest way so far from a turn to its request's bytes

    # --- one request ------------------------------------------------------------------------------------------------

    async def reserve(self) -> Slot:
        """Wait for a turn, first come first served. Cancelling gives the turn to the next one; nothing is used up.

        Raises RetiredError.
        """
        if not self._queued:
            turn = self._at_once()
            if isinstance(turn, Slot):
                return turn
        self._queued += 1
        try:
            async with self._turn:
                while not isinstance(turn := self._at_once(), Slot):
                    if turn == math.inf:
                        await self._change()
                    else:
                        await self._sleep(min(max(turn, 0.001), LONGEST_SLEEP))
                return turn
        finally:
            self._queued -= 1

    async def retire(self) -> CoolDown:
        """Hand out no more turns, and wait until the requests of all that were handed out are written or given back.

        Returns what the next gate must know: how long everybody waits after a refusal. Who is asleep in `reserve` is told
        within LONGEST_SLEEP.
        """
        self._retired = True
        self._changed.set()
        while self._unwritten:
            await self._change()
        return self._cool

    def _at_once(self) -> Slot | float:
        """A turn; or the seconds in which there certainly is none, infinite when something else must happen first."""
        if self._retired:
            raise RetiredError
        if self._cool.probing and self._outstanding:
            return math.inf
        now, release = self._clock(), self._earliest()
        wait = release - self._lead.seconds - now  # infinite, too: the request N places before has not been written yet
        return self._grant(now, release) if wait <= 0 else wait

    def _grant(self, now: float, release: float) -> Slot:
        even_before = self._next_even
        if self._gap:
            # The time before the first request and a pause are no hiccups to be made up for: that would be a burst after them.
            floor = max(now - CATCH_UP, self._cool.until) if self._started else now
            self._next_even = max(self._next_even, floor) + self._gap
        self._started = True
        if self._windows:
            slot = Slot(self, [window.take() for window in self._windows], now, release, even_before)
            self._granted.append(slot)
        else:
            slot = Slot(self, (), now, release, even_before)
        self._unwritten += 1
        self._outstanding += 1
        return slot

    def _earliest(self) -> float:
        earliest = max(self._next_even, self._cool.until)
        for window in self._windows:
            earliest = max(earliest, window.stamps[window.next % window.count] + window.length)
        return earliest

    async def _change(self) -> None:
        """Until some slot is written or over, or probing ends. Only the holder of the turn waits here, and `retire`."""
        self._changed.clear()
        await self._changed.wait()

    async def _ready(self, slot: Slot) -> bool:
        arrived = now = self._clock()
        if self._gap:
            self._lead.add(arrived - slot.reserved_at)
        try:
            while not slot.over:
                wait = max(slot.release, self._cool.until) - now
                if wait <= 0 and not (self._cool.probing and self._leaving):
                    slot.left_at = now
                    self._leaving += 1
                    return True
                if now - arrived + max(wait, 0.0) > GIVE_BACK:
                    break
                await self._sleep(max(wait, 0.001) if wait > 0 else POLL)
                now = self._clock()
        except BaseException:
            slot.drop()
            raise
        slot.drop()
        return False

    def _stamp(self, slot: Slot) -> None:
        slot.stamp = stamp = self._clock()
        self._unwritten -= 1
        self.slowest = max(self.slowest, stamp - slot.reserved_at)
        if self._windows:
            for window, (place, _) in zip(self._windows, slot.places, strict=True):
                window.stamps[place] = stamp
            self._tidy()
        self._changed.set()

    def _answered(self, slot: Slot, *, complete: bool, came_at: float | None) -> None:
        slot.over = True
        if slot.stamp is None:
            slot.unused = True
            self._unwritten -= 1
            for window, (place, old) in zip(self._windows, slot.places, strict=True):
                window.stamps[place] = old
            self._tidy()
        elif self._windows:
            took = (self._clock() if came_at is None else came_at) - slot.stamp
            self._correct(slot.places, slot.stamp, took, complete=complete)
        if slot.left_at is not None:
            self._leaving -= 1
        self._outstanding -= 1
        self._changed.set()

    def _tidy(self) -> None:
        """Unused slots at the end of the row give their turn to the next one; those in its middle only lose it."""
        while self._granted and self._granted[-1].unused:
            slot = self._granted.pop()
            self._next_even = slot.even_before
            for window in self._windows:
                window.next -= 1
        while self._granted:  # what stands before a written one can give nothing back any more
            if self._granted[0].stamp is not None:
                self._granted.popleft()
                continue
            unused = next((i for i, slot in enumerate(self._granted) if not slot.unused), len(self._granted))
            if unused == len(self._granted) or self._granted[unused].stamp is None:
                return
            for _ in range(unused + 1):
                self._granted.popleft()

    def _correct(self, places: Sequence[tuple[int, float]], stamp: float, took: float, *, complete: bool) -> None:
        if complete:  # a connection that breaks at once says nothing about the way there
            self._fastest = min(self._fastest, took)
        excess = max(took - self._fastest, 0.0)
        held_up = excess > OUTLIER * self._usual.seconds
        self._usual.saw(excess)
        for window, (place, _) in zip(self._windows, places, strict=True):
            if window.stamps[place] == stamp:  # not yet handed on to the next request in this place
                window.stamps[place] = stamp + (excess if held_up else min(excess, window.longest_correction))


def shortest(rates: Sequence[Rate]) -> Rate | None:
    """The limit of the shortest window, the strictest of several."""
    return min(rates, key=lambda rate: (rate.window, rate.count), default=None)


def seconds_for(count: int, rates: Sequence[Rate]) -> float:
    """How long `count` requests take at least under these limits, from a standing start; 0 without limits."""
    quickest = shortest(rates)
    if quickest is None or count <= 0:
        return 0.0
    gap = quickest.window / quickest.count
    waits = ((*divmod(count - 1, rate.count), rate.window) for rate in rates)
    return max(full * window + rest * gap for full, rest, window in waits)
