"""WhatsApp's marks: what they look like, and that nothing else ever becomes markup."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hostile_strings import HOSTILE_STRINGS
from hypothesis import given
from hypothesis import strategies as st

from runner.outsidetext import outside, shown
from runner.whatsapp import caption_html, inline

ALLOWED = {"div", "strong", "em", "s", "code", "blockquote", "ul", "ol", "li", "br", "span"}


class Elements(HTMLParser):
    """Every element and attribute of a piece of HTML, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))  # Markup would escape what the parser unescapes
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*bold*", "<strong>bold</strong>"),
        ("_italic_", "<em>italic</em>"),
        ("~gone~", "<s>gone</s>"),
        ("```mono```", "<code>mono</code>"),
        ("`code`", "<code>code</code>"),
        ("now *only* (*today*)!", "now <strong>only</strong> (<strong>today</strong>)!"),
        ("*two words*", "<strong>two words</strong>"),
        ("*_both_*", "<strong><em>both</em></strong>"),
        ("_a *b* c_", "<em>a <strong>b</strong> c</em>"),
        ("*₺149,90*.", "<strong>₺149,90</strong>."),
        ("🌷*yeni*🌷", "🌷<strong>yeni</strong>🌷"),
        ("```*not bold*```", "<code>*not bold*</code>"),
        ("**doubled**", "*<strong>doubled</strong>*"),
        ("*a* b *c*", "<strong>a</strong> b <strong>c</strong>"),
    ],
)
def test_a_mark_at_the_edge_of_a_word_counts(text: str, html: str) -> None:
    assert inline(text) == html


@pytest.mark.parametrize(
    "text",
    [
        "snake_case_name",
        "5*3*2",
        "2 * 3 * 4",
        "* a*",
        "*a *",
        "*a",
        "a*",
        "**",
        "* *",
        "~",
        "`a",
        "```",
        "``````",
        "_a_b",
        "Ğ*a*",
        "*a*9",
    ],
)
def test_a_mark_elsewhere_is_only_a_character(text: str) -> None:
    assert inline(text) == text


def test_bold_ends_on_its_line_but_monospace_may_run_over_several() -> None:
    assert caption_html("*a\nb*") == '<div dir="auto">*a</div><div dir="auto">b*</div>'
    assert caption_html("x ```a\nb``` y") == '<div dir="auto">x <code>a\nb</code> y</div>'


def test_quotes_and_lists_are_drawn_together() -> None:
    assert caption_html("> a\n> *b*") == (
        '<blockquote><div dir="auto">a</div><div dir="auto"><strong>b</strong></div></blockquote>'
    )
    assert caption_html("- a\n* b") == '<ul><li dir="auto">a</li><li dir="auto">b</li></ul>'
    assert caption_html("1. a\n2. b") == '<ol><li value="1" dir="auto">a</li><li value="2" dir="auto">b</li></ol>'


@pytest.mark.parametrize("text", ["-a", "1.a", "1000. a", ">", "- ", "a > b", " - a"])
def test_what_only_resembles_a_list_or_quote_is_a_line(text: str) -> None:
    assert [tag for tag, _ in Elements(caption_html(text)).found] == ["div"]


def test_an_empty_line_keeps_its_height() -> None:
    assert caption_html("a\n\nb") == '<div dir="auto">a</div><div dir="auto"><br></div><div dir="auto">b</div>'


def test_windows_line_ends_are_line_ends() -> None:
    assert caption_html("a\r\nb\rc") == caption_html("a\nb\nc")


def test_unseen_characters_are_shown_by_their_number() -> None:
    assert shown("a\u202eb") == 'a<span class="odd">U+202E</span>b'
    assert shown("\x00" * 500) == '<span class="odd">U+0000 ×500</span>'
    assert shown("\ud800") == '<span class="odd">U+D800</span>'


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧", "❤️", "نمی‌خواهم", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"]
)
def test_what_honest_writing_needs_stays(text: str) -> None:
    assert shown(text) == text


def test_outside_text_on_a_line_is_isolated_and_cut() -> None:
    assert outside("<b>\nx") == "<bdi>&lt;b&gt; x</bdi>"
    assert outside("a" * 900, 10) == "<bdi>aaaaaaaaa…</bdi>"


def test_there_are_at_least_five_hundred_different_hostile_strings() -> None:
    assert len(set(HOSTILE_STRINGS)) >= 500


@pytest.mark.parametrize("number", range(0, len(HOSTILE_STRINGS), 50))
def test_a_hostile_caption_never_becomes_markup_of_its_own(number: int) -> None:
    for text in HOSTILE_STRINGS[number : number + 50]:
        assert_harmless(text)


@given(st.text(alphabet=st.sampled_from("*_~`>-1. \nab<&\"'\u202e\x00é"), max_size=60))
def test_no_caption_at_all_becomes_markup_of_its_own(text: str) -> None:
    assert_harmless(text)


def assert_harmless(text: str) -> None:
    page = Elements(caption_html(text))
    for tag, attributes in page.found:
        assert tag in ALLOWED, text[:80]
        assert attributes in ({}, {"dir": "auto"}, {"class": "odd"}) or set(attributes) == {"value", "dir"}, text[:80]
    # Nothing is lost but marks, list numbers and white space: every other letter and digit is still there, in order.
    if "```" not in text:
        numbers = re.compile(r"(?m)^\d{1,3}\. +(?=\S)")
        whole = Elements(shown(numbers.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))).text
        assert re.sub(r"[\W_]", "", page.text) == re.sub(r"[\W_]", "", whole), text[:80]


@pytest.mark.parametrize("unit", ["*a ", "`a ", "```a ", "_", "> ", "*_~", "*a*", "``` ", "\n", "*\n", "1. ", "~a~_b_"])
def test_the_time_grows_with_the_length_only(unit: str) -> None:
    began = time.process_time()
    caption_html(unit * (10_000 // len(unit)))
    assert time.process_time() - began < 2
