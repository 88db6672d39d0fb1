"""SQL over runs: the views say what the metrics say, killed and going runs are read, and nothing gets in or out."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import workloom
from test_store import call, manifest, session

from workloom.answers import sql
from workloom.answers.sql import TABLES, query
from workloom.errors import StoreError, UsageError, WorkloomError
from workloom.metrics import calls as per_call
from workloom.metrics.catalog import Sample, find
from workloom.metrics.chunks import gaps_by_call_s
from workloom.metrics.measured import GAPS, Measured, measured
from workloom.metrics.sessions import makespan_s
from workloom.records import CallRecord, ChunkRun, Dependency, ServerSample
from workloom.store import RunWriter, open_run
from workloom.store.run import JOURNAL

ROOT = Path(__file__).parent.parent
INF = float("inf")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("queries_docs", ROOT / "scripts" / "make_queries_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = script().canonical(tmp_path_factory.mktemp("sql"))
    return path


@pytest.fixture(scope="module")
def seen(canonical: Path) -> Measured:
    return measured(open_run(canonical))


def rows(path: Path | list[Path], text: str) -> list[tuple[object, ...]]:
    return list(query(path if isinstance(path, list) else [path], text).rows())


def column(path: Path, text: str) -> np.ndarray:  # type: ignore[type-arg]
    """The first column of an answer, nan for null."""
    return np.array([math.nan if value is None else value for value, *_ in rows(path, text)], dtype=np.float64)


def write(path: Path, calls: list[CallRecord]) -> Path:
    with RunWriter.create(path, manifest(), b"{}") as writer:
        for record in calls:
            writer.call(record)
        writer.session(session(1))
        writer.server(ServerSample(7, "vllm:num_requests_running", 3.0))
        writer.close()
    return path


# --- the same as the metrics


DURATIONS = ("ttft_s", "ttft_from_due_s", "e2e_s", "e2e_from_due_s", "lag_s")
LIKEWISE = (*DURATIONS, "tpot_s", "prompt_tokens", "output_tokens", "measured::int")


def assert_like_the_metrics(path: Path) -> None:
    run = measured(open_run(path))
    answer = rows(path, f"select {', '.join(LIKEWISE)} from calls_s order by instance, ordinal")
    found = [np.array([math.nan if x is None else x for x in each], np.float64) for each in zip(*answer, strict=True)]
    expected = [getattr(per_call, name)(run.calls) for name in DURATIONS]
    expected += [per_call.tpot_s(run.calls, run.carried), run.prompt_tokens, run.output_tokens, run.due]
    for name, one, other in zip(LIKEWISE, found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-15, err_msg=name)


def test_durations_of_calls_are_those_of_the_metrics(canonical: Path) -> None:
    assert_like_the_metrics(canonical)


STATUS = st.sampled_from(["ok", "error", "timeout", "cancelled", "censored"])
INSTANT = st.none() | st.integers(0, 10**12)


@st.composite
def odd_calls(draw: st.DrawFn) -> list[CallRecord]:
    """Calls with any instants missing, in any state: whatever a run may leave."""
    calls = []
    for ordinal in range(draw(st.integers(1, 4))):
        runs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=2))
        calls.append(
            CallRecord(
                1,
                "s",
                f"c{ordinal}",
                draw(st.sampled_from(["main", "Explore:a1", "it's"])),
                "m",
                draw(STATUS),
                draw(st.integers(0, 10**12)),
                ordinal,
                phase=draw(st.sampled_from(["run", "warmup"])),
                sent_ns=draw(INSTANT),
                first_ns=draw(INSTANT),
                last_ns=draw(INSTANT),
                done_ns=draw(INSTANT),
                planned_output_tokens=draw(st.integers(0, 3)),
                output_tokens=draw(st.none() | st.integers(0, 5)),
                prompt_tokens=draw(st.none() | st.integers(0, 5)),
                sent_prompt_tokens=7,
                retries=draw(st.integers(0, 1)),
                connect_ns=draw(st.integers(0, 5)),
                chunks=[ChunkRun(10, 1.0, 0.0, count, each) for count, each in runs],
            )
        )
    return calls


@settings(max_examples=12, deadline=None)
@given(odd_calls())
def test_durations_of_odd_calls_are_those_of_the_metrics(tmp_path_factory: pytest.TempPathFactory, odd: object) -> None:
    assert isinstance(odd, list)
    assert_like_the_metrics(write(tmp_path_factory.mktemp("odd") / "run", odd))


def test_gaps_are_those_of_the_metrics(canonical: Path, seen: Measured) -> None:
    found = column(canonical, "select gap_s from gaps order by instance, ordinal, place, i")
    pieces, row = [], 0
    for piece in seen.pieces():
        pieces += [(gaps, call + row) for gaps, call in gaps_by_call_s(piece)]
        row += piece.calls
    gaps, calls = (np.concatenate(part) for part in zip(*pieces, strict=True))
    assert len(found) == len(gaps) > 100_000
    np.testing.assert_allclose(np.sort(found), np.sort(gaps), rtol=1e-12)
    of_call = column(
        canonical,
        "select coalesce(n, 0) from calls left join (select instance, ordinal, count(*) as n from gaps group by all) "
        "using (instance, ordinal) order by instance, ordinal",
    )
    np.testing.assert_array_equal(of_call, np.bincount(calls, minlength=len(seen.calls)))


def test_edges_are_those_of_the_metrics(canonical: Path, seen: Measured) -> None:
    found = rows(canonical, "select instance, ordinal, after_ordinal, gap, wait_s from edges order by all")
    edges, ordinal, instance = seen.edges, seen.calls.ordinal, seen.calls.instance
    expected = sorted(
        (instance[c], ordinal[c], ordinal[p], GAPS[g], w / 1e9)
        for c, p, g, w in zip(edges.child, edges.parent, edges.gap, edges.wait_ns, strict=True)
    )
    assert found == expected
    assert rows(canonical, "select count(*) from edges where after_call is null") == [(0,)]


def test_sessions_and_tasks_are_those_of_the_metrics(canonical: Path, seen: Measured) -> None:
    found = column(canonical, "select makespan_s from sessions_s order by instance")
    np.testing.assert_array_equal(found, makespan_s(seen.sessions))
    for name in ("task_makespan_s", "ttfat_s", "ttfut_s"):
        sample = find(name).observe(seen)
        assert isinstance(sample, Sample)
        short = name.removeprefix("task_")
        found = column(canonical, f"select {short} from tasks where measured")
        np.testing.assert_array_equal(np.sort(found), np.sort(sample.values), err_msg=name)
    whole = rows(
        canonical,
        "select count(*), count(distinct (instance, o)) from (select instance, unnest(ordinals) o from tasks)",
    )
    assert whole == [(len(seen.calls), len(seen.calls))]


# --- runs of every kind


def test_several_runs_are_told_apart_by_the_names_of_their_directories(tmp_path: Path, canonical: Path) -> None:
    small = write(tmp_path / "small", [call(1), call(2)])
    found = rows([small, canonical], "select run, count(*) from calls group by run order by run")
    assert found == [("canonical", 696), ("small", 2)]
    twin = write(tmp_path / "deeper" / "small", [call(3)]) if (tmp_path / "deeper").mkdir() is None else small
    assert {name for (name,) in rows([small, twin], "select run from runs")} == {str(small), str(twin)}
    with pytest.raises(UsageError, match="named twice"):
        query([small, small], "select 1")


def test_a_killed_run_is_recovered_and_a_going_one_is_read_as_it_stands(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "going", manifest(), b"{}") as writer:
        writer.call(call(1))
        writer.call(call(2, status="error", error_kind="connect", chunks=[]))
        writer.sync()
        assert (tmp_path / "going" / JOURNAL).exists()
        found = rows(tmp_path / "going", "select instance, status, ttft_s from calls_s order by instance")
        assert found == [(1, "ok", pytest.approx(0.001, rel=1e-4)), (2, "error", INF)]
        assert rows(tmp_path / "going", "select status from runs") == [("running",)]
        writer.close()
    assert rows(tmp_path / "going", "select status from runs") == [("finished",)]


def test_an_older_run_without_some_columns_has_their_defaults(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write(tmp_path / "old", [call(1, after=[Dependency(0, 5, "tool")]), call(2)])
    table = pq.read_table(path / "calls.parquet")
    pq.write_table(table.drop_columns(["after", "admitted_ns", "phase", "retries"]), path / "calls.parquet")
    assert rows(path, "select after, admitted_ns, phase, retries from calls") == [([], None, "run", 0)] * 2
    assert rows(path, "select ttft_s is not null from calls_s") == [(True,)] * 2
    assert rows(path, "select * from edges") == []


def test_a_run_of_no_calls_answers_with_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "empty", [])
    for table in TABLES:
        assert len(rows(path, f"select * from {table}")) == (table in ("runs", "sessions", "sessions_s", "server"))


def test_tables_that_are_told_of_are_there_and_no_others(canonical: Path) -> None:
    told = {str(name) for name, *_ in rows(canonical, "show tables") if not str(name).startswith("_")}
    assert told == set(TABLES)
    page = (ROOT / "docs/queries.md").read_text()
    assert [name for name in TABLES if f"`{name}`" not in page] == []


def test_a_damaged_table_says_which_file(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [call(1)])
    (path / "calls.parquet").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"calls\.parquet"):
        query([path], "select * from calls")
    with pytest.raises(StoreError, match="no run here"):
        query([tmp_path / "nothing"], "select 1")


# --- nothing gets in or out


def test_a_query_can_neither_write_nor_read_a_file(canonical: Path, tmp_path: Path) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in canonical.iterdir()}
    target = tmp_path / "out.csv"
    for text in (
        f"copy calls to '{target}'",
        f"copy calls to '{canonical / 'calls.parquet'}' (format parquet)",
        f"export database '{tmp_path / 'db'}'",
        f"attach '{tmp_path / 'other.db'}'",
        f"select * from '{canonical / 'calls.parquet'}'",
        "select * from read_text('/etc/hostname')",
        "select * from glob('/*')",
        "install httpfs",
        "set enable_external_access = true",
        "select * from target",  # a name of this very function
        "insert into calls select * from calls",
    ):
        with pytest.raises(UsageError):
            list(query([canonical], text).rows())
    assert list(tmp_path.iterdir()) == []
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in canonical.iterdir()} == before


def test_a_fault_of_the_query_is_told_with_what_there_is_to_ask(canonical: Path) -> None:
    with pytest.raises(UsageError) as told:
        query([canonical], "select ttft from calls_s")
    assert '"ttft" not found' in str(told.value)
    assert "describe calls_s" in str(told.value)
    with pytest.raises(UsageError):  # only when rows are fetched does it turn out
        list(query([canonical], "select error(call) from calls").rows())
    with pytest.raises(UsageError, match="empty"):
        query([canonical], "  ")


def test_without_duckdb_it_says_how_to_get_it(canonical: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(WorkloomError, match=r"workloom\[sql\]"):
        sql.query([canonical], "select 1")


# --- the command


@pytest.fixture
def ask(canonical: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    def go(*words: str, code: int = 0) -> tuple[str, str]:
        assert workloom(monkeypatch, "sql", str(canonical), *words) == code
        said = capsys.readouterr()
        return said.out, said.err

    yield go


def test_the_three_forms_of_an_answer_hold_the_same_rows(ask) -> None:  # type: ignore[no-untyped-def]
    text = "select session, due_s, 'inf'::double as never, null as nothing from calls_s order by due_s limit 3"
    as_json = json.loads(ask(text, "--json")[0])
    as_csv = list(csv.DictReader(io.StringIO(ask(text, "--csv")[0])))
    assert [row["session"] for row in as_json] == [row["session"] for row in as_csv]
    assert [float(row["due_s"]) for row in as_csv] == [row["due_s"] for row in as_json]
    assert {row["never"] for row in as_csv} == {"inf"} and {row["never"] for row in as_json} == {None}
    table, _ = ask(text)
    assert all(str(row["session"]) in table for row in as_json)


def test_a_long_answer_is_cut_on_the_terminal_only_and_says_so(ask) -> None:  # type: ignore[no-untyped-def]
    out, err = ask("select instance from calls", "--rows", "5")
    assert len(out.splitlines()) == 7
    assert "5 of 696 rows" in err
    assert len(json.loads(ask("select instance from calls", "--json")[0])) == 696
    assert json.loads(ask("select instance from calls where false", "--json")[0]) == []


def test_a_query_may_stand_in_a_file(ask, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "q.sql").write_text("-- how many\nselect count(*) as n from calls;\n")
    assert json.loads(ask(str(tmp_path / "q.sql"), "--json")[0]) == [{"n": 696}]
    assert "cannot be read" in ask(str(tmp_path / "none.sql"), code=2)[1]


def test_names_of_a_trace_are_not_obeyed_by_the_terminal(ask) -> None:  # type: ignore[no-untyped-def]
    out, _ = ask("select '[red]x[/red]' as a, chr(27) || '[31m' as b")
    assert "[red]x[/red]" in out and "\x1b" not in out


def test_a_command_without_a_query_says_what_is_missing(ask) -> None:  # type: ignore[no-untyped-def]
    assert 'workloom sql RUN "select' in ask(code=2)[1]
    assert "one form" in ask("select 1", "--json", "--csv", code=2)[1]


def test_the_answers_of_the_page_are_what_its_queries_give(canonical: Path) -> None:
    module = script()
    text = module.PAGE.read_text("utf-8")
    assert len(module.BLOCK.findall(text)) == 10
    assert module.page(text, lambda asked: module.answer(canonical, asked)) == text
