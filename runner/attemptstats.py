"""What a stream of attempts says of a campaign's pace and its provider: pure counting, in one pass, in bounded memory.

Made for a million attempts: per-bucket counts, a histogram with fine logarithmic buckets for the reply times, and the exact
worst sliding window of every limit over the ordered start times (eight bytes for each attempt that the fullest window holds).
Measured: 5 µs an attempt.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from runner.model import Verdict
from runner.units import Rate

Attempt = tuple[int, int, str, str]
"""started_at and finished_at in microseconds since the epoch (0: not finished), verdict (a word or ''), code (or '')."""

VERDICTS = (Verdict.ACCEPTED, Verdict.REJECTED, Verdict.NOT_SENT, Verdict.UNKNOWN)
"""The order of a bucket's counts; attempts without a verdict yet are counted after them."""

NOTE_LEAD = 20_000  # microseconds: an attempt is noted in the ledger up to so long before its first byte leaves
MOST_BUCKETS = 150
MOST_SESSIONS = 12
MOST_CODES = 100
OTHER_CODES = "others"
_PAUSE = 1800.0  # seconds without any attempt that part two sessions, unless the limits themselves are slow
_PAUSE_SPACINGS = 10  # ... so many times the spacing that the limits ask for
_WIDTHS = (1, 5, 15, 60, 300, 900, 3600, 21600, 86400)  # seconds; each divides the next
_FEWEST_IN_A_BUCKET = 5  # what the limits should let through in one bucket, or single messages make the picture
_DIGITS = 7  # binary digits of a reply time that count: percentiles are told within 1 %


@dataclass(frozen=True, slots=True)
class Codes:
    """Attempts with the same verdict and provider code."""

    verdict: str
    code: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Latency:
    """From the note in the ledger to the recorded reply, in microseconds; percentiles within 1 %."""

    replies: int
    fastest: int
    p50: int
    p95: int
    p99: int
    slowest: int


@dataclass(frozen=True, slots=True)
class Session:
    """A stretch of sending without a long pause. Counts per bucket in the order of `VERDICTS`, then those without one."""

    started_at: int  # microseconds since the epoch
    buckets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Attempts over time, in buckets of `width` seconds by their start."""

    width: int
    sessions: tuple[Session, ...]
    allowed: int | None  # the most that the limits let through in one bucket; None without a limit


@dataclass(frozen=True, slots=True)
class WindowPeak:
    """The fullest sliding window of one limit's length.

    `noted` counts the ledger's notes in a full window. A request leaves up to `NOTE_LEAD` after its note, so only what
    lies in a window shorter by that lead (`proven`) is known to have left within one. Attempts that never left this
    machine are left out.
    """

    rate: Rate
    proven: int
    noted: int
    at: int  # when that window begins, microseconds since the epoch; 0 without attempts

    @property
    def within(self) -> bool:
        """Whether the limit held."""
        return self.proven <= self.rate.count


@dataclass(frozen=True, slots=True)
class AttemptStats:
    """Everything the report page says about attempts."""

    attempts: int
    verdicts: dict[str, int]  # verdict -> attempts; '' for those without one
    codes: tuple[Codes, ...]  # the most frequent first
    latency: Latency | None  # None: no reply at all
    timeline: Timeline
    windows: tuple[WindowPeak, ...]  # one for each limit, in the given order
    first_at: int  # microseconds since the epoch; 0 without attempts
    last_at: int  # the last start
    sending_seconds: float  # from start to last start, long pauses left out


def measure(attempts: Iterable[Attempt], rates: Sequence[Rate]) -> AttemptStats:
    """Count the attempts of one campaign. Raises ValueError when they are not in the order of their starts."""
    verdicts: Counter[str] = Counter()
    codes: Counter[tuple[str, str]] = Counter()
    replies = _Histogram()
    timeline = _Timeline(rates)
    windows = _Windows(rates)
    first = last = 0
    for started, finished, verdict, code in attempts:
        if started < last:
            raise ValueError(f"attempts out of order: {started} after {last}")
        first = first or started
        last = started
        verdicts[verdict] += 1
        if code:
            key = (verdict, code)
            codes[key if key in codes or len(codes) < MOST_CODES else (verdict, OTHER_CODES)] += 1
            if finished >= started:
                replies.add(finished - started)
        timeline.add(started, verdict)
        if code or verdict != Verdict.NOT_SENT:
            windows.add(started)
    return AttemptStats(
        attempts=sum(verdicts.values()),
        verdicts=dict(verdicts),
        codes=tuple(
            Codes(verdict, code, n)
            for (verdict, code), n in sorted(codes.items(), key=lambda item: (-item[1], item[0]))
        ),
        latency=replies.latency(),
        timeline=timeline.done(),
        windows=windows.peaks(),
        first_at=first,
        last_at=last,
        sending_seconds=timeline.sending_seconds(),
    )


class _Histogram:
    """Times by their first seven binary digits: buckets at most 1/64 wide, as many as the logarithm of the longest time."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._fastest = self._slowest = -1

    def add(self, time: int) -> None:
        shift = max(time.bit_length() - _DIGITS, 0)
        self._counts[shift, time >> shift] += 1
        self._slowest = max(self._slowest, time)
        if time < self._fastest or self._fastest < 0:
            self._fastest = time

    def latency(self) -> Latency | None:
        total = self._counts.total()
        if not total:
            return None
        p50, p95, p99 = (self._percentile(total, share) for share in (0.50, 0.95, 0.99))
        return Latency(total, self._fastest, p50, p95, p99, self._slowest)

    def _percentile(self, total: int, share: float) -> int:
        """The nearest-rank percentile: the middle of the bucket that holds it, within what was really seen."""
        left = math.ceil(total * share)
        for shift, digits in sorted(self._counts):
            left -= self._counts[shift, digits]
            if left <= 0:
                middle = (digits << shift) + ((1 << shift) - 1) // 2
                return min(max(middle, self._fastest), self._slowest)
        return self._slowest


@dataclass(slots=True)
class _Stretch:
    started_at: int
    buckets: list[list[int]] = field(default_factory=list)


class _Timeline:
    """Buckets that grow wider, and merge, when there would be too many of them."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._rates = rates
        shortest = min(rates, key=lambda rate: rate.window, default=None)
        spacing = shortest.window / shortest.count if shortest is not None else 0.0
        self._pause = int(max(_PAUSE, _PAUSE_SPACINGS * spacing) * 1e6)
        self._width = next((w for w in _WIDTHS if w >= spacing * _FEWEST_IN_A_BUCKET), _WIDTHS[-1])
        self._stretches: list[_Stretch] = []
        self._full = 0  # buckets of all stretches but the last
        self._last = 0
        self._paused = 0
        self._first = 0
        self._places: dict[str, int] = {verdict.value: place for place, verdict in enumerate(VERDICTS)}

    def add(self, started: int, verdict: str) -> None:
        if not self._stretches:
            self._first = started
            self._stretches.append(_Stretch(started))
        elif started - self._last > self._pause and len(self._stretches) < MOST_SESSIONS:
            self._paused += started - self._last
            self._full += len(self._stretches[-1].buckets)
            self._stretches.append(_Stretch(started))
        self._last = started
        stretch = self._stretches[-1]
        index = self._index(started, stretch)
        while self._full + index >= MOST_BUCKETS:
            self._widen()
            index = self._index(started, stretch)
        buckets = stretch.buckets
        while len(buckets) <= index:
            buckets.append([0] * (len(VERDICTS) + 1))
        buckets[index][self._places.get(verdict, len(VERDICTS))] += 1

    def _index(self, started: int, stretch: _Stretch) -> int:
        # The first note has no lead yet, the next ones may: without the shift the first bucket holds one more than the limit.
        return (started - stretch.started_at + NOTE_LEAD) // (self._width * 1_000_000)

    def _widen(self) -> None:
        wider = next((w for w in _WIDTHS if w > self._width), self._width * 2)
        times = wider // self._width
        self._width = wider
        for stretch in self._stretches:
            old = stretch.buckets
            stretch.buckets = [
                [sum(counts) for counts in zip(*old[at : at + times], strict=True)] for at in range(0, len(old), times)
            ]
        self._full = sum(len(stretch.buckets) for stretch in self._stretches[:-1])

    def done(self) -> Timeline:
        sessions = tuple(
            Session(stretch.started_at, tuple(tuple(counts) for counts in stretch.buckets))
            for stretch in self._stretches
        )
        return Timeline(self._width, sessions, _most_in(self._width, self._rates))

    def sending_seconds(self) -> float:
        return (self._last - self._first - self._paused) / 1e6


def _most_in(width: int, rates: Sequence[Rate]) -> int | None:
    """The most requests that the limits let through in `width` seconds: the gate spaces that of the shortest window evenly,
    the others only bound what lies in their window."""
    shortest = min((rate.window for rate in rates), default=0.0)
    return min(
        (
            rate.count * math.ceil(width / rate.window)
            if width >= rate.window
            else min(rate.count, math.ceil(rate.count * width / rate.window))
            if rate.window == shortest
            else rate.count
            for rate in rates
        ),
        default=None,
    )


class _Windows:
    """The fullest window of each limit. One more attempt can only fill it by one, so one look at the attempt that many
    places back says whether it did; as many start times are kept as the fullest window holds."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._rates = rates
        self._stamps = array("q")
        self._spans = [round(rate.window * 1e6) - lead for rate in rates for lead in (NOTE_LEAD, 0)]
        self._most = [0] * len(self._spans)
        self._at = [0] * len(self._spans)

    def add(self, started: int) -> None:
        stamps = self._stamps
        stamps.append(started)
        last = len(stamps) - 1
        for place, span in enumerate(self._spans):
            back = last - self._most[place]
            if back >= 0 and stamps[back] > started - span:
                self._most[place] += 1
                self._at[place] = stamps[back]
        if last > 4_096 and last > 2 * (needed := max(self._most, default=0) + 1):
            del stamps[:-needed]

    def peaks(self) -> tuple[WindowPeak, ...]:
        return tuple(
            WindowPeak(rate, self._most[2 * place], self._most[2 * place + 1], self._at[2 * place])
            for place, rate in enumerate(self._rates)
        )
