"""How the calls of one agent come out: traits of its session, and from call to call what goes together.

For measure x (fresh, output, wait) of a call

    z = sqrt(S) * trait + sqrt(1 - S) * a,        a = c * a' + sqrt(1 - c^2) * e

with S the share that belongs to the session, a' the value of the call before, c what carries over and e correlated
between the measures so that the pooled rank correlations are those of the turn. z is mapped to a value by the turn's
own distribution: margins are exact whatever goes together.
"""

from __future__ import annotations

import math

from workloom.model.families import Family
from workloom.model.families.grid import Grid, grid
from workloom.model.workload.draw import Draw, Matrix, cholesky, correlated, matrix
from workloom.model.workload.spec import MEASURES, TRAITS, Agent, Memory, Turn, TurnGap


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
            table = self._grids[id(family)] = grid(family)
        return table.at(z)

    def count(self, family: Family, z: float, least: int) -> int:
        """The value as a whole number, at least `least`."""
        return max(least, round(self.at(family, z)))

    def seconds(self, family: Family, z: float) -> float:
        """The value as a duration in whole microseconds."""
        return round(max(0.0, self.at(family, z)), 6)

    def share(self, family: Family, z: float) -> float:
        """The value, from 0 to 1."""
        return min(1.0, max(0.0, self.at(family, z)))


class Process:
    """Everything about an agent's draws that is the same for all its lives."""

    def __init__(self, agent: Agent) -> None:
        self.traits = cholesky(matrix(TRAITS, agent.memory.ranks))
        self.own = [math.sqrt(agent.memory.session.get(name, 0.0)) for name in MEASURES]
        self.rest = [math.sqrt(1 - agent.memory.session.get(name, 0.0)) for name in MEASURES]
        self.carry = [agent.memory.carry.get(name, 0.0) for name in MEASURES]
        self.new = [math.sqrt(1 - carry * carry) for carry in self.carry]
        self.innovations = {gap: _innovations(turn, agent.memory) for gap, turn in agent.turns.items()}
        self.free = cholesky(matrix(MEASURES, {}))


def _innovations(turn: Turn, memory: Memory) -> Matrix:
    """The triangle for e: what is left of the turn's pooled correlations when session and carry have had their part."""
    pooled = matrix(MEASURES, dict(turn.ranks.items()))
    between = matrix(TRAITS, memory.ranks)
    for i, one in enumerate(MEASURES):
        for j, other in enumerate(MEASURES):
            if i == j:
                continue
            own_i, own_j = memory.session.get(one, 0.0), memory.session.get(other, 0.0)
            c_i, c_j = memory.carry.get(one, 0.0), memory.carry.get(other, 0.0)
            share = between[TRAITS.index(one)][TRAITS.index(other)] * math.sqrt(own_i * own_j)
            left = math.sqrt((1 - own_i) * (1 - own_j))
            within = (pooled[i][j] - share) / left if left else 0.0
            scale = math.sqrt((1 - c_i * c_i) * (1 - c_j * c_j))
            pooled[i][j] = max(-0.95, min(0.95, within * (1 - c_i * c_j) / scale if scale else 0.0))
    return cholesky(pooled)


class Life:
    """One agent of one session: its traits, and the state that carries from call to call."""

    def __init__(self, process: Process, draw: Draw) -> None:
        self._process, self._draw = process, draw
        traits = dict(zip(TRAITS, correlated(process.traits, draw), strict=True))
        self.calls_z, self.first_z = traits["calls"], traits["first"]
        self._traits = [traits[name] for name in MEASURES]
        self._state = list(correlated(process.free, draw))

    def next(self, gap: TurnGap | None) -> list[float]:
        """Normal scores of fresh, output and wait of the next call; it comes behind such a gap (None: behind none)."""
        process = self._process
        lower = process.free if gap is None else process.innovations[gap]
        state = self._state
        out = []
        for i, e in enumerate(correlated(lower, self._draw)):
            state[i] = process.carry[i] * state[i] + process.new[i] * e
            out.append(process.own[i] * self._traits[i] + process.rest[i] * state[i])
        return out
