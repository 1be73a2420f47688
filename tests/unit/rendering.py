"""A renderer over one small audience, for the tests of everything behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from runner.captions import Rendered, Renderer, RenderFault, Source
from runner.errors import InputError
from runner.model import SkipReason

IMAGE = "https://cdn.example.com/spring.jpg"


COLUMNS = ("First Name", "city", "age", "note", "image_url")


ROW = ("Ayşe", "İzmir", "34", "", "https://img.example.net/a.jpg")


NOWHERE = Path("no-such-folder/templates")


def renderer(
    caption: str | None = None,
    *,
    columns: Sequence[str] = COLUMNS,
    templates: Path = NOWHERE,
    template: str | None = None,
    image: str = IMAGE,
    where: str | None = None,
    variables: Mapping[str, str | int | float | bool] | None = None,
    limit: int = 1024,
    extra: Mapping[str, str] | None = None,
) -> Renderer:
    return Renderer(
        columns=columns,
        templates=templates,
        caption=None if caption is None else Source(caption, "spring.yaml:14"),
        template=None if template is None else Source(template, "spring.yaml:15"),
        image=Source(image, "spring.yaml:16"),
        where=None if where is None else Source(where, "spring.yaml:9"),
        variables=variables or {},
        caption_limit=limit,
        extra={name: Source(text, "spring.yaml:30") for name, text in (extra or {}).items()},
    )


def caption(text: str, row: Sequence[str] = ROW, **settings: object) -> str:
    """The caption of one row, which must come out."""
    rendered = renderer(text, **settings).render(row)  # type: ignore[arg-type]  # handed on as they are
    assert isinstance(rendered, Rendered), rendered
    return rendered.caption


def fault(text: str, row: Sequence[str] = ROW, **settings: object) -> str:
    """Why one row gets no caption; it must be a render_error."""
    rendered = renderer(text, **settings).render(row)  # type: ignore[arg-type]
    assert isinstance(rendered, RenderFault), rendered
    assert rendered.reason is SkipReason.RENDER_ERROR
    return rendered.detail


def problems(text: str | None = None, **settings: object) -> str:
    """What is found before any row."""
    with pytest.raises(InputError) as caught:
        renderer(text, **settings)  # type: ignore[arg-type]
    return str(caught.value)


def further(made: Renderer, name: str, row: Sequence[str]) -> str | RenderFault:
    return made.extra(name, row)  # noqa: S610  # not Django's


def of_note(note: str) -> tuple[str, ...]:
    return (*ROW[:3], note, ROW[4])


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.j2").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(name="templates")
def templates_folder(tmp_path: Path) -> Path:
    """An empty folder for template files."""
    folder = tmp_path / "templates"
    folder.mkdir()
    return folder
