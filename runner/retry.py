"""Whether and when a message is tried again. A pure decision: no sleeping, no clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.model import Outcome, Status, Verdict

LONGEST_WAIT = 60.0  # seconds; a provider's own Retry-After may be longer


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retries` further attempts after the first; waits of `backoff` x 2^n seconds, at most LONGEST_WAIT, with jitter."""

    retries: int
    backoff: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a recipient goes after an attempt; `wait` in seconds when it is to be tried again."""

    status: Status
    wait: float = 0.0


_FINAL = {
    Verdict.ACCEPTED: Decision(Status.ACCEPTED),
    Verdict.REJECTED: Decision(Status.REJECTED),
    Verdict.UNKNOWN: Decision(Status.UNKNOWN),
}


def decide(outcome: Outcome, attempt: int, policy: RetryPolicy, random: Callable[[], float]) -> Decision:
    """Only what certainly was not sent is tried again. `attempt` counts from 1, `random` gives [0, 1).

    wait = backoff * 2^(attempt-1), at most LONGEST_WAIT, times a factor in [0.5, 1); a longer Retry-After wins. A throttled
    message (429) is not counted against `retries`, and is to be left out of `attempt` later on: being told to slow down says
    nothing about the recipient.
    """
    final = _FINAL.get(outcome.verdict)
    if final is not None:
        return final
    if not outcome.throttled and not outcome.stop and attempt > policy.retries:
        return Decision(Status.NOT_SENT)
    return Decision(Status.RETRY_WAIT, max(backoff(attempt, policy.backoff, random), outcome.retry_after or 0.0))


def backoff(attempt: int, first: float, random: Callable[[], float]) -> float:
    """Seconds before attempt `attempt` + 1: exponential with jitter."""
    return min(LONGEST_WAIT, first * 2.0 ** min(attempt - 1, 30)) * (0.5 + random() / 2)
