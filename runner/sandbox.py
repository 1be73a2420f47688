"""The stand-in provider: Wapim and Zixflow on this machine, for trying a campaign and for judging the runner.

It imports nothing of the runner's but its own parts (`sandbox_*`), so that a misread page is not mirrored in the server
that judges the reading. Three ways to run it:

    async with Sandbox(settings) as box: ...           on the current event loop
    with Sandbox(settings).in_thread() as box: ...     in a thread with a loop of its own
    run(settings, on_ready=show)                       until SIGINT or SIGTERM

A request is judged in this order: token (401), rate limit (429), the vendor's page (400, naming the fields), the
scenario's rules, the magic numbers, success. Magic numbers, by the last four digits of the phone (`MAGIC`):

    0400 0401 0402 0403 0413 0422      that status                               not taken
    0429                               429 with Retry-After 1, then success      not taken, then taken
    0430                               429 with Retry-After 1 every time         not taken
    0500 0502 0503 0504                that status, 502-504 with a web page      not taken
    0600                               200 with status:false                     not taken
    0601                               200 with {}                               taken
    0700                               closed after the request was read         taken
    0701                               reset (RST) after the request was read    taken
    0702                               reply cut before its Content-Length       taken
    0703                               200 with a web page                       taken
    0704                               200 with JSON cut short                   taken
    0705                               no answer (for 120 s at most)             taken
    0706                               200 with an empty body                    taken
    0707                               success after 2 s                         taken
    0708 0709                          302, 307 to another path                  not taken

'Taken' (`accepted_by_provider` in the log) means that the message counts as sent, whatever the reply said: it stands in
the queue and later in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType

from aiohttp import web

from runner.sandbox_app import Desk, SandboxSettings
from runner.sandbox_log import Clock, Entry, Stats, steady_clock
from runner.sandbox_scenario import MAGIC, Action, Drop, RateLimit, Rule, Scenario
from runner.sandbox_scenario_file import ScenarioError, parse_scenario, read_scenario

__all__ = [
    "MAGIC",
    "Action",
    "Drop",
    "Entry",
    "RateLimit",
    "Rule",
    "Sandbox",
    "SandboxSettings",
    "Scenario",
    "ScenarioError",
    "Stats",
    "create_app",
    "parse_scenario",
    "read_scenario",
    "run",
]

# Connections that a client opens at once (its concurrency) wait here; the usual 128 would refuse or delay some.
_BACKLOG = 4096
_SHUTDOWN_SECONDS = 1.0


def create_app(settings: SandboxSettings, clock: Clock | None = None) -> web.Application:
    """The stand-in as an aiohttp application, for a server of one's own."""
    return Desk(settings, clock or steady_clock()).app()


class Sandbox:
    """The stand-in on a socket. Its log and memory stay when it is stopped, and go on when it is started again."""

    def __init__(self, settings: SandboxSettings | None = None, clock: Clock | None = None) -> None:
        self._settings = settings or SandboxSettings()
        self._desk = Desk(self._settings, clock or steady_clock())
        self._runner: web.AppRunner | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:40123` (no slash at the end)."""
        return self._url

    @property
    def log(self) -> list[Entry]:
        """Everything received so far, oldest first (the last `log_limit` of it). From any thread."""
        return self._desk.log.entries()

    def stats(self, window_seconds: float = 1.0) -> Stats:
        """What the log adds up to. From any thread."""
        return self._desk.log.stats(window_seconds)

    def clear(self) -> None:
        """Forgets the log, not the messages taken, nor what the rules have counted."""
        self._desk.log.clear()

    async def __aenter__(self) -> Sandbox:
        # Cancelled with its connection, a request that is held unanswered ends when its client has gone.
        runner = web.AppRunner(
            self._desk.app(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, self._settings.host, self._settings.port, backlog=_BACKLOG).start()
        except BaseException:
            await runner.cleanup()
            raise
        host, port = runner.addresses[0][:2]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[Sandbox]:
        """Runs it in a thread of its own. Raises what starting raises (OSError when the port is taken)."""
        ready: Future[Callable[[], object]] = Future()
        thread = threading.Thread(target=self._serve_in_thread, args=(ready,), name="sandbox", daemon=True)
        thread.start()
        try:
            stop = ready.result()
            try:
                yield self
            finally:
                stop()
        finally:
            thread.join()

    def _serve_in_thread(self, ready: Future[Callable[[], object]]) -> None:
        async def serve() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            async with self:
                ready.set_result(lambda: loop.call_soon_threadsafe(stop.set))
                await stop.wait()

        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)


def run(settings: SandboxSettings, on_ready: Callable[[str], object]) -> None:
    """Serves until SIGINT or SIGTERM and then returns. `on_ready` gets the URL. Raises OSError when it cannot listen."""

    async def serve() -> None:
        stop = asyncio.Event()
        async with Sandbox(settings) as box:
            with _stop_signals(stop):
                on_ready(box.url)
                await stop.wait()

    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(serve())


@contextlib.contextmanager
def _stop_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # the event loops of Windows have no signal handlers
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        yield
    finally:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            if before[number] is not None:  # None: set by a library that is not Python, and out of reach
                signal.signal(number, before[number])


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
