"""The only file that opens a socket to a provider. One request in, a complete bounded reply or a Lost attempt out.

What may have been sent is decided by the phase reached, never by the exception's class: aiohttp raises the same ClientOSError
for 'refused' and for 'reset after the whole request', a bare TimeoutError in every phase, and a ClientResponseError with a
made-up status 400 for a reply it cannot parse (measured with aiohttp 3.14.5 against a raw fault server). The point of no return
is where the body is written (without a body: the trace hook 'headers sent'): head and body go out together right after it.

A connection is used once, unless told to `keep` them. Measured over 300 sends each: with connections kept for up to 1 s a
server that lets go after 0.9 s made 5 unknowns and one that closes unannounced after every third reply 25; closing made none
anywhere. A kept connection can also hold a late second reply, which aiohttp takes for the answer to the next request: a
refusal recorded as accepted. So a kept one rests first, until what follows a reply (a close, a second reply) has been seen,
and is let go soon; what no rest can see is the price, and the user's choice.

Nothing here prints or keeps an aiohttp exception: its repr shows the request's headers, the token among them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import SimpleNamespace, TracebackType
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_writer import StreamWriter

from runner.model import Lost, Reply, Request

REPLY_LIMIT = 64 * 1024  # bytes; the documented replies have about 100
CONNECT_SECONDS = 10.0
LATE = "late"  # the kind of a Lost attempt whose turn had passed
REST_SECONDS = 0.005  # of a kept connection after a reply: a close comes with the reply or right after it
KEPT_SECONDS = 0.25  # idle at most; servers let go after 1 s at the soonest (nginx 75 s, Node 5 s)
STALE_AT_MOST = 20  # kept connections found spoilt for one request, before anything was written


class Transport:
    """Connections to one provider, one for each request or (`keep`) used again soon. Use as an async context manager."""

    def __init__(
        self, *, connections: int, timeout: float, keep: bool = False, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._connections = connections
        self._keep = keep
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._ssl: ssl.SSLContext | bool = ssl_context if ssl_context is not None else True
        self._session: aiohttp.ClientSession | None = None  # for requests with a body
        self._questions: aiohttp.ClientSession | None = None  # for those without
        self._replied: WeakKeyDictionary[ResponseHandler, float] = WeakKeyDictionary()  # kept connection -> last reply

    async def __aenter__(self) -> Transport:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_headers_sent)
        self._session = self._open(
            aiohttp.TCPConnector(
                limit=self._connections,
                force_close=not self._keep,
                keepalive_timeout=KEPT_SECONDS if self._keep else None,
                ttl_dns_cache=60,
                ssl=self._ssl,
            )
        )
        self._questions = self._open(aiohttp.TCPConnector(limit=1, force_close=True, ssl=self._ssl), trace)
        return self

    def _open(self, connector: aiohttp.TCPConnector, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=list(traces),  # costs each request of the session time, so only where there is no other hook
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent",),
            headers={"Accept-Encoding": "identity"},
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for session in (self._session, self._questions):
            if session is not None:
                await session.close()

    async def send(
        self, request: Request, on_sent: Callable[[], None], leaves: Callable[[], Awaitable[bool]] | None = None
    ) -> Reply | Lost:
        """Send once, never twice. `on_sent` is called when the bytes are being written.

        `leaves` is asked before that, when the connection stands: it may wait, and False makes the attempt Lost, unsent.

        Redirects are not followed: aiohttp carries custom headers such as `token` to any host, and repeats the body on 307.
        A cancelled task is a Lost attempt as well: what was written cannot be taken back.
        """
        if not all(map(str.isprintable, request.headers.values())):
            return Lost(
                False, "unsendable", _UNSENDABLE, _UNSENDABLE
            )  # aiohttp would see it after the point of no return
        result: Reply | Lost = _LATE
        for _ in range(STALE_AT_MOST):
            phase = _Phase(on_sent, leaves, self._replied)
            result = await self._attempt(request, phase)
            if not phase.stale or phase.sent or phase.held_back:
                return result
        return result

    async def _attempt(self, request: Request, phase: _Phase) -> Reply | Lost:
        session = self._session if request.body else self._questions
        assert session is not None  # noqa: S101 - a programming error, not input
        try:
            async with session.request(
                request.method,
                request.url,
                data=_Body(request.body, phase) if request.body else None,
                headers=request.headers,
                allow_redirects=False,
                trace_request_ctx=phase,
            ) as response:
                # An answer before the request is none. No step of another task lies between its arrival and here.
                if not phase.sent:
                    phase.stale = True
                    response.close()
                    return _STALE
                body, truncated = await _bounded(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                if self._keep:
                    phase.over()
                return Reply(response.status, headers, body, truncated)
        except asyncio.CancelledError:
            return Lost(phase.sent, "interrupted", "stopped while waiting for the reply")
        except _HeldBackError:
            return _LATE
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            phase.stale |= phase.kept  # it may have been let go while the request waited for its turn
            return _LATE if phase.held_back else _lost(error, sent=phase.sent)


class _HeldBackError(Exception):
    """Nothing may be written after all."""


class _AgainError(OSError):
    """Nothing is written twice."""


class _StaleError(OSError):
    """The connection cannot be used; nothing was written."""


class _Phase:
    """How far one request has come."""

    __slots__ = ("_leaves", "_on_sent", "_protocol", "_replied", "held_back", "kept", "sent", "stale")

    def __init__(
        self,
        on_sent: Callable[[], None],
        leaves: Callable[[], Awaitable[bool]] | None,
        replied: WeakKeyDictionary[ResponseHandler, float],
    ) -> None:
        self.sent = False  # the point of no return
        self.held_back = False
        self.kept = False  # the connection has been used before
        self.stale = False  # it cannot be used, and nothing was written
        self._on_sent = on_sent
        self._leaves = leaves
        self._replied = replied
        self._protocol: ResponseHandler | None = None

    async def go(self, protocol: ResponseHandler | None = None) -> None:
        """The bytes are about to be written: none is before this is over. Raises what keeps them from being written."""
        if self.sent:  # aiohttp begins idempotent methods again by itself
            raise _AgainError
        replied = self._replied.get(protocol) if protocol is not None else None
        if replied is not None:
            self.kept = True
            wait = replied + REST_SECONDS - asyncio.get_running_loop().time()
            if wait > 0:
                await asyncio.sleep(wait)
        if self._leaves is not None and not await self._leaves():
            self.held_back = True
            raise _HeldBackError
        # Last of all, for both waits may have taken their time. What is there before the request is no answer to it.
        if self.stale or (protocol is not None and (not protocol.is_connected() or protocol.should_close)):
            self.stale = True
            raise _StaleError
        self.sent = True
        self._protocol = protocol
        self._on_sent()

    def over(self) -> None:
        """The whole reply has been read."""
        if self._protocol is not None:
            self._replied[self._protocol] = asyncio.get_running_loop().time()


class _Body(aiohttp.BytesPayload):
    """Bytes that say when they are written. A trace hook says it, too, for 48 microseconds a request, not 8 (measured)."""

    def __init__(self, value: bytes, phase: _Phase) -> None:
        super().__init__(value)
        self._phase = phase

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Head and body go out together right after the phase has let them."""
        assert isinstance(writer, StreamWriter)  # noqa: S101 - aiohttp's own, the only one there is
        protocol = writer.protocol
        assert isinstance(protocol, ResponseHandler)  # noqa: S101 - a client's connection
        await self._phase.go(protocol)
        await super().write_with_length(writer, content_length)


async def _headers_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    await context.trace_request_ctx.go()


async def _bounded(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    size = response.content_length
    if size is not None and size <= REPLY_LIMIT and "Transfer-Encoding" not in response.headers:
        return await response.read(), False
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
_STALE = Lost(False, "not_connected", "the connection held something before the request was written")
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
