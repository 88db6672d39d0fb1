"""From the calls of agents as a trace tells them to the calls of one session.

    parent   c0 ──────────────► c1 ─────────► c2        c0 spawned the subagent; c2 is the first that was told of its
              └─► a1.0 ─► a1.1 ──────────────► ┘        end. What the parent's tool took until then is the subagent's
                                                        own time, so only what is left behind its end is waited for

Instants are epoch seconds here, and seconds from the start of the session in the calls that are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from msgspec.structs import replace

from workloom.session import Call, Part, Recorded, Span, Status
from workloom.traces.order import topological
from workloom.traces.reading import Report
from workloom.traces.thread import Thread
from workloom.traces.turns import Done, Turn, edges, estimate, exact

ESTIMATED = ("prompt_tokens", "output_tokens")


class Sizes(NamedTuple):
    """Tokens of a call; `output` includes `reasoning`."""

    prompt: int
    output: int
    cached: int | None = None
    reasoning: int = 0


class Input(NamedTuple):
    """Something that came in: a message, or the output of a tool that call number `source` asked for."""

    at_s: float
    part: Part
    source: int | None = None
    waits: bool = False
    """Whether that tool returns when a subagent does."""
    by: str | None = None
    """The last call of that subagent, where the trace tells which it is: else it is the last that is joined."""


class Joined(NamedTuple):
    """A subagent's end that a call waited for: its last call and when that was done."""

    call: str
    end_s: float


@dataclass(slots=True)
class Made:
    """A call as a trace tells it. `sizes` is None where nothing was counted."""

    model: str = ""
    inputs: list[Input] = field(default_factory=list)
    asked_s: float | None = None
    """When the user's message came, if one did."""
    sent_s: float | None = None
    end_s: float | None = None
    compacted: bool = False
    characters: int = 0
    """Length of what the model made."""
    answer: list[str] = field(default_factory=list)
    spawned_s: float | None = None
    """When it first started a subagent."""
    sizes: Sizes | None = None
    status: Status = "ok"
    joins: list[Joined] = field(default_factory=list)
    start_s: float = 0.0
    """`start_s` and `done_s` are set by :func:`clock`."""
    done_s: float = 0.0


def told_start(made: Made) -> float | None:
    """When the request left, by the trace alone."""
    came = [one.at_s for one in made.inputs]
    return max([*came, *(at for at in (made.asked_s, made.sent_s) if at is not None)], default=None)


def clock(calls: Sequence[Made], report: Report, floor_s: float | None = None) -> None:
    """Give every call a start and an end that agree with each other and with what came before (`floor_s`)."""
    first_s = told_start(calls[0])
    before_s = floor_s if floor_s is not None else first_s if first_s is not None else calls[0].end_s or 0.0
    late = 0
    for made in calls:
        told_s = told_start(made)
        told_s = before_s if told_s is None else told_s
        made.start_s = max(told_s, before_s)
        end_s = made.start_s if made.end_s is None else made.end_s
        late += told_s < before_s or end_s < made.start_s
        made.done_s = before_s = max(end_s, made.start_s)
    report.infer("calls whose instants were out of order, moved behind what they follow", late)


class Writer:
    """Makes the calls of one agent; `turns` are those made so far, in tokens."""

    def __init__(self, report: Report, zero_s: float, *, prefix: str = "c", agent: str = "main") -> None:
        self.turns: list[Turn] = []
        self._report = report
        self._zero_s = zero_s
        self._prefix = prefix
        self._agent = agent

    def name(self, index: int) -> str:
        return f"{self._prefix}{index}"

    def calls(
        self,
        calls: Sequence[Made],
        *,
        hidden: bool,
        system: str = "",
        spawn: Done | None = None,
        fork: Turn | None = None,
    ) -> list[Call]:
        """`hidden`: does reasoning leave with the user's next message? `system`: the system prompt.

        `spawn`: the call that started this agent. `fork`: whose context its first prompt continues.
        """
        thread = Thread(hidden=hidden, parent=fork)
        out: list[Call] = []
        for index, made in enumerate(calls):
            after = edges(made.start_s, self._waits(index, calls, spawn))
            span = Span(_digest(system), estimate(len(system)), "trace") if system and not index and not fork else None
            out.append(replace(self._call(self.name(index), made, thread, span), after=after))
        return out

    def _call(self, name: str, made: Made, thread: Thread, span: Span | None) -> Call:
        parts = [self._told(one, made) for one in made.inputs]
        shared = 0 if span is None else span.tokens
        sizes = made.sizes
        if sizes is None:
            prompt = thread.whole + shared + sum(part.tokens for part in parts)
            sizes = Sizes(prompt, estimate(made.characters))
        sizes = self._sane(sizes)
        shared = min(shared, sizes.prompt)
        turn = Turn(name, sizes.prompt, sizes.output, sizes.reasoning)
        context = thread.follow(
            turn,
            sizes.cached,
            parts,
            asked=made.asked_s is not None,
            compacted=made.compacted,
            spans=shared,
            estimated=made.sizes is None,
        )
        self.turns.append(turn)
        if made.compacted:
            self._report.infer("histories replaced by a summary (compaction)")
        elif context.reset:
            self._report.infer("prompts shorter than the one before, for no reason the trace tells")
        self._report.infer("reasoning tokens left out after the user's next message", context.dropped)
        return Call(
            id=name,
            output_tokens=turn.output,
            agent=self._agent,
            model=made.model,
            inherit=context.inherit,
            spans=(replace(span, tokens=shared),) if span is not None and shared else (),
            fresh=context.fresh,
            reasoning_tokens=turn.reasoning,
            stop_after=max(1, turn.output) if made.status == "aborted" else None,
            recorded=Recorded(
                exact(made.start_s - self._zero_s),
                None,
                exact(made.done_s - self._zero_s),
                sizes.cached,
                made.status,
                None,
                ESTIMATED if made.sizes is None else (),
                "\n".join(made.answer) or None,
            ),
        )

    def _sane(self, sizes: Sizes) -> Sizes:
        """Parts are not larger than their whole."""
        cached = None if sizes.cached is None else min(sizes.cached, sizes.prompt)
        sane = sizes._replace(cached=cached, reasoning=min(sizes.reasoning, sizes.output))
        self._report.infer("calls that count more of a part than of the whole, cut to the whole", sane != sizes)
        return sane

    @staticmethod
    def _told(one: Input, made: Made) -> Part:
        """The output of a tool that waited for a subagent is its report."""
        if not one.waits or not made.joins:
            return one.part
        return replace(one.part, kind="report", seconds=None, from_call=one.by or made.joins[-1].call)

    def _waits(self, index: int, calls: Sequence[Made], spawn: Done | None) -> list[Done]:
        """What a call waited for: tools of earlier calls, the user, subagents."""
        if not index:
            return [] if spawn is None else [spawn]
        made, last, ready = calls[index], calls[index - 1], dict[int, float]()
        for one in made.inputs:
            if one.source is not None and one.source < index:
                at_s = calls[one.source].done_s if one.waits and made.joins else one.at_s
                ready[one.source] = max(ready.get(one.source, 0.0), at_s)
        tool_s = ready.pop(index - 1, None)
        out = [Done(self.name(n), calls[n].done_s, at_s, "tool") for n, at_s in ready.items()]
        if made.asked_s is not None and (tool_s is None or made.asked_s > tool_s):
            out.append(Done(self.name(index - 1), last.done_s, made.asked_s, "human"))
        elif tool_s is not None:
            out.append(Done(self.name(index - 1), last.done_s, tool_s, "tool"))
        else:
            out.append(Done(self.name(index - 1), last.done_s, last.done_s, "orchestration"))
        return [*out, *(Done(join.call, join.end_s, join.end_s, "orchestration") for join in made.joins)]


def ordered(made: list[tuple[float, Call]]) -> tuple[Call, ...]:
    """The calls of all agents by when they started, each behind those it waits for."""
    calls = [call for _, call in sorted(made, key=lambda one: one[0])]
    place = {call.id: index for index, call in enumerate(calls)}
    order = topological([[place[edge.call] for edge in call.after] for call in calls])
    return tuple(calls[index] for index in order)


def _digest(text: str) -> str:
    """The name of the span that holds a text."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
