"""Hypothesis strategies for workloads: every key, every family, every motif; small enough to draw sessions from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from workloom.model.families import (
    Exponential,
    Family,
    Fixed,
    Gamma,
    InverseGaussian,
    Lognormal,
    Normal,
    Pareto,
    Quantiles,
    SpikeTail,
    Uniform,
    Weibull,
)
from workloom.model.workload.spec import (
    MEASURES,
    PAIRS_OF_TRAITS,
    Agent,
    Compaction,
    Delegate,
    Final,
    First,
    History,
    Kind,
    Memory,
    Opening,
    Pair,
    Retry,
    Reworded,
    Rewrite,
    Scaffold,
    Turn,
    TurnGap,
    Workload,
)
from workloom.session import PartKind

shares = st.floats(0, 1).map(lambda x: round(x, 4))
ratios = st.floats(-0.9, 0.9).map(lambda x: round(x, 3))
names = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    [
        "main",
        "no",
        "y",
        "1e3",
        "null",
        "~",
        "a: b",
        "- a",
        "# a",
        'say "so"',
        "Explore:a1",
        "x\u2028y",
        "\x85",
        "a,  b, c",
    ]
)
nothing = st.none()


def families(most: float) -> st.SearchStrategy[Family]:
    """Any distribution of values that are mostly between 0 and `most`: a number of one, as drawing many takes long."""
    return st.integers(0, 1 << 20).map(lambda number: _family(most, Random(number)))


def _family(most: float, chance: Random) -> Family:
    def value() -> float:
        return float(f"{most * 1000 ** -chance.random():.4g}")

    zeros = chance.choice([0.0, round(chance.uniform(0.001, 0.9), 3)])
    low, high = sorted((value(), value()))
    kinds: list[Callable[[], Family]] = [
        lambda: Fixed(chance.choice([0.0, value()]), zeros=zeros),
        lambda: Uniform(low, high),
        lambda: Exponential(value(), zeros=zeros),
        lambda: Lognormal(value(), round(chance.uniform(0.01, 1.5), 3), zeros=zeros),
        lambda: Gamma(value(), chance.uniform(0.3, 5), zeros=zeros),
        lambda: Weibull(value(), chance.uniform(0.5, 5), zeros=zeros),
        lambda: Pareto(value(), chance.uniform(1.5, 9), zeros=zeros),
        lambda: InverseGaussian(value(), value(), zeros=zeros),
        lambda: Normal(value(), value(), zeros=zeros),
        lambda: SpikeTail(chance.random(), low, chance.random() + 0.01, high, chance.random() + 0.01, zeros=zeros),
        lambda: _quantiles(value, chance, zeros),
    ]
    return chance.choice(kinds)()


def _quantiles(value: Callable[[], float], chance: Random, zeros: float) -> Quantiles:
    values = sorted(value() for _ in range(chance.randint(2, 6)))
    inner = sorted(chance.uniform(0.001, 0.999) for _ in values[2:])
    points = tuple(zip([0.0, *inner, 1.0], values, strict=True))
    return Quantiles(points, chance.choice(["linear", "log"]), zeros=zeros)


def turns(tokens: float) -> st.SearchStrategy[Turn]:
    return st.builds(
        Turn,
        fresh=families(tokens),
        output=families(tokens),
        wait=families(30),
        share=nothing,
        ranks=st.dictionaries(st.sampled_from(get_args(Pair)), ratios, max_size=3),
        part=nothing | st.sampled_from(get_args(PartKind)),
    )


def histories(tokens: float) -> st.SearchStrategy[History]:
    return st.builds(
        History,
        reworded=nothing | st.builds(Reworded, families(1), families(tokens)),
        rewrite=nothing | st.builds(Rewrite, shares, families(1), families(2)),
        compaction=nothing
        | st.builds(Compaction, families(8 * tokens), families(4 * tokens), shares, nothing | families(tokens), shares),
    )


memories = st.builds(
    Memory,
    session=st.dictionaries(st.sampled_from(MEASURES), shares, max_size=3),
    carry=st.dictionaries(st.sampled_from(MEASURES), ratios, max_size=3),
    ranks=st.dictionaries(st.sampled_from(PAIRS_OF_TRAITS), ratios, max_size=4),
)


def delegates(others: Sequence[str]) -> st.SearchStrategy[Delegate]:
    return st.builds(
        Delegate,
        agent=st.sampled_from(others),
        sessions=shares,
        times=families(2),
        at_once=families(2),
        waits=shares,
        later=nothing | families(5),
        reported=shares,
        spawn=families(9),
        report=families(9),
        levels=st.integers(1, 2),
    )


def _scaffolds(tokens: float) -> st.SearchStrategy[list[Scaffold]]:
    text = st.builds(
        Scaffold, names, families(tokens), st.sampled_from(["trace", "session", "agent"]), shares, st.integers(1, 9)
    )
    return st.lists(text, max_size=3, unique_by=lambda text: text.name)


@st.composite
def _models(draw: st.DrawFn) -> dict[str, float]:
    found = draw(st.lists(names, max_size=3, unique=True))
    return {name: round(1 / len(found), 6) for name in found}


@st.composite
def _dag(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"widths": (1, *draw(st.lists(st.integers(1, 4), max_size=3)))}
    size = draw(st.integers(1, 7))
    graph = [()] + [tuple(draw(st.sets(st.integers(0, i - 1), min_size=1, max_size=3))) for i in range(1, size)]
    joins = [i for i, parents in enumerate(graph) if len(parents) > 1 and draw(st.booleans())]
    return {"graph": tuple(graph), "history_of": {i: draw(st.sampled_from(graph[i])) for i in joins}}


@st.composite
def agents(draw: st.DrawFn, others: Sequence[str], *, tokens: float = 300, calls: float = 8) -> Agent:
    """A loop or a DAG that may delegate to `others`."""
    first = draw(st.builds(First, families(tokens), families(tokens)))
    common = {
        "models": draw(_models()),
        "scaffold": tuple(draw(_scaffolds(tokens))),
        "memory": draw(memories),
        "final": draw(nothing | st.builds(Final, families(tokens))),
        "pauses": draw(st.dictionaries(st.integers(2, 9), st.floats(0, 60), max_size=2)),
    }
    if draw(st.integers(0, 3)) == 0:
        gap: TurnGap = draw(st.sampled_from(get_args(TurnGap)))
        return Agent(first, turns={gap: draw(turns(tokens))}, **common, **draw(_dag()))
    gaps = draw(st.lists(st.sampled_from(get_args(TurnGap)), min_size=1, max_size=3, unique=True))
    some = {gap: draw(turns(tokens)) for gap in gaps}
    for gap in gaps[1:]:
        turn = some[gap]
        some[gap] = Turn(turn.fresh, turn.output, turn.wait, draw(families(1)), turn.ranks, turn.part)
    return Agent(
        first,
        calls=draw(families(calls)),
        turns=some,
        opening=tuple(draw(st.lists(st.builds(Opening, st.integers(1, 9), families(tokens)), max_size=2))),
        history=draw(histories(tokens)),
        delegates=tuple(draw(st.lists(delegates(others), max_size=2))),
        retries=draw(nothing | st.builds(Retry, shares, st.integers(1, 3), families(9), families(tokens))),
        **common,
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """A workload of one to three agents."""
    known = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    order = draw(st.sampled_from(["random", "cycle"]))
    kind = (
        st.builds(Kind, st.sampled_from(known), st.floats(0.1, 9))
        if order == "random"
        else st.builds(Kind, st.sampled_from(known), count=st.integers(1, 5))
    )
    return Workload(
        agents={name: draw(agents(known)) for name in known},
        name=draw(names),
        about=draw(names),
        source=draw(names),
        block_tokens=draw(nothing | st.sampled_from([16, 64])),
        tick_s=draw(nothing | st.sampled_from([0.001, 1.0])),
        sessions=tuple(draw(st.lists(kind, max_size=3))),
        order=order,
        arrivals=draw(nothing | families(30)),
        users=draw(nothing | st.integers(1, 50)),
    )


def possible(told: Sequence[float], own: Sequence[float], carry: Sequence[float], traits: Sequence[float]) -> bool:
    """Whether rank correlations of calls and of traits can be had together with shares of sessions and what carries.

    `told` and `traits`: of fresh and output, fresh and wait, output and wait.
    """
    normal = [2 * np.sin(np.pi * _matrix(pairs) / 6) for pairs in (told, traits)]
    share, kept = np.sqrt(np.array(own)), np.array(carry)
    within = (normal[0] - normal[1] * np.outer(share, share)) / np.sqrt(np.outer(1 - share**2, 1 - share**2))
    new = within * (1 - np.outer(kept, kept)) / np.sqrt(np.outer(1 - kept**2, 1 - kept**2))
    np.fill_diagonal(new, 1.0)
    inner = np.abs(new - np.eye(3)).max() < 0.94 and np.linalg.eigvalsh(new).min() > 0.01
    return bool(inner and np.linalg.eigvalsh(normal[1]).min() > 0.05)


def _matrix(pairs: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    a, b, c = pairs
    return np.array([[1, a, b], [a, 1, c], [b, c, 1]])
