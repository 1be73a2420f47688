"""Phone numbers as people write them: what is read, what is refused, and what is never guessed."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumber, PhoneNumberFormat, PhoneNumberType

from runner.model import SkipReason
from runner.phones import Phone, PhoneFault, PhoneReader, check_region, nearest_region

ANYWHERE = PhoneReader()
TURKEY = PhoneReader("TR")
ADA = Phone("905320000001", "TR")


def fault(text: str, reader: PhoneReader = ANYWHERE) -> str:
    found = reader.read(text)
    assert isinstance(found, PhoneFault)
    assert found.reason is SkipReason.INVALID_PHONE
    return found.detail


@pytest.mark.parametrize(
    "text",
    [
        "+905320000001",
        "+90 532 000 00 01",
        "+90-532-000-00-01",
        "+90.532.000.00.01",
        "+90/532/0000001",
        "(+90) 532 000 00 01",
        "+90 (0) 532 000 00 01",
        "+90 [532] 000 00 01",
        "00905320000001",
        "00 90 532 000 00 01",
        "'+905320000001",
        "\u2019+905320000001",
        "  +905320000001\r\n",
        "\u202a+905320000001\u202c",
        "\u202d+90 532 000 00 01\u202c",
        "\u200e+905320000001",
        "\ufeff+905320000001",
        "+90\u00a0532\u00a0000\u00a000\u00a001",
        "+90\u200b5320000001",
        "+90\u2011532\u2013000\u221200\u201201",
        "٠٠٩٠٥٣٢٠٠٠٠٠٠١",
        "+٩٠ ٥٣٢ ٠٠٠ ٠٠ ٠١",
        "\uff0b\uff19\uff10\uff15\uff13\uff12\uff10\uff10\uff10\uff10\uff10\uff10\uff11",
        "+905320000001.0",
        "905320000001",
        "905320000001.0",
        "90 532 000 00 01",
    ],
)
def test_an_international_number_is_read_in_every_dress(text: str) -> None:
    assert ANYWHERE.read(text) == ADA


@pytest.mark.parametrize("text", ["05320000001", "5320000001", "0532 000 00 01", "(0532) 000 00 01", "5320000001.0"])
def test_a_national_number_needs_a_default_region(text: str) -> None:
    assert TURKEY.read(text) == ADA
    said = fault(text)
    assert "default_region" in said
    assert "country code" in said


def test_a_number_of_another_country_is_read_with_a_default_region_too() -> None:
    assert TURKEY.read("+49 1512 3456789") == Phone("4915123456789", "DE")
    assert TURKEY.read("0049 1512 3456789") == Phone("4915123456789", "DE")
    assert TURKEY.read("4915123456789") == Phone("4915123456789", "DE")
    assert TURKEY.read("905320000001") == ADA


@pytest.mark.parametrize("text", ["4155552671", "415 555 2671", "(415) 555-2671", "4155551212"])
def test_an_american_number_without_its_country_code_does_not_become_swiss(text: str) -> None:
    assert "country code" in fault(text)
    assert isinstance(TURKEY.read(text), PhoneFault)


def test_an_american_number_is_read_where_it_is_at_home() -> None:
    assert PhoneReader("US").read("415 555 2671") == Phone("14155552671", "US")
    assert ANYWHERE.read("+1 415 555 2671") == Phone("14155552671", "US")


def test_where_both_readings_of_a_bare_number_are_valid_the_national_one_wins() -> None:
    both = "13102345678"  # eleven digits: a mobile in China, and with a plus a number in California
    assert ANYWHERE.read(both) == Phone("13102345678", "US")
    assert PhoneReader("CN").read(both) == Phone("8613102345678", "CN")


def test_a_number_of_no_country_has_none() -> None:
    assert ANYWHERE.read("+800 1234 5678") == Phone("80012345678", "")


@pytest.mark.parametrize("text", ["", " ", "\u00a0", "'", "\u200b\u200e", "\r\n"])
def test_a_blank_is_blank(text: str) -> None:
    assert TURKEY.read(text) == PhoneFault(SkipReason.INVALID_PHONE, "blank")


@pytest.mark.parametrize("text", ["9.05E+11", "9,05E+11", "9.05320000001e11", "1.5417543e10", "9E11"])
@pytest.mark.parametrize("reader", [ANYWHERE, TURKEY, PhoneReader("US")])
def test_scientific_notation_is_refused_with_the_cure(text: str, reader: PhoneReader) -> None:
    assert "format the column as text" in fault(text, reader)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("+90 532 CALL ME", "letters"),
        ("n/a", "letters"),
        ("tel:+905320000001", "letters"),
        ("+1 800 FLOWERS", "letters"),
        ("+905320000001 ext 5", "extension"),
        ("+905320000001 x5", "extension"),
        ("+905320000001;ext=5", "extension"),
        ("0212 000 00 00 dahili 12", "extension"),
        ("+905320000001#5", "extension"),
        ("905320000001.5", "decimal"),
        ("905320000001.00", "decimal"),
        ("905320000001,0", "decimal"),
        ("+905320000001, +905320000002", "more than one number"),
        ("+905320000001/+905320000002", "more than one number"),
        ("05320000001 / 05320000002", "more than one number"),
        ("05320000001;05320000002", "more than one number"),
        ("05320000001\n05320000002", "more than one number"),
        ("05320000001 or 05320000002", "more than one number"),
        ("05320000001 ve 05320000002", "more than one number"),
        ("+905320000001+905320000002", "more than one number"),
        ("05320000001 05320000002", "more than one number"),
        ("\u202e1000000235+", "U+202E"),
        ("+90532\x00000001", "U+0000"),
        ("+90532\t0000001", "U+0009"),
        ("905,320,000,001", "','"),
        ("90532_0000001", "'_'"),
        ("90+5320000001", "the + stands after digits"),
        ("+", "no digit"),
        ("()", "no digit"),
        ("+90532", "too few digits"),
        ("+141555526711", "too many digits"),
        ("+999 532 000 0001", "no country has that code"),
        ("1" * 300, "300 characters"),
        ("+90²5320000001", "'²'"),
    ],
)
def test_what_would_mislead_a_parser_is_refused_by_name(text: str, why: str) -> None:
    assert why in fault(text, TURKEY)


def test_the_detail_shows_the_value_shortened_and_without_invisible_signs() -> None:
    said = fault("letters " * 20)
    assert said.startswith('"letters letters')
    assert "..." in said
    assert len(said.split(" is not usable")[0]) <= 42
    assert "\u202e" not in fault("\u202e123")


def test_a_country_that_is_not_allowed_is_named() -> None:
    reader = PhoneReader("TR", frozenset({"TR", "AZ"}))
    assert reader.read("05320000001") == ADA
    found = reader.read("+4915123456789")
    assert isinstance(found, PhoneFault)
    assert found.reason is SkipReason.WRONG_COUNTRY
    assert "DE (+49)" in found.detail
    assert "AZ, TR" in found.detail
    nowhere = reader.read("+80012345678")
    assert isinstance(nowhere, PhoneFault)
    assert nowhere.reason is SkipReason.WRONG_COUNTRY


def test_regions_are_iso_codes() -> None:
    assert check_region("TR")
    assert not any(check_region(code) for code in ("tr", "UK", "", "XX", "001", "Turkey"))
    with pytest.raises(ValueError, match="'UK', GB"):
        PhoneReader("UK")
    with pytest.raises(ValueError, match="unknown region"):
        PhoneReader("TR", frozenset({"XX"}))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("tr", "TR"),
        (" de ", "DE"),
        ("UK", "GB"),
        ("+90", "TR"),
        ("49", "DE"),
        ("001", "US"),
        ("Turkey", "TR"),
        ("Türkiye", "TR"),
        ("Deutschland", "DE"),
        ("Almanya", "DE"),
        ("Gremany", "DE"),
        ("XX", ""),
        ("999", ""),
        ("Atlantis", ""),
        ("", ""),
    ],
)
def test_a_wrong_region_has_a_nearest_right_one(wrong: str, right: str) -> None:
    assert nearest_region(wrong) == right


def valid_numbers() -> list[PhoneNumber]:
    numbers = [
        phonenumbers.example_number_for_type(region, kind)
        for region in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE)
    ]
    return [number for number in numbers if number is not None and phonenumbers.is_valid_number(number)]


EXAMPLES = valid_numbers()


def test_there_are_examples_of_nearly_every_region() -> None:
    assert len(EXAMPLES) > 400


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_punctuation_around_the_digits_of_a_valid_number_changes_nothing(data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(EXAMPLES))
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    zero = data.draw(st.sampled_from([ord("0"), 0x0660, 0xFF10, 0x0966]))
    signs = st.text(" -.()[]\u00a0\u200e\u2013", max_size=3)
    prefix = data.draw(st.sampled_from(["+", "00", "\uff0b", "'+"]))
    text = prefix + "".join(data.draw(signs) + chr(zero + int(digit)) for digit in e164[1:])
    region = data.draw(st.sampled_from([None, "TR", "US"]))
    found = PhoneReader(region).read(text)
    assert isinstance(found, Phone)
    assert found.digits == e164[1:]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(EXAMPLES), st.sampled_from([None, "TR", "US", "IT"]))
def test_reading_what_was_read_gives_the_same(number: PhoneNumber, region: str | None) -> None:
    first = PhoneReader(region).read(phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL))
    assert isinstance(first, Phone)
    assert PhoneReader(region).read("+" + first.digits) == first


messy = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "0123456789+-. ()/,eExX#\u202e'", max_size=30
)


@settings(max_examples=400, deadline=None)
@given(messy, st.sampled_from([None, "TR", "US", "CN"]))
def test_reading_never_raises_and_a_phone_is_always_a_valid_number(text: str, region: str | None) -> None:
    found = PhoneReader(region).read(text)
    if isinstance(found, PhoneFault):
        assert found.detail
        assert all(one.isprintable() for one in found.detail)
        return
    assert found.digits.isascii()
    assert found.digits.isdigit()
    assert phonenumbers.is_valid_number(phonenumbers.parse("+" + found.digits, None))


@given(st.text(st.characters(categories=["Cs", "Cc", "Cf"]), max_size=5))
def test_lone_surrogates_and_control_characters_do_not_raise_either(text: str) -> None:
    assert isinstance(ANYWHERE.read(text + "+90532"), PhoneFault)
