"""A phone number as people write it -> E.164 digits, or a fault that says what is wrong. Pure; never a guess.

phonenumbers (Google's libphonenumber data) is the judge of what is a number. It is a forgiving parser, so what would
mislead it is refused before it is asked; measured: "1.5417543e10" with region US parses to +11541754310, and the US
number 4155552671 without its 1 reads as +41 555..., a valid number in Switzerland.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, ValidationResult

from runner.model import SkipReason
from runner.numberingplan import international, national

_PLAIN = re.compile(r"\+?[0-9]{7,15}")
_ALLOWED = re.compile(r"[0-9+\-./()\[\] ]*")
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]*)?[eE][+-]?[0-9]+")
_EXTENSION = re.compile(
    r"(?:[0-9)\s.,;]\s*(?:ext\.?|extension|x|dahili|durchwahl)\s*[:.=]?\s*[0-9]+$)|[#*]", re.IGNORECASE
)
_DECIMAL = re.compile(r"\+?[0-9]{7,}[.,][0-9]{1,2}")
_SEPARATOR = re.compile(r"[,;/|&\n\r\t]|\b(?:or|and|ve|veya|ya da|oder|und)\b", re.IGNORECASE)
# Marks that a copy from a web page, a chat or a contacts app brings along. They change nothing about a left-to-right
# number; U+202E (right-to-left override) does: it shows other digits than there are, and is refused.
_HARMLESS = dict.fromkeys(
    [
        0x00AD,
        0x061C,
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202E),
        *range(0x2060, 0x2065),
        *range(0x2066, 0x206A),
        0xFEFF,
    ]
)
_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2043, 0x2212, 0x30FC, 0xFE58, 0xFE63, 0xFF0D], "-")
_APOSTROPHES = "'\u2018\u2019\u02bc`\u00b4"
_MAX_TEXT = 200  # characters; phonenumbers itself stops at 250
_WHY = {
    ValidationResult.TOO_SHORT: "it has too few digits",
    ValidationResult.TOO_LONG: "it has too many digits",
    ValidationResult.INVALID_LENGTH: "no number there has that many digits",
    ValidationResult.INVALID_COUNTRY_CODE: "no country has that code",
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "the area code is missing",
}
_USUAL_SLIPS = {"UK": "GB", "EN": "GB", "EL": "GR", "TUR": "TR", "GER": "DE", "USA": "US", "DEU": "DE", "GBR": "GB"}


class Phone(NamedTuple):
    """A valid number. `country` is an ISO region such as 'TR', or '' for numbers of no country (+800 ...)."""

    digits: str  # E.164 without the plus
    country: str


@dataclass(frozen=True, slots=True)
class PhoneFault:
    """Why a text is no number that may be written to, in words for a person."""

    reason: SkipReason
    detail: str


class PhoneReader:
    """Reads phone numbers by the rules of one audience.

    `default_region` (ISO, 'TR') is where a number without country code is at home; without it such a number is a
    fault. `allowed_countries` are the only ones that may be written to. Raises `ValueError` for an unknown region.
    """

    def __init__(self, default_region: str | None = None, allowed_countries: frozenset[str] | None = None) -> None:
        for code in [*(allowed_countries or ()), *([default_region] if default_region is not None else [])]:
            if not check_region(code):
                raise ValueError(f"unknown region {code!r}" + (f", {near}?" if (near := nearest_region(code)) else ""))
        self.default_region = default_region
        self.allowed_countries = allowed_countries

    def read(self, text: str) -> Phone | PhoneFault:
        """The number in `text`, or why there is none. Never raises."""
        if _PLAIN.fullmatch(text):  # the common case needs no cleaning
            return self._judge(text, text)
        cleaned = _clean(text)
        if isinstance(cleaned, PhoneFault):
            return cleaned
        return self._judge(cleaned, text)

    def _judge(self, number: str, text: str) -> Phone | PhoneFault:
        """`number` is digits with at most a plus before them."""
        usual = self._usual(number)
        if usual is not None:
            return usual
        if number.startswith("+"):
            found = _parse(number, None)
            return self._allowed(found, text) if isinstance(found, PhoneNumber) else _invalid(text, found)
        if number.startswith("00"):
            found = _parse("+" + number[2:], None)
            return self._allowed(found, text) if isinstance(found, PhoneNumber) else _invalid(text, found)
        why = ""
        if self.default_region is not None:
            home = _parse(number, self.default_region)
            if isinstance(home, PhoneNumber):
                return self._allowed(home, text)
            why = f"{home} (as a number of {self.default_region})"
        # Ten digits or fewer also fit a national number whose country code is missing, so they prove nothing.
        if len(number) >= 11 and number[0] != "0":
            abroad = _parse("+" + number, None)
            if isinstance(abroad, PhoneNumber):
                return self._allowed(abroad, text)
            why = why or abroad
        if self.default_region is None and (len(number) < 11 or number[0] == "0"):
            why = "it has no country code; set default_region, or write the number with + and its country code"
        return _invalid(text, why)

    def _usual(self, number: str) -> Phone | None:
        """What needs no more than its country's patterns: nearly every row of a clean sheet."""
        if number.startswith("+"):
            found = international(number[1:])
        elif number.startswith("00"):
            found = international(number[2:]) if number[2:] else None
        elif self.default_region is not None:
            found = national(number, self.default_region)
        else:
            found = international(number) if len(number) >= 11 and number[0] != "0" else None
        if found is None or (self.allowed_countries is not None and found[1] not in self.allowed_countries):
            return None
        return Phone(*found)

    def _allowed(self, number: PhoneNumber, text: str) -> Phone | PhoneFault:
        region = phonenumbers.region_code_for_number(number) or ""
        country = "" if region == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY else region
        if self.allowed_countries is not None and country not in self.allowed_countries:
            home = f"{country} (+{number.country_code})" if country else f"no country (+{number.country_code})"
            wanted = ", ".join(sorted(self.allowed_countries))
            detail = f"{_shown(text)} belongs to {home}, and allowed_countries is {wanted}"
            return PhoneFault(SkipReason.WRONG_COUNTRY, detail)
        return Phone(f"{number.country_code}{phonenumbers.national_significant_number(number)}", country)


def check_region(code: str) -> bool:
    """Whether `code` is a region that numbers can belong to, spelt as ISO 3166 does ('TR')."""
    return code in phonenumbers.SUPPORTED_REGIONS


def nearest_region(code: str) -> str:
    """The region code that a wrong one was meant to be ('tr', 'UK', '+90', 'Turkey'), or ''."""
    text = code.strip()
    upper = text.upper()
    if upper in phonenumbers.SUPPORTED_REGIONS:
        return upper
    if upper in _USUAL_SLIPS:
        return _USUAL_SLIPS[upper]
    digits = text.lstrip("+").lstrip("0")
    if digits.isascii() and digits.isdigit() and len(digits) <= 3:
        region = phonenumbers.region_code_for_country_code(int(digits))
        return region if check_region(region) else ""
    return _region_by_name(text) if len(text) > 3 else ""


def _region_by_name(name: str) -> str:
    from babel import Locale  # 90 ms, and only wanted for an error message

    names: dict[str, str] = {"turkey": "TR", "england": "GB", "america": "US"}
    for language in ("en", "tr", "de"):
        territories = Locale(language).territories
        names |= {title.casefold(): key for key, title in territories.items() if check_region(key)}
    near = difflib.get_close_matches(name.casefold(), list(names), n=1, cutoff=0.75)
    return names[near[0]] if near else ""


def _parse(number: str, region: str | None) -> PhoneNumber | str:
    """The valid number, or why it is none."""
    try:
        found = phonenumbers.parse(number, region)
    except NumberParseException as error:
        if error.error_type == NumberParseException.INVALID_COUNTRY_CODE:
            return _WHY[ValidationResult.INVALID_COUNTRY_CODE]
        return (
            "it has too many digits" if error.error_type == NumberParseException.TOO_LONG else "it is no phone number"
        )
    if phonenumbers.is_valid_number(found):
        return found
    return _WHY.get(phonenumbers.is_possible_number_with_reason(found), "no such number is in use there")


def _clean(text: str) -> str | PhoneFault:
    """`text` as digits with at most a plus before them, or the fault for what must not be guessed at."""
    if len(text) > _MAX_TEXT:
        return _invalid(text, f"it has {len(text):,} characters")
    plain = _latin(text.translate(_HARMLESS)).strip()
    plain = plain.lstrip(_APOSTROPHES).strip()
    if not plain:
        return PhoneFault(SkipReason.INVALID_PHONE, "blank")
    fault = _misleading(plain)
    if fault:
        return _invalid(text, fault)
    if _DECIMAL.fullmatch(plain):  # only the tail of a whole number is left: 905321234567.0
        plain = plain[:-2]
    sign, digits = plain.lstrip(" ([").startswith("+"), re.sub(r"[^0-9]", "", plain)
    return ("+" if sign else "") + digits


def _latin(text: str) -> str:
    """Digits of any script, full-width signs and all kinds of dashes and spaces as ASCII."""
    if text.isascii():
        return text
    characters: list[str] = []
    for character in text.translate(_DASHES):
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            characters.append(str(digit))
        elif unicodedata.category(character) == "Zs":
            characters.append(" ")
        elif "\uff01" <= character <= "\uff5e":  # full-width forms of ASCII
            characters.append(chr(ord(character) - 0xFEE0))
        else:
            characters.append(character)
    return "".join(characters)


def _misleading(plain: str) -> str:
    """What in a cleaned text would lead a parser astray; '' when there is nothing."""
    if _SCIENTIFIC.fullmatch(plain):
        return "it is in scientific notation, digits are lost; format the column as text and enter the numbers again"
    parts = [part for part in _SEPARATOR.split(plain) if sum(map(str.isdigit, part)) >= 7]
    plus = plain.find("+")
    if len(parts) > 1 or plain.count("+") > 1:
        return "there is more than one number in the cell"
    if _EXTENSION.search(plain):
        return "it has an extension, which a message cannot dial"
    if any(character.isalpha() for character in plain):
        return "it holds letters"
    strange = next((one for one in plain if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")), "")
    if strange:
        return f"it holds the invisible control character U+{ord(strange):04X}"
    if _DECIMAL.fullmatch(plain) and not plain.endswith(".0"):
        return "it is a decimal number; format the column as text and enter the numbers again"
    odd = _ALLOWED.sub("", plain)
    if odd:
        return f"it holds {odd[0]!r}, which no phone number has"
    digits = sum(map(str.isdigit, plain))
    if digits == 0:
        return "it holds no digit"
    if plus >= 0 and any(map(str.isdigit, plain[:plus])):
        return "the + stands after digits"
    if digits > 17 and not _DECIMAL.fullmatch(plain):
        return f"it has {digits} digits, and a phone number has at most 15; is it more than one number?"
    return ""


def _invalid(text: str, why: str) -> PhoneFault:
    return PhoneFault(SkipReason.INVALID_PHONE, f"{_shown(text)} is not usable: {why}")


def _shown(text: str) -> str:
    """The value for a message: at most 40 characters, nothing invisible in it."""
    visible = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text[:60])
    return f'"{visible[:37]}..."' if len(visible) > 40 or len(text) > 60 else f'"{visible}"'
