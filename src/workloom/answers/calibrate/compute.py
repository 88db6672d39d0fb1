"""What steps with prefill cost on the GPU, from those that end well behind their launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from workloom.answers.calibrate.decode import PS, SPREAD
from workloom.answers.calibrate.episodes import Episode, Step
from workloom.answers.calibrate.estimate import Estimate, least_absolute_given, prior, settle
from workloom.answers.calibrate.launch import BOUND_S, FEWEST, Beyond, Launches
from workloom.answers.calibrate.observed import Floats, Ints
from workloom.answers.calibrate.priors import priors
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
    said = priors(server)
    outlast = np.array([row.total_s > row.floor_s + BOUND_S for row in rows], dtype=bool)
    tokens = np.array([row.tokens for row in rows], dtype=np.float64)
    small = np.array([row.small for row in rows], dtype=bool)
    pairs = np.array([row.pairs for row in rows])
    batch = np.array([row.batch for row in rows], dtype=np.float64)
    floor = np.array([row.floor_s + BOUND_S - row.other_s for row in rows])
    wide = bool(outlast.sum() >= FEWEST and tokens[outlast].max() >= RANGE * tokens.min())
    long = bool(outlast.sum() >= FEWEST and (pairs[outlast] > PAIRS).sum() >= FEWEST)
    beside = bool(outlast.sum() >= FEWEST and batch[outlast].max() >= SPREAD * max(1.0, batch[outlast].min()))
    target = np.array([row.total_s - row.other_s for row in rows])
    columns = (np.where(small, 0.0, tokens), np.where(small, tokens, 0.0), batch, pairs, np.ones(len(rows)))
    features = np.column_stack(columns) if rows else np.zeros((0, 5))
    token = said.step.prefill_token_ps / PS
    beyond_decode = max(0.0, token - decode["sequence_ps"].value / PS)
    fallback = {0: token, 1: token, 2: beyond_decode, 3: said.pair_ps / PS, 4: read}
    none = {0: bool((outlast & ~small).any()), 1: bool((outlast & small).any())}
    held = {at: fallback[at] for at, seen in {**none, 2: beside, 3: long, 4: wide}.items() if not seen}

    def chosen(held: Mapping[int, float], points: Ints) -> tuple[Floats, Ints]:
        """Steps that outlast their launch took what they took; the others at most their launch."""
        if not outlast[points].any():
            return np.array([held.get(at, fallback[at]) for at in range(5)]), points[:0]
        use = points[outlast[points]]
        for _ in range(10):
            found = least_absolute_given(features[use], np.where(outlast, target, floor)[use], held)
            over = (features @ found > floor) & ~outlast
            after = points[outlast[points] | over[points]]
            if len(after) == len(use):
                break
            use = after
        return found, use

    def fit(held: Mapping[int, float], points: Ints) -> Floats:
        return chosen(held, points)[0]

    def loss(found: Floats) -> float:
        off = features @ found - np.where(outlast, target, floor)
        return float(np.where(outlast, np.abs(off), np.maximum(0.0, off)).sum())

    values, errors, held = settle(fit, loss, held, fallback, len(rows), seed, "compute")
    tokens, small, pairs = tokens[outlast], small[outlast], pairs[outlast]
    eager, graphs = int((~small).sum()), int(small.sum())
    out = {
        "prefill_token_ps": Estimate(float(values[0] * PS), float(errors[0] * PS), eager, True),
        "graph_token_ps": Estimate(float(values[1] * PS), float(errors[1] * PS), graphs, True),
    }
    if not launches.graphs:
        out["graph_token_ps"] = Estimate(0.0, None, 0, True, "no steps of another kind")
    elif graphs < FEWEST:
        held_at = out["prefill_token_ps"].value if eager >= FEWEST else token * PS
        out["graph_token_ps"] = prior(held_at, "no small step that its launch hides not", "that of larger ones")
    if eager < FEWEST:
        missing = f"{eager} large steps that outlast their launch"
        seen = graphs >= FEWEST
        value, source = (out["graph_token_ps"].value, "that of small ones") if seen else (token * PS, said.source)
        out["prefill_token_ps"] = prior(value, missing, source)
    elif tokens[~small].max() < LARGE:
        largest = f"seen up to {int(tokens[~small].max()):,} tokens a step"
        out["prefill_token_ps"] = Estimate(float(values[0] * PS), float(errors[0] * PS), eager, True, largest)
    most = int(pairs.max()) if len(pairs) else 0
    rest = (
        (
            2,
            "mixed_sequence_ps",
            "no range of batches beside steps that outlast their launch",
            f"a prefill token's, {said.source}",
        ),
        (3, "pair_ps", f"steps of up to {most:,} query-key pairs, over 20,000,000 needed", said.pair_source),
        (
            4,
            "prefill_base_ps",
            "no range of chunk sizes that outlast their launch",
            "reading the weights and all experts",
        ),
    )
    contrast = {2: beside, 3: long, 4: wide}
    for at, name, missing, source in rest:
        points = int((pairs > PAIRS).sum()) if name == "pair_ps" else len(tokens)
        out[name] = Estimate(float(values[at] * PS), float(errors[at] * PS), points, True)
        if at in held:
            out[name] = prior(held[at] * PS, "it makes no difference" if contrast[at] else missing, source)
        elif not values[at]:
            worse = f": {fallback[at] * PS:.3g} ps would fit worse" if fallback[at] else ""
            out[name] = replace(out[name], why=f"seen to be nothing{worse}")
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
