"""From the audience to frozen messages: read, normalise, filter, render. A pure stream, run in the confined process only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson

from runner.audience import column_index, open_audience
from runner.captions import Renderer, RenderFault, Source
from runner.errors import InputError, Problem
from runner.ledger.base import PlannedRow
from runner.model import Message, SkipReason
from runner.moments import parse_moment
from runner.phones import Phone, PhoneFault, PhoneReader
from runner.prepare import Branches, Event, Opened, PreparationTask, Rows, Suppressed
from runner.providers import PROVIDERS
from runner.suppression import SuppressionFile

CHUNK = 1000  # rows per event
BRANCH_ROWS = 20  # for each branch of the template: the first ones may yet turn out to be duplicates or suppressed
FAULTS_SHOWN = 20  # unreadable numbers of a suppression file that are named


def prepare(task: PreparationTask) -> Iterator[Event]:
    """The whole stream: suppression files, `Opened`, then the rows. Raises InputError with every problem found."""
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
        self._filters = task.where is not None
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

        raw = values[self._phone]
        phone = self._reader.read(raw)
        if isinstance(phone, PhoneFault):
            return _skipped(position, number, raw, values, phone)
        if self._filters:
            keeps = self._renderer.keeps(values)
            if isinstance(keeps, RenderFault):
                return _skipped(position, number, raw, values, keeps, phone)
            if not keeps:
                return _skipped(position, number, raw, values, _FILTERED, phone)
        rendered = self._renderer.render(values)
        if isinstance(rendered, RenderFault):
            return _skipped(position, number, raw, values, rendered, phone)
        scheduled = self._task.scheduled_at if self._task.scheduled_time is None else self._schedule(values)
        if isinstance(scheduled, RenderFault):
            return _skipped(position, number, raw, values, scheduled, phone)
        image, caption = rendered
        digits, country = phone
        if self._renderer.taken:
            self._note_branches(position)
        body = self._provider.body(self._settings, Message(digits, image, caption, scheduled))
        payload = hashlib.sha256(body).digest()
        own = orjson.dumps(values).decode()
        return PlannedRow(position, number, digits, country, raw, "", "", image, caption, scheduled, payload, own)

    def _note_branches(self, position: int) -> None:
        for label in self._renderer.taken:
            rows = self.branches.setdefault(label, [])
            if len(rows) < BRANCH_ROWS:
                rows.append(position)

    def _schedule(self, values: tuple[str, ...]) -> int | RenderFault:

        text = self._renderer.extra("scheduled_time", values)  # noqa: S610 - not Django
        if isinstance(text, RenderFault):
            return text
        try:
            return int(parse_moment(text, self._zone))
        except ValueError as error:
            return RenderFault(SkipReason.RENDER_ERROR, f"scheduled_time: {error}")


_FILTERED = RenderFault(SkipReason.FILTERED, "")
_NO_PHONE = Phone("", "")


def _skipped(
    position: int,
    number: int,
    raw: str,
    values: tuple[str, ...],
    fault: PhoneFault | RenderFault,
    phone: Phone = _NO_PHONE,
) -> PlannedRow:
    """A row that gets nothing, and why."""
    digits, country = phone
    own = orjson.dumps(values).decode()
    return PlannedRow(position, number, digits, country, raw, fault.reason.value, fault.detail, "", "", None, None, own)
