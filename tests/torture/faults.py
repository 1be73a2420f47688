"""What the fault tests work with: a provider that misbehaves to chosen recipients, and the real engine, ledger and transport.

A `Case` says how the provider answers and what the attempt then proves. Its own words are used nowhere in the runner, so that
a mistake there cannot excuse itself here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sqlite3
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from faultserver import Behaviour, Connection, FaultServer, Received
from pydantic import SecretStr

from runner.breaker import Breaker, StopWhen
from runner.engine import Ending, Engine, Orders
from runner.ledger.base import CampaignDraft, Hold, PlannedRow
from runner.ledger.sqlite import open_sqlite
from runner.model import Message, Outcome, Reply, Request, Status
from runner.pace import Pace
from runner.providers import wapim, zixflow
from runner.recorder import Recorder
from runner.retry import RetryPolicy
from runner.transport import Transport
from runner.units import Rate

TOKEN = "invented-token-9c04"
IMAGE = "https://cdn.example.com/a.jpg"
SPEED = 50.0  # waits of the pace gate and of retries pass so many times faster; sockets keep their time
OFF = StopWhen(None, None, None, shared_image_refused=False)


def say(*parts: bytes, end: str = "", pause: float = 0.0) -> Behaviour:
    """Bytes as they are, each followed by a pause; then `fin`, `rst`, `hang`, or the next request."""

    async def behave(connection: Connection) -> None:
        await connection.write(*parts, pause=pause)
        if end == "fin":
            connection.fin()
        elif end == "rst":
            connection.rst()
        elif end == "hang":
            await connection.hang()

    return behave


def answer(status: str, body: bytes = b"", headers: str = "") -> Behaviour:
    """A whole reply that is what it says."""

    async def behave(connection: Connection) -> None:
        await connection.reply(body, status, headers)

    return behave


def phone_of(request: Received) -> str:
    """The recipient that a request names, in either vendor's words."""
    body = json.loads(request.body)
    return str(body.get("phone_number") or body.get("to"))


@dataclass
class Script:
    """Answers for chosen recipients, one a request; whoever has none left is accepted, with an id of his own."""

    answers: dict[str, list[Behaviour]] = field(default_factory=dict)
    first: list[Behaviour] = field(
        default_factory=list
    )  # for whole connections, the first ones, before anything is read
    issued: dict[str, str] = field(default_factory=dict)  # queue ids given, by recipient
    taken: Counter[str] = field(default_factory=Counter)  # recipients taken
    asked: Counter[str] = field(default_factory=Counter)  # whole requests, by recipient

    async def __call__(self, connection: Connection) -> None:
        if self.first:
            await self.first.pop(0)(connection)
            return
        while (request := await connection.request()) is not None:
            phone = phone_of(request)
            self.asked[phone] += 1
            waiting = self.answers.get(phone)
            if waiting:
                await waiting.pop(0)(connection)
                continue
            self.taken[phone] += 1
            self.issued[phone] = f"q-{phone}-{self.taken[phone]}"
            await connection.reply(json.dumps({"queue_message_id": self.issued[phone], "status": True}).encode())


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as the ledger's file has it; times in microseconds of the bench's clock."""

    verdict: str
    reason: str
    started_at: int
    finished_at: int


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient as the ledger's file has it."""

    status: str
    reason: str
    queue_id: str
    attempts: Sequence[Attempt]  # without those of which no byte was begun


class Silent:
    """A progress that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begun(self) -> None:
        pass

    def settled(self, status: Status) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        pass


class Wire:
    """One campaign in one ledger on the disk. Each `run` is a run of the engine against a server."""

    def __init__(self, folder: Path, provider: str = "wapim", speed: float = SPEED) -> None:
        self.path = folder / "reports" / "ledger.sqlite3"
        self.ledger = open_sqlite(self.path, create=True)
        self.speed = speed
        self.ahead = 0.0  # seconds that the clock has been put forward
        self.campaign = 0
        self._provider = provider
        self._origin = (time.time(), time.monotonic())

    def seconds(self) -> float:
        """The bench's monotonic clock."""
        return (time.monotonic() - self._origin[1]) * self.speed + self.ahead

    def now_us(self) -> int:
        """The bench's wall clock."""
        return int((self._origin[0] + self.seconds()) * 1e6)

    async def sleep(self, seconds: float) -> None:
        """Wait so long by the bench's clock."""
        await asyncio.sleep(seconds / self.speed)

    def _pure(self, url: str) -> tuple[Callable[[Message], Request], Callable[[Reply], Outcome]]:
        if self._provider == "wapim":
            settings = wapim.Settings(name="wapim", token=SecretStr(TOKEN), base_url=url)
            return partial(wapim.build, settings), partial(wapim.PROVIDER.judge, settings)
        other = zixflow.Settings(name="zixflow", token=SecretStr(TOKEN), base_url=url, phone_id="100000000000001")
        return partial(zixflow.build, other), partial(zixflow.PROVIDER.judge, other)

    def plan(self, phones: Sequence[str], caption: str = "Hello") -> None:
        """Plan these numbers, as `send` does."""
        build, _ = self._pure("https://provider.example")
        rows = []
        for place, phone in enumerate(phones):
            payload = hashlib.sha256(build(Message(phone, IMAGE, caption)).body).digest()
            rows.append(PlannedRow(place, place + 2, phone, "TR", phone, "", "", IMAGE, caption, None, payload, "[]"))
        with self.ledger.stage() as staging:
            staging.add(rows)
            staging.settle("faults", "first")
            draft = CampaignDraft("faults", self._provider, "sender", ("Mobile",), "Mobile", {}, "hash")
            self.campaign = self.ledger.adopt(staging, draft)

    async def run(
        self,
        url: str,
        *,
        concurrency: int = 4,
        timeout: float = 5.0,
        retries: int = 4,
        rates: Sequence[Rate] = (),
        tls: ssl.SSLContext | None = None,
        stop_when: StopWhen = OFF,
    ) -> Ending:
        """A whole run. `url` without a path; `timeout` in seconds of the sockets."""
        self.ledger.recover(self.campaign)
        run_id = self.ledger.begin_run(self.campaign, "this test", "hash")
        recorder = Recorder(self.ledger, Hold(self.campaign, run_id, self.ledger.campaign("faults").sender_id))
        build, read = self._pure(url)
        async with Transport(connections=concurrency, timeout=timeout, ssl_context=tls) as transport:
            engine = Engine(
                recorder=recorder,
                transport=transport,
                build=build,
                read=read,
                pace=Pace(rates, clock=self.seconds, sleep=self.sleep),
                progress=Silent(),
                orders=Orders(concurrency, RetryPolicy(retries, 1.0)),
                clock=self.now_us,
                random=random.Random(1).random,
                breaker=Breaker(stop_when, shared_image=True),
            )
            try:
                return await asyncio.wait_for(engine.run(), 120)
            finally:
                await recorder.close()

    def rows(self) -> Mapping[str, Row]:
        """Everybody, from the ledger's file and past the runner's own code."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            attempts: dict[int, list[Attempt]] = {}
            for key, *values in connection.execute(
                "SELECT recipient_id, verdict, reason, started_at, finished_at FROM attempts "
                "WHERE reason <> 'held_back' ORDER BY recipient_id, number"
            ):
                attempts.setdefault(key, []).append(Attempt(*values))
            return {
                phone: Row(status, reason, queue_id, attempts.get(key, []))
                for key, phone, status, reason, queue_id in connection.execute(
                    "SELECT id, phone, status, reason, queue_id FROM recipients"
                )
            }

    def statuses(self) -> Counter[str]:
        """How many recipients stand where."""
        return Counter(row.status for row in self.rows().values())

    def close(self) -> None:
        self.ledger.close()


@contextmanager
def open_wire(folder: Path, provider: str = "wapim", speed: float = SPEED) -> Iterator[Wire]:
    """A ledger in `folder`, closed in the end."""
    wire = Wire(folder, provider, speed)
    try:
        yield wire
    finally:
        wire.close()


def phones(count: int, first: int = 1) -> list[str]:
    """So many invented numbers."""
    return [f"90532{first + i:07d}" for i in range(count)]


def address(server: FaultServer, host: str = "127.0.0.1") -> str:
    """A server's address without a path."""
    return f"{'https' if server.tls else 'http'}://{host}:{server.port}"


def judge_healthy(healthy: Sequence[str], rows: Mapping[str, Row], script: Script) -> None:
    """Each of these was taken exactly once, says the provider; the ledger says accepted, with the id that was given to him."""
    for phone in healthy:
        assert (script.asked[phone], script.taken[phone]) == (1, 1), f"{phone}: {script.asked[phone]} requests"
        assert rows[phone].status == "accepted", f"{phone}: {rows[phone]}"
        assert rows[phone].queue_id in {script.issued[phone], ""}, f"{phone} has the id of another: {rows[phone]}"


def judge_everybody(rows: Mapping[str, Row], count: int) -> None:
    """The rows add up, nobody hangs in the air, and every row without proof of a refusal has one attempt that is not 'not sent'."""
    assert len(rows) == count
    assert {row.status for row in rows.values()} <= {"accepted", "rejected", "unknown", "not_sent"}, rows
    for phone, row in rows.items():
        weighty = [attempt for attempt in row.attempts if attempt.verdict != "not_sent"]
        assert len(weighty) <= 1, f"{phone} was tried again after {weighty[0].verdict}"
