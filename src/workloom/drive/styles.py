"""What the text of prompts is made of: a style by name, each a vocabulary for :class:`workloom.drive.text.Texts`.

    patterns       sentence-like patterns of common words (the default)
    words          common words in a row
    corpus:FILE    the words of a text file, each text from a place of its own
    ids            token ids, for the completions endpoint; ids:LOW-HIGH says which
    recorded       what a trace says the parts said; patterns where it does not

All of them keep what sharing is reckoned from: a text has its exact length in words, begins every longer use of it,
and shares no 16 words with another text. So each opens with a code of its own and repeats it, every 12 words (every 16
in a corpus, whose sentences are broken by it: five words of the code after eleven of its own). With a tokenizer the
words used are those that are one token in it, both at the start of a text and behind a space.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from workloom.drive.text import (
    CODE,
    LONGEST_PERIOD,
    PATTERNS,
    PLAIN,
    Texts,
    Vocabulary,
    filler,
    patterns,
    pool,
    power_of_two,
)
from workloom.drive.tokenizer import Tokenizer
from workloom.errors import UsageError, nearest


class Style(Protocol):
    """Where the text of prompts comes from. `join` stands between its words: a space, a comma between token ids."""

    join: bytes

    def text(self, number: int, tokens: int) -> bytes:
        """The first `tokens` words of the text of that number, as they stand in the body of a request."""
        ...


class Recorded:
    """What the trace says, behind a code of its own; texts of another style where it says nothing."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.join = style.join

    def text(self, number: int, tokens: int) -> bytes:
        return self.style.text(number, tokens)


LEAST_WORDS = 64
"""With fewer, codes could not be told apart: 64 to the power of 5 is a thousand million."""
SAFE_IDS = (1024, 1024 + (1 << 14))
"""Ids that are plain tokens in all vocabularies of 32,000 and more: behind the bytes and the special tokens that stand
first, before those that stand last."""


def style(spec: str, salt: int, tokenizer: Tokenizer | None = None) -> Style:
    """The style called ``NAME`` or ``NAME:ARGUMENT``, for one run."""
    name, _, argument = spec.partition(":")
    if name not in STYLES or bool(argument) < (name == "corpus"):
        near = nearest(name, list(STYLES))
        raise UsageError(
            "unknown style of text" if name not in STYLES else "a corpus needs a file",
            where="--text",
            expected="patterns, words, corpus:FILE, ids, ids:LOW-HIGH or recorded",
            found=spec,
            hint=f"did you mean {near}?" if near and near != name else None,
        )
    texts = Texts(salt, STYLES[name](argument, tokenizer))
    return Recorded(texts) if name == "recorded" else texts


def _patterns(argument: str, tokenizer: Tokenizer | None) -> Vocabulary:
    _no(argument)
    if tokenizer is None:
        return patterns()
    words = _one_token(tokenizer)
    fit = [p for p in PATTERNS if all(w == "W" or tokenizer.count(f" {w}") == 1 for w in p.split())]
    return _checked(Vocabulary(words, filler(words, fit or PLAIN)), tokenizer)


def _plain(argument: str, tokenizer: Tokenizer | None) -> Vocabulary:
    _no(argument)
    if tokenizer is None:
        return Vocabulary(pool(), filler(pool(), PLAIN))
    words = _one_token(tokenizer)
    return _checked(Vocabulary(words, filler(words, PLAIN)), tokenizer)


def _corpus(argument: str, tokenizer: Tokenizer | None) -> Vocabulary:
    path = Path(argument)
    try:
        found = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the corpus cannot be read", where=argument, expected="a text file, UTF-8", found=error
        ) from None
    if tokenizer is not None:
        one = {word: tokenizer.count(f" {word}") == 1 for word in set(found)}
        found = [word for word in found if one[word]]
    length = LONGEST_PERIOD - CODE
    whole = len(found) // length
    if whole < LEAST_WORDS:
        least = f"at least {LEAST_WORDS * length} words" + (" that are one token each" if tokenizer else "")
        raise UsageError("the corpus is too short", where=argument, expected=least, found=len(found))
    words = [msgspec.json.encode(word)[1:-1] for word in found[: whole * length]]
    rows = tuple(b" ".join(words[i : i + length]) for i in range(0, len(words), length))
    if tokenizer is None:
        return Vocabulary(pool(), rows)
    return _checked(Vocabulary(_one_token(tokenizer), rows), tokenizer)


def _ids(argument: str, tokenizer: Tokenizer | None) -> Vocabulary:
    """Ids between two bounds, the upper one not among them."""
    low, high = SAFE_IDS
    if argument:
        match = re.fullmatch(r"(\d+)-(\d+)", argument)
        if match is None:
            raise UsageError("no range of token ids", where="--text", expected="ids:LOW-HIGH", found=f"ids:{argument}")
        low, high = int(match[1]), int(match[2])
    if tokenizer is not None and high > tokenizer.vocabulary:
        raise UsageError(
            "the range of token ids goes past the vocabulary",
            where="--text",
            expected=f"ids below {tokenizer.vocabulary:,}",
            found=f"{low}-{high}",
        )
    ids = power_of_two(b"%d" % i for i in range(low, min(high, low + (1 << 16))))
    if len(ids) < LEAST_WORDS:
        raise UsageError(
            "too few token ids", where="--text", expected=f"at least {LEAST_WORDS}", found=f"ids:{low}-{high}"
        )
    return Vocabulary(ids, filler(ids, PLAIN, b","), b",")


STYLES: dict[str, Callable[[str, Tokenizer | None], Vocabulary]] = {
    "patterns": _patterns,
    "words": _plain,
    "corpus": _corpus,
    "ids": _ids,
    "recorded": _patterns,
}


def _no(argument: str) -> None:
    if argument:
        raise UsageError("this style of text takes no argument", where="--text", found=argument)


def _one_token(tokenizer: Tokenizer) -> tuple[bytes, ...]:
    """The pool's words that are one token each; of a small vocabulary its own."""
    words = power_of_two(word for word in pool() if _fits(tokenizer, word.decode()))
    if len(words) >= 4 * LEAST_WORDS:
        return words
    own = {tokenizer.decode([i]).strip() for i in range(tokenizer.vocabulary)}
    plain = sorted(word for word in own if re.fullmatch("[a-z]{2,12}", word) and _fits(tokenizer, word))
    words = power_of_two(word.encode() for word in plain)
    if len(words) < LEAST_WORDS:
        raise UsageError(
            "the tokenizer has too few words that are one token each",
            where=tokenizer.name,
            expected=f"at least {LEAST_WORDS}",
            found=len(words),
        )
    return words


def _fits(tokenizer: Tokenizer, word: str) -> bool:
    return tokenizer.count(f" {word}") == 1 and tokenizer.count(word) == 1


def _checked(vocabulary: Vocabulary, tokenizer: Tokenizer) -> Vocabulary:
    """Words that are one token each must stay so in a row; a tokenizer that merges across spaces is no use."""
    words = 4 * LONGEST_PERIOD * LEAST_WORDS
    text: str = msgspec.json.decode(b'"' + Texts(0, vocabulary).text(1 << 24, words) + b'"')
    counted = tokenizer.count(text)
    if counted != words:
        raise UsageError(
            "texts cannot be made to measure with this tokenizer", where=tokenizer.name, expected=words, found=counted
        )
    return vocabulary
