"""Every metric of runs of many kinds is what an auditor makes of their tables, and a wrong row is noticed."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import metrics_audit
import metrics_audit_workflow
import numpy as np
import pytest
from metric_runs import CANONICAL
from metrics_audit import Audit
from scripted_openai import Knobs, Scripted

from workloom.cli import main
from workloom.metrics.catalog import Sample, Totals, catalog
from workloom.metrics.figure import Figure, figure
from workloom.metrics.given import Given, Limit
from workloom.metrics.groups import kinds
from workloom.metrics.headline import HEADLINES, headline
from workloom.metrics.measured import Measured, measured
from workloom.metrics.workflow.path import check_adds_up
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import open_run
from workloom.traces import native

WEKA = Path(__file__).parents[2] / "shared" / "data" / "weka"

LIMITS = (("ttft_s", 0.3), ("tbc_s", 0.05), ("tpot_s", 0.04), ("task_makespan_s", 60.0), ("makespan_s", 400.0))
GIVEN = metrics_audit.Given(limits=tuple(metrics_audit.Limit(*limit) for limit in LIMITS))

NOT_AUDITED = {"slowdown"}
"""Its ideal is the engine's own arithmetic; tests/test_workflow_runs.py compares it with sessions that are alone."""

# of canonical sessions
WORLDS = {
    "cut off": "--engine llama-3.1-8b-h100x1 --rate 0.3 --duration 60 --drain 20",
    "time-outs": "--engine llama-3.1-8b-h100x1 --concurrency 6 --sessions 12 --timeout 8",
    "begun in their middle": "--engine qwen3-30b-a3b-h100x2 --concurrency 6 --duration 300 --start 0.2-0.8 "
    "--timeout 12",
    "fleet": "--engine llama-3.1-8b-h100x1 --replicas 2 --rate 0.3 --duration 90 --max-tree-idle 3 --max-wait 5 "
    "--drain 1",
    "crowded": "--engine llama-3.1-70b-h200x4 --block-tokens 256 --kv-tokens 160000 --concurrency 8 --sessions 8 "
    "--max-wait 1 --timeout 40 --after-error advance",
}
MORE = {
    "warmed up": "--engine llama-3.1-8b-h100x1 --concurrency 8 --duration 400 --start 0-0.7:index --warmup-calls 1 "
    "--warmup-pause 3 --settle 60 --drain 0 --timeout 15",
    "speculating": "--engine llama-3.1-70b-h200x4 --concurrency 8 --sessions 20 --acceptance 2.2 --draft-tokens 3 "
    "--kv-tokens 160000 --host-tokens 300000",
    "dense": "--engine llama-3.1-8b-h100x1 --concurrency 30 --sessions 40 --max-wait 1 --kv-tokens 100000",
    "disaggregated": "--engine llama-3.1-8b-h100x1 --prefill-replicas 1 --replicas 2 --rate 0.5 --duration 120 "
    "--drain 30",
    "goes on": "--engine llama-3.1-8b-h100x1 --concurrency 6 --sessions 20 --timeout 10 --after-error advance",
}
OTHERS = {
    "openclaw-branching": "--engine qwen3-30b-a3b-h100x2 --concurrency 3 --sessions 4",
    "cs2-dag": "--engine llama-3.1-8b-h100x1 --rate 2 --duration 60 --timeout 3",
    "agentic-coding": "--engine qwen3.5-35b-a3b-h100 --concurrency 8 --sessions 16",
}


def workloom(*argv: str) -> None:
    """The command in this process."""
    before, sys.argv = sys.argv, ["workloom", *argv]
    try:
        main()
    except SystemExit as end:
        assert not end.code
    finally:
        sys.argv = before


def made(folder: Path, trace: Path | str, options: str) -> Path:
    workloom("run", str(trace), *options.split(), "-o", str(folder / "run"), "--json")
    return folder / "run"


def seen(folder: Path) -> Measured:
    """The run as our metrics see it, under the same prices and promises."""
    price = GIVEN
    return replace(
        measured(open_run(folder)),
        given=Given(
            usd_per_gpu_hour=price.usd_per_gpu_hour,
            usd_per_mtok_input=price.usd_per_mtok_input,
            usd_per_mtok_cached=price.usd_per_mtok_cached,
            usd_per_mtok_output=price.usd_per_mtok_output,
            power_w=price.power_w,
            limits=tuple(Limit(metric, at_most) for metric, at_most in LIMITS),
        ),
    )


def like(said: float | None, value: float | None, resolution: float = 0.0, floor: float = 2e-9) -> bool:
    """Instants of chunks are kept to a nanosecond. What is infinite is null in JSON."""
    if said is None or value is None or math.isinf(value):
        return said == value or (said is None and value is not None and math.isinf(value))
    return abs(said - value) <= floor + (1e-9 + resolution) * abs(value)


def observed(run: Measured) -> dict[str, Sample | Totals | None]:
    """Every metric but those that are not audited."""
    return {name: metric.observe(run) for name, metric in catalog().items() if name not in NOT_AUDITED}


def differing(audit: Audit, found: dict[str, Sample | Totals | None]) -> set[str]:
    """Names of the metrics of which one value or number is not what the auditor says."""
    return {name for name, ours in found.items() if not _agree(audit, name, ours)}


def _agree(audit: Audit, name: str, ours: Sample | Totals | None) -> bool:
    if catalog()[name].of == "run":
        assert not isinstance(ours, Sample)
        return like(_number(ours), audit.ratio(name), floor=1e-12)
    assert not isinstance(ours, Totals)
    theirs = audit.values(name)
    if ours is None:
        return not theirs
    there = ~np.isnan(ours.values)
    values = ours.values[there]
    if ours.weights is not None:
        weights = ours.weights[there]
        mean = math.fsum(value for _, value in theirs) / max(len(theirs), 1)
        same = like(float((values * weights).sum() / max(weights.sum(), 1)), mean, ours.resolution)
        return same and weights.sum() == len(theirs)
    mine = sorted(zip(ours.session[there].astype(int).tolist(), values.tolist(), strict=True))
    return len(mine) == len(theirs) and all(
        i == j and (x == y or like(x, y)) for (i, x), (j, y) in zip(mine, theirs, strict=True)
    )


def _number(ours: Totals | None) -> float | None:
    """The ratio; None of nothing."""
    whole = 0.0 if ours is None else float(np.sum(ours.whole))
    return float(np.sum(ours.part)) / whole if ours is not None and whole else None


def check_headlines(audit: Audit, run: Measured) -> int:
    """Every figure of the headline sets that has a value, with its statistic; how many."""
    checked = 0
    for each in (one for kind in HEADLINES for one in headline(run, kind)):
        asked = figure(each.figure)
        if each.value is None or asked.metric in NOT_AUDITED:
            continue
        value = audit.statistic(asked.metric, asked.statistic) if asked.statistic else audit.ratio(asked.metric)
        assert like(each.value, value, 5e-4 if asked.metric == "tbc_s" else 0.0), (
            f"{each.figure}: {each.value}, {value}"
        )
        checked += 1
    return checked


def check_kinds(audit: Audit, run: Measured) -> int:
    """Figures of calls of one role, and of one turn; how many."""
    checked = 0
    for by in ("agent", "turn", "depth"):
        names = kinds(run, by)
        assert names == audit.kinds(by), by
        for kind in names:
            for name in ("ttft_s", "errors", "hit_rate"):
                ours = Figure(name, "", ((by, kind),)).observe(run)
                theirs = audit.of_kind(name, by, kind)
                if isinstance(ours, Sample):
                    mine = np.sort(ours.values[~np.isnan(ours.values)]).tolist()
                    assert len(mine) == len(theirs), (name, by, kind)
                    assert all(x == y or like(x, y) for x, y in zip(mine, theirs, strict=True)), (name, by, kind)
                else:
                    assert like(_number(ours), theirs[0]), (name, by, kind)
                checked += 1
    return checked


def named_parts(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary.json with the parts of critical paths by name."""
    for kind in ("sessions", "tasks"):
        parts = summary["workflow"][kind]["parts"]
        summary["workflow"][kind]["parts"] = {one["part"].replace(" ", "_"): one for one in parts}
    return summary


def check_summary(known: dict[str, float | None], summary: dict[str, Any]) -> int:
    """Every number of the summary that the auditor knows; how many."""
    for path, value in known.items():
        found: Any = summary
        for step in path.split("."):
            found = found[step]
        resolution = summary["latency"]["tbc_s"]["resolution"] if path.startswith("latency.tbc_s") else 0.0
        assert like(found, value, resolution), f"{path}: {found}, by the rows {value}"
    return len(known)


def check(folder: Path) -> Audit:
    """All of it."""
    audit, run = Audit(folder, GIVEN), seen(folder)
    assert differing(audit, observed(run)) == set()
    assert check_headlines(audit, run) > 10
    assert check_kinds(audit, run) > 5
    assert check_summary(audit.summary(), named_parts(json.loads((folder / "summary.json").read_bytes()))) > 80
    check_adds_up(run)
    assert metrics_audit_workflow.unlike(audit.sql) == []
    return audit


def test_the_auditor_knows_every_metric() -> None:
    known = {**metrics_audit.SAMPLES, **metrics_audit.RATIOS}
    known |= metrics_audit_workflow.SAMPLES | metrics_audit_workflow.RATIOS
    assert set(known) == set(catalog()) - NOT_AUDITED


@pytest.mark.parametrize("world", [*WORLDS, *(pytest.param(world, marks=pytest.mark.long) for world in MORE)])
def test_every_metric_is_what_the_rows_say(world: str, tmp_path: Path) -> None:
    audit = check(made(tmp_path, CANONICAL, (WORLDS | MORE)[world]))
    status, what = (
        dict(audit.sql.execute(f"select status, count(*) from {table} group by status").fetchall())
        for table in ("call", "task")
    )
    match world:
        case "cut off":
            assert status["censored"] and what["censored"] and what["ok"]
        case "time-outs":
            assert status["timeout"] and status["cancelled"] and what["never begun"] and what["ok"]
        case "begun in their middle":
            assert status["timeout"] and what["partial"] and what["ok"]
            lost = "from sessions where status = 'failed' and calls_before > 0"
            assert audit.sql.execute(f"select count(*) {lost}").fetchall()[0][0], "which have no makespan either"
        case "fleet":
            assert audit.ratio("decode_overlap_10_share") and audit.ratio("eviction_share")
            moved_up = "from edge join call using (instance, ordinal) where parent_done + wait_ns > call.due_ns"
            assert audit.sql.execute(f"select count(*) {moved_up}").fetchall()[0][0] > 10
        case "crowded":
            assert audit.ratio("preemptions_ratio") and status["timeout"] and "cancelled" not in status


@pytest.mark.long
@pytest.mark.parametrize("workload", OTHERS)
def test_every_metric_of_other_workloads_too(workload: str, tmp_path: Path) -> None:
    check(made(tmp_path, workload, OTHERS[workload]))


def test_every_metric_of_sessions_that_fan_out_and_join(tmp_path: Path) -> None:
    audit = check(made(tmp_path, "cs2-dag", "--engine llama-3.1-8b-h100x1 --concurrency 3 --sessions 8"))
    assert max(spare for _, spare in audit.values("slack_s")) > 0, "of nine that a join waits for, eight can be later"
    assert all(0 < calls < 15 for _, calls in audit.values("critical_calls"))


@pytest.mark.skipif(not WEKA.is_dir(), reason="the WEKA files of ../shared/data are not here")
def test_every_metric_of_recorded_sessions_with_calls_beyond_the_context(tmp_path: Path) -> None:
    audit = check(
        made(tmp_path, WEKA, "--engine qwen3-30b-a3b-h100x2 --concurrency 4 --sessions 4 --max-context 300000")
    )
    status = dict(audit.sql.execute("select status, count(*) from call group by status").fetchall())
    assert status["error"] and status["cancelled"] and status["ok"]


def agents(name: str) -> Session:
    """Two tasks; in the first a subagent works beside the main agent, which then waits for it."""
    scaffold = (Span("system", 40, "trace"),)
    first = Call("m0", 12, spans=scaffold, fresh=(Part("user", 60),))
    sub = Call("s0", 9, agent="explore", after=(Edge("m0", 0.01, "spawn"),), fresh=(Part("user", 50),))
    more = Call(
        "s1", 1, agent="explore", after=(Edge("s0", 0.02, "tool"),), inherit=Inherit("s0"), fresh=(Part("tool", 30),)
    )
    beside = Call("m1", 5, after=(Edge("m0", 0.0, "tool"),), inherit=Inherit("m0"), fresh=(Part("tool", 40),))
    joins = (Edge("m1", 0.0, "none"), Edge("s1", 0.01, "orchestration"))
    last = Call("m2", 14, after=joins, inherit=Inherit("m1"), fresh=(Part("report", 30),))
    again = Call("m3", 10, after=(Edge("m2", 0.05, "human"),), inherit=Inherit("m2"), fresh=(Part("user", 20),))
    return Session(name, (first, sub, more, beside, last, again))


def test_every_metric_of_a_live_run(tmp_path: Path) -> None:
    """A server that counts a template's tokens and thoughts, does not say when it began, and sometimes breaks."""
    trace = tmp_path / "trace.jsonl"
    native.write(trace, Header(source="test"), [agents(f"s{i}") for i in range(8)])
    with Scripted(
        Knobs(template=3, reasoning=2, first_s=0.004, gap_s=0.001, fails=lambda number: number % 9 > 6)
    ) as server:
        options = f"--url {server.url} --metrics off --retries 1 --concurrency 3 --sessions 8"
        folder = made(tmp_path, trace, options)
    audit = check(folder)
    status = dict(audit.sql.execute("select status, count(*) from call group by status").fetchall())
    assert status["error"] and status["cancelled"] and status["ok"]
    assert audit.ratio("blame_join_wait_share")
    assert audit.ratio("blame_queue_or_prefill_share") and audit.ratio("blame_queue_share") == 0
    assert audit.sql.execute("select sum(retries) from call where status = 'ok'").fetchall()[0][0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to falsify."""
    return made(
        tmp_path_factory.mktemp("small"), CANONICAL, "--engine llama-3.1-8b-h100x1 --concurrency 3 --sessions 5"
    )


@pytest.fixture(scope="module")
def ours(small: Path) -> dict[str, Sample | Totals | None]:
    """What our metrics make of it."""
    return observed(seen(small))


# what is done to one call in the middle of a session, and metrics of which the auditor must then say something else
FALSE = {
    "done_ns": ("done_ns + 1000", {"blame_stream_end_share", "blame_server_share", "session_tokens_per_s"}),
    "first_ns": ("first_ns + 1000", {"ttft_s", "ttft_from_due_s", "tpot_s", "prefill_s", "blame_decode_share"}),
    "sent_ns": ("sent_ns + 1000", {"lag_s", "ttft_s", "e2e_s", "queue_s", "blame_lag_share", "session_tokens_per_s"}),
    "admitted_ns": ("admitted_ns - 1000", {"queue_s", "prefill_s", "kv_token_s"}),
    "last_ns": ("last_ns - 1000", {"e2e_s", "e2e_from_due_s", "tpot_s"}),
    "status": ("'timeout'", {"errors", "e2e_s", "completed_share", "calls_per_s", "wasted_token_share", "ttfat_s"}),
    "cached_tokens": (
        "cached_tokens - 16",
        {"hit_rate", "reprefilled_share", "uncached_tokens_per_s"},
    ),
    "planned_fresh_tokens": ("planned_fresh_tokens + 1", {"prompt_reuse_ratio"}),
    "ideal_cached_tokens": ("ideal_cached_tokens - 160", {"ideal_hit_rate", "reprefilled_share"}),
    "after": ("[]", {"slack_s", "critical_calls", "blame_tool_share"}),
    "chunks": ("chunks[2:]", {"tbc_s", "kv_token_s", "decode_overlap_ratio"}),
}


@pytest.mark.parametrize("column", FALSE)
def test_a_wrong_row_is_noticed(
    column: str, small: Path, ours: dict[str, Sample | Totals | None], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small, folder)
    value, noticed = FALSE[column]
    with duckdb.connect() as sql:
        sql.execute(f"create table calls as select * from read_parquet('{small}/calls.parquet')")
        changed = sql.execute(f"update calls set {column} = {value} where instance = 1 and ordinal = 4").fetchall()
        assert changed == [(1,)]
        sql.execute(f"copy (from calls order by instance, ordinal) to '{folder}/calls.parquet'")
    asked = noticed | {"prompt_tokens", "power_w"}
    falsified = differing(Audit(folder, GIVEN), {name: ours[name] for name in asked})
    assert falsified == noticed, "and what is not about it is as it was"


def test_every_number_of_the_summary_that_is_a_little_wrong_is_noticed(small: Path) -> None:
    known, unnoticed = check(small).summary(), []
    assert len(known) > 100
    text = (small / "summary.json").read_bytes()
    for path, value in known.items():
        summary = named_parts(json.loads(text))
        *way, last = path.split(".")
        place: Any = summary
        for step in way:
            place = place[step]
        place[last] = (value or 0) * 1.001 + (1 if isinstance(value, int) or not value else 1e-8)
        try:
            check_summary(known, summary)
        except AssertionError as noticed:
            assert str(noticed).startswith(f"{path}: ")
        else:
            unnoticed.append(path)
    assert unnoticed == []
