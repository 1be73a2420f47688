"""What is decided before a cluster run begins: where its workers are, whether they fit, how large a partition is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from runner.errors import InputError, Problem
from runner.sameness import differences, program

SECONDS_EACH, LEAST, MOST = 30.0, 50, 5000  # a partition: so long alone with the sender's budget, so many rows
EACH_SLOT = (
    8  # at least so many partitions for each thread, while there are rows enough: at the end some wait for the others
)
INSTALL = 'pip install "campaign-runner[cluster]"'
ASK = "dict(__import__('runner.sameness', fromlist=['program']).program())"  # what every worker is asked


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the workers are: at a scheduler's address, or `workers` processes on this machine."""

    address: str = ""
    workers: int = 0


def check_cluster(*, shared_ledger: bool) -> None:
    """Raise InputError when nothing can run on a cluster from here."""
    try:
        import distributed  # noqa: F401 - only whether it is there
    except ImportError:
        raise InputError(Problem("--cluster", "needs a package that is not installed", INSTALL)) from None
    if not shared_ledger:
        fix = (
            "name a PostgreSQL database with --ledger or CAMPAIGN_LEDGER (see docs/ledger.md), or send without workers"
        )
        raise InputError(
            Problem("--cluster", "workers need a ledger that all of them can reach, this one is a file", fix)
        )


def partition_size(rows: int, per_second: float | None, slots: int) -> int:
    """Rows of one partition. `per_second` is the sender's budget, None without limit; `slots` are threads of the cluster."""
    alone = MOST if per_second is None else round(per_second * SECONDS_EACH)
    return min(max(min(alone, math.ceil(rows / (EACH_SLOT * max(slots, 1)))), LEAST), MOST)


def refuse_others(there: Mapping[str, object]) -> None:
    """Compare what workers said to ASK with this program. Raises InputError that names each one that differs."""
    problems = []
    for worker, answer in sorted(there.items()):
        if not isinstance(answer, dict):
            what = "has no campaign-runner of this version, or not all that it needs"
            problems.append(Problem(f"worker {worker}", what, f"on that machine: {INSTALL}"))
        elif found := differences(program(), answer):
            fix = "install the same versions on all machines (requirements/run.txt has those that were tested)"
            problems.append(Problem(f"worker {worker}", "; ".join(found), fix))
    if problems:
        raise InputError(*problems)
