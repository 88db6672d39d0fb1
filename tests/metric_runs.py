"""Runs of a few calls, for tests of metrics: seconds in, records out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured_records
from workloom.records import CallRecord, ChunkRun, Dependency, ServerSample, SessionRecord
from workloom.store.manifest import Manifest

S = 1_000_000_000
CANONICAL = Path(__file__).parents[1] / "src" / "workloom" / "data" / "canonical.jsonl"


def ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * S)


def call(
    instance: int,
    ordinal: int,
    due: float,
    first: float | None,
    last: float | None,
    tokens: int = 1,
    **fields: Any,
) -> CallRecord:
    """A call that was sent when it was due and done with its last token; its tokens came evenly, one a chunk."""
    chunks = []
    if first is not None and last is not None:
        gap = (last - first) * S / (tokens - 1) if tokens > 1 else 0.0
        chunks = [ChunkRun(round(first * S), gap, 0.0, tokens, 1)]
    values: dict[str, Any] = {
        "session": f"s{instance}",
        "call": f"c{ordinal}",
        "agent": "main",
        "model": "m",
        "status": "ok",
        "due_ns": ns(due),
        "sent_ns": ns(due),
        "first_ns": ns(first),
        "last_ns": ns(last),
        "done_ns": ns(last),
        "output_tokens": tokens,
        "planned_output_tokens": tokens,
        "chunks": chunks,
    }
    return CallRecord(**{"instance": instance, "ordinal": ordinal, **values, **fields})


def session(instance: int, due: float, end: float, status: str = "ok", calls: int = 1, **fields: Any) -> SessionRecord:
    return SessionRecord(instance, f"s{instance}", status, ns(due), ns(due), ns(end), calls, **fields)  # type: ignore[arg-type]


def run_of(
    calls: list[CallRecord],
    sessions: list[SessionRecord] | None = None,
    window: tuple[float, float] | None = None,
    samples: list[ServerSample] | None = None,
    manifest: Manifest | None = None,
) -> Measured:
    bounds = None if window is None else Window(round(window[0] * S), round(window[1] * S))
    return measured_records(calls, sessions or [], samples or [], window=bounds, manifest=manifest)


def edge(ordinal: int, wait_s: float, gap: str) -> Dependency:
    return Dependency(ordinal, round(wait_s * S), gap)  # type: ignore[arg-type]
