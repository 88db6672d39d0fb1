"""What must hold on every engine. The tiny model makes it exact: see tiny_model.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest

from engines.runs import SCAFFOLD, Ran
from engines.servers import Server

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
"""What we measured and what the server did, milliseconds."""


def agree(measure: Callable[[str], Mapping[str, Pairs]]) -> None:
    """At the median, ours is within 5 % or 2 ms of the server's, in each of the figures that `measure` gives.

    On a busy machine either process may be held up for longer than that, so one of three attempts has to show it, and a
    load that others make is said; a clock that starts or stops at the wrong place fails all attempts.
    """
    told = []
    for attempt in ("a", "b", "c"):
        off = {what: _off(pairs) for what, pairs in measure(attempt).items()}
        told += [f"{what}: {text}" for what, (_, text) in off.items()]
        print(*told[-len(off) :], sep="\n")
        if all(near for near, _ in off.values()):
            return
    load = os.getloadavg()[0]
    if load > BUSY:
        pytest.skip(f"the machine is too busy to compare times (load {load:.1f}): {'; '.join(told)}")
    raise AssertionError("\n".join(told))


BUSY = 3.5
"""Load beyond an engine and a client on two cores: other programs hold up the engine's own front end."""


def _off(pairs: Pairs) -> tuple[bool, str]:
    ours, theirs = np.array(pairs).T
    off, usual = float(np.median(np.abs(ours - theirs))), float(np.median(theirs))
    text = f"ours {np.median(ours):.2f} ms, the server's {usual:.2f} ms, off by {off:.2f} ms at the median"
    return off <= max(0.05 * usual, 2.0), text
