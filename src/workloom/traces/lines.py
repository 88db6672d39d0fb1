"""Files as streams: lines of plain, gzip or zstandard files, and rows decoded from them.

A bad line is one TraceError that names file, line and field. A last line that is half-written is no error where the
format's writers append while they run: it is counted as dropped.
"""

from __future__ import annotations

import contextlib
import gzip
import tempfile
import zlib
from array import array
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import msgspec

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.reading import Intake, unreadable

T = TypeVar("T")

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"
HALF_WRITTEN = "half-written last line"


class Damaged(Exception):
    """A compressed file that is cut short or has wrong bytes in it; `error` says so."""

    def __init__(self, error: TraceError) -> None:
        super().__init__(str(error))
        self.error = error


# ------------------------------------------------------------------------------------------------------------ bytes


def head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file's content, less where it ends or is damaged behind them. Raises TraceError."""
    data = b""
    try:
        with contextlib.closing(chunks(path)) as pieces:
            for piece in pieces:
                data += piece
                if len(data) >= size:
                    break
    except Damaged as damage:
        if not data:
            raise damage.error from None
    return data[:size]


def chunks(path: Path) -> Generator[bytes, None, None]:
    """The content of a plain, gzip or zstandard file, piece by piece.

    Raises TraceError for a file that cannot be read, and Damaged behind the last good byte of a compressed one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(ZSTD_MAGIC))
            file.seek(0)
            if start == ZSTD_MAGIC:
                yield from _zstandard(path, file)
            elif start.startswith(GZIP_MAGIC):
                yield from _gzip(path, file)
            else:
                while data := file.read(CHUNK_BYTES):
                    yield data
    except OSError as error:
        raise unreadable(path, error) from error


def _zstandard(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The content of a zstandard file of any number of frames."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame, fed = decompressor.decompressobj(), 0
    try:
        while data := file.read(1 << 10):  # small: it may hold a thousand times as much
            while data:
                fed += len(data)
                yield frame.decompress(data)
                data = b""
                if frame.eof:
                    data = frame.unused_data
                    frame, fed = decompressor.decompressobj(), 0
    except zstandard.ZstdError as error:
        what = "a compressed file is damaged"
        raise Damaged(TraceError(what, where=str(path), expected="zstandard frames", found=str(error))) from None
    if fed:
        raise _cut_short(path, "a whole zstandard frame")


def _gzip(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as plain:
            while data := plain.read(CHUNK_BYTES):
                yield data
    except EOFError:
        raise _cut_short(path, "a whole gzip member") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        what = "a compressed file is damaged"
        raise Damaged(TraceError(what, where=str(path), expected="gzip members", found=str(error))) from None


def _cut_short(path: Path, expected: str) -> Damaged:
    return Damaged(
        TraceError(
            "a compressed file ends in the middle",
            where=str(path),
            expected=expected,
            found="the end of the file",
            hint="it was cut short; write it again, or use --skip-bad to take what is there",
        )
    )


def content(path: Path) -> bytes:
    """All of a file's content, for formats that are one document a file. Raises TraceError."""
    try:
        with path.open("rb") as file:
            packed = file.read(4).startswith((ZSTD_MAGIC, GZIP_MAGIC))
        if packed:
            return b"".join(chunks(path)).removeprefix(BOM)
        return path.read_bytes().removeprefix(BOM)  # at once: pieces and their sum would be twice the memory
    except OSError as error:
        raise unreadable(path, error) from error
    except Damaged as damage:
        raise damage.error from None


# ------------------------------------------------------------------------------------------------------------ lines


def lines(path: Path) -> Generator[bytes, None, None]:
    """The lines of a file with their line ends. Raises as :func:`chunks` does."""
    rest: list[bytes] = []
    for chunk in chunks(path):
        *whole, last = chunk.split(b"\n")
        if whole:
            rest.append(whole[0])
            yield b"".join(rest) + b"\n"
            rest.clear()
            for line in whole[1:]:
                yield line + b"\n"
        if last:
            rest.append(last)
    if rest:
        yield b"".join(rest)


def numbered(path: Path, intake: Intake) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1; damage goes to `intake.on_bad`."""
    number = 0
    try:
        for number, line in enumerate(lines(path), start=1):
            if number == 1:
                line = line.removeprefix(BOM)
            if not line.isspace() and line:
                yield number, line
    except Damaged as damage:
        error = damage.error
        where = f"{path}, after line {number}"
        intake.on_bad(TraceError(error.what, where=where, expected=error.expected, found=error.found, hint=error.hint))


def rows(
    path: Path, decoder: msgspec.json.Decoder[T], intake: Intake, *, known: list[str] | None = None
) -> Iterator[tuple[int, T]]:
    """The rows of a JSON Lines file with their line numbers; bad lines go to `intake.on_bad`."""
    decode = decoder.decode
    for number, line in numbered(path, intake):
        try:
            row = decode(line)
        except DECODER_ERRORS as error:
            if half_written(line, error):
                intake.report.drop(HALF_WRITTEN)
            else:
                intake.on_bad(bad_line(path, number, line, error, known=known))
        else:
            yield number, row


def half_written(line: bytes, error: Exception) -> bool:
    """Whether a line that does not decode is the last of a file that is still being written."""
    return not line.endswith(b"\n") and not isinstance(error, msgspec.ValidationError)


def bad_line(path: Path, number: int, line: bytes, error: Exception, *, known: list[str] | None = None) -> TraceError:
    """The TraceError for a line that does not decode: file, line, field, expected, found."""
    return misfit(f"{path}, line {number}", line, error, what="a line is not JSON", known=known)


# ---------------------------------------------------------------------------------------------------------- grouping


class Place(NamedTuple):
    """Where a row stands: which of the files, and its line."""

    path: Path
    line: int


OPEN_FILES = 64
"""Of :class:`Files` at a time; a system allows some hundreds."""


class Files:
    """Files that are read here and there, few of them open at a time: a proxy may write one for every request."""

    def __init__(self, paths: Sequence[Path], intake: Intake) -> None:
        self._paths, self._intake = paths, intake
        self._open: dict[int, tuple[contextlib.ExitStack, IO[bytes]]] = {}
        """The last used come last."""
        self._seen: set[int] = set()

    def open(self, number: int) -> IO[bytes]:
        """One of the files; damage of a compressed one is told once."""
        found = self._open.pop(number, None)
        if found is None:
            if len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open)))[0].close()
            intake = self._intake._replace(on_bad=_told) if number in self._seen else self._intake
            stack = contextlib.ExitStack()
            found = stack, stack.enter_context(seekable(self._paths[number], intake))
            self._seen.add(number)
        self._open[number] = found
        return found[1]

    def close(self) -> None:
        for stack, _ in self._open.values():
            stack.close()
        self._open.clear()


def _told(error: TraceError) -> None:
    """It was, when the file was opened first."""


class Groups:
    """Rows of any number of files, brought together by a key however they lie, at 20 bytes a row.

    The first pass over the files notes where the rows of each key are; the groups are read from there, keys in the
    order they first came, rows in file order. Compressed files are unpacked into a temporary file for that.
    """

    def __init__(
        self, paths: Sequence[Path], intake: Intake, key: Callable[[Path, int, bytes], Hashable | None]
    ) -> None:
        """`key` gives a line's key, or None to leave it out; it reports bad lines itself."""
        self._paths = tuple(paths)
        self._files = Files(self._paths, intake)
        self._at: dict[Hashable, tuple[array[int], array[int], array[int]]] = {}
        """For each key the file, the offset and the line number of its rows."""
        for index in range(len(self._paths)):
            self._index(index, key)

    def _index(self, index: int, key: Callable[[Path, int, bytes], Hashable | None]) -> None:
        path, at = self._paths[index], 0
        for number, line in enumerate(self._files.open(index), start=1):
            start, at = at, at + len(line)
            if not line.strip():
                continue
            group = key(path, number, line.removeprefix(BOM) if number == 1 else line)
            if group is None:
                continue
            places = self._at.get(group)
            if places is None:
                places = self._at[group] = (array("I"), array("Q"), array("Q"))
            places[0].append(index)
            places[1].append(start)
            places[2].append(number)

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[tuple[Hashable, list[tuple[Place, bytes]]]]:
        """(key, its lines); the files are closed behind the last."""
        with contextlib.closing(self._files):
            for key in self._at:
                yield key, self.of(key)

    def of(self, key: Hashable) -> list[tuple[Place, bytes]]:
        """The lines of one key, for readers that want several keys at once; `close` when there are no more."""
        files, offsets, numbers = self._at[key]
        return [self._line(*where) for where in zip(files, offsets, numbers, strict=True)]

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _line(self, index: int, offset: int, number: int) -> tuple[Place, bytes]:
        file = self._files.open(index)
        file.seek(offset)
        line = file.readline()
        return Place(self._paths[index], number), line.removeprefix(BOM) if number == 1 else line


@contextlib.contextmanager
def seekable(path: Path, intake: Intake) -> Iterator[IO[bytes]]:
    """A file's content as something one can seek in; damage of a compressed one goes to `intake.on_bad`."""
    with contextlib.ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            start = file.read(len(ZSTD_MAGIC))
            file.seek(0)
        except OSError as error:
            raise unreadable(path, error) from error
        if start == ZSTD_MAGIC or start.startswith(GZIP_MAGIC):
            file = stack.enter_context(tempfile.TemporaryFile(prefix="workloom-"))
            try:
                for chunk in chunks(path):
                    file.write(chunk)
            except Damaged as damage:
                intake.on_bad(damage.error)
            file.seek(0)
        yield file
