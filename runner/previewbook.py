"""preview.xlsx: every row of the plan as it would go out, or why it would not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from runner.files import atomic_write
from runner.ledger.base import Sample
from runner.model import Status
from runner.plan import Plan
from runner.resultlook import print_setup
from runner.streambook import BookColumn, BookPlan, StreamBook

COLUMNS = (
    BookColumn("row", 8, "number"),
    BookColumn("phone", 18, "plain"),
    BookColumn("would be", 12, "status"),
    BookColumn("reason", 40, "wrapped"),
    BookColumn("image", 50, "wrapped"),
    BookColumn("caption", 60, "wrapped"),
    BookColumn("length", 8, "number"),
)


def write_book(path: Path, plan: Plan, rows: Iterable[Sample]) -> Path:
    """Write the workbook in constant memory. Every outside value is text, never a formula."""
    with atomic_write(path) as file:
        book = StreamBook(
            file,
            BookPlan(
                title="Preview",
                columns=COLUMNS,
                frozen_columns=3,
                properties={},
                finish_sheet=partial(print_setup, campaign=plan.campaign, sandbox=plan.sandbox),
                words={"sent": Status.ACCEPTED},
            ),
        )
        try:
            for sample in rows:
                book.add(
                    (
                        str(sample.row),
                        sample.phone or sample.raw_phone,
                        "skipped" if sample.reason else "sent",
                        ": ".join(part for part in (sample.reason, sample.detail) if part),
                        sample.image,
                        sample.caption,
                        str(len(sample.caption)),
                    )
                )
            book.finish()
            book.close()
        finally:
            book.release()
    return path
