"""Claiming: recipients whose time has come are held by one run until they are sent, given back, or their run is dead."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, text

from runner.ledger.base import UNCOUNTED, Claim, Hold, Wanted
from runner.ledger.bulk import ONE_OF, fetch, several
from runner.ledger.reading import whose
from runner.model import Message

_DUE = "FROM {they} AND not_before <= :now ORDER BY position LIMIT :n"
_HELD = "UPDATE recipients SET status = 'claimed', run_id = :run WHERE id {these}"
# The list is made once and first: without MATERIALIZED PostgreSQL may run a sub-select with LIMIT again for every row.
# SKIP LOCKED: two that claim at once share the rows out instead of waiting for one another.
_CLAIM = f"WITH due AS MATERIALIZED (SELECT id {_DUE} FOR UPDATE SKIP LOCKED) {_HELD} RETURNING id"
_COLUMNS = {name: f"r.{name}" for name in ("id", "phone", "attempts")}
_COLUMNS |= {name: f"m.{name}" for name in ("image", "caption", "scheduled_at")}
_CONTENTS = "FROM recipients r JOIN messages m ON m.id = r.id WHERE r.id {one_of} ORDER BY r.position"
_HEX = {"postgresql": "encode(m.payload, 'hex')", "sqlite": "hex(m.payload)"}
_UNCOUNTED = {
    name: text(
        f"SELECT recipient_id, count(*) FROM attempts WHERE recipient_id {one_of['ids']} AND reason IN :uncounted "
        "GROUP BY recipient_id"
    ).bindparams(bindparam("uncounted", UNCOUNTED, expanding=True))
    for name, one_of in ONE_OF.items()
}


def claim(connection: Connection, hold: Hold, wanted: Wanted) -> list[Claim]:
    """Those wanted and found. The caller has made sure, in the same transaction, that this run may still send."""
    ids = _hold(connection, hold, wanted)
    if not ids:
        return []
    dialect = connection.dialect.name
    found = fetch(
        connection,
        _COLUMNS | {"payload": _HEX[dialect]},
        _CONTENTS.format(one_of=ONE_OF[dialect]["ids"]),
        {"ids": several(connection, ids)},
    )
    tried = [row[0] for row in found if row[2]]
    uncounted: dict[int, int] = {}
    if tried:
        counts = connection.execute(_UNCOUNTED[dialect], {"ids": several(connection, tried)})
        uncounted = {int(key): int(n) for key, n in counts}
    return [
        Claim(
            key,
            Message(phone, image, caption, scheduled_at),
            bytes.fromhex(payload or ""),  # none in a ledger of the first version
            attempts,
            uncounted.get(key, 0),
        )
        for key, phone, attempts, image, caption, scheduled_at, payload in found
    ]


def _hold(connection: Connection, hold: Hold, wanted: Wanted) -> list[int]:
    """Ids of those who are claimed now."""
    they, parameters = whose(connection, hold, wanted.only)
    parameters |= {"now": wanted.now, "n": wanted.n}
    if connection.dialect.name == "postgresql":
        claiming = text(_CLAIM.format(they=they, these="IN (SELECT id FROM due)"))
        return list(connection.execute(claiming, parameters | {"run": hold.run_id}).scalars())
    ids = [row[0] for row in fetch(connection, {"id": "id"}, _DUE.format(they=they), parameters)]
    if ids:
        holding = text(_HELD.format(these=ONE_OF["sqlite"]["ids"]))
        connection.execute(holding, {"run": hold.run_id, "ids": several(connection, ids)})
    return ids
