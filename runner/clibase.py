"""What the commands share: options, opening a campaign or a ledger, printing. Imports stand inside the functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from runner.errors import InputError, Problem

_LEDGER = "runner.ledger"
F = TypeVar("F", bound=Callable[..., object])

if TYPE_CHECKING:
    from runner.campaign import Campaign
    from runner.ledger.base import Overview
    from runner.ledger.sql import SqlLedger
    from runner.plan import Plan
    from runner.workspace import Workspace

_workspace_option = click.option(
    "--workspace", type=click.Path(path_type=Path), help="The folder with campaigns/, templates/ and reports/."
)
_ledger_option = click.option(
    "--ledger",
    metavar="PATH|URL",
    expose_value=False,
    callback=lambda context, _, value: context.meta.__setitem__(_LEDGER, value or ""),
    help="A SQLite file or postgresql://... (else CAMPAIGN_LEDGER, else reports/ledger.sqlite3).",
)


def workspace_option(command: F) -> F:
    """--workspace and --ledger: where things lie. The ledger's place may hold a password; `chosen_ledger` has it."""
    return _workspace_option(_ledger_option(command))


def chosen_ledger() -> str:
    """What --ledger of the command that runs said, '' for nothing."""
    return str(click.get_current_context().meta.get(_LEDGER, ""))


sandbox_option = click.option("--sandbox", is_flag=True, help="Practise: a stand-in provider and a ledger of its own.")
images_option = click.option("--images", is_flag=True, help="Fetch every image once and say which cannot be used.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of text.")
file_argument = click.argument("file", type=click.Path(path_type=Path))
campaign_argument = click.argument("campaign", metavar="CAMPAIGN")


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines; their colours only on a terminal, and only where they are wanted (no-color.org, TERM=dumb)."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    for line in lines:
        click.echo(line, err=err, color=False if plain else None)


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


# --- opening ------------------------------------------------------------------------------------------------------------


@contextmanager
def opened_campaign(
    file: Path, workspace: Path | None, *, sandbox: bool, create: bool, serve: bool = False
) -> Iterator[tuple[Campaign, SqlLedger]]:
    """The campaign and its ledger; with `serve`, a stand-in provider as well."""
    from runner.campaign import load_campaign
    from runner.ledger import open_ledger
    from runner.workspace import find_workspace

    place = find_workspace(file, workspace, sandbox=sandbox, ledger=chosen_ledger())
    with ExitStack() as stack:
        base_url = None
        if sandbox:
            base_url = "http://127.0.0.1:9"  # never reached: a plan opens no socket
        if serve and sandbox:
            from runner.sandbox import Sandbox, SandboxSettings

            base_url = stack.enter_context(Sandbox(SandboxSettings(keep_bodies=False)).in_thread()).url
        campaign = load_campaign(file, place, place.environment(), base_url)
        ledger = open_ledger(place.ledger_place(), create=create)
        stack.callback(ledger.close)
        if sandbox:
            _share_optouts(place, ledger)
        yield campaign, ledger


def _share_optouts(place: Workspace, practice: SqlLedger) -> None:
    """Practice leaves out the people that the real thing would leave out."""
    from dataclasses import replace

    from runner.errors import LedgerError
    from runner.ledger import open_ledger

    try:
        real = open_ledger(replace(place, sandbox=False).ledger_place(), create=False)
    except LedgerError as error:
        note(f"practice goes on without the opt-outs of the real ledger: {error}")
        return
    try:
        practice.suppress((phone for phone, _, _ in real.suppressions()), "opt-out list")
    finally:
        real.close()


@contextmanager
def opened_ledger(
    campaign: str | None, workspace: Path | None, *, sandbox: bool
) -> Iterator[tuple[Workspace, SqlLedger, str]]:
    """The workspace, its ledger, and the name of the campaign that was asked for ('' for none)."""
    from runner.ledger import open_ledger

    place, name = _asked(campaign, workspace, sandbox=sandbox)
    ledger = open_ledger(place.ledger_place(), create=False)
    try:
        yield place, ledger, name
    finally:
        ledger.close()


def overviews(campaign: str | None, workspace: Path | None, *, sandbox: bool) -> list[Overview]:
    """What `status` says of this campaign, or of all: at a glance where the ledger is a file that lets us."""
    from runner.ledger.base import now_us
    from runner.ledger.overview import glance

    place, name = _asked(campaign, workspace, sandbox=sandbox)
    where = place.ledger_place()
    found = glance(where, name, now_us()) if isinstance(where, Path) else None
    if found is not None:
        return found
    with opened_ledger(campaign, workspace, sandbox=sandbox) as (_, ledger, _):
        return ledger.overviews(name)


def _asked(campaign: str | None, workspace: Path | None, *, sandbox: bool) -> tuple[Workspace, str]:
    from runner.workspace import campaign_name_from, find_workspace

    named_file = Path(campaign) if campaign is not None and campaign.endswith((".yaml", ".yml")) else None
    place = find_workspace(named_file, workspace, sandbox=sandbox, ledger=chosen_ledger())
    return place, campaign_name_from(campaign) if campaign is not None else ""


@contextmanager
def held_campaign(place: Workspace, ledger: SqlLedger, campaign: str, holder: str) -> Iterator[None]:
    """Hold the campaign on this machine, and on all that share the ledger. Raises LockedError."""
    from runner.lock import campaign_lock

    with campaign_lock(place.folder(campaign), campaign, holder), ledger.campaign_lock(campaign, holder):
        yield


def read_numbers(texts: Iterable[str], region: str | None, where: str) -> list[str]:
    """Phone numbers typed on the command line, as E.164 digits. Raises InputError naming each that cannot be read."""
    from runner.phones import Phone, PhoneReader

    reader = PhoneReader(region)
    read = [(text, reader.read(text)) for text in texts]
    problems = [Problem(f"{where} {text}", phone.detail) for text, phone in read if not isinstance(phone, Phone)]
    if problems:
        raise InputError(*problems)
    return [phone.digits for _, phone in read if isinstance(phone, Phone)]


def note(text: str) -> None:
    """Something that a person should know while it goes on: stderr."""
    click.echo(text, err=True)


def show_plan(file: Path, workspace: Path | None, *, sandbox: bool, as_json: bool, images: bool = False) -> None:
    """What `plan` and `send --dry-run` print."""
    from runner.console import plan_lines
    from runner.plan import open_plan

    with (
        opened_campaign(file, workspace, sandbox=sandbox, create=False) as (campaign, ledger),
        open_plan(campaign, ledger, images=images, note=note) as (shown, _),
    ):
        if as_json:
            print_json(plan_json(shown))
        else:
            print_lines(plan_lines(shown))


def plan_json(plan: Plan) -> dict[str, object]:
    """A plan for machines."""
    difference = plan.difference
    return {
        "campaign": plan.campaign,
        "provider": plan.provider,
        "sandbox": plan.sandbox,
        "plan": plan.hash,
        "audience": plan.audience,
        "rows": difference.rows,
        "to_send": difference.to_send,
        "settled": {status.value: n for status, n in difference.settled.items()},
        "skipped": dict(difference.skipped),
        "changed": difference.changed,
        "gone": {status.value: n for status, n in difference.gone.items()},
        "countries": dict(difference.countries),
        "rates": [str(rate) for rate in plan.rates],
        "seconds": plan.seconds,
        "columns": {"used": list(plan.used), "unused": list(plan.unused)},
        "images": None
        if plan.images is None
        else {
            "checked": plan.images.checked,
            "unusable": plan.images.unusable_count,
            "doubtful": plan.images.doubtful_count,
        },
    }
