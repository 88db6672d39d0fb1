"""How the calls of one agent come out: traits of its session, and from call to call what goes together.

For measure x (fresh, output, wait) of a call

    z = sqrt(S) * trait + sqrt(1 - S) * a,        a = c * a' + sqrt(1 - c^2) * e

with S the share that belongs to the session, a' the value of the call before, c what carries over and e correlated
between the measures so that the pooled rank correlations are those of the turn. z is mapped to a value by the turn's
own distribution: margins are exact whatever goes together.
"""

from __future__ import annotations

import math

import msgspec

from workloom.errors import WorkloadError
from workloom.model.families import Family
from workloom.model.families.grid import Grid, grid
from workloom.model.workload.draw import Draw, Matrix, cholesky, correlated, matrix
from workloom.model.workload.spec import MEASURES, TRAITS, Agent, Memory, Turn, TurnGap
from workloom.session import LONGEST_WAIT_S, MOST_TOKENS

MOST = LONGEST_WAIT_S
"""Of a median: no tokens are more either."""


class Tables:
    """The tables of a workload's distributions, each made when it is first drawn from.

    They are found by identity: the workload holds every distribution for as long as this lives.
    """

    def __init__(self) -> None:
        self._grids: dict[int, Grid] = {}

    def at(self, family: Family, z: float) -> float:
        """The value at a normal score."""
        table = self._grids.get(id(family))
        if table is None:
            table = self._grids[id(family)] = _table(family)
        return table.at(z)

    def count(self, family: Family, z: float, least: int) -> int:
        """The value as a whole number, at least `least`; the far end of a tail is cut where no session can hold it."""
        return min(max(least, round(self.at(family, z))), MOST_TOKENS)

    def seconds(self, family: Family, z: float) -> float:
        """The value as a duration in whole microseconds; the far end of a tail is cut where no session can hold it."""
        return round(min(max(0.0, self.at(family, z)), LONGEST_WAIT_S), 6)

    def share(self, family: Family, z: float) -> float:
        """The value, from 0 to 1."""
        return min(1.0, max(0.0, self.at(family, z)))


def _table(family: Family) -> Grid:
    """The table of a distribution. Raises WorkloadError for one that most values of cannot be drawn."""
    try:
        table = grid(family)
    except ValueError as fault:
        raise _beyond(family, str(fault)) from None
    if abs(table.at(0.0)) > MOST:
        raise _beyond(family, f"a median of {table.at(0.0):g}")
    return table


def _beyond(family: Family, found: str) -> WorkloadError:
    return WorkloadError(
        "a distribution is beyond all tokens and seconds",
        where=msgspec.json.encode(family).decode(),
        expected=f"a median of at most {MOST:,.0f}, and a tail that a float holds",
        found=found,
    )


class Process:
    """Everything about an agent's draws that is the same for all its lives."""

    def __init__(self, agent: Agent) -> None:
        self.traits = cholesky(matrix(TRAITS, dict(agent.memory.ranks.items())))
        self.own = [math.sqrt(agent.memory.session.get(name, 0.0)) for name in MEASURES]
        self.rest = [math.sqrt(1 - agent.memory.session.get(name, 0.0)) for name in MEASURES]
        self.carry = [agent.memory.carry.get(name, 0.0) for name in MEASURES]
        self.new = [math.sqrt(1 - carry * carry) for carry in self.carry]
        self.innovations = {gap: _innovations(turn, agent.memory) for gap, turn in agent.turns.items()}
        main = next(iter(agent.turns.values()), Turn(agent.first.fresh, agent.first.output))
        self.start = cholesky(_within(main, agent.memory))
        self.first = _innovations(main, agent.memory)


def _within(turn: Turn, memory: Memory) -> Matrix:
    """Correlations of a: what is left of the turn's pooled ones when the session has had its part."""
    out = matrix(MEASURES, dict(turn.ranks.items()))
    between = matrix(TRAITS, dict(memory.ranks.items()))
    for i, one in enumerate(MEASURES):
        for j, other in enumerate(MEASURES):
            if i != j:
                own_i, own_j = memory.session.get(one, 0.0), memory.session.get(other, 0.0)
                share = between[TRAITS.index(one)][TRAITS.index(other)] * math.sqrt(own_i * own_j)
                left = math.sqrt((1 - own_i) * (1 - own_j))
                out[i][j] = _possible((out[i][j] - share) / left if left else 0.0)
    return out


def _innovations(turn: Turn, memory: Memory) -> Matrix:
    """The triangle for e, so that a has its correlations in the long run."""
    out = _within(turn, memory)
    for i, one in enumerate(MEASURES):
        for j, other in enumerate(MEASURES):
            if i != j:
                c_i, c_j = memory.carry.get(one, 0.0), memory.carry.get(other, 0.0)
                scale = math.sqrt((1 - c_i * c_i) * (1 - c_j * c_j))
                out[i][j] = _possible(out[i][j] * (1 - c_i * c_j) / scale if scale else 0.0)
    return cholesky(out)


def _possible(correlation: float) -> float:
    return max(-0.95, min(0.95, correlation))


class Life:
    """One agent of one session: its traits, and the state that carries from call to call."""

    def __init__(self, process: Process, draw: Draw) -> None:
        self._process, self._draw = process, draw
        traits = dict(zip(TRAITS, correlated(process.traits, draw), strict=True))
        self.calls_z, self.first_z = traits["calls"], traits["first"]
        self._traits = [traits[name] for name in MEASURES]
        self._state = list(correlated(process.start, draw))

    def next(self, gap: TurnGap | None) -> list[float]:
        """Normal scores of fresh, output and wait of the next call; it comes behind such a gap (None: the first)."""
        process = self._process
        lower = process.first if gap is None else process.innovations[gap]
        state = self._state
        out = []
        for i, e in enumerate(correlated(lower, self._draw)):
            state[i] = process.carry[i] * state[i] + process.new[i] * e
            out.append(process.own[i] * self._traits[i] + process.rest[i] * state[i])
        return out
