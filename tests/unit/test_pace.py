"""The pace gate on a virtual clock: judged by the moments at which requests were written, never by its own books."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtualtime import run

from runner.cooldown import LONGEST_COOL_DOWN
from runner.pace import CATCH_UP, GIVE_BACK, Pace, Slot, seconds_for
from runner.units import Rate

GRAIN = 1e-6  # seconds; far below the margin of a window


def now() -> float:
    return asyncio.get_running_loop().time()


def pace(*rates: Rate, recent: Sequence[float] = (), paused_for: float = 0.0) -> Pace:
    return Pace(rates, clock=asyncio.get_running_loop().time, recent=recent, paused_for=paused_for)


def most_in(stamps: Sequence[float], window: float) -> int:
    """The most stamps in any half-open window of that length, by brute force."""
    window -= GRAIN
    ordered = sorted(stamps)
    return max(sum(1 for other in ordered[i:] if other - first < window) for i, first in enumerate(ordered))


@dataclass
class Traffic:
    """Workers that behave like the engine's: reserve, make durable, wait for the moment, write, wait for the reply."""

    pace: Pace
    draw: random.Random
    workers: int = 8
    commit: tuple[float, float] = (0.0, 0.0)  # seconds between the slot and the durable intent
    connect: tuple[float, float] = (0.0, 0.0)  # seconds between `ready` and the first byte
    reply: tuple[float, float] = (0.05, 0.05)
    dropped: float = 0.0  # share of slots that are dropped before they are used
    lost: float = 0.0  # share of requests that never connect
    stamps: list[float] = field(default_factory=list)

    async def send(self, count: int) -> list[float]:
        left = iter(range(count))
        await asyncio.gather(*(self._work(left) for _ in range(self.workers)))
        return self.stamps

    async def _work(self, left: object) -> None:
        assert hasattr(left, "__next__")
        for _ in left:  # type: ignore[attr-defined]  # an iterator, shared by all workers
            slot = await self.pace.reserve()
            await asyncio.sleep(self.draw.uniform(*self.commit))
            if self.draw.random() < self.dropped:
                slot.drop()
                continue
            if not await slot.ready():
                continue
            await asyncio.sleep(self.draw.uniform(*self.connect))
            if self.draw.random() >= self.lost:
                slot.sent()
                self.stamps.append(now())
            await asyncio.sleep(self.draw.uniform(*self.reply))
            slot.answered()


# --- the limit --------------------------------------------------------------------------------------------------------

RATES = st.lists(
    st.builds(Rate, st.integers(1, 25), st.sampled_from([0.1, 0.5, 1.0, 3.0, 10.0])), min_size=1, max_size=3
)
SPREAD = st.sampled_from([(0.0, 0.0), (0.0, 0.002), (0.001, 0.03), (0.0, 0.4), (0.5, 3.0)])


@settings(max_examples=150, deadline=None)
@given(
    rates=RATES,
    workers=st.integers(1, 20),
    commit=SPREAD,
    connect=SPREAD,
    reply=SPREAD,
    dropped=st.sampled_from([0.0, 0.1, 0.6]),
    lost=st.sampled_from([0.0, 0.1, 0.6]),
    seed=st.integers(0, 10_000),
)
def test_no_sliding_window_ever_holds_more_than_its_limit(
    rates: list[Rate],
    workers: int,
    commit: tuple[float, float],
    connect: tuple[float, float],
    reply: tuple[float, float],
    dropped: float,
    lost: float,
    seed: int,
) -> None:
    async def main() -> list[float]:
        traffic = Traffic(pace(*rates), random.Random(seed), workers, commit, connect, reply, dropped, lost)
        return await traffic.send(90)

    stamps = run(main())
    assert [rate for rate in rates if stamps and most_in(stamps, rate.window) > rate.count] == []


@settings(max_examples=60, deadline=None)
@given(
    rates=RATES,
    refused=st.sampled_from([0.05, 0.3, 0.8]),
    asked=st.sampled_from([None, 0.0, 1.0, 7.0]),
    seed=st.integers(0, 10_000),
)
def test_the_limit_holds_and_nobody_is_stuck_whatever_is_refused(
    rates: list[Rate], refused: float, asked: float | None, seed: int
) -> None:
    draw = random.Random(seed)

    async def main() -> list[float]:
        gate, stamps = pace(*rates), []

        async def work(share: int) -> None:
            while share:
                slot = await gate.reserve()
                await asyncio.sleep(draw.uniform(0, 0.05))
                if not await slot.ready():
                    continue
                slot.sent()
                stamps.append(now())
                await asyncio.sleep(draw.uniform(0, 0.3))
                fate = draw.random()
                slot.answered(complete=fate > 0.02)
                if fate < refused:
                    gate.cool_down(asked, slot)
                elif fate < 0.95:
                    gate.reached(slot)
                    share -= 1

        await asyncio.gather(*(work(6) for _ in range(6)))
        return stamps

    stamps = run(main())
    assert len(stamps) >= 36
    assert [rate for rate in rates if most_in(stamps, rate.window) > rate.count] == []


def test_a_restart_counts_what_was_sent_before_it() -> None:
    rate = Rate(10, 60.0)
    ages = [40.0 - i for i in range(10)]  # ten requests, the last one 31 s ago

    async def main() -> list[float]:
        return await Traffic(pace(rate, recent=ages), random.Random(1)).send(25)

    stamps = run(main())
    before = [-age for age in ages]
    assert stamps[0] == pytest.approx(20.0, abs=0.1)  # when the oldest one leaves the window
    assert most_in(before + stamps, 60.0) == 10


@settings(max_examples=60, deadline=None)
@given(
    rates=RATES,
    ages=st.lists(st.floats(0, 12), max_size=60),
    seed=st.integers(0, 1000),
)
def test_the_limit_holds_over_a_restart_in_whatever_order_the_ages_come(
    rates: list[Rate], ages: list[float], seed: int
) -> None:
    async def main() -> list[float]:
        return await Traffic(pace(*rates, recent=ages), random.Random(seed), commit=(0, 0.1)).send(40)

    stamps = run(main())
    before = [-age for age in ages]
    for rate in rates:
        assert most_in(before + stamps, rate.window) <= max(rate.count, most_in(before, rate.window) if before else 0)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.builds(Rate, st.integers(1, 25), st.sampled_from([1.0, 10.0, 60.0])),
    way=st.sampled_from([0.001, 0.02, 0.2]),
    seed=st.integers(0, 10_000),
)
def test_the_limit_holds_where_the_requests_arrive_although_some_are_late(rate: Rate, way: float, seed: int) -> None:
    """Each takes its own time to the provider and none on the way back, so that the reply tells how late it was."""
    draw, arrived = random.Random(seed), list[float]()

    async def main() -> None:
        gate = pace(rate)
        lateness = max(0.02, rate.window / 100)

        async def work() -> None:
            for _ in range(15):
                slot = await gate.reserve()
                assert await slot.ready()
                slot.sent()
                await asyncio.sleep(way + draw.choice([0.0, 0.0, draw.uniform(0.0, lateness)]))
                arrived.append(now())
                slot.answered()

        fastest = await gate.reserve()  # the quickest way is known from the first request on
        fastest.sent()
        await asyncio.sleep(way)
        fastest.answered()
        await asyncio.gather(*(work() for _ in range(6)))

    run(main())
    assert most_in(arrived, rate.window) <= rate.count


# --- how much of the limit is used ------------------------------------------------------------------------------------


def test_requests_that_a_pause_of_the_machine_held_up_count_from_where_they_arrived() -> None:
    """The provider reads nothing for 150 ms: what was sent meanwhile arrives together, and the window after it begins there."""
    arrived = list[float]()

    async def main() -> None:
        gate, began = pace(Rate(80, 1.0)), now()

        async def work(worker: int) -> None:
            while len(arrived) < 500:
                slot = await gate.reserve()
                assert await slot.ready()
                slot.sent()
                deaf = max(0.0, 3.15 - (now() - began)) if now() - began > 3.0 else 0.0
                arrived.append(now() + deaf)
                await asyncio.sleep(deaf + 0.02 + worker % 5 / 2000)
                slot.answered()

        await asyncio.gather(*(work(worker) for worker in range(20)))

    run(main())
    assert most_in(arrived, 1.0) <= 80


def test_a_reply_that_was_there_before_it_was_read_holds_nobody_up() -> None:
    """The loop comes to every third reply 15 ms late. What counts is when it came: nothing says that its request was late."""

    async def main(*, known: bool) -> float:
        gate, written = pace(Rate(100, 1.0)), list[float]()

        async def work() -> None:
            while len(written) < 1000:
                slot = await gate.reserve()
                assert await slot.ready()
                slot.sent()
                written.append(now())
                await asyncio.sleep(0.02)
                came_at = now()
                await asyncio.sleep(0.0 if len(written) % 3 else 0.015)
                slot.answered(came_at=came_at if known else None)

        await asyncio.gather(*(work() for _ in range(20)))
        assert most_in(written, 1.0) <= 100
        return written[900] - written[0]  # nine windows

    assert run(main(known=True)) == pytest.approx(9 * 1.001)
    assert run(main(known=False)) > 9 * 1.001 + 0.01


@pytest.mark.parametrize(
    ("rates", "workers", "reply"),
    [
        ([Rate(1, 1.0)], 3, 0.2),
        ([Rate(20, 1.0)], 10, 0.2),
        ([Rate(20, 1.0), Rate(600, 60.0)], 10, 0.2),
        ([Rate(10, 60.0)], 1, 0.2),
        ([Rate(200, 1.0)], 50, 0.15),
        ([Rate(1000, 1.0)], 50, 0.02),
    ],
    ids=str,
)
def test_a_steady_sender_uses_the_limit(rates: list[Rate], workers: int, reply: float) -> None:
    async def main() -> list[float]:
        traffic = Traffic(pace(*rates), random.Random(3), workers, commit=(0.003, 0.012), reply=(reply, reply + 0.004))
        return await traffic.send(60 if rates[0].per_second <= 1 else 2500)

    stamps = run(main())
    assert stamps[-1] - stamps[0] <= seconds_for(len(stamps), rates) / 0.99 + CATCH_UP


def test_requests_are_spaced_evenly_from_the_first_on() -> None:
    async def main() -> list[float]:
        return await Traffic(pace(Rate(20, 1.0)), random.Random(1), workers=50).send(60)

    stamps = run(main())
    assert stamps[0] == 0.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    assert min(gaps) >= 0.05 - 0.003
    assert max(gaps) <= 0.05 + 0.005


@pytest.mark.parametrize("recent", [(), (500.0, 400.0)], ids=["first run", "after a restart"])
def test_there_is_no_burst_when_the_first_request_comes_late(recent: tuple[float, ...]) -> None:
    async def main() -> list[float]:
        gate = pace(Rate(20, 1.0), recent=recent)
        await asyncio.sleep(3600)  # a start_at
        return await Traffic(gate, random.Random(1), workers=50).send(20)

    assert most_in(run(main()), 0.2) <= 4  # 0.2 s at 20/s


def test_a_hiccup_is_made_up_for_but_not_more_than_the_catch_up() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(100, 10.0))  # the window leaves room: 10 in a second are even, 100 allowed
        traffic = Traffic(gate, random.Random(1), workers=1, reply=(0.0, 0.0))
        await traffic.send(10)
        await asyncio.sleep(2.0)
        await traffic.send(10)
        return traffic.stamps[10:]

    stamps = run(main())
    assert sum(1 for at in stamps if at - stamps[0] < 0.01) == round(CATCH_UP / 0.1) + 1


def test_without_limits_nobody_waits() -> None:
    async def main() -> float:
        await Traffic(pace(), random.Random(1), workers=1, reply=(0.0, 0.0)).send(500)
        return now()

    assert run(main()) == 0.0


# --- turns ------------------------------------------------------------------------------------------------------------


def test_turns_are_given_first_come_first_served() -> None:
    async def main() -> list[int]:
        gate, order = pace(Rate(10, 1.0)), []

        async def one(name: int) -> None:
            slot = await gate.reserve()
            order.append(name)
            assert await slot.ready()
            slot.sent()
            slot.answered()

        await asyncio.gather(*(one(name) for name in range(30)))
        return order

    assert run(main()) == list(range(30))


@pytest.mark.parametrize("rate", [Rate(1, 60.0), Rate(3, 10.0)], ids=str)
def test_cancelling_a_waiting_turn_uses_nothing_up(rate: Rate) -> None:
    async def main() -> float:
        gate = pace(rate)
        await Traffic(gate, random.Random(1)).send(rate.count)
        waiting = [asyncio.create_task(gate.reserve()) for _ in range(20)]
        await asyncio.sleep(0.5)
        for task in waiting:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in done)
        slot = await gate.reserve()
        assert await slot.ready()
        return now()

    assert run(main()) == pytest.approx(rate.window, abs=0.1)


def test_cancelling_the_first_in_line_lets_the_second_go() -> None:
    async def main() -> float:
        gate = pace(Rate(1, 10.0))
        await Traffic(gate, random.Random(1)).send(1)
        first, second = asyncio.create_task(gate.reserve()), asyncio.create_task(gate.reserve())
        await asyncio.sleep(5.0)
        first.cancel()
        await second
        return now()

    assert run(main()) == pytest.approx(10.0, abs=0.1)


def test_a_request_that_never_connected_uses_nothing_up() -> None:
    """Connection refused: `ready`, no `sent`, `answered`. The place in the ring must not stay taken for ever."""

    async def main() -> list[float]:
        gate = pace(Rate(5, 1.0))
        for _ in range(12):
            slot = await gate.reserve()
            assert await slot.ready()
            slot.answered(complete=False)
        assert now() < 0.1  # not even the spacing
        return await Traffic(gate, random.Random(1)).send(11)

    stamps = run(main())
    assert stamps[-1] - stamps[0] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]], ids=str)
def test_dropped_slots_give_their_place_to_the_next(order: list[int]) -> None:
    async def main() -> list[float]:
        gate = pace(Rate(3, 60.0))
        slots = [await gate.reserve() for _ in range(3)]
        for index in order:
            slots[index].drop()
        start = now()
        stamps = await Traffic(gate, random.Random(1)).send(3)
        return [at - start for at in stamps]

    assert run(main())[-1] < 60.0  # three went out within one window


def test_a_slot_dropped_between_two_that_are_sent_breaks_no_limit() -> None:
    async def main() -> list[float]:
        gate, stamps = pace(Rate(3, 1.0)), []
        slots = [await gate.reserve() for _ in range(3)]
        for slot in (slots[2], slots[0]):
            assert await slot.ready()
            slot.sent()
            stamps.append(now())
        slots[1].drop()
        return stamps + await Traffic(gate, random.Random(1)).send(30)

    assert most_in(run(main()), 1.0) <= 3


def test_what_is_over_stays_over() -> None:
    """Dropped twice, answered after a drop, sent after a drop: nothing is counted twice."""

    async def main() -> list[float]:
        gate = pace(Rate(2, 1.0))
        gate.cool_down()
        for finish in (Slot.drop, Slot.answered, Slot.sent):
            slot = await gate.reserve()
            slot.drop()
            finish(slot)
            slot.drop()
        slot = await gate.reserve()  # a count that went below 0 would hold the probe back, or let two through
        second = asyncio.create_task(gate.reserve())
        await asyncio.sleep(30)
        assert not second.done()
        slot.drop()
        (await second).drop()
        gate.reached()
        return await Traffic(gate, random.Random(1)).send(9)

    stamps = run(main())
    assert most_in(stamps, 1.0) == 2


# --- cooling down -----------------------------------------------------------------------------------------------------


async def refuse(gate: Pace, asked: float | None = None) -> float:
    slot = await gate.reserve()
    assert await slot.ready()
    slot.sent()
    await asyncio.sleep(0.01)
    slot.answered()
    return gate.cool_down(asked, slot)


def test_a_cool_down_doubles_with_each_refusal_in_a_row_up_to_a_minute() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(100, 1.0))
        return [await refuse(gate) for _ in range(9)]

    assert run(main()) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert LONGEST_COOL_DOWN == 60


def test_the_providers_own_retry_after_is_kept() -> None:
    async def main() -> tuple[float, float]:
        gate = pace(Rate(100, 1.0))
        asked = await refuse(gate, 17.0)
        slot = await gate.reserve()
        assert await slot.ready()
        return asked, now()

    asked, at = run(main())
    assert asked == 17.0
    assert at == pytest.approx(17.0, abs=0.05)


def test_a_retry_after_that_was_not_enough_is_not_believed_a_second_time() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(100, 1.0))
        return [await refuse(gate, 0.0) for _ in range(4)]

    assert run(main()) == pytest.approx([1, 2, 4, 8])


def test_many_refusals_of_one_batch_are_one_cool_down() -> None:
    async def main() -> tuple[list[float], int]:
        gate = pace()
        slots = [await gate.reserve() for _ in range(50)]
        for slot in slots:
            assert await slot.ready()
            slot.sent()
        said = []
        for slot in slots:
            await asyncio.sleep(0.1)  # the last refusal comes in long after the pause is over
            slot.answered()
            said.append(gate.cool_down(None, slot))
        return said, gate.cool_downs_in_a_row

    said, in_a_row = run(main())
    assert (said[0], in_a_row) == (1.0, 1)
    assert set(said[1:]) == {0.0}  # nothing new to tell anybody


def test_refusals_of_one_batch_that_ask_for_the_same_wait_are_told_once() -> None:
    async def main() -> list[float]:
        gate = pace()
        slots = [await gate.reserve() for _ in range(10)]
        for slot in slots:
            assert await slot.ready()
        said = []
        for slot in slots:
            await asyncio.sleep(0.01)
            said.append(gate.cool_down(2.0, slot))
        for slot in slots:
            slot.answered()
        assert await (await gate.reserve()).ready()
        said.append(now())
        return said

    *said, end = run(main())
    assert said == pytest.approx([2.0] + [0.0] * 9)
    assert end == pytest.approx(2.1)  # every one of them was obeyed


def test_a_late_refusal_may_still_lengthen_the_wait() -> None:
    async def main() -> tuple[float, float]:
        gate = pace()
        first, second = await gate.reserve(), await gate.reserve()
        assert await first.ready()
        assert await second.ready()
        return gate.cool_down(None, first), gate.cool_down(30.0, second)

    assert run(main()) == (1.0, 30.0)


def test_after_a_cool_down_one_request_tries_the_water() -> None:
    async def main() -> None:
        gate = pace(Rate(1000, 1.0))
        await refuse(gate)
        waiting: deque[asyncio.Task[Slot]] = deque(asyncio.create_task(gate.reserve()) for _ in range(10))
        await asyncio.sleep(60)
        assert [task.done() for task in waiting] == [True] + [False] * 9
        probe = await waiting.popleft()
        assert await probe.ready()
        probe.sent()
        probe.answered()  # the outcome is not known yet, or unknown: the next one tries
        await asyncio.sleep(60)
        assert [task.done() for task in waiting] == [True] + [False] * 8
        probe = await waiting.popleft()
        assert await probe.ready()
        gate.reached(probe)
        start = now()
        await asyncio.gather(*waiting)
        assert now() - start < 0.05

    run(main())


def test_of_the_slots_already_handed_out_one_goes_and_the_others_are_given_back() -> None:
    """They have their intents in the ledger when the refusal comes in; a second of waiting must not end in a volley."""

    async def main() -> tuple[list[float], int]:
        gate, left = pace(), list[float]()
        first = await gate.reserve()
        assert await first.ready()
        held = [await gate.reserve() for _ in range(10)]
        first.answered()
        gate.cool_down(None, first)

        async def go(slot: Slot) -> bool:
            if not await slot.ready():
                return False
            left.append(now())
            slot.sent()
            await asyncio.sleep(20)
            slot.answered()
            return True

        went = await asyncio.gather(*(go(slot) for slot in held))
        return left, went.count(False)

    left, given_back = run(main())
    assert left == [pytest.approx(1.0, abs=0.01)]
    assert given_back == 9


def test_slots_that_wait_for_the_probe_follow_when_it_is_answered_well() -> None:
    async def main() -> list[float]:
        gate, left = pace(), list[float]()
        first = await gate.reserve()
        assert await first.ready()
        held = [await gate.reserve() for _ in range(3)]
        first.answered()
        gate.cool_down(None, first)

        async def go(slot: Slot) -> None:
            assert await slot.ready()
            left.append(now())
            await asyncio.sleep(0.1)
            slot.answered()
            gate.reached(slot)

        await asyncio.gather(*(go(slot) for slot in held))
        return left

    assert run(main()) == pytest.approx([1.0, 1.1, 1.1], abs=0.05)


def test_a_slot_that_would_have_to_wait_long_after_its_intent_is_given_back_at_once() -> None:
    async def main() -> tuple[bool, float]:
        gate = pace(Rate(10, 1.0))
        slot = await gate.reserve()
        gate.cool_down(GIVE_BACK + 1.0)
        return await slot.ready(), now()

    assert run(main()) == (False, 0.0)


def test_a_slot_that_is_given_back_uses_nothing_up() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(2, 10.0))
        slots = [await gate.reserve() for _ in range(2)]
        gate.cool_down(5.0)
        assert [await slot.ready() for slot in slots] == [False, False]
        slot = await gate.reserve()
        assert await slot.ready()
        slot.sent()
        slot.answered()
        gate.reached(slot)
        return [now(), *(await Traffic(gate, random.Random(1)).send(1))]

    first, second = run(main())
    assert first == pytest.approx(10.0, abs=0.05)  # the second slot came at 5 s, the cool-down lasts 5 s more
    assert second == pytest.approx(15.0, abs=0.1)  # spaced evenly, within the same window


def test_cancelling_a_slot_that_waits_for_its_moment_uses_nothing_up() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(1, 10.0))
        slot = await gate.reserve()
        gate.cool_down(1.0)
        waiting = asyncio.create_task(slot.ready())
        await asyncio.sleep(0.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await Traffic(gate, random.Random(1)).send(1)

    assert run(main()) == pytest.approx([1.0], abs=0.05)


def test_a_good_reply_to_an_older_request_does_not_end_the_cool_down() -> None:
    async def main() -> tuple[int, list[bool]]:
        gate = pace()
        refused, older = await gate.reserve(), await gate.reserve()
        for slot in (refused, older):
            assert await slot.ready()
            slot.sent()
        refused.answered()
        gate.cool_down(None, refused)
        await asyncio.sleep(0.5)
        older.answered()
        gate.reached(older)
        waiting = [asyncio.create_task(gate.reserve()) for _ in range(5)]
        await asyncio.sleep(10)
        done = [task.done() for task in waiting]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return gate.cool_downs_in_a_row, done

    assert run(main()) == (1, [True, False, False, False, False])


def test_a_good_reply_starts_the_doubling_anew() -> None:
    async def main() -> float:
        gate = pace()
        for _ in range(4):
            await refuse(gate)
        slot = await gate.reserve()
        assert await slot.ready()
        slot.answered()
        gate.reached(slot)
        return await refuse(gate)

    assert run(main()) == pytest.approx(1.0)


def test_there_is_no_burst_after_a_cool_down() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(20, 1.0))
        traffic = Traffic(gate, random.Random(1), workers=50)
        await traffic.send(20)
        gate.cool_down(30.0)
        gate.reached()
        return (await traffic.send(20))[20:]

    assert most_in(run(main()), 0.2) <= 4


def test_a_run_that_starts_in_a_cool_down_waits_it_out_and_probes() -> None:
    async def main() -> list[float]:
        gate = pace(Rate(100, 1.0), paused_for=12.0)
        begun = []

        async def one() -> None:
            slot = await gate.reserve()
            assert await slot.ready()
            begun.append(now())
            await asyncio.sleep(3)
            slot.answered()
            gate.reached(slot)

        await asyncio.gather(one(), one())
        return begun

    assert run(main()) == pytest.approx([12.0, 15.0], abs=0.05)


def test_somebody_always_goes_on_when_all_are_refused_now_and_then() -> None:
    """A virtual clock shows a deadlock at once: nobody is ready and no timer is set."""

    async def main() -> int:
        gate, draw, sent = pace(Rate(1, 1.0), Rate(3, 5.0)), random.Random(5), 0

        async def work() -> None:
            nonlocal sent
            for _ in range(40):
                slot = await gate.reserve()
                choice = draw.randrange(5)
                if choice == 0 or not await slot.ready():
                    slot.drop()
                    continue
                if choice > 1:
                    slot.sent()
                    sent += 1
                await asyncio.sleep(draw.uniform(0, 4))
                slot.answered()
                if choice == 2:
                    gate.cool_down(draw.choice([None, 3.0]), slot)
                elif choice > 2:
                    gate.reached(slot)

        await asyncio.gather(*(work() for _ in range(7)))
        return sent

    assert run(main()) > 50


# --- the estimate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "rates", "seconds"),
    [
        (0, [Rate(20, 1.0)], 0.0),
        (1, [Rate(20, 1.0)], 0.0),
        (21, [Rate(20, 1.0)], 1.0),
        (1201, [Rate(20, 1.0)], 60.0),
        (11, [Rate(10, 60.0)], 60.0),
        (100, [Rate(20, 1.0), Rate(50, 3600.0)], 3600.0 + 49 / 20),
        (101, [Rate(20, 1.0), Rate(50, 3600.0)], 7200.0),
        (11, [Rate(10, 1.0), Rate(5, 1.0)], 2.0),
        (1_000_000, [], 0.0),
    ],
)
def test_the_least_time_that_the_limits_allow(count: int, rates: list[Rate], seconds: float) -> None:
    assert seconds_for(count, rates) == pytest.approx(seconds)


@settings(max_examples=50, deadline=None)
@given(rates=RATES, count=st.integers(1, 80))
def test_the_estimate_is_never_longer_than_it_really_takes(rates: list[Rate], count: int) -> None:
    async def main() -> float:
        stamps = await Traffic(pace(*rates), random.Random(1), workers=20, reply=(0.0, 0.0)).send(count)
        return stamps[-1] - stamps[0]

    assert seconds_for(count, rates) <= run(main()) + CATCH_UP
