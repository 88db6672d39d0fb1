"""A call inside the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloom.engine.hints import NO_HINTS, Hints
from workloom.prefix import Key

if TYPE_CHECKING:
    from workloom.engine.blocks import Run
    from workloom.engine.loading import Load, Saved
    from workloom.engine.node import Node

UNBOUNDED = 1 << 60


class Hold:
    """Findable blocks a sequence holds: `run` and, if it was split since, its right parts, up to block `end`."""

    __slots__ = ("end", "run")

    def __init__(self, run: Run, end: int) -> None:
        self.run, self.end = run, end


def parts(hold: Hold) -> list[Run]:
    """The runs a hold is of: it was one, which may have been split since."""
    runs = [hold.run]
    while runs[-1].end < hold.end:
        right = runs[-1].right
        assert right is not None
        runs.append(right)
    return runs


class Sequence:
    """A prompt on its way to an answer.

    `computed` tokens have their KV; `tokens` must have it before the next token of the answer can come. While a
    sequence decodes, `computed` is not counted up step by step: it is the scheduler's `ticks` + `lag`.
    """

    __slots__ = (
        "admitted_ps",
        "cached_tokens",
        "call",
        "computed",
        "cursor",
        "ends",
        "external_tokens",
        "fetched",
        "finish_tick",
        "generated",
        "hints",
        "holds",
        "ids",
        "lag",
        "load",
        "order",
        "output_tokens",
        "page",
        "preemptions",
        "prompt_tokens",
        "queued_ps",
        "received",
        "registered",
        "saved",
        "since",
        "spells",
        "spent",
        "state",
    )

    def __init__(self, call: str, key: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS) -> None:
        self.call = call
        self.hints = hints
        self.ids = (*key.ids, answer)
        self.ends = (*key.ends, UNBOUNDED)
        self.prompt_tokens = key.tokens
        self.output_tokens = output_tokens
        self.generated = 0
        self.computed = 0
        self.received = False
        """Whether the KV of its prompt came from another engine and has no blocks yet."""
        self.lag = 0
        self.since = 0
        """The step that made the first token of the present decoding spell."""
        self.spells: list[tuple[int, int]] = []
        """Earlier decoding spells, as ranges of steps (a preemption ends one)."""
        self.finish_tick = -1
        self.order = -1
        self.state = "front end"
        self.queued_ps = 0
        """When it left the front end and began to wait."""
        self.admitted_ps: int | None = None
        """When the first step that computed anything of it began."""
        self.cached_tokens: int | None = None
        self.external_tokens = 0
        """Of these, those that were read from tiers."""
        self.preemptions = 0
        self.holds: list[Hold] = []
        self.page: Run | None = None
        """The state pages it computes on, or those it was hit at."""
        self.spent: Run | None = None
        """Those of the block before, held until the step that begins from them is over."""
        self.registered = 0
        self.fetched: tuple[tuple[str, int], ...] = ()
        """Of the tokens it hit when it was admitted last, those read from tiers, by name."""
        self.load: Load | None = None
        """Blocks of it that are on their way from a tier."""
        self.saved: Saved | None = None
        """What it had computed when it was preempted, kept in a tier."""
        self.cursor: tuple[int, Node, int, int]

    @property
    def tokens(self) -> int:
        """Tokens to be computed before the next token of the answer: the prompt and what was generated."""
        return self.prompt_tokens + self.generated
