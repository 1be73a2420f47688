"""When a signed link stops working, read from its own query parameters. Pure text in, a moment out.

The provider fetches the image when the message is sent, or later still, so a link made for an hour shows some people a picture and
others an error. Known here (from the vendors' pages): Amazon S3 and CloudFront, Google Cloud Storage, Azure SAS, Alibaba OSS,
Tencent COS, Facebook/Instagram and Discord CDNs, Akamai tokens, signed JSON Web Tokens (Supabase and others), plain `Expires=`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

_FIELDS = 200  # query parameters looked at
_TOKEN = 8192  # characters of an encoded token looked at
_EARLIEST, _LATEST = 1_000_000_000, 100_000_000_000  # Unix seconds: 2001 to the year 5138; 13 digits are milliseconds
_PLAIN = ("expires", "expire", "expiry", "expiration", "exp", "expires_at", "x-expires")
_PAIRS = (("x-amz-date", "x-amz-expires"), ("x-goog-date", "x-goog-expires"), ("x-oss-date", "x-oss-expires"))
_HEX = ("oe", "ex")  # Facebook's and Discord's CDN
_AKAMAI = ("hdnts", "hdnea", "hdntl", "__token__")
_JWT = ("token", "jwt", "access_token", "auth")
_SIGNATURES = frozenset({
    "signature", "sig", "sign", "hmac", "hm", "oh", "policy", "auth_key", "q-signature", "verify", "key-pair-id",
    "x-amz-signature", "x-goog-signature", "x-oss-signature", *_AKAMAI,
})  # fmt: skip
_SESSIONS = frozenset({"x-amz-security-token", "x-oss-security-token"})


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a link works. `until` in Unix seconds, None if the link does not tell."""

    until: float | None = None
    signed: bool = False  # it bears a signature
    session: bool = False  # signed with short-lived credentials: it may stop earlier than it says


def lease(url: str) -> Lease:
    """Read the query of an address. Total: any text gives a Lease; of several moments the earliest counts."""
    query = url.partition("#")[0].partition("?")[2]
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        return Lease()
    given = {name.lower(): value[:_TOKEN] for name, value in reversed(pairs)}  # the first of a repeated one counts
    moments = [moment for moment in _moments(given) if moment is not None]
    return Lease(min(moments, default=None), not _SIGNATURES.isdisjoint(given), not _SESSIONS.isdisjoint(given))


def _moments(given: Mapping[str, str]) -> Iterator[float | None]:
    for name in _PLAIN:
        yield _moment(given.get(name, ""))
    for start, length in _PAIRS:
        yield _lasting(_date(given.get(start, "")), given.get(length, ""))
    if "sig" in given:
        yield _date(given.get("se", ""))
    for name in _HEX:
        yield _hexadecimal(given.get(name, ""))
    for name in _AKAMAI:
        match = re.search(r"(?:^|~)exp=([0-9]{9,13})(?:~|$)", given.get(name, ""))
        yield _moment(match[1]) if match else None
    yield _moment(given.get("q-sign-time", "").partition(";")[2])
    yield _policy(given.get("policy", ""))
    for name in _JWT:
        yield _claim(given.get(name, ""))


def _moment(text: str) -> float | None:
    """Unix seconds or milliseconds, or an ISO 8601 date."""
    if not re.fullmatch(r"[0-9]{1,14}(\.[0-9]{1,9})?", text):
        return _date(text)
    number = float(text)
    if _EARLIEST <= number < _LATEST:
        return number
    return number / 1000 if _EARLIEST * 1000 <= number < _LATEST * 1000 else None


def _date(text: str) -> float | None:
    if not re.match(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", text):
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query reads as a blank
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds >= _EARLIEST else None


def _lasting(start: float | None, seconds: str) -> float | None:
    return start + int(seconds) if start is not None and re.fullmatch(r"[0-9]{1,10}", seconds) else None


def _hexadecimal(text: str) -> float | None:
    if not re.fullmatch(r"[0-9a-fA-F]{8}", text):
        return None
    number = int(text, 16)
    return float(number) if number >= _EARLIEST else None


def _policy(text: str) -> float | None:
    """CloudFront's custom policy: base64 with -_~ for +=/ (vendor page)."""
    decoded = _json(text.translate(str.maketrans("-_~", "+=/")))
    match decoded:
        case {"Statement": [{"Condition": {"DateLessThan": {"AWS:EpochTime": int(moment)}}}, *_]}:
            return _moment(str(moment))
    return None


def _claim(text: str) -> float | None:
    """The `exp` claim of a JSON Web Token (RFC 7519, 4.1.4)."""
    parts = text.split(".")
    if len(parts) != 3:
        return None
    match _json(parts[1].translate(str.maketrans("-_", "+/"))):
        case {"exp": int(moment) | float(moment)}:
            return _moment(str(int(moment))) if abs(moment) < _LATEST else None
    return None


def _json(text: str) -> object:
    try:
        return json.loads(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
