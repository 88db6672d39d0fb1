"""Where the time goes: inference, tools, people, on the critical path and off it."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.model.critical import KINDS, Kind
from workloom.report.page import Section
from workloom.report.study import time_charts
from workloom.report.study.parts import Measure, Row, compare, spread, tidy
from workloom.report.study.time_charts import KIND_NAMES, makespan_s, spent, task_s, without_people
from workloom.report.study.words import Found, each, lead, listed, people, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell

TITLE = "Where the time goes"

LEAST_SHARE = 0.005
"""Kinds below this are left to the tables."""


def section(found: Found) -> Section:
    """Where the time of the sessions goes."""
    return Section(
        "time",
        TITLE,
        lead(answer(found), _lasting(found), _overlap(found), _split(found), _times(found), people(found)),
        (key(found), *_kinds(found)),
        time_charts.figures(found),
    )


def answer(found: Found) -> str:
    """The largest kinds, with human waiting and without."""
    return lead(_kinds_told(found), _without_people(found))


def _kinds_told(found: Found) -> str:
    def told(c: Characterization) -> str:
        shares = sorted(((one.share or 0.0, one.kind) for one in c.timing.spent), key=lambda pair: -pair[0])
        return listed([f"{KIND_NAMES[kind]} {said(share, 'share')}" for share, kind in shares if share >= LEAST_SHARE])

    if len(found) == 1:
        shares = told(found[0])
        total = said(found[0].timing.total_s, "s")
        return say(f"The sessions last {total} in all; on their critical paths that is ", shares, ".")
    return say("Session time on the critical path: ", each(found, told), ".")


def _without_people(found: Found) -> str:
    if not any(spent(c, "human").on_s for c in found):
        return ""
    inference = side(found, lambda c: without_people(c, "inference"), "share")
    return say("Without the time spent waiting for people, inference is ", inference, ".")


def _lasting(found: Found) -> str:
    sessions = side(found, lambda c: c.timing.makespan_s.p50, "s")
    tasks = side(found, lambda c: c.timing.task_s.p50, "s")
    if len(found) == 1 and found[0].timing.sessions == 1:
        return ""
    return say("The median session lasts ", sessions, "; the median task ", tasks, ".")


def _overlap(found: Found) -> str:
    ratio = side(found, lambda c: c.timing.parallelism)
    return say("All inference adds up to ", ratio, " times what lies on the critical paths.")


def _split(found: Found) -> str:
    if not any(c.timing.split for c in found):
        return "No call tells when its first token came, so prefill and decode are not told apart."
    share = side(found, prefill_share, "share")
    calls = side(found, lambda c: c.timing.split or None, noun="call")
    return say("First tokens are told by ", calls, "; the share of prefill in the time of these is ", share, ".")


def prefill_share(c: Characterization) -> float | None:
    """Prefill seconds of all inference seconds, of the calls that tell their first token."""
    t = c.timing
    prefill_s, decode_s = t.prefill_on_s + t.prefill_off_s, t.decode_on_s + t.decode_off_s
    return prefill_s / (prefill_s + decode_s) if prefill_s + decode_s > 0 else None


def _times(found: Found) -> str:
    if all(c.timing.timed_share == 1 for c in found):
        return "Start and end of every call are the trace's own."
    pace = found[0].pace
    share = side(found, lambda c: c.timing.timed_share, "share")
    return say(
        *("Calls whose start and end are the trace's own: ", share, "; the others are assumed to prefill at "),
        f"{said(pace.prefill_tokens_per_s)} tokens/s and to decode at {said(pace.decode_tokens_per_s)} tokens/s.",
    )


def key(found: Found) -> Table:
    """Session time in short."""

    def share(kind: Kind) -> Row:
        return Row(KIND_NAMES[kind], lambda c: spent(c, kind).share, "share")

    some = [kind for kind in KINDS if any((spent(c, kind).share or 0) >= LEAST_SHARE for c in found)]
    rows = [
        Row("session time in all", lambda c: c.timing.total_s, "s"),
        Row("makespan of a session, p50", lambda c: c.timing.makespan_s.p50, "s"),
        Row("makespan of a session, p90", lambda c: c.timing.makespan_s.p90, "s"),
        Row("time of a task, p50", lambda c: c.timing.task_s.p50, "s"),
        *map(share, some),
        Row("inference, without people", lambda c: without_people(c, "inference"), "share"),
        Row("inference in all / on the path", lambda c: c.timing.parallelism),
        Row("calls with times of the trace's own", lambda c: c.timing.timed_share, "share"),
    ]
    return compare("Shares of session time on the critical path", found, rows)


def _kinds(found: Found) -> tuple[Table, ...]:
    columns = [
        Column("spent on", align="left"),
        *(Column("on the path", "s"), Column("share", "share"), Column("without people", "share")),
        *(Column("off the path", "s"), Column("per session, p10", "share"), Column("p50", "share")),
        Column("p90", "share"),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for one in c.timing.spent:
            if one.on_s or one.off_s:
                d = one.per_session
                shares = (one.share, without_people(c, one.kind))
                yield KIND_NAMES[one.kind], one.on_s, *shares, one.off_s, d.p10, d.p50, d.p90

    note = (
        "The critical path of a session is the chain of calls and waits that its makespan is made of. Off it is what "
        "ran in the shadow of others. Idle: between the end of a wait and the start of the call, so queueing or what "
        "the trace does not explain. Kinds without a second are left out."
    )
    return tidy("Time by kind", found, columns, rows, note)


def _prefill(found: Found) -> tuple[Table, ...]:
    columns = [
        Column("calls that tell their first token"),
        *(Column("prefill, on the path", "s"), Column("decode, on the path", "s")),
        *(Column("prefill, off it", "s"), Column("decode, off it", "s")),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        t = c.timing
        if t.split:
            yield t.split, t.prefill_on_s, t.decode_on_s, t.prefill_off_s, t.decode_off_s

    return tidy("Prefill and decode", found, columns, rows)


def numbers(found: Found) -> tuple[Table, ...]:
    """All distributions, and prefill apart from decode."""
    lengths = [Measure("makespan of a session", makespan_s), Measure("time of a task", task_s)]
    ratio = [Measure("inference in all / on the path, per session", lambda c: c.timing.parallelism_per_session)]
    return (*spread("Lengths", found, lengths, "s"), *spread("Parallelism", found, ratio), *_prefill(found))
