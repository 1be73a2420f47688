"""Fixtures of the acceptance tests; the tools themselves are in workbench.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from acceptance.workbench import OpenSandbox, Workbench, base_environment
from runner.sandbox import Sandbox


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """A workspace of its own; commands still running at the end of the test are ended."""
    with ExitStack() as stack:
        root = tmp_path / "workspace"
        (root / "campaigns").mkdir(parents=True)
        yield Workbench(root, base_environment(), stack)


@pytest.fixture
def open_sandbox() -> Iterator[OpenSandbox]:
    """Opens stand-in providers with behaviours of their own."""
    with ExitStack() as stack:
        yield OpenSandbox(stack)


@pytest.fixture
def box(open_sandbox: OpenSandbox) -> Sandbox:
    """A stand-in provider that takes every valid message."""
    return open_sandbox()
