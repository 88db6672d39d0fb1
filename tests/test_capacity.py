"""The search for the load that breaks a promise: where it looks, what it says, and that it can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from workloom import seeds
from workloom.answers.capacity import Axis, Met, Probe, Search, Span, Stop, Want, result, walk
from workloom.answers.capacity.belief import learned
from workloom.answers.capacity.fleet import fleet
from workloom.answers.capacity.history import History, Question
from workloom.answers.capacity.probe import point
from workloom.answers.capacity.result import Capacity
from workloom.errors import StoreError
from workloom.metrics.catalog import Sample
from workloom.metrics.figure import figure
from workloom.store.run import alone

RATE = Axis("rate", "sessions/s")
SESSIONS = Axis("concurrency", "sessions at once", whole=True)
REPLICAS = Axis("replicas", "replicas", whole=True, easing=True)
QUESTION = Question("w", "t", "rate", ["ttft_p95<=1"], 0, 1.0, "automatic", 1, 3)
SLO, OTHER = "ttft_p95<=1s", "errors<2%"

Oracle = Callable[[Want], Probe]


def probe(want: Want, held: bool, figures: dict[str, float] | None = None, broken: str = SLO) -> Probe:
    met = [
        Met(slo, 0.5 if held or slo != broken else 2.0, "pass" if held or slo != broken else "fail", "", held)
        for slo in (SLO, OTHER)
    ]
    return Probe(
        want.number,
        want.purpose,
        want.load,
        want.number,
        "pass" if held else "fail",
        met,
        dict(figures or {}),
        want.stretch,
    )


def sharp(edge: float, *, easing: bool = False) -> Oracle:
    return lambda want: probe(want, (want.load >= edge) if easing else want.load <= edge)


def noisy(edge: float, spread: float, seed: int) -> Oracle:
    """Every run has an edge of its own, which lies `spread` about the true one."""

    def ask(want: Want) -> Probe:
        own = edge * float(np.exp(spread * seeds.stream(seed, "own", want.number).standard_normal()))
        return probe(want, want.load < own)

    return ask


def found(search: Search, oracle: Oracle) -> Capacity:
    probes, stop = walk(search, lambda wants: map(oracle, wants))
    return result(search, probes, stop, workload="w", target="t", slos=[SLO, OTHER])


# -- what it finds


@pytest.mark.parametrize("edge", [0.07, 1.0, 5.3, 300.0])
def test_a_sharp_edge_is_bracketed_and_closed_in_upon(edge: float) -> None:
    answer = found(Search(RATE, 1.0), sharp(edge))
    assert answer.status == "found"
    assert answer.precise
    assert answer.low is not None and answer.high is not None
    assert answer.low <= edge <= answer.high
    assert (answer.high - answer.low) / 2 <= 0.05 * edge * 1.1
    search = [p for p in answer.probes if p.purpose != "beside"]
    assert len(search) < 30
    assert [p.load for p in search[:2]] == ([1.0, 2.0] if edge >= 1 else [1.0, 0.5])


@pytest.mark.parametrize("edge", [1, 2, 7, 19])
def test_whole_loads_are_told_apart_one_by_one(edge: int) -> None:
    answer = found(Search(SESSIONS, 8.0), sharp(edge))
    assert (answer.value, answer.low, answer.high, answer.precise) == (edge, edge, edge, True)


@pytest.mark.parametrize("needed", [2, 3, 11])
def test_of_replicas_the_least_that_hold(needed: int) -> None:
    answer = found(Search(REPLICAS, 1.0), sharp(needed, easing=True))
    assert (answer.value, answer.low, answer.high) == (needed, needed, needed)


def test_no_edge_is_said_and_not_made_up() -> None:
    never = found(Search(RATE, 1.0), sharp(0.0))
    always = found(Search(SESSIONS, 8.0), sharp(10**9))
    assert (never.status, never.value, always.status, always.value) == ("never holds", None, "always holds", None)
    assert "rate from" in never.why
    assert [(one.slo, one.broke) for one in never.binding] == [(SLO, len(never.probes))]
    one_is_too_many = found(Search(SESSIONS, 8.0), sharp(0))
    assert (one_is_too_many.status, one_is_too_many.probes[-1].load) == ("never holds", 1)
    assert found(Search(REPLICAS, 1.0), sharp(1, easing=True)).status == "always holds"


def test_runs_that_hold_too_little_are_made_longer_and_then_given_up() -> None:
    def short(least: int) -> Oracle:
        def ask(want: Want) -> Probe:
            made = sharp(5.0)(want)
            return made if want.stretch >= least else replace(made, verdict="not enough data")

        return ask

    patient = found(Search(RATE, 1.0, beside=0), short(4))
    assert patient.status == "found"
    assert {p.stretch for p in patient.probes if p.counts} == {4}
    fixed = found(Search(RATE, 1.0, stretches=False), lambda want: replace(sharp(5.0)(want), verdict="not enough data"))
    assert (fixed.status, fixed.value) == ("not enough data", None)


def test_the_interval_holds_the_edge_of_a_noisy_server() -> None:
    """At spreads from none to that of short runs; in tests/test_capacity_belief.py the share is counted."""
    for k, spread in enumerate((0.01, 0.06, 0.12)):
        answer = found(Search(RATE, 4.0, batch=4, beside=0, most=24), noisy(6.5, spread, k))
        assert answer.low is not None and answer.high is not None
        assert answer.low <= 6.5 <= answer.high


def test_the_belief_is_monotone() -> None:
    belief = learned(RATE, 1, 16, [(2, True), (8, False), (4, True), (5, False)])
    chances = [belief.holds(load) for load in (1, 2, 3, 4, 5, 6, 8, 12)]
    assert chances == sorted(chances, reverse=True)
    assert belief.of_edges.sum() == pytest.approx(1)


# -- what it says of the edge


def test_the_slo_that_broke_just_beyond_the_edge_binds() -> None:
    """Just beyond 5 errors break, far beyond it latency alone."""
    answer = found(Search(RATE, 1.0), lambda want: probe(want, want.load <= 5, broken=OTHER if want.load < 7 else SLO))
    assert [one.slo for one in answer.binding] == [OTHER]
    assert answer.binding[0].broke == answer.binding[0].of > 0


def test_a_cliff_is_told_where_there_is_one() -> None:
    def hits(load: float) -> float:
        return 0.6 if load < 5.25 else 0.1

    cliff = found(
        Search(RATE, 1.0), lambda want: probe(want, want.load <= 5, {"hit_rate": hits(want.load), "e2e_p95": 3.0})
    )
    assert [(one.figure, one.before, one.after) for one in cliff.cliffs if one.figure == "hit_rate"] == [
        ("hit_rate", 0.6, 0.1)
    ]
    assert not any(one.figure == "e2e_p95" for one in cliff.cliffs)
    slope = found(Search(RATE, 1.0), lambda want: probe(want, want.load <= 5, {"hit_rate": 1 / (1 + want.load)}))
    assert not any(one.figure == "hit_rate" for one in slope.cliffs)


def test_figures_about_the_edge_come_from_runs_there() -> None:
    answer = found(Search(RATE, 1.0, beside=2), lambda want: probe(want, want.load <= 5, {"load": want.load}))
    assert [group.runs >= 2 for group in answer.beside] == [True] * 5
    for group in answer.beside:
        assert group.figures["load"].middle == pytest.approx(group.load, rel=0.03)
    assert answer.beside[0].held == answer.beside[0].runs
    assert answer.beside[-1].held == 0


def test_a_fleet_is_sized_by_the_ratio_of_two_edges() -> None:
    first, second = (found(Search(RATE, 1.0, precision=0.03), sharp(edge)) for edge in (5.0, 6.0))
    both = fleet(first, second)
    assert both is not None
    assert both.useful_work.low <= 1.2 <= both.useful_work.high
    assert both.slack.value == pytest.approx(1 - 1 / both.useful_work.value)
    assert both.slack.low <= 1 / 6 <= both.slack.high
    assert both.fraction == Span(1 - both.slack.value, 1 - both.slack.high, 1 - both.slack.low)
    servers = [found(Search(REPLICAS, 1.0), sharp(needed, easing=True)) for needed in (6, 5)]
    needs = fleet(*servers)
    assert needs is not None
    assert needs.useful_work.value == pytest.approx(1.2)
    assert fleet(first, found(Search(RATE, 1.0), sharp(0.0))) is None


# -- on disk


def test_interrupted_anywhere_and_asked_again_it_comes_to_the_same_answer(tmp_path: Path) -> None:
    search, oracle = Search(RATE, 1.0, batch=4), noisy(6.5, 0.06, 3)
    whole = found(search, oracle)
    for cut in (0, 1, 5, 9):
        room, left = tmp_path / str(cut), [cut]

        def make(wants: Iterable[Want], left: list[int] = left) -> Iterable[Probe]:
            for want in reversed(list(wants)):  # of a batch, any may be done first
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                yield oracle(want)

        history = History(room, QUESTION)
        with pytest.raises(KeyboardInterrupt):
            walk(search, lambda wants, h=history, m=make: h.measure(wants, m))  # type: ignore[misc]
        again = History(room, QUESTION)
        assert len(again) == cut
        left[0] = -1
        probes, stop = walk(search, lambda wants, h=again, m=make: h.measure(wants, m))  # type: ignore[misc]
        assert result(search, probes, stop, workload="w", target="t", slos=[SLO, OTHER]) == whole
        assert again.unused == 0


def test_a_directory_keeps_one_question(tmp_path: Path) -> None:
    History(tmp_path / "a", QUESTION)
    with pytest.raises(StoreError, match="another question") as fault:
        History(tmp_path / "a", replace(QUESTION, slos=["ttft_p95<=2"]))
    assert "slos" in str(fault.value)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        History(tmp_path / "b", QUESTION)


def test_two_commands_cannot_go_on_with_one_search(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(StoreError, match="another command is at work"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_figure_most_of_which_was_cut_off_is_no_figure() -> None:
    """Makespans that ended within the run are the short ones: by them alone an overloaded server would hold."""
    about, took = figure("task_makespan_p90"), np.linspace(1.0, 2.0, 80)
    few = point(about, Sample(took, np.arange(80.0), censored=20))
    assert few.value == pytest.approx(1.9) and few.censored == 20
    many = point(about, Sample(took, np.arange(80.0), censored=21))
    assert many.value is None and "21% of the tasks were cut off" in many.why


def test_a_line_that_a_kill_cut_off_is_made_again(tmp_path: Path) -> None:
    search = Search(RATE, 1.0)
    history = History(tmp_path, QUESTION)
    probes, stop = walk(search, lambda wants: history.measure(wants, lambda missing: map(sharp(5.0), missing)))
    path = tmp_path / "history.jsonl"
    kept = path.read_bytes()
    path.write_bytes(kept[:-20])
    again = History(tmp_path, QUESTION)
    assert len(again) == len(probes) - 1
    assert walk(search, lambda wants: again.measure(wants, lambda missing: map(sharp(5.0), missing))) == (probes, stop)
    assert path.read_bytes() == kept
    path.write_bytes(kept.replace(b'"load"', b'"lo', 1))
    with pytest.raises(StoreError, match="line 1"):
        History(tmp_path, QUESTION)


def test_a_search_that_is_over_stays_over() -> None:
    search = Search(RATE, 1.0)
    probes, stop = walk(search, lambda wants: map(sharp(5.0), wants))
    assert stop == Stop("found")
    assert walk(search, lambda wants: [probes[want.number] for want in wants]) == (probes, stop)
