"""Which character encoding a file is in, and which files are refused rather than guessed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.encoding import detect_encoding
from runner.errors import InputError

TURKISH = "ad,şehir\nIşıl Güneş,İstanbul\nÖğüt Çağrı,Eskişehir\n"
FRENCH = "nom,ville\nHélène Lefèvre,Besançon\nCréée,Nîmes\n"


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "people.csv"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("cp1254", "cp1254"),
    ],
)
def test_turkish_text_reads_the_same_however_it_was_saved(tmp_path: Path, written: str, found: str) -> None:
    path = saved(tmp_path, TURKISH.encode(written))
    encoding = detect_encoding(path)
    assert encoding.codec == found
    assert path.read_bytes().decode(encoding.codec) == TURKISH


def test_a_big_endian_byte_order_mark_is_honoured(tmp_path: Path) -> None:
    path = saved(tmp_path, b"\xfe\xff" + TURKISH.encode("utf-16-be"))
    assert path.read_bytes().decode(detect_encoding(path).codec) == TURKISH


def test_western_letters_that_both_pages_share_are_windows_1252_and_the_user_is_told(tmp_path: Path) -> None:
    encoding = detect_encoding(saved(tmp_path, FRENCH.encode("cp1252")))
    assert encoding.codec == "cp1252"
    assert "Windows-1252" in encoding.note


def test_turkish_windows_text_is_told_to_the_user(tmp_path: Path) -> None:
    assert "Windows-1254 (Turkish)" in detect_encoding(saved(tmp_path, TURKISH.encode("cp1254"))).note


def test_plain_ascii_and_utf8_need_no_note(tmp_path: Path) -> None:
    assert detect_encoding(saved(tmp_path, b"a,b\n1,2\n")).note == ""
    assert detect_encoding(saved(tmp_path, TURKISH.encode())).note == ""


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("nafn\nÞórður Sigurðsson\n".encode("cp1252"), "both Turkish"),
        ("ad\nIşıl\nJosé Muñoz\n".encode("cp1254"), "both Turkish"),
        ("ad\nIşıl\n".encode("cp1254") + "Žižek\n".encode("cp1252"), "both Turkish"),
        (b"name\nJos\xe9 \x81\n", "neither"),
        ("имя\nИван\n".encode("cp1251"), "does not read as Western"),
        ("imię\nPaweł Nowak\nŁukasz Małek\n".encode("cp1250"), "does not read as Western"),
        (b"name\nx \xd0 y\n", "both Turkish"),
    ],
)
def test_an_eight_bit_file_that_cannot_be_told_is_refused_and_the_encoding_asked_for(
    tmp_path: Path, data: bytes, word: str
) -> None:
    with pytest.raises(InputError) as caught:
        detect_encoding(saved(tmp_path, data))
    assert word in str(caught.value)
    assert "encoding: cp1254" in str(caught.value)


def test_utf8_is_checked_to_the_last_byte(tmp_path: Path) -> None:
    path = saved(tmp_path, b"name\n" + b"someone,else\n" * 200_000 + b"I\xfe\xfdl\n")
    assert detect_encoding(path).codec == "cp1254"


def test_a_letter_cut_by_the_reading_block_is_still_utf8(tmp_path: Path) -> None:
    path = saved(tmp_path, b"x" * ((1 << 20) - 1) + "ş".encode() + b"\n")
    assert detect_encoding(path).codec == "utf-8"


def test_a_wanted_encoding_is_strict_and_the_row_of_the_first_bad_byte_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, b'name,note\nAda,"two\nlines"\n' + b"I\xfe\xfdl,x\n")
    with pytest.raises(InputError) as caught:
        detect_encoding(path, "utf-8")
    assert caught.value.problems[0].where == "people.csv row 3"
    assert "0xFE" in caught.value.problems[0].what
    assert detect_encoding(path, "windows-1254").codec == "cp1254"


def test_the_row_of_a_bad_byte_is_right_with_windows_line_ends_beyond_the_first_block(tmp_path: Path) -> None:
    path = saved(tmp_path, b"0123456789abc\r\n" * 100_000 + b"\xff\r\n")
    with pytest.raises(InputError) as caught:
        detect_encoding(path, "utf-8")
    assert caught.value.problems[0].where == "people.csv row 100001"


def test_a_wanted_utf8_file_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    assert detect_encoding(saved(tmp_path, TURKISH.encode("utf-8-sig")), "UTF-8").codec == "utf-8-sig"


@pytest.mark.parametrize("name", ["latin-9000", "hex", "", "rot13"])
def test_an_unknown_encoding_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="not a character encoding"):
        detect_encoding(saved(tmp_path, b"a\n"), name)


@pytest.mark.parametrize("codec", ["utf-8", "cp1254", "utf-16"])
def test_a_nul_character_is_refused_with_its_row(tmp_path: Path, codec: str) -> None:
    with pytest.raises(InputError) as caught:
        detect_encoding(saved(tmp_path, "name\nAyşe\0\n".encode(codec)), codec)
    assert caught.value.problems[0].where == "people.csv row 2"
    assert "NUL" in caught.value.problems[0].what


def test_a_nul_character_is_refused_without_a_wanted_encoding_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NUL"):
        detect_encoding(saved(tmp_path, b"name,phone\nAda,\0\0\n" + b"x" * 100))


def test_a_truncated_utf16_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not UTF-16"):
        detect_encoding(saved(tmp_path, TURKISH.encode("utf-16")[:-1]))
