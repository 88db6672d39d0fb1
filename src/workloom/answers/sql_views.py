"""The views that `workloom sql` lays over the tables of runs: lists unrolled, and durations in seconds.

Durations are those of :mod:`workloom.metrics` (a test holds them equal): a failed call's latency is infinite, what
there is not is null.
"""

from __future__ import annotations

from typing import NamedTuple


class View(NamedTuple):
    """A view, what a row of it is, and its query."""

    name: str
    what: str
    sql: str


_KEY = "run, instance, session, call, ordinal, phase"
_TO_FIRST = """coalesce(case when status in ('ok', 'timeout', 'censored') then (first_ns - {begin}) / 1e9 end,
                if(status in ('error', 'timeout'), 'inf'::double, null))"""
_TO_LAST = """case when status = 'ok' then (last_ns - {begin}) / 1e9
                when status in ('error', 'timeout') then 'inf'::double end"""

CHUNKS = f"""
select {_KEY}, place - 1 as place, part.first_ns, part.gap_ns, part.slope_ns, part.count, part.tokens_each,
       (round_even(part.first_ns + (part.count - 1) * part.gap_ns
                   + part.slope_ns * ((part.count - 1) * (part.count - 2) // 2), 0))::bigint as last_ns
from (select {_KEY}, unnest(chunks) as part, generate_subscripts(chunks, 1) as place from calls)
where part.count > 0"""

GAPS = f"""
select {_KEY}, place, 0 as i, between_ns / 1e9 as gap_s
from (select *, first_ns - lag(last_ns) over (partition by run, instance, phase, ordinal order by place) as between_ns
      from chunks)
where between_ns is not null
union all
select {_KEY}, place, i + 1, (gap_ns + i * slope_ns) / 1e9
from (select *, unnest(range(count - 1)) as i from chunks where count > 1)"""

EDGES = """
select child.run, child.instance, child.session, child.call, child.ordinal, edge.ordinal as after_ordinal,
       parent.call as after_call, edge.gap, edge.wait_ns / 1e9 as wait_s, parent.done_ns as after_done_ns, child.due_ns
from (select *, unnest(after) as edge from calls where phase = 'run') as child
left join calls as parent
  on parent.run = child.run and parent.instance = child.instance and parent.ordinal = edge.ordinal
  and parent.phase = 'run'"""

CALLS_S = f"""
select run, instance, session, call, ordinal, agent, role, model, phase, status,
       phase = 'run' and due_ns >= window_start_ns and due_ns < window_end_ns as measured,
       due_ns / 1e9 as due_s, (sent_ns - due_ns) / 1e9 as sent_after_due_s,
       case when retries = 0 then (sent_ns - due_ns - connect_ns) / 1e9 end as lag_s,
       (admitted_ns - sent_ns) / 1e9 as queue_s,
       {_TO_FIRST.format(begin="sent_ns")} as ttft_s,
       {_TO_FIRST.format(begin="due_ns")} as ttft_from_due_s,
       {_TO_LAST.format(begin="sent_ns")} as e2e_s,
       {_TO_LAST.format(begin="due_ns")} as e2e_from_due_s,
       case when status in ('error', 'timeout') then if(planned_output_tokens > 1, 'inf'::double, null)
            when status = 'ok' and coalesce(output_tokens, carried) > 1
            then (last_ns - first_ns) / 1e9 / (coalesce(output_tokens, carried) - 1) end as tpot_s,
       coalesce(prompt_tokens, sent_prompt_tokens) as prompt_tokens, cached_tokens, ideal_cached_tokens,
       planned_fresh_tokens as fresh_tokens, coalesce(output_tokens, carried) as output_tokens
from (select *, coalesce(list_sum(list_transform(chunks, lambda part: part.count * part.tokens_each)), 0)::bigint
             as carried from calls)
left join _roles using (agent)
join (select run, window_start_ns, window_end_ns from runs) using (run)"""

SESSIONS_S = """
select run, instance, session, "user", workflow, status, calls, calls_ok,
       due_ns >= window_start_ns and due_ns < window_end_ns as measured,
       due_ns / 1e9 as due_s, (start_ns - due_ns) / 1e9 as started_after_due_s,
       case when calls_before > 0 then null
            when status = 'failed' then 'inf'::double
            when status = 'ok' then (end_ns - due_ns) / 1e9 end as makespan_s
from sessions
join (select run, window_start_ns, window_end_ns from runs) using (run)"""

TASKS = """
select task.run, task.instance, call.session, task.task, call.call, task.* exclude (run, instance, task)
from _tasks as task
join calls as call on call.run = task.run and call.instance = task.instance and call.ordinal = task.ordinal
where call.phase = 'run'"""

VIEWS = (
    View("chunks", "a chunk run of a call", CHUNKS),
    View("gaps", "a gap between two chunks of a call (TBC)", GAPS),
    View("edges", "a call and one that had to be done before it", EDGES),
    View("calls_s", "a call, with its durations in seconds", CALLS_S),
    View("sessions_s", "a session, with its durations in seconds", SESSIONS_S),
)
"""Each may use those before it, and the tables."""
