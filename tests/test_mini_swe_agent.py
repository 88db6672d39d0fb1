"""The mini-swe-agent reader: a call for each answer, sizes from usage or from texts, times where the run has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import save
from samples.mini_swe_agent import files

from workloom.errors import TraceError
from workloom.session import Call, Inherit, Session, prompt_tokens, ready, validate
from workloom.traces import Reading, open_trace, sniff

Row = dict[str, Any]
SYSTEM: Row = {"role": "system", "content": "x" * 80}
TASK: Row = {"role": "user", "content": "x" * 40}
"""20 and 10 tokens by their length."""


def answer(
    at: float | None = None, prompt: int | None = None, output: int = 0, *, text: str = "x" * 40, **more: Any
) -> Row:
    extra: Row = {"actions": [{"command": "ls"}], "cost": 0.1}
    if at is not None:
        extra["timestamp"] = at
    if prompt is not None:
        extra["response"] = {"model": "m", "usage": {"prompt_tokens": prompt, "completion_tokens": output, **more}}
    return {"role": "assistant", "content": text, "extra": extra}


def output(at: float | None = None, text: str = "x" * 60) -> Row:
    return {"role": "tool", "content": text, "extra": {"returncode": 0} | ({} if at is None else {"timestamp": at})}


def document(*messages: Row, **fields: Any) -> Row:
    info = {"model_stats": {"api_calls": 1}, "config": {"model": {"model_name": "configured"}}, "mini_version": "2.0"}
    return {"info": info, "messages": [SYSTEM, TASK, *messages], "trajectory_format": "mini-swe-agent-1.1", **fields}


def one(folder: Path, content: Row, **options: Any) -> tuple[Session, Reading]:
    path = folder / "a__b-1.traj.json"
    path.write_text(json.dumps(content))
    reading = open_trace([path], **options)
    assert reading.format == "mini-swe-agent"
    (session,) = reading
    validate(session)
    return session, reading


def fresh(call: Call) -> list[tuple[str, int, str | None]]:
    return [(part.kind, part.tokens, part.name) for part in call.fresh]


def after(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def test_sizes_are_the_usage_of_each_answer(tmp_path: Path) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 64}, "completion_tokens_details": {"reasoning_tokens": 5}}
    first = answer(1000.0, 100, 20)
    content = document(first, output(1003.0), answer(1010.0, 130, 9, **details), {"role": "exit", "content": "done"})
    session, _ = one(tmp_path, content)
    assert session.id == "a__b-1" and session.start_s == 1000.0
    c0, c1 = session.calls
    assert list(prompt_tokens(session).values()) == [100, 130]
    assert fresh(c0) == [("definition", 70, "tools"), ("definition", 20, "system"), ("user", 10, None)]
    assert c1.inherit == Inherit("c0") and fresh(c1) == [("tool", 10, "bash")]
    assert (c1.output_tokens, c1.reasoning_tokens, c1.model) == (9, 5, "m")
    assert c1.recorded and c1.recorded.cached_tokens == 64 and not c1.recorded.estimated


def test_a_request_leaves_when_the_last_output_is_there(tmp_path: Path) -> None:
    messages = [answer(1000.0, 100, 20), output(1003.0), output(1003.5), answer(1010.0, 130, 9)]
    session, reading = one(tmp_path, document(*messages))
    c0, c1 = session.calls
    assert c0.recorded and c1.recorded
    assert (c0.recorded.start_s, c0.recorded.end_s) == (None, 0.0), "nothing says when the first request left"
    assert (c1.recorded.start_s, c1.recorded.end_s) == (3.5, 10.0)
    assert after(c1) == [("c0", 3.5, "tool")]
    assert [part.seconds for part in c1.fresh] == [3.0, 3.5]
    assert any("a run begins when its first answer came" in said for said in reading.report.assumptions)


def test_version_1_has_times_of_all_messages_and_no_usage(tmp_path: Path) -> None:
    messages = [
        {**SYSTEM, "timestamp": 1000.0}, {**TASK, "timestamp": 1000.0},
        {"role": "assistant", "content": "x" * 40, "timestamp": 1004.0},
        {"role": "user", "content": "x" * 60, "timestamp": 1006.0},
        {"role": "assistant", "content": "x" * 20, "timestamp": 1009.0},
    ]  # fmt: skip
    content = {
        "info": {"exit_status": "Submitted", "submission": "y" * 70_000},
        "messages": messages,
        "trajectory_format": "mini-swe-agent-1",
    }
    session, reading = one(tmp_path, content)
    assert list(prompt_tokens(session).values()) == [30, 30 + 10 + 15]
    assert [call.output_tokens for call in session.calls] == [10, 5]
    for call in session.calls:
        assert call.recorded and call.recorded.estimated == ("prompt_tokens", "output_tokens")
    assert after(session.calls[1]) == [("c0", 2.0, "tool")] and session.start_s == 1000.0
    assert session.calls[0].recorded and session.calls[0].recorded.start_s == 0.0
    assert reading.report.inferred == {"calls without usage, their sizes estimated from texts": 2}


def test_without_times_nothing_waits(tmp_path: Path) -> None:
    session, reading = one(tmp_path, document(answer(), output(), answer()))
    assert session.start_s is None and after(session.calls[1]) == [("c0", 0.0, "tool")]
    assert session.calls[0].model == "configured"
    assert "where a trajectory has no times, its tools and its users take none" in reading.report.assumptions


def test_an_answer_that_could_not_be_parsed_is_a_call_and_in_no_later_prompt(tmp_path: Path) -> None:
    response = {"usage": {"prompt_tokens": 140, "completion_tokens": 4}}
    extra = {"interrupt_type": "FormatError", "response": response}
    error = {"role": "user", "content": "x" * 40, "extra": extra}
    messages = [answer(1000.0, 100, 20), output(1003.0), error, answer(1010.0, 155, 9)]
    session, reading = one(tmp_path, document(*messages))
    assert [call.output_tokens for call in session.calls] == [20, 4, 9]
    assert session.calls[2].inherit == Inherit("c1", 140) and fresh(session.calls[2]) == [("injected", 15, None)]
    assert reading.report.inferred == {"answers that could not be parsed and are in no later prompt": 1}


def test_a_persons_word_is_a_human_wait(tmp_path: Path) -> None:
    word = {"role": "user", "content": "x" * 20, "extra": {"interrupt_type": "UserInterruption", "timestamp": 1060.0}}
    session, _ = one(tmp_path, document(answer(1000.0, 100, 20), output(1003.0), word, answer(1070.0, 150, 9)))
    assert after(session.calls[1]) == [("c0", 60.0, "human")]
    assert [part.kind for part in session.calls[1].fresh] == ["tool", "user"]


def test_responses_api_answers(tmp_path: Path) -> None:
    usage = {"input_tokens": 90, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 64}}
    item = {"type": "function_call", "name": "bash", "arguments": "{}", "call_id": "z"}
    made = {"object": "response", "model": "r", "usage": usage, "output": [item], "extra": {"timestamp": 1000.0}}
    got = {"type": "function_call_output", "call_id": "z", "output": "x" * 40, "extra": {"timestamp": 1001.0}}
    session, _ = one(tmp_path, document(made, got, {**made, "usage": {**usage, "input_tokens": 108}}))
    assert list(prompt_tokens(session).values()) == [90, 108]
    assert session.calls[1].model == "r" and fresh(session.calls[1]) == [("tool", 10, "bash")]


def test_runs_that_ended_badly_say_so(tmp_path: Path) -> None:
    end = {"role": "exit", "content": "x", "extra": {"exit_status": "APIError", "exception_str": "x"}}
    content = document(answer(1000.0, 100, 20), end)
    content["info"]["model_stats"]["api_calls"] = 3
    _, reading = one(tmp_path, content)
    assert reading.report.dropped == {
        "runs ended by an error; the request it may have failed is not in their file": 1,
        "calls a run counted that left no message": 2,
    }
    path = tmp_path / "empty.traj.json"
    path.write_text(json.dumps(document(end)))
    reading = open_trace([path])
    assert not list(reading) and reading.report.dropped["trajectories with no call"] == 1


def test_the_sample(tmp_path: Path) -> None:
    (session,) = reading = open_trace(
        str(save(tmp_path, files(lambda field: f"T {field}", lambda field: f"N-{field}")))
    )
    assert list(prompt_tokens(session).values()) == [400, 434, 520, 600]
    assert [call.model for call in session.calls] == ["N-response model", "N-model_name", "N-response model", "N-model"]
    assert reading.report.dropped["calls a run counted that left no message"] == 1
    done = {call.id: call.recorded.end_s or 0.0 for call in session.calls if call.recorded}
    assert ready(session.calls[3], done) == 11.0


def test_text_is_kept_when_asked(tmp_path: Path) -> None:
    session, _ = one(tmp_path, document(answer(1000.0, 100, 20, text="a thought")), text=True)
    assert [part.text for part in session.calls[0].fresh] == [None, "x" * 80, "x" * 40]
    assert session.calls[0].recorded and session.calls[0].recorded.answer == "a thought"


BAD = {
    "no JSON": ("{", "", "JSON", ""),
    "a list": ("[]", "top level", "`object`", "[]"),
    "no messages": ('{"info": {}}', "messages", "required", "only info"),
    "negative tokens": (json.dumps(document(answer(1.0, -1, 1))), "usage.prompt_tokens", ">= 0", "-1"),
    "huge tokens": (json.dumps(document(answer(1.0, 10**18, 1))), "usage.prompt_tokens", "<=", "1000000000000000000"),
    "negative time": (json.dumps(document(answer(-1.0, 1, 1))), "extra.timestamp", ">= 0", "-1"),
    "content is a number": (json.dumps(document({"role": "user", "content": 3})), "messages[2].content", "str", "3"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    content, field, expected, found = BAD[name]
    path = tmp_path / "bad.traj.json"
    path.write_text(content)
    with pytest.raises(TraceError) as caught:
        list(open_trace([path], format="mini-swe-agent"))
    error = caught.value
    assert error.where is not None and str(path) in error.where and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)


def test_trajectories_of_swe_agent_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "classic.traj"
    stats = {"instance_cost": 0.1, "tokens_sent": 5, "tokens_received": 5, "api_calls": 1}
    for content in (
        {"trajectory": [], "info": {"model_stats": stats}},
        {"info": {"model_stats": stats}, "trajectory": []},
    ):
        path.write_text(json.dumps(content))
        assert sniff(path) != "mini-swe-agent"
