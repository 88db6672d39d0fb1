"""Langfuse observations: both spellings of names, pages and documents, usage whose kinds add up or do not.

No real export was at hand: rows are made from the documentation of the API (v2) and of the blob storage export.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from samples.langfuse import observation
from test_otel import check, edges, parts

from workloom.errors import TraceError
from workloom.session import Call, Inherit, prompt_tokens
from workloom.traces import Reading, open_trace, sniff
from workloom.traces.langfuse import _counts
from workloom.traces.reading import Report

Row = dict[str, object]
Load = Callable[..., dict[str, Call]]


def generation(id: str, parent: str | None, start: float, end: float | None, trace: str = "T", **more: object) -> Row:
    usage = {"usageDetails": {"input": 50, "output": 5, "total": 55}}
    return observation(id, "GENERATION", trace, parent, start, end, **{"model": "m", **usage, **more})


def opened(path: Path, *rows: Row, **options: bool) -> Reading:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_trace([path], **options)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(*rows: Row) -> dict[str, Call]:
        (session,) = opened(tmp_path / "t.jsonl", *rows)
        check(session)
        return {call.id: call for call in session.calls}

    return load


def test_agents_tools_and_generations(load: Load) -> None:
    calls = load(
        observation("a", "AGENT", "T", None, 0, 20, name="lead"),
        generation("1", "a", 1, 3, completionStartTime="2025-10-09T10:00:01.250Z"),
        observation("t", "TOOL", "T", "a", 3, 5, name="bash", output="x" * 80),
        observation("u", "TOOL", "T", "a", 3, 9, name="task"),
        observation("b", "AGENT", "T", "u", 3, 9, name="scout"),
        generation("2", "b", 4, 8),
        generation("3", "a", 10, 12, usageDetails={"input": 100, "output": 5}),
        observation("e", "EVENT", "T", "a", 11, None),
    )
    assert [call.agent for call in calls.values()] == ["main", "scout:1", "main"]
    assert edges(calls["c1"]) == [("c0", 1.0, "spawn")]
    assert edges(calls["c2"]) == [("c0", 3.0, "tool"), ("c1", 2.0, "tool")]
    assert parts(calls["c2"])[0] == ("tool", 36, "bash", 2.0), "45 fresh tokens: 20 of the tool to 5 of the report"
    assert [part.from_call for part in calls["c2"].fresh] == [None, "c1"]
    assert calls["c0"].recorded and calls["c0"].recorded.first_s == 0.25


def test_sessions_hold_traces_and_fall_back_to_them(tmp_path: Path) -> None:
    rows = [
        generation("1", None, 0, 1, "T1", sessionId="S", userId="me", traceName="flow"),
        generation("2", None, 20, 21, "T2", sessionId="S"),
        generation("3", None, 0, 1, "T3"),
        observation("s", "SPAN", "T4", None, 0, 1),
    ]
    reading = opened(tmp_path / "t.jsonl", *rows)
    one, other = reading
    assert (one.id, one.user, one.workflow, other.id) == ("S", "me", "flow", "T3")
    assert edges(one.calls[1]) == [("c0", 19.0, "human")]
    assert reading.report.dropped == {"traces without a generation": 1}


def snake(row: Row) -> Row:
    names = {"usageDetails": "usage_details", "model": "provided_model_name"}
    return {
        names.get(key, "".join(f"_{c.lower()}" if c.isupper() else c for c in key)): value for key, value in row.items()
    }


def test_all_documents_hold_the_same_session(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s" * 40}, {"role": "user", "content": "u" * 40}]
    more = [*messages, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "v" * 40}]
    rows = [
        generation("1", None, 0, 1, input=messages, output={"role": "assistant", "content": "yes"}),
        generation("2", None, 5, 6, input=more, usageDetails={"input": 80, "output": 5, "total": 85}),
    ]
    texts = [{**row, "input": json.dumps(row["input"]), "output": "yes"} for row in rows]
    files = {
        "lines.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "list.json": json.dumps(rows, indent=1),
        "page.json": json.dumps({"data": rows, "meta": {"totalItems": 2}}),
        "trace.json": json.dumps({"id": "T", "sessionId": None, "observations": rows}),
        "blob.jsonl": "".join(json.dumps(snake(row)) + "\n" for row in texts),
    }
    found = []
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text)
        assert sniff(path) == "langfuse", name
        (session,) = open_trace([path])
        assert session.origin == f"langfuse:{name}"
        found.append((session.id, session.start_s, session.calls))
    assert all(other == found[0] for other in found)
    first, second = found[0][2]
    assert [span.scope for span in first.spans] == ["trace"]
    assert (second.inherit, edges(second)) == (Inherit("c0"), [("c0", 4.0, "human")])


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"input": 50, "output": 5}, (50, None, 5, 0)),
        ({"input": 50, "cache_read_input_tokens": 30, "output": 5, "total": 85}, (80, 30, 5, 0)),
        ({"input": 50, "input_cached_tokens": 30, "output": 5, "total": 55}, (50, 30, 5, 0)),
        ({"input": 50, "input_cache_read": 30, "input_cache_creation": 7, "output": 5}, (87, 30, 5, 0)),
        ({"input": 50, "output": 5, "output_reasoning_tokens": 4, "total": 55}, (50, None, 5, 4)),
        ({"input": 50, "output": 5, "output_reasoning_tokens": 4, "total": 59}, (50, None, 9, 4)),
        ({"output": 5}, (None, None, 5, 0)),
        ({}, (None, None, None, 0)),
    ],
)
def test_usage_adds_up_unless_the_total_says_otherwise(usage: dict[str, int], counts: tuple[object, ...]) -> None:
    assert _counts(usage, Report()) == counts


def test_older_usage_errors_and_missing_ends(load: Load) -> None:
    calls = load(
        generation("1", None, 0, None, usageDetails=None, usage={"input": 30, "output": 4, "unit": "TOKENS"}),
        generation("2", None, 3, 4, usageDetails={}, promptTokens=40, completionTokens=6, level="ERROR"),
    )
    assert [(call.output_tokens, call.recorded and call.recorded.status) for call in calls.values()] == [
        (4, "ok"), (6, "error")]  # fmt: skip
    assert calls["c0"].recorded and calls["c0"].recorded.end_s is None
    assert edges(calls["c1"]) == [("c0", 3.0, "orchestration")]
    assert calls["c1"].inherit == Inherit("c0")


def test_first_token_by_seconds(load: Load) -> None:
    calls = load(generation("1", None, 1, 3, timeToFirstToken=0.5))
    assert calls["c0"].recorded and (calls["c0"].recorded.first_s, calls["c0"].recorded.streaming) == (0.5, True)


@pytest.mark.parametrize(
    ("change", "where"),
    [({"usageDetails": {"input": -1}}, "usageDetails.input"), ({"usageDetails": {"input": "x"}}, "usageDetails.input"),
     ({"startTime": "soon"}, "startTime"), ({"endTime": "9999-01-01T00:00:00Z"}, "endTime"),
     ({"traceId": None}, "traceId"), ({"id": None}, "id"), ({"promptTokens": 10**18}, "promptTokens"),
     ({"timeToFirstToken": -1}, "timeToFirstToken"), ({"type": 3}, "type")],
)  # fmt: skip
def test_bad_observations_are_named(tmp_path: Path, change: Row, where: str) -> None:
    rows = [generation("1", None, 0, 1), {**generation("2", None, 2, 3), **change}]
    with pytest.raises(TraceError) as raised:
        list(opened(tmp_path / "t.jsonl", *rows))
    assert raised.value.where and "line 2" in raised.value.where and raised.value.where.endswith(where)
    reading = opened(tmp_path / "t.jsonl", *rows, skip_bad=True)
    assert [list(prompt_tokens(session).values()) for session in reading] == [[50]]
    assert len(reading.report.skipped) == 1


def test_what_an_observation_holds_may_be_called_observations(tmp_path: Path) -> None:
    """Only a trace document holds observations in the list of that name."""
    told = {"observations": [{"x": 1}]}
    rows = [
        observation("t", "TOOL", "T", None, 0, 1, name="look", output=told),
        generation("1", None, 1, 2, input=told),
    ]
    (session,) = opened(tmp_path / "t.jsonl", *rows)
    assert len(session.calls) == 1
