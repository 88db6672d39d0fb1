"""The reader of the published dag.json: waits from stamps, shares of a prompt, faults of graphs, published figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from openclawfiles import BEGIN, REAL, Row, graph, link, node, on_time

from workloom.errors import TraceError
from workloom.session import Call, Inherit, Session, Span, children, prompt_tokens, validate
from workloom.traces import READERS, Reading, open_trace


def read(folder: Path, document: Any, **options: Any) -> tuple[list[Session], Reading]:
    path = folder / "dag.json"
    path.write_text(json.dumps(document))
    reading = open_trace([path], **options)
    sessions = list(reading)
    for session in sessions:
        validate(session)
        on_time(session)
    return sessions, reading


def edges(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


def parts(call: Call) -> list[tuple[str, int, str | None]]:
    return [(part.kind, part.tokens, part.from_call) for part in call.fresh]


def _family() -> Row:
    """A spawns B, goes on, stops; B's result comes back."""
    return graph(
        [
            node("b0", 3.0, 5.0, 90, session="B", trigger="user", new={"from_user_input": 20, "from_injected": 70}),
            node("a0", 0.0, 2.0, 100, 20, cached=64, trigger="user",
                 new={"from_user_input": 30, "from_injected": 70}),
            node("a1", 2.5, 4.0, 131, 10, new={"from_tool_results": 12, "from_previous_assistant": 9}),
            node("b1", 6.0, 9.0, 115, stop_reason="stop", session="B", new={"from_tool_results": 15}),
            node("a2", 9.5, 10.0, 200, 5, trigger="subagent_result", stop_reason="stop",
                 new={"from_injected": 40, "from_tool_results": 19}),
            node("a3", 70.0, 71.0, 210, 0, trigger="user", stop_reason="aborted", new={"from_user_input": 5}),
        ],
        [
            link("A:a0", "A:a1"), link("A:a1", "A:a2"), link("A:a0", "B:b0", "subagent_spawn"), link("B:b0", "B:b1"),
            link("B:b1", "A:a2", "subagent_result"), link("A:a2", "A:a3"), link("A:a2", "A:a3"),
        ],
    )  # fmt: skip


def test_one_session_of_all_that_were_spawned(tmp_path: Path) -> None:
    (session,), reading = read(tmp_path, _family())
    calls = {call.id: call for call in session.calls}
    assert (session.id, session.start_s, reading.format) == ("A", BEGIN.timestamp(), "openclaw-dag")
    assert [(call.id, call.agent) for call in session.calls] == [
        ("c0", "main"), ("c1", "main"), ("a1.0", "subagent:1"), ("a1.1", "subagent:1"), ("c2", "main"), ("c3", "main"),
    ]  # fmt: skip
    assert {name: edges(call) for name, call in calls.items()} == {
        "c0": [],
        "c1": [("c0", 0.5, "tool")],
        "a1.0": [("c0", 1.0, "spawn")],
        "a1.1": [("a1.0", 1.0, "tool")],
        "c2": [("c1", 0.5, "orchestration"), ("a1.1", 0.5, "orchestration")],
        "c3": [("c2", 60.0, "human")],
    }
    assert list(prompt_tokens(session).values()) == [100, 131, 90, 115, 200, 210]
    assert calls["c0"].spans == (Span("scaffold", 64),)
    assert parts(calls["c0"]) == [("definition", 6, None), ("user", 30, None)]
    assert calls["c1"].inherit == Inherit("c0") and parts(calls["c1"]) == [("tool", 11, None)], "no previous answer"
    assert parts(calls["c2"]) == [("tool", 19, None), ("report", 40, "a1.1")]
    recorded = calls["c3"].recorded
    assert recorded is not None and (recorded.start_s, recorded.status) == (70.0, "aborted")


def test_a_shorter_prompt_shares_what_cannot_have_changed(tmp_path: Path) -> None:
    document = graph(
        [
            node("0", 0.0, 1.0, 100, 20, trigger="user", new={"from_user_input": 30, "from_injected": 70}),
            node("1", 2.0, 3.0, 500, 90, new={"from_tool_results": 300}),
            node("2", 4.0, 5.0, 510, 10, trigger="user", new={"from_user_input": 8}),
            node("3", 6.0, 7.0, 400, 10, cached=64, new={"from_tool_results": 12}),
        ],
        [link("A:0", "A:1"), link("A:1", "A:2"), link("A:2", "A:3")],
    )
    (session,), reading = read(tmp_path, document)
    assert [call.inherit for call in session.calls] == [None, Inherit("c0"), Inherit("c1", 500), Inherit("c2", 70)]
    assert parts(session.calls[2]) == [("user", 10, None)], "without the answer, by the first rule that fits"
    assert parts(session.calls[3]) == [("injected", 318, None), ("tool", 12, None)], "the scaffold is 70"
    assert reading.report.inferred["prompts shorter than the one before for no reason that is told"] == 1


def test_a_failed_call_is_not_continued(tmp_path: Path) -> None:
    document = graph(
        [
            node("0", 0.0, 1.0, 100, 20, trigger="user"),
            node("1", 2.0, 3.0, 0, 0, stop_reason="error"),
            node("2", 4.0, 5.0, 130, 10, new={"from_tool_results": 8}),
        ],
        [link("A:0", "A:1"), link("A:1", "A:2")],
    )
    (session,), _ = read(tmp_path, document)
    assert session.calls[2].inherit == Inherit("c0") and edges(session.calls[2]) == [("c1", 1.0, "tool")]


def test_unconnected_parts_are_sessions_of_their_own(tmp_path: Path) -> None:
    document = graph([node("0", 5.0, 6.0, 100, session="B"), node("0", 0.0, 1.0, 100)], [])
    document["sessions"]["C"] = {"session_key": "agent:C", "num_nodes": 0, "spawned_by": None}
    sessions, reading = read(tmp_path, document)
    assert [(session.id, len(session.calls)) for session in sessions] == [("A", 1), ("B", 1)]
    assert [session.start_s for session in sessions] == [BEGIN.timestamp(), BEGIN.timestamp() + 5]
    assert reading.report.dropped == {"sessions of the document without a call": 1}


def test_a_call_that_nothing_holds_back_is_said(tmp_path: Path) -> None:
    document = graph(
        [node("0", 0.0, 1.0, 100), node("0", 5.0, 6.0, 100, session="B"), node("1", 9.0, 10.0, 120)],
        [link("A:0", "A:1"), link("B:0", "A:1", "subagent_result")],
    )
    path = tmp_path / "dag.json"
    path.write_text(json.dumps(document))
    reading = open_trace([path])
    list(reading)
    said = "calls that began later than their session and have no edge to say why: nothing holds them back"
    assert reading.report.inferred[said] == 1


# -------------------------------------------------------------------------------------------------------- bad files


def _set(*path: str | int, to: Any) -> Callable[[Row], None]:
    def change(document: Row) -> None:
        at: Any = document
        for step in path[:-1]:
            at = at[step]
        if to is _set:
            del at[path[-1]]
        else:
            at[path[-1]] = to

    return change


BAD = {
    "negative": (_set("nodes", 1, "usage", "input", to=-1), "nodes[1].usage.input", "`int` >= 0", "-1"),
    "text": (_set("nodes", 1, "usage", "output", to="x"), "nodes[1].usage.output", "`int`", "x"),
    "huge": (_set("nodes", 0, "new_tokens", "other", to=10**18), "nodes[0].new_tokens.other", "<=", "10000"),
    "no usage": (_set("nodes", 2, "usage", to=_set), "nodes[2].usage", "required", "only"),
    "no time": (_set("nodes", 2, "timestamp_dispatched", to="x"), "nodes[2].timestamp_dispatched", "RFC3339", "x"),
    "unknown end": (_set("edges", 1, "to", to="zz"), "edges[1].to", "the id of a node", "zz"),
    "unknown start": (_set("edges", 1, "from", to="zz"), "edges[1].from", "the id of a node", "zz"),
    "one id": (_set("nodes", 1, "id", to="B:b0"), "nodes[1].id", "unique", "B:b0"),
    "circle": (_set("edges", 0, to=link("A:a3", "A:a1")), "edges", "without circles", "a circle"),
    "itself": (_set("edges", 2, to=link("B:b0", "B:b0")), "edges", "without circles", "a circle"),
    "two histories": (_set("edges", 4, "is_history_parent", to=True), "is_history_parent", "one history", "B:b1"),
    "no nodes": (_set("nodes", to=[]), "nodes", "at least one", "none"),
    "nodes missing": (_set("nodes", to=_set), "nodes", "required", "only"),
    "edges": (_set("edges", to={}), "edges", "`array`", "{}"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_graph_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    change, field, expected, found = BAD[name]
    document = _family()
    change(document)
    with pytest.raises(TraceError) as caught:
        read(tmp_path, document, format="openclaw-dag")
    error = caught.value
    assert error.where is not None and error.where.startswith(f"{tmp_path}") and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    sessions, reading = read(tmp_path, document, format="openclaw-dag", skip_bad=True)
    assert not sessions and len(reading.report.skipped) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"nodes": [' * 3000])
def test_bytes_that_are_no_document_are_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dag.json"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"dag\.json"):
        list(open_trace([path], format="openclaw-dag"))


def test_only_this_reader_knows_its_files() -> None:
    data = json.dumps(_family()).encode()
    assert [name for name, reader in READERS.items() if reader.sniff(data)] == ["openclaw-dag"]
    for other in (b"", b"{", b'{"nodes": [1]}', b'{"edges": {}}', b'{"a": {"timestamp_dispatched": 1}}'):
        assert not READERS["openclaw-dag"].sniff(other)


# --------------------------------------------------------------------------------------------------- the real files


def real(name: str) -> tuple[Session, Reading, Row]:
    path = REAL / name
    if not path.exists():
        pytest.skip("the OpenClaw samples of ../shared/data are not here")
    document = json.loads(path.read_bytes())
    reading = open_trace([path])
    (session,) = reading
    validate(session)
    on_time(session)
    assert len(session.calls) == len(document["nodes"])
    prompts = prompt_tokens(session)
    told = sorted(
        (row["usage"]["input"] + row["usage"]["cache_read"], row["usage"]["output"]) for row in document["nodes"]
    )
    assert sorted((prompts[call.id], call.output_tokens) for call in session.calls) == told
    return session, reading, document


def test_interp_dag_has_the_published_figures() -> None:
    session, reading, document = real("interp-dag.json")
    assert len(session.calls) == 129, "answered calls: the aborted one of the transcript is not in the document"
    assert median(row["new_tokens"]["total"] for row in document["nodes"]) == 259, "fresh: the answer before with it"
    assert median(call.output_tokens for call in session.calls) == 211
    assert any(
        said
        == "medians over 129 calls: 259 by the document's new_tokens, which count the answer before; 47 without it;"
        " 54 fresh tokens as used here (what the prompt does not inherit, by the provider's counts); 211 output tokens"
        for said in reading.report.assumptions
    )


def test_interp_dag_is_the_transcript_beside_it() -> None:
    """Calls, times and tokens are the same but for the aborted call; parts differ, they are estimates of two."""
    dag, _, _ = real("interp-dag.json")
    (transcript,) = open_trace([REAL / "interp-session.jsonl"])
    answered = transcript.calls[:-1]
    assert [(call.id, call.after, call.output_tokens, call.recorded) for call in dag.calls] == [
        (call.id, call.after, call.output_tokens, call.recorded) for call in answered
    ]
    assert grown(dag.calls) == grown(answered)


def grown(calls: Sequence[Call]) -> list[int]:
    """Fresh tokens of the calls that continue all of the one before."""
    return [call.fresh_tokens for call in calls if call.inherit is not None and call.inherit.tokens is None]


def test_branching_dag_has_the_published_figures() -> None:
    session, reading, document = real("branching-dag.json")
    assert len(session.calls) == 575
    assert len(document["sessions"]) == 35, "as the document lists them, one of which has no call"
    assert len({call.agent for call in session.calls}) == 34
    assert reading.report.dropped == {"sessions of the document without a call": 1}
    depth: dict[str, int] = {}
    for call in session.calls:
        depth[call.id] = 1 + max((depth[edge.call] for edge in call.after), default=0)
    assert max(depth.values()) == 44, "deep: calls on the longest path"
    assert max(Counter(depth.values()).values()) == 25, "wide: calls at one depth"
    assert max(len(call.after) for call in session.calls) == 2, "fan-in"
    assert max(map(len, children(session).values())) == 2, "fan-out"
    uncached = sum(prompt_tokens(session).values()) - sum(
        call.recorded.cached_tokens or 0 for call in session.calls if call.recorded
    )
    assert uncached == 3_234_884, "3.2 M input: what was not read from the provider's cache"
    assert sum(call.output_tokens for call in session.calls) == 151_705, "150k output"
    gaps = Counter(edge.gap for call in session.calls for edge in call.after)
    assert gaps == {"tool": 539, "spawn": 33, "orchestration": 5}


def test_calls_that_wait_for_subagents_are_due_by_their_stamps_not_by_wait_after_ready() -> None:
    """One call waited 720 ms after its history and 92 s after its subagent: the document tells the first only."""
    session, _, document = real("branching-dag.json")
    joins = [call for call in session.calls if len(call.after) == 2]
    assert sorted(tuple(edge.wait_s for edge in call.after) for call in joins) == [
        (0.312, 0.312), (0.72, 0.72), (2.214, 2.214),
    ]  # fmt: skip
    assert [part.kind for call in joins for part in call.fresh if part.from_call] == ["report"] * 3
    roots = [row for row in document["nodes"] if row["wait_after_ready_ms"] is None]
    spawned = [edge.wait_s for call in session.calls for edge in call.after if edge.gap == "spawn"]
    assert len(roots) == 34 and len(spawned) == 33 and min(spawned) > 0, "spawned sessions have a wait here"
