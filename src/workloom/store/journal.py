"""The journal of a run that is going: appended from the run's thread, written and synced by one of its own.

    file     MAGIC batch batch batch ...
    batch    bytes, CRC-32 | frame frame frame ...         up to 128 that were appended between two syncs
    frame    length, kind, instance, ordinal | body (msgpack, `length` bytes)

The CRC covers all frames of its batch, so one that was torn by a kill is seen and dropped; what stands before it is
whole. What was synced lies in whole batches, so no more is lost than was not safe yet.
The key (kind, instance, ordinal) stands outside the body: rows can be put in order without decoding one.
"""

from __future__ import annotations

import mmap
import os
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from zlib import crc32

from workloom.clock import host
from workloom.errors import StoreError

MAGIC = b"wljrnl02"
_BATCH = Struct("<II")
_FRAME = Struct("<IBqq")

BATCH_FRAMES = 128
"""At most: what a full disk or a power cut may take with it."""
SYNC_EVERY_S = 0.25
"""Host seconds between two writes of the thread; with the write itself this stays under half a second."""
WAKE_BYTES = 1 << 20
"""With this much waiting the thread is woken early."""
MOST_BYTES = 64 << 20
"""With this much waiting the run itself waits for the disk, and the wait is counted in `stalled_s`."""


class Journal:
    """Appends frames to a file; cheap for the caller, safe on disk within half a second.

    A thread, not an executor, does the writing, on host time: it works under a virtual loop too. A write that fails
    is raised as a StoreError by the next `append`, `sync` or `close`, and by every one after it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stalled_s = 0.0
        """Host seconds that callers waited because the disk could not keep up."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        _write_all(self._fd, MAGIC)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._asked = 0
        self._synced = 0
        self._closing = False
        self._error: OSError | None = None
        self._lock = threading.Lock()
        """Of what waits: held for a moment."""
        self._state = threading.Condition()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="workloom-journal", daemon=True)
        self._thread.start()

    def append(self, kind: int, instance: int, ordinal: int, body: bytes) -> None:
        """Take a frame; returns before it is on disk."""
        if self._error is not None or self._closing:
            raise self._fault()
        frame = _FRAME.pack(len(body), kind, instance, ordinal) + body
        with self._lock:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame)
        if self._waiting_bytes > WAKE_BYTES:
            self._wake.set()
            if self._waiting_bytes > MOST_BYTES:
                self._stall()

    def sync(self) -> None:
        """Return when all that was appended is on disk."""
        if self._closing:
            raise self._fault()
        with self._state:
            self._asked += 1
            asked = self._asked
            self._wake.set()
            while self._synced < asked and self._error is None:
                self._state.wait()
        if self._error is not None:
            raise self._fault()

    def close(self) -> None:
        """Write what waits, end the thread and close the file; raises what went wrong on the way, once closed."""
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            os.close(self._fd)
        if self._error is not None:
            raise self._fault()

    def _stall(self) -> None:
        begin = host.monotonic()
        with self._state:
            while self._waiting_bytes > MOST_BYTES and self._error is None:
                self._state.wait()
        self.stalled_s += host.monotonic() - begin

    def _work(self) -> None:
        while True:
            self._wake.wait(SYNC_EVERY_S)
            self._wake.clear()
            closing = self._closing
            with self._state:
                asked = self._asked
            with self._lock:
                frames = self._waiting
                self._waiting, self._waiting_bytes = [], 0
            try:
                for at in range(0, len(frames), BATCH_FRAMES):
                    batch = b"".join(frames[at : at + BATCH_FRAMES])
                    _write_all(self._fd, _BATCH.pack(len(batch), crc32(batch)) + batch)
                if frames:
                    os.fsync(self._fd)
            except OSError as error:
                self._error = error
            with self._state:
                self._synced = asked
                self._state.notify_all()
            if closing or self._error is not None:
                return

    def _fault(self) -> StoreError:
        if self._error is None:
            return StoreError("the run is closed: nothing can be added to it", where=str(self.path))
        return StoreError(
            f"the run could not be written to disk: {self._error}",
            where=str(self.path),
            hint="make room on the disk or choose another directory; `workloom show` recovers what was written",
        )


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


class JournalReader:
    """The whole frames of journals, in the order of (instance, ordinal) kind by kind; frames of one key as written.

    Several journals are those of the workers of one run. Memory is 43 bytes a frame; bodies are read from the files as
    they are asked for. `torn_bytes` counts what was dropped at the ends.
    """

    def __init__(self, *paths: Path) -> None:
        self._data: list[mmap.mmap | bytes] = []
        self._kinds = array("B")
        self._files = array("H")
        self._columns = tuple(array("q") for _ in range(4))  # instance, ordinal, body offset, body length
        self.torn_bytes = 0
        for path in paths:
            with path.open("rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                self._data.append(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self.torn_bytes += self._scan(path)

    def _scan(self, path: Path) -> int:
        file, data = len(self._data) - 1, self._data[-1]
        size = len(data)
        if data[: len(MAGIC)] != MAGIC[:size]:
            raise StoreError("this is no journal of a run", where=str(path), expected=MAGIC, found=data[: len(MAGIC)])
        at = len(MAGIC) if size >= len(MAGIC) else 0
        instances, ordinals, offsets, lengths = self._columns
        while at + _BATCH.size <= size:
            bytes_, crc = _BATCH.unpack_from(data, at)
            begin = at + _BATCH.size
            end = begin + bytes_
            if not bytes_ or end > size or crc32(data[begin:end]) != crc:
                break
            at = begin
            while at < end:
                length, kind, instance, ordinal = _FRAME.unpack_from(data, at)
                at += _FRAME.size
                self._kinds.append(kind)
                self._files.append(file)
                instances.append(instance)
                ordinals.append(ordinal)
                offsets.append(at)
                lengths.append(length)
                at += length
        return size - at

    def bodies(self, kind: int) -> Iterator[bytes]:
        """The bodies of one kind, in order."""
        import numpy as np

        mine = np.flatnonzero(np.frombuffer(self._kinds, dtype=np.uint8) == kind) if self._kinds else np.empty(0, int)
        instances, ordinals, offsets, lengths = (np.array(column, dtype=np.int64)[mine] for column in self._columns)
        files = np.array(self._files, dtype=np.uint16)[mine]
        for i in np.lexsort((offsets, files, ordinals, instances)):
            at = int(offsets[i])
            yield self._data[files[i]][at : at + int(lengths[i])]
