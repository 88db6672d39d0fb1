"""What a workload looks like, in numbers: `workloom inspect`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from msgspec import Struct, field

from workloom.model.reuse import CallReuse, reuse
from workloom.session import Call, Session
from workloom.traces import Duplicate, Reading, Report, Skipped

SHOWN = 5
"""Of what is listed one by one in a table."""


class Waits(Struct, frozen=True):
    """The waits before calls that follow one kind of gap, in seconds as recorded (no cap)."""

    count: int
    p50_s: float
    p90_s: float
    total_s: float


class Description(Struct, kw_only=True):
    """The numbers of a trace; the names are the keys of `inspect --json`.

    cached_blocks                 full blocks of all prompts that earlier prompts of the session begin with
    ideal_hit_rate                their tokens / prompt tokens: an infinite cache of prompts, by full blocks
                                  (by token for a trace without a block size)
    ideal_hit_rate_with_outputs   an infinite cache of prompts and answers, by token
    ..._with_outputs_blocks       the same with each call's hit floored to full blocks
    fresh_tokens_*                per call: prompt tokens that the infinite cache of prompts and answers does not hold
    prompt_reuse_ratio            mean over calls of 1 - fresh / prompt
    depth_max                     calls on the longest path of any session
    width_max                     most calls of a session at one depth (longest path from a root, in calls)
    context_shrinks               calls with a shorter prompt than the call before them of the same agent
    history_edits                 other calls that do not keep all (full blocks) of that prompt
    waits                         by gap: for each call the longest wait of its edges
    """

    format: str
    source: str
    block_tokens: int | None
    files: int
    sessions: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_blocks: int | None = None
    ideal_hit_rate: float | None = None
    ideal_hit_rate_with_outputs: float | None = None
    ideal_hit_rate_with_outputs_blocks: float | None = None
    fresh_tokens_median: float = 0.0
    fresh_tokens_mean: float = 0.0
    prompt_reuse_ratio: float | None = None
    prompt_tokens_median: float = 0.0
    prompt_tokens_max: int = 0
    output_tokens_median: float = 0.0
    output_tokens_mean: float = 0.0
    output_tokens_max: int = 0
    calls_per_session_median: float = 0.0
    calls_per_session_max: int = 0
    depth_max: int = 0
    width_max: int = 0
    subagents: int = 0
    async_subagents: int = 0
    models: dict[str, int] = field(default_factory=dict)
    zero_output_calls: int = 0
    context_shrinks: int = 0
    history_edits: int = 0
    waits: dict[str, Waits] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    merged: dict[str, int] = field(default_factory=dict)
    inferred: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)


def describe(reading: Reading) -> Description:
    """Read a trace once and say what it holds. Memory: the reading's own and a few numbers a call."""
    tally = _Tally(reading.header.block_tokens)
    for row in reuse(tally.watch(reading)):
        tally.call(row)
    report = reading.report
    out = Description(
        format=report.format,
        source=reading.header.source,
        block_tokens=reading.header.block_tokens,
        files=report.files,
        sessions=report.sessions,
        subagents=report.subagents,
        async_subagents=report.async_subagents,
        zero_output_calls=report.zero_outputs,
        duplicates=report.duplicates,
        renamed=report.renamed,
        skipped=report.skipped,
        ignored=report.ignored,
        merged=report.merged,
        inferred=report.inferred,
        dropped=report.dropped,
        assumptions=report.assumptions,
    )
    tally.fill(out)
    return out


class _Tally:
    """Sums and samples over sessions and calls."""

    def __init__(self, block_tokens: int | None) -> None:
        self._block = block_tokens or 1
        self._hashed = block_tokens is not None
        self._prompts, self._outputs, self._fresh = array("q"), array("q"), array("q")
        self._sizes = array("q")
        self._by_prompts = self._with_outputs = self._with_outputs_floored = 0
        self._waits: dict[str, array[float]] = {}
        self._models: dict[str, int] = {}
        self._depth = self._width = self._shrinks = self._edits = 0
        self._last: dict[str, tuple[int, str]] = {}

    def watch(self, sessions: Reading) -> Iterator[Session]:
        """Pass sessions on and note what is theirs."""
        for session in sessions:
            depth, width = extent(session)
            self._depth, self._width = max(self._depth, depth), max(self._width, width)
            self._sizes.append(len(session.calls))
            self._last = {}
            yield session

    def call(self, row: CallReuse) -> None:
        call, block = row.call, self._block
        self._prompts.append(row.prompt_tokens)
        self._outputs.append(call.output_tokens)
        self._fresh.append(row.fresh_tokens)
        self._by_prompts += row.held_by_prompts // block
        self._with_outputs += row.held_with_outputs
        self._with_outputs_floored += row.held_with_outputs // block
        self._models[call.model] = self._models.get(call.model, 0) + 1
        if call.after:
            edge = max(call.after, key=lambda edge: edge.wait_s)
            self._waits.setdefault(edge.gap, array("d")).append(edge.wait_s)
        self._history(call, row)

    def _history(self, call: Call, row: CallReuse) -> None:
        before = self._last.get(call.agent)
        self._last[call.agent] = (row.prompt_tokens, call.id)
        if before is None:
            return
        if row.prompt_tokens < before[0]:
            self._shrinks += 1
        elif row.held_by_prompts // self._block < before[0] // self._block:
            self._edits += 1

    def fill(self, out: Description) -> None:
        out.calls = len(self._prompts)
        out.prompt_tokens, out.output_tokens = sum(self._prompts), sum(self._outputs)
        out.depth_max, out.width_max = self._depth, self._width
        out.models = dict(sorted(self._models.items()))
        out.context_shrinks, out.history_edits = self._shrinks, self._edits
        out.waits = {gap: _waits(values) for gap, values in sorted(self._waits.items())}
        if not out.calls:
            return
        out.calls_per_session_median, out.calls_per_session_max = quantile(self._sizes, 0.5), max(self._sizes)
        out.prompt_tokens_median, out.prompt_tokens_max = quantile(self._prompts, 0.5), max(self._prompts)
        out.output_tokens_median, out.output_tokens_max = quantile(self._outputs, 0.5), max(self._outputs)
        out.output_tokens_mean, out.fresh_tokens_mean = mean(self._outputs), mean(self._fresh)
        out.fresh_tokens_median = quantile(self._fresh, 0.5)
        ratios = [1 - fresh / prompt for fresh, prompt in zip(self._fresh, self._prompts, strict=True) if prompt]
        out.prompt_reuse_ratio = mean(ratios) if ratios else None
        if out.prompt_tokens:
            out.ideal_hit_rate = self._by_prompts * self._block / out.prompt_tokens
            out.ideal_hit_rate_with_outputs = self._with_outputs / out.prompt_tokens
        if self._hashed:
            out.cached_blocks = self._by_prompts
            if out.prompt_tokens:
                out.ideal_hit_rate_with_outputs_blocks = self._with_outputs_floored * self._block / out.prompt_tokens


def extent(session: Session) -> tuple[int, int]:
    """Calls on the longest path of a session, and the most calls at one depth along such paths."""
    depth: dict[str, int] = {}
    level: dict[int, int] = {}
    for call in session.calls:
        here = depth[call.id] = 1 + max((depth[edge.call] for edge in call.after), default=0)
        level[here] = level.get(here, 0) + 1
    return max(level, default=0), max(level.values(), default=0)


def quantile(values: array[int] | array[float], q: float) -> float:
    """The q-quantile with linear interpolation between order statistics."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def mean(values: array[int] | list[float]) -> float:
    return sum(values) / len(values)


def _waits(values: array[float]) -> Waits:
    return Waits(len(values), quantile(values, 0.5), quantile(values, 0.9), sum(values))


def table(described: Description) -> list[tuple[str, str]]:
    """The numbers as rows of a name and a value to read."""
    d = described
    block = f"blocks of {d.block_tokens} tokens" if d.block_tokens else "no block size"
    rows = [
        ("trace", f"{d.format}, {many(d.files, 'file')}, {block}"),
        ("sessions", f"{d.sessions:,}"),
        ("calls", f"{d.calls:,} ({d.calls_per_session_median:,.4g} median, {d.calls_per_session_max:,} max a session)"),
        ("subagents", f"{d.subagents:,}" + (f" ({d.async_subagents:,} asynchronous)" if d.async_subagents else "")),
        ("depth, width", f"{d.depth_max:,} calls on the longest path, {d.width_max:,} at one depth at most"),
        ("prompt tokens", f"{d.prompt_tokens:,} ({d.prompt_tokens_median:,.0f} median, {d.prompt_tokens_max:,} max)"),
        ("output tokens", f"{d.output_tokens:,} ({d.output_tokens_median:,.0f} median, {d.output_tokens_max:,} max)"),
        ("fresh tokens", f"{d.fresh_tokens_median:,.1f} median, {d.fresh_tokens_mean:,.0f} mean a call"),
        ("ideal hit rate", f"{_percent(d.ideal_hit_rate)} prompts only{_blocks(d)}"),
        ("  with outputs", _percent(d.ideal_hit_rate_with_outputs) + _floored(d)),
        ("prompt reuse", f"{_percent(d.prompt_reuse_ratio)} mean over calls"),
        ("context shrinks", f"{d.context_shrinks:,}, other edits of history {d.history_edits:,}"),
        ("zero outputs", f"{d.zero_output_calls:,} calls"),
    ]
    rows += [("models", f"{name or '(not named)'}: {many(count, 'call')}") for name, count in d.models.items()]
    rows += [
        (f"waits, {gap}", f"{w.count:,}: p50 {w.p50_s:,.1f} s, p90 {w.p90_s:,.1f} s, total {w.total_s:,.0f} s")
        for gap, w in d.waits.items()
    ]
    return rows + notes(d)


def notes(told: Report | Description) -> list[tuple[str, str]]:
    """What a reader met on the way, as rows of a name and a value to read; long lists are cut."""
    rows = _some("duplicate", [f"{double.session} = {double.same_as} but for id" for double in told.duplicates])
    rows += _some("renamed", told.renamed)
    rows += _some("skipped", [f"{skipped.where}: {skipped.why}" for skipped in told.skipped])
    rows += _some("no trace", told.ignored)
    rows += [("merged", f"{count:,} x {what}") for what, count in told.merged.items()]
    rows += [("inferred", f"{count:,} x {what}") for what, count in told.inferred.items()]
    rows += [("dropped", f"{count:,} x {what}") for what, count in told.dropped.items()]
    return rows + [("assumed", what) for what in told.assumptions]


def _some(name: str, values: list[str]) -> list[tuple[str, str]]:
    rows = [(name, value) for value in values[:SHOWN]]
    return rows + ([(name, f"and {len(values) - SHOWN:,} more: see --json")] if len(values) > SHOWN else [])


def many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3f} %"


def _blocks(d: Description) -> str:
    return "" if d.cached_blocks is None else f", {d.cached_blocks:,} full blocks"


def _floored(d: Description) -> str:
    rate = d.ideal_hit_rate_with_outputs_blocks
    return "" if rate is None else f" by token, {_percent(rate)} by full blocks"
