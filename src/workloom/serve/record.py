"""What was served, as JSON Lines, and the same calls fed to an engine again.

The first line says which engine served; every other is one call, written when it ended. Because the engine's schedule
follows from the arrival stamps alone, :func:`replay` must give the very same ends; what the real clock added is the
difference between the instants tokens were written and the replayed ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from workloom.engine.cluster import serving
from workloom.engine.engine import PS, Finished
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Profile
from workloom.errors import UsageError
from workloom.prefix import Key
from workloom.serve.pump import Call

End = tuple[str, str, int, int, int, int, str]
"""Call, how it ended, when, output tokens, cached tokens, preemptions, replica."""


class Head(Struct, frozen=True):
    """Which engine served. `clock_origin_ns`: what the machine's monotonic counter showed at instant 0.

    `profile` is that of the first pool of `fleet`, or of the one replica there was.
    """

    workloom_serve: int
    profile: Profile
    prefix_cache: bool
    clock_origin_ns: int
    fleet: Fleet | None = None

    @property
    def whole(self) -> Fleet:
        """The fleet, also of one replica."""
        return self.fleet or Fleet((Pool(self.profile),))


class Row(Struct, frozen=True):
    """One call: what came in, what became of it, and when each token was handed to the socket."""

    name: str
    arrival_ns: int
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    answer: int
    asked_tokens: int
    cancelled_ns: int | None
    finish: Literal["length", "abort"]
    done_ns: int
    output_tokens: int
    cached_tokens: int
    preemptions: int
    written_ns: list[int]
    """Empty for calls that were not streamed."""
    hints: Hints = NO_HINTS
    replica: str = ""
    """Who of a cluster answered it."""

    @property
    def end(self) -> End:
        """What a replay must give again."""
        counts = self.output_tokens, self.cached_tokens, self.preemptions
        return self.name, self.finish, self.done_ns, *counts, self.replica


def row(call: Call, finished: Finished) -> Row:
    """The line of a call that ended."""
    return Row(
        name=call.name,
        arrival_ns=call.arrival_ns,
        ids=call.prompt.ids,
        ends=call.prompt.ends,
        answer=call.answer,
        asked_tokens=call.output_tokens,
        cancelled_ns=call.cancelled_ns,
        finish="length" if finished.status == "done" else "abort",
        done_ns=finished.done_ns,
        output_tokens=finished.output_tokens,
        cached_tokens=finished.cached_tokens,
        preemptions=finished.preemptions,
        written_ns=call.written_ns,
        hints=call.hints,
        replica=finished.replica,
    )


class Recorder:
    """Writes calls as they end; a ledger of the pump. Refuses to write over a file. Raises UsageError."""

    def __init__(self, path: Path, head: Head) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._path = path
        self._fault: OSError | None = None
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise UsageError(
                "the record exists already", where=str(path), hint="choose another file for --record"
            ) from None
        except OSError as fault:
            raise UsageError("the record cannot be written", where=str(path), found=fault.strerror) from fault
        self._write(head)

    def __call__(self, call: Call, finished: Finished) -> None:
        self._write(row(call, finished))

    def _write(self, line: Struct) -> None:
        """Serving goes on when the disk is full; :meth:`close` tells."""
        if self._fault is None:
            try:
                self._file.write(self._encode(line) + b"\n")
            except OSError as fault:
                self._fault = fault

    def close(self) -> None:
        """Raises UsageError when something could not be written."""
        self._file.close()
        if self._fault is not None:
            raise UsageError("the record is not whole", where=str(self._path), found=self._fault.strerror)


def read(path: Path) -> tuple[Head, list[Row]]:
    """A record, calls in the order in which they ended. Raises UsageError."""
    try:
        lines = path.read_bytes().splitlines()
        head = msgspec.json.decode(lines[0], type=Head)
        decode = msgspec.json.Decoder(Row).decode
        return head, [decode(line) for line in lines[1:]]
    except OSError as fault:
        raise UsageError("the record cannot be read", where=str(path), found=fault.strerror) from fault
    except (msgspec.DecodeError, IndexError) as fault:
        raise UsageError("this is no record of `workloom serve`", where=str(path), found=fault) from fault


def replay(head: Head, rows: list[Row]) -> list[Finished]:
    """What the same fleet makes of the same calls at the same instants, in the order of their ends."""
    engine = serving(head.whole, prefix_cache=head.prefix_cache)
    events = [(row.arrival_ns, row, False) for row in rows]
    events += [(row.cancelled_ns, row, True) for row in rows if row.cancelled_ns is not None]
    finished: list[Finished] = []
    for at_ns, row, cancel in sorted(events, key=lambda event: event[0]):
        if cancel:
            engine.cancel(at_ns, row.name)
        else:
            engine.submit(at_ns, row.name, Key(row.ids, row.ends), row.answer, row.asked_tokens, row.hints)
        finished += engine.advance(at_ns)
    while (next_ns := engine.next_ns()) is not None:
        finished += engine.advance(next_ns)
    return finished


def end(finished: Finished) -> End:
    """As :attr:`Row.end`."""
    finish = "length" if finished.status == "done" else "abort"
    return (
        finished.call,
        finish,
        finished.done_ns,
        finished.output_tokens,
        finished.cached_tokens,
        finished.preemptions,
        finished.replica,
    )


def tokens_ns(finished: Finished) -> Iterator[int]:
    """When each token of the answer was made."""
    for steps in finished.tokens:
        for i in range(steps.length):
            yield -(-steps.at(i) // PS)
