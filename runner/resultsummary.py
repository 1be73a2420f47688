"""The last two sheets of `results.xlsx`: Summary (totals that reconcile, as figures and a chart) and Failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cells import excel_time, write_text
from runner.model import FINAL, Status
from runner.resultlook import COLOURS, Look, print_setup

if TYPE_CHECKING:
    from xlsxwriter.workbook import Workbook  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed
    from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]  # as above

    from runner.resultset import ResultSet
    from runner.totals import Group, Summary

MEANINGS: dict[str, str] = {
    Status.ACCEPTED: "the provider took the message",
    Status.REJECTED: "the provider refused this recipient or content",
    Status.NOT_SENT: "certainly not sent; attempts or time used up",
    Status.UNKNOWN: "may or may not have been sent; never sent again by itself",
    Status.SKIPPED: "left out before sending, for the reason below",
    Status.PENDING: "waiting to be sent",
    Status.CLAIMED: "about to be sent",
    Status.IN_FLIGHT: "being sent",
    Status.RETRY_WAIT: "certainly not sent yet; will be tried again",
}


PRACTICE = "SANDBOX – practice, nobody received anything"

_LINE_PIXELS = 20  # height of an ordinary row
_LINE_POINTS = 15
_LINES_AT_MOST = 20

NOTES = (
    "Times are UTC.",
    "This workbook holds every value as it was. In results.csv a cell that a spreadsheet would run as a formula"
    " (it starts with = + - or @) stands behind an apostrophe (').",
    "retry.csv holds the rows that certainly did not go out, in the audience's own shape, ready to be mended."
    " Rows that may have gone out (unknown) are not in it.",
)


def write_summary(book: Workbook, look: Look, totals: Summary) -> None:
    """Add the Summary sheet: what, when, the totals with the line that checks them, the reasons, a chart, notes."""
    page = _Page(book.add_worksheet("Summary"), look)
    sheet = page.sheet
    for column, width in enumerate((24, 28, 12, 12, 64)):
        sheet.set_column(column, column, width)
    sheet.hide_gridlines(2)
    print_setup(sheet, campaign=totals.campaign, sandbox=totals.sandbox, one_page=True)

    sheet.set_row(0, 28)
    page.line((f"Results of {totals.campaign}", look.title))
    if totals.sandbox:
        page.line((PRACTICE, look.practice), *[("", look.practice)] * 4)
    page.line()
    page.line(("Campaign", look.label), (totals.campaign, look.plain))
    page.line(("Provider", look.label), (totals.provider, look.plain))
    page.line(("Written at", look.label), (excel_time(totals.generated_at), look.time))
    page.line()

    page.line(("Totals", look.section), *[("", look.section)] * 4)
    first = page.at
    shown = [status for status, rows in totals.totals.items() if rows or status in FINAL]
    everyone = sum(totals.totals.values())
    for status in sorted(shown, key=_rank):
        rows = totals.totals[status]
        page.line(
            (status, look.statuses.get(status, look.plain)),
            None,
            (rows, look.count),
            (rows / everyone if everyone else 0.0, look.share),
            (MEANINGS.get(status, ""), look.meaning),
        )
    last = page.at - 1
    page.line(("Sum", look.sum_label), ("", look.sum), (everyone, look.sum))
    page.line(("Input rows", look.label), None, (totals.input_rows, look.count))
    if totals.gone_rows:
        page.line(("No longer in the audience", look.label), None, (totals.gone_rows, look.count))
    verdict, colour = ("yes", look.good) if totals.reconciled else ("no", look.bad)
    page.line((f"Totals reconcile: {verdict}", colour), ("", colour), ("", colour))
    for disagreement in totals.disagreements:
        page.line((disagreement, look.bad))
    page.line()
    chart, lines = _chart(book, totals, sorted(shown, key=_rank), first, last)
    sheet.insert_chart(page.at, 0, chart)
    page.at += lines

    _breakdown(page, "Reasons", totals)
    if totals.deliveries:
        page.line(("Delivery reports", look.section), *[("", look.section)] * 4)
        for word, rows in sorted(totals.deliveries.items()):
            page.line((word, look.plain), None, (rows, look.count))
        page.line()
    page.line(("Notes", look.section), *[("", look.section)] * 4)
    for note in (*totals.run_notes, *NOTES):
        page.line((note, look.label))


def write_failures(book: Workbook, look: Look, results: ResultSet, groups: tuple[Group, ...]) -> None:
    """Add the Failures sheet: one line per status and reason; lines that are mended the same way stand together."""
    page = _Page(book.add_worksheet("Failures"), look)
    sheet = page.sheet
    names = ("how to mend", "status", "reason", "rows", "example rows", "in words")
    widths = (52, 11, 24, 9, 30, 60)
    for column, width in enumerate(widths):
        sheet.set_column(column, column, width)
    sheet.freeze_panes(1, 0)
    sheet.set_row(0, 22)
    print_setup(sheet, campaign=results.campaign, sandbox=results.sandbox)
    page.line(*[(name, look.header) for name in names])
    if not groups:
        page.line(("Nothing failed.", look.plain))
        return

    mends = {group.reason: results.mend(group.reason) for group in groups}
    weights: dict[str, int] = {}
    for group in groups:
        weights[mends[group.reason]] = weights.get(mends[group.reason], 0) + group.rows
    for group in sorted(groups, key=lambda one: (-weights[mends[one.reason]], mends[one.reason])):
        mend, words = mends[group.reason], "\n".join(group.words)
        examples = ", ".join(map(str, group.examples)) + (", …" if group.rows > len(group.examples) else "")
        wrapped = ((mend, widths[0]), (group.reason, widths[2]), (examples, widths[4]), (words, widths[5]))
        sheet.set_row(page.at, _LINE_POINTS * min(max(_lines(text, width) for text, width in wrapped), _LINES_AT_MOST))
        page.line(
            (mend, look.lined),
            (group.status, look.statuses.get(group.status, look.lined)),
            (group.reason, look.lined),
            (group.rows, look.lined_count),
            (examples, look.lined),
            (words, look.lined),
        )


class _Page:
    """Writes a sheet line by line, downwards, as XlsxWriter's constant memory wants it."""

    def __init__(self, sheet: Worksheet, look: Look) -> None:
        self.sheet = sheet
        self.look = look
        self.at = 0

    def line(self, *cells: tuple[str | float, object] | None) -> None:
        for column, cell in enumerate(cells):
            if cell is None:
                continue
            value, look = cell
            if isinstance(value, str):
                write_text(self.sheet, self.at, column, value, look)
            else:
                self.sheet.write_number(self.at, column, value, look)
        self.at += 1


def _rank(status: str) -> int:
    order = list(COLOURS)
    return order.index(Status(status)) if status in order else len(order)


def _lines(text: str, width: int) -> int:
    """How many lines the text takes in a column of that many characters, guessed on the safe side."""
    return sum(1 + len(line) * 10 // (width * 9) for line in text.split("\n"))


def _breakdown(page: _Page, title: str, totals: Summary) -> None:
    look = page.look
    if not any(totals.reasons.values()):
        return
    page.line((title, look.section), *[("", look.section)] * 4)
    for status in sorted(totals.reasons, key=_rank):
        for reason, rows in sorted(totals.reasons[status].items(), key=lambda item: (-item[1], item[0])):
            page.line((status, look.statuses.get(status, look.plain)), (reason, look.plain), (rows, look.count))
    page.line()


def _chart(book: Workbook, totals: Summary, statuses: list[str], first: int, last: int) -> tuple[object, int]:
    """A bar chart of the totals, and how many lines it covers.

    The figures are handed over too: in constant memory XlsxWriter keeps no cells to read them from.
    """
    chart = book.add_chart({"type": "bar"})
    chart.add_series(
        {
            "name": "Rows",
            "categories": ["Summary", first, 0, last, 0],
            "values": ["Summary", first, 2, last, 2],
            "categories_data": statuses,
            "values_data": [totals.totals[status] for status in statuses],
            "points": [
                {"fill": {"color": COLOURS[status][2] if status in COLOURS else "#7F7F7F"}} for status in statuses
            ],
            "data_labels": {"value": True, "num_format": "#,##0"},
            "gap": 40,
        }
    )
    chart.set_title({"name": "Rows by status", "name_font": {"size": 12, "color": "#1F3864"}})
    chart.set_legend({"none": True})
    chart.set_y_axis({"reverse": True, "major_tick_mark": "none"})
    chart.set_x_axis({"visible": False, "major_gridlines": {"visible": False}, "min": 0})
    lines = 4 + 2 * len(statuses)
    chart.set_size({"width": 720, "height": _LINE_PIXELS * (lines - 1)})
    return chart, lines
