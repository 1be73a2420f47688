"""Whether the campaign's images can be sent: each distinct address fetched once, before anybody is sent anything.

Without this, a missing or oversized picture comes to light recipient by recipient, after the first messages have gone out.
The rules are those that the providers share (vendor pages): a public http(s) address, JPEG or PNG, at most 5 MB. The bytes
decide, not the headers: servers label error pages as pictures, and pictures as anything.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from runner.mediafetch import Fetched, Fetcher, Network
from runner.mediaformat import Picture, complete, name_of, recognise
from runner.mediaguard import TEMPORARY, Fault, Guard, RefusedError
from runner.medialinks import Lease, lease

MEGABYTE = 1024 * 1024
THUMBNAIL_BYTES = 200 * 1024  # a picture up to here is handed out whole, for a preview page
LARGEST_PIXELS = 100_000_000  # above, phones and providers' resizers give up or refuse
LONG_QUERY = 1000  # characters; longer signed links have been cut or re-encoded by consoles on the way to the phone
_SAME_TYPE = {"image/jpeg": {"image/jpeg", "image/jpg", "image/pjpeg"}, "image/png": {"image/png", "image/x-png"}}


@dataclass(frozen=True, slots=True)
class ImageVerdict:
    """What became of one address. Texts are safe to show; none holds the address's query."""

    url: str  # as it was given
    ok: bool
    reason: Fault = Fault.NONE  # one word; "" when ok
    detail: str = ""  # for a person: "JPEG, 1,200 x 800, 340 KB", or what is wrong
    size: int = 0  # bytes: declared, or else read; 0 if unknown
    mime: str = ""  # the true type of a JPEG or PNG, else the declared one
    warnings: tuple[str, ...] = ()
    width: int = 0  # pixels; 0 if unknown
    height: int = 0
    thumbnail: bytes | None = None  # the file itself, if asked for and at most THUMBNAIL_BYTES

    @property
    def temporary(self) -> bool:
        """Whether the same address may well work later: a busy server says nothing about the picture."""
        return self.reason in TEMPORARY


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """How images are checked. `expires_within` is the seconds that a link must still work: the campaign's expected
    duration plus a day, because providers queue. `allow_hosts`: hosts that may be private, see `Guard`."""

    limit_bytes: int = 5 * MEGABYTE
    per_second: float = 5
    concurrency: int = 4
    timeout: float = 15
    allow_hosts: frozenset[str] = frozenset()
    redirects: int = 3
    expires_within: float = 24 * 3600


async def check_images(
    urls: Iterable[str] | AsyncIterable[str],
    policy: MediaPolicy,
    *,
    clock: Callable[[], float],
    on_verdict: Callable[[ImageVerdict], None],
    want_bytes: bool = False,
    network: Network | None = None,
) -> None:
    """Check every distinct address once; `on_verdict` is called as each is decided, in no particular order.

    `urls` is read as it is needed, and 16 bytes are remembered of each address, so a million is fine. `clock` gives Unix
    seconds. Never raises for an image; ValueError for a policy that cannot be followed, and whatever `urls` or
    `on_verdict` raise ends the check.
    """
    if policy.per_second <= 0 or policy.concurrency < 1:
        raise ValueError("checking images needs a rate above 0 and at least one connection")
    guard = Guard(policy.allow_hosts)
    source = _distinct(urls)
    turns = asyncio.Lock()
    keep = THUMBNAIL_BYTES if want_bytes else 0

    async def work() -> None:
        while True:
            async with turns:  # an async generator may not be entered twice
                url = await anext(source, None)
            if url is None:
                return
            on_verdict(await _check(url, guard, fetcher, policy, clock, keep))

    fetcher = Fetcher(
        guard,
        limit=policy.limit_bytes,
        timeout=policy.timeout,
        redirects=policy.redirects,
        turn=_Spacing(1 / policy.per_second).turn,
        network=network or Network(),
    )
    try:
        async with fetcher, asyncio.TaskGroup() as group:
            for _ in range(policy.concurrency):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the caller's own exception, as it would come out of a plain loop
    finally:
        await source.aclose()


def check_all(
    urls: Iterable[str],
    policy: MediaPolicy,
    *,
    clock: Callable[[], float],
    want_bytes: bool = False,
    network: Network | None = None,
) -> dict[str, ImageVerdict]:
    """`check_images` for callers without an event loop, address to verdict. All verdicts are held, thumbnails too: with
    `want_bytes` give it a sample, not the whole audience."""
    verdicts: dict[str, ImageVerdict] = {}

    def add(verdict: ImageVerdict) -> None:
        verdicts[verdict.url] = verdict

    asyncio.run(check_images(urls, policy, clock=clock, on_verdict=add, want_bytes=want_bytes, network=network))
    return verdicts


async def _distinct(urls: Iterable[str] | AsyncIterable[str]) -> AsyncGenerator[str, None]:
    seen: set[bytes] = set()

    def new(url: str) -> bool:
        mark = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        before = len(seen)
        seen.add(mark)
        return len(seen) > before

    if isinstance(urls, AsyncIterable):
        async for url in urls:
            if new(url):
                yield url
    else:
        for url in urls:
            if new(url):
                yield url


class _Spacing:
    """Requests start at least `gap` seconds apart, however many wait."""

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._next = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + self._gap
        await asyncio.sleep(start - now)


async def _check(
    url: str, guard: Guard, fetcher: Fetcher, policy: MediaPolicy, clock: Callable[[], float], keep: int
) -> ImageVerdict:
    terms = lease(url)
    try:
        target = guard.target(url)
        _require_lasting(terms, clock(), policy.expires_within)
        fetched = await fetcher.fetch(target, keep=keep)
    except RefusedError as error:
        return ImageVerdict(url, ok=False, reason=error.fault, detail=error.detail)
    return judge(url, fetched, policy.limit_bytes, tuple(_about_link(url, terms)))


def _require_lasting(terms: Lease, now: float, needed: float) -> None:
    if terms.until is None or terms.until >= now + needed:
        return
    moment = f"{datetime.fromtimestamp(terms.until, UTC):%Y-%m-%d %H:%M} UTC"
    if terms.until <= now:
        raise RefusedError(Fault.EXPIRES, f"the link stopped working on {moment}; use one that does not expire")
    raise RefusedError(
        Fault.EXPIRES, f"the link stops working on {moment}, maybe before everybody has the message; use a lasting one"
    )


def judge(url: str, fetched: Fetched, limit: int, warnings: tuple[str, ...] = ()) -> ImageVerdict:
    """A verdict on a 200 reply: first what it is, then how large. Pure."""
    size = max(fetched.size, fetched.declared or 0)
    picture = recognise(fetched.head)

    def no(reason: Fault, detail: str) -> ImageVerdict:
        mime = picture.mime if picture else fetched.mime
        return ImageVerdict(url, ok=False, reason=reason, detail=detail, size=size, mime=mime, warnings=warnings)

    if size == 0:
        return no(Fault.EMPTY, "the file is empty")
    if fetched.encoding:
        return no(
            Fault.NOT_AN_IMAGE,
            f"it comes with Content-Encoding {fetched.encoding}, although plain bytes were asked for",
        )
    if picture is None:
        return no(Fault.NOT_AN_IMAGE, _stranger(fetched))
    if not picture.readable:
        return no(
            Fault.NOT_AN_IMAGE, f"it begins like a {picture.name}, but its header is not one that phones can read"
        )
    if size > limit:
        known = fetched.whole or fetched.declared is not None
        amount = f"{size:,} bytes" if known else "more"
        return no(
            Fault.TOO_LARGE, f"the {picture.name} has {amount}; at most {limit:,} ({size_text(limit)}) can be sent"
        )
    shape = f"{picture.width:,} x {picture.height:,}, " if picture.width and picture.height else ""
    return ImageVerdict(
        url,
        ok=True,
        detail=f"{picture.name}, {shape}{size_text(size)}",
        size=size,
        mime=picture.mime,
        warnings=(*warnings, *_about_file(picture, fetched)),
        width=picture.width,
        height=picture.height,
        thumbnail=fetched.body,
    )


def _stranger(fetched: Fetched) -> str:
    name = name_of(fetched.head)
    if name.startswith("a web page"):
        way = f", after a redirect to {fetched.host}" if fetched.hops else ""
        return f"it is {name}, not the picture itself{way}; share links lead to such pages, use the direct address"
    label = f", labelled {fetched.mime}" if fetched.mime else ""
    return f"it is {name}{label}; only JPEG and PNG can be sent"


def _about_link(url: str, terms: Lease) -> Iterator[str]:
    if url[:5].lower() == "http:":
        yield "the address is http, not https: some providers fetch from https only"
    if len(url.partition("?")[2]) > LONG_QUERY:
        yield f"the address has more than {LONG_QUERY:,} characters behind its '?': such links get cut on the way"
    if not url.isascii() or " " in url:
        yield "the address holds blanks or letters outside ASCII, which programs encode in different ways"
    if terms.session:
        yield "the link is signed with short-lived credentials: it may stop working earlier than it says"
    elif terms.signed and terms.until is None:
        yield "the link bears a signature, and does not tell when it stops working"


def _about_file(picture: Picture, fetched: Fetched) -> Iterator[str]:
    if fetched.hops:
        yield f"the address is redirected to {fetched.host}: some providers do not follow, use the final address"
    if fetched.mime not in _SAME_TYPE[picture.mime]:
        label = f"labelled {fetched.mime}" if fetched.mime else "sent without a Content-Type"
        yield f"the {picture.name} is {label}: some providers then refuse it"
    if fetched.whole and not complete(picture, fetched.tail):
        yield f"the {picture.name} has no end mark: it seems to be cut off"
    if picture.width * picture.height > LARGEST_PIXELS:
        yield f"{picture.width:,} x {picture.height:,} pixels are more than many phones can show"
    if picture.cmyk:
        yield "it is made for print (CMYK): many programs show wrong colours, export it as RGB"


def size_text(size: int) -> str:
    """Bytes for people: `340 KB`, `5 MB`; 1 MB is 1,048,576 bytes."""
    if size < 1024:
        return f"{size} bytes"
    if size < MEGABYTE:
        return f"{size / 1024:.0f} KB"
    return f"{size / MEGABYTE:.2f}".rstrip("0").rstrip(".") + " MB"
