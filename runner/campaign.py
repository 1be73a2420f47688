"""One YAML file -> one checked, frozen Campaign. Every problem is found in one go, each with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, WithJsonSchema

from runner.errors import InputError, Problem
from runner.moments import parse_moment
from runner.phones import check_region
from runner.providers import PROVIDERS
from runner.providers.base import Provider, ProviderSettings
from runner.units import Rate, parse_duration, parse_rate
from runner.workspace import SANDBOX_SUFFIX, Workspace
from runner.yamlfile import KeyPath, Tree, YamlFile, read_yaml

UNLIMITED = "unlimited"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SANDBOX_TOKEN = "sandbox-token"  # noqa: S105 - stands in for an unset secret when nothing real can be reached

SANDBOX_NUMBER = "100000000000000"  # likewise for an unset account number


def _rates(value: object) -> tuple[Rate, ...]:
    if value == UNLIMITED:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    if not items:
        raise ValueError(f"an empty list; name at least one limit, such as 10/min, or write {UNLIMITED}")
    rates = []
    for item in items:
        if isinstance(item, Rate):
            rates.append(item)
        elif isinstance(item, str):
            rates.append(parse_rate(item))
        else:
            raise ValueError(f"{item!r} has no unit; write a whole number and a unit, such as 20/s, 10/min or 500/h")  # noqa: TRY004 - pydantic wants ValueError
    return tuple(sorted(rates, key=lambda rate: rate.window))


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"{value!r} has no unit; write a duration such as 30s, 5min or 2h")


def _region(value: object) -> str:
    if isinstance(value, str) and check_region(value):
        return value
    near = f" (did you mean {value.upper()}?)" if isinstance(value, str) and check_region(value.upper()) else ""
    raise ValueError(f"{value!r} is not a two-letter country code such as TR, DE or US{near}")


_DURATION_TEXT = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|min|h|day)$", "examples": ["30s", "5min", "2h"]}
_RATE_TEXT = {"type": "string", "pattern": r"^(\d+\s*/\s*(s|min|h|day)|unlimited)$", "examples": ["20/s", "10/min"]}

Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema(_DURATION_TEXT)]
Rates = Annotated[
    tuple[Rate, ...],
    BeforeValidator(_rates),
    WithJsonSchema({"anyOf": [_RATE_TEXT, {"type": "array", "items": _RATE_TEXT, "minItems": 1}]}),
]
Region = Annotated[str, BeforeValidator(_region), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}$"})]
Text = Annotated[str, Field(min_length=1)]


class Block(BaseModel):
    """A block of the campaign file: unknown keys are errors, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AudienceBlock(Block):
    """Who is to receive the message."""

    file: Text = Field(description="The spreadsheet: .csv, .tsv or .xlsx, relative to the campaign file.")
    sheet: Text | None = Field(None, description="Excel only: the sheet's name. Default: the first visible sheet.")
    encoding: Text | None = Field(None, description="CSV only: the encoding, when it cannot be told from the file.")
    delimiter: Text | None = Field(None, description="CSV only: the delimiter, when it cannot be told from the file.")
    phone: Text = Field(description="The column that holds the phone number.")
    default_region: Region | None = Field(
        None,
        description="Country of numbers without a country code. Without it a national number is an error, never a guess.",
    )
    allowed_countries: list[Region] | None = Field(
        None, description="Numbers of any other country are skipped (wrong_country).", min_length=1
    )
    where: Text | None = Field(
        None, description="A Jinja expression over the row's columns; rows where it is false are skipped (filtered)."
    )
    duplicates: Literal["first", "last", "error"] = Field(
        "first", description="Which row of several with the same (normalised) number is sent; error refuses the file."
    )
    suppress: list[Text] = Field(
        [], description="Files of numbers that must not be written to (opt-outs), relative to the campaign file."
    )


class MessageBlock(Block):
    """What they receive."""

    image: Text = Field(description="The image's http(s) address; a Jinja template over the row's columns.")
    template: Text | None = Field(None, description="The caption: a file in templates/. Give this or caption.")
    caption: str | None = Field(None, description="The caption: Jinja text written here. Give this or template.")


class SendBlock(Block):
    """How fast, how long, and what to do about failures."""

    rate: Rates | None = Field(
        None,
        description="At most so many requests in any sliding window: n/s, n/min, n/h or n/day; a list stacks several limits; "
        "'unlimited' lifts the limit. Default: the provider's polite rate.",
    )
    concurrency: int | None = Field(
        None, description="Requests in flight at most. Default: the provider's.", ge=1, le=1000
    )
    timeout: Duration = Field(
        30.0, description="One request's time, from connecting to the last byte of the reply.", gt=0
    )
    retries: int = Field(
        5,
        description="Further attempts for a message that certainly was not sent. An unknown outcome is never retried.",
        ge=0,
        le=100,
    )
    backoff: Duration = Field(
        1.0, description="First wait before another attempt; doubles each time, with jitter, up to 1 min.", gt=0
    )
    start_at: Text | None = Field(
        None, description="Wait until this date-time before the first message (2026-12-01 09:00)."
    )
    deadline: Text | None = Field(
        None,
        description="A date-time, or a duration from the start of the run; rows not sent by then are not sent (expired).",
    )
    timezone: Text | None = Field(None, description="Zone of date-times written without one, e.g. Europe/Istanbul.")
    scheduled_time: Text | None = Field(
        None,
        description="When the provider is to send the message by itself (where it can): a date-time, or a template such as "
        "'{{ send_at }}' over the row's columns.",
    )


class ReportBlock(Block):
    """What is written afterwards."""

    formats: list[Literal["xlsx", "csv"]] = Field(["xlsx", "csv"], description="Result files to write.", min_length=1)


class CampaignModel(Block):
    """A campaign file: each of these people has received this message once."""

    campaign: Text = Field(
        description="The campaign's identity: a recipient gets a campaign at most once, for ever. Small letters, digits, - and _."
    )
    provider: dict[str, str | int | float | bool | None] = Field(description="The WhatsApp provider and its account.")
    audience: AudienceBlock
    message: MessageBlock
    vars: dict[str, str | int | float | bool] = Field(
        {}, description="Values for the templates, the same for everybody."
    )
    send: SendBlock = SendBlock()
    report: ReportBlock = ReportBlock()


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
    if not isinstance(file.tree, dict):
        raise InputError(
            Problem(path.name, "is not a campaign file", "it starts with a line such as 'campaign: spring-sale'")
        )
    problems: list[Problem] = []
    _refuse_stray_variables(file.tree, (), file, problems)
    model = _validate(CampaignModel, file.tree, (), file, problems)
    provider = _provider(file.tree.get("provider"), file, problems)
    settings = _provider_settings(provider, file, env, base_url, problems) if provider is not None else None
    if model is None or provider is None or settings is None:
        raise InputError(*_in_order(problems))
    campaign = _assemble(model, file, workspace, provider, settings, problems)
    if problems or campaign is None:
        raise InputError(*_in_order(problems))
    return campaign


def _in_order(problems: list[Problem]) -> list[Problem]:
    def line(problem: Problem) -> tuple[int, int]:
        match = re.search(r":(\d+):(\d+)", problem.where)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    return sorted(dict.fromkeys(problems), key=line)


def _assemble(
    model: CampaignModel,
    file: YamlFile,
    workspace: Workspace,
    provider: Provider[ProviderSettings],
    settings: ProviderSettings,
    problems: list[Problem],
) -> Campaign | None:
    if not _NAME.fullmatch(model.campaign) or model.campaign.endswith(SANDBOX_SUFFIX):
        problems.append(
            Problem(
                file.where(("campaign",)),
                f"{model.campaign!r} cannot be a campaign's name",
                "use small letters, digits, - and _ (at most 64), not ending in -sandbox: it names a folder under reports/",
            )
        )
    if (model.message.template is None) == (model.message.caption is None):
        problems.append(
            Problem(
                file.where(("message",)),
                "needs either template (a file in templates/) or caption (text written here)",
                "remove one of the two" if model.message.template is not None else "add one of the two",
            )
        )
    send = model.send
    zone = _zone(send.timezone, file, problems)
    start_at = _moment(send.start_at, ("send", "start_at"), zone, file, problems)
    deadline, deadline_after = _deadline(send.deadline, zone, file, problems)
    scheduled_at = None
    if send.scheduled_time is not None:
        if not provider.abilities.schedules:
            problems.append(
                Problem(
                    file.where(("send", "scheduled_time")),
                    f"{provider.abilities.title} cannot send at a later time by itself",
                    "use start_at: the runner then waits by itself",
                )
            )
        elif "{{" not in send.scheduled_time:
            moment = _moment(send.scheduled_time, ("send", "scheduled_time"), zone, file, problems)
            scheduled_at = int(moment) if moment is not None else None
    if start_at is not None and deadline is not None and deadline <= start_at:
        problems.append(Problem(file.where(("send", "deadline")), "is not after start_at", "move one of the two"))
    paths: list[Path | None] = []
    named: list[tuple[str, KeyPath]] = [(model.audience.file, ("audience", "file"))]
    named += [(name, ("audience", "suppress", index)) for index, name in enumerate(model.audience.suppress)]
    for name, key in named:
        try:
            paths.append(workspace.resolve(name, base=file.path.resolve().parent, where=file.where(key)))
        except InputError as error:
            problems.extend(error.problems)
            paths.append(None)
    audience_path, *suppress_paths = paths
    if problems or audience_path is None:
        return None
    rates = send.rate if send.rate is not None else (parse_rate(provider.abilities.default_rate),)
    return Campaign(
        name=model.campaign,
        file=file,
        workspace=workspace,
        provider=provider,
        settings=settings,
        audience=model.audience,
        audience_path=audience_path,
        suppress_paths=tuple(path for path in suppress_paths if path is not None),
        message=model.message,
        variables=model.vars,
        send=send,
        report=model.report,
        rates=rates,
        concurrency=send.concurrency or provider.abilities.default_concurrency,
        start_at=start_at,
        deadline=deadline,
        deadline_after=deadline_after,
        scheduled_at=scheduled_at,
    )


# --- date-times ---------------------------------------------------------------------------------------------------


def _zone(name: str | None, file: YamlFile, problems: list[Problem]) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        problems.append(
            Problem(
                file.where(("send", "timezone")), f"{name!r} is not a time zone", "write it as Europe/Istanbul or UTC"
            )
        )
        return None


def _moment(
    text: str | None, key: KeyPath, zone: ZoneInfo | None, file: YamlFile, problems: list[Problem]
) -> float | None:
    if text is None:
        return None
    try:
        return parse_moment(text, zone)
    except ValueError as error:
        problems.append(Problem(file.where(key), str(error)))
        return None


def _deadline(
    text: str | None, zone: ZoneInfo | None, file: YamlFile, problems: list[Problem]
) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    try:
        return None, parse_duration(text)
    except ValueError:
        return _moment(text, ("send", "deadline"), zone, file, problems), None


# --- the provider block ---------------------------------------------------------------------------------------------


def _provider(block: Tree, file: YamlFile, problems: list[Problem]) -> Provider[ProviderSettings] | None:
    if not isinstance(block, dict):
        return None  # the model has said so already
    name = block.get("name")
    if isinstance(name, str) and name in PROVIDERS:
        return PROVIDERS[name]
    known = ", ".join(PROVIDERS)
    if name is None:
        problems.append(Problem(file.where(("provider", "name")), "is missing", f"one of: {known}"))
    else:
        near = get_close_matches(str(name).lower(), PROVIDERS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"one of: {known}"
        problems.append(Problem(file.where(("provider", "name")), f"{name!r} is not a provider", fix))
    return None


def _is_secret(provider: Provider[ProviderSettings], key: str) -> bool:
    info = provider.settings.model_fields.get(key)
    return info is not None and "SecretStr" in str(info.annotation)


def _provider_settings(
    provider: Provider[ProviderSettings],
    file: YamlFile,
    env: Mapping[str, str],
    base_url: str | None,
    problems: list[Problem],
) -> ProviderSettings | None:
    assert isinstance(file.tree, dict)  # noqa: S101 - load_campaign has checked it; for the type checker
    block = file.tree["provider"]
    assert isinstance(block, dict)  # noqa: S101 - likewise
    values: dict[str, Tree] = dict(block)
    before = len(problems)
    for key, value in block.items():
        if not isinstance(value, str):
            continue
        if _is_secret(provider, key) and not _VARIABLE.fullmatch(value):
            problems.append(
                Problem(
                    file.where(("provider", key)),
                    "a secret is written into the file",
                    f"put it into the environment or .env and write {key}: ${{{provider.name.upper()}_{key.upper()}}}",
                )
            )
            continue
        stand_in = None
        if base_url is not None:
            stand_in = SANDBOX_TOKEN if _is_secret(provider, key) else SANDBOX_NUMBER
        values[key] = _substitute(value, ("provider", key), file, env, problems, stand_in=stand_in)
    if base_url is not None:
        values["base_url"] = base_url
    if len(problems) > before:
        return None
    return _validate(provider.settings, values, ("provider",), file, problems)


def _substitute(
    text: str, key: KeyPath, file: YamlFile, env: Mapping[str, str], problems: list[Problem], *, stand_in: str | None
) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not _VARIABLE_NAME.fullmatch(name):
            problems.append(
                Problem(file.where(key), f"${{{name}}} is not a variable's name", "letters, digits and _ only")
            )
            return ""
        if env.get(name):
            return env[name]
        if stand_in is not None:
            return stand_in
        what = "is empty" if name in env else "is not set"
        problems.append(
            Problem(
                file.where(key),
                f"the environment variable {name} {what}",
                f"export {name}=… in the shell, or put a line {name}=… into .env in the workspace",
            )
        )
        return ""

    return _VARIABLE.sub(value, text)


def _refuse_stray_variables(tree: Tree, path: KeyPath, file: YamlFile, problems: list[Problem]) -> None:
    if path[:1] == ("provider",):
        return
    if isinstance(tree, dict):
        for key, child in tree.items():
            _refuse_stray_variables(child, (*path, key), file, problems)
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            _refuse_stray_variables(child, (*path, index), file, problems)
    elif isinstance(tree, str) and (match := _VARIABLE.search(tree)):
        problems.append(
            Problem(
                file.where(path),
                f"{match[0]}: environment variables are read in the provider block only",
                "write the value itself, or a value under vars: and use it as {{ name }}",
            )
        )


# --- pydantic's errors in our words -----------------------------------------------------------------------------------


M = TypeVar("M", bound=BaseModel)


def _validate(model: type[M], values: Tree, base: KeyPath, file: YamlFile, problems: list[Problem]) -> M | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            location = tuple(part for part in item["loc"] if isinstance(part, str | int))
            problems.append(_problem(model, base, location, item["type"], str(item["msg"]), item.get("input"), file))
        return None


def _problem(
    model: type[BaseModel], base: KeyPath, location: KeyPath, kind: str, message: str, value: object, file: YamlFile
) -> Problem:
    where = file.where(base + location)
    if kind == "extra_forbidden":
        known = list(_fields_at(model, location[:-1]))
        near = get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return Problem(where, "is not a key of the campaign file", fix)
    if kind == "missing":
        return Problem(where, "is missing", _description(model, location))
    if kind == "value_error":
        return Problem(where, message.removeprefix("Value error, "), "")
    shown = f"{value!r}" if isinstance(value, str | int | float | bool) or value is None else f"a {_kind_of(value)}"
    wanted = {
        "string_type": "must be text",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "dict_type": "must be a block of keys",
        "model_type": "must be a block of keys",
        "model_attributes_type": "must be a block of keys",
        "string_too_short": "must not be empty",
        "too_short": "must not be empty",
    }.get(kind)
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return Problem(where, f"{shown} is a number here, text is wanted", f'put it in quotes: "{value}"')
    if wanted:
        return Problem(where, f"{wanted}, not {shown}" if value != "" else wanted, _description(model, location))
    if kind == "literal_error":
        return Problem(where, f"{shown}: {message[0].lower()}{message[1:]}")
    return Problem(where, f"{shown}: {message[0].lower()}{message[1:]}")


def _kind_of(value: object) -> str:
    return "block of keys" if isinstance(value, dict) else "list" if isinstance(value, list) else type(value).__name__


def _fields_at(model: type[BaseModel], location: KeyPath) -> Mapping[str, object]:
    for part in location:
        info = model.model_fields.get(str(part))
        if info is None or not isinstance(info.annotation, type) or not issubclass(info.annotation, BaseModel):
            return {}
        model = info.annotation
    return model.model_fields


def _description(model: type[BaseModel], location: KeyPath) -> str:
    fields = _fields_at(model, location[:-1])
    info = model.model_fields.get(str(location[-1])) if len(location) == 1 else fields.get(str(location[-1]))
    return str(getattr(info, "description", None) or "")


def schema() -> dict[str, object]:
    """The JSON Schema of a campaign file, for completion in editors."""
    result = CampaignModel.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    result["title"] = "Campaign file"
    definitions = result.setdefault("$defs", {})
    variants = []
    for provider in PROVIDERS.values():
        part = provider.settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(part.pop("$defs", {}))
        for key, spec in part.get("properties", {}).items():
            if _is_secret(provider, key):
                spec.pop("writeOnly", None)
                spec.pop("format", None)
                spec["pattern"] = r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"
        variants.append(part)
    description = result["properties"]["provider"].get("description", "")
    result["properties"]["provider"] = {"description": description, "oneOf": variants}
    return result
