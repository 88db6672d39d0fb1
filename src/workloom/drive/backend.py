"""The seam between the driver and whatever answers: one method; the network and the simulator are equals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from msgspec import Struct

from workloom.prompt import Prompt
from workloom.records import ChunkRun, Outcome, Phase


class Request(Struct, frozen=True, gc=False):
    """One call, ready to be sent.

    `prompt` says which texts, `output_tokens` how many tokens to ask for (1 or more), `stop_after` after how many to
    hang up. `name` is ``instance/call``; `session_key` is equal for all calls of one session instance. `recorded_s`:
    how long the call took in the trace, where that tells.
    """

    name: str
    instance: int
    session_key: str
    agent: str
    model: str
    prompt: Prompt
    output_tokens: int
    stop_after: int | None = None
    phase: Phase = "run"
    repeated: bool = True
    """Later prompts repeat the answer that comes; else words of our own stand for it, and no cache can find them."""
    recorded_s: float | None = None


class Backend(Protocol):
    """Something that answers calls.

    `call` returns when the stream has ended. It raises BackendError for a call that failed. When its task is cancelled
    (a time-out, the end of the run) it stops the work on the other side, frees what it holds and lets the cancellation
    pass; chunks that came until then have been handed to `on_chunk`.
    """

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome: ...


Ended = Callable[[Outcome | BaseException], None]
"""Hears once what became of a call, on a turn of the loop of its own: an exception is what `call` would have raised."""


class Sent(NamedTuple):
    """What is known of a call whatever became of it."""

    target: str
    served_model: str
    prompt_tokens: int
    asked_output_tokens: int | None
    bytes: int
    retries: int


class UnderWay(Protocol):
    """A call that was begun. One that has a method `sent` says with it, as :class:`Sent`, what was sent."""

    def cancel(self) -> object:
        """Give it up: `Ended` soon hears a CancelledError, unless the call had just come to its end."""
        ...


Begin = Callable[[Request, Callable[[ChunkRun], None], Ended], UnderWay]
"""Begins a call, as :meth:`Backend.call` with a callback at its end: for backends to which a task a call is dear."""


def begin_of(backend: Backend) -> Begin:
    """How calls are begun: the backend's own `begin` where it has one, else with a task for each."""
    own: Begin | None = getattr(backend, "begin", None)
    return own if own is not None else partial(_begin_task, backend)


def _begin_task(
    backend: Backend, request: Request, on_chunk: Callable[[ChunkRun], None], on_end: Ended
) -> asyncio.Task[Outcome]:
    async def call() -> Outcome:
        return await backend.call(request, on_chunk)

    task = asyncio.create_task(call(), name=request.name)
    task.add_done_callback(partial(_tell, on_end))
    return task


def _tell(on_end: Ended, task: asyncio.Task[Outcome]) -> None:
    if task.cancelled():
        on_end(asyncio.CancelledError())
    else:
        on_end(task.exception() or task.result())
