"""Hostile files, made cheaply: workbooks part by part, zip bombs from one repeated block, templates that ask for the world."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
HEAD = "<?xml version='1.0' encoding='UTF-8'?>"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an archive as it is to stand there: compressed bytes, and what is said of them (truly or not)."""

    packed: bytes
    size: int
    crc: int

    @staticmethod
    def of(data: bytes) -> Part:
        """An honest part."""
        return Part(_deflated(data), len(data), zlib.crc32(data))

    @staticmethod
    def repeated(front: bytes, block: bytes, times: int, back: bytes) -> Part:
        """front + block x times + back, packed in no time: each block is compressed once, ending on a byte."""
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = [packer.compress(front) + packer.flush(zlib.Z_FULL_FLUSH)]
        again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
        packed += [again] * times
        packed.append(packer.compress(back) + packer.flush())
        crc = zlib.crc32(front)
        for _ in range(times):
            crc = zlib.crc32(block, crc)
        return Part(b"".join(packed), len(front) + len(block) * times + len(back), zlib.crc32(back, crc))

    def saying(self, size: int) -> Part:
        """The same, lying about its size."""
        return Part(self.packed, size, self.crc)


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def write_zip(path: Path, parts: Mapping[str, Part]) -> Path:
    """An archive with exactly these names and claims; no library would write most of them."""
    with path.open("wb") as file:
        directory = b""
        for name, part in parts.items():
            raw = name.encode()
            sizes = struct.pack("<LLL", part.crc, len(part.packed), part.size)
            fixed = struct.pack("<HHHHH", 20, 0x800, 8, 0, 0x21) + sizes + struct.pack("<HH", len(raw), 0)
            at = file.tell()
            file.write(b"PK\3\4" + fixed + raw + part.packed)
            directory += b"PK\1\2" + struct.pack("<H", 20) + fixed + struct.pack("<HHHLL", 0, 0, 0, 0, at) + raw
        start = file.tell()
        file.write(
            directory + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, len(parts), len(parts), len(directory), start, 0)
        )
    return path


def workbook(
    path: Path, *, sheet: str | Part = "", texts: str | Part | None = None, more: Mapping[str, str] | None = None
) -> Path:
    """A workbook of one sheet. `sheet` is what stands between <sheetData> and its end, or the whole part; `texts` likewise."""
    if isinstance(sheet, str):
        sheet = Part.of(f'{HEAD}<worksheet xmlns="{MAIN}"><sheetData>{sheet}</sheetData></worksheet>'.encode())
    if isinstance(texts, str):
        texts = Part.of(f'{HEAD}<sst xmlns="{MAIN}">{texts}</sst>'.encode())
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'{HEAD}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        f'ContentType="{kinds}.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" '
        f'ContentType="{kinds}.worksheet+xml"/></Types>',
        "_rels/.rels": f'{HEAD}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{_REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'{HEAD}<workbook xmlns="{MAIN}" xmlns:r="{_REL}"><sheets>'
        '<sheet name="People" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{HEAD}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{_REL}/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" '
        f'Type="{_REL}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
        **(more or {}),
    }
    packed = {name: Part.of(text.encode()) for name, text in parts.items()}
    packed["xl/worksheets/sheet1.xml"] = sheet
    packed["xl/sharedStrings.xml"] = texts or Part.of(f'{HEAD}<sst xmlns="{MAIN}"/>'.encode())
    return write_zip(path, packed)


def cell(place: str, text: str) -> str:
    """A cell that holds its own text."""
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


HEADER = f'<row r="1">{cell("A1", "Phone")}{cell("B1", "Name")}</row>'
PERSON = f'<row r="2">{cell("A2", "+905320000001")}{cell("B2", "Ada")}</row>'

AGAIN = "{{% set n = namespace(a='{}') %}}{{% for i in range(60) %}}{{% set n.a = {} %}}{{% endfor %}}{{{{ n.a }}}}"

# Each asks for gigabytes or for ever. None may be more than an error of its row.
GREEDY = {
    "two loops of 100,000": "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
    "two silent loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a range beyond all bounds": "{% for i in range(10**9) %}x{% endfor %}",
    "a text times a billion": "{{ 'a' * 1000000000 }}",
    "a list times a billion": "{{ [1] * 1000000000 }}",
    "a tower of powers": "{{ 10 ** (10 ** 8) }}",
    "a tower that leaves little": "{{ 9 ** (9 ** 9) % 7 }}",
    "a wide percent format": "{{ '%0900000000d' % 1 }}",
    "a wide format filter": "{{ '%0900000000d'|format(1) }}",
    "ljust": "{{ 'a'.ljust(900000000) }}",
    "zfill": "{{ 'a'.zfill(900000000) }}",
    "center": "{{ 'a'|center(900000000) }}",
    "indent": "{{ 'a\nb'|indent(900000000) }}",
    "doubling with ~": "{% set a = 'abcdefgh' %}" + "{% set a = a ~ a %}" * 30 + "{{ a|length }}",
    "doubling with +": "{% set a = 'abcdefgh' %}" + "{% set a = a + a %}" * 30 + "{{ a|length }}",
    "doubling in a loop": AGAIN.format("abcdefgh", "n.a ~ n.a"),
    "doubling with join": AGAIN.format("abcdefgh", "[n.a, n.a]|join"),
    "doubling with replace": AGAIN.format("aaaaaaaa", "n.a|replace('a', 'aa')"),
    "batch": "{{ range(3)|batch(900000000, 'x')|list|length }}",
    "slice": "{{ range(3)|slice(900000000)|list|length }}",
    "a macro that calls itself": "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "sorting a range over and over": "{% for i in range(99999) %}{{ range(99999)|sort|first }}{% endfor %}",
    "a way to the interpreter": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a dictionary of dictionaries": AGAIN.format("x", "dict(a=n.a, b=n.a)"),
}

# These are refused before a row is read, with their line.
FORBIDDEN = {
    "a wide format method": "{{ '{:900000000d}'.format(1) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "a file beside the templates": "{% include '../campaigns/people.csv' %}",
    "a file by its path": "{% include '/etc/passwd' %}",
    "a file far above": "{% include '../../etc/passwd' %}",
    "a file through the macros": "{% from '../../etc/passwd' import x %}",
    "a file named by a row": "{% include Name %}",
    "itself": "{% include 't.j2' %}",
    "brackets without end": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "ifs without end": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "a very long source": "x" * 5_000_000,
    "a binary": "\0\1\2{{",
}
