"""The stand-in provider, over real sockets: it answers as the vendors' pages say, fails on demand, and keeps count."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from runner import sandbox
from runner.sandbox import MAGIC, Entry, Sandbox, SandboxSettings, Scenario, create_app, parse_scenario
from runner.sandbox_log import worst_window

WAPIM = "/api/v1/whatsapp"
WAPIM_SEND = f"{WAPIM}/message/image"
ZIXFLOW_SEND = "/api/v1/campaign/whatsapp/message/send"
IMAGE = "https://cdn.example.com/spring.jpg"
PHONE = "905320001234"
TOKEN = {"token": "invented-token"}
BEARER = {"Authorization": "Bearer invented-key"}

# The vendors' pages, as printed there.
WAPIM_400 = """{
    "status": false,
    "code": 400,
    "message": "Bad Request",
    "error": {
        "Send Text": [
            "Malformed or missing phone id or message data!"
        ]
    }
}"""
WAPIM_413 = """{
    "status": false,
    "code": 413,
    "message": "Big file",
    "error": "Max 5 MB file."
}"""
ZIXFLOW_200 = """{
    "status": true,
    "message": "Message sent successfully"
  }"""
ZIXFLOW_400 = """{
    "status": false,
    "message": "Invalid data Provided"
  }"""
ZIXFLOW_401 = """{
    "status": false,
    "message": "Unauthorised"
  }"""


class Reply:
    """A whole reply as a client saw it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def fields(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


class Caller:
    """Calls one sandbox as a client would, and never follows a redirect."""

    def __init__(self, box: Sandbox, session: aiohttp.ClientSession) -> None:
        self.box = box
        self.session = session

    async def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, data: bytes | BytesIO | None = None
    ) -> Reply:
        async with self.session.request(
            method, self.box.url + path, headers=headers, data=data, allow_redirects=False
        ) as reply:
            return Reply(reply.status, dict(reply.headers), await reply.read())

    async def wapim(self, phone: object = PHONE, *, headers: dict[str, str] | None = None, **more: object) -> Reply:
        body = {"phone_number": phone, "content_url": IMAGE, **more}
        return await self.post(WAPIM_SEND, body, headers=headers)

    async def zixflow(self, phone: object = PHONE, *, headers: dict[str, str] | None = None, **more: object) -> Reply:
        body = {"to": phone, "phoneId": "100200", "type": "image", "image": {"link": IMAGE}, **more}
        return await self.post(ZIXFLOW_SEND, body, headers=headers or BEARER)

    async def post(self, path: str, body: dict[str, object], *, headers: dict[str, str] | None = None) -> Reply:
        return await self.call("POST", path, headers=headers or TOKEN, data=json.dumps(body).encode())

    async def queue(self, token: dict[str, str] | None = None) -> list[str]:
        found = (await self.call("GET", f"{WAPIM}/queue", headers=token or TOKEN)).fields["message"]
        assert isinstance(found, list)
        return found


class Opener:
    """Starts sandboxes and closes them after the test."""

    def __init__(self, stack: list[Sandbox], session: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._session = session

    async def __call__(
        self, settings: SandboxSettings | None = None, *, rules: str = "", clock: Clock | None = None
    ) -> Caller:
        settings = settings or SandboxSettings(scenario=parse_scenario(rules))
        box = await Sandbox(settings, clock).__aenter__()
        self._stack.append(box)
        return Caller(box, self._session)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.us = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
async def start() -> AsyncIterator[Opener]:
    started: list[Sandbox] = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Opener(started, session)
    for box in started:
        await box.__aexit__(None, None, None)


async def raw_wapim(box: Sandbox, phone: str, *, cut: int = 0) -> bytes:
    """Everything that comes back until the server closes. `cut` bytes of the request are held back, then we close."""
    host, port = box.url.removeprefix("http://").split(":")
    body = json.dumps({"phone_number": phone, "content_url": IMAGE}).encode()
    head = f"POST {WAPIM_SEND} HTTP/1.1\r\nHost: x\r\ntoken: invented-token\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.encode() + body[: len(body) - cut])
        await writer.drain()
        return b"" if cut else await reader.read()
    finally:
        writer.close()


async def logged(box: Sandbox, count: int) -> list[Entry]:
    """The log once it holds that many entries."""
    async with asyncio.timeout(3):
        while len(box.log) < count:
            await asyncio.sleep(0.005)
    return box.log


# --- Wapim ------------------------------------------------------------------------------------------------------------


async def test_wapim_answers_a_send_with_a_queue_id_and_no_status_field(start: Opener) -> None:
    reply = await (await start()).wapim(caption="Hello")
    assert reply.status == 200
    assert list(reply.fields) == ["queue_message_id", "message"]
    assert re.fullmatch(r"\d+_[0-9A-F]{20}", str(reply.fields["queue_message_id"]))
    assert reply.fields["message"] == "We reached successfully"


async def test_wapim_ids_are_never_given_twice_and_are_repeatable_with_a_seed(start: Opener) -> None:
    seeded, again, other = await start(rules="seed: 5"), await start(rules="seed: 5"), await start()
    ids = [[(await box.wapim()).fields["queue_message_id"] for _ in range(3)] for box in (seeded, again, other)]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 6


@pytest.mark.parametrize(("digits", "status", "page"), [("0400", 400, WAPIM_400), ("0413", 413, WAPIM_413)])
async def test_wapim_errors_are_the_ones_on_the_page(start: Opener, digits: str, status: int, page: str) -> None:
    reply = await (await start()).wapim(f"90532000{digits}")
    assert reply.status == status
    assert reply.body.decode() == json.dumps(json.loads(page), separators=(",", ":"))


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
async def test_wapim_reads_json_under_any_content_type(start: Opener, kind: str) -> None:
    reply = await (await start()).wapim(headers={**TOKEN, "Content-Type": kind})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"phone_number": "+905320001234"}, "phone_number must be"),
        ({"phone_number": 905320001234}, "phone_number must be"),
        ({"phone_number": "123456"}, "phone_number must be"),
        ({"phone_number": "1" * 16}, "phone_number must be"),
        ({"phone_number": "٩٠٥٣٢٠٠٠١٢٣٤"}, "phone_number must be"),
        ({"phone_number": None}, "phone_number must be"),
        ({"content_url": "ftp://cdn.example.com/a.jpg"}, "content_url must be"),
        ({"content_url": "cdn.example.com/a.jpg"}, "content_url must be"),
        ({"content_url": "https://"}, "content_url must be"),
        ({"content_url": "https://cdn.example.com/a b.jpg"}, "content_url must be"),
        ({"content_url": None}, "content_url must be"),
        ({"caption": 5}, "caption must be"),
        ({"caption": None}, "caption must be"),
        ({"scheduled_time": 1900000000}, "scheduled_time must be"),
        ({"scheduled_time": "tomorrow"}, "scheduled_time must be"),
        ({"priority": "high"}, "unknown field priority"),
    ],
)
async def test_wapim_names_the_field_that_is_wrong(start: Opener, change: dict[str, object], reason: str) -> None:
    caller = await start()
    reply = await caller.post(WAPIM_SEND, {"phone_number": PHONE, "content_url": IMAGE, **change})
    assert reply.status == 400
    error = reply.fields["error"]
    assert isinstance(error, dict)
    first, *details = error["Send Text"]
    assert first == "Malformed or missing phone id or message data!"
    assert len(details) == 1
    assert details[0].startswith(reason)
    assert [(entry.action, entry.accepted_by_provider) for entry in caller.box.log] == [("invalid", False)]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"phone_number=905320001234", b'{"caption": "\xff"}'])
@pytest.mark.parametrize(("path", "headers"), [(WAPIM_SEND, TOKEN), (ZIXFLOW_SEND, BEARER)])
async def test_a_body_that_is_no_json_object_is_refused(
    start: Opener, body: bytes, path: str, headers: dict[str, str]
) -> None:
    reply = await (await start()).call("POST", path, headers=headers, data=body)
    assert reply.status == 400
    assert b"the body must be a JSON object" in reply.body


@pytest.mark.parametrize("headers", [{"token": "bad-token"}, {"token": ""}, {"token": "  "}, {"X-Other": "x"}, BEARER])
async def test_wapim_refuses_a_bad_or_missing_token(start: Opener, headers: dict[str, str]) -> None:
    caller = await start()
    reply = await caller.wapim(headers=headers)
    assert reply.status == 401
    assert list(reply.fields) == ["status", "code", "message", "error"]
    assert reply.fields["code"] == 401
    for method, path in [("GET", "queue"), ("DELETE", "queue"), ("GET", "status"), ("POST", "messages")]:
        assert (await caller.call(method, f"{WAPIM}/{path}", headers=headers)).status == 401


async def test_with_a_list_of_tokens_every_other_is_refused(start: Opener) -> None:
    caller = await start(SandboxSettings(tokens={"one", "bad"}, bad_tokens={"bad"}))
    replies = [await caller.wapim(headers={"token": token}) for token in ("one", "two", "bad")]
    assert [reply.status for reply in replies] == [200, 401, 401]


async def test_a_wapim_message_waits_in_the_queue_and_then_stands_in_the_history(start: Opener) -> None:
    clock = Clock()
    caller = await start(clock=clock)
    queue_id = (await caller.wapim(caption="Hello")).fields["queue_message_id"]
    assert await caller.queue() == [queue_id]
    assert (await caller.post(f"{WAPIM}/messages", {"phone_number": PHONE})).fields["message"] == []
    clock.us += 2_000_000
    assert await caller.queue() == []
    history = (await caller.post(f"{WAPIM}/messages", {"phone_number": PHONE})).fields
    assert (history["status"], history["code"]) == (True, 200)
    assert isinstance(history["message"], list)
    (record,) = history["message"]
    assert re.fullmatch(r"3EB0[0-9A-F]{16}", record.pop("message_id"))
    assert record == {
        "event_name": "ImageMessage",
        "from_group": False,
        "from_me": True,
        "from_phone_number": str(queue_id).split("_")[0],
        "instance_id": "1",
        "text": "Hello",
        "timestamp": clock.us // 1_000_000,
        "to_phone_number": PHONE,
    }


async def test_wapim_history_gives_the_last_ten_newest_first_or_as_many_as_asked(start: Opener) -> None:
    clock = Clock()
    caller = await start(clock=clock)
    for number in range(12):
        await caller.wapim(caption=f"to the first, {number}")
        await caller.wapim("905320005678", caption=f"to the second, {number}")
        clock.us += 3_000_000

    async def texts(path: str, **body: object) -> list[str]:
        reply = await caller.post(f"{WAPIM}/{path}", body)
        records = reply.fields["message"]
        assert isinstance(records, list)
        return [record["text"] for record in records]

    assert await texts("messages", phone_number=PHONE) == [f"to the first, {number}" for number in range(11, 1, -1)]
    assert await texts("messages", phone_number=PHONE, count=1) == ["to the first, 11"]
    assert await texts("messages", phone_number="905320009999") == []
    assert await texts("lastmessages", count=2) == ["to the second, 11", "to the first, 11"]
    assert len(await texts("lastmessages")) == 10
    wrong: list[dict[str, object]] = [{"count": 0}, {"count": "10"}, {"count": True}]
    for body in [{}, *({"phone_number": PHONE, **count} for count in wrong)]:
        assert (await caller.post(f"{WAPIM}/messages", body)).status == 400
    for body in wrong:
        assert (await caller.post(f"{WAPIM}/lastmessages", body)).status == 400


async def test_a_scheduled_wapim_message_waits_for_its_time(start: Opener) -> None:
    clock = Clock()
    caller = await start(clock=clock)
    later = (await caller.wapim(scheduled_time=str(clock.us // 1_000_000 + 60))).fields["queue_message_id"]
    soon = (await caller.wapim()).fields["queue_message_id"]
    assert await caller.queue() == [soon, later]
    clock.us += 59_000_000
    assert await caller.queue() == [later]
    clock.us += 1_000_000
    assert await caller.queue() == []


async def test_clearing_the_wapim_queue_loses_its_messages(start: Opener) -> None:
    clock = Clock()
    caller = await start(clock=clock)
    await caller.wapim()
    reply = await caller.call("DELETE", f"{WAPIM}/queue", headers=TOKEN)
    assert (reply.status, reply.fields["status"], reply.fields["code"]) == (200, True, 200)
    assert "deleted" in str(reply.fields["message"])
    clock.us += 10_000_000
    assert await caller.queue() == []
    history = await caller.call("POST", f"{WAPIM}/lastmessages", headers=TOKEN)
    assert history.fields["message"] == []


async def test_each_wapim_token_has_a_number_and_a_queue_of_its_own(start: Opener) -> None:
    caller = await start()
    one, two = {"token": "token-one"}, {"token": "token-two"}
    first = str((await caller.wapim(headers=one)).fields["queue_message_id"])
    second = str((await caller.wapim(headers=two)).fields["queue_message_id"])
    assert first.partition("_")[0] != second.partition("_")[0]
    assert await caller.queue(one) == [first]
    assert await caller.queue(two) == [second]


@pytest.mark.parametrize("offline", [False, True])
async def test_wapim_status_tells_whether_the_phone_is_linked(start: Opener, offline: bool) -> None:
    clock = Clock()
    settings = SandboxSettings(scenario=Scenario(wapim_device_offline=offline))
    caller = await start(settings, clock=clock)
    assert (await caller.wapim()).status == 200
    clock.us += 60_000_000
    message = (await caller.call("GET", f"{WAPIM}/status", headers=TOKEN)).fields["message"]
    assert isinstance(message, dict)
    assert (message["Connected"], message["LoggedIn"]) == (not offline, True)
    assert " ".join(message["phone_info"]) == (
        "Battery Platform Connected Pushname Phone_number Lc Phone Plugged Tos Lg Is_24_h"
    )
    assert len(await caller.queue()) == (1 if offline else 0)


# --- Zixflow ----------------------------------------------------------------------------------------------------------


async def test_zixflow_answers_a_send_as_on_its_page(start: Opener) -> None:
    reply = await (await start()).zixflow()
    assert (reply.status, reply.json) == (200, json.loads(ZIXFLOW_200))


async def test_zixflow_gives_ids_when_the_submission_is_waited_for_and_reports_on_them(start: Opener) -> None:
    caller = await start()
    fields = (await caller.zixflow(submissionStatus=True)).fields
    assert list(fields) == ["status", "message", "campaignId", "messageId"]
    assert (fields["status"], fields["message"]) == (True, "WhatsApp sent successfully!")
    assert all(re.fullmatch("[0-9a-f]{24}", str(fields[key])) for key in ("campaignId", "messageId"))
    assert caller.box.log[0].queue_id == fields["messageId"]
    path = f"/api/v1/campaign/report/whatsapp/{fields['messageId']}"
    found = await caller.call("GET", path, headers=BEARER)
    assert found.json == {
        "status": True,
        "data": {"messageId": fields["messageId"], "to": PHONE, "status": "delivered"},
    }
    missing = await caller.call("GET", path[:-1] + "x", headers=BEARER)
    assert (missing.status, missing.fields["status"]) == (404, False)
    assert (await caller.call("GET", path)).status == 401


async def test_every_field_of_the_zixflow_page_is_allowed(start: Opener) -> None:
    reply = await (await start()).zixflow(
        image={"link": IMAGE, "caption": "Hello"},
        source="API",
        linkWithRecord=False,
        reportURL="https://reports.example.com/x",
        submissionStatus=False,
    )
    assert reply.json == json.loads(ZIXFLOW_200)


async def test_zixflow_refusals_are_the_ones_on_its_page(start: Opener) -> None:
    caller = await start()
    bad = await caller.zixflow("905320000400")
    assert (bad.status, bad.json) == (400, json.loads(ZIXFLOW_400))
    for headers in ({"Authorization": "Bearer bad-token"}, {"Authorization": "Bearer "}, {"Authorization": "x"}, TOKEN):
        unknown = await caller.zixflow(headers=headers)
        assert (unknown.status, unknown.json) == (401, json.loads(ZIXFLOW_401))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"to": "+905320001234"}, "to must be"),
        ({"to": 905320001234}, "to must be"),
        ({"phoneId": 100200}, "phoneId must be"),
        ({"phoneId": ""}, "phoneId must be"),
        ({"type": "text"}, "type must be"),
        ({"image": IMAGE}, "image must be an object"),
        ({"image": {}}, "image.link must be"),
        ({"image": {"link": "data:image/png;base64,AA=="}}, "image.link must be"),
        ({"image": {"link": IMAGE, "caption": None}}, "image.caption must be"),
        ({"image": {"link": IMAGE, "filename": "a.jpg"}}, "unknown field image.filename"),
        ({"source": 1}, "source must be"),
        ({"linkWithRecord": "true"}, "linkWithRecord must be"),
        ({"submissionStatus": 1}, "submissionStatus must be"),
        ({"reportURL": "reports.example.com"}, "reportURL must be"),
        ({"caption": "Hello"}, "unknown field caption"),
    ],
)
async def test_zixflow_names_the_field_that_is_wrong(start: Opener, change: dict[str, object], reason: str) -> None:
    caller = await start()
    body = {"to": PHONE, "phoneId": "100200", "type": "image", "image": {"link": IMAGE}, **change}
    reply = await caller.post(ZIXFLOW_SEND, body, headers=BEARER)
    assert (reply.status, reply.fields["status"]) == (400, False)
    assert str(reply.fields["message"]).startswith(f"Invalid data Provided: {reason}")
    assert "," not in str(reply.fields["message"]).replace("code, without", "")


# --- magic numbers ----------------------------------------------------------------------------------------------------

STATUSES = ["0400", "0401", "0402", "0403", "0413", "0422", "0500", "0502", "0503", "0504"]
OTHERS = ["0429", "0430", "0600", "0601", *(f"07{number:02}" for number in range(10))]


def test_every_magic_number_is_tested_here_and_told_to_the_reader() -> None:
    assert sorted(MAGIC) == sorted(STATUSES + OTHERS)
    assert all(digits in str(sandbox.__doc__) and action.says for digits, action in MAGIC.items())


@pytest.mark.parametrize("digits", STATUSES)
async def test_a_magic_status_is_answered_every_time_and_takes_nothing(start: Opener, digits: str) -> None:
    caller = await start()
    replies = [await caller.wapim(f"90532000{digits}"), await caller.zixflow(f"90532000{digits}")]
    replies.append(await caller.wapim(f"90532000{digits}"))
    assert {reply.status for reply in replies} == {int(digits)}
    assert {(entry.action, entry.status, entry.accepted_by_provider) for entry in caller.box.log} == {
        (f"magic:{digits}", int(digits), False)
    }
    assert await caller.queue() == []
    html = digits in {"0502", "0503", "0504"}
    assert all(reply.headers["Content-Type"].startswith("text/html") is html for reply in replies)
    if not html:
        assert all(reply.fields["status"] is False for reply in replies)


async def test_0429_asks_each_phone_to_wait_once_and_0430_always(start: Opener) -> None:
    caller = await start()
    replies = [await caller.wapim(f"90532{third}00{digits}") for third in (0, 1) for digits in ["0429", "0430"] * 3]
    assert [reply.status for reply in replies] == [429, 429, 200, 429, 200, 429] * 2
    assert {reply.headers.get("Retry-After") for reply in replies if reply.status == 429} == {"1"}
    assert sum(entry.accepted_by_provider for entry in caller.box.log) == 4


@pytest.mark.parametrize(
    ("digits", "content", "taken"),
    [
        ("0600", r'\{"status":false.*\}', False),
        ("0601", r"\{\}", True),
        ("0703", r"<!DOCTYPE html>.*", True),
        ("0704", r'\{"queue_message_id":"[^}]*', True),
        ("0706", r"", True),
    ],
)
async def test_a_magic_200_that_proves_nothing(start: Opener, digits: str, content: str, taken: bool) -> None:
    caller = await start()
    reply = await caller.wapim(f"90532000{digits}")
    assert reply.status == 200
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    assert re.fullmatch(content, reply.body.decode())
    assert caller.box.log[0].accepted_by_provider is taken
    assert len(await caller.queue()) == taken
    assert (await caller.zixflow(f"90532000{digits}")).status == 200


async def test_0700_closes_and_0701_resets_after_the_message_was_taken(start: Opener) -> None:
    caller = await start()
    assert await raw_wapim(caller.box, "905320000700") == b""
    with pytest.raises(ConnectionResetError):
        await raw_wapim(caller.box, "905320000701")
    assert [(entry.phone, entry.status, entry.accepted_by_provider) for entry in caller.box.log] == [
        ("905320000700", 0, True),
        ("905320000701", 0, True),
    ]
    assert all(entry.body for entry in caller.box.log)
    assert [entry.queue_id for entry in caller.box.log] == await caller.queue()


async def test_0702_promises_more_than_it_writes(start: Opener) -> None:
    caller = await start()
    head, _, body = (await raw_wapim(caller.box, "905320000702")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    promised = re.search(rb"Content-Length: (\d+)", head)
    assert promised is not None
    assert 0 < len(body) < int(promised[1])
    with pytest.raises(aiohttp.ClientPayloadError):
        await caller.wapim("905320000702")
    assert all(entry.accepted_by_provider for entry in caller.box.log)


async def test_0705_never_answers_and_is_logged_while_it_waits(start: Opener, tmp_path: Path) -> None:
    caller = await start(SandboxSettings(log_file=tmp_path / "log.jsonl"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await caller.wapim("905320000705")
    (entry,) = caller.box.log
    assert (entry.action, entry.status, entry.accepted_by_provider) == ("magic:0705", 0, True)
    assert json.loads((tmp_path / "log.jsonl").read_text())["phone"] == "905320000705"


async def test_0705_is_bounded_and_does_not_hold_up_the_end() -> None:
    async with Sandbox(SandboxSettings(hang_seconds=0.05)) as box:
        assert await raw_wapim(box, "905320000705") == b""
    async with Sandbox() as box:
        waiting = asyncio.create_task(raw_wapim(box, "905320000705"))
        await logged(box, 1)
        before = time.monotonic()
    assert time.monotonic() - before < 0.9
    assert await waiting == b""


async def test_0707_is_slow_but_succeeds(start: Opener) -> None:
    caller = await start()
    before = time.monotonic()
    assert (await caller.wapim("905320000707")).status == 200
    assert 1.9 < time.monotonic() - before < 4


@pytest.mark.parametrize(("digits", "status"), [("0708", 302), ("0709", 307)])
async def test_a_redirect_points_to_a_path_where_a_follower_is_caught(start: Opener, digits: str, status: int) -> None:
    caller = await start()
    reply = await caller.wapim(f"90532000{digits}")
    assert reply.status == status
    assert reply.headers["Location"] == f"/elsewhere{WAPIM_SEND}"
    assert (await caller.call("POST", reply.headers["Location"], headers=TOKEN, data=b"{}")).status == 404
    assert [(entry.action, entry.accepted_by_provider) for entry in caller.box.log] == [
        (f"magic:{digits}", False),
        ("not_found", False),
    ]


async def test_the_magic_can_be_switched_off(start: Opener) -> None:
    caller = await start(rules="magic: false")
    assert {(await caller.wapim(f"90532000{digits}")).status for digits in MAGIC} == {200}


# --- scenarios --------------------------------------------------------------------------------------------------------


async def test_a_rule_applies_so_many_times_and_then_falls_through_to_the_next(start: Opener) -> None:
    caller = await start(
        rules="""
        rules:
          - {phone: "90532*", times: 2, status: 503}
          - {phone: "905320001234", times: 1, retry_after: 7}
        """
    )
    replies = [await caller.wapim() for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 503, 429, 200]
    assert replies[2].headers["Retry-After"] == "7"
    assert [entry.action for entry in caller.box.log] == ["rule:1", "rule:1", "rule:2", "accepted"]
    assert (await caller.wapim("491510000001")).status == 200


async def test_after_and_every_choose_which_requests_are_hit(start: Opener) -> None:
    caller = await start(rules="rules: [{after: 4, every: 3, times: 2, status: 500}]")
    statuses = [(await caller.wapim(f"90532000{number:04}")).status for number in range(1000, 1015)]
    assert [index for index, status in enumerate(statuses, 1) if status == 500] == [7, 10]


async def test_a_rule_may_say_the_whole_reply(start: Opener) -> None:
    caller = await start(
        rules="""
        rules:
          - times: 1
            status: 418
            headers: {X-Kind: teapot}
            body: {status: false, why: [tea]}
          - times: 1
            body: "all is <well>"
            headers: {Content-Type: text/html}
          - times: 1
            status: 204
        """
    )
    first, second, third = [await caller.zixflow() for _ in range(3)]
    assert (first.status, first.headers["X-Kind"], first.json) == (418, "teapot", {"status": False, "why": ["tea"]})
    assert (second.status, second.headers["Content-Type"], second.body) == (200, "text/html", b"all is <well>")
    assert (third.status, third.body) == (204, b"")
    assert [entry.accepted_by_provider for entry in caller.box.log] == [False, True, True]


async def test_a_failure_may_have_been_taken_nevertheless(start: Opener) -> None:
    caller = await start(rules="rules: [{status: 500, taken: true, times: 1}, {drop: after_read, taken: false}]")
    assert (await caller.wapim()).status == 500
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await caller.wapim()
    assert [entry.accepted_by_provider for entry in caller.box.log] == [True, False]
    assert await caller.queue() == [caller.box.log[0].queue_id]


async def test_a_rule_that_only_slows_leaves_the_answer_as_it_is(start: Opener) -> None:
    caller = await start(rules="rules: [{latency: [80ms, 120ms]}]")
    before = time.monotonic()
    replies = await asyncio.gather(*(caller.wapim(f"90532000{digits}") for digits in ("0400", "1234", "5678")))
    assert 0.07 < time.monotonic() - before < 2
    assert [reply.status for reply in replies] == [400, 200, 200]


async def test_the_latency_of_a_scenario_is_drawn_from_its_range(start: Opener) -> None:
    caller = await start(rules="{latency: [30ms, 90ms], seed: 3}")
    times = []
    for _ in range(6):
        before = time.monotonic()
        await caller.wapim()
        times.append(time.monotonic() - before)
    assert min(times) > 0.029
    assert max(times) - min(times) > 0.01


@pytest.mark.parametrize(
    ("drop", "taken", "error"),
    [
        ("before_read", False, aiohttp.ClientConnectionError),
        ("after_read", True, aiohttp.ServerDisconnectedError),
        ("reset", True, aiohttp.ClientOSError),
        ("truncate", True, aiohttp.ClientPayloadError),
    ],
)
async def test_a_rule_may_drop_the_connection(start: Opener, drop: str, taken: bool, error: type[Exception]) -> None:
    caller = await start(rules=f"rules: [{{drop: {drop}, times: 1}}]")
    with pytest.raises(error):
        await caller.wapim()
    (entry,) = caller.box.log
    assert (entry.action, entry.accepted_by_provider) == ("rule:1", taken)
    assert bool(entry.body) is taken
    assert (await caller.wapim()).status == 200


async def test_a_request_that_breaks_the_page_is_not_hidden_by_a_rule(start: Opener) -> None:
    caller = await start(rules="rules: [{status: 200, times: 1}]")
    assert (await caller.wapim("+1")).status == 400
    assert (await caller.wapim(headers={"token": "bad-token"})).status == 401
    assert (await caller.wapim()).status == 200
    assert [entry.action for entry in caller.box.log] == ["invalid", "unauthorised", "rule:1"]


# --- the rate limit ---------------------------------------------------------------------------------------------------


async def test_the_rate_limit_is_a_sliding_window_per_token(start: Opener) -> None:
    clock = Clock()
    caller = await start(rules="rate_limit: 3/s", clock=clock)
    begin = clock.us

    async def statuses(at_s: float, count: int, sender: str = "one") -> list[int]:
        clock.us = begin + round(at_s * 1_000_000)
        return [(await caller.wapim(headers={"token": sender})).status for _ in range(count)]

    assert await statuses(0.9, 4) == [200, 200, 200, 429]
    assert await statuses(1.1, 1) == [429]  # a window that begins anew with each whole second would let it pass
    assert await statuses(1.1, 1, "two") == [200]
    assert await statuses(1.899999, 1) == [429]
    assert await statuses(1.9, 4) == [200, 200, 200, 429]
    assert caller.box.stats().rate_limited == 4


async def test_the_rate_limit_says_how_many_whole_seconds_to_wait(start: Opener) -> None:
    clock = Clock()
    caller = await start(rules="rate_limit: 1/min", clock=clock)
    await caller.wapim()
    waits = []
    for step in (0, 500_000, 30_000_000, 29_000_000):
        clock.us += step
        waits.append((await caller.zixflow(headers={"Authorization": "Bearer invented-token"})).headers["Retry-After"])
    assert waits == ["60", "60", "30", "1"]
    assert [entry.action for entry in caller.box.log] == ["accepted", *["rate_limited"] * 4]


async def test_no_window_of_the_log_holds_more_accepted_sends_than_the_limit(start: Opener) -> None:
    caller = await start(rules="rate_limit: 20/s")
    end = time.monotonic() + 1.4
    while time.monotonic() < end:
        await asyncio.gather(*(caller.wapim() for _ in range(5)))
        await asyncio.sleep(0.02)
    times = [entry.at_us for entry in caller.box.log if entry.accepted_by_provider]
    assert len(times) >= 40
    assert max(sum(at <= other < at + 1_000_000 for other in times) for at in times) == 20
    assert caller.box.stats().by_status[429] == len(caller.box.log) - len(times)


# --- the log and what is counted from it ------------------------------------------------------------------------------


def test_the_worst_window_is_the_one_that_counting_by_hand_finds() -> None:
    chance = random.Random(20260101)
    for _ in range(200):
        times = [chance.randrange(0, 400) for _ in range(chance.randrange(0, 60))]
        window = chance.randrange(1, 120)
        by_hand = max((sum(at <= other < at + window for other in times) for at in times), default=0)
        assert worst_window(times, window) == by_hand


async def test_the_stats_count_sends_and_find_phones_requested_twice(start: Opener) -> None:
    clock = Clock()
    caller = await start(clock=clock)
    for step, phone in [
        (0, "905320000429"),
        (600_000, "905320000429"),
        (300_000, "905320001111"),
        (100_000, "905320001111"),
        (0, "905320000500"),
        (0, "905320000500"),
        (5_000_000, "905320002222"),
    ]:
        clock.us += step
        await caller.wapim(phone)
    await caller.queue()
    reply = await caller.call("GET", "/_sandbox/stats")
    assert reply.json == {
        "requests": 8,
        "sends": 7,
        "accepted_by_provider": 4,
        "rate_limited": 0,
        "by_action": {"magic:0429": 1, "accepted": 4, "magic:0500": 2, "read": 1},
        "by_status": {"429": 1, "200": 5, "500": 2},
        "phones": 4,
        "phones_twice": ["905320000429", "905320001111", "905320000500"],
        "phones_accepted_twice": ["905320001111"],
        "window_seconds": 1.0,
        "worst_window": 5,
    }
    assert caller.box.stats().phones_accepted_twice == ["905320001111"]
    wider = await caller.call("GET", "/_sandbox/stats?window=60")
    assert (wider.fields["window_seconds"], wider.fields["worst_window"]) == (60.0, 7)
    for window in ("0", "-1", "nan", "soon"):
        assert (await caller.call("GET", f"/_sandbox/stats?window={window}")).status == 400


async def test_the_log_holds_each_request_as_it_was_received(start: Opener) -> None:
    caller = await start()
    before = time.time_ns() // 1000
    await caller.call(
        "POST", f"{WAPIM_SEND}?a=1%202", headers={**TOKEN, "X-Kind": "x"}, data=b'{"phone_number": "905\xff"}'
    )
    (entry,) = caller.box.log
    assert before - 50_000 <= entry.at_us <= time.time_ns() // 1000 + 50_000
    assert (entry.seq, entry.method, entry.path) == (1, "POST", f"{WAPIM_SEND}?a=1%202")
    assert entry.body == '{"phone_number": "905\\xff"}'
    assert (entry.action, entry.status, entry.phone) == ("invalid", 400, "")
    assert (entry.header("x-kind"), entry.header("absent")) == ("x", None)


async def test_credentials_are_cut_in_the_log_unless_full_headers_are_wanted(start: Opener, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    plain = await start(SandboxSettings(log_file=file))
    full = await start(SandboxSettings(full_headers=True))
    for caller in (plain, full):
        await caller.wapim(headers={"token": "secret-one"})
        await caller.zixflow(headers={"Authorization": "Bearer secret-two"})
        await caller.wapim(headers={"token": "abc"})
        shown = (await caller.call("GET", "/_sandbox/messages")).body.decode()
        assert "secret" not in shown
        assert "abc" not in shown
        assert '["token","secr…"]' in shown
        assert '["Authorization","Bear…"]' in shown
        assert '["token","…"]' in shown
    assert [entry.header("token") for entry in plain.box.log] == ["secr…", None, "…"]
    assert [entry.header("token") for entry in full.box.log] == ["secret-one", None, "abc"]
    assert "secret" not in file.read_text()


async def test_the_messages_can_be_read_in_pieces_and_cleared(start: Opener) -> None:
    caller = await start()
    for number in range(5):
        await caller.wapim(f"90532000100{number}")

    async def seqs(query: str) -> tuple[object, list[int]]:
        fields = (await caller.call("GET", f"/_sandbox/messages{query}")).fields
        assert isinstance(fields["messages"], list)
        return fields["last"], [message["seq"] for message in fields["messages"]]

    assert await seqs("") == (5, [1, 2, 3, 4, 5])
    assert await seqs("?since=3") == (5, [4, 5])
    assert await seqs("?since=1&limit=2") == (5, [2, 3])
    assert await seqs("?limit=0") == (5, [])
    assert await seqs("?since=9") == (5, [])
    for query in ("?since=x", "?limit=-1", "?since=-1"):
        assert (await caller.call("GET", f"/_sandbox/messages{query}")).status == 400
    assert (await caller.call("DELETE", "/_sandbox/messages")).status == 200
    assert await seqs("") == (0, [])
    assert caller.box.stats().sends == 0
    assert len(await caller.queue()) == 5


async def test_a_limited_log_keeps_the_newest_and_still_counts_all(start: Opener) -> None:
    caller = await start(SandboxSettings(log_limit=2, keep_bodies=False))
    for number in (1001, 1001, 1002, 1003):
        await caller.wapim(f"90532000{number}")
    assert [(entry.seq, entry.body) for entry in caller.box.log] == [(3, ""), (4, "")]
    assert (caller.box.stats().sends, caller.box.stats().phones_twice) == (4, ["905320001001"])
    shown = (await caller.call("GET", "/_sandbox/messages?since=3")).fields["messages"]
    assert isinstance(shown, list)
    assert [message["seq"] for message in shown] == [4]


async def test_the_log_file_has_a_line_for_each_request_and_is_appended_to(start: Opener, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    for _ in range(2):
        caller = await start(SandboxSettings(log_file=file))
        await caller.wapim("905320000500")
        await caller.wapim()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["seq"], line["status"], line["accepted_by_provider"]) for line in lines] == [
        (1, 500, False),
        (2, 200, True),
    ] * 2
    assert tuple(lines[0]) == Entry._fields


async def test_a_request_that_breaks_off_is_logged_as_incomplete_and_not_taken(start: Opener) -> None:
    caller = await start()
    await raw_wapim(caller.box, PHONE, cut=1)
    (entry,) = await logged(caller.box, 1)
    assert (entry.action, entry.status, entry.accepted_by_provider) == ("incomplete", 0, False)
    assert caller.box.stats().sends == 1


async def test_a_client_that_does_not_wait_for_its_answer_has_sent_nevertheless(start: Opener) -> None:
    caller = await start(rules="latency: 10s")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await caller.wapim()
    assert [entry.accepted_by_provider for entry in caller.box.log] == [True]


async def test_a_body_past_a_megabyte_is_refused_and_logged(start: Opener) -> None:
    caller = await start()
    reply = await caller.call("POST", WAPIM_SEND, headers=TOKEN, data=BytesIO(b" " * 1_100_000))
    assert reply.status == 413
    assert [(entry.action, entry.status) for entry in caller.box.log] == [("too_big", 413)]


async def test_an_unknown_path_or_method_is_a_404_that_stands_in_the_log(start: Opener) -> None:
    caller = await start()
    for method, path in [("GET", WAPIM_SEND), ("POST", "/api/v2/whatsapp"), ("PUT", "/"), ("HEAD", f"{WAPIM}/queue")]:
        assert (await caller.call(method, path, headers=TOKEN)).status == 404
    assert [(entry.method, entry.action) for entry in caller.box.log] == [
        (method, "not_found") for method in ("GET", "POST", "PUT", "HEAD")
    ]


async def test_the_help_lists_every_magic_number(start: Opener) -> None:
    caller = await start()
    for path in ("/_sandbox", "/_sandbox/"):
        reply = await caller.call("GET", path)
        assert all(f"{digits}  {action.says}" in reply.body.decode() for digits, action in MAGIC.items())
    assert caller.box.log == []


# --- running it -------------------------------------------------------------------------------------------------------


async def test_it_can_be_served_by_another_server() -> None:
    runner = web.AppRunner(create_app(SandboxSettings()))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0]
        async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/_sandbox/stats") as reply:
            assert (await reply.json())["requests"] == 0
    finally:
        await runner.cleanup()


async def test_it_goes_on_counting_when_it_is_started_again() -> None:
    box = Sandbox()
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with box:
                await Caller(box, session).wapim()
    assert [entry.seq for entry in box.log] == [1, 2]
    assert box.stats().phones_accepted_twice == [PHONE]


def post(url: str, body: dict[str, object]) -> int:
    request = urllib.request.Request(url + WAPIM_SEND, json.dumps(body).encode(), TOKEN)  # noqa: S310  # our own http URL
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310  # as above
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_runs_in_a_thread_of_its_own_and_is_gone_afterwards() -> None:
    with Sandbox().in_thread() as box:
        assert post(box.url, {"phone_number": PHONE, "content_url": IMAGE}) == 200
        assert post(box.url, {"phone_number": PHONE}) == 400
        assert [thread.name for thread in threading.enumerate()].count("sandbox") == 1
        port = int(box.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="address already in use"), Sandbox(SandboxSettings(port=port)).in_thread():
            pass
    assert [entry.status for entry in box.log] == [200, 400]
    assert box.stats().sends == 2
    assert "sandbox" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(urllib.error.URLError):
        post(box.url, {})


async def test_connections_are_dropped_in_a_thread_too_whose_event_loop_may_be_another() -> None:
    with Sandbox().in_thread() as box:
        assert await raw_wapim(box, "905320000700") == b""
        with pytest.raises(ConnectionResetError):
            await raw_wapim(box, "905320000701")
        assert (await raw_wapim(box, "905320000702")).startswith(b"HTTP/1.1 200 OK\r\n")
        waiting = asyncio.create_task(raw_wapim(box, "905320000705"))
        await logged(box, 4)
        waiting.cancel()
        await raw_wapim(box, PHONE, cut=1)
        await logged(box, 5)
    assert [entry.accepted_by_provider for entry in box.log] == [True] * 4 + [False]


def test_stats_may_be_asked_for_from_another_thread_while_it_works() -> None:
    with Sandbox(SandboxSettings(scenario=Scenario(magic=False))).in_thread() as box:
        senders = [
            threading.Thread(
                target=lambda first=first: [
                    post(box.url, {"phone_number": str(first + number), "content_url": IMAGE}) for number in range(40)
                ]
            )
            for first in (905320001000, 905320002000)
        ]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            stats = box.stats()
            assert stats.phones <= stats.sends + 1
            assert len(box.log) >= stats.requests
        assert box.stats().accepted_by_provider == box.stats().phones == 80


@pytest.mark.skipif(sys.platform == "win32", reason="a Windows process cannot be sent SIGINT or SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal_and_ends_well(number: signal.Signals) -> None:
    program = (
        "from runner.sandbox import SandboxSettings, run\n"
        "run(SandboxSettings(), on_ready=lambda url: print(url, flush=True))\n"
        "print('after')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert post(url, {"phone_number": PHONE, "content_url": IMAGE}) == 200
        process.send_signal(number)
        assert process.stdout.read() == "after\n"
        assert process.wait(5) == 0
