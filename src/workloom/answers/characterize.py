"""What a workload looks like: every section of a study, from one pass over its sessions and two plans.

sessions -> facts -> sections        shapes, time, instability, roles, sizes, arrivals, workflow
sessions -> plan -> reuse curves     hits against KV capacity, in the order that a load gives the calls
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from workloom.answers.reuse import ReuseCurves, reuse_curves
from workloom.errors import TraceError
from workloom.model.arrivals import Arrivals, ArrivalsSection
from workloom.model.automaton import Automaton, AutomatonSection
from workloom.model.concurrency import Concurrency, ConcurrencySection
from workloom.model.context import Context, ContextSection
from workloom.model.facts import Pace, SessionFacts, facts
from workloom.model.instability import Instability, InstabilitySection
from workloom.model.laws import Law, LawsSection
from workloom.model.motifs import Motifs, MotifsSection
from workloom.model.origins import Origins, OriginsSection
from workloom.model.reuse import ToolReuse, tool_reuse
from workloom.model.roles import Roles, RolesSection
from workloom.model.shapes import Shapes, ShapesSection
from workloom.model.sizes import Sizes, SizesSection
from workloom.model.timing import Timing, TimingSection
from workloom.model.waits import Waits, WaitsSection
from workloom.plan import Recipe, make
from workloom.plan import Waits as PlanWaits
from workloom.session import Session
from workloom.traces import Reading, Report

BLOCK_TOKENS = 16
"""Of traces that tell no block size: vLLM's default."""


class Reuse(Struct, frozen=True):
    """Reuse without limits, against capacity, and against time.

    capacity: in the call order of the plan. patience: the same plan with waits as recorded, which is what decides how
    long KV must be kept.
    """

    ideal: Origins
    tool_results: ToolReuse | None
    capacity: ReuseCurves
    patience: ReuseCurves


class Characterization(Struct, frozen=True):
    """The study of one workload.

    pace: how calls last whose ends the trace does not tell. plan: the plan whose call order the curves are about.
    """

    label: str
    report: Report
    block_tokens: int
    pace: Pace
    plan: str
    shapes: Shapes
    motifs: Motifs
    timing: Timing
    reuse: Reuse
    instability: Instability
    roles: Roles
    workflow: Automaton
    sizes: Sizes
    laws: tuple[Law, ...]
    waits: Waits
    context: Context
    arrivals: Arrivals
    concurrency: Concurrency


def characterize(
    label: str, reading: Reading, recipe: Recipe, *, block_tokens: int | None = None, pace: Pace | None = None
) -> Characterization:
    """Study a trace. `recipe`: the load whose call order the curves are about. Raises TraceError for an empty trace.

    The trace is read three times; memory is some numbers a call.
    """
    pace = pace or Pace()
    block = block_tokens or reading.header.block_tokens or BLOCK_TOKENS
    common = reading.header.common_clock
    shapes, motifs, timing, origins = ShapesSection(), MotifsSection(), TimingSection(), OriginsSection()
    instability, roles, workflow, sizes = InstabilitySection(), RolesSection(), AutomatonSection(), SizesSection()
    waits, context, laws = WaitsSection(), ContextSection(), LawsSection()
    arrivals, concurrency = ArrivalsSection(common_clock=common), ConcurrencySection(common_clock=common)
    sections = (shapes, motifs, timing, origins, instability, roles)
    more = (workflow, sizes, laws, waits, context, arrivals, concurrency)
    tools = tool_reuse(_watched(facts(reading, pace), (*sections, *more)))
    report = reading.report
    if not report.sessions:
        raise TraceError("the trace holds no session", where=label, hint="look at it with `workloom inspect`")
    plan = make(recipe, reading)
    unhurried = make(replace(recipe, waits=PlanWaits(None, recipe.waits.time_scale)), reading)
    return Characterization(
        label=label,
        report=report,
        block_tokens=block,
        pace=pace,
        plan=f"{plan.hash}: {plan.recipe.load.say()}, seed {plan.recipe.seed}",
        shapes=shapes.result(),
        motifs=motifs.result(),
        timing=timing.result(),
        reuse=Reuse(
            ideal=origins.result(),
            tool_results=tools,
            capacity=reuse_curves(plan, block, pace=pace),
            patience=reuse_curves(unhurried, block, pace=pace),
        ),
        instability=instability.result(),
        roles=roles.result(),
        workflow=workflow.result(),
        sizes=sizes.result(),
        laws=laws.result(),
        waits=waits.result(),
        context=context.result(),
        arrivals=arrivals.result(),
        concurrency=concurrency.result(),
    )


Section = (
    ShapesSection
    | MotifsSection
    | TimingSection
    | OriginsSection
    | InstabilitySection
    | RolesSection
    | AutomatonSection
    | SizesSection
    | LawsSection
    | WaitsSection
    | ContextSection
    | ArrivalsSection
    | ConcurrencySection
)


def _watched(sessions: Iterable[SessionFacts], sections: Iterable[Section]) -> Iterator[Session]:
    """The sessions, on their way shown to every section."""
    every = tuple(sections)
    for session in sessions:
        for section in every:
            section.add(session)
        yield session.session
