"""From a workload to sessions: session k is a pure function of (workload, seed, k), made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.model.workload.agent import Maker
from workloom.model.workload.draw import Draw
from workloom.model.workload.spec import Kind, Workload
from workloom.session import Header, Session


def header(workload: Workload) -> Header:
    """The header of a trace of such sessions."""
    return Header(
        source=f"synth {workload.name}",
        block_tokens=workload.block_tokens,
        common_clock=workload.arrivals is not None,
    )


def generate(workload: Workload, seed: int, sessions: int | None = None) -> Iterator[Session]:
    """Sessions 0, 1, 2, ...; memory is one session's. Equal arguments give equal sessions on any machine."""
    maker = Maker(workload)
    kinds = workload.kinds()
    clock = Draw(seed, "arrivals")
    at_s = 0.0
    k = 0
    while sessions is None or k < sessions:
        draw = Draw(seed, "session", k)
        kind = _in_turn(kinds, k) if workload.order == "cycle" else _by_weight(kinds, draw.uniform())
        user = None if workload.users is None else f"u{draw.whole(workload.users)}"
        calls = maker.calls(kind.agent, seed, k)
        start_s = None if workload.arrivals is None else _told(at_s, workload.arrivals_tick_s)
        yield Session(f"{workload.name}-{k}", calls, start_s=start_s, user=user, workflow=workload.name)
        if workload.arrivals is not None:
            at_s += maker.tables.seconds(workload.arrivals, clock.normal())
        k += 1


def _told(at_s: float, tick_s: float | None) -> float:
    """An instant as a clock tells it."""
    return round(at_s if tick_s is None else at_s // tick_s * tick_s, 6)


def _in_turn(kinds: tuple[Kind, ...], k: int) -> Kind:
    place = k % sum(kind.count for kind in kinds)
    for kind in kinds:
        if place < kind.count:
            return kind
        place -= kind.count
    raise AssertionError("a place beyond the cycle")


def _by_weight(kinds: tuple[Kind, ...], u: float) -> Kind:
    left = u * sum(kind.weight for kind in kinds)
    for kind in kinds:
        if left < kind.weight:
            return kind
        left -= kind.weight
    return kinds[-1]
