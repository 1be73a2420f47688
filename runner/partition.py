"""One partition of a run, sent by one thread of a worker: the very engine of a lone run, on the ledger that all share.

A plain thread with an event loop of its own: a worker's own loop also carries its signs of life. Nothing is raised to the
distributed engine but by its own doing: what goes wrong here is told in a `Summary`, so that no log of it holds a secret.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from runner.breaker import Breaker, StopWhen
from runner.engine import Ending, Engine, Orders
from runner.errors import CampaignError, LedgerError
from runner.eventloop import SWITCH_SECONDS, loop_factory, steady_clock
from runner.ledger.base import Hold, PartitionHold, now_us
from runner.ledger.partitions import Partitions
from runner.ledger.slots import Slots
from runner.ledger.sql import SqlLedger
from runner.model import Status
from runner.providers import PROVIDERS
from runner.providers.base import ProviderSettings
from runner.recorder import COMPANY, Recorder
from runner.retry import RetryPolicy
from runner.sharedpace import Lead, open_shared_pace
from runner.transport import Transport
from runner.units import Rate

BEAT_SECONDS = 5.0  # between signs of life in the ledger
PARENT_SECONDS = 0.5  # between looks at whether the command that started this process still lives
UNTAKEN = "untaken"  # the partition is done already, or its run may not send any more


@dataclass(frozen=True, slots=True)
class PartitionTask:
    """Everything that a worker must know. What holds secrets does not print."""

    ledger: str = field(repr=False)
    settings: ProviderSettings = field(repr=False)
    provider: str
    campaign: str
    campaign_id: int
    run_id: int
    sender_id: int
    partition_id: int
    rates: tuple[Rate, ...]
    concurrency: int
    timeout: float
    keep_connections: bool
    policy: RetryPolicy
    deadline: int | None
    stop_when: StopWhen
    shared_image: bool
    parent: int | None = None  # the process that must live on, for workers on this machine


@dataclass(frozen=True, slots=True)
class Summary:
    """How a partition ended: a word as of `Ending`, or UNTAKEN. `bug`: by a fault of the program."""

    word: str
    why: str = ""
    owner: str = ""
    late: int = 0  # slots that passed before their request could leave
    bug: bool = False


@dataclass(slots=True)
class _Notes:
    """A `Progress` that only passes notes on; the ledger knows the counts."""

    tell: Callable[[str], None]

    def begun(self) -> None:
        """Nothing."""

    def settled(self, status: Status) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """To the command that started the run."""
        self.tell(text)

    def close(self) -> None:
        """Nothing."""


def run_partition(task: PartitionTask, tell: Callable[[str], None] = lambda _: None) -> Summary:
    """Take the partition and send until nobody in it waits, or something ends the run. May be called again, anywhere."""
    sys.setswitchinterval(SWITCH_SECONDS)
    owner = f"{socket.gethostname()} process {os.getpid()}"
    try:
        ledger = _ledger(task.ledger)
        hold = Partitions(ledger).take(task.partition_id, owner)
        if hold is None:
            return Summary(UNTAKEN, owner=owner)
        with asyncio.Runner(loop_factory=loop_factory()) as loop:
            ending, late = loop.run(_send(task, ledger, hold, tell))
        _conclude(task, ledger, hold, ending)
        return Summary(ending.word, ending.why, owner, late)
    except CampaignError as error:
        return Summary("failed", str(error), owner)
    except Exception as error:
        return Summary("failed", f"{type(error).__name__} in {_place(error)}", owner, bug=True)


def _conclude(task: PartitionTask, ledger: SqlLedger, hold: PartitionHold, ending: Ending) -> None:
    partitions = Partitions(ledger)
    if ending.word == "finished":
        partitions.finish(hold)
    elif ending.word in {"stopped", "expired"} or (
        ending.word == "failed" and not isinstance(ending.error, LedgerError)
    ):
        # What stops one stops all of them, whether or not anybody is left to hear our summary.
        partitions.fence(task.campaign_id, task.run_id)


async def _send(
    task: PartitionTask, ledger: SqlLedger, hold: PartitionHold, tell: Callable[[str], None]
) -> tuple[Ending, int]:
    provider = PROVIDERS[task.provider]
    recorder = Recorder(ledger, Hold(task.campaign_id, task.run_id, task.sender_id, hold), company=COMPANY)
    async with (
        open_shared_pace(Slots(ledger, task.sender_id), task.rates, _lead, rebuild=False) as pace,
        Transport(connections=task.concurrency, timeout=task.timeout, keep=task.keep_connections) as transport,
    ):
        engine = Engine(
            recorder=recorder,
            transport=transport,
            build=partial(provider.build, task.settings),
            read=partial(provider.judge, task.settings),
            pace=pace,
            progress=_Notes(tell),
            orders=Orders(task.concurrency, task.policy, task.deadline),
            clock=steady_clock(),
            wall=now_us,
            random=random.random,
            breaker=Breaker(task.stop_when, shared_image=task.shared_image),
        )
        aside = [asyncio.create_task(_beat(recorder, Partitions(ledger), hold), name="beat")]
        if task.parent is not None:
            aside.append(asyncio.create_task(_mind_the_parent(task.parent, engine), name="parent"))
        try:
            ending = await engine.run()
        finally:
            for each in aside:
                each.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
            await recorder.close()
    return ending, pace.late


async def _beat(recorder: Recorder, partitions: Partitions, hold: PartitionHold) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        await recorder.call(lambda: partitions.beat(hold))


async def _mind_the_parent(parent: int, engine: Engine) -> None:
    """Workers that a command has started do not outlive it by more than the replies on the way."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody announces the end of a process
        await asyncio.sleep(PARENT_SECONDS)
    engine.drain("drained", "the command that started this worker has ended")


_lead = Lead()
_ledgers: dict[str, SqlLedger] = {}
_opening = threading.Lock()


def _ledger(address: str) -> SqlLedger:
    """One for all threads of the process: its connections are shared."""
    from runner.ledger.postgres import open_worker

    with _opening:
        if address not in _ledgers:
            _ledgers[address] = open_worker(address)
        return _ledgers[address]


def _place(error: BaseException) -> str:
    """Where an error was raised. Its text stays out, for it may hold values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119 - a text, not a file
