"""A session of an AIPerf `dag_jsonl` file: a conversation and all below it, run turn by turn into calls.

Histories are laid into a tree whose nodes are messages behind all that is before them. A message that several calls
bring to one node, or that other sessions of the file begin with too, is a span; what only one brings is a fresh part.
Those that are spans always come first in what a call brings: a prompt goes on only where another one ended.
"""

from __future__ import annotations

from msgspec import Struct, field

from workloom.errors import TraceError
from workloom.session import Call, Edge, Gap, Inherit, Part, PartKind, Recorded, Span
from workloom.traces.aiperf_dag.index import LEADING, Index
from workloom.traces.aiperf_dag.rows import (
    ARRAYS,
    CANNED,
    MOST_CALLS,
    Branch,
    Item,
    branches,
    digest,
    items,
    think_times,
    told,
)
from workloom.traces.reading import Intake
from workloom.traces.turns import exact

USUAL_OUTPUT = 256
"""Tokens of an answer that has no bound: about what agents' calls have."""

_ROLES: dict[str, PartKind] = {"tool": "tool", "assistant": "answer"}
_DEFINED = {"tools": "tools", "system": "system", "developer": "system"}


class _Node(Struct):
    """A place in the histories of a session: a message behind all that is before it.

    `introduced`: how many calls bring the message to it (others inherit it); `everywhere`: other sessions may too.
    """

    history: bytes = b""
    item: Item | None = None
    below: dict[bytes, _Node] = field(default_factory=dict)
    introduced: int = 0
    everywhere: bool = False


class _Template(Struct):
    """A conversation as a line tells it; an orchestrator has turns without items."""

    mode: str | None
    asks: bool
    delays_ms: list[float]
    branches: list[list[Branch]]
    early: list[str]
    items: list[list[Item]] = []
    models: list[str] = []
    outputs: list[int | None] = []


class _Asked(Struct):
    """A call, before it is known which of its messages are spans."""

    agent: str
    model: str
    output: int | None
    edges: tuple[Edge, ...]
    inherit: Inherit | None
    brings: list[_Node]
    tokens: int
    answers: str | None
    """The call whose answer the first message is, in a file that brings its answers."""


class _Frame(Struct):
    """A conversation that is being run: `front` is what its next turn waits for, (place of a call, seconds)."""

    name: str
    template: _Template
    agent: str
    front: list[tuple[int, float]]
    base: int | None = None
    """The call whose context it goes on from."""
    base_mode: str | None = None
    above: _Frame | None = None
    joined_at: int | None = None
    turn: int = 0
    joins: dict[int, list[tuple[int, float]]] = field(default_factory=dict)


class Tree:
    """A session: a conversation and all below it, run from the first turn on."""

    def __init__(self, index: Index, root: str, intake: Intake) -> None:
        self._index, self._root, self._intake = index, root, intake
        self._templates: dict[str, _Template] = {}
        self._asked: list[_Asked] = []
        self._ends: list[_Node] = []  # of every prompt
        self._top = _Node()
        self._agents = 0
        self._work = 0

    def calls(self) -> tuple[Call, ...]:
        """Every call behind those it waits for: a turn, its branches, the next turn."""
        frames = [_Frame(self._root, self._template(self._root), "main", [])]
        while frames:
            frame = frames[-1]
            if frame.turn == len(frame.template.branches):
                frames.pop()
                if frame.above is not None and frame.joined_at is not None:
                    frame.above.joins.setdefault(frame.joined_at, []).extend(frame.front)
                continue
            entry = list(frame.front)
            if frame.template.asks:
                self._ask(frame)
            else:
                self._pause(frame)
            below = [self._branch(frame, branch) for branch in frame.template.branches[frame.turn]]
            if frame.turn == 0:
                early = (Branch(name, False) for name in frame.template.early)
                below = [*(self._branch(frame, branch, entry) for branch in early), *below]
            frame.turn += 1
            frames += reversed(below)
        return tuple(self._call(place, asked) for place, asked in enumerate(self._asked))

    def _template(self, name: str) -> _Template:
        known = self._templates.get(name)
        if known is None:
            row, report = self._index.row(name), self._intake.report
            if row.think_time_sigma is not None:
                report.assume("drawn think times are their median")
            delays = think_times(row) if row.orchestrator else [turn.delay for turn in row.turns]
            known = _Template(row.context_mode, not row.orchestrator, delays, branches(row), row.pre_session_spawns)
            for place, turn in enumerate(row.turns):
                tools = place == 0 or row.context_mode == ARRAYS
                brought, others = items(turn, tools=tools)
                report.drop("pieces of messages that are no text", others)
                report.drop("tool definitions behind the first turn of a conversation", not tools and told(turn.tools))
                known.items.append(brought)
                known.models.append(turn.model or "")
                known.outputs.append(turn.max_tokens)
            self._templates[name] = known
        return known

    def _waited(self, frame: _Frame) -> list[tuple[int, float]]:
        """What a turn waits for and how long after each, its delay included."""
        delay_s = exact(frame.template.delays_ms[frame.turn] / 1000)
        before: dict[int, float] = {}
        joined = frame.joins.pop(frame.turn, [])
        if frame.template.asks or not joined:  # an orchestrator's branches began behind all it waited for before
            joined = [*frame.front, *joined]
        for call, wait_s in joined:
            before[call] = max(before.get(call, 0.0), exact(wait_s + delay_s))
        if not before and delay_s:
            self._intake.report.drop("delays before the first call of a session")
        self._spend(1 + len(before))
        return list(before.items())

    def _spend(self, work: int) -> None:
        """Count calls and edges; too many of them are a fault of the file."""
        self._work += work
        if self._work > 10 * MOST_CALLS or len(self._asked) >= MOST_CALLS:
            what, expected = "a session is endless", f"at most {MOST_CALLS:,} calls and some ten edges a call"
            raise TraceError(what, where=self._index.where(self._root), expected=expected, found="more")

    def _pause(self, frame: _Frame) -> None:
        """A turn that asks nothing: what follows it waits for what it waited for."""
        frame.front = self._waited(frame)

    def _ask(self, frame: _Frame) -> None:
        """A turn that is a call."""
        template, place = frame.template, len(self._asked)
        brought = template.items[frame.turn]
        fresh = template.mode == ARRAYS or frame.base is None
        gap: Gap = "tool" if any(item.role == "tool" for item in brought) else "none"
        if frame.turn == 0 and frame.above is not None and frame.agent != frame.above.agent:
            gap = "spawn"
        edges = tuple(Edge(f"c{call}", wait_s, gap) for call, wait_s in self._waited(frame))
        inherit, node, answers, had = None, self._top, None, 0
        if not fresh and frame.base is not None:
            inherit, node, had = self._context(frame.base, frame.base_mode)
            if frame.base_mode == CANNED and brought and brought[0].role == "assistant":
                answers = f"c{frame.base}"
        brings = []
        for number, item in enumerate(brought):
            node = self._below(node, item)
            node.introduced += 1
            if fresh and number < LEADING and self._index.shared(frame.name, node.history):
                node.everywhere = True
            brings.append(node)
        tokens = had + sum(item.tokens for item in brought)
        output = template.outputs[frame.turn]
        model = template.models[frame.turn]
        self._asked.append(_Asked(frame.agent, model, output, edges, inherit, brings, tokens, answers))
        self._ends.append(node)
        frame.front, frame.base, frame.base_mode = [(place, 0.0)], place, template.mode

    def _context(self, base: int, mode: str | None) -> tuple[Inherit, _Node, int]:
        """What a prompt has that goes on behind a call: with its answer, or in other modes without."""
        before = self._asked[base]
        if mode in (CANNED, ARRAYS):
            return Inherit(f"c{base}", before.tokens), self._ends[base], before.tokens
        answer = Item(digest(b"answer", str(base).encode()), before.output or USUAL_OUTPUT, "assistant")
        return Inherit(f"c{base}"), self._below(self._ends[base], answer), before.tokens + answer.tokens

    def _below(self, node: _Node, item: Item) -> _Node:
        found = node.below.get(item.digest)
        if found is None:
            found = node.below[item.digest] = _Node(digest(node.history, item.digest), item)
        return found

    def _branch(self, frame: _Frame, branch: Branch, front: list[tuple[int, float]] | None = None) -> _Frame:
        """A conversation below a turn. The only fork, or only branch, of a last turn is the same agent going on."""
        template = self._template(branch.child)
        beside = frame.template.branches[frame.turn]
        last = frame.turn + 1 == len(frame.template.branches) and frame.template.asks and front is None
        if last and (len(beside) == 1 or (branch.fork and sum(other.fork for other in beside) == 1)):
            agent = frame.agent
        else:
            self._agents += 1
            agent = f"{'fork' if branch.fork else 'spawn'}:{self._agents}"
        base = frame.base if branch.fork else None
        front = frame.front if front is None else front
        self._spend(len(front))
        return _Frame(branch.child, template, agent, list(front), base, frame.base_mode, frame, branch.joined_at)

    def _call(self, place: int, asked: _Asked) -> Call:
        """The call itself, now that all who bring its messages are known."""
        spans: list[Span] = []
        parts: list[Part] = []
        for number, node in enumerate(asked.brings):
            assert node.item is not None
            if node.introduced > 1 or node.everywhere:
                if self._intake.text:
                    self._intake.report.drop("texts of messages that several prompts begin with, kept as shared spans")
                spans.append(Span(node.history.hex(), node.item.tokens, "trace" if node.everywhere else "session"))
            else:
                parts.append(self._part(node.item, asked.answers if number == 0 else None))
        if asked.output is None:
            self._intake.report.infer(f"answers without max_tokens, taken to be {USUAL_OUTPUT} tokens")
        said = (("prompt_tokens", bool(spans or parts)), ("output_tokens", asked.output is None))
        return Call(
            id=f"c{place}",
            output_tokens=USUAL_OUTPUT if asked.output is None else asked.output,
            after=asked.edges,
            agent=asked.agent,
            model=asked.model,
            inherit=asked.inherit,
            spans=tuple(spans),
            fresh=tuple(parts),
            recorded=Recorded(estimated=tuple(name for name, estimated in said if estimated)),
        )

    def _part(self, item: Item, answers: str | None) -> Part:
        kind = _ROLES.get(item.role, "definition" if item.role in _DEFINED else "user")
        name = item.name if kind == "tool" else _DEFINED.get(item.role)
        text = item.says if self._intake.text else None
        return Part(kind, item.tokens, name, None, answers if kind == "answer" else None, text)
