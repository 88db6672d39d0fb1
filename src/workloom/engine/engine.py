"""The simulated serving engine: passive, exact, and as fast as its events.

It never waits. Calls are handed in with the instant they arrive, time is moved on by :meth:`Engine.advance`, and what
finished comes back; :meth:`Engine.next_ns` says when it is worth looking again. Internally instants are integer
picoseconds; what leaves is nanoseconds, rounded up.

    front end (serial)  ->  waiting  ->  running: step, step, step ...  ->  Finished

**Boundaries.** Step k runs from start(k) to end(k). At end(k), in this order: its tokens exist, full blocks become
findable, complete calls free theirs, cancelled ones too, calls that left the front end wait, step k+1 is formed and
begins. Without `async_scheduling` step k+1 may hold whoever left the front end before end(k), strictly; tokens come,
and calls end, at end(k). An engine without running or waiting calls begins when the first call leaves the front end,
with all that leave at that instant.

**Scheduling ahead** (`async_scheduling`; what rows measured on vLLM 0.17.1 show). launch(k) is what is left, at
start(k), of the launch of a step with prefill; 0 of a decode-only step. A launch takes F (or the graphs' F) + H per
newly admitted call, without tail. It begins at start(k), but if step k-1 had prefill and step k was formed at its end,
when the launch of that was over: at start(k-1) + launch(k-1). If it is over by start(k), launch(k) is 0. Step k lasts
the longer of launch(k) + tail and the GPU time.

- Who of the newly arrived may be in step k+1 is decided at start(k) + launch(k): those who left the front end before
  it, strictly. So a call that comes while decode step k runs waits for the rest of it and for the whole of k+1; one
  that comes during the launch of a step with prefill gets into the next. Everything else of step k+1 (who ended, was
  cancelled, which blocks are free) is as it is at end(k). If by this nobody runs or waits at end(k), the engine has
  waited for that instant and is idle: a step begins as above, there at the earliest, with all who have left by then.
- Else step k+1 is formed at end(k) before anything that comes in at that instant: a cancel at end(k) is one during
  step k+1. If it has prefill, the tokens of step k come at start(k+1) + launch(k+1), when its launch is over. In all
  other cases they come at end(k). Calls that ended with step k (cancelled ones too) end when its tokens come; their
  blocks are free at end(k) all the same.

**Delivery.** A call's first token is delivered `first_token_ps` after it came, but not after its second, nor after the
end of a call that was cancelled; others at once. A call that is done ends `end_ps` after its last token was delivered.
A cancelled one ends, without `end_ps`: if it ran, when the tokens of that step come; if it waited, at once, but not
before the last token it had came. A cancel of a call that is complete changes nothing, though its end was not told yet.

**Speculation.** A decode-only step is told token by token, each taking its share of the step's time (see
:mod:`workloom.engine.cost`): throughput and TPOT are those of steps that give acceptance_length tokens, and TBC is the
mean gap between tokens where a server sends chunks of several at larger gaps. A step with prefill gives each decoding
call g tokens at once: g = owed // 1000, where `owed`, 0 at first, rises by round(1000 * acceptance_length) with each
such step and falls by 1000 * g; but g is at most what the decoding call that is nearest to its end lacks, what blocks
are free for and, with state pages, what leads to a block's end (1 where a block begins), and at least 1.

**Leaps.** Between events (arrival, completion, end of a prefill, want of blocks) all steps are alike but for a linearly
growing time, so they are taken in one leap. Whatever comes in cuts it at the boundary where it counts: the schedule
does not depend on when anybody looked, nor on leaping.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from workloom.engine.batch import Limits
from workloom.engine.cost import Cost
from workloom.engine.delivery import PS, Finished, Outbox, delivered
from workloom.engine.events import Listener
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.prefix import PrefixCache
from workloom.engine.profile import Profile
from workloom.engine.scheduler import Scheduler
from workloom.engine.sequence import Sequence
from workloom.engine.telling import Teller
from workloom.engine.tiers import Tiers
from workloom.engine.timeline import Leap, StepLog, Steps, until
from workloom.errors import Refused
from workloom.prefix import Key

__all__ = ["PS", "Engine", "Finished", "Gauges", "Steps"]


class Gauges(NamedTuple):
    """The state of the engine, as its metrics page shows it."""

    running: int
    waiting: int
    kv_usage: float
    preemptions: int
    queries_tokens: int
    """Prompt tokens of the calls that were admitted so far."""
    hits_tokens: int
    """Of these, those that need not be computed: on the GPU or in a tier."""
    prompt_tokens: int
    """Of the calls that are over."""
    generated_tokens: int
    steps: int
    external_queries_tokens: int = 0
    """Of the queries, those that the GPU did not have, while there are tiers (vLLM's word for those)."""
    external_hits_tokens: int = 0
    """Of the hits, those read from tiers."""
    cached_tokens: int = 0
    """Of the prompt tokens, those that were not computed at first."""
    external_tokens: int = 0
    """Of these, those read from tiers."""
    read_bytes: int = 0
    """Asked of the tiers so far."""
    written_bytes: int = 0


class Engine:
    """One replica of a profile.

    Without `async_scheduling` a step that begins at the very instant of the last `advance` is formed once `next_ns` is
    asked: what came in at that instant still counts.

    `log_steps`: how many leaps are remembered before those that nobody can ask for are dropped.
    `leap` False takes every step on its own: the same schedule, slowly (tests compare the two).
    `listener` is told what the engine does.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        prefix_cache: bool = True,
        leap: bool = True,
        log_steps: int = 8192,
        listener: Listener | None = None,
    ) -> None:
        self.profile = profile
        self.cache = PrefixCache.of(profile, enabled=prefix_cache)
        self.queue = self.cache.queue
        self.tiers = Tiers.of(profile, self.cache)
        self.scheduler = Scheduler(Limits.of(profile), self.cache, profile.policy)
        self._cost = Cost(profile.step, profile.speculative)
        self._longest = profile.longest_call
        self._first_token_ps = profile.front_end.first_token_ps
        self._leaping = leap
        self._ahead = profile.async_scheduling
        self._teller = None if listener is None else Teller(listener)
        self._now = 0
        self._stalled = False
        """Whether nothing can run until a load ends or something comes in, though calls wait."""
        self._told = 0
        self._front_end_free = 0
        self._arriving: deque[tuple[int, Sequence]] = deque()
        self._calls: dict[str, Sequence] = {}
        self._cancels: deque[Sequence] = deque()
        self._leap: Leap | None = None
        self._log = StepLog(log_steps)
        self._outbox = Outbox(profile.front_end)
        self._firsts: deque[int] = deque()
        """When first tokens are delivered, for those who look at every token."""
        self._prompts = self._cached = self._external = self._generated = 0

    # -- what goes in

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        """Hand in a call that arrives now or later than anything before it; raises Refused if it can never fit."""
        self._check(call, prompt.tokens, output_tokens)
        at = at_ns * PS
        self._advance(at)
        sequence = Sequence(call, prompt, answer, output_tokens, hints)
        front = self.profile.front_end
        leaves = max(self._front_end_free, at) + front.call_ps + front.prompt_token_ps * prompt.tokens
        self._front_end_free = sequence.queued_ps = leaves
        self._calls[call] = sequence
        self._arriving.append((leaves, sequence))
        if self._leap is not None:
            self._leap = self._cut_for(self._leap, leaves)

    def receive(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        """Hand in a call whose prompt and first token another engine made, its KV with it: it waits at once, is given
        blocks when it is admitted and goes on with its second token. Do not mix with `submit`."""
        self._check(call, prompt.tokens, output_tokens)
        at = at_ns * PS
        self._advance(at)
        sequence = Sequence(call, prompt, answer, output_tokens, hints)
        sequence.received, sequence.generated = True, 1
        sequence.queued_ps = at
        self._calls[call] = sequence
        self._arriving.append((at, sequence))
        if self._leap is not None:
            self._leap = self._cut_for(self._leap, at)

    def _check(self, call: str, prompt_tokens: int, output_tokens: int) -> None:
        total = prompt_tokens + output_tokens
        if call in self._calls or self._outbox.get(call) is not None:
            raise ValueError(f"call {call} is already in the engine")
        if prompt_tokens < 1 or output_tokens < 1:
            raise Refused("a prompt and an answer have at least one token", where=f"call {call}")
        if total <= self._longest:
            return
        most = self.profile.max_model_len
        if total > most:
            raise Refused(
                "the call is longer than the model's context",
                where=f"call {call}",
                expected=f"at most {most} tokens (prompt + answer)",
                found=f"{prompt_tokens} + {output_tokens} = {total}",
            )
        raise Refused(
            "the call is larger than the whole KV cache",
            where=f"call {call}",
            expected=f"at most {self._longest} tokens",
            found=total,
        )

    def cancel(self, at_ns: int, call: str) -> None:
        """The client is gone. A running call ends at a step boundary, one that waits at once."""
        at = at_ns * PS
        self._advance(at, before=0 if self._ahead else 1)
        sequence = self._calls.get(call)
        if sequence is None:
            return
        runs = sequence.state in ("running", "loading") or sequence.load is not None
        if runs and self._leap is not None:
            self._cancels.append(sequence)
            self._cut(at)
            return
        if sequence.state == "front end":
            sequence.state = "cancelled"  # its place in the front end stays taken
        else:  # it waits, or runs and this is a boundary
            self.queue.now_ps = at
            self.scheduler.drop(sequence)
            self.scheduler.close(at)
            self._wake(at)
            self._cut(at)
        if self._teller is not None:
            self._teller.ended(sequence, "cancelled", at)
        self._finish(sequence, "cancelled", at)

    def reset_prefix_cache(self, at_ns: int) -> bool:
        """Forget what no call holds; False when calls still hold blocks, which then stay (as vLLM does)."""
        self._advance(at_ns * PS, before=1)
        self.cache.forget()
        return self.queue.free == self.queue.blocks

    # -- what comes out

    def advance(self, to_ns: int) -> list[Finished]:
        """Let time pass until `to_ns`; what finished by then, in order."""
        self._advance(to_ns * PS)
        return self._outbox.take(to_ns * PS)

    def next_ns(self) -> int | None:
        """When something may finish next (or a step begin, if the engine stands idle); None while it is empty."""
        told = self._outbox.next_ps
        if told is not None and told <= self._told:
            return -(-self._told // PS)
        self._close()
        step = self._leap.end_ps if self._leap is not None else self._start()
        if told is None or step is None:
            told = step if told is None else told
            return None if told is None else -(-told // PS)
        return -(-min(told, step) // PS)

    def next_step_ns(self, after_ns: int) -> int | None:
        """When the next tokens come after an instant, or a call ends."""
        self._close()
        after = after_ns * PS
        while self._firsts and self._firsts[0] <= after:
            self._firsts.popleft()
        coming = [self._firsts[0]] if self._firsts else []
        if self._outbox.next_ps is not None:
            coming.append(self._outbox.next_ps)
        leap, last = self._leap, self._log.last
        if last is not None and last.last_ps > after:
            coming.append(last.last_ps)
        if leap is not None:
            held = leap.launch_ps if self._ahead else 0
            came = leap.ended_by(after - held)
            coming.append(leap.end(came + 1) + held if came + 1 < leap.steps else leap.end_ps)
        elif (start := self._start()) is not None:
            coming.append(start)
        return -(-min(coming) // PS) if coming else None

    def generated(self, call: str, at_ns: int) -> int:
        """How many tokens of its answer a call has by an instant not before the last `advance`."""
        at = at_ns * PS
        if self._ahead:
            self._advance(at)
        sequence = self._calls.get(call)
        if sequence is None:
            return sum(steps.length for steps in self.answer_so_far(call, at_ns))
        count = sequence.generated
        if call in self.scheduler.decoding:
            count = self.scheduler.computed(sequence) - sequence.prompt_tokens + 1
            leap = self._leap
            if leap is not None and leap.batch.decodes:
                count += self._came(leap, at)
        if self._ahead and (spells := self.scheduler.spells(sequence)):
            count -= self._log.pending(*spells[-1], at)
        if count == 1 and self.profile.front_end.first_token_ps:
            return sum(steps.length for steps in self.answer_so_far(call, at_ns))
        return count

    def answer_so_far(self, call: str, at_ns: int) -> list[Steps]:
        """When the tokens that :meth:`generated` counts were delivered."""
        at = at_ns * PS
        if self._ahead:
            self._advance(at)
        sequence = self._calls.get(call)
        if sequence is None:
            ended = self._outbox.get(call)
            return [] if ended is None else until(ended.tokens, at)
        tokens = self._spells(sequence)
        if call in self.scheduler.decoding:
            leap = self._leap
            if leap is not None and leap.batch.decodes and (came := self._came(leap, at)):
                held = leap.launch_ps if self._ahead else 0
                tokens += [steps.part(0, came) for steps in leap.tokens(self.scheduler.step, held, held)]
        return until(delivered(tokens, self.profile.front_end.first_token_ps), at)

    def _came(self, leap: Leap, at: int) -> int:
        """Of a leap under way, the steps whose tokens have come. When its last ones come is not known yet."""
        if not self._ahead:
            return leap.ended_by(at) * leap.batch.tokens
        return min(leap.ended_by(at - leap.launch_ps), leap.steps - 1)

    def _spells(self, sequence: Sequence) -> list[Steps]:
        spells = self.scheduler.spells(sequence)
        if len(spells) == 1:
            return self._log.slice(*spells[0])
        return [steps for first, end in spells for steps in self._log.slice(first, end)]

    def gauges(self) -> dict[str, Gauges]:
        """The state of every replica, by its name: one without a name here."""
        scheduler, queue = self.scheduler, self.queue
        usage = 0.0 if queue.infinite else 1 - queue.free / queue.blocks
        gauges = Gauges(
            scheduler.running,
            len(scheduler.waiting),
            usage,
            scheduler.preemptions,
            scheduler.admission.queries_tokens,
            scheduler.admission.hits_tokens,
            self._prompts,
            self._generated,
            scheduler.step,
            cached_tokens=self._cached,
            external_tokens=self._external,
        )
        if self.tiers is not None:
            gauges = gauges._replace(
                external_queries_tokens=self.tiers.queries_tokens,
                external_hits_tokens=self.tiers.hits_tokens,
                read_bytes=sum(tier.reads.bytes for tier in self.tiers.tiers),
                written_bytes=sum(tier.writes.bytes for tier in self.tiers.tiers),
            )
        return {"": gauges}

    def kv_usage(self, at_ns: int) -> float:
        """Share of its blocks that calls hold at an instant not before the last `advance`."""
        at, queue = at_ns * PS, self.queue
        self._advance(at)
        if queue.infinite:
            return 0.0
        free, leap = queue.free, self._leap
        if leap is not None:
            free = self.scheduler.free_in(leap.batch, leap.ended_by(at) + 1)
        return 1 - free / queue.blocks

    def cached_tokens(self, at_ns: int, prompt: Key) -> int:
        """Tokens of a prompt that its GPU's cache holds at an instant not before the last `advance`."""
        at = at_ns * PS
        self._advance(at)
        leap = self._leap
        if leap is not None and leap.batch.prefills and (ended := leap.ended_by(at)):
            cancels, self._cancels = self._cancels, deque()  # they take effect where the whole leap ends
            self._settle(leap.shorter(ended))  # what its chunks filled so far can be found
            self._advance(at)
            self._cancels = cancels
            if self._leap is not None:
                self._leap = self._leap.shorter(leap.steps - ended)
        return self.cache.lookup(Sequence("", prompt, -1, 1), below=False).tokens

    # -- the loop: schedule, run, settle

    def _advance(self, to_ps: int, before: int = 0) -> None:
        """Form the steps that begin before an instant, settle those that end by it (or `before` it)."""
        self._told = max(self._told, to_ps)
        while True:
            if self._leap is None:
                start = self._start()
                if start is None or start >= to_ps:
                    return
                self._begin(start)
            leap = self._leap
            if leap is None:
                continue
            if leap.end_ps > to_ps - before:
                return
            self._settle(leap)

    def _close(self) -> None:
        """Nothing more comes in at this instant: a step that begins now may be formed."""
        while self._leap is None and (start := self._start()) is not None and start <= self._told:
            self._begin(start)

    @property
    def _busy(self) -> bool:
        scheduler = self.scheduler
        return bool(scheduler.decoding or scheduler.prefilling or (not self._stalled and scheduler.waiting))

    def _wake(self, at_ps: int) -> None:
        """Something came in: who was stalled may run now."""
        if self._stalled:
            self._stalled, self._now = False, max(self._now, at_ps)

    def _start(self) -> int | None:
        """When the next step begins, if no step is under way."""
        if self._busy:
            return self._now
        while self._arriving and self._arriving[0][1].state == "cancelled":
            self._arriving.popleft()
        coming = [self._arriving[0][0]] if self._arriving else []
        loaded = self.scheduler.loads.next_ps if self.scheduler.loads is not None else None
        if loaded is not None:
            coming.append(loaded)
        return max(min(coming), self._now) if coming else None

    def _begin(self, start: int) -> None:
        """No step is under way, and one begins."""
        if self._arriving:
            self._take(start if self._busy else start + 1)
        if self.tiers is not None:
            self._join(start, start)
        self._leap = self._form(start)

    def _go_on(self, leap: Leap) -> None:
        """Scheduling ahead, a leap has ended: what was decided during its last step begins."""
        prefill = bool(leap.batch.prefills)
        if self._arriving or prefill or self.scheduler.loads is not None:
            decision_ps = leap.decision_ps
            self._take(decision_ps)
            self._join(self._now, decision_ps)
        if self._busy:
            self._leap = self._form(self._now, self._now - decision_ps if prefill else 0)

    def _take(self, before: int) -> None:
        """Calls that leave the front end before an instant wait."""
        while self._arriving and self._arriving[0][0] < before:
            sequence = self._arriving.popleft()[1]
            if sequence.state != "cancelled":
                self.scheduler.wait(sequence)
                self._stalled = False
                if self._teller is not None:
                    self._teller.queued(sequence)

    def _join(self, at_ps: int, by_ps: int) -> None:
        """Calls whose load from a tier ended by an instant go on."""
        if self.scheduler.loads is not None:
            self.scheduler.join(at_ps, by_ps)

    def _form(self, start: int, early: int = 0) -> Leap | None:
        """Schedule the step that begins now; its launch may have begun a while before."""
        scheduler, loads = self.scheduler, self.scheduler.loads
        evicted = self.queue.evicted
        batch = scheduler.schedule(start)
        if loads is not None:
            scheduler.close(start)
        for sequence, _ in batch.prefills:
            if sequence.admitted_ps is None:
                sequence.admitted_ps = start
        if self._teller is not None:
            begun = loads.begun if loads is not None else []
            self._teller.formed(batch, start, begun, scheduler.received, self.queue.evicted - evicted)
        if not (batch.decodes or batch.prefills):
            assert loads is not None and loads.calls, "nothing can run, and nothing is on its way"
            self._stalled, self._now = True, start
            return None
        self._stalled = False
        launch, first, slope, steps = self._cost.times(batch, ahead=self._ahead, early_ps=early)
        leap = Leap(batch, start, launch, first, slope, steps if self._leaping else 1)
        if self._arriving:
            leap = self._cut_for(leap, self._arriving[0][0])
        if loads is not None and (loaded := loads.next_ps) is not None:
            leap = leap.cut_ahead(loaded - 1) if self._ahead else leap.cut(loaded)
        return leap

    def _cut_for(self, leap: Leap, leaves: int) -> Leap:
        """End a leap so that a call leaving the front end at an instant gets into the step it may be in."""
        return leap.cut_ahead(leaves) if self._ahead else leap.cut_behind(leaves)

    def _cut(self, at_ps: int) -> None:
        """End the leap where a cancel takes effect."""
        if self._leap is not None:
            self._leap = self._leap.cut_behind(at_ps) if self._ahead else self._leap.cut(at_ps)

    def _settle(self, leap: Leap) -> None:
        """All steps of a leap are over."""
        scheduler, first_step, evicted = self.scheduler, self.scheduler.calls.step, self.queue.evicted
        now = leap.end_ps
        self._now, self._leap = now, None
        if self._teller is not None:
            self._teller.ran(leap, first_step)
        done = scheduler.done(leap.batch, leap.steps, now)
        cancelled = self._drop_cancelled() if self._cancels else ()
        if self.tiers is not None:
            scheduler.close(now)
        if self._teller is not None:
            self._teller.evicted(now, self.queue.evicted - evicted)
            for sequence in done:
                self._teller.ended(sequence, "done", now)
            for sequence in cancelled:
                self._teller.ended(sequence, "cancelled", now)
        held, last_held = 0, 0
        if self._ahead:
            self._go_on(leap)
            held, last_held = leap.launch_ps, 0 if self._leap is None else self._leap.launch_ps
        self._log.add(leap.tokens(first_step, held, last_held))
        came = now + last_held
        for sequence in done:
            self._finish(sequence, "done", came)
        for sequence in cancelled:
            self._finish(sequence, "cancelled", came)
        if self._first_token_ps and leap.batch.prefills:
            while self._firsts and self._firsts[0] <= self._told:
                self._firsts.popleft()
            self._firsts.append(came + self._first_token_ps)
        if done and self._log.full:
            self._log.forget(scheduler.oldest_step())

    def _drop_cancelled(self) -> list[Sequence]:
        """Calls that were cancelled while they ran: they are gone."""
        dropped = []
        for sequence in self._cancels:
            if sequence.state in ("running", "loading", "waiting"):
                self.scheduler.drop(sequence)
                dropped.append(sequence)
        self._cancels.clear()
        return dropped

    def _finish(self, sequence: Sequence, status: Literal["done", "cancelled"], at_ps: int) -> None:
        del self._calls[sequence.call]
        cached = sequence.cached_tokens or 0
        if not sequence.received:  # else the engine that made its prompt counts that
            self._prompts += sequence.prompt_tokens
            self._cached += cached
            self._external += sequence.external_tokens
        self._generated += sequence.generated - sequence.received
        spells, admitted = self._spells(sequence), sequence.admitted_ps
        box = self._outbox
        done_ps, tokens = box.done(spells) if status == "done" else box.cancelled(spells, at_ps)
        box.put(
            done_ps,
            Finished(
                sequence.call,
                status,
                -(-done_ps // PS),
                sequence.generated,
                cached,
                sequence.preemptions,
                tokens,
                -(-sequence.queued_ps // PS),
                None if admitted is None else -(-admitted // PS),
            ),
        )
