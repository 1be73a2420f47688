"""A staged plan becomes the campaign's plan: one transaction, after which every input row has its row in the ledger.

What was ever attempted keeps its status, its attempts and its frozen message; only its place in the file is renewed.
What was merely waiting takes the new message, for that is what the person saw and confirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import orjson
from sqlalchemy import Connection, text

from runner.ledger.base import CampaignDraft
from runner.ledger.batches import GIVEN_UP

NUMBERING = 0x63616D706E756D62  # PostgreSQL's advisory lock of whoever gives out the rows' numbers
_WAITING = "('pending', 'claimed', 'retry_wait')"

# Rows that are as they should be are not written: to go on with an interrupted run of a million takes no million writes.
_RENEW = (
    # Forget the skipped rows: they follow from the new file.
    "DELETE FROM messages WHERE id IN (SELECT id FROM recipients WHERE campaign_id = :c AND status = 'skipped')",
    "DELETE FROM recipients WHERE campaign_id = :c AND status = 'skipped'",
    # Known recipients: their new place (none, when they are gone), and the audience's own values.
    "UPDATE recipients SET position = x.position, row = s.row FROM matched x LEFT JOIN staged s ON s.position = x.position "
    "WHERE x.id = recipients.id AND (coalesce(recipients.position, -1) <> coalesce(x.position, -1) "
    "OR coalesce(recipients.row, -1) <> coalesce(s.row, -1))",
    "UPDATE messages SET own = s.own, raw_phone = s.raw_phone FROM matched x JOIN staged s ON s.position = x.position "
    "WHERE x.id = messages.id AND (messages.own <> s.own OR messages.raw_phone <> s.raw_phone)",
    # Waiting recipients: the message as planned now.
    "UPDATE messages SET image = s.image, caption = s.caption, scheduled_at = s.scheduled_at, payload = s.payload "
    "FROM matched x JOIN staged s ON s.position = x.position JOIN recipients r ON r.id = x.id "
    f"WHERE x.id = messages.id AND s.reason = '' AND r.status IN {_WAITING} AND (messages.payload IS NULL "
    "OR messages.payload <> s.payload OR messages.image <> s.image OR messages.caption <> s.caption "
    "OR coalesce(messages.scheduled_at, -1) <> coalesce(s.scheduled_at, -1))",
    # Waiting recipients whose row is now skipped: attempted ones were certainly not sent, the others were never touched.
    f"UPDATE recipients SET {GIVEN_UP}, "
    "reason = (SELECT s.reason FROM matched x JOIN staged s ON s.position = x.position WHERE x.id = recipients.id), "
    "detail = (SELECT s.detail FROM matched x JOIN staged s ON s.position = x.position WHERE x.id = recipients.id) "
    f"WHERE campaign_id = :c AND status IN {_WAITING} AND id IN "
    "(SELECT x.id FROM matched x JOIN staged s ON s.position = x.position WHERE s.reason <> '')",
    # Waiting recipients who are gone from the file: never attempted -> forgotten; attempted -> not sent, and kept.
    "UPDATE recipients SET status = 'not_sent', reason = 'withdrawn', detail = 'the row is no longer in the audience' "
    f"WHERE campaign_id = :c AND position IS NULL AND attempts > 0 AND status IN {_WAITING}",
    "DELETE FROM messages WHERE id IN (SELECT id FROM recipients WHERE campaign_id = :c AND position IS NULL "
    f"AND attempts = 0 AND status IN {_WAITING})",
    f"DELETE FROM recipients WHERE campaign_id = :c AND position IS NULL AND attempts = 0 AND status IN {_WAITING}",
    # Campaign-wide suppressions follow the files named in the campaign.
    "DELETE FROM suppressions WHERE campaign_id = :c",
)

_NEW = "NOT EXISTS (SELECT 1 FROM matched x WHERE x.position = s.position)"
_INSERT = (
    "INSERT INTO recipients (id, campaign_id, position, row, phone, status, live, reason, detail) "
    "SELECT :base + s.position, :c, s.position, s.row, s.phone, "
    "CASE WHEN s.reason = '' THEN 'pending' ELSE 'skipped' END, CASE WHEN s.reason = '' THEN 1 ELSE 0 END, s.reason, s.detail "
    f"FROM staged s WHERE {_NEW} ORDER BY s.position",
    "INSERT INTO messages (id, raw_phone, country, image, caption, scheduled_at, payload, own) "
    "SELECT :base + s.position, s.raw_phone, s.country, s.image, s.caption, s.scheduled_at, s.payload, s.own "
    f"FROM staged s WHERE {_NEW} ORDER BY s.position",
    "INSERT INTO suppressions (phone, campaign_id, source, added_at) SELECT phone, :c, source, :now FROM staged_suppressions",
)


def adopt(
    connection: Connection,
    draft: CampaignDraft,
    now: int,
    inserting: Callable[[Connection], AbstractContextManager[None]],
) -> int:
    """Write the staged plan into the ledger. Returns the campaign's id. A new campaign is open; a known one keeps its
    state, for it may have been paused or cancelled while the plan was made. `inserting` surrounds the writing of new rows."""
    connection.commit()  # the temporary tables are full; what follows is one transaction of its own
    connection.execution_options(immediate=True)  # SQLite: take the write lock at the start, never half way
    sender = {"fingerprint": draft.sender, "provider": draft.provider}
    connection.execute(  # no update: that would hold the row, which whoever sends through this sender needs, until the end
        text("INSERT INTO senders (fingerprint, provider) VALUES (:fingerprint, :provider) ON CONFLICT DO NOTHING"),
        sender,
    )
    sender_id = connection.execute(text("SELECT id FROM senders WHERE fingerprint = :fingerprint"), sender).scalar_one()
    campaign_id = int(
        connection.execute(
            text(
                "INSERT INTO campaigns (name, provider, sender_id, state, columns, phone_column, settings, plan_hash, planned_at) "
                "VALUES (:name, :provider, :sender, 'open', :columns, :phone_column, :settings, :hash, :now) "
                "ON CONFLICT (name) DO UPDATE SET provider = excluded.provider, sender_id = excluded.sender_id, "
                "columns = excluded.columns, phone_column = excluded.phone_column, settings = excluded.settings, "
                "plan_hash = excluded.plan_hash, planned_at = excluded.planned_at RETURNING id"
            ),
            {
                "name": draft.name,
                "provider": draft.provider,
                "sender": sender_id,
                "columns": orjson.dumps(draft.columns).decode(),
                "phone_column": draft.phone_column,
                "settings": orjson.dumps(draft.settings).decode(),
                "hash": draft.plan_hash,
                "now": now,
            },
        ).scalar_one()
    )
    for statement in _RENEW:
        connection.execute(text(statement), {"c": campaign_id})
    postgres = connection.dialect.name == "postgresql"
    if postgres:  # the numbers that come next belong to one adopter at a time
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": NUMBERING})
    base = connection.execute(text("SELECT coalesce(max(id), 0) + 1 FROM recipients")).scalar_one()
    with inserting(connection):
        for statement in _INSERT:
            connection.execute(text(statement), {"c": campaign_id, "base": base, "now": now})
    for table in (
        ("recipients", "messages") if postgres else ()
    ):  # the first claims must not be planned for an empty table
        connection.execute(text(f"ANALYZE {table}"))
    connection.commit()
    return campaign_id
