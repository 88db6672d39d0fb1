"""Sessions in which a prompt shares most with another than the one it continues: siblings, edits, answers given twice.

What such rows share becomes spans, as in :mod:`workloom.traces.blocks`, but for answers: if the rows that continue a
call hold its answer, then that belongs to the call, and they inherit it. So a call that is answered is laid out as
its prompt and the full blocks that its answer ends up in, taken from the first row that holds them:

    c0     1 2 3 | 4 5        4 5: from c1
    c1     1 2 3   4 5 6 7    inherits c0 and its answer
    c2     1 2 3   4 5 6 8    inherits c0 and its answer; 6 is a span of both

Where rows that do not continue the call have blocks of its answer, it is no answer but a text they share.
"""

from __future__ import annotations

from collections.abc import Sequence

from workloom.session import Inherit, Span
from workloom.traces.blocks import Sharing, share
from workloom.traces.pool.prompts import Begin, Member, Prompts


def untangled(members: Sequence[Member], prompts: Prompts) -> list[Begin]:
    """What each prompt of a session begins with."""
    return _Session(members, prompts).begins()


class _Session:
    def __init__(self, members: Sequence[Member], prompts: Prompts) -> None:
        self._members, self._prompts, self._size = members, prompts, prompts.size
        paths = [prompts.path(member.row) for member in members]
        self._full = [prompts.full(member) for member in members]
        self._ends = [path[-1] if len(path) > full else -1 for path, full in zip(paths, self._full, strict=True)]
        """The number of the last block where that is not full; -1: none."""
        self._paths = [path[:full] for path, full in zip(paths, self._full, strict=True)]
        self._above: list[int] = []
        for member in members:
            before = member.before
            self._above.append(self._above[before] | 1 << before if before >= 0 else 0)
        self._answers = self._held()
        self._taken: set[int] = set()

    def _held(self) -> dict[int, list[int]]:
        """Calls with answers of at least a block that a row behind them holds: the blocks of prompt and answer."""
        found: dict[int, list[int]] = {}
        for member, path in zip(self._members, self._paths, strict=True):
            call = member.before
            if call < 0 or call in found:
                continue
            full, whole = self._full[call], self._whole(call)
            own = member.shared <= full <= member.common
            if own and member.tokens >= whole and full < whole // self._size <= len(path):
                found[call] = path[: whole // self._size]
        return found

    def _whole(self, call: int) -> int:
        """Tokens of prompt and answer."""
        return self._members[call].tokens + self._members[call].output

    def begins(self) -> list[Begin]:
        sharings = self._share()
        torn = self._torn(sharings)
        if torn:
            for call in torn:
                del self._answers[call]
            sharings = self._share()
            if self._torn(sharings):
                self._answers.clear()
                sharings = self._share()
        twins = self._twins()
        return [self._begin(call, sharing, twins[call]) for call, sharing in enumerate(sharings)]

    def _share(self) -> list[Sharing]:
        laid = [self._answers.get(call, path) for call, path in enumerate(self._paths)]
        before = [member.before if member.before >= 0 else None for member in self._members]
        return share(laid, before, self._above, [f"c{call}" for call in range(len(laid))])

    def _twins(self) -> list[tuple[int, bool]]:
        """Of each call another with the very same prompt, or -1, and whether it is an ancestor.

        Of ancestors it is the latest; of others the first, where no ancestor of either has that prompt.
        """
        same: dict[int, list[int]] = {}
        ancestor: dict[int, int] = {}
        for call, end in enumerate(self._ends):
            if end < 0 or self._members[call].shared > self._full[call]:
                continue
            known = same.setdefault(end, [])
            above = next((other for other in reversed(known) if self._above[call] >> other & 1), None)
            if above is not None:
                ancestor[call] = above
            known.append(call)
        heads = {end: [call for call in calls if call not in ancestor] for end, calls in same.items()}
        first = {call: calls[0] for calls in heads.values() if len(calls) > 1 for call in calls}
        return [
            (ancestor[call], True) if call in ancestor else (first.get(call, -1), False)
            for call in range(len(self._ends))
        ]

    def _torn(self, sharings: Sequence[Sharing]) -> list[int]:
        """Calls whose answers are no answers: an earlier call has them too, or one that does not continue them."""
        return [call for call in self._answers if _end(sharings[call]) > self._full[call]]

    def _begin(self, call: int, sharing: Sharing, twin: tuple[int, bool]) -> Begin:
        member, size, prompts = self._members[call], self._size, self._prompts
        same, is_ancestor = twin
        if is_ancestor:
            return kept(same, member.tokens)
        start, spans = sharing.blocks, tuple[Span, ...]()
        if start < member.shared:
            spans, start = prompts.spans(member.row, member.tokens, member.shared, start)
        at = sharing.blocks
        for name, blocks in sharing.spans:
            begin, at = max(at, member.shared), at + blocks
            if at > begin:
                spans += (Span(name, (at - begin) * size),)
        covered = min(max(at, member.shared) * size, member.tokens)
        if same >= 0:
            assert covered == self._full[call] * size, "all full blocks are a stranger's too"
            spans += (Span(f"c{same}@{self._full[call]}+", member.tokens - covered),)
            covered = member.tokens
        if spans:
            return Begin(self._kept(sharing.ancestor, start * size), spans, covered)
        return Begin(None, (), 0) if sharing.ancestor is None else self._inherited(call, sharing.ancestor, covered)

    def _kept(self, ancestor: int | None, tokens: int) -> Inherit | None:
        """So much of an ancestor, before spans: all, if its answer is no more than that."""
        if ancestor is None or not tokens:
            return None
        return Inherit(f"c{ancestor}", None if tokens == self._whole(ancestor) else tokens)

    def _inherited(self, call: int, ancestor: int, tokens: int) -> Begin:
        """What a prompt that shares its first `tokens` tokens with an ancestor, and no more, inherits of it."""
        member, before = self._members[call], self._members[ancestor]
        whole, full = self._whole(ancestor), self._full[ancestor] * self._size
        fits = member.tokens >= whole and (ancestor not in self._taken or member.tokens > whole)
        end = len(self._answers.get(ancestor, ())) * self._size or full
        if fits and ancestor == member.before and tokens == end == whole - whole % self._size:
            self._taken.add(ancestor)
            return Begin(Inherit(f"c{ancestor}"), (), whole)
        if ancestor == member.before and tokens == full and member.tokens > before.tokens:
            return kept(ancestor, before.tokens)
        return kept(ancestor, tokens)


def _end(sharing: Sharing) -> int:
    """How many blocks of what was laid out for a call are inherited or spans."""
    return sharing.blocks + sum(blocks for _, blocks in sharing.spans)


def kept(ancestor: int, tokens: int) -> Begin:
    """A prompt that begins with so many tokens of an ancestor's prompt and answer, and nothing else shared."""
    return Begin(Inherit(f"c{ancestor}", tokens) if tokens else None, (), tokens)
