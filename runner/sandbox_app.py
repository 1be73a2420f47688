"""The stand-in provider's web application: reads a request, decides what is done to it, records it, does it."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson
from aiohttp import web

from runner.sandbox_help import help_text
from runner.sandbox_log import Clock, ReceivedLog
from runner.sandbox_scenario import MAGIC, Action, Drop, RuleBook, Scenario, Seconds, Shape, SlidingLimit
from runner.sandbox_vendors import Claim, Vendor, Wapim, Zixflow

WAPIM = "/api/v1/whatsapp"
ZIXFLOW = "/api/v1/campaign"
ELSEWHERE = "/elsewhere"  # where the redirects of 0708 and 0709 point; a request that arrives there stands in the log

_JSON = "application/json"
_HTML = b"<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1></body></html>"
_GATEWAY_TITLES = {502: b"502 Bad Gateway", 503: b"503 Service Temporarily Unavailable", 504: b"504 Gateway Time-out"}
_NO_BODY = frozenset({204, 304})
_LINGER_0 = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How the stand-in provider is run. How it behaves is its `scenario`."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    scenario: Scenario = field(default_factory=Scenario)
    tokens: Set[str] | None = None  # None: any token but the bad ones
    bad_tokens: Set[str] = frozenset({"bad-token"})
    keep_bodies: bool = True  # in the log, in memory and in the file
    log_limit: int | None = None  # entries kept in memory; the totals count all
    log_file: Path | None = None  # appended to, one JSON line a request
    full_headers: bool = False  # credentials unmasked in `Sandbox.log` and the log file
    hang_seconds: float = 120.0  # how long a request that is never answered is held


class _Answer(NamedTuple):
    """What is done to one request, decided before anything is written."""

    action: str
    status: int
    body: bytes
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    drop: Drop | None = None
    latency: Seconds = (0.0, 0.0)
    taken: bool = False
    queue_id: str = ""


class Desk:
    """Answers requests. Keeps the log, the vendors' memories and the counters of the scenario; may outlive a server."""

    def __init__(self, settings: SandboxSettings, clock: Clock) -> None:
        scenario = settings.scenario
        self._settings = settings
        self._scenario = scenario
        self._clock = clock
        self._rng = random.Random(scenario.seed)
        self._wapim = Wapim(
            self._rng, queue_seconds=scenario.queue_seconds, device_offline=scenario.wapim_device_offline
        )
        self._zixflow = Zixflow(self._rng)
        self._rules = RuleBook(scenario.rules)
        self._limit = SlidingLimit(scenario.rate_limit) if scenario.rate_limit else None
        self._once: set[str] = set()
        self._closing = asyncio.Event()
        self.log = ReceivedLog(
            limit=settings.log_limit,
            file=settings.log_file,
            full_headers=settings.full_headers,
            keep_bodies=settings.keep_bodies,
        )

    def app(self) -> web.Application:
        """A new application over this desk."""
        app = web.Application()
        app.on_startup.append(self._open)
        app.on_shutdown.append(self._release)
        app.on_cleanup.append(self._close)
        app.add_routes(
            [
                web.post(f"{WAPIM}/message/image", self._send_wapim),
                web.post(f"{ZIXFLOW}/whatsapp/message/send", self._send_zixflow),
                web.get(f"{WAPIM}/queue", self._wapim_queue, allow_head=False),
                web.delete(f"{WAPIM}/queue", self._wapim_drop_queue),
                web.get(f"{WAPIM}/status", self._wapim_status, allow_head=False),
                web.post(f"{WAPIM}/messages", self._wapim_history),
                web.post(f"{WAPIM}/lastmessages", self._wapim_last),
                web.get(f"{ZIXFLOW}/report/whatsapp/{{message_id}}", self._zixflow_report, allow_head=False),
                web.get("/_sandbox", self._help),
                web.get("/_sandbox/", self._help),
                web.get("/_sandbox/messages", self._messages),
                web.delete("/_sandbox/messages", self._clear),
                web.get("/_sandbox/stats", self._stats),
                web.route("*", "/{path:.*}", self._not_found),
            ]
        )
        return app

    async def _open(self, _: web.Application) -> None:
        self._closing = asyncio.Event()
        self.log.open()

    async def _release(self, _: web.Application) -> None:
        self._closing.set()

    async def _close(self, _: web.Application) -> None:
        self.log.close()

    # --- sends ---

    async def _send_wapim(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._wapim)

    async def _send_zixflow(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._zixflow)

    async def _send(self, request: web.Request, vendor: Vendor) -> web.StreamResponse:
        at_us = self._clock()
        early = self._rules.before_read()
        if early is not None:
            self._record(request, at_us, b"", Claim(()), _Answer(f"rule:{early}", 0, b"", drop=Drop.BEFORE_READ))
            return _closed(request)
        token = vendor.token(request.headers)
        known = self._knows(token)
        # Admitted at arrival, not once the body is in: only so is the window the one a stopwatch at the socket sees.
        wait = self._limit.refuse(token, at_us) if known and self._limit is not None else 0
        body = await self._read(request, at_us, send=True)
        if body is None:
            return _closed(request)
        claim = vendor.judge(body)
        if not known:
            answer = _Answer("unauthorised", 401, vendor.refusal(401))
        elif wait:
            answer = _Answer("rate_limited", 429, vendor.refusal(429), headers=(("Retry-After", str(wait)),))
        elif claim.problems:
            answer = _Answer("invalid", 400, vendor.refusal(400, claim.problems))
        else:
            answer = self._decide(request, vendor, token, claim)
        self._record(request, at_us, body, claim, answer)
        if answer.latency[1]:
            await asyncio.sleep(self._rng.uniform(*answer.latency))
        if answer.drop is not None:
            return await self._drop(request, answer)
        return _response(answer.status, answer.body, answer.content_type, answer.headers)

    def _decide(self, request: web.Request, vendor: Vendor, token: str, claim: Claim) -> _Answer:
        """A request that the vendor's page allows: the scenario's rules, then the magic numbers, then success."""
        latency = self._scenario.latency
        chosen: tuple[str, Action] | None = None
        picked = self._rules.pick(claim.phone)
        if picked is not None:
            number, rule = picked
            latency = rule.latency or latency
            if not rule.only_slows:
                chosen = f"rule:{number}", rule
        if chosen is None and self._scenario.magic and (magic := MAGIC.get(claim.phone[-4:])) is not None:
            if not (magic.first_only and claim.phone in self._once):
                chosen = f"magic:{claim.phone[-4:]}", magic
                latency = magic.latency or latency
            if magic.first_only:
                self._once.add(claim.phone)
        if chosen is None:
            receipt = vendor.take(token, claim, self._clock())
            return _Answer("accepted", 200, receipt.body, latency=latency, taken=True, queue_id=receipt.queue_id)
        name, action = chosen
        # Taken now, before any latency: a client that gives up waiting does not undo it.
        taken = vendor.take(token, claim, self._clock()) if action.takes else None
        status, body, content_type = self._reply(vendor, action, taken.body if taken else b"")
        headers = action.headers
        if 300 <= status < 400 and action.body is None:
            headers = (*headers, ("Location", ELSEWHERE + request.path))
        return _Answer(
            name,
            status if action.drop is None or action.drop is Drop.TRUNCATE else 0,
            body,
            content_type,
            headers,
            action.drop,
            latency,
            taken is not None,
            taken.queue_id if taken else "",
        )

    def _reply(self, vendor: Vendor, action: Action, success: bytes) -> tuple[int, bytes, str]:
        """Status, body and content type of the reply that an action asks for."""
        status = action.status or 200
        if action.body is not None:
            return status, action.body, action.content_type
        if status in _GATEWAY_TITLES:
            return status, _HTML % (_GATEWAY_TITLES[status], _GATEWAY_TITLES[status]), "text/html"
        if status >= 300:
            return status, vendor.refusal(status), _JSON
        match action.shape:
            case Shape.USUAL:
                return status, success, _JSON
            case Shape.STATUS_FALSE:
                return status, vendor.refusal(400), _JSON
            case Shape.NO_PROOF:
                return status, b"{}", _JSON
            case Shape.HTML:
                return status, _HTML % (b"Welcome", b"Welcome"), "text/html"
            case Shape.CUT:
                return status, success[: len(success) // 2], _JSON
            case Shape.EMPTY:
                return status, b"", _JSON

    async def _drop(self, request: web.Request, answer: _Answer) -> web.StreamResponse:
        transport = request.transport
        if answer.drop is Drop.HANG:
            try:
                async with asyncio.timeout(self._settings.hang_seconds):
                    await self._closing.wait()
            except TimeoutError:
                pass  # the bound; the connection is closed without a reply
        elif answer.drop is Drop.TRUNCATE and transport is not None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {_JSON}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
            transport.write(head.encode() + answer.body[: len(answer.body) // 2])
        elif answer.drop is Drop.RESET and transport is not None:
            # Closing a socket that lingers for 0 s sends RST in place of FIN (socket(7), SO_LINGER).
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            transport.abort()
        return _closed(request)

    # --- the vendors' other paths ---

    async def _wapim_queue(self, request: web.Request) -> web.Response:
        return await self._wapim_read(request, lambda token, _, now: self._wapim.queue(token, now))

    async def _wapim_drop_queue(self, request: web.Request) -> web.Response:
        return await self._wapim_read(request, lambda token, _, now: self._wapim.drop_queue(token, now))

    async def _wapim_status(self, request: web.Request) -> web.Response:
        return await self._wapim_read(request, lambda token, _, now: self._wapim.status(token, now))

    async def _wapim_history(self, request: web.Request) -> web.Response:
        return await self._wapim_read(request, self._wapim.history)

    async def _wapim_last(self, request: web.Request) -> web.Response:
        return await self._wapim_read(request, self._wapim.last_messages)

    async def _wapim_read(self, request: web.Request, read: Callable[[str, bytes, int], bytes | None]) -> web.Response:
        token = self._wapim.token(request.headers)
        return await self._other(
            request, self._wapim, token, lambda body: read(token, body, self._clock()), wrong_status=400
        )

    async def _zixflow_report(self, request: web.Request) -> web.Response:
        message_id = request.match_info["message_id"]
        token = self._zixflow.token(request.headers)
        return await self._other(
            request, self._zixflow, token, lambda _: self._zixflow.report(message_id), wrong_status=404
        )

    async def _other(
        self,
        request: web.Request,
        vendor: Vendor,
        token: str,
        read: Callable[[bytes], bytes | None],
        *,
        wrong_status: int,
    ) -> web.Response:
        at_us = self._clock()
        body = await self._read(request, at_us, send=False)
        if body is None:
            return _closed(request)
        known = self._knows(token)
        found = read(body) if known else None
        status = 200 if found is not None else wrong_status if known else 401
        action = "read" if found is not None else "invalid" if known else "unauthorised"
        self._note(request, at_us, body, action, status, send=False)
        return _response(status, found if found is not None else vendor.refusal(status))

    async def _not_found(self, request: web.Request) -> web.Response:
        at_us = self._clock()
        body = await self._read(request, at_us, send=False)
        if body is None:
            return _closed(request)
        self._note(request, at_us, body, "not_found", 404, send=False)
        return _response(404, orjson.dumps({"status": False, "code": 404, "message": "Not Found"}))

    # --- the stand-in's own paths (not logged) ---

    async def _help(self, _: web.Request) -> web.Response:
        return web.Response(text=help_text(WAPIM, ZIXFLOW))

    async def _messages(self, request: web.Request) -> web.Response:
        try:
            since = int(request.query.get("since", "0"))
            limit = int(request.query["limit"]) if "limit" in request.query else None
        except ValueError:
            return web.Response(status=400, text="since and limit must be whole numbers\n")
        if since < 0 or (limit is not None and limit < 0):
            return web.Response(status=400, text="since and limit must be 0 or more\n")
        return _response(200, self.log.as_json(since=since, limit=limit))

    async def _clear(self, _: web.Request) -> web.Response:
        self.log.clear()
        return _response(200, b'{"status":true}')

    async def _stats(self, request: web.Request) -> web.Response:
        try:
            window = float(request.query.get("window", "1"))
        except ValueError:
            window = 0.0
        if not 1e-6 <= window <= 1e6:
            return web.Response(status=400, text="window must be a number of seconds above 0\n")
        return _response(200, orjson.dumps(self.log.stats(window), option=orjson.OPT_NON_STR_KEYS))

    # --- shared ---

    def _knows(self, token: str) -> bool:
        tokens = self._settings.tokens
        return bool(token) and token not in self._settings.bad_tokens and (tokens is None or token in tokens)

    async def _read(self, request: web.Request, at_us: int, *, send: bool) -> bytes | None:
        """The whole body; None (and a log entry) if the client went away before it was in."""
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            self._note(request, at_us, b"", "too_big", 413, send=send)
            raise
        except asyncio.CancelledError:
            self._note(request, at_us, b"", "incomplete", 0, send=send)
            raise
        except (OSError, web.RequestPayloadError):
            self._note(request, at_us, b"", "incomplete", 0, send=send)
            return None

    def _note(self, request: web.Request, at_us: int, body: bytes, action: str, status: int, *, send: bool) -> None:
        self.log.add(
            at_us=at_us,
            method=request.method,
            path=request.raw_path,
            headers=request.raw_headers,
            body=body,
            action=action,
            status=status,
            send=send,
        )

    def _record(self, request: web.Request, at_us: int, body: bytes, claim: Claim, answer: _Answer) -> None:
        self.log.add(
            at_us=at_us,
            method=request.method,
            path=request.raw_path,
            headers=request.raw_headers,
            body=body,
            phone=claim.phone,
            action=answer.action,
            status=answer.status,
            accepted=answer.taken,
            queue_id=answer.queue_id,
            send=True,
        )


def _response(
    status: int, body: bytes, content_type: str = _JSON, headers: tuple[tuple[str, str], ...] = ()
) -> web.Response:
    if status in _NO_BODY:
        return web.Response(status=status, headers=headers or None)
    return web.Response(status=status, body=body, content_type=content_type, headers=headers or None)


def _closed(request: web.Request) -> web.Response:
    """Closes the connection. aiohttp wants a response nevertheless and lets it fall: the transport is closing."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()
