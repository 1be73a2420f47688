"""What a provider is asked about a message in doubt, and which answers are proof."""

from __future__ import annotations

import orjson
import pytest
from pydantic import SecretStr

from runner.model import Reply
from runner.providers import wapim, zixflow
from runner.providers.base import Suspect

PHONE, CAPTION, AT = "905320000001", "Hello Ada", 1_700_000_000.0
QUEUE_ID = "12025550100_0123456789ABCDEF0123"
WAPIM = wapim.Settings(name="wapim", token=SecretStr("invented-token"), base_url="https://wapim.example.com")
ZIXFLOW = zixflow.Settings(
    name="zixflow",
    token=SecretStr("invented-token"),
    base_url="https://zixflow.example.com",
    phone_id="100000000000042",
)
SENT = {
    "event_name": "ImageMessage",
    "from_me": True,
    "message_id": "3EB0AA",
    "text": CAPTION,
    "timestamp": int(AT) + 3,
    "to_phone_number": PHONE,
}


def suspect(queue_id: str = "") -> Suspect:
    return Suspect(PHONE, "https://cdn.example.com/a.jpg", CAPTION, AT, queue_id)


def reply(content: object, status: int = 200) -> Reply:
    return Reply(status, {}, orjson.dumps(content))


def wapim_list(*entries: object) -> Reply:
    return reply({"status": True, "code": 200, "message": list(entries)})


def test_wapim_is_asked_for_the_chat_and_for_the_queue_only_when_the_id_is_known() -> None:
    assert [request.method for request in wapim.ask(WAPIM, suspect())] == ["POST"]
    queue, history = wapim.ask(WAPIM, suspect(QUEUE_ID))
    assert (queue.method, queue.url) == ("GET", "https://wapim.example.com/api/v1/whatsapp/queue")
    assert orjson.loads(history.body)["phone_number"] == PHONE


def test_its_id_in_the_queue_proves_a_message() -> None:
    assert QUEUE_ID in wapim.proof(suspect(QUEUE_ID), wapim_list("12025550100_FFFF", QUEUE_ID))
    assert wapim.proof(suspect(QUEUE_ID), wapim_list("12025550100_FFFF")) == ""
    assert wapim.proof(suspect(), wapim_list("")) == ""


def test_an_outgoing_image_with_this_caption_after_the_attempt_proves_a_message() -> None:
    assert "3EB0AA" in wapim.proof(suspect(), wapim_list({**SENT, "text": "other"}, SENT))


@pytest.mark.parametrize(
    "other",
    [
        {"text": "Hello Grace"},
        {"from_me": False},
        {"to_phone_number": "905320000002"},
        {"event_name": "TextMessage"},
        {"timestamp": int(AT) - 3600},
        {"timestamp": None},
    ],
)
def test_anything_else_in_the_chat_proves_nothing(other: dict[str, object]) -> None:
    assert wapim.proof(suspect(), wapim_list({**SENT, **other})) == ""


@pytest.mark.parametrize("answer", [reply({"message": "nothing here"}), reply([SENT]), reply({"message": [SENT]}, 500)])
def test_an_answer_of_another_shape_proves_nothing(answer: Reply) -> None:
    assert wapim.proof(suspect(QUEUE_ID), answer) == ""


def test_zixflow_can_be_asked_only_about_a_message_with_an_id() -> None:
    assert zixflow.ask(ZIXFLOW, suspect()) == ()
    (request,) = zixflow.ask(ZIXFLOW, suspect("a/b"))
    assert request.url.endswith("a%2Fb")


def test_a_zixflow_report_about_this_message_to_this_number_proves_it() -> None:
    report = {zixflow.MESSAGE_ID: "m1", "status": "delivered", "to": f"+{PHONE}"}
    assert zixflow.proof(suspect("m1"), reply({"status": True, "data": report})) == "delivery report: delivered"
    for wrong in ({zixflow.MESSAGE_ID: "m2"}, {"to": "905320000002"}, {"status": "nonsense"}):
        assert zixflow.proof(suspect("m1"), reply({"status": True, "data": {**report, **wrong}})) == ""
