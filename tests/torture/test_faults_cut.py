"""Replies of both vendors cut at every byte, and faults of TLS. TORTURE=full takes every position, otherwise every seventh."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from bench import needs, size
from faults import Script, address, judge_everybody, judge_healthy, open_wire, phones, say
from faultserver import Behaviour, Connection, FaultServer

from runner.engine import Ending

pytestmark = pytest.mark.slow

REPLIES = Path(__file__).parent.parent / "providers"
CUTS = [  # what the vendors' pages show, and the refusals that both describe
    "wapim/200-queued",
    "wapim/200-status-false",
    "wapim/400-bad-request",
    "wapim/401-unauthorised",
    "wapim/413-big-file",
    "zixflow/200-sent",
    "zixflow/200-sent-with-ids",
    "zixflow/200-status-false",
    "zixflow/400-bad-request",
    "zixflow/401-unauthorised",
]


def _recorded(name: str) -> tuple[bytes, str]:
    """A recorded reply as bytes on the wire, and its verdict."""
    content = json.loads((REPLIES / f"{name}.json").read_text("utf-8"))
    reply, body = content["reply"], content["reply"]["body"].encode()
    lines = [f"HTTP/1.1 {reply['status']} Whatever", *(f"{key}: {value}" for key, value in reply["headers"].items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    return head + body, content["expected"]["verdict"]


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("name", CUTS)
async def test_a_reply_cut_at_any_byte_proves_nothing(name: str, end: str, tmp_path: Path) -> None:
    raw, verdict = _recorded(name)
    step = size(7, 1)
    cuts = range(0 if step == 1 else len(raw) % 7, len(raw), step)
    everybody = phones(2 * len(cuts) + 1)
    cut, healthy, whole = everybody[: 2 * len(cuts) : 2], everybody[1::2], everybody[-1]
    script = Script({phone: [say(raw[:count], end=end)] for phone, count in zip(cut, cuts, strict=True)})
    stops = "/401" in name  # the whole reply would end the run; it has a place in the matrix
    if not stops:
        script.answers[whole] = [say(raw)]
    with open_wire(tmp_path, name.partition("/")[0]) as wire:
        wire.plan(everybody)
        async with FaultServer(script) as server:
            assert await wire.run(address(server), concurrency=16) == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, len(everybody))
        judge_healthy(healthy, rows, script)
        wrong = {
            raw[:count]: rows[phone] for phone, count in zip(cut, cuts, strict=True) if rows[phone].status != "unknown"
        }
        assert not wrong
        assert rows[whole].status == ("accepted" if stops else verdict)
        assert set(script.asked.values()) == {1}
        reasons = Counter(rows[phone].reason for phone in cut)
        print(f"{name}: {len(cuts)} of {len(raw)} positions, {dict(reasons)}")


# --- TLS --------------------------------------------------------------------------------------------------------------

_CONFIG = """
[ca]
default_ca = d
[d]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = p
x509_extensions = e
unique_subject = no
[p]
commonName = supplied
[e]
subjectAltName = DNS:{name}
basicConstraints = critical, CA:true
"""


def _certificate(folder: Path, name: str, begin: str = "20250101000000Z", end: str = "20990101000000Z") -> Path:
    """A self-signed certificate with its key in one file."""
    folder.mkdir()
    (folder / "ca.cnf").write_text(_CONFIG.format(name=name), encoding="utf-8")
    (folder / "index.txt").touch()
    (folder / "serial").write_text("01\n", encoding="utf-8")
    for command in (
        f"req -new -newkey rsa:2048 -nodes -subj /CN={name} -keyout key.pem -out request.pem",
        "ca -batch -notext -selfsign -config ca.cnf -keyfile key.pem -in request.pem -out cert.pem "
        f"-startdate {begin} -enddate {end}",
    ):
        subprocess.run([needs("openssl"), *command.split()], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tls")
    return {
        "good": _certificate(folder / "good", "localhost"),
        "nobody signed it": _certificate(folder / "self", "localhost"),
        "another name": _certificate(folder / "other", "other.example"),
        "expired": _certificate(folder / "old", "localhost", "20200101000000Z", "20200201000000Z"),
    }


def _serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _trusting(certificates: dict[str, Path]) -> ssl.SSLContext:
    """Trusts all of them but the one that nobody signed: what is wrong with the others is not their issuer."""
    context = ssl.create_default_context()
    for name in ("good", "another name", "expired"):
        context.load_verify_locations(certificates[name].with_name("cert.pem"))
    return context


@pytest.mark.parametrize("name", ["nobody signed it", "another name", "expired"])
async def test_a_wrong_certificate_stops_the_run_before_a_byte_is_sent(
    name: str, certificates: dict[str, Path], tmp_path: Path
) -> None:
    script, trusting = Script(), _trusting(certificates)
    with open_wire(tmp_path) as wire:
        wire.plan(phones(12))
        async with FaultServer(script, tls=_serving(certificates[name])) as server:
            ending = await wire.run(address(server, "localhost"), tls=trusting)
            assert (ending.word, server.received) == ("stopped", [])
            attempts = [attempt for row in wire.rows().values() for attempt in row.attempts]
            assert {(attempt.verdict, attempt.reason) for attempt in attempts} == {("not_sent", "certificate")}
        wire.ahead += 120
        async with FaultServer(script, tls=_serving(certificates["good"])) as server:
            assert await wire.run(address(server, "localhost"), tls=trusting) == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, 12)
        judge_healthy(list(rows), rows, script)


async def _fin(connection: Connection) -> None:
    connection.fin()


async def _rst(connection: Connection) -> None:
    connection.rst()


async def _hang(connection: Connection) -> None:
    await connection.hang()


async def _plain_http(connection: Connection) -> None:
    await connection.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    connection.fin()


async def _cut_hello(connection: Connection) -> None:
    await connection.part(100)
    await connection.write(b"\x16\x03\x03\x00\x7a\x02\x00")
    connection.rst()


async def _alert(connection: Connection) -> None:
    await connection.part(5)
    await connection.write(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal, handshake_failure (RFC 8446 section 6)
    connection.fin()


@pytest.mark.parametrize(
    "behave", [_fin, _rst, _hang, _plain_http, _cut_hello, _alert], ids=lambda behave: behave.__name__
)
async def test_a_handshake_that_fails_for_a_while_costs_nobody_anything(
    behave: Behaviour, certificates: dict[str, Path], tmp_path: Path
) -> None:
    """Behind one address: first a fault, then the good server, to which the connection is handed on as it is."""
    script = Script()
    with open_wire(tmp_path) as wire:
        wire.plan(phones(12))
        async with FaultServer(script, tls=_serving(certificates["good"])) as good:
            front = Script(first=[behave] * 5)
            front_or_good: Behaviour = lambda connection: (  # noqa: E731 - one connection, one decision
                front(connection) if front.first else connection.hand_on(good.port)
            )
            async with FaultServer(front_or_good) as server:
                url = address(server, "localhost").replace("http:", "https:")
                ending = await wire.run(url, tls=_trusting(certificates), timeout=0.7, retries=5)
        assert ending == Ending("finished")
        rows = wire.rows()
        judge_everybody(rows, 12)
        judge_healthy(list(rows), rows, script)
        failed = [attempt for row in rows.values() for attempt in row.attempts if attempt.verdict == "not_sent"]
        assert len(failed) == 5
        print(Counter(attempt.reason for attempt in failed))
