"""OpenAI responses: ``POST /responses``. Events have a `type`; usage comes with the last, which holds the response."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from workloom.drive.api.base import Api
from workloom.drive.events import Count
from workloom.drive.faults import reported
from workloom.drive.frame import ResponsesFrame
from workloom.drive.sse import Answer, Counts


class InputDetails(Struct, gc=False):
    cached_tokens: Count | None = None


class OutputDetails(Struct, gc=False):
    reasoning_tokens: Count | None = None


class Usage(Struct, gc=False):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class Text(Struct, gc=False):
    """A piece of a message or of reasoning."""

    text: str | None = None
    refusal: str | None = None


class Item(Struct, gc=False):
    """Something that came out: a message, reasoning or a function call."""

    type: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    content: list[Text] | None = None
    summary: list[Text] | None = None


class Incomplete(Struct, gc=False):
    reason: str | None = None


class Response(Struct, gc=False):
    """The response as a whole."""

    status: str | None = None
    usage: Usage | None = None
    error: Any = None
    incomplete_details: Incomplete | None = None
    output: list[Item] | None = None


class Event(Struct, gc=False):
    """One event, or the whole response of a server that does not stream."""

    type: str | None = None
    delta: Any = None
    item: Item | None = None
    response: Response | None = None
    error: Any = None
    message: Any = None
    code: Any = None
    object: str | None = None
    status: str | None = None
    usage: Usage | None = None
    incomplete_details: Incomplete | None = None
    output: list[Item] | None = None


_SAID = {
    "response.output_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.custom_tool_call_input.delta",
    "response.mcp_call_arguments.delta",
}
_THOUGHT = {"response.reasoning_text.delta", "response.reasoning_summary_text.delta", "response.reasoning.delta"}
_LAST = {"response.completed", "response.incomplete", "response.failed"}
_CALLS = ("function_call", "custom_tool_call", "mcp_call")


class ResponsesAnswer(Answer):
    """An answer of the responses API."""

    decoder = msgspec.json.Decoder(Event)

    def counts(self) -> Counts:
        usage: Usage | None = self.usage
        if usage is None:
            return Counts()
        prompt, output = usage.input_tokens_details, usage.output_tokens_details
        return Counts(
            usage.input_tokens,
            usage.output_tokens,
            None if prompt is None else prompt.cached_tokens,
            None if output is None else output.reasoning_tokens,
        )

    def _hear(self, event: Event) -> int:
        kind = event.type
        if kind in _SAID or kind in _THOUGHT:
            if not isinstance(event.delta, str) or not event.delta:
                return 0
            (self.texts if kind in _SAID else self.thoughts).append(event.delta)
            return 1
        if kind in _LAST and event.response is not None:
            self._close(event.response)
        elif kind == "response.output_item.added":
            item = event.item
            if item is not None and item.type in _CALLS and item.name:
                self.texts.append(item.name)
                return 1
        elif event.error is not None or (event.message is not None and event.code is not None) or kind == "error":
            raise reported(event.error or {"message": event.message, "code": event.code})
        return 0

    def _hear_whole(self, event: Event) -> int | None:
        if event.error is not None or (event.message is not None and event.output is None):
            raise reported(event.error or {"message": event.message, "code": event.code})
        if event.output is None:
            return None
        self._close(Response(event.status, event.usage, None, event.incomplete_details))
        for item in event.output:
            kept = self.thoughts if item.type == "reasoning" else self.texts
            for piece in [*(item.summary or ()), *(item.content or ())]:
                kept.append(piece.text or piece.refusal or "")
            if item.type in _CALLS:
                kept.append(f"{item.name or ''}{item.arguments or item.input or ''}")
        return 1 if any(self.texts) or any(self.thoughts) else 0

    def _close(self, response: Response) -> None:
        """The response has come to its end."""
        self.usage = response.usage
        if response.status == "failed" or response.error is not None:
            raise reported(response.error or "the response failed")
        why = response.incomplete_details
        self.finish = why.reason if why is not None and why.reason else response.status
        self._closed = True


RESPONSES = Api(
    name="responses",
    path="/responses",
    frame=ResponsesFrame(),
    answers=ResponsesAnswer,
    prompt_fields=("input", "instructions", "tools"),
    limit_field="max_output_tokens",
    stream_fields={"stream": True, "store": False},
)
