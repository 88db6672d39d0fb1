"""How large, and how patient, a prefix cache has to be for a plan."""

from __future__ import annotations

from msgspec import Struct

from workloom.drive.nominal import watch
from workloom.model.curves import Curve, Retention, curve, idle_distribution, kv_use, makespan_s, retention
from workloom.model.distribution import Distribution
from workloom.model.facts import Pace, role
from workloom.model.paths import Paths, Table
from workloom.plan import Plan


class Pressure(Struct, frozen=True):
    """Who presses on the KV cache: the calls of one role that ask for one model.

    `busy_token_s`, `idle_token_s`: token-seconds in use and between uses, as in :class:`workloom.model.curves.KvUse`.
    """

    role: str
    model: str
    calls: int
    busy_token_s: float
    idle_token_s: float


class ReuseCurves(Struct, frozen=True):
    """The reuse of a plan's calls in their call order: sent as the load has it, each taking its nominal time.

    One cache serves all models, as one server does. `outputs` False: answers leave nothing in it.
    """

    load: str
    wait_cap_s: float | None
    """Waits are no longer than this in the plan, so idle times are shorter than recorded; None: no cap."""
    block_tokens: int
    outputs: bool
    calls: int
    prompt_tokens: int
    makespan_s: float
    curve: Curve
    retention: Retention
    idle_s: Distribution
    """From the end of a token's use to its next use: every reused token counts."""
    pressure: tuple[Pressure, ...]
    """The largest busy + idle first."""


def reuse_curves(plan: Plan, block_tokens: int, *, outputs: bool = True, pace: Pace | None = None) -> ReuseCurves:
    """Drive a plan at nominal times and work out its reuse. Memory: some numbers a call, and the live sessions."""
    paths = Paths(block_tokens, outputs=outputs)
    watch(plan, paths, pace)
    table = paths.table()
    return ReuseCurves(
        load=plan.recipe.load.say(),
        wait_cap_s=plan.recipe.waits.max_s,
        block_tokens=block_tokens,
        outputs=outputs,
        calls=len(table.blocks),
        prompt_tokens=int(table.prompt_tokens.sum()),
        makespan_s=makespan_s(table),
        curve=curve(table),
        retention=retention(table),
        idle_s=idle_distribution(table),
        pressure=_pressure(table),
    )


def _pressure(table: Table) -> tuple[Pressure, ...]:
    use = kv_use(table)
    sums: dict[tuple[str, str], tuple[int, float, float]] = {}
    rows = zip(table.agents, table.models, use.busy_token_s.tolist(), use.idle_token_s.tolist(), strict=True)
    for agent, model, busy, idle in rows:
        calls, busy_before, idle_before = sums.get((role(agent), model), (0, 0.0, 0.0))
        sums[role(agent), model] = calls + 1, busy_before + busy, idle_before + idle
    found = [Pressure(name, model, *sums[name, model]) for name, model in sums]
    return tuple(sorted(found, key=lambda p: (-p.busy_token_s - p.idle_token_s, p.role, p.model)))
