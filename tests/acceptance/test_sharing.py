"""Two campaigns on one sender at the same time: together they keep its limit, and use it. The judge is the stand-in's own log."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Sequence

import pytest

from acceptance.test_rate import SLOW, arrivals, best_share, share, worst
from acceptance.workbench import OpenSandbox, Running, Workbench, by_phone, numbers, until
from runner.sandbox import Sandbox, Scenario
from runner.sandbox_scenario import Action, Rule

pytestmark = pytest.mark.xdist_group("rate")  # one after the other: they measure time

SHARED = "share its pace"
WANTED = 0.85  # of the limit, by both together


def begin(bench: Workbench, box: Sandbox, name: str, phones: Sequence[str], rate: object, token: str = "") -> Running:
    """Start sending a campaign of that name to these numbers."""
    bench.audience(((f"+{phone}", "Ada") for phone in phones), name=f"{name}.csv")
    provider = {"provider": {"token": "${OTHER_TOKEN}"}} if token else {}
    send = {"rate": rate, "concurrency": 40}
    file = bench.campaign(box.url, name=name, audience={"file": f"{name}.csv"}, send=send, **provider)
    return bench.start("send", file, "--yes", **({"OTHER_TOKEN": token} if token else {}))


def begin_both(
    bench: Workbench, box: Sandbox, one: Sequence[str], two: Sequence[str], rate: object = "40/s", after: int = 10
) -> tuple[Running, Running]:
    """The second one starts in the middle of the first, and when this returns they share the pace."""
    first = begin(bench, box, "one", one, rate)
    until(lambda: len(box.log) >= after, what="the first requests")
    second = begin(bench, box, "two", two, rate)
    until(lambda: all(run.said("err", SHARED) for run in (first, second)), what="both to share the pace")
    return first, second


def of(box: Sandbox, phones: Sequence[str]) -> list[int]:
    """When the requests for these numbers arrived, in order."""
    wanted = set(phones)
    return sorted(entry.at_us for entry in box.log if entry.phone in wanted)


def used_by_both(box: Sandbox, one: Sequence[str], two: Sequence[str], per_second: float) -> float:
    """The part of the limit that was used while both were sending."""
    ours, theirs = of(box, one), of(box, two)
    began, ended = max(ours[0], theirs[0]), min(ours[-1], theirs[-1])
    return share([at for at in arrivals(box) if began <= at <= ended], per_second)


@pytest.mark.parametrize("rate", [40, 100])
def test_two_campaigns_share_the_rate_of_their_sender_and_use_it(
    open_bench: Callable[[], Workbench], open_sandbox: OpenSandbox, rate: int
) -> None:
    one, two = numbers(rate * 10), numbers(rate * 4, 5001)

    def once() -> float:
        bench = open_bench()
        box, ticks = open_sandbox.with_pulse(Scenario(magic=False, latency=SLOW))
        for done in begin_both(bench, box, one, two, f"{rate}/s"):
            done.wait().must(0)

        used, most = used_by_both(box, one, two, rate), worst(box, ticks)
        hole = max(later - at for at, later in itertools.pairwise(arrivals(box))) / 1e6
        print(
            f"{rate}/s by two: {used:.1%} used, at most {most} in a second, never longer than {hole:.2f} s without any"
        )
        assert sorted(by_phone(box)) == sorted(one + two)
        assert set(bench.statuses("one").values()) == set(bench.statuses("two").values()) == {"accepted"}
        assert most <= rate
        return used

    assert best_share(once, WANTED) >= WANTED


def test_two_senders_run_side_by_side_at_their_own_full_pace(
    open_bench: Callable[[], Workbench], open_sandbox: OpenSandbox
) -> None:
    one, two = numbers(240), numbers(240, 5001)

    def once() -> float:
        bench = open_bench()
        boxes = [open_sandbox.with_pulse(Scenario(magic=False, latency=SLOW)) for _ in range(2)]
        runs = [
            begin(bench, box, name, phones, "40/s", token)
            for (box, _), name, phones, token in zip(
                boxes, ("one", "two"), (one, two), ("", "invented-token-2"), strict=True
            )
        ]
        for run in runs:
            assert SHARED not in run.wait().must(0).err
        for (box, ticks), phones in zip(boxes, (one, two), strict=True):
            assert sorted(by_phone(box)) == phones
            assert worst(box, ticks) <= 40
        (first, _), (second, _) = boxes
        assert max(arrivals(first)[0], arrivals(second)[0]) < min(arrivals(first)[-1], arrivals(second)[-1])
        used = [share(arrivals(box), 40) for box, _ in boxes]
        print(f"40/s each: {used[0]:.1%} and {used[1]:.1%} used")
        return min(used)

    assert best_share(once) >= 0.95


@pytest.mark.parametrize("victim", ["first", "second"])
def test_when_one_is_killed_the_other_goes_on_and_the_limit_holds(
    bench: Workbench, open_sandbox: OpenSandbox, victim: str
) -> None:
    box, ticks = open_sandbox.with_pulse(Scenario(magic=False, latency=SLOW))
    one, two = numbers(400), numbers(240, 5001)
    runs = dict(zip(("first", "second"), begin_both(bench, box, one, two), strict=True))
    killed, left = runs.pop(victim), runs.popitem()[1]
    until(lambda: len(of(box, two)) >= 30, what="requests of the second")
    killed.signal(signal.SIGKILL)
    killed.wait()
    name, phones = ("one", one) if victim == "first" else ("two", two)
    sent = len(of(box, phones))
    again = bench.start("send", f"campaigns/{name}.yaml", "--yes")  # comes in again, in the middle of the other
    assert again.wait().code in (0, 1)
    left.wait().must(0)

    unknown = {phone for phone, status in bench.statuses(name).items() if status == "unknown"}
    assert len(unknown) <= 40
    assert set(one + two) - set(by_phone(box)) <= unknown
    assert 0 < sent < len(phones)
    assert worst(box, ticks) <= 40


def test_the_heir_of_a_run_that_was_killed_alone_counts_what_it_has_sent(
    bench: Workbench, open_sandbox: OpenSandbox
) -> None:
    """Killed at whatever moment of letting the other one in."""
    for number in range(6):
        box, ticks = open_sandbox.with_pulse(Scenario(magic=False, latency=SLOW))
        two = numbers(60, 5001)
        first = begin(bench, box, f"one-{number}", numbers(400), "40/s")
        until(lambda: len(box.log) >= 40, what="the first requests")  # noqa: B023 - it is over before the next round
        second = begin(bench, box, f"two-{number}", two, "40/s")
        until(lambda: second.said("out", "Plan  "), what="the second run's plan")  # noqa: B023
        time.sleep(number / 10)
        first.signal(signal.SIGKILL)
        first.wait()
        second.wait().must(0)
        assert len(of(box, two)) == 60
        assert worst(box, ticks) <= 40


def test_a_third_comes_in_and_the_first_goes(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    box, ticks = open_sandbox.with_pulse(Scenario(magic=False, latency=SLOW))
    crowd = [numbers(360), numbers(700, 5001), numbers(80, 9001)]
    first, second = begin_both(bench, box, crowd[0], crowd[1])
    first.wait().must(0)
    third = begin(bench, box, "three", crowd[2], "40/s")
    assert SHARED in third.wait().must(0).err
    second.wait().must(0)
    assert sorted(by_phone(box)) == sorted(itertools.chain(*crowd))
    assert worst(box, ticks) <= 40


def test_a_longer_limit_holds_for_both_together(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    """Moments that passed unused count as well, so a busy machine may stay a little below it."""
    box, ticks = open_sandbox.with_pulse()
    one, two = numbers(600), numbers(600, 5001)
    runs = begin_both(bench, box, one, two, ["40/s", "400/min"])
    until(lambda: len(box.log) >= 350, what="350 requests")
    time.sleep(5.0)  # enough for another 200
    for run in runs:
        run.signal(signal.SIGTERM)
        run.wait().must(130)
    assert min(len(of(box, one)), len(of(box, two))) > 10
    assert worst(box, ticks, 60) <= 400
    assert worst(box, ticks) <= 40


def test_both_wait_when_one_is_told_to_slow_down(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    refused = Rule(Action(status=429, headers=(("Retry-After", "4"),)), times=1, after=360)
    box, ticks = open_sandbox.with_pulse(Scenario(magic=False, latency=SLOW, rules=(refused,)))
    one, two = numbers(400), numbers(160, 5001)
    for run in begin_both(bench, box, one, two):
        run.wait().must(0)
    told = next(entry.at_us for entry in box.log if entry.status == 429)
    after = [(at - told) / 1e6 for at in arrivals(box) if at > told]
    assert [at for at in after if 1.0 < at < 4.0] == []  # slots that had been taken before are used up within a second
    assert after[-1] < 15
    assert of(box, two)[0] < told
    assert len(of(box, two)) > 40
    assert len({entry.phone for entry in box.log if entry.accepted_by_provider}) == 560
    assert worst(box, ticks) <= 40
