"""Pages of /metrics as servers write them, cut to what matters, and a server that shows them or misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VLLM = """\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",major="3",minor="12",patchlevel="13",version="3.12.13"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{model_name="m",engine="1"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} NaN
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 500.0
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.773498176287788e+09
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 700.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 0.0
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 250.0
vllm:prompt_tokens_by_source_total{source="local_cache_hit",engine="0",model_name="m"} 700.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 50.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 9.0
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 100.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 300.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 180.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 90.0
# TYPE vllm:kv_offload_total_bytes_total counter
vllm:kv_offload_total_bytes_total{engine="0",model_name="m",transfer_type="GPU_to_CPU"} 4096.0
vllm:kv_offload_total_bytes_total{engine="0",model_name="m",transfer_type="CPU_to_GPU"} 1024.0
vllm:kv_offload_total_time_total{engine="0",model_name="m",transfer_type="GPU_to_CPU"} 2.0
vllm:kv_offload_total_bytes_created{engine="0",model_name="m",transfer_type="GPU_to_CPU"} 1.7e+09
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="m"} 8.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 10.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 6.5
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_cpu_blocks="None",num_gpu_blocks="742"} 1.0
vllm:something_new_total{engine="0"} 1.0
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="1"} 4.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",pp_rank="0",tp_rank="2"} 6.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{dp_rank="0",model_name="glm",priority="",tp_rank="0"} 7.0
sglang:num_queue_reqs{dp_rank="0",model_name="glm",priority="1",tp_rank="0"} 5.0
sglang:num_queue_reqs{dp_rank="0",model_name="glm",priority="2",tp_rank="0"} 2.0
# TYPE sglang:token_usage gauge
sglang:token_usage{dp_rank="0",model_name="glm",tp_rank="0"} 0.5
sglang:token_usage{dp_rank="0",model_name="glm",tp_rank="1"} 0.4
sglang:spec_accept_length{dp_rank="0",model_name="glm",tp_rank="0"} 2.825
sglang:max_total_num_tokens{model_name="glm"} 400000.0
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{model_name="glm"} 1000.0
sglang:cached_tokens_total{cache_source="device",model_name="glm"} 400.0
sglang:cached_tokens_total{cache_source="host",model_name="glm"} 100.0
sglang:cached_tokens_total{cache_source="storage_file",model_name="glm"} 60.0
sglang:generation_tokens_total{is_streaming="true",model_name="glm"} 50.0
sglang:generation_tokens_total{is_streaming="false",model_name="glm"} 30.0
sglang:num_retracted_requests_total{model_name="glm"} 2.0
# TYPE sglang:time_to_first_token_seconds histogram
sglang:time_to_first_token_seconds_sum{model_name="glm"} 2.0
sglang:time_to_first_token_seconds_bucket{le="0.1",model_name="glm"} 5.0
sglang:time_to_first_token_seconds_bucket{le="+Inf",model_name="glm"} 8.0
sglang:time_to_first_token_seconds_count{model_name="glm"} 8.0
"""
TRTLLM = """\
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 3.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 2.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.75
trtllm_kv_cache_hit_rate{engine_type="trtllm",model_name="m"} 0.5
trtllm_kv_cache_max_blocks{engine_type="trtllm",model_name="m"} 100.0
trtllm_kv_cache_tokens_per_block{engine_type="trtllm",model_name="m"} 32.0
trtllm_request_success_total{engine_type="trtllm",finished_reason="stop",model_name="m"} 12.0
trtllm_prompt_tokens_total{engine_type="trtllm",model_name="m"} 900.0
trtllm_prompt_cached_tokens_total{engine_type="trtllm",model_name="m"} 300.0
trtllm_prompt_cached_tokens_sum{engine_type="trtllm",model_name="m"} 300.0
trtllm_spec_decode_num_draft_tokens_total{engine_type="trtllm",model_name="m"} 40.0
trtllm_spec_decode_num_accepted_tokens_total{engine_type="trtllm",model_name="m"} 30.0
trtllm_time_to_first_token_seconds_count{engine_type="trtllm",model_name="m"} 12.0
trtllm_time_to_first_token_seconds_sum{engine_type="trtllm",model_name="m"} 3.0
trtllm_time_to_first_token_seconds_bucket{engine_type="trtllm",le="+Inf",model_name="m"} 12.0
"""
LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 600
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 400
# TYPE llamacpp:prompt_seconds_total counter
llamacpp:prompt_seconds_total 1.25
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 5000
# TYPE llamacpp:tokens_predicted_seconds_total counter
llamacpp:tokens_predicted_seconds_total 2.5
# TYPE llamacpp:n_decode_total counter
llamacpp:n_decode_total 5100
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 2292
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode 1.5
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 12
"""
DYNAMO = """\
dynamo_frontend_inflight_requests{model="tiny"} 9
dynamo_frontend_queued_requests{model="tiny"} 4
dynamo_frontend_requests_total{endpoint="chat_completions",model="tiny",request_type="stream",status="success"} 20
dynamo_frontend_requests_total{endpoint="chat_completions",model="tiny",request_type="stream",status="error"} 1
dynamo_frontend_input_sequence_tokens_sum{model="tiny"} 2000
dynamo_frontend_input_sequence_tokens_count{model="tiny"} 21
dynamo_frontend_cached_tokens_sum{model="tiny"} 1500
dynamo_frontend_output_tokens_total{model="tiny"} 640
dynamo_frontend_time_to_first_token_seconds_bucket{model="tiny",le="0.5"} 21
dynamo_frontend_time_to_first_token_seconds_bucket{model="tiny",le="+Inf"} 21
dynamo_frontend_time_to_first_token_seconds_sum{model="tiny"} 4.2
dynamo_frontend_time_to_first_token_seconds_count{model="tiny"} 21
dynamo_component_router_kv_hit_rate_sum{dynamo_namespace="d"} 3.98
"""
DYNAMO_WORKER = """\
dynamo_component_gpu_cache_usage_percent{dynamo_component="backend",dp_rank="0",model="tiny",worker_id="77"} 0.35
dynamo_component_total_blocks{dynamo_component="backend",model="tiny",worker_id="77"} 4096
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="generate",worker_id="77"} 9
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="clear_kv_blocks",worker_id="77"} 1
dynamo_component_requests_total{dynamo_component="backend",dynamo_endpoint="generate",worker_id="77"} 21
"""
ATOM = """\
atom:requests_running{engine="0"} 2
atom:kv_cache_usage_ratio{engine="0"} 0.1
atom:prefix_cache_full_tokens_total{engine="0"} 100
atom:prefix_cache_cached_tokens_total{engine="0"} 90
"""
PAGES = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "trtllm": TRTLLM,
    "llamacpp": LLAMACPP,
    "dynamo_frontend": DYNAMO,
    "dynamo_component": DYNAMO_WORKER,
    "atom": ATOM,
}

Answer = Callable[[BaseHTTPRequestHandler], None]


def say(text: str | bytes, status: int = 200, kind: str = "text/plain") -> Answer:
    """An ordinary answer."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        body = text.encode() if isinstance(text, str) else text
        to.send_response(status)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    return answer


class PageServer:
    """Listens on a free port; `answer` may be exchanged, `seen` is what it was asked (method, path, headers)."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.command, self.path, dict(self.headers)))
                with suppress(ConnectionError):  # the other side has gone
                    outer.answer(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
