"""Starting an engine on a free port of this machine, waiting until it serves, stopping it."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from engines import install

LOGS = install.HOME / "logs"
RUNNING: list[Path] = []
"""Logs of the engines that run now; shown when a test fails."""
PRCTL = ctypes.CDLL(None).prctl
PR_SET_PDEATHSIG = 1
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class Server:
    """An engine that serves."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET."""
        return self._ask("GET", path)

    def post(self, path: str, **body: Any) -> tuple[int, str]:
        """Status and body of a POST of JSON."""
        return self._ask("POST", path, json.dumps(body))

    def metrics(self) -> dict[str, float]:
        """What /metrics says, summed over labels, by sample name without the engine's prefix (``vllm:``)."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                name = sample.name.rpartition(":")[2]
                if not name.endswith("_created"):
                    sums[name] = sums.get(name, 0.0) + sample.value
        return sums

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def events(body: str) -> list[dict[str, Any]]:
    """The JSON events of a stream, without its [DONE]."""
    lines = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@contextmanager
def llama_cpp(*, model: Path | None = None, slots: int = 4, context: int = 8192, threads: int = 1) -> Iterator[Server]:
    """llama.cpp's server with so many slots of so many tokens each. One thread leaves a core for the client."""
    python, script = install.llama_cpp(), install.HERE / "serve_llama.py"
    path = model or install.tiny_model() / "tiny.gguf"
    port = free_port()
    command = [python, script, path, port, slots, context, threads]
    with serving("llama-cpp", command, {}, port, "/health", 60) as server:
        yield server


@contextmanager
def vllm(*options: str, seats: int = 16) -> Iterator[Server]:
    """vLLM on the CPU, with blocks of 32 tokens."""
    python, model, port = install.vllm(), install.tiny_model(), free_port()
    command = [python.parent / "vllm", "serve", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    command += ["--port", port, "--dtype", "float32", "--max-model-len", 8192, "--max-num-seqs", seats]
    command += ["--enable-prefix-caching", "--block-size", 32, "--enforce-eager", *options]
    with serving("vllm", command, {"VLLM_CPU_KVCACHE_SPACE": "1"}, port, "/health", 240) as server:
        yield server


@contextmanager
def dynamo(*options: str) -> Iterator[Server]:
    """Dynamo's frontend before its mocker: a simulated vLLM with blocks of 16 tokens behind a real HTTP server."""
    python, model, port = install.dynamo(), install.tiny_model(), free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        environment = {
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": folder,
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
            "DYN_EVENT_PLANE_HOST": "127.0.0.1",
        }
        mocker = [python, "-m", "dynamo.mocker", "--model-path", model, "--model-name", "tiny", "--block-size", 16]
        mocker += ["--num-gpu-blocks-override", 4096, "--max-num-seqs", 16, "--max-num-batched-tokens", 2048]
        mocker += ["--speedup-ratio", 1, *options]
        front = [python, "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", port]
        stack.enter_context(running("dynamo-mocker", mocker, environment))
        # /health comes too early: the mocker is there when its model is listed.
        front += ["--router-mode", "kv"]
        yield stack.enter_context(serving("dynamo", front, environment, port, "/v1/models", 60, '"tiny"'))


@contextmanager
def serving(
    name: str,
    command: list[object],
    environment: Mapping[str, str],
    port: int,
    path: str,
    patience_s: float,
    said: str = "",
) -> Iterator[Server]:
    """A process that answers 200 on `path`, saying `said`, within `patience_s`."""
    with running(name, command, environment) as (process, log):
        server = Server(port, log)
        give_up = time.monotonic() + patience_s
        while not _answers(server, path, said):
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{tail(log)}")
            if time.monotonic() > give_up:
                raise RuntimeError(f"{name} does not serve after {patience_s:g} s:\n{tail(log)}")
            time.sleep(0.05)
        yield server


def _answers(server: Server, path: str, said: str) -> bool:
    try:
        status, body = server.get(path)
    except OSError:
        return False
    return status == 200 and said in body


@contextmanager
def running(
    name: str, command: list[object], environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process in a group of its own, and its log; the whole group ends with the block."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}-{os.getpid()}-{free_port()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET, **environment},
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    RUNNING.append(log)
    try:
        yield process, log
    finally:
        RUNNING.remove(log)
        _end(process)


def _die_with_parent() -> None:
    """Between fork and exec: be asked to end when the tests are killed and cannot ask."""
    PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end; what is left of it after 15 s, or after its first process, is made to."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path, letters: int = 3000) -> str:
    return log.read_text(errors="replace")[-letters:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
