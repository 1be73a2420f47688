"""What the ledger's contract tests share: the implementations, and a small campaign to fill them with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import postgres
import pytest

from runner.ledger import sqlite
from runner.ledger.base import CampaignDraft, Claim, Finish, Hold, Intent, PlannedRow
from runner.ledger.postgres import open_postgres
from runner.ledger.sql import SqlLedger
from runner.model import Outcome, Status, Verdict


class Clock:
    """Microseconds that move only when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def _hurry_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PRAGMAS", (*sqlite.PRAGMAS, "synchronous = OFF"))


@dataclass(frozen=True)
class Implementation:
    """One kind of ledger. `place` is a fresh folder for every test; opening twice opens the same ledger twice."""

    name: str
    open: Callable[[Path, Callable[[], int]], SqlLedger]
    code: str  # the same as Python text with `place` in it, for another process
    examples: int  # for the model: making one costs more where it is a database of its own
    hurry: Callable[[pytest.MonkeyPatch], None]  # no waiting for the disk: power cuts are tested elsewhere


def _open_sqlite(place: Path, clock: Callable[[], int]) -> SqlLedger:
    return sqlite.open_sqlite(place / "reports" / "ledger.sqlite3", create=True, clock=clock)


def _open_postgres(place: Path, clock: Callable[[], int]) -> SqlLedger:
    noted = place / "database"
    if not noted.exists():
        noted.write_text(postgres.shared().database())
    return open_postgres(noted.read_text(), create=True, clock=clock)


IMPLEMENTATIONS = [
    Implementation(
        "sqlite",
        _open_sqlite,
        "__import__('runner.ledger.sqlite', fromlist=['x']).open_sqlite(place / 'reports' / 'ledger.sqlite3', create=True)",
        50,
        _hurry_sqlite,
    ),
    Implementation(
        "postgres",
        _open_postgres,
        "__import__('runner.ledger.postgres', fromlist=['x']).open_postgres((place / 'database').read_text(), create=True)",
        12,
        lambda _: None,  # the test server does not wait for the disk
    ),
]

ANNA, BORIS, CEM, DILA, EREN = (f"90532000000{i}" for i in range(1, 6))


def digest(caption: str) -> bytes:
    return hashlib.sha256(caption.encode()).digest()


def row(position: int, phone: str, caption: str = "Hello", reason: str = "") -> PlannedRow:
    """A row of the audience as planned; without a phone it could not be read."""
    reason = reason or ("" if phone else "invalid_phone")
    return PlannedRow(
        position=position,
        row=position + 2,
        phone=phone,
        country="TR" if phone else "",
        raw_phone=f"+{phone}" if phone else "not a number",
        reason=reason,
        detail="not a phone number" if reason == "invalid_phone" else "",
        image="https://cdn.example.com/a.jpg",
        caption=caption if not reason else "",
        scheduled_at=None,
        payload=digest(caption) if not reason else None,
        own=f'["{phone}"]',
    )


def audience(*people: str | tuple[str, str]) -> list[PlannedRow]:
    """Rows in the order given: phones, or phones with their captions."""
    return [row(i, *(person if isinstance(person, tuple) else (person,))) for i, person in enumerate(people)]


def draft(name: str = "spring", plan_hash: str = "hash") -> CampaignDraft:
    return CampaignDraft(name, "wapim", "sender", ("Mobile",), "Mobile", {"formats": ["csv"]}, plan_hash)


def plan(
    ledger: SqlLedger,
    rows: Iterable[PlannedRow],
    *,
    name: str = "spring",
    duplicates: Literal["first", "last", "error"] = "first",
    suppressed: Sequence[str] = (),
) -> int:
    """Stage and adopt, as `send` does. Returns the campaign's id."""
    with ledger.stage() as staging:
        staging.add(list(rows))
        staging.suppress(suppressed, "optouts.csv")
        staging.settle(name, duplicates)
        staging.difference()
        return ledger.adopt(staging, draft(name))


ACCEPTED = Outcome(Verdict.ACCEPTED, code="200", queue_id="q1")
REJECTED = Outcome(Verdict.REJECTED, "bad_request", code="400", detail="no such number")
REFUSED = Outcome(Verdict.NOT_SENT, "unreachable", detail="connection refused")
LOST = Outcome(Verdict.UNKNOWN, "reply_timeout", detail="no reply in time")


@dataclass
class Run:
    """One run of a campaign, step by step."""

    ledger: SqlLedger
    campaign: int
    clock: Clock
    id: int = 0  # of a run that has begun already

    def __post_init__(self) -> None:
        self.id = self.id or self.ledger.begin_run(self.campaign, "process 1 on here", "hash")
        self.sender = 1
        self.hold = Hold(self.campaign, self.id, self.sender)

    def claim(self, n: int = 100, only: Sequence[str] | None = None) -> list[Claim]:
        return list(self.ledger.claim(self.hold, n, self.clock(), only))

    def begin(self, *claims: Claim) -> dict[int, str]:
        intents = [Intent(claim, self.clock()) for claim in claims]
        return dict(self.ledger.apply(self.hold, (), intents).refused)

    def finish(self, claim: Claim, outcome: Outcome, status: Status, wait: int = 0) -> None:
        not_before = self.clock() + wait if wait else 0
        done = Finish(claim.id, claim.attempts + 1, outcome, status, self.clock(), not_before)
        self.ledger.apply(self.hold, [done], ())

    def send(self, outcome: Outcome, status: Status, *phones: str, wait: int = 0) -> None:
        """Claim, begin and finish these numbers."""
        for claim in self.claim(only=phones):
            assert self.begin(claim) == {}
            self.finish(claim, outcome, status, wait)
