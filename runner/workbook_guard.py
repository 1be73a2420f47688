"""What must hold of an .xlsx file before a parser may see it.

Measured: a 4 KB workbook with a cell in A1 and one in XFD1048576 makes calamine ask for 549 GB and abort the whole
process (no Python exception; known upstream as tafia/calamine #693); a 1 MB zip with one 1 GB text takes it to 4.2 GB.
Both are legal files, so the archive's sizes are checked and the chosen sheet's cell references are read first.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from runner.errors import ConfinedError, InputError, Problem
from runner.header import MAX_COLUMNS, column_letter

MAX_BYTES = 1 << 30  # of all parts unpacked; 1,000,000 rows of 7 columns are about 0.4 GB
MAX_RATIO = 200  # unpacked to packed, of parts over 10 MB; an ordinary sheet of 60,000 rows measured 8, its texts 10
MAX_ROWS = 1_048_576
# Cells of the rectangle that calamine allocates (measured: 32 bytes each); more only if a quarter of them are filled.
MAX_AREA = 20_000_000
_BLOCK = 1 << 20
_MAX_TAIL = 8 << 20  # of a cell that runs over the end of a block, and of the workbook's own small parts
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)
_ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA")
_REPAIR = "open it in Excel or LibreOffice and save it again as .xlsx"

# A cell as every common writer spells it (reference first), an empty one of these, or any other spelling.
_CELL = re.compile(
    rb'<(?:[^\s<>/:!?="\']+:)?c'
    rb'(?: r="[A-Z]{1,3}\d{1,7}"[^<>/]*/>| r="([A-Z]{1,3})(\d{1,7})"[^<>/]*>|([\s/>]))'
)
_ERROR_CELL = re.compile(
    rb'<c r="([A-Z]{1,3})(\d{1,7})"[^<>]*\bt="e"[^<>]*>(?:<f[^<>]*/>|<f[^<>]*>[^<]*</f>)?<v>([^<]*)</v>'
)
_UNCOUNTED = re.compile(
    rb'<c r="[A-Z]+\d+"(?![^<>]*\bt="str")[^<>]*>(?:<f[^<>]*/>|<f[^<>]*>[^<]*</f>)(?:<v\s*/>|<v></v>)?</c>'
)


@dataclass(slots=True)
class SheetScan:
    """What the XML of a sheet holds. Positions count from 0."""

    last_row: int = -1
    last_column: int = -1
    cells: int = 0
    uncalculated: int = 0  # formulas without a stored value, which read as blank
    error_places: array[int] = field(default_factory=lambda: array("Q"))  # row * 16384 + column, ascending
    error_codes: bytearray = field(default_factory=bytearray)

    def error_text(self, index: int) -> str:
        """The text of the error cell at `error_places[index]`, e.g. '#N/A' (calamine gives '' for these)."""
        return _ERRORS[self.error_codes[index]]


def check_archive(path: Path) -> None:
    """Refuse an archive that is not an .xlsx workbook, or that would unpack beyond bounds. Raises `InputError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (*_DAMAGED, ValueError) as error:
        raise InputError(Problem(path.name, f"the workbook is damaged ({error})", _REPAIR)) from error
    names = [entry.filename.replace("\\", "/") for entry in entries]
    folded = {name.casefold() for name in names}
    if len(folded) != len(names):
        raise InputError(Problem(path.name, "the workbook holds two parts of the same name", _REPAIR))
    if any(name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name[:2] for name in names):
        raise InputError(Problem(path.name, "the workbook holds a part with a path that leads out of it", _REPAIR))
    if "xl/workbook.xml" not in folded:
        what = "the file is an archive, but not an .xlsx workbook"
        raise InputError(Problem(path.name, what, "save it as 'Excel Workbook (.xlsx)' in the program that wrote it"))
    if any(entry.flag_bits & 1 for entry in entries):
        raise InputError(Problem(path.name, "the workbook is encrypted", "save it again without a password"))
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        what = f"the workbook unpacks to {total / 1e9:.1f} GB, more than the {MAX_BYTES / 1e9:.1f} GB allowed"
        raise ConfinedError(Problem(path.name, what, "save the sheet as CSV UTF-8"))
    for entry in entries:
        if entry.file_size > 10 << 20 and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            what = f"the part {entry.filename[:60]!r} unpacks to more than {MAX_RATIO} times its size"
            raise ConfinedError(Problem(path.name, what, "save the sheet as CSV UTF-8"))


def check_texts(path: Path) -> None:
    """Refuse a shared text of more than 4 MB (Excel's limit is 32,767 characters), and a part that lies about its size."""
    with _archive(path) as archive:
        name = _part(archive, "xl/sharedstrings.xml")
        if name is None:
            return
        run = 0
        for block in _blocks(path, archive, name):
            first, last = block.find(b"<si"), block.rfind(b"<si")
            run = run + len(block) if first < 0 else len(block) - last
            if run > 4 << 20:
                what = "a cell holds more than 4 MB of text"
                raise ConfinedError(Problem(path.name, what, "shorten it, or save the sheet as CSV UTF-8"))


def scan_sheet(path: Path, sheet: str) -> SheetScan:
    """Read the XML of the sheet called `sheet` in blocks. Raises `InputError` for one too wide or too sparse to load.

    The sheet's own `<dimension>` is not asked, it may lie. Nothing is read beyond the last row that a sheet can have.
    """
    place = f'{path.name}, sheet "{sheet}"'
    with _archive(path) as archive:
        part = _sheet_part(path, archive, sheet)
        scan = _quick_scan(path, archive, part)
        if scan is None:
            scan = _careful_scan(path, archive, part)
    if scan.last_row >= MAX_ROWS:
        what = f"has more than the {MAX_ROWS:,} rows that a worksheet can have"
        raise ConfinedError(Problem(place, what, "save the sheet as CSV UTF-8, or split it"))
    if scan.last_column >= MAX_COLUMNS:
        what = f"has a cell in column {column_letter(scan.last_column)}, beyond the {MAX_COLUMNS} columns allowed"
        raise ConfinedError(Problem(place, what, "delete the columns right of your data, and save again"))
    area = (scan.last_row + 1) * (scan.last_column + 1)
    if area > MAX_AREA and area > 4 * scan.cells:
        what = f"reaches to {column_letter(scan.last_column)}{scan.last_row + 1}, but is almost empty"
        raise ConfinedError(Problem(place, what, "delete the rows and columns beyond your data, and save again"))
    return scan


def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _part(archive: zipfile.ZipFile, name: str) -> str | None:
    return next((one for one in archive.namelist() if one.replace("\\", "/").casefold() == name.casefold()), None)


def _blocks(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """A part in blocks. zipfile stops at the declared size and then compares the checksum, so a lie is found here."""
    try:
        with archive.open(name) as part:
            while block := part.read(_BLOCK):
                yield block
    except _DAMAGED as error:
        raise InputError(Problem(path.name, f"the workbook is damaged ({error})", _REPAIR)) from error


def _sheet_part(path: Path, archive: zipfile.ZipFile, sheet: str) -> str:
    """The name of the sheet's part, found as calamine finds it: by workbook.xml and its relations."""
    book = _small_xml(path, archive, "xl/workbook.xml")
    links = _small_xml(path, archive, "xl/_rels/workbook.xml.rels")
    targets = {
        link.get("Id", ""): link.get("Target", "") for link in links.iter() if _local(link.tag) == "Relationship"
    }
    for element in book.iter():
        if _local(element.tag) == "sheet" and element.get("name") == sheet:
            link = next((value for key, value in element.attrib.items() if key != "id" and _local(key) == "id"), "")
            target = targets.get(link, "").replace("\\", "/").removeprefix("/")
            part = _part(archive, target if target.startswith("xl/") else f"xl/{target}")
            if part is not None:
                return part
    raise InputError(Problem(path.name, f'the workbook is damaged (sheet "{sheet}" has no contents)', _REPAIR))


def _small_xml(path: Path, archive: zipfile.ZipFile, name: str) -> ET.Element:
    part = _part(archive, name)
    data = b""
    if part is not None:
        for block in _blocks(path, archive, part):
            data += block
            if len(data) > _MAX_TAIL:
                break
    if not data or len(data) > _MAX_TAIL or b"<!DOCTYPE" in data or b"\0" in data:
        raise InputError(Problem(path.name, f"the workbook is damaged (its part {name})", _REPAIR))
    try:
        return ET.fromstring(data)  # noqa: S314 - no DOCTYPE, so no entity can be declared
    except ET.ParseError as error:
        raise InputError(Problem(path.name, f"the workbook is damaged ({name}: {error})", _REPAIR)) from error


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _column(letters: str) -> int:
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("A") + 1
    return index - 1


def _quick_scan(path: Path, archive: zipfile.ZipFile, part: str) -> SheetScan | None:
    """Regular expressions over blocks cut before a cell; None when the XML is spelt another way.

    Measured: 1.4 us a cell, against 8 us for the careful scan.
    """
    scan = SheetScan()
    columns: set[bytes] = set()
    rows: set[bytes] = set()
    tail = b""
    for block in _blocks(path, archive, part):
        text = tail + block
        cut = text.rfind(b"<c ")
        if cut < 0:
            cut = max(text.rfind(b"<"), 0)
        tail = text[cut:]
        if len(tail) > _MAX_TAIL or b"\0" in block or b"<!" in text:
            return None
        if not _quick_block(text[:cut], scan, columns, rows):
            return None
        if scan.last_row >= MAX_ROWS:
            return scan
    if not _quick_block(tail, scan, columns, rows):
        return None
    scan.last_column = max((_column(letters.decode()) for letters in columns), default=-1)
    _sort_errors(scan)
    return scan


def _quick_block(text: bytes, scan: SheetScan, columns: set[bytes], rows: set[bytes]) -> bool:
    found = _CELL.findall(text)
    if not found:
        return True
    letters, digits, other = zip(*found, strict=True)
    if any(other):
        return False
    filled = len(letters) - letters.count(b"")
    if filled:
        columns.update(letters)
        columns.discard(b"")
        rows.update(digits)
        rows.discard(b"")
        scan.cells += filled
        scan.last_row = max(scan.last_row, max(map(int, rows)) - 1)
        rows.clear()
    if b't="e"' in text:
        for column, row, value in _ERROR_CELL.findall(text):
            _note_error(scan, int(row) - 1, _column(column.decode()), value.decode("ascii", "replace"))
    if b"<f" in text:
        scan.uncalculated += len(_UNCOUNTED.findall(text))
    return True


def _note_error(scan: SheetScan, row: int, column: int, value: str) -> None:
    if value in _ERRORS and 0 <= row < MAX_ROWS and 0 <= column < 16384:
        scan.error_places.append(row * 16384 + column)
        scan.error_codes.append(_ERRORS.index(value))


def _sort_errors(scan: SheetScan) -> None:
    places = scan.error_places
    if any(places[index] > places[index + 1] for index in range(len(places) - 1)):
        pairs = sorted(zip(places, scan.error_codes, strict=True))
        scan.error_places = array("Q", (place for place, _ in pairs))
        scan.error_codes = bytearray(code for _, code in pairs)


def _careful_scan(path: Path, archive: zipfile.ZipFile, part: str) -> SheetScan:
    """A real XML parser, counting cells without a reference as calamine does."""
    reader = _CarefulReader()
    try:
        for block in _blocks(path, archive, part):
            reader.parser.Parse(block, False)
            if reader.scan.last_row >= MAX_ROWS:
                return reader.scan
        reader.parser.Parse(b"", True)
    except (expat.ExpatError, _Refused, ValueError) as error:
        raise InputError(Problem(path.name, f"the workbook is damaged ({part}: {error})", _REPAIR)) from error
    _sort_errors(reader.scan)
    return reader.scan


class _Refused(Exception):  # noqa: N818 - a signal out of expat's callbacks, never seen outside
    pass


class _CarefulReader:
    def __init__(self) -> None:
        self.scan = SheetScan()
        self.parser = expat.ParserCreate(namespace_separator="}")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._row = self._column = -1
        self._kind = ""
        self._value: list[str] | None = None
        self._valued = self._formula = False

    def _doctype(self, *_: object) -> None:
        raise _Refused("it declares a DOCTYPE")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _local(tag)
        if name == "row":
            self._row = int(attributes["r"]) - 1 if attributes.get("r", "").isdigit() else self._row + 1
            self._column = -1
            if self._row >= MAX_ROWS:  # counts although it may be empty: there is no such row
                self.scan.last_row = self._row
        elif name == "c":
            self._column += 1
            match = re.fullmatch(r"([A-Za-z]{1,3})(\d{1,7})", attributes.get("r", "").strip())
            if match:
                self._column, self._row = _column(match[1].upper()), int(match[2]) - 1
            self._kind = attributes.get("t", "")
            self._valued = self._formula = False
        elif name == "f":
            self._formula = True
        elif name in ("v", "t"):
            self._value = []

    def _text(self, data: str) -> None:
        if self._value is not None and len(self._value) < 64:
            self._value.append(data)

    def _end(self, tag: str) -> None:
        name = _local(tag)
        if name in ("v", "t") and self._value is not None:
            text, self._value = "".join(self._value), None
            self._valued = self._valued or bool(text) or self._kind == "str"
            if name == "v" and self._kind == "e":
                _note_error(self.scan, self._row, self._column, text)
        elif name == "c":
            if self._valued:
                self.scan.cells += 1
                self.scan.last_row = max(self.scan.last_row, self._row)
                self.scan.last_column = max(self.scan.last_column, self._column)
            elif self._formula and self._kind != "str":
                self.scan.uncalculated += 1
