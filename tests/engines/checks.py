"""What must hold on every engine. The tiny model makes it exact: see tiny_model.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from engines.runs import SCAFFOLD, Ran
from engines.servers import Server
from engines.wiretap import Exchange
from workloom.records import CallRecord

GREEDY = ("--body", "temperature=0")
"""Answers that end nowhere but where they were asked to, and come back as the tokens they were."""
TEMPLATE = 5
"""Tokens that ChatML adds to a message: <|im_start|> role newline ... <|im_end|> newline."""
OPENING = 3
"""Tokens that open the answer, at the end of a prompt."""


def counts_are_exact(ran: Ran, endpoint: str, turns: int, output: int, *, whole: bool = True) -> None:
    """Every answer as long as planned, and the prompt what was sent and the template, by the server's count.

    Turn t is a system and a user message, and t times an answer and what came back to it. Not `whole`: tokens of an
    answer may have had no text (an end that was drawn and ignored), and are not in the next prompt.
    """
    assert ran.calls and {call.status for call in ran.calls} == {"ok"}
    assert {call.output_tokens for call in ran.calls} == {output}
    for calls in ran.turns:
        assert len(calls) == turns
        for turn, call in enumerate(calls):
            beyond = 0 if endpoint == "completions" else TEMPLATE * (2 + 2 * turn) + OPENING
            found = (call.prompt_tokens or 0) - call.sent_prompt_tokens
            assert found == beyond or (not whole and turn > 0 and 0 < beyond - found < 5)


def hits_its_own_past_only(ran: Ran, endpoint: str, block: int, *, answers: bool = True) -> None:
    """A later turn finds the whole of the one before, up to a block; a first turn the shared scaffold and no more.

    `answers`: the answer's text comes back as the tokens it was.
    """
    shared = SCAFFOLD + (0 if endpoint == "completions" else OPENING + TEMPLATE)
    first = []
    for calls in ran.turns:
        first.append(calls[0].cached_tokens)
        for before, call in pairwise(calls):
            assert before.prompt_tokens and before.output_tokens and call.cached_tokens is not None
            past = before.prompt_tokens + (before.output_tokens if answers else 0)
            assert past - block <= call.cached_tokens
    known = [hit or 0 for hit in first]
    assert shared - block < max(known) <= shared, known


def check_says(server: Server, expected: Mapping[str, str]) -> None:
    """`workloom check` finds out what is known of the server: the verdict of each finding named.

    Asked up to three times: one answer of fifty ends before its first word, and an empty answer proves little.
    """
    command = [sys.executable, "-m", "workloom.cli", "check", server.url, "--json"]
    differing = {}
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = {each["name"]: (each["verdict"], each["evidence"]) for each in json.loads(done.stdout)["findings"]}
        said = {name: found.get(name, ("none", ""))[0] for name in expected}
        if said == expected:
            return
        differing = {name: found.get(name) for name in expected if said[name] != expected[name]}
    raise AssertionError(differing)


Pairs = Sequence[tuple[float, float]]
"""What we measured and what somebody else did, milliseconds."""


class Compared(NamedTuple):
    """One figure of ours beside two others of it."""

    wire: Pairs
    """What a relay between us and the server saw: it starts after us and ends before us, by the kernel's hand-overs."""
    server: Pairs
    """What the server says of itself; of inter-token times the time of one."""


def against_wire(calls: Sequence[CallRecord], exchanges: Sequence[Exchange]) -> tuple[Pairs, Pairs]:
    """TTFT and time from the first to the last token of every call, ours and those on the wire, in the order sent."""
    ttft, decoding = [], []
    for call, exchange in zip(calls, exchanges, strict=True):
        assert call.sent_ns is not None and call.first_ns is not None and call.last_ns is not None
        came = exchange.content_ms
        ttft.append(((call.first_ns - call.sent_ns) / 1e6, came[0]))
        decoding.append(((call.last_ns - call.first_ns) / 1e6, came[-1] - came[0]))
    return ttft, decoding


def agree(measure: Callable[[str], Mapping[str, Compared]]) -> None:
    """Ours is within 5 % or 2 ms of what passed on the wire and of the server's own, in each figure that is measured.

    What holds a process up only adds, and seldom to all calls: the lower quartile of the difference is judged. One of
    three attempts has to show it. A clock of ours that starts or stops at the wrong place is off from the wire in all
    of them, and fails. Where the wire agrees with us and the server's own word does not, by no more than a busy machine
    explains, the difference arose on the server's side, and the test is skipped with the figures.
    """
    told, with_wire, explained = [], False, False
    for attempt in ("a", "b", "c"):
        found = measure(attempt)
        wire = {f"{what}, on the wire": _Off.of(each.wire) for what, each in found.items()}
        server = {f"{what}, the server's": _Off.of(each.server) for what, each in found.items()}
        told += [f"{what}: {off}" for what, off in (wire | server).items()]
        print(*told[-2 * len(found) :], sep="\n")
        if all(off.near(0.05, 2.0) for off in wire.values()):
            with_wire = True
            if all(off.near(0.05, 2.0) for off in server.values()):
                return
            explained = explained or all(off.near(0.25, 20.0) for off in server.values())
    figures = "\n".join(told)
    assert with_wire and explained, figures
    pytest.skip(f"the server's clock and its wire differ on this machine; ours agrees with the wire:\n{figures}")


class _Off(NamedTuple):
    """A difference: usual figures, and the lower quartile of ours less theirs, milliseconds."""

    ours: float
    theirs: float
    by: float

    @classmethod
    def of(cls, pairs: Pairs) -> _Off:
        ours, theirs = np.array(pairs).T
        return cls(float(np.median(ours)), float(np.median(theirs)), float(np.quantile(ours - theirs, 0.25)))

    def near(self, share: float, ms: float) -> bool:
        return abs(self.by) <= max(share * self.theirs, ms)

    def __str__(self) -> str:
        return f"ours {self.ours:.2f} ms, theirs {self.theirs:.2f} ms, off by {self.by:+.2f} ms at the lower quartile"
