"""From the log of a session to its calls: edges and waits, what is inherited, what is fresh.

The files tell when lines were written, not when a request was sent: a call is taken to begin with the last line that
it answers and to end with its own last line.

    P ────────────┐ last line        C begins: wait of P's edge = until the last result of a plain tool
      └─► A0 ─► A1 ┴─ report ─► C    wait of A1's edge = until its report, and until tools that answered behind it
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from workloom.session import Call as Made
from workloom.session import Gap, Inherit, Part, Recorded, Session, Span
from workloom.traces.claude_code.agents import COMPACT, Family
from workloom.traces.claude_code.log import ANSWERED_BY_USER, Log
from workloom.traces.claude_code.nodes import Agent, Call, Item, Result
from workloom.traces.claude_code.outputs import Rate, rate
from workloom.traces.reading import Intake
from workloom.traces.turns import Done, Turn, apportion, continued, edges, exact

SLACK_S = 1.0
"""How much later than its report the last line of a subagent may be written."""


class _Past(NamedTuple):
    """A call that is made; instants in seconds from the start of the session."""

    turn: Turn
    end_s: float


class _Answer(NamedTuple):
    """A tool's result. `by`: the last call of the subagent whose report it is; `behind_s`: since when it ran, in epoch
    seconds: since its call was over, or the report before it was there."""

    result: Result
    by: Call | None
    behind_s: float


class _Start(NamedTuple):
    """What a prompt begins with, and what there is of it before what is visible."""

    inherit: Inherit | None
    kept: int
    spans: tuple[Span, ...]
    hidden: tuple[Part, ...]


def session(log: Log, name: str, origin: str, intake: Intake) -> Session | None:
    """The session of a log; None if it holds no call."""
    family = Family(log, intake.report)
    if not family.main.calls:
        return None
    return _Builder(log, family, intake).session(name, origin)


class _Builder:
    def __init__(self, log: Log, family: Family, intake: Intake) -> None:
        self._log = log
        self._family = family
        self._report = intake.report
        self._text = intake.text
        self._order = list(family.calls())
        self._rate: Rate = rate(self._order, intake.report)
        self._past: dict[Call, _Past] = {}
        self._latest: dict[Agent, _Past] = {}
        self._counts: dict[str, int] = {}
        self._scaffolds: dict[Agent, tuple[str, int]] = {}
        """The first call of each agent and how much of its prompt is system prompt and tools."""
        self._zero_s = _answered_s(family.main.calls[0])
        kinds = Counter(self._kind(agent) for agent in family.spawner if agent.special is None)
        self._shared = {kind for kind, count in kinds.items() if count > 1}
        """Kinds of subagents of which there are several, which begin alike."""

    def session(self, name: str, origin: str) -> Session:
        calls = tuple(self._call(call) for call in self._order)
        self._report.assume("a call begins with the last line it answers and ends with the last of its own")
        self._report.assume("a wait for the user to permit a tool counts as the tool's time")
        self._report.assume("thinking is part of the outputs, where the file holds it, and not told apart")
        self._report.assume("of what a prompt grew by, parts get as much as their texts suggest")
        return Session(name, calls, start_s=self._zero_s, origin=origin)

    def _kind(self, agent: Agent) -> tuple[str, str]:
        """Subagents of one type on one model have one system prompt."""
        return self._family.labels[agent].rpartition(":")[0], agent.calls[0].model

    # ----------------------------------------------------------------------------------------------------- a call

    def _call(self, call: Call) -> Made:
        label = self._family.labels[call.agent]
        number = self._counts[label] = self._counts.get(label, -1) + 1
        name = f"c{number}" if label == "main" else f"a{label.rpartition(':')[2]}.{number}"
        answers = self._answers(call)
        waited = self._waited(call, answers)
        start_s = max([self._begin(call), *(max(done.end_s, done.ready_s) for done in waited)])
        end_s = max(start_s, self._instant(call.last_s))
        output, estimated = self._rate.output(call)
        self._report.infer("outputs estimated from what is visible of them", estimated)
        prompt = call.prompt or self._unknown(call)
        begin, fresh = self._prompt(call, name, label, prompt, answers)
        self._past[call] = self._latest[call.agent] = _Past(Turn(name, prompt, output), end_s)
        guessed = [] if call.prompt else ["prompt_tokens"]
        told = start_s >= 0
        self._report.infer("calls before the first of their session, whose instants are left out", not told)
        return Made(
            id=name,
            output_tokens=output,
            after=edges(start_s, waited),
            agent=label,
            model=call.model,
            inherit=begin.inherit,
            spans=begin.spans,
            fresh=fresh,
            stop_after=output if call.aborted and output else None,
            recorded=Recorded(
                start_s=start_s if told else None,
                end_s=end_s if told else None,
                cached_tokens=min(call.cached, prompt),
                status="aborted" if call.aborted else "ok",
                estimated=tuple(guessed + ["output_tokens"] * estimated),
                answer="\n".join(call.answer) if self._text else None,
            ),
        )

    def _instant(self, at_s: float) -> float:
        """In seconds from the first call of the main agent."""
        return exact(at_s - self._zero_s)

    def _begin(self, call: Call) -> float:
        """When a call began."""
        return self._instant(_answered_s(call))

    def _unknown(self, call: Call) -> int:
        """The prompt of a call that does not tell it."""
        self._report.infer("prompts without a count, estimated from what went before and their texts")
        past = self._before(call)
        whole = 0 if past is None or call.reset else past.turn.prompt + past.turn.output
        items = call.items + [result.item for result in call.results]
        return max(1, whole + sum(map(self._rate.of, items)))

    def _before(self, call: Call) -> _Past | None:
        """The call whose context a call takes over or ends."""
        previous = call.previous
        if previous is None or (previous.agent is not call.agent and call.agent.special is None):
            return None
        return self._past.get(previous)

    # ------------------------------------------------------------------------------------------------------ edges

    def _answers(self, call: Call) -> list[_Answer]:
        """The results that a call carries, as they came in."""
        out, behind_s = list[_Answer](), None
        for result in sorted(call.results, key=lambda result: result.item.at_s):
            at_s = result.item.at_s
            by = None
            if not result.launched:
                by = self._last(result.use.agent or self._log.agent_of(result.agent_id), at_s)
            late = by is None and behind_s is not None and at_s > result.use.call.last_s
            self._report.infer("tools that answered behind a subagent of their call, taken to have waited for it", late)
            out.append(_Answer(result, by, behind_s if late and behind_s is not None else result.use.call.last_s))
            behind_s = behind_s if by is None else at_s
        return out

    def _waited(self, call: Call, answers: list[_Answer]) -> list[Done]:
        """What a call waited for."""
        gap = self._gap(call, answers)
        if call.boundary is not None and call.boundary.by is not None:
            past = self._past.get(call.boundary.by.calls[-1])
            if past is not None:
                return [Done(past.turn.id, past.end_s, past.end_s, gap)]
        past = self._before(call)
        if past is not None:
            if call.agent.special is not None and call is call.agent.calls[0]:
                by_program: Gap = "orchestration" if call.agent.special == COMPACT else "spawn"
                gap = "human" if self._asked(call.agent) else by_program
            return [*self._joined(call, past, answers, gap), *self._asked_again(call)]
        if call.agent in self._latest:
            past = self._latest[call.agent]
            return [Done(past.turn.id, past.end_s, past.end_s, gap)]
        spawner = self._family.spawner.get(call.agent)
        if spawner is None:
            return []
        past = self._past[spawner]
        return [Done(past.turn.id, past.end_s, self._begin(call), "spawn")]

    def _asked_again(self, call: Call) -> list[Done]:
        """The edge to the call that sent a subagent to work once more."""
        by = self._family.again.get(call)
        if by is None:
            return []
        self._report.infer("subagents that a later call sent to work again")
        past = self._past[by]
        return [Done(past.turn.id, past.end_s, max(past.end_s, self._begin(call)), "spawn")]

    def _asked(self, writer: Agent) -> bool:
        """Whether the user asked for the compaction that an agent wrote."""
        return any(boundary.by is writer and boundary.manual for boundary in self._log.boundaries)

    def _joined(self, call: Call, past: _Past, answers: list[_Answer], gap: Gap) -> list[Done]:
        """The edge to the call before, and to the subagents whose reports it carries."""
        ready_s, joins = past.end_s, list[Done]()
        for answer in answers:
            at_s = self._instant(answer.result.item.at_s)
            if answer.by is not None:
                joins.append(self._join(answer.by, at_s, gap))
            elif answer.behind_s != answer.result.use.call.last_s:
                joins[-1] = joins[-1]._replace(ready_s=max(at_s, joins[-1].ready_s))
            else:
                ready_s = max(ready_s, at_s)
        for item in call.items:
            last = self._last(self._log.agent_of(item.about), item.at_s)
            if last is not None:
                joins.append(self._join(last, self._instant(item.at_s), gap))
        own: Gap = "orchestration" if joins and gap == "tool" and ready_s == past.end_s else gap
        return [Done(past.turn.id, past.end_s, ready_s, own), *joins]

    def _join(self, last: Call, at_s: float, gap: Gap) -> Done:
        past = self._past[last]
        return Done(past.turn.id, past.end_s, max(past.end_s, at_s), "orchestration" if gap == "tool" else gap)

    def _last(self, agent: Agent | None, at_s: float) -> Call | None:
        """The last call of a subagent that was done by then."""
        if agent is None or agent is self._family.main:
            return None
        done = [call for call in agent.calls if call.last_s <= at_s + SLACK_S and call in self._past]
        return done[-1] if done else None

    def _gap(self, call: Call, answers: list[_Answer]) -> Gap:
        """What was waited for before a call of an agent that went on."""
        names = [answer.result.use.name for answer in answers if answer.by is None]
        if any(item.human for item in call.items) or any(name in ANSWERED_BY_USER for name in names):
            return "human"
        if names or any(item.kind == "tool" or self._told(item) for item in call.items):
            return "tool"
        return "orchestration"

    def _told(self, item: Item) -> bool:
        """Whether an item tells that something other than a subagent is done."""
        return item.about is not None and self._last(self._log.agent_of(item.about), item.at_s) is None

    # ----------------------------------------------------------------------------------------------------- prompts

    def _prompt(
        self, call: Call, name: str, label: str, prompt: int, answers: list[_Answer]
    ) -> tuple[_Start, tuple[Part, ...]]:
        """What a prompt begins with, and its fresh parts."""
        visible = self._parts(call, answers)
        seen = sum(part.tokens for part in visible)
        begin = self._start(call, name, label, prompt, seen)
        left = prompt - begin.kept - sum(span.tokens for span in begin.spans)
        left -= sum(part.tokens for part in begin.hidden)
        return begin, (*begin.hidden, *apportion(left, visible, "injected"))

    def _start(self, call: Call, name: str, label: str, prompt: int, seen: int) -> _Start:
        past = self._before(call)
        hidden = max(0, prompt - seen)
        if past is None or call.reset:
            return self._anew(call, name, label, prompt, hidden)
        kept = continued(past.turn, prompt, call.cached)
        if not kept.reset:
            extra = prompt - kept.tokens - seen
            told = (Part("injected", extra, "hidden"),) if extra > seen + 200 else ()
            self._report.infer("prompts that grew by more than twice what is visible: the rest is injected", len(told))
            return _Start(kept.inherit, kept.tokens, (), told)
        if call.agent.special is not None and call is call.agent.calls[0]:
            tokens = min(past.turn.prompt, hidden)
            self._report.assume("the prompt of a compaction, or another fork, begins with the conversation before it")
            return _Start(Inherit(past.turn.id, tokens) if tokens else None, tokens, (), ())
        self._report.infer("prompts shorter than the one before: what was read from the cache is kept")
        rest = max(0, hidden - kept.tokens)
        return _Start(kept.inherit, kept.tokens, (), (Part("injected", rest, "history"),) if rest else ())

    def _anew(self, call: Call, name: str, label: str, prompt: int, hidden: int) -> _Start:
        """The beginning of a context: the scaffold, which the later contexts of an agent share with its first."""
        known = self._scaffolds.get(call.agent)
        if known is not None:
            first, size = known
            tokens = min(size, hidden)
            rest = hidden - tokens
            self._report.infer("contexts begun anew: the scaffold is kept, what is not visible is injected")
            told = (Part("injected", rest, "hidden"),) if rest else ()
            return _Start(Inherit(first, tokens) if tokens else None, tokens, (), told)
        if not hidden:
            return _Start(None, 0, (), ())
        if call.elsewhere:
            self._report.infer("sessions that go on from calls of another file: their history is injected")
            return _Start(None, 0, (), (Part("injected", hidden, "history"),))
        if call is call.agent.calls[0]:
            self._scaffolds[call.agent] = (name, hidden)
        self._report.assume("an agent's first prompt less what is visible of it is its system prompt and tools")
        if label != "main" and self._kind(call.agent) in self._shared:
            self._report.assume("subagents of one type on one model begin with the same system prompt and tools")
            return _Start(None, 0, (Span(f"scaffold:{label.rpartition(':')[0]}", hidden),), ())
        return _Start(None, 0, (), (Part("definition", hidden, "scaffold"),))

    def _parts(self, call: Call, answers: list[_Answer]) -> list[Part]:
        """The visible parts of a prompt that are new, with their estimated sizes."""
        parts = []
        for answer in answers:
            seconds = self._seconds(answer) if answer.by is None else None
            parts.append(self._part(answer.result.item, answer.result.use.name, seconds, answer.by))
        for item in call.items:
            last = self._last(self._log.agent_of(item.about), item.at_s)
            if item.kind == "summary" and call.boundary is not None and call.boundary.by is not None:
                last = call.boundary.by.calls[-1]
            parts.append(self._part(item, None, None, last))
        return parts

    def _part(self, item: Item, name: str | None, seconds: float | None, last: Call | None) -> Part:
        past = None if last is None else self._past.get(last)
        kind = item.kind
        if kind in ("tool", "report"):
            kind = "tool" if past is None else "report"
        from_call = None if past is None else past.turn.id
        return Part(kind, self._rate.of(item), name, seconds, from_call, item.text)

    def _seconds(self, answer: _Answer) -> float:
        """How long a tool ran behind its call; if it was done before that ended, since it was asked for."""
        ran_s = answer.result.item.at_s - answer.behind_s
        if ran_s < 0:
            self._report.infer("tools that were done while their call still streamed")
            ran_s = answer.result.item.at_s - answer.result.use.at_s
        return exact(max(0.0, ran_s))


def _answered_s(call: Call) -> float:
    """When the last line that a call answers was written, in epoch seconds."""
    said = [item.at_s for item in call.items] + [result.item.at_s for result in call.results]
    return min(max(said, default=call.first_s), call.first_s)
