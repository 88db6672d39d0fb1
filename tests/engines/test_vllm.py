"""workloom against vLLM on the CPU, with the tiny model: the real scheduler, paged KV cache and prefix cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import servers
from engines.checks import GREEDY, Compared, against_wire, agree, check_says, counts_are_exact, hits_its_own_past_only
from engines.runs import agents, single, watching, workloom
from engines.servers import Server, events
from engines.wiretap import tapped

BLOCK = 32
KV_TOKENS = 264 * BLOCK
"""As little as a context of 8192 tokens needs, so that a few sessions are enough to overfill it."""
SEATS = 8
HELLO = [{"role": "user", "content": "the word is able"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--enable-prompt-tokens-details", "--num-gpu-blocks-override", str(KV_TOKENS // BLOCK))
    with servers.vllm(*options, seats=SEATS) as server:
        workloom(tmp_path_factory.mktemp("warm"), server, agents(2), "--concurrency", 2)
        yield server


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_counts_are_the_servers_to_the_token(server: Server, tmp_path: Path, endpoint: str) -> None:
    ran = workloom(tmp_path, server, agents(4), "--concurrency", 2, "--endpoint", endpoint, *GREEDY)
    # Its responses API knows no min_tokens, so ends are drawn there.
    counts_are_exact(ran, endpoint, turns=3, output=20, whole=endpoint != "responses")
    assert ran.grew["generation_tokens_total"] == 12 * 20
    assert ran.grew["prompt_tokens_total"] == sum(call.prompt_tokens or 0 for call in ran.calls)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_session_hits_its_own_past_and_no_other(server: Server, tmp_path: Path, endpoint: str) -> None:
    """Two sessions, each given out three times: a recycled one is another one to the cache."""
    options = ("--concurrency", 2, "--sessions", 6, "--endpoint", endpoint, *GREEDY)
    ran = workloom(tmp_path, server, agents(2), *options)
    assert len(ran.turns) == 6
    hits_its_own_past_only(ran, endpoint, BLOCK)
    assert ran.grew["prefix_cache_hits_total"] == sum(call.cached_tokens or 0 for call in ran.calls)
    assert ran.grew["prefix_cache_queries_total"] == sum(call.prompt_tokens or 0 for call in ran.calls)


def test_times_agree_with_the_servers_own(server: Server, tmp_path: Path) -> None:
    """Every call beside the wire's; means beside its histograms' sums and counts. One call at a time, and long ones.

    Its clock starts behind parsing, template and tokenising. How long those take, and the way back, it says itself, by
    the same bodies once more: all of the prompt is in its cache then.
    """
    sessions = [single(f"s{i}", 6000 + i, 50) for i in range(5)]

    def measure(attempt: str) -> dict[str, Compared]:
        with tapped(server) as (seen, tap):
            ran = workloom(tmp_path / attempt, seen, sessions, "--concurrency", 1, *GREEDY)
        grew, calls = ran.grew, len(ran.calls)
        assert grew["time_to_first_token_seconds_count"] == calls == 5
        assert grew["inter_token_latency_seconds_count"] == calls * 49
        around_ms = float(np.mean([min(_around_ms(server, each.body) for _ in range(2)) for each in tap.calls]))
        wire_ttft, decoding = against_wire(ran.calls, tap.calls)
        ttft, whole = (float(np.mean([ours for ours, _ in pairs])) for pairs in (wire_ttft, decoding))
        theirs = around_ms + 1e3 * grew["time_to_first_token_seconds_sum"] / calls
        their_gap = 1e3 * grew["inter_token_latency_seconds_sum"] / (calls * 49)
        return {
            "TTFT": Compared(wire_ttft, [(ttft, theirs)]),
            "inter-token time": Compared(decoding, [(whole / 49, their_gap)]),
        }

    agree(measure)


def _around_ms(server: Server, body: dict[str, Any]) -> float:
    """What passes outside the server's clock: a request for one token, less what it says to have taken."""
    before = server.metrics()["time_to_first_token_seconds_sum"]
    start = time.perf_counter()
    server.post("/v1/chat/completions", **{**body, "max_tokens": 1, "min_tokens": 1})
    seconds = time.perf_counter() - start
    return 1e3 * (seconds - (server.metrics()["time_to_first_token_seconds_sum"] - before))


def test_check_tells_what_it_does(server: Server) -> None:
    check_says(
        server,
        {
            "metrics": "yes",
            "chat": "yes",
            "completions": "yes",
            "prompt_token_ids": "yes",
            "usage": "yes",
            "cached_tokens": "yes",
            "exact_length": "yes",
            "ignore_eos": "yes",
            "min_tokens": "yes",
            "wrong_model": "yes",
            "role_chunk_first": "yes",
            "keep_alive": "yes",
            "word_is_token": "yes",
            "max_model_len": "yes",
        },
    )


def test_queueing_is_seen(server: Server, tmp_path: Path) -> None:
    """Three times as many sessions as there are seats."""
    sessions = [single(f"s{i}", 200 + i, 60) for i in range(3 * SEATS)]
    with watching(server) as highest:
        ran = workloom(tmp_path, server, sessions, "--concurrency", 3 * SEATS)
    ttft = sorted((call.first_ns or 0) - (call.sent_ns or 0) for call in ran.calls)
    assert {call.status for call in ran.calls} == {"ok"}
    assert ttft[-SEATS] > 1.5 * ttft[SEATS // 2]
    assert highest["num_requests_running"] <= SEATS <= highest["num_requests_waiting"]
    assert ran.grew["request_queue_time_seconds_sum"] > 0.2 * sum(ttft) / 1e9


def test_preemption_is_seen_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    """Each session begins small and grows: together they need more KV cache than there is."""
    sessions = [single(f"s{i}", 600 + i, 800) for i in range(SEATS)]
    assert sum(call.fresh_tokens for s in sessions for call in s.calls) < KV_TOKENS < SEATS * 1400
    ran = workloom(tmp_path, server, sessions, "--concurrency", SEATS, *GREEDY)
    assert {(call.status, call.output_tokens) for call in ran.calls} == {("ok", 800)}
    assert ran.grew["num_preemptions_total"] >= 1


# What this server does in its own way, and what becomes of it.


def test_tokens_without_text_are_counted_by_usage(server: Server, tmp_path: Path) -> None:
    """Under ignore_eos alone an end that is drawn is a token without text; min_tokens keeps it from being drawn."""
    sessions = [single(f"s{i}", 50, 200) for i in range(4)]
    for name, options, least, most in (("both", (), 800, 800), ("ignore", ("--body", "min_tokens=null"), 700, 799)):
        with tapped(server) as (seen, tap):
            ran = workloom(tmp_path / name, seen, sessions, "--body", "seed=1", *options)
        assert [call.output_tokens for call in ran.calls] == [200] * 4
        assert ran.grew["generation_tokens_total"] == 800
        assert least <= sum(len(exchange.text.split()) for exchange in tap.calls) <= most


def test_the_first_chunk_of_a_chat_holds_no_token(server: Server) -> None:
    ask: dict[str, Any] = {
        "model": "tiny",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
        "ignore_eos": True,
    }
    chat = events(server.post("/v1/chat/completions", messages=HELLO, **ask)[1])
    assert chat[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chat[-1]["choices"] == [] and chat[-1]["usage"]["completion_tokens"] == 3


def test_a_minimum_is_obeyed(server: Server, tmp_path: Path) -> None:
    """min_tokens without ignore_eos: no early end."""
    options = ("--body", "ignore_eos=null", "--concurrency", 4)
    ran = workloom(tmp_path, server, [single(f"s{i}", 50, 120) for i in range(8)], *options)
    assert {(call.finish, call.output_tokens) for call in ran.calls} == {("length", 120)}


def test_a_model_it_does_not_know_is_an_error(server: Server, tmp_path: Path) -> None:
    ran = workloom(tmp_path, server, agents(1, 1), model="another", fails=True)
    assert "does not list the model 'another'" in ran.said
    assert [(call.status, call.error_kind, call.http_status) for call in ran.calls] == [("error", "http_status", 404)]


def test_a_prompt_that_is_too_long_is_a_context_overflow(server: Server, tmp_path: Path) -> None:
    sessions = [single("long", 9000, 10), single("short", 100, 10)]
    ran = workloom(tmp_path / "a", server, sessions, "--concurrency", 1, "--max-context", 20_000)
    told = {call.session: (call.status, call.error_kind, call.http_status) for call in ran.calls}
    assert told == {"long": ("error", "context_overflow", 400), "short": ("ok", None, None)}
    # It says how long a context it takes, so a run that asks for no other leaves the call out.
    ran = workloom(tmp_path / "b", server, sessions, "--concurrency", 1)
    assert {call.session for call in ran.calls if call.status != "cancelled"} == {"short"}


def test_a_field_it_refuses_is_an_error_that_says_why(server: Server, tmp_path: Path) -> None:
    assert server.post("/v1/chat/completions", model="tiny", messages=HELLO, max_tokens=-5)[0] == 400
    ran = workloom(tmp_path, server, agents(1, 1), "--body", "temperature=-5", fails=True)
    (call,) = ran.calls
    assert (call.status, call.error_kind, call.http_status) == ("error", "http_status", 400)
    assert "temperature" in (call.error or "") and call.first_ns is None


def test_hanging_up_stops_the_server(server: Server, tmp_path: Path) -> None:
    ran = workloom(tmp_path, server, [single("s", 50, 7000, stop_after=20)])
    (call,) = ran.calls
    assert (call.status, call.finish) == ("ok", "hangup") and 20 <= (call.output_tokens or 0) < 40
    assert ran.grew["generation_tokens_total"] < 6000
