"""Sessions by number: a trace read once, packed into a spool file, and hashed.

Memory stays bounded whatever the trace: what is kept is one offset a session.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import IO

import msgspec
from msgspec.structs import replace

from workloom.errors import PlanError
from workloom.plan.context import Context, fit
from workloom.session import Call, Part, Session, prompt_tokens
from workloom.traces import Reading

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Session).decode
_MAIN = Call("", 0).agent
"""The default itself: the encoder leaves out what is identical, not what is equal."""


SMALL_BYTES, MOST_SMALL = 4096, 1024
"""Packed sessions up to so long, and so many of them, are kept unpacked."""


class Source:
    """The sessions of a trace that a plan can use, after its context limit."""

    def __init__(self, reading: Reading, context: Context) -> None:
        self.context = context
        self._file = tempfile.TemporaryFile(prefix="workloom-")  # noqa: SIM115 (open as long as the source lives)
        weakref.finalize(self, _drop, self._file)
        self._places: list[tuple[int, int]] = []
        self._small: dict[int, Session] = {}
        """Short sessions that were asked for: those that come by the thousand, again and again."""
        self.starts_s: list[float | None] = []
        self.common_clock = reading.header.common_clock
        self.sessions_read = self.calls_read = 0
        self.sessions_out = self.calls_out = self.calls_cut = self.zero_outputs = 0
        self.calls = 0
        self.longest_call = 0
        """Prompt + answer of the longest call that is left, tokens."""
        self._least: int | None = None
        """The limit that would have left one of the sessions in that are out, tokens."""
        digest = blake2b(digest_size=16)
        at = 0
        for session in reading:
            digest.update(_pack(_plain(session)))
            self.sessions_read += 1
            self.calls_read += len(session.calls)
            asked = _asked(session)
            fitted = fit(asked, context)
            self.calls_out += fitted.calls_left_out
            self.calls_cut += fitted.calls_cut
            if fitted.session is None:
                self.sessions_out += 1
                needed = _needed(asked, context)
                self._least = needed if self._least is None else min(self._least, needed)
                continue
            packed = _pack(fitted.session)
            self.calls += len(fitted.session.calls)
            kept = {call.id for call in fitted.session.calls}
            self.zero_outputs += sum(call.output_tokens == 0 and call.id in kept for call in session.calls)
            prompts = prompt_tokens(fitted.session)
            longest = max(prompts[call.id] + call.output_tokens for call in fitted.session.calls)
            self.longest_call = max(self.longest_call, longest)
            with _spooling():
                self._file.write(packed)
            self._places.append((at, len(packed)))
            self.starts_s.append(session.start_s)
            at += len(packed)
        with _spooling():
            self._file.flush()
        self.content_hash = digest.hexdigest()
        self.report = reading.report

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Session:
        session = self._small.get(index)
        if session is None:
            offset, length = self._places[index]
            session = _unpack(os.pread(self._file.fileno(), length, offset))  # no seek: forked workers share the file
            if length <= SMALL_BYTES and len(self._small) < MOST_SMALL:
                self._small[index] = session
        return session

    def require(self) -> None:
        """Raise PlanError when nothing is left to run."""
        if self._places:
            return
        if self.sessions_read == 0:
            raise PlanError("the trace holds no session", hint="look at it with `workloom inspect`")
        many = f"none of the {self.sessions_read:,} sessions" if self.sessions_read > 1 else "the only session does not"
        longest = "longest call of the least of them" if self.context.policy == "skip" else "shortest first call"
        cut = "" if self.context.policy == "cut" else ", or --context-policy cut"
        raise PlanError(
            f"{many} fit{'s' * (self.sessions_read > 1)} into the context",
            expected=f"calls of at most {self.context.max_tokens:,} tokens (prompt + answer)",
            found=f"{self._least:,} tokens in the {longest}",
            hint=f"--max-context {self._least} or more (with --engine: --max-model-len, --kv-tokens){cut}",
        )


def _needed(session: Session, context: Context) -> int:
    """The least context limit, in tokens, that leaves something of a session: its first call, or with `skip` all."""
    prompts = prompt_tokens(session)
    calls = session.calls
    if context.policy == "skip":
        return max(prompts[call.id] + call.output_tokens for call in calls)
    return min(prompts[call.id] + call.output_tokens for call in calls if not call.after)


@contextmanager
def _spooling() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise PlanError(
            f"the trace could not be spooled: {fault.strerror}",
            where=tempfile.gettempdir(),
            hint="make room there, or set TMPDIR to a directory with more",
        ) from fault


def _drop(file: IO[bytes]) -> None:
    """Close a spool that nobody reads any more; what could not be written of it was said when it could not."""
    with suppress(OSError):
        file.close()


def _plain(session: Session) -> Session:
    """The session with defaults that are spelled out left out, so that equal sessions have equal bytes."""
    if all(call.agent is _MAIN or call.agent != _MAIN for call in session.calls):
        return session
    calls = (replace(call, agent=_MAIN) if call.agent == _MAIN else call for call in session.calls)
    return replace(session, calls=tuple(calls))


def _asked(session: Session) -> Session:
    """The session as it is asked for: a recorded answer or prompt of no tokens becomes one of one."""
    if not all(call.output_tokens for call in session.calls):
        calls = (replace(call, output_tokens=max(1, call.output_tokens)) for call in session.calls)
        session = replace(session, calls=tuple(calls))
    while empty := [name for name, tokens in prompt_tokens(session).items() if tokens == 0]:
        filled = (
            replace(call, fresh=(*call.fresh, Part("user", 1))) if call.id == empty[0] else call
            for call in session.calls
        )
        session = replace(session, calls=tuple(filled))
    return session
