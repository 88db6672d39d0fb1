"""What an engine did, as it did it: enough to work out every figure of a run again.

An engine that is given a listener tells it these in the order in which they were decided. Instants are picoseconds of
the run; `start_ps` of steps rises, and what happened at a boundary follows the steps that ended there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple


class Queued(NamedTuple):
    """A call left the front end and waits."""

    at_ps: int
    call: str
    prompt_tokens: int
    output_tokens: int


class Admitted(NamedTuple):
    """A call was given blocks, in the step that begins then: what it need not compute, and where that came from."""

    at_ps: int
    call: str
    cached_tokens: int
    """From the GPU's own blocks and from tiers."""
    fetched: tuple[tuple[str, int], ...] = ()
    """Of these, tokens by the tier they were read from."""


class Received(NamedTuple):
    """A call whose prompt and first token another engine made was given blocks, and decodes in the step that begins
    then. Of one step these are told among those admitted, in the order in which blocks were given."""

    at_ps: int
    call: str
    held_tokens: int
    """Of its prompt, those whose blocks were here already: they are shared, the others were taken for what came."""


class Ran(NamedTuple):
    """`steps` equal steps: step i (from 0) takes first_ps + i*slope_ps. Told when the last of them is over."""

    start_ps: int
    first_step: int
    steps: int
    first_ps: int
    slope_ps: int
    decodes: int
    context_tokens: int
    """Of the first of them."""
    prefills: tuple[tuple[str, int, int], ...]
    """(call, tokens of its chunk in each step, tokens before the first chunk)."""
    admitted: int
    launch_ps: int = 0
    """What was left at the start, scheduling ahead, of the launch of each."""
    tokens: int = 1
    """What each decoding call got in each of them (more than one: speculation). Steps are counted by tokens."""
    joined: int = 0
    """Calls that had loaded from a tier and go on here: they are launched like newly admitted ones."""
    paused: bool = False
    """Whether decoding calls stood still (prefills first)."""


class Preempted(NamedTuple):
    """A running call gave its place up; `saved_tokens` of its KV are kept in the first tier (swap), else none."""

    at_ps: int
    call: str
    saved_tokens: int = 0


class Evicted(NamedTuple):
    """Findable blocks that were taken for something else."""

    at_ps: int
    """The start of the step they were taken for; of those after the first of equal steps, the end of the last."""
    blocks: int


class Ended(NamedTuple):
    at_ps: int
    """The step boundary at which its blocks came free; its last tokens may be delivered later."""
    call: str
    status: Literal["done", "cancelled"]
    output_tokens: int


Event = Queued | Admitted | Received | Ran | Preempted | Evicted | Ended
Listener = Callable[[Event], None]
