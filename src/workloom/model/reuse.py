"""How much of every prompt an infinite cache would hold: the ideal that no server beats.

Calls come in list order, session after session. Two caches stand side by side: one is given prompts only (what block
hashes can say), one prompts and answers (what a server holds). Sessions share nothing but spans of scope `trace`.
What the second one holds is told by origin: put there by the session itself, by sessions of its user, by anyone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

from workloom.prefix import PrefixTree
from workloom.prompt import Cursors, planned
from workloom.session import Call, Session, prompt_tokens


class CallReuse(NamedTuple):
    """One call and what of its prompt was there before, in tokens."""

    session: str
    call: Call
    prompt_tokens: int
    held_by_prompts: int
    """Tokens of the prompt that earlier prompts begin with."""
    held_with_outputs: int
    """Tokens of the prompt that earlier prompts and their answers begin with."""
    held_in_session: int
    """The same, of earlier calls of its own session alone."""
    held_by_user: int
    """The same, of its own session and earlier sessions of the same user; a session that names none has its own."""

    @property
    def fresh_tokens(self) -> int:
        """Tokens that even an infinite cache of prompts and answers would have to compute."""
        return self.prompt_tokens - self.held_with_outputs


def reuse(sessions: Iterable[Session]) -> Iterator[CallReuse]:
    """Every call of the sessions with what an infinite cache held of its prompt when it came, in list order.

    Memory: a session's, and of those before it what others can share, the leads of their prompts.
    """
    leads, leads_of = PrefixTree(), dict[str, PrefixTree]()
    for session in sessions:
        prompts, both, anyone = Cursors(PrefixTree()), Cursors(PrefixTree()), Cursors(leads)
        named = None if session.user is None else Cursors(leads_of.setdefault(session.user, PrefixTree()))
        for call, prompt in planned(session):
            by_prompts, here, lead = prompts.add(prompt), both.add(prompt), anyone.add_lead(prompt)
            user = here if named is None else max(here, named.add_lead(prompt))
            both.add_answer(prompt)
            yield CallReuse(session.id, call, prompt.tokens, max(by_prompts, lead), max(here, lead), here, user)


class ToolReuse(Struct, frozen=True):
    """Results of tools, and those that say what an earlier one of the same tool said, to the letter."""

    results: int = 0
    result_tokens: int = 0
    repeated: int = 0
    repeated_tokens: int = 0
    repeated_in_session: int = 0
    """Of these, those that an earlier call of the same session was given."""
    repeated_in_session_tokens: int = 0
    resent: int = 0
    """No results but history: what a call that keeps less than the prompt of its agent's call before repeats of its
    agent's results (a compaction, an edit). They are in none of the other counts."""
    resent_tokens: int = 0


def tool_reuse(sessions: Iterable[Session]) -> ToolReuse | None:
    """Count equal results of tools; None where no text was kept: then nobody can know.

    Spans of scope `trace` do not say whether they are results of tools, so only kept texts tell.
    """
    everywhere: set[bytes] = set()
    counts = [0] * 8
    for session in sessions:
        here: set[bytes] = set()
        agents: dict[str, set[bytes]] = {}
        for call, rebuilt in _rebuilds(session):
            agent = agents.setdefault(call.agent, set())
            for part in call.fresh:
                if part.kind != "tool" or part.text is None:
                    continue
                told = f"{part.name or ''}\0{part.text}".encode(errors="surrogatepass")
                what = blake2b(told, digest_size=16).digest()
                resent = rebuilt and what in agent
                kinds = (not resent, not resent and what in everywhere, not resent and what in here, resent)
                for index, counted in enumerate(kinds):
                    counts[2 * index] += counted
                    counts[2 * index + 1] += part.tokens if counted else 0
                for seen in (everywhere, here, agent):
                    seen.add(what)
    return ToolReuse(*counts) if any(counts) else None


def _rebuilds(session: Session) -> Iterator[tuple[Call, bool]]:
    """Every call, and whether it keeps less than the prompt of its agent's call before."""
    prompts = prompt_tokens(session)
    last: dict[str, int] = {}
    for call in session.calls:
        kept = prompts[call.id] - call.span_tokens - call.fresh_tokens
        yield call, kept < last.get(call.agent, 0)
        last[call.agent] = prompts[call.id]
