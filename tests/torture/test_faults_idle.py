"""A server that closes an idle connection just as it is used again, and what that costs in unknowns.

Four choices side by side: a connection is used once (shipped), `keep_connections`, a short idle limit, aiohttp's own
default. The way to the
server and back is imitated: from deciding to close until the reset arrives there are 50 ms.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from bench import NOTE, SEED, size
from faultserver import Behaviour, Connection, FaultServer

from runner.model import Lost, Reply, Request
from runner.transport import Transport

pytestmark = pytest.mark.slow

WAY = 0.05  # seconds
SENDS = 5  # on each of the connections that work side by side
SHORT = 1.0  # seconds
CHOICES = (
    f"idle limit {SHORT:.1f} s",
    "used once (shipped)",
    "idle limit 15 s (aiohttp's default)",
    "keep_connections",
)


def _idle(seconds: float) -> Behaviour:
    async def behave(connection: Connection) -> None:
        while True:
            try:
                request = await asyncio.wait_for(connection.request(), seconds)
            except TimeoutError:
                await asyncio.sleep(WAY)
                connection.rst()
                return
            if request is None:
                return
            await connection.reply()

    return behave


def _after(count: int) -> Behaviour:
    """Closes after so many replies without having said so."""

    async def behave(connection: Connection) -> None:
        for _ in range(count):
            if await connection.request() is None:
                return
            await connection.reply()
        await asyncio.sleep(WAY)
        connection.rst()

    return behave


def _set(transport: Transport, choice: str) -> None:
    """One setting of the connection pool, all others as shipped."""
    connector = transport._connector
    assert connector is not None
    assert connector._force_close == (choice == CHOICES[1]), "the shipped choice has changed"
    if choice in {CHOICES[0], CHOICES[2]}:
        connector._keepalive_timeout = 15.0 if choice == CHOICES[2] else SHORT


async def _lane(url: str, choice: str, gaps: list[float]) -> Counter[str]:
    """One connection: sends with these gaps between them."""
    seen: Counter[str] = Counter()
    request = Request("POST", url, {"token": "invented-token-3311"}, b"{}")
    async with Transport(connections=1, timeout=10, keep=choice != CHOICES[1]) as lane:
        _set(lane, choice)
        for gap in [0.0, *gaps]:
            await asyncio.sleep(gap)
            result: Reply | Lost = await lane.send(request, lambda: None)
            seen["ok" if isinstance(result, Reply) else "unknown" if result.sent else "not sent"] += 1
    return seen


async def test_connections_used_once_cost_no_unknown_whatever_the_server_does_with_idle_ones() -> None:
    rng = random.Random(SEED)
    servers: Mapping[str, tuple[Behaviour, float, int]] = {  # the server, the gap that hurts most, sends
        "closes after 0.9 s idle": (_idle(0.9), 0.9 + WAY / 2, size(100, 300)),
        "closes after 1.2 s idle": (_idle(1.2), 1.2 + WAY / 2, size(100, 300)),
        "closes after 1.5 s idle": (_idle(1.5), 1.5 + WAY / 2, size(100, 300)),
        "closes after 2 s idle": (_idle(2.0), 2.0 + WAY / 2, 300),
        "closes after 3 s idle": (_idle(3.0), 3.0 + WAY / 2, size(0, 300)),
        "closes after every 3rd reply": (_after(3), WAY / 2, size(100, 300)),
    }
    table: dict[tuple[str, str], Counter[str]] = {}

    async def measure(name: str, choice: str) -> None:
        behave, hurts, sends = servers[name]
        lanes = []
        async with FaultServer(behave) as server:
            for lane in range(sends // SENDS):
                worst = [hurts, SHORT][lane % 2]  # half of them where the server lets go, half where we do
                gaps = [max(0.0, worst + rng.uniform(-WAY, WAY)) for _ in range(SENDS - 1)]
                lanes.append(_lane(server.url, choice, gaps))
            table[name, choice] = sum(await asyncio.gather(*lanes), Counter())

    await asyncio.gather(*(measure(name, choice) for name in servers if servers[name][2] for choice in CHOICES))
    for (name, choice), seen in sorted(table.items()):
        print(f"{name:<30} {choice:<36} {seen['unknown']:3} unknown of {seen.total()}")
    for (name, choice), seen in table.items():
        assert seen["not sent"] == 0
        if choice == CHOICES[3] and "idle" in name:  # let go long before any server does
            assert seen == {"ok": servers[name][2]}, f"{name}, {choice}: {seen} ({NOTE})"
        if choice == CHOICES[1]:
            assert seen == {"ok": servers[name][2]}, f"{name}, {choice}: {seen} ({NOTE})"
    assert table["closes after 2 s idle", CHOICES[2]]["unknown"] > 0, "the test cannot fail"
