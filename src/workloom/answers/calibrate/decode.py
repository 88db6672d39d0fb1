"""Decode-only steps, from quiet windows: weights, experts, a cost a call, a cost a token of context."""

from __future__ import annotations

import numpy as np

from workloom.answers.calibrate.estimate import Estimate, bootstrap, least_absolute, prior
from workloom.answers.calibrate.observed import Floats, Ints
from workloom.answers.calibrate.server import Server
from workloom.answers.calibrate.windows import Windows
from workloom.engine.profile import FitError

PS = 1e12
LONG_CONTEXT = 20_000
"""Contexts up to which KV reads drown in the rest of a step, tokens a call."""
FEW = 10
"""Windows of a batch size below which they weigh one by one."""
SPREAD = 4.0
"""Ratio of the largest padded batch to the smallest from which their costs are told apart."""


def padded(batch: Ints, sizes: tuple[int, ...]) -> Ints:
    """Batches as decode-only graphs pad them."""
    if not sizes:
        return batch
    at = np.minimum(np.searchsorted(sizes, batch), len(sizes) - 1)
    return np.where(batch > sizes[-1], batch, np.asarray(sizes)[at])


def experts_read(tokens: Floats | Ints, server: Server) -> Floats:
    """The share of all experts that so many tokens touch."""
    share = server.experts_per_token / server.experts if server.experts else 0.0
    return np.asarray(1 - (1 - share) ** np.asarray(tokens, dtype=np.float64))


def fit_decode(windows: Windows, server: Server, seed: int) -> dict[str, Estimate]:
    """weights_ps, experts_ps, sequence_ps, padding_ps, context_token_ps.

    Every padded batch size that is seen often weighs the same: what is fitted is the form, not the load. Of a model
    with experts the cost a call is left at zero: over any range of batches an experiment can reach, the two look alike.
    What padding costs is seen in the largest padded size: the form is needed for those above it.
    """
    sizes = padded(windows.batch, server.graph_sizes)
    each = windows.context_tokens / np.maximum(windows.batch, 1)
    known = server.context_token_ps() / PS
    reads_context = bool((each > LONG_CONTEXT).sum() >= 5) and float(np.ptp(each)) > LONG_CONTEXT / 2
    ranges = len(sizes) > 0 and sizes.max() >= SPREAD * sizes.min() and len(np.unique(sizes)) >= 3
    top = _top(windows.batch, sizes)
    columns = [np.ones(len(sizes))]
    if ranges:
        columns.append(experts_read(sizes, server) if server.experts else sizes.astype(np.float64))
    if reads_context:
        columns.append(windows.context_tokens)
    without = windows.gap_s - known * windows.context_tokens
    features = np.column_stack(columns)

    def fit(points: Ints) -> Floats:
        counts = {size: int((sizes[points] == size).sum()) for size in np.unique(sizes[points])}
        weights = np.array([1 / (counts[size] + FEW) for size in sizes[points]])
        padding = 0.0
        seen = points[sizes[points] == top]
        if len(seen) > 1 and len(np.unique(windows.batch[seen])) > 1:
            empty = (top - windows.batch[seen]).astype(np.float64)
            padding = float(least_absolute(np.column_stack((np.ones(len(seen)), empty)), without[seen])[1])
        target = (windows.gap_s if reads_context else without) - padding * (sizes - windows.batch)
        return np.append(padding, least_absolute(features[points], target[points], weights))

    found, errors = bootstrap(fit, len(sizes), seed, "decode")
    at = iter(zip(found.tolist(), errors.tolist(), strict=True))
    padding = _seen(next(at), int((sizes == top).sum()))
    out = {"weights_ps": _seen(next(at), len(sizes))}
    if top:
        out["padding_ps"] = padding
    else:
        out["padding_ps"] = prior(0.0, "no padded batch size with calls enough of several batches", "nothing")
    grows = "experts_ps" if server.experts else "sequence_ps"
    if ranges:
        out[grows] = _seen(next(at), len(sizes))
    else:
        missing = (
            f"decode batches (padded) of {sizes.min() if len(sizes) else 0} to {sizes.max() if len(sizes) else 0} only"
        )
        out[grows] = prior(0.0, missing, "nothing: steps of larger batches come out too fast")
    other = "sequence_ps" if server.experts else "experts_ps"
    out[other] = Estimate(0.0, None, 0, True, "left out of the form" if server.experts else "the model has no experts")
    if reads_context:
        out["context_token_ps"] = _seen(next(at), len(sizes))
    else:
        longest = int(each.max()) if len(each) else 0
        source = "KV bytes over 0.91 of the memory bandwidth" if known else "nothing: KV bytes or GPU are not known"
        out["context_token_ps"] = prior(known * PS, f"contexts up to {longest:,} tokens, over 20,000 needed", source)
    return out


def measured(windows: Windows, context_token_ps: float) -> tuple[tuple[int, int], ...]:
    """Decode-only steps by batch, without their contexts, picoseconds: batches with windows enough to be believed."""
    out = []
    for batch in np.unique(windows.batch).tolist():
        seen = windows.batch == batch
        if seen.sum() >= FEW:
            bare = windows.gap_s[seen] - context_token_ps / PS * windows.context_tokens[seen]
            out.append((batch, max(1, round(float(np.median(bare)) * PS))))
    return tuple(out)


def fit_error(windows: Windows, decode: dict[str, Estimate], server: Server) -> FitError:
    """How far the form is from the quiet windows; steps with prefill are judged by the residuals of a replay."""
    sizes = padded(windows.batch, server.graph_sizes)
    form = (
        decode["weights_ps"].value
        + decode["experts_ps"].value * experts_read(sizes, server)
        + decode["sequence_ps"].value * sizes
        + decode["padding_ps"].value * (sizes - windows.batch)
        + decode["context_token_ps"].value * windows.context_tokens
    ) / PS
    off = np.abs(form / windows.gap_s - 1)
    often = [batch for batch in np.unique(windows.batch) if (windows.batch == batch).sum() >= FEW]
    each = [float(np.median(off[windows.batch == batch])) for batch in often] or [float(np.median(off))]
    return FitError(
        prefill_max=0.0,
        decode_max=round(max(each), 4),
        mixed_max=None,
        mean=round(float(np.mean(each)), 4),
        points=len(off),
    )


def _top(batch: Ints, sizes: Ints) -> int:
    """The largest padded size that several batches, each seen often, are padded to; 0: there is none."""
    for size in np.unique(sizes)[::-1].tolist():
        often = [each for each in np.unique(batch[sizes == size]).tolist() if (batch == each).sum() >= FEW]
        if len(often) >= 3:
            return int(size)
    return 0


def _seen(found: tuple[float, float], points: int) -> Estimate:
    return Estimate(found[0] * PS, found[1] * PS, points, True)
