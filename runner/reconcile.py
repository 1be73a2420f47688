"""`campaign reconcile`: ask the provider what became of the unknown rows. Only positive proof moves a row, to accepted.

Absence proves nothing: a queued message may have left the queue already, and a history may lag.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from runner.campaign import Campaign
from runner.ledger.base import Unknown
from runner.ledger.sql import SqlLedger
from runner.model import Lost
from runner.providers.base import Suspect
from runner.transport import Transport

PAUSE_SECONDS = 0.5  # between questions: they count against nobody's published limit, so politely


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What the provider could say. `open_rows` are still unknown."""

    asked: int  # questions
    proved: int
    unanswered: int  # the question itself failed
    open_rows: tuple[Unknown, ...]


def reconcile(campaign: Campaign, ledger: SqlLedger, *, pause: float = PAUSE_SECONDS) -> Reconciled:
    """Ask about every unknown row, one question at a time. Only under the campaign's lock. Raises LedgerError."""
    return asyncio.run(_reconcile(campaign, ledger, pause))


async def _reconcile(campaign: Campaign, ledger: SqlLedger, pause: float) -> Reconciled:
    inquiry = campaign.provider.inquiry
    asked = proved = unanswered = 0
    still: list[Unknown] = []
    async with Transport(connections=1, timeout=campaign.send.timeout) as transport:
        for row in ledger.unknowns(ledger.campaign(campaign.name).id):
            suspect = Suspect(row.phone, row.image, row.caption, row.last_attempt_at / 1e6, row.queue_id)
            evidence = ""
            for request in inquiry.ask(campaign.settings, suspect):
                if asked:
                    await asyncio.sleep(pause)
                asked += 1
                reply = await transport.send(request, lambda: None)
                if isinstance(reply, Lost) or reply.status >= 400:
                    unanswered += 1
                else:
                    evidence = inquiry.proof(suspect, reply)
                if evidence:
                    break
            if evidence:
                ledger.prove(row.id, evidence)
                proved += 1
            else:
                still.append(row)
    return Reconciled(asked, proved, unanswered, tuple(still))
