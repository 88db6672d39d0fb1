"""Messages in the words of several APIs: equal texts are equal messages, sizes are of the text, answers are known."""

from __future__ import annotations

import json

import pytest

from workloom.traces.telemetry.message import MEDIA_CHARS, REDACTED, Message
from workloom.traces.telemetry.messages import Messages


def parse(*messages: object) -> tuple[Message, ...]:
    return Messages().prompt(json.dumps(messages).encode())


def one(message: object) -> Message:
    (found,) = parse(message)
    return found


def shape(message: Message) -> list[tuple[str, int]]:
    return [(piece.kind, piece.chars) for piece in message.pieces]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"role": "user", "parts": [{"type": "text", "content": "hello"}]},
        {"role": "user", "parts": [{"text": "hello"}]},
        "hello",
    ],
)
def test_a_users_words_in_every_dialect(message: object) -> None:
    assert shape(one(message)) == [("user", 5)]
    assert one(message).said == one("hello").said


def test_roles_are_kinds_of_parts() -> None:
    kinds = [one({"role": role, "content": "x"}).kind for role in ("system", "developer", "assistant", "tool", "user")]
    assert kinds == ["definition", "definition", "answer", "tool", "user"]


RESULTS = [
    {"role": "tool", "tool_call_id": "k", "content": "four"},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "k", "content": "four"}]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "k", "content": [{"type": "text", "text": "four"}]}]},
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "k", "result": "four"}]},
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "k", "response": "four"}]},
    {"type": "function_call_output", "call_id": "k", "output": "four"},
]  # fmt: skip
CALLS = [
    {"role": "assistant", "content": None,
     "tool_calls": [{"id": "k", "type": "function", "function": {"name": "bash", "arguments": "{}"}}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "k", "name": "bash", "input": {}}]},
    {"role": "assistant", "parts": [{"type": "tool_call", "id": "k", "name": "bash", "arguments": {}}]},
    {"type": "function_call", "call_id": "k", "name": "bash", "arguments": "{}"},
]  # fmt: skip


@pytest.mark.parametrize("message", RESULTS)
def test_results_name_their_call(message: object) -> None:
    (piece,) = one(message).pieces
    assert (piece.kind, piece.chars, piece.tool_id) == ("tool", 4, "k")


@pytest.mark.parametrize("message", CALLS)
def test_calls_of_tools_have_ids_and_names(message: object) -> None:
    found = one(message)
    assert (found.kind, found.calls, found.chars) == ("answer", (("k", "bash"),), len("bash{}"))


def test_answers_are_known_again_in_other_words() -> None:
    messages = Messages()
    answer = messages.answer(b'{"choices":[{"message":{"role":"assistant","content":"yes ","tool_calls":null}}]}')
    assert answer is not None
    assert one({"role": "assistant", "content": [{"type": "text", "text": "yes"}]}).answers(answer)
    assert not one({"role": "assistant", "content": "no"}).answers(answer)
    calling = messages.answer(json.dumps(CALLS[0]).encode())
    assert calling is not None
    assert all(one(message).answers(calling) for message in CALLS)
    assert messages.answer(b"null") is messages.answer(b'{"choices":[]}') is None


def test_items_of_one_answer_are_one_message() -> None:
    found = parse({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, CALLS[3], RESULTS[5])
    assert [message.kind for message in found] == ["answer", "tool"]
    assert found[0].thinks
    assert found[0].calls == (("k", "bash"),)


def test_the_scaffold_stands_first_and_is_equal_whatever_the_spaces() -> None:
    a = Messages().prompt(b'["hi"]', system=b'"be kind"', tools=b'[{"name": "t",  "d": 1}]')
    b = Messages().prompt(b'["hi"]', system=b'[{"type":"text","text":"be kind"}]', tools=b'[{"d":1,"name":"t"}]')
    assert [message.scaffold for message in a] == ["tools", "system", None]
    assert a[0].digest == b[0].digest
    assert [piece.chars for message in a for piece in message.pieces] == [len('[{"name":"t","d":1}]'), 7, 2]


def test_strings_that_hold_json_and_wrapped_lists() -> None:
    plain = parse({"role": "user", "content": "x"})
    text = json.dumps([{"role": "user", "content": "x"}])
    assert Messages().prompt(json.dumps(text).encode()) == plain
    wrapped = Messages().prompt(json.dumps({"messages": json.loads(text), "tools": ["t"]}).encode())
    assert wrapped[1:] == plain
    assert wrapped[0].scaffold == "tools"
    assert Messages().prompt(json.dumps("[no json").encode())[0].chars == len("[no json")


def test_nothing_and_redacted_texts_are_no_messages() -> None:
    assert parse() == parse({"role": "user", "content": ""}) == ()
    assert parse({"role": "user", "content": REDACTED}, {"role": "user", "content": "x"}) == ()


def test_media_have_a_size_of_their_own() -> None:
    found = one({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 99_999}}]})
    assert (found.chars, found.media) == (MEDIA_CHARS, True)


def test_text_only_when_asked() -> None:
    data = b'[{"role":"user","content":"x"}]'
    assert Messages().prompt(data)[0].pieces[0].text is None
    assert Messages(keep_text=True).prompt(data)[0].pieces[0].text == "x"


@pytest.mark.parametrize(
    "odd", [1, None, [], {}, [[]], {"role": 3}, {"role": "user", "content": 7}, {"type": []}, True]
)
def test_odd_messages_are_texts(odd: object) -> None:
    parse(odd, {"role": "user", "content": [odd, {"type": "text", "text": odd}], "tool_calls": odd})
    Messages().answer(json.dumps(odd).encode())
