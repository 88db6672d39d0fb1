"""TRIE's headline metrics: two chains and a DAG worked out by hand, and what must hold for any run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.answers.agentx.columns import columns
from workloom.answers.trie import Trie, eligible_tokens, encode, rows, trie
from workloom.cli.agentx import trie as command
from workloom.errors import UsageError
from workloom.records import CallRecord, ChunkRun, SessionRecord
from workloom.store import Manifest, Run, RunWriter

S = 1_000_000_000


def turn(
    instance: int, ordinal: int, sent_s: float, prompt: int, output: int, cached: int | None = 0, **fields: Any
) -> CallRecord:
    """Half a second to the first token, a tenth between tokens, the stream over with the last."""
    first, gap = round((sent_s + 0.5) * S), S // 10
    last = first + (output - 1) * gap
    given = {
        "instance": instance,
        "session": f"s{instance}",
        "call": f"c{ordinal}",
        "agent": "main",
        "model": "m",
        "status": "ok",
        "due_ns": round(sent_s * S),
        "ordinal": ordinal,
        "sent_ns": round(sent_s * S),
        "first_ns": first,
        "last_ns": last,
        "done_ns": last,
        "planned_output_tokens": output,
        "sent_prompt_tokens": prompt,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "output_tokens": output,
        "chunks": [ChunkRun(first, gap, 0.0, output, 1)],
    }
    return CallRecord(**{**given, **fields})


def session(instance: int, due_s: float, end_s: float, status: Any = "ok", before: int = 0) -> SessionRecord:
    due = round(due_s * S)
    return SessionRecord(instance, f"s{instance}", status, due, due, round(end_s * S), 2, calls_before=before)


def run_of(path: Path, calls: list[CallRecord], sessions: list[SessionRecord], end_s: float = 100) -> Run:
    writer = RunWriter.create(path, Manifest(backend="http"), b"{}")
    for record in calls:
        writer.call(record)
    for record in sessions:
        writer.session(record)
    return writer.close(window_end_ns=round(end_s * S))


def found(path: Path, calls: list[CallRecord], sessions: list[SessionRecord], **more: Any) -> Trie:
    return trie(run_of(path / "r", calls, sessions, **more))


CHAIN = [turn(0, 0, 10, 100, 11, 0), turn(0, 1, 20, 150, 21, 111), turn(0, 2, 40, 180, 1, 100)]
"""1.5 s, then 2.5 s, then 0.5 s, which end at 11.5, 22.5 and 40.5."""


def test_a_chain_from_its_start_to_its_answer(tmp_path: Path) -> None:
    result = found(tmp_path, CHAIN, [session(0, 10, 40.5)])
    traces = result.traces
    assert (traces.count, traces.began_in_the_middle, traces.unfinished) == (1, 0, 0)
    assert traces.e2e_s.p50 == 30.5
    assert traces.ttft_s.p50 == 0.5, "of the first request"
    assert traces.ttfat_s.p50 == 30.5, "to the first token of the final one"
    assert traces.tpot_s.mean == pytest.approx(0.1)
    assert traces.decode_tokens_per_s.mean == pytest.approx(10)
    assert traces.itl_s.mean == pytest.approx(0.1)
    assert (traces.output_tokens_per_turn.n, traces.output_tokens_per_turn.max) == (3, 21)
    assert traces.output_tokens_per_trace.mean == 33


def test_what_is_eligible_is_the_previous_prompt_and_its_answer(tmp_path: Path) -> None:
    result = found(tmp_path, CHAIN, [session(0, 10, 40.5)])
    assert result.cache_hit_rate == 211 / 430
    assert result.eligible_cache_hit_rate == 211 / (0 + 111 + 171)
    assert result.traces.cache_hit_rate.mean == 211 / 430
    assert result.traces.eligible_cache_hit_rate.mean == 211 / 282


def test_the_clients_accounting_splits_prompts_at_what_the_previous_request_left(tmp_path: Path) -> None:
    work = found(tmp_path, CHAIN, [session(0, 10, 40.5)]).workload
    assert (work.seconds, work.gpus) == (100, 1)
    assert work.prompt_tokens.overall == 4.30
    assert work.cached_prompt_tokens.overall == pytest.approx((111 + 171) / 100)
    assert work.uncached_prompt_tokens.overall == pytest.approx((100 + 39 + 9) / 100)
    assert work.completion_tokens.overall == 0.33
    assert work.traces.overall == 0.01


def test_after_a_compaction_no_more_than_the_prompt_is_taken_for_cached(tmp_path: Path) -> None:
    calls = [turn(0, 0, 10, 100, 11), turn(0, 1, 20, 30, 1)]
    work = found(tmp_path, calls, [session(0, 10, 20.5)]).workload
    assert (work.cached_prompt_tokens.overall, work.uncached_prompt_tokens.overall) == (0.30, 1.0)


def test_the_steady_state_leaves_out_the_first_fifth_and_the_last_slope_all_but_30_s(tmp_path: Path) -> None:
    """Requests end at 11.5 and 22.5 s, the second behind the first fifth of 100 s, and one at 71 s."""
    calls = [*CHAIN[:2], turn(1, 0, 70, 50, 6)]
    result = trie(run_of(tmp_path / "r", calls, [session(0, 10, 22.5), session(1, 70, 71)]), gpus=4)
    rate = result.workload.completion_tokens
    assert rate.overall == pytest.approx((11 + 21 + 6) / 100)
    assert rate.last_30s == pytest.approx(6 / 30)
    assert rate.steady_state == pytest.approx((21 + 6) / 80)
    assert rate.steady_state_per_gpu == pytest.approx((21 + 6) / 80 / 4)


def test_turns_of_a_trace_that_was_cut_off_are_in_the_throughput_and_in_no_latency(tmp_path: Path) -> None:
    cut = turn(1, 1, 99, 90, 50, status="censored", done_ns=100 * S)
    calls = [*CHAIN, turn(1, 0, 50, 80, 11), cut]
    result = found(tmp_path, calls, [session(0, 10, 40.5), session(1, 50, 100, "censored")])
    assert (result.traces.count, result.traces.unfinished, result.turns) == (1, 1, 4)
    assert result.workload.prompt_tokens.overall == pytest.approx(5.10)
    assert result.traces.e2e_s.n == 1


def test_what_is_no_whole_trace_is_left_out_and_counted(tmp_path: Path) -> None:
    """One began in the middle, one failed, one has no session row, and the warm-up's call is no turn at all."""
    calls = [
        *CHAIN,
        turn(1, 4, 20, 500, 11, phase="warmup"),
        turn(1, 5, 30, 500, 11),
        turn(2, 0, 30, 100, 11, status="error", error_kind="disconnect", output_tokens=None),
        turn(3, 0, 30, 100, 11),
    ]
    sessions = [session(0, 10, 40.5), session(1, 30, 31.5, before=5), session(2, 30, 31, "failed")]
    result = found(tmp_path, calls, sessions)
    assert (result.traces.count, result.traces.began_in_the_middle, result.traces.unfinished) == (1, 1, 2)
    assert (result.turns, result.failed) == (5, 1)


def test_of_a_dag_the_final_request_is_the_root_agents_last_and_agents_have_histories_of_their_own(
    tmp_path: Path,
) -> None:
    """The subagent reports at 22.5 s and lingers until 33.5; the root's answer comes at 30.5, first token at 29.5."""
    calls = [
        turn(0, 0, 10, 100, 11),
        turn(0, 1, 20, 40, 11, 0, agent="sub"),
        turn(0, 2, 29, 160, 11, 111),
        turn(0, 3, 32, 60, 11, 51, agent="sub"),
    ]
    run = run_of(tmp_path / "r", calls, [session(0, 10, 33.5)])
    assert eligible_tokens(columns(run)).tolist() == [0, 0, 111, 51]
    traces = trie(run).traces
    assert traces.ttfat_s.p50 == 19.5
    assert traces.e2e_s.p50 == 23.5, "all of the trace, the lingering subagent too"


def test_a_server_that_does_not_report_cached_tokens_has_no_hit_rate(tmp_path: Path) -> None:
    result = found(tmp_path, [turn(0, 0, 10, 100, 11, None)], [session(0, 10, 11.5)])
    assert (result.cache_hit_rate, result.eligible_cache_hit_rate) == (None, None)
    assert result.traces.cache_hit_rate.n == 0


def test_hit_rates_are_over_the_requests_whose_answers_tell(tmp_path: Path) -> None:
    """The second says nothing, and is in no sum; what the third could find is all of the second still."""
    calls = [CHAIN[0], turn(0, 1, 20, 150, 21, None), CHAIN[2]]
    result = found(tmp_path, calls, [session(0, 10, 40.5)])
    assert result.cache_hit_rate == result.traces.cache_hit_rate.mean == 100 / 280
    assert result.eligible_cache_hit_rate == result.traces.eligible_cache_hit_rate.mean == 100 / 171


def test_more_than_all_that_is_eligible_is_explained(tmp_path: Path) -> None:
    """The first turn finds 60 tokens that another session left."""
    calls = [turn(0, 0, 10, 100, 11, 60), turn(0, 1, 20, 150, 21, 111)]
    result = found(tmp_path, calls, [session(0, 10, 22.5)])
    assert result.eligible_cache_hit_rate == 171 / 111
    assert dict(rows(result)[0])["eligible cache hit rate"].startswith("154.05% (above 100 %: sessions share")


def test_a_run_without_calls_has_no_figures_and_a_short_one_no_last_slope(tmp_path: Path) -> None:
    empty = found(tmp_path, [], [], end_s=20)
    assert (empty.traces.count, empty.turns, empty.cache_hit_rate) == (0, 0, None)
    assert empty.workload.prompt_tokens.overall == 0
    assert empty.workload.prompt_tokens.last_30s is None


CALLS = st.lists(
    st.tuples(
        st.integers(0, 4),  # session
        st.sampled_from(["main", "sub"]),
        st.floats(0, 120),
        st.integers(1, 10_000),
        st.integers(1, 50),
        st.sampled_from(["ok", "ok", "ok", "error", "censored"]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=15)
@given(CALLS)
def test_turns_add_up_and_the_slopes_bound_each_other(drawn: list[tuple[int, str, float, int, int, str]]) -> None:
    calls = [
        turn(instance, ordinal, at, prompt, output, agent=agent, status=status)
        for ordinal, (instance, agent, at, prompt, output, status) in enumerate(drawn)
    ]
    calls.sort(key=lambda record: (record.instance, record.ordinal))
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(folder) / "r", calls, [])
        result, eligible = trie(run), eligible_tokens(columns(run))
    work = result.workload
    done = [c for c in calls if c.status == "ok" and (c.done_ns or 0) < 100 * S]
    assert result.turns == len(done)
    assert work.prompt_tokens.overall == pytest.approx(sum(c.prompt_tokens or 0 for c in done) / 100)
    assert work.completion_tokens.overall == pytest.approx(sum(c.output_tokens or 0 for c in done) / 100)
    cached, uncached = work.cached_prompt_tokens, work.uncached_prompt_tokens
    assert cached.overall is not None and uncached.overall is not None and work.prompt_tokens.overall is not None
    assert cached.overall + uncached.overall == pytest.approx(work.prompt_tokens.overall)
    assert cached.overall >= 0 and uncached.overall >= 0
    assert work.completion_tokens.steady_state is not None and work.completion_tokens.overall is not None
    assert work.completion_tokens.steady_state <= work.completion_tokens.overall / 0.8 + 1e-9

    before: dict[tuple[int, str], int] = {}
    for record, found_tokens in zip(calls, eligible.tolist(), strict=True):
        key = (record.instance, record.agent)
        assert found_tokens == before.get(key, 0)
        before[key] = (record.prompt_tokens or 0) + (record.output_tokens or 0)


def test_the_command_prints_three_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "r", CHAIN, [session(0, 10, 40.5)])
    command(str(run.path), str(tmp_path / "trie.json"), 2, False)
    printed = capsys.readouterr().out
    assert "TTFAT" in printed and "steady/GPU" in printed
    assert json.loads((tmp_path / "trie.json").read_text())["workload"]["gpus"] == 2
    command(str(run.path), None, None, True)
    assert json.loads(capsys.readouterr().out)["traces"]["ttfat_s"]["n"] == 1
    with pytest.raises(UsageError, match="--gpus"):
        command(str(run.path), None, 0, False)
    lines, traces, rates = rows(trie(run))
    assert dict(lines)["eligible cache hit rate"] == "74.82%"
    assert len(traces[0]) == 9 and len(rates[0]) == 5
    assert encode(trie(run)).endswith(b"}\n")
    assert np.isfinite(trie(run).traces.e2e_s.mean or 0)
