"""The workloads of the case studies as native sessions, made by these functions and by nothing else.

    linear   0 -> 1 -> 2 -> 3 -> 4
    dag      0 -> 1 -> {2, 3, 4};  2 -> {5, 6, 7}, 3 -> {8, 9, 10}, 4 -> {11, 12, 13};  {1, 7, 10, 13} -> 14
    turns    0 -> 1 -> ... -> 110 to 150 turns

In the first two every call brings 500 fresh tokens and asks for 300; its prompt is its parent's whole prompt and answer
before that (the join continues call 13). One session is enough: a plan gives each instance of it a text of its own.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from workloom import seeds
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.traces import native

FRESH_TOKENS, OUTPUT_TOKENS = 500, 300
PARENTS = {1: 0, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 2, 8: 3, 9: 3, 10: 3, 11: 4, 12: 4, 13: 4, 14: 13}
"""Whose history a call of the DAG continues."""
JOINS = {14: (1, 7, 10, 13)}


class Quirks(Struct, frozen=True):
    """How the published experiments were made, each of which can be left out.

    `same_siblings`: siblings send one prompt, not each its own (8 of 15 calls of the DAG repeat one).
    `pick_up`: the client takes up a call `PICK_UP_S` after it is due, and siblings one after the other, `SPREAD_S`
    apart; the clock of TTFC starts then.
    `clip`: Poisson gaps are clipped at three means.
    `one_sequence`: every rate divides one sequence of unit gaps; else each rate draws its own.
    """

    same_siblings: bool = True
    pick_up: bool = True
    clip: bool = True
    one_sequence: bool = True


AS_PUBLISHED = Quirks()
NONE = Quirks(same_siblings=False, pick_up=False, clip=False, one_sequence=False)
PICK_UP_S = 0.001
"""Median of picked_up - dispatched in the rows: 0.4 to 1.3 ms."""
SPREAD_S = 0.0037
"""Nine siblings were picked up over 18 to 41 ms: eight gaps of 2.3 to 5.1 ms."""


def linear(quirks: Quirks = AS_PUBLISHED) -> Session:
    """Five calls in a chain."""
    wait_s = PICK_UP_S if quirks.pick_up else 0.0
    return Session("linear", tuple(_call(i, i - 1 if i else None, (), wait_s, None) for i in range(5)))


def dag(quirks: Quirks = AS_PUBLISHED) -> Session:
    """Fifteen calls: fan-out by three, again by three, and a join."""
    calls = []
    for i in range(15):
        parent = PARENTS.get(i)
        place = i - 2 if 2 <= i <= 4 else i - 5 if 5 <= i <= 13 else 0
        wait_s = PICK_UP_S + place * SPREAD_S if quirks.pick_up else 0.0
        twins = f"children of {parent}" if quirks.same_siblings and 2 <= i <= 13 else None
        calls.append(_call(i, parent, JOINS.get(i, ()), wait_s, twins))
    return Session("dag", tuple(calls))


def _call(i: int, parent: int | None, joins: tuple[int, ...], wait_s: float, twins: str | None) -> Call:
    waits_for = joins or (() if parent is None else (parent,))
    return Call(
        str(i),
        OUTPUT_TOKENS,
        after=tuple(Edge(str(j), wait_s, "spawn" if twins else "tool") for j in waits_for),
        inherit=None if parent is None else Inherit(str(parent)),
        spans=(Span(twins, FRESH_TOKENS),) if twins else (),
        fresh=() if twins else (Part("user", FRESH_TOKENS),),
    )


def turns(seed: int = 1, sessions: int = 5) -> list[Session]:
    """Long chains: 110 to 150 turns of 400 to 600 fresh and 150 to 250 output tokens, 32 ms apart on average."""
    made = []
    for k in range(sessions):
        stream = seeds.stream(seed, "case study 1", k)
        calls: list[Call] = []
        for i in range(int(stream.integers(110, 151))):
            fresh, output = int(stream.integers(400, 600)), int(stream.integers(150, 250))
            wait_s = min(float(stream.exponential(0.032)), 0.1)
            after = (Edge(str(i - 1), wait_s, "tool"),) if i else ()
            inherit = Inherit(str(i - 1)) if i else None
            calls.append(Call(str(i), output, after=after, inherit=inherit, fresh=(Part("user", fresh),)))
        made.append(Session(f"turns-{k}", tuple(calls)))
    return made


def write(path: Path, sessions: list[Session], *, common_clock: bool = False) -> Path:
    """A native trace of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    native.write(path, Header(source="examples/h100/workloads.py", common_clock=common_clock), sessions)
    return path
