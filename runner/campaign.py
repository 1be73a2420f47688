"""One YAML file -> one checked, frozen Campaign. Every problem is found in one go, each with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from pydantic import SecretStr

from runner.account import SANDBOX_NUMBER, SANDBOX_TOKEN, read_provider, read_settings, refuse_variables
from runner.campaignfile import AudienceBlock, CampaignModel, MessageBlock, ReportBlock, SendBlock, schema
from runner.complaints import validate
from runner.errors import InputError, Problem
from runner.moments import parse_moment
from runner.providers.base import Provider, ProviderSettings
from runner.units import Rate, parse_duration, parse_rate
from runner.workspace import SANDBOX_SUFFIX, Workspace
from runner.yamlfile import KeyPath, Tree, YamlFile, read_yaml

__all__ = ["SANDBOX_NUMBER", "SANDBOX_TOKEN", "Campaign", "load_campaign", "schema"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_BEGINNING = "a campaign file begins with a line such as campaign: spring-sale; see: campaign init"


@dataclass(frozen=True)
class Campaign:
    """A checked campaign file. Times are Unix seconds, durations seconds."""

    name: str
    file: YamlFile
    workspace: Workspace
    provider: Provider[ProviderSettings]
    settings: ProviderSettings
    audience: AudienceBlock
    audience_path: Path
    suppress_paths: tuple[Path, ...]
    message: MessageBlock
    variables: Mapping[str, str | int | float | bool]
    send: SendBlock
    report: ReportBlock
    rates: tuple[Rate, ...]
    concurrency: int
    start_at: float | None
    deadline: float | None  # absolute
    deadline_after: float | None  # relative to the start of a run
    scheduled_at: int | None

    @property
    def path(self) -> Path:
        """The campaign file."""
        return self.file.path

    def public_settings(self) -> dict[str, str | int | float | bool | None]:
        """The provider block without its secrets, for plans and reports."""
        fields = type(self.settings).model_fields
        values = {name: getattr(self.settings, name) for name in fields}
        return {name: value for name, value in values.items() if not isinstance(value, SecretStr)}


def load_campaign(path: Path, workspace: Workspace, env: Mapping[str, str], base_url: str | None = None) -> Campaign:
    """Read and check a campaign file. Raises InputError with every problem found.

    `base_url` replaces the provider's address (the sandbox); unset secrets are then stood in for, since nothing real is reached.
    """
    file = read_yaml(path)
    tree = file.tree
    if tree is None:
        raise InputError(Problem(path.name, "is empty", _BEGINNING))
    if not isinstance(tree, dict):
        what = "is a list" if isinstance(tree, list) else "is plain text"
        raise InputError(Problem(path.name, f"{what}, not a campaign file", _BEGINNING))
    checks = _Checks(file, workspace)
    checks.blanks(tree, ())
    refuse_variables(tree, (), file, checks.problems)
    model = validate(CampaignModel, tree, (), file, checks.problems)
    provider = read_provider(tree, file, checks.problems)
    settings, block = None, tree.get("provider")
    if provider is not None and isinstance(block, dict):
        settings = read_settings(provider, block, file, env, base_url, checks.problems)
    campaign = checks.campaign(model, provider, settings) if model is not None else None
    if checks.problems or campaign is None:
        raise InputError(*_in_order(checks.problems))
    return campaign


def _in_order(problems: list[Problem]) -> list[Problem]:
    def place(problem: Problem) -> tuple[int, int]:
        match = re.search(r":(\d+):(\d+)", problem.where)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    return sorted(dict.fromkeys(problems), key=place)


class _Checks:
    """What the models cannot see: one key against another, the workspace, the clock's zones."""

    def __init__(self, file: YamlFile, workspace: Workspace) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._workspace = workspace

    def _say(self, key: KeyPath, what: str, fix: str = "") -> None:
        self.problems.append(Problem(self._file.where(key), what, fix))

    def blanks(self, tree: Tree, path: KeyPath) -> None:
        """A key without a value is not "as if it were not there": a blank `where:` would send to everybody."""
        if tree is None:
            self._say(path, "has no value", "give it one, or take the line out")
        for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
            self.blanks(child, (*path, key))

    def campaign(
        self,
        model: CampaignModel,
        provider: Provider[ProviderSettings] | None,
        settings: ProviderSettings | None,
    ) -> Campaign | None:
        """The campaign, or None when there are problems."""
        self._name(model.campaign)
        self._caption(model.message)
        send = model.send
        zone = self._zone(send.timezone)
        start_at = self._moment(send.start_at, "start_at", zone)
        deadline, deadline_after = self._deadline(send.deadline, zone)
        scheduled_at = self._scheduled(send.scheduled_time, zone, provider)
        if start_at is not None and deadline is not None and deadline <= start_at:
            self._say(
                ("send", "deadline"),
                f"{send.deadline!r} is not after start_at ({send.start_at!r}): nothing could be sent",
                "move one of the two",
            )
        audience_path = self._path(model.audience.file, ("audience", "file"))
        suppress = [
            self._path(name, ("audience", "suppress", index)) for index, name in enumerate(model.audience.suppress)
        ]
        if self.problems or audience_path is None or provider is None or settings is None:
            return None
        return Campaign(
            name=model.campaign,
            file=self._file,
            workspace=self._workspace,
            provider=provider,
            settings=settings,
            audience=model.audience,
            audience_path=audience_path,
            suppress_paths=tuple(path for path in suppress if path is not None),
            message=model.message,
            variables=model.vars,
            send=send,
            report=model.report,
            rates=send.rate if send.rate is not None else (parse_rate(provider.abilities.default_rate),),
            concurrency=send.concurrency or provider.abilities.default_concurrency,
            start_at=start_at,
            deadline=deadline,
            deadline_after=deadline_after,
            scheduled_at=scheduled_at,
        )

    def _name(self, name: str) -> None:
        """It names a folder under reports/, where practice has the suffix."""
        if (_NAME.fullmatch(name) and not name.endswith(SANDBOX_SUFFIX)) or "${" in name:  # that has been said
            return
        rule = f"use small letters, digits, - and _ (at most 64, not ending in {SANDBOX_SUFFIX})"
        better = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:64].removesuffix(SANDBOX_SUFFIX)
        example = better if _NAME.fullmatch(better) else "spring-sale"
        self._say(("campaign",), f"{name!r} cannot be a campaign's name", f"{rule}, such as {example}")

    def _caption(self, message: MessageBlock) -> None:
        if message.template is not None and message.caption is not None:
            self._say(("message", "caption"), "stands beside template; only one of them can be sent", "remove one")
        elif message.template is None and message.caption is None:
            self._say(
                ("message",),
                "has neither template nor caption",
                'add caption: "Hello {{ Name }}!", or template: and the name of a file in templates/',
            )

    def _path(self, name: str, key: KeyPath) -> Path | None:
        where = self._file.where(key)
        try:
            path = self._workspace.resolve(name, base=self._file.path.resolve().parent, where=where)
        except InputError as error:
            self.problems.extend(error.problems)
            return None
        if path.is_dir():
            self._say(key, f"{name!r} is a folder, not a file", _name_in(path, Path(name)))
            return None
        if not path.exists():
            self._say(key, f"there is no file {name!r} (looked for in {path.parent})", _near_file(path, Path(name)))
            return None
        return path

    def _zone(self, name: str | None) -> ZoneInfo | None:
        if name is None:
            return None
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            known = {zone.lower(): zone for zone in available_timezones()}
            near = get_close_matches(name.lower().replace(" ", "_"), known, n=1, cutoff=0.7)
            fix = f"did you mean {known[near[0]]}?" if near else "write it like Europe/Istanbul, or UTC"
            self._say(("send", "timezone"), f"{name!r} is no time zone", fix)
            return None

    def _moment(self, text: str | None, key: str, zone: ZoneInfo | None) -> float | None:
        if text is None:
            return None
        try:
            return parse_moment(text, zone)
        except ValueError as error:
            what, _, fix = str(error).partition("; ")
            self._say(("send", key), what, fix)
            return None

    def _deadline(self, text: str | None, zone: ZoneInfo | None) -> tuple[float | None, float | None]:
        if text is None:
            return None, None
        try:
            after = parse_duration(text)
        except ValueError:
            if any(sign in text for sign in "-:"):
                return self._moment(text, "deadline", zone), None
            self._say(
                ("send", "deadline"),
                f"{text!r} is neither a date-time nor a duration",
                "write it like 2026-12-01 20:00, or like 3h",
            )
            return None, None
        if after == 0:
            self._say(("send", "deadline"), f"{text!r} leaves no time to send anything", "write it like 3h")
        return None, after

    def _scheduled(
        self, text: str | None, zone: ZoneInfo | None, provider: Provider[ProviderSettings] | None
    ) -> int | None:
        if text is None or provider is None:
            return None
        if not provider.abilities.schedules:
            self._say(
                ("send", "scheduled_time"),
                f"{provider.abilities.title} cannot send at a later time by itself",
                "use start_at instead: the runner then waits",
            )
            return None
        if "{{" in text or "{%" in text:
            return None  # one for each row
        moment = self._moment(text, "scheduled_time", zone)
        return int(moment) if moment is not None else None


def _name_in(folder: Path, name: Path) -> str:
    files = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in {".csv", ".tsv", ".xlsx"})
    return f"name a file in it, such as {name / files[0]}" if files else "name the file itself"


def _near_file(path: Path, name: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {name.parent} either; paths begin at the campaign file"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    near = get_close_matches(path.name, names, n=1)
    return f"did you mean {name.parent / near[0]}?" if near else "check the name; paths begin at the campaign file"
