"""How much of every prompt an infinite cache would hold: the ideal that no server beats.

Calls come in list order, session after session. Two caches stand side by side: one is given prompts only (what block
hashes can say), one prompts and answers (what a server holds). Sessions share nothing but spans of scope `trace`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from workloom.prefix import Key, PrefixTree
from workloom.prompt import TRACE_TEXTS, planned
from workloom.session import Call, Session


class CallReuse(NamedTuple):
    """One call and what of its prompt was there before, in tokens."""

    session: str
    call: Call
    prompt_tokens: int
    held_by_prompts: int
    """Tokens of the prompt that earlier prompts begin with."""
    held_with_outputs: int
    """Tokens of the prompt that earlier prompts and their answers begin with."""

    @property
    def fresh_tokens(self) -> int:
        """Tokens that even an infinite cache of prompts and answers would have to compute."""
        return self.prompt_tokens - self.held_with_outputs


class _Cache:
    """An infinite cache that keeps of past sessions only what others can share: leading spans of scope `trace`."""

    def __init__(self) -> None:
        self._everywhere = PrefixTree()
        self._here = PrefixTree()

    def next_session(self) -> None:
        self._here = PrefixTree()

    def held(self, key: Key) -> int:
        lead = _trace_lead(key)
        here = self._here.match(key)
        return max(here, self._everywhere.match(lead)) if lead.ids else here

    def add(self, key: Key) -> None:
        self._here.add(key)
        lead = _trace_lead(key)
        if lead.ids:
            self._everywhere.add(lead)


def _trace_lead(key: Key) -> Key:
    """The beginning of a sequence that consists of trace-scope spans."""
    for index, text in enumerate(key.ids):
        if text < TRACE_TEXTS:
            return Key(key.ids[:index], key.ends[:index])
    return key


def reuse(sessions: Iterable[Session]) -> Iterator[CallReuse]:
    """Every call of the sessions with what an infinite cache held of its prompt when it came, in list order."""
    prompts, both = _Cache(), _Cache()
    for session in sessions:
        prompts.next_session()
        both.next_session()
        for call, prompt in planned(session):
            yield CallReuse(session.id, call, prompt.tokens, prompts.held(prompt.key), both.held(prompt.key))
            prompts.add(prompt.key)
            both.add(prompt.key_with_answer())
