"""The commands that send or decide: send, retry, pause, cancel, optout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.clibase import (
    campaign_argument,
    chosen_ledger,
    file_argument,
    held_campaign,
    json_option,
    opened_campaign,
    opened_ledger,
    print_json,
    print_lines,
    read_numbers,
    sandbox_option,
    show_plan,
    workspace_option,
)
from runner.errors import ExitCode, InputError, Problem

if TYPE_CHECKING:
    from runner.clusterplan import Cluster
    from runner.ledger.base import Recovered
    from runner.ledger.sql import SqlLedger
    from runner.plan import Plan

# --- sending ------------------------------------------------------------------------------------------------------------


@click.command(
    epilog="Examples: campaign send campaigns/spring.yaml; campaign send campaigns/spring.yaml --sandbox --yes; "
    "campaign send campaigns/spring.yaml --limit 20"
)
@file_argument
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.option("--plan", "plan_hash", metavar="HASH", help="Send only if the plan is still this one.")
@click.option("--limit", type=click.IntRange(1), help="Send to at most so many recipients this time.")
@click.option(
    "--to", "numbers", multiple=True, metavar="PHONE", help="Send only to this number of the audience (repeatable)."
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--workers", type=click.IntRange(1, 64), help="Send with so many worker processes on this machine.")
@click.option(
    "--cluster", "scheduler", metavar="ADDRESS", help="Send with the workers of a Dask scheduler: tcp://host:8786."
)
@sandbox_option
@workspace_option
@json_option
def send(
    file: Path,
    yes: bool,
    plan_hash: str | None,
    limit: int | None,
    numbers: tuple[str, ...],
    dry_run: bool,
    workers: int | None,
    scheduler: str | None,
    sandbox: bool,
    workspace: Path | None,
    as_json: bool,
) -> int:
    """Plan, confirm, send. Running it again goes on where it stopped, and sends nothing twice."""
    from runner.console import plan_lines, question, recovered_lines, send_lines
    from runner.run import Ask, SendOptions
    from runner.run import send as run_send

    if dry_run:
        show_plan(file, workspace, sandbox=sandbox, as_json=as_json)
        return ExitCode.OK

    def approve(shown: Plan, recovered: Recovered) -> bool:
        if not as_json:
            print_lines(recovered_lines(recovered))
            print_lines(plan_lines(shown), err=as_json)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise InputError(Problem("send", "there is no terminal to ask on", "add --yes"))
        return click.confirm(question(shown), default=False, err=True)

    def go_on(question: str) -> bool:
        return yes or not sys.stdin.isatty() or click.confirm(question, default=False, err=True)

    with opened_campaign(file, workspace, sandbox=sandbox, create=True, serve=True) as (campaign, ledger):
        cluster = _cluster(workers, scheduler, shared_ledger=ledger.shared)
        only = _digits(numbers, campaign.audience.default_region)
        options = SendOptions(limit, only, plan_hash, quiet=as_json, cluster=cluster)
        report = run_send(campaign, ledger, options, Ask(approve, go_on))
        if report is None:
            click.echo("Nothing was sent.")
            return ExitCode.OK
        if as_json:
            print_json(
                {
                    "campaign": campaign.name,
                    "plan": report.plan.hash,
                    "ending": report.ending.word,
                    "why": report.ending.why,
                    "sent_now": report.attempted,
                    "totals": {status.value: n for status, n in report.counts.by_status.items()},
                    "rows": report.counts.total,
                    "reconciled": report.written is not None and report.written.reconciled,
                    "files": [str(path) for path in report.written.paths.values()] if report.written else [],
                    "seconds": round(report.elapsed, 3),
                }
            )
        else:
            print_lines(send_lines(report, f"campaign send {file}" + (" --sandbox" if sandbox else "")))
        return report.exit_code


def _cluster(workers: int | None, scheduler: str | None, *, shared_ledger: bool) -> Cluster | None:
    if workers is None and scheduler is None:
        return None
    if workers is not None and scheduler is not None:
        raise click.UsageError(
            "--workers starts workers on this machine, --cluster uses those of a scheduler: choose one"
        )
    from runner.clusterplan import Cluster, check_cluster

    check_cluster(shared_ledger=shared_ledger)
    return Cluster(scheduler or "", workers or 0)


def _digits(numbers: tuple[str, ...], region: str | None) -> tuple[str, ...] | None:
    if not numbers:
        return None
    return tuple(read_numbers(numbers, region, "--to"))


# --- deciding -----------------------------------------------------------------------------------------------------------


@click.command(epilog="Example: campaign retry spring-sale --not-sent, then campaign send campaigns/spring.yaml")
@campaign_argument
@click.option("--rejected", is_flag=True, help="Rows that the provider refused.")
@click.option("--not-sent", is_flag=True, help="Rows that certainly were not sent.")
@click.option("--unknown", is_flag=True, help="Rows that may have been sent: some people may get the message twice.")
@click.option("--reason", help="Only rows with this reason word.")
@click.option("--accept-duplicates", is_flag=True, help="With --unknown: accept that some may get it twice.")
@sandbox_option
@workspace_option
def retry(
    campaign: str,
    rejected: bool,
    not_sent: bool,
    unknown: bool,
    reason: str | None,
    accept_duplicates: bool,
    sandbox: bool,
    workspace: Path | None,
) -> None:
    """Queue rows again by explicit choice; `campaign send` then sends them."""
    from runner.model import Status

    chosen = [
        status
        for status, wanted in ((Status.REJECTED, rejected), (Status.NOT_SENT, not_sent), (Status.UNKNOWN, unknown))
        if wanted
    ]
    if not chosen:
        raise click.UsageError("choose what to send again: --rejected, --not-sent or --unknown")
    with opened_ledger(campaign, workspace, sandbox=sandbox) as (place, ledger, name):
        record = ledger.campaign(name)
        with held_campaign(place, ledger, name, "campaign retry"):
            if unknown and not accept_duplicates:
                _accept_duplicates(ledger.counts(record.id)[Status.UNKNOWN])
            changed = ledger.requeue(record.id, chosen, reason, "duplicates accepted" if unknown else "by command")
    click.echo(f"{changed:,} rows are pending again. Send them with: campaign send (the campaign file of {name})")


def _accept_duplicates(count: int) -> None:
    phrase = "may be sent twice"
    if not sys.stdin.isatty():
        raise InputError(
            Problem(
                "--unknown",
                f"{count:,} people may already have the message",
                "add --accept-duplicates if that is acceptable",
            )
        )
    click.echo(
        f"{count:,} people may already have received this message; sending again may reach them twice.", err=True
    )
    if click.prompt(f"Type '{phrase}' to go on", err=True, default="", show_default=False) != phrase:
        raise InputError(Problem("--unknown", "not accepted; nothing was changed"))


@click.command(epilog="Example: campaign reconcile spring-sale")
@campaign_argument
@workspace_option
@json_option
def reconcile(campaign: str, workspace: Path | None, as_json: bool) -> int:
    """Ask the provider what became of the unknown rows. Proof moves a row to accepted; nothing is sent."""
    from runner.console import reconcile_lines
    from runner.outcome_files import write_outcome
    from runner.reconcile import reconcile as run_reconcile

    file = _campaign_file(campaign, workspace)
    with opened_campaign(file, workspace, sandbox=False, create=False) as (loaded, ledger):
        ledger.campaign(loaded.name)
        with held_campaign(loaded.workspace, ledger, loaded.name, "campaign reconcile"):
            found = run_reconcile(loaded, ledger)
            write_outcome(loaded.workspace, ledger, loaded.name)
    if as_json:
        open_rows = [row.row for row in found.open_rows]
        print_json({"asked": found.asked, "proved": found.proved, "unanswered": found.unanswered, "unknown": open_rows})
    else:
        print_lines(reconcile_lines(found, loaded.name))
    return ExitCode.UNFINISHED if found.open_rows else ExitCode.OK


def _campaign_file(campaign: str, workspace: Path | None) -> Path:
    """The campaign's file: as given, or as it was when last sent."""
    if campaign.endswith((".yaml", ".yml")):
        return Path(campaign)
    with opened_ledger(campaign, workspace, sandbox=False) as (place, ledger, name):
        return place.root / str(ledger.campaign(name).settings.get("file", ""))


@click.command(epilog="Example: campaign pause spring-sale")
@campaign_argument
@sandbox_option
@workspace_option
def pause(campaign: str, sandbox: bool, workspace: Path | None) -> None:
    """Stop a live run from another terminal, after the replies on the way. `campaign send` goes on."""
    with opened_ledger(campaign, workspace, sandbox=sandbox) as (_, ledger, name):
        ledger.set_state(ledger.campaign(name).id, "paused")
    click.echo(f"{name} is paused: a live run stops within a second or two. Go on with: campaign send")


@click.command(epilog="Example: campaign cancel spring-sale")
@campaign_argument
@sandbox_option
@workspace_option
def cancel(campaign: str, sandbox: bool, workspace: Path | None) -> None:
    """Give up everybody who has not been sent to yet."""
    from runner.errors import LockedError
    from runner.model import SkipReason

    with opened_ledger(campaign, workspace, sandbox=sandbox) as (place, ledger, name):
        record = ledger.campaign(name)
        ledger.set_state(record.id, "cancelled")
        try:
            with held_campaign(place, ledger, name, "campaign cancel"):
                changed = ledger.give_up(record.id, SkipReason.CANCELLED, "cancelled by command")
        except LockedError:
            click.echo(f"{name} is cancelled: the live run stops within a second or two and gives up the rest.")
            return
    click.echo(f"{name} is cancelled: {changed:,} rows are given up.")


@click.group()
def optout() -> None:
    """The workspace's list of people who must not be written to."""


@optout.command("add", epilog="Example: campaign optout add +12025550143")
@click.argument("numbers", nargs=-1, required=True)
@click.option("--region", help="Country of numbers without a country code, e.g. TR.")
@workspace_option
def optout_add(numbers: tuple[str, ...], region: str | None, workspace: Path | None) -> None:
    """Add numbers. A live run leaves them out from its next message on."""
    digits = read_numbers(numbers, region, "optout add")
    with _optouts(workspace) as ledger:
        added = ledger.suppress(digits, "campaign optout add")
    click.echo(f"{added:,} added, {len(set(digits)) - added:,} were there already")


@optout.command("import", epilog="Example: campaign optout import optouts.csv --region TR")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--region", help="Country of numbers without a country code, e.g. TR.")
@workspace_option
def optout_import(file: Path, region: str | None, workspace: Path | None) -> int:
    """Add a file's numbers: CSV, TSV or Excel, in any format. Entries that cannot be read are named."""
    from runner.phones import PhoneReader
    from runner.suppression import SuppressionFile

    numbers = SuppressionFile(file, PhoneReader(region))
    with _optouts(workspace) as ledger:
        digits = {entry.digits for entry in numbers.numbers()}
        added = ledger.suppress(sorted(digits), file.name)
    click.echo(f"{added:,} added, {len(digits) - added:,} were there already")
    for fault in numbers.faults[:20]:
        click.echo(str(numbers.problem(fault)), err=True)
    if numbers.fault_count:
        click.echo(f"{numbers.fault_count:,} entries could not be read and suppress nobody", err=True)
    return ExitCode.INPUT if numbers.fault_count else ExitCode.OK


@optout.command("list", epilog="Example: campaign optout list")
@workspace_option
def optout_list(workspace: Path | None) -> None:
    """Show the list."""
    from runner.moments import iso_text

    with opened_ledger(None, workspace, sandbox=False) as (_, ledger, _name):
        for phone, source, at in ledger.suppressions():
            click.echo(f"{phone}\t{iso_text(at)}\t{source}")


@contextmanager
def _optouts(workspace: Path | None) -> Iterator[SqlLedger]:
    from runner.ledger import open_ledger
    from runner.workspace import find_workspace

    ledger = open_ledger(find_workspace(None, workspace, ledger=chosen_ledger()).ledger_place(), create=True)
    try:
        yield ledger
    finally:
        ledger.close()
