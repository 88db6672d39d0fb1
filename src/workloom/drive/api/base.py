"""What one API is: where it listens, how a prompt is framed, how outputs are asked for, how answers are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from workloom.drive.frame import Frame
from workloom.drive.sse import Answer

OutputMode = Literal["exact", "cap", "free"]
"""exact: as many tokens as planned, no more and no fewer. cap: at most so many. free: as the model likes."""


class Api(Struct, frozen=True):
    """One API of servers; a new one is one file with such a value and one entry in :data:`workloom.drive.api.APIS`."""

    name: str
    path: str
    """Behind the base URL, which ends in ``/v1``."""
    frame: Frame
    answers: type[Answer]
    prompt_fields: tuple[str, ...]
    """Body fields that the prompt is written in."""
    limit_field: str
    """Asks for at most so many tokens."""
    stream_fields: Mapping[str, Any]
    """Ask for a stream, with usage."""
    key_header: tuple[str, str] = ("Authorization", "Bearer ")
    """The header that carries an API key, and what stands before the key."""
    headers: Mapping[str, str] = {}
    needs_limit: bool = False
    """True when a request without a limit is refused, or cut off after a few tokens."""
