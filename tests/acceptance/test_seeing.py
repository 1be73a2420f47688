"""What is shown is what is: the preview is what goes over the wire, and all reports tell the same figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pytest

from acceptance import webpage
from acceptance.workbench import OpenSandbox, Workbench, captions, numbers, until
from runner.resultbook import result_book
from runner.resultset import ResultRow, ResultSet
from runner.sandbox import Action, Drop, Rule, Sandbox, Scenario
from runner.sandbox_scenario import Shape
from runner.totals import Tally

ROOT = Path(__file__).resolve().parents[2]
FULL = os.environ.get("SCALE") == "full"
PEOPLE = 50_000 if FULL else 3_000
RESULT_ROWS = 1_000_000 if FULL else 100_000
PAGE_BYTES = 1_000_000


# --- the preview is what is sent --------------------------------------------------------------------------------------------


def on_the_wire(box: Sandbox) -> dict[str, tuple[str, str]]:
    """Phone -> image and caption as they stood in the request, for either provider."""
    found = {}
    for entry in box.log:
        body = json.loads(entry.body)
        image = body.get("image")
        found[entry.phone] = (
            (image["link"], image["caption"]) if image else (body["content_url"], body.get("caption", ""))
        )
    assert len(found) == len(box.log)
    return found


def previewed(bench: Workbench, campaign: str) -> tuple[dict[str, tuple[str, str]], dict[int, str]]:
    """preview.xlsx: phone -> image and caption of those that would be sent, and row -> reason of the others."""
    would, skipped = {}, {}
    for row in bench.sheet(campaign, "preview.xlsx"):
        if row["would be"] == "sent":
            assert row["phone"] not in would
            would[str(row["phone"])] = (str(row["image"]), str(row["caption"] or ""))
            assert row["length"] == len(str(row["caption"] or ""))
        else:
            assert row["reason"]
            skipped[int(str(row["row"]))] = str(row["reason"])
    return would, skipped


def same_on_the_page(bench: Workbench, campaign: str, wire: Mapping[str, tuple[str, str]]) -> list[webpage.Card]:
    """The samples of preview.html, after making sure that each of them is what was sent."""
    path = bench.report("preview.html", campaign)
    assert path.stat().st_size < PAGE_BYTES
    cards = webpage.cards(webpage.read(path))
    assert cards
    assert all(card.whole for card in cards)
    assert {card.phone: card.caption for card in cards} == {card.phone: wire[card.phone][1] for card in cards}
    return cards


@pytest.mark.parametrize("provider", ["wapim", "zixflow"])
def test_the_demos_preview_shows_byte_for_byte_what_is_then_sent(bench: Workbench, box: Sandbox, provider: str) -> None:
    name = f"demo-{provider}"
    for folder in ("campaigns", "templates"):
        shutil.copytree(ROOT / folder, bench.root / folder, dirs_exist_ok=True)
    path = bench.root / f"campaigns/{name}.yaml"
    text = path.read_text(encoding="utf-8").replace(f"name: {provider}\n", f"name: {provider}\n  base_url: {box.url}\n")
    path.write_text(re.sub(r"rate: \S+", "rate: unlimited", text), encoding="utf-8")
    bench.environment["ZIXFLOW_PHONE_ID"] = "100000000000042"

    terminal = bench.run("preview", f"campaigns/{name}.yaml").must(0).out
    would, skipped = previewed(bench, name)
    assert box.log == []
    bench.send(f"campaigns/{name}.yaml").must(0)

    assert on_the_wire(box) == would
    results = bench.results(name)
    assert {int(row["row"]) for row in results if row["status"] == "skipped"} == set(skipped)
    assert len(results) == len(would) + len(skipped)
    assert same_on_the_page(bench, name, would)
    for found in re.finditer(r"^row \d+ to (\d+).*\n  \[(.*)\]\n((?:  .*\n)*)", terminal, re.MULTILINE):
        image, caption = would[found[1]]
        assert found[2] == image
        assert found[3] == "".join(f"  {line}\n" for line in caption.splitlines() or [""])
    assert "row 2 to" in terminal


@pytest.mark.slow
def test_the_preview_of_a_large_campaign_is_one_small_page_and_every_row_is_what_is_sent(
    bench: Workbench, box: Sandbox
) -> None:
    """50,000 people with SCALE=full, 3,000 otherwise; captions near the limit, so that the page has something to leave out."""
    people = (
        (f"+{phone}", f"İlkay {i} {'🌷ğ&<' * (i % 9)}", "" if i % 7 else f"City {i % 81}", "many words, " * (i % 60))
        for i, phone in enumerate(numbers(PEOPLE))
    )
    bench.audience(people, ("Phone", "Name", "City", "Note"))
    words = "*Hello* {{ Name }}{% if City %} in {{ City }}{% endif %}!\n\n> {{ Note|default('-') }}\n- _one_\n- two"
    campaign = bench.campaign(box.url, message={"caption": words}, send={"concurrency": 50})

    bench.run("preview", campaign, "-n", "40", seconds=600).must(0)
    would, skipped = previewed(bench, "spring")
    assert (len(would), skipped) == (PEOPLE, {})
    assert box.log == []
    bench.send(campaign, seconds=1800).must(0)
    print(f"{PEOPLE:,} people: a page of {bench.report('preview.html').stat().st_size:,} bytes")

    assert on_the_wire(box) == would
    cards = same_on_the_page(bench, "spring", would)
    assert len(cards) > 20
    labels = {label for card in cards for label in card.labels}
    assert {"the longest caption", "the shortest caption", "caption:1 if City", "caption: else of line 1"} <= labels
    longest = max(would.values(), key=lambda one: len(one[1]))[1]
    assert longest in {card.caption for card in cards}


def test_a_preview_has_a_sample_of_every_branch_that_somebody_takes(bench: Workbench, box: Sandbox) -> None:
    """Also when the first row of a branch is one that nobody will get: a duplicate, or on a list."""
    template = "Hi {{ Name }}{% include 'where.j2' %}\n\n{% if Points|int > 100 %}\nGold\n{% elif Points %}\nSome\n{% endif %}\n"
    bench.write("templates/spring.j2", template)
    bench.write("templates/where.j2", "{% if City %} of {{ City }}{% else %}, wherever you are{% endif %}")
    many = [(f"+{phone}", f"n{i}", "Bursa", "") for i, phone in enumerate(numbers(300))]
    few = [
        ("+905320000001", "again", "", "500"),  # a duplicate
        ("+905329999991", "gone", "", "500"),  # opted out
        ("+905329999992", "Ada", "", "500"),
        ("+905329999993", "Alan", "Bursa", "7"),
    ]
    bench.audience([*many, *few], ("Phone", "Name", "City", "Points"))
    bench.write("campaigns/optouts.csv", "Phone\n+905329999991\n")
    campaign = bench.campaign(
        box.url,
        audience={"suppress": ["optouts.csv"]},
        message={"caption": None, "template": "spring.j2"},
    )

    terminal = bench.run("preview", campaign).must(0).out

    found = {label: card for card in webpage.cards(webpage.read(bench.report("preview.html"))) for label in card.labels}
    branches = {label: card.caption for label, card in found.items() if ".j2:" in label}
    assert branches == {
        "spring.j2:3 if Points|int > 100": "Hi Ada, wherever you are\nGold",
        "spring.j2:5 elif Points": "Hi Alan of Bursa\nSome",
        "spring.j2: else of line 3": "Hi n0 of Bursa",
        "where.j2:1 if City": "Hi n0 of Bursa",
        "where.j2: else of line 1": "Hi Ada, wherever you are\nGold",
    }
    assert "spring.j2:3 if Points|int > 100" in terminal
    plan = bench.run("plan", campaign, "--json").must(0).json()
    bench.send(campaign, "--plan", plan["plan"]).must(0)
    assert captions(box)["905329999992"] == branches["spring.j2:3 if Points|int > 100"]


# --- all reports agree ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """What a report says: rows by status (only those that there are), by status and reason, in the file, gone from it."""

    statuses: dict[str, int]
    reasons: dict[tuple[str, str], int]
    rows: int
    gone: int


def of_csv(rows: list[dict[str, str]]) -> Figures:
    reasons = Counter(
        (row["status"], row["reason"].partition(":")[0])
        for row in rows
        if row["reason"] and row["status"] != "accepted"
    )
    gone = sum(row["row"] == "" for row in rows)
    return Figures(dict(Counter(row["status"] for row in rows)), dict(reasons), len(rows) - gone, gone)


def of_json(path: Path) -> Figures:
    told = json.loads(path.read_bytes())
    assert told["reconciled"] is True
    reasons = {(status, reason): n for status, each in told["reasons"].items() for reason, n in each.items()}
    return Figures(
        {status: n for status, n in told["totals"].items() if n},
        reasons,
        told["input_rows"],
        told["no_longer_in_audience"],
    )


def of_book(path: Path) -> tuple[Figures, Counter[str]]:
    """The Summary sheet, and the statuses counted on the Results sheet."""
    book = openpyxl.load_workbook(path)
    try:
        lines = [[cell.value for cell in row] for row in book["Summary"].iter_rows()]
        header, *rows = book["Results"].iter_rows(values_only=True)
        counted = Counter(str(row[header.index("status")]) for row in rows)
    finally:
        book.close()
    at = {str(line[0]): number for number, line in enumerate(lines) if line[0] is not None}
    totals = {str(line[0]): _number(line[2]) for line in lines[at["Totals"] + 1 : at["Sum"]]}
    assert sum(totals.values()) == _number(lines[at["Sum"]][2])
    assert "Totals reconcile: yes" in at
    reasons = {}
    if "Reasons" in at:
        for line in lines[at["Reasons"] + 1 :]:
            if line[0] is None:
                break
            reasons[str(line[0]), str(line[1])] = _number(line[2])
    gone = _number(lines[at["No longer in the audience"]][2]) if "No longer in the audience" in at else 0
    shown = {status: n for status, n in totals.items() if n}
    return Figures(shown, reasons, _number(lines[at["Input rows"]][2]), gone), counted


def _number(value: object) -> int:
    return int(str(value).replace(",", ""))


def _words(text: str) -> str:
    return text.strip().replace(" ", "_")


def of_page(path: Path) -> tuple[Figures, dict[str, int], int]:
    """report.html: its figures, the steps of its way from the file to the provider, and the unknown rows by name."""
    page = webpage.read(path)
    table = next(one for one in page.all("table", "totals") if one.one("caption").text() == "Every row, once")
    statuses = {
        _words(row.one("span", "chip").text()): _number(row.one("td", "number").text())
        for row in table.one("tbody").all("tr")
    }
    foot = {row.one("th").text(): _number(row.one("td", "number").text()) for row in table.one("tfoot").all("tr")}
    assert foot["sum"] == sum(statuses.values())
    reasons = {}
    for line in (item for group in page.all("ul", "mendings") for item in group.all("li") if item.all("strong")):
        if not line.all("ul"):
            said = re.match(r"([\d,]+) rows?\b", line.one("span", "soft").text())
            assert said is not None
            key = (_words(line.one("span", "chip").text()), _words(line.one("strong").text()))
            assert key not in reasons
            reasons[key] = _number(said[1])
    steps = {
        step.one("span", "name").text(): _number(step.one("div", "step-name").one("strong").text())
        for step in page.all("li", "step")
    }
    unknown = [section for section in page.all("section") if section.attributes.get("aria-labelledby") == "unknown"]
    named = len(unknown[0].one("tbody").all("tr")) if unknown else 0
    shown = {status: n for status, n in statuses.items() if n}
    return Figures(shown, reasons, foot["rows in the file"], foot.get("no longer in the file", 0)), steps, named


def agree(bench: Workbench) -> Figures:
    """Every report says the same; what it is."""
    rows = bench.results()
    found = of_csv(rows)
    assert of_json(bench.report("summary.json")) == found
    book, counted = of_book(bench.report("results.xlsx"))
    assert (book, dict(counted)) == (found, found.statuses)
    page, steps, named = of_page(bench.report("report.html"))
    assert page == found
    everyone = len(rows)
    assert steps == {
        "In the file": everyone,
        "Planned": everyone
        - found.statuses.get("skipped", 0)
        + sum(_tried(row) for row in rows if row["status"] == "skipped"),
        "Attempted": sum(_tried(row) for row in rows),
        "Accepted": found.statuses.get("accepted", 0),
    }
    assert named == found.statuses.get("unknown", 0)
    (status,) = bench.run("status", "spring", "--json").must(0).json()
    assert (status["totals"], status["rows"]) == (found.statuses, everyone)
    told = bench.run("status", "spring").must(0).out
    for name, n in {**found.statuses, "rows": everyone}.items():
        assert re.search(rf"^  {name.replace('_', ' ')} +{n:,}$", told, re.MULTILINE), (name, n, told)
    for (name, reason), n in found.reasons.items():
        assert re.search(rf"^  {name.replace('_', ' ')}: {reason} +{n:,}$", told, re.MULTILINE)
    return found


def _tried(row: Mapping[str, str]) -> bool:
    return int(row["attempts"]) > 0


@pytest.mark.slow
def test_every_report_tells_the_same_figures_whatever_has_happened(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    """One campaign through a hard life: a dead address, a limit, a drain, refusals, lost replies, a deadline, a cancel."""
    phones = numbers(20)
    refused, lost, throttled, dead = phones[4:6], phones[6:9], phones[10], phones[2:4]
    box = open_sandbox(
        Scenario(
            magic=False,
            latency=(0.05, 0.05),
            rules=(
                *(Rule(Action("refused", status=400), phone=phone) for phone in refused),
                *(Rule(Action("lost", drop=Drop.AFTER_READ), phone=phone) for phone in lost[:2]),
                Rule(Action("no proof", shape=Shape.NO_PROOF), phone=lost[2]),
                Rule(Action("later", 429, headers=(("Retry-After", "3"),)), phone=throttled, times=1),
            ),
        )
    )
    good = [(f"+{phone}", f"n{i}", "yes") for i, phone in enumerate(phones)]
    bad = [
        ("12345", "short", "yes"),
        ("", "blank", "yes"),
        ("+4915120000105", "abroad", "yes"),
        (f"+{phones[0]}", "again", "yes"),
        ("+905329990001", "opted out", "yes"),
        ("+905329990002", "no consent", "no"),
        ("+905329990003", "", "yes"),
        ("+905329990004", "x" * 5000, "yes"),
    ]
    columns = ("Phone", "Name", "Consent")
    bench.audience([*good, *bad], columns)
    bench.write("campaigns/optouts.csv", "Phone\n+905329990001\n")
    audience = {"allowed_countries": ["TR"], "suppress": ["optouts.csv"], "where": 'Consent == "yes"'}

    def campaign(url: str, **send: object) -> str:
        return bench.campaign(url, audience=audience, send={"concurrency": 1, "rate": "50/s", **send})

    skipped = {
        ("skipped", "invalid_phone"): 2,
        ("skipped", "wrong_country"): 1,
        ("skipped", "duplicate"): 1,
        ("skipped", "suppressed"): 1,
        ("skipped", "filtered"): 1,
        ("skipped", "render_error"): 1,
        ("skipped", "caption_too_long"): 1,
    }

    # A dead address: certainly not sent.
    to = [word for phone in dead for word in ("--to", f"+{phone}")]
    bench.send(campaign("http://127.0.0.1:9", retries=0), *to).must(1)
    found = agree(bench)
    assert found.statuses == {"not_sent": 2, "pending": 18, "skipped": 8}
    assert {key: n for key, n in found.reasons.items() if key[0] == "skipped"} == skipped

    # A limit leaves rows pending.
    file = campaign(box.url)
    bench.send(file, "--limit", "2").must(1)
    assert agree(bench).statuses == {"accepted": 2, "not_sent": 2, "pending": 16, "skipped": 8}

    # A drain while one was told to come back later.
    running = bench.start("send", file, "--yes")
    until(lambda: any(entry.status == 429 for entry in box.log), what="a 429")
    time.sleep(0.3)
    running.signal(signal.SIGTERM)
    running.wait().must(130)
    found = agree(bench)
    assert found.statuses["retry_wait"] == 1
    assert found.statuses["rejected"] == 2
    assert found.statuses["unknown"] == 3
    assert found.statuses["pending"] > 0

    # To the end.
    bench.send(file).must(1)
    found = agree(bench)
    assert found.statuses == {"accepted": 13, "not_sent": 2, "rejected": 2, "unknown": 3, "skipped": 8}
    assert found.reasons.keys() > skipped.keys()

    # Some are taken out of the file, some are to be sent again.
    bench.audience([*good[1:4], *good[5:7], *good[9:], *bad], columns)
    bench.run("retry", "spring", "--rejected", "--not-sent").must(0)
    bench.run("report", "spring").must(0)
    assert agree(bench).statuses == {"accepted": 13, "pending": 4, "unknown": 3, "skipped": 8}
    bench.send(file).must(1)
    found = agree(bench)
    assert (found.rows, found.gone) == (24, 3)  # one that was refused and two unknown ones; the first has a second row
    assert found.statuses == {"accepted": 15, "rejected": 1, "not_sent": 1, "unknown": 3, "skipped": 7}

    # A deadline cuts newcomers off, a cancel gives up those after them.
    late = [(f"+{phone}", "late", "yes") for phone in numbers(8, 500)]
    bench.audience([*good, *bad, *late], columns)
    bench.send(campaign(box.url, deadline="1500ms", rate="1/s"), seconds=90).must(1)
    found = agree(bench)
    expired = found.reasons["skipped", "expired"]
    assert expired >= 4
    assert found.gone == 0
    last = [(f"+{phone}", "last", "yes") for phone in numbers(5, 600)]
    bench.audience([*good, *bad, *late, *last], columns)
    bench.send(campaign(box.url), "--limit", "1").must(1)
    assert agree(bench).statuses["pending"] == expired + 4  # the file sets no deadline any more
    bench.run("cancel", "spring").must(0)
    bench.run("report", "spring").must(0)
    found = agree(bench)
    assert found.reasons["skipped", "cancelled"] == expired + 4
    assert found.rows == 41
    assert box.stats().phones_accepted_twice == []


# --- a million rows ---------------------------------------------------------------------------------------------------------

WRITE = """
import resource, sys
from pathlib import Path
from acceptance.test_seeing import many_results
from runner.results import write_results

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

rows, folder = int(sys.argv[1]), Path(sys.argv[2])
write_results(many_results(2000), folder / "small", ["xlsx", "csv"])
before = peak()
written = write_results(many_results(rows), folder / "large", ["xlsx", "csv"])
print(before, peak(), written.totals.input_rows, written.reconciled)
"""


def many_results(count: int) -> ResultSet:
    """So many rows of every kind, made as they are read."""
    statuses = (("accepted", ""), ("rejected", "bad_request"), ("skipped", "invalid_phone"), ("unknown", "no_proof"))

    def rows() -> Iterator[ResultRow]:
        for i in range(count):
            status, reason = statuses[0 if i % 10 else i // 10 % 4]
            yield ResultRow(
                row=i + 2,
                phone=f"90532{i:07d}",
                status=status,
                reason=reason,
                detail=f"words of row {i}" if reason else "",
                code="200",
                queue_id=f"q{i:020x}",
                provider="wapim",
                attempts=1,
                first_attempt_at=1_790_000_000_000_000 + i,
                last_attempt_at=1_790_000_000_500_000 + i,
                delivery="",
                image=f"https://cdn.example.com/{i % 1000}.jpg",
                caption=f"Hello İlkay {i},\nsee you in spring 🌷",
                own=(f"+90532{i:07d}", f"İlkay {i}"),
            )

    tally = Counter(row.status for row in rows())
    return ResultSet(
        campaign="spring",
        provider="wapim",
        sandbox=False,
        columns=("Phone", "Name"),
        phone_column="Phone",
        read_rows=rows,
        counts=dict(tally),  # type: ignore[arg-type]  # a status is its word
        input_rows=count,
        generated_at=1_790_000_001_000_000,
        run_notes=(),
        mend=str,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in kilobytes there")
def test_a_million_result_rows_are_written_in_constant_memory(tmp_path: Path, bench: Workbench) -> None:
    """1,000,000 rows with SCALE=full, 100,000 otherwise. A sheet would hold 1,048,575."""
    environment = {**bench.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ended = subprocess.run(
        [sys.executable, "-c", WRITE, str(RESULT_ROWS), str(tmp_path)],
        env=environment, capture_output=True, text=True, check=True, timeout=1800,
    )  # fmt: skip
    before, after, rows, reconciled = ended.stdout.split()
    print(f"{RESULT_ROWS:,} rows: peak {before} MB after 2,000 rows, {after} MB at the end")
    assert (int(rows), reconciled) == (RESULT_ROWS, "True")
    assert int(after) - int(before) < 40
    with (tmp_path / "large" / "results.csv").open("rb") as file:
        file.seek(-100, os.SEEK_END)
        assert f"İlkay {RESULT_ROWS - 1}\r\n".encode() in file.read()


def test_more_rows_than_a_sheet_holds_go_on_upon_the_next_sheet(tmp_path: Path) -> None:
    results = many_results(25)
    path = tmp_path / "results.xlsx"
    tally = Tally()
    with result_book(path, results, sheet_rows=11) as written:
        for row in results.read_rows():
            tally.add(row)
            written.add(row)
        written.finish(tally.summary(results), tally.groups())
    book = openpyxl.load_workbook(path)
    try:
        assert book.sheetnames == ["Results", "Results 2", "Results 3", "Summary", "Failures"]
        sheets = [list(book[name].iter_rows(values_only=True)) for name in book.sheetnames[:3]]
    finally:
        book.close()
    assert [len(sheet) for sheet in sheets] == [11, 11, 6]
    assert {sheet[0] for sheet in sheets} == {sheets[0][0]}
    assert [row[0] for sheet in sheets for row in sheet[1:]] == list(range(2, 27))
