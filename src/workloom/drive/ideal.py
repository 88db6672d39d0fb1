"""What an infinite prefix cache would have held of each prompt when it was sent: the best any server could do."""

from __future__ import annotations

from workloom.prefix import PrefixTree
from workloom.prompt import Cursors, Prompt


class Ideal:
    """The infinite cache as one session sees it, by served model.

    A session's own texts are gone with it; of the leads of prompts (spans that others share) `leads` keeps a tree for
    the whole run.
    """

    def __init__(self, leads: dict[str, PrefixTree]) -> None:
        self._leads = leads
        self._mine: dict[str, _Mine] = {}

    def held(self, served: str, prompt: Prompt) -> int:
        """Add a prompt that is sent; how many of its tokens were there before."""
        mine = self._mine.get(served)
        if mine is None:
            mine = self._mine[served] = _Mine(self._leads.setdefault(served, PrefixTree()))
            if prompt.base is None:  # only others' leads can be there: its own tree waits until there is use for it
                mine.first = prompt
                return mine.leads.add_lead(prompt)
        own = mine.begun()
        if prompt.base is None or prompt.base in mine.seen:
            held = max(own.add(prompt), mine.leads.add_lead(prompt))
        else:  # what it goes on from was over before the run began, or was answered by another model
            held = max(own.add_whole(prompt, prompt.tokens), mine.leads.add_whole(prompt, prompt.lead_tokens))
        mine.seen.add(prompt)
        return held

    def answered(self, served: str, prompt: Prompt) -> None:
        """The answer that came to a prompt is there too."""
        mine = self._mine.get(served)
        if mine is None:
            return
        if mine.first is prompt:
            mine.first_answered = True
        elif prompt in mine.seen:
            mine.begun().add_answer(prompt)


class _Mine:
    """What one served model has of a session."""

    __slots__ = ("_own", "first", "first_answered", "leads", "seen")

    def __init__(self, leads: PrefixTree) -> None:
        self.leads = Cursors(leads)
        self._own: Cursors | None = None
        self.seen: set[Prompt] = set()
        self.first: Prompt | None = None
        """A prompt that is not in the tree yet."""
        self.first_answered = False

    def begun(self) -> Cursors:
        """The session's own tree."""
        if self._own is None:
            self._own = Cursors(PrefixTree())
        first = self.first
        if first is not None:
            self.first = None
            self._own.add(first)
            self.seen.add(first)
            if self.first_answered:
                self._own.add_answer(first)
        return self._own
