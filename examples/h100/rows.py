"""Measured rows of the published experiments, where somebody has them: they are not in this repository.

One row a call: session_id, ready_s, dispatched_s, picked_up_s, completed_s, prompt_tokens, fresh_tokens, output_tokens,
ttfc_s, e2e_s (both from picked_up_s), tbc_s (a list: gaps between consecutive chunks).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from h100.figures import Floats, Table
from workloom import seeds
from workloom.errors import UsageError

TOLD = ((323, 300.0), (362, 330.0))
"""Of the arrivals behind those in the rows it is only known which session came at which unit."""


def table(path: Path) -> Table:
    """Rows as columns; they do not tell what the server counted."""
    rows = pq.read_table(path)

    def column(name: str) -> Floats:
        values: Floats = rows.column(name).to_numpy().astype(np.float64)
        return values

    picked, ttfc, e2e = column("picked_up_s"), column("ttfc_s"), column("e2e_s")
    gaps = rows.column("tbc_s").combine_chunks().flatten().to_numpy().astype(np.float64)
    return Table(
        ttfc_s=ttfc,
        e2e_s=e2e,
        first_s=picked + ttfc,
        last_s=picked + e2e,
        prompt_tokens=column("prompt_tokens"),
        new_tokens=column("fresh_tokens"),
        gaps_s=gaps,
        served_tokens=None,
        cached_tokens=None,
        failed=0,
    )


def starts_s(path: Path) -> Floats:
    """When each session sent its first call, in order."""
    try:
        rows = pq.read_table(path, columns=["session_id", "dispatched_s"])
    except (pa.ArrowException, OSError) as error:
        hint = "measured rows are one .parquet file, a call a row; without them arrivals are made from seeds"
        raise UsageError("these rows cannot be read", where=str(path), found=error, hint=hint) from error
    sessions, dispatched = (rows.column(name).to_numpy() for name in ("session_id", "dispatched_s"))
    return np.array([dispatched[sessions == k].min() for k in np.unique(sessions)])


def unit_starts(path: Path, sessions_per_s: float) -> list[float]:
    """The same in units of the mean gap: one sequence, whatever the rate it was divided by."""
    return [float(at) * sessions_per_s for at in starts_s(path)]


def continued(
    starts: Sequence[float], until: float, seed: int, told: Sequence[tuple[int, float]] = TOLD
) -> list[float]:
    """Unit starts, gone on with gaps drawn from the clipped exponential, so that what is told of the rest is true."""
    stream = seeds.stream(seed, "continued")
    out = list(starts)
    for session, unit in [*told, (None, until)]:
        if session is None:
            while out[-1] < unit:
                out.append(out[-1] + min(float(stream.exponential()), 3.0))
        elif session >= len(out):
            gaps = np.minimum(stream.exponential(size=session + 1 - len(out)), 3.0)
            out += (out[-1] + np.cumsum(gaps) * (unit - out[-1]) / gaps.sum()).tolist()
    return out


def ttfc_by_turn(path: Path, turns: int = 10) -> list[float]:
    """Median TTFC, in seconds, of turns 0 to 9, 10 to 19, ... of all sessions."""
    rows = pq.read_table(path, columns=["session_id", "picked_up_s", "ttfc_s"])
    sessions, picked, ttfc = (rows.column(name).to_numpy() for name in rows.column_names)
    turn = np.zeros(len(ttfc), dtype=np.int64)
    for k in np.unique(sessions):
        mine = np.flatnonzero(sessions == k)
        turn[mine[np.argsort(picked[mine])]] = np.arange(len(mine))
    return [float(np.median(ttfc[turn // turns == i])) for i in range(int(turn.max()) // turns + 1)]
