"""Pools that grow and shrink: each looks at its replicas when its time has come, and acts on what it sees then."""

from __future__ import annotations

from workloom.engine.autoscale import Scaler
from workloom.engine.fleet import Fleet
from workloom.engine.replicas import Replica, Replicas


class Scaling:
    """The scalers of a fleet, by number of their pool."""

    def __init__(self, fleet: Fleet, replicas: Replicas) -> None:
        self._replicas = replicas
        self.scalers = {
            number: Scaler(pool.autoscale) for number, pool in enumerate(fleet.pools) if pool.autoscale is not None
        }

    @property
    def next_ns(self) -> int | None:
        """When the first of them looks next."""
        return min((scaler.next_ns for scaler in self.scalers.values()), default=None)

    def look(self, at_ns: int, until_ns: int) -> list[Replica]:
        """Let those look whose time it is; who takes no more calls. Nothing else happens until `until_ns`."""
        drained = []
        for pool, scaler in self.scalers.items():
            if scaler.next_ns == at_ns:
                drained += self._look(pool, scaler, at_ns, until_ns)
        return drained

    def _look(self, pool: int, scaler: Scaler, at_ns: int, until_ns: int) -> list[Replica]:
        there = [r for r in self._replicas.present() if r.pool == pool and not r.draining]
        outstanding = sum(r.outstanding for r in there)
        if not outstanding and len(there) == scaler.rules.least and until_ns > at_ns:
            scaler.skip(until_ns)  # nothing can change until then
            return []
        ready = [r for r in there if r.ready_ns <= at_ns]
        usage = sum(r.kv_usage(at_ns) for r in ready) / len(ready) if scaler.rules.up_kv is not None else 0.0
        step = scaler.look(len(there), outstanding, usage)
        if step > 0:
            self._replicas.add(pool, at_ns, at_ns + scaler.start_ns)
        elif step < 0:
            goes = max(there, key=lambda r: (r.ready_ns > at_ns, -r.outstanding, r.number))
            self._replicas.drain(goes, at_ns)
            return [goes]
        return []
