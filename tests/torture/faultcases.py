"""The matrix: what a provider may answer to a whole request, and what it proves (RFC 9110 and the vendors' pages)."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass

from faults import answer, say
from faultserver import Behaviour, Connection

ACCEPTED, REJECTED, NOT_SENT, UNKNOWN = "accepted", "rejected", "not_sent", "unknown"
PROOF = b'{"queue_message_id":"q-77","message":"queued"}'
REFUSAL = b'{"status":false,"message":"No such number"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(PROOF) + PROOF
SHORT = 0.6  # seconds that a request may take where the provider is silent
GIGABYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class Case:
    """One way of answering. `rows`: so many recipients get it; `wait`: seconds after which the next attempt may be, at least."""

    behave: Behaviour
    verdict: str
    reason: str
    stops: bool = False
    rows: int = 3
    timeout: float = 5.0
    wait: float = 0.0


def _lost(behave: Behaviour, reason: str, timeout: float = 5.0) -> Case:
    return Case(behave, UNKNOWN, reason, timeout=timeout)


def _stop(status: str, verdict: str, reason: str) -> Case:
    return Case(answer(status, b'{"status":false}'), verdict, reason, stops=True, rows=1)


def _429(headers: str, wait: float = 0.0) -> Case:
    return Case(answer("429 Too Many Requests", b"{}", headers), NOT_SENT, "rate_limited", wait=wait)


async def _gigabyte(connection: Connection) -> None:
    await connection.write(HEAD + b"Content-Length: %d\r\n\r\n" % GIGABYTE)
    block = b"x" * 65536
    for _ in range(GIGABYTE // len(block)):
        await connection.write(block)
        connection.server.written += len(block)


def encoded(coding: str, body: bytes) -> Behaviour:
    """A 200 whose body claims this coding."""
    return answer("200 OK", body, f"Content-Encoding: {coding}\r\n")


_BOMB = gzip.compress(b"\0" * (1 << 20)) * 1024  # 1 MB on the wire, 1 GB when unpacked
_DATE = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nRetry-After: "
_INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BYTES = tuple(bytes([byte]) for byte in WHOLE)
_BEFORE_BODY = WHOLE[: -len(PROOF)]

STATUSES: Mapping[str, Case] = {
    "200 with proof": Case(answer("200 OK", PROOF), ACCEPTED, ""),
    "200 without proof": Case(answer("200 OK", b'{"message":"queued"}'), UNKNOWN, "no_proof"),
    "200 status false": Case(answer("200 OK", REFUSAL), REJECTED, "refused"),
    "200 a page": Case(answer("200 OK", b"<html>welcome</html>"), UNKNOWN, "bad_reply"),
    "200 empty": Case(answer("200 OK"), UNKNOWN, "no_proof"),
    "200 half a JSON": Case(answer("200 OK", PROOF[:20]), UNKNOWN, "bad_reply"),
    "200 an id of 60 KB": Case(answer("200 OK", b'{"queue_message_id":"%s"}' % (b"q" * 60_000)), UNKNOWN, "no_proof"),
    "200 a key twice": Case(answer("200 OK", PROOF[:-1] + b',"queue_message_id":"q-2"}'), UNKNOWN, "bad_reply"),
    "201 with proof": Case(answer("201 Created", PROOF), ACCEPTED, ""),
    "202 without proof": Case(answer("202 Accepted", b"{}"), UNKNOWN, "no_proof"),
    "204": Case(answer("204 No Content"), UNKNOWN, "no_proof"),
    **{f"{code}": _stop(f"{code} Moved", UNKNOWN, "redirected") for code in (301, 302, 303)},
    "304": Case(answer("304 Not Modified"), UNKNOWN, "unexpected_status"),
    **{f"{code}": _stop(f"{code} Moved", NOT_SENT, "redirected") for code in (307, 308)},
    "400": Case(answer("400 Bad Request", REFUSAL), REJECTED, "bad_request"),
    "400 with the body of a success": Case(answer("400 Bad Request", PROOF), REJECTED, "bad_request"),
    "401": _stop("401 Unauthorized", REJECTED, "unauthorised"),
    "402": _stop("402 Payment Required", REJECTED, "payment_required"),
    "403": _stop("403 Forbidden", REJECTED, "forbidden"),
    "404": _stop("404 Not Found", REJECTED, "endpoint_missing"),
    "408": Case(answer("408 Request Timeout", b"{}"), UNKNOWN, "request_timeout"),
    "409": Case(answer("409 Conflict", b"{}"), UNKNOWN, "conflict"),
    "413": Case(answer("413 Content Too Large", b'{"error":"Max. 5mb"}'), REJECTED, "image_too_large"),
    "422": Case(answer("422 Unprocessable Content", REFUSAL), REJECTED, "bad_request"),
    "429 seconds": _429("Retry-After: 7\r\n", 7),
    "429 date": _429(_DATE + "Thu, 01 Jan 2026 00:00:09 GMT\r\n", 9),
    "429 past date": _429(_DATE + "Wed, 31 Dec 2025 23:00:00 GMT\r\n"),
    "429 10^12": _429("Retry-After: 1000000000000\r\n"),
    "429 junk": _429("Retry-After: soon; drop table\r\n"),
    "429 without a wait": _429(""),
    "429 with the body of a success": Case(answer("429 Too Many Requests", PROOF), NOT_SENT, "rate_limited"),
    **{
        f"{code}": Case(answer(f"{code} Oops", b"<html></html>"), UNKNOWN, "server_error")
        for code in (500, 502, 503, 504)
    },
    "503 with a wait": Case(answer("503 Busy", b"{}", "Retry-After: 1\r\n"), UNKNOWN, "server_error"),
    "500 with the body of a success": Case(answer("500 Oops", PROOF), UNKNOWN, "server_error"),
    "501": _stop("501 Not Implemented", REJECTED, "unsupported"),
    "520": Case(answer("520 Web Server Returned an Unknown Error", b"<html></html>"), UNKNOWN, "server_error"),
    "999": Case(answer("999 Request Denied", b"{}"), UNKNOWN, "unexpected_status"),
}

WIRE: Mapping[str, Case] = {
    "closed after the request": _lost(say(end="fin"), "connection_lost"),
    "reset after the request": _lost(say(end="rst"), "connection_lost"),
    "silence": _lost(say(end="hang"), "reply_timeout", SHORT),
    "half a head, reset": _lost(say(HEAD, end="rst"), "connection_lost"),
    "half a body, closed": _lost(say(WHOLE[:-9], end="fin"), "reply_cut"),
    "half a body, silence": _lost(say(WHOLE[:-9], end="hang"), "reply_timeout", SHORT),
    "a byte a second in the head": _lost(say(*_BYTES, pause=1.0), "reply_timeout", 2.2),
    "a byte a second in the body": _lost(say(_BEFORE_BODY, *_BYTES, pause=1.0), "reply_timeout", 2.2),
    "garbage for a status line": _lost(say(b"+OK queued, thank you\r\n\r\n", end="fin"), "bad_reply"),
    "no status line": _lost(say(PROOF, end="fin"), "bad_reply"),
    "binary": _lost(say(bytes(range(256)) * 4, end="fin"), "bad_reply"),
    "20 KB header": _lost(say(HEAD + b"X: " + b"x" * 20_000 + WHOLE[len(HEAD) - 2 :]), "bad_reply"),
    "two Content-Length": _lost(say(HEAD + b"Content-Length: 5\r\n" + WHOLE[len(HEAD) :]), "bad_reply"),
    "negative Content-Length": _lost(say(HEAD + b"Content-Length: -1\r\n\r\n" + PROOF), "bad_reply"),
    "cut chunk": _lost(say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2e\r\n" + PROOF[:9], end="fin"), "reply_cut"),
    "no last chunk": _lost(
        say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2e\r\n" + PROOF + b"\r\n", end="fin"), "reply_cut"
    ),
    "1 GB body": Case(_gigabyte, UNKNOWN, "bad_reply"),
    "gzip bomb": Case(encoded("gzip", _BOMB), UNKNOWN, "bad_reply"),
    "60,000 empty gzip members": Case(encoded("gzip", gzip.compress(b"") * 60_000), UNKNOWN, "bad_reply"),
    "gzip, not asked for": Case(encoded("gzip", gzip.compress(PROOF)), UNKNOWN, "bad_reply"),
    "unknown coding": Case(encoded("x-rot13", b"\xff\xfe?"), UNKNOWN, "bad_reply"),
    "coding twice": Case(encoded("gzip, gzip", gzip.compress(gzip.compress(PROOF))), UNKNOWN, "bad_reply"),
    "100 and then the reply": Case(say(_CONTINUE, WHOLE, pause=0.02), ACCEPTED, ""),
    "103 and then the reply": Case(say(_INTERIM * 3, WHOLE, pause=0.02), ACCEPTED, ""),
    "103 and then a refusal": Case(
        say(_INTERIM + b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"), REJECTED, "bad_request"
    ),
    "100 and then silence": _lost(say(_CONTINUE, end="hang"), "reply_timeout", SHORT),
    "103 and then closed": _lost(say(_INTERIM, end="fin"), "connection_lost"),
    "101": Case(
        say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", end="fin"),
        UNKNOWN,
        "unexpected_status",
    ),
    "HTTP/1.0, closed": Case(say(b"HTTP/1.0 200 OK\r\n\r\n" + PROOF, end="fin"), ACCEPTED, ""),
    "two replies at once": Case(say(WHOLE + WHOLE), ACCEPTED, ""),
    "a reply and rubbish in one piece": _lost(say(WHOLE + b"\0\0rubbish"), "bad_reply"),
    "closed after the reply, unannounced": Case(say(WHOLE, end="fin"), ACCEPTED, ""),
}

CASES_OF_ONE_RUN: Mapping[str, Case] = {  # those that end no run and ask nobody to wait
    name: case for name, case in {**STATUSES, **WIRE}.items() if not case.stops and case.verdict != NOT_SENT
}
