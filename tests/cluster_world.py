"""Little worlds on clusters: the chains of engine_world, with sessions, and books that are checked on every replica."""

from __future__ import annotations

from engine_world import Done, profile
from msgspec.structs import replace

from workloom.engine.check import check
from workloom.engine.cluster import Cluster
from workloom.engine.engine import Engine, Finished
from workloom.engine.fleet import Fleet, Pool, Transfer
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Profile
from workloom.prefix import Key


class Logged(Engine):
    """An engine that remembers what was handed to it."""

    def __init__(self, server: Profile, *, leap: bool = True) -> None:
        super().__init__(server, leap=leap)
        self.handed: list[tuple[int, str, Key, int, int, Hints]] = []
        self.gone: list[tuple[int, str]] = []

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        super().submit(at_ns, call, prompt, answer, output_tokens, hints)
        self.handed.append((at_ns, call, prompt, answer, output_tokens, hints))

    def cancel(self, at_ns: int, call: str) -> None:
        super().cancel(at_ns, call)
        self.gone.append((at_ns, call))


class Clustered:
    """A cluster behind the interface that worlds are played on."""

    def __init__(self, fleet: Fleet, *, leap: bool = True, looks: bool = False, cluster: Cluster | None = None) -> None:
        self.engines: dict[str, Logged] = {}
        self.looks = looks
        self.ended: list[Finished] = []

        def make(name: str, server: Profile) -> Engine:
            self.engines[name] = Logged(server, leap=leap)
            return self.engines[name]

        self.cluster = cluster or Cluster(fleet, engines=make)

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output: int, hints: Hints = NO_HINTS) -> None:
        if self.looks:
            self._look(at_ns)
        hints = replace(hints, session=call.partition("/")[0])
        self.cluster.submit(at_ns, call, prompt, answer, output, hints)

    def cancel(self, at_ns: int, call: str) -> None:
        self.cluster.cancel(at_ns, call)

    def next_ns(self) -> int | None:
        return self.cluster.next_ns()

    def advance(self, to_ns: int) -> list[Done]:
        finished = self.cluster.advance(to_ns)
        self.ended += finished
        for replica in self.cluster.replicas:
            check(replica.engine)
        return [done(each) for each in finished]

    def _look(self, at_ns: int) -> None:
        """Whoever looks changes nothing."""
        for replica in self.cluster.present():
            assert 0 <= replica.kv_usage(at_ns) <= 1
            replica.cached_tokens(at_ns, Key((1,), (12,)))


def done(end: Finished) -> Done:
    times = [steps.at(i) for steps in end.tokens for i in range(steps.length)]
    assert len(times) == end.output_tokens
    instants = (end.done_ns, end.queued_ns, end.admitted_ns)
    return Done(end.call, end.status, end.cached_tokens, end.preemptions, times, *instants)


def toy(kv_tokens: int | None = 160) -> Profile:
    """The toy server, with KV of a known size."""
    return replace(profile(kv_tokens=kv_tokens), kv_token_bytes=10)


def fleet(replicas: int = 2, router: str = "round_robin", server: Profile | None = None) -> Fleet:
    return Fleet((Pool(server or toy(), replicas),), router)


def split(prefill: int = 1, decode: int = 1, server: Profile | None = None, transfer: Transfer | None = None) -> Fleet:
    server = server or toy()
    pools = (Pool(server, prefill, "p", role="prefill"), Pool(server, decode, "d", role="decode"))
    return Fleet(pools, transfer=transfer or Transfer(bytes_per_s=10e9, latency_s=20e-9))
