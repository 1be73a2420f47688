"""Slots shared by several processes, on a virtual clock: judged by the moments at which requests were written."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtualtime import run

from runner.ledger.base import CampaignDraft, PlannedRow
from runner.ledger.slots import Budget, Granted, Slots
from runner.ledger.sqlite import SqliteLedger, open_sqlite
from runner.sharedpace import SharedPace, budget_of
from runner.units import Rate

BEGAN = 1_700_000_000_000_000  # microseconds: any moment
GRAIN = 1e-6


class Clock:
    """The database's clock: the loop's, wherever one runs."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> int:
        return BEGAN + round((now() + self.ahead) * 1e6)


@dataclass
class Book:
    """A ledger with one sender, made once and emptied for each case."""

    ledger: SqliteLedger
    clock: Clock
    sender: int

    def slots(self) -> Slots:
        return Slots(self.ledger, self.sender)

    def empty(self) -> Book:
        with self.ledger.writing() as connection:
            connection.exec_driver_sql("UPDATE senders SET next_slot = 0, slot_count = 0, paused_until = 0")
            connection.exec_driver_sql("DELETE FROM slots")
        return self


@pytest.fixture
def book() -> Iterator[Book]:
    clock = Clock()
    ledger = open_sqlite(Path("no-such-file"), create=False, clock=clock)
    with ledger.stage() as staging:
        staging.add([PlannedRow(0, 2, "905320000001", "TR", "905320000001", "", "", "", "", None, b"", "[]")])
        staging.settle("spring", "first")
        ledger.adopt(staging, CampaignDraft("spring", "wapim", "sender", ("Mobile",), "Mobile", {}, "hash"))
    yield Book(ledger, clock, ledger.campaign("spring").sender_id)
    ledger.close()


def now() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # before the loop runs
        return 0.0


def most_in(stamps: Sequence[float], window: float) -> int:
    """The most stamps in any half-open window of that length."""
    ordered = sorted(stamps)
    most = first = 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= window - GRAIN:
            first += 1
        most = max(most, last - first + 1)
    return most


@dataclass
class Process:
    """One process with its own gate and some senders in it, which behave like the engine's."""

    book: Book
    rates: Sequence[Rate]
    draw: random.Random
    workers: int = 6
    ask: tuple[float, float] = (0.001, 0.004)  # seconds that a question to the ledger takes, there and back
    commit: tuple[float, float] = (0.002, 0.01)
    connect: tuple[float, float] = (0.0, 0.002)
    reply: tuple[float, float] = (0.02, 0.08)
    frozen: float = 0.0  # now and then it wakes up to so much too late
    stamps: list[float] = field(default_factory=list)
    held_back: int = 0

    def __post_init__(self) -> None:
        slots = self.book.slots()

        async def take(n: int, budget: Budget, lead: float) -> Granted:
            await asyncio.sleep(self.draw.uniform(*self.ask) / 2)
            granted = slots.reserve(n, budget, lead)
            await asyncio.sleep(self.draw.uniform(*self.ask) / 2)
            return granted

        self.gate = SharedPace(self.rates, take=take, clock=now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        late = self.draw.uniform(0, self.frozen) if self.frozen and self.draw.random() < 0.05 else 0.0
        await asyncio.sleep(seconds + late)

    async def send(self, left: Iterator[int]) -> None:
        await asyncio.gather(*(self._work(left) for _ in range(self.workers)))
        await self.gate.close()

    async def _work(self, left: Iterator[int]) -> None:
        for _ in left:
            sent = False
            while not sent:
                slot = await self.gate.reserve()
                await asyncio.sleep(self.draw.uniform(*self.commit))
                sent = await slot.ready()
                if sent:
                    await asyncio.sleep(self.draw.uniform(*self.connect))
                    sent = await slot.leaves()
                self.held_back += not sent
            slot.sent()
            self.stamps.append(now())
            await asyncio.sleep(self.draw.uniform(*self.reply))
            slot.answered()


def together(processes: Sequence[Process], count: int) -> list[float]:
    """All of them send `count` between them; the moments."""

    async def main() -> None:
        left = iter(range(count))
        await asyncio.gather(*(process.send(left) for process in processes))

    run(main())
    return sorted(itertools.chain(*(process.stamps for process in processes)))


SPREAD = st.sampled_from([(0.0, 0.0), (0.0, 0.004), (0.001, 0.03), (0.0, 0.2)])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rates=st.lists(st.builds(Rate, st.integers(8, 60), st.sampled_from([1.0, 3.0, 60.0])), min_size=1, max_size=3),
    processes=st.integers(1, 5),
    ask=SPREAD,
    commit=SPREAD,
    connect=SPREAD,
    frozen=st.sampled_from([0.0, 0.05, 15.0]),
    seed=st.integers(0, 10_000),
)
def test_no_sliding_window_ever_holds_more_than_its_limit_whoever_sends(
    book: Book,
    rates: list[Rate],
    processes: int,
    ask: tuple[float, float],
    commit: tuple[float, float],
    connect: tuple[float, float],
    frozen: float,
    seed: int,
) -> None:
    book.empty()
    crowd = [
        Process(book, rates, random.Random(seed + i), ask=ask, commit=commit, connect=connect, frozen=frozen)
        for i in range(processes)
    ]
    stamps = together(crowd, 80)
    assert len(stamps) == 80
    assert [rate for rate in rates if most_in(stamps, rate.window) > rate.count] == []


@pytest.mark.parametrize("processes", [1, 4])
def test_the_limit_is_used_up_to_the_slack(book: Book, processes: int) -> None:
    rate = Rate(400, 1.0)
    crowd = [Process(book, [rate], random.Random(i), workers=60 // processes) for i in range(processes)]
    stamps = together(crowd, 2000)
    used = (len(stamps) - 1) / (stamps[-1] - stamps[0]) / 400
    print(f"{processes} processes: {used:.1%}, {sum(process.gate.late for process in crowd)} late")
    assert used > 0.96
    assert most_in(stamps, 1.0) <= 400


def test_there_is_no_burst_at_the_start(book: Book) -> None:
    stamps = together([Process(book, [Rate(20, 1.0)], random.Random(1), workers=50)], 40)
    assert all(later - earlier > 0.02 for earlier, later in itertools.pairwise(stamps))


def test_a_limit_an_hour_beside_one_a_second_is_not_spread_over_the_hour(book: Book) -> None:
    rates = [Rate(20, 1.0), Rate(50, 3600.0)]
    crowd = [Process(book, rates, random.Random(i)) for i in range(2)]
    stamps = together(crowd, 60)
    assert stamps[49] < 4
    assert stamps[50] - stamps[0] > 3600


def test_what_was_sent_without_slots_counts(book: Book) -> None:
    book.empty()
    with book.ledger.writing() as connection:
        for number in range(10):
            connection.exec_driver_sql(
                "INSERT INTO attempts (recipient_id, number, run_id, sender_id, started_at) VALUES (1, ?, 1, ?, ?)",
                (number + 1, book.sender, BEGAN - 30_000_000 + number),
            )
    slots = book.slots()
    budget, _ = budget_of([Rate(2, 1.0), Rate(10, 60.0)])
    slots.rebuild(budget.gap)
    refused = slots.reserve(1, budget, 0.0)
    assert refused.n == 0
    assert 29 < refused.delay < 32.5
    book.clock.ahead = 33
    assert slots.reserve(5, budget, 0.0).n == 5


def test_fewer_slots_are_given_where_a_long_window_is_nearly_full(book: Book) -> None:
    budget, _ = budget_of([Rate(20, 1.0), Rate(25, 60.0)])
    slots = book.empty().slots()
    assert [slots.reserve(20, budget, 0.0).n for _ in range(3)] == [20, 5, 0]


def test_slots_are_not_taken_far_ahead(book: Book) -> None:
    budget, _ = budget_of([Rate(1, 60.0)])
    slots = book.empty().slots()
    assert slots.reserve(1, budget, 0.0).n == 1
    refused = slots.reserve(1, budget, 0.0)
    assert refused.n == 0
    assert 57 < refused.delay < 61


def test_everybody_waits_when_the_sender_was_told_to_slow_down(book: Book) -> None:
    book.empty()
    first, second = (Process(book, [Rate(40, 1.0)], random.Random(i)) for i in range(2))

    async def main() -> None:
        left = iter(range(200))
        sending = asyncio.gather(first.send(left), second.send(left))
        await asyncio.sleep(1.0)
        assert first.gate.cool_down(30.0) == 30.0
        book.slots().pause(30.0)
        await sending

    run(main())
    quiet = [stamp for stamp in first.stamps + second.stamps if 2.0 < stamp < 31.0]
    assert quiet == []  # what had been taken by the other one before is used up within a second
    assert max(first.stamps + second.stamps) < 40


def test_a_slot_that_nobody_used_is_used_by_somebody_else_here(book: Book) -> None:
    book.empty()

    async def main() -> int:
        process = Process(book, [Rate(20, 1.0)], random.Random(1))
        (await process.gate.reserve()).drop()
        used = await process.gate.reserve()
        assert await used.ready()
        assert await used.leaves()
        await process.gate.close()
        with book.ledger.writing() as connection:
            return int(connection.exec_driver_sql("SELECT slot_count FROM senders").scalar_one())

    assert run(main()) == 1


def test_a_late_request_takes_a_moment_that_is_still_to_come(book: Book) -> None:
    """One request in ten has a slow commit; with moments bound to requests each of these would cost two."""
    rate = Rate(100, 1.0)
    process = Process(book, [rate], random.Random(3), workers=30)
    slow = random.Random(4)
    process.connect = (0.0, 0.0)
    sleep = process._sleep

    async def late(seconds: float) -> None:
        await sleep(seconds + (0.06 if slow.random() < 0.1 else 0.0))

    process.gate._sleep = late
    stamps = together([process], 1000)
    assert most_in(stamps, 1.0) <= 100
    assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) / 100 > 0.8


def test_a_request_that_has_waited_too_long_is_held_back(book: Book) -> None:
    book.empty()

    async def main() -> bool:
        process = Process(book, [Rate(1, 60.0)], random.Random(1))
        slot = await process.gate.reserve()
        await asyncio.sleep(5)  # frozen; the next slot is most of a minute away
        went = await slot.ready() and await slot.leaves()
        await process.gate.close()
        return went

    assert not run(main())
