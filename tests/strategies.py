"""Hypothesis strategies that several tests use.

`sessions()` draws valid session DAGs with chains, fan-outs, joins, inheritance of every kind and shared spans;
`workload()` draws a few of them with different ids.
"""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from workloom.session import Call, Edge, Gap, Inherit, Part, PartKind, Recorded, Session, Span, validate

SPAN_NAMES = ("scaffold", "tools", "notes")
AGENTS = ("main", "Explore:a1", "Plan:b2")

_seconds = st.one_of(st.just(0.0), st.floats(0.0, 90.0).map(lambda x: round(x, 3)))


def parts(max_tokens: int) -> st.SearchStrategy[Part]:
    """A piece of fresh text of any kind, 0 to `max_tokens` tokens."""
    return st.builds(
        Part,
        kind=st.sampled_from(get_args(PartKind)),
        tokens=st.integers(0, max_tokens),
        name=st.none() | st.sampled_from(("read", "bash")),
        seconds=st.none() | _seconds,
    )


def spans(max_tokens: int) -> st.SearchStrategy[Span]:
    """The beginning of one of a few named texts, so that sharing is common."""
    return st.builds(
        Span,
        name=st.sampled_from(SPAN_NAMES),
        tokens=st.integers(1, max_tokens),
        scope=st.sampled_from(("trace", "session")),
    )


@st.composite
def _edges(draw: st.DrawFn, earlier: list[str]) -> tuple[Edge, ...]:
    """One to three edges: mostly from the last call, at times a fork from further up or a join."""
    chosen = {earlier[-1]} if draw(st.booleans()) else {draw(st.sampled_from(earlier))}
    if len(earlier) > 1 and draw(st.integers(0, 3)) == 0:
        chosen |= set(draw(st.lists(st.sampled_from(earlier), max_size=2)))
    gaps = st.sampled_from(get_args(Gap))
    return tuple(Edge(name, draw(_seconds), draw(gaps)) for name in earlier if name in chosen)


@st.composite
def _inherit(draw: st.DrawFn, ancestors: list[str], prompts: dict[str, int], outputs: dict[str, int]) -> Inherit | None:
    """Nothing, all, the prompt alone, or any cut of an ancestor's prompt and answer."""
    if not ancestors:
        return None
    how = draw(st.sampled_from(("all", "all", "prompt", "cut", "none")))
    if how == "none":
        return None
    call = ancestors[-1] if draw(st.booleans()) else draw(st.sampled_from(ancestors))
    if how == "all":
        return Inherit(call)
    whole = prompts[call] + outputs[call]
    return Inherit(call, prompts[call] if how == "prompt" else draw(st.integers(0, whole)))


@st.composite
def sessions(
    draw: st.DrawFn,
    *,
    min_calls: int = 1,
    max_calls: int = 8,
    max_tokens: int = 300,
    max_output: int = 120,
    min_output: int = 1,
    recorded: bool = False,
    stop_after: bool = False,
    name: str = "s",
) -> Session:
    """A valid session: one root, every other call with 1 to 3 edges, prompts of at least one token.

    `max_tokens` bounds each part and span, not the prompt. `recorded` adds instants that agree with the order of the
    DAG; `stop_after` lets some calls be aborted. Calls are named c0, c1, ... in topological order.
    """
    calls: list[Call] = []
    above: dict[str, set[str]] = {}
    prompts: dict[str, int] = {}
    outputs: dict[str, int] = {}
    ends: dict[str, float] = {}
    for index in range(draw(st.integers(min_calls, max_calls))):
        call_id = f"c{index}"
        after = draw(_edges([call.id for call in calls])) if calls else ()
        above[call_id] = {edge.call for edge in after}.union(*(above[edge.call] for edge in after))
        inherit = draw(_inherit([call.id for call in calls if call.id in above[call_id]], prompts, outputs))
        shared = tuple(draw(st.lists(spans(max_tokens), max_size=2)))
        fresh = tuple(draw(st.lists(parts(max_tokens), max_size=3)))
        inherited = 0
        if inherit is not None:
            whole = prompts[inherit.call] + outputs[inherit.call]
            inherited = whole if inherit.tokens is None else inherit.tokens
        prompt = inherited + sum(s.tokens for s in shared) + sum(p.tokens for p in fresh)
        if prompt == 0:
            fresh, prompt = (*fresh, Part("user", 1)), 1
        output = draw(st.integers(min_output, max_output))
        stamps = None
        if recorded:
            start = max((ends[edge.call] + edge.wait_s for edge in after), default=0.0)
            first, ends[call_id] = start + draw(_seconds), start + 100.0
            stamps = Recorded(start, first, ends[call_id], streaming=draw(st.booleans()))
        calls.append(
            Call(
                id=call_id,
                output_tokens=output,
                after=after,
                agent=draw(st.sampled_from(AGENTS)),
                model=draw(st.sampled_from(("", "m1", "m2"))),
                inherit=inherit,
                spans=shared,
                fresh=fresh,
                reasoning_tokens=draw(st.integers(0, output)) if draw(st.booleans()) else 0,
                stop_after=draw(st.none() | st.integers(1, max(1, output))) if stop_after else None,
                recorded=stamps,
            )
        )
        prompts[call_id], outputs[call_id] = prompt, output
    session = Session(name, tuple(calls))
    validate(session)
    return session


@st.composite
def workload(draw: st.DrawFn, *, max_sessions: int = 4, max_calls: int = 6, max_tokens: int = 300) -> list[Session]:
    """One to `max_sessions` sessions named s0, s1, ...; trace-scope spans are shared between them."""
    count = draw(st.integers(1, max_sessions))
    return [draw(sessions(max_calls=max_calls, max_tokens=max_tokens, name=f"s{i}")) for i in range(count)]
