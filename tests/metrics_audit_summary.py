"""What the auditor makes of whole runs: numbers of summary.json under their paths, and figures of one kind of calls."""

from __future__ import annotations

import duckdb
import metrics_audit_workflow as workflow

LATENCIES = ("ttft_s", "ttft_from_due_s", "tbc_s", "tpot_s", "e2e_s", "e2e_from_due_s", "makespan_s", "lag_s")
LEVELS = ("p50", "p75", "p90", "p95", "p99")

COUNTS = {
    "calls.recorded": "count(*) from call",
    "calls.warmup": "count(*) from call where phase = 'warmup'",
    "calls.due": "count(*) from call where due",
    "calls.ok": "count(*) from call where due and status = 'ok'",
    "calls.failed": "count(*) from call where due and failed",
    "calls.cancelled": "count(*) from call where due and status = 'cancelled'",
    "calls.censored": "count(*) from call where due and status = 'censored'",
    "calls.waiting": "count(*) from call where due and status = 'censored' and first_ns is null",
    "calls.empty": "count(*) from call where due and status = 'ok' and first_ns is null",
    "calls.ended": "count(*) from call where phase = 'run' and status = 'ok' and inside(done_ns)",
    "calls.retries": "coalesce(sum(retries), 0) from call where due",
    "sessions.due": "count(*) from sessions where inside(due_ns)",
    "sessions.ok": "count(*) from sessions where inside(due_ns) and status = 'ok'",
    "sessions.failed": "count(*) from sessions where inside(due_ns) and status = 'failed'",
    "sessions.censored": "count(*) from sessions where inside(due_ns) and status = 'censored'",
    "sessions.ended": "count(*) from sessions where inside(end_ns) and status = 'ok'",
    "tokens.planned_prompt": "sum(planned_prompt_tokens) from call where due and sent",
    "tokens.sent_prompt": "sum(sent_prompt_tokens) from call where due and sent",
    "tokens.prompt": "coalesce(sum(prompt_tokens), 0) from call where due and sent",
    "tokens.cached": "coalesce(sum(cached_tokens), 0) from call where due and sent",
    "tokens.planned_output": "sum(planned_output_tokens) from call where due and sent",
    "tokens.output": "sum(output) from call where due and sent",
    "tokens.reasoning": "coalesce(sum(reasoning_tokens), 0) from call where due and sent",
    "throughput.output_tokens": "sum(output_inside) from call",
    "throughput.prompt_tokens": "sum(prompt) from call where inside(first_ns)",
    "throughput.calls": "count(*) from call where phase = 'run' and status = 'ok' and inside(done_ns)",
    "throughput.sessions": "count(*) from sessions where status = 'ok' and inside(end_ns)",
    "concurrency.calls_mean": """sum(greatest(0, least(done_ns, ends) - greatest(sent_ns, begins)))
                                 / any_value(ends - begins) from call, told where sent""",
    "workflow.tasks.ended": "count(*) from task where inside(due_ns) and status = 'ok'",
    "workflow.tasks.failed": "count(*) from task where inside(due_ns) and status = 'failed'",
    "workflow.tasks.censored": "count(*) from task where inside(due_ns) and status = 'censored'",
    "workflow.tasks.partial": "count(*) from task where inside(due_ns) and status = 'partial'",
    "workflow.tasks.never_begun": "count(*) from task where inside(due_ns) and status = 'never begun'",
    "workflow.sessions.ended": "count(*) from whole where inside(due_ns)",
    "workflow.tasks.makespan_mean_s": "avg(ns) / 1e9 from makespan where kind = 'task' and due",
    "workflow.sessions.makespan_mean_s": "avg(ns) / 1e9 from makespan where kind = 'session' and due",
    "workflow.slack_p50_s": "quantile_cont(ns, 0.5) / 1e9 from spare join call using (instance, ordinal) where due",
}


def counts(sql: duckdb.DuckDBPyConnection) -> dict[str, float | None]:
    """All but the latencies."""
    found = {path: sql.execute(f"select {of}").fetchall()[0][0] for path, of in COUNTS.items()}
    for kind, calls in sql.execute(
        "select if(status = 'timeout', status, error_kind), count(*) from call where due and failed group by 1"
    ).fetchall():
        found[f"errors.{kind}.calls"] = calls
    for kind in ("session", "task"):
        spent = sql.execute(
            f"""select part, sum(ns) / 1e9 / (select count(*) from makespan where kind = '{kind}' and due) from blame
                where kind = '{kind}' and due group by part having sum(ns) > 0"""
        ).fetchall()
        found |= {f"workflow.{kind}s.parts.{part}.mean_s": mean for part, mean in spent}
    return found


KINDS = """
-- a role is an agent's name without what tells several of a kind apart; turns count from 0 in whole sessions only
create table kind as
    select c.instance, c.ordinal, regexp_replace(agent, '(:.*|-[0-9]+)$', '') as agent,
           case calls_before when 0
                then row_number() over (partition by c.instance, agent order by c.ordinal) - 1 end as turn,
           case calls_before when 0 then d.depth end as depth
    from call c left join sessions using (instance) left join depth d using (instance, agent) where phase = 'run';
create table bucket as
    select instance, ordinal, agent, depth::text as depth, turn as number,
           case when turn < 2 then turn::text
                else (2 ^ floor(log2(turn)))::bigint || '-' || (2 ^ (floor(log2(turn)) + 1) - 1)::bigint end as turn
    from kind;
"""


def build(sql: duckdb.DuckDBPyConnection) -> None:
    """Make the table `bucket`: of each call its role, turn and depth."""
    sql.execute("create table depth (instance bigint, agent text, depth bigint)")
    workflow.insert(sql, "depth", _depths(sql))
    sql.execute(KINDS)


def _depths(sql: duckdb.DuckDBPyConnection) -> list[tuple[int, str, int]]:
    """How many spawns are above each agent; its first call tells, and of that a spawn before another edge."""
    depth: dict[tuple[int, str], int] = {}
    for instance, agent, parent, gap in sql.execute(
        """with first as (select instance, agent, min(ordinal) as ordinal from call where phase = 'run' group by all)
           select f.instance, f.agent, p.agent, e.gap from first f
           left join edge e on e.instance = f.instance and e.ordinal = f.ordinal
           left join call p
               on p.instance = f.instance and p.ordinal = e.parent and p.phase = 'run' and p.agent <> f.agent
           order by f.instance, f.ordinal, e.gap = 'spawn' and p.agent is not null, e.n desc"""
    ).fetchall():
        above = 0 if parent is None else depth[instance, parent] + (gap == "spawn")
        if parent is not None or (instance, agent) not in depth:
            depth[instance, agent] = above
    return [(instance, agent, levels) for (instance, agent), levels in depth.items()]


OF_KIND = {
    "ttft_s": "ttft from latency where due and ttft is not null",
    "errors": "count(*) filter (failed) / nullif(count(*), 0) from call where due and status <> 'cancelled'",
    "hit_rate": "sum(cached_tokens) / sum(prompt_tokens) from call where due and sent and cached_tokens is not null",
}


def of_kind(sql: duckdb.DuckDBPyConnection, metric: str, by: str, kind: str) -> list[float]:
    """The values of a metric over the calls of a kind, sorted; or its one number."""
    mine = f"(instance, ordinal) in (select (instance, ordinal) from bucket where {by} = ?)"
    return [row[0] for row in sql.execute(f"select {OF_KIND[metric]} and {mine} order by 1", [kind]).fetchall()]


def kinds(sql: duckdb.DuckDBPyConnection, by: str) -> list[str]:
    """The kinds of calls due in the window: names as they appear, numbers from the lowest."""
    first = {"turn": "min(number)", "depth": "b.depth", "agent": "min((instance, ordinal))"}[by]
    rows = sql.execute(
        f"""select b.{by} from bucket b join (select instance, ordinal from call where due) using (instance, ordinal)
            where b.{by} is not null group by b.{by} order by {first}"""
    ).fetchall()
    return [row[0] for row in rows]
