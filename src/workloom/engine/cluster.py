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
from collections.abc import Iterator
from typing import NamedTuple

from workloom.engine.disaggregate import Split, delivered_first, joined, refuse_too_long
from workloom.engine.engine import PS, Engine, Finished, Gauges, Steps
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import FrontEnd
from workloom.engine.replicas import MakeEngine, Replica, Replicas
from workloom.engine.routing import Routing
from workloom.engine.scaling import Scaling
from workloom.prefix import Key

__all__ = ["Cluster", "Replica", "UnderWay", "engines", "serving"]


class UnderWay(NamedTuple):
    """Where a call is that is not over, and what the counters of that replica will count it as."""

    replica: str
    prompt_here: bool
    """Whether its prompt is computed there."""
    generated_tokens: int


def serving(fleet: Fleet, *, prefix_cache: bool = True, engines: MakeEngine | None = None) -> Engine | Cluster:
    """What serves a fleet: of one replica for ever, an engine without a name. `engines` makes them."""
    if not fleet.alone:
        return Cluster(fleet, prefix_cache=prefix_cache, engines=engines)
    profile = fleet.pools[0].profile
    return Engine(profile, prefix_cache=prefix_cache) if engines is None else engines("", profile)


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
        self._who = Replicas(fleet, engines or (lambda name, profile: Engine(profile, prefix_cache=prefix_cache)))
        self.replicas = self._who.all
        """Every replica there ever was, by number."""
        self.left = self._who.left
        """Replicas that went: when, which, and what they said last. For whoever keeps account to take away."""
        self._routing = Routing(fleet, self._who)
        self._scaling = Scaling(fleet, self._who)
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
        replica = self._routing.route("entry", model, at_ns, prompt, output_tokens, hints)
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

    def catch_up(self, to_ns: int) -> None:
        """Let time pass; what finished by then is told by the next :meth:`advance`."""
        self._advance(to_ns)

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

    def answers(self, call: str) -> str:
        """The replica that a call is on; empty when it is over."""
        replica = self._where.get(call)
        return "" if replica is None else replica.name

    def pool_of(self, replica: str) -> Pool:
        """What a replica, gone or not, is one of."""
        return self.fleet.pools[self.replicas[int(replica)].pool]

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
        return self._who.present()

    def replica_s(self, at_ns: int) -> list[float]:
        """What each pool cost up to an instant: seconds of replicas, from when each was asked for to when it went."""
        return self._who.seconds(at_ns)

    # -- time

    def _advance(self, to_ns: int) -> None:
        """Let all that happens by an instant happen, in order. What comes in at that instant still counts."""
        while True:
            due, kv_due, look_due = self._due(), self._kv_due(), self._scaling.next_ns
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
                until = min(each for each in (due, kv_due, to_ns) if each is not None)
                for replica in self._scaling.look(at, until):
                    self._routing.gone(replica)
        self._now = max(self._now, to_ns)

    def _due(self) -> int | None:
        """When a replica has news, by the heap."""
        heap = self._heap
        while heap and self.replicas[heap[0][1]].news_ns != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def _kv_due(self) -> int | None:
        return self._on_way[0][0] if self._on_way else None

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
        self._who.over(replica, finished.done_ns)
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
        longest = max((r for r in self._who.candidates("decode", model, self._now)), key=lambda r: r.longest)
        refuse_too_long(longest.engine.profile, call, prompt_tokens, output_tokens)

    def _hand_over(self, replica: Replica, split: Split, first: Finished) -> None:
        """The prompt is computed: its KV leaves for a decode replica."""
        at = self._now
        chosen = self._routing.route("decode", split.model, at, split.prompt, split.output_tokens, split.hints)
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
