"""The shape of a campaign file: its blocks and keys, with what each of them means, and the JSON Schema made from them."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from runner.breaker import SHARE_PATTERN, Share, StopWhen, parse_share
from runner.phones import check_region
from runner.providers import PROVIDERS
from runner.providers.base import Provider, ProviderSettings
from runner.units import DURATION_PATTERN, RATE_PATTERN, Rate, parse_duration, parse_rate

UNLIMITED = "unlimited"
VARIABLE_PATTERN = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"
_SLIPS = {"UK": "GB", "EN": "GB", "EL": "GR"}  # what people write for a country that has another code


def _rates(value: object) -> tuple[Rate, ...]:
    if value == UNLIMITED:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    if not items:
        raise ValueError(f"is an empty list; name at least one limit, such as 10/min, or write {UNLIMITED}")
    rates = []
    for item in items:
        if isinstance(item, Rate):
            rates.append(item)
        elif isinstance(item, str):
            rates.append(parse_rate(item))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            raise ValueError(_unit_missing(item, "{0}/s, {0}/min, {0}/h or {0}/day"))  # noqa: TRY004 - pydantic wants ValueError
        else:
            raise ValueError("must be a rate such as 20/s or 10/min, or a list of rates")  # noqa: TRY004 - likewise
    return tuple(sorted(rates, key=lambda rate: rate.window))


def _unit_missing(number: float, forms: str) -> str:
    return f"{number} has no unit; write {forms.format(f'{abs(number):g}')}"


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(_unit_missing(value, "{0}s, {0}min or {0}h"))  # noqa: TRY004 - likewise
    raise ValueError("must be a duration such as 30s, 5min or 2h")


def _region(value: object) -> str:
    if isinstance(value, str) and check_region(value):
        return value
    upper = _SLIPS.get(str(value).upper(), str(value).upper())
    near = f"; did you mean {upper}?" if check_region(upper) else ""
    raise ValueError(f"{value!r} is not a two-letter country code such as TR, DE or US{near}")


def _share(value: object) -> Share | str:
    if isinstance(value, Share) or value == NEVER:
        return value
    if isinstance(value, str):
        return parse_share(value)
    raise ValueError("must be a percentage and a sample such as 2% of 200, or never")


def _count(value: object) -> int | str:
    if value == NEVER or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"{value!r} is not a whole number of at least 1, nor the word never")


def _single(value: object) -> str | int | float | bool:
    if isinstance(value, str | int | float | bool):
        return value
    raise ValueError("must be a single value: text, a number, true or false")


# These three as a JSON Schema has them; `runner.reference` knows them by it.
DURATION_TYPE = {"type": "string", "pattern": f"^{DURATION_PATTERN}$"}
REGION_TYPE = {"type": "string", "pattern": "^[A-Z]{2}$"}
_RATE_TEXT = {"type": "string", "pattern": f"^{RATE_PATTERN}$"}
RATE_TYPE = {"anyOf": [_RATE_TEXT, {"const": UNLIMITED}, {"type": "array", "items": _RATE_TEXT, "minItems": 1}]}

Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema(DURATION_TYPE)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(_rates), WithJsonSchema(RATE_TYPE)]
Region = Annotated[str, BeforeValidator(_region), WithJsonSchema(REGION_TYPE)]
Single = Annotated[str | int | float | bool, BeforeValidator(_single)]
Text = Annotated[str, Field(min_length=1)]


NEVER = "never"
SHARE_TYPE = {"type": "string", "pattern": rf"^\s*(never|{SHARE_PATTERN})\s*$"}
COUNT_TYPE = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": NEVER}]}
ShareOf = Annotated[Share | Literal["never"], BeforeValidator(_share), WithJsonSchema(SHARE_TYPE)]
CountOf = Annotated[int | Literal["never"], BeforeValidator(_count), WithJsonSchema(COUNT_TYPE)]


class Block(BaseModel):
    """A block of the campaign file: unknown keys are errors, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AudienceBlock(Block):
    """Who is to receive the message."""

    file: Text = Field(
        description="The spreadsheet: .csv, .tsv or .xlsx, relative to the campaign file.", examples=["customers.xlsx"]
    )
    sheet: Text | None = Field(
        None, description="Excel only: the sheet's name. Default: the first visible sheet.", examples=["Customers"]
    )
    encoding: Text | None = Field(
        None, description="CSV only: the encoding. Default: found from the file.", examples=["windows-1254"]
    )
    delimiter: Text | None = Field(
        None, description="CSV only: what stands between two cells. Default: found from the file.", examples=[";"]
    )
    phone: Text = Field(description="The column that holds the phone number.", examples=["Mobile"])
    default_region: Region | None = Field(
        None,
        description="Country of numbers without a country code. Without it such a number is an error, never a guess.",
        examples=["TR"],
    )
    allowed_countries: list[Region] | None = Field(
        None,
        description="Numbers of any other country are skipped (wrong_country). Default: all countries.",
        min_length=1,
        examples=[["TR", "DE"]],
    )
    where: Text | None = Field(
        None,
        description="A condition over the row's columns (Jinja); rows where it is false are skipped (filtered).",
        examples=['Consent == "yes"'],
    )
    duplicates: Literal["first", "last", "error"] = Field(
        "first",
        description="Which row of several with the same (normalised) number is sent; error refuses the file.",
        examples=["last"],
    )
    suppress: list[Text] = Field(
        [],
        description="Files of numbers that must not be written to (opt-outs), relative to the campaign file.",
        examples=[["optouts.csv"]],
    )


class MessageBlock(Block):
    """What they receive."""

    image: Text = Field(
        description="The image's http(s) address; may hold {{ columns }} of the row.",
        examples=["https://cdn.example.com/spring/{{ SKU }}.jpg"],
    )
    template: Text | None = Field(
        None, description="The caption: a file in templates/. Give this or caption.", examples=["spring.j2"]
    )
    caption: str | None = Field(
        None,
        description='The caption: text with {{ columns }} written here; "" for none. Give this or template.',
        examples=["Hello {{ Name }}!"],
    )
    images: Literal["trust", "check"] = Field(
        "trust",
        description="check: fetch every image once before anything is sent; rows whose image cannot be used are skipped "
        "(media_unusable).",
        examples=["check"],
    )
    image_hosts: list[Text] = Field(
        [],
        description="Hosts in your own network that images may be fetched from when they are checked; public ones need no "
        "mention. host or host:port.",
        examples=[["intranet.example:8080"]],
    )


class StopBlock(Block):
    """When a run stops by itself, with the rest still to be sent."""

    unknown_in_a_row: CountOf = Field(
        5, description="So many unknown outcomes without a good reply in between; never switches it off.", examples=[3]
    )
    unknown: ShareOf = Field(
        Share(2, 200),
        description="More than this share of the last outcomes is unknown; looked at once there are so many.",
        examples=["2% of 200"],
    )
    rejected: ShareOf = Field(
        Share(50, 50),
        description="More than this share of the last outcomes is refused; looked at once there are so many.",
        examples=["20% of 100"],
    )
    shared_image_refused: bool = Field(
        True, description="The provider finds the image too big, and everybody gets the same one.", examples=[False]
    )

    def limits(self) -> StopWhen:
        """The same for the breaker."""
        return StopWhen(
            self.unknown_in_a_row if isinstance(self.unknown_in_a_row, int) else None,
            self.unknown if isinstance(self.unknown, Share) else None,
            self.rejected if isinstance(self.rejected, Share) else None,
            self.shared_image_refused,
        )


class SendBlock(Block):
    """How fast, how long, and what to do about failures."""

    rate: Rates | None = Field(
        None,
        description="At most so many requests in any sliding window: n/s, n/min, n/h or n/day; a list stacks several limits; "
        "unlimited lifts the limit. Default: the provider's polite rate.",
        examples=["20/s", ["5/s", "1000/day"]],
    )
    concurrency: int | None = Field(
        None, description="Requests in flight at most. Default: the provider's.", ge=1, le=1000, examples=[5]
    )
    keep_connections: bool = Field(
        False,
        description="Use a connection to the provider for many requests. Faster by far above some hundred messages a second; "
        "a provider that lets go of a connection at the wrong moment makes an unknown. Default: one for each request.",
        examples=[True],
    )
    timeout: Duration = Field(
        30.0, description="One request's time, from connecting to the last byte of the reply.", gt=0, examples=["30s"]
    )
    retries: int = Field(
        5,
        description="Further attempts for a message that certainly was not sent. An unknown outcome is never retried.",
        ge=0,
        le=100,
        examples=[3],
    )
    backoff: Duration = Field(
        1.0,
        description="First wait before another attempt; doubles each time, with jitter, up to 1 min.",
        gt=0,
        examples=["2s"],
    )
    start_at: Text | None = Field(
        None,
        description="Wait until this date-time before the first message. Default: at once.",
        examples=["2026-12-01 09:00+03:00"],
    )
    deadline: Text | None = Field(
        None,
        description="A date-time, or a duration from the start of the run; rows not sent by then are not sent (expired).",
        examples=["2026-12-01 20:00+03:00", "3h"],
    )
    timezone: Text | None = Field(
        None, description="Zone of the date-times that are written without one.", examples=["Europe/Istanbul"]
    )
    scheduled_time: Text | None = Field(
        None,
        description="When the provider is to send the message by itself (where it can): a date-time, or {{ columns }} of "
        "the row that give one.",
        examples=["2026-12-01 09:00+03:00"],
    )
    canary: int | None = Field(
        None,
        description="Send so many first and wait for their outcomes; go on only when they are within stop_when (on a "
        "terminal it asks).",
        ge=1,
        examples=[10],
    )
    stop_when: StopBlock = Field(
        StopBlock(),
        description="When a run stops by itself, with the rest still to be sent.",
        examples=[{"unknown_in_a_row": 3}],
    )


class ReportBlock(Block):
    """What is written afterwards."""

    formats: list[Literal["xlsx", "csv"]] = Field(
        ["xlsx", "csv"], description="The kinds of result file to write.", min_length=1, examples=[["xlsx"]]
    )


class CampaignModel(Block):
    """A campaign file: each of these people has received this message once."""

    campaign: Text = Field(
        description="The campaign's identity: a recipient gets a campaign at most once, for ever. Small letters, digits, "
        "- and _, at most 64.",
        examples=["spring-sale"],
    )
    provider: dict[str, object] = Field(
        description="The WhatsApp provider and its account.", examples=[{"name": "wapim", "token": "${WAPIM_TOKEN}"}]
    )
    audience: AudienceBlock = Field(description="Who is to receive the message.")
    message: MessageBlock = Field(description="What they receive.")
    vars: dict[str, Single] = Field(
        {}, description="Values for the templates, the same for everybody.", examples=[{"shop": "Corner Flowers"}]
    )
    send: SendBlock = Field(SendBlock(), description="How fast, how long, and what to do about failures.")
    report: ReportBlock = Field(ReportBlock(), description="What is written afterwards.")


BLOCKS: dict[str, type[Block]] = {
    "audience": AudienceBlock,
    "message": MessageBlock,
    "send": SendBlock,
    "report": ReportBlock,
}


def homes(key: str) -> Iterator[str]:
    """Where a key belongs that stands in the wrong block: `send:`."""
    for name, model in BLOCKS.items():
        if key in model.model_fields:
            yield f"{name}:"
    if key in CampaignModel.model_fields:
        yield "the top level, without indentation"
    if key in ProviderSettings.model_fields and key != "name":
        yield "provider:"


def nearest(word: str, known: Iterator[str] | list[str]) -> str | None:
    """The known word that was probably meant."""
    found = get_close_matches(word.lower().replace("-", "_").replace(" ", "_"), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def is_secret(provider: Provider[ProviderSettings], key: str) -> bool:
    """Whether a key of the provider block holds a secret."""
    info = provider.settings.model_fields.get(key)
    return info is not None and info.annotation is SecretStr


def schema() -> dict[str, object]:
    """The JSON Schema of a campaign file, for completion and checking in editors."""
    result = CampaignModel.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    result["title"] = "Campaign file"
    definitions = result.setdefault("$defs", {})
    variants = []
    for provider in PROVIDERS.values():
        part = provider.settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(part.pop("$defs", {}))
        part["title"] = provider.name
        for key, spec in part.get("properties", {}).items():
            if is_secret(provider, key):
                spec.pop("writeOnly", None)
                spec.pop("format", None)
                spec["pattern"] = f"^{VARIABLE_PATTERN}$"
        part["required"] = [key for key in part["properties"] if key in {*part.get("required", []), "name"}]
        variants.append(part)
    provider_block = result["properties"]["provider"]
    result["properties"]["provider"] = {"description": provider_block["description"], "oneOf": variants}
    definitions["MessageBlock"]["oneOf"] = [{"required": ["template"]}, {"required": ["caption"]}]
    _without_null(result)
    return result


def _without_null(node: object) -> None:
    """A key without a value is refused, so the schema must not offer it."""
    if isinstance(node, dict):
        if node.get("default", ...) is None:
            del node["default"]
        choices = node.get("anyOf")
        if isinstance(choices, list) and {"type": "null"} in choices:
            choices.remove({"type": "null"})
            if len(choices) == 1:
                del node["anyOf"]
                node.update({key: value for key, value in choices[0].items() if key not in node})
        for child in node.values():
            _without_null(child)
    elif isinstance(node, list):
        for child in node:
            _without_null(child)
