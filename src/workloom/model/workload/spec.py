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

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from workloom.model.families import Family, Fixed
from workloom.session import PartKind

Share = Annotated[float, Meta(ge=0, le=1)]
Ratio = Annotated[float, Meta(ge=-1, le=1)]
Many = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
TurnGap = Literal["tool", "human", "network", "orchestration"]

Measure = Literal["fresh", "output", "wait"]
Pair = Literal["fresh output", "fresh wait", "output wait"]
MOST_LEVELS = 20
MOST_CALLS = 100_000
"""Of one session: more is a slip of the keyboard, or subagents that never stop spawning."""
MEASURES: tuple[Measure, ...] = ("fresh", "output", "wait")
"""What is drawn together for every call."""
TRAITS = ("calls", "first", *MEASURES)
"""What is drawn together for every agent of a session. `calls` goes together with `first` only: measures are told over
all calls, and would be another's if they were those of long sessions."""
TraitPair = Literal[
    "calls first", "first fresh", "first output", "first wait", "fresh output", "fresh wait", "output wait"
]
PAIRS_OF_TRAITS: tuple[TraitPair, ...] = get_args(TraitPair)


class Scaffold(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text that contexts begin with: system prompt, tool definitions, a document.

    name: what it is called; agents that begin with a text of one name begin with the same text.
    tokens: its length, drawn once for a text.
    shared: `trace`: one text for all sessions; `session`: one for each session, which its agents share; `agent`: one
        for each agent of a session.
    share: the part of sessions (or agents) that have it.
    pool: there are so many different texts of that name, and each session takes one of them.
    """

    name: str
    tokens: Family
    shared: Literal["trace", "session", "agent"] = "session"
    share: Share = 1.0
    pool: Many = 1


class First(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a context begins with behind its scaffold.

    fresh: tokens of the message.
    output: tokens of the answer to it.
    """

    fresh: Family
    output: Family


class Turn(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call behind one kind of gap.

    fresh: new tokens, reports of subagents not counted.
    output: tokens of the answer.
    wait: seconds from the end of the call before.
    share: the part of an agent's calls that come behind such a gap, drawn for every session; the first turn listed
        takes what the others leave.
    ranks: rank correlations of the three, by names as in `fresh output`.
    part: the kind of text that is new (default: user behind a human gap, tool behind others).
    """

    fresh: Family
    output: Family
    wait: Family = Fixed(0.0)
    share: Family | None = None
    ranks: dict[Pair, Ratio] = {}
    part: PartKind | None = None


class Opening(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent reads before it works: its first calls have new text of another length, for the first turn listed.

    calls: how many calls behind the first, or behind the stage before.
    fresh: their new tokens.
    """

    calls: Many
    fresh: Family


class Memory(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What hangs together along a session.

    session: by measure, the share of its variance (of normal scores) that is the session's own: sessions of long
        answers, sessions of short ones.
    carry: by measure, the correlation of what is left with the call before.
    ranks: rank correlations between traits of a session, as in `calls first`: calls with first, and first, fresh,
        output and wait with each other.
    """

    session: dict[Measure, Share] = {}
    carry: dict[Measure, Ratio] = {}
    ranks: dict[TraitPair, Ratio] = {}


class Rewrite(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A prompt that goes on but was changed further up: edited tools, old results cut out.

    share: of calls.
    keeps: what is left unchanged at the beginning, as a share of the context before.
    size: the new context over the old one, before what the call adds.
    """

    share: Share
    keeps: Family
    size: Family = Fixed(1.0)


class Compaction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A context that would grow too long begins anew, with its scaffold and a summary.

    trigger: the tokens it does not grow beyond, drawn for every session and again behind every compaction.
    target: the tokens it begins anew with, scaffold included; at most 0.7 of what it had.
    share: the part of sessions in which that happens at all; in none whose first prompt is beyond the trigger already.
    call: tokens of the summary, if a call of its own over the whole context writes it.
    rewrite_after: how often the next prompt keeps only the scaffold once more.
    """

    trigger: Family
    target: Family
    share: Share = 1.0
    call: Family | None = None
    rewrite_after: Share = 0.0


class Reworded(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An answer that comes back as other text, so that nothing of it is found in a cache.

    share: of an agent's calls, drawn for every session.
    new: tokens of the prompt beyond what it was before and the answer; below 0 where the answer comes back shorter (in
        the opening its `fresh` is used instead).
    whole: how often all of the prompt before is kept; else it is kept but for its last blocks.
    """

    share: Family
    new: Family
    whole: Share = 1.0


class History(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a prompt does not keep of the context before it.

    reworded: answers that come back as other text.
    rewrite: prompts changed further up.
    compaction: contexts that begin anew.
    """

    reworded: Reworded | None = None
    rewrite: Rewrite | None = None
    compaction: Compaction | None = None


class Delegate(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Subagents with a context of their own.

    agent: whose name they have.
    sessions: the part of an agent's lives in which it delegates at all.
    times: how often in such a life, between calls chosen evenly.
    at_once: how many subagents each time.
    waits: how often the agent waits for all of them with its next call.
    later: else their reports come with the so-manieth call behind the spawning one (2 or more; with the last, if there
        are not so many). Without it they never come.
    reported: the share of cases in which they do.
    spawn: seconds from the spawning call to a subagent's first.
    report: seconds from a subagent's last call to the one that takes its report.
    levels: how deep this may nest.
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
    levels: Annotated[int, Meta(ge=1, le=MOST_LEVELS)] = 1


class Retry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call that is cut off and sent again, the same to the word.

    share: of calls, and of tries again.
    at_most: tries again of one call.
    wait: seconds before each.
    after: tokens at which the call is cut off.
    """

    share: Share
    at_most: Many = 1
    wait: Family = Fixed(1.0)
    after: Family = Fixed(1.0)


class Final(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The last call of an agent, also where it is the only one.

    output: tokens of its answer.
    """

    output: Family


class Agent(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One role: a loop of calls, or a DAG of them.

    first: the message a context begins with, and the answer.
    calls: how many calls a loop has.
    turns: what a call is like, by the kind of gap before it.
    opening: stages of calls that read before the agent works.
    models: names with their share of sessions.
    scaffold: the texts every context of the agent begins with, in order.
    memory: what hangs together along a session.
    history: what a prompt does not keep.
    delegates: subagents.
    retries: calls that are sent again.
    final: the last call.
    pauses: seconds before the call of a number (the first is 1), whatever its turn says.
    graph: a DAG: for every call the calls it waits for, by number from 0; a call goes on from the context of the last
        one named.
    history_of: for a call of the graph, from which of those it goes on instead.
    widths: a DAG in short: levels of so many calls, each fanned out evenly from the one before, or joining it.
    """

    first: First
    calls: Family = Fixed(1.0)
    turns: dict[TurnGap, Turn] = {}
    opening: tuple[Opening, ...] = ()
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
    """Sessions that begin with an agent.

    agent: its name.
    weight: how often, beside the weights of other kinds; for a random order.
    count: how many come in a row; for a cycle.
    """

    agent: str
    weight: Annotated[float, Meta(gt=0, le=1e9)] = 1.0
    count: Many = 1


class Workload(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workload.

    agents: by name; see Agent.
    workload: the version of the format, 1.
    name: what traces and sessions made of it are called.
    about: one line about it.
    source: where its numbers come from.
    block_tokens: the block size that sharing was measured at: a prompt that does not keep an answer keeps whole blocks
        of what was before it.
    tick_s: waits are whole multiples of it, as on the clock of the trace.
    sessions: what sessions begin with (default: the first agent).
    order: `random`: the kind of each session is drawn by weight; `cycle`: `count` of the first kind, then of the next,
        and around.
    arrivals: seconds between session starts (only `run --replay` uses them).
    arrivals_tick_s: starts are told on a clock that ticks so often.
    users: sessions belong to one of so many users.
    """

    agents: dict[str, Agent]
    workload: Literal[1] = 1
    name: str = "workload"
    about: str = ""
    source: str = ""
    block_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    tick_s: Annotated[float, Meta(gt=0, le=3600)] | None = None
    sessions: tuple[Kind, ...] = ()
    order: Literal["random", "cycle"] = "random"
    arrivals: Family | None = None
    arrivals_tick_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    users: Many | None = None

    def kinds(self) -> tuple[Kind, ...]:
        """What sessions begin with: as told, or the first agent."""
        return self.sessions or (Kind(next(iter(self.agents))),)

    def __post_init__(self) -> None:
        from workloom.model.workload.check import faults

        found = list(faults(self))
        if found:
            raise ValueError("\n".join(found))
