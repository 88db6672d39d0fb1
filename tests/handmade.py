"""Sessions written by hand in a few words, for the tests of what they look like.

session(call("m1", fresh=100), call("s1", "m1:spawn", agent="Explore:a"), call("m2", "m1 s1", inherit="m1"))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from workloom.model.facts import SessionFacts, facts
from workloom.session import Call, Edge, Gap, Inherit, Part, PartKind, Recorded, Session, Span, Status, validate


def call(
    name: str,
    after: str = "",
    *,
    agent: str = "main",
    inherit: str | tuple[str, int] | None = None,
    fresh: int | str | Iterable[Part] = 10,
    spans: tuple[Span, ...] = (),
    out: int = 5,
    at: tuple[float, float] | None = None,
    status: Status | None = None,
    stop_after: int | None = None,
    wait_s: float = 1.0,
) -> Call:
    """`after`: ids with their gaps (``m1:spawn``, tool if none is given). `fresh`: tokens, or ``user:10 tool.Bash:3``,
    or parts. `at`: recorded start and end."""
    edges = []
    for word in after.split():
        of, _, told = word.partition(":")
        edges.append(Edge(of, wait_s, gap_named(told or "tool")))
    recorded = None
    if at is not None or status is not None:
        start_s, end_s = at or (None, None)
        recorded = Recorded(start_s, None, end_s, status=status or "ok")
    return Call(
        id=name,
        output_tokens=out,
        after=tuple(edges),
        agent=agent,
        inherit=Inherit(inherit) if isinstance(inherit, str) else None if inherit is None else Inherit(*inherit),
        spans=spans,
        fresh=parts(fresh),
        stop_after=stop_after,
        recorded=recorded,
    )


def parts(told: int | str | Iterable[Part]) -> tuple[Part, ...]:
    if isinstance(told, int):
        return (Part("tool", told),) if told else ()
    if not isinstance(told, str):
        return tuple(told)
    out = []
    for word in told.split():
        kind, _, tokens = word.partition(":")
        kind, _, name = kind.partition(".")
        out.append(Part(kind_named(kind), int(tokens), name or None))
    return tuple(out)


def gap_named(name: str) -> Gap:
    return next(gap for gap in get_args(Gap) if gap == name)


def kind_named(name: str) -> PartKind:
    return next(kind for kind in get_args(PartKind) if kind == name)


def session(*calls: Call, name: str = "s", origin: str | None = None) -> Session:
    made = Session(name, calls, origin=origin)
    validate(made)
    return made


def one(*calls: Call, origin: str | None = None) -> SessionFacts:
    """The facts of a session of these calls."""
    (told,) = facts([session(*calls, origin=origin)])
    return told


def thread(names: str, *, agent: str = "main", first: str = "", fresh: int = 10) -> list[Call]:
    """A chain of calls that each inherit all of the one before. `first`: what the first waits for."""
    made: list[Call] = []
    for name in names.split():
        if made:
            made.append(call(name, made[-1].id, agent=agent, inherit=made[-1].id, fresh=fresh))
        else:
            made.append(call(name, first, agent=agent, fresh=fresh))
    return made
