"""`workloom probe decode`: TBC against batch size and context.

A cell of the table is a burst of `batch` calls with fresh prompts of equal length. Only its steady part counts: from
the moment the last stream has begun until the first one ends, so that all of them decode and nobody prefills.

    stream 1   |--prefill--|o o o o o o o o o o o o o o o|
    stream 2   |------prefill------|o o o o o o o o o o o o o|
    steady                          |===================|
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from workloom.answers.probe.fit import Fit, fit
from workloom.answers.probe.lab import Lab, Ran, tokens_of
from workloom.answers.probe.middle import Middle, middle
from workloom.clock import NS
from workloom.errors import UsageError
from workloom.execute import Simulated
from workloom.metrics.frame import Chunks
from workloom.metrics.stats import Floats
from workloom.session import Call, Part, Session

TERMS = ("step_s", "stream_s", "context_token_s")
SHORT = 256
STEADY_TOKENS = 64
"""Tokens of each stream in the steady part, about."""
LEAST_GAPS = 8
"""Gaps a stream must have in it."""
STEP_TOKENS = 2048
"""Prompt tokens of a step where nobody says: it tells how long the first stream must go on until the last begins."""
MOST_LIVE, MOST_SIMULATED = 32, 128
"""Streams at once that are tried by default."""


class Cell(Struct, frozen=True):
    """A batch size and a prompt length, over the repeats that had a steady part."""

    batch: int
    prompt_tokens: int
    context_tokens: float | None
    """Of a stream in the middle of the steady part, mean."""
    tbc_p50_s: Middle
    """Median gap between chunks, of each repeat."""
    tbc_p95_s: Middle
    token_s: Middle
    """Time of a token of one stream: mean over the steady part. Chunks of several tokens count as such."""
    tokens_per_s: Middle
    """Of all streams."""
    user_tokens_per_s: float | None
    together: int
    """Most streams that were seen to decode at once in any repeat."""
    why: str = ""
    """Where there are no figures: why not."""


class Decode(Struct, frozen=True):
    """`fit`: the time of a token as step_s + stream_s * batch + context_token_s * batch * context."""

    cells: list[Cell]
    fit: Fit | None
    notes: list[str]
    runs: list[str]


class Steady(NamedTuple):
    """The steady part of one burst. `gaps_s`: pooled over streams."""

    gaps_s: Floats
    tokens_per_s: float
    context_tokens: float


def sessions(batch: int, prompts: Sequence[int], repeats: int, steady: int, step_tokens: int) -> list[Session]:
    """Bursts: calls of one session that wait for nothing all leave when it begins."""
    out = []
    for r in range(repeats):
        for tokens in prompts:
            output = answer_tokens(batch, tokens, steady, step_tokens)
            agent = f"batch-{batch}-prompt-{tokens}"
            calls = [Call(str(i), output, agent=agent, fresh=(Part("user", tokens),)) for i in range(batch)]
            out.append(Session(_name(batch, tokens, r), tuple(calls)))
    return out


def answer_tokens(batch: int, prompt: int, steady: int, step_tokens: int) -> int:
    """Long enough that the first stream still decodes when the last one has for a while: one token for every step that
    prefills the others, of `step_tokens` or of one prompt."""
    return steady + LEAST_GAPS + max(batch, -(-batch * prompt // step_tokens))


def batches_of(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    found = [1]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    return found if found[-1] == most else [*found, most]


def decode(
    lab: Lab,
    batches: Sequence[int] | None = None,
    prompts: Sequence[int] | None = None,
    repeats: int = 6,
    steady: int = STEADY_TOKENS,
) -> Decode:
    """Measure the table, batch by batch; it ends where streams no longer decode all at once."""
    profile = lab.target.profile if isinstance(lab.target, Simulated) else None
    step_tokens = STEP_TOKENS if profile is None else min(STEP_TOKENS, profile.max_batched_tokens)
    if batches is None:
        most = MOST_LIVE if profile is None else min(MOST_SIMULATED, profile.max_num_seqs)
        batches = batches_of(most)
    if prompts is None:
        prompts = sorted({min(SHORT, lab.longest // 4), min(8192, lab.longest // 4)})
    longest = max(prompts) + answer_tokens(1, max(prompts), steady, step_tokens)
    if longest > lab.longest:
        raise UsageError(
            "a prompt and its answer are too long for this server",
            expected=f"at most {lab.longest:,} tokens",
            found=f"{longest:,}",
        )
    every = [each for b in batches for each in sessions(b, prompts, repeats, steady, step_tokens)]
    calls, tokens = tokens_of(every)
    lab.say(
        f"at most {calls:,} calls in {len(every):,} bursts of {batches[0]} to {batches[-1]} streams, "
        f"{tokens:,} prompt tokens"
    )
    lab.warm(prompts)
    cells: list[Cell] = []
    for batch in sorted(set(batches)):
        over = {cell.prompt_tokens for cell in cells if cell.token_s.value is None}
        open_ = [p for p in prompts if p not in over]
        fitting = [p for p in open_ if p + answer_tokens(batch, p, steady, step_tokens) <= lab.longest]
        cells += [_nothing(batch, p, "the answer would be too long") for p in open_ if p not in fitting]
        if lab.spent or not fitting:
            break
        lab.say(f"batch {batch}")
        ran = lab.run(f"batch-{batch}", sessions(batch, fitting, repeats, steady, step_tokens))
        found = [_cell(ran, batch, tokens, repeats) for tokens in fitting]
        cells += found
        if all(cell.token_s.value is None for cell in found):
            lab.note(f"stopped at {batch} streams: they never decoded all at once")
            break
    return Decode(cells, fit_of(cells), lab.notes, lab.runs)


def _name(batch: int, tokens: int, repeat: int) -> str:
    return f"batch {batch}, prompt of {tokens}, {repeat + 1}"


def _nothing(batch: int, tokens: int, why: str, together: int = 0) -> Cell:
    none = Middle()
    return Cell(batch, tokens, None, none, none, none, none, None, together, f"not enough data: {why}")


def _cell(ran: Ran, batch: int, tokens: int, repeats: int) -> Cell:
    found: list[Steady] = []
    together = asked = 0
    for r in range(repeats):
        rows = [ran.rows.get((_name(batch, tokens, r), str(i))) for i in range(batch)]
        there = [row for row in rows if row is not None and ran.ok[row]]
        asked += bool(there)
        streams = [_stream(ran, row) for row in there]
        together = max(together, at_once(streams))
        part = steady_part(streams, ran.prompt_tokens[there]) if len(there) == batch else None
        if part is not None:
            found.append(part)
    if not found:
        why = f"at most {together} of {batch} streams decoded at once" if asked else "no burst was answered"
        return _nothing(batch, tokens, why, together)
    rates = middle(part.tokens_per_s for part in found)
    return Cell(
        batch=batch,
        prompt_tokens=tokens,
        context_tokens=float(np.mean([part.context_tokens for part in found])),
        tbc_p50_s=middle(float(np.median(part.gaps_s)) for part in found),
        tbc_p95_s=middle(float(np.quantile(part.gaps_s, 0.95)) for part in found),
        token_s=middle(batch / part.tokens_per_s for part in found),
        tokens_per_s=rates,
        user_tokens_per_s=None if rates.value is None else rates.value / batch,
        together=together,
        why="" if len(found) == repeats else f"{len(found)} of {repeats} bursts had a steady part",
    )


class Stream(NamedTuple):
    """When the chunks of an answer came, and how many tokens each carried."""

    at_ns: Floats
    tokens: Floats


def _stream(ran: Ran, row: int) -> Stream:
    return _streams(ran)[row]


def _streams(ran: Ran) -> list[Stream]:
    """The streams of all rows; made once a run."""
    known: list[Stream] | None = ran.__dict__.get("streams")
    if known is None:
        known = [stream for piece in ran.run.pieces() for stream in expand(piece)]
        ran.__dict__["streams"] = known
    return known


def expand(piece: Chunks) -> list[Stream]:
    """Every chunk of some calls, in the order they came."""
    counts = piece.count
    runs = np.repeat(np.arange(len(counts)), counts)
    i = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    at_ns, tokens = piece.at(i, runs), piece.tokens_each[runs].astype(np.float64)
    ends = np.searchsorted(piece.call[runs], np.arange(piece.calls + 1))
    return [Stream(at_ns[a:b], tokens[a:b]) for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def steady_part(streams: Sequence[Stream], prompt_tokens: Floats) -> Steady | None:
    """What lies between the last stream's first chunk and the first stream's last one; None where that is too short.

    The chunk at the very beginning still follows a prefill, so gaps begin at the one after it.
    """
    if not streams or any(not len(stream.at_ns) for stream in streams):
        return None
    begin = max(float(stream.at_ns[0]) for stream in streams)
    end = min(float(stream.at_ns[-1]) for stream in streams)
    gaps: list[Floats] = []
    rate = 0.0
    contexts = []
    for stream, prompt in zip(streams, prompt_tokens.tolist(), strict=True):
        inside = (stream.at_ns > begin) & (stream.at_ns <= end)
        at_ns, tokens = stream.at_ns[inside], stream.tokens[inside]
        if len(at_ns) <= LEAST_GAPS or at_ns[-1] == at_ns[0]:
            return None
        gaps.append(np.diff(at_ns) / NS)
        rate += float(tokens[1:].sum()) / float(at_ns[-1] - at_ns[0]) * NS
        before = float(stream.tokens[stream.at_ns <= begin].sum())
        contexts.append(prompt + before + float(tokens.sum()) / 2)
    return Steady(np.concatenate(gaps), rate, float(np.mean(contexts)))


def at_once(streams: Sequence[Stream]) -> int:
    """Most streams between their first and last chunk at one instant."""
    edges = [(float(s.at_ns[0]), 1) for s in streams if len(s.at_ns)]
    edges += [(float(s.at_ns[-1]), -1) for s in streams if len(s.at_ns)]
    most = now = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


def fit_of(cells: Sequence[Cell]) -> Fit | None:
    """The time of a token over all cells that have one."""
    good = [cell for cell in cells if cell.token_s.value is not None and cell.context_tokens is not None]
    batch = np.array([float(cell.batch) for cell in good])
    context = np.array([cell.context_tokens or 0.0 for cell in good])
    times = np.array([cell.token_s.value or np.nan for cell in good])
    if len(good) < len(TERMS) + 1:
        return None
    return fit(TERMS, np.stack([np.ones_like(batch), batch, batch * context], axis=1), times)
