"""The nouns: a session is a DAG of inference calls with explicit prefix sharing.

A prompt is ``inherited + spans + fresh`` tokens, in that order: what it repeats of an ancestor's prompt and answer,
then named texts it shares with calls that are no ancestors, then text unlike anything else. Recorded, hand-written
and synthetic workloads, the live driver, the simulator and the analysis all use these structs.

Everything is frozen and holds no cycles, so the collector need not look at it. Token counts are tokens, times are
seconds, instants are seconds from the start of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from workloom.errors import TraceError

Scope = Literal["trace", "session"]
PartKind = Literal["user", "tool", "report", "summary", "answer", "injected", "definition"]
Gap = Literal["tool", "human", "spawn", "network", "orchestration", "none"]
Status = Literal["ok", "error", "aborted"]


class Span(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The first `tokens` tokens of the text called `name`.

    Two uses share the shorter length, and only if everything before them is equal too. Scope `trace`: one text for
    every session and instance; `session`: one for each instance of the session.
    """

    name: str
    tokens: int
    scope: Scope = "session"


class Part(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A piece of fresh text. `seconds`: how long the tool that made it ran; `from_call`: whose result it carries.

    `text`: what it says, only where an import was told to keep texts.
    """

    kind: PartKind
    tokens: int
    name: str | None = None
    seconds: float | None = None
    from_call: str | None = None
    text: str | None = None


class Edge(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What must be done first, and how long after that the call is due."""

    call: str
    wait_s: float = 0.0
    gap: Gap = "none"


class Inherit(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The prompt begins with that much of an ancestor's prompt + answer; `tokens` None means all of it.

    All is its prompt and whatever answer came, also when a live answer is shorter or longer than planned.
    """

    call: str
    tokens: int | None = None


class Recorded(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What the trace says happened: instants in seconds from the start of the session.

    `estimated`: the counts (prompt_tokens, output_tokens, ...) that the trace does not tell and its reader worked out.
    `answer`: the text of the answer, only where an import was told to keep texts.
    """

    start_s: float | None = None
    first_s: float | None = None
    end_s: float | None = None
    cached_tokens: int | None = None
    status: Status = "ok"
    streaming: bool | None = None
    estimated: tuple[str, ...] = ()
    answer: str | None = None


class Call(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One inference request."""

    id: str
    output_tokens: int
    after: tuple[Edge, ...] = ()
    agent: str = "main"
    model: str = ""
    inherit: Inherit | None = None
    spans: tuple[Span, ...] = ()
    fresh: tuple[Part, ...] = ()
    reasoning_tokens: int = 0
    stop_after: int | None = None
    recorded: Recorded | None = None

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer that are listened to, by the plan."""
        return self.output_tokens if self.stop_after is None else min(self.output_tokens, self.stop_after)

    @property
    def span_tokens(self) -> int:
        return sum(span.tokens for span in self.spans)

    @property
    def fresh_tokens(self) -> int:
        return sum(part.tokens for part in self.fresh)


class Session(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A DAG of calls in topological order (every edge and inherit points backwards)."""

    id: str
    calls: tuple[Call, ...]
    start_s: float | None = None
    user: str | None = None
    workflow: str | None = None
    origin: str | None = None


class Header(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The first line of a native trace. `block_tokens`: the block size shared prefixes were found at, if any."""

    format: Literal["workloom"] = "workloom"
    version: int = 1
    source: str = ""
    block_tokens: int | None = None
    common_clock: bool = False


LONGEST_WAIT_S = 1e9
"""31 years: longer is no wait but a fault of units."""
MOST_TOKENS = 1 << 40
"""A million times the longest context there is: more is no count."""
LATEST_S = 1e12
"""In seconds from 1970, some 30,000 years on."""


def prompt_tokens(session: Session) -> dict[str, int]:
    """Planned prompt tokens of every call, in order: as if each answer came as planned."""
    prompts: dict[str, int] = {}
    wholes: dict[str, int] = {}
    for call in session.calls:
        tokens, inherit = 0, call.inherit
        for span in call.spans:
            tokens += span.tokens
        for part in call.fresh:
            tokens += part.tokens
        if inherit is not None:
            whole = wholes[inherit.call]
            tokens += whole if inherit.tokens is None else min(inherit.tokens, whole)
        prompts[call.id] = tokens
        wholes[call.id] = tokens + call.answer_tokens
    return prompts


def children(session: Session) -> dict[str, list[Call]]:
    """For every call the calls with an edge from it, in order, each once."""
    out: dict[str, list[Call]] = {call.id: [] for call in session.calls}
    for call in session.calls:
        for parent in dict.fromkeys(edge.call for edge in call.after):
            out[parent].append(call)
    return out


def ready(call: Call, done_s: Mapping[str, float]) -> float | None:
    """When the call is due: the latest of (done + wait_s) over its edges; None while one is not done, 0 for a root."""
    due = 0.0
    for edge in call.after:
        done = done_s.get(edge.call)
        if done is None:
            return None
        due = max(due, done + edge.wait_s)
    return due


def validate(session: Session) -> None:
    """Raise a TraceError for the first thing about the session that cannot be true."""
    if not session.calls:
        raise TraceError("a session has no calls", where=f"session {session.id}", expected="at least one call", found=0)
    if session.start_s is not None and not -LATEST_S <= session.start_s <= LATEST_S:
        expected, where = "seconds, up to a trillion", f"session {session.id}, start_s"
        raise TraceError("a start is not an instant", where=where, expected=expected, found=session.start_s)
    wholes: dict[str, int] = {}  # prompt + output of the calls before this one
    ancestry: _Ancestry | None = None
    for call in session.calls:
        if call.id in wholes:
            raise _fault(session, call, "two calls have one id", "id", "ids unique in the session", call.id)
        direct = False
        for edge in call.after:
            if edge.call not in wholes:
                what = "an edge points at no earlier call"
                raise _fault(session, call, what, "after", "the id of an earlier call", edge.call)
            if not 0 <= edge.wait_s <= LONGEST_WAIT_S:
                expected = "seconds, 0 to a billion"
                raise _fault(session, call, "a wait is not a duration", "after.wait_s", expected, edge.wait_s)
            direct = direct or (call.inherit is not None and edge.call == call.inherit.call)
        tokens = _counted(session, call, wholes)
        if call.inherit is not None:
            if not direct:
                ancestry = ancestry or _Ancestry(session)
                if not ancestry.holds(call.inherit.call, call.id):
                    what, found = "it inherits from a call that is no ancestor", call.inherit.call
                    raise _fault(session, call, what, "inherit.call", "an ancestor", found)
            whole, part = wholes[call.inherit.call], call.inherit.tokens
            if part is not None and not 0 <= part <= whole:
                raise _fault(session, call, "it inherits more than there is", "inherit.tokens", f"0 to {whole}", part)
            tokens += whole if part is None else part
        wholes[call.id] = tokens + call.output_tokens


def _counted(session: Session, call: Call, earlier: Mapping[str, int]) -> int:
    """Tokens of spans and fresh parts, all counts of the call checked."""
    output, reasoning = call.output_tokens, call.reasoning_tokens
    if not 0 <= output <= MOST_TOKENS:
        raise _miscounted(session, call, "output_tokens", output)
    if not 0 <= reasoning <= output:
        if reasoning < 0:
            raise _miscounted(session, call, "reasoning_tokens", reasoning)
        what = "more reasoning than output"
        raise _fault(session, call, what, "reasoning_tokens", f"at most {output}", reasoning)
    if call.stop_after is not None and not 1 <= call.stop_after <= MOST_TOKENS:
        raise _fault(session, call, "stop_after is not a token count", "stop_after", "1 or more", call.stop_after)
    if call.recorded is not None and not 0 <= (call.recorded.cached_tokens or 0) <= MOST_TOKENS:
        raise _miscounted(session, call, "recorded.cached_tokens", call.recorded.cached_tokens)
    tokens = 0
    for span in call.spans:
        if not 0 <= span.tokens <= MOST_TOKENS:
            raise _miscounted(session, call, f"spans[{span.name}].tokens", span.tokens)
        tokens += span.tokens
    for index, part in enumerate(call.fresh):
        if not 0 <= part.tokens <= MOST_TOKENS:
            raise _miscounted(session, call, f"fresh[{index}].tokens", part.tokens)
        if part.from_call is not None and part.from_call not in earlier:
            what, field = "a part comes from no earlier call", f"fresh[{index}].from_call"
            raise _fault(session, call, what, field, "the id of an earlier call", part.from_call)
        tokens += part.tokens
    return tokens


class _Ancestry:
    """Who is above whom, as bit sets over indices: one pass, made only where a call inherits from further up."""

    def __init__(self, session: Session) -> None:
        self._index: dict[str, int] = {}
        self._above: dict[str, int] = {}
        for index, call in enumerate(session.calls):
            mine = 0
            for edge in call.after:
                if edge.call in self._index:
                    mine |= self._above[edge.call] | 1 << self._index[edge.call]
            self._index.setdefault(call.id, index)
            self._above.setdefault(call.id, mine)

    def holds(self, ancestor: str, call: str) -> bool:
        index = self._index.get(ancestor)
        return index is not None and bool(self._above[call] >> index & 1)


def _miscounted(session: Session, call: Call, field: str, found: int | None) -> TraceError:
    what = "a token count is negative" if found is not None and found < 0 else "a token count is no count"
    return _fault(session, call, what, field, "0 or more, at most a trillion", found)


def _fault(session: Session, call: Call, what: str, field: str, expected: object, found: object) -> TraceError:
    return TraceError(what, where=f"session {session.id}, call {call.id}, {field}", expected=expected, found=found)
