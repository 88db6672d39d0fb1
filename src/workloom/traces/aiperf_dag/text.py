"""Texts of AIPerf messages: how many tokens they are, and texts of a given number of tokens.

A plain word is a token: small Latin letters between single blanks. The common words of `data/words.txt` are one token
each in the vocabularies in use, so what is written here is as long for a server as for us.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import shake_256

from workloom.prompt import ORDINAL_BITS
from workloom.traces.turns import estimate
from workloom.words import pool

_STRIDE = 1_597
_PLAIN = b"abcdefghijklmnopqrstuvwxyz "


def words(text: int, tokens: int) -> str:
    """The first `tokens` words of the text with this number; another number is another text.

    Texts of one session begin with different words, as do those at the same place of sessions one after the other.
    """
    common = pool()
    numbers = array("H", shake_256(f"workloom text {text}".encode()).digest(2 * tokens))
    if sys.byteorder == "big":
        numbers.byteswap()
    mask = len(common) - 1
    if numbers:
        numbers[0] = (text + _STRIDE * (text >> ORDINAL_BITS)) & mask
    return " ".join([common[number & mask] for number in numbers])


def count(text: str) -> int:
    """Tokens of a text: its words where all are plain, else an estimate from its length."""
    if text.isascii():
        data = text.encode()
        if not data.translate(None, _PLAIN) and data.strip() == data != b"" and b"  " not in data:
            return data.count(b" ") + 1
    return estimate(len(text))


def beginning(text: str, tokens: int, of: int) -> str:
    """The share of a text that stands for its first `tokens` of `of` tokens."""
    return text if tokens >= of else text[: len(text) * tokens // of]
