"""What a template may ask for before it is stopped."""

from __future__ import annotations

import pytest

from runner.templatelimits import Meter, weigh
from runner.templatevalues import RenderError, TooLongError


def test_lists_that_hold_themselves_twice_are_weighed_without_being_walked() -> None:
    held: list[object] = [1]
    for _ in range(60):
        held = [held, held]
    with pytest.raises(RenderError, match="more than 10,000 items"):
        weigh(held)


def test_a_meter_runs_dry_on_work_and_on_characters_apart() -> None:
    meter = Meter(10)
    with pytest.raises(TooLongError, match="longer than 10 characters"):
        meter.spend(1, 11)
    meter.reset()
    with pytest.raises(RenderError, match="too much work"):
        list(meter.each(range(70_000)))
