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
from collections.abc import Awaitable, Callable, Sequence

from runner.units import Rate

MARGIN = 0.002  # seconds added to every window: timers and clocks have a grain of 1 ms
CATCH_UP = 0.2  # seconds of even spacing that may be made up for after a hiccup
LONGEST_LEAD = 0.02  # seconds: at most so early is a slot handed out, to make the intent durable meanwhile
LONGEST_CORRECTION = 0.025  # seconds: a slower reply says more about the provider than about the way there
GIVE_BACK = 2.0  # seconds: a slot that must wait longer than this after its intent is given back instead
FIRST_COOL_DOWN, LONGEST_COOL_DOWN = 1.0, 60.0
_PENDING = math.inf


class _Window:
    """One limit's ring of stamps."""

    def __init__(self, rate: Rate, recent: Sequence[float]) -> None:
        self.count = rate.count
        self.length = rate.window + MARGIN
        self.stamps = array("d", [-math.inf]) * rate.count
        self.next = 0
        for stamp in recent[-rate.count :]:
            self.stamps[self.next % self.count] = stamp
            self.next += 1


class Slot:
    """Leave to send one request. `ready`, then `sent` when the bytes are written, `answered` when the reply is there."""

    __slots__ = ("_old", "_pace", "_places", "_released_at", "_reserved_at", "_stamp")

    def __init__(self, pace: Pace, places: list[int], old: list[float], reserved_at: float, released_at: float) -> None:
        self._pace = pace
        self._places = places
        self._old = old
        self._reserved_at = reserved_at
        self._released_at = released_at
        self._stamp: float | None = None

    async def ready(self) -> bool:
        """Wait for the exact moment. False: the sender has been told to wait meanwhile, the slot is given back."""
        return await self._pace._ready(self, self._reserved_at, self._released_at)

    def sent(self) -> None:
        """The request's bytes are being written."""
        if self._stamp is None:
            self._stamp = self._pace._clock()
            self._pace._set(self._places, self._stamp)

    def answered(self) -> None:
        """The reply is complete (or given up): the request may have arrived later than it was written."""
        if self._stamp is not None:
            self._pace._correct(self._places, self._stamp)
        self._pace._done()

    def drop(self) -> None:
        """Nothing was sent after all: each ring keeps the stamp that stood there before."""
        if self._stamp is None:
            self._pace._restore(self._places, self._old)
        self._pace._done()


class Pace:
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
        past = [now - age for age in recent]
        self._windows = [_Window(rate, past) for rate in rates]
        shortest = min(rates, key=lambda rate: rate.window, default=None)
        self._gap = shortest.window / shortest.count if shortest is not None else 0.0
        self._next_even = max(now, past[-1] + self._gap) if past else now
        self._paused_until = now + paused_for
        self._turn = asyncio.Lock()
        self._stamped = asyncio.Event()
        self._lead = 0.0
        self._fastest = math.inf
        self._outstanding = 0
        self._probing = False
        self._in_a_row = 0

    # --- one request ------------------------------------------------------------------------------------------------

    async def reserve(self) -> Slot:
        """Wait for a turn, first come first served. Cancelling gives the turn to the next one; nothing is used up."""
        async with self._turn:
            while True:
                while self._probing and self._outstanding:
                    await self._until_stamped()
                release = self._earliest()
                if release == _PENDING:  # the request N places before has not been written yet
                    await self._until_stamped()
                    continue
                wait = release - self._lead - self._clock()
                if wait <= 0:
                    break
                await self._sleep(max(wait, 0.001))
            now = self._clock()
            if self._gap:
                self._next_even = max(self._next_even, now - CATCH_UP) + self._gap
            places, old = [], []
            for window in self._windows:
                place = window.next % window.count
                window.next += 1
                places.append(place)
                old.append(window.stamps[place])
                window.stamps[place] = _PENDING
            self._outstanding += 1
            return Slot(self, places, old, now, release)

    def _earliest(self) -> float:
        earliest = max(self._next_even if self._gap else 0.0, self._paused_until)
        for window in self._windows:
            earliest = max(earliest, window.stamps[window.next % window.count] + window.length)
        return earliest

    async def _until_stamped(self) -> None:
        self._stamped.clear()
        await self._stamped.wait()

    async def _ready(self, slot: Slot, reserved_at: float, released_at: float) -> bool:
        took = self._clock() - reserved_at
        self._lead = min(LONGEST_LEAD, 0.9 * self._lead + 0.1 * took) if self._gap else 0.0
        while True:
            wait = max(released_at, self._paused_until) - self._clock()
            if wait <= 0:
                return True
            if wait > GIVE_BACK:
                slot.drop()
                return False
            await self._sleep(max(wait, 0.001))

    def _set(self, places: Sequence[int], stamp: float) -> None:
        for window, place in zip(self._windows, places, strict=True):
            window.stamps[place] = stamp
        self._stamped.set()

    def _correct(self, places: Sequence[int], stamp: float) -> None:
        took = self._clock() - stamp
        self._fastest = min(self._fastest, took)
        later = stamp + min(took - self._fastest, LONGEST_CORRECTION)
        for window, place in zip(self._windows, places, strict=True):
            if window.stamps[place] == stamp:  # not yet handed on to the next request in this place
                window.stamps[place] = later

    def _restore(self, places: Sequence[int], old: Sequence[float]) -> None:
        for window, place, stamp in zip(self._windows, places, old, strict=True):
            window.stamps[place] = stamp
        self._stamped.set()

    def _done(self) -> None:
        self._outstanding -= 1
        self._stamped.set()

    # --- the sender as a whole ------------------------------------------------------------------------------------------

    def cool_down(self, asked: float | None = None) -> float:
        """The provider said 'slow down', or cannot be reached: everybody waits, then one request tries the water.

        `asked` is the provider's own Retry-After in seconds; without it 1 s, doubling each time in a row up to 60 s.
        Returns the seconds from now. Several replies of one batch count as one refusal.
        """
        now = self._clock()
        if not self._probing or now >= self._paused_until:
            self._in_a_row += 1
        own = min(LONGEST_COOL_DOWN, FIRST_COOL_DOWN * 2.0 ** min(self._in_a_row - 1, 30))
        self._paused_until = max(self._paused_until, now + (asked if asked is not None else own))
        self._probing = True
        return self._paused_until - now

    def reached(self) -> None:
        """A reply that is not a refusal of the whole sender: back to the full rate."""
        self._probing = False
        self._in_a_row = 0
        self._stamped.set()

    @property
    def cool_downs_in_a_row(self) -> int:
        """How often in a row the sender has been cooled down without a good reply in between."""
        return self._in_a_row


def seconds_for(count: int, rates: Sequence[Rate]) -> float:
    """How long `count` requests take at least under these limits, from a standing start; 0 without limits."""
    if not rates or count <= 0:
        return 0.0
    shortest = min(rates, key=lambda rate: rate.window)
    longest = (count - 1) * shortest.window / shortest.count
    for rate in rates:
        longest = max(longest, (count - 1) // rate.count * rate.window)
    return longest
