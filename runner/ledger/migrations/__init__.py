"""The ledger's migrations, and how they are run: inside a transaction of the caller, on its connection."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def config_for(connection: Connection) -> Config:
    """Alembic's configuration without a file; `env.py` takes the connection from it."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that are missing up to `revision`. Commits nothing."""
    command.upgrade(config_for(connection), revision)
