"""An independent look at the rows of a run: is every call of every session that began there once, and does it add up?

`audit(plan, rows, sessions)` raises AssertionError with all that is wrong. It knows the plan and the promises of
:mod:`workloom.records`, nothing of the driver. `audit_server` lays the rows beside a faulty server's own log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from faulty_server import HARMLESS, Asked

from workloom.plan import Plan
from workloom.records import CallRecord, SessionRecord
from workloom.session import Session

KINDS = ("connect", "disconnect", "http_status", "context_overflow", "malformed", "truncated", "empty")
BELOW_A_FAULT = ("error", "timeout", "cancelled")

KIND_OF = {
    "disconnect": "disconnect",
    "reset": "disconnect",
    "reset_head": "disconnect",
    "reset_body": "truncated",
    "rate_limit": "http_status",
    "broken_json": "http_status",
    "broken_html": "http_status",
    "redirect": "http_status",
    "no_content": "empty",
    "overflow": "context_overflow",
    "html": "malformed",
    "no_http": "malformed",
    "reset_chunk": "truncated",
    "close_chunk": "truncated",
    "cut": "truncated",
    "wrong_json": "malformed",
    "wrong_chunk": "malformed",
    "error_event": "http_status",
    "long_line": "malformed",
    "length_long": "truncated",
    "length_short": "truncated",
    "empty": "empty",
    "empty_body": "empty",
    "role_only": "empty",
}
"""What a fault is called in the row of the call that met it."""


def audit(
    plan: Plan,
    rows: Iterable[CallRecord],
    sessions: Iterable[SessionRecord],
    *,
    cut: bool = False,
    killed: bool = False,
) -> None:
    """Every call of a session that began has one row, but for those that the end of the run left unborn.

    `cut`: the run was ended while sessions were alive (as it may be where the plan has a limit of time or calls).
    `killed`: it had no chance to end its sessions; those that were alive have no row of their own.
    """
    limits = plan.recipe.limits
    cut = cut or killed or limits.duration_s is not None or limits.calls is not None
    wrong: list[str] = []
    rows = [row for row in rows if row.phase == "run"]
    ended: dict[int, SessionRecord] = {}
    for session in sessions:
        if session.instance in ended:
            wrong.append(f"instance {session.instance} has two session rows")
        ended[session.instance] = session
    if sorted(ended) != list(range(len(ended))) and not killed:
        wrong.append(f"instances are left out: {sorted(ended)}")
    by_instance: dict[int, list[CallRecord]] = {k: [] for k in ended}
    for row in rows:
        if row.instance not in by_instance and not killed:
            wrong.append(f"{_name(row)} belongs to no session that ended")
        by_instance.setdefault(row.instance, []).append(row)
    for k, record in ended.items():
        wrong += _session(plan.instance(k).session, record, by_instance[k], cut)
    for row in rows:
        wrong += [f"{_name(row)}: {fault}" for fault in _row(row)]
    assert not wrong, "\n".join(wrong[:20])


def _name(row: CallRecord) -> str:
    return f"call {row.instance}/{row.call}"


def _session(session: Session, record: SessionRecord, rows: Sequence[CallRecord], cut: bool) -> list[str]:
    """What is wrong with one session: its calls, their order and its own row."""
    wrong: list[str] = []
    where = f"instance {record.instance}"
    counts = Counter(row.call for row in rows)
    wrong += [f"{where}: call {call} has {count} rows" for call, count in counts.items() if count > 1]
    planned = {call.id: call for call in session.calls}
    wrong += [f"{where}: call {call} was never planned" for call in counts if call not in planned]
    found = {row.call: row for row in rows if row.call in planned}
    missing = [call for call in planned if call not in found]
    if missing and (not cut or record.status == "ok"):
        wrong.append(f"{where}: no row for {', '.join(missing)}, and the session is {record.status}")
    for call in session.calls:
        row = found.get(call.id)
        if row is None:
            continue
        parents = [found.get(edge.call) for edge in call.after]
        if row.planned_output_tokens != call.answer_tokens:
            wrong.append(
                f"{where}: call {call.id} planned {row.planned_output_tokens} tokens, not {call.answer_tokens}"
            )
        if row.status == "cancelled":
            cause = found.get(row.cause or "")
            if cause is None or cause.status not in ("error", "timeout"):
                wrong.append(f"{where}: call {call.id} is cancelled because of {row.cause}, which did not fail")
            elif row.error_kind != (cause.error_kind or cause.status):
                wrong.append(f"{where}: call {call.id} has the kind {row.error_kind}, its cause another")
            if not any(parent is not None and parent.status in BELOW_A_FAULT for parent in parents):
                wrong.append(f"{where}: call {call.id} is cancelled, and none before it failed")
        elif any(parent is None or parent.status != "ok" for parent in parents):
            wrong.append(f"{where}: call {call.id} was sent before what it waits for was done")
        else:
            done = [parent.done_ns or 0 for parent in parents if parent is not None]
            if done and row.due_ns < max(done):
                wrong.append(f"{where}: call {call.id} was due before what it waits for was done")
    statuses = {row.status for row in rows}
    failed, censored = bool(statuses & {"error", "timeout"}), "censored" in statuses or bool(missing)
    status = "failed" if failed else "censored" if censored else "ok"
    if record.status != status and not (failed and record.status == "censored"):
        wrong.append(f"{where}: the session says {record.status}, its calls say {status}")
    ok = sum(row.status == "ok" for row in rows)
    if (record.calls, record.calls_ok) != (len(planned), ok):
        wrong.append(f"{where}: counts {record.calls_ok} of {record.calls}, its calls {ok} of {len(planned)}")
    return wrong


def _row(row: CallRecord) -> list[str]:
    """What is wrong with one row alone."""
    wrong: list[str] = []
    instants = [row.due_ns, row.sent_ns, row.first_ns, row.last_ns, row.done_ns]
    known = [at for at in instants if at is not None]
    if known != sorted(known) or known[0] < 0:
        wrong.append(f"its instants are out of order: {instants}")
    if (row.first_ns is None) != (not row.chunks) or (row.first_ns is None) != (row.last_ns is None):
        wrong.append("its first chunk and its chunks do not go together")
    if row.status == "ok":
        if row.first_ns is None or row.sent_ns is None or row.done_ns is None:
            wrong.append("it is ok and has no first chunk")
        if row.error_kind or row.error or row.cause:
            wrong.append(f"it is ok and has an error: {row.error}")
        if row.output_tokens != row.planned_output_tokens:
            wrong.append(f"it has {row.output_tokens} tokens, planned were {row.planned_output_tokens}")
    elif row.status == "error":
        if row.error_kind not in KINDS or not row.error:
            wrong.append(f"it has the kind {row.error_kind} and the words {row.error!r}")
        if row.error_kind in ("connect", "disconnect", "empty") and row.first_ns is not None:
            wrong.append(f"{row.error_kind} and a first chunk")
        if (row.error_kind == "connect") != (row.sent_ns is None):
            wrong.append(f"{row.error_kind}, sent at {row.sent_ns}")
    elif row.status == "cancelled" and (row.sent_ns is not None or row.chunks):
        wrong.append("it is cancelled and was sent")
    return wrong


def audit_server(rows: Iterable[CallRecord], log: Sequence[Asked]) -> None:
    """Rows are what the server did: by its receipts (see faulty_server) and by the number of each kind."""
    wrong: list[str] = []
    rows = list(rows)
    receipts: Counter[int] = Counter()
    for row in rows:
        if row.status != "ok" or row.cached_tokens is None:
            continue
        receipts[row.cached_tokens] += 1
        asked = log[row.cached_tokens]
        if asked.fault not in HARMLESS:
            wrong.append(f"{_name(row)} is ok, its request {asked.number} met {asked.fault}")
        if (row.prompt_tokens, row.output_tokens) != (asked.prompt_tokens, asked.asked_tokens):
            found, real = (row.prompt_tokens, row.output_tokens), (asked.prompt_tokens, asked.asked_tokens)
            wrong.append(f"{_name(row)} has {found} tokens, the server counted {real}")
        if row.sent_prompt_tokens != asked.prompt_tokens:
            wrong.append(f"{_name(row)} sent {row.sent_prompt_tokens} tokens, {asked.prompt_tokens} came")
    wrong += [f"request {number} answered {count} rows" for number, count in receipts.items() if count > 1]
    faults = Counter(asked.fault for asked in log)
    silent = sum(row.status == "ok" and row.cached_tokens is None for row in rows)
    if silent > faults["no_usage"]:
        wrong.append(f"{silent} rows have no usage, {faults['no_usage']} requests were answered so")
    away = faults["refuse"] + faults["die"]
    kinds = Counter(row.error_kind for row in rows if row.status == "error")
    for kind, count in kinds.items():
        most = sum(number for fault, number in faults.items() if KIND_OF.get(fault) == kind)
        if kind in ("connect", "disconnect", "truncated", "empty"):  # whoever is away does that to many
            most = count if away else most
        if count > most:
            wrong.append(f"{count} rows are {kind}, the server did that {most} times")
    assert not wrong, "\n".join(wrong[:20])
