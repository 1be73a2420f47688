"""The ledger: one durable row per recipient. `open_ledger` chooses the database."""

from __future__ import annotations

from pathlib import Path

from runner.ledger.sql import SqlLedger
from runner.ledger.sqlite import open_sqlite


def open_ledger(path: Path, *, create: bool) -> SqlLedger:
    """Open the workspace's ledger. Without `create`, a ledger that is not there reads as an empty one."""
    return open_sqlite(path, create=create)
