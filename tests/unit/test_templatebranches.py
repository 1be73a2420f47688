"""A preview names the branches of the template that each row takes; the caption is the same with and without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendering import IMAGE, renderer

from runner.captions import Rendered, Renderer, Source

COLUMNS = ("Name", "City", "Age")


def taken(
    row: tuple[str, ...],
    text: str | None = None,
    *,
    templates: Path = Path("nowhere"),
    template: str | None = None,
    image: str = IMAGE,
) -> tuple[str, set[str]]:
    """The caption, which must be that of a renderer without branches, and the labels."""
    watching = Renderer(
        columns=COLUMNS,
        templates=templates,
        caption=Source(text, "spring.yaml:14") if text is not None else None,
        template=Source(template, "spring.yaml:15") if template is not None else None,
        image=Source(image, "spring.yaml:16"),
        where=None,
        variables={},
        caption_limit=1024,
        branches=True,
    )
    plain = renderer(text, columns=COLUMNS, templates=templates, template=template, image=image)
    found = watching.render(row)
    assert found == plain.render(row)
    assert plain.taken == frozenset()
    assert isinstance(found, Rendered), found
    return found.caption, set(watching.taken)


CHAIN = """Hi
{% if City == "Bursa" and Age|int > 30 %}
B
{% elif City %}
C
{% else %}
none
{% endif %}"""


@pytest.mark.parametrize(
    ("row", "caption", "label"),
    [
        (("Ada", "Bursa", "40"), "Hi\nB", 'caption:2 if City == "Bursa" and Age|int > 30'),
        (("Ada", "Bursa", "20"), "Hi\nC", "caption:4 elif City"),
        (("Ada", "", "20"), "Hi\nnone", "caption: else of line 2"),
    ],
)
def test_each_branch_of_an_if_is_named_with_its_line_and_its_words(
    row: tuple[str, ...], caption: str, label: str
) -> None:
    assert taken(row, CHAIN) == (caption, {label})


def test_an_else_that_is_not_written_is_a_branch_too() -> None:
    text = "Hi{% if City %}, {{ City }}{% endif %}"
    assert taken(("Ada", "Bursa", ""), text) == ("Hi, Bursa", {"caption:1 if City"})
    assert taken(("Ada", "", ""), text) == ("Hi", {"caption: else of line 1"})


def test_several_ifs_in_a_line_and_inside_one_another_keep_their_own_words() -> None:
    text = "{% if Name %}{% if City %}c{% elif Age %}a{% endif %}{% endif %}{% if Age %}z{% endif %}"
    assert taken(("Ada", "", "9"), text) == (
        "az",
        {"caption:1 if Name", "caption:1 elif Age", "caption:1 if Age"},
    )


def test_a_choice_inside_an_expression_is_a_branch() -> None:
    text = "Hi {{ City if City else 'you' }}{{ '!' if Age }}"
    assert taken(("Ada", "Bursa", ""), text) == ("Hi Bursa", {"caption:1 if City", "caption:1 if Age, else"})
    assert taken(("Ada", "", "4"), text) == ("Hi you!", {"caption:1 if City, else", "caption:1 if Age"})


def test_the_else_of_an_empty_loop_is_a_branch() -> None:
    text = "{% for part in City.split() %}{{ part }}{% else %}nowhere{% endfor %}"
    assert taken(("Ada", "", ""), text) == ("nowhere", {"caption: else of line 1"})
    assert taken(("Ada", "Bursa", ""), text) == ("Bursa", set())


def test_tags_in_comments_and_raw_text_are_no_branches() -> None:
    text = "{# {% if Age %} #}{% raw %}{ if Age }{% endraw %}{% if City %}c{% endif %}"
    assert taken(("Ada", "Bursa", ""), text) == ("{ if Age }c", {"caption:1 if City"})


def test_a_branch_that_measures_text_decides_as_it_would_without_the_notes() -> None:
    text = "{% set words %}{% if City %}{{ City }}{% endif %}{% endset %}{% if words|length == 5 %}five{% else %}other{% endif %}"
    assert taken(("Ada", "Bursa", ""), text)[0] == "five"


def test_templates_that_are_included_imported_or_extended_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "spring.j2").write_text(
        "{% extends 'base.j2' %}{% from 'macros.j2' import hail %}\n"
        "{% block body %}{{ hail(Name) }}{% include 'foot.j2' %}{% endblock %}"
    )
    (tmp_path / "base.j2").write_text("{% if Age %}aged {% endif %}{% block body %}{% endblock %}")
    (tmp_path / "macros.j2").write_text(
        "{% macro hail(who) %}{% if who == 'Ada' %}Dear {% endif %}{{ who }}{% endmacro %}"
    )
    (tmp_path / "foot.j2").write_text("\n{% if City %}\nin {{ City }}\n{% endif %}")
    caption, labels = taken(("Ada", "", "3"), templates=tmp_path, template="spring.j2")
    assert caption == "aged Dear Ada"
    assert labels == {"base.j2:1 if Age", "macros.j2:1 if who == 'Ada'", "foot.j2: else of line 2"}


def test_branches_of_the_image_address_are_left_out() -> None:
    image = "https://cdn.example.com/{% if City %}a{% else %}b{% endif %}.jpg"
    assert taken(("Ada", "Bursa", ""), "Hi", image=image) == ("Hi", set())


def test_the_branches_of_one_row_are_not_those_of_the_row_before() -> None:
    watching = Renderer(
        columns=COLUMNS,
        templates=Path("nowhere"),
        caption=Source("{% if City %}{{ Name }}{% endif %}", "spring.yaml:14"),
        template=None,
        image=Source(IMAGE, "spring.yaml:16"),
        where=None,
        variables={},
        caption_limit=1024,
        branches=True,
    )
    watching.render(("Ada", "Bursa", ""))
    assert watching.taken == {"caption:1 if City"}
    watching.render(("Ada", "", ""))
    assert watching.taken == {"caption: else of line 1"}


def test_a_condition_of_any_length_makes_a_short_label() -> None:
    text = "{% if Name in [" + ", ".join(f"'n{i}'" for i in range(100)) + "] %}{% endif %}{% if City %}c{% endif %}"
    _, labels = taken(("n7", "Bursa", ""), text)
    assert all(len(label) < 90 for label in labels)
    assert len(labels) == 2
