"""The figures of simulated servers, by the names vLLM gives them: each virtual second in which something goes on.

A figure is written when it has changed. Between, and while nothing goes on, it stands where it was: a counter that
moves again after a while is written once more as it stood a second before.
"""

from __future__ import annotations

from typing import Protocol

from workloom.clock import NS, VirtualClock
from workloom.drive.simulated import AFTER_EVERYTHING
from workloom.engine.cluster import Cluster, engines
from workloom.engine.engine import Engine, Gauges
from workloom.records import ServerSample

EVERY_NS = NS
_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


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
        for name, engine in engines(self._serving).items():
            gauges = engine.gauges()[""]
            busy |= bool(gauges.running or gauges.waiting)
            self._write(now, name, gauges, engine.kv_usage(now))
            if engine.tiers is not None:
                self._figure(now, "vllm:external_prefix_cache_queries", name, float(engine.tiers.queries_tokens))
                self._figure(now, "vllm:external_prefix_cache_hits", name, float(engine.tiers.hits_tokens))
        if isinstance(self._serving, Cluster):
            for left_ns, name, gauges in self._serving.left:
                self._write(left_ns, name, gauges, 0.0)
            self._serving.left.clear()
        return busy

    def _tick(self) -> None:
        self._armed = False
        if self._look():
            self.wake()

    def _write(self, at_ns: int, replica: str, gauges: Gauges, kv_usage: float) -> None:
        for figure, value in (
            (_GAUGES[0], gauges.running),
            (_GAUGES[1], gauges.waiting),
            (_GAUGES[2], kv_usage),
            ("vllm:prefix_cache_queries", gauges.queries_tokens),
            ("vllm:prefix_cache_hits", gauges.hits_tokens),
            ("vllm:num_preemptions", gauges.preemptions),
            ("vllm:prompt_tokens", gauges.prompt_tokens),
            ("vllm:generation_tokens", gauges.generated_tokens),
        ):
            self._figure(at_ns, figure, replica, float(value))

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
