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
    "sandbox_help": "sandbox_scenario",
    "sandbox_scenario_file": "sandbox_scenario",
    "sandbox_vendors": "",
    "sandbox_app": "sandbox_help sandbox_log sandbox_scenario sandbox_vendors",
    "sandbox": "sandbox_app sandbox_log sandbox_scenario sandbox_scenario_file",
    # words
    "__init__": "",
    "errors": "",
    "model": "",
    # rules and small parts: data in, data out
    "breaker": "model",
    "cells": "",
    "delimiter": "errors",
    "ink": "cells model",
    "encoding": "errors",
    "hazards": "",
    "header": "errors",
    "csvfile": "delimiter encoding errors header",
    "mediaformat": "",
    "mediaguard": "",
    "mediafetch": "mediaformat mediaguard",
    "medialinks": "",
    "media": "mediafetch mediaformat mediaguard medialinks",
    "moments": "",
    "outsidetext": "",
    "numberingplan": "",
    "phones": "model numberingplan",
    "providers.credentials": "",
    "refusals": "",
    "providers.base": "model providers.credentials refusals",
    "mending": "model refusals",
    "providers.wapim": "model providers.base",
    "providers.zixflow": "model providers.base providers.credentials",
    "providers": "providers.base providers.wapim providers.zixflow",
    "resultlook": "cells model",
    "resultset": "model",
    "rowxml": "cells",
    "streambook": "header model resultlook rowxml",
    "reportrows": "model resultset",
    "retry": "model",
    "spelling": "",
    "templatevalues": "",
    "columnnames": "spelling templatevalues",
    "filters": "templatevalues",
    "imageaddress": "templatevalues",
    "templatefolder": "errors spelling templatevalues",
    "templatelimits": "templatevalues",
    "filterguard": "filters templatelimits templatevalues",
    "templatemetering": "templatevalues",
    "templatebranches": "templatemetering",
    "templateparsing": "errors templatefolder",
    "templatesandbox": "columnnames filterguard templatelimits templatemetering templatevalues",
    "templatecheck": "columnnames errors filters hazards spelling templateparsing templatesandbox templatevalues",
    "templateprogram": "columnnames errors templatecheck templatelimits templateparsing templatesandbox",
    "templatewarnings": "columnnames templatecheck templatemetering templateparsing",
    "totals": "cells model resultset",
    "resultsummary": "cells model resultlook resultset totals",
    "units": "",
    "attemptstats": "model units",
    "campaignfile": "breaker phones providers providers.base units",
    "drawings": "attemptstats",
    "turns": "",
    "steadyclock": "",
    "cooldown": "turns",
    "pace": "cooldown units",
    "whatsapp": "outsidetext",
    "messagecards": "outsidetext whatsapp",
    "workbook_guard": "errors header",
    "workbook": "errors header workbook_guard",
    "yamlfile": "errors",
    "complaints": "campaignfile errors providers yamlfile",
    "account": "campaignfile complaints errors providers providers.base yamlfile",
    # the ledger
    "ledger.base": "model",
    "ledger.overview": "ledger.base model",
    "ledger.address": "errors",
    "ledger.bulk": "",
    "ledger.batches": "errors ledger.base ledger.bulk",
    "ledger.adoption": "ledger.base ledger.batches",
    "ledger.schema": "",
    "ledger.migrations": "",
    "ledger.migrations.env": "ledger.schema",
    "ledger.migrations.versions": "",
    "ledger.migrations.versions.v0001_the_first_tables": "",
    "ledger.migrations.versions.v0002_many_machines": "",
    "ledger.migrations.versions.v0003_live_rows": "",
    "ledger.upgrading": "errors ledger.base ledger.migrations ledger.schema",
    "ledger.reading": "errors ledger.base ledger.bulk ledger.overview",
    "ledger.claims": "ledger.base ledger.bulk ledger.reading model",
    "ledger.stagetables": "",
    "ledger.staging": "ledger.base ledger.bulk ledger.stagetables model",
    "ledger.sql": (
        "errors ledger.adoption ledger.base ledger.batches ledger.bulk ledger.claims ledger.reading ledger.staging "
        "ledger.upgrading model steadyclock"
    ),
    "ledger.slots": "ledger.sql",
    "ledger.partitions": "ledger.base ledger.batches ledger.overview ledger.sql",
    "ledger.sqlite": "errors ledger.base ledger.sql ledger.staging",
    "ledger.postgres": "errors ledger.address ledger.base ledger.sql ledger.sqlite",
    "ledger.copying": "errors ledger.bulk ledger.schema ledger.sql",
    "ledger": "ledger.address ledger.postgres ledger.sql ledger.sqlite",
    # inputs and files
    "audience": "csvfile errors header workbook",
    "captions": (
        "columnnames errors hazards imageaddress model templatebranches templatecheck templatefolder "
        "templatelimits templateparsing templateprogram templatesandbox templatevalues templatewarnings"
    ),
    "files": "errors",
    "suppression": "audience errors header phones",
    "workspace": "errors",
    "campaign": "account campaignfile complaints errors moments providers.base units workspace yamlfile",
    # the heart
    "lock": "errors files steadyclock",
    "progress": "model pace units",
    "recorder": "errors ledger.base ledger.slots ledger.sql",
    "signals": "",
    "exchange": "model",
    "transport": "exchange model",
    "engine": "breaker errors ledger.base model progress recorder retry transport turns",
    "eventloop": "steadyclock",
    "sameness": "",
    "sharedpace": "cooldown ledger.slots pace units",
    # plans, results and pages
    "preflight": "campaign errors ledger.staging media moments pace",
    "prepare": "campaign ledger.base",
    "pipeline": "audience captions errors ledger.base model moments phones prepare providers suppression",
    "confinement": "errors ledger.base pipeline prepare",
    "optoutwatch": "campaign confinement prepare",
    "plan": (
        "campaign confinement errors ledger.base ledger.sql ledger.staging model moments pace preflight prepare units"
    ),
    "previewbook": "files ledger.base model plan resultlook streambook",
    "previewpage": "drawings ledger.base mending messagecards outsidetext resultsummary",
    "reference": "breaker campaignfile providers units yamlfile",
    "reportpage": (
        "attemptstats drawings mending messagecards model outsidetext previewpage reportrows resultset "
        "resultsummary totals units"
    ),
    "pages": "files model outsidetext previewpage reportpage",
    "resultbook": "cells errors files resultlook resultset resultsummary streambook totals",
    "resultcsv": "cells files resultset",
    "results": "errors files resultbook resultcsv resultset totals",
    "outcome_files": (
        "attemptstats ledger.base ledger.sql mending pages reportpage reportrows results resultset units workspace"
    ),
    "scaffold": "errors",
    # wiring
    "preview": (
        "campaign files ledger.base ledger.sql ledger.staging messagecards pages plan preflight previewbook previewpage"
    ),
    "reconcile": "campaign ledger.base ledger.sql model providers.base transport",
    "sharing": "campaign cooldown ledger.slots ledger.sql lock pace sharedpace turns units",
    "sending": (
        "breaker campaign engine errors eventloop ledger.base ledger.slots ledger.sql lock moments optoutwatch pace progress "
        "recorder retry sharedpace sharing signals transport turns"
    ),
    "partition": (
        "breaker engine errors eventloop ledger.base ledger.partitions ledger.postgres ledger.slots ledger.sql model "
        "providers providers.base recorder retry sharedpace transport units"
    ),
    "clusterplan": "errors sameness",
    "localcluster": "",
    "cluster": (
        "clusterplan engine errors ledger.base ledger.partitions ledger.slots localcluster model partition progress retry sending "
        "sharedpace signals"
    ),
    "run": (
        "breaker campaign cluster clusterplan engine errors files ledger.base ledger.sql lock model moments outcome_files "
        "plan progress sending"
    ),
    "console": "ink ledger.base mending model moments plan preflight reconcile run units",
    "clusterlook": "ledger.base units",
    # the command: may know everything
    "clibase": "*",
    "cliledger": "*",
    "clilook": "*",
    "clisend": "*",
    "cli": "*",
    "__main__": "*",
}

# Who may know a library or call a function. A name that ends in * stands for all that begin with it.
ONLY_IN = {
    "aiohttp": ["exchange", "transport", "media*", "sandbox*"],
    "alembic": ["ledger.migrations*"],
    "psycopg": ["ledger.address", "ledger.postgres"],
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
