"""Pause and cancel from another process: the wire falls silent within two seconds, whatever the run is waiting for."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bench import NOTE, Bench, Campaign, Provider, Run, open_bench, until
from machine import crowd

pytestmark = pytest.mark.slow

SOON = 2.0  # seconds of wall time
ROWS = 1500
BUSY = {"concurrency": 10, "timeout": "10s"}
STATE = {"pause": ("paused", 3), "cancel": ("cancelled", 1)}  # command -> state, exit code of the run


def _command(bench: Bench, word: str, campaign: Campaign) -> float:
    """`campaign pause NAME`, say; the moment at which it had done its work, in seconds since the epoch."""
    run = bench.start(word, campaign.name).must(0)
    assert campaign.name in run.out, run.story
    return time.time()


def _ended(run: Run, code: int, since: float, what: str) -> None:
    run.must(code, seconds=10)
    took = time.time() - since
    assert took < (SOON + 1.5) * crowd(), (
        f"{what}: the run ended {took:.1f} s later ({NOTE})\n{run.story}"
    )  # results are written, too


def _last_arrival(campaign: Campaign, provider: Provider) -> float:
    own = set(campaign.phones)
    return max((seen.at for seen in provider.seen() if seen.phone in own), default=0) / 1e6


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_a_busy_run_falls_silent_within_two_seconds(word: str, tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="60ms")
        campaign = bench.campaign("busy", provider, ROWS, send=BUSY)
        run = bench.send(campaign)
        until(lambda: run.over or provider.count() > 50, f"the sending\n{run.story}")
        at = _command(bench, word, campaign)
        _ended(run, STATE[word][1], at, word)
        late = _last_arrival(campaign, provider) - at
        assert late < SOON * crowd(), f"a request arrived {late:.1f} s after the {word} ({NOTE})"
        figures = bench.judge(campaign, provider, unknown_at_most=0, finished=word == "cancel")
        assert 0 < figures.taken < ROWS, figures
        left = "skipped" if word == "cancel" else "pending"
        assert figures.statuses == {"accepted": figures.taken, left: ROWS - figures.taken}, figures


def test_a_paused_campaign_goes_on_with_the_next_send(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="60ms")
        campaign = bench.campaign("on", provider, 300, send=BUSY)
        run = bench.send(campaign)
        until(lambda: run.over or provider.count() > 50, f"the sending\n{run.story}")
        _command(bench, "pause", campaign)
        run.must(STATE["pause"][1])
        bench.finish(campaign)
        figures = bench.judge(campaign, provider, unknown_at_most=0)
        assert figures.statuses == {"accepted": 300}, figures
        assert figures.requests == 300, figures


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_a_run_that_waits_for_its_pace_ends_within_two_seconds(word: str, tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider()
        campaign = bench.campaign("slow", provider, 10, send={**BUSY, "rate": "1/min"})
        run = bench.send(campaign)
        until(lambda: run.over or provider.count() == 1, f"the first request\n{run.story}")
        at = _command(bench, word, campaign)
        _ended(run, STATE[word][1], at, word)
        figures = bench.judge(campaign, provider, unknown_at_most=0, finished=word == "cancel")
        assert figures.requests == 1, figures


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_a_run_that_waits_for_its_start_ends_within_two_seconds(word: str, tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider()
        start = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        campaign = bench.campaign("later", provider, 10, send={**BUSY, "start_at": start})
        run = bench.send(campaign)
        until(lambda: run.over or "waiting" in run.err, f"the waiting\n{run.story}")
        at = _command(bench, word, campaign)
        _ended(run, STATE[word][1], at, word)
        figures = bench.judge(campaign, provider, unknown_at_most=0, finished=word == "cancel")
        assert figures.requests == 0, figures


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_a_run_that_still_plans_obeys_as_well(word: str, tmp_path: Path) -> None:
    """The command says that the live run stops; it must hold although the plan is not adopted yet."""
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="20ms")
        campaign = bench.campaign("planning", provider, 2 * ROWS, send=BUSY)
        bench.send(campaign, "--limit", "1").must(0)
        run = bench.send(campaign)
        lock = bench.root / "reports" / campaign.name / ".lock"
        until(lambda: run.over or str(run.process.pid) in lock.read_text(), f"the lock\n{run.story}")
        _command(bench, word, campaign)
        until(lambda: run.over or provider.count() > ROWS, f"the end\n{run.story}")
        assert run.over, f"the run sends on after the {word}: {provider.count()} requests ({NOTE})"
        run.must(STATE[word][1])
        bench.judge(campaign, provider, unknown_at_most=0, finished=word == "cancel")
