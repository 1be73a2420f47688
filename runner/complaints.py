"""What pydantic finds wrong with a block, in words for the person who wrote the campaign file.

Values are shown as the file has them, never as pydantic got them: in the provider block that could be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from runner.campaignfile import homes, nearest
from runner.errors import Problem
from runner.providers import PROVIDERS
from runner.yamlfile import KeyPath, Tree, YamlFile, yaml_text

M = TypeVar("M", bound=BaseModel)

_WANTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a block of keys",
    "model_type": "must be a block of keys",
    "model_attributes_type": "must be a block of keys",
}
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
}


def validate(model: type[M], values: Tree, base: KeyPath, file: YamlFile, problems: list[Problem]) -> M | None:
    """`values`, which stand at `base` of the file, as a `model`; else None, and `problems` says why."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            location = tuple(part for part in item["loc"] if isinstance(part, str | int))
            path = base + location
            if path in file.marks and file.written(path) is None:
                continue  # a key without a value: said already
            problem = _problem(model, location, item, file.written(path), file.where(path))
            if problem not in problems:
                problems.append(problem)
        return None


def _problem(model: type[BaseModel], location: KeyPath, item: ErrorDetails, written: Tree, where: str) -> Problem:
    kind, context = item["type"], item.get("ctx", {})
    info = _field(model, location)
    if kind == "extra_forbidden":
        return _unknown_key(model, location, where)
    if kind == "missing":
        return Problem(where, "is missing", _add(location, info))
    if kind == "value_error":
        what, _, fix = str(item["msg"]).removeprefix("Value error, ").partition("; ")
        if what.startswith("must ") and isinstance(written, str) and "@" not in written:  # that may be a password
            what = f"{_shown(written)} {what}"
        return Problem(where, what, fix)
    shown = _shown(written)
    if kind == "string_type" and isinstance(written, int | float):
        return Problem(where, f"must be text, not {_kind(written)}", f'put it in quotes: "{shown}"')
    if kind == "list_type" and isinstance(written, str | int | float):
        return Problem(where, f"must be a list, not {shown}", f"put it in brackets: {yaml_text([written])}")
    if kind in _WANTED:
        fix = _example(location, info)
        if kind in {"int_type", "float_type", "bool_type"} and isinstance(written, str):
            fix = "write it without quotes" if _plain(kind, written) else fix
        return Problem(where, f"{_WANTED[kind]}, not {shown}", fix)
    if kind in {"string_too_short", "too_short"}:
        return Problem(where, "is empty", "give it a value, or take the line out")
    if kind == "literal_error":
        known = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        near = nearest(str(written), known)
        return Problem(where, f"{shown} is none of {', '.join(known)}", f"did you mean {near}?" if near else "")
    if kind in _LIMITS:
        name, word = _LIMITS[kind]
        return Problem(where, f"{shown} is out of range: it must be {word} {context[name]:g}", _example(location, info))
    message = str(item["msg"])
    return Problem(where, f"{shown}: {message[:1].lower()}{message[1:]}", _example(location, info))


def _unknown_key(model: type[BaseModel], location: KeyPath, where: str) -> Problem:
    key = str(location[-1])
    known = list(_fields(model, location[:-1]))
    owners = [provider.name for provider in PROVIDERS.values() if key in provider.settings.model_fields]
    if owners and owners != list(PROVIDERS):
        return Problem(where, f"is a setting of {' and '.join(owners)}", "take it out of this provider's block")
    if homes_of := list(homes(key)):
        return Problem(where, "does not belong here", f"move it to {' or '.join(homes_of)}")
    near = nearest(key, known)
    if near is None and (elsewhere := _misspelt_elsewhere(key)):
        return Problem(where, "is not a key of the campaign file", elsewhere)
    fix = f"did you mean {near}?" if near else f"the keys here are {', '.join(known)}"
    return Problem(where, "is not a key of the campaign file", fix)


def _misspelt_elsewhere(key: str) -> str:
    from runner.campaignfile import BLOCKS

    for name, block in BLOCKS.items():
        if near := nearest(key, list(block.model_fields)):
            return f"did you mean {near} under {name}:?"
    return ""


def _plain(kind: str, text: str) -> bool:
    return text in {"true", "false"} if kind == "bool_type" else text.strip().lstrip("-").isdigit()


def _shown(value: Tree) -> str:
    """`true`, `'text'`, `a list`: a wrong value, short enough for a line."""
    if isinstance(value, dict):
        return "a block of keys"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    return yaml_text(value)


def _kind(value: int | float) -> str:
    return f"{yaml_text(value)} (true or false)" if isinstance(value, bool) else f"the number {yaml_text(value)}"


def _fields(model: type[BaseModel], location: KeyPath) -> Mapping[str, FieldInfo]:
    for part in location:
        info = model.model_fields.get(str(part))
        if info is None or not isinstance(info.annotation, type) or not issubclass(info.annotation, BaseModel):
            return {}
        model = info.annotation
    return model.model_fields


def _field(model: type[BaseModel], location: KeyPath) -> FieldInfo | None:
    return _fields(model, location[:-1]).get(str(location[-1])) if location else None


def _first_example(info: FieldInfo | None) -> str:
    examples = info.examples if info is not None else None
    return yaml_text(examples[0]) if examples and not isinstance(examples[0], dict) else ""


def _add(location: KeyPath, info: FieldInfo | None) -> str:
    if _is_block(info):
        return f"add {location[-1]}: and {_keys_of(info)}"
    example = _first_example(info) or "..."
    meaning = (info.description or "").partition(". ")[0].rstrip(".") if info is not None else ""
    return f"add a line such as {location[-1]}: {example} ({meaning[:1].lower()}{meaning[1:]})"


def _keys_of(info: FieldInfo | None) -> str:
    """What a block needs: "below it, indented, file: and phone:"."""
    block = info.annotation if info is not None else None
    needed = ["name", "token"]  # the provider's, which every provider has
    if isinstance(block, type) and issubclass(block, BaseModel):
        needed = [name for name, inner in block.model_fields.items() if inner.is_required()] or list(block.model_fields)
    return "below it, indented, " + " and ".join(f"{name}:" for name in needed[:3])


def _example(location: KeyPath, info: FieldInfo | None) -> str:
    if _is_block(info):
        return f"write {_keys_of(info)}"
    example = _first_example(info)
    return f"write it like this: {location[-1]}: {example}" if example else ""


def _is_block(info: FieldInfo | None) -> bool:
    kind = info.annotation if info is not None else None
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))
