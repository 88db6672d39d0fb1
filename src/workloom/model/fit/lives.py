"""A trace as lives of agents: what each call adds to its context, keeps of it, and waits for.

The growth of a call is its prompt less all of the context before it (the previous prompt of its agent and the answer to
it). What it does to that context is one of

    keep       it inherits all of it
    reword     it inherits the prompt, less two blocks (but half of it), and not the whole answer: that came back as
               other text
    compact    it is shorter than SHRUNK of it
    rewrite    it inherits less, and is not: something further up was changed
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from workloom.model.facts import CallFacts, SessionFacts
from workloom.model.workload.spec import TurnGap

SHRUNK = 0.7
BLOCKS = 128
"""Tokens that block hashes may fail to tell of a prompt that is kept: two blocks of 64."""
Change = Literal["keep", "reword", "rewrite", "compact"]
_TURNS: dict[str, TurnGap] = {"human": "human", "network": "network", "orchestration": "orchestration"}


@dataclass(slots=True, eq=False)
class Step:
    """A call after the first of its agent."""

    number: int
    """Calls of the agent before it."""
    gap: TurnGap
    wait_s: float
    """Of the edge from the agent's previous call."""
    context_tokens: int
    """The previous prompt and answer."""
    before_tokens: int
    """The previous prompt."""
    prompt_tokens: int
    inherited_tokens: int
    report_tokens: int
    """Of its fresh text, what came from subagents."""
    output_tokens: int
    change: Change
    parents: tuple[int, ...]
    """The calls of the agent that it waits for, by number."""
    origin: int
    """Of those, the one whose context it goes on from; the one before where it goes on from none."""
    from_origin_tokens: int
    """New text beyond that context; reports are not counted."""

    @property
    def growth_tokens(self) -> int:
        """New text, by length alone; reports are not counted."""
        return self.prompt_tokens - self.context_tokens - self.report_tokens


@dataclass(slots=True, eq=False)
class Spawned:
    """Subagents that one call spawned: which lives, and what became of their reports."""

    number: int
    """The spawning call, by its number in the agent."""
    lives: list[Life]
    spawn_s: list[float]
    report_s: list[float] = field(default_factory=list)
    joined: int | None = None
    """Calls from the spawning one to the first that takes a report; None: none does."""


@dataclass(slots=True, eq=False)
class Life:
    """One agent of one session."""

    session: int
    agent: str
    role: str
    model: str
    scaffold: list[tuple[str, int, str]]
    """Texts its first prompt begins with: (name, tokens, scope). Scope `trace`: shared by sessions; `session`: by
    agents of several roles; `role`: by agents of one; `own`: by nobody; `single`: by nobody, and no other of its role
    was there; `alone`: by nobody, and nobody else was there."""
    first_tokens: int
    first_output_tokens: int
    steps: list[Step] = field(default_factory=list)
    spawned: list[Spawned] = field(default_factory=list)
    spawned_by: Life | None = None

    @property
    def calls(self) -> int:
        return 1 + len(self.steps)

    def depth(self, role: str) -> int:
        """Of it and the agents above it, those that were spawned and have a role."""
        life, depth = self, 0
        while life.spawned_by is not None:
            depth += life.role == role
            life = life.spawned_by
        return depth


def lives(session: SessionFacts) -> list[Life]:
    """The lives of a session, in the order they began."""
    found: dict[str, Life] = {}
    last: dict[str, CallFacts] = {}
    numbers: dict[int, int] = {}
    for call in session.calls:
        agent = call.call.agent
        life = found.get(agent)
        if life is None:
            life = found[agent] = _begun(session, call)
            _spawned(session, call, life, found, numbers)
            numbers[call.place] = 0
        else:
            numbers[call.place] = life.calls
            life.steps.append(_step(session, call, last[agent], life.calls, numbers))
            _reports(session, call, life, found, numbers)
        last[agent] = call
    _tell_who_shares(list(found.values()))
    return list(found.values())


def _tell_who_shares(lives: list[Life]) -> None:
    """Put the scope of a session's texts as who shares them: agents of several roles, those of one, or nobody.

    An agent that is the only one of its role (`single`), or of its session (`alone`), cannot tell them all apart.
    """
    users: dict[str, list[str]] = {}
    for life in lives:
        for name in {name for name, _, scope in life.scaffold if scope == "session"}:
            users.setdefault(name, []).append(life.role)
    of_role = Counter(life.role for life in lives)
    scopes: dict[str, str] = {}
    for name, roles in users.items():
        unshared = "own" if of_role[roles[0]] > 1 else "single" if len(lives) > 1 else "alone"
        scopes[name] = unshared if len(roles) == 1 else "role" if len(set(roles)) == 1 else "session"
    for life in lives:
        life.scaffold = [(n, tokens, scopes[n] if s == "session" else s) for n, tokens, s in life.scaffold]


def _begun(session: SessionFacts, call: CallFacts) -> Life:
    scaffold: list[tuple[str, int, str]] = [(span.name, span.tokens, span.scope) for span in call.call.spans]
    own = sum(part.tokens for part in call.call.fresh if part.kind == "definition")
    if own:
        scaffold.append(("", own, "own"))
    first = call.prompt_tokens - sum(tokens for _, tokens, _ in scaffold)
    return Life(
        session=session.number,
        agent=call.call.agent,
        role=call.role,
        model=call.call.model,
        scaffold=scaffold,
        first_tokens=max(0, first),
        first_output_tokens=call.call.output_tokens,
    )


def _step(session: SessionFacts, call: CallFacts, before: CallFacts, number: int, numbers: dict[int, int]) -> Step:
    context = before.prompt_tokens + before.call.answer_tokens
    edge = next((edge for edge in call.call.after if edge.call == before.call.id), None)
    gap, wait_s = (edge.gap, edge.wait_s) if edge is not None else (call.gap, call.wait_s)
    inherited = min(call.inherited_tokens, context)
    change: Change = "rewrite"
    if inherited >= context:
        change = "keep"
    elif call.prompt_tokens < SHRUNK * context:
        change = "compact"
    elif inherited >= max(before.prompt_tokens - BLOCKS, before.prompt_tokens / 2):
        change = "reword"
    reports = sum(part.tokens for part in call.call.fresh if part.kind == "report")
    own = [place for place in call.parents if session.calls[place].call.agent == call.call.agent]
    origin = session.calls[call.before] if call.before in own else before
    return Step(
        number=number,
        gap=_TURNS.get(gap, "tool"),
        wait_s=wait_s,
        context_tokens=context,
        before_tokens=before.prompt_tokens,
        prompt_tokens=call.prompt_tokens,
        inherited_tokens=inherited,
        report_tokens=reports,
        output_tokens=call.call.output_tokens,
        change=change,
        parents=tuple(sorted(numbers[place] for place in own)),
        origin=numbers[origin.place],
        from_origin_tokens=call.prompt_tokens - origin.prompt_tokens - origin.call.answer_tokens - reports,
    )


def _spawned(
    session: SessionFacts, call: CallFacts, life: Life, found: dict[str, Life], numbers: dict[int, int]
) -> None:
    """Tell the agent whose call spawned this one. (An agent that a person sent to work is nobody's subagent.)"""
    for edge, place in ((e, p) for e in call.call.after for p in call.parents if session.calls[p].call.id == e.call):
        parent = found.get(session.calls[place].call.agent)
        if parent is None or parent is life or edge.gap == "human":
            continue
        life.spawned_by = parent
        group = next((s for s in parent.spawned if s.number == numbers[place] and s.lives[0].role == life.role), None)
        if group is None:
            group = Spawned(numbers[place], [], [])
            parent.spawned.append(group)
        group.lives.append(life)
        group.spawn_s.append(edge.wait_s)
        return


def _reports(
    session: SessionFacts, call: CallFacts, life: Life, found: dict[str, Life], numbers: dict[int, int]
) -> None:
    """Note which of the agent's subagents this call waits for."""
    if len(call.parents) < 2:
        return
    waits = {edge.call: edge.wait_s for edge in call.call.after}
    for place in call.parents:
        other = session.calls[place]
        child = found.get(other.call.agent)
        for group in life.spawned:
            if child is not None and any(child is spawned for spawned in group.lives):
                group.report_s.append(waits[other.call.id])
                if group.joined is None:
                    group.joined = numbers[call.place] - group.number
