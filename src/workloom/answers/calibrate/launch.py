"""Steps with prefill, from stalls: what launching them takes, what they take on the GPU, what stands before them.

Where steps are decided ahead (async scheduling), the launch of a step with prefill holds back the tokens of the step
before it, and launches follow one another:

    plain decoding, then a prefill    the gap that ends with the decode step's tokens is D + launch
    prefill, then a prefill           launch of the second, or what the first takes beyond its own if that is longer
    prefill, then plain decoding      what it takes beyond its launch: the tail at least

and where they are not, a gap is the step alone. Which of both a server does shows in lone arrivals: ahead,
others see one long gap and then a short one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from workloom.answers.calibrate.decode import PS
from workloom.answers.calibrate.episodes import Episode, Step
from workloom.answers.calibrate.estimate import Estimate, least_absolute_given, prior, settle
from workloom.answers.calibrate.observed import Bools, Floats, Ints
from workloom.answers.calibrate.priors import ADMIT_PS, ADMIT_SHARE, COMPUTED, LAUNCH_PS, MEASURED, TAIL_PS
from workloom.answers.calibrate.server import Server

FEWEST, SOME = 4, 3
"""Stalls of a kind from which one is believed."""
SHORTEST = 1.05
"""Stalls up to so many times the shortest tenth of their kind are launches, for want of better knowledge."""
PLATEAU = 1.3
"""Largest over smallest of those steps, by tokens: so much must make no difference."""
HIDDEN = 1.15
"""A launch up to so many times what the GPU takes at least is not told from that."""
NEARLY = 0.85
"""A gap that the GPU may have made to that share is no launch."""
BOUND_S = 0.002
"""How far behind its tail a step ends whose time is the GPU's."""


Beyond = Callable[[Step, Episode], float]
"""Seconds that a step of an episode takes on the GPU beyond its launch, negative if it hides there."""


class Launches(NamedTuple):
    """`graphs`: whether small steps are launched as piecewise graphs, cheaper than eager ones."""

    ahead: bool
    graphs: bool
    launch_ps: Estimate
    graph_launch_ps: Estimate
    admit_ps: Estimate
    launch_tail_ps: Estimate

    def launch_s(self, step: Step, batch: int, graph_tokens: int) -> float:
        small = self.graphs and step.tokens + batch <= graph_tokens
        base = self.graph_launch_ps if small else self.launch_ps
        return (base.value + self.admit_ps.value * step.new) / PS


class _Gap(NamedTuple):
    """A gap in which a launch stands: what it took, for which step, and whether the step before it prefilled too."""

    took_s: float
    step: Step
    batch: int
    behind: bool


def decided_ahead(found: list[Episode]) -> bool | None:
    """Whether steps are decided ahead, by lone arrivals of one chunk; None: too few of them."""
    signs = []
    for episode in found:
        at = [index for index, step in enumerate(episode.steps) if step is not None]
        if len(at) == 1 and len(episode.arrivals) == 1:
            signs.append(episode.gaps_s[at[0] - 1] > episode.gaps_s[at[0]])
    return None if len(signs) < FEWEST else float(np.mean(signs)) > 0.5


def fit_launches(
    found: list[Episode], server: Server, ahead: bool, seed: int, beyond: Beyond | None = None
) -> Launches:
    """F (eager and piecewise), H and the tail.

    `beyond` says what steps take on the GPU beyond their launch, once that is known. Before, only stalls are
    used that no GPU time can be in: launches behind plain decoding where steps are decided ahead, else the shortest.
    """
    tail = _tail(found, ahead)
    gaps = _gaps(found, ahead, beyond)
    if beyond is None:
        gaps = _surely(gaps, ahead, server.graph_tokens)
    small = np.array([gap.step.tokens + gap.batch <= server.graph_tokens for gap in gaps], dtype=bool)
    new = np.array([gap.step.new for gap in gaps], dtype=np.float64)
    took = np.array([gap.took_s for gap in gaps])
    graphs = bool(small.sum() >= FEWEST and (~small).sum() >= FEWEST) and _cheaper(took, small, new)
    kinds = np.where(small & graphs, 0.0, 1.0), np.where(small & graphs, 1.0, 0.0)
    features: Floats = np.column_stack((*kinds, new)) if gaps else np.zeros((0, 3))

    def weights(points: Ints) -> Floats:
        counts = Counter(zip(small[points].tolist(), new[points].tolist(), strict=True))
        kinds = zip(small[points].tolist(), new[points].tolist(), strict=True)
        return np.array([counts[kind] ** -0.5 for kind in kinds])

    def fit(held: Mapping[int, float], points: Ints) -> Floats:
        if not len(points):
            return np.zeros(3)
        return least_absolute_given(features[points], took[points], held, weights(points))

    def loss(found: Floats) -> float:
        return float((weights(np.arange(len(gaps))) * np.abs(features @ found - took)).sum())

    if len(gaps) < FEWEST:
        missing = f"{len(gaps)} stalls that can be read"
        floor, admit = prior(LAUNCH_PS, missing, COMPUTED), prior(ADMIT_PS, missing, COMPUTED)
        return Launches(ahead, False, floor, prior(0.0, missing, "one launch for all"), admit, tail)
    usual = min(ADMIT_PS / PS, ADMIT_SHARE * float(np.median(took)))
    contrast = _contrast(small & graphs, new)
    at, spread, held = settle(fit, loss, {} if contrast else {2: usual}, {2: usual}, len(gaps), seed, "launch")
    values, errors = at.tolist(), spread.tolist()
    eager = int((~(small & graphs)).sum())
    first = Estimate(values[0] * PS, errors[0] * PS, eager, True)
    if eager < FEWEST:
        first = prior(
            values[1] * PS, f"no step with prefill of over {server.graph_tokens} tokens", "that of smaller ones"
        )
    graph = Estimate(values[1] * PS, errors[1] * PS, len(gaps) - eager, True)
    if not graphs:
        graph = prior(0.0, f"no cheaper launch of steps up to {server.graph_tokens} tokens", "one launch for all")
    if 2 not in held:
        admit = Estimate(values[2] * PS, errors[2] * PS, len(gaps), True)
    else:
        missing = (
            "steps with prefill that admit different numbers of calls take as long"
            if contrast
            else ("every step with prefill whose launch is seen admits as many calls")
        )
        admit = prior(values[2] * PS, missing, f"{COMPUTED}, taken out of launch_ps")
    return Launches(ahead, graphs, first, graph, admit, tail)


def unhidden(launches: Launches, gpu_ps: float) -> Launches:
    """Launches, unless the GPU hides them: where steps are not decided ahead one that takes no longer than the shortest
    step with prefill (`gpu_ps`) cannot be told from it."""
    whole = launches.launch_ps.value + launches.admit_ps.value
    if launches.ahead or launches.graphs or not launches.launch_ps.identified or whole > HIDDEN * gpu_ps:
        return launches
    missing = f"steps with prefill take {whole / 1e9:.3g} ms or more, which the GPU may need"
    admit = min(ADMIT_PS, ADMIT_SHARE * whole)
    launch = min(LAUNCH_PS, whole - admit)
    return launches._replace(launch_ps=prior(launch, missing, COMPUTED), admit_ps=prior(admit, missing, COMPUTED))


def _contrast(small: Bools, new: Floats) -> bool:
    """Whether steps of one kind admit different numbers of calls, each number seen some times."""
    for kind in (small, ~small):
        counts = [int((new[kind] == count).sum()) for count in np.unique(new[kind])]
        if sum(count >= SOME for count in counts) >= 2:
            return True
    return False


def _cheaper(took: Floats, small: Bools, new: Floats) -> bool:
    """Steps that may run as graphs take at most half as long to launch, by those with equally many new calls."""
    for count in np.unique(new):
        few, many = took[small & (new == count)], took[~small & (new == count)]
        if len(few) >= FEWEST and len(many) >= FEWEST:
            return bool(np.median(few) < 0.6 * np.median(many))
    return bool(np.median(took[small]) < 0.6 * np.median(took[~small]))


def _tail(found: list[Episode], ahead: bool) -> Estimate:
    """The shortest ends of steps behind their launch: of those, the GPU is never the slower one.

    A first token takes longer to deliver, and holds up those that others get of the same step: that much, which shows
    in the next gap being shorter, is not of the step.
    """
    if not ahead:
        return prior(0.0, "steps are not decided ahead", "nothing: there the tail is part of launch_ps")
    ends = []
    for episode in found:
        for index, step in enumerate(episode.steps[:-1]):
            if step is not None and episode.steps[index + 1] is None:
                late = max(0.0, float(np.median(episode.gaps_s[index + 2 :]) - episode.gaps_s[index + 1]))
                ends.append(max(0.0, float(episode.gaps_s[index]) - late))
    if len(ends) < FEWEST:
        return prior(TAIL_PS, f"{len(ends)} stalls that can be read", MEASURED)
    low = np.sort(np.array(ends))[: max(FEWEST, len(ends) // 4)]
    return Estimate(float(np.median(low)) * PS, float(np.std(low)) * PS, len(low), True)


def _gaps(found: list[Episode], ahead: bool, beyond: Beyond | None) -> list[_Gap]:
    """Gaps with a launch in them. With `beyond` those are left out that the GPU had a part in."""
    out = []
    for episode in found:
        for index, gap in enumerate(episode.gaps_s[:-1].tolist()):
            before, step = (episode.steps[index], episode.steps[index + 1]) if ahead else (None, episode.steps[index])
            if step is None:
                continue
            if beyond is not None and before is not None and beyond(before, episode) > NEARLY * gap - BOUND_S / 2:
                continue
            if beyond is not None and not ahead and beyond(step, episode) > 0:
                continue
            itself = episode.decode_s if ahead and before is None else 0.0
            out.append(_Gap(gap - itself, step, episode.batch, before is not None))
    return out


def _surely(gaps: list[_Gap], ahead: bool, graph_tokens: int) -> list[_Gap]:
    """Those that are launches whatever the GPU takes."""
    if ahead:
        sure = [gap for gap in gaps if not gap.behind]
        return sure if len(sure) >= FEWEST else gaps
    kinds: dict[tuple[bool, int], list[_Gap]] = {}
    for gap in gaps:
        kinds.setdefault((gap.step.tokens + gap.batch <= graph_tokens, gap.step.new), []).append(gap)
    sure = []
    for alike in kinds.values():
        low = float(np.percentile([gap.took_s for gap in alike], 10))
        short = [gap for gap in alike if gap.took_s <= SHORTEST * low]
        sizes = [gap.step.tokens for gap in short]
        if max(sizes) >= PLATEAU * min(sizes):  # else they may take what their tokens take
            sure += short
    return sure
