"""What telemetry shows: nodes of a trace, and calls with what each waited for. Instants are ns from 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct, field

from workloom.errors import TraceError
from workloom.session import Gap, Status
from workloom.traces.reading import Report
from workloom.traces.telemetry.message import Message

Kind = Literal["call", "tool", "agent", "other"]
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
LATEST_NS = 1 << 62
"""The year 2116: later is no instant."""


class Node(Struct):
    """A span, an observation or a logged request. `trace`: its number in the session; ids are those of the trace.

    Token counts are None where the trace does not tell them; `created`: prompt tokens written to a cache. `first_ns`:
    of the first chunk of a streamed answer. `chars`: of a tool's result. `user` and `workflow` are the session's.
    """

    trace: int
    id: str
    parent: str | None
    kind: Kind
    start_ns: int
    end_ns: int | None
    first_ns: int | None = None
    name: str | None = None
    model: str = ""
    prompt: int | None = None
    cached: int | None = None
    created: int = 0
    output: int | None = None
    reasoning: int = 0
    status: Status = "ok"
    streaming: bool | None = None
    messages: tuple[Message, ...] = ()
    answer: Message | None = None
    text: str | None = None
    tool_id: str | None = None
    chars: int | None = None
    user: str | None = None
    workflow: str | None = None
    estimated: tuple[str, ...] = ()

    @property
    def done_ns(self) -> int:
        return self.start_ns if self.end_ns is None else self.end_ns


class Dep(NamedTuple):
    """Something that a call waited for: a call, when its result was there, what was between."""

    call: int
    ready_ns: int
    gap: Gap


class Seen(Struct):
    """A call in the order of a session: `deps` point at earlier ones.

    `tools` ran before it, `reports` are the last calls of subagents it waited for, by the id of the tool call that
    started them (or None); `asked`: a human came in.
    """

    node: Node
    agent: str
    deps: list[Dep]
    tools: list[Node] = field(default_factory=list)
    reports: list[tuple[int, str | None]] = field(default_factory=list)
    asked: bool = False


def instant(value: str | int | float, place: str, name: str) -> int:
    """An instant in ns from 1970: of ISO text (UTC without a zone), digits, or a number in s, ms, us or ns."""
    try:
        ns = _instant(value)
    except (ValueError, OverflowError):
        ns = -1
    if not 0 <= ns <= LATEST_NS:
        expected = "an ISO time, or seconds to nanoseconds from 1970"
        raise TraceError("a time is no instant", where=f"{place}, {name}", expected=expected, found=f"{value!r:.80}")
    return ns


def _instant(value: str | int | float) -> int:
    if isinstance(value, str):
        if not value.isdigit() or len(value) > 20:
            return _iso(value)
        value = int(value)
    if isinstance(value, int):
        for digits, scale in ((17, 1), (14, 1_000), (11, 1_000_000)):
            if value >= 10**digits:
                return value * scale
        return value * 1_000_000_000
    if value >= 1e11:
        return _instant(int(value))
    return round(value * 1e6) * 1_000


def _iso(text: str) -> int:
    head, point, rest = text.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789")) if point else 0
    fraction, zone = rest[:digits], rest[digits:]
    when = datetime.fromisoformat((head + zone).replace("Z", "+00:00").replace("z", "+00:00"))
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    seconds = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (seconds.days * 86_400 + seconds.seconds) * 1_000_000_000 + int((fraction + "0" * 9)[:9])


def settle(nodes: list[Node], report: Report) -> list[Node]:
    """The calls of a session, with whole prompt counts: some tracers leave out of them what came from a cache.

    That shows where the cached tokens are more than the prompt; then it holds for all calls of the model here.
    """
    for node in nodes:
        if node.end_ns is not None and node.end_ns < node.start_ns:
            node.end_ns = node.start_ns
            report.infer("spans that end before they begin, taken to end at once")
    calls = [node for node in nodes if node.kind == "call"]
    apart = {
        call.model for call in calls if call.prompt is not None and (call.cached or 0) + call.created > call.prompt
    }
    if any(call.cached for call in calls):
        report.assume(
            "prompt counts hold the cached tokens, unless a call of the session has more cached tokens than prompt"
        )
    for call in calls:
        if call.first_ns is not None and not call.start_ns <= call.first_ns <= (call.end_ns or call.first_ns):
            call.first_ns = None
            report.drop("times of a first token outside of their call")
        call.prompt = call.prompt or None  # no prompt is empty: failed calls often count 0
        if call.model in apart and call.prompt is not None:
            extra = (call.cached or 0) + call.created
            call.prompt += extra
            report.infer("prompt counts without the cached tokens, which were added", 1 if extra else 0)
        if call.output is not None and call.reasoning > call.output:
            call.output += call.reasoning
            report.infer("output counts smaller than the reasoning, which was added")
    return calls
