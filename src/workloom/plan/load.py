"""How sessions are offered: so many at once, at a rate, or as they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from workloom import seeds
from workloom.clock import to_ns
from workloom.errors import PlanError

Arrival = Literal["poisson", "constant", "gamma"]
GAPS_AT_ONCE = 1024


class Closed(Struct, frozen=True, tag="closed"):
    """`concurrency` session trees at once: when one has drained, its slot takes the next."""

    concurrency: int

    def say(self) -> str:
        return f"{self.concurrency} session{'s' * (self.concurrency != 1)} at once"


class Open(Struct, frozen=True, tag="open"):
    """Sessions arrive whether or not earlier ones are done. `cv`: coefficient of variation of gamma gaps."""

    sessions_per_s: float
    arrival: Arrival = "poisson"
    cv: float = 1.0

    def say(self) -> str:
        how = f"gamma, CV {self.cv:g}" if self.arrival == "gamma" else self.arrival
        return f"{self.sessions_per_s:g} sessions/s, {how}"


class Replay(Struct, frozen=True, tag="replay"):
    """Sessions start when they were recorded to, on one clock that runs `time_scale` times as fast."""

    time_scale: float = 1.0

    def say(self) -> str:
        return "recorded starts" + (f", {self.time_scale:g} times as fast" if self.time_scale != 1 else "")


Load = Closed | Open | Replay


def arrivals(load: Open, seed: int) -> Iterator[int]:
    """Due instants of instance 0, 1, ... of an open loop, in nanoseconds.

    Gaps are whole draws, never clipped: clipping at three means raises the rate by 5 % and cuts the tail off. The
    first session comes after the first gap, so that any window of the process looks alike; constant gaps start at 0.
    """
    mean = 1 / load.sessions_per_s
    if load.arrival == "constant":
        k = 0
        while True:
            yield to_ns(k * mean)
            k += 1
    block, at = 0, 0.0
    while True:
        stream = seeds.stream(seed, "arrivals", block)
        if load.arrival == "poisson":
            gaps = stream.exponential(mean, GAPS_AT_ONCE)
        else:
            shape = 1 / load.cv**2
            gaps = stream.gamma(shape, mean / shape, GAPS_AT_ONCE)
        for gap in gaps.tolist():
            at += gap
            yield to_ns(at)
        block += 1


def check(load: Load) -> list[str]:
    """What is wrong with a load, in sentences."""
    faults = []
    if isinstance(load, Closed) and load.concurrency < 1:
        faults.append(f"concurrency must be 1 or more, not {load.concurrency}")
    if isinstance(load, Open):
        if not 1e-6 <= load.sessions_per_s <= 1e9:
            faults.append(f"a rate must be from 1e-6 to a billion, not {load.sessions_per_s}")
        if not 0.01 <= load.cv <= 100:
            faults.append(f"a coefficient of variation must be from 0.01 to 100, not {load.cv}")
    if isinstance(load, Replay) and not 1e-6 <= load.time_scale <= 1e9:
        faults.append(f"a time scale must be from 1e-6 to a billion, not {load.time_scale}")
    return faults


def parse_arrival(text: str) -> tuple[Arrival, float]:
    """`poisson`, `constant` or `gamma:CV`, as on the command line."""
    name, _, rest = text.partition(":")
    if name in ("poisson", "constant") and not rest:
        return ("poisson" if name == "poisson" else "constant"), 1.0
    if name == "gamma":
        try:
            return "gamma", float(rest)
        except ValueError:
            pass
    raise PlanError(
        "there is no such arrival process", where="--arrival", expected="poisson, constant or gamma:CV", found=text
    )
