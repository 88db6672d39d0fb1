"""`inspect`: what a trace looks like, against hand-made cases, an independent count and the published truth."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from strategies import workload
from wekafiles import REAL, TRUTH, document, marker, request, save

from workloom.model.describe import describe, extent, table
from workloom.model.reuse import reuse
from workloom.prefix import Key
from workloom.prompt import TRACE_TEXTS, planned
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.traces import native, open_trace


def test_a_small_file(tmp_path: Path) -> None:
    rows = [
        request(0, [1, 2, 3], out=3, extra=1, input_types=["text"]),
        request(3, [1, 2, 3, 4, 5], out=0),
        marker(9, [request(0, [9], out=4), request(2, [9, 8, 7], model="n")], seconds=5.0),
        request(20, [1, 2], think_time=16.0, input_types=["text"]),
    ]
    d = describe(open_trace([save(tmp_path / "t.json", document(rows))]))
    assert (d.sessions, d.calls, d.subagents, d.block_tokens) == (1, 5, 1, 4)
    assert d.prompt_tokens == 13 + 20 + 4 + 12 + 8
    assert d.output_tokens == 3 + 0 + 4 + 2 + 2
    assert d.cached_blocks == 0 + 3 + 0 + 1 + 2
    assert d.ideal_hit_rate == 6 * 4 / 57
    assert d.ideal_hit_rate_with_outputs == (0 + 16 + 0 + 8 + 8) / 57, "answers of 3 and 4 tokens are held too"
    assert d.ideal_hit_rate_with_outputs_blocks == 4 * (4 + 2 + 2) / 57
    assert (d.fresh_tokens_median, d.fresh_tokens_mean) == (4.0, (13 + 4 + 4 + 4 + 0) / 5)
    assert (d.depth_max, d.width_max) == (5, 1)
    assert (d.zero_output_calls, d.context_shrinks, d.history_edits) == (1, 1, 0)
    assert d.models == {"m": 4, "n": 1}
    assert {gap: w.count for gap, w in d.waits.items()} == {"human": 1, "spawn": 1, "tool": 2}
    assert d.waits["human"].total_s == 16.0 - (9 - 4) + 2, "the subagent was done 2 s behind the end of its last call"


def test_depth_and_width_follow_the_longest_paths() -> None:
    after = {"a": "", "b": "a", "c": "a", "d": "a", "e": "bcd", "f": "e", "g": "a"}
    calls = tuple(Call(name, 1, tuple(Edge(up) for up in ups)) for name, ups in after.items())
    assert extent(Session("s", calls)) == (4, 4)


def test_trace_scope_spans_are_shared_between_sessions_and_nothing_else_is() -> None:
    def session(name: str) -> Session:
        first = Call("a", 5, spans=(Span("tools", 50, "trace"), Span("mine", 7)), fresh=(Part("user", 10),))
        return Session(name, (first, Call("b", 5, (Edge("a"),), inherit=Inherit("a"), fresh=(Part("tool", 3),))))

    rows = list(reuse([session("x"), session("y")]))
    assert [row.held_by_prompts for row in rows] == [0, 67, 50, 67]
    assert [row.held_with_outputs for row in rows] == [0, 72, 50, 72]
    assert [row.fresh_tokens for row in rows] == [67, 3, 17, 3]


def tokens(key: Key, session: str) -> list[tuple[object, int]]:
    """Every token of a sequence as (text, place in it); texts of a session are its own."""
    ends = (0, *key.ends)
    return [
        (text if text >= TRACE_TEXTS else (session, text), place)
        for text, (start, end) in zip(key.ids, pairwise(ends), strict=True)
        for place in range(end - start)
    ]


@settings(max_examples=80, deadline=None)
@given(workload(max_tokens=20))
def test_reuse_is_what_comparing_every_token_gives(sessions: list[Session]) -> None:
    prompts: list[list[tuple[object, int]]] = []
    answered: list[list[tuple[object, int]]] = []

    def longest(mine: list[tuple[object, int]], others: list[list[tuple[object, int]]]) -> int:
        best = 0
        for other in others:
            while best < min(len(mine), len(other)) and mine[: best + 1] == other[: best + 1]:
                best += 1
        return best

    rows = iter(reuse(sessions))
    for session in sessions:
        for _, prompt in planned(session):
            row, mine = next(rows), tokens(prompt.key, session.id)
            assert row.prompt_tokens == len(mine)
            assert row.held_by_prompts == longest(mine, prompts)
            assert row.held_with_outputs == longest(mine, answered)
            prompts.append(mine)
            answered.append(tokens(prompt.key_with_answer(), session.id))


def test_a_trace_without_blocks_has_rates_by_token_and_no_block_counts(tmp_path: Path) -> None:
    calls = (
        Call("a", 5, fresh=(Part("user", 10),)),
        Call("b", 5, (Edge("a", 1.5, "tool"),), inherit=Inherit("a"), fresh=(Part("tool", 5),)),
    )
    native.write(tmp_path / "t.jsonl", Header(), [Session("s", calls)])
    d = describe(open_trace([tmp_path / "t.jsonl"]))
    assert (d.cached_blocks, d.ideal_hit_rate_with_outputs_blocks) == (None, None)
    assert (d.ideal_hit_rate, d.ideal_hit_rate_with_outputs) == (10 / 30, 15 / 30)
    assert d.prompt_reuse_ratio == (0 + 15 / 20) / 2


def test_a_trace_without_sessions_has_no_rates(tmp_path: Path) -> None:
    native.write(tmp_path / "t.jsonl", Header(block_tokens=64), [])
    d = describe(open_trace([tmp_path / "t.jsonl"]))
    assert (d.calls, d.ideal_hit_rate, d.prompt_reuse_ratio) == (0, None, None)
    assert dict(table(d))["ideal hit rate"].startswith("-")


def test_the_table_and_the_json_say_what_was_left_out(tmp_path: Path) -> None:
    save(tmp_path / "a.json", document([request(0, [1], out=0)], "a"))
    save(tmp_path / "b.json", document([request(0, [1], out=0)], "b"))
    save(tmp_path / "c.json", document([request(0, [1], **{"in": 2})], "c"))
    d = describe(open_trace(str(tmp_path), skip_bad=True))
    rows = table(d)
    assert ("duplicate", "b = a but for id") in rows
    assert any(name == "skipped" and "c.json, requests[0].in" in value for name, value in rows)
    keys = json.loads(msgspec.json.encode(d))
    assert keys["zero_output_calls"] == 2 and len(keys["skipped"]) == 1


# ------------------------------------------------------------------------------------------------ the real files

real = pytest.mark.skipif(
    not (REAL.is_dir() and TRUTH.is_file()), reason="../shared/data and ../shared/checks are absent"
)


@real
def test_the_real_files_meet_the_truth_call_by_call() -> None:
    command = [sys.executable, str(TRUTH), str(REAL / "*.json"), "--per-call"]
    *lines, totals = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    truth = [(line.split()[0], int(line.split()[2])) for line in lines]
    reading = open_trace(str(REAL))
    assert [(row.session, row.held_by_prompts // 64) for row in reuse(reading)] == truth

    d = describe(reading)
    said = {key: getattr(d, key) for key in json.loads(totals)}
    said["ideal_hit_rate"] = round(said["ideal_hit_rate"], 5)
    assert said == json.loads(totals)
    assert (d.calls, d.ideal_hit_rate and round(d.ideal_hit_rate, 5)) == (4652, 0.95727)
    assert d.ideal_hit_rate_with_outputs is not None and round(d.ideal_hit_rate_with_outputs, 4) == 0.9599
    assert d.ideal_hit_rate_with_outputs_blocks is not None and round(d.ideal_hit_rate_with_outputs_blocks, 4) == 0.9597
    assert d.fresh_tokens_median == 554.5
    assert len(d.duplicates) == 1
