"""Sending again converges on the file: nobody twice, nothing lost, whatever came in between."""

from __future__ import annotations

import signal
import socket
import time

import pytest
from machine import crowd

from acceptance.workbench import CALM, OpenSandbox, Running, Workbench, by_phone, captions, numbers, sent_phones, until
from runner.sandbox import Action, Rule, Sandbox, SandboxSettings, Scenario

SLOW = Scenario(magic=False, latency=(0.2, 0.2))


def people(*phones: str) -> list[tuple[str, str]]:
    return [(f"+{phone}", f"n{phone[-3:]}") for phone in phones]


def begin_slowly(bench: Workbench, box: Sandbox, count: int, seen: int, rate: str = "4/s") -> tuple[str, Running]:
    """A campaign to `count` people that is being sent, `seen` requests of it so far."""
    bench.audience(people(*numbers(count)))
    campaign = bench.campaign(box.url, send={"rate": rate, "concurrency": 6})
    running = bench.start("send", campaign, "--yes")
    until(lambda: len(box.log) >= seen, what=f"{seen} requests")
    return campaign, running


def waiting(statuses: dict[str, str]) -> int:
    """How many are still to be sent. A message that was about to leave when the run ended waits in retry_wait."""
    return sum(status in {"pending", "retry_wait"} for status in statuses.values())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# --- the file changes ---------------------------------------------------------------------------------------------------


def test_a_second_send_sends_nothing_and_a_new_row_is_the_only_one_sent(bench: Workbench, box: Sandbox) -> None:
    first = numbers(20)
    bench.audience(people(*first))
    campaign = bench.campaign(box.url)
    bench.send(campaign).must(0)
    assert sorted(by_phone(box)) == first

    again = bench.send(campaign).must(0)
    assert "Nothing to send" in again.out
    assert len(box.log) == 20

    bench.audience(people(*numbers(3, 101), *first[5:]))  # new ones on top, five gone, every other one further down
    planned = bench.run("plan", campaign, "--json").must(0).json()
    assert (planned["to_send"], planned["settled"], planned["gone"]) == (3, {"accepted": 15}, {"accepted": 5})
    bench.send(campaign).must(0)
    assert sorted(sent_phones(box)[20:]) == numbers(3, 101)
    assert len(by_phone(box)) == 23
    rows = bench.results()
    assert [row["phone"] for row in rows] == [*numbers(3, 101), *first[5:], *first[:5]]
    assert [row["row"] for row in rows] == [*map(str, range(2, 20)), *[""] * 5]  # those gone from the file come last
    assert {row["status"] for row in rows} == {"accepted"}


def test_an_edited_caption_reaches_only_those_who_have_got_nothing_yet(bench: Workbench, box: Sandbox) -> None:
    phones = numbers(10)
    bench.audience(people(*phones))
    campaign = bench.campaign(box.url, message={"caption": "Old words"})
    bench.send(campaign, "--limit", "4").must(0)
    got_old = set(sent_phones(box))
    assert len(got_old) == 4

    campaign = bench.campaign(box.url, message={"caption": "New words"})
    planned = bench.run("plan", campaign).must(0)
    assert "4 people have had this campaign already" in planned.out.replace("\n           ", " ")
    bench.send(campaign).must(0)

    assert captions(box) == {phone: "Old words" if phone in got_old else "New words" for phone in phones}
    assert len(by_phone(box)) == 10
    kept = {row["phone"]: row["caption"] for row in bench.results()}
    assert kept == captions(box)


# --- the plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_is_accepted_while_it_holds_and_refused_when_it_is_stale(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(5)))
    campaign = bench.campaign(box.url)
    approved = bench.run("plan", campaign, "--json").must(0).json()["plan"]

    bench.audience(people(*numbers(6)))
    stale = bench.send(campaign, "--plan", approved).must(4)
    assert approved in stale.err
    assert "campaign plan" in stale.err
    assert box.log == []

    bench.audience(people(*numbers(5)))
    bench.send(campaign, "--plan", approved).must(0)
    assert sorted(by_phone(box)) == numbers(5)


def test_an_interrupted_run_goes_on_under_the_plan_that_was_approved(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(8)))
    campaign = bench.campaign(box.url)
    approved = bench.run("plan", campaign, "--json").must(0).json()["plan"]
    bench.send(campaign, "--plan", approved, "--limit", "3").must(0)
    assert len(box.log) == 3
    bench.send(campaign, "--plan", approved).must(0)
    assert sorted(by_phone(box)) == numbers(8)


def test_an_opt_out_makes_an_approved_plan_stale(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(3)))
    campaign = bench.campaign(box.url)
    approved = bench.run("plan", campaign, "--json").must(0).json()["plan"]
    bench.run("optout", "add", f"+{numbers(1)[0]}").must(0)
    bench.send(campaign, "--plan", approved).must(4)
    assert box.log == []


def test_to_sends_to_the_named_numbers_only(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(9)))
    campaign = bench.campaign(box.url, audience={"default_region": "TR"})
    bench.send(campaign, "--to", "0532 000 00 07", "--to", "+905320000003").must(0)
    assert sorted(sent_phones(box)) == ["905320000003", "905320000007"]
    statuses = bench.statuses()
    assert [phone for phone, status in statuses.items() if status == "accepted"] == ["905320000003", "905320000007"]
    assert waiting(statuses) == 7

    stranger = bench.send(campaign, "--to", "+905320000999").must(2)
    assert "905320000999" in stranger.err
    assert len(box.log) == 2

    bench.send(campaign, "--to", "0532 000 00 07").must(0)  # has it already
    assert len(box.log) == 2


def test_a_dry_run_opens_no_socket_and_leaves_no_ledger(bench: Workbench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as provider:
        bench.audience(people(*numbers(5)))
        campaign = bench.campaign(f"http://127.0.0.1:{provider.getsockname()[1]}")
        shown = bench.run("send", campaign, "--dry-run").must(0)
        bench.run("check", campaign).must(0)
        bench.run("plan", campaign).must(0)
        provider.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            provider.accept()
    assert "to send" in shown.out
    assert not (bench.root / "reports").exists()


def test_without_yes_and_without_a_terminal_nothing_is_sent(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(3)))
    refused = bench.run("send", bench.campaign(box.url)).must(2)
    assert "--yes" in refused.err
    assert box.log == []


# --- a run ends early -------------------------------------------------------------------------------------------------------


def test_a_stopped_run_drains_says_how_to_go_on_and_sends_exactly_the_rest(
    bench: Workbench, open_sandbox: OpenSandbox
) -> None:
    box = open_sandbox(SLOW)
    campaign, running = begin_slowly(bench, box, 40, 12, rate="20/s")
    running.signal(signal.SIGTERM)
    stopped = running.wait().must(130)
    first = sent_phones(box)
    statuses = bench.statuses()
    assert sorted(first) == [phone for phone, status in statuses.items() if status == "accepted"]
    assert waiting(statuses) == 40 - len(first)
    assert "unknown" not in statuses.values()
    assert f"{40 - len(first)} are still to be sent. Go on with: campaign send {campaign}" in stopped.out

    bench.send(campaign).must(0)
    assert sorted(by_phone(box)) == numbers(40)
    assert set(bench.statuses().values()) == {"accepted"}


def test_a_second_signal_stops_at_once_and_what_is_on_the_wire_is_unknown(
    bench: Workbench, open_sandbox: OpenSandbox
) -> None:
    box = open_sandbox(Scenario(magic=False, latency=(8.0, 8.0)))
    _, running = begin_slowly(bench, box, 20, 6, rate="20/s")
    running.signal(signal.SIGINT)
    until(lambda: running.said("err", "waiting for the replies"))
    running.signal(signal.SIGINT)
    began = time.monotonic()
    running.wait().must(130)
    assert time.monotonic() - began < 6  # well before the replies
    statuses = bench.statuses()
    assert sorted(sent_phones(box)) == [phone for phone, status in statuses.items() if status == "unknown"]
    assert len(box.log) == 6  # the concurrency
    assert waiting(statuses) == 14


def test_after_a_kill_nobody_is_requested_twice_and_every_row_is_accounted_for(
    bench: Workbench, open_sandbox: OpenSandbox
) -> None:
    box = open_sandbox(SLOW)
    campaign, running = begin_slowly(bench, box, 60, 20, rate="unlimited")
    running.signal(signal.SIGKILL)
    running.wait()
    killed_at = len(box.log)
    resumed = bench.send(campaign).must(1)
    assert "unknown" in resumed.out
    assert killed_at < 60

    requests = by_phone(box)  # fails if anybody was requested twice
    statuses = bench.statuses()
    unknown = {phone for phone, status in statuses.items() if status == "unknown"}
    assert sorted(statuses) == numbers(60)
    assert set(statuses.values()) == {"accepted", "unknown"}
    assert 1 <= len(unknown) <= 6
    assert {phone for phone, status in statuses.items() if status == "accepted"} <= requests.keys()
    assert set(numbers(60)) - requests.keys() <= unknown

    bench.send(campaign).must(0)  # an unknown row is never sent again by itself
    assert len(box.log) == len(requests)


def test_a_refused_token_stops_the_run_and_the_rest_stays_pending(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(50)))
    campaign = bench.campaign(box.url)
    stopped = bench.send(campaign, WAPIM_TOKEN="bad-token").must(3)
    assert "token" in stopped.out + stopped.err
    refused = len(box.log)
    assert 1 <= refused <= 8  # the concurrency
    assert {entry.status for entry in box.log} == {401}
    assert waiting(bench.statuses()) == 50 - refused

    bench.run("retry", "spring", "--rejected").must(0)
    bench.send(campaign).must(0)
    assert box.stats().accepted_by_provider == 50
    assert box.stats().phones_accepted_twice == []


@pytest.mark.parametrize("people_before", [0, 15], ids=["from_the_start", "in_the_middle"])
def test_a_provider_that_is_down_for_a_while_costs_nobody_their_message(bench: Workbench, people_before: int) -> None:
    port = free_port()
    box = Sandbox(SandboxSettings(port=port, scenario=CALM))
    bench.audience(people(*numbers(40)))
    campaign = bench.campaign(f"http://127.0.0.1:{port}", send={"rate": "20/s", "concurrency": 6})
    if people_before:
        with box.in_thread():
            running = bench.start("send", campaign, "--yes")
            until(lambda: len(box.log) >= people_before, what=f"{people_before} requests")
    else:
        running = bench.start("send", campaign, "--yes")
        until(lambda: running.said("err", "cannot be reached"), what="the first failure")
    time.sleep(3)
    with box.in_thread():
        ended = running.wait()
    requests = by_phone(box)
    statuses = bench.statuses()
    unknown = {phone for phone, status in statuses.items() if status == "unknown"}
    assert len(unknown) <= (6 if people_before else 0)  # those on the wire when it went down
    ended.must(1 if unknown else 0)
    assert set(numbers(40)) - requests.keys() <= unknown
    assert {phone for phone, status in statuses.items() if status == "accepted"} == set(numbers(40)) - unknown


# --- a person decides --------------------------------------------------------------------------------------------------------


def test_rejected_rows_are_sent_again_by_choice_only(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    rule = Rule(Action(status=400), phone="90532000000[12]", times=2)
    box = open_sandbox(Scenario(magic=False, rules=(rule,)))
    bench.audience(people(*numbers(5)))
    campaign = bench.campaign(box.url)
    bench.send(campaign).must(1)
    refused = [row for row in bench.results() if row["status"] == "rejected"]
    assert [(row["phone"], row["code"]) for row in refused] == [("905320000001", "400"), ("905320000002", "400")]
    bench.send(campaign).must(0)
    assert len(box.log) == 5

    assert "2 rows" in bench.run("retry", "spring", "--rejected").must(0).out
    bench.send(campaign).must(0)
    assert sorted(sent_phones(box)[5:]) == ["905320000001", "905320000002"]
    assert set(bench.statuses().values()) == {"accepted"}
    assert {row["attempts"] for row in bench.results()} == {"1", "2"}


def test_unsent_rows_are_sent_again_by_choice_only(bench: Workbench) -> None:
    port = free_port()
    bench.audience(people(*numbers(2)))
    campaign = bench.campaign(f"http://127.0.0.1:{port}", send={"retries": 0, "concurrency": 2})
    bench.send(campaign).must(1)
    assert [(row["status"], row["reason"].split(":")[0]) for row in bench.results()] == [
        ("not_sent", "unreachable")
    ] * 2

    with Sandbox(SandboxSettings(port=port, scenario=CALM)).in_thread() as box:
        bench.send(campaign).must(0)
        assert box.log == []
        bench.run("retry", "spring", "--not-sent", "--reason", "rate_limited").must(0)
        bench.send(campaign).must(0)
        assert box.log == []
        bench.run("retry", "spring", "--not-sent").must(0)
        bench.send(campaign).must(0)
        assert sorted(by_phone(box)) == numbers(2)


def test_unknown_rows_are_sent_again_only_with_duplicates_accepted(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    rule = Rule(Action(status=500), phone="905320000001", times=1)
    box = open_sandbox(Scenario(magic=False, rules=(rule,)))
    bench.audience(people(*numbers(3)))
    campaign = bench.campaign(box.url)
    bench.send(campaign).must(1)
    assert bench.statuses()["905320000001"] == "unknown"

    refused = bench.run("retry", "spring", "--unknown").must(2)
    assert "--accept-duplicates" in refused.err
    bench.send(campaign).must(0)
    assert len(box.log) == 3

    bench.run("retry", "spring", "--unknown", "--accept-duplicates").must(0)
    bench.send(campaign).must(0)
    assert sent_phones(box)[3:] == ["905320000001"]
    assert set(bench.statuses().values()) == {"accepted"}


def test_an_opt_out_during_a_run_counts_from_the_next_message_on(bench: Workbench, box: Sandbox) -> None:
    _, running = begin_slowly(bench, box, 60, 3)
    bench.run("optout", "add", f"+{numbers(60)[-1]}").must(0)
    running.wait().must(0)
    assert sorted(by_phone(box)) == numbers(59)
    last = bench.results()[-1]
    assert (last["status"], last["attempts"]) == ("skipped", "0")
    assert last["reason"].startswith("suppressed")


def test_a_pause_stops_a_live_run_and_send_goes_on(bench: Workbench, box: Sandbox) -> None:
    _, running = begin_slowly(bench, box, 100, 5)
    bench.run("pause", "spring").must(0)
    paused_us, began = time.time_ns() // 1000, time.monotonic()
    stopped = running.wait().must(3)
    print(f"ended {time.monotonic() - began:.1f} s after the pause")
    assert time.monotonic() - began < 2 * crowd()
    assert max(entry.at_us for entry in box.log) < paused_us + 1_000_000
    assert "paused" in stopped.out
    paused_at = len(box.log)
    assert paused_at < 100
    assert waiting(bench.statuses()) == 100 - paused_at
    assert bench.run("status", "spring", "--json").must(0).json()[0]["state"] == "paused"

    bench.send(bench.campaign(box.url)).must(0)
    assert sorted(by_phone(box)) == numbers(100)


def test_a_cancel_gives_up_the_rest_of_a_live_run(bench: Workbench, box: Sandbox) -> None:
    _, running = begin_slowly(bench, box, 100, 5)
    bench.run("cancel", "spring").must(0)
    running.wait().must(1)
    sent = len(by_phone(box))
    assert sent < 100
    statuses = bench.statuses()
    assert sorted(sent_phones(box)) == [phone for phone, status in statuses.items() if status == "accepted"]
    given_up = [row["reason"].split(":")[0] for row in bench.results() if row["status"] == "skipped"]
    assert given_up == ["cancelled"] * (100 - sent)


def test_a_cancel_gives_up_those_who_wait_for_the_next_run(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(6)))
    campaign = bench.campaign(box.url)
    bench.send(campaign, "--limit", "2").must(0)
    assert "4 rows are given up" in bench.run("cancel", "spring").must(0).out
    bench.run("report", "spring").must(0)
    assert list(bench.statuses().values()) == ["accepted", "accepted", *["skipped"] * 4]
    assert len(box.log) == 2


def test_a_second_runner_is_turned_away_and_told_who_is_sending(bench: Workbench, box: Sandbox) -> None:
    campaign, running = begin_slowly(bench, box, 100, 5)
    second = bench.send(campaign).must(4)
    assert f"process {running.process.pid} on {socket.gethostname()}" in second.err
    running.signal(signal.SIGTERM)
    running.wait().must(130)
    bench.send(bench.campaign(box.url)).must(0)
    assert sorted(by_phone(box)) == numbers(100)


def test_a_stop_while_the_plan_is_made_is_an_orderly_interruption(bench: Workbench, box: Sandbox) -> None:
    bench.audience(people(*numbers(20_000)))
    running = bench.start("send", bench.campaign(box.url), "--yes")
    until((bench.root / "reports" / "ledger.sqlite3").exists, what="the ledger")
    running.signal(signal.SIGTERM)
    running.wait().must(130)
    assert box.log == []
