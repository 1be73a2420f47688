"""The error tree. A recipient's failure is data (an `Outcome`), a broken programme is one of these.

    CampaignError                       anything a person can act on; never shown with a traceback
    ├── InputError            exit 2    the campaign file or something it names is wrong; nothing was sent
    │   └── ConfinedError               reading or rendering hostile input was stopped by a limit
    ├── StoppedError          exit 3    a breaker or an account-level refusal ended the run early
    ├── LockedError           exit 4    another run holds the campaign
    ├── StalePlanError        exit 4    the plan is not the one that was approved
    ├── LedgerError           exit 3    the ledger cannot be read or written; sending has stopped
    │   └── TakenOverError              another run sends this campaign now; this one has stopped
    └── UnknownCampaignError  exit 2    the ledger has never heard of this campaign

Exit codes are decided here and in `exit_code` of `runner.run` (a finished run), nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the `campaign` command says to the shell."""

    OK = 0
    UNFINISHED = 1  # finished with rejected, not-sent or unknown rows
    INPUT = 2  # the file or its inputs are wrong (nothing was sent)
    STOPPED = 3  # a breaker, an account-level refusal, or a ledger that cannot be written
    LOCKED = 4  # locked by another run, or a stale plan
    BUG = 70  # our own fault (sysexits EX_SOFTWARE)
    INTERRUPTED = 130  # interrupted, after a clean drain


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the input, in words a person can act on.

    `where` is a place such as `spring.yaml:12:3` or `customers.csv row 14, column "Mobile"`;
    `what` says what is wrong there; `fix` how to mend it (may be empty).
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"\n    fix: {self.fix}" if self.fix else "")


class CampaignError(Exception):
    """Anything a person can act on. Its text is the whole message."""

    exit_code = ExitCode.STOPPED


class InputError(CampaignError):
    """The campaign file or something that it names is wrong. Carries every problem found, not only the first."""

    exit_code = ExitCode.INPUT

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ConfinedError(InputError):
    """Reading the audience or rendering captions hit its memory, time or size limit and was stopped."""


class StoppedError(CampaignError):
    """A breaker or an account-level refusal ended the run early."""


class LockedError(CampaignError):
    """Another run holds the campaign."""

    exit_code = ExitCode.LOCKED

    @classmethod
    def held(cls, campaign: str, other: str) -> LockedError:
        """The campaign is being sent by `other`, in that run's own words."""
        return cls(
            f"campaign {campaign} is being sent by {other}; nothing was sent by this command. "
            f"Wait for it, or stop it there with Ctrl-C or from here with: campaign pause {campaign}"
        )


class StalePlanError(CampaignError):
    """The plan is no longer the one that was approved."""

    exit_code = ExitCode.LOCKED


class LedgerError(CampaignError):
    """The ledger cannot be read or written. Nothing more is sent."""


class TakenOverError(LedgerError):
    """Another run (or another worker, for its part) has taken over. Nothing more is sent by this one."""

    @classmethod
    def said(cls) -> TakenOverError:
        """In words for a person."""
        return cls("another run has taken over this campaign: nothing more was sent by this one")


class UnknownCampaignError(CampaignError):
    """The ledger has never heard of this campaign."""

    exit_code = ExitCode.INPUT
