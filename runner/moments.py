"""Date-times as people write them. Pure text in, Unix seconds out."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def parse_moment(text: str, zone: ZoneInfo | None) -> float:
    """A date-time in Unix seconds; `zone` is for those written without an offset.

    Raises ValueError with words for a person.
    """
    try:
        moment = datetime.fromisoformat(text.strip().replace(" +", "+"))
    except ValueError:
        raise ValueError(
            f"{text!r} is not a date-time; write it as 2026-12-01 09:00 or 2026-12-01T09:00:00+03:00"
        ) from None
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError(
                f"{text!r} does not say in which time zone; add an offset (+03:00) or timezone: Europe/Istanbul"
            )
        moment = moment.replace(tzinfo=zone)
    return moment.timestamp()


def moment_text(seconds: float) -> str:
    """Unix seconds for people, UTC: `2026-12-01 06:00 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def iso_text(microseconds: int) -> str:
    """Microseconds since the epoch as ISO 8601 UTC with seconds."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
