"""Results as a table on the terminal and as JSON in a folder."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Measure, Part, Table
from benchmarks.serving import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def save(part: Part, folder: Path) -> Path:
    """FOLDER/PART.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.name}.json"
    path.write_text(part.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return path


def load(folder: Path) -> list[Part]:
    """All parts that have been saved there, by name."""
    return [Part.model_validate_json(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def show(part: Part) -> str:
    """For a terminal."""
    machine = ", ".join(f"{name} {value}" for name, value in part.machine.items())
    head = f"{part.title}{' (quick)' if part.quick else ''}: medians of {part.rounds} rounds (least to greatest)"
    lines = ["", head, machine]
    for table in part.tables:
        lines += ["", table.title, *_columns(table), *([table.note] if table.note else [])]
    lines += ["", *part.notes]
    for target in part.targets:
        verdict = "met" if target.met else "NOT met"
        lines.append(f"{verdict:>7}: {target.what}: {target.measure.text()}, {target.rule} {target.limit:g}")
    return "\n".join(lines)


def cells(table: Table) -> list[list[str]]:
    """A table as text, its heading first."""
    said = [[cell.text() if isinstance(cell, Measure) else cell for cell in row.cells] for row in table.rows]
    return [list(table.columns), *([row.label, *line] for row, line in zip(table.rows, said, strict=True))]


def _columns(table: Table) -> list[str]:
    rows = cells(table)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
