"""Fan-out: the real `campaign send` beside bare loops with the same number of requests in flight.

The sending phase is told from the server: from the arrival of the first request to that of the last one, so planning, start-up
and result files are not in it; durable intents and outcomes, the gate and the progress bar are. The processor time is that of
the whole client process (all threads), read by the server at those two moments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.figures import Measure, Part, Row, Table, Target, ratios
from benchmarks.machine import CLIENT_CORE, facts, on_core
from benchmarks.peers import HEADERS, MESSAGE, PATH
from benchmarks.rounds import interleaved, say
from benchmarks.serving import ROOT, Loopback, Stretch, certificate
from benchmarks.stages import stages_of_sending
from benchmarks.workspace import Workspace, environment


@dataclass(frozen=True, slots=True)
class Sizes:
    """Messages of each variant; the slow ones send fewer."""

    product: int
    aiohttp: int
    requests: int
    threads: int
    ceiling: int


FULL = Sizes(product=20_000, aiohttp=20_000, requests=1_500, threads=3_000, ceiling=100_000)
QUICK = Sizes(product=2_000, aiohttp=3_000, requests=300, threads=600, ceiling=30_000)
FEWEST_OF_WRK = 10_000  # it counts in seconds
OURS, OURS_ONCE = "campaign send, keep_connections", "campaign send, as it comes"
FLIGHTS = (("wapim", 50, 50), ("zixflow", None, 10))  # provider, `concurrency` in the file, what that comes to


@dataclass(frozen=True, slots=True)
class Sent:
    """One variant in one round."""

    rate: float  # messages a second
    client_us: float  # of processor time a message
    server_us: float
    connections: int
    run_rate: float = 0.0  # messages a second by the ledger's own run times, start and end of the engine included

    @classmethod
    def of(cls, stretch: Stretch, run_rate: float = 0.0) -> Sent:
        """What the server saw."""
        return cls(stretch.rate, stretch.client_us, stretch.server_us, stretch.connections, run_rate)


def fanout(*, quick: bool, rounds: int, sizes: Sizes | None = None, whole: bool = True) -> Part:
    """The part as a whole; without `whole` only the first number in flight, and no TLS."""
    sizes = sizes or (QUICK if quick else FULL)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        tables, targets, notes = [], [], list[str]()
        for provider, concurrency, in_flight in FLIGHTS if whole else FLIGHTS[:1]:
            say(f"fan-out, {in_flight} in flight ({provider})")
            with Loopback() as server:
                table, wanted = _compare(server, scratch, sizes, rounds, provider, concurrency, in_flight)
            tables.append(table)
            targets += wanted
        say("fan-out, stages")
        with Loopback() as server:
            tables.append(stages_of_sending(server, scratch, sizes.product, FLIGHTS[0][1] or 50))
        pair = certificate(scratch) if whole else None
        if pair is None:
            notes.append("TLS was not measured (it takes the openssl program to make a certificate).")
        else:
            say("fan-out, TLS")
            with Loopback(pair) as server:
                tables.append(_over_tls(server, scratch, sizes, rounds, pair[0]))
        notes.append(
            "The client ran on one core and the server on the other; both the kernel's work for the loopback is in the "
            "processor times."
        )
        return Part(
            name="fanout",
            title="Fan-out",
            command="make bench-quick" if quick else "make bench",
            quick=quick,
            rounds=rounds,
            machine=facts(scratch),
            tables=tuple(tables),
            targets=tuple(targets),
            notes=tuple(notes),
        )


def _compare(
    server: Loopback,
    scratch: Path,
    sizes: Sizes,
    rounds: int,
    provider: str,
    concurrency: int | None,
    in_flight: int,
) -> tuple[Table, list[Target]]:
    def peer(name: str, count: int) -> Callable[[], Sent]:
        return partial(run_peer, server, name, count, in_flight)

    variants: dict[str, Callable[[], Sent]] = {
        OURS: partial(run_product, server, scratch, sizes.product, provider, concurrency, keep=True),
        OURS_ONCE: partial(run_product, server, scratch, sizes.product // 2, provider, concurrency, keep=False),
        "aiohttp, tuned": peer("tuned", sizes.aiohttp),
        "aiohttp, tuned, a connection each": peer("tuned-closing", sizes.aiohttp),
        "aiohttp, as most write it": peer("plain", sizes.aiohttp),
    }
    if in_flight == FLIGHTS[0][2]:
        variants |= {
            "aiohttp, tuned, and the least durable ledger": peer("durable", sizes.aiohttp),
            "the same ledger, with WAL": peer("durable-wal", sizes.aiohttp),
            "the same ledger, never synced": peer("unsynced", sizes.aiohttp),
            "requests, a loop": peer("requests", sizes.requests),
            "requests, a thread pool": peer("threads", sizes.threads),
            ceiling_name(): partial(run_ceiling, server, sizes.ceiling, in_flight),
        }
    found = interleaved(variants, rounds)
    ours = found[OURS]

    def line(name: str, sent: list[Sent]) -> Row:
        rates = [each.rate for each in sent]
        return Row(
            label=name,
            cells=(
                Measure(unit="/s", values=tuple(rates)),
                Measure(unit="µs", values=tuple(each.client_us for each in sent)),
                Measure(unit="µs", values=tuple(each.server_us for each in sent)),
                f"{sent[-1].connections:,}",
                "-" if sent is ours else ratios([each.rate for each in ours], rates),
            ),
        )

    against = {name: ratios([each.rate for each in ours], [each.rate for each in sent]) for name, sent in found.items()}
    where = f"{in_flight} in flight"
    targets = [
        Target(
            what=f"{OURS}, to tuned aiohttp, {where}",
            rule="at least",
            limit=0.80,
            measure=against["aiohttp, tuned"],
        ),
        Target(
            what=f"{OURS}, to aiohttp as most write it, {where}",
            rule="at least",
            limit=1.0,
            measure=against["aiohttp, as most write it"],
        ),
    ]
    if "requests, a loop" in against:
        targets.append(
            Target(
                what=f"{OURS}, to a requests loop, {where}",
                rule="at least",
                limit=8.0,
                measure=against["requests, a loop"],
            )
        )
    by_ledger = Measure(unit="/s", values=tuple(each.run_rate for each in ours))
    table = Table(
        title=f"{in_flight} in flight ({provider}), plain HTTP",
        columns=("", "messages", "CPU a message", "server's CPU a message", "connections", "the first row to this"),
        rows=tuple(line(name, sent) for name, sent in found.items()),
        note=f"The first row by the ledger's own run times, its first and last commit included: {by_ledger.text()}.",
    )
    return table, targets


def _over_tls(server: Loopback, scratch: Path, sizes: Sizes, rounds: int, chain: Path) -> Table:
    """What it costs not to keep connections, where it costs most."""
    in_flight = FLIGHTS[0][2]

    def peer(name: str, count: int) -> Callable[[], Sent]:
        return partial(run_peer, server, name, count, in_flight, SSL_CERT_FILE=str(chain))

    variants: dict[str, Callable[[], Sent]] = {
        name: partial(
            run_product, server, scratch, sizes.product // 2, "wapim", in_flight, keep=keep, SSL_CERT_FILE=str(chain)
        )
        for name, keep in ((OURS, True), (OURS_ONCE, False))
    } | {
        "aiohttp, tuned": peer("tuned", sizes.aiohttp // 2),
        "aiohttp, tuned, a connection each": peer("tuned-closing", sizes.aiohttp // 4),
    }
    found = interleaved(variants, rounds)
    kept = [each.rate for each in found["aiohttp, tuned"]]
    return Table(
        title=f"{in_flight} in flight (wapim), TLS 1.3 with a certificate of RSA 2048",
        columns=("", "messages", "CPU a message", "server's CPU a message", "connections", "to tuned aiohttp on TLS"),
        rows=tuple(
            Row(
                label=name,
                cells=(
                    Measure(unit="/s", values=tuple(each.rate for each in sent)),
                    Measure(unit="µs", values=tuple(each.client_us for each in sent)),
                    Measure(unit="µs", values=tuple(each.server_us for each in sent)),
                    f"{sent[-1].connections:,}",
                    ratios([each.rate for each in sent], kept),
                ),
            )
            for name, sent in found.items()
        ),
    )


def run_product(
    server: Loopback, scratch: Path, count: int, provider: str, concurrency: int | None, *, keep: bool, **variables: str
) -> Sent:
    """The whole of `campaign send` in a workspace of its own; measured is its sending phase."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        workspace = Workspace(Path(folder))
        workspace.audience(count)
        workspace.campaign(server.url, provider=provider, in_flight=concurrency, keep=keep)
        command = workspace.start("send", workspace.file, "--yes", core=CLIENT_CORE, **variables)
        server.reset(1, count, watch=command.pid)
        command.wait()
        if server.count() != count:
            raise RuntimeError(f"{server.count()} requests for {count} recipients")
        return Sent.of(server.stretch(), count / workspace.run_seconds())


def run_peer(server: Loopback, name: str, count: int, in_flight: int, **variables: str) -> Sent:
    """One of benchmarks/peers.py."""
    with on_core(CLIENT_CORE):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", name, server.url, str(count), str(in_flight)],
            cwd=ROOT,
            env=environment(**variables),
            stdin=subprocess.PIPE,
        )
    server.reset(1, count, watch=process.pid)
    process.communicate(b"go\n", timeout=600)
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return Sent.of(server.stretch())


def ceiling_name() -> str:
    """What the box can do at most with this server: wrk where it is installed, else bare sockets."""
    return "wrk, the ceiling" if shutil.which("wrk") else "bare sockets, the ceiling"


def run_ceiling(server: Loopback, count: int, in_flight: int) -> Sent:
    """As many requests as the server answers."""
    if shutil.which("wrk") is None or count < FEWEST_OF_WRK:
        return run_peer(server, "raw", count, in_flight)
    script = "\n".join(
        [
            'wrk.method = "POST"',
            *(f'wrk.headers["{name}"] = "{value}"' for name, value in HEADERS.items()),
            f"wrk.body = [[{_json(MESSAGE)}]]",
        ]
    )
    seconds = max(1, round(count / 40_000))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        with on_core(CLIENT_CORE):
            process = subprocess.Popen(
                ["wrk", "-t1", f"-c{in_flight}", f"-d{seconds}", "-s", file.name, server.url + PATH],
                stdout=subprocess.PIPE,
                text=True,
            )
        server.reset(1, *range(2_000, 1_000_000, 2_000), watch=process.pid)
        said, _ = process.communicate(timeout=120)
    if not re.search(r"Requests/sec", said):
        raise RuntimeError(f"wrk said: {said}")
    return Sent.of(server.stretch())


def _json(value: object) -> str:
    import json

    return json.dumps(value)
