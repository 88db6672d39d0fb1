"""The replicas of a fleet: who there is, who takes calls, who went and what each cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from workloom.engine.autoscale import PER_S
from workloom.engine.disaggregate import as_stage
from workloom.engine.engine import Engine, Gauges
from workloom.engine.fleet import Fleet
from workloom.engine.link import Link
from workloom.engine.profile import Profile
from workloom.prefix import Key

MakeEngine = Callable[[str, Profile], Engine]
"""Makes the engine of a replica, by its name and the profile it is to have."""


class Replica:
    """An engine, and what the cluster knows of it; a router sees it as :class:`workloom.engine.routers.seen.Seen`."""

    __slots__ = (
        "began_ns",
        "draining",
        "engine",
        "gone_ns",
        "link",
        "longest",
        "name",
        "news_ns",
        "number",
        "outstanding",
        "pool",
        "ready_ns",
    )

    def __init__(self, number: int, pool: int, engine: Engine, link: Link | None, began_ns: int, ready_ns: int) -> None:
        self.number, self.name, self.pool = number, str(number), pool
        self.engine, self.link = engine, link
        self.longest = engine.profile.longest_call
        self.began_ns, self.ready_ns = began_ns, ready_ns
        self.gone_ns: int | None = None
        self.draining = False
        self.outstanding = 0
        self.news_ns: int | None = None
        """When it has news, as far as it was asked."""

    def kv_usage(self, at_ns: int) -> float:
        return self.engine.kv_usage(at_ns)

    def cached_tokens(self, at_ns: int, prompt: Key) -> int:
        return self.engine.cached_tokens(at_ns, prompt)


class Replicas:
    """Numbered pool by pool; those that a pool grows by take the next numbers."""

    def __init__(self, fleet: Fleet, make: MakeEngine) -> None:
        self.all: list[Replica] = []
        """Every replica there ever was, by number."""
        self.left: list[tuple[int, str, Gauges]] = []
        """Those that went: when, which, and what they said last. For whoever keeps account to take away."""
        self._fleet, self._make = fleet, make
        self._pools: dict[str, list[int]] = {}
        self._ready: dict[tuple[str, str], list[Replica]] = {}
        self._starting = 0
        for number, pool in enumerate(fleet.pools):
            for _ in range(pool.replicas):
                self.add(number, 0, 0)

    def present(self) -> Iterator[Replica]:
        """Those that are not gone: starting, taking calls, or draining."""
        return (replica for replica in self.all if replica.gone_ns is None)

    def seconds(self, at_ns: int) -> list[float]:
        """What each pool cost up to an instant: seconds of replicas, from when each was asked for to when it went."""
        seconds = [0.0] * len(self._fleet.pools)
        for replica in self.all:
            end = at_ns if replica.gone_ns is None else min(at_ns, replica.gone_ns)
            seconds[replica.pool] += max(0, end - replica.began_ns) / PER_S
        return seconds

    def candidates(self, stage: str, model: str, at_ns: int) -> list[Replica]:
        """Those that take calls of a model at a stage (entry or decode), by number. Raises Refused."""
        found = self._ready.get((stage, model))
        if found is None:
            pools = self._pools.get(model)
            if pools is None:
                pools = self._pools[model] = self._fleet.of(model)
            roles = ("decode",) if stage == "decode" else ("both", "prefill")
            wanted = {number for number in pools if self._fleet.pools[number].role in roles}
            found = [r for r in self.present() if r.pool in wanted and not r.draining and r.ready_ns <= at_ns]
            if at_ns >= self._starting:
                self._ready[stage, model] = found
        return found

    # -- more and fewer of them

    def add(self, pool: int, at_ns: int, ready_ns: int) -> None:
        """One more of a pool, asked for at an instant."""
        made, transfer = self._fleet.pools[pool], self._fleet.transfer
        number = len(self.all)
        engine = self._make(str(number), as_stage(made))
        link = Link(transfer.bytes_per_s, round(transfer.latency_s * 1e12)) if made.role == "prefill" else None
        self.all.append(Replica(number, pool, engine, link, at_ns, ready_ns))
        self._starting = max(self._starting, ready_ns)
        self._ready.clear()

    def drain(self, replica: Replica, at_ns: int) -> None:
        """It takes no more calls, and is gone when it has none."""
        replica.draining = True
        self._ready.clear()
        self.over(replica, at_ns)

    def over(self, replica: Replica, at_ns: int) -> None:
        """A call of it may have been the last it waited for: then it goes, and what it held with it."""
        if replica.draining and not replica.outstanding:
            replica.gone_ns = at_ns
            self.left.append((at_ns, replica.name, replica.engine.gauges()[""]))
            replica.engine.reset_prefix_cache(at_ns)
