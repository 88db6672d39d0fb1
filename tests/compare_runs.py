"""Short simulated runs of sessions that nobody has seen before: for A/A and A/B pairs by the hundred."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msgspec.structs import replace

from workloom import seeds
from workloom.answers.compare import Side
from workloom.answers.trial import in_memory
from workloom.engine import profile as engines
from workloom.engine.profile import Profile
from workloom.plan import Closed, Limits, Load, Open, Recipe, TraceRef, Waits, make
from workloom.session import Call, Edge, Header, Inherit, Part, Session
from workloom.traces import native

OPEN = Open(1.0)
CLOSED = Closed(8)


def sessions(seed: int, count: int) -> list[Session]:
    """Chains of 3 to 6 calls: heavy-tailed prompts and answers, seconds between calls."""
    rng = seeds.stream(seed, "sessions")
    made = []
    for i in range(count):
        scale = float(rng.lognormal(0.0, 0.5))  # some sessions are larger in all their calls
        calls = []
        for j in range(int(rng.integers(3, 7))):
            fresh = int(rng.lognormal(7.0 if j == 0 else 5.5, 0.8) * scale) + 1
            output = int(rng.lognormal(4.0, 0.7) * scale) + 2
            after = (Edge(f"c{j - 1}", round(float(rng.exponential(2.0)), 3), "tool"),) if j else ()
            inherit = Inherit(f"c{j - 1}") if j else None
            calls.append(Call(f"c{j}", output, after=after, fresh=(Part("user", fresh),), inherit=inherit))
        made.append(Session(f"s{seed}-{i}", tuple(calls)))
    return made


def engine(slower: float = 1.0) -> Profile:
    """A shipped engine, every step and every admission so many times as slow."""
    profile = engines.load("llama-3.1-8b-h200x1")
    step = profile.step
    times = {name: int(getattr(step, name) * slower) for name in step.__struct_fields__ if name in TIMES}
    front = replace(profile.front_end, call_ps=int(profile.front_end.call_ps * slower))
    return replace(profile, step=replace(step, **times), front_end=front)


TIMES = [
    "weights_ps",
    "prefill_base_ps",
    "prefill_token_ps",
    "sequence_ps",
    "pair_ps",
    "context_token_ps",
    "launch_ps",
    "admit_ps",
]
"""What a step takes, in picoseconds."""


def noisy(made: list[Session], seed: int) -> list[Session]:
    """The same sessions on another day: waits drawn anew, and prompts up to a tenth longer or shorter."""
    rng = seeds.stream(seed, "noise")

    def again(call: Call) -> Call:
        after = tuple(replace(edge, wait_s=round(float(rng.exponential(2.0)), 3)) for edge in call.after)
        fresh = tuple(replace(part, tokens=max(1, round(part.tokens * rng.uniform(0.9, 1.1)))) for part in call.fresh)
        return replace(call, after=after, fresh=fresh)

    return [replace(session, calls=tuple(map(again, session.calls))) for session in made]


def side(seed: int, load: Load = OPEN, *, slower: float = 1.0, count: int = 120, day: int | None = None) -> Side:
    """A run of sessions that no other seed has, in an order of its own; of one plan, but on another `day`."""
    made = sessions(seed, count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        native.write(path, Header(source="test"), made)
        plan = make(Recipe(TraceRef((str(path),)), load, Limits(), Waits(None), seed=seed))
        if day is not None:
            plan.source = noisy(made, day)  # type: ignore[assignment]  # in the very order of the plan
        return Side(f"seed {seed}", (in_memory(plan, engine(slower)),))
