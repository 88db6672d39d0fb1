"""Traces in, `workloom run` against a server, what it recorded out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engines.servers import Server
from workloom.records import CallRecord
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import Run, open_run
from workloom.traces import native

SCAFFOLD = 192
"""Tokens of the shared scaffold of `agents`: a multiple of every block size here."""


@dataclass
class Ran:
    """A run, its calls by (instance, ordinal), and what the server's counters made of it."""

    run: Run
    calls: list[CallRecord]
    said: str
    """What it wrote to stderr."""
    grew: dict[str, float] = field(default_factory=dict)
    """The server's metrics: after minus before."""

    @property
    def turns(self) -> list[list[CallRecord]]:
        """The calls of each instance, in order."""
        by_instance: dict[int, list[CallRecord]] = {}
        for call in self.calls:
            by_instance.setdefault(call.instance, []).append(call)
        return list(by_instance.values())


def agents(
    sessions: int, turns: int = 3, *, fresh: int = 60, output: int = 20, wait_s: float = 0.0, scaffold: int = SCAFFOLD
) -> list[Session]:
    """Sessions that share a scaffold and whose every turn goes on from all of the one before."""
    made = []
    for index in range(sessions):
        spans = (Span("scaffold", scaffold, "trace"),) if scaffold else ()
        calls = [Call("c0", output, spans=spans, fresh=(Part("user", fresh),))]
        for turn in range(1, turns):
            last = calls[-1].id
            part = Part("tool", fresh)
            calls.append(Call(f"c{turn}", output, (Edge(last, wait_s, "tool"),), inherit=Inherit(last), fresh=(part,)))
        made.append(Session(f"s{index}", tuple(calls)))
    return made


def single(name: str, fresh: int, output: int, stop_after: int | None = None) -> Session:
    """A session of one call."""
    return Session(name, (Call("c0", output, fresh=(Part("user", fresh),), stop_after=stop_after),))


def workloom(
    folder: Path,
    server: Server,
    sessions: Iterable[Session],
    *options: str | int,
    model: str = "tiny",
    fails: bool = False,
    grow: bool = True,
) -> Ran:
    """Run the sessions against the server by the command line. `fails`: it must not end well."""
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace.jsonl"
    native.write(trace, Header(source="engines"), sessions)
    command = [sys.executable, "-m", "workloom.cli", "run", trace, "--url", server.url, "--model", model]
    command += ["-o", folder / "run", *options]
    before = server.metrics() if grow else {}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    after = server.metrics() if grow else {}
    assert (done.returncode != 0) == fails, done.stderr
    run = open_run(folder / "run")
    grew = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return Ran(run, list(run.calls()), done.stderr, grew)


@contextmanager
def watching(server: Server, every_s: float = 0.05) -> Iterator[dict[str, float]]:
    """The highest value of every metric of the server while the block runs."""
    highest: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(every_s):
            for name, value in server.metrics().items():
                highest[name] = max(value, highest.get(name, value))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()
