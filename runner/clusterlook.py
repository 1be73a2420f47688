"""What `campaign status` says of workers, their partitions, and a sender's pace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runner.units import duration_text

if TYPE_CHECKING:
    from runner.ledger.base import PartitionsView, SenderView

SILENT_SECONDS = 30.0  # a worker that has said nothing for so long is probably gone


def partition_lines(view: PartitionsView, now_us: int, *, running: bool) -> Iterator[str]:
    """Partitions and, while the run goes on, who works on them."""
    yield f"  partitions: {view.done:,} of {view.total:,} done (run {view.run_id})"
    for worker in view.workers if running else ():
        quiet = (now_us - worker.beat_at) / 1e6
        what = "sending" if worker.busy and quiet < SILENT_SECONDS else "idle"
        if worker.busy and quiet >= SILENT_SECONDS:
            what = f"silent for {duration_text(quiet)}"
        yield f"  worker {worker.owner}: {what}, {worker.done:,} of its {worker.taken:,} partitions done"


def sender_line(view: SenderView) -> str:
    """How fast the sender goes, all its campaigns together."""
    paused = f", told to wait for another {duration_text(view.paused)}" if view.paused else ""
    return f"  sender {view.id} ({view.provider}): {view.per_second:.1f}/s in the last 10 s, all campaigns together{paused}"


def cluster_json(partitions: PartitionsView | None, sender: SenderView) -> dict[str, object]:
    """The same for machines."""
    found: dict[str, object] = {
        "sender": {
            "id": sender.id,
            "per_second": round(sender.per_second, 2),
            "paused_seconds": round(sender.paused, 1),
        }
    }
    if partitions is not None:
        workers = [
            {
                "owner": each.owner,
                "partitions": each.taken,
                "done": each.done,
                "busy": each.busy,
                "beat_at": each.beat_at,
            }
            for each in partitions.workers
        ]
        found["partitions"] = {"run": partitions.run_id, "total": partitions.total, "done": partitions.done}
        found["workers"] = workers
    return found
