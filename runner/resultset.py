"""What a result file is made from: one `ResultRow` per input row, and the `ResultSet` they belong to. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from runner.model import SkipReason, Status

COLUMNS = (
    "row",
    "phone",
    "status",
    "reason",
    "code",
    "queue_id",
    "provider",
    "attempts",
    "first_attempt_at",
    "last_attempt_at",
    "delivery",
    "image",
    "caption",
)
"""The columns of a result file that are ours; the audience's own follow them."""

MAY_GO_INTO_RETRY = frozenset(  # certainly not out
    {Status.REJECTED, Status.NOT_SENT, Status.PENDING, Status.CLAIMED, Status.RETRY_WAIT, Status.SKIPPED}
)
_LEFT_OUT_ON_PURPOSE = frozenset({SkipReason.DUPLICATE, SkipReason.FILTERED, SkipReason.SUPPRESSED})


class ResultRow(NamedTuple):
    """What became of one row of the audience. A tuple, as there are a million of them (measured: made in 1 µs, not 6)."""

    row: int | None  # the audience's spreadsheet row number; None: the audience file no longer has it
    phone: str  # E.164 digits, or the raw cell when it could not be read
    status: str  # a word of `Status`
    reason: str  # one word of ours, may be empty
    detail: str  # the reason in more words, or the provider's own
    code: str  # the provider's HTTP status or own code
    queue_id: str
    provider: str
    attempts: int
    first_attempt_at: int | None  # microseconds since the epoch, UTC
    last_attempt_at: int | None
    delivery: str  # a word of `Delivery`
    image: str
    caption: str
    own: tuple[str, ...]  # the audience's own values, unchanged and in order; () when the row is no longer there

    @property
    def why(self) -> str:
        """The reason with its detail, such as `render_error: column 'city' is blank`."""
        return f"{self.reason}: {self.detail}" if self.reason and self.detail else self.reason or self.detail

    @property
    def goes_into_retry(self) -> bool:
        """Whether the message certainly did not go out and a person may want to mend the row and send it.

        Not `unknown` or `in_flight` (it may have gone out), not what was left out on purpose (duplicates, filtered,
        suppressed), and not what a person has since taken out of the audience.
        """
        return self.row is not None and self.status in MAY_GO_INTO_RETRY and self.reason not in _LEFT_OUT_ON_PURPOSE


@dataclass(frozen=True, slots=True)
class ResultSet:
    """A campaign's results. `read_rows` may be called more than once and streams from the ledger."""

    campaign: str
    provider: str
    sandbox: bool
    columns: tuple[str, ...]  # the audience's own column names, in order
    phone_column: str  # which of them holds the phone number
    read_rows: Callable[[], Iterator[ResultRow]]  # by rising row number; rows no longer in the audience come last
    counts: Mapping[Status, int]  # the ledger's own count of all those rows, to check the stream against
    input_rows: int  # rows the audience has now, to check the stream against
    generated_at: int  # microseconds since the epoch, UTC
    run_notes: tuple[str, ...]  # one line each, such as the plan's hash or the pace
    mend: Callable[[str], str]  # a reason word -> one sentence on how to mend it


def header(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Our columns and then the audience's; one of theirs that bears a name of ours gets the suffix ' (audience)'.

    When that name is taken too, it becomes ' (audience 2)', and so on. Names are compared letter by letter.
    """
    taken = {*COLUMNS, *columns}
    names = list(COLUMNS)
    for column in columns:
        name, number = column, 1
        if column in COLUMNS:
            name = f"{column} (audience)"
            while name in taken:
                number += 1
                name = f"{column} (audience {number})"
            taken.add(name)
        names.append(name)
    return tuple(names)


def own_cells(row: ResultRow, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The row's own values, one per column; blanks where it has none. Raises ValueError when it has too many."""
    spare = len(columns) - len(row.own)
    if spare < 0:
        raise ValueError(f"row {row.row} has {len(row.own)} values for {len(columns)} columns")
    return row.own + ("",) * spare
