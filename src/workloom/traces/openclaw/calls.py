"""From files that belong together to one session: ids, edges, waits, spawns, joins, prompts.

main     c0 ──────► c1 ──────► c2        c2 follows a message that the session a1 is done: it waits for c1 and
          └─► a1.0 ─► a1.1 ────▲         for the last call of a1 that had ended by then
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from workloom.errors import TraceError
from workloom.session import Call, Gap, Part, Recorded, Session
from workloom.traces.openclaw import prompt as prompts
from workloom.traces.openclaw.file import scan
from workloom.traces.openclaw.links import Family
from workloom.traces.openclaw.order import ordered
from workloom.traces.openclaw.seen import Event, Observed, Transcript
from workloom.traces.reading import Intake, Report
from workloom.traces.turns import Done, Turn, edges, exact


class Figures(NamedTuple):
    """Counts of answered calls, by what is called fresh and output."""

    fresh: list[int]
    grown: list[int]
    uncached: list[int]
    output: list[int]

    def tell(self, report: Report) -> None:
        """Say what definition gives which figure."""
        if self.output:
            fresh, grown, uncached, output = (f"{prompts.median(values):,.6g}" for values in self)
            report.assume(
                f"medians over {len(self.output):,} answered calls: {fresh} fresh tokens (what the prompt does not"
                f" inherit), {grown} tokens more than the prompt before (or the whole prompt, if it is shorter),"
                f" {uncached} tokens not read from the provider's cache, {output} output tokens"
            )


class _Source(NamedTuple):
    """Something a call waits for; see :class:`turns.Done`."""

    call: Observed
    ready_s: float
    gap: Gap
    join: bool = False


def session(family: Family, intake: Intake, figures: Figures) -> Session | None:
    """One session of all files of a family, or None if no model was called in them."""
    told = _scan_all(family, intake)
    agents: dict[int, str] = {}
    for index, transcript in enumerate(told):
        if id(transcript) not in agents:
            agents[id(transcript)] = "main" if index == 0 else f"subagent:{len(agents)}"
            for count, call in enumerate(transcript.calls):
                call.id = f"c{count}" if index == 0 else f"a{len(agents) - 1}.{count}"
    if not any(transcript.calls for transcript in told):
        intake.report.drop("transcripts without a call", len(family.members))
        return None
    waits = _Waits(family, told, intake.report)
    ordered = waits.ordered()
    agent_of = {call: agents[id(transcript)] for transcript in told for call in transcript.calls}
    zero_s = min(call.start_s for call in ordered)
    prompts.explain(intake.report)
    calls = tuple(_call(call, waits, agent_of[call], zero_s, intake.report, figures) for call in ordered)
    name = family.members[0].path.name
    return Session(told[0].id, calls, start_s=zero_s, origin=f"openclaw:{name}")


def _scan_all(family: Family, intake: Intake) -> list[Transcript]:
    """The transcript of every member; a fork's is that of the session it was forked from."""
    told: list[Transcript] = []
    for member in family.members:
        owner = None if member.owner is None or member.spawned else told[member.owner]
        try:
            transcript = scan(member.path, intake, None if owner is None else owner.steps)
        except TraceError as error:
            intake.on_bad(error)
            transcript = Transcript("", [], [], {})
        if owner is not None and transcript.copied:
            owner.calls += transcript.calls
            owner.spawns += transcript.spawns
            owner.steps = transcript.steps
            transcript = owner
        told.append(transcript)
    return told


class _Waits:
    """What every call of a family waits for."""

    def __init__(self, family: Family, told: list[Transcript], report: Report) -> None:
        self._names = family.names
        self._told = told
        self._report = report
        self._ends: dict[int, list[tuple[float, int]]] = {}
        self._spawned: dict[int, dict[int, Observed]] = {}
        self.joins: dict[Event, Observed] = {}
        """For the news that a session is done its last call."""
        self.of: dict[Observed, list[_Source]] = {}
        done: set[int] = set()
        for index, transcript in enumerate(told):
            if id(transcript) in done:
                continue
            done.add(id(transcript))
            start = self._start(family, index)
            for call in transcript.calls:
                self.of[call] = self._sources(call, transcript, start)
            self._count_missing(transcript)

    def _count_missing(self, transcript: Transcript) -> None:
        lost = sum(spawn.name not in self._names for spawn in transcript.spawns)
        self._report.drop("spawned sessions whose files are not among those given", lost)

    def _start(self, family: Family, index: int) -> _Source | None:
        """What the first call of a session that was started by another waits for."""
        member, calls = family.members[index], self._told[index].calls
        if member.owner is None or not calls:
            return None
        owner = self._told[member.owner]
        if (spawner := self._spawners(owner).get(index)) is not None:
            return _Source(spawner, spawner.end_s, "spawn")
        self._report.infer("sessions that name a parent session: taken to be started by its last call before them")
        before = self._last(owner, calls[0].start_s) or (owner.calls[0] if owner.calls else None)
        return None if before is None else _Source(before, before.end_s, "spawn")

    def _spawners(self, transcript: Transcript) -> dict[int, Observed]:
        """The calls of a transcript that spawned other members of the family."""
        found = self._spawned.get(id(transcript))
        if found is None:
            found = self._spawned[id(transcript)] = {}
            for name, call in transcript.spawns:
                if call is not None and name in self._names:
                    found.setdefault(self._names[name], call)
        return found

    def _last(self, transcript: Transcript, until_s: float) -> Observed | None:
        """The last call of a transcript that had ended by then."""
        ends = self._ends.get(id(transcript))
        if ends is None:
            ends = sorted((call.end_s, index) for index, call in enumerate(transcript.calls))
            self._ends[id(transcript)] = ends
        at = bisect_right(ends, (until_s, len(ends)))
        return transcript.calls[ends[at - 1][1]] if at else None

    def _sources(self, call: Observed, transcript: Transcript, start: _Source | None) -> list[_Source]:
        ready_s, gap = call.ready_s, call.gap
        if transcript is not self._told[0] and gap == "human":
            gap = "orchestration"
        out: list[_Source] = []
        for event in call.events:
            last = self._finished(event, transcript)
            if last is None:
                if ready_s is None or event.at_s > ready_s:
                    ready_s, gap = event.at_s, "orchestration"
                continue
            self.joins[event] = last
            if all(source.call is not last for source in out):
                out.append(_Source(last, event.at_s, "orchestration", join=True))
        if call.after is None:
            return out if start is None else [start, *out]
        return [_Source(call.after, call.after.end_s if ready_s is None else ready_s, gap), *out]

    def _finished(self, event: Event, receiver: Transcript) -> Observed | None:
        index = next((self._names[name] for name in event.names if name in self._names), None)
        if index is None:
            self._report.drop("results of sessions whose files are not among those given")
            return None
        sender = self._told[index]
        return None if sender is receiver else self._last(sender, event.at_s)

    def ordered(self) -> list[Observed]:
        """All calls, each behind what it waits for and otherwise by time; joins that would run in circles are cut."""
        ordered = _ordered(self.of)
        if ordered is None:
            self._report.drop("results that came before the work they report: nothing waits for them", len(self.joins))
            self.joins.clear()
            self.of = {call: [s for s in sources if not s.join] for call, sources in self.of.items()}
            ordered = _ordered(self.of)
        assert ordered is not None, "without joins a call waits only for earlier lines, or for lines of an owner"
        return ordered


def _ordered(waits: dict[Observed, list[_Source]]) -> list[Observed] | None:
    """None if calls wait for each other in a circle."""
    calls = list(waits)
    place = {call: index for index, call in enumerate(calls)}
    sources = [[place[source.call] for source in waits[call]] for call in calls]
    order = ordered(sources, [call.start_s for call in calls])
    return None if order is None else [calls[index] for index in order]


def _call(call: Observed, waits: _Waits, agent: str, zero_s: float, report: Report, figures: Figures) -> Call:
    start_s, end_s = exact(call.start_s - zero_s), exact(call.end_s - zero_s)
    waited = [
        Done(source.call.id, exact(source.call.end_s - zero_s), exact(source.ready_s - zero_s), source.gap)
        for source in waits.of[call]
    ]
    if waited and start_s < max(done.end_s for done in waited):
        report.infer("calls stamped to begin before what they wait for had ended: they wait 0 s")
    if any(done.end_s <= start_s < done.ready_s for done in waited):
        report.infer("calls stamped to begin before their input was there: taken to have had it when they began")
    waited = [done._replace(ready_s=min(done.ready_s, max(done.end_s, start_s))) for done in waited]
    prompt = _prompt(call, _parts(call, waits), report)
    if call.status == "ok":
        grown = call.prompt - (0 if call.base is None else call.base.prompt)
        figures.fresh.append(prompt.fresh_tokens)
        figures.grown.append(grown if grown >= 0 else call.prompt)
        figures.uncached.append(call.prompt - call.cached)
        figures.output.append(call.output)
    return Call(
        id=call.id,
        output_tokens=call.output,
        after=edges(start_s, waited),
        agent=agent,
        model=call.model,
        inherit=prompt.inherit,
        spans=prompt.spans,
        fresh=prompt.fresh,
        reasoning_tokens=call.reasoning,
        stop_after=call.output if call.status == "aborted" and call.output else None,
        recorded=Recorded(
            start_s=start_s, end_s=end_s, cached_tokens=call.cached, status=call.status, answer=call.answer
        ),
    )


def _parts(call: Observed, waits: _Waits) -> list[Part]:
    out = []
    for part, event in call.pieces:
        last = None if event is None else waits.joins.get(event)
        out.append(part if last is None else replace(part, from_call=last.id))
    return out


def _prompt(call: Observed, parts: Sequence[Part], report: Report) -> prompts.Prompt:
    base, before = call.base, None
    if base is not None:
        turn = Turn(base.id, base.prompt, base.output, base.reasoning)
        before = prompts.Before(turn, call.scaffold, base.thought)
    call.thought = prompts.thought(before, call.prompt, parts, call.thinks, call.compacted)
    if before is not None:
        return prompts.following(before, call.prompt, call.cached, parts, report, compacted=call.compacted)
    report.infer("tokens of scaffold in first prompts", prompts.hidden(call.prompt, parts))
    return prompts.first(call.prompt, call.cached, parts)
