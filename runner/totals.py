"""Totals that reconcile: counted from the very rows that are written, and checked against the ledger's own count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from runner.cells import clean, iso_time
from runner.model import Delivery, Status
from runner.resultset import ResultRow, ResultSet

EXAMPLES = 10  # row numbers shown for a group of failures
WORDS = 3  # different wordings shown for a group of failures
WORDS_LENGTH = 200

_ACCEPTED, _SKIPPED, _UNDELIVERED = Status.ACCEPTED.value, Status.SKIPPED.value, Delivery.FAILED.value  # quick to reach
_FAILED = frozenset({Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN})
DELIVERY_FAILED = "delivery_failed"
"""The reason word of a message that was accepted and then reported as not delivered without a reason of its own."""


@dataclass(slots=True)
class Group:
    """Rows that failed for the same reason. Holds a few examples, however many rows there are."""

    status: str
    reason: str
    rows: int = 0
    examples: list[int] = field(default_factory=list)  # spreadsheet row numbers, the first few
    words: list[str] = field(default_factory=list)  # the provider's or our own words, the first few different ones

    def add(self, row: ResultRow) -> None:
        """Count the row in."""
        self.rows += 1
        if row.row is not None and len(self.examples) < EXAMPLES:
            self.examples.append(row.row)
        words = row.detail[:WORDS_LENGTH]
        if words and len(self.words) < WORDS and words not in self.words:
            self.words.append(words)


@dataclass(frozen=True, slots=True)
class Summary:
    """A campaign's totals. The figures come from the rows themselves."""

    campaign: str
    provider: str
    sandbox: bool
    generated_at: int  # microseconds since the epoch, UTC
    input_rows: int  # rows of the audience that are in the results
    gone_rows: int  # further rows, no longer in the audience
    totals: Mapping[str, int]  # status -> rows, every status named
    reasons: Mapping[str, Mapping[str, int]]  # status -> reason -> rows, where there is a reason
    deliveries: Mapping[str, int]  # delivery word -> rows, where there was a report
    disagreements: tuple[str, ...]  # what does not add up, in words; empty when everything does
    run_notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # names of the files written

    @property
    def reconciled(self) -> bool:
        """Whether every input row is there exactly once and both counts agree."""
        return not self.disagreements

    def to_json(self) -> bytes:
        """The summary for machines: UTF-8 JSON with sorted keys."""
        return orjson.dumps(
            {
                "campaign": clean(self.campaign),
                "provider": clean(self.provider),
                "sandbox": self.sandbox,
                "generated_at": iso_time(self.generated_at),
                "input_rows": self.input_rows,
                "no_longer_in_audience": self.gone_rows,
                "totals": dict(self.totals),
                "reasons": {status: dict(reasons) for status, reasons in self.reasons.items()},
                "deliveries": dict(self.deliveries),
                "reconciled": self.reconciled,
                "disagreements": list(self.disagreements),
                "notes": [clean(note) for note in self.run_notes],
                "files": list(self.files),
            },
            option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE,
        )


class Tally:
    """Counts rows as they stream by. Its memory grows with the number of different reasons, not with the rows."""

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()  # status and reason
        self._deliveries: Counter[str] = Counter()
        self._groups: dict[tuple[str, str], Group] = {}
        self._input_rows = 0
        self._gone_rows = 0
        self._last_row = 0
        self._out_of_order: list[str] = []

    def add(self, row: ResultRow) -> None:
        """Count the row in."""
        status, reason, delivery = row.status, row.reason, row.delivery
        self._place(row.row)
        self._pairs[status, reason] += 1
        if delivery:
            self._deliveries[clean(str(delivery))] += 1
        undelivered = delivery == _UNDELIVERED and status == _ACCEPTED
        if status in _FAILED or undelivered or (status == _SKIPPED and row.goes_into_retry):
            key = (clean(str(status)), clean(str(reason)) or (DELIVERY_FAILED if undelivered else ""))
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(*key)
            group.add(row)

    def groups(self) -> tuple[Group, ...]:
        """What failed, the most frequent first."""
        return tuple(sorted(self._groups.values(), key=lambda group: (-group.rows, group.status, group.reason)))

    def summary(self, results: ResultSet, files: tuple[str, ...] = ()) -> Summary:
        """The totals of the rows counted so far, checked against the counts that `results` states."""
        statuses: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {}
        for (status, reason), rows in self._pairs.items():
            word = clean(str(status))
            statuses[word] += rows
            if reason:
                reasons.setdefault(word, Counter())[clean(str(reason))] += rows
        return Summary(
            campaign=results.campaign,
            provider=results.provider,
            sandbox=results.sandbox,
            generated_at=results.generated_at,
            input_rows=self._input_rows,
            gone_rows=self._gone_rows,
            totals={**{status.value: 0 for status in Status}, **statuses},
            reasons=reasons,
            deliveries=self._deliveries,
            disagreements=tuple(self._disagreements(results, statuses)),
            run_notes=results.run_notes,
            files=files,
        )

    def _place(self, row: int | None) -> None:
        if row is None:
            self._gone_rows += 1
            return
        self._input_rows += 1
        if row <= self._last_row or self._gone_rows:
            if len(self._out_of_order) < EXAMPLES:
                self._out_of_order.append(str(row))
        else:
            self._last_row = row

    def _disagreements(self, results: ResultSet, statuses: Counter[str]) -> list[str]:
        found = []
        if self._input_rows != results.input_rows:
            found.append(f"the audience has {results.input_rows} rows, the results have {self._input_rows}")
        stated = {str(status): count for status, count in results.counts.items()}
        for status in sorted({*stated, *statuses, *Status}):
            if stated.get(status, 0) != statuses[status]:
                found.append(
                    f"{status}: the ledger counts {stated.get(status, 0)}, the results have {statuses[status]}"
                )
            if status not in set(Status):
                found.append(f"{status!r} is no status")
        if self._out_of_order:
            found.append(f"rows repeated or out of order: {', '.join(self._out_of_order)}")
        return found
