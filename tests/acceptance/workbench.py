"""What the acceptance tests work with: a workspace in a folder of its own, the real command, and the stand-in's own log."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import yaml
from machine import crowd

from runner.sandbox import Entry, Sandbox, SandboxSettings, Scenario
from runner.sandbox_log import steady_clock

TOKEN = "invented-token-1c9d"
PHONE_ID = "100000000000042"
IMAGE = "https://cdn.example.com/spring.jpg"
CALM = Scenario(magic=False)
PULSE_SECONDS = 0.002
SECONDS = 60.0  # the longest that any one command may take here


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be nothing but JSON."""
        return json.loads(self.out)

    def must(self, code: int) -> Finished:
        """This very object, after making sure of the exit code."""
        assert self.code == code, f"exit code {self.code}, not {code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        return self


class Running:
    """A command that is still at work. Its output is read all the time, so that no full pipe can stop it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._read: dict[str, list[str]] = {"out": [], "err": []}
        self._readers = []
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            reader = threading.Thread(target=self._read[name].extend, args=(stream,), daemon=True)
            reader.start()
            self._readers.append(reader)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def so_far(self, stream: str) -> str:
        """What has been printed on 'out' or 'err' so far."""
        return "".join(list(self._read[stream]))

    def said(self, stream: str, words: str) -> bool:
        """Whether these words have been printed on 'out' or 'err' so far."""
        return words in self.so_far(stream)

    def wait(self, seconds: float = SECONDS) -> Finished:
        """Wait for the end."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return Finished(code, "".join(self._read["out"]), "".join(self._read["err"]))

    def close(self) -> None:
        """End it if it has not ended, and let go of its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@dataclass(slots=True)
class Workbench:
    """A workspace, and the `campaign` command in it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    stack: ExitStack = field(default_factory=ExitStack)

    # --- files ------------------------------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes) -> Path:
        """A file, by its path from the workspace; text is written as it is, in UTF-8."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def audience(
        self, rows: Iterable[Sequence[object]], columns: Sequence[str] = ("Phone", "Name"), name: str = "people.csv"
    ) -> Path:
        """campaigns/NAME, CSV or XLSX by its ending. In XLSX every value keeps its Python type."""
        path = self.root / "campaigns" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".xlsx":
            book = openpyxl.Workbook()
            sheet = book.active
            assert sheet is not None
            sheet.append(list(columns))
            for row in rows:
                sheet.append(list(row))
                for cell in sheet[sheet.max_row]:
                    if cell.data_type == "f":
                        cell.data_type = "s"  # a text that begins with '=' is meant as text here
            book.save(path)
            book.close()
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writerow(columns)
                writer.writerows(rows)
        return path

    def campaign(self, url: str = "", *, name: str = "spring", **blocks: Mapping[str, object]) -> str:
        """campaigns/NAME.yaml: a small working campaign with `blocks` laid over it. A key that is None is left out."""
        provider: dict[str, object] = {"name": "wapim", "token": "${WAPIM_TOKEN}", "base_url": url or None}
        if blocks.get("provider", {}).get("name") == "zixflow":
            provider |= {"token": "${ZIXFLOW_TOKEN}", "phone_id": PHONE_ID}
        content: dict[str, dict[str, object]] = {
            "provider": provider,
            "audience": {"file": "people.csv", "phone": "Phone"},
            "message": {"image": IMAGE, "caption": "Hello {{ Name }}"},
            "send": {"rate": "unlimited", "concurrency": 8, "backoff": "200ms", "timeout": "10s"},
        }
        for block, values in blocks.items():
            content[block] = {**content.get(block, {}), **values}
        cleaned = {
            block: {key: value for key, value in values.items() if value is not None}
            for block, values in content.items()
        }
        text = yaml.safe_dump({"campaign": name, **cleaned}, allow_unicode=True, sort_keys=False)
        self.write(f"campaigns/{name}.yaml", text)
        return f"campaigns/{name}.yaml"

    # --- the command --------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, **environment: str) -> Running:
        """Start `campaign ARGUMENTS` in the workspace; it is ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        running = Running(process)
        self.stack.callback(running.close)
        return running

    def run(self, *arguments: str, seconds: float = SECONDS, **environment: str) -> Finished:
        """Run `campaign ARGUMENTS` in the workspace to its end."""
        return self.start(*arguments, **environment).wait(seconds)

    def send(self, file: str, *arguments: str, seconds: float = SECONDS, **environment: str) -> Finished:
        """`campaign send FILE --yes ARGUMENTS`, to its end."""
        return self.run("send", file, "--yes", *arguments, seconds=seconds, **environment)

    # --- what came of it ------------------------------------------------------------------------------------------------

    def report(self, file: str = "results.csv", campaign: str = "spring") -> Path:
        """The path of a result file."""
        return self.root / "reports" / campaign / file

    def results(self, campaign: str = "spring") -> list[dict[str, str]]:
        """results.csv, row by row."""
        with self.report(campaign=campaign).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def statuses(self, campaign: str = "spring") -> dict[str, str]:
        """Phone -> status in results.csv."""
        return {row["phone"]: row["status"] for row in self.results(campaign)}

    def sheet(self, campaign: str = "spring", file: str = "results.xlsx") -> list[dict[str, object]]:
        """The first sheet of results.xlsx, row by row."""
        book = openpyxl.load_workbook(self.report(file, campaign))
        try:
            sheet = book.worksheets[0]
            header, *rows = ([cell.value for cell in row] for row in sheet.iter_rows())
            return [dict(zip(map(str, header), row, strict=True)) for row in rows]
        finally:
            book.close()


def base_environment() -> dict[str, str]:
    """What every program needs, and invented secrets."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH") if key in os.environ}
    return {**kept, "WAPIM_TOKEN": TOKEN, "ZIXFLOW_TOKEN": TOKEN, "PYTHONUTF8": "1", "COLUMNS": "200"}


class OpenSandbox:
    """Opens stand-ins on real sockets, each in a thread with a loop of its own; they end with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, scenario: Scenario = CALM, **settings: Any) -> Sandbox:
        """A stand-in that keeps whole headers; without magic numbers unless `scenario` says otherwise."""
        box = Sandbox(SandboxSettings(scenario=scenario, full_headers=True, **settings))
        self._stack.enter_context(box.in_thread())
        return box

    def with_pulse(self, scenario: Scenario = CALM) -> tuple[Sandbox, list[int]]:
        """A stand-in, and the moments (microseconds, its own clock) at which its event loop came round."""
        clock, ticks = steady_clock(), list[int]()
        box = Sandbox(SandboxSettings(scenario=scenario, full_headers=True), clock)
        ready, over = threading.Event(), threading.Event()

        async def serve() -> None:
            async with box:
                ready.set()
                while not over.is_set():
                    ticks.append(clock())
                    await asyncio.sleep(PULSE_SECONDS)

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(over.set)
        assert ready.wait(10)
        return box, ticks


def numbers(count: int, first: int = 1) -> list[str]:
    """Invented Turkish mobile numbers, E.164 digits."""
    return [f"90532{number:07d}" for number in range(first, first + count)]


def sent_phones(box: Sandbox) -> list[str]:
    """The phones in the order of their requests."""
    return [entry.phone for entry in box.log]


def captions(box: Sandbox) -> dict[str, str]:
    """Phone -> caption as it stood in the Wapim request."""
    return {entry.phone: json.loads(entry.body).get("caption", "") for entry in box.log}


def by_phone(box: Sandbox) -> dict[str, Entry]:
    """Phone -> request; every phone must have been requested once."""
    log = box.log
    found = {entry.phone: entry for entry in log}
    assert len(found) == len(log), f"requested more than once: {box.stats().phones_twice}"
    return found


def until(condition: Callable[[], bool], seconds: float = SECONDS, what: str = "it") -> None:
    """Wait until `condition` holds; fail after `seconds` of an idle machine."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds * crowd(), f"waited {seconds:.0f} s for {what}"
        time.sleep(0.01)
