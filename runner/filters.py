"""What may stand behind a `|` in a caption, and what each filter does to a blank cell and to a hostile size.

Two halves. The upper one is ours: `date`, `number`, `money`, `name`, `first_name`, `phone_last`, `plural`, plain
functions from a value to text that raise `UnreadableError` for a value and `BadArgumentError` for a setting they cannot use.
The lower one puts every filter, Jinja's own included, behind one guard: blanks pass through as blanks, work and
sizes are counted against a `Meter`, and only text and finite numbers ever become text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import wraps
from typing import TYPE_CHECKING, NoReturn

from jinja2 import Environment, TemplateRuntimeError, Undefined, pass_environment
from jinja2.filters import FILTERS, make_attrgetter

if TYPE_CHECKING:
    from babel import Locale

SIZE_LIMIT = 2_000  # widths, counts, precisions and `range` a template may ask for
ITEM_LIMIT = 10_000  # leaves of a list or mapping, nested ones counted through
TEXT_LIMIT = 65_536  # characters of a text that a template builds (a long cell may pass through at its own length)
WORK_LIMIT = 65_536  # units of work for one text; measured: the costliest allowed bombs stop within 0.3 s

# What faulty exports write for an empty cell. Compared case-sensitively: Nan and Null are people's names.
HOLLOW = frozenset(
    {"nan", "NaN", "NAN", "None", "null", "NULL", "undefined", "NaT", "<NA>", "[object Object]"}
    | {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"}
)


class RenderError(TemplateRuntimeError):
    """One row cannot be rendered; its text says why, for the person who owns the sheet."""


class TooLongError(RenderError):
    """The text outgrew every use a caption could have for it."""


class BlankError(RenderError):
    """A blank cell would have become text."""


class UnreadableError(RenderError):
    """A filter was given a value that it cannot read."""


class BadArgumentError(RenderError):
    """A filter was given a setting that no value could make right; found when the campaign is checked."""


class Blank(Undefined):
    """A blank cell: false, empty, equal to "", and a `RenderError` the moment it would become text.

    It is an `Undefined`, so `default` and `is defined` take it for missing. Anything computed from it is the same
    blank again, as SQL does with NULL: `city|upper`, `city ~ "!"` and `city.strip()` are blank when the city is.
    Ordering against it is false, and so is `==` with anything but "" and another blank.
    """

    __slots__ = ()

    def __init__(self, column: str) -> None:
        super().__init__(hint=f"column '{column}' is blank", name=column, exc=BlankError)

    def _itself(self, *_args: object, **_kwargs: object) -> Blank:
        return self

    def _never(self, _other: object) -> bool:
        return False

    def _fail(self, *_args: object) -> NoReturn:
        self._fail_with_undefined_error()

    # Undefined declares these as never returning; a blank spreads instead.
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _itself  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _itself  # type: ignore[assignment]
    __mod__ = __rmod__ = __pow__ = __rpow__ = __pos__ = __neg__ = _itself  # type: ignore[assignment]
    __call__ = __getitem__ = _itself  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _never  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = _fail
    __int__ = __float__ = __complex__ = __index__ = _fail

    def __contains__(self, _item: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blank) or other == ""

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash("")


def shown(value: object) -> str:
    """A value as a person may be shown it in a report: quoted, cut at 60 characters, nothing invisible left raw."""
    return repr(value[:60]) if isinstance(value, str) else f"{value!r:.60}" if is_number(value) else kind(value)


def is_number(value: object) -> bool:
    """Whether it is an int or float; true and false are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing (none)"
    if isinstance(value, bool):
        return "a yes/no value"
    if isinstance(value, float):
        return "not a finite number"
    if callable(value):
        return "a function"
    words = {str: "text", int: "a number", list: "a list", tuple: "a list", dict: "a mapping", range: "a range"}
    return words.get(type(value), "not text")


def text(value: object) -> str:
    """The text of what may become text: text, whole numbers, finite numbers. Raises RenderError for everything else."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # raises, naming the blank column or the missing attribute
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise RenderError(f"{kind(value)} cannot be printed")


def printable(value: object) -> str:
    """`text`, refusing what a faulty export leaves in empty cells ('nan', '#N/A' ...)."""
    if (words := text(value)) in HOLLOW:
        raise RenderError(
            f"the value is {words!r}, which exports write for an empty or broken cell; clear or mend the cell"
        )
    return words


# -- ours ------------------------------------------------------------------------------------------------------------


def _locale(code: object) -> Locale:
    from babel import Locale

    try:
        return Locale.parse(str(code).replace("-", "_"))
    except Exception as error:  # Babel raises five kinds for a bad locale name
        raise BadArgumentError(f"unknown locale {shown(code)}; write for example 'tr' or 'en_GB'") from error


_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_LETTERS = re.compile(r"[dmYyHMS., /:\-]+")


def _moment(value: object, form: object) -> datetime:
    written = text(value).strip()
    try:
        if form is None:
            if _ISO.fullmatch(written):
                return datetime.fromisoformat(written)
        elif isinstance(form, str) and (("%" in form and len(form) <= 40) or _LETTERS.fullmatch(form)):
            pattern = form if "%" in form else re.sub("[a-zA-Z]", r"%\g<0>", form)
            return datetime.strptime(written, pattern)  # noqa: DTZ007  # a calendar date bears no zone
        else:
            raise BadArgumentError(f"input {shown(form)} is not a date form; write for example 'd.m.Y' or 'd/m/Y'")
    except re.error as error:  # strptime builds a pattern from the form
        raise BadArgumentError(f"input {shown(form)} is not a date form") from error
    except ValueError as error:
        if "bad directive" in str(error) or "stray %" in str(error):
            raise BadArgumentError(f"input {shown(form)} is not a date form: {error}") from error
    wanted = "an ISO date such as 2026-03-31 (name another form: input='d.m.Y')" if form is None else f"of form {form}"
    raise UnreadableError(f"filter 'date' cannot read {shown(value)}: it is not {wanted}")


def date(value: object, format: object = "long", locale: object = "en", input: object = None) -> str:
    """A date in words. Reads ISO 8601, or exactly the form given as `input` ('d.m.Y', 'm/d/Y H:M', '%d %b %Y').

    `format` is short, medium, long, full or a Unicode LDML pattern such as 'd MMMM y' (CLDR data through Babel).
    """
    speech = _locale(locale)
    moment = _moment(value, input)
    from babel.dates import format_date, format_datetime

    if not isinstance(format, str) or not 0 < len(format) <= 60:
        raise BadArgumentError(
            f"date format {shown(format)} is not short, medium, long, full or a pattern such as 'd MMMM y'"
        )
    try:
        if format in {"short", "medium", "long", "full"}:
            return str(format_date(moment.date(), format, speech))
        return str(format_datetime(moment, format, locale=speech))
    except Exception as error:  # Babel's pattern reader has no error class of its own
        raise BadArgumentError(f"date format {shown(format)} cannot be used: {error}") from error


def _reading(point: str, group: str) -> re.Pattern[str]:
    part = rf"[1-9]\d{{0,2}}(?P<sep>[{group} '])\d{{3}}(?:(?P=sep)\d{{3}})*"
    return re.compile(rf"(?P<whole>\d+|{part})(?:{re.escape(point)}(?P<rest>\d+))?", re.ASCII)


_READINGS = {".": _reading(".", ","), ",": _reading(",", ".")}
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "’": "'", "−": "-"})


def _decimal(value: object, filter_name: str, mark: object = None) -> Decimal:
    """Reads '1234.5', '1.234,50', '1 234'. What could be two numbers ('1.234') needs `mark`, its decimal point."""
    if mark not in {None, ".", ","}:
        raise BadArgumentError(f"decimal must be '.' or ',', not {shown(mark)}")
    if is_number(value):
        number = Decimal(text(value))
        if abs(number) < 10**15:
            return number
        raise UnreadableError(f"filter '{filter_name}' cannot read {shown(value)}: it is too large")
    written = text(value).translate(_SPACES).strip()
    negative, digits = written.startswith("-"), written.removeprefix("-").removeprefix("+").strip()
    found = set()
    for point, reading in _READINGS.items():
        if mark in {None, point} and len(digits) <= 40 and (match := reading.fullmatch(digits)):
            found.add(Decimal(re.sub(r"\D", "", match["whole"]) + "." + (match["rest"] or "0")))
    if len(found) == 1 and (size := found.pop()) < 10**15:
        return -size if negative else size
    if found:
        raise UnreadableError(
            f"filter '{filter_name}' cannot read {shown(value)} safely: its mark may part thousands or decimals; "
            "say which with decimal='.' or decimal=','"
        )
    raise UnreadableError(
        f"filter '{filter_name}' cannot read {shown(value)}: it is not a number such as 1234.5 or 1.234,50"
    )


def _places(decimals: object) -> int:
    if isinstance(decimals, int) and not isinstance(decimals, bool) and 0 <= decimals <= 10:
        return decimals
    raise BadArgumentError(f"decimals must be a whole number from 0 to 10, not {shown(decimals)}")


def _rounded(number: Decimal, places: int) -> Decimal:
    # Prices round half away from zero; Babel's own rounding is half to even.
    # The added nought makes -0 a plain 0; 60 digits hold all that `_decimal` lets in.
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, Context(prec=60)) + 0


def number(value: object, decimals: object = None, locale: object = "en", decimal: object = None) -> str:
    """A number in the locale's way, e.g. `number(2, 'tr')` makes 1.234,50. Without `decimals`, at most three."""
    from babel.numbers import format_decimal

    speech, quantity = _locale(locale), _decimal(value, "number", decimal)
    if decimals is None:
        return format_decimal(_rounded(quantity, 3), locale=speech)
    places = _places(decimals)
    return str(speech.decimal_formats[None].apply(_rounded(quantity, places), speech, force_frac=(places, places)))


def money(
    value: object, currency: object, locale: object = "en", decimals: object = None, decimal: object = None
) -> str:
    """An amount with its currency (ISO 4217 code, e.g. 'TRY'), with that currency's decimals unless told otherwise."""
    from babel.numbers import format_currency, get_currency_precision, is_currency

    speech = _locale(locale)
    if not isinstance(currency, str) or not is_currency(currency, speech) or len(currency) != 3:
        raise BadArgumentError(
            f"unknown currency {shown(currency)}; write its ISO 4217 code, for example 'TRY' or 'EUR'"
        )
    places = get_currency_precision(currency) if decimals is None else _places(decimals)
    amount = _rounded(_decimal(value, "money", decimal), places)
    if decimals is None:
        return format_currency(amount, currency, locale=speech)
    pattern = speech.currency_formats["standard"]
    return str(pattern.apply(amount, speech, currency=currency, currency_digits=False, force_frac=(places, places)))


def first_name(value: object) -> str:
    """The first word of a full name; of 'Yılmaz, Ayşe' the first word behind the comma. Spelling is left alone."""
    written = text(value)
    _, comma, given = written.partition(",")
    words = (given if comma and given.strip() else written).split()
    if not words or not any(letter.isalpha() for letter in words[0]):
        raise UnreadableError(f"filter 'first_name' cannot read {shown(value)}: there is no name in it")
    return words[0].strip(",;")


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*[\u0300-\u036f\w]*")
_TURKIC = {"tr", "az"}


def name(value: object, locale: object = None) -> str:
    """Proper case for names typed all in capitals or all small; 'McDonald' and 'van' of a mixed name stay.

    The dotless i needs the language: with `locale='tr'` (or 'az') AYŞE YILMAZ becomes Ayşe Yılmaz.
    """
    if locale is not None and not (isinstance(locale, str) and re.fullmatch(r"[a-zA-Z]{2,3}([_-]\w+)*", locale)):
        raise BadArgumentError(f"unknown locale {shown(locale)}; write for example 'tr' or 'en'")
    turkic = isinstance(locale, str) and locale[:2].lower() in _TURKIC and locale[2:3] in {"", "_", "-"}
    written = unicodedata.normalize("NFC", " ".join(text(value).split()))
    small = written.islower()

    def recase(found: re.Match[str]) -> str:
        word = found[0]
        if not (small or (word.isupper() and len(word) > 1)):
            return word
        parts = re.split("(['’])", word)
        for at, part in enumerate(parts):
            low = (part.replace("I", "ı") if turkic else part).replace("İ", "i").lower()
            # O'Neil and D'Angelo, but Ayşe'nin: what follows an apostrophe starts large only behind one letter.
            if part and (at == 0 or len(parts[at - 2]) == 1):
                first = "İ" if turkic and low[0] == "i" else low[0].title()
                low = first + low[1:]
            parts[at] = low
        return "".join(parts)

    return _WORD.sub(recase, written)


def phone_last(value: object, n: object = 4) -> str:
    """The last `n` digits (1 to 15) of a phone number, for 'the number ending in 1122'."""
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 15:
        raise BadArgumentError(f"phone_last takes how many digits, 1 to 15, not {shown(n)}")
    digits = re.sub(r"\D", "", text(value), flags=re.ASCII)
    if len(digits) < n:
        raise UnreadableError(f"filter 'phone_last' cannot read {shown(value)}: it has fewer than {n} digits")
    return digits[-n:]


def plural(value: object, one: object, many: object) -> str:
    """`one` when the number is exactly 1, else `many`: `{{ n }} {{ n|plural("item", "items") }}`."""
    return text(one) if abs(_decimal(value, "plural")) == 1 else text(many)


OURS: Mapping[str, Callable[..., object]] = {
    f.__name__: f for f in (date, number, money, first_name, name, phone_last, plural)
}
# A value each of ours can read, so that the constant settings beside it can be tried before any row is seen.
SAMPLES = {"date": "2026-01-31", "number": "1", "money": "1", "first_name": "A B", "name": "A", "plural": "1"} | {
    "phone_last": "1" * 15
}


# -- the guard -------------------------------------------------------------------------------------------------------


class Meter:
    """What one text may still cost. Set anew before each text; one Renderer is used by one thread at a time."""

    __slots__ = ("chars", "most_chars", "work")

    def __init__(self, chars: int) -> None:
        self.most_chars = chars
        self.chars = chars
        self.work = WORK_LIMIT

    def reset(self) -> None:
        """Fills it up again."""
        self.chars = self.most_chars
        self.work = WORK_LIMIT

    def spend(self, work: int, chars: int = 0) -> None:
        """Takes work and printed characters away. Raises RenderError or TooLongError when there is no more."""
        self.work -= work
        self.chars -= chars
        if self.work < 0:
            raise RenderError("the template asks for too much work (endless or very large loops, or calls)")
        if self.chars < 0:
            raise TooLongError(f"the text is longer than {self.most_chars:,} characters")

    def each(self, items: Iterable[object]) -> Iterator[object]:
        """The same items, each paid for."""
        for item in items:
            self.spend(1)
            yield item


def sized(count: object) -> int:
    """A width, count or precision a template asked for, within SIZE_LIMIT. Raises RenderError."""
    if not isinstance(count, int) or abs(count) > SIZE_LIMIT:
        raise RenderError(f"{shown(count)} is too large a width or count; at most {SIZE_LIMIT:,}")
    return count


def weigh(held: object) -> int:
    """How many leaves a list or mapping holds, nested ones counted through; over ITEM_LIMIT raises RenderError.

    Ten lists that each hold the one before twice compare a thousand leaves, forty would compare a million million.
    """
    leaves, waiting = 0, [held]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, list | tuple):
            waiting.extend(thing[: ITEM_LIMIT + 1])
        elif isinstance(thing, dict):
            waiting.extend(list(thing.values())[: ITEM_LIMIT + 1])
        leaves += 1
        if leaves > ITEM_LIMIT or len(waiting) > ITEM_LIMIT:
            raise RenderError(f"a list of more than {ITEM_LIMIT:,} items")
    return leaves


def grown(length: int, before: int = 0) -> int:
    """A text's coming length, checked before it is built: within TEXT_LIMIT or no longer than it was. Raises TooLongError."""
    if length > max(TEXT_LIMIT, before):
        raise TooLongError(f"a filter or operator would make a text of {length:,} characters")
    return length


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


def _parts(name: str) -> Callable[..., object]:
    def parts(value: Iterable[object], count: object, fill_with: object = None) -> object:
        if sized(count) < 1:
            raise BadArgumentError(f"filter '{name}' takes a number from 1, not {shown(count)}")
        return FILTERS[name](value, count, fill_with)

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
    "batch": _parts("batch"),
    "center": _center,
    "float": _float,
    "format": _format,
    "indent": _indent,
    "int": _int,
    "join": _join,
    "replace": replace,
    "round": _round,
    "slice": _parts("slice"),
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
            meter.spend(grown(len(result), _size(value)) // 32)
            return str(result)
        if isinstance(result, list | tuple | dict):
            meter.spend(weigh(result) // 32)
        return result

    return guard


def guarded_filters(meter: Meter) -> dict[str, Callable[..., object]]:
    """Every filter a caption may use, by name, counting against this meter."""
    chosen = {name: FILTERS[name] for name in _JINJAS} | dict(_BOUNDED) | dict(OURS)
    return {name: _guarded(name, filter_, meter) for name, filter_ in chosen.items()}
