"""Which files of the templates folder are read, and which are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rendering import IMAGE, ROW, problems, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture

from runner.captions import Rendered


def test_a_byte_order_mark_is_no_part_of_the_caption(templates: Path) -> None:
    (templates / "spring.j2").write_bytes(b"\xef\xbb\xbfHi")
    assert renderer(template="spring.j2", templates=templates).render(ROW) == Rendered(IMAGE, "Hi")


def test_templates_are_read_once(templates: Path) -> None:
    write(templates, spring='{% include "foot.j2" %}', foot="before")
    made = renderer(template="spring.j2", templates=templates)
    write(templates, foot="after")
    assert made.render(ROW) == Rendered(IMAGE, "before")


def test_a_missing_template_names_the_nearest(templates: Path) -> None:
    write(templates, spring="x", summer="y")
    said = problems(template="sprng.j2", templates=templates)
    assert "spring.yaml:15: template 'sprng.j2' is not in templates/ (nearest: 'spring.j2')" in said
    write(templates, spring='a\n{% include "sumer.j2" %}')
    assert "templates/spring.j2:2: template 'sumer.j2' is not in templates/ (nearest: 'summer.j2')" in problems(
        template="spring.j2", templates=templates
    )


@pytest.mark.parametrize(
    "name", ["../secret.j2", "/etc/passwd", "a/../../secret.j2", "..\\secret.j2", "", "./x.j2", "C:x", "a\0b", "\ud800"]
)
def test_a_template_outside_the_folder_is_refused(templates: Path, name: str) -> None:
    (templates.parent / "secret.j2").write_text("secret", encoding="utf-8")
    assert "is not a path inside templates/" in problems(template=name, templates=templates)
    if '"' not in name and "\\" not in name:
        assert "is not a path inside templates/" in problems(f'{{% include "{name}" %}}', templates=templates)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(templates: Path) -> None:
    (templates.parent / "secret.j2").write_text("secret", encoding="utf-8")
    (templates / "out.j2").symlink_to(templates.parent / "secret.j2")
    assert "template 'out.j2' leads out of templates/" in problems(template="out.j2", templates=templates)
    write(templates, spring="Hi")
    (templates / "in.j2").symlink_to(templates / "spring.j2")
    assert renderer(template="in.j2", templates=templates).render(ROW) == Rendered(IMAGE, "Hi")
    (templates / "round.j2").symlink_to(templates / "round.j2")
    assert "round.j2" in problems(template="round.j2", templates=templates)


def test_what_is_no_text_file_is_refused_without_waiting_for_it(templates: Path) -> None:
    os.mkfifo(templates / "pipe.j2")
    (templates / "folder.j2").mkdir()
    write(templates, huge="x" * 300_000, large="x" * 40_000)
    (templates / "latin.j2").write_bytes("a\nçok".encode("latin-1"))
    for name, said in {
        "pipe": "is not a text file",
        "folder": "is not a text file",
        "huge": "is not a text file",
        "large": "has 40,000 characters; at most",
        "latin": "templates/latin.j2:2: is not UTF-8 text",
    }.items():
        assert said in problems(template=f"{name}.j2", templates=templates)
