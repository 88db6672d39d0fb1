"""The run directory: what is written survives a kill, a full disk and a second look; secrets never get there."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import msgspec
import pytest

from workloom.clock import VirtualClock, run_virtual
from workloom.errors import StoreError
from workloom.records import CallRecord, ChunkRun, ServerSample, SessionRecord
from workloom.store import Manifest, RunWriter, open_run, tables
from workloom.store.journal import Journal, JournalReader
from workloom.store.manifest import REDACTED, redact, redact_argv, redact_text

MS = 1_000_000


def call(instance: int, ordinal: int = 0, **fields: object) -> CallRecord:
    begin = instance * 10 * MS
    instants = {"due_ns": begin, "sent_ns": begin + 1, "first_ns": begin + MS, "last_ns": begin + 5 * MS}
    chunks = [ChunkRun(begin + MS, 1.5 * MS, 0.25, 3, 1), ChunkRun(begin + 5 * MS, 0.0, 0.0, 1, 2)]
    names = {"instance": instance, "ordinal": ordinal, "session": f"s{instance}", "call": f"c{ordinal}"}
    rest = {"agent": "main", "model": "m", "status": "ok", "output_tokens": 5, "chunks": chunks}
    return CallRecord(**{**names, **rest, **instants, **fields})  # type: ignore[arg-type]


def session(instance: int) -> SessionRecord:
    return SessionRecord(instance, f"s{instance}", "ok", 0, 1, 2, calls=2, calls_ok=2)


def manifest(**fields: object) -> Manifest:
    return Manifest(backend="simulated", **fields)  # type: ignore[arg-type]


def write(path: Path, calls: list[CallRecord], **end: object) -> None:
    with RunWriter.create(path, manifest(), b'{"plan": 1}') as writer:
        for record in calls:
            writer.call(record)
        writer.session(session(1))
        writer.server(ServerSample(7, "vllm:num_requests_running", 3.0))
        writer.close(**end)  # type: ignore[arg-type]


def python(code: str, *args: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- a run that comes to its end


def test_what_was_written_is_read_back_in_the_order_of_the_plan(tmp_path: Path) -> None:
    calls = [call(2, 1), call(10), call(2, 0, status="error", error_kind="status", error="500", chunks=[]), call(1)]
    write(tmp_path / "run", calls, summarize=lambda run: b"%d" % len(list(run.calls())))
    run = open_run(tmp_path / "run")
    assert [(c.instance, c.ordinal) for c in run.calls()] == [(1, 0), (2, 0), (2, 1), (10, 0)]
    assert sorted(run.calls(), key=repr) == sorted(calls, key=repr)
    assert list(run.sessions()) == [session(1)]
    assert list(run.server()) == [ServerSample(7, "vllm:num_requests_running", 3.0)]
    assert (run.plan_json, run.summary_json, run.live) == (b'{"plan": 1}', b"4", False)
    assert run.manifest.status == "finished"
    assert run.manifest.ended is not None and run.manifest.cpu_s is not None
    tables_and_words = ["calls.parquet", "manifest.json", "plan.json", "server.parquet", "sessions.parquet"]
    assert sorted(os.listdir(run.path)) == [*tables_and_words, "summary.json"]


def test_equal_records_make_equal_bytes_in_whatever_order_they_came(tmp_path: Path) -> None:
    calls = [call(i, j) for i in range(40) for j in range(5)]
    write(tmp_path / "a", calls)
    random.Random(1).shuffle(calls)
    write(tmp_path / "b", calls)
    for name in ("calls.parquet", "sessions.parquet", "server.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    write(tmp_path / "c", [*calls[1:], call(99)])
    assert (tmp_path / "a" / "calls.parquet").read_bytes() != (tmp_path / "c" / "calls.parquet").read_bytes()


def test_a_run_without_calls_is_a_run(tmp_path: Path) -> None:
    RunWriter.create(tmp_path / "run", manifest(), b"{}").close()
    run = open_run(tmp_path / "run")
    assert (list(run.calls()), list(run.sessions()), list(run.server())) == ([], [], [])


def test_tables_come_in_batches_and_are_the_same_in_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 7)
    calls = [call(i) for i in range(30)]
    write(tmp_path / "run", calls)
    run = open_run(tmp_path / "run")
    assert list(run.calls()) == calls
    assert [batch.num_rows for batch in run.batches(CallRecord, ["due_ns"])] == [7, 7, 7, 7, 2]


def test_an_exception_closes_the_run_with_what_there_is(tmp_path: Path) -> None:
    for error, status in ((ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted")):
        path = tmp_path / status
        with pytest.raises(type(error)), RunWriter.create(path, manifest(), b"{}") as writer:
            writer.call(call(1))
            raise error
        run = open_run(path)
        assert (run.manifest.status, len(list(run.calls()))) == (status, 1)
    with pytest.raises(StoreError, match="closed"):
        writer.call(call(2))


def test_importing_the_store_loads_no_table_library() -> None:
    process = python("import sys, workloom.store; print([m for m in ('numpy', 'pyarrow') if m in sys.modules])")
    assert process.communicate()[0].strip() == "[]"


# --- directories that will not do


def test_a_directory_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "run", [call(1)])
    before = {name: (tmp_path / "run" / name).read_bytes() for name in os.listdir(tmp_path / "run")}
    with pytest.raises(StoreError, match="already holds a run") as caught:
        RunWriter.create(tmp_path / "run", manifest(), b"{}")
    assert caught.value.hint
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in os.listdir(tmp_path / "run")}


def test_a_directory_that_is_not_empty_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("all of it")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"not empty.*\n.*\n.*\n.*thesis"):
        RunWriter.create(tmp_path / "other", manifest(), b"{}")
    with pytest.raises(StoreError, match="needs a directory"):
        RunWriter.create(tmp_path / "file", manifest(), b"{}")
    (tmp_path / "empty").mkdir()
    RunWriter.create(tmp_path / "empty", manifest(), b"{}").close()


def test_a_place_where_nothing_can_be_written_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        RunWriter.create("/dev/null/run", manifest(), b"{}")

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "sync", no_room)
    with pytest.raises(StoreError, match="No space left"):
        RunWriter.create(tmp_path / "deep" / "run", manifest(), b"{}")
    assert os.listdir(tmp_path / "deep") == []
    assert not [t for t in threading.enumerate() if t.name == "workloom-journal"]


READ_ONLY = """
    import os, sys
    import pyarrow.compute, pyarrow.parquet, workloom.store.tables, encodings.idna
    from workloom.errors import StoreError
    from workloom.store import Manifest, RunWriter, open_run
    os.chmod(sys.argv[1], 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        RunWriter.create(sys.argv[1] + "/new", Manifest(backend="http"), b"{}")
    except StoreError as error:
        print(error.what)
    run = open_run(sys.argv[1] + "/killed")
    print(run.manifest.status, sum(1 for _ in run.calls()))
"""


def test_a_read_only_directory_takes_no_run_and_still_shows_a_killed_one(tmp_path: Path) -> None:
    root = tmp_path / "root"
    abandon(root / "killed", [call(1), call(2)])
    for path in [root, *root.parents]:
        if any(part.startswith("pytest-of-") for part in path.parts):
            path.chmod(0o755)
    (root / "killed").chmod(0o555)
    process = python(READ_ONLY, root)
    out, err = process.communicate(timeout=30)
    root.chmod(0o755)
    assert out.splitlines() == ["the directory of the run cannot be written: Permission denied", "killed 2"], err
    assert (root / "killed" / "journal").exists()


def test_no_run_is_said_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run here") as caught:
        open_run(tmp_path / "nothing")
    assert caught.value.found == "no such directory" and caught.value.hint


# --- runs that were killed


def abandon(path: Path, calls: list[CallRecord]) -> None:
    """Leave a run as a killed process does."""
    writer = RunWriter.create(path, manifest(), b"{}")
    for record in calls:
        writer.call(record)
        writer.sync()
    writer._journal.close()
    os.close(writer._lock)


WRITER = """
    import mmap, struct, sys, time
    from workloom.records import CallRecord, ChunkRun
    from workloom.store import Manifest, RunWriter, journal
    with open(sys.argv[1] + ".log", "r+b") as file:
        log = mmap.mmap(file.fileno(), 0)  # when each call was appended: survives a kill without being written
    calls = len(log) // 8 - 1
    write_all = journal._write_all

    def timed(fd, data):
        begin = time.monotonic_ns()
        write_all(fd, data)
        struct.pack_into("<q", log, 8 * calls, begin)  # and when the last write began that was done

    journal._write_all = timed
    writer = RunWriter.create(sys.argv[1], Manifest(backend="http"), b"{}")
    print("ready", flush=True)
    for i in range(calls):
        chunks = [ChunkRun(i, 1.0, 0.0, 2, 1)] * 20
        writer.call(CallRecord(i // 5, f"s{i // 5}", "c", "main", "m", "ok", 0, ordinal=i % 5, chunks=chunks))
        struct.pack_into("<q", log, 8 * i, time.monotonic_ns())
        time.sleep(0.0002)
"""


def test_a_run_killed_at_random_instants_keeps_every_call_older_than_a_second(tmp_path: Path) -> None:
    rng = random.Random(7)
    kept = in_time = 0
    for batch in range(3):
        paths = [tmp_path / f"{batch}-{i}" for i in range(4)]
        for path in paths:
            Path(f"{path}.log").write_bytes(bytes(8 * 20_001))
        processes = [python(WRITER, path) for path in paths]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        begin = time.monotonic()
        for path, process, at in zip(paths, processes, sorted(rng.uniform(0.0, 1.45) for _ in paths), strict=True):
            time.sleep(max(0.0, begin + at - time.monotonic()))
            killed_ns = time.monotonic_ns()
            process.kill()
            process.communicate()
            *stamps, (written_ns,) = struct.iter_unpack("<q", Path(f"{path}.log").read_bytes())
            appended_ns = [ns for (ns,) in stamps if ns]
            run = open_run(path)
            found = [(c.instance, c.ordinal) for c in run.calls()]
            assert found == [divmod(i, 5) for i in range(len(found))]
            assert sum(ns < written_ns - 1_000 * MS for ns in appended_ns) <= len(found) <= len(appended_ns) + 1
            in_time += sum(ns < killed_ns - 500 * MS for ns in appended_ns) <= len(found)
            assert (run.manifest.status, open_run(path).manifest.status) == ("killed", "killed")
            assert not (path / "journal").exists()
            kept += len(found)
    assert kept > 600
    assert in_time >= 8  # of 12 kept all older than half a second: a busy machine may let the writer wait at times


def test_a_torn_tail_is_dropped_and_counted_wherever_it_was_torn(tmp_path: Path) -> None:
    abandon(tmp_path / "whole", [call(1), call(2), call(3)])
    data = (tmp_path / "whole" / "journal").read_bytes()
    ends = [size for size in range(len(data) + 1) if torn(tmp_path, data[:size])[1] == 0]
    assert ends[0] == 0 and ends[1] == 8 and ends[-1] == len(data) and len(ends) == 5
    for size in range(0, len(data), 37):
        calls, dropped = torn(tmp_path, data[:size])
        assert calls == sum(end <= size for end in ends[2:]) and dropped == size - max(e for e in ends if e <= size)
    broken = bytearray(data)
    broken[ends[3] + 40] ^= 1  # each was synced by itself, so each is a batch
    assert torn(tmp_path, bytes(broken)) == (2, ends[4] - ends[3])
    assert torn(tmp_path, data + bytes(64)) == (3, 64)
    (tmp_path / "whole" / "journal").write_bytes(data[:-5])
    run = open_run(tmp_path / "whole")
    assert [c.instance for c in run.calls()] == [1, 2]
    assert run.manifest.torn_bytes == open_run(tmp_path / "whole").manifest.torn_bytes == ends[4] - ends[3] - 5


def torn(tmp_path: Path, data: bytes) -> tuple[int, int]:
    (tmp_path / "journal").write_bytes(data)
    reader = JournalReader(tmp_path / "journal")
    return len(list(reader.bodies(1))), reader.torn_bytes


def test_a_run_that_is_going_is_read_as_it_is_and_not_recovered(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "run", manifest(), b"{}")
    writer.call(call(2))
    writer.call(call(1))
    writer.sync()
    run = open_run(tmp_path / "run")
    assert (run.live, run.manifest.status, [c.instance for c in run.calls()]) == (True, "running", [1, 2])
    assert [batch.schema.names for batch in run.batches(CallRecord, ["due_ns"])] == [["due_ns"]]
    writer.call(call(3))
    writer.close("interrupted")
    assert [c.instance for c in open_run(tmp_path / "run").calls()] == [1, 2, 3]


def test_a_kill_while_the_tables_are_made_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [call(i) for i in range(5)]
    write(tmp_path / "calm", calls)
    abandon(tmp_path / "run", calls)
    (tmp_path / "run" / "calls.parquet").write_bytes(b"half a table")
    (tmp_path / "run" / "sessions.parquet.part").write_bytes(b"half a table")
    assert list(open_run(tmp_path / "run").calls()) == calls
    assert (tmp_path / "run" / "calls.parquet").read_bytes() == (tmp_path / "calm" / "calls.parquet").read_bytes()


# --- records and files that will not do


BAD = {
    "too large a number": ({"prompt_tokens": 2**63}, "column prompt_tokens"),
    "a wrong type": ({"output_tokens": "many"}, "output_tokens"),
    "too large a number in a chunk": ({"chunks": [ChunkRun(2**63, 0.0, 0.0, 1, 1)]}, "column chunks"),
}


@pytest.mark.parametrize(("fields", "named"), BAD.values(), ids=BAD.keys())
def test_a_record_that_no_table_holds_is_an_error_and_then_dropped_and_counted(
    tmp_path: Path, fields: dict[str, object], named: str
) -> None:
    bad = call(2, **fields)
    writer = RunWriter.create(tmp_path / "run", manifest(), b"{}")
    for record in (call(1), bad, call(3)):
        writer.call(record)
    writer.session(session(1))
    writer.sync()
    assert [c.instance for c in open_run(tmp_path / "run").calls()] == [1, 3]  # while it goes
    with pytest.raises(StoreError, match="table calls") as caught:
        writer.close()
    assert named in str(caught.value) and caught.value.hint
    for _ in range(2):
        run = open_run(tmp_path / "run")
        assert ([c.instance for c in run.calls()], list(run.sessions())) == ([1, 3], [session(1)])
        assert (run.manifest.status, run.manifest.torn_bytes) == ("failed", len(msgspec.msgpack.encode(bad)))
    assert not (tmp_path / "run" / "journal").exists()
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_value_that_does_not_fit_names_its_table_and_column() -> None:
    for fields, column in (({"due_ns": 1 << 70}, "due_ns"), ({"agent": 7}, "agent"), ({"chunks": [(1,)]}, "chunks")):
        with pytest.raises(StoreError, match=f"table calls, column {column}"):
            tables.to_batch(CallRecord, [call(1), call(1, **fields)])


def test_a_table_that_is_gone_or_damaged_is_said_with_a_hint(tmp_path: Path) -> None:
    write(tmp_path / "run", [call(1)])
    for damage in (lambda path: path.write_bytes(b"PAR1 and no more"), lambda path: path.unlink()):
        damage(tmp_path / "run" / "calls.parquet")
        with pytest.raises(StoreError, match="cannot be read") as caught:
            list(open_run(tmp_path / "run").calls())
        assert caught.value.hint and "calls.parquet" in str(caught.value.where)


# --- disks that are full


def test_a_full_disk_is_an_error_of_the_next_append_and_of_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter.create(tmp_path / "run", manifest(), b"{}")
    writer.call(call(1))
    writer.sync()
    write_for_real = os.write
    room = [100]

    def full(fd: int, data: bytes) -> int:
        if threading.current_thread().name != "workloom-journal":
            return write_for_real(fd, data)
        if room:
            return write_for_real(fd, data[: room.pop()])  # part of it still fits
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    writer.call(call(2))
    with pytest.raises(StoreError, match="No space left"):
        for _ in range(1000):
            time.sleep(0.01)
            writer.call(call(3))
    with pytest.raises(StoreError, match="No space left"):
        writer.sync()
    with pytest.raises(StoreError, match="No space left"):
        writer.close()
    monkeypatch.undo()
    run = open_run(tmp_path / "run")
    assert ([c.instance for c in run.calls()], run.manifest.status) == ([1], "failed")
    assert run.manifest.error is not None and "No space left" in run.manifest.error


LIMITED = """
    import resource, signal, sys
    from workloom.errors import StoreError
    from workloom.records import CallRecord
    from workloom.store import Manifest, RunWriter
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    writer = RunWriter.create(sys.argv[1], Manifest(backend="http"), b"{}")
    try:
        for i in range(10**7):
            writer.call(CallRecord(i, f"s{i}", "c", "main", "m", "ok", i))
    except StoreError as error:
        print(error.what)
    try:
        writer.close()
    except StoreError as error:
        print(error.what)
"""


def test_a_file_size_limit_is_an_error_and_what_fitted_is_recovered(tmp_path: Path) -> None:
    out, err = python(LIMITED, tmp_path / "run").communicate(timeout=60)
    assert len(out.splitlines()) == 2 and all("File too large" in line for line in out.splitlines()), err
    calls = [c.instance for c in open_run(tmp_path / "run").calls()]
    assert calls == list(range(len(calls))) and len(calls) > 1000


def test_a_slow_disk_holds_the_run_back_instead_of_filling_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloom.store.journal.MOST_BYTES", 10_000)
    monkeypatch.setattr("workloom.store.journal.WAKE_BYTES", 5_000)
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (time.sleep(0.02), sync(fd)))
    journal = Journal(tmp_path / "journal")
    for i in range(100):
        journal.append(1, i, 0, bytes(1000))
        assert journal._waiting_bytes <= 12_000
    journal.close()
    assert journal.stalled_s > 0.05
    assert len(list(JournalReader(tmp_path / "journal").bodies(1))) == 100


# --- secrets


SECRET = "s3cr3t-Va1ue"


@pytest.mark.parametrize(
    "argv",
    [
        ["--api-key", SECRET],
        [f"--api-key={SECRET}"],
        ["-H", f"Authorization: Bearer {SECRET}"],
        ["--header", f"authorization: Digest user {SECRET}"],
        [f"--header=X-Api-Key: {SECRET}"],
        ["--header", f"X-Team=blue {SECRET}"],
        [f"--header=X-Team: {SECRET}"],
        ["--url", f"https://me:{SECRET}@host/v1"],
        ["--url", f"https://host/v1?api_key={SECRET}&model=m"],
        ["--body", f'{{"auth_token": "{SECRET}", "top_p": 1}}'],
        [f"OPENAI_API_KEY={SECRET}"],
        ["run", "sk-proj-0123456789abcdef-s3cr3t-Va1ue"],
    ],
)
def test_no_secret_of_a_command_line_reaches_the_disk(tmp_path: Path, argv: list[str]) -> None:
    config = {"argv": argv, "headers": {"X-Team": SECRET}, "auth": {"kind": "x", "value": [SECRET]}}
    RunWriter.create(tmp_path / "run", manifest(argv=argv, config=config), b"{}").close(error=f"api_key={SECRET}")
    for path in (tmp_path / "run").iterdir():
        assert SECRET.encode() not in path.read_bytes()
    assert REDACTED in str(redact_argv(argv))


def test_a_key_from_the_environment_is_found_wherever_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SERVICE_KEY", SECRET)
    with RunWriter.create(tmp_path / "run", manifest(), b"{}") as writer:
        writer.call(call(1, status="error", error_kind="status", error=f"401: the key {SECRET} is unknown"))
    assert [c.error for c in open_run(tmp_path / "run").calls()] == [f"401: the key {REDACTED} is unknown"]


def test_what_only_sounds_like_a_secret_stays() -> None:
    argv = ["run", "t.jsonl", "--kv-tokens", "inf", "--api-key-env", "MY_VARIABLE", "--us-per-token", "12", "--seed=1"]
    assert redact_argv(argv) == argv
    assert redact_argv(["-H", "X-A: 1", "t.jsonl"]) == ["-H", f"X-A:{REDACTED}", "t.jsonl"]
    config = {"max_tokens": 10, "us_per_token": 12.5, "keys": ["a"], "kv_tokens": float("inf"), "api_key": None}
    assert redact(config) == {**config, "kv_tokens": "inf"}
    assert redact_text("2 tokens: a, b; keyboard=us; http://host:8000/v1") == (
        "2 tokens: a, b; keyboard=us; http://host:8000/v1"
    )


def test_a_run_in_virtual_time_is_written_in_host_time(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        with RunWriter.create(tmp_path / "run", manifest(), b"{}") as writer:
            for i in range(5):
                await clock.sleep_until(i * 3600 * 1000 * MS)
                writer.call(call(i, due_ns=clock.now()))
            writer.sync()
            assert len(list(open_run(tmp_path / "run").calls())) == 5

    run_virtual(main)
    assert [c.due_ns for c in open_run(tmp_path / "run").calls()] == [i * 3600 * 1000 * MS for i in range(5)]
