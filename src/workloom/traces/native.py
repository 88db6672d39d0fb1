"""workloom's own format: JSON Lines, optionally zstandard, a header line and then one session a line.

    {"format":"workloom","version":1,"source":"...","block_tokens":64}
    {"id":"s1","calls":[{"id":"c0","output_tokens":120,"fresh":[{"kind":"user","tokens":4000}]}, ...]}

Both are the structs of :mod:`workloom.session`, fields at their defaults left out. Read and written as streams: one
session is held at a time. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from workloom.errors import TraceError
from workloom.session import MOST_TOKENS, Call, Edge, Header, Inherit, Part, Recorded, Session, Span, validate
from workloom.traces.faults import DECODER_ERRORS, misfit, short
from workloom.traces.lines import Damaged, lines, numbered
from workloom.traces.reading import Intake

VERSION = 1
_HINT_HEADER = 'the first line of a native trace is {"format":"workloom","version":1}'

_FIELDS = sorted({n for noun in (Session, Call, Edge, Inherit, Part, Recorded, Span) for n in noun.__struct_fields__})

_session_decoder = msgspec.json.Decoder(Session)
_header_decoder = msgspec.json.Decoder(Header)


# ---------------------------------------------------------------------------------------------------------- reading


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a native trace."""
    first = head.lstrip().split(b"\n", 1)[0]
    return re.search(rb'"format"\s*:\s*"workloom"', first) is not None


def header(path: Path) -> Header:
    """The header line, or a TraceError."""
    try:
        with contextlib.closing(lines(path)) as every:
            line = next(every, None)
    except Damaged as damage:
        raise damage.error from None
    if line is None:
        raise TraceError("the file is empty", where=str(path), expected="a header line", hint=_HINT_HEADER)
    where = f"{path}, line 1"
    try:
        said = msgspec.json.decode(line)
        if not isinstance(said, dict) or said.get("format") != "workloom":
            raise TraceError(
                "the first line is no header", where=where, expected=_HINT_HEADER, found=short(line), hint=_HINT_HEADER
            )
        if said.get("version") != VERSION:
            hint = "a newer workloom wrote this file; update this one"
            raise TraceError(
                "a version of the native format that is not known",
                where=f"{where}, version",
                expected=VERSION,
                found=said.get("version", "no version"),
                hint=hint if isinstance(said.get("version"), int) else _HINT_HEADER,
            )
        header = _header_decoder.decode(line)
    except DECODER_ERRORS as error:
        raise misfit(
            where, line, error, what="the header line is malformed", known=list(Header.__struct_fields__)
        ) from None
    if header.block_tokens is not None and not 1 <= header.block_tokens <= MOST_TOKENS:
        expected, found = "1 or more, or null", header.block_tokens
        raise TraceError("a block has no tokens", where=f"{where}, block_tokens", expected=expected, found=found)
    return header


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The sessions of files; a bad line is one TraceError to `on_bad`. Memory: a session at a time."""
    for path in paths:
        for number, line in numbered(path, intake):
            if number == 1:
                continue
            try:
                session = _session(path, number, line)
            except TraceError as error:
                intake.on_bad(error)
            else:
                yield session


def _session(path: Path, number: int, line: bytes) -> Session:
    where = f"{path}, line {number}"
    try:
        session = _session_decoder.decode(line)
    except DECODER_ERRORS as error:
        what = "a line is not JSON" if line.endswith(b"\n") else "the last line is half-written"
        raise misfit(where, line, error, what=what, known=_FIELDS) from None
    try:
        validate(session)
    except TraceError as error:
        raise TraceError(
            error.what, where=f"{where}, {error.where}", expected=error.expected, found=error.found, hint=error.hint
        ) from None
    return session


# ---------------------------------------------------------------------------------------------------------- writing


def encode_header(header: Header) -> bytes:
    """The header line; format and version are always said."""
    said = {"format": "workloom", "version": VERSION, **msgspec.to_builtins(header)}
    return msgspec.json.encode(said) + b"\n"


def write(path: str | Path, header: Header, sessions: Iterable[Session], *, validated: bool = False) -> int:
    """Write a native trace (compressed if the name ends in .zst) and return how many sessions it holds.

    Sessions are validated, unless they were, and streamed into a file beside the goal, which takes the name when it is
    whole; after an error nothing is left behind and an older file of that name is untouched.
    """
    path = Path(path)
    count = 0
    with _atomic(path) as out:
        out.write(encode_header(header))
        for session in sessions:
            if not validated:
                validate(session)
            out.write(msgspec.json.encode(session) + b"\n")
            count += 1
    return count


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise TraceError(
            "a trace cannot be written there",
            where=str(path),
            expected="a folder one can write to",
            found=error.strerror,
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            if path.suffix == ".zst":
                import zstandard

                with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
                    file, closefd=False
                ) as compressed:
                    yield compressed
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
