"""A ledger as it is after a long run that was killed: nearly everybody settled, a few in flight, a few claimed, some pending.

Planned by the real command, then settled by the same calls that the engine makes, without a provider. Also a program of its
own, for the measures that are about the ledger alone: `python -m benchmarks.settled fill|resume LEDGER`.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rounds import say
from benchmarks.serving import Loopback
from benchmarks.workspace import Workspace

BATCH = 2_000
IN_FLIGHT = 50
CLAIMED = 256
LEFT = 2_000  # rows that nobody has begun
CAMPAIGN = "bench"


@functools.cache
def settled_workspace(rows: int) -> Workspace:
    """Made once a process, however many parts ask; removed at its end."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    workspace = Workspace(root)
    workspace.audience(rows)
    began = time.monotonic()
    with Loopback() as server:
        plan_only(workspace, server)
    say(f"  a ledger of {rows:,} rows: planned in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    workspace.start("fill", str(workspace.ledger), module=("benchmarks.settled",)).wait()
    say(f"  settled in {time.monotonic() - began:.0f} s")
    return workspace


def plan_only(workspace: Workspace, server: Loopback) -> None:
    """`campaign send` until the first request arrives: the plan is frozen in the ledger then. The rest is not wanted."""
    workspace.campaign(server.url, in_flight=1)
    server.reset(delay=60.0)
    command = workspace.start("send", workspace.file, "--yes", "--limit", "1")
    while not server.count():
        if command.process.poll() is not None:
            command.wait()
            raise RuntimeError("the command ended without a request")
        time.sleep(0.05)
    command.kill()


def fill(path: Path) -> None:
    """Settle everybody but the last LEFT."""
    from runner.ledger import open_ledger
    from runner.ledger.base import Finish, Hold, Intent, now_us
    from runner.model import Outcome, Status, Verdict

    ledger = open_ledger(path, create=False)
    record = ledger.campaign(CAMPAIGN)
    ledger.recover(record.id)
    hold = Hold(record.id, ledger.begin_run(record.id, "bench", record.plan_hash), record.sender_id)
    pending = ledger.counts(record.id)[Status.PENDING]
    left = pending - min(LEFT, pending // 2)
    while left > 0:
        claims = ledger.claim(hold, min(BATCH, left), now_us())
        left -= len(claims)
        ledger.apply(hold, (), [Intent(claim, now_us()) for claim in claims])
        finishes = []
        for claim in claims:
            if claim.id % 50:
                code = f"90532{claim.id:07d}_{claim.id * 2654435761 % 2**64:016X}"
                outcome = Outcome(Verdict.ACCEPTED, code="200", detail="We reached successfully", queue_id=code)
                status = Status.ACCEPTED
            else:
                outcome = Outcome(Verdict.REJECTED, "refused", "400", "the number has no WhatsApp account")
                status = Status.REJECTED
            finishes.append(Finish(claim.id, claim.attempts + 1, outcome, status, now_us()))
        ledger.apply(hold, finishes, ())
    _begin(path)


def resume(path: Path) -> None:
    """Print how long it took to open the ledger, to settle what the dead run left, and to claim the first rows again."""
    from runner.ledger import open_ledger
    from runner.ledger.base import Hold, now_us

    began = time.perf_counter()
    ledger = open_ledger(path, create=False)
    record = ledger.campaign(CAMPAIGN)
    recovered = ledger.recover(record.id)
    hold = Hold(record.id, ledger.begin_run(record.id, "bench", record.plan_hash), record.sender_id)
    claims = ledger.claim(hold, CLAIMED, now_us())
    took = time.perf_counter() - began
    if not claims or not recovered.unknown:
        raise RuntimeError(f"nothing to resume: {recovered}, {len(claims)} claimed")
    ledger.release(hold, [claim.id for claim in claims])
    _begin(path)  # for the next one who asks
    print(json.dumps({"seconds": took}))


def _begin(path: Path) -> None:
    """A run that gets no further than this: some rows claimed, of these some in flight."""
    from runner.ledger import open_ledger
    from runner.ledger.base import Hold, Intent, now_us

    ledger = open_ledger(path, create=False)
    record = ledger.campaign(CAMPAIGN)
    hold = Hold(record.id, ledger.begin_run(record.id, "bench", record.plan_hash), record.sender_id)
    claims = ledger.claim(hold, CLAIMED, now_us())
    begun = claims[: min(IN_FLIGHT, len(claims) // 4 + 1)]
    ledger.apply(hold, (), [Intent(claim, now_us()) for claim in begun])


if __name__ == "__main__":
    {"fill": fill, "resume": resume}[sys.argv[1]](Path(sys.argv[2]))
