"""What a file really is, told from its first and last bytes: JPEG and PNG closely, everything else by name only.

Pure functions over bytes; nothing is decoded, so no picture can do harm here. Sources: PNG specification (W3C, 5.2 and 11.2.1),
ITU-T T.81 (JPEG) Annex B, and the magic numbers of the other formats' own specifications.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024  # bytes from the start that are looked at; a JPEG's size stands behind its camera data
TAIL_BYTES = 4 * 1024  # bytes from the end in which the end mark must stand; cameras write data of their own behind it

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers; the three are tables
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


@dataclass(frozen=True, slots=True)
class Picture:
    """What the header of a JPEG or PNG says. Sizes in pixels; 0 where the header does not tell."""

    name: str  # "JPEG" or "PNG"
    mime: str
    width: int = 0
    height: int = 0
    cmyk: bool = False  # four colour components: made for print
    readable: bool = True  # False: the signature is right, but what follows cannot be a picture


def recognise(head: bytes) -> Picture | None:
    """The JPEG or PNG that begins with these bytes, or None."""
    if head.startswith(_PNG):
        if len(head) >= 16 and head[12:16] != b"IHDR":  # e.g. Apple's CgBI, which browsers and phones cannot read
            return Picture("PNG", "image/png", readable=False)
        width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
        return Picture("PNG", "image/png", width, height, readable=len(head) < 24 or (width > 0 and height > 0))
    if head.startswith(_JPEG):
        width, height, components = _frame(head)
        return Picture("JPEG", "image/jpeg", width, height, cmyk=components == 4)
    return None


def _frame(head: bytes) -> tuple[int, int, int]:
    """Width, height and colour components from a JPEG's frame header; zeros if it does not stand in these bytes."""
    at = 2
    while at + 10 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            return int.from_bytes(head[at + 7 : at + 9]), int.from_bytes(head[at + 5 : at + 7]), head[at + 9]
        elif marker in {0xD9, 0xDA}:
            break
        else:
            at += 2 + max(2, int.from_bytes(head[at + 2 : at + 4]))
    return 0, 0, 0


def complete(picture: Picture, tail: bytes) -> bool:
    """Whether the end mark stands in the last bytes of the file: PNG's IEND chunk, JPEG's EOI marker."""
    return (b"IEND" if picture.name == "PNG" else b"\xff\xd9") in tail[-TAIL_BYTES:]


_BRANDS = (
    (b"avif", "an AVIF picture"), (b"avis", "an AVIF picture"),
    (b"hei", "an HEIC picture (iPhone)"), (b"hev", "an HEIC picture (iPhone)"), (b"mif1", "an HEIC picture (iPhone)"),
    (b"msf1", "an HEIC picture (iPhone)"), (b"qt", "a QuickTime video"), (b"M4A", "a sound file"), (b"", "an MP4 video"),
)  # fmt: skip
_MAGIC = (
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"PK\x03\x04", "a ZIP archive or Office document"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"(\xb5/\xfd", "Zstandard-compressed data"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
    (b"OggS", "an Ogg sound or video file"),
    (b"ID3", "an MP3 sound file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title", b"<meta", b"<div")


def name_of(head: bytes) -> str:
    """What a file that is neither JPEG nor PNG is, in words for a sentence: "a WebP picture", "a web page (HTML)"."""
    if head[:4] == b"RIFF":
        return "a WebP picture" if head[8:12] == b"WEBP" else "a sound or video file"
    if head[4:8] == b"ftyp":
        return next(name for brand, name in _BRANDS if head[8:12].startswith(brand))
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return _text(head)


def _text(head: bytes) -> str:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1024].lower()
    if start.startswith(_PAGE) or (start.startswith(b"<!--") and b"<html" in start):
        return "a web page (HTML)"
    if start.startswith(b"<"):
        if b"<svg" in start:
            return "an SVG drawing"
        return "a web page (HTML)" if b"<html" in start else "an XML document"
    if start.startswith((b"{", b"[")):
        return "JSON data"
    try:
        codecs.utf_8_decode(start, "strict", False)  # a letter may be cut in two at the end
    except UnicodeDecodeError:
        return "a file of an unknown kind"
    printable = start and all(byte >= 0x20 or byte in b"\t\r\n" for byte in start)
    return "text" if printable else "a file of an unknown kind"
