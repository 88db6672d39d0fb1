"""A call of the reference, a step, and what came of a call."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from reference.pool import Block, Name
from reference.tiers import SlowTier
from workloom.engine.hints import NO_HINTS, Hints

Token = tuple[int, int]
"""(number of the text, place in it): equal tokens behind equal tokens are equal text."""


@dataclass
class Finished:
    """How a call ended; `done_ps` of a cancelled call is when the cancel took effect."""

    first_ps: int | None
    token_times_ps: list[int]
    done_ps: int
    cached_tokens: int
    """Prompt tokens found in the cache at its first admission; 0 if it never was admitted."""
    preemptions: int
    cancelled: bool
    queued_ps: int = 0
    """When it left, or would have left, the front end."""
    admitted_ps: int | None = None
    """When the first step that computed something of it began."""


@dataclass
class Step:
    """What one step did, in the letters of DESIGN.md."""

    start_ps: int
    end_ps: int = 0
    launched_ps: int = field(default=0, compare=False)
    """When the CPU had launched it."""
    n: int = 0
    """Prefill tokens, recomputed ones too."""
    B: int = 0
    """Decoding calls that got their token's turn."""
    pairs: int = 0
    ctx: int = 0
    admitted: list[Hashable] = field(default_factory=list)
    """New and resumed calls, in order."""
    preempted: list[Hashable] = field(default_factory=list)


@dataclass
class Saved:
    """What a swapped call had computed, in pages of the first tier."""

    computed: int
    decoding: bool
    pages: int
    ready_ps: int
    """When they are written."""


@dataclass(eq=False)
class Call:
    id: Hashable
    tokens: list[Token]
    """Prompt and the tokens generated so far."""
    prompt: int
    answer: int
    outputs: int
    hints: Hints = NO_HINTS
    exit_ps: int = 0
    """When it leaves the front end."""
    arrival: int = 0
    """Its place among those that left the front end."""
    computed: int = 0
    goal: int = 0
    """Tokens to compute before it decodes: all it had when it was (last) admitted."""
    given: int = 0
    """Tokens it computes in the step in progress."""
    table: list[Block] = field(default_factory=list)
    """Its KV blocks, in order."""
    pages: list[Block] = field(default_factory=list)
    """One page for each state group: what it knows behind its last computed token."""
    spent: list[Block] = field(default_factory=list)
    """The pages from which the last step began, if it wrote to others: at the end of the block before."""
    taken: int = 0
    """How many of `table` it took for the step in progress."""
    reads: list[tuple[SlowTier, Name]] = field(default_factory=list)
    """What it waits for from tiers: the last blocks of `table`, then perhaps `pages`."""
    loaded_ps: int = 0
    """When all of that is there."""
    saved: Saved | None = None
    """What is kept of it since it was preempted."""
    joined: bool = False
    """Loaded, and nothing computed since."""
    told: int = 0
    """How many of `table` the tiers that write through have been told of."""
    merged: set[int] = field(default_factory=set)
    """Of `table`, those that were another's copy already: they became findable when that did."""
    names: list[int] = field(default_factory=list)
    made: int = 0
    """Tokens of its answer that steps have made; `times` follows when they are delivered."""
    times: list[int] = field(default_factory=list)
    cached: int | None = None
    admitted_ps: int | None = None
    preemptions: int = 0
    preempted_as: int = 0
    """The number of its last preemption among all; 0 if there was none."""

    @property
    def prefilling(self) -> bool:
        return self.computed < self.goal
