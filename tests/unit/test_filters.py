"""The filters a caption may use: what each makes of a value, and what it refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.filters import date, first_name, money, name, number, phone_last, plural
from runner.templatevalues import BadArgumentError, RenderError, UnreadableError

ANYTHING = st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers()))


@pytest.mark.parametrize(
    "written", ["2026-03-14", "2026-03-14T09:30:00", "2026-03-14 09:30", "2026-03-14T09:30:00Z", " 2026-03-14 "]
)
def test_iso_dates_are_read_without_being_told(written: str) -> None:
    assert date(written, "d MMMM y", locale="tr") == "14 Mart 2026"


@pytest.mark.parametrize(
    ("written", "form"),
    [("14.03.2026", "d.m.Y"), ("14/3/2026", "d/m/Y"), ("3/14/26", "m/d/y"), ("14 Mar 2026", "%d %b %Y")],
)
def test_other_forms_are_read_when_they_are_named(written: str, form: str) -> None:
    assert date(written, "yyyy-MM-dd", input=form) == "2026-03-14"


@pytest.mark.parametrize("written", ["14.03.2026", "03/04/2026", "2026-02-30", "soon", "", "46095", "2026-W11-6"])
def test_a_date_is_never_guessed(written: str) -> None:
    with pytest.raises(UnreadableError, match="filter 'date' cannot read"):
        date(written)


def test_a_date_that_does_not_fit_its_named_form_is_refused() -> None:
    with pytest.raises(UnreadableError, match=r"31/02/2026.*d/m/Y"):
        date("31/02/2026", input="d/m/Y")


def test_named_lengths_follow_the_locale() -> None:
    assert date("2026-03-14", "short", "de") == "14.03.26"
    assert date("2026-03-14", "full", "tr") == "14 Mart 2026 Cumartesi"


def test_the_time_of_day_is_printed_as_it_was_written() -> None:
    assert date("2026-03-14T21:05:00+03:00", "HH:mm") == "21:05"


@pytest.mark.parametrize(
    "settings",
    [{"locale": "xx_nonsense"}, {"format": "d" * 100}, {"format": ""}, {"input": "dd of MM"}, {"input": "%Q"}],
)
def test_a_setting_that_no_date_could_suit_is_told_from_a_bad_value(settings: dict[str, str]) -> None:
    with pytest.raises(BadArgumentError):
        date("2026-03-14", **settings)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1234.5", "1,234.50"),
        ("1.234,50", "1,234.50"),
        ("1,234.50", "1,234.50"),
        ("1 234,5", "1,234.50"),
        ("1\u00a0234", "1,234.00"),
        ("1'234.5", "1,234.50"),
        ("1.234.567", "1,234,567.00"),
        ("12,50", "12.50"),
        ("0.500", "0.50"),
        ("-3,5", "-3.50"),
        ("−3.5", "-3.50"),
        ("+7", "7.00"),
        ("007", "7.00"),
    ],
)
def test_numbers_are_read_in_either_convention(written: str, meant: str) -> None:
    assert number(written, 2) == meant


@pytest.mark.parametrize("written", ["1.234", "12,500"])
def test_a_number_that_could_be_two_is_refused_until_its_point_is_named(written: str) -> None:
    with pytest.raises(UnreadableError, match="decimal="):
        number(written)


def test_naming_the_decimal_point_settles_it() -> None:
    assert number("1.234", decimal=".") == "1.234"
    assert number("1.234", decimal=",") == "1,234"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "abc",
        "1.23,4",
        "1,2,3",
        "1..2",
        "12.34.567",
        "1e5",
        "nan",
        "inf",
        "1 2",
        "--1",
        "9" * 41,
        "10.000.000.000.000.000,5",
    ],
)
def test_what_is_no_number_is_refused_by_name(written: str) -> None:
    with pytest.raises(UnreadableError, match="filter 'number' cannot read"):
        number(written)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1], True])
def test_what_is_not_even_text_is_refused(value: object) -> None:
    with pytest.raises(RenderError):
        number(value)


def test_numbers_round_half_away_from_zero_as_prices_do() -> None:
    halves = ("2.345", "2.335", "-2.345", "-0.001")
    assert [number(each, 2, decimal=".") for each in halves] == ["2.35", "2.34", "-2.35", "0.00"]


def test_a_locale_decides_the_marks_and_the_groups() -> None:
    assert number("1234567.891", 2, "tr") == "1.234.567,89"
    assert number("1234567.891", 2, "en_IN") == "12,34,567.89"


def test_money_has_its_currency_and_its_own_decimals() -> None:
    assert money("1234.5", "TRY", "tr") == "₺1.234,50"
    assert money("1234.5", "EUR", "de") == "1.234,50\u00a0€"
    assert money("1234.5", "JPY") == "¥1,235"
    assert money("1234.5", "TRY", "tr", decimals=0) == "₺1.235"


@pytest.mark.parametrize("settings", [("XXQ",), ("lira",), ("TRY", "qq_QQ"), ("TRY", "tr", 99), ("TRY", "tr", 2, ";")])
def test_money_refuses_settings_that_do_not_exist(settings: tuple[str, ...]) -> None:
    with pytest.raises(BadArgumentError):
        money("1", *settings)


@pytest.mark.parametrize(
    ("count", "word"), [("1", "item"), ("1.0", "item"), (1, "item"), ("0", "items"), ("2", "items")]
)
def test_plural_chooses_by_the_number(count: object, word: str) -> None:
    assert plural(count, "item", "items") == word


def test_plural_refuses_what_is_no_number() -> None:
    with pytest.raises(UnreadableError, match="filter 'plural' cannot read 'many'"):
        plural("many", "item", "items")


@pytest.mark.parametrize(
    ("typed", "proper"),
    [
        ("AYŞE YILMAZ", "Ayşe Yılmaz"),
        ("ayşe yılmaz", "Ayşe Yılmaz"),
        ("İPEK IŞIK", "İpek Işık"),
        ("ipek ışık", "İpek Işık"),
        ("Ayşe YILMAZ", "Ayşe Yılmaz"),
        ("  ayşe   yılmaz ", "Ayşe Yılmaz"),
        ("ayşe'nin", "Ayşe'nin"),
    ],
)
def test_turkish_names_keep_their_two_letters_i(typed: str, proper: str) -> None:
    assert name(typed, locale="tr") == proper


@pytest.mark.parametrize(
    ("typed", "proper"),
    [
        ("JEAN-LUC O'NEIL", "Jean-Luc O'Neil"),
        ("d’angelo", "D’Angelo"),
        ("McDonald", "McDonald"),
        ("Ludwig van Houten", "Ludwig van Houten"),
        ("J. R. SMITH", "J. R. Smith"),
        ("İPEK", "Ipek"),
        ("ليلى", "ليلى"),
        ("ß", "Ss"),
    ],
)
def test_other_names_are_mended_only_where_they_were_typed_in_one_case(typed: str, proper: str) -> None:
    assert name(typed) == proper


def test_a_first_name_is_the_first_word_or_the_one_behind_the_comma() -> None:
    assert first_name("Ayşe Nur Yılmaz") == "Ayşe"
    assert first_name("Yılmaz, Ayşe Nur") == "Ayşe"
    assert first_name("Ayşe") == "Ayşe"


@pytest.mark.parametrize("typed", ["12345", "--", " "])
def test_a_first_name_needs_a_letter(typed: str) -> None:
    with pytest.raises(UnreadableError, match="first_name"):
        first_name(typed)


def test_the_last_digits_of_a_phone_leave_out_its_marks() -> None:
    assert phone_last("+90 532 000 11-22") == "1122"
    assert phone_last("905320001122", 2) == "22"


def test_a_phone_that_is_too_short_is_refused() -> None:
    with pytest.raises(UnreadableError, match="fewer than 4 digits"):
        phone_last("12a3")


@pytest.mark.parametrize("n", [0, 16, "4", True])
def test_phone_last_refuses_a_senseless_number_of_digits(n: object) -> None:
    with pytest.raises(BadArgumentError):
        phone_last("905320001122", n)


@given(ANYTHING, st.one_of(st.none(), st.text(max_size=8)))
def test_our_filters_raise_nothing_but_their_own_errors(value: object, setting: object) -> None:
    calls: list[Callable[[], str]] = [
        lambda: date(value, input=setting),
        lambda: number(value, locale=setting or "en"),
        lambda: money(value, setting or "TRY"),
        lambda: name(value, setting),
        lambda: first_name(value),
        lambda: phone_last(value),
        lambda: plural(value, "a", "b"),
    ]
    for call in calls:
        with contextlib.suppress(RenderError):
            assert isinstance(call(), str)
