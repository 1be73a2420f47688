"""Many rows at once, in as few calls of the driver as there can be. A plan's rows by COPY where the database has it (five times
as fast as INSERT, measured), else by a prepared INSERT.

Past SQLAlchemy's own preparing of each row, which cost 25 microseconds a row of a plan (measured): every value is text, a
whole number or bytes already.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import DBAPIError

PAGE = 2000  # rows
AT_ONCE = 1024  # rows in one statement; with ten values each within the 32,766 that SQLite takes
# `COLUMN {one_of}` for a list of values as one parameter, see `several`: a statement with a place for each is prepared anew
# for every number of them (6 microseconds a message, measured).
ONE_OF = {
    "postgresql": {"ids": "= ANY(CAST(:ids AS bigint[]))", "phones": "= ANY(CAST(:phones AS text[]))"},
    "sqlite": {"ids": "IN (SELECT value FROM json_each(:ids))", "phones": "IN (SELECT value FROM json_each(:phones))"},
}

V = TypeVar("V")
_numbers = itertools.count()
_PLACE = re.compile(r":(\w+)")


def insert_rows(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows of values for the columns `names` of `table`, in the connection's transaction."""
    if not rows:
        return
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(map(quote, names))
    if connection.dialect.name != "postgresql":
        places = ", ".join("?" * len(names))
        # Plain tuples: the driver takes 2 microseconds longer to read a named one of 12 values (measured).
        plain = list(map(tuple, rows))
        connection.exec_driver_sql(f"INSERT INTO {quote(table.name)} ({columns}) VALUES ({places})", plain)
        return
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a connection in use has one
    with driver.cursor() as cursor, cursor.copy(f"COPY {quote(table.name)} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def read_pages(connection: Connection, statement: str) -> Iterator[Sequence[Sequence[Any]]]:
    """The rows of a query without parameters, page by page, as the driver gives them: memory stays the same whatever there is.

    SQLAlchemy's own rows take twice the time, and its paging by `yield_per` kept 100 bytes of each (measured with 2.1.9 and
    PostgreSQL: 122 MB after 1,200,000 rows).
    """
    if connection.dialect.name == "postgresql":
        yield from _read_declared(connection, statement)
        return
    cursor = connection.exec_driver_sql(statement).cursor
    assert cursor is not None  # noqa: S101 - a query has one
    try:
        while page := cursor.fetchmany(PAGE):
            yield page
    finally:
        cursor.close()


def _read_declared(connection: Connection, statement: str) -> Iterator[Sequence[Sequence[Any]]]:
    name = f"pages_{next(_numbers)}"  # several may be open at once
    connection.exec_driver_sql(f"DECLARE {name} NO SCROLL CURSOR FOR {statement}")
    try:
        while True:
            result = connection.exec_driver_sql(f"FETCH FORWARD {PAGE} FROM {name}")
            assert result.cursor is not None  # noqa: S101 - as above
            page = result.cursor.fetchall()
            result.close()
            if not page:
                break
            yield page
    finally:
        with suppress(DBAPIError):  # gone with its transaction
            connection.exec_driver_sql(f"CLOSE {name}")


def run_many(connection: Connection, statement: str, rows: Sequence[Mapping[str, V]]) -> int:
    """Run a statement with `:name` places, `:id` among them, once for each of `rows` (at least one). Returns how many it changed.

    The embedded database gets all rows in one statement: its driver lets go of the interpreter's lock for every row, and waits
    until a busy event loop must give it back. (Measured for 45 outcomes and 45 intents, 3 ms alone: 89 ms beside a busy loop,
    and 9 in this way, with threads that must change after 0.5 ms; 960 with Python's own 5 ms. As values they take less than half
    the time that they take as one text of JSON.)
    """
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(_for_psycopg(statement), list(rows)).rowcount
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the only other driver there is
    if statement.startswith("DELETE"):  # cannot be joined with the list; there is one, for a few rows, after a fault
        return driver.executemany(statement, rows).rowcount
    names = _names(statement)
    changed = 0
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        places = 1 << (len(some) - 1).bit_length()
        values: list[V | None] = [row[name] for row in some for name in names]
        values += itertools.repeat(None, (places - len(some)) * len(names))
        changed += driver.execute(_for_values(statement, places), values).rowcount
    return changed


def fetch(
    connection: Connection, columns: Mapping[str, str], tail: str, values: Mapping[str, object]
) -> list[list[Any]]:
    """The rows of `SELECT columns tail`, in its order. `columns`: name -> expression; numbers, texts, nulls.

    From the embedded database as one JSON text, for the reason that `run_many` gives.
    """
    question = f"SELECT {', '.join(f'{what} AS {name}' for name, what in columns.items())} {tail}"
    if connection.dialect.name == "postgresql":
        return [list(row) for row in connection.execute(text(question), values)]
    asked = text(f"SELECT json_group_array(json_array({', '.join(columns)})) FROM ({question})")
    found: list[list[Any]] = orjson.loads(connection.execute(asked, values).scalar_one())
    return found


def several(connection: Connection, values: list[V]) -> list[V] | str:
    """A list as the one parameter of ONE_OF."""
    return values if connection.dialect.name == "postgresql" else orjson.dumps(values).decode()


@cache
def _names(statement: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_PLACE.findall(statement)))


@cache
def _for_values(statement: str, count: int) -> str:
    """An INSERT of VALUES, or an UPDATE whose last WHERE is its own, for so many rows of values. Rows without an id do nothing:
    with a power of two for every number of rows few statements are ever prepared."""
    names = _names(statement)
    columns = ", ".join(f"column{place} AS x_{name}" for place, name in enumerate(names, 1))
    row = f"({', '.join('?' * len(names))})"
    source = f"FROM (SELECT {columns} FROM (VALUES {', '.join([row] * count)})) AS x"
    whole = _PLACE.sub(r"x.x_\1", statement)
    if whole.startswith("INSERT"):
        head, _, tail = whole.partition(" VALUES ")
        return f"{head} SELECT {tail.strip('()')} {source} WHERE x.x_id IS NOT NULL"
    head, _, tail = whole.rpartition(" WHERE ")
    return f"{head} {source} WHERE {tail}"


@cache
def _for_psycopg(statement: str) -> str:
    return _PLACE.sub(r"%(\1)s", statement)
