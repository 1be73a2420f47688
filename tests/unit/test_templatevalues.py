"""Blank cells, and what never prints."""

from __future__ import annotations

import pytest
from rendering import caption, fault, of_note

from runner.templatevalues import Blank, BlankError


def test_a_blank_is_false_and_empty_and_equal_to_no_text_but_the_empty_one() -> None:
    blank = Blank("city")
    assert not blank
    assert len(blank) == 0
    assert list(blank) == []
    assert blank == ""
    assert "" == blank  # noqa: SIM300  # the other side's comparison is the point
    assert blank == Blank("note")
    assert blank != "İzmir"
    assert blank in ["", "x"]


def test_nothing_is_more_or_less_than_a_blank() -> None:
    blank = Blank("age")
    assert not (blank < 3 or blank > 3 or blank <= 3 or blank >= 3 or 3 < blank or 3 > blank)  # noqa: SIM300


def test_a_blank_names_its_column_when_it_would_become_text_or_a_number() -> None:
    for become in (str, repr, int, float, format):
        with pytest.raises(BlankError, match="column 'city' is blank"):
            become(Blank("city"))


@pytest.mark.parametrize("blank", ["", " ", "\t\u00a0"])
@pytest.mark.parametrize(
    "text",
    [
        "{{ note }}",
        "{{ note|title }}",
        "{{ note|upper|trim }}",
        '{{ "Dear " ~ note }}',
        '{{ "Dear " + note }}',
        "{{ note.strip() }}",
        '{{ [city, note]|join(" ") }}',
        '{{ "%s"|format(note) }}',
        '{{ note|date("long") }}',
        '{{ row["note"] }}',
        "{{ row.note }}",
        "{% set x = note %}{{ x }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(note) }}",
        "{% filter upper %}{{ note }}{% endfilter %}",
        "{{ note|int }}",
        "{{ note[0] }}",
        "{{ city if not city else note }}",
        "{{ note * 3 }}",
        "{{ -note }}",
    ],
)
def test_a_blank_that_would_be_printed_stops_the_row_and_names_its_column(text: str, blank: str) -> None:
    assert fault(text, of_note(blank)) == "column 'note' is blank"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('{{ note|default("you") }}', "you"),
        ('{{ note|d("you") }}', "you"),
        ('{{ note|upper|default("you") }}', "you"),
        ('{{ (city ~ note)|default("you") }}', "you"),
        ('{{ note or "you" }}', "you"),
        ('{{ row.note|default("you") }}', "you"),
        ('{{ note|default("") }}.', "."),
        ("{% if note %}a{% else %}b{% endif %}", "b"),
        ('{% if note == "" %}a{% endif %}', "a"),
        ('{% if note != "x" %}a{% endif %}', "a"),
        ("{% if note|length == 0 %}a{% endif %}", "a"),
        ('{% if note|upper == "X" %}a{% else %}b{% endif %}', "b"),
        ('{% if note.startswith("X") %}a{% else %}b{% endif %}', "b"),
        ("{% if note|int > 3 or note|int <= 3 %}a{% else %}b{% endif %}", "b"),
        ('{% if note < "b" %}a{% else %}b{% endif %}', "b"),
        ('{% if note in "abc" %}a{% else %}b{% endif %}', "b"),
        ('{% if note not in "abc" %}a{% endif %}', "a"),
        ('{% if note in ["", "x"] %}a{% endif %}', "a"),
        ('{% if "a" in note %}a{% else %}b{% endif %}', "b"),
        ("{% if note is defined %}a{% else %}b{% endif %}", "b"),
        ("{% for x in note %}a{% else %}b{% endfor %}", "b"),
        ('{{ [note, city]|select|join(" ") }}', "İzmir"),
        ('{{ "" if city else "y" }}.', "."),
        ('{{ "VIP" if note }}.', "."),
    ],
)
def test_a_blank_is_false_and_missing_until_it_is_printed(text: str, printed: str) -> None:
    assert caption(text) == printed


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("{{ none }}", "None: nothing (none)"),
        ("{{ [1] }}", "a list"),
        ("{{ {'a': 1} }}", "a mapping"),
        ("{{ city.upper }}", "city.upper: a function"),
        ("{{ 'nan'|float }}", "'nan'|float: not a finite number"),
        ("{{ 'inf'|float }}", "not a finite number"),
        ("{{ row }}", "row: "),
        ("{{ city == 'x' }}", "a yes/no value"),
        ("{{ range(3) }}", "range(...): a range"),
        ("{{ city|list }}", "city|list: a list"),
        ("{{ [1]|string }}", "a list"),
        ("{{ none|upper }}", "nothing (none)"),
        ("{{ 'a' ~ [1] }}", "a list"),
        ("{{ [[1]]|join }}", "a list"),
        ("{{ '%s'|format([1]) }}", "a list"),
        ("{{ '%r' % city }}", "'%r' cannot be used"),
        ("{{ city.foo }}", "has no attribute 'foo'"),
        ("{{ city|map }}", ""),
        ("{{ dict(a=1).nope }}", "nope"),
        ("{{ namespace(a=1) }}", "namespace(...): "),
    ],
)
def test_what_is_neither_text_nor_a_number_is_a_fault_that_names_the_expression(text: str, expression: str) -> None:
    assert expression in fault(text)


@pytest.mark.parametrize("hollow", ["nan", "NaN", "None", "null", "undefined", "[object Object]", "#N/A", "<NA>"])
def test_what_faulty_exports_write_for_an_empty_cell_is_not_printed(hollow: str) -> None:
    detail = fault("{{ note }}", of_note(hollow))
    assert detail.startswith("spring.yaml:14: note: the value is ")
    assert hollow in detail


def test_people_called_nan_or_null_get_their_message() -> None:
    assert caption("{{ note }}", of_note("Nan")) == "Nan"
    assert caption("{{ note }}", of_note("Null")) == "Null"


def test_numbers_print_as_they_are() -> None:
    assert caption("{{ 1.5 }} {{ 3 }} {{ n }}", variables={"n": 2.25}) == "1.5 3 2.25"
