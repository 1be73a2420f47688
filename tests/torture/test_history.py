"""The judge itself: a true history passes, and every kind of falsehood is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import history
import orjson
import pytest
from bench import open_bench

pytestmark = pytest.mark.slow

ROWS = 8


@dataclass(frozen=True, slots=True)
class Case:
    """Both sides of one small campaign, to be falsified."""

    ledger: Path
    log: Path

    def sql(self, *statements: str) -> None:
        """Change the ledger."""
        with closing(sqlite3.connect(self.ledger)) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, f"changed nothing: {statement}"
            connection.commit()

    def entries(self) -> list[dict[str, object]]:
        """The provider's log."""
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines()]

    def write(self, entries: list[dict[str, object]]) -> None:
        """Another log in its place."""
        self.log.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))

    def judged(self) -> history.Figures:
        """What the judge says."""
        book = history.read_book(self.ledger, "true")
        return history.judge(
            history.read_log(self.log), book, rows=ROWS, unknown_at_most=1, finished=True, note="seed 0"
        )


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A real campaign: six accepted, one refused, one accepted at the second attempt."""
    folder = tmp_path_factory.mktemp("true")
    with open_bench(folder) as bench:
        rules = [{"after": 3, "times": 1, "status": 400}, {"after": 3, "times": 1, "retry_after": 1}]
        provider = bench.provider(rules=rules)
        campaign = bench.campaign("true", provider, ROWS, send={"concurrency": 1})
        bench.finish(campaign)
        bench.judge(campaign, provider, unknown_at_most=0)
        yield Case(bench.ledger, provider.log)


@pytest.fixture
def case(true: Case, tmp_path: Path) -> Case:
    """A copy to falsify."""
    return Case(Path(shutil.copy(true.ledger, tmp_path)), Path(shutil.copy(true.log, tmp_path)))


def test_a_true_history_passes(case: Case) -> None:
    figures = case.judged()
    assert figures.statuses == {"accepted": ROWS - 1, "rejected": 1}
    assert (figures.requests, figures.taken) == (ROWS + 1, ROWS - 1)


def _twice(case: Case) -> None:
    entries = case.entries()
    case.write([*entries, {**entries[0], "at_us": int(str(entries[0]["at_us"])) + 100_000}])


def _before_the_attempt(case: Case) -> None:
    case.sql("UPDATE attempts SET started_at = started_at + 10000000 WHERE recipient_id = 1")


def _without_an_attempt(case: Case) -> None:
    case.sql("DELETE FROM attempts WHERE recipient_id = 1", "UPDATE recipients SET attempts = 0 WHERE id = 1")


def _never_arrived(case: Case) -> None:
    case.write(case.entries()[1:])


def _other_caption(case: Case) -> None:
    case.sql("UPDATE messages SET caption = caption || '.' WHERE id = 1")


def _other_image(case: Case) -> None:
    case.sql("UPDATE messages SET image = image || '.' WHERE id = 1")


def _other_queue_id(case: Case) -> None:
    case.sql("UPDATE recipients SET queue_id = 'another' WHERE id = 1")


def _taken_and_rejected(case: Case) -> None:
    case.sql(
        "UPDATE recipients SET status = 'rejected' WHERE id = 1",
        "UPDATE attempts SET verdict = 'rejected' WHERE recipient_id = 1",
    )


def _taken_and_skipped(case: Case) -> None:
    case.sql("UPDATE recipients SET status = 'skipped' WHERE id = 1")


def _refused_and_accepted(case: Case) -> None:
    case.sql("UPDATE recipients SET status = 'accepted' WHERE status = 'rejected'")


def _sent_again_after_doubt(case: Case) -> None:
    case.sql("UPDATE attempts SET verdict = 'unknown' WHERE number = 1 AND verdict = 'not_sent'")


def _a_row_lost(case: Case) -> None:
    case.sql("DELETE FROM recipients WHERE status = 'rejected'")


def _a_row_waiting(case: Case) -> None:
    case.sql("UPDATE recipients SET status = 'pending' WHERE status = 'rejected'")


def _too_many_unknown(case: Case) -> None:
    case.sql("UPDATE recipients SET status = 'unknown' WHERE id IN (1, 2)")


FALSEHOODS: list[tuple[Callable[[Case], None], str]] = [
    (_twice, "second request for attempt 1"),
    (_before_the_attempt, "before any attempt was on record"),
    (_without_an_attempt, "before any attempt was on record"),
    (_never_arrived, "did not take"),
    (_other_caption, "planned was"),
    (_other_image, "planned was"),
    (_other_queue_id, "queue id"),
    (_taken_and_rejected, "provider took the message"),
    (_taken_and_skipped, "has no row that was to be sent"),
    (_refused_and_accepted, "did not take the message"),
    (_sent_again_after_doubt, "which was unknown"),
    (_a_row_lost, "the audience has 8 rows"),
    (_a_row_waiting, "there are {'pending': 1}"),
    (_too_many_unknown, "2 rows are unknown, 1 are allowed"),
]


@pytest.mark.parametrize(("falsify", "words"), FALSEHOODS, ids=[function.__name__[1:] for function, _ in FALSEHOODS])
def test_a_falsehood_is_found(falsify: Callable[[Case], None], words: str, case: Case) -> None:
    falsify(case)
    with pytest.raises(history.HistoryError) as caught:
        case.judged()
    assert words in str(caught.value)
    assert "seed 0" in str(caught.value)
    phones = {str(entry["phone"]) for entry in case.entries()}
    assert not any(phone in str(caught.value) for phone in phones), "a whole number is printed"


def test_what_a_person_chose_to_send_again_is_no_falsehood(case: Case) -> None:
    """The same double attempt as above, with the choice between the two on record."""
    case.sql(
        "UPDATE attempts SET verdict = 'unknown' WHERE number = 1 AND verdict = 'not_sent'",
        "INSERT INTO audits (at, campaign_id, action, detail) SELECT started_at - 1, 1, 'requeue', '' FROM attempts "
        "WHERE number = 2",
    )
    assert case.judged().requests == ROWS + 1
