"""Whatever became of the calls of a run, every metric has an answer, and the summary can be written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_runs import S, edge, run_of, session

from workloom.metrics.catalog import Sample, Totals, catalog
from workloom.metrics.estimate import estimates
from workloom.metrics.figure import Figure
from workloom.metrics.given import Given, Limit
from workloom.metrics.measured import Measured
from workloom.metrics.show import parts
from workloom.metrics.summary import answers_of, encode
from workloom.records import CallRecord, ChunkRun

GIVEN = Given(2, 3.0, 3.0, 0.3, 15.0, 500.0, (Limit("ttft_s", 1.0), Limit("tbc_s", 0.1), Limit("task_makespan_s", 9.0)))


@st.composite
def calls_of(draw: st.DrawFn, instance: int) -> list[CallRecord]:
    """A chain, with or without human pauses; each call with as many instants as its status leaves it."""
    out: list[CallRecord] = []
    at = draw(st.integers(0, 20)) * S
    for ordinal in range(draw(st.integers(1, 4))):
        status = draw(st.sampled_from(["ok"] * 5 + ["error", "timeout", "cancelled", "censored"]))
        sent = None if status == "cancelled" else at + draw(st.integers(0, 1)) * S
        answers = status == "ok" or (status in ("timeout", "censored") and draw(st.booleans()))
        count = draw(st.integers(1, 4))
        first = None if sent is None or not answers else sent + draw(st.integers(0, 2)) * S
        chunks = [] if first is None else [ChunkRun(first, float(draw(st.integers(0, 1)) * S), 0.0, count, 1)]
        last = chunks[0].last_ns if chunks else None
        ended = status in ("ok", "error", "timeout")
        done = None if not ended or sent is None else (last if last is not None else sent) + draw(st.integers(0, 1)) * S
        after = [edge(ordinal - 1, 0, draw(st.sampled_from(["tool", "human"])))] if ordinal else []
        told = draw(st.booleans())
        out.append(
            CallRecord(
                *(instance, f"s{instance}", f"c{ordinal}", draw(st.sampled_from(["main", "explore:1"])), "m", status),
                due_ns=at,
                ordinal=ordinal,
                after=after,
                sent_ns=sent,
                admitted_ns=sent if draw(st.booleans()) else None,
                first_ns=first,
                last_ns=last,
                done_ns=done,
                planned_prompt_tokens=100,
                planned_fresh_tokens=draw(st.integers(0, 100)),
                planned_output_tokens=count,
                sent_prompt_tokens=0 if sent is None else 100,
                prompt_tokens=100 if told and sent is not None else None,
                cached_tokens=draw(st.integers(0, 100)) if told and sent is not None else None,
                ideal_cached_tokens=draw(st.integers(0, 100)) if sent is not None else None,
                output_tokens=count if told and answers else None,
                chunks=chunks,
            )
        )
        at = (done if done is not None else at) + draw(st.integers(0, 5)) * S
        if status != "ok":
            break
    return out


@st.composite
def runs(draw: st.DrawFn) -> Measured:
    calls, ended = [], []
    for instance in range(draw(st.integers(0, 5))):
        mine = draw(calls_of(instance))
        calls += mine
        status = {"ok": "ok", "censored": "censored"}.get(mine[-1].status, "failed")
        end = max([mine[0].due_ns, *(c.done_ns for c in mine if c.done_ns is not None)])
        if draw(st.integers(0, 9)):  # now and then a run is killed before a session has its record
            ended.append(session(instance, mine[0].due_ns / S, end / S, status, len(mine)))
    begin = draw(st.integers(0, 5))
    return run_of(calls, ended, window=draw(st.sampled_from([None, (begin, begin + 20)])))


@given(runs())
@settings(max_examples=12, deadline=None)
def test_every_metric_answers_and_its_totals_are_numbers(run: Measured) -> None:
    run = replace(run, given=GIVEN)
    for metric in catalog().values():
        seen = metric.observe(run)
        if isinstance(seen, Totals):
            assert np.isfinite(seen.part).all() and np.isfinite(seen.whole).all(), metric.name
            assert len(seen.part) == len(seen.session), metric.name
            assert (np.asarray(seen.whole) >= 0).all(), metric.name
            if metric.unit == "share":
                assert np.sum(seen.part) <= np.sum(seen.whole) * (1 + 1e-9), metric.name
        elif isinstance(seen, Sample):
            assert len(seen.values) == len(seen.session), metric.name
            assert not (seen.values < 0).any() and seen.censored >= 0, metric.name
        statistics = ("",) if metric.of == "run" else ("mean", "p95", "max")
        for told in estimates(run, [Figure(metric.name, statistic) for statistic in statistics]):
            assert told.enough or told.why, (metric.name, told)


@given(runs())
@settings(max_examples=15, deadline=None)
def test_its_summary_can_be_written_and_shown(run: Measured) -> None:
    summary = answers_of(run)
    document = json.loads(encode(summary))
    assert len(document["estimates"]) == len(summary.estimates)
    assert len(parts(summary)) >= 1
    assert encode(answers_of(run)) == encode(summary), "equal to the byte"
