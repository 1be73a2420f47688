"""Spreadsheets as people really have them: the right number on the wire, or a named reason in the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import openpyxl
import pytest

from acceptance.workbench import Workbench, by_phone, captions, sent_phones
from runner.sandbox import Sandbox

ADA, GRACE, ALAN = "905320000001", "905320000002", "905320000003"


@dataclass(frozen=True)
class Case:
    """A file's bytes, the audience block's further keys, and Name -> number on the wire or the reason's first words."""

    file: str
    content: bytes
    audience: Mapping[str, object]
    wanted: Mapping[str, str]


def text(*lines: str, codec: str = "utf-8", end: str = "\r\n") -> bytes:
    return (end.join(lines) + end).encode(codec)


TR = {"default_region": "TR"}

CASES = {
    "a byte-order mark and semicolons": Case(
        "people.csv",
        text("Phone;Name", "+905320000001;Çiğdem, the first", "+905320000002;Grace", codec="utf-8-sig"),
        {},
        {"Çiğdem, the first": ADA, "Grace": GRACE},
    ),
    "Turkish Windows text (cp1254)": Case(
        "people.csv",
        text(
            "Phone;Name",
            "05320000001;Çiğdem Şahin",
            "05320000002;İsmail Güneş",
            "05320000003;Ayşe Işık",
            codec="cp1254",
        ),
        TR,
        {"Çiğdem Şahin": ADA, "İsmail Güneş": GRACE, "Ayşe Işık": ALAN},
    ),
    "cp1254 by name": Case(
        "people.csv", text("Phone,Name", "+905320000001,Şı", codec="cp1254"), {"encoding": "cp1254"}, {"Şı": ADA}
    ),
    "UTF-16 as Excel's 'Unicode text'": Case(
        "people.txt",
        text("Phone\tName", "+905320000001\tÇiğdem 😀", "+905320000002\tمحمد", codec="utf-16"),
        {},
        {"Çiğdem 😀": ADA, "محمد": GRACE},
    ),
    "line breaks and commas inside quotes": Case(
        "people.csv",
        text("Phone,Name", '+905320000001,"Ada\nKing, ""Countess"""', '"+90 532\n000 00 02",Grace', end="\n"),
        {},
        {'Ada\nKing, "Countess"': ADA, "Grace": "invalid_phone"},
    ),
    "a blank phone, and what is no phone": Case(
        "people.csv",
        text(
            "Phone,Name",
            ",Blank",
            "   ,Spaces",
            "unknown,Letters",
            "12345,Short",
            "+9053200000012345,Long",
            "+905320000001,Ada",
        ),
        {},
        {
            "Blank": "invalid_phone: blank",
            "Spaces": "invalid_phone: blank",
            "Letters": 'invalid_phone: "unknown" is not usable',
            "Short": 'invalid_phone: "12345" is not usable',
            "Long": 'invalid_phone: "+9053200000012345" is not usable',
            "Ada": ADA,
        },
    ),
    "a US number without its 1 is not taken for a Swiss one": Case(
        "people.csv",
        text("Phone,Name", "4155552671,Bare", "+14155552671,Whole"),
        {},
        {"Bare": "invalid_phone", "Whole": "14155552671"},
    ),
    "the same with its home country": Case(
        "people.csv", text("Phone,Name", "4155552671,Bare"), {"default_region": "US"}, {"Bare": "14155552671"}
    ),
    "national numbers with a home country": Case(
        "people.csv",
        text("Phone,Name", "0532 000 00 01,Zero", "5320000002,Bare", "(0532) 000-00-03,Marks", "+49 1512 3456789,Abroad"),
        TR,
        {"Zero": ADA, "Bare": GRACE, "Marks": ALAN, "Abroad": "4915123456789"},
    ),
    "national numbers without a home country": Case(
        "people.csv",
        text("Phone,Name", "0532 000 00 01,Zero", "5320000002,Bare", "+905320000003,Whole"),
        {},
        {"Zero": "invalid_phone", "Bare": "invalid_phone", "Whole": ALAN},
    ),
    "names that a data library takes for missing values": Case(
        "people.csv",
        text(
            "Phone,Name",
            "+905320000001,NA",
            "+905320000002,Null",
            "+905320000003,N/A",
            "+905320000004,Nan",
            "+905320000005,007",
        ),
        {},
        {"NA": ADA, "Null": GRACE, "N/A": ALAN, "Nan": "905320000004", "007": "905320000005"},
    ),
    "scientific notation": Case(
        "people.csv",
        text("Phone,Name", "9.0532E+11,Lost", "\"9,05320000001E+11\",Comma", "+905320000002,Grace"),
        TR,
        {
            "Lost": 'invalid_phone: "9.0532E+11" is not usable: it is in scientific notation',
            "Comma": 'invalid_phone: "9,05320000001E+11" is not usable: it is in scientific notation',
            "Grace": GRACE,
        },
    ),
    "one person in many spellings": Case(
        "people.csv",
        text(
            "Phone,Name",
            "0532 000 00 01,first",
            "+90 532 000 00 01,second",
            "00905320000001,third",
            "905320000001,fourth",
            "+90 (532) 000-0001,fifth",
            "\u200e+905320000001\u202c,sixth",
            "٠٥٣٢٠٠٠٠٠٠١,seventh",
            "+905320000002,Grace",
        ),
        TR,
        {"first": ADA, "Grace": GRACE}
        | dict.fromkeys(("second", "third", "fourth", "fifth", "sixth", "seventh"), "duplicate: the same number as row 2"),
    ),
    "the last of several": Case(
        "people.csv",
        text("Phone,Name", "05320000001,first", "+905320000001,second", "00905320000001,third"),
        {**TR, "duplicates": "last"},
        {
            "first": "duplicate: the same number as row 4",
            "second": "duplicate: the same number as row 4",
            "third": ADA,
        },
    ),
    "a filter and a country guard": Case(
        "people.csv",
        text(
            "Phone,Name,Consent,City",
            "+905320000001,Ada,yes,Izmir",
            "+905320000002,Grace,no,Izmir",
            "+905320000003,Alan,yes,",
            "+14155552671,Barbara,yes,Berkeley",
        ),
        {"where": 'Consent == "yes" and City', "allowed_countries": ["TR", "DE"]},
        {"Ada": ADA, "Grace": "filtered", "Alan": "filtered", "Barbara": "wrong_country"},
    ),
    "tab-separated": Case(
        "people.tsv",
        text("Name\tPhone", "Ada, Countess\t+905320000001", '"Grace"\t+905320000002'),
        {},
        {"Ada, Countess": ADA, "Grace": GRACE},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_row_is_sent_to_the_right_number_or_named_with_a_reason(
    bench: Workbench, box: Sandbox, case: Case
) -> None:
    bench.write(f"campaigns/{case.file}", case.content)
    campaign = bench.campaign(box.url, audience={"file": case.file, **case.audience})

    bench.send(campaign).must(0)

    on_the_wire = {caption.removeprefix("Hello "): phone for phone, caption in captions(box).items()}
    assert on_the_wire == {name: number for name, number in case.wanted.items() if number.isdigit()}
    assert len(sent_phones(box)) == len(on_the_wire)
    results = {row["Name"]: row for row in bench.results()}
    assert results.keys() == case.wanted.keys()
    for name, wanted in case.wanted.items():
        row = results[name]
        if wanted.isdigit():
            assert (row["status"], row["phone"], row["caption"]) == ("accepted", wanted, f"Hello {name}")
        else:
            assert (row["status"], row["attempts"], row["queue_id"]) == ("skipped", "0", "")
            assert row["reason"].startswith(wanted)


def test_numbers_that_excel_keeps_as_numbers(bench: Workbench, box: Sandbox) -> None:
    rows = [
        (905320000001.0, "float"),
        (905320000002, "whole"),
        ("0532 000 00 03", "text"),
        (5320000004.0, "national"),
        (9.05320000005e11, "scientific"),
        (905320000006.5, "fraction"),
        (None, "blank"),
    ]
    bench.audience(rows, name="people.xlsx")
    campaign = bench.campaign(box.url, audience={"file": "people.xlsx", **TR})
    bench.send(campaign).must(0)
    assert {name: phone for phone, name in captions(box).items()} == {
        "Hello float": ADA,
        "Hello whole": GRACE,
        "Hello text": ALAN,
        "Hello national": "905320000004",
        "Hello scientific": "905320000005",
    }
    reasons = {row["Name"]: row["reason"] for row in bench.results() if row["status"] == "skipped"}
    assert list(reasons) == ["fraction", "blank"]
    assert all(reason.startswith("invalid_phone") for reason in reasons.values())


def test_names_like_na_stay_text_in_a_workbook_and_in_both_results(bench: Workbench, box: Sandbox) -> None:
    names = ["NA", "Null", "N/A", "TRUE", "1e5", "007", "=A1", "None", "null"]
    bench.audience([(f"+90532000000{i}", name) for i, name in enumerate(names, 1)], name="people.xlsx")
    bench.send(bench.campaign(box.url, audience={"file": "people.xlsx"})).must(0)
    assert [captions(box)[f"90532000000{i}"] for i in range(1, 8)] == [f"Hello {name}" for name in names[:7]]
    assert [row["Name"] for row in bench.sheet()] == names
    # A CSV cell must not become a formula.
    assert [row["Name"].replace("'=", "=") for row in bench.results()] == names


def test_the_leavings_of_a_broken_export_are_never_printed(bench: Workbench, box: Sandbox) -> None:
    """They stay text in the results, but a caption with `Hello nan` is not what anybody meant to send."""
    leavings = ("None", "null", "nan")
    bench.audience([(f"+90532000000{i}", name) for i, name in enumerate(leavings, 1)])
    bench.send(bench.campaign(box.url)).must(0)
    assert captions(box) == {}
    rows = bench.results()
    assert [row["status"] for row in rows] == ["skipped"] * 3
    assert all(row["reason"].startswith("render_error: ") for row in rows)
    assert tuple(row["Name"] for row in rows) == leavings


def test_a_file_of_one_column_needs_no_delimiter(bench: Workbench, box: Sandbox) -> None:
    bench.write("campaigns/people.tsv", "Phone\n+905320000001\n\n+905320000002\n")
    bench.send(bench.campaign(box.url, audience={"file": "people.tsv"}, message={"caption": "Hello"})).must(0)
    assert sorted(by_phone(box)) == [ADA, GRACE]
    assert [row["row"] for row in bench.results()] == ["2", "4"]  # numbered as the spreadsheet shows them


def test_opt_outs_count_in_whatever_format_they_come(bench: Workbench, box: Sandbox) -> None:
    people = [(f"+9053200000{i:02d}", f"n{i}") for i in range(1, 11)]
    bench.audience(people)
    bench.write("campaigns/plain.txt", "0532 000 00 01\n+90 532 000 00 02\n")
    bench.write("campaigns/windows.csv", text("Ad;Telefon", "Şule;00905320000003", codec="cp1254"))
    bench.write("campaigns/unicode.tsv", text("Mobile\tWhy", "(0532) 000-00-04\tasked", codec="utf-16"))
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Phone", "Since"])
    sheet.append([905320000005.0, "2025"])
    sheet.append(["٠٥٣٢٠٠٠٠٠٠٦", "2026"])
    book.save(bench.root / "campaigns" / "book.xlsx")
    book.close()
    bench.run("optout", "add", "0532 000 00 07", "--region", "TR").must(0)
    files = ["plain.txt", "windows.csv", "unicode.tsv", "book.xlsx"]
    campaign = bench.campaign(box.url, audience={"suppress": files, **TR})
    bench.send(campaign).must(0)
    assert sorted(by_phone(box)) == ["905320000008", "905320000009", "905320000010"]
    reasons = [row["reason"] for row in bench.results()]
    assert reasons[:7] == [
        "suppressed: plain.txt",
        "suppressed: plain.txt",
        "suppressed: windows.csv",
        "suppressed: unicode.tsv",
        "suppressed: book.xlsx",
        "suppressed: book.xlsx",
        "suppressed: campaign optout add",
    ]


def test_an_opt_out_that_cannot_be_read_is_named_before_sending(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("+905320000001", "Ada"), ("+905320000002", "Grace")])
    bench.write("campaigns/out.csv", "Phone\n+905320000001\n9.0532E+11\n")
    planned = bench.run("plan", bench.campaign(box.url, audience={"suppress": ["out.csv"]})).must(0)
    assert "out.csv: 1 entries cannot be read" in planned.out.replace("\n           ", " ")


def test_repeated_numbers_can_be_refused_altogether(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("05320000001", "Ada"), ("+905320000001", "Twin"), ("+905320000002", "Grace")])
    refused = bench.send(bench.campaign(box.url, audience={"duplicates": "error", **TR})).must(2)
    assert "people.csv row 3" in refused.err
    assert box.log == []


def test_every_fault_of_the_campaign_and_its_columns_is_named_at_once(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("+905320000001", "Ada")])
    campaign = bench.campaign(
        box.url, audience={"phone": "Mobile"}, message={"caption": "Hello {{ Nme }}", "image": "{{ Photo }}"}
    )
    refused = bench.send(campaign).must(2)
    for words in ("Mobile", 'did you mean "Phone"', "Nme", "Name", "Photo", "spring.yaml"):
        assert words in refused.err
    assert box.log == []
