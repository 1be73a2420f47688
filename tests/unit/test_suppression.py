"""Suppression lists: every number is found, and an entry that cannot be read is never dropped in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import xlsxwriter  # type: ignore[import-untyped]  # XlsxWriter ships no py.typed

from runner.errors import InputError
from runner.phones import PhoneReader
from runner.suppression import MAX_FAULTS, Suppressed, SuppressionFile, read_numbers

TURKEY = PhoneReader("TR")


def saved(folder: Path, text: str, name: str = "optouts.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def numbers(path: Path, reader: PhoneReader = TURKEY) -> list[tuple[int, str]]:
    return [(one.row, one.digits) for one in read_numbers(path, reader)]


def test_numbers_in_any_format_are_normalised_the_same_way(tmp_path: Path) -> None:
    path = saved(tmp_path, "Phone\n0532 000 00 01\n+90 (532) 000-00-02\n00905320000003\n905320000004.0\n")
    assert numbers(path) == [(2, "905320000001"), (3, "905320000002"), (4, "905320000003"), (5, "905320000004")]


def test_a_file_without_a_header_begins_with_its_first_number(tmp_path: Path) -> None:
    path = saved(tmp_path, "+905320000001\n\n+905320000002\n", "optouts.txt")
    assert numbers(path) == [(1, "905320000001"), (3, "905320000002")]


def test_a_first_entry_that_cannot_be_read_is_a_fault_and_not_a_header(tmp_path: Path) -> None:
    for first in ("0532 000 00 01", "9.05E+11", "+90532"):
        opened = SuppressionFile(saved(tmp_path, f"{first}\n+905320000002\n"), PhoneReader())
        assert list(opened.numbers()) == [Suppressed("905320000002", 2)]
        assert [(one.row, one.value) for one in opened.faults] == [(1, first)]


def test_a_header_of_any_name_will_do_for_a_single_column(tmp_path: Path) -> None:
    assert numbers(saved(tmp_path, "Liste 2024\n05320000001\n")) == [(2, "905320000001")]


def test_a_header_alone_suppresses_nobody(tmp_path: Path) -> None:
    assert numbers(saved(tmp_path, "phone\n")) == []


def test_of_several_columns_the_one_named_like_a_phone_is_taken(tmp_path: Path) -> None:
    path = saved(tmp_path, "Name;Cep Telefonu;Agent\nAda;05320000001;+905320000009\n")
    assert numbers(path) == [(2, "905320000001")]


def test_without_such_a_name_the_only_column_that_holds_phones_is_taken(tmp_path: Path) -> None:
    assert numbers(saved(tmp_path, "Who,Contact\nAda,+905320000001\n")) == [(2, "905320000001")]
    assert numbers(saved(tmp_path, "Ada,+905320000001\nBo,+905320000002\n")) == [
        (1, "905320000001"),
        (2, "905320000002"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Phone,Mobile\n+905320000001,+905320000002\n", '"Phone", "Mobile" are all named like a phone'),
        ("a,b\n+905320000001,+905320000002\n", '"a", "b" all hold phone numbers'),
        ("+905320000001,+905320000002\n", '"A", "B" all hold phone numbers'),
        ("a,b\nx,y\n", "none of its 2 columns"),
        ("a,b\n", "none of its 2 columns"),
    ],
)
def test_a_column_that_cannot_be_told_is_asked_for(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        numbers(saved(tmp_path, text))
    assert why in str(caught.value)


def test_an_excel_list_is_read_by_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "optouts.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        sheet.write_column(1, 2, [905320000001, "+905320000002", "not a number"])
    opened = SuppressionFile(path, PhoneReader())
    assert list(opened.numbers()) == [Suppressed("905320000001", 2), Suppressed("905320000002", 3)]
    (fault,) = opened.faults
    assert opened.problem(fault).where == "optouts.xlsx row 4, column C"


def test_every_unreadable_entry_is_a_fault_with_row_value_and_reason(tmp_path: Path) -> None:
    path = saved(tmp_path, "name,phone\nAda,+905320000001\nBo,9.05E+11\nCy,\nDi,n/a\n")
    opened = SuppressionFile(path, TURKEY)
    assert list(opened.numbers()) == [Suppressed("905320000001", 2)]
    assert [(one.row, one.value) for one in opened.faults] == [(3, "9.05E+11"), (4, ""), (5, "n/a")]
    assert opened.faults[1].why == "blank"
    said = str(opened.problem(opened.faults[0]))
    assert 'optouts.csv row 3, column B "phone"' in said
    assert "scientific notation" in said


def test_reading_all_numbers_raises_after_the_last_one_when_an_entry_cannot_be_read(tmp_path: Path) -> None:
    stream = read_numbers(saved(tmp_path, "phone\nx\n05320000001\n"), TURKEY)
    assert next(stream) == Suppressed("905320000001", 3)
    with pytest.raises(InputError, match=r"optouts\.csv row 2"):
        next(stream)


def test_faults_are_counted_beyond_those_that_are_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, "phone\n" + "x\n" * (MAX_FAULTS + 5))
    opened = SuppressionFile(path, TURKEY)
    assert list(opened.numbers()) == []
    assert (opened.fault_count, len(opened.faults)) == (MAX_FAULTS + 5, MAX_FAULTS)
    with pytest.raises(InputError, match="985 more entries"):
        numbers(path)


def test_reading_twice_does_not_count_faults_twice(tmp_path: Path) -> None:
    opened = SuppressionFile(saved(tmp_path, "phone\nx\n"), TURKEY)
    for _ in range(2):
        list(opened.numbers())
    assert opened.fault_count == 1


def test_a_number_outside_the_allowed_countries_is_suppressed_all_the_same(tmp_path: Path) -> None:
    reader = PhoneReader("TR", frozenset({"TR"}))
    assert numbers(saved(tmp_path, "phone\n+4915123456789\n"), reader) == [(2, "4915123456789")]


def test_a_missing_or_empty_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        SuppressionFile(tmp_path / "optouts.csv", TURKEY)
    with pytest.raises(InputError, match="empty"):
        SuppressionFile(saved(tmp_path, ""), TURKEY)
