"""What every registered provider must do. A new provider is judged by its folder of recordings; nothing here names one.

`tests/providers/<name>/*.json` are recorded replies with the outcome expected of each; `page/request-*.json` beside
them are requests as the vendor's page has them, and `page/proof.json` is what an acceptance must hold.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from runner.model import Message, Outcome, Reply, Verdict
from runner.providers import PROVIDERS
from runner.providers.base import Provider, ProviderSettings
from runner.refusals import MEND, Reason

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "providers"


@dataclass(frozen=True)
class Recorded:
    """One file of `tests/providers/<name>`."""

    provider: str
    name: str
    reply: Reply
    expected: dict[str, object]
    source: str


def _replies(provider: str) -> list[Recorded]:
    found = []
    for path in sorted((RECORDED / provider).glob("*.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        reply = case["reply"]
        body = base64.b64decode(reply["body_base64"]) if "body_base64" in reply else reply["body"].encode()
        found.append(
            Recorded(
                provider,
                path.stem,
                Reply(reply["status"], reply["headers"], body, reply.get("truncated", False)),
                case["expected"],
                case["source"],
            )
        )
    return found


def _page(provider: str, pattern: str) -> list[dict[str, Any]]:
    """The vendor page's requests and proof; JSON of any shape, so its values have no type."""
    paths = sorted((RECORDED / provider / "page").glob(pattern))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _settings(provider: Provider[Any], **changes: object) -> ProviderSettings:
    settings: ProviderSettings = provider.settings.model_validate(
        _page(provider.name, "request-least.json")[0]["settings"] | changes
    )
    return settings


EVERY_REPLY = [case for name in PROVIDERS for case in _replies(name)]
DOCUMENTED_SUCCESSES = [
    case for case in EVERY_REPLY if case.source != "fault" and case.expected["verdict"] == Verdict.ACCEPTED
]
EVERY_REQUEST = [(name, case) for name in PROVIDERS for case in _page(name, "request-*.json")]
every_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))


def _proves(provider: str, reply: Reply) -> bool:
    """An oracle of our own, on another JSON reader: whether a reply holds what `page/proof.json` demands."""
    if reply.truncated or not 200 <= reply.status <= 299:
        return False
    try:
        answer = json.loads(reply.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    proof = _PROOFS[provider]
    value = answer.get(proof["key"]) if isinstance(answer, dict) else None
    if proof["is"] == "text":
        return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= 200
    return value is proof["is"]


_PROOFS = {name: _page(name, "proof.json")[0] for name in PROVIDERS}


def _is_sound(outcome: Outcome) -> None:
    """What holds for every outcome of every reply."""
    assert isinstance(outcome.verdict, Verdict)
    assert (outcome.reason == "") == (outcome.verdict is Verdict.ACCEPTED)
    assert outcome.reason in {"", *Reason}
    assert len(outcome.detail) <= 300
    assert outcome.detail.isprintable()
    assert len(outcome.queue_id) <= 200
    assert outcome.queue_id.isprintable()
    assert outcome.code.isdigit()
    assert outcome.retry_after is None or 0 <= outcome.retry_after <= 999_999
    assert not (outcome.stop and outcome.verdict is Verdict.ACCEPTED)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EVERY_REPLY, ids=lambda case: f"{case.provider}-{case.name}")
def test_a_recorded_reply_has_its_expected_outcome(case: Recorded) -> None:
    outcome = PROVIDERS[case.provider].read(case.reply)
    _is_sound(outcome)
    assert {
        "verdict": outcome.verdict.value,
        "reason": outcome.reason,
        "code": outcome.code,
        "queue_id": outcome.queue_id,
        "stop": bool(outcome.stop),
        "retry_after": outcome.retry_after,
        "throttled": outcome.throttled,
    } == case.expected


@pytest.mark.parametrize("case", DOCUMENTED_SUCCESSES, ids=lambda case: f"{case.provider}-{case.name}")
def test_a_success_cut_at_any_byte_is_unknown(case: Recorded) -> None:
    read = PROVIDERS[case.provider].read
    reply = case.reply
    complete = len(reply.body.rstrip())
    for length in range(complete):
        cut = read(Reply(reply.status, reply.headers, reply.body[:length]))
        assert cut.verdict is Verdict.UNKNOWN, reply.body[:length]
    assert read(Reply(reply.status, reply.headers, reply.body[:complete])).verdict is Verdict.ACCEPTED


@every_provider
def test_no_status_is_an_acceptance_by_itself(provider: Provider[Any]) -> None:
    for status in range(100, 1000):
        for body in (b"", b"{}", b"OK"):
            outcome = provider.read(Reply(status, {}, body))
            _is_sound(outcome)
            assert outcome.verdict is not Verdict.ACCEPTED


@every_provider
@pytest.mark.parametrize("body", [b"[" * 65_536, b'{"a":' * 13_000, b"9" * 65_536, b"\xff" * 65_536, b"eyJ" * 20_000])
def test_a_body_made_to_choke_a_reader_is_unknown(provider: Provider[Any], body: bytes) -> None:
    outcome = provider.read(Reply(200, {}, body))
    _is_sound(outcome)
    assert outcome.verdict is Verdict.UNKNOWN


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(
    [
        "queue_message_id",
        "status",
        "message",
        "error",
        "messageId",
        "code",
        *(proof["key"] for proof in _PROOFS.values()),
    ]
)
_values = st.sampled_from([True, False, 1, 0, "true", "", " ", None, "905546453474_997B", "9" * 201, ["x"]]) | _json
_answers = st.dictionaries(_keys, _values, max_size=6).map(lambda answer: json.dumps(answer).encode())
_bodies = st.binary(max_size=300) | _answers | _json.map(lambda value: json.dumps(value).encode())
_headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "content-type"]),
    st.text(max_size=30) | st.integers().map(str) | st.just("Sun, 01 Mar 2026 10:00:00 GMT"),
    max_size=3,
)
_replies_of_any_kind = st.builds(
    Reply,
    status=st.integers(100, 999) | st.sampled_from([200, 201, 400, 429]),
    headers=_headers,
    body=_bodies,
    truncated=st.booleans(),
)


@every_provider
@settings(deadline=None)  # the machine may be busy
@given(reply=_replies_of_any_kind)
def test_reading_never_raises_and_accepts_on_proof_only(provider: Provider[Any], reply: Reply) -> None:
    outcome = provider.read(reply)
    _is_sound(outcome)
    if outcome.verdict is Verdict.ACCEPTED:
        assert _proves(provider.name, reply)


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), EVERY_REQUEST)
def test_a_request_is_the_vendor_pages_own(name: str, case: dict[str, Any]) -> None:
    provider = PROVIDERS[name]
    settings, message = provider.settings.model_validate(case["settings"]), Message(**case["message"])
    request = provider.build(settings, message)
    assert request.body == provider.body(settings, message), "what a plan is hashed from"
    assert request.method == case["expected"]["method"]
    assert request.url == case["expected"]["url"]
    assert request.headers == case["expected"]["headers"]
    # As text: the keys' order counts too, and true is not 1.
    assert request.body.decode() == json.dumps(case["expected"]["body"], ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(("name", "case"), EVERY_REQUEST)
def test_the_token_is_in_one_header_and_nowhere_else(name: str, case: dict[str, Any]) -> None:
    provider = PROVIDERS[name]
    token = case["settings"]["token"]
    settings = provider.settings.model_validate(case["settings"])
    request = provider.build(settings, Message(**case["message"]))
    assert [token in value for value in request.headers.values()].count(True) == 1
    shown = [request.url, request.body.decode(), repr(request), str(request), repr(settings), str(settings)]
    shown += [settings.model_dump_json(), repr(settings.model_dump())]
    assert not [text for text in shown if token in text]


@every_provider
def test_a_message_that_cannot_be_scheduled_is_never_built(provider: Provider[Any]) -> None:
    message = Message("905320000001", "https://cdn.example.com/a.jpg", "", scheduled_at=1_772_359_200)
    if provider.abilities.schedules:
        assert b"1772359200" in provider.build(_settings(provider), message).body
    else:
        with pytest.raises(ValueError, match="later time"):
            provider.build(_settings(provider), message)


# --- settings ---------------------------------------------------------------------------------------------------------

WRONG_TOKENS = [
    "",
    "  ",
    "two words",
    "line\r\nX-Injected: 1",
    "tab\there",
    "ğüş-token",
    "nbsp\u00a0token",
    "nul\0",
    "Bearer abc",
]


@every_provider
@pytest.mark.parametrize("token", WRONG_TOKENS)
def test_a_token_that_is_no_header_value_is_refused_without_showing_it(provider: Provider[Any], token: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _settings(provider, token=token)
    assert [error["loc"] for error in caught.value.errors()] == [("token",)]
    assert len(token.strip()) < 4 or token not in str(caught.value)


@every_provider
def test_a_mistake_elsewhere_never_shows_the_token(provider: Provider[Any]) -> None:
    for changes in ({"base_url": 7}, {"base_url": "http://api.example.com"}, {"name": "other"}, {"colour": "red"}):
        with pytest.raises(ValidationError) as caught:
            _settings(provider, token="invented-token-4411", **changes)
        assert "invented-token-4411" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        provider.settings.model_validate({"token": "invented-token-4411", "colour": "red"})
    assert "invented-token-4411" not in str(caught.value)


@every_provider
def test_settings_are_strict_and_frozen(provider: Provider[Any]) -> None:
    settings = _settings(provider)
    with pytest.raises(ValidationError, match="frozen"):
        settings.token = SecretStr("other")  # type: ignore[misc]  # the type checker refuses it as well
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        _settings(provider, tokn="x")
    assert settings.base_url == provider.abilities.default_base_url


_tokens = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=60).filter(
    lambda token: token not in set(Reason)  # "bad_reply" as a token would be found in our own word for the reason
)


@every_provider
@settings(deadline=None)  # the machine may be busy
@given(token=_tokens, prose=st.text())
def test_a_token_that_the_vendor_repeats_is_blotted_out(provider: Provider[Any], token: str, prose: str) -> None:
    settings = _settings(provider, token=token)
    for answer in (
        {"status": False, "message": f"{prose} {token} {prose}"},
        {"status": True, "queue_message_id": token, "messageId": token, "message": prose},
        {"error": {token: [f"{'x ' * 130}{token}{token}"]}},
    ):
        for status in (200, 400):
            outcome = provider.judge(settings, Reply(status, {}, json.dumps(answer).encode()))
            assert token not in (outcome.queue_id, outcome.reason, outcome.code)
            assert token not in outcome.detail.replace("[hidden]", " ")


# --- senders ----------------------------------------------------------------------------------------------------------


@every_provider
def test_two_spellings_of_an_address_are_one_sender_and_two_hosts_are_two(provider: Provider[Any]) -> None:
    def sender(url: str) -> str:
        return provider.sender(_settings(provider, base_url=url))

    assert sender("https://api.example.com") == sender("https://API.example.com:443/")
    assert sender("https://api.example.com") != sender("https://api2.example.com")
    assert sender("http://127.0.0.1:8001") != sender("http://127.0.0.1:8002")
    assert sender("https://api.example.com").startswith(f"{provider.name}:")


# --- completeness -----------------------------------------------------------------------------------------------------


@every_provider
def test_a_provider_is_registered_under_its_own_name(provider: Provider[Any]) -> None:
    assert PROVIDERS[provider.name] is provider
    assert _settings(provider).name == provider.name


@every_provider
def test_a_provider_has_its_recordings(provider: Provider[Any]) -> None:
    replies = _replies(provider.name)
    assert len(replies) >= 15
    assert {case.source for case in replies} <= {"vendor page", "assumed", "fault"}
    pages = [case for case in replies if case.source == "vendor page"]
    assert {Verdict.ACCEPTED, Verdict.REJECTED} <= {case.expected["verdict"] for case in pages}
    assert {case.expected["verdict"] for case in replies} == set(Verdict)
    assert {path.name for path in RECORDED.iterdir() if path.is_dir()} == set(PROVIDERS)


@every_provider
def test_a_providers_page_names_every_setting_and_limit(provider: Provider[Any]) -> None:
    text = (ROOT / "docs" / "providers" / f"{provider.name}.md").read_text(encoding="utf-8")
    for field in provider.settings.model_fields:
        assert f"`{field}`" in text
    for fact in (
        provider.abilities.default_rate,
        provider.abilities.default_base_url,
        provider.abilities.page.split()[0],
    ):
        assert fact in text


@every_provider
def test_every_setting_is_described(provider: Provider[Any]) -> None:
    assert provider.settings.__doc__
    assert provider.settings.__doc__ != ProviderSettings.__doc__
    for name, field in provider.settings.model_fields.items():
        assert field.description, name


@every_provider
def test_abilities_are_usable_figures(provider: Provider[Any]) -> None:
    abilities = provider.abilities
    assert re.fullmatch(r"[1-9][0-9]*/(s|min|h|day)", abilities.default_rate)
    assert abilities.default_concurrency >= 1
    assert abilities.caption_limit > 0
    assert abilities.image_limit > 0
    assert abilities.title
    assert abilities.summary
    assert abilities.queue_ids


def test_every_reason_says_in_one_sentence_how_to_mend_it_and_is_recorded() -> None:
    assert set(MEND) == set(Reason)
    for sentence in MEND.values():
        assert re.fullmatch(r"[A-Z][^\n]{20,160}\.", sentence)
    assert {case.expected["reason"] for case in EVERY_REPLY} == {"", *Reason}
