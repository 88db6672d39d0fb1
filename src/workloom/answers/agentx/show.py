"""An aggregate as rows of words, for a terminal."""

from __future__ import annotations

from msgspec import UnsetType

from workloom.answers.agentx.mvp import Four, MvpSummary
from workloom.answers.agentx.shape import Aggregate, Spread, Validity

HEADINGS = ["", "mean", "p50", "p75", "p90", "p95", "std", "p99"]
MVP_HEADINGS = ["", "p50", "p75", "p90", "p99"]
Rows = list[list[str]]


def rows(result: Aggregate) -> tuple[list[tuple[str, str]], Rows]:
    """Names and values, and a table of distributions under HEADINGS."""
    r, own = result, result.workloom
    found, counts = r.request_metrics, own.counts
    speed, cache = found.throughput, r.server_metrics.cache
    per_gpu = "-" if isinstance(speed.per_gpu, UnsetType) else _number(speed.per_gpu.total_tput_tps, "tok/s")
    total = "-" if isinstance(speed.total, UnsetType) else _number(speed.total.tokens_per_second, "tok/s")
    accounting = r.request_accounting
    errors = ", ".join(f"{n:,} {kind}" for kind, n in accounting.error_categories.items())
    lines = [
        ("scenario", own.scenario or "none"),
        ("requests", f"{r.num_requests_successful:,} profiled of {r.num_requests_total:,} records"),
        ("dropped", f"{accounting.records_warmup_dropped:,} warm-up, {accounting.records_error_dropped:,} failed"),
        ("errors", errors or "none"),
        ("in the window", f"{counts.due:,} due, {counts.ended:,} ended, {counts.censored:,} censored"),
        ("throughput", f"{total}, {per_gpu} per GPU ({r.num_gpus}), over {_number(speed.duration_seconds, 's')}"),
        ("  in the window", _number(own.window_throughput.total_tokens_per_second, "tok/s")),
        ("qps", f"{_number(found.qps.mean)} mean, {_number(found.qps.p90)} p90"),
        ("theoretical hit rate", _rate(found.cache.theoretical_cache_hit_rate, own.theoretical_cache_hit_rate_from)),
        ("  ideal, by the rows", _rate(own.ideal_cache_hit_rate, "tokens")),
        ("hit rate", _rate(cache.overall_cache_hit_rate, f"server metrics, {r.server_metrics.adapter}")),
        ("  by the answers", _rate(own.reported_cache_hit_rate, "usage")),
        ("the tool itself", ": ".join(filter(None, [own.tool.verdict, "; ".join(own.tool.reasons)])) or "-"),
        *_stamp(own.validity),
    ]
    latency = found.latency
    table = [
        _spread("TTFT, s", latency.ttft, own.p99.ttft),
        _spread("E2EL, s", latency.e2el, own.p99.e2el),
        _spread("ITL (TPOT), s", latency.itl, own.p99.itl),
        _spread("full-response ITL, s", latency.full_response_itl, own.p99.full_response_itl),
        _spread("intvty, tok/s", latency.intvty, own.p99.intvty),
        _spread("E2E-norm. intvty, tok/s", latency.e2e_norm_intvty, own.p99.e2e_norm_intvty),
        _spread("full-response intvty, tok/s", latency.full_response_intvty, own.p99.full_response_intvty),
        _spread("ISL, tokens", found.tokens.input, None),
        _spread("OSL, tokens", found.tokens.output_actual, None),
        _spread("OSL planned, tokens", found.tokens.output_expected, None),
    ]
    return lines, table


def mvp_rows(result: MvpSummary) -> tuple[list[tuple[str, str]], Rows]:
    """Names and values, and a table of P50, P75, P90 and P99."""
    r = result
    lines = [
        ("scenario", r.scenario or "none"),
        ("requests", f"{r.num_requests_successful:,} profiled of {r.num_requests_total:,} records"),
        ("throughput", f"{_number(r.total_tput_tps, 'tok/s')}, {_number(r.total_tput_per_gpu_tps, 'tok/s')} per GPU"),
        ("theoretical hit rate", _rate(r.theoretical_cache_hit_rate, None)),
        *_stamp(r.validity),
    ]
    table = [
        _four("TTFT, s", r.ttft),
        _four("E2EL, s", r.e2el),
        _four("ITL, s", r.itl),
        _four("intvty, tok/s", r.intvty),
        _four("E2E-norm. intvty, tok/s", r.e2e_norm_intvty),
    ]
    return lines, table


def _stamp(validity: Validity) -> list[tuple[str, str]]:
    head = [("valid", "yes" if validity.valid else "no")]
    return head + [("  because" if i == 0 else "", reason) for i, reason in enumerate(validity.reasons)]


def _spread(name: str, found: Spread, p99: float | None) -> list[str]:
    figures = (found.mean, found.p50, found.p75, found.p90, found.p95, found.std, p99)
    return [name, *(_number(figure) for figure in figures)]


def _four(name: str, found: Four) -> list[str]:
    return [name, *(_number(figure) for figure in (found.p50, found.p75, found.p90, found.p99))]


def _rate(rate: float | None, by: str | None) -> str:
    return "-" if rate is None else f"{rate:.2%}" + (f" ({by})" if by else "")


def _number(value: float | UnsetType | None, unit: str = "") -> str:
    if value is None or isinstance(value, UnsetType):
        return "-"
    said = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{said} {unit}".rstrip()
