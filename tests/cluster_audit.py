"""The auditor on every replica of a cluster, calls that another replica's prefill hands over included."""

from __future__ import annotations

from engine_audit import Audit, Audited, AuditedEngine

from workloom.engine.cluster import Cluster
from workloom.engine.engine import PS, Engine, Finished, Gauges
from workloom.engine.events import Admitted, Event, Preempted, Received
from workloom.engine.fleet import Fleet
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Profile
from workloom.prefix import Key


class DecodeAudit(Audit):
    """The books of a replica that decodes what others have prefilled."""

    def __init__(self, profile: Profile, *, prefix_cache: bool = True) -> None:
        super().__init__(profile, prefix_cache=prefix_cache)
        self._received: list[Received] = []
        self.taken_over: set[str] = set()
        """Calls that came with their KV."""

    def receive(self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int) -> None:
        """A call came with its KV: it waits at once, with its first token."""
        audited = Audited(call, prompt, answer, output_tokens, at_ns * PS)
        audited.leaves_ps, audited.made = audited.submitted_ps, 1
        self.calls[call] = audited
        self.taken_over.add(call)
        self._line.append(audited)

    def hear(self, event: Event) -> None:
        if isinstance(event, Received):
            self._decided.append(event)  # type: ignore[arg-type]
        else:
            super().hear(event)

    def _take_decisions(self, ran, chunks) -> None:  # type: ignore[no-untyped-def]
        """Preemptions and growth first, as ever; then who was given blocks, in the order in which they were."""
        given = [event for event in self._decided if not isinstance(event, Preempted)]
        self._decided = [event for event in self._decided if isinstance(event, Preempted)]
        super()._take_decisions(ran, chunks)
        for event in given:
            assert event.at_ps == ran.start_ps
            if isinstance(event, Admitted):
                self._admit(event, chunks.get(event.call, (0, 0))[0])
            else:
                self._take_over(event)

    def _take_over(self, event: Received) -> None:
        call = self.calls[event.call]
        assert call.queued and not call.running and call.ended is None and not call.preemptions
        assert call.name in self.taken_over and call.admitted_ps is None, "it comes with its KV once"
        assert call is next(each for each in self._waiting if not each.preemptions), "first come, first served"
        self._waiting.remove(call)
        call.goal = call.prompt.tokens + 1  # its first token is a token of the sequence: the whole prompt may be found
        held = self._known(call)
        assert event.held_tokens == held * self.size if self.exact else event.held_tokens <= held * self.size
        call.goal = call.prompt.tokens
        call.running, call.admitted_ps, call.cached = True, event.at_ps, 0
        call.registered = event.held_tokens // self.size
        if self.exact:
            found = [self.blocks.find(self._name(call, index)) for index in range(call.registered)]
            call.blocks = [block for block in found if block is not None]
            for block in call.blocks:
                self.blocks.use(block)
        self._grow(call, call.prompt.tokens + 1)
        call.computed = call.prompt.tokens - 1
        self._compute(call, call.prompt.tokens, edges=False)
        self._running.append(call)

    def check(self, finished: list[Finished], gauges: Gauges) -> None:
        """Prompts are counted where they were computed, and so are first tokens."""
        came = [self.calls[name] for name in self.taken_over]
        prompts = sum(call.prompt.tokens for call in came)
        gauges = gauges._replace(
            prompt_tokens=gauges.prompt_tokens + prompts, generated_tokens=gauges.generated_tokens + len(came)
        )
        super().check(finished, gauges)


class AuditedReplica(AuditedEngine):
    """An engine of a cluster whose books are kept."""

    audit: DecodeAudit

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.audit = DecodeAudit(profile)

    def receive(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        self.audit.receive(at_ns, call, prompt, answer, output_tokens)
        super().receive(at_ns, call, prompt, answer, output_tokens, hints)


class AuditedCluster:
    """A cluster of them."""

    def __init__(self, fleet: Fleet) -> None:
        self.engines: list[AuditedReplica] = []
        self.cluster = Cluster(fleet, engines=self._make)

    def _make(self, name: str, profile: Profile) -> Engine:
        self.engines.append(AuditedReplica(profile))
        return self.engines[-1]

    def settle(self) -> None:
        """Check every book, when all is over."""
        for engine in self.engines:
            engine.settle()
