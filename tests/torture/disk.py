"""What the torture tests of disks, clocks, secrets and hostile files share: a workspace, the real command, the referee."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from runner.sandbox import Entry, Sandbox, SandboxSettings, Scenario

FULL = os.environ.get("TORTURE") == "full"  # the larger sizes
T = TypeVar("T")
TOKEN = "canary-token-58f1c0aa7be24d93"
IMAGE = "https://cdn.example.com/spring.jpg"
CALM = Scenario(magic=False)
SECONDS = 60.0  # the longest that any one command may take


def sized(values: Sequence[T], count: int) -> list[T]:
    """All of them, or evenly spread `count` of them where time is short."""
    return list(values) if FULL else [values[n * len(values) // count] for n in range(count)]


# --- what the machine can do ------------------------------------------------------------------------------------------


def impossible(why: str) -> NoReturn:
    """At a desk the test is skipped; in CI, where everything can be had, that would hide it: there it fails."""
    if os.environ.get("CI"):
        pytest.fail(f"cannot be tested here, and must be in CI: {why}")
    pytest.skip(why)


def need_root() -> None:
    """For mounts, and for programs that only root can install."""
    if os.geteuid() != 0:
        impossible("only root can do this")


def program(name: str, package: str) -> str:
    """The path of a program. In CI it is installed from the distribution when it is missing."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, check=False, timeout=180)
        found = shutil.which(name)
    if found is None:
        impossible(f"{name} is not installed (apt-get install {package})")
    return found


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own at `folder`, in memory, with room for so much."""
    need_root()
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "torture", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        impossible(f"no file system can be mounted: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left on the disk of `folder`. Returns the file to remove for having it back."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 4096, 512, 1):
            while True:
                try:
                    if file.write(b"\xff" * size) < size:
                        break
                except OSError:
                    break
    return ballast


# --- the command ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, and the most memory (bytes, resident) that it and its children took."""

    code: int
    out: str
    err: str
    own_peak: int = 0
    child_peak: int = 0
    seconds: float = 0.0

    @property
    def said(self) -> str:
        """Everything it said."""
        return self.out + self.err

    def must(self, *codes: int) -> Finished:
        """This very object, after making sure of the exit code and that nobody saw a traceback."""
        assert self.code in codes, f"exit code {self.code}, not {codes}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        assert "Traceback" not in self.said
        return self


class Running:
    """A command at work. Its output is read all the time; with `watched`, its memory is looked at every 20 ms."""

    def __init__(self, process: subprocess.Popen[str], *, watched: bool) -> None:
        self.process = process
        self._began = time.monotonic()
        self._texts: dict[str, list[str]] = {"out": [], "err": []}
        self._threads: list[threading.Thread] = []
        self._peaks = {True: 0, False: 0}
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            self._start(partial(self._texts[name].extend, stream))
        if watched:
            self._start(self._look)

    def _start(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _look(self) -> None:
        while self.process.poll() is None:
            for pid in (self.process.pid, *children_of(self.process.pid)):
                own = pid == self.process.pid
                self._peaks[own] = max(self._peaks[own], _peak_memory(pid))
            time.sleep(0.02)

    def said(self, stream: str, words: str) -> bool:
        """Whether these words have been printed on 'out' or 'err' so far."""
        return any(words in line for line in list(self._texts[stream]))

    def wait(self, seconds: float = SECONDS) -> Finished:
        """Wait for the end. Fails when it takes longer than `seconds`."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.close()
            pytest.fail(f"still at work after {seconds:.0f} s\n{''.join(self._texts['err'])}")
        took = time.monotonic() - self._began
        for thread in self._threads:
            thread.join(5)
        out, err = ("".join(self._texts[name]) for name in ("out", "err"))
        return Finished(code, out, err, self._peaks[True], self._peaks[False], took)

    def close(self) -> None:
        """End it and its children if they have not ended, and let go of the pipes."""
        for pid in (*children_of(self.process.pid), self.process.pid):
            if self.process.poll() is None:
                _kill(pid)
        self.process.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def children_of(pid: int) -> list[int]:
    """The processes that `pid` has started, and those that they have started. Cheap: the kernel keeps the list."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(word) for word in thread.read_text().split()]
        except OSError:
            continue  # it has just ended
        for child in direct:
            found += [child, *children_of(child)]
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _peak_memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


# --- the workspace ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bench:
    """A workspace, and the `campaign` command in it. `close` ends what still runs."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    watched: bool = False  # look at the memory that commands take

    def __post_init__(self) -> None:
        self.environment = {**base_environment(), **self.environment}

    @property
    def reports(self) -> Path:
        """Where the program writes."""
        return self.root / "reports"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.reports / "ledger.sqlite3"

    def write(self, name: str, content: str | bytes) -> Path:
        """A file, by its path from the workspace."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def people(self, count: int, first: int = 1) -> list[str]:
        """campaigns/people.csv with so many invented people. Returns their numbers."""
        phones = numbers(count, first)
        self.write("campaigns/people.csv", "Phone,Name\n" + "".join(f"+{phone},Ada\n" for phone in phones))
        return phones

    def campaign(self, url: str | None, *, name: str = "spring", **blocks: Mapping[str, object]) -> str:
        """campaigns/NAME.yaml: a small working campaign with `blocks` laid over it. A key that is None is left out."""
        content: dict[str, dict[str, object]] = {
            "provider": {"name": "wapim", "token": "${WAPIM_TOKEN}", "base_url": url},
            "audience": {"file": "people.csv", "phone": "Phone"},
            "message": {"image": IMAGE, "caption": "Hello {{ Name }}"},
            "send": {"rate": "unlimited", "concurrency": 20, "backoff": "200ms", "timeout": "10s"},
        }
        for block, values in blocks.items():
            content[block] = {**content.get(block, {}), **values}
        lines = [f"campaign: {name}"]
        for block, values in content.items():
            lines.append(f"{block}:")
            lines += [f"  {key}: {json.dumps(value)}" for key, value in values.items() if value is not None]
        self.write(f"campaigns/{name}.yaml", "\n".join(lines) + "\n")
        return f"campaigns/{name}.yaml"

    def start(self, *arguments: str, before: Sequence[str] = (), **environment: str) -> Running:
        """Start `campaign ARGUMENTS` in the workspace, through the program `before` if one is given."""
        return self._start([*before, sys.executable, "-m", "runner", *arguments], environment)

    def start_code(self, code: str, *arguments: str, **environment: str) -> Running:
        """Start Python with `code`, which finds `arguments` where the command would: for faults put in beforehand."""
        return self._start([sys.executable, "-c", code, *arguments], environment)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> Running:
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        running = Running(process, watched=self.watched)
        self.running.append(running)
        return running

    def run(self, *arguments: str, before: Sequence[str] = (), **environment: str) -> Finished:
        """Run `campaign ARGUMENTS` in the workspace to its end."""
        return self.start(*arguments, before=before, **environment).wait()

    def send(self, *arguments: str, before: Sequence[str] = (), **environment: str) -> Finished:
        """`campaign send campaigns/spring.yaml --yes ARGUMENTS`, to its end."""
        return self.run("send", "campaigns/spring.yaml", "--yes", *arguments, before=before, **environment)

    def here(self, *arguments: str) -> Finished:
        """The command in this very process, for what only leads up to a test or follows it: it spares the start-up."""
        from runner import cli

        out, err, before = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = ["campaign", *arguments, "--workspace", str(self.root)]
        try:
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
                patch.chdir(self.root)
                for key, value in self.environment.items():
                    patch.setenv(key, value)
                code = cli._run()
        finally:
            sys.argv = before
        return Finished(code, out.getvalue(), err.getvalue())

    def send_here(self, *arguments: str) -> Finished:
        """`here` for `campaign send campaigns/spring.yaml --yes ARGUMENTS`."""
        return self.here("send", "campaigns/spring.yaml", "--yes", *arguments)

    def rows(self, folder: str = "spring") -> list[dict[str, str]]:
        """results.csv, row by row."""
        with (self.reports / folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def statuses(self) -> dict[str, str]:
        """Phone -> status, as results.csv has them."""
        return {row["phone"]: row["status"] for row in self.rows()}

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """What the ledger itself says, read by nothing of ours."""
        with open_database(self.ledger) as connection:
            return list(connection.execute(query))

    def close(self) -> None:
        """End what still runs."""
        for running in self.running:
            running.close()


def base_environment() -> dict[str, str]:
    """What every program needs, and an invented secret."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH") if key in os.environ}
    return {**kept, "WAPIM_TOKEN": TOKEN, "ZIXFLOW_TOKEN": TOKEN, "PYTHONUTF8": "1", "COLUMNS": "200"}


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A database, closed at the end (which the context manager of sqlite3 itself does not do)."""
    connection = sqlite3.connect(path, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def numbers(count: int, first: int = 1) -> list[str]:
    """Invented Turkish mobile numbers, E.164 digits."""
    return [f"90532{number:07d}" for number in range(first, first + count)]


def until(condition: Callable[[], bool], seconds: float = 20.0, what: str = "it") -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.01)


# --- the referee ------------------------------------------------------------------------------------------------------


@contextmanager
def provider(scenario: Scenario = CALM) -> Iterator[Sandbox]:
    """A stand-in provider on a real socket, in this process: its log is the truth about what was sent."""
    with Sandbox(SandboxSettings(scenario=scenario, full_headers=True, hang_seconds=20.0)).in_thread() as box:
        yield box


def sends(box: Sandbox) -> list[Entry]:
    """The requests for messages that arrived, oldest first."""
    return [entry for entry in box.log if entry.method == "POST"]


def check_every_request_was_recorded(bench: Bench, box: Sandbox) -> None:
    """No request without its attempt on disk, and nobody asked for twice: read from the ledger and the stand-in's log."""
    asked = [entry.phone for entry in sends(box)]
    assert len(asked) == len(set(asked)), "requested twice: " + ", ".join(
        sorted(p for p in asked if asked.count(p) > 1)
    )
    recorded = {
        str(phone)
        for (phone,) in bench.ask("SELECT r.phone FROM attempts a JOIN recipients r ON r.id = a.recipient_id")
    }
    assert set(asked) <= recorded, f"sent without an attempt on disk: {sorted(set(asked) - recorded)}"
    assert bench.ask("PRAGMA integrity_check") == [("ok",)]


def check_the_ledger_tells_the_truth(bench: Bench, box: Sandbox, statuses: Iterable[str] = ("accepted",)) -> None:
    """`check_every_request_was_recorded`, and everybody whom the provider took has one of `statuses`."""
    check_every_request_was_recorded(bench, box)
    status = {str(phone): str(word) for phone, word in bench.ask("SELECT phone, status FROM recipients")}
    wanted = set(statuses)
    wrong = {entry.phone: status[entry.phone] for entry in sends(box) if status[entry.phone] not in wanted}
    assert not wrong, f"the provider took them, the ledger says otherwise: {wrong}"
