"""The engine with its real parts: an SQLite ledger, real sockets, the stand-in provider. Judged by what the provider received."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faultserver import Connection, FaultServer
from pydantic import SecretStr

from runner import engine as engine_module
from runner.engine import Ending, Engine, Orders
from runner.errors import LedgerError, StoppedError
from runner.ledger.base import Applied, CampaignDraft, Finish, Hold, Intent, LedgerRow, PlannedRow, Wanted, now_us
from runner.ledger.sql import SqlLedger
from runner.ledger.sqlite import open_sqlite
from runner.model import Lost, Message, Outcome, Reply, Request, Status
from runner.pace import Pace
from runner.providers import wapim
from runner.recorder import Recorder
from runner.retry import RetryPolicy
from runner.sandbox import Action, Drop, Rule, Sandbox, SandboxSettings, Scenario
from runner.sandbox_log import worst_window
from runner.transport import Transport
from runner.units import Rate

IMAGE = "https://cdn.example.com/a.jpg"


@dataclass
class Told:
    """A progress that remembers."""

    begun_count: int = 0
    statuses: list[Status] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def begun(self) -> None:
        self.begun_count += 1

    def settled(self, status: Status) -> None:
        self.statuses.append(status)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        pass


class Bench:
    """One campaign in one ledger; each `run` is one run of the engine against `url`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "reports" / "ledger.sqlite3"
        self.ledger: SqlLedger = open_sqlite(self.path, create=True)
        self._opened = [self.ledger]
        self.url = "http://127.0.0.1:9"
        self.campaign = 0
        self.told = Told()
        self.engine: Engine | None = None
        self.read: Callable[[Reply], Outcome] = wapim.read

    def another(self) -> SqlLedger:
        """The same ledger as another program has it open."""
        self._opened.append(open_sqlite(self.path, create=False))
        return self._opened[-1]

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()

    def settings(self) -> wapim.Settings:
        return wapim.Settings(name="wapim", token=SecretStr("sandbox-token-1"), base_url=self.url)

    def plan(self, phones: Sequence[str]) -> None:
        """Plan these numbers, as `send` does."""
        build = partial(wapim.build, self.settings())
        with self.ledger.stage() as staging:
            rows = []
            for position, phone in enumerate(phones):
                message = Message(phone, IMAGE, f"Hello {phone}")
                payload = hashlib.sha256(build(message).body).digest()
                rows.append(
                    PlannedRow(
                        position, position + 2, phone, "TR", phone, "", "", IMAGE, message.caption, None, payload, "[]"
                    )
                )
            staging.add(rows)
            staging.settle("spring", "first")
            self.campaign = self.ledger.adopt(
                staging, CampaignDraft("spring", "wapim", "sender", ("Mobile",), "Mobile", {}, "hash")
            )

    @asynccontextmanager
    async def running(
        self,
        *,
        concurrency: int = 10,
        rates: Sequence[Rate] = (),
        retries: int = 3,
        timeout: float = 10.0,
        deadline: int | None = None,
        limit: int | None = None,
        only: Sequence[str] | None = None,
    ) -> AsyncIterator[asyncio.Task[Ending]]:
        """A run that has just begun. Its task is the run; it is over when the block is."""
        self.ledger.recover(self.campaign)
        run_id = self.ledger.begin_run(self.campaign, "this test", "hash")
        recorder = Recorder(self.ledger, Hold(self.campaign, run_id, self.ledger.campaign("spring").sender_id))
        self.told = Told()
        async with Transport(connections=concurrency, timeout=timeout) as transport:
            self.engine = Engine(
                recorder=recorder,
                transport=transport,
                build=partial(wapim.build, self.settings()),
                read=self.read,
                pace=Pace(rates, clock=time.monotonic),
                progress=self.told,
                orders=Orders(concurrency, RetryPolicy(retries, 0.05), deadline, limit, only),
                clock=now_us,
                random=random.Random(1).random,
            )
            task = asyncio.create_task(self.engine.run())
            try:
                yield task
                await asyncio.wait_for(asyncio.shield(task), 60)
            finally:
                if not task.done():
                    self.engine.abort()
                await asyncio.gather(task, return_exceptions=True)
                await recorder.close()

    async def run(self, **orders: object) -> Ending:
        """A whole run."""
        async with self.running(**orders) as task:  # type: ignore[arg-type]  # the orders of `running`
            return await task

    def rows(self) -> dict[str, LedgerRow]:
        return {row.phone: row for row in self.another().results(self.campaign)}

    def statuses(self) -> dict[str, int]:
        counts = self.another().counts(self.campaign)
        assert not {Status.CLAIMED, Status.IN_FLIGHT} & counts.by_status.keys()  # nothing hangs in the air
        return {status.value: n for status, n in counts.by_status.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def phones(count: int, first: int = 1) -> list[str]:
    return [f"9053200{i:05d}" for i in range(first, first + count)]


@asynccontextmanager
async def provider(
    bench: Bench, *rules: Rule, latency: float = 0.0, magic: bool = True, **settings: object
) -> AsyncIterator[Sandbox]:
    scenario = Scenario(seed=1, latency=(latency, latency), rules=rules, magic=magic)
    async with Sandbox(replace(SandboxSettings(scenario=scenario), **settings)) as sandbox:  # type: ignore[arg-type]  # its own fields
        bench.url = sandbox.url
        yield sandbox


async def until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


# --- everybody, once --------------------------------------------------------------------------------------------------


async def test_everybody_is_sent_to_once_and_a_second_run_sends_nothing(bench: Bench) -> None:
    async with provider(bench, latency=0.005, magic=False) as sandbox:
        bench.plan(phones(300))
        assert await bench.run(concurrency=20) == Ending("finished")
        stats = sandbox.stats()
        assert (stats.sends, stats.phones, stats.phones_twice) == (300, 300, [])
        assert bench.statuses() == {"accepted": 300}
        assert len({row.queue_id for row in bench.rows().values()}) == 300
        assert {json.loads(entry.body)["caption"] for entry in sandbox.log} == {f"Hello {p}" for p in phones(300)}
        bench.plan(phones(310))
        assert await bench.run() == Ending("finished")
        assert sandbox.stats().sends == 310
    assert (bench.told.begun_count, bench.told.statuses) == (10, [Status.ACCEPTED] * 10)


async def test_a_campaign_without_anybody_is_finished_at_once(bench: Bench) -> None:
    bench.plan([])
    assert await bench.run() == Ending("finished")


async def test_whatever_the_provider_does_each_verdict_goes_to_its_own_row(bench: Bench) -> None:
    endings = {"0400": "rejected", "0429": "accepted", "0500": "unknown", "0600": "rejected", "0601": "unknown"}
    endings |= {"0700": "unknown", "0701": "unknown", "0702": "unknown", "0704": "unknown", "0705": "unknown"}
    people = [f"9053299{ending}" + "" for ending in endings] + phones(20)
    async with provider(bench) as sandbox:
        bench.plan(people)
        assert (await bench.run(timeout=1.0)).word == "finished"
        rows = bench.rows()
        assert {ending: rows[f"9053299{ending}"].status for ending in endings} == endings
        assert all(rows[phone].status == "accepted" for phone in phones(20))
        assert sandbox.stats().phones_twice == ["90532990429"]  # the one that was told to come again
        assert sandbox.stats().phones_accepted_twice == []
        taken = {entry.phone for entry in sandbox.log if entry.accepted_by_provider}
        assert {row.phone for row in rows.values() if row.status == "accepted"} <= taken
        assert not {row.phone for row in rows.values() if row.status == "rejected"} & taken
        requests = sandbox.stats().sends
        assert (await bench.run(timeout=1.0)).word == "finished"  # nothing unknown is ever repeated by itself
        assert sandbox.stats().sends == requests


async def test_every_request_finds_its_attempt_in_the_ledger(bench: Bench) -> None:
    """Asked through a connection of its own, at the very moment in which the provider has the request."""
    other, seen = bench.another(), list[tuple[str, int]]()

    async def look_it_up(connection: Connection) -> None:
        while (received := await connection.request()) is not None:
            phone = json.loads(received.body)["phone_number"]
            row = next(row for row in other.results(bench.campaign) if row.phone == phone)
            assert row.last_attempt_at <= received.at * 1e6
            seen.append((row.status, row.attempts))
            await connection.reply(b'{"queue_message_id":"q-%d","message":"queued"}' % len(seen))

    async with FaultServer(look_it_up) as server:
        bench.url = server.url.removesuffix("/send")
        bench.plan(phones(60))
        assert (await bench.run(concurrency=8)).word == "finished"
    assert seen == [("in_flight", 1)] * 60


async def test_the_rate_holds_at_the_provider(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []
    send = Transport.send

    async def noted(self: Transport, request: Request, on_sent: Callable[[], None], *more: Any) -> Reply | Lost:
        def sent() -> None:
            written.append(time.monotonic())
            on_sent()

        return await send(self, request, sent, *more)

    monkeypatch.setattr(Transport, "send", noted)
    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(90))
        assert (await bench.run(concurrency=20, rates=[Rate(40, 1.0)])).word == "finished"
        assert worst_window([round(at * 1e6) for at in written], 1_000_000) <= 40
        assert len(written) == 90
        # What the provider counts is the same, but for the time that a busy machine lets a request lie before it is read.
        offset = round((time.time() - time.monotonic()) * 1e6)
        late = max(e.at_us - offset - round(at * 1e6) for e, at in zip(sandbox.log, written, strict=True))
        assert worst_window([entry.at_us for entry in sandbox.log], 1_000_000 - max(late, 0)) <= 40
        assert written[-1] - written[0] < 3.5


# --- stopped by a person ----------------------------------------------------------------------------------------------


async def test_a_drain_waits_for_what_is_on_the_wire_and_begins_nothing_more(bench: Bench) -> None:
    async with provider(bench, latency=0.4, magic=False) as sandbox:
        bench.plan(phones(200))
        async with bench.running(concurrency=20) as run:
            await until(lambda: sandbox.stats().sends == 20)
            assert bench.engine is not None
            bench.engine.drain("drained", "stopped by a signal")
            assert await run == Ending("drained", "stopped by a signal")
        assert sandbox.stats().sends == 20
        assert bench.statuses() == {"accepted": 20, "pending": 180}
        assert (await bench.run(concurrency=100)).word == "finished"
        assert sandbox.stats().phones_twice == []
        assert bench.statuses() == {"accepted": 200}


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.08, 0.2])
async def test_a_drain_at_any_moment_leaves_nothing_unknown(bench: Bench, moment: float) -> None:
    async with provider(bench, latency=0.02, magic=False) as sandbox:
        bench.plan(phones(400))
        async with bench.running(concurrency=20, rates=[Rate(300, 1.0)]) as run:
            await asyncio.sleep(moment)
            assert bench.engine is not None
            bench.engine.drain()
            assert (await run).word == "drained"
        statuses = bench.statuses()
        assert "unknown" not in statuses
        assert statuses.get("accepted", 0) == sandbox.stats().sends
        assert statuses.get("pending", 0) + statuses.get("retry_wait", 0) == 400 - sandbox.stats().sends


async def test_stopping_at_once_makes_unknown_what_is_on_the_wire(bench: Bench) -> None:
    async with provider(bench, latency=30.0, magic=False) as sandbox:
        bench.plan(phones(100))
        async with bench.running(concurrency=20, timeout=60) as run:
            await until(lambda: sandbox.stats().sends == 20)
            assert bench.engine is not None
            bench.engine.drain()
            begun = time.monotonic()
            bench.engine.abort()
            bench.engine.abort()
            assert (await run).word == "drained"
            assert time.monotonic() - begun < 2
        assert bench.statuses() == {"unknown": 20, "pending": 80}
        assert {row.reason for row in bench.rows().values() if row.status == "unknown"} == {"interrupted"}


async def test_stopping_at_once_leaves_waiting_what_was_still_connecting(bench: Bench) -> None:
    """Nothing was written, so nothing is unknown, and no retry is used up."""

    async def never_shakes_hands(connection: Connection) -> None:
        await connection.hang()

    async with FaultServer(never_shakes_hands) as server:
        bench.url = server.url.removesuffix("/send").replace("http:", "https:")
        bench.plan(phones(10))
        async with bench.running(concurrency=5, retries=0, timeout=60) as run:
            await until(lambda: server.accepted == 5)
            assert bench.engine is not None
            bench.engine.abort()
            assert (await run).word == "drained"
    assert bench.statuses() == {"retry_wait": 5, "pending": 5}
    assert bench.told.notes == []  # nobody is told to wait for a connection that we broke off


@pytest.mark.parametrize(("state", "word"), [("paused", "paused"), ("cancelled", "cancelled")])
async def test_another_program_stops_the_run_within_two_seconds(bench: Bench, state: str, word: str) -> None:
    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(400))
        async with bench.running(concurrency=5, rates=[Rate(50, 1.0)]) as run:
            await until(lambda: sandbox.stats().sends >= 5)
            bench.another().set_state(bench.campaign, state)
            begun = time.monotonic()
            assert (await run).word == word
            assert time.monotonic() - begun < 2
        assert sandbox.stats().sends < 200
        assert bench.statuses()["accepted"] == sandbox.stats().sends


async def test_a_pause_is_noticed_while_everybody_waits_for_a_turn(bench: Bench) -> None:
    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(10))
        async with bench.running(concurrency=5, rates=[Rate(1, 3600.0)]) as run:
            await until(lambda: sandbox.stats().sends == 1)
            bench.another().set_state(bench.campaign, "paused")
            begun = time.monotonic()
            assert (await run).word == "paused"
            assert time.monotonic() - begun < 2
    assert bench.statuses() == {"accepted": 1, "pending": 9}


async def test_somebody_who_opts_out_meanwhile_gets_nothing(bench: Bench) -> None:
    async with provider(bench, magic=False) as sandbox:
        people = phones(60)
        bench.plan(people)
        async with bench.running(concurrency=5, rates=[Rate(50, 1.0)]) as run:
            await until(lambda: sandbox.stats().sends >= 5)
            bench.another().suppress(people[40:50], "campaign optout add")
            assert (await run).word == "finished"
        assert sandbox.stats().sends == 50
        assert not set(people[40:50]) & {entry.phone for entry in sandbox.log}
        assert bench.statuses() == {"accepted": 50, "skipped": 10}
        assert {bench.rows()[phone].reason for phone in people[40:50]} == {"suppressed"}


# --- stopped by the provider ------------------------------------------------------------------------------------------


async def test_an_account_that_is_refused_stops_everything_at_once(bench: Bench) -> None:
    async with provider(bench, latency=0.05, bad_tokens=frozenset({"sandbox-token-1"})) as sandbox:
        bench.plan(phones(500))
        ending = await bench.run(concurrency=5)
        assert ending.word == "stopped"
        assert "401" in ending.why
        assert sandbox.stats().sends <= 5
        assert bench.statuses()["pending"] >= 495


async def test_a_retry_after_makes_the_whole_sender_wait_and_one_request_try_the_water(bench: Bench) -> None:
    slow_down = Rule(Action(status=429, headers=(("Retry-After", "2"),)), after=30, times=6)
    async with provider(bench, slow_down, latency=0.4, magic=False) as sandbox:
        bench.plan(phones(100))
        assert (await bench.run(concurrency=10, rates=[Rate(200, 1.0)])).word == "finished"
        log = sandbox.log
        refused = [entry.at_us for entry in log if entry.status == 429]
        told = refused[0] + 400_000  # the first refusal is in the client's hands
        quiet = [entry for entry in log if told + 150_000 < entry.at_us < told + 1_800_000]
        assert quiet == []  # what was on the wire by then has arrived; nothing else leaves for two seconds
        assert sandbox.stats().phones_accepted_twice == []
        assert bench.statuses() == {"accepted": 100}
        waves = 1 + sum(later - earlier > 1_000_000 for earlier, later in itertools.pairwise(refused))
        assert waves <= len(refused)
        assert len(bench.told.notes) == waves  # not one for each of six refusals
    sender = bench.ledger.sender(bench.ledger.campaign("spring").sender_id)
    assert sender.paused_until > refused[0] + 1_900_000  # for other runs to know


async def test_a_sender_that_is_refused_for_ever_gives_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.cooldown.FIRST_COOL_DOWN", 0.01)
    monkeypatch.setattr("runner.cooldown.LONGEST_COOL_DOWN", 0.05)
    async with provider(bench, Rule(Action(status=429)), magic=False) as sandbox:
        bench.plan(phones(50))
        ending = await bench.run(concurrency=4)
        assert (ending.word, ending.why) == ("stopped", "told to slow down, 12 times in a row")
        assert sandbox.stats().accepted_by_provider == 0
        assert sandbox.stats().sends < 30
    assert set(bench.statuses()) <= {"pending", "retry_wait"}  # being told to slow down uses up no retry


async def test_a_provider_that_asks_for_hours_is_left_to_a_person(bench: Bench) -> None:
    hours = Rule(Action(status=429, headers=(("Retry-After", "7200"),)))
    async with provider(bench, hours, magic=False):
        bench.plan(phones(5))
        assert (await bench.run(concurrency=1)).why == "the provider asks to wait 7200 s"
        assert bench.statuses() == {"retry_wait": 1, "pending": 4}


async def test_an_outage_of_two_seconds_costs_nobody_anything(bench: Bench) -> None:
    async with provider(bench) as sandbox:
        port = int(bench.url.rpartition(":")[2])
    async with asyncio.TaskGroup() as group:  # the port is free again
        bench.plan(phones(80))

        async def come_back() -> None:
            await asyncio.sleep(2)
            async with Sandbox(SandboxSettings(port=port, scenario=Scenario(magic=False))) as again:
                await until(lambda: again.stats().sends == 80, 30)
                await asyncio.sleep(0.2)
                assert (again.stats().phones_twice, again.stats().accepted_by_provider) == ([], 80)

        group.create_task(come_back())
        assert (await bench.run(concurrency=20, retries=5)).word == "finished"
    assert sandbox.stats().sends == 0
    assert bench.statuses() == {"accepted": 80}
    assert len(bench.told.notes) <= 4
    assert "cannot be reached" in bench.told.notes[0]


async def test_a_message_that_cannot_be_sent_is_not_tried_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.cooldown.FIRST_COOL_DOWN", 0.01)
    monkeypatch.setattr("runner.cooldown.LONGEST_COOL_DOWN", 0.01)
    monkeypatch.setattr(engine_module, "COOL_DOWNS_IN_A_ROW", 1000)
    bench.plan(phones(3))  # nobody listens on the discard port
    assert (await bench.run(concurrency=2, retries=2)).word == "finished"
    assert bench.statuses() == {"not_sent": 3}
    assert {row.attempts for row in bench.rows().values()} == {3}


# --- orders -----------------------------------------------------------------------------------------------------------


async def test_a_limit_counts_recipients_and_the_next_run_goes_on(bench: Bench) -> None:
    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(50))
        assert (await bench.run(concurrency=20, limit=7)).word == "limit"
        assert [entry.phone for entry in sandbox.log] and sandbox.stats().sends == 7
        assert {entry.phone for entry in sandbox.log} == set(phones(7))  # the first ones of the file
        assert bench.statuses() == {"accepted": 7, "pending": 43}
        assert (await bench.run(concurrency=3, limit=7)).word == "limit"
        assert sandbox.stats().sends == 14


async def test_a_limit_does_not_count_further_attempts(bench: Bench) -> None:
    slow_down = Rule(Action(status=429, headers=(("Retry-After", "1"),)), times=2)
    async with provider(bench, slow_down, magic=False) as sandbox:
        bench.plan(phones(50))
        assert (await bench.run(concurrency=2, limit=3)).word == "limit"
        assert sandbox.stats().phones == 3
        assert bench.statuses() == {"accepted": 3, "pending": 47}


async def test_only_the_numbers_asked_for_are_sent(bench: Bench) -> None:
    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(50))
        chosen = [phones(50)[30], phones(50)[4]]
        assert (await bench.run(only=chosen)).word == "finished"
        assert {entry.phone for entry in sandbox.log} == set(chosen)
        assert bench.statuses() == {"accepted": 2, "pending": 48}


async def test_nothing_is_begun_after_the_deadline(bench: Bench) -> None:
    async with provider(bench, latency=0.3, magic=False) as sandbox:
        bench.plan(phones(200))
        deadline = now_us() + 1_500_000
        ending = await bench.run(concurrency=10, rates=[Rate(50, 1.0)], deadline=deadline)
        assert ending.word == "expired"
        assert max(entry.at_us for entry in sandbox.log) <= deadline + 200_000
        assert 0 < bench.statuses()["accepted"] == sandbox.stats().sends < 100


async def test_a_message_that_is_not_the_one_that_was_planned_is_not_sent(bench: Bench) -> None:
    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(3))
        with bench.another()._write() as connection:
            connection.exec_driver_sql("UPDATE messages SET caption = 'Buy my coins' WHERE id = 2")
        ending = await bench.run(concurrency=1)
        assert ending.word == "stopped"
        assert isinstance(ending.error, StoppedError)
        assert "is not the one that was planned" in ending.why
        assert [entry.phone for entry in sandbox.log] == phones(1)
        assert bench.statuses() == {"accepted": 1, "pending": 2}


# --- our own failures -------------------------------------------------------------------------------------------------


class FailingLedger:
    """The ledger, until it cannot be written any more: from the nth batch of intents on, every write fails."""

    def __init__(self, ledger: SqlLedger, batches: int, *, for_good: bool) -> None:
        self._ledger = ledger
        self._left = batches
        self._for_good = for_good

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def apply(
        self, hold: Hold, done: Sequence[Finish], begun: Sequence[Intent], wanted: Wanted | None = None
    ) -> Applied:
        if begun:
            self._left -= 1
        if self._left < 0 and (begun or self._for_good):
            raise LedgerError("database or disk is full")
        return self._ledger.apply(hold, done, begun, wanted)


class WatchedLedger:
    """A ledger that keeps what each batch was: outcomes, intents, and whether somebody was to be claimed."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self.batches: list[tuple[int, int, bool]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def apply(
        self, hold: Hold, done: Sequence[Finish], begun: Sequence[Intent], wanted: Wanted | None = None
    ) -> Applied:
        self.batches.append((len(done), len(begun), wanted is not None))
        return self._ledger.apply(hold, done, begun, wanted)


async def test_claims_go_with_the_messages_and_need_no_commits_of_their_own(bench: Bench) -> None:
    async with provider(bench, latency=0.01, magic=False) as sandbox:
        bench.plan(phones(600))
        watched = WatchedLedger(bench.ledger)
        bench.ledger = watched  # type: ignore[assignment]  # stands in for it
        assert (await bench.run(concurrency=20)).word == "finished"
        assert sandbox.stats().sends == 600
    last = max(i for i, (_, begun, _) in enumerate(watched.batches) if begun)
    claiming = [batch for batch in watched.batches[:last] if batch[2]]
    assert len(claiming) >= 600 / 80  # four times what is in flight at most
    assert len([batch for batch in claiming if batch[:2] == (0, 0)]) <= 2, watched.batches  # the first one is alone


@pytest.mark.parametrize("for_good", [False, True], ids=["the last outcomes can be written", "nothing can be written"])
async def test_when_the_ledger_fails_nothing_more_is_sent(bench: Bench, for_good: bool) -> None:
    async with provider(bench, latency=0.05, magic=False) as sandbox:
        bench.plan(phones(200))
        real = bench.ledger
        bench.ledger = FailingLedger(real, 3, for_good=for_good)  # type: ignore[assignment]  # stands in for it
        try:
            ending = await bench.run(concurrency=10)
            assert not for_good
            assert ending.word == "failed"
            assert isinstance(ending.error, LedgerError)
        except LedgerError as error:
            assert for_good
            assert "disk is full" in str(error)
        bench.ledger = real
        requested = sandbox.stats().sends
        attempted = {row.phone for row in bench.rows().values() if row.attempts}
        assert {entry.phone for entry in sandbox.log} == attempted  # each was in the ledger, and those only
        assert 0 < requested <= 30
        recovered = real.recover(bench.campaign)
        assert recovered.unknown <= 10
        if not for_good:
            assert recovered.unknown == 0
            assert bench.statuses()["accepted"] == requested
        assert (await bench.run(concurrency=10)).word == "finished"
        assert sandbox.stats().phones_twice == []


async def test_a_bug_of_ours_ends_the_run_and_sends_nothing_more(bench: Bench) -> None:
    """Not swallowed, and nobody waits for ever for the worker that died."""

    def broken(_reply: Reply) -> Outcome:
        raise ZeroDivisionError

    async with provider(bench, magic=False) as sandbox:
        bench.plan(phones(100))
        bench.read = broken
        with pytest.raises(ZeroDivisionError):
            await bench.run(concurrency=3)
        assert sandbox.stats().sends <= 3
        bench.ledger.recover(bench.campaign)
        assert bench.statuses()["unknown"] == sandbox.stats().sends


async def test_a_run_that_is_cancelled_from_outside_sends_nothing_of_its_queue(bench: Bench) -> None:
    async with provider(bench, latency=0.1, magic=False) as sandbox:
        bench.plan(phones(100))
        with pytest.raises(asyncio.CancelledError):
            async with bench.running(concurrency=3) as run:
                await until(lambda: sandbox.stats().sends >= 3)
                sent = sandbox.stats().sends
                run.cancel()
                await run
        assert sandbox.stats().sends <= sent + 3
        assert bench.statuses()["accepted"] == sandbox.stats().sends


class SlowLedger:
    """The ledger, but what it says about who waits is a little out of date when it arrives."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def next_due(self, hold: Hold, only: Sequence[str] | None) -> int | None:
        due = self._ledger.next_due(hold, only)
        time.sleep(0.4)
        return due


async def test_a_retry_that_comes_back_while_nobody_seems_to_wait_is_no_end(bench: Bench) -> None:
    """The last message in flight comes back as 'try again' in the very moment in which the ledger is asked who is left."""
    async with provider(bench, Rule(Action(status=429), times=1), latency=0.2, magic=False) as sandbox:
        bench.plan(phones(1))
        real = bench.ledger
        bench.ledger = SlowLedger(real)  # type: ignore[assignment]  # stands in for it
        assert (await bench.run(concurrency=2)).word == "finished"
        bench.ledger = real
        assert sandbox.stats().sends == 2
        assert bench.statuses() == {"accepted": 1}


async def test_losses_before_anything_was_sent_are_told_from_those_after(bench: Bench) -> None:
    async with provider(bench, Rule(Action(drop=Drop.RESET), times=4), magic=False) as sandbox:
        bench.plan(phones(10))
        assert (await bench.run(concurrency=1)).word == "finished"
        assert bench.statuses() == {"unknown": 4, "accepted": 6}
        assert sandbox.stats().phones_twice == []
        assert {row.reason for row in bench.rows().values() if row.status == "unknown"} == {"connection_lost"}
