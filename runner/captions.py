"""Captions, image addresses and row conditions: Jinja compiled once, checked whole, rendered row by row.

Two promises. Every mistake that can be known without a row (a misspelt column, a missing template, bad syntax) is an
`InputError` with its file and line when the `Renderer` is made. Whatever happens on one row is a `RenderFault`,
never an exception: blank cells that would be printed, values a filter cannot read, templates that ask for too much.

Templates come from one folder and are read once, in the constructor; values are data and are never rendered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import TemplateError

from runner.columnnames import ColumnNames
from runner.errors import InputError, Problem
from runner.hazards import hazard
from runner.imageaddress import address_fault, host_lock
from runner.model import SkipReason
from runner.templatebranches import Branches
from runner.templatecheck import TemplateChecker
from runner.templatefolder import TemplateFolder
from runner.templatelimits import SIZE_LIMIT, Meter
from runner.templateparsing import Source, TemplateReader
from runner.templateprogram import Program, compiled
from runner.templatesandbox import FUNCTIONS, Sandbox
from runner.templatevalues import BlankError, TooLongError, shown
from runner.templatewarnings import likely_mistakes

__all__ = ["RenderFault", "Rendered", "Renderer", "Source"]

KEPT_ADDRESSES = 4_096  # images' addresses remembered by the cells they are made of,
KEPT_CHARACTERS = 1_000  # where these cells hold at most so much: 20 MB at the very worst
CHARS_PER_LIMIT = 64  # a text is given up once it has printed this many times the caption's limit


class Rendered(NamedTuple):
    """What one recipient gets. The caption may be empty; the image is an http(s) address."""

    image: str
    caption: str


@dataclass(frozen=True, slots=True)
class RenderFault:
    """Why one row gets nothing, in words for the person who owns the sheet."""

    reason: SkipReason
    detail: str


def _fault(detail: str, reason: SkipReason = SkipReason.RENDER_ERROR) -> RenderFault:
    """With its detail fit for a report: one line, nothing invisible, at most 500 characters."""
    return RenderFault(reason, " ".join("".join(sign if sign.isprintable() else " " for sign in detail[:500]).split()))


class Renderer:
    """What each row of an audience gets, and whether it is in at all.

    `columns` are the audience's headers; each row is the sequence of its cells, as text, in that order. `templates` is
    the folder of template files. The caption is `caption` (its text) or `template` (a file's name), or empty without
    both. `extra` are further templates by name, for `extra()`. Raises InputError with every problem found.

    `used` and `unused` are the headers that templates read and do not read. `warnings` are sentences about likely
    mistakes that are not errors, for the person who wrote the campaign file. With `branches`, `taken` names the branches of
    the caption's template that the last rendered row took; captions are the same either way.

    One Renderer is used by one thread at a time; it shares nothing with another.
    """

    used: frozenset[str]
    unused: tuple[str, ...]
    warnings: tuple[str, ...]
    taken: frozenset[str] = frozenset()

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
        branches: bool = False,
    ) -> None:
        self._limit = caption_limit
        self._width = len(columns)
        meter = Meter(CHARS_PER_LIMIT * max(caption_limit, SIZE_LIMIT // 2))
        names = ColumnNames(columns)
        problems: list[Problem] = []
        folder = TemplateFolder(templates)
        sandbox = Sandbox(folder, meter)
        reader = TemplateReader(sandbox, folder, problems)
        checker = TemplateChecker(sandbox, names, variables, problems)
        checker.check_variables(re.sub(r"(:\d+){1,2}$", "", image.where))
        if caption is not None and template is not None:
            what = "there is both a template and a caption"
            problems.append(Problem(template.where, what, "remove one of the two"))
        written = {
            "caption": reader.inline(caption) if caption else template and reader.file(template.text, template.where),
            "image": reader.inline(image),
            "where": where and reader.expression(where),
        } | {f"extra {name}": reader.inline(source) for name, source in (extra or {}).items()}
        parsed = {role: one for role, one in written.items() if one}
        families = {role: reader.family(one) for role, one in parsed.items()}
        needs = {role: checker.check(family) for role, family in families.items()}
        if problems:
            raise InputError(*dict.fromkeys(problems))
        everything = [one for family in families.values() for one in family]
        self.warnings = likely_mistakes(everything, parsed.get("where"), names, variables)
        self._lock = host_lock(parsed["image"].tree, variables)
        self._files = reader.files
        files = [file for file in reader.files.values() if file]
        self._branches = Branches(sandbox) if branches else None
        if self._branches is not None:
            watch = self._branches.watch
            sandbox.probe = lambda tree, name: watch(tree, folder.source(name), name)
            if caption is not None:
                watch(parsed["caption"].tree, caption.text, "caption")
        shared = {**FUNCTIONS, **variables, "vars": dict(variables)}
        programs = {
            role: Program(one, ready, names, needs[role], shared, meter)
            for role, one in parsed.items()
            if (ready := compiled(sandbox, one, files, problems))
        }
        if problems:
            raise InputError(*dict.fromkeys(problems))
        self._programs = programs
        self._caption = programs.get("caption")
        self._image = programs["image"]
        self._where = programs.get("where")
        self._addresses: dict[tuple[str, ...], str | RenderFault] = {}
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
        if self._branches is not None:
            self._branches.taken.clear()
        if self._caption is not None:
            text = self._run(self._caption, values)
            if isinstance(text, str):
                text = self._sound(self._caption, values, text, "caption")
            if isinstance(text, RenderFault):
                return text
            caption = text
            if len(caption) > self._limit:
                detail = f"the caption has {len(caption):,} characters; at most {self._limit:,}"
                return _fault(detail, SkipReason.CAPTION_TOO_LONG)
        if self._branches is not None:
            self.taken = frozenset(self._branches.taken)
        image = self._address(values)
        return image if isinstance(image, RenderFault) else Rendered(image, caption)

    def extra(self, name: str, values: Sequence[str]) -> str | RenderFault:
        """One of the further templates for one row, stripped. Raises KeyError for a name that was not given."""
        program = self._programs[f"extra {name}"]
        text = self._run(program, values)
        return self._sound(program, values, text, name) if isinstance(text, str) else text

    def _run(self, program: Program, values: Sequence[str]) -> str | RenderFault:
        if len(values) != self._width:
            return _fault(f"the row has {len(values)} cells for {self._width} columns")
        try:
            return program.run(values)
        except MemoryError:
            raise
        except BlankError as error:
            return _fault(str(error.message))
        except Exception as error:
            place = program.place(error, self._files)
            match error:
                case TooLongError() if program is self._caption:
                    return _fault(f"{place}{error.message}", SkipReason.CAPTION_TOO_LONG)
                case RecursionError():
                    why = "the template calls itself too deeply"
                case TemplateError():
                    why = str(error.message)
                case _:
                    why = f"{type(error).__name__}: {error}"
            return _fault(place + why)

    def _sound(self, program: Program, values: Sequence[str], text: str, what: str) -> str | RenderFault:
        """The text, stripped, if it holds nothing that no message may hold."""
        text = text.strip()
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        found = hazard(text, lambda mark: program.bearer(values, mark))
        if not found:
            return text
        column = program.bearer(values, found)
        piece = f"'{found}'" if found.isprintable() else f"the invisible character U+{ord(found):04X}"
        whence = f", which column '{column}' brought" if column else ""
        return _fault(f"the {what} holds {piece}{whence}")

    def _address(self, values: Sequence[str]) -> str | RenderFault:
        """Rows that bear the same cells share their image's address, so the latest ones are kept."""
        key = self._image.key(values) if len(values) == self._width else None
        if key is None:
            return self._rendered_address(values)
        known = self._addresses.get(key)
        if known is None:
            known = self._rendered_address(values)
            if sum(map(len, key)) <= KEPT_CHARACTERS:  # a cell may hold 100,000
                if len(self._addresses) >= KEPT_ADDRESSES:
                    self._addresses.clear()
                self._addresses[key] = known
        return known

    def _rendered_address(self, values: Sequence[str]) -> str | RenderFault:
        address = self._run(self._image, values)
        if isinstance(address, str):
            address = address.strip()
            if fault := address_fault(address, self._lock):
                return _fault(f"image {shown(address)}: {fault}")
        return address
