"""What is found wrong with a template before any row is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendering import caption, problems, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture


def test_used_and_unused_columns_are_told() -> None:
    made = renderer(
        "{{ First_Name }}",
        image="https://cdn.example.com/{{ age }}.jpg",
        where='city == "İzmir"',
        extra={"at": "{{ note }}"},
    )
    assert made.used == {"First Name", "city", "age", "note"}
    assert made.unused == ("image_url",)
    assert renderer('{{ row["age"] }}').used == {"age"}
    assert renderer("{% for name in row %}{{ name }}{% endfor %}").unused == ()


def test_a_variable_that_is_also_a_column_is_refused() -> None:
    assert "spring.yaml: variables.city: 'city' is also a column" in problems("x", variables={"city": "a"})
    assert "variables.First_Name" in problems("x", variables={"First_Name": "a"})
    assert "variables.row: 'row' has a meaning of its own" in problems("x", variables={"row": "a"})


def test_every_problem_is_collected_with_its_place() -> None:
    said = problems("{{ citty }}", image="{{ imge_url }}", where="ages > 3", extra={"at": "{{ wen }}"})
    for place in (
        "spring.yaml:14: 'citty'",
        "spring.yaml:16: 'imge_url'",
        "spring.yaml:9: 'ages'",
        "spring.yaml:30: 'wen'",
    ):
        assert place in said


def test_a_misspelt_column_names_the_nearest_and_its_line() -> None:
    said = problems("Hi\n{{ city }}\n{{ citty }}")
    assert "spring.yaml:14 (line 3 of it): 'citty' is not a column or a variable (nearest: 'city')" in said


@pytest.mark.parametrize(
    "text",
    ['{{ citty|default("you") }}', "{% if citty is defined %}x{% endif %}", '{{ row["citty"] }}', "{{ row.citty }}"],
)
def test_a_misspelt_name_is_found_even_where_it_would_never_be_printed(text: str) -> None:
    assert "'citty' is not a column" in problems(text)


def test_a_misspelt_variable_under_vars_is_found() -> None:
    assert "'shp' is not one of the variables (nearest: 'shop')" in problems("{{ vars.shp }}", variables={"shop": "x"})


def test_names_that_a_template_sets_itself_are_not_misspelt() -> None:
    text = "{% if note %}{% set hi = 'A' %}{% else %}{% set hi = 'B' %}{% endif %}{{ hi }}{% for i in [1] %}{{ i }}{% endfor %}"
    assert caption(text) == "B1"


def test_loop_outside_a_loop_is_explained() -> None:
    assert "'loop' only stands inside a {% for %}" in problems("{{ loop.index }}")


def test_a_misspelt_column_in_an_included_file_names_that_file(templates: Path) -> None:
    write(templates, spring='{% set greeting = "Hi" %}{% include "foot.j2" %}', foot="{{ greeting }}\n{{ citty }}")
    said = problems(template="spring.j2", templates=templates)
    assert "templates/foot.j2:2: 'citty' is not a column" in said
    assert "greeting" not in said


@pytest.mark.parametrize("text", ["a }} b", "{% raw %}{{ city }}{% endraw %}", "{ % if city %}", "x\n{{ city }}}}"])
def test_template_marks_left_in_the_template_are_found_beforehand(text: str) -> None:
    assert "template mark-up" in problems(text)


def test_control_characters_in_the_template_are_found_beforehand() -> None:
    assert "spring.yaml:14 (line 2 of it): the text holds a control character" in problems("a\nb\x07")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n{% if city %}", "line 2 of it): is not valid Jinja: Unexpected end of template"),
        ("{{ city", "is not valid Jinja"),
        ("{% nonsense %}", "is not valid Jinja: Encountered unknown tag 'nonsense'"),
        ("{% do city %}", "is not valid Jinja"),
        ("{% for x in [1] %}{% break %}{% endfor %}", "is not valid Jinja"),
        ("{{ city|uper }}", "there is no filter 'uper' (nearest: 'upper')"),
        ("{% if city %}{{ city|uper }}{% endif %}", "there is no filter 'uper'"),
        ("{% if city is defind %}{% endif %}", "there is no test 'defind' (nearest: 'defined')"),
        ("{{ city|safe }}", "there is no filter 'safe'"),
        ("{% autoescape true %}{% endautoescape %}", "plain text"),
        ("{{ '{}'.format(city) }}", ".format() cannot be used"),
        ("{% for x in [1] recursive %}{% endfor %}", "recursive loop"),
        ("{{ city|money('XXQ') }}", "filter 'money': unknown currency 'XXQ'"),
        ("{{ city|money }}", "filter 'money': missing 1 required positional argument: 'currency'"),
        ("{{ city|date(locale='qq_qq') }}", "filter 'date': unknown locale"),
        ("{% block a %}{% endblock %}{% block a %}{% endblock %}", "block 'a' defined twice"),
    ],
)
def test_a_mistake_in_the_template_is_found_beforehand(text: str, said: str) -> None:
    assert said in problems(text)
    assert "spring.yaml:14" in problems(text)
