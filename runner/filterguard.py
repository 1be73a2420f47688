"""Every filter a caption may use, Jinja's own included, behind one guard.

Blanks pass through as blanks, work and sizes are counted against a `Meter`, and only text and finite numbers ever
become text. `replace`, `join`, `glue` and `percent` serve the operators and methods of the same meaning too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps

from jinja2 import Environment, pass_environment
from jinja2.filters import FILTERS, do_batch, make_attrgetter, sync_do_slice

from runner.filters import OURS
from runner.templatelimits import TEXT_LIMIT, Meter, grown, sized, weigh
from runner.templatevalues import BadArgumentError, Blank, RenderError, UnreadableError, printable, shown, text


def replace(value: object, old: object, new: object, count: object = None) -> str:
    """`str.replace`, its result's length known before it is built."""
    whole, gone, come = text(value), text(old), text(new)
    most = -1 if count is None else count
    if not isinstance(most, int):
        raise RenderError(f"filter 'replace' takes a count, not {shown(count)}")
    times = whole.count(gone) if most < 0 else min(most, whole.count(gone))
    grown(len(whole) + times * (len(come) - len(gone)), len(whole))
    return whole.replace(gone, come, most)


def join(items: Iterable[object], separator: object = "") -> str:
    """`str.join`, each item printable, the length counted on the way."""
    between, parts, length = text(separator), [], 0
    for item in items:
        part = printable(item)
        length = grown(length + len(part) + len(between))
        parts.append(part)
    return between.join(parts)


def glue(parts: list[object]) -> object:
    """The `~` operator: the parts as one text, or the blank that is among them."""
    for part in parts:
        if isinstance(part, Blank):
            return part
    return join(parts)


@pass_environment
def _join(environment: Environment, value: Iterable[object], d: object = "", attribute: str | int | None = None) -> str:
    return join(value if attribute is None else map(make_attrgetter(environment, attribute), value), d)


_CONVERSION = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(?P<width>\*|\d*)(?:\.(?P<digits>\*|\d*))?(?P<how>.?)", re.S)


def percent(pattern: str, values: object) -> str:
    """`pattern % values` for text and numbers, sizes checked first. No `%r`, no `*` widths."""
    length = len(pattern)
    given = values.values() if isinstance(values, dict) else values if isinstance(values, tuple) else (values,)
    longest = max((len(printable(value)) for value in given), default=0) + 400  # '%f' of 1e308 has 316 characters
    for found in _CONVERSION.finditer(pattern):
        if found["how"] not in set("sdiouxXeEfFgGc%") or "*" in {found["width"], found["digits"]}:
            raise RenderError(f"the format {found[0]!r} cannot be used in a caption")
        for size in (found["width"], found["digits"]):
            if size:
                length += sized(int(size[:9]))
        length = grown(length + longest)
    try:
        return pattern % (values if isinstance(values, dict | tuple) else (values,))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise RenderError(f"the format {shown(pattern)} does not suit its values: {error}") from error


def _format(value: object, *args: object, **kwargs: object) -> str:
    return percent(text(value), kwargs or args)


def _indent(value: object, width: object = 4, first: bool = False, blank: bool = False) -> object:
    lines, pad = text(value), width if isinstance(width, str) else " " * sized(width)
    grown(len(lines) + (lines.count("\n") + 1) * len(pad), len(lines))
    return FILTERS["indent"](lines, pad, first, blank)


def _center(value: object, width: object = 80) -> str:
    return text(value).center(sized(width))


_REQUIRED = object()


def _int(value: object, default: object = _REQUIRED, base: int = 10) -> object:
    """Jinja's `int` makes 0 of what it cannot read; ours only makes what the template says."""
    result = FILTERS["int"](value, _REQUIRED, base)
    if result is _REQUIRED and default is _REQUIRED:
        raise UnreadableError(f"filter 'int' cannot read {shown(value)}: it is not a whole number")
    return default if result is _REQUIRED else result


def _float(value: object, default: object = _REQUIRED) -> object:
    result = FILTERS["float"](value, _REQUIRED)
    if result is _REQUIRED and default is _REQUIRED:
        raise UnreadableError(f"filter 'float' cannot read {shown(value)}: it is not a number")
    return default if result is _REQUIRED else result


def _round(value: object, precision: object = 0, method: str = "common") -> object:
    return FILTERS["round"](value, sized(precision), method)


def _batch(value: Iterable[object], linecount: object, fill_with: object = None) -> object:
    return do_batch(value, _parts(linecount), fill_with)


def _slice(value: Iterable[object], slices: object, fill_with: object = None) -> object:
    return sync_do_slice(list(value), _parts(slices), fill_with)


def _parts(count: object) -> int:
    if (parts := sized(count)) < 1:
        raise BadArgumentError(f"the number of parts must be 1 or more, not {shown(count)}")
    return parts


# Left out on purpose: random (a preview would not be what goes out), safe, escape, tojson, xmlattr, urlize (a caption
# is plain text), pprint (a repr), attr (a way round the attribute list), wordwrap (quadratic on one long word).
# fmt: off
_JINJAS = [
    "abs", "capitalize", "count", "d", "default", "dictsort", "filesizeformat", "first", "groupby", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr",
    "sort", "string", "striptags", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
]
# fmt: on
_BOUNDED: Mapping[str, Callable[..., object]] = {
    "batch": _batch,
    "center": _center,
    "float": _float,
    "format": _format,
    "indent": _indent,
    "int": _int,
    "join": _join,
    "replace": replace,
    "round": _round,
    "slice": _slice,
}
# These make text of whatever they are given, lists and none included, so they are only given text and numbers.
_TEXTUAL = {
    "capitalize",
    "lower",
    "string",
    "striptags",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlencode",
    "wordcount",
}
_BLANK_AWARE = {"default", "d", "length", "count"}


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict | range) else 1


def _guarded(name: str, filter_: Callable[..., object], meter: Meter) -> Callable[..., object]:
    at = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def guard(*args: object, **kwargs: object) -> object:
        value = args[at]
        if type(value) is str:
            meter.spend(4 + len(value) // 32)
        elif isinstance(value, Blank) and name not in _BLANK_AWARE:
            return value
        else:
            meter.spend(4 + _size(value) // 32)
            if name in _TEXTUAL:
                value = text(value)
            elif isinstance(value, Iterator):
                value = meter.each(value)
            args = (*args[:at], value, *args[at + 1 :])
        result = filter_(*args, **kwargs)
        if isinstance(result, str):
            length = len(result)
            if length > TEXT_LIMIT:
                grown(length, _size(value))
            meter.spend(length // 32)
            return str(result)
        if isinstance(result, list | tuple | dict):
            meter.spend(weigh(result) // 32)
        return result

    return guard


def guarded_filters(meter: Meter) -> dict[str, Callable[..., object]]:
    """Every filter a caption may use, by name, counting against this meter."""
    chosen = {name: FILTERS[name] for name in _JINJAS} | dict(_BOUNDED) | dict(OURS)
    return {name: _guarded(name, filter_, meter) for name, filter_ in chosen.items()}
