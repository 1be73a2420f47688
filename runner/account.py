"""The provider block: which provider, its settings, and the secrets that come from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner.campaignfile import VARIABLE_PATTERN, is_secret, nearest
from runner.complaints import validate
from runner.errors import Problem
from runner.providers import PROVIDERS
from runner.providers.base import Provider, ProviderSettings
from runner.yamlfile import KeyPath, Tree, YamlFile

SANDBOX_TOKEN = "sandbox-token"  # noqa: S105 - stands in for an unset secret when nothing real can be reached
SANDBOX_NUMBER = "100000000000000"  # likewise for an unset account number

_VARIABLE = re.compile(VARIABLE_PATTERN)
_ATTEMPT = re.compile(r"\$\{([^}]*)\}?|\$[A-Za-z_][A-Za-z0-9_]*")


def read_provider(tree: dict[str, Tree], file: YamlFile, problems: list[Problem]) -> Provider[ProviderSettings] | None:
    """The provider that the campaign file names; None, and a problem more, when there is none such."""
    block = tree.get("provider")
    if not isinstance(block, dict):
        return None  # the model says so
    name = block.get("name")
    if isinstance(name, str) and name in PROVIDERS:
        return PROVIDERS[name]
    known = " or ".join(PROVIDERS)
    where = file.where(("provider", "name"))
    if "name" not in block:
        problems.append(Problem(where, "is missing", f"add a line such as name: {next(iter(PROVIDERS))} ({known})"))
    elif name is not None:
        near = nearest(str(name), list(PROVIDERS))
        problems.append(
            Problem(where, f"{str(name)!r} is no provider", f"did you mean {near}?" if near else f"write {known}")
        )
    return None


def read_settings(
    provider: Provider[ProviderSettings],
    block: dict[str, Tree],
    file: YamlFile,
    env: Mapping[str, str],
    base_url: str | None,
    problems: list[Problem],
) -> ProviderSettings | None:
    """The provider block with its variables filled in; None, with problems, when it is wrong.

    `base_url` replaces the address (the sandbox); what the environment lacks is then stood in for.
    """
    values: dict[str, Tree] = dict(block)
    before = len(problems)
    for key, value in block.items():
        where = file.where(("provider", key))
        known = provider.settings.model_fields.get(key)
        if is_secret(provider, key) and value is not None and not _is_variable(value):
            variable = f"{provider.name.upper()}_{key.upper()}"
            what = "must be ${" + variable + "}, taken from the environment: secrets are never written into the file"
            fix = f"put a line {variable}=... into the file .env of the workspace, and write {key}: ${{{variable}}}"
            problems.append(Problem(where, what, fix))
        elif isinstance(value, str) and known is not None:
            if base_url is not None and not known.is_required() and _unset(value, env):
                del values[key]
                continue
            stand_in = SANDBOX_TOKEN if is_secret(provider, key) else SANDBOX_NUMBER
            values[key] = _filled(value, where, env, problems, stand_in if base_url is not None else None)
    if base_url is not None:
        values["base_url"] = base_url
    if len(problems) > before:
        return None
    return validate(provider.settings, values, ("provider",), file, problems)


def refuse_variables(tree: Tree, path: KeyPath, file: YamlFile, problems: list[Problem]) -> None:
    """`${VARIABLE}` outside the provider block is a mistake: nothing would fill it in."""
    if path[:1] == ("provider",):
        return
    if isinstance(tree, dict):
        for key, child in tree.items():
            refuse_variables(child, (*path, key), file, problems)
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            refuse_variables(child, (*path, index), file, problems)
    elif isinstance(tree, str) and (match := _VARIABLE.search(tree)):
        what = f"{match[0]} would stay as it is: variables are filled in in the provider block only"
        fix = "write the value itself; or put it under vars: and use it as {{ name }} in message"
        problems.append(Problem(file.where(path), what, fix))


def _is_variable(value: Tree) -> bool:
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def _unset(text: str, env: Mapping[str, str]) -> bool:
    return any(not env.get(match[1]) for match in _VARIABLE.finditer(text))


def _filled(text: str, where: str, env: Mapping[str, str], problems: list[Problem], stand_in: str | None) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if env.get(name):
            return env[name]
        if stand_in is not None:
            return stand_in
        what = f"the environment variable {name} {'is empty' if name in env else 'is not set'}"
        fix = f"put a line {name}=... into the file .env of the workspace, or: export {name}=..."
        if name in env:
            fix = (
                f"give it a value (an empty one in the shell hides the one in .env): unset {name}, or export {name}=..."
            )
        problems.append(Problem(where, what, fix))
        return ""

    for match in _ATTEMPT.finditer(text):
        if not _VARIABLE.fullmatch(match[0]):
            fix = "write it like ${WAPIM_TOKEN}: letters, digits and _ in braces"
            problems.append(Problem(where, f"{match[0]} is no environment variable", fix))
            return text
    return _VARIABLE.sub(value, text)
