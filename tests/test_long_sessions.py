"""Sessions of thousands of calls: what a call costs does not grow with its history, and no number changes for that.

Keys and cursors share their beginnings, so a chain of calls is paid for piece by piece. The plain way, which takes the
whole key of every call from the first piece on, is kept here and must agree.
"""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from random import Random
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from planned import plan_of
from strategies import workload

from workloom.clock import NS, VirtualClock, run_virtual
from workloom.drive.backend import Request
from workloom.drive.driver import drive
from workloom.errors import BackendError
from workloom.model.facts import facts
from workloom.model.reuse import CallReuse, reuse
from workloom.plan import Closed, Limits
from workloom.prefix import Key, PrefixTree
from workloom.prompt import TRACE_TEXTS, Prompt, planned
from workloom.records import CallRecord, ChunkRun, Outcome, SessionRecord
from workloom.session import Call, Edge, Inherit, Part, Session, Span, validate

Pieces = list[tuple[int, int]]
"""(text, tokens), from the first piece of the history on."""


# -- the plain way


def cut(pieces: Pieces, tokens: int) -> Pieces:
    out = []
    for text, length in pieces:
        if tokens > 0:
            out.append((text, min(length, tokens)))
        tokens -= length
    return out


def whole(prompt: Prompt) -> Pieces:
    """All pieces of a prompt, its ancestors' included."""
    kept = [] if prompt.base is None else cut(whole_with_answer(prompt.base), prompt.base_tokens)
    return kept + [(piece.text, piece.tokens) for piece in prompt.pieces if piece.tokens]


def whole_with_answer(prompt: Prompt, answer_tokens: int | None = None) -> Pieces:
    tokens = prompt.answer_tokens if answer_tokens is None else answer_tokens
    return whole(prompt) + ([(prompt.answer_number, tokens)] if tokens else [])


def lead(pieces: Pieces) -> Pieces:
    """What other sessions can share."""
    count = next((i for i, (text, _) in enumerate(pieces) if text < TRACE_TEXTS), len(pieces))
    return pieces[:count]


class PlainTree:
    """A prefix tree that is walked from the root for every sequence."""

    def __init__(self) -> None:
        self.length = 0
        self.branches: dict[tuple[int, int], PlainTree] = {}

    def add(self, pieces: Pieces) -> int:
        """Tokens that were there before."""
        node, used, end, shared = self, 0, 0, None
        for text, tokens in pieces:
            node = node.branches.setdefault((used, text), PlainTree())
            if node.length < tokens:
                shared = end + node.length if shared is None else shared
                node.length = tokens
            used, end = tokens, end + tokens
        return end if shared is None else shared


def plain_reuse(sessions: list[Session]) -> list[CallReuse]:
    rows = []
    everywhere, users = [PlainTree(), PlainTree()], [dict[str, PlainTree](), dict[str, PlainTree]()]
    for session in sessions:
        here = [PlainTree(), PlainTree()]
        of_user = [
            PlainTree() if session.user is None else known.setdefault(session.user, PlainTree()) for known in users
        ]
        for call, prompt in planned(session):
            found = []
            for i, pieces in enumerate((whole(prompt), whole_with_answer(prompt))):
                held = here[i].add(pieces)
                shared = [tree.add(lead(pieces)) for tree in (of_user[i], everywhere[i])]
                found.append((held, *(max(held, tokens) for tokens in shared)))
            by_prompts, (mine, user, anyone) = found[0][2], found[1]
            tokens = sum(length for _, length in whole(prompt))
            rows.append(CallReuse(session.id, call, tokens, by_prompts, anyone, mine, user))
    return rows


# -- equal numbers


@settings(max_examples=25, deadline=None)
@given(workload(max_calls=10, max_tokens=40), st.lists(st.sampled_from((None, "ann", "bob")), min_size=4, max_size=4))
def test_reuse_is_what_walks_of_whole_keys_find(sessions: list[Session], users: list[str | None]) -> None:
    named = [replace(session, user=user) for session, user in zip(sessions, users, strict=False)]
    assert list(reuse(named)) == plain_reuse(named)


def test_a_cut_inside_the_lead_shortens_it_and_a_private_piece_ends_it() -> None:
    def later(name: str, tokens: int | None, *fresh: Part, spans: tuple[Span, ...] = ()) -> Call:
        return Call(name, 5, (Edge("a"),), inherit=Inherit("a", tokens), spans=spans, fresh=fresh)

    more = (Span("more", 10, "trace"),)
    calls = (
        Call("a", 5, spans=(Span("tools", 40, "trace"), Span("notes", 20, "trace")), fresh=(Part("user", 5),)),
        later("inside, then shared", 50, spans=more),
        later("inside, then private", 50, Part("summary", 7)),
        later("at its end", 60, Part("user", 0), spans=more),
        later("behind a private piece", 65, spans=more),
        later("behind an answer", None, spans=more),
        later("anew", 0, Part("user", 1), spans=more),
    )
    sessions = [Session("1", calls, user="ann"), Session("2", calls, user="bob"), Session("3", calls, user="ann")]
    leads = {call.id: prompt.lead_tokens for call, prompt in planned(sessions[0])}
    assert list(leads.values()) == [60, 60, 50, 70, 60, 60, 10]
    rows = list(reuse(sessions))
    assert [row.held_with_outputs for row in rows[:7]] == [0, 50, 50, 60, 65, 70, 0]
    assert [row.held_with_outputs for row in rows[7:14]] == [60, 60, 50, 70, 65, 70, 10], "the leads of ann's"
    assert [row.held_by_user for row in rows] == [0, 50, 50, 60, 65, 70, 0] * 2 + [60, 60, 50, 70, 65, 70, 10]
    assert rows == plain_reuse(sessions)


@settings(max_examples=60, deadline=None)
@given(workload(max_sessions=1, max_calls=12, max_tokens=40), st.randoms(use_true_random=False))
def test_a_key_is_the_same_whoever_asks_first(sessions: list[Session], order: Random) -> None:
    prompts = [prompt for _, prompt in planned(sessions[0], 2)]
    order.shuffle(prompts)
    for prompt in prompts:
        pieces = whole(prompt)
        ends = [sum(tokens for _, tokens in pieces[: i + 1]) for i in range(len(pieces))]
        flat = Key(tuple(text for text, _ in pieces), tuple(ends))
        assert (prompt.key.ids, prompt.key.ends, prompt.key.tokens) == (flat.ids, flat.ends, flat.tokens)
        assert prompt.key == flat and hash(prompt.key) == hash(flat)
        assert prompt.lead_tokens == sum(tokens for _, tokens in lead(pieces))


steps_of_growth = st.tuples(
    st.integers(0, 1000), st.integers(0, 100), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps_of_growth, max_size=60), st.booleans())
def test_sequences_grown_from_cuts_of_others_are_found_as_from_the_root(
    growth: list[tuple[int, int, Pieces]], deep: bool
) -> None:
    """Each goes on from one of those before it (the last, where they are to get deep), or a cut of it."""
    tree, plain = PrefixTree(), PlainTree()
    grown: list[Pieces] = [[]]
    cursors, keys = [tree.start], [Key()]
    for which, share, pieces in growth:
        base = -1 if deep and which % 8 else which % len(grown)
        tokens = sum(length for _, length in grown[base])
        if not deep or which % 5 == 0:
            tokens = tokens * share // 100
        kept = cut(grown[base], tokens)
        grown.append(kept + pieces)
        cursor, held = cursors[base].cut(tokens).then(pieces)
        assert held == plain.add(grown[-1])
        cursors.append(cursor)
        keys.append(keys[base].cut(tokens).then(pieces))
        assert keys[-1].tokens == cursor.tokens == sum(length for _, length in grown[-1])
        assert keys[-1].pieces() == grown[-1] and keys[-1].pieces(tokens) == pieces
        assert tree.match(keys[-1]) == keys[-1].tokens
    for key, pieces in zip(keys, grown, strict=True):
        assert list(zip(key.ids, key.ends, strict=True)) == [
            (text, sum(length for _, length in pieces[: i + 1])) for i, (text, _) in enumerate(pieces)
        ]


class Watched:
    """A backend and a sink in one: answers of its own lengths, some calls fail; the plain tree is asked along the way.

    The driver looks up a prompt and sends it in one go, and adds the answer when it writes the record.
    """

    def __init__(self, clock: VirtualClock, answers: Sequence[int]) -> None:
        self.clock, self.answers = clock, answers
        self.tree = PlainTree()
        self.prompts: dict[tuple[int, str], Prompt] = {}
        self.ideal: dict[tuple[int, str], int] = {}
        self.records: list[CallRecord] = []

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        name = request.instance, request.name.partition("/")[2]
        self.prompts[name] = request.prompt
        self.ideal[name] = self.tree.add(whole(request.prompt))
        answer = self.answers[len(self.prompts) % len(self.answers)]
        sent = self.clock.now()
        await self.clock.sleep_until(sent + answer * NS // 7)
        if answer == 13:
            raise BackendError("refused", "unlucky")
        return Outcome(self.clock.now(), sent, prompt_tokens=request.prompt.tokens, output_tokens=answer)

    def record(self, record: CallRecord) -> None:
        self.records.append(record)
        if record.status == "ok":
            prompt = self.prompts[record.instance, record.call]
            self.tree.add(whole_with_answer(prompt, record.output_tokens or 0))


class Records:
    """Where the driver writes; it has a `call` of its own, so it is not the backend."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def call(self, record: CallRecord) -> None:
        self._watched.record(record)

    def session(self, record: SessionRecord) -> None:
        pass


@settings(max_examples=25, deadline=None)
@given(workload(max_tokens=40), st.lists(st.integers(0, 60), min_size=1, max_size=7), st.integers(1, 3))
def test_the_driver_s_ideal_is_what_walks_of_whole_keys_find(
    sessions: list[Session], answers: list[int], concurrency: int
) -> None:
    plan = plan_of(sessions, Closed(concurrency), Limits(sessions=7))

    async def main(clock: VirtualClock) -> Watched:
        watched = Watched(clock, answers)
        await drive(plan, watched, clock, Records(watched))
        return watched

    watched = run_virtual(main)
    sent = {(r.instance, r.call): r.ideal_cached_tokens for r in watched.records if r.status != "cancelled"}
    assert sent == watched.ideal


# -- cost


def chain(calls: int) -> Session:
    """One agent that thinks and acts."""
    return Session("chain", tuple(turn(i, f"c{i - 1}" if i else None) for i in range(calls)))


def turn(i: int, base: str | None, tokens: int | None = None) -> Call:
    edges = () if base is None else (Edge(base, 1.0, "tool"),)
    spans = (Span("scaffold", 900, "trace"),) if base is None else ()
    inherit = None if base is None else Inherit(base, tokens)
    return Call(f"c{i}", 50, edges, inherit=inherit, spans=spans, fresh=(Part("tool", 200),))


def spawning(calls: int) -> Session:
    """Every second call is a subagent that keeps the scaffold of a call deep in the chain, or all of its context."""
    out, last = [turn(0, None)], "c0"
    for i in range(1, calls):
        if i % 2:
            out.append(replace(turn(i, last, 900 if i % 4 == 1 else None), agent=f"explore:{i}"))
        else:
            out.append(turn(i, last))
            last = f"c{i}"
    return Session("spawning", tuple(out))


def compacting(calls: int) -> Session:
    """Back to the scaffold every 300 calls, and a piece of history dropped every seventh."""
    size, out = 0, []
    for i in range(calls):
        keep = None if i == 0 or i % 7 else size - 120
        keep = 900 if i and i % 300 == 0 else keep
        size = (900 if i == 0 else size if keep is None else keep) + 250
        out.append(turn(i, f"c{i - 1}" if i else None, keep))
    return Session("compacting", tuple(out))


def shared(calls: int) -> Session:
    """Nothing but texts that other sessions could share, and no answer kept."""
    out = [Call("c0", 50, spans=(Span("0", 10, "trace"),))]
    for i in range(1, calls):
        spans = (Span(str(i), 10, "trace"),)
        out.append(Call(f"c{i}", 50, (Edge(f"c{i - 1}"),), inherit=Inherit(f"c{i - 1}", 10 * i), spans=spans))
    return Session("shared", tuple(out), user="ann")


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that some work takes: a measure of its cost that no other load on the machine can change."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., object]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SHAPES = [chain, spawning, compacting, shared]


@pytest.mark.parametrize("shape", SHAPES)
def test_facts_of_eight_times_the_calls_cost_eight_times_as_much(shape: Callable[[int], Session]) -> None:
    few, many = shape(150), shape(1200)
    validate(many)
    assert lines_run(lambda: list(facts([many]))) < 12 * lines_run(lambda: list(facts([few])))
    assert peak_bytes(lambda: list(facts([many]))) < 12 * peak_bytes(lambda: list(facts([few])))


@pytest.mark.parametrize("shape", SHAPES)
def test_facts_ask_for_no_whole_key(shape: Callable[[int], Session], monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(key: Key) -> tuple[int, ...]:
        raise AssertionError("this is as long as the history")

    for name in ("ids", "ends"):
        monkeypatch.setattr(Key, name, property(asked))
    assert len(next(facts([shape(50)])).calls) == 50


class Quick(Watched):
    """Answers at once, and asks nothing."""

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        await asyncio.sleep(0)
        return Outcome(self.clock.now(), self.clock.now(), prompt_tokens=request.prompt.tokens, output_tokens=50)

    def record(self, record: CallRecord) -> None:
        pass


@pytest.mark.parametrize("shape", [chain, compacting])
def test_driving_eight_times_the_calls_costs_eight_times_as_much(shape: Callable[[int], Session]) -> None:
    def cost(calls: int) -> int:
        plan = plan_of([shape(calls)], Closed(1), Limits(sessions=1))

        async def main(clock: VirtualClock) -> None:
            quick = Quick(clock, ())
            await drive(plan, quick, clock, Records(quick))

        return lines_run(lambda: run_virtual(main))

    assert cost(800) < 12 * cost(100)
