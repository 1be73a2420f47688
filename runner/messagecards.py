"""Messages as they will look on a phone, for the web pages: a picture, a caption, and how long it is.

A page stays small whatever it is given: every picture is embedded once, pictures and cards stop when their room is used up,
and a caption far beyond any provider's limit is cut. What is left out is counted, so that the page can say so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from runner.outsidetext import outside
from runner.whatsapp import caption_html

CAPTION_LIMIT = 1024
LONGEST_SHOWN = 4096  # characters of a caption
PICTURE_ROOM = 400_000  # bytes of all pictures together, before base64 makes them a third larger
CARD_ROOM = 300_000  # bytes of HTML of all cards together
_MIMES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})  # what shows pixels and nothing else


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy of a message's image. Without width and height (pixels) it is shown in a frame of 4 to 3."""

    mime: str
    data: bytes
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail in the page, which cards refer to by its id."""

    id: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Card:
    """One message to look at."""

    row: int | None
    phone: Markup
    labels: tuple[Markup, ...]
    picture: Picture | None
    image: Markup
    caption: Markup
    length: int
    limit: int
    hidden: int  # characters of the caption that are not shown
    status: str = ""
    why: Markup = field(default_factory=Markup)
    at: int | None = None  # microseconds since the epoch

    @property
    def filled(self) -> float:
        """How much of the limit the caption takes, in percent."""
        return min(100.0, 100 * self.length / self.limit) if self.limit else 0.0


class Deck:
    """Makes the cards of one page, and remembers the pictures they need."""

    def __init__(self, thumbnails: Mapping[str, Thumbnail], limit: int = CAPTION_LIMIT) -> None:
        self._thumbnails = thumbnails
        self._limit = limit
        self._pictures: dict[str, Picture] = {}
        self._picture_room = PICTURE_ROOM
        self._card_room = CARD_ROOM
        self.left_out = 0

    @property
    def pictures(self) -> Sequence[Picture]:
        """Those that the cards made so far refer to."""
        return tuple(self._pictures.values())

    def card(
        self,
        *,
        row: int | None,
        phone: str,
        image: str,
        caption: str,
        labels: Sequence[str] = (),
        status: str = "",
        why: str = "",
        at: int | None = None,
    ) -> Card | None:
        """A card, or None (and counted in `left_out`) when the page has no more room."""
        if self._card_room <= 0:
            self.left_out += 1
            return None
        body = caption_html(caption[:LONGEST_SHOWN])
        url = outside(image, 500)
        size = len(body.encode("utf-8", "replace")) + len(url.encode("utf-8", "replace"))
        if size > self._card_room:
            self.left_out += 1
            self._card_room = 0  # or each of the thousands that follow would be put together in vain
            return None
        self._card_room -= size
        return Card(
            row=row,
            phone=outside(f"+{phone}" if phone.isdigit() else phone, 40),
            labels=tuple(outside(label, 80) for label in labels),
            picture=self._picture(image),
            image=url,
            caption=body,
            length=len(caption),
            limit=self._limit,
            hidden=max(0, len(caption) - LONGEST_SHOWN),
            status=status,
            why=outside(why, 300) if why else Markup(""),
            at=at,
        )

    def _picture(self, url: str) -> Picture | None:
        if url in self._pictures:
            return self._pictures[url]
        thumbnail = self._thumbnails.get(url)
        if thumbnail is None or thumbnail.mime not in _MIMES or len(thumbnail.data) > self._picture_room:
            return None
        self._picture_room -= len(thumbnail.data)
        known = thumbnail.width > 0 and thumbnail.height > 0
        picture = Picture(
            id=f"picture{len(self._pictures) + 1}",
            uri=f"data:{thumbnail.mime};base64,{base64.b64encode(thumbnail.data).decode('ascii')}",
            width=thumbnail.width if known else 400,
            height=thumbnail.height if known else 300,
        )
        self._pictures[url] = picture
        return picture
