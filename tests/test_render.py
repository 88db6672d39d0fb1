"""The bytes of a request: prompts as they are sent, what they share, and what they must not."""

from __future__ import annotations

import json
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving import GOOD, connect, live, serving
from strategies import sessions

from workloom.clock import RealClock
from workloom.drive.backend import Request
from workloom.drive.frame import ChatFrame, CompletionsFrame, Frame, IdsFrame, MessagesFrame, ResponsesFrame
from workloom.drive.render import Rendered, Renderer
from workloom.drive.styles import Style, style
from workloom.drive.text import Texts
from workloom.errors import UsageError
from workloom.prefix import common
from workloom.prompt import Prompt, Prompts
from workloom.session import Call, Edge, Inherit, Part, PartKind, Session, Span

CHAT, PLAIN = ChatFrame(), CompletionsFrame()
SCAFFOLD = (Span("system", 20, "trace"), Span("tools", 30))


def body(rendered: Rendered, chat: bool = True) -> bytes:
    """What a server gets of it."""
    return b"{" + b"".join(rendered.fragments) + (CHAT if chat else PLAIN).close(rendered.last_role) + b"}"


def messages(rendered: Rendered) -> list[tuple[str, str]]:
    assert rendered.size == sum(map(len, rendered.fragments))
    return [(message["role"], message["content"]) for message in json.loads(body(rendered))["messages"]]


def words(rendered: Rendered) -> list[str]:
    return [word for _, content in messages(rendered) for word in content.split()]


def chain(*fresh: tuple[Part, ...], inherit: int | None = None) -> Session:
    """Calls one after the other, the first with a scaffold; each inherits all (or so much) of the one before."""
    calls = [Call("0", 4, spans=SCAFFOLD, fresh=fresh[0])]
    for i, parts in enumerate(fresh[1:], 1):
        before = str(i - 1)
        calls.append(Call(str(i), 4, after=(Edge(before),), inherit=Inherit(before, inherit), fresh=parts))
    return Session("s", tuple(calls))


def play(
    session: Session, instance: int = 0, salt: int = 1, chat: bool = True, answer: str | None = None
) -> list[Rendered]:
    """Render every call of a session in order, as answers come."""
    prompts, renderer = Prompts(session, instance), Renderer(Texts(salt), CHAT if chat else PLAIN)
    out = []
    for call in session.calls:
        prompt = prompts.make(call)
        out.append(renderer.render(prompt))
        prompt.answer_tokens, prompt.answer_text = call.output_tokens, answer
    return out


USER, TOOL = Part("user", 10), Part("tool", 7)


def test_parts_become_messages_of_their_roles() -> None:
    kinds: tuple[PartKind, ...] = ("user", "tool", "answer", "injected", "summary", "report", "definition")
    first, second = play(chain(tuple(Part(kind, 2) for kind in kinds), (TOOL,)), answer="w x y z")
    assert [role for role, _ in messages(first)] == ["system", "user", "assistant", "user"]
    assert [len(content.split()) for _, content in messages(first)] == [50, 4, 2, 8]
    assert messages(second)[-2:] == [("assistant", "w x y z"), ("user", messages(second)[-1][1])]


def test_a_turn_repeats_the_bytes_of_the_one_before() -> None:
    turns = play(chain((USER,), (TOOL,), (USER, TOOL), (USER,)), answer="one two three four")
    for before, after in pairwise(turns):
        assert b"".join(after.fragments).startswith(b"".join(before.fragments))
        assert all(a is b for a, b in zip(before.fragments, after.fragments, strict=False))


def test_what_a_turn_adds_does_not_depend_on_the_history() -> None:
    turns = play(chain(*([(USER,)] * 50)))
    assert [turn.count for turn in turns] == [3 + 2 * i for i in range(50)]
    assert all(turn.trail is turns[0].trail for turn in turns)


def test_branches_do_not_disturb_each_other() -> None:
    call = Call("0", 4, spans=SCAFFOLD, fresh=(USER,))
    branches = [Call(str(i), 4, (Edge("0"),), inherit=Inherit("0"), fresh=(USER,)) for i in range(1, 4)]
    fork = Call("f", 4, (Edge("0"),), inherit=Inherit("0", 60), fresh=(TOOL,))
    root, *others = play(Session("s", (call, *branches, fork)), answer="a b c d")
    before = words(root)
    for other in others[:3]:
        assert words(other)[:64] == [*before, "a", "b", "c", "d"]
    assert words(others[3])[:60] == before and len(words(others[3])) == 67
    tails = [words(other)[64] for other in others[:3]]
    assert len(set(tails)) == 3


def test_a_cut_falls_on_a_word() -> None:
    for tokens in (0, 1, 19, 20, 21, 50, 55, 60, 62, 64):
        first, second = play(chain((USER,), (TOOL,), inherit=tokens), answer="a b c d")
        expected = [*words(first), "a", "b", "c", "d"][:tokens]
        assert words(second)[:tokens] == expected and len(words(second)) == tokens + 7


def test_a_live_answer_is_cut_by_its_share() -> None:
    answer = " ".join(f"w{i}" for i in range(8))  # 8 words, counted as 4 tokens
    session = chain((USER,), (TOOL,), (TOOL,), inherit=62)
    _, second, _ = play(session, answer=answer)
    assert messages(second)[-2] == ("assistant", "w0 w1 w2 w3")
    calls = session.calls[:2]
    later = Call("2", 4, (Edge("1"),), inherit=Inherit("1", 61), fresh=(TOOL,))
    *_, third = play(Session("s", (*calls, later)), answer=answer)
    assert messages(third)[-2] == ("assistant", "w0 w1")


@pytest.mark.parametrize(
    "answer", ['say "hi"\n\\t{"a": 1}', "\u00e9\u4e2d\U0001f600", "\x00\x1f\u2028", " lead and trail\n"]
)
def test_answers_are_sent_as_they_came(answer: str) -> None:
    _, second = play(chain((USER,), (TOOL,)), answer=answer)
    assert messages(second)[-2] == ("assistant", answer)


def test_half_a_surrogate_pair_does_not_break_the_request() -> None:
    _, second = play(chain((USER,), (TOOL,)), answer="a \ud800 b")
    assert messages(second)[-2] == ("assistant", "a ? b")


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_an_answer_without_text_is_words_of_our_own(answer: str | None) -> None:
    _, second = play(chain((USER,), (TOOL,)), answer=answer)
    assert len(messages(second)[-2][1].split()) == 4 and len(words(second)) == 71


def test_completions_are_one_text() -> None:
    first, second = play(chain((USER,), (TOOL,)), chat=False, answer=" a b c d")
    text = json.loads(body(second, chat=False))["prompt"]
    assert len(text.split()) == 71 and "  " not in text and not text.startswith(" ")
    assert text.startswith(json.loads(body(first, chat=False))["prompt"] + " a b c d ")


def test_a_long_line_that_was_never_rendered_is_rendered() -> None:
    session = chain(*([(USER,)] * 3000))
    prompts = Prompts(session, 0)
    for call in session.calls:
        prompt = prompts.make(call)
        prompt.answer_tokens = 4
    assert Renderer(Texts(1), CHAT).render(prompt).size > 0


def expand(prompt: Prompt, texts: Texts, answers: dict[int, list[str]]) -> list[str]:
    """The words a prompt must have, by its key alone."""
    found, before = [], 0
    for text, end in zip(prompt.key.ids, prompt.key.ends, strict=True):
        answer = answers.get(text)
        found += answer[: end - before] if answer else texts.text(text, end - before).decode().split()
        before = end
    return found


@settings(max_examples=30, deadline=None)
@given(sessions(max_tokens=60, max_output=30), st.booleans(), st.data())
def test_the_words_sent_are_the_tokens_of_the_key(session: Session, chat: bool, data: st.DataObject) -> None:
    """Whatever answers come: as planned, shorter, longer, with a text of their own or without."""
    texts = Texts(9)
    renderer = Renderer(texts, CHAT if chat else PLAIN)
    prompts = Prompts(session, 3)
    answers: dict[int, list[str]] = {}
    for call in session.calls:
        prompt = prompts.make(call)
        rendered = renderer.render(prompt)
        expected = expand(prompt, texts, answers)
        assert len(expected) == prompt.tokens
        if expected:
            sent = words(rendered) if chat else json.loads(body(rendered, chat=False))["prompt"].split()
            assert sent == expected
        prompt.answer_tokens = data.draw(st.just(call.output_tokens) | st.integers(0, 40))
        if data.draw(st.booleans()):
            answers[prompt.answer_number] = [f"{call.id}-{n}" for n in range(prompt.answer_tokens)]
            prompt.answer_text = " ".join(answers[prompt.answer_number])


# --- whose words: answers repeated elsewhere, recorded text, tools


def turns(
    session: Session, style: Style, answers: dict[str, str], tools: bool = False, instance: int = 0, tokens: int = 4
) -> list[Rendered]:
    """Render a session whose calls answer as given, in `tokens` tokens each."""
    prompts, renderer, out = Prompts(session, instance), Renderer(style, CHAT, tools=tools), []
    for call in session.calls:
        prompt = prompts.make(call)
        out.append(renderer.render(prompt))
        assert out[-1].tokens == prompt.tokens
        prompt.answer_tokens, prompt.answer_text = tokens, answers.get(call.id)
    return out


def fan(report_tokens: int) -> Session:
    """A subagent and its report to the one that waits for it."""
    root = Call("0", 4, spans=SCAFFOLD, fresh=(USER,))
    sub = Call("sub", 4, (Edge("0"),), "sub", fresh=(USER,))
    report = Part("report", report_tokens, from_call="sub")
    return Session("s", (root, sub, Call("1", 4, (Edge("0"), Edge("sub")), inherit=Inherit("0"), fresh=(report,))))


def test_a_report_carries_what_the_child_answered_and_is_filled_up_to_its_length() -> None:
    for planned, said in ((2, "it is"), (4, "it is done now"), (9, "it is done now")):
        *_, joined = turns(fan(planned), Texts(1), {"sub": "it is done now"})
        role, content = messages(joined)[-1]
        assert role == "user" and len(content.split()) == planned
        assert content.startswith(said) and len(set(content.split()) - set(said.split())) == max(0, planned - 4)


def test_a_report_of_an_answer_without_text_is_words_of_our_own() -> None:
    *_, joined = turns(fan(6), Texts(1), {})
    assert len(messages(joined)[-1][1].split()) == 6


def test_an_agent_that_drops_its_reasoning_repeats_the_visible_answer() -> None:
    calls = (
        Call("0", 10, fresh=(USER,), reasoning_tokens=6),
        Call("1", 4, (Edge("0"),), inherit=Inherit("0", 10), fresh=(Part("answer", 4, from_call="0"), TOOL)),
    )
    prompts, renderer = Prompts(Session("s", calls), 0), Renderer(Texts(1), CHAT)
    first = prompts.make(calls[0])
    renderer.render(first)
    first.answer_tokens, first.answer_text, first.answer_text_tokens = 10, "four words it is", 4
    second = renderer.render(prompts.make(calls[1]))
    assert [role for role, _ in messages(second)] == ["user", "assistant", "user"]
    assert messages(second)[1] == ("assistant", "four words it is")


def test_a_history_without_reasoning_is_shorter_and_not_what_was_generated() -> None:
    """What follows a dropped thought is computed anew: the next prompt shares the prompt, and nothing of the answer."""
    calls = (
        Call("0", 10, fresh=(USER,), reasoning_tokens=6),
        Call("1", 4, (Edge("0"),), inherit=Inherit("0"), fresh=(TOOL,)),
        Call("2", 4, (Edge("0"),), inherit=Inherit("0", 13), fresh=(TOOL,)),
    )
    for said in ("four words it is", ""):
        prompts, renderer = Prompts(Session("s", calls), 0), Renderer(Texts(1), CHAT)
        first = prompts.make(calls[0])
        sent = renderer.render(first)
        first.answer_tokens, first.answer_text, first.answer_text_tokens = 10, said, 4
        second, third = (renderer.render(prompts.make(call)) for call in calls[1:])
        assert prompts.made["1"].tokens == 10 + 4 + 7 == len(words(second)) and prompts.made["2"].tokens == 20
        assert common(prompts.made["1"].key, first.key_with_answer()) == 10
        assert common(prompts.made["1"].key, prompts.made["2"].key) == 13
        assert words(second)[:10] == words(sent) and words(second)[:13] == words(third)[:13]


def test_text_that_is_not_our_own_never_comes_first() -> None:
    """Two instances whose subagents say the same: nothing that they repeat is where a cache would find it."""
    report = Part("report", 30, from_call="0")
    anew = Call("1", 4, (Edge("0"),), "next", spans=SCAFFOLD[:1], fresh=(report,))
    session = Session("s", (Call("0", 30, fresh=(USER,)), anew))
    said = " ".join(f"w{i}" for i in range(30))
    sent = [words(turns(session, Texts(1), {"0": said}, instance=k, tokens=30)[1]) for k in (0, 1)]
    assert sent[0][:20] == sent[1][:20] and sent[0][20] != sent[1][20]
    assert sent[0][25:] == said.split()[:25]


def test_recorded_text_is_sent_where_the_trace_tells_it() -> None:
    told = Part("tool", 8, text='{"ok": "yes"}\n four more words')
    session = chain((Part("user", 20, text="what I asked for"),), (told, USER))
    first, second = turns(session, style("recorded", 1), {"0": "as it was"})
    assert messages(first)[-1][1].endswith("what I asked for") and len(words(first)) == 50 + 4
    role, content = messages(second)[-1]
    assert role == "user" and content.startswith('{"ok": "yes"}\n four more words ')
    assert messages(second)[-2] == ("assistant", "as it was")
    plain = turns(session, style("patterns", 1), {})[0]
    assert "what I asked for" not in messages(plain)[-1][1]


def test_definitions_are_tools_and_tools_answer_in_messages_of_their_own() -> None:
    parts = (Part("definition", 30, "tools"), Part("definition", 12, "system"), USER)
    calls = (
        Call("0", 4, fresh=parts),
        Call("1", 4, (Edge("0"),), inherit=Inherit("0"), fresh=(TOOL, USER)),
        Call("2", 4, (Edge("1"),), inherit=Inherit("1"), fresh=(TOOL, Part("definition", 3, "late"))),
    )
    sent = [json.loads(body(turn)) for turn in turns(Session("s", calls), Texts(1), {}, tools=True)]
    for heard in sent:
        (tool,) = heard["tools"]
        assert len(tool["function"]["description"].split()) == 30
    roles = [[message["role"] for message in heard["messages"]] for heard in sent]
    assert roles[0] == ["system", "user"]
    assert roles[2] == ["system", "user", "assistant", "tool", "user", "assistant", "tool", "user"]
    for heard, tokens in zip(sent, (52, 73, 87), strict=True):
        contents = [tool["function"]["description"] for tool in heard["tools"]]
        contents += [message["content"] for message in heard["messages"]]
        assert sum(len(content.split()) for content in contents) == tokens
    assert "tools" not in json.loads(body(turns(Session("s", calls), Texts(1), {})[0]))


def said(heard: Any) -> list[str]:
    """All that a body says, in order, whatever API it is of."""
    if isinstance(heard, list):
        return [word for entry in heard for word in said(entry)]
    out = []
    for name, value in heard.items():
        if isinstance(value, str):
            out += value.split() if name in ("description", "content", "text", "output", "system") else []
        else:
            out += said(value)
    return out


@settings(max_examples=40, deadline=None)
@given(sessions(max_tokens=40, max_output=20), st.sampled_from((ChatFrame, ResponsesFrame, MessagesFrame)))
def test_with_tools_the_words_sent_are_still_the_tokens_planned(
    session: Session, api: type[ChatFrame | ResponsesFrame | MessagesFrame]
) -> None:
    frame, texts, prompts = api(), Texts(2), Prompts(session, 0)
    renderer = Renderer(texts, frame, tools=True)
    before: dict[Prompt, bytes] = {}
    for call in session.calls:
        prompt = prompts.make(call)
        rendered = renderer.render(prompt)
        text = b"".join(rendered.fragments)
        heard = json.loads(b"{" + text + frame.close(rendered.last_role) + b"}")
        assert [word for word in said(heard) if word != "."] == expand(prompt, texts, {})
        if prompt.base is not None and prompt.base_tokens >= prompt.base.tokens:
            assert text.startswith(before[prompt.base])
        before[prompt] = text
        prompt.answer_tokens = call.output_tokens


@pytest.mark.parametrize(("spec", "frame"), [("ids", ChatFrame()), ("patterns", IdsFrame()), ("recorded", IdsFrame())])
def test_token_ids_go_to_prompts_of_token_ids_and_nowhere_else(spec: str, frame: Frame) -> None:
    with pytest.raises(UsageError, match="do not go together"):
        Renderer(style(spec, 1), frame)


# --- on the wire


def sent(sessions: list[tuple[int, Session]], salt: int) -> list[tuple[int, str, dict[str, Any]]]:
    """(instance, call, request body) of every call, read on the server's side."""

    async def main(clock: RealClock) -> list[tuple[int, str, dict[str, Any]]]:
        async with serving([GOOD]) as server:
            backend = connect([server.port], clock, style=Texts(salt))
            names = []
            for instance, session in sessions:
                prompts = Prompts(session, instance)
                for call in session.calls:
                    prompt = prompts.make(call)
                    request = Request(f"{instance}/{call.id}", instance, "k", "main", "m", prompt, call.output_tokens)
                    await backend.call(request, lambda run: None)
                    prompt.answer_tokens = call.output_tokens  # words of our own stand for the answer
                    names.append((instance, call.id))
            return [(*name, json.loads(heard)) for name, heard in zip(names, server.heard, strict=True)]

    result: list[tuple[int, str, dict[str, Any]]] = live(main)
    return result


def family(trace_tokens: int) -> Session:
    """A scaffold, a turn, three siblings that inherit it, and one that begins anew."""
    root = Call("0", 40, spans=(Span("system", trace_tokens, "trace"), Span("mine", 40)), fresh=(Part("user", 60),))
    siblings = [
        Call(f"s{i}", 40, (Edge("0"),), f"agent{i}", inherit=Inherit("0"), fresh=(Part("tool", 60), Part("user", 5)))
        for i in range(3)
    ]
    anew = Call("n", 40, (Edge("0"),), "sub", spans=(Span("system", trace_tokens, "trace"),), fresh=(Part("user", 60),))
    return Session("s", (root, *siblings, anew))


def test_the_bytes_sent_share_only_what_is_declared() -> None:
    """Siblings, a recycled session: no 16 words of one are another's but the run's scaffold; of another run, none."""
    scaffold = 50
    owner: dict[tuple[str, ...], object] = {}
    scaffolds: dict[int, set[tuple[str, ...]]] = {1: set(), 2: set()}
    for salt in (1, 2):
        for instance, call, heard in sent([(i, family(scaffold)) for i in range(3)], salt):
            text = [word for message in heard["messages"] for word in message["content"].split()]
            scaffolds[salt].add(tuple(text[:scaffold]))
            inherited = 190 if call.startswith("s") else scaffold  # the root's 150 and its answer's 40
            line = (salt, instance, "0" if inherited == scaffold and call == "0" else call)
            for i in range(inherited if call != "0" else scaffold, len(text) - 15):
                assert owner.setdefault(tuple(text[i : i + 16]), line) == line
    (first,), (second,) = scaffolds.values()
    for scaffold_words in (first, second):
        for i in range(scaffold - 15):
            window = scaffold_words[i : i + 16]
            assert owner.setdefault(window, scaffold_words) == scaffold_words


def test_first_turns_part_at_the_first_word_after_the_scaffold() -> None:
    first = set()
    for salt, scaffold in product((1, 2), (0, 50)):
        for _, call, heard in sent([(i, family(scaffold)) for i in range(20)], salt):
            if call in ("0", "n"):
                text = [word for message in heard["messages"] for word in message["content"].split()]
                first.add((salt, scaffold, call, text[scaffold]))
    assert len(first) == 2 * 2 * 2 * 20
