"""The Azure reader: time stamps of all releases, a call a session, bad rows by line and column."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from workloom.errors import TraceError
from workloom.session import Call, Part, Recorded, Session
from workloom.traces import Reading, open_trace, sniff

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"


def save(folder: Path, *rows: str, head: str = HEAD, end: str = "\n") -> Path:
    path = folder / "trace.csv"
    path.write_bytes(end.join((head, *rows)).encode())
    return path


def starts(reading: Reading) -> list[float | None]:
    return [session.start_s for session in reading]


def test_rows_of_2023(tmp_path: Path) -> None:
    """Seven decimals, no zone, line ends of Windows, none after the last."""
    path = save(tmp_path, "2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,3180,8", end="\r\n")
    reading = open_trace([path])
    first, second = reading
    begin_s = datetime(2023, 11, 16, 18, 17, 3, 979960, tzinfo=UTC).timestamp()
    call = Call("c0", 10, fresh=(Part("user", 4808),), recorded=Recorded(start_s=0.0))
    assert first == Session("r0", (call,), start_s=begin_s, origin="azure:trace.csv")
    assert second.start_s == pytest.approx(begin_s + 0.052, abs=1e-6)
    assert (reading.format, reading.header.source, reading.header.common_clock) == ("azure", "azure", True)
    assert reading.report.assumptions == [
        "rows are not linked: each is a session of one call",
        "times without a zone are UTC",
    ]


def test_rows_of_2024_say_their_zone(tmp_path: Path) -> None:
    stamps = (
        "2024-05-10 00:00:00.009930+00:00",
        "2024-05-10 00:00:10+00:00",
        "2024-05-10T02:00:11.5+02:00",
        "2024-05-10 00:00:11.25Z",
    )
    reading = open_trace([save(tmp_path, *(f"{stamp},1,1" for stamp in stamps))])
    begin_s = datetime(2024, 5, 10, tzinfo=UTC).timestamp()
    assert starts(reading) == [begin_s + after for after in (0.00993, 10.0, 11.5, 11.25)]
    assert reading.report.assumptions == ["rows are not linked: each is a session of one call"]


def test_nothing_in_and_nothing_out_are_kept(tmp_path: Path) -> None:
    reading = open_trace([save(tmp_path, "2023-11-16 18:17:03,0,0", "2023-11-16 18:17:03,7.0,0")])
    assert [call for session in reading for call in session.calls] == [
        Call("c0", 0, recorded=Recorded(start_s=0.0)),
        Call("c0", 0, fresh=(Part("user", 7),), recorded=Recorded(start_s=0.0)),
    ]
    assert reading.report.zero_outputs == 2


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    """As in the multimodal trace of 2025."""
    head = "NumImages, GeneratedTokens ,ContextTokens,TIMESTAMP"
    path = save(tmp_path, "2,5,900,2024-10-15 00:00:01", "0,6,800,2024-10-15 00:00:02", head=head)
    reading = open_trace([path])
    assert [(s.calls[0].fresh_tokens, s.calls[0].output_tokens) for s in reading] == [(900, 5), (800, 6)]
    assert reading.report.dropped == {"images of a prompt (their tokens are in ContextTokens)": 1}


def test_sessions_of_several_files_have_different_ids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, "2023-11-16 18:17:03,1,1")
    reading = open_trace([tmp_path])
    assert [session.id for session in reading] == ["r0", "r1"]
    assert reading.report.renamed == []


GOOD = "2023-11-16 18:17:03.9799600,4808,10"
BAD = {
    "no time": ("yesterday,4808,10", "TIMESTAMP", "an instant since 1970", "yesterday"),
    "no such day": ("2023-02-30 18:17:03,1,1", "TIMESTAMP", "an instant since 1970", "2023-02-30"),
    "before 1970": ("1969-12-31 23:59:59,1,1", "TIMESTAMP", "an instant since 1970", "1969"),
    "no such zone": ("2023-11-16 18:17:03+99:00,1,1", "TIMESTAMP", "an instant since 1970", "+99:00"),
    "negative": ("2023-11-16 18:17:03,-1,1", "ContextTokens", "a count, 0 to", "-1"),
    "huge": ("2023-11-16 18:17:03,1,1000000000000000000", "GeneratedTokens", "a count, 0 to", "1000000000000000000"),
    "very long": (f"2023-11-16 18:17:03,1,{'9' * 5000}", "GeneratedTokens", "a count, 0 to", "999"),
    "not a number": ("2023-11-16 18:17:03,nan,1", "ContextTokens", "a count, 0 to", "nan"),
    "a part of a token": ("2023-11-16 18:17:03,1.5,1", "ContextTokens", "a count, 0 to", "1.5"),
    "infinite": ("2023-11-16 18:17:03,inf,1", "ContextTokens", "a count, 0 to", "inf"),
    "empty": ("2023-11-16 18:17:03,,1", "ContextTokens", "a count, 0 to", "''"),
    "a cell less": ("2023-11-16 18:17:03,1", "line 3", "3 cells", "2 cells in 2023"),
    "a cell more": ("2023-11-16 18:17:03,1,1,1", "line 3", "3 cells", "4 cells in 2023"),
    "an open quote": ('2023-11-16 18:17:03,"1,1', "line 3", "3 cells", "character 21"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_error_that_says_where(tmp_path: Path, name: str) -> None:
    row, field, expected, found = BAD[name]
    path = save(tmp_path, GOOD, row, GOOD, "")
    with pytest.raises(TraceError) as caught:
        list(open_trace([path]))
    error = caught.value
    assert error.where is not None and f"{path}, line 3" in error.where and field in error.where
    assert expected in str(error.expected) and found in str(error.found), str(error)
    reading = open_trace([path], skip_bad=True)
    assert len(list(reading)) == 2
    assert len(reading.report.skipped) == 1


def test_bytes_that_are_no_text_spoil_their_line_only(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(f"{HEAD}\n{GOOD}\n".encode() + b"\xff\xfe,1,1\n" + GOOD.encode())
    reading = open_trace([path], skip_bad=True)
    assert len(list(reading)) == 2
    assert [skipped.where for skipped in reading.report.skipped] == [f"{path}, line 3"]


def test_a_half_written_last_row_is_normal(tmp_path: Path) -> None:
    reading = open_trace([save(tmp_path, GOOD, "2023-11-16 18:17:04.03")])
    assert len(list(reading)) == 1
    assert reading.report.dropped == {"half-written last line": 1}


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, GOOD, head="TIMESTAMP,ContextTokens")
    assert sniff(path) is None
    with pytest.raises(TraceError, match="the columns TIMESTAMP, ContextTokens, GeneratedTokens"):
        list(open_trace([path], format="azure"))
    path = save(tmp_path, GOOD, head=f"{HEAD},timestamp")
    with pytest.raises(TraceError, match="two columns have one name"):
        list(open_trace([path]))
    path.write_bytes(b"")
    with pytest.raises(TraceError, match="line 1"):
        list(open_trace([path], format="azure"))


def test_a_damaged_compressed_file_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEAD, *[GOOD] * 9000]).encode())[:-20])
    reading = open_trace([path], skip_bad=True)
    assert len(list(reading)) > 100
    assert [skipped.why.split(" (")[0] for skipped in reading.report.skipped] == [
        "a compressed file ends in the middle"
    ]
