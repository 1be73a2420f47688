"""Fixtures of the acceptance tests; the tools themselves are in workbench.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from acceptance.workbench import OpenSandbox, Workbench, base_environment
from runner.sandbox import Sandbox


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[[], Workbench]]:
    """Makes workspaces, each of its own; commands still running at the end of the test are ended."""
    with ExitStack() as stack:

        def make() -> Workbench:
            root = tmp_path / f"workspace{len(list(tmp_path.iterdir())) or ''}"
            (root / "campaigns").mkdir(parents=True)
            return Workbench(root, base_environment(), stack)

        yield make


@pytest.fixture
def bench(open_bench: Callable[[], Workbench]) -> Workbench:
    """A workspace of its own; commands still running at the end of the test are ended."""
    return open_bench()


@pytest.fixture
def open_sandbox() -> Iterator[OpenSandbox]:
    """Opens stand-in providers with behaviours of their own."""
    with ExitStack() as stack:
        yield OpenSandbox(stack)


@pytest.fixture
def box(open_sandbox: OpenSandbox) -> Sandbox:
    """A stand-in provider that takes every valid message."""
    return open_sandbox()
