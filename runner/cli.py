"""The `campaign` command: arguments in, text and exit code out. No decisions here.

Imports stand inside the commands: `campaign --help` must not wait for libraries that it does not use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from runner.errors import CampaignError, ExitCode, InputError, Problem

if TYPE_CHECKING:
    from runner.campaign import Campaign
    from runner.ledger.base import Recovered
    from runner.ledger.sql import SqlLedger
    from runner.plan import Plan
    from runner.workspace import Workspace

F = TypeVar("F", bound=Callable[..., object])

_workspace = click.option(
    "--workspace", type=click.Path(path_type=Path), help="The folder with campaigns/, templates/ and reports/."
)
_sandbox = click.option("--sandbox", is_flag=True, help="Practise: a stand-in provider and a ledger of its own.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of text.")
_file = click.argument("file", type=click.Path(path_type=Path))
_campaign = click.argument("campaign", metavar="CAMPAIGN")


def _print(lines: Iterable[str], *, err: bool = False) -> None:
    for line in lines:
        click.echo(line, err=err)


def _print_json(value: object) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: campaign init, then campaign check campaigns/hello.yaml",
)
@click.version_option(package_name="campaign-runner", prog_name="campaign")
def cli() -> None:
    """WhatsApp image campaigns from a YAML file and a spreadsheet.

    A campaign file says what should be true ("each of these people has received this message once"); `campaign send` makes it
    true and writes a result for every row. Running it again sends nothing twice.
    """


# --- opening ------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(
    file: Path, workspace: Path | None, *, sandbox: bool, create: bool, serve: bool = False
) -> Iterator[tuple[Campaign, SqlLedger]]:
    """The campaign and its ledger; with `serve`, a stand-in provider as well."""
    from runner.campaign import load_campaign
    from runner.ledger import open_ledger
    from runner.workspace import find_workspace

    place = find_workspace(file, workspace, sandbox=sandbox)
    with ExitStack() as stack:
        base_url = None
        if sandbox:
            base_url = "http://127.0.0.1:9"  # never reached: a plan opens no socket
        if serve and sandbox:
            from runner.sandbox import Sandbox, SandboxSettings

            base_url = stack.enter_context(Sandbox(SandboxSettings(keep_bodies=False)).in_thread()).url
        campaign = load_campaign(file, place, place.environment(), base_url)
        ledger = open_ledger(place.ledger_path, create=create)
        stack.callback(ledger.close)
        if sandbox:
            _share_optouts(place, ledger)
        yield campaign, ledger


def _share_optouts(place: Workspace, practice: SqlLedger) -> None:
    """Practice leaves out the people that the real thing would leave out."""
    from dataclasses import replace

    from runner.ledger import open_ledger

    real = open_ledger(replace(place, sandbox=False).ledger_path, create=False)
    try:
        practice.suppress((phone for phone, _, _ in real.suppressions()), "opt-out list")
    finally:
        real.close()


@contextmanager
def _ledger(
    campaign: str | None, workspace: Path | None, *, sandbox: bool
) -> Iterator[tuple[Workspace, SqlLedger, str]]:
    from runner.ledger import open_ledger
    from runner.workspace import campaign_name_from, find_workspace

    named_file = Path(campaign) if campaign is not None and campaign.endswith((".yaml", ".yml")) else None
    place = find_workspace(named_file, workspace, sandbox=sandbox)
    ledger = open_ledger(place.ledger_path, create=False)
    try:
        yield place, ledger, campaign_name_from(campaign) if campaign is not None else ""
    finally:
        ledger.close()


# --- looking ------------------------------------------------------------------------------------------------------------


@cli.command(epilog="Example: campaign init spring")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init(folder: Path) -> None:
    """Make a folder with a small campaign to start from."""
    import orjson

    from runner.campaign import schema
    from runner.scaffold import scaffold

    for path in scaffold(folder, orjson.dumps(schema(), option=orjson.OPT_INDENT_2)):
        click.echo(path)
    shown = folder / "campaigns" / "hello.yaml"
    click.echo(f"\nNext: campaign check {shown} --sandbox, then campaign send {shown} --sandbox")


@cli.command(epilog="Example: campaign check campaigns/spring.yaml")
@_file
@click.option("--all", "everything", is_flag=True, help="Name every skipped row, not only the first ones.")
@_sandbox
@_workspace
@_json
def check(file: Path, everything: bool, sandbox: bool, workspace: Path | None, as_json: bool) -> None:
    """Read everything, send nothing; report every problem."""
    from runner.console import plan_lines, skipped_lines
    from runner.plan import open_plan

    with (
        _opened(file, workspace, sandbox=sandbox, create=False) as (campaign, ledger),
        open_plan(campaign, ledger) as (plan, staging),
    ):
        if as_json:
            _print_json(
                _plan_json(plan) | {"problems": [[s.row, s.raw_phone, s.reason, s.detail] for s in staging.skipped()]}
            )
            return
        _print(plan_lines(plan))
        click.echo(
            f"Columns    used: {', '.join(plan.used)}" + (f"; unused: {', '.join(plan.unused)}" if plan.unused else "")
        )
        left_out = {"filtered", "suppressed"}
        bad = sum(n for reason, n in plan.difference.skipped.items() if reason not in left_out)
        if bad:
            click.echo(f"\n{bad:,} rows cannot be sent:")
            _print(skipped_lines(staging.skipped(), bad, campaign.audience.phone, everything=everything))
        else:
            click.echo("\nNo problems found.")


@cli.command(epilog="Example: campaign preview campaigns/spring.yaml -n 10")
@_file
@click.option("-n", "count", default=5, show_default=True, help="How many of the first messages to show.")
@_sandbox
@_workspace
def preview(file: Path, count: int, sandbox: bool, workspace: Path | None) -> None:
    """Dry run: what each recipient would get, on the terminal and as preview.xlsx."""
    from runner.console import near, plan_lines, sample_lines
    from runner.plan import open_plan
    from runner.previewbook import write_preview

    with (
        _opened(file, workspace, sandbox=sandbox, create=False) as (campaign, ledger),
        open_plan(campaign, ledger) as (plan, staging),
    ):
        _print(plan_lines(plan))
        _print(sample_lines(staging.samples(limit=count)))
        path = write_preview(campaign.workspace.folder(campaign.name), plan, staging.everything())
        click.echo(f"\nEvery row: {near(path)}")


@cli.command(
    epilog="Example: campaign plan campaigns/spring.yaml, then campaign send campaigns/spring.yaml --plan HASH"
)
@_file
@_sandbox
@_workspace
@_json
def plan(file: Path, sandbox: bool, workspace: Path | None, as_json: bool) -> None:
    """The difference between the file and the ledger: who would be sent to, who not, and why."""
    _show_plan(file, workspace, sandbox=sandbox, as_json=as_json)


def _show_plan(file: Path, workspace: Path | None, *, sandbox: bool, as_json: bool) -> None:
    from runner.console import plan_lines
    from runner.plan import open_plan

    with (
        _opened(file, workspace, sandbox=sandbox, create=False) as (campaign, ledger),
        open_plan(campaign, ledger) as (shown, _),
    ):
        if as_json:
            _print_json(_plan_json(shown))
        else:
            _print(plan_lines(shown))


def _plan_json(plan: Plan) -> dict[str, object]:
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
    }


# --- sending ------------------------------------------------------------------------------------------------------------


@cli.command(
    epilog="Examples: campaign send campaigns/spring.yaml; campaign send campaigns/spring.yaml --sandbox --yes; "
    "campaign send campaigns/spring.yaml --limit 20"
)
@_file
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.option("--plan", "plan_hash", metavar="HASH", help="Send only if the plan is still this one.")
@click.option("--limit", type=click.IntRange(1), help="Send to at most so many recipients this time.")
@click.option(
    "--to", "numbers", multiple=True, metavar="PHONE", help="Send only to this number of the audience (repeatable)."
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@_sandbox
@_workspace
@_json
def send(
    file: Path,
    yes: bool,
    plan_hash: str | None,
    limit: int | None,
    numbers: tuple[str, ...],
    dry_run: bool,
    sandbox: bool,
    workspace: Path | None,
    as_json: bool,
) -> int:
    """Plan, confirm, send. Running it again goes on where it stopped, and sends nothing twice."""
    from runner.console import plan_lines, question, recovered_lines, send_lines
    from runner.run import SendOptions
    from runner.run import send as run_send

    if dry_run:
        _show_plan(file, workspace, sandbox=sandbox, as_json=as_json)
        return ExitCode.OK

    def approve(shown: Plan, recovered: Recovered) -> bool:
        if not as_json:
            _print(recovered_lines(recovered))
            _print(plan_lines(shown), err=as_json)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise InputError(Problem("send", "there is no terminal to ask on", "add --yes"))
        return click.confirm(question(shown), default=False, err=True)

    with _opened(file, workspace, sandbox=sandbox, create=True, serve=True) as (campaign, ledger):
        options = SendOptions(limit, _digits(numbers, campaign.audience.default_region), plan_hash, quiet=as_json)
        report = run_send(campaign, ledger, options, approve)
        if report is None:
            click.echo("Nothing was sent.")
            return ExitCode.OK
        if as_json:
            _print_json(
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
            _print(send_lines(report, f"campaign send {file}" + (" --sandbox" if sandbox else "")))
        return report.exit_code


def _digits(numbers: tuple[str, ...], region: str | None) -> tuple[str, ...] | None:
    if not numbers:
        return None
    return tuple(_read_numbers(numbers, region, "--to"))


def _read_numbers(texts: Iterable[str], region: str | None, where: str) -> list[str]:
    from runner.phones import Phone, PhoneReader

    reader = PhoneReader(region)
    read = [(text, reader.read(text)) for text in texts]
    problems = [Problem(f"{where} {text}", phone.detail) for text, phone in read if not isinstance(phone, Phone)]
    if problems:
        raise InputError(*problems)
    return [phone.digits for _, phone in read if isinstance(phone, Phone)]


@cli.command(epilog="Examples: campaign status; campaign status spring-sale")
@click.argument("campaign", required=False)
@_sandbox
@_workspace
@_json
def status(campaign: str | None, sandbox: bool, workspace: Path | None, as_json: bool) -> None:
    """Counts, pace, oldest in flight, unknowns."""
    from runner.console import status_lines
    from runner.ledger.sql import now_us

    with _ledger(campaign, workspace, sandbox=sandbox) as (_, ledger, name):
        views = [ledger.status(known) for known in ([name] if name else ledger.campaigns())]
    if as_json:
        _print_json(
            [
                {
                    "campaign": view.campaign.name,
                    "provider": view.campaign.provider,
                    "state": view.campaign.state,
                    "totals": {key.value: n for key, n in view.counts.by_status.items()},
                    "rows": view.counts.total,
                    "plan": view.campaign.plan_hash,
                }
                for view in views
            ]
        )
        return
    if not views:
        click.echo("No campaign has been sent from this workspace yet.")
    for view in views:
        _print(status_lines(view, now_us()))


@cli.command(epilog="Example: campaign report spring-sale")
@_campaign
@_sandbox
@_workspace
@_json
def report(campaign: str, sandbox: bool, workspace: Path | None, as_json: bool) -> int:
    """(Re)write the result files from the ledger alone."""
    from runner.console import near
    from runner.outcome_files import write_outcome

    with _ledger(campaign, workspace, sandbox=sandbox) as (place, ledger, name):
        written = write_outcome(place, ledger, name)
    if as_json:
        click.echo(written.totals.to_json().decode(), nl=False)
    else:
        _print(near(path) for path in written.paths.values())
        _print(f"The totals do not reconcile: {text}" for text in written.totals.disagreements)
    return ExitCode.OK if written.reconciled else ExitCode.BUG


# --- deciding -----------------------------------------------------------------------------------------------------------


@cli.command(epilog="Example: campaign retry spring-sale --not-sent, then campaign send campaigns/spring.yaml")
@_campaign
@click.option("--rejected", is_flag=True, help="Rows that the provider refused.")
@click.option("--not-sent", is_flag=True, help="Rows that certainly were not sent.")
@click.option("--unknown", is_flag=True, help="Rows that may have been sent: some people may get the message twice.")
@click.option("--reason", help="Only rows with this reason word.")
@click.option("--accept-duplicates", is_flag=True, help="With --unknown: accept that some may get it twice.")
@_sandbox
@_workspace
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
    from runner.lock import campaign_lock
    from runner.model import Status

    chosen = [
        status
        for status, wanted in ((Status.REJECTED, rejected), (Status.NOT_SENT, not_sent), (Status.UNKNOWN, unknown))
        if wanted
    ]
    if not chosen:
        raise click.UsageError("choose what to send again: --rejected, --not-sent or --unknown")
    with _ledger(campaign, workspace, sandbox=sandbox) as (place, ledger, name):
        record = ledger.campaign(name)
        with campaign_lock(place.folder(name), name, "campaign retry"):
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


@cli.command(epilog="Example: campaign pause spring-sale")
@_campaign
@_sandbox
@_workspace
def pause(campaign: str, sandbox: bool, workspace: Path | None) -> None:
    """Stop a live run from another terminal, after the replies on the way. `campaign send` goes on."""
    with _ledger(campaign, workspace, sandbox=sandbox) as (_, ledger, name):
        ledger.set_state(ledger.campaign(name).id, "paused")
    click.echo(f"{name} is paused: a live run stops within a second or two. Go on with: campaign send")


@cli.command(epilog="Example: campaign cancel spring-sale")
@_campaign
@_sandbox
@_workspace
def cancel(campaign: str, sandbox: bool, workspace: Path | None) -> None:
    """Give up everybody who has not been sent to yet."""
    from runner.errors import LockedError
    from runner.lock import campaign_lock
    from runner.model import SkipReason

    with _ledger(campaign, workspace, sandbox=sandbox) as (place, ledger, name):
        record = ledger.campaign(name)
        ledger.set_state(record.id, "cancelled")
        try:
            with campaign_lock(place.folder(name), name, "campaign cancel"):
                changed = ledger.give_up(record.id, SkipReason.CANCELLED, "cancelled by command")
        except LockedError:
            click.echo(f"{name} is cancelled: the live run stops within a second or two and gives up the rest.")
            return
    click.echo(f"{name} is cancelled: {changed:,} rows are given up.")


@cli.group()
def optout() -> None:
    """The workspace's list of people who must not be written to."""


@optout.command("add", epilog="Example: campaign optout add +12025550143")
@click.argument("numbers", nargs=-1, required=True)
@click.option("--region", help="Country of numbers without a country code, e.g. TR.")
@_workspace
def optout_add(numbers: tuple[str, ...], region: str | None, workspace: Path | None) -> None:
    """Add numbers. A live run leaves them out from its next message on."""
    digits = _read_numbers(numbers, region, "optout add")
    with _optouts(workspace) as ledger:
        added = ledger.suppress(digits, "campaign optout add")
    click.echo(f"{added:,} added, {len(set(digits)) - added:,} were there already")


@optout.command("import", epilog="Example: campaign optout import optouts.csv --region TR")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--region", help="Country of numbers without a country code, e.g. TR.")
@_workspace
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
@_workspace
def optout_list(workspace: Path | None) -> None:
    """Show the list."""
    from runner.moments import iso_text

    with _ledger(None, workspace, sandbox=False) as (_, ledger, _name):
        for phone, source, at in ledger.suppressions():
            click.echo(f"{phone}\t{iso_text(at)}\t{source}")


@contextmanager
def _optouts(workspace: Path | None) -> Iterator[SqlLedger]:
    from runner.ledger import open_ledger
    from runner.workspace import find_workspace

    ledger = open_ledger(find_workspace(None, workspace).ledger_path, create=True)
    try:
        yield ledger
    finally:
        ledger.close()


# --- reference ----------------------------------------------------------------------------------------------------------


@cli.command(epilog="Example: campaign providers")
def providers() -> None:
    """The providers, their settings and abilities."""
    from runner.reference import provider_lines

    _print(provider_lines())


@cli.command(epilog="Example: campaign schema > campaigns/campaign.schema.json")
def schema() -> None:
    """The JSON Schema of the campaign file, for completion in editors."""
    from runner.campaign import schema as campaign_schema

    _print_json(campaign_schema())


@cli.command(epilog="Example: campaign sandbox --port 8080 --scenario rough-day.yaml")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, help="0: any free port.")
@click.option("--scenario", type=click.Path(path_type=Path), help="A file that says how the stand-in misbehaves.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Append every request as a JSON line.")
def sandbox(host: str, port: int, scenario: Path | None, log_file: Path | None) -> None:
    """Run the stand-in provider server until Ctrl-C."""
    from runner.sandbox import MAGIC, SandboxSettings, Scenario, ScenarioError, read_scenario, run

    try:
        behaviour = read_scenario(scenario) if scenario is not None else Scenario()
        settings = SandboxSettings(host=host, port=port, log_file=log_file, scenario=behaviour)
        specials = [(digits, action.says) for digits, action in MAGIC.items()]
        run(settings, on_ready=lambda url: _sandbox_help(url, specials))
    except ScenarioError as error:
        raise InputError(Problem(str(scenario or "sandbox"), str(error))) from None
    except OSError as error:
        raise InputError(
            Problem(f"{host}:{port}", f"cannot listen there: {error.strerror}", "choose another --port")
        ) from None


def _sandbox_help(url: str, specials: list[tuple[str, str]]) -> None:
    from runner.console import table

    click.echo(f"Sandbox at {url} (Ctrl-C ends it). Set base_url: {url} in a campaign's provider block.")
    click.echo(f"What it received: {url}/_sandbox/messages")
    click.echo("Numbers that end in these digits are special:")
    _print(table(specials))


def main() -> None:
    """The console script: every ending of the program passes through here."""
    sys.exit(_run())


def _run() -> int:
    try:
        result = cli.main(standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.OK
    except click.ClickException as error:
        error.show()
        return ExitCode.INPUT
    except click.exceptions.Abort:
        click.echo("\nstopped", err=True)
        return ExitCode.INTERRUPTED
    except InputError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        if len(error.problems) > 1:
            click.echo(f"{len(error.problems)} problems; nothing was sent", err=True)
        return error.exit_code
    except CampaignError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("\nstopped", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; Python would complain once more at the end
        return ExitCode.OK
    except Exception as error:
        return _bug(error)


def _bug(error: Exception) -> int:
    """Our own fault: where to find the details. Neither messages nor values of the exception, which may hold secrets."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="campaign-fault-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + "\n")
    click.echo(
        f"This is a fault of the program ({type(error).__name__}), not of your files. What was sent is in the ledger; running the "
        f"same command again goes on from there.\nPlease report it with the file {file.name}",
        err=True,
    )
    return ExitCode.BUG


if __name__ == "__main__":
    main()
