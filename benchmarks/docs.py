"""docs/performance.md and its drawings, written from the results of the last full run: `python -m benchmarks docs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.figures import Part, Table, number
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
WHY = """## Why the fan-out is where it is

aiohttp itself is the floor: half of the processor time of a message is its, as the table of stages shows, and a loop that does
nothing else takes as much. On top of it comes what a promise costs: a bound on the whole exchange and a hook right before the
bytes (what may have been sent is known), two durable commits a message in groups, the pace gate, the frozen message's hash, the
reading of the reply, and Python objects for each of these. The ledger's thread and the event loop share the interpreter's lock,
so on two cores they do not run side by side for long. To be 0.80 as fast as a bare loop, all of that would have to fit into a
quarter of a bare exchange's time; the ledger's statements alone take more than that. With few in flight a commit is shared
by as few, and waited for.

Tried, and kept: intents that come together wait 3 ms for one another (half the commits and hand-overs between the threads), a
payload of our own instead of aiohttp's trace hooks, statements past SQLAlchemy's row handling, larger claims and one parameter
instead of a place for each claimed id, a garbage collector that leaves what was there before alone, replies' words cleaned once.
Tried without a gain: a journal that is kept instead of deleted. Refused: WAL (a corruption race in the SQLite libraries that come
with Python), intents further ahead than the requests in flight (each would be an unknown row after a kill), fewer syncs, a
client of our own instead of aiohttp, a second sending process beside the one that has the ledger (one more place where a
message can be lost, for rates that no WhatsApp number may have).

A connection is used once unless the campaign file says `keep_connections`, for a kept one can make an unknown of a message
([safety.md](safety.md#never-twice-nothing-lost)): over TLS the handshakes are most of the time. A WhatsApp number is limited far
below any of these figures.
"""
WHY_PACE = """### Why 1,000/s and 3,000/s are not used up

A reply that takes longer than the fastest one so far may mean that its request arrived later than it was written, so the one that
takes its place a window later waits as much longer; and each window is 1 ms longer than the limit's. At 1,000/s these few
milliseconds a second, and what the machine holds up, are the loss, with 60 in flight as with 150. Tried: without that correction
27 windows held up to 1,015 of 1,000. Refused: to compare with the fastest reply of late instead of the fastest ever, for a way
that becomes quicker again would then let one too many through. 3,000/s is more than one process sends at all (see the fan-out);
a pause of the machine costs most where the time between two requests is shortest. In a run in which the host took 43 % of the time
away from both sides two windows of 80/s held 82, by the clock of a provider that was held up as well.
"""
REASONS = {"fanout": WHY, "pace": WHY_PACE}  # by the name of the part


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
        sections += [_section(part), *([REASONS[part.name]] if part.name in REASONS else [])]
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
