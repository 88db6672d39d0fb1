"""The aggregate JSON of InferenceX AgentX as structs: same names, same nesting, same order.

A group whose figures do not exist is an empty object there, and here: figures of :class:`Spread` may be left out.
What stands under `workloom` is ours, and no reader of the original has to know it.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

Figure = float | UnsetType


class Spread(Struct):
    """Figures of a distribution; none of them where it holds no value. `std` is that of the population.

    Of an interactivity each is 1 / the figure of the latency, so p90 is the slow tail; `std` is of the inverses.
    """

    mean: Figure = UNSET
    p50: Figure = UNSET
    p75: Figure = UNSET
    p90: Figure = UNSET
    p95: Figure = UNSET
    std: Figure = UNSET


class Qps(Struct):
    """Completions per second, in windows of one second that follow each other from the first completion on."""

    window_seconds: Figure = UNSET
    samples: int | UnsetType = UNSET
    mean: Figure = UNSET
    p50: Figure = UNSET
    p75: Figure = UNSET
    p90: Figure = UNSET
    p95: Figure = UNSET
    std: Figure = UNSET


class Latency(Struct):
    """Seconds, or output tokens per second and user (`intvty`)."""

    ttft: Spread
    e2el: Spread
    itl: Spread
    tpot: Spread
    intvty: Spread
    e2e_norm_intvty: Spread
    full_response_itl: Spread
    full_response_intvty: Spread


class Tokens(Struct):
    """Tokens of a request."""

    input: Spread
    output_actual: Spread
    output_expected: Spread


class Rate(Struct):
    tokens_per_second: Figure = UNSET


class PerGpu(Struct):
    total_tput_tps: Figure = UNSET
    output_tput_tps: Figure = UNSET
    input_tput_tps: Figure = UNSET


class Throughput(Struct):
    """Tokens of successful requests over the time from the first start to the last end: ramp and drain included."""

    input: Rate | UnsetType = UNSET
    output: Rate | UnsetType = UNSET
    total: Rate | UnsetType = UNSET
    duration_seconds: Figure = UNSET
    per_gpu: PerGpu | UnsetType = UNSET


class RequestCache(Struct):
    theoretical_cache_hit_rate: float | None = None


class RequestMetrics(Struct):
    qps: Qps
    latency: Latency
    tokens: Tokens
    throughput: Throughput
    cache: RequestCache


class Accounting(Struct):
    """Rows and what became of them. A failed request of the warm-up counts in both of its two counts."""

    records_total: int = 0
    records_profiled: int = 0
    records_dropped_total: int = 0
    records_warmup_dropped: int = 0
    records_error_dropped: int = 0
    error_categories: dict[str, int] = {}


class Cache(Struct):
    """Shares are of prompt tokens."""

    gpu_cache_hit_rate: float | None = None
    cpu_cache_hit_rate: float | None = None
    external_cache_hit_rate: float | None = None
    overall_cache_hit_rate: float | None = None
    prefix_cache_hits: float | None = None
    prefix_cache_queries: float | None = None
    external_prefix_cache_hits: float | None = None
    external_prefix_cache_queries: float | None = None
    cached_tokens_by_source: dict[str, float] = {}
    frontend_cache_hit_rate: float | None = None
    router_kv_hit_rate: float | None = None
    router_shared_cache_hit_rate: float | None = None
    frontend_cached_tokens: float | None = None
    frontend_input_tokens: float | None = None


class KvCache(Struct):
    """`*_usage_pct` are shares of 1, the highest over time and series, as in the original."""

    gpu_usage_pct: float | None = None
    gpu_total_tokens: int | None = None
    cpu_usage_pct: float | None = None
    cpu_used_tokens: float | None = None
    cpu_total_tokens: float | None = None


class KvOffload(Struct):
    bytes_gpu_to_cpu: float | None = None
    bytes_cpu_to_gpu: float | None = None
    time_gpu_to_cpu: float | None = None
    time_cpu_to_gpu: float | None = None
    bandwidth_gpu_to_cpu_bytes_per_second: float | None = None
    bandwidth_cpu_to_gpu_bytes_per_second: float | None = None


class PromptBySource(Struct):
    gpu_cache_hit: float | None = None
    cpu_or_external_cache_hit: float | None = None
    computed: float | None = None
    raw: dict[str, float] = {}


class ServerTokens(Struct):
    prompt_total: int | None = None
    generation_total: int | None = None
    requests_completed: int | None = None
    prompt_by_source: PromptBySource = field(default_factory=PromptBySource)


class Source(Struct):
    """One worker or data-parallel rank."""

    id: str
    role: str
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    prefix_cache_hit_rate: float | None = None
    gpu_kv_cache_usage_pct: float | None = None


class ServerMetrics(Struct):
    """What the server's own counters grew by, and where its gauges stood, while requests were measured."""

    present: bool = False
    adapter: str = "none"
    metric_count: int = 0
    cache: Cache = field(default_factory=Cache)
    kv_cache: KvCache = field(default_factory=KvCache)
    kv_offload: KvOffload = field(default_factory=KvOffload)
    tokens: ServerTokens = field(default_factory=ServerTokens)
    sources: list[Source] = []


class Component(Struct, omit_defaults=True):
    name: str
    version: str | None = None


class Dataset(Struct):
    source_type: str
    loader: str | None
    content_hash: str
    num_dataset_entries: int


class Counts(Struct):
    """Of the calls due in the measured window: due = ok + failed + cancelled + censored. `ended`: in the window."""

    due: int
    ok: int
    failed: int
    cancelled: int
    """Never sent: a call they depend on failed. They are no records of the original."""
    censored: int
    """In flight when the run ended. They are no records of the original."""
    ended: int
    after_window: int
    """Due after the window, sent to keep the load up while the others end. They are no records of the original."""


class TokenSums(Struct):
    input: int
    output: int


class P99(Struct):
    """The percentile that the original leaves out, by the same definitions."""

    ttft: float | None = None
    e2el: float | None = None
    itl: float | None = None
    tpot: float | None = None
    intvty: float | None = None
    e2e_norm_intvty: float | None = None
    full_response_itl: float | None = None
    full_response_intvty: float | None = None


class WindowThroughput(Struct):
    """Tokens delivered inside the measured window over its length: no ramp, no drain."""

    seconds: float
    input_tokens_per_second: float | None
    output_tokens_per_second: float | None
    total_tokens_per_second: float | None


class Coverage(Struct):
    """How far into the measured window, as a share of it, tokens were seen: first ones, and later ones."""

    ttft: float
    itl: float
    required: float


class Validity(Struct):
    """`reasons`: `code: what was found; what was expected`. The codes are AIPerf's where it has one."""

    valid: bool
    reasons: list[str] = []


class Tool(Struct):
    verdict: str | None
    reasons: list[str]


class Additions(Struct):
    """What the original leaves out."""

    client_version: str
    command: list[str]
    scenario: str | None
    overrides: list[str]
    seed: int
    plan_hash: str
    corpus_hash: str
    counts: Counts
    failed_tokens: TokenSums
    """Sent with, and received from, requests that failed."""
    p99: P99
    window_throughput: WindowThroughput
    theoretical_cache_hit_rate_from: str | None
    """`trace blocks`, `trace tokens` or `records`; see :func:`workloom.answers.agentx.theoretical.theoretical`."""
    ideal_cache_hit_rate: float | None
    """By the rows: `ideal_cached_tokens` / `ideal_prompt_tokens`. Answers count as held where histories repeat them."""
    reported_cache_hit_rate: float | None
    """By the usage of the answers that have it."""
    gpu_kv_usage_mean: float | None
    """Mean over the samples, beside the peak in `kv_cache`."""
    skipped_wait_seconds: dict[str, float]
    """Recorded waiting that was left out, by the cap that did so."""
    coverage: Coverage
    tool: Tool
    validity: Validity


class Aggregate(Struct):
    """The aggregate of one run."""

    hw: str
    conc: int
    image: str
    recipe_fingerprint: str | UnsetType
    model: str
    infmax_model_prefix: str
    framework: str
    precision: str
    spec_decoding: str
    disagg: bool
    scenario_type: str
    is_multinode: bool
    num_gpus: int
    tp: int
    ep: int
    dp_attention: str
    pp: int | UnsetType
    dcp_size: int | UnsetType
    pcp_size: int | UnsetType
    prefill_num_workers: int | UnsetType
    prefill_tp: int | UnsetType
    prefill_pp: int | UnsetType
    prefill_dcp_size: int | UnsetType
    prefill_pcp_size: int | UnsetType
    prefill_ep: int | UnsetType
    prefill_dp_attention: str | UnsetType
    num_prefill_gpu: int | UnsetType
    decode_num_workers: int | UnsetType
    decode_tp: int | UnsetType
    decode_pp: int | UnsetType
    decode_dcp_size: int | UnsetType
    decode_pcp_size: int | UnsetType
    decode_ep: int | UnsetType
    decode_dp_attention: str | UnsetType
    num_decode_gpu: int | UnsetType
    prefill_hw: str | UnsetType
    decode_hw: str | UnsetType
    kv_offloading: str
    kv_offload_backend: Component | None
    allocated_cpu_dram_gb: int
    router: Component | UnsetType
    kv_p2p_transfer: str | UnsetType
    dataset: Dataset
    num_requests_total: int
    num_requests_successful: int
    request_accounting: Accounting
    request_metrics: RequestMetrics
    server_metrics: ServerMetrics
    kv_cache_pool_tokens: int | None
    warnings: list[str] | UnsetType
    workloom: Additions
