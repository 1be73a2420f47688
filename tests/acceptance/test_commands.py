"""Each command from a person's side: what it prints, what it leaves behind, and how it ends."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import openpyxl
import pytest

from acceptance.workbench import Workbench, base_environment, numbers, until
from runner.cli import cli
from runner.sandbox import Sandbox

HELLO = "campaigns/hello.yaml"


def all_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.fixture(scope="module")
def practised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """The scaffold of `campaign init`, sent once to the sandbox. For commands that only look."""
    with ExitStack() as stack:
        bench = Workbench(tmp_path_factory.mktemp("practised"), base_environment(), stack)
        bench.environment.pop("WAPIM_TOKEN")  # practice needs no account
        bench.run("init").must(0)
        file = bench.root / HELLO
        file.write_text(file.read_text().replace("rate: 10/min", "rate: 50/s"))
        bench.send(HELLO, "--sandbox").must(0)
        yield bench


# --- from nothing to a first campaign --------------------------------------------------------------------------------------


def test_init_makes_a_campaign_that_checks_and_sends_in_the_sandbox(bench: Workbench) -> None:
    made = bench.run("init", "shop").must(0)
    for name in ("campaigns/hello.yaml", "campaigns/hello.csv", "templates/hello.j2"):
        assert (bench.root / "shop" / name).is_file()
        assert f"shop/{name}" in made.out
    assert "campaign check shop/campaigns/hello.yaml --sandbox" in made.out

    checked = bench.run("check", "shop/campaigns/hello.yaml", "--sandbox").must(0)
    assert re.search(r"\b1 rows? cannot be sent", checked.out)
    assert "12345" in checked.out

    sent = bench.send("shop/campaigns/hello.yaml", "--sandbox", "--limit", "1").must(0)
    assert re.search(r"accepted +1\b", sent.out)
    assert not (bench.root / "shop/reports/ledger.sqlite3").exists()  # practice has a ledger of its own

    again = bench.run("init", "shop").must(2)
    assert "is there already" in again.err


def test_check_names_every_row_that_cannot_be_sent(bench: Workbench, box: Sandbox) -> None:
    rows = [("+905320000001", "Ada"), ("12345", "Grace"), ("+905320000003", ""), ("", "Alan")]
    bench.audience(rows)
    checked = bench.run("check", bench.campaign(box.url)).must(0)
    assert "3 rows cannot be sent" in checked.out
    for words in ("row 3", "12345", "row 4", "Name", "row 5", "blank", "Correct the number"):
        assert words in checked.out
    listed = bench.run("check", "campaigns/spring.yaml", "--json").must(0).json()
    assert [problem[0] for problem in listed["problems"]] == [3, 4, 5]
    assert box.log == []


def test_preview_shows_what_each_recipient_would_get(bench: Workbench, box: Sandbox) -> None:
    bench.audience([*((f"+{phone}", f"n{i}") for i, phone in enumerate(numbers(30))), ("none", "last")])
    shown = bench.run("preview", bench.campaign(box.url), "-n", "3").must(0)
    for words in ("row 2 to 905320000001", "Hello n0", "row 4 to 905320000003", "https://cdn.example.com/spring.jpg"):
        assert words in shown.out
    assert "row 7 to" not in shown.out

    book = openpyxl.load_workbook(bench.report("preview.xlsx"))
    cells = [[cell.value for cell in row] for sheet in book.worksheets for row in sheet.iter_rows()]
    book.close()
    texts = [str(value) for row in cells for value in row]
    assert [f"Hello n{i}" for i in range(30)] == [text for text in texts if re.fullmatch(r"Hello n\d+", text)]
    assert any("invalid_phone" in text for text in texts)
    assert box.log == []
    assert not list((bench.root / "reports").glob("*.sqlite3"))


# --- looking ---------------------------------------------------------------------------------------------------------------


def test_a_plan_in_json_has_every_count(practised: Workbench) -> None:
    plan = practised.run("plan", HELLO, "--json", "--sandbox").must(0).json()
    assert plan["rows"] == plan["to_send"] + sum(plan["settled"].values()) + sum(plan["skipped"].values()) == 4
    assert plan["settled"] == {"accepted": 3}
    assert plan["skipped"] == {"invalid_phone": 1}
    assert re.fullmatch(r"[0-9a-f]{16}", plan["plan"])
    assert plan["sandbox"] is True


def test_status_tells_of_one_campaign_or_of_all(practised: Workbench) -> None:
    for arguments in (["status", "--sandbox"], ["status", "hello", "--sandbox"], ["status", HELLO, "--sandbox"]):
        shown = practised.run(*arguments).must(0)
        assert "Campaign hello through wapim" in shown.out
        assert re.search(r"accepted +3\b", shown.out)
        assert "finished" in shown.out
        (view,) = practised.run(*arguments, "--json").must(0).json()
        assert (view["campaign"], view["rows"], view["state"]) == ("hello", 4, "open")
        assert view["totals"] == {"accepted": 3, "skipped": 1}
    assert practised.run("status", "--json").must(0).json() == []  # the real ledger knows of none
    assert "No campaign has been sent" in practised.run("status").must(0).out


def test_a_report_is_made_again_from_the_ledger_alone(practised: Workbench) -> None:
    folder = practised.root / "reports" / "hello-sandbox"
    before, cells = practised.results("hello-sandbox"), practised.sheet("hello-sandbox")
    assert [row["status"] for row in before] == ["accepted", "accepted", "accepted", "skipped"]
    for name in ("results.csv", "results.xlsx", "summary.json", "retry.csv"):
        (folder / name).unlink()
    hidden = practised.root / "campaigns" / "hello.csv"
    hidden.rename(hidden.with_suffix(".away"))
    try:
        written = practised.run("report", "hello", "--sandbox").must(0)
    finally:
        hidden.with_suffix(".away").rename(hidden)
    assert practised.results("hello-sandbox") == before
    assert practised.sheet("hello-sandbox") == cells
    with (folder / "retry.csv").open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.DictReader(file)) == [{"Mobile": "12345", "Name": "Charles", "City": "Springfield"}]
    assert {Path(line).name for line in written.out.splitlines()} >= {"results.csv", "results.xlsx", "summary.json"}

    summary = practised.run("report", "hello", "--sandbox", "--json").must(0).json()
    assert summary == json.loads((folder / "summary.json").read_text()) | {"generated_at": summary["generated_at"]}
    assert (summary["input_rows"], summary["reconciled"], summary["totals"]["accepted"]) == (4, True, 3)


@pytest.mark.parametrize("command", ["status", "report", "pause", "cancel", "retry"])
def test_an_unknown_campaign_is_named_beside_the_known_ones(practised: Workbench, command: str) -> None:
    choice = ["--rejected"] if command == "retry" else []
    refused = practised.run(command, "hallo", "--sandbox", *choice).must(2)
    assert "'hallo'" in refused.err
    assert "hello" in refused.err
    assert not (practised.root / "reports" / "hallo-sandbox").exists()


def test_json_output_is_json_and_nothing_else(bench: Workbench, box: Sandbox) -> None:
    bench.audience([*((f"+{phone}", "Ada") for phone in numbers(12)), ("12345", "Grace")])
    campaign = bench.campaign(box.url, send={"rate": "20/s"})
    sent = bench.send(campaign, "--json").must(0)
    summary = sent.json()
    assert (summary["sent_now"], summary["rows"], summary["reconciled"]) == (12, 13, True)
    assert (summary["totals"], summary["ending"]) == ({"accepted": 12, "skipped": 1}, "finished")
    assert all(Path(path).is_file() for path in summary["files"])
    again = bench.send(campaign, "--json").must(0).json()
    assert (again["sent_now"], again["ending"]) == (0, "nothing")
    assert bench.run("send", campaign, "--dry-run", "--json").must(0).json()["to_send"] == 0
    assert bench.run("check", campaign, "--json").must(0).json()["rows"] == 13


# --- the opt-out list --------------------------------------------------------------------------------------------------------


def test_opt_outs_are_added_imported_and_listed(bench: Workbench) -> None:
    bench.write("left.csv", "Telefon;Ad\n0532 000 00 03;Ayşe\n+905320000001;Ada\nunreadable;Nobody\n")
    assert "2 added" in bench.run("optout", "add", "+905320000001", "+905320000002").must(0).out
    assert "0 added, 1 were there already" in bench.run("optout", "add", "0532 000 00 01", "--region", "TR").must(0).out
    imported = bench.run("optout", "import", "left.csv", "--region", "TR").must(2)
    assert "1 added, 1 were there already" in imported.out
    assert "left.csv" in imported.err
    assert "unreadable" in imported.err
    listed = [line.split("\t") for line in bench.run("optout", "list").must(0).out.splitlines()]
    assert [(number, source) for number, _, source in listed] == [
        ("905320000001", "campaign optout add"),
        ("905320000002", "campaign optout add"),
        ("905320000003", "left.csv"),
    ]
    assert "letters" in bench.run("optout", "add", "nobody").must(2).err


# --- reference ---------------------------------------------------------------------------------------------------------------


def test_providers_lists_each_with_its_settings(practised: Workbench) -> None:
    shown = practised.run("providers").must(0).out
    for words in ("wapim", "zixflow", "token", "base_url", "phone_id", "submission_status"):
        assert words in shown


def test_the_schema_is_json_and_knows_both_providers(practised: Workbench) -> None:
    schema = practised.run("schema").must(0).json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"campaign", "provider", "audience", "message", "send"} <= schema["properties"].keys()
    assert '"phone_id"' in json.dumps(schema)
    assert json.loads((practised.root / "campaigns/campaign.schema.json").read_text()) == schema


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_sandbox_prints_its_address_and_ends_in_peace(bench: Workbench, ending: signal.Signals) -> None:
    running = bench.start("sandbox", "--log", "received.jsonl")
    until(lambda: running.said("out", "Sandbox at http://127.0.0.1:"))
    until(lambda: running.said("out", "special"))
    bench.audience([("+905320000001", "Ada"), ("+905320000400", "Grace")])
    url = re.search(r"http://127\.0\.0\.1:\d+", running.so_far("out"))
    assert url is not None
    bench.send(bench.campaign(url[0])).must(1)  # 0400 is refused
    with urllib.request.urlopen(f"{url[0]}/_sandbox/stats", timeout=5) as reply:  # noqa: S310 - our own address
        assert json.load(reply)["sends"] == 2
    running.signal(ending)
    running.wait(10).must(0)
    received = [json.loads(line) for line in (bench.root / "received.jsonl").read_text().splitlines()]
    assert {(entry["phone"], entry["status"]) for entry in received} == {("905320000001", 200), ("905320000400", 400)}


def test_the_sandbox_misbehaves_as_a_scenario_file_says(bench: Workbench) -> None:
    bench.write("rough.yaml", 'magic: false\nrules:\n  - phone: "*2"\n    status: 400\n')
    running = bench.start("sandbox", "--scenario", "rough.yaml")
    until(lambda: running.said("out", "Sandbox at http://127.0.0.1:"))
    url = re.search(r"http://127\.0\.0\.1:\d+", running.so_far("out"))
    assert url is not None
    bench.audience([("+905320000001", "Ada"), ("+905320000002", "Grace")])
    bench.send(bench.campaign(url[0])).must(1)
    assert bench.statuses() == {"905320000001": "accepted", "905320000002": "rejected"}
    bench.write("wrong.yaml", "magik: false\n")
    assert "did you mean 'magic'" in bench.run("sandbox", "--scenario", "wrong.yaml").must(2).err


@pytest.mark.parametrize("path", list(all_commands(cli)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(bench: Workbench, path: tuple[str, ...]) -> None:
    shown = bench.run(*path, "--help").must(0)
    assert f"Usage: python -m runner {' '.join(path)} " in shown.out
    assert re.search(rf"Examples?: campaign {' '.join(path)}", shown.out)
    assert "Traceback" not in shown.err


def test_the_module_and_the_script_are_the_same_command(bench: Workbench) -> None:
    script = Path(sys.executable).with_name("campaign")
    by_script = subprocess.run(
        [script, "--version"], capture_output=True, text=True, check=True, env=bench.environment, cwd=bench.root
    )
    by_module = bench.run("--version").must(0)
    assert by_module.out == by_script.stdout
    assert re.fullmatch(r"campaign, version \d+\.\d+\.\d+\n", by_module.out)


def test_a_wrong_option_is_refused_with_the_right_usage(bench: Workbench) -> None:
    refused = bench.run("send", "campaigns/spring.yaml", "--limmit", "3").must(2)
    assert "--limit" in refused.err
    assert "no such file" in bench.send("campaigns/none.yaml").must(2).err.lower()


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX")
@pytest.mark.parametrize("command", ["check", "plan"])
def test_secrets_that_other_users_can_read_are_a_note_until_the_file_is_closed(bench: Workbench, command: str) -> None:
    bench.audience([("+905320000001", "Ada")])
    campaign = bench.campaign()
    dotenv = bench.write(".env", "WAPIM_TOKEN=invented\n")
    dotenv.chmod(0o640)
    told = " ".join(bench.run(command, campaign).must(0).out.split())
    assert "other users of this machine can read the secrets in .env: chmod 600 .env" in told
    dotenv.chmod(0o600)
    assert "chmod" not in bench.run(command, campaign).must(0).out
    dotenv.unlink()
    assert "chmod" not in bench.run(command, campaign).must(0).out
