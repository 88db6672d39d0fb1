"""From files to sessions. A format is one module and one entry in `READERS`; `open_trace` finds the right one."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from workloom.errors import TraceError, UsageError, nearest
from workloom.session import Header
from workloom.traces import native, weka
from workloom.traces.reading import Duplicate, Reader, Reading, Report, Skipped, expand, unreadable

HEAD_BYTES = 1 << 16
"""How much of a file is looked at to tell its format."""

READERS: dict[str, Reader] = {
    "native": Reader(native.sniff, native.header, native.read),
    "weka": Reader(weka.sniff, weka.header, weka.read),
}

__all__ = ["READERS", "Duplicate", "Reader", "Reading", "Report", "Skipped", "open_trace"]


def open_trace(
    paths: Sequence[str | PathLike[str]] | str, *, format: str | None = None, skip_bad: bool = False
) -> Reading:
    """Open files, folders and globs of one format; the format is told from their content unless it is given.

    Sessions are read only when the result is iterated. With `skip_bad` a file, line or session that is not what its
    format promises is counted in the report and left out; without, it is a TraceError.
    """
    if format is not None and format not in READERS:
        close = nearest(format, list(READERS))
        raise UsageError(
            "there is no such trace format",
            where="--format",
            expected=" | ".join(READERS),
            found=format,
            hint=f"did you mean {close}?" if close else None,
        )
    skipped: list[TraceError] = []
    good: list[Path] = []
    first: tuple[Path, str] | None = None
    header: Header | None = None
    for path in expand(paths):
        try:
            name = format or _sniff(path)
            if first is not None and name != first[1]:
                raise TraceError("two formats in one trace", where=str(path), expected=first[1], found=name)
            if header is None or name == "native":
                header = _merge(header, READERS[name].header(path))
        except TraceError as error:
            if not skip_bad:
                raise
            skipped.append(error)
            continue
        first = first or (path, name)
        good.append(path)
    if first is None or header is None:
        raise skipped[0]
    return Reading(first[1], READERS[first[1]], good, header, skip_bad=skip_bad, skipped=skipped)


def _sniff(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    for name, reader in READERS.items():
        if reader.sniff(head):
            return name
    what = "no reader knows this file" if head.strip() else "the file is empty"
    raise TraceError(
        what,
        where=str(path),
        expected=f"one of the formats {', '.join(READERS)}",
        found=f"{head[:60]!r}" if head else "no bytes",
        hint="name the format with --format if it is one of these",
    )


def _merge(one: Header | None, other: Header) -> Header:
    """The header of several files as one trace: what they do not agree on is not said."""
    if one is None or one == other:
        return other
    return Header(
        source=one.source if one.source == other.source else f"{one.source}, {other.source}",
        block_tokens=one.block_tokens if one.block_tokens == other.block_tokens else None,
        common_clock=False,
    )
