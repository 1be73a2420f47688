"""The loop: claim, wait, make the intent durable, send, read, record. One run of one campaign on one event loop.

The order for each message, and why:
1. claim, in small batches: nothing but a few hundred rows is ever in memory;
2. a turn at the pace gate, and only then
3. the intent, durable in the ledger (group commit), so that every request the provider sees has its attempt on disk;
4. the exact moment, 5. the request, 6. the outcome, recorded with the next batch.
A worker waits for one commit a message; its outcome is durable before its next intent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from runner.breaker import Breaker
from runner.errors import CampaignError, LedgerError, StoppedError, TakenOverError
from runner.ledger.base import HELD_BACK, TAKEN_OVER, Claim, Finish, Intent, Wanted
from runner.model import Lost, Message, Outcome, Reply, Request, Status, Verdict
from runner.progress import Progress
from runner.recorder import Recorder
from runner.retry import RetryPolicy, decide
from runner.transport import LATE, Transport
from runner.turns import Gate, Turn

CLAIM_AT_MOST = 512  # rows held at once beyond those in flight
CLAIMED_AHEAD = 2  # claims of so many times what is left: each takes four statements, however many it finds
POLL_SECONDS = 0.5  # how soon a pause, cancel or deadline is noticed while nothing else happens
LONGEST_RETRY_AFTER = 3600.0  # a provider that asks for more is better continued by a person
COOL_DOWNS_IN_A_ROW = 12  # about eight minutes of nothing but refusals of the whole sender
AGAIN_AT_MOST = 500  # recipients named in one claim when a limit leaves only those already begun

_HELD_BACK = Outcome(
    Verdict.NOT_SENT, HELD_BACK, detail="the run was ending, or the sender was told to wait", throttled=True
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What one run is to do. Times in microseconds since the epoch."""

    concurrency: int
    policy: RetryPolicy
    deadline: int | None = None
    limit: int | None = None  # attempt at most so many recipients
    only: Sequence[str] | None = None  # these numbers only


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: finished | limit | drained | paused | cancelled | expired | stopped | taken_over | failed, and why."""

    word: str
    why: str = ""
    error: CampaignError | None = None


@dataclass(slots=True)
class _Flight:
    """What the workers share."""

    held: set[int] = field(default_factory=set)  # ids claimed by this run, not settled yet
    fresh: set[int] = field(default_factory=set)  # of these: nothing durable has been begun
    begun: int = 0  # recipients, however often each of them is tried
    open: dict[int, str] = field(
        default_factory=dict
    )  # of these, by id: the numbers that are not final (under a limit only)
    waiting: set[asyncio.Task[None]] = field(default_factory=set)  # workers that wait for a turn; nothing is durable
    sending: set[asyncio.Task[None]] = field(default_factory=set)  # workers with a durable intent
    spare: list[int] = field(default_factory=list)  # claimed ids to give back


class Engine:
    """Runs once. `build` and `read` are the provider's pure functions with its settings already in."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        transport: Transport,
        build: Callable[[Message], Request],
        read: Callable[[Reply], Outcome],
        pace: Gate,
        progress: Progress,
        orders: Orders,
        clock: Callable[[], int],
        random: Callable[[], float],
        breaker: Breaker | None = None,
        wall: Callable[[], int] | None = None,
    ) -> None:
        self._recorder = recorder
        self._transport = transport
        self._build = build
        self._read = read
        self._pace = pace
        self._progress = progress
        self._orders = orders
        self._clock = clock
        self._random = random
        self._breaker = breaker
        self._wall = (
            wall or clock
        )  # the time of day, for the deadline; everything else must not mind a clock that is set
        self._ending: Ending | None = None
        self._queue: asyncio.Queue[Claim | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._flight = _Flight()
        # Fewer left in the queue: refill. While a commit with new claims is under way, all workers may take another one.
        self._low = min(CLAIM_AT_MOST // 2, 2 * max(orders.concurrency, 2))
        self._side_tasks: set[asyncio.Task[None]] = set()

    # --- from outside ---------------------------------------------------------------------------------------------------

    def drain(self, word: str = "drained", why: str = "", error: CampaignError | None = None) -> None:
        """Begin nothing new; what is on the wire is waited for. The first reason given is the run's ending."""
        if self._ending is None:
            self._ending = Ending(word, why, error)
            for task in self._flight.waiting:
                task.cancel()
            self._changed.set()

    def abort(self) -> None:
        """Stop at once: what is on the wire becomes unknown."""
        self.drain()
        for task in self._flight.sending:
            task.cancel()

    async def run(self) -> Ending:
        """Send until nothing is left, or something ends the run. Everything is durable when it returns."""
        self._recorder.start(self._ledger_failed)
        workers = [asyncio.create_task(self._work(), name=f"worker-{i}") for i in range(self._orders.concurrency)]
        watch = asyncio.create_task(self._watch(), name="watch")
        try:
            await self._feed()
        except LedgerError as error:
            self._ledger_failed(error)
        except BaseException:
            self.drain("failed", "the program failed")  # first of all: what is still in the queue must not be sent
            raise
        finally:
            for _ in workers:
                self._queue.put_nowait(None)
            results = await asyncio.gather(*workers, return_exceptions=True)
            watch.cancel()
            await asyncio.gather(watch, *self._side_tasks, return_exceptions=True)
            await self._give_back()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return self._ending or Ending("finished")

    # --- feeding ----------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Keep the queue filled until nobody waits any more."""
        batch = min(CLAIM_AT_MOST // 2, CLAIMED_AHEAD * self._low)
        while self._ending is None:
            self._changed.clear()
            if self._queue.qsize() >= self._low:
                await self._changed.wait()
                continue
            wanted, only = batch, self._orders.only
            if self._orders.limit is not None:
                wanted = min(batch, self._orders.limit - self._flight.begun - len(self._flight.fresh))
                if wanted <= 0:  # nobody new; those already begun may be tried again
                    wanted, only = AGAIN_AT_MOST, self._again()
            claims = await self._recorder.claim(Wanted(wanted, self._clock(), only), hurry=self._queue.empty())
            for claim in claims:
                self._flight.held.add(claim.id)
                self._flight.fresh.add(claim.id)
                self._queue.put_nowait(claim)
            if not claims and await self._nothing_left(only):
                if only is not self._orders.only:
                    self.drain("limit")
                return

    def _again(self) -> list[str]:
        """Numbers that this run has begun and that wait for another attempt."""
        return [phone for key, phone in self._flight.open.items() if key not in self._flight.held][:AGAIN_AT_MOST]

    async def _nothing_left(self, only: Sequence[str] | None) -> bool:
        """Nothing to claim just now. Wait for a retry to fall due or for a message in flight; True when there is neither."""
        busy = bool(self._flight.held)  # asked first: one that ends while we look may leave a retry that we do not see
        await self._recorder.flush()
        due = await self._recorder.next_due(only)
        if due is None:
            if not busy:
                return True
            await self._changed.wait()
            return False
        wait = min(max((due - self._clock()) / 1e6, 0.01), POLL_SECONDS * 4)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait)
        return False

    # --- one message --------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it always runs in a task
        while (claim := await self._queue.get()) is not None:
            if self._ending is not None:
                self._flight.spare.append(claim.id)
                continue
            try:
                await self._deliver(claim, task)
            except CampaignError as error:
                self.drain("stopped" if isinstance(error, StoppedError) else "failed", str(error), error)
            except BaseException:
                self.drain("failed", "the program failed")  # or the others would wait for this one for ever
                raise
            finally:
                self._flight.held.discard(claim.id)
                self._flight.fresh.discard(claim.id)
                if self._queue.qsize() < self._low:
                    self._changed.set()

    async def _deliver(self, claim: Claim, task: asyncio.Task[None]) -> None:
        request = self._build(claim.message)
        if hashlib.sha256(request.body).digest() != claim.payload:
            self._flight.spare.append(claim.id)
            raise StoppedError(
                f"the message for row id {claim.id} is not the one that was planned; nothing was sent to it. "
                "Plan again: run `campaign plan` and `campaign send`"
            )
        slot = await self._turn(claim, task)
        if slot is None:
            self._flight.spare.append(claim.id)
            return
        started = self._clock()
        try:
            refusal = await self._recorder.begin(Intent(claim, started))
        except BaseException:
            slot.drop()
            raise
        if refusal is not None:
            slot.drop()
            self._refused(refusal)
            return
        self._begun(claim)
        outcome = await self._exchange(request, slot, task)
        self._settle(claim, outcome, slot)

    def _begun(self, claim: Claim) -> None:
        flight = self._flight
        flight.fresh.discard(claim.id)
        if self._orders.limit is not None and claim.id not in flight.open:
            flight.begun += 1
            flight.open[claim.id] = claim.message.phone
        self._progress.begun()

    async def _turn(self, claim: Claim, task: asyncio.Task[None]) -> Turn | None:
        """A turn at the pace gate; None when the run is ending. The only place where a worker may be cancelled unsent."""
        self._flight.waiting.add(task)
        try:
            slot = await self._pace.reserve()
        except asyncio.CancelledError:
            return None
        finally:
            self._flight.waiting.discard(task)
        self._mind_the_deadline()
        if self._ending is not None:
            slot.drop()
            return None
        return slot

    async def _exchange(self, request: Request, slot: Turn, task: asyncio.Task[None]) -> Outcome:
        reply: Reply | Lost | None = None
        self._flight.sending.add(task)
        try:
            if await self._goes(slot):
                reply = await self._transport.send(request, slot.sent, slot.leaves)
        finally:
            self._flight.sending.discard(task)
            slot.answered(
                complete=isinstance(reply, Reply), came_at=reply.came_at if isinstance(reply, Reply) else None
            )
        if reply is None or (
            isinstance(reply, Lost) and not reply.sent and (reply.kind == LATE or self._ending is not None)
        ):
            return _HELD_BACK
        if isinstance(reply, Lost):
            verdict = Verdict.UNKNOWN if reply.sent else Verdict.NOT_SENT
            return Outcome(verdict, reply.kind, detail=reply.detail, stop=reply.stop)
        return self._read(reply)

    async def _goes(self, slot: Turn) -> bool:
        """Wait for the exact moment. False: nothing is written, for the sender was told to wait or the run is ending."""
        try:
            ready = await slot.ready()
        except asyncio.CancelledError:  # `abort`
            return False
        self._mind_the_deadline()  # the commit may have taken its time
        return ready and self._ending is None

    def _settle(self, claim: Claim, outcome: Outcome, slot: Turn) -> None:
        """Record the outcome, and what it means for the sender as a whole."""
        now = self._clock()
        decision = decide(outcome, claim.counted + 1, self._orders.policy, self._random)
        if outcome.verdict is Verdict.NOT_SENT and outcome is not _HELD_BACK and not outcome.stop:
            self._cool_down(outcome, slot)
        elif outcome.verdict in {Verdict.ACCEPTED, Verdict.REJECTED}:
            self._pace.reached(slot)
        not_before = now + int(decision.wait * 1e6) if decision.wait else 0
        self._recorder.finish(Finish(claim.id, claim.attempts + 1, outcome, decision.status, now, not_before))
        if decision.status.final:
            self._flight.open.pop(claim.id, None)
        self._progress.settled(decision.status)
        why = outcome.stop or (self._breaker.saw(outcome) if self._breaker is not None else "")
        if why:
            self.drain("stopped", why)

    def _cool_down(self, outcome: Outcome, slot: Turn) -> None:
        """A refusal of the sender as a whole (429), or a provider that cannot be reached: everybody waits."""
        if outcome.retry_after is not None and outcome.retry_after > LONGEST_RETRY_AFTER:
            self.drain("stopped", f"the provider asks to wait {outcome.retry_after:.0f} s")
            return
        words = "told to slow down" if outcome.throttled else outcome.detail or outcome.reason
        seconds = self._pace.cool_down(outcome.retry_after, slot)
        if not seconds:  # one of a batch that was refused together
            return
        self._progress.note(f"{words}: waiting {math.ceil(seconds)} s")
        if outcome.throttled:
            self._aside(self._recorder.pause_sender(seconds))
        if self._pace.cool_downs_in_a_row > COOL_DOWNS_IN_A_ROW:
            self.drain("stopped", f"{words}, {COOL_DOWNS_IN_A_ROW} times in a row")

    def _aside(self, call: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(call)
        self._side_tasks.add(task)
        task.add_done_callback(self._beside)

    def _beside(self, task: asyncio.Task[None]) -> None:
        self._side_tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._ledger_failed(error)

    def _refused(self, why: str) -> None:
        if why == "suppressed":
            self._progress.settled(Status.SKIPPED)
        elif why == TAKEN_OVER:
            self.drain(TAKEN_OVER, "another run has taken over this campaign")
        else:
            self.drain(why, f"the campaign was {why} from another terminal")

    # --- watching -----------------------------------------------------------------------------------------------------------

    def _mind_the_deadline(self) -> None:
        if self._orders.deadline is not None and self._wall() >= self._orders.deadline:
            self.drain("expired", "the deadline has passed")

    async def _watch(self) -> None:
        """Notice what nobody announces: the deadline, and a pause or cancel while all workers wait for their turn."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._mind_the_deadline()
            try:
                state = await self._recorder.campaign_state()
            except LedgerError:
                continue  # a passing fault; a lasting one stops the next intent
            if state != "open":
                self.drain(state, f"the campaign was {state} from another terminal")

    def _ledger_failed(self, error: BaseException) -> None:
        wrapped = (
            error if isinstance(error, CampaignError) else LedgerError(f"the ledger failed: {type(error).__name__}")
        )
        self.drain(TAKEN_OVER if isinstance(error, TakenOverError) else "failed", str(wrapped), wrapped)

    async def _give_back(self) -> None:
        """Claimed rows that nobody began are pending again."""
        while not self._queue.empty():
            claim = self._queue.get_nowait()
            if claim is not None:
                self._flight.spare.append(claim.id)
        try:
            await self._recorder.release(self._flight.spare)
        except LedgerError as error:
            self._ledger_failed(error)  # the next run finds them claimed by a dead owner and releases them
