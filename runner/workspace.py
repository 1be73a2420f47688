"""Where things lie: one folder holds campaigns, templates, reports, and the ledger."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import InputError, Problem

SANDBOX_SUFFIX = "-sandbox"
LEDGER_VARIABLE = "CAMPAIGN_LEDGER"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with `campaigns/`, `templates/` and `reports/`. `sandbox` keeps practice apart from the real thing.

    `ledger` is where the ledger was said to be, '' for nowhere: a path, or an address that may hold a password.
    """

    root: Path
    sandbox: bool = False
    ledger: str = field(default="", repr=False)

    @property
    def templates(self) -> Path:
        """Caption templates."""
        return self.root / "templates"

    @property
    def reports(self) -> Path:
        """Everything the program writes."""
        return self.root / "reports"

    @property
    def ledger_path(self) -> Path:
        """The embedded ledger. Practice has its own, so that it never marks real people as sent."""
        return self.reports / ("sandbox.sqlite3" if self.sandbox else "ledger.sqlite3")

    def ledger_place(self) -> Path | str:
        """Where the ledger is: what was asked for, else CAMPAIGN_LEDGER (environment or `.env`), else the embedded one.

        A path is relative to the current folder, that in CAMPAIGN_LEDGER to the workspace. Practice always stays in the
        embedded one of its own. Raises InputError when `.env` cannot be read.
        """
        if self.sandbox:
            return self.ledger_path
        chosen, base = self.ledger, Path.cwd()
        if not chosen:
            chosen, base = self.environment().get(LEDGER_VARIABLE, ""), self.root
        if not chosen:
            return self.ledger_path
        return chosen if "://" in chosen else base / Path(chosen).expanduser()

    def folder(self, campaign: str) -> Path:
        """`reports/<campaign>/`; practice results lie beside the real ones, never over them."""
        return self.reports / (campaign + (SANDBOX_SUFFIX if self.sandbox else ""))

    def environment(self) -> dict[str, str]:
        """The process environment over the values of the workspace's `.env` (the environment wins).

        Raises InputError when `.env` cannot be read. Windows editors begin it with a byte order mark, which is no part
        of the first name.
        """
        dotenv = self.root / ".env"
        values: dict[str, str | None] = {}
        try:
            if dotenv.is_file():
                from dotenv import (
                    dotenv_values,  # most workspaces have no such file, and quick commands do not wait for it
                )

                values = dotenv_values(dotenv, interpolate=False, encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(Problem(str(dotenv), "is not UTF-8 text", "save it as UTF-8 in your editor")) from None
        except OSError as error:
            raise InputError(
                Problem(str(dotenv), f"cannot be read: {error.strerror}", "check the file's permissions")
            ) from None
        return {key: value for key, value in values.items() if value is not None} | dict(os.environ)

    def warnings(self) -> tuple[str, ...]:
        """What a person should know about the workspace: that other users of this machine can read the secrets."""
        dotenv = self.root / ".env"
        if os.name != "posix":
            return ()
        try:
            open_to_others = dotenv.stat().st_mode & 0o077
        except OSError:  # not there, or out of reach: `environment` says what is wrong with it
            return ()
        return ("other users of this machine can read the secrets in .env: chmod 600 .env",) if open_to_others else ()

    def resolve(self, name: str, *, base: Path, where: str) -> Path:
        """A path named in a campaign file, relative to `base`. Raises InputError when it leads out of the workspace."""
        if "\0" in name:
            raise InputError(Problem(where, f"{name!r} holds a NUL character", "write the name again"))
        path = (base / name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise InputError(
                Problem(
                    where,
                    f"{name!r} lies outside the workspace ({self.root})",
                    "copy it beside the campaign file, or name a folder that holds both: --workspace FOLDER",
                )
            )
        return path


def find_workspace(
    campaign_file: Path | None, override: Path | None, *, sandbox: bool = False, ledger: str = ""
) -> Workspace:
    """The parent of the `campaigns/` folder that holds the file, else the file's own folder; `override` wins.

    Without a file (status, report ...): the current folder.
    """
    if override is not None:
        if not override.is_dir():
            raise InputError(Problem(str(override), "no such folder", "give an existing folder to --workspace"))
        return Workspace(override.resolve(), sandbox, ledger)
    if campaign_file is None:
        here = Path.cwd()
        return Workspace(here.parent if here.name == "campaigns" else here, sandbox, ledger)
    folder = campaign_file.resolve().parent
    for parent in (folder, *folder.parents):
        if parent.name == "campaigns":
            return Workspace(parent.parent, sandbox, ledger)
    return Workspace(folder, sandbox, ledger)


def campaign_name_from(text: str) -> str:
    """The CAMPAIGN argument of a command: a name, or the path of a campaign file whose name is wanted."""
    if not text.endswith((".yaml", ".yml")):
        return text
    try:
        match = re.search(r"^campaign:\s*[\"']?([A-Za-z0-9._-]+)", Path(text).read_text("utf-8-sig"), re.MULTILINE)
    except OSError as error:
        raise InputError(Problem(text, f"cannot be read: {error.strerror}", "check the name")) from None
    except UnicodeDecodeError:
        raise InputError(Problem(text, "is not UTF-8 text", "save it as UTF-8 in your editor")) from None
    if match is None:
        raise InputError(Problem(text, "names no campaign", "the file needs a line such as 'campaign: spring-sale'"))
    return match[1]
