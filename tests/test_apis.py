"""The APIs of servers: how each is asked, what its answers say, and by what its faults are known."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving import DONE, connect, event, live, plain, request, said, serving, stream, talk

from workloom.clock import RealClock
from workloom.drive.api import APIS, TOKEN_IDS
from workloom.drive.faults import refused, retry_after_s
from workloom.drive.frame import Role
from workloom.drive.sse import Answer
from workloom.drive.styles import SAFE_IDS, style
from workloom.drive.targets import ApiName
from workloom.errors import BackendError, UsageError
from workloom.prompt import Piece, Prompt
from workloom.records import ChunkRun


def named(kind: str, **fields: Any) -> bytes:
    """An event of the APIs whose events have names."""
    return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


RESPONSE_USAGE = {
    "input_tokens": 9,
    "output_tokens": 7,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 16,
}
RESPONSES = [
    named("response.created", response={"id": "r", "status": "in_progress", "usage": None, "error": None}),
    named("response.in_progress", response={"id": "r", "status": "in_progress"}),
    named("response.output_item.added", output_index=0, item={"type": "reasoning", "summary": []}),
    named("response.reasoning_text.delta", delta="h"),
    named("response.reasoning_summary_text.delta", delta="m"),
    named("response.output_item.added", output_index=1, item={"type": "message", "content": []}),
    named("response.content_part.added", part={"type": "output_text", "text": ""}),
    named("response.output_text.delta", delta="a", logprobs=[]),
    named("response.output_text.delta", delta=" b"),
    named("response.output_text.delta", delta=""),
    named("response.output_text.done", text="a b"),
    named("response.output_item.added", item={"type": "function_call", "name": "ls", "arguments": ""}),
    named("response.function_call_arguments.delta", delta="{}"),
    named("response.function_call_arguments.done", arguments="{}"),
    named("response.completed", response={"status": "completed", "usage": RESPONSE_USAGE, "error": None}),
]
MESSAGE_USAGE = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 1}
MESSAGES = [
    named("message_start", message={"id": "m", "role": "assistant", "content": [], "usage": MESSAGE_USAGE}),
    named("ping"),
    named("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
    named("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "h"}),
    named("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "m"}),
    named("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "xx"}),
    named("content_block_stop", index=0),
    named("content_block_start", index=1, content_block={"type": "text", "text": ""}),
    named("content_block_delta", index=1, delta={"type": "text_delta", "text": "a"}),
    named("content_block_delta", index=1, delta={"type": "text_delta", "text": " b"}),
    named("content_block_stop", index=1),
    named("content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "ls", "input": {}}),
    named("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ""}),
    named("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": "{}"}),
    named("content_block_stop", index=2),
    named("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 7}),
    named("message_stop"),
]
CHAT_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
CHAT = [
    event({"role": "assistant", "content": ""}),
    event({"reasoning_content": "h"}),
    event({"reasoning": "m"}),
    *said("a", " b"),
    event({"tool_calls": [{"index": 0, "function": {"name": "ls", "arguments": ""}}]}),
    event({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    event({}, "tool_calls"),
    event(usage=CHAT_USAGE),
    DONE,
]
STREAMS = {"chat": (CHAT, "tool_calls"), "responses": (RESPONSES, "completed"), "messages": (MESSAGES, "tool_use")}


@pytest.mark.parametrize("api", STREAMS)
def test_an_answer_is_told_alike_whatever_the_api(api: Any) -> None:
    events, finish = STREAMS[api]
    result = talk([stream(*events)], api=api)
    outcome = result.outcome
    assert (outcome.prompt_tokens, outcome.cached_tokens) == (9, 4)
    assert outcome.output_tokens == 7 and outcome.reasoning_tokens == (None if api == "messages" else 2)
    assert (outcome.finish, outcome.answer) == (finish, "hm a bls{}")
    assert sum(run.count for run in result.chunks) == 6
    assert (outcome.sent_prompt_tokens, outcome.asked_output_tokens, outcome.served_model) == (5, 3, "m")


@pytest.mark.parametrize("api", STREAMS)
def test_a_history_may_drop_the_reasoning(api: Any) -> None:
    ask = request()
    outcome = talk([stream(*STREAMS[api][0])], api=api, reasoning="drop", ask=ask).outcome
    assert outcome.answer == "a bls{}" and outcome.output_tokens == 7
    by_share = round(7 * 4 / 6) if api == "messages" else None  # 2 of 6 pieces were reasoning
    assert ask.prompt.answer_text_tokens == (by_share or 5)
    assert ask.prompt.counted_tokens == 9


WHOLES = {
    "chat": {
        "choices": [{"message": {"content": "a b", "reasoning": "hm"}, "finish_reason": "stop"}],
        "usage": CHAT_USAGE,
    },
    "completions": {"choices": [{"text": "hm a b", "finish_reason": "stop"}], "usage": CHAT_USAGE},
    "responses": {
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "a b"}]},
        ],
        "usage": RESPONSE_USAGE,
    },
    "messages": {
        "type": "message",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a b"}],
        "stop_reason": "end_turn",
        "usage": {**MESSAGE_USAGE, "output_tokens": 7},
    },
}


@pytest.mark.parametrize("api", WHOLES)
def test_a_whole_answer_is_one_chunk_at_its_end(api: Any) -> None:
    result = talk([plain(json.dumps(WHOLES[api]).encode())], api=api)
    outcome = result.outcome
    assert [run.count for run in result.chunks] == [1] and result.chunks[0].first_ns == outcome.done_ns
    assert (outcome.answer, outcome.prompt_tokens, outcome.output_tokens) == ("hm a b", 9, 7)
    assert outcome.finish is not None


# --- how each is asked


def asked(api: Any, **options: Any) -> tuple[bytes, dict[str, Any]]:
    server = talk([stream(*STREAMS.get(api, STREAMS["chat"])[0])], api=api, **options).server
    return server.heads[0], json.loads(server.heard[0])


def test_each_api_has_its_path_and_its_way_with_keys() -> None:
    for api, path in (("chat", "chat/completions"), ("responses", "responses"), ("messages", "messages")):
        head, body = asked(api, api_key="k")
        assert head.startswith(f"POST /v1/{path} HTTP/1.1\r\n".encode())
        assert body["model"] == "m" and body["stream"] is True
        if api == "messages":
            assert b"\r\nx-api-key: k\r\n" in head and b"\r\nanthropic-version: 2023-06-01\r\n" in head
            assert b"Authorization" not in head
        else:
            assert b"\r\nAuthorization: Bearer k\r\n" in head and b"x-api-key" not in head
    assert b"Anthropic-Version: 2099" in asked("messages", headers={"Anthropic-Version": "2099"})[0]


LIMITS = {"chat": "max_tokens", "completions": "max_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}


@pytest.mark.parametrize("api", APIS)
def test_output_is_asked_for_exactly_at_most_or_not_at_all(api: Any) -> None:
    limit = LIMITS[api]
    exact, cap, free = (asked(api, output=mode)[1] for mode in ("exact", "cap", "free"))
    assert (exact[limit], exact["min_tokens"], exact["ignore_eos"]) == (3, 3, True)
    assert cap[limit] == 3 and not {"min_tokens", "ignore_eos"} & set(cap)
    assert not {"min_tokens", "ignore_eos"} & set(free)
    assert free.get(limit) == (8192 if api in ("messages", "completions") else None)
    warm = request(1, phase="warmup")
    assert asked(api, output="free", ask=warm)[1][limit] == 1


def test_what_was_asked_for_is_in_the_outcome() -> None:
    def told(**options: Any) -> int | None:
        return talk([stream(*CHAT)], **options).outcome.asked_output_tokens

    assert [told(output=mode) for mode in ("exact", "cap", "free")] == [3, 3, None]
    assert told(output="free", body={"max_tokens": 77}) == 77
    assert told(output="free", body={"max_tokens": 77}, ask=request(1, phase="warmup")) == 1
    assert asked("chat", output="free", body={"max_tokens": 77})[1]["max_tokens"] == 77
    for longest, room in ((None, 8192), (100_000, 8192), (1000, 1000 - 320 - 20 - 64), (300, 1)):
        options = {"api": "completions", "output": "free", "max_model_len": longest, "ask": request(words=320)}
        assert told(**options) == room == asked(**options)[1]["max_tokens"]
    body = asked("chat", limit_field="max_completion_tokens")[1]
    assert body["max_completion_tokens"] == 3 and "max_tokens" not in body


@pytest.mark.parametrize(
    "options",
    [
        {"api": "chta"},
        {"api": "chat", "token_ids": True},
        {"api": "messages", "limit_field": "max_completion_tokens"},
        {"output": "free", "body": {"max_tokens": "many"}},
        {"api": "responses", "body": {"input": "x"}},
        {"tools": True, "body": {"tools": []}},
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        talk([stream(*CHAT)], **options)


def test_tools_of_ones_own_may_stand_in_the_body() -> None:
    assert asked("chat", body={"tools": [{"x": 1}]})[1]["tools"] == [{"x": 1}]


def test_prompts_of_token_ids() -> None:
    async def main(clock: RealClock) -> None:
        async with serving([stream(*CHAT)]) as server:
            backend = connect(server.port, clock, style=style("ids", 1), api="completions", token_ids=True)
            first = request(words=12)
            outcome = await backend.call(first, lambda run: None)
            first.prompt.answer_tokens, first.prompt.answer_text = outcome.output_tokens, outcome.answer
            pieces = (Piece(99 << 24, 4, "user"),)
            again = Prompt(first.prompt, first.prompt.tokens + 7, True, pieces, 99 << 24 | 1)
            await backend.call(request(prompt=again), lambda run: None)
            one, two = (json.loads(body)["prompt"] for body in server.heard)
            assert len(one) == 12 and len(two) == 12 + 7 + 4 and two[:12] == one
            assert all(isinstance(token, int) and SAFE_IDS[0] <= token < SAFE_IDS[1] for token in two)
            backend.close()

    live(main)


# --- frames

TURNS: list[Role] = ["user", "assistant", "tool"]


@st.composite
def roles(draw: st.DrawFn) -> list[Role]:
    head: list[Role] = ["definition"] * draw(st.integers(0, 3))
    head += ["system"] * draw(st.integers(0, 2))
    return head + draw(st.lists(st.sampled_from(TURNS), max_size=8))


def framed(api: str, line: list[Role]) -> bytes:
    frame = APIS[api].frame
    parts = []
    for i, role in enumerate(line):
        parts.append(frame.glue(line[i - 1] if i else None, role, i) + b"w%d" % i)
    return b"".join(parts)


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for each in value for text in strings(each)] if isinstance(value, list) else []


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*APIS]), roles())
def test_every_prompt_is_json_with_its_words_in_order_and_a_prefix_of_the_next(api: str, line: list[Role]) -> None:
    for count in range(len(line) + 1):
        body = framed(api, line[:count])
        assert framed(api, line).startswith(body)
        closed = body + APIS[api].frame.close(line[count - 1] if count else None)
        value = json.loads(b"{" + closed + b"}")
        words = [word for text in strings(value) for word in text.split() if word.startswith("w")]
        assert words == [f"w{i}" for i in range(count)]
        check_calls(value)


def check_calls(value: dict[str, Any]) -> None:
    """Every tool's answer was asked for just before, by the same id, and names a tool that is defined, if any is."""
    text = json.dumps(value)
    tools = [tool.get("name") or tool["function"]["name"] for tool in value.get("tools", [])]
    assert len(set(tools)) == len(tools)
    made: set[str] = set()
    for message in [*value.get("messages", []), *(value.get("input") or [])]:
        blocks = message["content"] if isinstance(message.get("content"), list) else [message]
        for block in [*blocks, *message.get("tool_calls", [])]:
            if block.get("type") in ("function", "tool_use", "function_call"):
                made.add(block.get("call_id") or block["id"])
                name = block.get("name") or block["function"]["name"]
                assert not tools or name in tools
            answered = block.get("tool_call_id") or block.get("tool_use_id")
            if block.get("type") == "function_call_output":
                answered = block["call_id"]
            assert answered is None or answered in made, text


@given(roles())
def test_messages_take_turns_and_the_user_begins(line: list[Role]) -> None:
    body = framed("messages", line) + APIS["messages"].frame.close(line[-1] if line else None)
    who = [message["role"] for message in json.loads(b"{" + body + b"}")["messages"]]
    assert who[0] == "user" and all(a != b for a, b in pairwise(who))


def test_a_list_of_ids_is_closed_and_commas_stand_between() -> None:
    frame = TOKEN_IDS.frame
    body = frame.glue(None, "system", 0) + b"1,2" + frame.glue("system", "user", 1) + b"3" + frame.close("user")
    assert json.loads(b"{" + body + b"}") == {"prompt": [1, 2, 3]}
    assert json.loads(b"{" + frame.close(None) + b"}") == {"prompt": []}


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_definitions_and_tool_results_go_where_they_belong(api: Any) -> None:
    pieces = [("definition", 4), ("definition", 3), ("span", 6), ("user", 5), ("answer", 2), ("tool", 7), ("user", 2)]
    made = tuple(Piece(((i + 1) << 24) | i, tokens, kind) for i, (kind, tokens) in enumerate(pieces))  # type: ignore[arg-type]
    ask = request(prompt=Prompt(None, 0, False, made, 1 << 40))
    _, body = asked(api, ask=ask, tools=True)
    described = [tool.get("description") or tool["function"]["description"] for tool in body["tools"]]
    assert [len(text.split()) for text in described] == [4, 3]
    results = {
        "chat": lambda: [m["content"] for m in body["messages"] if m["role"] == "tool"],
        "responses": lambda: [m["output"] for m in body["input"] if m["type"] == "function_call_output"],
        "messages": lambda: [
            b["content"] for m in body["messages"] for b in m["content"] if b["type"] == "tool_result"
        ],
    }[api]()
    assert [len(text.split()) for text in results] == [7]


# --- faults


def fault(api: Any, *script: bytes) -> BackendError:
    with pytest.raises(BackendError) as caught:
        talk(list(script), api=api)
    return caught.value


FAILED = {"status": "failed", "error": {"code": "server_error", "message": "oh no"}}
INCOMPLETE = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": RESPONSE_USAGE}
OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}
TOO_LONG = {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}


@pytest.mark.parametrize(
    ("api", "events", "kind", "status", "words"),
    [
        ("responses", [*RESPONSES[:8], named("response.failed", response=FAILED)], "http_status", 500, "oh no"),
        ("responses", [named("error", code="rate_limit_exceeded", message="slow down")], "http_status", 429, "slow"),
        ("responses", RESPONSES[:9], "truncated", 200, "middle"),
        ("responses", [RESPONSES[0], RESPONSES[-1]], "empty", 200, "output_tokens 7"),
        ("responses", [named("response.incomplete", response=INCOMPLETE)], "empty", 200, "max_output_tokens"),
        ("messages", [*MESSAGES[:9], named("error", error=OVERLOADED)], "http_status", 529, "Overloaded"),
        ("messages", [named("error", error=TOO_LONG)], "context_overflow", 400, "too long"),
        ("messages", MESSAGES[:11], "truncated", 200, "middle"),
        ("messages", [MESSAGES[0], *MESSAGES[-2:]], "empty", 200, "tool_use"),
        ("messages", [b"event: message_start\ndata: {nonsense\n\n"], "malformed", 200, "nonsense"),
        (
            "messages",
            [named("message_start", message={"usage": {"input_tokens": -1}})],
            "malformed",
            200,
            "input_tokens",
        ),
    ],
)
def test_every_api_tells_its_faults(api: Any, events: list[bytes], kind: str, status: int, words: str) -> None:
    error = fault(api, stream(*events))
    assert (error.kind, error.status) == (kind, status) and words in error.what, error


def test_an_answer_that_came_to_its_limit_is_an_answer() -> None:
    outcome = talk([stream(*RESPONSES[:9], named("response.incomplete", response=INCOMPLETE))], api="responses").outcome
    assert (outcome.finish, outcome.answer) == ("max_output_tokens", "hm a b")


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_a_whole_answer_may_be_an_error_or_nothing(api: Any) -> None:
    assert fault(api, plain(b'{"type":"error","error":{"type":"api_error","message":"oh"}}')).kind == "http_status"
    assert fault(api, plain(b'{"hello":1}')).kind == "malformed"


OVERFLOWS = [
    (400, {"object": "error", "message": "This model's maximum context length is 8192 tokens. However, you ..."}),
    (400, {"error": {"message": "The decoder prompt (length 9000) is longer than the maximum model length of 8192."}}),
    (400, {"error": {"message": "'max_tokens' is too large: 9. This model's maximum context length is 8 tokens"}}),
    (400, {"message": "The input (9000 tokens) is longer than the model's context length (8192 tokens)."}),
    (400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds ..."}}),
    (400, {"error": {"code": "context_length_exceeded", "message": "Your input exceeds ..."}}),
    (400, {"type": "error", "error": TOO_LONG}),
    (413, {"error": {"message": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"}}),
    (500, {"error": {"message": "Prompt length (9000) exceeds max_seq_len"}}),
]


@pytest.mark.parametrize(("status", "body"), OVERFLOWS)
def test_a_call_that_is_too_long_is_known_by_the_servers_words(status: int, body: dict[str, Any]) -> None:
    error = fault("chat", plain(json.dumps(body).encode(), f"{status} Oh"))
    assert (error.kind, error.status) == ("context_overflow", status) and error.hint


@pytest.mark.parametrize("error", [OVERFLOWS[0][1]["message"], {"message": OVERFLOWS[0][1]["message"], "code": 400}])
def test_the_same_in_a_stream_that_began_well(error: object) -> None:
    found = fault("chat", stream(b"data: " + json.dumps({"error": error}).encode() + b"\n\n", DONE))
    assert found.kind == "context_overflow"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "max_tokens must be positive"),
        (413, "<html>request entity too large"),
        (429, "context length"),
        (404, "x"),
    ],
)
def test_other_refusals_are_no_overflow(status: int, words: str) -> None:
    assert refused(status, words.encode()).kind == "http_status"


def test_retry_after_is_seconds_or_a_date() -> None:
    head = "HTTP/1.1 429 Oh\r\nRetry-After: {}\r\nA: b\r\n\r\n"
    assert retry_after_s(head.format("7").encode()) == 7
    assert retry_after_s(head.format("0.25").encode()) == 0.25
    assert retry_after_s(head.format("-3").encode()) == 0
    assert retry_after_s(head.format("Wed, 21 Oct 2015 07:28:00 GMT").encode()) == 0
    for text in ("soon", "inf", "nan", ""):
        assert retry_after_s(head.format(text).encode()) is None
    assert retry_after_s(b"HTTP/1.1 429 Oh\r\n\r\n") is None


# --- however it is cut


def heard(api: str, parts: list[bytes]) -> tuple[Any, ...]:
    """What an answer makes of a body that comes in these parts."""

    chunks: list[ChunkRun] = []
    ended: list[tuple[int, Exception | None]] = []
    answer: Answer = APIS[api].answers(lambda at_ns, fault: ended.append((at_ns, fault)), chunks.append, 0)
    answer.status = 200
    for i, part in enumerate(parts):
        answer.feed(part, i)
    answer.end(len(parts))
    assert ended == [(len(parts), None)]
    return answer.text(), answer.finish, answer.counts(), sum(run.count for run in chunks)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*STREAMS]), st.data())
def test_where_reads_split_a_stream_changes_nothing(api: str, data: st.DataObject) -> None:
    body = b"".join(STREAMS[api][0])
    if data.draw(st.booleans()):
        body = body.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    assert heard(api, parts) == heard(api, [body])


def test_every_api_has_a_name_of_the_options() -> None:
    assert set(get_args(ApiName)) == set(APIS) and all(api.name == name for name, api in APIS.items())
