"""What it cost: money and energy per call, task, session and million tokens, under assumptions that somebody gave.

`--price-per-gpu-hour` makes figures of what the servers cost (GPUs x seconds of the window x price, whether the GPUs
were busy or not), `--price-per-mtok` of what its tokens would have cost a customer, `--power-w` (or power that was
sampled) of energy. What ended well in the window is what it was spent on; failed calls are paid by the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workloom.metrics.catalog import Metric, Totals
from workloom.metrics.delivery import ended, output_in_window
from workloom.metrics.given import PER_MTOK
from workloom.metrics.measured import Measured
from workloom.metrics.server import server_side
from workloom.metrics.stats import Floats
from workloom.metrics.streams import streams
from workloom.metrics.workflow.tasks import tasks

HOUR_S = 3600.0

Amounts = Callable[[Measured], tuple[Floats, Floats]]
"""What money or energy is divided by: how much of it each row is, and the session of each row."""


def _calls(run: Measured) -> tuple[Floats, Floats]:
    there = ended(run) | run.due
    return ended(run)[there].astype(np.float64), run.calls.instance[there]


def _tasks(run: Measured) -> tuple[Floats, Floats]:
    found = tasks(run)
    over = found.ok & run.window.holds(found.done_ns)
    there = over | run.window.holds(found.due_ns)
    return over[there].astype(np.float64), found.instance[there]


def _sessions(run: Measured) -> tuple[Floats, Floats]:
    sessions = run.sessions
    over = sessions.ok & run.window.holds(sessions.end_ns)
    there = over | run.window.holds(sessions.due_ns)
    return over[there].astype(np.float64), sessions.instance[there]


def _output(run: Measured) -> tuple[Floats, Floats]:
    flow = streams(run)
    tokens = output_in_window(run.calls, flow.carried, flow.delivered)
    there = (tokens > 0) | run.due
    return tokens[there], run.calls.instance[there]


def _spent(run: Measured, total: float | None, amounts: Amounts) -> Totals | None:
    """A sum that was spent whichever sessions came, over an amount: every row bears an equal part of it."""
    if total is None:
        return None
    amount, session = amounts(run)
    if not amount.sum():
        return None
    _, code, rows = np.unique(session, return_inverse=True, return_counts=True)
    each = total / len(rows) / rows[code]  # the same of every session, however many rows it has
    return Totals(each, amount, session)


def _gpu_usd(run: Measured) -> float | None:
    gpus, price = run.gpus, run.given.usd_per_gpu_hour
    return None if gpus is None or price is None else gpus * price * run.window.seconds / HOUR_S


def gpu_call_usd(run: Measured) -> Totals | None:
    """What the GPUs cost over the window / calls that ended well in it."""
    return _spent(run, _gpu_usd(run), _calls)


def gpu_task_usd(run: Measured) -> Totals | None:
    """What the GPUs cost over the window / tasks that ended well in it."""
    return _spent(run, _gpu_usd(run), _tasks)


def gpu_session_usd(run: Measured) -> Totals | None:
    """What the GPUs cost over the window / sessions that ended well in it."""
    return _spent(run, _gpu_usd(run), _sessions)


def gpu_mtok_usd(run: Measured) -> Totals | None:
    """What the GPUs cost over the window / million output tokens that came in it."""
    return _million(_spent(run, _gpu_usd(run), _output))


def _million(per_token: Totals | None) -> Totals | None:
    return None if per_token is None else Totals(per_token.part * PER_MTOK, per_token.whole, per_token.session)


def _token_usd(run: Measured) -> Floats | None:
    """What the tokens of each call would have cost: prompt tokens when the first token came, output as it came."""
    given, calls = run.given, run.calls
    if not given.tokens_priced:
        return None
    computed_usd = given.usd_per_mtok_input or 0.0
    cached_usd = computed_usd if given.usd_per_mtok_cached is None else given.usd_per_mtok_cached
    flow = streams(run)
    prompt = np.where(run.window.holds(calls.first_ns), run.prompt_tokens, 0.0)
    cached = np.minimum(np.nan_to_num(calls.cached_tokens), prompt)
    output = output_in_window(calls, flow.carried, flow.delivered)
    usd = (prompt - cached) * computed_usd + cached * cached_usd + output * (given.usd_per_mtok_output or 0.0)
    return usd / PER_MTOK if run.only is None else np.where(run.only, usd, 0.0) / PER_MTOK


def _paid(run: Measured, amounts: Amounts) -> Totals | None:
    """What tokens cost in the window over an amount."""
    usd = _token_usd(run)
    if usd is None:
        return None
    amount, session = amounts(run)
    there = (usd > 0) | run.due
    if not amount.sum():
        return None
    none = np.zeros(int(there.sum()))
    return Totals(
        np.concatenate([usd[there], np.zeros(len(amount))]),
        np.concatenate([none, amount]),
        np.concatenate([run.calls.instance[there], session]),
    )


def token_call_usd(run: Measured) -> Totals | None:
    """What the tokens that went through in the window cost at the prices given / calls that ended well in it. Tokens of
    failed calls are paid for too. Cached prompt tokens are those the server reports; where it does not, none are."""
    return _paid(run, _calls)


def token_task_usd(run: Measured) -> Totals | None:
    """What the tokens that went through in the window cost at the prices given / tasks that ended well in it."""
    return _paid(run, _tasks)


def token_session_usd(run: Measured) -> Totals | None:
    """What the tokens that went through in the window cost at the prices given / sessions that ended well in it."""
    return _paid(run, _sessions)


def token_mtok_usd(run: Measured) -> Totals | None:
    """What the tokens that went through in the window cost at the prices given / million output tokens among them: what
    an output token costs with the prompts it needs."""
    return _million(_paid(run, _output))


def energy_j(run: Measured) -> float | None:
    """Energy of the GPUs over the window: by the power given and the number of GPUs, or as the samples say (the growth
    of an energy counter, or mean power x time); None: nobody says."""
    seconds = run.window.seconds
    if run.given.power_w is not None:
        return None if run.gpus is None else run.given.power_w * run.gpus * seconds
    side = server_side(run.samples, run.window)
    if side is None:
        return None
    if side.growth.get("energy_j"):
        return side.growth["energy_j"]
    power = side.gauges.get("power_w")
    return None if power is None or power.mean is None else power.mean * seconds


def power_w(run: Measured) -> Totals | None:
    """Mean power of the GPUs over the window, all of them together."""
    joules, seconds = energy_j(run), run.window.seconds
    if joules is None or seconds <= 0:
        return None
    sessions = np.unique(run.calls.instance[run.due])
    return Totals(np.full(len(sessions), joules / max(len(sessions), 1)), seconds, sessions)


def call_energy_j(run: Measured) -> Totals | None:
    """Energy of the GPUs over the window / calls that ended well in it."""
    return _spent(run, energy_j(run), _calls)


def task_energy_j(run: Measured) -> Totals | None:
    """Energy of the GPUs over the window / tasks that ended well in it."""
    return _spent(run, energy_j(run), _tasks)


def session_energy_j(run: Measured) -> Totals | None:
    """Energy of the GPUs over the window / sessions that ended well in it."""
    return _spent(run, energy_j(run), _sessions)


def output_token_energy_j(run: Measured) -> Totals | None:
    """Energy of the GPUs over the window / output tokens that came in it."""
    return _spent(run, energy_j(run), _output)


GPU_PRICE = "a price (workloom metrics --price-per-gpu-hour)"
TOKEN_PRICE = "a price (workloom metrics --price-per-mtok)"

METRICS = (
    Metric("gpu_call_usd", "GPU cost a call", "USD", "run", "lower", gpu_call_usd, needs=GPU_PRICE),
    Metric("gpu_task_usd", "GPU cost a task", "USD", "run", "lower", gpu_task_usd, ("cost_per_task",), needs=GPU_PRICE),
    Metric("gpu_session_usd", "GPU cost a session", "USD", "run", "lower", gpu_session_usd, needs=GPU_PRICE),
    Metric("gpu_mtok_usd", "GPU cost a million output tokens", "USD", "run", "lower", gpu_mtok_usd, needs=GPU_PRICE),
    Metric("token_call_usd", "token cost a call", "USD", "run", "lower", token_call_usd, needs=TOKEN_PRICE),
    Metric("token_task_usd", "token cost a task", "USD", "run", "lower", token_task_usd, needs=TOKEN_PRICE),
    Metric("token_session_usd", "token cost a session", "USD", "run", "lower", token_session_usd, needs=TOKEN_PRICE),
    Metric(
        "token_mtok_usd", "token cost a million output tokens", "USD", "run", "lower", token_mtok_usd, needs=TOKEN_PRICE
    ),
    Metric("power_w", "power of the GPUs", "W", "run", "lower", power_w, (), "AgentX: avg power, of one node"),
    Metric("call_energy_j", "energy a call", "J", "run", "lower", call_energy_j),
    Metric("task_energy_j", "energy a task", "J", "run", "lower", task_energy_j),
    Metric("session_energy_j", "energy a session", "J", "run", "lower", session_energy_j),
    Metric(
        *("output_token_energy_j", "energy an output token", "J", "run", "lower", output_token_energy_j),
        also="AgentX: joules per output token",
    ),
)
