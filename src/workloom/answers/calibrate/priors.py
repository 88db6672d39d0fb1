"""What is used where no run can tell: from the cards of model and GPU, or else from a system that has been measured.

The cards are those of the server's own model and GPU where both are known (a roofline, with its stated shares of the
peaks). Where they are not, the figures are of a profile that comes with workloom, of a model of the same kind, on an
H100: no better than its order of magnitude, and said to be so. Zero is a prior only where it is the truth.
"""

from __future__ import annotations

from typing import NamedTuple

from workloom.answers.calibrate.server import Server
from workloom.engine import profile as profiles
from workloom.engine.profile import StepCost
from workloom.engine.roofline import Shares, step_cost

DENSE, SPARSE = "llama-3.1-8b-h100x1", "qwen3-30b-a3b-h100x1"
"""Profiles fitted to kernel tables, of models without and with experts."""
LAUNCH_PS, ADMIT_PS = 5e9, 1e9
"""What the profiles computed from kernel tables have (scripts/make_profiles.py)."""
ADMIT_SHARE = 1 / 6
"""Of a launch with one new call, what that call makes of it: as those two have it."""
CALL_PS, PROMPT_TOKEN_PS = 2e9, 2e6
"""The same, of the front end."""
TAIL_PS, FIRST_TOKEN_PS, END_PS = 1e9, 2e9, 6e9
"""What was measured on one server (vLLM 0.17.1 on an H100): 1 to 2.3 ms, 1.9 to 2.5 ms, 6 to 9 ms."""
COMPUTED = "the default of the computed profiles (the upper end of the CPU work usual in vLLM)"
MEASURED = "the lower end of what was measured on one server, vLLM 0.17.1 on an H100"


class Priors(NamedTuple):
    """Coefficients, picoseconds, and where those of a step's computing come from."""

    step: StepCost
    source: str
    context_token_ps: float
    context_source: str
    pair_ps: float
    pair_source: str


def priors(server: Server) -> Priors:
    """Of a server."""
    card, gpu = server.card, server.gpu_card()
    if card is not None and gpu is not None:
        step, source = (
            step_cost(card, gpu, server.gpus, Shares()),
            f"a roofline of the cards {card.name} and {gpu.name}",
        )
    else:
        name = SPARSE if server.experts else DENSE
        missing = " and ".join(what for what, known in (("model", card), ("GPU", gpu)) if known is None)
        step, source = profiles.load(name).step, f"that of {name}, as there is no card of this {missing}"
    context, pair = server.context_token_ps(), server.pair_ps()
    return Priors(
        step,
        source,
        context or step.context_token_ps,
        "KV bytes over 0.91 of the memory bandwidth" if context else source,
        pair or step.pair_ps,
        "attention's operations at 0.4 of the peak" if pair else source,
    )
