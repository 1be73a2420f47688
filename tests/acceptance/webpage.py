"""A page of ours, read with the standard library's parser alone: its elements, and the captions on it as they were written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = frozenset({"br", "img", "input", "link", "meta", "hr"})
_MARKS = {"strong": "*", "em": "_", "s": "~", "code": "`"}


@dataclass(slots=True)
class Element:
    """One element, its attributes as they are in the file, and what is in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    @property
    def classes(self) -> frozenset[str]:
        return frozenset(self.attributes.get("class", "").split())

    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def everything(self) -> Iterator[Element]:
        """It and every element in it, in order."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.everything()

    def all(self, tag: str = "", kind: str = "") -> list[Element]:
        """The elements with this tag and this class."""
        return [one for one in self.everything() if tag in ("", one.tag) and (not kind or kind in one.classes)]

    def one(self, tag: str = "", kind: str = "") -> Element:
        """The only such element."""
        (found,) = self.all(tag, kind)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute twice: {attrs}"
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def done(self) -> Element:
        self.close()
        assert len(self._open) == 1, f"never closed: {[one.tag for one in self._open[1:]]}"
        return self.root


def read(path: Path) -> Element:
    """The page; every element must be closed in its turn."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.done()


@dataclass(frozen=True, slots=True)
class Card:
    """One message on a page, with its caption's marks put back."""

    row: int
    phone: str
    caption: str
    whole: bool
    labels: tuple[str, ...]


def cards(page: Element) -> list[Card]:
    """The messages of a page, in order."""
    return [_card(element) for element in page.all("li", "card")]


def _card(element: Element) -> Card:
    head = next(one for one in element.everything() if re.fullmatch("h[1-6]", one.tag))
    title = re.match(r"Row (\d+) to \+?(\d+)", head.text())
    assert title is not None, head.text()
    body = element.one("div", "caption")
    lines = [line for block in body.children if isinstance(block, Element) for line in _lines(block)]
    return Card(
        row=int(title[1]),
        phone=title[2],
        caption="\n".join(lines),
        whole=not element.all("p", "hidden"),
        labels=tuple(one.text() for one in element.all("span", "label")),
    )


def _lines(block: Element) -> Iterator[str]:
    if "hidden" in block.classes:
        return
    if block.tag == "div":
        yield _written(block)
    for line in [one for one in block.children if isinstance(one, Element)] if block.tag != "div" else []:
        start = {"blockquote": "> ", "ul": "- ", "ol": f"{line.attributes.get('value')}. "}[block.tag]
        yield start + _written(line)


def _written(element: Element) -> str:
    parts = []
    for child in element.children:
        if isinstance(child, str):
            parts.append(child)
        elif "odd" in child.classes:
            code, _, times = child.text().partition(" ×")
            parts.append(chr(int(code[2:], 16)) * int(times or 1))
        elif child.tag != "br":
            mark = _MARKS[child.tag]
            parts.append(mark + _written(child) + mark)
    return "".join(parts)
