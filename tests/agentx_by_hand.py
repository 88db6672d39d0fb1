"""AgentX's aggregate, the protocol of agentx-mvp, and TRIE's headline figures, worked out by hand from a run's files.

Nothing of the product's analysis is used: rows come from the Parquet files as dicts, and every figure is a loop over
them. Prompts are compared piece by piece. Slow on purpose. Sources: the definitions of InferenceX AgentX v1.0 and of
Applied Compute's harness, and where these are silent, the decisions of the glossary.
"""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Row = dict[str, Any]
NS = 10**9


class ByHand:
    """The files of a run directory as they lie there, and the window they were measured in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = json.loads((path / "manifest.json").read_text())
        self.plan = json.loads((path / "plan.json").read_text())
        self.calls: list[Row] = pq.read_table(path / "calls.parquet").to_pylist()
        self.sessions: list[Row] = pq.read_table(path / "sessions.parquet").to_pylist()
        self.server: list[Row] = pq.read_table(path / "server.parquet").to_pylist()
        self.start_ns: int = self.manifest["window_start_ns"]
        end = self.manifest["window_end_ns"]
        self.end_ns: int = self._last() if end is None else end

    def _last(self) -> int:
        """The last instant that was recorded, which still belongs to the window."""
        instants = [row[name] for row in self.calls for name in ("due_ns", "done_ns", "last_ns") if row[name]]
        instants += [row["end_ns"] for row in self.sessions]
        return max(instants, default=0) + 1

    def due(self, row: Row) -> bool:
        return bool(self.start_ns <= row["due_ns"] < self.end_ns)

    def profiled(self) -> list[Row]:
        """The calls that figures are made of."""
        return [row for row in self.calls if row["phase"] == "run" and row["status"] == "ok" and self.due(row)]


# -- figures of a list of numbers


def percentile(values: list[float], q: float) -> float:
    """Linear between the two nearest ranks."""
    ranked = sorted(values)
    at = Fraction(str(q)) / 100 * (len(ranked) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + float(at - below) * (ranked[above] - ranked[below])


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def deviation(values: list[float]) -> float:
    """The population's: divided by n."""
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / len(values))


def above_zero(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None and value > 0]


QS = (50.0, 75.0, 90.0, 95.0)


def group(values: list[float | None]) -> dict[str, float]:
    """Of times: those of 0 or less are no times."""
    return six(above_zero(values))


def six(kept: list[float]) -> dict[str, float]:
    """mean, p50, p75, p90, p95, std; nothing of nothing."""
    if not kept:
        return {}
    return {"mean": mean(kept), **{f"p{q:.0f}": percentile(kept, q) for q in QS}, "std": deviation(kept)}


def inverted(values: list[float | None]) -> dict[str, float]:
    """The same per second: the percentile first, then its inverse, so p90 is the slow tail."""
    kept = above_zero(values)
    if not kept:
        return {}
    out = {"mean": 1 / mean(kept), **{f"p{q:.0f}": 1 / percentile(kept, q) for q in QS}}
    return {**out, "std": deviation([1 / value for value in kept])}


# -- one call


def seconds(begin_ns: int | None, end_ns: int | None) -> float | None:
    return None if begin_ns is None or end_ns is None else (end_ns - begin_ns) / NS


def ttft(row: Row) -> float | None:
    return seconds(row["sent_ns"], row["first_ns"])


def e2el(row: Row) -> float | None:
    return seconds(row["sent_ns"], row["last_ns"])


def per_gap(row: Row, whole_s: float | None) -> float | None:
    """(whole - TTFT) / (tokens - 1)."""
    first_s, tokens = ttft(row), row["output_tokens"]
    if whole_s is None or first_s is None or tokens is None or tokens <= 1:
        return None
    return float((whole_s - first_s) / (tokens - 1))


def itl(row: Row) -> float | None:
    return per_gap(row, e2el(row))


def full_response_itl(row: Row) -> float | None:
    return per_gap(row, seconds(row["sent_ns"], row["done_ns"]))


def per_token(row: Row) -> float | None:
    """E2EL / OSL."""
    whole_s, tokens = e2el(row), row["output_tokens"]
    return None if whole_s is None or not tokens else whole_s / tokens


def isl(row: Row) -> int:
    """The server's count of the prompt, else our own."""
    counted = row["prompt_tokens"]
    return int(row["sent_prompt_tokens"] if counted is None else counted)


# -- AgentX


def latency(rows: list[Row]) -> dict[str, dict[str, float]]:
    gaps = [itl(row) for row in rows]
    whole_gaps = [full_response_itl(row) for row in rows]
    return {
        "ttft": group([ttft(row) for row in rows]),
        "e2el": group([e2el(row) for row in rows]),
        "itl": group(gaps),
        "tpot": group(gaps),
        "intvty": inverted(gaps),
        "e2e_norm_intvty": inverted([per_token(row) for row in rows]),
        "full_response_itl": group(whole_gaps),
        "full_response_intvty": inverted(whole_gaps),
    }


def tokens(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Of counts, also those of 0, where there is a count."""
    return {
        "input": six([isl(row) for row in rows]),
        "output_actual": six([row["output_tokens"] for row in rows if row["output_tokens"] is not None]),
        "output_expected": six([row["planned_output_tokens"] for row in rows]),
    }


def qps(rows: list[Row]) -> dict[str, float]:
    """Ends per second, second after second from the first end; the last second, which is not whole, is left out."""
    ends = sorted(row["done_ns"] for row in rows if row["done_ns"] is not None)
    if len(ends) < 2 or ends[0] == ends[-1]:
        return {}
    span_ns = ends[-1] - ends[0]
    if span_ns < NS:
        return {"window_seconds": 1, "samples": 0, "mean": len(ends) / (span_ns / NS)}
    counts = [0] * (span_ns // NS)
    for end in ends:
        second = (end - ends[0]) // NS
        if second < len(counts):
            counts[second] += 1
    return {"window_seconds": 1, "samples": len(counts), **six([float(count) for count in counts])}


def throughput(rows: list[Row], gpus: int) -> dict[str, float]:
    """Tokens of the profiled calls between the first that was sent and the last that ended."""
    begins = [row["sent_ns"] for row in rows if row["sent_ns"] is not None]
    ends = [row["done_ns"] for row in rows if row["done_ns"] is not None]
    if not begins or not ends or max(ends) <= min(begins):
        return {}
    whole_s = (max(ends) - min(begins)) / NS
    came = {"input": sum(isl(row) for row in rows), "output": sum(row["output_tokens"] or 0 for row in rows)}
    came["total"] = came["input"] + came["output"]
    out = {f"{kind}.tokens_per_second": count / whole_s for kind, count in came.items()}
    out |= {f"per_gpu.{kind}_tput_tps": count / whole_s / gpus for kind, count in came.items()}
    return {**out, "duration_seconds": whole_s}


def ended(row: Row) -> bool:
    return row["status"] in ("ok", "error", "timeout")


def category(row: Row) -> str:
    if row["status"] == "timeout":
        return "timeout"
    return f"http_{row['http_status']}" if row["error_kind"] == "http_status" else str(row["error_kind"])


def accounting(run: ByHand) -> dict[str, Any]:
    """Who was counted, who was not, and why."""
    warmups = [row for row in run.calls if row["phase"] == "warmup" and ended(row)]
    due = [row for row in run.calls if row["phase"] == "run" and ended(row) and run.due(row)]
    failed = [row for row in warmups + due if row["status"] != "ok"]
    categories: dict[str, int] = {}
    for row in failed:
        categories[category(row)] = categories.get(category(row), 0) + 1
    profiled = len(run.profiled())
    return {
        "records_total": len(warmups) + len(due),
        "records_profiled": profiled,
        "records_dropped_total": len(warmups) + len(due) - profiled,
        "records_warmup_dropped": len(warmups),
        "records_error_dropped": len(failed),
        "error_categories": categories,
    }


# -- what an infinite cache of prompts would have held

Text = tuple[tuple[Any, ...], int]
"""A text, by whatever tells it from all others, and how many of its first tokens are used."""


def shared(a: list[Text], b: list[Text]) -> int:
    """Tokens of the longest common beginning of two prompts."""
    total = 0
    for (text_a, used_a), (text_b, used_b) in zip(a, b, strict=False):
        if text_a != text_b:
            break
        total += min(used_a, used_b)
        if used_a != used_b:
            break
    return total


def cut(texts: list[Text], length: int) -> list[Text]:
    out: list[Text] = []
    for text, used in texts:
        if length <= 0:
            break
        out.append((text, min(used, length)))
        length -= used
    return out


def held(trace: Path) -> tuple[int | None, dict[tuple[str, str], tuple[int, int]]]:
    """The block size of a native trace, and (held, prompt) tokens of every call, in the order they stand there."""
    block: int | None = None
    everyone: list[list[Text]] = []  # beginnings that other sessions can share: spans of scope trace
    out: dict[tuple[str, str], tuple[int, int]] = {}
    for line in trace.read_text().splitlines():
        entry = json.loads(line)
        if entry.get("format") == "workloom":
            block = entry.get("block_tokens")
            continue
        earlier: list[list[Text]] = []
        wholes: dict[str, list[Text]] = {}
        for call in entry["calls"]:
            prompt = _prompt(entry["id"], call, wholes)
            best = max((shared(prompt, other) for other in [*earlier, *everyone]), default=0)
            out[entry["id"], call["id"]] = (best, sum(used for _, used in prompt))
            earlier.append(prompt)
            said = max(call["output_tokens"], 1)
            said = min(said, call.get("stop_after", said))
            wholes[call["id"]] = [*prompt, (("answer", entry["id"], call["id"]), said)]
        for prompt in earlier:
            lead = [text for i, text in enumerate(prompt) if all(t[0][0] == "trace" for t in prompt[: i + 1])]
            if lead and lead not in everyone:
                everyone.append(lead)
    return block, out


def _prompt(session: str, call: Row, wholes: dict[str, list[Text]]) -> list[Text]:
    """inherited + spans + fresh."""
    texts: list[Text] = []
    inherit = call.get("inherit")
    if inherit is not None:
        whole = wholes[inherit["call"]]
        texts += whole if inherit.get("tokens") is None else cut(whole, inherit["tokens"])
    for span in call.get("spans", ()):
        name = ("trace", span["name"]) if span.get("scope") == "trace" else ("session", session, span["name"])
        texts.append((name, span["tokens"]))
    for index, part in enumerate(call.get("fresh", ())):
        texts.append((("fresh", session, call["id"], index), part["tokens"]))
    return [(text, used) for text, used in texts if used > 0]


def theoretical(rows: list[Row], trace: Path) -> float | None:
    """Blocks (tokens, where the trace knows no blocks) that earlier prompts of the trace hold / all of them."""
    block, known = held(trace)
    unit = block or 1
    there = asked = 0
    for row in rows:
        if (row["session"], row["call"]) in known:
            hold, prompt = known[row["session"], row["call"]]
            there += hold // unit
            asked += prompt // unit
    return there / asked if asked else None


# -- the server's own figures


def readings(run: ByHand, *names: str) -> dict[str, list[tuple[int, float]]]:
    """By replica: (instant, value) of the first of these names that was said, in order of time."""
    for name in names:
        series: dict[str, list[tuple[int, float]]] = {}
        for row in run.server:
            if row["name"].removesuffix("_total") == name:
                series.setdefault(row["replica"], []).append((row["at_ns"], row["value"]))
        if series:
            return {replica: sorted(points) for replica, points in series.items()}
    return {}


def horizon(run: ByHand) -> tuple[int, int]:
    """From the window's start to its end, or to the end of the last profiled call where that is later."""
    dones = [row["done_ns"] for row in run.profiled() if row["done_ns"] is not None]
    return run.start_ns, max([run.end_ns, *dones])


def growth(run: ByHand, *names: str) -> float | None:
    """What a counter gained, replicas summed; a counter that falls began again at zero."""
    begin, end = horizon(run)
    series = readings(run, *names)
    if not series:
        return None
    heard: dict[str, int] = {}
    for row in run.server:
        heard[row["replica"]] = min(row["at_ns"], heard.get(row["replica"], row["at_ns"]))
    total = 0.0
    for replica, points in series.items():
        if points[0][0] > heard[replica]:
            points = [(heard[replica], 0.0), *points]
        before = [value for at, value in points if at <= begin]
        after = [value for at, value in points if begin < at <= end]
        if not before and not after:
            continue
        last = before[-1] if before else after[0]
        for value in after:
            total += value - last if value >= last else value
            last = value
    return total


def peak(run: ByHand, *names: str) -> float | None:
    """The highest of what was said of a gauge in that time, by any replica."""
    begin, end = horizon(run)
    return max(
        (value for points in readings(run, *names).values() for at, value in points if begin <= at <= end), default=None
    )


def usage(run: ByHand, *names: str) -> float | None:
    """A peak as a share, whether it was said as one or in percent."""
    value = peak(run, *names)
    return None if value is None else value / 100 if value > 1.5 else value


def ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def by_label(run: ByHand, name: str, label: str) -> dict[str, float]:
    """Growth of `name{label=VALUE}`, by VALUE."""
    begin = f"{name}{{{label}="
    names = {row["name"].removesuffix("_total") for row in run.server if row["name"].startswith(begin)}
    grown = {found[len(begin) : -1]: growth(run, found) for found in sorted(names)}
    return {value: amount for value, amount in grown.items() if amount is not None}


def server(run: ByHand, adapter: str) -> dict[str, Any]:
    """What the servers said, by AgentX's rules for vLLM and SGLang."""
    found = {"vllm": vllm, "sglang": sglang}[adapter](run)
    names = {row["name"].removesuffix("_total").partition("{")[0] for row in run.server}
    found |= {"present": bool(run.server), "metric_count": len(names)}
    said, rows = found["tokens"], run.profiled()
    if said["prompt_total"] is None:  # then the calls say it
        said["prompt_total"] = sum(isl(row) for row in rows)
    if said["generation_total"] is None:
        said["generation_total"] = sum(row["output_tokens"] or 0 for row in rows)
    return found


def vllm(run: ByHand) -> dict[str, Any]:
    hits, queries = growth(run, "vllm:prefix_cache_hits"), growth(run, "vllm:prefix_cache_queries")
    far_hits, far_queries = (
        growth(run, "vllm:external_prefix_cache_hits"),
        growth(run, "vllm:external_prefix_cache_queries"),
    )
    gpu, far, overall = ratio(hits, queries), ratio(far_hits, far_queries), ratio(hits, queries)
    sources = by_label(run, "vllm:prompt_tokens_by_source", "source")
    whole = sum(sources.values())
    if whole > 0:  # then these say it
        gpu = sources["local_cache_hit"] / whole if "local_cache_hit" in sources else gpu
        far = sources["external_kv_transfer"] / whole if "external_kv_transfer" in sources else far
        overall = (sources.get("local_cache_hit", 0.0) + sources.get("external_kv_transfer", 0.0)) / whole
    moved = {f"bytes_{way}": growth(run, f"vllm:kv_offload_bytes_{way}") for way in ("gpu_to_cpu", "cpu_to_gpu")}
    took = {f"time_{way}": growth(run, f"vllm:kv_offload_time_{way}") for way in ("gpu_to_cpu", "cpu_to_gpu")}
    speed = {
        f"bandwidth_{way}_bytes_per_second": ratio(moved[f"bytes_{way}"], took[f"time_{way}"])
        for way in ("gpu_to_cpu", "cpu_to_gpu")
    }
    return {
        "adapter": "vllm",
        "cache": {
            "gpu_cache_hit_rate": gpu,
            "cpu_cache_hit_rate": far,
            "external_cache_hit_rate": far,
            "overall_cache_hit_rate": overall,
            "prefix_cache_hits": hits,
            "prefix_cache_queries": queries,
            "external_prefix_cache_hits": far_hits,
            "external_prefix_cache_queries": far_queries,
            "cached_tokens_by_source": {},
        },
        "kv_cache": {
            "gpu_usage_pct": usage(run, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
            "cpu_usage_pct": usage(run, "vllm:cpu_kv_cache_usage_perc"),
        },
        "kv_offload": {**moved, **took, **speed},
        "tokens": {
            "prompt_total": growth(run, "vllm:prompt_tokens"),
            "generation_total": growth(run, "vllm:generation_tokens"),
            "requests_completed": len(run.profiled()),
            "prompt_by_source": {
                "gpu_cache_hit": sources.get("local_cache_hit"),
                "cpu_or_external_cache_hit": sources.get("external_kv_transfer"),
                "computed": sources.get("local_compute"),
                "raw": sources,
            },
        },
        "sources": vllm_sources(run),
    }


def vllm_sources(run: ByHand) -> list[dict[str, Any]]:
    """The same of each engine by itself."""
    out = []
    for replica in sorted({row["replica"] for row in run.server if row["name"].startswith("vllm:")}):
        alone = copy.copy(run)
        alone.server = [row for row in run.server if row["replica"] == replica]
        hits, queries = growth(alone, "vllm:prefix_cache_hits"), growth(alone, "vllm:prefix_cache_queries")
        source = {
            "id": f"combined|{replica}" if replica else "combined",
            "role": "combined",
            "prompt_tokens": growth(alone, "vllm:prompt_tokens"),
            "generation_tokens": growth(alone, "vllm:generation_tokens"),
            "prefix_cache_hit_rate": ratio(hits, queries),
            "gpu_kv_cache_usage_pct": usage(alone, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        }
        out.append(source)
    return out


def sglang(run: ByHand) -> dict[str, Any]:
    prompt = growth(run, "sglang:prompt_tokens")
    cached = by_label(run, "sglang:cached_tokens", "cache_source")
    device, host = cached.get("device"), cached.get("host")
    overall = ratio(sum(cached.values()) if cached else None, prompt)
    used, room = peak(run, "sglang:hicache_host_used_tokens"), peak(run, "sglang:hicache_host_total_tokens")
    capacity = [max(value for _, value in points) for points in readings(run, "sglang:max_total_num_tokens").values()]
    return {
        "adapter": "sglang",
        "cache": {
            "gpu_cache_hit_rate": ratio(device, prompt),
            "cpu_cache_hit_rate": ratio(host, prompt),
            "external_cache_hit_rate": ratio(host, prompt),
            "overall_cache_hit_rate": overall,
            "cached_tokens_by_source": cached,
        },
        "kv_cache": {
            "gpu_usage_pct": usage(run, "sglang:token_usage"),
            "gpu_total_tokens": sum(capacity) if capacity else None,
            "cpu_usage_pct": ratio(used, room),
            "cpu_used_tokens": used,
            "cpu_total_tokens": room,
        },
        "tokens": {
            "prompt_total": prompt,
            "generation_total": growth(run, "sglang:generation_tokens"),
            "requests_completed": len(run.profiled()),
            "prompt_by_source": {
                "gpu_cache_hit": device,
                "cpu_or_external_cache_hit": host,
                "computed": growth(run, "sglang:realtime_tokens{mode=prefill_compute}"),
                "raw": cached,
            },
        },
    }


def aggregate(run: ByHand, trace: Path | None, gpus: int, adapter: str | None) -> dict[str, Any]:
    """Every figure of AgentX's aggregate that is worked out from rows."""
    rows, counts = run.profiled(), accounting(run)
    out: dict[str, Any] = {
        "num_requests_total": counts["records_total"],
        "num_requests_successful": counts["records_profiled"],
        "request_accounting": counts,
        "request_metrics": {
            "qps": qps(rows),
            "latency": latency(rows),
            "tokens": tokens(rows),
            "throughput": nested(throughput(rows, gpus)),
            "cache": {"theoretical_cache_hit_rate": None if trace is None else theoretical(rows, trace)},
        },
    }
    if adapter is not None:
        out["server_metrics"] = server(run, adapter)
    return out


def nested(flat: dict[str, float]) -> dict[str, Any]:
    """`a.b` as b of a."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        place = out
        *path, last = name.split(".")
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return out


# -- agentx-mvp


def four(values: list[float | None], *, inverse: bool = False) -> dict[str, float]:
    """P50, P75, P90, P99; a rate is the inverse of the time's percentile."""
    kept = above_zero(values)
    if not kept:
        return {}
    found = {f"p{q:.0f}": percentile(kept, q) for q in (50.0, 75.0, 90.0, 99.0)}
    return {name: 1 / value for name, value in found.items()} if inverse else found


def mvp(run: ByHand) -> dict[str, dict[str, float]]:
    rows = run.profiled()
    return {
        "ttft": four([ttft(row) for row in rows]),
        "e2el": four([e2el(row) for row in rows]),
        "itl": four([itl(row) for row in rows]),
        "intvty": four([itl(row) for row in rows], inverse=True),
        "e2e_norm_intvty": four([per_token(row) for row in rows], inverse=True),
    }


# -- TRIE


def spread(values: list[float]) -> dict[str, float | int | None]:
    if not values:
        return {"n": 0, "mean": None, "min": None, "p50": None, "p90": None, "p95": None, "p99": None, "max": None}
    ranks = {f"p{q:.0f}": percentile(values, q) for q in (50.0, 90.0, 95.0, 99.0)}
    return {"n": len(values), "mean": mean(values), "min": min(values), **ranks, "max": max(values)}


def of_session(run: ByHand) -> dict[int, list[Row]]:
    """The calls of each session in the order of the plan."""
    out: dict[int, list[Row]] = {}
    for row in run.calls:
        out.setdefault(row["instance"], []).append(row)
    return {instance: sorted(rows, key=lambda row: row["ordinal"]) for instance, rows in out.items()}


def eligible(run: ByHand) -> dict[tuple[int, int], int]:
    """What the call before of the same agent left for a call to find: its prompt and its answer."""
    out: dict[tuple[int, int], int] = {}
    for instance, rows in of_session(run).items():
        left: dict[str, int] = {}
        for row in rows:
            out[instance, row["ordinal"]] = left.get(row["agent"], 0)
            left[row["agent"]] = isl(row) + (row["output_tokens"] or 0)
    return out


def whole_traces(run: ByHand) -> list[list[Row]]:
    """Sessions that were due in the window, ended well, and began at their first call."""
    calls = of_session(run)
    return [
        calls[session["instance"]]
        for session in run.sessions
        if session["status"] == "ok" and not session["calls_before"] and run.start_ns <= session["due_ns"] < run.end_ns
    ]


FIGURES = """e2e_s ttft_s ttfat_s tpot_s itl_s decode_tokens_per_s output_tokens_per_trace output_tokens_per_turn
cache_hit_rate eligible_cache_hit_rate"""


def of_traces(run: ByHand) -> dict[str, list[float]]:
    """One figure a trace."""
    room = eligible(run)
    out: dict[str, list[float]] = {name: [] for name in FIGURES.split()}
    for rows in whole_traces(run):
        first = rows[0]
        final = max((row for row in rows if row["agent"] == first["agent"]), key=lambda row: row["done_ns"])
        out["e2e_s"].append((max(row["done_ns"] for row in rows) - first["due_ns"]) / NS)
        out["ttft_s"].append(ttft(first) or 0.0)
        out["ttfat_s"].append((final["first_ns"] - first["due_ns"]) / NS)
        gaps = [gap for gap in map(itl, rows) if gap]
        if gaps:
            out["tpot_s"].append(mean(gaps))
            out["decode_tokens_per_s"].append(mean([1 / gap for gap in gaps]))
        chunks = [(row, sum(part["count"] for part in row["chunks"])) for row in rows]
        between = [(row["last_ns"] - row["first_ns"], count - 1) for row, count in chunks if count > 1]
        if between:  # all gaps of the trace together
            out["itl_s"].append(sum(whole for whole, _ in between) / sum(count for _, count in between) / NS)
        out["output_tokens_per_trace"].append(sum(row["output_tokens"] for row in rows))
        out["output_tokens_per_turn"] += [row["output_tokens"] for row in rows]
        told = [row for row in rows if row["cached_tokens"] is not None]
        prompts = sum(isl(row) for row in told)
        if prompts:
            out["cache_hit_rate"].append(sum(row["cached_tokens"] for row in told) / prompts)
        could = sum(room[row["instance"], row["ordinal"]] for row in told)
        if could:
            out["eligible_cache_hit_rate"].append(sum(row["cached_tokens"] for row in told) / could)
    return out


def rate(run: ByHand, amounts: list[tuple[int, float]], gpus: int) -> dict[str, float]:
    """Amounts by their instants: over the window, its last 30 s, and all of it but its first fifth."""
    whole_ns = run.end_ns - run.start_ns

    def per_second(begin_ns: Fraction | int) -> float:
        came = math.fsum(amount for at, amount in amounts if begin_ns <= at < run.end_ns)
        return came / float((run.end_ns - begin_ns) / NS)

    last_ns = min(30 * NS, whole_ns)
    steady = per_second(run.start_ns + Fraction(whole_ns, 5))
    return {
        "overall": per_second(run.start_ns),
        "last_30s": per_second(run.end_ns - last_ns),
        "steady_state": steady,
        "steady_state_per_gpu": steady / gpus,
    }


def trie(run: ByHand, gpus: int) -> dict[str, Any]:
    """The headline figures: by trace, by tokens, by second."""
    room = eligible(run)
    turns = [
        row
        for row in run.calls
        if row["phase"] == "run" and row["status"] == "ok" and run.start_ns <= row["done_ns"] < run.end_ns
    ]
    told = [row for row in turns if row["cached_tokens"] is not None]
    found = sum(row["cached_tokens"] for row in told)
    expected = [(row, min(room[row["instance"], row["ordinal"]], isl(row))) for row in turns]
    ends = [(max(row["done_ns"] for row in rows), 1.0) for rows in whole_traces(run)]
    return {
        "turns": len(turns),
        "cache_hit_rate": ratio(found, sum(isl(row) for row in told)),
        "eligible_cache_hit_rate": ratio(found, sum(room[row["instance"], row["ordinal"]] for row in told)),
        "traces": {"count": len(whole_traces(run)), **{name: spread(v) for name, v in of_traces(run).items()}},
        "workload": {
            "traces": rate(run, ends, gpus),
            "prompt_tokens": rate(run, [(row["done_ns"], isl(row)) for row in turns], gpus),
            "cached_prompt_tokens": rate(run, [(row["done_ns"], cached) for row, cached in expected], gpus),
            "uncached_prompt_tokens": rate(
                run, [(row["done_ns"], isl(row) - cached) for row, cached in expected], gpus
            ),
            "completion_tokens": rate(run, [(row["done_ns"], row["output_tokens"] or 0) for row in turns], gpus),
        },
    }
