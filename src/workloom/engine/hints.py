"""What a call may say about itself to those who schedule and route it. Never the future."""

from __future__ import annotations

from msgspec import Struct


class Hints(Struct, frozen=True, gc=False):
    """Optional; an engine without a use for them gives the same results without."""

    model: str = ""
    """The served model it asks for; empty: the only one."""
    session: str = ""
    """Equal for the calls of one session."""
    role: str = ""
    """The agent that asks."""
    workflow: str = ""
    priority: int = 0
    """Lower is more urgent, as vLLM has it."""
    expected_output_tokens: float | None = None
    """What calls like this one gave so far, on average."""
    pin_tokens: int = 0
    """Of the prompt's first tokens, those to be kept for later calls."""


NO_HINTS = Hints()
