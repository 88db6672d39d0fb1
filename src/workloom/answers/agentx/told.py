"""What the run's own summary tells: read where it was kept, since to make it anew takes a pass over all gaps."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from workloom.metrics.frame import Window
from workloom.metrics.summary import summarize
from workloom.store import Run


class Calls(Struct):
    due: int
    ok: int
    failed: int
    cancelled: int
    censored: int
    ended: int


class Throughput(Struct):
    output_tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None


class Verdict(Struct):
    verdict: str | None = None
    reasons: list[str] = field(default_factory=list)


class Told(Struct):
    """Of :class:`workloom.metrics.summary.Summary` what an aggregate needs."""

    window: Window
    calls: Calls
    throughput: Throughput
    tool: Verdict


def told(run: Run, window: Window) -> Told:
    """The summary of a run over its measured window."""
    kept = run.summary_json
    if kept is not None:
        try:
            found = msgspec.json.decode(kept, type=Told)
        except msgspec.MsgspecError:  # of a version that said it otherwise
            pass
        else:
            if found.window == window:
                return found
    return msgspec.convert(summarize(run, window), Told, from_attributes=True)
