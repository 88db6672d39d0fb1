"""An auditor of the metrics: each worked out again from the tables of a run directory, in SQL.

It reads calls.parquet, sessions.parquet, server.parquet and manifest.json with DuckDB and follows docs/metrics.md and
docs/run-directory.md. Of workloom it uses nothing: neither its tables, nor its numpy, nor its metrics.

    SAMPLES   a row (instance, value) for each call, gap, task or session that has a value; a failure is infinite
    RATIOS    one number: a share, a rate, a throughput; null where the run cannot say

Sessions, tasks and critical paths are in metrics_audit_workflow.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import metrics_audit_summary as summaries
import metrics_audit_workflow as workflow


class Limit(NamedTuple):
    """`metric` of each call, task or session may be at most so much; of a call's gaps, at most 5 % may be longer."""

    metric: str
    at_most: float


class Given(NamedTuple):
    """What somebody must say: prices, power, promises."""

    usd_per_gpu_hour: float = 3.6
    usd_per_mtok_input: float = 2.0
    usd_per_mtok_cached: float = 0.25
    usd_per_mtok_output: float = 8.0
    power_w: float = 700.0
    limits: tuple[Limit, ...] = ()


class Audit:
    """Every figure of a run: `values` by metric, of those with one value a call (gap, task, session), and `ratios`."""

    def __init__(self, folder: Path, given: Given) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_bytes())
        self.sql = duckdb.connect(config={"threads": 1})
        begin, end = self.manifest["window_start_ns"], self.manifest["window_end_ns"]
        told = (begin, end, _gpus(self.manifest), _block(self.manifest))
        self.sql.execute(TOLD.format(*("null" if one is None else one for one in told)))
        self.sql.execute(GIVEN.format(*given[:5]))
        for table in ("calls", "sessions", "server"):
            self.sql.execute(f"create table {table} as select * from read_parquet('{folder / table}.parquet')")
        self.sql.execute(TABLES)
        workflow.build(self.sql)
        summaries.build(self.sql)
        self._keep(given.limits)
        self.sql.execute("create table sample (metric text, instance bigint, value double)")
        for metric, rows in (SAMPLES | workflow.SAMPLES).items():
            self.sql.execute(f"insert into sample select '{metric}', * from ({rows}) as t(i, v) where v is not null")

    def _keep(self, limits: tuple[Limit, ...]) -> None:
        """Which calls, tasks and sessions kept the limits."""
        broken = {"call": ["false"], "task": ["false"], "session": ["false"]}
        for metric, at_most in limits:
            broken[OF[metric]].append(BREAKS[metric].format(at_most))
        self.sql.execute(KEPT.format(**{kind: " or ".join(tests) for kind, tests in broken.items()}))

    def values(self, metric: str) -> list[tuple[int, float]]:
        """(instance, value), sorted."""
        return self.sql.execute("select instance, value from sample where metric = ? order by all", [metric]).fetchall()

    def statistic(self, metric: str, statistic: str) -> float | None:
        """`mean` or `p95` of a metric; None without a value. Percentiles are linear between ranks."""
        return _statistic([value for (value,) in self._ranked(metric)], statistic)

    def _ranked(self, metric: str) -> list[tuple[float]]:
        return self.sql.execute("select value from sample where metric = ? order by value", [metric]).fetchall()

    def ratio(self, metric: str) -> float | None:
        """A metric that is one number."""
        found = self.sql.execute((RATIOS | workflow.RATIOS)[metric]).fetchall()[0][0]
        return None if found is None or math.isnan(found) else float(found)

    def kinds(self, by: str) -> list[str]:
        """The kinds of calls by `agent`, `turn` or `depth`."""
        return summaries.kinds(self.sql, by)

    def of_kind(self, metric: str, by: str, kind: str) -> list[float]:
        """Values of a metric over the calls of a kind, sorted; or its one number."""
        return summaries.of_kind(self.sql, metric, by, kind)

    def summary(self) -> dict[str, float | None]:
        """Numbers of summary.json by their paths."""
        found = summaries.counts(self.sql)
        for metric in summaries.LATENCIES:
            ranked = [value for (value,) in self._ranked(metric)]
            found[f"latency.{metric}.n"] = len(ranked)
            found[f"latency.{metric}.infinite"] = sum(map(math.isinf, ranked))
            for each in ("mean", *summaries.LEVELS):
                found[f"latency.{metric}.{each}"] = _statistic(ranked, each)
        return found


def _statistic(ranked: list[float], statistic: str) -> float | None:
    if not ranked:
        return None
    if statistic == "mean":
        return math.fsum(ranked) / len(ranked)
    low, part = divmod(int(statistic[1:]) * (len(ranked) - 1), 100)
    below, above = ranked[low], ranked[min(low + 1, len(ranked) - 1)]
    return below if part == 0 or below == above else below + (above - below) * part / 100


def _gpus(manifest: dict[str, Any]) -> float | None:
    """GPUs of a simulated run: of its engine, or of all replicas of its fleet."""
    config = manifest["config"]
    if fleet := config.get("fleet"):
        pools = fleet["pools"]
        if any(pool.get("autoscale") for pool in pools):
            return None
        return float(sum(pool["replicas"] * pool["profile"]["gpus"] for pool in pools))
    return None if "engine" not in config else float(config["engine"]["gpus"])


def _block(manifest: dict[str, Any]) -> int | None:
    """Tokens of a KV block."""
    engine = manifest["config"].get("engine")
    return None if engine is None else int(engine["block_tokens"])


TOLD = """
create table told as select {0}::bigint as begins, {1}::bigint as ends, {2}::double as gpus, {3}::bigint as block;
create macro inside(ns) as (ns >= (select begins from told) and ns < (select ends from told));
create macro seconds() as (select (ends - begins) / 1e9 from told);
create macro gpus() as (select gpus from told);
create macro never() as 'inf'::double;
create macro block() as (select block from told);
"""

GIVEN = """
create table price as select {0} as gpu_hour, {1} as input, {2} as cached, {3} as output, {4} as power_w;
"""

TABLES = """
create table chunk as
    select instance, ordinal, phase, run, i, r.tokens_each as tokens,
           round(r.first_ns + i * r.gap_ns + r.slope_ns * (i * (i - 1) // 2))::bigint as came
    from (select *, unnest(range(r.count)) as i from (
        select instance, ordinal, phase, unnest(chunks) as r, generate_subscripts(chunks, 1) as run from calls));

create table stream as
    select instance, ordinal, phase, min(came) as began, max(came) as ceased, count(*) as instants,
           sum(tokens) as carried, sum(tokens) filter (inside(came)) as carried_inside
    from chunk group by all;

create table call as
    select c.* exclude (chunks), phase = 'run' and inside(due_ns) as due,
           status in ('error', 'timeout') as failed,
           status <> 'cancelled' and sent_ns is not null as sent,
           coalesce(prompt_tokens, sent_prompt_tokens) as prompt,
           coalesce(carried, 0) as carried,
           coalesce(output_tokens, carried, 0) as output,
           -- a server's own count of an answer is spread over its chunks
           coalesce(carried_inside, 0) * coalesce(output_tokens / nullif(carried, 0), 1) as output_inside,
           coalesce(instants, 0) as instants, began, ceased
    from calls c left join stream using (instance, ordinal, phase);

create table gap as
    select instance, ordinal, phase,
           (came - lag(came) over (partition by instance, ordinal, phase order by run, i)) / 1e9 as s
    from chunk qualify s is not null;

create table latency as
    select instance, ordinal, agent, status, failed, output,
           -- the first token of a call that was cut off or timed out came when it came; an error gave no answer
           case when status = 'error' then never()
                when first_ns is not null then (first_ns - sent_ns) / 1e9
                when status = 'timeout' then never() end as ttft,
           case when status = 'error' then never()
                when first_ns is not null then (first_ns - due_ns) / 1e9
                when status = 'timeout' then never() end as ttft_from_due,
           case when failed then never() when status = 'ok' then (last_ns - sent_ns) / 1e9 end as e2e,
           case when failed then never() when status = 'ok' then (last_ns - due_ns) / 1e9 end as e2e_from_due,
           -- an answer of one token has none; a failed call is judged by its plan
           case when failed and planned_output_tokens > 1 then never()
                when status = 'ok' and output > 1 then (last_ns - first_ns) / 1e9 / (output - 1) end as tpot,
           due
    from call where phase = 'run';

-- how many decode at once, from one instant to the next
create table level as
    select since, lead(since) over (order by since) as until, sum(sum(step)) over (order by since) as n
    from (select began as since, 1 as step from call where ceased > began
          union all select ceased, -1 from call where ceased > began)
    group by since;
create table level_inside as
    select n, greatest(0, least(until, ends) - greatest(since, begins)) as ns from level, told;

create table counter as  -- growth in the window: from the last sample at or before each edge
    select name, replica,
           coalesce(arg_max(value, at_ns) filter (at_ns <= (select ends from told)), 0)
           - coalesce(arg_max(value, at_ns) filter (at_ns <= (select begins from told)), 0) as growth
    from server group by all;
"""

OF = {
    "ttft_s": "call",
    "e2e_s": "call",
    "tpot_s": "call",
    "tbc_s": "call",
    "task_makespan_s": "task",
    "makespan_s": "session",
}

BREAKS = {
    "ttft_s": "ttft > {}",
    "e2e_s": "e2e > {}",
    "tpot_s": "tpot > {}",
    "tbc_s": "(select count(*) filter (s > {}) * 100 > 5 * count(*) from gap g "
    "where g.instance = l.instance and g.ordinal = l.ordinal and g.phase = 'run')",
    "task_makespan_s": "makespan > {}",
    "makespan_s": "(end_ns - due_ns) / 1e9 > {}",
}

KEPT = """
create table good_call as select instance, ordinal from latency l where status = 'ok' and not coalesce({call}, false);
create table good_task as
    select t.* from task t where t.status = 'ok' and not coalesce({task}, false)
    and not exists (from in_task i anti join good_call using (instance, ordinal)
                    where i.instance = t.instance and i.opens = t.opens);
create table good_session as
    select s.* from sessions s where s.status = 'ok' and not coalesce({session}, false)
    and not exists (from (from call where phase = 'run') c anti join good_call using (instance, ordinal)
                    where c.instance = s.instance);
"""

SAMPLES = {
    "ttft_s": "select instance, ttft from latency where due",
    "ttft_from_due_s": "select instance, ttft_from_due from latency where due",
    "e2e_s": "select instance, e2e from latency where due",
    "e2e_from_due_s": "select instance, e2e_from_due from latency where due",
    "tpot_s": "select instance, tpot from latency where due",
    "user_tokens_per_s": "select instance, 1 / tpot from latency where due",
    "tbc_s": "select instance, s from gap join call using (instance, ordinal, phase) where due",
    "lag_s": "select instance, (sent_ns - due_ns - connect_ns) / 1e9 from call where due and sent and retries = 0",
    "queue_s": """select instance, case when admitted_ns is not null then (admitted_ns - sent_ns) / 1e9
                                        when failed and first_ns is null then never() end from call
                  where due and exists (from call where admitted_ns is not null)""",
    "prefill_s": """select instance, case when first_ns is not null then (first_ns - admitted_ns) / 1e9
                                          when failed then never() end from call
                    where due and exists (from call where admitted_ns is not null)""",
    "prompt_tokens": "select instance, prompt from call where due and sent",
    "output_tokens": "select instance, output from call where due and status = 'ok'",
    "kv_token_s": "select instance, token_s from held join call using (instance, ordinal) where due",
    "session_kv_token_s": """select instance, coalesce(sum(token_s), 0) from sessions s left join held using (instance)
                             where inside(due_ns) and status <> 'censored' and calls_before = 0 group by instance""",
    "task_kv_token_s": """select t.instance, coalesce(sum(token_s), 0) from task t join in_task using (instance, opens)
                          left join held using (instance, ordinal)
                          where inside(due_ns) and t.status in ('ok', 'failed') group by t.instance, t.opens""",
    "decodes_at_once": """select instance, (select max(n) from level where since < ceased and until > began) from call
                          where due and instants > 1""",
    "session_tokens_per_s": """select instance, sum(if(status = 'ok', output, 0)) / (sum(done_ns - sent_ns) / 1e9)
                               from call where due and sent and status <> 'censored' group by instance""",
    "session_ttft_s": "select instance, avg(ttft) from latency where due group by instance",
}

TOKENS_USD = """(select sum(case when inside(first_ns) then (prompt - coalesce(cached_tokens, 0)) * price.input
                                                          + coalesce(cached_tokens, 0) * price.cached else 0 end
                          + output_inside * price.output) / 1e6 from call, price)"""
GPU_USD = "(select gpus() * seconds() / 3600 * gpu_hour from price)"
ENERGY_J = "(select gpus() * seconds() * power_w from price)"
OUTPUT = "(select sum(output_inside) from call)"
PROMPT = "(select sum(prompt) from call where inside(first_ns))"
CALLS = "(select count(*) from call where status = 'ok' and phase = 'run' and inside(done_ns))"
SESSIONS = "(select count(*) from sessions where status = 'ok' and inside(end_ns))"
TASKS = "(select count(*) from task where status = 'ok' and inside(done_ns))"
PREFILLED = """from call where due and sent and cached_tokens is not null and prompt_tokens is not null
               and ideal_cached_tokens is not null"""


def _per(spent: str, name: str, amount: str) -> dict[str, str]:
    return {name: f"select {spent} / nullif({amount}, 0)"}


RATIOS = {
    "errors": "select count(*) filter (failed) / nullif(count(*), 0) from call where due and status <> 'cancelled'",
    "completed_share": "select count(*) filter (status = 'ok') / count(*) from call where due",
    "output_tokens_per_s": f"select {OUTPUT} / seconds()",
    "prompt_tokens_per_s": f"select {PROMPT} / seconds()",
    "uncached_tokens_per_s": """select sum(prompt - cached_tokens) / seconds() from call
                                where inside(first_ns) and cached_tokens is not null""",
    "calls_per_s": f"select {CALLS} / seconds()",
    "sessions_per_s": f"select {SESSIONS} / seconds()",
    "output_tokens_per_s_per_gpu": f"select {OUTPUT} / seconds() / gpus()",
    "prompt_tokens_per_s_per_gpu": f"select {PROMPT} / seconds() / gpus()",
    "calls_per_s_per_gpu": f"select {CALLS} / seconds() / gpus()",
    "sessions_per_s_per_gpu": f"select {SESSIONS} / seconds() / gpus()",
    "tpot_throughput_tokens_per_s": "select 1 / avg(tpot) from latency where due and status = 'ok'",
    "prompt_reuse_ratio": "select avg(1 - planned_fresh_tokens / planned_prompt_tokens) from call where due",
    "hit_rate": """select sum(cached_tokens) / sum(prompt_tokens) from call
                   where due and sent and cached_tokens is not null""",
    "ideal_hit_rate": """select sum(ideal_cached_tokens) / sum(ideal_prompt_tokens) from call where due and sent
                         and (cached_tokens is not null
                              or not exists (from call where due and sent and cached_tokens is not null))""",
    "reprefilled_share": f"""select sum(least(greatest(ideal_cached_tokens - cached_tokens, 0), prompt - cached_tokens))
                                    / sum(prompt - cached_tokens) {PREFILLED}""",
    "eviction_share": f"""select sum(greatest(ideal_cached_tokens // block() * block() - cached_tokens, 0))
                                 / sum(prompt - cached_tokens) {PREFILLED} and block() is not null""",
    "preemptions_ratio": f"select sum(growth) / nullif({CALLS}, 0) from counter where name = 'vllm:num_preemptions'",
    "decode_overlap_ratio": "select sum(ns * n * n) / sum(ns * n) from level_inside",
    "decode_overlap_10_share": "select coalesce(sum(ns) filter (n >= 10), 0) / sum(ns) from level_inside where n >= 1",
    "jain_index": f"select sum(v) ^ 2 / (count(*) * sum(v * v)) from ({SAMPLES['session_tokens_per_s']}) as t(i, v)",
    "goodput_calls_per_s": """select count(*) / seconds() from good_call join call using (instance, ordinal)
                              where phase = 'run' and inside(done_ns)""",
    "goodput_tasks_per_s": "select count(*) / seconds() from good_task where inside(done_ns)",
    "goodput_sessions_per_s": "select count(*) / seconds() from good_session where inside(end_ns)",
    "good_call_share": """select count(*) filter (exists (from good_call g where g.instance = c.instance
                                                          and g.ordinal = c.ordinal)) / count(*)
                          from call c where due and status <> 'censored'""",
    "good_task_share": """select count(*) filter (exists (from good_task g where g.instance = t.instance
                                                          and g.opens = t.opens)) / count(*)
                          from task t where inside(due_ns) and status in ('ok', 'failed')""",
    **_per(GPU_USD, "gpu_call_usd", CALLS),
    **_per(GPU_USD, "gpu_task_usd", TASKS),
    **_per(GPU_USD, "gpu_session_usd", SESSIONS),
    **_per(GPU_USD, "gpu_mtok_usd", f"({OUTPUT} / 1e6)"),
    **_per(TOKENS_USD, "token_call_usd", CALLS),
    **_per(TOKENS_USD, "token_task_usd", TASKS),
    **_per(TOKENS_USD, "token_session_usd", SESSIONS),
    **_per(TOKENS_USD, "token_mtok_usd", f"({OUTPUT} / 1e6)"),
    **_per(ENERGY_J, "power_w", "seconds()"),
    **_per(ENERGY_J, "call_energy_j", CALLS),
    **_per(ENERGY_J, "task_energy_j", TASKS),
    **_per(ENERGY_J, "session_energy_j", SESSIONS),
    **_per(ENERGY_J, "output_token_energy_j", OUTPUT),
}
