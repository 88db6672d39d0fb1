"""Whether the sessions of two runs are the same ones, so that each can be compared with itself.

Instance k of a plan is a pure function of (workload content, seed, k): runs that agree in the first two line up, on
whatever server and at whatever load they were. The calls themselves are looked at too, for a promise is not a proof.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from msgspec import Struct

from workloom.answers.compare.manifests import same_workload
from workloom.answers.compare.sides import Side
from workloom.errors import UsageError
from workloom.metrics.frame import Ints
from workloom.metrics.measured import Measured
from workloom.store.manifest import Manifest

Kind = Literal["paired", "unpaired"]
Asked = Literal["auto", "paired", "unpaired"]
UNLIKE = 0.01
"""So many calls of two runs may be of other lengths by the plan (a context limit cut them) before they are others."""


class Pairing(Struct, frozen=True):
    """How two sides are held against each other, and why. Sessions and calls: those due in the windows."""

    kind: Kind
    why: str
    sessions_both: int = 0
    sessions_only_a: int = 0
    sessions_only_b: int = 0
    calls_both: int = 0
    calls_only_a: int = 0
    calls_only_b: int = 0

    @property
    def paired(self) -> bool:
        return self.kind == "paired"


class Rows(NamedTuple):
    """Row `a[i]` of one run is the same call as row `b[i]` of the other."""

    a: Ints
    b: Ints


def pair(a: Side, b: Side, asked: Asked = "auto") -> tuple[Pairing, Side]:
    """How the two line up, and side b with its runs in the order of those of a that they are paired with.

    Raises UsageError where pairs are asked for and there are none.
    """
    if asked == "unpaired":
        return Pairing("unpaired", "as was asked"), b
    why, order = _order(a, b)
    if order is None and asked == "paired" and len(a.runs) == len(b.runs) and not (a.manifests and b.manifests):
        why, order = "as was asked", list(range(len(b.runs)))
    if order is not None:
        paths = tuple(b.path(i) for i in order)
        b = Side(b.name, tuple(b.runs[i] for i in order), paths)
        unlike = _unlike(a, b)
        if not unlike:
            return _counted(why, a, b), b
        why = unlike
    if asked == "paired":
        raise UsageError("these runs cannot be paired", found=why, hint="leave out --pairing, or run the same plan")
    return Pairing("unpaired", why), b


def common(a: Measured, b: Measured, *, due: bool = True) -> Rows:
    """The calls that are in both (`due`: in the window of both), by instance and place in the session."""
    rows_a = np.flatnonzero(a.due if due else ~a.calls.warmup)
    rows_b = np.flatnonzero(b.due if due else ~b.calls.warmup)
    span = 1.0 + max(float(np.max(run.calls.ordinal, initial=0.0)) for run in (a, b))
    keys_a = a.calls.instance[rows_a] * span + a.calls.ordinal[rows_a]
    keys_b = b.calls.instance[rows_b] * span + b.calls.ordinal[rows_b]
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    return Rows(rows_a[at_a], rows_b[at_b])


def _order(a: Side, b: Side) -> tuple[str, list[int] | None]:
    """Which run of b belongs to each of a; None and why not where there is no such order."""
    if len(a.manifests) < len(a.runs) or len(b.manifests) < len(b.runs):
        return "a run does not say what its plan was", None
    if len(a.runs) != len(b.runs):
        return f"there are {len(a.runs)} runs of one and {len(b.runs)} of the other", None
    if [m.plan_hash for m in a.manifests] == [m.plan_hash for m in b.manifests] and a.manifests[0].plan_hash:
        return "the plans are the same", list(range(len(a.runs)))
    one, other = [_identity(m) for m in a.manifests], [_identity(m) for m in b.manifests]
    if not all((*one, *other)):
        return "a run does not say what its workload was", None
    if not same_workload(a.manifests[0], b.manifests[0]):
        return "the workloads are not the same", None
    if sorted(one) != sorted(other):
        return "the seeds are not the same", None
    if len(set(one)) < len(one):
        return "runs of one side have one seed, so there is no telling which belongs to which", None
    why = "workload and seed are the same, so session k of one is session k of the other"
    return why, [other.index(key) for key in one]


def _identity(manifest: Manifest) -> tuple[str, str]:
    """What instances depend on: the workload's content, and the seed or that it is a replay."""
    recipe: dict[str, Any] = manifest.config.get("recipe") or {}
    content = (recipe.get("trace") or {}).get("content_hash") or ""
    replay = (recipe.get("load") or {}).get("type") == "replay"
    return (content, "replay" if replay else str(manifest.seed)) if content else ("", "")


def _unlike(a: Side, b: Side) -> str:
    """Why the calls cannot be the same ones; empty where they can."""
    shared = unlike = 0
    for one, other in zip(a.runs, b.runs, strict=True):
        rows = common(one, other, due=False)
        planned = one.calls.planned_output_tokens[rows.a] != other.calls.planned_output_tokens[rows.b]
        shared, unlike = shared + len(rows.a), unlike + int(np.count_nonzero(planned))
    if not shared:
        return "they have no call in common"
    if unlike > UNLIKE * shared:
        return f"{unlike:,} of {shared:,} calls at the same place have other lengths by the plan"
    return ""


def _counted(why: str, a: Side, b: Side) -> Pairing:
    counts = np.zeros(6, dtype=np.int64)
    for one, other in zip(a.runs, b.runs, strict=True):
        calls = len(common(one, other).a)
        mine, theirs = _sessions(one), _sessions(other)
        sessions = len(np.intersect1d(mine, theirs, assume_unique=True))
        counts += (
            sessions,
            len(mine) - sessions,
            len(theirs) - sessions,
            calls,
            int(one.due.sum()) - calls,
            int(other.due.sum()) - calls,
        )
    return Pairing("paired", why, *counts.tolist())


def _sessions(run: Measured) -> np.ndarray[Any, Any]:
    return np.unique(run.calls.instance[run.due])
