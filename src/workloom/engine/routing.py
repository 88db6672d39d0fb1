"""The way of a call to a replica: a router for each model, at each stage of a call."""

from __future__ import annotations

from workloom.engine.fleet import Fleet
from workloom.engine.hints import Hints
from workloom.engine.replicas import Replica, Replicas
from workloom.engine.routers import Router, named
from workloom.prefix import Key


class Routing:
    """Stages are entry (a call comes) and decode (its prompt was computed elsewhere)."""

    def __init__(self, fleet: Fleet, replicas: Replicas) -> None:
        self._fleet, self._replicas = fleet, replicas
        self._routers: dict[tuple[str, str], Router] = {}

    def route(self, stage: str, model: str, at_ns: int, prompt: Key, output_tokens: int, hints: Hints) -> Replica:
        """Where a call goes at an instant. Raises Refused when nobody serves its model."""
        candidates = self._replicas.candidates(stage, model, at_ns)
        if len(candidates) == 1 and self._fleet.alone:
            return candidates[0]
        router = self._routers.get((stage, model))
        if router is None:
            fleet = self._fleet
            name = fleet.router if stage == "entry" else fleet.decode_router or "least_outstanding"
            router = self._routers[stage, model] = named(name)(fleet.seed)
        if len(self._fleet.pools) > 1:  # replicas may differ in what they can hold; none: the router's choice says so
            total = prompt.tokens + output_tokens
            candidates = [r for r in candidates if total <= r.longest] or candidates
        return router.choose(candidates, at_ns, prompt, hints)

    def gone(self, replica: Replica) -> None:
        """It takes no more calls."""
        for router in self._routers.values():
            router.gone(replica.number)
