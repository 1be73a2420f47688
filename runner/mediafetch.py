"""The guarded fetch of one image: the only file that opens a socket to a host named by the audience.

Between checking a name and connecting to it, its address can change (DNS rebinding). So the check sits inside the resolver that
the connection is made with, the connection goes to the very address that was checked, and every new socket is checked once
more. Redirects are followed by hand, each hop checked like the first address. The session has no token, no cookies and no
proxy, and opens a new connection for each request.

Bounded in bytes and in time whatever the server does. Nothing here prints or keeps an aiohttp exception: its text holds the
address with its query, and signatures stand there.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from runner.mediaformat import HEAD_BYTES, TAIL_BYTES, recognise
from runner.mediaguard import Fault, Guard, RefusedError, Target

HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "campaign-runner (image check)"}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAME_SECONDS = 60  # a host's checked addresses are used again for so long: a thousand images mostly lie on one host

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to IP addresses as text. Raises OSError (socket.gaierror) if there are none."""


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """The operating system's own answer."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [str(address[0]) for *_, address in found]


def system_socket(info: AddrInfoType) -> socket.socket:
    """A plain TCP socket of the right family."""
    return socket.socket(info[0], info[1], info[2])


@dataclass(frozen=True, slots=True)
class Network:
    """What a fetch needs of the outside world, handed in. Without `tls`, the system's own trusted certificates count."""

    lookup: Lookup = system_lookup
    open_socket: Callable[[AddrInfoType], socket.socket] = system_socket
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete 200 reply, as far as it was read."""

    mime: str  # the declared Content-Type without parameters, lower case; "" if there is none
    encoding: str  # the Content-Encoding, "" for none
    declared: int | None  # the Content-Length; None if the reply has none
    size: int  # bytes read
    whole: bool  # the body was read to its end
    head: bytes
    tail: bytes
    body: bytes | None  # if it was asked for, and short enough to keep
    hops: int  # redirects followed
    host: str  # where it came from in the end


class _Resolver(AbstractResolver):
    def __init__(self, guard: Guard, lookup: Lookup, cleared: set[str]) -> None:
        self._guard = guard
        self._lookup = lookup
        self._cleared = cleared

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        name = host.rstrip(".").lower()
        good: list[ResolveResult] = []
        refused: RefusedError | None = None
        for text in await self._lookup(host, port):
            address = ip_address(text.partition("%")[0])  # a zone only stands behind link-local ones, refused anyway
            try:
                self._guard.admit(name, port, address)
            except RefusedError as error:
                refused = error
                continue
            if self._guard.allowed(name, port):
                self._cleared.add(str(address))
            kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
            good.append(
                ResolveResult(
                    hostname=host, host=str(address), port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
                )
            )
        if good:
            return good
        raise refused or socket.gaierror(socket.EAI_NONAME, "no address")

    async def close(self) -> None:
        """Nothing is held open."""


class Fetcher:
    """Fetches images one by one or several at a time. Use as an async context manager.

    `timeout` is the seconds one image may take from the first hop to the last byte, `turn` is awaited before every request
    (the pace; its waiting does not count), `limit` the largest useful size in bytes.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        limit: int,
        timeout: float,
        redirects: int,
        turn: Callable[[], Awaitable[None]],
        network: Network,
    ) -> None:
        self._guard = guard
        self._limit = limit
        self._timeout = timeout
        self._redirects = redirects
        self._turn = turn
        self._network = network
        self._cleared: set[str] = set()  # private addresses that belong to allowed hosts
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Fetcher:
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._guard, self._network.lookup, self._cleared),
            ttl_dns_cache=_NAME_SECONDS,
            ssl=self._network.tls if self._network.tls is not None else True,
            force_close=True,
            limit=0,
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def _socket(self, info: AddrInfoType) -> socket.socket:
        address = str(info[4][0])
        if address not in self._cleared:
            self._guard.admit(address, int(info[4][1]), ip_address(address))
        return self._network.open_socket(info)

    async def fetch(self, target: Target, *, keep: int = 0) -> Fetched:
        """Fetch one image; a body of at most `keep` bytes is kept whole. Raises RefusedError, and nothing else, if it fails."""
        left = self._timeout
        seen = {str(target.url)}
        clock = asyncio.get_running_loop().time
        for hop in range(self._redirects + 1):
            if target.literal is not None and self._guard.allowed(target.host, target.port):
                self._cleared.add(target.host)
            await self._turn()
            began = clock()
            found = await self._hop(target, left, keep, hop)
            left -= clock() - began
            if isinstance(found, Fetched):
                return found
            target = self._guard.follow(target, found)
            if str(target.url) in seen:
                raise RefusedError(Fault.REDIRECTED, "its redirects lead in a circle")
            seen.add(str(target.url))
        raise RefusedError(Fault.REDIRECTED, f"it is redirected more than {self._redirects} times")

    async def _hop(self, target: Target, seconds: float, keep: int, hop: int) -> Fetched | str:
        """One request: the image, or the Location of a redirect."""
        assert self._session is not None  # noqa: S101 - a programming error, not input
        try:
            async with (
                asyncio.timeout(max(0.0, seconds)),
                self._session.get(target.url, allow_redirects=False, middlewares=(_once(),)) as response,
            ):
                try:
                    if response.status in REDIRECTS:
                        return _location(response)
                    _require_ok(response.status)
                    return await self._read(response, target, keep, hop)
                finally:
                    response.close()
        except TimeoutError:
            raise RefusedError(Fault.SLOW, f"not complete within {self._timeout:g} seconds") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _refusal(error) from None

    async def _read(self, response: aiohttp.ClientResponse, target: Target, keep: int, hop: int) -> Fetched:
        """Read as far as a judgement needs: the head of a file that says how long it is, else on until it is too long."""
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        declared = None if chunked else response.content_length
        enough = HEAD_BYTES if declared is not None and not 0 < declared <= keep else self._limit + 1
        kept, tail, size, whole = bytearray(), b"", 0, False
        room = max(HEAD_BYTES, keep)
        while size < enough:
            chunk = await response.content.read(min(HEAD_BYTES, enough - size))
            if not chunk:
                whole = True
                break
            size += len(chunk)
            kept += chunk[: room - len(kept)]
            tail = (tail + chunk)[-TAIL_BYTES:]
            if size >= HEAD_BYTES and recognise(bytes(kept[:HEAD_BYTES])) is None:
                break  # whatever it is, its length does not matter
        whole = whole or size == declared
        body = bytes(kept) if whole and 0 < size <= keep else None
        return Fetched(
            mime=_token(response.headers.get("Content-Type", "").partition(";")[0]),
            encoding=_token(response.headers.get("Content-Encoding", "")).replace("identity", ""),
            declared=declared,
            size=size,
            whole=whole,
            head=bytes(kept[:HEAD_BYTES]),
            tail=tail,
            body=body,
            hops=hop,
            host=target.host,
        )


def _once() -> aiohttp.ClientMiddlewareType:
    """aiohttp sends a GET again by itself if the connection breaks before a reply (measured with 3.14.5: two requests for
    one); that would go past the pace, and double the load on a host in trouble."""
    used = False

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        nonlocal used
        if used:
            raise RefusedError(Fault.BROKEN_OFF, "the server closed the connection without a reply")
        used = True
        return await handler(request)

    return middleware


def _token(value: str) -> str:
    """A header's value, cut down to what may be shown: a hostile server chose it."""
    return re.sub(r"[^a-z0-9!#$&^_.,+/-]", "", value.lower())[:80]


def _location(response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise RefusedError(Fault.REDIRECTED, f"the server redirects (HTTP {response.status}) without saying where to")
    return location


def _require_ok(status: int) -> None:
    if status == 200:
        return
    if status in {404, 410}:
        raise RefusedError(Fault.NOT_FOUND, f"there is nothing at this address (HTTP {status})")
    if status in {429, 503}:
        raise RefusedError(Fault.BUSY, f"the server has no time just now (HTTP {status})")
    if status >= 500:
        raise RefusedError(Fault.SERVER_ERROR, f"the server failed (HTTP {status})")
    if status in {401, 403, 407}:
        raise RefusedError(
            Fault.REFUSED, f"the server wants a login or refuses (HTTP {status}); the image must be public"
        )
    raise RefusedError(Fault.REFUSED, f"the server answers with HTTP {status} and no image")


_KINDS = (  # class -> fault, explanation; the first that fits, so the narrow ones come first
    (aiohttp.ClientConnectorCertificateError, Fault.CERTIFICATE, "the server's certificate cannot be trusted"),
    (aiohttp.ClientSSLError, Fault.CERTIFICATE, "no secure connection can be made"),
    (aiohttp.ClientConnectorDNSError, Fault.UNREACHABLE, "the host's name cannot be looked up just now"),
    (aiohttp.ClientConnectorError, Fault.UNREACHABLE, "the host cannot be reached"),
    (aiohttp.ServerConnectionError, Fault.BROKEN_OFF, "the server closed the connection without a reply"),
    (aiohttp.ClientPayloadError, Fault.BROKEN_OFF, "the reply broke off before its end"),
    (aiohttp.InvalidURL, Fault.BAD_URL, "that is not an address of the web"),
    (aiohttp.ClientResponseError, Fault.BAD_REPLY, "the reply is not HTTP that can be read"),
    (OSError, Fault.BROKEN_OFF, "the connection broke before the end"),
)


def _refusal(error: Exception) -> RefusedError:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        cause = error.os_error
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return RefusedError(Fault.UNKNOWN_HOST, "there is no host of this name")
    for kind, fault, explanation in _KINDS:
        if isinstance(error, kind):
            return RefusedError(fault, explanation)
    return RefusedError(Fault.BAD_REPLY, f"the reply cannot be read ({type(error).__name__})")
