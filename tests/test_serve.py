"""The server over loopback: what it answers, what it refuses, what it frees, what it counts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from workloom.clock import host, run_real
from workloom.engine.check import check
from workloom.engine.engine import Finished
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import load
from workloom.errors import UsageError
from workloom.serve import Server, serve
from workloom.serve.record import end, read, replay, tokens_ns
from workloom.serve.wire import Form, Stream

PROFILE = replace(load("llama-3.1-8b-h200x1"), max_model_len=4096, kv_tokens=8192)
MODEL = "tiny"


class Client:
    """A server and somebody who asks it."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.http.post(self.server.url + path, json=body) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def stream(self, path: str, **body: Any) -> list[Any]:
        """The events of a stream, the last of which is [DONE]."""
        async with self.http.post(self.server.url + path, json={**body, "stream": True}) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            lines = (await response.text()).split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    async def metrics(self) -> dict[str, float]:
        """Samples without labels but the reason of an end, `le` left out."""
        async with self.http.get(self.server.url.removesuffix("/v1") + "/metrics") as response:
            text = await response.text()
        return {
            sample.name + sample.labels.get("finished_reason", ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if "le" not in sample.labels
        }

    async def metrics_when_running(self, calls: int) -> dict[str, float]:
        while True:
            seen = await self.metrics()
            if seen["vllm:num_requests_running"] == calls:
                return seen
            await asyncio.sleep(0.01)


def served(story: Callable[[Client], Awaitable[None]], record: Path | None = None, prefix_cache: bool = True) -> None:
    """Tell a story to a server of its own."""

    async def main(_: object) -> None:
        server = await serve(PROFILE, port=0, model=MODEL, record=record, prefix_cache=prefix_cache)
        try:
            async with aiohttp.ClientSession() as http:
                async with asyncio.timeout(20):
                    await story(Client(server, http))
        finally:
            await server.close()
        check(server.pump.engine)
        assert not server.pump.calls

    run_real(main)


def say(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


def test_a_chat_and_its_next_turn() -> None:
    async def story(client: Client) -> None:
        asked = [say("you are an agent", "system"), say("word " * 96)]
        status, first = await client.post("/chat/completions", model=MODEL, messages=asked, max_tokens=40)
        assert status == 200
        choice = first["choices"][0]
        assert choice["finish_reason"] == "length" and len(choice["message"]["content"].split()) == 40
        assert first["usage"] == {
            "prompt_tokens": 100,
            "completion_tokens": 40,
            "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        asked += [choice["message"], say("and\nthen what")]
        _, second = await client.post("/chat/completions", messages=asked, max_completion_tokens=2)
        usage = second["usage"]
        assert usage["prompt_tokens"] == 143
        assert usage["prompt_tokens_details"]["cached_tokens"] == (100 + 40 - 1) // 16 * 16

    served(story)


def test_a_chat_stream_is_a_role_then_a_chunk_for_every_token_then_reason_and_usage() -> None:
    async def story(client: Client) -> None:
        events = await client.stream(
            "/chat/completions",
            messages=[say("hello there")],
            max_tokens=7,
            min_tokens=7,
            ignore_eos=True,
            stream_options={"include_usage": True},
        )
        assert {event["object"] for event in events} == {"chat.completion.chunk"}
        assert len({event["id"] for event in events}) == 1
        choices = [event["choices"][0] for event in events[:-1]]
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        said = [choice["delta"]["content"] for choice in choices[1:-1]]
        assert len(said) == 7 and len("".join(said).split()) == 7
        assert choices[-1]["delta"] == {} and choices[-1]["finish_reason"] == "length"
        assert all(choice["finish_reason"] is None for choice in choices[:-1])
        assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 7

    served(story)


def test_plain_completions_of_text_and_of_token_numbers() -> None:
    async def story(client: Client) -> None:
        events = await client.stream("/completions", prompt="one two three", max_tokens=4)
        assert len(events) == 5 and "usage" not in events[-1]
        assert len("".join(event["choices"][0]["text"] for event in events).split()) == 4
        _, default = await client.post("/completions", prompt=["one two three"])
        assert default["usage"]["completion_tokens"] == 16
        numbers = list(range(100, 164))
        await client.post("/completions", prompt=numbers, max_tokens=1)
        _, again = await client.post("/completions", prompt=[[*numbers, 7]], max_tokens=1)
        assert again["usage"]["prompt_tokens"] == 65
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 64
        _, as_text = await client.post("/completions", prompt=" ".join(map(str, numbers)), max_tokens=1)
        assert as_text["usage"]["prompt_tokens_details"]["cached_tokens"] == 0

    served(story)


def test_without_a_prefix_cache_nothing_is_cached() -> None:
    async def story(client: Client) -> None:
        for _ in range(2):
            _, answer = await client.post("/completions", prompt="word " * 64, max_tokens=1)
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0

    served(story, prefix_cache=False)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/chat/completions", {}, 400, "messages"),
        ("/chat/completions", {"messages": []}, 400, "messages"),
        ("/chat/completions", {"messages": [say("")]}, 400, "at least one token"),
        ("/chat/completions", {"messages": [say("a")], "n": 2}, 400, "n must be 1"),
        ("/chat/completions", {"messages": [say("a")], "max_tokens": 0}, 400, "max_tokens"),
        ("/chat/completions", {"messages": [say("a")], "max_tokens": "many"}, 400, "max_tokens"),
        ("/chat/completions", {"messages": [say("a")], "model": "other"}, 404, "other"),
        ("/chat/completions", {"messages": [say("a")], "max_tokens": 4096}, 400, "4096"),
        ("/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "image_url"),
        ("/completions", {"max_tokens": 3}, 400, "prompt"),
        ("/completions", {"prompt": ["a", "b"]}, 400, "one prompt"),
        ("/completions", {"prompt": "word " * 5000}, 400, "maximum context length is 4096"),
        ("/embeddings", {"input": "a"}, 404, "/v1/embeddings"),
    ],
)
def test_what_is_wrong_is_refused_with_a_message(path: str, body: dict[str, Any], status: int, said: str) -> None:
    async def story(client: Client) -> None:
        got, answer = await client.post(path, **body)
        assert got == status and answer["error"]["code"] == status
        assert said in answer["error"]["message"]
        for streamed in ({"stream": True}, {}):
            assert (await client.post(path, **{**body, **streamed}))[0] == status

    served(story)


def test_a_body_that_is_no_json_is_refused() -> None:
    async def story(client: Client) -> None:
        for body in (b"{", b"", b"\xff", b"[1]", b'{"messages":'):
            async with client.http.post(client.server.url + "/chat/completions", data=body) as response:
                assert response.status == 400
                assert "not a request" in (await response.json())["error"]["message"]

    served(story)


def test_what_it_says_of_itself() -> None:
    async def story(client: Client) -> None:
        async with client.http.get(client.server.url + "/models") as response:
            (entry,) = (await response.json())["data"]
        assert (entry["id"], entry["max_model_len"]) == (MODEL, 4096)
        async with client.http.get(client.server.url.removesuffix("/v1") + "/health") as response:
            assert response.status == 200

    served(story)


def test_metrics_have_vllms_names_and_add_up() -> None:
    async def story(client: Client) -> None:
        text = "word " * 100
        await asyncio.gather(*(client.stream("/completions", prompt=text, max_tokens=5) for _ in range(3)))
        await client.post("/completions", prompt=text, max_tokens=1)
        seen = await client.metrics()
        assert seen["vllm:prompt_tokens_total"] == seen["vllm:prefix_cache_queries_total"] == 400
        assert seen["vllm:prefix_cache_hits_total"] >= 96
        assert seen["vllm:generation_tokens_total"] == 16
        assert seen["vllm:request_success_totallength"] == 4 and seen["vllm:request_success_totalabort"] == 0
        for name, count in (
            ("time_to_first_token_seconds", 4),
            ("e2e_request_latency_seconds", 4),
            ("request_queue_time_seconds", 4),
            ("inter_token_latency_seconds", 12),
            ("request_time_per_output_token_seconds", 3),
        ):
            assert seen[f"vllm:{name}_count"] == count
        e2e, ttft = (seen[f"vllm:{n}_sum"] for n in ("e2e_request_latency_seconds", "time_to_first_token_seconds"))
        assert e2e == pytest.approx(ttft + seen["vllm:inter_token_latency_seconds_sum"])
        assert 0 < ttft < e2e < 3
        assert seen["vllm:num_requests_running"] == seen["vllm:num_requests_waiting"] == 0
        assert seen["vllm:kv_cache_usage_perc"] == 0 and seen["vllm:cache_config_info"] == 1

    served(story)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_goes_away_frees_its_kv(streamed: bool) -> None:
    async def story(client: Client) -> None:
        body = {"prompt": "word " * 1000, "max_tokens": 3000, "stream": streamed}
        asking = asyncio.ensure_future(client.http.post(client.server.url + "/completions", json=body))
        busy = await client.metrics_when_running(1)
        assert busy["vllm:kv_cache_usage_perc"] > 0.1
        if streamed:
            (await asking).close()
        else:
            asking.cancel()
        idle = await client.metrics_when_running(0)
        assert idle["vllm:kv_cache_usage_perc"] == 0
        assert idle["vllm:request_success_totalabort"] == 1
        assert idle["vllm:generation_tokens_total"] < 2000

    served(story)


def test_the_record_replays_to_the_same_schedule(tmp_path: Path) -> None:
    record = tmp_path / "served.jsonl"

    async def story(client: Client) -> None:
        async def one(i: int) -> None:
            await asyncio.sleep(0.003 * (i % 7))
            if i % 5 == 4:  # this one does not wait for its answer
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await client.stream("/completions", prompt=f"shared words {i} " * 60, max_tokens=900)
            else:
                await client.stream("/completions", prompt="shared words " * 40 + f"{i} " * 100, max_tokens=5 + i)

        await asyncio.gather(*(one(i) for i in range(20)))

    served(story, record)
    head, rows = read(record)
    assert sorted(row.finish for row in rows) == ["abort"] * 4 + ["length"] * 16
    again = replay(head, rows)
    assert [end(finished) for finished in again] == [row.end for row in rows]
    for row, finished in zip(rows, again, strict=True):
        made = list(tokens_ns(finished))[: len(row.written_ns)]
        assert row.finish == "abort" or len(row.written_ns) == row.output_tokens
        assert all(at <= written for at, written in zip(made, row.written_ns, strict=True)), "never early"


def test_calls_in_flight_when_the_server_ends_are_in_the_record(tmp_path: Path) -> None:
    record = tmp_path / "served.jsonl"

    async def story(client: Client) -> None:
        body = {"prompt": "word " * 100, "max_tokens": 3000, "stream": True}
        await client.http.post(client.server.url + "/completions", json=body)

    served(story, record)
    head, rows = read(record)
    assert [row.finish for row in rows] == ["abort"]
    assert [end(finished) for finished in replay(head, rows)] == [rows[0].end]


def test_a_port_in_use_and_a_record_that_exists_are_refused(tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        record = tmp_path / "record"
        with pytest.raises(UsageError, match="in use") as refused:
            await serve(PROFILE, port=client.server.port, record=record)
        assert refused.value.hint and not record.exists()
        there = tmp_path / "there"
        there.write_text("")
        with pytest.raises(UsageError, match="exists"):
            await serve(PROFILE, port=0, record=there)
        with pytest.raises(UsageError, match="cannot listen"):
            await serve(PROFILE, host="256.0.0.1", port=0)

    served(story)


@pytest.mark.parametrize(("unsent_bytes", "left"), [(0, False), (100_000, True)])
def test_the_end_of_a_stream_waits_only_for_a_client_that_reads_too_slowly(unsent_bytes: int, left: bool) -> None:
    written: list[bytes] = []

    class Response:
        async def write(self, data: bytes) -> None:
            written.append(data)

        async def write_eof(self, data: bytes) -> None:
            written.append(data)

    transport = SimpleNamespace(get_write_buffer_size=lambda: unsent_bytes)
    form = Form(True, "name", MODEL, 0, ["one", "two"], 5)
    stream = Stream(SimpleNamespace(transport=transport), Response(), form, usage=False)  # type: ignore[arg-type]
    stream.tokens(1)
    stream.tokens(2)
    assert [b'"one"' in written[0], b'" two"' in written[1]] == [True, True]
    stream.end(Finished("name", "done", 9, 2, 0, 0, [], 0, 1))
    assert (b"[DONE]" in stream.rest, len(written)) == (left, 2 if left else 3)
    assert b"".join([*written, stream.rest]).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_as_a_program_it_says_where_it_is_and_ends_when_told(ended_by: signal.Signals) -> None:
    program = (
        "from workloom.engine.profile import load; from workloom.serve import run_server;"
        "run_server(load('llama-3.1-8b-h200x1'), port=0, model='m')"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        assert "http://127.0.0.1:" in line and "/v1" in line
        os.kill(running.pid, ended_by)
        started = host.monotonic()
        assert running.wait(10) == 0
        assert host.monotonic() - started < 5
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def test_two_replicas_are_two_engines_on_the_page_and_sessions_stay_with_theirs(tmp_path: Path) -> None:
    record = tmp_path / "served.jsonl"
    fleet = Fleet((Pool(PROFILE, 2),), "session")

    async def main(_: object) -> None:
        server = await serve(fleet, port=0, model=MODEL, record=record)
        try:
            async with aiohttp.ClientSession() as http:
                for turn in range(2):
                    for session in ("x", "y", "z"):
                        body = {"messages": [say(f"{session} says {turn} and more")], "max_tokens": 60}
                        headers = {"X-Session-Id": session}
                        url = server.url + "/chat/completions"
                        async with http.post(url, json=body, headers=headers) as response:
                            assert response.status == 200
                            await response.read()
                async with http.get(server.url.removesuffix("/v1") + "/metrics") as response:
                    text = await response.text()
        finally:
            await server.close()
        generated = {
            sample.labels["engine"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "vllm:generation_tokens_total"
        }
        assert set(generated) == {"0", "1"} and sum(generated.values()) == 6 * 60

    run_real(main)
    head, rows = read(record)
    assert head.fleet == fleet
    assert [row.end for row in rows] == [end(finished) for finished in replay(head, rows)]
    homes = {
        row.hints.session: {other.replica for other in rows if other.hints.session == row.hints.session} for row in rows
    }
    assert {len(home) for home in homes.values()} == {1}


def test_a_fleet_answers_to_the_names_of_its_models() -> None:
    fleet = Fleet((Pool(PROFILE, models=("small",)), Pool(replace(PROFILE, max_model_len=2048), models=("large",))))

    async def main(_: object) -> None:
        server = await serve(fleet, port=0)
        try:
            async with aiohttp.ClientSession() as http:
                async with http.get(server.url + "/models") as response:
                    listed = (await response.json())["data"]
                assert [(each["id"], each["max_model_len"]) for each in listed] == [("small", 4096), ("large", 2048)]
                client = Client(server, http)
                status, answer = await client.post("/completions", model="large", prompt="a b c", max_tokens=2)
                assert (status, answer["model"]) == (200, "large")
                status, answer = await client.post("/completions", model="huge", prompt="a b c", max_tokens=2)
                assert status == 404 and "small, large" in answer["error"]["message"]
                async with http.get(server.url.removesuffix("/v1") + "/metrics") as response:
                    text = await response.text()
                assert 'vllm:generation_tokens_total{engine="1",model_name="large"} 2.0' in text
                assert 'vllm:generation_tokens_total{engine="0",model_name="small"} 0.0' in text
        finally:
            await server.close()
        assert [replica.engine.gauges()[""].generated_tokens for replica in server.pump.engine.replicas] == [0, 2]  # type: ignore[attr-defined]

    run_real(main)
    with pytest.raises(UsageError, match="have names"):
        run_real(lambda clock: serve(fleet, port=0, model="other"))
