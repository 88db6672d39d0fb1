"""Little worlds for engine tests: calls that share prefixes and wait for one another, driven in closed loop.

A world is played on the fast engine (leaping or stepping) and on the slow reference model; what comes out must be equal
to the picosecond. Calls are submitted when those before them are done, so one wrong instant changes all after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from hypothesis import strategies as st
from reference import ReferenceEngine

from workloom.engine.blocks import Run
from workloom.engine.check import check
from workloom.engine.engine import Engine
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.prefix import Node as TreeNode
from workloom.engine.profile import FitError, FrontEnd, Profile, Retention, Speculative, StepCost, Tier
from workloom.prefix import Key

NO_ERROR = FitError(prefill_max=0.0, decode_max=0.0, mixed_max=None, mean=0.0, points=0)


def profile(
    *,
    kv_tokens: int | None = None,
    block_tokens: int = 4,
    max_num_seqs: int = 4,
    max_batched_tokens: int = 16,
    max_model_len: int = 10_000,
    step: StepCost | None = None,
    front_end: FrontEnd | None = None,
    **more: object,
) -> Profile:
    """A made-up server, small enough for every limit to bite. `more`: other fields of it."""
    cost = StepCost(
        weights_ps=5_003,
        prefill_base_ps=2_001,
        prefill_token_ps=701,
        sequence_ps=97,
        pair_ps=11,
        context_token_ps=13,
        experts_ps=900,
        experts=16,
        experts_per_token=2,
        launch_ps=14_009,
        admit_ps=3_001,
        graph_sizes=(1, 2, 4),
    )
    return Profile(
        name="toy",
        model="toy",
        gpu="none",
        gpus=1,
        dtype="none",
        source="made up",
        error=NO_ERROR,
        not_identified={},
        step=step or cost,
        front_end=front_end or FrontEnd(call_ps=1_777, prompt_token_ps=29),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_batched_tokens=max_batched_tokens,
        block_tokens=block_tokens,
        kv_tokens=kv_tokens,
        **more,
    )


class Turn(NamedTuple):
    """One call of a chain: keep so many tokens of the history, add fresh text, wait, give up."""

    keep: int | None
    """Tokens of the previous prompt and answer; None is all."""
    scaffold: int
    """Tokens of a text that all chains share, only at the start of a history."""
    fresh: int
    output: int
    wait_ns: int
    give_up_ns: int | None
    hints: Hints = NO_HINTS


class Node(NamedTuple):
    """One call of a graph: it comes `wait_ns` after the last of `after` is done, or after the start."""

    name: str
    after: tuple[int, ...]
    """Calls before it in the list; it goes on from the history of the last one of these."""
    turn: Turn
    text: int
    """Number of its fresh text: siblings with the same one send equal prompts."""
    rewritten: bool = False
    """The history has nothing of the answer before it as that was generated."""


class Done(NamedTuple):
    """What became of a call, to the last figure."""

    call: str
    status: str
    cached: int
    preemptions: int
    tokens_ps: list[int]
    done_ns: int
    queued_ns: int
    admitted_ns: int | None


class Server(Protocol):
    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None: ...
    def cancel(self, at_ns: int, call: str) -> None: ...
    def advance(self, to_ns: int) -> list[Done]: ...
    def next_ns(self) -> int | None: ...


class Fast:
    """The engine under test."""

    def __init__(
        self,
        profile: Profile,
        *,
        prefix_cache: bool = True,
        leap: bool = True,
        books: bool = True,
        log_steps: int = 8192,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine or Engine(profile, prefix_cache=prefix_cache, leap=leap, log_steps=log_steps)
        self.books = books

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        self.engine.submit(at_ns, call, prompt, answer, output, hints)

    def cancel(self, at_ns: int, call: str) -> None:
        self.engine.cancel(at_ns, call)

    def next_ns(self) -> int | None:
        return self.engine.next_ns()

    def advance(self, to_ns: int) -> list[Done]:
        out = []
        for end in self.engine.advance(to_ns):
            times = [steps.at(i) for steps in end.tokens for i in range(steps.length)]
            assert len(times) == end.output_tokens
            instants = (end.done_ns, end.queued_ns, end.admitted_ns)
            out.append(Done(end.call, end.status, end.cached_tokens, end.preemptions, times, *instants))
        if self.books:
            check(self.engine)
        return out


class Slow:
    """The reference model."""

    def __init__(self, profile: Profile, *, prefix_cache: bool = True) -> None:
        self.engine = ReferenceEngine(profile, prefix_cache=prefix_cache)
        self._told = 0

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        self.engine.submit(at_ns * 1000, call, prompt, answer, output, hints)

    def cancel(self, at_ns: int, call: str) -> None:
        self.engine.cancel(at_ns * 1000, call)
        self.engine.run_until(at_ns * 1000)

    def next_ns(self) -> int | None:
        if len(self.engine.finished) > self._told:
            return self.engine.now_ps // 1000
        at = self.engine.next_ps()
        return None if at is None else -(-at // 1000)

    def advance(self, to_ns: int) -> list[Done]:
        self.engine.run_until(to_ns * 1000)
        ended = list(self.engine.finished.items())[self._told :]
        self._told += len(ended)
        return [
            Done(
                str(call),
                "cancelled" if f.cancelled else "done",
                f.cached_tokens,
                f.preemptions,
                f.token_times_ps,
                -(-f.done_ps // 1000),
                -(-f.queued_ps // 1000),
                None if f.admitted_ps is None else -(-f.admitted_ps // 1000),
            )
            for call, f in ended
        ]


Content = tuple[str, tuple[tuple[int, int], ...]] | None
"""What a free block holds: kv or state, and all tokens through its end; None: nothing that can be found."""


def queues(fast: Fast, slow: Slow) -> tuple[list[Content], list[Content]]:
    """The free queues of both from the head on, block for block; without limits to the room only what can be found."""
    ours = [
        content
        for run in fast.engine.queue
        if run.node or not fast.engine.queue.infinite
        for content in _run(run, fast)
    ]
    pool, tokens = slow.engine.pool, _names(slow)
    theirs: list[Content] = [None if b.name is None else (b.name[0], tokens(b.name[1])) for b in pool.free]
    if pool.infinite:
        theirs = [content for content in theirs if content is not None]
    return ours, theirs


def below(fast: Fast, slow: Slow) -> tuple[list[list[tuple[Content, int]]], list[list[tuple[Content, int]]]]:
    """What each tier of both keeps, the least recently used first, and from when on it can be found (0: now)."""
    now_ps = slow.engine.now_ps
    size = fast.engine.profile.block_tokens
    ours = []
    for tier in fast.engine.tiers.tiers if fast.engine.tiers is not None else ():
        ours.append([])
        for part, ready_ps in tier.queue():
            for block in reversed(range(part.first, part.end)):
                ours[-1].append(
                    (
                        ("state" if part.state else "kv", _tokens(part.node, (block + 1) * size)),
                        ready_ps * (ready_ps > now_ps),
                    )
                )
    names = _names(slow)
    theirs = [
        [((name[0], names(name[1])), tier.ready_ps[name] * (tier.ready_ps[name] > now_ps)) for name in tier.order]
        for tier in slow.engine.scheduler.tiers.tiers
    ]
    for tier, one, other in zip(slow.engine.scheduler.tiers.tiers, ours, theirs, strict=True):
        if tier.capacity is None:  # nothing is taken out: nobody can see the order
            one.sort()
            other.sort()
    return ours, theirs


def _run(run: Run, fast: Fast) -> list[Content]:
    if run.node is None:
        return [None] * len(run)
    size = fast.engine.profile.block_tokens
    if run.boundary:
        return [("state", _tokens(run.node, run.boundary * size))] * len(run)
    return [("kv", _tokens(run.node, (block + 1) * size)) for block in reversed(range(run.start, run.end))]


def _tokens(node: TreeNode, end: int) -> tuple[tuple[int, int], ...]:
    """The first `end` tokens of what stands behind a node of the fast engine's tree."""
    places = []
    while node.parent is not None:
        places.append(node.place)
        node = node.parent
    places.reverse()
    used = [before for before, _ in places[1:]]
    lengths = [*used, end - sum(used)]
    tokens = ((text, i) for (_, text), length in zip(places, lengths, strict=True) for i in range(length))
    return tuple(tokens)[:end]  # a run may begin in a node before that one


def _names(slow: Slow) -> Callable[[int | None], tuple[tuple[int, int], ...]]:
    """From the reference's number of a prefix to its tokens."""
    prefixes = {number: content for content, number in slow.engine.scheduler._names.items()}

    def tokens(number: int | None) -> tuple[tuple[int, int], ...]:
        if number is None:
            return ()
        before, own = prefixes[number]
        return tokens(before) + own

    return tokens


def play(server: Server, chains: list[list[Turn]], starts_ns: list[int]) -> list[Done]:
    """Play every chain in closed loop; the log in order of ending."""
    return play_graph(server, graph(chains, starts_ns))


def graph(chains: list[list[Turn]], starts_ns: list[int]) -> list[Node]:
    """Chains as a graph, their calls named chain/index."""
    nodes: list[Node] = []
    for chain, (turns_, start) in enumerate(zip(chains, starts_ns, strict=True)):
        for index, turn in enumerate(turns_):
            after = (len(nodes) - 1,) if index else ()
            turn = turn if index else turn._replace(wait_ns=start)
            nodes.append(Node(f"{chain}/{index}", after, turn, 1000 * (chain + 1) + 2 * index))
    return nodes


def play_graph(server: Server, nodes: Sequence[Node]) -> list[Done]:
    """Play all calls in closed loop; the log in order of ending."""
    log: list[Done] = []
    due: list[tuple[int, int, str, int]] = []
    names = {node.name: number for number, node in enumerate(nodes)}
    histories: dict[int, Key] = {}
    open_ = [len(set(node.after)) for node in nodes]
    sequence = 0

    def put(at: int, what: str, number: int) -> None:
        nonlocal sequence
        sequence += 1
        heapq.heappush(due, (at, sequence, what, number))

    for number, node in enumerate(nodes):
        if not node.after:
            put(node.turn.wait_ns, "submit", number)
    while True:
        engine_ns = server.next_ns()
        if not due and engine_ns is None:
            return log
        if due and (engine_ns is None or due[0][0] <= engine_ns):
            at, _, what, number = heapq.heappop(due)
            node, turn = nodes[number], nodes[number].turn
            if what == "cancel":
                if node.name not in {done.call for done in log}:
                    server.cancel(at, node.name)
                continue
            key = histories[node.after[-1]] if node.after else Key()
            if turn.keep is not None:
                key = key.cut(turn.keep)
            if not key.tokens:
                key = key.plus(1, turn.scaffold)
            histories[number] = key = key.plus(node.text, turn.fresh)
            server.submit(at, node.name, key, 500_001 + 2 * number, turn.output, turn.hints)
            if turn.give_up_ns is not None:
                put(at + turn.give_up_ns, "cancel", number)
            continue
        assert engine_ns is not None
        for done in server.advance(engine_ns):
            log.append(done)
            number = names[done.call]
            answer = 700_001 + 2 * number if nodes[number].rewritten else 500_001 + 2 * number
            histories[number] = histories[number].plus(answer, len(done.tokens_ps))
            for later, node in enumerate(nodes):
                if number in node.after:
                    open_[later] -= 1
                    if not open_[later]:
                        put(engine_ns + node.turn.wait_ns, "submit", later)


HINTS = st.sampled_from(
    [
        NO_HINTS,
        NO_HINTS,
        Hints(priority=1),
        Hints(priority=-1, expected_output_tokens=7.0),
        Hints(pin_tokens=12),
        Hints(pin_tokens=25, priority=1, expected_output_tokens=2.5),
    ]
)


@st.composite
def turns(draw: st.DrawFn, *, cancels: bool = True, hints: bool = False) -> Turn:
    """A turn whose lengths are around the toy server's limits."""
    return Turn(
        keep=draw(st.sampled_from([None, None, None, 0, 7, 13])),
        scaffold=draw(st.sampled_from([0, 3, 9, 12])),
        fresh=draw(st.integers(1, 30)),
        output=draw(st.integers(1, 12)),
        wait_ns=draw(st.sampled_from([0, 1, 17, 63, 251, 999])),
        give_up_ns=draw(st.sampled_from([None, None, None, 5, 31, 127])) if cancels else None,
        hints=draw(HINTS) if hints else NO_HINTS,
    )


@st.composite
def worlds(draw: st.DrawFn, *, cancels: bool = True) -> tuple[list[list[Turn]], list[int]]:
    """Up to five chains of up to five turns, and when they start."""
    chains = draw(st.lists(st.lists(turns(cancels=cancels), min_size=1, max_size=5), min_size=1, max_size=5))
    starts = draw(st.lists(st.integers(0, 400), min_size=len(chains), max_size=len(chains)))
    return chains, starts


@st.composite
def graphs(draw: st.DrawFn, *, tokens: int = 60, most: int = 14) -> list[Node]:
    """Calls that follow on one another in any way: chains, siblings (with equal prompts, perhaps), joins."""
    nodes: list[Node] = []
    context: list[int] = []
    for number in range(draw(st.integers(1, most))):
        turn = draw(turns(hints=True))
        after = tuple(draw(st.lists(st.integers(0, number - 1), max_size=2))) if number else ()
        kept = context[after[-1]] if after else 0
        kept = kept if turn.keep is None else min(kept, turn.keep)
        if kept + turn.scaffold + turn.fresh + turn.output > tokens:
            turn, kept = turn._replace(keep=0), 0
        text = draw(st.sampled_from([1000 + number, 1000 + number, 998, 999]))
        nodes.append(Node(str(number), after, turn, text, draw(st.booleans())))
        context.append(kept + (0 if kept else turn.scaffold) + turn.fresh + turn.output)
    return nodes


HOST, DISK = Tier("host", 60, 2e9, 1e9), Tier("disk", 100, 4e8, 1e9, latency_ps=5_003)
TIERS = [
    (HOST,),
    (msgspec.structs.replace(HOST, tokens=None, read_bytes_per_s=3e10, write_bytes_per_s=3e10),),
    (msgspec.structs.replace(HOST, write="through"),),
    (HOST, DISK),
    (msgspec.structs.replace(HOST, tokens=20, write="through"), DISK),
    (HOST, msgspec.structs.replace(DISK, write="through", tokens=None)),
]

FEATURES: dict[str, dict[str, list[Any]]] = {
    "async": {"async_scheduling": [True]},
    "states": {"state_groups": [1, 3]},
    "policy": {"policy": ["sjf", "priority"]},
    "mixing": {"mixing": ["prefill_first"], "max_prefill_tokens": [None, 6, 9]},
    "limits": {"max_prefill_tokens": [5, 6, 9], "watermark_blocks": [0, 1, 3]},
    "ttl": {"ttl_ps": [20_000, 100_000, 400_000]},
    "pins": {"pinned_tokens": [8, 24, 40]},
    "sglang": {"cache": ["sglang"]},
    "tiers": {"tiers": TIERS, "kv_token_bytes": [10]},
    "prefetch": {
        "tiers": [tuple(msgspec.structs.replace(tier, prefetch=True) for tier in tiers) for tiers in TIERS],
        "kv_token_bytes": [10],
    },
    "swap": {"tiers": TIERS, "kv_token_bytes": [10], "preemption": ["swap"]},
    "speculation": {"speculative": [Speculative(2, 1.8, 997), Speculative(3, 3.25), Speculative(1, 1.0, 211)]},
}
"""Features of a server, each as the values its fields may have."""

REGIMES = [
    {},
    {"launch_tail_ps": 4_001},
    {"graph_tokens": 6, "graph_launch_ps": 6_007, "graph_token_ps": 499, "launch_tail_ps": 1_003},
    {"graph_tokens": 12, "graph_launch_ps": 9_001, "graph_token_ps": 811, "knee_tokens": 9, "beyond_token_ps": 1_201},
    {
        "knee_tokens": 5,
        "beyond_token_ps": 307,
        "mixed_sequence_ps": 211,
        "padding_ps": 53,
        "decode_ps": ((2, 6_011), (3, 9_001)),
    },
]


@st.composite
def servers(draw: st.DrawFn, features: Sequence[str] = tuple(FEATURES)) -> Profile:
    """Toy servers with any of these features."""
    fields: dict[str, Any] = {}
    for feature in features:
        if len(features) == 1 or draw(st.booleans()):
            for name, values in FEATURES[feature].items():
                fields.setdefault(name, draw(st.sampled_from(values)))
    if fields.get("mixing") == "prefill_first":
        fields.pop("preemption", None)  # nor such a one
    if "cache" in fields:
        fields.pop("state_groups", None)  # no such server
    block = draw(st.sampled_from([1, 2, 4, 5]))
    kv = draw(st.sampled_from([64, 72, 96, 160, None]))
    groups = fields.get("state_groups", 0)
    retention = Retention(ttl_ps=fields.pop("ttl_ps", None), pinned_tokens=fields.pop("pinned_tokens", 0))
    toy = profile()
    return profile(
        block_tokens=block,
        kv_tokens=None if kv is None else kv + 2 * groups * block,
        max_batched_tokens=draw(st.sampled_from([9, 16, 24])),
        step=msgspec.structs.replace(toy.step, **draw(st.sampled_from(REGIMES))),
        front_end=FrontEnd(1_777, 29, *draw(st.sampled_from([(0, 0), (0, 0), (3_001, 0), (30_011, 8_009)]))),
        retention=retention,
        **fields,
    )


def fitting(chains: list[list[Turn]], tokens: int) -> list[list[Turn]]:
    """The chains with every history reset before it outgrows `tokens`."""
    out = []
    for chain in chains:
        context, fitted = 0, []
        for turn in chain:
            kept = context if turn.keep is None else min(context, turn.keep)
            if kept + turn.scaffold + turn.fresh + turn.output > tokens:
                turn, kept = turn._replace(keep=0), 0
            context = kept + (0 if kept else turn.scaffold) + turn.fresh + turn.output
            fitted.append(turn)
        out.append(fitted)
    return out
