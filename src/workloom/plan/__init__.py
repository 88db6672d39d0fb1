"""The plan: everything a run will ask for, decided before its first byte.

    trace + load + limits + seed  ->  Recipe (frozen, hashed)  ->  Plan: instance 0, 1, 2, ...

Instance k (which session, which texts) is a pure function of (content of the trace, seed, k). A free slot of a closed
loop takes the next k; an open loop gives every k an instant. The same plan runs on any backend.
"""

from workloom.plan.context import Context, ContextPolicy
from workloom.plan.load import Closed, Load, Open, Replay
from workloom.plan.plan import Instance, Limits, Plan, Recipe, TraceRef, Waits, document, make, read, write
from workloom.plan.start import Start, Warmup

__all__ = [
    "Closed",
    "Context",
    "ContextPolicy",
    "Instance",
    "Limits",
    "Load",
    "Open",
    "Plan",
    "Recipe",
    "Replay",
    "Start",
    "TraceRef",
    "Waits",
    "Warmup",
    "document",
    "make",
    "read",
    "write",
]
