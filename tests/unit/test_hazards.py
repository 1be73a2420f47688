"""What no message may hold, and what it may."""

from __future__ import annotations

import pytest
from rendering import caption, fault, of_note


@pytest.mark.parametrize("mark", ["{{", "}}", "{%", "%}"])
def test_template_marks_in_a_cell_are_not_sent_and_name_the_column(mark: str) -> None:
    assert fault("Hi {{ note }}", of_note(f"a {mark} b")) == f"the caption holds '{mark}', which column 'note' brought"


@pytest.mark.parametrize("cell", ["{{ 7*7 }}", "{{7*7}}", "{% include 'x' %}", "{{ row }}", "${{ city }}"])
def test_a_cell_is_never_rendered(cell: str) -> None:
    detail = fault("Hi {{ note }}", of_note(cell))
    assert "which column 'note' brought" in detail
    assert "49" not in detail
    assert caption("{{ note|replace('{', '(')|replace('}', ')') }}", of_note("{{ 7*7 }}")) == "(( 7*7 ))"


def test_single_braces_and_percent_signs_are_text() -> None:
    assert caption("{ {{ note }} } 20%", of_note("{50%")) == "{ {50% } 20%"


def test_template_marks_made_by_an_expression_are_a_fault() -> None:
    assert fault("{{ '{' ~ '{' }}") == "the caption holds '{{'"


@pytest.mark.parametrize("sign", ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\r", "\ud800", "\udfff"])
def test_control_characters_and_lone_surrogates_are_a_fault_that_names_the_column(sign: str) -> None:
    detail = fault("Hi {{ note }}", of_note(f"a{sign}b"))
    assert detail == f"the caption holds the invisible character U+{ord(sign):04X}, which column 'note' brought"


@pytest.mark.parametrize("sign", ["\u202a", "\u202e", "\u2066", "\u2069"])
def test_direction_overrides_come_from_the_author_but_never_from_a_cell(sign: str) -> None:
    assert "which column 'note' brought" in fault("Hi {{ note }}", of_note(f"a{sign}b"))
    assert caption(f"a{sign}b {{{{ city }}}}") == f"a{sign}b İzmir"


@pytest.mark.parametrize(
    "words", ["Çok güzel ıIiİ", "مرحبا يا ليلى", "👨‍👩‍👧 🇹🇷 👍🏽", "\u200fשלום\u200e", "e\u0301", "\u00a0x\u202fy"]
)
def test_turkish_arabic_and_emoji_come_out_as_they_went_in(words: str) -> None:
    assert caption("Hi {{ note }}!", of_note(words)) == f"Hi {words}!"
