"""The breaker: when a run stops by itself."""

from __future__ import annotations

import pytest

from runner.breaker import Breaker, Share, StopWhen, parse_share
from runner.model import Outcome, Verdict

ACCEPTED = Outcome(Verdict.ACCEPTED)
REJECTED = Outcome(Verdict.REJECTED, "bad_request")
UNKNOWN = Outcome(Verdict.UNKNOWN, "reply_timeout")
NOT_SENT = Outcome(Verdict.NOT_SENT, "unreachable")
TOO_BIG = Outcome(Verdict.REJECTED, "image_too_large")


def feed(breaker: Breaker, outcomes: list[Outcome]) -> list[str]:
    return [breaker.saw(outcome) for outcome in outcomes]


def test_unknown_outcomes_in_a_row_stop_the_run_at_the_limit_and_not_before() -> None:
    said = feed(Breaker(StopWhen(unknown_in_a_row=3), shared_image=False), [UNKNOWN, UNKNOWN, UNKNOWN])
    assert said[:2] == ["", ""]
    assert "3 unknown outcomes in a row" in said[2]


def test_a_good_reply_in_between_starts_the_row_again() -> None:
    breaker = Breaker(StopWhen(unknown_in_a_row=3, unknown=None), shared_image=False)
    assert feed(breaker, [UNKNOWN, UNKNOWN, ACCEPTED, UNKNOWN, UNKNOWN]) == [""] * 5


def test_messages_that_certainly_were_not_sent_count_neither_way() -> None:
    breaker = Breaker(StopWhen(unknown_in_a_row=2, rejected=Share(0, 1)), shared_image=False)
    assert feed(breaker, [UNKNOWN, NOT_SENT, NOT_SENT]) == ["", "", ""]
    assert breaker.saw(UNKNOWN)


def test_a_share_waits_for_its_whole_sample() -> None:
    breaker = Breaker(StopWhen(unknown_in_a_row=None, unknown=None, rejected=Share(50, 10)), shared_image=False)
    assert feed(breaker, [REJECTED] * 9) == [""] * 9
    assert "more than 50% of 10" in breaker.saw(REJECTED)


def test_exactly_the_share_is_still_allowed() -> None:
    breaker = Breaker(StopWhen(unknown_in_a_row=None, rejected=Share(50, 10)), shared_image=False)
    assert feed(breaker, [REJECTED, ACCEPTED] * 20) == [""] * 40


def test_a_share_looks_at_the_last_outcomes_only() -> None:
    breaker = Breaker(StopWhen(unknown_in_a_row=None, unknown=Share(20, 10), rejected=None), shared_image=False)
    assert not any(feed(breaker, [ACCEPTED] * 1000))
    said = feed(breaker, [UNKNOWN, UNKNOWN, UNKNOWN])
    assert said[:2] == ["", ""]
    assert "unknown" in said[2]


def test_an_image_too_big_for_one_stops_the_run_when_all_share_it() -> None:
    assert "image is too big" in Breaker(StopWhen(), shared_image=True).saw(TOO_BIG)
    assert Breaker(StopWhen(), shared_image=False).saw(TOO_BIG) == ""
    assert Breaker(StopWhen(shared_image_refused=False), shared_image=True).saw(TOO_BIG) == ""


def test_after_a_canary_the_same_shares_are_judged_over_what_was_seen() -> None:
    breaker = Breaker(StopWhen(rejected=Share(50, 50)), shared_image=False)
    assert feed(breaker, [REJECTED, REJECTED, ACCEPTED]) == ["", "", ""]
    assert "refused" in breaker.small_sample()
    calm = Breaker(StopWhen(), shared_image=False)
    assert calm.small_sample() == ""
    calm.saw(ACCEPTED)
    assert calm.small_sample() == ""


def test_every_limit_can_be_switched_off() -> None:
    breaker = Breaker(StopWhen(None, None, None, shared_image_refused=False), shared_image=True)
    assert not any(feed(breaker, [UNKNOWN, REJECTED, TOO_BIG] * 200))
    assert breaker.small_sample() == ""


@pytest.mark.parametrize("text", ["2%", "2 of 200", "101% of 5", "5% of 0", "x", ""])
def test_a_share_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2% of 200"):
        parse_share(text)


def test_a_share_reads_as_it_is_written() -> None:
    assert parse_share(" 2 % of 200 ") == Share(2, 200)
    assert str(Share(2, 200)) == "2% of 200"
