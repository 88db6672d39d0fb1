"""LiteLLM payloads: order from time, threads and joins from messages and ids of tool calls.

No real log was at hand: rows are made from the documented StandardLoggingPayload (1.109).
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from samples.litellm import T0, asks, payload, response
from test_otel import check, edges, parts

from workloom.errors import TraceError
from workloom.session import Call, Inherit, prompt_tokens
from workloom.traces import Reading, open_trace, sniff
from workloom.traces.telemetry.message import REDACTED

Row = dict[str, object]
Load = Callable[..., dict[str, Call]]

SYSTEM: Row = {"role": "system", "content": "s" * 40}


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def answer(text: str) -> Row:
    return {"role": "assistant", "content": text}


def result(id: str, text: str) -> Row:
    return {"role": "tool", "tool_call_id": id, "content": text}


def row(id: str, start: float, end: float, messages: list[Row] | None, out: Row | None, **more: object) -> Row:
    said: Row = {} if messages is None else {"messages": messages}
    if out is not None:
        said["response"] = response(out)
    return payload(id, start, end, **{"trace_id": "T", "model": "m", "prompt_tokens": 50, "completion_tokens": 5,
                                      **said, **more})  # fmt: skip


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


def test_a_thread_is_a_chain_with_tool_and_human_waits(load: Load) -> None:
    one = [SYSTEM, user("u" * 40)]
    two = [*one, asks("bash", "k"), result("k", "r" * 40)]
    three = [*two, answer("done"), user("v" * 40)]
    calls = load(
        row("3", 60, 61, three, answer("bye"), prompt_tokens=90),
        row("2", 5, 6, two, answer("done"), prompt_tokens=70),
        row("1", 0, 2, one, asks("bash", "k"), prompt_tokens=40),
    )
    assert [call.agent for call in calls.values()] == ["main"] * 3
    assert edges(calls["c1"]) == [("c0", 3.0, "tool")]
    assert edges(calls["c2"]) == [("c1", 54.0, "human")]
    assert [call.inherit for call in calls.values()] == [None, Inherit("c0"), Inherit("c1")]
    assert parts(calls["c1"]) == [("tool", 25, "bash", None)]
    assert parts(calls["c2"]) == [("user", 15, None, None)]
    assert [(found.tokens, found.scope) for found in calls["c0"].spans] == [(10, "trace")]
    assert calls["c0"].recorded and calls["c0"].recorded.first_s == 0.25


def test_calls_while_a_tool_runs_are_a_subagent_joined_by_its_result(load: Load) -> None:
    one = [SYSTEM, user("u" * 40)]
    calls = load(
        row("1", 0, 2, one, asks("task", "k1", "k2")),
        row("a", 2.5, 4, [user("first task " * 4)], asks("bash", "x")),
        row("b", 2.6, 5, [user("second task" * 4)], answer("two")),
        row("a2", 5, 7, [user("first task " * 4), asks("bash", "x"), result("x", "r" * 40)], answer("one")),
        row("2", 9, 10, [*one, asks("task", "k1", "k2"), result("k1", "1" * 40), result("k2", "2" * 40)], answer("yes"),
            prompt_tokens=90),
    )  # fmt: skip
    assert [call.agent for call in calls.values()] == ["main", "agent:1", "agent:2", "agent:1", "main"]
    assert edges(calls["c1"]) == [("c0", 0.5, "spawn")]
    assert edges(calls["c2"]) == [("c0", 0.6, "spawn")]
    assert edges(calls["c3"]) == [("c1", 1.0, "tool")]
    assert edges(calls["c4"]) == [("c0", 2.0, "tool"), ("c3", 2.0, "tool"), ("c2", 2.0, "tool")]
    assert [(part.kind, part.from_call) for part in calls["c4"].fresh] == [("report", "c3"), ("report", "c2")]


def test_a_call_beside_is_behind_what_had_ended_and_nobody_waits_for_it(load: Load) -> None:
    one = [user("u" * 40)]
    calls = load(
        row("t", 0, 1, [user("a title for ..." * 4)], answer("title"), model="small"),
        row("1", 0.5, 2, one, answer("hello")),
        row("2", 9, 10, [*one, answer("hello"), user("v" * 40)], answer("yes"), prompt_tokens=80),
    )
    assert [call.agent for call in calls.values()] == ["agent:0", "main", "main"]
    assert edges(calls["c1"]) == []
    assert edges(calls["c2"]) == [("c1", 7.0, "human")]


def test_branches_continue_the_same_call(load: Load) -> None:
    one = [user("u" * 160)]
    calls = load(
        row("1", 0, 1, one, answer("hello")),
        row("2", 2, 9, [*one, answer("hello"), user("v" * 40)], answer("yes"), prompt_tokens=80),
        row("3", 3, 9, [*one, answer("hello"), user("w" * 40)], answer("no"), prompt_tokens=90),
    )
    assert [call.inherit for call in calls.values()] == [None, Inherit("c0"), Inherit("c0")]
    assert edges(calls["c2"]) == [("c0", 2.0, "human")]


def test_samples_of_one_prompt_are_told_apart_by_what_was_answered(load: Load) -> None:
    one = [user("u" * 160)]
    calls = load(
        row("1", 0, 1, one, answer("left")),
        row("2", 0, 1.5, one, answer("right")),
        row("3", 2, 9, [*one, answer("left"), user("v" * 40)], answer("yes"), prompt_tokens=80),
    )
    assert edges(calls["c2"]) == [("c0", 1.0, "human")]
    assert [(found.tokens, found.scope) for found in calls["c0"].spans] == [(40, "session")]
    assert calls["c0"].spans == calls["c1"].spans, "strangers with one prompt share it"
    assert calls["c2"].inherit == Inherit("c0")


def test_an_end_behind_the_call_that_holds_the_answer_is_set_back(tmp_path: Path) -> None:
    one = [user("u" * 160)]
    reading = opened(
        tmp_path / "t.jsonl",
        row("1", 0, 3, one, answer("hello")),
        row("2", 2.5, 9, [*one, answer("hello"), user("v" * 40)], answer("yes"), prompt_tokens=80),
    )
    (session,) = reading
    check(session)
    assert edges(session.calls[1]) == [("c0", 0.0, "human")]
    assert session.calls[0].recorded and session.calls[0].recorded.end_s == 2.5
    assert reading.report.inferred == {"ends set back to the start of a call that holds the answer": 1}


def test_without_messages_calls_follow_in_time(tmp_path: Path) -> None:
    redacted = [user(REDACTED)]
    reading = opened(
        tmp_path / "t.jsonl",
        row("1", 0, 1, None, None, prompt_tokens=100),
        row("2", 3, 4, redacted, answer(REDACTED), prompt_tokens=120),
        row("3", 3.5, 5, None, None, prompt_tokens=130),
    )
    (session,) = reading
    assert [edges(call) for call in session.calls] == [[], [("c0", 2.0, "none")], [("c0", 2.5, "none")]]
    assert session.calls[1].inherit == session.calls[2].inherit == Inherit("c0")
    assert any("not known" in sentence for sentence in reading.report.assumptions)


def test_retries_other_kinds_and_the_cache(tmp_path: Path) -> None:
    one = [user("u" * 40)]
    reading = opened(
        tmp_path / "t.jsonl",
        row("1", 0, 1, one, None, status="failure", prompt_tokens=0, completion_tokens=0),
        row("2", 2, 3, one, answer("yes"), prompt_tokens=10),
        row("2", 2, 3, one, answer("yes"), prompt_tokens=10),
        row("3", 4, 5, one, answer("yes"), cache_hit=True),
        row("4", 4, 5, None, None, call_type="aembedding"),
    )
    (session,) = reading
    failed, again = session.calls
    assert failed.recorded and (failed.recorded.status, failed.recorded.estimated) == ("error", ("prompt_tokens",))
    assert edges(again) == [("c0", 1.0, "orchestration")]
    assert (again.inherit, again.fresh) == (Inherit("c0", 10), ())
    assert reading.report.merged == {"calls that were logged twice": 1}
    assert sum(reading.report.dropped.values()) == 2


def test_usage_times_and_sessions(tmp_path: Path) -> None:
    iso = datetime.fromtimestamp(T0, UTC).isoformat()
    usage = {"cache_read_input_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 4}}
    rows = [
        row("1", 0, 1, None, None, session_id="S", trace_id="T1", startTime=iso, metadata={"usage_object": usage},
            end_user="me"),
        row("2", 2, 3, None, None, session_id="S", trace_id="T2", stream=False),
        row("3", 2, 3, None, None, trace_id="T3"),
    ]  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert sniff(tmp_path / "t.json") == "litellm"
    one, other = open_trace([tmp_path / "t.json"])
    assert [(one.id, one.user, len(one.calls)), (other.id, other.user, len(other.calls))] == [
        ("S", "me", 2), ("T3", None, 1)]  # fmt: skip
    assert list(prompt_tokens(one).values()) == [50, 50]
    first, second = (call.recorded for call in one.calls)
    assert first and second
    assert (one.start_s, first.cached_tokens, one.calls[0].reasoning_tokens) == (T0, 30, 4)
    assert (first.first_s, second.first_s, second.streaming) == (0.25, None, False)


@pytest.mark.parametrize(
    ("change", "where"),
    [({"prompt_tokens": -1}, "prompt_tokens"), ({"completion_tokens": 10**18}, "completion_tokens"),
     ({"startTime": None}, "startTime"), ({"startTime": "soon"}, "startTime"), ({"endTime": 1e308}, "endTime"),
     ({"metadata": {"usage_object": {"prompt_tokens_details": 1}}}, "prompt_tokens_details"),
     ({"trace_id": None, "id": None}, "trace_id"), ({"session_id": {}}, "session_id")],
)  # fmt: skip
def test_bad_payloads_are_named(tmp_path: Path, change: Row, where: str) -> None:
    rows = [row("1", 0, 1, None, None), {**row("2", 2, 3, None, None), **change}]
    with pytest.raises(TraceError) as raised:
        list(opened(tmp_path / "t.jsonl", *rows))
    assert raised.value.where and "line 2" in raised.value.where and raised.value.where.endswith(where)
    reading = opened(tmp_path / "t.jsonl", *rows, skip_bad=True)
    assert [len(session.calls) for session in reading] == [1]
    assert len(reading.report.skipped) == 1


def test_random_logs_are_valid_sessions(tmp_path: Path) -> None:
    for seed in range(150):
        random = Random(seed)
        rows, histories = [], [[SYSTEM]]
        for number in range(random.randrange(1, 15)):
            start = random.randrange(40) / 4
            history = [*random.choice(histories), user(random.choice("ab") * 30)]
            out = random.choice((answer("yes"), answer("no"), asks("bash", "k"), None))
            end, shown = start + random.choice((0, 0.5, 2, -1)), random.choice((history, history, None))
            counts: Row = {"prompt_tokens": random.randrange(90), "completion_tokens": random.randrange(30)}
            rows.append(row(str(number), start, end, shown, out, **counts))
            histories.append([*history, out] if out else history)
        for session in opened(tmp_path / "t.jsonl", *rows):
            check(session)


def test_marks_of_what_is_to_be_cached_are_no_part_of_a_message(load: Load) -> None:
    """Clients of Anthropic's models put them on the last message, so they move on from call to call."""
    system: Row = {"role": "system", "content": "s" * 40}

    def marked(message: Row) -> Row:
        text = {"type": "text", "text": message["content"], "cache_control": {"type": "ephemeral"}}
        return {"role": message["role"], "content": [text]}

    def tool(mark: bool) -> Row:
        part: Row = {"type": "tool_result", "tool_use_id": "k", "content": [{"type": "text", "text": "r" * 80}]}
        return {"role": "user", "content": [{**part, "cache_control": {"type": "ephemeral"}} if mark else part]}

    use: Row = {"role": "assistant", "content": [{"type": "tool_use", "id": "k", "name": "b", "input": {}}]}
    calls = load(
        row("1", 0, 1, [system, marked(user("u" * 80))], use, prompt_tokens=40),
        row("2", 2, 3, [system, user("u" * 80), use, tool(True)], answer("x"), prompt_tokens=70),
        row("3", 4, 5, [system, user("u" * 80), use, tool(False), answer("x"), marked(user("v"))], answer("y"),
            prompt_tokens=80),
    )  # fmt: skip
    assert [call.agent for call in calls.values()] == ["main"] * 3
    assert [call.inherit for call in calls.values()] == [None, Inherit("c0"), Inherit("c1")]


def test_a_file_for_every_request(tmp_path: Path) -> None:
    """A proxy that logs to a bucket writes more files than a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(300):
        name = f"T{number % 100}"
        rows = [row(f"{number}", number, number + 1, [user("u" * 180)], answer("x"), trace_id=name)]
        (tmp_path / f"{number:03}.json").write_text(json.dumps(rows[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        sessions = list(open_trace([tmp_path]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [len(session.calls) for session in sessions] == [3] * 100
