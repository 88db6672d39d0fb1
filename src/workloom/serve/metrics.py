"""/metrics: the engine's state and its calls under vLLM's names, types and buckets.

Latencies are the engine's own instants, from arrival at the server. Prefix-cache counters rise when a call is admitted,
token counters while it runs, prompt tokens by source when it ends. What an engine keeps no account of (its own CPU,
LoRA, speculation) is not there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from workloom.engine.cluster import Cluster, UnderWay, engines
from workloom.engine.engine import PS, Engine, Finished, Steps
from workloom.engine.figures import counters
from workloom.serve.pump import Call, Pump

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
    *(960.0, 1920.0, 7680.0),
)
_TOKENS = tuple(float(m * 10**e) for e in range(6) for m in (1, 2, 5))
FINISHED = ("stop", "length", "abort", "error")
_PS_PER_S = PS * 1_000_000_000


class Histogram:
    """Counts by bucket; cheap to add to."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def add_gaps(self, steps: Steps) -> None:
        """The gaps between the tokens of consecutive steps: a few bisections while they stay in one bucket."""
        gaps = steps.length - 1
        if gaps < 1:
            return
        first, last = steps.gap_ps / _PS_PER_S, (steps.gap_ps + (gaps - 1) * steps.slope_ps) / _PS_PER_S
        if bisect_left(self.bounds, first) == bisect_left(self.bounds, last):
            self.add((first + last) / 2, gaps)
        else:
            for i in range(gaps):
                self.add((steps.gap_ps + i * steps.slope_ps) / _PS_PER_S)

    def cumulative(self) -> list[tuple[str, float]]:
        """As the format wants it: (upper bound, observations up to it)."""
        total, out = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            out.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return out


_HISTOGRAMS = {
    "time_to_first_token_seconds": ("Histogram of time to first token in seconds.", _TTFT_S),
    "inter_token_latency_seconds": ("Histogram of inter-token latency in seconds.", _TOKEN_S),
    "request_time_per_output_token_seconds": ("Histogram of time_per_output_token_seconds per request.", _TOKEN_S),
    "e2e_request_latency_seconds": ("Histogram of e2e request latency in seconds.", _REQUEST_S),
    "request_queue_time_seconds": ("Histogram of time spent in WAITING phase for request.", _REQUEST_S),
    "request_inference_time_seconds": ("Histogram of time spent in RUNNING phase for request.", _REQUEST_S),
    "request_prefill_time_seconds": ("Histogram of time spent in PREFILL phase for request.", _REQUEST_S),
    "request_decode_time_seconds": ("Histogram of time spent in DECODE phase for request.", _REQUEST_S),
    "request_prompt_tokens": ("Number of prefill tokens processed.", _TOKENS),
    "request_generation_tokens": ("Number of generation tokens processed.", _TOKENS),
}


class Book:
    """What is counted per call of one replica, as calls end."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in _HISTOGRAMS.items()}
        self.finished = dict.fromkeys(FINISHED, 0)

    def add(self, call: Call, finished: Finished) -> None:
        done = finished.status == "done"
        self.finished["length" if done else "abort"] += 1
        self._tokens(finished.tokens)
        if not done or finished.admitted_ns is None:
            return
        first = -(-finished.tokens[0].end_ps // PS)
        last = finished.done_ns
        phases = {
            "time_to_first_token_seconds": first - call.arrival_ns,
            "e2e_request_latency_seconds": last - call.arrival_ns,
            "request_queue_time_seconds": finished.admitted_ns - finished.queued_ns,
            "request_inference_time_seconds": last - finished.admitted_ns,
            "request_prefill_time_seconds": first - finished.admitted_ns,
            "request_decode_time_seconds": last - first,
        }
        for name, ns in phases.items():
            self.histograms[name].add(ns / 1e9)
        if finished.output_tokens > 1:
            tpot_s = (last - first) / 1e9 / (finished.output_tokens - 1)
            self.histograms["request_time_per_output_token_seconds"].add(tpot_s)
        self.histograms["request_prompt_tokens"].add(call.prompt.tokens)
        self.histograms["request_generation_tokens"].add(finished.output_tokens)

    def _tokens(self, runs: list[Steps]) -> None:
        gaps = self.histograms["inter_token_latency_seconds"]
        before: Steps | None = None
        for steps in runs:
            if before is not None:
                gaps.add((steps.end_ps - before.at(before.length - 1)) / _PS_PER_S)
            gaps.add_gaps(steps)
            before = steps


class Books:
    """The books of every replica, by name; a ledger of the pump."""

    def __init__(self) -> None:
        self._by: dict[str, Book] = {}

    def __call__(self, call: Call, finished: Finished) -> None:
        self.of(finished.replica).add(call, finished)

    def of(self, replica: str) -> Book:
        """Those of one replica."""
        return self._by.setdefault(replica, Book())


class Page(Collector):
    """The metrics page of one server, made when it is asked for: every replica is an engine of its own on it."""

    def __init__(self, pump: Pump, serving: Engine | Cluster, books: Books, model: str) -> None:
        self._pump, self._serving, self._books, self._model = pump, serving, books, model
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        now = self._pump.stamp()
        in_flight = self._in_flight(now)
        for name, engine in engines(self._serving).items():
            labels = {"model_name": self._model_of(name), "engine": name or "0"}
            view = _View(labels, engine, in_flight.get(name, (0, 0)), self._books.of(name))
            for family in view.families(now):
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples += family.samples
        yield from families.values()

    def _model_of(self, replica: str) -> str:
        """The first name that its pool answers to, where pools have names."""
        models = self._serving.pool_of(replica).models if isinstance(self._serving, Cluster) else ()
        return models[0] if models else self._model

    def _in_flight(self, now_ns: int) -> dict[str, tuple[int, int]]:
        """By replica: tokens of the prompts that are computed, and of the answers made so far, of calls under way."""
        found: dict[str, tuple[int, int]] = {}
        serving = self._serving
        for call in self._pump.calls.values():
            if isinstance(serving, Cluster):
                at = serving.under_way(call.name, now_ns)
            else:
                at = UnderWay("", True, serving.generated(call.name, now_ns))
            if at is not None:
                prompts, generated = found.get(at.replica, (0, 0))
                prompts += call.prompt.tokens if at.prompt_here and at.generated_tokens else 0
                found[at.replica] = prompts, generated + at.generated_tokens
        return found


class _View:
    """One replica on the page."""

    def __init__(self, labels: dict[str, str], engine: Engine, in_flight: tuple[int, int], book: Book) -> None:
        self._labels, self._engine, self._in_flight, self._book = labels, engine, in_flight, book

    def families(self, now_ns: int) -> Iterator[Metric]:
        gauges, gauge = self._engine.gauges()[""], self._gauge
        yield gauge("num_requests_running", "Number of requests in model execution batches.", gauges.running)
        yield gauge("num_requests_waiting", "Number of requests waiting to be processed.", gauges.waiting)
        yield gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", self._engine.kv_usage(now_ns))
        for figure in counters(self._engine, *self._in_flight):
            yield self._counter(*figure)
        yield self._counter(
            "request_success",
            "Count of successfully processed requests.",
            {**self._book.finished},
            label="finished_reason",
        )
        for name, (about, _) in _HISTOGRAMS.items():
            histogram = self._book.histograms[name]
            family = HistogramMetricFamily(f"vllm:{name}", about, labels=list(self._labels))
            family.add_metric(list(self._labels.values()), histogram.cumulative(), histogram.sum)
            yield family
        yield self._config()

    def _gauge(self, name: str, about: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", about, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, about: str, values: dict[str, float], label: str | None = None) -> Metric:
        names = [*self._labels, *([] if label is None else [label])]
        family = CounterMetricFamily(f"vllm:{name}", about, labels=names)
        for value_of, value in values.items():
            family.add_metric([*self._labels.values(), *([] if label is None else [value_of])], value)
        return family

    def _config(self) -> Metric:
        engine, profile = self._engine, self._engine.profile
        blocks = "None" if engine.queue.infinite else str(engine.queue.blocks)
        labels = {
            "block_size": str(profile.block_tokens),
            "enable_prefix_caching": str(engine.cache.enabled),
            "engine": self._labels["engine"],
            "num_gpu_blocks": blocks,
            "num_cpu_blocks": "None",
        }
        family = GaugeMetricFamily(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labels=list(labels)
        )
        family.add_metric(list(labels.values()), 1.0)
        return family
