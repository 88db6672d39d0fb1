"""A real small model on llama.cpp: agents whose answers are as long as the model likes, and are English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from engines import install, servers
from engines.runs import agents, workloom
from engines.servers import Server
from engines.wiretap import tapped
from workloom.drive.text import FUNCTION_WORDS
from workloom.words import pool

PLANNED = 200
"""Tokens of an answer by the plan; none is asked for."""
BRIEF = ("--body", 'logit_bias={"2":6}', "--body", "repeat_penalty=1.1")
"""Makes the end (token 2) likelier and going round less: prompts of random words tempt so small a model to do both."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.llama_cpp(model=install.smollm2(), slots=1, context=2048) as server:
        yield server


def test_an_agent_session_of_free_length_runs(server: Server, tmp_path: Path) -> None:
    sessions = agents(2, 3, fresh=24, output=PLANNED, scaffold=32)
    with tapped(server) as (seen, tap):
        options = ("--output", "free", "--concurrency", 1, "--salt", 1, "--body", "seed=3")
        ran = workloom(tmp_path, seen, sessions, *options, *BRIEF)
    assert [(call.status, call.asked_output_tokens) for call in ran.calls] == [("ok", None)] * 6
    assert all("max_tokens" not in exchange.body for exchange in tap.calls)
    lengths = [call.output_tokens or 0 for call in ran.calls]
    assert len(set(lengths)) > 1 and min(lengths) < PLANNED
    assert "stop" in {call.finish for call in ran.calls}
    assert ran.grew["tokens_predicted_total"] == sum(lengths)
    for calls in ran.turns:
        for before, call in pairwise(calls):
            assert (call.cached_tokens or 0) >= (before.prompt_tokens or 0)

    # What it says is English, and what it said stands in the next prompt.
    answers = [exchange.text for exchange in tap.calls]
    told = [word for answer in answers for word in re.findall(r"[a-z]+", answer.lower())]
    known = {*pool(), *FUNCTION_WORDS}
    assert len(told) > 30 and sum(word in known for word in told) > 0.5 * len(told), answers
    for before, after in pairwise(tap.calls):
        messages = after.body["messages"]
        if len(messages) > 3:
            assert messages[-2] == {"role": "assistant", "content": before.text}
