"""From measured runs to a profile of the server that made them.

    runs -> observed calls -> windows and episodes -> coefficients, each from its own contrast -> profile
                                                              |
                       the same calls on the simulated engine -> residuals per quantity

Every coefficient is seen in a feature of its own (quiet windows, isolated stalls), none is fitted through the
simulator: there a call joins one step or the next, and what comes out is as rough as that. What no contrast shows is
not identified: then a prior stands in, and the profile says which and why. docs/calibrate.md has the whole story.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from workloom.answers.calibrate.assemble import Fitted, assemble, written
from workloom.answers.calibrate.compute import beyond_by, fit_compute
from workloom.answers.calibrate.decode import fit_decode, fit_error, measured
from workloom.answers.calibrate.episodes import Episode, episodes
from workloom.answers.calibrate.estimate import Estimate
from workloom.answers.calibrate.front import fit_front
from workloom.answers.calibrate.launch import decided_ahead, fit_launches, unhidden
from workloom.answers.calibrate.observed import Floats, Observed, read
from workloom.answers.calibrate.pool import check_pool, joined
from workloom.answers.calibrate.prompts import prefills, server_tokens
from workloom.answers.calibrate.replay import replays
from workloom.answers.calibrate.residuals import Residual, residuals
from workloom.answers.calibrate.server import Server, gather, hit_rate
from workloom.answers.calibrate.template import fit_template
from workloom.answers.calibrate.windows import Windows, merged_chunks, quiet_windows
from workloom.engine.profile import FitError, Profile
from workloom.errors import UsageError

__all__ = [
    "Calibration",
    "Checked",
    "Estimate",
    "Residual",
    "Server",
    "calibrate",
    "check",
    "gather",
    "hit_rate",
    "read",
    "written",
]


REPLAYS = 5
"""How often a run is replayed to be compared."""


class Checked(Struct, frozen=True):
    """A run against its replay. `left_out`: the profile was fitted without it."""

    run: str
    left_out: bool
    residuals: list[Residual]


ROUNDS = 2


class Calibration(Struct, frozen=True):
    """A profile, its coefficients as fitted (by field, picoseconds), and how far it is from runs."""

    profile: Profile
    estimates: dict[str, Estimate]
    checked: list[Checked]
    windows: int
    episodes: int
    runs: list[str]


class _Seen(NamedTuple):
    observed: Observed
    tokens: Floats
    windows: Windows
    episodes: list[Episode]


def calibrate(
    runs: list[Observed],
    server: Server,
    *,
    name: str = "calibrated",
    ahead: bool | None = None,
    seed: int = 0,
    cross: bool = True,
    count: int = REPLAYS,
) -> Calibration:
    """Fit a profile to runs of one server. Raises UsageError when they are not of one, or show no plain decoding.

    `ahead`: whether steps are decided ahead (async scheduling), where it is known; None: as the stalls say.
    `cross`: with several runs, predict each from the others as well. `count`: how often each is replayed.
    """
    if not runs:
        raise UsageError("nothing to calibrate from", expected="run directories or files of rows", found="none")
    template, said = fit_template(runs, server)
    server = replace(server, template=template)
    seen = [_look(run, server) for run in runs]
    check_pool([run.name for run in runs], [each.windows for each in seen])
    profile, estimates = _fit(seen, server, name, ahead, seed)
    checked = [Checked(run.name, False, check(run, profile, server, seed, count=count)) for run in runs]
    profile = replace(profile, error=_error(profile, checked))
    if cross and len(runs) > 1:
        for left, run in enumerate(runs):
            rest = [each for at, each in enumerate(seen) if at != left]
            without, _ = _fit(rest, server, name, ahead, seed)
            checked.append(Checked(run.name, True, check(run, without, server, seed, count=count)))
    return Calibration(
        profile=profile,
        estimates={**estimates, **said},
        checked=checked,
        windows=sum(len(each.windows.gap_s) for each in seen),
        episodes=sum(len(each.episodes) for each in seen),
        runs=[run.name for run in runs],
    )


def check(
    run: Observed,
    profile: Profile,
    server: Server,
    seed: int = 0,
    hit_rate: float | None = None,
    count: int = REPLAYS,
) -> list[Residual]:
    """A run against its own arrivals on the engine, the median of so many replays.

    `hit_rate`: the measured one, where the run does not say what was cached. Of the server only counts whether its
    prefix cache is on.
    """
    predicted = replays(run, profile, prefix_cache=server.prefix_cache, count=count, seed=seed)
    return residuals(run, predicted, hit_rate, seed)


def _error(profile: Profile, checked: list[Checked]) -> FitError:
    """Prefill and mixed steps are judged by what they do in a replay: TTFC, and the gaps of the 99th percentile."""
    lines = [line for each in checked for line in each.residuals if line.ratio is not None]
    first = [abs(line.ratio - 1) for line in lines if line.quantity.startswith("TTFC") and line.ratio is not None]
    stalls = [abs(line.ratio - 1) for line in lines if line.quantity == "TBC p99" and line.ratio is not None]
    most, mixed = max(first, default=0.0), max(stalls, default=None)
    return replace(profile.error, prefill_max=round(most, 4), mixed_max=None if mixed is None else round(mixed, 4))


def _look(run: Observed, server: Server) -> _Seen:
    tokens = server_tokens(run, server)
    windows = quiet_windows(run, tokens)
    if not len(windows.gap_s):
        raise UsageError(
            "a run shows no plain decoding",
            where=str(run.path),
            expected="stretches of 50 ms in which calls decode and nobody prefills",
            found="none",
            hint="run the workload that `workloom calibrate --plan` writes",
        )
    return _Seen(run, tokens, windows, episodes(run, tokens, prefills(run, server)))


def _fit(
    seen: list[_Seen], server: Server, name: str, ahead: bool | None, seed: int
) -> tuple[Profile, dict[str, Estimate]]:
    windows = joined([each.windows for each in seen])
    found = [episode for each in seen for episode in each.episodes]
    decides = decided_ahead(found) if ahead is None else ahead
    decode = fit_decode(windows, server, seed)
    launches = fit_launches(found, server, bool(decides), seed)
    compute = fit_compute(found, server, launches, decode, seed)
    for _ in range(ROUNDS):  # what steps take on the GPU says which stalls are launches, and the other way round
        beyond = beyond_by(launches, decode, compute, server)
        launches = fit_launches(found, server, launches.ahead, seed, beyond)
        compute = fit_compute(found, server, launches, decode, seed, beyond)
    launches = unhidden(launches, max(decode["weights_ps"].value, compute["prefill_base_ps"].value))
    front = fit_front([(each.observed, each.tokens, each.episodes) for each in seen], launches.ahead, seed)
    fitted = Fitted(decode, launches, compute, front)
    source = (
        f"workloom calibrate: {', '.join(each.observed.name for each in seen)} "
        f"({sum(len(each.observed.session) for each in seen):,} calls, {len(windows.gap_s):,} quiet windows, "
        f"{len(found):,} stalls)"
    )
    table = measured(windows, decode["context_token_ps"].value)
    profile = assemble(name, source, server, fitted, fit_error(windows, decode, server))
    weights = [each.observed.output_tokens.sum() for each in seen]
    merged = [merged_chunks(each.observed, each.windows) for each in seen]
    most = max(map(len, merged))
    shares = tuple(
        round(
            float(sum(w * (m[i] if i < len(m) else 0.0) for w, m in zip(weights, merged, strict=True)) / sum(weights)),
            6,
        )
        for i in range(most)
    )
    missing = dict(profile.not_identified)
    if decides is None and ahead is None:
        missing["async_scheduling"] = "too few lone arrivals beside calls that decode; used: false"
    for field, said in server.source.items():
        if said == "a default":
            missing[field] = f"not said by page, configuration or options; used: {getattr(server, field)}, a default"
    profile = replace(
        profile,
        step=replace(profile.step, decode_ps=table),
        front_end=replace(profile.front_end, merged_chunks=shares),
        not_identified=missing,
    )
    return msgspec.convert(msgspec.to_builtins(profile), Profile), fitted.estimates()
