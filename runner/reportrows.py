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


class Picker:
    """Looks at the rows as they stream by, and keeps only as many as are shown."""

    def __init__(self) -> None:
        self._tried: Counter[str] = Counter()
        self._unknown: list[ResultRow] = []
        self._kept: dict[tuple[str, str], list[ResultRow]] = {}

    def add(self, row: ResultRow) -> None:
        """Look at the next row."""
        if row.attempts:
            self._tried[row.status] += 1
        if row.status == Status.UNKNOWN and len(self._unknown) < UNKNOWN_SHOWN:
            self._unknown.append(row)
        if row.attempts and row.caption:
            key = (row.status, "" if row.status == Status.ACCEPTED else row.reason)
            same = self._kept.get(key)
            if same is None:
                if len(self._kept) < SAMPLES_SHOWN:
                    self._kept[key] = [row]
            elif len(same) < (_ACCEPTED_SAMPLES if row.status == Status.ACCEPTED else _SAMPLES_EACH):
                same.append(row)

    def picked(self) -> Picked:
        """What has been kept, accepted messages first."""
        order = list(Status)
        groups = sorted(
            self._kept.items(), key=lambda item: order.index(Status(item[0][0])) if item[0][0] in order else 99
        )
        groups.sort(key=lambda item: item[0][0] != Status.ACCEPTED)
        samples = tuple(row for _, same in groups for row in same)[:SAMPLES_SHOWN]
        return Picked(dict(self._tried), tuple(self._unknown), samples)


def pick(rows: Iterable[ResultRow]) -> Picked:
    """The same of rows at hand."""
    picker = Picker()
    for row in rows:
        picker.add(row)
    return picker.picked()
