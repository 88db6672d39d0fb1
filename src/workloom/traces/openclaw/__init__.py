"""pi and OpenClaw sessions: one JSON Lines file a session, its entries a tree by `id` and `parentId`.

    {"type":"session","version":3,"id":...,"timestamp":...,"cwd":...}
    {"type":"message","id":...,"parentId":...,"timestamp":...,"message":{"role":"user",...}}

A call is an assistant message: sent at the message's own timestamp, answered at its line's; its prompt is input +
cacheRead + cacheWrite. Sessions that one spawned, and forks of it, are one session with it when their files are given
together. See :mod:`openclaw_links` (which files), :mod:`openclaw_file` (one file), :mod:`openclaw_calls` (edges).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.session import Header, Session
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.openclaw.calls import Figures, session
from workloom.traces.openclaw.links import families
from workloom.traces.reading import Intake


class _First(Struct):
    type: str
    id: str
    timestamp: str
    version: int | None = None
    cwd: str | None = None


_first = msgspec.json.Decoder(_First)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a pi session file."""
    line = head.lstrip().split(b"\n", 1)[0]
    if not line.startswith(b"{") or b'"session"' not in line:
        return False
    try:
        first = _first.decode(line)
    except DECODER_ERRORS:
        return False
    return first.type == "session" and (first.version is not None or first.cwd is not None)


def header(path: Path) -> Header:
    """Stamps are wall-clock times."""
    return Header(source="openclaw", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """A session of every group of files that belong together. Memory: the counts of one group at a time."""
    figures = Figures([], [], [], [])
    for family in families(paths, intake):
        made = session(family, intake, figures)
        if made is not None:
            yield made
    figures.tell(intake.report)
