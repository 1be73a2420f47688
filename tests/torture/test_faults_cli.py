"""A handful of the faults through the real command: its exit code, its ledger, its result file."""

from __future__ import annotations

import asyncio
import csv
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from bench import TOKEN, Bench, Campaign, Provider, needs, open_bench
from faultcases import CASES_OF_ONE_RUN, Case
from faults import Script, address, answer
from faultserver import FaultServer

pytestmark = pytest.mark.slow

NEVER: Mapping[str, object] = {
    "unknown_in_a_row": "never",
    "unknown": "never",
    "rejected": "never",
    "shared_image_refused": False,
}
TIMEOUT = 3  # seconds
UNFINISHED, STOPPED = 1, 3


def _campaign(bench: Bench, url: str, rows: int, **send: object) -> Campaign:
    provider = Provider(url, Path("the fault server has its own log"))
    settings = {"concurrency": 8, "timeout": f"{TIMEOUT}s", "stop_when": NEVER, **send}
    return bench.campaign("faults", provider, rows, send=settings)


async def _send(bench: Bench, campaign: Campaign, *codes: int) -> str:
    run = bench.send(campaign)
    await asyncio.to_thread(run.must, *codes)
    assert TOKEN not in run.story
    return run.story


def _results(bench: Bench) -> Mapping[str, str]:
    """Status by number, from the file that a person opens."""
    with (bench.root / "reports" / "faults" / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["phone"].lstrip("'+"): row["status"] for row in csv.DictReader(file)}


async def test_every_fault_in_one_campaign_has_its_row_and_harms_nobody_else(tmp_path: Path) -> None:
    cases: Mapping[str, Case] = CASES_OF_ONE_RUN
    with open_bench(tmp_path) as bench:
        script = Script()
        async with FaultServer(script) as server:
            campaign = _campaign(bench, address(server), 60 + len(cases))
            chosen = dict(zip(campaign.phones, cases.values(), strict=False))
            script.answers = {phone: [case.behave] for phone, case in chosen.items()}
            await _send(bench, campaign, UNFINISHED)
            await _send(bench, campaign, 0)  # nothing to do
        results = _results(bench)
        assert {phone: results[phone] for phone in chosen} == {phone: case.verdict for phone, case in chosen.items()}
        healthy = campaign.phones[len(chosen) :]
        assert {results[phone] for phone in healthy} == {"accepted"}
        assert script.asked == dict.fromkeys(campaign.phones, 1)
        assert {row.phone: row.status for row in bench.book(campaign).rows} == results


async def test_a_redirect_stops_the_command_and_the_other_host_receives_nothing(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        async with FaultServer() as second:
            script = Script()
            async with FaultServer(script) as server:
                campaign = _campaign(bench, address(server), 20)
                location = f"Location: {address(second)}/elsewhere\r\n"
                script.answers = {campaign.phones[5]: [answer("307 Moved", b"", location)]}
                story = await _send(bench, campaign, STOPPED)
                assert "base_url" in story
                await _send(bench, campaign, 0)
            assert (second.accepted, second.received) == (0, [])
        assert script.asked == {phone: 1 + (phone == campaign.phones[5]) for phone in campaign.phones}
        assert set(_results(bench).values()) == {"accepted"}


async def test_slow_down_with_seconds_is_waited_for(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        script = Script()
        async with FaultServer(script) as server:
            campaign = _campaign(bench, address(server), 20)
            script.answers = {campaign.phones[5]: [answer("429 Too Many", b"{}", "Retry-After: 3\r\n")]}
            await _send(bench, campaign, 0)
        assert script.taken == dict.fromkeys(campaign.phones, 1)
        again = [request.at for request in server.received if campaign.phones[5].encode() in request.body]
        assert again[1] - again[0] >= 3.0


async def test_an_untrusted_certificate_stops_the_command_before_a_byte_is_sent(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([needs("openssl"), *command.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with open_bench(tmp_path) as bench:
        async with FaultServer(tls=context) as server:
            campaign = _campaign(bench, address(server, "localhost"), 10)
            story = await _send(bench, campaign, STOPPED)
            assert "certificate" in story
            assert server.received == []
        assert set(_results(bench).values()) <= {"pending", "retry_wait"}


async def test_a_name_that_never_resolves_sends_nothing_and_says_so(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        campaign = _campaign(bench, "https://provider.invalid", 1, retries=0)
        await _send(bench, campaign, UNFINISHED)
        assert set(_results(bench).values()) == {"not_sent"}
