"""The only file that opens a socket to a provider. One request in, a complete bounded reply or a Lost attempt out.

What may have been sent is decided by the phase reached, never by the exception's class: aiohttp raises the same ClientOSError
for 'refused' and for 'reset after the whole request', and a bare TimeoutError in every phase (measured with aiohttp 3.14.5
against a raw fault server). The point of no return is the one line in which the whole request is written.

A connection is used once, unless told to `keep` them. Measured over 300 sends each: with connections kept for up to 1 s a
server that lets go after 0.9 s made 5 unknowns and one that closes unannounced after every third reply 25; closing made none
anywhere. A kept connection can also hold a late second reply, which would be taken for the answer to the next request: a
refusal recorded as accepted. So a kept one rests first, until what follows a reply (a close, a second reply) has been seen,
and is let go soon; what no rest can see is the price, and the user's choice.

Nothing here prints or keeps an aiohttp exception: some show a request's headers, the token among them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

from runner import exchange
from runner.exchange import Address, Line, Lines
from runner.model import Lost, Reply, Request

CONNECT_SECONDS = 10.0
LATE = "late"  # the kind of a Lost attempt whose turn had passed
REST_SECONDS = 0.005  # of a kept connection after a reply: a close comes with the reply or right after it
KEPT_SECONDS = 0.25  # idle at most; servers let go after 1 s at the soonest (nginx 75 s, Node 5 s)
STALE_AT_MOST = 20  # connections found spoilt for one request, before anything was written
GRAIN = 0.001  # seconds: of the loop's timers
ADDRESSES_AT_MOST = 16  # remembered; sending has one, questions about messages in doubt a few


class Transport:
    """Connections to one provider, one for each request or (`keep`) used again soon. Use as an async context manager."""

    def __init__(
        self, *, connections: int, timeout: float, keep: bool = False, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._connections = connections
        self._keep = keep
        self._limit = _TimeLimit(timeout)
        self._connecting = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_SECONDS, timeout))
        self._tls: ssl.SSLContext | bool = ssl_context if ssl_context is not None else True
        self._connector: Lines | None = None
        self._addresses: dict[str, Address] = {}
        self._replied: dict[ResponseHandler, float] = {}  # kept connection that nobody uses -> its last reply

    async def __aenter__(self) -> Transport:
        self._connector = Lines(
            limit=self._connections,
            force_close=not self._keep,
            keepalive_timeout=KEPT_SECONDS if self._keep else None,
            tls=self._tls,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit.close()
        if self._connector is not None:
            await self._connector.close()

    async def send(
        self, request: Request, on_sent: Callable[[], None], leaves: Callable[[], Awaitable[bool]] | None = None
    ) -> Reply | Lost:
        """Send once, never twice. `on_sent` is called when the bytes are being written: in the same step, just before.

        `leaves` is asked before that, when the connection stands: it may wait, and False makes the attempt Lost, unsent.
        A CampaignError that either raises comes out as it is: nothing is written, and the connection is closed.

        Redirects are not followed: a body would be repeated, and the token carried to any host.
        A cancelled task is a Lost attempt as well: what was written cannot be taken back.
        """
        phase = _Phase(self._limit)
        try:
            with phase:
                for _ in range(STALE_AT_MOST):
                    result = await self._attempt(request, phase, on_sent, leaves)
                    if result is not None:
                        return result
                return _STALE
        except asyncio.CancelledError:
            return Lost(phase.sent, "interrupted", "stopped while waiting for the reply")
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            return _lost(error, sent=phase.sent)

    async def _attempt(
        self,
        request: Request,
        phase: _Phase,
        on_sent: Callable[[], None],
        leaves: Callable[[], Awaitable[bool]] | None,
    ) -> Reply | Lost | None:
        """On one connection. None: it cannot be used and nothing was written, another one may be tried."""
        assert self._connector is not None  # noqa: S101 - a programming error, not input
        address = self._address(request.url)
        written = address.written(request, close=not self._keep)
        if written is None:
            return Lost(False, "unsendable", _UNSENDABLE, _UNSENDABLE)
        connection = await self._connector.connect(address.target, [], self._connecting)
        again = False
        protocol = connection.protocol
        assert isinstance(protocol, Line)  # noqa: S101 - it has just been made or given out
        try:
            replied = self._replied.pop(protocol, None)
            if replied is not None:
                await _rested(replied)
            if leaves is not None and not await leaves():
                return _LATE
            if not exchange.is_quiet(protocol):  # last of all, for both waits may have taken their time
                return None
            on_sent()
            phase.sent = True
            exchange.write(protocol, written)
            reply = await exchange.read(protocol)
            again = self._keep and not reply.truncated
            return reply
        finally:
            if again:
                self._keeps(protocol)
                connection.release()
            else:
                connection.close()

    def _address(self, url: str) -> Address:
        address = self._addresses.get(url)
        if address is None:
            if len(self._addresses) >= ADDRESSES_AT_MOST:
                self._addresses.clear()
            address = self._addresses[url] = Address(url, self._tls)
        return address

    def _keeps(self, protocol: ResponseHandler) -> None:
        """Its reply is complete. What the pool has let go meanwhile is forgotten now and then."""
        if len(self._replied) >= 2 * self._connections:
            self._replied = {idle: replied for idle, replied in self._replied.items() if idle.is_connected()}
        self._replied[protocol] = asyncio.get_running_loop().time()


async def _rested(replied: float) -> None:
    """Wait until what follows a reply would have been seen."""
    wait = replied + REST_SECONDS - asyncio.get_running_loop().time()
    if wait > 0:
        await asyncio.sleep(wait)


class _TimeLimit:
    """One limit for every request: a single timer, set for the oldest of them. One for each costs 6 to 10 microseconds more."""

    __slots__ = ("_running", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[_Phase, None] = {}  # in the order in which they end, for all are given the same time
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, phase: _Phase, loop: asyncio.AbstractEventLoop) -> None:
        """From now on it has its time."""
        phase.end = loop.time() + self._seconds
        self._running[phase] = None
        if self._timer is None:
            self._timer = loop.call_at(phase.end, self._sweep, loop)

    def over(self, phase: _Phase) -> bool:
        """It has ended. False: its time had run out."""
        return self._running.pop(phase, self) is None

    def close(self) -> None:
        """Leave no timer behind that nobody needs."""
        if self._timer is not None and not self._running:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._running:
            phase = next(iter(self._running))
            if phase.end > loop.time() + GRAIN:
                self._timer = loop.call_at(phase.end, self._sweep, loop)
                return
            del self._running[phase]
            phase.task.cancel()


class _Phase:
    """How far one request has come. Within a `with` its time is limited, with a TimeoutError as `asyncio.timeout` has it."""

    __slots__ = ("_cancelled", "_limit", "end", "sent", "task")

    def __init__(self, limit: _TimeLimit) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a programming error, not input
        self.sent = False  # the point of no return
        self.end = 0.0
        self.task = task
        self._cancelled = task.cancelling()  # by others, so far
        self._limit = limit

    def __enter__(self) -> None:
        self._limit.begin(self, self.task.get_loop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._limit.over(self):
            return
        others = self.task.uncancel() - self._cancelled
        if kind is asyncio.CancelledError and others <= 0:
            raise TimeoutError


_LATE = Lost(False, LATE, "its turn had passed")
_STALE = Lost(False, "not_connected", "the connection held something before the request was written")
_UNSENDABLE = "a setting (the token?) holds a character that no HTTP header may hold"
_NO_URL = "the provider's address is not a URL"
_BEFORE = (  # class -> word, explanation; the first that fits, so the narrow ones come first
    (aiohttp.ClientConnectorCertificateError, "certificate", "the provider's certificate cannot be trusted"),
    (aiohttp.ClientConnectorSSLError, "tls", "no secure connection could be made"),
    (aiohttp.ClientConnectorDNSError, "dns", "the provider's host name cannot be resolved"),
    (aiohttp.ClientConnectorError, "unreachable", "the provider's host cannot be reached"),
    (TimeoutError, "connect_timeout", "the provider's host does not answer"),
    (aiohttp.InvalidURL, "bad_address", _NO_URL),
)
_AFTER = (
    (aiohttp.ServerDisconnectedError, "connection_lost", "the provider closed the connection without a reply"),
    (aiohttp.ClientOSError, "connection_lost", "the connection broke before a reply came"),
    (aiohttp.ClientPayloadError, "reply_cut", "the reply broke off"),
    (HttpProcessingError, "bad_reply", "the reply is not HTTP that can be read"),
    (TimeoutError, "reply_timeout", "no reply in time"),
)


def _lost(error: BaseException, *, sent: bool) -> Lost:
    for kind, word, explanation in _AFTER if sent else _BEFORE:
        if isinstance(error, kind):
            hopeless = word in {"certificate", "bad_address"}
            return Lost(sent, word, explanation, explanation if hopeless else "")
    word = "connection_lost" if sent else "not_connected"
    return Lost(sent, word, f"{type(error).__name__} {'after' if sent else 'before'} the request was written")
