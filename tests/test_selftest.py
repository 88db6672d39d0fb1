"""`workloom selftest`: the search for a limit, the null server and its record, and runs as users have them."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import urllib.request
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloom.answers import selftest as answer
from workloom.answers.selftest import (
    BASE,
    RESOLUTION,
    STREAM_TOKENS,
    Error,
    Limit,
    Selftest,
    Trial,
    compare,
    limit,
    null_server,
    one_call_sessions,
    record,
    run,
    search,
)
from workloom.cli import selftest as command
from workloom.drive.null_server import Pace, asked
from workloom.errors import UsageError
from workloom.plan import Closed, Limits, Open
from workloom.records import CallRecord, ChunkRun

MS = 1_000_000


def trial(per_s: float, top: float) -> Trial:
    """What a machine whose limit is `top` would say."""
    busy = min(1.0, 0.85 * per_s / top) if top else 1.0
    if per_s <= top:
        return Trial(per_s, "valid", [], None, 0.0, busy, 0.0)
    return Trial(per_s, "invalid", ["event loop busy"], "busy", 0.0, busy, 0.0)


# -- the search


@given(st.floats(BASE["calls"] / 10, BASE["calls"] * 200))
def test_the_search_closes_in_on_the_limit_from_both_sides(top: float) -> None:
    tried: list[float] = []

    def held(per_s: float) -> Trial:
        tried.append(per_s)
        return trial(per_s, top)

    low, high = search(held, BASE["calls"])
    assert low is not None and high is not None
    assert low.per_s <= top < high.per_s <= low.per_s * RESOLUTION
    assert len(tried) <= 16 and len(set(tried)) == len(tried)


def test_a_machine_that_holds_nothing_has_no_limit() -> None:
    low, high = search(lambda per_s: trial(per_s, 0.0), BASE["calls"])
    assert low is None and high is not None


class Scripted:
    """Measures that answer from a limit; the first `noisy` of them are disturbed."""

    def __init__(self, top: float, noisy: int = 0) -> None:
        self.top, self.noisy = top, noisy

    def trial(self, unit: str, per_s: float) -> Trial:
        self.noisy -= 1
        if self.noisy >= 0:
            return Trial(per_s, "degraded", ["dispatch lag"], "dispatch_lag", 0.01, 0.2, 0.01)
        return trial(per_s, self.top)


def test_disturbed_runs_do_not_lower_the_limit() -> None:
    said: list[str] = []
    quiet = limit("calls", Scripted(5000), said.append)  # type: ignore[arg-type]
    noisy = limit("calls", Scripted(5000, noisy=3), said.append)  # type: ignore[arg-type]
    assert noisy.per_s == quiet.per_s and quiet.rule == "busy" and len(noisy.trials) == len(quiet.trials) + 3
    assert any("valid" in words and "calls/s" in words for words in said)


# -- the null server


def post(url: str, tokens: int, ask: str = "") -> bytes:
    body = json.dumps({"model": "null", "max_tokens": tokens}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"X-Null": ask})
    with urllib.request.urlopen(request, timeout=10) as reply:
        told: bytes = reply.read()
        return told


def test_the_null_server_answers_as_asked_and_keeps_its_record() -> None:
    with null_server("--stamps") as url:
        assert post(url, 3).count(b'"content":" word"') == 3
        paced = post(url, 4, "ttft_ms=30, gap_ms=20")
        assert paced.count(b'"content":" word"') == 4 and paced.endswith(b"data: [DONE]\n\n")
        assert b'"prompt_tokens":1,"completion_tokens":4' in paced
        at_once, slow = record(url)
        assert at_once[0] <= at_once[1] <= at_once[2] and len(at_once[3]) == 3
        read, first, last, stamps = slow
        assert first - read >= 30 * MS and last - read >= 90 * MS
        assert (stamps[0], stamps[-1], len(stamps)) == (first, last, 4)
        assert all(stamp >= read + (30 + 20 * i) * MS for i, stamp in enumerate(stamps))
        assert record(url) == []
        with urllib.request.urlopen(f"{url}/models", timeout=10) as listing:
            assert json.loads(listing.read())["data"][0]["id"] == "null"


def test_a_pace_is_read_from_a_header_or_a_query() -> None:
    own = Pace(1, 2, 3)
    assert asked(b"POST /v1/chat/completions HTTP/1.1", own) is own
    assert asked(b"POST /v1/chat/completions?ttft_ms=5&batch=8 HTTP/1.1", own) == Pace(5 * MS, 2, 8)
    assert asked(b"POST / HTTP/1.1\r\nX-Null: gap_ms=0.5", own) == Pace(1, MS // 2, 3)


def test_a_request_in_pieces_is_one_request_and_a_client_that_left_ends_its_stream_only() -> None:
    with null_server() as url:
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nX-Null: gap_ms=5\r\nContent-Le")
            raw.sendall(b'ngth: 19\r\n\r\n{"max_tokens"')
            raw.sendall(b": 1000")
            raw.sendall(b"}")
            assert raw.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert post(url, 2, "gap_ms=1").count(b'"content":" word"') == 2
        assert len(json.loads(urllib.request.urlopen(url.removesuffix("/v1") + "/record").read())) == 2


def test_a_reader_that_is_slow_gets_every_byte() -> None:
    with null_server() as url:
        connection = HTTPConnection("127.0.0.1", int(url.split(":")[2].split("/")[0]), timeout=20)
        connection.request("POST", "/v1/chat/completions", b'{"max_tokens":60000}', {"X-Null": "batch=10000"})
        reply = connection.getresponse()
        threading.Event().wait(0.2)  # the sockets between fill up
        assert reply.read().count(b'"content":" word"') == 60_000
        connection.close()


def test_the_null_server_ends_with_its_standard_input() -> None:
    command_line = [sys.executable, "-m", "workloom.drive.null_server"]
    process = subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.mark.parametrize("given", ["/dev/null", __file__])
def test_the_null_server_runs_where_its_standard_input_is_nothing_to_wait_for(given: str) -> None:
    command_line = [sys.executable, "-m", "workloom.drive.null_server"]
    with open(given) as nothing, subprocess.Popen(command_line, stdin=nothing, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/v1/models")
            assert connection.getresponse().status == 200
            connection.close()
        finally:
            process.terminate()


# -- runs as users have them


def test_a_run_is_driven_recorded_and_judged_like_any_other() -> None:
    with null_server() as url:
        summary, calls = run(url, one_call_sessions(Closed(4), 5, Limits(sessions=40)), "batch=5")
        assert summary.calls.ok == len(calls) == 40 and summary.tokens.output == 200
        assert summary.latency["lag_s"].n == 40 and summary.tool.wall_s is not None
        streamed = one_call_sessions(Open(40), STREAM_TOKENS, Limits(duration_s=0.5))
        summary, calls = run(url, streamed, "gap_ms=1")
        assert {call.status for call in calls} <= {"ok", "censored"} and summary.run is not None


def test_times_are_compared_with_the_server_s_own_record() -> None:
    with null_server("--stamps") as url:
        found = answer.error(url, 2)
    assert (found.streams, found.calls) == (2, 12)
    assert found.ttft_p50_s is not None and found.ttft_p99_s is not None and found.itl_p99_s is not None
    assert 0 < found.ttft_p50_s <= found.ttft_p99_s and math.isfinite(found.itl_p99_s)


def test_an_error_is_what_the_tool_saw_less_what_the_server_did() -> None:
    chunks = [ChunkRun(1100, 0.0, 0.0, 1, 1), ChunkRun(1300, 0.0, 0.0, 2, 1)]
    call = CallRecord(
        0, "0", "call", "main", "", "ok", due_ns=0, sent_ns=1000, first_ns=1100, prompt_tokens=1, chunks=chunks
    )
    told = [(0, 0, 0, []), (5000, 5070, 5250, [5070, 5160, 5250])]
    found = compare([call], told, 1)
    # TTFT 100 ns against 70; gaps 200 and 0 against 90 and 90.
    assert found.ttft_p50_s == pytest.approx(30e-9)
    assert found.itl_p50_s == pytest.approx(10e-9) and found.itl_p99_s == pytest.approx(109.8e-9)
    never_sent = CallRecord(0, "0", "call", "main", "", "censored", due_ns=0)
    assert compare([never_sent], told, 1).calls == 0


def test_a_failing_server_is_no_measure_of_the_machine() -> None:
    with null_server() as url:
        port = int(url.split(":")[2].split("/")[0])
    with pytest.raises(answer.Broken, match="calls to the null server failed"):
        run(f"http://127.0.0.1:{port}/v1", one_call_sessions(Closed(1), 1, Limits(sessions=2)), "")


# -- the command


def found(calls: float | None, tokens: float | None) -> Selftest:
    def limit(unit: str, per_s: float | None) -> Limit:
        return Limit(unit, per_s, 9876.0, "busy", ["event loop busy p95 of seconds 99% > 97%"], [])

    error = Error(64, 384, 0.0001, 0.0012, 0.0, 0.0004)
    return Selftest(host={}, calls=limit("calls", calls), tokens=limit("tokens", tokens), errors=[error], took_s=1.0)


def test_the_command_says_up_to_where_numbers_can_be_trusted_and_what_broke(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(command, "measure", lambda seconds, say: told.append(seconds) or found(5432.1, 45678.9))
    command.selftest(False, 12)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "numbers can be trusted up to 5,400 calls/s and 46,000 streamed tokens/s on this machine"
    assert lines[1] == "at 9,900 calls/s: event loop busy p95 of seconds 99% > 97%" and told == [12]
    assert lines[3] == "64 streams: TTFT off by 100 µs (p99 1.20 ms), gaps between tokens by 0 s (p99 400 µs)"
    command.selftest(True, 12)
    assert json.loads(capsys.readouterr().out)["calls"]["rule"] == "busy"


def test_a_machine_that_cannot_be_trusted_is_told_so() -> None:
    assert "cannot be trusted with any load" in command.lines(found(None, 100.0))[0]


def test_a_selftest_has_a_length() -> None:
    with pytest.raises(UsageError, match="from 5"):
        command.selftest(False, 1)
