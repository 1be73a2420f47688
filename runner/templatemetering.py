"""Puts a meter into a parsed template: what is printed, glued, held or run more than once goes through a filter.

The filters have names that no template can spell; the sandbox answers to them.
"""

from __future__ import annotations

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from runner.templatevalues import shown

SPEND, SHOW, GLUE, HELD, WITHIN = "(spend)", "(show)", "(glue)", "(held)", "(within)"
_Body = nodes.Template | nodes.Macro | nodes.CallBlock | nodes.Block
_REPEATED = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)


class Metering(NodeTransformer):
    """Rewrites a parsed template, once, in place."""

    def visit_Template(self, node: _Body) -> nodes.Node:  # noqa: N802  # Jinja's visitor names
        self.generic_visit(node)
        _pay(node, node.body, 16)
        return node

    visit_Macro = visit_CallBlock = visit_Block = visit_Template  # noqa: N815

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        _pay(node, node.body, 4)
        if node.else_:
            _pay(node, node.else_, 1)
        if node.test is not None:
            node.test = nodes.And(_price(node.lineno, 4), node.test, lineno=node.lineno)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        words = [None if isinstance(child, nodes.TemplateData) else spelled(child) for child in node.nodes]
        self.generic_visit(node)
        node.nodes = [
            child if spelling is None else _filtered(child, SHOW, nodes.Const(spelling))
            for child, spelling in zip(node.nodes, words, strict=True)
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), GLUE)

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, HELD) if node.items else node

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, HELD) if node.items and node.ctx == "load" else node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802
        """`{{ "VIP" if vip }}` prints nothing otherwise, on purpose."""
        self.generic_visit(node)
        if node.expr2 is None:
            node.expr2 = nodes.Const("", lineno=node.lineno)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """A blank is in no text (Python would raise a TypeError over it)."""
        self.generic_visit(node)
        if len(node.ops) == 1 and node.ops[0].op in {"in", "notin"}:
            within = _filtered(node.expr, WITHIN, node.ops[0].expr)
            return within if node.ops[0].op == "in" else nodes.Not(within, lineno=node.lineno)
        return node

    def visit_Import(self, node: nodes.Import | nodes.FromImport) -> nodes.Node:  # noqa: N802
        """Macro files always see the row. Without it Jinja keeps one copy of them, and their state, for all rows."""
        node.with_context = True
        return node

    visit_FromImport = visit_Import  # noqa: N815

    def visit_Include(self, node: nodes.Include | nodes.Extends) -> nodes.Node:  # noqa: N802
        return node  # a template's name stays the constant it is

    visit_Extends = visit_Include  # noqa: N815


def _filtered(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _price(line: int, work: int, chars: int = 0) -> nodes.Filter:
    return _filtered(nodes.Const(0, lineno=line), SPEND, nodes.Const(work), nodes.Const(chars))


def _pay(node: nodes.Node, body: list[nodes.Node], work: int) -> None:
    """Makes every run of a body cost its work and its own literal text."""
    chars = sum(_literal_length(each) for each in body)
    body.insert(0, nodes.ExprStmt(_price(node.lineno, work, chars), lineno=node.lineno))


def _literal_length(node: nodes.Node) -> int:
    if isinstance(node, nodes.TemplateData):
        return len(node.data)
    return sum(_literal_length(child) for child in node.iter_child_nodes() if not isinstance(child, _REPEATED))


def spelled(node: nodes.Node | None) -> str:
    """An expression as its author wrote it, near enough to find it again."""
    match node:
        case nodes.Name():
            return str(node.name)
        case nodes.Const():
            return shown(node.value) if isinstance(node.value, str) else str(node.value)[:60]
        case nodes.Getattr():
            return f"{spelled(node.node)}.{node.attr}"[:120]
        case nodes.Getitem():
            return f"{spelled(node.node)}[{spelled(node.arg)}]"[:120]
        case nodes.Filter():
            return f"{spelled(node.node)}|{node.name}"[:120]
        case nodes.Call():
            return f"{spelled(node.node)}(...)"[:120]
    return "the expression"
