"""Hostile input is read in a process of its own, with limits: its death is an ordinary error, never ours.

A workbook of 4 KB can ask for 549 GB (two legal cells in far corners: the reader aborts the process without an exception), a
template of one line can run for ever. The child has a limit on memory and on processor time, and must deliver a chunk of rows
every STALL_SECONDS; the campaign's secrets are not in it.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from runner.errors import ConfinedError, InputError, Problem
from runner.ledger.base import PlannedRow
from runner.prepare import Branches, Event, Opened, PreparationTask, Rows, Suppressed

MEMORY_BYTES = 3 * 1024**3  # address space, not resident memory: the libraries alone map about 1 GB
PROCESSOR_SECONDS = 3600
STALL_SECONDS = 120.0  # opening a workbook of a million rows takes about 10 s

_LENGTH = struct.Struct("<I")
_PAYLOAD = PlannedRow._fields.index("payload")
_MEMORY_SIGNALS = {signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS}


def prepare_confined(
    task: PreparationTask, *, memory: int = MEMORY_BYTES, stall: float = STALL_SECONDS
) -> Iterator[Event]:
    """`pipeline.prepare(task)` in a confined process. Raises InputError as `prepare` does, ConfinedError when a limit was hit."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH"}
    }
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    # pandas' buffers straight from the system and back to it. Else glibc puts them between what lives longer: 101 MB after
    # 3,900,000 rows, not 82, in the same time (measured). Other systems do not know the name.
    environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "runner.confinement", str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the runner; it ends the child itself
    ) as child:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101 - PIPE gives both
        watchdog = _Watchdog(child, stall)
        try:
            child.stdin.write(orjson.dumps(asdict(task)))
            child.stdin.close()
            yield from _events(task, child, watchdog)
        finally:
            watchdog.stop()
            child.kill()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()


class _Watchdog:
    """Kills a child that delivers nothing for too long; the reader then sees the end of the stream."""

    def __init__(self, child: subprocess.Popen[bytes], seconds: float) -> None:
        self._child = child
        self._seconds = seconds
        self.bitten = False
        self._timer = self._new()

    def _new(self) -> threading.Timer:
        timer = threading.Timer(self._seconds, self._bite)
        timer.daemon = True
        timer.start()
        return timer

    def _bite(self) -> None:
        self.bitten = True
        self._child.kill()

    def pat(self) -> None:
        """A chunk has arrived. The stream's consumer may take its time; the clock runs while we wait for the child."""
        self._timer.cancel()
        self._timer = self._new()

    def stop(self) -> None:
        """No more watching."""
        self._timer.cancel()


def _events(task: PreparationTask, child: subprocess.Popen[bytes], watchdog: _Watchdog) -> Iterator[Event]:
    assert child.stdout is not None  # noqa: S101 - PIPE gives it
    delivered = 0
    while True:
        head = child.stdout.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise _death(task, child, watchdog, delivered)
        body = child.stdout.read(_LENGTH.unpack(head)[0])
        kind, value = orjson.loads(body)
        watchdog.stop()
        if kind == "end":
            return
        if kind == "problems":
            raise InputError(*(Problem(*item) for item in value))
        if kind == "rows":
            rows = tuple(map(_planned, value))
            delivered = rows[-1].row if rows else delivered
            yield Rows(rows)
        elif kind == "suppressed":
            yield Suppressed(value[0], tuple(value[1]), tuple(value[2]), value[3])
        elif kind == "branches":
            yield Branches({label: tuple(positions) for label, positions in value.items()})
        else:
            yield Opened(value[0], *(tuple(part) for part in value[1:]))
        watchdog.pat()


def _planned(fields: list[Any]) -> PlannedRow:
    payload = fields[_PAYLOAD]
    if payload is not None:
        fields[_PAYLOAD] = bytes.fromhex(payload)
    return PlannedRow._make(fields)


def _death(
    task: PreparationTask, child: subprocess.Popen[bytes], watchdog: _Watchdog, delivered: int
) -> ConfinedError | RuntimeError:
    name = Path(task.audience).name
    after = f" after row {delivered}" if delivered else ""
    status = child.wait()
    if watchdog.bitten:
        return ConfinedError(
            Problem(
                name,
                f"reading and rendering stood still{after} and was stopped",
                "look for a loop without end in the template, or for a row that is very different from the others",
            )
        )
    if -status in _MEMORY_SIGNALS or status == _OUT_OF_MEMORY:
        return ConfinedError(
            Problem(
                name,
                f"reading and rendering needed more memory than it is allowed{after} and was stopped",
                "save the sheet anew with only its used cells, or as CSV; look for values that a template multiplies",
            )
        )
    if -status == signal.SIGXCPU:
        return ConfinedError(Problem(name, f"reading and rendering took too long{after} and was stopped"))
    trace = child.stderr.read().decode(errors="replace") if child.stderr is not None else ""
    return RuntimeError(f"the preparing process ended with {status}{after}:\n{trace}")


# --- in the child ---------------------------------------------------------------------------------------------------------

_OUT_OF_MEMORY = 77


def _emit(out: BinaryIO, kind: str, value: object) -> None:
    body = orjson.dumps([kind, value])
    out.write(_LENGTH.pack(len(body)) + body)
    out.flush()


def _row(row: PlannedRow) -> list[object]:
    """As JSON can have it."""
    fields: list[object] = list(row)
    if row.payload is not None:
        fields[_PAYLOAD] = row.payload.hex()
    return fields


def _child() -> None:
    from runner.pipeline import prepare  # here only: the runner itself never needs what reads and renders

    _limit(int(sys.argv[1]))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    fields = orjson.loads(sys.stdin.buffer.read())
    for key in ("allowed_countries", "suppress"):
        fields[key] = tuple(fields[key]) if fields[key] is not None else None
    try:
        for event in prepare(PreparationTask(**fields)):
            if isinstance(event, Rows):
                _emit(out, "rows", [_row(row) for row in event.rows])
            elif isinstance(event, Suppressed):
                _emit(out, "suppressed", [event.source, event.numbers, event.faults, event.fault_count])
            elif isinstance(event, Branches):
                _emit(out, "branches", event.rows)
            else:
                _emit(out, "opened", [event.description, event.notes, event.columns, event.used, event.unused])
                # What is loaded by now stays: it need not be looked through again with every few hundred rows.
                gc.freeze()
                gc.set_threshold(20_000)
        _emit(out, "end", None)
    except InputError as error:
        _emit(out, "problems", [[problem.where, problem.what, problem.fix] for problem in error.problems])
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except BrokenPipeError:
        os._exit(0)  # the runner is gone, nobody wants the rest


def _limit(memory: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not kept, or counts what is merely mapped by the system
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    _child()
