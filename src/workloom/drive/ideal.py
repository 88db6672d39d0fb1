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
        self._mine: dict[str, tuple[Cursors, Cursors, set[Prompt]]] = {}

    def held(self, served: str, prompt: Prompt) -> int:
        """Add a prompt that is sent; how many of its tokens were there before."""
        own, leads, seen = self._of(served)
        missing = []
        base = prompt.base
        while base is not None and base not in seen:  # over before the run began, or answered by another model
            missing.append(base)
            base = base.base
        held = _held_before(own, leads, missing, prompt)
        seen.update(missing)
        seen.add(prompt)
        return held

    def answered(self, served: str, prompt: Prompt) -> None:
        """The answer that came to a prompt is there too."""
        own, _, seen = self._of(served)
        if prompt in seen:
            own.add_answer(prompt)

    def _of(self, served: str) -> tuple[Cursors, Cursors, set[Prompt]]:
        mine = self._mine.get(served)
        if mine is None:
            tree = self._leads.setdefault(served, PrefixTree())
            mine = self._mine[served] = Cursors(PrefixTree()), Cursors(tree), set()
        return mine


def _held_before(own: Cursors, leads: Cursors, missing: list[Prompt], prompt: Prompt) -> int:
    """Ancestors that were never sent to this model are added on the way, and are no hit themselves."""
    line = [*reversed(missing), prompt]
    held = line[0].base_tokens  # of an ancestor that was sent, or 0
    for each in line:
        found = max(own.add(each), leads.add_lead(each))
        if held >= each.base_tokens:  # else what `found` counts of the base was put there a moment ago
            held = found
    return held
