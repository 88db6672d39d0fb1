"""From the messages of a mini-swe-agent run to its calls.

system, user | assistant | tool ... | assistant | ...        a request leaves when the last output is there
               timestamp  timestamp                          and ends when its assistant message is added
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from workloom.session import Call, Edge, Gap, Inherit, Part, Recorded
from workloom.traces.reading import Report
from workloom.traces.thread import Thread
from workloom.traces.turns import Done, Turn, edges, estimate, exact

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Seconds = Annotated[float, Meta(ge=0, le=1 << 40)]

HUMAN = ("UserInterruption", "UserRejection", "UserNewTask")
"""Interrupts that carry what a person typed."""
TOOL = "bash"
"""The only tool there is."""


class _Details(Struct):
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class Usage(Struct):
    """Of chat completions, or of the Responses API (input_tokens, output_tokens)."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: Count | None = None

    def sizes(self) -> _Sizes | None:
        """None where the provider counted nothing."""
        prompt = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        output = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        if prompt is None or output is None or not (prompt or output):
            return None
        read = self.prompt_tokens_details or self.input_tokens_details or _Details()
        thought = self.completion_tokens_details or self.output_tokens_details or _Details()
        cached = read.cached_tokens if read.cached_tokens is not None else self.cache_read_input_tokens
        return _Sizes(
            prompt, output, None if cached is None else min(cached, prompt), min(thought.reasoning_tokens or 0, output)
        )


class _Sizes(NamedTuple):
    prompt: int
    output: int
    cached: int | None
    reasoning: int
    estimated: tuple[str, ...] = ()


class _Response(Struct):
    model: str | None = None
    usage: Usage | None = None


class _Extra(Struct):
    timestamp: Seconds | None = None
    actions: list[msgspec.Raw] | None = None
    response: _Response | str | None = None
    model_response: str | None = None
    interrupt_type: str | None = None
    raw_output: str | None = None
    returncode: int | None = None
    exit_status: str | None = None
    exception_str: str | None = None


class _Block(Struct):
    text: str | None = None


class _Function(Struct):
    arguments: str | None = None


class _ToolCall(Struct):
    function: _Function | None = None


class _Item(Struct):
    """Something a Responses API answer consists of."""

    type: str | None = None
    content: list[_Block] | str | None = None
    arguments: str | None = None


class Message(Struct):
    role: str | None = None
    type: str | None = None
    object: str | None = None
    content: str | list[_Block] | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    output: list[_Item] | str | None = None
    usage: Usage | None = None
    model: str | None = None
    timestamp: Seconds | None = None
    extra: _Extra = msgspec.field(default_factory=_Extra)

    @property
    def at_s(self) -> float | None:
        """When it was added, in epoch seconds."""
        return self.timestamp if self.extra.timestamp is None else self.extra.timestamp

    @property
    def answers(self) -> bool:
        """Whether a model made it."""
        return self.role == "assistant" or self.object == "response"

    @property
    def kind(self) -> Literal["tool", "user", "injected", "definition"]:
        """What it is where it comes in."""
        if self.extra.interrupt_type is not None:
            return "user" if self.extra.interrupt_type in HUMAN else "injected"
        if self.role in ("system", "developer"):
            return "definition"
        return "tool"


class Run:
    """The calls of a run; `zero_s` is when it began, in epoch seconds, None where nothing says."""

    def __init__(self, model: str, report: Report, *, text: bool) -> None:
        self.calls: list[Call] = []
        self.zero_s: float | None = None
        self._model = model
        self._report = report
        self._text = text
        self._thread = Thread()
        self._parts: list[Part] = []
        self._latest_s: float | None = None
        """When the latest message was added that says so."""
        self._ended_s: float | None = None
        """When the last call ended."""
        self._human = False
        self._actions = 0
        self._before_prompt = 0
        self._unkept = False
        """Whether the last answer was left out of the history."""

    def feed(self, message: Message) -> None:
        if message.answers:
            self._call(message, _said(message), kept=True)
            return
        extra = message.extra
        if extra.interrupt_type == "FormatError" and (extra.response is not None or extra.model_response):
            self._call(message, extra.model_response or "", kept=False)
        if message.role == "exit" or extra.exit_status is not None:
            if extra.exception_str is not None:
                self._report.drop("runs ended by an error; the request it may have failed is not in their file")
            return
        self._come(message)

    def _come(self, message: Message) -> None:
        """A message that a later prompt holds."""
        text = _said(message)
        at_s, kind = message.at_s, message.kind
        if not self.calls and kind == "tool":
            kind = "user"
        name = {"tool": TOOL, "definition": "system"}.get(kind)
        part = Part(kind, estimate(len(text)), name, text=text if self._text else None)
        if at_s is not None:
            at_s = max(at_s, self._latest_s or 0.0)
            if kind == "tool" and self._actions == 1 and self._ended_s is not None:
                part = replace(part, seconds=exact(max(0.0, at_s - self._ended_s)))
            self._latest_s = at_s
        self._human = self._human or kind == "user"
        self._parts.append(part)

    def _call(self, message: Message, said: str, *, kept: bool) -> None:
        extra = message.extra
        response = extra.response if isinstance(extra.response, _Response) else _Response()
        sizes = self._sizes(response.usage or message.usage, message, said)
        index, before = len(self.calls), self.calls[-1] if self.calls else None
        turn = Turn(f"c{index}", sizes.prompt, sizes.output, sizes.reasoning)
        seen = turn if kept else turn._replace(output=0, reasoning=0)
        context = self._thread.follow(seen, sizes.cached, self._parts, estimated=bool(sizes.estimated))
        inherit = context.inherit
        if self._unkept and inherit is not None and before is not None and inherit.call == before.id:
            tokens = self._before_prompt if inherit.tokens is None else inherit.tokens
            inherit = Inherit(inherit.call, tokens)
        if context.reset:
            self._report.infer("prompts shorter than the one before, for no reason the trajectory tells")
        if not kept:
            self._report.infer("answers that could not be parsed and are in no later prompt")
        start_s, end_s = self._instants(message.at_s)
        self.calls.append(
            Call(
                id=turn.id,
                output_tokens=turn.output,
                after=self._after(before, start_s),
                model=response.model or message.model or self._model,
                inherit=inherit,
                fresh=context.fresh,
                reasoning_tokens=turn.reasoning,
                recorded=Recorded(
                    start_s,
                    None,
                    end_s,
                    sizes.cached,
                    estimated=sizes.estimated,
                    answer=said if self._text and said else None,
                ),
            )
        )
        self._before_prompt = turn.prompt
        self._unkept = not kept
        self._human = False
        self._parts = []
        self._actions = len(extra.actions or ())

    def _sizes(self, usage: Usage | None, message: Message, said: str) -> _Sizes:
        sizes = usage.sizes() if usage is not None else None
        if sizes is not None:
            return sizes
        self._report.infer("calls without usage, their sizes estimated from texts")
        self._report.assume("estimated sizes are a token for four characters of what the trajectory shows")
        prompt = self._thread.whole + sum(part.tokens for part in self._parts)
        reasoning = estimate(len(message.reasoning_content or ""))
        return _Sizes(prompt, reasoning + estimate(len(said)), None, reasoning, ("prompt_tokens", "output_tokens"))

    def _instants(self, at_s: float | None) -> tuple[float | None, float | None]:
        """(start, end) of the call that ends now, in seconds from the start of the run; None where nothing says."""
        if at_s is None:
            self._report.assume("where a trajectory has no times, its tools and its users take none")
            self._ended_s = None
            return None, None
        began_s = self._latest_s
        at_s = max(at_s, began_s or 0.0)
        if self.zero_s is None:
            self.zero_s = at_s if began_s is None else began_s
            if began_s is None:
                self._report.assume("a run begins when its first answer came: nothing says when its request left")
        self._latest_s = self._ended_s = at_s
        start_s = None if began_s is None else exact(began_s - self.zero_s)
        return start_s, exact(at_s - self.zero_s)

    def _after(self, before: Call | None, start_s: float | None) -> tuple[Edge, ...]:
        if before is None:
            return ()
        gap: Gap = "human" if self._human else "tool" if self._parts else "orchestration"
        end_s = before.recorded.end_s if before.recorded is not None else None
        if start_s is None or end_s is None:
            return (Edge(before.id, 0.0, gap),)
        return edges(start_s, [Done(before.id, end_s, end_s, gap)])


def _said(message: Message) -> str:
    """All that a message says: its text, and what it asks tools to do."""
    said = [_text(message.content)]
    if isinstance(message.output, str):
        said.append(message.output)
    for item in message.output if isinstance(message.output, list) else ():
        said += [_text(item.content), item.arguments or ""]
    said += [call.function.arguments or "" for call in message.tool_calls or () if call.function is not None]
    return "\n".join(text for text in said if text)


def _text(content: str | list[_Block] | None) -> str:
    if isinstance(content, list):
        return "\n".join(block.text for block in content if block.text)
    return content or ""
