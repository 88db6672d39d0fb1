"""How sessions are offered: so many at once, at a rate, or as they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

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
    """Sessions arrive whether or not earlier ones are done. `cv`: coefficient of variation of gamma gaps.

    `clip_means`: no gap is longer than so many times the mean one. That is no Poisson process any more: the rate is
    1 / (1 - exp(-clip)) times the nominal one (5.24 % more at 3), and the tail is gone. It is there to repeat
    measurements that were made so.
    """

    sessions_per_s: float
    arrival: Arrival = "poisson"
    cv: float = 1.0
    clip_means: float | UnsetType = UNSET

    def say(self) -> str:
        how = f"gamma, CV {self.cv:g}" if self.arrival == "gamma" else self.arrival
        clipped = "" if self.clip_means is UNSET else f", gaps clipped at {self.clip_means:g} means"
        return f"{self.sessions_per_s:g} sessions/s, {how}{clipped}"


class Replay(Struct, frozen=True, tag="replay"):
    """Sessions start when they were recorded to, on one clock that runs `time_scale` times as fast."""

    time_scale: float = 1.0

    def say(self) -> str:
        return "recorded starts" + (f", {self.time_scale:g} times as fast" if self.time_scale != 1 else "")


Load = Closed | Open | Replay


def arrivals(load: Open, seed: int) -> Iterator[int]:
    """Due instants of instance 0, 1, ... of an open loop, in nanoseconds.

    Gaps are whole draws, unless `clip_means` says otherwise. Rates divide one sequence of unit gaps, which the seed
    says: the same seed at two rates meets the same bursts. The first session comes after the first gap, so that any
    window of the process looks alike; constant gaps start at 0.
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
            if load.clip_means is not UNSET:
                gaps = gaps.clip(max=load.clip_means * mean)
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
        if load.clip_means is not UNSET:
            if not 0.1 <= load.clip_means <= 1000:
                faults.append(f"gaps are clipped at 0.1 to 1000 means, not {load.clip_means}")
            if load.arrival != "poisson":
                faults.append(f"only Poisson gaps can be clipped, not {load.arrival} ones")
    if isinstance(load, Replay) and not 1e-6 <= load.time_scale <= 1e9:
        faults.append(f"a time scale must be from 1e-6 to a billion, not {load.time_scale}")
    return faults


def open_load(sessions_per_s: float, arrival: str) -> Open:
    """`poisson`, `poisson:clip=MEANS`, `constant` or `gamma:CV`, as on the command line. Raises PlanError."""
    name, _, rest = arrival.partition(":")
    if name == "poisson" and not rest:
        return Open(sessions_per_s)
    if name == "constant" and not rest:
        return Open(sessions_per_s, "constant")
    try:
        if name == "gamma":
            return Open(sessions_per_s, "gamma", float(rest))
        if name == "poisson" and rest.startswith("clip="):
            return Open(sessions_per_s, clip_means=float(rest.removeprefix("clip=")))
    except ValueError:
        pass
    raise PlanError(
        "there is no such arrival process",
        where="--arrival",
        expected="poisson, poisson:clip=MEANS, constant or gamma:CV",
        found=arrival,
    )
