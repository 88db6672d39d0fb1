"""What the client benchmarks share: a server in another process, and a live run against it with all it takes."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import urlopen

import msgspec

from workloom.clock import RealClock, host, run_real
from workloom.drive.driver import drive
from workloom.drive.http import HttpBackend, HttpOptions
from workloom.drive.text import Texts
from workloom.plan import Limits, Load, Plan, Recipe, TraceRef, make
from workloom.quiet import quiet
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, Edge, Header, Part, Session
from workloom.store import Manifest, RunWriter
from workloom.traces import native

HERE = Path(__file__).parent
MOCK = HERE.parents[1] / "shared" / "checks" / "bench" / "mock.c"
"""A server in C with its own record of what it sent; where it is not at hand, the null server stands in."""


class Server(NamedTuple):
    """A streaming server in a process of its own."""

    port: int
    in_c: bool

    def sent(self) -> tuple[dict[str, float], dict[str, float]]:
        """What it says itself of TTFT and of gaps since it was last asked: p50 and p99 in ms."""
        if self.in_c:
            said = msgspec.json.decode(self._get("/stats"))
            self._get("/reset")
            found = [{name: said[what][name] / 1e3 for name in ("p50", "p99")} for what in ("ttft_us", "itl_us")]
            return found[0], found[1]
        calls = msgspec.json.decode(self._get("/record"))
        gaps = [b - a for call in calls for a, b in pairwise(call[3])]
        return quantiles([call[1] - call[0] for call in calls]), quantiles(gaps)

    def first_read_s(self) -> float:
        """When it had read its first request, in seconds since 1970 (in C alone)."""
        return float(msgspec.json.decode(self._get("/stats"))["first_epoch"])

    def _get(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            found: bytes = answer.read()
            return found


def quantiles(values_ns: Iterable[int]) -> dict[str, float]:
    """p50 and p99 of nanoseconds, in ms."""
    ordered = sorted(values_ns) or [0]
    return {name: ordered[round(level * (len(ordered) - 1))] / 1e6 for name, level in (("p50", 0.5), ("p99", 0.99))}


def with_mock(parser: argparse.ArgumentParser) -> None:
    """The option that all client benchmarks have."""
    told = "source of a mock server in C, compiled with gcc (default: %(default)s, else the null server)"
    parser.add_argument("--mock", type=Path, default=MOCK, help=told)


@contextmanager
def server(mock: Path = MOCK, ttft_ms: float = 0.0, gap_ms: float = 0.0, batch: int = 1) -> Iterator[Server]:
    """A server while it runs, on a core of its own."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        in_c = mock.exists() and shutil.which("gcc") is not None
        if in_c:
            built, port = str(Path(folder, "mock")), free_port()
            subprocess.run(["gcc", "-O2", "-w", "-o", built, str(mock)], check=True)
            options = [str(port), str(round(ttft_ms * 1e3)), str(round(gap_ms * 1e3)), str(batch)]
            process = subprocess.Popen([built, *options], stderr=subprocess.DEVNULL)
        else:
            options = ["--ttft-ms", str(ttft_ms), "--gap-ms", str(gap_ms), "--batch", str(batch), "--stamps"]
            process = subprocess.Popen(
                [sys.executable, str(HERE / "null_server.py"), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            port = int(process.stdout.readline())
        stack.callback(process.wait)
        stack.callback(process.terminate)
        ready(port)
        apart(process.pid)
        yield Server(port, in_c)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def apart(server_pid: int) -> None:
    """The server on the first core, this process (and what it starts) on the second, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(server_pid, {cores[0]})
        os.sched_setaffinity(0, {cores[1]})


def ready(port: int) -> None:
    """Return when something answers on the port."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("the server did not come up")


def plan(requests: int, load: Load, tokens: int, words: int = 64, calls: int = 1) -> Plan:
    """`requests` calls in sessions of `calls`, each when the one before it is done: `words` tokens in, `tokens` out.

    No call repeats what another said.
    """
    part = (Part("user", words),)
    chain = [Call("call 0", tokens, fresh=part)]
    chain += [Call(f"call {i}", tokens, after=(Edge(f"call {i - 1}"),), fresh=part) for i in range(1, calls)]
    sessions = [Session(str(i), tuple(chain)) for i in range(min(requests // calls, 1000))]
    return plan_of(sessions, load, requests // calls)


def plan_of(sessions: Iterable[Session], load: Load, count: int) -> Plan:
    """A plan of `count` sessions out of those."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.jsonl")
        native.write(path, Header(source="benchmark"), sessions)
        return make(Recipe(TraceRef((str(path),)), load, Limits(sessions=count)))


class Sink:
    """A run directory, as in every live run, and (with `keep`) the records at hand as well."""

    def __init__(self, writer: RunWriter, keep: bool) -> None:
        self.writer = writer
        self.keep = keep
        self.calls: list[CallRecord] = []

    def call(self, record: CallRecord) -> None:
        self.writer.call(record)
        if self.keep or record.status != "ok":
            self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.writer.session(record)


def run(port: int, what: Plan, *, keep: bool = True, correct: bool = True) -> tuple[float, list[CallRecord]]:
    """Drive a plan with everything a live run has, records to disk included; its CPU seconds and its calls.

    `correct`: by the server's counts, which of these servers are nonsense and make prompts shorter.
    """

    async def live(clock: RealClock) -> float:
        backend = HttpBackend(
            HttpOptions(urls=(f"http://127.0.0.1:{port}/v1",), model="null", correct=correct),
            clock=clock,
            style=Texts(what.text_salt),
        )
        before = host.cpu()
        await drive(what, backend, clock, sink)
        cpu_s = host.cpu() - before
        backend.close()
        return cpu_s

    with TemporaryDirectory() as folder:
        writer = RunWriter.create(Path(folder, "run"), Manifest(backend="http"), b"{}")
        sink = Sink(writer, keep)
        with quiet():
            cpu_s = run_real(live)
        writer.close()
    faults = [call.error for call in sink.calls if call.status != "ok"]
    if faults:
        sys.exit(f"{len(faults)} calls failed, the first with: {faults[0]}")
    return cpu_s, sink.calls
