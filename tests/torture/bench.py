"""What the torture tests work with: a workspace, the real command in a process group of its own, and a stand-in provider
that is a process too and outlives every runner. Sizes come from the environment:

    TORTURE=full            the large sizes (`make torture`); without it the small ones, for every change
    TORTURE_SEED=7          the seed of everything drawn by lot; each failure names the one it had
    TORTURE_KILLS=200       how many kills the random bench does
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import history
import psutil
import pytest
import yaml
from machine import crowd

FULL = os.environ.get("TORTURE") == "full"
SEED = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(1_000_000))
NOTE = f"TORTURE_SEED={SEED}"
TOKEN = "invented-token-7f21"
LONGEST = 120.0  # seconds that any one command may take


def size(small: int, full: int) -> int:
    """How often to do something, here and now."""
    return full if FULL else small


def needs(program: str) -> str:
    """The path of a program, installed with apt where that is possible; else skip. In CI (the variable CI) it must be there."""
    path = shutil.which(program)
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", program]):
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(command, check=False, timeout=300, env=environment, capture_output=True)
        path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed: apt-get install {program} (as root)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0, every: float = 0.002) -> float:
    """Wait until `condition` holds and return the moment (monotonic seconds); fail after `seconds` of an idle machine."""
    seconds *= crowd()
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what} ({NOTE})"
        time.sleep(every)
    return time.monotonic()


class Run:
    """A command at work in a process group of its own. Its output goes to files: no pipe can fill up and hold it."""

    def __init__(self, command: list[str], *, root: Path, environment: Mapping[str, str], number: int) -> None:
        self._out = root / f"run-{number}.out"
        self._err = root / f"run-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
        self.began = time.monotonic()

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text("utf-8", "replace")

    @property
    def speaks(self) -> bool:
        """Whether anything stands on standard output: for `send`, the plan is made and about to be adopted."""
        return self._out.stat().st_size > 0

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL for the whole process group; it is gone when this returns."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def wait(self, seconds: float = LONGEST) -> int:
        """The exit code; fails after `seconds` of an idle machine."""
        seconds *= crowd()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended after {seconds:.0f} s ({NOTE})\n{self.story}") from None

    def must(self, *codes: int, seconds: float = LONGEST) -> Run:
        """This very object, after waiting for one of these exit codes."""
        code = self.wait(seconds)
        assert code in codes, f"exit code {code}, not {' or '.join(map(str, codes))} ({NOTE})\n{self.story}"
        return self

    @property
    def story(self) -> str:
        """Both outputs, for messages."""
        return f"--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass(frozen=True, slots=True)
class Provider:
    """The stand-in: a process that lives as long as the test, and the file in which it notes every request."""

    url: str
    log: Path

    def seen(self) -> list[history.Seen]:
        """What it has received so far."""
        return history.read_log(self.log)

    def count(self) -> int:
        """How many requests it has received so far."""
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    @property
    def written(self) -> int:
        """Bytes in its log: cheaper to watch than `count`."""
        return self.log.stat().st_size if self.log.exists() else 0


@dataclass(slots=True)
class Campaign:
    """One campaign file with its invented audience."""

    name: str
    file: str  # from the workspace
    phones: tuple[str, ...]


_numbers = itertools.count()


@dataclass(slots=True)
class Bench:
    """A workspace and the `campaign` command in it."""

    root: Path
    environment: dict[str, str] = field(repr=False)
    runs: list[Run] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / "reports" / "ledger.sqlite3"

    # --- things to work with --------------------------------------------------------------------------------------------

    def provider(self, **scenario: object) -> Provider:
        """Start a stand-in provider with this behaviour and no magic numbers; it ends with the test."""
        number = next(_numbers)
        log = self.root / f"provider-{number}.jsonl"
        behaviour = self.root / f"provider-{number}.yaml"
        behaviour.write_text(yaml.safe_dump({"magic": False, "seed": SEED, **scenario}), encoding="utf-8")
        run = self.start("sandbox", "--scenario", str(behaviour), "--log", str(log))
        until(lambda: run.over or " at http" in run.out, "the stand-in provider")
        assert not run.over, run.story
        return Provider(run.out.split(" at ")[1].split()[0], log)

    def campaign(
        self,
        name: str,
        provider: Provider,
        rows: int,
        *,
        send: Mapping[str, object],
        top: Mapping[str, object] | None = None,
    ) -> Campaign:
        """campaigns/NAME.yaml and its audience of `rows` invented numbers, which no other campaign of this run has."""
        first = next(_numbers) * 10_000
        phones = tuple(f"90532{first + row:07d}" for row in range(rows))
        folder = self.root / "campaigns"
        folder.mkdir(exist_ok=True)
        lines = [f"+{phone},Person {phone[-6:]}" for phone in phones]
        (folder / f"{name}.csv").write_text("\n".join(["Phone,Name", *lines, ""]), encoding="utf-8")
        content = {
            "campaign": name,
            "provider": {"name": "wapim", "token": "${WAPIM_TOKEN}", "base_url": provider.url},
            "audience": {"file": f"{name}.csv", "phone": "Phone"},
            "message": {
                "image": f"https://cdn.example.com/{name}.jpg",
                "caption": f"{name}: merhaba {{{{ Name }}}} 🎁",
            },
            "send": {"rate": "unlimited", **send},
            **(top or {}),
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return Campaign(name, f"campaigns/{path.name}", phones)

    # --- the command ----------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Run:
        """Start `campaign ARGUMENTS`, `before` in front of the command line; it is killed with the test."""
        command = [*before, sys.executable, "-m", "runner", *arguments, *after]
        run = Run(command, root=self.root, environment=self.environment, number=len(self.runs))
        self.runs.append(run)
        return run

    def send(self, campaign: Campaign, *arguments: str, before: tuple[str, ...] = ()) -> Run:
        """Start `campaign send FILE --yes`."""
        return self.start("send", campaign.file, "--yes", *arguments, before=before)

    def finish(self, campaign: Campaign) -> Run:
        """`campaign send`, to its end: everything that waits is sent."""
        return self.send(campaign).must(0, 1)

    # --- judging ----------------------------------------------------------------------------------------------------------

    def book(self, campaign: Campaign) -> history.Book:
        """The campaign as it stands in the ledger's file just now."""
        return history.read_book(self.ledger, campaign.name)

    def judge(
        self,
        campaign: Campaign,
        provider: Provider,
        *,
        unknown_at_most: int,
        finished: bool = True,
        planned: bool = True,
    ) -> history.Figures:
        """Hold the provider's log against the ledger, and the result file too when the campaign is finished."""
        book = self.book(campaign)
        own = set(campaign.phones)
        rows = len(campaign.phones)
        note = f"{campaign.name}, {NOTE}"
        figures = history.judge(
            (seen for seen in provider.seen() if seen.phone in own),
            book,
            rows=rows if planned else None,
            unknown_at_most=unknown_at_most,
            finished=finished,
            note=note,
        )
        if finished:
            history.judge_results(self.root / "reports" / campaign.name / "results.csv", book, rows=rows, note=note)
        return figures

    # --- the end ------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what still runs."""
        for run in self.runs:
            run.kill()

    def leavings(self) -> list[str]:
        """Processes that still work in this workspace although nobody waits for them."""
        own = {run.process.pid for run in self.runs if not run.over}
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(self.root) and process.pid not in own:
                    found.append(" ".join(process.info["cmdline"]))
        return found


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
    """A workspace in `folder`. What still runs at the end is killed; a runner must leave no process behind."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH") if key in os.environ}
    root = folder.resolve() / "workspace"
    root.mkdir()
    bench = Bench(root, {**kept, "WAPIM_TOKEN": TOKEN, "PYTHONUTF8": "1", "COLUMNS": "200"})
    print(f"\n{NOTE}")
    try:
        yield bench
        until(lambda: not bench.leavings(), "processes left behind by a killed runner", seconds=30, every=0.2)
    finally:
        bench.close()
