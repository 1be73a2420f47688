"""The two providers as their vendors' pages describe them: what a send request may say, and what is replied.

Written from the pages alone and strict where they are clear: a field that is not on the page is refused and named, so
that an adapter is judged and not flattered. What no page says (the body of a 401 from Wapim, of 402, 422, 429, 5xx from
either, the Zixflow report look-up, the order of Wapim's history) is assumed, and marked so.
"""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple, Protocol

import orjson

_DIGITS = re.compile(r"[0-9]{7,15}")
_URL = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,11}")

_PHONE_RULE = "must be a string of 7 to 15 digits that begins with the country code, without a plus"
_URL_RULE = "must be a string that holds an http or https URL"


class Claim(NamedTuple):
    """What one send request says. Empty `problems` means that the vendor's page allows it."""

    problems: tuple[str, ...]
    phone: str = ""  # as far as one could be read
    text: str = ""
    scheduled_s: int = 0  # Unix seconds; 0 is now
    wants_ids: bool = False


class Receipt(NamedTuple):
    """The success reply to a message that was taken, and the id that names it ("" when the vendor gives none)."""

    body: bytes
    queue_id: str


class Vendor(Protocol):
    """One provider: pure but for its memory of the messages it took."""

    def token(self, headers: Mapping[str, str]) -> str:
        """The credential in the request's headers, "" if there is none."""

    def judge(self, body: bytes) -> Claim:
        """Reads a send request's body against the vendor's page. Total: any bytes give a claim."""

    def take(self, token: str, claim: Claim, now_us: int) -> Receipt:
        """Takes the message."""

    def refusal(self, status: int, reasons: Iterable[str] = ()) -> bytes:
        """The body of an error reply."""


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _unknown(fields: Mapping[str, object], known: frozenset[str], prefix: str = "") -> list[str]:
    return [f"unknown field {prefix}{name}" for name in fields if name not in known]


def _is_phone(value: object) -> bool:
    return isinstance(value, str) and _DIGITS.fullmatch(value) is not None


def _is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.fullmatch(value) is not None


# --- Wapim ------------------------------------------------------------------------------------------------------------

_WAPIM_FIELDS = frozenset({"phone_number", "content_url", "caption", "scheduled_time"})
_WAPIM_REASON = "Malformed or missing phone id or message data!"


class _Sent(NamedTuple):
    at_s: int
    message_id: str
    phone: str
    text: str


@dataclass(slots=True)
class _Instance:
    """One Wapim instance: a token is one linked WhatsApp number with its own queue and history."""

    number: str
    instance_id: str
    taken: int = 0
    waiting: list[tuple[int, int, str, str, str]] = field(
        default_factory=list
    )  # a heap of (due_us, nth, id, phone, text)
    sent: list[_Sent] = field(default_factory=list)
    sent_to: dict[str, list[_Sent]] = field(default_factory=dict)


class Wapim:
    """Wapim (vendor page "Send Image Message", and the vendor's pages on queue, status and history)."""

    def __init__(self, rng: random.Random, *, queue_seconds: float, device_offline: bool) -> None:
        self._rng = rng
        self._queue_us = round(queue_seconds * 1_000_000)
        self._offline = device_offline
        self._instances: dict[str, _Instance] = {}

    def token(self, headers: Mapping[str, str]) -> str:
        return headers.get("token", "").strip()

    def judge(self, body: bytes) -> Claim:
        fields = _json_object(body)
        if fields is None:
            return Claim(("the body must be a JSON object",))
        problems = _unknown(fields, _WAPIM_FIELDS)
        phone, caption, scheduled = fields.get("phone_number"), fields.get("caption", ""), fields.get("scheduled_time")
        if not _is_phone(phone):
            problems.append(f"phone_number {_PHONE_RULE}")
        if not _is_url(fields.get("content_url")):
            problems.append(f"content_url {_URL_RULE}")
        if not isinstance(caption, str):
            problems.append("caption must be a string")
        seconds = 0
        if isinstance(scheduled, str) and _SECONDS.fullmatch(scheduled):
            seconds = int(scheduled)
        elif "scheduled_time" in fields:
            problems.append("scheduled_time must be a string of Unix seconds")
        return Claim(
            tuple(problems),
            phone=phone if isinstance(phone, str) else "",
            text=caption if isinstance(caption, str) else "",
            scheduled_s=seconds,
        )

    def take(self, token: str, claim: Claim, now_us: int) -> Receipt:
        instance = self._instance(token, now_us)
        queue_id = f"{instance.number}_{self._rng.getrandbits(80):020X}"
        due_us = max(now_us + self._queue_us, claim.scheduled_s * 1_000_000)
        instance.taken += 1
        heapq.heappush(instance.waiting, (due_us, instance.taken, queue_id, claim.phone, claim.text))
        return Receipt(
            orjson.dumps({"queue_message_id": queue_id, "message": "We reached successfully"}),
            queue_id,
        )

    def refusal(self, status: int, reasons: Iterable[str] = ()) -> bytes:
        """The label says "Send Text" on the image path too, and only 413 has a text as `error`: so the vendor's page."""
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return orjson.dumps({"status": False, "code": 413, "message": "Big file", "error": "Max 5 MB file."})
        what = _WAPIM_REASON if status == HTTPStatus.BAD_REQUEST else _phrase(status)
        return orjson.dumps(
            {
                "status": False,
                "code": status,
                "message": _phrase(status),
                "error": {"Send Text": [what, *reasons]},
            }
        )

    def queue(self, token: str, now_us: int) -> bytes:
        """`GET /queue`: the ids of the messages that are still waiting, the first due first."""
        waiting = sorted(self._instance(token, now_us).waiting)
        return self._fine([queue_id for _, _, queue_id, _, _ in waiting])

    def drop_queue(self, token: str, now_us: int) -> bytes:
        """`DELETE /queue`: every waiting message of the instance is gone."""
        self._instance(token, now_us).waiting.clear()
        return self._fine("All queued messages are deleted.")

    def status(self, token: str, now_us: int) -> bytes:
        """`GET /status`: whether the linked phone is reachable."""
        instance = self._instance(token, now_us)
        online = not self._offline
        return self._fine(
            {
                "Connected": online,
                "LoggedIn": True,
                "Idle": online and not instance.waiting,
                "phone_info": {
                    "Battery": 87,
                    "Platform": "android",
                    "Connected": online,
                    "Pushname": "Sandbox",
                    "Phone_number": instance.number,
                    "Lc": "US",
                    "Phone": {"Manufacturer": "Sandbox", "Model": "Stand-in", "OsVersion": "1"},
                    "Plugged": True,
                    "Tos": 0,
                    "Lg": "en",
                    "Is_24_h": True,
                },
            }
        )

    def history(self, token: str, body: bytes, now_us: int) -> bytes | None:
        """`POST /messages`: the last messages to one phone, newest first (order assumed). None: the body is wrong."""
        fields = _json_object(body)
        phone = fields.get("phone_number") if fields else None
        count = _count(fields)
        if count is None or not isinstance(phone, str) or not phone:
            return None
        instance = self._instance(token, now_us)
        return self._records(instance, instance.sent_to.get(phone, []), count)

    def last_messages(self, token: str, body: bytes, now_us: int) -> bytes | None:
        """`POST /lastmessages`: the last messages of the instance. None: the body is wrong."""
        count = _count(_json_object(body or b"{}"))
        if count is None:
            return None
        instance = self._instance(token, now_us)
        return self._records(instance, instance.sent, count)

    def _instance(self, token: str, now_us: int) -> _Instance:
        instance = self._instances.get(token)
        if instance is None:
            order = len(self._instances)
            # 202-555-01xx is kept for fiction.
            instance = _Instance(f"12025550{100 + order % 100}", f"{order + 1}")
            self._instances[token] = instance
        while not self._offline and instance.waiting and instance.waiting[0][0] <= now_us:
            due_us, _, _, phone, text = heapq.heappop(instance.waiting)
            # The vendor gives no link from the queue id to the message id: neither do we.
            record = _Sent(due_us // 1_000_000, f"3EB0{self._rng.getrandbits(64):016X}", phone, text)
            instance.sent.append(record)
            instance.sent_to.setdefault(phone, []).append(record)
        return instance

    def _records(self, instance: _Instance, sent: list[_Sent], count: int) -> bytes:
        return self._fine(
            [
                {
                    "event_name": "ImageMessage",
                    "from_group": False,
                    "from_me": True,
                    "from_phone_number": instance.number,
                    "instance_id": instance.instance_id,
                    "message_id": record.message_id,
                    "text": record.text,
                    "timestamp": record.at_s,
                    "to_phone_number": record.phone,
                }
                for record in sent[: -count - 1 : -1]
            ]
        )

    def _fine(self, message: object) -> bytes:
        return orjson.dumps({"status": True, "code": 200, "message": message})


def _count(fields: dict[str, object] | None) -> int | None:
    if fields is None:
        return None
    count = fields.get("count", 10)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


# --- Zixflow ----------------------------------------------------------------------------------------------------------

_ZIXFLOW_FIELDS = frozenset(
    {"to", "phoneId", "type", "image", "source", "linkWithRecord", "reportURL", "submissionStatus"}
)
_ZIXFLOW_IMAGE = frozenset({"link", "caption"})


class Zixflow:
    """Zixflow's campaign API (vendor page "Send Whatsapp Image Message")."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._campaign_id = self._id()
        self._recipients: dict[str, str] = {}

    def token(self, headers: Mapping[str, str]) -> str:
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        return key.strip() if scheme == "Bearer" else ""

    def judge(self, body: bytes) -> Claim:
        fields = _json_object(body)
        if fields is None:
            return Claim(("the body must be a JSON object",))
        problems = _unknown(fields, _ZIXFLOW_FIELDS)
        phone, phone_id, image = fields.get("to"), fields.get("phoneId"), fields.get("image")
        if not _is_phone(phone):
            problems.append(f"to {_PHONE_RULE}")
        if not isinstance(phone_id, str) or not phone_id.strip():
            problems.append("phoneId must be a string that is not empty")
        if fields.get("type") != "image":
            problems.append('type must be "image"')
        caption: object = ""
        if isinstance(image, dict):
            caption = image.get("caption", "")
            problems += _unknown(image, _ZIXFLOW_IMAGE, "image.")
            if not _is_url(image.get("link")):
                problems.append(f"image.link {_URL_RULE}")
            if not isinstance(caption, str):
                problems.append("image.caption must be a string")
        else:
            problems.append("image must be an object")
        if not isinstance(fields.get("source", ""), str):
            problems.append("source must be a string")
        if "reportURL" in fields and not _is_url(fields["reportURL"]):
            problems.append(f"reportURL {_URL_RULE}")
        problems += [
            f"{name} must be true or false"
            for name in ("linkWithRecord", "submissionStatus")
            if not isinstance(fields.get(name, False), bool)
        ]
        return Claim(
            tuple(problems),
            phone=phone if isinstance(phone, str) else "",
            text=caption if isinstance(caption, str) else "",
            wants_ids=fields.get("submissionStatus") is True,
        )

    def take(self, token: str, claim: Claim, now_us: int) -> Receipt:
        if not claim.wants_ids:
            return Receipt(orjson.dumps({"status": True, "message": "Message sent successfully"}), "")
        message_id = self._id()
        self._recipients[message_id] = claim.phone
        reply = {
            "status": True,
            "message": "WhatsApp sent successfully!",
            "campaignId": self._campaign_id,
            "messageId": message_id,
        }
        return Receipt(orjson.dumps(reply), message_id)

    def refusal(self, status: int, reasons: Iterable[str] = ()) -> bytes:
        usual = {400: "Invalid data Provided", 401: "Unauthorised"}.get(status) or _phrase(status)
        return orjson.dumps({"status": False, "message": ": ".join(filter(None, (usual, ", ".join(reasons))))})

    def report(self, message_id: str) -> bytes | None:
        """`GET /report/whatsapp/{messageId}` (the shape is assumed). None: no such message."""
        phone = self._recipients.get(message_id)
        if phone is None:
            return None
        return orjson.dumps({"status": True, "data": {"messageId": message_id, "to": phone, "status": "delivered"}})

    def _id(self) -> str:
        return f"{self._rng.getrandbits(96):024x}"
