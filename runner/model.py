"""The words of the project as types: what flows between the modules. Pure data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """Where one row of the audience stands. Every input row is in exactly one of these."""

    PENDING = "pending"  # planned and frozen, nobody has touched it yet
    CLAIMED = "claimed"  # a live run holds it; no byte has been written
    IN_FLIGHT = "in_flight"  # durable intent to send; the request may be on the wire
    RETRY_WAIT = "retry_wait"  # certainly not sent; will be tried again after `not_before`
    ACCEPTED = "accepted"  # the provider gave positive proof that it took the message
    REJECTED = "rejected"  # the provider definitely refused this recipient or content
    NOT_SENT = "not_sent"  # certainly not sent; attempts or deadline used up
    UNKNOWN = "unknown"  # may or may not have been sent; never sent again by the program itself
    SKIPPED = "skipped"  # never to be sent, for the reason beside it

    @property
    def final(self) -> bool:
        """Whether the program will leave the row as it is (only a person can move it on)."""
        return self in FINAL


FINAL = frozenset({Status.ACCEPTED, Status.REJECTED, Status.NOT_SENT, Status.UNKNOWN, Status.SKIPPED})


class SkipReason(StrEnum):
    """Why a row is never sent. A closed list, so that reports can total it."""

    INVALID_PHONE = "invalid_phone"
    WRONG_COUNTRY = "wrong_country"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    FILTERED = "filtered"
    RENDER_ERROR = "render_error"
    CAPTION_TOO_LONG = "caption_too_long"
    MEDIA_UNUSABLE = "media_unusable"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What one attempt proved (design: decided by the phase reached, never by the exception's class)."""

    ACCEPTED = "accepted"  # positive proof in a complete reply
    REJECTED = "rejected"  # a documented, definite refusal
    NOT_SENT = "not_sent"  # the provider certainly did not act on it; may be tried again
    UNKNOWN = "unknown"  # everything else


class Delivery(StrEnum):
    """What became of an accepted message. Only moves forward; `failed` may be overtaken by a later receipt."""

    NONE = ""
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Message:
    """What one recipient is to receive, frozen at plan time."""

    phone: str  # E.164 digits without the plus, e.g. "905321234567"
    image: str  # the image's http(s) address, rendered
    caption: str  # the caption, rendered; may be empty
    scheduled_at: int | None = None  # Unix seconds at which the provider should send it, where it can


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete but for the socket. Headers may hold the secret, so they never print."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete, bounded HTTP reply. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool = False  # the body was longer than we read
    came_at: float | None = field(default=None, compare=False)  # when its first bytes came, by time.monotonic


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to. Failure is a value here, never an exception."""

    verdict: Verdict
    reason: str = ""  # one word of ours, e.g. "bad_request"; empty when accepted
    code: str = ""  # the provider's HTTP status or own code
    detail: str = ""  # the provider's own words, trimmed
    queue_id: str = ""  # the provider's id for the message
    retry_after: float | None = None  # seconds the provider asked the whole sender to wait
    stop: str = ""  # not empty: nothing else in this campaign can succeed; says why
    throttled: bool = False  # the sender as a whole was told to slow down (429)


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt that brought no complete reply. `sent` tells whether a byte may have left this machine."""

    sent: bool
    kind: str  # one word: "dns", "unreachable", "connect_timeout", "tls", "reply_timeout", "connection_lost" ...
    detail: str = ""  # safe to show: never an exception's repr (that would print the token)
    stop: str = ""  # not empty: the fault is in the set-up (certificate), no recipient can succeed
