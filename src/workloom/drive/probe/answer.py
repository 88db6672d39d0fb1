"""An answer of any of the APIs, read tolerantly: what it says, how it is cut up, and what it counts.

The structs hold what matters of all APIs together: OpenAI chat completions, completions and responses, Anthropic
messages. What is not understood is a fault of the answer, told in `error`, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from workloom.drive.probe.wire import Reply

Place = Literal["finish", "empty", "every", "body"]
"""Where usage was: in the chunk of the finish reason, in one without choices, in every chunk, in an unstreamed body."""


class Details(Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(Struct):
    """Token counts under the names of all APIs."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    output_tokens_details: Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None

    @property
    def prompt(self) -> int | None:
        """All tokens of the prompt; Anthropic's input_tokens leave out what the cache had or took."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)

    @property
    def output(self) -> int | None:
        return self.completion_tokens if self.completion_tokens is not None else self.output_tokens

    @property
    def cached(self) -> tuple[int, str] | None:
        """Cached tokens of the prompt and the field that said so."""
        for name in ("prompt_tokens_details", "input_tokens_details"):
            details = getattr(self, name)
            if details is not None and details.cached_tokens is not None:
                return details.cached_tokens, f"{name}.cached_tokens"
        for name in ("cache_read_input_tokens", "prompt_cache_hit_tokens"):
            value = getattr(self, name)
            if value is not None:
                return value, name
        return None

    def over(self, earlier: Usage | None) -> Usage:
        """This usage, with what only an earlier one said (Anthropic counts the prompt first, the output last)."""
        if earlier is None:
            return self
        known = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return msgspec.structs.replace(earlier, **known)


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct):
    function: _Function | None = None


class _Said(Struct):
    """A delta or a message."""

    role: str | None = None
    content: Any = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


class _Choice(Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Response(Struct):
    status: str | None = None
    usage: Usage | None = None
    error: Any = None
    incomplete_details: Any = None


class _Timings(Struct):
    cache_n: int | None = None


class _Event(Struct):
    type: str | None = None
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    delta: str | _Said | None = None
    message: str | _Said | None = None
    response: _Response | None = None
    error: Any = None
    prompt_token_ids: list[int] | None = None
    timings: _Timings | None = None
    model: str | None = None
    content: Any = None
    output: Any = None
    detail: Any = None


NONSENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for what is no JSON, not of the shape that is looked for, or a thousand brackets deep."""

_decode = msgspec.json.Decoder(_Event).decode


class Answer(Struct):
    """What a call came to. Instants are nanoseconds since sending."""

    status: int
    ending: str
    error: str | None = None
    """Why this is no answer: a transport fault, a status, an error event, or nonsense."""
    error_in_stream: bool = False
    """The error came after status 200."""
    streamed: bool = False
    text: str = ""
    reasoning: str = ""
    tool_calls: str = ""
    chunks_ns: list[int] = field(default_factory=list)
    """Instants of the chunks that said something."""
    first_role_only: bool | None = None
    """The first chunk held a role and no text; None: there is no such thing here."""
    silent_chunks: int = 0
    """Chunks of no text after the first that said something and before the one of the finish reason."""
    finish: str | None = None
    usage: Usage | None = None
    places: list[Place] = field(default_factory=list)
    done: bool = False
    """``[DONE]``, or the API's own last event, came."""
    token_ids: int | None = None
    prompt_token_ids: int | None = None
    cache_n: int | None = None
    """llama.cpp's own count of cached tokens."""
    served_model: str | None = None
    took_ns: int = 0
    reused: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def refused(self) -> bool:
        """The server said no: a status of 4xx, or 501."""
        return 400 <= self.status < 500 or self.status == 501

    @property
    def output_tokens(self) -> int | None:
        return self.usage.output if self.usage is not None else None

    @property
    def prompt_tokens(self) -> int | None:
        return self.usage.prompt if self.usage is not None else None

    @property
    def said_something(self) -> bool:
        return bool(self.chunks_ns)


def read(reply: Reply) -> Answer:
    """The answer in a reply."""
    answer = Answer(reply.status, reply.ending, reply.error, took_ns=reply.took_ns, reused=reply.reused)
    if reply.error is not None:
        return answer
    if reply.status != 200:
        answer.error = f"status {reply.status}: {reason(reply.body)}".removesuffix(": ")
        return answer
    start = reply.body.lstrip()[:1]
    if start in (b"{", b"[", b"<"):
        _take_whole(answer, reply)
        return answer
    for at_ns, data in events(reply.reads):
        answer.streamed = True
        if data.strip() == b"[DONE]":
            answer.done = True
            continue
        try:
            event = _decode(data)
        except NONSENSE as fault:
            answer.error = f"malformed event {data[:60].decode('utf-8', 'replace')!r}: {fault}"
            return answer
        if _take(answer, event, at_ns):
            return answer
    if not answer.streamed:
        answer.error = "an empty answer"
    elif not answer.said_something and reply.ending == "complete":
        answer.error = "a stream that says nothing"
    return answer


def events(reads: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The data of each server-sent event with the instant of the read that ended it."""
    carry = b""
    for at_ns, body in [*reads, (reads[-1][0] if reads else 0, b"\n\n")]:
        carry = (carry + body).replace(b"\r\n", b"\n")
        *complete, carry = carry.split(b"\n\n")
        for event in complete:
            data = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
            if data.strip():
                yield at_ns, data


def reason(body: bytes) -> str:
    """A server's own words in the body of a refusal; servers put them in several places."""
    try:
        said = msgspec.json.decode(body)
    except NONSENSE:
        return body[:200].decode("utf-8", "replace").strip()
    return words_of(said)


def words_of(said: Any) -> str:
    """The message in whatever JSON an error is told by."""
    for _ in range(4):
        if not isinstance(said, dict):
            break
        said = next((said[name] for name in ("error", "message", "detail") if said.get(name)), str(said))
    return str(said)


def _take_whole(answer: Answer, reply: Reply) -> None:
    """An answer in one piece: a server that does not stream, or an error with status 200."""
    try:
        event = _decode(reply.body)
    except NONSENSE:
        answer.error = f"no answer of an API: {reply.body[:60].decode('utf-8', 'replace')!r}"
        return
    at_ns = reply.reads[-1][0]
    if event.error:
        answer.error = words_of(event.error)
        return
    answer.served_model = event.model
    answer.usage = event.usage
    answer.places = ["body"] if event.usage is not None else []
    for choice in event.choices or []:
        answer.finish = choice.finish_reason
        if _say(answer, choice):
            answer.chunks_ns.append(at_ns)
    if not event.choices and (event.content or event.output):  # messages, responses
        answer.chunks_ns.append(at_ns)
    if not answer.said_something:
        answer.error = f"no answer of an API: {reply.body[:60].decode('utf-8', 'replace')!r}"


def _take(answer: Answer, event: _Event, at_ns: int) -> bool:
    """Take in one event of a stream; True when it is an error, which ends the answer."""
    fault = event.error if event.error is not None else event.response.error if event.response is not None else None
    if fault is None and event.choices is None and event.type is None and isinstance(event.message, str):
        fault = event.message
    if fault is not None:
        answer.error, answer.error_in_stream = words_of(fault), True
        return True
    answer.served_model = answer.served_model or event.model
    if event.timings is not None and event.timings.cache_n is not None:
        answer.cache_n = event.timings.cache_n
    if event.prompt_token_ids is not None:
        answer.prompt_token_ids = len(event.prompt_token_ids)
    said = _take_typed(answer, event) if event.type is not None and event.choices is None else _take_chat(answer, event)
    if said:
        answer.chunks_ns.append(at_ns)
    return False


def _take_chat(answer: Answer, event: _Event) -> bool:
    """An event of chat completions or completions; True when it says something."""
    choices = event.choices or []
    said = any([_say(answer, choice) for choice in choices])
    finish = next((choice.finish_reason for choice in choices if choice.finish_reason), None)
    if choices and answer.first_role_only is None and choices[0].delta is not None:
        answer.first_role_only = not said and choices[0].delta.role is not None
    elif choices and answer.said_something and not said and not finish:
        answer.silent_chunks += 1
    for choice in choices:
        if choice.token_ids is not None:
            answer.token_ids = (answer.token_ids or 0) + len(choice.token_ids)
        if choice.prompt_token_ids is not None:
            answer.prompt_token_ids = len(choice.prompt_token_ids)
    answer.finish = finish or answer.finish
    if event.usage is not None:
        answer.usage = event.usage.over(answer.usage)
        place: Place = "empty" if not choices else "finish" if finish else "every"
        if place not in answer.places:
            answer.places.append(place)
    return said


def _say(answer: Answer, choice: _Choice) -> bool:
    """Keep what a choice says; False: nothing."""
    part = choice.delta or choice.message or _Said()
    text = part.content if isinstance(part.content, str) else choice.text or ""
    thought = part.reasoning_content or part.reasoning or ""
    called = "".join(
        f"{call.function.name or ''}{call.function.arguments or ''}"
        for call in part.tool_calls or []
        if call.function is not None
    )
    answer.text += text
    answer.reasoning += thought
    answer.tool_calls += called
    return bool(text or thought or called)


def _take_typed(answer: Answer, event: _Event) -> bool:
    """An event of responses or messages; True when it says something."""
    kind, delta = event.type or "", event.delta
    message = event.message if isinstance(event.message, _Said) else None
    response = event.response
    usage = event.usage or (message.usage if message else None) or (response.usage if response else None)
    if usage is not None:
        answer.usage = usage.over(answer.usage)
        answer.places = ["finish"]
    if kind in ("response.completed", "response.incomplete", "message_stop"):
        answer.done = True
        answer.finish = answer.finish or (response.status if response else None)
    if isinstance(delta, _Said):
        answer.finish = delta.stop_reason or answer.finish
        answer.text += delta.text or ""
        answer.reasoning += delta.thinking or ""
        answer.tool_calls += delta.partial_json or ""
        return bool(delta.text or delta.thinking or delta.partial_json)
    if isinstance(delta, str) and kind.endswith(".delta"):
        if "reasoning" in kind:
            answer.reasoning += delta
        elif "arguments" in kind:
            answer.tool_calls += delta
        else:
            answer.text += delta
        return bool(delta)
    return False
