"""How the calls of a session hang together: who follows whom, in whose context, and which agents spawn and report.

    p0 ──────────────────► p1 ─► p2        previous[p1] = p0: the context p1 goes on from (not a1's, another agent's)
     └─► a0 ─► a1 ─────────┘               spawner[a] = p0, joined = {a}: p1 waits for a1

One walk over the calls; every list is by place in `SessionFacts.calls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workloom.model.facts import CallFacts, SessionFacts
from workloom.session import Call

NEARLY = 0.01
"""Share of a prompt by which the one sent again after a failure may differ: a stamp of time, a word about the error."""


class Links(NamedTuple):
    """Calls are named by their places."""

    places: dict[str, int]
    """By call id."""
    children: tuple[tuple[int, ...], ...]
    """The calls that wait for it, each once, in order."""
    previous: tuple[int | None, ...]
    """The last answered call of the same agent whose context it goes on from, or begins anew; None for an agent's
    first. See :func:`_previous`."""
    again: tuple[int | None, ...]
    """The call whose prompt it sends again. See :func:`sends_again`."""
    used: tuple[int, ...]
    """Tokens of its prompt and answer that some later call inherits or carries; 0 if none does."""
    agents: dict[str, tuple[int, ...]]
    """The calls of every agent, in order of first appearance."""
    stateful: frozenset[str]
    """Agents some call of which inherits from another of theirs; the others begin every prompt anew."""
    spawner: dict[str, int]
    """For every subagent the call that spawned it: a spawn edge leads from there to the subagent's first call."""
    joined: dict[str, int]
    """For every subagent that somebody waits for or takes a report from, the first such call of another agent."""

    @property
    def retried(self) -> frozenset[int]:
        """The calls that are sent again."""
        return frozenset(place for place in self.again if place is not None)


def links(session: SessionFacts) -> Links:
    """Work out the links of a session."""
    calls = session.calls
    places = {c.call.id: c.place for c in calls}
    children: list[list[int]] = [[] for _ in calls]
    used = [0] * len(calls)
    agents: dict[str, list[int]] = {}
    stateful: set[str] = set()
    spawner: dict[str, int] = {}
    joined: dict[str, int] = {}
    previous: list[int | None] = []
    again: list[int | None] = []
    siblings: dict[tuple[str, tuple[int, ...]], int] = {}
    for c in calls:
        agent = c.call.agent
        for parent in c.parents:
            children[parent].append(c.place)
        if agent not in agents:
            for edge in c.call.after:
                if edge.gap == "spawn" and calls[places[edge.call]].call.agent != agent:
                    spawner.setdefault(agent, places[edge.call])
        for source in _sources(c, places):
            sender = calls[source].call.agent
            if sender != agent and sender in spawner:
                joined.setdefault(sender, c.place)
        if c.call.inherit is not None:
            source = places[c.call.inherit.call]
            used[source] = max(used[source], c.inherited_tokens)
            if calls[source].call.agent == agent:
                stateful.add(agent)
        for part in c.call.fresh:
            if part.from_call is not None:
                used[places[part.from_call]] = whole_tokens(calls[places[part.from_call]])
        mine = agents.setdefault(agent, [])
        sibling = siblings.get((agent, c.parents)) if c.parents else None
        again.append(_again(c, calls, sibling))
        previous.append(_previous(c, calls, previous, mine, places))
        siblings[agent, c.parents] = c.place
        mine.append(c.place)
    return Links(
        places=places,
        children=tuple(map(tuple, children)),
        previous=tuple(previous),
        again=tuple(again),
        used=tuple(used),
        agents={agent: tuple(mine) for agent, mine in agents.items()},
        stateful=frozenset(stateful),
        spawner=spawner,
        joined={agent: joined[agent] for agent in spawner if agent in joined},
    )


def whole_tokens(c: CallFacts) -> int:
    """Tokens of its prompt and answer."""
    return c.prompt_tokens + c.call.answer_tokens


def failed(call: Call) -> bool:
    """Whether the trace says that it ended in an error."""
    return call.recorded is not None and call.recorded.status == "error"


def aborted(call: Call) -> bool:
    """Whether the client hung up."""
    return call.stop_after is not None or (call.recorded is not None and call.recorded.status == "aborted")


def broken(call: Call) -> bool:
    """Whether it did not end as planned."""
    return failed(call) or aborted(call)


def sends_again(c: CallFacts, before: CallFacts) -> bool:
    """Whether a call of the same agent, begun after `before` had ended, sends that one's prompt again.

    That is so if it inherits exactly that prompt, without the answer, and adds nothing; or if both inherit the same
    tokens of the same call, and their spans and fresh parts are of equal kinds and sizes. After an error or an abort
    it is enough that both go on from the same call (or one from the other's prompt) and that the prompts differ by
    less than NEARLY; where nothing was counted of a broken call, the next one repeats it. A human message behind a
    broken call is no repetition.
    """
    if c.call.agent != before.call.agent or c.start_s < before.end_s or not c.prompt_tokens:
        return False
    if broken(before.call):
        return _mends(c, before)
    if _source(c) == before.call.id:
        return c.inherited_tokens == before.prompt_tokens == c.prompt_tokens
    alike = c.call.inherit is not None and c.call.inherit == before.call.inherit
    return alike and c.call.spans == before.call.spans and _sizes(c) == _sizes(before)


def _mends(c: CallFacts, before: CallFacts) -> bool:
    if c.gap == "human" and (before.place in c.parents or not before.prompt_tokens):
        return False
    source, tokens = _source(c), before.prompt_tokens
    alike = source == _source(before) or (source == before.call.id and c.inherited_tokens <= tokens)
    return not tokens or (alike and abs(c.prompt_tokens - tokens) < NEARLY * tokens)


def _source(c: CallFacts) -> str | None:
    return None if c.call.inherit is None else c.call.inherit.call


def _sizes(c: CallFacts) -> list[tuple[str, int]]:
    return [(part.kind, part.tokens) for part in c.call.fresh]


def _again(c: CallFacts, calls: Sequence[CallFacts], sibling: int | None) -> int | None:
    """The latest of those it waits for, and of its earlier sibling, whose prompt it sends again."""
    candidates = [*c.parents] if sibling is None else [*c.parents, sibling]
    for place in sorted(candidates, reverse=True):
        if sends_again(c, calls[place]):
            return place
    return None


def _previous(
    c: CallFacts,
    calls: Sequence[CallFacts],
    previous: Sequence[int | None],
    mine: Sequence[int],
    places: dict[str, int],
) -> int | None:
    """Of the calls it waits for, those of its own agent: the one it inherits from, else the latest.

    If there is none, the agent's call before it in the list. Calls that failed or were aborted are passed over, to
    those they went on from, unless it inherits from them.
    """
    source = None if c.call.inherit is None else places[c.call.inherit.call]
    own = [place for place in c.parents if calls[place].call.agent == c.call.agent]
    at = source if source in own else max(own) if own else mine[-1] if mine else None
    while at is not None and at != source and broken(calls[at].call):
        at = previous[at]
    return at


def _sources(c: CallFacts, places: dict[str, int]) -> list[int]:
    """The calls it waits for, other than to be spawned, and those whose results it carries."""
    waited = [places[edge.call] for edge in c.call.after if edge.gap != "spawn"]
    return waited + [places[part.from_call] for part in c.call.fresh if part.from_call is not None]
