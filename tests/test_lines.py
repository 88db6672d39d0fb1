"""Files as lines: plain and compressed, whole and broken, and rows brought together by a key."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.errors import TraceError
from workloom.session import Header
from workloom.traces import lines as files
from workloom.traces.lines import Groups, content, head, lines, numbered, rows
from workloom.traces.reading import Intake, Report


class Row(msgspec.Struct):
    key: str
    n: int = 0


DECODER = msgspec.json.Decoder(Row)
PACK = {"t": lambda data: data, "t.gz": gzip.compress, "t.zst": zstandard.compress}


def intake(bad: list[TraceError] | None = None) -> Intake:
    def on_bad(error: TraceError) -> None:
        if bad is None:
            raise error
        bad.append(error)

    return Intake(Header(), Report(), on_bad)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)), st.booleans(), st.sampled_from(list(PACK))
)
def test_lines_are_the_lines_whatever_the_packing(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[bytes], ended: bool, name: str
) -> None:
    data = b"\n".join(drawn) + (b"\n" if ended else b"")
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(PACK[name](data))
    assert b"".join(lines(path)) == data
    assert all(line.index(b"\n") == len(line) - 1 for line in list(lines(path))[:-1])
    assert head(path, 10) == data[:10]
    assert content(path) == data.removeprefix(files.BOM)


def test_long_lines_cross_chunks(tmp_path: Path) -> None:
    every = [b"a" * 200_000 + b"\n", b"\n", b"b" * 70_000 + b"\n", b"c"]
    (tmp_path / "t").write_bytes(b"".join(every))
    assert list(lines(tmp_path / "t")) == every
    assert [number for number, _ in numbered(tmp_path / "t", intake())] == [1, 3, 4], "blank lines keep their number"


def test_rows_name_line_and_field_and_a_half_written_last_line_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"key":"a"}\r\n\n{"key":"b","n":"x"}\nnope\n{"key":"c"}\n{"key":"d')
    bad: list[TraceError] = []
    reading = intake(bad)
    assert [(number, row.key) for number, row in rows(path, DECODER, reading)] == [(1, "a"), (5, "c")]
    assert [error.where for error in bad] == [f"{path}, line 3, n", f"{path}, line 4"]
    assert reading.report.dropped == {"half-written last line": 1}


def test_a_last_line_that_is_whole_but_wrong_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"key":"a"}\n{"key":5}')
    with pytest.raises(TraceError, match="line 2, key"):
        list(rows(path, DECODER, intake()))


@pytest.mark.parametrize("name", ["t.gz", "t.zst"])
def test_a_compressed_file_cut_short_gives_what_is_there_and_one_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = b"".join(b'{"key":"%d"}\n' % n for n in range(20_000))
    packed = PACK[name](whole)
    path.write_bytes(packed[: len(packed) // 2])
    bad: list[TraceError] = []
    found = [row.key for _, row in rows(path, DECODER, intake(bad))]
    assert found == [str(n) for n in range(len(found))]
    assert len(bad) == 1 and "ends in the middle" in bad[0].what
    with pytest.raises(TraceError):
        content(path)


@pytest.mark.parametrize("name", ["t.gz", "t.zst"])
def test_the_head_of_a_damaged_file_is_what_is_there(tmp_path: Path, name: str) -> None:
    """Else a short file would be skipped whole, for its format is told from its head."""
    path = tmp_path / name
    whole = b"".join(b'{"key":"%d"}\n' % n for n in range(20_000))
    packed = PACK[name](whole)
    path.write_bytes(packed[: len(packed) // 2])
    found = head(path, len(whole))
    assert 0 < len(found) < len(whole) and whole.startswith(found)
    path.write_bytes(packed[:5])
    with pytest.raises(TraceError, match="ends in the middle"):
        head(path, 5)


def test_groups_bring_interleaved_rows_of_many_files_together(tmp_path: Path) -> None:
    count = files.OPEN_FILES + 20
    paths = []
    for n in range(count):
        path = tmp_path / (f"{n:03}.gz" if n % 10 == 0 else f"{n:03}")
        data = b'{"key":"even","n":%d}\n\n{"key":"odd","n":%d}\n' % (2 * n, 2 * n + 1)
        path.write_bytes(gzip.compress(data) if path.suffix else data)
        paths.append(path)
    groups = Groups(paths, intake(), lambda path, number, line: DECODER.decode(line).key)
    assert len(groups) == 2
    seen = {}
    for key, found in groups:
        seen[key] = [DECODER.decode(line).n for _, line in found]
        assert {place.line for place, _ in found} == {1 if key == "even" else 3}
    assert seen == {"even": list(range(0, 2 * count, 2)), "odd": list(range(1, 2 * count, 2))}


def test_what_cannot_be_read_is_a_trace_error(tmp_path: Path) -> None:
    for call in (lambda path: list(lines(path)), content, lambda path: head(path, 5)):
        with pytest.raises(TraceError, match="cannot be read"):
            call(tmp_path / "none")


def test_a_fault_in_a_value_of_an_object_names_the_object(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"usage":{"a":1,"b":"x"}}\n')
    decoder = msgspec.json.Decoder(msgspec.defstruct("Usage", [("usage", dict[str, int])]))
    with pytest.raises(TraceError) as caught:
        list(rows(path, decoder, intake()))
    assert caught.value.where == f"{path}, line 1, usage[...]"
    assert "'b': 'x'" in str(caught.value.found)
