"""What a value in a template is: a blank cell, text, a number or something that must never be printed.

Every error a row can meet while it is rendered is a `RenderError`, worded for the person who owns the sheet.
"""

from __future__ import annotations

import math
from typing import NoReturn

from jinja2 import TemplateRuntimeError, Undefined

# What faulty exports write for an empty cell. Compared case-sensitively: Nan and Null are people's names.
HOLLOW = frozenset(
    {"nan", "NaN", "NAN", "None", "null", "NULL", "undefined", "NaT", "<NA>", "[object Object]"}
    | {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"}
)


class RenderError(TemplateRuntimeError):
    """One row cannot be rendered; its text says why, for the person who owns the sheet."""


class TooLongError(RenderError):
    """The text outgrew every use a caption could have for it."""


class BlankError(RenderError):
    """A blank cell would have become text."""


class UnreadableError(RenderError):
    """A filter was given a value that it cannot read."""


class BadArgumentError(RenderError):
    """A filter was given a setting that no value could make right; found when the campaign is checked."""


class Blank(Undefined):
    """A blank cell: false, empty, equal to "", and a `RenderError` the moment it would become text.

    It is an `Undefined`, so `default` and `is defined` take it for missing. Anything computed from it is the same
    blank again, as SQL does with NULL: `city|upper`, `city ~ "!"` and `city.strip()` are blank when the city is.
    Ordering against it is false, and so is `==` with anything but "" and another blank.
    """

    __slots__ = ()

    def __init__(self, column: str) -> None:
        super().__init__(hint=f"column '{column}' is blank", name=column, exc=BlankError)

    def _itself(self, *_args: object, **_kwargs: object) -> Blank:
        return self

    def _never(self, _other: object) -> bool:
        return False

    def _fail(self, *_args: object) -> NoReturn:
        self._fail_with_undefined_error()

    # Undefined declares these as never returning; a blank spreads instead.
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _itself  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _itself  # type: ignore[assignment]
    __mod__ = __rmod__ = __pow__ = __rpow__ = __pos__ = __neg__ = _itself  # type: ignore[assignment]
    __call__ = __getitem__ = _itself  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _never  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = _fail
    __int__ = __float__ = __complex__ = __index__ = _fail

    def __contains__(self, _item: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blank) or other == ""

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash("")


def shown(value: object) -> str:
    """A value as a person may be shown it in a report: quoted, cut at 60 characters, nothing invisible left raw."""
    return repr(value[:60]) if isinstance(value, str) else f"{value!r:.60}" if is_number(value) else kind(value)


def is_number(value: object) -> bool:
    """Whether it is an int or float; true and false are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing (none)"
    if isinstance(value, bool):
        return "a yes/no value"
    if isinstance(value, float):
        return "not a finite number"
    if callable(value):
        return "a function"
    words = {str: "text", int: "a number", list: "a list", tuple: "a list", dict: "a mapping", range: "a range"}
    return words.get(type(value), "not text")


def text(value: object) -> str:
    """The text of what may become text: text, whole numbers, finite numbers. Raises RenderError for everything else."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # raises, naming the blank column or the missing attribute
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise RenderError(f"{kind(value)} cannot be printed")


def printable(value: object) -> str:
    """`text`, refusing what a faulty export leaves in empty cells ('nan', '#N/A' ...)."""
    if (words := text(value)) in HOLLOW:
        raise RenderError(
            f"the value is {words!r}, which exports write for an empty or broken cell; clear or mend the cell"
        )
    return words
