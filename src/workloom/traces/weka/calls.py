"""From the rows of a WEKA file to calls: edges, waits, instants, what is inherited and what is fresh.

    parent   p0 ──────────────────────────► p1        p1 waits for p0 and for the last call of every
                └─► a0 ─► a1 ─┐  (marker a) ▲         synchronous subagent that was launched in between
                └─► b0 ───────┴─(marker b)──┘

The think time of a resuming call holds the whole wait for its subagents, so what is left of it behind their completion
is the wait of each of its edges. A think time may also reach back over calls whose own time is not known; such calls
are taken to last the median of the file, at most until the next one.
"""

from __future__ import annotations

from typing import NamedTuple

from workloom.session import Call, Edge, Gap, Inherit, Part, Recorded, Span
from workloom.traces.blocks import Sharing, share
from workloom.traces.reading import Report
from workloom.traces.weka.rows import Dialect, Document, Plain, Streaming, Subagent

Request = Plain | Streaming
ASYNC = "async_launched"


class _Row(NamedTuple):
    """One call in list order; instants in seconds from the start of the session."""

    name: str
    agent: str
    request: Request
    previous: int | None
    start_s: float
    end_s: float
    timed: bool
    """Whether the end is the trace's or a guess."""
    edges: tuple[tuple[int, float, Gap], ...]
    scaffold: tuple[int, int]
    """Tokens of tool definitions and of the system prompt, for an agent's first call."""


class _Pending(NamedTuple):
    """A subagent that ran and is not joined: its last call and when it was done."""

    last: int
    done_s: float


def calls(document: Document, dialect: Dialect, report: Report) -> tuple[Call, ...]:
    """The calls of a file in list order, subagents where their marker stands."""
    rows = _Rows(document, dialect, report).rows
    size = document.block_size
    above: list[int] = []
    for row in rows:
        mine = 0
        for edge in row.edges:
            mine |= above[edge[0]] | 1 << edge[0]
        above.append(mine)
    sharings = share(
        [row.request.hash_ids for row in rows], [row.previous for row in rows], above, [r.name for r in rows]
    )
    return tuple(_call(row, sharing, rows, size, report) for row, sharing in zip(rows, sharings, strict=True))


class _Rows:
    """All calls of a file as rows, edges and instants included."""

    def __init__(self, document: Document, dialect: Dialect, report: Report) -> None:
        self.rows: list[_Row] = []
        self._absolute = dialect == "semianalysis"
        self._report = report
        self._seen: set[str] = set()
        parents = [entry for entry in document.requests if not isinstance(entry, Subagent)]
        every = [request for entry in document.requests for request in _requests(entry)]
        self._typical_s = _median([r.api_time for r in every if r.api_time is not None])
        self._zero_s = min(r.t for r in every) if self._absolute else 0.0
        if any(request.input_types is None for request in every):
            report.assume("a request without input_types answers a tool call")
        self._walk(document, parents)

    def _walk(self, document: Document, parents: list[Request]) -> None:
        """The parent's list from beginning to end."""
        ends = self._ends(parents, None)
        scaffold = (document.tool_tokens, document.system_tokens)
        turn, last, pending = 0, None, list[_Pending]()
        for index, entry in enumerate(document.requests):
            if isinstance(entry, Subagent):
                joined = self._subagent(index, entry, last, turn == len(parents))
                pending += [joined] if joined else []
                continue
            waiting, pending = self._due(entry, pending)
            edges = self._resume(entry, last, waiting)
            last = self._add(f"r{index}", "main", entry, last, 0.0, ends[turn], edges, scaffold)
            turn, scaffold = turn + 1, (0, 0)
        self._report.infer("subagents nothing waits for", len(pending))

    def _add(
        self,
        name: str,
        agent: str,
        request: Request,
        previous: int | None,
        base_s: float,
        end: tuple[float, bool],
        edges: tuple[tuple[int, float, Gap], ...],
        scaffold: tuple[int, int],
    ) -> int:
        base_s -= self._zero_s
        start_s, end_s = _exact(base_s + request.t), _exact(base_s + end[0])
        self.rows.append(_Row(name, agent, request, previous, start_s, end_s, end[1], edges, scaffold))
        return len(self.rows) - 1

    def _ends(self, requests: list[Request], done_s: float | None) -> list[tuple[float, bool]]:
        """When each request of one agent ended, on its own clock, and whether the trace says so.

        Without api_time that is the next start less the next think time; if that is before the request began, or
        there is no next or no think time, it is a guess: the typical time of the file, not past the next start
        (or `done_s`, when the agent was done).
        """
        out = []
        for index, request in enumerate(requests):
            if request.api_time is not None:
                out.append((request.t + request.api_time, True))
                continue
            after = requests[index + 1] if index + 1 < len(requests) else None
            floor = request.t + (request.ttft or 0.0)
            limit = after.t if after is not None else done_s
            if after is not None and after.think_time is not None and not self._absolute:
                end = after.t - after.think_time
                if end >= floor:
                    self._report.infer("ends from the next start less the next think time")
                    out.append((end, True))
                    continue
            self._report.infer("ends not told by the trace, taken from the median api_time")
            guess = max(floor, request.t + self._typical_s)
            out.append((guess if limit is None else max(request.t, min(guess, limit)), False))
        return out

    def _think(self, request: Request, end: tuple[float, bool], previous: Request) -> float:
        """Seconds from the end of the previous call of its agent (or of its subagents) to this one."""
        think = request.think_time
        if self._absolute or think is None or (previous.api_time is None and not end[1]):
            return max(0.0, request.t - end[0])
        return think

    def _due(self, request: Request, pending: list[_Pending]) -> tuple[list[_Pending], list[_Pending]]:
        """The subagents that a parent's call waits for, and the others."""
        if not self._absolute:
            return pending, []
        due_s = request.t - self._zero_s + 1e-3
        return [sub for sub in pending if sub.done_s <= due_s], [sub for sub in pending if sub.done_s > due_s]

    def _resume(self, request: Request, last: int | None, joined: list[_Pending]) -> tuple[tuple[int, float, Gap], ...]:
        """The edges into a parent's call: from its own previous call and from the subagents it waited for."""
        gap = _gap(request)
        if last is None:
            return tuple((sub.last, 0.0, gap) for sub in joined)
        before = self.rows[last]
        think = self._think(request, (before.end_s + self._zero_s, before.timed), before.request)
        span = max((sub.done_s for sub in joined), default=before.end_s) - before.end_s
        wait = _exact(max(0.0, think - max(0.0, span)))
        closing = (max(0.0, sub.done_s - self.rows[sub.last].end_s) for sub in joined)
        return (
            (last, wait, gap),
            *((sub.last, _exact(wait + s), gap) for sub, s in zip(joined, closing, strict=True)),
        )

    def _subagent(self, index: int, marker: Subagent, spawner: int | None, trailing: bool) -> _Pending | None:
        """Add the calls of a subagent; what its parent may wait for, if anything."""
        if not marker.requests:
            self._report.drop("subagent markers without requests")
            return None
        launched = marker.status == ASYNC
        length_s = None if marker.duration_ms is None else marker.duration_ms / 1000
        inner_done = None if length_s is None else length_s + (marker.t if self._absolute else 0.0)
        ends = self._ends(list(marker.requests), inner_done)
        latest = max(end for end, _ in ends)
        if self._absolute:
            base_s, done_s = 0.0, (latest if length_s is None else marker.t + length_s) - self._zero_s
        elif launched:
            base_s, done_s = marker.t, marker.t + latest
        else:
            base_s, done_s = marker.t - (latest if length_s is None else length_s), marker.t
        start_s = base_s + marker.requests[0].t - self._zero_s
        edges: tuple[tuple[int, float, Gap], ...] = ()
        if spawner is not None:
            wait = _exact(max(0.0, start_s - self.rows[spawner].end_s))
            edges = ((spawner, wait, "human" if trailing else "spawn"),)
        agent = self._name(marker)
        last, scaffold = None, (marker.tool_tokens, marker.system_tokens)
        for turn, request in enumerate(marker.requests):
            if last is not None:
                think = self._think(request, ends[turn - 1], marker.requests[turn - 1])
                edges = ((last, _exact(max(0.0, think)), _gap(request)),)
            last = self._add(f"r{index}.{turn}", agent, request, last, base_s, ends[turn], edges, scaffold)
            scaffold = (0, 0)
        assert last is not None
        if launched:
            self._report.async_subagents += 1
            return None
        return _Pending(last, done_s)

    def _name(self, marker: Subagent) -> str:
        name = base = f"{marker.subagent_type}:{marker.agent_id}"
        copy = 2
        while name in self._seen:
            name, copy = f"{base}#{copy}", copy + 1
        self._seen.add(name)
        return name


def _requests(entry: Request | Subagent) -> list[Request]:
    return list(entry.requests) if isinstance(entry, Subagent) else [entry]


def _median(seconds: list[float]) -> float:
    """The upper median, 0 of nothing (`statistics` is slow to import)."""
    return sorted(seconds)[len(seconds) // 2] if seconds else 0.0


def _exact(seconds: float) -> float:
    """Without the dust of binary fractions: instants in the files have at most microseconds."""
    return round(seconds, 6)


def _gap(request: Request) -> Gap:
    return "tool" if request.input_types is None or "tool_result" in request.input_types else "human"


def _call(row: _Row, sharing: Sharing, rows: list[_Row], size: int, report: Report) -> Call:
    request = row.request
    inherit = _inherit(row, sharing, rows, size)
    spans = tuple(Span(name, blocks * size) for name, blocks in sharing.spans)
    inherited = 0
    if inherit is not None:
        of = rows[_index(sharing)].request
        inherited = inherit.tokens if inherit.tokens is not None else of.tokens + of.out
    shared = inherited + sum(span.tokens for span in spans)
    streamed = isinstance(request, Streaming)
    return Call(
        id=row.name,
        output_tokens=request.out,
        after=tuple(Edge(rows[call].name, wait_s, gap) for call, wait_s, gap in row.edges),
        agent=row.agent,
        model=request.model,
        inherit=inherit,
        spans=spans,
        fresh=_fresh(row, shared, report),
        recorded=Recorded(
            start_s=row.start_s,
            first_s=None if request.ttft is None else _exact(row.start_s + request.ttft),
            end_s=row.end_s if row.timed else None,
            streaming=streamed,
        ),
    )


def _index(sharing: Sharing) -> int:
    assert sharing.ancestor is not None
    return sharing.ancestor


def _inherit(row: _Row, sharing: Sharing, rows: list[_Row], size: int) -> Inherit | None:
    """What the prompt begins with; a prompt that keeps all full blocks of the previous one keeps the rest of it too."""
    if sharing.ancestor is None:
        return None
    ancestor = rows[sharing.ancestor]
    before, tokens = ancestor.request, row.request.tokens
    follows = sharing.ancestor == row.previous and sharing.blocks == len(before.hash_ids)
    if follows and not sharing.spans and tokens >= before.tokens:
        if tokens >= before.tokens + before.out:
            return Inherit(ancestor.name)
        return Inherit(ancestor.name, before.tokens)
    return Inherit(ancestor.name, sharing.blocks * size)


def _fresh(row: _Row, shared: int, report: Report) -> tuple[Part, ...]:
    """What is new in a prompt: for an agent's first call its tool definitions, its system prompt and the rest."""
    left = row.request.tokens - shared
    parts: list[Part] = []
    if sum(row.scaffold) > row.request.tokens:
        report.infer("scaffolds larger than the prompt, not told apart")
    elif shared < sum(row.scaffold):
        covered = shared
        for tokens, name in zip(row.scaffold, ("tools", "system"), strict=True):
            if tokens > covered:
                parts.append(Part("definition", tokens - covered, name))
            covered = max(0, covered - tokens)
    left -= sum(part.tokens for part in parts)
    if left:
        types = row.request.input_types
        tool = row.previous is not None if types is None else "tool_result" in types
        parts.append(Part("tool" if tool else "user", left))
    return tuple(parts)
