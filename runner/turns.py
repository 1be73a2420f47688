"""What the engine asks of a pace gate, whichever it is: a lone run's own (`pace`) or the one all machines share (`sharedpace`)."""

from __future__ import annotations

from typing import Protocol


class Turn(Protocol):
    """Leave to send one request: `ready` before it is begun, `leaves` when the connection stands, `sent` as the bytes are
    written, `answered` when it is over. It ends once, with `answered` or `drop`; what is called after that changes nothing.
    """

    @property
    def left_at(self) -> float | None:
        """When it was let go, by the gate's own clock."""

    async def ready(self) -> bool:
        """Wait until it is time to begin. False: not now after all, nothing is used up."""

    async def leaves(self) -> bool:
        """Wait for the exact moment of the first byte. False: nothing may be written."""

    def sent(self) -> None:
        """The request's bytes are being written."""

    def answered(self, *, complete: bool = True, came_at: float | None = None) -> None:
        """The reply is complete, or lost. Without `sent` before, nothing was used up.

        `came_at`: when its first bytes came, by time.monotonic; else now.
        """

    def drop(self) -> None:
        """Nothing will be sent after all. After `sent` the same as `answered`."""


class Gate(Protocol):
    """How fast one sender may send."""

    async def reserve(self) -> Turn:
        """Wait for a turn, first come first served. Cancelling gives the turn to the next one."""

    def cool_down(self, asked: float | None = None, slot: Turn | None = None) -> float:
        """The request of `slot` was refused for the sender as a whole; `asked` is the provider's Retry-After in seconds.

        Returns how long everybody waits from now, 0.0 when there is nothing new to tell anybody.
        """

    def reached(self, slot: Turn | None = None) -> None:
        """The request of `slot` had a reply that is no refusal of the whole sender."""

    @property
    def cool_downs_in_a_row(self) -> int:
        """How often in a row the sender has been cooled down without a good reply in between."""
