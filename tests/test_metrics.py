"""Metrics: stories worked out by hand, the faults seen in other tools, and brute force where vectors do the work."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from workloom.metrics import calls as per_call
from workloom.metrics import sessions as per_session
from workloom.metrics.chunks import delivered_tokens, gaps_s
from workloom.metrics.estimate import Estimate
from workloom.metrics.fairness import Spread
from workloom.metrics.frame import Window, calls, chunks
from workloom.metrics.measured import measured_records
from workloom.metrics.server import engine_hit_rate
from workloom.metrics.show import in_words, parts, show
from workloom.metrics.stats import LEVELS, Stats, stats
from workloom.metrics.summary import Summary, answers_of, encode, summarize, summarize_records, summary_json
from workloom.metrics.text import duration
from workloom.metrics.tool import FEW_CALLS, judge
from workloom.metrics.uncertainty.stationary import Stationarity
from workloom.records import CallRecord, ChunkRun, ServerSample, SessionRecord
from workloom.store import RunWriter, open_run
from workloom.store.manifest import Manifest

MS = 1_000_000
S = 1_000_000_000
INF = float("inf")


def call(due_s: float = 0, first_s: float | None = None, last_s: float | None = None, **fields: object) -> CallRecord:
    """A call sent 1 ms after it was due and done 1 ms after its last chunk."""

    def ns(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds * S)

    due_ns = round(due_s * S)
    done_ns = None if last_s is None else round(last_s * S) + MS
    names = {"instance": 0, "session": "s", "call": "c", "agent": "main", "model": "m", "status": "ok"}
    instants = {"due_ns": due_ns, "sent_ns": due_ns + MS, "first_ns": ns(first_s), "last_ns": ns(last_s)}
    return CallRecord(**{**names, **instants, "done_ns": done_ns, **fields})  # type: ignore[arg-type]


def session(
    instance: int, due_s: float, end_s: float, status: str = "ok", start_s: float | None = None
) -> SessionRecord:
    start_ns = round((due_s if start_s is None else start_s) * S)
    return SessionRecord(instance, f"s{instance}", status, round(due_s * S), start_ns, round(end_s * S), calls=1)  # type: ignore[arg-type]


def window(start_s: float, end_s: float) -> Window:
    return Window(round(start_s * S), round(end_s * S))


def shown(summary: Summary, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(summary, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# --- a story


def test_the_numbers_of_two_calls_and_a_session_worked_out_by_hand() -> None:
    first = call(
        0,
        0.101,
        0.201,
        sent_prompt_tokens=100,
        prompt_tokens=110,
        cached_tokens=0,
        ideal_cached_tokens=0,
        output_tokens=11,
        chunks=[ChunkRun(101 * MS, 10.0 * MS, 0.0, 11, 1)],
    )
    second = call(
        1,
        1.301,
        1.501,
        ordinal=1,
        sent_prompt_tokens=150,
        prompt_tokens=160,
        cached_tokens=81,
        ideal_cached_tokens=111,
        output_tokens=3,
        chunks=[ChunkRun(1301 * MS, 50.0 * MS, 0.0, 2, 1), ChunkRun(1501 * MS, 0.0, 0.0, 1, 1)],
    )
    told = summarize_records([first, second], [session(0, 0, 1.502)], window=window(0, 2))
    latency = told.latency
    assert latency["ttft_s"].mean == pytest.approx((0.1 + 0.3) / 2)
    assert latency["ttft_from_due_s"].mean == pytest.approx((0.101 + 0.301) / 2)
    assert latency["e2e_s"].p50 == pytest.approx((0.2 + 0.5) / 2)
    assert latency["e2e_from_due_s"].p50 == pytest.approx((0.201 + 0.501) / 2)
    assert latency["tpot_s"].mean == pytest.approx((0.01 + 0.1) / 2)
    assert latency["tbc_s"].n == 12
    assert latency["tbc_s"].mean == pytest.approx((10 * 0.01 + 0.05 + 0.15) / 12)
    assert latency["makespan_s"].mean == pytest.approx(1.502)
    assert latency["lag_s"].p99 == pytest.approx(0.001)
    assert (told.tokens.sent_prompt, told.tokens.prompt, told.tokens.cached, told.tokens.output) == (250, 270, 81, 14)
    assert told.hits.reported == 81 / 270 and told.hits.ideal == 111 / 250
    assert told.throughput.output_tokens_per_s == 7 and told.throughput.prompt_tokens_per_s == 135
    assert told.throughput.calls_per_s == 1 and told.throughput.sessions_per_s == 0.5
    assert told.concurrency.calls_mean == pytest.approx((0.201 + 0.501) / 2) and told.concurrency.calls_max == 1
    assert told.concurrency.sessions_mean == pytest.approx(0.751)


def test_percentiles_are_numpys_where_nothing_failed() -> None:
    values = np.random.default_rng(1).lognormal(size=1001)
    told = stats(values)
    assert [told.p50, told.p75, told.p90, told.p95, told.p99] == pytest.approx(
        np.percentile(values, [50, 75, 90, 95, 99]).tolist()
    )
    assert told.mean == pytest.approx(values.mean())


# --- faults of other tools, each of which must not be ours


def test_an_answer_without_content_has_no_ttft_instead_of_0() -> None:
    empty = call(0, None, None, done_ns=5 * S, output_tokens=0)
    told = summarize_records([call(0, 2, 3, output_tokens=9), empty])
    assert told.latency["ttft_s"].n == told.latency["e2e_s"].n == 1
    assert told.latency["ttft_s"].p50 == pytest.approx(1.999)
    assert (told.calls.ok, told.calls.empty) == (2, 1)


def test_an_answer_of_one_token_has_no_tpot_instead_of_0() -> None:
    ones = [call(0, 2, 2, output_tokens=1), call(0, 2, 2.5, output_tokens=1)]
    told = summarize_records([*ones, call(0, 2, 3, output_tokens=11)])
    assert (told.latency["tpot_s"].n, told.latency["tpot_s"].mean) == (1, pytest.approx(0.1))


def test_failed_calls_make_latency_infinite_instead_of_vanishing() -> None:
    good = [call(0, 0.1, 0.2, output_tokens=2) for _ in range(8)]
    bad = [
        call(0, None, None, status="error", error_kind="status", done_ns=2 * MS, planned_output_tokens=5),
        call(0, 0.05, 0.06, status="timeout", planned_output_tokens=5),
    ]
    told = summarize_records([*good, *bad])
    for name, failed in (("ttft_s", 1), ("ttft_from_due_s", 1), ("e2e_s", 2), ("e2e_from_due_s", 2), ("tpot_s", 2)):
        figures = told.latency[name]
        assert (figures.n, figures.infinite) == (10, failed)  # the time-out came after a first token, at a known TTFT
        assert figures.p50 is not None and figures.p75 is not None and figures.p75 < 1
        assert figures.mean == figures.p95 == figures.p99 == INF
    assert {kind: failures.calls for kind, failures in told.errors.items()} == {"status": 1, "timeout": 1}
    assert (told.calls.ok, told.calls.failed) == (8, 2)
    assert "2 failed calls are in these figures as ∞ (in TTFT 1:" in shown(told)


def test_why_calls_failed_is_said_with_their_share_of_the_calls_sent() -> None:
    refused = "no connection to [b]host[/b]\nhint: is the server up?"
    failing = [
        call(0, status="error", error_kind="connect", sent_ns=None, error=refused),
        call(1, status="error", error_kind="connect", sent_ns=None, error=refused),
        call(2, status="error", error_kind="connect", sent_ns=None, error="reset"),
        call(3, status="error", error_kind="status", error="\n500: " + "x\x1b" * 200),
        call(4, status="timeout"),
    ]
    cancelled = [call(2, status="cancelled", sent_ns=None, cause="c", error_kind="connect") for _ in range(15)]
    told = summarize_records([*failing, *cancelled])
    assert list(told.errors) == ["connect", "status", "timeout"]
    connect, status, timeout = told.errors.values()
    assert (connect.calls, connect.share_of_sent, connect.message) == (3, 0.6, "no connection to [b]host[/b]")
    assert status.message.startswith("500: x x") and len(status.message) == 160
    assert (timeout.share_of_sent, timeout.message) == (0.2, "")
    text = shown(told)
    assert "no connection to [b]host[/b]" in text and "60.0%" in text and "had not come in time" in text
    assert "No call succeeded." in text and "half of" not in text
    assert json.loads(encode(told))["errors"]["connect"]["calls"] == 3


def test_a_failed_session_has_an_infinite_makespan() -> None:
    told = summarize_records([], [session(0, 0, 1), session(1, 0, 1, "failed"), session(2, 0, 1, "censored")])
    assert (told.latency["makespan_s"].n, told.latency["makespan_s"].infinite) == (2, 1)
    counts = told.sessions
    assert (counts.due, counts.ok, counts.failed, counts.censored, counts.ended) == (3, 1, 1, 1, 1)
    assert told.throughput.sessions == 1


def test_cancelled_and_censored_calls_are_counted_and_have_no_end() -> None:
    cancelled = call(5, status="cancelled", sent_ns=None, cause="c")
    censored = call(1, 1.5, 1.6, status="censored", done_ns=None)
    told = summarize_records([call(0, 0.1, 0.2), cancelled, censored], window=window(0, 10))
    ttft, e2e = told.latency["ttft_s"], told.latency["e2e_s"]
    assert (ttft.n, ttft.censored, ttft.mean) == (2, 0, pytest.approx((0.099 + 0.499) / 2))  # its first token came
    assert (e2e.n, e2e.censored, e2e.mean) == (1, 1, pytest.approx(0.199))
    counts = told.calls
    assert (counts.due, counts.ok, counts.cancelled, counts.censored, counts.ended) == (3, 1, 1, 1, 1)


def test_calls_belong_to_the_window_by_when_they_were_due() -> None:
    early = call(0.9, 1.5, 2.0)  # due in the warm-up
    inside = call(1.0, 1.5, 2.0)
    late = call(2.9, 3.5, 4.0)  # ends after the window
    after = call(3.1, 3.5, 4.0)
    told = summarize_records([early, inside, late, after], window=window(1, 3))
    assert (told.calls.recorded, told.calls.due, told.calls.ended) == (4, 2, 2)
    assert told.latency["e2e_s"].n == 2
    assert told.latency["e2e_s"].mean == pytest.approx((0.999 + 1.099) / 2)


def test_the_drain_after_the_window_is_not_throughput() -> None:
    runs = [ChunkRun(0, 0.1 * S, 0.0, 101, 1)]  # a token every 0.1 s from 0 s to 10 s
    told = summarize_records([call(0, 0, 10, output_tokens=101, chunks=runs)], window=window(0, 5))
    assert told.throughput.output_tokens == 50, "the token of the very end is not in it"
    assert (told.throughput.calls, told.calls.ended, told.calls.due) == (0, 0, 1)


def test_calls_in_flight_at_the_end_do_not_vanish() -> None:
    flying = call(0, None, None, status="censored", done_ns=None, chunks=[])
    told = summarize_records([flying], window=window(0, 4))
    assert told.calls.censored == 1
    assert told.concurrency.calls_mean == pytest.approx(3.999 / 4)
    assert "1 censored" in shown(told)
    assert (told.latency["ttft_s"].n, told.latency["ttft_s"].censored, told.calls.waiting) == (0, 1, 1)


def cut_off(calls: int, censored: int, sessions: int, going_on: int) -> Summary:
    """Calls of 1 s, some of which had no more than a first token at the end, as had some sessions no end."""
    records = [call(i, i + 0.5, i + 1) for i in range(calls - censored)]
    records += [call(i, i + 0.5, i + 0.6, status="censored", done_ns=None) for i in range(censored)]
    ended = [session(i, i, i + 1, "censored" if i < going_on else "ok") for i in range(sessions)]
    return summarize_records(records, ended, manifest=Manifest(backend="http", status="finished"))


def test_what_the_end_of_the_run_cut_off_stands_beside_the_figures() -> None:
    told = cut_off(1231, 112, 287, 283)
    figures = json.loads(encode(told))["latency"]
    assert [figures[name]["censored"] for name in ("ttft_s", "e2e_s", "tpot_s", "makespan_s")] == [0, 112, 112, 283]
    text = shown(told, 80)
    assert "1,119 (+112)" in text and "4 (+283)" in text and max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert "112 of 1,231 calls due and 283 of 287 sessions due were still going when the run ended:" in words
    assert "E2E and makespan leave them out and so are too low" in words
    assert "of the 4 of 287 sessions that ended, the median took 1.00 s" in words
    assert "112 of 1,231 calls were cut off by the end of the run" in words
    assert "(+" not in shown(cut_off(100, 0, 10, 0)) and "cut off" not in shown(cut_off(100, 0, 10, 0))


def test_a_figure_that_there_is_none_of_is_not_too_low() -> None:
    words = " ".join(shown(cut_off(4, 4, 1, 1), 200).split())
    assert "4 of 4 calls due and 1 of 1 session due were still going when the run ended. In column n" in words
    assert "too low" not in words, "no call and no session has ended, so E2E and makespan have no figure"
    assert "makespan leaves them out and so is too low" in shown(cut_off(4, 0, 2, 1), 200)


@pytest.mark.parametrize(
    ("n", "what", "said"),
    [
        (1, "sessions left out (first call too long)", "1 session left out"),
        (1, "recorded outputs of 0 tokens, asked for as 1", "1 recorded output of 0 tokens"),
        (2, "calls cut", "2 calls cut"),
    ],
)
def test_one_is_not_many(n: int, what: str, said: str) -> None:
    manifest = Manifest(backend="http", status="finished", left_out={what: n})
    refused = call(0, status="error", error_kind="connect", error="refused", retries=1)
    text = " ".join(shown(summarize_records([refused], manifest=manifest), 200).split())
    assert said in text and "1 call was sent again, 1 time in all" in text and "1 call failed" not in text
    assert "1 failed call is in these figures" in text


def test_how_well_figures_are_known_fits_into_80_columns_and_says_what_has_not_settled() -> None:
    known = [
        Estimate("output_tokens_per_s_per_gpu", 12345.6, 12000.0, 12700.0, values=1_234_567, sessions=20_000),
        Estimate("ttft_p95", INF, 1.5, INF, values=900, sessions=40),
        Estimate("tbc_p99", None, values=5, sessions=2, why="not enough data: 2 sessions, 40 needed for a p99"),
    ]
    found = [Stationarity("ttft_s", "ramp", 120.0, 0.001, -0.2), Stationarity("in_flight", "flat")]
    told = msgspec.structs.replace(cut_off(10, 0, 2, 0), estimates=known, stationarity=found)
    told = msgspec.structs.replace(told, fairness=[Spread("session_ttft_s", 50, 0.1, 0.25, 2.5, 2.1, 3.0)])
    text = shown(told, 80)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert "12,346 tokens/s" in words and "12,000 to 12,700 tokens/s" in words
    assert "1.50 s to ∞" in words and "not enough data" in words
    assert "calls in flight settled; TTFT settled after 2.00 min (it began -20%)" in words
    assert "workloom metrics RUN --skip 120" in words
    assert "Spread over 50 sessions: p95 / p50 of mean TTFT 2.50 (2.10 to 3.00)." in words


def test_reasoning_is_a_part_of_the_output() -> None:
    told = summarize_records([call(0, 0.5, 1, output_tokens=9)])
    assert "reasoning" not in shown(told, 120)
    tokens = msgspec.structs.replace(told.tokens, reasoning=4)
    text = " ".join(shown(msgspec.structs.replace(told, tokens=tokens), 120).split())
    assert "output tokens 9 (planned 0; 4 of them reasoning)" in text


def test_a_few_cut_off_are_a_note_and_many_an_alarm() -> None:
    def style(summary: Summary) -> str:
        notes = [part for part in parts(summary) if isinstance(part, Text) and "still going" in part.plain]
        return str(notes[0].style)

    assert style(cut_off(1000, 10, 5000, 0)) == ""
    assert style(cut_off(1000, 11, 5000, 0)) == style(cut_off(1000, 0, 100, 2)) == "bold red"


@pytest.mark.parametrize(("n", "censored"), [(9_999, 99), (99_999, 9_999), (120_000, 12_000), (9_999_999, 1_234_567)])
def test_the_latency_table_fits_into_80_columns(n: int, censored: int) -> None:
    told = cut_off(10, 1, 2, 1)
    wide = dict.fromkeys(("mean", *LEVELS), 99.9 * 60)
    figures = Stats(n=n, censored=censored, **wide)  # type: ignore[arg-type]
    told = msgspec.structs.replace(told, latency=dict.fromkeys(told.latency, figures))
    lines = shown(told, 120).split("TTFT: sent")[0].splitlines()
    assert all("…" not in line for line in lines)
    assert max(len(line.rstrip()) for line in lines if "99.9 min" in line) <= 80


def test_a_session_begins_when_its_first_call_was_due_not_when_one_ended() -> None:
    waited = session(0, 1, 9, start_s=3)
    assert per_session.makespan_s(per_session.sessions([waited])).tolist() == [8.0]


def test_the_wait_of_a_call_before_it_was_sent_shows_from_due_only() -> None:
    late = call(0, 3, 4, sent_ns=2 * S)
    told = summarize_records([late])
    assert (told.latency["ttft_s"].p50, told.latency["ttft_from_due_s"].p50) == (1.0, 3.0)
    assert (told.latency["lag_s"].p50, told.latency["e2e_s"].p50, told.latency["e2e_from_due_s"].p50) == (2, 2, 4)


def test_tbc_is_pooled_over_gaps_and_not_averaged_per_call() -> None:
    smooth = call(0, 0, 9.9, chunks=[ChunkRun(0, 0.1 * S, 0.0, 100, 1)])
    jerky = call(0, 0, 4, chunks=[ChunkRun(0, 0.0, 0.0, 1, 1), ChunkRun(4 * S, 0.0, 0.0, 1, 1)])
    told = summarize_records([smooth, jerky])
    assert (told.latency["tbc_s"].n, told.latency["tbc_s"].p50) == (100, pytest.approx(0.1))
    assert told.latency["tbc_s"].mean == pytest.approx((9.9 + 4) / 100)


def test_tokens_of_one_read_are_gaps_of_0() -> None:
    read = [ChunkRun(0, 0.0, 0.0, 3, 1), ChunkRun(S, 0.0, 0.0, 3, 1)]
    told = summarize_records([call(0, 0, 1, chunks=read)])
    assert (told.latency["tbc_s"].n, told.latency["tbc_s"].p50) == (5, 0)
    assert told.latency["tbc_s"].mean == pytest.approx(0.2)


def test_chunks_of_several_tokens_have_gaps_between_chunks() -> None:
    told = summarize_records([call(0, 0, 2, chunks=[ChunkRun(0, float(S), 0.0, 3, 5)])])
    assert (told.latency["tbc_s"].n, told.latency["tbc_s"].p99) == (2, 1.0)
    assert (told.tokens.output, told.latency["tpot_s"].p50) == (15, pytest.approx(2 / 14))


def test_the_servers_own_count_of_tokens_outweighs_the_events_it_sent() -> None:
    merged = call(0, 0, 3, output_tokens=40, chunks=[ChunkRun(0, float(S), 0.0, 4, 1)])
    told = summarize_records([merged], window=window(0, 1.5))
    assert told.throughput.output_tokens == 20
    assert told.tokens.output == 40


def test_hit_rates_are_over_calls_that_report_and_say_how_many_do_not() -> None:
    quiet = call(0, 1, 2, prompt_tokens=1000, sent_prompt_tokens=1000, ideal_cached_tokens=500)
    says = call(0, 1, 2, prompt_tokens=100, cached_tokens=50, sent_prompt_tokens=100, ideal_cached_tokens=60, model="b")
    told = summarize_records([quiet, says])
    assert (told.hits.reported, told.hits.reported_calls, told.hits.unreported_calls) == (0.5, 1, 1)
    assert told.hits.ideal == 0.6, "of the same calls"
    assert summarize_records([quiet]).hits.ideal == 0.5, "none reports"
    assert "of the prompt tokens of calls that report it" in " ".join(shown(told).split())


def test_the_engines_own_hit_rate_is_the_growth_of_its_counters_in_the_window() -> None:
    def sample(at_s: float, name: str, value: float) -> ServerSample:
        return ServerSample(round(at_s * S), f"vllm:prefix_cache_{name}_total", value)

    samples = [sample(0, "queries", 100), sample(0, "hits", 90), sample(1, "queries", 200), sample(1, "hits", 90)]
    samples += [sample(2, "queries", 400), sample(2, "hits", 240), sample(9, "queries", 999), sample(9, "hits", 240)]
    assert engine_hit_rate(samples, window(1, 3)) == 0.75
    assert engine_hit_rate([], window(1, 3)) is None


# --- brute force


def runs() -> st.SearchStrategy[list[ChunkRun]]:
    piece = st.tuples(
        st.integers(0, 50),
        st.one_of(st.just(0.0), st.floats(0, 40, allow_subnormal=False)),
        st.one_of(st.just(0.0), st.floats(0, 3, allow_subnormal=False)),
        st.integers(1, 30),
        st.integers(1, 4),
    )

    def lay(pieces: list[tuple[int, float, float, int, int]]) -> list[ChunkRun]:
        out: list[ChunkRun] = []
        at = 0
        for wait, gap, slope, count, each in pieces:
            out.append(ChunkRun(at + wait, gap, slope, count, each))
            at = out[-1].last_ns
        return out

    return st.lists(piece, max_size=6).map(lay)


@given(st.lists(runs(), max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
@settings(max_examples=150, deadline=None)
def test_pooled_gaps_of_runs_are_those_of_every_chunk(streams: list[list[ChunkRun]], keep: list[bool]) -> None:
    records = [call(chunks=stream) for stream in streams]
    found = gaps_s(chunks(records), np.array(keep[: len(records)], dtype=np.bool_))
    fast = np.sort(np.concatenate([np.empty(0), *found])) * S
    slow: list[float] = []
    for stream, kept in zip(streams, keep, strict=False):
        instants = [run.at(i) for run in stream for i in range(run.count)]
        slow += [b - a for a, b in pairwise(instants)] if kept else []
    assert len(fast) == len(slow)
    # ChunkRun.at rounds each instant to a nanosecond, so a gap may differ by one.
    assert np.allclose(fast, np.sort(slow), rtol=0, atol=1.01)
    assert sum(fast) == pytest.approx(sum(slow), abs=2 * len(streams) + 1e-3 + sum(len(s) for s in streams))


@given(st.lists(runs(), max_size=5), st.integers(0, 2000), st.integers(0, 2000))
@settings(max_examples=150, deadline=None)
def test_tokens_delivered_in_a_window_are_those_of_every_chunk(streams: list[list[ChunkRun]], a: int, b: int) -> None:
    start, end = sorted((a, b))
    fast = delivered_tokens(chunks([call(chunks=stream) for stream in streams]), Window(start, end))
    slow = [
        sum(run.tokens_each for run in stream for i in range(run.count) if start <= run.at(i) < end)
        for stream in streams
    ]
    assert fast.tolist() == slow


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=12)


@given(intervals, st.integers(0, 50), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_concurrency_is_the_sum_of_the_times_in_the_window(spans: list[list[int]], start: int, length: int) -> None:
    records = [call(due_ns=a, sent_ns=a, done_ns=b) for a, b in spans]
    told = per_session.concurrency(calls(records), per_session.sessions([]), Window(start, start + length), points=4)
    inside = [max(0, min(b, start + length) - max(a, start)) for a, b in spans]
    assert told.calls_mean == pytest.approx(float(Fraction(sum(inside), length)))
    assert np.mean(told.calls) == pytest.approx(told.calls_mean)
    assert told.calls_max == max(sum(a <= t < b for a, b in spans) for t in range(start, start + length + 1))


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100)).map(sorted), min_size=1))
@settings(max_examples=50, deadline=None)
def test_makespan_is_from_due_to_end(spans: list[list[int]]) -> None:
    records = [SessionRecord(i, "s", "ok", *span, calls=1) for i, span in enumerate(spans)]
    told = per_session.makespan_s(per_session.sessions(records))
    assert told.tolist() == [(end - due) / S for due, _, end in spans]


# --- runs on disk, nothing at all, and what people see


def story() -> tuple[list[CallRecord], list[SessionRecord]]:
    records = [
        call(i, i + 0.5, i + 0.9, instance=i, output_tokens=5, chunks=[ChunkRun(i * S + S // 2, 0.1 * S, 0.0, 5, 1)])
        for i in range(10)
    ]
    records[3] = call(3, status="error", error_kind="connect", instance=3, sent_ns=None)
    return records, [session(i, i, i + 0.901, "failed" if i == 3 else "ok") for i in range(10)]


def test_a_run_on_disk_has_the_numbers_of_its_records(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("runs") / "run"
    records, sessions = story()
    manifest = Manifest(backend="http", window_start_ns=S, window_end_ns=8 * S)
    with RunWriter.create(path, manifest, b"{}") as writer:
        for record in records:
            writer.call(record)
        for ended in sessions:
            writer.session(ended)
        writer.sync()
        going = summarize(open_run(path))
        run = writer.close(summarize=summary_json)
    told = summarize(open_run(path))
    expected = answers_of(measured_records(records, sessions, manifest=run.manifest))
    assert msgspec.structs.asdict(told) == msgspec.structs.asdict(expected)
    assert told.estimates and told.workflow is not None, "these are in it too"
    assert going.latency == told.latency and going.calls == told.calls
    assert run.summary_json == encode(told)
    assert (told.calls.due, told.calls.failed, told.window) == (7, 1, window(1, 8)), "what is due at 8 is not in it"


def test_sessions_that_a_kill_left_without_an_end_are_counted_as_unfinished() -> None:
    records, sessions = story()
    told = summarize_records(records, sessions[:7])
    assert (told.sessions.due, told.sessions.unfinished, told.sessions.ok) == (10, 3, 6)
    assert "3 unfinished" in shown(told)


def test_nothing_at_all_is_said_and_has_no_numbers() -> None:
    for told in (
        summarize_records([]),
        summarize_records([], manifest=Manifest(backend="http"), window=window(0, 5)),
        summarize_records([call(9, 9.5, 9.6)], window=window(0, 5)),
        summarize_records([call(5, status="cancelled", sent_ns=None)]),
    ):
        told_json = encode(told)
        assert b"NaN" not in told_json and b"nan" not in told_json
        assert (
            json.loads(told_json)["latency"]["ttft_s"] | {"n": 0, "p99": None}
            == json.loads(told_json)["latency"]["ttft_s"]
        )
        assert all(figures.n == 0 and figures.mean is None for figures in told.latency.values() if figures.n == 0)
        assert shown(told)
    assert "No call was recorded" in shown(summarize_records([]))


def test_infinity_is_null_in_json_with_its_count_beside_it_and_reads_back() -> None:
    told = summarize_records([call(0, 1, 2), call(0, status="error", error_kind="status")])
    figures = json.loads(encode(told))["latency"]["ttft_s"]
    assert (figures["n"], figures["infinite"], figures["mean"], figures["p99"]) == (2, 1, None, None)
    assert shown(msgspec.json.decode(encode(told), type=Summary)) == shown(told)


def test_the_verdict_on_the_tool_is_about_live_runs_that_sent_something() -> None:
    def verdict(lag_s: float | None, cpu_s: float = 1.0, backend: str = "http", **fields: float) -> str | None:
        manifest = Manifest(backend=backend, status="finished", wall_s=10.0, cpu_s=cpu_s, **fields)  # type: ignore[arg-type]
        return judge(manifest, stats(np.array([] if lag_s is None else [lag_s]))).verdict

    assert verdict(0.0005) == "valid"
    assert verdict(0.006) == verdict(0.0005, cpu_s=9.0) == verdict(0.0005, stalled_s=1.0) == "degraded"
    assert verdict(0.2) == verdict(0.0005, cpu_s=9.9) == "invalid"
    assert verdict(None) is None and verdict(0.0, backend="simulated") is None


def test_a_verdict_is_not_given_on_what_was_not_seen() -> None:
    def told(lag_s: float = 0.0005, **fields: object) -> tuple[str | None, str]:
        tool = judge(Manifest(backend="http", **fields), stats(np.full(200, lag_s)))  # type: ignore[arg-type]
        return tool.verdict, "; ".join(tool.reasons)

    unknown = "CPU use unknown (the run did not come to its end)"
    assert told() == (None, "not enough data: the run is still going")
    assert told(status="killed") == (None, f"not enough data: {unknown}")
    assert told(status="finished", wall_s=0.9, cpu_s=0.9) == (None, "not enough data: the run took less than 1 s")
    assert told(status="finished", wall_s=1.0, cpu_s=0.5) == ("valid", "")
    # What was seen is said all the same.
    assert told(0.2, status="killed") == ("invalid", f"dispatch lag p99 200.0 ms > 50 ms; {unknown}")


def test_the_burst_at_the_start_of_a_small_run_is_not_held_against_it() -> None:
    manifest = Manifest(backend="http", status="finished", wall_s=10.0, cpu_s=1.0)
    burst = np.full(FEW_CALLS, 0.0002)
    burst[-10:] = 0.006
    assert judge(manifest, stats(burst[1:])).verdict == "valid"
    assert judge(manifest, stats(burst)).verdict == "degraded"
    late = judge(manifest, stats(burst[-10:]))
    assert (late.verdict, late.reasons) == ("degraded", ["dispatch lag p50 6.0 ms > 5 ms"])


def test_words_do_not_generalise_from_nothing() -> None:
    ok = call(0, 0.5, 1, output_tokens=2)
    refused = call(0, status="error", error_kind="connect", error="refused")
    assert in_words(summarize_records([refused])) == "No call succeeded."
    mostly = in_words(summarize_records([ok, refused, refused, refused], [session(0, 0, 1, "failed")]))
    assert mostly == "In words: 3 calls failed."
    few = in_words(summarize_records([ok]))
    assert few == "In words: half of the calls began to answer within 500 ms of being due."
    assert in_words(summarize_records([call(0, done_ns=1)])) == "In words: 1 of 1 answer was empty."
    flying = call(0, None, None, status="censored", done_ns=None)
    going = in_words(summarize_records([flying], manifest=Manifest(backend="http")))
    assert going.startswith("No call succeeded. 1 of 1 call is still going")
    for told in (mostly, few, going):
        assert "∞" not in told and "nan" not in told


def test_words_of_others_are_printed_as_they_are() -> None:
    odd = "[/x] [bold]a[/bold] [redacted] :smile:"
    manifest = Manifest(backend="http", workload=odd, load=odd, error=odd, left_out={odd: 1}, plan_hash="[/p]")
    failed = call(0, status="error", error_kind="[/kind]", error=odd)
    console = Console(file=io.StringIO(), width=200)
    show(summarize_records([failed], manifest=manifest), console, title="[/run]")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(odd) == 5 and all(word in text for word in ("[/run]", "[/kind]", "[/p]"))


def test_what_a_kill_tore_off_is_said() -> None:
    manifest = Manifest(backend="http", status="killed", torn_bytes=1234)
    assert "1,234 bytes of half-written or unusable records were dropped" in shown(
        summarize_records([call(0, 1, 2)], manifest=manifest)
    )
    assert "dropped" not in shown(summarize_records([call(0, 1, 2)], manifest=Manifest(backend="http")))


def test_what_ran_is_said_first_and_in_words() -> None:
    records, sessions = story()
    left_out = {"calls beyond the model's context": 12}
    manifest = Manifest(backend="simulated", workload="10 chats", load="one a second", left_out=left_out)
    text = shown(summarize_records(records, sessions, manifest=manifest))
    lines = text.splitlines()
    assert "running, simulated" in lines[0] and "10 chats" in lines[1] and "one a second" in lines[2]
    assert "12 calls beyond the model's context" in lines[4]
    order = ["measured", "TTFT", "TBC", "TPOT", "E2E", "makespan", "prompt tokens", "throughput", "Errors", "connect"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "∞" in text and "nan" not in text and "None" not in text
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1.5e-6, "1.50 µs"), (0.0123, "12.3 ms"), (0.9999, "1.00 s"), (61.04, "61.0 s"), (600, "10.0 min")],
)
def test_durations_are_said_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert (duration(7200), duration(INF)) == ("2.00 h", "∞")


def test_every_latency_is_documented() -> None:
    for metric in ("ttft_s", "ttft_from_due_s", "e2e_s", "e2e_from_due_s", "tpot_s", "lag_s"):
        assert getattr(per_call, metric).__doc__
