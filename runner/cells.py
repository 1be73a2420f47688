"""What may stand in a spreadsheet cell: outside text made harmless, without changing what it says.

CSV: a cell that a spreadsheet would take for a formula gets an apostrophe in front (`=1+1` -> `'=1+1`). First
characters that count: = + - @ tab CR LF (OWASP, CSV Injection), their full-width and small forms, and any of them after
spaces, control or zero-width characters. The same after a `;`, tab or line break inside a cell: a spreadsheet set to
a country that separates by semicolons does not honour the quotes of a comma file and would split the cell there.
`unguard` takes the apostrophe of the first character off again.

XLSX: text is written as text, never as a formula, a link or a number, so nothing needs guarding. One trap remains:
XlsxWriter passes a string of the form `<r>...</r>` through as raw XML (measured: a value shaped like that put a live
formula into the neighbouring cell), so `write_text` escapes it first.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from html import escape
from typing import Protocol

CELL_LIMIT = 32_767
"""Most UTF-16 units in one Excel cell (Microsoft, 'Excel specifications and limits'); an emoji counts as two."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000  # milliseconds
_EXCEL_EPOCH = 25_569  # Excel's number of 1970-01-01

# What no spreadsheet or XML file may hold: control characters but tab and line breaks, lone surrogates, non-characters.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_FORMULA = r"[=+\-@＝＋－＠﹦﹢﹣﹫−]"
_UNSEEN = (
    r"\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffd"
)
_UNSEEN_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")  # letters by their class, blank on the screen
_FORMULA_SIGNS = frozenset("=+-@")
_TAME_STARTS = frozenset(string.ascii_letters + string.digits)
_ODD_START = re.compile(r"\|[^A-Za-z0-9|]")  # a bar within a cell may be taken for a start: that costs time, no more
_QUOTE = re.compile(r'[,"\r\n]')
_STARTS_FORMULA = re.compile(rf"'*(?:[\t\r\n]|[{_UNSEEN}]*{_FORMULA})")
_GUARDED = re.compile(rf"''*(?:[\t\r\n]|[{_UNSEEN}]*{_FORMULA})")
_HAS_FORMULA = re.compile(_FORMULA)
# The look-behind pins the match to the start of a run of such characters: without it every character of a run is a
# start of its own, and a hostile cell of many line breaks takes quadratic time.
_RUN_BEFORE_FORMULA = re.compile(rf"[;{_UNSEEN}](?<![;{_UNSEEN}].)[;{_UNSEEN}]*(?={_FORMULA})", re.DOTALL)
_FORMULA_LINE = re.compile(rf"\n(?:(?!\n)[{_UNSEEN}])*{_FORMULA}")  # from the last line break on: linear, as below
_SEPARATOR = re.compile(r"[;\t\r\n]")
_PLAIN_NUMBER = re.compile(r" *[+\-][\d ().,/\-]*")  # '+90 532 000 00 01', '-5', '-1,5', '-': nothing to call or fetch


class TextCells(Protocol):
    """The part of an XlsxWriter worksheet that writes text. Returns 0 when the whole text was taken."""

    def write_string(self, row: int, col: int, string: str, cell_format: object, /) -> int: ...


def clean(text: str) -> str:
    """The text with every character that no file may hold (NUL, other controls, lone surrogates) turned into U+FFFD."""
    if text.replace("\n", "").isprintable():  # so is nearly every text (measured: 0.1 µs against 2 µs for a caption)
        return text
    return _UNWRITABLE.sub("\ufffd", text)


def guard(text: str) -> str:
    """The text as a CSV cell that no spreadsheet takes for a formula, whatever separator it splits by."""
    # Most cells are words, numbers, ids, addresses (measured: 0.1 to 0.3 µs a cell here, 2 to 4 µs below).
    if not text or text.isalnum():
        return text
    # Nothing unseen but letters; one cell by any separator, and no line that begins as a formula.
    if ";" not in text and text.replace("\n", "").isprintable() and not _FORMULA_LINE.search(text):
        first = text[0]
        if first in _FORMULA_SIGNS:
            return "'" + text
        if first.isalnum() and first not in _UNSEEN_LETTERS:
            return text
    text = clean(text)
    if _SEPARATOR.search(text) and _HAS_FORMULA.search(text):
        text = _RUN_BEFORE_FORMULA.sub(_separate, text)
    return "'" + text if _STARTS_FORMULA.match(text) else text


def csv_cells(texts: Sequence[str]) -> list[str]:
    """Texts as they stand between the commas of a CSV file: each as `guard` makes it, quoted where RFC 4180 asks for it.

    Quickest with a column of many rows, for a column is mostly of one kind, and then looked at as a whole (measured for 16
    columns: 4 µs a row; 6.2 with a row at a time, 10 by `guard` and the csv module, which looks at every character).
    """
    joined = "|".join(texts)  # the bar is neither unseen nor a sign: nothing is found across it that is in no cell
    if ";" in joined or not joined.replace("\n", "").isprintable() or _FORMULA_LINE.search(joined):
        return [_quoted(text) if _QUOTE.search(text) else text for text in map(guard, texts)]
    if not ("," in joined or "\n" in joined or '"' in joined or _ODD_START.search("|" + joined)):
        return list(texts)
    return [
        text
        if text.isalnum()
        or not text
        or (text[0] in _TAME_STARTS and "," not in text and "\n" not in text and '"' not in text)
        else _tame_cell(text)
        for text in texts
    ]


def _tame_cell(text: str) -> str:
    """A cell among others that have nothing unseen in them, no semicolon, and no line that begins as a formula."""
    first = text[0]
    if first not in _TAME_STARTS:
        text = "'" + text if first in _FORMULA_SIGNS else guard(text)
    return _quoted(text) if "," in text or "\n" in text or '"' in text else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def guard_input(text: str) -> str:
    """As `guard`, for a file that is to be read again as an audience: only the cell's start counts, and numbers pass.

    '+90 532 000 00 01' and '-1,5' stay as they are; '=1+1', '@x' and '-cmd|...' get the apostrophe.
    """
    text = clean(text)
    return "'" + text if _STARTS_FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text


def unguard(text: str) -> str:
    """Take off the apostrophe that `guard_input` put on; any other text comes back as it is."""
    return text[1:] if _GUARDED.match(text) else text


def iso_time(microseconds: int | None) -> str:
    """Microseconds since the epoch as ISO 8601 UTC with milliseconds ('2026-11-21T22:13:54.000Z'); None is ''."""
    if microseconds is None:
        return ""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_iso_second(seconds)}.{rest // 1000:03d}Z"


@lru_cache(maxsize=1024)  # rows that follow each other were mostly sent within the same seconds
def _iso_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


def excel_time(microseconds: int) -> float:
    """Microseconds since the epoch as an Excel date-time number (days, UTC), cut to milliseconds as `iso_time` is."""
    return microseconds // 1000 / _DAY + _EXCEL_EPOCH


def fit(text: str) -> str:
    """Outside text as a worksheet cell can hold it: `clean`, line breaks as LF, cut at `CELL_LIMIT` and saying so."""
    text = clean(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _cut(text) if len(text) > CELL_LIMIT // 2 else text


def write_text(sheet: TextCells, row: int, column: int, text: str, look: object = None) -> None:
    """Write outside text into a worksheet cell as text. The only road for a value that is not ours.

    Line breaks become LF, as Excel's own; text beyond `CELL_LIMIT` is cut and says so. Raises ValueError when the cell
    lies outside the sheet (a silent loss in XlsxWriter, which only returns a code).
    """
    text = fit(text)
    if text.startswith("<r>") and text.endswith("</r>"):
        wrapped = f'<r><t xml:space="preserve">{escape(text, quote=False)}</t></r>'
        text = wrapped if _units(wrapped) <= CELL_LIMIT else _cut(text, CELL_LIMIT // 8)
    code = sheet.write_string(row, column, text, look)
    if code != 0:
        raise ValueError(f"XlsxWriter refused the cell in row {row + 1}, column {column + 1} (code {code})")


def _separate(run: re.Match[str]) -> str:
    return run[0] + "'" if _SEPARATOR.search(run[0]) else run[0]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str, limit: int = CELL_LIMIT) -> str:
    if _units(text) <= limit:
        return text
    marker = f"… [cut, {len(text)} characters]"
    kept = text.encode("utf-16-le")[: 2 * (limit - len(marker))].decode("utf-16-le", errors="ignore")
    return kept + marker
