"""What every ledger must do. A new implementation is one line in `ledgers.IMPLEMENTATIONS`; nothing here names one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time

import pytest
from ledgers import (
    ACCEPTED,
    ANNA,
    BORIS,
    CEM,
    DILA,
    EREN,
    IMPLEMENTATIONS,
    LOST,
    REFUSED,
    REJECTED,
    Clock,
    Implementation,
    Run,
    audience,
    draft,
    plan,
    row,
)

from runner.errors import LedgerError, TakenOverError, UnknownCampaignError
from runner.ledger.base import Claim, Counts, Finish, Intent, LedgerRow, PartitionHold, Wanted
from runner.ledger.schema import partitions
from runner.ledger.slots import Slots
from runner.ledger.sql import SqlLedger
from runner.model import Outcome, Status, Verdict

Opener = Callable[[], SqlLedger]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Implementation:
    chosen: Implementation = request.param
    return chosen


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def another(kind: Implementation, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens the test's ledger, as often as wanted."""
    kind.hurry(monkeypatch)
    opened: list[SqlLedger] = []

    def open_one() -> SqlLedger:
        opened.append(kind.open(tmp_path, clock))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(another: Opener) -> SqlLedger:
    return another()


def rows_of(ledger: SqlLedger, name: str = "spring") -> list[LedgerRow]:
    return list(ledger.results(ledger.campaign(name).id))


def seen(ledger: SqlLedger, name: str = "spring") -> dict[str, str]:
    """Phone -> status, of the rows with a phone."""
    return {row.phone: row.status for row in rows_of(ledger, name) if row.phone}


def counts(ledger: SqlLedger) -> Counts:
    """With the invariant: what is in the file adds up, however far it has come."""
    found = ledger.counts(ledger.campaign("spring").id)
    rows = rows_of(ledger)
    assert found.total == len(rows)
    assert sum(1 for each in rows if each.row is not None) == found.total - found.gone
    return found


# --- planning ---------------------------------------------------------------------------------------------------------


def test_a_new_campaign_has_a_row_for_every_row_of_the_file(ledger: SqlLedger) -> None:
    plan(ledger, audience(ANNA, "", BORIS, ANNA), suppressed=[BORIS])
    assert [(each.row, each.phone, each.status, each.reason, each.detail) for each in rows_of(ledger)] == [
        (2, ANNA, "pending", "", ""),
        (3, "", "skipped", "invalid_phone", "not a phone number"),
        (4, BORIS, "skipped", "suppressed", "optouts.csv"),
        (5, ANNA, "skipped", "duplicate", "the same number as row 2"),
    ]
    assert counts(ledger).by_status == {Status.PENDING: 1, Status.SKIPPED: 3}


def test_planning_the_same_file_again_changes_nothing(ledger: SqlLedger) -> None:
    people = audience(ANNA, "", BORIS, ANNA)
    plan(ledger, people)
    before = rows_of(ledger)
    plan(ledger, people)
    assert rows_of(ledger) == before


@pytest.mark.parametrize(
    ("duplicates", "kept", "detail"),
    [("first", [2], "the same number as row 2"), ("last", [6], "the same number as row 6")],
)
def test_one_of_several_rows_with_a_number_is_sent(
    ledger: SqlLedger, duplicates: str, kept: list[int], detail: str
) -> None:
    people = audience((ANNA, "one"), "", (ANNA, "two"), (ANNA, ""), (ANNA, "last"))
    plan(ledger, people, duplicates="first" if duplicates == "first" else "last")
    rows = [each for each in rows_of(ledger) if each.phone == ANNA]
    assert [each.row for each in rows if each.status == "pending"] == kept
    assert {each.detail for each in rows if each.status == "skipped"} == {detail}


def test_a_suppressed_number_is_no_duplicate_of_itself_and_never_wins(ledger: SqlLedger) -> None:
    ledger.suppress([ANNA], "campaign optout add")
    plan(ledger, audience(ANNA, BORIS, ANNA))
    assert [(each.reason, each.detail) for each in rows_of(ledger) if each.phone == ANNA] == [
        ("suppressed", "campaign optout add")
    ] * 2


def test_a_row_that_is_skipped_for_another_reason_is_no_duplicate(ledger: SqlLedger) -> None:
    plan(ledger, [row(0, ANNA, reason="filtered"), row(1, ANNA)])
    assert [(each.status, each.reason) for each in rows_of(ledger)] == [("skipped", "filtered"), ("pending", "")]


def test_only_new_rows_are_sent_when_rows_are_added_and_moved(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    Run(ledger, campaign, clock).send(ACCEPTED, Status.ACCEPTED, ANNA, BORIS)
    people = audience(CEM, BORIS, "", ANNA, DILA)
    with ledger.stage() as staging:
        staging.add(people)
        staging.settle("spring", "first")
        difference = staging.difference()
    assert (difference.to_send, difference.settled, difference.skipped) == (
        2,
        {Status.ACCEPTED: 2},
        {"invalid_phone": 1},
    )
    assert difference.rows == 5
    plan(ledger, people)
    assert [each.phone for each in rows_of(ledger)] == [CEM, BORIS, "", ANNA, DILA]
    assert seen(ledger) == {CEM: "pending", BORIS: "accepted", ANNA: "accepted", DILA: "pending"}


def test_claims_follow_the_order_of_the_file_as_it_is_now(ledger: SqlLedger, clock: Clock) -> None:
    plan(ledger, audience(ANNA, BORIS, CEM))
    campaign = plan(ledger, audience(DILA, CEM, BORIS, ANNA))
    run = Run(ledger, campaign, clock)
    claimed = [*run.claim(3), *run.claim(3)]
    assert [claim.message.phone for claim in claimed] == [DILA, CEM, BORIS, ANNA]


def test_a_new_caption_reaches_those_who_wait_and_nobody_else(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience((ANNA, "old"), (BORIS, "old"), (CEM, "old"), (DILA, "old")))
    run = Run(ledger, campaign, clock)
    run.send(ACCEPTED, Status.ACCEPTED, ANNA)
    run.send(REFUSED, Status.RETRY_WAIT, BORIS, wait=5)
    run.send(LOST, Status.UNKNOWN, CEM)
    people = audience((ANNA, "new"), (BORIS, "new"), (CEM, "new"), (DILA, "new"))
    with ledger.stage() as staging:
        staging.add(people)
        staging.settle("spring", "first")
        difference = staging.difference()
    assert (difference.changed, difference.to_send, difference.resent) == (2, 2, 1)
    plan(ledger, people)
    assert {each.phone: each.caption for each in rows_of(ledger)} == {
        ANNA: "old",
        BORIS: "new",
        CEM: "old",
        DILA: "new",
    }
    clock.now += 10
    sent = {claim.message.phone: claim for claim in run.claim()}
    assert {phone: claim.message.caption for phone, claim in sent.items()} == {BORIS: "new", DILA: "new"}
    assert {claim.payload for claim in sent.values()} == {people[0].payload}


def test_a_newly_suppressed_number_is_not_sent_and_what_was_sent_stays(ledger: SqlLedger, clock: Clock) -> None:
    people = audience(ANNA, BORIS, CEM)
    campaign = plan(ledger, people)
    run = Run(ledger, campaign, clock)
    run.send(ACCEPTED, Status.ACCEPTED, ANNA)
    run.send(REFUSED, Status.RETRY_WAIT, BORIS, wait=5)
    plan(ledger, people, suppressed=[ANNA, BORIS, CEM])
    assert [(each.phone, each.status, each.reason) for each in rows_of(ledger)] == [
        (ANNA, "accepted", ""),
        (BORIS, "not_sent", "suppressed"),  # attempted, so it keeps its history
        (CEM, "skipped", "suppressed"),
    ]
    assert run.claim() == []


def test_a_number_that_is_no_longer_suppressed_is_sent(ledger: SqlLedger) -> None:
    plan(ledger, audience(ANNA), suppressed=[ANNA])
    plan(ledger, audience(ANNA))
    assert seen(ledger) == {ANNA: "pending"}


def test_a_skipped_row_of_a_phone_that_was_accepted_is_a_row_of_its_own(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA))
    Run(ledger, campaign, clock).send(ACCEPTED, Status.ACCEPTED, ANNA)
    plan(ledger, [row(0, ANNA, reason="filtered"), row(1, ANNA), row(2, ANNA)])
    assert [(each.row, each.status, each.reason) for each in rows_of(ledger)] == [
        (2, "skipped", "filtered"),
        (3, "accepted", ""),
        (4, "skipped", "duplicate"),
    ]
    counts(ledger)


def test_a_phone_that_was_accepted_keeps_its_row_when_all_its_rows_are_now_skipped(
    ledger: SqlLedger, clock: Clock
) -> None:
    campaign = plan(ledger, audience(ANNA))
    Run(ledger, campaign, clock).send(ACCEPTED, Status.ACCEPTED, ANNA)
    plan(ledger, [row(0, ANNA, reason="filtered"), row(1, ANNA, reason="filtered")])
    assert [(each.row, each.status) for each in rows_of(ledger)] == [(2, "accepted"), (3, "skipped")]


def test_rows_that_are_gone_from_the_file_keep_what_became_of_them(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM, DILA, EREN))
    run = Run(ledger, campaign, clock)
    run.send(ACCEPTED, Status.ACCEPTED, ANNA)
    run.send(REJECTED, Status.REJECTED, BORIS)
    run.send(LOST, Status.UNKNOWN, CEM)
    run.send(REFUSED, Status.RETRY_WAIT, DILA, wait=5)
    everywhere = [Status.ACCEPTED, Status.REJECTED, Status.UNKNOWN, Status.RETRY_WAIT, Status.PENDING]
    with ledger.stage() as staging:
        staging.settle("spring", "first")
        assert staging.difference().gone == dict.fromkeys(everywhere, 1)
    plan(ledger, [])
    assert [(each.row, each.phone, each.status, each.reason) for each in rows_of(ledger)] == [
        (None, ANNA, "accepted", ""),
        (None, BORIS, "rejected", "bad_request"),
        (None, CEM, "unknown", "reply_timeout"),
        (None, DILA, "not_sent", "withdrawn"),
    ]
    assert counts(ledger).gone == 4
    clock.now += 10
    assert run.claim() == []


def test_a_row_that_comes_back_finds_its_history(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    Run(ledger, campaign, clock).send(ACCEPTED, Status.ACCEPTED, ANNA)
    plan(ledger, audience(BORIS))
    plan(ledger, audience(BORIS, ANNA))
    assert [(each.row, each.phone, each.status) for each in rows_of(ledger)] == [
        (2, BORIS, "pending"),
        (3, ANNA, "accepted"),
    ]


def test_campaigns_do_not_see_each_other(ledger: SqlLedger, clock: Clock) -> None:
    first = plan(ledger, audience(ANNA))
    Run(ledger, first, clock).send(ACCEPTED, Status.ACCEPTED, ANNA)
    clock.now += 1
    second = plan(ledger, audience(ANNA), name="autumn", suppressed=[BORIS])
    assert seen(ledger, "autumn") == {ANNA: "pending"}
    assert ledger.campaigns() == ["autumn", "spring"]  # the last planned first
    clock.now += 1
    plan(ledger, audience(ANNA, BORIS))
    assert seen(ledger) == {ANNA: "accepted", BORIS: "pending"}
    assert ledger.campaigns() == ["spring", "autumn"]
    assert first != second


def test_adopting_takes_the_new_settings_and_leaves_a_pause_that_came_meanwhile(ledger: SqlLedger) -> None:
    campaign = plan(ledger, audience(ANNA))
    ledger.set_state(campaign, "paused")
    assert plan(ledger, audience(ANNA)) == campaign
    record = ledger.campaign("spring")
    assert (record.state, record.columns, record.settings) == ("paused", ("Mobile",), {"formats": ["csv"]})


def test_a_campaign_nobody_planned_is_named_with_those_that_are_known(ledger: SqlLedger) -> None:
    plan(ledger, audience(ANNA))
    with pytest.raises(UnknownCampaignError, match=r"no campaign 'sprnig' \(campaigns there: spring\)"):
        ledger.campaign("sprnig")


def fingerprint(ledger: SqlLedger, *people: str | tuple[str, str], preamble: bytes = b"wapim") -> str:
    with ledger.stage() as staging:
        staging.add(audience(*people))
        staging.settle("spring", "first")
        return staging.fingerprint(preamble)


def test_the_plans_hash_stays_the_same_however_far_the_sending_has_come(ledger: SqlLedger, clock: Clock) -> None:
    before = fingerprint(ledger, ANNA, BORIS)
    campaign = plan(ledger, audience(ANNA, BORIS))
    Run(ledger, campaign, clock).send(ACCEPTED, Status.ACCEPTED, ANNA)
    assert fingerprint(ledger, ANNA, BORIS) == before
    assert fingerprint(ledger, ANNA, "", BORIS, ANNA) == before  # who gets what is the same
    assert len(before) == 16


def test_the_plans_hash_tells_every_difference_that_somebody_would_receive(ledger: SqlLedger) -> None:
    plans = [
        fingerprint(ledger, ANNA, BORIS),
        fingerprint(ledger, ANNA),
        fingerprint(ledger, ANNA, CEM),
        fingerprint(ledger, BORIS, ANNA),
        fingerprint(ledger, ANNA, (BORIS, "Another caption")),
        fingerprint(ledger, ANNA, BORIS, preamble=b"zixflow"),
    ]
    ledger.suppress([BORIS], "by hand")
    assert fingerprint(ledger, ANNA, BORIS) == plans[1]
    assert len(set(plans)) == len(plans)


def test_looking_at_a_plan_leaves_nothing_in_the_ledger(ledger: SqlLedger, another: Opener) -> None:
    for _ in range(3):  # again and again, on the same connections
        with ledger.stage() as staging:
            staging.add(audience(ANNA, ANNA, ""))
            staging.suppress([BORIS], "optouts.csv")
            staging.settle("spring", "first")
            assert staging.difference().to_send == 1
            assert staging.has_number(ANNA)
            assert not staging.has_number(BORIS)
            assert [sample.phone for sample in staging.live()] == [ANNA]
            assert [sample.row for sample in staging.skipped()] == [3, 4]
            assert [sample.row for sample in staging.skipped(limit=1)] == [3]
            assert [sample.row for sample in staging.everything()] == [2, 3, 4]
    assert ledger.campaigns() == []
    assert ledger.suppressions() == []
    assert another().campaigns() == []


def test_somebody_who_looks_at_a_plan_keeps_nobody_from_writing(ledger: SqlLedger, another: Opener) -> None:
    """A preview of a large audience takes minutes to write; a live run must not stop with 'database is locked' for it."""
    campaign = plan(ledger, audience(*(f"90533000{i:04d}" for i in range(50))))
    with ledger.stage() as staging:
        staging.add(audience(*(f"90533000{i:04d}" for i in range(50))))
        staging.settle("spring", "first")
        staging.difference()
        reader = staging.everything()
        next(reader)
        done = threading.Event()

        def write() -> None:
            another().set_state(campaign, "paused")
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert done.wait(5)
        writer.join()
        assert len(list(reader)) == 49


def test_a_plan_can_be_looked_at_and_the_ledger_asked_at_the_same_time(ledger: SqlLedger) -> None:
    campaign = plan(ledger, audience(ANNA))
    with ledger.stage() as staging:
        staging.add(audience(ANNA, BORIS))
        staging.settle("spring", "first")
        assert ledger.campaigns() == ["spring"]
        assert ledger.counts(campaign)[Status.PENDING] == 1
        assert len(ledger.fingerprint("token")) == 24
        assert staging.difference().to_send == 2


def test_samples_are_the_ones_worth_looking_at(ledger: SqlLedger) -> None:
    with ledger.stage() as staging:
        staging.add(audience((ANNA, "Hi there"), (BORIS, "Hello to you, too"), (CEM, "Hi"), (DILA, "Hi 🎉 you"), ""))
        staging.settle("spring", "first")
        samples = staging.samples(limit=2)
    assert {name: [sample.phone for sample in found] for name, found in samples.items()} == {
        "first": [ANNA, BORIS],
        "longest": [BORIS],
        "shortest": [CEM],
        "unusual": [DILA],
    }


def test_planning_a_second_time_takes_about_as_long_as_the_first(ledger: SqlLedger) -> None:
    """Measured before there was an index on both columns: 6 s of processor time for 5,000 rows, 450 s for 40,000."""
    people = [row(i, f"9053{i:08d}") for i in range(4000)]
    begun = process_time()
    plan(ledger, people)
    first = process_time() - begun
    begun = process_time()
    plan(ledger, [row(i, each.phone) for i, each in enumerate(reversed(people))])
    assert process_time() - begun < 5 * first + 0.5


# --- claims -----------------------------------------------------------------------------------------------------------


def test_claims_of_two_runners_are_disjoint(ledger: SqlLedger, another: Opener, clock: Clock) -> None:
    people = [f"90533000{i:04d}" for i in range(60)]
    campaign = plan(ledger, audience(*people))
    run = Run(ledger, campaign, clock)
    runs = [run, Run(another(), campaign, clock, run.id)]
    claimed: list[str] = []
    together = threading.Barrier(2)

    def work(run: Run) -> None:
        together.wait()
        while found := run.claim(7):
            claimed.extend(claim.message.phone for claim in found)

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == people


CLAIM_ALL = """
import sys
from pathlib import Path
from runner.ledger.base import Hold
place = Path(sys.argv[1])
ledger = {code}
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
hold = Hold(*map(int, sys.argv[2:]))
while found := ledger.claim(hold, 5, 1_000_000):
    for claim in found:
        sys.stdout.write(claim.message.phone + "\\n")
ledger.close()
"""


def test_claims_of_four_processes_are_disjoint(
    kind: Implementation, ledger: SqlLedger, clock: Clock, tmp_path: Path
) -> None:
    people = [f"90533000{i:04d}" for i in range(60)]
    campaign = plan(ledger, audience(*people))
    run = Run(ledger, campaign, clock)
    command = [sys.executable, "-c", CLAIM_ALL.format(code=kind.code), str(tmp_path)]
    command += [str(campaign), str(run.id), str(run.sender)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    claimed = [process.communicate(timeout=30)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(phone for each in claimed for phone in each) == people


def test_a_claim_holds_only_the_numbers_asked_for(ledger: SqlLedger, clock: Clock) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA, BORIS, CEM)), clock)
    assert [claim.message.phone for claim in run.claim(only=[CEM, EREN, ANNA])] == [ANNA, CEM]
    assert run.claim(only=[]) == []
    assert seen(ledger) == {ANNA: "claimed", BORIS: "pending", CEM: "claimed"}


def test_a_claim_takes_nobody_before_the_time_that_was_set(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    run.send(REFUSED, Status.RETRY_WAIT, ANNA, wait=500)
    assert [claim.message.phone for claim in run.claim()] == [BORIS]
    assert ledger.next_due(run.hold) == clock.now + 500
    assert ledger.next_due(run.hold, [BORIS]) is None
    clock.now += 499
    assert run.claim() == []
    clock.now += 1
    assert [(claim.message.phone, claim.attempts) for claim in run.claim()] == [(ANNA, 1)]
    assert ledger.next_due(run.hold) is None


def test_a_claim_tells_which_attempts_say_nothing_about_the_recipient(ledger: SqlLedger, clock: Clock) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA)), clock)
    slow_down = Outcome(Verdict.NOT_SENT, "rate_limited", code="429", throttled=True)
    held_back = Outcome(Verdict.NOT_SENT, "held_back", throttled=True)
    for outcome in (slow_down, REFUSED, held_back, slow_down):
        run.send(outcome, Status.RETRY_WAIT, ANNA, wait=5)
        clock.now += 10
    (claim,) = run.claim()
    assert (claim.attempts, claim.uncounted, claim.counted) == (4, 3, 1)


def test_claimed_rows_that_are_given_back_wait_as_before(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM))
    run = Run(ledger, campaign, clock)
    run.send(REFUSED, Status.RETRY_WAIT, ANNA, wait=5)
    run.send(REJECTED, Status.REJECTED, BORIS)
    ledger.requeue(campaign, [Status.REJECTED], None, "by command")
    clock.now += 10
    before = seen(ledger)
    claims = run.claim()
    assert len(claims) == 3
    ledger.release(run.hold, [claim.id for claim in claims])
    assert seen(ledger) == before == {ANNA: "retry_wait", BORIS: "pending", CEM: "pending"}
    ledger.release(run.hold, [])


def test_the_end_of_a_run_releases_what_it_still_claims(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    first = Run(ledger, campaign, clock)
    first.claim(1)
    second = Run(ledger, campaign, clock)
    second.claim(1)
    ledger.end_run(first.id, "finished")
    assert seen(ledger) == {ANNA: "pending", BORIS: "claimed"}
    run = ledger.overviews("spring")[0].view.last_run
    assert run is not None
    assert (run.id, run.ending) == (second.id, "")


# --- group commit -----------------------------------------------------------------------------------------------------


def test_an_intent_is_in_the_ledger_for_everybody_when_apply_returns(
    ledger: SqlLedger, another: Opener, clock: Clock
) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    first, second = run.claim()
    clock.now += 7
    assert run.begin(first) == {}
    other = another()
    (flying, waiting) = rows_of(other)
    assert (flying.status, flying.attempts, flying.first_attempt_at) == ("in_flight", 1, clock.now)
    assert waiting.status == "claimed"
    assert other.recent_starts(run.sender, 0, 10) == [clock.now]
    assert other.overviews("spring")[0].view.oldest_in_flight == clock.now
    run.begin(second)
    assert counts(ledger)[Status.IN_FLIGHT] == 2


def test_outcomes_and_intents_share_one_commit_outcomes_first(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    first, second = run.claim()
    run.begin(first)
    done = Finish(first.id, 1, ACCEPTED, Status.ACCEPTED, clock(), 0)
    applied = ledger.apply(run.hold, [done], [Intent(second, clock())])
    assert (applied.refused, applied.state) == ({}, "open")
    assert seen(ledger) == {ANNA: "accepted", BORIS: "in_flight"}


def test_claims_share_the_commit_of_outcomes_and_intents_and_come_last(ledger: SqlLedger, clock: Clock) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA, BORIS, CEM, DILA)), clock)
    anna, boris = run.claim(2)
    run.begin(anna)
    done = Finish(anna.id, 1, REFUSED, Status.RETRY_WAIT, clock(), clock())
    applied = ledger.apply(run.hold, [done], [Intent(boris, clock())], Wanted(2, clock()))
    assert applied.refused == {}
    assert [(claim.message.phone, claim.attempts) for claim in applied.claims] == [(ANNA, 1), (CEM, 0)]
    assert seen(ledger) == {ANNA: "claimed", BORIS: "in_flight", CEM: "claimed", DILA: "pending"}


def test_nobody_is_claimed_with_a_batch_that_cannot_be_written(ledger: SqlLedger, clock: Clock) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA, BORIS)), clock)
    (anna,) = run.claim(1)
    run.begin(anna)
    with pytest.raises(LedgerError, match="no longer held"):
        ledger.apply(run.hold, (), [Intent(anna, clock())], Wanted(1, clock()))
    assert seen(ledger) == {ANNA: "in_flight", BORIS: "pending"}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (ACCEPTED, Status.ACCEPTED),
        (REJECTED, Status.REJECTED),
        (REFUSED, Status.NOT_SENT),
        (REFUSED, Status.RETRY_WAIT),
        (LOST, Status.UNKNOWN),
    ],
    ids=lambda value: value.value if isinstance(value, Status) else "",
)
def test_an_outcome_is_recorded_with_the_providers_words(
    ledger: SqlLedger, clock: Clock, outcome: Outcome, status: Status
) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA)), clock)
    run.send(outcome, status, ANNA, wait=3)
    (found,) = rows_of(ledger)
    assert (found.status, found.reason, found.detail, found.code, found.queue_id) == (
        status.value,
        outcome.reason,
        outcome.detail,
        outcome.code,
        outcome.queue_id,
    )


def test_an_opt_out_in_the_same_moment_stops_the_message(ledger: SqlLedger, another: Opener, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM))
    run = Run(ledger, campaign, clock)
    run.send(REFUSED, Status.RETRY_WAIT, ANNA, wait=5)
    clock.now += 10
    claims = {claim.message.phone: claim for claim in run.claim()}
    assert another().suppress([ANNA, BORIS], "campaign optout add") == 2
    refused = run.begin(*claims.values())
    assert refused == {claims[ANNA].id: "suppressed", claims[BORIS].id: "suppressed"}
    assert [(each.status, each.reason, each.attempts) for each in rows_of(ledger)] == [
        ("not_sent", "suppressed", 1),
        ("skipped", "suppressed", 0),
        ("in_flight", "", 1),
    ]
    counts(ledger)


def test_an_opt_out_of_one_campaign_does_not_touch_another(ledger: SqlLedger, clock: Clock) -> None:
    other = plan(ledger, audience(ANNA), name="autumn")
    run = Run(ledger, plan(ledger, audience(ANNA)), clock)
    ledger.suppress([ANNA], "optouts.csv", other)
    assert run.begin(*run.claim()) == {}


@pytest.mark.parametrize("state", ["paused", "cancelled"])
def test_a_campaign_that_was_stopped_meanwhile_sends_nothing_more(
    ledger: SqlLedger, another: Opener, clock: Clock, state: str
) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    run.send(REFUSED, Status.RETRY_WAIT, ANNA, wait=5)
    clock.now += 10
    claims = run.claim()
    another().set_state(campaign, state)
    assert run.begin(*claims) == {claim.id: state for claim in claims}
    assert seen(ledger) == {ANNA: "retry_wait", BORIS: "pending"}
    assert ledger.state(campaign) == state
    assert ledger.recent_starts(run.sender, clock.now, 10) == []


def test_an_intent_that_is_no_longer_held_stops_the_run_and_writes_nothing(
    ledger: SqlLedger, another: Opener, clock: Clock
) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    claims = run.claim()
    another().release(run.hold, [claims[0].id])
    with pytest.raises(LedgerError, match="1 of 2 recipients about to be sent are no longer held by this run"):
        run.begin(*claims)
    assert seen(ledger) == {ANNA: "pending", BORIS: "claimed"}
    other = Run(ledger, campaign, clock)
    with pytest.raises(LedgerError, match="no longer held"):
        other.begin(claims[1])  # claimed, but by another run
    assert seen(ledger) == {ANNA: "pending", BORIS: "claimed"}
    assert ledger.recent_starts(run.sender, 0, 10) == []


def test_a_row_already_in_flight_cannot_be_begun_again(ledger: SqlLedger, clock: Clock) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA)), clock)
    (claim,) = run.claim()
    run.begin(claim)
    with pytest.raises(LedgerError, match="no longer held"):
        run.begin(claim)


def test_a_late_reply_says_nothing_about_a_row_that_was_queued_again(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA))
    old = Run(ledger, campaign, clock)
    (claim,) = old.claim()
    old.begin(claim)
    ledger.recover(campaign)
    ledger.requeue(campaign, [Status.UNKNOWN], None, "duplicates accepted")
    new = Run(ledger, campaign, clock)
    (again,) = new.claim()
    new.begin(again)
    old.finish(claim, REJECTED, Status.REJECTED)
    assert seen(ledger) == {ANNA: "in_flight"}
    new.finish(again, ACCEPTED, Status.ACCEPTED)
    assert seen(ledger) == {ANNA: "accepted"}


def test_a_late_reply_settles_a_row_that_was_given_up_as_unknown(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA))
    run = Run(ledger, campaign, clock)
    (claim,) = run.claim()
    run.begin(claim)
    ledger.recover(campaign)
    run.finish(claim, ACCEPTED, Status.ACCEPTED)
    assert seen(ledger) == {ANNA: "accepted"}


# --- one run at a time ------------------------------------------------------------------------------------------------


def test_a_run_that_was_taken_over_sends_nothing_more_and_its_outcomes_still_count(
    ledger: SqlLedger, another: Opener, clock: Clock
) -> None:
    """Its lock may be lost with a connection, or its machine frozen for an hour: it does not know, the ledger does."""
    campaign = plan(ledger, audience(ANNA, BORIS, CEM))
    old = Run(another(), campaign, clock)
    flying, waiting, _ = old.claim()
    old.begin(flying)
    ledger.recover(campaign)
    assert old.begin(waiting) == {waiting.id: "taken_over"}  # while the other still plans
    new = Run(ledger, campaign, clock)
    (mine, _) = new.claim()
    assert mine.id == waiting.id
    done = Finish(flying.id, 1, ACCEPTED, Status.ACCEPTED, clock(), 0)
    applied = old.ledger.apply(old.hold, [done], [Intent(waiting, clock())])
    assert applied.refused == {waiting.id: "taken_over"}
    with pytest.raises(TakenOverError, match="another run has taken over"):
        old.claim()
    empty = old.ledger.apply(old.hold, [done], (), Wanted(9, clock()))
    assert (empty.ours, empty.claims) == (False, ())
    old.ledger.release(old.hold, [waiting.id])
    assert seen(ledger) == {ANNA: "accepted", BORIS: "claimed", CEM: "claimed"}
    assert new.begin(mine) == {}
    assert [each.attempts for each in rows_of(ledger)] == [1, 1, 0]


def partition(ledger: SqlLedger, run: Run, first: int, last: int) -> Run:
    """A part of a run, as a worker of a cluster holds it."""
    with ledger._write() as connection:
        key = connection.execute(
            partitions.insert().returning(partitions.c.id),
            {"campaign_id": run.campaign, "run_id": run.id, "number": first, "first": first, "last": last, "epoch": 1},
        ).scalar_one()
    part = Run(run.ledger, run.campaign, run.clock, run.id)
    part.hold = replace(run.hold, partition=PartitionHold(key, 1, first, last))
    return part


def test_a_partition_is_sent_by_its_holder_alone_and_nothing_beyond_it(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM, DILA, EREN))
    run = Run(ledger, campaign, clock)
    part = partition(ledger, run, 1, 3)
    run.send(REFUSED, Status.RETRY_WAIT, EREN, wait=5)
    assert ledger.next_due(part.hold) == 0
    boris, cem, dila = part.claim()
    assert [claim.message.phone for claim in (boris, cem, dila)] == [BORIS, CEM, DILA]
    assert ledger.next_due(part.hold) is None
    assert part.begin(boris) == {}
    with ledger._write() as connection:
        connection.execute(partitions.update().values(epoch=2))
    done = Finish(boris.id, 1, ACCEPTED, Status.ACCEPTED, clock(), 0)
    applied = ledger.apply(part.hold, [done], [Intent(cem, clock())])
    assert applied.refused == {cem.id: "taken_over"}
    with pytest.raises(TakenOverError):
        part.claim()
    ledger.release(part.hold, [dila.id])
    statuses = {ANNA: "pending", BORIS: "accepted", CEM: "claimed", DILA: "claimed", EREN: "retry_wait"}
    assert seen(ledger) == statuses


def test_all_parts_of_a_run_end_when_another_run_takes_over(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    part = partition(ledger, Run(ledger, campaign, clock), 0, 1)
    claims = part.claim()
    ledger.recover(campaign)
    assert part.begin(*claims) == {claim.id: "taken_over" for claim in claims}
    assert seen(ledger) == {ANNA: "pending", BORIS: "pending"}


def lost_answer(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, between: Callable[[], object]) -> None:
    """From now on every call of a run is committed, its answer lost, and then tried again after `between`."""

    def twice(attempt: Callable[[bool], object]) -> object:
        attempt(False)
        between()
        return attempt(True)

    monkeypatch.setattr(ledger, "_lasting", twice)


def test_a_batch_that_was_committed_unheard_can_be_applied_again(
    ledger: SqlLedger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    run.send(REFUSED, Status.RETRY_WAIT, ANNA, wait=5)
    clock.now += 10
    lost_answer(ledger, monkeypatch, lambda: None)
    claims = run.claim()
    assert [claim.message.phone for claim in claims] == [ANNA, BORIS]
    clock.now += 10
    assert run.begin(*claims) == {}
    assert [(each.status, each.attempts, each.last_attempt_at) for each in rows_of(ledger)] == [
        ("in_flight", 2, clock.now),
        ("in_flight", 1, clock.now),
    ]
    assert ledger.recent_starts(run.sender, 0, 10) == [clock.now - 20, clock.now, clock.now]
    for claim in claims:
        run.finish(claim, ACCEPTED, Status.ACCEPTED)
    assert seen(ledger) == {ANNA: "accepted", BORIS: "accepted"}


def test_claims_of_a_batch_that_was_committed_unheard_are_those_of_its_second_try(
    ledger: SqlLedger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(ledger, plan(ledger, audience(ANNA, BORIS, CEM, DILA)), clock)
    anna, boris = run.claim(2)
    run.begin(anna)
    lost_answer(ledger, monkeypatch, lambda: None)
    done = Finish(anna.id, 1, ACCEPTED, Status.ACCEPTED, clock(), 0)
    applied = ledger.apply(run.hold, [done], [Intent(boris, clock())], Wanted(1, clock()))
    assert [claim.message.phone for claim in applied.claims] == [CEM]
    assert seen(ledger) == {ANNA: "accepted", BORIS: "in_flight", CEM: "claimed", DILA: "pending"}
    assert [each.attempts for each in rows_of(ledger)] == [1, 1, 0, 0]


def test_what_stops_a_message_between_two_tries_of_a_batch_still_stops_it(
    ledger: SqlLedger, another: Opener, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    run = Run(ledger, campaign, clock)
    run.send(REFUSED, Status.RETRY_WAIT, BORIS, wait=5)
    tried, other = clock.now, another()
    clock.now += 10
    anna, boris = run.claim()
    lost_answer(ledger, monkeypatch, lambda: other.suppress([ANNA], "campaign optout add"))
    assert run.begin(anna, boris) == {anna.id: "suppressed"}
    run.finish(boris, REFUSED, Status.RETRY_WAIT)
    lost_answer(ledger, monkeypatch, lambda: other.set_state(campaign, "paused"))
    (boris,) = run.claim()
    assert ledger.state(campaign) == "paused"
    other.set_state(campaign, "open")
    clock.now += 10
    assert run.begin(boris) == {boris.id: "paused"}
    assert [(each.status, each.attempts, each.first_attempt_at, each.last_attempt_at) for each in rows_of(ledger)] == [
        ("skipped", 0, 0, 0),
        ("pending", 2, tried, clock.now - 10),
    ]


# --- after a crash ----------------------------------------------------------------------------------------------------


def test_what_a_dead_run_left_is_released_or_unknown(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM, DILA))
    run = Run(ledger, campaign, clock)
    slow_down = Outcome(Verdict.NOT_SENT, "rate_limited", code="429", detail="too fast", throttled=True)
    run.send(slow_down, Status.RETRY_WAIT, ANNA, BORIS, wait=5)
    clock.now += 10
    claims = {claim.message.phone: claim for claim in run.claim()}
    run.begin(claims[BORIS], claims[CEM])
    recovered = ledger.recover(campaign)
    assert (recovered.released, recovered.unknown) == (2, 2)
    assert seen(ledger) == {ANNA: "retry_wait", BORIS: "unknown", CEM: "unknown", DILA: "pending"}
    unknown = [each for each in rows_of(ledger) if each.status == "unknown"]
    assert {(each.reason, each.code) for each in unknown} == {("interrupted", "")}  # not the code of an earlier attempt
    again = ledger.recover(campaign)
    assert (again.released, again.unknown) == (0, 0)


def test_an_unknown_row_is_never_claimed_by_the_program_itself(ledger: SqlLedger, clock: Clock) -> None:
    people = audience(ANNA)
    campaign = plan(ledger, people)
    run = Run(ledger, campaign, clock)
    run.begin(*run.claim())
    ledger.recover(campaign)
    plan(ledger, people)
    assert Run(ledger, campaign, clock).claim() == []


# --- people's decisions -----------------------------------------------------------------------------------------------


def test_queueing_rows_again_leaves_an_audit_row(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM))
    run = Run(ledger, campaign, clock)
    run.send(REJECTED, Status.REJECTED, ANNA)
    run.send(Outcome(Verdict.REJECTED, "image_too_large", code="413"), Status.REJECTED, BORIS)
    run.send(LOST, Status.UNKNOWN, CEM)
    assert ledger.requeue(campaign, [Status.REJECTED], "image_too_large", "by command") == 1
    assert seen(ledger) == {ANNA: "rejected", BORIS: "pending", CEM: "unknown"}
    assert ledger.requeue(campaign, [Status.REJECTED, Status.UNKNOWN], None, "duplicates accepted") == 2
    assert [(action, detail) for _, action, detail in ledger.audits(campaign)] == [
        ("requeue", "1 rows: rejected (image_too_large); by command"),
        ("requeue", "2 rows: rejected, unknown; duplicates accepted"),
    ]
    claims = run.claim()
    assert [claim.attempts for claim in claims] == [1, 1, 1]
    assert run.begin(*claims) == {}  # the next attempt has the next number
    assert {(each.reason, each.code) for each in rows_of(ledger)} == {("", "")}


def test_rows_that_are_gone_from_the_file_are_not_queued_again(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA))
    Run(ledger, campaign, clock).send(REJECTED, Status.REJECTED, ANNA)
    plan(ledger, [])
    assert ledger.requeue(campaign, [Status.REJECTED], None, "by command") == 0


def test_giving_up_tells_those_never_tried_from_the_others(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS, CEM))
    run = Run(ledger, campaign, clock)
    run.send(ACCEPTED, Status.ACCEPTED, ANNA)
    run.send(REFUSED, Status.RETRY_WAIT, BORIS, wait=5)
    assert ledger.give_up(campaign, "expired", "the deadline has passed") == 2
    assert [(each.phone, each.status, each.reason) for each in rows_of(ledger)] == [
        (ANNA, "accepted", ""),
        (BORIS, "not_sent", "expired"),
        (CEM, "skipped", "expired"),
    ]
    assert [action for _, action, _ in ledger.audits(campaign)] == ["expired"]
    assert counts(ledger).by_reason == {(Status.NOT_SENT, "expired"): 1, (Status.SKIPPED, "expired"): 1}


def test_suppressions_are_kept_once_with_their_source(ledger: SqlLedger, clock: Clock) -> None:
    assert ledger.suppress([ANNA, BORIS, ANNA], "optouts.csv") == 2
    clock.now += 1
    assert ledger.suppress([BORIS, CEM], "by hand") == 1
    assert ledger.suppress([], "nothing") == 0
    assert [(phone, source) for phone, source, _ in ledger.suppressions()] == [
        (ANNA, "optouts.csv"),
        (BORIS, "optouts.csv"),
        (CEM, "by hand"),
    ]


def test_the_senders_cool_down_is_remembered_and_never_shortened(ledger: SqlLedger) -> None:
    plan(ledger, audience(ANNA))
    sender = ledger.campaign("spring").sender_id
    assert ledger.sender(sender).paused_until == 0
    Slots(ledger, sender).pause(50.0)
    until = ledger.sender(sender).paused_until
    Slots(ledger, sender).pause(30.0)
    assert ledger.sender(sender).paused_until == until > 0


def test_the_same_account_is_the_same_sender_in_every_campaign(ledger: SqlLedger) -> None:
    plan(ledger, audience(ANNA))
    plan(ledger, audience(ANNA), name="autumn")
    assert ledger.campaign("spring").sender_id == ledger.campaign("autumn").sender_id


def test_the_senders_last_attempts_are_told_oldest_first(ledger: SqlLedger, clock: Clock) -> None:
    people = [f"90533000{i:04d}" for i in range(10)]
    run = Run(ledger, plan(ledger, audience(*people)), clock)
    starts = []
    for claim in run.claim():
        clock.now += 10
        starts.append(clock.now)
        run.begin(claim)
    assert ledger.recent_starts(run.sender, 0, 100) == starts
    assert ledger.recent_starts(run.sender, starts[4], 3) == starts[-3:]
    assert ledger.recent_starts(run.sender + 1, 0, 100) == []


def test_a_secret_is_fingerprinted_with_the_ledgers_own_key(ledger: SqlLedger, another: Opener) -> None:
    assert ledger.fingerprint("wapim:token-1") == another().fingerprint("wapim:token-1")
    assert ledger.fingerprint("wapim:token-1") != ledger.fingerprint("wapim:token-2")
    assert "token" not in ledger.fingerprint("wapim:token-1")


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 3, 7, 1000])
def test_results_come_in_the_order_of_the_file_whatever_the_page(ledger: SqlLedger, clock: Clock, page: int) -> None:
    people = [f"90533000{i:04d}" for i in range(7)]
    campaign = plan(ledger, audience(ANNA, *people))
    Run(ledger, campaign, clock).send(ACCEPTED, Status.ACCEPTED, ANNA, people[3])
    plan(ledger, audience(*reversed(people)))
    found = list(ledger.results(campaign, page))
    assert [each.phone for each in found] == [*reversed(people), ANNA]
    assert [each.row for each in found] == [*range(2, 9), None]


def test_a_reader_of_results_keeps_nobody_from_writing(ledger: SqlLedger, another: Opener, clock: Clock) -> None:
    people = [f"90533000{i:04d}" for i in range(9)]
    campaign = plan(ledger, audience(*people))
    reading = ledger.results(campaign, 2)
    next(reading)
    run = Run(another(), campaign, clock)
    run.send(ACCEPTED, Status.ACCEPTED, *people)
    assert len(list(reading)) == 8


def test_status_tells_the_last_run_and_the_oldest_message_in_flight(ledger: SqlLedger, clock: Clock) -> None:
    campaign = plan(ledger, audience(ANNA, BORIS))
    assert ledger.overviews("spring")[0].view.last_run is None
    run = Run(ledger, campaign, clock)
    first, second = run.claim()
    begun = clock.now
    run.begin(first)
    clock.now += 50
    run.begin(second)
    view = ledger.overviews("spring")[0].view
    assert view.last_run is not None
    assert (view.last_run.id, view.last_run.owner, view.oldest_in_flight) == (run.id, "process 1 on here", begun)
    assert view.counts[Status.IN_FLIGHT] == 2
    ledger.end_run(run.id, "drained")
    ended = ledger.overviews("spring")[0].view.last_run
    assert ended is not None
    assert (ended.ending, ended.finished_at) == ("drained", clock.now)


def test_claims_carry_what_is_needed_to_send(ledger: SqlLedger, clock: Clock) -> None:
    run = Run(ledger, plan(ledger, audience((ANNA, "Merhaba Ayşe 🎉"))), clock)
    (claim,) = run.claim()
    assert isinstance(claim, Claim)
    assert (claim.message.phone, claim.message.caption, claim.message.image) == (
        ANNA,
        "Merhaba Ayşe 🎉",
        "https://cdn.example.com/a.jpg",
    )
    assert claim.payload == audience((ANNA, "Merhaba Ayşe 🎉"))[0].payload
    assert draft().name == ledger.campaign("spring").name
