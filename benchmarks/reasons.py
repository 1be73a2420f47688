"""Why figures are where they are, in words beside the tables of docs/performance.md. Ratios in the words come from the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.figures import Measure, Part, Row, ratios

FLOOR = "aiohttp, tuned, and the least durable ledger"
FLOOR_WAL, FLOOR_UNSYNCED = "the same ledger, with WAL", "the same ledger, never synced"
TUNED, PLAIN, LOOP = "aiohttp, tuned", "aiohttp, as most write it", "requests, a loop"


def fan_out(part: Part) -> str:
    """Why the fan-out is where it is; a part without the rows in question has nothing to explain."""
    rows = part.tables[0].rows
    ours = rows[0].label

    def to(above: str, below: str) -> str:
        return ratios(_rates(rows, above), _rates(rows, below)).text()

    if not {FLOOR, FLOOR_WAL, FLOOR_UNSYNCED, TUNED, PLAIN, LOOP} <= {row.label for row in rows}:
        return ""
    return f"""## Why the fan-out is where it is

What a bare loop does cannot be the mark for a sender that may be killed at any moment. The row "tuned, and the least durable
ledger" is the least that the promise costs: the same tuned loop, and a table of three columns in SQLite that has each message
before it leaves and again after its reply, with the ledger's journal, all who wait in one commit, all its rows in one
statement. No plan, gate, pace, hash, list of attempts, time limit, retry or progress.

| | |
|---|---:|
| that floor, to the tuned loop | {to(FLOOR, TUNED)} |
| the floor with WAL, to the tuned loop | {to(FLOOR_WAL, TUNED)} |
| the floor never synced, to the tuned loop | {to(FLOOR_UNSYNCED, TUNED)} |
| the runner, to the floor | {to(ours, FLOOR)} |
| aiohttp as most write it, to the tuned loop | {to(PLAIN, TUNED)} |
| the floor, to the requests loop | {to(FLOOR, LOOP)} |
| the tuned loop, to the requests loop | {to(TUNED, LOOP)} |

So 0.80 of the tuned loop is beyond what two such notes a message leave within one process on this machine, and with it 8 times
the requests loop. The row "never synced" is what the notes cost without any promise, the one with WAL what a cheaper journal
would bring. In an hour in which the bare loop made half as many messages the floor was at 0.75 of it: most likely a quicker
processor helps the bare loop more, for the disk's part of a commit stays as long as it is. With all that the floor leaves out
the runner is about as fast as it: its exchange costs less than half of that of aiohttp's session.

Where the time goes, by the table of stages: the largest part into the ledger's thread (seven statements, and a commit of five
syncs and 60 small writes, shared by 50 messages at most, for no more may be in doubt after a power cut), then into the event
loop, its sockets in the kernel, and aiohttp's parser, as in any loop. All that the runner itself adds (workers, pace gate,
building requests, reading replies, progress) is less than a fifth. With 10 in flight a commit is shared by 10, and a kept
connection rests 5 ms after each reply, so 2,000 messages a second are the most.

Tried, and kept: aiohttp's connections and parser without its session, which does for each request what none of ours needs (less
than half the processor time of an exchange); one timer for all time limits; a head that is made once for all requests that have
the same headers; all rows of a batch in one statement (the driver lets go of the interpreter's lock for each row, and waits for
it: 89 ms for a batch beside a busy loop, 9 now), as values and not as JSON (less than half the statements' time, a fifth of
the ledger's thread); intents that come together wait 3 ms for one another (half the commits and hand-overs between the
threads); claims that go with the batch that there is anyway (a twentieth, for a commit of their own parted those whose replies
came together); a free turn without a lock; a garbage collector that leaves what was there before alone; replies' words cleaned
once. And for phone numbers in no order, as here: an index over them that no change of status rewrites (26 KB written a message
before, 3 now).

Tried without a gain: a journal that is kept or cut to nothing instead of deleted; larger pages in the ledger's file; a protocol
of our own on aiohttp's parser (3 microseconds); batches of 17 or 25 that are sent while the others are committed, on one core
and on two (a commit of 25 takes nearly as long as one of 50, and longer beside a loop at work: 0.84 of the rate, 0.65 to 1.09
in twelve runs); threads that change places after 0.1 or 0.02 ms. And the ledger in a process of its own on the second core: the
floor in that shape came to 0.66 of the tuned loop (0.50 to 0.89 in nine runs with batches of 17, 25 and 50), a trial with the
runner itself, its rows pickled, to 0.78 of the rate that it has now (0.46 to 1.30 in thirty runs). A better built one may bring
more than there is now, and most likely misses the mark all the same. Not taken further, for between an intent and its request
there would be one more process that can die, hang or be frozen.

Refused: WAL (a corruption race in the SQLite libraries that come with Python, and a ledger of more than one file, whose copy
without its log has forgotten whom it sent to); fewer syncs; intents further ahead than the requests in flight, even with notes
in a file that outlives the process and tells which of them left (built, and faster; but the ledger alone no longer says what
may have been sent, and after a power cut all of them are unknown); a parser that stays from one reply to the next (a late
second reply could be taken for the next one's); a second sending process beside the one that has the ledger (one more place
where a message can be lost, for rates that no WhatsApp number may have).

A connection is used once unless the campaign file says `keep_connections`, for a kept one can make an unknown of a message
([safety.md](safety.md#never-twice-nothing-lost)): over TLS the handshakes are most of the time. A WhatsApp number is limited
far below any of these figures.
"""


def pace(part: Part) -> str:
    """What keeps a limit from being used up."""
    del part
    return WHY_PACE


def _rates(rows: Sequence[Row], label: str) -> tuple[float, ...]:
    """Messages a second of one variant, round by round."""
    first = next(row for row in rows if row.label == label).cells[0]
    return first.values if isinstance(first, Measure) else ()


WHY_PACE = """### What keeps a limit from being used up

In an exact sliding window lateness is never made up for: a request that leaves 20 ms late keeps the one in its place a window
later waiting for as long, for ever after. So a slot is handed out as much earlier as its commit usually takes at most (mean and
twice the mean deviation), the ledger's thread must not wait for the event loop row by row, and a reply's moment is when its
first bytes came, not when somebody read it; and no commit is written for claims alone. What is left is 1 ms by which each
window is longer than the limit's; the replies that take longer than the fastest one so far, for their requests may have arrived
late, so the next ones in their places wait as much longer (without that correction 27 windows held up to 1,015 of 1,000); and
what holds the machine up. At 3,000/s one process is at work for most of the time, and a disk that takes 50 ms for a commit, or
a host that takes the processor away, is seen at once; more requests in flight make it worse (larger batches: 0.87 to 0.92 with
450 and 600). Refused: to compare with the fastest reply of late instead of the fastest ever, for a way that becomes quicker
again would then let one too many through.

A window by the provider's clock can hold too many where the provider itself was held up. It counts late what it reads late; all
that a sender sees of that is a late reply, of which 20 ms are taken for the way (more where that is four times the usual), for a
provider whose replies take now a tenth of a second and now a whole one would otherwise have its limit used by half. (An earlier
run on a machine whose host took part of its time away had two rounds of 30 with such windows, 1,037 of 1,000 and 81 of 80, in
which 0.79 and 0.93 of the limit were used; that the host was the cause was not proved.)
"""
REASONS: dict[str, Callable[[Part], str]] = {"fanout": fan_out, "pace": pace}  # by the name of the part
