"""The ledger: one durable row per recipient. `open_ledger` chooses the database.

SQLAlchemy is imported with the first ledger that is opened: the confined process knows a ledger's types only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.ledger.address import is_address

if TYPE_CHECKING:
    from runner.ledger.sql import SqlLedger


def open_ledger(place: Path | str, *, create: bool) -> SqlLedger:
    """Open the ledger in a file, or at a `postgresql://` address. Raises LedgerError, InputError for a wrong address.

    Without `create`, a ledger that is not there reads as an empty one.
    """
    if isinstance(place, str) and is_address(place):
        from runner.ledger.address import read_address

        read_address(place)  # says what is missing, if anything is, before the driver is imported
        from runner.ledger.postgres import open_postgres

        return open_postgres(place, create=create)
    from runner.ledger.sqlite import open_sqlite

    return open_sqlite(Path(place), create=create)
