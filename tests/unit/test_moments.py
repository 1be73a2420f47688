"""Date-times as people write them."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

import pytest

from runner.moments import iso_text, moment_text, parse_moment

ISTANBUL = ZoneInfo("Europe/Istanbul")
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "text", ["2026-12-01 09:00+03:00", "2026-12-01T09:00:00+03:00", "2026-12-01 09:00 +03:00", " 2026-12-01 06:00Z "]
)
def test_an_offset_says_when_it_is(text: str) -> None:
    assert moment_text(parse_moment(text, None)) == "2026-12-01 06:00 UTC"
    assert parse_moment(text, BERLIN) == parse_moment(text, None)


def test_without_an_offset_the_zone_of_the_file_counts() -> None:
    assert moment_text(parse_moment("2026-12-01 09:00", ISTANBUL)) == "2026-12-01 06:00 UTC"
    assert moment_text(parse_moment("2026-07-01 09:00", BERLIN)) == "2026-07-01 07:00 UTC"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tomorrow", "is not a date-time"),
        ("2026-13-01 09:00", "is not a date-time"),
        ("01.12.2026 09:00", "is not a date-time"),
        ("2026-12-01", "does not say at what time of the day"),
        ("20261201", "does not say at what time of the day"),
        ("2026-12-01 09:00", "does not say in which time zone"),
        ("0226-12-01 09:00Z", "is in the year 226"),
        ("9999-12-31 23:59-12:00", "is in the year 9999"),
    ],
)
def test_what_is_unclear_is_refused_by_its_own_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} {why}")):
        parse_moment(text, None)


def test_an_hour_that_the_clocks_leave_out_is_refused() -> None:
    with pytest.raises(ValueError, match="does not exist in Europe/Berlin"):
        parse_moment("2026-03-29 02:30", BERLIN)


def test_an_hour_that_comes_twice_is_the_first_of_the_two() -> None:
    assert moment_text(parse_moment("2026-10-25 02:30", BERLIN)) == "2026-10-25 00:30 UTC"


def test_the_ledgers_microseconds_are_told_to_the_second() -> None:
    assert iso_text(1_772_359_200_999_999) == "2026-03-01T10:00:00Z"
