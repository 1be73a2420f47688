"""What can be known to be wrong with a template before any row is seen: names, filters, settings, constructs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, meta, nodes

from runner.columnnames import RESERVED, ROW_METHODS, ColumnNames
from runner.errors import Problem
from runner.filters import OURS, SAMPLES
from runner.hazards import CONTROL, MARKS
from runner.spelling import listed, nearest
from runner.templateparsing import ParsedTemplate
from runner.templatesandbox import FUNCTIONS
from runner.templatevalues import BadArgumentError, RenderError


@dataclass(frozen=True, slots=True)
class Needs:
    """What templates take from a row: the names that they call it by (`row` among them), and the columns' positions."""

    names: frozenset[str]
    columns: frozenset[int]


class TemplateChecker:
    """Looks over parsed templates; what is wrong with them goes into `problems`."""

    def __init__(
        self,
        environment: Environment,
        names: ColumnNames,
        variables: Mapping[str, object],
        problems: list[Problem],
    ) -> None:
        self._environment = environment
        self._names = names
        self._variables = variables
        self._problems = problems

    def _wrong(self, where: str, what: str, fix: str = "") -> None:
        self._problems.append(Problem(where, what, fix))

    def check_variables(self, file: str) -> None:
        """The campaign's variables, which must not hide columns or words of Jinja; `file` is the campaign file."""
        for name in self._variables:
            where = f"{file}: variables.{name}"
            if name in self._names.lookup or name in self._names.unclear:
                self._wrong(where, f"'{name}' is also a column of the audience", "rename the variable")
            elif name in RESERVED:
                self._wrong(where, f"'{name}' has a meaning of its own in templates", "rename the variable")

    def check(self, family: list[ParsedTemplate]) -> Needs:
        """A template with all that it calls up: what these need of a row."""
        assigned = {name for template in family for name in assigned_names(template.tree)}
        known = {*self._names.plain, *self._variables, *FUNCTIONS, "row", "vars"}
        needed: set[str] = set()
        used: set[int] = set()
        for template in family:
            self._constructs(template)
            free = self._free_names(template)
            needed |= free & {*self._names.plain, "row"}
            used |= {self._names.plain[name] for name in free & self._names.plain.keys()}
            for stray in sorted(free - known - assigned):
                self._unknown(template, stray, assigned)
            if "row" in free - assigned:
                used |= self._row_columns(template)
            if "vars" in free - assigned:
                for name, line in _members(template.tree, "vars")[0]:
                    if name not in self._variables:
                        near = nearest(name, self._variables)
                        self._wrong(template.at(line), f"'{name}' is not one of the variables{near}")
        return Needs(frozenset(needed), frozenset(used))

    def _free_names(self, template: ParsedTemplate) -> set[str]:
        """The names that a template takes from outside itself."""
        tracking = _Tracking(self._environment)
        try:
            tracking.visit(template.tree)
        except TemplateSyntaxError as error:
            self._wrong(template.at(error.lineno), f"is not valid Jinja: {error.message}")
        except (RecursionError, MemoryError):
            self._wrong(template.at(1), "is nested too deeply to be read")
        else:
            return tracking.undeclared_identifiers
        return set()

    def _unknown(self, template: ParsedTemplate, name: str, assigned: set[str]) -> None:
        lines = sorted({node.lineno for node in template.tree.find_all(nodes.Name) if node.name == name}) or [1]
        others = [*self._variables, *assigned]
        what = self._names.stray(name, others, "a column or a variable")
        if name == "loop":
            what = "'loop' only stands inside a {% for %}"
        fix = 'write row["..."] with the exact header' if name in self._names.unclear else listed(self._names.index)
        for line in lines:
            self._wrong(template.at(line), what, fix)

    def _row_columns(self, template: ParsedTemplate) -> set[int]:
        members, bare = _members(template.tree, "row")
        used = set(self._names.index.values()) if bare else set()
        for name, line in members:
            if name in self._names.lookup:
                used.add(self._names.lookup[name])
            elif name in ROW_METHODS:
                used |= set(self._names.index.values())
            else:
                self._wrong(template.at(line), self._names.stray(name), listed(self._names.index))
        return used

    def _constructs(self, template: ParsedTemplate) -> None:
        """Filters and tests that do not exist, settings no value can make right, and what captions do without."""
        for node in template.tree.find_all(nodes.Node):
            where = template.at(node.lineno or 1)
            match node:
                case nodes.Filter() if node.name not in self._environment.filters:
                    known = [name for name in self._environment.filters if name.isidentifier()]
                    self._wrong(where, f"there is no filter '{node.name}'{nearest(node.name, known)}", listed(known))
                case nodes.Filter() if node.name in OURS:
                    self._settings(node, where)
                case nodes.Test() if node.name not in self._environment.tests:
                    self._wrong(where, f"there is no test '{node.name}'{nearest(node.name, self._environment.tests)}")
                case nodes.For() if node.recursive:
                    self._wrong(where, "a recursive loop cannot be used in a caption")
                case nodes.EvalContextModifier():
                    self._wrong(where, "{% autoescape %} cannot be used: a caption is plain text")
                case nodes.Getattr() if node.attr in {"format", "format_map"}:
                    if not any(asked_of(name, node) for name in ("row", "vars")):
                        self._wrong(where, f".{node.attr}() cannot be used", "use the filters format, number or ~")
                case nodes.TemplateData():
                    for pattern, what in ((MARKS, "holds template mark-up"), (CONTROL, "holds a control character")):
                        if found := pattern.search(node.data):
                            line = node.lineno + node.data.count("\n", 0, found.start())
                            self._wrong(template.at(line), f"the text {what} that would be sent as it is: {found[0]!r}")

    def _settings(self, node: nodes.Filter, where: str) -> None:
        values = [*node.args, *(pair.value for pair in node.kwargs)]
        if node.dyn_args or node.dyn_kwargs or not all(isinstance(value, nodes.Const) for value in values):
            return
        settings = {str(pair.key): pair.value.as_const() for pair in node.kwargs}
        try:
            OURS[node.name](SAMPLES[node.name], *(value.as_const() for value in node.args), **settings)
        except BadArgumentError as error:
            self._wrong(where, f"filter '{node.name}': {error.message}")
        except TypeError as error:
            self._wrong(where, f"filter '{node.name}': {str(error).partition('() ')[2] or error}")
        except RenderError:
            pass  # the sample does not suit an `input` or `decimal`; values may


class _Tracking(meta.TrackingCodeGenerator):
    """Finds the names a template takes from outside itself, past filters that do not exist, evaluating nothing."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.optimizer = None  # it would run expressions of constants, and stumble over those that fail

    def fail(self, msg: str, lineno: int) -> None:  # type: ignore[override]  # Jinja's own never returns
        if not msg.startswith(("No filter named", "No test named")):
            super().fail(msg, lineno)


def assigned_names(tree: nodes.Template) -> Iterator[str]:
    """Every name that a template sets, anywhere in it."""
    for node in tree.find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
        match node:
            case nodes.Name() if node.ctx != "load":
                yield node.name
            case nodes.Macro():
                yield node.name
            case nodes.Import():
                yield node.target
            case nodes.FromImport():
                yield from (name if isinstance(name, str) else name[1] for name in node.names)


def asked_of(name: str, node: nodes.Node) -> str | None:
    """What an expression asks of `row` or `vars` by a written-out name, as `row.city` and `row["city"]` do."""
    if not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    if not isinstance(node.node, nodes.Name) or node.node.name != name:
        return None
    if isinstance(node, nodes.Getattr):
        return node.attr
    return str(node.arg.value) if isinstance(node.arg, nodes.Const) else None


def _members(tree: nodes.Template, name: str) -> tuple[list[tuple[str, int]], bool]:
    """All that is asked of `row` or `vars`, with lines; and whether it is used in any other way."""
    asked = [(asked_of(name, node), node.lineno) for node in tree.find_all((nodes.Getattr, nodes.Getitem))]
    members = [(member, line) for member, line in asked if member is not None]
    uses = sum(1 for node in tree.find_all(nodes.Name) if node.name == name)
    return members, uses > len(members)
