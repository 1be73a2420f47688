"""Templates of several files, and templates that cannot be parsed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendering import IMAGE, ROW, problems, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture

from runner.captions import Rendered


def test_a_template_file_may_include_extend_and_import(templates: Path) -> None:
    write(
        templates,
        base="{% block hello %}Hi{% endblock %} {{ city }}{% block end %}{% endblock %}",
        macros="{% macro bold(x) %}*{{ x }}*{% endmacro %}{% macro town() %}{{ city }}{% endmacro %}",
        foot="-- {{ age }}",
        spring='{% extends "base.j2" %}{% from "macros.j2" import bold, town %}'
        "{% block hello %}{{ super() }} {{ bold(First_Name) }} {{ town() }}{% endblock %}"
        '{% block end %} {% include "foot.j2" %}{% endblock %}',
    )
    (templates / "parts").mkdir()
    made = renderer(template="spring.j2", templates=templates)
    assert made.render(ROW) == Rendered(IMAGE, "Hi *Ayşe* İzmir İzmir -- 34")
    assert made.render(("Can", "Bursa", "8", "", "")) == Rendered(IMAGE, "Hi *Can* Bursa Bursa -- 8")
    assert made.used == {"First Name", "city", "age"}


def test_lines_of_blocks_leave_no_empty_lines(templates: Path) -> None:
    write(templates, spring="{% if city %}\n  {% set x = 1 %}\nHi\n{% endif %}\nyou\n")
    assert renderer(template="spring.j2", templates=templates).render(ROW) == Rendered(IMAGE, "Hi\nyou")


def test_a_template_that_may_be_missing_may_be_missing(templates: Path) -> None:
    write(templates, spring='a{% include "foot.j2" ignore missing %}')
    assert renderer(template="spring.j2", templates=templates).render(ROW) == Rendered(IMAGE, "a")


def test_templates_that_go_round_in_a_circle_are_found(templates: Path) -> None:
    write(templates, a='{% include "b.j2" %}', b='{% import "a.j2" as a %}', own='{% extends "own.j2" %}')
    assert "templates/b.j2:1: the templates go round in a circle: a.j2 -> b.j2 -> a.j2" in problems(
        template="a.j2", templates=templates
    )
    assert "circle" in problems(template="own.j2", templates=templates)
    write(templates, **{f"n{i}": f'{{% include "n{i + 1}.j2" %}}' for i in range(200)})
    assert "more than 20 deep" in problems(template="n0.j2", templates=templates)


def test_the_name_of_a_template_must_be_written_out(templates: Path) -> None:
    assert "the name of the template is not written out" in problems("{% include city %}", templates=templates)


def test_a_syntax_error_in_a_file_names_the_file_and_line(templates: Path) -> None:
    write(templates, spring="a\nb\n{% if city %}")
    assert "templates/spring.j2:3: is not valid Jinja" in problems(template="spring.j2", templates=templates)


@pytest.mark.parametrize("where", ["city ==", "", "city }} x", "{{ city }}", "city city", "(" * 500, "{% if %}"])
def test_a_where_that_is_no_expression_is_found_beforehand(where: str) -> None:
    assert "spring.yaml:9" in problems(where=where)


def test_a_where_has_the_same_limit_as_a_template() -> None:
    assert "spring.yaml:9: is a template of 40,010 characters" in problems(where="city == '" + "x" * 40_000 + "'")
