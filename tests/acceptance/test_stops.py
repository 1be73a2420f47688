"""When a run stops by itself: the first few go badly, the provider fails, or somebody opts out while it goes on."""

from __future__ import annotations

import os

from acceptance.workbench import Finished, OpenSandbox, Workbench, by_phone, numbers, sent_phones, until
from runner.sandbox import Action, Drop, Rule, Sandbox, Scenario


def people(bench: Workbench, count: int) -> list[str]:
    phones = numbers(count)
    bench.audience((f"+{phone}", "Ada") for phone in phones)
    return phones


def words(finished: Finished) -> str:
    """What it printed, with lines joined that were broken to fit a terminal."""
    return " ".join(finished.out.split())


def one_by_one(box: Sandbox, bench: Workbench, **send: object) -> str:
    return bench.campaign(box.url, send={"concurrency": 1, **send})


def test_a_canary_that_goes_badly_stops_the_rest(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    box = open_sandbox(Scenario(magic=False, rules=(Rule(Action(status=400), times=3),)))
    phones = people(bench, 20)
    campaign = one_by_one(box, bench, canary=4, stop_when={"rejected": "50% of 50"})
    stopped = bench.send(campaign).must(3)
    assert "of the first messages more than the allowed share is refused" in words(stopped)
    assert sent_phones(box) == phones[:4]
    assert list(bench.statuses().values()).count("pending") == 16


def test_a_canary_that_goes_well_is_followed_by_the_rest(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    box = open_sandbox(Scenario(magic=False, rules=(Rule(Action(status=400), times=1),)))
    phones = people(bench, 12)
    bench.send(one_by_one(box, bench, canary=4)).must(1)
    assert sent_phones(box) == phones
    assert list(bench.statuses().values()).count("accepted") == 11


def test_unknowns_in_a_row_stop_the_run_and_the_same_command_goes_on(
    bench: Workbench, open_sandbox: OpenSandbox
) -> None:
    box = open_sandbox(Scenario(magic=False, rules=(Rule(Action(drop=Drop.AFTER_READ), times=3),)))
    phones = people(bench, 10)
    campaign = one_by_one(box, bench, stop_when={"unknown_in_a_row": 3})
    stopped = bench.send(campaign).must(3)
    assert "3 unknown outcomes in a row" in words(stopped)
    assert f"campaign send {campaign}" in words(stopped)  # how to go on
    assert sent_phones(box) == phones[:3]

    bench.send(campaign).must(1)
    assert sent_phones(box) == phones  # the three unknown ones were not sent again
    assert sorted(bench.statuses().values()) == ["accepted"] * 7 + ["unknown"] * 3


def test_too_many_refusals_stop_the_run(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    box = open_sandbox(Scenario(magic=False, rules=(Rule(Action(status=400), after=4),)))
    people(bench, 30)
    stopped = bench.send(one_by_one(box, bench, stop_when={"rejected": "50% of 10"})).must(3)
    assert "more than 50% of 10 messages are refused" in words(stopped)
    assert len(box.log) == 10


def test_an_image_too_big_for_one_is_too_big_for_all_who_share_it(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    box = open_sandbox(Scenario(magic=False, rules=(Rule(Action(status=413)),)))
    people(bench, 10)
    stopped = bench.send(one_by_one(box, bench)).must(3)
    assert "the image is too big for the provider" in words(stopped)
    assert len(box.log) == 1


def test_a_number_added_to_a_suppression_file_while_the_run_goes_on_is_left_out(
    bench: Workbench, open_sandbox: OpenSandbox
) -> None:
    box = open_sandbox(Scenario(magic=False))
    phones = people(bench, 40)
    file = bench.write("campaigns/optouts.csv", f"Phone\n+{phones[0]}\n")
    campaign = bench.campaign(box.url, audience={"suppress": ["optouts.csv"]}, send={"rate": "5/s", "concurrency": 1})
    running = bench.start("send", campaign, "--yes")
    until(lambda: len(box.log) >= 3, what="three requests")
    fresh = file.with_suffix(".new")
    fresh.write_text(f"Phone\n+{phones[0]}\n+{phones[-1]}\n")
    os.replace(fresh, file)  # noqa: PTH105 - as an editor saves
    running.wait().must(0)
    assert sorted(by_phone(box)) == phones[1:-1]
    row = next(row for row in bench.results() if row["phone"] == phones[-1])
    assert (row["status"], row["reason"]) == ("skipped", "suppressed: opted out after planning")
