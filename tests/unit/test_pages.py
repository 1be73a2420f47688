"""The two web pages, as text: what they say, that it adds up, that they stay small and harmless."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hostile_strings import HOSTILE_STRINGS
from pagedata import (
    AT,
    CAPTION,
    IMAGE,
    OTHER_IMAGE,
    hostile_preview,
    hostile_report,
    left_out,
    preview,
    report,
    row,
    rows,
    sample,
)

from runner import previewpage, reportpage
from runner.attemptstats import Session, Timeline, measure
from runner.drawings import timeline_svg
from runner.ledger.base import Difference
from runner.messagecards import Deck, Thumbnail
from runner.model import Status
from runner.pages import preview_page, report_page, write_preview_page, write_report_page
from runner.reportrows import pick

VOID = {"meta", "link", "br", "use", "path", "rect", "circle", "image"}
NEVER = {"script", "iframe", "object", "embed", "form", "base", "img", "math", "template", "button", "input", "video"}


class Page(HTMLParser):
    """A page taken apart: elements, attributes, text by section."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(data.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.cells.append([])
        if tag in {"span", "td", "th", "li", "dt", "dd", "h3", "h4", "p", "br", "figcaption"}:
            self.handle_data(" ")
        if tag in {"td", "th"} and self.cells:
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] == [tag]:
            self.open.pop()
        else:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.cells and self.cells[-1] and {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    def table(self) -> dict[str, str]:
        """First cell -> second cell, of every row of every table."""
        return {" ".join(cells[0].split()): cells[1].strip() for cells in self.cells if len(cells) > 1}


def words(data: bytes) -> str:
    return " ".join(Page(data).text.split())


# --- what the preview says ----------------------------------------------------------------------------------------------


def test_the_preview_begins_with_one_plain_sentence() -> None:
    assert (
        "15 of 27 people in the file would get this message now. 4 have been dealt with already and 8 are left out."
        in words(preview_page(preview()))
    )


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (Difference(0, {}, {}, 0, {}, {}), "The file holds no rows: there is nobody to write to."),
        (
            Difference(0, {Status.ACCEPTED: 1}, {}, 0, {}, {}),
            "Nobody would get a message now. 1 has been dealt with already.",
        ),
        (Difference(5, {}, {}, 0, {}, {"TR": 5}), "Everybody in the file would get this message."),
        (
            Difference(2, {}, {"filtered": 1}, 0, {}, {}),
            "2 of 3 people in the file would get this message now. 1 is left out.",
        ),
    ],
)
def test_the_sentence_fits_the_plan(difference: Difference, sentence: str) -> None:
    assert previewpage.headline(difference) == sentence
    assert sentence in words(preview_page(preview(difference=difference, samples={}, skipped=[])))


def test_the_preview_totals_add_up_to_the_rows_of_the_file() -> None:
    table = Page(preview_page(preview())).table()
    assert table["rows in the file"] == "27"
    found = {name.split(" ")[0] + " " + name.split(" ")[1]: n for name, n in table.items() if " " in name}
    assert (found["to send"], found["already accepted"], found["already unknown"], found["left out"]) == (
        "15",
        "3",
        "1",
        "8",
    )


def test_the_preview_tells_countries_pace_finish_hash_and_warnings() -> None:
    text = words(preview_page(preview()))
    for expected in (
        "Türkiye",
        "Germany",
        "10/s: 2 s",
        "2026-11-22 10:34 UTC",
        "94d9712e14661907",
        "may ban the number",
    ):
        assert expected in text


def test_every_skip_reason_is_explained_and_the_rows_are_named() -> None:
    text = words(preview_page(preview()))
    assert "Correct the number in the audience" in text
    assert "7 0532 invalid phone too short to be a phone number" in text
    assert "The first 3 of 8 rows" in text


def test_one_message_with_several_labels_is_one_card() -> None:
    data = preview(samples={"branch a": [sample(2)], "longest": [sample(2)], "shortest": [sample(2)]})
    text = words(preview_page(data))
    assert text.count("Row 2 to") == 1
    assert "branch a the longest caption the shortest caption" in text


def test_the_length_of_a_caption_is_counted() -> None:
    assert f"{len(CAPTION)} of 1,024 characters" in words(preview_page(preview()))


def test_a_picture_is_embedded_once_and_other_images_are_text_not_links() -> None:
    page = Page(preview_page(preview()))
    images = [attributes for tag, attributes in page.elements if tag == "image"]
    assert [each["href"][:22] for each in images] == ["data:image/png;base64,"]
    assert sum(tag == "use" for tag, _ in page.elements) > 1
    assert OTHER_IMAGE in page.text
    assert [
        attributes["href"] for tag, attributes in page.elements if tag == "a" and attributes["href"][0] != "#"
    ] == []


def test_only_pixels_are_embedded() -> None:
    data = preview(pictures={IMAGE: Thumbnail("image/svg+xml", b"<svg onload='x'/>")})
    assert b"svg+xml" not in preview_page(data)


def test_practice_is_said_at_the_top_and_only_in_practice() -> None:
    assert words(preview_page(preview(sandbox=True))).startswith(
        "Preview of spring-sale To the content SANDBOX – practice."
    )
    assert "SANDBOX" not in words(preview_page(preview(sandbox=False)))
    assert "SANDBOX" in words(report_page(report(sandbox=True)))
    assert "SANDBOX" not in words(report_page(report(sandbox=False)))


def test_the_preview_of_a_huge_campaign_stays_below_a_megabyte() -> None:
    caption = "\x00é<&*~" * 200
    data = preview(
        difference=Difference(50_000, {}, {"invalid_phone": 9_000}, 0, {}, {f"X{n}": n for n in range(240)}),
        samples={"first": [sample(n, caption, image=f"https://cdn.example.com/{n}.jpg") for n in range(50_000)]},
        skipped=[left_out(n, "0" * 40, "invalid_phone", "\x00é" * 4000) for n in range(9_000)],
        pictures={f"https://cdn.example.com/{n}.jpg": Thumbnail("image/jpeg", b"x" * 40_000) for n in range(500)},
    )
    page = preview_page(data)
    assert len(page) < 1_000_000
    assert "more samples are left out here" in words(page)
    assert "and 8,950 more; preview.xlsx has every row" in words(page)


# --- what the report says -----------------------------------------------------------------------------------------------


def test_the_report_begins_with_who_has_the_message_and_who_may_have_it() -> None:
    assert (
        "wapim has taken the message for 11 of 23 people. 2 are unknown (it may or may not have been sent), 2 were rejected, "
        "1 was not sent, 1 is still to come and 6 were left out before sending." in words(report_page(report()))
    )


def test_the_report_says_the_numbers_of_summary_json() -> None:
    data = report()
    stated = json.loads(data.summary.to_json())
    table = Page(report_page(data)).table()
    for status, n in stated["totals"].items():
        cells = [value for name, value in table.items() if name.startswith(status.replace("_", " "))]
        assert f"{n:,}" in cells, status
    assert table["sum"] == str(sum(stated["totals"].values()))
    assert table["rows in the file"] == str(stated["input_rows"])
    assert "The totals reconcile" in words(report_page(data))


def test_totals_that_do_not_reconcile_are_shouted() -> None:
    text = words(report_page(report(counts={Status.ACCEPTED: 99})))
    assert "The totals do not reconcile." in text
    assert "accepted: the ledger counts 99, the results have 11" in text
    assert "The totals reconcile:" not in text


def test_each_step_of_the_funnel_is_the_one_before_less_what_fell_out() -> None:
    steps = reportpage.report_view(report()).steps
    assert [step.rows for step in steps] == [23, 17, 16, 11]
    for before, after in pairwise(steps):
        assert before.rows - sum(fall.rows for fall in before.falls) == after.rows
    assert [(fall.status, fall.rows) for fall in steps[2].falls] == [("rejected", 2), ("not_sent", 1), ("unknown", 2)]


def test_a_row_that_was_never_tried_falls_out_before_the_attempts() -> None:
    results = [row(2, "accepted"), row(3, "not_sent", "unreachable", attempts=0), row(4, "not_sent", "unreachable")]
    steps = reportpage.report_view(report(results=results)).steps
    assert [step.rows for step in steps] == [3, 3, 2, 1]
    assert "not sent, never tried" in words(report_page(report(results=results)))


def test_unknown_rows_are_named_with_what_to_do_next() -> None:
    text = words(report_page(report()))
    assert "15 +905320000015 2026-11-21 22:33:54 UTC reply timeout: no complete reply within 5 s" in text
    assert "campaign reconcile spring-sale" in text
    assert "campaign retry spring-sale --unknown" in text
    assert "campaign retry spring-sale --sandbox --unknown" in words(report_page(report(sandbox=True)))


def test_of_many_unknown_rows_the_first_are_named_and_all_are_counted() -> None:
    results = [row(n, "unknown", "reply_timeout") for n in range(2, 5_002)]
    page = report_page(report(results=results))
    assert "The first 200 of 5,000" in words(page)
    assert "and 4,800 more" in words(page)
    assert len(page) < 500_000


def test_reasons_stand_together_by_how_they_are_mended_and_nothing_to_do_comes_last() -> None:
    mendings = reportpage.report_view(report()).mendings
    texts = [str(group.how.striptags()) for group in mendings]
    assert texts[0].startswith("Correct the number in the audience")
    assert [text.startswith("Nothing to do") for text in texts] == sorted(
        text.startswith("Nothing to do") for text in texts
    )
    lost = next(group for group in mendings if "Ask the recipient" in group.how)
    assert [reason.examples for reason in lost.reasons] == ["16"]
    assert "number is not on WhatsApp" in words(report_page(report()))


def test_limits_are_said_to_be_held_or_exceeded() -> None:
    text = words(report_page(report()))
    assert "10/s 10 of 10 held" in text
    assert "2000/day 400 of 2,000 held" in text
    excess = [(AT + n * 10_000, AT + n * 10_000 + 5, "accepted", "200") for n in range(100)]
    assert "10/s 98 of 10 exceeded" in words(report_page(report(tries=excess)))


def test_reply_times_and_codes_are_told() -> None:
    data = report(tries=[(AT + n, AT + n + 84_000, "accepted", "200") for n in range(3)])
    text = words(report_page(data))
    assert "fastest 84 ms half within (p50) 84 ms" in text
    assert "200 accepted 3" in text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "under 1 ms"),
        (84_000, "84 ms"),
        (999_000, "999 ms"),
        (1_250_000, "1.25 s"),
        (31_000_000, "31 s"),
        (125_000_000, "2 min 5 s"),
    ],
)
def test_a_reply_time_reads_well(microseconds: int, text: str) -> None:
    assert reportpage.latency_text(microseconds) == text


def test_a_campaign_without_any_attempt_still_has_its_report() -> None:
    text = words(report_page(report(results=[row(2, "pending")], tries=[])))
    assert "wapim has taken the message for 0 of 1 person. 1 is still to come." in text
    assert "No attempt has been made." in text
    assert "There was no reply." in text


def test_an_empty_campaign_still_has_its_report() -> None:
    assert "The file holds no rows" in words(report_page(report(results=[], tries=[])))


def test_the_rows_are_read_once_and_few_are_kept() -> None:
    picked = pick(row(n, "unknown" if n % 2 else "accepted", f"reason{n}", caption="x") for n in range(1, 20_001))
    assert (len(picked.unknown), len(picked.samples)) == (200, 16)
    assert picked.tried == {"unknown": 10_000, "accepted": 10_000}
    assert [each.status for each in picked.samples[:4]] == ["accepted"] * 4


def test_the_chart_leaves_out_a_limit_that_would_squash_it() -> None:
    slow = [(AT + n * 1_000_000, AT + n * 1_000_000 + 5, "accepted", "200") for n in range(3)]
    stats = measure(slow, [replace(report().stats.windows[0].rate, count=1000)])
    view = reportpage.report_view(replace(report(), stats=stats))
    assert view.chart is not None
    assert view.chart.limit_at is None


# --- both pages ---------------------------------------------------------------------------------------------------------


def test_pages_are_written_whole_and_for_the_owner_alone(tmp_path: Path) -> None:
    write_preview_page(tmp_path / "a" / "preview.html", preview())
    write_report_page(tmp_path / "a" / "report.html", report())
    assert (tmp_path / "a" / "preview.html").read_bytes() == preview_page(preview())
    assert (tmp_path / "a" / "report.html").read_bytes() == report_page(report())
    assert stat.S_IMODE((tmp_path / "a" / "report.html").stat().st_mode) == 0o600


PAGES = {"preview": preview_page(preview()), "report": report_page(report())}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_in_order(name: str) -> None:
    page = Page(PAGES[name])
    assert (page.open, page.unclosed) == ([], [])
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in page.elements if tag == "th")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, each in page.elements if (value := each.get("href", "")).startswith("#")}
    targets |= {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert targets <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_runs_nothing(name: str) -> None:
    assert_harmless(Page(PAGES[name]))
    policy = next(each["content"] for tag, each in Page(PAGES[name]).elements if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


@pytest.mark.parametrize("start", range(0, len(HOSTILE_STRINGS), 25))
def test_hostile_text_adds_no_element_and_no_attribute(start: int) -> None:
    texts = (HOSTILE_STRINGS[start:] + HOSTILE_STRINGS)[:25]
    for data in (preview_page(hostile_preview(texts)), report_page(hostile_report(texts))):
        page = Page(data)
        assert_harmless(page)
        assert (page.open, page.unclosed) == ([], [])
        assert not set(data.decode("utf-8")) & {"\x00", "\u202e", "\ufeff", "\x1b"}


def assert_harmless(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in NEVER
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "action", "xlink:href"):
            assert re.match(r"#|data:(,|image/(png|jpeg|gif|webp);base64,)", attributes.get(name, "#"))
        if "style" in attributes:
            assert re.fullmatch(r"width:\d+\.\d%", attributes["style"])


def test_a_template_in_outside_text_is_never_run() -> None:
    page = report_page(report(campaign="{{ 7*7 }}", notes=("{% for x in y %}",)))
    assert "{{ 7*7 }}" in words(page)
    assert "49" not in words(page).split("Result")[0]


def test_a_card_beyond_the_room_of_the_page_is_counted_not_shown() -> None:
    deck = Deck({})
    made = [deck.card(row=n, phone="1", image="", caption="a" * 4000) for n in range(100)]
    assert made.count(None) == deck.left_out > 0


def test_a_caption_far_too_long_is_cut_and_says_so() -> None:
    text = words(preview_page(preview(samples={"longest": [sample(2, "ab " * 10_000)]})))
    assert "and 25,904 more characters" in text
    assert "30,000 of 1,024 characters" in text


def test_the_rows_of_the_test_report_are_what_they_say() -> None:
    assert len(rows()) == 23


def test_after_practice_there_is_no_provider_to_ask_about_the_unknown_rows() -> None:
    assert "campaign reconcile" not in words(report_page(report(sandbox=True)))


def test_the_axis_of_a_short_run_ends_where_its_label_says() -> None:
    start = 1_790_000_000_000_000
    one = Timeline(5, (Session(start, ((3, 0, 0, 0, 0),) * 2),), None)
    assert timeline_svg(one, "").ends == start + 12 * 5 * 1_000_000
    full = Timeline(5, (Session(start, ((3, 0, 0, 0, 0),) * 12),), None)
    assert timeline_svg(full, "").ends is None
