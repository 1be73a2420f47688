"""A signal drains: what is on the wire is waited for, nothing new is begun. A second one stops at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from bench import NOTE, Bench, Campaign, Provider, Run, open_bench, size, until
from machine import crowd

pytestmark = pytest.mark.slow

IN_FLIGHT = 50
ROWS = 400
TIMEOUT = 4.0  # seconds for one request
GRACE = 2.0  # what ending may take beyond that
INTERRUPTED = 130


def _campaign(bench: Bench, provider: Provider, name: str, rows: int = ROWS) -> Campaign:
    return bench.campaign(name, provider, rows, send={"concurrency": IN_FLIGHT, "timeout": f"{TIMEOUT:.0f}s"})


def _in_full_flight(bench: Bench, campaign: Campaign, provider: Provider, more: int = 10) -> Run:
    """A run with IN_FLIGHT requests at the provider; `more` were answered before, so all the pool is in use."""
    before = provider.count()
    run = bench.send(campaign)
    until(lambda: run.over or provider.count() >= before + IN_FLIGHT + more, f"{IN_FLIGHT} in flight\n{run.story}")
    assert not run.over, run.story
    return run


def _drained(bench: Bench, campaign: Campaign, provider: Provider, run: Run, number: signal.Signals) -> float:
    """Signal, wait for the end, judge. The seconds it took."""
    began = time.monotonic()
    os.kill(run.process.pid, number)
    run.must(INTERRUPTED)
    took = time.monotonic() - began
    assert took < TIMEOUT + GRACE * crowd(), f"{number.name}: ended after {took:.1f} s ({NOTE})\n{run.story}"
    figures = bench.judge(campaign, provider, unknown_at_most=0, finished=False)
    assert figures.statuses.get("in_flight", 0) == figures.statuses.get("claimed", 0) == 0, figures
    assert 0 < figures.taken < len(campaign.phones), f"the drain stopped nothing: {figures} ({NOTE})"
    assert figures.taken == figures.statuses["accepted"], figures
    return took


def test_sigterm_with_50_in_flight_leaves_nothing_unknown(tmp_path: Path) -> None:
    times = []
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="300ms")
        for repetition in range(size(5, 100)):
            campaign = _campaign(bench, provider, f"drain-{repetition}")
            # The moment wanders: a signal may come between two waves of replies, or in the middle of one.
            run = _in_full_flight(bench, campaign, provider, more=10 + 17 * repetition % 150)
            times.append(_drained(bench, campaign, provider, run, signal.SIGTERM))
        bench.finish(campaign)
        bench.judge(campaign, provider, unknown_at_most=0)
    print(f"{len(times)} drains in {min(times):.2f} to {max(times):.2f} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_other_signals_drain_as_well(number: signal.Signals, tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="300ms")
        campaign = _campaign(bench, provider, "drain")
        _drained(bench, campaign, provider, _in_full_flight(bench, campaign, provider), number)


def test_a_second_signal_stops_at_once_and_says_what_is_unknown(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="300ms", rules=[{"after": 60, "drop": "hang"}])
        campaign = _campaign(bench, provider, "stop")
        run = _in_full_flight(bench, campaign, provider, more=60)
        run.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert not run.over, f"it did not wait for the replies on the way\n{run.story}"
        began = time.monotonic()
        run.signal(signal.SIGTERM)
        run.must(INTERRUPTED)
        took = time.monotonic() - began
        assert took < GRACE * crowd(), f"ended {took:.1f} s after the second signal\n{run.story}"
        figures = bench.judge(campaign, provider, unknown_at_most=IN_FLIGHT, finished=False)
        assert figures.unknown == IN_FLIGHT, figures
        assert figures.statuses.get("in_flight", 0) == 0, figures


def test_a_provider_that_never_answers_cannot_hold_up_a_drain(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(rules=[{"drop": "hang"}])
        campaign = _campaign(bench, provider, "hang")
        run = _in_full_flight(bench, campaign, provider, more=0)
        began = time.monotonic()
        run.signal(signal.SIGTERM)
        run.must(INTERRUPTED)
        assert time.monotonic() - began < TIMEOUT + GRACE * crowd()
        figures = bench.judge(campaign, provider, unknown_at_most=IN_FLIGHT, finished=False)
        assert figures.unknown == IN_FLIGHT, figures


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_run_in_the_background_of_a_shell_drains(number: signal.Signals, tmp_path: Path) -> None:
    """A shell without job control starts `command &` with SIGINT ignored (POSIX shell, asynchronous lists)."""
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="300ms")
        campaign = _campaign(bench, provider, "background")
        script = '"$@" & echo $! > pid; wait $!'
        run = bench.send(campaign, before=("sh", "-c", script, "sh"))
        until(lambda: run.over or provider.count() >= IN_FLIGHT + 10, f"{IN_FLIGHT} in flight\n{run.story}")
        began = time.monotonic()
        os.kill(int((bench.root / "pid").read_text()), number)
        run.must(INTERRUPTED)
        assert time.monotonic() - began < TIMEOUT + GRACE * crowd()
        figures = bench.judge(campaign, provider, unknown_at_most=0, finished=False)
        assert 0 < figures.statuses["accepted"] < ROWS, figures
