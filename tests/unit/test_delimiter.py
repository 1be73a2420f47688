"""Which character separates the columns, and when that is asked for instead of guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.delimiter import detect_delimiter, known_delimiter, sep_line
from runner.errors import InputError

PATH = Path("people.csv")


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


@pytest.mark.parametrize("character", [",", ";", "\t", "|"])
def test_each_of_the_four_delimiters_is_found(character: str) -> None:
    text = "name,phone,city\nAda,+90,Ankara\nBo,+49,Bonn\n".replace(",", character)
    assert detect_delimiter(PATH, lines(text)) == character


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("phone\n+905320000001\n+905320000002\n", ""),
        ("phone\n", ""),
        ("phone;city\n", ";"),
        ("note\nhello, world\nplain\n", ""),
        ("name;price\nAda;1,5\nBo;2,0\n", ";"),
        ('name;place\n"Doe, J";Bonn\n"Roe, K";Ulm\n', ";"),
        ('name,note\nAda,"a;b;c"\nBo,"d;e;f"\n', ","),
        ("a,b,c\n1,2,3,,,\n4,5,6\n", ","),
        ("\n\na;b\n1;2\n", ";"),
        ("Customers\nname;phone\nAda;+90\nBo;+49\n", ";"),
        ("a,b,c;d\n1,2,3\n4,5,6\n", ","),
    ],
)
def test_the_delimiter_is_the_one_that_splits_the_rows_evenly(text: str, found: str) -> None:
    assert detect_delimiter(PATH, lines(text)) == found


def test_two_delimiters_that_fit_equally_well_are_refused_and_the_setting_named() -> None:
    with pytest.raises(InputError, match="comma and semicolon") as caught:
        detect_delimiter(PATH, lines("a,b;c\n1,2;3\n4,5;6\n"))
    assert "delimiter: comma" in caught.value.problems[0].fix


def test_the_ending_tsv_settles_a_tie() -> None:
    text = lines("a,b\tc\n1,2\t3\n")
    assert detect_delimiter(Path("people.tsv"), text) == "\t"


def test_excels_own_first_line_names_the_delimiter() -> None:
    assert sep_line(PATH, "sep=;\r\n") == ";"
    assert sep_line(PATH, '"sep=|"\n') == "|"
    assert sep_line(PATH, "SEP=\t\n") == "\t"
    assert sep_line(PATH, "separator;x\n") == ""
    with pytest.raises(InputError, match="not supported"):
        sep_line(PATH, "sep=#\n")


def test_the_campaign_file_may_write_the_sign_or_its_name() -> None:
    assert [known_delimiter(PATH, one) for one in (";", "Semicolon", "\t", "tab", "\\t", " pipe ")] == list(";;\t\t\t|")
    with pytest.raises(InputError, match="comma, semicolon, tab or pipe"):
        known_delimiter(PATH, "x")
