"""After 'slow down' (429), or when the provider cannot be reached: everybody waits, then one request tries the water."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from runner.turns import Turn

FIRST_COOL_DOWN, LONGEST_COOL_DOWN = 1.0, 60.0  # seconds
WORTH_TELLING = 0.5  # seconds; the refusals of one batch lengthen the wait by milliseconds each


class CoolDown:
    """How long a sender is left alone. `probing`: one request at a time until one has been answered."""

    def __init__(self, clock: Callable[[], float], paused_for: float = 0.0) -> None:
        self._clock = clock
        self.until = clock() + paused_for
        self.probing = paused_for > 0
        self.in_a_row = 0
        self._began = -math.inf

    def begin(self, asked: float | None, left_at: float | None) -> float:
        """The provider refused a request that left at `left_at` (None: just now).

        `asked` is the provider's own Retry-After in seconds, the least that is waited; without it, or when that has not
        been enough, 1 s, doubling each time in a row up to 60 s. Refusals of requests that left before the last cool-down
        began belong to it. Returns the seconds from now; 0.0 when there is nothing new to tell anybody.
        """
        now = self._clock()
        until = now + (asked or 0.0)
        another = self._left_since(left_at)
        if another:
            self.in_a_row += 1
            self._began = now
            self.probing = True
            until = max(until, now + min(LONGEST_COOL_DOWN, FIRST_COOL_DOWN * 2.0 ** min(self.in_a_row - 1, 30)))
        longer = until - max(self.until, now)
        if longer <= 0:
            return 0.0
        self.until = until
        self.probing = True
        return until - now if another or longer > WORTH_TELLING else 0.0

    def reached(self, left_at: float | None) -> bool:
        """A reply that is no refusal of the whole sender. Whether it ends the probing: it must have left since then."""
        if (not self.probing and not self.in_a_row) or not self._left_since(left_at):
            return False
        self.probing = False
        self.in_a_row = 0
        return True

    def _left_since(self, left_at: float | None) -> bool:
        return left_at is None or left_at > self._began


class Cooled:
    """The part of a gate that is about the sender as a whole. Who waits for a change of any kind waits for `_changed`."""

    _cool: CoolDown
    _changed: asyncio.Event

    def cool_down(self, asked: float | None = None, slot: Turn | None = None) -> float:
        """The provider refused `slot`'s request: everybody here waits. `asked`: its Retry-After. See `CoolDown.begin`.

        Other machines see it with their next slots, once the ledger has been told.
        """
        return self._cool.begin(asked, slot.left_at if slot is not None else None)

    def reached(self, slot: Turn | None = None) -> None:
        """A reply to `slot`'s request that is not a refusal of the whole sender: back to the full rate."""
        if self._cool.reached(slot.left_at if slot is not None else None):
            self._changed.set()

    @property
    def cool_downs_in_a_row(self) -> int:
        """How often in a row the sender has been cooled down here without a good reply in between."""
        return self._cool.in_a_row
