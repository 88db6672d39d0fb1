"""Decode-only steps, from quiet windows: weights, experts, a cost a call, a cost a token of context."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloom.answers.calibrate.estimate import (
    Estimate,
    bootstrap,
    least_absolute,
    least_absolute_given,
    prior,
    settle,
)
from workloom.answers.calibrate.observed import Floats, Ints
from workloom.answers.calibrate.priors import priors
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
    said = priors(server)
    reads_context = bool((each > LONG_CONTEXT).sum() >= 5) and float(np.ptp(each)) > LONG_CONTEXT / 2
    ranges = len(sizes) > 0 and sizes.max() >= SPREAD * sizes.min() and len(np.unique(sizes)) >= 3
    top = _top(windows.batch, sizes)
    grows = "experts_ps" if server.experts else "sequence_ps"
    growing = experts_read(sizes, server) if server.experts else sizes.astype(np.float64)
    features = np.column_stack((np.ones(len(sizes)), growing, windows.context_tokens))
    fallback = {1: getattr(said.step, grows) / PS, 2: said.context_token_ps / PS}
    held = {at: fallback[at] for at, seen in ((1, ranges), (2, reads_context)) if not seen}

    def padding(points: Ints) -> float:
        seen = points[sizes[points] == top]
        if len(seen) < 2 or len(np.unique(windows.batch[seen])) < 2:
            return 0.0
        empty = (top - windows.batch[seen]).astype(np.float64)
        without = windows.gap_s[seen] - fallback[2] * windows.context_tokens[seen]
        return float(least_absolute(np.column_stack((np.ones(len(seen)), empty)), without)[1])

    def weights(points: Ints) -> Floats:
        counts = {size: int((sizes[points] == size).sum()) for size in np.unique(sizes[points])}
        return np.array([1 / (counts[size] + FEW) for size in sizes[points]])

    def fit(held: Mapping[int, float], points: Ints) -> Floats:
        target = windows.gap_s[points] - padding(points) * (sizes - windows.batch)[points]
        return least_absolute_given(features[points], target, held, weights(points))

    def loss(found: Floats) -> float:
        target = windows.gap_s - padding(everything) * (sizes - windows.batch)
        return float((weights(everything) * np.abs(features @ found - target)).sum())

    everything = np.arange(len(sizes))
    found, errors, held = settle(fit, loss, held, fallback, len(sizes), seed, "decode")
    at = list(zip(found.tolist(), errors.tolist(), strict=True))
    empty, spread = bootstrap(lambda points: np.array([padding(points)]), len(sizes), seed, "padding")
    out = {"weights_ps": _seen(at[0], len(sizes))}
    if top and empty[0] > 2 * spread[0]:
        out["padding_ps"] = _seen((float(empty[0]), float(spread[0])), int((sizes == top).sum()))
    else:
        missing = (
            "no padded batch size with calls enough of several batches"
            if not top
            else "what an empty slot costs is within its error"
        )
        out["padding_ps"] = prior(0.0, missing, "nothing beside the padding's share of the form")
    if 1 not in held:
        out[grows] = _seen(at[1], len(sizes))
    else:
        missing = f"decode batches (padded) of {sizes.min()} to {sizes.max()} only"
        out[grows] = prior(held[1] * PS, missing if not ranges else "batches make no difference", said.source)
    other, why = ("experts_ps", "the model has no experts")
    if server.experts:
        other, why = "sequence_ps", "over such batches it looks like experts_ps, which has it"
    out[other] = Estimate(0.0, None, 0, not server.experts, why)
    if 2 not in held:
        out["context_token_ps"] = _seen(at[2], len(sizes))
    else:
        missing = f"contexts up to {int(each.max()):,} tokens, over 20,000 needed"
        missing = missing if not reads_context else "contexts make no difference"
        out["context_token_ps"] = prior(held[2] * PS, missing, said.context_source)
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
