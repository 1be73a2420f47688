"""What is decided before a cluster run begins."""

from __future__ import annotations

import sys

import pytest

from runner.clusterplan import check_cluster, partition_size, refuse_others
from runner.errors import InputError
from runner.sameness import differences, program


@pytest.mark.parametrize(
    ("rows", "per_second", "slots", "expected"),
    [
        (20_000, 400.0, 4, 625),  # eight for each slot
        (1_000_000, 400.0, 4, 5000),  # never more
        (1_000_000, 20.0, 4, 600),  # half a minute of the budget
        (1_000_000, None, 4, 5000),  # no limit
        (100, 400.0, 4, 50),  # never fewer
        (100, 1 / 60, 4, 50),
        (20_000, 400.0, 0, 2500),
    ],
)
def test_partitions_are_neither_too_many_nor_too_few(
    rows: int, per_second: float | None, slots: int, expected: int
) -> None:
    assert partition_size(rows, per_second, slots) == expected


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "campaign-runner\[cluster\]"'):
        check_cluster(shared_ledger=True)


def test_a_ledger_in_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="PostgreSQL"):
        check_cluster(shared_ledger=False)


def test_this_program_is_the_same_as_itself_and_names_what_it_needs() -> None:
    assert differences(program(), dict(program())) == []
    assert {"Python", "campaign-runner", "aiohttp", "distributed", "psycopg"} <= program().keys()


def test_each_worker_that_differs_is_named() -> None:
    other = {**program(), "aiohttp": "3.0.0"}
    with pytest.raises(InputError) as refused:
        refuse_others({"tcp://one:1": other, "tcp://two:2": ModuleNotFoundError("runner"), "tcp://three:3": program()})
    first, second = refused.value.problems
    assert "tcp://one:1" in first.where
    assert "3.0.0 there" in first.what
    assert "tcp://two:2" in second.where
    assert "campaign-runner" in second.what
