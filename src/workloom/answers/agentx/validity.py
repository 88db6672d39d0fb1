"""Whether a run followed a protocol to the letter, and if not, why not: one sentence for each rule that was broken.

A reason is `code: what was found; what was expected`. The codes `unsafe_override`, `run_cancelled`,
`context_overflow_rate_exceeded` and `insufficient_profile_metric_coverage` are AIPerf's own, the others are ours. A
rule about something the manifest does not tell is broken, not passed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workloom.answers.agentx.columns import Columns
from workloom.answers.agentx.requests import profiled
from workloom.answers.agentx.shape import Coverage, Validity
from workloom.metrics.frame import Window
from workloom.plan import Start, Waits
from workloom.plan.scenarios import SCENARIOS, Preset
from workloom.store.manifest import Manifest

OVERFLOW_LIMIT = 0.01
"""Of all responses; at the limit is still valid."""
ERROR_LIMIT = 0.10
"""Failed / (successful + failed), overflows apart: InferenceX's gate."""
COVERAGE = 0.95
"""First or later tokens must be seen through this share of the window (AgentX 1.0.4 on; before that 0.98)."""
LEAST_S = 900.0
"""Of measurement, and a shorter one is not asked to be covered."""

PROTOCOLS = ("agentx-v1", "agentx-mvp")


def coverage(calls: Columns, window: Window) -> Coverage:
    """How far into the window a first token, and a token after the first, was seen: of any call of the run, also one
    that did not end well."""
    seen = ~calls.warmup
    later = np.where(calls.last_ns > calls.first_ns, calls.last_ns, np.nan)
    return Coverage(_reach(calls.first_ns[seen], window), _reach(later[seen], window), COVERAGE)


def validity(manifest: Manifest, calls: Columns, window: Window) -> Validity:
    """The stamp: valid where no rule is broken."""
    scenario, overrides = scenario_of(manifest)
    if scenario is None:
        reasons = ["no_scenario: not run as a scenario; expected --scenario agentx-v1 or agentx-mvp"]
    elif scenario not in PROTOCOLS or scenario not in SCENARIOS:
        reasons = [f"no_scenario: run as the scenario {scenario}; expected {' or '.join(PROTOCOLS)}"]
    else:
        reasons = _locks(scenario, SCENARIOS[scenario], manifest, overrides)
    reasons += _outcome(manifest, calls, window)
    return Validity(valid=not reasons, reasons=reasons)


def scenario_of(manifest: Manifest) -> tuple[str | None, list[str]]:
    """The scenario of a run, and the options that were given against it."""
    found = manifest.config.get("scenario")
    if not isinstance(found, dict) or not found.get("name"):
        return None, []
    return str(found["name"]), [str(option) for option in found.get("overrides") or []]


def _outcome(manifest: Manifest, calls: Columns, window: Window) -> list[str]:
    """What the run itself was like."""
    out = []
    if manifest.status != "finished":
        out.append(f"run_cancelled: the run was {manifest.status}; expected one that came to its end")
    if manifest.backend == "simulated":
        out.append("simulated: answered by the simulated engine; expected a server")
    seconds = window.seconds
    if seconds < LEAST_S:
        out.append(f"too_short: {seconds:g} s were measured; expected at least {LEAST_S:g} s")
    mine = ~calls.warmup & window.holds(calls.due_ns)
    good, overflow = int(profiled(calls, window).sum()), int((mine & calls.overflow).sum())
    errors = int((mine & calls.failed).sum()) - overflow
    if good == 0:
        out.append("no_request_completed: 0 requests ended well; expected some")
    responses = good + errors + overflow
    if responses and overflow / responses > OVERFLOW_LIMIT:
        said = f"{overflow:,} of {responses:,} responses ({overflow / responses:.2%}) were context overflows"
        out.append(f"context_overflow_rate_exceeded: {said}; expected at most {OVERFLOW_LIMIT:.0%}")
    ended = good + errors
    if ended and errors / ended > ERROR_LIMIT:
        said = f"{errors:,} of {ended:,} requests ({errors / ended:.2%}) failed"
        out.append(f"error_rate_exceeded: {said}; expected at most {ERROR_LIMIT:.0%}")
    if seconds >= LEAST_S:
        reach = coverage(calls, window)
        if max(reach.ttft, reach.itl) < COVERAGE:
            said = f"first tokens came until {reach.ttft:.1%} and later ones until {reach.itl:.1%} of the window"
            out.append(f"insufficient_profile_metric_coverage: {said}; expected one of them to reach {COVERAGE:.0%}")
    roots = calls.agent.are(*root_agents(calls))
    broken = int((calls.warmup & calls.failed & roots).sum())
    if broken:
        out.append(f"warmup_root_error: {broken:,} warm-up calls of root agents failed; expected none")
    return out


def root_agents(calls: Columns) -> set[str]:
    """The agents that begin sessions: those of the calls that stand first in theirs; `main` where none is there."""
    first = np.flatnonzero(calls.ordinal == 0).tolist()
    return {calls.agent[row] for row in first} or {"main"}


def _locks(name: str, preset: Preset, manifest: Manifest, overrides: list[str]) -> list[str]:
    """What was asked for, against what the protocol asks for."""
    out = []
    if overrides:
        out.append(f"unsafe_override: {', '.join(overrides)} given; expected the values of {name}")
    recipe = _dict(manifest.config, "recipe")
    out += _start(preset.start, _dict(recipe, "start"))
    out += _waits(preset.waits, _dict(recipe, "waits"))
    if _dict(recipe, "context").get("policy") == "cut":
        out.append("input_truncation: prompts that are too long were cut; expected --context-policy stop or skip")
    salted = recipe.get("isolation")
    if salted != preset.isolation:
        out.append(f"cache_bust: texts were salted {salted or 'in an unknown way'}; expected {preset.isolation}")
    server = _dict(manifest.config, "server")
    if manifest.backend == "http" and not _exact(server):
        out.append("ignore_eos: answers could end early; expected exact output lengths (ignore_eos)")
    if preset.one_model and server.get("models"):
        out.append(f"several_models: {len(server['models'])} agents or models were mapped; expected one model for all")
    return out


def _start(wanted: Start | None, found: dict[str, Any]) -> list[str]:
    if wanted is None or (wanted.low, wanted.high, wanted.by) == (found.get("low"), found.get("high"), found.get("by")):
        return []
    said = f"at {found.get('low')}-{found.get('high')} by {found.get('by')}" if found else "at their beginning"
    return [f"start_ratio: sessions began {said}; expected {wanted.low:g}-{wanted.high:g} by {wanted.by}"]


def _waits(wanted: Waits, waits: dict[str, Any]) -> list[str]:
    out = []
    if waits.get("time_scale", 1.0) != wanted.time_scale:
        out.append(f"delays_changed: waits were divided by {waits['time_scale']:g}; expected {wanted.time_scale:g}")
    for code, name, what, cap_s in (
        ("delays_changed", "max_s", "each wait", wanted.max_s),
        ("idle_cap", "tree_idle_s", "an idle session tree", wanted.tree_idle_s),
        ("idle_cap", "system_idle_s", "the whole system's idling", wanted.system_idle_s),
    ):
        if name not in waits or waits[name] != cap_s:
            said = _cap(waits[name]) if name in waits else "an unknown value"
            out.append(f"{code}: {what} was capped at {said}; expected {_cap(cap_s)}")
    return out


def _cap(seconds: float | None) -> str:
    return "no limit" if seconds is None else f"{seconds:g} s"


def _exact(server: dict[str, Any]) -> bool:
    """Whether output lengths were exact, and the field that makes them so was not taken out of the requests."""
    return server.get("output") == "exact" and _dict(server, "body").get("ignore_eos", True) is True


def _dict(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _reach(instants: np.ndarray[Any, np.dtype[np.float64]], window: Window) -> float:
    """The last of some instants, as a share of the window; 0 of none, 1 of one at its end or later."""
    there = instants[~np.isnan(instants)]
    if not len(there) or window.end_ns <= window.start_ns:
        return 0.0
    share = float(there.max() - window.start_ns) / (window.end_ns - window.start_ns)
    return min(1.0, max(0.0, share))
