"""What stands between the engine and the client: templating and tokenising before it, delivery behind it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloom.answers.calibrate.decode import PS
from workloom.answers.calibrate.episodes import Episode
from workloom.answers.calibrate.estimate import Estimate, least_absolute_given, prior, settle
from workloom.answers.calibrate.launch import FEWEST
from workloom.answers.calibrate.observed import Floats, Ints, Observed
from workloom.answers.calibrate.priors import CALL_PS, END_PS, FIRST_TOKEN_PS, MEASURED, PROMPT_TOKEN_PS

LENGTHS = 3
"""Different prompt lengths (they differ by a tenth at least) from which a cost a token is believed."""
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
    features = np.column_stack((np.ones(len(prompt)), prompt))

    def fit(held: Mapping[int, float], points: Ints) -> Floats:
        return least_absolute_given(features[points], stood_s[points], held) if len(points) else np.zeros(2)

    def loss(found: Floats) -> float:
        return float(np.abs(features @ found - stood_s).sum())

    stated = "the default of the computed profiles"
    if len(stood) < FEWEST:
        missing = f"{len(stood)} lone arrivals beside a call that decodes"
        out = {
            "call_ps": prior(CALL_PS, missing, stated),
            "prompt_token_ps": prior(PROMPT_TOKEN_PS, missing, stated),
            "first_token_ps": prior(FIRST_TOKEN_PS, missing, MEASURED),
        }
    else:
        fallback = {0: CALL_PS / PS, 1: PROMPT_TOKEN_PS / PS}
        known = {1: min(fallback[1], float(np.median(stood_s / prompt)))} if lengths < LENGTHS else {}
        values, errors, held = settle(fit, loss, known, fallback, len(stood), seed, "front end")
        out = {}
        for at, name in enumerate(("call_ps", "prompt_token_ps")):
            out[name] = Estimate(float(values[at] * PS), float(errors[at] * PS), len(stood), True)
            if at in held:
                missing = (
                    f"{lengths} prompt lengths, 3 needed" if at and lengths < LENGTHS else "it makes no difference"
                )
                out[name] = prior(float(values[at] * PS), missing, stated)
        out["first_token_ps"] = Estimate(usual * PS, _error(wait) * PS, len(late), True)
        if usual <= 0:
            out["first_token_ps"] = prior(0.0, "first tokens come no later than others", "delivered with its step")
    leaves = np.concatenate([_turnaround(observed) for observed, _, _ in runs])
    if len(leaves) >= FEWEST:
        out["end_ps"] = Estimate(float(np.median(leaves)) * PS, _error(leaves) * PS, len(leaves), True)
    else:
        out["end_ps"] = prior(END_PS, f"{len(leaves)} calls that follow another at once", MEASURED)
    return out


def _lengths(prompts: Floats) -> int:
    count, last = 0, 0.0
    for tokens in np.sort(prompts).tolist():
        if tokens > 1.1 * last:
            count, last = count + 1, tokens
    return count


def _turnaround(observed: Observed) -> Floats:
    """From the last token of what a call waited for to its being sent, where it waited for nothing else.

    Of calls that were ready together only the first counts: a client takes them up one by one.
    """
    first: dict[int, float] = {}
    last = observed.last_s
    for call, after in enumerate(observed.after):
        if after:
            wait = float(observed.start_s[call] - max(last[at] for at in after))
            family = int(observed.family[call])
            first[family] = min(first.get(family, wait), wait)
    waits = np.array(list(first.values()))
    return waits[(waits >= 0) & (waits < SAME_CALL)]


def _error(values: Floats) -> float:
    """Of the median."""
    quarter = np.percentile(values, (25, 75))
    return float((quarter[1] - quarter[0]) / 1.349 * 1.2533 / np.sqrt(len(values)))
