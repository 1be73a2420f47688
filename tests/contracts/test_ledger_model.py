"""The ledger against a plain-Python model of it: whatever is done in whatever order, every row is accounted for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledgers import ANNA, BORIS, CEM, DILA, EREN, IMPLEMENTATIONS, Clock, Implementation, Run, plan, row
from sqlalchemy import text

from runner.ledger.base import Claim
from runner.model import Outcome, Status, Verdict

PEOPLE = [ANNA, BORIS, CEM, DILA, EREN, ""]
WAITING = {Status.PENDING, Status.CLAIMED, Status.RETRY_WAIT}
ENDINGS = {
    Status.ACCEPTED: Verdict.ACCEPTED,
    Status.REJECTED: Verdict.REJECTED,
    Status.NOT_SENT: Verdict.NOT_SENT,
    Status.RETRY_WAIT: Verdict.NOT_SENT,
    Status.UNKNOWN: Verdict.UNKNOWN,
}


@dataclass
class Row:
    """What the model knows of one row of the ledger."""

    phone: str
    status: Status
    reason: str = ""
    caption: str = ""
    position: int | None = None
    attempts: int = 0
    not_before: int = 0
    requests: int = 0  # attempts that may have reached the provider since a person last queued it


@dataclass
class Model:
    """The campaign in plain Python: one list of rows, and what each operation does to it."""

    rows: list[Row] = field(default_factory=list)
    opted_out: set[str] = field(default_factory=set)
    state: str = "open"

    def live(self) -> dict[str, Row]:
        return {each.phone: each for each in self.rows if each.status is not Status.SKIPPED}

    def plan(self, people: list[tuple[str, str]], *, last: bool, suppressed: set[str]) -> None:
        reasons = [self._skip_reason(phone, suppressed) for phone, _ in people]
        for i, (phone, _) in enumerate(people):
            others = range(i + 1, len(people)) if last else range(i)
            if not reasons[i] and any(people[j][0] == phone and reasons[j] in {"", "duplicate"} for j in others):
                reasons[i] = "duplicate"
        known, found = self.live(), list[Row]()
        places = {phone: self._place(phone, people, reasons) for phone in known}
        for phone, each in known.items():
            each.position = places[phone]
            gone = each.position is None
            reason = "withdrawn" if gone else reasons[each.position or 0]
            if each.status in WAITING:
                if reason and each.attempts:
                    each.status, each.reason = Status.NOT_SENT, reason
                elif gone:
                    continue
                elif reason:
                    each.status, each.reason = Status.SKIPPED, reason
                else:
                    each.caption = people[each.position or 0][1]
            found.append(each)
        taken = set(places.values())
        for i, (phone, caption) in enumerate(people):
            if i not in taken:
                status = Status.SKIPPED if reasons[i] else Status.PENDING
                found.append(Row(phone, status, reasons[i], "" if reasons[i] else caption, i))
        self.rows = found

    def _skip_reason(self, phone: str, suppressed: set[str]) -> str:
        if not phone:
            return "invalid_phone"
        return "suppressed" if phone in suppressed | self.opted_out else ""

    @staticmethod
    def _place(phone: str, people: list[tuple[str, str]], reasons: list[str]) -> int | None:
        mine = [i for i, (other, _) in enumerate(people) if other == phone]
        return next((i for i in mine if not reasons[i]), mine[0] if mine else None)

    def next_waiting(self, n: int, now: int) -> list[Row]:
        due = [
            each for each in self.rows if each.status in {Status.PENDING, Status.RETRY_WAIT} and each.not_before <= now
        ]
        return sorted(due, key=lambda each: each.position or 0)[:n]

    def release(self, each: Row) -> None:
        each.status = Status.RETRY_WAIT if each.not_before else Status.PENDING

    def stop(self, each: Row, reason: str) -> None:
        each.status = Status.NOT_SENT if each.attempts else Status.SKIPPED
        each.reason = reason


class Machine(RuleBasedStateMachine):
    """Does the same to a ledger and to the model, and compares them after every step."""

    kind: Implementation

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.ledger = self.kind.open(Path(self.folder.name), self.clock)
        self.model = Model()
        self.claims: dict[str, Claim] = {}  # held, nothing begun
        self.flying: dict[str, Claim] = {}
        self.input_rows = 0

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    # --- what may happen ----------------------------------------------------------------------------------------------

    audiences = st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(["one", "two"])), max_size=7)

    @initialize(people=audiences)
    def first_plan(self, people: list[tuple[str, str]]) -> None:
        self._plan(people, last=False, suppressed=set())

    @rule(people=audiences, last=st.booleans(), suppressed=st.sets(st.sampled_from(PEOPLE[:2]), max_size=1))
    def plan_again(self, people: list[tuple[str, str]], last: bool, suppressed: set[str]) -> None:
        self.crash_and_recover()  # as every `send` does first
        self._plan(people, last=last, suppressed=suppressed)

    def _plan(self, people: list[tuple[str, str]], *, last: bool, suppressed: set[str]) -> None:
        rows = [row(i, phone, caption) for i, (phone, caption) in enumerate(people)]
        campaign = plan(self.ledger, rows, duplicates="last" if last else "first", suppressed=sorted(suppressed))
        self.run = Run(self.ledger, campaign, self.clock)
        self.model.plan(people, last=last, suppressed=suppressed)
        self.campaign_suppressed = suppressed
        self.input_rows = len(people)

    @rule(n=st.integers(1, 4))
    def claim(self, n: int) -> None:
        expected = self.model.next_waiting(n, self.clock())
        found = self.run.claim(n)
        assert [claim.message.phone for claim in found] == [each.phone for each in expected]
        assert [claim.message.caption for claim in found] == [each.caption for each in expected]
        assert [claim.attempts for claim in found] == [each.attempts for each in expected]
        for claim, each in zip(found, expected, strict=True):
            each.status = Status.CLAIMED
            self.claims[each.phone] = claim

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self._begin(data.draw(st.lists(st.sampled_from(sorted(self.claims)), unique=True, min_size=1)))

    def _begin(self, phones: list[str]) -> None:
        refused = self.run.begin(*(self.claims[phone] for phone in phones))
        for phone in phones:
            claim, each = self.claims.pop(phone), self.model.live()[phone]
            if self.model.state != "open":
                assert refused.get(claim.id) == self.model.state
                self.model.release(each)
            elif phone in self.model.opted_out | self.campaign_suppressed:
                assert refused.get(claim.id) == "suppressed"
                self.model.stop(each, "suppressed")
            else:
                assert claim.id not in refused
                each.status, each.attempts, each.requests = Status.IN_FLIGHT, each.attempts + 1, each.requests + 1
                self.flying[phone] = claim

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), status=st.sampled_from(sorted(ENDINGS)), wait=st.integers(1, 3))
    def finish(self, data: st.DataObject, status: Status, wait: int) -> None:
        self._finish(data.draw(st.sampled_from(sorted(self.flying))), status, wait)

    def _finish(self, phone: str, status: Status, wait: int) -> None:
        wait = wait if status is Status.RETRY_WAIT else 0
        outcome = Outcome(ENDINGS[status], "" if status is Status.ACCEPTED else "because", code="200")
        self.run.finish(self.flying.pop(phone), outcome, status, wait)
        each = self.model.live()[phone]
        each.status, each.reason = status, outcome.reason
        each.not_before = self.clock() + wait if wait else 0
        if ENDINGS[status] is Verdict.NOT_SENT:
            each.requests -= 1

    @rule(status=st.sampled_from(sorted(ENDINGS)))
    def send_one(self, status: Status) -> None:
        """The usual way in one step, so that the unusual ones are met more often."""
        held = set(self.claims)
        self.claim(1)
        for phone in set(self.claims) - held:
            self._begin([phone])
        for phone in sorted(set(self.flying))[:1]:
            self._finish(phone, status, 1)

    @rule()
    def crash_and_recover(self) -> None:
        recovered = self.ledger.recover(self.run.campaign)
        released = [each for each in self.model.rows if each.status is Status.CLAIMED]
        unknown = [each for each in self.model.rows if each.status is Status.IN_FLIGHT]
        assert (recovered.released, recovered.unknown) == (len(released), len(unknown))
        for each in released:
            self.model.release(each)
        for each in unknown:
            each.status, each.reason = Status.UNKNOWN, "interrupted"
        self.claims.clear()
        self.flying.clear()
        self.run = Run(self.ledger, self.run.campaign, self.clock)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        phone = data.draw(st.sampled_from(sorted(self.claims)))
        self.ledger.release(self.run.hold, [self.claims.pop(phone).id])
        self.model.release(self.model.live()[phone])

    @rule(phone=st.sampled_from(PEOPLE[:3]))
    def opt_out(self, phone: str) -> None:
        assert self.ledger.suppress([phone], "by hand") == (phone not in self.model.opted_out)
        self.model.opted_out.add(phone)

    @rule(state=st.sampled_from(["open", "paused", "cancelled", "open"]))
    def set_state(self, state: str) -> None:
        self.ledger.set_state(self.run.campaign, state)
        self.model.state = state

    @rule(statuses=st.sets(st.sampled_from([Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN]), min_size=1))
    def requeue(self, statuses: set[Status]) -> None:
        chosen = [each for each in self.model.rows if each.status in statuses and each.position is not None]
        assert self.ledger.requeue(self.run.campaign, sorted(statuses), None, "by a person") == len(chosen)
        for each in chosen:
            each.status, each.reason, each.not_before, each.requests = Status.PENDING, "", 0, 0

    @rule()
    def give_up(self) -> None:
        chosen = [each for each in self.model.rows if each.status in {Status.PENDING, Status.RETRY_WAIT}]
        assert self.ledger.give_up(self.run.campaign, "expired", "too late") == len(chosen)
        for each in chosen:
            self.model.stop(each, "expired")

    @rule()
    def time_passes(self) -> None:
        self.clock.now += 2

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def every_row_is_accounted_for(self) -> None:
        if not hasattr(self, "run"):
            return
        counts = self.ledger.counts(self.run.campaign)
        expected: dict[Status, int] = {}
        for each in self.model.rows:
            expected[each.status] = expected.get(each.status, 0) + 1
        assert counts.by_status == expected
        assert counts.total - counts.gone == self.input_rows
        assert sum(counts[status] for status in Status) == counts.total

    @invariant()
    def every_row_is_where_the_model_has_it(self) -> None:
        if not hasattr(self, "run"):
            return
        found = [
            (each.row, each.phone, each.status, each.attempts, each.caption)
            for each in self.ledger.results(self.run.campaign, 3)
        ]
        there = sorted(
            (each for each in self.model.rows if each.position is not None), key=lambda row: row.position or 0
        )
        gone = [each for each in self.model.rows if each.position is None]
        wanted = [
            (None if each.position is None else each.position + 2, each.phone, each.status.value, each.attempts)
            for each in there
        ]
        assert [row[:4] for row in found[: len(there)]] == wanted
        assert {row[1:4] for row in found[len(there) :]} == {
            (row.phone, row.status.value, row.attempts) for row in gone
        }
        captions = {row.phone: row.caption for row in self.model.rows if row.status is not Status.SKIPPED}
        assert {row[1]: row[4] for row in found if row[2] != "skipped"} == captions

    @invariant()
    def every_row_but_a_skipped_one_holds_its_number(self) -> None:
        with self.ledger.reading() as connection:
            rows = connection.execute(text("SELECT status, live FROM recipients")).all()
        assert all(live == (status != "skipped") for status, live in rows)

    @invariant()
    def nobody_may_have_been_sent_to_twice(self) -> None:
        assert all(each.requests <= 1 for each in self.model.rows)


@pytest.mark.parametrize("kind", IMPLEMENTATIONS, ids=lambda kind: kind.name)
def test_the_ledger_does_what_the_model_does(kind: Implementation, monkeypatch: pytest.MonkeyPatch) -> None:
    kind.hurry(monkeypatch)
    machine = type("ThisMachine", (Machine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=kind.examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making thirty steps shorter takes five minutes
        ),
    )
