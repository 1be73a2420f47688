"""Partitions and slots, on every kind of ledger: who may send what part, and when."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import ACCEPTED, IMPLEMENTATIONS, Clock, Implementation, Run, audience, plan

from runner.ledger.base import PartitionHold
from runner.ledger.partitions import Partitions
from runner.ledger.slots import Budget, Slots
from runner.ledger.sql import SqlLedger
from runner.model import Status

PHONES = [f"9053200000{i:02d}" for i in range(10)]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda kind: kind.name)
def ledger(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SqlLedger]:
    kind: Implementation = request.param
    kind.hurry(monkeypatch)
    opened = kind.open(tmp_path, clock)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_of(ledger: SqlLedger, clock: Clock) -> Run:
    return Run(ledger, plan(ledger, audience(*PHONES)), clock)


def part(run: Run, hold: PartitionHold | None) -> Run:
    """The run as the worker of a partition sees it."""
    assert hold is not None
    worker = Run(run.ledger, run.campaign, run.clock, run.id)
    worker.hold = replace(run.hold, partition=hold)
    return worker


def statuses(ledger: SqlLedger, campaign: int) -> dict[str, int]:
    return {status.value: n for status, n in ledger.counts(campaign).by_status.items()}


# --- partitions -------------------------------------------------------------------------------------------------------


def test_partitions_cover_everybody_who_waits_in_order_and_nobody_twice(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    run.send(ACCEPTED, Status.ACCEPTED, PHONES[4])
    partitions = Partitions(ledger)
    ids = partitions.make(run.campaign, run.id, 4)
    holds = [partitions.take(key, "here") for key in ids]
    assert [(hold.first, hold.last) for hold in holds if hold] == [(0, 3), (5, 8), (9, 9)]
    claimed = [claim.message.phone for hold in holds for claim in part(run, hold).claim()]
    assert claimed == PHONES[:4] + PHONES[5:]


def test_a_limit_cuts_partitions_of_the_first_only(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    partitions = Partitions(ledger)
    ids = partitions.make(run.campaign, run.id, 4, limit=6)
    assert sum(len(part(run, partitions.take(key, "here")).claim()) for key in ids) == 6


def test_whoever_takes_a_partition_over_fences_the_last_owner_and_settles_what_it_left(
    ledger: SqlLedger, clock: Clock
) -> None:
    run = run_of(ledger, clock)
    partitions = Partitions(ledger)
    (key,) = partitions.make(run.campaign, run.id, 100)
    old = part(run, partitions.take(key, "old"))
    sent, claimed, *_ = old.claim(3)
    old.begin(sent)
    new = part(run, partitions.take(key, "new"))
    assert statuses(ledger, run.campaign) == {"pending": 9, "unknown": 1}
    assert old.begin(claimed) == {claimed.id: "taken_over"}
    old.finish(sent, ACCEPTED, Status.ACCEPTED)  # a late result is a fact, whoever brings it
    assert statuses(ledger, run.campaign) == {"pending": 9, "accepted": 1}
    claims = new.claim()
    assert len(claims) == 9
    assert new.begin(*claims) == {}


def test_a_finished_partition_is_not_taken_again(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    partitions = Partitions(ledger)
    first, second = partitions.make(run.campaign, run.id, 5)
    hold = partitions.take(first, "here")
    assert hold is not None
    partitions.finish(replace(hold, epoch=hold.epoch - 1))  # somebody who has lost it
    assert partitions.unfinished(run.id) == [first, second]
    partitions.finish(hold)
    assert partitions.unfinished(run.id) == [second]
    assert partitions.take(first, "there") is None


@pytest.mark.parametrize("why", ["fenced", "another run", "paused"])
def test_nothing_is_taken_in_the_name_of_a_run_that_may_not_send(ledger: SqlLedger, clock: Clock, why: str) -> None:
    run = run_of(ledger, clock)
    partitions = Partitions(ledger)
    first, second = partitions.make(run.campaign, run.id, 5)
    worker = part(run, partitions.take(first, "here"))
    claim, *_ = worker.claim()
    if why == "fenced":
        partitions.fence(run.campaign, run.id)
    elif why == "paused":
        ledger.set_state(run.campaign, "paused")
    else:
        ledger.recover(run.campaign)
        ledger.begin_run(run.campaign, "another", "hash")
    assert partitions.take(second, "here") is None
    assert worker.begin(claim).keys() == {claim.id}


def test_the_view_names_workers_and_counts_what_they_have_done(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    partitions = Partitions(ledger)
    assert ledger.overviews("")[0].partitions is None
    first, second, _ = partitions.make(run.campaign, run.id, 4)
    hold = partitions.take(first, "ada")
    assert hold is not None
    partitions.finish(hold)
    clock.now += 7
    partitions.take(second, "bora")
    view = ledger.overviews("")[0].partitions
    assert view is not None
    assert (view.run_id, view.total, view.done) == (run.id, 3, 1)
    assert [(each.owner, each.taken, each.done, each.busy) for each in view.workers] == [
        ("ada", 1, 1, False),
        ("bora", 1, 0, True),
    ]


# --- slots ------------------------------------------------------------------------------------------------------------


def test_slots_of_a_sender_never_overlap_whoever_asks(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    slots, budget = Slots(ledger, run.sender), Budget(50_000)
    slots.rebuild(budget.gap)
    taken: list[int] = []

    def ask() -> None:
        taken.extend(slots.reserve(2, budget, 0.0).n for _ in range(3))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    assert sum(taken) == 24
    with ledger.reading() as connection:
        rows = connection.exec_driver_sql("SELECT upto, n, last FROM slots ORDER BY upto").all()
    ends = [(last - (n - 1) * 50_000, last) for _, n, last in rows]
    assert [upto for upto, _, _ in rows] == list(range(2, 25, 2))
    assert all(later[0] - earlier[1] >= 50_000 for earlier, later in itertools.pairwise(ends))


def test_a_pause_moves_the_next_slot(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    slots, budget = Slots(ledger, run.sender), Budget(10_000)
    slots.pause(1.5)
    slots.pause(0.5)  # the longer one stays
    granted = slots.reserve(1, budget, 0.0)
    assert granted.n == 1
    assert 1.2 < granted.delay <= 1.5
    slots.pause(60.0)
    refused = slots.reserve(1, budget, 0.0)
    assert refused.n == 0
    assert 56 < refused.delay <= 60


def test_a_long_window_counts_every_slot(ledger: SqlLedger, clock: Clock) -> None:
    run = run_of(ledger, clock)
    slots, budget = Slots(ledger, run.sender), Budget(1_000, ((5, 60_000_000),))
    assert [slots.reserve(n, budget, 0.0).n for n in (3, 4, 1)] == [3, 2, 0]
    assert slots.reserve(1, budget, 0.0).delay > 50
