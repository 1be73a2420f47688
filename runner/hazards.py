"""What no message may hold: left-over template marks, control characters, and cells that turn the text's direction."""

from __future__ import annotations

import re
from collections.abc import Callable

MARKS = re.compile(r"\{\{|\}\}|\{%|%\}")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all but tab and line feed; lone surrogates
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


def hazard(text: str, from_cell: Callable[[str], object]) -> str:
    """The first piece of a text that may not be sent, or "".

    Marks that override the direction of writing are the author's right, but not a cell's; `from_cell` tells whether
    some cell holds such a mark.
    """
    if ("{" in text or "}" in text) and (found := MARKS.search(text)):
        return found[0]
    if text.replace("\n", "").isprintable():
        return ""
    if found := CONTROL.search(text):
        return found[0]
    return next((mark for mark in _DIRECTION.findall(text) if from_cell(mark)), "")
