"""Cells of a CSV file: written past the csv module, and the same to the byte."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hostile_strings import HOSTILE_STRINGS
from hypothesis import given
from hypothesis import strategies as st

from runner.cells import csv_cells, guard

# What decides: signs, separators, quotes, line breaks, blanks that cannot be seen, letters that cannot, a bar.
SIGNS = "=+-@＝−,;|\"' \t\r\n\x00\x0b\u00ad\u200b\u2028\u115f\ufeff\ud800éÇ中0aZ_.("
PIECES = st.sampled_from([*SIGNS, "\r\n", "=1+1"])
TEXTS = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=12))


def as_the_csv_module_has_it(texts: Sequence[str]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerow([guard(text) for text in texts])
    return file.getvalue()


@given(st.lists(TEXTS, min_size=2, max_size=6))
def test_cells_are_written_as_the_csv_module_writes_guarded_ones(texts: list[str]) -> None:
    assert ",".join(csv_cells(texts)) + "\r\n" == as_the_csv_module_has_it(texts)


def test_hostile_cells_are_written_so_alone_and_beside_others() -> None:
    for text in HOSTILE_STRINGS:
        for texts in ([text, "Anna"], ["accepted", text, "+905320000001"], [text, text], ["", text]):
            assert ",".join(csv_cells(texts)) + "\r\n" == as_the_csv_module_has_it(texts)
