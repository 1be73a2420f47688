"""Likely mistakes that are told, but are no errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendering import ROW, of_note, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture

VARIABLES: dict[str, str | int | float | bool] = {"vip": True, "limit": 20, "town": "İzmir"}


@pytest.mark.parametrize("where", ["note", "note|trim", "note|lower|trim", "(note)"])
def test_a_where_that_is_just_a_column_is_told_because_no_counts_as_yes(where: str) -> None:
    made = renderer(where=where)
    assert made.keeps(of_note("no")) is True
    assert made.warnings == (
        'spring.yaml:9: this only asks whether note is blank, so a cell that says "no" counts as yes; '
        'if that is not meant, write for example: note == "yes"',
    )


def test_a_column_asked_of_row_is_told_as_it_was_written() -> None:
    for where in ("row['First Name']", "row.First_Name"):
        (said,) = renderer(where=where).warnings
        assert said.endswith(f'write for example: {where} == "yes"')


def test_nothing_but_columns_with_and_or_and_not_is_told_once_for_each_column() -> None:
    said = renderer(where="not note and (city or note)").warnings
    assert [each.partition("whether ")[2].partition(" ")[0] for each in said] == ["note", "city"]


@pytest.mark.parametrize(
    "where",
    [None, 'note == "yes"', 'note == "yes" and city', "vip", "note is defined", "age|int", "note|length", "row", "'x'"],
)
def test_a_where_that_says_what_it_wants_is_not_told(where: str | None) -> None:
    assert renderer(where=where, variables=VARIABLES).warnings == ()


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("age == 34", "age == 34 is never true, because a cell is text; write age|int == 34"),
        ("34 == age", "age == 34 is never true, because a cell is text; write age|int == 34"),
        ("age != 34", "age != 34 is always true, because a cell is text; write age|int != 34"),
        ("age == 3.5", "write age|float == 3.5"),
        ("age == limit", "age == limit is never true, because a cell is text; write age|int == limit"),
        ("row.age|trim == 34", "row.age == 34 is never true, because a cell is text; write row.age|int == 34"),
        ("note == true", 'write the word that stands in the cell, for example note == "yes"'),
        ("note == none", "write not note, which asks whether it is blank"),
        ("note != none", "write note, which asks whether it is blank"),
    ],
)
def test_a_cell_compared_with_what_is_no_text_is_told_with_what_to_write(expression: str, said: str) -> None:
    made = renderer(where=expression, variables=VARIABLES)
    assert made.keeps(ROW) is (" != " in expression)
    assert [said in each for each in made.warnings] == [True]


@pytest.mark.parametrize(
    "expression",
    ['age == "34"', "age|int == 34", "age == city", "age == town", "age|length == 2", "1 == 2", "limit == 20"],
)
def test_a_comparison_of_like_with_like_is_not_told(expression: str) -> None:
    assert renderer(where=expression, variables=VARIABLES).warnings == ()


def test_a_name_that_a_template_sets_itself_is_not_taken_for_the_column() -> None:
    assert renderer("{% set age = age|int %}{% if age == 34 %}x{% endif %}").warnings == ()


def test_comparisons_are_looked_for_in_every_template_and_told_once(templates: Path) -> None:
    write(templates, spring='{% include "foot.j2" %}{% include "foot.j2" %}', foot="\n{% if age == 34 %}x{% endif %}")
    made = renderer(template="spring.j2", templates=templates, image="https://cdn.example.com/{{ age == 1 }}")
    assert [each.partition(": ")[0] for each in made.warnings] == ["templates/foot.j2:2", "spring.yaml:16"]
