"""Colour for a terminal: headings stand out, and a status word tells at a glance what is good, in doubt or bad.

Whoever prints takes the colour out again where it is not wanted (`clibase.print_lines`), so these may be used everywhere.
"""

from __future__ import annotations

from click import style

from runner.cells import clean
from runner.model import Status

_INKS: dict[str, str] = {
    Status.ACCEPTED: "green",
    Status.REJECTED: "red",
    Status.NOT_SENT: "red",
    Status.UNKNOWN: "yellow",
    Status.RETRY_WAIT: "yellow",
}


def heading(text: str) -> str:
    """What a block is about."""
    return style(text, bold=True)


def good(text: str) -> str:
    """Nothing to do."""
    return style(text, fg="green")


def doubtful(text: str) -> str:
    """Worth a look."""
    return style(text, fg="yellow")


def bad(text: str) -> str:
    """To be mended."""
    return style(text, fg="red", bold=True)


def of_status(status: str, text: str) -> str:
    """Text in the colour of the status."""
    ink = _INKS.get(status)
    return style(text, fg=ink) if ink else text


def outside(text: str) -> str:
    """Text from a file or a provider: without the control characters that a terminal would obey."""
    return clean(text)
