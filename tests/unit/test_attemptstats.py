"""Counting attempts: percentiles, buckets, and the exact worst sliding window."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from runner.attemptstats import MOST_BUCKETS, MOST_CODES, NOTE_LEAD, Attempt, AttemptStats, measure
from runner.units import Rate

T = 1_795_300_000_000_000
SECOND = 1_000_000


def steady(count: int, gap: int, *, start: int = T, took: int = 50_000) -> list[Attempt]:
    return [(start + i * gap, start + i * gap + took, "accepted", "200") for i in range(count)]


def sums(stats: AttemptStats) -> list[list[int]]:
    return [[sum(bucket) for bucket in session.buckets] for session in stats.timeline.sessions]


def test_no_attempts_are_no_fault() -> None:
    stats = measure([], [Rate(20, 1)])
    assert (stats.attempts, stats.latency, stats.codes, stats.timeline.sessions) == (0, None, (), ())
    assert stats.windows[0].proven == 0
    assert stats.windows[0].within


def test_attempts_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        measure([(T, T, "accepted", "200"), (T - 1, T, "accepted", "200")], [])


def test_percentiles_are_right_within_one_percent() -> None:
    dice = random.Random(7)
    times = [int(dice.lognormvariate(11, 1)) for _ in range(20_000)]
    latency = measure(((T + i, T + i + took, "accepted", "200") for i, took in enumerate(times)), []).latency
    assert latency is not None
    times.sort()
    assert (latency.fastest, latency.slowest, latency.replies) == (times[0], times[-1], 20_000)
    for found, place in ((latency.p50, 9_999), (latency.p95, 18_999), (latency.p99, 19_799)):
        assert found == pytest.approx(times[place], rel=0.011)


def test_one_reply_is_its_own_percentile() -> None:
    latency = measure([(T, T + 1234, "accepted", "200")], []).latency
    assert latency is not None
    assert {latency.fastest, latency.p50, latency.p99, latency.slowest} == {1234}


def test_only_attempts_with_an_answer_count_as_replies() -> None:
    stats = measure([(T, T + 5, "accepted", "200"), (T, T + 30 * SECOND, "unknown", ""), (T, 0, "", "")], [])
    assert stats.latency is not None
    assert stats.latency.replies == 1
    assert stats.verdicts == {"accepted": 1, "unknown": 1, "": 1}


def test_the_worst_sliding_window_is_the_one_a_slow_count_finds() -> None:
    dice = random.Random(11)
    starts = sorted(T + int(dice.random() * 60 * SECOND) for _ in range(900))
    rates = [Rate(20, 1), Rate(100, 5), Rate(500, 60)]
    peaks = measure(((at, at + 9, "accepted", "200") for at in starts), rates).windows
    for rate, peak in zip(rates, peaks, strict=True):
        for span, found in (
            (int(rate.window * SECOND), peak.noted),
            (int(rate.window * SECOND) - NOTE_LEAD, peak.proven),
        ):
            assert found == max(sum(at <= other < at + span for other in starts) for at in starts)
        assert sum(peak.at <= at < peak.at + rate.window * SECOND - NOTE_LEAD for at in starts) == peak.proven


def test_requests_exactly_one_window_apart_do_not_share_it() -> None:
    peak = measure(steady(50, SECOND), [Rate(1, 1)]).windows[0]
    assert (peak.proven, peak.noted, peak.within) == (1, 1, True)


def test_notes_that_come_early_by_their_lead_are_not_called_an_excess() -> None:
    starts = [T, *(T + i * 100_000 - NOTE_LEAD + 2_000 for i in range(1, 40))]
    peak = measure(((at, at + 9, "accepted", "200") for at in starts), [Rate(10, 1)]).windows[0]
    assert (peak.proven, peak.noted, peak.within) == (10, 11, True)


def test_a_true_excess_is_told() -> None:
    peak = measure(steady(30, 90_000), [Rate(10, 1)]).windows[0]
    assert (peak.proven, peak.within) == (11, False)


def test_what_never_left_this_machine_takes_up_no_window() -> None:
    unreachable: list[Attempt] = [(T + i, T + i + 5, "not_sent", "") for i in range(50)]
    refused: list[Attempt] = [(T + 100 + i, T + 200 + i, "not_sent", "429") for i in range(3)]
    assert measure([*unreachable, *refused], [Rate(10, 1)]).windows[0].proven == 3


def test_buckets_hold_every_attempt_once_however_long_the_run() -> None:
    for gap in (1_000, SECOND, 60 * SECOND, 1700 * SECOND, 40 * 3600 * SECOND):
        stats = measure(steady(5_000, gap), [])
        assert sum(map(sum, sums(stats))) == 5_000
        assert sum(map(len, sums(stats))) <= MOST_BUCKETS


def test_a_bucket_never_shows_more_than_the_limit_for_a_steady_run() -> None:
    stats = measure(steady(1_000, 100_000), [Rate(10, 1)])
    assert stats.timeline.width == 1
    assert stats.timeline.allowed == 10
    assert max(max(session) for session in sums(stats)) == 10


def test_the_limit_of_a_bucket_counts_the_even_spacing_and_the_longer_windows() -> None:
    assert measure(steady(1, 1), [Rate(10, 60), Rate(3, 3600)]).timeline.allowed == 3
    slow = measure(steady(400, 36 * SECOND), [Rate(100, 3600)]).timeline
    assert (slow.width, slow.allowed) == (300, 9)
    assert measure(steady(1, 1), []).timeline.allowed is None


def test_a_long_pause_parts_the_timeline_and_does_not_count_as_sending() -> None:
    resumed = [*steady(20, SECOND), *steady(3, SECOND, start=T + 86400 * SECOND)]
    stats = measure(resumed, [Rate(1, 1)])
    assert [len(session.buckets) for session in stats.timeline.sessions] == [4, 1]
    assert stats.sending_seconds == pytest.approx(21)


def test_many_pauses_are_drawn_together_in_the_end() -> None:
    attempts = [attempt for day in range(60) for attempt in steady(2, SECOND, start=T + day * 86400 * SECOND)]
    stats = measure(attempts, [])
    assert len(stats.timeline.sessions) <= 12
    assert sum(map(sum, sums(stats))) == 120


def test_codes_are_counted_by_verdict_and_a_flood_of_them_is_bounded() -> None:
    flood: list[Attempt] = [(T + i, T + i, "unknown", f"odd-{i}") for i in range(5_000)]
    stats = measure([(T, T, "accepted", "200"), *flood], [])
    assert len(stats.codes) <= MOST_CODES + 1
    assert sum(codes.attempts for codes in stats.codes) == 5_001
    assert stats.codes[0].code == "others"


def test_memory_does_not_grow_with_the_attempts() -> None:
    def attempts(count: int) -> int:
        tracemalloc.start()
        measure(((T + i * 1000, T + i * 1000 + 50_000, "accepted", "200") for i in range(count)), [Rate(1000, 1)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert attempts(24_000) < 1.2 * attempts(12_000) + 100_000
