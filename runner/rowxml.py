"""Rows of a worksheet as the XML they are stored in: the one part of a large workbook that is worth writing by hand.

Measured on rows of 18 cells with every look in place, processor time a row: XlsxWriter in constant memory 330 µs, the
lines below 12 µs and packing them 4 µs. rustpy-xlsxwriter 0.8.0 takes 18 µs, but fixes the looks of a sheet before its
rows are known and has no road for a sheet of sections, so Summary and Failures would need a second library.

Text is stored inline (`t="inlineStr"`) and numbers as numbers (ECMA-376 part 1, 18.3.1.4 and 18.3.1.53); there is no code
here that could write a formula. Cells without a value are left out, as in a sheet typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runner.cells import CELL_LIMIT, fit

_ESCAPE = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")  # what would be read as an escaped character (22.9.2.19, ST_Xstring)
_MOST_SHAPES = 4096  # a shape is about 1.5 KB


@dataclass(frozen=True, slots=True)
class CellKind:
    """How one column is stored: the number of its format, and whether its values are numbers."""

    letters: str  # A, B ... XFD
    style: int
    number: bool = False
    worded: bool = False  # the format goes by the value's word


class RowXml:
    """Makes the XML of rows that all have the same columns."""

    def __init__(self, kinds: Sequence[CellKind], words: dict[str, int], height: float) -> None:
        self._kinds = tuple(kinds)
        self._words = words  # value of a worded cell -> number of its format
        self._end_of_start = f'" ht="{height:g}" customHeight="1">'
        self._worded = next((place for place, kind in enumerate(kinds) if kind.worded), None)
        self._shapes: dict[tuple[object, ...], list[str]] = {}

    def row(self, at: int, values: Sequence[str]) -> str:
        """The row with the number `at` (from 1). One value for each column; '' leaves the cell out."""
        joined = "|".join(values)
        # One look at the whole row instead of one at each cell: control, invisible and unknown characters are not
        # printable, blanks at either end of a value stand beside a bar, and '_x' may begin an escape.
        plain = (
            len(joined) <= CELL_LIMIT // 2
            and joined.replace("\n", "").isprintable()
            and "_x" not in joined
            and "| " not in joined
            and " |" not in joined
            and "|\n" not in joined
            and "\n|" not in joined
            and joined[:1] not in " \n"
            and joined[-1:] not in " \n"
        )
        if plain and ("&" in joined or "<" in joined or ">" in joined):
            escaped = joined.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split("|")
            plain = len(escaped) == len(values)
            values = escaped if plain else values
        word = values[self._worded] if self._worded is not None else None
        shown = tuple(map(bool, values))
        shape = self._shapes.get((plain, word, shown)) or self._shape(plain, word, shown)
        if not plain:
            values = [
                value if kind.number else text_element(value) if value else ""
                for kind, value in zip(self._kinds, values, strict=True)
            ]
        number, pieces = str(at), shape.copy()
        pieces[1] = number
        pieces[3::4] = [number] * (len(pieces) // 4)
        pieces[5::4] = filter(None, values)
        return "".join(pieces)

    def _shape(self, plain: bool, word: str | None, shown: tuple[bool, ...]) -> list[str]:
        """A row with these cells in pieces: its start, its number, and for each cell what stands before it, the row's number,
        what stands before the value, and the value.

        Put together so, a row takes half the time of a pattern with places to fill (measured: 2.4 µs, not 4.5).
        """
        before, after = ("<is><t>", "</t></is>") if plain else ("<is>", "</is>")
        pieces = ['<row r="', "", self._end_of_start]
        for kind, there in zip(self._kinds, shown, strict=True):
            if not there:
                continue
            style = self._words.get(word, kind.style) if kind.worded and word is not None else kind.style
            middle = f'" s="{style}"><v>' if kind.number else f'" s="{style}" t="inlineStr">{before}'
            pieces[-1] += f'<c r="{kind.letters}'
            pieces += ["", middle, "", "</v></c>" if kind.number else f"{after}</c>"]
        pieces[-1] += "</row>"
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        known = word is None or word in self._words  # words of strangers must not fill the store
        if known:
            self._shapes[plain, word, shown] = pieces
        return pieces


def text_element(text: str) -> str:
    """Outside text as the `<t>` of an inline string: fitted to a cell (see `cells.fit`) and escaped."""
    text = fit(text)
    if "_x" in text:
        text = _ESCAPE.sub("_x005F_", text)
    space = ' xml:space="preserve"' if text[:1].isspace() or text[-1:].isspace() else ""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<t{space}>{text}</t>"
