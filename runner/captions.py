"""Captions, image addresses and row conditions: Jinja compiled once, checked whole, rendered row by row.

Two promises. Every mistake that can be known without a row (a misspelt column, a missing template, bad syntax) is an
`InputError` with its file and line when the `Renderer` is made. Whatever happens on one row is a `RenderFault`,
never an exception: blank cells that would be printed, values a filter cannot read, templates that ask for too much.

Templates come from one folder and are read once, in the constructor; values are data and are never rendered. The
sandbox is Jinja's own with what it leaves open closed (its documentation asks for resource limits; CVE-2016-10745,
CVE-2024-56326 and CVE-2025-27516 all went through string formatting): attributes are on a list, `.format` is gone,
sizes are checked before anything is built, and loops, calls and printed characters are paid for from a `Meter`.
"""

from __future__ import annotations

import difflib
import re
import stat
import types
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import (
    BaseLoader,
    Environment,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    meta,
    nodes,
    pass_context,
)
from jinja2.environment import TemplateModule
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from runner.errors import InputError, Problem
from runner.filters import (
    OURS,
    SAMPLES,
    SIZE_LIMIT,
    BadArgumentError,
    Blank,
    BlankError,
    Meter,
    RenderError,
    TooLongError,
    glue,
    grown,
    guarded_filters,
    join,
    percent,
    printable,
    replace,
    shown,
    sized,
    weigh,
)
from runner.model import SkipReason

CHARS_PER_LIMIT = 64  # a text is given up once it has printed this many times the caption's limit
SOURCE_LIMIT = 65_536  # characters of one template
NODE_LIMIT = 4_000  # words and marks of one template after parsing; measured: the worst such one compiles in 0.6 s
DEPTH_LIMIT = 64  # brackets and blocks inside one another; Jinja and Python both recurse over them
IMAGE_LIMIT = 2_048  # characters of an image's address


@dataclass(frozen=True, slots=True)
class Source:
    """A piece of the campaign file that is a template: its text, and where it stands (`spring.yaml:14`)."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one recipient gets. The caption may be empty; the image is an http(s) address."""

    image: str
    caption: str


@dataclass(frozen=True, slots=True)
class RenderFault:
    """Why one row gets nothing, in words for the person who owns the sheet."""

    reason: SkipReason
    detail: str


# -- the row as templates see it -------------------------------------------------------------------------------------


class _Names:
    """What a template may call each column: its header, or the header with underscores where only one column fits."""

    RESERVED = frozenset(
        {
            "row",
            "vars",
            "self",
            "super",
            "caller",
            "varargs",
            "kwargs",
            "loop",
            "true",
            "false",
            "none",
            "True",
            "False",
        }
        | {"None", "and", "or", "not", "in", "is", "if", "else"}
    )

    def __init__(self, columns: Sequence[str]) -> None:
        repeated = {header for header, times in Counter(columns).items() if times > 1}
        self.columns = tuple(columns)
        self.index = {header: at for at, header in enumerate(columns) if header not in repeated}
        forms: dict[str, list[str]] = {}
        for header in self.index:
            forms.setdefault(re.sub(r"\W+", "_", header.strip()).strip("_"), []).append(header)
        self.unclear = {form: headers for form, headers in forms.items() if len(headers) > 1 and form not in self.index}
        self.unclear |= {header: [header] * 2 for header in repeated}
        self.lookup = dict(self.index)  # everything that row["..."] knows
        for form, headers in forms.items():
            if len(headers) == 1:
                self.lookup.setdefault(form, self.index[headers[0]])
        self.plain = {name: at for name, at in self.lookup.items() if name.isidentifier() and name not in self.RESERVED}
        self.blanks = tuple(Blank(header) for header in columns)

    def stray(self, name: str, others: Iterable[str] = (), what: str = "a column") -> str:
        """What to say of a name that nothing bears."""
        if name in self.unclear:
            headers = " or ".join(repr(header) for header in self.unclear[name])
            return f"'{name}' could be {headers}" if len(set(headers)) > 1 else f"'{name}' heads more than one column"
        return f"'{name}' is not {what}{_nearest(name, [*self.plain, *self.index, *others])}"


def _nearest(name: str, known: Iterable[str]) -> str:
    by_fold = {unicodedata.normalize("NFKC", each).casefold(): each for each in reversed(list(known))}
    found = difflib.get_close_matches(unicodedata.normalize("NFKC", name).casefold(), by_fold, 1, 0.6)
    return f" (nearest: '{by_fold[found[0]]}')" if found else ""


class _Row:
    """`row` in a template: every column by its header, blank cells as blanks."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: _Names, values: Sequence[str]) -> None:
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


# -- the sandbox -----------------------------------------------------------------------------------------------------

_STR_METHODS = frozenset(
    {"capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii"}
    | {"isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust", "lower"}
    | {"lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition"}
    | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"}
)
_ATTRIBUTES: tuple[tuple[type, frozenset[str] | None], ...] = (  # None: all that do not begin with an underscore
    (str, _STR_METHODS),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (tuple, frozenset({"count", "index", "grouper", "list"})),
    (Cycler, frozenset({"current", "next", "reset"})),
    (BlockReference, frozenset({"super"})),
    (LoopContext, None),
    (Namespace, None),
    (TemplateModule, None),
)
_ROW_METHODS = frozenset({"get", "items", "keys", "values"})
_INT_BITS = 4_096


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > SIZE_LIMIT:
        raise RenderError(f"range of {len(numbers):,} numbers is too large; at most {SIZE_LIMIT:,}")
    return numbers


def _dict(*pairs: Mapping[str, object], **named: object) -> dict[str, object]:
    return dict(*pairs, **named)


# In the row's context, not in the environment's globals: a column called 'range' is a column.
_FUNCTIONS: Mapping[str, object] = {
    "range": _range,
    "dict": _dict,
    "namespace": Namespace,
    "cycler": Cycler,
    "joiner": Joiner,
}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with sizes, attributes and work limited."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, loader: BaseLoader, meter: Meter) -> None:
        super().__init__(
            loader=loader,
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=False,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # or expressions of constants would run, unmetered, while the template is compiled
            auto_reload=False,
            cache_size=-1,
        )
        self.meter = meter
        self.globals.clear()
        self.filters.clear()
        self.filters.update(guarded_filters(meter))

        @pass_context
        def spend(_context: Context, _value: object, work: int, chars: int) -> bool:
            meter.spend(work, chars)
            return True

        @pass_context
        def show(_context: Context, value: object, expression: str) -> str:
            try:
                words = printable(value)
            except BlankError:
                raise
            except RenderError as error:
                raise RenderError(f"{expression}: {error.message}") from None
            meter.spend(1, len(words))
            return words

        # Names that no template can spell.
        self.filters |= {"(spend)": spend, "(show)": show, "(glue)": self._glue, "(held)": self._held}
        self.filters |= {"(within)": self._within, "(keep)": lambda value: "1" if value else ""}
        self.tests["in"] = self._within

    def _glue(self, parts: list[object]) -> object:
        glued = glue(parts)
        self.meter.spend(2 + (len(glued) // 32 if isinstance(glued, str) else 0))
        return glued

    def _held(self, held: object) -> object:
        self.meter.spend(1 + weigh(held) // 4)
        return held

    @staticmethod
    def _within(value: object, container: object) -> bool:
        if isinstance(value, Blank) and isinstance(container, str):
            return False
        return value in container  # type: ignore[operator]  # a TypeError is this row's fault

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        metered = _Metering().visit(source)
        metered.set_environment(self)
        return super()._generate(metered, name, filename, defer_init)

    def getattr(self, obj: object, attribute: str) -> object:
        if isinstance(obj, Blank):
            return obj
        if isinstance(obj, _Row):
            if attribute in _ROW_METHODS and attribute not in obj:
                return types.MethodType(getattr(_Row, attribute), obj)
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        if attr.startswith("_"):
            return False
        return any(isinstance(obj, type_) and (names is None or attr in names) for type_, names in _ATTRIBUTES)

    def wrap_str_format(self, value: object) -> None:
        if isinstance(value, types.BuiltinMethodType) and value.__name__ in {"format", "format_map"}:
            raise RenderError("text.format() cannot be used in a caption; use the filters format and number")

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        for side in (left, right):
            if isinstance(side, Blank):
                return side
        self.meter.spend(1)
        if operator == "%" and isinstance(left, str):
            return percent(left, right)
        if operator == "*":
            for held, times in ((left, right), (right, left)):
                if isinstance(held, str | list | tuple) and isinstance(times, int):
                    grown(len(held) * max(sized(times), 0))
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.meter.spend(grown(len(left) + len(right)) // 32)
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _INT_BITS:
                raise RenderError(f"a number of about {bits:,} bits is too large")
        result = self.binop_table[operator](left, right)
        return self._held(result) if isinstance(result, list | tuple) else result

    def call(
        __self,  # noqa: N805  # out of the way of a macro's keywords, as in Jinja
        __context: Context,
        __obj: object,
        *args: object,
        **kwargs: object,
    ) -> object:
        __self.meter.spend(8)
        for given in (*args, *kwargs.values()):
            if isinstance(given, list | tuple | dict):
                __self._held(given)
        if isinstance(__obj, types.BuiltinMethodType) and isinstance(__obj.__self__, str):
            return __self._text_method(__obj, __obj.__self__, args, kwargs)
        if isinstance(__obj, type) and __obj not in {Namespace, Cycler, Joiner}:
            raise RenderError("a type cannot be called in a caption")
        return super().call(__context, __obj, *args, **kwargs)

    def _text_method(
        self,
        method: types.BuiltinMethodType,
        words: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        for given in args:
            if isinstance(given, Blank):
                return given
        self.meter.spend(len(words) // 32)
        match method.__name__:
            case "replace":
                return replace(words, *args)
            case "join" if len(args) == 1 and isinstance(args[0], Iterable):
                return join(self.meter.each(args[0]), words)
            case "center" | "ljust" | "rjust" | "zfill":
                sized(args[0])
        result = method(*args, **kwargs)
        if isinstance(result, list):
            self._held(result)
        return result


class _Metering(NodeTransformer):
    """Puts the meter into a parsed template: what is printed, glued, held or run more than once goes through it."""

    @staticmethod
    def _filter(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)

    def _paid(self, node: nodes.Node, body: list[nodes.Node], work: int) -> None:
        """Makes every run of a body cost its work and its own literal text."""
        chars = sum(_literal_length(each) for each in body)
        price = self._filter(nodes.Const(0, lineno=node.lineno), "(spend)", nodes.Const(work), nodes.Const(chars))
        body.insert(0, nodes.ExprStmt(price, lineno=node.lineno))

    def visit_Template(self, node: nodes.Template) -> nodes.Node:  # noqa: N802  # Jinja's visitor names
        self.generic_visit(node)
        self._paid(node, node.body, 16)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        self._paid(node, node.body, 16)
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        self._paid(node, node.body, 16)
        return node

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        self._paid(node, node.body, 16)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        self._paid(node, node.body, 4)
        if node.else_:
            self._paid(node, node.else_, 1)
        if node.test is not None:
            turn = self._filter(nodes.Const(0, lineno=node.lineno), "(spend)", nodes.Const(4), nodes.Const(0))
            node.test = nodes.And(turn, node.test, lineno=node.lineno)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        spelled = [None if isinstance(child, nodes.TemplateData) else _spelled(child) for child in node.nodes]
        self.generic_visit(node)
        node.nodes = [
            child if words is None else self._filter(child, "(show)", nodes.Const(words))
            for child, words in zip(node.nodes, spelled, strict=True)
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), "(glue)")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(node, "(held)") if node.items else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(node, "(held)") if node.items and node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(node, "(held)") if node.items else node

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
            within = self._filter(node.expr, "(within)", node.ops[0].expr)
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


_REPEATED = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)


def _literal_length(node: nodes.Node) -> int:
    if isinstance(node, nodes.TemplateData):
        return len(node.data)
    return sum(_literal_length(child) for child in node.iter_child_nodes() if not isinstance(child, _REPEATED))


def _spelled(node: nodes.Node | None) -> str:
    """An expression as its author wrote it, near enough to find it again."""
    match node:
        case nodes.Name():
            return str(node.name)
        case nodes.Const():
            return shown(node.value) if isinstance(node.value, str) else str(node.value)[:60]
        case nodes.Getattr():
            return f"{_spelled(node.node)}.{node.attr}"[:120]
        case nodes.Getitem():
            return f"{_spelled(node.node)}[{_spelled(node.arg)}]"[:120]
        case nodes.Filter():
            return f"{_spelled(node.node)}|{node.name}"[:120]
        case nodes.Call():
            return f"{_spelled(node.node)}(...)"[:120]
    return "the expression"


# -- reading and checking templates ----------------------------------------------------------------------------------

_MARKS = re.compile(r"\{\{|\}\}|\{%|%\}")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class _Text:
    """One parsed template, and how to name a line of it."""

    tree: nodes.Template
    where: str  # of a file its path, of a text in the campaign file that text's place
    lines: int = 0  # of a text in the campaign file
    name: str | None = None  # of a file, its name under the templates folder

    def at(self, line: int) -> str:
        if self.name is not None:
            return f"{self.where}:{line}"
        return f"{self.where} (line {line} of it)" if self.lines > 1 else self.where


class _Shelf(BaseLoader):
    """The templates as they were read when the campaign was checked; nothing is read later."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        if template not in self.sources:
            raise TemplateNotFound(template)
        return self.sources[template], None, None


class _Checker:
    """Reads and parses templates, and collects what is wrong with them."""

    def __init__(
        self, sandbox: _Sandbox, shelf: _Shelf, names: _Names, variables: Mapping[str, object], folder: Path
    ) -> None:
        self.problems: dict[tuple[str, str], Problem] = {}
        self.texts: dict[str, _Text | None] = {}
        self._sandbox = sandbox
        self._shelf = shelf
        self._names = names
        self._variables = variables
        self._folder = folder

    def wrong(self, where: str, what: str, fix: str = "") -> None:
        """Notes a problem once."""
        self.problems.setdefault((where, what), Problem(where, what, fix))

    def _parsed(self, parse: Callable[[], nodes.Template], at: Callable[[int], str]) -> nodes.Template | None:
        try:
            tree = parse()
            if excess := _excess(tree):
                self.wrong(at(1), excess, "make it smaller, or split it into templates")
                return None
            return tree
        except TemplateSyntaxError as error:
            self.wrong(at(error.lineno), f"is not valid Jinja: {error.message}")
        except (RecursionError, MemoryError):
            self.wrong(at(1), "is nested too deeply to be read", "write it with fewer brackets inside brackets")
        except Exception as error:  # numbers of five thousand digits and the like
            self.wrong(at(1), f"cannot be read: {error}")
        return None

    def inline(self, source: Source) -> _Text | None:
        """A template written in the campaign file."""
        if len(source.text) > SOURCE_LIMIT:
            self.wrong(source.where, f"is a template of {len(source.text):,} characters; at most {SOURCE_LIMIT:,}")
            return None
        text = _Text(nodes.Template([]), source.where, source.text.strip("\n").count("\n") + 1)
        tree = self._parsed(lambda: self._sandbox.parse(source.text), text.at)
        return _Text(tree, text.where, text.lines) if tree else None

    def expression(self, source: Source) -> _Text | None:
        """An expression written in the campaign file, as a template that prints 1 where it is true."""

        def parse() -> nodes.Template:
            parser = Parser(self._sandbox, source.text, state="variable")
            expression = parser.parse_expression()
            if not parser.stream.eos:
                raise TemplateSyntaxError(f"unexpected {parser.stream.current.value!r}", parser.stream.current.lineno)
            kept = nodes.Filter(expression, "(keep)", [], [], None, None, lineno=1)
            tree = nodes.Template([nodes.Output([kept], lineno=1)], lineno=1)
            tree.set_environment(self._sandbox)
            return tree

        text = _Text(nodes.Template([]), source.where, source.text.strip("\n").count("\n") + 1)
        tree = self._parsed(parse, text.at)
        return _Text(tree, text.where, text.lines) if tree else None

    def file(self, name: str, where: str) -> _Text | None:
        """A template of the folder, read once."""
        if name not in self.texts:
            self.texts[name] = None
            path = f"{self._folder.name}/{name}"
            source = self._read(name, where)
            if source is not None:
                tree = self._parsed(lambda: self._sandbox.parse(source, name), lambda line: f"{path}:{line}")
                self.texts[name] = _Text(tree, path, name=name) if tree else None
                self._shelf.sources[name] = source
        return self.texts[name]

    def _read(self, name: str, where: str) -> str | None:
        folder = self._folder.resolve()
        parts = name.split("/")
        if not name or any(part in {"", ".", ".."} or set("\\:\0") & set(part) for part in parts):
            self.wrong(where, f"template {shown(name)} is not a path inside {self._folder.name}/")
            return None
        try:
            path = folder.joinpath(*parts).resolve(strict=True)
            if not path.is_relative_to(folder):
                self.wrong(where, f"template '{name}' leads out of {self._folder.name}/", "put the file itself there")
                return None
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > 4 * SOURCE_LIMIT:
                self.wrong(where, f"template '{name}' is not a text file of at most {SOURCE_LIMIT:,} characters")
                return None
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            there = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
            near = _nearest(name, there)
            self.wrong(where, f"template '{name}' is not in {self._folder.name}/{near}", _listed(there))
            return None
        except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links
            self.wrong(where, f"template '{name}' cannot be read: {error}")
            return None
        try:
            source = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            self.wrong(f"{self._folder.name}/{name}:{line}", "is not UTF-8 text", "save it as UTF-8")
            return None
        if len(source) > SOURCE_LIMIT:
            self.wrong(where, f"template '{name}' has {len(source):,} characters; at most {SOURCE_LIMIT:,}")
            return None
        return source

    def family(self, text: _Text) -> list[_Text]:
        """The template and every one that it includes, extends or imports; missing and circular ones are problems."""
        found: dict[str | None, _Text] = {}

        def visit(text: _Text, above: tuple[str, ...]) -> None:
            if text.name in found:
                return
            found[text.name] = text
            for reference in text.tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
                where = text.at(reference.lineno)
                for name, optional in self._referred(reference, where):
                    if name in above:
                        circle = " -> ".join([*above[above.index(name) :], name])
                        self.wrong(where, f"the templates go round in a circle: {circle}")
                    elif not (optional and not (self._folder / name).exists()) and (inner := self.file(name, where)):
                        visit(inner, (*above, name))

        visit(text, () if text.name is None else (text.name,))
        return list(found.values())

    def _referred(self, node: nodes.Node, where: str) -> list[tuple[str, bool]]:
        expression = getattr(node, "template", None)
        several = isinstance(expression, nodes.List | nodes.Tuple)
        items = expression.items if isinstance(expression, nodes.List | nodes.Tuple) else [expression]
        names = [item.value for item in items if isinstance(item, nodes.Const) and isinstance(item.value, str)]
        if len(names) != len(items):
            self.wrong(where, "the name of the template is not written out", 'write it in quotes, as in "footer.j2"')
            return []
        optional = isinstance(node, nodes.Include) and (node.ignore_missing or several)
        return [(name, optional) for name in names]

    def check(self, family: list[_Text]) -> tuple[set[str], set[int]]:
        """Which names of the row (columns, `row`) the templates need and which columns these are; notes every fault."""
        assigned = {name for text in family for name in _assigned(text.tree)}
        needed: set[str] = set()
        used: set[int] = set()
        for text in family:
            self._constructs(text)
            free = _free_names(text.tree, self.wrong, text.at)
            known = {*self._names.plain, *self._variables, *_FUNCTIONS, "row", "vars"}
            needed |= free & {*self._names.plain, "row"}
            used |= {self._names.plain[name] for name in free & self._names.plain.keys()}
            for stray in sorted(free - known - assigned):
                self._unknown(text, stray, assigned)
            if "row" in free - assigned:
                used |= self._row_columns(text)
            if "vars" in free - assigned:
                for name, line in _members(text.tree, "vars")[0]:
                    if name not in self._variables:
                        self.wrong(
                            text.at(line), f"'{name}' is not one of the variables{_nearest(name, self._variables)}"
                        )
        return needed, used

    def _unknown(self, text: _Text, name: str, assigned: set[str]) -> None:
        lines = sorted({node.lineno for node in text.tree.find_all(nodes.Name) if node.name == name}) or [1]
        others = [*self._variables, *assigned]
        what = self._names.stray(name, others, "a column or a variable")
        if name == "loop":
            what = "'loop' only stands inside a {% for %}"
        fix = 'write row["..."] with the exact header' if name in self._names.unclear else _listed(self._names.index)
        for line in lines:
            self.wrong(text.at(line), what, fix)

    def _row_columns(self, text: _Text) -> set[int]:
        members, bare = _members(text.tree, "row")
        used = set(self._names.index.values()) if bare else set()
        for name, line in members:
            if name in self._names.lookup:
                used.add(self._names.lookup[name])
            elif name in _ROW_METHODS:
                used |= set(self._names.index.values())
            else:
                self.wrong(text.at(line), self._names.stray(name), _listed(self._names.index))
        return used

    def _constructs(self, text: _Text) -> None:
        """Filters and tests that do not exist, settings no value can make right, and what captions do without."""
        for node in text.tree.find_all(nodes.Node):
            where = text.at(node.lineno or 1)
            match node:
                case nodes.Filter() if node.name.startswith("("):
                    pass
                case nodes.Filter() if node.name not in self._sandbox.filters:
                    known = [name for name in self._sandbox.filters if name.isidentifier()]
                    self.wrong(where, f"there is no filter '{node.name}'{_nearest(node.name, known)}", _listed(known))
                case nodes.Filter() if node.name in OURS:
                    self._settings(node, where)
                case nodes.Test() if node.name not in self._sandbox.tests:
                    self.wrong(where, f"there is no test '{node.name}'{_nearest(node.name, self._sandbox.tests)}")
                case nodes.For() if node.recursive:
                    self.wrong(where, "a recursive loop cannot be used in a caption")
                case nodes.EvalContextModifier():
                    self.wrong(where, "{% autoescape %} cannot be used: a caption is plain text")
                case nodes.Getattr() if node.attr in {"format", "format_map"} and not _is_name(
                    node.node, "row", "vars"
                ):
                    self.wrong(where, f".{node.attr}() cannot be used", "use the filters format, number or ~")
                case nodes.TemplateData():
                    for pattern, what in ((_MARKS, "holds template mark-up"), (_CONTROL, "holds a control character")):
                        if found := pattern.search(node.data):
                            line = node.lineno + node.data.count("\n", 0, found.start())
                            self.wrong(text.at(line), f"the text {what} that would be sent as it is: {found[0]!r}")

    def _settings(self, node: nodes.Filter, where: str) -> None:
        values = [*node.args, *(pair.value for pair in node.kwargs)]
        if node.dyn_args or node.dyn_kwargs or not all(isinstance(value, nodes.Const) for value in values):
            return
        settings = {str(pair.key): pair.value.as_const() for pair in node.kwargs}
        try:
            OURS[node.name](SAMPLES[node.name], *(value.as_const() for value in node.args), **settings)
        except BadArgumentError as error:
            self.wrong(where, f"filter '{node.name}': {error.message}")
        except TypeError as error:
            self.wrong(where, f"filter '{node.name}': {str(error).partition('() ')[2] or error}")
        except RenderError:
            pass  # the sample does not suit an `input` or `decimal`; values may


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


def _free_names(tree: nodes.Template, wrong: Callable[[str, str], None], at: Callable[[int], str]) -> set[str]:
    """The names a template takes from outside itself."""
    try:
        return meta.find_undeclared_variables(tree)
    except TemplateSyntaxError as error:
        wrong(at(error.lineno), f"is not valid Jinja: {error.message}")
    except (RecursionError, MemoryError):
        wrong(at(1), "is nested too deeply to be read")
    return set()


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return "one of: " + ", ".join(known[:30]) + (", ..." if len(known) > 30 else "") if known else ""


def _is_name(node: nodes.Node, *names: str) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


def _assigned(tree: nodes.Template) -> Iterator[str]:
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


def _members(tree: nodes.Template, name: str) -> tuple[list[tuple[str, int]], bool]:
    """What is asked of `row` or `vars` by a written-out name, with lines; and whether it is used in any other way."""
    members = []
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if isinstance(node, nodes.Getattr) and _is_name(node.node, name):
            members.append((node.attr, node.lineno))
        elif isinstance(node, nodes.Getitem) and _is_name(node.node, name) and isinstance(node.arg, nodes.Const):
            members.append((str(node.arg.value), node.lineno))
    uses = sum(1 for node in tree.find_all(nodes.Name) if node.name == name)
    return members, uses > len(members)


# -- rendering -------------------------------------------------------------------------------------------------------

# Without these a template leaves nothing behind in its context but variables, so one context serves every row.
# Measured (4 variables): a fresh context costs 4.5 of the 7.7 us a row takes; this is 2.4 us.
_LEAVES_TRACES = (
    nodes.Extends,
    nodes.Block,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Macro,
    nodes.CallBlock,
)


class _Program:
    """One compiled template, bound to the columns that it needs."""

    def __init__(
        self,
        text: _Text,
        template: Template,
        names: _Names,
        needed: set[str],
        used: set[int],
        shared: Mapping[str, object],
        meter: Meter,
        reuse: bool | None = None,
    ) -> None:
        self.text = text
        self.used = frozenset(names.columns[at] for at in used)
        self._cells = tuple((name, at, names.blanks[at]) for name, at in names.plain.items() if name in needed)
        self._sources = tuple((names.columns[at], at) for at in sorted(used))
        self._row = "row" in needed
        self._names = names
        self._template = template
        self._root = template.root_render_func
        self._meter = meter
        self._shared = shared
        self._simple = not any(text.tree.find_all(_LEAVES_TRACES)) if reuse is None else reuse
        self._parent = dict(shared)
        self._context = template.new_context(self._parent, shared=True)

    @property
    def fixed(self) -> bool:
        """Whether every row renders the same."""
        return not self._cells and not self._row

    def run(self, values: Sequence[str]) -> str:
        """The rendered text, as it comes. Raises whatever a template can raise."""
        self._meter.reset()
        parent = self._parent if self._simple else dict(self._shared)
        for name, at, blank in self._cells:
            value = values[at]
            parent[name] = value if value and not value.isspace() else blank
        if self._row:
            parent["row"] = _Row(self._names, values)
        if self._simple:
            context = self._context
            context.vars = {}
            context.exported_vars = set()
        else:
            context = self._template.new_context(parent, shared=True)
        return "".join(self._root(context))

    def bearer(self, values: Sequence[str], hazard: str) -> str:
        """The column whose cell holds a piece of text, if one does."""
        return next((header for header, at in self._sources if hazard in values[at]), "")

    def place(self, error: BaseException, texts: Mapping[str, _Text | None]) -> str:
        """Where in the templates an exception came up."""
        place, traceback = "", error.__traceback__
        while traceback is not None:
            template = traceback.tb_frame.f_globals.get("__jinja_template__")
            if isinstance(template, Template):
                text = self.text if template.name is None else texts.get(template.name)
                line = template.get_corresponding_lineno(traceback.tb_lineno)
                place = text.at(line) + ": " if text else place
            traceback = traceback.tb_next
        return place


def _plain(text: str) -> str:
    """A fault's detail for a report: one line, nothing invisible, at most 500 characters."""
    return re.sub(r"[^\S ]+|\s{2,}", " ", text)[:500].encode("utf-8", "backslashreplace").decode()


class Renderer:
    """What each row of an audience gets, and whether it is in at all.

    `columns` are the audience's headers; each row is the sequence of its cells, as text, in that order. `templates` is
    the folder of template files. The caption is `caption` (its text) or `template` (a file's name), or empty without
    both. `extra` are further templates by name, for `extra()`. Raises InputError with every problem found.

    One Renderer is used by one thread at a time; it shares nothing with another.
    """

    used: frozenset[str]
    unused: tuple[str, ...]

    def __init__(
        self,
        *,
        columns: Sequence[str],
        templates: Path,
        caption: Source | None,
        template: Source | None,
        image: Source,
        where: Source | None,
        variables: Mapping[str, str | int | float | bool],
        caption_limit: int,
        extra: Mapping[str, Source] | None = None,
    ) -> None:
        self._limit = caption_limit
        self._width = len(columns)
        meter = Meter(CHARS_PER_LIMIT * max(caption_limit, SIZE_LIMIT // 2))
        shelf = _Shelf()
        sandbox = _Sandbox(shelf, meter)
        names = _Names(columns)
        checker = _Checker(sandbox, shelf, names, variables, templates)
        _check_variables(checker, names, variables, image.where)
        if caption is not None and template is not None:
            checker.wrong(template.where, "there is both a template and a caption", "remove one of the two")
        parsed = {
            "caption": checker.inline(caption) if caption else template and checker.file(template.text, template.where),
            "image": checker.inline(image),
            "where": where and checker.expression(where),
        } | {f"extra {name}": checker.inline(source) for name, source in (extra or {}).items()}
        needs = {role: checker.check(checker.family(text)) for role, text in parsed.items() if text}
        self._lock = _host_lock(parsed["image"].tree, variables) if parsed["image"] else None
        programs: dict[str, _Program] = {}
        if not checker.problems:
            shared = {**_FUNCTIONS, **variables, "vars": dict(variables)}
            for role, text in parsed.items():
                if text and (compiled := _compiled(sandbox, text, checker)):
                    programs[role] = _Program(text, compiled, names, *needs[role], shared, meter)
        if checker.problems:
            raise InputError(*checker.problems.values())
        self._texts = checker.texts
        self._programs = programs
        self._caption = programs.get("caption")
        self._image = programs["image"]
        self._where = programs.get("where")
        self._fixed_image: str | RenderFault | None = None
        self.used = frozenset().union(*(program.used for program in programs.values()))
        self.unused = tuple(header for header in columns if header not in self.used)

    def keeps(self, values: Sequence[str]) -> bool | RenderFault:
        """Whether the row is in: its `where` expression is true, or there is none."""
        if self._where is None:
            return True
        kept = self._run(self._where, values)
        return kept == "1" if isinstance(kept, str) else kept

    def render(self, values: Sequence[str]) -> Rendered | RenderFault:
        """The image's address and the caption for one row."""
        caption = ""
        if self._caption is not None:
            text = self._run(self._caption, values)
            if isinstance(text, str):
                text = self._sound(self._caption, values, text, "caption")
            if isinstance(text, RenderFault):
                return text
            caption = text
            if len(caption) > self._limit:
                detail = f"the caption has {len(caption):,} characters; at most {self._limit:,}"
                return RenderFault(SkipReason.CAPTION_TOO_LONG, detail)
        image = self._fixed_image or self._address(values)
        return image if isinstance(image, RenderFault) else Rendered(image, caption)

    def extra(self, name: str, values: Sequence[str]) -> str | RenderFault:
        """One of the further templates for one row, stripped. Raises KeyError for a name that was not given."""
        program = self._programs[f"extra {name}"]
        text = self._run(program, values)
        return self._sound(program, values, text, name) if isinstance(text, str) else text

    def _run(self, program: _Program, values: Sequence[str]) -> str | RenderFault:
        if len(values) != self._width:
            detail = f"the row has {len(values)} cells for {self._width} columns"
            return RenderFault(SkipReason.RENDER_ERROR, detail)
        try:
            return program.run(values)
        except MemoryError:
            raise
        except BlankError as error:
            return RenderFault(SkipReason.RENDER_ERROR, _plain(str(error.message)))
        except Exception as error:
            place = program.place(error, self._texts)
            match error:
                case TooLongError() if program is self._caption:
                    return RenderFault(SkipReason.CAPTION_TOO_LONG, _plain(f"{place}{error.message}"))
                case RecursionError():
                    why = "the template calls itself too deeply"
                case TemplateError():
                    why = str(error.message)
                case _:
                    why = f"{type(error).__name__}: {error}"
            return RenderFault(SkipReason.RENDER_ERROR, _plain(place + why))

    def _sound(self, program: _Program, values: Sequence[str], text: str, what: str) -> str | RenderFault:
        """The text, stripped, if it holds nothing that no message may hold."""
        text = text.strip().replace("\r\n", "\n")
        hazard = None
        if "{" in text or "}" in text:
            hazard = _MARKS.search(text)
        if hazard is None and not text.replace("\n", "").isprintable():
            hazard = _CONTROL.search(text)
            if hazard is None:
                for found in _BIDI.finditer(text):
                    if program.bearer(values, found[0]):
                        hazard = found
                        break
        if hazard is None:
            return text
        column = program.bearer(values, hazard[0])
        piece = f"'{hazard[0]}'" if hazard[0].isprintable() else f"the invisible character U+{ord(hazard[0]):04X}"
        whence = f", which column '{column}' brought" if column else ""
        return RenderFault(SkipReason.RENDER_ERROR, f"the {what} holds {piece}{whence}")

    def _address(self, values: Sequence[str]) -> str | RenderFault:
        address = self._run(self._image, values)
        if isinstance(address, str):
            address = address.strip()
            fault = _address_fault(address, self._lock)
            if fault:
                return RenderFault(SkipReason.RENDER_ERROR, f"image {_plain(shown(address))}: {fault}")
            if self._image.fixed:
                self._fixed_image = address
        return address


def _check_variables(checker: _Checker, names: _Names, variables: Mapping[str, object], near: str) -> None:
    place = re.sub(r"(:\d+){1,2}$", "", near)
    for name in variables:
        where = f"{place}: variables.{name}"
        if name in names.lookup or name in names.unclear:
            checker.wrong(where, f"'{name}' is also a column of the audience", "rename the variable")
        elif name in names.RESERVED:
            checker.wrong(where, f"'{name}' has a meaning of its own in templates", "rename the variable")


def _compiled(sandbox: _Sandbox, text: _Text, checker: _Checker) -> Template | None:
    """The template ready to run, with every file it may call up compiled too."""
    sandbox.meter.reset()
    for each in [other for other in checker.texts.values() if other] if text.name is None else [text]:
        try:
            if each.name is not None:
                sandbox.get_template(each.name)
        except (Exception, MemoryError) as error:  # Python's own limits: blocks in blocks, brackets in brackets
            line = getattr(error, "lineno", None) if isinstance(error, TemplateSyntaxError) else 1
            checker.wrong(each.at(line or 1), f"cannot be compiled: {getattr(error, 'message', None) or error}")
            return None
    try:
        return sandbox.from_string(text.tree) if text.name is None else sandbox.get_template(text.name)
    except (Exception, MemoryError) as error:
        line = getattr(error, "lineno", None) if isinstance(error, TemplateSyntaxError) else 1
        checker.wrong(text.at(line or 1), f"cannot be compiled: {getattr(error, 'message', None) or error}")
        return None


# -- the image's address ---------------------------------------------------------------------------------------------

# RFC 3986, section 2: what a URL is made of. No user name: it would be sent to the provider in every request.
_ADDRESS = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][a-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*)?",
    re.IGNORECASE | re.ASCII,
)


def _address_fault(address: str, lock: re.Pattern[str] | None) -> str:
    if len(address) > IMAGE_LIMIT:
        return f"is {len(address):,} characters long; at most {IMAGE_LIMIT:,}"
    if not _ADDRESS.fullmatch(address):
        if not re.match(r"https?://[^/?#]", address, re.IGNORECASE):
            return "is not an http:// or https:// address with a host"
        odd = re.search(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]", address)
        if odd:
            sign = "a space" if odd[0] == " " else _plain(shown(odd[0]))
            return f"holds {sign}, which must be percent-encoded: put |urlencode behind the value, or mend the cell"
        return "has no plain host name (no user name, no odd marks)"
    if lock is not None and not lock.match(address):
        return "a value has changed the host that the template names; check the cell"
    return ""


def _host_lock(tree: nodes.Template, variables: Mapping[str, object]) -> re.Pattern[str] | None:
    """The scheme and host as far as the template itself writes them; cells may fill in but never change them.

    `https://cdn.example.com/{{ sku }}.jpg` is held to that host, `https://img{{ n }}.example.com/` to such hosts. What
    stands right behind an open host (`https://cdn.example.com{{ path }}`) must begin the path.
    """
    pieces: list[str | None] = []  # None: whatever a cell, an if or a filter makes
    for node in tree.body:
        if isinstance(node, nodes.Assign | nodes.AssignBlock | nodes.Macro | nodes.Import | nodes.FromImport):
            continue
        for child in node.nodes if isinstance(node, nodes.Output) else [node]:
            match child:
                case nodes.TemplateData():
                    piece: str | None = child.data
                case nodes.Name() if child.name in variables:
                    piece = str(variables[child.name])
                case _:
                    piece = None
            if piece is not None and pieces and pieces[-1] is not None:
                pieces[-1] += piece
            else:
                pieces.append(piece.lstrip() if piece is not None and not pieces else piece)
    scheme = re.match(r"https?://", pieces[0] or "", re.IGNORECASE) if pieces else None
    if not scheme or pieces[0] is None:
        return None
    pieces[0] = pieces[0][scheme.end() :]
    host: list[str | None] = []
    for piece in pieces:
        end = re.search(r"[/?#]", piece) if piece is not None else None
        host.append(piece[: end.start()] if piece is not None and end else piece)
        if end:
            break
    else:
        host = host[:1]
    while host and (host[-1] is None or not host[-1].strip()):
        host.pop()
    if not host:
        return None
    pattern = "".join("[A-Za-z0-9.-]*" if piece is None else re.escape(piece) for piece in host)
    return re.compile(re.escape(scheme[0]) + pattern.rstrip() + r"(?=[/?#]|\Z)", re.IGNORECASE)
