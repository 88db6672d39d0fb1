"""What must hold on every engine. The tiny model makes it exact: see tiny_model.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from engines.runs import SCAFFOLD, Ran

GREEDY = ("--body", "temperature=0")
"""The answers never stop early, and come back as the tokens they were."""
TEMPLATE = 5
"""Tokens that ChatML adds to a message: <|im_start|> role newline ... <|im_end|> newline."""
OPENING = 3
"""Tokens that open the answer, at the end of a prompt."""


def counts_are_exact(ran: Ran, endpoint: str, turns: int, output: int) -> None:
    """Every answer as long as planned, and the prompt what was sent and the template, by the server's count.

    Turn t is a system and a user message, and t times an answer and what came back to it.
    """
    assert ran.calls and {call.status for call in ran.calls} == {"ok"}
    assert {call.output_tokens for call in ran.calls} == {output}
    for calls in ran.turns:
        assert len(calls) == turns
        for turn, call in enumerate(calls):
            beyond = TEMPLATE * (2 + 2 * turn) + OPENING if endpoint == "chat" else 0
            assert (call.prompt_tokens or 0) - call.sent_prompt_tokens == beyond


def hits_its_own_past_only(ran: Ran, endpoint: str, block: int, *, answers: bool = True) -> None:
    """A later turn finds the whole of the one before, up to a block; a first turn the shared scaffold and no more.

    `answers`: the answer's text comes back as the tokens it was.
    """
    shared = SCAFFOLD + (OPENING + TEMPLATE if endpoint == "chat" else 0)
    first = []
    for calls in ran.turns:
        first.append(calls[0].cached_tokens)
        for before, call in pairwise(calls):
            assert before.prompt_tokens and before.output_tokens and call.cached_tokens is not None
            past = before.prompt_tokens + (before.output_tokens if answers else 0)
            assert past - block <= call.cached_tokens
    known = [hit or 0 for hit in first]
    assert shared - block < max(known) <= shared, known


def agree(what: str, pairs: list[tuple[float, float]]) -> None:
    """At the median, ours is within 5 % or 2 ms of the server's (both in milliseconds)."""
    ours, theirs = np.array(pairs).T
    off, usual = float(np.median(np.abs(ours - theirs))), float(np.median(theirs))
    print(f"{what}: ours {np.median(ours):.2f} ms, the server's {usual:.2f} ms, off by {off:.2f} ms at the median")
    assert off <= max(0.05 * usual, 2.0)
