"""The WEKA reader: edges, waits, sharing and instants of both dialects, and one error for every malformed file."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wekafiles import BLOCK, REAL, Row, bare, document, marker, request, save

from workloom.errors import TraceError
from workloom.prefix import common
from workloom.prompt import planned
from workloom.session import Call, Inherit, Session, validate
from workloom.traces import Reading, open_trace

Write = Callable[..., Path]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., dict[str, Call]]:
    """Read one hand-made file; its calls by id."""

    def load(requests: list[Row], **fields: Any) -> dict[str, Call]:
        path = save(tmp_path / "t.json", document(requests, **fields))
        (session,) = open_trace([path])
        check(session, [row for row in flat(requests)])
        return {call.id: call for call in session.calls}

    return load


def flat(requests: list[Row]) -> list[Row]:
    return [row for entry in requests for row in entry.get("requests", [entry])]


def lcp(a: list[int], b: list[int]) -> int:
    same = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        same += 1
    return same


def check(session: Session, rows: list[Row], block: int = BLOCK) -> None:
    """The session is valid, has the file's tokens, and every two prompts share exactly the blocks the hashes say."""
    validate(session)
    prompts = planned(session)
    assert [(p.tokens, call.output_tokens) for call, p in prompts] == [(row["in"], row["out"]) for row in rows]
    hashes = [row["hash_ids"][: row["in"] // block] for row in rows]
    for i, (_, mine) in enumerate(prompts):
        for j in range(i):
            assert common(mine.key, prompts[j][1].key) // block == lcp(hashes[i], hashes[j]), (i, j)


def edges(call: Call) -> list[tuple[str, float, str]]:
    return [(edge.call, edge.wait_s, edge.gap) for edge in call.after]


# ----------------------------------------------------------------------------------------------------- one agent


def test_a_chain_waits_think_time_and_inherits_prompt_and_answer(load: Callable[..., dict[str, Call]]) -> None:
    calls = load(
        [
            request(0, [1, 2], out=3, extra=1, input_types=["text"], think_time=0.0),
            request(3, [1, 2, 3, 4], out=5),
            request(20, [1, 2, 3, 4, 5, 6], out=0, input_types=["text"], think_time=16.0, type="s", ttft=0.25),
        ]
    )
    assert [call.agent for call in calls.values()] == ["main"] * 3
    assert edges(calls["r0"]) == []
    assert edges(calls["r1"]) == [("r0", 2.0, "tool")]
    assert edges(calls["r2"]) == [("r1", 16.0, "human")]
    assert calls["r1"].inherit == Inherit("r0")  # 16 >= 9 + 3
    assert calls["r2"].inherit == Inherit("r1")
    assert [(part.kind, part.tokens) for part in calls["r1"].fresh] == [("tool", 16 - 9 - 3)]
    assert calls["r2"].output_tokens == 0
    stamps = calls["r2"].recorded
    assert stamps is not None
    assert (stamps.start_s, stamps.first_s, stamps.end_s, stamps.streaming) == (20.0, 20.25, 21.0, True)


def test_a_prompt_that_cannot_hold_the_answer_inherits_the_prompt_only(load: Callable[..., dict[str, Call]]) -> None:
    calls = load([request(0, [1, 2], out=50, extra=3), request(3, [1, 2, 3])])
    assert calls["r1"].inherit == Inherit("r0", 11)


def test_shorter_prompts_keep_full_blocks_and_resets_keep_nothing(load: Callable[..., dict[str, Call]]) -> None:
    calls = load(
        [
            request(0, [1, 2, 3], extra=2),
            request(3, [1, 2, 3], extra=1),  # shorter by a token: no part of the unhashed tail
            request(6, [1, 2, 9, 8, 7]),  # history edited
            request(9, [30, 31]),  # reset
            request(12, [1, 2, 9, 5]),  # back to what an earlier ancestor had
        ]
    )
    assert calls["r1"].inherit == Inherit("r0", 12)
    assert calls["r2"].inherit == Inherit("r1", 8)
    assert calls["r3"].inherit is None
    assert calls["r4"].inherit == Inherit("r2", 12)
    assert not any(call.spans for call in calls.values())


def test_an_older_ancestor_that_shares_more_than_the_previous_call_is_inherited(
    load: Callable[..., dict[str, Call]],
) -> None:
    calls = load([request(0, [1, 2, 3, 4]), request(3, [1, 2]), request(6, [1, 2, 3, 4, 5])])
    assert calls["r2"].inherit == Inherit("r0", 16)


def test_the_scaffold_is_told_apart_where_it_fits(load: Callable[..., dict[str, Call]]) -> None:
    calls = load([request(0, [1, 2, 3], input_types=["text"])], tool_tokens=5, system_tokens=3)
    assert [(p.kind, p.tokens, p.name) for p in calls["r0"].fresh] == [
        ("definition", 5, "tools"),
        ("definition", 3, "system"),
        ("user", 4, None),
    ]
    assert [p.kind for p in load([request(0, [1])], tool_tokens=5, system_tokens=3)["r0"].fresh] == ["tool"]


def test_ends_without_api_time(load: Callable[..., dict[str, Call]]) -> None:
    calls = load(
        [
            request(0, [1], api_time=4.0),
            request(10, [1, 2], api_time=None, think_time=6.0),
            request(30, [1, 2, 3], api_time=None, think_time=17.0),  # told: the call before ended at 13
            request(40, [1, 2, 3, 4], api_time=None, think_time=36.0),  # counted from 4: it cannot say when r2 ended
            request(41, [1, 2, 3, 4, 5], api_time=None, think_time=None),  # r3 had one second at most
        ]
    )
    ends = {name: call.recorded.end_s for name, call in calls.items() if call.recorded}
    assert ends == {"r0": 4.0, "r1": 13.0, "r2": None, "r3": None, "r4": None}
    assert edges(calls["r2"]) == [("r1", 17.0, "tool")]
    assert edges(calls["r3"]) == [("r2", 6.0, "tool")], "30 + the median of 4 s, then 6 s to 40"
    assert edges(calls["r4"]) == [("r3", 0.0, "tool")]


# ------------------------------------------------------------------------------------------------------ subagents


def test_parallel_subagents_are_spawned_and_joined(load: Callable[..., dict[str, Call]]) -> None:
    calls = load(
        [
            request(0, [1, 2], api_time=5.0),
            marker(15.0, [request(0, [7]), request(3, [7, 8], think_time=2.0)], "a1", seconds=9.5),
            marker(25.5, [request(0, [7, 9])], "a2", seconds=20.0, subagent_type="Plan"),
            request(29, [1, 2, 3], think_time=24.0),
            request(33, [1, 2, 3, 4], think_time=3.0),
        ]
    )
    assert [calls[name].agent for name in ("r1.0", "r1.1", "r2.0")] == ["Explore:a1", "Explore:a1", "Plan:a2"]
    assert edges(calls["r1.0"]) == [("r0", 0.5, "spawn")]
    assert edges(calls["r1.1"]) == [("r1.0", 2.0, "tool")]
    assert edges(calls["r2.0"]) == [("r0", 0.5, "spawn")]
    left = 3.5  # think 24 less the span from 5 to 25.5
    closing = 15 - 9.5, 25.5 - 6.5  # from the end of their last calls until they were done
    waits = [left, left + closing[0], left + closing[1]]
    assert edges(calls["r3"]) == list(zip(("r0", "r1.1", "r2.0"), waits, ["tool"] * 3, strict=True))
    assert max(end + wait for end, wait in zip((5.0, 9.5, 6.5), waits, strict=True)) == 29.0, "as recorded"
    assert edges(calls["r4"]) == [("r3", 3.0, "tool")]
    starts = [call.recorded.start_s for call in calls.values() if call.recorded]
    assert starts == [0.0, 5.5, 8.5, 5.5, 29.0, 33.0]
    assert calls["r1.0"].inherit is None and calls["r2.0"].inherit is None
    assert calls["r1.0"].spans == calls["r2.0"].spans != ()


def test_a_join_never_waits_less_than_nothing(load: Callable[..., dict[str, Call]]) -> None:
    calls = load([request(0, [1]), marker(90, [request(0, [7])], seconds=88.0), request(91, [1, 2], think_time=80.0)])
    closing = 90.0 - 3.0
    assert edges(calls["r2"]) == [("r0", 0.0, "tool"), ("r1.0", closing, "tool")]


def test_asynchronous_subagents_are_not_joined(load: Callable[..., dict[str, Call]]) -> None:
    calls = load(
        [
            request(0, [1], api_time=5.0),
            marker(5.4, [request(0, [7]), request(60, [7, 8])], status="async_launched"),
            request(9, [1, 2], think_time=4.0),
        ]
    )
    assert edges(calls["r1.0"]) == [("r0", 0.4, "spawn")]
    assert edges(calls["r2"]) == [("r0", 4.0, "tool")]
    assert calls["r1.1"].recorded is not None and calls["r1.1"].recorded.start_s == 65.4


def test_markers_after_the_last_call_follow_a_human(load: Callable[..., dict[str, Call]]) -> None:
    calls = load([request(0, [1], api_time=2.0), marker(500, [request(0, [7])], seconds=100.0)])
    assert edges(calls["r1.0"]) == [("r0", 398.0, "human")]


def test_markers_before_the_first_call_are_roots(load: Callable[..., dict[str, Call]]) -> None:
    calls = load([marker(5, [request(0, [7])], seconds=5.0), request(6, [1]), marker(7, [], "a2", seconds=1.0)])
    assert edges(calls["r0.0"]) == []
    assert edges(calls["r1"]) == [("r0.0", 0.0, "tool")]


# -------------------------------------------------------------------------------------------------------- sharing


def test_a_subagent_that_shares_with_its_ancestor_inherits_it(load: Callable[..., dict[str, Call]]) -> None:
    calls = load([request(0, [1, 2, 3]), marker(9, [request(0, [1, 2, 8])], seconds=5), request(12, [1, 2, 3, 4])])
    assert calls["r1.0"].inherit == Inherit("r0", 8)
    assert calls["r2"].inherit == Inherit("r0")


def test_blocks_inherited_from_an_answer_become_a_span_when_a_stranger_has_them(
    load: Callable[..., dict[str, Call]],
) -> None:
    calls = load(
        [
            request(0, [1]),
            marker(9, [request(0, [7], out=8), request(2, [7, 8, 9, 10])], "a1", seconds=5),
            marker(9, [request(0, [7, 8, 9, 11])], "a2", seconds=5),
        ]
    )
    (first, second, stranger) = (calls[name] for name in ("r1.0", "r1.1", "r2.0"))
    assert [span.tokens for span in first.spans] == [4]
    assert second.inherit == Inherit("r1.0", 4), "not the answer, which now is a span"
    assert [span.tokens for span in second.spans] == [8]
    assert stranger.inherit is None
    assert stranger.spans == first.spans + second.spans


def test_a_prompt_shared_with_several_strangers(load: Callable[..., dict[str, Call]]) -> None:
    calls = load(
        [
            request(0, [1]),
            marker(9, [request(0, [7, 8]), request(2, [7, 8, 9])], "a1", seconds=5),
            marker(9, [request(0, [7, 20]), request(2, [7, 20, 21])], "a2", seconds=5),
            marker(9, [request(0, [7, 8, 9, 30]), request(2, [7, 20, 21, 31])], "a3", seconds=5),
        ]
    )
    assert sum(span.tokens for span in calls["r3.0"].spans) == 12
    assert calls["r3.1"].inherit == Inherit("r3.0", 4)
    assert sum(span.tokens for span in calls["r3.1"].spans) == 8


@st.composite
def files(draw: st.DrawFn) -> list[Row]:
    """Requests over few block ids, so that every way to share occurs; ids are not prefix-chained."""
    ids = st.integers(0, draw(st.integers(0, 3)))

    def rows(count: int) -> list[Row]:
        return [
            request(i, draw(st.lists(ids, max_size=7)), out=draw(st.integers(0, 9)), extra=draw(st.integers(0, 3)))
            for i in range(count)
        ]

    out = []
    for index in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 2)):
            out += rows(1)
        else:
            status = draw(st.sampled_from(("completed", "async_launched")))
            out.append(marker(9, rows(draw(st.integers(1, 3))), f"a{index}", seconds=4.0, status=status))
    return out


@settings(max_examples=150, deadline=None)
@given(files())
def test_every_two_prompts_share_what_the_hashes_say(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = save(tmp_path_factory.getbasetemp() / "random.json", document(rows))
    (session,) = open_trace([path])
    check(session, flat(rows))


# ------------------------------------------------------------------------------------------- the other dialect


def test_absolute_subagents_wait_by_instants(load: Callable[..., dict[str, Call]]) -> None:
    rows = [
        bare(request(100.0, [0, 1], api_time=2.5, think_time=None)),
        marker(103.0, [bare(request(103.0, [7])), bare(request(106.5, [7, 8], api_time=2.0))], seconds=5.5),
        bare(request(104.0, [40], api_time=0.5, think_time=0.0)),  # a side call while the subagent runs
        bare(request(110.0, [0, 1, 2], think_time=1.5)),
        marker(111.5, [bare(request(111.5, [9]))], "a2", seconds=1.0),
    ]
    calls = load(rows, totals=None)
    assert edges(calls["r1.0"]) == [("r0", 0.5, "spawn")]
    assert edges(calls["r1.1"]) == [("r1.0", 2.5, "tool")]
    assert edges(calls["r2"]) == [("r0", 1.5, "tool")]
    assert edges(calls["r3"]) == [("r2", 1.5, "tool"), ("r1.1", 1.5, "tool")]
    assert edges(calls["r4.0"]) == [("r3", 0.5, "human")]
    starts = [call.recorded.start_s for call in calls.values() if call.recorded]
    assert starts == [0.0, 3.0, 6.5, 4.0, 10.0, 11.5], "from the first call of the session"


def test_a_hash_of_a_last_block_that_is_not_full_is_dropped(tmp_path: Path) -> None:
    row = bare(request(0.5, [0, 1, 2], think_time=None))
    row["in"] -= 1
    content = document([row, bare(request(3.5, [0, 1, 5]))], totals=None)
    reading = open_trace([save(tmp_path / "t.json", content)])
    (session,) = reading
    assert session.calls[1].inherit == Inherit("r0", 11)
    assert sum(reading.report.dropped.values()) == 1
    assert reading.report.assumptions == ["a request without input_types answers a tool call"]


# ----------------------------------------------------------------------------------------------------- bad files


def _set(path: str, value: Any) -> Callable[[Row], Any]:
    def change(content: Row) -> Any:
        at: Any = content
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            at = at[step]
        if value is _set:
            del at[last]
        else:
            at[last] = value
        return content

    return change


BAD = {
    "in too small": (_set("requests.1.in", 3), "requests[1].in", "at least 8", "3"),
    "in too large": (_set("requests.1.in", 99), "requests[1].hash_ids", "24 ids", "2 ids"),
    "inside a subagent": (_set("requests.2.requests.0.in", 1), "requests[2].requests[0].in", "at least 4", "1"),
    "negative in": (_set("requests.0.in", -4), "requests[0].in", "`int` >= 0", "-4"),
    "negative out": (_set("requests.0.out", -1), "requests[0].out", "`int` >= 0", "-1"),
    "negative time": (_set("requests.1.t", -2.5), "requests[1].t", "`float` >= 0.0", "-2.5"),
    "negative think": (_set("requests.1.think_time", -1), "requests[1].think_time", "`float` >= 0.0", "-1"),
    "negative hash": (_set("requests.1.hash_ids.0", -1), "requests[1].hash_ids", "ids from 0", "-1"),
    "hash is text": (_set("requests.1.hash_ids.1", "x"), "requests[1].hash_ids", "an array of ids", "x"),
    "wrong type": (_set("requests.1.model", 5), "requests[1].model", "`str`", "5"),
    "null": (_set("requests.1.out", None), "requests[1].out", "`int`", "None"),
    "huge": (_set("requests.1.out", 10**30), "requests[1].out", "`int`", "1000"),
    "missing field": (_set("requests.1.out", _set), "requests[1].out", "required", "only"),
    "missing id": (_set("id", _set), "id", "required", "only"),
    "unknown entry": (_set("requests.1.type", "x"), "requests[1].type", "Invalid value", "x"),
    "requests is no list": (_set("requests", {}), "requests", "`array`", "{}"),
    "no requests": (_set("requests", []), "requests", "at least one", "none"),
    "two dialects": (_set("requests.3.requests.0.t", 30.0), "requests[3]", "all relative or all absolute", "30"),
    "no known dialect": (_set("requests.2.requests.0.t", 4.0), "requests[2].requests[0].t", "0 (kv-cache-tester)", "4"),
    "block size": (_set("block_size", 0), "block_size", "`int` >= 1", "0"),
    "a list": (lambda content: [content], "", "", ""),
}


def _good() -> Row:
    subs = [marker(t, [request(0, [9])], f"a{t}", seconds=3.0) for t in (9, 30)]
    return document([request(0, [1]), request(3, [1, 2]), *subs, request(40, [1, 2, 3])])


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_file_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    change, field, expected, found = BAD[name]
    path = save(tmp_path / "bad.json", change(_good()))
    with pytest.raises(TraceError) as caught:
        list(open_trace([path], format="weka"))
    error = caught.value
    assert error.where is not None and str(path) in error.where and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)


@pytest.mark.parametrize("content", [b"", b"  \n", b"{", b"\xff\xfe", b'{"block_size": 4, "id": "\xff"}', b"[" * 5000])
def test_bytes_that_are_no_json_are_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    for name in ("weka", None):
        with pytest.raises(TraceError, match=r"bad\.json"):
            list(open_trace([path], format=name))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_never_raise_anything_but_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(json.dumps(_good()).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"-", b"9"])
        )
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(content)
    try:
        sessions = list(open_trace([path], format="weka"))
    except TraceError as error:
        assert "damaged.json" in str(error)
    else:
        validate(sessions[0])


def test_skip_bad_counts_and_goes_on(tmp_path: Path) -> None:
    for name, content in {
        "a": {"block_size": 4, "requests": 3},
        "b": _good(),
        "c": document([request(0, [1], **{"in": 1})]),
        "d": document([request(0, [1])], "other"),
        "e": document([request(0, [1])], block_size=5),
    }.items():
        save(tmp_path / f"{name}.json", content)
    (tmp_path / "f.json").write_text("")
    with pytest.raises(TraceError):
        list(open_trace(str(tmp_path)))
    reading = open_trace(str(tmp_path), skip_bad=True)
    assert [session.id for session in reading] == ["trace_1", "other"]
    said = sorted(skipped.where.rsplit("/", 1)[-1] for skipped in reading.report.skipped)
    assert said == ["a.json, requests", "c.json, requests[0].in", "e.json, block_size"]
    assert reading.report.ignored == [str(tmp_path / "f.json")], "an empty file of a folder is no trace"
    assert "at least 4" in str(reading.report.skipped)


def test_duplicates_are_reported_with_both_names_and_kept(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        save(tmp_path / f"{name}.json", document([request(0, [len(name)], out=len(name) // 4)], name))
    reading = open_trace([tmp_path / "two.json", tmp_path / "one.json", tmp_path / "three.json"])
    assert [session.id for session in reading] == ["two", "one", "three"]
    assert [(double.session, double.same_as) for double in reading.report.duplicates] == [("one", "two")]


# ------------------------------------------------------------------------------------------------ the real files

real = pytest.mark.skipif(not REAL.is_dir(), reason="the 52 WEKA files of ../shared/data are not here")


@real
def test_real_prompts_share_what_their_hashes_say() -> None:
    """Pairs with a subagent or a span in them, and a sample of the rest, in every file."""
    reading = open_trace(str(REAL))
    for path, session in zip(reading.paths, reading, strict=True):
        rows = flat(json.loads(path.read_bytes())["requests"])
        validate(session)
        prompts = planned(session)
        assert [p.tokens for _, p in prompts] == [row["in"] for row in rows]
        odd = [call.agent != "main" or bool(call.spans) for call in session.calls]
        step = max(1, len(rows) ** 2 // 3000)
        pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
        for n, (i, j) in enumerate(pairs):
            if n % step == 0 or j == i - 1 or (odd[i] and n % 7 == 0):
                expected = lcp(rows[i]["hash_ids"], rows[j]["hash_ids"])
                assert common(prompts[i][1].key, prompts[j][1].key) // 64 == expected, (path.name, i, j)


@real
def test_the_real_report() -> None:
    reading: Reading = open_trace(str(REAL))
    sessions = list(reading)
    report = reading.report
    assert (report.sessions, report.calls, report.subagents, report.async_subagents) == (52, 4652, 26, 4)
    assert [(double.session, double.same_as) for double in report.duplicates] == [("trace_0420", "trace_0406")]
    assert report.zero_outputs == 5
    joins = [call for session in sessions for call in session.calls if len(call.after) > 1]
    joined = {edge.call for call in joins for edge in call.after if "." in edge.call}
    assert len(joined) == 26 - 4 - 2, "all but the asynchronous and those at the end of trace_0004"


def test_the_whole_folder_needs_twice_the_memory_of_its_largest_file() -> None:
    if not REAL.exists():
        pytest.skip("../shared/data/weka is not here: real samples do not come with the repository")
    files = sorted(REAL.glob("*.json"))
    reading = open_trace([REAL])
    list(open_trace(files[:1]))  # what is imported on the way is no memory of the trace
    gc.collect()
    tracemalloc.start()
    try:
        for _ in reading:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * max(path.stat().st_size for path in files)
