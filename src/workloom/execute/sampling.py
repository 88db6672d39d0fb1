"""The figures of simulated servers, by the names vLLM gives them: each virtual second in which something goes on.

A figure is written when it has changed. Between, and while nothing goes on, it stands where it was: a counter that
moves again after a while is written once more as it stood a second before.
"""

from __future__ import annotations

from typing import Protocol

from workloom.clock import NS, VirtualClock
from workloom.drive.scrape.families import GONE
from workloom.drive.simulated import AFTER_EVERYTHING
from workloom.engine.cluster import Cluster, engines
from workloom.engine.engine import Engine
from workloom.engine.figures import counters
from workloom.records import ServerSample

EVERY_NS = NS
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_GAUGES = (_RUNNING, _WAITING, "vllm:kv_cache_usage_perc")


class Taker(Protocol):
    """Takes samples; a run's writer is one."""

    def server(self, sample: ServerSample) -> None: ...


class Sampler:
    """Looks at what serves, and writes what changed."""

    def __init__(self, serving: Engine | Cluster, clock: VirtualClock, taker: Taker) -> None:
        self._serving, self._clock, self._taker = serving, clock, taker
        self._last: dict[tuple[str, str], tuple[int, float]] = {}
        """(figure, replica) -> when it was last looked at, and what it showed."""
        self._armed = False
        self._seen: set[str] = set()
        self._began_ns = clock.now()

    def wake(self) -> None:
        """Something goes on from now on."""
        if not self._armed:
            self._armed = True
            at = (self._clock.now() // EVERY_NS + 1) * EVERY_NS
            self._clock.call_at(at, self._tick, priority=AFTER_EVERYTHING + 1)

    def look(self) -> None:
        """Write what changed."""
        self._look()

    def _look(self) -> bool:
        """The same; False when nothing goes on any more."""
        now, busy = self._clock.now(), False
        if isinstance(self._serving, Cluster):
            self._serving.catch_up(now)  # who went by now is not there any more
        for name, engine in engines(self._serving).items():
            if name not in self._seen:
                self._begin(name)
            gauges = engine.gauges()[""]
            busy |= bool(gauges.running or gauges.waiting)
            self._write(now, name, engine, (gauges.running, gauges.waiting, engine.kv_usage(now)))
        if isinstance(self._serving, Cluster):
            for left_ns, name, _ in self._serving.left:
                self._write(left_ns, name, self._serving.replicas[int(name)].engine, (0, 0, 0.0))
                self._taker.server(ServerSample(left_ns, GONE, 1.0, name))  # its KV is not empty then: it is not there
            self._serving.left.clear()
        return busy or self._serving.next_ns() is not None  # a call in a front end, or between two replicas

    def _begin(self, replica: str) -> None:
        """One that comes later had no calls before, and no KV."""
        if self._seen and self._clock.now() > self._began_ns:
            for figure in (_RUNNING, _WAITING):
                self._figure(self._began_ns, figure, replica, 0.0)
        self._seen.add(replica)

    def _tick(self) -> None:
        self._armed = False
        if self._look():
            self.wake()

    def _write(self, at_ns: int, replica: str, engine: Engine, state: tuple[int, int, float]) -> None:
        for figure, value in zip(_GAUGES, state, strict=True):
            self._figure(at_ns, figure, replica, float(value))
        for name, _, values, label in counters(engine):
            for of, count in values.items():
                labelled = f"vllm:{name}" if label is None else f"vllm:{name}{{{label}={of}}}"
                self._figure(at_ns, labelled, replica, float(count))

    def _figure(self, at_ns: int, figure: str, replica: str, value: float) -> None:
        last = self._last.get((figure, replica))
        self._last[figure, replica] = at_ns, value
        if last is not None:
            seen_ns, before = last
            if before == value:
                return
            stood_ns = at_ns - EVERY_NS
            if stood_ns > seen_ns and figure not in _GAUGES:
                self._taker.server(ServerSample(stood_ns, figure, before, replica))
        self._taker.server(ServerSample(at_ns, figure, value, replica))

    def close(self) -> None:
        """Write how everything stands at the end."""
        self.look()
        now = self._clock.now()
        for (figure, replica), (_, value) in self._last.items():
            self._taker.server(ServerSample(now, figure, value, replica))
