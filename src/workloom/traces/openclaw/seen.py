"""What a pi session file tells, in numbers: calls, what came in between, and the tree they stand in."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from workloom.session import Gap, Part, Status


class Event(NamedTuple):
    """The news that sessions (by key or id) are done."""

    names: tuple[str, ...]
    at_s: float


class Piece(NamedTuple):
    """Something that came into a prompt, its size estimated."""

    part: Part
    event: Event | None = None


class Observed(Struct, eq=False):
    """A call as its file tells it; instants in seconds since 1970.

    `after`: what it waited for, whatever became of that; `base`: the last answered call above it. `events`: those
    since `after`; `ready_s`: when the last of its other inputs was there. `compacted`: a summary stands first among
    its pieces in place of the history. `scaffold`: hidden tokens of its agent's first prompt. `thinks`: it reasoned.
    """

    after: Observed | None
    base: Observed | None
    start_s: float
    end_s: float
    prompt: int
    cached: int
    output: int
    reasoning: int
    status: Status
    model: str
    pieces: tuple[Piece, ...]
    events: tuple[Event, ...]
    compacted: bool
    scaffold: int
    ready_s: float | None
    gap: Gap
    thinks: bool
    answer: str | None
    id: str = ""
    thought: int | None = None


class Step(Struct, eq=False):
    """An entry in the tree. `call` and `base`: as of here, this entry included; `own`: whether it is that call."""

    above: Step | None
    at_s: float
    model: str
    call: Observed | None
    base: Observed | None
    own: bool = False
    piece: Piece | None = None
    gap: Gap | None = None
    compaction: bool = False


class Spawn(NamedTuple):
    """A tool result that names the session it started, and the call that asked for it."""

    name: str
    call: Observed | None


class Transcript(Struct, eq=False):
    """What a file says. `copied`: entries that the file it was forked from holds too."""

    id: str
    calls: list[Observed]
    spawns: list[Spawn]
    steps: dict[str, Step]
    copied: int = 0
