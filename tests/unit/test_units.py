"""Rates and durations as people write them."""

from __future__ import annotations

import re

import pytest

from runner.units import DURATION_PATTERN, RATE_PATTERN, Rate, duration_text, parse_duration, parse_rate


@pytest.mark.parametrize(
    ("text", "count", "window", "shown"),
    [
        ("20/s", 20, 1, "20/s"),
        (" 20 / sec ", 20, 1, "20/s"),
        ("10/min", 10, 60, "10/min"),
        ("10/m", 10, 60, "10/min"),
        ("500/hour", 500, 3600, "500/h"),
        ("2000/day", 2000, 86400, "2000/day"),
        ("1/d", 1, 86400, "1/day"),
    ],
)
def test_a_rate_is_a_number_and_a_unit(text: str, count: int, window: float, shown: str) -> None:
    assert parse_rate(text) == Rate(count, window)
    assert str(parse_rate(text)) == shown
    assert parse_rate(text).per_second == pytest.approx(count / window)


@pytest.mark.parametrize(
    "text", ["", "20", "/s", "20/", "1.5/s", "-5/s", "20/week", "20 per second", "٣/s", "1e3/s", "99999999/s", "20/s,"]
)
def test_anything_else_is_no_rate_and_the_message_shows_it_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a rate")) as caught:
        parse_rate(text)
    assert "20/s, 10/min" in str(caught.value)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="would never send anything"):
        parse_rate("0/s")


def test_a_rate_of_an_odd_window_says_the_window_in_words() -> None:
    assert str(Rate(3, 90.0)) == "3 in 1 min 30 s"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5 min", 90), ("2h", 7200), ("1day", 86400), ("2 days", 172800), ("0s", 0)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1h30min", "30 seconds", "1,5h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "under 1 s"),
        (45, "45 s"),
        (59.6, "1 min"),
        (360, "6 min"),
        (12_480, "3 h 28 min"),
        (86_400, "1 day"),
        (187_200, "2 days 4 h"),
        (90_061, "1 day 1 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_patterns_hold_nothing_that_the_regular_expressions_of_a_json_schema_lack() -> None:
    for pattern in (RATE_PATTERN, DURATION_PATTERN):
        assert not re.search(r"\(\?(?!:)|\\d|\\Z|\\A", pattern)
