"""Fetching images over real sockets: honest servers, broken ones, and those that try to lead the fetch astray."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import AddrInfoType, web

from runner.media import ImageVerdict, MediaPolicy, check_images
from runner.mediafetch import Network
from runner.mediaguard import Address, Guard

LIMIT = 5 * 1024 * 1024
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x30\x08\x02\0\0\0\0\0\0\0" + b"\0" * 100 + b"\0\0\0\0IEND\xaeB`\x82"
)
JPEG = (
    b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
    b"\xff\xc0\0\x11\x08\0\x30\0\x40\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xda\0\x02" + b"\x55" * 400 + b"\xff\xd9"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def jpeg_of(size: int) -> bytes:
    return JPEG[:-2] + b"\x55" * (size - len(JPEG)) + b"\xff\xd9"


@dataclass
class Host:
    """A server on the loopback interface, with a list of what it was asked for and when."""

    port: int
    seen: list[web.Request] = field(default_factory=list)
    peers: list[object] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.name}"


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    async def noted(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        host.seen.append(request)
        host.peers.append(request.transport.get_extra_info("peername") if request.transport else None)
        host.at.append(time.monotonic())
        return await handler(request)

    app = web.Application(client_max_size=1)
    app.router.add_route("*", "/{path:.*}", noted)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host = Host(runner.addresses[0][1])
    try:
        yield host
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(answer: bytes | Answer) -> AsyncIterator[Host]:
    """A server that reads the request's head and writes just these bytes, or whatever the function does."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        host.at.append(time.monotonic())
        try:
            await reader.readuntil(b"\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host = Host(server.sockets[0].getsockname()[1])
    try:
        yield host
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


async def check(
    *urls: str,
    allow: Sequence[str | Host] = (),
    policy: MediaPolicy | None = None,
    want_bytes: bool = False,
    network: Network | None = None,
) -> list[ImageVerdict]:
    """The verdicts in the order in which they were decided."""
    chosen = policy or MediaPolicy(per_second=5000, timeout=5)
    hosts = frozenset(each.name if isinstance(each, Host) else each for each in allow)
    chosen = MediaPolicy(
        limit_bytes=chosen.limit_bytes,
        per_second=chosen.per_second,
        concurrency=chosen.concurrency,
        timeout=chosen.timeout,
        redirects=chosen.redirects,
        allow_hosts=hosts,
    )
    verdicts: list[ImageVerdict] = []
    await check_images(
        urls, chosen, clock=lambda: 1.8e9, on_verdict=verdicts.append, want_bytes=want_bytes, network=network
    )
    return verdicts


async def verdict_on(response: Handler, *, want_bytes: bool = False, policy: MediaPolicy | None = None) -> ImageVerdict:
    async with serving(response) as host:
        [verdict] = await check(f"{host.url}/a.jpg", allow=[host], want_bytes=want_bytes, policy=policy)
        assert len(host.seen) == 1
        return verdict


async def verdict_on_bytes(
    answer: bytes | Answer, *, want_bytes: bool = False, policy: MediaPolicy | None = None
) -> ImageVerdict:
    async with answering(answer) as host:
        [verdict] = await check(f"{host.url}/a.jpg", allow=[host], want_bytes=want_bytes, policy=policy)
        assert len(host.at) == 1
        return verdict


def replying(
    body: bytes = b"", mime: str = "image/jpeg", status: int = 200, headers: dict[str, str] | None = None
) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": mime} | (headers or {}))

    return handler


def chunked(body: bytes, mime: str = "image/jpeg") -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": mime})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response

    return handler


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", "Content-Type: image/jpeg", *lines, "")).encode()


def no_socket(info: AddrInfoType) -> socket.socket:
    raise AssertionError(info)


# --- pictures and what is taken for one ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "mime", "name"), [(JPEG, "image/jpeg", "JPEG"), (PNG, "image/png", "PNG")])
async def test_a_jpeg_or_png_is_all_right(body: bytes, mime: str, name: str) -> None:
    for handler in (replying(body, mime), chunked(body, mime)):
        verdict = await verdict_on(handler)
        assert (verdict.ok, verdict.reason, verdict.size, verdict.mime) == (True, "", len(body), mime)
        assert verdict.detail.startswith(f"{name}, 64 x 48, ")
        assert verdict.warnings == ("the address is http, not https: some providers fetch from https only",)
        assert verdict.thumbnail is None


async def test_the_request_bears_no_cookie_token_or_wish_for_compression() -> None:
    async def handler(request: web.Request) -> web.Response:
        response = web.Response(body=JPEG, content_type="image/jpeg")
        response.set_cookie("session", "1")
        return response

    async with serving(handler) as host:
        await check(
            f"{host.url}/1.jpg", f"{host.url}/2.jpg", allow=[host], policy=MediaPolicy(concurrency=1, per_second=500)
        )
        for request in host.seen:
            assert request.method == "GET"
            assert request.headers["Accept-Encoding"] == "identity"
            assert set(request.headers) <= {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}
        assert len(set(host.peers)) == 2, "a connection of its own for each"


async def test_a_web_page_is_named_as_such() -> None:
    verdict = await verdict_on(replying(b"<!DOCTYPE html><html>Sign in</html>", "image/jpeg"))
    assert (verdict.ok, verdict.reason) == (False, "not_an_image")
    assert "web page" in verdict.detail


async def test_the_right_bytes_under_a_wrong_label_are_a_warning() -> None:
    verdict = await verdict_on(replying(JPEG, "text/plain"))
    assert (verdict.ok, verdict.mime) == (True, "image/jpeg")
    assert any("labelled text/plain" in warning for warning in verdict.warnings)


@pytest.mark.parametrize(
    ("status", "reason", "temporary"),
    [
        (404, "not_found", False), (410, "not_found", False), (401, "refused", False), (403, "refused", False),
        (204, "refused", False), (206, "refused", False), (304, "refused", False), (418, "refused", False),
        (429, "busy", True), (503, "busy", True), (500, "server_error", True), (502, "server_error", True),
    ],
)  # fmt: skip
async def test_only_a_plain_200_counts_even_with_a_picture_in_the_body(
    status: int, reason: str, temporary: bool
) -> None:
    verdict = await verdict_on(replying(b"" if status in {204, 304} else JPEG, status=status))
    assert (verdict.ok, verdict.reason, verdict.temporary) == (False, reason, temporary)
    assert str(status) in verdict.detail


async def test_an_empty_file_is_told_from_a_broken_one() -> None:
    assert (await verdict_on(replying(b""))).reason == "empty"
    assert (await verdict_on(chunked(b""))).reason == "empty"


async def test_a_compressed_reply_is_judged_as_the_bytes_that_came() -> None:
    squeezed = gzip.compress(JPEG)
    verdict = await verdict_on(replying(squeezed, headers={"Content-Encoding": "gzip"}))
    assert (verdict.reason, verdict.size) == ("not_an_image", len(squeezed))
    assert "Content-Encoding gzip" in verdict.detail
    assert "gzip-compressed" in (await verdict_on(replying(squeezed))).detail


async def test_a_picture_whose_end_is_missing_is_warned_of() -> None:
    verdict = await verdict_on(replying(JPEG[:-2]))
    assert verdict.ok
    assert any("cut off" in warning for warning in verdict.warnings)


# --- how large -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [replying, chunked])
async def test_five_megabytes_are_all_right_and_one_byte_more_is_too_large(way: Callable[[bytes], Handler]) -> None:
    exact = await verdict_on(way(jpeg_of(LIMIT)))
    assert (exact.ok, exact.size) == (True, LIMIT)
    over = await verdict_on(way(jpeg_of(LIMIT + 1)))
    assert (over.ok, over.reason, over.size) == (False, "too_large", LIMIT + 1)


async def test_an_endless_file_is_read_to_the_limit_only() -> None:
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(head("Connection: close") + JPEG[:-2])
        while True:
            writer.write(b"\x55" * 65536)
            await writer.drain()
            written += 65536

    verdict = await verdict_on_bytes(endless)
    assert verdict.reason == "too_large"
    assert written < 4 * LIMIT


async def test_of_an_endless_page_no_more_than_its_beginning_is_read() -> None:
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(head("Transfer-Encoding: chunked"))
        while True:
            writer.write(b"10000\r\n" + b"<html>" + b" " * 65530 + b"\r\n")
            await writer.drain()
            written += 65536

    verdict = await verdict_on_bytes(endless)
    assert verdict.reason == "not_an_image"
    assert written < LIMIT


async def test_a_length_that_is_declared_too_large_is_believed_without_reading() -> None:
    async def stingy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"Content-Length: {LIMIT + 1}") + jpeg_of(70_000)[:-2])
        await writer.drain()
        await reader.read()

    verdict = await verdict_on_bytes(stingy)
    assert (verdict.reason, verdict.size) == ("too_large", LIMIT + 1)


async def test_a_file_that_says_how_long_it_is_is_not_read_to_its_end() -> None:
    async def stingy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Length: 1000000") + jpeg_of(70_000)[:-2])
        await writer.drain()
        await reader.read()

    verdict = await verdict_on_bytes(stingy)
    assert (verdict.ok, verdict.size) == (True, 1_000_000)


async def test_a_declared_length_that_is_longer_than_the_file_is_a_broken_reply() -> None:
    verdict = await verdict_on_bytes(head("Content-Length: 60000") + JPEG)
    assert (verdict.ok, verdict.reason, verdict.temporary) == (False, "broken_off", True)


async def test_a_declared_length_that_is_shorter_than_the_file_cuts_it_off() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = jpeg_of(LIMIT + 1)
        writer.write(head("Content-Length: 300") + body[:300])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(body[300:])
        await writer.drain()

    verdict = await verdict_on_bytes(late)
    assert (verdict.ok, verdict.size) == (True, 300)
    assert any("cut off" in warning for warning in verdict.warnings)


@pytest.mark.parametrize(
    "lines", [("Content-Length: -5",), ("Content-Length: 10", "Content-Length: 20"), ("Content-Length: x",)]
)
async def test_a_length_that_is_none_is_a_bad_reply(lines: tuple[str, ...]) -> None:
    assert (await verdict_on_bytes(head(*lines) + JPEG)).reason == "bad_reply"


async def test_a_small_picture_is_handed_out_whole_and_a_large_one_is_not() -> None:
    small, large = jpeg_of(200 * 1024), jpeg_of(200 * 1024 + 1)
    for way in (replying, chunked):
        assert (await verdict_on(way(small), want_bytes=True)).thumbnail == small
        verdict = await verdict_on(way(large), want_bytes=True)
        assert (verdict.ok, verdict.size, verdict.thumbnail) == (True, len(large), None)


async def test_what_is_not_a_picture_is_never_handed_out() -> None:
    assert (await verdict_on(replying(b"<html></html>"), want_bytes=True)).thumbnail is None


# --- slow and broken servers -----------------------------------------------------------------------------------------------

QUICK = MediaPolicy(per_second=5000, timeout=0.3)


async def test_a_body_that_drips_is_given_up_when_its_time_is_over() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Length: 1000") + JPEG[:20])
        while True:
            writer.write(b"\x55")
            await writer.drain()
            await asyncio.sleep(0.02)

    began = time.monotonic()
    verdict = await verdict_on_bytes(drip, policy=QUICK)
    assert (verdict.reason, verdict.temporary) == ("slow", True)
    assert time.monotonic() - began < 2


async def test_headers_that_never_come_are_given_up_as_well() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert (await verdict_on_bytes(silent, policy=QUICK)).reason == "slow"


async def test_redirects_share_one_budget_of_time() -> None:
    async def onward(request: web.Request) -> web.Response:
        await asyncio.sleep(0.15)
        return web.Response(status=302, headers={"Location": f"/{len(host.seen)}"})

    async with serving(onward) as host:
        [verdict] = await check(
            f"{host.url}/0", allow=[host], policy=MediaPolicy(per_second=5000, timeout=0.4, redirects=50)
        )
    assert verdict.reason == "slow"
    assert len(host.seen) <= 3


async def test_a_host_that_never_answers_a_look_up_is_given_up() -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return []

    [verdict] = await check("https://cdn.example/", policy=QUICK, network=Network(lookup, no_socket))
    assert verdict.reason == "slow"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "broken_off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "bad_reply"),
        (b"HTTP/1.1 200 OK\r\nContent-Type", "broken_off"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "bad_reply"),
        (head("Transfer-Encoding: chunked") + b"zz\r\n", "bad_reply"),
        (head("Content-Length: 300") + jpeg_of(3000), "bad_reply"),
    ],
)
async def test_a_reply_that_is_no_http_is_a_verdict_like_any_other(answer: bytes, reason: str) -> None:
    verdict = await verdict_on_bytes(answer)
    assert (verdict.ok, verdict.reason) == (False, reason)


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    async with answering(b"") as host:
        pass
    [verdict] = await check(f"{host.url}/a.jpg", allow=[host])
    assert (verdict.reason, verdict.temporary) == ("unreachable", True)


@pytest.mark.parametrize(("code", "reason"), [(socket.EAI_NONAME, "unknown_host"), (socket.EAI_AGAIN, "unreachable")])
async def test_a_name_that_does_not_exist_is_told_from_one_that_cannot_be_looked_up_now(code: int, reason: str) -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(code, "no")

    verdicts = await check(*(f"https://cdn.example/{n}.jpg" for n in range(6)), network=Network(lookup, no_socket))
    assert [verdict.reason for verdict in verdicts] == [reason] * 6


# --- redirects -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_and_warned_of(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/a.jpg":
            return web.Response(status=status, headers={"Location": "b.jpg?x=1"})
        return web.Response(body=JPEG, content_type="image/jpeg")

    async with serving(handler) as host:
        [verdict] = await check(f"{host.url}/a.jpg", allow=[host])
    assert verdict.ok
    assert any("redirected to 127.0.0.1" in warning for warning in verdict.warnings)
    assert [request.path_qs for request in host.seen] == ["/a.jpg", "/b.jpg?x=1"]


async def test_three_redirects_are_followed_and_a_fourth_is_not() -> None:
    async def handler(request: web.Request) -> web.Response:
        left = int(request.path[1:])
        if left:
            return web.Response(status=302, headers={"Location": f"/{left - 1}"})
        return web.Response(body=JPEG, content_type="image/jpeg")

    async with serving(handler) as host:
        [three] = await check(f"{host.url}/3", allow=[host])
        assert (three.ok, len(host.seen)) == (True, 4)
        [four] = await check(f"{host.url}/4", allow=[host])
        assert (four.reason, len(host.seen)) == ("redirected", 8)


async def test_a_circle_of_redirects_ends_at_once() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.path})

    async with serving(handler) as host:
        [verdict] = await check(f"{host.url}/a", allow=[host])
    assert (verdict.reason, len(host.seen)) == ("redirected", 1)
    assert "circle" in verdict.detail


async def test_a_redirect_without_an_address_is_a_verdict() -> None:
    assert (await verdict_on(replying(status=302))).reason == "redirected"


async def test_a_redirect_to_a_page_is_not_an_image() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/a.jpg":
            raise web.HTTPFound("/login")
        return web.Response(text="<html>log in</html>", content_type="text/html")

    async with serving(handler) as host:
        [verdict] = await check(f"{host.url}/a.jpg", allow=[host])
    assert verdict.reason == "not_an_image"
    assert "after a redirect" in verdict.detail


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "127.0.0.1.", "inside.example"]
)
async def test_a_redirect_to_a_private_address_reaches_nobody(spelling: str) -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with serving(replying(JPEG)) as secret:

        async def away(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": f"http://{spelling}:{secret.port}/a.jpg"})

        async with serving(away) as host:
            [verdict] = await check(f"{host.url}/a.jpg", allow=[host], network=Network(lookup))
            assert len(host.seen) == 1
        assert verdict.ok is False
        assert secret.seen == []


# --- names that lead inside ------------------------------------------------------------------------------------------------


def answers(*each: Sequence[str]) -> tuple[Callable[[str, int], Awaitable[Sequence[str]]], list[str]]:
    """A look-up that gives one answer after the other, and what it was asked."""
    asked: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return each[min(len(asked), len(each)) - 1]

    return lookup, asked


@pytest.mark.parametrize(
    "inside",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ],
)
async def test_a_name_that_resolves_to_a_private_address_is_refused_before_any_socket(inside: str) -> None:
    lookup, asked = answers([inside])
    for url in ("https://cdn.example/a.jpg", "http://cdn.example./a.jpg", "https://localhost/a.jpg"):
        [verdict] = await check(url, network=Network(lookup, no_socket))
        assert verdict.reason == "private_address"
    assert len(asked) == 3


async def test_a_name_of_this_machine_is_refused_with_the_systems_own_look_up() -> None:
    [verdict] = await check("http://localhost/a.jpg", network=Network(open_socket=no_socket))
    assert verdict.reason == "private_address"


async def test_a_name_that_turns_private_after_its_check_is_never_connected_to() -> None:
    """DNS rebinding: the address that was checked is the one that a socket is opened for, whatever the next answer is."""
    opened: list[object] = []

    def record(info: AddrInfoType) -> socket.socket:
        opened.append(info[4][0])
        raise OSError("no network in tests")

    lookup, asked = answers(["93.184.215.14"], ["127.0.0.1"])
    [first] = await check("http://rebind.example/a.jpg", network=Network(lookup, record))
    assert (first.reason, opened, asked) == ("unreachable", ["93.184.215.14"], ["rebind.example"])
    [second] = await check("http://rebind.example/a.jpg", network=Network(lookup, record))
    assert (second.reason, len(opened)) == ("private_address", 1)

    lookup, asked = answers(["93.184.215.14"], ["127.0.0.1"])
    await check(*(f"http://rebind.example/{n}.jpg" for n in range(8)), network=Network(lookup, record))
    assert set(opened) == {"93.184.215.14"}


async def test_of_mixed_answers_only_the_public_ones_are_used() -> None:
    opened: list[object] = []

    def record(info: AddrInfoType) -> socket.socket:
        opened.append(info[4][0])
        raise OSError("no network in tests")

    lookup, _ = answers(["127.0.0.1", "2606:2800:21f::1", "10.0.0.1", "93.184.215.14"])
    [verdict] = await check("https://mixed.example/", network=Network(lookup, record))
    assert verdict.reason == "unreachable"
    assert set(opened) == {"2606:2800:21f::1", "93.184.215.14"}


async def test_a_socket_to_a_private_address_is_refused_even_if_the_check_of_the_name_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(self: Guard, host: str, port: int, address: Address) -> None:
        """Refuses nothing while a name is resolved."""
        if host == str(address):
            judge(self, host, port, address)

    judge = Guard.admit
    monkeypatch.setattr(Guard, "admit", blind)
    for inside in ("127.0.0.1", "::1", "169.254.169.254"):
        lookup, _ = answers([inside])
        [verdict] = await check("http://cdn.example/a.jpg", network=Network(lookup, no_socket))
        assert verdict.reason == "private_address"


async def test_an_allowed_name_may_lead_inside_and_another_with_the_same_address_may_not() -> None:
    lookup, _ = answers(["127.0.0.1"])
    async with serving(replying(JPEG)) as host:
        allow = [f"intranet.example:{host.port}"]
        urls = [
            f"http://intranet.example:{host.port}/a.jpg",
            "http://other.example/a.jpg",
            f"http://other.example:{host.port}/",
        ]
        verdicts = {verdict.url: verdict.reason for verdict in await check(*urls, allow=allow, network=Network(lookup))}
        assert [verdicts[url] for url in urls] == ["", "private_address", "bad_url"]
        assert [request.host for request in host.seen] == [f"intranet.example:{host.port}"]


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(replying(JPEG)) as proxy, serving(replying(JPEG)) as host:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        [verdict] = await check(f"{host.url}/a.jpg", allow=[host])
        assert (verdict.ok, len(host.seen), proxy.seen) == (True, 1, [])


# --- many ------------------------------------------------------------------------------------------------------------------


async def test_a_thousand_addresses_are_fetched_once_each_and_not_faster_than_asked() -> None:
    asked: Counter[str] = Counter()

    async def handler(request: web.Request) -> web.Response:
        asked[request.path] += 1
        return web.Response(body=JPEG, content_type="image/jpeg")

    async with serving(handler) as host:
        urls = [f"{host.url}/{n % 1000}.jpg" for n in range(3000)]
        began = time.monotonic()
        verdicts = await check(*urls, allow=[host], policy=MediaPolicy(per_second=800, concurrency=8))
        took = time.monotonic() - began
    assert [verdict.ok for verdict in verdicts] == [True] * 1000
    assert len(asked) == 1000
    assert set(asked.values()) == {1}
    assert took >= 999 / 800


async def test_no_more_are_fetched_at_a_time_than_asked_and_addresses_are_read_as_needed() -> None:
    busy, most, read = 0, 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        assert read <= len(host.seen) + 3
        await asyncio.sleep(0.01)
        busy -= 1
        return web.Response(body=JPEG, content_type="image/jpeg")

    async def urls() -> AsyncIterator[str]:
        nonlocal read
        for n in range(30):
            read += 1
            await asyncio.sleep(0)  # a source that waits must not be asked twice at a time
            yield f"{host.url}/{n}.jpg"

    async with serving(handler) as host:
        verdicts: list[ImageVerdict] = []
        policy = MediaPolicy(per_second=5000, concurrency=3, allow_hosts=frozenset({host.name}))
        await check_images(urls(), policy, clock=lambda: 1.8e9, on_verdict=verdicts.append)
    assert [verdict.ok for verdict in verdicts] == [True] * 30
    assert most == 3


async def test_redirects_are_paced_like_first_requests() -> None:
    async def handler(request: web.Request) -> web.Response:
        left = int(request.query["left"])
        if left:
            return web.Response(status=302, headers={"Location": f"{request.path}?left={left - 1}"})
        return web.Response(body=JPEG, content_type="image/jpeg")

    async with serving(handler) as host:
        urls = [f"{host.url}/{n}?left=3" for n in range(5)]
        await check(*urls, allow=[host], policy=MediaPolicy(per_second=100))
    assert len(host.at) == 20
    assert host.at[-1] - host.at[0] >= 0.18


# --- secure connections ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for cdn.example that nobody has signed, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=cdn.example"
    names = ["-addext", "subjectAltName=DNS:cdn.example", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([openssl, *command.split(), *names], check=True, capture_output=True)
    return chain, key


async def test_a_certificate_is_checked_and_so_is_the_name_in_it(certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    lookup, _ = answers(["127.0.0.1"])
    async with serving(replying(JPEG), server) as host:
        right, wrong = (f"{name}:{host.port}" for name in ("cdn.example", "img.example"))
        [good] = await check(f"https://{right}/a.jpg", allow=[right], network=Network(lookup, tls=trusting))
        assert (good.ok, good.warnings) == (True, ())
        [misnamed] = await check(f"https://{wrong}/a.jpg", allow=[wrong], network=Network(lookup, tls=trusting))
        [unknown] = await check(f"https://{right}/a.jpg", allow=[right], network=Network(lookup))
        assert (misnamed.reason, unknown.reason) == ("certificate", "certificate")
        assert len(host.seen) == 1


async def test_a_redirect_from_https_down_to_http_is_not_followed(certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    lookup, _ = answers(["127.0.0.1"])
    async with serving(replying(JPEG)) as plain:
        away = replying(status=301, headers={"Location": f"{plain.url}/a.jpg"})
        async with serving(away, server) as host:
            name = f"cdn.example:{host.port}"
            [verdict] = await check(f"https://{name}/a.jpg", allow=[name, plain], network=Network(lookup, tls=trusting))
        assert (verdict.reason, plain.seen) == ("redirected", [])
        assert "leaves https" in verdict.detail


async def test_a_server_that_speaks_no_tls_is_a_verdict() -> None:
    async with serving(replying(JPEG)) as host:
        [verdict] = await check(f"https://{host.name}/a.jpg", allow=[host])
        assert verdict.reason == "certificate"
        assert host.seen == []
