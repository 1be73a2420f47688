"""Rows whose fate is not known: never sent again by themselves, proved by the provider, or queued again by a person's word."""

from __future__ import annotations

import os
import pty
import select
import sqlite3
import subprocess
import sys
import time

import pytest

from acceptance.workbench import OpenSandbox, Workbench, sent_phones
from runner.sandbox import Action, Drop, Rule, Sandbox, Scenario

TAKEN, DROPPED, FINE = "905320000701", "905320000801", "905320000001"
LOSSES = Scenario(
    magic=False,
    queue_seconds=0.0,
    rules=(
        Rule(Action("taken, no reply", drop=Drop.AFTER_READ), phone=TAKEN, times=1),
        Rule(Action("not taken, no reply", drop=Drop.AFTER_READ, taken=False), phone=DROPPED, times=1),
    ),
)


@pytest.fixture
def lossy(bench: Workbench, open_sandbox: OpenSandbox) -> tuple[Workbench, Sandbox, str]:
    """A campaign with two unknown rows, of which the provider has one."""
    box = open_sandbox(LOSSES)
    bench.audience((f"+{phone}", "Ada") for phone in (FINE, TAKEN, DROPPED))
    campaign = bench.campaign(box.url)
    bench.send(campaign).must(1)
    assert bench.statuses() == {FINE: "accepted", TAKEN: "unknown", DROPPED: "unknown"}
    return bench, box, campaign


def sends_of(box: Sandbox) -> int:
    return sum(entry.phone != "" for entry in box.log)


def audits(bench: Workbench) -> list[tuple[str, str]]:
    with sqlite3.connect(bench.root / "reports" / "ledger.sqlite3") as ledger:
        found = ledger.execute("SELECT action, detail FROM audits ORDER BY id").fetchall()
    ledger.close()
    return found


def test_the_provider_s_own_history_proves_one_and_its_silence_proves_nothing(
    lossy: tuple[Workbench, Sandbox, str],
) -> None:
    bench, box, campaign = lossy
    sends = sends_of(box)
    asked = bench.run("reconcile", "spring").must(1)
    assert "2 questions asked, 1 rows proved to be accepted, 1 still unknown" in asked.out
    assert DROPPED in asked.out
    assert sends_of(box) == sends  # asking sends nothing
    assert bench.statuses() == {FINE: "accepted", TAKEN: "accepted", DROPPED: "unknown"}
    assert any(action == "reconciled" and "chat history" in detail for action, detail in audits(bench))

    bench.send(campaign).must(0)  # nothing to do: an unknown is never sent again by itself
    assert sends_of(box) == sends


def test_a_message_still_in_the_queue_is_proved_by_its_id(bench: Workbench, open_sandbox: OpenSandbox) -> None:
    contradiction = b'{"queue_message_id": "12025550100_0123456789ABCDEF0123", "status": false}'
    rule = Rule(Action("an id, and status false", body=contradiction, taken=True), phone=TAKEN)
    box = open_sandbox(Scenario(magic=False, rules=(rule,), queue_seconds=3600))
    bench.audience([(f"+{TAKEN}", "Ada")])
    bench.send(bench.campaign(box.url)).must(1)
    (row,) = bench.results()
    assert (row["status"], row["queue_id"]) == ("unknown", "12025550100_0123456789ABCDEF0123")
    asked = bench.run("reconcile", "spring", "--json").must(1).json()
    assert asked == {
        "asked": 2,
        "proved": 0,
        "unanswered": 0,
        "unknown": [2],
    }  # the queue, then the history: neither has it


def test_sending_an_unknown_row_again_needs_a_word_that_duplicates_are_accepted(
    lossy: tuple[Workbench, Sandbox, str],
) -> None:
    bench, box, campaign = lossy
    refused = bench.run("retry", "spring", "--unknown").must(2)
    assert "2 people may already have the message" in refused.err
    assert "--accept-duplicates" in refused.err
    bench.send(campaign).must(0)
    assert sorted(sent_phones(box)) == sorted((FINE, TAKEN, DROPPED))

    bench.run("retry", "spring", "--unknown", "--accept-duplicates").must(0)
    bench.send(campaign).must(0)
    assert bench.statuses() == {FINE: "accepted", TAKEN: "accepted", DROPPED: "accepted"}
    assert sorted(sent_phones(box)) == [FINE, TAKEN, TAKEN, DROPPED, DROPPED]
    assert any(action == "requeue" and "duplicates accepted" in detail for action, detail in audits(bench))


@pytest.mark.parametrize(("typed", "code"), [("may be sent twice", 0), ("yes", 2)])
def test_on_a_terminal_the_words_must_be_typed(lossy: tuple[Workbench, Sandbox, str], typed: str, code: int) -> None:
    bench, _, _ = lossy
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "retry", "spring", "--unknown"],
        cwd=bench.root,
        env=bench.environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen, until = "", time.monotonic() + 30
    try:
        while "to go on" not in seen and time.monotonic() < until:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 4096).decode()
        assert "2 people may already have received this message" in seen
        os.write(master, f"{typed}\n".encode())
        assert process.wait(30) == code
    finally:
        process.kill()
        process.wait()
        os.close(master)
    pending = bench.run("status", "spring", "--json").must(0).json()[0]["totals"].get("pending", 0)
    assert pending == (2 if code == 0 else 0)
