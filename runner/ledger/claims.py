"""Claiming: recipients whose time has come are held by one run until they are sent, given back, or their run is dead."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text

from runner.errors import TakenOverError
from runner.ledger.base import UNCOUNTED, Claim, Hold
from runner.ledger.batches import gate
from runner.ledger.reading import PHONES, whose
from runner.model import Message

TAKEN_OVER_TEXT = "another run has taken over this campaign: nothing more was sent by this one"

# The list is made once and first: without MATERIALIZED PostgreSQL may run a sub-select with LIMIT again for every row.
_CLAIM = (
    "WITH due AS MATERIALIZED (SELECT id FROM recipients WHERE {whose} AND not_before <= :now ORDER BY position LIMIT :n {lock}) "
    "UPDATE recipients SET status = 'claimed', run_id = :run WHERE id IN (SELECT id FROM due) "
    "RETURNING id, phone, attempts, position"
)
_CONTENTS = text(
    "SELECT m.id, m.image, m.caption, m.scheduled_at, m.payload, (SELECT count(*) FROM attempts a WHERE a.recipient_id = m.id "
    "AND a.reason IN :uncounted) FROM messages m WHERE m.id IN :ids"
).bindparams(bindparam("ids", expanding=True), bindparam("uncounted", expanding=True))


def claim(connection: Connection, hold: Hold, n: int, now: int, only: Sequence[str] | None) -> list[Claim]:
    """Up to `n` recipients who are due at `now`, in input order. Raises TakenOverError."""
    _, ours = gate(connection, hold)
    if not ours:
        raise TakenOverError(TAKEN_OVER_TEXT)
    condition, parameters = whose(hold, only)
    # SKIP LOCKED: two that claim at once share the rows out instead of waiting for one another.
    lock = "FOR UPDATE SKIP LOCKED" if connection.dialect.name == "postgresql" else ""
    claiming = text(_CLAIM.format(whose=condition, lock=lock))
    if only is not None:
        claiming = claiming.bindparams(PHONES)
    rows = connection.execute(claiming, parameters | {"now": now, "n": n, "run": hold.run_id})
    held = {row[0]: row for row in rows}
    if not held:
        return []
    contents = connection.execute(_CONTENTS, {"ids": list(held), "uncounted": UNCOUNTED})
    claims = [
        Claim(key, Message(held[key][1], image, caption, scheduled_at), payload, held[key][2], uncounted)
        for key, image, caption, scheduled_at, payload, uncounted in contents
    ]
    return sorted(claims, key=lambda claim: int(held[claim.id][3] or 0))
