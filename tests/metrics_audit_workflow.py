"""The auditor's sessions, tasks, critical paths, slack and waste: walks over the DAG as the table `calls` has it.

Whether work came to nothing and what a call had to spare are walked in Python, a critical path in SQL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import duckdb

GAPS = ("tool", "human", "spawn", "network", "orchestration")
OWN = ("lag", "retry", "connect", "queue", "prefill", "queue_or_prefill", "decode", "stream_end")
SERVER = ("queue", "prefill", "queue_or_prefill", "decode", "stream_end")
PARTS = (*GAPS, "unnamed", *OWN)


def build(sql: duckdb.DuckDBPyConnection) -> None:
    """Make the tables that SAMPLES and RATIOS are asked of."""
    sql.execute(EDGES)
    sql.execute(TASKS)
    sql.execute(BOUND)
    sql.execute(PATHS)
    sql.execute(HELD)
    sql.execute("create table spare (instance bigint, ordinal bigint, ns bigint)")
    insert(sql, "spare", _slack(sql))
    sql.execute("create table wasted (instance bigint, ordinal bigint)")
    insert(sql, "wasted", _wasted(sql))


def insert(sql: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[int | str, ...]]) -> None:
    """Rows into a table."""
    if rows:
        sql.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)


def _children(sql: duckdb.DuckDBPyConnection) -> dict[tuple[int, int], list[tuple[int, int, str]]]:
    """Of each call (instance, ordinal), those that wait for it: ordinal, wait, gap."""
    found: dict[tuple[int, int], list[tuple[int, int, str]]] = defaultdict(list)
    for instance, parent, child, wait_ns, gap in sql.execute(
        "select instance, parent, ordinal, wait_ns, gap from edge where there"
    ).fetchall():
        found[instance, parent].append((child, wait_ns, gap))
    return found


def _slack(sql: duckdb.DuckDBPyConnection) -> list[tuple[int, int, int]]:
    """Of each call of sessions with a makespan: session's end - own end - the longest way from there to any end."""
    children = _children(sql)
    rows = sql.execute(
        "select c.instance, ordinal, c.due_ns, done_ns, w.end_ns from call c join whole w using (instance) "
        "where phase = 'run' order by c.instance, ordinal desc"
    ).fetchall()
    at = {(instance, ordinal): (due, done) for instance, ordinal, due, done, _ in rows}
    tail: dict[tuple[int, int], int] = {}
    out = []
    for instance, ordinal, _, done, end in rows:
        ways = [0]
        for child, wait_ns, _ in children[instance, ordinal]:
            began, ended = at[instance, child]
            # a call that a cap on idle time moved up waited less than its edge says
            ways.append(min(wait_ns, began - done) + ended - began + tail[instance, child])
        tail[instance, ordinal] = max(ways)
        out.append((instance, ordinal, end - done - max(ways)))
    return out


def _wasted(sql: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """Failed calls, and those whose result nobody got."""
    children = _children(sql)
    reaches: dict[tuple[int, int], bool] = {}
    out = []
    for instance, ordinal, status in sql.execute(
        "select instance, ordinal, status from call where phase = 'run' order by instance, ordinal desc"
    ).fetchall():
        next_ones = children[instance, ordinal]
        final = not next_ones or any(gap == "human" for _, _, gap in next_ones)
        further = any(reaches[instance, child] for child, _, _ in next_ones)
        # of a session that goes on after a failure, what came before the failed call may reach somebody all the same
        reaches[instance, ordinal] = further or status == "censored" or (status == "ok" and final)
        if status in ("error", "timeout") or (status == "ok" and not reaches[instance, ordinal]):
            out.append((instance, ordinal))
    return out


EDGES = """
create table edge as
    select c.instance, c.ordinal, n, e.ordinal as parent, e.wait_ns, e.gap, p.done_ns as parent_done,
           p.ordinal is not null as there
    from (select *, unnest(after) as e, generate_subscripts(after, 1) as n from calls where phase = 'run') c
    left join (from calls where phase = 'run') p on p.instance = c.instance and p.ordinal = e.ordinal;

create table whole as  -- sessions that have a makespan
    select instance, due_ns, end_ns from sessions where status = 'ok' and calls_before = 0;
"""

TASKS = """
-- a call opens a task if it waits for the human, or for nothing; -1 is the one that a session begun in its middle goes
-- on with (or was about to go on with: what came before is not in these tables)
create table entered as select distinct instance, ordinal from edge where gap = 'human' and there;
create table in_task as
    with recursive opened as (
        select instance, ordinal, ordinal as opens from calls where phase = 'run' and len(after) = 0
        union all select instance, ordinal, ordinal from entered
        union all select instance, ordinal, -1 from edge where not there
        union
        select e.instance, e.ordinal, o.opens
        from opened o join edge e on e.instance = o.instance and e.parent = o.ordinal
        anti join entered h on h.instance = e.instance and h.ordinal = e.ordinal)
    select instance, ordinal, max(opens) as opens from opened group by all;

create table task as
    with every as (
        select t.instance, opens, o.agent, coalesce(o.due_ns, min(c.due_ns)) as due_ns, max(c.done_ns) as done_ns,
               o.status as begun,
               bool_or(c.failed or c.status = 'cancelled') as failed, bool_or(c.status = 'censored') as cut,
               min(c.first_ns) filter (c.agent = o.agent) as first_ns,
               arg_max(coalesce(c.first_ns, -1), t.ordinal) filter (c.agent = o.agent) as answer_ns
        from in_task t join call c using (instance, ordinal)
        left join (from call where phase = 'run') o on o.instance = t.instance and o.ordinal = opens
        where c.phase = 'run' group by t.instance, opens, o.agent, o.due_ns, o.status)
    select *,
           case status when 'ok' then (done_ns - due_ns) / 1e9 when 'failed' then never() end as makespan
    from (select every.*, case when opens < 0 then 'partial' when begun = 'cancelled' then 'never begun'
                               when failed then 'failed' when cut then 'censored'
                               -- of a session that was cut off nobody knows whether its last task was over
                               when s.status = 'censored' and opens = max(opens) over (partition by every.instance)
                               then 'censored' else 'ok' end as status
          from every left join sessions s using (instance));
"""

BOUND = """
-- the edge that a call waited for: the one that says when it was due, else the one that says the latest
create table bound as
    select instance, ordinal, c.agent, c.due_ns, c.done_ns, parent, parent_done,
           case when gap in ('tool', 'human', 'spawn', 'network', 'orchestration') then gap else 'unnamed' end as gap
    from (from call where phase = 'run') c left join (from edge where there) using (instance, ordinal)
    qualify row_number() over (partition by instance, ordinal order by parent_done + wait_ns = c.due_ns desc,
                               parent_done + wait_ns desc, n desc) = 1;

-- what each call's own time is made of
create table own as
    with mark as (
        select instance, ordinal, due_ns, sent_ns - connect_ns as leaves, sent_ns, admitted_ns,
               coalesce(first_ns, done_ns) as first_ns, coalesce(last_ns, done_ns) as last_ns, done_ns, retries
        from call where phase = 'run' and status = 'ok')
    select instance, ordinal, if(retries > 0, 'retry', 'lag') as part, due_ns as since, leaves as until from mark
    union all select instance, ordinal, 'connect', leaves, sent_ns from mark
    union all select instance, ordinal, 'queue', sent_ns, admitted_ns from mark where admitted_ns is not null
    union all select instance, ordinal, 'prefill', admitted_ns, first_ns from mark where admitted_ns is not null
    union all select instance, ordinal, 'queue_or_prefill', sent_ns, first_ns from mark where admitted_ns is null
    union all select instance, ordinal, 'decode', first_ns, last_ns from mark
    union all select instance, ordinal, 'stream_end', last_ns, done_ns from mark;
"""

PATHS = """
-- whose path it is: a session from its first due on, a task from its own; `root` is the agent the human talks to
create table owner as
    select 'session' as kind, w.instance, 0 as opens, c.agent as root, w.due_ns as since, inside(w.due_ns) as due
    from whole w join (from call where phase = 'run') c on c.instance = w.instance and c.ordinal = 0
    union all
    select 'task', instance, opens, agent, due_ns, inside(due_ns) from task where status = 'ok';

create table leg as
    with recursive walk as (
        select kind, o.instance, opens, root, o.since, o.due, b.ordinal, b.parent
        from owner o join bound b using (instance)
        where kind = 'session' or exists (from in_task i where i.instance = o.instance and i.opens = o.opens
                                          and i.ordinal = b.ordinal)
        qualify row_number() over (partition by kind, o.instance, opens order by b.done_ns desc, b.ordinal desc) = 1
        union all
        select kind, w.instance, opens, root, since, due, b.ordinal, b.parent
        from walk w join bound b on b.instance = w.instance and b.ordinal = w.parent
        where b.done_ns > since)
    from walk;

create table blame as
    with piece as (
        select instance, ordinal, part, since as from_ns, until as to_ns from own
        union all select instance, ordinal, gap, parent_done, due_ns from bound where parent is not null)
    select kind, instance, opens, due, part, agent <> root as sub, greatest(0, to_ns - greatest(from_ns, since)) as ns
    from leg join piece using (instance, ordinal) join (select instance, ordinal, agent from call where phase = 'run')
    using (instance, ordinal);

create table makespan as
    select kind, o.instance, o.opens, o.due, coalesce(s.end_ns - s.due_ns, t.done_ns - t.due_ns) as ns
    from owner o left join whole s on kind = 'session' and s.instance = o.instance
    left join task t on kind = 'task' and t.instance = o.instance and t.opens = o.opens;
"""

HELD = """
create table held as
    select c.instance, c.ordinal,
           (prompt * (done_ns - coalesce(admitted_ns, sent_ns))::double + coalesce(answer, 0)) / 1e9 as token_s
    from call c left join (
        select instance, ordinal, sum(tokens * (done_ns - came)::double) as answer
        from chunk join calls using (instance, ordinal, phase) where phase = 'run' group by all) a
    using (instance, ordinal)
    where c.phase = 'run' and sent and status <> 'censored';
"""

SAMPLES = {
    # from the calls, not from what the session says of itself
    "makespan_s": """select s.instance, if(s.status = 'ok', (max(c.done_ns) - min(c.due_ns)) / 1e9, never())
                     from sessions s join call c using (instance)
                     where c.phase = 'run' and inside(s.due_ns) and s.status <> 'censored' and calls_before = 0
                     group by s.instance, s.status""",
    "task_makespan_s": "select instance, makespan from task where inside(due_ns)",
    "ttfat_s": """select instance, case when status = 'failed' then never()
                                        when status = 'ok' and answer_ns >= 0 then (answer_ns - due_ns) / 1e9 end
                  from task where inside(due_ns)""",
    "ttfut_s": """select instance, case when status not in ('ok', 'failed', 'censored') then null::double
                                        when first_ns is not null then (first_ns - due_ns) / 1e9
                                        when status = 'failed' then never() end
                  from task where inside(due_ns)""",
    "slack_s": "select instance, ns / 1e9 from spare join call using (instance, ordinal) where due",
    "critical_calls": "select instance, count(*) from leg where kind = 'session' and due group by instance",
}

SPENT = "from call c left join wasted w using (instance, ordinal) where due and sent and status <> 'censored'"
TOKENS = "(if(failed and first_ns is null, 0, prompt - coalesce(cached_tokens, 0)) + output)"
SECONDS = "(done_ns - sent_ns)"


def _share(kind: str, test: str) -> str:
    return f"""select (select coalesce(sum(ns), 0) from blame where kind = '{kind}' and due and {test})
                      / (select nullif(sum(ns), 0) from makespan where kind = '{kind}' and due)"""


RATIOS = {
    "wasted_token_share": f"select sum(if(w.ordinal is null, 0, {TOKENS})) / sum({TOKENS}) {SPENT}",
    "wasted_time_share": f"select sum(if(w.ordinal is null, 0, {SECONDS})) / sum({SECONDS}) {SPENT}",
}
for prefix, kind in (("blame", "session"), ("task_blame", "task")):
    RATIOS |= {f"{prefix}_{part}_share": _share(kind, f"part = '{part}'") for part in PARTS}
    RATIOS[f"{prefix}_server_share"] = _share(kind, f"part in {SERVER}")
    RATIOS[f"{prefix}_join_wait_share"] = _share(kind, "sub")


def unlike(sql: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    """Sessions and tasks whose parts do not add up to their makespan: none."""
    return sql.execute(
        """select kind, instance, opens, any_value(m.ns), sum(b.ns)
           from makespan m left join blame b using (kind, instance, opens) group by all having m.ns <> sum(b.ns)"""
    ).fetchall()
