"""The lines of an AIPerf `dag_jsonl` file, and what branches where. See :mod:`workloom.traces.aiperf_dag`."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workloom.traces.aiperf_dag.text import count
from workloom.traces.turns import estimate

MOST_CALLS = 20_000
"""Of one session: branches may be named by several turns, so a small file can stand for endless work."""
Tokens = Annotated[int, Meta(ge=1, le=1 << 40)]
Turns = Annotated[int, Meta(ge=0, le=MOST_CALLS)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Name = Annotated[str, Meta(min_length=1)]


class Piece(Struct, gc=False):
    """A piece of a message: text, or something else."""

    type: str = "text"
    text: str | None = None


class Message(Struct, gc=False):
    """One message; `tool_calls` as they stand."""

    role: str
    content: str | list[Piece | str] | None = None
    name: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class Fork(Struct, gc=False):
    """A branch that begins with all its parent had; without `background` it ends its parent."""

    child: Name
    background: bool = False


class Spawn(Struct, gc=False):
    """Branches that begin with nothing; turn `join_at` waits for them."""

    children: Annotated[list[Name], Meta(min_length=1)]
    join_at: Turns | None = None


class Turn(Struct, gc=False):
    """A request; `delay` in milliseconds."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str | None = None
    max_tokens: Tokens | None = None
    tools: msgspec.Raw = msgspec.Raw()
    forks: list[str | Fork] = []
    spawns: list[str | Spawn] = []
    delay: Milliseconds = 0.0


class Round(Struct, gc=False):
    """A round of an orchestrator."""

    spawns: Annotated[list[Name], Meta(min_length=1)]
    think_time_ms: Milliseconds | None = None


class Row(Struct, gc=False):
    """A line: a conversation, or an orchestrator that only spawns."""

    session_id: Name
    turns: list[Turn] = []
    orchestrator: bool = False
    spawns: list[Name] = []
    think_time_ms: Milliseconds | None = None
    think_time_sigma: float | None = None
    rounds: Annotated[int, Meta(ge=1, le=MOST_CALLS)] | list[Round] | None = None
    context_mode: str | None = None
    pre_session_spawns: list[Name] = []


CANNED = "deltas_with_responses"
ARRAYS = "message_array_with_responses"
MODES = (None, "deltas_without_responses", CANNED, ARRAYS)

decoder = msgspec.json.Decoder(Row)
KNOWN = sorted({name for noun in (Row, Turn, Message, Fork, Spawn, Round) for name in noun.__struct_fields__})


class Refused(Exception):
    """Something AIPerf's loader refuses: field, what it expects there, what it finds."""

    def __init__(self, field: str, expected: object, found: object) -> None:
        super().__init__(field)
        self.field, self.expected, self.found = field, expected, found


def check(row: Row) -> None:
    """Raise Refused for the first thing about a line that cannot be."""
    if row.orchestrator:
        rounds = row.rounds
        if row.turns:
            raise Refused("turns", "none, in an orchestrator", len(row.turns))
        if not row.spawns and not (isinstance(rounds, list) and rounds):
            raise Refused("spawns", "at least one, in an orchestrator", "none")
        if isinstance(rounds, int) and rounds * len(row.spawns) > MOST_CALLS:
            raise Refused("rounds", f"at most {MOST_CALLS:,} branches", rounds * len(row.spawns))
    elif not row.turns:
        raise Refused("turns", "at least one", "none")
    if row.context_mode not in MODES:
        raise Refused("context_mode", " | ".join(mode for mode in MODES if mode), row.context_mode)
    for index, turn in enumerate(row.turns):
        _check_turn(index, turn, len(row.turns))


def _check_turn(index: int, turn: Turn, turns: int) -> None:
    """A fork that ends its parent stands on the last turn; a join comes later; a child is named once."""
    forks = [Fork(fork) if isinstance(fork, str) else fork for fork in turn.forks]
    for fork in forks:
        if not fork.background and index + 1 < turns:
            raise Refused(f"turns[{index}].forks", "background forks, or forks of the last turn", "a fork that ends it")
    spawned: list[str] = []
    for spawn in turn.spawns:
        if isinstance(spawn, Spawn):
            if spawn.join_at is not None and not index < spawn.join_at < turns:
                raise Refused(f"turns[{index}].spawns.join_at", f"a turn behind {index}, of {turns}", spawn.join_at)
            spawned += spawn.children
        else:
            spawned.append(spawn)
    for name, children in (("forks", [fork.child for fork in forks]), ("spawns", spawned)):
        if len(set(children)) != len(children):
            raise Refused(f"turns[{index}].{name}", "every child once", f"one of {len(children)} again")


class Branch(Struct, gc=False):
    """A child of a turn. `joined_at`: the turn that waits for it."""

    child: str
    fork: bool
    joined_at: int | None = None


def branches(row: Row) -> list[list[Branch]]:
    """The branches of every turn; an orchestrator's turns ask nothing."""
    if row.orchestrator:
        if row.rounds is None:
            return [[Branch(child, False) for child in row.spawns]]
        return [
            *([Branch(child, False, i + 1) for child in spawns] for i, (spawns, _) in enumerate(_rounds(row))),
            [],
        ]
    out = []
    for index, turn in enumerate(row.turns):
        following = index + 1 if index + 1 < len(row.turns) else None
        mine = [Branch(fork if isinstance(fork, str) else fork.child, True) for fork in turn.forks]
        for spawn in turn.spawns:
            if isinstance(spawn, str):
                mine.append(Branch(spawn, False, following))
            else:
                joined_at = following if spawn.join_at is None else spawn.join_at
                mine += [Branch(child, False, joined_at) for child in spawn.children]
        out.append(mine)
    return out


def think_times(row: Row) -> list[float]:
    """Milliseconds before each turn of an orchestrator."""
    return [0.0] if row.rounds is None else [*(delay for _, delay in _rounds(row)), 0.0]


def _rounds(row: Row) -> list[tuple[list[str], float]]:
    usual = row.think_time_ms or 0.0
    if isinstance(row.rounds, list):
        return [(r.spawns, usual if r.think_time_ms is None else r.think_time_ms) for r in row.rounds]
    return [(row.spawns, usual)] * (row.rounds or 1)


def told(raw: msgspec.Raw) -> bool:
    """Whether there is something in a field that is kept as it stands."""
    return bytes(raw) not in (b"", b"null", b"[]")


def text_of(message: Message) -> tuple[str, int]:
    """What a message says, tool calls included, and how many of its pieces are no text."""
    says = message.content if isinstance(message.content, str) else ""
    other = 0
    if isinstance(message.content, list):
        texts = [piece if isinstance(piece, str) else piece.text for piece in message.content]
        other = sum(text is None for text in texts)
        says = "\n".join(text for text in texts if text is not None)
    if told(message.tool_calls):
        says += bytes(message.tool_calls).decode("utf-8", "replace")
    return says, other


class Item(Struct, gc=False):
    """A message, or the tool definitions, as it counts in a prompt. `digest` tells equal ones."""

    digest: bytes
    tokens: int
    role: str
    name: str | None = None
    says: str = ""


def items(turn: Turn, *, tools: bool) -> tuple[list[Item], int]:
    """What a turn adds to the prompt, tool definitions first, and how many pieces of it are no text."""
    out: list[Item] = []
    others = 0
    if tools and told(turn.tools):
        says = bytes(turn.tools).decode("utf-8", "replace")
        out.append(Item(digest(b"tools", _bytes(says)), estimate(len(says)), "tools", says=says))
    for message in turn.messages:
        says, other = text_of(message)
        others += other
        tokens = count(says)
        if tokens:
            known = digest(_bytes(message.role), _bytes(says))
            out.append(Item(known, tokens, message.role, message.name, says))
    return out, others


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def digest(*pieces: bytes) -> bytes:
    """Equal for equal pieces; the names of shared texts are made of it."""
    return blake2b(b"\0".join(pieces), digest_size=12).digest()
