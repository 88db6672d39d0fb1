"""AIPerf's conversation DAG: what becomes of turns, branches and joins, and files that its loader would accept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiperf_rules import Request, load, replay
from exported import shared, sizes, told_apart, waits
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from samples import samples, save
from strategies import sessions

from workloom.errors import TraceError
from workloom.prefix import common
from workloom.prompt import planned
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span, validate
from workloom.traces import Reading, open_trace, sniff
from workloom.traces.aiperf_dag.text import count, words
from workloom.traces.aiperf_dag.write import write
from workloom.traces.reading import Report

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
Line = dict[str, Any]


def said(text: str, role: str = "user", **fields: Any) -> Line:
    return {"role": role, "content": text, **fields}


def turn(*messages: Line | str, **fields: Any) -> Line:
    return {"messages": [said(m) if isinstance(m, str) else m for m in messages], "max_tokens": 5, **fields}


def talk(name: str, *turns: Line, **fields: Any) -> Line:
    return {"session_id": name, "turns": list(turns), **fields}


def file(folder: Path, *lines: Line) -> Path:
    path = folder / "dag.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def opened(folder: Path, *lines: Line, **options: Any) -> tuple[list[Session], Reading]:
    path = file(folder, *lines)
    assert sniff(path) == "aiperf-dag"
    reading = open_trace([path], **options)
    found = list(reading)
    for session in found:
        validate(session)
    return found, reading


def edges(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def parts(call: Call) -> list[tuple[str, int]]:
    return [(part.kind, part.tokens) for part in call.fresh]


# ------------------------------------------------------------------------------------------------------- reading


def test_turns_append_to_all_before_and_the_answer(tmp_path: Path) -> None:
    first = turn(said("be brief", "system"), "one two three", model="m", max_tokens=40)
    second = turn(said("a result!", "tool", name="grep"), max_tokens=9, delay=1250)
    ((session,), reading) = opened(tmp_path, talk("s", first, second))
    a, b = session.calls
    assert (session.id, session.origin) == ("s", "aiperf-dag:dag.jsonl")
    assert (a.id, a.agent, a.model, a.output_tokens, parts(a)) == (
        "c0",
        "main",
        "m",
        40,
        [("definition", 2), ("user", 3)],
    )
    assert (edges(b), b.inherit) == ([("c0", 1.25, "tool")], Inherit("c0"))
    assert b.fresh == (Part("tool", 3, "grep"),), "nine characters are not plain words: three tokens"
    assert a.recorded == Recorded(estimated=("prompt_tokens",))
    assert reading.report.prompt_tokens == 5 + (5 + 40 + 3)


def test_a_spawned_branch_begins_anew_and_is_waited_for(tmp_path: Path) -> None:
    ((session,), _) = opened(
        tmp_path,
        talk(
            "s", turn("a b", spawns=["x", {"children": ["y"], "join_at": 2}]), turn("c", delay=500), turn("d", delay=10)
        ),
        talk("x", turn("e f", delay=2000), turn("g")),
        talk("y", turn("h")),
    )
    calls = {call.id: call for call in session.calls}
    assert [call.agent for call in session.calls] == ["main", "spawn:1", "spawn:1", "spawn:2", "main", "main"]
    assert edges(calls["c1"]) == [("c0", 2.0, "spawn")] and calls["c1"].inherit is None
    assert edges(calls["c2"]) == [("c1", 0.0, "none")] and calls["c2"].inherit == Inherit("c1")
    assert edges(calls["c3"]) == [("c0", 0.0, "spawn")]
    assert edges(calls["c4"]) == [("c0", 0.5, "none"), ("c2", 0.5, "none")], "a bare name is waited for at once"
    assert edges(calls["c5"]) == [("c4", 0.01, "none"), ("c3", 0.01, "none")]


def test_forks_begin_with_all_their_parent_had_and_nothing_waits_for_them(tmp_path: Path) -> None:
    ((session,), _) = opened(
        tmp_path,
        talk("s", turn("a b", forks=[{"child": "x", "background": True}]), turn("c", forks=["y", "z"])),
        *(talk(name, turn("d e")) for name in "xyz"),
    )
    assert [call.agent for call in session.calls] == ["main", "fork:1", "main", "fork:2", "fork:3"]
    assert [call.inherit and call.inherit.call for call in session.calls] == [None, "c0", "c0", "c2", "c2"]
    assert [edges(call) for call in session.calls[1:]] == [
        [("c0", 0.0, "spawn")],
        [("c0", 0.0, "none")],
        [("c2", 0.0, "spawn")],
        [("c2", 0.0, "spawn")],
    ]
    assert parts(session.calls[1]) == [("user", 2)], "what c1 says is said elsewhere too, but behind another history"
    y, z = session.calls[3:]
    assert y.spans == z.spans != () and y.fresh == z.fresh == (), "behind one history equal messages are one text"


def test_the_only_branch_of_a_last_turn_is_the_same_agent_going_on(tmp_path: Path) -> None:
    ((session,), _) = opened(
        tmp_path,
        talk("s", turn("a", forks=["x"])),
        talk("x", turn("b", forks=["y"], spawns=["z"])),
        talk("y", turn("c")),
        talk("z", turn("d")),
    )
    assert [call.agent for call in session.calls] == ["main", "main", "main", "spawn:1"]


def test_early_branches_and_orchestrators(tmp_path: Path) -> None:
    rounds = [{"spawns": ["a", "b"], "think_time_ms": 70}, {"spawns": ["c"]}]
    (found, reading) = opened(
        tmp_path,
        talk("s", turn("x"), turn("y"), pre_session_spawns=["early"]),
        talk("early", turn("z")),
        {"session_id": "o", "orchestrator": True, "think_time_ms": 30, "think_time_sigma": 0.4, "rounds": rounds},
        *(talk(name, turn(name), turn(f"{name} too")) for name in "abc"),
    )
    session, driven = found
    assert [edges(call) for call in session.calls] == [[], [], [("c0", 0.0, "none")]]
    assert [call.agent for call in driven.calls] == ["spawn:1"] * 2 + ["spawn:2"] * 2 + ["spawn:3"] * 2
    assert edges(driven.calls[4]) == [("c1", 0.03, "spawn"), ("c3", 0.03, "spawn")]
    assert reading.report.dropped == {"delays before the first call of a session": 1}
    assert "drawn think times are their median" in reading.report.assumptions


def test_repeated_rounds_run_the_same_branches_again(tmp_path: Path) -> None:
    ((session,), _) = opened(
        tmp_path, {"session_id": "o", "orchestrator": True, "rounds": 3, "spawns": ["a"]}, talk("a", turn("b c"))
    )
    assert [edges(call) for call in session.calls] == [[], [("c0", 0.0, "spawn")], [("c1", 0.0, "spawn")]]
    assert len({call.spans for call in session.calls}) == 1 and session.calls[0].spans[0].tokens == 2


def test_the_other_modes(tmp_path: Path) -> None:
    canned = [turn("a b"), turn(said("c d e", "assistant"), "f")]
    arrays = [turn("g h"), turn("g h", said("i", "assistant"), "j")]
    (found, _) = opened(
        tmp_path,
        talk("s", *canned, context_mode="deltas_with_responses"),
        talk("t", *arrays, context_mode="message_array_with_responses"),
    )
    b, d = found[0].calls[1], found[1].calls[1]
    assert b.inherit == Inherit("c0", 2), "the answer that came is thrown away"
    assert b.fresh == (Part("answer", 3, from_call="c0"), Part("user", 1))
    assert d.inherit is None and d.spans == found[1].calls[0].spans and d.spans[0].scope == "session"
    assert parts(d) == [("answer", 1), ("user", 1)]


def test_what_sessions_begin_with_alike_is_one_text(tmp_path: Path) -> None:
    system = said("you are a careful assistant", "system")
    (found, _) = opened(
        tmp_path,
        talk("s", turn(system, "do this"), turn("go on")),
        talk("t", turn(system, "do that", spawns=["u"])),
        talk("u", turn(system, "do this", "and this")),
        talk("v", turn(said("you are a careful assistant"), "do this")),
    )
    s, t, u, v = found[0].calls[0], *found[1].calls, found[2].calls[0]
    assert [[span.tokens for span in call.spans] for call in (s, t, u, v)] == [[5, 2], [5], [5, 2], []]
    assert s.spans == u.spans and t.spans == s.spans[:1] and {span.scope for span in s.spans} == {"trace"}
    assert parts(v) == [("user", 5), ("user", 2)], "another role is another text"
    assert found[0].calls[1].spans == ()


def test_texts_are_kept_when_told_to_but_those_of_shared_spans(tmp_path: Path) -> None:
    lines = [talk(name, turn(said("be good", "system"), f"héllo {name}")) for name in "st"]
    (found, reading) = opened(tmp_path, *lines, text=True)
    assert [[part.text for part in session.calls[0].fresh] for session in found] == [["héllo s"], ["héllo t"]]
    assert [[span.tokens for span in session.calls[0].spans] for session in found] == [[2], [2]]
    told = "texts of messages that several prompts begin with, kept as shared spans"
    assert reading.report.dropped == {told: 2}
    assert found[0].calls[0].recorded == Recorded(estimated=("prompt_tokens",))


def test_tools_calls_and_pictures(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    ((session,), reading) = opened(
        tmp_path,
        talk(
            "s", turn("hi there", tools=tools), turn(asked, {"role": "user", "content": ["a b", picture]}, tools=tools)
        ),
    )
    a, b = session.calls
    size = len(json.dumps(tools))
    assert a.fresh == (Part("definition", -(-size // 4), "tools"), Part("user", 2))
    assert [part.kind for part in b.fresh] == ["answer", "user"] and b.fresh[1].tokens == 2
    assert reading.report.dropped == {
        "pieces of messages that are no text": 1,
        "tool definitions behind the first turn of a conversation": 1,
    }


def test_an_answer_without_a_bound_is_estimated(tmp_path: Path) -> None:
    line = talk("s", {"messages": [said("a")]})
    ((session,), reading) = opened(tmp_path, line)
    assert session.calls[0].output_tokens == 256
    assert session.calls[0].recorded == Recorded(estimated=("prompt_tokens", "output_tokens"))
    assert reading.report.inferred == {"answers without max_tokens, taken to be 256 tokens": 1}


def test_the_sample_holds_no_text(tmp_path: Path) -> None:
    folder = save(tmp_path, samples()["aiperf-dag"](lambda field: f"SECRET {field}!", lambda field: f"name-{field}"))
    reading = open_trace([folder])
    found = list(reading)
    assert reading.format == "aiperf-dag" and [len(session.calls) for session in found] == [8, 2]
    assert b"SECRET" not in msgspec.json.encode([session.calls for session in found])


# ------------------------------------------------------------------------------------------------------ bad lines

GOOD = talk("good", turn("a"))
BAD: dict[str, tuple[list[Line], str, str]] = {
    "no turns": ([talk("s")], "line 1, turns", "at least one"),
    "no messages": ([talk("s", {"max_tokens": 3})], "turns[0].messages", "required"),
    "no message": ([talk("s", turn())], "turns[0].messages", "length >= 1"),
    "no role": ([talk("s", {"messages": [{"content": "x"}]})], "turns[0].messages[0].role", "required"),
    "bool for a bound": ([talk("s", turn("a", max_tokens=True))], "turns[0].max_tokens", "`int | null`"),
    "no bound": ([talk("s", turn("a", max_tokens=0))], "turns[0].max_tokens", "`int` >= 1"),
    "huge": ([talk("s", turn("a", max_tokens=10**18))], "turns[0].max_tokens", "`int` <="),
    "a delay back": ([talk("s", turn("a", delay=-1))], "turns[0].delay", "`float` >= 0"),
    "one name twice": ([GOOD, GOOD], "line 2, session_id", "another than on line 1"),
    "a fork that ends its parent": ([talk("s", turn("a", forks=["good"]), turn("b")), GOOD], "turns[0].forks", "last"),
    "a join that was": (
        [talk("s", turn("a", spawns=[{"children": ["good"], "join_at": 0}]), turn("b")), GOOD],
        "turns[0].spawns.join_at",
        "a turn behind 0, of 2",
    ),
    "a child twice": ([talk("s", turn("a", spawns=["good", "good"])), GOOD], "turns[0].spawns", "every child once"),
    "nowhere": ([talk("s", turn("a", forks=["gone"]))], "line 1", "the session_id of another line"),
    "round": ([talk("s", turn("a", forks=["t"])), talk("t", turn("b", forks=["s"]))], "line 1", "below itself"),
    "an asking orchestrator": ([{**talk("s", turn("a")), "orchestrator": True}], "line 1, turns", "none"),
    "an idle orchestrator": ([{"session_id": "s", "orchestrator": True}], "line 1, spawns", "at least one"),
    "another mode": ([talk("s", turn("a"), context_mode="x")], "context_mode", "deltas_with_responses"),
    "endless": (
        [*(talk(f"s{i}", *[turn("a", spawns=[f"s{i + 1}"])] * 2) for i in range(30)), talk("s30", turn("a"))],
        "line 1",
        "at most 20,000 calls",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    lines, where, expected = BAD[name]
    path = file(tmp_path, *lines)
    with pytest.raises(TraceError) as caught:
        list(open_trace([path], format="aiperf-dag"))
    assert where in str(caught.value.where) and str(path) in str(caught.value.where), str(caught.value)
    assert expected in str(caught.value.expected), str(caught.value)
    reading = open_trace([path], format="aiperf-dag", skip_bad=True)
    list(reading)
    assert len(reading.report.skipped) == 1


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    path = file(tmp_path, GOOD, talk("other", turn("b")))
    path.write_bytes(path.read_bytes()[:-20])
    reading = open_trace([path])
    assert [session.id for session in reading] == ["good"]
    assert reading.report.dropped == {"half-written last line": 1}


@pytest.mark.parametrize(
    "content",
    [
        b'{"session_id": "s", "turns": [{"text": "a multi_turn file"}]}\n',
        b'{"session_id": "s", "messages": [{"role": "user", "content": "x"}]}\n',
        b'{"trajectory_format": "x", "messages": [{"role": "user"}]}',
        b'{"turns": [{"messages": []}]}\n',
        b"[]",
        b"",
    ],
)
def test_other_files_are_not_taken_for_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.jsonl").write_bytes(content)
    assert sniff(tmp_path / "f.jsonl") != "aiperf-dag"


def test_a_first_line_longer_than_the_look_is_told_by_its_beginning(tmp_path: Path) -> None:
    ((session,), _) = opened(tmp_path, talk("s", turn("word " * 40_000)))
    assert session.calls[0].fresh_tokens == 50_000, "a blank at the end: no plain words, so 200,000 characters / 4"


# ---------------------------------------------------------------------------------------------------------- texts


def test_words_are_counted_as_they_are_made() -> None:
    assert [count(words(7, n)) for n in (0, 1, 2, 500)] == [0, 1, 2, 500]
    assert words(7, 500).startswith(words(7, 499) + " ")
    assert len({words(n, 1) for n in range(1 << 24, (1 << 24) + 4096)}) == 4096, "texts of a session part at once"
    assert [count(text) for text in ("", "a b", "a  b", " a", "A b", "é")] == [0, 2, 1, 1, 1, 1]


# -------------------------------------------------------------------------------------------------------- writing


def written(folder: Path, *given: Session) -> tuple[dict[str, Line], Report, list[int]]:
    """The conversations that sessions become, after AIPerf's loader had its say."""
    report = Report()
    out = write(folder / "dag.jsonl", Header(), given, report)
    return ({} if len(out) == len(given) else load(folder / "dag.jsonl")), report, out


def chain(*outputs: int, **fields: Any) -> list[Call]:
    calls = [Call("a0", outputs[0], fresh=(Part("definition", 6, "system"), Part("user", 3)), **fields)]
    for i, output in enumerate(outputs[1:], start=1):
        before = Edge(f"a{i - 1}", 0.5 * i, "tool")
        calls.append(Call(f"a{i}", output, (before,), inherit=Inherit(f"a{i - 1}"), fresh=(Part("tool", 2),), **fields))
    return calls


def test_a_chain_is_one_conversation_of_what_is_new(tmp_path: Path) -> None:
    found, report, _ = written(tmp_path, Session("s", tuple(chain(10, 20, 30, model="m"))))
    (line,) = found.values()
    assert set(line) == {"session_id", "turns"} and line["session_id"] == "s"
    assert [{key: t[key] for key in t if key != "messages"} for t in line["turns"]] == [
        {"model": "m", "max_tokens": 10},
        {"model": "m", "max_tokens": 20, "delay": 500.0},
        {"model": "m", "max_tokens": 30, "delay": 1000.0},
    ]
    said = [[(m["role"], len(m["content"].split())) for m in t["messages"]] for t in line["turns"]]
    assert said == [[("system", 6), ("user", 3)], [("user", 2)], [("user", 2)]]
    assert not report.inferred and not report.dropped


def test_subagents_are_spawned_and_joined_and_forks_of_the_context_are_forks(tmp_path: Path) -> None:
    first, second = chain(10, 20)
    calls = (
        first,
        Call("b", 5, (Edge("a0", 1.0, "spawn"),), "Explore:1", spans=(Span("scaffold", 4),)),
        Call("c", 6, (Edge("a0", 0.0, "spawn"),), "fork:1", inherit=Inherit("a0"), fresh=(Part("user", 1),)),
        replace(second, after=(Edge("a0", 0.25, "tool"), Edge("b", 0.25, "tool"))),
    )
    found, _, _ = written(tmp_path, Session("s", calls))
    assert list(found) == ["s", "s/1", "s/2"]
    first_turn = found["s"]["turns"][0]
    assert first_turn["spawns"] == ["s/1"] and first_turn["forks"] == [{"child": "s/2", "background": True}]
    assert found["s/1"]["turns"][0]["delay"] == 1000.0
    assert found["s/1"]["turns"][0]["messages"][0]["role"] == "system"
    assert found["s"]["turns"][1]["delay"] == 250.0


def test_a_late_join_says_where(tmp_path: Path) -> None:
    calls = chain(10, 20, 30, 40)
    calls.insert(1, Call("b", 5, (Edge("a0", 0.0, "spawn"),), "Explore:1", fresh=(Part("user", 1),)))
    calls[-1] = replace(calls[-1], after=(Edge("a2", 2.0), Edge("b", 2.0)))
    found, _, _ = written(tmp_path, Session("s", tuple(calls)))
    assert found["s"]["turns"][0]["spawns"] == [{"children": ["s/1"], "join_at": 3}]


def test_an_unjoined_subagent_lets_its_parent_go_on_as_a_fork(tmp_path: Path) -> None:
    calls = chain(10, 20, 30)
    calls.insert(1, Call("b", 5, (Edge("a0", 0.0, "spawn"),), "Explore:1", fresh=(Part("user", 1),)))
    found, _, out = written(tmp_path, Session("s", tuple(calls)))
    assert out == []
    assert [len(line["turns"]) for line in found.values()] == [1, 1, 2]
    assert found["s"]["turns"][0]["spawns"] == ["s/1"] and found["s"]["turns"][0]["forks"] == ["s/2"]
    (session,) = open_trace([tmp_path / "dag.jsonl"])
    assert sorted(call.agent for call in session.calls) == ["main", "main", "main", "spawn:1"]


def test_a_dropped_answer_makes_answers_texts_of_the_file(tmp_path: Path) -> None:
    calls = chain(10, 20, 30)
    calls[2] = replace(calls[2], inherit=Inherit("a1", 9 + 10 + 2))
    found, report, _ = written(tmp_path, Session("s", tuple(calls)))
    assert found["s"]["context_mode"] == "deltas_with_responses"
    roles = [[(m["role"], len(m["content"].split())) for m in t["messages"]] for t in found["s"]["turns"]]
    assert roles[1:] == [[("assistant", 10), ("user", 2)], [("user", 2)]]
    assert list(report.inferred.values()) == [1]


def test_a_system_message_comes_first_or_never(tmp_path: Path) -> None:
    """Also behind a prompt of no text, of which nothing stands before the next turn. `written` asks the loader."""
    calls = chain(10, 20, 30)
    calls[2] = replace(calls[2], inherit=Inherit("a1", 9 + 10 + 2))
    calls += [Call("b0", 5), Call("b1", 6, (Edge("b0"),), fresh=(Part("definition", 4, "system"),))]
    found, report, _ = written(tmp_path, Session("s", tuple(calls)))
    assert any("answers of their own" in sentence for sentence in report.inferred)
    roles = [[[m["role"] for m in turn["messages"]] for turn in line["turns"]] for line in found.values()]
    assert roles == [[["system", "user"], ["assistant", "user"], ["user"]], [["user"], ["user"]]]


def test_a_compaction_goes_on_in_a_conversation_of_its_own(tmp_path: Path) -> None:
    calls = chain(10, 20, 30)
    calls[2] = replace(calls[2], inherit=Inherit("a1", 6))
    found, report, _ = written(tmp_path, Session("s", tuple(calls)))
    assert [len(line["turns"]) for line in found.values()] == [2, 1] and not report.inferred
    assert found["s"]["turns"][1]["spawns"] == ["s/1"]
    assert found["s/1"]["turns"][0]["messages"][0] == found["s"]["turns"][0]["messages"][0], "the scaffold is shared"
    (session,) = open_trace([tmp_path / "dag.jsonl"])
    assert {call.agent for call in session.calls} == {"main"}
    assert shared(session)[30, 20] == 6


def test_a_join_that_forgets_needs_whole_prompts(tmp_path: Path) -> None:
    calls = chain(10, 20, 30)
    calls.insert(2, Call("b", 5, (Edge("a1", 0.0, "spawn"),), "Explore:1", fresh=(Part("user", 1),)))
    calls[3] = replace(calls[3], after=(Edge("a1", 2.0), Edge("b", 2.0)), inherit=Inherit("a1", 7))
    session = Session("s", tuple(calls))
    found, _, out = written(tmp_path, session)
    assert out == [] and found["s"]["context_mode"] == "message_array_with_responses"
    (again,) = open_trace([tmp_path / "dag.jsonl"])
    assert sizes(again) == sizes(session) and waits(again) == waits(session)


def test_kept_texts_are_written_and_cut_where_the_context_was(tmp_path: Path) -> None:
    first, second = chain(4, 5)
    first = replace(first, fresh=(Part("user", 10, text="0123456789" * 4),), recorded=Recorded(answer="An answer."))
    second = replace(second, inherit=Inherit("a0", 5), fresh=(Part("tool", 2, text="Results"),))
    third = replace(second, id="a2", after=(Edge("a1"),), inherit=Inherit("a0", 14))
    found, _, _ = written(tmp_path, Session("s", (first, second, third)))
    texts = [[m["content"] for m in line["turns"][0]["messages"]] for line in found.values()]
    assert texts == [
        ["0123456789" * 4],
        ["01234567890123456789", "Results"],
        ["0123456789" * 4, "An answer.", "Results"],
    ]


ROOT = Call("a", 5, fresh=(Part("user", 1),))
UNFIT = {
    "a subagent that is waited for twice": [
        ROOT,
        Call("b", 5, (Edge("a"),), "x:1", fresh=(Part("user", 1),)),
        Call("c", 5, (Edge("a"), Edge("b")), inherit=Inherit("a")),
        Call("d", 5, (Edge("c"), Edge("b")), inherit=Inherit("c")),
    ],
    "a join of roots": [ROOT, replace(ROOT, id="b"), Call("c", 5, (Edge("a"), Edge("b")), inherit=Inherit("a"))],
    "no model reads so much": [Call("a", 5, fresh=(Part("user", (1 << 24) + 1),))],
}


@pytest.mark.parametrize("name", UNFIT)
def test_sessions_of_other_shapes_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    good = Session("good", (ROOT,))
    found, report, out = written(tmp_path, good, Session("bad", tuple(UNFIT[name])))
    assert list(found) == ["good"] and out == [1]
    assert list(report.dropped.values()) == [1]


def test_names_are_never_taken_twice(tmp_path: Path) -> None:
    calls = (*chain(10), Call("b", 5, (Edge("a0"),), fresh=(Part("user", 1),)))
    found, report, _ = written(tmp_path, Session("s", calls), Session("s/1", calls), Session("", calls))
    assert list(found) == ["s", "s/1", "s/1#1", "s/1#1/1", "session", "session/1"]
    assert report.inferred == {"sessions under another id: theirs was taken or empty": 2}


def lcp(a: list[Any], b: list[Any]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@settings(max_examples=40, deadline=None)
@given(st.lists(sessions(max_calls=7, max_tokens=40), min_size=1, max_size=2))
def test_what_goes_over_the_wire_is_what_the_session_says(
    tmp_path_factory: pytest.TempPathFactory, given: list[Session]
) -> None:
    """Requests, waits and the words that any two prompts share, by AIPerf's rules and not by our reader."""
    given = [told_apart(replace(session, id=f"s{place}")) for place, session in enumerate(given)]
    folder = tmp_path_factory.mktemp("aiperf")
    found, report, out = written(folder, *given)
    if not found:
        return
    runs = replay(found)
    kept = [(place, session) for place, session in enumerate(given) if place not in out]
    assert list(runs) == [session.id for _, session in kept]
    sent: list[tuple[Request, Any]] = []
    for place, session in kept:
        prompts = {call.output_tokens: (call, prompt) for call, prompt in planned(session, place)}
        requests = {request.output: request for request in runs[session.id]}
        assert sorted(requests) == sorted(prompts)
        if not any(sentence.startswith("joins") for sentence in report.inferred):
            name = {request.name: request.output for request in requests.values()}
            after = {r.output: {name[n]: wait for n, wait in r.after.items()} for r in requests.values()}
            assert after == waits(session)
        for output, (call, prompt) in prompts.items():
            request = requests[output]
            assert request.model == call.model
            assert len(request.words()) == prompt.tokens
            sent.append((request, prompt.key))
    for i, (one, key) in enumerate(sent):
        for other, theirs in sent[:i]:
            same = lcp(one.words(), other.words())
            assert common(key, theirs) <= same <= common(key, theirs) + 1, "a word may be the same by chance"
    _read_back(folder / "dag.jsonl", runs)


def _read_back(path: Path, runs: dict[str, list[Request]]) -> None:
    """Our reader finds the requests that AIPerf would send, and shares what whole messages share."""
    for session in open_trace([path]):
        requests = runs[session.id]
        assert sizes(session) == {request.output: len(request.words()) for request in requests}
        name = {request.name: request.output for request in requests}
        after = {r.output: {name[n]: wait for n, wait in r.after.items()} for r in requests}
        assert waits(session) == after
        told = shared(session)
        messages = {r.output: r.messages for r in requests}
        for (one, other), tokens in told.items():
            same = lcp(messages[one], messages[other])
            live = sum(int(t.rsplit(" ", 1)[1]) for role, t in messages[one][:same] if role == "live")
            said = sum(len(text.split()) for role, text in messages[one][:same] if role != "live")
            assert tokens == live + said


# ------------------------------------------------------------------------------------------------ the real traces


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("source", "held", "calls"),
    [
        ("claude-code", 4, 238),
        ("codex", 2, 109),
        ("h100-vllm/workload_a_linear.jsonl", 30, 150),
        ("weka/trace_0291.json", 1, None),
    ],
)
def test_real_traces_are_held_whole(tmp_path: Path, source: str, held: int, calls: int | None) -> None:
    """Every prompt and every answer of them has its size again, and the loader takes the file."""
    before = list(open_trace([DATA / source]))
    found, _, out = written(tmp_path, *before)
    assert out == [] and found
    after = list(open_trace([tmp_path / "dag.jsonl"]))
    assert len(after) == held
    assert calls is None or sum(len(session.calls) for session in after) == calls
    for one, other in zip(before, after, strict=True):
        mine, theirs = ([(p.tokens, c.answer_tokens) for c, p in planned(session)] for session in (one, other))
        assert sorted(mine) == sorted(theirs)
