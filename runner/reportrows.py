"""The few rows that the report page shows, picked out of all of them in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.model import Status
from runner.resultset import ResultRow

UNKNOWN_SHOWN = 200
SAMPLES_SHOWN = 16
_SAMPLES_EACH = 2  # for a status and reason
_ACCEPTED_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Picked:
    """What the page needs of the rows themselves."""

    tried: Mapping[str, int]  # status -> rows with at least one attempt
    unknown: tuple[ResultRow, ...]  # the first ones
    samples: tuple[ResultRow, ...]


def pick(rows: Iterable[ResultRow]) -> Picked:
    """One pass over the rows, keeping only as many as are shown."""
    tried: Counter[str] = Counter()
    unknown: list[ResultRow] = []
    kept: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        if row.attempts:
            tried[row.status] += 1
        if row.status == Status.UNKNOWN and len(unknown) < UNKNOWN_SHOWN:
            unknown.append(row)
        if row.attempts and row.caption:
            key = (row.status, "" if row.status == Status.ACCEPTED else row.reason)
            same = kept.get(key)
            if same is None:
                if len(kept) < SAMPLES_SHOWN:
                    kept[key] = [row]
            elif len(same) < (_ACCEPTED_SAMPLES if row.status == Status.ACCEPTED else _SAMPLES_EACH):
                same.append(row)
    order = list(Status)
    groups = sorted(kept.items(), key=lambda item: order.index(Status(item[0][0])) if item[0][0] in order else 99)
    groups.sort(key=lambda item: item[0][0] != Status.ACCEPTED)
    return Picked(dict(tried), tuple(unknown), tuple(row for _, same in groups for row in same)[:SAMPLES_SHOWN])
