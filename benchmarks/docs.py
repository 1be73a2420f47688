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

What a bare loop does cannot be the mark for a sender that may be killed at any moment. The row "tuned, and the least durable
ledger" is the least that the promise costs: the same tuned loop, and a table of three columns in SQLite that has each message
before it leaves and again after its reply, with the ledger's journal, all who wait in one commit, all its rows in one
statement. No plan, gate, pace, hash, list of attempts, time limit, retry or progress. That floor is itself 0.75 of the bare
loop (0.62 and 0.87 in the other rounds), so 0.80 is beyond what two such notes a message leave on this machine; what makes the
difference is the syncs, for without them the same loop is nearly as fast as the bare one. With all that the floor leaves out
the runner is 0.84 as fast as it (0.91 and 0.35 in the other rounds), for its exchange costs less than half of that of aiohttp's
session. As aiohttp is mostly written it comes to 0.8 of the tuned loop, and no sender with a durable ledger is far above that;
the bare loop itself is 6 to 9.5 times as fast as the requests loop, the floor 5 to 7 times, so 8 times cannot be had.

Where the time goes, by the table of stages: a third into the ledger's thread (seven statements, and a commit of five syncs and
60 small writes, shared by 50 messages at most, for no more may be in doubt after a power cut); a quarter into sockets,
aiohttp's parser and uvloop; a quarter into the workers, whose every step is Python. With 10 in flight a commit is shared by 10,
and a kept connection rests 5 ms after each reply, so 2,000 messages a second are the most.

Tried, and kept: aiohttp's connections and parser without its session, which does for each request what none of ours needs (less
than half the processor time of an exchange); one timer for all time limits; a head that is made once for all requests that have
the same headers; all rows of a batch in one statement, as JSON (the driver lets go of the interpreter's lock for each row, and
waits for it: 89 ms for a batch beside a busy loop, 9 now); intents that come together wait 3 ms for one another (half the
commits and hand-overs between the threads); claims that go with the batch that there is anyway (a twentieth, for a commit of
their own parted those whose replies came together); a free turn without a lock; a garbage collector that leaves what was there
before alone; replies' words cleaned once. And for phone numbers in no order, as here: an index over them that no change of
status rewrites (26 KB written a message before, 3 now).

Tried without a gain: a journal that is kept instead of deleted, larger pages in the ledger's file, a protocol of our own on
aiohttp's parser (3 microseconds). Refused: WAL (a corruption race in the SQLite libraries that come with Python; the floor with
it made 0.96 and 1.18 times as many messages, medians of four rounds with and without the 3 ms); fewer syncs; intents further
ahead than the requests in flight, even with notes in a file that outlives the process and tells which of them left (built, and
faster; but the ledger alone no longer says what may have been sent, and after a power cut all of them are unknown); a parser
that stays from one reply to the next (a late second reply could be taken for the next one's); a second sending process beside
the one that has the ledger (one more place where a message can be lost, for rates that no WhatsApp number may have).

A connection is used once unless the campaign file says `keep_connections`, for a kept one can make an unknown of a message
([safety.md](safety.md#never-twice-nothing-lost)): over TLS the handshakes are most of the time. A WhatsApp number is limited
far below any of these figures.
"""
WHY_PACE = """### What keeps a limit from being used up

In an exact sliding window lateness is never made up for: a request that leaves 20 ms late keeps the one in its place a window
later waiting for as long, for ever after. So a slot is handed out as much earlier as its commit usually takes at most (mean and
twice the mean deviation), the ledger's thread must not wait for the event loop row by row, and a reply's moment is when its
first bytes came, not when somebody read it; and no commit is written for claims alone. (Together with a cheaper exchange that
brought 1,000/s from 0.993 to 0.997, 3,000/s from 0.676 to 0.979; 0.984 to 0.992 in quiet minutes.) What is left is
1 ms by which each window is longer than the limit's; the replies that take longer than the fastest one so far, for their
requests may have arrived late, so the next ones in their places wait as much longer (without that correction 27 windows held up
to 1,015 of 1,000); and what holds the machine up. At 3,000/s one process is at work for most of the time, and a disk that takes
50 ms for a commit, or a host that takes the processor away, is seen at once; more requests in flight make it worse (larger
batches: 0.87 to 0.92 with 450 and 600). Refused: to compare with the fastest reply of late instead of the fastest ever, for a
way that becomes quicker again would then let one too many through.

Where windows held too many the provider was most likely held up itself. It counts late what it reads late; all that a sender
sees of that is a late reply, of which 20 ms are taken for the way (more where that is four times the usual), for a provider
whose replies take now a tenth of a second and now a whole one would otherwise have its limit used by half. (Not proved: nobody
measured what the host took meanwhile. In the round of 1,000/s with 1,037 in a window 0.79 of the limit was used, in that with
81 of 80 it was 0.93, where 0.99 is usual; the other 28 rounds had none.)
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
