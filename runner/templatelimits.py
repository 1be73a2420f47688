"""How much a template may ask for: sizes are checked before anything is built, work is paid for from a `Meter`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runner.templatevalues import RenderError, TooLongError, shown

SIZE_LIMIT = 2_000  # widths, counts, precisions and `range` a template may ask for
ITEM_LIMIT = 10_000  # leaves of a list or mapping, nested ones counted through
TEXT_LIMIT = 65_536  # characters of a text that a template builds (a long cell may pass through at its own length)
WORK_LIMIT = 65_536  # units of work for one text; measured: the costliest allowed bombs stop within 0.3 s


class Meter:
    """What one text may still cost. Set anew before each text; one Renderer is used by one thread at a time."""

    __slots__ = ("chars", "most_chars", "work")

    def __init__(self, chars: int) -> None:
        self.most_chars = chars
        self.chars = chars
        self.work = WORK_LIMIT

    def reset(self) -> None:
        """Fills it up again."""
        self.chars = self.most_chars
        self.work = WORK_LIMIT

    def spend(self, work: int, chars: int = 0) -> None:
        """Takes work and printed characters away. Raises RenderError or TooLongError when there is no more."""
        self.work = left = self.work - work
        self.chars = room = self.chars - chars
        if left < 0:
            raise RenderError("the template asks for too much work (endless or very large loops, or calls)")
        if room < 0:
            raise TooLongError(f"the text is longer than {self.most_chars:,} characters")

    def each(self, items: Iterable[object]) -> Iterator[object]:
        """The same items, each paid for."""
        for item in items:
            self.spend(1)
            yield item


def sized(count: object) -> int:
    """A width, count or precision a template asked for, within SIZE_LIMIT. Raises RenderError."""
    if not isinstance(count, int) or abs(count) > SIZE_LIMIT:
        raise RenderError(f"{shown(count)} is too large a width or count; at most {SIZE_LIMIT:,}")
    return count


def weigh(held: object) -> int:
    """How many leaves a list or mapping holds, nested ones counted through; over ITEM_LIMIT raises RenderError.

    Ten lists that each hold the one before twice compare a thousand leaves, forty would compare a million million.
    """
    leaves, waiting = 0, [held]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, list | tuple):
            waiting.extend(thing[: ITEM_LIMIT + 1])
        elif isinstance(thing, dict):
            waiting.extend(list(thing.values())[: ITEM_LIMIT + 1])
        leaves += 1
        if leaves > ITEM_LIMIT or len(waiting) > ITEM_LIMIT:
            raise RenderError(f"a list of more than {ITEM_LIMIT:,} items")
    return leaves


def grown(length: int, before: int = 0) -> int:
    """A text's coming length, checked before it is built: within TEXT_LIMIT or no longer than it was. Raises TooLongError."""
    if length > max(TEXT_LIMIT, before):
        raise TooLongError(f"a filter or operator would make a text of {length:,} characters")
    return length
