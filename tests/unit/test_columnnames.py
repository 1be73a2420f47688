"""Columns by name: headers, headers with underscores, and `row`."""

from __future__ import annotations

import pytest
from rendering import caption, fault, of_note, problems


def test_a_column_is_a_variable_by_its_header_or_its_header_with_underscores() -> None:
    assert caption("{{ First_Name }} / {{ city }}") == "Ayşe / İzmir"


def test_a_column_is_always_reachable_through_row() -> None:
    assert caption('{{ row["First Name"] }} {{ row.city }} {{ row.First_Name }}') == "Ayşe İzmir Ayşe"


@pytest.mark.parametrize("header", ["range", "items", "row", "loop", "not", "2nd", "a-b c", "Şehir", "dict"])
def test_any_header_is_reachable_through_row_whatever_it_means_to_jinja(header: str) -> None:
    assert caption(f'{{{{ row["{header}"] }}}}', ("x",), columns=(header,)) == "x"


@pytest.mark.parametrize("header", ["range", "items", "dict", "Şehir", "class"])
def test_a_column_wins_over_a_function_of_the_same_name(header: str) -> None:
    assert caption(f"{{{{ {header} }}}}", ("x",), columns=(header,)) == "x"


def test_an_underscore_form_that_two_columns_share_is_refused_with_both_names() -> None:
    said = problems("{{ First_Name }}", columns=("First Name", "First-Name"))
    assert "spring.yaml:14: 'First_Name' could be 'First Name' or 'First-Name'" in said


def test_a_name_asked_for_at_run_time_is_a_fault_of_the_row() -> None:
    assert "'citty' is not a column (nearest: 'city')" in fault("{{ row[note] }}", of_note("citty"))
