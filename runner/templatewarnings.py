"""Likely mistakes in templates that are not errors: what can be meant, but seldom is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jinja2 import nodes

from runner.columnnames import ColumnNames
from runner.templatecheck import asked_of, assigned_names
from runner.templatemetering import spelled
from runner.templateparsing import ParsedTemplate

_TEXT_FILTERS = {"trim", "lower", "upper", "title", "capitalize", "string"}  # what they make of a cell is still text


def likely_mistakes(
    templates: Sequence[ParsedTemplate],
    where: ParsedTemplate | None,
    names: ColumnNames,
    variables: Mapping[str, object],
) -> tuple[str, ...]:
    """One sentence for each, with its place. `templates` are all there are, `where` among them; none is compiled yet."""
    assigned = {name for template in templates for name in assigned_names(template.tree)}
    columns = {name for name in names.plain if name not in assigned}
    found = list(_blankness(where, columns, names)) if where else []
    for template in templates:
        found += _unlike_kinds(template, columns, names, variables)
    return tuple(dict.fromkeys(found))


def _blankness(where: ParsedTemplate, columns: set[str], names: ColumnNames) -> Iterator[str]:
    """`where: consent` is true for "no" as well."""
    condition = where.tree.find(nodes.CondExpr)
    for column in dict.fromkeys(_only_cells(condition.test, columns, names) if condition else []):
        yield (
            f'{where.at(1)}: this only asks whether {column} is blank, so a cell that says "no" counts as yes; '
            f'if that is not meant, write for example: {column} == "yes"'
        )


def _only_cells(node: nodes.Expr, columns: set[str], names: ColumnNames) -> list[str]:
    """The cells of a condition made of nothing but cells, `and`, `or` and `not`; else none."""
    match node:
        case nodes.Not():
            return _only_cells(node.node, columns, names)
        case nodes.And() | nodes.Or():
            left, right = _only_cells(node.left, columns, names), _only_cells(node.right, columns, names)
            return left + right if left and right else []
    cell = _cell(node, columns, names)
    return [cell] if cell else []


def _unlike_kinds(
    template: ParsedTemplate, columns: set[str], names: ColumnNames, variables: Mapping[str, object]
) -> Iterator[str]:
    """`age == 18` is never true: a cell is text."""
    for node in template.tree.find_all(nodes.Compare):
        if len(node.ops) != 1 or node.ops[0].op not in {"eq", "ne"}:
            continue
        sign, always = ("==", "never true") if node.ops[0].op == "eq" else ("!=", "always true")
        for one, other in ((node.expr, node.ops[0].expr), (node.ops[0].expr, node.expr)):
            cell, value = _cell(one, columns, names), _value(other, variables)
            if cell and not isinstance(value, str):
                yield (
                    f"{template.at(node.lineno)}: {cell} {sign} {spelled(other)} is {always}, because a cell is text; "
                    f"write {_comparable(cell, sign, value, spelled(other))}"
                )


def _comparable(cell: str, sign: str, value: object, spelling: str) -> str:
    match value:
        case bool():
            return f'the word that stands in the cell, for example {cell} {sign} "yes"'
        case None:
            return f"{'not ' if sign == '==' else ''}{cell}, which asks whether it is blank"
        case int():
            return f"{cell}|int {sign} {spelling}"
    return f"{cell}|float {sign} {spelling}"


def _cell(node: nodes.Expr, columns: set[str], names: ColumnNames) -> str:
    """How a cell is written in the template, if the expression is one and nothing else; else empty."""
    while isinstance(node, nodes.Filter) and node.name in _TEXT_FILTERS and node.node is not None:
        node = node.node
    if isinstance(node, nodes.Name):
        return node.name if node.name in columns else ""
    return spelled(node) if asked_of("row", node) in names.lookup else ""


def _value(node: nodes.Expr, variables: Mapping[str, object]) -> object:
    """A constant's or a variable's value; of anything else, text (which fits a cell)."""
    if isinstance(node, nodes.Const):
        return node.value
    return variables.get(node.name, "") if isinstance(node, nodes.Name) else ""
