"""The judge of the torture bench: joins what the provider saw with what the ledger says, and names every disagreement.

It reads the two sides as they lie on the disk, the stand-in's log (JSON lines) and the ledger's tables, and uses nothing of
the runner's own code, so that a mistake there cannot excuse itself here.
"""

from __future__ import annotations

import csv
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson

GRAIN_US = 50_000  # two processes read the same clock; the stand-in's runs on from one reading of it
SENDS = "/message"  # every path that takes a message has it, see the vendors' pages
WAITING = frozenset({"pending", "claimed", "in_flight", "retry_wait"})
STATUSES = WAITING | {"skipped", "accepted", "rejected", "not_sent", "unknown"}
NAMED = 15  # disagreements shown


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the provider saw it."""

    at: int
    phone: str
    image: str
    caption: str
    action: str
    taken: bool
    queue_id: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as the ledger has it."""

    number: int
    started_at: int
    finished_at: int
    verdict: str


@dataclass(slots=True)
class Row:
    """One recipient as the ledger has it."""

    row: int
    phone: str
    status: str
    reason: str
    queue_id: str
    tries: int
    image: str
    caption: str
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Book:
    """One campaign in the ledger."""

    rows: Sequence[Row]
    requeued: Sequence[int]  # when a person chose to send rows again


@dataclass(frozen=True, slots=True)
class Figures:
    """What a judged history adds up to."""

    statuses: Mapping[str, int]
    requests: int
    taken: int
    unknown_taken: int  # of the unknown rows: those the provider took

    @property
    def unknown(self) -> int:
        """Rows whose fate is not known."""
        return self.statuses.get("unknown", 0)


class HistoryError(AssertionError):
    """The two sides disagree."""


def masked(phone: str) -> str:
    """A number that can be told apart in a message and not be called."""
    return f"{phone[:4]}****{phone[-3:]}"


def read_log(path: Path) -> list[Seen]:
    """The stand-in's log, oldest first. A line still being written is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_seen(orjson.loads(line)) for line in lines]


def _seen(entry: Mapping[str, object]) -> Seen:
    body = entry["body"]
    phone, at = entry["phone"], entry["at_us"]
    assert isinstance(body, str) and isinstance(phone, str) and isinstance(at, int)
    sent = orjson.loads(body) if phone else {}
    return Seen(
        at,
        phone,
        sent.get("content_url", ""),
        sent.get("caption", ""),
        str(entry["action"]),
        bool(entry["accepted_by_provider"]),
        str(entry["queue_id"]),
    )


def read_book(ledger: Path, campaign: str) -> Book:
    """A campaign as a power cut now would leave it: the file is copied with its journal, and the copy is opened.

    The original is not touched: it is for the next run to recover it. A campaign that is not there has no rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ledger.name
        for suffix in ("", "-journal", "-wal"):
            side = ledger.with_name(ledger.name + suffix)
            if side.exists():
                shutil.copyfile(side, copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy)) as connection:
            return _book(connection, campaign)


def _book(connection: sqlite3.Connection, campaign: str) -> Book:
    (fine,) = connection.execute("PRAGMA integrity_check").fetchone()
    assert fine == "ok", f"the ledger is damaged: {fine}"
    if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'audits'").fetchone() == (0,):
        return Book((), ())
    found = connection.execute("SELECT id FROM campaigns WHERE name = ?", (campaign,)).fetchone()
    if found is None:
        return Book((), ())
    rows = {
        key: Row(*values)
        for key, *values in connection.execute(
            "SELECT r.id, r.row, r.phone, r.status, r.reason, r.queue_id, r.attempts, m.image, m.caption "
            "FROM recipients r LEFT JOIN messages m ON m.id = r.id WHERE r.campaign_id = ? ORDER BY r.id",
            found,
        )
    }
    attempts = connection.execute(
        "SELECT a.recipient_id, a.number, a.started_at, a.finished_at, a.verdict FROM attempts a "
        "JOIN recipients r ON r.id = a.recipient_id WHERE r.campaign_id = ? ORDER BY a.recipient_id, a.number",
        found,
    )
    for key, *values in attempts:
        rows[key].attempts.append(Attempt(*values))
    requeued = connection.execute("SELECT at FROM audits WHERE campaign_id = ? AND action = 'requeue'", found)
    return Book(list(rows.values()), [int(at) for (at,) in requeued])


def judge(
    seen: Iterable[Seen], book: Book, *, rows: int | None, unknown_at_most: int, finished: bool, note: str
) -> Figures:
    """Hold the provider's side against the ledger's. Raises HistoryError with every disagreement, and `note` (the seed).

    `rows`: how many the audience has (None: not planned yet, perhaps). `finished`: nothing may wait any more; otherwise
    rows in flight are counted with the unknown ones, for that is what they are if nobody comes back.
    """
    requests: dict[str, list[Seen]] = {}
    for request in sorted((item for item in seen if item.phone), key=lambda item: item.at):
        requests.setdefault(request.phone, []).append(request)
    wrong: list[str] = []
    statuses = Counter(row.status for row in book.rows)
    _add_up(book, statuses, rows, finished, wrong)
    live = {row.phone: row for row in book.rows if row.status != "skipped"}
    for phone, asked in requests.items():
        if phone not in live:
            wrong.append(f"{masked(phone)} was requested {len(asked)} times and has no row that was to be sent")
    for row in book.rows:
        asked = requests.get(row.phone, []) if row.status != "skipped" else []

        def say(what: str, row: Row = row, asked: Sequence[Seen] = asked) -> None:
            wrong.append(f"row {row.row} {masked(row.phone)} ({row.status} {row.reason}): {what}{_story(row, asked)}")

        _judge_row(row, asked, book.requeued, say)
    doubt = statuses["unknown"] + (0 if finished else statuses["in_flight"])
    if doubt > unknown_at_most:
        wrong.append(f"{doubt} rows are unknown, {unknown_at_most} are allowed")
    if wrong:
        more = f"\n... and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise HistoryError(f"{len(wrong)} disagreements ({note}):\n" + "\n".join(wrong[:NAMED]) + more)
    asked_for = [item for items in requests.values() for item in items]
    taken = {item.phone for item in asked_for if item.taken}
    unknown_taken = sum(row.phone in taken for row in book.rows if row.status in {"unknown", "in_flight"})
    return Figures(dict(statuses), len(asked_for), len(taken), unknown_taken)


def _add_up(book: Book, statuses: Counter[str], rows: int | None, finished: bool, wrong: list[str]) -> None:
    if rows is not None and len(book.rows) != rows:
        wrong.append(f"the audience has {rows} rows, the ledger {len(book.rows)}: {dict(statuses)}")
    if strange := set(statuses) - STATUSES:
        wrong.append(f"statuses nobody knows: {sorted(strange)}")
    if finished and (waiting := {word: n for word, n in statuses.items() if word in WAITING}):
        wrong.append(f"the campaign is finished, yet there are {waiting}")
    numbers = Counter(row.phone for row in book.rows if row.status != "skipped")
    wrong.extend(f"{masked(phone)} has {n} rows that are to be sent" for phone, n in numbers.items() if n > 1)


def _judge_row(row: Row, asked: Sequence[Seen], requeued: Sequence[int], say: Callable[[str], None]) -> None:
    if [attempt.number for attempt in row.attempts] != list(range(1, row.tries + 1)):
        say("the attempts are not numbered 1, 2, ...")
    matched = _match(row.attempts, asked, say)
    for attempt, following in zip(row.attempts, row.attempts[1:], strict=False):
        by_person = any(attempt.started_at <= at <= following.started_at for at in requeued)
        if attempt.verdict != "not_sent" and not by_person:
            say(
                f"attempt {following.number} came after attempt {attempt.number}, which was {attempt.verdict or 'open'}"
            )
    for attempt in row.attempts:
        request = matched.get(attempt.number)
        if attempt.verdict == "not_sent" and request is not None and request.taken:
            say(f"attempt {attempt.number} counts as not sent, and the provider took the message")
        if attempt.verdict == "rejected" and (request is None or request.taken):
            say(f"attempt {attempt.number} counts as rejected, and the provider did not refuse it")
        if attempt.verdict == "accepted" and (request is None or not request.taken):
            say(f"attempt {attempt.number} counts as accepted, and the provider did not take it")
    taken = [request for request in asked if request.taken]
    chosen = [at for at in requeued if row.attempts and at >= row.attempts[0].started_at]
    if len(taken) > 1 and not chosen:
        say(f"the provider took the message {len(taken)} times")
    last = row.attempts[-1] if row.attempts else None
    request = matched.get(last.number) if last is not None else None
    if row.status == "accepted":
        if request is None or not request.taken:
            say("the provider did not take the message")
        elif (request.image, request.caption) != (row.image, row.caption):
            say(
                f"the provider was given {request.caption!r} with {request.image}, planned was {row.caption!r} with {row.image}"
            )
        elif request.queue_id != row.queue_id:
            say(f"the queue id is {row.queue_id!r}, the provider gave {request.queue_id!r}")
    elif row.status not in {"unknown", "in_flight"} and taken and not chosen:
        say("the provider took the message")
    if row.status in {"unknown", "in_flight"} and last is None:
        say("there is no attempt")


def _match(attempts: Sequence[Attempt], asked: Sequence[Seen], say: Callable[[str], None]) -> dict[int, Seen]:
    """Attempt number -> its request. A request belongs to the last attempt begun before it; none may have two."""
    matched: dict[int, Seen] = {}
    for request in asked:
        begun = [attempt for attempt in attempts if attempt.started_at <= request.at]
        begun = begun or [attempt for attempt in attempts if attempt.started_at <= request.at + GRAIN_US][:1]
        if not begun:
            say("the provider saw a request before any attempt was on record")
        elif begun[-1].number in matched:
            say(f"the provider saw a second request for attempt {begun[-1].number}")
        else:
            matched[begun[-1].number] = request
    return matched


def _story(row: Row, asked: Sequence[Seen]) -> str:
    events = [(a.started_at, f"attempt {a.number} begun, {a.verdict or 'open'}") for a in row.attempts]
    events += [(item.at, f"provider: {item.action}{', taken' if item.taken else ''}") for item in asked]
    first = min((at for at, _ in events), default=0)
    return "".join(f"\n      {(at - first) / 1000:9.1f} ms  {what}" for at, what in sorted(events))


def judge_results(path: Path, book: Book, *, rows: int, note: str) -> None:
    """results.csv says the same as the ledger, every input row exactly once and in order."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        shown = [(int(line["row"]), line["phone"], line["status"]) for line in csv.DictReader(file)]
    expected = sorted((row.row, row.phone, row.status) for row in book.rows)
    if len(shown) != rows or shown != expected:
        apart = [f"{a} / {b}" for a, b in zip(shown, expected, strict=False) if a != b][:3]
        raise HistoryError(f"{path.name} has {len(shown)} rows of {rows}, or others than the ledger ({note}): {apart}")
