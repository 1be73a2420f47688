"""The only file that opens a socket to a provider. One request in, a complete bounded reply or a Lost attempt out.

What may have been sent is decided by the phase reached, never by the exception's class: aiohttp raises the same ClientOSError
for 'refused' and for 'reset after the whole request', a bare TimeoutError in every phase, and a ClientResponseError with a
made-up status 400 for a reply it cannot parse (measured with aiohttp 3.14.5 against a raw fault server). The point of no return
is the trace hook 'request chunk sent' (without a body: 'headers sent'): head and body go out together right after it.

A connection is used once. Measured over 300 sends each: with connections kept for up to 1 s a server that lets go after 0.9 s
made 5 unknowns and one that closes unannounced after every third reply 25; closing made none anywhere. A kept connection
can also hold a late second reply, which aiohttp takes for the answer to the next request: a refusal recorded as accepted.

Nothing here prints or keeps an aiohttp exception: its repr shows the request's headers, the token among them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import SimpleNamespace, TracebackType

import aiohttp

from runner.model import Lost, Reply, Request

REPLY_LIMIT = 64 * 1024  # bytes; the documented replies have about 100
CONNECT_SECONDS = 10.0
LATE = "late"  # the kind of a Lost attempt whose turn had passed


class Transport:
    """Connections to one provider, one for each request. Use as an async context manager."""

    def __init__(self, *, connections: int, timeout: float, ssl_context: ssl.SSLContext | None = None) -> None:
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._ssl: ssl.SSLContext | bool = ssl_context if ssl_context is not None else True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Transport:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_headers_sent)
        trace.on_request_chunk_sent.append(_chunk_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, force_close=True, ttl_dns_cache=60, ssl=self._ssl),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent",),
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, request: Request, on_sent: Callable[[], None], leaves: Callable[[], Awaitable[bool]] | None = None
    ) -> Reply | Lost:
        """Send once, never twice. `on_sent` is called when the bytes are being written.

        `leaves` is asked before that, when the connection stands: it may wait, and False makes the attempt Lost, unsent.

        Redirects are not followed: aiohttp carries custom headers such as `token` to any host, and repeats the body on 307.
        A cancelled task is a Lost attempt as well: what was written cannot be taken back.
        """
        assert self._session is not None  # noqa: S101 - a programming error, not input
        if not all(value.isprintable() for value in request.headers.values()):
            return Lost(
                False, "unsendable", _UNSENDABLE, _UNSENDABLE
            )  # aiohttp would see it after the hook 'headers sent'
        phase = _Phase(on_sent, leaves, has_body=bool(request.body))
        try:
            async with self._session.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                trace_request_ctx=phase,
            ) as response:
                body, truncated = await _bounded(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, headers, body, truncated)
        except asyncio.CancelledError:
            return Lost(phase.sent, "interrupted", "stopped while waiting for the reply")
        except _HeldBackError:
            return _LATE
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return _LATE if phase.held_back else _lost(error, sent=phase.sent)


class _HeldBackError(Exception):
    """Nothing may be written after all."""


class _Phase:
    __slots__ = ("has_body", "held_back", "leaves", "on_sent", "sent")

    def __init__(
        self, on_sent: Callable[[], None], leaves: Callable[[], Awaitable[bool]] | None, *, has_body: bool
    ) -> None:
        self.sent = False  # the point of no return
        self.held_back = False
        self.on_sent = on_sent
        self.leaves = leaves
        self.has_body = has_body

    async def go(self) -> None:
        """The bytes are about to be written: aiohttp writes none before the hook that calls this is over."""
        if self.leaves is not None and not self.sent and not await self.leaves():
            self.held_back = True
            raise _HeldBackError
        self.sent = True
        self.on_sent()


async def _headers_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    phase = context.trace_request_ctx
    if not phase.has_body:
        await phase.go()


async def _chunk_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestChunkSentParams
) -> None:
    """Head and body go out together right after this hook; on a busy machine tens of milliseconds after the other one."""
    phase = context.trace_request_ctx
    if phase.has_body:
        await phase.go()


async def _bounded(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.read(REPLY_LIMIT + 1 - size):
        chunks.append(chunk)
        size += len(chunk)
        if size > REPLY_LIMIT:
            response.close()  # the rest is not wanted, and the connection cannot be used again
            return b"".join(chunks)[:REPLY_LIMIT], True
    return b"".join(chunks), False


_LATE = Lost(False, LATE, "its turn had passed")
_UNSENDABLE = "a setting (the token?) holds a character that no HTTP header may hold"
_NO_URL = "the provider's address is not a URL"
_BEFORE = (  # class -> word, explanation; the first that fits, so the narrow ones come first
    (aiohttp.ClientConnectorCertificateError, "certificate", "the provider's certificate cannot be trusted"),
    (aiohttp.ClientConnectorSSLError, "tls", "no secure connection could be made"),
    (aiohttp.ClientConnectorDNSError, "dns", "the provider's host name cannot be resolved"),
    (aiohttp.ClientConnectorError, "unreachable", "the provider's host cannot be reached"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", "the provider's host does not answer"),
    (TimeoutError, "connect_timeout", "the provider's host does not answer"),
    (aiohttp.InvalidURL, "bad_address", _NO_URL),
    (aiohttp.NonHttpUrlClientError, "bad_address", _NO_URL),
)
_AFTER = (
    (aiohttp.ServerDisconnectedError, "connection_lost", "the provider closed the connection without a reply"),
    (aiohttp.ClientOSError, "connection_lost", "the connection broke before a reply came"),
    (aiohttp.ClientPayloadError, "reply_cut", "the reply broke off"),
    (aiohttp.ClientResponseError, "bad_reply", "the reply is not HTTP that can be read"),
    (TimeoutError, "reply_timeout", "no reply in time"),
)


def _lost(error: BaseException, *, sent: bool) -> Lost:
    for kind, word, explanation in _AFTER if sent else _BEFORE:
        if isinstance(error, kind):
            hopeless = word in {"certificate", "bad_address"}
            return Lost(sent, word, explanation, explanation if hopeless else "")
    word = "connection_lost" if sent else "not_connected"
    return Lost(sent, word, f"{type(error).__name__} {'after' if sent else 'before'} the request was written")
