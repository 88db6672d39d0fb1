"""Figures of servers: what is read off their pages, and a process that goes on asking whatever they do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from serverpages import PAGES, PageServer, say

from workloom.clock import NS, raw_ns, run_real
from workloom.drive.scrape.families import COUNTERS, FAMILIES, GAUGES, HISTOGRAMS, UP, family_of, find, terms
from workloom.drive.scrape.fetch import ask, root
from workloom.drive.scrape.follow import Changes, is_gauge
from workloom.drive.scrape.page import read
from workloom.drive.scrape.power import PowerMeter
from workloom.drive.scrape.reset import reset_prefix_cache
from workloom.drive.scrape.scraper import Scraped, Scraper
from workloom.engine.check import check
from workloom.engine.engine import Engine
from workloom.engine.profile import load
from workloom.metrics.frame import Window
from workloom.metrics.server import server_side
from workloom.prefix import Key
from workloom.records import ServerSample
from workloom.serve import serve

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def rows(text: str) -> dict[str, float]:
    """What is kept of a page, by name and engine."""
    return {f"{row.name}@{row.engine}" if row.engine else row.name: row.value for row in read(text).rows}


# --- pages


@pytest.mark.parametrize("family", PAGES)
def test_every_familys_page_is_known_by_its_prefix(family: str) -> None:
    page = read(PAGES[family])
    assert (page.families, page.bad_lines) == ([family], 0)
    assert all(family_of(row.name) == family for row in page.rows)


def test_a_page_of_vllm_keeps_its_engines_apart_and_leaves_out_what_is_no_figure() -> None:
    kept = rows(PAGES["vllm"])
    assert (kept["vllm:num_requests_running@0"], kept["vllm:num_requests_running@1"]) == (3, 5)
    assert kept["vllm:prefix_cache_queries@0"] == 1000, "the time it was created is none of its tokens"
    assert "vllm:kv_cache_usage_perc@0" in kept and "vllm:kv_cache_usage_perc@1" not in kept, "NaN is no figure"
    assert kept["vllm:prompt_tokens_by_source{source=local_cache_hit}@0"] == 700, "labels stand in any order"
    assert kept["vllm:kv_offload_total_bytes{transfer_type=CPU_to_GPU}@0"] == 1024
    assert kept["vllm:time_to_first_token_seconds_bucket{le=1}@0"] == 8
    assert kept["vllm:time_to_first_token_seconds_bucket{le=inf}@0"] == 10
    assert kept["vllm:cache_config_info{num_gpu_blocks}@0"] == 742
    assert not [name for name in kept if "created" in name or "per_pos" in name or "new" in name or "python" in name]


def test_ranks_that_say_the_same_are_not_added_and_priorities_are_parts_of_the_whole() -> None:
    kept = rows(PAGES["sglang"])
    assert (kept["sglang:num_running_reqs@0"], kept["sglang:num_running_reqs@1"]) == (4, 6)
    assert kept["sglang:num_queue_reqs@0"] == 7
    assert kept["sglang:token_usage@0"] == 0.5
    assert kept["sglang:generation_tokens"] == 80, "streamed and not streamed together"


@pytest.mark.parametrize("written", ["vllm_", "ray_vllm_", "ray_vllm:"])
def test_other_spellings_of_a_prefix_are_the_same_family(written: str) -> None:
    assert rows(PAGES["vllm"].replace("vllm:", written)) == rows(PAGES["vllm"])


def test_counters_have_one_name_whether_total_is_written_or_not() -> None:
    text = PAGES["vllm"]
    assert rows(re.sub(r"_total([{ ])", r"\1", text)) == rows(text)


def test_a_line_that_is_no_prometheus_text_costs_itself_only() -> None:
    broken = PAGES["llamacpp"] + 'llamacpp:requests_processing{slot="1 4\nllamacpp:prompt_tokens_total eleven\n'
    page = read(broken)
    assert (rows(broken), page.bad_lines) == (rows(PAGES["llamacpp"]), 2)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_page_whatever_raises(data: st.DataObject) -> None:
    page = PAGES[data.draw(st.sampled_from(sorted(PAGES)))]
    at, end = sorted(data.draw(st.tuples(*[st.integers(0, len(page))] * 2)))
    broken = page[:at] + data.draw(st.text(max_size=20)) + page[end:]
    for row in read(broken).rows:
        assert row.value == row.value and abs(row.value) != float("inf")


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
def test_a_real_page_of_vllm_gives_what_it_says() -> None:
    text = (DATA / "h100-vllm" / "vllm-0.17.1.prom").read_text()
    kept = rows(text)
    assert read(text).bad_lines == 0 and len(kept) < 130
    assert kept["vllm:prefix_cache_queries@0"] == 2_322_022 and kept["vllm:prefix_cache_hits@0"] == 1_603_008
    assert kept["vllm:request_success{finished_reason=length}@0"] == 878
    said = [ServerSample(NS, row.name, row.value, "r") for row in read(text).rows]
    before = [ServerSample(0, sample.name, 0.0, "r") for sample in said if not is_gauge(sample.name)]
    side = server_side(before + said, Window(0, 2 * NS))
    assert side is not None
    assert side.hit_rate == pytest.approx(1_603_008 / 2_322_022)
    assert side.prompt_sources["computed"] == pytest.approx(717_838 / (717_838 + 1_550_208))
    assert side.latency["ttft_s"].mean_s == pytest.approx(178.03483748435974 / 890)
    assert side.latency["itl_s"].count == 263_202
    assert side.gauges["kv_capacity_tokens"].peak == 1056 * 742


def test_the_tables_name_only_figures_that_are_explained() -> None:
    explained = {*COUNTERS, *GAUGES, *HISTOGRAMS}
    for name, family in FAMILIES.items():
        assert family.figures.keys() <= explained
        for figure in family.figures:
            assert all(terms(name, figure)), f"{name} {figure}"


def test_a_figure_takes_the_first_name_that_is_there_and_adds_what_may_be_missing() -> None:
    old, new = "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"
    assert (find("vllm", "kv_usage", [old]), find("vllm", "kv_usage", [old, new])) == ([old], [new])
    prompt, cached = "llamacpp:prompt_tokens", "llamacpp:prompt_tokens_cached"
    assert find("llamacpp", "prompt_tokens", [prompt]) == [prompt]
    assert find("llamacpp", "prompt_tokens", [cached, prompt]) == [prompt, cached]
    assert find("llamacpp", "prompt_tokens", [cached]) == []
    storage = "sglang:cached_tokens{cache_source=storage_file}"
    assert find("sglang", "external_hit_tokens", [storage]) == [storage]
    assert find("sglang", "ttft_s", [storage]) == [] == find("sglang", "drafts", [storage])


def test_counters_that_stand_still_are_written_at_their_first_and_last_instant() -> None:
    changes = Changes()
    told = []
    for at, value in enumerate((5.0, 5.0, 5.0, 5.0, 9.0, 9.0)):
        told += changes.add(at, [("vllm:prompt_tokens", "r", value)], is_gauge)
    told += changes.rest()
    assert [(at, value) for _, _, value, at in told] == [(0, 5), (3, 5), (4, 9), (5, 9)]
    assert changes.rest() == []
    gauges = [changes.add(at, [("vllm:num_requests_running", "r", 1.0)], is_gauge) for at in range(3)]
    assert [len(each) for each in gauges] == [1, 1, 1]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://h/pool/v1?x=1", "https://h/pool"),
        ("h:8000", "http://h:8000"),
    ],
)
def test_a_page_stands_at_the_root_of_the_server(url: str, expected: str) -> None:
    assert root(url) == expected


# --- the scraper's process


class Sink:
    """Samples as they come."""

    def __init__(self) -> None:
        self.samples: list[ServerSample] = []

    def __call__(self, sample: ServerSample) -> None:
        self.samples.append(sample)

    def until(self, seen: Callable[[list[ServerSample]], Any]) -> None:
        give_up = time.monotonic() + 10
        while not seen(self.samples):
            assert time.monotonic() < give_up, "it never came"
            time.sleep(0.005)

    def of(self, name: str) -> list[ServerSample]:
        return [sample for sample in self.samples if sample.name == name]


def clean(told: Scraped) -> bool:
    """Nothing went wrong; on a busy machine a scrape may come too late."""
    return told.fault is None and not any(t.failures or t.bad_lines for t in told.targets)


def scraper(urls: list[str], sink: Callable[[ServerSample], None], **options: Any) -> Scraper:
    made = Scraper(urls, sink, every_s=0.05, **options)
    made.start()
    return made


def test_figures_of_several_servers_come_stamped_with_the_runs_time_and_their_replica() -> None:
    sink = Sink()
    with PageServer(say(PAGES["vllm"])) as one, PageServer(say(PAGES["llamacpp"])) as two:
        began = raw_ns()
        live = scraper([one.url, two.url.removesuffix("/v1")], sink)
        assert live.wait_first(10)
        origin = raw_ns()
        live.begin(origin)
        before = len(sink.samples)
        assert before and all(began - origin <= sample.at_ns < 0 for sample in sink.samples)
        sink.until(lambda samples: len([s for s in samples if s.at_ns > 0]) > 10)
        told = live.stop()
    assert clean(told) and told.samples == len(sink.samples)
    assert [(target.page, target.families) for target in told.targets] == [
        (f"http://127.0.0.1:{one.port}/metrics", ["vllm"]),
        (f"http://127.0.0.1:{two.port}/metrics", ["llamacpp"]),
    ]
    replicas = {sample.replica for sample in sink.samples if sample.name != UP}
    assert replicas == {f"127.0.0.1:{one.port}/0", f"127.0.0.1:{one.port}/1", f"127.0.0.1:{two.port}"}


def test_tensorrt_llm_has_json_where_others_have_their_page() -> None:
    def pages(to: BaseHTTPRequestHandler) -> None:
        say('[{"iter": 1}]' if to.path == "/metrics" else PAGES["trtllm"])(to)

    sink = Sink()
    with PageServer(pages) as server:
        live = scraper([server.url], sink)
        live.begin(raw_ns())
        sink.until(len)
        told = live.stop()
    assert told.targets[0].page == f"http://127.0.0.1:{server.port}/prometheus/metrics"
    assert clean(told)


def test_a_page_can_be_named_itself_as_that_of_a_dynamo_worker() -> None:
    sink = Sink()
    with PageServer(say(PAGES["dynamo_component"])) as server:
        live = scraper([f"http://127.0.0.1:{server.port}/metrics"], sink)
        live.begin(raw_ns())
        sink.until(len)
        live.stop()
    assert {path for _, path, _ in server.seen} == {"/metrics"}
    assert sink.of("dynamo_component_inflight_requests{dynamo_endpoint=generate}")[0].value == 9


def dropped(to: BaseHTTPRequestHandler) -> None:
    to.connection.shutdown(socket.SHUT_RDWR)


def cut(to: BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.send_header("Content-Length", "100000")
    to.end_headers()
    to.wfile.write(PAGES["vllm"].encode())


FAULTS = {
    "html": (say("<!doctype html><p>hello", kind="text/html"), "no figures of a known server"),
    "garbage": (say(bytes(range(256)) * 50), "no figures of a known server"),
    "unknown": (say("my_engine_requests_total 5\n"), "no figures of a known server"),
    "empty": (say(""), "no figures of a known server"),
    "500": (say("oops", 500), "status 500"),
    "404": (say("", 404), "status 404"),
    "dropped": (dropped, "closed"),
    "cut off": (cut, "cut off|more expected|IncompleteRead"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_shows_nothing_known_is_a_note_and_never_an_end(fault: str) -> None:
    answer, said = FAULTS[fault]
    sink = Sink()
    with PageServer(answer) as server:
        live = scraper([server.url], sink)
        assert live.wait_first(10)
        live.begin(raw_ns())
        told = live.stop()
    assert {(sample.name, sample.value) for sample in sink.samples} == {(UP, 0.0)}
    assert told.targets[0].failures >= 1 and told.targets[0].scrapes == 0
    (note,) = told.notes()
    assert note.startswith(f"no figures of {server.url}: ") and re.search(said, note), note
    assert "/prometheus" not in note, "the page that a user knows of comes first"


def test_a_server_that_is_not_there_is_a_note() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        live = scraper([f"http://127.0.0.1:{taken.getsockname()[1]}/v1"], Sink())
        assert live.wait_first(10)
        (note,) = live.stop().notes()
    assert "refused" in note


def test_a_server_that_dies_and_comes_back_is_heard_again() -> None:
    sink = Sink()
    server = PageServer(say(PAGES["llamacpp"]))
    live = scraper([server.url], sink)
    origin = raw_ns()
    live.begin(origin)
    sink.until(len)
    server.close()
    died = raw_ns()
    sink.until(lambda _: any(sample.value == 0 for sample in sink.of(UP)))
    back = PageServer(say(PAGES["llamacpp"].replace("total 600", "total 7")), server.port)
    try:
        sink.until(lambda samples: any(s.name == "llamacpp:prompt_tokens" and s.value == 7 for s in samples))
        told = live.stop()
    finally:
        back.close()
    assert told.targets[0].failures >= 1 and told.targets[0].scrapes >= 2
    assert {sample.value for sample in sink.of(UP) if sample.at_ns > died - origin} == {0.0, 1.0}
    assert "scrapes failed, the last: " in told.notes()[0] and "refused" in told.notes()[0]


def test_a_slow_server_holds_up_nobody_else_and_what_was_left_out_is_counted() -> None:
    def slow(to: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        say(PAGES["sglang"])(to)

    sink = Sink()
    with PageServer(slow) as one, PageServer(say(PAGES["llamacpp"])) as two:
        live = scraper([one.url, two.url], sink)
        live.begin(raw_ns())
        sink.until(lambda samples: any(s.name == "sglang:num_running_reqs" for s in samples))
        sink.until(lambda _: len(sink.of("llamacpp:requests_processing")) > 5)
        told = live.stop()
    behind, quick = told.targets
    assert behind.missed >= 3 and behind.longest_s >= 0.3 and quick.scrapes > behind.scrapes
    assert "scrapes left out, the slowest took 0." in (behind.note() or "")


def test_a_server_that_served_nobody_yet_is_heard_and_its_counters_begin_at_zero() -> None:
    """Dynamo's frontend has no figure of a model before its first request."""
    fresh = "dynamo_frontend_event_loop_stall_total 0\n"
    sink = Sink()
    with PageServer(say(fresh)) as server:
        live = scraper([server.url], sink)
        live.begin(raw_ns())
        sink.until(len)
        server.answer = say(PAGES["dynamo_frontend"])
        sink.until(lambda _: sink.of("dynamo_frontend_cached_tokens_sum"))
        told = live.stop()
    assert clean(told)
    side = server_side(sink.samples, Window(0, raw_ns()))
    assert side is not None
    assert (side.growth["prompt_tokens"], side.growth["requests"], side.hit_rate) == (2000, 21, 0.75)


def test_a_page_that_drips_does_not_outlast_its_time() -> None:
    def drip(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        for _ in range(200):
            to.wfile.write(b"x")
            time.sleep(0.02)

    with PageServer(drip) as server:
        answer = ask(f"http://127.0.0.1:{server.port}/metrics", within_s=0.1)
    assert (answer.status, answer.text) == (0, "the page did not come to its end in time")


def test_a_redirect_is_followed_on_the_server_and_to_nobody_else() -> None:
    def to(where: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            if handler.path == "/metrics/":
                return say(PAGES["atom"])(handler)
            handler.send_response(307)
            handler.send_header("Location", where)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return None

        return answer

    key = {"Authorization": "Bearer hunter2"}
    with PageServer(to("/metrics/")) as here, PageServer(say(PAGES["atom"])) as there:
        assert ask(f"http://127.0.0.1:{here.port}/metrics", headers=key).ok
        here.answer = to(f"http://127.0.0.1:{there.port}/metrics/")
        assert ask(f"http://127.0.0.1:{here.port}/metrics", headers=key).status == 307
        assert there.seen == []


def test_a_server_that_hangs_does_not_hold_up_the_end() -> None:
    release = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        release.wait(30)

    with PageServer(hang) as server:
        live = scraper([server.url], Sink())
        Sink().until(lambda _: server.seen)
        told = live.stop()
        release.set()
    assert told.fault is None, "the process ended by itself"
    (note,) = told.notes()
    assert note.startswith(f"no figures of {server.url}: ")


def test_a_mark_is_a_scrape_at_once() -> None:
    sink = Sink()
    with PageServer(say(PAGES["llamacpp"])) as server:
        live = Scraper([server.url], sink, every_s=600)
        live.start()
        live.begin(raw_ns())
        sink.until(len)
        asked = len(server.seen)
        live.mark()
        sink.until(lambda _: len(sink.of("llamacpp:requests_processing")) == 2)
        assert len(server.seen) == asked + 1
        told = live.stop()
    assert len(server.seen) == asked + 2, "and the end is one too"
    assert told.targets[0].missed == 0


def test_keys_go_by_the_environment_and_stand_in_no_argument(tmp_path: Path) -> None:
    with PageServer(say(PAGES["llamacpp"])) as server:
        live = scraper([server.url], Sink(), headers={"Authorization": "Bearer hunter2"})
        assert live.wait_first(10)
        listed = Path(f"/proc/{live.pid}/cmdline").read_bytes()
        live.stop()
    assert b"workloom.drive.scrape" in listed and b"hunter2" not in listed
    assert {headers.get("Authorization") for _, _, headers in server.seen} == {"Bearer hunter2"}


def gone(pid: int) -> bool:
    """Whether a process is no more (or is dead and waits for its parent)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_gone(pid: int) -> None:
    give_up = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < give_up, "the scraper outlived its run"
        time.sleep(0.01)


def test_the_scraper_ends_when_its_run_is_killed() -> None:
    story = (
        "import sys, time; from workloom.drive.scrape.scraper import Scraper\n"
        "live = Scraper([sys.argv[1]], print, every_s=0.05); live.start(); live.wait_first(10)\n"
        "print(live.pid, flush=True); time.sleep(60)"
    )
    with PageServer(say(PAGES["llamacpp"])) as server:
        run = subprocess.Popen([sys.executable, "-c", story, server.url], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert not gone(pid)
        run.kill()
        run.wait()
        run.stdout.close()
        wait_gone(pid)


def test_ctrl_c_is_the_runs_business_and_a_scraper_that_is_killed_is_a_note() -> None:
    sink = Sink()
    with PageServer(say(PAGES["llamacpp"])) as server:
        live = scraper([server.url], sink)
        live.begin(raw_ns())
        sink.until(len)
        assert live.pid is not None
        os.kill(live.pid, signal.SIGINT)
        heard = len(sink.samples)
        sink.until(lambda samples: len(samples) > heard + 5)
        os.kill(live.pid, signal.SIGKILL)
        wait_gone(live.pid)
        live.mark()
        told = live.stop()
    assert told.fault is not None and "ended" in told.fault and told.fault in told.notes()


def test_what_the_sink_raises_is_raised_by_stop() -> None:
    def full(_: ServerSample) -> None:
        raise OSError("the disk is full")

    with PageServer(say(PAGES["llamacpp"])) as server:
        live = scraper([server.url], full)
        live.begin(raw_ns())
        live.wait_first(10)
        time.sleep(0.1)
        with pytest.raises(OSError, match="the disk is full"):
            live.stop()
        assert clean(live.stop()), "it was said once, and the process ended by itself"


def test_a_scraper_leaves_no_thread_and_no_process() -> None:
    threads = set(threading.enumerate())
    with PageServer(say(PAGES["llamacpp"])) as server:
        served = set(threading.enumerate()) - threads
        live = scraper([server.url], Sink())
        live.wait_first(10)
        pid = live.pid
        live.stop()
        assert not [t for t in threading.enumerate() if t not in threads | served and "scraper" in t.name]
    assert pid is not None and gone(pid)
    assert isinstance(live.stop(), Scraped), "a second stop is none"


# --- GPU power


def fake_nvml(**faults: Exception) -> Any:
    def told(name: str, value: Any) -> Callable[..., Any]:
        def call(*_: object) -> Any:
            if name in faults:
                raise faults[name]
            return value(*_) if callable(value) else value

        return call

    calls = {
        "nvmlInit": None,
        "nvmlDeviceGetCount": 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetPowerUsage": lambda handle: 300_000 + handle,
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 5_000 + handle,
    }
    return SimpleNamespace(**{name: told(name, value) for name, value in calls.items()})


def test_power_and_energy_of_every_gpu_in_watts_and_joules() -> None:
    meter = PowerMeter(fake_nvml)
    assert meter.read() == [
        ("gpu:power_w", "gpu0", pytest.approx(300.0)),
        ("gpu:energy_j", "gpu0", pytest.approx(5.0)),
        ("gpu:power_w", "gpu1", pytest.approx(300.001)),
        ("gpu:energy_j", "gpu1", pytest.approx(5.001)),
    ]
    assert meter.fault is None


def test_a_gpu_that_tells_no_energy_still_tells_its_power() -> None:
    meter = PowerMeter(lambda: fake_nvml(nvmlDeviceGetTotalEnergyConsumption=RuntimeError("Not Supported")))
    assert [name for name, _, _ in meter.read()] == ["gpu:power_w"] * 2
    assert meter.fault == "NVML: gpu1: Not Supported"


def test_without_nvml_there_is_a_reason() -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("pynvml")

    assert "workloom[gpu]" in (PowerMeter(missing).fault or "")
    no_driver = PowerMeter(lambda: fake_nvml(nvmlInit=RuntimeError("Driver Not Loaded")))
    assert (no_driver.read(), no_driver.fault) == ([], "NVML: Driver Not Loaded")


def test_the_scraper_reads_power_beside_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pynvml.py").write_text(
        "def nvmlInit(): pass\ndef nvmlDeviceGetCount(): return 1\ndef nvmlDeviceGetHandleByIndex(i): return i\n"
        "def nvmlDeviceGetPowerUsage(h): return 700000\ndef nvmlDeviceGetTotalEnergyConsumption(h): return 9000\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sink = Sink()
    with PageServer(say(PAGES["llamacpp"])) as server:
        live = scraper([server.url], sink, gpu=True)
        live.begin(raw_ns())
        sink.until(lambda _: sink.of("gpu:energy_j") and sink.of("llamacpp:requests_processing"))
        told = live.stop()
    assert sink.of("gpu:power_w")[0] == ServerSample(sink.of("gpu:power_w")[0].at_ns, "gpu:power_w", 700.0, "gpu0")
    assert clean(told)


# --- resetting the prefix cache


def routes(**known: Callable[[BaseHTTPRequestHandler], None]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers by path (`_` for `/`), 404 to the rest."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        known.get(to.path.partition("?")[0][1:].replace("/", "_"), say("", 404))(to)

    return answer


@pytest.mark.parametrize(
    ("family", "way"),
    [("vllm", "reset_prefix_cache"), ("sglang", "flush_cache"), ("dynamo_frontend", "clear_kv_blocks")],
)
def test_a_reset_asks_the_server_in_its_own_way_which_its_page_tells(family: str, way: str) -> None:
    with PageServer(routes(metrics=say(PAGES[family]), **{way: say("")})) as server:
        told = reset_prefix_cache(server.url, headers={"Authorization": "Bearer k"})
    assert (told.done, told.how, told.say()) == (True, f"POST /{way}", f"prefix cache reset (POST /{way})")
    asked = [(method, path.partition("?")[0]) for method, path, _ in server.seen]
    assert asked == [("GET", "/metrics"), ("POST", f"/{way}")]
    assert {headers["Authorization"] for _, _, headers in server.seen} == {"Bearer k"}


def test_an_unknown_server_is_asked_in_every_way_and_says_why_not() -> None:
    with PageServer(routes()) as server:
        told = reset_prefix_cache(server.url)
    assert not told.done and told.say().startswith("the prefix cache could not be reset: /reset_prefix_cache: status")
    for way in ("/flush_cache", "/slots", "/clear_kv_blocks"):
        assert f"{way}: status 404" in told.said


def test_a_reset_that_did_not_succeed_is_no_success() -> None:
    busy = say('{"success": false}', kind="application/json")
    with PageServer(routes(metrics=say(PAGES["vllm"]), reset_prefix_cache=busy)) as server:
        told = reset_prefix_cache(server.url)
    assert not told.done and "still running" in told.said
    with PageServer(routes()) as server:
        told = reset_prefix_cache(server.url, "vllm")
    assert not told.done and "VLLM_SERVER_DEV_MODE" in told.said


def test_a_reset_is_tried_again_while_a_request_lets_go() -> None:
    said = iter([False, False, True])

    def busy(to: BaseHTTPRequestHandler) -> None:
        say(json.dumps({"success": next(said)}))(to)

    with PageServer(routes(reset_prefix_cache=busy)) as server:
        assert reset_prefix_cache(server.url, "vllm").done
    assert len(server.seen) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(1, 8_000_000), st.booleans())))
def test_forgetting_at_any_instant_leaves_the_engines_books_balanced(
    moves: list[tuple[int, int, int, bool]],
) -> None:
    profile = replace(load("llama-3.1-8b-h200x1"), max_model_len=128, kv_tokens=256, max_num_seqs=4)
    engine = Engine(profile)
    at = 0
    for i, (prompt, output, gap_ns, reset) in enumerate(moves):
        at += gap_ns
        key = Key((1, 2 + i), (prompt, prompt + 5))
        engine.submit(at, f"c{i}", key, 1000 + i, output)
        if reset:
            engine.reset_prefix_cache(at)
        check(engine)
    while (due := engine.next_ns()) is not None:
        engine.advance(due)
        check(engine)
        at = max(at, due)
    assert engine.reset_prefix_cache(at), "nobody holds anything any more"
    check(engine)
    if moves:
        engine.submit(at + 1, "again", Key((1, 2), (moves[0][0], moves[0][0] + 5)), 1, 1)
        (again,) = [end for due in iter(engine.next_ns, None) for end in engine.advance(due)]
        assert again.cached_tokens == 0


def test_slots_of_llama_cpp_are_erased_one_by_one() -> None:
    slots = say(json.dumps([{"id": 0}, {"id": 3}]), kind="application/json")
    good = routes(metrics=say(PAGES["llamacpp"]), slots=slots, slots_0=say("{}"), slots_3=say("{}"))
    with PageServer(good) as server:
        assert reset_prefix_cache(server.url).done
    erased = [path for method, path, _ in server.seen if method == "POST"]
    assert erased == ["/slots/0?action=erase", "/slots/3?action=erase"]
    with PageServer(routes(slots=slots, slots_0=say("{}"), slots_3=say("", 501))) as server:
        told = reset_prefix_cache(server.url, "llamacpp")
    assert not told.done and "1 of 2 slots erased" in told.said and "--slot-save-path" in told.said


# --- our own server, from end to end


def test_a_server_that_keeps_a_record_is_not_reset(tmp_path: Path) -> None:
    async def main(_: object) -> None:
        server = await serve(load("llama-3.1-8b-h200x1"), port=0, record=tmp_path / "record.jsonl")
        try:
            told = await asyncio.to_thread(reset_prefix_cache, server.url)
        finally:
            await server.close()
        assert not told.done and "status 409" in told.said

    run_real(main)


def test_our_own_server_is_scraped_and_reset_from_end_to_end() -> None:
    profile = replace(load("llama-3.1-8b-h200x1"), max_model_len=4096, kv_tokens=8192)
    sink = Sink()
    prompt = " ".join(f"word{i}" for i in range(1000))
    cached: list[int] = []

    async def ask_once(http: aiohttp.ClientSession, url: str) -> None:
        body = {"prompt": prompt, "max_tokens": 5, "model": "m"}
        async with http.post(url + "/completions", json=body) as response:
            answer = await response.json()
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    async def main(time_of_run: Any) -> tuple[Window, Any]:
        server = await serve(profile, port=0, model="m")
        live = scraper([server.url], sink)
        try:
            await asyncio.to_thread(live.wait_first, 10)
            time_of_run.restart()
            live.begin(time_of_run.origin)
            async with aiohttp.ClientSession() as http:
                await ask_once(http, server.url)
                await ask_once(http, server.url)
                told = await asyncio.to_thread(reset_prefix_cache, server.url)
                assert told.done, told.said
                check(server.pump.engine)
                await ask_once(http, server.url)
            check(server.pump.engine)
            end = time_of_run.now()
            return Window(0, end), await asyncio.to_thread(live.stop)
        finally:
            await asyncio.to_thread(live.stop)
            await server.close()

    window, told = run_real(main)
    assert clean(told) and told.targets[0].families == ["vllm"]
    assert cached[0] == 0 and cached[1] > 900 and cached[2] == 0
    side = server_side(sink.samples, Window(0, window.end_ns + 10 * NS))
    assert side is not None
    assert side.growth["prefix_queries_tokens"] == 3000 and side.growth["prefix_hits_tokens"] == cached[1]
    assert side.hit_rate == pytest.approx(cached[1] / 3000)
    assert side.growth["requests"] == 3 and side.growth["generation_tokens"] == 15
    assert side.prompt_sources == {
        "computed": pytest.approx(1 - cached[1] / 3000),
        "local": pytest.approx(cached[1] / 3000),
        "external": 0.0,
    }
    assert side.latency["ttft_s"].count == 3 and side.latency["itl_s"].count == 12
    assert side.restarts == 0 and side.replicas[0].family == "vllm"
