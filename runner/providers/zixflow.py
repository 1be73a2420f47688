"""Zixflow: 'Send Whatsapp Image Message' of the campaign API, v1 (vendor page). A seller of Meta's Cloud API."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal
from urllib.parse import quote, urlsplit

import orjson
from pydantic import Field, field_validator

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
from runner.providers.credentials import check_address

# --- ASSUMED: what the vendor's pages do not say. Change it here and nowhere else. ------------------------------------

CAPTION_LIMIT = 1024  # characters; Meta's page on image messages, where the message ends up
IMAGE_LIMIT = 5 * 1024 * 1024  # bytes; Meta's limit for JPEG and PNG
POLITE_RATE = "5/s"  # no figure is published; Meta's ceiling is 80/s a number, shared with all else that it does
POLITE_CONCURRENCY = 10  # two seconds of waiting at 5/s, since submissionStatus makes each call slower
MESSAGE_ID = (
    "messageId"  # shown by the vendor for template messages sent with submissionStatus; taken to be the same here
)

REPORT_PATH = "/api/v1/campaign/report/whatsapp/"  # + messageId; known from third parties only
TAKEN = {"sent", "delivered", "read", "failed"}  # states of a message that Zixflow has handed on; the names are guesses

# --- from the vendor's pages ------------------------------------------------------------------------------------------

BASE_URL = "https://api.zixflow.com"
PATH = (
    "/api/v1/campaign/whatsapp/message/send"  # with the Bearer header, on the API reference; the image page has neither
)
DEFAULT_SOURCE = "API"


class Settings(ProviderSettings):
    """The `provider:` block for Zixflow: which number sends, and what becomes of the message in the CRM."""

    name: Literal["zixflow"] = Field(description="zixflow")
    base_url: str = Field(
        default=BASE_URL, description="The vendor's address. https, or http to this machine (a sandbox)."
    )
    phone_id: str = Field(
        description="The sending number's ID on Zixflow's WhatsApp settings page, digits in quotes; not the phone number."
    )
    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Where the message comes from, as shown in the CRM. Left out when unset; API with link_with_record.",
    )
    link_with_record: bool = Field(
        default=False, description="Tie each message to its CRM record and show it in the inbox."
    )
    report_url: str | None = Field(
        default=None, description="https address to which Zixflow posts its delivery reports. Left out when unset."
    )
    submission_status: bool = Field(
        default=True,
        description="Wait until WhatsApp has the message. Slower, but the only way to get a message id back.",
    )

    @field_validator("phone_id")
    @classmethod
    def _phone_id_is_digits(cls, text: str) -> str:
        if not re.fullmatch(r"[0-9]{1,40}", text):
            raise ValueError(
                "must be digits only: the ID beside the number on Zixflow's WhatsApp settings page, not the phone number"
            )
        return text

    @field_validator("report_url")
    @classmethod
    def _report_url_is_safe(cls, text: str | None) -> str | None:
        return None if text is None else check_address(text, prefix_only=False)


ABILITIES = Abilities(
    title="Zixflow",
    summary="WhatsApp Business number on Meta's Cloud API; image inside an open 24 h session",
    page="https://docs.zixflow.com/api-reference/campaign/whatsapp/messages/image-message",
    default_base_url=BASE_URL,
    caption_limit=CAPTION_LIMIT,
    image_limit=IMAGE_LIMIT,
    default_rate=POLITE_RATE,
    default_concurrency=POLITE_CONCURRENCY,
    queue_ids="with submission_status: true only (messageId)",
    schedules=False,
    notes=(
        "an image reaches only recipients with an open session: those who wrote to this number in the last 24 hours; "
        "to the others the message fails, first contact needs an approved template",
        "without submission_status no id comes back, and an unknown row cannot be looked up by one",
    ),
)


def body(settings: Settings, message: Message) -> bytes:
    """The image message for one recipient, its keys in the page's order, booleans always said.

    Raises ValueError for a message with `scheduled_at`: the API has no such field, and sending it now would be wrong.
    """
    if message.scheduled_at is not None:
        raise ValueError("Zixflow cannot send at a later time")
    image = {"link": message.image}
    if message.caption:
        image["caption"] = message.caption
    fields: dict[str, object] = {"to": message.phone, "phoneId": settings.phone_id, "type": "image", "image": image}
    if settings.source is not None or settings.link_with_record:
        fields["source"] = settings.source or DEFAULT_SOURCE
    fields["linkWithRecord"] = settings.link_with_record
    if settings.report_url is not None:
        fields["reportURL"] = settings.report_url
    fields["submissionStatus"] = settings.submission_status
    return orjson.dumps(fields)


def build(settings: Settings, message: Message) -> Request:
    """The request with that body; raises as `body` does."""
    headers = {
        "Authorization": f"Bearer {settings.token.get_secret_value()}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    return Request("POST", settings.base_url + PATH, headers, body(settings, message))


def read(reply: Reply) -> Outcome:
    """Accepted: 2xx with `status` exactly true. The text "true" and the number 1 are not it."""
    answer = read_object(reply) if is_success(reply) else None
    queue_id = read_id(answer.get(MESSAGE_ID)) if answer else ""
    if answer is None or answer.get("status") is not True:
        outcome = read_status(reply)
        return replace(outcome, queue_id=queue_id) if outcome.verdict is Verdict.UNKNOWN else outcome
    return Outcome(Verdict.ACCEPTED, code=str(reply.status), detail=words(reply, answer), queue_id=queue_id)


def sender(settings: Settings) -> str:
    """One phone ID is one number, whichever key is used."""
    return f"zixflow:{urlsplit(settings.base_url).netloc}:{settings.phone_id}"


def ask(settings: Settings, suspect: Suspect) -> tuple[Request, ...]:
    """The delivery report of one message; without its id there is nothing to ask by."""
    if not suspect.queue_id:
        return ()
    address = settings.base_url + REPORT_PATH + quote(suspect.queue_id, safe="")
    return (Request("GET", address, {"Authorization": f"Bearer {settings.token.get_secret_value()}"}, b""),)


def proof(suspect: Suspect, reply: Reply) -> str:
    """A report about this very message to this very number."""
    answer = read_object(reply) if is_success(reply) else None
    report = answer.get("data") if answer and answer.get("status") is True else None
    if not isinstance(report, dict) or report.get(MESSAGE_ID) != suspect.queue_id:
        return ""
    state = str(report.get("status") or "").lower()
    if state not in TAKEN or str(report.get("to") or "").lstrip("+") != suspect.phone:
        return ""
    return f"delivery report: {state}"


PROVIDER = Provider("zixflow", Settings, ABILITIES, body, build, read, sender, Inquiry(ask, proof))
