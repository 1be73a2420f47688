"""When a run stops by itself: pure counting of outcomes, no clock. Account-level refusals stop at once, elsewhere.

A provider that fails *after* taking requests makes every further send a coin toss; one that refuses most recipients is telling
something about the whole list; an image that is too big for one is too big for all who share it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from runner.model import Outcome, Verdict

SHARE_PATTERN = r"\d{1,3}\s*%\s*of\s*\d{1,6}"
_SHARE = re.compile(r"\s*(\d{1,3})\s*%\s*of\s*(\d{1,6})\s*")


@dataclass(frozen=True, slots=True)
class Share:
    """`2% of 200`: more than 2 in 100, looked at over the last 200 outcomes (once there are so many)."""

    percent: int
    sample: int

    def __str__(self) -> str:
        return f"{self.percent}% of {self.sample}"

    def exceeded(self, count: int, seen: int) -> bool:
        """Whether `count` of `seen` is more than the share."""
        return count * 100 > self.percent * seen


def parse_share(text: str) -> Share:
    """`50% of 20`. Raises ValueError with words for a person."""
    match = _SHARE.fullmatch(text)
    if match is None or not 0 <= int(match[1]) <= 100 or int(match[2]) == 0:
        raise ValueError(f"{text!r} is not a share; write a percentage and a sample, such as 2% of 200")
    return Share(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class StopWhen:
    """The breaker's limits; None switches one off."""

    unknown_in_a_row: int | None = 5
    unknown: Share | None = Share(2, 200)
    rejected: Share | None = Share(50, 50)
    shared_image_refused: bool = True


class Breaker:
    """Fed with every outcome of a run. `shared_image`: all rows of the campaign have the same image."""

    def __init__(self, limits: StopWhen, *, shared_image: bool) -> None:
        self._limits = limits
        self._shared_image = shared_image
        self._unknown_row = 0
        self._unknown = _Recent(limits.unknown, Verdict.UNKNOWN)
        self._rejected = _Recent(limits.rejected, Verdict.REJECTED)

    def saw(self, outcome: Outcome) -> str:
        """Count an outcome; a sentence when the run should stop, else ''. Retries that were not sent do not count."""
        if outcome.verdict is Verdict.NOT_SENT:
            return ""
        limit = self._limits.unknown_in_a_row
        self._unknown_row = self._unknown_row + 1 if outcome.verdict is Verdict.UNKNOWN else 0
        if limit is not None and self._unknown_row >= limit:
            return f"{self._unknown_row} unknown outcomes in a row: the provider fails after taking messages"
        if outcome.reason == "image_too_large" and self._shared_image and self._limits.shared_image_refused:
            return "the image is too big for the provider, and everybody gets the same one"
        if self._unknown.tripped_by(outcome.verdict):
            return f"more than {self._limits.unknown} outcomes are unknown: the provider fails after taking messages"
        if self._rejected.tripped_by(outcome.verdict):
            return f"more than {self._limits.rejected} messages are refused"
        return ""

    def small_sample(self) -> str:
        """After a canary: the same shares over whatever has been seen; a sentence when the run should stop, else ''."""
        if self._unknown.exceeded():
            return "of the first messages more than the allowed share is unknown"
        if self._rejected.exceeded():
            return "of the first messages more than the allowed share is refused"
        return ""


class _Recent:
    """How many of the last outcomes have one verdict."""

    def __init__(self, share: Share | None, verdict: Verdict) -> None:
        self._share = share
        self._verdict = verdict
        self._last: deque[bool] = deque()
        self._count = 0

    def tripped_by(self, verdict: Verdict) -> bool:
        if self._share is None:
            return False
        hit = verdict is self._verdict
        self._last.append(hit)
        self._count += hit
        if len(self._last) > self._share.sample:
            self._count -= self._last.popleft()
        return len(self._last) == self._share.sample and self._share.exceeded(self._count, self._share.sample)

    def exceeded(self) -> bool:
        return self._share is not None and bool(self._last) and self._share.exceeded(self._count, len(self._last))
