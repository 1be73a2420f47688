"""preview.html and preview.xlsx from a plan."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from runner.campaign import Campaign
from runner.files import private_folder
from runner.ledger.base import Sample, now_us
from runner.ledger.staging import Staging
from runner.messagecards import Thumbnail
from runner.pages import write_preview_page
from runner.plan import Plan
from runner.preflight import pictures
from runner.previewbook import write_book
from runner.previewpage import PreviewData

SKIPPED_SHOWN = 50
LIST_SHOWN = 50  # of the first messages, on the page


@dataclass(frozen=True, slots=True)
class PreviewFiles:
    """Where the preview lies."""

    page: Path
    book: Path


def write_preview(
    campaign: Campaign, plan: Plan, staging: Staging, samples: Mapping[str, Sequence[Sample]], *, images: bool
) -> PreviewFiles:
    """Write both files. With `images` the page shows small pictures of the samples, fetched now."""
    folder = campaign.workspace.folder(campaign.name)
    private_folder(folder)
    shown = {**samples, "first": list(islice(staging.live(), LIST_SHOWN))}
    thumbnails: dict[str, Thumbnail] = {}
    if images:
        addresses = dict.fromkeys(sample.image for group in shown.values() for sample in group)
        for url, verdict in pictures(campaign, list(addresses)).items():
            if verdict.thumbnail is not None:
                thumbnails[url] = Thumbnail(verdict.mime, verdict.thumbnail, verdict.width, verdict.height)
    page = folder / "preview.html"
    write_preview_page(
        page,
        PreviewData(
            campaign=plan.campaign,
            provider=plan.provider,
            sandbox=plan.sandbox,
            generated_at=now_us(),
            plan_hash=plan.hash,
            audience=plan.audience,
            difference=plan.difference,
            pace=plan.pace_text(),
            finish=plan.finish_text(time.time()) if plan.difference.to_send else "",
            warnings=plan.warnings(time.time()),
            samples=shown,
            skipped=list(staging.skipped(SKIPPED_SHOWN)),
            columns_used=plan.used,
            columns_unused=plan.unused,
            thumbnails=thumbnails,
            caption_limit=campaign.provider.abilities.caption_limit,
        ),
    )
    return PreviewFiles(page, write_book(folder / "preview.xlsx", plan, staging.everything()))
