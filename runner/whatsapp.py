"""WhatsApp's own marks -> safe HTML: a caption as it will look on a phone.

The marks (WhatsApp Help Center, 'How to format your messages'): *bold*, _italic_, ~strikethrough~, ```monospace```,
`inline code`, a line that starts with `- ` or `* ` (list), `1. ` (numbered list) or `> ` (quote).

A mark counts only at the edge of a word: what stands outside it is no letter or digit, what stands inside it is no space,
and it ends on its own line (```monospace``` may run over several). So `snake_case_name` and `5 * 3 * 2` stay as they are.
Marks of different kinds may stand inside one another; inside monospace nothing counts. An image's caption is always text:
nothing in it can become markup of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup

from runner.outsidetext import shown

_TAGS = {"*": "strong", "_": "em", "~": "s"}
_CODE = re.compile(r"```(?=[^`])(.+?)```", re.DOTALL)
_INLINE_CODE = re.compile(r"(?<!`)`(?=[^`\s])([^`\n]*[^`\s])`(?!`)")
_MARK = re.compile(r"[*_~]|`+")
_LINE = re.compile(r"(?P<quote>> ?(?=\S))|(?P<bullet>[*\-] +(?=\S))|(?P<number>\d{1,3})\. +(?=\S)")


def caption_html(text: str) -> Markup:
    """The caption as HTML: one block a line, quotes and lists drawn together. Takes any text at all."""
    lines = _lines(text.replace("\r\n", "\n").replace("\r", "\n"))
    blocks = []
    for kind, group in groupby((_read_line(line) for line in lines), key=lambda line: line[0]):
        blocks.append(_block(kind, [(number, inline(rest)) for _, number, rest in group]))
    return Markup("").join(blocks)


def inline(text: str, inside: frozenset[str] = frozenset()) -> Markup:
    """The marks within a line. `inside` are the marks that are open already."""
    out: list[Markup] = []
    hopeless: set[str] = set()  # marks without an end further on: without this, '*a *a *a ...' takes quadratic time
    plain_from = at = 0
    while match := _MARK.search(text, at):
        at = match.start()
        if match[0].startswith("`"):
            code = _code_at(text, at, hopeless)
            if code is None:
                at = match.end()
                continue
            out += [shown(text[plain_from:at]), Markup("<code>{}</code>").format(shown(code[1]))]
            at = plain_from = code.end()
            continue
        mark, end = match[0], None
        if mark not in inside and mark not in hopeless and _opens(text, at):
            end = _end(text, at, mark)
            if end is None and "\n" not in text:
                hopeless.add(mark)
        if end is None:
            at += 1
            continue
        element = Markup("<{0}>{1}</{0}>").format(_TAGS[mark], inline(text[at + 1 : end], inside | {mark}))
        out += [shown(text[plain_from:at]), element]
        at = plain_from = end + 1
    out.append(shown(text[plain_from:]))
    return Markup("").join(out)


def _opens(text: str, at: int) -> bool:
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    return not before.isalnum() and bool(after) and not after.isspace() and after != text[at]


def _end(text: str, start: int, mark: str) -> int | None:
    line_end = text.find("\n", start)
    until = len(text) if line_end == -1 else line_end
    at = text.find(mark, start + 2, until)
    while at != -1:
        if not text[at - 1].isspace() and not text[at + 1 : at + 2].isalnum():
            return at
        at = text.find(mark, at + 1, until)
    return None


def _code_at(text: str, at: int, hopeless: set[str]) -> re.Match[str] | None:
    for name, pattern in (("```", _CODE), ("`", _INLINE_CODE)):
        if name in hopeless or not text.startswith(name, at):
            continue
        found = pattern.match(text, at)
        if found is not None:
            return found
        if name == "```" and text.find(name, at + 4) == -1:
            hopeless.add(name)
    return None


def _lines(text: str) -> Iterator[str]:
    """Split at line breaks, but not inside ```monospace```."""
    line_from = 0
    code = [match.span() for match in _CODE.finditer(text)]
    inside = iter([*code, (len(text) + 1, len(text) + 1)])
    start, end = next(inside)
    for match in re.finditer("\n", text):
        while match.start() >= end:
            start, end = next(inside)
        if match.start() < start:
            yield text[line_from : match.start()]
            line_from = match.end()
    yield text[line_from:]


def _read_line(line: str) -> tuple[str, str, str]:
    """The line's kind, its number, and what is left of it."""
    match = _LINE.match(line)
    if match is None:
        return "line", "", line
    kind = match.lastgroup or "line"
    return kind, match[kind] if kind == "number" else "", line[match.end() :]


def _block(kind: str, lines: list[tuple[str, Markup]]) -> Markup:
    if kind == "line":
        return Markup("").join(Markup('<div dir="auto">{}</div>').format(body or Markup("<br>")) for _, body in lines)
    if kind == "quote":
        rows = Markup("").join(Markup('<div dir="auto">{}</div>').format(body) for _, body in lines)
        return Markup("<blockquote>{}</blockquote>").format(rows)
    if kind == "bullet":
        rows = Markup("").join(Markup('<li dir="auto">{}</li>').format(body) for _, body in lines)
        return Markup("<ul>{}</ul>").format(rows)
    rows = Markup("").join(Markup('<li value="{}" dir="auto">{}</li>').format(int(n), body) for n, body in lines)
    return Markup("<ol>{}</ol>").format(rows)
