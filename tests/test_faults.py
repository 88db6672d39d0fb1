"""Every fault of a server alone: what its call's row says, and that its neighbours are none the worse."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit import KIND_OF, audit, audit_server
from faulty_runs import Kept, chain, driven, live_run, nothing_left, rows_of, target
from faulty_server import HARMLESS, NAMES, FaultyServer, Pace
from msgspec import structs
from planned import plan_of

from workloom.plan import Closed, Open, Plan
from workloom.records import CallRecord, SessionRecord

STATUS = {"rate_limit": 429, "broken_json": 500, "broken_html": 500, "redirect": 302, "overflow": 400}
ANSWERS_BEGAN = ("reset_chunk", "close_chunk", "cut", "wrong_json", "wrong_chunk", "error_event")
ANSWERS_BEGAN += ("length_long", "length_short", "stall_body")
"""Faults that come behind the first tokens of an answer."""
QUICK = Pace(away_s=0.05, accept_s=0.02)


def one_call(fault: str, path: Path, monkeypatch: pytest.MonkeyPatch, *, timeout_s: float = 20.0) -> CallRecord:
    plan = plan_of([chain("s", 1)], Closed(1))
    with nothing_left(monkeypatch), FaultyServer(script=[fault], pace=QUICK) as server:
        run = live_run(plan, target(server.url), path / "run", timeout_s=timeout_s)
    audit(plan, run.calls(), run.sessions())
    audit_server(run.calls(), server.log)
    assert [asked.fault for asked in server.log] == [fault]
    (row,) = run.calls()
    return row


def test_every_fault_is_told_of_here() -> None:
    played = {*KIND_OF, *HARMLESS, "stall_head", "stall_body", "die"}
    assert played == {*NAMES, "none"}


@pytest.mark.parametrize("fault", KIND_OF)
def test_a_fault_is_a_row_with_its_kind(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = one_call(fault, tmp_path, monkeypatch)
    assert (row.status, row.error_kind) == ("error", KIND_OF[fault]), row.error
    assert (row.first_ns is not None) == (fault in ANSWERS_BEGAN)
    assert row.sent_ns is not None and row.done_ns is not None
    assert row.retries == 0 and not row.resent
    if fault in STATUS:
        assert row.http_status == STATUS[fault]


@pytest.mark.parametrize("fault", ["stall_head", "stall_body"])
def test_a_stall_is_a_time_out(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = one_call(fault, tmp_path, monkeypatch, timeout_s=0.3)
    assert (row.status, row.error_kind) == ("timeout", None)
    assert (row.first_ns is not None) == (fault in ANSWERS_BEGAN)
    assert row.sent_ns is not None and row.done_ns is not None
    assert row.done_ns - row.sent_ns >= 0.29e9


@pytest.mark.parametrize("fault", [fault for fault in HARMLESS if fault != "refuse"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_what_is_harmless_is_an_answer(fault: str, api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of([chain("s", 3, wait_s=0.005)], Closed(1))
    with nothing_left(monkeypatch), FaultyServer(script=[fault] * 3, pace=QUICK) as server:
        run = live_run(plan, target(server.url, api=api), tmp_path / "run")
    audit(plan, run.calls(), run.sessions())
    audit_server(run.calls(), server.log)
    rows = list(run.calls())
    assert [row.status for row in rows] == ["ok"] * 3, [row.error for row in rows]
    for row, asked in zip(rows, server.log, strict=True):
        assert row.output_tokens == 4 and sum(chunk.count * chunk.tokens_each for chunk in row.chunks) == 4
        assert row.sent_prompt_tokens == asked.prompt_tokens
        assert row.prompt_tokens == (None if fault == "no_usage" else asked.prompt_tokens)
        assert row.finish == "length"
    assert [row.planned_prompt_tokens for row in rows] == [asked.prompt_tokens for asked in server.log]


def test_nobody_listening_is_a_connect_error_and_ends_the_session(tmp_path: Path) -> None:
    plan = plan_of([chain("s", 3)], Closed(1))
    with FaultyServer(script=["refuse"], pace=Pace(away_s=30)) as server:
        run = live_run(plan, target(server.url), tmp_path / "run")
    audit(plan, run.calls(), run.sessions())
    rows = rows_of(run)
    assert [(row.status, row.error_kind) for row in rows.values()] == [
        ("ok", None),
        ("error", "connect"),
        ("cancelled", "connect"),
    ]
    assert rows["0/1"].sent_ns is None and rows["0/2"].cause == "1"


def test_a_server_that_dies_takes_what_is_in_flight_with_it_and_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    """Session 0 streams slowly; session 1 kills the server 0.1 s later; session 2 finds nobody; session 3 is well."""
    sessions = [chain(str(k), 1, output=40 if k == 0 else 4) for k in range(4)]
    plan = plan_of(sessions, Open(10.0, "constant"))
    long = next(k for k in range(4) if plan.instance(k).session.calls[0].output_tokens == 40)
    script = ["none"] * (long + 1) + ["die"]
    with FaultyServer(script=script, pace=Pace(away_s=0.15, gap_s=0.01)) as server:
        run = live_run(plan, target(server.url), tmp_path / "run")
    audit(plan, run.calls(), run.sessions())
    audit_server(run.calls(), server.log)
    rows = list(run.calls())
    assert (rows[long].status, rows[long].error_kind) == ("error", "truncated")
    assert rows[long].first_ns is not None
    if long + 1 < 4:
        assert rows[long + 1].error_kind == "disconnect"
    if long + 2 < 4:
        assert rows[long + 2].error_kind == "connect"


def test_a_kept_connection_that_the_server_gives_up_is_no_fault_of_the_call(tmp_path: Path) -> None:
    """The second request is thrown away without a byte: it is sent again on a new connection, and that can be seen."""
    for fault in ("disconnect", "reset"):
        plan = plan_of([chain("s", 2)], Closed(1))
        with FaultyServer(script=["none", fault]) as server:
            run = live_run(plan, target(server.url), tmp_path / fault)
        rows = list(run.calls())
        assert [row.status for row in rows] == ["ok", "ok"]
        assert [row.resent for row in rows] == [False, True]
        assert [asked.connection for asked in server.log] == [0, 0, 1]


def test_a_connection_closed_between_calls_is_not_used_again(tmp_path: Path) -> None:
    plan = plan_of([chain("s", 2, wait_s=0.05)], Closed(1))
    with FaultyServer(script=["stale"]) as server:
        run = live_run(plan, target(server.url), tmp_path / "run")
    rows = list(run.calls())
    assert [row.status for row in rows] == ["ok", "ok"]
    assert rows[1].connection_reused is False and not rows[1].resent


@pytest.mark.parametrize("fault", ["trailing", "no_http", "wrong_chunk", "length_short"])
def test_a_connection_that_was_abused_is_not_used_again(fault: str, tmp_path: Path) -> None:
    plan = plan_of([chain("a", 1), chain("b", 1)], Closed(1))
    with FaultyServer(script=[fault]) as server:
        run = live_run(plan, target(server.url), tmp_path / "run")
    audit_server(run.calls(), server.log)
    assert next(row.status for row in run.calls() if row.instance == 1) == "ok"
    assert [asked.place for asked in server.log] == [0, 0]


def test_an_answer_that_begins_before_the_request_is_read(tmp_path: Path) -> None:
    """2 MB of prompt, more than the sockets hold."""
    plan = plan_of([chain("s", 2, tokens=300_000)], Closed(1))
    with FaultyServer(script=["early", "early"]) as server:
        run = live_run(plan, target(server.url), tmp_path / "run")
    audit(plan, run.calls(), run.sessions())
    audit_server(run.calls(), server.log)
    assert [row.status for row in run.calls()] == ["ok", "ok"]


def mixed(script: list[str]) -> tuple[Plan, Kept, FaultyServer]:
    """Three sessions one after the other: a fork with a failing branch, a chain with a stall, one that is well."""
    plan = plan_of([chain(name, 3) for name in "abc"], Closed(1))
    with FaultyServer(script=script) as server:
        kept, _ = driven(plan, target(server.url), timeout_s=0.3)
    return plan, kept, server


SCRIPT = ["none", "broken_json", "drip", "stall_body", "comments", "none", "no_done"]


def test_a_session_ends_with_its_fault_and_the_next_begins() -> None:
    plan, kept, server = mixed(SCRIPT)
    audit(plan, kept.calls, kept.sessions)
    audit_server(kept.calls, server.log)
    assert [
        (row.call, row.status, row.error_kind) for row in sorted(kept.calls, key=lambda r: (r.instance, r.call))
    ] == [
        ("0", "ok", None),
        ("1", "error", "http_status"),
        ("2", "cancelled", "http_status"),
        ("0", "ok", None),
        ("1", "timeout", None),
        ("2", "cancelled", "timeout"),
        *((name, "ok", None) for name in "012"),
    ]
    assert [session.status for session in kept.sessions] == ["failed", "failed", "ok"]


# --- retries, where they were asked for


@pytest.mark.parametrize(
    ("script", "retries", "told"),
    [
        (["rate_limit"], 0, ("error", "http_status", 0)),
        (["rate_limit", "rate_limit"], 2, ("ok", None, 2)),
        (["rate_limit"] * 3, 2, ("error", "http_status", 2)),
        (["disconnect"], 1, ("ok", None, 1)),
        (["broken_html"], 1, ("ok", None, 1)),
        (["overflow"], 2, ("error", "context_overflow", 0)),
        (["html"], 2, ("error", "malformed", 0)),
        (["reset_chunk"], 2, ("error", "truncated", 0)),
    ],
)
def test_retries_are_off_unless_asked_for_and_can_be_seen(
    script: list[str], retries: int, told: tuple[str, str | None, int]
) -> None:
    """No call is sent again after its first chunk, nor one that would fail again for the same reason."""
    plan = plan_of([chain("s", 1)], Closed(1))
    with FaultyServer(script=script) as server:
        kept, _ = driven(plan, target(server.url, retries=retries))
    audit(plan, kept.calls, kept.sessions)
    audit_server(kept.calls, server.log)
    (row,) = kept.calls
    assert (row.status, row.error_kind, row.retries) == told
    assert len(server.log) == told[2] + 1


# --- the alarm rings


def test_the_audit_hears_of_everything_that_can_be_wrong() -> None:
    plan, kept, server = mixed(SCRIPT)
    calls = kept.calls
    ok = next(row for row in calls if row.status == "ok")
    error = next(row for row in calls if row.status == "error")
    cancelled = next(row for row in calls if row.status == "cancelled")
    other = next(row for row in calls if row.status == "ok" and row is not ok)

    def alarm(rows: list[CallRecord], sessions: list[SessionRecord] = kept.sessions) -> None:
        with pytest.raises(AssertionError):
            audit(plan, rows, sessions)
            audit_server(rows, server.log)

    def changed(row: CallRecord, **fields: object) -> list[CallRecord]:
        return [structs.replace(each, **fields) if each is row else each for each in calls]

    for row in calls:
        alarm([each for each in calls if each is not row])
        alarm([*calls, row])
    alarm(calls, kept.sessions[:-1])
    alarm(calls, [*kept.sessions, kept.sessions[0]])
    alarm(changed(ok, call="9"))
    alarm(changed(ok, output_tokens=3))
    alarm(changed(ok, prompt_tokens=3))
    alarm(changed(ok, sent_prompt_tokens=3))
    alarm(changed(ok, cached_tokens=other.cached_tokens))
    alarm(changed(ok, first_ns=None))
    alarm(changed(ok, due_ns=ok.due_ns + 10**10))
    alarm(changed(ok, status="error", error_kind="truncated", error="?"))
    alarm(changed(error, status="ok", error_kind=None, error=None))
    alarm(changed(error, error_kind="closed"))
    alarm(changed(error, error_kind="malformed"))
    alarm(changed(error, error=None))
    alarm(changed(cancelled, cause=None))
    alarm(changed(cancelled, cause="0"))
    alarm(changed(cancelled, sent_ns=cancelled.due_ns))
    alarm(changed(cancelled, status="ok"))
    audit(plan, calls, kept.sessions)
