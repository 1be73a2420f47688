"""Runs on many workers, with everything that can die dying: nobody is sent to twice, nobody is lost, the rate holds."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

import pytest
from machine import crowd

from cluster.clusterbench import FULL, Bench, Process, most_in, size, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

ROWS = size(300, 20_000)
LONG = size(1200, 20_000)  # rows that leave a newcomer time to start: up to 10 s on a busy machine
RATE = size(60, 400)
WORKERS = size(2, 4)
CONCURRENCY = size(40, 120)
DRAINED = {"accepted", "pending", "retry_wait"}  # nothing unknown, nothing lost
EACH = -(-CONCURRENCY // WORKERS)  # requests at once in one worker


def start(bench: Bench, *, rows: int = ROWS) -> Process:
    """A run on a cluster that has begun to send."""
    address = bench.cluster(WORKERS)
    file = bench.campaign("spring", rows, f"{RATE}/s", concurrency=CONCURRENCY)
    run = bench.send(file, "--cluster", address)
    until(lambda: run.over or bench.received() >= rows // 4, "a quarter of the requests")
    assert not run.over, run.out
    return run


def judge(bench: Bench, run: Process, *, rows: int = ROWS, unknown_at_most: int = 0, stalled: float = 0.0) -> None:
    """The end of a run that had to go on by itself."""
    run.must(0, 1)
    statuses = bench.judge("spring", rows, unknown_at_most=unknown_at_most)
    stamps, arrivals = bench.stamps(), [at for at, _ in bench.seen("spring")]
    elapsed, ideal = (arrivals[-1] - arrivals[0]) / 1e6, rows / RATE
    most = most_in(stamps, 1_000_000_000)
    print(
        f"{dict(statuses)}, {elapsed:.1f} s ({elapsed / ideal:.3f} of ideal), sent at most {most} in a second, "
        f"arrived {most_in(arrivals, 1_000_000)}, crowd {crowd():.1f}"
    )
    assert most <= RATE
    if FULL:  # on a machine that does nothing else
        assert most_in(arrivals, 1_000_000) <= RATE * 1.05
        assert elapsed <= 1.10 * ideal + stalled


def test_everybody_is_sent_to_once(bench: Bench) -> None:
    judge(bench, start(bench))


def kill_a_worker(bench: Bench) -> None:
    """Its nanny starts another one."""
    os.kill(bench.workers[0].child(), signal.SIGKILL)


def kill_a_machine(bench: Bench) -> None:
    """The worker and its nanny."""
    bench.workers[0].signal_all(signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_a_worker, kill_a_machine])
def test_a_worker_that_dies_leaves_its_part_to_others(bench: Bench, kill: Callable[[Bench], None]) -> None:
    run = start(bench)
    kill(bench)
    judge(bench, run, unknown_at_most=EACH)


def test_a_frozen_worker_that_wakes_sends_nothing_that_others_have_taken_over(bench: Bench) -> None:
    run = start(bench)
    frozen = bench.workers[0].child()
    os.kill(frozen, signal.SIGSTOP)
    time.sleep(size(7, 15))  # given up after 4 s
    with contextlib.suppress(ProcessLookupError):  # its nanny may have ended it by now
        os.kill(frozen, signal.SIGCONT)
    judge(bench, run, unknown_at_most=EACH)


def test_a_worker_that_joins_takes_its_share(bench: Bench) -> None:
    run = start(bench, rows=LONG)
    joined = bench.worker()
    pid = joined.child()
    judge(bench, run, rows=LONG)
    assert (bench.root / "stamps" / f"{pid}.stamps").read_text().count("\n") > 0


def test_a_run_outlives_its_scheduler(bench: Bench) -> None:
    run = start(bench)
    assert bench.scheduler is not None
    bench.scheduler.signal_all(signal.SIGKILL)
    for worker in bench.workers:
        worker.signal_all(signal.SIGKILL)  # as a supervisor would restart them
    bench.cluster(WORKERS)
    judge(bench, run, unknown_at_most=CONCURRENCY, stalled=30)
    assert "the scheduler is back" in run.out


SHORT = """
import runpy

from runner import cluster

cluster.LOST_SECONDS = 3.0
runpy.run_module("runner", run_name="__main__")
"""


def test_a_scheduler_that_comes_back_alone_waits_for_workers_and_not_for_ever(bench: Bench) -> None:
    (bench.root / "short.py").write_text(SHORT, encoding="utf-8")
    address = bench.cluster(WORKERS)
    file = bench.campaign("spring", ROWS, f"{RATE}/s", concurrency=CONCURRENCY, timeout="1s")
    run = bench.start("send", file, "--yes", "--cluster", address, module="short")
    until(lambda: run.over or bench.received() >= ROWS // 4, "a quarter of the requests")
    assert bench.scheduler is not None
    bench.scheduler.signal_all(signal.SIGKILL)
    bench.cluster(0)
    run.must(3)
    assert "has no workers: waiting for some" in run.out
    assert "start some, then the same command goes on" in run.out
    for _ in range(WORKERS):
        bench.worker()
    judge(bench, bench.send(file, "--cluster", address), unknown_at_most=CONCURRENCY, stalled=60)


def test_the_same_command_goes_on_after_everything_has_died(bench: Bench) -> None:
    run = start(bench)
    run.signal_all(signal.SIGKILL)
    for each in [*bench.workers, *([bench.scheduler] if bench.scheduler else [])]:
        each.signal_all(signal.SIGKILL)
    again = bench.send("campaigns/spring.yaml", "--cluster", bench.cluster(WORKERS))
    judge(bench, again, unknown_at_most=CONCURRENCY, stalled=60)


def test_the_database_may_be_restarted_in_the_middle(bench: Bench) -> None:
    run = start(bench)
    bench.server.restart()
    judge(bench, run, stalled=10)


# --- by a person's wish ---------------------------------------------------------------------------------------------------


def test_ctrl_c_drains_and_the_same_command_goes_on(bench: Bench) -> None:
    run = start(bench)
    run.signal_all(signal.SIGINT)
    run.must(130)
    halfway = len(bench.seen("spring"))
    assert halfway < ROWS
    assert {row["status"] for row in bench.results("spring")} <= DRAINED
    judge(bench, bench.send("campaigns/spring.yaml", "--cluster", f"tcp://127.0.0.1:{bench._port}"))


def test_a_pause_from_another_terminal_is_seen_by_all(bench: Bench) -> None:
    run = start(bench)
    bench.start("pause", "spring").must(0)
    run.must(3)
    assert len(bench.seen("spring")) < ROWS
    assert "paused from another terminal" in run.out


def test_status_shows_workers_and_partitions(bench: Bench) -> None:
    run = start(bench)
    shown = bench.start("status", "spring").must(0).out
    assert "partitions" in shown
    assert "process" in shown
    assert "sender" in shown
    run.must(0)


# --- workers on this machine ------------------------------------------------------------------------------------------------


def test_workers_on_this_machine_need_no_cluster(bench: Bench) -> None:
    file = bench.campaign("spring", ROWS, f"{RATE}/s", concurrency=CONCURRENCY)
    judge(bench, bench.send(file, "--workers", str(WORKERS)))


def test_workers_on_this_machine_do_not_outlive_their_command(bench: Bench) -> None:
    file = bench.campaign("spring", 600, f"{RATE}/s", concurrency=CONCURRENCY)
    run = bench.send(file, "--workers", "2")
    until(lambda: bench.received() > 60, "some requests")
    run.process.kill()
    run.wait()
    time.sleep(2)
    at = bench.received()
    time.sleep(2)
    assert bench.received() == at
    assert at < 600


def test_ctrl_c_in_the_terminal_drains_local_workers_as_well(bench: Bench) -> None:
    file = bench.campaign("spring", 600, f"{RATE}/s", concurrency=CONCURRENCY)
    run = bench.send(file, "--workers", "2")
    until(lambda: bench.received() > 60, "some requests")
    run.signal_all(signal.SIGINT)
    run.must(130)
    assert {row["status"] for row in bench.results("spring")} <= DRAINED


# --- refusals ---------------------------------------------------------------------------------------------------------------


def test_a_worker_with_another_version_is_refused_by_name(bench: Bench) -> None:
    other = bench.root / "other.py"
    other.write_text(
        "import runner.sameness\nours = dict(runner.sameness.program())\n"
        "runner.sameness.program = lambda: ours | {'aiohttp': '3.0.0'}\n"
    )
    address = bench.cluster(0)
    bench.worker(DASK_DISTRIBUTED__WORKER__PRELOAD=str(other))
    run = bench.send(bench.campaign("spring", 10, "10/s"), "--cluster", address).must(2)
    assert "aiohttp is 3.14" in run.out
    assert "3.0.0 there" in run.out
    assert bench.received() == 0


def test_no_secret_stands_in_any_log(bench: Bench) -> None:
    run = start(bench)
    kill_a_worker(bench)
    run.must(0, 1)
    written = "".join(path.read_text("utf-8", "replace") for path in bench.root.glob("log-*.txt"))
    assert "5e0b" not in written
    assert "invented%20pass" not in written
    assert "pass/word" not in written
