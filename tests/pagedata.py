"""Invented plans and results for the tests of the web pages: ordinary ones, and ones made of hostile text throughout."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

from runner.attemptstats import Attempt, measure
from runner.ledger.base import Difference, Sample
from runner.messagecards import Thumbnail
from runner.model import Status
from runner.previewpage import PreviewData
from runner.reportpage import ReportData
from runner.reportrows import pick
from runner.resultset import ResultRow, ResultSet
from runner.totals import Tally
from runner.units import Rate

AT = 1_795_300_434_000_000
IMAGE = "https://cdn.example.com/spring/lale-1.jpg"
OTHER_IMAGE = "https://cdn.example.com/spring/gul-1.jpg"
CAPTION = (
    "Merhaba Ayşe! 🌷\n*Laleli Çiçek* İzmir mağazasında bahar indirimi başladı.\n"
    "31 Aralık gününe kadar ~₺199~ ₺149,90.\n> yalnız bu hafta\n- lale\n- gül\n_Çıkmak için DUR yazın._"
)
ARABIC = "مرحبا ليلى! 🌹\nالعرض حتى *31 ديسمبر*"
DIFFERENCE = Difference(
    to_send=15,
    settled={Status.ACCEPTED: 3, Status.UNKNOWN: 1},
    skipped={"duplicate": 1, "filtered": 1, "invalid_phone": 4, "render_error": 1, "suppressed": 1},
    changed=1,
    gone={Status.ACCEPTED: 2},
    countries={"TR": 12, "DE": 2, "US": 1},
    resent=2,
)


def png(width: int, height: int) -> bytes:
    """A picture with a soft change of colour."""
    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (240 - y * 120 // height, 120 + x * 100 // width, 160))
        for y in range(height)
    )

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def thumbnails() -> Mapping[str, Thumbnail]:
    return {IMAGE: Thumbnail("image/png", png(32, 24), 32, 24)}


def sample(row: int, caption: str = CAPTION, *, image: str = IMAGE, phone: str = "905320001001") -> Sample:
    return Sample(row, phone, f"+{phone}", "", "", image, caption)


def left_out(row: int, value: str, reason: str, detail: str) -> Sample:
    return Sample(row, "", value, reason, detail, "", "")


def preview(
    *,
    campaign: str = "spring-sale",
    sandbox: bool = True,
    difference: Difference = DIFFERENCE,
    warnings: Sequence[str] = ("the vendor asks its users not to spam: WhatsApp may ban the number",),
    samples: Mapping[str, Sequence[Sample]] | None = None,
    skipped: Sequence[Sample] | None = None,
    pictures: Mapping[str, Thumbnail] | None = None,
    columns: Sequence[str] = ("Name", "City"),
) -> PreviewData:
    """An ordinary plan with every section, in practice unless told otherwise."""
    if samples is None:
        samples = {
            "City is filled": [sample(2)],
            "City is blank": [sample(4, CAPTION.replace("Ayşe", "Zeynep"), image=OTHER_IMAGE)],
            "longest": [sample(24, "Hello " * 150)],
            "shortest": [sample(4, "Hi")],
            "unusual": [sample(9, ARABIC, phone="971500000009")],
            "first": [sample(row) for row in range(2, 7)],
        }
    if skipped is None:
        skipped = [
            left_out(7, "0532", "invalid_phone", "too short to be a phone number"),
            left_out(11, "0532 000 10 02", "duplicate", "the same number as row 3"),
            left_out(12, "+90 532 000 10 12", "render_error", "column 'Price' is blank"),
        ]
    return PreviewData(
        campaign=campaign,
        provider="wapim",
        sandbox=sandbox,
        generated_at=AT,
        plan_hash="94d9712e14661907",
        audience="customers.csv: UTF-8, comma, 7 columns",
        difference=difference,
        pace="10/s: 2 s",
        finish="2026-11-22 10:34 UTC" if difference.to_send else "",
        warnings=warnings,
        samples=samples,
        skipped=skipped,
        columns_used=columns,
        columns_unused=("Notes",),
        thumbnails=thumbnails() if pictures is None else pictures,
    )


def row(number: int | None, status: str, reason: str = "", detail: str = "", **changes: object) -> ResultRow:
    """A result row that was tried once unless it was skipped or waits."""
    tried = status not in {"skipped", "pending", "claimed"}
    values: dict[str, object] = {
        "row": number,
        "phone": f"90532{number or 0:07}",
        "status": status,
        "reason": reason,
        "detail": detail,
        "code": "200" if status == "accepted" else "",
        "queue_id": "",
        "provider": "wapim",
        "attempts": int(tried),
        "first_attempt_at": AT if tried else None,
        "last_attempt_at": AT if tried else None,
        "delivery": "",
        "image": IMAGE,
        "caption": CAPTION,
        "own": (),
    }
    return ResultRow(**(values | changes))  # type: ignore[arg-type]  # named one by one above


def rows() -> list[ResultRow]:
    """23 rows: 11 accepted, 2 rejected, 2 unknown, 1 not sent, 1 waiting, 6 skipped."""
    return [
        *(row(number, "accepted", delivery="delivered" if number % 2 else "") for number in range(2, 13)),
        row(13, "rejected", "bad_request", "number is not on WhatsApp"),
        row(14, "rejected", "bad_request", "caption refused"),
        row(15, "unknown", "reply_timeout", "no complete reply within 5 s"),
        row(16, "unknown", "connection_lost", "the connection was lost after the request was sent"),
        row(17, "not_sent", "rate_limited", "told to slow down"),
        row(18, "pending"),
        *(row(number, "skipped", "invalid_phone", "too short", caption="") for number in range(19, 23)),
        row(23, "skipped", "duplicate", "the same number as row 2", caption=""),
        row(24, "skipped", "suppressed", "optouts.csv", caption=""),
    ]


def attempts(count: int = 400) -> list[Attempt]:
    """Ten a second, with a pause of five hours after two thirds."""
    dice = random.Random(3)
    found: list[Attempt] = []
    for number in range(count):
        started = AT + number * 100_000 + (5 * 3_600_000_000 if number >= count * 2 // 3 else 0)
        verdict = dice.choices(["accepted", "rejected", "not_sent", "unknown"], [90, 5, 3, 2])[0]
        code = {"accepted": "200", "rejected": "400", "not_sent": "429", "unknown": ""}[verdict]
        found.append((started, started + int(dice.lognormvariate(11.5, 0.5)), verdict, code))
    return found


def report(
    *,
    campaign: str = "spring-sale",
    sandbox: bool = False,
    results: Sequence[ResultRow] | None = None,
    tries: Sequence[Attempt] | None = None,
    rates: Sequence[Rate] = (Rate(10, 1), Rate(2000, 86400)),
    notes: tuple[str, ...] = ("Campaign file: spring.yaml", "Plan: 94d9712e14661907", "Rate: 10/s and 2000/day"),
    counts: Mapping[Status, int] | None = None,
) -> ReportData:
    """An ordinary report with every section."""
    results = rows() if results is None else results
    tally = Tally()
    for each in results:
        tally.add(each)
    found = ResultSet(
        campaign=campaign,
        provider="wapim",
        sandbox=sandbox,
        columns=("Mobile",),
        phone_column="Mobile",
        read_rows=lambda: iter(results),
        counts=counts if counts is not None else Counter(Status(each.status) for each in results),
        input_rows=sum(each.row is not None for each in results),
        generated_at=AT,
        run_notes=notes,
        mend=str,
    )
    return ReportData(
        summary=tally.summary(found),
        groups=tally.groups(),
        stats=measure(attempts() if tries is None else tries, rates),
        picked=pick(results),
        thumbnails=thumbnails(),
    )


def hostile_preview(texts: Sequence[str]) -> PreviewData:
    """Every place of the preview page that can hold outside text holds some of these."""
    return preview(
        campaign=texts[0],
        warnings=texts,
        samples={
            texts[1][:50]: [sample(2, texts[2], image=texts[3], phone=texts[4])],
            "first": [sample(n, text, image=text, phone=text) for n, text in enumerate(texts, start=2)],
        },
        skipped=[left_out(n, text, "invalid_phone", text) for n, text in enumerate(texts, start=2)],
        difference=Difference(1, {}, {"invalid_phone": len(texts), texts[5][:50]: 1}, 0, {}, {texts[6]: 1, "TR": 2}),
        columns=texts,
    )


def hostile_report(texts: Sequence[str]) -> ReportData:
    """Every place of the report page that can hold outside text holds some of these."""
    results = [
        row(n, status, text[:60], text, phone=text, image=text, caption=text, code=text, delivery=text)
        for n, (text, status) in enumerate(
            ((text, ("unknown", "rejected", "accepted")[place % 3]) for place, text in enumerate(texts)), start=2
        )
    ]
    tries = [(AT + n * 1000, AT + n * 1000 + 5, ("accepted", text)[n % 2], text) for n, text in enumerate(texts)]
    return report(campaign=texts[0], results=results, tries=tries, notes=tuple(texts))
