"""From rows that share blocks, and which row continues which, to sessions.

What two sessions share becomes spans of scope `trace`, one a run of the pool's tree (see :mod:`workloom.traces.pool`);
a prompt that leaves a run early uses fewer of its tokens. What only one session has is inherited:

    prompt   |-- spans, other sessions have them too --|-- inherited from the row it continues --|-- fresh --|

Shared blocks are the first of every prompt that has them. Where they go on behind the prompt that is continued, the
call inherits up to the run in which the two part, and the spans begin there.

An answer is inherited by the first row that continues it and is long enough. Others inherit it too only if it ends in
the block that its prompt ends in: the hashes of further blocks say that those rows hold something else. Sessions in
which a prompt shares most with another than the one it continues are for :mod:`workloom.traces.pool.tangles`.

Memory: some 200 bytes a row, and a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from workloom.session import LONGEST_WAIT_S, MOST_TOKENS, Call, Edge, Inherit, Part, Recorded, Session, Span
from workloom.traces.pool import Bools, Floats, Ints, Tree
from workloom.traces.pool.prompts import ALL, NONE, Member, Prompts
from workloom.traces.pool.tangles import untangled
from workloom.traces.reading import Intake, Report

NO_ENDS = "no ends of calls are told: a wait counts from the start of the call before, and is a human's"
_CHUNK = 1 << 12
"""Sessions whose numbers are made Python's at once."""
_AT_ZERO = Recorded(start_s=0.0)
_NO_SPANS: tuple[Span, ...] = ()
_NO_EDGES: tuple[Edge, ...] = ()
_NAMES = [f"c{index}" for index in range(256)]


class Rows(NamedTuple):
    """What a file says of each row beside its blocks; nan: it does not."""

    start_s: Floats
    output: Ints
    parent: Ints
    """The earlier row it continues; -1: none."""
    wait_s: Floats | None = None
    """How long it waits when that one is done; nan: from start to start, as all do without this."""


class Naming(NamedTuple):
    """How a file's sessions are called: ids and workflows from their first rows; `spans`: what names of spans begin
    with."""

    sessions: Callable[[list[int]], tuple[Iterable[str], Iterable[str | None]]]
    spans: str
    origin: str


_Row = tuple[int, int, int, int, float, int, float, int, int, int]
"""Number, tokens, fresh tokens, output, start, place of the row it continues, wait, what it inherits of that (see
`Begins`), blocks that others share, blocks in common with the one it continues."""


class _Layout(NamedTuple):
    """Which rows a session is made of, and what their prompts begin with."""

    root: Ints
    """Of each row, the first of its session."""
    order: Ints
    """All rows, session by session."""
    place: Ints
    """Of each row, its place in that order."""
    shared: Ints
    common: Ints
    inherit: Ints
    fresh: Ints
    tangled: Bools
    """Of first rows, whether the session is one for :mod:`workloom.traces.pool.tangles`."""
    unsure: Bools
    """Of first rows, whether the session has to be validated: a figure is out of bounds, or it is tangled."""


def _layout(tree: Tree, rows: Rows, prompts: Prompts, report: Report) -> _Layout:
    """Where everything is. What is sure to be valid is counted at once."""
    root = roots(rows.parent)
    shared, common = shared_depths(tree, root), prompts.common(rows.parent)
    begins = prompts.begins(rows.parent, rows.output, shared, common)
    fresh = tree.tokens - begins.tokens
    tangled = _of_sessions(root, tree.depth > np.maximum(common, shared))
    order = np.argsort(root, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    waits = _waits(rows, np.arange(len(root)))
    unsure = tangled | _of_sessions(root, (waits > LONGEST_WAIT_S) | (fresh > MOST_TOKENS))
    _count(report, tree.tokens, rows, waits, ~unsure[root])
    return _Layout(root, order, place, shared, common, begins.inherit, fresh, tangled, unsure)


def _of_sessions(root: Ints, rows: Bools) -> Bools:
    """Of first rows, whether any row of their session is one of these."""
    out = np.zeros(len(root), bool)
    out[root[rows]] = True
    return out


def _waits(rows: Rows, some: Ints) -> Floats:
    """How long some rows wait for the ones they continue."""
    waits = np.round(rows.start_s[some] - rows.start_s[rows.parent[some]], 6)
    if rows.wait_s is not None:
        waits = np.where(np.isnan(rows.wait_s[some]), waits, rows.wait_s[some])
    return np.maximum(0.0, np.nan_to_num(waits))


def sessions(tree: Tree, rows: Rows, naming: Naming, intake: Intake) -> Iterator[Session]:
    """The sessions of a file, by their first rows: valid, and counted in the report."""
    block_tokens = intake.header.block_tokens
    assert block_tokens is not None, "the formats that have blocks say how large they are"
    prompts = Prompts(tree, block_tokens, naming.spans)
    laid = _layout(tree, rows, prompts, intake.report)
    first = np.flatnonzero(rows.parent[laid.order] < 0)
    sizes = np.diff(first, append=len(laid.order))
    for low in range(0, len(first), _CHUNK):
        heads, many = laid.order[first[low : low + _CHUNK]], sizes[low : low + _CHUNK]
        some = laid.order[first[low] : first[low] + many.sum()][np.repeat(many > 1, many)]
        members = _members(tree, rows, laid, some)
        every = zip(
            *naming.sessions(heads.tolist()),
            rows.start_s[heads].tolist(),
            prompts.openings(heads, laid.shared[heads]),
            laid.fresh[heads].tolist(),
            rows.output[heads].tolist(),
            many.tolist(),
            laid.tangled[heads].tolist(),
            laid.unsure[heads].tolist(),
            strict=True,
        )
        for name, workflow, start_s, spans, fresh, output, size, odd, unsure in every:
            timed = start_s == start_s
            if size == 1:
                parts = (Part("user", fresh),) if fresh else ()
                recorded = _AT_ZERO if timed else None
                calls: tuple[Call, ...] = (Call("c0", output, (), "main", "", None, spans, parts, 0, None, recorded),)
            else:
                calls = _calls(list(islice(members, size)), spans, prompts, odd)
            session = Session(name, calls, start_s if timed else None, None, workflow, naming.origin)
            if not unsure or intake.take(session):
                yield session


def _members(tree: Tree, rows: Rows, laid: _Layout, some: Ints) -> Iterator[_Row]:
    """Some rows as what their calls are made of."""
    parent, root = rows.parent[some], laid.root[some]
    columns = (
        some,
        tree.tokens[some],
        laid.fresh[some],
        rows.output[some],
        np.round(rows.start_s[some] - rows.start_s[root], 6),
        np.where(parent < 0, -1, laid.place[parent] - laid.place[root]),
        _waits(rows, some),
        laid.inherit[some],
        laid.shared[some],
        laid.common[some],
    )
    return zip(*(column.tolist() for column in columns), strict=True)


def _count(report: Report, tokens: Ints, rows: Rows, waits: Floats, sure: Bools) -> None:
    """Count the sessions that some of the rows are."""
    linked = sure & (rows.parent >= 0)
    edges, calls = int(np.count_nonzero(linked)), int(np.count_nonzero(sure))
    report.sessions += calls - edges
    report.calls += calls
    report.prompt_tokens += int(tokens[sure].sum())
    report.output_tokens += int(rows.output[sure].sum())
    report.zero_outputs += int(np.count_nonzero(sure & (rows.output == 0)))
    if edges:
        count, seconds = report.waits.get("human", (0, 0.0))
        report.waits["human"] = (count + edges, seconds + float(waits[linked].sum()))


def _calls(rows: list[_Row], opening: tuple[Span, ...], prompts: Prompts, tangled: bool) -> tuple[Call, ...]:
    """The calls of a session of several rows. `opening`: the spans of the first prompt."""
    if tangled:
        return _tangled(rows, prompts)
    names = _names(len(rows))
    out: list[Call] = []
    for name, (row, tokens, fresh, output, start_s, before, wait_s, kept, shared, common) in zip(
        names, rows, strict=True
    ):
        inherit, spans, after = None, _NO_SPANS, _NO_EDGES
        if before < 0:
            spans = opening
        else:
            after = (Edge(names[before], wait_s, "human"),)
            if shared > common:
                spans, start = prompts.spans(row, tokens, shared, common)
                inherit = Inherit(names[before], start * prompts.size) if start else None
            elif kept != NONE:
                inherit = Inherit(names[before], None if kept == ALL else kept)
        parts = (Part("user", fresh),) if fresh else ()
        recorded = Recorded(start_s) if start_s == start_s else None
        out.append(Call(name, output, after, "main", "", inherit, spans, parts, 0, None, recorded))
    return tuple(out)


def _tangled(rows: list[_Row], prompts: Prompts) -> tuple[Call, ...]:
    """The same for a session whose prompts do not share most with the ones they continue."""
    begins = untangled([Member(r[0], r[5], r[1], r[3], r[8], r[9]) for r in rows], prompts)
    names = _names(len(rows))
    out: list[Call] = []
    for name, row, (inherit, spans, covered) in zip(names, rows, begins, strict=True):
        _, tokens, _, output, start_s, before, wait_s, *_ = row
        after = (Edge(names[before], wait_s, "human"),) if before >= 0 else _NO_EDGES
        parts = (Part("user", tokens - covered),) if tokens > covered else ()
        recorded = Recorded(start_s) if start_s == start_s else None
        out.append(Call(name, output, after, "main", "", inherit, spans, parts, 0, None, recorded))
    return tuple(out)


def _names(count: int) -> list[str]:
    return _NAMES[:count] if count <= len(_NAMES) else [f"c{index}" for index in range(count)]


def roots(parent: Ints) -> Ints:
    """The first row of each row's session."""
    return _followed(np.where(parent < 0, np.arange(len(parent)), parent))


def _followed(following: Ints) -> Ints:
    """Where one gets from each place, if one goes on until a place that leads to itself."""
    while not np.array_equal(further := following[following], following):
        following = further
    return following


def shared_depths(tree: Tree, session: Ints) -> Ints:
    """Of each row, how many of its first blocks rows of other sessions have too. `session`: which one each is of."""
    owner, depth = tree.owner, tree.depth
    inside = np.zeros(len(session), np.int64)
    """Up to which block others have what is in a row's run, or 0."""
    mixed = np.zeros(len(session), bool)
    """Rows behind whose run, or in it, rows of other sessions go on."""
    behind = np.flatnonzero(owner >= 0)
    rows = behind[session[behind] != session[owner[behind]]]
    while len(rows):
        owners = owner[rows]
        np.maximum.at(inside, owners, depth[rows])
        rows = np.unique(owners[~mixed[owners]])
        mixed[rows] = True
        rows = rows[owner[rows] >= 0]
        rows = rows[session[rows] == session[owner[rows]]]
    # A row shares what its owner shares, but no more than it has of it. That is the owner's to say if others have
    # blocks of its run, or else its owner's.
    says = inside > depth
    final = says | (owner < 0) | says[owner]
    value = np.where(says, inside, np.where(owner < 0, 0, np.minimum(depth, inside[owner])))
    return value[_followed(np.where(final, np.arange(len(owner)), owner))]
