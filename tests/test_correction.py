"""Prompt lengths met by the server's own counts: a server that counts what it likes, and prompts that fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions

from workloom.drive.correction import Costs
from workloom.drive.frame import ChatFrame
from workloom.drive.render import Rendered, Renderer
from workloom.drive.text import Texts
from workloom.prompt import Prompt, Prompts
from workloom.session import Call, Edge, Inherit, Part, Session, Span

FRAME = ChatFrame()


def messages(rendered: Rendered) -> list[tuple[str, str]]:
    body = b"{" + b"".join(rendered.fragments) + FRAME.close(rendered.last_role) + b"}"
    return [(message["role"], message["content"]) for message in json.loads(body)["messages"]]


class Server:
    """Counts `rate` tokens a word, some a message, some a prompt, and answers a little differently when they return."""

    def __init__(self, a_message: int, a_prompt: int, drift: int, rate: float = 1.0) -> None:
        self.a_message, self.a_prompt, self.drift, self.rate = a_message, a_prompt, drift, rate

    def count(self, rendered: Rendered) -> int:
        total = float(self.a_prompt)
        for role, content in messages(rendered):
            words = len(content.split())
            if role == "assistant":
                total += words + (crc32(content.encode()) % (2 * self.drift + 1) - self.drift)
            else:
                total += self.rate * words
            total += self.a_message
        return round(total)


def play(session: Session, instance: int, renderer: Renderer, server: Server) -> dict[str, tuple[Prompt, int]]:
    """What the server counted every prompt of a session as, each answered as planned by a text of its own."""
    prompts, out = Prompts(session, instance), {}
    for call in session.calls:
        prompt = prompts.make(call)
        counted = server.count(renderer.render(prompt))
        renderer.counted(prompt, counted)
        out[call.id] = prompt, counted
        prompt.answer_tokens = call.output_tokens
        prompt.answer_text = " ".join(f"{call.id}:{instance}:{n}" for n in range(call.output_tokens))
    return out


@st.composite
def families(draw: st.DrawFn) -> Session:
    """A chain, with siblings that fork from any of its calls, at its answer or inside it at a call's own prompt."""
    size = st.integers(80, 200)
    calls = [Call("0", draw(size), spans=(Span("system", 50, "trace"),), fresh=(Part("user", draw(size)),))]
    depth = {"0": 0}
    for i in range(1, draw(st.integers(3, 12))):
        base = calls[-1] if draw(st.booleans()) else draw(st.sampled_from(calls))
        fresh = (Part("tool", draw(size)), Part("user", draw(size)))[: draw(st.integers(1, 2))]
        calls.append(Call(str(i), draw(size), (Edge(base.id),), inherit=Inherit(base.id), fresh=fresh))
        depth[str(i)] = depth[base.id] + 1
    return Session("s", tuple(calls), origin=json.dumps(depth))


@settings(max_examples=40, deadline=None)
@given(families(), st.integers(0, 12), st.integers(0, 40), st.integers(0, 1))
def test_after_two_turns_the_server_counts_what_was_planned(
    session: Session, a_message: int, a_prompt: int, drift: int
) -> None:
    renderer, server = Renderer(Texts(1), FRAME, correct=True), Server(a_message, a_prompt, drift)
    assert session.origin is not None
    depth = json.loads(session.origin)
    for instance in range(2):
        for call, (prompt, counted) in play(session, instance, renderer, server).items():
            if depth[call] >= 2 or (instance and depth[call] == 0):
                assert abs(counted - prompt.tokens) <= 2, call


def test_without_correction_the_error_grows_with_the_turns() -> None:
    """The alarm rings: the server of the test above is one whose counts would be off."""
    calls = [Call("0", 50, fresh=(Part("user", 50),))]
    calls += [
        Call(str(i), 50, (Edge(str(i - 1)),), inherit=Inherit(str(i - 1)), fresh=(Part("user", 50),))
        for i in range(1, 9)
    ]
    for correct in (False, True):
        counts = play(Session("s", tuple(calls)), 0, Renderer(Texts(1), FRAME, correct=correct), Server(4, 9, 1))
        prompt, counted = counts["8"]
        assert (abs(counted - prompt.tokens) > 60) is not correct


@pytest.mark.parametrize("rate", [1.5, 2.2])
def test_words_that_are_several_tokens_are_learned_as_such(rate: float) -> None:
    """A tokenizer that splits words: the scaffold is too long for ever, what follows makes up for it."""
    sizes = (300, 40, 120, 500, 200, 80, 350, 60, 260, 150)
    calls = [Call("0", 30, spans=(Span("system", 50, "trace"),), fresh=(Part("user", 200),))]
    for i, size in enumerate(sizes * 2, 1):
        calls.append(Call(str(i), 30, (Edge(str(i - 1)),), inherit=Inherit(str(i - 1)), fresh=(Part("tool", size),)))
    renderer, server = Renderer(Texts(1), FRAME, correct=True), Server(5, 11, 0, rate)
    for instance in range(3):
        counts = play(Session("s", tuple(calls)), instance, renderer, server)
    assert renderer.correction is not None
    assert renderer.correction.costs.rate == pytest.approx(rate - 1, abs=0.05)
    for call in calls[-8:]:
        prompt, counted = counts[call.id]
        assert abs(counted - prompt.tokens) <= 4


@settings(max_examples=80, deadline=None)
@given(sessions(max_tokens=60, max_output=30), st.integers(0, 60), st.sampled_from((0.8, 1.0, 1.7)), st.data())
def test_corrected_or_not_what_is_shared_is_shared(
    session: Session, a_message: int, rate: float, data: st.DataObject
) -> None:
    """Only own fresh parts change, none to nothing: a prompt still begins with what it inherits, byte by byte."""
    renderer, server = Renderer(Texts(4), FRAME, correct=True), Server(a_message, 7, 1, rate)
    prompts = Prompts(session, 0)
    for call in session.calls:
        prompt = prompts.make(call)
        rendered = renderer.render(prompt)
        assert rendered.count == len(prompt.key.ids) and rendered.size == sum(map(len, rendered.fragments))
        assert rendered.tokens == sum(rendered.trail.tokens[: rendered.count])
        assert all(tokens >= 1 for tokens in rendered.trail.tokens[: rendered.count])
        if prompt.base is not None and prompt.base_tokens >= prompt.base.tokens:
            before = renderer.render(prompt.base)
            assert b"".join(rendered.fragments).startswith(b"".join(before.fragments))
        fresh = [piece for piece in prompt.pieces if piece.tokens]
        sent = rendered.trail.tokens[rendered.count - len(fresh) : rendered.count]
        for piece, tokens in zip(fresh, sent, strict=True):
            assert tokens == piece.tokens or piece.kind not in ("span", "definition")
        if rendered.count and data.draw(st.booleans()):
            renderer.counted(prompt, server.count(rendered))
        prompt.answer_tokens = call.output_tokens


@pytest.mark.parametrize("strange", [0, 1, 10**9])
def test_a_count_that_cannot_be_of_this_prompt_changes_nothing(strange: int) -> None:
    session = Session(
        "s",
        (
            Call("0", 5, fresh=(Part("user", 400),)),
            Call("1", 5, (Edge("0"),), inherit=Inherit("0"), fresh=(Part("user", 30),)),
        ),
    )
    renderer, prompts = Renderer(Texts(1), FRAME, correct=True), Prompts(session, 0)
    first = prompts.make(session.calls[0])
    renderer.render(first)
    renderer.counted(first, strange)
    first.answer_tokens = 5
    assert renderer.render(prompts.make(session.calls[1])).tokens == 435


def test_two_renderers_keep_their_own_bytes_of_one_prompt() -> None:
    """Calls of one session that go to two models: neither changes what the other has sent."""
    session = Session(
        "s",
        (
            Call("0", 5, fresh=(Part("user", 40),)),
            Call("1", 5, (Edge("0"),), inherit=Inherit("0"), fresh=(Part("user", 40),)),
        ),
    )
    one, other = (Renderer(Texts(1), FRAME, correct=True) for _ in range(2))
    prompts = Prompts(session, 0)
    first = prompts.make(session.calls[0])
    sent = b"".join(one.render(first).fragments)
    assert other.correction is not None
    other.correction.costs.learn(("first", "user"), 40, 30)
    second = b"".join(other.render(first).fragments)
    assert second != sent
    assert b"".join(one.render(first).fragments) == sent and b"".join(other.render(first).fragments) == second


@pytest.mark.parametrize(
    ("extra", "rate"), [(lambda w: 7, 0.0), (lambda w: 7 + w // 2, 0.5), (lambda w: 7 + w % 3, 0.0)]
)
def test_costs_are_told_apart_from_words(extra: Callable[[int], int], rate: float) -> None:
    costs = Costs()
    for i in range(200):
        words = 20 + 37 * i % 101
        costs.learn(("assistant", "user"), words, extra(words))
    assert costs.rate == pytest.approx(rate, abs=0.02)
    assert costs.expect(("assistant", "user")) == pytest.approx(7 if rate else extra(1), abs=1.1)


def test_a_new_kind_of_turn_is_expected_by_its_messages() -> None:
    costs = Costs()
    assert costs.expect(("assistant", "user")) == 0
    costs.learn(("assistant", "user"), 10, 8)
    assert costs.expect(("assistant", "tool", "tool")) == 12
    assert costs.expect(("first", "system", "user")) == 0
