"""The observed calls again, on the simulated engine: the run's own sessions at the instants they began.

A session that the end of the measurement cut off (shorter than most, its last call ending close to the run's end) goes
on as the longest usual one does: how many calls a server completes is one of the things compared.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from workloom.answers.calibrate.front import SAME_CALL
from workloom.answers.calibrate.observed import Bools, Ints, Observed, observed_of
from workloom.answers.simulated import play
from workloom.engine.profile import Profile
from workloom.plan import Context, Plan, Recipe, Replay, TraceRef, Waits, make, read
from workloom.session import Call, Edge, Header, Inherit, Part, Session
from workloom.traces.reading import made


def replay(observed: Observed, profile: Profile, *, prefix_cache: bool = True) -> Observed:
    """What the engine makes of them; where the measurement cut sessions off, what ended before it did."""
    own = _plan_of(observed.path, profile)
    if own is not None:
        return observed_of(observed.path, play(own, profile, prefix_cache=prefix_cache).calls)
    sessions = sessions_of(observed)
    drained = sum(len(session.calls) for session in sessions) == len(observed.session)
    recipe = Recipe(
        trace=TraceRef(()),
        load=Replay(),
        waits=Waits(max_s=None),
        context=Context(profile.longest_call, "stop"),
    )
    plan = make(recipe, made(observed.name, Header(common_clock=True), lambda: iter(sessions)))
    kept = play(plan, profile, prefix_cache=prefix_cache)
    origin = min(session.start_s or 0.0 for session in sessions)
    horizon = float(observed.done_s.max()) - origin
    whole = observed_of(Path(observed.name), kept.calls)
    return whole if drained else keep(whole, whole.done_s <= horizon)


def _plan_of(path: Path, profile: Profile) -> Plan | None:
    """The plan of a run of ours, where its trace still lies where it was; its calls may be more than chains."""
    recipe = read(path / "plan.json") if (path / "plan.json").is_file() else None
    if recipe is None or not all(Path(trace).exists() for trace in recipe.trace.paths):
        return None
    limit = profile.longest_call if recipe.context.max_tokens is None else recipe.context.max_tokens
    return make(replace(recipe, context=replace(recipe.context, max_tokens=min(limit, profile.longest_call))))


def sessions_of(observed: Observed) -> list[Session]:
    """Chains of calls with the run's own starts, lengths and waits."""
    calls: dict[int, list[int]] = {}
    for index, number in enumerate(observed.session.tolist()):
        calls.setdefault(number, []).append(index)
    usual = Counter(len(mine) for mine in calls.values()).most_common(1)[0][0]
    pattern = next(mine for mine in calls.values() if len(mine) == usual)
    latest = float(observed.done_s.max())
    longest = float((observed.done_s - observed.start_s).max())
    out = []
    for number, mine in calls.items():
        cut = len(mine) < usual and observed.done_s[mine[-1]] > latest - longest
        out.append(_session(observed, str(number), mine, pattern[len(mine) :] if cut else []))
    return out


def _session(observed: Observed, name: str, mine: list[int], more: list[int]) -> Session:
    calls: list[Call] = []
    for index in [*mine, *more]:
        before = int(observed.before[index])
        prompt = int(observed.prompt_tokens[index])
        if not calls:
            calls.append(Call("0", int(observed.output_tokens[index]), fresh=(Part("user", prompt),)))
            continue
        history = int(observed.prompt_tokens[before] + observed.output_tokens[before])
        wait = float(observed.start_s[index] - observed.last_s[before])
        edge = Edge(calls[-1].id, 0.0 if wait < SAME_CALL else wait, "tool")
        inherit = Inherit(calls[-1].id) if prompt > history else None
        fresh = prompt - history if inherit is not None else prompt
        calls.append(
            Call(
                str(len(calls)),
                int(observed.output_tokens[index]),
                after=(edge,),
                inherit=inherit,
                fresh=(Part("user", fresh),),
            )
        )
    return Session(name, tuple(calls), start_s=float(observed.start_s[mine[0]]))


def keep(observed: Observed, which: Bools) -> Observed:
    """Some of the calls. What came before them in their sessions is forgotten."""
    at: Ints = np.flatnonzero(which)
    columns: dict[str, Any] = {
        name: value[at] for name, value in observed._asdict().items() if isinstance(value, np.ndarray)
    }
    columns["before"] = np.full(len(at), -1)
    return observed._replace(**columns, chunks=[observed.chunks[index] for index in at])
