"""What can go wrong in a session, or change course: each kind of event has a rule of its own.

    compaction  ─┐
    rewind       │  a prompt that does not keep the one before it    exclusive, the first that fits
    reset        │
    edit        ─┘
    retry, failure, abort, correction, interruption, abandoned branch

A rule yields events with what they cost. Two costs stand side by side and are never added up:

    recomputed    prompt tokens computed once more for the event: they stand where the history had held tokens, or
                  repeat a prompt
    lost          tokens that had been computed, prefilled or generated, and that nothing behind the event uses

What is held is what an infinite cache of prompts and answers holds (`reuse.held_with_outputs`), so no event here is
the work of a cache that was too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from workloom.model.facts import CallFacts, SessionFacts
from workloom.model.links import Links, aborted, broken, failed, whole_tokens

Kind = Literal["compaction", "rewind", "reset", "edit"]


class Event(NamedTuple):
    """One event: the call at which it shows, and what it costs in tokens."""

    place: int
    recomputed_tokens: int = 0
    lost_tokens: int = 0


def history_change(facts: SessionFacts, linked: Links, place: int) -> Kind | None:
    """How a prompt departs from that of the call it goes on from (`previous`), if it does.

    compaction    it is shorter and carries a summary, or has at most half the tokens of the other
    rewind        it goes back: it inherits all of the prompt of a call before that one, and retells nothing since
    reset         it keeps less than half of the other's tokens, without being that much shorter: told anew
    edit          it keeps half or more, but not all

    A first call of an agent, a call that sends a prompt again, and one without a prompt (not counted) change nothing.
    Nor do agents that never inherit from themselves: they have no history.
    """
    c = facts.calls[place]
    previous = linked.previous[place]
    if previous is None or linked.again[place] is not None or not c.prompt_tokens:
        return None
    if c.call.agent not in linked.stateful:
        return None
    before = facts.calls[previous]
    summary = any(part.kind == "summary" for part in c.call.fresh)
    if summary and c.prompt_tokens < before.prompt_tokens:
        return "compaction"
    if goes_back(facts, linked, c, previous):
        return "rewind"
    if 2 * c.prompt_tokens <= before.prompt_tokens:
        return "compaction"
    kept = c.reuse.held_with_outputs
    if kept >= before.prompt_tokens:
        return None
    return "reset" if 2 * kept < before.prompt_tokens else "edit"


def goes_back(facts: SessionFacts, linked: Links, c: CallFacts, previous: int) -> bool:
    """Whether a call that waits for `previous` inherits from an earlier call of its agent, all of its prompt at least.

    Not if it carries answers given since: then the history is told anew, without something (as by agents that leave
    their reasoning out).
    """
    if c.before is None or c.before >= previous or c.inherited_tokens < facts.calls[c.before].prompt_tokens:
        return False
    source = facts.calls[c.before]
    if source.call.agent != c.call.agent or not source.prompt_tokens:
        return False
    return not any(linked.places[part.from_call] > c.before for part in c.call.fresh if part.from_call is not None)


def history_changes(facts: SessionFacts, linked: Links) -> Iterator[tuple[Kind, Event]]:
    """Changes of history with their costs.

    Recomputed are the tokens that stand where the history held others: min(prompt, previous prompt and answer) less
    what is held; at most, as some of them are new. A rewind recomputes nothing. Lost is what the previous prompt and
    answer had beyond what is held.
    """
    for c in facts.calls:
        kind = history_change(facts, linked, c.place)
        previous = linked.previous[c.place]
        if kind is None or previous is None:
            continue
        whole, kept = whole_tokens(facts.calls[previous]), c.reuse.held_with_outputs
        again = 0 if kind == "rewind" else max(0, min(c.prompt_tokens, whole) - kept)
        yield kind, Event(c.place, again, max(0, whole - kept))


def side_branches(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Rewinds in the graph: a call that goes on from one whose continuation had been answered before it began.

    Only of agents that inherit from themselves: others have nothing to go back to. It costs nothing here: if nobody
    needs what was left behind, that is an abandoned branch.
    """
    answered: dict[int, float] = {}
    for c in facts.calls:
        previous = linked.previous[c.place]
        if previous is None or broken(c.call) or c.call.agent not in linked.stateful:
            continue
        if previous in answered and answered[previous] <= c.start_s and linked.again[c.place] is None:
            yield Event(c.place)
        answered[previous] = min(answered.get(previous, c.end_s), c.end_s)


def retries(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Calls that send a prompt again (:func:`workloom.model.links.sends_again`).

    Recomputed is what of the prompt is not held; lost is the first answer, unless that call was broken.
    """
    for c in facts.calls:
        first = linked.again[c.place]
        if first is not None:
            before = facts.calls[first]
            lost = 0 if broken(before.call) else _unused(before, linked, before.prompt_tokens)
            yield Event(c.place, c.reuse.fresh_tokens, lost)


def failures(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Calls that ended in an error (`recorded.status`); lost is what they computed and nobody inherits."""
    return _broken(facts, linked, errors=True)


def aborts(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Calls whose client hung up (`recorded.status`, `stop_after`); lost is what they computed and nobody inherits."""
    return _broken(facts, linked, errors=False)


def _broken(facts: SessionFacts, linked: Links, *, errors: bool) -> Iterator[Event]:
    """At most so much is lost: a trace does not tell how much of the prompt had been computed.

    The prompt of a call that is sent again is recomputed there, and only its answer lost here.
    """
    retried = linked.retried
    for c in facts.calls:
        if failed(c.call) if errors else aborted(c.call) and not failed(c.call):
            held = c.prompt_tokens if c.place in retried else c.reuse.held_with_outputs
            yield Event(c.place, 0, _unused(c, linked, held))


def _unused(c: CallFacts, linked: Links, held: int) -> int:
    """Tokens of prompt and answer beyond what was `held` that no later call inherits."""
    return max(0, whole_tokens(c) - max(held, linked.used[c.place]))


def same_tool_again(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Calls that carry results of one tool only, as the call before them did: its answer used that tool once more.

    An upper bound of self-correction: a trace does not tell whether the first result was bad. Lost is that result (as
    fresh text) and the answer that had asked for it, if it was bad.
    """
    tools = [_only_tool(c) for c in facts.calls]
    for c in facts.calls:
        previous = linked.previous[c.place]
        if previous is None or tools[c.place] is None or tools[c.place] != tools[previous]:
            continue
        asked = linked.previous[previous]
        answer = 0 if asked is None else facts.calls[asked].call.answer_tokens
        result = sum(part.tokens for part in facts.calls[previous].call.fresh if part.kind == "tool")
        yield Event(c.place, 0, answer + result)


def _only_tool(c: CallFacts) -> str | None:
    """The tool whose results a prompt brings, if it is one and has a name."""
    names = {part.name for part in c.call.fresh if part.kind == "tool"}
    return names.pop() if len(names) == 1 else None


def human_corrections(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Human messages behind an abort: calls with a human gap, or fresh text of the user, that wait for an aborted one.

    What that cost is lost with the abort.
    """
    for c in facts.calls:
        human = c.gap == "human" or any(part.kind == "user" for part in c.call.fresh)
        own = (facts.calls[place].call for place in c.parents if facts.calls[place].call.agent == c.call.agent)
        if human and any(aborted(call) for call in own):
            yield Event(c.place)


def interruptions(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Calls entered by a human edge while a subagent of their agent was running that no such call had waited for.

    Lost is what those subagents computed that nothing ever waits for, once each.
    """
    spawned: dict[str, list[str]] = {}
    for agent, spawner in linked.spawner.items():
        spawned.setdefault(facts.calls[spawner].call.agent, []).append(agent)
    ends = {agent: max(facts.calls[place].end_s for place in linked.agents[agent]) for agent in linked.spawner}
    told: set[str] = set()
    for c in facts.calls:
        if not any(edge.gap == "human" for edge in c.call.after):
            continue
        running = [
            agent
            for agent in spawned.get(c.call.agent, ())
            if facts.calls[linked.agents[agent][0]].start_s < c.start_s < ends[agent]
            and linked.joined.get(agent, len(facts.calls)) > c.place
        ]
        if running:
            left = [agent for agent in running if agent not in linked.joined and agent not in told]
            told.update(left)
            yield Event(c.place, 0, sum(_computed(facts.calls[at]) for agent in left for at in linked.agents[agent]))


def abandoned(facts: SessionFacts, linked: Links) -> Iterator[Event]:
    """Branches that end in a call nobody waits for or inherits from, while their agent begins other calls later.

    A branch that ends with its agent is a subagent's or session's end; a broken call and one that is sent again are
    counted as such. Lost is what the calls computed that led to this end only.
    """
    starts = _last_starts(facts, linked)
    retried = linked.retried
    for c in facts.calls:
        end = not linked.children[c.place] and not linked.used[c.place]
        if end and c.place not in retried and not broken(c.call) and starts[c.place] >= c.end_s:
            yield Event(c.place, 0, sum(map(_computed, _branch(facts, linked, c))))


def _last_starts(facts: SessionFacts, linked: Links) -> list[float]:
    """For every call the latest start among those of its agent that stand behind it in the list."""
    out = [float("-inf")] * len(facts.calls)
    for mine in linked.agents.values():
        latest = float("-inf")
        for place in reversed(mine):
            out[place] = latest
            latest = max(latest, facts.calls[place].start_s)
    return out


def _branch(facts: SessionFacts, linked: Links, last: CallFacts) -> Iterator[CallFacts]:
    """A call and those above it that lead nowhere else."""
    yield last
    while len(last.parents) == 1 and len(linked.children[last.parents[0]]) == 1:
        last = facts.calls[last.parents[0]]
        yield last


def _computed(c: CallFacts) -> int:
    """Tokens that a call computes even with an infinite cache."""
    return c.reuse.fresh_tokens + c.call.answer_tokens
