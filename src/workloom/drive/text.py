"""Text of an exact length without a tokenizer: N words are N tokens.

The words are common ones, each one token with its leading space in the vocabularies in use (scripts/make_words.py).
A text is named by its number (:class:`workloom.prompt.Piece`) and says the same wherever a run uses that number; in
another run, with another salt, it is another text:

    word   0    1 2 3 4   5 ... 11             12   13 .. 16   17 ... 23            24
           code code ...  the W of the W ...   code code ...   a W with some W ...  code

Five code words that belong to the text alone come first and again every 12 words, with a row of filler between them,
so any 16 words in a row hold a whole code: two texts with different codes share no 16 tokens. The first code word
differs between the pieces of a session, and between sessions at the same piece, so what is not declared as shared parts
at its first token. A text of n words is the beginning of the same text of more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from hashlib import blake2b, shake_256

from msgspec import Struct

from workloom import words
from workloom.prompt import ORDINAL_BITS

CODE = 5
"""Code words at the start of a period."""
PERIOD = 12
"""Words from one code to the next; PERIOD + CODE - 1 words in a row hold a whole code."""
LONGEST_PERIOD = 16
"""Of any so many words in a row, a period that long still has all code words among them."""
ROWS = 4096
"""Prepared rows of filler; a text begins at one of them and goes round."""

PATTERNS = (
    "the W of the W and W",
    "a W with some W for W",
    "this W is W to the W",
    "we W the W in a W",
    "they W our W before the W",
    "it was the W that W W",
    "when W and W are not W",
    "from the W to a W W",
    "as W or W by the W",
    "after the W we W their W",
    "W at the W on this W",
    "then a W into the W W",
)
"""PERIOD - CODE words each; a W is a word of the pool. No punctuation: it would be a token of its own, or not."""
PLAIN = (" ".join("W" * (PERIOD - CODE)),)
"""The pattern of a text that is words of the pool alone."""

FUNCTION_WORDS = tuple(sorted({word for pattern in PATTERNS for word in pattern.split() if word != "W"}))
"""The words of the patterns; the pool holds none of them."""

_MASK = (1 << 64) - 1
_ORDINAL = (1 << ORDINAL_BITS) - 1
_STRIDE = 1_597
"""Odd, so that sessions one after the other begin with different words."""


class Vocabulary(Struct, frozen=True):
    """What texts are made of: words for the codes, rows of words between the codes, and what joins them all.

    `pool`: a power of two of words, no two equal. `rows`: equally many words each, at most LONGEST_PERIOD - CODE.
    Words stand as they do in a JSON string.
    """

    pool: tuple[bytes, ...]
    rows: tuple[bytes, ...]
    join: bytes = b" "


@cache
def pool() -> tuple[bytes, ...]:
    """The content words: a power of two of them, in alphabetical order."""
    return tuple(word.encode() for word in words.pool())


@cache
def patterns() -> Vocabulary:
    """Sentence-like patterns of the pool's words: what texts are made of unless another style is asked for."""
    return Vocabulary(pool(), filler(pool(), PATTERNS))


def filler(words: Sequence[bytes], patterns: Sequence[str], join: bytes = b" ") -> tuple[bytes, ...]:
    """The prepared filler: ROWS rows of PERIOD - CODE words, always the same."""
    size = len(words)
    stream = shake_256(b"workloom filler rows").digest(ROWS * 2 * (PERIOD - CODE))
    at = 0
    rows = []
    for index in range(ROWS):
        row = []
        for word in patterns[index % len(patterns)].split():
            if word == "W":
                row.append(words[int.from_bytes(stream[at : at + 2], "little") % size])
                at += 2
            else:
                row.append(word.encode())
        rows.append(join.join(row))
    return tuple(rows)


def power_of_two(words: Iterable[bytes]) -> tuple[bytes, ...]:
    """As many of the words as make a power of two, at most 65,536 (filler is drawn by two bytes)."""
    found = tuple(words)[: 1 << 16]
    return found[: 1 << len(found).bit_length() - 1] if found else ()


@lru_cache(maxsize=8)
def _places(size: int) -> tuple[int, ...]:
    """A fixed shuffle of the pool's indices: where the first word of the nth text of a session is."""
    stream = shake_256(b"workloom first words").digest(8 * size)
    return tuple(sorted(range(size), key=lambda i: stream[8 * i : 8 * i + 8]))


def _base(salt: int) -> int:
    """Where in the pool the first word of text 0 is."""
    return int.from_bytes(blake2b(b"%d" % salt, digest_size=8, person=b"workloom.base").digest(), "little")


class Texts:
    """The texts of one run. `salt` makes them unlike those of every other run: no server still has their KV.

    That holds for trace-scope texts too, which all sessions of the run share.
    """

    def __init__(self, salt: int, vocabulary: Vocabulary | None = None) -> None:
        self.salt = salt & _MASK
        vocabulary = vocabulary or patterns()  # made now, not within the first call
        self.join = vocabulary.join
        self._words = vocabulary.pool
        self._rows = vocabulary.rows
        self._period = CODE + vocabulary.rows[0].count(self.join) + 1
        self._places = _places(len(self._words))
        self._base = _base(self.salt)
        self._last = len(self._words) - 1
        self._bits = self._last.bit_length()

    def code(self, number: int) -> tuple[bytes, int]:
        """The code of a text, as CODE words joined, and the row its filler begins with."""
        code, row = self._code(number)
        return self.join.join(code), row

    def _code(self, number: int) -> tuple[tuple[bytes, ...], int]:
        words, last, bits = self._words, self._last, self._bits
        drawn = _mixed(number ^ _mixed(number >> 64) if number > _MASK else number, self._base)
        place = self._places[number & _ORDINAL & last]
        first = self._base + (number >> ORDINAL_BITS) * _STRIDE + place
        code = (
            words[first & last],
            words[drawn & last],
            words[drawn >> bits & last],
            words[drawn >> 2 * bits & last],
            words[drawn >> 3 * bits & last],
        )
        return code, (drawn >> 48) % len(self._rows)

    def text(self, number: int, tokens: int) -> bytes:
        """The first `tokens` words of a text, joined by single spaces (ids by commas), safe in a JSON string."""
        if tokens <= 0:
            return b""
        join, rows = self.join, self._rows
        words, start = self._code(number)
        whole, rest = divmod(tokens, self._period)
        if rest <= CODE:
            last = join.join(words[:rest])
        else:
            row = rows[(start + whole) % len(rows)].split(join, rest - CODE)
            last = join.join((*words, *row[: rest - CODE]))
        if not whole:
            return last
        code = join.join(words)
        text = code + join + (join + code + join).join(_round(rows, start, whole))
        return text + join + last if rest else text


def _mixed(number: int, salt: int = 0) -> int:
    """64 bits that look like chance, of a number below 2^64: SplitMix64 (Steele, Lea and Flood, 2014), one to one."""
    mixed = (number * 0x9E3779B97F4A7C15 + salt) & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return mixed ^ mixed >> 31


def _round(rows: tuple[bytes, ...], start: int, count: int) -> tuple[bytes, ...]:
    """`count` rows from the one at `start`, going round."""
    if start + count <= len(rows):
        return rows[start : start + count]
    turns = (start + count) // len(rows) + 1
    return (rows * turns)[start : start + count]
