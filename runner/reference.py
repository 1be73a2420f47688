"""Reference text made from the models: the providers for the terminal, the campaign file for docs/campaign-file.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from runner.breaker import Share
from runner.campaignfile import (
    BLOCKS,
    COUNT_TYPE,
    DURATION_TYPE,
    RATE_TYPE,
    REGION_TYPE,
    SHARE_TYPE,
    VARIABLE_PATTERN,
    CampaignModel,
    StopBlock,
    schema,
)
from runner.providers import PROVIDERS
from runner.units import duration_text
from runner.yamlfile import yaml_text


def provider_lines() -> Iterator[str]:
    """What `campaign providers` prints."""
    for provider in PROVIDERS.values():
        can = provider.abilities
        yield f"{provider.name}: {can.title}. {can.summary}"
        yield f"  polite rate {can.default_rate}, {can.default_concurrency} in flight"
        yield f"  captions up to {can.caption_limit:,} characters, images up to {can.image_limit / 1024 / 1024:.0f} MB"
        yield f"  sends at a later time by itself: {'yes' if can.schedules else 'no'}"
        yield f"  queue id: {can.queue_ids}"
        for note in can.notes:
            yield f"  note: {note}"
        yield "  settings:"
        for name, info in provider.settings.model_fields.items():
            yield f"    {name}: {info.description or ''} {_default(info)}".rstrip()
        yield ""


def campaign_file_page(prose: str) -> str:
    """docs/campaign-file.md: `prose` (docs/campaign-file.in.md) with a table of keys for each `{{keys: BLOCK}}` in it.

    BLOCK is `top`, a block's name, or a provider's. Raises KeyError for any other, ValueError when one has no place.
    """
    tables = dict(_tables())
    page = re.sub(r"^\{\{keys: ([a-z]+)\}\}$", lambda match: tables.pop(match[1]), prose, flags=re.MULTILINE)
    if tables:
        raise ValueError(f"no place for the keys of {', '.join(tables)}")
    return page


def _tables() -> Iterator[tuple[str, str]]:
    specs = schema()
    definitions = specs["$defs"]
    assert isinstance(definitions, dict)  # noqa: S101 - it has just been made; for the type checker
    yield "top", _table(CampaignModel, specs)
    yield "stop", _table(StopBlock, _part(definitions, "StopBlock"))
    for name, block in BLOCKS.items():
        yield name, _table(block, definitions[block.__name__])
    variants = _part(_part(specs, "properties"), "provider")["oneOf"]
    assert isinstance(variants, list)  # noqa: S101 - likewise
    for provider, spec in zip(PROVIDERS.values(), variants, strict=True):
        yield provider.name, _table(provider.settings, spec)


def _table(model: type[BaseModel], spec: Mapping[str, object]) -> str:
    lines = ["| key | what it is | meaning | default | example |", "|---|---|---|---|---|"]
    for name, info in model.model_fields.items():
        meaning = (info.description or "").replace("|", "\\|")
        example = next(iter(info.examples or []), None)
        shown = f"`{yaml_text(example)}`" if example is not None and not isinstance(example, dict) else ""
        kind = _kind(_part(_part(spec, "properties"), name))
        lines.append(f"| `{name}` | {kind} | {meaning} | {_default(info, bare=True)} | {shown} |")
    return "\n".join(lines)


def _part(spec: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = spec[key]
    assert isinstance(part, dict)  # noqa: S101 - a JSON Schema of our own making; for the type checker
    return part


_NAMED: tuple[tuple[Mapping[str, object], str], ...] = (
    (DURATION_TYPE, "duration"),
    (RATE_TYPE, "rate, or a list of rates"),
    (REGION_TYPE, "country"),
    (SHARE_TYPE, "share, or `never`"),
    (COUNT_TYPE, "whole number, or `never`"),
)
_KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def _kind(spec: Mapping[str, object]) -> str:
    """What a value is, in words, from its JSON Schema."""
    if spec.get("pattern") == f"^{VARIABLE_PATTERN}$":
        return "`${VARIABLE}`"
    for known, name in _NAMED:
        if known.items() <= spec.items():
            return name
    choices = spec.get("enum")
    if isinstance(choices, list):
        return "one of " + ", ".join(f"`{choice}`" for choice in choices)
    if "const" in spec:
        return f"`{spec['const']}`"
    if "$ref" in spec or "oneOf" in spec:
        return "block"
    if spec.get("type") == "array":
        return f"list: {_kind(_part(spec, 'items'))}"
    if spec.get("type") == "object":
        return "block: names and values"
    kind = _KINDS[str(spec["type"])]
    if "minimum" in spec and "maximum" in spec:
        kind += f", {spec['minimum']} to {spec['maximum']}"
    return kind


def _default(info: FieldInfo, *, bare: bool = False) -> str:
    if info.is_required() or info.default is PydanticUndefined:
        return "needed" if bare else "(needed)"
    value = info.default
    if value is None or isinstance(value, BaseModel) or value in ([], {}):
        return ""
    text = (
        duration_text(value)
        if isinstance(value, float)
        else str(value)
        if isinstance(value, Share)
        else yaml_text(value)
    )
    return f"`{text}`" if bare else f"(default {text})"
