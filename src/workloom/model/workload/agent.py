"""The calls of a session: agents as loops or DAGs, subagents with contexts of their own, joins, compaction, retries."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from workloom.errors import WorkloadError
from workloom.model.families import Family
from workloom.model.workload.dag import levels
from workloom.model.workload.draw import Draw
from workloom.model.workload.process import Life, Process, Tables
from workloom.model.workload.spec import (
    MOST_CALLS,
    Agent,
    Compaction,
    Delegate,
    Opening,
    Scaffold,
    Turn,
    TurnGap,
    Workload,
)
from workloom.session import Call, Edge, Inherit, Part, PartKind, Span

MOST_LEFT = 0.7
"""Of a context, what a compaction may leave: what leaves more is none (as `fit` tells them apart)."""
DEEPEST = 64
"""Subagents below subagents, of all roles together."""


class Maker:
    """Makes the calls of sessions; what is the same for all of them is worked out once."""

    def __init__(self, workload: Workload) -> None:
        self.agents = workload.agents
        self.tables = Tables()
        self.processes = {name: Process(agent) for name, agent in workload.agents.items()}
        self.block_tokens = workload.block_tokens or 1
        self.tick_s = workload.tick_s
        self.dags = {name: agent.graph or levels(agent.widths) for name, agent in workload.agents.items()}

    def wait_s(self, wait: Family, z: float) -> float:
        """A wait of a turn, on the clock of the workload."""
        seconds = self.tables.seconds(wait, z)
        return seconds if self.tick_s is None else round(round(seconds / self.tick_s) * self.tick_s, 6)

    def calls(self, agent: str, seed: int, k: int) -> tuple[Call, ...]:
        """The calls of session k, which begins with an agent, in topological order."""
        session = _Session(self, seed, k)
        session.live(agent, "main", (), {})
        return tuple(session.calls)


@dataclass(slots=True)
class _Context:
    """What an agent's prompts hold at the moment. `scaffold`: tokens of it; `last`: the call it goes on from."""

    scaffold: int = 0
    tokens: int = 0
    """Of the last prompt and its answer."""
    prompt: int = 0
    """Of the last prompt alone."""
    last: str = ""
    trigger: int | None = None
    """The context is compacted before it grows beyond this."""
    compacted: bool = False
    """The last call was the first behind a compaction."""


@dataclass(slots=True)
class _Pending:
    """Subagents whose reports are still to come: their last calls, and before which call of the agent they come."""

    before: int
    reports: list[Call]
    delegate: Delegate


@dataclass(slots=True)
class _Session:
    """One session in the making."""

    maker: Maker
    seed: int
    k: int
    calls: list[Call] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def live(self, role: str, name: str, after: tuple[Edge, ...], depth: dict[str, int]) -> Call:
        """The whole life of an agent, its subagents included; its last call is returned."""
        if sum(depth.values()) > DEEPEST:
            hint = "lower `levels` of its delegates"
            raise WorkloadError(
                "subagents are nested too deeply", where=f"session {self.k}", expected=f"{DEEPEST} levels", hint=hint
            )
        agent = self.maker.agents[role]
        draw = Draw(self.seed, "agent", self.k, name)
        return _Agent(self, agent, role, name, draw, depth).live(after)

    def add(self, call: Call) -> None:
        if len(self.calls) == MOST_CALLS:
            hint = "lower `calls`, or of its delegates `levels`, `times` and `at_once`"
            raise WorkloadError(
                "a session grows without end", where=f"session {self.k}", expected=f"{MOST_CALLS:,} calls", hint=hint
            )
        self.calls.append(call)

    def new_name(self, role: str) -> str:
        self.names[role] = self.names.get(role, 0) + 1
        return f"{role}:{self.names[role]}"


class _Agent:
    """One life of an agent."""

    def __init__(
        self, session: _Session, agent: Agent, role: str, name: str, draw: Draw, depth: dict[str, int]
    ) -> None:
        self.session, self.agent, self.name, self.draw, self.depth = session, agent, name, draw, depth
        self.tables = session.maker.tables
        self.role = role
        self.life = Life(session.maker.processes[role], draw)
        self.model = _model(agent, draw.uniform())
        self.context = _Context()
        self.made = 0
        self.context.trigger = self._trigger()
        self.reworded = 0.0
        if agent.history.reworded is not None:
            self.reworded = self.tables.share(agent.history.reworded.share, draw.normal())
        self.spans = tuple(span for text in agent.scaffold if (span := self._span(text)) is not None)
        self.context.scaffold = sum(span.tokens for span in self.spans)

    # -- a life

    def live(self, after: tuple[Edge, ...]) -> Call:
        dag = self.session.maker.dags[self.role]
        return self._walk(dag, after) if dag else self._loop(after)

    def _loop(self, after: tuple[Edge, ...]) -> Call:
        """One call after the other; between them subagents, compaction, retries."""
        agent = self.agent
        total = min(self.tables.count(agent.calls, self.life.calls_z, 1), MOST_CALLS + 1)
        shares = self._shares()
        spawns = self._spawns(total)
        pending: list[_Pending] = []
        main = next(iter(agent.turns), None)
        call = self._retry(self._first(after, alone=total == 1))
        for number in range(1, total):
            pending += self._delegate(spawns.get(number, ()), number, total - 1, call)
            gap = _pick(shares, self.draw.uniform())
            turn = agent.turns[gap]
            fresh_z, output_z, wait_z = self.life.next(gap)
            wait_s = agent.pauses.get(number + 1, self.session.maker.wait_s(turn.wait, wait_z))
            edges, parts = self._reports(pending, number)
            edges = (Edge(call.id, wait_s, gap), *edges)
            stage = _stage(agent.opening, number) if gap == main else None
            fresh = self.tables.count(turn.fresh if stage is None else stage.fresh, fresh_z, 0)
            output = self.tables.count(turn.output, output_z, 1)
            if agent.final is not None and number == total - 1:
                output = self.tables.count(agent.final.output, output_z, 1)
            call = self._next(edges, parts, _kind(turn, gap), fresh, output, reading=stage is not None)
        if total == 1:
            self._delegate(spawns.get(1, ()), 1, 1, call)
        return call

    def _walk(self, dag: tuple[tuple[int, ...], ...], after: tuple[Edge, ...]) -> Call:
        """The calls of a DAG; each goes on from the context of one that it waits for."""
        (gap, turn), *_ = self.agent.turns.items()
        made = [self._first(after, alone=len(dag) == 1)]
        for number, parents in enumerate(dag[1:], 1):
            fresh_z, output_z, wait_z = self.life.next(gap)
            wait_s = self.agent.pauses.get(number + 1, self.session.maker.wait_s(turn.wait, wait_z))
            origin = made[self.agent.history_of.get(number, parents[-1])]
            edges = tuple(Edge(made[parent].id, wait_s, gap) for parent in parents)
            parts = _part(_kind(turn, gap), self.tables.count(turn.fresh, fresh_z, 0))
            output = self.tables.count(turn.output, output_z, 1)
            if self.agent.final is not None and number == len(dag) - 1:
                output = self.tables.count(self.agent.final.output, output_z, 1)
            made.append(self._add(edges, Inherit(origin.id), (), parts, output))
        return made[-1]

    # -- its calls

    def _first(self, after: tuple[Edge, ...], *, alone: bool) -> Call:
        first = self.agent.first
        fresh = self.tables.count(first.fresh, self.life.first_z, 0 if self.context.scaffold else 1)
        _, output_z, _ = self.life.next(None)
        final = self.agent.final if alone else None
        output = self.tables.count(first.output if final is None else final.output, output_z, 1)
        self.context.prompt = self.context.scaffold
        return self._begin(after, _part("user", fresh), output)

    def _begin(self, after: tuple[Edge, ...], parts: tuple[Part, ...], output: int) -> Call:
        """A call with a context that begins with the scaffold and nothing else."""
        context = self.context
        prompt = context.scaffold + sum(part.tokens for part in parts)
        if context.trigger is not None and prompt > context.trigger:
            context.trigger = None
        return self._set(self._add(after, None, self.spans, parts, output), prompt)

    def _next(
        self,
        edges: tuple[Edge, ...],
        reports: tuple[Part, ...],
        kind: PartKind,
        fresh: int,
        output: int,
        *,
        reading: bool,
    ) -> Call:
        """The next call of the loop, by the rules of the agent's history; `reading`: it belongs to the opening."""
        context, history = self.context, self.agent.history
        new = (*reports, *_part(kind, fresh))
        grown = context.tokens + sum(part.tokens for part in new)
        compaction = history.compaction
        if compaction is not None and context.trigger is not None and grown > context.trigger:
            return self._compact(compaction, edges, new, output)
        again = context.compacted and compaction is not None and self.draw.uniform() < compaction.rewrite_after
        if again:
            return self._rewrite(context.scaffold, context.tokens, edges, new, output)
        if history.rewrite is not None and self.draw.uniform() < history.rewrite.share:
            kept = int(context.tokens * self.tables.share(history.rewrite.keeps, self.draw.normal()))
            size = round(context.tokens * max(0.0, self.tables.at(history.rewrite.size, self.draw.normal())))
            return self._rewrite(min(kept, size), size, edges, new, output)
        if history.reworded is not None and self.draw.uniform() < self.reworded:
            block = self.session.maker.block_tokens
            whole = self.draw.uniform() < history.reworded.whole
            kept = context.prompt if whole else max(0, context.prompt // block - 1) * block
            answer = context.tokens - kept
            told = round(self.tables.at(history.reworded.new, self.draw.normal()))
            more = fresh if reading else told
            parts = (*reports, *_part("answer", max(1, answer + min(0, more))), *_part(kind, max(0, more)))
            return self._go_on(kept, edges, parts, output)
        return self._go_on(None, edges, new, output)

    def _go_on(self, kept: int | None, edges: tuple[Edge, ...], parts: tuple[Part, ...], output: int) -> Call:
        """A call that inherits so much of the context (None: all)."""
        context = self.context
        prompt = (context.tokens if kept is None else kept) + sum(part.tokens for part in parts)
        if prompt == 0:
            parts, prompt = (*parts, Part("injected", 1)), 1
        inherit = Inherit(context.last, kept)
        return self._retry(self._set(self._add(edges, inherit, (), parts, output), prompt))

    def _rewrite(self, kept: int, size: int, edges: tuple[Edge, ...], new: tuple[Part, ...], output: int) -> Call:
        """A context of `size` tokens of which only the first `kept` are as they were."""
        return self._go_on(kept, edges, (*_part("injected", size - kept), *new), output)

    def _compact(self, compaction: Compaction, edges: tuple[Edge, ...], new: tuple[Part, ...], output: int) -> Call:
        """Only the scaffold is kept; a summary and what is new follow."""
        context = self.context
        if compaction.call is not None:
            tokens = self.tables.count(compaction.call, self.draw.normal(), 1)
            summing = self._add(edges, Inherit(context.last), (), _part("injected", 1), tokens)
            edges = (Edge(summing.id, 0.0, "orchestration"),)
            context.last = summing.id
        target = self.tables.count(compaction.target, self.draw.normal(), context.scaffold)
        target = min(target, int(MOST_LEFT * context.tokens))
        own = sum(part.tokens for part in new)
        summary = max(0, target - context.scaffold - own)
        call = self._go_on(context.scaffold, edges, (*_part("summary", summary), *new), output)
        context.trigger, context.compacted = self._trigger(again=True), True
        return call

    def _retry(self, call: Call) -> Call:
        """The call, and behind it the same call again for as long as it is cut off."""
        retries, calls = self.agent.retries, self.session.calls
        if retries is None:
            return call
        for _ in range(retries.at_most):
            if self.draw.uniform() >= retries.share:
                break
            after = min(self.tables.count(retries.after, self.draw.normal(), 1), call.output_tokens)
            calls[-1] = replace(call, stop_after=after)
            wait_s = self.tables.seconds(retries.wait, self.draw.normal())
            edges = (Edge(call.id, wait_s, "orchestration"),)
            call = self._set(self._add(edges, Inherit(call.id, self.context.prompt), (), (), call.output_tokens), None)
        return call

    def _set(self, call: Call, prompt: int | None) -> Call:
        """The context is now this call's prompt (None: as long as before) and answer."""
        context = self.context
        context.prompt = context.prompt if prompt is None else prompt
        context.tokens = context.prompt + call.output_tokens
        context.last, context.compacted = call.id, False
        return call

    def _add(
        self,
        after: tuple[Edge, ...],
        inherit: Inherit | None,
        spans: tuple[Span, ...],
        fresh: tuple[Part, ...],
        output: int,
    ) -> Call:
        prefix = "c" if self.name == "main" else f"{self.name}/"
        call = Call(
            id=f"{prefix}{self.made}",
            output_tokens=output,
            after=after,
            agent=self.name,
            model=self.model,
            inherit=inherit,
            spans=spans,
            fresh=fresh,
        )
        self.made += 1
        self.session.add(call)
        return call

    # -- its subagents

    def _spawns(self, total: int) -> dict[int, tuple[Delegate, ...]]:
        """Before which calls the agent delegates, and what."""
        out: dict[int, tuple[Delegate, ...]] = {}
        for delegate in self.agent.delegates:
            if self.depth.get(delegate.agent, 0) >= delegate.levels or self.draw.uniform() >= delegate.sessions:
                continue
            times = self.tables.count(delegate.times, self.draw.normal(), 0)
            for place in self.draw.some(times, max(1, total - 1)):  # an agent of one call delegates behind it
                out[place + 1] = (*out.get(place + 1, ()), delegate)
        return out

    def _delegate(self, delegates: tuple[Delegate, ...], number: int, last: int, spawner: Call) -> list[_Pending]:
        """Spawn what is to be spawned between a call and the one of a number; what reports, and before which call."""
        out = []
        for delegate in delegates:
            reports = []
            depth = {**self.depth, delegate.agent: self.depth.get(delegate.agent, 0) + 1}
            for _ in range(self.tables.count(delegate.at_once, self.draw.normal(), 1)):
                name = self.session.new_name(delegate.agent)
                spawn_s = self.tables.seconds(delegate.spawn, self.draw.normal())
                edge = Edge(spawner.id, spawn_s, "spawn")
                reports.append(self.session.live(delegate.agent, name, (edge,), depth))
            if self.draw.uniform() < delegate.waits:
                out.append(_Pending(number, reports, delegate))
            elif delegate.later is not None and self.draw.uniform() < delegate.reported:
                later = number - 1 + self.tables.count(delegate.later, self.draw.normal(), 2)
                out.append(_Pending(min(later, last), reports, delegate))
        return out

    def _reports(self, pending: list[_Pending], number: int) -> tuple[tuple[Edge, ...], tuple[Part, ...]]:
        """Edges and parts of the reports that come before the call of a number."""
        edges: list[Edge] = []
        parts: list[Part] = []
        for item in [item for item in pending if item.before <= number]:
            pending.remove(item)
            for report in item.reports:
                report_s = self.tables.seconds(item.delegate.report, self.draw.normal())
                edges.append(Edge(report.id, report_s, "orchestration"))
                parts.append(Part("report", report.output_tokens, from_call=report.id))
        return tuple(edges), tuple(parts)

    # -- small draws

    def _shares(self) -> list[tuple[TurnGap, float]]:
        """The kinds of gap of this life with their shares; the first kind takes what the others leave."""
        turns = self.agent.turns
        if not turns:
            return []
        (main, _), *others = turns.items()
        shares: list[tuple[TurnGap, float]] = []
        for gap, turn in others:
            assert turn.share is not None
            shares.append((gap, self.tables.share(turn.share, self.draw.normal())))
        return [*shares, (main, max(0.0, 1 - sum(share for _, share in shares)))]

    def _trigger(self, *, again: bool = False) -> int | None:
        compaction = self.agent.history.compaction
        if compaction is None or (not again and self.draw.uniform() >= compaction.share):
            return None
        return self.tables.count(compaction.trigger, self.draw.normal(), 1)

    def _span(self, text: Scaffold) -> Span | None:
        """The agent's use of a scaffold text; which of its pool, and how long that is, depends on who shares it."""
        seed, k = self.session.seed, self.session.k
        own = (self.name,) if text.shared == "agent" else ()
        chosen = Draw(seed, "scaffold", k, text.name, *own)
        has, member = chosen.uniform() < text.share, chosen.whole(text.pool)
        if not has:
            return None
        place = (member,) if text.shared == "trace" else (k, member, *own)
        size = Draw(seed, "text", text.name, *place).normal()
        name = " ".join((text.name, *own)) if text.pool == 1 else " ".join((text.name, str(member), *own))
        tokens = self.tables.count(text.tokens, size, 0)
        return Span(name, tokens, "trace" if text.shared == "trace" else "session") if tokens else None


def _kind(turn: Turn, gap: TurnGap) -> PartKind:
    """What the new text of a call is."""
    return turn.part or ("user" if gap == "human" else "tool")


def _part(kind: PartKind, tokens: int) -> tuple[Part, ...]:
    return (Part(kind, tokens),) if tokens > 0 else ()


def _stage(opening: tuple[Opening, ...], number: int) -> Opening | None:
    """The stage of the opening that the call of a number belongs to; None behind it."""
    for stage in opening:
        if number <= stage.calls:
            return stage
        number -= stage.calls
    return None


def _pick(shares: list[tuple[TurnGap, float]], u: float) -> TurnGap:
    for gap, share in shares:
        if u < share:
            return gap
        u -= share
    return shares[-1][0]


def _model(agent: Agent, u: float) -> str:
    for name, share in agent.models.items():
        if u < share:
            return name
        u -= share
    return next(reversed(agent.models), "")
