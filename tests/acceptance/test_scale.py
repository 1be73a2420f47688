"""A hundred thousand recipients in one go: everybody once, in small memory."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.workbench import Finished, Workbench, numbers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rate")]

PEOPLE = 100_000
MEGABYTES = 250.0
SANDBOX = """
from runner.sandbox import SandboxSettings, Scenario, run
run(SandboxSettings(keep_bodies=False, log_limit=1000, scenario=Scenario(magic=False)),
    on_ready=lambda url: print(url, flush=True))
"""


@pytest.fixture
def provider(bench: Workbench) -> Iterator[str]:
    """The address of a stand-in in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SANDBOX], stdout=subprocess.PIPE, text=True, env=bench.environment
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class Peak:
    """The most resident memory (VmHWM, in MB) and the processor time of a process and each of its children, by process id."""

    def __init__(self, pid: int) -> None:
        self.megabytes: dict[int, float] = {}
        self.seconds: dict[int, float] = {}
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for pid in (self._pid, *self._children()):
                peak = re.search(r"^VmHWM:\s+(\d+) kB", self._read(f"/proc/{pid}/status"), re.MULTILINE)
                if peak is not None:
                    self.megabytes[pid] = int(peak[1]) / 1024
                times = self._read(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:13]  # proc(5): utime, stime
                if times:
                    self.seconds[pid] = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    def _children(self) -> list[int]:
        return [int(pid) for pid in self._read(f"/proc/{self._pid}/task/{self._pid}/children").split()]

    @staticmethod
    def _read(path: str) -> str:
        try:
            return Path(path).read_text()
        except OSError:  # it has just ended
            return ""


def watched(bench: Workbench, *arguments: str) -> Finished:
    """The command's end, after making sure of its memory and printing what it took."""
    began = time.monotonic()
    running = bench.start(*arguments)
    peak = Peak(running.process.pid)
    try:
        finished = running.wait(600).must(0)
    finally:
        peak.close()
    print(f"{arguments[0]}: {time.monotonic() - began:.1f} s")
    for pid, megabytes in sorted(peak.megabytes.items()):
        name = "command" if pid == running.process.pid else "child"
        print(f"    {name}: {megabytes:.0f} MB, {peak.seconds[pid]:.1f} s of processor time")
    assert peak.megabytes
    assert max(peak.megabytes.values()) < MEGABYTES
    return finished


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured with the proc file system")
def test_a_hundred_thousand_people_get_it_once_in_small_memory(bench: Workbench, provider: str) -> None:
    phones = numbers(PEOPLE)
    bench.audience(
        ((f"+{phone}", f"Name {i}", f"City {i % 81}") for i, phone in enumerate(phones)), ("Phone", "Name", "City")
    )
    campaign = bench.campaign(
        provider, message={"caption": "Hello {{ Name }},\nsee you in {{ City }}!"}, send={"concurrency": 100}
    )

    plan = watched(bench, "plan", campaign, "--json").json()
    assert (plan["rows"], plan["to_send"]) == (PEOPLE, PEOPLE)
    watched(bench, "send", campaign, "--yes")
    watched(bench, "report", "spring")

    with urllib.request.urlopen(f"{provider}/_sandbox/stats", timeout=60) as reply:  # noqa: S310 - our own address
        stats = json.load(reply)
    assert (stats["sends"], stats["accepted_by_provider"], stats["phones"]) == (PEOPLE, PEOPLE, PEOPLE)
    assert stats["phones_twice"] == []
    with bench.report().open(encoding="utf-8-sig", newline="") as file:
        assert all(
            (row["phone"], row["status"]) == (phone, "accepted")
            for phone, row in zip(phones, csv.DictReader(file), strict=True)
        )
