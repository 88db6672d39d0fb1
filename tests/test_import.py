"""`workloom import`, `anonymize`, `export`: as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from strategies import sessions
from wekafiles import REAL, document, marker, request
from wekafiles import save as save_weka

from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session
from workloom.traces import native, open_trace
from workloom.traces.export import WRITERS
from workloom.traces.losses import losses


def workloom(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workloom.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def weka(folder: Path) -> Path:
    rows = [
        request(0, [1, 2], input_types=["text"]),
        marker(9, [request(0, [9]), request(2, [9, 8])], seconds=5.0),
        request(20, [1, 2, 3], think_time=16.0),
    ]
    return save_weka(folder / "t.json", document(rows))


def test_an_import_says_what_it_understood_and_can_be_run(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl.zst"
    done = workloom("import", weka(tmp_path), "-o", out)
    assert done.returncode == 0, done.stderr
    for said in ("weka, 1 file", "sessions", "subagents", "waits, tool", "texts: none kept"):
        assert said in done.stdout
    ran = workloom("run", out, "--engine", "llama-3.1-8b-h100x1", "-o", tmp_path / "run", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["calls"]["ok"] == 4


def test_an_import_can_be_read_by_machines(tmp_path: Path) -> None:
    done = workloom("import", weka(tmp_path), "-o", tmp_path / "t.jsonl", "--json")
    report = json.loads(done.stdout)
    assert (report["sessions"], report["calls"], report["subagents"]) == (1, 4, 1)
    (session,) = open_trace([tmp_path / "t.jsonl"])
    assert [call.id for call in session.calls] == ["c0", "c1", "c2", "c3"]
    assert [call.agent for call in session.calls][1].split(":")[1] == "1"


def test_a_folder_of_several_formats_is_one_trace_and_other_files_are_listed(tmp_path: Path) -> None:
    weka(tmp_path)
    (tmp_path / "below").mkdir()
    native.write(tmp_path / "below" / "n.jsonl", Header(), [Session("n", (Call("a", 3, fresh=(Part("user", 5),)),))])
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    done = workloom("import", tmp_path, "-o", tmp_path / "out.zst")
    assert done.returncode == 0, done.stderr
    assert "settings.json" in "".join(line.strip().removeprefix("no trace").strip() for line in done.stdout.split("\n"))
    assert "native + weka, 2 files" in done.stdout
    alone = workloom("import", tmp_path / "settings.json", "-o", tmp_path / "o")
    assert alone.returncode == 1 and "no reader knows this file" in alone.stderr


@pytest.mark.parametrize("command", [("import",), ("anonymize",), ("export", "--format", "csv")])
def test_nothing_is_written_over_or_half(tmp_path: Path, command: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    done = workloom(*command, weka(tmp_path), "-o", out)
    assert done.returncode == 2 and "there already" in done.stderr
    assert out.read_text() == "mine"
    bad = tmp_path / "bad.json"
    bad.write_text('{"block_size": 4, "requests": 7}')
    done = workloom(*command, bad, "-o", tmp_path / "new")
    assert done.returncode == 1 and "error:" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "out", "t.json"]


def test_anonymize_takes_native_traces_only(tmp_path: Path) -> None:
    done = workloom("anonymize", weka(tmp_path), "-o", tmp_path / "o.jsonl")
    assert done.returncode == 1 and "header" in done.stderr
    trace = tmp_path / "n.jsonl"
    native.write(trace, Header(source="a secret"), [Session("id", (Call("a", 3, fresh=(Part("user", 5, text="t"),)),))])
    done = workloom("anonymize", trace, "-o", tmp_path / "o.jsonl", "--salt", "phrase")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "o.jsonl").read_text()
    assert "secret" not in content and '"id"' in content and '"text"' not in content


def test_export_lists_what_is_not_held_before_it_writes(tmp_path: Path) -> None:
    done = workloom("export", weka(tmp_path), "--format", "csv", "-o", tmp_path / "t.csv", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing of a call" in done.stdout
    assert not (tmp_path / "t.csv").exists()
    wrong = workloom("export", weka(tmp_path), "--format", "vekshaa", "-o", tmp_path / "x")
    assert wrong.returncode == 2 and "did you mean veeksha?" in wrong.stderr


def test_a_format_that_can_hold_nothing_of_a_trace_is_refused(tmp_path: Path) -> None:
    done = workloom("export", weka(tmp_path), "--format", "trie", "-o", tmp_path / "t.jsonl")
    assert done.returncode == 1 and "can hold none" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_an_import_of_nothing_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"resourceSpans": [{"scopeSpans": [{"spans": []}]}]}')
    done = workloom("import", tmp_path / "t.json", "-o", tmp_path / "out.jsonl")
    assert done.returncode == 1 and "no session was found" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_a_writer_of_the_native_format_is_not_guessed_at(tmp_path: Path) -> None:
    done = workloom("export", weka(tmp_path), "--format", "native", "-o", tmp_path / "t.jsonl")
    assert done.returncode == 2 and "hint: workloom's own format is written by `workloom import`" in done.stderr


@pytest.mark.parametrize("format", WRITERS)
def test_every_writer_s_result_is_told_by_sniffing(tmp_path: Path, format: str) -> None:
    chain = (
        Call("a", 30, fresh=(Part("user", 700),)),
        Call("b", 40, (Edge("a", 1.5, "tool"),), inherit=Inherit("a"), fresh=(Part("tool", 900),)),
    )
    trace = tmp_path / "n.jsonl"
    native.write(trace, Header(), [Session(f"s{i}", chain) for i in range(3)])
    done = workloom("export", trace, "--format", format, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    reading = open_trace([tmp_path / "out"])
    assert reading.format == format
    assert sum(call.output_tokens for session in reading for call in session.calls) == 210


@settings(max_examples=50, deadline=None)
@given(sessions(recorded=True, stop_after=True))
def test_a_session_loses_nothing_against_itself(session: Session) -> None:
    assert list(losses(session, session)) == []


def test_losses_name_what_differs() -> None:
    one = Session(
        "s", (Call("a", 3, model="m", fresh=(Part("user", 5, "n"),)), Call("b", 4, (Edge("a", 1.0, "tool"),)))
    )
    other = Session("s", (Call("x", 3, fresh=(Part("user", 5),)), Call("y", 5, (Edge("x", 2.0, "human"),))))
    assert set(losses(one, other)) == {
        "calls without their model",
        "calls with parts that lost or changed their name",
        "calls with other output_tokens",
        "calls with other waits",
        "calls with other kinds of waits",
    }


def test_calls_in_another_order_are_told_apart_by_what_was_listened_to() -> None:
    """WEKA puts a subagent's calls together; answers that were hung up on come back as long as they were heard."""
    parent = Call("p", 9, fresh=(Part("user", 5),)), Call("q", 30, (Edge("p"),), fresh=(Part("user", 7),), stop_after=4)
    child = tuple(Call(f"s{i}", 3 + i, (Edge(f"s{i - 1}" if i else "p"),), "sub") for i in range(2))
    before = Session("s", (parent[0], child[0], parent[1], child[1]))
    after = Session("s", (parent[0], *child, msgspec.structs.replace(parent[1], output_tokens=4, stop_after=None)))
    assert list(losses(before, after)) == ["calls with other output_tokens", "calls without their stop_after"]


@pytest.mark.parametrize("format", list(WRITERS))
def test_exported_sessions_are_compared_with_themselves(tmp_path: Path, format: str) -> None:
    """Mooncake rows stand in the order of their times, so sessions may come back in another order than they had."""
    late = Session("late", tuple(_chain(2, 50)), 100.0)
    early = Session("early", tuple(_chain(1, 70)), 1.0)
    native.write(tmp_path / "t.jsonl", Header(common_clock=True), [late, early])
    done = workloom("export", tmp_path / "t.jsonl", "--format", format, "-o", tmp_path / "out", "--json")
    lost = json.loads(done.stdout)["lost"]
    assert not {"sessions with another number of calls", "calls with other prompt tokens"} & set(lost), lost


def _chain(length: int, output: int) -> Iterator[Call]:
    for i in range(length):
        after, inherit = ((Edge(f"c{i - 1}", 30.0, "human"),), Inherit(f"c{i - 1}")) if i else ((), None)
        yield Call(f"c{i}", output, after, inherit=inherit, fresh=(Part("user", 2000),), recorded=Recorded(30.0 * i))


@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/weka is not here")
def test_the_weka_folder_imports_whole(tmp_path: Path) -> None:
    done = workloom("import", REAL, "-o", tmp_path / "weka.jsonl.zst", "--json")
    report = json.loads(done.stdout)
    assert (report["sessions"], report["calls"]) == (52, 4652)


def test_a_format_without_sessions_still_tells_what_it_lost(tmp_path: Path) -> None:
    done = workloom("export", weka(tmp_path), "--format", "mooncake", "-o", tmp_path / "m.jsonl", "--json")
    lost = json.loads(done.stdout)["lost"]
    assert "calls whose model did not come back" in lost
    assert "calls whose prompt tokens did not come back" not in lost
