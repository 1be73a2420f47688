"""The `campaign` command: arguments in, text and exit code out. No decisions here.

Imports stand inside the commands: `campaign --help` must not wait for libraries that it does not use.
"""

from __future__ import annotations

import sys

import click

from runner import cliledger, clilook, clisend
from runner.errors import CampaignError, ExitCode, InputError
from runner.signals import end_orderly_on_signals

PROBLEMS_SHOWN = 40


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


for _command in (
    clilook.init,
    clilook.check,
    clilook.preview,
    clilook.plan,
    clisend.send,
    clilook.status,
    clilook.report,
    clisend.retry,
    clisend.reconcile,
    clisend.pause,
    clisend.cancel,
    clisend.optout,
    cliledger.ledger,
    clilook.providers,
    clilook.schema,
    clilook.sandbox,
):
    cli.add_command(_command)


def main() -> None:
    """The console script: every ending of the program passes through here."""
    end_orderly_on_signals()
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
        for problem in error.problems[:PROBLEMS_SHOWN]:
            click.echo(str(problem), err=True)
        if len(error.problems) > 1:
            more = ", the first are shown" if len(error.problems) > PROBLEMS_SHOWN else ""
            click.echo(f"{len(error.problems)} problems{more}; nothing was sent", err=True)
        return error.exit_code
    except CampaignError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("\nstopped; nothing is lost, the same command goes on from here", err=True)
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
