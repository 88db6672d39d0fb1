"""What agents and their users wait for: sessions and tasks, their critical paths, and what would make them shorter.

view       which rows and sessions, what bound each call          <- dag, parts
tasks      tasks, turns, depths
path       critical paths with blame, that add up                 shares: the same as metrics
slack      what each call had to spare       speedup: what making something faster would buy
makespan   sessions and tasks, TTFAT, TTFUT, slowdown             <- ideal
wasted     work that came to nothing
explain    all of it for a reader
"""

from workloom.metrics.catalog import Metric
from workloom.metrics.workflow.makespan import makespan_s, slowdown, task_makespan_s, ttfat_s, ttfut_s
from workloom.metrics.workflow.shares import critical_calls, metrics, slack_s
from workloom.metrics.workflow.tasks import Tasks, depths, tasks, turns
from workloom.metrics.workflow.wasted import wasted_time_share, wasted_token_share

__all__ = ["METRICS", "Tasks", "depths", "tasks", "turns"]

METRICS = (
    Metric("makespan_s", "makespan", "s", "session", "lower", makespan_s, ("session_makespan_s", "session_makespan")),
    Metric("task_makespan_s", "task makespan", "s", "task", "lower", task_makespan_s),
    Metric("ttfat_s", "TTFAT", "s", "task", "lower", ttfat_s, (), "time to first answer token"),
    Metric("ttfut_s", "TTFUT", "s", "task", "lower", ttfut_s, (), "time to first user-facing token"),
    Metric("slowdown", "slowdown", "ratio", "session", "lower", slowdown),
    Metric("slack_s", "slack", "s", "call", "neither", slack_s, (), "total float (critical path method)"),
    Metric("critical_calls", "calls on the critical path", "count", "session", "neither", critical_calls),
    Metric("wasted_token_share", "wasted tokens", "share", "run", "lower", wasted_token_share, ("wasted_share",)),
    Metric("wasted_time_share", "wasted seconds in flight", "share", "run", "lower", wasted_time_share),
    *metrics(),
)
