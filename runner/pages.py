"""Plans and results -> preview.html and report.html: one file each, readable without script, network or this program.

Safe whatever it shows: our own templates only, escaping always on, outside text never in an attribute, and a policy in the
page itself (Content-Security-Policy) that lets no script run and nothing be loaded, should all that fail.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from runner.files import write_bytes
from runner.model import Status
from runner.outsidetext import outside
from runner.previewpage import PreviewData, preview_view, words
from runner.reportpage import ReportData, latency_text, report_view

_KINDS = frozenset({*Status, "to_send"})
_TEMPLATES = Path(__file__).parent / "pagetemplates"


def write_preview_page(path: Path, data: PreviewData) -> None:
    """Write preview.html, whole or not at all. Raises as `files.write_bytes` does."""
    write_bytes(path, preview_page(data))


def write_report_page(path: Path, data: ReportData) -> None:
    """Write report.html, whole or not at all. Raises as `files.write_bytes` does."""
    write_bytes(path, report_page(data))


def preview_page(data: PreviewData) -> bytes:
    """The preview page as UTF-8."""
    return _render("preview.html.j2", preview_view(data))


def report_page(data: ReportData) -> bytes:
    """The report page as UTF-8."""
    return _render("report.html.j2", report_view(data))


def _render(template: str, view: object) -> bytes:
    # 'replace' for a lone surrogate that reached the page unseen: a question mark, not a broken file.
    return _environment().get_template(template).render(page=view).encode("utf-8", "replace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "time": _time,
        "clock": _clock,
        "latency": latency_text,
        "words": words,
        "outside": outside,
        "kind": _kind,
    }
    return environment


def _kind(status: str) -> str:
    """The style of a status; of a word that is none of ours, the plain one. Nothing from outside becomes a class."""
    return status if status in _KINDS else "waiting"


def _count(number: int) -> str:
    return f"{number:,}"


def _time(microseconds: int | None) -> str:
    return f"{_moment(microseconds):%Y-%m-%d %H:%M:%S} UTC" if microseconds else "–"


def _clock(microseconds: int) -> str:
    return f"{_moment(microseconds):%Y-%m-%d %H:%M:%S}"


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC)
