"""What all tests share. Its place makes the helpers beside it (`faultserver`, `virtualtime`) importable by their names."""

from __future__ import annotations

import machine
import pytest


@pytest.fixture(autouse=True)
def _count_what_the_host_takes() -> None:
    machine.begin()
