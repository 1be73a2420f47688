"""Hostile files through the real command: a refusal or a row's error in words, soon, in little memory; nothing outside reports/."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import hostile
import pytest
from disk import FULL, Bench, Finished, provider, sends, sized
from hostile import Part, cell, workbook, write_zip

from runner.confinement import MEMORY_BYTES

OWN_MEMORY = 400 << 20  # bytes, resident, of the process that sends
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile file: how it is made, and what the command must say of it."""

    name: str
    make: Callable[[Bench], str]  # writes the files, returns the campaign file
    says: str  # a regular expression
    codes: tuple[int, ...] = (2,)
    seconds: float = 60.0


CASES: list[Case] = []
ONLY_FULL = "(full)"  # ends the names of cases that are left out where time is short


def case(name: str, says: str, **more: object) -> Callable[[Callable[[Bench], str]], Callable[[Bench], str]]:
    """Adds a case; the function under it makes the files."""

    def add(make: Callable[[Bench], str]) -> Callable[[Bench], str]:
        if FULL or not name.endswith(ONLY_FULL):
            CASES.append(Case(name, make, says, **more))  # type: ignore[arg-type]  # the fields of Case
        return make

    return add


def with_workbook(bench: Bench, make: Callable[[Path], Path]) -> str:
    bench.write("campaigns/people.xlsx", b"")
    make(bench.root / "campaigns" / "people.xlsx")
    return bench.campaign(None, audience={"file": "people.xlsx"})


def with_csv(bench: Bench, content: bytes) -> str:
    bench.write("campaigns/people.csv", content)
    return bench.campaign(None)


# --- workbooks --------------------------------------------------------------------------------------------------------


@case("two cells in far corners", "almost empty|beyond the .* columns")
def _(bench: Bench) -> str:
    corner = f'<row r="1048576">{cell("XFD1048576", "x")}</row>'
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + corner))


@case("a cell in the last row (full)", "almost empty|1,048,576|too many rows")
def _(bench: Bench) -> str:
    corner = f'<row r="1048576">{cell("CV1048576", "x")}</row>'
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + corner))


@case("a 1 MB zip with a text of 1 GB", "unpacks to")
def _(bench: Bench) -> str:
    front = f'{hostile.HEAD}<sst xmlns="{hostile.MAIN}"><si><t>'.encode()
    texts = Part.repeated(front, b"0" * MB, 1000, b"</t></si></sst>")
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + hostile.PERSON, texts=texts))


@case("a text of 900 MB that is packed just badly enough (full)", "more than 4 MB of text|unpacks to")
def _(bench: Bench) -> str:
    front = f'{hostile.HEAD}<sst xmlns="{hostile.MAIN}"><si><t>'.encode()
    texts = Part.repeated(front, b"0" * 2000, 450_000 if FULL else 100_000, b"</t></si></sst>")
    assert texts.size < 190 * len(texts.packed)
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + hostile.PERSON, texts=texts))


@case("a part that says it is small (full)", "damaged|unpacks to")
def _(bench: Bench) -> str:
    front = f'{hostile.HEAD}<sst xmlns="{hostile.MAIN}"><si><t>'.encode()
    texts = Part.repeated(front, b"0" * MB, 500, b"</t></si></sst>").saying(1000)
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + hostile.PERSON, texts=texts))


@case("30 million rows in 1 MB", "unpacks to|more than|almost empty|too many")
def _(bench: Bench) -> str:
    front = f'{hostile.HEAD}<worksheet xmlns="{hostile.MAIN}"><sheetData>'.encode()
    sheet = Part.repeated(front, b"<row><c><v>1</v></c></row>" * 40_000, 750, b"</sheetData></worksheet>")
    return with_workbook(bench, lambda path: workbook(path, sheet=sheet))


@case(
    "rows without end, packed just badly enough (full)",
    "unpacks to|more than the 1,048,576 rows",
)
def _(bench: Bench) -> str:
    front = f'{hostile.HEAD}<worksheet xmlns="{hostile.MAIN}"><sheetData>'.encode()
    rows = 30_000_000 if FULL else 1_100_000
    sheet = Part.repeated(front, b"<row><c><v>1</v></c></row>" * 100, rows // 100, b"</sheetData></worksheet>")
    return with_workbook(bench, lambda path: workbook(path, sheet=sheet))


@case("one cell again and again (full)", "unpacks to|more than|almost empty|too many|memory|not a column|no rows|empty")
def _(bench: Bench) -> str:
    front = f'{hostile.HEAD}<worksheet xmlns="{hostile.MAIN}"><sheetData><row r="1">{cell("A1", "Phone")}'.encode()
    cells = 20_000_000 if FULL else 1_000_000
    front += cell("B1", "Name").encode()
    sheet = Part.repeated(front, b'<c r="B1"><v>1</v></c>' * 100, cells // 100, b"</row></sheetData></worksheet>")
    return with_workbook(bench, lambda path: workbook(path, sheet=sheet))


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "'
    + "a" * 1000
    + '">'
    + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefg", "bcdefgh", strict=True))
    + "]>"
)


def declaring(doctype: str) -> str:
    """A sheet with this DOCTYPE, and a phone that is the entity h."""
    row = f'<row r="2">{cell("A2", "&h;")}</row>'
    sheet = f'<worksheet xmlns="{hostile.MAIN}"><sheetData>{hostile.HEADER}{row}</sheetData></worksheet>'
    return hostile.HEAD + doctype + sheet


@case("entities that expand, in the sheet", "damaged|DOCTYPE")
def _(bench: Bench) -> str:
    text = declaring(BOMB)
    return with_workbook(bench, lambda path: workbook(path, sheet=Part.of(text.encode())))


@case("entities that expand, in the shared texts", "damaged|DOCTYPE|cannot be")
def _(bench: Bench) -> str:
    text = f'{hostile.HEAD}{BOMB}<sst xmlns="{hostile.MAIN}"><si><t>&h;</t></si></sst>'
    row = '<row r="2"><c r="A2" t="s"><v>0</v></c></row>'
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + row, texts=Part.of(text.encode())))


@case("entities that expand, in the workbook's own part (full)", "damaged|DOCTYPE|no visible sheet")
def _(bench: Bench) -> str:
    more = {"xl/workbook.xml": f"{hostile.HEAD}{BOMB}<workbook>&h;</workbook>"}
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + hostile.PERSON, more=more))


@case("an entity that names a file", "damaged|DOCTYPE")
def _(bench: Bench) -> str:
    start = '<!DOCTYPE x [<!ENTITY h SYSTEM "file:///etc/passwd">]>'
    text = declaring(start)
    return with_workbook(bench, lambda path: workbook(path, sheet=Part.of(text.encode())))


@case("half a workbook", "damaged|not an .xlsx|not a workbook")
def _(bench: Bench) -> str:
    def make(path: Path) -> Path:
        content = workbook(path, sheet=hostile.HEADER + hostile.PERSON).read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    return with_workbook(bench, make)


@case("a part with a path that leads out", "leads out")
def _(bench: Bench) -> str:
    more = {"../../../escaped.xml": "<x/>"}
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + hostile.PERSON, more=more))


@case("a part with an absolute path (full)", "leads out")
def _(bench: Bench) -> str:
    more = {"/tmp/escaped.xml": "<x/>"}
    return with_workbook(bench, lambda path: workbook(path, sheet=hostile.HEADER + hostile.PERSON, more=more))


@case("another archive under a workbook's name (full)", "not an .xlsx")
def _(bench: Bench) -> str:
    return with_workbook(bench, lambda path: write_zip(path, {"people.csv": Part.of(b"Phone\n+905320000001\n")}))


# --- text files -------------------------------------------------------------------------------------------------------

GOOD = b"+905320000001,Ada\n"


@case("a cell of 50 MB", "too long|longer than|more than|memory|at most")
def _(bench: Bench) -> str:
    return with_csv(bench, b"Phone,Name\n+905320000001," + b"x" * (50 * MB) + b"\n" + GOOD)


@case("a phone of 50 MB (full)", "too long|longer than|more than|memory|at most")
def _(bench: Bench) -> str:
    return with_csv(bench, b"Phone,Name\n" + b"9" * (50 * MB) + b",Ada\n" + GOOD)


@case("a quote that is never closed, before 50 MB", "quote|too long|longer than|more than|at most")
def _(bench: Bench) -> str:
    return with_csv(bench, b'Phone,Name\n+905320000001,"' + GOOD * (50 * MB // len(GOOD)))


@case("a header of 1 MB (full)", "too long|longer than|more than|column|at most")
def _(bench: Bench) -> str:
    return with_csv(bench, b"Phone," + b"x" * MB + b"\n" + GOOD)


@case("a million columns", "columns")
def _(bench: Bench) -> str:
    return with_csv(bench, b"Phone," + b"a," * 1_000_000 + b"\n" + GOOD)


@case("names of 1 MB", "caption too long|caption_too_long|too long|longer than|at most", codes=(0, 2))
def _(bench: Bench) -> str:
    rows = b"".join(b"+9053200000%02d,%s\n" % (n, b"y" * MB) for n in range(20))
    return with_csv(bench, b"Phone,Name\n" + rows)


@case("a file of NULs", "NUL|binary|not text|empty|encoding|UTF|column")
def _(bench: Bench) -> str:
    return with_csv(bench, b"\0" * (10 * MB))


@case("a pipe instead of a file", "not an ordinary file|not a file|a pipe")
def _(bench: Bench) -> str:
    (bench.root / "campaigns").mkdir(parents=True, exist_ok=True)
    os.mkfifo(bench.root / "campaigns" / "people.csv")
    return bench.campaign(None)


@case("a folder instead of a file (full)", "folder|directory|not a file|not an ordinary")
def _(bench: Bench) -> str:
    (bench.root / "campaigns" / "people.csv").mkdir(parents=True)
    return bench.campaign(None)


@case("an audience that is a link out of the workspace", "outside the workspace")
def _(bench: Bench) -> str:
    outside = bench.root.parent / "outside.csv"
    outside.write_bytes(b"Phone,Name\n" + GOOD)
    (bench.root / "campaigns").mkdir(parents=True, exist_ok=True)
    (bench.root / "campaigns" / "people.csv").symlink_to(outside)
    return bench.campaign(None)


@case("a suppression list that is a link out of the workspace (full)", "outside the workspace")
def _(bench: Bench) -> str:
    bench.people(1)
    (bench.root / "campaigns" / "outs.csv").symlink_to("/etc/passwd")
    return bench.campaign(None, audience={"suppress": ["outs.csv"]})


# --- campaign files ---------------------------------------------------------------------------------------------------


def with_yaml(bench: Bench, text: str | bytes) -> str:
    bench.people(1)
    bench.write("campaigns/spring.yaml", text)
    return "campaigns/spring.yaml"


@case("aliases that multiply", r"spring.yaml:\d+.*(anchor|alias)")
def _(bench: Bench) -> str:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    return with_yaml(bench, f"campaign: spring\na0: &a0 [x, x]\n{levels}")


@case("merge keys that multiply (full)", r"spring.yaml:\d+.*(anchor|alias|merge)")
def _(bench: Bench) -> str:
    levels = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30))
    return with_yaml(bench, f"campaign: spring\na0: &a0 {{x: 1}}\n{levels}")


@case("brackets without end", "spring.yaml.*(deep|nested|levels|large|longer|bigger|at most)")
def _(bench: Bench) -> str:
    return with_yaml(bench, "campaign: " + "[" * 100_000)


@case("a campaign file of 50 MB", "spring.yaml.*(large|longer|more than|bigger|at most|KB|MB)")
def _(bench: Bench) -> str:
    return with_yaml(bench, "campaign: spring\n" + "# comment\n" * (5 * MB))


@case("a campaign file that is a binary", "spring.yaml")
def _(bench: Bench) -> str:
    return with_yaml(bench, b"\0\xff\xfe\x80" * 1000)


@case("a tag that makes a Python object (full)", r"spring.yaml:\d+.*tag")
def _(bench: Bench) -> str:
    return with_yaml(bench, 'campaign: !!python/object/apply:os.system ["touch escaped"]\n')


# --- templates --------------------------------------------------------------------------------------------------------


def with_template(bench: Bench, text: str, template: str = "t.j2") -> str:
    bench.people(1)
    bench.write("templates/t.j2", text)
    return bench.campaign(None, message={"caption": None, "template": template})


@case("a template that is a link out of templates/", "link|outside|leads out")
def _(bench: Bench) -> str:
    made = with_template(bench, "x", "linked.j2")
    (bench.root / "templates" / "linked.j2").symlink_to("/etc/passwd")
    return made


@case("a template named by a path that leads out (full)", r"spring.yaml:\d+|outside|leads out")
def _(bench: Bench) -> str:
    return with_template(bench, "x", "../../../../../etc/passwd")


@case("a template that is a pipe", "not a file|not an ordinary|pipe|cannot be read")
def _(bench: Bench) -> str:
    made = with_template(bench, "x", "pipe.j2")
    os.mkfifo(bench.root / "templates" / "pipe.j2")
    return made


# --- running them -----------------------------------------------------------------------------------------------------


def everything_outside_reports(root: Path) -> dict[str, object]:
    """Every file of the workspace and around it, but for reports/: its kind, size and time."""
    found: dict[str, object] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(root).parts[1:2] != ("reports",):
                status = path.lstat()
                found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """How one case went."""

    finished: Finished
    before: dict[str, object]
    after: dict[str, object]


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Seen]]]:
    """Every case that this session asks for, at work in the background, as many at once as there are processors."""
    wanted = {
        item.callspec.params.get("hostile_case")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }

    def run(one: Case) -> Seen:
        folder = tmp_path_factory.mktemp("hostile")
        bench = Bench(folder / "workspace", watched=True)
        bench.environment["TMPDIR"] = str(folder)
        file = one.make(bench)
        before = everything_outside_reports(folder)
        try:
            finished = bench.start("check", file, "--sandbox", "--all").wait(one.seconds + 30)
        finally:
            bench.close()
        return Seen(finished, before, everything_outside_reports(folder))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield {one.name: pool.submit(run, one) for one in CASES if one in wanted}


@pytest.mark.parametrize("hostile_case", [pytest.param(one, id=one.name) for one in CASES])
def test_a_hostile_file_is_refused_in_words(seen: dict[str, Future[Seen]], hostile_case: Case) -> None:
    result = seen[hostile_case.name].result()
    ended = result.finished.must(*hostile_case.codes)
    assert re.search(hostile_case.says, ended.said, re.IGNORECASE), ended.said[:2000]
    assert len(ended.said) < 100_000
    assert 0 < ended.own_peak < OWN_MEMORY
    assert ended.child_peak < MEMORY_BYTES
    assert ended.seconds < hostile_case.seconds
    assert result.after == result.before


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workspace of its own; commands still running at the end of the test are ended."""
    made = Bench(tmp_path / "workspace", watched=True)
    try:
        yield made
    finally:
        made.close()


def test_every_greedy_template_is_an_error_of_its_row_and_the_others_go_out(bench: Bench) -> None:
    greedy = list(hostile.GREEDY.values())
    bench.people(len(greedy) + 2)
    content = "".join(f"+90532{n:07d},{n}\n" for n in range(len(greedy) + 2))
    bench.write("campaigns/people.csv", "Phone,Which\n" + content)
    branches = "".join(f"{{% {'if' if n == 0 else 'elif'} Which == '{n}' %}}{text}" for n, text in enumerate(greedy))
    bench.write("templates/t.j2", branches + "{% else %}Hello {{ Which }}{% endif %}")
    bench.campaign(None, message={"caption": None, "template": "t.j2"})
    ended = bench.send("--sandbox").must(0, 1)
    with_rows = {row["phone"]: row for row in bench.rows("spring-sandbox")}
    wrong = {
        name: row["status"]
        for n, name in enumerate(hostile.GREEDY)
        if not (
            (row := with_rows[f"90532{n:07d}"])["status"] == "skipped"
            and re.match("render_error|caption_too_long", row["reason"])
        )
    }
    assert wrong == {}
    assert [row["status"] for row in list(with_rows.values())[-2:]] == ["accepted", "accepted"]
    assert ended.seconds < 60
    assert ended.own_peak < OWN_MEMORY
    assert ended.child_peak < OWN_MEMORY


@pytest.mark.parametrize("name", sized(list(hostile.FORBIDDEN), 5))
def test_a_forbidden_template_is_refused_before_any_row(bench: Bench, name: str) -> None:
    ended = bench.here("check", with_template(bench, hostile.FORBIDDEN[name]), "--sandbox").must(2)
    assert re.search(r"t\.j2", ended.err), ended.err
    assert "root:" not in ended.said
    assert len(ended.err) < 5_000


# --- links where the program writes -----------------------------------------------------------------------------------


LINKS = ["spring/results.csv", "spring", "ledger.sqlite3", "ledger.sqlite3-journal", "ledger.spring.spare"]
MORE_LINKS = ["spring/results.xlsx", "spring/retry.csv", "spring/summary.json", "spring/report.html", "spring/.lock"]


@pytest.mark.parametrize("link", [*LINKS, *MORE_LINKS] if FULL else LINKS)
def test_nothing_is_written_through_a_link_in_reports(bench: Bench, link: str) -> None:
    victim = bench.root.parent / "victim"
    content = b"\0 somebody's own file"
    if link == "spring":
        victim.mkdir()
        (victim / "results.csv").write_bytes(content)
    else:
        victim.write_bytes(content)
    place = bench.reports / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim)
    with provider() as box:
        bench.people(2)
        bench.campaign(box.url)
        ended = bench.send_here()
        assert ended.code in ((0, 2, 3) if link == "ledger.sqlite3-journal" else (2, 3)), ended
        assert (victim / "results.csv" if link == "spring" else victim).read_bytes() == content
        if link == "spring":
            assert [path.name for path in victim.iterdir()] == ["results.csv"]
        assert "link" in ended.said or link == "ledger.sqlite3-journal", ended.said


@pytest.mark.parametrize("link", ["results.csv", "results.xlsx"])
def test_a_result_file_that_cannot_be_written_is_not_called_nothing_was_sent(bench: Bench, link: str) -> None:
    (bench.reports / "spring").mkdir(parents=True)
    (bench.reports / "spring" / link).symlink_to(bench.root)
    with provider() as box:
        bench.people(2)
        bench.campaign(box.url)
        ended = bench.send_here()
        assert ended.code != 2 or sends(box) == [], "code 2 says that nothing was sent"


def test_preview_writes_nothing_through_a_link(bench: Bench) -> None:
    victim = bench.root.parent / "victim"
    victim.write_bytes(b"somebody's own file")
    folder = bench.reports / "spring"
    folder.mkdir(parents=True)
    for name in ("preview.xlsx", "preview.html"):
        (folder / name).symlink_to(victim)
    bench.people(2)
    bench.here("preview", bench.campaign("http://127.0.0.1:9")).must(2, 3)
    assert victim.read_bytes() == b"somebody's own file"


def test_a_workspace_that_is_itself_a_link_is_an_ordinary_workspace(bench: Bench) -> None:
    """A person's own choice of where the folder lies; only links inside reports/ are refused."""
    bench.people(2)
    bench.campaign(None)
    linked = bench.root.parent / "linked"
    linked.symlink_to(bench.root)
    assert (
        json.loads(Bench(linked).here("plan", "campaigns/spring.yaml", "--sandbox", "--json").must(0).out)["to_send"]
        == 2
    )
