"""Several hundred names that were made to do harm go through every command: sent as they are or left out with a reason, inert
in every file."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pytest
from hostile_strings import HOSTILE_STRINGS

from acceptance import webpage
from acceptance.workbench import Workbench, numbers
from runner.sandbox import Sandbox

NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
OURS = re.compile(
    "html|head|meta|link|title|style|body|a|aside|strong|header|p|h1|h2|h3|h4|nav|ul|li|main|section|dl|div|dt|dd|table|caption|thead"
    "|tr|th|tbody|td|tfoot|span|svg|rect|g|path|circle|line|bdi|ol|blockquote|em|s|code|br|footer|time|details|summary|figure|figcaption|defs|text|polygon|polyline"
)
EVENT = re.compile("on[a-z]+")
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")


@dataclass(frozen=True, slots=True)
class Case:
    """One row: its number in the sheet, its phone, its name."""

    row: int
    phone: str
    name: str


def can_be_utf8(text: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def cases(file: str) -> list[Case]:
    """Those that this kind of file can carry. A CSV cannot hold a lone surrogate or a NUL; XML none of the control characters,
    and it reads a carriage return as a line feed (XML 1.0, 2.11)."""
    if file.endswith(".csv"):
        names = [text for text in HOSTILE_STRINGS if can_be_utf8(text) and "\x00" not in text]
    else:
        lines = (text.replace("\r\n", "\n").replace("\r", "\n") for text in HOSTILE_STRINGS)
        names = [text for text in dict.fromkeys(lines) if not NO_XML.search(text) and len(text) <= 32_767]
    return [Case(i + 2, phone, name) for i, (phone, name) in enumerate(zip(numbers(len(names)), names, strict=True))]


def kept(name: str, file: str) -> str:
    """The name as a result file can hold it. A cell of an audience workbook that holds nothing but blanks is read as blank."""
    if file.endswith(".xlsx") and not name.strip(" \t\r\n"):
        return ""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", name)


def wire(box: Sandbox, provider: str) -> dict[str, str]:
    found = {}
    for entry in box.log:
        assert entry.phone not in found
        body = json.loads(entry.body)
        found[entry.phone] = body["image"]["caption"] if provider == "zixflow" else body["caption"]
    return found


def expected(name: str) -> str:
    """The caption of a name that is sent: it stands inside other words, so nothing is stripped; line ends are LF."""
    return f"Hi [{name}]!".replace("\r\n", "\n")


@pytest.mark.parametrize(("provider", "file"), [("wapim", "people.csv"), ("zixflow", "people.xlsx")])
def test_a_hostile_name_is_sent_as_it_is_or_left_out_and_harms_no_file(
    bench: Workbench, box: Sandbox, provider: str, file: str
) -> None:
    rows = cases(file)
    assert len(rows) >= 500
    bench.audience([(f"+{case.phone}", case.name) for case in rows], name=file)
    campaign = bench.campaign(
        box.url,
        provider={"name": provider},
        audience={"file": file},
        message={"caption": "Hi [{{ Name }}]!"},
        send={"concurrency": 20},
    )

    checked = bench.run("check", campaign, "--all").must(0)
    shown = bench.run("preview", campaign, "-n", "30").must(0)
    assert box.log == []
    sent = bench.send(campaign).must(0)
    bench.run("report", "spring").must(0)
    status = bench.run("status", "spring").must(0)

    got = wire(box, provider)
    results = bench.results()
    assert [int(row["row"]) for row in results] == [case.row for case in rows]
    reasons: dict[str, int] = {}
    for case, row in zip(rows, results, strict=True):
        if row["status"] == "accepted":
            assert got.pop(case.phone) == expected(case.name), case
        else:
            assert (row["status"], bool(row["reason"])) == ("skipped", True)
            kind = row["reason"].partition(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
    assert got == {}
    assert set(reasons) <= {"render_error", "caption_too_long"}
    accepted = len(rows) - sum(reasons.values())
    print(f"{provider}, {file}: {len(rows)} names, {accepted} sent, {reasons}")
    assert accepted >= 300

    check_previews(bench, rows, results)
    for name in ("results.xlsx", "preview.xlsx"):
        check_workbook(bench.report(name))
    check_results_book(bench, rows, file)
    for name in ("results.csv", "retry.csv"):
        check_csv(bench.report(name))
    check_names_survive(bench, rows, file)
    for name in ("report.html", "preview.html"):
        check_page(bench.report(name))
    for finished in (checked, sent, status):  # the terminal takes orders through control characters
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", finished.out + finished.err)
    assert shown.out


def check_previews(bench: Workbench, rows: list[Case], results: list[dict[str, str]]) -> None:
    """Who would be sent to is who was sent to."""
    listed = bench.sheet(file="preview.xlsx")
    assert [row["row"] for row in listed] == [case.row for case in rows]
    assert ["accepted" if row["would be"] == "sent" else "skipped" for row in listed] == [
        row["status"] for row in results
    ]


def cells(path: Path) -> Iterator[openpyxl.cell.cell.Cell]:
    book = openpyxl.load_workbook(path)
    try:
        for sheet in book.worksheets:
            for row in sheet.iter_rows():
                yield from row  # type: ignore[misc]  # no merged cells in our books
    finally:
        book.close()


def check_workbook(path: Path) -> None:
    """Nothing in it is a formula, a link or an object, as openpyxl reads it and as the parts of the file are."""
    for cell in cells(path):
        assert cell.data_type != "f", cell.coordinate
        assert cell.hyperlink is None
        assert cell.comment is None
    with zipfile.ZipFile(path) as parts:
        for name in parts.namelist():
            assert not re.search("external|vba|activeX|ole|comments|queryTable|connections", name), name
            if name.startswith("xl/worksheets/"):
                xml = parts.read(name)
                assert not re.search(rb"<(f|hyperlink|dataValidation|oleObject|legacyDrawing)[ >/]", xml), name


def check_results_book(bench: Workbench, rows: list[Case], file: str) -> None:
    """The audience's own values are there, letter by letter, but for what no workbook can hold."""
    for case, row in zip(rows, bench.sheet(), strict=True):
        cell = str(row["Name"] or "")
        name = kept(case.name, file)
        name = name.replace("\r\n", "\n").replace("\r", "\n")
        if "[cut, " in cell:
            assert len(name.encode("utf-16-le")) // 2 > 32_767 or name.startswith("<r>")
            assert name.startswith(cell.rpartition("…")[0])
        else:
            assert cell == name, case


def check_csv(path: Path) -> None:
    """No cell begins a formula: in results.csv whichever separator a spreadsheet splits by, and not even a number with a sign; in
    retry.csv, which is to be read again, a cell as a whole, unless it is nothing but digits and the signs of a number."""
    for_reading = path.name == "retry.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.reader(file))
    assert len(table) > 50
    assert len({len(row) for row in table}) == 1
    for row in table:
        for text in row:
            if for_reading and re.fullmatch(r"[+-][\d ().,/-]*", text):
                continue
            for piece in [text] if for_reading else re.split("[;\t\r\n]", text):
                start = piece if piece.startswith(("\t", "\r", "\n")) else piece.strip(" \u200b\u00a0\ufeff\x00")
                assert not start.startswith(FORMULA_STARTS), (path.name, text[:80])
    raw = path.read_bytes()
    assert b"\x00" not in raw
    raw.decode("utf-8")


def check_names_survive(bench: Workbench, rows: list[Case], file: str) -> None:
    """results.csv holds every name; at most apostrophes were put before what a spreadsheet would run."""
    for case, row in zip(rows, bench.results(), strict=True):
        name = kept(case.name, file)
        assert row["Name"].replace("'", "") == name.replace("'", ""), case


def check_page(path: Path) -> None:
    """Every element and attribute is one that we write; nothing can run or fetch; the page is small."""
    assert path.stat().st_size < 1_000_000
    page = webpage.read(path)
    everything = list(page.everything())[1:]
    assert [one.tag for one in everything if not OURS.fullmatch(one.tag)] == []
    for one in everything:
        for name, value in one.attributes.items():
            assert not EVENT.fullmatch(name), name
            assert name not in {
                "src",
                "srcdoc",
                "action",
                "formaction",
                "background",
                "data",
                "ping",
                "target",
                "xlink:href",
            }
            assert "evil.example" not in value
            assert "HIT" not in value
            assert "script" not in value.lower()
            if name == "href":
                assert value.startswith("#") or value == "data:,"
            if name == "style":
                assert re.fullmatch(r"width:[\d.]+%", value)
            if name == "id":
                assert re.fullmatch("[a-z-]+", value)
    assert len(page.all("style")) == 1
    assert "evil.example" not in page.one("style").text()
    policy = next(one.attributes["content"] for one in everything if one.attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert webpage.cards(page)


def test_the_strings_that_neither_file_can_carry_are_few() -> None:
    """What is in no case above: lone surrogates, and those with a NUL in them (the CSV reader has tests of its own for it)."""
    carried = {case.name for file in ("people.csv", "people.xlsx") for case in cases(file)}
    assert all(not can_be_utf8(text) or "\x00" in text for text in HOSTILE_STRINGS if text not in carried)
    assert len(HOSTILE_STRINGS) - len(carried) <= 8
