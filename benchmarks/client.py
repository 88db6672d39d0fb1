"""What the client benchmarks share: a server in another process, and a live run against it with all it takes."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import msgspec

from workloom.clock import RealClock, host, run_real
from workloom.drive.driver import drive
from workloom.drive.http import HttpBackend, HttpOptions
from workloom.drive.text import Texts
from workloom.plan import Limits, Load, Plan, Recipe, TraceRef, make
from workloom.quiet import quiet
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, Header, Part, Session
from workloom.store import Manifest, RunWriter
from workloom.traces import native

HERE = Path(__file__).parent


@contextmanager
def server(*options: str, c_mock: str | None = None) -> Iterator[int]:
    """The port of a null server (or of the C mock, given its TTFT and gap in microseconds) while it runs."""
    if c_mock is not None:
        port = 18_431
        process = subprocess.Popen([c_mock, str(port), *options], stderr=subprocess.DEVNULL)
        ready(port)
    else:
        command = [sys.executable, str(HERE / "null_server.py"), *options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        port = int(process.stdout.readline())
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def ready(port: int) -> None:
    """Return when something answers on the port."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("the server did not come up")


def record(port: int) -> list[list[int]]:
    """The null server's own record of the calls since it was last asked."""
    with urlopen(f"http://127.0.0.1:{port}/record") as answer:
        found: list[list[int]] = msgspec.json.decode(answer.read())
        return found


def plan(requests: int, load: Load, tokens: int, words: int = 64) -> Plan:
    """One-call sessions: `words` tokens in, `tokens` out, no text of one in another."""
    calls = (Call("call", tokens, fresh=(Part("user", words),)),)
    sessions = [Session(str(i), calls) for i in range(min(requests, 1000))]
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.jsonl")
        native.write(path, Header(source="benchmark"), sessions)
        return make(Recipe(TraceRef((str(path),)), load, Limits(sessions=requests)))


class Sink:
    """A run directory, as in every live run, and the records kept at hand as well."""

    def __init__(self, writer: RunWriter) -> None:
        self.writer = writer
        self.calls: list[CallRecord] = []

    def call(self, record: CallRecord) -> None:
        self.writer.call(record)
        self.calls.append(record)

    def session(self, record: SessionRecord) -> None:
        self.writer.session(record)


def run(port: int, what: Plan) -> tuple[float, list[CallRecord]]:
    """Drive a plan with everything a live run has, records to disk included; its CPU seconds and its calls."""

    async def live(clock: RealClock) -> float:
        backend = HttpBackend(
            HttpOptions(urls=(f"http://127.0.0.1:{port}/v1",), model="null", correct=True),
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
        sink = Sink(writer)
        with quiet():
            cpu_s = run_real(live)
        writer.close()
    faults = [call.error for call in sink.calls if call.status != "ok"]
    if faults:
        sys.exit(f"{len(faults)} calls failed, the first with: {faults[0]}")
    return cpu_s, sink.calls
