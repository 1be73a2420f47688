"""One sheet of an .xlsx workbook as rows of text.

python-calamine streams the rows: for 1,000,000 rows it needs 200-600 MB where pandas' own engine on top of it needs
1.6 GB, and openpyxl seven times the time (measured). A cell becomes the text that the sheet means: 905321234567.0 is
'905321234567', a date is ISO 8601, TRUE is 'TRUE', an error keeps its name ('#N/A').
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from runner.errors import InputError, Problem
from runner.header import Row, Shape, survey
from runner.workbook_guard import SheetScan, check_archive, check_texts, scan_sheet

Cell = int | float | str | bool | dt.time | dt.date | dt.datetime | dt.timedelta
_EXACT = 10**15  # Excel keeps 15 significant digits; a longer whole number has lost the rest


@dataclass(frozen=True, slots=True)
class Workbook:
    """The chosen sheet, loaded, with its shape."""

    path: Path
    sheet: str
    shape: Shape
    notes: tuple[str, ...]
    first_column: int  # of the sheet's data: 1 when column A is empty
    loaded: CalamineSheet = field(repr=False)
    scan: SheetScan = field(repr=False)

    def rows(self, chunk: int) -> Iterator[list[Row]]:
        """Rows below the header in lists of at most `chunk`, in order, wholly blank ones left out."""
        keep = self.shape.keep
        pick = itemgetter(*keep) if len(keep) > 1 else None
        rows: list[Row] = []
        for number, cells in _records(self.loaded, self.scan):
            if number <= self.shape.header_row or not "".join(cells).strip():
                continue
            values: tuple[str, ...] = pick(cells) if pick else (cells[keep[0]],)
            rows.append(Row(number, values))
            if len(rows) >= chunk:
                yield rows
                rows = []
        if rows:
            yield rows


def open_workbook(path: Path, sheet: str | None, is_header: Callable[[Sequence[str]], bool]) -> Workbook:
    """Load the sheet called `sheet` (without it the first visible one). Raises `InputError`."""
    if path.stat().st_size == 0:
        raise InputError(Problem(path.name, "the file is empty", "save the workbook again"))
    check_archive(path)
    check_texts(path)
    try:
        with CalamineWorkbook.from_path(path) as book:
            name, notes = _choose(path, book, sheet)
            scan = scan_sheet(path, name)
            loaded = book.get_sheet_by_name(name)
    except CalamineError as error:
        raise InputError(_damaged(path, error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how a Rust panic arrives: outside the tree of Exception
            raise
        raise InputError(_damaged(path, error)) from error
    tally = _Tally()
    first_column = loaded.start[1] if loaded.start else 0
    place = f'{path.name}, sheet "{name}",'
    try:
        shape = survey(_records(loaded, scan, tally), place, is_header, first_column)
    except InputError as error:
        raise InputError(*(_tidy(problem, place) for problem in error.problems)) from None
    return Workbook(path, name, shape, (*notes, *shape.notes, *tally.notes(scan)), first_column, loaded, scan)


def _tidy(problem: Problem, place: str) -> Problem:
    return Problem(problem.where.rstrip(",") if problem.where == place else problem.where, problem.what, problem.fix)


def _damaged(path: Path, error: BaseException) -> Problem:
    fix = "open it in Excel or LibreOffice and save it again as .xlsx"
    return Problem(path.name, f"the workbook is damaged ({str(error)[:200]})", fix)


def _choose(path: Path, book: CalamineWorkbook, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    sheets = [one for one in book.sheets_metadata if one.typ == SheetTypeEnum.WorkSheet]
    names = [one.name for one in sheets]
    if wanted is not None:
        if wanted in names:
            return wanted, ()
        near = difflib.get_close_matches(wanted.casefold(), [name.casefold() for name in names], n=1)
        nearest = next((name for name in names if near and name.casefold() == near[0]), "")
        listed = ", ".join(f'"{name}"' for name in names[:30]) or "none"
        what = f'there is no sheet "{wanted}"; the sheets are {listed}'
        raise InputError(Problem(path.name, what, f'did you mean "{nearest}"?' if nearest else "use one of these"))
    visible = [one.name for one in sheets if one.visible == SheetVisibleEnum.Visible]
    if not visible:
        what = "the workbook has no visible sheet"
        raise InputError(Problem(path.name, what, "name the sheet with audience.sheet" if names else "add a sheet"))
    if len(names) == 1:
        return visible[0], ()
    others = ", ".join(f'"{name}"' for name in names if name != visible[0])
    return visible[0], (f'read the first visible sheet "{visible[0]}", not {others}; set audience.sheet for another',)


@dataclass(slots=True)
class _Tally:
    """What the cells showed that a user should know."""

    long: list[str] = field(default_factory=list)
    round_: list[str] = field(default_factory=list)
    long_count: int = 0
    round_count: int = 0

    def number(self, row: int, value: int) -> None:
        if abs(value) >= _EXACT:
            self.long_count += 1
            if len(self.long) < 5:
                self.long.append(str(row))
        elif value >= 10**10 and value % 10**6 == 0:
            self.round_count += 1
            if len(self.round_) < 5:
                self.round_.append(str(row))

    def notes(self, scan: SheetScan) -> tuple[str, ...]:
        notes: list[str] = []
        if self.long_count:
            rows = ", ".join(self.long)
            notes.append(
                f"{self.long_count:,} number cells have more than 15 digits, so Excel has lost the last ones "
                f"(first in row {rows}); format the column as text and enter them again"
            )
        if self.round_count:
            rows = ", ".join(self.round_)
            notes.append(
                f"{self.round_count:,} long number cells end in six zeros (first in row {rows}); a phone number that "
                "once was shown as 9.05E+11 looks like this"
            )
        if scan.uncalculated:
            notes.append(
                f"{scan.uncalculated:,} formula cells hold no calculated value and read as blank; "
                "open the workbook in Excel and save it"
            )
        if scan.error_places:
            first = scan.error_places[0] // 16384 + 1
            notes.append(f"{len(scan.error_places):,} cells hold an error such as {scan.error_text(0)} (row {first})")
        return tuple(notes)


def _records(loaded: CalamineSheet, scan: SheetScan, tally: _Tally | None = None) -> Iterator[tuple[int, list[str]]]:
    """Every row from row 1 on as text, blank ones included; all have the width of the sheet."""
    places = scan.error_places
    first_column = loaded.start[1] if loaded.start else 0
    error = 0
    for number, row in enumerate(loaded.iter_rows(), 1):
        cells = [cell if type(cell) is str else _text(cell, number, tally) for cell in row]
        while error < len(places) and places[error] // 16384 < number:
            column = places[error] % 16384 - first_column
            if places[error] // 16384 == number - 1 and 0 <= column < len(cells):
                cells[column] = scan.error_text(error)
            error += 1
        yield number, cells


def _text(cell: Cell, row: int, tally: _Tally | None) -> str:
    if type(cell) is float and cell.is_integer():  # nearly every number on a sheet
        whole = int(cell)
        if tally is not None:
            tally.number(row, whole)
        return str(whole)
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float | int):
        if not isinstance(cell, int) and not cell.is_integer():
            # Excel shows 15 significant digits: a sum kept as 0.30000000000000004 is 0.3 on the sheet.
            return repr(float(format(cell, ".15g")))
        if tally is not None:
            tally.number(row, int(cell))
        return str(int(cell))
    if isinstance(cell, dt.timedelta):
        return _duration(cell)
    return cell if isinstance(cell, str) else _moment(cell)


def _duration(span: dt.timedelta) -> str:
    seconds = round(span.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _moment(moment: dt.datetime | dt.date | dt.time) -> str:
    if isinstance(moment, dt.datetime):
        # A date's fraction of a day is a float: 03:04:05 may come as 03:04:04.999999.
        whole = (moment + dt.timedelta(microseconds=500_000)).replace(microsecond=0)
        midnight = whole.time() == dt.time(0)
        return whole.date().isoformat() if midnight else whole.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(moment, dt.time):
        return (
            _moment(dt.datetime.combine(dt.date(2000, 1, 1), moment, tzinfo=moment.tzinfo)).partition(" ")[2]
            or "00:00:00"
        )
    return moment.isoformat()
