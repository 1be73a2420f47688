"""A plan in the making: the audience beside the ledger, in temporary tables of one connection.

Every command that looks at a plan goes this way (check, preview, plan, send), so that what was previewed is what goes out.
Only `adopt` writes to the ledger, in one transaction. Duplicates and suppressions are settled by the database, which keeps
memory fixed whatever the audience's size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from runner.ledger.base import Difference, PlannedRow, Sample
from runner.ledger.bulk import insert_rows, read_pages
from runner.ledger.stagetables import staged, staging_metadata
from runner.model import Status

# Beyond letters with accents: emoji, right-to-left scripts, anything that may look different on a phone.
_UNUSUAL = re.compile("[\u0590-\U0010ffff]")
_USUAL_BYTES = bytes(range("\u0590".encode()[0]))  # what is below that in UTF-8 begins with one of these
_HIGH = 2**32
_SAMPLE = "SELECT row, phone, raw_phone, reason, detail, image, caption FROM staged "


class Staging:
    """The temporary tables, and the questions asked of them. Use as a context manager (`ledger.stage()`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        staging_metadata.create_all(connection, checkfirst=False)

    def close(self) -> None:
        """Undo what was not adopted, and take the tables away: the connection will be used again."""
        try:
            self._connection.rollback()
            self._connection.execution_options(immediate=False)
            for table in ("matched", "staged", "staged_suppressions"):
                self._connection.execute(text(f"DROP TABLE IF EXISTS {self._temporary}.{table}"))
            self._connection.commit()
        except SQLAlchemyError:
            self._connection.invalidate()  # thrown away, and its temporary tables with it

    def add(self, rows: Sequence[PlannedRow]) -> None:
        """Stage one batch of rows."""
        insert_rows(self._connection, staged, PlannedRow._fields, rows)

    def suppress(self, numbers: Iterable[str], source: str) -> int:
        """Numbers that must not be written to, from one suppression file. Returns how many were added."""
        batch = [{"phone": number, "source": source} for number in numbers]
        if batch:
            self._connection.execute(
                text("INSERT INTO staged_suppressions (phone, source) VALUES (:phone, :source) ON CONFLICT DO NOTHING"),
                batch,
            )
        return len(batch)

    def images(self) -> list[str]:
        """The distinct image addresses of the rows that would be sent, in order of first use."""
        rows = self._connection.execute(
            text("SELECT image FROM staged WHERE reason = '' GROUP BY image ORDER BY min(position)")
        )
        return [str(row[0]) for row in rows]

    def live_count(self) -> int:
        """Rows that would be sent as far as is known yet."""
        return int(self._connection.execute(text("SELECT count(*) FROM staged WHERE reason = ''")).scalar_one())

    def refuse_images(self, refused: Iterable[tuple[str, str]]) -> None:
        """Skip the rows with these image addresses; each comes with what is wrong with it."""
        rows = [{"image": address, "detail": detail} for address, detail in refused]
        if rows:
            self._connection.execute(
                text(
                    "UPDATE staged SET reason = 'media_unusable', detail = :detail WHERE reason = '' AND image = :image"
                ),
                rows,
            )

    def settle(self, campaign: str, duplicates: Literal["first", "last", "error"]) -> None:
        """When all rows are in: mark suppressed and duplicate rows, find each row's counterpart in the ledger."""
        run = self._connection.execute
        run(text(f"CREATE INDEX {'temp.' if self._sqlite else ''}ix_staged_phone ON staged (phone)"))
        self._measure("staged", "staged_suppressions")
        run(
            text(
                "UPDATE staged SET reason = 'suppressed', detail = coalesce("
                "(SELECT source FROM staged_suppressions x WHERE x.phone = staged.phone),"
                "(SELECT source FROM suppressions y WHERE y.phone = staged.phone AND y.campaign_id = 0)) "
                "WHERE reason = '' AND phone IN (SELECT phone FROM staged_suppressions "
                "UNION SELECT phone FROM suppressions WHERE campaign_id = 0)"
            )
        )
        # Only numbers that stand more than once are looked at, found by one walk along the index.
        # Safe while the statement itself changes `reason`: the row that wins (the first or the last one) never changes.
        before, order = ("<", "ASC") if duplicates != "last" else (">", "DESC")
        run(
            text(
                "UPDATE staged SET reason = 'duplicate', detail = 'the same number as row ' || ("
                f"SELECT w.row FROM staged w WHERE w.phone = staged.phone AND w.reason = '' ORDER BY w.position {order} LIMIT 1"
                ") WHERE reason = '' AND phone IN (SELECT phone FROM staged GROUP BY phone HAVING count(*) > 1) "
                "AND EXISTS (SELECT 1 FROM staged w WHERE w.phone = staged.phone AND w.reason = '' "
                f"AND w.position {before} staged.position)"
            )
        )
        # A recipient's row in the ledger belongs to the row of the file that would be sent, else to the first with its number.
        run(
            text(
                "CREATE TEMPORARY TABLE matched AS SELECT r.id AS id, (SELECT s.position FROM staged s WHERE s.phone = r.phone "
                "ORDER BY CASE WHEN s.reason = '' THEN 0 ELSE 1 END, s.position LIMIT 1) AS position "
                "FROM recipients r JOIN campaigns c ON c.id = r.campaign_id WHERE c.name = :campaign AND r.status <> 'skipped'"
            ),
            {"campaign": campaign},
        )
        # Both ways round (measured without the index on id: 450 s to adopt a second plan of 40,000 rows; with it under 1 s).
        for column in ("position", "id"):
            name = f"ix_matched_{column}"
            run(text(f"CREATE INDEX {'temp.' if self._sqlite else ''}{name} ON matched ({column})"))
        self._measure("matched")
        self._connection.commit()

    def _measure(self, *tables: str) -> None:
        """Nobody else does that for temporary tables, and without it PostgreSQL plans for a few rows."""
        for table in tables if not self._sqlite else ():
            self._connection.execute(text(f"ANALYZE {table}"))

    def rest(self) -> None:
        """Let go of the ledger while a person reads: an open read would keep other processes from writing."""
        self._connection.commit()

    @property
    def _sqlite(self) -> bool:
        return self._connection.dialect.name == "sqlite"

    @property
    def _temporary(self) -> str:
        return "temp" if self._sqlite else "pg_temp"

    def difference(self) -> Difference:
        """The counts of a plan. Lets go of the ledger afterwards: whoever reads on must not keep a live run from writing."""
        to_send = changed = resent = 0
        settled: dict[Status, int] = {}
        skipped: dict[str, int] = {}
        rows = self._connection.execute(
            text(
                "SELECT s.reason AS reason, r.status AS status, "
                "CASE WHEN s.reason = '' AND m.payload <> s.payload THEN 1 ELSE 0 END "
                "AS changed, CASE WHEN r.attempts > 0 THEN 1 ELSE 0 END AS tried, s.country AS country, count(*) AS n "
                "FROM staged s LEFT JOIN matched x ON x.position = s.position LEFT JOIN recipients r ON r.id = x.id "
                "LEFT JOIN messages m ON m.id = r.id GROUP BY 1, 2, 3, 4, 5"
            )
        )
        countries: dict[str, int] = {}
        for reason, status, differs, tried, country, n in rows:
            if status is not None and Status(status) not in _WAITING:
                settled[Status(status)] = settled.get(Status(status), 0) + n
                changed += n if differs else 0
            elif reason:
                skipped[reason] = skipped.get(reason, 0) + n
            else:
                to_send += n
                countries[country] = countries.get(country, 0) + n
                resent += n if tried else 0
        gone = self._connection.execute(
            text(
                "SELECT r.status, count(*) FROM matched x JOIN recipients r ON r.id = x.id WHERE x.position IS NULL GROUP BY 1"
            )
        )
        found = Difference(
            to_send=to_send,
            settled=settled,
            skipped=dict(sorted(skipped.items())),
            changed=changed,
            gone={Status(status): n for status, n in gone},
            countries=dict(sorted(countries.items(), key=lambda item: (-item[1], item[0]))),
            resent=resent,
        )
        self.rest()
        return found

    def fingerprint(self, preamble: bytes) -> str:
        """The plan's hash: who would get exactly what, in order, and through which account; 16 hexadecimal digits.

        It does not depend on how far the sending has come, so an interrupted run goes on under the same hash.
        """
        digest = hashlib.sha256(preamble)
        for page in read_pages(
            self._connection, "SELECT phone, payload FROM staged WHERE reason = '' ORDER BY position"
        ):
            for phone, payload in page:
                digest.update(phone.encode())
                digest.update(payload)
        return digest.hexdigest()[:16]

    def samples(self, *, limit: int = 5) -> dict[str, list[Sample]]:
        """Messages worth looking at: the first ones, the longest, the shortest, those with unusual characters."""
        live = "WHERE reason = ''"
        run = self._connection.execute
        # One walk finds the first of the longest and of the shortest: a position is below 2**32.
        ends = run(
            text(
                f"SELECT max(length(caption) * {_HIGH} - position), min(length(caption) * {_HIGH} + position) FROM staged {live}"
            )
        ).one()
        at = text(f"{_SAMPLE} WHERE position = :position")
        first = run(text(f"{_SAMPLE} {live} ORDER BY position LIMIT :n"), {"n": limit})
        found: dict[str, list[Sample]] = {"first": [Sample(*row) for row in first], "longest": [], "shortest": []}
        for name, end in (("longest", -ends[0]), ("shortest", ends[1])) if ends[0] is not None else ():
            found[name] = [Sample(*row) for row in run(at, {"position": end % _HIGH})]
        found["unusual"] = [Sample(*run(at, {"position": position}).one()) for position in islice(self._unusual(), 2)]
        return found

    def _unusual(self) -> Iterator[int]:
        """Positions of captions that hold something beyond letters with accents: emoji, right-to-left scripts ..."""
        for page in read_pages(
            self._connection, "SELECT position, caption FROM staged WHERE reason = '' ORDER BY position"
        ):
            # A page as a whole first, by its bytes: a search in each caption takes twice the time (measured).
            if "".join([caption for _, caption in page]).encode().translate(None, _USUAL_BYTES):
                yield from (position for position, caption in page if _UNUSUAL.search(caption))

    def of_branches(self, branches: Mapping[str, Sequence[int]]) -> dict[str, list[Sample]]:
        """For each branch of the template one message: the first of its positions that would be sent; none, no entry."""
        query = text(f"{_SAMPLE}WHERE reason = '' AND position = :position")
        found: dict[str, list[Sample]] = {}
        for label, positions in branches.items():
            for position in positions:
                row = self._connection.execute(query, {"position": position}).first()
                if row is not None:
                    found[label] = [Sample(*row)]
                    break
        return found

    def live(self) -> Iterator[Sample]:
        """Every message of the plan that would be sent, in order."""
        yield from self._samples(f"{_SAMPLE}WHERE reason = '' ORDER BY position")

    def skipped(self, limit: int | None = None) -> Iterator[Sample]:
        """The rows that are skipped, in order; not those whose number has been settled under an earlier plan."""
        yield from self._samples(
            "SELECT s.row, s.phone, s.raw_phone, s.reason, s.detail, s.image, s.caption FROM staged s "
            "LEFT JOIN matched x ON x.position = s.position LEFT JOIN recipients r ON r.id = x.id "
            f"WHERE s.reason <> '' AND (r.status IS NULL OR r.status IN {_WAITING_SQL}) ORDER BY s.position"
            + (f" LIMIT {limit:d}" if limit is not None else "")
        )

    def everything(self) -> Iterator[Sample]:
        """Every row, in order."""
        yield from self._samples(f"{_SAMPLE}ORDER BY position")

    def _samples(self, statement: str) -> Iterator[Sample]:
        for page in read_pages(self._connection, statement):
            for row in page:
                yield Sample(*row)

    def has_number(self, phone: str) -> bool:
        """Whether a message to this number is in the plan."""
        found = self._connection.execute(
            text("SELECT 1 FROM staged WHERE phone = :phone AND reason = '' LIMIT 1"), {"phone": phone}
        )
        return found.first() is not None

    @property
    def connection(self) -> Connection:
        """For `adopt`, which must see the temporary tables."""
        return self._connection


_WAITING = frozenset({Status.PENDING, Status.CLAIMED, Status.RETRY_WAIT})
_WAITING_SQL = "('pending', 'claimed', 'retry_wait')"
