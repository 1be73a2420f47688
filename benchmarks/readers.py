"""What planning is compared with, each in a process of its own: `python -m benchmarks.readers NAME FILE`; prints seconds.

`csv` and `calamine` only read every row, the least that any planning must do. The other one does what a script does: read with
pandas, go through the rows, parse the number, render the caption; it keeps nothing.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable

from benchmarks.workspace import CAPTION, IMAGE


def _csv(path: str) -> int:
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123 - the plainest way is what is measured
        return sum(1 for _ in csv.reader(file))


def _calamine(path: str) -> int:
    from python_calamine import CalamineWorkbook

    with CalamineWorkbook.from_path(path) as book:
        return sum(1 for _ in book.get_sheet_by_index(0).iter_rows())


def _script(path: str) -> int:
    import jinja2
    import pandas
    import phonenumbers

    csv_file = path.endswith(".csv")
    frame = pandas.read_csv(path, dtype=str) if csv_file else pandas.read_excel(path, dtype=str, engine="openpyxl")
    jinja = jinja2.Environment()  # noqa: S701 - captions are no HTML
    caption, image = jinja.from_string(CAPTION), jinja.from_string(IMAGE)
    done = 0
    for _, row in frame.iterrows():
        number = phonenumbers.parse(row["Phone"], None)
        if phonenumbers.is_valid_number(number):
            phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
            values = row.to_dict()
            caption.render(values)
            image.render(values)
            done += 1
    return done


READERS: dict[str, Callable[[str], int]] = {"csv": _csv, "calamine": _calamine, "script": _script}


def main() -> None:
    """Wall and processor seconds, and the rows, as JSON."""
    name, path = sys.argv[1:]
    began, used = time.perf_counter(), time.process_time()
    rows = READERS[name](path)
    print(json.dumps({"wall": time.perf_counter() - began, "cpu": time.process_time() - used, "rows": rows}))


if __name__ == "__main__":
    main()
