"""The native format: what is written is read again, in bounded memory, and never half."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sessions, workload
from wekafiles import document, request, save

from workloom.errors import TraceError, UsageError, WorkloomError
from workloom.session import Call, Header, Part, Session
from workloom.traces import native, open_trace

HEADER = b'{"format":"workloom","version":1,"source":"test"}\n'
LINE = b'{"id":"s","calls":[{"id":"a","output_tokens":3,"fresh":[{"kind":"user","tokens":9}]}]}\n'


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)
    return path


@settings(max_examples=25, deadline=None)
@given(
    st.lists(sessions(recorded=True, stop_after=True), min_size=1, max_size=3),
    st.builds(Header, source=st.text(max_size=9), block_tokens=st.none() | st.integers(1, 99)),
    st.sampled_from(("t.jsonl", "t.jsonl.zst")),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Session], header: Header, name: str
) -> None:
    named = [msgspec.structs.replace(session, id=f"s{i}") for i, session in enumerate(drawn)]
    path = tmp_path_factory.getbasetemp() / name
    assert native.write(path, header, named) == len(named)
    reading = open_trace([path])
    assert (reading.format, reading.header) == ("native", header)
    assert list(reading) == named
    assert list(reading) == named, "a reading can be read again"
    assert reading.complete and reading.report.sessions == len(named)


@settings(max_examples=20, deadline=None)
@given(workload())
def test_the_report_counts(tmp_path_factory: pytest.TempPathFactory, drawn: list[Session]) -> None:
    path = tmp_path_factory.getbasetemp() / "counts.jsonl"
    native.write(path, Header(), drawn)
    reading = open_trace([path])
    assert sum(len(session.calls) for session in reading) == reading.report.calls
    assert reading.report.output_tokens == sum(call.output_tokens for s in drawn for call in s.calls)


def test_the_header_line_always_says_format_and_version(tmp_path: Path) -> None:
    native.write(tmp_path / "t.jsonl", Header(), [])
    assert (tmp_path / "t.jsonl").read_bytes() == b'{"format":"workloom","version":1}\n'


@pytest.mark.parametrize(
    ("content", "where", "expected"),
    [
        (HEADER + LINE[:40], "line 2", "JSON"),
        (HEADER + LINE + b"\n" + LINE[:40] + b"\n", "line 4", "JSON"),
        (HEADER + LINE.replace(b"3", b'"3"'), "line 2, calls[0].output_tokens", "`int`"),
        (HEADER + LINE.replace(b'"output_tokens":3,', b""), "line 2, calls[0].output_tokens", "required"),
        (HEADER + LINE.replace(b"user", b"usr"), "line 2, calls[0].fresh[0].kind", "Invalid enum value"),
        (HEADER + LINE.replace(b"fresh", b"frsh"), "line 2, calls[0].frsh", "a field of the format"),
        (HEADER + LINE.replace(b"9", b"-9"), "line 2, session s, call a, fresh[0].tokens", "0 or more"),
        (HEADER + b"[]\n", "line 2, top level", "`object`"),
        (HEADER + LINE.replace(b'"s"', b'"\xff"'), "line 2", "UTF-8"),
        (HEADER + b"[" * 100_000, "line 2", ""),
        (HEADER.replace(b"1", b"2"), "line 1, version", "1"),
        (HEADER.replace(b"1", b'"1"'), "line 1, version", "1"),
        (HEADER.replace(b"source", b"sorce"), "line 1, sorce", "a field of the format"),
        (LINE, "line 1", "version"),
        (b"", "", ""),
        (b"\n", "", ""),
    ],
)
@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.zst"])
def test_bad_lines_are_one_error_that_says_where(
    tmp_path: Path, name: str, content: bytes, where: str, expected: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(TraceError) as caught:
        list(open_trace([path], format="native"))
    assert f"{name}{', ' if where else ''}{where}" in str(caught.value.where)
    assert expected in str(caught.value.expected)


def test_a_misspelt_field_is_met_with_the_nearest_name(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", HEADER + LINE.replace(b"output_tokens", b"output_token"))
    with pytest.raises(TraceError, match="did you mean output_tokens"):
        list(open_trace([path]))


def test_skip_bad_leaves_bad_lines_out_and_counts_them(tmp_path: Path) -> None:
    content = HEADER + LINE + b"nonsense\n" + LINE.replace(b"9", b"8") + LINE[:30]
    reading = open_trace([written(tmp_path / "t.jsonl", content)], skip_bad=True)
    assert [session.id for session in reading] == ["s", "s#2"]
    assert [skipped.where.rpartition(", ")[2] for skipped in reading.report.skipped] == ["line 3", "line 5"]
    assert reading.report.renamed == ["s -> s#2"]


@pytest.mark.parametrize("damage", ["cut", "bytes"])
def test_a_damaged_compressed_file_is_an_error(tmp_path: Path, damage: str) -> None:
    names = (sha256(b"%d" % n).hexdigest().encode() for n in range(4000))
    content = HEADER + b"".join(LINE.replace(b'"s"', b'"%s"' % name) for name in names)
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    at = len(packed) * 3 // 4
    packed = packed[:-9] if damage == "cut" else packed[:at] + b"\x00" * 40 + packed[at + 40 :]
    path = tmp_path / "t.jsonl.zst"
    path.write_bytes(packed)
    with pytest.raises(TraceError, match=r"t\.jsonl\.zst"):
        list(open_trace([path]))
    reading = open_trace([path], skip_bad=True)
    assert 0 < len(list(reading)) <= 4000, "what came before is taken"
    assert reading.report.skipped


def test_several_frames_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.zst"
    path.write_bytes(zstandard.compress(HEADER + LINE[:20]) + zstandard.compress(LINE[20:]))
    assert len(list(open_trace([path]))) == 1


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.zst"])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    good = Session("a", (Call("c0", 1),))
    native.write(tmp_path / name, Header(source="old"), [good])

    def then_fail() -> Iterator[Session]:
        yield good
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        native.write(tmp_path / name, Header(source="new"), then_fail())
    with pytest.raises(TraceError):
        native.write(tmp_path / name, Header(source="new"), [good, Session("empty", ())])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert open_trace([tmp_path / name]).header.source == "old"


def test_memory_is_bounded_by_a_session(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    one = tuple(Call(f"c{i}", 5, fresh=(Part("user", 100 + i),)) for i in range(50))
    native.write(path, Header(), (Session(f"s{i}", one, start_s=i) for i in range(1500)))
    reading = open_trace([path])
    tracemalloc.start()
    assert sum(1 for _ in reading) == 1500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, "all sessions at once would take 30 MB"


def test_files_folders_and_globs_are_read_once_and_sorted(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        written(tmp_path / f"{name}.jsonl", HEADER + LINE.replace(b'"s"', b'"%s"' % name.encode()))
    (tmp_path / "LICENSE").write_text("no trace")

    def ids(*paths: Path) -> list[str]:
        return [session.id for session in open_trace(paths)]

    assert ids(tmp_path) == ["a", "b", "c"]
    assert ids(tmp_path / "c.jsonl", tmp_path) == ["c", "a", "b"]
    assert ids(tmp_path / "[ab].jsonl") == ["a", "b"]
    assert [session.id for session in open_trace(str(tmp_path / "b.jsonl"))] == ["b"]


def test_headers_that_disagree_say_nothing(tmp_path: Path) -> None:
    for name, block in (("a", 64), ("b", 16)):
        header = Header(source="x", block_tokens=block, common_clock=True)
        native.write(tmp_path / f"{name}.jsonl", header, [Session(name, (Call("c", 1),))])
    assert open_trace(str(tmp_path)).header == Header(source="x")


def test_what_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    odd = tmp_path / "odd.csv"
    odd.write_text("a,b\n1,2\n")
    weka = save(tmp_path / "w.json", document([request(0, [1])]))
    mine = written(tmp_path / "n.jsonl", HEADER + LINE)
    (tmp_path / "empty").mkdir()
    for paths in ([odd], [tmp_path / "none.json"], [tmp_path / "*.nope"], [tmp_path / "empty"], []):
        with pytest.raises(WorkloomError):
            open_trace(paths)
    with pytest.raises(UsageError, match="did you mean native"):
        open_trace([mine], format="natve")
    assert [session.id for session in open_trace([weka, mine, odd], skip_bad=True)] == ["trace_1", "s"]
