"""The directory of a run, written. See :mod:`workloom.store.run` for what lies in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
from msgspec import structs

from workloom.clock import host
from workloom.errors import StoreError
from workloom.records import CallRecord, ServerSample, SessionRecord
from workloom.store.journal import Journal, JournalReader
from workloom.store.manifest import Manifest, redact_text, started
from workloom.store.run import (
    JOURNAL,
    LOCK,
    MANIFEST,
    PLAN,
    SUMMARY,
    TAGS,
    Run,
    hold,
    journals,
    settle,
    unlock,
    write_manifest,
    write_whole,
)


class Log:
    """Takes the records of a run, or of one worker of it, into a journal; each is on disk within half a second."""

    def __init__(self, journal: Journal, secrets: tuple[str, ...] = ()) -> None:
        self._journal = journal
        self._secrets = secrets
        """What servers may say again, and no record may hold."""
        self._append = journal.append
        self._encode = msgspec.msgpack.Encoder().encode

    @classmethod
    def of_worker(cls, path: Path, worker: int, secrets: tuple[str, ...] = ()) -> Log:
        """The log of one worker process of the run at `path`."""
        return cls(Journal(path / f"{JOURNAL}.{worker}"), secrets)

    @property
    def stalled_s(self) -> float:
        """Host seconds that the run waited for the disk."""
        return self._journal.stalled_s

    def call(self, record: CallRecord) -> None:
        """Append a call."""
        if record.error is not None:
            record = structs.replace(record, error=redact_text(record.error, self._secrets))
        self._append(TAGS[CallRecord], record.instance, record.ordinal, self._encode(record))

    def session(self, record: SessionRecord) -> None:
        """Append a session."""
        self._append(TAGS[SessionRecord], record.instance, 0, self._encode(record))

    def server(self, sample: ServerSample) -> None:
        """Append a figure of the server."""
        self._append(TAGS[ServerSample], 0, 0, self._encode(sample))

    def sync(self) -> None:
        """Return when all that was appended is on disk."""
        self._journal.sync()

    def end(self) -> None:
        """Write what waits and close the journal."""
        self._journal.close()


class RunWriter(Log):
    """Writes one run. Use it as a context: left by an exception, the run is closed as interrupted or failed."""

    def __init__(
        self, path: Path, manifest: Manifest, journal: Journal, lock: int, secrets: tuple[str, ...] = ()
    ) -> None:
        super().__init__(journal, secrets)
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._began = (host.monotonic(), host.cpu())
        self._open = True

    @classmethod
    def create(cls, path: Path | str, manifest: Manifest, plan_json: bytes, secrets: tuple[str, ...] = ()) -> RunWriter:
        """Make the directory with manifest and plan; one that holds anything is refused, a failure leaves nothing."""
        path = Path(path)
        refuse_used(path)
        manifest = started(manifest)
        try:
            with ExitStack() as undo:
                if not path.exists():
                    path.mkdir(parents=True)
                    undo.callback(_remove, path)
                lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
                undo.callback(_remove, path / LOCK)
                undo.callback(os.close, lock)
                hold(lock)
                journal = Journal(path / JOURNAL)
                undo.callback(_remove, path / JOURNAL)
                undo.callback(journal.close)
                undo.callback(_remove, path / PLAN)
                write_whole(path / PLAN, plan_json)
                undo.callback(_remove, path / MANIFEST)
                write_manifest(path, manifest)
                undo.pop_all()
        except OSError as error:
            raise StoreError(
                f"the directory of the run cannot be written: {error.strerror}",
                where=str(path),
                hint="choose a directory you may write to and that no other run uses, with -o",
            ) from error
        return cls(path, manifest, journal, lock, secrets)

    def close(
        self,
        status: Literal["finished", "interrupted", "failed"] = "finished",
        *,
        summarize: Callable[[Run], bytes] | None = None,
        error: str | None = None,
        **ended: Any,
    ) -> Run:
        """End the run: tables, the manifest's end state, then `summarize(run)` as summary.json. Once only.

        `ended` are fields of the manifest that are known by now. Whatever fails, the lock is released and what was
        recorded can be recovered with `open_run`.
        """
        if not self._open:
            raise StoreError("the run is closed already", where=str(self.path))
        self._open = False
        ended["notes"] = [redact_text(note, self._secrets) for note in ended.get("notes", [])]
        wall_s, cpu_s = host.monotonic() - self._began[0], host.cpu() - self._began[1]
        end = structs.replace(
            self.manifest,
            status=status,
            ended=host.stamp(),
            wall_s=wall_s,
            cpu_s=cpu_s,
            stalled_s=self.stalled_s,
            error=None if error is None else redact_text(error, self._secrets),
            **ended,
        )
        try:
            self._journal.close()
            self.manifest = end
            settle(self.path, JournalReader(*journals(self.path)), end)
            run = Run(self.path, end)
            if summarize is not None:
                write_whole(self.path / SUMMARY, summarize(run))
            return run
        except StoreError as fault:
            self.manifest = structs.replace(end, status="failed", error=end.error or fault.what)
            with suppress(StoreError):
                write_manifest(self.path, self.manifest)
            raise
        finally:
            unlock(self.path, self._lock)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._open:
            return
        if kind is None:
            self.close()
            return
        with suppress(StoreError):  # the exception that ended the run says more
            if issubclass(kind, Exception):
                self.close("failed", error=f"{kind.__name__}: {error}")
            else:
                self.close("interrupted")


def refuse_used(path: Path) -> None:
    """Raise StoreError when a new run may not go there: a file, or a directory that holds anything."""
    if not path.exists():
        return
    hint = "choose another directory with -o, or remove this one"
    if not path.is_dir():
        raise StoreError("a run needs a directory", where=str(path), found="a file", hint=hint)
    if (path / MANIFEST).exists():
        raise StoreError("the directory already holds a run", where=str(path), expected="a new directory", hint=hint)
    try:
        found = sorted(os.listdir(path))
    except OSError as error:
        raise StoreError(f"the directory cannot be read: {error.strerror}", where=str(path), hint=hint) from error
    if found:
        listed = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise StoreError("the directory is not empty", where=str(path), expected="a new one", found=listed, hint=hint)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink()
