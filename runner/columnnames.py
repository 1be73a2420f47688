"""What a template may call each column, and the row as it sees it: cells by name, blank cells as blanks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from runner.spelling import nearest
from runner.templatevalues import Blank, RenderError, shown

RESERVED = frozenset(
    {"row", "vars", "self", "super", "caller", "varargs", "kwargs", "loop", "true", "false", "none"}
    | {"True", "False", "None", "and", "or", "not", "in", "is", "if", "else"}
)


class ColumnNames:
    """The names of an audience's columns: each header, or the header with underscores where only one column fits.

    `index` finds a column by its header; `lookup` also by its form with underscores, as `row["..."]` does; `plain` are
    the names that stand alone in a template (`{{ First_Name }}`). A header that stands twice is in none of them, and
    `unclear` tells of every name that could mean several columns which ones these are.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        repeated = {header for header, times in Counter(columns).items() if times > 1}
        self.columns = tuple(columns)
        self.index = {header: at for at, header in enumerate(columns) if header not in repeated}
        forms: dict[str, list[str]] = {}
        for header in self.index:
            forms.setdefault(re.sub(r"\W+", "_", header.strip()).strip("_"), []).append(header)
        self.unclear = {form: headers for form, headers in forms.items() if len(headers) > 1 and form not in self.index}
        self.unclear |= {header: [header] * 2 for header in repeated}
        self.lookup = dict(self.index)
        for form, headers in forms.items():
            if len(headers) == 1:
                self.lookup.setdefault(form, self.index[headers[0]])
        self.plain = {name: at for name, at in self.lookup.items() if name.isidentifier() and name not in RESERVED}
        self.blanks = tuple(Blank(header) for header in columns)

    def stray(self, name: str, others: Iterable[str] = (), what: str = "a column") -> str:
        """What to say of a name that nothing bears."""
        if name in self.unclear:
            headers = " or ".join(repr(header) for header in self.unclear[name])
            return f"'{name}' could be {headers}" if len(set(headers)) > 1 else f"'{name}' heads more than one column"
        return f"'{name}' is not {what}{nearest(name, [*self.plain, *self.index, *others])}"


class Row:
    """`row` in a template: every column by its header, blank cells as blanks."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: ColumnNames, values: Sequence[str]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, name: object) -> object:
        at = self._names.lookup.get(name) if isinstance(name, str) else None
        if at is None:
            raise RenderError(self._names.stray(str(name) if isinstance(name, str) else shown(name)))
        value = self._values[at]
        return value if value and not value.isspace() else self._names.blanks[at]

    def __contains__(self, name: object) -> bool:
        return name in self._names.lookup

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.index)

    def __len__(self) -> int:
        return len(self._names.index)

    def get(self, name: object, default: object = None) -> object:
        return self[name] if name in self else default  # noqa: SIM401  # this is that get

    def keys(self) -> list[str]:
        return list(self)

    def values(self) -> list[object]:
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, object]]:
        return [(name, self[name]) for name in self]


ROW_METHODS = frozenset({"get", "items", "keys", "values"})  # of `row`, where no column has that name
