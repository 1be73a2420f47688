"""Claiming: recipients whose time has come are held by one run until they are sent, given back, or their run is dead."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text

from runner.errors import TakenOverError
from runner.ledger.base import UNCOUNTED, Claim, Hold
from runner.ledger.batches import gate
from runner.ledger.bulk import ONE_OF, several
from runner.ledger.reading import PHONES, whose
from runner.model import Message

TAKEN_OVER_TEXT = "another run has taken over this campaign: nothing more was sent by this one"

# The list is made once and first: without MATERIALIZED PostgreSQL may run a sub-select with LIMIT again for every row.
_CLAIM = (
    "WITH due AS MATERIALIZED (SELECT id FROM {they} AND not_before <= :now ORDER BY position LIMIT :n {lock}) "
    "UPDATE recipients SET status = 'claimed', run_id = :run WHERE id IN (SELECT id FROM due) "
    "RETURNING id, phone, attempts, position"
)
_CONTENTS = {
    name: text(f"SELECT id, image, caption, scheduled_at, payload FROM messages WHERE id {one_of['ids']}")
    for name, one_of in ONE_OF.items()
}
_UNCOUNTED = {
    name: text(
        f"SELECT recipient_id, count(*) FROM attempts WHERE recipient_id {one_of['ids']} AND reason IN :uncounted "
        "GROUP BY recipient_id"
    ).bindparams(bindparam("uncounted", UNCOUNTED, expanding=True))
    for name, one_of in ONE_OF.items()
}


def claim(connection: Connection, hold: Hold, n: int, now: int, only: Sequence[str] | None) -> list[Claim]:
    """Up to `n` recipients who are due at `now`, in input order. Raises TakenOverError."""
    _, ours = gate(connection, hold)
    if not ours:
        raise TakenOverError(TAKEN_OVER_TEXT)
    they, parameters = whose(connection, hold, only)
    # SKIP LOCKED: two that claim at once share the rows out instead of waiting for one another.
    dialect = connection.dialect.name
    lock = "FOR UPDATE SKIP LOCKED" if dialect == "postgresql" else ""
    claiming = text(_CLAIM.format(they=they, lock=lock))
    if only is not None:
        claiming = claiming.bindparams(PHONES)
    rows = connection.execute(claiming, parameters | {"now": now, "n": n, "run": hold.run_id}).all()
    held = {row[0]: row for row in rows}
    if not held:
        return []
    tried = [key for key, row in held.items() if row[2]]
    uncounted: dict[int, int] = {}
    if tried:
        counts = connection.execute(_UNCOUNTED[dialect], {"ids": several(connection, tried)})
        uncounted = {int(key): int(n) for key, n in counts}
    contents = connection.execute(_CONTENTS[dialect], {"ids": several(connection, list(held))}).all()
    claims = [
        Claim(key, Message(held[key][1], image, caption, scheduled_at), payload, held[key][2], uncounted.get(key, 0))
        for key, image, caption, scheduled_at, payload in contents
    ]
    return sorted(claims, key=lambda claim: int(held[claim.id][3] or 0))
