"""What became of sessions on their way through another format: found by reading back what was written, not promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from workloom.session import Call, Recorded, Session, prompt_tokens

WAIT_S = 1e-6
"""Waits and instants closer than this are equal."""
_NOTHING = Recorded()
_OF_CALL = ("output_tokens", "reasoning_tokens", "stop_after", "agent", "model")
_OF_RECORD = ("first_s", "end_s", "cached_tokens", "status", "streaming", "estimated")
_OTHERS = ("prompt tokens", "waits", "kinds of new text")


def losses(before: Session, after: Session) -> Iterator[str]:
    """What differs between a session and the same one read back, a sentence a call or session."""
    if before.id != after.id:
        yield "sessions have other ids"
    for field in ("start_s", "user", "workflow"):
        if _differ(getattr(before, field), getattr(after, field)):
            yield f"sessions without their {field}" if getattr(after, field) is None else f"sessions with other {field}"
    if len(before.calls) != len(after.calls):
        yield "sessions with another number of calls"
        return
    sizes = list(prompt_tokens(before).values()), list(prompt_tokens(after).values())
    spans: tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]] = ({}, {})
    pairs = _pairs(before.calls, after.calls, *sizes)
    here = {before.calls[i].id: place for place, (i, _) in enumerate(pairs)}
    there = {after.calls[j].id: place for place, (_, j) in enumerate(pairs)}
    for i, j in pairs:
        a, b = before.calls[i], after.calls[j]
        if sizes[0][i] != sizes[1][j]:
            yield "calls with other prompt tokens"
        yield from _edges(a, b, here, there)
        if _sharing(a, here, spans[0]) != _sharing(b, there, spans[1]):
            yield "calls with other shared prefixes"
        yield from _fresh(a, b, here, there)
        for field in ("output_tokens", "reasoning_tokens", "stop_after", "agent", "model"):
            if getattr(a, field) != getattr(b, field):
                yield f"calls with other {field}" if getattr(b, field) else f"calls without their {field}"
        yield from _recorded(a, b)


def _pairs(
    before: Sequence[Call], after: Sequence[Call], prompts: Sequence[int], others: Sequence[int]
) -> list[tuple[int, int]]:
    """Which call is which, by place: a format may put branches in another order, then by depth and sizes."""
    places = range(len(before))
    one = [(prompts[i], before[i].answer_tokens) for i in places]
    other = [(others[i], after[i].answer_tokens) for i in places]
    if one == other or sorted(one) != sorted(other):
        return [(i, i) for i in places]
    depths = _depths(before), _depths(after)
    return list(
        zip(
            sorted(places, key=lambda i: (depths[0][i], one[i])),
            sorted(places, key=lambda i: (depths[1][i], other[i])),
            strict=True,
        )
    )


def _depths(calls: Sequence[Call]) -> list[int]:
    """Calls on the longest path to each."""
    depth: dict[str, int] = {}
    for call in calls:
        depth[call.id] = 1 + max((depth[edge.call] for edge in call.after), default=0)
    return list(depth.values())


def _edges(a: Call, b: Call, mine: dict[str, int], theirs: dict[str, int]) -> Iterator[str]:
    edges = sorted((mine[edge.call], edge.wait_s, edge.gap) for edge in a.after)
    others = sorted((theirs[edge.call], edge.wait_s, edge.gap) for edge in b.after)
    if [edge[0] for edge in edges] != [edge[0] for edge in others]:
        yield "calls that wait for other calls"
        return
    if any(abs(x[1] - y[1]) > WAIT_S for x, y in zip(edges, others, strict=True)):
        yield "calls with other waits"
    if [edge[2] for edge in edges] != [edge[2] for edge in others]:
        yield "calls with other kinds of waits"


def _sharing(call: Call, place: dict[str, int], spans: dict[tuple[str, str], int]) -> object:
    """What a prompt shares, with spans by the order in which they first come, whatever their names."""
    inherit = None if call.inherit is None else (place[call.inherit.call], call.inherit.tokens)
    named = [(spans.setdefault((span.scope, span.name), len(spans)), span.scope, span.tokens) for span in call.spans]
    return inherit, named


def _fresh(a: Call, b: Call, mine: dict[str, int], theirs: dict[str, int]) -> Iterator[str]:
    if [(part.kind, part.tokens) for part in a.fresh] != [(part.kind, part.tokens) for part in b.fresh]:
        yield "calls with other kinds or sizes of fresh parts"
        return
    for field in ("name", "seconds", "text"):
        values = [getattr(part, field) for part in a.fresh], [getattr(part, field) for part in b.fresh]
        if any(map(_differ, *values)) and not (field == "text" and not any(values[0])):
            yield f"calls with parts that lost or changed their {field}"
    if [_index(mine, p.from_call) for p in a.fresh] != [_index(theirs, p.from_call) for p in b.fresh]:
        yield "calls with parts that lost or changed their from_call"


def _recorded(a: Call, b: Call) -> Iterator[str]:
    for field in ("start_s", "first_s", "end_s", "cached_tokens", "status", "streaming", "estimated", "answer"):
        old, new = (getattr(call.recorded or _NOTHING, field) for call in (a, b))
        if _differ(old, new):
            yield f"calls without their recorded {field}" if new is None else f"calls with other recorded {field}"


def _index(place: dict[str, int], call: str | None) -> int | None:
    return None if call is None else place[call]


def _differ(one: object, other: object) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other) > WAIT_S
    return one != other


def compare(before: Iterable[Session], after: Iterable[Session]) -> dict[str, int]:
    """Counts of what differs, by sentence, between sessions and the same ones in the same order read back."""
    found: dict[str, int] = {}
    for one, other in zip(before, after, strict=True):
        for sentence in losses(one, other):
            found[sentence] = found.get(sentence, 0) + 1
    return found


def pooled(before: Iterable[Session], after: Iterable[Session]) -> dict[str, int]:
    """What differs between all calls of two traces, where nobody can say which call is which; counts by sentence."""
    told = [_values(before), _values(after)]
    found: dict[str, int] = {}
    for field, values in told[0].items():
        missing = (values - told[1][field]).total()
        if missing:
            found[f"calls whose {field} did not come back"] = missing
    return found


def _values(sessions: Iterable[Session]) -> dict[str, Counter[object]]:
    """How often each value of each field occurs in the calls of a trace."""
    seen: dict[str, Counter[object]] = {field: Counter() for field in (*_OF_CALL, *_OF_RECORD, *_OTHERS)}
    for session in sessions:
        for call, prompt in zip(session.calls, prompt_tokens(session).values(), strict=True):
            for field in _OF_CALL:
                seen[field][getattr(call, field)] += 1
            for field in _OF_RECORD:
                value = getattr(call.recorded or _NOTHING, field)
                seen[field][value] += 1
            seen["prompt tokens"][prompt] += 1
            seen["waits"][tuple(sorted((round(edge.wait_s, 6), edge.gap) for edge in call.after))] += 1
            seen["kinds of new text"][tuple(part.kind for part in call.fresh)] += 1
    return seen
