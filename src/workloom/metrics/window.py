"""The measured window of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workloom.metrics.frame import Calls, Window
from workloom.metrics.sessions import Sessions

if TYPE_CHECKING:
    from workloom.store.manifest import Manifest


def window_of(calls: Calls, sessions: Sessions, manifest: Manifest | None) -> Window:
    """The measured window of the manifest; where it has no end, through the last instant that was recorded."""
    start_ns = manifest.window_start_ns if manifest else 0
    if manifest is not None and manifest.window_end_ns is not None:
        return Window(start_ns, manifest.window_end_ns)
    if calls.warmup.any() and not start_ns:  # a run that was killed, or ended by a fault, had no time to say
        start_ns = int(np.min(calls.due_ns[~calls.warmup], initial=np.inf, where=True)) if (~calls.warmup).any() else 0
    last_ns = max(calls.end_ns, int(np.max(sessions.end_ns, initial=0.0)))
    return Window(start_ns, max(start_ns, last_ns + 1) if last_ns else start_ns)
