"""The ledger's tables. Two rules: narrow state apart from wide content, and whole numbers as keys.

`recipients` (state) and `messages` (frozen content) share their ids. A state change then rewrites about 100 bytes, and
counting a million rows by status scans the narrow table only. Integer keys: a text key cost four times as much (measured).
All times are microseconds since the epoch, UTC; 0 means 'never'. Statuses are the words of `runner.model.Status`.

Needed to make, upgrade or copy a ledger only: its conditions for both databases load both of SQLAlchemy's dialects (0.1 s).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

# BIGINT everywhere in PostgreSQL; SQLite numbers rows by itself only when the key is spelled INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("sender_id", Id, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),  # open | paused | cancelled
    Column("columns", Text, nullable=False),  # JSON list: the audience's own columns, in order
    Column("phone_column", Text, nullable=False),
    Column("settings", Text, nullable=False),  # JSON: what a report needs of the campaign file, secrets left out
    Column("plan_hash", Text, nullable=False),
    Column("planned_at", BigInteger, nullable=False),
    Column("run_id", Id),  # the run that may send now; NULL: none (a run that is not named here sends nothing more)
)

recipients = Table(
    "recipients",
    metadata,
    Column("id", Id, primary_key=True),
    Column("campaign_id", Id, nullable=False),
    Column("position", Integer),  # order in the audience as last planned; NULL when the row is gone from it
    Column("row", Integer),  # the spreadsheet's own row number
    Column("phone", Text, nullable=False),  # E.164 digits; '' when the cell could not be read
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Column("code", Text, nullable=False, server_default=""),
    Column("queue_id", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("not_before", BigInteger, nullable=False, server_default="0"),
    Column("first_attempt_at", BigInteger, nullable=False, server_default="0"),
    Column("last_attempt_at", BigInteger, nullable=False, server_default="0"),
    Column("delivery", Text, nullable=False, server_default=""),
    Column("run_id", Id),  # the run that claimed it
    # 0: skipped, another row may have the number. Apart from the status, for what an index asks about is what it is rewritten
    # with: the one over numbers, in no order, cost 26 KB written a message instead of 3.5 (measured, SQLite).
    Column("live", Integer, CheckConstraint("live = 1 OR status = 'skipped'"), nullable=False, server_default="1"),
)
_WAITING = text("status IN ('pending', 'retry_wait')")
_LIVE = text("live = 1")
Index("ix_recipients_order", recipients.c.campaign_id, recipients.c.position)
Index(
    "ix_recipients_waiting",
    recipients.c.campaign_id,
    recipients.c.position,
    sqlite_where=_WAITING,
    postgresql_where=_WAITING,
)
Index(  # a phone is in a campaign at most once, for ever: the database itself refuses a second live row
    "ux_recipients_phone",
    recipients.c.campaign_id,
    recipients.c.phone,
    unique=True,
    sqlite_where=_LIVE,
    postgresql_where=_LIVE,
)

messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True),  # = recipients.id
    Column("raw_phone", Text, nullable=False),  # the cell as it stood in the audience
    Column("country", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("caption", Text, nullable=False),
    Column("scheduled_at", BigInteger),
    Column("payload", LargeBinary),  # SHA-256 of the request's body as planned
    Column("own", Text, nullable=False),  # JSON list: the audience's own values, in order
)

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("campaign_id", Id, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False, server_default="0"),
    Column("owner", Text, nullable=False),  # host and process number, for messages
    Column("plan_hash", Text, nullable=False),
    Column("ending", Text, nullable=False, server_default=""),  # how it ended, in a word
)

attempts = Table(
    "attempts",
    metadata,
    Column("recipient_id", Id, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, ... for this recipient
    Column("run_id", Id, nullable=False),
    Column("sender_id", Id, nullable=False),
    Column("started_at", BigInteger, nullable=False),  # committed before the first byte leaves
    Column("finished_at", BigInteger, nullable=False, server_default="0"),
    Column("verdict", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("code", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)
Index("ix_attempts_sender", attempts.c.sender_id, attempts.c.started_at)

senders = Table(
    "senders",
    metadata,
    Column("id", Id, primary_key=True),
    Column("fingerprint", Text, nullable=False, unique=True),  # keyed hash; the token itself is never stored
    Column("provider", Text, nullable=False),
    Column("paused_until", BigInteger, nullable=False, server_default="0"),
    Column("next_slot", BigInteger, nullable=False, server_default="0"),  # no request before; the database's own clock
    Column("slot_count", BigInteger, nullable=False, server_default="0"),  # slots given out so far
)

slots = Table(  # leave to send, given out in blocks to whoever asks; kept for a day, the longest window of a rate
    "slots",
    metadata,
    Column("sender_id", Id, primary_key=True, autoincrement=False),
    Column(
        "upto", BigInteger, primary_key=True, autoincrement=False
    ),  # the block's last slot, counted from the first ever
    Column("n", Integer, nullable=False),
    Column("last", BigInteger, nullable=False),  # the moment of the last one; the database's own clock
    Column("gap", BigInteger, nullable=False),  # microseconds from one to the next
)

partitions = Table(  # a run's recipients shared out among workers, each part a range of positions
    "partitions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("campaign_id", Id, nullable=False),
    Column("run_id", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("first", Integer, nullable=False),  # positions, both ends included
    Column("last", Integer, nullable=False),
    Column("epoch", Integer, nullable=False, server_default="0"),  # one more with every worker that takes it up
    Column("owner", Text, nullable=False, server_default=""),
    Column("beat_at", BigInteger, nullable=False, server_default="0"),
    Column("done_at", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("run_id", "number", name="ux_partitions_number"),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("phone", Text, primary_key=True),
    Column("campaign_id", Id, primary_key=True, autoincrement=False),  # 0: the whole workspace
    Column("source", Text, nullable=False),
    Column("added_at", BigInteger, nullable=False),
)

audits = Table(
    "audits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("campaign_id", Id, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
