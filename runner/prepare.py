"""What crosses the border of the confined process: a `PreparationTask` in (nothing secret) and plain events out.

Both travel as JSON: a process that has read a hostile spreadsheet is not to be unpickled. The work is in `pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.ledger.base import PlannedRow

if TYPE_CHECKING:
    from runner.campaign import Campaign


@dataclass(frozen=True, slots=True)
class PreparationTask:
    """Everything that preparing needs to know of a campaign. `places` maps a key to where it stands in the file."""

    audience: str
    sheet: str | None
    encoding: str | None
    delimiter: str | None
    phone: str
    default_region: str | None
    allowed_countries: tuple[str, ...] | None
    suppress: tuple[str, ...]
    templates: str
    template: str | None
    caption: str | None
    image: str
    where: str | None
    scheduled_time: str | None  # a template per row
    scheduled_at: int | None  # the same for everybody
    timezone: str | None
    variables: Mapping[str, str | int | float | bool]
    provider: str
    settings: Mapping[str, str | int | float | bool | None]  # the provider block without its secrets
    places: Mapping[str, str]
    branches: bool = False  # end with `Branches`; for previews


@dataclass(frozen=True, slots=True)
class Opened:
    """The audience has been opened and the templates compiled; rows follow."""

    description: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    used: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Numbers of one suppression file; `faults` are entries that could not be read."""

    source: str
    numbers: tuple[str, ...]
    faults: tuple[str, ...] = ()
    fault_count: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk of planned rows, in order."""

    rows: tuple[PlannedRow, ...]


@dataclass(frozen=True, slots=True)
class Branches:
    """After the last row: for each branch of the template the positions of the first rows that took it."""

    rows: Mapping[str, tuple[int, ...]]


Event = Opened | Suppressed | Rows | Branches


def task_of(campaign: Campaign) -> PreparationTask:
    """What the confined process is told of a campaign."""
    audience, message, send = campaign.audience, campaign.message, campaign.send
    keys = {
        "phone": ("audience", "phone"),
        "file": ("audience", "file"),
        "where": ("audience", "where"),
        "image": ("message", "image"),
        "caption": ("message", "caption"),
        "template": ("message", "template"),
        "scheduled_time": ("send", "scheduled_time"),
    }
    per_row = send.scheduled_time if campaign.scheduled_at is None else None
    return PreparationTask(
        audience=str(campaign.audience_path),
        sheet=audience.sheet,
        encoding=audience.encoding,
        delimiter=audience.delimiter,
        phone=audience.phone,
        default_region=audience.default_region,
        allowed_countries=tuple(audience.allowed_countries) if audience.allowed_countries is not None else None,
        suppress=tuple(str(path) for path in campaign.suppress_paths),
        templates=str(campaign.workspace.templates),
        template=message.template,
        caption=message.caption,
        image=message.image,
        where=audience.where,
        scheduled_time=per_row,
        scheduled_at=campaign.scheduled_at,
        timezone=send.timezone,
        variables=dict(campaign.variables),
        provider=campaign.provider.name,
        settings=campaign.public_settings(),
        places={name: campaign.file.where(key) for name, key in keys.items()},
    )
