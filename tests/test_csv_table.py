"""The flat call table: nothing of a session is lost in it, and sorting or editing it never spoils it silently."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import sessions, workload

from workloom.errors import TraceError
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span, validate
from workloom.traces import Report, open_trace, sniff
from workloom.traces.csv_table import COLUMNS, write

WEKA = Path("../shared/data/weka")


def saved(folder: Path, given: Iterable[Session], header: Header = Header()) -> tuple[Path, Report]:  # noqa: B008
    path, report = folder / "t.csv", Report()
    assert write(path, header, given, report) == [], "it holds every session"
    return path, report


def table(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


# ------------------------------------------------------------------------------------------------------- round trips


def test_what_it_looks_like(tmp_path: Path) -> None:
    first = Call(
        "c0", 120, (), "main", "m-4.5", None, (Span("tools", 900, "trace"), Span("own", 40)), (Part("user", 20),), 7,
        60, Recorded(0.0, 0.25, 2.0, 0, "ok", True, ("output_tokens",)),
    )  # fmt: skip
    part = Part("tool", 490, "read", 1.5)
    second = Call("c1", 80, (Edge("c0", 1.5, "tool"),), inherit=Inherit("c0"), fresh=(part, Part("user", 5)))
    third = Call("c2", 9, (Edge("c0"), Edge("c1", 2.0, "human")), "Plan:1", inherit=Inherit("c0", 4096 - 3196))
    path, _ = saved(tmp_path, [Session("s, 1", (first, second, third), 7.5, "me")], Header(common_clock=True))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [{name: cell for name, cell in row.items() if cell} for row in rows] == [
        {
            "session_id": "s, 1", "call_id": "c0", "agent": "main", "model": "m-4.5", "spans": "tools:900:trace own:40",
            "fresh": "user:20", "prompt_tokens": "960", "fresh_tokens": "20", "output_tokens": "120",
            "reasoning_tokens": "7", "stop_after": "60", "start_s": "0.0", "first_s": "0.25", "end_s": "2.0",
            "cached_tokens": "0", "status": "ok", "streaming": "true", "estimated": "output_tokens",
            "session_start_s": "7.5", "user": "me", "common_clock": "true",
        },
        {
            "session_id": "s, 1", "call_id": "c1", "agent": "main", "after": "c0:tool:1.5", "inherit": "c0",
            "fresh": "tool:490:read:1.5 user:5", "prompt_tokens": "1515", "fresh_tokens": "495", "output_tokens": "80",
            "reasoning_tokens": "0", "session_start_s": "7.5", "user": "me", "common_clock": "true",
        },
        {
            "session_id": "s, 1", "call_id": "c2", "agent": "Plan:1", "after": "c0:none:0.0 c1:human:2.0",
            "inherit": "c0:900", "prompt_tokens": "900", "fresh_tokens": "0", "output_tokens": "9",
            "reasoning_tokens": "0", "session_start_s": "7.5", "user": "me", "common_clock": "true",
        },
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(workload(), st.sampled_from((Header(), Header(block_tokens=64), Header(common_clock=True, source="csv"))))
def test_any_workload_survives(tmp_path_factory: pytest.TempPathFactory, given: list[Session], header: Header) -> None:
    path, report = saved(tmp_path_factory.mktemp("csv"), given, header)
    reading = open_trace([path])
    assert list(reading) == given
    assert reading.header == replace(header, source="csv")
    assert (report.dropped, report.inferred, reading.report.dropped, reading.report.inferred) == ({}, {}, {}, {})


@settings(max_examples=60, deadline=None)
@given(sessions(recorded=True, stop_after=True))
def test_any_session_survives(tmp_path_factory: pytest.TempPathFactory, session: Session) -> None:
    path, _ = saved(tmp_path_factory.mktemp("csv"), [session])
    assert list(open_trace([path])) == [session]


NASTY = (
    "",
    " ",
    "a b",
    "a,b",
    'a"b',
    '"',
    "a:b",
    "a\nb",
    "\r\n",
    "=1+1",
    "-x",
    "[",
    "{}",
    "null",
    "1",
    "\x00",
    "é—",
    "\u2028",
    "#1",
)
names = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
numbers = st.none() | st.floats(-1e9, 1e9)


@st.composite
def odd_sessions(draw: st.DrawFn) -> Session:
    """Any string in every field that holds one."""
    one, other = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    part = st.builds(
        Part,
        st.sampled_from(("user", "tool", "report")),
        st.integers(0, 1 << 40),
        st.none() | names,
        st.none() | st.floats(0, 1e9),
        st.just(None),
        st.none() | names,
    )
    stamps = st.builds(
        Recorded,
        numbers,
        numbers,
        numbers,
        st.none() | st.integers(0, 9),
        st.sampled_from(("ok", "error", "aborted")),
        st.none() | st.booleans(),
        st.lists(names, max_size=2).map(tuple),
        st.none() | names,
    )
    span = st.builds(Span, names, st.integers(0, 1 << 40), st.sampled_from(("trace", "session")))

    def call(name: str, after: tuple[Edge, ...] = (), inherit: Inherit | None = None, *parts: Part) -> Call:
        return Call(
            name,
            draw(st.integers(0, 1 << 40)),
            after,
            draw(names),
            draw(names),
            inherit,
            draw(st.lists(span, max_size=2).map(tuple)),
            (*draw(st.lists(part, max_size=2)), *parts),
            recorded=draw(st.none() | stamps),
        )

    edge = Edge(one, draw(st.floats(0, 1e9)), draw(st.sampled_from(("tool", "spawn", "none"))))
    inherit = draw(st.sampled_from((None, Inherit(one), Inherit(one, 0))))
    report = draw(st.sampled_from(((), (Part("report", 3, from_call=one),))))
    calls = (call(one), call(other, (edge,), inherit, *report))
    session = Session(
        draw(names), calls, draw(numbers), draw(st.none() | names), draw(st.none() | names), draw(st.none() | names)
    )
    validate(session)
    return session


@settings(max_examples=120, deadline=None)
@given(st.lists(odd_sessions(), min_size=1, max_size=3, unique_by=lambda session: session.id))
def test_every_string_survives(tmp_path_factory: pytest.TempPathFactory, given: list[Session]) -> None:
    path, report = saved(tmp_path_factory.mktemp("csv"), given)
    assert list(open_trace([path], text=True)) == given
    assert report.inferred == {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [len(row) for row in rows] == [len(COLUMNS)] * (1 + 2 * len(given)), "others read it as we do, a row a line"
    assert not any(cell[:1] in tuple("=+-@\t") for row in rows for cell in row if not _number(cell)), "no formulas"


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_texts_are_kept_only_when_asked_for(tmp_path: Path) -> None:
    call = Call("c0", 5, fresh=(Part("user", 3, text="please"),), recorded=Recorded(answer="no\nyes"))
    session = Session("s", (call,))
    path, _ = saved(tmp_path, [session])
    assert list(open_trace([path], text=True)) == [session]
    reading = open_trace([path])
    (without,) = reading
    assert without.calls == (replace(call, fresh=(Part("user", 3),), recorded=Recorded()),)
    assert reading.report.dropped == {"texts of parts and answers, which were not asked for": 2}


def test_sessions_of_one_id_are_told_apart(tmp_path: Path) -> None:
    session = Session("s", (Call("c0", 5, fresh=(Part("user", 3),)),))
    path, report = saved(tmp_path, [session, replace(session, id="s#2"), session, session])
    assert [s.id for s in open_trace([path])] == ["s", "s#2", "s#3", "s#4"]
    assert report.inferred == {"sessions under another id, since an earlier one has theirs": 2}


def test_what_is_not_held_is_told(tmp_path: Path) -> None:
    _, report = saved(tmp_path, [], Header(source="weka"))
    assert report.dropped == {"the source that the header names": 1}


@pytest.mark.skipif(not WEKA.is_dir(), reason="the 52 WEKA files of ../shared/data are not here")
def test_real_sessions_survive(tmp_path: Path) -> None:
    reading = open_trace(str(WEKA))
    given = list(reading)
    path, _ = saved(tmp_path, given, reading.header)
    back = open_trace([path])
    assert list(back) == given
    assert back.header.block_tokens == 64


# ------------------------------------------------------------------------------------------------- tables by hand


def test_a_table_by_hand_needs_few_columns(tmp_path: Path) -> None:
    """Also one that went through a spreadsheet: capitals, line ends, spare spaces, columns of its own."""
    text = (
        'Session_ID, call_id ,Output_Tokens,after,fresh,streaming,note,inherits\r\n'
        'a,x,5,,user:9,TRUE,"hello, you",\r\n'
        "a,y, 7 ,x x2:human,user:3  tool:4,,,\r\n"
        "a,x2,1.0,x:tool,,FALSE,,\r\n"
    )  # fmt: skip
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    reading = open_trace([path])
    (session,) = reading
    assert session.calls == (
        Call("x", 5, fresh=(Part("user", 9),), recorded=Recorded(streaming=True)),
        Call("x2", 1, (Edge("x", 0.0, "tool"),), recorded=Recorded(streaming=False)),
        Call("y", 7, (Edge("x"), Edge("x2", 0.0, "human")), fresh=(Part("user", 3), Part("tool", 4))),
    )
    assert (reading.format, session.start_s, session.origin, reading.header) == (
        "csv",
        None,
        None,
        Header(source="csv"),
    )
    assert reading.report.dropped == {
        "column 'note', unknown": 1,
        "column 'inherits', unknown (did you mean inherit?)": 1,
    }


@settings(max_examples=60, deadline=None)
@given(workload(), st.integers())
def test_sorted_rows_say_the_same(tmp_path_factory: pytest.TempPathFactory, given: list[Session], seed: int) -> None:
    path, _ = saved(tmp_path_factory.mktemp("csv"), given)
    head, *rows = path.read_bytes().splitlines(keepends=True)
    Random(seed).shuffle(rows)
    path.write_bytes(head + b"".join(rows))
    after = {session.id: session for session in open_trace([path])}
    assert after.keys() == {session.id for session in given}
    for session in given:
        validate(after[session.id])
        assert sorted(after[session.id].calls, key=lambda call: call.id) == sorted(session.calls, key=lambda c: c.id)


def test_equal_ids_in_two_files_are_two_sessions(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("session_id,call_id,output_tokens\ns,c0,1\n")
    assert [(session.id, len(session.calls)) for session in open_trace([tmp_path])] == [("s", 1), ("s#2", 1)]


# ----------------------------------------------------------------------------------------------------------- bad rows

HEAD = "session_id,call_id,output_tokens,after,inherit,spans,fresh,prompt_tokens,status,user,stop_after,start_s,agent"
BAD = {
    "no session": (",b,1", "session_id", "a name", "''"),
    "no count": ("s,b,", "output_tokens", "a count", "''"),
    "a huge count": ("s,b,1000000000000000000", "output_tokens", "a count", "1000000000000000000"),
    "no such gap": ("s,b,1,a:nap", "after", "call[:gap[:seconds]]", "a:nap"),
    "no wait": ("s,b,1,a:tool:x", "after", "call[:gap[:seconds]]", "a:tool:x"),
    "no time": ("s,b,1,a:tool:nan", "after", "waits of 0 to", "a:tool:nan"),
    "too much of an edge": ("s,b,1,a:tool:1:1", "after", "call[:gap[:seconds]]", "a:tool:1:1"),
    "an edge as JSON": ('s,b,1,"[{""call"":""a"",""wait"":1}]"', "after", "unknown field `wait`", "wait"),
    "no such call": ("s,b,1,z", "after", "a call_id of the session", "z"),
    "itself": ("s,b,1,b", "after", "no call that needs itself", "b"),
    "no call to inherit": ("s,b,1,a,z:4", "inherit", "a call_id of the session", "z"),
    "no tokens to inherit": ("s,b,1,a,a:-4", "inherit", "call or call:tokens", "a:-4"),
    "more than there is": ("s,b,1,a,a:400", "inherit", "0 to 12", "400"),
    "a stranger": ("s,b,1,,a", "inherit", "an ancestor", "a"),
    "no span": ("s,b,1,a,,tools", "spans", "name:tokens[:scope]", "tools"),
    "no scope": ("s,b,1,a,,tools:4:world", "spans", "trace | session", "tools:4:world"),
    "a negative span": ("s,b,1,a,,tools:-4", "spans", "counts of 0", "tools:-4"),
    "no kind": ("s,b,1,a,,,word:4", "fresh", "kind being user | tool", "word:4"),
    "a huge part": ("s,b,1,a,,,user:1000000000000000000", "fresh", "counts of 0", "user:1000"),
    "a part that took forever": ("s,b,1,a,,,tool:1:read:inf", "fresh", "took 0 to", "tool:1:read:inf"),
    "parts as no JSON": ("s,b,1,a,,,[", "fresh", "parts as JSON", "["),
    "a wrong sum": ("s,b,1,a,a,,user:4,99", "prompt_tokens", "16", "99"),
    "no status": ("s,b,1,a,a,,user:4,16,good", "status", "ok | error | aborted", "good"),
    "another user": ("s,b,1,a,a,,user:4,16,ok,you", "user", "'me', as in line 2", "you"),
    "hung up at once": ("s,b,1,a,a,,user:4,16,ok,me,0", "stop_after", "1 or more", "0"),
    "no instant": ("s,b,1,a,a,,user:4,16,ok,me,,1e99", "start_s", "seconds", "1e99"),
    "no string": ('s,b,1,a,a,,user:4,16,ok,me,,1,"""x"', "agent", "a string as JSON", "x"),
    "the id again": ("s,a,1", "call_id", "another than in line 2", "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    row, field, expected, found = BAD[name]
    if row.count(",") < 12 and '"' not in row:
        cells = row.split(",")
        cells += [""] * (13 - len(cells))
        cells[9] = cells[9] or "me"
        row = ",".join(cells)
    elif name == "an edge as JSON":
        row += ",,,,,,me,,,"
    good = "a,3,,,,user:9,9,ok,me,,,"
    path = table(tmp_path, f"{HEAD}\ns,{good}\n{row}\nt,{good}\n")
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line " in error.where and field in error.where, error.where
    assert "line 3" in error.where or "line 2 and those of its session, session s, call b" in error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert [session.id for session in reading][-1] == "t"
    assert len(reading.report.skipped) == 1


def test_a_session_with_a_bad_row_is_left_out_whole(tmp_path: Path) -> None:
    path = table(tmp_path, "session_id,call_id,output_tokens,after\ns,a,1,\ns,b,x,a\ns,c,1,b\nt,a,1,\n")
    reading = open_trace([path], skip_bad=True)
    assert [session.id for session in reading] == ["t"]
    assert len(reading.report.skipped) == 1, "and no error for the call that needs it"
    assert reading.report.dropped == {"sessions with a bad row": 1}


def test_a_stray_quote_spoils_its_line_only(tmp_path: Path) -> None:
    path = table(tmp_path, 'session_id,call_id,output_tokens\ns,"a,1\nt,a,1\nu,"a"x,1\nv,""a"",1\n')
    reading = open_trace([path], skip_bad=True)
    assert [session.id for session in reading] == ["t"]
    assert [skipped.where for skipped in reading.report.skipped] == [f"{path}, line {n}" for n in (2, 4, 5)]


def test_circles_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "session_id,call_id,output_tokens,after\ns,a,1,b\ns,b,1,c\ns,c,1,b\n")
    with pytest.raises(TraceError, match="in a circle"):
        list(open_trace([path]))


def test_a_half_written_last_row_is_normal(tmp_path: Path) -> None:
    reading = open_trace([table(tmp_path, "session_id,call_id,output_tokens\ns,a,1\nt,")])
    assert len(list(reading)) == 1
    assert reading.report.dropped == {"half-written last line": 1}


def test_the_header_is_of_the_first_good_row(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "session_id,call_id,output_tokens,common_clock,block_tokens\n"
        "s,a,1\nt,a,1,perhaps,64\nu,a,1,TRUE,16\n",
    )  # fmt: skip
    reading = open_trace([path], skip_bad=True)
    assert reading.header == Header(source="csv", common_clock=True, block_tokens=16)
    assert [session.id for session in reading] == ["u"]
    assert len(reading.report.skipped) == 2


def test_other_tables_are_not_taken_for_it(tmp_path: Path) -> None:
    assert sniff(table(tmp_path, "session_id,call_id,tokens\n")) is None
    assert sniff(table(tmp_path, "CALL_ID,x,session_id,output_tokens\n")) == "csv"
