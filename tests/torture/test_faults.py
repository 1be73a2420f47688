"""Whatever a provider answers, the verdict is the right one and nobody else is harmed: the real engine, an SQLite ledger on the
disk, real sockets. The judge is the fault server's own count of what it was asked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest
from faultcases import CASES_OF_ONE_RUN, NOT_SENT, STATUSES, WIRE
from faults import (
    TOKEN,
    Script,
    Wire,
    address,
    answer,
    judge_everybody,
    judge_healthy,
    open_wire,
    phones,
)
from faultserver import Behaviour, Connection, FaultServer

from runner.engine import Ending
from runner.units import Rate

pytestmark = pytest.mark.slow

ROWS = 12
MEMORY = 200 << 20  # bytes that the whole test process may grow by; the bodies are of 1 GB
CASES = {**STATUSES, **WIRE}


@pytest.mark.parametrize("name", CASES)
async def test_the_verdict_of_every_answer(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    everybody = phones(ROWS)
    faulty = everybody[2 : 2 + 3 * case.rows : 3]
    script = Script({phone: [case.behave] for phone in faulty})
    memory = psutil.Process().memory_info().rss
    with open_wire(tmp_path) as wire:
        wire.plan(everybody)
        async with FaultServer(script) as server:
            began = time.monotonic()
            ending = await wire.run(address(server), timeout=case.timeout)
            took = time.monotonic() - began
            if case.stops:
                assert ending.word == "stopped", ending
                assert wire.rows()[faulty[0]].attempts[0].verdict == case.verdict
                ending = await wire.run(address(server), timeout=case.timeout)
            assert ending == Ending("finished")
            asked = script.asked.total()
            assert await wire.run(address(server)) == Ending("finished")
            assert script.asked.total() == asked, "a further run sent something"
        rows = wire.rows()
        judge_everybody(rows, ROWS)
        judge_healthy([phone for phone in everybody if phone not in faulty], rows, script)
        for phone in faulty:
            first = rows[phone].attempts[0]
            assert (first.verdict, first.reason) == (case.verdict, case.reason), first
            assert script.asked[phone] == len(rows[phone].attempts) == (2 if case.verdict == NOT_SENT else 1)
            assert rows[phone].status == ("accepted" if case.verdict == NOT_SENT else case.verdict)
            if case.wait:
                assert rows[phone].attempts[1].started_at - first.finished_at >= case.wait * 1e6
        assert took < 3 * case.timeout + 5, "the fault held up the run"
        assert server.written < 64 << 20
        assert psutil.Process().memory_info().rss - memory < MEMORY


def test_the_matrix_is_as_large_as_it_says() -> None:
    assert len(CASES) >= 70
    assert {case.verdict for case in CASES.values()} == {"accepted", "rejected", "not_sent", "unknown"}


async def _rst(connection: Connection) -> None:
    connection.rst()


async def _fin(connection: Connection) -> None:
    connection.fin()


async def _rst_mid_head(connection: Connection) -> None:
    await connection.part(40)
    connection.rst()


async def _rst_mid_body(connection: Connection) -> None:
    await connection.head()
    connection.rst()


async def _reply_at_accept(connection: Connection) -> None:
    """Refuses before anything is read, as an overloaded front does."""
    await connection.reply(b"{}", "503 Busy", "Connection: close\r\n")
    connection.fin()


@pytest.mark.parametrize(
    "behave", [_rst, _fin, _rst_mid_head, _rst_mid_body, _reply_at_accept], ids=lambda behave: behave.__name__
)
async def test_a_connection_that_breaks_before_the_request_is_read_costs_one_unknown_each(
    behave: Behaviour, tmp_path: Path
) -> None:
    """The client has written, or believes so: nobody can tell what was done."""
    script = Script(first=[behave] * 3)
    with open_wire(tmp_path) as wire:
        wire.plan(phones(ROWS))
        async with FaultServer(script) as server:
            assert await wire.run(address(server)) == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, ROWS)
        unknown = [phone for phone, row in rows.items() if row.status == "unknown"]
        assert len(unknown) == 3
        assert not any(script.asked[phone] for phone in unknown)
        judge_healthy([phone for phone in rows if phone not in unknown], rows, script)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_the_host_that_a_redirect_names_receives_nothing(code: int, tmp_path: Path) -> None:
    everybody = phones(ROWS)
    with open_wire(tmp_path) as wire:
        wire.plan(everybody)
        async with FaultServer() as second:
            location = f"Location: {address(second)}/elsewhere\r\n"
            script = Script({everybody[4]: [answer(f"{code} Moved", b"", location)]})
            async with FaultServer(script) as server:
                ending = await wire.run(address(server))
            await asyncio.sleep(0.05)
            assert ending.word == "stopped"
            assert (second.accepted, second.received) == (0, [])
            assert all(request.header("token") == TOKEN for request in server.received)


async def test_a_wait_of_more_than_an_hour_stops_the_run_and_loses_nobody(tmp_path: Path) -> None:
    everybody = phones(ROWS)
    script = Script({everybody[3]: [answer("429 Too Many Requests", b"{}", "Retry-After: 86400\r\n")]})
    with open_wire(tmp_path) as wire:
        wire.plan(everybody)
        async with FaultServer(script) as server:
            ending = await wire.run(address(server))
            assert (ending.word, wire.rows()[everybody[3]].status) == ("stopped", "retry_wait")
            wire.ahead += 86_400
            assert await wire.run(address(server)) == Ending("finished")
        assert wire.statuses() == {"accepted": ROWS}
        assert script.asked == {phone: 1 + (phone == everybody[3]) for phone in everybody}


async def test_a_provider_that_only_says_slow_down_stops_the_run_and_loses_nobody(tmp_path: Path) -> None:
    script = Script({phone: [answer("429 Too Many Requests", b"{}")] * 50 for phone in phones(ROWS)})
    with open_wire(tmp_path, speed=400) as wire:
        wire.plan(phones(ROWS))
        async with FaultServer(script) as server:
            ending = await wire.run(address(server))
            assert ending.word == "stopped", ending
            assert set(wire.statuses()) <= {"retry_wait", "pending"}
            refused = script.asked.total()
            script.answers.clear()
            wire.ahead += 3600
            assert await wire.run(address(server)) == Ending("finished")
        assert wire.statuses() == {"accepted": ROWS}
        assert script.taken == dict.fromkeys(phones(ROWS), 1)
        print(f"{refused} requests before it stopped by itself")


# --- one connection, two requests -------------------------------------------------------------------------------------


async def _paced(wire: Wire, script: Script, count: int) -> None:
    wire.plan(phones(count))
    async with FaultServer(script) as server:
        assert await wire.run(address(server), concurrency=1, rates=[Rate(1, 0.15)]) == Ending("finished")
        print(f"{server.accepted} connections for {count} requests")


async def test_a_second_reply_that_comes_late_is_nobodys(tmp_path: Path) -> None:
    """It lies in the idle connection when the next request goes out; taken for its answer, a refusal would count as accepted."""
    stale = b'{"queue_message_id":"stale","message":"queued"}'

    async def twice(connection: Connection) -> None:
        await connection.reply()
        await asyncio.sleep(0.03)
        await connection.reply(stale)

    everybody = phones(6)
    refusal = answer("400 Bad Request", b'{"status":false}')
    script = Script({everybody[1]: [twice], everybody[2]: [refusal], everybody[3]: [twice]})
    with open_wire(tmp_path, speed=1) as wire:
        await _paced(wire, script, len(everybody))
        rows = wire.rows()
        assert rows[everybody[2]].status != "accepted", f"refused by the provider: {rows[everybody[2]]}"
        assert not [phone for phone, row in rows.items() if row.queue_id == "stale"]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # 16 MB, to fill every buffer on the way
async def test_a_refusal_of_a_request_still_being_written_is_read(tmp_path: Path) -> None:
    """413 as soon as the head is there; the rest of the 16 MB is read and thrown away."""

    async def early(connection: Connection) -> None:
        if (request := await connection.head()) is not None:
            await connection.reply(b"{}", "413 Content Too Large", "Connection: close\r\n")
            await connection.part(int(request.header("content-length") or 0))
            connection.fin()

    async def early_and_gone(connection: Connection) -> None:
        if await connection.head() is not None:
            await connection.reply(b"{}", "413 Content Too Large", "Connection: close\r\n")
            connection.rst()

    script = Script(first=[early, early, early_and_gone])
    with open_wire(tmp_path) as wire:
        wire.plan(phones(6), caption="x" * (16 << 20))
        async with FaultServer(script) as server:
            assert await wire.run(address(server), concurrency=1, timeout=20) == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, 6)
        statuses = [rows[phone].status for phone in phones(6)]
        print(statuses)
        assert statuses[:2] == ["rejected"] * 2
        assert statuses[2] in {"rejected", "unknown"}  # the reset may overtake the reply
        judge_healthy(phones(6)[3:], rows, script)


# --- not reached at all -----------------------------------------------------------------------------------------------


async def test_refused_for_half_a_minute_then_back_costs_nobody_anything(tmp_path: Path) -> None:
    async with FaultServer() as placeholder:
        port = placeholder.port
    script = Script()
    with open_wire(tmp_path, speed=20) as wire:
        wire.plan(phones(40))
        run = asyncio.create_task(wire.run(f"http://127.0.0.1:{port}", concurrency=8, retries=5))
        await wire.sleep(30)
        async with FaultServer(script, on=port):
            assert await run == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, 40)
        judge_healthy(list(rows), rows, script)
        assert {attempt.reason for row in rows.values() for attempt in row.attempts} == {"unreachable", ""}
        print(f"{sum(len(row.attempts) - 1 for row in rows.values())} refused attempts in 30 s")


async def test_a_name_that_does_not_resolve_for_a_while_costs_nobody_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real, failures = loop.getaddrinfo, [0]

    async def shaky(host: str, *args: object, **kwargs: object) -> object:
        if host == "localhost" and failures[0] < 4:
            failures[0] += 1
            raise OSError(-3, "Temporary failure in name resolution")
        return await real(host, *args, **kwargs)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(loop, "getaddrinfo", shaky)
    script = Script()
    with open_wire(tmp_path) as wire:
        wire.plan(phones(ROWS))
        async with FaultServer(script) as server:
            assert await wire.run(address(server, "localhost"), retries=6) == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, ROWS)
        judge_healthy(list(rows), rows, script)
        assert failures == [4]
        assert {attempt.reason for row in rows.values() for attempt in row.attempts} == {"dns", ""}


async def test_a_crowd_of_all_faults_at_once_harms_nobody_else(tmp_path: Path) -> None:
    """Every answer that does not end the run, in one run of 50 at a time among 500 healthy recipients."""
    cases = CASES_OF_ONE_RUN
    everybody = phones(500 + len(cases))
    chosen = dict(zip(everybody[:: len(everybody) // len(cases)], cases.values(), strict=False))
    assert len(chosen) == len(cases)
    script = Script({phone: [case.behave] for phone, case in chosen.items()})
    with open_wire(tmp_path) as wire:
        wire.plan(everybody)
        async with FaultServer(script) as server:
            assert await wire.run(address(server), concurrency=50, timeout=3) == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, len(everybody))
        judge_healthy([phone for phone in everybody if phone not in chosen], rows, script)
        assert {phone: rows[phone].status for phone in chosen} == {
            phone: case.verdict for phone, case in chosen.items()
        }
        assert all(script.asked[phone] == 1 for phone in everybody)
