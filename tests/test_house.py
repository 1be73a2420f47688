"""The house rules that a machine can check: what no file may contain, what every file must have."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

LINES = 400
LONGER: dict[str, str] = {  # modules that may be longer than LINES, each with the reason why it is still one idea
}

# Patterns in pieces, so that this file may be searched too.
FORBIDDEN = {
    "the address of a package registry": r"py" r"pi\.(org|python)|python" r"hosted\.org|--(extra-)?index" r"-url",
    "a path of somebody's machine": r"(?<![\w.])/(ro" r"ot|wo" r"rk|opt/py" r"pi)/",
    "work left undone": r"\b(TO" r"DO|FIX" r"ME)\b",
}
HEAVY = {"pandas", "numpy", "aiohttp", "sqlalchemy"}


def own_files() -> list[Path]:
    """The files in git and the new ones that it does not ignore; without git, all that do not look like leavings."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
    except (FileNotFoundError, subprocess.CalledProcessError):
        leavings = re.compile(r"(^|/)(\.venv|\.git|\.env|__pycache__|\.\w+_cache|\.hypothesis|build|dist|reports)(/|$)")
        walked = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
        names = {name for name in walked if not leavings.search(name)}
    return sorted(path for path in (ROOT / name for name in names) if path.is_file())


def python_files(*folders: str) -> list[Path]:
    return [path for path in own_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path), feature_version=(3, 11))


def pins(kind: str) -> dict[str, str]:
    """Package -> version, as requirements/KIND.txt has them."""
    text = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_file_contains(kind: str) -> None:
    pattern = re.compile(FORBIDDEN[kind].encode())
    found = [
        f"{name_of(path)}:{number}: {match[0].decode()}"
        for path in own_files()
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if (match := pattern.search(line))
    ]
    assert not found, f"{kind} stands in: " + ", ".join(found)


def test_every_python_file_says_what_it_is_for() -> None:
    files = [path for path in python_files("runner", "tests", "tools", "benchmarks") if path.stat().st_size]
    assert [name_of(path) for path in files if not ast.get_docstring(tree_of(path))] == []


def test_every_public_class_and_function_of_the_runner_says_what_it_means() -> None:
    """Those of a module, not methods. A function of one statement that is no longer than a sentence may do without."""
    silent = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in python_files("runner")
        for node in tree_of(path).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if not node.name.startswith("_")
        if not ast.get_docstring(node)
        if isinstance(node, ast.ClassDef) or len(node.body) > 1
    ]
    assert not silent, "no docstring: " + ", ".join(silent)


def test_no_module_is_longer_than_one_can_hold_in_mind() -> None:
    lengths = {name_of(path): len(path.read_bytes().splitlines()) for path in python_files("runner")}
    too_long = {name: length for name, length in lengths.items() if length > LINES and name not in LONGER}
    listed = ", ".join(f"{name} ({length})" for name, length in too_long.items())
    assert not too_long, f"over {LINES} lines: split it, or give the reason in LONGER of tests/test_house.py: {listed}"
    assert [name for name in LONGER if lengths.get(name, 0) <= LINES] == [], "short again: take it out of LONGER"


def test_help_starts_without_the_heavy_libraries() -> None:
    code = f"""
import sys, runner.cli
sys.argv = ["campaign", "--help"]
try:
    runner.cli.main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Usage: campaign" in done.stdout, done.stderr
    assert done.stderr.strip().endswith("loaded: []"), done.stderr


@pytest.mark.parametrize("kind", ["run", "test"])
def test_every_requirement_is_pinned_with_its_hashes(kind: str) -> None:
    text = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+(\s+;[^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+", line), line[:100]


def test_what_runs_has_the_versions_that_were_tested() -> None:
    run, tested = pins("run"), pins("test")
    assert run.items() <= tested.items()


def test_the_pins_fulfil_what_the_project_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    core = declared["build-system"]["requires"] + declared["project"]["dependencies"]
    extra = declared["project"]["optional-dependencies"]["dev"]
    for kind, wanted in (("run", core), ("test", core + extra)):
        pinned = pins(kind)
        for requirement in map(Requirement, wanted):
            version = pinned.get(canonicalize_name(requirement.name), "")
            assert version in requirement.specifier, f"{requirement} is not in requirements/{kind}.txt: run `make lock`"


@pytest.mark.parametrize("script", [".ci/run", "tools/lock.sh"])
def test_a_script_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text(encoding="utf-8").startswith("#!")


def test_every_target_of_the_makefile_is_in_its_help() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "test", "check"} <= set(targets)
    assert [name for name in targets if f"  {name} " not in shown and not name.startswith("env-")] == []
