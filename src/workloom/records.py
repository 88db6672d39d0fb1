"""What a run leaves behind: instants, never durations.

Instants are integer nanoseconds since the start of the run. Durations (TTFT, TBC, ...) are derived once, in
:mod:`workloom.metrics`.

None of these can be part of a cycle, so the garbage collector need not know them (`gc=False`): a look at the chunks of
256 streams would hold all streams up for milliseconds.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from workloom.session import Gap

CallStatus = Literal["ok", "error", "timeout", "cancelled", "censored"]
"""ok: the whole answer came. error: the backend failed (see error_kind). timeout: the total time-out ended it.
cancelled: a call it depends on failed, so it was never sent. censored: in flight when the run ended."""


Phase = Literal["warmup", "run"]
"""warmup: sent before the measured window, to put a session's earlier context into the server's cache."""


class ChunkRun(Struct, frozen=True, array_like=True, gc=False):
    """`count` chunks of `tokens_each` tokens: chunk i arrives at first + i*gap + slope*i*(i-1)/2 (nanoseconds).

    So gap i (between chunk i and i+1) is gap + i*slope: one run says thousands of tokens of a growing context.
    HTTP sends runs with one instant per read; the engine one run for a whole leap.
    """

    first_ns: int
    gap_ns: float
    slope_ns: float
    count: int
    tokens_each: int

    def at(self, i: int) -> int:
        """The instant of chunk i, in nanoseconds."""
        return round(self.first_ns + i * self.gap_ns + self.slope_ns * (i * (i - 1) // 2))

    @property
    def last_ns(self) -> int:
        return self.at(self.count - 1)


class Dependency(Struct, frozen=True, array_like=True, gc=False):
    """A call that had to be done first, by its place in the session, and how long after that the other was due.

    `wait_ns` is the edge's wait as this run took it: capped, and divided by its time scale.
    """

    ordinal: int
    wait_ns: int
    gap: Gap


class CallRecord(Struct, omit_defaults=True, gc=False):
    """One call of a run, whatever became of it. Tokens: planned by the plan, sent by us, counted by the server."""

    instance: int
    session: str
    call: str
    agent: str
    model: str
    status: CallStatus
    due_ns: int
    ordinal: int = 0
    """Index of the call in its session."""
    phase: Phase = "run"
    served_model: str = ""
    """The name it was asked for by."""
    target: str = ""
    """Which of several servers it was sent to."""
    after: list[Dependency] = []
    """Its edges. The calls of a session and their edges are its DAG: a run needs no trace beside it."""
    sent_ns: int | None = None
    """When its first byte left; of a call that was cut off, when it was handed to the backend; None: it never left."""
    admitted_ns: int | None = None
    """When the server began to compute it, where it says so (simulated engines do): before, it stood in queues."""
    first_ns: int | None = None
    """First chunk that carries content, reasoning or a tool call."""
    last_ns: int | None = None
    """Last such chunk."""
    done_ns: int | None = None
    """End of the stream: what dependants count from."""
    planned_prompt_tokens: int = 0
    planned_output_tokens: int = 0
    planned_fresh_tokens: int = 0
    """Of the planned prompt: neither inherited from an ancestor nor a named span."""
    asked_output_tokens: int | None = None
    """The most tokens that were asked for; None: as many as the server likes."""
    sent_prompt_tokens: int = 0
    """What was sent, by our own count (live answers and corrections make it differ from the plan)."""
    prompt_tokens: int | None = None
    """What the server counted."""
    cached_tokens: int | None = None
    """Prompt tokens the server took from its prefix cache, by its own count."""
    ideal_cached_tokens: int | None = None
    """Prompt tokens that an infinite cache would have held when the call was sent, by the plan."""
    ideal_prompt_tokens: int | None = None
    """Of how many: the prompt's length by the plan and the answers that came, corrections left out."""
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the output tokens, by the server's count."""
    finish: str | None = None
    """The server's finish reason, or `hangup` when the plan had us stop listening."""
    http_status: int | None = None
    """Of a failed call, where there was one."""
    error_kind: str | None = None
    error: str | None = None
    cause: str | None = None
    """Of a cancelled call: the id of the call that failed."""
    connection_reused: bool | None = None
    resent: bool = False
    """Sent again on a new connection, because the server had closed the kept one."""
    retries: int = 0
    """How often it was sent again after it had failed, where that was asked for. `sent_ns` is of the last time."""
    connect_ns: int = 0
    """Of the time from due to sent, what it took to get a new connection: the network's and the server's, not ours."""
    bytes_sent: int | None = None
    bytes_received: int | None = None
    chunks: list[ChunkRun] = []


class SessionRecord(Struct, omit_defaults=True, gc=False):
    """One session tree of a run."""

    instance: int
    session: str
    status: Literal["ok", "failed", "censored"]
    due_ns: int
    start_ns: int
    end_ns: int
    calls: int
    calls_ok: int = 0
    calls_before: int = 0
    """Calls that were over when its part of the run began: such a session has no makespan."""
    user: str | None = None
    workflow: str | None = None


class Outcome(Struct, omit_defaults=True, gc=False):
    """What a backend says of a call that came to its end. Chunks have gone to on_chunk before."""

    done_ns: int
    sent_ns: int
    """When the first byte left (HTTP) or the engine was handed the call (simulation)."""
    sent_prompt_tokens: int | None = None
    """What was sent, by the backend's own count, where it is not the plan's."""
    asked_output_tokens: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    finish: str | None = None
    answer: str | None = None
    """The answer's text that a history keeps, where there is one."""
    served_model: str = ""
    target: str = ""
    connection_reused: bool | None = None
    resent: bool = False
    retries: int = 0
    bytes_sent: int | None = None
    bytes_received: int | None = None
    connect_ns: int = 0
    admitted_ns: int | None = None


class ServerSample(Struct, omit_defaults=True):
    """One figure of a server at one instant, by the name the server (or vLLM) gives it."""

    at_ns: int
    name: str
    value: float
    replica: str = ""
