"""A run on many machines: partitions of the frozen plan, placed by Dask; the ledger decides what may be sent and what was.

Dask is used narrowly: it knows which workers live, and runs `run_partition` somewhere. It runs a task again when a worker is
lost, even a finished one; all of that is harmless, for whoever runs a partition must take it in the ledger first. Its scheduler
keeps everything in memory: when it dies, the unfinished partitions are submitted anew to the one that comes back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.clusterplan import ASK, Cluster, partition_size, refuse_others
from runner.engine import Ending
from runner.errors import InputError, LedgerError, StoppedError
from runner.ledger.base import TAKEN_OVER, Counts
from runner.ledger.partitions import Partitions
from runner.ledger.slots import Slots
from runner.localcluster import local_cluster
from runner.model import Status
from runner.partition import UNTAKEN, PartitionTask, Summary, run_partition
from runner.progress import Progress
from runner.retry import RetryPolicy
from runner.sending import Sending
from runner.sharedpace import budget_of
from runner.signals import end_orderly_on_signals

if TYPE_CHECKING:
    from distributed import Client

START_SECONDS = 60.0  # for the first worker to be there
LOST_SECONDS = 120.0  # a scheduler that stays away for longer ends the run; so do workers, all of them
TICK = 0.5  # seconds between looks at the ledger while a run goes on
DRAIN_SECONDS = 20.0  # beyond a request's own longest time
_LOST = (concurrent.futures.CancelledError, OSError, TimeoutError)  # what a future raises when its scheduler is gone


@dataclass(frozen=True, slots=True)
class ClusterSending(Sending):
    """One run's sending, by workers. The canary, and a handful named with --to, are sent from here."""

    cluster: Cluster = Cluster()  # noqa: RUF009 - frozen

    def run(self, limit: int | None) -> Ending:
        """See `Sending.run`. Raises InputError when workers differ from this program."""
        if self.only is not None:
            return self.run_here(limit)
        quiet = logging.getLogger("distributed")
        quiet.setLevel(logging.CRITICAL)  # what matters of it is said in our own words
        try:
            with asyncio.Runner() as loop:
                return loop.run(_Driver(self, limit).run())
        finally:
            end_orderly_on_signals()


class _Driver:
    """One phase of a run. The first reason to end it is the run's ending."""

    def __init__(self, sending: Sending, limit: int | None) -> None:
        assert isinstance(sending, ClusterSending)  # noqa: S101 - how it is made
        self._s: ClusterSending = sending
        self._limit = limit
        self._partitions = Partitions(sending.ledger)
        self._progress: Progress = sending.progress
        self._client: Client | None = None
        self._ending: Ending | None = None
        self._over = asyncio.Event()
        self._open = asyncio.Lock()
        self._seen: dict[Status, int] = {}
        self._notes: dict[str, float] = {}
        self._away = False
        self._deserted: float | None = None  # since when the scheduler has no workers

    async def run(self) -> Ending:
        """Place the partitions and wait for them."""
        loop = asyncio.get_running_loop()
        stop = _Stop(self)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
        aside = [asyncio.create_task(self._s.watch_optouts(asyncio.to_thread), name="opt-outs")]
        try:
            await self._s.wait_for_start(self.end, stop.asked)
            if self._ending is None:
                async with self._cluster() as address:
                    await self._all(address)
        finally:
            for each in aside:
                each.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
        return self._ending or Ending("finished")

    def end(self, word: str, why: str = "", error: Exception | None = None) -> None:
        """Begin nothing new anywhere; what is on the wire is waited for."""
        if self._ending is None:
            self._ending = Ending(
                word, why, error if isinstance(error, (LedgerError, StoppedError, InputError)) else None
            )
            self._over.set()

    def leave(self) -> None:
        """Do not wait for anything any more."""
        for task in asyncio.all_tasks():
            if task.get_name().startswith("partition"):
                task.cancel()

    # --- the cluster --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _cluster(self) -> AsyncIterator[str]:
        """The address of a scheduler, with workers of our own where that was asked for."""
        if self._s.cluster.address:
            yield self._s.cluster.address
            return
        self._note(f"starting {self._s.cluster.workers} workers")
        async with local_cluster(self._s.cluster.workers) as address:
            yield address

    async def _connected(self) -> Client:
        """A client whose scheduler is there. Raises StoppedError when it stays away."""
        async with self._open:
            if self._client is not None and self._client.status == "running":
                return self._back(self._client)
            began = time.monotonic()
            first = self._client is None
            pause = 0.2
            while True:
                await self._close_client()
                with contextlib.suppress(*_LOST):
                    self._client = await self._new_client()
                    return self._back(self._client)
                if time.monotonic() - began > (START_SECONDS if first else LOST_SECONDS) or self._ending is not None:
                    raise StoppedError(
                        f"no scheduler answers at {self._address}. What was sent is in the ledger; when the scheduler is there, "
                        "the same command goes on from here"
                    )
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)

    def _gone(self) -> None:
        if not self._away:
            self._away = True
            self._note("the scheduler is away: waiting for it")

    def _back(self, client: Client) -> Client:
        if self._away:
            self._away = False
            self._note("the scheduler is back")
        return client

    async def _new_client(self) -> Client:
        from distributed import Client

        client: Any = Client(self._address, asynchronous=True, timeout=5, set_as_default=False, name="campaign")  # type: ignore[no-untyped-call]
        try:
            await client
            client.subscribe_topic(self._topic, self._told)
        except BaseException:
            with contextlib.suppress(Exception):
                await client._close(fast=True)
            raise
        return client  # type: ignore[no-any-return]  # the library's own types end here

    async def _close_client(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(timeout=2), 5)  # type: ignore[no-untyped-call]

    async def _fit_workers(self) -> int:
        """Wait for workers and compare them with this program. The threads they have. Raises InputError, StoppedError."""
        client = await self._connected()
        end = time.monotonic() + START_SECONDS
        while not (threads := await client.nthreads()):  # type: ignore[no-untyped-call]
            if time.monotonic() > end:
                raise self._no_workers()
            await asyncio.sleep(0.1)
        # Named, not passed: a worker that lacks our package must be able to say so.
        refuse_others(await client.run(eval, ASK, on_error="return"))
        return sum(threads.values())

    # --- partitions ---------------------------------------------------------------------------------------------------

    async def _all(self, address: str) -> None:
        self._address = address
        self._topic = f"send-{self._s.campaign.name}-{self._s.run_id}"
        tasks: list[asyncio.Task[None]] = []
        monitor = None
        try:
            slots = await self._fit_workers()
            counts = await asyncio.to_thread(self._s.ledger.counts, self._s.campaign_id)
            self._seen = dict(counts.by_status)
            waiting = counts[Status.PENDING] + counts[Status.RETRY_WAIT]
            rows = min(waiting, self._limit or waiting)
            per_second = min((rate.per_second for rate in self._s.campaign.rates), default=None)
            size = partition_size(rows, per_second, slots)
            ids = await asyncio.to_thread(self._partitions.make, self._s.campaign_id, self._s.run_id, size, self._limit)
            task = await self._task(slots)
            monitor = asyncio.create_task(self._monitor(), name="monitor")
            tasks = [asyncio.create_task(self._part(replace(task, partition_id=i)), name=f"partition {i}") for i in ids]
            await self._wait(tasks)
            if self._limit is not None and self._limit < waiting:
                self.end("limit")
        except StoppedError as error:
            self.end("stopped", str(error), error)
        except LedgerError as error:
            self.end("failed", str(error), error)
        finally:
            for each in [*tasks, *([monitor] if monitor else [])]:
                each.cancel()
            await asyncio.gather(*tasks, *([monitor] if monitor else []), return_exceptions=True)
            with contextlib.suppress(LedgerError):
                await asyncio.to_thread(self._partitions.fence, self._s.campaign_id, self._s.run_id)
                await self._count()
            await self._close_client()

    async def _wait(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until all are done; after the end has come, as long as replies may take."""
        pending = set(tasks)
        over = asyncio.create_task(self._over.wait(), name="over")
        try:
            while pending and not over.done():
                done, _ = await asyncio.wait({*pending, over}, return_when=asyncio.FIRST_COMPLETED)
                pending -= done
                for each in done - {over}:
                    each.result()
            if pending:
                await asyncio.to_thread(self._partitions.fence, self._s.campaign_id, self._s.run_id)
                await asyncio.wait(pending, timeout=self._s.campaign.send.timeout + DRAIN_SECONDS)
        finally:
            over.cancel()

    async def _task(self, slots: int) -> PartitionTask:
        campaign, send = self._s.campaign, self._s.campaign.send
        record = await asyncio.to_thread(self._s.ledger.campaign, campaign.name)
        await asyncio.to_thread(Slots(self._s.ledger, record.sender_id).rebuild, budget_of(campaign.rates)[0].gap)
        return PartitionTask(
            ledger=str(campaign.workspace.ledger_place()),
            settings=campaign.settings,
            provider=campaign.provider.name,
            campaign=campaign.name,
            campaign_id=self._s.campaign_id,
            run_id=self._s.run_id,
            sender_id=record.sender_id,
            partition_id=0,
            rates=tuple(campaign.rates),
            concurrency=math.ceil(campaign.concurrency / slots),
            timeout=send.timeout,
            keep_connections=send.keep_connections,
            policy=RetryPolicy(send.retries, send.backoff),
            deadline=self._s.deadline,
            stop_when=send.stop_when.limits(),
            shared_image="{" not in campaign.message.image,
            parent=None if self._s.cluster.address else os.getpid(),
        )

    async def _part(self, task: PartitionTask) -> None:
        """One partition, submitted until it is done or the run is over."""
        tries = 0
        while self._ending is None:
            tries += 1
            client = await self._connected()
            key = f"send/{self._s.campaign.name}/{self._s.run_id}-{task.partition_id}.{tries}"
            try:
                future = client.submit(_on_worker, task, self._topic, key=key, pure=False)
                summary: Summary = await future
            except _LOST:
                self._gone()
                await asyncio.sleep(0.1)
                continue
            except Exception as error:
                # KilledWorker: three workers died with it. It is taken up again, for the reason may be theirs alone.
                if type(error).__name__ != "KilledWorker":
                    raise
                self._note(f"partition {task.partition_id} lost three workers; trying again")
                continue
            if await self._settled(task, summary):
                return

    async def _settled(self, task: PartitionTask, summary: Summary) -> bool:
        """Whether nothing is left to be done for the partition."""
        if summary.word == "finished":
            return True
        if summary.word == "failed":
            message = summary.why if not summary.bug else f"a fault of the program on {summary.owner}: {summary.why}"
            self.end("failed", message, LedgerError(message))
        elif summary.word not in {UNTAKEN, TAKEN_OVER, "drained"}:
            self.end(summary.word, summary.why)
        unfinished = await asyncio.to_thread(self._partitions.unfinished, self._s.run_id)
        if task.partition_id not in unfinished:
            return True
        if summary.word == UNTAKEN:
            state = await asyncio.to_thread(self._s.ledger.state, self._s.campaign_id)
            self.end(*(_from_outside(state) if state != "open" else (TAKEN_OVER, "another run has taken over")))
        return self._ending is not None

    # --- watching ---------------------------------------------------------------------------------------------------------

    async def _monitor(self) -> None:
        """The progress, from the ledger; a pause or cancel while no worker is there to notice it."""
        while True:
            began = time.monotonic()
            with contextlib.suppress(LedgerError):
                await self._count()
                state = await asyncio.to_thread(self._s.ledger.state, self._s.campaign_id)
                if state != "open":
                    self.end(*_from_outside(state))
            await self._mind_the_workers()
            await asyncio.sleep(max(TICK, 20 * (time.monotonic() - began)))

    async def _mind_the_workers(self) -> None:
        """Dask ends the workers of a scheduler that dies, and one that comes back may wait for workers for ever."""
        client = self._client
        if client is None or client.status != "running":
            return  # `_connected` minds the scheduler
        try:
            threads = await asyncio.wait_for(client.nthreads(), 5)  # type: ignore[no-untyped-call]
        except (*_LOST, RuntimeError):  # it is gone, or is being closed
            return
        if threads:
            if self._deserted is not None:
                self._deserted = None
                self._note("there are workers again")
        elif self._deserted is None:
            self._deserted = time.monotonic()
            self._note(f"the scheduler at {self._address} has no workers: waiting for some")
        elif time.monotonic() - self._deserted > LOST_SECONDS:
            error = self._no_workers()
            self.end("stopped", str(error), error)

    def _no_workers(self) -> StoppedError:
        return StoppedError(
            f"the scheduler at {self._address} has no workers; start some, then the same command goes on from here"
        )

    async def _count(self) -> None:
        counts: Counts = await asyncio.to_thread(self._s.ledger.counts, self._s.campaign_id)
        for status in Status:
            for _ in range(counts[status] - self._seen.get(status, 0) if status.final else 0):
                self._progress.settled(status)
        self._seen = dict(counts.by_status)

    def _told(self, event: tuple[float, str]) -> None:
        """What a worker has to say; several may say the same."""
        self._note(str(event[1]))

    def _note(self, text: str) -> None:
        now = time.monotonic()
        if now - self._notes.get(text, -math.inf) > 1.0:
            self._notes[text] = now
            self._progress.note(text)


def _from_outside(state: str) -> tuple[str, str]:
    return state, f"the campaign was {state} from another terminal"


class _Stop:
    """What a signal does: the first one drains, the second one stops waiting."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self.asked = asyncio.Event()

    def __call__(self) -> None:
        if self.asked.is_set():
            self._driver._note("stopping at once: what is on the wire is recorded by the workers, or becomes unknown")
            self._driver.leave()
        else:
            self._driver._note("stopping: waiting for the replies on the way (Ctrl-C again stops at once)")
            self.asked.set()
            self._driver.end("drained", "stopped by a signal")


def _on_worker(task: PartitionTask, topic: str) -> Summary:
    from distributed import get_worker

    worker = get_worker()
    tell: Callable[[str], None] = lambda text: worker.log_event(topic, text)  # noqa: E731 - bound to this thread's worker
    return run_partition(task, tell)
