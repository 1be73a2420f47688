"""What several machines need to share one ledger: the run that may send, its partitions, and slots for a sender's budget."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _time(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def upgrade() -> None:
    """From version 1."""
    op.add_column("campaigns", sa.Column("run_id", _ID))
    op.add_column("senders", _time("next_slot"))
    op.add_column("senders", _time("slot_count"))
    op.create_table(
        "slots",
        sa.Column("sender_id", _ID, primary_key=True, autoincrement=False),
        sa.Column("upto", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("gap", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "partitions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("campaign_id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("owner", sa.Text(), nullable=False, server_default=""),
        _time("beat_at"),
        _time("done_at"),
        sa.UniqueConstraint("run_id", "number", name="ux_partitions_number"),
    )
