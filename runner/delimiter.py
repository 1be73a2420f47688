"""Which character separates the columns of a text file: comma, semicolon, tab or pipe; told by the first records.

Measured: pandas' own detection (`sep=None`) split a one-column file at the letter "p" of "phone". Only these four
are looked for, quotes are respected, and what cannot be told is asked for.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from runner.errors import InputError, Problem

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
NO_DELIMITER = "\x1f"  # stands for "one column" where a parser wants a character: ASCII's own unit separator
_WORDS = {name: character for character, name in NAMES.items()} | {"\\t": "\t"} | {key: key for key in NAMES}
_RECORDS = 50
_BLANK = " \t\r\n\ufeff,;|"  # a line of nothing but these tells nothing
_SEP_LINE = re.compile(r'"?sep=(.)"?[,;\t|]*\s*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Candidate:
    delimiter: str
    width: int  # columns in most records
    share: float  # of the records that have as many columns as the first
    heads: bool  # the first record has that many too
    broken: bool  # quotes make no sense with it


def known_delimiter(path: Path, wanted: str) -> str:
    """The character for the campaign file's word (`;`, `semicolon`, `tab` ...). Raises `InputError`."""
    found = _WORDS.get(wanted) or _WORDS.get(wanted.strip().lower())
    if found is None:
        what = f"delimiter: {wanted[:20]!r} is not one of comma, semicolon, tab or pipe"
        raise InputError(Problem(path.name, what, "write delimiter: comma, semicolon, tab or pipe"))
    return found


def sep_line(path: Path, line: str) -> str:
    """The delimiter that Excel's own first line `sep=;` names; '' when `line` is not such a line.

    Raises `InputError` when it names something else than the four.
    """
    match = _SEP_LINE.fullmatch(line)
    if match is None:
        return ""
    if match[1] not in NAMES:
        what = f"the line {line.strip()[:20]!r} names a delimiter that is not supported"
        raise InputError(Problem(f"{path.name} row 1", what, "use comma, semicolon, tab or pipe"))
    return match[1]


def detect_delimiter(path: Path, lines: list[str]) -> str:
    """The delimiter of the file that begins with `lines` (each with its line end); '' for a single column.

    Raises `InputError` when two candidates fit equally well.
    """
    candidates = [_measure(lines, character) for character in NAMES]
    several = [one for one in candidates if one.width > 1 and one.heads]
    if not several:
        # Every record but the first agrees: a title stands above the header (the survey of the rows says so).
        titled = [one for one in candidates if one.width > 1 and one.share >= 0.9 and not one.broken]
        return titled[0].delimiter if len(titled) == 1 else _by_count(candidates, lines)
    best = max((not one.broken, one.share) for one in several)
    winners = [one for one in several if (not one.broken, one.share) == best]
    if len(winners) > 1 and path.suffix.lower() == ".tsv" and any(one.delimiter == "\t" for one in winners):
        return "\t"
    if len(winners) > 1:
        names = " and ".join(NAMES[one.delimiter] for one in winners)
        what = f"{names} both split the first rows evenly, so the delimiter cannot be told"
        raise InputError(Problem(path.name, what, f"set delimiter: {NAMES[winners[0].delimiter]} in the campaign file"))
    return winners[0].delimiter


def _by_count(candidates: list[_Candidate], lines: list[str]) -> str:
    """One column; but where the quotes make no sense or all is blank, the commonest, so that the fault can be placed."""
    if lines and all(one.broken or one.width == 0 for one in candidates):
        text = "".join(lines)
        return max(NAMES, key=text.count) if any(character in text for character in NAMES) else ""
    return ""


def _measure(lines: list[str], delimiter: str) -> _Candidate:
    records: list[list[str]] = []
    broken = False
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if any(cell.strip(_BLANK) for cell in record):
                records.append(record)
            if len(records) >= _RECORDS:
                break
    except csv.Error:
        broken = True
    if not records:
        return _Candidate(delimiter, 0, 0.0, heads=False, broken=broken)
    first = len(records[0])
    heads = first > 1
    width = first if heads else Counter(len(record) for record in records).most_common(1)[0][0]
    below = records[1:]
    even = sum(1 for record in below if len(record) >= width and not any(cell.strip() for cell in record[width:]))
    return _Candidate(delimiter, width, even / len(below) if below else 1.0, heads=heads, broken=broken)
