"""One HTTP/1.1 request over a connection, and its reply: aiohttp's connections and parser, without its session.

The session does for each request what none of ours needs (cookies, redirects, proxies, credentials, tracing, repeating), and
that costs more than all the rest of an exchange: 139 to 168 microseconds a request with it, 63 to 81 without (measured with
aiohttp 3.14.5 on one core, 50 in flight). Without it, too, a request is one piece of bytes, written at a moment of our choice.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader
from yarl import URL

from runner.model import Reply, Request

REPLY_LIMIT = 64 * 1024  # bytes; the documented replies have about 100
_UNLESS_SAID = {"accept": "Accept: */*\r\n", "accept-encoding": "Accept-Encoding: identity\r\n"}
_CLOSE = b"Connection: close\r\n\r\n"


class Address:
    """Where the requests of one URL go. Raises aiohttp.InvalidURL when it is no http or https address."""

    __slots__ = ("_head", "_headers", "_host", "_method", "_path", "target")

    def __init__(self, url: str, tls: ssl.SSLContext | bool) -> None:
        try:
            parsed = URL(url)
        except ValueError as error:
            raise aiohttp.InvalidURL(url) from error
        if parsed.scheme not in {"http", "https"} or not parsed.raw_host:
            raise aiohttp.InvalidURL(url)
        self.target = aiohttp.ClientRequest("GET", parsed, ssl=tls)  # what a connector is asked with; never sent
        self._host = parsed.host_port_subcomponent
        self._path = parsed.raw_path_qs
        self._head = b""  # the last one, and what it was made of: nearly every request has the same
        self._method = ""
        self._headers: dict[str, str] = {}

    def written(self, request: Request, *, close: bool) -> bytes | None:
        """The request as it goes over the wire; None when a header cannot stand in a head: a line break would begin another.

        `close`: the server is told that no other request follows.
        """
        if request.headers != self._headers or request.method != self._method:
            if not all(map(str.isprintable, request.headers.values())):
                return None
            self._head = self._head_of(request)
            self._method, self._headers = request.method, request.headers.copy()
        end = _CLOSE if close else b"\r\n"
        if request.body or request.method != "GET":
            return b"%bContent-Length: %d\r\n%b%b" % (self._head, len(request.body), end, request.body)
        return self._head + end

    def _head_of(self, request: Request) -> bytes:
        """All of it that neither the body nor the connection says."""
        lines = [f"{request.method} {self._path} HTTP/1.1\r\nHost: {self._host}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        said = {name.lower() for name in request.headers}
        lines += [line for name, line in _UNLESS_SAID.items() if name not in said]
        return "".join(lines).encode()


class Line(ResponseHandler):
    """A connection that knows when the first bytes came after a request: whoever reads them may be kept waiting by others."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.came_at: float | None = None  # by time.monotonic

    def data_received(self, data: bytes) -> None:
        """As aiohttp does."""
        if self.came_at is None:
            self.came_at = time.monotonic()
        super().data_received(data)


class Lines(aiohttp.TCPConnector):
    """aiohttp's pool of connections, of lines. aiohttp 3.14 has no public way to say what it makes its connections with."""

    def __init__(
        self, *, limit: int, force_close: bool, keepalive_timeout: float | None, tls: ssl.SSLContext | bool
    ) -> None:
        super().__init__(
            limit=limit, force_close=force_close, keepalive_timeout=keepalive_timeout, ttl_dns_cache=60, ssl=tls
        )
        lines: Callable[..., ResponseHandler] = Line
        self._factory = partial(lines, loop=asyncio.get_running_loop())


def is_quiet(protocol: ResponseHandler) -> bool:
    """Whether the connection stands and has said nothing since the last reply: what comes before a request is no answer to it."""
    return protocol.is_connected() and not protocol.should_close


def write(protocol: Line, request: bytes) -> None:
    """Write the whole request, and be ready for its reply. No step of another task lies in between.

    A server that reads slowly keeps the bytes in memory: a request has a few hundred.
    """
    assert protocol.transport is not None  # noqa: S101 - `is_quiet` has been asked in the same step
    protocol.came_at = None
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    protocol.transport.write(request)


async def read(protocol: Line) -> Reply:
    """The reply to what was written, its body up to REPLY_LIMIT. Raises what aiohttp does; there is no time limit."""
    while True:
        message, body = await protocol.read()
        if not 100 <= message.code <= 199 or message.code == 101:
            break
    headers = {name.lower(): value for name, value in message.headers.items()}
    if body.is_eof() and not body.at_eof():  # it came with the head, as nearly every one does
        content = body.read_nowait()
        return Reply(message.code, headers, content[:REPLY_LIMIT], len(content) > REPLY_LIMIT, protocol.came_at)
    content, truncated = await _bounded(body)
    return Reply(message.code, headers, content, truncated, protocol.came_at)


async def _bounded(body: StreamReader) -> tuple[bytes, bool]:
    chunks: list[bytes] = []
    size = 0
    while not body.at_eof():
        chunk = await body.read(REPLY_LIMIT + 1 - size)
        chunks.append(chunk)
        size += len(chunk)
        if size > REPLY_LIMIT:
            return b"".join(chunks)[:REPLY_LIMIT], True
    return b"".join(chunks), False
