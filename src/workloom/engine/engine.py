"""The simulated serving engine: passive, exact, and as fast as its events.

It never waits. Calls are handed in with the instant they arrive, time is moved on by :meth:`Engine.advance`, and what
finished comes back; :meth:`Engine.next_ns` says when it is worth looking again. Internally instants are integer
picoseconds; what leaves is nanoseconds, rounded up.

Between events (arrival, completion, end of a prefill, want of blocks) all steps are alike but for a linearly growing
time, so they are taken in one leap. A leap is cut at the first step boundary after an arrival: the schedule does not
depend on when anybody looked.

    front end (serial)  ->  waiting  ->  running: step, step, step ...  ->  Finished
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Literal, NamedTuple

from workloom.engine.blocks import FreeQueue
from workloom.engine.cost import Cost, pairs
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.prefix import PrefixCache
from workloom.engine.profile import Profile
from workloom.engine.scheduler import Batch, Limits, Scheduler
from workloom.engine.sequence import Sequence
from workloom.errors import Refused
from workloom.prefix import Key

PS = 1000
"""Picoseconds in a nanosecond."""


class Steps(NamedTuple):
    """`length` consecutive steps: the first ends at `end_ps`, the i-th after it takes gap + (i-1)*slope (i from 1)."""

    first_step: int
    end_ps: int
    gap_ps: int
    slope_ps: int
    length: int

    def at(self, i: int) -> int:
        """When step i of these ends, in picoseconds."""
        return self.end_ps + i * self.gap_ps + self.slope_ps * (i * (i - 1) // 2)


class Finished(NamedTuple):
    """What became of a call. `tokens` are the instants of its answer's tokens.

    It stood in the front end until `queued_ns`, then waited until `admitted_ns` (None: it never ran).
    """

    call: str
    status: Literal["done", "cancelled"]
    done_ns: int
    output_tokens: int
    cached_tokens: int
    preemptions: int
    tokens: list[Steps]
    queued_ns: int
    admitted_ns: int | None


class Gauges(NamedTuple):
    """The state of the engine, as its metrics page shows it."""

    running: int
    waiting: int
    kv_usage: float
    preemptions: int
    queries_tokens: int
    hits_tokens: int
    prompt_tokens: int
    generated_tokens: int
    steps: int


class _Leap(NamedTuple):
    batch: Batch
    start_ps: int
    first_ps: int
    """Duration of the first step."""
    slope_ps: int
    """How much longer each following one takes."""
    steps: int

    def end(self, steps: int) -> int:
        return self.start_ps + steps * self.first_ps + self.slope_ps * (steps * (steps - 1) // 2)

    def ended_by(self, at_ps: int) -> int:
        """How many steps have ended at an instant."""
        low, high = 0, self.steps + 1
        while low + 1 < high:
            middle = (low + high) // 2
            if self.end(middle) <= at_ps:
                low = middle
            else:
                high = middle
        return low


class Engine:
    """One replica of a profile.

    A step that begins at the very instant of the last `advance` is formed once `next_ns` is asked: what came in at that
    instant still counts.

    `log_steps`: how many leaps are remembered before those that nobody can ask for are dropped.
    `leap` False takes every step on its own: the same schedule, slowly (tests compare the two).
    """

    def __init__(
        self, profile: Profile, *, prefix_cache: bool = True, leap: bool = True, log_steps: int = 8192
    ) -> None:
        self.profile = profile
        self.log_steps = log_steps
        size = profile.block_tokens
        self.queue = FreeQueue(profile.kv_blocks)
        self.cache = PrefixCache(self.queue, size, enabled=prefix_cache)
        self.scheduler = Scheduler(Limits(profile.max_num_seqs, profile.max_batched_tokens, size), self.cache)
        self._cost = Cost(profile.step)
        self._leaping = leap
        self._now = 0
        self._told = 0
        self._front_end_free = 0
        self._arriving: deque[tuple[int, Sequence]] = deque()
        self._calls: dict[str, Sequence] = {}
        self._cancels: deque[Sequence] = deque()
        self._leap: _Leap | None = None
        self._log: list[Steps] = []
        self._out: list[Finished] = []
        self._queries = self._hits = self._prompts = self._generated = 0

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
        self._cut(leaves + 1)

    def _check(self, call: str, prompt_tokens: int, output_tokens: int) -> None:
        profile = self.profile
        total = prompt_tokens + output_tokens
        if call in self._calls:
            raise ValueError(f"call {call} is already in the engine")
        if prompt_tokens < 1 or output_tokens < 1:
            raise Refused("a prompt and an answer have at least one token", where=f"call {call}")
        if total > profile.max_model_len:
            raise Refused(
                "the call is longer than the model's context",
                where=f"call {call}",
                expected=f"at most {profile.max_model_len} tokens (prompt + answer)",
                found=f"{prompt_tokens} + {output_tokens} = {total}",
            )
        if total > profile.longest_call:
            raise Refused(
                "the call is larger than the whole KV cache",
                where=f"call {call}",
                expected=f"at most {profile.longest_call} tokens",
                found=total,
            )

    def cancel(self, at_ns: int, call: str) -> None:
        """The client is gone. A running call ends at the next step boundary, one that waits at once."""
        at = at_ns * PS
        self._advance(at, before=1)
        sequence = self._calls.get(call)
        if sequence is None:
            return
        if sequence.state == "running":
            if self._leap is None:  # at a boundary
                self.scheduler.drop(sequence)
                self._finish(sequence, "cancelled", at)
            else:
                self._cancels.append(sequence)
                self._cut(at)
            return
        if sequence.state == "front end":
            sequence.state = "cancelled"  # its place in the front end stays taken
        else:
            self.scheduler.drop(sequence)
            self._cut(at)
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
        out, self._out = self._out, []
        return out

    def next_ns(self) -> int | None:
        """When something may finish next (or a step begin, if the engine stands idle); None while it is empty."""
        if self._out:
            return -(-self._told // PS)
        self._close()
        if self._leap is not None:
            return -(-self._leap.end(self._leap.steps) // PS)
        start = self._start()
        return None if start is None else -(-start // PS)

    def next_step_ns(self, after_ns: int) -> int | None:
        """The first step boundary after an instant: when the next tokens come."""
        self._close()
        if self._leap is None:
            return self.next_ns()
        ended = self._leap.ended_by(after_ns * PS)
        return -(-self._leap.end(min(ended + 1, self._leap.steps)) // PS)

    def generated(self, call: str, at_ns: int) -> int:
        """How many tokens of its answer a call has by an instant not before the last `advance`."""
        sequence = self._calls.get(call)
        if sequence is None:
            return 0
        if call not in self.scheduler.decoding:
            return sequence.generated
        ended = self._leap.ended_by(at_ns * PS) if self._leap is not None else 0
        return self.scheduler.step + sequence.lag + ended - sequence.prompt_tokens + 1

    def answer_so_far(self, call: str, at_ns: int) -> list[Steps]:
        """When the tokens that :meth:`generated` counts were made."""
        sequence = self._calls.get(call)
        if sequence is None:
            return []
        tokens = [steps for first, end in sequence.spells for steps in self._slice(first, end)]
        if call in self.scheduler.decoding:
            tokens += self._slice(sequence.since, self.scheduler.step)
            leap = self._leap
            ended = leap.ended_by(at_ns * PS) if leap is not None else 0
            if leap is not None and ended:
                gap = leap.first_ps + leap.slope_ps
                tokens.append(Steps(self.scheduler.step, leap.end(1), gap, leap.slope_ps, ended))
        return tokens

    def gauges(self) -> Gauges:
        """The engine's state for a metrics page."""
        scheduler, queue = self.scheduler, self.queue
        usage = 0.0 if queue.infinite else 1 - queue.free / queue.blocks
        prefilling = len(self._leap.batch.prefills) if self._leap is not None else scheduler.partial is not None
        return Gauges(
            len(scheduler.decoding) + prefilling,
            len(scheduler.waiting),
            usage,
            scheduler.preemptions,
            self._queries,
            self._hits,
            self._prompts,
            self._generated,
            scheduler.step,
        )

    # -- the loop: schedule, run, settle

    def _advance(self, to_ps: int, before: int = 0) -> None:
        """Form the steps that begin before an instant, settle those that end by it (or `before` it)."""
        self._told = max(self._told, to_ps)
        while True:
            if self._leap is None:
                start = self._start()
                if start is None or start >= to_ps:
                    return
                self._leap = self._schedule(start)
            leap = self._leap
            if leap.end(leap.steps) > to_ps - before:
                return
            self._settle(leap)

    def _close(self) -> None:
        """Nothing more comes in at this instant: a step that begins now may be formed."""
        if self._leap is None:
            start = self._start()
            if start is not None and start <= self._told:
                self._leap = self._schedule(start)

    def _start(self) -> int | None:
        """When the next step begins, if no step is under way."""
        if self.scheduler.running or self.scheduler.waiting:
            return self._now
        while self._arriving and self._arriving[0][1].state == "cancelled":
            self._arriving.popleft()
        return max(self._arriving[0][0], self._now) if self._arriving else None

    def _schedule(self, start: int) -> _Leap:
        scheduler = self.scheduler
        idle = not (scheduler.running or scheduler.waiting)
        while self._arriving and (self._arriving[0][0] < start or (idle and self._arriving[0][0] == start)):
            sequence = self._arriving.popleft()[1]
            if sequence.state != "cancelled":
                sequence.state = "waiting"
                scheduler.waiting.append(sequence)
        batch = scheduler.schedule()
        for sequence, _ in batch.prefills:
            if sequence.admitted_ps is None:
                sequence.admitted_ps = start
        first, slope, steps = self._durations(batch)
        leap = _Leap(batch, start, first, slope, steps if self._leaping else 1)
        if self._arriving:
            leap = self._cut_to(leap, self._arriving[0][0] + 1)
        return leap

    def _durations(self, batch: Batch) -> tuple[int, int, int]:
        """Time of the first step, growth per step, and the number of steps for which the growth is linear."""
        if not batch.prefills:
            first, slope = self._cost.decode(batch.decodes, batch.context_tokens)
            return first, slope, batch.steps
        tokens = sum(chunk for _, chunk in batch.prefills)
        total_pairs = sum(pairs(chunk, sequence.computed) for sequence, chunk in batch.prefills)
        gpu = self._cost.gpu(tokens, total_pairs, batch.decodes, batch.context_tokens)
        floor = self._cost.floor(batch.admitted)
        slope = self._cost.gpu_growth(tokens, batch.decodes)
        if gpu >= floor:
            return gpu, slope, batch.steps
        steps = min(batch.steps, -(-(floor - gpu) // slope)) if slope else batch.steps
        return floor, 0, steps

    def _cut(self, at_ps: int) -> None:
        if self._leap is not None:
            self._leap = self._cut_to(self._leap, at_ps)

    @staticmethod
    def _cut_to(leap: _Leap, at_ps: int) -> _Leap:
        """End a leap at its first step boundary at or after an instant."""
        steps = leap.ended_by(at_ps - 1) + 1
        return leap._replace(steps=steps) if steps < leap.steps else leap

    def _settle(self, leap: _Leap) -> None:
        """All steps of a leap are over."""
        scheduler = self.scheduler
        self._now = leap.end(leap.steps)
        self._log.append(Steps(scheduler.step, leap.end(1), leap.first_ps + leap.slope_ps, leap.slope_ps, leap.steps))
        for sequence in scheduler.done(leap.batch, leap.steps):
            self._finish(sequence, "done", self._now)
        while self._cancels:
            sequence = self._cancels.popleft()
            if sequence.state in ("running", "waiting"):
                scheduler.drop(sequence)
                self._finish(sequence, "cancelled", self._now)
        self._leap = None
        if len(self._log) > self.log_steps:
            self._forget()

    def _finish(self, sequence: Sequence, status: Literal["done", "cancelled"], at_ps: int) -> None:
        del self._calls[sequence.call]
        cached = sequence.cached_tokens or 0
        self._queries += sequence.prompt_tokens
        self._hits += cached
        self._prompts += sequence.prompt_tokens
        self._generated += sequence.generated
        tokens = [steps for first, end in sequence.spells for steps in self._slice(first, end)]
        admitted = sequence.admitted_ps
        self._out.append(
            Finished(
                call=sequence.call,
                status=status,
                done_ns=-(-at_ps // PS),
                output_tokens=sequence.generated,
                cached_tokens=cached,
                preemptions=sequence.preemptions,
                tokens=tokens,
                queued_ns=-(-sequence.queued_ps // PS),
                admitted_ns=None if admitted is None else -(-admitted // PS),
            )
        )

    def _slice(self, first: int, end: int) -> list[Steps]:
        """The ends of steps first..end-1."""
        log = self._log
        at = bisect_right(log, first, key=_first_step) - 1
        out = []
        while at < len(log) and log[at].first_step < end:
            steps = log[at]
            skip = max(0, first - steps.first_step)
            length = min(steps.length, end - steps.first_step) - skip
            if skip:
                steps = Steps(first, steps.at(skip), steps.gap_ps + skip * steps.slope_ps, steps.slope_ps, length)
            elif length != steps.length:
                steps = steps._replace(length=length)
            out.append(steps)
            at += 1
        return out

    def _forget(self) -> None:
        """Drop the log of steps nobody can ask for any more."""
        oldest = self.scheduler.oldest_step()
        keep = bisect_right(self._log, oldest, key=_first_step) - 1
        del self._log[: max(0, keep)]


def _first_step(steps: Steps) -> int:
    return steps.first_step
