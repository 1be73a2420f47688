"""What the runner is compared with, each in a process of its own: `python -m benchmarks.peers NAME URL COUNT IN_FLIGHT`.

It starts when a line comes on stdin. None of them reads a spreadsheet, renders or paces anything, and but for those with a ledger
none records anything: they post the same message again and again, as fast as they can, with IN_FLIGHT requests at once.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

PATH = "/api/v1/whatsapp/message/image"
MESSAGE = {
    "phone_number": "905320000001",
    "content_url": "https://cdn.example.com/spring/a-7.jpg",
    "caption": "Hello Deniz Kaya,\nyour size is back at our shop in Izmir: 20 % off until Sunday with the code SPRING7.",
}
HEADERS = {"token": "invented-token-1c9d", "Content-Type": "application/json", "Accept": "application/json"}


def _tuned_session(in_flight: int, *, force_close: bool) -> aiohttp.ClientSession:
    """No cookies, no decompression, a pool of the right size."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight, force_close=force_close),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        auto_decompress=False,
        headers=HEADERS,
    )


async def _tuned(url: str, count: int, in_flight: int, *, force_close: bool) -> None:
    """The fastest bare aiohttp loop known here: one body of bytes for all."""
    import orjson

    body = orjson.dumps(MESSAGE)
    left = count
    async with _tuned_session(in_flight, force_close=force_close) as session:

        async def work() -> None:
            nonlocal left
            while left:
                left -= 1
                async with session.post(url, data=body, allow_redirects=False) as response:
                    await response.read()

        await asyncio.gather(*(work() for _ in range(in_flight)))


async def _with_a_ledger(url: str, count: int, in_flight: int, journal: str) -> None:
    """The same, and the least that a promise needs."""
    import orjson

    from benchmarks.durableloop import durable_loop

    async with _tuned_session(in_flight, force_close=False) as session:
        await durable_loop(session, url, orjson.dumps(MESSAGE), count, in_flight, journal)


async def _as_most_write_it(url: str, count: int, in_flight: int) -> None:
    """A semaphore, a task for each message, `json=`, `response.json()`."""
    import aiohttp

    turn = asyncio.Semaphore(in_flight)
    async with aiohttp.ClientSession() as session:

        async def post() -> None:
            async with turn, session.post(url, json=MESSAGE, headers=HEADERS) as response:
                await response.json()

        await asyncio.gather(*(post() for _ in range(count)))


def _requests_loop(url: str, count: int, _in_flight: int) -> None:
    import requests

    for _ in range(count):
        requests.post(url, json=MESSAGE, headers=HEADERS, timeout=30).json()


def _requests_pool(url: str, count: int, in_flight: int) -> None:
    """A session for each thread: without it every request would make a connection."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import requests

    own = threading.local()

    def post(_: int) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        own.session.post(url, json=MESSAGE, headers=HEADERS, timeout=30).json()

    with ThreadPoolExecutor(in_flight) as pool:
        for _ in pool.map(post, range(count), chunksize=50):
            pass


def request_bytes(host: str) -> bytes:
    """The request of all peers as it goes over the wire."""
    import orjson

    body = orjson.dumps(MESSAGE)
    lines = [f"POST {PATH} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in HEADERS.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _raw(url: str, count: int, in_flight: int) -> None:
    """The least that Python can do: select and sockets, replies counted and not read. The ceiling where there is no wrk."""
    host = url.split("/")[2]
    address = (host.split(":")[0], int(host.split(":")[1]))
    request = request_bytes(host)
    poll = select.poll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(min(in_flight, count)):
        connection = socket.create_connection(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
        connection.sendall(request)
    left = count - len(sockets)
    missing = count
    while missing:
        for number, _ in poll.poll():
            sockets[number].recv(65536)
            missing -= 1
            if left:
                left -= 1
                sockets[number].sendall(request)
    for connection in sockets.values():
        connection.close()


def _on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    uvloop.run(main)


Peer = Callable[[str, int, int], None]
PEERS: dict[str, Peer] = {
    "tuned": lambda url, count, flight: _on_uvloop(_tuned(url, count, flight, force_close=False)),
    "tuned-closing": lambda url, count, flight: _on_uvloop(_tuned(url, count, flight, force_close=True)),
    "durable": lambda url, count, flight: _on_uvloop(_with_a_ledger(url, count, flight, "rollback")),
    "durable-wal": lambda url, count, flight: _on_uvloop(_with_a_ledger(url, count, flight, "wal")),
    "unsynced": lambda url, count, flight: _on_uvloop(_with_a_ledger(url, count, flight, "none")),
    "plain": lambda url, count, flight: asyncio.run(_as_most_write_it(url, count, flight)),
    "requests": _requests_loop,
    "threads": _requests_pool,
    "raw": _raw,
}


def main() -> None:
    """Wait for the word, then go."""
    name, url, count, in_flight = sys.argv[1:]
    sys.stdin.readline()
    PEERS[name](url + PATH, int(count), int(in_flight))
    sys.stdout.flush()
    os._exit(0)  # what comes after the last reply is not measured


if __name__ == "__main__":
    main()
