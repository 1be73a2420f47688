"""A CSV, TSV or TXT file as rows of text: surveyed once when it is opened, then streamed in chunks.

Two readers, on purpose. The stdlib `csv` module surveys the file (1.0 s and 12 MB for 1,000,000 rows of 7 columns)
because it knows the row of a fault; pandas reads the chunks. Measured in pandas 3.1: a first data row with one cell
too many makes the first column the index, so that `phone` silently holds the name; with `index_col=False` the cell is
cut off with a mere warning. So pandas is told the widest record of the survey, and their record counts must agree.

A small file is read by the csv module both times: importing pandas takes 0.4 s, more than the csv module needs for it. That
both read the same out of any file is tested on each other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from runner.delimiter import NAMES, NO_DELIMITER, detect_delimiter, known_delimiter, sep_line
from runner.encoding import Encoding, detect_encoding
from runner.errors import InputError, Problem
from runner.header import Row, Shape, cell_place, survey

_MAX_LINE = 4_000_000  # characters in a line, and in a record with quoted line ends
_SAMPLE_LINES = 400
_SAMPLE_CHARACTERS = 1_000_000
SMALL_BYTES = 4_000_000  # about 50,000 rows: read by the csv module in less time than pandas takes to be imported


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A surveyed text file. `delimiter` is '' when there is one column."""

    path: Path
    encoding: Encoding
    delimiter: str
    skipped: int  # lines before the first record: 1 when there is a `sep=;` line
    shape: Shape
    stamp: tuple[int, int]  # size and time of change when surveyed

    def rows(self, chunk: int) -> Iterator[list[Row]]:
        """Rows in lists of at most `chunk`, in order, wholly blank ones left out.

        Raises `InputError` when the file is no longer the one that was surveyed.
        """
        number = seen = 0
        self._unchanged(self._same())
        with _open(self.path, self.encoding.codec) as text:
            for _ in range(self.skipped):
                text.readline()
            read = self._with_csv if self.stamp[0] <= SMALL_BYTES else self._with_pandas
            try:
                for records in read(text, chunk):
                    number = self.skipped + seen
                    seen += len(records)
                    rows = [
                        Row(place, values)
                        for place, values in enumerate(records, number + 1)
                        if place > self.shape.header_row and "".join(values).strip()
                    ]
                    if rows:
                        yield rows
            except (csv.Error, UnicodeError, ValueError) as error:
                self._unchanged(self._same(), str(error))
                raise InputError(
                    Problem(self.path.name, f"cannot be read after row {number + seen}: {error}")
                ) from error
        self._unchanged(seen == self.shape.records, f"{seen:,} records, not {self.shape.records:,}")

    def _with_csv(self, text: io.TextIOWrapper, chunk: int) -> Iterator[list[tuple[str, ...]]]:
        """The named columns of every record, `chunk` records at a time."""
        widest, keep = self.shape.widest, self.shape.keep
        reader = csv.reader(text, delimiter=self.delimiter or NO_DELIMITER, strict=True)
        while records := list(islice(reader, chunk)):
            self._unchanged(all(len(record) <= widest for record in records))
            padded = [record + [""] * (widest - len(record)) for record in records]
            yield [tuple([record[index] for index in keep]) for record in padded]

    def _with_pandas(self, text: io.TextIOWrapper, chunk: int) -> Iterator[list[tuple[str, ...]]]:
        """The same."""
        import pandas as pd

        frames = pd.read_csv(
            text,
            sep=self.delimiter or NO_DELIMITER,
            header=None,
            names=list(range(self.shape.widest)),
            index_col=False,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            skip_blank_lines=False,
            chunksize=chunk,
        )
        for frame in frames:
            columns: list[list[str]] = [frame[index].tolist() for index in self.shape.keep]
            yield list(zip(*columns, strict=True))

    def _same(self) -> bool:
        try:
            return _stamp(self.path) == self.stamp
        except OSError:
            return False

    def _unchanged(self, same: bool, detail: str = "") -> None:
        if not same:
            what = "the file has changed since it was opened" + (f" ({detail})" if detail else "")
            raise InputError(Problem(self.path.name, what, "close it in other programs and start again"))


def open_csv(
    path: Path, encoding: str | None, delimiter: str | None, is_header: Callable[[Sequence[str]], bool]
) -> CsvFile:
    """Survey the text file at `path`. Raises `InputError` with every fault found."""
    wanted = None if delimiter is None else known_delimiter(path, delimiter)
    stamp = _stamp(path)
    if stamp[0] == 0:
        raise InputError(Problem(path.name, "the file is empty", "give it a header row with the names of the columns"))
    found = detect_encoding(path, encoding)
    sample = _sample(path, found.codec)
    named = sep_line(path, sample[0]) if sample else ""
    skipped = 1 if named else 0
    character = wanted or named or detect_delimiter(path, sample[skipped:])
    with _open(path, found.codec) as text:
        for _ in range(skipped):
            text.readline()
        shape = survey(_records(path.name, text, character or NO_DELIMITER, skipped), path.name, is_header)
    if shape.widest == 1 and not wanted:
        character = ""
    return CsvFile(path, found, character, skipped, shape, stamp)


def delimiter_name(character: str) -> str:
    """The delimiter in words; '' for a single column."""
    return NAMES.get(character, "")


def _open(path: Path, codec: str) -> io.TextIOWrapper:
    # newline="": a line end within quotes belongs to the value and must not be rewritten.
    return path.open(encoding=codec, newline="")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _sample(path: Path, codec: str) -> list[str]:
    lines: list[str] = []
    with _open(path, codec) as text:
        room = _SAMPLE_CHARACTERS
        while len(lines) < _SAMPLE_LINES and room > 0 and (line := text.readline(room)):
            lines.append(line)
            room -= len(line)
    return lines


class _Lines:
    """The lines of a file, remembering those of the current record and refusing one without end."""

    def __init__(self, name: str, text: io.TextIOWrapper, number: int) -> None:
        self.record: list[str] = []
        self.number = number  # of the record being read
        self._name = name
        self._text = text
        self._held = 0

    def begin(self, number: int) -> None:
        self.record.clear()
        self.number = number
        self._held = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(_MAX_LINE):
            self.record.append(line)
            self._held += len(line)
            if self._held >= _MAX_LINE:
                what = f"the row has more than {_MAX_LINE:,} characters"
                fix = "look for a quote that is never closed, or for missing line ends"
                raise InputError(Problem(f"{self._name} row {self.number}", what, fix))
            yield line


def _records(name: str, text: io.TextIOWrapper, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    number = skipped + 1
    lines = _Lines(name, text, number)
    # strict: a quote that is never closed, or one within a quoted value that is not doubled, is an error.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin(number)
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _explain(name, number, "".join(lines.record), delimiter, str(error))
        yield number, record
        number += 1


def _explain(name: str, number: int, record: str, delimiter: str, reason: str) -> NoReturn:
    """Say in words which value the csv module stumbled over."""
    index, closed, begins = _troubled_value(record, delimiter)
    place = cell_place(name, number, index)
    value = f"it begins {begins[:30]!r}"
    if closed:
        what = f"a quoted value goes on after its closing quote ({value})"
        fix = 'write a quote within a quoted value twice (""), or remove the quotes'
    elif "field limit" in reason and not begins.startswith('"'):
        what, fix = f"the value is longer than the 100,000 characters allowed ({value})", "shorten it"
    else:
        what = f"a quote is opened here and never closed ({value})"
        fix = 'close it, or write a quote that belongs to the value twice ("") within quotes'
    raise InputError(Problem(place, what, fix))


def _troubled_value(record: str, delimiter: str) -> tuple[int, bool, str]:
    """Position of the value in which a record breaks off, whether its quote was closed before, and its beginning."""
    index = start = position = 0
    while position < len(record):
        if record[position] == '"':
            end = _closing_quote(record, position)
            if end < 0:
                return index, False, record[start : start + 30]
            position = end + 1
            if position < len(record) and record[position] not in (delimiter, "\r", "\n"):
                return index, True, record[start : start + 30]
        following = record.find(delimiter, position)
        if following < 0:
            break
        position = start = following + 1
        index += 1
    return index, False, record[start : start + 30]


def _closing_quote(record: str, opening: int) -> int:
    position = opening + 1
    while (position := record.find('"', position)) >= 0:
        if record[position + 1 : position + 2] != '"':
            return position
        position += 2
    return -1
