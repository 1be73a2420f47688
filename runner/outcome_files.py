"""From the ledger to the result files. Nothing else is read: they can be made again at any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import orjson

from runner.attemptstats import measure
from runner.ledger.base import CampaignRecord, LedgerRow, now_us
from runner.ledger.sql import SqlLedger
from runner.mending import mend
from runner.pages import write_report_page
from runner.reportpage import ReportData
from runner.reportrows import Picker
from runner.results import ResultRow, Written, write_results
from runner.resultset import ResultSet
from runner.units import Rate
from runner.workspace import Workspace

__all__ = ["Written", "result_set", "write_outcome"]


def write_outcome(workspace: Workspace, ledger: SqlLedger, campaign: str) -> Written:
    """(Re)write a campaign's result files. Raises UnknownCampaignError, LedgerError, CampaignError."""
    results = result_set(workspace, ledger, campaign)
    formats = ledger.campaign(campaign).settings.get("formats", ["xlsx", "csv"])
    assert isinstance(formats, list)  # noqa: S101 - written by us
    folder = workspace.folder(campaign)
    picker = Picker()
    written = write_results(results, folder, [str(name) for name in formats], also=picker.add)
    page = folder / "report.html"
    record = ledger.campaign(campaign)
    write_report_page(
        page,
        ReportData(
            summary=written.totals,
            groups=written.groups,
            stats=measure(ledger.attempts(record.id), rates_of(record)),
            picked=picker.picked(),
        ),
    )
    return replace(written, paths={**written.paths, page.name: page})


def rates_of(record: CampaignRecord) -> list[Rate]:
    """The limits that the campaign was planned with."""
    rates = record.settings.get("rates")
    return [Rate(int(count), float(window)) for count, window in rates] if isinstance(rates, list) else []


def result_set(workspace: Workspace, ledger: SqlLedger, campaign: str) -> ResultSet:
    """A campaign's results as the writers want them."""
    record = ledger.campaign(campaign)
    counts = ledger.counts(record.id)

    def rows() -> Iterator[ResultRow]:
        return _rows(ledger.results(record.id), record.provider)

    rates = record.settings.get("rate")
    return ResultSet(
        campaign=record.name,
        provider=record.provider,
        sandbox=workspace.sandbox,
        columns=record.columns,
        phone_column=record.phone_column,
        read_rows=rows,
        counts=counts.by_status,
        input_rows=counts.total - counts.gone,
        generated_at=now_us(),
        run_notes=(
            f"Campaign file: {record.settings.get('file', '')}",
            f"Plan: {record.plan_hash}",
            f"Rate: {' and '.join(map(str, rates)) if isinstance(rates, list) and rates else 'no limit'}",
        ),
        mend=mend,
    )


def _rows(rows: Iterable[LedgerRow], provider: str) -> Iterator[ResultRow]:
    # By position, in the order of both tuples, and past their own checks: naming the fields of a million rows costs 4 s,
    # checking how many there are another second (measured).
    make = partial(tuple.__new__, ResultRow)
    for (
        row,
        phone,
        raw_phone,
        status,
        reason,
        detail,
        code,
        queue_id,
        attempts,
        first_attempt_at,
        last_attempt_at,
        delivery,
        image,
        caption,
        own,
    ) in rows:
        yield make(
            (
                row,
                phone or raw_phone,
                status,
                reason,
                detail if reason else "",  # a success has nothing to explain
                code,
                queue_id,
                provider,
                attempts,
                first_attempt_at or None,
                last_attempt_at or None,
                delivery,
                image,
                caption,
                tuple(orjson.loads(own)) if row is not None else (),
            )
        )
