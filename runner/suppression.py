"""A file of people who must not be written to. Every entry counts: one that cannot be read is a fault, never dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.audience import Audience, open_table
from runner.errors import InputError, Problem
from runner.header import cell_place, looks_like_phone_column
from runner.phones import Phone, PhoneReader

MAX_FAULTS = 1000  # kept with their text; all are counted
_SCIENTIFIC = re.compile(r"\s*[0-9][.,]?[0-9]*[eE]\+?[0-9]+\s*")
_SAMPLE = 200  # rows in which the column of numbers is looked for when no name tells


@dataclass(frozen=True, slots=True)
class Suppressed:
    """One number that must not be written to: E.164 digits without the plus, and its row in the file."""

    digits: str
    row: int


@dataclass(frozen=True, slots=True)
class UnreadableEntry:
    """An entry that is no number. `value` is the cell's own text, `why` what is wrong with it."""

    row: int
    value: str
    why: str


class SuppressionFile:
    """An opened suppression list: CSV, TSV, TXT or Excel, with or without a header.

    The numbers are normalised by `reader`'s default region; its allowed countries do not matter here. The column is
    the one named like a phone, else the only one that holds phones. Raises `InputError` when that cannot be told or
    the file cannot be read.
    """

    def __init__(self, path: Path, reader: PhoneReader) -> None:
        self._reader = PhoneReader(reader.default_region)
        self.table = open_table(path, self._is_header)
        self._column = self._find_column(self.table)
        self._faults: list[UnreadableEntry] = []
        self.fault_count = 0

    def numbers(self) -> Iterator[Suppressed]:
        """Every readable number in the order of the file, repeated ones too. `faults` is complete when this ends."""
        self._faults.clear()
        self.fault_count = 0
        for rows in self.table.rows():
            for row in rows:
                found = self._reader.read(row.values[self._column])
                if isinstance(found, Phone):
                    yield Suppressed(found.digits, row.number)
                    continue
                self.fault_count += 1
                if len(self._faults) < MAX_FAULTS:
                    self._faults.append(UnreadableEntry(row.number, row.values[self._column], found.detail))

    @property
    def faults(self) -> tuple[UnreadableEntry, ...]:
        """The unreadable entries met so far, the first thousand of them; `fault_count` counts all."""
        return tuple(self._faults)

    def problem(self, fault: UnreadableEntry) -> Problem:
        """The fault with its place, ready to be shown."""
        title = self.table.columns[self._column] if self.table.header_row else ""
        what = f"this entry suppresses nobody: {fault.why}"
        fix = "mend the number, or delete the row if nobody is meant"
        return Problem(
            cell_place(self.table.path.name, fault.row, self.table.positions[self._column], title), what, fix
        )

    def _is_header(self, first: Sequence[str]) -> bool:
        """A first row with a phone is no header; nor is one with an unreadable number, which must be reported."""
        return not any(isinstance(self._reader.read(cell), Phone) or _like_a_number(cell) for cell in first)

    def _find_column(self, table: Audience) -> int:
        if len(table.columns) == 1:
            return 0
        if table.header_row:
            named = [index for index, column in enumerate(table.columns) if looks_like_phone_column(column)]
            if len(named) == 1:
                return named[0]
            if named:
                raise InputError(self._which(table, named, "are all named like a phone"))
        rows = next(table.rows(_SAMPLE), [])
        found = [
            index
            for index in range(len(table.columns))
            if any(isinstance(self._reader.read(row.values[index]), Phone) for row in rows)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(self._which(table, found, "all hold phone numbers"))
        what = f"none of its {len(table.columns)} columns is named like a phone or holds readable phone numbers"
        fix = "give the column of numbers a header such as Phone, and write numbers with + and the country code"
        raise InputError(Problem(table.path.name, what, fix))

    def _which(self, table: Audience, found: list[int], why: str) -> Problem:
        names = ", ".join(f'"{table.columns[index]}"' for index in found[:10])
        return Problem(table.path.name, f"the columns {names} {why}", "keep the one column that is to be suppressed")


def read_numbers(path: Path, reader: PhoneReader) -> Iterator[Suppressed]:
    """The numbers of the file at `path`, for callers that want every entry readable.

    Raises `InputError` at the end with the entries that could not be read (the first twenty, and how many more).
    """
    suppression = SuppressionFile(path, reader)
    yield from suppression.numbers()
    if suppression.fault_count:
        shown = [suppression.problem(fault) for fault in suppression.faults[:20]]
        if suppression.fault_count > len(shown):
            more = suppression.fault_count - len(shown)
            shown.append(Problem(path.name, f"{more:,} more entries cannot be read", "mend the ones shown first"))
        raise InputError(*shown)


def _like_a_number(cell: str) -> bool:
    digits = sum(map(str.isdigit, cell))
    letters = sum(map(str.isalpha, cell))
    return bool(_SCIENTIFIC.fullmatch(cell)) or (digits >= 5 and digits > letters)
