"""Templates from text to tree: those in the campaign file, those in the folder, and all that they call up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.parser import Parser

from runner.errors import Problem
from runner.templatefolder import SOURCE_LIMIT, TemplateFolder

NODE_LIMIT = 2_000  # words and marks of one template after parsing; measured: the worst such one compiles in 0.4 s
FAMILY_LIMIT = 20  # templates that include one another in a chain
DEPTH_LIMIT = 64  # brackets and blocks inside one another; Jinja and Python both recurse over them


@dataclass(frozen=True, slots=True)
class Source:
    """A piece of the campaign file that is a template: its text, and where it stands (`spring.yaml:14`)."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a template stands: of a file its path and name, of a text in the campaign file that text's place."""

    where: str
    lines: int = 1  # of a text in the campaign file
    name: str | None = None  # of a file, its name under the templates folder

    def at(self, line: int) -> str:
        """How to name a line of it."""
        if self.name is not None:
            return f"{self.where}:{line}"
        return f"{self.where} (line {line} of it)" if self.lines > 1 else self.where


@dataclass(frozen=True, slots=True)
class ParsedTemplate:
    """A template's tree, and its place. Compiling a template of the campaign file changes its tree."""

    tree: nodes.Template
    place: Place

    @property
    def name(self) -> str | None:
        return self.place.name

    def at(self, line: int) -> str:
        return self.place.at(line)


class TemplateReader:
    """Reads and parses templates; what is wrong with them goes into `problems`."""

    def __init__(self, environment: Environment, folder: TemplateFolder, problems: list[Problem]) -> None:
        self.files: dict[str, ParsedTemplate | None] = {}  # by name; None for those that could not be parsed
        self._environment = environment
        self._folder = folder
        self._problems = problems

    def _wrong(self, where: str, what: str, fix: str = "") -> None:
        self._problems.append(Problem(where, what, fix))

    def inline(self, source: Source) -> ParsedTemplate | None:
        """A template written in the campaign file."""
        return self._written(source, lambda: self._environment.parse(source.text))

    def expression(self, source: Source) -> ParsedTemplate | None:
        """An expression written in the campaign file, as a template that prints 1 where it is true."""

        def parse() -> nodes.Template:
            parser = Parser(self._environment, source.text, state="variable")
            expression = parser.parse_expression()
            if not parser.stream.eos:
                raise TemplateSyntaxError(f"unexpected {parser.stream.current.value!r}", parser.stream.current.lineno)
            answer = nodes.CondExpr(expression, nodes.Const("1"), nodes.Const(""))
            tree = nodes.Template([nodes.Output([answer])])
            tree.set_lineno(1).set_environment(self._environment)
            return tree

        return self._written(source, parse)

    def file(self, name: str, where: str) -> ParsedTemplate | None:
        """A template of the folder, read once; `where` is the place that asks for it."""
        if name not in self.files:
            source = self._folder.read(name, where)
            if isinstance(source, Problem):
                self._problems.append(source)
                self.files[name] = None
            else:
                place = Place(f"{self._folder.name}/{name}", name=name)
                self.files[name] = self._parsed(lambda: self._environment.parse(source, name), place)
        return self.files[name]

    def _written(self, source: Source, parse: Callable[[], nodes.Template]) -> ParsedTemplate | None:
        if len(source.text) > SOURCE_LIMIT:
            self._wrong(source.where, f"is a template of {len(source.text):,} characters; at most {SOURCE_LIMIT:,}")
            return None
        return self._parsed(parse, Place(source.where, source.text.strip("\n").count("\n") + 1))

    def _parsed(self, parse: Callable[[], nodes.Template], place: Place) -> ParsedTemplate | None:
        try:
            tree = parse()
        except TemplateSyntaxError as error:
            self._wrong(place.at(error.lineno), f"is not valid Jinja: {error.message}")
        except (RecursionError, MemoryError):
            self._wrong(place.at(1), "is nested too deeply to be read", "write it with fewer brackets inside brackets")
        except Exception as error:  # numbers of five thousand digits and the like
            self._wrong(place.at(1), f"cannot be read: {error}")
        else:
            excess = _excess(tree)
            if not excess:
                return ParsedTemplate(tree, place)
            self._wrong(place.at(1), excess, "make it smaller, or split it into templates")
        return None

    def family(self, template: ParsedTemplate) -> list[ParsedTemplate]:
        """The template and every one that it includes, extends or imports; missing and circular ones are problems."""
        found: dict[str | None, ParsedTemplate] = {}

        def visit(template: ParsedTemplate, above: tuple[str, ...]) -> None:
            if template.name in found:
                return
            found[template.name] = template
            for reference in template.tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
                where = template.at(reference.lineno)
                for name, optional in self._referred(reference, where):
                    if len(above) > FAMILY_LIMIT:
                        self._wrong(where, f"the templates call one another more than {FAMILY_LIMIT} deep")
                    elif name in above:
                        circle = " -> ".join([*above[above.index(name) :], name])
                        self._wrong(where, f"the templates go round in a circle: {circle}")
                    elif not (optional and not self._folder.has(name)) and (inner := self.file(name, where)):
                        visit(inner, (*above, name))

        visit(template, () if template.name is None else (template.name,))
        return list(found.values())

    def _referred(self, node: nodes.Node, where: str) -> list[tuple[str, bool]]:
        """The names of the templates that a tag calls up, and whether each may be missing."""
        expression = getattr(node, "template", None)
        several = isinstance(expression, nodes.List | nodes.Tuple)
        items = expression.items if isinstance(expression, nodes.List | nodes.Tuple) else [expression]
        names = [item.value for item in items if isinstance(item, nodes.Const) and isinstance(item.value, str)]
        if len(names) != len(items):
            self._wrong(where, "the name of the template is not written out", 'write it in quotes, as in "footer.j2"')
            return []
        optional = isinstance(node, nodes.Include) and (node.ignore_missing or several)
        return [(name, optional) for name in names]


def _excess(tree: nodes.Template) -> str:
    """Why a parsed template is too large to be walked and compiled safely; found without recursion."""
    count, waiting = 0, [(tree.iter_child_nodes(), 1)]
    while waiting:
        children, depth = waiting[-1]
        child = next(children, None)
        if child is None:
            waiting.pop()
            continue
        count += 1
        if count > NODE_LIMIT:
            return f"is a template of more than {NODE_LIMIT:,} words and marks"
        if depth > DEPTH_LIMIT:
            return f"is nested deeper than {DEPTH_LIMIT} levels"
        waiting.append((child.iter_child_nodes(), depth + 1))
    return ""
