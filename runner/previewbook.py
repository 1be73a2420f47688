"""preview.xlsx: every row of the plan as it would go out, or why it would not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xlsxwriter import Workbook  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed

from runner.cells import write_text
from runner.files import atomic_write
from runner.ledger.base import Sample
from runner.plan import Plan
from runner.resultlook import Look, print_setup

HEADER = (("row", 8), ("phone", 18), ("would be", 12), ("reason", 40), ("image", 50), ("caption", 60), ("length", 8))
LAST_ROW = 1_048_575  # the format's own limit


def write_book(path: Path, plan: Plan, rows: Iterable[Sample]) -> Path:
    """Write the workbook in constant memory. Every outside value is text, never a formula."""
    with atomic_write(path) as file:
        book = Workbook(
            file,
            {
                "constant_memory": True,
                "strings_to_formulas": False,
                "strings_to_urls": False,
                "strings_to_numbers": False,
                "in_memory": False,
            },
        )
        look = Look(book)
        number = 0
        sheet = None
        for index, sample in enumerate(rows):
            if sheet is None or index % LAST_ROW == 0:
                number += 1
                sheet = book.add_worksheet("Preview" if number == 1 else f"Preview {number}")
                for column, (title, width) in enumerate(HEADER):
                    sheet.set_column(column, column, width)
                    sheet.write_string(0, column, title, look.header)
                sheet.freeze_panes(1, 0)
                print_setup(sheet, campaign=plan.campaign, sandbox=plan.sandbox)
            line = index % LAST_ROW + 1
            send = not sample.reason
            sheet.write_number(line, 0, sample.row, look.number)
            write_text(sheet, line, 1, sample.phone or sample.raw_phone, look.plain)
            sheet.write_string(line, 2, "sent" if send else "skipped", look.statuses["accepted" if send else "skipped"])
            why = ": ".join(part for part in (sample.reason, sample.detail) if part)
            write_text(sheet, line, 3, why, look.wrapped)
            write_text(sheet, line, 4, sample.image, look.wrapped)
            write_text(sheet, line, 5, sample.caption, look.wrapped)
            sheet.write_number(line, 6, len(sample.caption), look.number)
        if sheet is None:
            book.add_worksheet("Preview").write_string(0, 0, "The audience has no rows.")
        book.close()
    return path
