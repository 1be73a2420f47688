"""The sandbox templates run in: Jinja's own, with what it leaves open closed.

Its documentation asks for resource limits, and CVE-2016-10745, CVE-2024-56326 and CVE-2025-27516 all went through
string formatting. So attributes are on a list, `.format` is gone, sizes are checked before anything is built, and
loops, calls and printed characters are paid for from a `Meter`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping

from jinja2 import BaseLoader, StrictUndefined, nodes, pass_context
from jinja2.environment import TemplateModule
from jinja2.runtime import BlockReference, Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from runner.columnnames import ROW_METHODS, Row
from runner.filterguard import glue, guarded_filters, join, percent, replace
from runner.templatelimits import SIZE_LIMIT, Meter, grown, sized, weigh
from runner.templatemetering import GLUE, HELD, SHOW, SPEND, WITHIN, Metering
from runner.templatevalues import HOLLOW, Blank, BlankError, RenderError, printable

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
_INT_BITS = 4_096


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > SIZE_LIMIT:
        raise RenderError(f"range of {len(numbers):,} numbers is too large; at most {SIZE_LIMIT:,}")
    return numbers


def _dict(*pairs: Mapping[str, object], **named: object) -> dict[str, object]:
    return dict(*pairs, **named)


# In the row's context, not in the environment's globals: a column called 'range' is a column.
FUNCTIONS: Mapping[str, object] = {
    "range": _range,
    "dict": _dict,
    "namespace": Namespace,
    "cycler": Cycler,
    "joiner": Joiner,
}


class Sandbox(ImmutableSandboxedEnvironment):
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
        self.probe: Callable[[nodes.Template, str], None] | None = (
            None  # sees every template file before it is compiled
        )
        self.globals.clear()
        self.filters.clear()
        self.filters |= guarded_filters(meter)
        self.filters |= {SPEND: self._spend, SHOW: self._show, GLUE: self._glue, HELD: self._held, WITHIN: self._within}
        self.tests["in"] = self._within

    # These two ask for the context, or Jinja would run them on constants while it compiles.

    @pass_context
    def _spend(self, _context: Context, _value: object, work: int, chars: int) -> bool:
        self.meter.spend(work, chars)
        return True

    @pass_context
    def _show(self, _context: Context, value: object, expression: str) -> str:
        if type(value) is str and value not in HOLLOW:  # nearly all that is printed
            words = value
        else:
            try:
                words = printable(value)
            except BlankError:
                raise
            except RenderError as error:
                raise RenderError(f"{expression}: {error.message}") from None
        self.meter.spend(1, len(words))
        return words

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
        if self.probe is not None and name is not None:
            self.probe(source, name)
        metered = Metering().visit(source)
        metered.set_environment(self)
        return super()._generate(metered, name, filename, defer_init)

    def getattr(self, obj: object, attribute: str) -> object:
        if isinstance(obj, Blank):
            return obj
        if isinstance(obj, Row):
            if attribute in ROW_METHODS and attribute not in obj:
                return types.MethodType(getattr(Row, attribute), obj)
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
        if isinstance(__obj, Blank):
            return __obj
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
