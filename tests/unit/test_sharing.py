"""From a gate of one's own to slots while requests go on, on a virtual clock: judged by the moments at which they were written."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_sharedpace import BEGAN, SPREAD, Book, Process, book, most_in, now
from virtualtime import run

from runner.errors import LedgerError
from runner.ledger.slots import SET_OFF_US
from runner.pace import LONGEST_CORRECTION, Pace, RetiredError
from runner.sharedpace import budget_of
from runner.sharing import SwitchingGate
from runner.steadyclock import SteadyClock
from runner.units import Rate

__all__ = ["book"]  # the fixture


class LoopClock(SteadyClock):
    """The clock that the processes of one machine share: the loop's."""

    def __call__(self) -> int:
        return BEGAN + round(now() * 1e6)

    def monotonic(self, moment: int) -> float:
        return (moment - BEGAN) / 1e6


@pytest.fixture
def one_machine(book: Book) -> Book:
    book.ledger.steady = LoopClock(0)
    return book


@dataclass
class Holder(Process):
    """A process that is alone at first, and notes its intents in the ledger."""

    intents: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.slots = self.book.slots()
        self.theirs = self.gate  # by slots, for later
        self.first = Pace(self.rates, clock=now, sleep=self._sleep)
        self.switching = SwitchingGate(self.first)

    async def let_in(self) -> None:
        """What a run does when another one has come."""
        since = BEGAN
        self.theirs._cool = await self.first.retire()
        await asyncio.sleep(self.draw.uniform(*self.commit))
        slowest = round((self.first.slowest + LONGEST_CORRECTION) * 1e6)
        self.slots.follow(budget_of(self.rates)[0].gap, since, slowest)
        self.switching.switch(self.theirs)

    async def _work(self, left: Iterator[int]) -> None:
        for _ in left:
            sent = False
            while not sent:
                slot = await self.switching.reserve()
                self.intents += 1
                with self.book.ledger.writing() as connection:
                    connection.exec_driver_sql(
                        "INSERT INTO attempts (recipient_id, number, run_id, sender_id, started_at) VALUES (1, ?, 1, ?, ?)",
                        (self.intents, self.book.sender, self.book.ledger.clock()),
                    )
                await asyncio.sleep(self.draw.uniform(*self.commit))
                sent = await slot.ready()
                if sent:
                    await asyncio.sleep(self.draw.uniform(*self.connect))
                    sent = await slot.leaves()
                if not sent:
                    slot.drop()
                self.held_back += not sent
            slot.sent()
            self.stamps.append(now())
            await asyncio.sleep(self.draw.uniform(*self.reply))
            slot.answered()


def joined(holder: Holder, guests: Sequence[Process], count: int, at: float) -> list[float]:
    """The guests begin when the holder has let them in, which begins `at`; all of them send `count` between them."""
    with holder.book.empty().ledger.writing() as connection:
        connection.exec_driver_sql("DELETE FROM attempts")

    async def main() -> None:
        left = iter(range(count))
        sending = asyncio.create_task(holder.send(left))
        await asyncio.sleep(at)
        await holder.let_in()
        await asyncio.gather(sending, *(guest.send(left) for guest in guests))

    run(main())
    return sorted(itertools.chain(holder.stamps, *(guest.stamps for guest in guests)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rates=st.lists(st.builds(Rate, st.integers(8, 60), st.sampled_from([1.0, 3.0, 60.0])), min_size=1, max_size=3),
    guests=st.integers(1, 3),
    at=st.sampled_from([0.0, 0.3, 0.999, 1.0, 1.7, 2.9]),
    ask=SPREAD,
    commit=SPREAD,
    connect=SPREAD,
    frozen=st.sampled_from([0.0, 0.05, 15.0]),
    seed=st.integers(0, 10_000),
)
def test_no_window_that_reaches_over_the_change_holds_more_than_its_limit(
    one_machine: Book,
    rates: list[Rate],
    guests: int,
    at: float,
    ask: tuple[float, float],
    commit: tuple[float, float],
    connect: tuple[float, float],
    frozen: float,
    seed: int,
) -> None:
    def parts(i: int) -> tuple[Book, list[Rate], random.Random]:
        return one_machine, rates, random.Random(seed + i)

    holder = Holder(*parts(0), ask=ask, commit=commit, connect=connect, frozen=frozen)
    crowd = [Process(*parts(i + 1), ask=ask, commit=commit, connect=connect, frozen=frozen) for i in range(guests)]
    stamps = joined(holder, crowd, 120, at)
    assert len(stamps) == 120
    assert [rate for rate in rates if most_in(stamps, rate.window) > rate.count] == []


@pytest.mark.parametrize("rate", [40, 200])
def test_the_change_costs_no_more_than_a_moment(one_machine: Book, rate: int) -> None:
    holder = Holder(one_machine, [Rate(rate, 1.0)], random.Random(1), workers=30)
    guest = Process(one_machine, [Rate(rate, 1.0)], random.Random(2), workers=30)
    stamps = joined(holder, [guest], 8 * rate, 2.0)
    assert max(later - earlier for earlier, later in itertools.pairwise(stamps)) < 0.15
    assert min(len(holder.stamps), len(guest.stamps)) > 2 * rate
    assert most_in(stamps, 1.0) <= rate
    print(f"{rate}/s: {(len(stamps) - 1) / (stamps[-1] - stamps[0]) / rate:.1%} used")
    assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) / rate > 0.95


def test_a_slow_answer_costs_no_slots_where_the_clock_is_the_machines(one_machine: Book) -> None:
    """The slack is 30 ms, and the lock of the file is waited for longer than that."""
    one_machine.empty()
    process = Process(one_machine, [Rate(40, 1.0)], random.Random(1), workers=30, ask=(0.02, 0.12))

    async def main() -> None:
        await process.send(iter(range(200)))

    run(main())
    used = 199 / (process.stamps[-1] - process.stamps[0]) / 40
    print(f"{used:.1%} used, {process.gate.late} late")
    assert used > 0.9
    assert most_in(process.stamps, 1.0) <= 40


def test_what_was_sent_in_a_day_is_counted_in_few_rows(one_machine: Book) -> None:
    one_machine.empty()
    moment = one_machine.ledger.clock()
    with one_machine.ledger.writing() as connection:
        for number in range(5000):  # 50 a second, 100 seconds ago to now
            connection.exec_driver_sql(
                "INSERT INTO attempts (recipient_id, number, run_id, sender_id, started_at) VALUES (1, ?, 1, ?, ?)",
                (number + 1, one_machine.sender, moment - 100_000_000 + number * 20_000),
            )
    slots = one_machine.slots()
    slots.follow(25_800, moment - 100_000_000, 30_000)
    with one_machine.ledger.reading() as connection:
        rows, count = connection.exec_driver_sql("SELECT count(*), sum(n) FROM slots").one()
        slot_count, next_slot = connection.exec_driver_sql("SELECT slot_count, next_slot FROM senders").one()
    assert (count, slot_count) == (5000, 5000)
    assert rows < 60 * 100 + 45
    assert moment < next_slot < moment + 60_000
    budget, _ = budget_of([Rate(40, 1.0), Rate(5005, 86_400.0)])
    assert [slots.reserve(20, budget, 0.0).n for _ in range(2)] == [5, 0]


def test_a_block_of_slots_is_never_larger_than_a_limit(one_machine: Book) -> None:
    budget, _ = budget_of([Rate(400, 1.0), Rate(8, 60.0)])
    slots = one_machine.empty().slots()
    assert [slots.reserve(20, budget, 0.0).n for _ in range(2)] == [8, 0]


def test_a_request_whose_commit_took_too_long_is_held_back(one_machine: Book) -> None:
    """Or a run that begins after a kill would not count it: it believes that all left within two seconds."""
    one_machine.empty()

    async def main() -> bool:
        process = Process(one_machine, [Rate(10, 1.0)], random.Random(1))
        process.gate._set_off = SET_OFF_US / 1e6
        slot = await process.gate.reserve()
        await asyncio.sleep(2.5)
        went = await slot.ready()
        await process.gate.close()
        return went

    assert not run(main())


# --- the gate that changes --------------------------------------------------------------------------------------------------


def test_a_gate_that_retires_gives_back_nothing_and_waits_for_those_on_their_way() -> None:
    async def main() -> None:
        gate = Pace([Rate(10, 1.0)], clock=now)
        slot = await gate.reserve()
        retiring = asyncio.create_task(gate.retire())
        await asyncio.sleep(0)
        with pytest.raises(RetiredError):
            await gate.reserve()
        await asyncio.sleep(0.5)
        assert not retiring.done()
        slot.sent()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert retiring.done()
        assert gate.slowest == 0.5

    run(main())


def test_who_waits_for_a_turn_when_the_gate_changes_gets_it_from_the_next_one() -> None:
    async def main() -> None:
        first, second = (Pace([Rate(1, 60.0)], clock=now) for _ in range(2))
        gate = SwitchingGate(first)
        (await gate.reserve()).sent()
        waiting = asyncio.create_task(gate.reserve())
        await asyncio.sleep(5)
        await first.retire()
        gate.switch(second)
        (await waiting).sent()
        assert now() < 7

    run(main())


def test_when_there_is_no_next_gate_everybody_hears_why() -> None:
    async def main() -> None:
        first = Pace([Rate(10, 1.0)], clock=now)
        gate = SwitchingGate(first)
        await first.retire()
        waiting = asyncio.create_task(gate.reserve())
        await asyncio.sleep(0.1)
        gate.fail(LedgerError("the ledger is gone"))
        for each in (waiting, gate.reserve()):
            with pytest.raises(LedgerError, match="is gone"):
                await each

    run(main())


def test_a_wait_after_a_refusal_goes_over_to_the_next_gate(one_machine: Book) -> None:
    async def main() -> list[float]:
        holder = Holder(one_machine.empty(), [Rate(40, 1.0)], random.Random(1))
        slot = await holder.switching.reserve()
        slot.sent()
        assert holder.switching.cool_down(30.0, slot) == 30.0
        slot.answered()
        await holder.let_in()
        assert holder.switching.cool_downs_in_a_row == 1
        await holder.send(iter(range(3)))
        holder.switching.reached()
        assert holder.switching.cool_downs_in_a_row == 0
        return holder.stamps

    assert min(run(main())) >= 30
