"""Leave to send, given out by the database: one row per sender says when its next request may leave, for all machines.

`n` slots are taken by moving `next_slot` on by n gaps. The answer is a distance in time, so nobody's clock but the
database's counts (SQLite has none of its own: the machine's). Measured with PostgreSQL 15, two cores, durable commits: 3,358
such statements a second from one connection, 937 from 32 at once; with blocks of 20 slots far above any sender's limit.

Evenly spaced slots keep the limit of the shortest window by themselves. Longer windows (1,000 a day beside 40 a second)
are kept by counting: slot k may not come sooner than the window's length after slot k - count, which `slots` remembers. So is
the shortest one after requests that had no slots and were not evenly spaced: those of a run that was alone until now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from runner.ledger.sql import SqlLedger

HORIZON_US = 2_000_000  # nobody takes slots further ahead: what a dead worker had taken is lost
SET_OFF_US = 2_000_000  # a request of a run without slots left up to so long after its intent
DAY_US = 86_400_000_000

_POSTGRES_NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
_NOW = {"postgresql": _POSTGRES_NOW, "sqlite": "CAST(:now AS INTEGER)"}

_GAP = "CAST(:gap AS bigint)"  # the driver sends a small number as a small type, whose product with another may not fit
_TAKE = text(  # one statement, where no longer window must be asked
    "WITH taken AS (UPDATE senders SET slot_count = slot_count + :n, "
    f"next_slot = greatest(next_slot, paused_until, {_POSTGRES_NOW} + :lead) + :n * {_GAP} "
    f"WHERE id = :id AND greatest(next_slot, paused_until) <= {_POSTGRES_NOW} + :horizon "
    "RETURNING id, slot_count, next_slot) INSERT INTO slots (sender_id, upto, n, last, gap) "
    f"SELECT id, slot_count, :n, next_slot - {_GAP}, {_GAP} FROM taken "
    f"RETURNING last - {_GAP} * (:n - 1) - {_POSTGRES_NOW}"
)
_LOOK = {
    name: text(f"SELECT next_slot, paused_until, slot_count, {now} FROM senders WHERE id = :id{lock}")
    for name, now, lock in (("postgresql", _POSTGRES_NOW, " FOR UPDATE"), ("sqlite", _NOW["sqlite"], ""))
}
_MOMENTS = text(  # the blocks that slots first ... last are in; :most blocks hold them all
    "SELECT upto, n, last, gap FROM slots WHERE sender_id = :id AND upto >= :first AND upto - n < :last "
    "ORDER BY upto LIMIT :most"
)
_MOVE = text("UPDATE senders SET next_slot = :next, slot_count = :upto WHERE id = :id")
_NOTE = text("INSERT INTO slots (sender_id, upto, n, last, gap) VALUES (:id, :upto, :n, :last, :gap)")
_PAUSE = {
    name: text(f"UPDATE senders SET paused_until = {now} + :us WHERE id = :id AND paused_until < {now} + :us")
    for name, now in _NOW.items()
}
_PRUNE = {
    name: text(f"DELETE FROM slots WHERE sender_id = :id AND last < {now} - 2 * {DAY_US}") for name, now in _NOW.items()
}
_REBUILD = {
    name: text(
        "INSERT INTO slots (sender_id, upto, n, last, gap) SELECT :id, row_number() OVER (ORDER BY started_at, recipient_id), "
        f"1, started_at + {SET_OFF_US}, 0 FROM attempts WHERE sender_id = :id AND started_at > {now} - {DAY_US}"
    )
    for name, now in _NOW.items()
}
# The same, to the point: what this run has sent since it began left at most :slowest after its intent, and all of it has left by
# now. In blocks of those that left within 10 ms, or within a second where it was more than a minute ago: a day may hold millions.
_SENT = text(
    "INSERT INTO slots (sender_id, upto, n, last, gap) SELECT :id, sum(count(*)) OVER (ORDER BY max(moment)), count(*), "
    "max(moment), 0 FROM (SELECT min(started_at + CASE WHEN started_at >= :since THEN :slowest ELSE "
    f"{SET_OFF_US} END, :now) AS moment FROM attempts WHERE sender_id = :id AND started_at > :now - {DAY_US}) AS sent "
    "GROUP BY moment > :now - 60000000, moment / CASE WHEN moment > :now - 60000000 THEN 10000 ELSE 1000000 END"
)
_FORGET = text("DELETE FROM slots WHERE sender_id = :id")
_COUNT = text(
    "UPDATE senders SET slot_count = (SELECT coalesce(max(upto), 0) FROM slots WHERE sender_id = :id), "
    "next_slot = (SELECT coalesce(max(last), 0) + :gap FROM slots WHERE sender_id = :id) WHERE id = :id"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a sender's limits mean for slots, in microseconds. Each of `windows`: at most `count` slots in `length`.

    `shortest` is the window that the gap keeps; it is counted only where there were no gaps.
    """

    gap: int
    windows: Sequence[tuple[int, int]] = ()
    shortest: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """`n` slots, the first in `delay` seconds, `gap` seconds apart. n = 0: none yet, ask again in `delay`.

    `said_at`: when that was true, by this process's `time.monotonic`, where the ledger's clock is the machine's own. None:
    some time between question and answer.
    """

    n: int
    delay: float
    gap: float = 0.0
    said_at: float | None = None


class Slots:
    """The slots of one sender. Threads: any, one call at a time."""

    def __init__(self, ledger: SqlLedger, sender_id: int) -> None:
        self._ledger = ledger
        self._id = sender_id

    def reserve(self, n: int, budget: Budget, lead: float) -> Granted:
        """Take `n` slots (or fewer, near the end of a long window), the first not sooner than in `lead` seconds."""

        def attempt() -> Granted:
            with self._ledger.writing() as connection:
                if connection.dialect.name == "postgresql" and not budget.windows:
                    return self._take(connection, n, budget.gap, round(lead * 1e6))
                return self._count_and_take(connection, n, budget, round(lead * 1e6))

        return self._ledger.lasting(attempt)  # slots of an answer that was lost are lost

    def pause(self, seconds: float) -> None:
        """Nobody sends for this sender for so long from now on; a longer pause stays."""

        def attempt() -> None:
            with self._ledger.writing() as connection:
                parameters = {"id": self._id, "us": round(seconds * 1e6), **self._now(connection)}
                connection.execute(_PAUSE[connection.dialect.name], parameters)

        self._ledger.lasting(attempt)

    def rebuild(self, gap: int) -> None:
        """Before the first slot: what was sent without slots (by a lone run, or in the ledger this one was copied from)
        counts. Forgets what no window reaches any more."""
        with self._ledger.writing() as connection:
            name = connection.dialect.name
            parameters: dict[str, object] = {"id": self._id, "gap": gap, **self._now(connection)}
            _, _, upto, _ = connection.execute(_LOOK[name], parameters).one()
            if upto == 0:
                connection.execute(_REBUILD[name], parameters)
                connection.execute(_COUNT, parameters)
            else:
                connection.execute(_PRUNE[name], parameters)

    def follow(self, gap: int, since: int, slowest: int) -> None:
        """Before the first slot after a run that was alone until now: all that was sent counts, earlier slots do not.

        The run has sent since the moment `since`; its requests left at most `slowest` after their intents, and have left.
        """
        with self._ledger.writing() as connection:
            parameters = {"id": self._id, "gap": gap, "since": since, "slowest": slowest, "now": self._ledger.clock()}
            connection.execute(_FORGET, parameters)
            connection.execute(_SENT, parameters)
            connection.execute(_COUNT, parameters)

    def _take(self, connection: Connection, n: int, gap: int, lead: int) -> Granted:
        parameters = {"id": self._id, "n": n, "gap": gap, "lead": lead, "horizon": HORIZON_US}
        delay = connection.execute(_TAKE, parameters).scalar_one_or_none()
        if delay is not None:
            return Granted(n, int(delay) / 1e6, gap / 1e6)
        next_slot, paused_until, _, now = connection.execute(_LOOK["postgresql"], parameters).one()
        return Granted(0, (max(next_slot, paused_until) - HORIZON_US - now) / 1e6)

    def _count_and_take(self, connection: Connection, n: int, budget: Budget, lead: int) -> Granted:
        look = _LOOK[connection.dialect.name]
        next_slot, paused_until, upto, now = connection.execute(look, {"id": self._id, **self._now(connection)}).one()
        steady = self._ledger.steady
        said_at = steady.monotonic(now) if steady is not None else None
        earliest = max(next_slot, paused_until, now + lead)
        n = min(n, *(count for count, _ in budget.windows)) if budget.windows else n
        while True:
            first = max(earliest, self._free_at(connection, upto, n, budget))
            if first <= now + max(HORIZON_US, lead):
                break
            if n == 1:
                return Granted(0, (first - HORIZON_US - now) / 1e6, said_at=said_at)
            n //= 2
        last = first + (n - 1) * budget.gap
        block = {"id": self._id, "upto": upto + n, "n": n, "last": last, "gap": budget.gap, "next": last + budget.gap}
        connection.execute(_MOVE, block)
        connection.execute(_NOTE, block)
        return Granted(n, (first - now) / 1e6, budget.gap / 1e6, said_at)

    def _free_at(self, connection: Connection, upto: int, n: int, budget: Budget) -> int:
        """When `n` slots that follow on slot `upto` may begin at the soonest, as far as windows are counted."""
        windows = [(count, length, False) for count, length in budget.windows]
        if budget.shortest is not None and connection.dialect.name == "sqlite":
            windows.append((*budget.shortest, True))
        free_at = 0
        for count, length, uneven in windows:
            first, last = upto + 1 - count, min(upto + n - count, upto)
            if last < 1:
                continue
            keys = {"id": self._id, "first": first, "last": last, "most": n}
            for block_upto, block_n, moment, gap in connection.execute(_MOMENTS, keys):
                if uneven and gap:
                    continue
                # Number k was at moment - (block_upto - k) * gap, and the one that must come `length` later is
                # k - first gaps after the first of ours: both ends of a block say all about it.
                for k in (max(first, block_upto - block_n + 1), min(last, block_upto)):
                    free_at = max(free_at, moment - (block_upto - k) * gap + length - (k - first) * budget.gap)
        return free_at

    def _now(self, connection: Connection) -> dict[str, int]:
        return {"now": self._ledger.clock()} if connection.dialect.name == "sqlite" else {}
