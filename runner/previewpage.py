"""What the preview page says: a plan and its samples, put into words and order. Pure data; `pages` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from babel import Locale
from markupsafe import Markup

from runner.drawings import bar_svg
from runner.ledger.base import Difference, Sample
from runner.mending import mend
from runner.messagecards import CAPTION_LIMIT, Card, Deck, Picture, Thumbnail
from runner.outsidetext import outside
from runner.resultsummary import MEANINGS

SKIPPED_SHOWN = 50
COUNTRIES_SHOWN = 12
CARDS_SHOWN = 60
_KNOWN_LABELS = {
    "longest": "the longest caption",
    "shortest": "the shortest caption",
    "unusual": "unusual characters",
}
_FIRST = "first"


@dataclass(frozen=True, slots=True)
class PreviewData:
    """A plan, ready to be shown.

    `samples`: label -> messages. `first` is the list of the first n; `longest`, `shortest` and `unusual` are known; any
    other label (a branch of the template) is shown as it is, before them. `skipped`: the first rows that are left out.
    """

    campaign: str
    provider: str
    sandbox: bool
    generated_at: int  # microseconds since the epoch, UTC
    plan_hash: str
    audience: str  # what was read, in words
    difference: Difference
    pace: str
    finish: str  # when sending would be finished, in words; '' when nothing is to be sent
    warnings: Sequence[str]
    samples: Mapping[str, Sequence[Sample]]
    skipped: Sequence[Sample]
    columns_used: Sequence[str] = ()
    columns_unused: Sequence[str] = ()
    thumbnails: Mapping[str, Thumbnail] = field(default_factory=dict)  # image URL -> small copy
    caption_limit: int = CAPTION_LIMIT


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table of totals."""

    status: str  # a word of `Status`, or 'to_send'
    name: Markup  # what it is called
    meaning: Markup
    rows: int
    bar: Markup
    part: bool = False  # counted in the line above already


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """One row that is left out."""

    row: int
    value: Markup
    reason: Markup
    detail: Markup


@dataclass(frozen=True, slots=True)
class PreviewView:
    """The page, in the order it is read."""

    campaign: Markup
    provider: Markup
    sandbox: bool
    generated_at: int
    headline: str
    facts: tuple[tuple[str, Markup], ...]
    warnings: tuple[Markup, ...]
    totals: tuple[Line, ...]
    rows: int
    gone: Markup
    countries: tuple[tuple[Markup, int, Markup], ...]
    more_countries: int
    highlights: tuple[Card, ...]
    first: tuple[Card, ...]
    cards_left_out: int
    pictures: Sequence[Picture]
    skip_hints: tuple[tuple[Markup, str, int], ...]
    skipped: tuple[SkippedRow, ...]
    skipped_total: int


def preview_view(data: PreviewData) -> PreviewView:
    """Everything the template needs."""
    difference = data.difference
    deck = Deck(data.thumbnails, data.caption_limit)
    highlights = _highlights(data.samples, deck)
    first = _cards(((sample, ()) for sample in data.samples.get(_FIRST, ())), deck, CARDS_SHOWN - len(highlights))
    countries = list(difference.countries.items())
    most = max(difference.countries.values(), default=1)
    return PreviewView(
        campaign=outside(data.campaign),
        provider=outside(data.provider),
        sandbox=data.sandbox,
        generated_at=data.generated_at,
        headline=headline(difference),
        facts=tuple(_facts(data)),
        warnings=tuple(outside(warning, 1000) for warning in data.warnings),
        totals=tuple(_totals(difference)),
        rows=difference.rows,
        gone=outside(", ".join(f"{n:,} {words(status)}" for status, n in sorted(difference.gone.items()))),
        countries=tuple((country_name(code), n, bar_svg(n / most)) for code, n in countries[:COUNTRIES_SHOWN]),
        more_countries=max(0, len(countries) - COUNTRIES_SHOWN),
        highlights=highlights,
        first=first,
        cards_left_out=deck.left_out,
        pictures=deck.pictures,
        skip_hints=tuple(
            (outside(words(reason)), mend(reason), n)
            for reason, n in sorted(difference.skipped.items(), key=lambda item: (-item[1], item[0]))
        ),
        skipped=tuple(_skipped(sample) for sample in data.skipped[:SKIPPED_SHOWN]),
        skipped_total=sum(difference.skipped.values()),
    )


def headline(difference: Difference) -> str:
    """The page in one or two sentences."""
    rows, skipped = difference.rows, sum(difference.skipped.values())
    settled = sum(difference.settled.values())
    parts = []
    if settled:
        parts.append(f"{settled:,} {_have(settled)} been dealt with already")
    if skipped:
        parts.append(f"{skipped:,} {_are(skipped)} left out")
    rest = f" {_sentence(parts)}" if parts else ""
    if not rows:
        return "The file holds no rows: there is nobody to write to."
    if not difference.to_send:
        return f"Nobody would get a message now.{rest}"
    if difference.to_send == rows:
        return "Everybody in the file would get this message." if rows > 1 else "The one person would get this message."
    return f"{difference.to_send:,} of {rows:,} people in the file would get this message now.{rest}"


def words(name: str) -> str:
    """`not sent` for not_sent."""
    return str(name).replace("_", " ")


def country_name(code: str) -> Markup:
    """The country's English name; the code itself where it has none."""
    if not code:
        return Markup("unknown")
    return outside(_countries().get(code, code), 60)


@cache
def _countries() -> Mapping[str, str]:
    return dict(Locale("en").territories)


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _sentence(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] + "."


def _facts(data: PreviewData) -> list[tuple[str, Markup]]:
    facts = [("Audience", outside(data.audience)), ("Pace", outside(data.pace))]
    if data.finish:
        facts.append(("Finished at the earliest", outside(data.finish)))
    facts.append(("Plan", Markup("<code>{}</code>").format(outside(data.plan_hash))))
    if data.columns_used:
        facts.append(("Columns used", outside(", ".join(data.columns_used))))
    if data.columns_unused:
        facts.append(("Columns not used", outside(", ".join(data.columns_unused))))
    return facts


def _totals(difference: Difference) -> list[Line]:
    whole = max(difference.rows, 1)

    def line(status: str, name: str, meaning: str, rows: int, *, part: bool = False) -> Line:
        return Line(status, outside(name), outside(meaning), rows, bar_svg(rows / whole), part)

    lines = [line("to_send", "to send", "would get this message now", difference.to_send)]
    if difference.resent:
        lines.append(
            line(
                "to_send", "tried before", "certainly not sent then; among those to send", difference.resent, part=True
            )
        )
    for status, n in sorted(difference.settled.items()):
        lines.append(line(status, f"already {words(status)}", MEANINGS.get(status, ""), n))
    if difference.changed:
        lines.append(
            line(
                "skipped",
                "changed since",
                "of those dealt with already: the file would now send them something else; it does not",
                difference.changed,
                part=True,
            )
        )
    if difference.skipped:
        lines.append(line("skipped", "left out", "for the reasons below", sum(difference.skipped.values())))
        lines += [
            line("skipped", words(reason), "", n, part=True)
            for reason, n in sorted(difference.skipped.items(), key=lambda item: (-item[1], item[0]))
        ]
    return lines


def _highlights(samples: Mapping[str, Sequence[Sample]], deck: Deck) -> tuple[Card, ...]:
    """One card a message, with every label that fits it: branches of the template first, then the extremes."""
    branches = [label for label in samples if label not in _KNOWN_LABELS and label != _FIRST]
    labels: dict[int, list[str]] = {}
    found: dict[int, Sample] = {}
    for label in (*branches, *_KNOWN_LABELS):
        for sample in samples.get(label, ()):
            found.setdefault(sample.row, sample)
            labels.setdefault(sample.row, []).append(_KNOWN_LABELS.get(label, label))
    return _cards(((sample, tuple(dict.fromkeys(labels[row]))) for row, sample in found.items()), deck, CARDS_SHOWN)


def _cards(samples: Iterable[tuple[Sample, tuple[str, ...]]], deck: Deck, most: int) -> tuple[Card, ...]:
    cards: list[Card] = []
    for sample, labels in samples:
        if len(cards) >= most:
            deck.left_out += 1
            continue
        card = deck.card(row=sample.row, phone=sample.phone, image=sample.image, caption=sample.caption, labels=labels)
        if card is not None:
            cards.append(card)
    return tuple(cards)


def _skipped(sample: Sample) -> SkippedRow:
    return SkippedRow(
        row=sample.row,
        value=outside(sample.raw_phone or "(blank)", 60),
        reason=outside(words(sample.reason)),
        detail=outside(sample.detail, 300),
    )
