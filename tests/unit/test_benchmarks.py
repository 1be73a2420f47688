"""Every part of the benchmark suite runs at a tiny size and says what it found in a form that can be read again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import docs, everyday, fanout, growth, pace, planning, resultfiles, serving, store
from benchmarks.__main__ import PARTS
from benchmarks.figures import Measure, Part, Point, Row, Series, Table, Target
from benchmarks.windows import SECOND, Limit, ideal_seconds, room_ms, share_used, windows_over, worst_window

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory and processor time are read from the proc file system"),
    pytest.mark.xdist_group("benchmarks"),
]

PEOPLE = 100


def check(part: Part, folder: Path) -> None:
    """It can be saved and read again, shown, and put on the page; every cell has something to say."""
    assert Part.model_validate_json(store.save(part, folder).read_text(encoding="utf-8")) == part
    assert part.name in PARTS
    assert part.tables
    for table in part.tables:
        assert table.rows
        assert all(len(row.cells) == len(table.columns) - 1 for row in table.rows)
        assert all(cell.values for row in table.rows for cell in row.cells if isinstance(cell, Measure))
    assert part.title in store.show(part)
    assert part.title in docs.render([part])["performance.md"]


def test_the_fan_out_part_runs(tmp_path: Path) -> None:
    few = fanout.Sizes(product=PEOPLE, aiohttp=PEOPLE, requests=5, threads=PEOPLE, ceiling=PEOPLE)
    check(fanout.fanout(quick=True, rounds=1, sizes=few, whole=False), tmp_path)


def test_the_pace_part_runs(tmp_path: Path) -> None:
    cases = [pace.Case("50/s, a neighbour", (Limit(50, 1),), 10, neighbours=1)]
    check(pace.pace(quick=True, rounds=1, cases=cases), tmp_path)


def test_the_planning_part_runs(tmp_path: Path) -> None:
    check(planning.planning(quick=True, rounds=1, rows=PEOPLE, kinds=["xlsx"], whole=False), tmp_path)


def test_the_results_part_runs(tmp_path: Path) -> None:
    check(resultfiles.results(quick=True, rounds=1, sizes=(PEOPLE,), ways=["xlsx", "none"]), tmp_path)


def test_the_everyday_part_runs(tmp_path: Path) -> None:
    check(everyday.everyday(quick=True, rounds=1, rows=PEOPLE), tmp_path)


def test_the_growth_part_runs_and_draws(tmp_path: Path) -> None:
    part = growth.growth(quick=True, rounds=1, sizes=(20,))
    check(part, tmp_path)
    assert {f"performance-{series.name}.svg" for series in part.series} < set(docs.render([part]))


def test_the_fullest_window_is_half_open_and_slides() -> None:
    times = [0, SECOND // 2, SECOND, SECOND + 1, 3 * SECOND]
    assert worst_window(times, 1) == 3
    assert windows_over(times, Limit(2, 1)) == 1
    assert worst_window([0, SECOND], 1) == 1
    assert room_ms(times, [Limit(2, 1)]) == pytest.approx(-500.0, abs=0.001)
    assert room_ms(times, [Limit(9, 1)]) is None


def test_the_ideal_time_waits_for_the_longer_limit() -> None:
    assert ideal_seconds(11, [Limit(10, 1)]) == pytest.approx(1.0)
    assert ideal_seconds(21, [Limit(10, 1), Limit(20, 60)]) == pytest.approx(60.0)
    assert share_used([i * SECOND // 5 for i in range(11)], [Limit(10, 1)]) == pytest.approx(0.5)


def test_a_target_looks_at_the_median() -> None:
    measure = Measure(unit="s", values=(0.9, 1.0, 9.0))
    assert Target(what="it", rule="at most", limit=1.0, measure=measure).met
    assert not Target(what="it", rule="at least", limit=1.1, measure=measure).met


def test_the_page_has_targets_tables_and_drawings() -> None:
    measure = Measure(unit="µs", values=(1.0, 2.0, 4.0))
    part = Part(
        name="growth",
        title="Growth",
        quick=False,
        rounds=3,
        machine={"cores": "2"},
        tables=(Table(title="A <table>", columns=("", "cost"), rows=(Row(label="one", cells=(measure,)),)),),
        targets=(Target(what="cost", rule="at most", limit=1.0, measure=measure),),
        series=(
            Series(name="cost", title="Cost & more", x_label="rows", y_label="µs", points=(Point(x=10, y=measure),)),
        ),
    )
    files = docs.render([part])
    assert "`make bench`, 3 rounds" in files["performance.md"]
    assert set(files) == {"performance.md", "performance-cost.svg"}
    assert "| cost | 2.00 µs (1.000 to 4.00) | at most 1.000 | **no** |" in files["performance.md"]
    assert "| one | 2.00 µs (1.000 to 4.00) |" in files["performance.md"]
    assert "Cost &amp; more" in files["performance-cost.svg"]


def test_the_page_in_the_repository_is_written_from_the_results() -> None:
    for name, text in docs.render(store.load(store.RESULTS)).items():
        assert (serving.ROOT / "docs" / name).read_text(encoding="utf-8") == text, (
            f"{name}: run `python -m benchmarks docs`"
        )
