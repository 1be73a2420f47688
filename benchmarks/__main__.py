"""`python -m benchmarks PART [--quick] [--rounds N]`: measure one part, or all, and write the results down."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks.figures import Part
from benchmarks.rounds import say
from benchmarks.store import RESULTS, save, show

PARTS = {  # name -> module, rounds, rounds of a quick run
    "fanout": ("fanout", 5, 1),
    "pace": ("pace", 3, 1),
    "planning": ("planning", 3, 1),
    "results": ("resultfiles", 3, 1),
    "everyday": ("everyday", 7, 2),
    "growth": ("growth", 2, 1),
    "postgres": ("postgres", 2, 1),
}


def measure(name: str, *, quick: bool, rounds: int | None = None) -> Part:
    """One part."""
    module, full, few = PARTS[name]
    part: Callable[..., Part] = getattr(import_module(f"benchmarks.{module}"), name)
    return part(quick=quick, rounds=rounds or (few if quick else full))


def main() -> None:
    """Exit code 1 when a part could not be measured, or a target is missed in a full run, so that nobody overlooks it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all", "docs"])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: under two minutes for all")
    parser.add_argument("--rounds", type=int, help="rounds of each variant (default: as many as the part needs)")
    parser.add_argument("--out", type=Path, help="folder for the JSON (default: benchmarks/results, none when quick)")
    options = parser.parse_args()
    if options.part == "docs":
        from benchmarks.docs import write_docs

        write_docs()
        return
    began = time.monotonic()
    folder = options.out or (None if options.quick else RESULTS)
    missed, broken = 0, []
    for name in PARTS if options.part == "all" else [options.part]:
        started = time.monotonic()
        try:
            part = measure(name, quick=options.quick, rounds=options.rounds)
        except (RuntimeError, subprocess.SubprocessError) as error:  # the other parts are worth having all the same
            say(f"{name} could not be measured: {error}")
            broken.append(name)
            continue
        print(show(part), flush=True)
        say(f"{name}: {time.monotonic() - started:.0f} s")
        if folder is not None:
            save(part, folder)
        missed += sum(not target.met for target in part.targets)
    ending = [f"{missed} targets missed"] if missed else []
    ending += [f"not measured: {', '.join(broken)}"] if broken else []
    say("; ".join([f"\n{time.monotonic() - began:.0f} s", *ending]))
    sys.exit(1 if broken or (missed and not options.quick) else 0)


if __name__ == "__main__":
    main()
