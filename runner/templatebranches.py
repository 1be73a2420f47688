"""Which branches of a template a row takes, for a preview that shows each of them once.

A note goes to the start of every branch. It prints nothing, pays nothing and hands values through, so a caption is the same
with and without it; only a preview asks for it.
"""

from __future__ import annotations

from collections import deque

from jinja2 import Environment, nodes, pass_context
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from runner.templatemetering import spelled

NOTE = "(branch)"  # a filter's name that no template can spell
_LONGEST = 60  # characters of a condition in a label


class Branches:
    """The branches taken since `taken` was last cleared, by label: `spring.j2:3 if City`, `spring.j2: else of line 3`."""

    def __init__(self, environment: Environment) -> None:
        self.taken: set[str] = set()
        self._environment = environment
        environment.filters[NOTE] = self._note

    def watch(self, tree: nodes.Template, text: str, name: str) -> None:
        """Put the notes into a template's tree, in place. `text` is what it was parsed from, `name` what to call it."""
        _Notes(name, _conditions(self._environment, text)).visit(tree)

    @pass_context  # or Jinja would run it on constants while it compiles
    def _note(self, _context: Context, value: object, label: str) -> object:
        self.taken.add(label)
        return value


def _conditions(environment: Environment, text: str) -> dict[int, deque[str]]:
    """Line -> its `if ...` and `elif ...` as they are written, in order."""
    found: dict[int, deque[str]] = {}
    words: list[str] = []
    at = 0
    for line, kind, value in environment.lex(text):
        if kind == "block_begin":
            words, at = [], 0
        elif kind == "block_end":
            written = " ".join("".join(words).split())
            if written.partition(" ")[0] in {"if", "elif"}:
                found.setdefault(at, deque()).append(written)
        else:
            words.append(value)
            at = at or (line if kind == "name" else 0)
    return found


class _Notes(NodeTransformer):
    def __init__(self, name: str, conditions: dict[int, deque[str]]) -> None:
        self._name = name
        self._conditions = conditions

    def visit_If(self, node: nodes.If) -> nodes.Node:  # noqa: N802  # Jinja's visitor names
        """`if`, each `elif` and the `else`, in the order of the text; an `else` that is not written counts too."""
        for each in (node, *node.elif_):
            written = self._conditions.get(each.lineno)
            condition = written.popleft() if written else f"if {spelled(each.test)}"
            each.test = self.visit(each.test)
            each.body = [self._noted(each, f"{self._name}:{each.lineno} {_clipped(condition)}"), *self._all(each.body)]
        node.else_ = [self._noted(node, self._otherwise(node)), *self._all(node.else_)]
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.else_:
            node.else_.insert(0, self._noted(node, self._otherwise(node)))
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802
        """`{{ "VIP" if vip else "guest" }}`"""
        label = f"{self._name}:{node.lineno} if {spelled(node.test)}"
        self.generic_visit(node)
        node.expr1 = _through(node.expr1, _clipped(label))
        otherwise = node.expr2 if node.expr2 is not None else nodes.Const("", lineno=node.lineno)
        node.expr2 = _through(otherwise, f"{_clipped(label)}, else")
        return node

    def _all(self, body: list[nodes.Node]) -> list[nodes.Node]:
        return [self.visit(each) for each in body]

    def _otherwise(self, node: nodes.Node) -> str:
        return f"{self._name}: else of line {node.lineno}"

    def _noted(self, node: nodes.Node, label: str) -> nodes.Node:
        return nodes.ExprStmt(_through(nodes.Const(0, lineno=node.lineno), label), lineno=node.lineno)


def _through(value: nodes.Expr, label: str) -> nodes.Filter:
    return nodes.Filter(value, NOTE, [nodes.Const(label)], [], None, None, lineno=value.lineno)


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
