"""The Bailian reader: sessions are trees of chats, blocks are shared between all prompts as their hashes say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hashedrows import Row, check, prompts, save
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.errors import TraceError
from workloom.session import Call, Inherit, Session
from workloom.traces import open_trace, sniff

BLOCK = 16


def row(chat: int, parent: int, time_s: float, ids: list[int], out: int, *, extra: int = 0, **fields: Any) -> Row:
    """A request whose prompt is these blocks, the last one of only `extra` tokens if that is not 0."""
    tokens = len(ids) * BLOCK if not extra else (len(ids) - 1) * BLOCK + extra
    lengths = {"input_length": tokens, "output_length": out, "type": "text", "turn": 1}
    return {"chat_id": chat, "parent_chat_id": parent, "timestamp": time_s, **lengths, "hash_ids": ids, **fields}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[list[Row]], list[Session]]:
    """The sessions of a hand-made file, checked against its hashes."""

    def load(rows: list[Row]) -> list[Session]:
        path = save(tmp_path / "t.jsonl", rows)
        assert sniff(path) == "bailian"
        sessions = list(open_trace([path]))
        check(sessions, rows, BLOCK)
        return sessions

    return load


def parents(session: Session) -> list[list[str]]:
    return [[edge.call for edge in call.after] for call in session.calls]


def spans(call: Call) -> list[tuple[str, int, str]]:
    return [(span.name, span.tokens, span.scope) for span in call.spans]


def test_a_session_is_the_tree_below_a_root(load: Callable[[list[Row]], list[Session]]) -> None:
    a, b = load(
        [
            row(55, -1, 1.5, [7, 8], 20, extra=4, type="search"),
            row(60, -1, 2.0, [9], 21),
            row(159, 55, 61.114, [7, 10, 11, 12], 30, turn=2),
            row(160, 55, 70.0, [7, 13, 14, 15], 31, turn=2),
            row(161, 159, 80.0, [7, 10, 11, 12, 16, 17, 18], 32, turn=3),
        ]
    )
    assert (a.id, a.start_s, a.workflow, b.id, b.workflow) == ("55", 1.5, "search", "60", "text")
    assert parents(a) == [[], ["c0"], ["c0"], ["c1"]]
    assert [edge.wait_s for call in a.calls for edge in call.after] == [59.614, 68.5, 18.886]
    assert [call.inherit for call in a.calls] == [None, Inherit("c0"), Inherit("c0", 20), Inherit("c1")]
    assert not any(call.spans for call in a.calls)


def test_branches_hold_the_answer_they_share_and_siblings_the_prompt(
    load: Callable[[list[Row]], list[Session]],
) -> None:
    """c1 and c2 are one prompt asked twice (the last block is not full); c3 and c4 follow one answer of c2."""
    (session,) = load(
        [
            row(0, -1, 0, [1, 2], 16),
            row(1, 0, 10, [1, 2, 3, 4], 33, extra=5),
            row(2, 0, 20, [1, 2, 3, 4], 34, extra=5),
            row(3, 2, 30, [1, 2, 3, 5, 6, 7, 8], 1),
            row(4, 2, 40, [1, 2, 3, 5, 6, 9, 10], 2),
        ]
    )
    c1, c2, c3, c4 = session.calls[1:]
    tail = ("c1@3+", 5, "session")
    assert (c1.inherit, spans(c1), c1.fresh) == (Inherit("c0"), [tail], ())
    assert (c2.inherit, spans(c2), c2.fresh) == (Inherit("c0"), [tail], ())
    assert parents(session) == [[], ["c0"], ["c0"], ["c2"], ["c2"]]
    assert (c3.inherit, c4.inherit) == (Inherit("c2"), Inherit("c2")), "87 tokens: behind the 80 that both share"


def test_edited_history_and_other_sessions(load: Callable[[list[Row]], list[Session]]) -> None:
    a, b = load(
        [
            row(0, -1, 0, [1, 2, 3], 5),
            row(1, 0, 10, [1, 4, 5], 6),
            row(2, 1, 20, [9, 9], 7),
            row(3, -1, 30, [1, 4, 6], 8),
        ]
    )
    assert [call.inherit for call in a.calls] == [None, Inherit("c0", 16), None]
    assert [spans(call) for call in a.calls] == [[("b0", 16, "trace")], [("b3", 16, "trace")], []]
    assert spans(b.calls[0]) == [("b0", 16, "trace"), ("b3", 16, "trace")]
    assert parents(a) == [[], ["c0"], ["c1"]]


def test_lost_late_and_double_parents_are_said(tmp_path: Path) -> None:
    rows = [
        row(1, 99, 0, [1], 5),
        row(2, 3, 1, [2], 6),
        row(3, 3, 2, [3], 7),
        row(1, -1, 3, [4], 8),
        row(4, 1, 4, [1, 5], 9, turn=7),
    ]
    reading = open_trace([save(tmp_path / "t.jsonl", rows)])
    sessions = list(reading)
    assert [(session.id, len(session.calls)) for session in sessions] == [("1", 2), ("2", 1), ("3", 1), ("1#2", 1)]
    assert reading.report.inferred == {
        "rows whose chat_id an earlier row has: that one is the parent of others": 1,
        "rows whose parent is not in the file, read as first turns": 1,
        "rows whose parent does not stand before them, read as first turns": 2,
        "turn numbers that do not count on from the parent's, not used": 1,
    }
    assert reading.report.renamed == ["1 -> 1#2"]


def test_too_many_and_too_few_hashes_are_said(tmp_path: Path) -> None:
    rows = [row(0, -1, 0, [1, 2, 3], 5, input_length=30), row(1, -1, 0, [1, 2, 4], 6, input_length=90)]
    reading = open_trace([save(tmp_path / "t.jsonl", rows)])
    a, b = reading
    assert (spans(a.calls[0]), a.calls[0].fresh_tokens) == ([("b0", 16, "trace")], 14)
    assert (spans(b.calls[0]), b.calls[0].fresh_tokens) == ([("b0", 16, "trace")], 74)
    assert reading.report.dropped == {"hash ids of blocks behind the end of their prompt": 1}
    assert list(reading.report.inferred.values()) == [1]


@settings(max_examples=200, deadline=None)
@given(prompts(BLOCK), st.data())
def test_sessions_share_what_the_hashes_say(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    outputs = data.draw(st.lists(st.integers(1, 80), min_size=len(made), max_size=len(made), unique=True))
    rows = [
        row(chat, data.draw(st.integers(-1, max(-1, chat - 1))), chat, ids, output, input_length=tokens)
        for chat, ((tokens, ids), output) in enumerate(zip(made, outputs, strict=True))
    ]
    check(list(open_trace([save(tmp_path_factory.getbasetemp() / "b.jsonl", rows)], format="bailian")), rows, BLOCK)


BAD = {
    "no chat": ({"chat_id": ...}, "chat_id", "required", "only"),
    "chat is text": ({"chat_id": "x"}, "chat_id", "`int`", "x"),
    "huge parent": ({"parent_chat_id": 1 << 80}, "parent_chat_id", "", "1208925819614629174706176"),
    "far": ({"timestamp": 1e300}, "timestamp", "<= ", "1e+300"),
    "type is a number": ({"type": 5}, "type", "`str", "5"),
    "turn": ({"turn": -1}, "turn", "`int` >= 0", "-1"),
    "hash": ({"hash_ids": [None]}, "line 2, hash_ids, [0]", "`int`", "None"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    change, where, expected, found = BAD[name]
    good = row(1, -1, 0, [1], 5)
    bad = {key: value for key, value in (good | change).items() if value is not ...}
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (good, bad, row(2, 1, 3, [1, 2], 6))))
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line 2" in error.where and where in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert [len(session.calls) for session in reading] == [2] and len(reading.report.skipped) == 1
