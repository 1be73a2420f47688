"""A broken campaign file: one clear message that names the place, the wrong value and the remedy. Nothing is sent.

Each case runs the real command in a workspace of its own, every fifth of them in a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner.cli import main

GOOD = """\
campaign: spring-sale
provider:
  name: wapim
  token: ${WAPIM_TOKEN}
audience:
  file: customers.csv
  phone: Mobile
  default_region: TR
message:
  image: https://cdn.example.com/{{ SKU }}.jpg
  template: spring.j2
send:
  rate: 20/s
"""
AUDIENCE = "Mobile,Name,SKU,Consent\n0532 000 10 01,Ada,LALE-1,yes\n"
TEMPLATE = "Hello {{ Name }}!\nSee you soon.\n"
QUOTES_OTHERS = re.compile("Jinja|its columns are")  # as long as Jinja's own words, or the audience's column names
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@dataclass(frozen=True)
class Broken:
    """One way to get it wrong: `old` of the good file becomes `new` (or the whole file is `raw`)."""

    name: str
    line: int | None  # of the campaign file; None where the message is about the file as a whole
    says: tuple[str, ...]  # what the message must hold: key, wrong value, remedy
    old: str = ""
    new: str = ""
    raw: bytes | None = None
    place: str = "broken.yaml"
    env: dict[str, str] = field(default_factory=lambda: {"WAPIM_TOKEN": "invented-token-4411"})
    files: dict[str, str] = field(default_factory=dict)
    problems: int = 1

    @property
    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        assert GOOD.count(self.old) == 1, self.old
        return GOOD.replace(self.old, self.new).encode()


NO_TOKEN: dict[str, str] = {}
CASES = [
    # --- keys
    Broken("unknown key", 13, ("send.rat", "did you mean rate?"), "  rate: 20/s", "  rat: 20/s"),
    Broken("unknown block", 12, ("sned", "did you mean send?"), "send:", "sned:"),
    Broken(
        "unknown key of the provider", 5, ("provider.tokn", "did you mean token?"), "audience:", "  tokn: x\naudience:"
    ),
    Broken("key in the wrong block", 9, ("audience.rate", "move it to send:"), "message:", "  rate: 20/s\nmessage:"),
    Broken(
        "key of another provider",
        5,
        ("provider.phone_id", "a setting of zixflow", "take it out"),
        "audience:",
        "  phone_id: '12'\naudience:",
    ),
    Broken(
        "missing key", 5, ("audience.phone", "is missing", "phone: Mobile", "phone number"), "  phone: Mobile\n", ""
    ),
    Broken(
        "missing block",
        1,
        ("message", "is missing", "image:"),
        "message:\n  image: https://cdn.example.com/{{ SKU }}.jpg\n  template: spring.j2\n",
        "",
    ),
    Broken("missing provider name", 2, ("provider.name", "is missing", "wapim or zixflow"), "  name: wapim\n", ""),
    Broken("repeated key", 14, ("send.rate", "given twice", "line 13"), "  rate: 20/s", "  rate: 20/s\n  rate: 30/s"),
    Broken(
        "key without a value",
        9,
        ("audience.where", "has no value", "take the line out"),
        "message:",
        "  where:\nmessage:",
    ),
    # --- values
    Broken("bad campaign name", 1, ("campaign", "'Spring Sale'", "such as spring-sale"), "spring-sale", "Spring Sale"),
    Broken("rate without a unit", 13, ("send.rate", "20 has no unit", "20/s"), "20/s", "20"),
    Broken("rate in words", 13, ("send.rate", "'20 per second'", "20/s"), "20/s", "20 per second"),
    Broken("rate of zero", 13, ("send.rate", "'0/s'", "1/day"), "20/s", "0/s"),
    Broken("rate in a list", 13, ("send.rate", "'fast'", "10/min"), "20/s", "[20/s, fast]"),
    Broken(
        "concurrency as text",
        13,
        ("send.concurrency", "whole number", "'5'", "without quotes"),
        "  rate: 20/s",
        '  concurrency: "5"',
    ),
    Broken(
        "concurrency out of range",
        13,
        ("send.concurrency", "5000", "at most 1000"),
        "  rate: 20/s",
        "  concurrency: 5000",
    ),
    Broken("text that is a number", 1, ("campaign", "the number 2026", '"2026"'), "spring-sale", "2026"),
    Broken(
        "list that is a word",
        14,
        ("report.formats", "must be a list", "[xlsx]"),
        "  rate: 20/s",
        "  rate: 20/s\nreport: {formats: xlsx}",
    ),
    Broken(
        "unknown format",
        13,
        ("report.formats[1]", "'xls'", "did you mean xlsx?"),
        "send:\n  rate: 20/s",
        "report:\n  formats: [xls]",
    ),
    Broken(
        "bad choice",
        9,
        ("audience.duplicates", "'frist'", "did you mean first?"),
        "message:",
        "  duplicates: frist\nmessage:",
    ),
    Broken("timeout without a unit", 13, ("send.timeout", "30 has no unit", "30s"), "  rate: 20/s", "  timeout: 30"),
    Broken("timeout of nothing", 13, ("send.timeout", "'0s'", "more than 0"), "  rate: 20/s", "  timeout: 0s"),
    Broken(
        "bad region",
        8,
        ("audience.default_region", "'UK'", "did you mean GB?"),
        "default_region: TR",
        "default_region: UK",
    ),
    Broken(
        "block that is text",
        5,
        ("audience", "block of keys", "'customers.csv'", "file: and phone:"),
        "audience:\n  file: customers.csv\n  phone: Mobile\n  default_region: TR\n",
        "audience: customers.csv\n",
    ),
    # --- who and what
    Broken("unknown provider", 3, ("provider.name", "'wapin'", "did you mean wapim?"), "name: wapim", "name: wapin"),
    Broken(
        "base_url that is not safe",
        5,
        ("provider.base_url", "'http://api.example.com'", "https://"),
        "audience:",
        "  base_url: http://api.example.com\naudience:",
    ),
    Broken(
        "token in the file", 4, ("provider.token", "${WAPIM_TOKEN}", ".env"), "${WAPIM_TOKEN}", "invented-token-4411"
    ),
    Broken(
        "variable that is not set",
        4,
        ("provider.token", "WAPIM_TOKEN is not set", ".env"),
        "",
        "",
        GOOD.encode(),
        env=NO_TOKEN,
    ),
    Broken(
        "variable that is empty",
        4,
        ("provider.token", "WAPIM_TOKEN is empty", ".env"),
        "",
        "",
        GOOD.encode(),
        env={"WAPIM_TOKEN": ""},
    ),
    Broken(
        "variable outside the provider block",
        1,
        ("campaign", "${NAME}", "provider block only"),
        "spring-sale",
        "spring-${NAME}",
    ),
    Broken(
        "variable without braces",
        4,
        ("provider.base_url", "$WAPIM_URL", "${WAPIM_TOKEN}"),
        "  token:",
        "  base_url: $WAPIM_URL\n  token:",
    ),
    Broken(
        "neither template nor caption",
        9,
        ("message", "neither template nor caption", "caption:"),
        "  template: spring.j2\n",
        "",
    ),
    Broken(
        "template and caption",
        12,
        ("message.caption", "beside template", "remove one"),
        "send:",
        "  caption: Hi\nsend:",
    ),
    Broken(
        "scheduled by a provider that cannot",
        15,
        ("send.scheduled_time", "Zixflow cannot", "start_at"),
        "  rate: 20/s",
        "  rate: 20/s\n  scheduled_time: 2026-12-01 09:00Z",
        GOOD.replace("wapim", "zixflow").replace("audience:", "  phone_id: '12'\naudience:", 1).encode()
        + b"  scheduled_time: 2026-12-01 09:00Z\n",
    ),
    # --- times
    Broken(
        "bad date-time", 13, ("send.start_at", "'tomorrow'", "2026-12-01 09:00"), "  rate: 20/s", "  start_at: tomorrow"
    ),
    Broken(
        "date-time without a zone",
        13,
        ("send.start_at", "'2026-12-01 09:00'", "time zone", "+03:00"),
        "  rate: 20/s",
        "  start_at: 2026-12-01 09:00",
    ),
    Broken(
        "date without a time",
        13,
        ("send.deadline", "'2026-12-01'", "time of the day", "2026-12-01 09:00"),
        "  rate: 20/s",
        "  deadline: 2026-12-01",
    ),
    Broken("bad deadline", 13, ("send.deadline", "'soon'", "3h"), "  rate: 20/s", "  deadline: soon"),
    Broken(
        "deadline before the start",
        14,
        ("send.deadline", "is not after start_at", "move one"),
        "  rate: 20/s",
        "  start_at: 2026-12-01 09:00Z\n  deadline: 2026-12-01 08:00Z",
    ),
    Broken(
        "unknown time zone",
        13,
        ("send.timezone", "'Europe/Istambul'", "did you mean Europe/Istanbul?"),
        "  rate: 20/s",
        "  timezone: Europe/Istambul",
    ),
    # --- files
    Broken(
        "missing audience",
        6,
        ("audience.file", "'custmers.csv'", "did you mean customers.csv?"),
        "customers.csv",
        "custmers.csv",
    ),
    Broken("folder for an audience", 6, ("audience.file", "'.'", "is a folder", "customers.csv"), "customers.csv", "."),
    Broken(
        "audience outside the workspace",
        6,
        ("audience.file", "outside the workspace", "--workspace"),
        "customers.csv",
        "../../customers.csv",
    ),
    Broken(
        "missing opt-out file",
        9,
        ("audience.suppress[1]", "'optout.csv'", "there is no file"),
        "message:",
        "  suppress: [optout.csv]\nmessage:",
    ),
    Broken(
        "missing phone column",
        7,
        ("audience.phone", '"Mobil"', '"Mobile", "Name", "SKU"', 'did you mean "Mobile"?'),
        "phone: Mobile",
        "phone: Mobil",
    ),
    Broken("missing template", 11, ("message.template", "'sprnig.j2'", "spring.j2"), "spring.j2", "sprnig.j2"),
    Broken("undefined column in the image", 10, ("message.image", "'SKUU'", "SKU"), "{{ SKU }}", "{{ SKUU }}"),
    Broken(
        "undefined column in the caption",
        11,
        ("message.caption", "'Nmae'", "Name"),
        "template: spring.j2",
        'caption: "Hi {{ Nmae }}"',
    ),
    Broken(
        "undefined column in where",
        9,
        ("audience.where", "'Consnt'", "Consent"),
        "message:",
        '  where: Consnt == "yes"\nmessage:',
    ),
    Broken(
        "undefined column in the template",
        2,
        ("'Nmae'", "Name"),
        "",
        "",
        GOOD.encode(),
        place="spring.j2",
        files={"templates/spring.j2": "Hello!\nDear {{ Nmae }}\n"},
    ),
    Broken(
        "syntax of the template",
        2,
        ("endif",),
        "",
        "",
        GOOD.encode(),
        place="spring.j2",
        files={"templates/spring.j2": "Hello!\n{% if Name %}Dear {{ Name }}\n"},
    ),
    Broken(
        "syntax of the caption",
        11,
        ("message.caption", "line 2", "Jinja"),
        "  template: spring.j2",
        "  caption: |\n    Hello\n    Dear {{ Name\n",
    ),
    # --- YAML
    Broken("tab", 13, ("a tab", "spaces"), "  rate: 20/s", "\trate: 20/s"),
    Broken("anchor and alias", 6, ("&f", "anchor"), "file: customers.csv", "file: &f customers.csv"),
    Broken("alias", 6, ("*f", "alias", "quotes"), "file: customers.csv", "file: *f"),
    Broken("tag", 6, ("!!str", "tag", "remove"), "file: customers.csv", "file: !!str customers.csv"),
    Broken(
        "python tag", 6, ("!!python/object", "tag"), "file: customers.csv", "file: !!python/object/apply:os.system [ls]"
    ),
    Broken("merge key", 13, ("<<", "merge"), "  rate: 20/s", "  <<: {rate: 20/s}"),
    Broken(
        "number with a leading zero",
        7,
        ("audience.phone", "0612345670", '"0612345670"'),
        "phone: Mobile",
        "phone: 0612345670",
    ),
    Broken("time of the day", 13, ("send.start_at", "21:00", '"21:00"'), "  rate: 20/s", "  start_at: 21:00"),
    Broken(
        "no",
        13,
        ("vars.free", "no", "write false", '"no"'),
        "  rate: 20/s",
        "  rate: 20/s",
        GOOD.replace("send:\n  rate: 20/s", "vars:\n  free: no").encode(),
    ),
    Broken(
        "yes",
        13,
        ("vars.free", "Yes", "write true"),
        "",
        "",
        GOOD.replace("send:\n  rate: 20/s", "vars:\n  free: Yes").encode(),
    ),
    Broken(
        "two documents",
        14,
        ("second document", "one campaign per file"),
        "  rate: 20/s\n",
        "  rate: 20/s\n---\ncampaign: b\n",
    ),
    Broken(
        "braces without quotes",
        10,
        ("in quotes", '"{{'),
        "image: https://cdn.example.com/{{ SKU }}.jpg",
        "image: {{ SKU }}",
    ),
    Broken("colon in text", 11, ("in quotes",), "template: spring.j2", "caption: Only today: half price"),
    Broken("open quotation mark", 11, ("quotation mark", "close it"), "template: spring.j2", 'template: "spring.j2'),
    Broken("open bracket", 9, ("bracket", "close it"), "message:", "  suppress: [optouts.csv\nmessage:"),
    Broken("percent sign", 11, ("%", "in quotes"), "template: spring.j2", "caption: %50 off"),
    Broken("UTF-16", 1, ("UTF-16", "save the file as UTF-8"), raw=GOOD.encode("utf-16")),
    Broken("Turkish code page", 1, ("UTF-8", "save the file"), raw="campaign: çiçek\n".encode("cp1254")),
    Broken("character that cannot be seen", 2, ("U+0007", "delete it"), raw=b"campaign: a\nprovider: \x07\n"),
    Broken("empty file", None, ("is empty", "campaign: spring-sale"), raw=b""),
    Broken("list", None, ("is a list", "campaign: spring-sale"), raw=b"- a\n- b\n"),
    Broken("large file", None, ("larger than 256 KB", "templates/"), raw=b"# " + b"x" * 300_000),
    Broken("deep nesting", 1, ("nested deeper", "brackets"), raw=b"campaign: " + b"[" * 5000 + b"]" * 5000),
    Broken("alias bomb", 1, ("alias", "anchor"), raw=BOMB.encode(), problems=5),
]
THROUGH_A_PROCESS = CASES[::5]


def workspace(folder: Path, case: Broken) -> Path:
    (folder / "campaigns").mkdir()
    (folder / "templates").mkdir()
    (folder / "campaigns" / "customers.csv").write_text(AUDIENCE, encoding="utf-8")
    (folder / "templates" / "spring.j2").write_text(TEMPLATE, encoding="utf-8")
    for name, text in case.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    file = folder / "campaigns" / "broken.yaml"
    file.write_bytes(case.content)
    return file


def campaign(*arguments: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "SYSTEMROOT", "LANG"}}
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=folder,
        env=inherited | env,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )


def judge(case: Broken, code: int, output: str, errors: str, folder: Path) -> None:
    """What holds for every broken file."""
    assert code == 2, errors
    assert output == ""
    text = errors.replace(str(folder), "")
    place = re.escape(case.place) if case.line is None else rf"{re.escape(case.place)}:{case.line}\b"
    assert re.match(rf"(templates/)?{place}", text), text
    assert [words for words in case.says if words not in text] == [], text
    lines = text.splitlines()
    starts = [line for line in lines if not line.startswith("    ")]
    assert len(starts) - (case.problems > 1) == case.problems, text
    assert [line for line in lines if len(line) > 130 and not QUOTES_OTHERS.search(line)] == [], text
    assert "Traceback" not in errors
    assert "invented-token-4411" not in errors
    assert not (folder / "reports").exists()


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in THROUGH_A_PROCESS], ids=lambda case: case.name.replace(" ", "-")
)
def test_a_broken_file_is_refused_with_its_place_and_its_remedy(
    case: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command's own doorway but in this process, for a process costs a second."""
    workspace(tmp_path, case)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WAPIM_TOKEN", raising=False)
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["campaign", "check", "campaigns/broken.yaml"])
    with pytest.raises(SystemExit) as ending:
        main()
    said = capsys.readouterr()
    assert isinstance(ending.value.code, int)
    judge(case, ending.value.code, said.out, said.err, tmp_path)


@pytest.mark.parametrize("case", THROUGH_A_PROCESS, ids=lambda case: case.name.replace(" ", "-"))
def test_the_command_itself_refuses_it_with_exit_code_2(case: Broken, tmp_path: Path) -> None:
    workspace(tmp_path, case)
    done = campaign("check", "campaigns/broken.yaml", folder=tmp_path, env=case.env)
    judge(case, done.returncode, done.stdout, done.stderr, tmp_path)


@pytest.mark.parametrize("name", ["unknown key", "variable that is not set", "deadline before the start", "alias bomb"])
def test_sending_a_broken_file_sends_nothing_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    case = next(each for each in CASES if each.name == name)
    workspace(tmp_path, case)
    done = campaign("send", "campaigns/broken.yaml", "--yes", folder=tmp_path, env=case.env)
    judge(case, done.returncode, done.stdout, done.stderr, tmp_path)


@pytest.mark.parametrize("name", ["missing phone column", "undefined column in the caption"])
def test_sending_to_a_wrong_audience_writes_no_results(name: str, tmp_path: Path) -> None:
    case = next(each for each in CASES if each.name == name)
    workspace(tmp_path, case)
    done = campaign("send", "campaigns/broken.yaml", "--yes", folder=tmp_path, env=case.env)
    assert done.returncode == 2, done.stderr
    assert [words for words in case.says if words not in done.stderr] == []
    assert [
        path.name for path in (tmp_path / "reports").rglob("*.*") if path.suffix in {".csv", ".xlsx", ".json"}
    ] == []


def test_every_mistake_of_a_file_is_told_at_once_in_the_order_of_its_lines(tmp_path: Path) -> None:
    several = (
        GOOD.replace("name: wapim", "name: wapin")
        .replace("customers.csv", "nobody.csv")
        .replace("20/s", "20")
        .replace("default_region", "region")
    )
    case = Broken("several", 3, (), raw=several.encode())
    workspace(tmp_path, case)
    done = campaign("check", "campaigns/broken.yaml", folder=tmp_path, env=case.env)
    lines = [int(found) for found in re.findall(r"^broken\.yaml:(\d+)", done.stderr, flags=re.MULTILINE)]
    assert lines == [3, 8, 13], done.stderr
    assert done.stderr.endswith("3 problems; nothing was sent\n")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("campaigns/brokn.yaml", "did you mean campaigns/broken.yaml?"),
        ("campaigns", "name a file in it, such as campaigns/broken.yaml"),
        ("nowhere/broken.yaml", "there is no such file"),
    ],
)
def test_a_campaign_file_that_is_not_there(argument: str, says: str, tmp_path: Path) -> None:
    workspace(tmp_path, Broken("none", None, (), raw=GOOD.encode()))
    done = campaign("check", argument, folder=tmp_path, env=NO_TOKEN)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith(argument)


def test_the_file_that_all_of_these_were_made_from_is_good(tmp_path: Path) -> None:
    workspace(tmp_path, Broken("none", None, (), raw=GOOD.encode()))
    done = campaign("check", "campaigns/broken.yaml", folder=tmp_path, env={"WAPIM_TOKEN": "invented-token-4411"})
    assert done.returncode == 0, done.stderr
    assert "No problems found." in done.stdout
