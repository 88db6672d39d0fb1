"""Probes against engines whose every figure is known: what they find must be what was put in."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_world import profile
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.answers.probe import Lab, cache, decode, prefill, stress
from workloom.answers.probe.decode import Stream, answer_tokens, at_once, batches_of, steady_part
from workloom.answers.probe.fit import fit
from workloom.answers.probe.hits import block_of
from workloom.answers.probe.knee import Rate, bound, knee
from workloom.answers.probe.lab import Ran, geometric
from workloom.answers.probe.levels import by_time, levels
from workloom.answers.probe.middle import middle
from workloom.answers.probe.prefill import lengths_of
from workloom.answers.probe.retention import Asked, bracket, rungs
from workloom.answers.probe.stress import offered
from workloom.cli import main
from workloom.drive.driver import Options
from workloom.engine.profile import FrontEnd, Profile, Retention, StepCost
from workloom.errors import UsageError
from workloom.execute import Simulated
from workloom.plan import Plan
from workloom.report.probe import sections
from workloom.store import open_run

MS, US = 10**9, 10**6
"""Picoseconds."""
STEP = StepCost(
    weights_ps=MS,
    prefill_base_ps=0,
    prefill_token_ps=20 * US,
    sequence_ps=100 * US,
    pair_ps=1000,
    context_token_ps=50_000,
)


def engine(step: StepCost = STEP, **more: object) -> Profile:
    """Prompts are computed in one step, unless a budget is given."""
    given: dict[str, object] = {"block_tokens": 16, "max_num_seqs": 64, "max_batched_tokens": 100_000}
    given |= {"step": step, "front_end": FrontEnd(call_ps=2 * MS, prompt_token_ps=2 * US)} | more
    return profile(**given)  # type: ignore[arg-type]


def lab(path: Path, server: Profile, *, prefix_cache: bool = True, kind: type[Lab] = Lab) -> Lab:
    return kind(Simulated(server, prefix_cache), path / "probe", Options(timeout_s=None, after_error="advance"))


# -- medians and their intervals


def test_six_repeats_are_the_fewest_that_carry_a_95_percent_interval() -> None:
    assert middle([3, 1, 2, 5, 4]).level == 1 - 2 / 2**5 < 0.95
    six = middle([3, 1, 2, 5, 4, 6])
    assert (six.value, six.low, six.high, six.level) == (3.5, 1, 6, 1 - 2 / 2**6)
    nine = middle(range(9))
    assert (nine.low, nine.high) == (1, 7), "the second of each side: 1 - 2 (1 + 9) / 512 is 0.961"
    assert middle([math.nan]).value is None
    many = middle(range(1001))
    assert many.low is not None and 500 - 33 <= many.low <= 500 - 29, "1.96 * sqrt(1001) / 2 ranks below the middle"
    assert middle([1.0, math.inf, math.inf]).value == math.inf, "failures count"


def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for n in (6, 9, 15):
        true = math.exp(0.0)
        draws = [middle(rng.lognormal(0, 1, n).tolist()) for _ in range(2000)]
        held = sum(d.low <= true <= d.high for d in draws if d.low is not None and d.high is not None) / 2000
        assert abs(held - draws[0].level) < 0.02 and draws[0].level >= 0.95


# -- fits


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=3))
def test_a_sum_without_noise_is_found_again(terms: list[float]) -> None:
    x = np.linspace(1, 9, 8)
    columns = np.stack([np.ones_like(x), x, x**2], axis=1)
    found = fit(("a", "b", "c"), columns, columns @ np.array(terms))
    assert found is not None and found.off < 1e-6
    for term, true in zip(found.terms, terms, strict=True):
        assert term.value == pytest.approx(true, rel=1e-4, abs=1e-6 * max(terms))


def test_a_term_that_is_not_there_is_said_to_be_not_told_from_0() -> None:
    x = np.linspace(1, 9, 9)
    noise = 1 + 0.02 * np.array([1, -1, 0.5, -0.5, 1, -1, 0.3, -0.8, 0.5])
    found = fit(("a", "b", "c"), np.stack([np.ones_like(x), x, x**2], axis=1), (1 + 2 * x) * noise)
    assert found is not None and found["b"].seen and not found["c"].seen
    assert fit(("a", "b"), np.ones((1, 2)), np.ones(1)) is None, "fewer points than terms"
    twice = fit(("a", "b"), np.stack([x, 2 * x + 1e-3 * x**2], axis=1), 3 * x * noise)
    assert twice is not None and twice.alike == [("a", "b")]


# -- prefill


def test_prefill_finds_the_coefficients_of_the_engine(tmp_path: Path) -> None:
    found = prefill(lab(tmp_path, engine()), repeats=2)
    assert found.fit is not None and found.holds_from_tokens is not None
    by_hand = {"fixed_s": 0.002, "prompt_token_s": 22e-6, "pair_s": 1e-9}  # front end 2 ms + 2 us; step 20 us, 1 ns
    for name, value in by_hand.items():
        term = found.fit[name]
        assert term.value == pytest.approx(value, rel=2e-4) and term.seen
    assert found.fit.off < 1e-5 and not found.fit.alike
    assert all(each.failed == 0 and each.ttft_s.n == 2 for each in found.lengths)
    assert found.cached_tokens == 0, "all text is new"
    longest = found.lengths[-1]
    assert longest.tokens == 10_000 * 0.98 - 4, "as long as the engine takes, less a margin for templates"
    assert longest.ttft_s.value == pytest.approx(0.002 + 22e-6 * 9796 + 1e-9 * 9796**2 / 2)
    assert found.ttft_s(1000) == pytest.approx(0.0245, rel=1e-3), "2 + 22 + 0.5 ms"
    assert open_run(tmp_path / "probe" / "prefill").manifest.status == "finished", "it is a run like any other"


def test_short_prompts_hide_behind_the_weights_and_the_fit_begins_above(tmp_path: Path) -> None:
    found = prefill(lab(tmp_path, engine(replace(STEP, weights_ps=20 * MS))), repeats=2)
    assert found.fit is not None and found.holds_from_tokens is not None
    assert 1000 <= found.holds_from_tokens < 2100, "20 us a token are 20 ms at 1,000 tokens"
    assert found.fit["prompt_token_s"].value == pytest.approx(22e-6, rel=1e-3)
    assert found.floor_s is not None and 0.022 < found.floor_s < 0.025, "2 ms, 20 ms, and 2 us a token"
    assert [each.fitted_s is None for each in found.lengths] == [
        each.prompt_tokens < found.holds_from_tokens for each in found.lengths
    ]


def test_the_fixed_cost_of_a_chunk_is_in_the_cost_of_a_prompt_token(tmp_path: Path) -> None:
    step = replace(STEP, prefill_base_ps=4 * MS, weights_ps=0)
    found = prefill(lab(tmp_path, engine(step, max_batched_tokens=256)), [512, 1024, 2048, 4096, 8192], repeats=1)
    assert found.fit is not None
    assert found.fit["prompt_token_s"].value == pytest.approx(22e-6 + 4e-3 / 256, rel=1e-3)
    assert found.fit["fixed_s"].value == pytest.approx(2e-3, rel=0.01)


def test_a_sum_that_holds_nowhere_is_said_to(tmp_path: Path) -> None:
    step = replace(STEP, knee_tokens=1000, beyond_token_ps=200 * US, pair_ps=0)  # ten times as much behind 1,000 tokens
    found = prefill(lab(tmp_path, engine(step)), [256, 512, 900, 1200, 1600, 2400], repeats=1)
    assert found.fit is not None and found.fit.off > 0.03 and found.holds_from_tokens is None
    assert any("read the table" in words for words in found.untold)
    assert "too far to hold" in sections(found)[0].tables[1].note


def test_prompts_that_do_not_fit_are_refused_and_few_lengths_have_no_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        prefill(lab(tmp_path, engine()), [20_000])
    found = prefill(lab(tmp_path, engine()), [100, 200], repeats=1)
    assert found.fit is None and "no fit" in found.untold[0] and found.lengths[1].ttft_s.value is not None


@given(st.integers(1, 200), st.integers(1, 10**6))
def test_lengths_rise_to_the_last(low: int, high: int) -> None:
    found = geometric(low, max(low, high))
    assert found[-1] == max(low, high) and found == sorted(set(found))


def test_lengths_fit_into_the_context() -> None:
    assert lengths_of(4096)[:3] == [64, 128, 256] and lengths_of(4096)[-1] == 4092
    with pytest.raises(UsageError):
        lengths_of(20)


# -- decode


def test_decode_finds_the_time_of_a_step(tmp_path: Path) -> None:
    found = decode(lab(tmp_path, engine()), [1, 2, 8], [100, 1000], repeats=2, steady=32)
    assert not found.notes and all(cell.why == "" for cell in found.cells) and len(found.cells) == 6
    for cell in found.cells:
        assert cell.context_tokens is not None and cell.user_tokens_per_s is not None
        by_hand = 1e-3 + 100e-6 * cell.batch + 50e-9 * cell.batch * cell.context_tokens
        assert cell.token_s.value == pytest.approx(by_hand, rel=2e-3)
        assert cell.tbc_p50_s.value == pytest.approx(by_hand, rel=2e-3)
        assert cell.tokens_per_s.value == pytest.approx(cell.batch / by_hand, rel=2e-3)
        assert cell.user_tokens_per_s == pytest.approx(1 / by_hand, rel=2e-3)
        assert cell.together == cell.batch
    assert found.fit is not None
    for name, value in {"step_s": 1e-3, "stream_s": 100e-6, "context_token_s": 50e-9}.items():
        assert found.fit[name].value == pytest.approx(value, rel=5e-3)


def test_streams_that_never_decode_all_at_once_have_no_figures(tmp_path: Path) -> None:
    found = decode(lab(tmp_path, engine(max_num_seqs=4)), [4, 8, 16], [100], repeats=1)
    whole, half = found.cells
    assert whole.token_s.value is not None and half.token_s.value is None
    assert half.together == 4 and half.why == "not enough data: at most 4 of 8 streams decoded at once"
    assert any("stopped at 8" in note for note in found.notes), "16 is not tried"


def test_the_steady_part_is_between_the_last_begin_and_the_first_end() -> None:
    one = Stream(np.arange(0, 40, 1.0) * 1e9, np.ones(40))
    two = Stream(np.arange(10, 50, 1.0) * 1e9, np.ones(40))
    part = steady_part([one, two], np.array([100.0, 200.0]))
    assert part is not None
    assert part.gaps_s.tolist() == [1.0] * 56, "chunks 11 to 39 of both"
    assert part.tokens_per_s == 2.0
    assert part.context_tokens == ((100 + 11 + 14.5) + (200 + 1 + 14.5)) / 2
    assert at_once([one, two]) == 2
    late = Stream(np.arange(35, 50, 1.0) * 1e9, np.ones(15))
    assert steady_part([one, late], np.array([1.0, 1.0])) is None, "four chunks are no steady part"
    assert at_once([one, Stream(np.array([39e9, 40e9]), np.ones(2))]) == 1, "one ends as the other begins"


def test_answers_outlast_the_prefill_of_the_others() -> None:
    assert answer_tokens(1, 100, 64, 2048) == 64 + 8 + 1
    assert answer_tokens(8, 8192, 64, 2048) == 64 + 8 + 32, "32 steps of 2,048 tokens"
    assert batches_of(12) == [1, 2, 4, 8, 12] and batches_of(8)[-1] == 8


# -- cache


@pytest.mark.parametrize("rules", ["vllm", "sglang"])
def test_the_cache_is_measured_as_large_as_it_is(tmp_path: Path, rules: str) -> None:
    server = engine(kv_tokens=40_000, cache=rules, retention=Retention(ttl_ps=100 * 1000 * MS))
    found = cache(lab(tmp_path, server), repeats=3, max_idle_s=512)
    assert found.block_tokens == 16 and found.told and not found.notes
    assert found.missed_tokens.high is not None and found.missed_tokens.high < 16, "less than a block"
    assert found.capacity_tokens is not None and found.ttl_s is not None
    low, high = found.capacity_tokens.low, found.capacity_tokens.high
    assert low is not None and high is not None
    assert 0.97 * 40_000 <= low <= high <= 1.03 * 40_000
    low, high = found.ttl_s.low, found.ttl_s.high
    assert low is not None and high is not None
    assert low <= 100 <= high and high - low < 10
    for hit in found.hits:
        assert hit.cold_s.value is not None and hit.speedup.low is not None and hit.speedup.low > 1
        n = hit.prompt_tokens
        assert hit.cold_s.value == pytest.approx(0.002 + 22e-6 * n + 1e-9 * n**2 / 2, rel=0.03)
        assert hit.cached_share is not None and hit.cached_share > 0.95


class Silent(Lab):
    """A server that does not say what it found."""

    def carry_out(self, name: str, plan: Plan) -> Ran:
        ran = super().carry_out(name, plan)
        ran.run.calls.cached_tokens[:] = np.nan
        return ran


def test_a_server_that_says_nothing_is_judged_by_its_ttft(tmp_path: Path) -> None:
    server = engine(kv_tokens=40_000)
    found = cache(lab(tmp_path, server, kind=Silent), repeats=3, max_idle_s=4)
    assert not found.told and found.block_tokens is None and found.capacity_tokens is not None
    assert any("hits are told by TTFT" in note for note in found.notes)
    low, high = found.capacity_tokens.low, found.capacity_tokens.high
    assert low is not None and high is not None and 0.95 * 40_000 < low <= high < 1.05 * 40_000


def test_without_a_prefix_cache_nothing_is_kept_and_that_is_said(tmp_path: Path) -> None:
    found = cache(lab(tmp_path, engine(), prefix_cache=False), [1000], repeats=2)
    assert found.pressure == [] and found.capacity_tokens is None
    assert any("no prefix cache" in note for note in found.notes)
    silent = cache(lab(tmp_path / "silent", engine(), prefix_cache=False, kind=Silent), [1000], repeats=2)
    assert any("cannot tell" in note for note in silent.notes) and silent.idle == []


def test_a_cache_without_end_is_said_to_hold_more(tmp_path: Path) -> None:
    found = cache(lab(tmp_path, engine()), [1000], repeats=1, max_pressure=50_000, max_idle_s=2)
    assert found.capacity_tokens is not None and found.capacity_tokens.high is None
    assert any("it holds more" in note for note in found.notes)
    assert found.ttl_s is not None and found.ttl_s.high is None and found.ttl_s.low == pytest.approx(2, rel=0.01)


def test_hit_or_miss_by_time_needs_odds_of_20() -> None:
    known = levels([0.1, 0.101, 0.099], [0.4, 0.41, 0.39])
    assert known is not None and known.apart
    assert [by_time(t, known) for t in (0.05, 0.1, 0.2, 0.4, 1.0)] == [True, True, None, False, False]
    close = levels([0.1, 0.12, 0.08], [0.11, 0.13, 0.09])
    assert close is not None and not close.apart and by_time(0.01, close) is None
    assert levels([], [1.0]) is None and by_time(1.0, None) is None and by_time(math.inf, known) is None


def test_a_bracket_is_where_all_was_there_and_nothing_was() -> None:
    there, gone = [Asked(a, 1.0, None) for a in (10, 20)], [Asked(a, 0.0, None) for a in (40, 80)]
    where = bracket([*there, *gone, Asked(30, None, None)], own=5)
    assert (where.low, where.high, where.orderly) == (25, 40, True)
    assert bracket([*there, Asked(28, 0.5, 33), *gone]) == bracket([Asked(28, 0.5, 33)]), "a part says it outright"
    mixed = bracket([*there, *gone, Asked(60, 1.0, None)])
    assert (mixed.low, mixed.high, mixed.orderly) == (40, 60, False)
    assert bracket([]).low is None


@given(st.integers(1, 3000), st.integers(1, 10**6), st.floats(1.01, 4))
def test_rungs_leave_room_for_what_a_rung_writes(prefix: int, high: int, ratio: float) -> None:
    ladder = rungs(0, high, ratio, prefix)
    assert ladder.ages[0] == high and len(ladder.ages) <= 40
    steps = [a - b for a, b in zip(ladder.ages, ladder.ages[1:], strict=False)]
    assert all(step >= ladder.least_step for step in steps)


def test_a_block_size_is_what_all_counts_share() -> None:
    assert block_of({32, 48, 80, 112, 176, 192, 208, 240}) == 16
    assert block_of({33, 48, 80, 112, 176, 192, 208, 240}) == 1
    assert block_of({16, 32, 0}) is None, "too few"


# -- stress


def test_the_knee_is_where_the_engine_takes_no_more_at_once(tmp_path: Path) -> None:
    here = lab(tmp_path, engine(replace(STEP, prefill_token_ps=US, pair_ps=0), max_num_seqs=8))
    offer, name = offered(here, 100, 40)
    found = stress(here, offer, name)
    assert found.knee.at is not None and 8 <= found.knee.at <= 11
    assert found.knee.low is not None and found.knee.low < 8 <= (found.knee.high or 8)
    assert [level.concurrency for level in found.levels if level.concurrency in (1, 2, 4, 8, 16, 32)] == [
        1, 2, 4, 8, 16, 32,
    ]  # fmt: skip
    assert found.bound is not None and found.bound <= 8
    for level in found.levels:
        assert level.failed == 0 and level.low is not None and level.high is not None
        assert level.low <= level.output_tokens_per_s <= level.high
    full = next(level for level in found.levels if level.concurrency == 16)
    step_s = 1e-3 + 8 * 100e-6 + 8 * 120 * 50e-9  # eight of some 120 tokens of context, most of the time
    assert full.output_tokens_per_s == pytest.approx(8 / step_s, rel=0.1)


def test_the_knee_of_hand_made_figures() -> None:
    rates = [Rate(load, value) for load, value in ((1, 90), (2, 170), (4, 310), (8, 520), (16, 560), (32, 565))]
    assert knee(rates).at == 8
    tight = [Rate(r.load, r.value, r.value * 0.99, r.value * 1.01) for r in rates]
    assert (knee(tight).at, knee(tight).low, knee(tight).high) == (8, 4, 8)
    wide = [Rate(r.load, r.value, r.value * 0.9, r.value * 1.1) for r in rates]
    assert knee(wide).high is None, "from 16 to 32 it may still rise by a tenth"
    assert knee(rates[:4]).at is None and "still rose" in knee(rates[:4]).why
    assert "not enough data" in knee(rates[:1]).why
    assert bound(rates) == pytest.approx(565 / 90) and bound(rates[1:]) is None


def test_a_load_that_fails_ends_the_climb(tmp_path: Path) -> None:
    here = lab(tmp_path, engine(max_num_seqs=1, kv_tokens=4000, max_model_len=3000))
    here.options = Options(timeout_s=0.16)
    offer, name = offered(here, 200, 40)
    found = stress(here, offer, name)
    assert found.levels[-1].concurrency < 1024 and found.levels[-1].failed
    assert any("calls failed" in note for note in found.notes)


# -- as a user types it


def typed(*words: str) -> int:
    """The exit code of a command."""
    before = sys.argv
    sys.argv = ["workloom", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def test_a_simulated_probe_is_the_same_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("probe", "prefill", "--engine", "llama-3.1-8b-h100x1", "--quick", "--max-context", "4096", "--json")
    for name in ("a", "b"):
        assert typed(*words, "-o", str(tmp_path / name)) == 0
    a, b = ((tmp_path / name / "probe.json").read_bytes() for name in ("a", "b"))
    assert a == b
    out, err = capsys.readouterr()
    assert out.encode() == a + b, "data to stdout, progress to stderr"
    assert "cold prompts" in err and "report.html" in err
    found = json.loads(a)
    assert found["lengths"][-1]["tokens"] == 4092 and found["fit"]["terms"][1]["value"] > 0
    assert typed("show", str(tmp_path / "a" / "prefill")) == 0, "the run is one like any other"
    capsys.readouterr()
    assert typed(*words, "-o", str(tmp_path / "a")) == 2
    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prefill", "--engine", "llama-3.1-8b-h100x1", "--max-gap", "5"), "it belongs to cache"),
        (("decode", "x.jsonl", "--engine", "llama-3.1-8b-h100x1"), "WORKLOAD"),
        (("prefill",), "--engine NAME"),
        (("prefill", "--engine", "llama-3.1-8b-h100x1", "--lengths", "5,-1"), "a list of numbers"),
        (("cache", "--engine", "llama-3.1-8b-h100x1", "--repeats", "0"), "--repeats"),
        (("sink",), "sink"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert typed("probe", *words, "-o", str(tmp_path / "new")) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists(), "nothing is left behind"


def test_stress_takes_a_workload_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("coding-agent", "--generate", "5", "--streams", "1,2", "--engine", "llama-3.1-8b-h100x1", "--max-context")
    code = typed("probe", "stress", *words, "30000", "-o", str(tmp_path / "p"))
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "coding-agent" in out and ("No knee" in out or "The knee is" in out)


def test_all_reports_say_their_figures(tmp_path: Path) -> None:
    server = engine(kv_tokens=20_000, max_num_seqs=4)
    here = lab(tmp_path / "d", server)
    tables = [table for section in sections(decode(here, [1, 8], [64], 2)) for table in section.tables]
    assert "at most 4 of 8 streams" in tables[0].note and "more --repeats" in tables[0].note
    shown = sections(cache(lab(tmp_path / "c", server), [512, 2048], 4, max_idle_s=2))
    assert [section.key for section in shown] == ["hits", "pressure", "idle"]
    assert shown[0].lead.startswith("Prefixes are found in blocks of 16.")
    assert "2.00 s or more" in shown[2].lead or "1.9" in shown[2].lead


# -- live


def test_a_live_probe_over_loopback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "workloom.cli", "serve", "--engine", "llama-3.1-8b-h100x1", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        live = ("--url", url, "--metrics", "off", "--repeats", "1", "--seconds", "20", "--json")
        words = ("--lengths", "64,512,2048,8192")
        assert typed("probe", "prefill", *words, *live, "-o", str(tmp_path / "p")) == 0
        found = json.loads(capsys.readouterr().out)
        assert [each["ttft_s"]["n"] for each in found["lengths"]] == [1] * 4, "every call was answered"
        assert found["cached_tokens"] == 0 and found["runs"] == ["warmup", "prefill"]
        took = [each["ttft_s"]["value"] for each in found["lengths"]]
        assert took[3] > took[0], "a longer prompt takes longer"
        assert abs(found["lengths"][3]["prompt_tokens"] - 8192) < 16
        assert typed("probe", "decode", "--streams", "2", "--lengths", "64", *live, "-o", str(tmp_path / "d")) == 0
        (cell,) = json.loads(capsys.readouterr().out)["cells"]
        assert cell["together"] == 2 and cell["token_s"]["value"] > 0
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
