"""From the audience to frozen messages: read, normalise, filter, render. A pure stream, made to run in a confined process.

What crosses the border is a `PreparationTask` in (nothing secret) and plain events out, as JSON: a process that has read a
hostile spreadsheet is not to be unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import orjson

from runner.errors import InputError, Problem
from runner.ledger.base import PlannedRow
from runner.model import Message, SkipReason
from runner.moments import parse_moment

if TYPE_CHECKING:
    from runner.campaign import Campaign

CHUNK = 1000  # rows per event
BRANCH_ROWS = 20  # for each branch of the template: the first ones may yet turn out to be duplicates or suppressed
FAULTS_SHOWN = 20  # unreadable numbers of a suppression file that are named


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


def prepare(task: PreparationTask) -> Iterator[Event]:
    """The whole stream: suppression files, `Opened`, then the rows. Raises InputError with every problem found."""
    from runner.phones import PhoneReader

    reader = PhoneReader(
        task.default_region, frozenset(task.allowed_countries) if task.allowed_countries is not None else None
    )
    yield from _suppressed(task)
    pipeline = _Pipeline(task, reader)
    yield pipeline.opened()
    position = 0
    for chunk in pipeline.audience.rows(CHUNK):
        rows = []
        for row in chunk:
            rows.append(pipeline.plan(position, row.number, row.values))
            position += 1
        yield Rows(tuple(rows))
    if task.branches:
        yield Branches({label: tuple(positions) for label, positions in sorted(pipeline.branches.items())})


def _suppressed(task: PreparationTask) -> Iterator[Suppressed]:
    """Numbers are read without the country guard: an opt-out counts wherever it comes from."""
    from runner.phones import PhoneReader
    from runner.suppression import SuppressionFile

    reader = PhoneReader(task.default_region)
    for name in task.suppress:
        path = Path(name)
        file = SuppressionFile(path, reader)
        batch: list[str] = []
        for entry in file.numbers():
            batch.append(entry.digits)
            if len(batch) >= CHUNK:
                yield Suppressed(path.name, tuple(batch))
                batch = []
        faults = tuple(f"row {fault.row}: {fault.why}" for fault in file.faults[:FAULTS_SHOWN])
        yield Suppressed(path.name, tuple(batch), faults, file.fault_count)


class _Pipeline:
    """One row after the other: phone, filter, caption and image, schedule, payload."""

    def __init__(self, task: PreparationTask, reader: PhoneReader) -> None:
        from runner.audience import column_index, open_audience
        from runner.captions import Renderer, Source
        from runner.providers import PROVIDERS

        self._task = task
        self._reader = reader
        self.branches: dict[str, list[int]] = {}
        self.audience = open_audience(
            Path(task.audience), sheet=task.sheet, encoding=task.encoding, delimiter=task.delimiter
        )
        problems: list[Problem] = []
        self._phone = 0
        try:
            self._phone = column_index(self.audience, task.phone, "phone number", task.places["phone"])
        except InputError as error:
            problems.extend(error.problems)
        self._provider = PROVIDERS[task.provider]
        try:
            self._renderer = Renderer(
                columns=self.audience.columns,
                templates=Path(task.templates),
                caption=Source(task.caption, task.places["caption"]) if task.caption is not None else None,
                template=Source(task.template, task.places["template"]) if task.template is not None else None,
                image=Source(task.image, task.places["image"]),
                where=Source(task.where, task.places["where"]) if task.where is not None else None,
                variables=task.variables,
                caption_limit=self._provider.abilities.caption_limit,
                extra=(
                    {"scheduled_time": Source(task.scheduled_time, task.places["scheduled_time"])}
                    if task.scheduled_time is not None
                    else {}
                ),
                branches=task.branches,
            )
        except InputError as error:
            problems.extend(error.problems)
        if problems:
            raise InputError(*problems)
        secrets = {name: "x" for name in self._provider.settings.model_fields if name not in task.settings}
        self._settings = self._provider.settings.model_validate({**task.settings, **secrets})
        self._zone = ZoneInfo(task.timezone) if task.timezone is not None else None

    def opened(self) -> Opened:
        used = self._renderer.used | {self.audience.columns[self._phone]}
        return Opened(
            description=self.audience.describe(),
            notes=self.audience.notes + self._renderer.warnings,
            columns=self.audience.columns,
            used=tuple(column for column in self.audience.columns if column in used),
            unused=tuple(column for column in self._renderer.unused if column not in used),
        )

    def plan(self, position: int, number: int, values: tuple[str, ...]) -> PlannedRow:
        from runner.captions import RenderFault
        from runner.phones import PhoneFault

        raw = values[self._phone]
        own = orjson.dumps(values).decode()

        def skip(reason: SkipReason, detail: str, phone: str = "", country: str = "") -> PlannedRow:
            return PlannedRow(position, number, phone, country, raw, reason.value, detail, "", "", None, None, own)

        phone = self._reader.read(raw)
        if isinstance(phone, PhoneFault):
            return skip(phone.reason, phone.detail)
        keeps = self._renderer.keeps(values)
        if isinstance(keeps, RenderFault):
            return skip(keeps.reason, keeps.detail, phone.digits, phone.country)
        if not keeps:
            return skip(SkipReason.FILTERED, "", phone.digits, phone.country)
        rendered = self._renderer.render(values)
        if isinstance(rendered, RenderFault):
            return skip(rendered.reason, rendered.detail, phone.digits, phone.country)
        scheduled = self._schedule(values)
        if isinstance(scheduled, RenderFault):
            return skip(scheduled.reason, scheduled.detail, phone.digits, phone.country)
        message = Message(phone.digits, rendered.image, rendered.caption, scheduled)
        self._note_branches(position)
        payload = hashlib.sha256(self._provider.build(self._settings, message).body).digest()
        return PlannedRow(
            position,
            number,
            phone.digits,
            phone.country,
            raw,
            "",
            "",
            rendered.image,
            rendered.caption,
            scheduled,
            payload,
            own,
        )

    def _note_branches(self, position: int) -> None:
        for label in self._renderer.taken:
            rows = self.branches.setdefault(label, [])
            if len(rows) < BRANCH_ROWS:
                rows.append(position)

    def _schedule(self, values: tuple[str, ...]) -> int | RenderFault | None:
        from runner.captions import RenderFault

        if self._task.scheduled_time is None:
            return self._task.scheduled_at
        text = self._renderer.extra("scheduled_time", values)  # noqa: S610 - not Django
        if isinstance(text, RenderFault):
            return text
        try:
            return int(parse_moment(text, self._zone))
        except ValueError as error:
            return RenderFault(SkipReason.RENDER_ERROR, f"scheduled_time: {error}")


if TYPE_CHECKING:
    from runner.captions import RenderFault
    from runner.phones import PhoneReader
