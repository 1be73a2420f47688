"""What a row gets: the caption and its length, whether it is in, and that no cell whatever raises."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rendering import IMAGE, ROW, caption, fault, further, of_note, problems, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture

from runner.captions import Rendered, RenderFault
from runner.model import SkipReason


def test_campaign_variables_stand_by_their_name_and_under_vars() -> None:
    assert (
        caption("{{ shop }} {{ vars.shop }} {{ vars.rate }}", variables={"shop": "Ege", "rate": 9.5}) == "Ege Ege 9.5"
    )


def test_outer_space_goes_and_line_ends_are_made_one_kind() -> None:
    assert caption("\n  {{ note }}  \n", of_note(" a\r\nb\tc ")) == "a\nb\tc"


def test_the_limit_counts_characters_and_the_fault_gives_the_length() -> None:
    made = renderer("{{ note }}")
    assert isinstance(made.render(of_note("😀" * 1024)), Rendered)
    assert made.render(of_note("x" * 1025)) == RenderFault(
        SkipReason.CAPTION_TOO_LONG, "the caption has 1,025 characters; at most 1,024"
    )


def test_a_very_long_cell_may_be_cut_to_fit() -> None:
    assert len(caption("{{ note|truncate(100) }}", of_note("word " * 20_000))) <= 100
    made = renderer("{{ note }}").render(of_note("x" * 200_000))
    assert isinstance(made, RenderFault)
    assert made.reason is SkipReason.CAPTION_TOO_LONG


def test_without_a_caption_it_is_empty() -> None:
    assert renderer().render(ROW) == Rendered(IMAGE, "")


def test_a_caption_and_a_template_together_are_refused(templates: Path) -> None:
    write(templates, spring="x")
    assert "spring.yaml:15: there is both a template and a caption" in problems(
        "x", template="spring.j2", templates=templates
    )


def test_a_value_that_a_filter_cannot_read_is_a_fault_naming_both() -> None:
    assert "filter 'date' cannot read 'soon'" in fault("{{ note|date }}", of_note("soon"))
    assert "filter 'int' cannot read 'many'" in fault("{{ note|int }}", of_note("many"))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ('city == "İzmir" and age', True),
        ('city == "İzmir" and note', False),
        ("age|int >= 18", True),
        ("note|int >= 18", False),
        ('note == ""', True),
        ("note", False),
        ('row["First Name"] in ["Ayşe", "Can"]', True),
        ("vip and age|int > limit", True),
        ("none", False),
        ("[]", False),
    ],
)
def test_where_decides_whether_a_row_is_in(where: str, kept: bool) -> None:
    assert renderer(where=where, variables={"vip": True, "limit": 20}).keeps(ROW) is kept


def test_without_where_every_row_is_in() -> None:
    assert renderer().keeps(ROW) is True


def test_a_row_on_which_where_fails_is_a_fault() -> None:
    kept = renderer(where="1 / (age|int - 34)").keeps(ROW)
    assert isinstance(kept, RenderFault)
    assert kept.detail == "spring.yaml:9: ZeroDivisionError: division by zero"


def test_further_templates_are_rendered_by_name() -> None:
    made = renderer(extra={"scheduled_time": " {{ note|date('yyyy-MM-dd', input='d.m.Y') }} "})
    assert further(made, "scheduled_time", of_note("14.03.2026")) == "2026-03-14"
    assert isinstance(further(made, "scheduled_time", ROW), RenderFault)
    assert isinstance(further(made, "scheduled_time", of_note("soon")), RenderFault)


def test_a_row_of_another_width_is_a_fault() -> None:
    assert fault("x", ("a", "b")) == "the row has 2 cells for 5 columns"


EVERY_FILTER = renderer(
    "{{ First_Name|name('tr')|default('x') }} {{ city|upper|truncate(9) }} {{ note|default('-')|replace('a', city) }}"
    "{% if age|length > 3 %}{{ age|phone_last(3) }}{% endif %}{{ [city, note]|select|join(', ') }}{{ '%s'|format(age) }}",
    image="https://cdn.example.com/{{ image_url|urlencode }}",
    where="city in note or age|int(0) > 3",
    extra={
        "time": "{{ note|date }}",
        "sum": "{{ age|number(2) }} {{ age|money('TRY', 'tr') }} {{ age|plural('a', 'b') }}",
    },
)


CELL = st.one_of(
    st.text(st.characters(), max_size=40),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs"]), max_size=5),
    st.sampled_from(["", " ", "nan", "{{ 7*7 }}", "1.234,5", "2026-03-14", "905320001122", "12", "x" * 2000]),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.tuples(CELL, CELL, CELL, CELL, CELL))
def test_no_row_of_text_whatever_raises_out_of_the_renderer(row: tuple[str, ...]) -> None:
    rendered = EVERY_FILTER.render(row)
    assert isinstance(rendered, Rendered | RenderFault)
    if isinstance(rendered, Rendered):
        assert len(rendered.caption) <= 1024
        assert not {"{{", "{%"} & {rendered.caption[i : i + 2] for i in range(len(rendered.caption))}
        assert rendered.image.startswith("https://cdn.example.com/")
        (rendered.caption + rendered.image).encode()
    else:
        rendered.detail.encode()
        assert rendered.detail.isprintable()
    assert isinstance(EVERY_FILTER.keeps(row), bool | RenderFault)
    for name in ("time", "sum"):
        assert isinstance(further(EVERY_FILTER, name, row), str | RenderFault)


def in_a_child(rows: list[tuple[str, ...]]) -> list[Rendered | RenderFault]:
    made = renderer("Hi {{ First_Name|name('tr') }}")
    return [made.render(row) for row in rows]


def test_a_child_process_renders_the_same() -> None:
    rows: list[tuple[str, ...]] = [("AYŞE ILGAZ", *ROW[1:]), ("", *ROW[1:])]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(in_a_child, rows).result() == in_a_child(rows)


def test_importing_it_is_light() -> None:
    code = "import sys, runner.captions; print(sorted({'pandas', 'aiohttp', 'babel', 'sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = renderer("{{ city|upper }}")

    def exhausted(*_args: object) -> str:
        raise MemoryError

    monkeypatch.setattr(made._caption, "run", exhausted)
    with pytest.raises(MemoryError):
        made.render(ROW)
