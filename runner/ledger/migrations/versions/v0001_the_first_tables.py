"""The tables as they were before there were migrations: version 1 of the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WAITING = sa.text("status IN ('pending', 'retry_wait')")
_LIVE = sa.text("status <> 'skipped'")


def _word(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=default)


def _time(name: str, default: str | None = "0") -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)


def _key(name: str = "id", *, counts: bool = True) -> sa.Column[int]:
    return sa.Column(name, _ID, primary_key=True, autoincrement="auto" if counts else False)


def _reference(name: str) -> sa.Column[int]:
    return sa.Column(name, _ID, nullable=False)


def upgrade() -> None:
    """From nothing."""
    op.create_table("meta", sa.Column("key", sa.Text(), primary_key=True), _word("value"))
    op.create_table(
        "campaigns",
        _key(),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        _word("provider"),
        _reference("sender_id"),
        _word("state", "open"),
        _word("columns"),
        _word("phone_column"),
        _word("settings"),
        _word("plan_hash"),
        _time("planned_at", None),
    )
    op.create_table(
        "recipients",
        _key(),
        _reference("campaign_id"),
        sa.Column("position", sa.Integer()),
        sa.Column("row", sa.Integer()),
        _word("phone"),
        _word("status"),
        _word("reason", ""),
        _word("detail", ""),
        _word("code", ""),
        _word("queue_id", ""),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        _time("not_before"),
        _time("first_attempt_at"),
        _time("last_attempt_at"),
        _word("delivery", ""),
        sa.Column("run_id", _ID),
    )
    place = ["campaign_id", "position"]
    op.create_index("ix_recipients_order", "recipients", place)
    op.create_index("ix_recipients_waiting", "recipients", place, sqlite_where=_WAITING, postgresql_where=_WAITING)
    op.create_index(
        "ux_recipients_phone",
        "recipients",
        ["campaign_id", "phone"],
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
    op.create_table(
        "messages",
        _key(),
        _word("raw_phone"),
        _word("country"),
        _word("image"),
        _word("caption"),
        sa.Column("scheduled_at", sa.BigInteger()),
        sa.Column("payload", sa.LargeBinary()),
        _word("own"),
    )
    op.create_table(
        "runs",
        _key(),
        _reference("campaign_id"),
        _time("started_at", None),
        _time("finished_at"),
        _word("owner"),
        _word("plan_hash"),
        _word("ending", ""),
    )
    op.create_table(
        "attempts",
        _key("recipient_id", counts=False),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        _reference("run_id"),
        _reference("sender_id"),
        _time("started_at", None),
        _time("finished_at"),
        _word("verdict", ""),
        _word("reason", ""),
        _word("code", ""),
        _word("detail", ""),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_attempts_sender", "attempts", ["sender_id", "started_at"])
    op.create_table(
        "senders",
        _key(),
        sa.Column("fingerprint", sa.Text(), nullable=False, unique=True),
        _word("provider"),
        _time("paused_until"),
    )
    op.create_table(
        "suppressions",
        sa.Column("phone", sa.Text(), primary_key=True),
        _key("campaign_id", counts=False),
        _word("source"),
        _time("added_at", None),
    )
    op.create_table("audits", _key(), _time("at", None), _reference("campaign_id"), _word("action"), _word("detail"))
