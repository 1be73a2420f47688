"""A workspace with invented people, and the real `campaign` command in it."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import pty
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from benchmarks.machine import on_core
from benchmarks.serving import ROOT
from benchmarks.workbooks import write_workbook

COLUMNS = ("Phone", "Name", "City", "SKU", "Size", "Points", "Note")
FIRST = ("Deniz", "Ada", "Bora", "Çiğdem", "Efe", "Gül", "Ilgaz", "Jale", "Kuzey", "Şirin", "Umut")
LAST = ("Kaya", "Yıldız", "Demir", "Öztürk", "Aydın", "Şahin", "Çelik")
CITIES = ("Izmir", "Ankara", "Bursa", "Adana", "Mersin", "Samsun", "Trabzon", "Van", "Konya")
CAPTION = (
    "Hello {{ Name }},\nyour size {{ Size }} is back at our shop in {{ City }}: 20 % off until Sunday with "
    "{% if Points|int > 500 %}the code SPRING{{ SKU|upper }}{% else %}this message{% endif %}."
)
IMAGE = "https://cdn.example.com/spring/{{ SKU }}.jpg"
SPREAD = 7_368_787  # without a factor of 10: ten million different numbers, in no order, as in a real audience
TOKEN = "invented-token-1c9d"  # noqa: S105 - nobody's


def people(count: int) -> Iterator[tuple[str, ...]]:
    """Rows of an audience: every number valid and different, in no order, 70 to 80 bytes each."""
    for i in range(count):
        yield (
            f"+90532{i * SPREAD % 10_000_000:07d}",
            f"{FIRST[i % 11]} {LAST[i % 7]}",
            CITIES[i % 9],
            f"sku-{i % 997:03d}",
            str(36 + i % 10),
            str(i * 7919 % 1000),
            f"note {i * 31 % 10007}",
        )


def write_csv(path: Path, count: int) -> None:
    """An audience as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(people(count))


def write_xlsx(path: Path, count: int) -> None:
    """The same as XLSX."""
    write_workbook(path, itertools.chain([COLUMNS], people(count)), count + 1)


def environment(**more: str) -> dict[str, str]:
    """What every program needs, and invented secrets."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    return {
        **kept,
        "WAPIM_TOKEN": TOKEN,
        "ZIXFLOW_TOKEN": TOKEN,
        "PYTHONUTF8": "1",
        "TERM": "xterm",
        "PYTHONPATH": str(ROOT),
        **more,
    }


class Workspace:
    """A folder with one campaign, `bench`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "campaigns").mkdir(parents=True, exist_ok=True)
        (root / "templates").mkdir(exist_ok=True)
        self.file = "campaigns/bench.yaml"
        self.ledger = root / "reports" / "ledger.sqlite3"

    def audience(self, count: int, kind: str = "csv") -> Path:
        """campaigns/people.KIND with so many people."""
        path = self.root / "campaigns" / f"people.{kind}"
        (write_csv if kind == "csv" else write_xlsx)(path, count)
        return path

    def borrow(self, path: Path) -> str:
        """An audience that lies elsewhere, under its own name in campaigns/ (a link: it may be large)."""
        os.link(path, self.root / "campaigns" / path.name)
        return path.name

    def campaign(
        self,
        url: str,
        *,
        audience: str = "people.csv",
        provider: str = "wapim",
        in_flight: int | None = None,
        rate: str | Sequence[str] = "unlimited",
        formats: Sequence[str] = ("csv",),
        keep: bool = True,
    ) -> None:
        """The campaign file. Without `in_flight` the provider's own default holds."""
        own: dict[str, object] = {"phone_id": "100000000000042"} if provider == "zixflow" else {}
        send: dict[str, object] = {"rate": rate if isinstance(rate, str) else list(rate), "timeout": "30s"}
        if keep:
            send["keep_connections"] = True
        if in_flight is not None:
            send["concurrency"] = in_flight
        content = {
            "campaign": "bench",
            "provider": {"name": provider, "token": f"${{{provider.upper()}_TOKEN}}", "base_url": url, **own},
            "audience": {"file": audience, "phone": "Phone"},
            "message": {"image": IMAGE, "caption": CAPTION},
            "send": send,
            "report": {"formats": list(formats)},
        }
        (self.root / self.file).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def start(
        self, *arguments: str, core: int | None = None, module: Sequence[str] = ("runner",), **more: str
    ) -> Command:
        """`campaign ARGUMENTS` in the workspace, with its bar on a terminal."""
        return Command([sys.executable, "-m", *module, *arguments], self.root, environment(**more), core)

    def run_seconds(self) -> float:
        """How long the last run took, by the ledger's own clock: from its record's beginning to its end."""
        with contextlib.closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as ledger:
            started, finished = ledger.execute(
                "SELECT started_at, finished_at FROM runs ORDER BY id DESC LIMIT 1"
            ).fetchone()
        return (int(finished) - int(started)) / 1e6


class Command:
    """A command at work. Its terminal is read all the time; the last words are kept for when it fails."""

    def __init__(self, command: list[str], folder: Path, variables: dict[str, str], core: int | None) -> None:
        self._ours, theirs = pty.openpty()
        with on_core(core):
            self.process = subprocess.Popen(
                command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
            )
        os.close(theirs)
        self.pid = self.process.pid
        self._words = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while data := os.read(self._ours, 65536):
                self._words = (self._words + data)[-4000:]

    def wait(self, *codes: int, seconds: float = 3600.0) -> None:
        """Wait for the end. Raises RuntimeError with its last words unless the exit code is 0 or one of `codes`."""
        code = self.process.wait(seconds)
        if self._ours >= 0:
            self._reader.join(10)
            os.close(self._ours)
            self._ours = -1
        if code not in (0, *codes):
            raise RuntimeError(f"the command ended with {code}:\n{self._words.decode(errors='replace')}")

    def kill(self) -> None:
        """End it now; what it was doing is not wanted any more."""
        self.process.kill()
        self.process.wait()
        self.wait(self.process.returncode)
