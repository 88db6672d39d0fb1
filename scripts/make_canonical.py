"""Write src/workloom/data/canonical.jsonl: 20 sessions of coding agents, the workload of `make run`.

    python scripts/make_canonical.py [file]

Made up, but from published figures of 710 recorded Claude Code sessions (the WEKA / kv-cache-tester traces, parent
requests; p10, p50, p90, p99 and maximum). A quantity is drawn log-linearly in normal scores between those quantiles,
so it is log-normal in pieces and its tail passes through the published maximum.

Met: output tokens (105, 216, 899, 3,663, 18,195); uncached tokens against the previous request, here the previous
answer and what is fresh (230, 705, 4,077, with a tail of tens of thousands); waits before a request (p50 10 s, over
60 s in 18.8 %); tools and system prompt about 15k tokens, one text for all sessions; about 10.7 requests a subagent.

Not met, on purpose: sessions have 8 to 60 requests in the main agent (published 7, 45, 156, 330), so that contexts
fit 131,072 tokens (published p50 of the input 104,644) and a run is quick; with that, two compactions in 700 calls
(published: context shrinks in 0.9 % of steps); 5 of 20 sessions spawn subagents (published 17 of 710), so that there
is something to see: one alone, two and three in parallel, one that spawns its own.

Assumed, no figure being published: how waits part into those for tools and for humans, and the sizes of a subagent's
scaffold, its task and report, user messages, project notes and what a compaction keeps.

Numbers come from workloom.seeds by address and the standard library only, so the bytes do not hang on a numpy version.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

from workloom import seeds
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span, validate
from workloom.traces import native

SEED = 703
"""Of 700 to 719 the one whose 700 calls lie nearest to the published quantiles of output tokens."""
FILE = Path(__file__).resolve().parent.parent / "src/workloom/data/canonical.jsonl"
SESSIONS = 20
ROOM = 118_000  # an agent compacts before prompt and answer pass this
SCAFFOLD = Span("tools+system", 15_000, "trace")
EXPLORE_SCAFFOLD = Span("explore: tools+system", 6_000, "trace")
SPAWNS: dict[int, Sequence[int]] = {2: (1,), 6: (3,), 9: (1, 2), 13: (2,), 17: (1,)}
"""Sessions with subagents: how many at each spawn. The single one of session 17 spawns a subagent of its own."""
NESTED = 17
TOOLS = (("Read", 0.35), ("Bash", 0.3), ("Edit", 0.2), ("Grep", 0.15))
HUMAN_SHARE = 0.2

Quantiles = Sequence[tuple[float, float]]
LAST = 1 - 1 / 48_658  # where the published maximum of as many requests stands

OUTPUT: Quantiles = ((0.1, 105), (0.5, 216), (0.9, 899), (0.99, 3663), (LAST, 18_195))
RESULT: Quantiles = ((0.1, 50), (0.5, 430), (0.9, 3300), (0.99, 20_000), (LAST, 25_000))
"""What a tool gives back: with the answer before it, the published uncached tokens. Tools cut at 25,000."""
USER: Quantiles = ((0.1, 15), (0.5, 80), (0.9, 700), (0.99, 8000), (LAST, 20_000))
FIRST_USER: Quantiles = ((0.1, 60), (0.5, 400), (0.9, 3000), (0.99, 12_000), (LAST, 20_000))
PROJECT_NOTES: Quantiles = ((0.1, 300), (0.5, 1500), (0.9, 6000), (0.99, 12_000), (LAST, 20_000))
TASK: Quantiles = ((0.1, 120), (0.5, 350), (0.9, 900), (0.99, 2000), (LAST, 4000))
REPORT: Quantiles = ((0.1, 500), (0.5, 1100), (0.9, 2400), (0.99, 5000), (LAST, 8000))
SUMMARY: Quantiles = ((0.1, 1800), (0.5, 3000), (0.9, 5000), (0.99, 6500), (LAST, 8000))
RESTORED: Quantiles = ((0.1, 1500), (0.5, 6000), (0.9, 15_000), (0.99, 20_000), (LAST, 25_000))
TOOL_WAIT: Quantiles = ((0.1, 2), (0.5, 6), (0.9, 30), (0.99, 150), (LAST, 600))
HUMAN_WAIT: Quantiles = ((0.1, 20), (0.5, 150), (0.9, 1200), (0.99, 10_000), (LAST, 77_589))
SPAWN_WAIT: Quantiles = ((0.1, 0.2), (0.5, 0.5), (0.9, 2), (0.99, 5), (LAST, 10))
REQUESTS: Quantiles = ((0.1, 10), (0.5, 28), (0.9, 54), (0.99, 60), (LAST, 60))
SUBAGENT_REQUESTS: Quantiles = ((0.1, 6), (0.5, 10), (0.9, 17), (0.99, 24), (LAST, 30))


def quantile(table: Quantiles, share: float) -> float:
    """The value at `share` of the distribution that passes through the table."""
    z = NormalDist().inv_cdf
    low, high = next((pair for pair in pairwise(table) if share <= pair[1][0]), table[-2:])
    along = (z(share) - z(low[0])) / (z(high[0]) - z(low[0]))
    return math.exp(math.log(low[1]) * (1 - along) + math.log(high[1]) * along)


class Draw:
    """A stream of numbers that belongs to its address."""

    def __init__(self, *path: seeds.Address) -> None:
        self.path = path
        self.count = 0

    def share(self) -> float:
        self.count += 1
        return (seeds.number(SEED, "canonical", *self.path, self.count) + 0.5) / 2**64

    def tokens(self, table: Quantiles) -> int:
        return max(1, round(quantile(table, self.share())))

    def seconds(self, table: Quantiles) -> float:
        return round(quantile(table, self.share()), 2)

    def tool(self) -> str:
        share = self.share()
        for name, weight in TOOLS:
            share -= weight
            if share < 0:
                return name
        return TOOLS[-1][0]


class Agent:
    """One agent of a session, adding its calls to the session's list as it lives."""

    def __init__(self, calls: list[Call], draw: Draw, name: str, scaffold: Span) -> None:
        self.calls = calls
        self.draw = draw
        self.name = name
        self.scaffold = scaffold
        self.context = 0
        self.first: str | None = None
        self.last: str | None = None

    def call(self, after: tuple[Edge, ...], fresh: tuple[Part, ...], output: int) -> Call:
        """One request that continues the agent's last, after a compaction if it would not fit."""
        size = sum(part.tokens for part in fresh)
        if self.last is not None and self.context + size + output > ROOM:
            self.compact(after)
            after = (Edge(self.last, 0.5, "orchestration"),)
            restored = Part("injected", self.draw.tokens(RESTORED), "files read again")
            fresh = (Part("summary", self.calls[-1].output_tokens, from_call=self.last), restored, *fresh)
            return self.add(after, Inherit(str(self.first), self.scaffold.tokens), (), fresh, output)
        if self.last is None:
            return self.add(after, None, (self.scaffold,), fresh, output)
        return self.add(after, Inherit(self.last), (), fresh, output)

    def compact(self, after: tuple[Edge, ...]) -> None:
        ask = (Part("injected", 450, "summarise"),)
        self.add(after, Inherit(str(self.last)), (), ask, self.draw.tokens(SUMMARY))

    def add(
        self,
        after: tuple[Edge, ...],
        inherit: Inherit | None,
        spans: tuple[Span, ...],
        fresh: tuple[Part, ...],
        output: int,
    ) -> Call:
        number = sum(call.agent == self.name for call in self.calls) + 1
        call = Call(f"{self.name}/{number}", output, after, self.name, inherit=inherit, spans=spans, fresh=fresh)
        begun = self.scaffold.tokens if inherit is None or inherit.tokens is not None else self.context
        self.context = begun + call.fresh_tokens + output
        self.first = self.first or call.id
        self.last = call.id
        self.calls.append(call)
        return call

    def begin(self, after: tuple[Edge, ...], fresh: tuple[Part, ...]) -> None:
        self.call(after, fresh, self.draw.tokens(OUTPUT))

    def use_tool(self, report: bool = False) -> None:
        wait = self.draw.seconds(TOOL_WAIT)
        result = Part("tool", self.draw.tokens(RESULT), self.draw.tool(), wait)
        output = self.draw.tokens(REPORT if report else OUTPUT)
        self.call((Edge(str(self.last), wait, "tool"),), (result,), output)

    def hear_human(self) -> None:
        wait = self.draw.seconds(HUMAN_WAIT)
        message = Part("user", self.draw.tokens(USER))
        self.call((Edge(str(self.last), wait, "human"),), (message,), self.draw.tokens(OUTPUT))

    def delegate(self, count: int, nested: bool = False) -> None:
        """Spawn `count` subagents at once and go on when all have reported."""
        spawner = str(self.last)
        before = {call.agent for call in self.calls}
        workers = [f"explore-{len(before) + i}" for i in range(count)]
        reports = [self.explore(name, spawner, nested) for name in workers]
        after = tuple(Edge(call.id, 0.2, "tool") for call in reports)
        fresh = tuple(Part("report", call.output_tokens, "Task", from_call=call.id) for call in reports)
        self.call((Edge(spawner, 0.0, "none"), *after), fresh, self.draw.tokens(OUTPUT))

    def explore(self, name: str, spawner: str, nested: bool) -> Call:
        """The whole life of a subagent; its last call is its report."""
        worker = Agent(self.calls, Draw(*self.draw.path, name), name, EXPLORE_SCAFFOLD)
        draw = worker.draw
        requests = draw.tokens(SUBAGENT_REQUESTS)
        worker.begin((Edge(spawner, draw.seconds(SPAWN_WAIT), "spawn"),), (Part("user", draw.tokens(TASK), "task"),))
        for number in range(2, requests):
            if nested and number == requests // 2:
                worker.delegate(1)
            else:
                worker.use_tool()
        worker.use_tool(report=True)
        return self.calls[-1]


def session(index: int, requests: int) -> Session:
    """One user's afternoon: tasks from a human, tools between, subagents where SPAWNS says so."""
    calls: list[Call] = []
    draw = Draw(index)
    agent = Agent(calls, draw, "main", SCAFFOLD)
    notes = Part("injected", draw.tokens(PROJECT_NOTES), "project notes")
    agent.begin((), (notes, Part("user", draw.tokens(FIRST_USER))))
    spawns = list(SPAWNS.get(index, ()))
    at = {max(2, requests * (i + 1) // (len(spawns) + 2)): count for i, count in enumerate(spawns)}
    for number in range(2, requests + 1):
        if number in at:
            agent.delegate(at[number], nested=index == NESTED)
        elif draw.share() < HUMAN_SHARE:
            agent.hear_human()
        else:
            agent.use_tool()
    made = Session(f"canonical-{index:02d}", tuple(calls), workflow="coding agent", origin="scripts/make_canonical.py")
    validate(made)
    return made


def sessions() -> list[Session]:
    """All of them; lengths are spread evenly over their distribution, in a shuffled order."""
    order = sorted(range(SESSIONS), key=lambda index: seeds.number(SEED, "canonical", "length", index))
    requests = {index: round(quantile(REQUESTS, (rank + 0.5) / SESSIONS)) for rank, index in enumerate(order)}
    return [session(index, min(60, max(8, requests[index]))) for index in range(SESSIONS)]


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    count = native.write(file, Header(source=f"scripts/make_canonical.py, seed {SEED}"), sessions())
    print(f"{file.name}: {count} sessions, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
