"""The guard before every filter: blanks, sizes, and only text becoming text."""

from __future__ import annotations

import pytest

from runner.filterguard import guarded_filters, join, percent, replace
from runner.templatelimits import Meter
from runner.templatevalues import BadArgumentError, Blank, RenderError, TooLongError, UnreadableError


def test_whatever_is_computed_from_a_blank_is_that_blank() -> None:
    blank = Blank("city")
    assert blank + "x" is blank
    assert "x" + blank is blank
    assert blank[0] is blank
    filters = guarded_filters(Meter(1000))
    for each in ("upper", "title", "trim", "int", "date", "name", "replace"):
        assert filters[each](blank) is blank, each


def test_default_takes_a_blank_for_missing() -> None:
    filters = guarded_filters(Meter(1000))
    assert filters["default"](Blank("city"), "you") == "you"
    assert filters["d"](Blank("city"), "you") == "you"
    assert filters["length"](Blank("city")) == 0


def test_only_text_and_numbers_become_text() -> None:
    filters = guarded_filters(Meter(1000))
    for value in (None, [1], {"a": 1}, float("nan"), True, len):
        with pytest.raises(RenderError):
            filters["upper"](value)


@pytest.mark.parametrize("hollow", ["nan", "None", "#N/A", "[object Object]"])
def test_joining_refuses_what_exports_write_for_empty_cells(hollow: str) -> None:
    with pytest.raises(RenderError, match="clear or mend the cell"):
        join(["a", hollow], " ")


def test_a_number_that_cannot_be_read_is_not_quietly_nought() -> None:
    filters = guarded_filters(Meter(1000))
    assert filters["int"]("12") == 12
    assert filters["int"]("many", 0) == 0
    with pytest.raises(UnreadableError, match="filter 'int' cannot read 'many'"):
        filters["int"]("many")
    with pytest.raises(UnreadableError, match="filter 'float' cannot read 'many'"):
        filters["float"]("many")


def test_lists_are_cut_into_rows_and_columns() -> None:
    filters = guarded_filters(Meter(1000))
    assert list(filters["batch"]([1, 2, 3], 2, 0)) == [[1, 2], [3, 0]]  # type: ignore[call-overload]
    assert list(filters["slice"]([1, 2, 3], 2)) == [[1, 2], [3]]  # type: ignore[call-overload]
    with pytest.raises(BadArgumentError):
        filters["slice"]([1], 0)


@pytest.mark.parametrize("gone", ["random", "safe", "escape", "e", "tojson", "attr", "pprint", "xmlattr", "urlize"])
def test_filters_that_make_no_plain_repeatable_text_are_not_there(gone: str) -> None:
    assert gone not in guarded_filters(Meter(1000))


@pytest.mark.parametrize("pattern", ["%900000000d", "%.900000000f", "%0*d", "%r", "%a", "%s" * 40_000])
def test_a_format_is_measured_before_it_is_used(pattern: str) -> None:
    with pytest.raises(RenderError):
        percent(pattern, (1,))


def test_a_format_that_does_not_suit_its_values_is_refused() -> None:
    assert percent("%.2f and %s", (1.5, "x")) == "1.50 and x"
    assert percent("%(a)s", {"a": "x"}) == "x"
    with pytest.raises(RenderError, match="does not suit"):
        percent("%d", ("x",))
    with pytest.raises(RenderError):
        percent("%s", ([1],))


def test_a_replacement_is_measured_before_it_is_made() -> None:
    assert replace("a-b-c", "-", "+", 1) == "a+b-c"
    with pytest.raises(TooLongError):
        replace("x" * 1000, "x", "y" * 1000)


def test_a_long_cell_may_pass_through_at_its_own_length() -> None:
    filters = guarded_filters(Meter(1000))
    assert len(str(filters["trim"]("x" * 100_000))) == 100_000
