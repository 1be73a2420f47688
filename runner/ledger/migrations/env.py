"""What Alembic runs for every command. The connection comes from the caller, in whose transaction everything happens."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from runner.ledger.schema import metadata


def _run(connection: Connection) -> None:
    # SQLite changes a column only by copying the table, which `render_as_batch` writes into new migrations.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
