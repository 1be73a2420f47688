"""The commands about the ledger itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.clibase import json_option, note, print_json, print_lines
from runner.errors import InputError, Problem

if TYPE_CHECKING:
    from runner.ledger.sql import SqlLedger


@click.group()
def ledger() -> None:
    """The ledger itself: who was sent what."""


@ledger.command(
    "copy", epilog="Example: campaign ledger copy reports/ledger.sqlite3 postgresql://anna@db.example.com/campaigns"
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@json_option
def ledger_copy(source: str, target: str, as_json: bool) -> None:
    """Copy a whole ledger into a new file or database, e.g. from SQLite to PostgreSQL. FROM stays as it is.

    FROM and TO are paths of SQLite files or postgresql:// addresses ("-" for what CAMPAIGN_LEDGER says).
    """
    from runner.ledger import open_ledger
    from runner.ledger.copying import copy_ledger

    places = [_place(text) for text in (source, target)]
    if places[0] == places[1]:
        raise InputError(Problem("ledger copy", "FROM and TO are the same", "give another TO"))
    if isinstance(places[0], Path) and not places[0].is_file():
        raise InputError(Problem(str(places[0]), "no such file", "check the path of the ledger to copy"))
    with ExitStack() as stack:
        old = open_ledger(places[0], create=False)
        stack.callback(old.close)
        _hold_all(old, places[0], stack)
        new = open_ledger(places[1], create=True)
        stack.callback(new.close)
        counts = copy_ledger(old, new, lambda table, n: note(f"{table}: {n:,}") if n % 100_000 == 0 else None)
        names = old.name, new.name
    if as_json:
        print_json({"from": names[0], "to": names[1], "rows": counts})
        return
    from runner.console import table as as_table

    print_lines(as_table([(name, f"{n:,}") for name, n in counts.items() if name != "meta"]))
    click.echo(f"Copied {names[0]} to {names[1]}. Send from there from now on: --ledger, or CAMPAIGN_LEDGER in .env")


def _place(text: str) -> Path | str:
    if text == "-":
        from runner.workspace import find_workspace

        return find_workspace(None, None).ledger_place()
    return text if "://" in text else Path(text).expanduser().resolve()


def _hold_all(ledger: SqlLedger, place: Path | str, stack: ExitStack) -> None:
    """No campaign may be sent while its ledger is copied: a row that is sent after its copy was made would be sent twice."""
    from runner.lock import campaign_lock

    for name in ledger.campaigns():
        if isinstance(place, Path):  # the embedded ledger lies beside its campaigns' folders
            practice = place.name == "sandbox.sqlite3"
            stack.enter_context(
                campaign_lock(place.parent / (name + ("-sandbox" if practice else "")), name, "campaign ledger copy")
            )
        stack.enter_context(ledger.campaign_lock(name, "campaign ledger copy"))
