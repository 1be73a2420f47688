"""The ledger in a real PostgreSQL that speaks nothing but TLS, with certificates made for the test by openssl(1)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import postgres
import pytest

from acceptance.workbench import Workbench, by_phone, numbers
from runner.sandbox import Sandbox

EXTENSIONS = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that takes connections by TLS only, the authority that signed its certificate, and one that did not."""

    server: postgres.Server
    authority: Path
    stranger: Path

    def address(self, options: str) -> str:
        """Of a new database."""
        return f"{self.server.database(empty=True)}?{options}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if shutil.which("openssl") is None:
        pytest.skip("the certificates of this test are made by openssl(1), which is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = (_authority(folder, name) for name in ("authority", "stranger"))
    server = postgres.start_server()
    try:
        assert server.folder is not None
        _make_server_certificate(folder, authority, server.folder / "data")
        server.stop(at_once=False)
        with (server.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n")
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        server.start()
        yield Guarded(server, authority, stranger)
    finally:
        server.close()


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _authority(folder: Path, name: str) -> Path:
    certificate = folder / f"{name}.crt"
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", folder / f"{name}.key")
    _openssl("req", "-x509", *key, "-out", certificate, "-days", "2", "-subj", f"/CN=invented {name}")
    return certificate


def _make_server_certificate(folder: Path, authority: Path, data: Path) -> None:
    """server.key and server.crt for 127.0.0.1, where only the server may read the key."""
    request, extensions = folder / "server.csr", folder / "extensions"
    extensions.write_text(EXTENSIONS)
    key, certificate = data / "server.key", data / "server.crt"
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=invented server")
    signing = ("-CA", authority, "-CAkey", authority.with_suffix(".key"), "-CAcreateserial")
    _openssl("x509", "-req", "-in", request, *signing, "-out", certificate, "-days", "2", "-extfile", extensions)
    key.chmod(0o600)
    if os.geteuid() == 0:
        for path in (key, certificate):
            shutil.chown(path, "nobody")


def sent_over(bench: Workbench, box: Sandbox, address: str) -> None:
    """A campaign to twenty people with its ledger there."""
    bench.audience((f"+{phone}", "Ada") for phone in numbers(20))
    campaign = bench.campaign(box.url)
    bench.send(campaign, "--ledger", address).must(0)
    assert sorted(by_phone(box)) == numbers(20)
    assert "accepted  20" in bench.run("status", "spring", "--ledger", address).must(0).out
    assert "Nothing to send" in bench.send(campaign, "--ledger", address).must(0).out


def test_a_campaign_is_sent_with_its_ledger_behind_tls(bench: Workbench, box: Sandbox, guarded: Guarded) -> None:
    sent_over(bench, box, guarded.address("sslmode=require"))


def test_a_campaign_is_sent_when_the_server_has_proved_who_it_is(
    bench: Workbench, box: Sandbox, guarded: Guarded
) -> None:
    sent_over(bench, box, guarded.address(f"sslmode=verify-full&sslrootcert={guarded.authority}"))


@pytest.mark.parametrize(
    ("options", "words", "fix"),
    [
        (
            "sslmode=verify-full&sslrootcert={stranger}",
            "certificate verify failed",
            "the server's certificate is not signed by the authority in sslrootcert",
        ),
        ("sslmode=verify-full&sslrootcert={missing}", "root certificate file", "give sslrootcert=FILE"),
        ("sslmode=disable", "no encryption", "its pg_hba.conf must (TLS or not: sslmode)"),
    ],
    ids=["another_authority", "no_such_authority", "without_tls"],
)
def test_a_server_that_cannot_be_trusted_is_refused_in_words_and_nothing_is_sent(
    bench: Workbench, box: Sandbox, guarded: Guarded, options: str, words: str, fix: str
) -> None:
    bench.audience((f"+{phone}", "Ada") for phone in numbers(3))
    filled = options.format(stranger=guarded.stranger, missing=guarded.stranger.with_name("none.crt"))
    refused = bench.send(bench.campaign(box.url), "--ledger", guarded.address(filled)).must(3)
    assert words in refused.err
    assert fix in refused.err
    assert "Traceback" not in refused.err
    assert "pass/word" not in refused.err + refused.out
    assert box.log == []


def test_a_certificate_for_another_host_is_refused(bench: Workbench, box: Sandbox, guarded: Guarded) -> None:
    bench.audience((f"+{phone}", "Ada") for phone in numbers(3))
    address = guarded.address(f"sslmode=verify-full&sslrootcert={guarded.authority}")
    elsewhere = address.replace("127.0.0.1", "localhost")
    refused = bench.send(bench.campaign(box.url), "--ledger", elsewhere).must(3)
    assert "the certificate names another host: use that name in the address" in refused.err
    assert box.log == []
