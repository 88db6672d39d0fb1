"""The JSON of OpenAI's chat completions and completions, as much of it as matters; unknown fields are passed over."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from workloom.drive.faults import reported
from workloom.drive.sse import Answer, Counts

Count = Annotated[int, Meta(ge=0, le=2**40)]
"""Tokens, as a server counts them. More than this is no count, and sums of it would not fit a record."""


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, gc=False):
    function: Function | None = None


class Delta(Struct, gc=False):
    """New text of an answer (or, as `message`, all of it)."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class PromptDetails(Struct, gc=False):
    cached_tokens: Count | None = None


class OutputDetails(Struct, gc=False):
    reasoning_tokens: Count | None = None


class Usage(Struct, gc=False):
    """The server's own count of tokens."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    reasoning_tokens: Count | None = None
    """Where SGLang puts it."""


class Event(Struct, gc=False):
    """One event, or the whole answer of a server that does not stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    message: Any = None
    """Some servers report an error so, without `error`."""
    code: Any = None
    type: Any = None


class OpenAIAnswer(Answer):
    """An answer of chat completions or completions."""

    decoder = msgspec.json.Decoder(Event)

    def counts(self) -> Counts:
        usage: Usage | None = self.usage
        if usage is None:
            return Counts()
        prompt, output = usage.prompt_tokens_details, usage.completion_tokens_details
        return Counts(
            usage.prompt_tokens,
            usage.completion_tokens,
            None if prompt is None else prompt.cached_tokens,
            usage.reasoning_tokens if output is None else output.reasoning_tokens,
        )

    def _hear(self, event: Event) -> int:
        if event.usage is not None:
            self.usage = event.usage
        choices = event.choices
        if event.error or (event.message is not None and not choices):
            raise _fault(event)
        if not choices:
            return 0
        count = 0
        for choice in choices:
            if choice.finish_reason is not None:
                self.finish = choice.finish_reason
            delta = choice.delta
            if delta is not None and delta.content and not (delta.reasoning_content or delta.reasoning):
                self.texts.append(delta.content)
                count += 1
                continue
            delta = delta or choice.message
            if delta is None:
                if choice.text:
                    self.texts.append(choice.text)
                    count += 1
                continue
            said = delta.content or delta.refusal
            if not said and delta.tool_calls:
                said = _called(delta.tool_calls)
            thought = delta.reasoning_content or delta.reasoning
            if thought:
                self.thoughts.append(thought)
            if said:
                self.texts.append(said)
                count += 1
            elif thought:
                count += 1
        return count

    def _hear_whole(self, event: Event) -> int | None:
        if not event.choices and not event.error and event.message is None:
            return None
        return self._hear(event)


def _fault(event: Event) -> Exception:
    if event.error:
        return reported(event.error)
    return reported({"message": event.message, "code": event.code, "type": event.type})


def _called(calls: list[ToolCall]) -> str:
    """The text of tool calls: what of their names and arguments has come."""
    functions = [call.function for call in calls if call.function is not None]
    return "".join(f"{function.name or ''}{function.arguments or ''}" for function in functions)
