"""The shape of a table: what the header row promises and whether the rows below keep it.

Every reader of audience files (CSV, Excel) hands its records to `survey`, so the same fault gets the same words
whatever the file's kind.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.errors import InputError, Problem

MAX_COLUMNS = 500
NAMED = 10  # columns of the same name that are named one by one
MAX_VALUE = 100_000  # characters in one cell; Excel itself stops at 32,767
MAX_PROBLEMS = 20  # shown one by one; the rest are counted

# Short words must stand alone ("cep" is in "reception"); long ones may be part of a longer word.
_PHONE_WORDS = frozenset({"tel", "gsm", "cep", "cell", "msisdn", "fon", "handy", "movil", "wa", "numara"})
_PHONE_PARTS = ("phone", "mobile", "mobil", "telefon", "telephone", "whatsapp", "celular")


class Row(NamedTuple):
    """One record of an audience. `number` is the one a spreadsheet shows: the first row of the file is 1."""

    number: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a first reading of the whole table found.

    `keep` are the positions of the named columns in a raw record; `header_row` is 0 when the table has no header.
    `widest` is the largest number of cells in a record, `records` how many records there are, blank ones included.
    """

    columns: tuple[str, ...]
    keep: tuple[int, ...]
    header_row: int
    widest: int
    records: int
    notes: tuple[str, ...] = ()


def column_letter(index: int) -> str:
    """The spreadsheet's name for the column at `index` (0 is A, 26 is AA)."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def cell_place(name: str, number: int, index: int, title: str = "") -> str:
    """A place such as `customers.csv row 14, column B "Mobile"`."""
    return f"{name} row {number}, column {column_letter(index)}" + (f' "{title}"' if title else "")


def plain_name(name: str) -> str:
    """A column's name for comparison: no case, no accents, no spaces or punctuation ('Cep Tel.' -> 'ceptel')."""
    spread = unicodedata.normalize("NFKD", name.casefold()).replace("ı", "i")
    return "".join(character for character in spread if character.isalnum())


def looks_like_phone_column(name: str) -> bool:
    """Whether a column's name says that it holds phone numbers (English, Turkish and a few other words)."""
    spaced = re.sub(r"(?<=[a-zğıöüşç])(?=[A-ZĞİÖÜŞÇ])", " ", name)
    words = [plain_name(word) for word in re.split(r"[\W_\d]+", spaced) if word]
    whole = plain_name(name)
    return any(word in _PHONE_WORDS for word in words) or any(part in whole for part in _PHONE_PARTS)


def tidy_title(text: str) -> str:
    """A header cell without the white space and byte order marks around it."""
    return text.strip().strip("\ufeff\u200b").strip()


def always_header(_first: Sequence[str]) -> bool:
    """The rule of an audience: its first row that is not blank is the header."""
    return True


def survey(
    records: Iterable[tuple[int, Sequence[str]]],
    name: str,
    is_header: Callable[[Sequence[str]], bool] = always_header,
    first_column: int = 0,
) -> Shape:
    """Read all `records` (number, cells) of the file called `name` once and say what shape they have.

    `first_column` is the spreadsheet column of a record's first cell, for messages. Raises `InputError` with every
    fault found: no rows, a title instead of a header, repeated or missing names, rows wider than the header, huge cells.
    """
    stream = iter(records)
    count = 0
    for number, cells in stream:
        count += 1
        if any(cell.strip() for cell in cells):
            first_row, first = number, list(cells)
            break
    else:
        raise InputError(Problem(name, "the file is empty", "give it a header row with the names of the columns"))
    surveyor = _Surveyor(name, first_row, first, first_column, headed=is_header(first))
    width = surveyor.plain_width
    for number, cells in stream:
        count += 1
        if len(cells) > width or max(map(len, cells), default=0) > MAX_VALUE:
            surveyor.check(number, cells)
    return surveyor.shape(count)


@dataclass(slots=True)
class _Surveyor:
    name: str
    first_row: int
    first: list[str]
    first_column: int
    headed: bool
    titles: list[str] = field(init=False)
    unnamed: dict[int, int] = field(init=False)  # position of a nameless column -> first row that has a value in it
    named: int = field(init=False)
    widest: int = field(init=False)
    problems: list[Problem] = field(init=False, default_factory=list)
    more: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.headed:
            self.titles = [tidy_title(cell) for cell in self.first]
        else:
            width = max(index for index, cell in enumerate(self.first) if cell.strip()) + 1
            self.titles = [column_letter(self.first_column + index) for index in range(max(width, len(self.first)))]
        self.unnamed = {index: 0 for index, title in enumerate(self.titles) if not title}
        self.named = len(self.titles) - len(self.unnamed)
        self.widest = len(self.first)
        self._huge(self.first_row, self.first)

    @property
    def plain_width(self) -> int:
        """A record with no more cells than this has nothing to check but their lengths."""
        return -1 if self.unnamed or (self.headed and self.named == 1) else len(self.titles)

    def check(self, number: int, cells: Sequence[str]) -> None:
        if self.headed and self.named == 1 and len(cells) > 1:
            self._title(number, cells)
        self.widest = max(self.widest, len(cells))
        width = len(self.titles)
        if len(cells) > width and any(cell.strip() for cell in cells[width:]):
            filled = max(index for index, cell in enumerate(cells) if cell.strip()) + 1
            what = f"has {filled} values, but row {self.first_row} has only {width} columns"
            fix = "put quotes around a value that holds the delimiter, or name the extra column in the header"
            self._add(Problem(f"{self.name} row {number}", what, fix))
        for index, seen in self.unnamed.items():
            if not seen and index < len(cells) and cells[index].strip():
                self.unnamed[index] = number
        if cells and max(map(len, cells)) > MAX_VALUE:
            self._huge(number, cells)

    def _huge(self, number: int, cells: Sequence[str]) -> None:
        for index, cell in enumerate(cells):
            if len(cell) > MAX_VALUE:
                title = self.titles[index] if self.headed and index < len(self.titles) else ""
                place = cell_place(self.name, number, self.first_column + index, title[:40])
                what = f"the value has {len(cell):,} characters, more than the {MAX_VALUE:,} allowed"
                self._add(Problem(place, what, "shorten it, or look for a quote that is never closed"))

    def _title(self, number: int, cells: Sequence[str]) -> None:
        filled = sum(1 for cell in cells if cell.strip())
        if filled > 1:
            title = next(title for title in self.titles if title)
            what = f'holds one cell only ("{title[:40]}"), but row {number} has {filled}'
            fix = "the first row must be the header: delete a title above it, and name every column"
            raise InputError(*self.problems, Problem(f"{self.name} row {self.first_row}", what, fix))

    def _add(self, problem: Problem) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1

    def shape(self, records: int) -> Shape:
        place = f"{self.name} row {self.first_row}"
        problems = self._width_problems(place) + self._name_problems() + self.problems
        if self.more:
            problems.append(
                Problem(self.name, f"{self.more:,} more problems of this kind", "mend the ones shown first")
            )
        if problems:
            raise InputError(*problems)
        keep = tuple(index for index, title in enumerate(self.titles) if title)
        notes: tuple[str, ...] = ()
        inner = [index for index in self.unnamed if index < keep[-1]]
        if inner:
            letters = ", ".join(column_letter(self.first_column + index) for index in inner)
            notes = (f"left out the empty column {letters}, which has no name",)
        columns = tuple(self.titles[index] for index in keep)
        return Shape(columns, keep, self.first_row if self.headed else 0, self.widest, records, notes)

    def _width_problems(self, place: str) -> list[Problem]:
        used = self.named + sum(1 for row in self.unnamed.values() if row)
        if used <= MAX_COLUMNS:
            return []
        return [Problem(place, f"has {used:,} columns, more than the {MAX_COLUMNS} allowed", "leave out some columns")]

    def _name_problems(self) -> list[Problem]:
        problems: list[Problem] = []
        places: dict[str, list[str]] = {}
        for index, title in enumerate(self.titles):
            letter = column_letter(self.first_column + index)
            if title:
                places.setdefault(title, []).append(letter)
            elif self.unnamed[index]:
                what = f"the column has no name, but there are values in it (the first in row {self.unnamed[index]})"
                place = cell_place(self.name, self.first_row, self.first_column + index)
                problems.append(Problem(place, what, f"write a name in {letter}{self.first_row}, or empty the column"))
        for title, letters in places.items():
            if len(letters) > 1:
                named = (
                    letters if len(letters) <= NAMED else [*letters[: NAMED - 1], f"{len(letters) - NAMED + 1:,} more"]
                )
                what = f'columns {", ".join(named[:-1])} and {named[-1]} have the same name "{title[:60]}"'
                problems.append(Problem(f"{self.name} row {self.first_row}", what, "give every column its own name"))
        if len(problems) > MAX_PROBLEMS:
            rest = len(problems) - MAX_PROBLEMS
            problems = [*problems[:MAX_PROBLEMS], Problem(self.name, f"{rest} more columns have the same faults")]
        return problems
