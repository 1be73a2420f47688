"""The images of a plan, each distinct address fetched once: rows whose image cannot be used are skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.campaign import Campaign
from runner.errors import InputError, Problem
from runner.ledger.staging import Staging
from runner.moments import moment_text
from runner.pace import seconds_for

if TYPE_CHECKING:
    from runner.media import ImageVerdict, MediaPolicy

NAMED = 50  # unusable images that are named
_DAY = 24 * 3600.0


@dataclass(slots=True)
class ImageReport:
    """What the check found. `unusable` and `doubtful` hold the first NAMED of each, the counts all."""

    checked: int = 0
    unusable_count: int = 0
    doubtful_count: int = 0
    unusable: list[ImageVerdict] = field(default_factory=list)
    doubtful: list[ImageVerdict] = field(default_factory=list)  # usable with a warning, or not reachable just now

    def add(self, verdict: ImageVerdict) -> None:
        """Count one address."""
        self.checked += 1
        if not verdict.ok and not verdict.temporary:
            self.unusable_count += 1
            if len(self.unusable) < NAMED:
                self.unusable.append(verdict)
        elif not verdict.ok or verdict.warnings:
            self.doubtful_count += 1
            if len(self.doubtful) < NAMED:
                self.doubtful.append(verdict)


def policy_of(campaign: Campaign, rows: int) -> MediaPolicy:
    """Links must outlive the campaign by a day: providers queue."""
    from runner.media import MediaPolicy

    wait = max(0.0, (campaign.start_at or 0.0) - time.time())
    return MediaPolicy(
        limit_bytes=campaign.provider.abilities.image_limit,
        allow_hosts=frozenset(campaign.message.image_hosts),
        expires_within=wait + seconds_for(rows, campaign.rates) + _DAY,
    )


def check_plan(campaign: Campaign, staging: Staging, note: Callable[[str], None]) -> ImageReport:
    """Check every image of the rows that would be sent. A host that is merely busy or away only earns a warning.

    Raises InputError for an unusable `image_hosts` entry.
    """
    import asyncio

    from runner.media import check_images  # and with it aiohttp, which most plans never need

    report = ImageReport()
    bad: list[ImageVerdict] = []
    addresses = staging.images()
    note(f"checking {len(addresses):,} images, since {moment_text(time.time())} ...")

    def decided(verdict: ImageVerdict) -> None:
        report.add(verdict)
        if not verdict.ok and not verdict.temporary:
            bad.append(verdict)

    try:
        asyncio.run(
            check_images(addresses, policy_of(campaign, staging.live_count()), clock=time.time, on_verdict=decided)
        )
    except ValueError as error:
        raise InputError(Problem(campaign.file.where(("message", "image_hosts")), str(error))) from None
    staging.refuse_images((verdict.url, f"{verdict.reason}: {verdict.detail}") for verdict in bad)
    return report


def pictures(campaign: Campaign, addresses: list[str]) -> dict[str, ImageVerdict]:
    """Small pictures for a page, address to a verdict with `thumbnail`; those that cannot be fetched are left out."""
    from runner.media import check_all

    verdicts = check_all(addresses, policy_of(campaign, 0), clock=time.time, want_bytes=True)
    return {url: verdict for url, verdict in verdicts.items() if verdict.ok and verdict.thumbnail is not None}
