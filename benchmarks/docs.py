"""docs/performance.md and its drawings, written from the results of the last full run: `python -m benchmarks docs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.figures import Part, Table, number
from benchmarks.reasons import REASONS
from benchmarks.serving import ROOT
from benchmarks.store import RESULTS, cells, load

ORDER = ("fanout", "pace", "planning", "results", "everyday", "growth", "postgres")
HEAD = """# Performance

<!-- Written by `python -m benchmarks docs` from benchmarks/results/; change it there. -->

Every figure here was measured by `make bench` and stands beside a peer or a limit that was measured in the same run, one after
the other in several rounds. A figure is the median of the rounds; in brackets are the least and the greatest. The machine is
shared, so what counts are the ratios and the processor time a message, not the absolute rates.
[benchmarks/README.md](../benchmarks/README.md) says how each figure is taken; `make bench` takes them again.
"""


def write_docs(folder: Path = ROOT / "docs", results: Path = RESULTS) -> None:
    """The page and a drawing for each series. Drawings that no series has any more are removed."""
    files = render(load(results))
    for path in folder.glob("performance*"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def render(parts: Sequence[Part]) -> dict[str, str]:
    """File name -> content."""
    ordered = sorted(parts, key=lambda part: ORDER.index(part.name))
    files = {f"performance-{series.name}.svg": draw(series) for part in ordered for series in part.series}
    sections = [HEAD, *([_summary(ordered)] if ordered else ["Nothing has been measured yet.\n"])]
    for part in ordered:
        sections += [_section(part), *([REASONS[part.name](part)] if part.name in REASONS else [])]
    files["performance.md"] = "\n".join(sections)
    return files


def _summary(parts: Sequence[Part]) -> str:
    lines = ["## What was to be reached", "", "| | reached | wanted | |", "|---|---:|---:|---|"]
    for part in parts:
        for target in part.targets:
            mark = "yes" if target.met else "**no**"
            lines.append(f"| {target.what} | {target.measure.text()} | {target.rule} {number(target.limit)} | {mark} |")
    return "\n".join([*lines, ""])


def _section(part: Part) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in part.machine.items())
    rounds = f"{part.rounds} rounds" if part.rounds > 1 else "one round"
    lines = [f"## {part.title}", "", f"`{part.command}`, {rounds}; {machine}.", ""]
    for table in part.tables:
        lines += [f"### {table.title}", "", *_markdown(table), "", *([table.note, ""] if table.note else [])]
    for series in part.series:
        lines += [f"![{series.title}](performance-{series.name}.svg)", ""]
    for note in part.notes:
        lines += [note, ""]
    return "\n".join(lines)


def _markdown(table: Table) -> list[str]:
    head, *rows = cells(table)
    rule = "|---|" + "---:|" * (len(head) - 1)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]
