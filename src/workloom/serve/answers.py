"""What a simulated model says: words that belong to one answer alone.

The first word names the answer and comes again every 16 words, with common words between, so that two answers part at
their first word and share no 16 in a row:

    bakalu  measure garden ... (15 words)  bakalu  seven paper ...
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_256
from itertools import product

from workloom.words import pool

PERIOD = 16
"""Words from one name to the next."""
_FILLER = PERIOD - 1
_SYLLABLES = tuple("".join(pair) for pair in product("bdfghjklmnprstvz", "aeiou"))


def name(number: int) -> str:
    """A word of three or more syllables, different for every number."""
    number += len(_SYLLABLES) ** 2
    word = ""
    while number:
        number, at = divmod(number, len(_SYLLABLES))
        word = _SYLLABLES[at] + word
    return word


@cache
def _filler() -> list[str]:
    """The common words in a fixed shuffled order, and the beginning of them once more behind."""
    words = pool()
    draw = shake_256(b"workloom answers").digest(8 * len(words))
    order = sorted(range(len(words)), key=lambda i: draw[8 * i : 8 * i + 8])
    shuffled = [words[i] for i in order]
    return shuffled + shuffled[:_FILLER]


def answer_words(number: int, tokens: int) -> list[str]:
    """The first `tokens` words of answer `number`."""
    filler, own = _filler(), name(number)
    size = len(filler) - _FILLER
    words: list[str] = []
    at = number * 97 % size
    while len(words) < tokens:
        words.append(own)
        words += filler[at : at + _FILLER]
        at = (at + _FILLER) % size
    return words[:tokens]
