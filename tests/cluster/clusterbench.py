"""What the cluster tests work with: a real PostgreSQL, a real Dask scheduler and workers as processes, and the stand-in
provider as a process too. Judged by the provider's log; the rate by the moments at which requests were written.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil
import pytest
import yaml
from machine import crowd
from postgres import Server, start_server

FULL = os.environ.get("TORTURE") == "full"
TOKEN = "invented-token-5e0b"
LONGEST = 240.0 if FULL else 90.0  # seconds that any one command may take
HERE = Path(__file__).parent
KEPT = {
    "keep_connections": True
}  # four workers, the provider and the database share the processors of one machine here


def size(small: int, full: int) -> int:
    """The number for every change, or the one for `make torture`."""
    return full if FULL else small


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until `condition` holds; fail after `seconds` of an idle machine."""
    end = time.monotonic() + seconds * crowd()
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)


class Process:
    """A command in a process group of its own, its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                process_group=0,
            )

    @property
    def out(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def child(self) -> int:
        """The process that it looks after (a nanny's worker)."""
        found: list[int] = []

        def there() -> bool:
            with suppress(psutil.Error):
                everyone = psutil.Process(self.process.pid).children(recursive=True)
                found[:] = [each.pid for each in everyone if "spawn_main" in " ".join(each.cmdline())]
            return bool(found)

        until(there, "a nanny's worker")
        return found[0]

    def tell(self, number: signal.Signals) -> None:
        """To the process alone."""
        self.process.send_signal(number)

    def signal_all(self, number: signal.Signals) -> None:
        """To the whole process group, as Ctrl-C in a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, seconds: float = LONGEST) -> int:
        """The exit code; fails after `seconds` of an idle machine."""
        try:
            return self.process.wait(seconds * crowd())
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended in time\n{self.out[-5000:]}") from None

    def must(self, *codes: int) -> Process:
        """This very object, after waiting for one of these exit codes."""
        code = self.wait()
        assert code in codes, f"exit code {code}, not {codes}\n{self.out[-5000:]}"
        return self

    def end(self) -> None:
        """Ask it to end; when it does not, kill it and all that belongs to it."""
        if not self.over:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        self.signal_all(signal.SIGKILL)
        self.process.wait(10)


@dataclass(slots=True)
class Bench:
    """A workspace, its PostgreSQL ledger, and what runs around it."""

    root: Path
    server: Server
    ledger: str
    url: str = ""
    workers: list[Process] = field(default_factory=list)
    scheduler: Process | None = None
    started: list[Process] = field(default_factory=list)  # all of them, in order
    _count: int = 0
    _port: int = 0

    def environment(self, **more: str) -> dict[str, str]:
        """What every process here is told."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH") if key in os.environ}
        return {
            **kept,
            "WAPIM_TOKEN": TOKEN,
            "CAMPAIGN_LEDGER": self.ledger,
            "CAMPAIGN_TEST_STAMPS": str(self.root / "stamps"),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": str(HERE / "stamping.py"),
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "4s",
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",  # as docs/scale.md advises
            "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
            "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
            "DASK_TEMPORARY_DIRECTORY": str(self.root / "dask"),
            "PYTHONUTF8": "1",
            "COLUMNS": "200",
            **more,
        }

    def start(self, *arguments: str, module: str = "runner", **environment: str) -> Process:
        """Start `python -m MODULE ARGUMENTS` in the workspace."""
        self._count += 1
        command = [sys.executable, "-m", module, *arguments]
        log = self.root / f"log-{self._count}.txt"
        process = Process(command, log, self.root, self.environment(**environment))
        self.started.append(process)
        return process

    def provider(self, latency: Sequence[str] = ("20ms", "80ms"), **scenario: object) -> None:
        """Start the stand-in."""
        behaviour = self.root / "provider.yaml"
        behaviour.write_text(yaml.safe_dump({"magic": False, "latency": list(latency), **scenario}), encoding="utf-8")
        run = self.start("sandbox", "--scenario", str(behaviour), "--log", str(self.root / "provider.jsonl"))
        until(lambda: run.over or " at http" in run.out, "the stand-in provider")
        self.url = run.out.split(" at ")[1].split()[0]

    def cluster(self, workers: int, threads: int = 1) -> str:
        """Start a scheduler and workers; its address. A second time: at the same address."""
        if not self._port:
            import socket

            with socket.socket() as trial:
                trial.bind(("127.0.0.1", 0))
                self._port = int(trial.getsockname()[1])
        address = f"tcp://127.0.0.1:{self._port}"
        options = ("--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard", "--no-show")
        self.scheduler = self.start(*options, module="distributed.cli.dask_scheduler")
        for _ in range(workers):
            self.worker(threads)
        return address

    def worker(self, threads: int = 1, **environment: str) -> Process:
        """One more worker, with its nanny."""
        options = ("--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0", "--nworkers", "1")
        address = f"tcp://127.0.0.1:{self._port}"
        worker = self.start(address, *options, module="distributed.cli.dask_worker", **environment)
        self.workers.append(worker)
        return worker

    def campaign(self, name: str, rows: int, rate: object, **send: object) -> str:
        """campaigns/NAME.yaml and its audience of invented numbers, which no other campaign here has."""
        folder = self.root / "campaigns"
        folder.mkdir(exist_ok=True)
        first = (len(list(folder.glob("*.csv"))) + 1) * 100_000
        lines = [f"+90532{first + row:07d},Person {row}" for row in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["Phone,Name", *lines, ""]), encoding="utf-8")
        content = {
            "campaign": name,
            "provider": {"name": "wapim", "token": "${WAPIM_TOKEN}", "base_url": self.url},
            "audience": {"file": f"{name}.csv", "phone": "Phone"},
            "message": {"image": "https://cdn.example.com/a.jpg", "caption": "merhaba {{ Name }}"},
            "send": {"rate": rate, "concurrency": 40, "timeout": "10s", "backoff": "200ms", **KEPT, **send},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return f"campaigns/{name}.yaml"

    def send(self, file: str, *arguments: str) -> Process:
        """Start `campaign send FILE --yes`."""
        return self.start("send", file, "--yes", *arguments)

    # --- what came of it ------------------------------------------------------------------------------------------------

    def seen(self, name: str) -> list[tuple[int, str]]:
        """What the provider received for a campaign: moment (microseconds), phone; oldest first."""
        audience = (self.root / "campaigns" / f"{name}.csv").read_text().splitlines()[1:]
        own = {line.split(",")[0].lstrip("+") for line in audience}
        log = self.root / "provider.jsonl"
        lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
        entries = map(orjson.loads, lines)
        return sorted((entry["at_us"], entry["phone"]) for entry in entries if entry["phone"] in own)

    def received(self) -> int:
        """How many requests the provider has had."""
        log = self.root / "provider.jsonl"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def results(self, name: str) -> list[dict[str, str]]:
        """results.csv, row by row."""
        with (self.root / "reports" / name / "results.csv").open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def stamps(self) -> list[int]:
        """When requests were written by workers, nanoseconds."""
        files = (self.root / "stamps").glob("*.stamps")
        return sorted(int(line) for file in files for line in file.read_text().split())

    def judge(self, name: str, rows: int, *, unknown_at_most: int = 0) -> Counter[str]:
        """Nobody twice, nobody lost, nothing called accepted that was not; the statuses."""
        seen = Counter(phone for _, phone in self.seen(name))
        twice = [phone for phone, n in seen.items() if n > 1]
        assert not twice, f"requested more than once: {twice[:10]}"
        results = self.results(name)
        assert len(results) == rows
        statuses = Counter(row["status"] for row in results)
        assert statuses.keys() <= {"accepted", "unknown"}, statuses
        assert {row["phone"] for row in results if row["status"] == "accepted"} <= seen.keys()
        assert statuses["unknown"] <= unknown_at_most, statuses
        return statuses


def most_in(moments: Sequence[int], length: int) -> int:
    """The most in any half-open window of that length."""
    most = first = 0
    for last, at in enumerate(moments):
        while at - moments[first] >= length:
            first += 1
        most = max(most, last - first + 1)
    return most


@contextmanager
def opened(root: Path, server: Server) -> Iterator[Bench]:
    """A workspace. Workers are ended before their scheduler: together they may hang (seen with distributed 2026.8)."""
    (root / "stamps").mkdir(parents=True)
    bench = Bench(root, server, server.database())
    try:
        yield bench
    finally:
        for process in reversed(bench.started):
            process.end()


@pytest.fixture(scope="session")
def database_server() -> Iterator[Server]:
    """A PostgreSQL that these tests may stop."""
    server = start_server()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def bench(tmp_path: Path, database_server: Server) -> Iterator[Bench]:
    """A workspace of its own with a stand-in provider."""
    with opened(tmp_path / "workspace", database_server) as bench:
        bench.provider()
        yield bench
