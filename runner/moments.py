"""Date-times as people write them. Pure text in, Unix seconds out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

YEARS = range(2000, 2100)  # any other is a slip of the finger, and far ones cannot be shown as a date again


def parse_moment(text: str, zone: ZoneInfo | None) -> float:
    """A date-time in Unix seconds; `zone` is for those written without an offset.

    Raises ValueError with words for a person. A date alone is refused: a deadline of 2026-12-01 may mean either end of
    that day. So is an hour that the clocks leave out in spring; one that they show twice in autumn is the first of the two.
    """
    try:
        moment = datetime.fromisoformat(text.strip().replace(" +", "+"))
    except ValueError:
        raise ValueError(
            f"{text!r} is not a date-time; write it as 2026-12-01 09:00 or 2026-12-01T09:00:00+03:00"
        ) from None
    if _is_date(text):
        raise ValueError(f"{text!r} does not say at what time of the day; add it: {text.strip()} 09:00")
    if moment.year not in YEARS:
        raise ValueError(f"{text!r} is in the year {moment.year}; expected {YEARS[0]} to {YEARS[-1]}")
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError(
                f"{text!r} does not say in which time zone; "
                "add the offset (+03:00), or the zone in a line of its own: timezone: Europe/Istanbul"
            )
        moment = moment.replace(tzinfo=zone)
        if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment.replace(tzinfo=None):
            raise ValueError(f"{text!r} does not exist in {zone}: the clocks go forward then; write an hour later")
    return moment.timestamp()


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text.strip())
    except ValueError:
        return False
    return True


def moment_text(seconds: float) -> str:
    """Unix seconds for people, UTC: `2026-12-01 06:00 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def iso_text(microseconds: int) -> str:
    """Microseconds since the epoch as ISO 8601 UTC with seconds."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
