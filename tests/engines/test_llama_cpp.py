"""workloom against llama.cpp's own server, with the tiny model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import servers
from engines.checks import GREEDY, Compared, against_wire, agree, check_says, counts_are_exact, hits_its_own_past_only
from engines.runs import agents, single, watching, workloom
from engines.servers import Server, events
from engines.wiretap import tapped

HELLO = [{"role": "user", "content": "the word is able"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.llama_cpp(slots=4) as server:
        yield server


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_counts_are_the_servers_to_the_token(server: Server, tmp_path: Path, endpoint: str) -> None:
    ran = workloom(tmp_path, server, agents(4), "--concurrency", 2, "--endpoint", endpoint, *GREEDY)
    counts_are_exact(ran, endpoint, turns=3, output=20)
    assert ran.grew["tokens_predicted_total"] == 12 * 20
    counted = sum(call.prompt_tokens or 0 for call in ran.calls)
    assert ran.grew["prompt_tokens_total"] + ran.grew["prompt_tokens_cached_total"] == counted


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_session_hits_its_own_past_and_no_other(server: Server, tmp_path: Path, endpoint: str) -> None:
    """Two sessions, each given out three times: a recycled one is another one to the cache.

    One at a time: this server puts a new session into the slot whose prompt is most like it, which may be one that
    another session has only paused in.
    """
    options = ("--concurrency", 1, "--sessions", 6, "--endpoint", endpoint, *GREEDY)
    ran = workloom(tmp_path, server, agents(2), *options)
    assert len(ran.turns) == 6
    hits_its_own_past_only(ran, endpoint, block=1)
    assert ran.grew["prompt_tokens_cached_total"] == sum(call.cached_tokens or 0 for call in ran.calls)


def test_the_same_text_sent_twice_is_caught(server: Server, tmp_path: Path) -> None:
    """What the test before this one would see if sessions were not kept apart: same salt, same text, all of it hit."""
    options = ("--concurrency", 1, "--salt", 7, *GREEDY)
    workloom(tmp_path / "a", server, agents(1), *options)
    (calls,) = workloom(tmp_path / "b", server, agents(1), *options).turns
    assert calls[0].prompt_tokens and calls[0].cached_tokens == calls[0].prompt_tokens - 1


def test_times_agree_with_the_servers_own(server: Server, tmp_path: Path) -> None:
    """Of every call the wire's and the server's timings beside ours.

    The server's `prompt_ms` begins behind parsing, template and tokenising. How long those take it says itself, by the
    same body once more: all of the prompt is in its cache then.
    """

    def measure(attempt: str) -> dict[str, Compared]:
        with tapped(server) as (seen, tap):
            sessions = agents(5, 3, fresh=300, output=60)
            ran = workloom(tmp_path / attempt, seen, sessions, "--concurrency", 1, *GREEDY)
        assert len(tap.calls) == len(ran.calls) == 15
        assert {call.output_tokens for call in ran.calls} == {60}
        wire = against_wire(ran.calls, tap.calls)
        ttft, gap = [], []
        for (ours, _), (decoding, _), exchange in zip(*wire, tap.calls, strict=True):
            timings = exchange.events[-1]["timings"]
            assert timings["predicted_n"] == 60
            before_ms = min(_front_ms(server, exchange.body) for _ in range(3))
            ttft.append((ours, before_ms + timings["prompt_ms"]))
            gap.append((decoding / 59, timings["predicted_ms"] / 59))
        return {"TTFT": Compared(wire[0], ttft), "inter-token time": Compared(wire[1], gap)}

    agree(measure)


def _front_ms(server: Server, body: dict[str, Any]) -> float:
    """What passes before the server begins with a prompt: a request for one token, less what it says to have worked."""
    start = time.perf_counter()
    _, answer = server.post("/v1/chat/completions", **{**body, "max_tokens": 1, "min_tokens": 1})
    return (time.perf_counter() - start) * 1e3 - float(events(answer)[-1]["timings"]["prompt_ms"])


def test_check_tells_what_it_does(server: Server) -> None:
    check_says(
        server,
        {
            "metrics": "yes",
            "chat": "yes",
            "completions": "yes",
            "responses": "yes",
            "messages": "yes",
            "prompt_token_ids": "yes",
            "usage": "yes",
            "cached_tokens": "yes",
            "exact_length": "yes",
            "ignore_eos": "yes",
            "min_tokens": "ignored",
            "wrong_model": "ignored",
            "role_chunk_first": "yes",
            "keep_alive": "no",
            "word_is_token": "yes",
        },
    )


def test_queueing_is_seen(server: Server, tmp_path: Path) -> None:
    """16 sessions at once on 4 slots: the last ones wait for three others."""
    sessions = [single(f"s{i}", 200 + i, 60) for i in range(16)]
    with watching(server) as highest:
        ran = workloom(tmp_path, server, sessions, "--concurrency", 16)
    ttft = sorted((call.first_ns or 0) - (call.sent_ns or 0) for call in ran.calls)
    assert len(ttft) == 16 and ttft[12] > 2 * ttft[3]
    assert highest["requests_deferred"] >= 4 and highest["requests_processing"] == 4


# What this server does in its own way, and what becomes of it.


def test_usage_comes_in_a_chunk_of_its_own_or_in_the_last(server: Server) -> None:
    """Both are counted: test_counts_are_the_servers_to_the_token runs on them."""
    ask: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
        "ignore_eos": True,
    }
    chat = events(server.post("/v1/chat/completions", messages=HELLO, **ask)[1])
    assert chat[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert chat[-1]["choices"] == [] and chat[-1]["usage"]["completion_tokens"] == 3
    plain = events(server.post("/v1/completions", prompt="the word is able", **ask)[1])
    assert plain[-1]["choices"][0]["finish_reason"] == "length" and plain[-1]["usage"]["completion_tokens"] == 3


def test_a_minimum_it_ignores_is_no_secret(server: Server, tmp_path: Path) -> None:
    """min_tokens without ignore_eos: the server ends early all the same, and the record says what came.

    One answer of a hundred or so ends before its first word: an empty answer, and an error. The server counts its end.
    """
    options = ("--body", "ignore_eos=null", "--body", "seed=1", "--concurrency", 4)
    ran = workloom(tmp_path, server, [single(f"s{i}", 50, 120) for i in range(12)], *options)
    early = [call for call in ran.calls if call.finish == "stop"]
    assert early and all((call.output_tokens or 0) < 120 for call in early)
    assert {call.asked_output_tokens for call in ran.calls} == {120}
    empty = [call.error or "" for call in ran.calls if call.error_kind == "empty"]
    assert all("output_tokens 1" in said for said in empty)
    assert ran.grew["tokens_predicted_total"] == sum(call.output_tokens or 0 for call in ran.calls) + len(empty)


def test_exact_lengths_are_not_to_be_had_from_its_messages_api(server: Server, tmp_path: Path) -> None:
    """/v1/messages drops ignore_eos (and seed) in silence: the record says what was asked and what came.

    One answer of fifty ends before its first word: that one is an empty answer, and an error.
    """
    with tapped(server) as (seen, tap):
        sessions = [single(f"s{i}", 50, 120) for i in range(12)]
        ran = workloom(tmp_path, seen, sessions, "--concurrency", 2, "--endpoint", "messages")
    assert len(tap.calls) == 12 and all(exchange.body["ignore_eos"] for exchange in tap.calls)
    came = [call for call in ran.calls if call.error_kind != "empty"]
    assert {(call.status, call.asked_output_tokens) for call in came} == {("ok", 120)}
    early = [call for call in came if call.finish == "end_turn"]
    assert early and all((call.output_tokens or 0) < 120 for call in early)


def test_a_model_it_does_not_know_is_served_and_warned_of(server: Server, tmp_path: Path) -> None:
    ran = workloom(tmp_path, server, agents(1, 1), model="another")
    assert "does not list the model 'another'" in ran.said
    assert [call.status for call in ran.calls] == ["ok"]


def test_a_prompt_that_is_too_long_is_a_context_overflow(server: Server, tmp_path: Path) -> None:
    sessions = [single("long", 9000, 10), single("short", 100, 10)]
    ran = workloom(tmp_path, server, sessions, "--concurrency", 1, "--max-context", 20_000)
    told = {call.session: (call.status, call.error_kind, call.http_status) for call in ran.calls}
    assert told == {"long": ("error", "context_overflow", 400), "short": ("ok", None, None)}


def test_a_field_it_refuses_is_an_error_that_says_why(server: Server, tmp_path: Path) -> None:
    assert server.post("/v1/chat/completions", messages=HELLO, max_tokens=-5)[0] == 400
    ran = workloom(tmp_path, server, agents(1, 1), "--body", "n=-1", fails=True)
    (call,) = ran.calls
    assert (call.status, call.error_kind, call.http_status) == ("error", "http_status", 400)
    assert "Field 'n'" in (call.error or "") and call.first_ns is None


def test_an_answer_of_nothing_has_no_first_token(server: Server, tmp_path: Path) -> None:
    """The model is made to stop at once: an end of sequence (token 2) is all it says."""
    options = ("--output", "cap", "--body", 'logit_bias={"2":100}')
    ran = workloom(tmp_path, server, agents(2, 1), *options, fails=True)
    assert {(call.status, call.error_kind, call.first_ns) for call in ran.calls} == {("error", "empty", None)}


def test_hanging_up_stops_the_server(server: Server, tmp_path: Path) -> None:
    ran = workloom(tmp_path, server, [single("s", 50, 4000, stop_after=20)])
    (call,) = ran.calls
    assert (call.status, call.finish) == ("ok", "hangup") and 20 <= (call.output_tokens or 0) < 40
    assert ran.grew["tokens_predicted_total"] < 2000
    assert server.metrics()["requests_processing"] == 0


def test_it_promises_to_keep_connections_and_closes_them(server: Server, tmp_path: Path) -> None:
    """`Keep-Alive: timeout=5, max=100`, and then the stream's end closes: no call may be lost to that."""
    ran = workloom(tmp_path, server, agents(2, 8, fresh=20, output=4), "--concurrency", 1)
    assert [(call.status, call.retries) for call in ran.calls] == [("ok", 0)] * 16
    assert not any(call.connection_reused for call in ran.calls)
