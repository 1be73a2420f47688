"""The rules that providers share, and what is particular to one vendor's settings."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from pydantic import SecretStr, ValidationError

from runner.model import Message, Reply, Verdict
from runner.providers import wapim, zixflow
from runner.providers.base import read_object, read_status, retry_after, words
from runner.providers.credentials import check_address

TOKEN = SecretStr("invented-token-4411")
MESSAGE = Message("905320000001", "https://cdn.example.com/a.jpg", "")


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://API.Example.com/", "https://api.example.com"),
        ("HTTPS://api.example.com:443", "https://api.example.com"),
        ("https://api.example.com:8443/a/b//", "https://api.example.com:8443/a/b"),
        ("https://my_host-1.example.com/v1.0/~x", "https://my_host-1.example.com/v1.0/~x"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.8.9.1:80/", "http://127.8.9.1"),
        ("http://[::1]:8080/x/", "http://[::1]:8080/x"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_an_address_is_kept_in_one_spelling(text: str, kept: str) -> None:
    assert check_address(text, prefix_only=True) == kept
    assert check_address(kept, prefix_only=True) == kept


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "must be a web address"),
        ("api.example.com", "begin with https://"),
        ("ftp://api.example.com", "begin with https://"),
        ("https://", "begin with https:// and a host"),
        ("https:///path", "begin with https:// and a host"),
        ("http://api.example.com", "for this machine only"),
        ("http://10.0.0.1", "for this machine only"),
        ("http://0.0.0.0", "for this machine only"),
        ("http://localhost.example.com", "for this machine only"),
        ("http://127.0.0.1.example.com", "for this machine only"),
        ("http://2130706433", "for this machine only"),
        ("http://[::ffff:127.0.0.1]", "for this machine only"),
        ("https://user:hunter2@api.example.com", "user name or password"),
        ("https://api.example.com@evil.example", "user name or password"),
        ("https://api.example.com?x=1", "prefix"),
        ("https://api.example.com/?", "prefix"),
        ("https://api.example.com/#", "# part"),
        ("https://api.example.com/a//b", "prefix"),
        ("https://api.example.com/%2e%2e", "prefix"),
        ("https://api.example.com/a/../b", "prefix|\\. or \\.\\."),
        ("https://api.example.com:0", "port"),
        ("https://api.example.com:65536", "port"),
        ("https://api.example.com:x", "port"),
        ("https://-api.example.com", "host name"),
        ("https://api..example.com", "host name"),
        ("https://[fe80::1%25eth0]", "host name|web address"),
        ("https://[::zz]", "host name|web address"),
        ("https://ğ.example.com", "outside ASCII"),
        ("https://api.example.com\\@evil.example", "backslashes"),
        ("https://api.example.com\r\nX: 1", "spaces"),
        (" https://api.example.com", "spaces"),
    ],
)
def test_an_address_that_could_mislead_is_refused_in_words(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        check_address(text, prefix_only=True)
    assert "hunter2" not in str(caught.value)


def test_a_report_address_may_have_a_path_and_a_query_but_no_password() -> None:
    url = "https://reports.example.com/in/zixflow?key=a%20b&x=1"
    assert check_address(url, prefix_only=False) == url
    with pytest.raises(ValueError, match="password"):
        check_address("https://u:p@reports.example.com/", prefix_only=False)


# --- Zixflow's own settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phone_id", ["", "+905320000001", "12 34", "12a", "١٢٣", "1\n", "9" * 41])
def test_a_phone_id_that_is_not_digits_is_refused_and_says_where_to_find_it(phone_id: str) -> None:
    with pytest.raises(ValidationError, match="settings page, not the phone number"):
        zixflow.Settings(name="zixflow", token=TOKEN, phone_id=phone_id)


def test_a_phone_id_written_as_a_yaml_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="valid string"):
        zixflow.Settings.model_validate({"name": "zixflow", "token": TOKEN, "phone_id": 100000000000001})


def test_a_switch_in_words_is_refused() -> None:
    with pytest.raises(ValidationError, match="valid boolean"):
        zixflow.Settings.model_validate(
            {"name": "zixflow", "token": TOKEN, "phone_id": "1", "submission_status": "yes"}
        )


def test_a_report_address_over_plain_http_is_refused() -> None:
    with pytest.raises(ValidationError, match="https://"):
        zixflow.Settings(name="zixflow", token=TOKEN, phone_id="1", report_url="http://reports.example.com")


def test_a_zixflow_sender_is_the_number_and_a_wapim_sender_the_token() -> None:
    one = zixflow.Settings(name="zixflow", token=TOKEN, phone_id="1")
    assert zixflow.sender(one) == zixflow.sender(one.model_copy(update={"token": SecretStr("another-key")}))
    assert zixflow.sender(one) != zixflow.sender(one.model_copy(update={"phone_id": "2"}))
    phone = wapim.Settings(name="wapim", token=TOKEN)
    assert wapim.sender(phone) != wapim.sender(phone.model_copy(update={"token": SecretStr("another-key")}))


def test_zixflow_tells_of_the_session_before_a_campaign() -> None:
    assert any("open session" in note for note in zixflow.ABILITIES.notes)


def test_a_caption_travels_as_utf_8_whatever_its_letters() -> None:
    caption = 'Şımarık "tırnak" \\ \n\u2028 🌷 <b>'
    request = wapim.build(wapim.Settings(name="wapim", token=TOKEN), Message("905320000001", MESSAGE.image, caption))
    assert "Şımarık".encode() in request.body
    assert "🌷".encode() in request.body


# --- the vendor's words -----------------------------------------------------------------------------------------------


def _detail(body: str | bytes, status: int = 400) -> str:
    return read_status(Reply(status, {}, body.encode() if isinstance(body, str) else body)).detail


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"message":"Big file","error":"Max 5 MB file."}', "Big file; Max 5 MB file."),
        (
            '{"message":"Bad Request","error":{"Send Text":["One","Two"]}}',
            "Bad Request; Send Text: One; Send Text: Two",
        ),
        ('{"error":["One","One"]}', "One"),
        ('{"message":"Same","error":"Same"}', "Same"),
        ('{"message":"a\\u0000b\\u202ec\\ud800d\\r\\ne"}', "a b c d e"),
        ("<html><title>502 Bad\nGateway</title></html>", "502 Bad Gateway"),
        ("plain words", "plain words"),
        ('{"queue_mess', '{"queue_mess'),
        ("", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (
            '{"error":{"a":{"b":{"c":{"d":"too deep"}}}},"message":7}',
            '{"error":{"a":{"b":{"c":{"d":"too deep"}}}},"message":7}',
        ),
    ],
)
def test_the_vendors_words_are_found_in_every_shape_and_made_printable(body: str | bytes, detail: str) -> None:
    assert _detail(body) == detail


def test_a_body_is_read_as_by_the_codec_and_the_module_of_python() -> None:
    """With and without a mark at its beginning, whole or in part, and whatever stands around the object."""
    pieces = [
        b"",
        b"\xef\xbb\xbf",
        b"\xef\xbb",
        b"\xff",
        b" \r\n\t",
        b"\x0b",
        b"\xc2\xa0",
        b'{"a": [1, "\xc3\xbc"]}',
        b"{}",
        b"[]",
    ]
    read = 0
    for chosen in itertools.product(pieces, repeat=4):
        body = b"".join(chosen)
        try:
            expected = json.JSONDecoder().decode(body.decode("utf-8-sig"))
        except ValueError:
            expected = None
        expected = expected if isinstance(expected, dict) else None
        assert read_object(Reply(200, {}, body)) == expected, body
        read += expected is not None
    assert read > 50


def test_long_words_are_cut_between_words_at_300_characters() -> None:
    detail = _detail('{"message":"' + "word " * 200 + '"}')
    assert 290 < len(detail) <= 300
    assert set(detail.split()) == {"word", "…"}
    assert _detail('{"message":"' + "." * 900 + '"}') == "[hidden] …"


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer 8f31c2d",
        "token: 'abc-123'",
        "api_key=k3yk3yk3y",
        "0123456789abcdef0123456789abcdef",
        "eyJhbGciOi.eyJzdWIi.c2ln_x",
    ],
)
def test_what_looks_like_a_token_never_reaches_the_detail(secret: str) -> None:
    detail = _detail(f'{{"message":"You sent {secret} and it is wrong"}}')
    assert detail.endswith(("[hidden] and it is wrong", "[hidden]' and it is wrong"))
    assert re.split(r"[ =:']", secret.removesuffix("'"))[-1] not in detail


def test_ordinary_words_about_a_token_stay() -> None:
    for text in ("Unauthorised token expired", "Image https://cdn.example.com/spring/2026/a1.jpg was not found"):
        assert words(Reply(400, {}, b""), {"message": text}) == text


# --- Retry-After ------------------------------------------------------------------------------------------------------

DATE = "Sun, 01 Mar 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 7\t", 7.0),
        ("999999", 999_999.0),
        ("1000000", None),
        ("1.5", None),
        ("+5", None),
        ("٣", None),
        ("1e3", None),
        ("5, 6", None),
        ("", None),
        (DATE, 0.0),
        ("Sun, 01 Mar 2026 10:00:05 GMT", 5.0),
        ("Sunday, 01-Mar-26 10:00:05 GMT", 5.0),
        ("Sun Mar  1 10:00:05 2026", 5.0),
        ("Tue, 30 Jun 2026 23:59:60 GMT", 999_999.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 999_999.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun, 30 Feb 2026 10:00:05 GMT", None),
        ("Sun, 01 Mrz 2026 10:00:05 GMT", None),
        ("Sun, 01 Mar 2026 25:00:05 GMT", None),
        ("Sun, 01 Mar 2026 10:00:05 +0300", None),
        ("2026-03-01T10:00:05Z", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_against_the_replys_own(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text, "date": DATE}) == seconds


def test_a_date_without_the_replys_own_clock_is_ignored() -> None:
    assert retry_after({"retry-after": "Sun, 01 Mar 2026 10:00:05 GMT"}) is None
    assert retry_after({"retry-after": "Sun, 01 Mar 2026 10:00:05 GMT", "date": "yesterday"}) is None
    assert retry_after({}) is None


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_stop_says_the_status_and_how_to_mend_it() -> None:
    outcome = read_status(Reply(401, {}, b""))
    assert outcome.verdict is Verdict.REJECTED
    assert outcome.stop.startswith("HTTP 401: ")
    assert "token" in outcome.stop
