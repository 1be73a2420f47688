"""Whether a row holds its number gets a column of its own: the index over numbers is no longer rewritten with each status."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_LIVE = sa.text("live = 1")


def upgrade() -> None:
    """From version 2."""
    op.drop_index("ux_recipients_phone", "recipients")
    check = sa.CheckConstraint("live = 1 OR status = 'skipped'")
    op.add_column("recipients", sa.Column("live", sa.Integer(), check, nullable=False, server_default="1"))
    op.execute("UPDATE recipients SET live = 0 WHERE status = 'skipped'")
    op.create_index(
        "ux_recipients_phone",
        "recipients",
        ["campaign_id", "phone"],
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
