"""How the calls of a session fall into conversations that AIPerf can run, or why they do not.

Every call goes on in the conversation of a call it waits for, if its prompt begins with all that stands there, or
begins a conversation of its own. AIPerf knows only trees of those, and one kind of join:

    main   m0 ── m1 ────── m2        m0 spawns a; m2 waits for the last turn of a
            └─ a: a0 ── a1 ─┘

Where a call both joins and does not go on with what stood there, its conversation is one of whole prompts. Where
nothing waits for a subagent, its parent ends with the turn that spawns it and goes on as a fork of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, field

from workloom.prefix import Key
from workloom.prompt import Prompt
from workloom.session import Call

How = Literal["root", "early", "fork", "spawn"]
Manner = Literal["live", "canned", "together"]
"""Whether answers are the server's; or texts like others, so that a prompt may go on behind the prompt before it alone;
and whether then an agent stays in one conversation, come what may."""

_JOIN = "sessions left out: a call waits for others than the one it continues and subagents of that conversation"
_RESET = "sessions left out: a call waits for several others and follows none of them"
_WAITED = "sessions left out: a call waits for one that nothing spawned"


class Conversation(Struct):
    """A chain of calls, by their places in the session.

    `whole`: every turn brings its whole prompt. `how`: the first of the session, one that begins with it (`early`),
    or a branch of turn `spawned_at` of the conversation `parent`. `joined_at`: the turn of the parent that waits for
    it. `children`: branches by turn.
    """

    turns: list[int]
    whole: bool = False
    how: How = "root"
    parent: int = 0
    spawned_at: int = 0
    joined_at: int | None = None
    children: dict[int, list[int]] = field(default_factory=dict)


def shape(prompts: Sequence[tuple[Call, Prompt]], how: Manner) -> list[Conversation] | str:
    """The conversations of a session, the first call's first, or a sentence that says why there are none."""
    ends: set[int] = set()
    while True:
        laid, loose = _lay(prompts, how, ends)
        if not loose:
            return laid
        ends |= loose


def _lay(
    prompts: Sequence[tuple[Call, Prompt]], how: Manner, ends: set[int]
) -> tuple[list[Conversation] | str, set[int]]:
    """Conversations of which the calls `ends` are the last; and calls that should be too, for what they spawn."""
    canned = how != "live"
    at = {call.id: place for place, (call, _) in enumerate(prompts)}
    waits = [sorted({at[edge.call] for edge in call.after}) for call, _ in prompts]
    had = [prompt.key if canned else prompt.key_with_answer() for _, prompt in prompts]
    goes_on = _continuations(prompts, waits, had, ends)
    resets = _resets(prompts, waits, goes_on, ends, fewest=2 if how == "canned" else 1) if canned else {}
    laid: list[Conversation] = []
    home: list[tuple[int, int]] = []  # of every call its conversation and turn
    for place in range(len(prompts)):
        before = goes_on[place] = resets.get(place, goes_on[place])
        if before is None:
            if len(waits[place]) > 1:
                return _RESET, set()
            laid.append(Conversation([place]))
            home.append((len(laid) - 1, 0))
        else:
            number = home[before][0]
            laid[number].turns.append(place)
            laid[number].whole |= place in resets
            home.append((number, len(laid[number].turns) - 1))
    for place, before in enumerate(goes_on):
        if before is not None and (why := _join(place, before, waits[place], laid, home, waits)):
            return why, set()
    loose: set[int] = set()
    for number, conversation in enumerate(laid):
        _branch(number, conversation, laid, home, waits, had, prompts, loose)
    return laid, loose


def _continuations(
    prompts: Sequence[tuple[Call, Prompt]], waits: Sequence[list[int]], had: Sequence[Key], ends: set[int]
) -> list[int | None]:
    """For every call the one whose conversation it continues: of its own agent if it can be, and no one else's."""
    chosen: list[int | None] = [None] * len(prompts)
    taken = set(ends)
    for own in (True, False):
        for place, (call, prompt) in enumerate(prompts):
            if chosen[place] is not None:
                continue
            for before in reversed(waits[place]):
                same = prompts[before][0].agent == call.agent
                if before not in taken and (same or not own) and _begins_with(prompt.key, had[before]):
                    chosen[place] = before
                    taken.add(before)
                    break
    return chosen


def _resets(
    prompts: Sequence[tuple[Call, Prompt]],
    waits: Sequence[list[int]],
    goes_on: Sequence[int | None],
    ends: set[int],
    *,
    fewest: int,
) -> dict[int, int]:
    """Calls that wait for `fewest` or more and go on with the context of none: the call of their agent they follow."""
    taken = ends.union(before for before in goes_on if before is not None)
    out: dict[int, int] = {}
    for place, (call, _) in enumerate(prompts):
        if goes_on[place] is None and len(waits[place]) >= fewest:
            before = next((b for b in waits[place] if b not in taken and prompts[b][0].agent == call.agent), None)
            if before is not None:
                out[place] = before
                taken.add(before)
    return out


def _begins_with(key: Key, other: Key) -> bool:
    """Whether a sequence is another and something behind it, piece for piece."""
    count = len(other.ids)
    return len(key.ids) > count and key.ids[:count] == other.ids and key.ends[:count] == other.ends


def _join(
    place: int,
    before: int,
    waits: list[int],
    laid: list[Conversation],
    home: Sequence[tuple[int, int]],
    all_waits: Sequence[list[int]],
) -> str | None:
    """Note the subagents that a turn waits for; why it cannot, if it cannot."""
    number, turn = home[place]
    for other in waits:
        if other == before:
            continue
        child = laid[home[other][0]]
        first = all_waits[child.turns[0]]
        if not first:
            return _WAITED
        if other != child.turns[-1] or child.joined_at is not None or home[first[0]][0] != number:
            return _JOIN
        if home[first[0]][1] >= turn:
            return _JOIN
        child.joined_at = turn
    return None


def _branch(
    number: int,
    conversation: Conversation,
    laid: list[Conversation],
    home: Sequence[tuple[int, int]],
    waits: Sequence[list[int]],
    had: Sequence[Key],
    prompts: Sequence[tuple[Call, Prompt]],
    loose: set[int],
) -> None:
    """Find out how a conversation begins; add to `loose` a call that has to be the last of its own for that."""
    first = conversation.turns[0]
    if not waits[first]:
        conversation.how = "early" if number else "root"
        return
    parent = waits[first][0]
    conversation.parent, conversation.spawned_at = home[parent]
    above = laid[conversation.parent]
    above.children.setdefault(conversation.spawned_at, []).append(number)
    apart = conversation.whole or above.whole or conversation.joined_at is not None
    if not apart and _begins_with(prompts[first][1].key, had[parent]):
        conversation.how = "fork"
    else:
        conversation.how = "spawn"
        if conversation.joined_at is None and parent != above.turns[-1]:
            loose.add(parent)
