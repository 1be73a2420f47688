"""A scenario file in YAML -> a checked `Scenario`. Its keys are described in `runner.sandbox_scenario`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import orjson
import yaml

from runner.sandbox_scenario import Action, Drop, RateLimit, Rule, Scenario, Seconds

T = TypeVar("T")
KeyPath = tuple[str | int, ...]
Headers = tuple[tuple[str, str], ...]

_TOP = ("seed", "latency", "rate_limit", "queue_seconds", "wapim_device_offline", "magic", "rules")
_MATCH = ("phone", "times", "after", "every")
_DOES = ("latency", "status", "body", "headers", "retry_after", "drop", "taken")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)")
_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATE = re.compile(r"([1-9]\d*)\s*/\s*(s|min|h|day)")
_RATE_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
_PHONE = re.compile(r"[0-9*?\[\]!-]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


class ScenarioError(ValueError):
    """The scenario file is wrong. One line a problem, each naming the file, the line and the key."""


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file. Raises `ScenarioError` when it cannot be read or is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    return parse_scenario(text, str(path))


def parse_scenario(text: str, name: str = "scenario") -> Scenario:
    """The scenario in a text; `name` stands in messages. Raises `ScenarioError` with every problem found."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data: object = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScenarioError(f"{name}:{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ScenarioError(f"{name}:1: not valid YAML: {error}") from error
    if data is None:
        return Scenario()
    reader = _Reader(name, root)
    if not isinstance(data, dict):
        raise ScenarioError(f"{name}:1: must be a mapping of settings, not {_kind(data)}")
    scenario = _scenario(reader, data)
    if reader.problems:
        raise ScenarioError("\n".join(reader.problems))
    return scenario


class _Reader:
    """Takes values out of the file's mappings and notes what is wrong, with the line it stands on."""

    def __init__(self, name: str, root: yaml.Node | None) -> None:
        self.name = name
        self.problems: list[str] = []
        self._lines: dict[KeyPath, int] = {(): 1}
        for path, line in _walk(root, ()):
            if path in self._lines:
                self._note(line, path, f"is written twice (first on line {self._lines[path]})")
            else:
                self._lines[path] = line

    def wrong(self, path: KeyPath, what: str) -> None:
        known = path
        while known not in self._lines:
            known = known[:-1]
        self._note(self._lines[known], path, what)

    def _note(self, line: int, path: KeyPath, what: str) -> None:
        self.problems.append(f"{self.name}:{line}: {_spell(path)}: {what}")

    def known_keys(self, at: KeyPath, data: Mapping[object, object], allowed: tuple[str, ...]) -> None:
        for key in data:
            if key not in allowed:
                near = difflib.get_close_matches(str(key), allowed, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(allowed)}"
                self.wrong((*at, str(key)), f"unknown key{hint}")

    def take(self, at: KeyPath, data: Mapping[object, object], key: str, read: Callable[[object], T], default: T) -> T:
        """`read` turns the value into what it means, or raises ValueError with what is wrong with it."""
        if key not in data:
            return default
        try:
            return read(data[key])
        except ValueError as error:
            self.wrong((*at, key), f"{error}, not {data[key]!r}")
            return default


def _walk(node: yaml.Node | None, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """The line of every key down to those of a rule's own mappings. The depth bound also ends an alias of itself."""
    if len(path) > 3:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _walk(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _walk(value, (*path, index))


def _spell(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _scenario(reader: _Reader, data: Mapping[object, object]) -> Scenario:
    reader.known_keys((), data, _TOP)
    usual = Scenario()
    rules: list[Rule] = []
    nothing: list[object] = []
    listed = reader.take((), data, "rules", _list, nothing)
    for index, item in enumerate(listed):
        if isinstance(item, dict):
            rules.append(_rule(reader, ("rules", index), item))
        else:
            reader.wrong(("rules", index), f"a rule is a mapping, not {_kind(item)}")
    return Scenario(
        seed=reader.take((), data, "seed", _maybe(_integer), usual.seed),
        latency=reader.take((), data, "latency", _latency, usual.latency),
        rate_limit=reader.take((), data, "rate_limit", _maybe(_rate), usual.rate_limit),
        queue_seconds=reader.take((), data, "queue_seconds", _number, usual.queue_seconds),
        wapim_device_offline=reader.take((), data, "wapim_device_offline", _boolean, usual.wapim_device_offline),
        magic=reader.take((), data, "magic", _boolean, usual.magic),
        rules=tuple(rules),
    )


def _rule(reader: _Reader, at: KeyPath, data: Mapping[object, object]) -> Rule:
    reader.known_keys(at, data, _MATCH + _DOES)
    if not any(key in data for key in _DOES):
        reader.wrong(at, f"the rule does nothing; give it one of {', '.join(_DOES)}")
    drop = reader.take(at, data, "drop", _maybe(_drop), None)
    status = reader.take(at, data, "status", _maybe(_status), None)
    body = reader.take(at, data, "body", _maybe(_body), None)
    retry_after = reader.take(at, data, "retry_after", _maybe(_retry_after), None)
    no_headers: Headers = ()
    headers = reader.take(at, data, "headers", _headers, no_headers)
    phone = reader.take(at, data, "phone", _phone, "*")
    if drop is not None:
        for key in ("status", "body", "headers", "retry_after"):
            if key in data:
                reader.wrong((*at, key), "cannot be had together with `drop`: there is no reply")
    if drop is Drop.BEFORE_READ:
        if phone != "*":
            reader.wrong((*at, "phone"), 'must be "*" with `drop: before_read`: the phone is not known before reading')
        for key in ("latency", "taken"):
            if key in data:
                reader.wrong((*at, key), "cannot be had together with `drop: before_read`: nothing was read")
    if retry_after is not None:
        headers = (*headers, ("Retry-After", retry_after))
        status = 429 if status is None and body is None else status
    kinds = [text for key, text in headers if key.lower() == "content-type"]
    if kinds and body is None:
        reader.wrong((*at, "headers"), "Content-Type can only be set together with `body`")
    action = Action(
        status=200 if body is not None and status is None else status,
        body=body[0] if body else None,
        content_type=kinds[0] if kinds else body[1] if body else "application/json",
        headers=tuple((key, text) for key, text in headers if key.lower() != "content-type"),
        drop=drop,
        latency=reader.take(at, data, "latency", _maybe(_latency), None),
        taken=reader.take(at, data, "taken", _maybe(_boolean), None),
    )
    return Rule(
        action,
        phone=phone,
        times=reader.take(at, data, "times", _maybe(_at_least(1)), None),
        after=reader.take(at, data, "after", _at_least(0), 0),
        every=reader.take(at, data, "every", _at_least(1), 1),
    )


def _maybe(read: Callable[[object], T]) -> Callable[[object], T | None]:
    """The same reader where leaving the key out means None."""
    return read


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), f"{value!r}")


def _list(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    raise ValueError("must be a list")


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number")


def _at_least(least: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise ValueError(f"must be a whole number, {least} or more")

    return read


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise ValueError("must be a number of seconds, 0 or more")


def _duration(value: object) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a time with a unit such as 50ms or 1.5s, or a list [shortest, longest] of two")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def _latency(value: object) -> Seconds:
    if not isinstance(value, list):
        return (_duration(value), _duration(value))
    if len(value) != 2 or _duration(value[0]) > _duration(value[1]):
        raise ValueError("must be a list [shortest, longest] of two times")
    return (_duration(value[0]), _duration(value[1]))


def _rate(value: object) -> RateLimit:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a rate such as 40/s, 10/min, 500/h or 1000/day")
    return RateLimit(int(match[1]), _RATE_UNITS[match[2]])


def _phone(value: object) -> str:
    if isinstance(value, str) and _PHONE.fullmatch(value):
        return value
    raise ValueError('must be digits or a glob of digits in quotes, such as "90532*"')


def _drop(value: object) -> Drop:
    if isinstance(value, str) and value in tuple(Drop):
        return Drop(value)
    raise ValueError(f"must be one of {', '.join(Drop)}")


def _status(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599:
        return value
    raise ValueError("must be an HTTP status from 200 to 599")


def _retry_after(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and value.strip() and value.isascii() and value.isprintable():
        return value
    raise ValueError("must be whole seconds or an HTTP date in quotes")


def _body(value: object) -> tuple[bytes, str]:
    if isinstance(value, str):
        return value.encode(), "text/plain"
    if isinstance(value, dict):
        try:
            return orjson.dumps(value), "application/json"
        except TypeError as error:
            raise ValueError(f"cannot be written as JSON ({error})") from error
    raise ValueError("must be a text or a mapping")


def _headers(value: object) -> Headers:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of header names to texts")  # noqa: TRY004  # read as data by `take`
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        if name.lower() in _FRAMING:
            raise ValueError(f"{name} cannot be set by hand (see `drop: truncate`)")
        if not isinstance(text, str) or not text.isascii() or not (text.isprintable() or not text):
            raise ValueError(f"{name} must be a text of printable ASCII in quotes")
    return tuple(value.items())
