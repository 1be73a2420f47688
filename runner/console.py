"""What the commands say on a terminal: plain aligned text, made from plans, views and reports. No decisions."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from runner.ink import bad, doubtful, good, heading, of_status, outside
from runner.mending import mend
from runner.model import SkipReason, Status
from runner.moments import iso_text
from runner.units import duration_text

if TYPE_CHECKING:  # the words alone are quick to load; a broken file is to be refused at once
    from runner.ledger.base import Recovered, Sample, StatusView
    from runner.plan import Plan
    from runner.preflight import ImageReport
    from runner.reconcile import Reconciled
    from runner.run import SendReport

WIDTH = 80
SHOWN = 20  # rows named one by one before the rest is counted


def near(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def words(status: Status | str) -> str:
    """`not sent` for not_sent."""
    return str(status).replace("_", " ")


def table(
    rows: Iterable[Sequence[str]], indent: str = "  ", inks: Sequence[Callable[[str], str] | None] = ()
) -> Iterator[str]:
    """Columns as wide as their longest cell; numbers to the right. `inks` colour the first cell of each row."""
    cells = [list(row) for row in rows]
    if not cells:
        return
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row, ink in zip_longest(cells, inks[: len(cells)]):
        parts = [
            cell.rjust(width) if cell.replace(",", "").isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        line = (indent + "  ".join(parts)).rstrip()
        word = row[0].rstrip()
        yield line if ink is None or not word else line.replace(word, ink(word), 1)


def plan_lines(plan: Plan, now: float | None = None) -> Iterator[str]:
    """What `campaign plan` prints."""
    now = time.time() if now is None else now
    difference = plan.difference
    practice = doubtful(" (sandbox: nobody receives anything)") if plan.sandbox else ""
    yield f"Campaign {heading(plan.campaign)} through {plan.provider}{practice}"
    yield f"Audience {plan.audience}"
    yield ""
    rows = [("to send", f"{difference.to_send:,}", "")]
    inks: list[Callable[[str], str] | None] = [heading]
    if difference.resent:
        rows.append(("  of these tried before", f"{difference.resent:,}", "certainly not sent then"))
        inks.append(None)
    for status, n in sorted(difference.settled.items()):
        note = (
            f"{difference.changed:,} would now get something else"
            if status is Status.ACCEPTED and difference.changed
            else ""
        )
        rows.append((f"already {words(status)}", f"{n:,}", note))
        inks.append(partial(of_status, status))
    for reason, n in difference.skipped.items():
        rows.append((f"skipped: {words(reason)}", f"{n:,}", ""))
    rows.append(("rows in the file", f"{difference.rows:,}", ""))
    inks += [None] * (len(rows) - len(inks) - 1)
    yield from table(rows, inks=[*inks, heading])
    if difference.gone:
        yield "  no longer in the file: " + ", ".join(f"{n:,} {words(s)}" for s, n in sorted(difference.gone.items()))
    if difference.countries:
        yield ""
        shown = list(difference.countries.items())[:8]
        more = len(difference.countries) - len(shown)
        named = ", ".join(f"{country or '?'} {n:,}" for country, n in shown)
        yield from wrapped("Countries", named + (f", {more} more" if more > 0 else ""))
    else:
        yield ""
    yield from wrapped("Pace", plan.pace_text())
    if difference.to_send:
        yield from wrapped("Finished", f"{plan.finish_text(now)} at the earliest")
    yield from wrapped("Plan", plan.hash)
    for warning in plan.warnings(now):
        yield from wrapped("Note", warning, doubtful)


def wrapped(label: str, text: str, ink: Callable[[str], str] | None = None) -> Iterator[str]:
    """A labelled sentence, folded so that it can be read at 80 columns."""
    first, *rest = textwrap.wrap(
        text, WIDTH, initial_indent=label.ljust(11), subsequent_indent=" " * 11, break_on_hyphens=False
    ) or [label]
    yield ink(label) + first[len(label) :] if ink is not None else first
    yield from rest


def folded(text: str, ink: Callable[[str], str] | None = None) -> Iterator[str]:
    """A sentence at the left edge, folded at 80 columns."""
    for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False):
        yield ink(line) if ink is not None else line


def question(plan: Plan) -> str:
    """What is asked before sending."""
    n = plan.difference.to_send
    people = "1 message" if n == 1 else f"{n:,} messages"
    where = "the sandbox" if plan.sandbox else plan.provider
    return f"Send {people} through {where} ({plan.pace_text()})?"


def recovered_lines(recovered: Recovered) -> Iterator[str]:
    """What was found of a run that died."""
    if recovered.unknown:
        yield from folded(
            f"An earlier run ended without a word: {recovered.unknown:,} messages were on the way and are unknown now "
            "(they may have been sent, and are not sent again).",
            doubtful,
        )


def check_lines(plan: Plan, skipped: Iterable[Sample], phone_column: str, *, everything: bool) -> Iterator[str]:
    """What `campaign check` prints: the plan, the columns, the images, and every row that cannot be sent."""
    yield from plan_lines(plan)
    yield from wrapped(
        "Columns", "used: " + ", ".join(plan.used) + (f"; unused: {', '.join(plan.unused)}" if plan.unused else "")
    )
    if plan.images is not None:
        yield from image_lines(plan.images)
    yield ""
    left_out = {SkipReason.FILTERED.value, SkipReason.SUPPRESSED.value}
    unusable = sum(n for reason, n in plan.difference.skipped.items() if reason not in left_out)
    if not unusable:
        yield good("No problems found.")
        return
    yield bad("1 row cannot be sent:" if unusable == 1 else f"{unusable:,} rows cannot be sent:")
    yield from skipped_lines(skipped, unusable, phone_column, everything=everything)


def image_lines(report: ImageReport) -> Iterator[str]:
    """What checking the images found, per address."""
    good = report.checked - report.unusable_count - report.doubtful_count
    found = f"{good:,} good, {report.unusable_count:,} cannot be used, {report.doubtful_count:,} doubtful"
    yield from wrapped("Images", f"{report.checked:,} checked: {found}")
    for verdict in report.unusable[:SHOWN]:
        yield from _folded(f"{verdict.url}: {verdict.reason}: {verdict.detail}")
    for verdict in report.doubtful[:SHOWN]:
        why = "; ".join(verdict.warnings) if verdict.ok else f"{verdict.reason}: {verdict.detail}"
        yield from _folded(f"{verdict.url}: doubtful: {why}")


def _folded(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        outside(text), WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )


def skipped_lines(samples: Iterable[Sample], total: int, phone_column: str, *, everything: bool) -> Iterator[str]:
    """The rows that are skipped: row, column, value, rule, fix."""
    shown = 0
    hints: dict[str, str] = {}
    for sample in samples:
        if sample.reason in {SkipReason.FILTERED, SkipReason.SUPPRESSED}:
            continue
        if not everything and shown >= SHOWN:
            break
        shown += 1
        hints.setdefault(sample.reason, mend(sample.reason))
        why = f"{sample.reason}: {sample.detail}" if sample.detail else sample.reason
        about_phone = sample.reason in {SkipReason.INVALID_PHONE, SkipReason.WRONG_COUNTRY}
        place = (
            f'row {sample.row}, column "{phone_column}"' if about_phone else f"row {sample.row} ({sample.raw_phone})"
        )
        yield from _folded(f"{place}: {why}")
    if not everything and total > shown:
        yield f"  ... and {total - shown:,} more (--all shows them)"
    if hints:
        yield ""
        yield heading("How to mend them:")
    for reason, hint in hints.items():
        yield from _folded(f"{reason}: {hint}")


def sample_lines(samples: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    """Messages as they will look, each once, under every title that fits. A label not known here is a template's branch."""
    known = {"first": "", "longest": "the longest", "shortest": "the shortest", "unusual": "unusual characters"}
    shown: dict[int, Sample] = {}
    titles: dict[int, list[str]] = {}
    for kind in (*known, *(label for label in samples if label not in known)):
        for sample in samples.get(kind, ()):
            shown.setdefault(sample.row, sample)
            titles.setdefault(sample.row, []).append(known.get(kind, kind))
    for row, sample in shown.items():
        said = "; ".join(dict.fromkeys(title for title in titles[row] if title))
        yield ""
        about = (f" ({said})" if said else "") + f", {len(sample.caption)} characters"
        yield heading(f"row {row}") + f" to {sample.phone}{about}"
        yield f"  [{outside(sample.image)}]"
        for line in sample.caption.splitlines() or [""]:
            yield f"  {outside(line)}"


def send_lines(report: SendReport, again: str) -> Iterator[str]:
    """What `campaign send` says at the end; `again` is the command that goes on."""
    counts = report.counts
    if report.ending.word == "nothing":
        yield "Nothing to send: everybody in the file is settled."
    else:
        sent = f"{report.attempted:,} messages in {duration_text(report.elapsed)}"
        yield from folded(sent + (f": {outside(report.ending.why)}" if report.ending.why else ""), heading)
    yield from count_lines(counts.by_status)
    if report.written is not None:
        for name in sorted(report.written.paths):
            yield f"  {near(report.written.paths[name])}"
        for disagreement in report.written.totals.disagreements:
            yield from folded(f"The totals do not reconcile: {disagreement}", bad)
    waiting = counts[Status.PENDING] + counts[Status.RETRY_WAIT] + counts[Status.CLAIMED]
    if waiting:
        line = f"{waiting:,} are still to be sent. Go on with: {again}"
        yield from [line] if len(line) <= WIDTH else [line.removesuffix(again).rstrip(), f"  {again}"]
    if counts[Status.UNKNOWN]:
        unknown = f"{counts[Status.UNKNOWN]:,} are unknown: they may or may not have been sent"
        yield from folded(f"{unknown}, and are not sent again by themselves.", doubtful)
    if report.ending.error is not None:
        yield str(report.ending.error)


def reconcile_lines(found: Reconciled, campaign: str) -> Iterator[str]:
    """What `campaign reconcile` says."""
    yield f"{found.asked:,} questions asked, {found.proved:,} rows proved to be accepted, {len(found.open_rows):,} still unknown"
    if found.unanswered:
        yield f"{found.unanswered:,} questions had no usable answer: ask again later"
    if found.open_rows:
        yield "Still unknown (that the provider does not show a message is no proof that it was not sent):"
        yield from table(
            (f"row {row.row}" if row.row is not None else "gone", row.phone, iso_text(row.last_attempt_at), row.reason)
            for row in found.open_rows[:SHOWN]
        )
        if len(found.open_rows) > SHOWN:
            yield f"  ... and {len(found.open_rows) - SHOWN:,} more, see results.csv"
        yield f"To send them again after all: campaign retry {campaign} --unknown"


def count_lines(counts: Mapping[Status, int]) -> Iterator[str]:
    """Rows by status."""
    shown = [status for status in Status if counts.get(status)]
    rows = [(words(status), f"{counts[status]:,}") for status in shown]
    rows.append(("rows", f"{sum(counts.values()):,}"))
    yield from table(rows, inks=[*(partial(of_status, status) for status in shown), heading])


def status_lines(view: StatusView, now_us: int, *, sandbox: bool) -> Iterator[str]:
    """What `campaign status NAME` prints."""
    campaign = view.campaign
    run = view.last_run
    yield f"Campaign {heading(campaign.name)} through {campaign.provider} ({campaign.state})"
    rate = campaign.settings.get("rate")
    yield from wrapped("Pace", " and ".join(map(str, rate)) if isinstance(rate, list) and rate else "no limit")
    yield from wrapped("Planned", iso_text(campaign.planned_at))
    if run is not None:
        state = (
            f"to {iso_text(run.finished_at)} ({run.ending})"
            if run.finished_at
            else "on: running, or ended without a word"
        )
        yield from wrapped("Last run", f"{iso_text(run.started_at)} {state}, by {run.owner}")
    yield ""
    yield from count_lines(view.counts.by_status)
    reasons = sorted(view.counts.by_reason.items())
    if reasons:
        yield ""
        yield from table(
            [(f"{words(status)}: {reason}", f"{n:,}") for (status, reason), n in reasons],
            inks=[partial(of_status, status) for (status, _), _ in reasons],
        )
    if view.oldest_in_flight:
        yield f"  oldest in flight: {duration_text((now_us - view.oldest_in_flight) / 1e6)}"
    if view.counts[Status.UNKNOWN]:
        yield ""
        yield doubtful(f"{view.counts[Status.UNKNOWN]:,} unknown") + ": see results.csv; to send them again after all:"
        yield f"  campaign retry {campaign.name} --unknown" + (" --sandbox" if sandbox else "")
