"""The wire: what may have been sent is told by the phase reached, against a server that misbehaves byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from faultserver import FAULTS, OK_BODY, Connection, FaultServer
from machine import crowd

import runner.transport
from runner.errors import LedgerError
from runner.exchange import REPLY_LIMIT
from runner.model import Lost, Reply, Request
from runner.transport import KEPT_SECONDS, Transport

TOKEN = "invented-token-5519"
BODY = b'{"phone_number":"905320000001","caption":"Hello"}'


def request(url: str, token: str = TOKEN) -> Request:
    return Request("POST", url, {"token": token, "Content-Type": "application/json"}, BODY)


async def send(
    url: str, *, timeout: float = 0.5, ssl_context: ssl.SSLContext | None = None
) -> tuple[Reply | Lost, list[float]]:
    """One request on a transport of its own: what came of it, and when its bytes were said to be written."""
    sent: list[float] = []
    async with Transport(connections=1, timeout=timeout, ssl_context=ssl_context) as transport:
        result = await transport.send(request(url), lambda: sent.append(asyncio.get_running_loop().time()))
    return result, sent


@pytest.fixture(autouse=True, params=[False, True], ids=["used_once", "kept"])
def keep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test here is run with connections that are used once and with kept ones."""
    monkeypatch.setitem(globals(), "Transport", partial(runner.transport.Transport, keep=request.param))
    return bool(request.param)


@pytest.fixture(autouse=True)
def _nothing_secret_is_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """In every test here: no log line at any level, nothing on the terminal, holds the token."""
    caplog.set_level(logging.DEBUG)
    yield
    gc.collect()  # 'exception was never retrieved' is said when the task is collected
    said = caplog.text + "".join(repr(record.__dict__) for record in caplog.records) + "".join(capfd.readouterr())
    assert TOKEN not in said


# --- before anything is sent ------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_a_refused_connection_was_not_sent() -> None:
    result, sent = await send(f"http://127.0.0.1:{free_port()}/send")
    assert result == Lost(False, "unreachable", "the provider's host cannot be reached")
    assert sent == []


async def test_a_name_that_does_not_resolve_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_args: object, **_kwargs: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    result, sent = await send("http://provider.invalid/send")
    assert result == Lost(False, "dns", "the provider's host name cannot be resolved")
    assert sent == []


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """A port on which connecting takes for ever: nobody accepts, and no more may queue (Linux drops their SYN)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        yield int(listener.getsockname()[1])
        for client in waiting:
            client.close()


async def test_a_host_that_does_not_answer_was_not_sent_to(full_backlog: int) -> None:
    result, sent = await send(f"http://127.0.0.1:{full_backlog}/send", timeout=0.3)
    assert result == Lost(False, "connect_timeout", "the provider's host does not answer")
    assert sent == []


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/send", "http:///send", "http://[::1/send"])
async def test_an_address_that_is_none_stops_everything(url: str) -> None:
    result, sent = await send(url)
    assert isinstance(result, Lost)
    assert (result.sent, result.kind, sent) == (False, "bad_address", [])
    assert result.stop == "the provider's address is not a URL"


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Evil: 1", "a\0b", "a\x7fb", "a\tb"], ids=repr)
async def test_a_token_that_no_header_can_hold_stops_everything_unsent(token: str) -> None:
    """aiohttp finds it after its hook 'headers sent': every recipient would become unknown."""
    async with FaultServer() as server, Transport(connections=1, timeout=1) as transport:
        result = await transport.send(request(server.url, token), pytest.fail)
        assert isinstance(result, Lost)
        assert (result.sent, result.kind) == (False, "unsendable")
        assert "(the token?)" in result.stop
        assert server.received == []


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine that nobody has signed, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_that_nobody_signed_stops_everything_unsent(server_tls: ssl.SSLContext) -> None:
    async with FaultServer(tls=server_tls) as server:
        result, sent = await send(server.url.replace("127.0.0.1", "localhost"), timeout=5)
        assert isinstance(result, Lost)
        assert (result.sent, result.kind, sent) == (False, "certificate", [])
        assert result.stop == "the provider's certificate cannot be trusted"
        assert server.received == []


async def test_a_certificate_of_another_host_stops_everything_unsent(
    server_tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    async with FaultServer(tls=server_tls) as server:
        result, _ = await send(server.url, timeout=5, ssl_context=trusting)  # 127.0.0.1, not localhost
        assert isinstance(result, Lost)
        assert (result.sent, result.kind) == (False, "certificate")
        assert server.received == []
        good, sent = await send(server.url.replace("127.0.0.1", "localhost"), timeout=5, ssl_context=trusting)
        assert isinstance(good, Reply)
        assert len(sent) == 1


async def _fin(connection: Connection) -> None:
    connection.fin()


async def _rst(connection: Connection) -> None:
    connection.rst()


async def _plain(connection: Connection) -> None:
    await connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.fin()


async def _silent(connection: Connection) -> None:
    await connection.hang()


@pytest.mark.parametrize(
    ("behave", "kinds"),
    [
        (_fin, {"tls", "unreachable"}),
        (_rst, {"tls", "unreachable"}),
        (_plain, {"tls"}),
        (_silent, {"connect_timeout"}),
    ],
    ids=["fin", "rst", "plain port", "hang"],
)
async def test_a_handshake_that_fails_was_not_sent(behave: object, kinds: set[str]) -> None:
    assert callable(behave)
    async with FaultServer(behave) as server:
        result, sent = await send(server.url.replace("http:", "https:"), timeout=0.5)
    assert isinstance(result, Lost)
    assert not result.sent
    assert result.kind in kinds
    assert (result.stop, sent) == ("", [])


# --- after something may have been sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.status is None])
async def test_without_a_whole_reply_the_attempt_is_lost_and_may_have_been_sent(name: str) -> None:
    async with FaultServer(name) as server:
        result, sent = await send(server.url)
        assert isinstance(result, Lost)
        assert result.sent
        assert result.kind in FAULTS[name].kinds, result
        assert result.stop == ""
        assert len(sent) == 1
        assert result.detail
        assert TOKEN not in repr(result)
        await asyncio.sleep(0.05)
        assert len(server.received) <= 1  # nothing is sent a second time
        assert server.accepted == 1


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.status is not None])
async def test_a_whole_reply_is_a_reply_whatever_it_says(name: str) -> None:
    async with FaultServer(name) as server:
        result, sent = await send(server.url, timeout=5)
        assert isinstance(result, Reply)
        assert result.status == FAULTS[name].status
        assert len(sent) == 1
        assert len(server.received) == 1
        assert server.received[0].body == BODY
        assert len(result.body) <= REPLY_LIMIT


async def test_every_fault_of_one_transport_is_its_own() -> None:
    """A connection that was spoilt is not used again, and the next request goes through."""
    names = [name for name in FAULTS if name not in {"endless_body"}]
    async with FaultServer(*names, "ok") as server, Transport(connections=1, timeout=0.4) as transport:
        for _ in range(3 * len(names)):
            before = len(server.received)
            result = await transport.send(request(server.url), lambda: None)
            assert len(server.received) - before <= 1
            if isinstance(result, Reply) and server.accepted > len(names):
                break
        assert isinstance(result, Reply)
        assert result.body == OK_BODY


# --- what is sent, and what is kept -----------------------------------------------------------------------------------


async def test_the_request_goes_out_as_it_is() -> None:
    async with FaultServer() as server:
        result, _ = await send(server.url)
        assert result == Reply(
            200, {"content-type": "application/json", "content-length": str(len(OK_BODY))}, OK_BODY, truncated=False
        )
        (received,) = server.received
        assert received.head.startswith(b"POST /send HTTP/1.1\r\n")
        assert received.header("token") == TOKEN
        assert received.header("accept-encoding") == "identity"
        assert received.header("user-agent") is None
        assert received.body == BODY


async def test_every_request_has_its_own_head() -> None:
    """The last one is remembered; neither another token, nor another method, nor a dictionary that was changed gets it."""
    headers = {"token": TOKEN}
    async with FaultServer() as server, Transport(connections=1, timeout=1) as transport:
        for method, body in [("POST", BODY), ("POST", BODY * 2), ("POST", b""), ("GET", b""), ("GET", BODY)]:
            headers["token"] += "x"
            await transport.send(Request(method, server.url, headers, body), lambda: None)
            await transport.send(Request(method, server.url, dict(headers), body), lambda: None)
            for received in server.received[-2:]:
                assert received.head.startswith(method.encode())
                assert received.header("token") == headers["token"]
                assert received.header("content-length") == (None if (method, body) == ("GET", b"") else str(len(body)))
                assert received.body == body
        headers["token"] = "a\nb"
        assert isinstance(await transport.send(Request("POST", server.url, headers, BODY), pytest.fail), Lost)
        assert len(server.received) == 10


async def test_the_token_is_in_no_representation() -> None:
    shown = request("http://127.0.0.1/send")
    assert TOKEN not in repr(shown) + str(shown)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with FaultServer() as elsewhere:

        async def redirect(connection: Connection) -> None:
            while await connection.request() is not None:
                await connection.reply(b"", f"{status} Go", f"Location: {elsewhere.url}\r\n")

        async with FaultServer(redirect) as server:
            result, _ = await send(server.url)
            assert isinstance(result, Reply)
            assert (result.status, result.headers["location"]) == (status, elsewhere.url)
            await asyncio.sleep(0.05)
            assert len(server.received) == 1
        assert (elsewhere.accepted, elsewhere.received) == (0, [])


@pytest.mark.parametrize("size", [REPLY_LIMIT - 1, REPLY_LIMIT, REPLY_LIMIT + 1, 3 * REPLY_LIMIT])
async def test_a_reply_is_read_up_to_its_limit(size: int) -> None:
    async def reply(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.reply(b"x" * size)

    async with FaultServer(reply) as server:
        result, _ = await send(server.url)
    assert isinstance(result, Reply)
    assert (len(result.body), result.truncated) == (min(size, REPLY_LIMIT), size > REPLY_LIMIT)


async def test_a_reply_without_end_is_cut_off_soon() -> None:
    async with FaultServer("endless_body") as server:
        result, _ = await send(server.url, timeout=5)
        await asyncio.sleep(0.05)
        written = server.written
        await asyncio.sleep(0.05)
        assert isinstance(result, Reply)
        assert result.truncated
        assert server.written == written  # it could not go on: the connection is closed
        assert written < 30_000_000  # what fits into the buffers of the two sockets


async def test_a_compressed_reply_is_not_inflated() -> None:
    async with FaultServer("gzip_bomb") as server:
        result, _ = await send(server.url)
    assert isinstance(result, Reply)
    assert result.body.startswith(b"\x1f\x8b")
    assert len(result.body) < REPLY_LIMIT


async def test_a_cookie_is_not_sent_back() -> None:
    async def reply(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.reply(headers="Set-Cookie: session=1; Path=/\r\n")

    async with FaultServer(reply) as server, Transport(connections=1, timeout=1) as transport:
        for _ in range(2):
            await transport.send(request(server.url), lambda: None)
        assert [received.header("cookie") for received in server.received] == [None, None]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer() as proxy, FaultServer() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/send"))
        result, _ = await send(server.url)
        assert isinstance(result, Reply)
        assert proxy.accepted == 0


# --- stopped ----------------------------------------------------------------------------------------------------------


async def test_a_cancelled_request_may_have_been_sent() -> None:
    async with FaultServer("hang_after_request") as server, Transport(connections=1, timeout=30) as transport:
        written = asyncio.Event()
        task = asyncio.create_task(transport.send(request(server.url), written.set))
        await written.wait()
        task.cancel()
        result = await task
        assert result == Lost(True, "interrupted", "stopped while waiting for the reply")


async def test_a_request_cancelled_while_it_connects_was_not_sent(full_backlog: int) -> None:
    async with Transport(connections=1, timeout=30) as transport:
        task = asyncio.create_task(transport.send(request(f"http://127.0.0.1:{full_backlog}/send"), pytest.fail))
        await asyncio.sleep(0.05)
        task.cancel()
        result = await task
        assert isinstance(result, Lost)
        assert (result.sent, result.kind) == (False, "interrupted")


async def test_a_request_cancelled_in_the_middle_of_a_reply_may_have_been_sent() -> None:
    async with FaultServer("slow_body") as server, Transport(connections=1, timeout=30) as transport:
        task = asyncio.create_task(transport.send(request(server.url), lambda: None))
        await asyncio.sleep(0.3)
        task.cancel()
        result = await task
        assert isinstance(result, Lost)
        assert result.sent


async def test_a_task_that_was_stopped_before_may_still_run_out_of_time() -> None:
    """As the engine's workers do, it has taken no notice of that; what is taken back is what the limit has asked for."""

    async def stopped_before(transport: Transport, url: str) -> tuple[Reply | Lost, int]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await transport.send(request(url), lambda: None), task.cancelling()

    async with FaultServer("hang_after_request") as server, Transport(connections=1, timeout=0.1) as transport:
        result, cancelling = await asyncio.create_task(stopped_before(transport, server.url))
    assert result == Lost(True, "reply_timeout", "no reply in time")
    assert cancelling == 1


@pytest.mark.parametrize("both", [False, True], ids=["time alone", "and stopped"])
async def test_who_is_stopped_just_after_the_time_ran_out_is_interrupted(both: bool) -> None:
    class Stopping(asyncio.Task[Reply | Lost]):
        def cancel(self, msg: object = None) -> bool:
            return super().cancel() and (not both or super().cancel())

    async with FaultServer("hang_after_request") as server, Transport(connections=1, timeout=0.1) as transport:
        task = Stopping(transport.send(request(server.url), lambda: None))
        result = await task
    assert isinstance(result, Lost)
    assert (result.sent, result.kind) == (True, "interrupted" if both else "reply_timeout")
    assert task.cancelling() == int(both)


async def test_each_request_has_its_own_time_however_many_have_begun() -> None:
    async with FaultServer("hang_after_request") as server, Transport(connections=9, timeout=0.2) as transport:
        loop = asyncio.get_running_loop()

        async def one(after: float) -> float:
            await asyncio.sleep(after)
            began = loop.time()
            result = await transport.send(request(server.url), lambda: None)
            assert isinstance(result, Lost)
            assert result.kind == "reply_timeout"
            return loop.time() - began

        took = await asyncio.gather(*(one(0.03 * i) for i in range(9)))
        again = await one(0.1)  # after a moment in which none was under way
    assert all(0.19 <= seconds < 0.2 + 0.1 * crowd() for seconds in [*took, again]), took


# --- said to be sent --------------------------------------------------------------------------------------------------


async def test_nothing_is_written_when_the_caller_cannot_note_that_it_is() -> None:
    """Its error comes out as it is, and the connection is closed: the server sees nothing but that."""

    def fails() -> None:
        raise LedgerError("the disk is full")

    async with FaultServer() as server, Transport(connections=1, timeout=5) as transport:
        for _ in range(2):
            with pytest.raises(LedgerError, match="the disk is full"):
                await transport.send(request(server.url), fails)
        await asyncio.sleep(0.05)
        assert (server.accepted, server.received) == (2, [])
        assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
        assert (server.accepted, len(server.received)) == (3, 1)


async def test_a_kept_connection_is_closed_as_well_when_the_caller_fails() -> None:
    def fails() -> None:
        raise LedgerError("the disk is full")

    async with FaultServer() as server, Transport(connections=1, timeout=5) as transport:
        for _ in range(2):
            assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
        before = server.accepted
        with pytest.raises(LedgerError):
            await transport.send(request(server.url), fails)
        assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
        assert (server.accepted > before, len(server.received)) == (True, 3)


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_connection_is_used_once_unless_told_to_keep_it(keep: bool) -> None:
    async with FaultServer() as server, Transport(connections=2, timeout=1) as transport:
        for _ in range(5):
            assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
        assert server.accepted == (1 if keep else 5)
        await asyncio.sleep(KEPT_SECONDS + 0.05)
        assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
        assert server.accepted == (2 if keep else 6), "kept for too long"


async def test_connections_that_were_let_go_are_forgotten(keep: bool) -> None:
    async with FaultServer("close_after_reply") as server:
        async with Transport(connections=2, timeout=1) as transport:
            for _ in range(20):
                assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
                await asyncio.sleep(0.005)
            assert len(transport._replied) <= (4 if keep else 0)
        assert server.accepted == 20


@pytest.mark.parametrize("idle", [False, True], ids=["with the reply", "while it is idle"])
async def test_a_second_reply_is_not_taken_for_the_next_ones(idle: bool) -> None:
    said = asyncio.Event()

    async def twice(connection: Connection) -> None:
        while (received := await connection.request()) is not None:
            first, second = received.path.encode(), b"a second answer"
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
            replies = [head % len(first) + first, head % len(second) + second]
            await connection.write(*(replies if idle else [b"".join(replies)]), pause=0.05 if idle else 0.0)
            said.set()

    async with FaultServer(twice) as server, Transport(connections=1, timeout=1) as transport:
        for i in range(10):
            reply = await transport.send(request(f"{server.url}/{i}"), lambda: None)
            assert isinstance(reply, Reply)
            assert reply.body == f"/send/{i}".encode()
            await said.wait()
            said.clear()
        assert len(server.received) == 10


async def test_a_method_that_may_be_repeated_is_not() -> None:
    """aiohttp sends PUT again by itself when a kept connection breaks."""

    async def dies_with_the_second(connection: Connection) -> None:
        await connection.request()
        await connection.reply()
        if await connection.request() is not None:
            connection.rst()

    async with FaultServer(dies_with_the_second) as server, Transport(connections=1, timeout=1) as transport:
        for i in range(4):
            put = Request("PUT", f"{server.url}/{i}", {"Content-Type": "application/json"}, BODY)
            await transport.send(put, lambda: None)
        assert [received.path for received in server.received] == [f"/send/{i}" for i in range(4)]


async def test_a_kept_connection_waits_for_its_turn_and_is_looked_at_again() -> None:
    """`leaves` may take its time, and the server lets go meanwhile: nothing is written there, the next connection is used."""

    async def lets_go(connection: Connection) -> None:
        await connection.request()
        await connection.reply()
        await asyncio.sleep(0.1)
        connection.fin()

    async def turn() -> bool:
        await asyncio.sleep(0.2)
        return True

    asked: list[Callable[[], Awaitable[bool]] | None] = [None, turn]
    async with FaultServer(lets_go) as server, Transport(connections=1, timeout=2) as transport:
        for leaves in asked:
            assert isinstance(await transport.send(request(server.url), lambda: None, leaves), Reply)
        assert len(server.received) == len(asked)


async def test_a_connection_closed_by_the_server_is_not_used_again() -> None:
    async with FaultServer("close_after_reply") as server, Transport(connections=2, timeout=1) as transport:
        for _ in range(10):
            assert isinstance(await transport.send(request(server.url), lambda: None), Reply)
            await asyncio.sleep(0.01)
        assert len(server.received) == 10


async def test_many_at_once_each_get_their_own_reply() -> None:
    async def echo(connection: Connection) -> None:
        while (received := await connection.request()) is not None:
            await connection.reply(received.path.encode())

    async with FaultServer(echo) as server, Transport(connections=20, timeout=5) as transport:
        urls = [f"{server.url}/{i}" for i in range(60)]
        replies = await asyncio.gather(*(transport.send(request(url), lambda: None) for url in urls))
        assert [reply.body.decode() for reply in replies if isinstance(reply, Reply)] == [
            f"/send/{i}" for i in range(60)
        ]
        assert server.accepted <= 60


async def test_a_reply_says_when_it_came_not_when_it_was_read() -> None:
    """Two replies come together; whoever reads the first keeps the loop busy for a while."""
    waiting: list[Connection] = []
    answered = asyncio.Event()

    async def together(connection: Connection) -> None:
        await connection.request()
        waiting.append(connection)
        if len(waiting) == 2:
            for each in waiting:
                await each.reply()
            answered.set()
        await answered.wait()

    async def age(transport: Transport, url: str) -> float:
        reply = await transport.send(request(url), lambda: None)
        assert isinstance(reply, Reply)
        assert reply.came_at is not None
        read_at = time.monotonic()
        time.sleep(0.1)
        return read_at - reply.came_at

    async with FaultServer(together) as server, Transport(connections=2, timeout=5) as transport:
        ages = await asyncio.gather(*(age(transport, server.url) for _ in range(2)))
    assert max(ages) >= 0.1
    assert min(ages) < 0.1


async def test_an_error_of_the_library_would_have_shown_the_token() -> None:
    """Why nothing keeps or prints an exception of aiohttp: this one carries the request's headers."""
    async with FaultServer("garbage") as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.post(server.url, headers={"token": TOKEN})
        assert TOKEN in repr(caught.value)
        assert caught.value.status == 400  # made up: no provider said so
