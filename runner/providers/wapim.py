"""Wapim: 'Send Image Message' (vendor page). A gateway to one WhatsApp phone that was linked by QR code."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field

from runner.model import Message, Outcome, Reply, Request, Verdict
from runner.providers.base import (
    Abilities,
    Inquiry,
    Provider,
    ProviderSettings,
    Suspect,
    is_success,
    read_id,
    read_object,
    read_status,
    words,
)

# --- ASSUMED: what the vendor's pages do not say. Change it here and nowhere else. ------------------------------------

CAPTION_LIMIT = 1024  # characters; no length is stated, this is WhatsApp's own (Meta's page on image messages)
IMAGE_LIMIT = (
    5 * 1024 * 1024
)  # bytes; "Max. 5mb" does not say which megabyte, so the larger: the vendor refuses the rest
POLITE_RATE = "10/min"  # the vendor's README said "10 messages per minute" on one day of 2020, and no number since
POLITE_CONCURRENCY = 1  # one linked phone sends one message at a time


def scheduled_time(unix_seconds: int) -> str:
    """`scheduled_time` is a string named "timestamp" on the page, without a unit; every other one there is in seconds."""
    return str(unix_seconds)


HISTORY_COUNT = 20  # records asked for: the message in doubt is among the newest of its chat
CLOCK_SLACK = 5.0  # seconds that the vendor's clock may be behind ours; its timestamps are whole seconds
IMAGE_EVENTS = {"", "imagemessage", "image"}  # `event_name` of an image; only "TextMessage" is shown on the page


# --- from the vendor page ---------------------------------------------------------------------------------------------

BASE_URL = "https://api.wapim.io"
PATH = "/api/v1/whatsapp/message/image"
HISTORY_PATH = "/api/v1/whatsapp/messages"
QUEUE_PATH = "/api/v1/whatsapp/queue"


class Settings(ProviderSettings):
    """The `provider:` block for Wapim. The token stands for one linked WhatsApp number, so there is no sender to name."""

    name: Literal["wapim"] = Field(description="wapim")
    base_url: str = Field(
        default=BASE_URL,
        description="The vendor's address. Its newer pages show https://api.wapim.co. https, or http to this machine.",
    )


ABILITIES = Abilities(
    title="Wapim",
    summary="one linked WhatsApp phone per token; queues each message",
    page="https://github.com/Wapim/wapim-docs (Send Image Message)",
    default_base_url=BASE_URL,
    caption_limit=CAPTION_LIMIT,
    image_limit=IMAGE_LIMIT,
    default_rate=POLITE_RATE,
    default_concurrency=POLITE_CONCURRENCY,
    queue_ids="with every acceptance (queue_message_id)",
    schedules=True,
    notes=(
        "accepted means queued: the linked phone must be on-line for the message to leave the queue",
        "the vendor asks its users not to spam: WhatsApp may ban the number",
        "a scheduled message cannot be taken back alone, only by clearing the whole account's queue",
    ),
)


def body(_settings: Settings, message: Message) -> bytes:
    """The image message for one recipient, its keys in the page's order."""
    fields = {"phone_number": message.phone, "content_url": message.image}
    if message.caption:
        fields["caption"] = message.caption
    if message.scheduled_at is not None:
        fields["scheduled_time"] = scheduled_time(message.scheduled_at)
    return orjson.dumps(fields)


def build(settings: Settings, message: Message) -> Request:
    """The request with that body."""
    headers = {
        "token": settings.token.get_secret_value(),
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    return Request("POST", settings.base_url + PATH, headers, body(settings, message))


def read(reply: Reply) -> Outcome:
    """Accepted: 2xx with a `queue_message_id`. A success has no `status`; a false one beside the id contradicts it."""
    answer = read_object(reply) if is_success(reply) else None
    queue_id = read_id(answer.get("queue_message_id")) if answer else ""
    if not queue_id:
        return read_status(reply)
    if answer and answer.get("status") is False:
        return Outcome(Verdict.UNKNOWN, "no_proof", str(reply.status), words(reply, answer), queue_id)
    return Outcome(Verdict.ACCEPTED, code=str(reply.status), detail=words(reply, answer), queue_id=queue_id)


def sender(settings: Settings) -> str:
    """One token is one linked number."""
    return f"wapim:{urlsplit(settings.base_url).netloc}:{settings.token.get_secret_value()}"


def ask(settings: Settings, suspect: Suspect) -> tuple[Request, ...]:
    """The queue, when the message's id is known; then the newest messages of the chat (vendor pages 'Queue', 'Chat History')."""
    headers = {"token": settings.token.get_secret_value()}
    queue = Request("GET", settings.base_url + QUEUE_PATH, headers, b"")
    body = orjson.dumps({"phone_number": suspect.phone, "count": HISTORY_COUNT})
    history = Request("POST", settings.base_url + HISTORY_PATH, headers | {"Content-Type": "application/json"}, body)
    return (queue, history) if suspect.queue_id else (history,)


def proof(suspect: Suspect, reply: Reply) -> str:
    """Its id in the queue; or an outgoing image to this number with this caption, not older than the attempt."""
    answer = read_object(reply) if is_success(reply) else None
    listed = answer.get("message") if answer else None
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, str) and suspect.queue_id and entry == suspect.queue_id:
            return f"waiting in the vendor's queue as {entry}"
        if isinstance(entry, dict) and _is_it(suspect, entry):
            return f"chat history: outgoing image with this caption, message {read_id(entry.get('message_id')) or '?'}"
    return ""


def _is_it(suspect: Suspect, record: dict[str, object]) -> bool:
    at = record.get("timestamp")
    return (
        record.get("from_me") is True
        and str(record.get("event_name") or "").lower() in IMAGE_EVENTS
        and str(record.get("to_phone_number") or "").split("@")[0].lstrip("+") == suspect.phone
        and str(record.get("text") or "") == suspect.caption
        and isinstance(at, int | float)
        and at >= suspect.attempted_at - CLOCK_SLACK
    )


PROVIDER = Provider("wapim", Settings, ABILITIES, body, build, read, sender, Inquiry(ask, proof))
