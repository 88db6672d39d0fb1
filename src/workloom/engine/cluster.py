"""Replicas behind a router: passive and exact, as the engine is, at a cost per event and not per replica.

    submit -> router -> replica 0  \\
                        replica 1   >  a heap of when each has news  ->  Finished, in order
                        replica 2  /

Everything that happens inside by an instant has happened before a call is routed at it: a router's view depends on
instants alone, never on when somebody looked. Of one instant, calls end first, then KV arrives, then pools grow and
shrink, then calls come in.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from workloom.engine.autoscale import PER_S, Scaler
from workloom.engine.disaggregate import Split, as_stage, delivered_first, joined, refuse_too_long
from workloom.engine.engine import PS, Engine, Finished, Gauges, Steps
from workloom.engine.fleet import Fleet
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.link import Link
from workloom.engine.profile import FrontEnd, Profile
from workloom.engine.routers import Router, named
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


class UnderWay(NamedTuple):
    """Where a call is that is not over, and what the counters of that replica will count it as."""

    replica: str
    prompt_here: bool
    """Whether its prompt is computed there."""
    generated_tokens: int


def serving(fleet: Fleet, *, prefix_cache: bool = True) -> Engine | Cluster:
    """What serves a fleet: of one replica for ever, an engine."""
    if fleet.alone:
        return Engine(fleet.pools[0].profile, prefix_cache=prefix_cache)
    return Cluster(fleet, prefix_cache=prefix_cache)


def engines(serving: Engine | Cluster) -> dict[str, Engine]:
    """The engines that are there, by the names of their replicas."""
    if isinstance(serving, Engine):
        return {"": serving}
    return {replica.name: replica.engine for replica in serving.present()}


class Cluster:
    """A fleet that serves; satisfies :class:`workloom.engine.serving.Serving`.

    Replicas are numbered pool by pool; those that a pool grows by take the next numbers. `engines` makes them
    (default: plain engines).
    """

    def __init__(self, fleet: Fleet, *, prefix_cache: bool = True, engines: MakeEngine | None = None) -> None:
        self.fleet = fleet
        self.prefix_cache = prefix_cache
        self._make = engines or (lambda name, profile: Engine(profile, prefix_cache=prefix_cache))
        self.replicas: list[Replica] = []
        """Every replica there ever was, by number."""
        self.left: list[tuple[int, str, Gauges]] = []
        """Replicas that went: when, which, and what they said last. For whoever keeps account to take away."""
        self._now = 0
        self._out: list[Finished] = []
        self._touched: dict[Replica, None] = {}
        """Replicas that may have other news than the heap says."""
        self._heap: list[tuple[int, int]] = []
        self._on_way: list[tuple[int, int, Split, Replica]] = []
        """KV on its way: when it is there, the how many-th, whose, and where it goes."""
        self._sent = 0
        self._where: dict[str, Replica] = {}
        self._splits: dict[str, Split] = {}
        self._pools: dict[str, list[int]] = {}
        self._routers: dict[tuple[str, str], Router] = {}
        self._ready: dict[tuple[str, str], list[Replica]] = {}
        self._starting = 0
        self._scalers = {
            number: Scaler(pool.autoscale) for number, pool in enumerate(fleet.pools) if pool.autoscale is not None
        }
        for number, pool in enumerate(fleet.pools):
            for _ in range(pool.replicas):
                self._add(number, 0, 0)

    def __repr__(self) -> str:
        return f"Cluster({len(self.fleet.pools)} pools, {sum(1 for _ in self.present())} replicas)"

    # -- what goes in

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        """Hand in a call; raises Refused when no replica can ever serve it."""
        self._advance(at_ns)
        if call in self._where:
            raise ValueError(f"call {call} is already in the cluster")
        model = hints.model or self.fleet.usual_model
        replica = self._route("entry", model, at_ns, prompt, output_tokens, hints)
        if self.fleet.pools[replica.pool].role == "prefill":
            self._check_decode(model, call, prompt.tokens, output_tokens)
            replica.engine.submit(at_ns, call, prompt, answer, 1, hints)
            self._splits[call] = Split(call, prompt, answer, output_tokens, hints, model, replica.pool)
        else:
            replica.engine.submit(at_ns, call, prompt, answer, output_tokens, hints)
        self._where[call] = replica
        replica.outstanding += 1
        self._touched[replica] = None

    def cancel(self, at_ns: int, call: str) -> None:
        """The client is gone."""
        self._advance(at_ns)
        replica = self._where.get(call)
        if replica is None:
            return
        split = self._splits.get(call)
        if split is not None and split.first is not None and split.on_way:
            split.on_way = False  # the copy runs to its end, and nobody waits for it
            self._ended(replica, split.first._replace(status="cancelled", done_ns=at_ns, tokens=[], output_tokens=0))
            return
        replica.engine.cancel(at_ns, call)
        self._touched[replica] = None

    def reset_prefix_cache(self, at_ns: int) -> bool:
        """Forget what no call holds, on every replica; False when calls still hold blocks on one."""
        self._advance(at_ns)
        emptied = True
        for replica in self.present():
            emptied &= replica.engine.reset_prefix_cache(at_ns)
            self._touched[replica] = None
        return emptied

    # -- what comes out

    def advance(self, to_ns: int) -> list[Finished]:
        """Let time pass; what finished by then, in order."""
        self._advance(to_ns)
        out, self._out = self._out, []
        return out

    def next_ns(self) -> int | None:
        """When something may finish next, or a replica or a transfer needs a look; None while it is empty."""
        if self._out:
            return self._now
        self._ask_touched()
        due = self._due()
        if self._on_way:
            due = self._on_way[0][0] if due is None else min(due, self._on_way[0][0])
        return due

    def next_step_ns(self, after_ns: int) -> int | None:
        """When the next tokens come after an instant."""
        due = self.next_ns()
        if due is None or self._out:
            return due
        steps = (r.engine.next_step_ns(after_ns) for r in self.present() if r.outstanding)
        return min((at for at in (*steps, due) if at is not None), default=None)

    def generated(self, call: str, at_ns: int) -> int:
        """How many tokens of its answer a call has."""
        replica = self._where.get(call)
        if replica is None:
            return 0
        split = self._splits.get(call)
        if split is not None and split.first is not None:
            return max(1, replica.engine.generated(call, at_ns))
        return replica.engine.generated(call, at_ns)

    def answer_so_far(self, call: str, at_ns: int) -> list[Steps]:
        """When those were made."""
        replica = self._where.get(call)
        if replica is None:
            return []
        tokens = replica.engine.answer_so_far(call, at_ns)
        split = self._splits.get(call)
        if split is None or split.first is None:
            return tokens
        return delivered_first(split.first.tokens, tokens, self._front_end(split))

    def under_way(self, call: str, at_ns: int) -> UnderWay | None:
        """Where a call is; None when it is over."""
        replica = self._where.get(call)
        if replica is None:
            return None
        split = self._splits.get(call)
        here = split is None or split.first is None
        tokens = replica.engine.generated(call, at_ns)
        return UnderWay(replica.name, here, tokens if here else max(0, tokens - 1))

    def gauges(self) -> dict[str, Gauges]:
        """The state of every replica that is there, by its name."""
        return {replica.name: replica.engine.gauges()[""] for replica in self.present()}

    # -- who is there

    def present(self) -> Iterator[Replica]:
        """Replicas that are not gone: starting, taking calls, or draining."""
        return (replica for replica in self.replicas if replica.gone_ns is None)

    def replica_s(self, at_ns: int) -> list[float]:
        """What each pool cost up to an instant: seconds of replicas, from when each was asked for to when it went."""
        seconds = [0.0] * len(self.fleet.pools)
        for replica in self.replicas:
            end = at_ns if replica.gone_ns is None else min(at_ns, replica.gone_ns)
            seconds[replica.pool] += max(0, end - replica.began_ns) / PER_S
        return seconds

    def _add(self, pool: int, at_ns: int, ready_ns: int) -> None:
        made = self.fleet.pools[pool]
        profile, number = as_stage(made), len(self.replicas)
        transfer = self.fleet.transfer
        link = Link(transfer.bytes_per_s, round(transfer.latency_s * 1e12)) if made.role == "prefill" else None
        self.replicas.append(Replica(number, pool, self._make(str(number), profile), link, at_ns, ready_ns))
        self._starting = max(self._starting, ready_ns)
        self._ready.clear()

    def _candidates(self, stage: str, model: str, at_ns: int) -> list[Replica]:
        """Those that take calls of a model, by number."""
        found = self._ready.get((stage, model))
        if found is None:
            roles = ("decode",) if stage == "decode" else ("both", "prefill")
            pools = self._pools.get(model)
            if pools is None:
                pools = self._pools[model] = self.fleet.of(model)
            wanted = {number for number in pools if self.fleet.pools[number].role in roles}
            found = [
                r
                for r in self.replicas
                if r.pool in wanted and r.gone_ns is None and not r.draining and r.ready_ns <= at_ns
            ]
            if at_ns >= self._starting:
                self._ready[stage, model] = found
        return found

    def _route(self, stage: str, model: str, at_ns: int, prompt: Key, output_tokens: int, hints: Hints) -> Replica:
        candidates = self._candidates(stage, model, at_ns)
        if len(candidates) == 1 and self.fleet.alone:
            return candidates[0]
        router = self._routers.get((stage, model))
        if router is None:
            name = self.fleet.router if stage == "entry" else self.fleet.decode_router or "least_outstanding"
            router = self._routers[stage, model] = named(name)(self.fleet.seed)
        if len(self.fleet.pools) > 1:  # replicas may differ in what they can hold; none: the router's choice says so
            total = prompt.tokens + output_tokens
            candidates = [r for r in candidates if total <= r.longest] or candidates
        return router.choose(candidates, at_ns, prompt, hints)

    # -- time

    def _advance(self, to_ns: int) -> None:
        """Let all that happens by an instant happen, in order. What comes in at that instant still counts."""
        while True:
            due, kv_due, look_due = self._due(), self._kv_due(), self._look_due()
            at = min((each for each in (due, kv_due, look_due) if each is not None), default=None)
            if self._touched and self._now < to_ns and (at is None or at > self._now):
                self._ask_touched()
                continue
            if at is None or at > to_ns:
                break
            self._now = max(self._now, at)
            if due == at:
                self._settle(at)
            elif kv_due == at:
                self._arrive(at)
            else:
                self._look(at, min(each for each in (due, kv_due, to_ns) if each is not None))
        self._now = max(self._now, to_ns)

    def _due(self) -> int | None:
        """When a replica has news, by the heap."""
        heap = self._heap
        while heap and self.replicas[heap[0][1]].news_ns != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def _kv_due(self) -> int | None:
        return self._on_way[0][0] if self._on_way else None

    def _look_due(self) -> int | None:
        return min((scaler.next_ns for scaler in self._scalers.values()), default=None)

    def _ask_touched(self) -> None:
        """Nothing more comes in at the present instant: ask when there will be news."""
        for replica in self._touched:
            news = replica.engine.next_ns()
            replica.news_ns = news
            if news is not None:
                heapq.heappush(self._heap, (news, replica.number))
        self._touched.clear()

    def _settle(self, at_ns: int) -> None:
        """The first replica with news by an instant."""
        replica = self.replicas[heapq.heappop(self._heap)[1]]
        replica.news_ns = None
        for finished in replica.engine.advance(at_ns):
            self._ended(replica, finished)
        self._touched[replica] = None

    def _ended(self, replica: Replica, finished: Finished) -> None:
        """A call is over on a replica: for its client, or it goes on to another replica."""
        finished = finished._replace(replica=replica.name)
        replica.outstanding -= 1
        if replica.draining and not replica.outstanding:
            self._leave(replica, finished.done_ns)
        split = self._splits.get(finished.call)
        if split is not None:
            front = self._front_end(split)
            if split.first is not None:
                finished = joined(split.first, finished, front)
            elif finished.status == "done" and split.output_tokens > 1:
                self._hand_over(replica, split, finished)
                return
            else:
                finished = joined(finished, None, front)
            del self._splits[finished.call]
        del self._where[finished.call]
        self._out.append(finished)

    def _front_end(self, split: Split) -> FrontEnd:
        """Of the pool that computes its prompt, as its profile has it."""
        return self.fleet.pools[split.pool].profile.front_end

    # -- prefill here, decode there

    def _check_decode(self, model: str, call: str, prompt_tokens: int, output_tokens: int) -> None:
        longest = max((r for r in self._candidates("decode", model, self._now)), key=lambda r: r.longest)
        refuse_too_long(longest.engine.profile, call, prompt_tokens, output_tokens)

    def _hand_over(self, replica: Replica, split: Split, first: Finished) -> None:
        """The prompt is computed: its KV leaves for a decode replica."""
        at = self._now
        chosen = self._route("decode", split.model, at, split.prompt, split.output_tokens, split.hints)
        assert replica.link is not None
        tokens = split.prompt.tokens - chosen.cached_tokens(at, split.prompt)
        there = replica.link.transfer(at * PS, tokens * replica.engine.profile.kv_token_bytes)
        split.first, split.on_way = first, True
        chosen.outstanding += 1
        self._where[split.call] = chosen
        self._sent += 1
        heapq.heappush(self._on_way, (-(-there // PS), self._sent, split, chosen))

    def _arrive(self, at_ns: int) -> None:
        """KV is there."""
        _, _, split, replica = heapq.heappop(self._on_way)
        if split.on_way:
            split.on_way = False
            replica.engine.receive(at_ns, split.call, split.prompt, split.answer, split.output_tokens, split.hints)
            self._touched[replica] = None

    # -- more and fewer of them

    def _look(self, at_ns: int, until_ns: int) -> None:
        """Pools whose time it is grow or shrink. Where nothing can change until an instant they need not look."""
        for pool, scaler in self._scalers.items():
            if scaler.next_ns != at_ns:
                continue
            there = [r for r in self.present() if r.pool == pool and not r.draining]
            outstanding = sum(r.outstanding for r in there)
            if not outstanding and len(there) == scaler.rules.least and until_ns > at_ns:
                scaler.skip(until_ns)
                continue
            ready = [r for r in there if r.ready_ns <= at_ns]
            usage = sum(r.kv_usage(at_ns) for r in ready) / len(ready) if scaler.rules.up_kv is not None else 0.0
            step = scaler.look(len(there), outstanding, usage)
            if step > 0:
                self._add(pool, at_ns, at_ns + scaler.start_ns)
            elif step < 0:
                self._drain(max(there, key=lambda r: (r.ready_ns > at_ns, -r.outstanding, r.number)), at_ns)

    def _drain(self, replica: Replica, at_ns: int) -> None:
        """A replica takes no more calls: one that only starts, else the one with the least to do, the newest first."""
        replica.draining = True
        self._ready.clear()
        for router in self._routers.values():
            router.gone(replica.number)
        if not replica.outstanding:
            self._leave(replica, at_ns)

    def _leave(self, replica: Replica, at_ns: int) -> None:
        replica.gone_ns = at_ns
        self.left.append((at_ns, replica.name, replica.engine.gauges()[""]))
        replica.engine.reset_prefix_cache(at_ns)  # what it held is gone with it
