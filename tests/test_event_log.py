"""The event log of a run: whole or not there, and enough to work out every figure of the run again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from cluster_audit import DecodeAudit
from engine_audit import Audited
from numpy import percentile

import workloom
from workloom.cli import main
from workloom.engine.events import Event
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import load
from workloom.errors import UsageError
from workloom.execute.event_log import Began, EventLog, HandedOver, Head, Submitted, read
from workloom.prefix import Key
from workloom.store import open_run

CANONICAL = Path(workloom.__file__).parent / "data/canonical.jsonl"
ENGINE = ["--engine", "llama-3.1-70b-h200x4", "--block-tokens", "256", "--kv-tokens", "160000"]
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(folder: Path, *options: str, engine: list[str] = ENGINE) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["workloom", "run", str(CANONICAL), "-o", str(folder), *engine, *options])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def audited(log: Path) -> dict[str, DecodeAudit]:
    """The books of every replica, kept from the log alone."""
    head, told = read(log)
    books: dict[str, DecodeAudit] = {}
    for replica, event in told:
        match event:
            case Began():
                books[replica] = DecodeAudit(event.profile, prefix_cache=head.prefix_cache)
            case Submitted(at_ns, call, ids, ends, answer, output_tokens):
                books[replica].submit(at_ns, call, Key(ids, ends), answer, output_tokens)
            case HandedOver(at_ns, call, ids, ends, answer, output_tokens):
                books[replica].receive(at_ns, call, Key(ids, ends), answer, output_tokens)
            case _:
                books[replica].hear(event)
    for each in books.values():
        each._come(None)
        assert each.evicted == each.blocks.evicted and not each._running and not each._waiting
    return books


@pytest.mark.parametrize(
    "options",
    [["--concurrency", "8"], ["--concurrency", "12", "--replicas", "2", "--router", "prefix"]],
    ids=["one", "two behind a router"],
)
def test_a_run_of_the_canonical_workload_is_what_its_event_log_says(
    tmp_path: Path, command: Command, options: list[str]
) -> None:
    log = tmp_path / "events.jsonl"
    code, said = command(tmp_path / "run", *options, "--event-log", str(log))
    assert code == 0, said
    books = audited(log)
    assert sum(book.evicted for book in books.values()) > 0, "there is something to find"
    rows = pq.read_table(tmp_path / "run" / "calls.parquet").to_pylist()
    assert sum(len(book.calls) for book in books.values()) == len(rows) > 600
    for row in rows:
        check_row(row, books[row["target"] or ""].calls[f"{row['instance']}/{row['call']}"])
    check_summary(tmp_path / "run", rows, books)
    check_server(tmp_path / "run", books)


def test_so_is_one_whose_prompts_and_answers_are_made_apart(tmp_path: Path, command: Command) -> None:
    log, fleet = tmp_path / "events.jsonl", tmp_path / "fleet.yaml"
    override = "override: {kv_token_bytes: 327680, kv_tokens: 160000, block_tokens: 256}"
    pools = [
        f"  - {{engine: llama-3.1-70b-h200x4, role: {role}, {override}}}" for role in ("prefill", "decode", "decode")
    ]
    fleet.write_text("pools:\n" + "\n".join(pools))
    code, said = command(tmp_path / "run", "--sessions", "8", "--event-log", str(log), engine=["--fleet", str(fleet)])
    assert code == 0, said
    books = audited(log)
    assert [bool(book.taken_over) for _, book in sorted(books.items())] == [False, True, True]
    rows = pq.read_table(tmp_path / "run" / "calls.parquet").to_pylist()
    for row in rows:
        name = f"{row['instance']}/{row['call']}"
        first, rest = books["0"].calls[name], books[row["target"]].calls[name]
        came = first.came_ps if rest is first else [*first.came_ps, *rest.came_ps]
        assert (row["first_ns"], row["done_ns"]) == (-(-came[0] // 1000), -(-came[-1] // 1000))
        assert (row["output_tokens"], row["cached_tokens"]) == (len(came), first.cached)


def check_row(row: dict[str, Any], call: Audited) -> None:
    assert row["status"] == "ok" and row["sent_ns"] * 1000 == call.submitted_ps
    assert row["first_ns"] == -(-call.came_ps[0] // 1000) and row["done_ns"] == -(-call.came_ps[-1] // 1000)
    assert (row["prompt_tokens"], row["output_tokens"]) == (call.prompt.tokens, call.made)
    assert row["cached_tokens"] == call.cached


def check_summary(run: Path, rows: list[dict[str, Any]], books: dict[str, DecodeAudit]) -> None:
    """Over the calls that were due in the window; all that the run says is what their tokens' instants say."""
    summary = msgspec.json.decode((run / "summary.json").read_bytes())
    window = summary["window"]
    ours = {name: call for book in books.values() for name, call in book.calls.items()}
    due = [row for row in rows if window["start_ns"] <= row["due_ns"] < window["end_ns"]]
    calls = [ours[f"{row['instance']}/{row['call']}"] for row in due]
    assert summary["calls"]["ok"] == len(calls) > 100
    ttft_s = [(-(-call.came_ps[0] // 1000) - row["due_ns"]) / 1e9 for row, call in zip(due, calls, strict=True)]
    e2e_s = [(-(-call.came_ps[-1] // 1000) - row["due_ns"]) / 1e9 for row, call in zip(due, calls, strict=True)]
    tbc_s = [(late - early) / 1e12 for call in calls for early, late in pairwise(call.came_ps)]
    for name, values in (("ttft_s", ttft_s), ("e2e_s", e2e_s), ("tbc_s", tbc_s)):
        said = summary["latency"][name]
        assert said["n"] == len(values)
        for level in (50, 95, 99):
            assert said[f"p{level}"] == pytest.approx(float(percentile(values, level)), rel=1e-6)
    cached, prompts = sum(call.cached or 0 for call in calls), sum(call.prompt.tokens for call in calls)
    assert summary["hits"]["reported"] == pytest.approx(cached / prompts, rel=1e-12)
    assert summary["tokens"]["output"] == sum(call.made for call in calls)


def check_server(run: Path, books: dict[str, DecodeAudit]) -> None:
    """The counters of every replica stand at the end where its events lead to."""
    samples = pq.read_table(run / "server.parquet").to_pylist()
    last = {(each["name"], each["replica"] or ""): each["value"] for each in samples}
    for replica, book in books.items():
        calls = book.calls.values()
        assert last["vllm:generation_tokens", replica] == sum(call.made for call in calls)
        assert last["vllm:prompt_tokens", replica] == sum(call.prompt.tokens for call in calls)
        assert last["vllm:prefix_cache_hits", replica] == sum(call.cached or 0 for call in calls)
        assert last["vllm:num_preemptions", replica] == sum(call.preemptions for call in calls)


def test_a_run_is_the_same_without_its_log(tmp_path: Path, command: Command) -> None:
    few = ["--sessions", "2"]
    command(tmp_path / "with", *few, "--event-log", str(tmp_path / "events.jsonl"))
    command(tmp_path / "without", *few)
    for table in ("calls.parquet", "sessions.parquet", "server.parquet"):
        assert (tmp_path / "with" / table).read_bytes() == (tmp_path / "without" / table).read_bytes()
    with_log, without = (open_run(tmp_path / name).manifest for name in ("with", "without"))
    assert with_log.config == without.config


def test_a_log_is_not_written_over_nor_where_there_is_no_directory(tmp_path: Path, command: Command) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text("mine")
    code, said = command(tmp_path / "run", "--event-log", str(log))
    assert code == 2 and "the event log is there already" in said and "hint:" in said
    code, said = command(tmp_path / "run", "--event-log", str(tmp_path / "no" / "events.jsonl"))
    assert code == 2 and "there is no such directory" in said
    assert log.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


def head() -> Head:
    return Head(1, Fleet((Pool(load("llama-3.1-8b-h200x1")),)), True)


def test_a_log_that_breaks_leaves_nothing_and_one_that_ends_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(RuntimeError), EventLog(path, head()) as log:
        log.engine("", head().fleet.pools[0].profile, True).submit(0, "a", Key((1,), (10,)), 2, 3)
        assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl.part"]
        with pytest.raises(UsageError, match="another run writes this event log"):
            EventLog(path, head())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with EventLog(path, head()) as log:
        engine = log.engine("", head().fleet.pools[0].profile, True)
        engine.submit(0, "a", Key((1,), (10,)), 2, 3)
        while (at := engine.next_ns()) is not None:
            engine.advance(at)
    assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl"]
    found, told = read(path)
    assert found == head()
    assert [type(event).__name__ for _, event in told] == [
        *("Began", "Submitted", "Queued", "Admitted", "Ran", "Ran", "Ended")
    ]
    path.write_text(path.read_text() + '{"replica": "", "event": "rained"}\n')
    with pytest.raises(UsageError, match=r"events.jsonl:9"):
        list(read(path)[1])


def test_events_come_back_as_they_were_told(tmp_path: Path) -> None:
    """Tuples within tuples included."""
    told: list[Event] = []
    path = tmp_path / "events.jsonl"
    with EventLog(path, head()) as log:
        engine = log.engine("7", head().fleet.pools[0].profile, True)
        write = engine._teller._listener  # type: ignore[union-attr]
        engine._teller._listener = lambda event: (told.append(event), write(event))[1]  # type: ignore[union-attr]
        for i in range(3):
            engine.submit(i, f"c{i}", Key((1, 2 + i), (600, 900)), 100 + i, 4)
        while (at := engine.next_ns()) is not None:
            engine.advance(at)
    read_back = [event for replica, event in read(path)[1] if replica == "7"]
    read_back = [event for event in read_back if not isinstance(event, Began | Submitted)]
    assert read_back == told and len(told) > 8
