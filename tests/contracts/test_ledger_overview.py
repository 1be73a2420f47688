"""What `campaign status` is told is what a plain count of the rows says, whichever way it was asked."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

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
    plan,
)

from runner.ledger.base import SCHEMA_VERSION
from runner.ledger.overview import glance
from runner.ledger.sql import SqlLedger
from runner.ledger.sqlite import open_sqlite
from runner.model import Status


def told_as_counted(ledger: SqlLedger, place: Path, clock: Clock) -> None:
    """Every figure against a plain look at the rows, in Python."""
    campaign = ledger.campaign("spring")
    rows = list(ledger.results(campaign.id))
    (found,) = ledger.overviews("spring")
    counts = found.view.counts
    assert counts == ledger.counts(campaign.id)
    assert dict(counts.by_status) == dict(Counter(Status(each.status) for each in rows))
    assert dict(counts.by_reason) == dict(Counter((Status(each.status), each.reason) for each in rows if each.reason))
    assert counts.gone == sum(each.row is None for each in rows)
    flying = [each.last_attempt_at for each in rows if each.status == Status.IN_FLIGHT]
    assert found.view.oldest_in_flight == min(flying, default=0)
    file = place / "reports" / "ledger.sqlite3"
    if file.exists():
        assert glance(file, "spring", clock.now) == [found]
        assert glance(file, "", clock.now) == ledger.overviews("")


@pytest.mark.parametrize("kind", IMPLEMENTATIONS, ids=lambda kind: kind.name)
def test_status_tells_what_a_count_of_the_rows_says_after_every_step(
    kind: Implementation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind.hurry(monkeypatch)
    clock = Clock()
    ledger = kind.open(tmp_path, clock)

    def look() -> None:
        clock.now += 1_000
        told_as_counted(ledger, tmp_path, clock)

    try:
        other = audience(*(f"9053211100{i:02d}" for i in range(30)))  # so that this campaign is not most of the ledger
        plan(ledger, other, name="autumn")
        campaign = plan(ledger, audience(ANNA, BORIS, CEM, DILA, EREN, "", ANNA))
        look()
        run = Run(ledger, campaign, clock)
        claims = run.claim(5)
        look()
        for claim in claims:
            run.begin(claim)
            look()
        endings = (
            (ACCEPTED, Status.ACCEPTED),
            (REJECTED, Status.REJECTED),
            (REFUSED, Status.RETRY_WAIT),
            (LOST, Status.UNKNOWN),
        )
        for claim, (outcome, status) in zip(claims, endings, strict=False):
            run.finish(claim, outcome, status, 5 if status is Status.RETRY_WAIT else 0)
            look()
        ledger.recover(campaign)
        look()
        plan(ledger, audience(DILA, "905320000077", "905320000078"))
        look()
        ledger.prove(next(each.id for each in ledger.unknowns(campaign)), "seen by the provider")
        look()
        ledger.requeue(campaign, [Status.REJECTED, Status.UNKNOWN], None, "by a test")
        look()
        ledger.give_up(campaign, "cancelled", "by a test")
        look()
        plan(ledger, [], name="empty")
        assert dict(ledger.counts(ledger.campaign("empty").id).by_status) == {}
        look()
    finally:
        ledger.close()


def test_a_glance_leaves_to_the_ledger_what_it_cannot_answer(tmp_path: Path) -> None:
    file = tmp_path / "reports" / "ledger ?%.sqlite3"
    ledger = open_sqlite(file, create=True)
    plan(ledger, audience(ANNA))
    ledger.close()
    assert [each.view.counts.total for each in glance(file, "", 0) or []] == [1]
    assert glance(file, "winter", 0) is None
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE meta SET value = ?", (str(int(SCHEMA_VERSION) - 1),))
    assert glance(file, "", 0) is None
    file.write_bytes(b"no ledger at all" * 1000)
    assert glance(file, "", 0) is None
    file.write_bytes(b"")
    assert (glance(file, "", 0), glance(file, "spring", 0)) == ([], None)
    file.unlink()
    assert (glance(file, "", 0), glance(file, "spring", 0)) == ([], None)
    assert not file.exists()
