"""A server that misbehaves on purpose, byte for byte: the other end of the wire in tests of what may have been sent.

    async with FaultServer("rst_after_request", "ok") as server:   # first connection, every further one
        ... request server.url ...
        server.received   # every request of which the head came in, in order

`FAULTS` names every way in which it can misbehave, and what the client can know afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

_LINGER_0 = struct.pack("ii", 1, 0)
OK_BODY = b'{"queue_message_id":"q-1","message":"queued"}'
REPLY_LIMIT = 64 * 1024


@dataclass
class Received:
    """One request as far as it came in."""

    at: float  # time.time() when its head was complete
    connection: int  # 1, 2, ... in the order of accepting
    head: bytes
    body: bytes = b""
    complete: bool = False

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def header(self, name: str) -> str | None:
        found = re.search(rf"(?im)^{re.escape(name)}:\s*(.*?)\r?$", self.head.decode("latin-1"))
        return found[1] if found else None


class Connection:
    """One accepted connection in the hands of a behaviour."""

    def __init__(
        self, number: int, server: FaultServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self.server = server
        self._reader = reader
        self._writer = writer

    async def head(self) -> Received | None:
        """Read the next request's head; None when the client has closed."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        received = Received(time.time(), self.number, head)
        self.server.received.append(received)
        return received

    async def part(self, count: int) -> bytes:
        """Read so many bytes, of whatever they are."""
        return await self._reader.readexactly(count)

    async def request(self) -> Received | None:
        """Read the next request to its end."""
        received = await self.head()
        if received is not None:
            received.body = await self._reader.readexactly(int(received.header("content-length") or 0))
            received.complete = True
        return received

    async def write(self, *parts: bytes, pause: float = 0.0) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            if pause:
                await asyncio.sleep(pause)

    async def reply(self, body: bytes = OK_BODY, status: str = "200 OK", headers: str = "") -> None:
        """A whole reply that is what it says."""
        await self.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def fin(self) -> None:
        """Close in an orderly way."""
        self._writer.close()

    def rst(self) -> None:
        """Reset: a socket that lingers for 0 s sends RST when it is closed (socket(7), SO_LINGER)."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._writer.transport.abort()

    async def hand_on(self, port: int) -> None:
        """Give the connection, as it is, to another server of this machine."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(carry(self._reader, writer), carry(reader, self._writer))

    async def hang(self) -> None:
        """Say nothing until the server is closed."""
        await self.server.closing.wait()


Behaviour = Callable[[Connection], Awaitable[None]]


async def _ok(connection: Connection) -> None:
    while await connection.request() is not None:
        await connection.reply()


def _after_request(*parts: bytes, end: str = "fin", pause: float = 0.0) -> Behaviour:
    async def behave(connection: Connection) -> None:
        if await connection.request() is not None:
            await connection.write(*parts, pause=pause)
            await _END[end](connection)

    return behave


async def _fin(connection: Connection) -> None:
    connection.fin()


async def _rst(connection: Connection) -> None:
    connection.rst()


async def _hang(connection: Connection) -> None:
    await connection.hang()


_END: Mapping[str, Behaviour] = {"fin": _fin, "rst": _rst, "hang": _hang}


async def _rst_after_head(connection: Connection) -> None:
    await connection.head()
    connection.rst()


async def _fin_after_head(connection: Connection) -> None:
    await connection.head()
    connection.fin()


async def _close_after_reply(connection: Connection) -> None:
    """Answers well, then closes although it did not say so."""
    if await connection.request() is not None:
        await connection.reply()
        connection.fin()


def _answer(status: str, body: bytes = b"", headers: str = "") -> Behaviour:
    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.reply(body, status, headers)

    return behave


async def _endless(connection: Connection) -> None:
    if await connection.request() is not None:
        await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not connection.server.closing.is_set():
                await connection.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                connection.server.written += 0x4000
                await asyncio.sleep(0)


def _bomb(size: int) -> bytes:
    return gzip.compress(b"\0" * size)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_LENGTH = b"Content-Length: %d\r\n\r\n" % len(OK_BODY)


@dataclass(frozen=True)
class Fault:
    """How the server behaves, and what a careful client concludes: a whole reply (`status`) or a lost attempt."""

    behave: Behaviour
    status: int | None = None  # of the reply; None: there is none
    kinds: frozenset[str] = frozenset()  # words for the loss that are right


def _lost(behave: Behaviour, *kinds: str) -> Fault:
    return Fault(behave, kinds=frozenset(kinds))


FAULTS: Mapping[str, Fault] = {
    # before anything is read: the client has written already, or believes so
    "fin_at_accept": _lost(_fin, "connection_lost"),
    "rst_at_accept": _lost(_rst, "connection_lost"),
    "fin_after_head": _lost(_fin_after_head, "connection_lost"),
    "rst_after_head": _lost(_rst_after_head, "connection_lost"),
    # the whole request was read, no reply
    "fin_after_request": _lost(_after_request(), "connection_lost"),
    "rst_after_request": _lost(_after_request(end="rst"), "connection_lost"),
    "hang_after_request": _lost(_after_request(end="hang"), "reply_timeout"),
    # part of a head
    "half_status_line": _lost(_after_request(b"HTTP/1.1 20"), "connection_lost", "bad_reply"),
    "half_head": _lost(_after_request(_HEAD), "connection_lost", "bad_reply"),
    "slow_head": _lost(_after_request(*(bytes([byte]) for byte in _HEAD * 3), pause=0.1), "reply_timeout"),
    # a head that is none
    "garbage": _lost(_after_request(b"hello, this is not HTTP\r\n\r\n"), "bad_reply"),
    "binary": _lost(_after_request(bytes(range(256)) * 4), "bad_reply"),
    "huge_header": _lost(
        _after_request(_HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\n" + _LENGTH + OK_BODY), "bad_reply"
    ),
    "two_lengths": _lost(_after_request(_HEAD + b"Content-Length: 5\r\n" + _LENGTH + OK_BODY), "bad_reply"),
    "negative_length": _lost(_after_request(_HEAD + b"Content-Length: -5\r\n\r\n" + OK_BODY), "bad_reply"),
    # part of a body
    "short_body_fin": _lost(_after_request(_HEAD + _LENGTH + OK_BODY[:10]), "reply_cut"),
    "short_body_rst": _lost(_after_request(_HEAD + _LENGTH + OK_BODY[:10], end="rst"), "reply_cut", "connection_lost"),
    "short_body_hang": _lost(_after_request(_HEAD + _LENGTH + OK_BODY[:10], end="hang"), "reply_timeout"),
    "slow_body": _lost(
        _after_request(_HEAD + _LENGTH, *(bytes([byte]) for byte in OK_BODY * 2), pause=0.1), "reply_timeout"
    ),
    "cut_chunk": _lost(_after_request(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n20\r\n" + OK_BODY[:10]), "reply_cut"),
    "bad_chunk": _lost(
        _after_request(_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + OK_BODY), "reply_cut", "bad_reply"
    ),
    # whole replies, whatever they are worth
    "ok": Fault(_ok, 200),
    "close_after_reply": Fault(_close_after_reply, 200),
    "cut_json": Fault(_answer("200 OK", OK_BODY[:20]), 200),
    "empty": Fault(_answer("200 OK"), 200),
    "bad_gzip": Fault(_answer("200 OK", b"not gzip", "Content-Encoding: gzip\r\n"), 200),
    "gzip_bomb": Fault(_answer("200 OK", _bomb(50_000_000), "Content-Encoding: gzip\r\n"), 200),
    "big_body": Fault(_answer("200 OK", b"x" * (REPLY_LIMIT + 1)), 200),
    "endless_body": Fault(_endless, 200),
    "bad_request": Fault(_answer("400 Bad Request", b'{"status":false}'), 400),
    "unauthorised": Fault(_answer("401 Unauthorized", b'{"status":false}'), 401),
    "too_many": Fault(_answer("429 Too Many Requests", b"{}", "Retry-After: 1\r\n"), 429),
    "unavailable": Fault(_answer("503 Service Unavailable", b"<html></html>"), 503),
    "odd_status": Fault(_answer("799 Whatever", b"{}"), 799),
}


class FaultServer:
    """Misbehaves on a socket of this machine. The first connection gets the first fault, and so on; the last one stays."""

    def __init__(self, *faults: str | Behaviour, tls: ssl.SSLContext | None = None, on: int = 0) -> None:
        self.faults = faults or ("ok",)
        self.tls = tls
        self._on = on  # the port; 0: any that is free
        self.received: list[Received] = []
        self.accepted = 0
        self.written = 0  # bytes of an endless body
        self.closing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/send"

    async def __aenter__(self) -> FaultServer:
        self.closing = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._on, ssl=self.tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self.closing.set()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        fault = self.faults[min(self.accepted, len(self.faults)) - 1]
        behave = FAULTS[fault].behave if isinstance(fault, str) else fault
        try:
            await behave(Connection(self.accepted, self, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the server is closed
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)
