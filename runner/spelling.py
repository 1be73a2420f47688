"""Help with a misspelt name: the nearest one that exists, and what there is to choose from."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """` (nearest: 'city')` for 'citty', to stand behind a complaint; empty when nothing is near."""
    by_fold = {_folded(each): each for each in reversed(list(known))}
    found = difflib.get_close_matches(_folded(name), by_fold, 1, 0.6)
    return f" (nearest: '{by_fold[found[0]]}')" if found else ""


def listed(names: Iterable[str]) -> str:
    """`one of: a, b, c`, at most thirty of them; empty when there are none."""
    known = list(names)
    return "one of: " + ", ".join(known[:30]) + (", ..." if len(known) > 30 else "") if known else ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
