"""The audience: a CSV or Excel file as rows of text, streamed, with nothing guessed in silence.

Every value is text exactly as the file shows it: 0532... keeps its zero, a person called "NA" stays, a blank is ''.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from runner.csvfile import delimiter_name, open_csv
from runner.errors import InputError, Problem
from runner.header import Row, always_header, looks_like_phone_column, plain_name
from runner.workbook import open_workbook

__all__ = ["Audience", "Row", "column_index", "open_audience", "open_table"]

_TEXT_ENDINGS = frozenset({".csv", ".tsv", ".txt"})
_SAVE_AS = "open it in the program that wrote it and save it as .xlsx or as CSV UTF-8"
_REFUSED = {
    ".xls": f"the old Excel format is not read; {_SAVE_AS}",
    ".xlsb": f"Excel's binary format is not read; {_SAVE_AS}",
    ".xlsm": f"workbooks with macros are not read; {_SAVE_AS}",
    ".xltx": f"templates are not read; {_SAVE_AS}",
    ".ods": f"OpenDocument spreadsheets are not read; {_SAVE_AS}",
    ".numbers": "Apple Numbers files are not read; in Numbers choose File, Export To, Excel or CSV",
    ".zip": "archives are not read; unpack it first",
    ".gz": "archives are not read; unpack it first",
}
_ZIP_MAGIC = b"PK\x03\x04"
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class RowSource(Protocol):
    """Where rows come from: a surveyed text file or a loaded sheet."""

    def rows(self, chunk: int) -> Iterator[list[Row]]: ...


@dataclass(frozen=True, slots=True)
class Audience:
    """An opened audience. `kind` is 'csv' or 'xlsx'; what does not apply to the kind is ''.

    An Excel sheet stays in memory (200-600 MB for 1,000,000 rows, measured) as long as this object lives; a text file
    is read again from the disk by each call of `rows`. `header_row` is 0 when the table has no header.
    """

    path: Path
    kind: str
    encoding: str  # Python's name of the codec
    delimiter: str  # '' too when there is one column
    sheet: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]  # what was guessed or left out; for the user to read
    header_row: int
    source: RowSource = field(repr=False, compare=False)
    encoding_name: str = ""
    positions: tuple[int, ...] = ()  # where each of `columns` stands in the file, for places in messages; 0 is column A

    def rows(self, chunk: int = 2000) -> Iterator[list[Row]]:
        """The rows below the header in lists of at most `chunk`. Wholly blank rows are left out, but numbered.

        Raises `InputError` when the file has changed since it was opened.
        """
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        return self.source.rows(chunk)

    def describe(self) -> str:
        """One line: 'customers.csv: UTF-8 with BOM, semicolon, 5 columns'."""
        text = [self.encoding_name, delimiter_name(self.delimiter)]
        parts = [f'sheet "{self.sheet}"'] if self.kind == "xlsx" else text
        count = len(self.columns)
        parts.append(f"{count} column" + ("" if count == 1 else "s"))
        return f"{self.path.name}: " + ", ".join(part for part in parts if part)


def open_audience(
    path: Path, *, sheet: str | None = None, encoding: str | None = None, delimiter: str | None = None
) -> Audience:
    """Open the file at `path` and check its shape; the first row that is not blank is the header.

    `sheet` is for Excel, `encoding` and `delimiter` for text files; without them they are found and reported in
    `notes` and `describe`. Raises `InputError` with every fault found.
    """
    return open_table(path, always_header, sheet=sheet, encoding=encoding, delimiter=delimiter)


def open_table(
    path: Path,
    is_header: Callable[[Sequence[str]], bool],
    *,
    sheet: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Audience:
    """As `open_audience`, for a table that may lack a header: `is_header` judges the first row that is not blank.

    Without a header the columns are named by their letters.
    """
    try:
        ending = _checked_ending(path)
        if ending in _TEXT_ENDINGS:
            if sheet is not None:
                raise InputError(Problem(path.name, f"sheet: {sheet!r} is for Excel files", "leave sheet out"))
            text = open_csv(path, encoding, delimiter, is_header)
            notes = tuple(note for note in (text.encoding.note, *text.shape.notes) if note)
            codec, shape = text.encoding, text.shape
            return Audience(
                path,
                "csv",
                codec.codec,
                text.delimiter,
                "",
                shape.columns,
                notes,
                shape.header_row,
                text,
                encoding_name=codec.title,
                positions=shape.keep,
            )
        for setting, value in (("encoding", encoding), ("delimiter", delimiter)):
            if value is not None:
                raise InputError(Problem(path.name, f"{setting}: is for text files", f"leave {setting} out"))
        book = open_workbook(path, sheet, is_header)
        shape = book.shape
        positions = tuple(book.first_column + index for index in shape.keep)
        return Audience(
            path, "xlsx", "", "", book.sheet, shape.columns, book.notes, shape.header_row, book, positions=positions
        )
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise InputError(Problem(str(path), what, "check the file's permissions")) from error


def _checked_ending(path: Path) -> str:
    """The file's ending in lower case, after making sure that the file is there and is what its ending says."""
    if path.is_dir():
        raise InputError(Problem(str(path), "is a folder, not a file", "name the audience file in it"))
    if not path.exists():
        raise InputError(Problem(str(path), "there is no such file", _nearest_file(path)))
    if not path.is_file():
        raise InputError(Problem(str(path), "is not an ordinary file", "give a .csv, .tsv, .txt or .xlsx file"))
    ending = path.suffix.lower()
    if ending in _REFUSED:
        raise InputError(Problem(path.name, f"{ending} files are not supported", _REFUSED[ending]))
    if ending != ".xlsx" and ending not in _TEXT_ENDINGS:
        what = f"the ending {ending!r} says nothing about the file's kind" if ending else "the file has no ending"
        raise InputError(Problem(path.name, what, "give a .csv, .tsv, .txt or .xlsx file"))
    with path.open("rb") as file:
        head = file.read(8)
    if ending == ".xlsx":
        if head == _OLE_MAGIC:
            what = "the workbook is protected with a password, or is an old .xls file with a new name"
            raise InputError(Problem(path.name, what, "save it again in Excel as .xlsx without a password"))
        if head and not head.startswith(_ZIP_MAGIC):
            what = "the file is not an Excel workbook, whatever its ending says"
            raise InputError(Problem(path.name, what, "if it is a text file, rename it to .csv"))
    elif head.startswith(_ZIP_MAGIC) or head == _OLE_MAGIC:
        fix = "rename it to .xlsx" if head.startswith(_ZIP_MAGIC) else _SAVE_AS
        raise InputError(Problem(path.name, "the file is a workbook or an archive, not text", fix))
    return ending


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in {*_TEXT_ENDINGS, ".xlsx"})
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else "check the name; it is relative to the campaign file"


def column_index(audience: Audience, name: str, purpose: str, where: str) -> int:
    """The position of the column called `name`: the very name, else the only one equal but for case and spaces.

    `purpose` says what it is wanted for ('phone', 'where' ...), `where` is the place in the campaign file. Raises
    `InputError` that lists the columns and names the likeliest.
    """
    if name in audience.columns:
        return audience.columns.index(name)
    wanted = _loose(name)
    alike = [index for index, column in enumerate(audience.columns) if _loose(column) == wanted]
    if len(alike) == 1:
        return alike[0]
    if alike:
        names = " and ".join(f'"{audience.columns[index]}"' for index in alike)
        what = f'{purpose}: "{name}" could be any of the columns {names} of {audience.path.name}'
        raise InputError(Problem(where, what, "write the name exactly as it stands in the file"))
    likely = _likeliest(audience.columns, name, purpose)
    listed = ", ".join(f'"{column}"' for column in audience.columns[:30])
    if len(audience.columns) > 30:
        listed += f" and {len(audience.columns) - 30} more"
    what = f'{purpose}: {audience.path.name} has no column "{name}"; its columns are {listed}'
    raise InputError(Problem(where, what, f'did you mean "{likely}"?' if likely else "use one of these"))


def _loose(name: str) -> str:
    return "".join(name.casefold().replace("i\u0307", "i").split())


def _likeliest(columns: tuple[str, ...], name: str, purpose: str) -> str:
    plain = {plain_name(column): column for column in reversed(columns)}
    near = difflib.get_close_matches(plain_name(name), list(plain), n=1, cutoff=0.7)
    if near:
        return plain[near[0]]
    if "phone" in purpose.casefold() or looks_like_phone_column(name):
        return next((column for column in columns if looks_like_phone_column(column)), "")
    return ""
