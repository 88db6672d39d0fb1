"""Which calls of a run are of one kind: by role, by model, by turn, by depth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from workloom.errors import UsageError, nearest
from workloom.metrics.frame import Bools
from workloom.metrics.measured import Coded, Measured


def rows_of(run: Measured, of: Iterable[tuple[str, str]]) -> Bools:
    """The rows that are all of these, as (`agent`, `main`) says. Raises UsageError for a role or model nobody has."""
    keep = np.ones(len(run.calls), dtype=np.bool_)
    for key, value in of:
        column: Coded = run.role if key == "agent" else run.model
        if value not in column.words:
            close = nearest(value, column.words)
            raise UsageError(
                f"no call of the run is of this {key}",
                expected=", ".join(column.words),
                found=value,
                hint=f"did you mean {close}?" if close else None,
            )
        keep &= column.codes == column.words.index(value)
    return keep
