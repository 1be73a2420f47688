"""The usual phone number, judged at once: phonenumbers' own patterns, asked in the order in which its parser asks them.

`phonenumbers.parse` and `is_valid_number` take 50 microseconds a number, most of them spent on preparing for what a plain row
of digits cannot hold. Here a number is either recognised as valid by the very patterns that the library would end with, or
left to the library (None): this file never refuses one. A test compares both over all regions and all kinds of mistakes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata
from phonenumbers.phonemetadata import PhoneNumberDesc

_KINDS = (  # the commonest first; a number is valid when any of them fits
    "mobile",
    "fixed_line",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
)
_NON_GEOGRAPHICAL = "001"
_REGIONS = {str(code): regions for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()}


@dataclass(frozen=True, slots=True)
class _Shape:
    """One of the metadata's descriptions: possible lengths (none given: any) and a pattern for the whole number."""

    lengths: frozenset[int]
    pattern: re.Pattern[str]

    def allows(self, length: int) -> bool:
        return not self.lengths or length in self.lengths


@dataclass(frozen=True, slots=True)
class _Plan:
    """The numbering plan of one region."""

    region: str
    code: str  # country calling code
    general: _Shape
    kinds: tuple[_Shape, ...]
    leading: re.Pattern[str] | None  # decides alone whether a number of a shared code belongs here
    prefix: re.Pattern[str] | None  # what is dialled before a number within the country
    rewrites: bool  # the prefix is not merely left out
    abroad: re.Pattern[str] | None  # what is dialled to leave the country
    by_length: dict[int, re.Pattern[str] | None] = field(default_factory=dict)

    def valid(self, number: str) -> bool:
        """`number` is the national significant number."""
        length = len(number)
        if length in self.by_length:
            pattern = self.by_length[length]
        else:
            pattern = self.by_length[length] = self._pattern(length)
        return pattern is not None and pattern.match(number) is not None

    def _pattern(self, length: int) -> re.Pattern[str] | None:
        """What a valid number of that length looks like: as the general description and as that of one kind at least.

        In one pattern, which takes half the time of one after the other (measured).
        """
        kinds = [kind.pattern.pattern for kind in self.kinds if kind.allows(length)]
        if not kinds or not self.general.allows(length):
            return None
        return re.compile(
            rf"(?=(?:{self.general.pattern.pattern})\Z)(?:(?:{'|'.join(f'(?:{kind})' for kind in kinds)})\Z)"
        )

    def has_prefix(self, number: str) -> bool:
        return self.prefix is not None and self.prefix.match(number) is not None


def international(digits: str) -> tuple[str, str] | None:
    """E.164 digits and region of `digits` (what stands after the plus); None: ask the library."""
    for length in (2, 3, 1):  # no code begins with another one
        code = digits[:length]
        regions = _REGIONS.get(code)
        if regions is not None:
            return _judged(regions, code, digits[length:])
    return None


def national(digits: str, region: str) -> tuple[str, str] | None:
    """The same for a number written as at home in `region`, with or without its country code; None: ask the library."""
    home = _plan(region)
    if home is None or (home.abroad is not None and home.abroad.match(digits)):
        return None
    regions = _REGIONS[home.code]
    if regions[0] != region:
        return None
    if digits.startswith(home.code):
        if home.general.pattern.fullmatch(digits):
            return None
        return _judged(regions, home.code, digits[len(home.code) :])
    match = home.prefix.match(digits) if home.prefix is not None else None
    if match is None:
        return _judged(regions, home.code, digits)
    if home.rewrites or home.general.pattern.fullmatch(digits):
        return None
    return _belongs(regions, home.code, digits[match.end() :])


def _judged(regions: tuple[str, ...], code: str, number: str) -> tuple[str, str] | None:
    main = _plan(regions[0])
    if main is None or main.has_prefix(number):
        return None
    return _belongs(regions, code, number)


def _belongs(regions: tuple[str, ...], code: str, number: str) -> tuple[str, str] | None:
    if number[:1] in {"", "0"}:
        return None
    main = _plan(regions[0])
    if main is None or len(number) not in main.general.lengths:
        return None
    if len(regions) == 1:
        return (code + number, main.region) if main.valid(number) else None
    for name in regions:
        plan = _plan(name)
        if plan is None:
            return None
        if plan.leading is not None:
            if plan.leading.match(number):
                return (code + number, name) if plan.valid(number) else None
        elif plan.valid(number):
            return code + number, name
    return None


@cache
def _plan(region: str) -> _Plan | None:
    if region == _NON_GEOGRAPHICAL:
        return None
    metadata = PhoneMetadata.metadata_for_region(region, None)
    if metadata is None:
        return None
    general = _shape(metadata.general_desc)
    if general is None:
        return None
    kinds = (_shape(getattr(metadata, name)) for name in _KINDS)
    return _Plan(
        region=region,
        code=str(metadata.country_code),
        general=general,
        kinds=tuple(kind for kind in kinds if kind is not None),
        leading=_compiled(metadata.leading_digits),
        prefix=_compiled(metadata.national_prefix_for_parsing),
        rewrites=bool(metadata.national_prefix_transform_rule),
        abroad=_compiled(metadata.international_prefix),
    )


def _shape(description: PhoneNumberDesc | None) -> _Shape | None:
    if description is None or not description.national_number_pattern:
        return None
    return _Shape(frozenset(description.possible_length), re.compile(description.national_number_pattern))


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None
