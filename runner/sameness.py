"""Whether two processes run the same program: Python, our own source, and the packages that ours needs."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

OURS = "campaign-runner"
_CLUSTER = ("dask", "distributed", "psycopg")  # of the extra `cluster`


@cache
def program() -> Mapping[str, str]:
    """Name -> version of everything that has to be the same on all machines of a run."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), OURS: _source()}
    names = set(_CLUSTER)
    for text in metadata.requires(OURS) or []:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            names.add(wanted.name)
    for name in sorted(names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _source() -> str:
    """The version, and a digest of the source: two checkouts may bear the same number."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{metadata.version(OURS)} ({digest.hexdigest()[:12]})"


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """`aiohttp is 3.14.5 here and 3.14.4 there`, for each that differs."""
    names = sorted(ours.keys() | theirs.keys())
    return [
        f"{name} is {ours.get(name, 'none')} here and {theirs.get(name, 'none')} there"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]
