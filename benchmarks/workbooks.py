"""Writes an XLSX audience as spreadsheet programs do: texts in a shared table, numbers as numbers. Streams; 1,000,000 rows fit."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_FIXED = {
    "[Content_Types].xml": (
        f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/>'
        f'<Override PartName="/xl/sharedStrings.xml" ContentType="{_TYPE}.sharedStrings+xml"/></Types>'
    ),
    "_rels/.rels": (
        f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        f'<workbook {_NS} xmlns:r="{_REL}"><sheets><sheet name="Customers" sheetId="1" r:id="rId1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_REL}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId2" Type="{_REL}/sharedStrings" Target="sharedStrings.xml"/></Relationships>'
    ),
}


def write_workbook(path: Path, rows: Iterable[Sequence[str]], size: int) -> None:
    """One sheet of `size` rows. A value of nothing but digits (without a leading zero) becomes a number."""
    strings: dict[str, int] = {}
    letters = [chr(ord("A") + i) for i in range(26)]
    width = 0
    used = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for name, content in _FIXED.items():
            book.writestr(name, _XML + content)
        with book.open("xl/worksheets/sheet1.xml", "w") as sheet:
            lines = [f"{_XML}<worksheet {_NS}>"]
            for number, row in enumerate(rows, start=1):
                if not width:
                    width = len(row)
                    lines.append(f'<dimension ref="A1:{letters[width - 1]}{size}"/><sheetData>')
                cells = []
                for letter, value in zip(letters, row, strict=False):
                    if value.isdecimal() and not value.startswith("0"):
                        cells.append(f'<c r="{letter}{number}"><v>{value}</v></c>')
                    else:
                        used += 1
                        place = strings.setdefault(value, len(strings))
                        cells.append(f'<c r="{letter}{number}" t="s"><v>{place}</v></c>')
                lines.append(f'<row r="{number}">{"".join(cells)}</row>')
                if len(lines) >= 1000:
                    sheet.write("".join(lines).encode())
                    lines.clear()
            sheet.write(("".join(lines) + "</sheetData></worksheet>").encode())
        with book.open("xl/sharedStrings.xml", "w") as table:
            table.write(f'{_XML}<sst {_NS} count="{used}" uniqueCount="{len(strings)}">'.encode())
            texts = list(strings)
            for start in range(0, len(texts), 1000):
                part = texts[start : start + 1000]
                table.write("".join(f"<si><t>{escape(text)}</t></si>" for text in part).encode())
            table.write(b"</sst>")
