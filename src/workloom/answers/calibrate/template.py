"""What the server's chat template adds to prompts, and whether answers can be found again, where a run tells."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec.structs import replace

from workloom.answers.calibrate.estimate import Estimate, prior
from workloom.answers.calibrate.observed import Observed
from workloom.answers.calibrate.server import Server
from workloom.engine.profile import Template

FEWEST = 8
GENERATED = "template.answers"


def fit_template(runs: list[Observed], server: Server) -> tuple[Template, dict[str, Estimate]]:
    """Server's prompt tokens less the client's, by the number of calls before; cached tokens against the last prompt.

    Where the server says neither, what was given stands (`Server.template`).
    """
    given = server.template
    level = np.concatenate([run.level for run in runs])
    beyond = np.concatenate([run.server_tokens - run.prompt_tokens for run in runs])
    said = ~np.isnan(beyond)
    stated = "an option" if "template" in server.source else "a template that adds nothing"
    if said.sum() < FEWEST:
        missing = "the server's prompt tokens are not in these runs"
        out = {
            "template.call_tokens": prior(given.call_tokens, missing, stated),
            "template.turn_tokens": prior(given.turn_tokens, missing, stated),
        }
    else:
        call = float(np.median(beyond[said & (level == 0)])) if (said & (level == 0)).any() else 0.0
        later = said & (level > 0)
        turn = float(np.median((beyond[later] - call) / level[later])) if later.any() else 0.0
        call, turn = max(0.0, call), max(0.0, turn)
        out = {
            "template.call_tokens": Estimate(call, float(np.std(beyond[said & (level == 0)])), int(said.sum()), True),
            "template.turn_tokens": Estimate(
                turn, float(np.std(beyond[later])) if later.any() else 0.0, int(said.sum()), True
            ),
        }
        given = replace(given, call_tokens=max(round(call), given.tail_tokens), turn_tokens=round(turn, 3))
    answers = _answers(runs, server)
    if answers is None:
        out[GENERATED] = prior(
            float(given.answers == "repeated"), "no cached tokens beyond the last prompt, or none said", stated
        )
        return given, out
    out[GENERATED] = Estimate(float(answers == "repeated"), None, int(said.sum()), True, answers)
    return replace(given, answers=answers), out


def _answers(runs: list[Observed], server: Server) -> Literal["repeated", "rewritten"] | None:
    """Whether generated tokens are found in the next prompt, by calls whose answer filled a block.

    With state pages a boundary within an answer has its states too, since decoding steps end on every token.
    """
    beyond, at_most = 0, 0
    size = server.block_tokens
    for run in runs:
        for call in np.flatnonzero((run.before >= 0) & ~np.isnan(run.cached_tokens)).tolist():
            before = int(run.before[call])
            prompt = run.server_tokens[before]
            if np.isnan(prompt):
                continue
            whole = (prompt + run.output_tokens[before] - 1) // size * size
            if whole <= prompt or whole >= run.server_tokens[call]:
                continue  # no block ends within the answer
            beyond += run.cached_tokens[call] > prompt
            at_most += run.cached_tokens[call] <= prompt
    if beyond + at_most < FEWEST:
        return None
    return "repeated" if beyond > at_most else "rewritten"
