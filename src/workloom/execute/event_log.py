"""What the engines of a simulated run were handed and did, a JSON line each: enough to work out the run again.

The first line says which fleet; each other which replica, and what. Lines of one replica are in the order in which it
decided. The file is there when the run is over, whole: until then it is called `FILE.part`, and a run that breaks takes
that away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from workloom.engine.engine import Engine
from workloom.engine.events import Admitted, Ended, Event, Evicted, Preempted, Queued, Ran, Received
from workloom.engine.fleet import Fleet
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Profile
from workloom.errors import StoreError, UsageError
from workloom.prefix import Key


class Began(NamedTuple):
    """There is a replica: the first line of each. `profile` is what it runs by, its stage's part of the front end."""

    profile: Profile


class Submitted(NamedTuple):
    """A call was handed to a replica. Its prompt: text `ids[i]` up to token `ends[i]`; `answer`: its answer's."""

    at_ns: int
    call: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    answer: int
    output_tokens: int


class HandedOver(NamedTuple):
    """The same of a call whose prompt and first token another replica made; its KV is here."""

    at_ns: int
    call: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    answer: int
    output_tokens: int


Told = Event | Began | Submitted | HandedOver
KINDS: dict[str, type[Any]] = {
    "began": Began,
    "submitted": Submitted,
    "handed_over": HandedOver,
    "queued": Queued,
    "admitted": Admitted,
    "received": Received,
    "ran": Ran,
    "preempted": Preempted,
    "evicted": Evicted,
    "ended": Ended,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


class Head(Struct, frozen=True):
    """The first line."""

    workloom_events: int
    fleet: Fleet
    prefix_cache: bool


class EventLog:
    """Writes one. Use it as a context: left by an exception, nothing stays. Raises UsageError, StoreError."""

    def __init__(self, path: Path, head: Head) -> None:
        refuse_used(path)
        self.path, self._part = path, _part(path)
        self._encode = msgspec.json.Encoder().encode
        try:
            self._file = self._part.open("xb", buffering=1 << 20)
        except OSError as fault:
            raise _unwritable(path, fault) from fault
        self._write(head)

    def engine(self, replica: str, profile: Profile, prefix_cache: bool) -> Engine:
        """An engine that is logged."""
        encode, write = self._encode, self._file.write

        def tell(event: Told) -> None:
            try:
                write(encode({"replica": replica, "event": _NAMES[type(event)], **event._asdict()}) + b"\n")
            except OSError as fault:
                raise _unwritable(self.path, fault) from fault

        tell(Began(profile))
        return _Logged(profile, prefix_cache, tell)

    def _write(self, line: Struct) -> None:
        self._file.write(self._encode(line) + b"\n")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._file.close()
            if kind is None:
                refuse_used(self.path, self._part)
                self._part.rename(self.path)
        except OSError as fault:
            if kind is None:
                raise _unwritable(self.path, fault) from fault
        finally:
            self._part.unlink(missing_ok=True)


def refuse_used(path: Path, mine: Path | None = None) -> None:
    """Raise UsageError when no log may be written there. `mine`: what this run itself writes meanwhile."""
    for there in (path, _part(path)):
        if there != mine and there.exists():
            raise UsageError(
                "the event log is there already"
                if there == path
                else "another run writes this event log, or was killed",
                where=str(there),
                hint="choose another file for --event-log, or remove this one",
            )
    if not path.parent.is_dir():
        raise UsageError(
            "there is no such directory",
            where=f"--event-log {path}",
            expected=f"a directory {path.parent}",
            hint="make it first; the run's own is made later",
        )


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _unwritable(path: Path, fault: OSError) -> StoreError:
    return StoreError("the event log cannot be written", where=str(path), found=fault.strerror)


class _Logged(Engine):
    """An engine that tells what it is handed, too."""

    def __init__(self, profile: Profile, prefix_cache: bool, tell: Any) -> None:
        super().__init__(profile, prefix_cache=prefix_cache, listener=tell)
        self._tell = tell

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        super().submit(at_ns, call, prompt, answer, output_tokens, hints)
        self._tell(Submitted(at_ns, call, prompt.ids, prompt.ends, answer, output_tokens))

    def receive(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        super().receive(at_ns, call, prompt, answer, output_tokens, hints)
        self._tell(HandedOver(at_ns, call, prompt.ids, prompt.ends, answer, output_tokens))


def read(path: Path) -> tuple[Head, Iterator[tuple[str, Told]]]:
    """A log: its head, and (replica, event) line by line. Raises UsageError, also while it is read."""

    def told() -> Iterator[tuple[str, Told]]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        with path.open("rb") as file:
            file.readline()
            for number, text in enumerate(file, 2):
                try:
                    line = decode(text)
                    kind = KINDS[line["event"]]
                    yield line["replica"], msgspec.convert([line[name] for name in kind._fields], kind)
                except (msgspec.DecodeError, KeyError) as fault:
                    raise UsageError("this is no event", where=f"{path}:{number}", found=fault) from fault

    try:
        with path.open("rb") as file:
            head = msgspec.json.decode(file.readline(), type=Head)
    except OSError as fault:
        raise UsageError("the event log cannot be read", where=str(path), found=fault.strerror) from fault
    except msgspec.DecodeError as fault:
        raise UsageError("this is no event log of `workloom run`", where=str(path), found=fault) from fault
    return head, told()
