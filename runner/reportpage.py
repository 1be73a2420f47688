"""What the report page says: totals, attempts and samples, put into words and order. Pure data; `pages` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from runner.attemptstats import AttemptStats, Latency, Timeline
from runner.drawings import Chart, bar_svg, funnel_svg, timeline_svg
from runner.mending import mend
from runner.messagecards import CAPTION_LIMIT, Card, Deck, Picture, Thumbnail
from runner.model import Status
from runner.outsidetext import outside
from runner.previewpage import words
from runner.reportrows import UNKNOWN_SHOWN, Picked
from runner.resultset import ResultRow
from runner.resultsummary import MEANINGS
from runner.totals import Group, Summary
from runner.units import duration_text

GROUPS_SHOWN = 40
CODES_SHOWN = 20
_STILL = (Status.PENDING, Status.CLAIMED, Status.IN_FLIGHT, Status.RETRY_WAIT)


@dataclass(frozen=True, slots=True)
class ReportData:
    """A campaign's results, ready to be shown. `groups` are the tally's, `stats` come from `attemptstats.measure`."""

    summary: Summary
    groups: Sequence[Group]
    stats: AttemptStats
    picked: Picked
    thumbnails: Mapping[str, Thumbnail] = field(default_factory=dict)  # image URL -> small copy
    caption_limit: int = CAPTION_LIMIT


@dataclass(frozen=True, slots=True)
class Fall:
    """Rows that did not go on from one step of the funnel to the next."""

    status: str
    name: Markup
    rows: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the funnel."""

    name: str
    meaning: str
    rows: int
    share: float
    drawing: Markup
    falls: tuple[Fall, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """One status of the totals."""

    status: str
    meaning: str
    rows: int
    bar: Markup


@dataclass(frozen=True, slots=True)
class Reason:
    """Rows with the same status and reason."""

    status: str
    reason: Markup
    rows: int
    examples: str
    words: tuple[Markup, ...]


@dataclass(frozen=True, slots=True)
class Mending:
    """Reasons that are mended in the same way."""

    how: Markup
    rows: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, and the fullest window there was."""

    rate: str
    most: int
    allowed: int
    within: bool
    noted: int
    at: int


@dataclass(frozen=True, slots=True)
class UnknownLine:
    """One row of which nobody knows whether it was sent."""

    row: int | None
    phone: Markup
    at: int | None
    reason: Markup


@dataclass(frozen=True, slots=True)
class Moment:
    """A bucket of the timeline, in figures."""

    at: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportView:
    """The page, in the order it is read."""

    campaign: Markup
    provider: Markup
    command_name: Markup
    sandbox: bool
    generated_at: int
    headline: str
    notes: tuple[Markup, ...]
    totals: tuple[Total, ...]
    everyone: int
    input_rows: int
    gone_rows: int
    disagreements: tuple[Markup, ...]
    deliveries: tuple[tuple[Markup, int, Markup], ...]
    steps: tuple[Step, ...]
    chart: Chart | None
    timeline: Timeline
    bucket: str
    moments: tuple[Moment, ...]
    legend: tuple[tuple[str, int], ...]
    pauses: tuple[str, ...]
    stats: AttemptStats
    sending_time: str
    latency: Latency | None
    limits: tuple[Limit, ...]
    codes: tuple[tuple[str, Markup, int, Markup], ...]
    more_codes: int
    mendings: tuple[Mending, ...]
    unknown: tuple[UnknownLine, ...]
    unknown_total: int
    samples: tuple[Card, ...]
    samples_left_out: int
    pictures: Sequence[Picture]


def report_view(data: ReportData) -> ReportView:
    """Everything the template needs."""
    summary, stats = data.summary, data.stats
    everyone = sum(summary.totals.values())
    deck = Deck(data.thumbnails, data.caption_limit)
    samples = [card for row in data.picked.samples if (card := _card(row, deck)) is not None]
    bucket = duration_text(stats.timeline.width)
    return ReportView(
        campaign=outside(summary.campaign),
        provider=outside(summary.provider),
        command_name=outside(summary.campaign + (" --sandbox" if summary.sandbox else "")),
        sandbox=summary.sandbox,
        generated_at=summary.generated_at,
        headline=headline(summary),
        notes=tuple(outside(note, 1000) for note in summary.run_notes),
        totals=tuple(
            Total(status, MEANINGS.get(status, ""), n, bar_svg(n / everyone if everyone else 0))
            for status, n in sorted(summary.totals.items(), key=lambda item: _rank(item[0]))
        ),
        everyone=everyone,
        input_rows=summary.input_rows,
        gone_rows=summary.gone_rows,
        disagreements=tuple(outside(words, 500) for words in summary.disagreements),
        deliveries=tuple(
            (outside(word), n, bar_svg(n / max(summary.totals.get(Status.ACCEPTED, 0), n, 1)))
            for word, n in summary.deliveries.items()
        ),
        steps=tuple(_funnel(summary, data.picked.tried)),
        chart=timeline_svg(stats.timeline, _timeline_words(stats, bucket)) if stats.attempts else None,
        timeline=stats.timeline,
        bucket=bucket,
        moments=tuple(_moments(stats.timeline)),
        legend=tuple(_legend(stats)),
        pauses=tuple(_pauses(stats.timeline)),
        stats=stats,
        sending_time=duration_text(stats.sending_seconds),
        latency=stats.latency,
        limits=tuple(
            Limit(str(peak.rate), peak.proven, peak.rate.count, peak.within, peak.noted, peak.at)
            for peak in stats.windows
        ),
        codes=tuple(
            (codes.verdict, outside(codes.code, 60), codes.attempts, bar_svg(codes.attempts / stats.attempts))
            for codes in stats.codes[:CODES_SHOWN]
        ),
        more_codes=max(0, len(stats.codes) - CODES_SHOWN),
        mendings=tuple(_mendings(summary, data.groups)),
        unknown=tuple(_unknown(row) for row in data.picked.unknown[:UNKNOWN_SHOWN]),
        unknown_total=summary.totals.get(Status.UNKNOWN, 0),
        samples=tuple(samples),
        samples_left_out=deck.left_out,
        pictures=deck.pictures,
    )


def headline(summary: Summary) -> str:
    """The page in plain words: who has the message, who has not, what is in doubt."""
    totals = summary.totals
    everyone = sum(totals.values())
    if not everyone:
        return "The file holds no rows: nobody was written to."
    accepted = totals.get(Status.ACCEPTED, 0)
    who = "The stand-in provider" if summary.sandbox else summary.provider
    text = f"{who} has taken the message for {accepted:,} of {everyone:,} {_people(everyone)}."
    parts = []
    if n := totals.get(Status.UNKNOWN, 0):
        parts.append(f"{n:,} {_are(n)} unknown (it may or may not have been sent)")
    if n := totals.get(Status.REJECTED, 0):
        parts.append(f"{n:,} {_were(n)} rejected")
    if n := totals.get(Status.NOT_SENT, 0):
        parts.append(f"{n:,} {_were(n)} not sent")
    if n := sum(totals.get(status, 0) for status in _STILL):
        parts.append(f"{n:,} {_are(n)} still to come")
    if n := totals.get(Status.SKIPPED, 0):
        parts.append(f"{n:,} {_were(n)} left out before sending")
    if not parts:
        return text
    return f"{text} {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}."


def latency_text(microseconds: int) -> str:
    """`84 ms`, `1.25 s`, `31 s`, `2 min 5 s`."""
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.0f} ms" if microseconds >= 1000 else "under 1 ms"
    seconds = microseconds / 1e6
    return f"{seconds:.3g} s" if seconds < 60 else duration_text(seconds)


def _people(n: int) -> str:
    return "person" if n == 1 else "people"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


_ORDER = (
    Status.ACCEPTED, Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN, Status.SKIPPED, Status.PENDING, Status.CLAIMED,
    Status.IN_FLIGHT, Status.RETRY_WAIT,
)  # fmt: skip


def _rank(status: str) -> int:
    return _ORDER.index(Status(status)) if status in _ORDER else len(_ORDER)


def _card(row: ResultRow, deck: Deck) -> Card | None:
    return deck.card(
        row=row.row,
        phone=row.phone,
        image=row.image,
        caption=row.caption,
        status=row.status,
        why="" if row.status == Status.ACCEPTED else row.why,
        at=row.last_attempt_at,
    )


def _funnel(summary: Summary, tried: Mapping[str, int]) -> list[Step]:
    """Input rows -> planned -> attempted -> accepted, and what fell out between them."""
    totals = summary.totals
    everyone = sum(totals.values())
    skipped, accepted = totals.get(Status.SKIPPED, 0), totals.get(Status.ACCEPTED, 0)
    sending = {status: n for status, n in totals.items() if status not in {Status.SKIPPED, Status.ACCEPTED}}
    attempted = {status: min(n, tried.get(status, 0)) for status, n in sending.items()}
    waiting = {status: n - attempted[status] for status, n in sending.items()}
    counts = (everyone, everyone - skipped, accepted + sum(attempted.values()), accepted)
    reasons = sorted(summary.reasons.get(Status.SKIPPED, {}).items(), key=lambda item: (-item[1], item[0]))
    named = sum(n for _, n in reasons)
    left_out = [Fall(Status.SKIPPED, outside(f"skipped: {words(reason)}", 80), n) for reason, n in reasons]
    if skipped > named:
        left_out.append(Fall(Status.SKIPPED, Markup("skipped"), skipped - named))
    falls = (
        tuple(left_out),
        tuple(Fall(status, outside(f"{words(status)}, never tried"), n) for status, n in _falling(waiting)),
        tuple(Fall(status, outside(words(status)), n) for status, n in _falling(attempted)),
        (),
    )
    names = (
        ("In the file", "rows of the audience"),
        ("Planned", "rows with a message to send"),
        ("Attempted", "rows that a request was made for"),
        ("Accepted", "the provider took the message"),
    )
    steps = []
    for place, (name, meaning) in enumerate(names):
        share = counts[place] / everyone if everyone else 0.0
        following = counts[min(place + 1, 3)] / everyone if everyone else 0.0
        steps.append(Step(name, meaning, counts[place], share, funnel_svg(share, following), falls[place]))
    return steps


def _falling(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(status, n) for status, n in sorted(counts.items(), key=lambda item: _rank(item[0])) if n]


def _mendings(summary: Summary, groups: Sequence[Group]) -> list[Mending]:
    """Every reason of the summary and every group of the tally once, those with the most rows first."""
    known = {(group.status, group.reason): group for group in groups}
    rows = {key: group.rows for key, group in known.items()}
    for status, reasons in summary.reasons.items():
        if status != Status.ACCEPTED:
            rows |= {(status, reason): n for reason, n in reasons.items()}
    by_mend: dict[str, list[Reason]] = {}
    for (status, reason), n in sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:GROUPS_SHOWN]:
        group = known.get((status, reason))
        examples = ", ".join(map(str, group.examples)) if group is not None else ""
        if group is not None and group.examples and n > len(group.examples):
            examples += " …"
        said = tuple(outside(each, 200) for each in group.words) if group is not None else ()
        by_mend.setdefault(mend(reason), []).append(Reason(status, outside(words(reason), 80), n, examples, said))
    found = [
        Mending(outside(how), sum(each.rows for each in reasons), tuple(reasons)) for how, reasons in by_mend.items()
    ]
    # What nobody needs to do anything about comes last, however many rows it has.
    return sorted(found, key=lambda each: (each.how.striptags().startswith("Nothing to do"), -each.rows))


def _unknown(row: ResultRow) -> UnknownLine:
    phone = f"+{row.phone}" if row.phone.isdigit() else row.phone
    why = ": ".join(part for part in (words(row.reason), row.detail) if part)
    return UnknownLine(row.row, outside(phone, 40), row.last_attempt_at, outside(why, 200))


def _legend(stats: AttemptStats) -> list[tuple[str, int]]:
    order = (Status.ACCEPTED, Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN)
    shown = [(str(status), stats.verdicts[status]) for status in order if stats.verdicts.get(status)]
    others = stats.attempts - sum(n for _, n in shown)
    return [*shown, ("waiting", others)] if others else shown


def _timeline_words(stats: AttemptStats, bucket: str) -> str:
    busiest = max((sum(counts) for session in stats.timeline.sessions for counts in session.buckets), default=0)
    limit = f"; the limit lets {stats.timeline.allowed:,} through" if stats.timeline.allowed is not None else ""
    return f"Attempts over time, by outcome: {stats.attempts:,} in all, at most {busiest:,} in {bucket}{limit}."


def _moments(timeline: Timeline) -> list[Moment]:
    return [
        Moment(session.started_at + place * timeline.width * 1_000_000, counts)
        for session in timeline.sessions
        for place, counts in enumerate(session.buckets)
        if any(counts)
    ]


def _pauses(timeline: Timeline) -> list[str]:
    found = []
    for before, after in zip(timeline.sessions, timeline.sessions[1:], strict=False):
        end = before.started_at + len(before.buckets) * timeline.width * 1_000_000
        found.append(duration_text((after.started_at - end) / 1e6))
    return found
