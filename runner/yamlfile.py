"""A YAML file read strictly: plain values only, every value with its line, no YAML 1.1 surprise.

Measured with PyYAML 6.0.3's safe_load: `0612345670` becomes 103402424 (octal), `21:00` becomes 1260 (base 60), `no` becomes
False, a repeated key silently keeps the last value, and 370 bytes of aliases expand without end. All of these are errors here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from runner.errors import InputError, Problem

Scalar = str | int | float | bool | None
Tree = dict[str, "Tree"] | list["Tree"] | str | int | float | bool | None
KeyPath = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20

_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_TRUTH = {"true": True, "True": True, "false": False, "False": False}
_NULLS = {"", "null", "~", "Null", "NULL"}
# What YAML 1.1 readers turn into something else than what was typed, and what a person meant instead.
_SURPRISES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[-+]?0[0-9_]+"), "a number with a leading zero is octal in YAML 1.1 and loses its zero"),
    (re.compile(r"\+[0-9_]+"), "a number with a plus loses its plus in YAML"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "digits with colons are a base-60 number in YAML 1.1"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?"), "underscores vanish from numbers in YAML 1.1"),
    (re.compile(r"[-+]?0[xXbo][0-9a-fA-F_]+"), "this is a hexadecimal, binary or octal number in YAML"),
    (re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)"), "this is not a number that can be used here"),
    (re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"), "scientific notation loses digits"),
    (
        re.compile(r"(yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|y|Y|n|N)"),
        "YAML 1.1 readers take this for true or false",
    ),
    (re.compile(r"TRUE|FALSE"), "this spelling of true or false is not portable"),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class YamlFile:
    """The values of a file, and where each of them stands."""

    path: Path
    tree: Tree
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    value_marks: dict[KeyPath, Mark] = field(default_factory=dict)

    def where(self, path: KeyPath = ()) -> str:
        """`spring.yaml:12:3 send.rate`: the key if it is in the file, else the nearest part of the path that is."""
        probe = path
        while probe and probe not in self.marks:
            probe = probe[:-1]
        mark = self.marks.get(probe, Mark(1, 1))
        place = f"{self.path.name}:{mark.line}:{mark.column}"
        return f"{place} {dotted(path)}" if path else place


def dotted(path: KeyPath) -> str:
    """`send.rate[1]` for ("send", "rate", 1)."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def read_yaml(path: Path) -> YamlFile:
    """Read and check one file. Raises InputError naming file, line, column and key."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except IsADirectoryError:
        raise InputError(Problem(str(path), "this is a folder, not a campaign file")) from None
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read: {error.strerror}")) from None
    if len(raw) > MAX_BYTES:
        raise InputError(Problem(path.name, f"is {len(raw):,} bytes; a campaign file is at most {MAX_BYTES:,} bytes"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            Problem(f"{path.name}:{line}", "is not UTF-8 text", "save the file as UTF-8 in your editor")
        ) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """The same for text already read; `path` only names it in messages."""
    try:
        node = _compose(text, path)
    except yaml.YAMLError as error:
        raise InputError(_syntax(path, error)) from None
    except RecursionError:
        raise InputError(Problem(path.name, f"is nested deeper than {MAX_DEPTH} levels")) from None
    file = YamlFile(path, None)
    problems: list[Problem] = []
    tree = _build(node, (), file, problems) if node is not None else None
    if problems:
        raise InputError(*problems)
    return YamlFile(path, tree, file.marks, file.value_marks)


def _compose(text: str, path: Path) -> yaml.Node | None:
    """The node tree; anchors, aliases and explicit tags are refused while still events (an alias bomb never expands)."""
    problems = list(_forbidden(text, path))
    if problems:
        raise InputError(*problems)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _forbidden(text: str, path: Path) -> Iterator[Problem]:
    documents = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        at = f"{path.name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else path.name
        if isinstance(event, yaml.AliasEvent):
            yield Problem(
                at, f"alias *{event.anchor}: anchors and aliases are not used here", "write the value out again"
            )
        elif isinstance(event, yaml.NodeEvent) and event.anchor:
            yield Problem(at, f"anchor &{event.anchor}: anchors and aliases are not used here", "remove the anchor")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            yield Problem(
                at, f"tag {event.tag}: tags are not used here", "remove the tag, quote the value if it is text"
            )
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                yield Problem(at, "a second document starts here", "one campaign per file: remove the '---'")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                yield Problem(at, f"is nested deeper than {MAX_DEPTH} levels")
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _build(node: yaml.Node, path: KeyPath, file: YamlFile, problems: list[Problem]) -> Tree:
    mark = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
    file.marks.setdefault(path, mark)
    file.value_marks[path] = mark
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, path, file, problems)
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, index), file, problems) for index, child in enumerate(node.value)]
    return _build_scalar(node, path, file, problems)


def _build_mapping(node: yaml.MappingNode, path: KeyPath, file: YamlFile, problems: list[Problem]) -> dict[str, Tree]:
    mapping: dict[str, Tree] = {}
    for key_node, value_node in node.value:
        mark = Mark(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        at = f"{file.path.name}:{mark.line}:{mark.column}"
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem(at, "a key must be a plain word"))
            continue
        key = str(key_node.value)
        child = (*path, key)
        if key == "<<":
            problems.append(Problem(at, "merge keys (<<) are not used here", "write the keys out"))
        elif key in mapping:
            first = file.marks[child].line
            problems.append(
                Problem(f"{at} {dotted(child)}", f"is given twice (first in line {first})", "keep one of the two")
            )
        file.marks[child] = mark if key not in mapping else file.marks[child]
        mapping[key] = _build(value_node, child, file, problems)
    return mapping


def _build_scalar(node: yaml.Node, path: KeyPath, file: YamlFile, problems: list[Problem]) -> Scalar:
    text = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted or block text stays as it was written
        return text
    if text in _NULLS:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    for pattern, why in _SURPRISES:
        if pattern.fullmatch(text):
            fix = f'put it in quotes: "{text}"'
            if text.lower() in {"yes", "on", "y", "true"}:
                fix = f'write true, or "{text}" in quotes if you mean the word'
            elif text.lower() in {"no", "off", "n", "false"}:
                fix = f'write false, or "{text}" in quotes if you mean the word'
            problems.append(Problem(file.where(path), f"{text}: {why}", fix))
            return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _missing(path: Path) -> Problem:
    from difflib import get_close_matches

    folder = path.parent if path.parent.is_dir() else Path()
    near = get_close_matches(path.name, [p.name for p in folder.glob("*.y*ml")], n=1)
    return Problem(str(path), "no such file", f"did you mean {folder / near[0]}?" if near else "check the path")


def _syntax(path: Path, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"{path.name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else path.name
    what = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read as YAML")
    fix = "check the indentation and the colons around this line"
    if "\\t" in what or "'\\t'" in what:
        what, fix = "a tab is used for indentation", "indent with spaces"
    elif "mapping values are not allowed" in what:
        fix = "a value that contains ': ' must be in quotes"
    return Problem(where, f"is not valid YAML: {what}", fix)
