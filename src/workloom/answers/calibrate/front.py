"""What stands between the engine and the client: templating and tokenising before it, delivery behind it."""

from __future__ import annotations

import numpy as np

from workloom.answers.calibrate.decode import PS
from workloom.answers.calibrate.episodes import Episode
from workloom.answers.calibrate.estimate import Estimate, bootstrap, least_absolute, prior
from workloom.answers.calibrate.launch import FEWEST
from workloom.answers.calibrate.observed import Floats, Ints, Observed

LENGTHS = 3
"""Different prompt lengths (they differ by a tenth at least) from which a cost a token is believed."""
CALL_PS, PROMPT_TOKEN_PS = 2e9, 2e6
"""What the profiles computed from kernel tables have (scripts/make_profiles.py): the priors."""
SAME_CALL = 0.05
"""A session's next call that leaves within so many seconds of the last token waited for nothing else."""


def fit_front(runs: list[tuple[Observed, Floats, list[Episode]]], ahead: bool, seed: int) -> dict[str, Estimate]:
    """call_ps, prompt_token_ps, first_token_ps, end_ps of the runs: (calls, prompts as the server counts, episodes).

    A lone arrival leaves the front end somewhere within a step, on average in its middle; the last ordinary token of
    others is the end of that step (and where steps are not decided ahead, the beginning of the stall). A first token
    that is late by more than is usual, which long prompts are, counts as front end.
    """
    stood, prompts, late = [], [], []
    for observed, tokens, found in runs:
        for episode in found:
            if len(episode.arrivals) != 1:
                continue
            call, at, sent = episode.arrivals[0]
            begin = next(index for index, step in enumerate(episode.steps) if step is not None)
            normal = begin - 1 if ahead else begin
            stood.append(float(episode.gaps_s[:normal].sum()) - sent - episode.decode_s / 2)
            prompts.append(float(tokens[call]))
            mine = observed.chunks[call]
            late.append(float(np.median(episode.gaps_s[at + 2 :])) - float(mine[1] - mine[0]))
    wait, prompt = np.array(late), np.array(prompts)
    usual = float(np.median(wait)) if late else 0.0
    stood_s = np.array(stood) + wait - usual
    lengths = _lengths(prompt)
    features = np.column_stack((np.ones(len(prompt)), prompt)) if lengths >= LENGTHS else np.ones((len(prompt), 1))

    def fit(points: Ints) -> Floats:
        return least_absolute(features[points], stood_s[points]) if len(points) else np.zeros(features.shape[1])

    if len(stood) < FEWEST:
        missing = f"{len(stood)} lone arrivals beside a call that decodes"
        stated = "the default of the computed profiles"
        out = {
            "call_ps": prior(CALL_PS, missing, stated),
            "prompt_token_ps": prior(PROMPT_TOKEN_PS, missing, stated),
            "first_token_ps": prior(0.0, missing, "delivered with its step"),
        }
    else:
        values, errors = bootstrap(fit, len(stood), seed, "front end")
        out = {"call_ps": Estimate(float(values[0] * PS), float(errors[0] * PS), len(stood), True)}
        if lengths >= LENGTHS:
            out["prompt_token_ps"] = Estimate(float(values[1] * PS), float(errors[1] * PS), len(stood), True)
        else:
            out["prompt_token_ps"] = prior(0.0, f"{lengths} prompt lengths, 3 needed", "nothing: it is part of call_ps")
        out["first_token_ps"] = Estimate(max(0.0, usual) * PS, _error(wait) * PS, len(late), True)
    leaves = np.concatenate([_turnaround(observed) for observed, _, _ in runs])
    if len(leaves) >= FEWEST:
        out["end_ps"] = Estimate(float(np.median(leaves)) * PS, _error(leaves) * PS, len(leaves), True)
    else:
        out["end_ps"] = prior(0.0, f"{len(leaves)} calls that follow another at once", "nothing")
    return out


def _lengths(prompts: Floats) -> int:
    count, last = 0, 0.0
    for tokens in np.sort(prompts).tolist():
        if tokens > 1.1 * last:
            count, last = count + 1, tokens
    return count


def _turnaround(observed: Observed) -> Floats:
    """From the last token of a call to its session's next being sent, where nothing else was waited for."""
    follows = np.flatnonzero(observed.before >= 0)
    waits: Floats = observed.start_s[follows] - observed.last_s[observed.before[follows]]
    return waits[(waits >= 0) & (waits < SAME_CALL)]


def _error(values: Floats) -> float:
    """Of the median."""
    quarter = np.percentile(values, (25, 75))
    return float((quarter[1] - quarter[0]) / 1.349 * 1.2533 / np.sqrt(len(values)))
