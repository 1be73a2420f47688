"""Reference text made from the models: the providers for the terminal, the campaign file for docs/campaign-file.md."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from runner.campaign import AudienceBlock, CampaignModel, MessageBlock, ReportBlock, SendBlock
from runner.providers import PROVIDERS
from runner.units import duration_text


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


def campaign_file_page() -> str:
    """docs/campaign-file.md, kept equal to the models by a test."""
    lines = [
        "# The campaign file",
        "",
        "This page is made from the program's own models (`make docs`); a test keeps the two equal.",
        "",
        "Unknown keys, repeated keys, anchors, aliases, tags and values that YAML readers would change (leading zeros, `no`,",
        "`21:00`) are errors that name file, line, key and what to write instead. Durations are written `30s`, `5min`, `2h`,",
        "`1day`; rates `20/s`, `10/min`, `500/h`, `2000/day`. `${VAR}` is read from the environment or `.env`, in the provider",
        "block only. For completion in an editor, write `campaign schema > campaigns/campaign.schema.json` and begin the file",
        "with `# yaml-language-server: $schema=campaign.schema.json`.",
        "",
    ]
    lines += _section("", CampaignModel, skip={"audience", "message", "send", "report"})
    blocks: tuple[tuple[str, type[BaseModel]], ...] = (
        ("audience", AudienceBlock),
        ("message", MessageBlock),
        ("send", SendBlock),
        ("report", ReportBlock),
    )
    for name, model in blocks:
        lines += _section(name, model)
    for provider in PROVIDERS.values():
        lines += _section(f"provider, name: {provider.name}", provider.settings)
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, model: type[BaseModel], skip: frozenset[str] | set[str] = frozenset()) -> list[str]:
    lines = [f"## {title}" if title else "## Top level", "", "| key | meaning | default |", "|---|---|---|"]
    for name, info in model.model_fields.items():
        if name not in skip:
            meaning = (info.description or "").replace("|", "\\|")
            lines.append(f"| `{name}` | {meaning} | {_default(info, bare=True)} |")
    return [*lines, ""]


def _default(info: FieldInfo, *, bare: bool = False) -> str:
    if info.is_required() or info.default is PydanticUndefined:
        return "needed" if bare else "(needed)"
    if info.default is None:
        return ""
    value = info.default
    text = (
        duration_text(value)
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return f"`{text}`" if bare else f"(default {text})"
