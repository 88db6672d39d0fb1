"""The unloaded ideal: the same sessions, each call alone on one replica whose cache forgets nothing.

    front end, then the prompt beyond what an infinite cache holds, chunk by chunk, then the answer at batch 1

Waits are as they were in the run; our own lag, connections and queues are none. The form is exactly that of
:mod:`workloom.engine.engine` for a call that nobody is beside, so a lone chain of calls with room for its KV has a
slowdown of 1. Calls of one session that run side by side share a server, so even a lone DAG may have a little more.

Not in it: tiers below the GPU, transfers between prefill and decode replicas (a run's slowdown has them). Where the
chat template rewrites answers, no cache could hold all that the ideal takes for held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from workloom.clock import NS
from workloom.engine.batch import Limits
from workloom.engine.cost import Cost
from workloom.engine.profile import Profile
from workloom.metrics.frame import Ints
from workloom.metrics.measured import Measured
from workloom.metrics.stats import Floats
from workloom.metrics.workflow.view import workflow

PS = 1000
"""Picoseconds in a nanosecond."""


def ideal_s(run: Measured, profile: Profile | None = None) -> Floats | None:
    """The unloaded ideal makespan of every session in seconds, as in `run.sessions`; nan of those without a makespan.

    None: nobody says what an unloaded server would take. A simulated run's manifest does, unless its fleet is made of
    several kinds of replicas.
    """
    profile = profile or profile_of(run)
    if profile is None:
        return None
    view = workflow(run)
    service = unloaded_ns(run, profile)
    due, sessions = view.marks.due, run.sessions
    known = view.in_ended & (service >= 0)
    done = view.dag.latest(due, view.wait_ns, np.where(known, service, 0))
    rows = np.flatnonzero(view.in_ended)
    last = np.zeros(len(sessions), dtype=np.int64)
    np.maximum.at(last, view.place[rows], done[rows])
    unknown = np.zeros(len(sessions), dtype=np.bool_)
    unknown[view.place[rows[~known[rows]]]] = True
    return np.where(view.ended & ~unknown, (last - sessions.due_ns) / NS, np.nan)


def profile_of(run: Measured) -> Profile | None:
    """The profile of the replicas that served a simulated run; None where there was none, or more than one."""
    if run.manifest is None:
        return None
    config = run.manifest.config
    told: list[Any] = [config["engine"]] if "engine" in config else []
    if "fleet" in config:
        told = [pool["profile"] for pool in config["fleet"]["pools"]]
    found: list[Profile] = []
    for each in told:
        profile = msgspec.convert(each, Profile, strict=False)
        if profile not in found:
            found.append(profile)
    return found[0] if len(found) == 1 else None


def unloaded_ns(run: Measured, profile: Profile) -> Ints:
    """From due to done of every call if it were alone, in nanoseconds; -1 where its tokens are not known."""
    calls = run.calls
    prompt, output = run.prompt_tokens, run.output_tokens
    known = ~np.isnan(prompt) & (prompt >= 1) & (output >= 1) & ~np.isnan(calls.ideal_cached_tokens)
    tokens = np.where(known, prompt, 1).astype(np.int64)
    answer = np.where(known, output, 1).astype(np.int64)
    held = np.where(known, np.minimum(_held(run, profile), tokens - 1), 0).astype(np.int64)
    held -= held % profile.block_tokens
    front, cost = profile.front_end, Cost(profile.step, profile.speculative)
    to_prefill = front.call_ps + front.prompt_token_ps * tokens
    first = to_prefill + _Prefill(profile, cost).took_ps(tokens, held)
    steps = answer - 1
    each, slope = cost.decode(1, 0)
    context = tokens + 1  # of the first step behind the prefill: the prompt and the token it gave
    last = first + steps * (each + slope * context) + slope * (steps * (steps - 1) // 2)
    second = first + each + slope * context
    delivered = np.where(steps > 0, np.minimum(first + front.first_token_ps, second), first + front.first_token_ps)
    done_ps = np.maximum(last, delivered) + front.end_ps
    return np.where(known, -(-done_ps // PS), -1)


def _held(run: Measured, profile: Profile) -> Floats:
    """What an infinite cache holds of each prompt as the server counts it: the template's tokens at its head too."""
    calls = run.calls
    planned = np.where(np.isnan(calls.ideal_prompt_tokens), run.prompt_tokens, calls.ideal_prompt_tokens)
    template = np.maximum(run.prompt_tokens - planned - profile.template.tail_tokens, 0)
    ideal = np.where(np.isnan(calls.ideal_cached_tokens), 0.0, calls.ideal_cached_tokens)
    return np.where(ideal > 0, ideal + template, 0.0)


@dataclass(slots=True)
class _Chunk:
    """Time of a step with so many prefill tokens, but for its pairs."""

    gpu_ps: Ints
    launch_ps: Ints


class _Prefill:
    """Prefills of calls that are alone, all of them one chunk at a time."""

    def __init__(self, profile: Profile, cost: Cost) -> None:
        self._limits = Limits.of(profile)
        self._cost = cost
        self._pair_ps, self._tail_ps = profile.step.pair_ps, profile.step.launch_tail_ps
        self._admit_ps = cost.launch(1, 0, 1) - cost.launch(1, 0, 0)
        self._ahead = profile.async_scheduling
        self._states = profile.state_groups > 0

    def took_ps(self, tokens: Ints, held: Ints) -> Ints:
        """From admitted to the first token, in picoseconds."""
        total = np.zeros(len(tokens), dtype=np.int64)
        computed, going = held.copy(), np.arange(len(tokens))
        admitted, early = self._admit_ps, np.zeros(len(tokens), dtype=np.int64)
        while len(going):
            chunk = self._next(tokens[going], computed[going])
            step = self._times(chunk)
            launch = np.maximum(step.launch_ps + admitted - early[going], 0)
            gpu = step.gpu_ps + self._pair_ps * (chunk * computed[going] + chunk * chunk // 2)
            took = np.maximum(gpu, launch + self._tail_ps)
            if self._ahead:  # the next launch begins when this one is over
                early[going] = took - launch
            total[going] += took
            computed[going] += chunk
            going, admitted = going[computed[going] < tokens[going]], 0
        return total

    def _next(self, tokens: Ints, computed: Ints) -> Ints:
        """The next chunk of each call, as the scheduler cuts them."""
        budget = min(self._limits.max_batched_tokens, self._limits.max_prefill_tokens)
        chunk = np.minimum(tokens - computed, budget)
        if self._states:
            size = self._limits.block_tokens
            last, end = tokens // size * size, computed + chunk
            chunk = np.where(end < last, end // size * size - computed, chunk)
            chunk = np.where((computed < last) & (last < end), last - computed, chunk)
        cut: Ints = chunk
        return cut

    def _times(self, chunk: Ints) -> _Chunk:
        sizes, where = np.unique(chunk, return_inverse=True)
        gpu = np.array([self._cost.gpu(size, 0, 0, 0) for size in sizes.tolist()], dtype=np.int64)
        launch = np.array([self._cost.launch(size, 0, 0) for size in sizes.tolist()], dtype=np.int64)
        return _Chunk(gpu[where.reshape(-1)], launch[where.reshape(-1)])
