"""What opening a trace gives: a header, a stream of sessions, and a report of what the reader met on the way."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from workloom.errors import TraceError
from workloom.session import Header, Session, prompt_tokens

SUFFIXES = (".json", ".jsonl", ".zst")
"""What is taken for a trace when a folder is named."""

OnBad = Callable[[TraceError], None]
"""What to do about a bad file, line or session: raise it, or count it and return."""


class Skipped(Struct, frozen=True):
    """Something left out with `skip_bad`: where it was and why."""

    where: str
    why: str


class Duplicate(Struct, frozen=True):
    """A session that is equal to an earlier one but for its id. It is reported, never dropped."""

    session: str
    same_as: str


class Report(Struct):
    """What was read, and what the reader had to infer, assume, rename or leave out.

    `inferred`, `dropped`: counts by a plain sentence; `assumptions`: sentences, each said once.
    """

    format: str = ""
    files: int = 0
    sessions: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    subagents: int = 0
    async_subagents: int = 0
    zero_outputs: int = 0
    duplicates: list[Duplicate] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    inferred: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)

    def infer(self, what: str, count: int = 1) -> None:
        """Count something the trace does not say and the reader worked out."""
        if count:
            self.inferred[what] = self.inferred.get(what, 0) + count

    def drop(self, what: str, count: int = 1) -> None:
        """Count something the trace says and no session holds."""
        if count:
            self.dropped[what] = self.dropped.get(what, 0) + count

    def assume(self, what: str) -> None:
        """Note an assumption, once."""
        if what not in self.assumptions:
            self.assumptions.append(what)

    def skip(self, error: TraceError) -> None:
        """Count something bad that was left out."""
        why = error.what if error.found is None else f"{error.what} (expected {error.expected}, found {error.found})"
        self.skipped.append(Skipped(error.where or "", why))


class Reader(NamedTuple):
    """One format: does the beginning of a file look like it, what is its header, what are its sessions."""

    sniff: Callable[[bytes], bool]
    header: Callable[[Path], Header]
    read: Callable[[Path, Header, Report, OnBad], Iterator[Session]]


class Reading:
    """A trace that was opened: `header`, the sessions (iterate; every iteration reads the files anew), `report`.

    Memory is bounded by the largest file (WEKA) or session (native), plus some 100 bytes a session to find duplicates.
    `report` belongs to the latest iteration and is whole when `complete`.
    """

    def __init__(
        self,
        format: str,
        reader: Reader,
        paths: Sequence[Path],
        header: Header,
        *,
        skip_bad: bool = False,
        skipped: Iterable[TraceError] = (),
    ) -> None:
        self.format = format
        self.paths = tuple(paths)
        self.header = header
        self.complete = False
        self._reader = reader
        self._skip_bad = skip_bad
        self._skipped = tuple(skipped)
        self.report = self._fresh_report()

    def _fresh_report(self) -> Report:
        report = Report(self.format)
        for error in self._skipped:
            report.skip(error)
        return report

    def __iter__(self) -> Iterator[Session]:
        self.report = report = self._fresh_report()
        self.complete = False
        known: dict[bytes, str] = {}
        names: set[str] = set()
        on_bad: OnBad = report.skip if self._skip_bad else _raise
        for path in self.paths:
            report.files += 1
            for session in self._reader.read(path, self.header, report, on_bad):
                session = _named_once(session, names, report)
                _count(session, known, report)
                yield session
        self.complete = True


def _raise(error: TraceError) -> None:
    raise error


def _named_once(session: Session, names: set[str], report: Report) -> Session:
    """The session under an id that no earlier one has."""
    name, copy = session.id, 2
    while name in names:
        name, copy = f"{session.id}#{copy}", copy + 1
    names.add(name)
    if name != session.id:
        report.renamed.append(f"{session.id} -> {name}")
        session = msgspec.structs.replace(session, id=name)
    return session


def _count(session: Session, known: dict[bytes, str], report: Report) -> None:
    report.sessions += 1
    report.calls += len(session.calls)
    report.prompt_tokens += sum(prompt_tokens(session).values())
    report.output_tokens += sum(call.output_tokens for call in session.calls)
    report.zero_outputs += sum(call.output_tokens == 0 for call in session.calls)
    report.subagents += subagents(session)
    same_as = known.setdefault(fingerprint(session), session.id)
    if same_as != session.id:
        report.duplicates.append(Duplicate(session.id, same_as))


def subagents(session: Session) -> int:
    """Agents of a session other than its main one ("main", or else the agent of the first call)."""
    return len({call.agent for call in session.calls}) - 1


def fingerprint(session: Session) -> bytes:
    """Equal for sessions that are equal but for id and origin."""
    anonymous = msgspec.structs.replace(session, id="", origin=None)
    return blake2b(msgspec.msgpack.encode(anonymous), digest_size=16).digest()


def expand(paths: Sequence[str | PathLike[str]] | str | PathLike[str]) -> list[Path]:
    """The files that are named: files as they are, folders and globs as their files, sorted; each file once."""
    if isinstance(paths, (str, PathLike)):
        paths = [paths]
    found: dict[Path, Path] = {}
    for named in paths:
        for path in _files(str(named)):
            found.setdefault(path.resolve(), path)
    if not found:
        raise TraceError("no trace was named", expected="files, folders or globs", found=list(map(str, paths)))
    return list(found.values())


def _files(named: str) -> list[Path]:
    path = Path(named)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
        if not files:
            hint = f"name the files with a glob, for example '{named}/**/*.json'"
            raise TraceError("a folder holds no traces", where=named, expected=f"files ending in {SUFFIXES}", hint=hint)
        return files
    if path.exists():
        return [path]
    files = sorted(p for p in map(Path, glob.glob(named, recursive=True)) if p.is_file())
    if not files:
        what = "a glob matches no file" if glob.has_magic(named) else "there is no such file"
        raise TraceError(what, where=named, expected="an existing file, folder or glob", hint="check the spelling")
    return files


def load(path: Path) -> bytes:
    """The bytes of a file, or a TraceError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> TraceError:
    return TraceError("a file cannot be read", where=str(path), expected="a readable file", found=error.strerror)
