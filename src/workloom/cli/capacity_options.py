"""Options of `workloom capacity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from workloom.cli.options import Count, Whole

CAPACITY = Group("Capacity", sort_key=1)


@Parameter(name="*", group=CAPACITY)
@dataclass(frozen=True)
class CapacityOptions:
    """What is looked for, and how well it is to be known."""

    slo: Annotated[list[str], Parameter(negative="")] = field(default_factory=list)
    "What has to hold: FIGURE<=LIMIT, as in ttft_p95<=0.75s or errors<2%, or @FILE; may be given again."
    over: Literal["rate", "concurrency", "replicas"] = "rate"
    """What is raised: sessions (or, with --per request, calls) per second, sessions at once, or, at a --rate or \
--concurrency that is given, simulated replicas."""
    start: Annotated[float | None, Parameter(name="--from")] = None
    "The first load to try (default: 1 per second, 8 sessions at once, 1 replica)."
    precision: str = "5%"
    "Half of the interval, as a share of the capacity, that ends the search."
    confidence: str = "95%"
    "How sure the interval is to hold the capacity."
    max_probes: Count = 48
    "Most runs of the search; those at neighbouring loads come on top."
    beside: Whole = None
    "Runs at each neighbouring load, from 20 % below to 20 % above (default: 3 simulated, 1 live; 0 for none)."
    jobs: Whole = None
    "Processes for simulated runs (default: one for each core)."
    compare: Annotated[list[str], Parameter(negative="")] = field(default_factory=list)
    "A second workload, searched in the same way: what a fleet sized for the first has to spare for it."
    propose: str | None = None
    "Profile of the live server: simulated runs find out where to look, live ones look there."
