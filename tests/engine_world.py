"""Little worlds for engine tests: chains of calls that share prefixes, driven in closed loop on any engine.

A world is played on the fast engine (leaping or stepping) and on the slow reference model; what comes out must be equal
to the picosecond. Children are submitted when their parent is done, so one wrong instant changes everything after it.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple, Protocol

from hypothesis import strategies as st
from reference_engine import ReferenceEngine

from workloom.engine.check import check
from workloom.engine.engine import Engine
from workloom.engine.profile import FitError, FrontEnd, Profile, StepCost
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
) -> Profile:
    """A made-up server, small enough for every limit to bite."""
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


class Done(NamedTuple):
    call: str
    status: str
    cached: int
    preemptions: int
    tokens_ps: list[int]


class Server(Protocol):
    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int) -> None: ...
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
    ) -> None:
        self.engine = Engine(profile, prefix_cache=prefix_cache, leap=leap, log_steps=log_steps)
        self.books = books

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int) -> None:
        self.engine.submit(at_ns, call, prompt, answer, output)

    def cancel(self, at_ns: int, call: str) -> None:
        self.engine.cancel(at_ns, call)

    def next_ns(self) -> int | None:
        return self.engine.next_ns()

    def advance(self, to_ns: int) -> list[Done]:
        out = []
        for end in self.engine.advance(to_ns):
            times = [steps.at(i) for steps in end.tokens for i in range(steps.length)]
            assert len(times) == end.output_tokens
            out.append(Done(end.call, end.status, end.cached_tokens, end.preemptions, times))
        if self.books:
            check(self.engine)
        return out


class Slow:
    """The reference model."""

    def __init__(self, profile: Profile, *, prefix_cache: bool = True) -> None:
        self.engine = ReferenceEngine(profile, prefix_cache=prefix_cache)
        self._told = 0

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int) -> None:
        self.engine.submit(at_ns * 1000, call, prompt, answer, output)

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
            Done(str(call), "cancelled" if f.cancelled else "done", f.cached_tokens, f.preemptions, f.token_times_ps)
            for call, f in ended
        ]


def play(server: Server, chains: list[list[Turn]], starts_ns: list[int]) -> list[Done]:
    """Play every chain in closed loop; the log in order of ending."""
    log: list[Done] = []
    due: list[tuple[int, int, str, int, int]] = []
    history: dict[int, Key] = {}
    for chain, start in enumerate(starts_ns):
        heapq.heappush(due, (start, len(due), "submit", chain, 0))
    sequence = len(due)
    while True:
        engine_ns = server.next_ns()
        if not due and engine_ns is None:
            return log
        if due and (engine_ns is None or due[0][0] <= engine_ns):
            at, _, what, chain, index = heapq.heappop(due)
            name = f"{chain}/{index}"
            if what == "cancel":
                if name not in {done.call for done in log}:
                    server.cancel(at, name)
                continue
            turn = chains[chain][index]
            key = history.get(chain, Key())
            if turn.keep is not None:
                key = key.cut(turn.keep)
            if not key.tokens:
                key = key.plus(1, turn.scaffold)
            key = key.plus(1000 * (chain + 1) + 2 * index, turn.fresh)
            history[chain] = key
            server.submit(at, name, key, 1000 * (chain + 1) + 2 * index + 1, turn.output)
            if turn.give_up_ns is not None:
                sequence += 1
                heapq.heappush(due, (at + turn.give_up_ns, sequence, "cancel", chain, index))
            continue
        assert engine_ns is not None
        for done in server.advance(engine_ns):
            log.append(done)
            chain, index = map(int, done.call.split("/"))
            history[chain] = history[chain].plus(1000 * (chain + 1) + 2 * index + 1, len(done.tokens_ps))
            if index + 1 < len(chains[chain]):
                sequence += 1
                at = engine_ns + chains[chain][index + 1].wait_ns
                heapq.heappush(due, (at, sequence, "submit", chain, index + 1))


@st.composite
def turns(draw: st.DrawFn, *, cancels: bool = True) -> Turn:
    """A turn whose lengths are around the toy server's limits."""
    return Turn(
        keep=draw(st.sampled_from([None, None, None, 0, 7, 13])),
        scaffold=draw(st.sampled_from([0, 3, 9, 12])),
        fresh=draw(st.integers(1, 30)),
        output=draw(st.integers(1, 12)),
        wait_ns=draw(st.sampled_from([0, 1, 17, 63, 251, 999])),
        give_up_ns=draw(st.sampled_from([None, None, None, 5, 31, 127])) if cancels else None,
    )


@st.composite
def worlds(draw: st.DrawFn, *, cancels: bool = True) -> tuple[list[list[Turn]], list[int]]:
    """Up to five chains of up to five turns, and when they start."""
    chains = draw(st.lists(st.lists(turns(cancels=cancels), min_size=1, max_size=5), min_size=1, max_size=5))
    starts = draw(st.lists(st.integers(0, 400), min_size=len(chains), max_size=len(chains)))
    return chains, starts


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
