"""What the tool itself cost, and whether the numbers of a live run can be trusted.

The verdict is the worst that any of RULES says; `rule_that_decided` names it. Rules look at what separates a run that
measured the server from one that measured the tool: how late calls left, how late the event loop came to what was
ready, and whether it had time to spare. What flatters a server (temperature 0, a shorter model length) is said beside
the verdict and does not change it.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from msgspec import Struct

from workloom.clock import NS
from workloom.drive.cost import WorkerCost
from workloom.metrics.frame import Bools, Calls
from workloom.metrics.stats import Stats
from workloom.metrics.tool_rules import RULES, Fault, Verdict, broken
from workloom.store.manifest import Manifest

FEW_CALLS = 100
"""Of fewer calls p99 is the burst at the start, when many leave at once: their lag is judged by its median."""
FEW_LOOKS = 200
"""Of fewer looks at the event loop p99 is the one or two worst, which any machine has: p90 is judged."""
SHORT_S = 1.0
"""Of a shorter run the share of time is that of its start, so it is not judged."""
LATE_LOOP_S = 0.002
"""Chunks that came together are held against the tool only where its loop was this late: servers send bursts too."""
FORGIVEN_NS = NS // 1000
"""Of a call's dispatch lag, what does not count as held back: a call of a millisecond is no call of a model."""

NOT_RESET = "the prefix cache could not be reset"
"""How the note of a run begins whose server was left warm (`workloom.drive.scrape.reset`)."""
STARVED = 0.15
"""Of a busy event loop, so much of a core less than it was busy means that the machine ran something else."""


class Tool(Struct, frozen=True):
    """What the tool cost. Its lag per call is the latency `lag_s`."""

    wall_s: float | None = None
    cpu_s: float | None = None
    cpu_share: float | None = None
    """CPU seconds / wall seconds, the tables included: 1 is one core."""
    loop_lag_p99_s: float | None = None
    """How late the event loop came to what was ready; of several workers the worst."""
    stalled_s: float = 0.0
    """Seconds the run waited for the disk."""
    verdict: Verdict | None = None
    """None: nothing to judge (virtual time, or no call was sent), or nothing wrong found and not enough data."""
    reasons: list[str] = []
    rule_that_decided: str | None = None
    """Name of the rule that made the verdict what it is; None when no rule was broken."""
    faults: list[Fault] = []
    """Every rule that was broken, worst first."""
    flatters: list[str] = []
    """What makes the server look better than it is to its users; said, not judged."""
    workers: int = 0
    cpu_share_p95: float | None = None
    """Of the worst worker, the second of the 95th percentile."""
    busy_share: float | None = None
    """Of the worst worker: share of the event loop's time spent serving."""
    busy_share_p95: float | None = None
    loop_lag_p50_s: float | None = None
    loop_lag_max_s: float | None = None
    handling_s: float | None = None
    """Spent reading chunks, summed over workers."""
    handling_share: float | None = None
    coalesced_share: float | None = None
    """Chunks that came in one read with the chunk before / all but the first of each call."""
    held_back_share: float | None = None
    """Of the time calls were due and not done, what they spent waiting to be sent."""
    bytes_sent: int | None = None
    bytes_received: int | None = None
    rss_max_bytes: int | None = None
    """Peak resident memory, summed over workers."""
    clock_source: str = ""
    clock_resolution_s: float | None = None


class Seen(Struct, frozen=True):
    """What the records say of the tool, where they were looked at."""

    held_back_share: float | None = None
    coalesced_share: float | None = None
    sent: int | None = None
    """Calls that left; None: not looked at."""


def seen(calls: Calls, due: Bools, zero_gaps: int, gaps: int) -> Seen:
    """From the calls due in the window, and how many of the gaps between their chunks were 0.

    Held back: sum of (sent - due) beyond 1 ms / sum of (done - due), over calls that were sent and ended.
    """
    took = calls.done_ns - calls.due_ns
    mine = due & np.isfinite(calls.sent_ns) & (took > 0)
    late = np.maximum(0.0, calls.sent_ns[mine] - calls.due_ns[mine] - FORGIVEN_NS)
    return Seen(
        held_back_share=float(np.sum(late) / np.sum(took[mine])) if mine.any() else None,
        coalesced_share=zero_gaps / gaps if gaps else None,
        sent=int(np.count_nonzero(due & np.isfinite(calls.sent_ns))),
    )


def judge(manifest: Manifest | None, lag_s: Stats, seen: Seen = Seen()) -> Tool:  # noqa: B008 (frozen)
    """The verdict on the tool's own overhead: the worst of its reasons; a simulated run has none."""
    if manifest is None:
        return Tool(reasons=["not measured"])
    cost = _cost(manifest, seen)
    if manifest.backend == "simulated":
        return _with(cost, None, ["virtual time: the tool's own speed is not in the numbers"])
    if not seen.sent if seen.sent is not None else lag_s.n == 0:
        return _with(cost, None, ["no call was sent"])
    found = _found(manifest, cost, lag_s)
    faults = [fault for rule in RULES if (fault := broken(rule, *found.get(rule.name, ("", None)))) is not None]
    faults.sort(key=lambda fault: get_args(Verdict).index(fault.verdict), reverse=True)
    missing = _missing(manifest, cost)
    reasons = [fault.words for fault in faults]
    if not faults:
        return _with(cost, None, [f"not enough data: {missing}"]) if missing else _with(cost, "valid", [])
    also = [words for words in (missing, starved(manifest.workers)) if words]
    return _with(cost, faults[0].verdict, reasons + also, faults)


def _with(cost: dict[str, Any], verdict: Verdict | None, reasons: list[str], faults: list[Fault] | None = None) -> Tool:
    decided = faults[0].rule if faults else None
    return Tool(verdict=verdict, reasons=reasons, rule_that_decided=decided, faults=faults or [], **cost)


def _cost(manifest: Manifest, seen: Seen) -> dict[str, Any]:
    """The figures of a Tool: those of the run, and of its workers summed or the worst."""
    wall_s, cpu_s, workers = manifest.wall_s, manifest.cpu_s, manifest.workers
    if cpu_s is not None and len(workers) > 1:  # one worker is the run's own process
        cpu_s += sum(worker.cpu_s for worker in workers)
    handling = [w.handling_s / w.wall_s for w in workers if w.handling_s is not None and w.wall_s > 0]
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "cpu_share": cpu_s / wall_s if cpu_s is not None and wall_s else None,
        "loop_lag_p99_s": _worst(workers, "loop_lag_p99_s") if workers else manifest.loop_lag_p99_s,
        "stalled_s": max([manifest.stalled_s, *(w.stalled_s for w in workers)]),
        "flatters": flatters(manifest),
        "workers": len(workers),
        "cpu_share_p95": _worst(workers, "cpu_share_p95"),
        "busy_share": _worst(workers, "busy_share"),
        "busy_share_p95": _worst(workers, "busy_share_p95"),
        "loop_lag_p50_s": _worst(workers, "loop_lag_p50_s"),
        "loop_lag_max_s": _worst(workers, "loop_lag_max_s"),
        "handling_s": _sum(workers, "handling_s"),
        "handling_share": max(handling, default=None),
        "coalesced_share": seen.coalesced_share,
        "held_back_share": seen.held_back_share,
        "bytes_sent": _sum(workers, "bytes_sent"),
        "bytes_received": _sum(workers, "bytes_received"),
        "rss_max_bytes": _sum(workers, "rss_max_bytes"),
        "clock_source": workers[0].clock_source if workers else "",
        "clock_resolution_s": _worst(workers, "clock_resolution_s"),
    }


def _values(workers: list[WorkerCost], name: str) -> list[Any]:
    return [value for worker in workers if (value := getattr(worker, name)) is not None]


def _worst(workers: list[WorkerCost], name: str) -> float | None:
    return max(_values(workers, name), default=None)


def _sum(workers: list[WorkerCost], name: str) -> Any:
    values = _values(workers, name)
    return sum(values) if values else None


def _found(manifest: Manifest, cost: dict[str, Any], lag_s: Stats) -> dict[str, tuple[str, float | None]]:
    """By rule: the level it was judged at, in words, and what was found; None where nothing can be said."""
    looks = min((worker.loop_looks for worker in manifest.workers), default=FEW_LOOKS)
    few_calls, few_looks = lag_s.n < FEW_CALLS, looks < FEW_LOOKS
    loop_lag_s = _worst(manifest.workers, "loop_lag_p90_s") if few_looks else cost["loop_lag_p99_s"]
    short = bool(_missing(manifest, cost))
    late_loop = loop_lag_s is not None and loop_lag_s > LATE_LOOP_S
    wall_s = manifest.wall_s
    return {
        "dispatch_lag": ("p50", lag_s.p50) if few_calls else ("p99", lag_s.p99),
        "loop_lag": ("p90" if few_looks else "p99", loop_lag_s),
        "busy": ("p95 of seconds", None if short else cost["busy_share_p95"]),
        "cpu": ("", None if short or cost["busy_share_p95"] is not None or cost["workers"] > 1 else cost["cpu_share"]),
        "handling": ("", None if short else cost["handling_share"]),
        "coalesced": ("", cost["coalesced_share"] if late_loop else None),
        "held_back": ("", cost["held_back_share"] if is_closed(manifest) and not few_calls else None),
        "stalled": ("", cost["stalled_s"] / wall_s if wall_s else None),
        "clock_resolution": ("", cost["clock_resolution_s"]),
    }


def starved(workers: list[WorkerCost]) -> str:
    """Words for a run whose event loop was busy without CPU time to show for it; empty for others.

    Timers that watch the clock only add CPU time, so what is missing went to other programs (or other machines).
    """
    for worker in workers:
        busy, used = worker.busy_share, worker.cpu_s / worker.wall_s if worker.wall_s > 0 else 1.0
        if busy is not None and used < busy - STARVED:
            return f"other programs had its core: busy {busy:.0%} of the time with {used:.0%} of a core"
    return ""


def is_closed(manifest: Manifest) -> bool:
    """Whether the run kept a number of sessions going."""
    recipe = manifest.config.get("recipe")
    load = recipe.get("load") if isinstance(recipe, dict) else None
    return isinstance(load, dict) and load.get("type") == "closed"


def _missing(manifest: Manifest, cost: dict[str, Any]) -> str:
    """Why the use of CPU cannot be judged; empty where it can."""
    if manifest.status == "running":
        return "the run is still going"
    if cost["cpu_share"] is None:
        return "CPU use unknown (the run did not come to its end)"
    if manifest.wall_s is not None and manifest.wall_s < SHORT_S:
        return f"the run took less than {SHORT_S:g} s"
    return ""


def flatters(manifest: Manifest) -> list[str]:
    """What makes a server look better than it is to its users, by the run's configuration of the server."""
    server = manifest.config.get("server")
    if not isinstance(server, dict):
        return []
    said = []
    body = server.get("body")
    temperature = server.get("temperature", body.get("temperature") if isinstance(body, dict) else None)
    if isinstance(temperature, int | float) and temperature == 0:
        said.append("temperature 0: greedy answers repeat themselves, which flatters speculative decoding and sampling")
    if server.get("max_model_len_lowered"):
        length = server.get("max_model_len")
        to = f" to {length:,} tokens" if isinstance(length, int) else ""
        said.append(
            f"the context was limited{to}, and longer calls of the workload were left out: the longest are the hardest"
        )
    said += [note for note in manifest.notes if note.startswith(NOT_RESET)]
    return said
