"""What is recognised at once is what phonenumbers itself would have said, for every region and every way of writing."""

from __future__ import annotations

import random

import phonenumbers
import pytest
from phonenumbers import PhoneMetadata, PhoneNumber, PhoneNumberType

from runner.numberingplan import international, national
from runner.phones import Phone, PhoneFault, PhoneReader

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
KINDS = [kind for kind in PhoneNumberType.values() if kind != PhoneNumberType.UNKNOWN]


class Library(PhoneReader):
    """The same reader, with every number left to the library."""

    def _usual(self, number: str) -> Phone | None:
        return None


def examples(region: str) -> list[PhoneNumber]:
    found = (phonenumbers.example_number_for_type(region, kind) for kind in KINDS)
    return [number for number in found if number is not None]


def spoilt(number: str, lot: random.Random) -> str:
    """Some digits of a number changed, one too many or one too few."""
    digits = list(number)
    for _ in range(lot.choice([0, 0, 1, 2, 6])):
        digits[lot.randrange(len(digits))] = lot.choice("0123456789")
    if lot.random() < 0.1:
        digits.append(lot.choice("0123456789"))
    if lot.random() < 0.1 and len(digits) > 1:
        digits.pop()
    return "".join(digits)


@pytest.mark.parametrize("default", [None, "TR", "US", "IT", "own"])
def test_every_region_s_numbers_are_read_as_the_library_reads_them(default: str | None) -> None:
    lot = random.Random(f"numbers {default}")
    for region in REGIONS:
        own = region if default == "own" else default
        ours, library = PhoneReader(own), Library(own)
        metadata = PhoneMetadata.metadata_for_region(region, None)
        assert metadata is not None
        trunk, idd = metadata.national_prefix or "0", metadata.international_prefix or ""
        for example in examples(region):
            code = str(example.country_code)
            for prefix in ("+" + code, "00" + code, code, "", trunk, f"+{code}{trunk}", idd if idd.isdigit() else "8"):
                text = prefix + spoilt(phonenumbers.national_significant_number(example), lot)
                assert ours.read(text) == library.read(text), (text, own)


def test_nearly_every_valid_number_is_recognised_at_once() -> None:
    valid = [number for region in REGIONS for number in examples(region) if phonenumbers.is_valid_number(number)]
    texts = [f"{number.country_code}{phonenumbers.national_significant_number(number)}" for number in valid]
    assert sum(international(text) is not None for text in texts) > 0.9 * len(texts)


@pytest.mark.parametrize(
    ("digits", "region"),
    [("05321234567", "TR"), ("5321234567", "TR"), ("905321234567", "TR"), ("4155552671", "US"), ("07400123456", "GB")],
)
def test_a_number_as_written_at_home_is_recognised_at_once(digits: str, region: str) -> None:
    assert national(digits, region) is not None
    assert PhoneReader(region).read(digits) == Library(region).read(digits)


def test_a_country_that_is_not_allowed_is_refused_all_the_same() -> None:
    fault = PhoneReader("TR", frozenset({"DE"})).read("+905321234567")
    assert isinstance(fault, PhoneFault)
    assert fault.reason == "wrong_country"


@pytest.mark.parametrize("digits", ["", "0", "999", "90", "1", "80012345678"])
def test_what_is_no_usual_number_is_left_to_the_library(digits: str) -> None:
    assert international(digits) is None
