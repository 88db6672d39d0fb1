"""`workloom check`: what is found out about servers with the quirks of real ones, and of ones that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import checked_server as quirks
import pytest
from checked_server import Imitation, Quirks, imitating
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving import CLOSE, EVENTS, HEAD, HOLD, chunk, live, plain, serving, stream

from workloom.clock import RealClock
from workloom.drive.probe import Report, check, faults, wire
from workloom.drive.probe.answer import read
from workloom.drive.probe.findings import one_line
from workloom.drive.probe.wire import Reply
from workloom.drive.targets import HttpOptions
from workloom.engine.profile import load
from workloom.errors import BackendError, UsageError
from workloom.serve import serve


def asking(url: str, **how: Any) -> HttpOptions:
    return HttpOptions(**{"urls": (url,), "model": "", "salt": 1, **how})


def checked(quirks: Quirks, timeout_s: float = 5.0, **how: Any) -> tuple[Report, Imitation]:
    """What is found out about an imitation, and that no probe stumbled."""

    async def main(clock: RealClock) -> tuple[Report, Imitation]:
        async with imitating(quirks) as server:
            report = await check(asking(server.url, **how), clock, timeout_s)
            return report, server

    report, server = live(main)
    assert not [finding for finding in report.findings if "stumbled" in finding.evidence]
    assert all(finding.evidence.isprintable() and finding.evidence for finding in report.findings)
    names = [finding.name for finding in report.findings]
    assert len(names) == len(set(names))
    return report, server


def verdicts(report: Report, *names: str) -> list[str]:
    return [report.finding(name).verdict for name in names]


def test_a_server_like_vllm() -> None:
    report, server = checked(quirks.VLLM)
    assert report.drivable and report.reason is None
    assert (report.family, report.model, report.models, report.max_model_len) == ("vLLM", "tiny", ["tiny"], 2048)
    assert verdicts(report, "chat", "completions", "responses", "messages") == ["yes", "yes", "no", "no"]
    assert "status 404" in report.finding("responses").evidence
    assert verdicts(report, "ignore_eos", "min_tokens", "exact_length") == ["yes", "yes", "yes"]
    assert "without it 5 tokens" in report.finding("ignore_eos").evidence
    assert "multiples of 32" in report.finding("cached_tokens").evidence
    assert report.finding("chunk_per_token").verdict == "no"
    assert "125 chunks with text" in report.finding("chunk_per_token").evidence
    assert "without text: 3" in report.finding("chunk_per_token").evidence
    assert "5 ids of the answer" in report.finding("return_token_ids").evidence
    assert "only with tool_choice none" in report.finding("tools_array").evidence
    assert report.finding("usage").evidence.startswith("in a chunk without choices")
    assert verdicts(report, "tokenize", "reset_cache", "drop_stops", "wrong_model") == ["yes"] * 4
    assert report.finding("too_long_prompt").evidence.startswith("status 400: a prompt of")
    assert server.resets == 0
    assert report.options == [f"--url {server.url}", "--output exact", "--max-context 2048"]
    assert "`--tools` needs `--body 'tool_choice=\"none\"'` here." in report.advice


def test_a_server_like_vllm_that_does_not_tell_cached_tokens() -> None:
    report, _ = checked(quirks.VLLM_PLAIN)
    assert report.finding("cached_tokens").verdict == "no"
    assert "by its metrics 655 were hit" in report.finding("cached_tokens").evidence
    assert any("--enable-prompt-tokens-details" in sentence for sentence in report.advice)


def test_a_server_like_llama_cpp() -> None:
    report, _ = checked(quirks.LLAMA_CPP)
    assert report.family == "llama.cpp"
    assert "n_ctx" in report.finding("max_model_len").evidence
    assert verdicts(report, "chat", "completions", "responses", "messages") == ["yes"] * 4
    assert verdicts(report, "ignore_eos", "min_tokens", "exact_length") == ["yes", "ignored", "yes"]
    assert "5 of 128 tokens came (finish reason stop)" in report.finding("min_tokens").evidence
    assert "all but the last token" in report.finding("cached_tokens").evidence
    assert verdicts(report, "wrong_model", "tools_array", "tool_message") == ["ignored", "ignored", "yes"]
    assert verdicts(report, "reset_cache", "role_chunk_first", "return_token_ids", "keep_alive") == [
        "no",
        "yes",
        "ignored",
        "no",
    ]
    assert "--slot-save-path" in report.finding("reset_cache").evidence


def test_a_server_like_sglang() -> None:
    report, _ = checked(quirks.SGLANG)
    assert report.family == "SGLang"
    assert verdicts(report, "return_token_ids", "reasoning", "wrong_model", "reset_cache") == [
        "no",
        "yes",
        "ignored",
        "yes",
    ]
    assert "return_token_ids is not supported" in report.finding("return_token_ids").evidence
    assert any("--enable-cache-report" in sentence for sentence in report.advice)


def test_a_server_like_dynamo_says_an_error_inside_the_stream() -> None:
    report, _ = checked(quirks.DYNAMO)
    assert report.finding("too_long_prompt").verdict == "yes"
    assert "inside the stream" in report.finding("too_long_prompt").evidence
    assert report.finding("wrong_model").evidence.endswith("the model 'no-such-model-at-all' does not exist")
    assert "in every chunk" in report.finding("usage").evidence


def test_a_server_like_transformers_refuses_fields_and_lists_nothing() -> None:
    report, _ = checked(quirks.TRANSFORMERS)
    assert not report.drivable and report.hint == "the server lists no model: name it with --model"
    report, _ = checked(quirks.TRANSFORMERS, model="tiny")
    assert report.drivable
    assert verdicts(report, "models", "ignore_eos", "min_tokens", "unknown_field") == ["no"] * 4
    assert verdicts(report, "end_mark", "metrics", "health", "exact_length") == ["no"] * 4
    assert "status 422" in report.finding("ignore_eos").evidence
    assert "last chunk" in report.finding("usage").evidence
    assert report.options[1:] == ["--model tiny", "--output cap"]
    assert any("--output cap" in sentence for sentence in report.advice)


def test_a_server_like_anthropic() -> None:
    report, server = checked(quirks.ANTHROPIC, api_key="sk-secret")
    assert report.drivable
    assert verdicts(report, "messages", "chat", "usage", "end_mark", "cached_tokens") == ["yes", "no"] + ["yes"] * 3
    assert report.finding("cached_tokens").evidence.startswith("cache_read_input_tokens")
    assert "--endpoint messages" in report.options and "--output cap" in report.options
    assert "sk-secret" not in str(report)
    assert all("stream_options" not in body for body in server.bodies)


def test_without_its_key_no_endpoint_streams() -> None:
    report, _ = checked(quirks.ANTHROPIC)
    assert not report.drivable and report.reason == "no endpoint streams an answer" and not report.options
    assert "status 401: x-api-key is missing" in report.finding("messages").evidence


def test_a_secret_that_the_server_says_back_is_not_shown() -> None:
    report, _ = checked(Quirks(), headers={"X-Team": "sk-secret"}, model="sk-secret")
    assert "sk-secret" not in str(report.findings) and "the model '***' does not exist" in str(report.findings)


@pytest.mark.parametrize("name", ["ignore_eos", "min_tokens"])
def test_one_refused_field_is_left_out_of_exact_runs(name: str) -> None:
    how = {"ignore_eos": "obeyed", "min_tokens": "obeyed", name: "refused"}
    report, _ = checked(replace(quirks.TRANSFORMERS, models_status=200, **how))
    assert report.finding(name).verdict == "no"
    assert report.finding("exact_length").verdict == "yes"
    assert f"--body {name}=null" in report.options and "--output exact" in report.options


def test_fields_that_do_nothing_make_no_exact_lengths() -> None:
    report, _ = checked(Quirks(ignore_eos="ignored", min_tokens="ignored"))
    assert verdicts(report, "ignore_eos", "min_tokens", "exact_length") == ["ignored", "ignored", "no"]
    assert "--output cap" in report.options


def test_the_new_name_of_the_limit_is_found() -> None:
    report, server = checked(Quirks(new_limit=True, apis=("chat",)))
    assert report.drivable
    assert "--limit-field max_completion_tokens" in report.options
    assert "max_tokens" in server.bodies[0] and "max_completion_tokens" in server.bodies[-1]


def test_words_that_are_more_than_a_token() -> None:
    report, _ = checked(Quirks(word_tokens=2))
    assert report.finding("word_is_token").verdict == "no"
    assert ": 2 a word" in report.finding("word_is_token").evidence
    assert report.finding("template").evidence.startswith("8 tokens beyond the words")
    assert any("tokenizer" in sentence for sentence in report.advice)


def test_several_tokens_in_a_chunk() -> None:
    report, _ = checked(Quirks(tokens_per_chunk=4))
    assert report.finding("chunk_per_token").evidence.startswith("32 chunks with text in")


def test_no_usage_at_all() -> None:
    report, _ = checked(Quirks(usage=None))
    assert report.drivable
    assert verdicts(report, "usage", "chunk_per_token", "word_is_token", "cached_tokens") == ["no"] + ["unknown"] * 3
    assert report.finding("exact_length").verdict == "yes"


def test_a_server_that_does_not_stream_cannot_be_driven() -> None:
    report, _ = checked(Quirks(stream=False))
    assert not report.drivable
    assert "in one piece" in report.finding("chat").evidence


def test_cached_tokens_that_stay_zero_and_ones_that_only_timings_tell() -> None:
    report, _ = checked(Quirks(cached="zero"))
    assert "stays 0" in report.finding("cached_tokens").evidence
    report, _ = checked(Quirks(cached="timings"))
    assert report.finding("cached_tokens").verdict == "no" and "timings" in report.finding("cached_tokens").evidence


def test_connections_that_are_closed_after_each_answer() -> None:
    report, _ = checked(Quirks(keep_alive=False))
    assert report.finding("keep_alive").verdict == "no"
    assert checked(Quirks())[0].finding("keep_alive").verdict == "yes"


def test_a_server_that_goes_on_generating_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_SETTLE_S", 0.5)
    report, _ = checked(replace(quirks.VLLM, stops=False, context=32_768))
    assert report.finding("drop_stops").verdict == "no"
    assert any("given up" in sentence for sentence in report.advice)


def test_a_prompt_that_kills_the_server_and_one_that_hangs_it() -> None:
    report, _ = checked(Quirks(too_long="dies"))
    assert "does not answer" in report.finding("too_long_prompt").evidence
    assert any("restart it" in sentence for sentence in report.advice)
    report, _ = checked(Quirks(too_long="hangs"), timeout_s=0.5)
    assert report.finding("too_long_prompt").verdict == "unknown"
    assert "no end of the answer within 0.5 s" in report.finding("too_long_prompt").evidence


def test_paths_that_hang_leave_the_other_findings_alone() -> None:
    report, _ = checked(replace(quirks.LLAMA_CPP, hangs=("/metrics", "/v1/completions", "/tokenize")), timeout_s=0.3)
    for name in ("metrics", "completions", "tokenize"):
        assert report.finding(name).verdict == "unknown"
        assert "no end of the answer within 0.3 s" in report.finding(name).evidence
    names = ("chat", "responses", "ignore_eos", "cached_tokens", "tool_message", "too_long_prompt")
    assert verdicts(report, *names) == ["yes"] * 6


def test_of_several_models_the_first_is_asked_for_unless_one_is_named() -> None:
    listed = plain(b'{"data": [{"id": "first"}, {"id": "second"}]}')
    assert scripted([listed]).model == "first"
    assert scripted([listed], model="second").model == "second"
    report = scripted([listed], model="third")
    assert report.model == "third" and report.finding("models").verdict == "no"


def test_a_long_context_is_not_overfilled() -> None:
    report, server = checked(Quirks(context=131_072))
    assert "not tried" in report.finding("too_long_prompt").evidence
    assert max(len(str(body)) for body in server.bodies) < 20_000


def test_extra_body_fields_go_with_every_call() -> None:
    _, server = checked(Quirks(), body={"chat_template_kwargs": {"enable_thinking": False}})
    assert all("chat_template_kwargs" in body for body in server.bodies)


def test_our_own_server() -> None:
    async def main(clock: RealClock) -> Report:
        server = await serve(load("llama-3.1-8b-h200x1"), port=0, model="tiny")
        try:
            return await check(asking(server.url), clock)
        finally:
            await server.close()

    report = live(main)
    assert report.drivable and report.family == "workloom serve"
    assert verdicts(report, "word_is_token", "prompt_token_ids", "usage", "cached_tokens", "drop_stops") == ["yes"] * 5
    assert verdicts(report, "ignore_eos", "min_tokens", "exact_length") == ["unknown", "unknown", "yes"]
    assert "multiples of 16" in report.finding("cached_tokens").evidence


# --- servers that are none


def scripted(*script: list[bytes | str], timeout_s: float = 1.0, **how: Any) -> Report:
    async def main(clock: RealClock) -> Report:
        async with serving(*script) as server:
            return await check(asking(f"http://127.0.0.1:{server.port}/v1", **how), clock, timeout_s)

    report: Report = live(main)
    assert not [finding for finding in report.findings if "stumbled" in finding.evidence]
    return report


@pytest.mark.parametrize(
    "script",
    [
        [plain(b"<html>hello</html>")],
        [plain(b"", "500 Internal Server Error")],
        [plain(b'{"data": [{"id": 7}]}')],
        [plain(b'{"data": [{"id": "m"}], "tokens": 3}')],
        [stream(b"data: {nonsense\n\n")],
        [stream(b'data: {"choices": 7}\n\n')],
        [stream(b": nothing\n\n")],
        [stream()],
        [stream(b'data: {"error": null, "choices": []}\n\n', b"data: [DONE]\n\n")],
        [plain(b"[]"), CLOSE],
        [plain(b"\xff\xfe\x00")],
        [plain(b"[" * 100_000)],
        [stream(b'data: {"error": ' + b"[" * 100_000 + b"\n\n")],
        [plain(b'{"error": {"message": "\\u001b[2J no"}}', "403 Forbidden")],
    ],
)
def test_nonsense_is_told_and_never_drivable(script: list[bytes | str]) -> None:
    report = scripted(script)
    assert not report.drivable and report.reason
    assert all(finding.evidence.isprintable() for finding in report.findings)
    assert report.finding("chat").verdict in ("no", "unknown")


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_a_server_of_web_pages_is_no_api_and_gets_no_advice(status: str) -> None:
    report = scripted([plain(b"<!DOCTYPE html><p>hello", status)])
    assert report.reason is not None and "no API" in report.reason and "HTML" in report.reason
    assert report.advice == [] and "model" not in f"{report.reason} {report.hint}"


def test_a_body_that_stays_open_after_the_last_event_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_GRACE_S", 0.05)
    report = scripted([HEAD + b"".join(map(chunk, EVENTS)), HOLD], timeout_s=3.0)
    assert report.drivable and verdicts(report, "chat", "end_mark", "keep_alive") == ["yes", "yes", "no"]
    assert "stays open" in report.finding("keep_alive").evidence
    assert "within 3 s" not in " ".join(finding.evidence for finding in report.findings)


def test_a_server_that_never_answers_is_given_up_at_once() -> None:
    with pytest.raises(BackendError, match="takes connections and gives no HTTP answer"):
        scripted([HOLD], timeout_s=0.3)


def test_no_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def main(clock: RealClock) -> Report:
            return await check(asking(f"http://127.0.0.1:{port}/v1"), clock)

        with pytest.raises(BackendError, match="cannot connect") as caught:
            live(main)
        assert caught.value.kind == "connect"


def test_a_url_without_v1_is_completed() -> None:
    async def main(clock: RealClock) -> tuple[Report, str]:
        async with imitating(Quirks()) as server:
            report = await check(asking(server.url.removesuffix("/v1")), clock)
            return report, server.url

    report, url = live(main)
    assert report.drivable and report.options[0] == f"--url {url}"


# --- leaves


def test_an_event_cut_at_every_byte_is_one_event() -> None:
    body = b'data: {"choices":[{"delta":{"content":"hi"}}]}\r\n\r\ndata: {"choices":[],"usage":{"prompt_tokens":3}}\n\n'
    reads = [(at, body[at : at + 1]) for at in range(len(body))]
    answer = read(Reply(200, reads, "complete"))
    assert answer.ok and answer.text == "hi" and answer.prompt_tokens == 3
    assert answer.chunks_ns == [body.index(b"\r\n\r\n") + 3]


NAMES = (
    *("type", "choices", "delta", "message", "error", "usage", "text", "content", "role", "finish_reason"),
    *("tool_calls", "function", "response", "prompt_tokens", "prompt_tokens_details", "cached_tokens"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=4), st.booleans(), st.sampled_from([200, 400, 500]))
def test_whatever_json_comes_is_an_answer_or_a_fault_that_is_told(said: list[Any], streamed: bool, status: int) -> None:
    before, after = ("data: ", "\n\n") if streamed else ("", "")
    body = "".join(before + json.dumps(event) + after for event in said).encode()
    answer = read(Reply(status, [(1, body)], "complete"))
    assert answer.ok == (answer.error is None)
    assert not answer.ok or answer.said_something


def test_evidence_is_one_printable_line() -> None:
    assert one_line("a\n b\x1b[2J") == "a b\ufffd[2J"
    assert len(one_line("word " * 200)) == 200


# --- the command


def command(monkeypatch: pytest.MonkeyPatch, url: Callable[[Imitation], str], *argv: str, **how: Any) -> int:
    """Run `workloom check` against an imitation; its exit code."""
    from workloom.cli.check import check as go
    from workloom.errors import WorkloomError

    async def main(clock: RealClock) -> int:
        async with imitating(how.pop("quirks", quirks.VLLM)) as server:
            try:
                await asyncio.to_thread(
                    go, url(server), None, 5.0, "NO_KEY", [], [], False, None, "env", "--json" in argv
                )
            except WorkloomError as fault:
                print(fault, file=sys.stderr)
                return 2 if isinstance(fault, UsageError) else 1
            return 0

    return int(live(main))


def test_the_command_prints_a_table_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, lambda server: server.url) == 0
    shown = capsys.readouterr().out
    assert "What it means" in shown and "workloom run TRACE --url http://127.0.0.1:" in shown
    assert "ignore_eos" in shown and "vLLM" in shown
    assert command(monkeypatch, lambda server: server.url, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["drivable"] is True and told["max_model_len"] == 2048
    assert {finding["verdict"] for finding in told["findings"]} <= {"yes", "no", "ignored", "unknown"}


def test_the_command_ends_with_1_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, lambda server: server.url, quirks=Quirks(stream=False)) == 1
    said = capsys.readouterr()
    assert "no endpoint streams an answer" in said.err and "in one piece" in said.out.replace("\n", " ")
    assert command(monkeypatch, lambda server: "http://127.0.0.1:1/v1") == 1
    assert "cannot connect" in capsys.readouterr().err
    assert command(monkeypatch, lambda server: "nowhere") == 2
