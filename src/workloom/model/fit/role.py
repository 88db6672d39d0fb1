"""One role of a trace as an agent of a workload."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from workloom.model.families import Family, Fixed
from workloom.model.fit import graphs
from workloom.model.fit.lives import Life, Spawned, Step
from workloom.model.fit.margins import Margins
from workloom.model.fit.memory import Scored, memory, ranks, scores
from workloom.model.fit.stages import openings
from workloom.model.workload.round import significant
from workloom.model.workload.spec import (
    MEASURES,
    MOST_LEVELS,
    Agent,
    Compaction,
    Delegate,
    First,
    History,
    Reworded,
    Rewrite,
    Scaffold,
    Turn,
    TurnGap,
)

Floats = NDArray[np.float64]


def agent(name: str, lives: Sequence[Life], margins: Margins, scaffold: tuple[Scaffold, ...]) -> Agent:
    """The agent that lives like these."""
    place = f"agents.{name}"
    first = First(
        fresh=margins.fit(f"{place}.first.fresh", [life.first_tokens for life in lives]),
        output=margins.fit(f"{place}.first.output", [life.first_output_tokens for life in lives]),
    )
    graph = graphs.common(lives)
    if graph:
        turn = graphs.turn(f"{place}.turns", lives, margins)
        history_of = graphs.history_of(lives[0])
        return Agent(first, turns=turn, models=_models(lives), scaffold=scaffold, graph=graph, history_of=history_of)
    calls = margins.fit(f"{place}.calls", [life.calls for life in lives])
    if not all(graphs.is_chain(life) for life in lives):
        margins.notes[f"{place}.calls"] = "there are calls at once, told one after the other"
    gaps = _gaps(lives)
    growing = [s for life in lives for s in life.steps if s.change in ("keep", "reword") and s.gap == gaps[0]]
    opening = openings(f"{place}.opening", growing, margins)
    read = sum(stage.calls for stage in opening)
    turns = _turns(place, lives, margins, read)
    return Agent(
        first=first,
        calls=calls,
        turns=turns,
        opening=opening,
        models=_models(lives),
        scaffold=scaffold,
        memory=memory(lives, _scored(lives)) if turns else Agent(first).memory,
        history=_history(place, lives, margins, read),
        delegates=_delegates(place, lives, margins),
    )


def _models(lives: Sequence[Life]) -> dict[str, float]:
    counts = Counter(life.model for life in lives)
    if set(counts) == {""}:
        return {}
    shares = {model: significant(count / len(lives)) for model, count in counts.most_common()}
    most = next(iter(shares))
    return {**shares, most: significant(1 - sum(share for model, share in shares.items() if model != most), 6)}


def _gaps(lives: Sequence[Life]) -> list[TurnGap]:
    """Kinds of gap, the most frequent first."""
    return [gap for gap, _ in Counter(step.gap for life in lives for step in life.steps).most_common()]


def _turns(place: str, lives: Sequence[Life], margins: Margins, opening: int) -> dict[TurnGap, Turn]:
    out: dict[TurnGap, Turn] = {}
    for gap in _gaps(lives):
        steps = [step for life in lives for step in life.steps if step.gap == gap]
        here = f"{place}.turns.{gap}"
        share = _share(f"{here}.share", lives, margins, partial(_behind, gap)) if out else None
        settled = [step for step in steps if out or step.number > opening]
        growing = [step for step in settled if step.change == "keep"] or steps
        columns = [_measure(growing, name) for name in MEASURES]
        out[gap] = Turn(
            fresh=margins.fit(f"{here}.fresh", columns[0]),
            output=margins.fit(f"{here}.output", _measure(steps, "output")),
            wait=margins.fit(f"{here}.wait", _measure(steps, "wait")),
            share=share,
            ranks=ranks(columns),
        )
    return out


def _behind(gap: TurnGap, step: Step) -> bool:
    return step.gap == gap


def _share(place: str, lives: Sequence[Life], margins: Margins, having: Callable[[Step], bool]) -> Family:
    """The share of a life's steps that have something, weighted by steps: then long lives and short ones together have
    the trace's share.

    Of few steps a share is chance for the most part, which will be drawn anew: shares are drawn in to their mean until
    their variance is what it has beyond that of as many even draws.
    """
    some = [life for life in lives if life.steps]
    steps = np.array([len(life.steps) for life in some])
    shares = np.array([sum(map(having, life.steps)) / len(life.steps) for life in some])
    mean = float(np.average(shares, weights=steps))
    variance = float(np.average((shares - mean) ** 2, weights=steps))
    chance = len(some) * mean * (1 - mean) / float(steps.sum())
    own = math.sqrt(max(0.0, 1 - chance / variance)) if variance > 0 and len(some) > 1 else 1.0
    return margins.fit(place, np.repeat(mean + own * (shares - mean), steps))


def _measure(steps: Sequence[Step], name: str) -> Floats:
    match name:
        case "fresh":
            values: list[float] = [max(0, step.growth_tokens) for step in steps]
        case "output":
            values = [step.output_tokens for step in steps]
        case _:
            values = [step.wait_s for step in steps]
    return np.array(values, dtype=np.float64)


def _scored(lives: Sequence[Life]) -> Scored:
    """Every growing call of the lives, scored within its kind of gap."""
    rows = [
        (number, step.number, step) for number, life in enumerate(lives) for step in life.steps if step.change == "keep"
    ]
    gaps = np.array([step.gap for _, _, step in rows])
    measures: dict[str, Floats] = {}
    for name in MEASURES:
        values = _measure([step for _, _, step in rows], name)
        for gap in set(gaps.tolist()):
            values[gaps == gap] = scores(values[gaps == gap])
        measures[name] = values
    places = np.array([(life, number) for life, number, _ in rows], dtype=np.float64).reshape(-1, 2)
    return Scored(places[:, 0], places[:, 1], measures)


def _history(place: str, lives: Sequence[Life], margins: Margins, opening: int) -> History:
    steps = [(life, step) for life in lives for step in life.steps]
    if not steps:
        return History()
    by_change = Counter(step.change for _, step in steps)
    compacted = {(id(life), step.number) for life, step in steps if step.change == "compact"}
    after = [step.change for life, step in steps if (id(life), step.number - 1) in compacted]
    settled = sum(change == "rewrite" for change in after)
    rewrites = [
        step for life, step in steps if step.change == "rewrite" and (id(life), step.number - 1) not in compacted
    ]
    rewrite = None
    if rewrites:
        here = f"{place}.history.rewrite"
        rewrite = Rewrite(
            share=significant(len(rewrites) / len(steps)),
            keeps=margins.fit(f"{here}.keeps", [s.inherited_tokens / s.context_tokens for s in rewrites]),
            size=margins.fit(f"{here}.size", [_size(step) for step in rewrites]),
        )
    compaction = None
    if compacted:
        again = significant(settled / len(after)) if after else 0.0
        compaction = _compaction(f"{place}.history.compaction", lives, margins, again)
    reworded = None
    if by_change["reword"]:
        here = f"{place}.history.reworded"
        some = [step for _, step in steps if step.change == "reword"]
        new = [step.growth_tokens for step in some if step.number > opening] or [step.growth_tokens for step in some]
        share = _share(f"{here}.share", lives, margins, lambda step: step.change == "reword")
        whole = sum(step.inherited_tokens >= step.before_tokens for step in some) / len(some)
        reworded = Reworded(share, margins.fit(f"{here}.new", new), significant(whole))
    return History(reworded=reworded, rewrite=rewrite, compaction=compaction)


def _size(step: Step) -> float:
    """A rewritten context over the one before; what the call adds (unknown, but mostly little) is in it."""
    return min(2.0, step.prompt_tokens / step.context_tokens)


def _compaction(place: str, lives: Sequence[Life], margins: Margins, again: float) -> Compaction:
    """The rule: contexts at which compaction came, and the share of lives that came to it among those that could."""
    steps = [step for life in lives for step in life.steps if step.change == "compact"]
    triggers = [step.context_tokens for step in steps]
    usual = float(np.median(triggers))
    having = [life for life in lives if any(step.change == "compact" for step in life.steps)]
    scaffolds = {id(life): sum(tokens for _, tokens, _ in life.scaffold) for life in lives}
    ids = {id(life) for life in having}
    beyond = [
        life
        for life in lives
        if id(life) not in ids
        and scaffolds[id(life)] + life.first_tokens <= usual
        and any(step.prompt_tokens > usual for step in life.steps)
    ]
    return Compaction(
        trigger=margins.fit(f"{place}.trigger", triggers),
        target=margins.fit(f"{place}.target", [step.prompt_tokens for step in steps]),
        share=significant(len(having) / (len(having) + len(beyond))),
        rewrite_after=again,
    )


def _delegates(place: str, lives: Sequence[Life], margins: Margins) -> tuple[Delegate, ...]:
    roles = Counter(group.lives[0].role for life in lives for group in life.spawned)
    return tuple(
        _delegate(f"{place}.delegates[{i}]", role, lives, margins) for i, (role, _) in enumerate(roles.most_common())
    )


def _delegate(place: str, role: str, lives: Sequence[Life], margins: Margins) -> Delegate:
    groups: list[list[Spawned]] = [[g for g in life.spawned if g.lives[0].role == role] for life in lives]
    some = [of_life for of_life in groups if of_life]
    every = [group for of_life in some for group in of_life]
    levels = min(MOST_LEVELS, max(life.depth(role) for group in every for life in group.lives))
    able = [life for life in lives if life.depth(role) < levels]
    waited = [group for group in every if group.joined == 1]
    later = [group.joined for group in every if group.joined is not None and group.joined > 1]
    reports = [wait_s for group in every for wait_s in group.report_s]
    return Delegate(
        agent=role,
        sessions=min(1.0, significant(len(some) / len(able))),
        times=margins.fit(f"{place}.times", [len(of_life) for of_life in some]),
        at_once=margins.fit(f"{place}.at_once", [len(group.lives) for group in every]),
        waits=significant(len(waited) / len(every)),
        later=margins.fit(f"{place}.later", later) if later else None,
        reported=significant(len(later) / (len(every) - len(waited))) if later else 1.0,
        spawn=margins.fit(f"{place}.spawn", [wait_s for group in every for wait_s in group.spawn_s]),
        report=margins.fit(f"{place}.report", reports) if reports else Fixed(0.0),
        levels=levels,
    )
