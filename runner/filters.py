"""Our own filters: `date`, `number`, `money`, `name`, `first_name`, `phone_last` and `plural`.

Plain functions from a value to text. They raise `UnreadableError` for a value and `BadArgumentError` for a setting
that they cannot use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from copy import copy
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING

from runner.templatevalues import BadArgumentError, UnreadableError, is_number, shown, text

if TYPE_CHECKING:
    from babel import Locale
    from babel.numbers import NumberPattern


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
    if mark not in (None, ".", ","):
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


def _with_places(pattern: NumberPattern, places: int) -> NumberPattern:
    mine = copy(pattern)  # Babel keeps one per locale for the whole process
    mine.frac_prec = (places, places)
    return mine


def number(value: object, decimals: object = None, locale: object = "en", decimal: object = None) -> str:
    """A number in the locale's way, e.g. `number(2, 'tr')` makes 1.234,50. Without `decimals`, at most three."""
    from babel.numbers import format_decimal

    speech, quantity = _locale(locale), _decimal(value, "number", decimal)
    if decimals is None:
        return format_decimal(_rounded(quantity, 3), locale=speech)
    places = _places(decimals)
    return str(_with_places(speech.decimal_formats[None], places).apply(_rounded(quantity, places), speech))


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
    pattern = _with_places(speech.currency_formats["standard"], places)
    return str(pattern.apply(amount, speech, currency=currency, currency_digits=False))


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
    if len(text(value)) > 500:
        raise UnreadableError(f"filter 'name' cannot read {shown(value)}: it is too long for a name")
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
