"""Everything workloom raises on purpose.

    WorkloomError
    ├── UsageError            a wrong option, name or combination of them
    ├── TraceError            a trace that is not what its format promises
    ├── WorkloadError         a workload file that is malformed, or a trace that no workload can be fitted to
    ├── PlanError             a plan that cannot be made or does not match its workload
    ├── ProfileError          an engine profile that is unknown or malformed
    ├── EngineError
    │   └── Refused           a request the engine can never serve (too long, no room)
    ├── BackendError          a call that failed; `kind` is what the record says
    ├── Hopeless              a run ended early, because its target answers nothing or fails too often
    ├── StoreError            a run directory that is missing, in use or damaged
    └── Deadlock              virtual time with tasks waiting and nothing scheduled

Each says what happened, where, what was expected, what was found and what to do about it; the
command line prints exactly that and exits with a non-zero status.
"""

from __future__ import annotations


class WorkloomError(Exception):
    """A fault with enough said to mend it.

    `what` is one sentence; `where` names file, line, field, call or option; `hint` is an action.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(WorkloomError):
    """A wrong option, name or combination of them."""


class TraceError(WorkloomError):
    """A trace that is not what its format promises."""


class WorkloadError(WorkloomError):
    """A workload file that is malformed, or a trace that no workload can be fitted to."""


class PlanError(WorkloomError):
    """A plan that cannot be made or does not match its workload."""


class ProfileError(WorkloomError):
    """An engine profile that is unknown or malformed."""


class EngineError(WorkloomError):
    """The simulated engine was asked for something it cannot do."""


class Refused(EngineError):
    """A request the engine can never serve: too long, or larger than its whole KV cache."""


class BackendError(WorkloomError):
    """A call that failed. `kind` is one word for the record:

    connect            no connection was to be had
    disconnect         the server closed the connection without one byte of an answer
    http_status        it answered with a status that is no success, or reported an error with 200
    context_overflow   the call is longer than the context (of the simulated engine: or than its KV cache)
    malformed          what came is no HTTP, no event stream or no event of an answer
    truncated          the stream ended in the middle of the answer
    empty              the answer came to its end and held nothing: no content, reasoning or tool call
    """

    def __init__(
        self,
        kind: str,
        what: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        """What the server's Retry-After asked for."""
        self.retries = 0
        """How often it had been sent again."""
        self.sent_ns: int | None = None
        """When the call had left, in the time of the run; None: it never did."""
        super().__init__(what, hint=hint)


class Hopeless(WorkloomError):
    """A run that was ended early: its target answers nothing, or fails more often than was allowed."""


class StoreError(WorkloomError):
    """A run directory that is missing, in use or damaged."""


class Deadlock(WorkloomError):
    """Virtual time stands still: tasks wait and nothing is scheduled that could wake them."""


def nearest(name: str, known: list[str]) -> str | None:
    """The known name closest to `name`, or None when none is close."""
    import difflib

    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return found[0] if found else None
