"""The contract of a provider, and the small rules that all providers share. Pure: no socket, no clock.

A provider is one file: a `Settings` model (its block of the campaign file), `ABILITIES`, `body`, `build` and `read`,
gathered into one `Provider` value, and one line in the dictionary of `runner.providers`.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from runner.model import Message, Outcome, Reply, Request, Verdict
from runner.providers.credentials import check_address, check_token
from runner.refusals import MEND, Reason

# --- settings -------------------------------------------------------------------------------------------------------


class ProviderSettings(BaseModel):
    """What every provider's block in the campaign file has in common.

    The text of a `ValidationError` never repeats the input, for the input may hold the token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    name: str = Field(description="The provider's name.")
    token: SecretStr = Field(
        description="The account's API key: the name of an environment variable such as ${WAPIM_TOKEN}, never the key itself."
    )
    base_url: str = Field(
        description="The vendor's address: https, or http to this machine. A path prefix is kept, a final slash is not."
    )

    @field_validator("token")
    @classmethod
    def _token_fits_a_header(cls, token: SecretStr) -> SecretStr:
        check_token(token.get_secret_value())
        return token

    @field_validator("base_url")
    @classmethod
    def _base_url_is_safe(cls, text: str) -> str:
        return check_address(text, prefix_only=True)


# --- the contract ---------------------------------------------------------------------------------------------------

S = TypeVar("S", bound=ProviderSettings)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a provider can do and what is polite with it; shown by `campaign providers`."""

    title: str  # the vendor's own name, "Wapim"
    summary: str  # one line for the table
    page: str  # where the facts come from
    default_base_url: str
    caption_limit: int  # characters
    image_limit: int  # bytes
    default_rate: str  # polite rate when the campaign names none, e.g. "10/min"
    default_concurrency: int
    queue_ids: str  # when a queue id comes back, in words
    schedules: bool  # whether the provider can send at a later time by itself
    notes: tuple[str, ...] = ()  # what a user must know before a campaign


@dataclass(frozen=True, slots=True)
class Suspect:
    """A message that may or may not have been sent, as far as we know it. `attempted_at` in Unix seconds."""

    phone: str
    image: str
    caption: str
    attempted_at: float
    queue_id: str  # the provider's id, where a reply carried one; usually empty


@dataclass(frozen=True, slots=True)
class Inquiry(Generic[S]):
    """How to ask the vendor what became of a suspect. Only presence is proof; absence never is (history may lag)."""

    ask: Callable[[S, Suspect], tuple[Request, ...]]  # one after the other, until one has proof; none: cannot be asked
    proof: Callable[[Suspect, Reply], str]  # what one reply says for it, in words; '' when that is no proof


@dataclass(frozen=True, slots=True)
class Provider(Generic[S]):
    """One vendor: a settings model, two pure functions, and how to ask about a message in doubt."""

    name: str
    settings: type[S]
    abilities: Abilities
    body: Callable[[S, Message], bytes]  # of the request; all of it that depends on the message
    build: Callable[[S, Message], Request]  # the request as the vendor's page has it, secret header included
    read: Callable[[Reply], Outcome]  # total: any status and any body gives an Outcome
    sender: Callable[[S], str]  # what identifies the sending account or number; may be secret, never stored as is
    inquiry: Inquiry[S]

    def judge(self, settings: S, reply: Reply) -> Outcome:
        """`read`, with our token blotted out should the vendor's answer repeat it. What the engine calls."""
        return without_token(self.read(reply), settings.token.get_secret_value())


def without_token(outcome: Outcome, token: str) -> Outcome:
    """The same outcome with the token blotted out of the vendor's words; an id that holds it is dropped.

    `words` never cuts inside a word, so that no half of a token stays behind.
    """
    leaked = len(token) >= 8 and token in outcome.queue_id  # a shorter one is no secret, and may be in an id by chance
    if token not in outcome.detail and not leaked:
        return outcome
    return replace(outcome, detail=outcome.detail.replace(token, HIDDEN), queue_id="" if leaked else outcome.queue_id)


# --- verdicts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    verdict: Verdict
    reason: Reason
    stops: bool = False  # every other row of the campaign would meet the same answer


# What a complete status line proves when there is no acceptance. The vendor pages show 400, 401 and 413 only; the rest
# follows RFC 9110 and is on the careful side: what may have been processed is UNKNOWN, never "try again".
_RULES: dict[int, _Rule] = {
    400: _Rule(Verdict.REJECTED, Reason.BAD_REQUEST),
    401: _Rule(Verdict.REJECTED, Reason.UNAUTHORISED, stops=True),
    402: _Rule(Verdict.REJECTED, Reason.PAYMENT_REQUIRED, stops=True),
    403: _Rule(Verdict.REJECTED, Reason.FORBIDDEN, stops=True),
    404: _Rule(Verdict.REJECTED, Reason.ENDPOINT_MISSING, stops=True),
    405: _Rule(Verdict.REJECTED, Reason.ENDPOINT_MISSING, stops=True),
    408: _Rule(Verdict.UNKNOWN, Reason.REQUEST_TIMEOUT),  # proxies send it in several situations
    409: _Rule(Verdict.UNKNOWN, Reason.CONFLICT),  # may mean "have it already"
    410: _Rule(Verdict.REJECTED, Reason.ENDPOINT_MISSING, stops=True),
    413: _Rule(Verdict.REJECTED, Reason.IMAGE_TOO_LARGE),
    422: _Rule(Verdict.REJECTED, Reason.BAD_REQUEST),
    429: _Rule(Verdict.NOT_SENT, Reason.RATE_LIMITED),  # a limiter answers before any work is done
    301: _Rule(Verdict.UNKNOWN, Reason.REDIRECTED, stops=True),  # after a POST often follows successful processing
    302: _Rule(Verdict.UNKNOWN, Reason.REDIRECTED, stops=True),
    303: _Rule(Verdict.UNKNOWN, Reason.REDIRECTED, stops=True),
    307: _Rule(Verdict.NOT_SENT, Reason.REDIRECTED, stops=True),  # by definition the work is to be done elsewhere
    308: _Rule(Verdict.NOT_SENT, Reason.REDIRECTED, stops=True),
    501: _Rule(Verdict.REJECTED, Reason.UNSUPPORTED, stops=True),
    505: _Rule(Verdict.REJECTED, Reason.UNSUPPORTED, stops=True),
}
_SERVER_ERROR = _Rule(Verdict.UNKNOWN, Reason.SERVER_ERROR)
_UNEXPECTED = _Rule(Verdict.UNKNOWN, Reason.UNEXPECTED_STATUS)


def read_status(reply: Reply) -> Outcome:
    """What a reply without proof of acceptance means, by its status. Total: never raises.

    A status below 200 or above 299 decides alone, whatever became of the body. Within 2xx only a readable body with
    the boolean `"status": false` is a refusal (both vendors' pages); all else is UNKNOWN.
    """
    answer = read_object(reply)
    code = str(reply.status)
    if not is_success(reply):
        rule = _RULES.get(reply.status, _SERVER_ERROR if 500 <= reply.status <= 599 else _UNEXPECTED)
    elif answer is None:
        blank = not reply.body.strip() and not reply.truncated
        rule = _Rule(Verdict.UNKNOWN, Reason.NO_PROOF if blank else Reason.BAD_REPLY)
    elif answer.get("status") is False:
        rule = _Rule(Verdict.REJECTED, Reason.REFUSED)
        code = _own_code(answer) or code
    else:
        rule = _Rule(Verdict.UNKNOWN, Reason.NO_PROOF)
    return Outcome(
        rule.verdict,
        rule.reason.value,
        code=code,
        detail=words(reply, answer),
        retry_after=retry_after(reply.headers),
        stop=f"HTTP {reply.status}: {MEND[rule.reason]}" if rule.stops else "",
        throttled=rule.reason is Reason.RATE_LIMITED,
    )


def is_success(reply: Reply) -> bool:
    """Whether the status is 2xx. Says nothing yet about the message."""
    return 200 <= reply.status <= 299


def read_object(reply: Reply) -> dict[str, object] | None:
    """The body as one JSON object, or None where it is cut, not JSON, not an object, or says a key twice.

    `json` and not `orjson`, for repeated keys must be seen: `{"status": false, "status": true}` proves nothing.
    A number of thousands of digits and a nesting of thousands of brackets raise in `json` and are None here.
    """
    if reply.truncated:
        return None
    try:
        text = reply.body.removeprefix(BOM_UTF8).decode().strip(_JSON_SPACE)  # the codec utf-8-sig is written in Python
        answer, end = _JSON.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return answer if end == len(text) and isinstance(answer, dict) else None


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


_JSON_SPACE = " \t\n\r"
_JSON = json.JSONDecoder(object_pairs_hook=_each_key_once, parse_constant=_no_constant)


def read_id(value: object) -> str:
    """A provider's id if it is credible (1 to 200 printable characters, not all blank), else ''."""
    return value if isinstance(value, str) and len(value) <= 200 and value.isprintable() and value.strip() else ""


def _own_code(answer: dict[str, object]) -> str:
    code = answer.get("code")
    return str(code) if isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 999_999 else ""


# --- the provider's own words ---------------------------------------------------------------------------------------

HIDDEN = "[hidden]"
_SAYING = ("message", "error")  # the fields with words for a person
SAID_BEFORE = 500  # characters: longer texts are not remembered
_TAGS = re.compile(r"<[^<>]{0,300}>")
# `read` does not know the token, so what looks like one is blotted out here already; `without_token` is exact.
_NAMED_SECRET = re.compile(
    r"""(?i)\b((?:bearer|token|api[ _-]?key|authori[sz]ation)["']?\s{0,3}[:=]?\s{0,3}["']?(?:bearer\s)?)"""
    r"""(?=[^\s"',;<>]{0,64}\d)[^\s"',;<>]{6,}"""
)
_LOOKS_SECRET = re.compile(r"[0-9a-fA-F]{32,}|eyJ[\w-]{5,}\.[\w-]+\.[\w-]+|(?<![\w/.:-])[\w+=~-]{40,}")


def words(reply: Reply, answer: dict[str, object] | None) -> str:
    """What the provider said, for a person: `message` and `error` in any documented shape, else the body's own text.

    At most 300 characters, one line, nothing that does not print; cut between words.
    """
    said: dict[str, None] = {}  # each part once, in order
    for name in _SAYING:
        if answer and name in answer:
            said.update(dict.fromkeys(_spoken(answer[name])))
    text = "; ".join(said) or _TAGS.sub(" ", reply.body.decode("utf-8", "replace"))
    return _said_before(text) if len(text) <= SAID_BEFORE else _presentable(text)


def _presentable(text: str) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in _cut(text, 8000)).split())
    text = _cut(text, 1000)  # the patterns below are not linear in the worst case
    text = _LOOKS_SECRET.sub(HIDDEN, _NAMED_SECRET.sub(rf"\1{HIDDEN}", text))
    return _cut(text, 300)


_said_before = lru_cache(64)(_presentable)  # a provider says the same to everybody


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters, never half a word: half a token would escape `without_token`."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 1].rpartition(' ')[0] or HIDDEN} …"


def _spoken(value: object, depth: int = 0) -> Iterator[str]:
    """The texts in an `error` or `message` field: a string, a list of strings, or an object of either (Wapim's page)."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, list) and depth < 3:
        for item in value[:10]:
            yield from _spoken(item, depth + 1)
    elif isinstance(value, dict) and depth < 3:
        for key, item in list(value.items())[:10]:
            for text in _spoken(item, depth + 1):
                yield f"{key}: {text}"


# --- Retry-After ----------------------------------------------------------------------------------------------------

_LONGEST_WAIT = 999_999  # seconds
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES = (  # RFC 9110 section 5.6.7, all in GMT
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) (?P<month>[A-Z][a-z]{{2}}) (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-(?P<month>[A-Z][a-z]{{2}})-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[0-9 ][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)


def retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for: 1 to 6 digits, or a date, taken from the reply's own `Date`.

    There is no clock here and ours may be wrong, so a date without a `Date` beside it is None, like anything malformed.
    """
    text = headers.get("retry-after", "").strip(" \t")
    if re.fullmatch(r"[0-9]{1,6}", text):
        return float(text)
    until, now = _http_date(text), _http_date(headers.get("date", "").strip(" \t"))
    if until is None or now is None:
        return None
    return min(max((until - now).total_seconds(), 0.0), float(_LONGEST_WAIT))


def _http_date(text: str) -> datetime | None:
    for form in _DATES:
        found = form.fullmatch(text)
        if found and found["month"] in _MONTHS:
            year = int(found["year"])
            if len(found["year"]) == 2:
                year += 2000 if year < 69 else 1900  # POSIX strptime's window
            month, second = _MONTHS.index(found["month"]) + 1, min(int(found["second"]), 59)  # 60 is a leap second
            try:
                return datetime(
                    year, month, int(found["day"]), int(found["hour"]), int(found["minute"]), second, tzinfo=UTC
                )
            except ValueError:
                return None
    return None
