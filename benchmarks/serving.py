"""Starts the loopback provider and asks it what it saw."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Noted:
    """The state of things when a marked request had arrived. Times in nanoseconds."""

    count: int
    at: int  # CLOCK_MONOTONIC
    own_cpu: int
    watched_cpu: int
    connections: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """From the first marked request to the last: what a message cost whom."""

    messages: int
    seconds: float
    client_cpu: float  # seconds of processor time
    server_cpu: float
    connections: int

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def client_us(self) -> float:
        """Microseconds of the client's processor time a message."""
        return self.client_cpu / self.messages * 1e6

    @property
    def server_us(self) -> float:
        """Microseconds of the server's processor time a message."""
        return self.server_cpu / self.messages * 1e6


class Loopback:
    """The provider's process. A context manager; `url` is where it listens."""

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", *map(str, tls or ())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._answer()
        self.port = int(ready["port"])
        self.real_time = bool(ready["real_time"])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Loopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - PIPE gives both
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def reset(self, *marks: int, watch: int = 0, delay: float = 0.0) -> None:
        """Forget what was seen. Note the state at these requests (1 is the first); answer after `delay` seconds."""
        self._ask("reset", marks=list(marks), watch=watch, delay=delay)

    def count(self) -> int:
        """Requests since the last reset."""
        return int(self._ask("stats")["count"])

    def noted(self) -> list[Noted]:
        """The marks that have been reached."""
        return [Noted(**entry) for entry in self._ask("stats")["noted"]]

    def stretch(self) -> Stretch:
        """Between the first and the last mark."""
        noted = self.noted()
        if len(noted) < 2:
            raise RuntimeError(f"the server saw {self.count()} requests, fewer than were to be measured")
        first, last = noted[0], noted[-1]
        return Stretch(
            last.count - first.count,
            (last.at - first.at) / 1e9,
            (last.watched_cpu - first.watched_cpu) / 1e9,
            (last.own_cpu - first.own_cpu) / 1e9,
            last.connections,
        )

    def arrivals(self, scratch: Path) -> list[int]:
        """When each request had arrived, in nanoseconds of CLOCK_MONOTONIC."""
        path = scratch / "arrivals"
        self._ask("save", path=str(path))
        times: array[int] = array("q")
        times.frombytes(path.read_bytes())
        path.unlink()
        return sorted(times)

    def _ask(self, do: str, **settings: object) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - PIPE gives it
        self._process.stdin.write(json.dumps({"do": do, **settings}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - PIPE gives it
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the loopback server has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def certificate(folder: Path) -> tuple[Path, Path] | None:
    """A certificate for 127.0.0.1 and its key, good for two days; None without the openssl program."""
    if shutil.which("openssl") is None:
        return None
    chain, key = folder / "chain.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*made.split(), "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return chain, key
