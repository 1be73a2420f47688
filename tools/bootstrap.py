"""Makes the project's own environment in `.venv`: `python3 tools/bootstrap.py [run|test]`.

`run` is what sending needs, `test` adds what checking the code needs. It uses the standard library only and is called
by `make demo` and `make test`, from any directory. When nothing has changed it starts no process and says nothing.

What is installed is exactly requirements/run.txt or requirements/test.txt: every file is compared with its hash, and
nothing is built but the link to the project itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
KINDS = ("run", "test")  # each one contains those before it
PYTHONS = ((3, 13), (3, 12), (3, 11))  # in order of preference, after the interpreter that runs this file
LAST_LINES = 20

# Settings of the caller that would spoil an install into .venv. Without byte-code every start of the program compiles
# its libraries again (measured: 24 s instead of 5 s for a cluster of ten processes).
UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")


def main(arguments: list[str]) -> None:
    kind = arguments[0] if arguments else "run"
    if len(arguments) > 1 or kind not in KINDS:
        fail("usage: python3 tools/bootstrap.py [run|test]")
    if is_current(kind):
        return
    # `make -j demo test` starts two of us: the second waits, and then finds the work done or adds to it.
    lock = os.open(ROOT / "requirements", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_current(kind):
            set_up(kind)
    finally:
        os.close(lock)


def set_up(kind: str) -> None:
    began = time.monotonic()
    make_environment()
    for each in KINDS:
        stamp(each).unlink(missing_ok=True)  # an install that is cut short must not pass for a whole one
    requirements = ROOT / "requirements" / f"{kind}.txt"
    count = sum(line[:1].isalnum() for line in requirements.read_text(encoding="utf-8").splitlines())
    say(f"installing the {count} packages of requirements/{kind}.txt (the first time takes a minute or two)")
    pip("--require-hashes", "--only-binary", ":all:", "-r", str(requirements))
    say("installing the project itself")
    pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    stamp(kind).write_text(checksum(kind), encoding="utf-8")
    say(f"ready after {time.monotonic() - began:.0f} s")


def is_current(kind: str) -> bool:
    """Whether `.venv` already holds `kind`, or a kind that contains it, as the files of today would have it."""
    if not VENV_PYTHON.exists():
        return False
    for each in KINDS[KINDS.index(kind) :]:
        try:
            if stamp(each).read_text(encoding="utf-8") == checksum(each):
                return True
        except FileNotFoundError:
            continue
    return False


def stamp(kind: str) -> Path:
    return VENV / f".installed-{kind}"


def checksum(kind: str) -> str:
    """Covers the pins, the project's metadata, and where the project lies: the scripts in `.venv` name that place."""
    digest = hashlib.sha256(os.fsencode(ROOT))
    for path in (ROOT / "requirements" / f"{kind}.txt", ROOT / "pyproject.toml"):
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()


def make_environment() -> None:
    """Leaves a sound `.venv` in place: with pip, of a suitable Python, made for this folder."""
    if VENV_PYTHON.exists() and suitable(str(VENV_PYTHON), needs="pip") and made_here():
        return
    python = find_python()
    say(f"making .venv with {python}")
    outcome = call([python, "-m", "venv", "--clear", str(VENV)])
    if outcome.returncode:
        fail("could not make .venv:", outcome.stdout)


def made_here() -> bool:
    script = VENV / "bin" / "pip"
    return script.exists() and os.fsencode(VENV) in script.read_bytes()[:512]


def find_python() -> str:
    """An interpreter that can make an environment; on Debian and Ubuntu its missing half is installed, if root."""
    # Run by .venv's own Python we want the one behind it, because .venv may be about to be made anew.
    names = [getattr(sys, "_base_executable", sys.executable), *(f"python{a}.{b}" for a, b in PYTHONS), "python3"]
    found = [path for path in (shutil.which(name) for name in names) if path]
    fitting = [path for path in dict.fromkeys(found) if suitable(path)]
    if not fitting:
        wanted = " or ".join(f"{a}.{b}" for a, b in sorted(PYTHONS))
        fail(
            f"Python {wanted} is needed, and none of them was found on PATH (this is {sys.version.split()[0]}).",
            "Install one of them (on Debian and Ubuntu: apt-get install python3 python3-venv) and try again,",
            "or name it: make PYTHON=/path/to/python3.12 ...",
        )
    for path in fitting:
        if suitable(path, needs="ensurepip, venv"):
            return path
    install_venv_package(fitting[0])
    return fitting[0]


def suitable(python: str, needs: str = "sys") -> bool:
    """Whether it starts (a pyenv shim on PATH may not), has one of our versions, and can import `needs`."""
    outcome = call([python, "-c", f"import {needs}, sys; print(sys.version_info[:2] in {PYTHONS!r})"])
    return outcome.returncode == 0 and outcome.stdout.strip().endswith("True")


def install_venv_package(python: str) -> None:
    version = call([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
    package = f"python{version}-venv"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        fail(
            f"{python} cannot make environments: its venv module is not installed.",
            f"On Debian and Ubuntu: sudo apt-get install {package}",
        )
    say(f"installing {package}, which {python} lacks")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    call(["apt-get", "update"], environment)  # one source may be out of reach, and the package still be found
    outcome = call(["apt-get", "install", "-y", "--no-install-recommends", package], environment)
    if outcome.returncode:
        fail(f"apt-get could not install {package}:", outcome.stdout)


def pip(*arguments: str) -> None:
    outcome = call([str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "install", *arguments])
    if outcome.returncode:
        fail("pip could not finish. Its last words:", outcome.stdout)


def call(command: list[str], extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end with its output and errors gathered as one text."""
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    environment.update(extra or {})
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def fail(what: str, *details: str) -> NoReturn:
    """Ends the program. Of a program's long output only the end is shown, for that is where the cause stands."""
    lines = "\n".join(details).splitlines()[-LAST_LINES:]
    say("\n    ".join([what, *lines]))
    sys.exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
