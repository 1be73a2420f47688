"""A YAML file read strictly: what was typed is what is read, and every value knows its line."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.errors import InputError
from runner.yamlfile import MAX_BYTES, MAX_DEPTH, MAX_PROBLEMS, Tree, dotted, parse_yaml, read_yaml, yaml_text

HERE = Path("spring.yaml")


def read(text: str) -> Tree:
    return parse_yaml(text, HERE).tree


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(text)
    return str(caught.value)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", "a"),
        ("20/s", "20/s"),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1.50", 1.5),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("2026-12-31", "2026-12-31"),
        ("2026-12-01 09:00", "2026-12-01 09:00"),
        ("1.2.3", "1.2.3"),
        ("+90 532", "+90 532"),
        ('"0612345670"', "0612345670"),
        ("'no'", "no"),
        ('""', ""),
        ("[TR, 5]", ["TR", 5]),
        ("{b: 1}", {"b": 1}),
        ("|\n  Hello\n  no\n", "Hello\nno\n"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_a_value_is_read_as_it_was_typed(text: str, value: Tree) -> None:
    tree = read(f"a: {text}")
    assert tree == {"a": value}
    assert isinstance(tree, dict)
    assert type(tree["a"]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "0612345670",
        "+905320000001",
        "21:00",
        "1:30:00",
        "1_000",
        "0x1F",
        "0o17",
        "0b1",
        ".inf",
        "-.NaN",
        "1e5",
        "9.05E+11",
        "yes",
        "No",
        "NO",
        "on",
        "OFF",
        "y",
        "N",
        "TRUE",
        "FALSE",
        "007",
        "0_7",
    ],
)
def test_a_value_that_other_yaml_readers_would_change_is_refused_with_the_way_to_write_it(text: str) -> None:
    said = refused(f"a: b\nkey: {text}")
    assert said.startswith(f"spring.yaml:2:1 key: {text}: ")
    assert f'"{text}"' in said


def test_the_same_in_a_list_names_the_item() -> None:
    assert refused("a:\n  - x\n  - 0532").startswith("spring.yaml:3:5 a[2]: 0532")


_plain = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)


@settings(deadline=None)  # the machine may be busy
@given(_plain)
def test_a_plain_value_is_never_anything_that_was_not_typed(text: str) -> None:
    """Either refused, or the very text, or a number or truth whose own spelling is that text."""
    try:
        tree = read(f"a: {text}\n")
    except InputError:
        return
    value = tree["a"] if isinstance(tree, dict) else tree
    if isinstance(value, bool):
        assert text.strip().split(" #")[0].strip().lower() == str(value).lower()
    elif isinstance(value, int):
        assert text.split(" #", 1)[0].strip() in {str(value), f"-{abs(value)}"}


_single = st.text(max_size=8) | st.booleans() | st.integers(-(10**6), 10**6)
_values = _single | st.lists(_single, max_size=3)


@settings(deadline=None)  # the machine may be busy
@given(_values)
@example("\x85")
@example(["one\ntwo", "\u2028", "\r"])
def test_a_value_is_shown_on_one_line_as_it_would_be_written(value: object) -> None:
    text = yaml_text(value)
    assert len(text.splitlines()) == 1
    assert yaml.safe_load(text) == value
    with contextlib.suppress(InputError):  # a y, which PyYAML leaves bare
        assert read(f"a: {text}") == {"a": value}


# --- places -----------------------------------------------------------------------------------------------------------


def test_every_value_knows_the_place_of_its_key() -> None:
    file = parse_yaml("a: 1\nb:\n  c: [u, v]\n", HERE)
    assert file.where(("b", "c")) == "spring.yaml:3:3 b.c"
    assert file.where(("b", "c", 1)) == "spring.yaml:3:10 b.c[2]"
    assert file.where(("b", "missing", "deep")) == "spring.yaml:2:1 b.missing.deep"
    assert file.where() == "spring.yaml:1:1"
    assert file.written(("b", "c", 1)) == "v"
    assert file.written(("b", "z")) is None
    assert file.written(("a", "b")) is None
    assert file.written(("b", "c", 7)) is None


def test_a_path_is_written_with_dots_and_counts_items_from_one() -> None:
    assert dotted(("send", "rate", 0)) == "send.rate[1]"
    assert dotted(()) == ""


# --- what is not used here --------------------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_refused_at_any_depth() -> None:
    assert refused("a:\n  b: 1\n  b: 2\n").startswith("spring.yaml:3:3 a.b: is given twice (first in line 2)")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1", "&x is a YAML anchor"),
        ("a: *x", "*x is a YAML alias"),
        ("a: !!int '1'", "!!int is a YAML tag"),
        ("a: !secret x", "!secret is a YAML tag"),
        ("a: {<<: {b: 1}}", "<< is a YAML merge key"),
        ("? [a, b]\n: c", "a key must be one plain word"),
        ("a: {{ b }}", "in quotes"),
        ("a: b\n---\na: c", "a second document"),
        ("a:\n\tb: c", "a tab stands at the beginning"),
        ("a: b: c", "a colon stands where none can be"),
        ("a: 'b", "a quotation mark is opened"),
        ("a: [b\nc: d", "a bracket"),
        ("a: @b", "cannot begin with @"),
        ("a: `b`", "cannot begin with `"),
        ('a: "C:\\data"', "a backslash"),
        ("a: b\nnonsense\nc: d", "is no 'key: value'"),
        ("a: b\n c: d", "indented too far"),
        ("a: \x01", "U+0001"),
        ("[" * (MAX_DEPTH + 1), "nested deeper"),
        ("{a: " * (MAX_DEPTH + 1), "nested deeper"),
    ],
)
def test_what_is_not_used_here_is_named_in_plain_words(text: str, says: str) -> None:
    said = refused(text)
    assert says in said
    assert "fix: " in said
    assert said.startswith("spring.yaml:")


def test_a_bomb_of_aliases_is_refused_at_once_with_a_handful_of_problems() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        read(bomb)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert time.monotonic() - began < 1


def test_a_file_of_brackets_is_refused_at_once() -> None:
    began = time.monotonic()
    assert "nested deeper" in refused("a: " + "[" * 200_000)
    assert time.monotonic() - began < 2


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    try:
        read(text)
    except InputError as error:
        assert all(problem.where.startswith("spring.yaml") and problem.what for problem in error.problems)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffa: çiçek\r\nb: 2\r\n".encode())
    file = read_yaml(path)
    assert file.tree == {"a": "çiçek", "b": 2}
    assert file.where(("b",)) == "a.yaml:2:1 b"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: b".encode("utf-16"), "a.yaml:1: is not UTF-8 text (it looks like UTF-16)"),
        ("a: b".encode("utf-16-le"), "a.yaml:1: is not UTF-8 text (it looks like UTF-16)"),
        ("a: b\nc: ş\n".encode("cp1254"), "a.yaml:2: holds a letter that is not UTF-8 text"),
        (b"#" * (MAX_BYTES + 1), "a.yaml: is larger than 256 KB"),
    ],
)
def test_a_file_that_is_no_text_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(InputError, match="fix: ") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert str(caught.value).startswith(says)


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: b\n#" + b"x" * (MAX_BYTES - 6))
    assert read_yaml(tmp_path / "a.yaml").tree == {"a": "b"}


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "spring.yaml").write_text("a: b")
    with pytest.raises(InputError, match=r"did you mean .*spring\.yaml\?"):
        read_yaml(tmp_path / "sprnig.yaml")
    with pytest.raises(InputError, match="check the name"):
        read_yaml(tmp_path / "nowhere" / "x.yaml")


def test_a_folder_names_a_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder.*\n.*name the campaign file"):
        read_yaml(tmp_path)
    (tmp_path / "spring.yaml").write_text("a: b")
    with pytest.raises(InputError, match=r"such as .*spring\.yaml"):
        read_yaml(tmp_path)
