"""What opening a trace gives: a header, a stream of sessions, and a report of what the reader met on the way."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from workloom.errors import TraceError
from workloom.session import Header, Session, prompt_tokens, validate

SUFFIXES = (".json", ".jsonl", ".csv", ".traj", ".zst", ".gz")
"""What may be a trace when a folder is named."""

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
    """What was read, and what the reader had to merge, infer, assume, rename or leave out.

    `merged`, `inferred`, `dropped`: counts by a plain sentence; `assumptions`: sentences, each said once. `waits`: by
    gap, how many edges wait and for how many seconds in all. `ignored`: files of a folder that are no traces.
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
    waits: dict[str, tuple[int, float]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    merged: dict[str, int] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    inferred: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)

    def count(self, session: Session) -> None:
        """Count a session that is given out."""
        calls = session.calls
        self.sessions += 1
        self.calls += len(calls)
        self.prompt_tokens += sum(prompt_tokens(session).values())
        for call in calls:
            self.output_tokens += call.output_tokens
            self.zero_outputs += not call.output_tokens
            for edge in call.after:
                count, seconds = self.waits.get(edge.gap, (0, 0.0))
                self.waits[edge.gap] = (count + 1, seconds + edge.wait_s)
        if len(calls) > 1:
            self.subagents += subagents(session)

    def merge(self, what: str, count: int = 1) -> None:
        """Count rows of the trace that became one thing."""
        if count:
            self.merged[what] = self.merged.get(what, 0) + count

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


class Intake(NamedTuple):
    """What a reader is given beside the files: its header, a report to fill, what to do about bad rows.

    `text`: whether parts and answers keep what they say.
    """

    header: Header
    report: Report
    on_bad: OnBad
    text: bool = False

    def take(self, session: Session) -> bool:
        """Validate and count a session; False, and an error to `on_bad`, if it cannot be true."""
        if not _valid(session, self.on_bad):
            return False
        self.report.count(session)
        return True


class Reader(NamedTuple):
    """One format: does content that begins so look like it, what is a file's header, what are the files' sessions.

    `read` gets all files of the format, since a session may lie in several. A reader that does not validate what it
    makes leaves that to the reading, as one that does not `count` it into the report does: where sessions are short,
    a reader that has their numbers as columns is ten times faster at both. `headed`: files say their header themselves,
    so two may differ.
    """

    sniff: Callable[[bytes], bool]
    header: Callable[[Path], Header]
    read: Callable[[Sequence[Path], Intake], Iterator[Session]]
    validates: bool = False
    headed: bool = False
    counts: bool = False


def each(read: Callable[[Path, Intake], Iterator[Session]]) -> Callable[[Sequence[Path], Intake], Iterator[Session]]:
    """A reader of files from a reader of one file, for formats whose sessions never lie in several."""

    def read_each(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
        for path in paths:
            yield from read(path, intake)

    return read_each


class Source(NamedTuple):
    """The files of one format."""

    format: str
    reader: Reader
    header: Header
    paths: tuple[Path, ...]


class Reading:
    """A trace that was opened: `header`, the sessions (iterate; every iteration reads the files anew), `report`.

    Memory is bounded by what a reader holds (a file, a session or an index; each says which), plus some 100 bytes a
    session to find duplicates. `report` belongs to the latest iteration and is whole when `complete`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        header: Header,
        *,
        skip_bad: bool = False,
        skipped: Iterable[TraceError] = (),
        ignored: Iterable[Path] = (),
        text: bool = False,
    ) -> None:
        self.format = " + ".join(source.format for source in sources)
        self.paths = tuple(path for source in sources for path in source.paths)
        self.header = header
        self.complete = False
        self._sources = tuple(sources)
        self._skip_bad = skip_bad
        self._skipped = tuple(skipped)
        self._ignored = [str(path) for path in ignored]
        self._text = text
        self.report = self._fresh_report()

    def _fresh_report(self) -> Report:
        report = Report(self.format, ignored=list(self._ignored))
        for error in self._skipped:
            report.skip(error)
        return report

    def __iter__(self) -> Iterator[Session]:
        self.report = report = self._fresh_report()
        self.complete = False
        known: dict[int, str] = {}
        names: dict[str, int] = {}
        on_bad: OnBad = report.skip if self._skip_bad else _raise
        for source in self._sources:
            report.files += len(source.paths)
            validates, counts = source.reader.validates, source.reader.counts
            for session in source.reader.read(source.paths, Intake(source.header, report, on_bad, self._text)):
                if not validates and not _valid(session, on_bad):
                    continue
                if session.id in names:
                    session = _renamed(session, names, report)
                names[session.id] = 1
                if not counts:
                    report.count(session)
                if source.paths:  # of sessions that are drawn, equal ones are meant
                    same_as = known.setdefault(fingerprint(session), session.id)
                    if same_as != session.id:
                        report.duplicates.append(Duplicate(session.id, same_as))
                yield session
        self.complete = True


def made(name: str, header: Header, sessions: Callable[[], Iterator[Session]]) -> Reading:
    """Sessions that lie in no file, as a trace that was opened; `sessions` begins anew every time."""

    def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
        return sessions()

    reader = Reader(lambda head: False, lambda path: header, read, headed=True)
    return Reading([Source(name, reader, header, ())], header)


def _raise(error: TraceError) -> None:
    hint = error.hint or "--skip-bad leaves out what is malformed, counts it and goes on"
    raise TraceError(error.what, where=error.where, expected=error.expected, found=error.found, hint=hint)


def _valid(session: Session, on_bad: OnBad) -> bool:
    try:
        validate(session)
    except TraceError as error:
        where = error.where if session.origin is None else f"{session.origin}, {error.where}"
        on_bad(TraceError(error.what, where=where, expected=error.expected, found=error.found, hint=error.hint))
        return False
    return True


def _renamed(session: Session, names: dict[str, int], report: Report) -> Session:
    """The session, whose id an earlier one has, under an id that none has."""
    name = session.id
    copy = names[name]
    while name in names:
        copy += 1
        name = f"{session.id}#{copy}"
    names[session.id] = copy
    report.renamed.append(f"{session.id} -> {name}")
    return msgspec.structs.replace(session, id=name)


def subagents(session: Session) -> int:
    """Agents of a session other than its main one ("main", or else the agent of the first call)."""
    return len({call.agent for call in session.calls}) - 1


def fingerprint(session: Session) -> int:
    """64 bits, equal in this process for sessions that are equal but for id and origin."""
    return hash((session.calls, session.start_s, session.user, session.workflow))


def expand(paths: Sequence[str | PathLike[str]] | str | PathLike[str]) -> dict[Path, bool]:
    """The files that are named, each once, and whether by a folder: folders hold other things than traces too.

    Files come as they are, folders (and all below them) and globs as their files, sorted.
    """
    if isinstance(paths, (str, PathLike)):
        paths = [paths]
    found: dict[Path, tuple[Path, bool]] = {}
    for named in paths:
        walked = Path(named).is_dir()
        for path in _files(str(named)):
            found.setdefault(path.resolve(), (path, walked))
    if not found:
        raise TraceError("no trace was named", expected="files, folders or globs", found=list(map(str, paths)))
    return dict(found.values())


def _files(named: str) -> list[Path]:
    path = Path(named)
    if path.is_dir():
        files = sorted(
            p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not _hidden(p, path)
        )
        if not files:
            raise TraceError("a folder holds no traces", where=named, expected=f"files ending in {SUFFIXES}")
        return files
    if path.exists():
        if not path.is_file():
            what, hint = "a trace is read more than once: it cannot come through a pipe", "write it to a file first"
            raise TraceError(what, where=named, expected="a file or folder", hint=hint)
        return [path]
    files = sorted(p for p in map(Path, glob.glob(named, recursive=True)) if p.is_file())
    if not files:
        what = "a glob matches no file" if glob.has_magic(named) else "there is no such file"
        raise TraceError(what, where=named, expected="an existing file, folder or glob", hint="check the spelling")
    return files


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a file below a folder is one that nobody looks for: half-made results, settings of programs."""
    return any(name.startswith(".") for name in path.relative_to(folder).parts)


def unreadable(path: Path, error: OSError) -> TraceError:
    return TraceError(
        "a file cannot be read", where=str(path), expected="a readable file", found=error.strerror or error
    )
