"""The commands that only look: init, check, preview, plan, status, report, and the reference commands."""

from __future__ import annotations

from pathlib import Path

import click

from runner.clibase import (
    campaign_argument,
    file_argument,
    images_option,
    json_option,
    note,
    opened_campaign,
    opened_ledger,
    overviews,
    plan_json,
    print_json,
    print_lines,
    sandbox_option,
    show_plan,
    workspace_option,
)
from runner.errors import ExitCode, InputError, Problem

# --- looking ------------------------------------------------------------------------------------------------------------


@click.command(epilog="Example: campaign init spring")
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


@click.command(epilog="Example: campaign check campaigns/spring.yaml --images")
@file_argument
@click.option("--all", "everything", is_flag=True, help="Name every skipped row, not only the first ones.")
@images_option
@sandbox_option
@workspace_option
@json_option
def check(file: Path, everything: bool, images: bool, sandbox: bool, workspace: Path | None, as_json: bool) -> None:
    """Read everything, send nothing; report every problem."""
    from runner.console import check_lines
    from runner.plan import open_plan

    with (
        opened_campaign(file, workspace, sandbox=sandbox, create=False) as (campaign, ledger),
        open_plan(campaign, ledger, images=images, note=note) as (shown, staging),
    ):
        if as_json:
            problems = [[row.row, row.raw_phone, row.reason, row.detail] for row in staging.skipped()]
            print_json(plan_json(shown) | {"problems": problems})
        else:
            print_lines(check_lines(shown, staging.skipped(), campaign.audience.phone, everything=everything))


@click.command(epilog="Example: campaign preview campaigns/spring.yaml -n 10 --open")
@file_argument
@click.option("-n", "count", default=5, show_default=True, help="How many of the first messages to show.")
@click.option("--open", "open_page", is_flag=True, help="Open preview.html in the browser.")
@images_option
@sandbox_option
@workspace_option
def preview(file: Path, count: int, open_page: bool, images: bool, sandbox: bool, workspace: Path | None) -> None:
    """Dry run: what each recipient would get, on the terminal, as a web page and as a spreadsheet."""
    from runner.console import near, plan_lines, sample_lines
    from runner.plan import open_plan
    from runner.preview import write_preview

    with (
        opened_campaign(file, workspace, sandbox=sandbox, create=False) as (campaign, ledger),
        open_plan(campaign, ledger, images=images, branches=True, note=note) as (shown, staging),
    ):
        samples = staging.of_branches(shown.branches) | staging.samples(limit=count)
        print_lines(plan_lines(shown))
        print_lines(sample_lines(samples))
        written = write_preview(campaign, shown, staging, samples, images=images)
    click.echo(f"\nAs a web page: {near(written.page)}\nEvery row:     {near(written.book)}")
    if open_page:
        click.launch(str(written.page))


@click.command(
    epilog="Example: campaign plan campaigns/spring.yaml, then campaign send campaigns/spring.yaml --plan HASH"
)
@file_argument
@images_option
@sandbox_option
@workspace_option
@json_option
def plan(file: Path, images: bool, sandbox: bool, workspace: Path | None, as_json: bool) -> None:
    """The difference between the file and the ledger: who would be sent to, who not, and why."""
    show_plan(file, workspace, sandbox=sandbox, as_json=as_json, images=images)


@click.command(epilog="Examples: campaign status; campaign status spring-sale")
@click.argument("campaign", required=False)
@sandbox_option
@workspace_option
@json_option
def status(campaign: str | None, sandbox: bool, workspace: Path | None, as_json: bool) -> None:
    """Counts, pace, oldest in flight, unknowns."""
    from runner.clusterlook import cluster_json, partition_lines, sender_line
    from runner.console import status_lines
    from runner.ledger.base import now_us

    found = overviews(campaign, workspace, sandbox=sandbox)
    if as_json:
        print_json(
            [
                {
                    "campaign": each.view.campaign.name,
                    "provider": each.view.campaign.provider,
                    "state": each.view.campaign.state,
                    "totals": {key.value: n for key, n in each.view.counts.by_status.items()},
                    "rows": each.view.counts.total,
                    "plan": each.view.campaign.plan_hash,
                    "oldest_in_flight_at": each.view.oldest_in_flight or None,
                    **cluster_json(each.partitions, each.sender),
                }
                for each in found
            ]
        )
        return
    if not found:
        click.echo("No campaign has been sent from this workspace yet.")
    for number, each in enumerate(found):
        last_run = each.view.last_run
        running = last_run is not None and not last_run.finished_at
        print_lines(["", *status_lines(each.view, now_us(), sandbox=sandbox)][0 if number else 1 :])
        if each.partitions is not None:
            print_lines(partition_lines(each.partitions, now_us(), running=running))
        if running:
            print_lines([sender_line(each.sender)])


@click.command(epilog="Example: campaign report spring-sale")
@campaign_argument
@sandbox_option
@workspace_option
@json_option
def report(campaign: str, sandbox: bool, workspace: Path | None, as_json: bool) -> int:
    """(Re)write the result files from the ledger alone."""
    from runner.console import near
    from runner.outcome_files import write_outcome

    with opened_ledger(campaign, workspace, sandbox=sandbox) as (place, ledger, name):
        written = write_outcome(place, ledger, name)
    if as_json:
        click.echo(written.totals.to_json().decode(), nl=False)
    else:
        print_lines(near(path) for path in written.paths.values())
        print_lines(f"The totals do not reconcile: {text}" for text in written.totals.disagreements)
    return ExitCode.OK if written.reconciled else ExitCode.BUG


# --- reference ----------------------------------------------------------------------------------------------------------


@click.command(epilog="Example: campaign providers")
def providers() -> None:
    """The providers, their settings and abilities."""
    from runner.reference import provider_lines

    print_lines(provider_lines())


@click.command(epilog="Example: campaign schema > campaigns/campaign.schema.json")
def schema() -> None:
    """The JSON Schema of the campaign file, for completion in editors."""
    from runner.campaign import schema as campaign_schema

    print_json(campaign_schema())


@click.command(epilog="Example: campaign sandbox --port 8080 --scenario rough-day.yaml")
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
    print_lines(table(specials))
