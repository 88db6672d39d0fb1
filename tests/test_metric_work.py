"""How much of the work was new: worked out by hand, token by token, and on engines whose caches are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_runs import CANONICAL, S, call, edge, run_of, session
from msgspec.structs import replace

from workloom.answers.trial import in_memory
from workloom.engine.profile import load
from workloom.metrics.catalog import Sample, Totals, catalog
from workloom.metrics.measured import Measured
from workloom.plan import Closed, Limits, Recipe, TraceRef, make
from workloom.records import ChunkRun, ServerSample
from workloom.store.manifest import Manifest

BLOCKS_OF_16 = Manifest(backend="simulated", config={"engine": {"block_tokens": 16, "gpus": 2}})


def ratio(run: Measured, name: str) -> float:
    seen = catalog()[name].observe(run)
    assert isinstance(seen, Totals), name
    return float(np.sum(seen.part) / np.sum(seen.whole))


def test_prefilled_again_is_what_an_infinite_cache_would_have_held() -> None:
    """100 tokens of which nothing could be held; then 200 of which 150 could, and the server had 96: 54 again. In
    blocks of 16 only 144 of the 150 could ever be found: 48 were lost, and they are eviction."""
    first = call(0, 0, 0, 1, 2, 5, prompt_tokens=100, cached_tokens=0, ideal_cached_tokens=0, ideal_prompt_tokens=100)
    second = call(
        0, 1, 3, 4, 5, 5, prompt_tokens=200, cached_tokens=96, ideal_cached_tokens=150, ideal_prompt_tokens=200
    )
    run = run_of([first, second], manifest=BLOCKS_OF_16)
    assert ratio(run, "reprefilled_share") == pytest.approx(54 / 204)
    assert ratio(run, "eviction_share") == pytest.approx(48 / 204)
    assert ratio(run, "hit_rate") == pytest.approx(96 / 300)
    assert ratio(run, "ideal_hit_rate") == pytest.approx(150 / 300)
    assert catalog()["eviction_share"].observe(run_of([first, second])) is None, "nobody says how long a block is"


def test_a_server_that_found_more_than_the_plan_knew_prefilled_nothing_again() -> None:
    lucky = call(0, 0, 0, 1, 2, 5, prompt_tokens=100, cached_tokens=64, ideal_cached_tokens=32, ideal_prompt_tokens=90)
    assert ratio(run_of([lucky]), "reprefilled_share") == 0


def test_a_server_that_reports_no_cached_tokens_has_no_hit_rate_but_an_ideal_one() -> None:
    silent = call(0, 0, 0, 1, 2, 5, prompt_tokens=100, ideal_cached_tokens=32, ideal_prompt_tokens=100)
    run = run_of([silent])
    assert catalog()["hit_rate"].observe(run) is None and catalog()["reprefilled_share"].observe(run) is None
    assert ratio(run, "ideal_hit_rate") == pytest.approx(0.32)


def test_prompt_reuse_is_a_mean_over_calls_not_over_tokens() -> None:
    short = call(0, 0, 0, 1, 2, planned_prompt_tokens=100, planned_fresh_tokens=100)
    long = call(0, 1, 3, 4, 5, planned_prompt_tokens=1000, planned_fresh_tokens=200)
    assert ratio(run_of([short, long]), "prompt_reuse_ratio") == pytest.approx((0 + 0.8) / 2)


def test_an_engine_that_never_evicts_prefills_almost_nothing_again_and_a_small_one_does() -> None:
    """Almost: the last token of an answer is in no cache, so now and then a block is not whole."""
    shares = []
    for kv_tokens in (None, 150_000):
        profile = replace(load("llama-3.1-8b-h200x1"), kv_tokens=kv_tokens)
        plan = make(Recipe(TraceRef((str(CANONICAL),)), Closed(6), Limits(sessions=6)))
        run = in_memory(plan, profile)
        run.manifest = Manifest(backend="simulated", config={"engine": {"block_tokens": profile.block_tokens}})
        shares.append(ratio(run, "eviction_share"))
    assert shares[0] < 0.002 and shares[1] > 0.05


def test_preemptions_are_the_servers_own_count_over_the_calls_that_ended() -> None:
    said = [ServerSample(0, "vllm:num_preemptions_total", 5.0), ServerSample(10 * S, "vllm:num_preemptions_total", 8.0)]
    calls = [call(0, 0, 0, 1, 2), call(1, 0, 0, 1, 2), call(1, 1, 3, 4, 9), call(2, 0, 3, None, None, status="error")]
    assert ratio(run_of(calls, samples=said, window=(0, 10)), "preemptions_ratio") == pytest.approx(3 / 3)
    assert catalog()["preemptions_ratio"].observe(run_of(calls)) is None


# --- KV-seconds


def test_kv_seconds_of_one_call_by_hand() -> None:
    """100 prompt tokens from 1 s (admitted) to 4 s; 3 tokens that come at 2, 3 and 4 s: held 2, 1 and 0 s."""
    one = call(0, 0, 0, 2, 4, 3, prompt_tokens=100, admitted_ns=S)
    seen = catalog()["kv_token_s"].observe(run_of([one], [session(0, 0, 4)]))
    assert isinstance(seen, Sample) and seen.values.tolist() == pytest.approx([300 + 3])
    unadmitted = catalog()["kv_token_s"].observe(run_of([replace(one, admitted_ns=None)]))
    assert isinstance(unadmitted, Sample) and unadmitted.values.tolist() == pytest.approx([400 + 3])


def test_a_session_holds_what_its_calls_hold_and_one_that_was_cut_off_is_counted() -> None:
    calls = [
        call(0, 0, 0, 2, 4, 1, prompt_tokens=10, chunks=[]),
        call(0, 1, 5, 6, 7, 1, prompt_tokens=20, chunks=[]),
        call(1, 0, 0, None, None, 1, status="censored", prompt_tokens=5),
    ]
    run = run_of(calls, [session(0, 0, 7, calls=2), session(1, 0, 7, "censored")])
    seen = catalog()["session_kv_token_s"].observe(run)
    assert isinstance(seen, Sample)
    assert (seen.values.tolist(), seen.session.tolist(), seen.censored) == (pytest.approx([10 * 4 + 20 * 2]), [0], 1)


def test_tasks_share_out_what_their_session_holds() -> None:
    calls = [
        call(0, 0, 0, 2, 4, 1, prompt_tokens=10, chunks=[]),
        call(0, 1, 5, 6, 7, 1, prompt_tokens=20, chunks=[], after=[edge(0, 1, "tool")]),
        call(0, 2, 20, 21, 23, 1, prompt_tokens=30, chunks=[], after=[edge(1, 13, "human")]),
    ]
    seen = catalog()["task_kv_token_s"].observe(run_of(calls, [session(0, 0, 23, calls=3)]))
    assert isinstance(seen, Sample) and seen.values.tolist() == pytest.approx([10 * 4 + 20 * 2, 30 * 3])


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 1000), st.integers(0, 20), st.integers(1, 30), st.integers(1, 3)),
        max_size=5,
    )
)
@settings(max_examples=30, deadline=None)
def test_the_growing_answer_is_exact_from_its_chunk_runs(runs: list[tuple[int, int, int, int, int]]) -> None:
    """Against a sum over single tokens."""
    at, chunks, held = 0, [], 0
    for pause, gap, slope, count, each in runs:
        chunk = ChunkRun(at + pause, float(gap), float(slope), count, each)
        chunks.append(chunk)
        at = chunk.last_ns
    end = at + 100
    for chunk in chunks:
        held += sum(chunk.tokens_each * (end - chunk.at(i)) for i in range(chunk.count))
    one = replace(call(0, 0, 0, 0, 0, 1, prompt_tokens=0), done_ns=end, chunks=chunks)
    seen = catalog()["kv_token_s"].observe(run_of([one], window=(0, 10)))
    assert isinstance(seen, Sample) and seen.values[0] * S == pytest.approx(held, abs=1e-3)
