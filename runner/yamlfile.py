"""A YAML file read strictly: plain values only, every value with its line, no YAML 1.1 surprise.

Measured with PyYAML 6.0.3's safe_load: `0612345670` becomes 103402424 (octal), `21:00` becomes 1260 (base 60), `no` becomes
False, a repeated key silently keeps the last value, and 370 bytes of aliases expand without end. All of these are errors here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import yaml
from yaml.reader import ReaderError

from runner.errors import InputError, Problem

Scalar = str | int | float | bool | None
Tree = dict[str, "Tree"] | list["Tree"] | str | int | float | bool | None
KeyPath = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_PROBLEMS = 5  # of one kind that are named; a file made of aliases has hundreds

_SAVE_AS_UTF8 = "save the file as UTF-8 in your editor"

_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_TRUTH = {"true": True, "True": True, "false": False, "False": False}
_NULLS = {"", "null", "~", "Null", "NULL"}
# What YAML 1.1 readers turn into something else than what was typed.
_SURPRISES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[-+]?0[0-9_]+"), "many programs read a number that begins with 0 as another number"),
    (re.compile(r"\+[0-9_]+"), "many programs drop the plus of a number"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "many programs read this as a number of seconds"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?"), "many programs drop the underscores of a number"),
    (re.compile(r"[-+]?0[xXbo][0-9a-fA-F_]+"), "many programs read this as a hexadecimal, binary or octal number"),
    (re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)"), "many programs read this as a special number"),
    (re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"), "a number in this notation loses digits"),
    (
        re.compile(r"(yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|y|Y|n|N)"),
        "many programs read this word as true or false",
    ),
    (re.compile(r"TRUE|FALSE"), "true and false are written in small letters"),
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

    def written(self, path: KeyPath) -> Tree:
        """The value at `path` as the file has it, None where there is none."""
        value = self.tree
        for part in path:
            if isinstance(value, dict) and isinstance(part, str):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

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


class _OneLine(yaml.SafeDumper):
    """Writes a text with a line break between double quotes, where it has an escape. PyYAML itself breaks the line, and a NEL
    (U+0085) written so reads back as a blank."""

    def _text(self, value: str) -> yaml.ScalarNode:
        broken = not _BREAKS.isdisjoint(value)
        return self.represent_scalar("tag:yaml.org,2002:str", value, style='"' if broken else None)


_OneLine.add_representer(str, _OneLine._text)
_BREAKS = frozenset("\n\r\x85\u2028\u2029")  # YAML 1.1, section 5.4


def yaml_text(value: object) -> str:
    """A value as it is written in a campaign file, on one line: `true`, `[TR, DE]`, `'{{ Photo }}'`."""
    text = yaml.dump(value, Dumper=_OneLine, default_flow_style=True, allow_unicode=True, width=1_000_000)
    return text.removesuffix("...\n").strip("\n")


def read_yaml(path: Path) -> YamlFile:
    """Read and check one file. Raises InputError naming file, line, column and key."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except IsADirectoryError:
        raise InputError(_folder(path)) from None
    except OSError as error:
        raise InputError(
            Problem(str(path), f"cannot be read: {error.strerror}", "check the file's permissions")
        ) from None
    if len(raw) > MAX_BYTES:
        raise InputError(
            Problem(
                path.name,
                f"is larger than {MAX_BYTES // 1024} KB, which no campaign file needs",
                "name the campaign file (.yaml); the people go into the audience file, long captions into templates/",
            )
        )
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
        raise InputError(Problem(f"{path.name}:1", "is not UTF-8 text (it looks like UTF-16)", _SAVE_AS_UTF8))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            Problem(f"{path.name}:{line}", "holds a letter that is not UTF-8 text", _SAVE_AS_UTF8)
        ) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """The same for text already read; `path` only names it in messages."""
    try:
        node = _compose(text, path)
    except yaml.YAMLError as error:
        raise InputError(_syntax(path, text, error)) from None
    except RecursionError:
        raise InputError(_too_deep(path.name)) from None
    file = YamlFile(path, None)
    problems: list[Problem] = []
    tree = _build(node, (), file, problems) if node is not None else None
    if problems:
        raise InputError(*problems)
    return YamlFile(path, tree, file.marks, file.value_marks)


def _compose(text: str, path: Path) -> yaml.Node | None:
    """The node tree; anchors, aliases and explicit tags are refused while still events (an alias bomb never expands)."""
    problems = list(islice(_forbidden(text, path), MAX_PROBLEMS))
    if problems:
        raise InputError(*problems)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _forbidden(text: str, path: Path) -> Iterator[Problem]:
    documents = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        at = f"{path.name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else path.name
        if isinstance(event, yaml.AliasEvent):
            fix = f'write the value out here, or put it in quotes if it is text: "*{event.anchor} ..."'
            yield Problem(at, f"*{event.anchor} is a YAML alias; aliases are not used here", fix)
        elif isinstance(event, yaml.NodeEvent) and event.anchor:
            yield Problem(at, f"&{event.anchor} is a YAML anchor; anchors are not used here", f"remove &{event.anchor}")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            fix = f"remove {tag}, or put the value in quotes if it is text that begins with !"
            yield Problem(at, f"{tag} is a YAML tag; tags are not used here", fix)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                yield Problem(
                    at,
                    "a second document starts here (---)",
                    "one campaign per file: remove the '---', or make two files",
                )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                yield _too_deep(at)
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
            braces = isinstance(key_node, yaml.MappingNode)
            fix = 'put text that begins with {{ in quotes: "{{ ... }}"' if braces else "write key: value"
            problems.append(Problem(at, "a key must be one plain word", fix))
            continue
        key = str(key_node.value)
        child = (*path, key)
        if key == "<<":
            problems.append(Problem(at, "<< is a YAML merge key; merge keys are not used here", "write the keys out"))
        elif key in mapping:
            first = file.marks[child].line
            problems.append(
                Problem(f"{at} {dotted(child)}", f"is given twice (first in line {first})", "keep one of the two lines")
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
            meant = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
            if text.lower() in meant:
                fix = f'write {meant[text.lower()]}, or "{text}" in quotes if the word itself is meant'
            problems.append(Problem(file.where(path), f"{text}: {why}", fix))
            return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _too_deep(where: str) -> Problem:
    return Problem(
        where, f"is nested deeper than {MAX_DEPTH} levels", "a campaign file needs three: check the brackets"
    )


def _folder(path: Path) -> Problem:
    files = sorted(file.name for pattern in ("*.yaml", "*.yml") for file in path.glob(pattern))
    fix = f"name a file in it, such as {path / files[0]}" if files else "name the campaign file (.yaml)"
    return Problem(str(path), "is a folder, not a campaign file", fix)


def _missing(path: Path) -> Problem:
    folder = path.parent if path.parent.is_dir() else Path()
    near = get_close_matches(path.name, [file.name for file in folder.glob("*.y*ml")], n=1)
    return Problem(
        str(path),
        "there is no such file",
        f"did you mean {folder / near[0]}?" if near else "check the name, and the folder you are in",
    )


def _syntax(path: Path, text: str, error: yaml.YAMLError) -> Problem:
    if isinstance(error, ReaderError):
        number = text.count("\n", 0, error.position) + 1
        what = f"holds a character that cannot be seen (U+{ord(text[error.position]):04X})"
        return Problem(f"{path.name}:{number}", what, "delete it, or type the line again")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(path.name, "is not valid YAML", "check the indentation and the colons")
    mark = error.problem_mark
    what = str(error.problem or "")
    context = str(error.context or "")
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if line[: mark.column + 1].lstrip(" ").startswith("\t"):
        said = "a tab stands at the beginning of this line", "indent with spaces"
    elif "mapping values are not allowed" in what:
        said = (
            "a colon stands where none can be, or the line is indented too far",
            "put text that holds ': ' in quotes; begin keys of one block in the same column",
        )
    elif "found character" in what and "cannot start any token" in what:
        sign = line[mark.column : mark.column + 1]
        said = f"a value cannot begin with {sign}", "put the value in quotes"
    elif "scanning a quoted scalar" in context:
        begin = error.context_mark.line + 1 if error.context_mark is not None else mark.line + 1
        return Problem(f"{path.name}:{begin}", "a quotation mark is opened and not closed", "close it on the same line")
    elif "could not find expected ':'" in what:
        begin = error.context_mark.line + 1 if error.context_mark is not None else mark.line + 1
        return Problem(
            f"{path.name}:{begin}", "this line is no 'key: value'", "write a colon and a space after the key"
        )
    elif "escape" in what or "escape" in context:
        said = 'a backslash in "double quotes" begins a special sign', "use 'single quotes', or write \\\\"
    elif "flow" in context or "flow" in what:
        begin = error.context_mark.line + 1 if error.context_mark is not None else mark.line + 1
        return Problem(
            f"{path.name}:{begin}",
            "a bracket [ or { is opened and not closed, or a comma is missing",
            "close it; text that begins with {{ must be in quotes",
        )
    else:
        said = (
            f"cannot be read as YAML: {what or context}",
            "check the indentation, the quotes and the colons in this line and the one above",
        )
    return Problem(f"{path.name}:{mark.line + 1}:{mark.column + 1}", *said)
