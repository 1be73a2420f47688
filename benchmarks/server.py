"""A small fast provider on the loopback, in a process of its own: `python -m benchmarks.server`.

It answers each POST as Wapim or Zixflow would answer a success, remembers when the request was complete (CLOCK_MONOTONIC),
and closes the connection when it is asked to. Commands come as JSON lines on stdin, answers go to stdout. When the request
that was marked arrives, it also notes the processor time of a watched process at that very moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from array import array
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.machine import SERVER_CORE, cores, cpu_ns

_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: %s\r\n\r\n"
)
_WAPIM = b'{"queue_message_id":"905320000000_%012d","message":"We reached successfully"}'
_ZIXFLOW = b'{"status":true,"message":"Message sent successfully","messageId":"%012d"}'


def _templates(body: bytes) -> tuple[bytes, bytes]:
    size = len(body % 0)
    return _HEAD % (size, b"keep-alive") + body, _HEAD % (size, b"close") + body


class Log:
    """When requests arrived, and what was asked to be noted beside some of them."""

    def __init__(self) -> None:
        self.reset([], 0, 0.0)

    def reset(self, marks: list[int], watch: int, delay: float) -> None:
        """Forget everything. `marks` are the numbers of requests (1 is the first) at which processor times are noted."""
        self.times: array[int] = array("q")
        self.connections = 0
        self.marks = frozenset(marks)
        self.watch = watch
        self.delay = delay
        self.noted: list[dict[str, int]] = []

    def arrived(self) -> int:
        """One more request; returns its number."""
        self.times.append(time.monotonic_ns())
        count = len(self.times)
        if count in self.marks:
            self.noted.append(
                {
                    "count": count,
                    "at": self.times[-1],
                    "own_cpu": time.process_time_ns(),
                    "watched_cpu": cpu_ns(self.watch) if self.watch else 0,
                    "connections": self.connections,
                }
            )
        return count


class Provider(asyncio.Protocol):
    """One connection. Requests on it are answered in their order."""

    __slots__ = ("_buffer", "_log", "_transport")
    _wapim = _templates(_WAPIM)
    _zixflow = _templates(_ZIXFLOW)

    def __init__(self, log: Log) -> None:
        self._log = log
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # a TCP server's; uvloop's does not inherit from it
        self._log.connections += 1

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while data:
            end = data.find(b"\r\n\r\n")
            size = end + 4 + _length(data, end) if end >= 0 else len(data) + 1
            if size > len(data):
                self._buffer = data
                return
            self._answer(data, end)
            data = data[size:]

    def _answer(self, data: bytes, end: int) -> None:
        log = self._log
        count = log.arrived()
        closing = data.find(b"onnection: close", 0, end) >= 0
        templates = self._zixflow if data.find(b"/campaign/", 0, 60) >= 0 else self._wapim
        reply = templates[closing] % count
        if log.delay:
            asyncio.get_running_loop().call_later(log.delay, self._write, reply, closing)
        else:
            self._write(reply, closing)

    def _write(self, reply: bytes, closing: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)
            if closing:
                self._transport.close()


def _length(data: bytes, end: int) -> int:
    """The body's length as the head says it; 0 when it does not."""
    at = data.find(b"Content-Length: ", 0, end)
    if at < 0:
        at = data[:end].lower().find(b"content-length: ")
        if at < 0:
            return 0
    return int(data[at + 16 : data.find(b"\r", at)])


class Control:
    """Reads commands from stdin and answers each with one line."""

    def __init__(self, log: Log, over: asyncio.Event) -> None:
        self._log = log
        self._over = over

    def __call__(self) -> None:
        line = sys.stdin.buffer.readline()
        if not line:  # the bench has ended
            self._over.set()
            return
        command = json.loads(line)
        _say(self._do(command.pop("do"), command))

    def _do(self, what: str, settings: dict[str, Any]) -> dict[str, Any]:
        log = self._log
        if what == "reset":
            log.reset(**settings)
        elif what == "save":
            Path(settings["path"]).write_bytes(log.times.tobytes())
        elif what == "quit":
            self._over.set()
        return {"count": len(log.times), "connections": log.connections, "noted": log.noted}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _first_in_line() -> bool:
    """Real-time priority, so that a busy machine does not delay the clock's readings; False where that is not allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (AttributeError, OSError):
        return False
    return True


async def _serve(tls: list[str]) -> None:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    log, over = Log(), asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(log), "127.0.0.1", 0, ssl=context, backlog=4096)
    loop.add_reader(0, Control(log, over))
    _say({"port": server.sockets[0].getsockname()[1], "real_time": _first_in_line()})
    await over.wait()
    server.close()


def main() -> None:
    """Arguments: the certificate's file and its key's, for TLS."""
    if SERVER_CORE in cores() and len(cores()) > 1:
        os.sched_setaffinity(0, {SERVER_CORE})
    uvloop.run(_serve(sys.argv[1:]))


if __name__ == "__main__":
    main()
