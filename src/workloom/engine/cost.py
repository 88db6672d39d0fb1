"""How long a step takes, in integer picoseconds. The form and its source are in :mod:`workloom.engine.profile`."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

from workloom.engine.profile import StepCost


class Cost:
    """Step times of one profile."""

    def __init__(self, step: StepCost) -> None:
        self._step = step
        self._experts = cache(self._experts_read)

    def _experts_read(self, tokens: int) -> int:
        """Reading the experts that `tokens` tokens touch, each choosing k of N at random."""
        step = self._step
        if not step.experts_ps:
            return 0
        return round(step.experts_ps * (1 - (1 - step.experts_per_token / step.experts) ** tokens))

    def _padded(self, batch: int) -> int:
        sizes = self._step.graph_sizes
        at = bisect_left(sizes, batch)
        return sizes[at] if at < len(sizes) else batch

    def decode(self, batch: int, context_tokens: int) -> tuple[int, int]:
        """A decode-only step over `context_tokens` in all, and how much longer each following one takes."""
        step, padded = self._step, self._padded(batch)
        fixed = step.weights_ps + self._experts(padded) + step.sequence_ps * padded
        return fixed + step.context_token_ps * context_tokens, step.context_token_ps * batch

    def gpu(self, prefill_tokens: int, pairs: int, batch: int, context_tokens: int) -> int:
        """GPU time of a step with prefill, beside `batch` decoding calls."""
        step = self._step
        read = step.weights_ps + self._experts(prefill_tokens + batch)
        compute = step.prefill_base_ps + step.prefill_token_ps * prefill_tokens
        return (
            max(read, compute)
            + step.sequence_ps * batch
            + step.pair_ps * pairs
            + step.context_token_ps * context_tokens
        )

    def gpu_growth(self, chunk_tokens: int, batch: int) -> int:
        """How much longer each following step takes when one call prefills equal chunks."""
        return self._step.pair_ps * chunk_tokens * chunk_tokens + self._step.context_token_ps * batch

    def floor(self, admitted: int) -> int:
        """CPU time to launch a step with prefill."""
        return self._step.launch_ps + self._step.admit_ps * admitted


def pairs(chunk_tokens: int, before_tokens: int) -> int:
    """Query-key pairs of a prefill chunk: n*P + n^2/2, rounded down."""
    return chunk_tokens * before_tokens + chunk_tokens * chunk_tokens // 2
