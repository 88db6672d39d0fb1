"""A workload as data: what `workload.yaml` holds, what `fit` writes and `synth` draws sessions from.

    Workload
      sessions: Kind[]        which agent sessions begin with, and in which order
      arrivals                seconds between session starts
      agents: name -> Agent
          scaffold            named texts every context of the agent begins with, and who shares them
          first               the message a context begins with
          calls + turns       an agent loop: how many calls, and what a call is like behind each kind of gap
          graph               instead of a loop: a DAG of calls, given
          memory              what belongs to a session, what carries over, what goes together
          history             what a prompt does not keep: answers left out, histories rewritten, compaction
          delegates           subagents: when, how many, who waits for them
          retries, pauses, final

Every number that varies is a distribution (:mod:`workloom.model.families`). Correlations are rank correlations
(Spearman), because that is what a trace tells and a reader can check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from workloom.model.families import Family, Fixed

Share = Annotated[float, Meta(ge=0, le=1)]
Ratio = Annotated[float, Meta(ge=-1, le=1)]
Many = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
TurnGap = Literal["tool", "human", "network", "orchestration"]

Measure = Literal["fresh", "output", "wait"]
Pair = Literal["fresh output", "fresh wait", "output wait"]
MEASURES: tuple[Measure, ...] = ("fresh", "output", "wait")
"""What is drawn together for every call."""
TRAITS = ("calls", "first", *MEASURES)
"""What is drawn together for every agent of a session. `calls` goes together with `first` only: measures are told over
all calls, and would be another's if they were those of long sessions."""
PAIRS_OF_TRAITS = (
    "calls first",
    *(f"{a} {b}" for i, a in enumerate(TRAITS[1:], 1) for b in TRAITS[i + 1 :]),
)


class Scaffold(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text that contexts begin with: system prompt, tool definitions, a document.

    shared: `trace`: one text for all sessions; `session`: one for each session, which its agents share.
    share: the part of sessions that have it. pool: there are so many different texts of that name, and each session
    takes one of them.
    """

    name: str
    tokens: Family
    shared: Literal["trace", "session"] = "session"
    share: Share = 1.0
    pool: Many = 1


class First(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a context begins with behind its scaffold: tokens of the message, and of the answer to it."""

    fresh: Family
    output: Family


class Turn(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call behind one kind of gap: new tokens, tokens of its answer, and the seconds waited before it.

    share: the part of an agent's calls that come behind such a gap, drawn for every session; the first turn listed
    takes what the others leave. ranks: rank correlations of the three, by names as in `fresh output`.
    """

    fresh: Family
    output: Family
    wait: Family = Fixed(0.0)
    share: Family | None = None
    ranks: dict[Pair, Ratio] = {}
    part: str | None = None
    """The kind of text that is new (default: user behind a human gap, tool behind others)."""


class Opening(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent reads before it works: the first `calls` calls behind its first have new text of another length.

    It goes for the first kind of turn listed.
    """

    calls: Many
    fresh: Family


class Memory(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What hangs together along a session.

    session: by measure, the share of its variance (of normal scores) that is the session's own: sessions of long
    answers, sessions of short ones. carry: by measure, the correlation of what is left with the call before.
    ranks: rank correlations between traits of a session, as in `calls first`: calls with first, and first, fresh,
    output and wait with each other.
    """

    session: dict[Measure, Share] = {}
    carry: dict[Measure, Ratio] = {}
    ranks: dict[str, Ratio] = {}


class Rewrite(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A prompt that goes on but was changed further up: edited tools, old results cut out.

    share: of calls. keeps: what is left unchanged at the beginning, as a share of the context before. size: the new
    context over the old one, before what the call adds.
    """

    share: Share
    keeps: Family
    size: Family = Fixed(1.0)


class Compaction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A context that grows beyond `trigger` tokens begins anew with `target` tokens, scaffold included.

    share: the part of sessions in which that happens at all; in none whose first prompt is beyond it already. call:
    tokens of the summary, if a call of its own over the whole context writes it. rewrite_after: how often the next
    prompt keeps only the scaffold once more.
    """

    trigger: Family
    target: Family
    share: Share = 1.0
    call: Family | None = None
    rewrite_after: Share = 0.0


class Reworded(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An answer that comes back as other text, so that nothing of it is found in a cache.

    share: of an agent's calls, drawn for every session. new: tokens of the prompt beyond what it was before and the
    answer; below 0 where the answer comes back shorter.
    """

    share: Family
    new: Family


class History(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a prompt does not keep of the context before it."""

    reworded: Reworded | None = None
    rewrite: Rewrite | None = None
    compaction: Compaction | None = None


class Delegate(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Subagents with a context of their own.

    sessions: the part of an agent's lives in which it delegates at all; times: how often in such a life, between calls
    chosen evenly; at_once: how many subagents each time. waits: how often the agent waits for all of them; else their
    reports come `later` calls on, in a share `reported` of cases. spawn, report: seconds from the spawning call to a
    subagent's first, and from its last to the call that takes its report. levels: how deep this may nest.
    """

    agent: str
    sessions: Share = 1.0
    times: Family = Fixed(1.0)
    at_once: Family = Fixed(1.0)
    waits: Share = 1.0
    later: Family | None = None
    reported: Share = 1.0
    spawn: Family = Fixed(0.0)
    report: Family = Fixed(0.0)
    levels: Annotated[int, Meta(ge=1, le=20)] = 1


class Retry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call that is cut off after `after` tokens and sent again, the same to the word.

    share: of calls, and of tries; at_most: tries of one call.
    """

    share: Share
    at_most: Many = 1
    wait: Family = Fixed(1.0)
    after: Family = Fixed(1.0)


class Final(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The last call of an agent that has more than one: tokens of its answer."""

    output: Family


class Agent(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One role: a loop of `calls` calls behind gaps of kinds `turns`, or a DAG of them.

    graph: for every call the calls it waits for, by number from 0; a call goes on from the context of the last one
    named, or of the one `history_of` names. widths: the same in short: levels of so many calls, each fanned out evenly
    from the one before, or joining it.
    models: names with their share of sessions. pauses: seconds before the call of a number (the first is 1), whatever
    its turn says.
    """

    first: First
    calls: Family = Fixed(1.0)
    turns: dict[TurnGap, Turn] = {}
    opening: Opening | None = None
    models: dict[str, Share] = {}
    scaffold: tuple[Scaffold, ...] = ()
    memory: Memory = Memory()
    history: History = History()
    delegates: tuple[Delegate, ...] = ()
    retries: Retry | None = None
    final: Final | None = None
    pauses: dict[int, Seconds] = {}
    graph: tuple[tuple[int, ...], ...] = ()
    history_of: dict[int, int] = {}
    widths: tuple[Many, ...] = ()


class Kind(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Sessions that begin with an agent: its weight in a random order, or how many come in a row in a cycle."""

    agent: str
    weight: Annotated[float, Meta(gt=0)] = 1.0
    count: Many = 1


class Workload(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workload.

    order: random: the kind of each session is drawn by weight; cycle: `count` of the first kind, then of the next, and
    around. arrivals: seconds between session starts (only `run --replay` uses them). users: sessions belong to one of
    so many users. block_tokens: the block size that sharing was measured at.
    """

    agents: dict[str, Agent]
    workload: Literal[1] = 1
    name: str = "workload"
    about: str = ""
    source: str = ""
    block_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    sessions: tuple[Kind, ...] = ()
    order: Literal["random", "cycle"] = "random"
    arrivals: Family | None = None
    users: Many | None = None

    def kinds(self) -> tuple[Kind, ...]:
        """What sessions begin with: as told, or the first agent."""
        return self.sessions or (Kind(next(iter(self.agents))),)

    def __post_init__(self) -> None:
        found = list(faults(self))
        if found:
            raise ValueError("; ".join(found))


def faults(workload: Workload) -> Iterator[str]:
    """What the parts of a workload say that does not go together."""
    if not workload.agents:
        yield "agents: a workload has at least one"
        return
    for kind in workload.sessions:
        if kind.agent not in workload.agents:
            yield f"sessions: there is no agent {kind.agent}"
    for name, agent in workload.agents.items():
        yield from (f"agents.{name}.{fault}" for fault in _agent_faults(agent, workload))


def _agent_faults(agent: Agent, workload: Workload) -> Iterator[str]:
    for delegate in agent.delegates:
        if delegate.agent not in workload.agents:
            yield f"delegates: there is no agent {delegate.agent}"
    if agent.graph and agent.widths:
        yield "graph: a DAG is told by graph or by widths, not by both"
    dag = bool(agent.graph or agent.widths)
    if (dag or agent.calls != Fixed(1.0)) and not agent.turns:
        yield "turns: an agent of more than one call needs at least one kind of turn"
    if any(turn.share is None for turn in list(agent.turns.values())[1:]):
        yield "turns: every turn but the first needs a share"
    if dag and len(agent.turns) > 1:
        yield "turns: a DAG has one kind of turn"
    if agent.widths and agent.widths[0] != 1:
        yield "widths: a DAG begins with one call"
    for number, parents in enumerate(agent.graph):
        if number and not parents:
            yield f"graph[{number}]: a call after the first waits for at least one"
        if any(not 0 <= parent < number for parent in parents):
            yield f"graph[{number}]: a call waits for calls before it, not {list(parents)}"
        if number in agent.history_of and agent.history_of[number] not in parents:
            yield f"history_of[{number}]: a call goes on from one that it waits for"
    for number in agent.history_of:
        if not 0 <= number < len(agent.graph):
            yield f"history_of[{number}]: the graph has no such call"
    for pair in agent.memory.ranks:
        if pair not in PAIRS_OF_TRAITS:
            yield f"memory.ranks: {pair!r} is none of {', '.join(PAIRS_OF_TRAITS)}"
    total = sum(agent.models.values())
    if agent.models and not 0.999 <= total <= 1.001:
        yield f"models: shares sum to {total:g}, not 1"
