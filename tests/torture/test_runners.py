"""One campaign, many runners: one sends, the others say who holds it, nobody is sent to twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from bench import NOTE, Bench, Campaign, Provider, Run, open_bench, size, until

pytestmark = pytest.mark.slow

RUNNERS = 4
LOCKED = 4
ROWS = 120
AT_ONCE = 8
SENDING = {"concurrency": AT_ONCE, "timeout": "10s"}  # waves of 150 ms: the others have time to come while one sends


def _settle(bench: Bench, campaign: Campaign, provider: Provider, runs: list[Run]) -> None:
    """All but one were refused, naming the one that sent."""
    codes = [run.wait() for run in runs]
    assert sorted(codes) == [0, *[LOCKED] * (len(runs) - 1)], f"exit codes {codes} ({NOTE})\n" + "\n".join(
        run.story for run in runs
    )
    holder = runs[codes.index(0)].process.pid
    for run, code in zip(runs, codes, strict=True):
        if code == LOCKED:
            assert re.search(rf"\b{holder}\b", run.err), f"process {holder} is not named:\n{run.story}"
            assert campaign.name in run.err
    figures = bench.judge(campaign, provider, unknown_at_most=0)
    assert figures.statuses == {"accepted": ROWS}, figures
    assert figures.requests == ROWS, figures


def test_of_four_runners_started_together_one_sends(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="150ms")
        for repetition in range(size(5, 50)):
            campaign = bench.campaign(f"together-{repetition}", provider, ROWS, send=SENDING)
            _settle(bench, campaign, provider, [bench.send(campaign) for _ in range(RUNNERS)])


def test_a_workspace_has_one_holder_under_every_name_of_its_folder(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="150ms")
        campaign = bench.campaign("links", provider, ROWS, send=SENDING)
        other = tmp_path / "other-name"
        other.symlink_to(bench.root)
        runs = [
            bench.send(campaign),
            bench.start("send", str(other / campaign.file), "--yes"),
            bench.start("send", campaign.file, "--yes", "--workspace", str(other)),
        ]
        _settle(bench, campaign, provider, runs)


def test_a_bind_mount_of_the_workspace_has_the_same_holder(tmp_path: Path) -> None:
    other = tmp_path / "mounted"
    other.mkdir()
    unshare = _needs_mounts(other)
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="150ms")
        campaign = bench.campaign("mounts", provider, ROWS, send=SENDING)
        # In a mount namespace of its own, so that nothing of it outlives the process.
        script = 'mount --bind "$0" "$1" && cd "$1" && shift && exec "$@"'
        before = (unshare, "--mount", "sh", "-c", script, str(bench.root), str(other))
        runs = [
            bench.send(campaign),
            bench.start("send", str(other / campaign.file), "--yes", before=before),
        ]
        _settle(bench, campaign, provider, runs)


def _needs_mounts(folder: Path) -> str:
    """The path of `unshare`; skips where mounts are not allowed (not root, or a container without the right)."""
    path = shutil.which("unshare")
    if path is None or os.geteuid() != 0:
        pytest.skip("a bind mount needs root and unshare(1)")
    trial = [path, "--mount", "mount", "--bind", str(folder), str(folder)]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("mounts are not allowed here")
    return path


def test_the_lock_of_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="150ms")
        campaign = bench.campaign("stale", provider, ROWS, send=SENDING)
        first = bench.send(campaign)
        until(lambda: first.over or provider.count() > 0, f"the first request\n{first.story}")
        first.kill()
        locks = [path for path in (bench.root / "reports").rglob(".lock") if str(first.process.pid) in path.read_text()]
        assert locks, "the lock file was expected to be left behind"
        bench.finish(campaign)
        bench.judge(campaign, provider, unknown_at_most=AT_ONCE)


def test_a_holder_killed_alone_while_it_plans_blocks_nobody(tmp_path: Path) -> None:
    """Only the runner dies, not what it has started: no child may keep the lock."""
    with open_bench(tmp_path) as bench:
        provider = bench.provider()
        campaign = bench.campaign("alone", provider, 3 * ROWS, send=SENDING)
        first = bench.send(campaign)
        folder = bench.root / "reports" / campaign.name
        until(lambda: first.over or (folder / ".lock").exists(), f"the lock\n{first.story}")
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(10)
        bench.finish(campaign)
        figures = bench.judge(campaign, provider, unknown_at_most=0)
        assert figures.statuses == {"accepted": 3 * ROWS}, figures


def test_a_runner_waits_for_no_lock_that_another_campaign_holds(tmp_path: Path) -> None:
    """Two campaigns of one workspace share the ledger, and both are sent at the same time."""
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency="150ms")
        campaigns = [bench.campaign(f"beside-{number}", provider, ROWS, send=SENDING) for number in range(2)]
        runs = [bench.send(campaign) for campaign in campaigns]
        for campaign, run in zip(campaigns, runs, strict=True):
            run.must(0)
            assert bench.judge(campaign, provider, unknown_at_most=0).statuses == {"accepted": ROWS}
