"""TRIE: chains of growing prompts in and out; what it cannot hold is left out and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import sessions, workload

from workloom.errors import TraceError
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span, prompt_tokens
from workloom.traces import Report, open_trace, sniff
from workloom.traces.losses import losses
from workloom.traces.trie import write

WEKA = Path("../shared/data/weka")
Row = dict[str, Any]


def row(*tools: tuple[int, int, float], prompt: int = 9000, final: int = 900, **fields: object) -> Row:
    """A session; `tools`: for each turn the answer, what the tool said, how long it took."""
    return {
        "num_turns": len(tools),
        "input_prompt_length": prompt,
        "assistant_response_length": [answer for answer, _, _ in tools],
        "tool_call_output_length": [result for _, result, _ in tools],
        "tool_call_latency": [latency_s for _, _, latency_s in tools],
        "final_assistant_response_length": final,
        **fields,
    }


def save(folder: Path, *rows: Row, name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------------------------------------------------- reading


def test_a_session_of_turns(tmp_path: Path) -> None:
    """num_turns + 1 requests; the prompt of request k is input + the sum over i < k of (assistant_i + tool_i)."""
    reading = open_trace([save(tmp_path, row((120, 500, 0.8), (30, 1100, 17.6)))])
    (session,) = reading
    assert session == Session(
        "t0",
        (
            Call("c0", 120, fresh=(Part("user", 9000),)),
            Call(
                "c1",
                30,
                after=(Edge("c0", 0.8, "tool"),),
                inherit=Inherit("c0"),
                fresh=(Part("tool", 500, seconds=0.8),),
            ),
            Call(
                "c2",
                900,
                after=(Edge("c1", 17.6, "tool"),),
                inherit=Inherit("c1"),
                fresh=(Part("tool", 1100, seconds=17.6),),
            ),
        ),
        origin="trie:t.jsonl",
    )
    assert list(prompt_tokens(session).values()) == [9000, 9000 + 120 + 500, 9000 + 120 + 500 + 30 + 1100]
    assert (reading.format, reading.header.source, reading.header.common_clock) == ("trie", "trie", False)
    assert reading.report.assumptions == ["no session shares any text with another (the format says nothing of it)"]


def test_no_turns_and_nothing_said(tmp_path: Path) -> None:
    reading = open_trace([save(tmp_path, row(final=7), row((0, 0, 0.0), prompt=0, final=0))])
    alone, empty = reading
    assert alone.calls == (Call("c0", 7, fresh=(Part("user", 9000),)),)
    assert empty.calls == (Call("c0", 0), Call("c1", 0, after=(Edge("c0", 0.0, "tool"),), inherit=Inherit("c0")))
    assert [session.id for session in reading] == ["t0", "t1"]


def test_sessions_of_several_files_have_different_ids(tmp_path: Path) -> None:
    paths = [save(tmp_path, row(), row((1, 1, 1.0)), name=f"{name}.jsonl") for name in "ab"]
    reading = open_trace(paths)
    assert [session.id for session in reading] == ["t0", "t1", "t2", "t3"]
    assert reading.report.renamed == []


BAD: dict[str, tuple[Row, str, str, str]] = {
    "one answer too few": (row((1, 1, 1.0), num_turns=2), "assistant_response_length", "2 entries", "1 entries"),
    "tool outputs": (row((1, 1, 1.0), tool_call_output_length=[]), "tool_call_output_length", "1 entries", "0 entries"),
    "latencies": (row((1, 1, 1.0), tool_call_latency=[1, 2]), "tool_call_latency", "1 entries", "2 entries"),
    "negative answer": (row((-1, 1, 1.0)), "assistant_response_length[0]", "`int` >= 0", "-1"),
    "negative output": (row((1, 1, 1.0), (1, -5, 1.0)), "tool_call_output_length[1]", "`int` >= 0", "-5"),
    "negative latency": (row((1, 1, -0.5)), "tool_call_latency[0]", "`float` >= 0.0", "-0.5"),
    "a latency of years": (row((1, 1, 1e12)), "tool_call_latency[0]", "`float` <= ", "1000000000000.0"),
    "negative turns": (row(num_turns=-1), "num_turns", "`int` >= 0", "-1"),
    "many turns": (row(num_turns=10**18), "assistant_response_length", "1000000000000000000 entries", "0 entries"),
    "a part of a token": (row(prompt=1.5), "input_prompt_length", "`int`", "1.5"),  # type: ignore[arg-type]
    "a word": (row(final="x"), "final_assistant_response_length", "`int`", "x"),  # type: ignore[arg-type]
    "huge": (row(prompt=10**18), "input_prompt_length", "`int` <= ", "1000000000000000000"),
    "missing": ({k: v for k, v in row().items() if k != "num_turns"}, "num_turns", "required", "only"),
    "a list": (row(tool_call_latency=None), "tool_call_latency", "`array`", "None"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    bad, field, expected, found = BAD[name]
    path = save(tmp_path, row(), bad, row())
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line 2, {field}" in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert len(list(reading)) == 2
    assert len(reading.report.skipped) == 1


def test_a_half_written_last_line_is_normal(tmp_path: Path) -> None:
    path = save(tmp_path, row(), row())
    path.write_text(path.read_text()[:-30])
    reading = open_trace([path])
    assert len(list(reading)) == 1
    assert reading.report.dropped == {"half-written last line": 1}


def test_talk_of_the_format_is_not_the_format(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"type": "user", "message": json.dumps(row((1, 1, 1.0)))}) + "\n")
    assert sniff(path) != "trie"
    assert sniff(save(tmp_path, row())) == "trie"


# ---------------------------------------------------------------------------------------------------------- writing


def written(folder: Path, *given: Session) -> tuple[list[Session], list[int], Report]:
    """The sessions read back, the places of those left out, what the writer told."""
    report = Report()
    path = folder / "out.jsonl"
    out = write(path, Header(), given, report)
    return list(open_trace([path], format="trie")), out, report


counts = st.integers(0, 5000)
turns = st.lists(st.tuples(counts, counts, st.floats(0, 1000)), max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(lambda tools, *ends: row(*tools, prompt=ends[0], final=ends[1]), turns, counts, counts)))
def test_what_trie_says_survives(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("trie")
    before = list(open_trace([save(folder, *rows)], format="trie"))
    after, out, report = written(folder, *before)
    assert after == [replace(session, origin="trie:out.jsonl") for session in before]
    assert (out, report.dropped, report.inferred) == ([], {}, {})
    assert [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()] == rows


@settings(max_examples=50, deadline=None)
@given(workload())
def test_sizes_and_waits_of_the_sessions_that_fit_survive(
    tmp_path_factory: pytest.TempPathFactory, given: list[Session]
) -> None:
    after, out, report = written(tmp_path_factory.mktemp("trie"), *given)
    kept = [session for place, session in enumerate(given) if place not in out]
    assert sum(n for what, n in report.dropped.items() if what.startswith("sessions ")) == len(out)
    for one, other in zip(kept, after, strict=True):
        assert list(prompt_tokens(other).values()) == list(prompt_tokens(one).values())
        assert [call.output_tokens for call in other.calls] == [call.answer_tokens for call in one.calls]
        for call, copy in zip(one.calls, other.calls, strict=True):
            waits = [max(edge.wait_s for edge in call.after)] if call.after else []
            assert [edge.wait_s for edge in copy.after] == waits
        assert not {"calls that wait for other calls", "sessions with another number of calls"} & set(
            losses(one, other)
        )


def chain(*calls: Call) -> Session:
    """Each call after the one before it, if it does not say otherwise."""
    linked = [
        call if call.after or not index else replace(call, after=(Edge(f"c{index - 1}", 1.0, "tool"),))
        for index, call in enumerate(calls)
    ]
    return Session("s", tuple(linked))


FIRST = Call("c0", 50, fresh=(Part("user", 100),))
NO_CHAIN = "sessions that branch or join: TRIE holds chains only"
RESET = "sessions in which a prompt is not all of the one before, its answer and more: TRIE has no resets"
MORE = "prompts that repeat most of an earlier prompt and answer: written as repeating all of it"
CANNOT = {
    "a fork": (chain(FIRST, Call("c1", 5, inherit=Inherit("c0")), Call("c2", 5, (Edge("c0"),))), NO_CHAIN),
    "a second root": (Session("s", (FIRST, Call("c1", 5))), NO_CHAIN),
    "a join": (
        chain(FIRST, Call("c1", 5, inherit=Inherit("c0")), Call("c2", 5, (Edge("c0"), Edge("c1")))),
        NO_CHAIN,
    ),
    "nothing repeated": (chain(FIRST, Call("c1", 5, fresh=(Part("user", 900),))), RESET),
    "too short for the answer": (
        chain(FIRST, Call("c1", 5, inherit=Inherit("c0", 100), fresh=(Part("user", 49),))),
        RESET,
    ),
    "little repeated": (chain(FIRST, Call("c1", 5, inherit=Inherit("c0", 74), fresh=(Part("user", 900),))), RESET),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_what_is_no_growing_chain_is_left_out_and_counted(tmp_path: Path, name: str) -> None:
    session, why = CANNOT[name]
    after, out, report = written(tmp_path, chain(FIRST), session, chain(FIRST))
    assert (len(after), out) == (2, [1])
    assert report.dropped == {why: 1}
    assert report.inferred == {}


def test_a_prompt_that_repeats_most_of_the_one_before_and_is_long_enough(tmp_path: Path) -> None:
    second = Call("c1", 5, inherit=Inherit("c0", 75), fresh=(Part("tool", 90),))
    (session,), out, report = written(tmp_path, chain(FIRST, second))
    assert (session.calls[1].inherit, session.calls[1].fresh_tokens, out) == (Inherit("c0"), 15, [])
    assert report.inferred == {MORE: 1}


def test_two_edges_to_one_call_are_the_longer_wait(tmp_path: Path) -> None:
    second = Call("c1", 5, (Edge("c0", 3.0, "tool"), Edge("c0", 1.0, "tool")), inherit=Inherit("c0"))
    (session,), out, _ = written(tmp_path, chain(FIRST, second))
    assert (session.calls[1].after, out) == ((Edge("c0", 3.0, "tool"),), [])


def test_only_sizes_and_waits_are_written(tmp_path: Path) -> None:
    first = Call(
        "a", 50, (), "Plan:1", "m", None, (Span("tools", 40, "trace"),), (Part("user", 60, text="hello"),), 9, 20,
        Recorded(0.0, answer="bye"),
    )  # fmt: skip
    second = Call(
        "b", 5, (Edge("a", 2.0, "human"),), inherit=Inherit("a"), fresh=(Part("tool", 3, "read"), Part("user", 4))
    )
    (session,), _, _ = written(tmp_path, Session("s", (first, second), 7.0, "me", "work"))
    assert list(prompt_tokens(session).values()) == [100, 127]
    assert [call.output_tokens for call in session.calls] == [20, 5]


@settings(max_examples=50, deadline=None)
@given(sessions(stop_after=True, recorded=True))
def test_any_session_is_held_or_left_out(tmp_path_factory: pytest.TempPathFactory, session: Session) -> None:
    after, out, _ = written(tmp_path_factory.mktemp("trie"), session)
    assert len(after) + len(out) == 1


@pytest.mark.skipif(not WEKA.is_dir(), reason="the 52 WEKA files of ../shared/data are not here")
def test_real_sessions_through_trie(tmp_path: Path) -> None:
    """Seven of the 52 WEKA sessions only grow; in the others some prompt is too short for the answer before it."""
    reading = open_trace(str(WEKA))
    given = list(reading)
    after, out, _ = written(tmp_path, *given)
    assert (len(after), len(out)) == (7, 45)
    kept = (session for place, session in enumerate(given) if place not in out)
    for one, other in zip(kept, after, strict=True):
        assert list(prompt_tokens(other).values()) == list(prompt_tokens(one).values())
        assert [e.wait_s for c in other.calls for e in c.after] == [e.wait_s for c in one.calls for e in c.after]
