"""Whose history a call continues and whom it waited for, worked out from the rows of a run.

A row says when its call was ready, when it ended, and how many of its tokens were new. So, within a session:

    history    the completed call whose prompt + answer is as long as prompt - new. Where several are, those that ended
               just before: calls that were ready together are shared out among them in the order they were taken up
    waited     for that call, if it ended just before; else for the last to end as well
    joins      a lone call with a choice of histories waited for the last of several. Which those are shows over all
               sessions of one shape: they had always ended before, and one of them always just before. By symmetry the
               calls at their place in sibling branches are among them, where those had always ended before too.

Waits that never counted cannot be seen, and change nothing as long as they do not. Equal texts cannot be seen either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEAR_TOKENS = 8
"""How far prompt + answer may be from what a later prompt begins with."""
EARLY_S = 0.0005
"""A call that was ready so much before another ended may still have waited for it: clocks are rounded."""
JUST_S = 0.012
"""A call is ready at most so long after what it waited for has ended, where it waits for nothing else."""
TOGETHER_S = 0.002
"""Calls that are ready within so long are ready together."""

Label = int
"""The place of a call in its session, the same in all sessions of one shape: whose child, and the how manieth."""


class Rows(NamedTuple):
    """What is known of calls. `fresh_tokens`: nan where nobody counted them."""

    session: Ints
    ready_s: Floats
    start_s: Floats
    done_s: Floats
    prompt_tokens: Floats
    fresh_tokens: Floats
    output_tokens: Ints


class Lineage(NamedTuple):
    """By call: `before`, whose history it continues (-1: nobody's), `level`, how many calls that history has, `after`,
    what it waited for, `family`, the first of those that were ready together with it, and `label`."""

    before: Ints
    level: Ints
    after: list[tuple[int, ...]]
    family: Ints
    label: list[Label]


def trace(rows: Rows) -> Lineage:
    """The lineage of all calls."""
    tracer = _Tracer(rows)
    for number in np.unique(rows.session):
        mine = np.flatnonzero(rows.session == number)
        tracer.session(mine[np.lexsort((rows.start_s[mine], rows.ready_s[mine]))].tolist())
    tracer.join()
    level = np.zeros(len(rows.session), dtype=np.int64)
    for call in np.argsort(rows.ready_s, kind="stable").tolist():
        if tracer.before[call] >= 0:
            level[call] = level[tracer.before[call]] + 1
    return Lineage(np.array(tracer.before, dtype=np.int64), level, tracer.after, np.array(tracer.family), tracer.label)


class _Join(NamedTuple):
    """A call that may have waited for several: `ended` when it was ready, the last one last."""

    call: int
    ended: list[int]


class _Tracer:
    def __init__(self, rows: Rows) -> None:
        count = len(rows.session)
        self.ready, self.start, self.done = (each.tolist() for each in (rows.ready_s, rows.start_s, rows.done_s))
        self.prompt, self.fresh = rows.prompt_tokens.tolist(), rows.fresh_tokens.tolist()
        self.whole: list[float] = (rows.prompt_tokens + rows.output_tokens).tolist()
        self.output = rows.output_tokens.tolist()
        self.before, self.family = [-1] * count, list(range(count))
        self.after: list[tuple[int, ...]] = [()] * count
        self.label: list[Label] = [-1] * count
        self.labels: dict[tuple[object, ...], Label] = {}
        self.joins: dict[Label, list[_Join]] = {}

    def session(self, calls: list[int]) -> None:
        """Of one session, in the order they were ready."""
        by_done = sorted(calls, key=lambda at: (self.done[at], self.start[at]))
        ended = {
            call: [at for at in by_done if self.done[at] <= self.ready[call] + EARLY_S and at != call] for call in calls
        }
        taken: set[int] = set()
        places: dict[tuple[object, ...], int] = {}
        for together in self._gathered(calls, TOGETHER_S):
            for call in together:
                self.family[call] = together[0]
        for bunch in self._gathered(calls, JUST_S):
            pools: dict[float, list[int]] = {}
            for call in bunch:
                histories = self._histories(call, ended[call])
                if histories:
                    pools.setdefault(self.whole[histories[-1]], []).append(call)
            for pool in pools.values():
                found = {at for call in pool for at in self._histories(call, ended[call])}
                self._share_out(pool, list(found - taken or found))
            taken.update(self.before[call] for call in bunch)
            for call in bunch:
                self._settle(call, ended[call], [call] in pools.values(), places)

    def _gathered(self, calls: list[int], apart_s: float) -> list[list[int]]:
        """Calls, cut where none was ready for that long."""
        groups: list[list[int]] = []
        for call in calls:
            if not groups or self.ready[call] - self.ready[groups[-1][-1]] > apart_s:
                groups.append([])
            groups[-1].append(call)
        return groups

    def _histories(self, call: int, ended: list[int]) -> tuple[int, ...]:
        """Whose history it may continue: of those that fit, the ones that ended just before, or the last."""
        goal = self.prompt[call] - self.fresh[call]
        if np.isnan(goal):
            goal = max((self.whole[at] for at in ended if self.whole[at] <= self.prompt[call]), default=-np.inf)
        fits = [at for at in ended if abs(self.whole[at] - goal) <= NEAR_TOKENS]
        return tuple([at for at in fits if self.ready[call] - self.done[at] <= JUST_S] or fits[-1:])

    def _share_out(self, pool: list[int], histories: list[int]) -> None:
        """Calls that were ready at about one time, among the calls whose history they may continue.

        Those of one history were ready together: as many families as histories go by the order of both. Else some
        families were ready together too, and all is shared out evenly.
        """
        families = list({self.family[call]: None for call in pool})
        if len(families) >= len(histories):
            among = sorted(histories, key=lambda at: self.done[at])
            for call in pool:
                self.before[call] = among[families.index(self.family[call]) * len(among) // len(families)]
            return
        among = sorted(histories, key=lambda at: self.start[at])[-len(pool) :]
        for place, call in enumerate(sorted(pool, key=lambda at: self.start[at])):
            self.before[call] = among[place * len(among) // len(pool)]

    def _settle(self, call: int, ended: list[int], alone: bool, places: dict[tuple[object, ...], int]) -> None:
        """What it waited for, and its label."""
        parent = self.before[call]
        lately = parent >= 0 and self.ready[call] - self.done[parent] <= JUST_S
        self.after[call] = (parent,) if lately else tuple({*ended[-1:], *([parent] if parent >= 0 else [])})
        stem: tuple[object, ...] = ("of", self.label[parent]) if parent >= 0 else ("begins", bool(ended))
        fits = [at for at in ended if parent >= 0 and abs(self.whole[at] - self.whole[parent]) <= NEAR_TOKENS]
        if alone and len(fits) > 1:
            stem = ("joins", self.prompt[call], self.output[call])
        places[stem] = places.get(stem, 0) + 1
        name = (*stem, places[stem])
        self.label[call] = self.labels.setdefault(name, len(self.labels))
        if alone and len(fits) > 1:
            self.joins.setdefault(self.label[call], []).append(_Join(call, ended))

    def join(self) -> None:
        """What calls waited for that may have joined several, over all sessions of one shape."""
        names = {label: name for name, label in self.labels.items()}
        for seen in self.joins.values():
            named = [{self.label[at]: at for at in each.ended} for each in seen]
            always = set.intersection(*(set(each) for each in named))
            late = [
                {name for name in always if self.done[each.ended[-1]] - self.done[at_label[name]] <= TOGETHER_S}
                for each, at_label in zip(seen, named, strict=True)
            ]
            chosen = _cover([each for each in late if each], partial(_started, self.start, named[0]))
            waited = chosen | {name for name in always for one in chosen if _cousins(names, one, name)}
            for each, at_label in zip(seen, named, strict=True):
                if not waited:
                    continue
                self.after[each.call] = tuple(sorted(at_label[name] for name in waited))
                parent = self.before[each.call]
                fits = [at for at in self.after[each.call] if abs(self.whole[at] - self.whole[parent]) <= NEAR_TOKENS]
                self.before[each.call] = max(fits, key=lambda at: (self.start[at], at), default=parent)


def _cover(sets: list[set[Label]], taken_up: Callable[[Label], float]) -> set[Label]:
    """Few labels of which each set has one: again and again the one that most have; of equals the last taken up."""
    chosen: set[Label] = set()
    while sets:
        names = {name for each in sets for name in each}
        chosen.add(best := max(names, key=lambda name: (sum(name in each for each in sets), taken_up(name), name)))
        sets = [each for each in sets if best not in each]
    return chosen


def _started(start: list[float], named: dict[Label, int], name: Label) -> float:
    return start[named[name]]


def _cousins(names: dict[Label, tuple[object, ...]], one: Label, other: Label) -> bool:
    """Whether both stand at one place in branches that are siblings."""
    kind, stem, *place = names[one]
    other_kind, other_stem, *other_place = names[other]
    if kind != "of" or other_kind != "of" or place != other_place:
        return False
    assert isinstance(stem, int)
    assert isinstance(other_stem, int)
    return names[stem][:-1] == names[other_stem][:-1]
