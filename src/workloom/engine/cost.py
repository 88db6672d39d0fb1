"""How long a step takes, in integer picoseconds. The form and its source are in :mod:`workloom.engine.profile`."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

from workloom.engine.batch import Batch
from workloom.engine.profile import Speculative, StepCost


class Cost:
    """Step times of one profile.

    With speculation a decoding call is 1 + draft_tokens tokens of a step, and costs like as many decoding calls, but
    that its context is read once; each step takes `draft_ps` more. A decode-only step, which gives every call as many
    tokens as the acceptance length says, is told token by token: each takes its share of that time, rounded for the
    part without contexts and for a token of context on their own.
    """

    def __init__(self, step: StepCost, speculative: Speculative | None = None) -> None:
        self._step = step
        self._tokens = 1 if speculative is None else speculative.step_tokens
        self._draft_ps = 0 if speculative is None else speculative.draft_ps
        self._milli = 1000 if speculative is None else speculative.acceptance_milli
        self._context_ps = self._share(step.context_token_ps)
        self._experts = cache(self._experts_read)
        self._decode_fixed = cache(self._decode_without_contexts)

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
        """A decode-only step over `context_tokens` in all, and how much longer each following one takes.

        With speculation: a token of it.
        """
        return self._decode_fixed(batch) + self._context_ps * context_tokens, self._context_ps * batch

    def _share(self, step_ps: int) -> int:
        """Of a step's time, that of one of its tokens; rounded."""
        return (2000 * step_ps + self._milli) // (2 * self._milli)

    def _decode_without_contexts(self, batch: int) -> int:
        return self._share(self._measured(batch * self._tokens) + self._draft_ps)

    def _measured(self, batch: int) -> int:
        measured = self._step.decode_ps
        if not measured:
            return self._decode_form(batch)
        below = [each for each in measured if each[0] <= batch]
        calls, took = below[-1] if below else measured[0]
        return max(1, took + self._decode_form(batch) - self._decode_form(calls))

    def _decode_form(self, batch: int) -> int:
        step, padded = self._step, self._padded(batch)
        padding = step.padding_ps * (padded - batch)
        return step.weights_ps + self._experts(padded) + step.sequence_ps * padded + padding

    def gpu(self, prefill_tokens: int, pairs: int, batch: int, context_tokens: int) -> int:
        """GPU time of a step with prefill, beside `batch` decoding calls."""
        step, batch = self._step, batch * self._tokens
        read = step.weights_ps + self._experts(prefill_tokens + batch)
        compute = step.prefill_base_ps + self._matrix_work(prefill_tokens, batch)
        return (
            max(read, compute)
            + (step.sequence_ps + step.mixed_sequence_ps) * batch
            + step.pair_ps * pairs
            + step.context_token_ps * context_tokens
            + self._draft_ps
        )

    def _matrix_work(self, prefill_tokens: int, batch: int) -> int:
        step = self._step
        if self._graphs(prefill_tokens + batch):
            return step.graph_token_ps * prefill_tokens
        beyond = max(0, prefill_tokens - step.knee_tokens) if step.knee_tokens else 0
        return step.prefill_token_ps * (prefill_tokens - beyond) + step.beyond_token_ps * beyond

    def _graphs(self, tokens: int) -> bool:
        """Whether a step with prefill of so many tokens in all runs as piecewise graphs."""
        return tokens <= self._step.graph_tokens

    def gpu_growth(self, chunk_tokens: int, batch: int) -> int:
        """How much longer each following step takes when one call prefills equal chunks."""
        return self._step.pair_ps * chunk_tokens * chunk_tokens + self._step.context_token_ps * batch

    def launch(self, prefill_tokens: int, batch: int, admitted: int) -> int:
        """CPU time to launch a step with prefill. It ends `tail` after that at the earliest."""
        step = self._step
        graphs = self._graphs(prefill_tokens + batch * self._tokens)
        base = step.graph_launch_ps if graphs else step.launch_ps
        return base + step.admit_ps * admitted

    def times(self, batch: Batch, *, ahead: bool = False, early_ps: int = 0) -> tuple[int, int, int, int]:
        """Launch and time of a step, how much longer each following one takes, and for how many steps that is so.

        `ahead`: scheduling ahead. The launch of the step began `early_ps` before it; that of those following it begins
        when the one before is over, so they are alike once launches take no time of their own.
        """
        decodes, prefills = batch.decodes, batch.prefills
        if not prefills:
            context_ps = self._context_ps
            first = self._decode_fixed(decodes) + context_ps * batch.context_tokens
            return 0, first, context_ps * decodes, batch.steps
        tokens = total_pairs = 0
        for sequence, chunk in prefills:
            tokens += chunk
            total_pairs += pairs(chunk, sequence.computed)
        gpu = self.gpu(tokens, total_pairs, decodes, batch.context_tokens)
        slope = self.gpu_growth(tokens, decodes)
        launch = max(0, self.launch(tokens, decodes, batch.admitted + batch.joined) - early_ps)
        floor = launch + self._step.launch_tail_ps
        if ahead:
            if batch.steps == 1:
                return launch, max(gpu, floor), slope, 1
            alike = not launch and gpu >= max(floor, self.launch(tokens, decodes, 0))
            return launch, max(gpu, floor), slope, batch.steps if alike else 1
        if gpu >= floor:
            return launch, gpu, slope, batch.steps
        return launch, floor, 0, min(batch.steps, -(-(floor - gpu) // slope)) if slope else batch.steps


def pairs(chunk_tokens: int, before_tokens: int) -> int:
    """Query-key pairs of a prefill chunk: n*P + n^2/2, rounded down."""
    return chunk_tokens * before_tokens + chunk_tokens * chunk_tokens // 2
