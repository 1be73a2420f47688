"""One template run on one row after the other."""

from __future__ import annotations

from pathlib import Path

from rendering import IMAGE, ROW, of_note, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture

from runner.captions import Rendered, RenderFault


def test_nothing_of_one_row_reaches_the_next(templates: Path) -> None:
    write(
        templates,
        state="{% set ns = namespace(n=0) %}{% macro count() %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{% endmacro %}",
        spring='{% import "state.j2" as s %}{% if note %}{% set seen = note %}{% endif %}{{ s.count() }}{{ seen|default("") }}',
    )
    made = renderer(template="spring.j2", templates=templates)
    assert [made.render(of_note(note)) for note in ("a", "", "b")] == [Rendered(IMAGE, f"1{x}") for x in ("a", "", "b")]
    inline = renderer('{% if note %}{% set seen = note %}{% endif %}{{ seen|default("-") }}')
    assert [inline.render(of_note(note)) for note in ("a", "", "b")] == [Rendered(IMAGE, x) for x in ("a", "-", "b")]


def test_a_fault_on_a_row_names_the_file_and_line(templates: Path) -> None:
    write(templates, spring='a\n{% include "foot.j2" %}', foot="b\n\n{{ 1 // (age|int - 34) }}")
    made = renderer(template="spring.j2", templates=templates).render(ROW)
    assert isinstance(made, RenderFault)
    assert made.detail.startswith("templates/foot.j2:3: ZeroDivisionError")
