"""How a result workbook looks: formats, the colour of each status, the print set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cells import clean
from runner.model import Status

if TYPE_CHECKING:
    from xlsxwriter.workbook import Workbook  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed
    from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]  # as above

TIME = 'yyyy-mm-dd"T"hh:mm:ss.000"Z"'
"""A real Excel date-time that reads as ISO 8601 UTC, so nobody takes it for local time."""

_WAITING = ("#1F4E78", "#DDEBF7", "#5B9BD5")
COLOURS: dict[str, tuple[str, str, str]] = {  # status -> ink, paper, bar
    Status.ACCEPTED: ("#006100", "#C6EFCE", "#70AD47"),
    Status.REJECTED: ("#9C0006", "#FFC7CE", "#C00000"),
    Status.NOT_SENT: ("#833C0B", "#FCE4D6", "#ED7D31"),
    Status.UNKNOWN: ("#7F6000", "#FFEB9C", "#FFC000"),
    Status.SKIPPED: ("#595959", "#EDEDED", "#A5A5A5"),
    Status.PENDING: _WAITING,
    Status.CLAIMED: _WAITING,
    Status.IN_FLIGHT: _WAITING,
    Status.RETRY_WAIT: _WAITING,
}


class Look:
    """The formats of one workbook."""

    def __init__(self, book: Workbook) -> None:
        make = book.add_format
        top = {"valign": "top"}
        self.plain = make({**top, "num_format": "@"})
        self.wrapped = make({**top, "num_format": "@", "text_wrap": True})
        self.number = make({**top, "num_format": "0", "align": "center"})
        self.time = make({**top, "num_format": TIME, "align": "left"})
        self.header = make(
            {"bold": True, "font_color": "#FFFFFF", "bg_color": "#1F3864", "valign": "vcenter", "num_format": "@"}
        )
        self.own_header = make(
            {"bold": True, "font_color": "#1F3864", "bg_color": "#D9E2F3", "valign": "vcenter", "num_format": "@"}
        )
        self.title = make({"bold": True, "font_size": 18, "font_color": "#1F3864"})
        self.section = make({"bold": True, "font_size": 12, "font_color": "#1F3864", "bottom": 1})
        self.label = make({**top, "font_color": "#595959"})
        self.meaning = make({**top, "font_color": "#595959", "indent": 1})
        self.count = make({**top, "num_format": "#,##0", "align": "right", "indent": 1})
        self.share = make({**top, "num_format": "0.0%", "align": "right", "indent": 1})
        self.sum_label = make({"bold": True, "top": 1})
        self.sum = make({"bold": True, "top": 1, "num_format": "#,##0", "align": "right", "indent": 1})
        self.good = make({"bold": True, "font_color": "#006100", "bg_color": "#C6EFCE"})
        self.bad = make({"bold": True, "font_color": "#9C0006", "bg_color": "#FFC7CE", "valign": "top"})
        self.practice = make({"bold": True, "font_size": 12, "font_color": "#7F3F00", "bg_color": "#FFD966"})
        line = {"bottom": 1, "bottom_color": "#D9D9D9"}  # between the rows of Failures
        self.lined = make({**top, **line, "num_format": "@", "text_wrap": True})
        self.lined_count = make({**top, **line, "num_format": "#,##0", "align": "right", "indent": 1})
        self.statuses = {
            status: make({**top, "num_format": "@", "font_color": ink, "bg_color": paper})
            for status, (ink, paper, _) in COLOURS.items()
        }


def print_setup(sheet: Worksheet, *, campaign: str, sandbox: bool, one_page: bool = False) -> None:
    """Landscape A4, as wide as one page, the first row again on every page; the campaign and page number below."""
    sheet.set_landscape()
    sheet.set_paper(9)
    sheet.fit_to_pages(1, 1 if one_page else 0)
    if not one_page:
        sheet.repeat_rows(0)
    sheet.set_margins(left=0.4, right=0.4, top=0.6, bottom=0.6)
    if sandbox:
        sheet.set_header("&C&BSANDBOX – practice, nobody received anything")
    name = clean(campaign)[:80].replace("&", "&&")  # & starts a code there, and Excel allows 255 characters in all
    sheet.set_footer(f"&L{name}&C&A&RPage &P of &N")
