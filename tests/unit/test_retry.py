"""Whether and when again: only what certainly was not sent, and never more often than asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.model import Outcome, Status, Verdict
from runner.retry import LONGEST_WAIT, Decision, RetryPolicy, backoff, decide

POLICY = RetryPolicy(retries=3, backoff=2.0)
REFUSED = Outcome(Verdict.NOT_SENT, "unreachable")
THROTTLED = Outcome(Verdict.NOT_SENT, "rate_limited", throttled=True)


def low() -> float:
    return 0.0


def high() -> float:
    return 0.999999


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Verdict.ACCEPTED, Status.ACCEPTED),
        (Verdict.REJECTED, Status.REJECTED),
        (Verdict.UNKNOWN, Status.UNKNOWN),
    ],
)
@pytest.mark.parametrize("attempt", [1, 2, 100])
def test_whatever_may_have_been_sent_or_was_refused_is_never_tried_again(
    verdict: Verdict, status: Status, attempt: int
) -> None:
    assert decide(Outcome(verdict, retry_after=5.0, throttled=True), attempt, POLICY, low) == Decision(status)


def test_what_was_not_sent_is_tried_again_as_often_as_the_policy_says() -> None:
    statuses = [decide(REFUSED, attempt, POLICY, low).status for attempt in range(1, 6)]
    assert statuses == [Status.RETRY_WAIT] * 3 + [Status.NOT_SENT] * 2


def test_without_retries_the_first_attempt_is_the_last() -> None:
    assert decide(REFUSED, 1, RetryPolicy(0, 1.0), low) == Decision(Status.NOT_SENT)


def test_being_told_to_slow_down_uses_up_no_retry() -> None:
    assert decide(THROTTLED, 50, RetryPolicy(0, 1.0), low).status is Status.RETRY_WAIT


def test_what_stops_the_campaign_leaves_the_recipient_waiting() -> None:
    """A certificate that cannot be trusted is nobody's fault in the audience: mended, the next run sends to them."""
    stopped = Outcome(Verdict.NOT_SENT, "certificate", stop="the certificate cannot be trusted")
    assert decide(stopped, 50, POLICY, low).status is Status.RETRY_WAIT


def test_waits_double_and_are_spread_between_half_and_the_whole() -> None:
    assert [decide(REFUSED, attempt, POLICY, low).wait for attempt in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [decide(REFUSED, attempt, POLICY, high).wait for attempt in (1, 2, 3)] == pytest.approx([2, 4, 8], rel=1e-5)


def test_the_providers_wait_wins_when_it_is_longer() -> None:
    slow = Outcome(Verdict.NOT_SENT, "rate_limited", retry_after=300.0, throttled=True)
    quick = Outcome(Verdict.NOT_SENT, "rate_limited", retry_after=0.0, throttled=True)
    assert decide(slow, 1, POLICY, low).wait == 300.0
    assert decide(quick, 1, POLICY, low).wait == 1.0


@given(attempt=st.integers(1, 10**9), first=st.floats(0.001, 3600), draw=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_nothing_and_never_longer_than_the_longest(attempt: int, first: float, draw: float) -> None:
    wait = backoff(attempt, first, lambda: draw)
    assert 0 < wait <= LONGEST_WAIT
    assert wait >= min(first, LONGEST_WAIT) / 2
