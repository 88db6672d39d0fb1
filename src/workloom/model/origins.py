"""Where reuse comes from: what infinite caches of different reach would hold of all prompts."""

from __future__ import annotations

from msgspec import Struct

from workloom.model.facts import SessionFacts


class Origins(Struct, frozen=True):
    """Ideal hit rates by token, over all prompt tokens, each of a cache that keeps prompts and answers for ever.

    within_session   it knows the session alone
    across_sessions  it knows all sessions of the same user (a session without a user is a user of its own)
    across_users     it knows all sessions
    prompts_only     it knows all sessions, and keeps prompts but no answers
    """

    prompt_tokens: int
    computed_tokens: int
    """What even the last but one has to compute."""
    within_session: float | None
    across_sessions: float | None
    across_users: float | None
    prompts_only: float | None


class OriginsSection:
    """Sums over calls."""

    def __init__(self) -> None:
        self._prompt = self._session = self._user = self._all = self._prompts = 0

    def add(self, facts: SessionFacts) -> None:
        for call in facts.calls:
            row = call.reuse
            self._prompt += row.prompt_tokens
            self._session += row.held_in_session
            self._user += row.held_by_user
            self._all += row.held_with_outputs
            self._prompts += row.held_by_prompts

    def result(self) -> Origins:
        def rate(held: int) -> float | None:
            return held / self._prompt if self._prompt else None

        return Origins(
            prompt_tokens=self._prompt,
            computed_tokens=self._prompt - self._all,
            within_session=rate(self._session),
            across_sessions=rate(self._user),
            across_users=rate(self._all),
            prompts_only=rate(self._prompts),
        )
