"""A whole ledger into another database: every table, with its numbers and the key of its fingerprints; all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sqlalchemy import Connection, Table, func, select, text

from runner.errors import LedgerError
from runner.ledger.bulk import insert_rows, read_pages
from runner.ledger.schema import metadata
from runner.ledger.sql import SqlLedger


def copy_ledger(source: SqlLedger, target: SqlLedger, told: Callable[[str, int], None]) -> Mapping[str, int]:
    """Copy all rows of `source` into `target`, which must be empty. Returns the rows of each table.

    The target's transaction is the only one that writes: it is all there, or nothing is. `told` is called with the table's
    name and its rows so far. The caller holds the source's campaigns. Raises LedgerError.
    """
    counts: dict[str, int] = {}
    # The source's write lock (SQLite), or one snapshot (PostgreSQL): nobody's change can be half in the copy.
    with source.standing_still() as reading, target.writing() as writing:
        _refuse_unless_empty(writing, target)
        writing.execute(metadata.tables["meta"].delete())
        for table in metadata.sorted_tables:
            counts[table.name] = 0
            for page in _pages(reading, table):
                insert_rows(writing, table, table.columns.keys(), page)
                counts[table.name] += len(page)
                told(table.name, counts[table.name])
        if writing.dialect.name == "postgresql":
            _renumber(writing)
    return counts


def _refuse_unless_empty(connection: Connection, target: SqlLedger) -> None:
    for table in metadata.sorted_tables:
        if table.name != "meta" and connection.execute(select(table).limit(1)).first() is not None:
            raise LedgerError(
                f"{target.name} is not empty: it has rows in {table.name!r}; nothing was copied\n"
                "    fix: copy into a new database or file"
            )


def _pages(connection: Connection, table: Table) -> Iterator[list[tuple[object, ...]]]:
    # In the order of the keys, so that the new table is as compact as the old one.
    query = select(table).order_by(*table.primary_key).compile(dialect=connection.dialect)
    for page in read_pages(connection, str(query)):
        yield [tuple(row) for row in page]


def _renumber(connection: Connection) -> None:
    """What is added from now on is numbered after what has been copied."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            last = connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :column), :next, false)"),
                {"table": table.name, "column": column.name, "next": last + 1},
            )
    for table in metadata.sorted_tables:
        connection.execute(text(f"ANALYZE {table.name}"))
