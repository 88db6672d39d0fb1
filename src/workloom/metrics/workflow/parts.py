"""What the time of a call is made of: the wait before it, by its edge, and its own time, by what was done.

    parent done      due      left   sent    admitted     first            last   done
        |---- wait ----|- lag --|connect|- queue -|- prefill -|---- decode ----|- stream end -|

tool, human, spawn,    from the parent's end to when the call was due, by the gap of the edge that bound it
network, orchestration
unnamed                the same of an edge without a gap, and what no edge explains
lag                    due to sent, without the connection: our own
retry                  the same of a call that was sent again after it had failed, as was asked for
connect                what a new connection took
queue                  sent to admitted: the server's front end and its queue
prefill                admitted to the first token (of an answer without any, to its end)
queue_or_prefill       sent to the first token, where the server does not say when it began (live servers)
decode                 the first token to the last
stream_end             the last token to the end of the stream, which is what dependants wait for
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from workloom.metrics.frame import Bools, Calls, Ints
from workloom.metrics.measured import GAPS
from workloom.metrics.stats import Floats

Wait = Literal["tool", "human", "spawn", "network", "orchestration", "unnamed"]
Own = Literal["lag", "retry", "connect", "queue", "prefill", "queue_or_prefill", "decode", "stream_end"]
Part = Wait | Own

WAITS: tuple[Wait, ...] = get_args(Wait)
OWN: tuple[Own, ...] = get_args(Own)
PARTS: tuple[Part, ...] = (*WAITS, *OWN)
CODE: dict[Part, int] = {part: code for code, part in enumerate(PARTS)}
SERVER: tuple[Own, ...] = ("queue", "prefill", "queue_or_prefill", "decode", "stream_end")
"""From sent to done."""

MEANING: dict[Part, str] = {
    "tool": "waits for tools",
    "human": "waits for the human",
    "spawn": "waits between a spawning call and the subagent's first",
    "network": "waits for the network",
    "orchestration": "waits that the agents' own program makes",
    "unnamed": "waits whose kind the trace does not tell",
    "lag": "our own lag: from when a call was due to when it was sent, without what a connection took",
    "retry": "failed attempts of calls that were sent again, as was asked for",
    "connect": "getting new connections",
    "queue": "the server's front end and queue: from sent to admitted, where the server says when it began",
    "prefill": "prefill: from admitted to the first token, where the server says when it began",
    "queue_or_prefill": "queue and prefill together: from sent to the first token, where the server does not say when "
    "it began",
    "decode": "decode: from the first token to the last (an answer without content is prefill to its end)",
    "stream_end": "the end of streams: from the last token to the end that dependants wait for",
}
WAIT_OF_GAP: Ints = np.array([CODE["unnamed" if gap == "none" else gap] for gap in GAPS], dtype=np.int64)  # type: ignore[index]


class Piece(NamedTuple):
    """Some nanoseconds of each of some rows, and the code of the part they are."""

    part: Ints
    ns: Ints


@dataclass(slots=True)
class Marks:
    """The instants of every call, in order, none before the one ahead of it; 0 where there is none."""

    at: NDArray[np.int64]
    """(7, calls): due, left, sent, admitted, first, last, done."""
    before: Ints
    """Code of what lies between due and left: lag or retry."""
    until_first: Ints
    """Code of what lies between admitted and first: prefill, or queue_or_prefill where nobody says."""

    @property
    def due(self) -> Ints:
        due: Ints = self.at[0]
        return due

    @property
    def done(self) -> Ints:
        done: Ints = self.at[-1]
        return done

    @property
    def took(self) -> Ints:
        """From due to done."""
        return self.done - self.due

    def own(self) -> Iterator[Piece]:
        """The own time of every row."""
        return self._pieces(self.at, slice(None))

    def own_between(self, rows: Ints, since: Ints, until: Ints) -> Iterator[Piece]:
        """The own time of some rows, of each only what lies between two instants."""
        return self._pieces(np.clip(self.at[:, rows], since, until), rows)

    def _pieces(self, at: NDArray[np.int64], rows: Ints | slice) -> Iterator[Piece]:
        fixed = [None, CODE["connect"], CODE["queue"], None, CODE["decode"], CODE["stream_end"]]
        for i, code in enumerate(fixed):
            if code is None:
                codes = (self.before if i == 0 else self.until_first)[rows]
            else:
                codes = np.full(at.shape[1], code, dtype=np.int64)
            yield Piece(codes, at[i + 1] - at[i])


def marks(calls: Calls) -> Marks:
    """The instants of calls as whole nanoseconds."""
    told = ~np.isnan(calls.admitted_ns)
    done = calls.done_ns
    first = np.where(np.isnan(calls.first_ns), done, calls.first_ns)
    last = np.where(np.isnan(calls.last_ns), first, calls.last_ns)
    admitted = np.where(told, calls.admitted_ns, calls.sent_ns)
    connect = np.where(np.isnan(calls.connect_ns), 0.0, calls.connect_ns)
    columns = [calls.due_ns, calls.sent_ns - connect, calls.sent_ns, admitted, first, last, done]
    at = np.stack([_whole(column) for column in columns])
    np.maximum.accumulate(at, axis=0, out=at)
    ends = ~np.isnan(done)
    at[:, ends] = np.minimum(at[:, ends], np.maximum(at[0, ends], _whole(done[ends])))
    return Marks(
        at,
        np.where(calls.retries > 0, CODE["retry"], CODE["lag"]),
        np.where(told, CODE["prefill"], CODE["queue_or_prefill"]),
    )


def of_part(pieces: Iterator[Piece], parts: tuple[Part, ...], rows: int) -> Ints:
    """Nanoseconds of each row that are of some parts."""
    wanted: Bools = np.isin(np.arange(len(PARTS)), [CODE[part] for part in parts])
    total = np.zeros(rows, dtype=np.int64)
    for part, ns in pieces:
        total += np.where(wanted[part], ns, 0)
    return total


def _whole(instants: Floats) -> Ints:
    return np.where(np.isnan(instants), 0.0, instants).astype(np.int64)
