"""What steps with prefill cost on the GPU, from those that end well behind their launch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workloom.answers.calibrate.decode import PS, SPREAD
from workloom.answers.calibrate.episodes import Episode, Step
from workloom.answers.calibrate.estimate import Estimate, bootstrap, least_absolute, prior
from workloom.answers.calibrate.launch import BOUND_S, FEWEST, Beyond, Launches
from workloom.answers.calibrate.observed import Floats, Ints
from workloom.answers.calibrate.server import Server

RANGE = 4.0
"""Ratio of chunk sizes from which a cost a step and a cost a token are told apart."""
PAIRS = 2e7
"""Query-key pairs of a step from which their cost shows."""
CLEARLY = 1.3
"""A gap so many times a launch is not that launch, whatever else goes on in the machine."""
LARGE = 2000
"""Tokens of a step that should be exceeded for its cost a token to hold near the budget."""


class _Row(NamedTuple):
    total_s: float
    floor_s: float
    """Launch and tail: what it takes at least."""
    tokens: int
    small: bool
    batch: int
    pairs: float
    other_s: float
    """What the decoding calls cost as in a step of theirs."""
    alone: bool


def fit_compute(
    found: list[Episode],
    server: Server,
    launches: Launches,
    decode: dict[str, Estimate],
    seed: int,
    beyond: Beyond | None = None,
) -> dict[str, Estimate]:
    """prefill_base_ps, prefill_token_ps, graph_token_ps, mixed_sequence_ps, pair_ps.

    `beyond`: what steps take on the GPU beyond their launch by an earlier fit. Without it only steps are used that no
    other step with prefill touches, where those are enough: nothing of others needs to be known for them.
    """
    rows = _rows(found, server, launches, decode, beyond)
    if beyond is None:
        sure = [row for row in rows if row.alone]
        rows = sure if sum(row.total_s > row.floor_s + BOUND_S for row in sure) >= FEWEST else rows
    read = (decode["weights_ps"].value + decode["experts_ps"].value) / PS
    pair = server.pair_ps() / PS
    outlast = np.array([row.total_s > row.floor_s + BOUND_S for row in rows], dtype=bool)
    tokens = np.array([row.tokens for row in rows], dtype=np.float64)
    small = np.array([row.small for row in rows], dtype=bool)
    pairs = np.array([row.pairs for row in rows])
    batch = np.array([row.batch for row in rows], dtype=np.float64)
    floor = np.array([row.floor_s + BOUND_S - row.other_s for row in rows])
    wide = bool(outlast.sum() >= FEWEST and tokens[outlast].max() >= RANGE * tokens.min())
    long = bool(outlast.sum() >= FEWEST and (pairs[outlast] > PAIRS).sum() >= FEWEST)
    target = np.array([row.total_s - row.other_s for row in rows])
    known = np.zeros(len(rows)) if wide else np.full(len(rows), read)
    if not long:
        known = known + pair * pairs
    columns = [np.where(small, 0.0, tokens), np.where(small, tokens, 0.0)]
    beside = bool(outlast.sum() >= FEWEST and batch[outlast].max() >= SPREAD * max(1.0, batch[outlast].min()))
    columns += [batch] if beside else []
    columns += [pairs] if long else []
    columns += [np.ones(len(rows))] if wide else []
    features = np.column_stack(columns) if rows else np.zeros((0, len(columns)))

    def fit(points: Ints) -> Floats:
        """Steps that outlast their launch took what they took; the others at most their launch."""
        if not outlast[points].any():
            return np.zeros(len(columns))
        chosen = points[outlast[points]]
        for _ in range(10):
            found = least_absolute(features[chosen], np.where(outlast, target, floor)[chosen] - known[chosen])
            over = (features @ found + known > floor) & ~outlast
            after = points[outlast[points] | over[points]]
            if len(after) == len(chosen):
                break
            chosen = after
        return found

    values, errors = bootstrap(fit, len(rows), seed, "compute")
    tokens, small, pairs = tokens[outlast], small[outlast], pairs[outlast]
    eager, graphs = int((~small).sum()), int(small.sum())
    out = {
        "prefill_token_ps": Estimate(float(values[0] * PS), float(errors[0] * PS), eager, True),
        "graph_token_ps": Estimate(float(values[1] * PS), float(errors[1] * PS), graphs, True),
    }
    if not launches.graphs:
        out["graph_token_ps"] = Estimate(0.0, None, 0, True, "no steps of another kind")
    elif graphs < FEWEST:
        out["graph_token_ps"] = prior(
            out["prefill_token_ps"].value, "no small step that its launch hides", "that of larger ones"
        )
    if eager < FEWEST:
        missing = f"{eager} large steps that outlast their launch"
        out["prefill_token_ps"] = prior(
            out["graph_token_ps"].value if graphs >= FEWEST else 0.0, missing, "that of small ones"
        )
    elif tokens[~small].max() < LARGE:
        largest = f"seen up to {int(tokens[~small].max()):,} tokens a step"
        out["prefill_token_ps"] = Estimate(float(values[0] * PS), float(errors[0] * PS), eager, True, largest)
    if beside:
        out["mixed_sequence_ps"] = Estimate(float(values[2] * PS), float(errors[2] * PS), len(tokens), True)
    else:
        out["mixed_sequence_ps"] = prior(0.0, "no range of batches beside steps that outlast their launch", "nothing")
    if long:
        at = 2 + beside
        out["pair_ps"] = Estimate(float(values[at] * PS), float(errors[at] * PS), int((pairs > PAIRS).sum()), True)
    else:
        most = int(pairs.max()) if len(pairs) else 0
        source = "attention's operations at 0.4 of the peak" if pair else "nothing: layers, heads or GPU are not known"
        out["pair_ps"] = prior(pair * PS, f"steps of up to {most:,} query-key pairs, over 20,000,000 needed", source)
    if wide:
        out["prefill_base_ps"] = Estimate(float(values[-1] * PS), float(errors[-1] * PS), len(tokens), True)
    else:
        missing = "no range of chunk sizes that outlast their launch"
        out["prefill_base_ps"] = prior(read * PS, missing, "reading the weights and all experts")
    return out


def beyond_by(launches: Launches, decode: dict[str, Estimate], compute: dict[str, Estimate], server: Server) -> Beyond:
    """What steps take on the GPU beyond their launch, by what was fitted."""

    def beyond(step: Step, episode: Episode) -> float:
        small = launches.graphs and step.tokens + episode.batch <= server.graph_tokens
        each = compute["graph_token_ps" if small else "prefill_token_ps"].value
        work = compute["prefill_base_ps"].value + each * step.tokens + compute["pair_ps"].value * step.pairs
        gpu = (work + compute["mixed_sequence_ps"].value * episode.batch) / PS + _beside(episode, decode)
        return gpu - launches.launch_s(step, episode.batch, server.graph_tokens)

    return beyond


def _beside(episode: Episode, decode: dict[str, Estimate]) -> float:
    """What the decoding calls of a step cost, seconds."""
    calls, contexts = (
        decode["sequence_ps"].value * episode.batch,
        decode["context_token_ps"].value * episode.context_tokens,
    )
    return (calls + contexts) / PS


def _rows(
    found: list[Episode],
    server: Server,
    launches: Launches,
    decode: dict[str, Estimate],
    beyond: Beyond | None,
) -> list[_Row]:
    """Steps with prefill whose end is seen."""
    out = []
    for episode in found:
        other = _beside(episode, decode)
        for index, step in enumerate(episode.steps[:-1]):
            if step is None:
                continue
            launch = launches.launch_s(step, episode.batch, server.graph_tokens)
            lasted = float(episode.gaps_s[index]), launch
            if launches.ahead:
                seen = _lasted(episode, index, launch, server, launches, beyond)
                if seen is None:
                    continue
                lasted = seen
            small = launches.graphs and step.tokens + episode.batch <= server.graph_tokens
            alone = episode.steps[index + 1] is None and episode.steps[index - 1] is None
            out.append(_Row(*lasted, step.tokens, small, episode.batch, step.pairs, other, alone))
    return out


def _lasted(
    episode: Episode, index: int, launch: float, server: Server, launches: Launches, beyond: Beyond | None
) -> tuple[float, float] | None:
    """How long a step that was decided ahead ran on the GPU, and how long it runs at least; None where it is hidden."""
    gap, tail = float(episode.gaps_s[index]), launches.launch_tail_ps.value / PS
    before, after = episode.steps[index - 1], episode.steps[index + 1]
    if after is not None:
        if gap < CLEARLY * launches.launch_s(after, episode.batch, server.graph_tokens) + BOUND_S:
            return None
        late = 0.0
    else:
        late = max(0.0, float(np.median(episode.gaps_s[index + 2 :]) - episode.gaps_s[index + 1]))
    held = float(episode.gaps_s[index - 1])
    if before is None:
        own = held - episode.decode_s
        return (own + gap - late, own + tail) if launch / CLEARLY < own < launch * CLEARLY else None
    over = tail if beyond is None else max(tail, beyond(before, episode))
    if over > CLEARLY * launch:  # it began when the step before it ended, its launch was over
        return gap - late, tail
    if not launch / CLEARLY < held < launch * CLEARLY:
        return None
    return held + gap - late - over, held + tail - over
