"""The tables of a plan in the making: temporary, in the connection that makes it, gone with it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

staging_metadata = MetaData()

staged = Table(
    "staged",
    staging_metadata,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("row", Integer, nullable=False),
    Column("phone", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("raw_phone", Text, nullable=False),
    Column("reason", Text, nullable=False),  # '' = to be sent
    Column("detail", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("caption", Text, nullable=False),
    Column("scheduled_at", BigInteger),
    Column("payload", LargeBinary),
    Column("own", Text, nullable=False),
    prefixes=["TEMPORARY"],
)

staged_suppressions = Table(
    "staged_suppressions",
    staging_metadata,
    Column("phone", Text, primary_key=True),
    Column("source", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
