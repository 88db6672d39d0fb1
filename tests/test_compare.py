"""Two runs side by side: what is paired and why, verdicts and gates by hand, calls that moved, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from compare_runs import side
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from test_cli import CANONICAL, workloom
from test_metrics import call
from test_store import write

from workloom import seeds
from workloom.answers.compare import Side, compare, gate, open_side
from workloom.answers.compare.figures import every, headline, named
from workloom.answers.compare.gate import gates, held
from workloom.answers.compare.judge import holm, judge
from workloom.answers.compare.manifests import changes, unfair
from workloom.answers.compare.movers import median_by_sessions, movers
from workloom.answers.compare.pairing import common, pair
from workloom.answers.compare.several import over_runs
from workloom.answers.compare.sides import equal, pooled
from workloom.cli.compare import show
from workloom.cli.wide import wide
from workloom.errors import StoreError, UsageError
from workloom.metrics.catalog import Sample, Totals
from workloom.metrics.figure import figure
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured_records
from workloom.metrics.uncertainty.difference import Difference
from workloom.records import CallRecord
from workloom.store.manifest import Manifest

SECOND = 1_000_000_000


def difference(low: float | None, high: float | None, *, a: float = 1.0, why: str = "") -> Difference:
    """b against a figure of `a`, by the interval of the ratio; of a = 0 by that of the difference."""
    if low is None or high is None:
        return Difference("ttft_p95", a, None, why=why)
    if a == 0:
        return Difference("errors", a, (low + high) / 2, None, None, None, (low + high) / 2, low, high, 0.5)
    middle = (low + high) / 2
    return Difference(
        "ttft_p95", a, a * middle, middle, low, high, a * (middle - 1), a * (low - 1), a * (high - 1), 0.5
    )


def failing(*, shown: bool = True, better: bool = False) -> Difference:
    """One side has an infinite p95: so many of its calls failed."""
    p, inf = (0.05 if shown else 1.0), math.inf
    if better:
        return Difference("ttft_p95", inf, 1.0, 0.0, difference=-inf, p_value=p)
    return Difference("ttft_p95", 1.0, inf, inf, difference=inf, p_value=p)


def recipe(content: str = "abc", seed: int = 0, load: object = None, **fields: object) -> dict[str, object]:
    trace = {"paths": ["somewhere.jsonl"], "content_hash": content}
    return {"trace": trace, "load": load or {"type": "closed", "concurrency": 8}, "seed": seed, **fields}


def manifest(content: str = "abc", seed: int = 0, plan: str = "", load: object = None, **fields: object) -> Manifest:
    config = {"recipe": recipe(content, seed, load), **fields.pop("config", {})}  # type: ignore[dict-item]
    return Manifest(backend="simulated", plan_hash=plan, seed=seed, config=config, status="finished", **fields)  # type: ignore[arg-type]


def run(of: Manifest | None, slower: float = 1.0, *, lengths: int = 10, sessions: int = 12) -> Measured:
    """Sessions of two calls; TTFT of session k is k + 1 seconds, or `slower` times that."""
    calls = [
        call(
            due_s=100 * j,
            first_s=100 * j + 0.001 + slower * (k + 1),
            last_s=100 * j + 0.001 + 2 * slower * (k + 1),
            instance=k,
            ordinal=j,
            agent="main" if j == 0 else "Explore:a1",
            planned_output_tokens=lengths,
            output_tokens=10,
        )
        for k in range(sessions)
        for j in range(2)
    ]
    return measured_records(calls, manifest=of)


def one(of: Manifest | None, *args: float, **fields: int) -> Side:
    return Side("x", (run(of, *args, **fields),))


# --- what is paired


def test_runs_of_one_plan_are_paired_session_by_session() -> None:
    how, _ = pair(one(manifest(plan="p")), one(manifest(plan="p"), sessions=10))
    assert (how.kind, how.why) == ("paired", "the plans are the same")
    assert (how.sessions_both, how.sessions_only_a, how.sessions_only_b) == (10, 2, 0)
    assert (how.calls_both, how.calls_only_a, how.calls_only_b) == (20, 4, 0)


def test_one_workload_and_seed_at_two_loads_line_up() -> None:
    other = manifest(plan="q", load={"type": "open", "sessions_per_s": 1.0})
    how, _ = pair(one(manifest(plan="p")), one(other))
    assert how.paired and "workload and seed are the same" in how.why


@pytest.mark.parametrize(
    ("b", "why"),
    [
        (manifest(seed=1, plan="q"), "seeds"),
        (manifest(content="other", plan="q"), "workloads"),
        (manifest(plan="q", load={"type": "replay"}), "seeds"),
        (None, "does not say"),
    ],
)
def test_what_cannot_be_paired_says_why(b: Manifest | None, why: str) -> None:
    how, _ = pair(one(manifest(plan="p")), one(b))
    assert how.kind == "unpaired" and why in how.why
    if b is not None:
        with pytest.raises(UsageError, match="cannot be paired"):
            pair(one(manifest(plan="p")), one(b), "paired")


def test_a_promise_of_equal_plans_is_not_believed_when_the_calls_are_others() -> None:
    how, _ = pair(one(manifest(plan="p")), one(manifest(plan="p"), lengths=11))
    assert how.kind == "unpaired" and "24 of 24 calls" in how.why


def test_repeats_are_matched_by_their_seeds_in_whatever_order_they_are_named() -> None:
    a = Side("a", tuple(run(manifest(seed=k, plan=f"a{k}"), sessions=10 + k) for k in (0, 1, 2)))
    b = Side("b", tuple(run(manifest(seed=k, plan=f"b{k}"), sessions=10 + k) for k in (2, 0, 1)))
    how, ordered = pair(a, b)
    assert how.paired
    assert [m.seed for m in ordered.manifests] == [0, 1, 2]
    assert (how.sessions_both, how.sessions_only_a, how.sessions_only_b) == (33, 0, 0)
    how, _ = pair(a, Side("b", b.runs[:2]))
    assert how.kind == "unpaired" and "3 runs of one and 2 of the other" in how.why


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 9), st.integers(0, 3))), st.sets(st.tuples(st.integers(0, 9), st.integers(0, 3)))
)
def test_calls_in_both_are_those_of_both_by_brute_force(a: set[tuple[int, int]], b: set[tuple[int, int]]) -> None:
    runs = [
        measured_records([call(instance=i, ordinal=j, first_s=1, last_s=2) for i, j in sorted(keys)]) for keys in (a, b)
    ]
    rows = common(*runs)
    found = [
        {(int(run.calls.instance[row]), int(run.calls.ordinal[row])) for row in mine}
        for run, mine in zip(runs, rows, strict=True)
    ]
    assert found == [a & b, a & b]
    assert len(rows.a) == len(a & b)


# --- verdicts


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (0.70, 0.80, "lower", "better"),
        (0.70, 0.80, "higher", "worse"),
        (1.10, 1.30, "lower", "worse"),
        (1.10, 1.30, "neither", "higher"),
        (0.70, 0.80, "neither", "lower"),
        (0.99, 1.01, "lower", "same"),
        (1.005, 1.015, "lower", "same"),  # shown to differ, by less than anybody minds
        (0.90, 1.10, "lower", "cannot tell"),
        (0.99, 1.03, "lower", "cannot tell"),
        (1.01, 1.03, "lower", "worse"),
        (None, None, "lower", "cannot tell"),
    ],
)
def test_a_verdict_is_read_from_the_interval(low: float, high: float, better: str, verdict: str) -> None:
    assert judge(difference(low, high, why="too few"), better, 0.02)[0] == verdict  # type: ignore[arg-type]


def test_a_share_of_nothing_is_judged_by_its_difference() -> None:
    assert judge(difference(0.01, 0.03, a=0.0), "lower")[0] == "worse"
    assert judge(difference(-0.01, 0.03, a=0.0), "lower")[0] == "cannot tell"
    assert judge(difference(0.0, 0.0, a=0.0), "lower")[0] == "same"


def test_a_figure_among_failures_is_worse_where_that_is_shown() -> None:
    assert judge(failing(), "lower")[0] == "worse"
    assert judge(failing(better=True), "lower")[0] == "better"
    assert judge(failing(shown=False), "lower")[0] == "cannot tell"


@given(st.floats(0.1, 10), st.floats(1.0, 3), st.sampled_from(["lower", "higher"]), st.floats(0.001, 0.5))
def test_who_is_called_a_does_not_matter(low: float, wide: float, better: str, same: float) -> None:
    mirror = {"better": "worse", "worse": "better"}
    forth = judge(difference(low, low * wide), better, same)[0]  # type: ignore[arg-type]
    back = judge(difference(1 / (low * wide), 1 / low), better, same)[0]  # type: ignore[arg-type]
    edges = [abs(x - y) < 1e-9 for x in (low, low * wide) for y in (1.0, 1 + same, 1 / (1 + same))]
    assert any(edges) or back == mirror.get(forth, forth)


def test_p_values_are_adjusted_as_holm_did() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@given(st.lists(st.none() | st.floats(0, 1), max_size=20))
def test_adjusted_p_values_keep_their_order_and_are_never_smaller(p: list[float | None]) -> None:
    adjusted = holm(p)
    there = [(x, y) for x, y in zip(p, adjusted, strict=True) if x is not None and y is not None]
    assert [x is None for x in p] == [y is None for y in adjusted]
    assert all(x <= y <= 1 for x, y in there)
    assert [y for _, y in sorted(there)] == sorted(y for _, y in there)


# --- gates


def test_gates_are_read_in_the_unit_of_their_metric() -> None:
    assert [(g.up, pytest.approx(g.allowed), g.relative) for g in map(gate, GATES)] == [
        (True, 0.05, True),
        (True, 0.01, False),
        (True, 0.05, False),
        (True, 1.5, False),
    ]


GATES = ("ttft_p95:+5%", "errors:+1pp", "ttft_p95[agent=main]: +50ms", "e2e_mean:+1.5s")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft_p95", "a gate is"),
        ("ttft_p95:5%", "a gate is"),
        ("ttft_p95:-5%", r"ttft_p95:\+5%"),
        ("ttft_p95:+5pp", "does not move by this"),
        ("ttft_p95:+5", "does not move by this"),
        ("errors:+5ms", "does not move by this"),
        ("tfft_p95:+5%", "did you mean"),
        ("ttft:+5%", "a value a call"),
        ("errors:+1", "less than 1"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        gate(text)


def test_all_faults_of_all_gates_are_told_at_once() -> None:
    with pytest.raises(UsageError) as told:
        gates(["ttft_p95", "errors:+1pp", "nonsense:+5%"])
    assert "2 gates" in str(told.value) and "nonsense" in str(told.value)


@pytest.mark.parametrize(
    ("text", "found", "verdict"),
    [
        ("ttft_p95:+5%", difference(1.06, 1.20), "fail"),
        ("ttft_p95:+5%", difference(1.01, 1.04), "pass"),
        ("ttft_p95:+5%", difference(0.50, 0.90), "pass"),
        ("ttft_p95:+5%", difference(1.04, 1.20), "not enough data"),
        ("ttft_p95:+5%", difference(0.98, 1.06), "not enough data"),
        ("ttft_p95:+5%", difference(None, None), "not enough data"),
        ("ttft_p95:+5%", failing(), "fail"),
        ("ttft_p95:+50ms", failing(), "fail"),
        ("ttft_p95:+5%", failing(better=True), "pass"),
        ("ttft_p95:+5%", failing(shown=False), "not enough data"),
        ("errors:+1pp", difference(0.02, 0.03, a=0.0), "fail"),
        ("errors:+1pp", difference(-0.01, 0.009, a=0.0), "pass"),
        ("errors:+1%", difference(0.0, 0.0, a=0.0), "not enough data"),
        ("ttft_p95:+50ms", difference(1.06, 1.07), "fail"),
    ],
)
def test_a_gate_fails_when_a_worse_change_than_allowed_is_shown(text: str, found: Difference, verdict: str) -> None:
    assert held(gate(text), found).verdict == verdict


@given(st.floats(0.2, 5), st.floats(1, 2), st.floats(0, 100), st.floats(0, 100))
def test_a_wider_gate_never_fails_what_a_narrower_one_let_pass(low: float, wide: float, x: float, y: float) -> None:
    order = ["fail", "not enough data", "pass"]
    narrow, broad = (
        held(gate(f"ttft_p95:+{allowed:.6f}%"), difference(low, low * wide)).verdict for allowed in sorted((x, y))
    )
    assert order.index(narrow) <= order.index(broad)


# --- several runs a side


@settings(max_examples=30)
@given(st.integers(3, 8), st.integers(0, 1000))
def test_differences_over_runs_are_students_and_welchs(k: int, seed: int) -> None:
    rng = seeds.stream(seed, "over runs")
    a, b = rng.normal(10, 1, k), rng.normal(11, 2, k)
    paired = over_runs("x", a.tolist(), b.tolist(), paired=True)
    expected = scipy_stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (paired.low, paired.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    unpaired = over_runs("x", a.tolist(), b.tolist(), paired=False)
    expected = scipy_stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (unpaired.low, unpaired.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert unpaired.ratio == pytest.approx(b.mean() / a.mean())
    assert unpaired.ratio_low is not None and unpaired.ratio_high is not None
    assert unpaired.ratio_low < unpaired.ratio < unpaired.ratio_high


def test_a_run_that_cannot_say_leaves_no_interval_over_runs() -> None:
    found = over_runs("x", [1.0, None, 2.0], [1.0, 2.0, math.inf], paired=False)
    assert found.low is None and "not enough data" in found.why


def test_pooled_runs_keep_their_sessions_apart() -> None:
    sample = Sample(np.array([1.0, 2.0]), np.array([0.0, 1.0]), censored=1, at_ns=np.array([5.0, 9.0]))
    windows = [Window(5, 15), Window(2, 22)]
    both = pooled([sample, sample], windows)
    assert isinstance(both, Sample)
    assert both.at_ns is not None and both.at_ns.tolist() == [0, 4, 13, 17]  # the second begins where the first ends
    assert len(np.unique(both.session)) == 4 and both.censored == 2
    rates = pooled([Totals(np.ones(2), 10.0, np.arange(2.0)), Totals(np.ones(3), 20.0, np.arange(3.0))], windows)
    assert isinstance(rates, Totals)
    assert (float(rates.part.sum()), rates.whole, len(np.unique(rates.session))) == (5.0, 30.0, 5)
    assert rates.at_ns is None and pooled([sample, None], windows) is None
    assert equal([sample], [sample]) and not equal([sample], [None])


# --- calls that moved


def test_every_call_is_held_against_itself() -> None:
    found = movers(one(manifest(plan="p")), one(manifest(plan="p"), 1.5), same=0.02, level=0.95, most=3)
    ttft = [moved for moved in found.moved if moved.figure == "ttft"]
    assert [moved.of for moved in ttft] == ["all", "role=Explore", "role=main"]
    assert ttft[0].calls == 24 and ttft[0].sessions == 12
    assert ttft[0].ratio_p50 == pytest.approx(1.5)
    assert (ttft[0].slower_share, ttft[0].faster_share) == (1.0, 0.0)
    assert ttft[0].total_s == pytest.approx(2 * 0.5 * sum(range(1, 13)))
    assert [mover.instance for mover in found.most] == [11, 11, 10]
    assert (found.most[0].a_s, found.most[0].b_s) == (pytest.approx(24), pytest.approx(36))


def test_calls_that_failed_in_one_run_only_are_counted_and_in_no_ratio() -> None:
    def records(failed: set[int]) -> list[CallRecord]:
        good = {"first_s": 1.0, "last_s": 2.0}
        return [
            call(instance=k, status="error") if k in failed else call(instance=k, **good)  # type: ignore[arg-type]
            for k in range(12)
        ]

    a, b = (Side("x", (measured_records(records(failed)),)) for failed in ({0}, {1, 2}))
    found = movers(a, b, same=0.02, level=0.95)
    assert (found.went_wrong, found.went_well) == (2, 1)
    assert found.moved[0].calls == 9


def test_where_all_calls_failed_it_is_said_and_none_is_called_unmoved(capsys: pytest.CaptureFixture[str]) -> None:
    of = manifest(plan="p")
    lost = measured_records(
        [call(instance=k, ordinal=j, status="error", planned_output_tokens=10) for k in range(12) for j in range(2)]
    )
    lost = dataclasses.replace(lost, manifest=of)
    show(compare(one(of), Side("y", (lost,))), wide())
    out = capsys.readouterr().out
    assert "24 calls failed in B only, 0 in A only\nno call of the 24 in both went well in both" in out
    assert "∞" in out and not {"inf", "-inf", "nan"} & set(out.split())


def test_the_median_over_calls_has_an_interval_that_knows_of_sessions() -> None:
    """Of 200 draws of 40 sessions with effects of their own, the interval holds the true median in about 95 %."""
    held_it = naive = 0
    for seed in range(200):
        rng = seeds.stream(seed, "median")
        session = np.repeat(np.arange(40.0), 10)
        values = np.repeat(rng.normal(0, 1, 40), 10) + rng.normal(0, 0.3, 400)
        _, low, high = median_by_sessions(values, session)
        assert low is not None and high is not None
        held_it += low <= 0 <= high
        _, low, high = median_by_sessions(values, np.arange(400.0))
        assert low is not None and high is not None
        naive += low <= 0 <= high
    assert 180 <= held_it <= 200
    assert naive < 150
    assert median_by_sessions(np.arange(9.0), np.arange(9.0)) == (4.0, None, None)


# --- what changed, and what is not fair


def test_settings_that_differ_are_listed_and_paths_and_prose_are_not() -> None:
    a = manifest(config={"engine": {"kv_tokens": 1000, "source": "x", "tiers": []}, "prefix_cache": True})
    b = manifest(seed=1, config={"engine": {"kv_tokens": 2000, "source": "y", "tiers": [{"name": "host"}]}})
    a = msgspec.structs.replace(a, argv=["w", "run", "t", "-o", "a"])
    b = msgspec.structs.replace(b, argv=["w", "run", "t", "--seed", "1", "--out=b"])
    found = {change.name: (change.a, change.b) for change in changes(a, b)}
    assert found == {
        "command line": (None, "--seed 1"),
        "seed": ("0", "1"),
        "engine.kv_tokens": ("1000", "2000"),
        "engine.tiers": ("[]", None),
        "engine.tiers[0].name": (None, "host"),
        "prefix_cache": ("true", None),
    }
    assert changes(a, a) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"backend": "http"}, "one is simulated and the other live"),
        ({"status": "killed"}, "B did not come to its end: killed"),
        ({"torn_bytes": 7}, "B lost 7 bytes"),
        ({"notes": ["the prefix cache could not be reset: 404"]}, "B began on a cache left warm"),
        ({"workloom": "0.0.1"}, "other versions of workloom"),
        ({"config": {"recipe": recipe("other")}}, "other workloads"),
        ({"config": {"recipe": recipe(limits={"duration_s": 60})}}, "the limits of the runs differ"),
        ({"config": {"recipe": recipe(load={"type": "open"})}}, "other load"),
        ({"config": {"recipe": recipe(), "options": {"timeout_s": 1}}}, "calls were treated differently"),
    ],
)
def test_what_makes_a_comparison_unfair_is_said(change: dict[str, object], says: str) -> None:
    a = manifest()
    assert unfair(a, a) == []
    b = msgspec.structs.replace(a, **change)
    assert any(says in words for words in unfair(a, b)), unfair(a, b)


def test_sessions_made_of_one_workload_with_another_seed_are_no_other_workload() -> None:
    def made(seed: int, content: str) -> Manifest:
        trace = {"paths": ["chat"], "generate": 100, "content_hash": content}
        config = {"recipe": {"trace": trace, "seed": seed}}
        return Manifest(backend="simulated", seed=seed, config=config, status="finished", plan_hash=content)

    assert unfair(made(0, "x"), made(1, "y")) == []
    assert any("other workloads" in words for words in unfair(made(0, "x"), made(0, "y")))  # the file was changed
    how, _ = pair(one(made(0, "x")), one(made(1, "y")))
    assert how.kind == "unpaired" and "seeds" in how.why
    a, b = (Side("x", tuple(run(made(seed, f"{seed}")) for seed in order)) for order in ((0, 1), (1, 0)))
    assert pair(a, b)[0].paired


def test_answers_of_other_lengths_and_calls_in_one_run_only_are_said() -> None:
    a, b = one(manifest(plan="p")), one(manifest(plan="p"), sessions=6)
    assert any("12 calls are in A only" in words for words in compare(a, b).warnings)
    shorter = measured_records(
        [call(first_s=1, last_s=2, instance=k, planned_output_tokens=10, output_tokens=5) for k in range(12)],
        manifest=manifest(plan="p"),
    )
    warnings = compare(a, Side("b", (shorter,))).warnings
    assert any("50.0% of A's tokens" in words for words in warnings), warnings


# --- comparisons as a whole


def test_two_runs_of_one_seed_are_identical_in_every_figure() -> None:
    a, b = side(5, count=40), side(5, count=40)
    found = compare(a, b, every(), pairing="paired")
    told = {row.verdict for row in found.rows if row.a.value is not None}
    assert told == {"identical"}
    assert found.calls is not None
    assert {(m.ratio_p50, m.slower_share, m.faster_share) for m in found.calls.moved} == {(1.0, 0.0, 0.0)}
    gates_told = compare(a, b, gates=[gate("ttft_p95:+0%")], pairing="paired").gates
    assert [each.verdict for each in gates_told] == ["pass"]


def test_the_headline_comes_first_and_all_is_all() -> None:
    everything = [figure.say() for figure in every()]
    assert len(set(everything)) == len(everything)
    assert {figure.say() for figure in headline()} <= set(everything)
    assert {"ttft_p95", "e2e_p95", "errors"} <= {figure.say() for figure in headline()}
    assert [f.say() for f in named(["ttft", "errors", "e2e_mean[agent=a,turn=1],tbc_p99"])] == [
        *("ttft_p50", "ttft_p95", "ttft_p99", "ttft_mean"),
        *("errors", "e2e_mean[agent=a,turn=1]", "tbc_p99"),
    ]


def test_equal_seeds_give_equal_comparisons_to_the_byte() -> None:
    a, b = side(1, count=20), side(2, count=20)
    told = [msgspec.json.encode(compare(a, b, seed=3)) for _ in range(2)]
    assert told[0] == told[1]


def test_a_margin_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="margin"):
        compare(one(None), one(None), [figure("ttft_p50")], same=1.5)


# --- the command


LINES = ["cs2-linear", "--generate", "150", "--rate", "6", "--engine", "llama-3.1-8b-h200x1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the canonical workload, again, and without the prefix cache; short chains, and those with other seeds."""
    folder = tmp_path_factory.mktemp("compare")
    canonical = [CANONICAL, "--engine", "llama-3.1-70b-h200x4", "--concurrency", "8"]
    each = {
        "plain": canonical,
        "again": canonical,
        "cold": [*canonical, "--prefix-cache", "off"],
        "lines": LINES,
        "slow": [*LINES, "--prefix-cache", "off"],
        "other": [*LINES, "--seed", "1"],
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, words in each.items():
            assert workloom(patch, "run", *words, "-o", str(folder / name)) == 0
    return folder


def test_a_slower_engine_is_told_and_fails_the_gate(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workloom(monkeypatch, "compare", str(runs / "plain"), str(runs / "cold")) == 0
    out = capsys.readouterr().out
    assert "paired: the plans are the same" in out
    assert "--prefix-cache off" in out and "prefix_cache" in out
    found = compare(open_side(str(runs / "plain")), open_side(str(runs / "cold")))
    rows = {row.figure: row for row in found.rows}
    for name in ("ttft_p50", "ttft_p95", "e2e_p50", "e2e_p95", "task_makespan_p50"):
        assert rows[name].verdict == "worse" and rows[name].holds and not rows[name].by_test, rows[name]
    assert rows["tpot_mean"].verdict == "worse" and rows["tpot_mean"].by_test  # 20 sessions are few for what gaps do
    assert "worse (test)" in out and "by the test alone (they differ by more than 10%): 20 sessions in both" in out
    gated = ["compare", str(runs / "plain"), str(runs / "cold"), "--gate"]
    assert workloom(monkeypatch, *gated, "ttft_p95:+5%") == workloom(monkeypatch, *gated, "tpot_mean:+50%") == 3
    assert workloom(monkeypatch, *gated, "errors:+1pp") == 4
    assert "role=explore" in out and "canonical-16 main/53" in out
    words = [str(runs / "lines"), str(runs / "slow")]
    assert workloom(monkeypatch, "compare", *words, "--gate", "e2e_mean:+5%") == 3
    assert workloom(monkeypatch, "compare", *reversed(words), "--gate", "e2e_mean:+5%") == 0
    capsys.readouterr()
    assert workloom(monkeypatch, "compare", *words, "--json", "--figure", "e2e_mean[turn=0]") == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["rows"]
    assert (row["figure"], row["verdict"]) == ("e2e_mean[turn=0]", "worse")
    assert row["difference"]["ratio_low"] > 1.05
    assert told["pairing"]["kind"] == "paired"


def test_the_example_of_the_page_is_what_is_printed(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "compare.md").read_text()
    block = page.partition("## An example")[2].partition("## ")[0].partition("    A  runs/on")[2]
    lines = [line.strip() for line in block.splitlines()[1:] if line.strip() not in ("", "...")]
    words = ["--gate", "ttft_p95:+5%", "--gate", "tpot_mean:+50%"]
    assert workloom(monkeypatch, "compare", str(runs / "plain"), str(runs / "cold"), *words) == 3
    out = capsys.readouterr().out.replace(str(runs / "plain"), "runs/on").replace(str(runs / "cold"), "runs/off")
    printed = iter([line.strip() for line in out.splitlines()])
    assert len(lines) > 40
    for line in lines:
        assert line in printed, line  # in this order


def test_a_run_and_itself_again_are_identical(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(runs / "plain"), str(runs / "again"), "--gate", "ttft_p95:+0%"]
    assert workloom(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert "identical" in out and "nothing differs in the configurations" in out
    assert "no call of the" in out


def test_a_gate_that_cannot_be_judged_has_an_exit_code_of_its_own_and_fails_when_strict(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(runs / "lines"), str(runs / "other"), "--gate", "ttft_p95:+1%"]
    assert workloom(monkeypatch, *words) == 4
    assert "unpaired: the seeds are not the same" in capsys.readouterr().out
    assert workloom(monkeypatch, *words, "--strict") == 3


def test_what_cannot_be_compared_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = str(runs / "plain")
    assert workloom(monkeypatch, "compare", plain, str(tmp_path / "none")) == 1
    assert workloom(monkeypatch, "compare", plain, plain, "--all", "--figure", "ttft") == 2
    assert workloom(monkeypatch, "compare", plain, plain, "--figure", "nonsense_p95") == 2
    with pytest.raises(StoreError, match="no run is like this"):
        open_side(str(tmp_path / "run-*"))
    with pytest.raises(UsageError, match="empty"):
        open_side("a,,b")


def test_runs_of_a_kind_are_named_with_commas_or_a_pattern(tmp_path: Path) -> None:
    for name in ("a-1", "a-2", "b"):
        write(tmp_path / name, [])
    assert [path.name for path in open_side(str(tmp_path / "a-*")).paths if path] == ["a-1", "a-2"]
    assert len(open_side(f"{tmp_path / 'a-1'},{tmp_path / 'b'}").runs) == 2
