"""What the stand-in provider can be told to do to a request: magic phone numbers and scenario files.

A scenario file is YAML. Every key is optional:

    seed: 7                       # makes the drawn latencies and the ids repeatable
    latency: [20ms, 80ms]         # of every send; one value or a range to draw from (units us, ms, s)
    rate_limit: 40/s              # s, min, h or day: a real sliding window per token, answered with 429 and Retry-After
    queue_seconds: 2              # how long a Wapim message waits in the queue before it is 'sent'
    wapim_device_offline: true    # the linked phone is offline: messages stay in the queue
    magic: false                  # switch the magic numbers off (a large made-up audience is bound to contain some)
    rules:
      - phone: "9053200001*"      # exact or a glob, quoted; "*" if left out
        times: 2                  # applies to so many requests, then falls through to the next rule
        status: 503
        retry_after: 3            # whole seconds or an HTTP date; alone it means status 429
      - after: 100                # the first hundred matching requests pass
        every: 10                 # then each tenth is hit
        drop: reset               # before_read, after_read, reset, truncate, hang

The first rule that applies decides. A rule with nothing but `latency` slows the usual answer. `body` is raw text or a
mapping (sent as JSON); `headers` are added; `taken: true` makes a failure that nevertheless was processed.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Seconds = tuple[float, float]


class Drop(StrEnum):
    """How a connection ends without a whole reply."""

    BEFORE_READ = "before_read"  # closed as soon as the head is in; the body is never read
    AFTER_READ = "after_read"  # closed in an orderly way (FIN) after the whole request was read
    RESET = "reset"  # RST after the whole request was read
    TRUNCATE = "truncate"  # the reply ends before its Content-Length
    HANG = "hang"  # no reply until the client gives up


class Shape(StrEnum):
    """What stands in the body of the reply."""

    USUAL = "usual"  # as the vendor's page has it for this status
    STATUS_FALSE = "status_false"  # 200, and the body says `status: false`
    NO_PROOF = "no_proof"  # 200 and `{}`
    HTML = "html"  # 200 and a web page
    CUT = "cut"  # the success body cut short, with a Content-Length that agrees
    EMPTY = "empty"  # 200 and nothing


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to one request. All defaults: the vendor's usual success."""

    says: str = ""
    status: int | None = None  # None: 200 with the vendor's success body
    shape: Shape = Shape.USUAL
    body: bytes | None = None  # in place of the vendor's
    content_type: str = "application/json"  # of `body`
    headers: tuple[tuple[str, str], ...] = ()
    drop: Drop | None = None
    latency: Seconds | None = None
    first_only: bool = False  # later requests for the same phone succeed
    taken: bool | None = None  # None: as `takes` works it out

    @property
    def takes(self) -> bool:
        """Whether the provider has acted on the message although the reply may not say so."""
        if self.taken is not None:
            return self.taken
        if self.drop is not None:
            return self.drop is not Drop.BEFORE_READ
        return self.status is None or 200 <= self.status < 300

    @property
    def only_slows(self) -> bool:
        """Whether nothing but the time of the answer is changed."""
        return (
            self.status is None
            and self.body is None
            and self.drop is None
            and not self.headers
            and self.shape is Shape.USUAL
            and self.taken is None
        )


_RETRY_1 = (("Retry-After", "1"),)

MAGIC: Mapping[str, Action] = MappingProxyType(
    {
        "0400": Action("400, the documented refusal", status=400),
        "0401": Action("401, the token is refused", status=401),
        "0402": Action("402, the account must pay", status=402),
        "0403": Action("403, forbidden", status=403),
        "0413": Action("413, the image is over 5 MB", status=413),
        "0422": Action("422, the content is refused", status=422),
        "0429": Action("429 with Retry-After 1 the first time, then success", 429, headers=_RETRY_1, first_only=True),
        "0430": Action("429 with Retry-After 1 every time", 429, headers=_RETRY_1),
        "0500": Action("500 every time", status=500),
        "0502": Action("502 with a gateway's web page", status=502),
        "0503": Action("503 with a gateway's web page", status=503),
        "0504": Action("504 with a gateway's web page", status=504),
        "0600": Action("200 with status:false, not taken", shape=Shape.STATUS_FALSE, taken=False),
        "0601": Action("200 with {} and no proof, taken", shape=Shape.NO_PROOF),
        "0700": Action("connection closed after the request was read, taken", drop=Drop.AFTER_READ),
        "0701": Action("connection reset after the request was read, taken", drop=Drop.RESET),
        "0702": Action("reply cut before its Content-Length, taken", drop=Drop.TRUNCATE),
        "0703": Action("200 with a web page, taken", shape=Shape.HTML),
        "0704": Action("200 with JSON cut short, Content-Length agreeing, taken", shape=Shape.CUT),
        "0705": Action("no answer until the client gives up (120 s at most), taken", drop=Drop.HANG),
        "0706": Action("200 with an empty body, taken", shape=Shape.EMPTY),
        "0707": Action("success after 2 s", latency=(2.0, 2.0)),
        "0708": Action("302 to another path, not taken", status=302),
        "0709": Action("307 to another path, not taken", status=307),
    }
)
"""The last four digits of a phone number choose what happens to its message; any other number succeeds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a scenario: which requests it is for, and what is done to them."""

    action: Action
    phone: str = "*"
    times: int | None = None
    after: int = 0
    every: int = 1


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` requests in any `seconds` (a half-open window: the one that is exactly `seconds` old is out)."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the stand-in behaves. The defaults are a provider without faults, apart from the magic numbers."""

    seed: int | None = None
    latency: Seconds = (0.0, 0.0)
    rate_limit: RateLimit | None = None
    queue_seconds: float = 2.0
    wapim_device_offline: bool = False
    magic: bool = True
    rules: tuple[Rule, ...] = ()


@dataclass(slots=True)
class _Tally:
    number: int
    rule: Rule
    pattern: re.Pattern[str]
    seen: int = 0
    used: int = 0

    def applies(self, phone: str) -> bool:
        if not self.pattern.match(phone):
            return False
        self.seen += 1
        turn = self.seen - self.rule.after
        if turn <= 0 or turn % self.rule.every or (self.rule.times is not None and self.used >= self.rule.times):
            return False
        self.used += 1
        return True


class RuleBook:
    """The rules of a scenario while it runs: counts what each has seen, and picks the one that applies."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        tallies = [
            _Tally(number, rule, re.compile(fnmatch.translate(rule.phone))) for number, rule in enumerate(rules, 1)
        ]
        self._early = [tally for tally in tallies if tally.rule.action.drop is Drop.BEFORE_READ]
        self._usual = [tally for tally in tallies if tally.rule.action.drop is not Drop.BEFORE_READ]

    def before_read(self) -> int | None:
        """The number of the rule that closes this connection unread. The phone is not known yet: such rules are for all."""
        return next((tally.number for tally in self._early if tally.applies("")), None)

    def pick(self, phone: str) -> tuple[int, Action] | None:
        """The number and action of the first rule that applies to this request, in the order of the file."""
        for tally in self._usual:
            if tally.applies(phone):
                return tally.number, tally.rule.action
        return None


@dataclass(slots=True)
class SlidingLimit:
    """A real sliding-window limit: remembers when each admitted request of a token came. Refused ones do not count."""

    limit: RateLimit
    _admitted: dict[str, deque[int]] = field(default_factory=dict)

    def refuse(self, token: str, now_us: int) -> int:
        """0 if the request is admitted, else the whole seconds to wait (what Retry-After can say)."""
        window_us = round(self.limit.seconds * 1_000_000)
        times = self._admitted.setdefault(token, deque())
        while times and now_us - times[0] >= window_us:
            times.popleft()
        if len(times) < self.limit.count:
            times.append(now_us)
            return 0
        return max(1, math.ceil((times[0] + window_us - now_us) / 1_000_000))
