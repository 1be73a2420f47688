"""The folder of template files: each file is read once, when the campaign is checked, and nothing is read later."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from jinja2 import BaseLoader, Environment, TemplateNotFound

from runner.errors import Problem
from runner.spelling import listed, nearest
from runner.templatevalues import shown

SOURCE_LIMIT = 32_768  # characters of one template


class TemplateFolder(BaseLoader):
    """The templates of one folder. Jinja gets from it what `read` has read, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._folder = folder
        self._sources: dict[str, str] = {}

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        """What Jinja asks a loader for. Raises TemplateNotFound."""
        if template not in self._sources:
            raise TemplateNotFound(template)
        return self._sources[template], None, None

    def source(self, name: str) -> str:
        """The text of a file that has been read."""
        return self._sources[name]

    def has(self, name: str) -> bool:
        """Whether there is something of that name."""
        return (self._folder / name).exists()

    def read(self, name: str, where: str) -> str | Problem:
        """The text of a file, or why it is none; `where` is the place that asks for it."""
        folder = self._folder.resolve()
        parts = name.split("/")
        if not name.isprintable() or any(part in {"", ".", ".."} or set("\\:") & set(part) for part in parts):
            return Problem(where, f"template {shown(name)} is not a path inside {self.name}/")
        try:
            path = folder.joinpath(*parts).resolve(strict=True)
            if not path.is_relative_to(folder):
                return Problem(where, f"template '{name}' leads out of {self.name}/", "put the file itself there")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > 4 * SOURCE_LIMIT:
                return Problem(where, f"template '{name}' is not a text file of at most {SOURCE_LIMIT:,} characters")
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            there = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
            return Problem(where, f"template '{name}' is not in {self.name}/{nearest(name, there)}", listed(there))
        except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links
            return Problem(where, f"template '{name}' cannot be read: {error}")
        try:
            source = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            return Problem(f"{self.name}/{name}:{line}", "is not UTF-8 text", "save it as UTF-8")
        if len(source) > SOURCE_LIMIT:
            return Problem(where, f"template '{name}' has {len(source):,} characters; at most {SOURCE_LIMIT:,}")
        self._sources[name] = source
        return source
