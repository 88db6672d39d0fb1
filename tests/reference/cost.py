"""How long a step takes, from the words of `workloom.engine.profile.StepCost`: one formula a line, nothing cached.

With speculation a decoding call is 1 + draft_tokens tokens of a step that cost like as many calls, but for its context
(it is read once); a decode-only step is told by its tokens, each with its share of the time.
"""

from __future__ import annotations

from fractions import Fraction

from reference.call import Step
from workloom.engine.profile import Speculative, StepCost


def experts_ps(cost: StepCost, tokens: int) -> int:
    """Reading the experts that so many tokens choose, each k of N at random."""
    if cost.experts_ps == 0:
        return 0
    return round(cost.experts_ps * (1 - (1 - cost.experts_per_token / cost.experts) ** tokens))


def decode_tokens(step: Step, speculative: Speculative | None) -> int:
    """Tokens of a step that its decoding calls take."""
    return step.B * (1 if speculative is None else speculative.step_tokens)


def launch_ps(cost: StepCost, step: Step, speculative: Speculative | None = None) -> int:
    """How long the CPU is busy launching a step: F, and H for each call new in it; 0 for decodes, one graph."""
    if step.n == 0:
        return 0
    floor = cost.graph_launch_ps if is_graph(cost, step, speculative) else cost.launch_ps
    return floor + cost.admit_ps * len(step.admitted)


def is_graph(cost: StepCost, step: Step, speculative: Speculative | None) -> bool:
    """Whether a step with prefill runs as piecewise graphs: by all its tokens, decoding ones too."""
    return step.n + decode_tokens(step, speculative) <= cost.graph_tokens


def prefill_ps(cost: StepCost, step: Step, speculative: Speculative | None) -> int:
    """a + b*n, where b is another one in a graph, and another one for the tokens beyond the knee."""
    if is_graph(cost, step, speculative):
        return cost.prefill_base_ps + cost.graph_token_ps * step.n
    below = min(step.n, cost.knee_tokens) if cost.knee_tokens else step.n
    return cost.prefill_base_ps + cost.prefill_token_ps * below + cost.beyond_token_ps * (step.n - below)


def form_ps(cost: StepCost, batch: int) -> int:
    """A decode-only step by the form, without contexts: a CUDA graph, its batch padded to the next captured size."""
    padded = min((size for size in cost.graph_sizes if size >= batch), default=batch)
    fixed = cost.weights_ps + experts_ps(cost, padded) + cost.sequence_ps * padded
    return fixed + cost.padding_ps * (padded - batch)


def decode_ps(cost: StepCost, batch: int) -> int:
    """The same from the nearest measurement, if there are any: the form then says only how far it is from there."""
    if not cost.decode_ps:
        return form_ps(cost, batch)
    below = [point for point in cost.decode_ps if point[0] <= batch]
    calls, measured_ps = below[-1] if below else cost.decode_ps[0]
    return measured_ps + form_ps(cost, batch) - form_ps(cost, calls)


def share_ps(step_ps: int, speculative: Speculative) -> int:
    """Of a step's time, that of one of the tokens it gives each call; rounded, halves up."""
    return int(Fraction(1000 * step_ps, speculative.acceptance_milli) + Fraction(1, 2))


def decode_only_ps(cost: StepCost, step: Step, speculative: Speculative | None) -> int:
    """A step of decoding calls; with speculation a token of it."""
    alone = decode_ps(cost, decode_tokens(step, speculative))
    if speculative is None:
        return alone + cost.context_token_ps * step.ctx
    return share_ps(alone + speculative.draft_ps, speculative) + share_ps(cost.context_token_ps, speculative) * step.ctx


def step_ps(cost: StepCost, step: Step, left_ps: int | None = None, speculative: Speculative | None = None) -> int:
    """Duration of a step: GPU time, or where there is prefill the launch and what it leaves on the GPU, if longer.

    `left_ps`: what is left of its launch when it begins; None: all of it.
    """
    if step.n == 0:
        return decode_only_ps(cost, step, speculative)
    batch = decode_tokens(step, speculative)
    gpu = max(cost.weights_ps + experts_ps(cost, step.n + batch), prefill_ps(cost, step, speculative))
    gpu += (cost.sequence_ps + cost.mixed_sequence_ps) * batch
    gpu += cost.pair_ps * step.pairs + cost.context_token_ps * step.ctx
    gpu += 0 if speculative is None else speculative.draft_ps
    left_ps = launch_ps(cost, step, speculative) if left_ps is None else left_ps
    return max(left_ps + cost.launch_tail_ps, gpu)
