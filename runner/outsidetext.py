"""Outside text on a web page: escaped, told apart from our own words, and with nothing in it that works unseen.

A control character, a lone surrogate or a character that only steers the order of others (Unicode Standard Annex 9: U+202E
and its kin can make a name read as another one) is shown as its number. What belongs to honest writing stays: the joiners
and selectors of emoji and of Persian or Indic scripts, the plain direction marks, the tags that spell a flag.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"  # England, Scotland, Wales: a black flag and its letters as tags
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u115f\u1160\u180e\u200b\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    "\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f"
)
_ODD = re.compile(rf"({_FLAG})|([{_UNSEEN}])\2*")
_CUT = "…"
_ODD_IN_A_LINE = 20


def outside(text: object, longest: int = 300) -> Markup:
    """Outside text for one line of a page: isolated from the direction of what surrounds it, cut when it is very long.

    Markup of ours comes back as it is.
    """
    if isinstance(text, Markup):  # it has been here before
        return text
    return Markup("<bdi>{}</bdi>").format(shown(clip(one_line(str(text)), longest), most=_ODD_IN_A_LINE))


def shown(text: str, most: int = 10_000) -> Markup:
    """The text escaped, every unseen character as its number (`U+202E`), a run of the same one as `U+0000 ×500`.

    After the first `most` of them the others are U+FFFD: thirty bytes for each would swell a page.
    """
    parts: list[Markup] = []
    at = 0
    for match in _ODD.finditer(text):
        if match[1] is not None:
            continue
        parts.append(escape(text[at : match.start()]))
        at = match.end()
        if len(parts) > 2 * most:
            parts.append(Markup("\ufffd"))
            continue
        times = f" ×{len(match[0])}" if len(match[0]) > 1 else ""
        parts.append(Markup('<span class="odd">U+{:04X}{}</span>').format(ord(match[2]), times))
    parts.append(escape(text[at:]))
    return Markup("").join(parts)


def one_line(text: str) -> str:
    """Line breaks and tabs as single spaces."""
    return re.sub(r"[\r\n\t]+", " ", text)


def clip(text: str, longest: int) -> str:
    """At most `longest` characters, with an ellipsis in place of the rest."""
    return text if len(text) <= longest else text[: longest - 1] + _CUT
