"""What the lines of a session are put together to: calls, the agents that made them, and what was said in between."""

from __future__ import annotations

from workloom.session import PartKind

SPAWNERS = ("Task", "Agent")


class Item:
    """A piece of text that calls answer. `about`: the subagent it tells of; `human`: the user wrote it."""

    __slots__ = ("about", "at_s", "chars", "human", "kind", "pictures", "text", "used")

    def __init__(self, kind: PartKind, at_s: float, human: bool = False) -> None:
        self.kind = kind
        self.at_s = at_s
        self.human = human
        self.chars = 0
        self.pictures = 0
        self.text: str | None = None
        self.about: str | None = None
        self.used = False


class Use:
    """A tool call. `spawns`: it starts a subagent; `agent`: which one; `prompt`: digest of what that was asked."""

    __slots__ = ("agent", "at_s", "call", "collects", "name", "prompt", "result", "spawns", "type")

    def __init__(self, call: Call, name: str, at_s: float) -> None:
        self.call = call
        self.name = name
        self.at_s = at_s
        self.spawns = name in SPAWNERS
        self.agent: Agent | None = None
        self.collects: str | None = None
        self.prompt: bytes | None = None
        self.type: str | None = None
        self.result: Result | None = None


class Result:
    """What a tool call brought. `agent_id`: the subagent whose report it is; `launched`: it only says that one runs."""

    __slots__ = ("agent_id", "item", "launched", "use")

    def __init__(self, use: Use, item: Item) -> None:
        self.use = use
        self.item = item
        self.agent_id: str | None = None
        self.launched = False


class Call:
    """One API call. Instants are epoch seconds; `outputs` the output counts that its lines tell."""

    __slots__ = (
        "aborted", "agent", "answer", "boundary", "cached", "chars", "elsewhere", "file", "first_s", "items", "last_s",
        "lines", "model", "outputs", "previous", "prompt", "reset", "results", "uses",
    )  # fmt: skip

    def __init__(self, agent: Agent, model: str, file: int, at_s: float) -> None:
        self.agent = agent
        self.model = model
        self.file = file
        self.first_s = self.last_s = at_s
        self.prompt = self.cached = self.chars = self.lines = 0
        self.outputs: list[int] = []
        self.uses: list[Use] = []
        self.answer: list[str] = []
        self.aborted = False
        self.previous: Call | None = None
        self.reset = False
        """Whether it begins a new context though its agent had one before."""
        self.elsewhere = False
        """Whether what it continues is told by another session's file."""
        self.boundary: Boundary | None = None
        self.items: list[Item] = []
        self.results: list[Result] = []


class Agent:
    """A conversation. `prompt`: digest of its first text; `special`: what the program runs it for, if it says so.

    `use`: the tool call that started it; `again`: those that sent it to work once more.
    """

    __slots__ = ("again", "calls", "id", "last", "prompt", "special", "start_s", "use")

    def __init__(self, id: str | None, special: str | None = None) -> None:
        self.id = id
        self.special = special
        self.calls: list[Call] = []
        self.last: Node | None = None
        self.prompt: bytes | None = None
        self.start_s: float | None = None
        self.use: Use | None = None
        self.again: list[Use] = []


class Boundary:
    """The end of a context: `by`, found later, is the agent that wrote its summary."""

    __slots__ = ("agent", "at_s", "by", "manual")

    def __init__(self, agent: Agent, at_s: float, manual: bool) -> None:
        self.agent = agent
        self.at_s = at_s
        self.manual = manual
        self.by: Agent | None = None


class Node:
    """A line's place in the tree."""

    __slots__ = ("agent", "boundary", "call", "elsewhere", "items", "parent", "reset", "said")

    def __init__(self, agent: Agent, parent: Node | None) -> None:
        self.agent = agent
        self.parent = parent
        self.call: Call | None = None
        self.items: tuple[Item, ...] = ()
        self.said = False
        """Whether it is a user line."""
        self.reset = False
        self.elsewhere = False
        self.boundary: Boundary | None = None
