"""JSON objects out of files of any shape, and rows of telemetry brought together by session."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.errors import TraceError
from workloom.session import Header
from workloom.traces import Report
from workloom.traces import arrays as arrays_module
from workloom.traces.arrays import elements
from workloom.traces.lines import HALF_WRITTEN
from workloom.traces.reading import Intake
from workloom.traces.telemetry.gather import Ids, gather

FAULTS = list[TraceError]


def read(tmp_path: Path, data: bytes, *keys: str) -> tuple[list[tuple[int, bytes]], FAULTS, Report]:
    path, faults, report = tmp_path / "f.json", FAULTS(), Report()
    path.write_bytes(data)
    with path.open("rb") as file:
        found = list(elements(path, file, keys, Intake(Header(), report, faults.append)))
    for element in found:
        assert data[element.offset :].startswith(element.data)
    return [(element.line, element.data) for element in found], faults, report


SHAPES = {
    "lines": (b'{"a":1}\n\n{"a":[2,{"b":"}\\n"}]}\n', ()),
    "indented": (b'{\n  "a": 1\n}\n{\n  "a": [2, {"b": "}\\n"}]\n}\n', ()),
    "list": (b'\xef\xbb\xbf[\n{"a":1},\n{"a":[2,{"b":"}\\n"}]}]', ()),
    "page": (b'{"meta":{"x":[1]},"data":[{"a":1},{"a":[2,{"b":"}\\n"}]}]}', ("data",)),
    "document": (b'{"r":[{"s":[{"a":1}]},{"t":[0],"s":[{"a":[2,{"b":"}\\n"}]}]}]}', ("r", "s")),
    "documents": (b'{"r":[{"s":[{"a":1}]}]}\n{"r":[{"s":[{"a":[2,{"b":"}\\n"}]}]}]}\n', ("r", "s")),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_every_shape_gives_the_same_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str, chunk: int
) -> None:
    monkeypatch.setattr(arrays_module, "CHUNK_BYTES", chunk)
    found, faults, _ = read(tmp_path, SHAPES[shape][0], *SHAPES[shape][1])
    assert [json.loads(data) for _, data in found] == [{"a": 1}, {"a": [2, {"b": "}\n"}]}]
    assert not faults


def test_elements_know_their_lines(tmp_path: Path) -> None:
    assert [line for line, _ in read(tmp_path, SHAPES["indented"][0])[0]] == [1, 4]
    assert [line for line, _ in read(tmp_path, SHAPES["list"][0])[0]] == [2, 3]


def test_a_bad_line_is_one_fault_and_the_next_is_read(tmp_path: Path) -> None:
    found, faults, _ = read(tmp_path, b'{"a":1}\n{"a" 2}\n{"a":3}\n{"a":"x\n{"a":4}\n')
    assert [data for _, data in found] == [b'{"a":1}', b'{"a":3}', b'{"a":4}']
    assert [fault.where and fault.where.rpartition(" ")[2] for fault in faults] == ["2", "4"]


def test_a_half_written_last_object_is_normal(tmp_path: Path) -> None:
    for tail in (b'{"a":', b'{"a":"x', b'{\n  "a": [1,'):
        found, faults, report = read(tmp_path, b'{"a":1}\n' + tail)
        assert (len(found), faults, report.dropped) == (1, [], {HALF_WRITTEN: 1})


def test_a_document_that_is_cut_short_is_a_fault(tmp_path: Path) -> None:
    for data, keys in ((b'[{"a":1},{"a":2}', ()), (b'[{"a":1},{"a":2},{"a"', ()), (b'{"d":[{"a":1},{"a":2}]', ("d",))):
        found, faults, _ = read(tmp_path, data, *keys)
        assert (len(found), len(faults)) == (2, 1)


def test_malformed_lists_stop(tmp_path: Path) -> None:
    found, faults, _ = read(tmp_path, b'[{"a":1},{"a"::}]\n{"a":3}')
    assert (len(found), len(faults)) == (1, 1)


def test_deep_nesting_and_long_digits_are_no_hang(tmp_path: Path) -> None:
    found, faults, _ = read(tmp_path, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"a":' + b"9" * 50_000 + b"}\n")
    assert (len(found), len(faults)) == (1, 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60).map(lambda tail: b'{"d":[{"a":1},' + tail), st.sampled_from([(), ("d",), ("d", "a")]))
def test_any_bytes_end(tmp_path_factory: pytest.TempPathFactory, data: bytes, keys: tuple[str, ...]) -> None:
    read(tmp_path_factory.mktemp("any"), data, *keys)


def test_rows_are_gathered_by_session_over_files_and_order(tmp_path: Path) -> None:
    rows = [
        {"t": "x", "n": 0}, {"t": "y", "n": 1}, {"t": "x", "n": 2}, {"t": "z", "s": "S", "n": 3},
        {"t": "y", "s": "S", "n": 4}, {"t": "x", "n": 5}, {"t": "y", "s": "other", "n": 6},
    ]  # fmt: skip
    (tmp_path / "1.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows[:3]))
    (tmp_path / "2.json.gz").write_bytes(gzip.compress(json.dumps(rows[3:], indent=1).encode()))
    report = Report()
    intake = Intake(Header(), report, lambda error: pytest.fail(str(error)))

    def ids(data: bytes) -> Ids:
        row = json.loads(data)
        return Ids(row["t"], row.get("s"))

    found = [
        (gathered.id, [(trace, json.loads(data)["n"]) for trace, _, data in gathered.rows])
        for gathered in gather(sorted(tmp_path.iterdir()), intake, lambda head: (), ids)
    ]
    assert found == [("x", [(0, 0), (0, 2), (0, 5)]), ("S", [(0, 1), (0, 4), (0, 6), (1, 3)])]
    assert report.inferred == {"traces that name two sessions, taken for the first": 1}
