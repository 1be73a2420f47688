"""What the stand-in provider received: its own log, and what can be counted from it. The judge in our tests."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

RawHeaders = tuple[tuple[bytes, bytes], ...]
Headers = tuple[tuple[str, str], ...]

_SECRET = frozenset({"token", "authorization", "proxy-authorization", "cookie", "x-api-key"})
_HEADER_CACHE = 1024


Clock = Callable[[], int]


def steady_clock() -> Clock:
    """Microseconds since 1970 that never go back: the wall time read once, carried on by the monotonic clock."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    monotonic_ns = time.monotonic_ns
    return lambda: (offset_ns + monotonic_ns()) // 1000


class Entry(NamedTuple):
    """One request as it was received, and what was done to it."""

    seq: int  # 1, 2, ... in the order in which requests were decided on
    at_us: int  # when the head of the request was in: microseconds since 1970, from a clock that never goes back
    method: str
    path: str  # with the query, as it was on the wire
    headers: Headers
    body: str  # "" when bodies are not kept or the body was never (wholly) read
    phone: str  # "" when there was none to read
    action: (
        str  # accepted, invalid, unauthorised, rate_limited, magic:0701, rule:2, incomplete, too_big, read, not_found
    )
    status: int  # the HTTP status answered; 0 when no reply was made
    accepted_by_provider: bool  # the message was taken, whatever the reply said
    queue_id: str  # the id given to the message, even if the reply that carried it was lost

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Stats:
    """What the log adds up to. `sends` and below count requests to the send paths only."""

    requests: int
    sends: int
    accepted_by_provider: int
    rate_limited: int
    by_action: dict[str, int]
    by_status: dict[int, int]
    phones: int
    phones_twice: list[str]  # requested more than once, refused requests included
    phones_accepted_twice: list[str]  # taken more than once: somebody got the message twice
    window_seconds: float
    worst_window: int  # the most sends that arrived in any window of that length


def worst_window(times_us: Sequence[int], window_us: int) -> int:
    """The most events in any half-open window [t, t + window_us). The times need not be in order."""
    ordered = sorted(times_us)
    worst = first = 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= window_us:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def masked(headers: Headers) -> Headers:
    """The headers with credentials cut to their first four characters."""
    return tuple((name, _mask(value) if name.lower() in _SECRET else value) for name, value in headers)


def _mask(value: str) -> str:
    return (value[:4] if len(value) > 4 else "") + "…"


class ReceivedLog:
    """Entries in memory (all of them, or the last `limit`) and, if wanted, as lines of JSON in a file.

    Totals, phones and arrival times are kept for every request, also for those that `limit` has dropped. Written to on
    one thread; `entries` and `stats` may be called from any.
    """

    def __init__(self, *, limit: int | None, file: Path | None, full_headers: bool, keep_bodies: bool) -> None:
        self._path = file
        self._file: BinaryIO | None = None
        self._full_headers = full_headers
        self._keep_bodies = keep_bodies
        self._limit = limit
        self._headers: dict[RawHeaders, Headers] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets everything in memory and starts again at 1. A log file is left as it is."""
        self._entries: deque[Entry] = deque(maxlen=self._limit)
        self._total = 0
        self._times = array("q")
        self._by_action: dict[str, int] = {}
        self._by_status: dict[int, int] = {}
        self._requested: dict[str, int] = {}
        self._accepted: dict[str, int] = {}
        self._accepted_total = 0

    def open(self) -> None:
        """Opens the log file to append to. Raises OSError."""
        if self._path is not None and self._file is None:
            self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(
        self,
        *,
        at_us: int,
        method: str,
        path: str,
        headers: RawHeaders,
        body: bytes = b"",
        phone: str = "",
        action: str,
        status: int,
        accepted: bool = False,
        queue_id: str = "",
        send: bool = False,
    ) -> None:
        """Records one request. In the file it stands before a byte of the reply is written, so no crash can lose it."""
        self._total += 1
        entry = Entry(
            self._total,
            at_us,
            method,
            path,
            self._shared(headers),
            body.decode("utf-8", "backslashreplace") if self._keep_bodies else "",
            phone,
            action,
            status,
            accepted,
            queue_id,
        )
        if self._file is not None:
            self._file.write(orjson.dumps(entry._asdict(), option=orjson.OPT_APPEND_NEWLINE))
        self._entries.append(entry)
        self._by_action[action] = self._by_action.get(action, 0) + 1
        self._by_status[status] = self._by_status.get(status, 0) + 1
        if send:
            self._times.append(at_us)
            if phone:
                self._requested[phone] = self._requested.get(phone, 0) + 1
            if accepted:
                self._accepted_total += 1
                self._accepted[phone] = self._accepted.get(phone, 0) + 1

    def entries(self) -> list[Entry]:
        """The entries kept, oldest first."""
        return list(self._entries)

    def as_json(self, *, since: int, limit: int | None) -> bytes:
        """`{"last": <newest seq>, "messages": [...]}` with the entries after `since`, at most `limit` of them."""
        entries = self.entries()
        start = max(0, since - (self._total - len(entries)))
        chosen = entries[start : None if limit is None else start + limit]
        if self._full_headers:
            chosen = [entry._replace(headers=masked(entry.headers)) for entry in chosen]
        messages = [entry._asdict() for entry in chosen]
        return orjson.dumps({"last": self._total, "messages": messages})

    def stats(self, window_seconds: float = 1.0) -> Stats:
        """What was received so far, with the worst window of `window_seconds`."""
        # Copies made in one step each, so that a thread may ask while the server goes on.
        times, requested, accepted = self._times[:], self._requested.copy(), self._accepted.copy()
        by_action = self._by_action.copy()
        return Stats(
            requests=self._total,
            sends=len(times),
            accepted_by_provider=self._accepted_total,
            rate_limited=by_action.get("rate_limited", 0),
            by_action=by_action,
            by_status=self._by_status.copy(),
            phones=len(requested),
            phones_twice=[phone for phone, count in requested.items() if count > 1],
            phones_accepted_twice=[phone for phone, count in accepted.items() if count > 1],
            window_seconds=window_seconds,
            worst_window=worst_window(times, round(window_seconds * 1_000_000)),
        )

    def _shared(self, raw: RawHeaders) -> Headers:
        """One tuple for all requests with the same headers (measured with six: 440 bytes an entry instead of 1,520)."""
        shown = self._headers.get(raw)
        if shown is None:
            if len(self._headers) >= _HEADER_CACHE:
                self._headers.clear()
            read = tuple((name.decode("latin-1"), value.decode("utf-8", "backslashreplace")) for name, value in raw)
            shown = self._headers[raw] = read if self._full_headers else masked(read)
        return shown
