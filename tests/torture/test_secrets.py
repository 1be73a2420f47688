"""A canary token and a thousand canary numbers: whatever goes wrong, the token is nowhere, the numbers where they belong."""

from __future__ import annotations

import os
import re
import signal
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk import SECONDS, TOKEN, Bench, Running, children_of, provider, sends, sized

from runner.sandbox import MAGIC, Scenario

PHONES = 1000
HOLDS_NUMBERS = re.compile(  # the files that are there to hold numbers
    r"reports/(ledger\.sqlite3(-journal)?|[^/]+/(results\.(csv|xlsx)|retry\.csv|report\.html|preview\.(xlsx|html)))$"
)
ENDING = {"0401", "0402", "0403", "0708", "0709"}  # these end a run, so each gets one of its own
SLOW = {"0430", "0705", "0707"}  # 0430 is tried again for minutes
NOISY = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "default"}
SITE = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.debug("debug logging is on")
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workspace with its own temporary folder beside it; the token comes from the environment."""
    made = Bench(tmp_path / "workspace")
    (tmp_path / "tmp").mkdir()
    made.environment["TMPDIR"] = str(tmp_path / "tmp")
    try:
        yield made
    finally:
        made.close()


def canaries(*endings: str) -> list[str]:
    """Invented numbers nobody else would print: one for each of the stand-in's special endings, and ordinary ones."""
    special = [f"90532777{ending}" for ending in endings]
    ordinary = [f"90532{n:07d}" for n in range(8_880_000, 8_880_000 + PHONES) if f"{n:07d}"[-4:] not in MAGIC]
    return [*special, *ordinary[: PHONES - len(special)]]


def audience(bench: Bench, phones: list[str], name: str = "people.csv") -> None:
    bench.write(f"campaigns/{name}", "Phone,Name\n" + "".join(f"+{phone},Ada\n" for phone in phones))


def texts_of(path: Path) -> bytes:
    """What a file holds, archives unpacked."""
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content += b"".join(archive.read(name) for name in archive.namelist())
    return content


@dataclass(frozen=True, slots=True)
class Search:
    """Looks for the canaries."""

    phones: list[str]

    def numbers_in(self, text: bytes) -> set[str]:
        """The full canary numbers in a text, however they are set apart."""
        found = set(re.findall(rb"90 ?532(?:[ -]?\d){7}", text))
        digits = {re.sub(rb"\D", b"", one).decode() for one in found}
        return digits & set(self.phones)

    def spoken(self, text: str) -> None:
        """Nothing of either may have been said."""
        assert TOKEN not in text
        assert not self.numbers_in(text.encode()), sorted(self.numbers_in(text.encode()))[:3]

    def files(self, bench: Bench) -> None:
        """The token in no file at all; numbers in those that are there for them, and in the audience's own."""
        for path in bench.root.parent.rglob("*"):
            if not path.is_file() or path.is_symlink():
                continue
            content = texts_of(path)
            assert TOKEN.encode() not in content, path
            name = path.relative_to(bench.root).as_posix() if path.is_relative_to(bench.root) else str(path)
            if not name.startswith("campaigns/") and not HOLDS_NUMBERS.search(name):
                assert not self.numbers_in(content), path


def test_every_kind_of_failure_leaves_no_trace_of_the_secrets(bench: Bench) -> None:
    """Debug logging, asyncio's debug mode and warnings forced on, in the process and its child."""
    usual = [ending for ending in MAGIC if ending not in ENDING | SLOW]
    phones = canaries(*usual, "0705")
    bench.write("site/sitecustomize.py", SITE)
    path = os.pathsep.join(filter(None, (str(bench.root / "site"), bench.environment.get("PYTHONPATH"))))
    noisy = {**NOISY, "PYTHONPATH": path}
    search = Search(phones)
    with provider(Scenario()) as box:
        audience(bench, phones)
        on = {"unknown_in_a_row": "never", "unknown": "never", "rejected": "never", "shared_image_refused": False}
        send = {"concurrency": 20, "timeout": "2s", "retries": 1, "stop_when": on}
        file = bench.campaign(box.url, send=send)
        planned = bench.run("plan", file, **noisy).must(0)
        search.spoken(planned.said)
        sent = bench.run("send", file, "--yes", **noisy)
        assert "Traceback" not in sent.out
        assert sent.code in (1, 3)
        assert "debug logging is on" in sent.err
        search.spoken(sent.said)
        assert sends(box)[0].header("token") == TOKEN
        for command in (("status", "spring"), ("status", "spring", "--json"), ("report", "spring")):
            search.spoken(bench.here(*command).must(0).said)
    assert bench.ledger.stat().st_size > 0
    search.files(bench)


@pytest.mark.parametrize("ending", sized(sorted(ENDING), 2))
def test_a_run_that_the_provider_ends_says_nothing_of_the_secrets(bench: Bench, ending: str) -> None:
    phones = canaries(ending)
    search = Search(phones)
    with provider(Scenario()) as box:
        audience(bench, phones[:1])
        bench.campaign(box.url)
        ended = bench.send_here().must(3)
        search.spoken(ended.said)
        assert len(sends(box)) == 1
    search.files(bench)


def test_what_is_shown_on_purpose_shows_numbers_but_never_the_token(bench: Bench) -> None:
    phones = canaries()
    audience(bench, phones)
    file = bench.campaign("http://127.0.0.1:9")
    for command in (("check", file), ("preview", file), ("plan", file, "--json"), ("check", file, "--json")):
        shown = bench.here(*command).must(0)
        assert TOKEN not in shown.said
        assert len(Search(phones).numbers_in(shown.said.encode())) <= 20, "a sample, not the list"
    Search(phones).files(bench)


def test_a_provider_that_cannot_be_reached_makes_nobody_print_the_secrets(bench: Bench) -> None:
    phones = canaries()[:5]
    audience(bench, phones)
    bench.campaign("http://127.0.0.1:9", send={"retries": 0})
    running = bench.start("send", "campaigns/spring.yaml", "--yes", **NOISY)
    deadline = time.monotonic() + SECONDS
    while not running.said("err", "waiting") and running.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.process.send_signal(signal.SIGTERM)
    ended = running.wait()
    Search(phones).spoken(ended.said)
    Search(phones).files(bench)


CRASHES = {
    "in the engine": "import runner.engine as e\ndef boom(*a, **k): raise RuntimeError('%s' % (a, ))\ne.Engine._settle = boom",
    "in the request": "import runner.providers.wapim as w, runner.engine as e\n"
    "def boom(self, claim, task):\n    raise ValueError(repr(self._build(claim.message).headers) + repr(claim))\n"
    "e.Engine._deliver = boom",
    "in the ledger": "import runner.ledger.sql as s\ndef boom(self, *a): raise KeyError(repr(a))\ns.SqlLedger.apply = boom",
    "while planning": "import runner.plan as p\ndef boom(task): raise TypeError(repr(task))\np.prepare_confined = boom",
    "in the results": "import runner.outcome_files as o\ndef boom(record, row): raise IndexError(repr(row))\no._row = boom",
}


@pytest.mark.parametrize("place", sized(list(CRASHES), 3))
def test_a_fault_of_our_own_names_a_file_and_no_secret(bench: Bench, place: str) -> None:
    phones = canaries()[:20]
    audience(bench, phones)
    with provider() as box:
        bench.campaign(box.url)
        code = CRASHES[place] + "\nfrom runner.cli import main\nmain()"
        ended = bench.start_code(code, "send", "campaigns/spring.yaml", "--yes").wait()
    assert ended.code in (3, 70), ended
    if ended.code == 70:
        named = re.search(r"(\S*campaign-fault-\S+\.txt)", ended.err)
        assert named, ended.err
        assert Path(named[1]).stat().st_mode & 0o077 == 0
    Search(phones).spoken(ended.said)
    Search(phones).files(bench)


def test_neither_the_process_list_nor_the_confined_child_knows_the_token(bench: Bench) -> None:
    audience(bench, canaries())
    running = bench.start("check", bench.campaign("http://127.0.0.1:9"))
    children = _watched(running)
    running.wait().must(0)
    assert children, "the child that reads the audience was never seen"
    for environment, arguments in children.values():
        assert b"PATH=" in environment
        assert TOKEN.encode() not in environment
        assert TOKEN.encode() not in arguments
        assert b"WAPIM_TOKEN" not in environment


def _watched(running: Running) -> dict[int, tuple[bytes, bytes]]:
    """Each child's environment and arguments, as anybody on the machine may read the latter."""
    seen: dict[int, tuple[bytes, bytes]] = {}
    while running.process.poll() is None:
        for pid in children_of(running.process.pid):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"runner.confinement" in arguments:  # before that it is a copy of its parent, about to become another
                seen[pid] = environment, arguments
        time.sleep(0.002)
    own = running.process.args
    assert isinstance(own, list)
    assert not any(TOKEN in str(argument) for argument in own)
    return seen


def test_a_token_in_the_env_file_stays_there(bench: Bench) -> None:
    phones = canaries()[:5]
    audience(bench, phones)
    del bench.environment["WAPIM_TOKEN"]
    del bench.environment["ZIXFLOW_TOKEN"]
    with provider() as box:
        bench.campaign(box.url)
        secret = bench.write(".env", f"WAPIM_TOKEN={TOKEN}\n")
        bench.send_here().must(0)
        assert sends(box)[0].header("token") == TOKEN
        secret.unlink()
    Search(phones).files(bench)


def test_a_token_written_into_the_campaign_file_is_refused_without_being_shown(bench: Bench) -> None:
    audience(bench, canaries()[:1])
    file = bench.campaign("http://127.0.0.1:9", provider={"token": TOKEN})
    refused = bench.here("check", file).must(2)
    assert TOKEN not in refused.said
