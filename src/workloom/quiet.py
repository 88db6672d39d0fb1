"""A quiet interpreter while time is real: a garbage collection would be counted as a server's latency."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (10_000, 20, 100)
"""Young collections stay short, and those of everything that the run itself made are rare."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the collector away from all that is alive now (modules, trace, plan): a look through it takes 10 ms."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
