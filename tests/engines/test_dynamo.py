"""workloom against Dynamo's frontend and mocker: real HTTP and routing before a simulated vLLM.

The mocker says random tokens, which come back as other tokens when they stand in the next prompt.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import servers
from engines.checks import OPENING, TEMPLATE, Compared, Pairs, against_wire, agree, check_says, hits_its_own_past_only
from engines.runs import agents, single, watching, workloom
from engines.servers import Server, events
from engines.wiretap import tapped

BLOCK = 16
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "dynamo_twin.py"
HELLO = [{"role": "user", "content": "the word is able"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.dynamo() as server:
        yield server


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_counts_are_the_servers_to_the_token(server: Server, tmp_path: Path, endpoint: str) -> None:
    ran = workloom(tmp_path, server, agents(4), "--concurrency", 2, "--endpoint", endpoint)
    assert {(call.status, call.output_tokens) for call in ran.calls} == {("ok", 20)}
    beyond = 2 * TEMPLATE + OPENING if endpoint == "chat" else 0
    assert {(calls[0].prompt_tokens or 0) - calls[0].sent_prompt_tokens for calls in ran.turns} == {beyond}
    assert ran.grew["dynamo_frontend_output_tokens_total"] == 12 * 20
    assert ran.grew["dynamo_frontend_input_sequence_tokens_sum"] == sum(call.prompt_tokens or 0 for call in ran.calls)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_session_hits_its_own_past_and_no_other(server: Server, tmp_path: Path, endpoint: str) -> None:
    options = ("--concurrency", 2, "--sessions", 6, "--endpoint", endpoint)
    ran = workloom(tmp_path, server, agents(2), *options)
    assert len(ran.turns) == 6
    hits_its_own_past_only(ran, endpoint, BLOCK, answers=False)
    assert ran.grew["dynamo_frontend_cached_tokens_sum"] == sum(call.cached_tokens or 0 for call in ran.calls)


def test_two_workers_keep_a_session_where_its_past_is(tmp_path: Path) -> None:
    """Its router sends a call to the worker that holds its prefix, once it has heard of that."""
    with servers.dynamo("--num-workers", "2") as server:
        ran = workloom(tmp_path, server, agents(6, fresh=200, wait_s=0.3), "--concurrency", 2)
    hits_its_own_past_only(ran, "chat", BLOCK, answers=False)


def test_times_agree_with_the_servers_own(server: Server, tmp_path: Path) -> None:
    """Every call beside the wire's; means beside its histograms' sums and counts.

    4 calls at once, long enough that 5 % is something.
    """
    sessions = [single(f"s{i}", 4000 + i, 100) for i in range(12)]

    def measure(attempt: str) -> dict[str, Compared]:
        with tapped(server) as (seen, tap):
            ran = workloom(tmp_path / attempt, seen, sessions, "--concurrency", 4)
        front = "dynamo_frontend_"
        assert ran.grew[front + "time_to_first_token_seconds_count"] == len(ran.calls) == 12

        def theirs(name: str) -> float:
            return 1e3 * ran.grew[f"{front}{name}_seconds_sum"] / ran.grew[f"{front}{name}_seconds_count"]

        calls = sorted(ran.calls, key=lambda call: call.sent_ns or 0)
        ttft, decoding = against_wire(calls, tap.calls)
        whole = [
            (((call.done_ns or 0) - (call.sent_ns or 0)) / 1e6, (exchange.came[-1][1] - exchange.asked_ns) / 1e6)
            for call, exchange in zip(calls, tap.calls, strict=True)
        ]
        return {
            "TTFT": Compared(ttft, [(_mean(ttft), theirs("time_to_first_token"))]),
            "inter-token time": Compared(decoding, [(_mean(decoding) / 99, theirs("inter_token_latency"))]),
            "whole call": Compared(whole, [(_mean(whole), theirs("request_duration"))]),
        }

    agree(measure)


def _mean(pairs: Pairs) -> float:
    """Of ours."""
    return sum(ours for ours, _ in pairs) / len(pairs)


def test_check_tells_what_it_does(server: Server) -> None:
    check_says(
        server,
        {
            "metrics": "yes",
            "chat": "yes",
            "completions": "yes",
            "responses": "yes",
            "messages": "no",
            "usage": "yes",
            "cached_tokens": "yes",
            "exact_length": "yes",
            "wrong_model": "yes",
            "role_chunk_first": "no",
            "keep_alive": "yes",
            "word_is_token": "yes",
            "tokenize": "no",
        },
    )


def test_queueing_is_seen(server: Server, tmp_path: Path) -> None:
    """Three times as many sessions as there are seats (16)."""
    sessions = [single(f"s{i}", 200 + i, 40) for i in range(48)]
    with watching(server) as highest:
        ran = workloom(tmp_path, server, sessions, "--concurrency", 48)
    ttft = sorted((call.first_ns or 0) - (call.sent_ns or 0) for call in ran.calls)
    assert {call.status for call in ran.calls} == {"ok"}
    assert ttft[40] > 2 * ttft[8]
    assert highest["dynamo_frontend_active_requests"] > 16


# What this server does in its own way, and what becomes of it.


def test_an_error_inside_a_stream_of_status_200_is_an_error(server: Server, tmp_path: Path) -> None:
    """A prompt beyond its whole KV cache (65,536 tokens): 200, and the stream holds nothing but an error."""
    status, body = server.post(
        "/v1/chat/completions",
        model="tiny",
        stream=True,
        max_tokens=5,
        messages=[{"role": "user", "content": "the word is able " * 20_000}],
    )
    assert status == 200 and "error" in events(body)[0]
    sessions = [single("long", 70_000, 10), single("short", 100, 10)]
    ran = workloom(tmp_path, server, sessions, "--concurrency", 1, "--max-context", 100_000)
    told = {call.session: (call.status, call.error_kind, call.first_ns is None) for call in ran.calls}
    assert told == {"long": ("error", "http_status", True), "short": ("ok", None, False)}
    assert "Internal server error" in next(call.error or "" for call in ran.calls if call.session == "long")


def test_an_error_without_the_usual_field_says_why(server: Server, tmp_path: Path) -> None:
    """Its bodies are {"message", "type", "code"}, with no "error" around them."""
    ran = workloom(tmp_path / "a", server, agents(1, 1), "--body", "temperature=-5", fails=True)
    (call,) = ran.calls
    assert (call.status, call.error_kind, call.http_status) == ("error", "http_status", 400)
    assert "Temperature must be between" in (call.error or "")
    ran = workloom(tmp_path / "b", server, agents(1, 1), model="another", fails=True)
    assert "does not list the model 'another'" in ran.said
    assert [(call.error_kind, call.http_status) for call in ran.calls] == [("http_status", 404)]
    assert "Model not found" in (ran.calls[0].error or "")
    assert server.post("/v1/chat/completions", model="tiny", messages=HELLO, max_tokens=-5)[0] == 400


def test_our_engine_calibrated_to_the_mocker_is_near_it() -> None:
    """The short version of benchmarks/dynamo_twin.py, which says how far apart the two simulators are."""
    command = [sys.executable, BENCHMARK, "--sessions", "8", "--concurrency", "4", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    apart = dict(re.findall(r"^  (\S.*?) +[\d.]+ +[\d.]+ +([+-][\d.]+)%$", done.stdout, re.MULTILINE))
    assert len(apart) == 8, done.stdout
    for name in ("TBC p50, ms", "E2E p50, ms", "E2E p95, ms", "hit rate", "makespan, s"):
        assert abs(float(apart[name])) < 15, done.stdout
