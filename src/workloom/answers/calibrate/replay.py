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

from workloom import seeds
from workloom.answers.calibrate.decode import PS
from workloom.answers.calibrate.front import SAME_CALL
from workloom.answers.calibrate.observed import Bools, Floats, Ints, Observed, observed_of
from workloom.answers.simulated import play
from workloom.engine.profile import Profile
from workloom.plan import Context, Plan, Recipe, Replay, TraceRef, Waits, make, read
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.traces.reading import made


def replays(
    observed: Observed, profile: Profile, *, prefix_cache: bool = True, count: int = 1, seed: int = 0
) -> list[Observed]:
    """What the engine makes of them, `count` times; where the measurement cut sessions off, what ended before it did.

    The first time sessions begin when they did, then each up to `LATER_S` later: which calls meet in a step is chance,
    and the highest percentiles are made of such meetings. A run of ours is repeated by its own plan, once.
    """
    own = _plan_of(observed.path, profile)
    if own is not None:
        return [observed_of(observed.path, play(own, profile, prefix_cache=prefix_cache).calls)]
    sessions = sessions_of(observed, profile.front_end.end_ps / PS)
    out = [_replay(observed, profile, sessions, prefix_cache)]
    for number in range(1, count):
        stream = seeds.stream(seed, "calibrate", "replay", number)
        later = stream.uniform(0, LATER_S, len(sessions)).tolist()
        moved = [replace(s, start_s=(s.start_s or 0.0) + by) for s, by in zip(sessions, later, strict=True)]
        out.append(_replay(observed, profile, moved, prefix_cache))
    return out


def _replay(observed: Observed, profile: Profile, sessions: list[Session], prefix_cache: bool) -> Observed:
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


LATER_S = 0.02
"""Two decode steps or so: enough for calls to meet others."""


def _plan_of(path: Path, profile: Profile) -> Plan | None:
    """The plan of a run of ours, where its trace still lies where it was; its calls may be more than chains."""
    recipe = read(path / "plan.json") if (path / "plan.json").is_file() else None
    if recipe is None or not all(Path(trace).exists() for trace in recipe.trace.paths):
        return None
    limit = profile.longest_call if recipe.context.max_tokens is None else recipe.context.max_tokens
    return make(replace(recipe, context=replace(recipe.context, max_tokens=min(limit, profile.longest_call))))


def sessions_of(observed: Observed, end_s: float = 0.0) -> list[Session]:
    """The run's own sessions: who waited for whom, starts, lengths and waits. `end_s`: how long after its last token a
    call ends on the engine, which is when a wait begins."""
    calls: dict[int, list[int]] = {}
    for index, number in enumerate(observed.session.tolist()):
        calls.setdefault(number, []).append(index)
    usual = Counter(len(mine) for mine in calls.values()).most_common(1)[0][0]
    pattern = next(mine for mine in calls.values() if len(mine) == usual)
    latest = float(observed.done_s.max())
    longest = float((observed.done_s - observed.start_s).max())
    waits = _waits(observed, end_s)
    out = []
    for number, mine in calls.items():
        more: list[int] = []
        if len(mine) < usual and max(observed.done_s[mine]) > latest - longest:
            here = {observed.label[index] for index in mine}
            more = [index for index in pattern if observed.label[index] not in here]
        out.append(_session(observed, str(number), [*mine, *more], waits))
    return out


def _waits(observed: Observed, end_s: float) -> Floats:
    """What each call waited after what it waited for had ended: nothing, if that is no more than the usual turnaround.

    Of calls that were ready together the first leaves at once, and the others as much later as they did.
    """
    ended = np.array([max((observed.last_s[at] for at in after), default=np.nan) for after in observed.after])
    since = observed.start_s - ended
    family = observed.family
    first = np.full(len(since), np.inf)
    np.minimum.at(first, family, observed.start_s)
    lead = np.full(len(since), np.inf)
    np.minimum.at(lead, family, np.where(np.isnan(since), np.inf, since))
    waits: Floats = np.where(lead[family] < SAME_CALL, observed.start_s - first[family], since - end_s)
    return np.maximum(0.0, np.nan_to_num(waits))


def _session(observed: Observed, name: str, mine: list[int], waits: Floats) -> Session:
    """Calls by the order they began, then those of the pattern that are missing; who follows whom goes by labels."""
    places = {observed.label[index]: str(place) for place, index in enumerate(mine)}
    shared = {int(observed.twin[index]) for index in mine} - {-1}
    calls: list[Call] = []
    for index in mine:
        before, prompt = int(observed.before[index]), int(observed.prompt_tokens[index])
        id = places[observed.label[index]]
        after = [places[label] for at in observed.after[index] if (label := observed.label[at]) in places]
        history, inherit = 0, None
        if before >= 0 and observed.label[before] in places:
            history = int(observed.prompt_tokens[before] + observed.output_tokens[before])
            inherit = Inherit(places[observed.label[before]]) if prompt > history else None
        fresh = prompt - history if inherit is not None else prompt
        text = int(observed.twin[index]) if observed.twin[index] >= 0 else index
        spans = (Span(f"text of call {places[observed.label[text]]}", fresh),) if text in shared else ()
        calls.append(
            Call(
                id,
                int(observed.output_tokens[index]),
                after=tuple(Edge(each, float(waits[index]), "tool") for each in after),
                inherit=inherit,
                spans=spans,
                fresh=() if spans else (Part("user", fresh),),
            )
        )
    return Session(name, tuple(calls), start_s=float(observed.start_s[mine[0]]))


def keep(observed: Observed, which: Bools) -> Observed:
    """Some of the calls. What came before them in their sessions is forgotten."""
    at: Ints = np.flatnonzero(which)
    columns: dict[str, Any] = {
        name: value[at] for name, value in observed._asdict().items() if isinstance(value, np.ndarray)
    }
    columns |= {"before": np.full(len(at), -1), "family": np.arange(len(at)), "twin": np.full(len(at), -1)}
    return observed._replace(
        **columns,
        chunks=[observed.chunks[index] for index in at],
        after=[()] * len(at),
        label=[observed.label[index] for index in at],
    )
