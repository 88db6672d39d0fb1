"""The live client against servers that behave, misbehave and vanish."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving import (
    CLOSE,
    DONE,
    END,
    EVENTS,
    GOOD,
    HEAD,
    HOLD,
    USAGE,
    chunk,
    connect,
    event,
    live,
    plain,
    request,
    said,
    serving,
    stream,
    talk,
)

from workloom.clock import RealClock
from workloom.drive import http1, preflight, sse
from workloom.drive.events import OpenAIAnswer
from workloom.drive.http1 import Connection, Endpoint
from workloom.drive.sse import NEVER
from workloom.errors import BackendError, UsageError
from workloom.records import ChunkRun

KINDS = ("connect", "disconnect", "http_status", "context_overflow", "malformed", "truncated", "empty")


def fails(*scripts: list[bytes | str], **options: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        talk(*scripts, **options)
    return caught.value


# --- answers


def test_a_call_tells_all_that_the_server_said() -> None:
    result = talk([GOOD])
    outcome = result.outcome
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (9, 3, 4)
    assert (outcome.finish, outcome.answer, outcome.connection_reused) == ("length", "a b c", False)
    assert sum(run.count for run in result.chunks) == 3
    assert 0 < outcome.sent_ns < result.chunks[0].first_ns <= result.chunks[-1].last_ns <= outcome.done_ns


def test_the_request_asks_for_exactly_the_planned_output() -> None:
    result = talk([GOOD], body={"temperature": 0.5}, headers={"X-Team": "a b"}, api_key="k")
    body = json.loads(result.server.heard[0])
    assert body.pop("messages")[0]["role"] == "user"
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "max_tokens": 3,
        "min_tokens": 3,
        "temperature": 0.5,
    }
    head = result.server.heads[0]
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"X-Team: a b\r\n" in head and b"Authorization: Bearer k\r\n" in head


def test_default_body_fields_can_be_taken_away() -> None:
    loose = json.loads(talk([GOOD], output="cap").server.heard[0])
    assert loose["max_tokens"] == 3 and "min_tokens" not in loose and "ignore_eos" not in loose
    bare = json.loads(talk([GOOD], body={"min_tokens": None, "stream_options": None}).server.heard[0])
    assert "min_tokens" not in bare and "stream_options" not in bare and bare["ignore_eos"] is True


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_prompt_without_tokens_is_a_request_all_the_same(api: str) -> None:
    body = json.loads(talk([GOOD], ask=request(words=0), api=api).server.heard[0])
    assert body["prompt"] == "" if api == "completions" else body["messages"] == [{"role": "user", "content": ""}]


def test_plain_completions_are_one_text() -> None:
    text = [
        b'data: {"choices":[{"text":"%s","finish_reason":%s}]}\n\n' % pair
        for pair in ((b"a", b"null"), (b" b", b'"stop"'))
    ]
    result = talk([stream(*text, DONE)], api="completions")
    assert len(json.loads(result.server.heard[0])["prompt"].split()) == 5
    assert result.outcome.answer == "a b" and result.chunks[0].count >= 1


@pytest.mark.parametrize(
    "events",
    [
        [*said("a", " b", " c"), event({}, "stop", USAGE), DONE],
        [event({"content": None}), *said("a", " b"), event({"content": " c"}, "stop"), event(usage=USAGE), DONE],
        [*said("a", " b", " c"), event({}, "stop"), event(usage=USAGE)],
        [
            b": ping\n\n",
            b"event: message\n" + said("a b c")[0],
            b"retry: 10\n\n",
            event({}, "stop"),
            event(usage=USAGE),
            DONE,
        ],
        [e.replace(b"\n", b"\r\n") for e in EVENTS],
        [e.replace(b"data: ", b"data:") for e in EVENTS],
        [*EVENTS[:-1], DONE.strip()],
        [e.replace(b', "choices"', b',\ndata: "choices"') for e in EVENTS],
    ],
    ids=[
        "usage with finish",
        "null content",
        "no DONE",
        "comments",
        "CRLF",
        "no space",
        "no last line end",
        "two lines",
    ],
)
def test_dialects_of_one_answer(events: list[bytes]) -> None:
    outcome = talk([stream(*events)]).outcome
    assert (outcome.answer, outcome.output_tokens, outcome.cached_tokens) == ("a b c", 3, 4)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_counts_as_output(name: str) -> None:
    result = talk([stream(event({name: "hm"}), *said("so"), event({}, "stop"), DONE)])
    assert sum(run.count for run in result.chunks) == 2
    assert result.outcome.answer == "hm so"


def test_tool_calls_count_as_output() -> None:
    calls = [{"index": 0, "function": {"name": "ls", "arguments": ""}}], [{"index": 0, "function": {"arguments": "{}"}}]
    result = talk([stream(*(event({"tool_calls": c}) for c in calls), event({}, "tool_calls"), DONE)])
    assert sum(run.count for run in result.chunks) == 2
    assert result.outcome.answer == "ls{}"


EMPTY = stream(event({"role": "assistant"}), event({"content": ""}, "length"), event(usage=USAGE), DONE)


@pytest.mark.parametrize(
    "script",
    [
        EMPTY,
        stream(DONE),
        stream(event({}, "stop"), DONE),
        plain(b'{"choices":[{"message":{"content":""}}]}'),
        stream(),
    ],
)
def test_an_answer_that_holds_nothing_is_a_fault_and_has_no_first_chunk(script: bytes) -> None:
    error = fails([script])
    assert error.kind == "empty" and error.sent_ns is not None
    if script is EMPTY:
        assert "length" in error.what and "output_tokens 3" in error.what and "prompt_tokens 9" in error.what


def test_a_token_of_the_warm_up_may_have_no_text() -> None:
    result = talk([EMPTY], ask=request(1, phase="warmup"))
    assert result.chunks == [] and result.outcome.prompt_tokens == 9
    assert result.outcome.done_ns > result.outcome.sent_ns


def test_usage_may_be_missing_or_partial() -> None:
    outcome = talk([stream(*said("a"), event({}, "stop"), DONE)]).outcome
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (None, None, None)
    partial = {"prompt_tokens": 2, "completion_tokens": 1, "prompt_tokens_details": None}
    assert talk([stream(*said("a"), event({}, "stop", partial), DONE)]).outcome.cached_tokens is None


def test_an_answer_that_is_no_stream_is_one_chunk_at_its_end() -> None:
    message = {"content": "a b c", "reasoning_content": "hm"}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}).encode()
    result = talk([plain(body)])
    assert [run.count for run in result.chunks] == [1]
    assert result.chunks[0].first_ns == result.outcome.done_ns
    assert (result.outcome.answer, result.outcome.output_tokens) == ("hm a b c", 3)


def test_a_body_may_end_with_the_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    result = talk([head + b"".join(EVENTS), CLOSE], calls=2)
    assert result.outcome.answer == "a b c" and result.server.connections == 2


# --- faults


@pytest.mark.parametrize("count", [-5, 2**40 + 1, 9223372036854775000, 99999999999999999999, 1e30])
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens", "prompt_tokens_details.cached_tokens"])
def test_a_count_that_can_be_none_is_a_fault_that_names_its_field(field: str, count: float) -> None:
    """Not a number that some sum far from here stumbles over."""
    name, _, inner = field.partition(".")
    usage = {**USAGE, name: {inner: count} if inner else count}
    whole = {"choices": [{"message": {"content": "a"}}], "usage": usage}
    for script in (stream(*said("a"), event({}, "stop", usage), DONE), plain(json.dumps(whole).encode())):
        error = fails([script])
        assert error.kind == "malformed" and f"$.usage.{field}" in error.what


@pytest.mark.parametrize("count", [0, 2**40])
def test_the_least_and_the_greatest_count_are_taken(count: int) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}
    outcome = talk([stream(*said("a"), event({}, "stop", usage), DONE)]).outcome
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (count,) * 3


ENDLESS: list[bytes | str] = [chunk(b"x" * 500)] * 20


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([HEAD + chunk(b'{"a":"'), *ENDLESS, HOLD], "no stream"),
        ([HEAD.replace(b"200 OK", b"500 Oh"), *ENDLESS, HOLD], "no stream"),
        ([HEAD + chunk(b"data: {"), *ENDLESS, HOLD], "no event"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"X-More: %s\r\n" % (b"x" * 300)] * 20, HOLD], "headers"),
        ([b"HTTP/1.1 200 OK\r\nX-More: ", *[b"x" * 300] * 20, HOLD], "headers"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 300 + [HOLD], "headers"),
    ],
    ids=["JSON", "error page", "event", "headers", "header", "100 Continue"],
)
def test_what_has_no_end_is_not_kept(script: list[bytes | str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, cap in ((sse, "_LONGEST"), (sse, "_LONGEST_WHOLE"), (http1, "_LONGEST_HEAD")):
        monkeypatch.setattr(module, cap, 4000)
    error = fails(script)
    assert error.kind == "malformed" and words in error.what and error.hint


def test_a_long_body_behind_the_headers_does_not_count_as_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_LONGEST_HEAD", 200)
    assert talk([stream(*said(*["w"] * 300), event({}, "stop"), DONE)], calls=2).outcome.finish == "stop"


@pytest.mark.parametrize(
    "script",
    [
        [CLOSE],
        [HEAD + chunk(EVENTS[1]), CLOSE],
        [stream(b"data: {nonsense\n\n")],
        [plain(b"", "500 Oh")],
        [b"SSH-2.0-OpenSSH_9\r\n", HOLD],
    ],
)
def test_a_fault_of_a_call_that_left_says_when_it_left(script: list[bytes | str]) -> None:
    sent_ns = fails(script).sent_ns
    assert sent_ns is not None and 0 < sent_ns < 20e9


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ([HEAD + chunk(EVENTS[1]), CLOSE], "truncated", "middle"),
        ([stream(*EVENTS[:2])], "truncated", "middle"),
        ([stream(*EVENTS[:2], EVENTS[2][:30])], "truncated", "middle"),
        ([stream(*EVENTS[:5], EVENTS[5][:40])], "truncated", "middle"),
        ([HEAD, CLOSE], "truncated", "middle"),
        ([b"HTTP/1.1 200 OK\r\n", CLOSE], "disconnect", "without an answer"),
        ([CLOSE], "disconnect", "without an answer"),
        ([stream(b'data: {"error":{"message":"too long","code":400}}\n\n', DONE)], "http_status", "too long"),
        ([stream(*EVENTS[:2], b'data: {"error":"oops"}\n\n', DONE)], "http_status", "oops"),
        ([stream(b'data: {"object":"error","message":"bad","code":400}\n\n')], "http_status", "bad"),
        ([plain(b'{"error":{"message":"no"}}')], "http_status", "no"),
        ([stream(b"data: {nonsense\n\n")], "malformed", "{nonsense"),
        ([stream(b'data: {"choices":[{"delta":{"content":5}}]}\n\n')], "malformed", "content"),
        ([stream(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')], "malformed", "no event"),
        ([stream(b"hello\n\n")], "malformed", "hello"),
        ([stream(b"hello")], "malformed", "hello"),
        ([plain(b"<html>welcome</html>")], "malformed", "welcome"),
        ([plain(b'{"hello":1}')], "malformed", "hello"),
        ([plain(b"")], "empty", "nothing"),
        ([stream()], "empty", "nothing"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], "empty", "nothing"),
        ([b"SSH-2.0-OpenSSH_9\r\n", HOLD], "malformed", "SSH"),
        ([HEAD + b"zz\r\n", HOLD], "malformed", "HTTP"),
        ([plain(b'{"error":{"message":"no model m"}}', "404 Not Found")], "http_status", "404: no model m"),
        ([plain(b'{"object":"error","message":"long"}', "400 Bad Request")], "http_status", "400: long"),
        ([plain(b'{"detail":[{"msg":"extra"}]}', "422 Unprocessable")], "http_status", "422: .*extra"),
        ([plain(b'{"error":"busy"}', "429 Too Many")], "http_status", "429: busy"),
        ([plain(b"<html>down", "503 Service Unavailable")], "http_status", "503: <html>down"),
        ([plain(b"", "500 Oh")], "http_status", "500$"),
        ([plain(b"", "302 Found", "Location: /x\r\n")], "http_status", "302"),
    ],
)
def test_every_fault_has_its_kind_and_words(script: list[bytes | str], kind: str, words: str) -> None:
    error = fails(script)
    assert error.kind == kind
    assert re.search(words, error.what), error.what


def test_chunks_before_a_fault_were_handed_on() -> None:
    chunks: list[ChunkRun] = []

    async def main(clock: RealClock) -> None:
        async with serving([HEAD + chunk(EVENTS[1]), CLOSE]) as server:
            backend = connect(server.port, clock)
            with pytest.raises(BackendError):
                await backend.call(request(), chunks.append)

    live(main)
    assert [run.count for run in chunks] == [1]


def test_nobody_listening_is_a_connect_error_with_a_hint() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

        async def main(clock: RealClock) -> None:
            backend = connect(port, clock)
            for attempt in (backend.call(request(), lambda run: None), backend.probe()):
                with pytest.raises(BackendError) as caught:
                    await attempt
                assert caught.value.kind == "connect" and caught.value.hint
                assert caught.value.sent_ns is None  # nothing left

        live(main)


OUTSIDE = [
    OSError("x"),
    ConnectionResetError(),
    TimeoutError(),
    socket.gaierror(8, "x"),
    ssl.SSLError("x"),
    ValueError("x"),
]


@pytest.mark.parametrize("error", [*OUTSIDE, UnicodeError("x"), OverflowError("x"), RuntimeError("x")], ids=repr)
def test_every_error_of_connecting_is_mapped(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def refuse(*args: object, **options: object) -> None:
            raise error

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
        backend = connect(9, RealClock())
        with pytest.raises(BackendError) as caught:
            await backend.call(request(), lambda run: None)
        assert caught.value.kind == "connect"

    asyncio.run(main())


def test_a_fault_of_our_own_is_not_hidden() -> None:
    def broken(run: ChunkRun) -> None:
        raise ZeroDivisionError

    async def main(clock: RealClock) -> None:
        async with serving([GOOD]) as server:
            backend = connect(server.port, clock)
            with pytest.raises(ZeroDivisionError):
                await backend.call(request(), broken)

    live(main)


# --- connections


def test_calls_one_after_the_other_share_a_connection() -> None:
    result = talk([GOOD], calls=10)
    assert result.server.connections == 1 and result.outcome.connection_reused is True


def test_calls_at_once_have_a_connection_each() -> None:
    async def main(clock: RealClock) -> None:
        async with serving([GOOD]) as server:
            backend = connect(server.port, clock)
            for _ in range(3):
                await asyncio.gather(*(backend.call(request(), lambda run: None) for _ in range(20)))
            assert server.connections == backend.connects == 20

    live(main)


def test_a_server_that_says_close_is_taken_at_its_word() -> None:
    closing = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    result = talk([closing], calls=3)
    assert result.server.connections == 3 and result.backend.resent == 0


def test_a_kept_connection_that_was_closed_costs_a_second_try() -> None:
    result = talk([GOOD], [CLOSE], [GOOD], calls=2)
    assert result.server.connections == 2 and result.backend.resent == 1
    assert (result.outcome.connection_reused, result.outcome.resent, result.outcome.answer) == (False, True, "a b c")


def test_the_second_try_is_the_last() -> None:
    assert fails([GOOD], [CLOSE], calls=2).kind == "disconnect"


def test_a_connection_that_broke_after_the_first_byte_is_not_tried_again() -> None:
    assert fails([GOOD], [b"HTTP/1.1", CLOSE], [GOOD], calls=2).kind == "disconnect"


def test_what_comes_unasked_closes_the_connection() -> None:
    result = talk([GOOD + plain(b"and one more thing", "408 Request Timeout")], calls=2)
    assert result.outcome.answer == "a b c"


def test_a_cancelled_call_closes_its_connection() -> None:
    async def main(clock: RealClock) -> None:
        async with serving([HEAD + chunk(EVENTS[1]), HOLD], [GOOD]) as server:
            backend = connect(server.port, clock)
            came = asyncio.Event()
            call = asyncio.create_task(backend.call(request(), lambda run: came.set()))
            await came.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.gone.wait()
            again = await backend.call(request(), lambda run: None)
            assert again.connection_reused is False

    live(main)


def test_hanging_up_after_so_many_chunks() -> None:
    async def main(clock: RealClock) -> None:
        async with serving([HEAD + b"".join(map(chunk, EVENTS[:4])), HOLD]) as server:
            backend = connect(server.port, clock)
            chunks: list[ChunkRun] = []
            outcome = await backend.call(request(3, stop_after=2), chunks.append)
            await server.gone.wait()
            assert (outcome.finish, outcome.output_tokens, outcome.answer) == ("hangup", 2, "a b")
            assert sum(run.count for run in chunks) == 2

    live(main)


def test_a_large_prompt_arrives_whole() -> None:
    result = talk([GOOD], ask=request(words=300_000), calls=2)
    assert len(json.loads(result.server.heard[1])["messages"][0]["content"].split()) == 300_000


def test_an_answer_that_overtakes_its_request_ends_the_connection() -> None:
    async def main(clock: RealClock) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(plain(b'{"error":{"message":"too large"}}', "413 Too Large"))
            await writer.drain()
            await gone.wait()
            writer.close()

        gone = asyncio.Event()
        listener = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=4096)
        port = listener.sockets[0].getsockname()[1]
        backend = connect(port, clock)
        with pytest.raises(BackendError, match="too large"):
            await backend.call(request(words=2_000_000), lambda run: None)
        assert backend._lanes[0].pool.idle() is None
        gone.set()
        listener.close()

    live(main)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make a certificate")
def test_tls_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def main(clock: RealClock) -> None:
        async with serving([GOOD], tls=context) as server:
            trusting = connect(server.port, clock, scheme="https", verify=False)
            for _ in range(2):
                outcome = await trusting.call(request(), lambda run: None)
            assert outcome.answer == "a b c" and outcome.connection_reused
            with pytest.raises(BackendError) as caught:
                await connect(server.port, clock, scheme="https").call(request(), lambda run: None)
            assert caught.value.kind == "connect"
            assert "--ca-file" in (caught.value.hint or "") and "--insecure" in (caught.value.hint or "")

    live(main)


# --- the protocol alone, read by read


class Wire:
    """A transport that goes nowhere."""

    closed = False

    def writelines(self, lines: object) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def reads(parts: list[bytes], stop_after: int | None = None, closed: bool = False) -> dict[str, Any]:
    """What one call makes of an answer that is read in these parts, read i at instant i."""

    async def main() -> dict[str, Any]:
        now = [0]
        connection = Connection(lambda: now[0], parked.append)
        connection.connection_made(Wire())  # type: ignore[arg-type]
        answer = OpenAIAnswer(lambda at_ns, fault: None, chunks.append, 0, NEVER if stop_after is None else stop_after)
        connection.send([], answer)
        for part in parts:
            now[0] += 1
            if not answer.over:
                connection.data_received(part)
        if closed:
            connection.connection_lost(None)
        seen = {"count": sum(run.count for run in chunks), "text": answer.text(), "finish": answer.finish}
        seen |= {"usage": answer.usage, "parked": len(parked), "error": None}
        assert answer.over
        error = answer.fault
        if error is not None:
            assert isinstance(error, BackendError), repr(error)
            seen |= {"error": error.kind}
        return seen

    chunks: list[ChunkRun] = []
    parked: list[Connection] = []
    seen = asyncio.run(main())
    seen["stamps"] = [run.first_ns for run in chunks]
    return seen


ANSWERS = [
    GOOD,
    stream(*(e.replace(b"\n", b"\r\n") for e in EVENTS)),
    plain(json.dumps({"choices": [{"message": {"content": "a"}}], "usage": USAGE}).encode()),
    plain(b'{"error":{"message":"no"}}', "404 No"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + stream(*said("\u00e9\u4e2d", "b"), event({}, "stop"), DONE),
    stream(*EVENTS[:3]),
    stream(*EVENTS[:2], b"data: {nonsense\n\n"),
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ANSWERS), st.data())
def test_where_reads_split_an_answer_changes_nothing(answer: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=12)))
    stop_after = data.draw(st.sampled_from([None, 2]))
    parts = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True) if a < b]
    whole, split = reads([answer], stop_after), reads(parts, stop_after)
    del whole["stamps"], split["stamps"]
    assert split == whole


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_may_come_byte_by_byte(answer: bytes) -> None:
    whole, split = reads([answer]), reads([answer[i : i + 1] for i in range(len(answer))])
    del whole["stamps"], split["stamps"]
    assert split == whole


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([HEAD, END, *map(chunk, EVENTS)])), max_size=12))
def test_whatever_comes_is_an_outcome_or_a_named_fault(parts: list[bytes]) -> None:
    assert reads([part for part in parts if part], closed=True)["error"] in (None, *KINDS)


def test_the_first_chunk_is_the_first_with_content_and_a_read_has_one_stamp() -> None:
    role, a, b, c, *rest = map(chunk, EVENTS)
    empty = chunk(event({"content": ""}))
    seen = reads([HEAD, role, empty, a, b + c, *rest, END])
    assert seen["stamps"] == [4, 5] and seen["count"] == 3


# --- before a run


def probe(*script: bytes | str, model: str = "m", timeout_s: float = 10.0) -> Any:
    async def main(clock: RealClock) -> Any:
        async with serving(list(script)) as server:
            backend = connect(server.port, clock, model=model, api_key="k")
            found = await backend.probe(timeout_s)
            assert server.heads[0].startswith(b"GET /v1/models HTTP/1.1\r\n") and b"Bearer k" in server.heads[0]
            return found

    return live(main)


MODELS = plain(b'{"object":"list","data":[{"id":"m"},{"id":"n"}]}')


def test_the_probe_finds_the_model_or_warns() -> None:
    assert probe(MODELS).models == ["m", "n"] and probe(MODELS).warning is None
    assert "'x'" in probe(MODELS, model="x").warning
    lost = probe(plain(b'{"detail":"Not Found"}', "404 Not Found"))
    assert lost.models is None and lost.warning.endswith("/models answers with status 404: Not Found")
    assert "/v1" in (lost.hint or "")


@pytest.mark.parametrize(
    ("entry", "props", "longest"),
    [
        ({"max_model_len": 4096, "meta": {"n_ctx": 7}}, None, 4096),
        ({"max_model_len": None, "context_length": 8192}, None, 8192),
        ({"meta": {"n_ctx": 2048, "n_ctx_train": 131072}}, None, 2048),
        ({"meta": {"n_ctx_train": 131072}}, b'{"default_generation_settings":{"n_ctx":512}}', 512),
        ({"max_model_len": "long", "meta": 7, "owned_by": 1}, b"<html>", None),
        ({"max_model_len": True}, b'{"default_generation_settings":{"n_ctx":0}}', None),
    ],
)
def test_the_longest_call_is_told_in_one_of_several_places(
    entry: dict[str, Any], props: bytes | None, longest: int | None
) -> None:
    async def main(clock: RealClock) -> None:
        listed = plain(json.dumps({"data": [{"id": "m", **entry}, {"id": "other", "max_model_len": 9}]}).encode())
        async with serving([listed], [plain(props or b"", "200 OK" if props else "404 Not Found")]) as server:
            found = await connect(server.port, clock, model="m").probe()
            assert (found.models, found.max_model_len, found.warning) == (["m", "other"], longest, None)
            pages = [head.split(b" ")[1] for head in server.heads]
            assert pages == [b"/v1/models"] + [b"/props"] * (props is not None)

    live(main)


def test_a_page_of_properties_that_hangs_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_PROPS_S", 0.1)

    async def main(clock: RealClock) -> None:
        async with serving([MODELS], [HOLD]) as server:
            found = await connect(server.port, clock, model="m").probe()
            assert found.models == ["m", "n"] and found.max_model_len is None and len(server.heads) == 2

    live(main)


@pytest.mark.parametrize("said", [[CLOSE], [b"\x15\x03\x03\x00\x02\x02\x46", CLOSE]])
def test_plain_http_to_a_port_of_tls_is_told_to_try_https(said: list[bytes | str]) -> None:
    with pytest.raises(BackendError) as caught:
        probe(*said)
    assert "try https://" in (caught.value.hint or "")


def test_a_refusal_that_speaks_of_https_is_told_to_try_it() -> None:
    page = b"<html>The plain HTTP request was sent to HTTPS port</html>"
    assert probe(plain(page, "400 Bad Request")).hint == "try https://"


def test_tls_to_a_port_of_plain_http_is_told_to_try_http() -> None:
    async def main(clock: RealClock) -> None:
        for script in ([plain(b"", "400 Bad Request")], [b"nonsense", CLOSE]):

            async def answer(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, script: list[bytes | str] = script
            ) -> None:
                await reader.read(100)
                writer.write(b"".join(part for part in script if isinstance(part, bytes)))
                writer.close()

            listener = await asyncio.start_server(answer, "127.0.0.1", 0)
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(BackendError) as caught:
                await connect(port, clock, scheme="https").probe()
            assert caught.value.kind == "connect" and "try http://" in (caught.value.hint or "")
            listener.close()

    live(main)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([plain(b"<html>")], "malformed"),
        ([plain(b'{"data":5}')], "malformed"),
        ([plain(b"", "401 Unauthorized")], "http_status"),
        ([CLOSE], "disconnect"),
        ([b"220 ftp ready\r\n", HOLD], "malformed"),
        ([HOLD], "connect"),
    ],
)
def test_the_probe_says_what_is_wrong(script: list[bytes | str], kind: str) -> None:
    with pytest.raises(BackendError) as caught:
        probe(*script, timeout_s=0.2 if script == [HOLD] else 10.0)
    assert caught.value.kind == kind and (caught.value.hint or kind == "disconnect")


def test_the_probe_does_not_keep_a_list_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_LONGEST_LISTING", 4000)
    with pytest.raises(BackendError, match="list of models") as caught:
        probe(HEAD, *ENDLESS, HOLD)
    assert caught.value.kind == "malformed" and caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://h/v1",
        "http://",
        "http://h:x/v1",
        "http://h/v1?a=b",
        "http://h/v1?",
        "http://h /v1",
        "http://h/v1\0",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Endpoint.parse(url)


def test_a_user_and_a_password_in_a_url_are_refused_with_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse("http://user:hunter2@host:8000/v1")
    assert caught.value.where == "http://***@host:8000/v1" and "--header" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host/v1",
        "https://hunter2@host/v1",
        "http://user:hunter2@host:x/v1",
        "http://user:hunter2/@host/v1",
        "http://user:hunter2?@host/v1",
        "http://us@er:hunter2#x@host/v1",
        "http://user:hunter2@[host/v1",
        "http://user:hunter2@h\u2100st/v1",
        "user:hunter2@host/v1",
        "//user:hunter2@host/v1",
        "ftp://user:hunter2@host/v1",
        "http://host/v1?key=hunter2",
        "http://host/v1#hunter2",
        "http://host/v1?mail=a@b.c&key=hunter2",
        "http://host:x/v1?key=hunter2",
        "host?key=hunter2",
    ],
)
def test_no_message_repeats_a_secret_of_a_url(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(url)
    assert "hunter2" not in str(caught.value)


def authorization(api_key: str) -> list[bytes]:
    head = talk([GOOD], api_key=api_key).server.heads[0]
    return [line for line in head.split(b"\r\n") if line.startswith(b"Authorization")]


def test_the_white_space_around_an_api_key_is_not_part_of_it() -> None:
    assert authorization(" sk-hunter2\r\n") == [b"Authorization: Bearer sk-hunter2"]
    assert authorization(" \n") == []


@pytest.mark.parametrize("key", ["sk\nhunter2", "sk\0hunter2", "sk-hunter2\u00e9"])
def test_an_api_key_that_cannot_be_sent_is_named_but_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="API key") as caught:
        talk([GOOD], api_key=key)
    assert "hunter2" not in str(caught.value) and caught.value.hint


def test_an_endpoint_knows_its_parts() -> None:
    assert Endpoint.parse("http://h/v1/").path == "/v1"
    assert (Endpoint.parse("https://h").port, Endpoint.parse("https://h").authority) == (443, "h")
    assert Endpoint.parse("http://[::1]:80/v1").authority == "[::1]"


@pytest.mark.parametrize(
    "headers", [{"A": "b\r\nC: d"}, {"A b": "c"}, {"": "x"}, {"Content-Length": "3"}, {"A": "\u00e9"}]
)
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        talk([GOOD], headers=headers)


@pytest.mark.parametrize("body", [{"messages": []}, {"max_tokens": 5}, {"x": object()}])
def test_body_fields_that_cannot_be_set_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        talk([GOOD], body=body)


def test_a_body_that_stays_open_behind_its_last_word_ends_there() -> None:
    """[DONE] came, and then no end: the answer is whole; what came behind it is none of it."""
    late = [*said(" late", " later")]
    ended = talk([HEAD + b"".join(chunk(e) for e in EVENTS), HOLD])
    assert ended.outcome.output_tokens == 3 and ended.outcome.answer == "a b c"
    behind = talk([HEAD + b"".join(chunk(e) for e in EVENTS), b"".join(chunk(e) for e in late), HOLD])
    assert sum(run.count for run in behind.chunks) == 3 and behind.outcome.answer == "a b c"
