"""Common words that are one token each in the vocabularies in use: what texts of known length are made of."""

from __future__ import annotations

from functools import cache
from pathlib import Path

WORDS_FILE = Path(__file__).parent / "data" / "words.txt"
"""Written by scripts/make_words.py, which says where they come from."""


@cache
def pool() -> tuple[str, ...]:
    """The words: a power of two of them, in alphabetical order."""
    return tuple(WORDS_FILE.read_text("ascii").split())
