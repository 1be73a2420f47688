"""Which character encoding a text file is in: told by the bytes of the whole file, or refused; never a silent guess.

Measured: a general detector (charset-normalizer) took short Turkish cp1254 for cp1250, and cp1252 for Turkish when
limited to a list; both give wrong names. So an 8-bit page is accepted only where the two that people's spreadsheets
are saved in (cp1252 Western European, cp1254 Turkish) can be told apart.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.errors import InputError, Problem

_BLOCK = 1 << 20
_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with BOM",
    "utf-16": "UTF-16 with BOM",
    "utf-16-le": "UTF-16 little endian",
    "utf-16-be": "UTF-16 big endian",
    "utf-32": "UTF-32 with BOM",
    "cp1252": "Windows-1252 (Western European)",
    "cp1254": "Windows-1254 (Turkish)",
}
# The only letters on which the two pages differ: D0 DD DE F0 FD FE are ĞİŞğış in cp1254 and ÐÝÞðýþ in cp1252.
_DIFFERING = frozenset(b"\xd0\xdd\xde\xf0\xfd\xfe")
_ALSO_TURKISH = frozenset("ÇçÖöÜüÂâÎîÛû".encode("cp1254"))
_LETTERS = frozenset(range(0xC0, 0x100)) - {0xD7, 0xF7}  # all but the signs × and ÷
_UNDEFINED_IN_BOTH = frozenset(b"\x81\x8d\x8f\x90\x9d")
_ONLY_WESTERN = frozenset(b"\x8e\x9e")  # Ž and ž: undefined in cp1254
_ASCII = bytes(range(0x80))
_IN_WORD = re.compile(rb"[A-Za-z\xc0-\xff][\xd0\xdd\xde\xf0\xfd\xfe]|[\xd0\xdd\xde\xf0\xfd\xfe][A-Za-z\xc0-\xff]")
# Cyrillic or Greek read as cp1252 shows as runs of accented letters; Polish and Czech as signs within words.
_NOT_WESTERN = re.compile(
    rb"[\xc0-\xd6\xd8-\xf6\xf8-\xff]{3}|[A-Za-z\xc0-\xff][\xa1-\xa9\xab\xac\xae-\xb3\xb5\xb6\xb8\xb9\xbb-\xbf][A-Za-z]"
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A Python codec name, and what to tell the user about how it was found (may be empty)."""

    codec: str
    note: str = ""

    @property
    def title(self) -> str:
        return _NAMES.get(self.codec, self.codec)


def detect_encoding(path: Path, wanted: str | None = None) -> Encoding:
    """The encoding of the file at `path`; `wanted` is the campaign file's own word and is then used strictly.

    Reads the whole file once in blocks. Raises `InputError` when it does not decode, holds NUL, or cannot be told.
    """
    if wanted is not None:
        codec = _codec(path, wanted)
        fault = _first_fault(path, codec)
        if fault is not None:
            raise InputError(_undecodable(path, fault, codec, f"the campaign file says encoding: {wanted}"))
        return Encoding(codec)
    with path.open("rb") as file:
        head = file.read(4096)
    marked = _by_mark(head) or _by_nulls(head)
    if marked:
        fault = _first_fault(path, marked)
        if fault is not None:
            raise InputError(_undecodable(path, fault, marked, f"its beginning says {_NAMES[marked]}"))
        return Encoding(marked, "" if marked.endswith(("sig", "16", "32")) else f"no byte order mark: {_NAMES[marked]}")
    fault = _first_fault(path, "utf-8")
    if fault is None:
        return Encoding("utf-8")
    if fault.nul:
        raise InputError(_undecodable(path, fault, "utf-8", ""))
    return _eight_bit(path, fault)


def _codec(path: Path, wanted: str) -> str:
    try:
        codec = codecs.lookup(wanted).name
        text = codecs.getincrementaldecoder(codec)("strict").decode(b"", final=True)
    except (LookupError, ValueError, TypeError, AttributeError):
        text = None
    if not isinstance(text, str):
        what = f"encoding: {wanted[:40]!r} is not a character encoding that Python knows"
        raise InputError(Problem(path.name, what, "write one such as utf-8, utf-16, cp1254 (Turkish) or cp1252"))
    with path.open("rb") as file:
        return "utf-8-sig" if codec == "utf-8" and file.read(3) == codecs.BOM_UTF8 else codec


def _by_mark(head: bytes) -> str:
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""


def _by_nulls(head: bytes) -> str:
    """UTF-16 without a mark: Latin text has a NUL in every second byte and none in the others."""
    pairs = len(head) // 2
    even, odd = head[0 : pairs * 2 : 2].count(0), head[1 : pairs * 2 : 2].count(0)
    if pairs and even == 0 and odd * 10 > pairs * 4:
        return "utf-16-le"
    return "utf-16-be" if pairs and odd == 0 and even * 10 > pairs * 4 else ""


@dataclass(frozen=True, slots=True)
class _Fault:
    row: int
    byte: int
    nul: bool = False


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _texts(path: Path, codec: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)("strict")
    for block in _blocks(path):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _first_fault(path: Path, codec: str) -> _Fault | None:
    """Where the file stops being text in `codec`. Rows are counted only once a fault is known to be there."""
    try:
        if not any("\0" in text for text in _texts(path, codec)):
            return None
    except UnicodeError:
        pass
    breaks = _RowCounter()
    try:
        for text in _texts(path, codec):
            if "\0" in text:
                return _Fault(breaks.row_after(text[: text.index("\0")]), 0, nul=True)
            breaks.row_after(text)
    except UnicodeDecodeError as error:
        good = codecs.getincrementaldecoder(codec)("ignore").decode(error.object[: error.start])
        return _Fault(breaks.row_after(good), error.object[error.start])
    except UnicodeError:  # UTF-16 with an unfinished unit raises the plain class in some Python releases
        return _Fault(breaks.row, 0)
    return None


class _RowCounter:
    """Rows so far, told by line ends that are not within quotes."""

    def __init__(self) -> None:
        self.row = 1
        self._quoted = False
        self._after_return = False

    def row_after(self, text: str) -> int:
        if self._after_return and text.startswith("\n"):
            text = text[1:]
        self._after_return = text.endswith("\r")
        for index, piece in enumerate(text.split('"')):
            if index:
                self._quoted = not self._quoted
            if not self._quoted:
                self.row += piece.count("\n") + piece.count("\r") - piece.count("\r\n")
        return self.row


def _undecodable(path: Path, fault: _Fault, codec: str, because: str) -> Problem:
    place = f"{path.name} row {fault.row}"
    if fault.nul:
        return Problem(place, "the file holds a NUL character, so it is not a plain text file", "save it again as CSV")
    said = f" ({because})" if because else ""
    what = f"the byte 0x{fault.byte:02X} is not {_NAMES.get(codec, codec)}{said}"
    return Problem(place, what, "save the file as 'CSV UTF-8', or set the right audience.encoding in the campaign file")


def _eight_bit(path: Path, fault: _Fault) -> Encoding:
    """cp1254 or cp1252, by the six letters that differ; refused where the evidence is mixed."""
    high: set[int] = set()
    in_word = foreign = False
    for lines in _whole_lines(path):
        high.update(lines.translate(None, _ASCII))
        in_word = in_word or bool(_IN_WORD.search(lines))
        foreign = foreign or bool(_NOT_WESTERN.search(lines))
    turkish = high & _DIFFERING
    others = (high & _LETTERS) - _DIFFERING - _ALSO_TURKISH
    if high & _UNDEFINED_IN_BOTH:
        why = "it holds bytes that neither Windows-1252 nor Windows-1254 has"
    elif not turkish and not foreign:
        note = "not UTF-8: read as Windows-1252 (Western European); look at the names in a preview"
        return Encoding("cp1252", note)
    elif turkish and in_word and not others and not high & _ONLY_WESTERN:
        return Encoding("cp1254", "not UTF-8: read as Windows-1254 (Turkish); look at the names in a preview")
    elif turkish:
        why = "it holds letters of both Turkish (Windows-1254) and Western European (Windows-1252) text"
    else:
        why = "it does not read as Western European (Windows-1252) text"
    what = f"the file is not UTF-8 (byte 0x{fault.byte:02X}), and its 8-bit encoding cannot be told: {why}"
    fix = "save it as 'CSV UTF-8', or name it in the campaign file, e.g. encoding: cp1254 (Turkish), cp1252 (Western)"
    raise InputError(Problem(f"{path.name} row {fault.row}", what, fix))


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The file in blocks cut at line ends, so that a letter and its neighbours are seen together."""
    held = b""
    for block in _blocks(path):
        held += block
        cut = held.rfind(b"\n") + 1
        if cut or len(held) > 4 * _BLOCK:
            cut = cut or len(held)
            yield held[:cut]
            held = held[cut:]
    yield held
