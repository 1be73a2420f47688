"""Imports point down. The table below is the whole rule: what a module may import of ours stands beside its name.

Read it from the top: whatever a module may import stands above it, so there can be no circle. A new module gets a
line of its own, as high up as it can stand.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

RUNNER = Path(__file__).resolve().parent.parent / "runner"

WORDS = "errors model"

TABLE = {
    # aside: the stand-in provider, so that a misread field is not mirrored in its own test server
    "sandbox_log": "",
    "sandbox_scenario": "",
    "sandbox_scenario_file": "sandbox_scenario",
    "sandbox_vendors": "",
    "sandbox_app": "sandbox_log sandbox_scenario sandbox_vendors",
    "sandbox": "sandbox_log sandbox_scenario sandbox_scenario_file sandbox_app",
    # words
    "__init__": "",
    "errors": "",
    "model": "",
    # pure rules: no I/O, no clock of their own
    "moments": "",
    "units": "",
    "breaker": "model",
    "outsidetext": "",
    "whatsapp": "outsidetext",
    "retry": WORDS,
    "pace": "units",
    "phones": WORDS,
    "spelling": "",
    "templatevalues": "",
    "filters": "templatevalues",
    "templatelimits": "templatevalues",
    "filterguard": "templatevalues filters templatelimits",
    "templatemetering": "templatevalues",
    "columnnames": "spelling templatevalues",
    "templatesandbox": "templatevalues templatelimits filterguard templatemetering columnnames",
    "hazards": "",
    "imageaddress": "templatevalues",
    "providers.credentials": "",
    "providers.base": f"{WORDS} providers.credentials",
    "providers.wapim": f"{WORDS} providers.base",
    "providers.zixflow": f"{WORDS} providers.base providers.credentials",
    "providers": "providers.base providers.wapim providers.zixflow",
    # inputs: from the files of the workspace
    "workspace": "errors",
    "yamlfile": "errors",
    "campaignfile": "units phones providers providers.base",
    "complaints": "errors providers yamlfile campaignfile",
    "account": "errors providers providers.base yamlfile campaignfile complaints",
    "campaign": f"{WORDS} units moments providers.base workspace yamlfile campaignfile complaints account",
    "reference": "units providers yamlfile campaignfile",
    "scaffold": "errors",
    "templatefolder": "errors spelling templatevalues",
    "templateparsing": "errors templatefolder",
    "templatecheck": "errors spelling templatevalues filters columnnames templatesandbox hazards templateparsing",
    "templatewarnings": "templatemetering columnnames templateparsing templatecheck",
    "templateprogram": "errors templatelimits columnnames templatesandbox templateparsing templatecheck",
    "captions": f"{WORDS} templatevalues templatelimits columnnames templatesandbox hazards imageaddress templatefolder"
    " templateparsing templatecheck templatewarnings templateprogram",
    "header": "errors",
    "encoding": "errors",
    "delimiter": "errors",
    "csvfile": "errors header encoding delimiter",
    "workbook_guard": "errors header",
    "workbook": "errors header workbook_guard",
    "audience": "errors header csvfile workbook",
    "suppression": "errors phones header audience",
    "medialinks": "",
    "mediaformat": "",
    "mediaguard": "",
    "mediafetch": "mediaformat mediaguard",
    "media": "mediafetch mediaformat mediaguard medialinks",
    # edges: the network, the ledger, the screen, the result files
    "transport": WORDS,
    "ledger.base": WORDS,
    "ledger.schema": "",
    "ledger.adoption": "ledger.base",
    "ledger.staging": f"{WORDS} ledger.base ledger.schema",
    "ledger.batches": f"{WORDS} ledger.base",
    "ledger.reading": f"{WORDS} ledger.base ledger.schema",
    "ledger.sql": f"{WORDS} ledger.base ledger.schema ledger.adoption ledger.staging ledger.batches ledger.reading",
    "ledger.sqlite": f"{WORDS} ledger.sql",
    "ledger": "ledger.base ledger.sql ledger.sqlite",
    # inputs that are measured against the ledger
    "prepare": f"{WORDS} moments phones providers campaign captions audience suppression ledger.base",
    "confinement": "errors ledger.base prepare",
    "plan": f"{WORDS} moments units pace campaign ledger.base ledger.staging ledger.sql prepare confinement",
    # edges again
    "recorder": f"{WORDS} ledger.base ledger.sql",
    "progress": f"{WORDS} units pace",
    "files": "errors",
    "lock": "errors files",
    "cells": "",
    "resultset": WORDS,
    "totals": f"{WORDS} cells resultset",
    "resultlook": f"{WORDS} cells",
    "resultsummary": f"{WORDS} cells resultset totals resultlook",
    "resultcsv": "cells files resultset",
    "resultbook": "errors cells files resultset totals resultlook resultsummary",
    "results": "errors files resultset totals resultcsv resultbook",
    "mending": f"{WORDS} providers.base",
    "outcome_files": "workspace ledger.base ledger.sql mending resultset results",
    "previewbook": "cells files ledger.base plan resultlook",
    "attemptstats": "model units",
    "drawings": "attemptstats",
    "messagecards": "outsidetext whatsapp",
    "previewpage": "ledger.base outsidetext mending resultsummary drawings messagecards",
    "reportpage": f"{WORDS} units outsidetext resultset totals resultsummary mending attemptstats drawings messagecards"
    " previewpage",
    "pages": "files outsidetext previewpage reportpage",
    # the engine, and what wires it: the contracts of provider and ledger, never one of each
    "engine": f"{WORDS} retry pace providers.base ledger.base recorder transport progress",
    "run": f"{WORDS} moments retry pace campaign plan ledger.base ledger.sql transport recorder progress lock"
    " outcome_files engine",
    "reconcile": f"{WORDS} campaign providers.base ledger.base ledger.sql transport",
    # the doors; "*" is everything above
    "console": f"{WORDS} moments units ledger.base mending plan run",
    "clibase": "errors workspace phones campaign plan sandbox ledger ledger.sql console",
    "clilook": "errors scaffold reference sandbox ledger.sql campaign plan previewbook outcome_files console clibase",
    "clisend": f"{WORDS} moments phones workspace suppression lock plan ledger ledger.base ledger.sql run console clibase",
    "cli": "errors clibase clilook clisend",
    "__main__": "cli",
}

# Who may know a library or call a function. A name that ends in * stands for all that begin with it.
ONLY_IN = {
    "aiohttp": ["transport", "media*", "sandbox*"],
    "sqlalchemy": ["ledger*"],
}
PRINTERS = ["cli*"]
PURE = ["providers*"]  # total functions from data to data
IMPURE_LIBRARIES = {"aiohttp", "sqlalchemy", "os", "time", "socket", "random", "asyncio"}


def modules() -> dict[str, Path]:
    """Every module under runner/ by its dotted name without `runner.`; a package goes by its folder's name."""
    found = {}
    for path in sorted(RUNNER.rglob("*.py")):
        parts = path.relative_to(RUNNER).with_suffix("").parts
        found[".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1])] = path
    return found


MODULES = modules()


def imports(source: str, package: str = "runner") -> set[str]:
    """Every dotted name that the source of a module in `package` imports, wherever it does so: at the top, inside a
    function, for type checking only, or by `import_module` with a literal name. `from a import b` counts as `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            names.update(arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
    return names


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    return imports(path.read_text(encoding="utf-8"), ".".join(["runner", *path.relative_to(RUNNER).parts[:-1]]))


def ours(names: set[str]) -> set[str]:
    """The modules of the runner behind imported names: `runner.units.Rate` is `units`."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "runner":
            inner = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found.add(next((each for each in inner if each in MODULES), "__init__"))
    return found


def matches(module: str, patterns: list[str]) -> bool:
    return any(module.startswith(each[:-1]) if each.endswith("*") else module == each for each in patterns)


def test_every_import_is_seen_wherever_it_stands() -> None:
    source = """
from __future__ import annotations
import os.path
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from runner.model import Message
def late():
    from . import base
    from ..units import Rate
    import_module("runner.engine")
"""
    seen = imports(source, package="runner.providers")
    assert {"os.path", "runner.model.Message", "runner.providers.base", "runner.units.Rate", "runner.engine"} <= seen


def allowed_by_table(module: str) -> set[str]:
    allowed = set(TABLE.get(module, "").split())
    return MODULES.keys() - {module} if "*" in allowed else allowed


def test_the_table_names_exactly_the_modules_that_exist() -> None:
    new = [
        f'    "{module}": "{" ".join(sorted(ours(imports_of(module))))}",' for module in MODULES.keys() - TABLE.keys()
    ]
    gone = sorted(TABLE.keys() - MODULES.keys())
    assert not new, "add to TABLE in tests/test_layers.py, if it is right so:\n" + "\n".join(sorted(new))
    assert not gone, f"take out of TABLE in tests/test_layers.py: {', '.join(gone)}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    strangers = ours(imports_of(module)) - allowed_by_table(module) - {module}
    assert not strangers, (
        f"runner.{module} may not import {', '.join(sorted(strangers))} (TABLE in tests/test_layers.py)"
    )


def test_whatever_a_module_may_import_stands_above_it_in_the_table() -> None:
    order = {module: line for line, module in enumerate(TABLE)}
    upward = [
        f"{module} may import {other}"
        for module, allowed in TABLE.items()
        for other in set(allowed.split()) - {"*"}
        if order.get(other, len(order)) >= order[module]
    ]
    assert not upward, upward


def test_nothing_that_others_import_may_import_everything() -> None:
    free = {module for module, allowed in TABLE.items() if "*" in allowed.split()}
    assert free <= {"__main__"} | {module for module in MODULES if matches(module, PRINTERS)}


def test_the_sandbox_imports_nothing_of_ours() -> None:
    family = {module for module in MODULES if matches(module, ["sandbox*"])}
    for module in family:
        assert ours(imports_of(module)) <= family, module


def test_nobody_imports_the_command_line_but_the_doorway() -> None:
    importers = {module for module in MODULES if "cli" in ours(imports_of(module))} - {"cli"}
    assert importers <= {"__main__"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {module for module in MODULES if library in {name.split(".")[0] for name in imports_of(module)}}
    assert [module for module in users if not matches(module, ONLY_IN[library])] == []


def test_providers_are_pure() -> None:
    pure = [module for module in MODULES if matches(module, PURE)]
    assert pure
    for module in pure:
        assert {name.split(".")[0] for name in imports_of(module)} & IMPURE_LIBRARIES == set(), module


def test_nothing_below_the_command_line_prints() -> None:
    printers = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert [module for module in printers if not matches(module, PRINTERS)] == []
