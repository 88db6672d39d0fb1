"""How long a step takes, from the words of `workloom.engine.profile.StepCost`: one formula a line, nothing cached."""

from __future__ import annotations

from reference.call import Step
from workloom.engine.profile import StepCost


def experts_ps(cost: StepCost, tokens: int) -> int:
    """Reading the experts that so many tokens choose, each k of N at random."""
    if cost.experts_ps == 0:
        return 0
    return round(cost.experts_ps * (1 - (1 - cost.experts_per_token / cost.experts) ** tokens))


def launch_ps(cost: StepCost, step: Step) -> int:
    """How long the CPU is busy launching a step: F, and H for each call new in it; 0 for decodes, one graph."""
    if step.n == 0:
        return 0
    floor = cost.graph_launch_ps if is_graph(cost, step) else cost.launch_ps
    return floor + cost.admit_ps * len(step.admitted)


def is_graph(cost: StepCost, step: Step) -> bool:
    """Whether a step with prefill runs as piecewise graphs: by all its tokens, decoding ones too."""
    return step.n + step.B <= cost.graph_tokens


def prefill_ps(cost: StepCost, step: Step) -> int:
    """a + b*n, where b is another one in a graph, and another one for the tokens beyond the knee."""
    if is_graph(cost, step):
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


def step_ps(cost: StepCost, step: Step, left_ps: int | None = None) -> int:
    """Duration of a step: GPU time, or where there is prefill the launch and what it leaves on the GPU, if longer.

    `left_ps`: what is left of its launch when it begins; None: all of it.
    """
    if step.n == 0:
        return decode_ps(cost, step.B) + cost.context_token_ps * step.ctx
    gpu = max(cost.weights_ps + experts_ps(cost, step.n + step.B), prefill_ps(cost, step))
    gpu += (
        (cost.sequence_ps + cost.mixed_sequence_ps) * step.B
        + cost.pair_ps * step.pairs
        + cost.context_token_ps * step.ctx
    )
    return max((launch_ps(cost, step) if left_ps is None else left_ps) + cost.launch_tail_ps, gpu)
