"""Asks a shared ledger for one thing again and again: `python -m benchmarks.ledgerload WAY SECONDS`; see postgres.py.

The ledger's address is in CAMPAIGN_LEDGER, a plan is in it. Prints how many there were, in how many calls and seconds.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.settled import CAMPAIGN
from runner.ledger import open_ledger
from runner.ledger.partitions import Partitions
from runner.ledger.slots import Budget, Slots
from runner.ledger.sql import SqlLedger

PARTITION_ROWS = 1_000
SMALL = 10  # rows of a partition where taking them is measured: there must be enough of them
BLOCK = 20


class Load:
    """The calls of all connections together."""

    def __init__(self, seconds: float) -> None:
        self.end = time.perf_counter() + seconds
        self.count = self.calls = 0
        self._lock = threading.Lock()

    def work(self, call: Callable[[], int]) -> None:
        """Call until the time is up, or there is nothing left (a call that says 0)."""
        count = calls = 0
        while time.perf_counter() < self.end:
            got = call()
            if not got:
                break
            count, calls = count + got, calls + 1
        with self._lock:
            self.count, self.calls = self.count + count, self.calls + calls


def _fresh_run(ledger: SqlLedger) -> tuple[int, int]:
    record = ledger.campaign(CAMPAIGN)
    ledger.recover(record.id)
    return record.id, ledger.begin_run(record.id, "bench", record.plan_hash)


def _partitions(ledger: SqlLedger, ids: list[int], lock: threading.Lock) -> Callable[[], int]:
    mine = Partitions(ledger)

    def call() -> int:
        with lock:
            if not ids:
                return 0
            key = ids.pop()
        hold = mine.take(key, "bench")
        if hold is None:
            raise RuntimeError("a partition that nobody has cannot be taken")
        mine.finish(hold)
        return 1

    return call


def _slots(ledger: SqlLedger, n: int) -> Callable[[], int]:
    slots = Slots(ledger, ledger.campaign(CAMPAIGN).sender_id)
    return lambda: slots.reserve(n, Budget(gap=1), 0.0).n  # a gap of 1 µs: the limit is never what is waited for


def main() -> None:
    """One way, for so long."""
    way, seconds, place = sys.argv[1], float(sys.argv[2]), os.environ["CAMPAIGN_LEDGER"]
    kind, _, number = way.partition("-")
    connections = int(number or 1)
    ledgers = [open_ledger(place, create=False) for _ in range(connections)]
    if kind == "cut":
        campaign, run = _fresh_run(ledgers[0])
        began = time.perf_counter()
        count = len(Partitions(ledgers[0]).make(campaign, run, PARTITION_ROWS))
        took, calls = time.perf_counter() - began, 1
    else:
        calling: list[Callable[[], int]]
        if kind == "partitions":
            campaign, run = _fresh_run(ledgers[0])
            ids = Partitions(ledgers[0]).make(campaign, run, SMALL, limit=200_000)
            lock = threading.Lock()
            calling = [_partitions(ledger, ids, lock) for ledger in ledgers]
        else:
            calling = [_slots(ledger, BLOCK if kind == "blocks" else 1) for ledger in ledgers]
        load = Load(seconds)
        began = time.perf_counter()
        threads = [threading.Thread(target=load.work, args=(call,)) for call in calling]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, count, calls = time.perf_counter() - began, load.count, load.calls
    for ledger in ledgers:
        ledger.close()
    print(json.dumps({"count": count, "calls": calls, "seconds": took, "connections": connections}))


if __name__ == "__main__":
    main()
