"""SIGKILL at any moment: nobody is sent to twice, nobody is lost, nothing is called accepted that was not."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from bench import FULL, NOTE, SEED, Bench, Campaign, Provider, Run, needs, open_bench, size
from machine import crowd

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TORTURE_KILLS") or size(12, 200))
ROWS = size(2000, 5000)
IN_FLIGHT = 20
PER_CAMPAIGN = 12  # kills, the last two while results are written
SENDING = ROWS / 700 / 6  # seconds: a machine does about 700/s, and six such turns leave something to send
PATIENCE = 60.0


class Moment(NamedTuple):
    """When to kill: a phase of the run, and how long it is known to take (learned from the runs that got through it)."""

    phase: str
    seconds: float


class Killer:
    """Draws the moments of the kills and learns how long planning, adoption and writing take on this machine."""

    def __init__(self) -> None:
        self.lot = random.Random(SEED)
        self.lengths = {"planning": 1.5, "adoption": 0.2, "sending": SENDING, "writing": 0.5}
        self.landed: Counter[str] = Counter()
        self.by_itself = 0

    def phases(self, count: int) -> list[str]:
        """The phases of one campaign's kills. Results are written at the end only, so those come last."""
        early = ["planning", "adoption", "sending", "sending"] * count
        drawn = early[: max(count - 2, 1)]
        self.lot.shuffle(drawn)
        return [*drawn, "writing", "writing"][:count]

    def strike(self, bench: Bench, campaign: Campaign, provider: Provider, phase: str) -> bool:
        """Start a run and kill it in this phase. False when it ended by itself before."""
        watch = _Watch(bench.root / "reports" / campaign.name, provider)
        run = bench.send(campaign)
        phases = list(self.lengths)
        began, reached = run.began, "planning"
        while reached != phase and not run.over:
            now = watch.phase(run)
            if now != reached:
                at = time.monotonic()
                if phases.index(now) == phases.index(reached) + 1 and reached != "sending":
                    self.lengths[reached] = 0.7 * self.lengths[reached] + 0.3 * (at - began)
                began, reached = at, now
                if phases.index(now) > phases.index(phase):
                    break
            assert time.monotonic() - run.began < PATIENCE * crowd(), f"no {phase} in sight ({NOTE})\n{run.story}"
            time.sleep(0.002)
        time.sleep(self.lot.uniform(0, self.lengths[phase]))
        killed = not run.over
        run.kill()
        if killed:
            self.landed[watch.phase(run)] += 1
        else:
            self.by_itself += 1
        return killed


class _Watch:
    """How far a run has come, told from outside."""

    def __init__(self, report: Path, provider: Provider) -> None:
        self._report = report
        self._provider = provider
        self._names = _names(report)
        self._written = provider.written

    def phase(self, run: Run) -> str:
        if _names(self._report) - self._names - {".lock"}:
            return "writing"
        if self._provider.written > self._written:
            return "sending"
        return "adoption" if run.speaks else "planning"


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_kills_at_random_moments_of_a_large_campaign(tmp_path: Path) -> None:
    killer, done, unknown, taken, most = Killer(), 0, 0, 0, 0
    with open_bench(tmp_path) as bench:
        while done < KILLS:
            provider = bench.provider(latency=["2ms", "20ms"])
            campaign = bench.campaign(
                f"kills-{done}", provider, ROWS, send={"concurrency": IN_FLIGHT, "timeout": "10s", "backoff": "200ms"}
            )
            allowed = 0
            for phase in killer.phases(min(PER_CAMPAIGN, KILLS - done)):
                if not killer.strike(bench, campaign, provider, phase) and not killer.strike(
                    bench, campaign, provider, "writing"
                ):
                    continue  # everything was sent: only results are left to be written
                done += 1
                left = [row.status for row in bench.book(campaign).rows]
                most = max(most, left.count("in_flight"))
                assert left.count("in_flight") <= IN_FLIGHT, f"in flight after one kill: {Counter(left)} ({NOTE})"
                allowed += IN_FLIGHT
                bench.judge(campaign, provider, unknown_at_most=allowed, finished=False, planned=bool(left))
            bench.finish(campaign)
            figures = bench.judge(campaign, provider, unknown_at_most=allowed)
            unknown += figures.unknown
            taken += figures.unknown_taken
            print(f"{campaign.name}: {dict(figures.statuses)}, the provider took {figures.taken} of {ROWS}")
        print(
            f"{done} kills, landed in {dict(killer.landed)} ({killer.by_itself} runs ended before theirs); "
            f"{unknown} unknown rows, {taken} of them taken by the provider; most in flight at one kill: {most}"
        )
    assert killer.landed["sending"] >= KILLS // 4, f"too few kills hit the sending: {killer.landed} ({NOTE})"
    assert set(killer.landed) == {"planning", "adoption", "sending", "writing"} or not FULL, killer.landed


# --- at every sync of the disk --------------------------------------------------------------------------------------------

RECIPIENTS = 12
AT_ONCE = 4
STEP = size(5, 1)
HELD_US = 20_000  # how long a thread is held after each sync, which is the time to kill it there
SYNCS_AT_MOST = 400


class Cut(NamedTuple):
    """What became of a run that was to be killed at its k-th sync."""

    k: int
    killed: bool
    overshot: int  # further syncs that came through before the kill
    unknown: int


def test_a_kill_at_every_sync_of_the_disk(tmp_path: Path) -> None:
    """strace counts calls for each thread on its own, so the counting is done here: it holds the thread for a moment after
    each sync, prints the call at once, and the k-th line is answered with SIGKILL. What a killed process leaves is the same
    just before and just after a sync, for the page cache outlives it: k points are k different states of the files.
    """
    strace = needs("strace")
    cuts: list[Cut] = []
    with open_bench(tmp_path) as bench:
        provider = bench.provider(latency=["2ms", "20ms"])
        points = iter(range(random.Random(SEED).randrange(STEP) + 1, SYNCS_AT_MOST, STEP))
        with ThreadPoolExecutor(2) as pool:
            while not cuts or all(cut.killed for cut in cuts):
                pair = [next(points), next(points)]
                cuts += pool.map(lambda k: _cut(tmp_path / f"sync-{k}", provider, strace, k), pair)
    hits = [cut for cut in cuts if cut.killed]
    exact = sum(cut.overshot == 0 for cut in hits)
    print(
        f"{len(hits)} sync points from {hits[0].k} to {hits[-1].k}, {exact} exactly; "
        f"unknown rows: {sum(cut.unknown for cut in hits)}, at most {max(cut.unknown for cut in hits)} at one"
    )
    assert len(hits) >= 30 // STEP, f"only {len(hits)} sync points ({NOTE})"
    assert exact >= len(hits) // 2, f"only {exact} of {len(hits)} kills came before the next sync ({NOTE})"


def _cut(folder: Path, provider: Provider, strace: str, k: int) -> Cut:
    folder.mkdir()
    with open_bench(folder) as bench:
        campaign = bench.campaign(f"sync-{k}", provider, RECIPIENTS, send={"concurrency": AT_ONCE, "backoff": "200ms"})
        killed, overshot = _run_to_sync(bench, campaign, strace, k)
        bench.judge(campaign, provider, unknown_at_most=AT_ONCE, finished=False, planned=False)
        bench.finish(campaign)
        figures = bench.judge(campaign, provider, unknown_at_most=AT_ONCE if killed else 0)
    return Cut(k, killed, overshot, figures.unknown)


def _run_to_sync(bench: Bench, campaign: Campaign, strace: str, k: int) -> tuple[bool, int]:
    """Run under strace and kill at the k-th sync. Whether it came to that, and how many syncs too late."""
    pipe = bench.root / "trace"
    os.mkfifo(pipe)
    syncs, runner = 0, 0
    options = ("--seccomp-bpf", "-f", "-q", "-o", str(pipe), "-e", "trace=fsync,fdatasync", "-e", "signal=none")
    holding = ("-e", f"inject=fsync,fdatasync:delay_exit={HELD_US}")
    run = bench.send(campaign, before=(strace, *options, *holding))
    wake = threading.Timer(PATIENCE * crowd(), run.kill)  # a run that hangs closes no pipe
    wake.start()
    try:
        with pipe.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                # A call that another thread interrupts is printed in two halves; its end is what counts.
                if "sync" in line and "unfinished" not in line:
                    syncs += 1
                    runner = runner or int(line.split()[0])  # the first sync is the main thread's
                    if syncs == k:
                        # Not strace: a tracer that dies first lets its tracees go, and they would run on.
                        os.kill(runner, signal.SIGKILL)
    finally:
        wake.cancel()
        code = run.wait(10)
    assert code in {0, 1, -signal.SIGKILL, 128 + signal.SIGKILL}, run.story
    return syncs >= k, max(syncs - k, 0)
