"""Which families of distributions the sizes and waits of calls have, told by AIC."""

from __future__ import annotations

from array import array

import numpy as np
from msgspec import Struct

from workloom.model.facts import SessionFacts
from workloom.model.families.choose import Choice, fits

MOST = 20_000
"""Values that are fitted: of more, so many evenly spaced ones in the order of the trace."""


class Law(Struct, frozen=True):
    """A sample of calls with every family that was fitted to it, best by AIC first.

    added     tokens of a prompt beyond the previous prompt of the context it goes on from, that answer included; calls
              that do not keep all of that context are left out
    fresh     tokens of fresh text
    output    tokens of the answer
    wait      seconds before the call
    """

    sample: str
    unit: str
    choice: Choice | None
    """None without a value."""


class LawsSection:
    """Fits families; memory: four numbers a call."""

    def __init__(self) -> None:
        self._samples = {name: array("d") for name in ("added", "fresh", "output", "wait")}

    def add(self, facts: SessionFacts) -> None:
        samples = self._samples
        for call in facts.calls:
            samples["fresh"].append(call.call.fresh_tokens)
            samples["output"].append(call.call.output_tokens)
            if call.parents:
                samples["wait"].append(call.wait_s)
            if call.before is not None:
                before = facts.calls[call.before]
                if call.inherited_tokens >= before.prompt_tokens + before.call.answer_tokens:
                    samples["added"].append(call.prompt_tokens - before.prompt_tokens)

    def result(self) -> tuple[Law, ...]:
        """The laws of added, fresh, output and wait."""
        return tuple(_law(name, values) for name, values in self._samples.items())


def _law(name: str, values: array[float]) -> Law:
    sample = np.asarray(values)
    if len(sample) > MOST:
        sample = sample[np.linspace(0, len(sample) - 1, MOST).astype(np.int64)]
    return Law(name, "s" if name == "wait" else "tokens", fits(sample) if len(sample) else None)
