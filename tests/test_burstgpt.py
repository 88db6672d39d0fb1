"""The BurstGPT reader: conversations out of rows that interleave, what a prompt repeats, failures, both releases."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from workloom.errors import TraceError
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session, prompt_tokens, validate
from workloom.traces import open_trace, sniff

HEAD = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
OLD = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
CHAT = "Conversation log"


def save(folder: Path, *rows: str, head: str = HEAD, name: str = "BurstGPT_3.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{row}\n" for row in (head, *rows)))
    return path


def test_a_conversation(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        f"19440110.0,1722ac82,43,GPT-4,906,446,1352,{CHAT}",
        f"19440200.0,1722ac82,8,GPT-4,1779,123,1902,{CHAT}",
    )
    reading = open_trace([path])
    (session,) = reading
    assert session == Session(
        "1722ac82",
        (
            Call("c0", 446, model="GPT-4", fresh=(Part("user", 906),), recorded=Recorded(start_s=0.0, end_s=43.0)),
            Call(
                "c1",
                123,
                after=(Edge("c0", 47.0, "human"),),
                model="GPT-4",
                inherit=Inherit("c0"),
                fresh=(Part("user", 1779 - 906 - 446),),
                recorded=Recorded(start_s=90.0, end_s=98.0),
            ),
        ),
        start_s=19440110.0,
        workflow=CHAT,
        origin="burstgpt:BurstGPT_3.csv",
    )
    assert (reading.format, reading.header.source, reading.header.common_clock) == ("burstgpt", "burstgpt", True)
    assert reading.report.inferred == {
        "prompts long enough for the prompt and answer before: taken to begin with both": 1
    }


def test_rows_that_interleave_come_together_in_the_order_of_first_rows(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        f"10,a,1,GPT-4,100,10,110,{CHAT}",
        "11,,1,ChatGPT,50,5,55,API log",
        f"12,b,1,ChatGPT,70,7,77,{CHAT}",
        f"13,a,1,GPT-4,200,10,210,{CHAT}",
        "14,,1,ChatGPT,60,6,66,API log",
        f"15,b,1,GPT-4,300,9,309,{CHAT}",
    )
    reading = open_trace([path])
    sessions = list(reading)
    assert [(s.id, s.start_s, list(prompt_tokens(s).values()), s.workflow) for s in sessions] == [
        ("a", 10.0, [100, 200], CHAT),
        ("r0", 11.0, [50], "API log"),
        ("b", 12.0, [70, 300], CHAT),
        ("r1", 14.0, [60], "API log"),
    ]
    assert [call.model for call in sessions[2].calls] == ["ChatGPT", "GPT-4"]
    assert reading.report.assumptions == ["rows without a session id are sessions of one call"]


def test_what_a_prompt_repeats_of_the_one_before(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        f"10,a,1,GPT-4,100,50,150,{CHAT}",
        f"20,a,1,GPT-4,150,50,200,{CHAT}",
        f"30,a,1,GPT-4,199,50,249,{CHAT}",
        f"40,a,1,GPT-4,20,5,25,{CHAT}",
    )
    reading = open_trace([path])
    (session,) = reading
    assert [call.inherit for call in session.calls] == [None, Inherit("c0"), Inherit("c1", 150), None]
    assert [call.fresh_tokens for call in session.calls] == [100, 0, 49, 20]
    assert sorted(reading.report.inferred.values()) == [1, 1, 1]


def test_failures_are_kept_without_output(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        f"10,a,1,GPT-4,100,0,100,{CHAT}",
        f"20,a,1,GPT-4,100,50,150,{CHAT}",
        "30,,0,GPT-4,0,0,0,API log",
    )
    reading = open_trace([path])
    sessions = list(reading)
    calls = [call for session in sessions for call in session.calls]
    assert [call.recorded.status for call in calls if call.recorded] == ["error", "ok", "error"]
    assert calls[1].inherit == Inherit("c0"), "the same prompt again"
    assert reading.report.inferred["requests without response tokens: taken as failed, kept without output"] == 2
    assert reading.report.zero_outputs == 2


def test_a_row_that_begins_before_the_last_ended_waits_for_it(tmp_path: Path) -> None:
    path = save(
        tmp_path, f"10,a,30,GPT-4,100,50,150,{CHAT}", f"25,a,,GPT-4,200,5,205,{CHAT}", f"95,a,1,x,300,5,305,{CHAT}"
    )
    reading = open_trace([path])
    (session,) = reading
    assert [edge.wait_s for call in session.calls for edge in call.after] == [0.0, 70.0]
    assert [(call.recorded.start_s, call.recorded.end_s) for call in session.calls if call.recorded] == [
        (0.0, 30.0),
        (15.0, None),
        (85.0, 86.0),
    ]
    report = reading.report
    assert report.inferred["rows that begin before the one before them in their session ended: they wait for it"] == 1
    assert report.assumptions == ["where no elapsed time is told, the wait after a call holds the time it took"]


def test_a_session_out_of_order_and_in_two_files(tmp_path: Path) -> None:
    save(tmp_path, f"50,a,1,GPT-4,400,5,405,{CHAT}", "60,,1,x,1,1,2,API log", name="a.csv")
    save(tmp_path, f"30,a,1,GPT-4,200,5,205,{CHAT}", name="b.csv")
    reading = open_trace([tmp_path])
    sessions = list(reading)
    assert [(s.id, s.start_s, list(prompt_tokens(s).values())) for s in sessions] == [
        ("a", 30.0, [200, 400]),
        ("r0", 60.0, [1]),
    ]
    assert reading.report.inferred["sessions whose rows were put in order of time"] == 1
    assert "the timestamps of all files count from one day" in reading.report.assumptions


def test_the_older_release_has_no_sessions(tmp_path: Path) -> None:
    path = save(tmp_path, f"5,ChatGPT,472,18,490,{CHAT}", f"45,ChatGPT,1087,230,1317,{CHAT}", head=OLD)
    new = save(tmp_path, f"50,a,1,GPT-4,9,9,18,{CHAT}", name="new.csv")
    first, second, third = open_trace([path, new])
    recorded = Recorded(start_s=0.0)
    call = Call("c0", 18, model="ChatGPT", fresh=(Part("user", 472),), recorded=recorded)
    assert first == Session("r0", (call,), start_s=5.0, workflow=CHAT, origin="burstgpt:BurstGPT_3.csv")
    assert (second.id, second.start_s, third.id) == ("r1", 45.0, "a")


GOOD = f"10,a,1,GPT-4,100,50,150,{CHAT}"
BAD = {
    "no time": (f"x,b,1,GPT-4,1,1,2,{CHAT}", "Timestamp", "seconds, 0 to 1e+11", "x"),
    "no finite time": (f"nan,b,1,GPT-4,1,1,2,{CHAT}", "Timestamp", "seconds, 0 to 1e+11", "nan"),
    "a negative time": (f"1,b,-1,GPT-4,1,1,2,{CHAT}", "Elapsed time", "seconds, 0 to 1e+11", "-1"),
    "no count": (f"1,b,1,GPT-4,,1,2,{CHAT}", "Request tokens", "a count", "''"),
    "a negative count": ("1,,1,GPT-4,1,-7,2,API log", "Response tokens", "a count", "-7"),
    "a cell less": ("1,b,1,GPT-4,1,1,2", "line 3", "8 cells", "7 cells"),
    "far too late": (f"90000000000,a,1,GPT-4,1,1,2,{CHAT}", "Timestamp", "at most 1e+09 s after", "90000000000"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    row, field, expected, found = BAD[name]
    path = save(tmp_path, GOOD, row, f"11,c,1,GPT-4,100,50,150,{CHAT}")
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line 3" in error.where and field in error.where, error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    for session in reading:
        validate(session)
    assert reading.report.sessions in (1, 2)
    assert len(reading.report.skipped) == 1


def test_a_half_written_last_row_is_normal(tmp_path: Path) -> None:
    path = save(tmp_path, GOOD)
    path.write_text(path.read_text() + "11,a,1,GP")
    reading = open_trace([path])
    assert len(list(reading)) == 1
    assert reading.report.dropped == {"half-written last line": 1}


def test_damage_of_a_compressed_file_is_told_once(tmp_path: Path) -> None:
    rows = [f"{n},{'s' if n % 3 else ''}{n % 100 or ''},1,GPT-4,100,50,150,{CHAT}" for n in range(9000)]
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEAD, *rows]).encode())[:-20])
    reading = open_trace([path], skip_bad=True)
    assert len(list(reading)) > 60
    assert [skipped.why.split(" (")[0] for skipped in reading.report.skipped] == [
        "a compressed file ends in the middle"
    ]


def test_other_tables_are_not_taken_for_it(tmp_path: Path) -> None:
    assert sniff(save(tmp_path, head="Timestamp,Request tokens,Log Type")) is None
    assert sniff(save(tmp_path, head=OLD)) == "burstgpt"
