"""The directory of a run, read: what is in it, who holds it, and how a killed one is put in order.

    runs/NAME/  manifest.json  plan.json                          from the first moment
                journal  journal.N (of worker N)  lock            while it goes
                calls.parquet  sessions.parquet  server.parquet   at its end, or by whoever opens a killed one
                summary.json

Rows stand in the order of the plan (instance, then the call's place in its session), so equal simulated runs are
equal to the byte. The writer holds `lock` for as long as its process lives: a run with a journal and no holder was
killed, and is turned into tables by the next `open_run`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, structs

from workloom.errors import StoreError
from workloom.records import CallRecord, ServerSample, SessionRecord
from workloom.store import tables
from workloom.store.journal import JournalReader
from workloom.store.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=Struct)

MANIFEST, PLAN, SUMMARY, JOURNAL, LOCK = "manifest.json", "plan.json", "summary.json", "journal", "lock"
TAGS: dict[type[Struct], int] = {CallRecord: 1, SessionRecord: 2, ServerSample: 3}
"""How a journal tells the kinds of records apart."""
_ROOM = "make room on the disk or choose another directory; what was recorded stays and can be opened again"


class Run:
    """A run on disk: finished, recovered, or (`live`) as far as its writer has come."""

    def __init__(self, path: Path, manifest: Manifest, journal: JournalReader | None = None, live: bool = False):
        self.path = path
        self.manifest = manifest
        self.live = live
        self._journal = journal

    @property
    def plan_json(self) -> bytes:
        return _read(self.path / PLAN)

    @property
    def summary_json(self) -> bytes | None:
        """The numbers as they were when the run ended; None for a run that was killed or is going."""
        return _read(self.path / SUMMARY) if (self.path / SUMMARY).exists() else None

    def calls(self) -> Iterator[CallRecord]:
        """Calls by (instance, ordinal)."""
        return self._records(CallRecord)

    def sessions(self) -> Iterator[SessionRecord]:
        """Sessions that ended, by instance."""
        return self._records(SessionRecord)

    def server(self) -> Iterator[ServerSample]:
        """Figures of the server in the order they were taken."""
        return self._records(ServerSample)

    def batches(self, kind: type[Struct], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """A table batch by batch, in row order; with `columns` only those."""
        if self._journal is None:
            yield from tables.read(_table(self.path, kind), columns)
            return
        for batch in _batches(self._journal, kind, []):
            yield batch if columns is None else batch.select(columns)

    def _records(self, kind: type[R]) -> Iterator[R]:
        for batch in self.batches(kind):
            yield from tables.from_batch(kind, batch)


def open_run(path: Path | str) -> Run:
    """Read a run. One that was killed is recovered first, or read from its journal where that may not be written."""
    path = Path(path)
    if not (path / MANIFEST).is_file():
        raise StoreError(
            "there is no run here",
            where=str(path),
            expected=f"a directory with a {MANIFEST}",
            found="no such directory" if not path.exists() else "none",
            hint="name the directory that `workloom run -o` wrote",
        )
    if not (path / JOURNAL).exists():
        return Run(path, _manifest(path))
    lock = _claim(path)
    if lock is not None:
        return _recover(path, lock)
    with suppress(FileNotFoundError):  # its writer may come to the end just now
        return Run(path, _manifest(path), JournalReader(*journals(path)), live=True)
    return Run(path, _manifest(path))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        tables.sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise StoreError(f"a file cannot be written: {error.strerror}", where=str(path), hint=_ROOM) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of a run directory."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_whole(path / MANIFEST, data + b"\n")


def settle(path: Path, reader: JournalReader, manifest: Manifest, dropped: list[int] | None = None) -> Manifest:
    """Turn a journal into tables, say how the run ended, drop the journal; can be done again at any point.

    A record that no table can hold raises StoreError and leaves the journal as it is; with `dropped` (the bytes of
    each go there) it is left out, and counted in the manifest as torn.
    """
    for kind in TAGS:
        tables.write(_table(path, kind), kind, _batches(reader, kind, dropped))
    if dropped:
        manifest = structs.replace(manifest, torn_bytes=manifest.torn_bytes + sum(dropped))
    write_manifest(path, manifest)
    try:
        for journal in journals(path):  # the first one says that there is something to settle
            journal.unlink()
        tables.sync(path)
    except OSError as error:
        raise StoreError(f"the journal cannot be removed: {error.strerror}", where=str(path), hint=_ROOM) from error
    return manifest


def journals(path: Path) -> list[Path]:
    """The journals of a run: its own first, then those of its workers."""
    return [path / JOURNAL, *sorted(path.glob(f"{JOURNAL}.*"), key=lambda p: (len(p.name), p.name))]


def hold(lock: int) -> None:
    """Take the lock for as long as this process lives."""
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a directory that several commands may go on with, one at a time. Raises StoreError when another does."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        hold(lock)
    except OSError as fault:
        os.close(lock)
        what, hint = "another command is at work in this directory", "wait for its end, or end it"
        raise StoreError(what, where=str(path), hint=hint) from fault
    try:
        yield
    finally:
        os.close(lock)


def unlock(path: Path, lock: int) -> None:
    """Let the lock of a run go; once its journal is settled the file is of no more use."""
    if not (path / JOURNAL).exists():
        with suppress(OSError):
            (path / LOCK).unlink(missing_ok=True)
    os.close(lock)


def _recover(path: Path, lock: int) -> Run:
    try:
        if not (path / JOURNAL).exists():  # another command was faster
            return Run(path, _manifest(path))
        manifest, reader = _manifest(path), JournalReader(*journals(path))
        status = "killed" if manifest.status == "running" else manifest.status
        manifest = structs.replace(manifest, status=status, torn_bytes=reader.torn_bytes)
        try:
            return Run(path, settle(path, reader, manifest, []))
        except StoreError:  # a disk that is full or not ours: nothing is lost, and it can be read
            return Run(path, manifest, reader)
    finally:
        unlock(path, lock)


def _claim(path: Path) -> int | None:
    """The lock of a run whose writer is gone; None while it lives."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY)  # nothing to hold: the writer was past its end
    try:
        hold(lock)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _batches(reader: JournalReader, kind: type[Struct], dropped: list[int] | None) -> Iterator[pa.RecordBatch]:
    """The records of one kind in row order, in batches of bounded size. `dropped` as in `settle`."""
    bodies: list[bytes] = []
    size = 0
    for body in reader.bodies(TAGS[kind]):
        bodies.append(body)
        size += len(body)
        if len(bodies) >= tables.ROWS or size >= tables.BYTES:
            yield _batch(kind, bodies, dropped)
            bodies, size = [], 0
    if bodies:
        yield _batch(kind, bodies, dropped)


def _batch(kind: type[R], bodies: list[bytes], dropped: list[int] | None) -> pa.RecordBatch:
    decode = msgspec.msgpack.Decoder(kind).decode
    try:
        return tables.to_batch(kind, [decode(body) for body in bodies])
    except (StoreError, msgspec.MsgspecError) as error:
        if dropped is None:
            raise error if isinstance(error, StoreError) else _unfit(kind, error) from error
    fit: list[R] = []
    for body in bodies:
        try:
            record = decode(body)
            tables.to_batch(kind, [record])
            fit.append(record)
        except (StoreError, msgspec.MsgspecError):
            dropped.append(len(body))
    return tables.to_batch(kind, fit)


def _unfit(kind: type[Struct], error: msgspec.MsgspecError) -> StoreError:
    what = f"a record is not what its table holds: {error}"
    return StoreError(what, where=f"table {tables.NAMES[kind]}", hint=tables.UNFIT)


def _table(path: Path, kind: type[Struct]) -> Path:
    return path / f"{tables.NAMES[kind]}.parquet"


def _manifest(path: Path) -> Manifest:
    try:
        return msgspec.json.decode(_read(path / MANIFEST), type=Manifest)
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"the manifest of the run is damaged: {error}",
            where=str(path / MANIFEST),
            hint="put it back from a copy; the tables beside it can still be queried",
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"a file of the run cannot be read: {error.strerror}"
        raise StoreError(what, where=str(path), hint=tables.LOST) from error
