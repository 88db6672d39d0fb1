"""Which pi session files belong together: who spawned whom, who was forked from whom.

A look at all files comes first, at their headers and the few lines that name other sessions. A spawning tool's result
names its child by key; the key's session id stands in the `sessions.json` beside the files, in the message that brings
the child's result, or at the end of the key. A header may name the file its session was started or forked from.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from workloom.errors import TraceError
from workloom.traces.faults import DECODER_ERRORS
from workloom.traces.lines import BOM, Damaged, content, lines
from workloom.traces.openclaw import rows as said
from workloom.traces.reading import Intake

_TELLING = (b"childSessionKey", b"task completion event")
INDEX = "sessions.json"


class Member(NamedTuple):
    """A file. `owner`: which of the family started it; `spawned`: by a tool, or it is named in its header only."""

    path: Path
    owner: int | None
    spawned: bool


class Family(NamedTuple):
    """Files that belong together, owners before those they started; `names`: keys and ids of their sessions."""

    members: tuple[Member, ...]
    names: dict[str, int]


class _Glance(Struct):
    id: str = ""
    parent: str | None = None
    spawned: list[str] = []
    aliases: list[tuple[str, ...]] = []


class _Known(Struct, rename="camel"):
    session_id: str | None = None


_index = msgspec.json.Decoder(dict[str, _Known])


def families(paths: Sequence[Path], intake: Intake) -> Iterator[Family]:
    """The files in groups, in the order of their first files. Memory: the names in a file, for all files."""
    paths = [path for path in paths if path.name != INDEX]
    if len(paths) == 1:
        yield Family((Member(paths[0], None, False),), {})
        return
    readable: list[Path] = []
    glances: list[_Glance] = []
    for path in paths:
        try:
            glances.append(_glance(path))
        except TraceError as error:
            intake.on_bad(error)
        else:
            readable.append(path)
    names = _names(readable, glances, intake)
    owners = _owners(readable, glances, names)
    called: list[list[str]] = [[] for _ in readable]
    for name, index in names.items():
        called[index].append(name)
    children: list[list[int]] = [[] for _ in readable]
    for index, (owner, _) in enumerate(owners):
        if owner is not None:
            children[owner].append(index)
    for root, (owner, _) in enumerate(owners):
        if owner is None:
            yield _family(root, readable, owners, children, called)


def _family(
    root: int,
    paths: list[Path],
    owners: list[tuple[int | None, bool]],
    children: list[list[int]],
    called: list[list[str]],
) -> Family:
    every = [root]
    for index in every:
        every += children[index]
    place = {index: at for at, index in enumerate(every)}
    members = []
    for index in every:
        owner, spawned = owners[index]
        members.append(Member(paths[index], None if owner is None else place[owner], spawned))
    return Family(tuple(members), {name: place[index] for index in every for name in called[index]})


def _glance(path: Path) -> _Glance:
    """What a file says of others. Lines that do not decode are named when the file is read whole."""
    out = _Glance()
    first = True
    try:
        for line in lines(path):
            if first:
                line = line.removeprefix(BOM)
                if line.isspace():
                    continue
            if first or any(word in line for word in _TELLING):
                with contextlib.suppress(*DECODER_ERRORS):
                    _look(said.decoder.decode(line), out)
            first = False
    except Damaged:
        return out
    return out


def _look(entry: said.Entry, out: _Glance) -> None:
    if entry.type == "session":
        out.id, out.parent = out.id or entry.id or "", out.parent or entry.parent_session
    message = entry.message
    if message is not None and message.role == "toolResult":
        _, key = said.result_details(message)
        if key is not None:
            out.spawned.append(key)
    else:
        told = said.completed(said.text_of(entry.content if message is None else message.content))
        if told:
            out.aliases.append(told)


def _names(paths: list[Path], glances: list[_Glance], intake: Intake) -> dict[str, int]:
    """Every key and id by which a session is known, and its file."""
    names: dict[str, int] = {}
    for index, (path, glance) in enumerate(zip(paths, glances, strict=True)):
        for name in (glance.id, path.name.split(".")[0]):
            if name:
                names.setdefault(name, index)
    for folder in dict.fromkeys(path.parent for path in paths):
        for key, known in _indexed(folder / INDEX, intake).items():
            if known.session_id in names:
                names.setdefault(key, names[known.session_id])
    for glance in glances:
        for told in glance.aliases:
            index_of = next((names[name] for name in told if name in names), None)
            if index_of is not None and len(told) == 2:
                for name in told:
                    names.setdefault(name, index_of)
        for key in glance.spawned:
            last = key.rsplit(":", 1)[-1]
            if last in names:
                names.setdefault(key, names[last])
    return names


def _indexed(path: Path, intake: Intake) -> dict[str, _Known]:
    if not path.is_file():
        return {}
    try:
        return _index.decode(content(path))
    except (TraceError, *DECODER_ERRORS):
        intake.report.drop(f"a {INDEX} that cannot be read: spawned sessions are looked for without it")
        return {}


def _owners(paths: list[Path], glances: list[_Glance], names: dict[str, int]) -> list[tuple[int | None, bool]]:
    """For every file the one it was started by, if it is here, and whether a tool did it. Never in circles."""
    owners: list[tuple[int | None, bool]] = [(None, False)] * len(paths)

    def start(index: int, owner: int | None, spawned: bool) -> None:
        above = owner
        while above is not None and above != index:
            above = owners[above][0]
        if above is None and owner is not None and owners[index][0] is None:
            owners[index] = (owner, spawned)

    for index, glance in enumerate(glances):
        for key in glance.spawned:
            if key in names:
                start(names[key], index, True)
    files = {path.name: index for index, path in reversed(list(enumerate(paths)))}
    for index, glance in enumerate(glances):
        if glance.parent:
            name = re.split(r"[/\\]", glance.parent)[-1]
            start(index, files.get(name, names.get(name.split(".")[0])), False)
    return owners
