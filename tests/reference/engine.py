"""The time of a call: front end, boundaries between steps, what is delivered when.

One boundary, in order:

    step ends -> its full blocks become findable -> finished calls free theirs -> cancelled calls free theirs
    -> calls that left the front end in time wait -> running calls are scheduled -> waiting calls are admitted

Tokens of the step that ended come at once, or with scheduling ahead when the CPU has launched the next.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable

from reference.call import Call, Finished, Step
from reference.cost import launch_ps, step_ps
from reference.pool import Pool
from reference.scheduler import Scheduler
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Profile
from workloom.errors import Refused
from workloom.prefix import Key


class ReferenceEngine:
    """One replica. Submit and cancel in any order of time from `now_ps` on, then run.

    `run_until(t)` ends every step that ends by t and begins every step that begins before t: a step beginning at t
    itself still waits for what the caller submits or cancels at t because of what ended then. `next_ps()` closes the
    present instant (a step due now begins) and says when to look again.
    """

    def __init__(self, profile: Profile, *, prefix_cache: bool = True, check: bool = True) -> None:
        self.profile = profile
        self.checking = check
        self.scheduler = Scheduler(profile, prefix_cache=prefix_cache)
        self.now_ps = 0
        self.finished: dict[Hashable, Finished] = {}
        """Ended calls, in the order in which they ended."""
        self.steps: list[Step] = []
        self._calls: dict[Hashable, Call] = {}
        self._inputs: list[tuple[int, int, Call, bool]] = []
        """Heap of (at, sequence, call, is it a cancel) that time has not reached."""
        self._sequence = 0
        self._front: deque[Call] = deque()
        self._front_free_ps = 0
        self._cancelled: list[Call] = []
        """Running calls to be dropped at the end of the step in progress."""
        self._step: Step | None = None
        self._boundary_ps = 0
        self._stalled = False
        """Whoever waits found no room at the last look: nothing happens until a load is over or a call comes."""
        self._made: list[Call] = []
        """Calls with a token of the last step that has not come yet: the launch of the next holds it back."""
        self._ended: list[tuple[Call, bool]] = []
        """Calls, and whether they were cancelled, that ended with the last step and are told of with its tokens."""
        self._leaving: list[tuple[int, int, Call, bool]] = []
        """Heap of (at, sequence, call, was it cancelled) of calls whose end is known."""

    @property
    def pool(self) -> Pool:
        return self.scheduler.pool

    @property
    def preemptions(self) -> int:
        return self.scheduler.preemptions

    @property
    def evicted_blocks(self) -> int:
        return self.pool.evicted

    # -- what goes in

    def submit(
        self, at_ps: int, id: Hashable, key: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        """A call arrives at the front end. Raises Refused for one that could never be served."""
        total, limit = key.tokens + output_tokens, self.profile.max_model_len
        if total > limit:
            raise Refused("prompt and output are longer than the model allows", expected=f"<= {limit}", found=total)
        # The last token is never fed back, so its KV is never needed.
        if not self.pool.infinite and (need := self.scheduler.most_blocks(total - 1)) > len(self.pool.blocks):
            raise Refused("larger than the KV cache", expected=f"<= {len(self.pool.blocks)} blocks", found=need)
        assert at_ps >= self.now_ps and id not in self._calls and key.tokens > 0 and output_tokens > 0
        begins = (0, *key.ends)
        tokens = [(text, i) for text, a, b in zip(key.ids, begins, key.ends, strict=False) for i in range(b - a)]
        self._calls[id] = Call(id, tokens, len(tokens), answer, output_tokens, hints)
        self._enqueue(at_ps, self._calls[id], cancel=False)

    def cancel(self, at_ps: int, id: Hashable) -> None:
        """The client of a submitted call hangs up; nothing happens if the call has ended by then."""
        assert at_ps >= self.now_ps
        self._enqueue(at_ps, self._calls[id], cancel=True)

    def _enqueue(self, at_ps: int, call: Call, *, cancel: bool) -> None:
        self._sequence += 1
        heapq.heappush(self._inputs, (at_ps, self._sequence, call, cancel))

    def _take_inputs(self, to_ps: int) -> None:
        while self._inputs and self._inputs[0][0] <= to_ps:
            self._take_input(*heapq.heappop(self._inputs))

    def _take_input(self, at_ps: int, _: int, call: Call, cancel: bool) -> None:
        if not cancel:
            # [W] Templating and tokenising: one call at a time, first come first served.
            begin_ps, cost = max(self._front_free_ps, at_ps), self.profile.front_end
            self._front_free_ps = call.exit_ps = begin_ps + cost.call_ps + cost.prompt_token_ps * call.prompt
            self._front.append(call)
        elif call in (*self.scheduler.running, *self.scheduler.loading, *self.scheduler.ahead):
            # [W] Aborts are handled between steps: the step in flight goes on, and its token still counts.
            self._cancelled.append(call)
            if self._step is None:
                self._drop_cancelled()
                self._come(at_ps)
        elif call in self._front or call in self.scheduler.waiting:
            # Nothing is held by a call that waits. What it reserved of the front end stays reserved.
            (self._front if call in self._front else self.scheduler.waiting).remove(call)
            self.scheduler.gone(call)
            self._leave(max([at_ps, *call.times[-1:]]), call, cancelled=True)

    def _drop_cancelled(self) -> None:
        for call in self._cancelled:
            if call in (*self.scheduler.running, *self.scheduler.loading, *self.scheduler.ahead):
                self.scheduler.drop(call)
                self.scheduler.gone(call)
                self._stalled = False
                self._ended.append((call, True))
        self._cancelled.clear()

    # -- time

    def run_until(self, to_ps: int) -> None:
        assert to_ps >= self.now_ps
        while True:
            if self._step is not None:
                if self._step.end_ps > to_ps:
                    break
                self._end_step(self._step)
            else:
                start_ps = self._next_start_ps(to_ps)
                if start_ps is None or start_ps >= to_ps:
                    break
                self._begin_step(start_ps)
        self._take_inputs(to_ps)
        self._tell(to_ps)
        self.now_ps = to_ps

    def _tell(self, to_ps: int) -> None:
        while self._leaving and self._leaving[0][0] <= to_ps:
            at_ps, _, call, cancelled = heapq.heappop(self._leaving)
            times = self._delivered(call, at_ps)
            first_ps = times[0] if times else None
            self.finished[call.id] = Finished(
                first_ps, times, at_ps, call.cached or 0, call.preemptions, cancelled, call.exit_ps, call.admitted_ps
            )

    def next_ps(self) -> int | None:
        """End of the step in progress, which begins if it is due now; else when something next happens; else None."""
        if self._step is None:
            start_ps = self._next_start_ps(self.now_ps)
            if start_ps is not None and start_ps <= self.now_ps:
                self._begin_step(start_ps)
        else:
            start_ps = None
        self._tell(self.now_ps)
        ends = [start_ps] if self._step is None else [self._step.end_ps]
        ends += [at_ps for at_ps, *_ in self._leaving[:1]]
        if self._step is None and self.scheduler.loading:  # an input may be served while a load is waited for
            ends += [at_ps for at_ps, *_ in self._inputs[:1]]
        return min((at_ps for at_ps in ends if at_ps is not None), default=None)

    def drain(self) -> None:
        """Run until nothing is left to do."""
        while (at_ps := self.next_ps()) is not None:
            self.run_until(at_ps)

    def _busy(self) -> bool:
        """Whether a step can be formed with who is there."""
        return bool(self.scheduler.running or (self.scheduler.waiting and not self._stalled))

    def _next_start_ps(self, to_ps: int) -> int | None:
        """When the next step begins (or, if none is known to, the next input is due), given all inputs up to `to_ps`.

        At a boundary with work the next step begins at once. Idle, it begins when a call leaves the front end or was
        loaded. Inputs at the very instant come before the step.
        """
        while True:
            starts = [call.loaded_ps for call in self.scheduler.loading]
            starts += [call.exit_ps for call in list(self._front)[:1]]
            if self._busy():
                start_ps = self._boundary_ps
            elif starts:
                start_ps = max(min(starts), self._boundary_ps)
            elif self._inputs:
                start_ps = self._inputs[0][0]
            else:
                return None
            if not self._inputs or self._inputs[0][0] > min(start_ps, to_ps):
                return start_ps
            self._take_input(*heapq.heappop(self._inputs))

    def _begin_step(self, start_ps: int, behind: Step | None = None) -> None:
        """`behind`: the step that ends here, if this one was decided while it ran."""
        if not self._busy():
            # Idle: an arrival starts the step itself, so here calls that leave at this very instant count.
            self.scheduler.join(start_ps, start_ps)
            self._leave_front_end(start_ps + 1)
        elif behind is None:
            self.scheduler.by_ps = start_ps
        step = Step(start_ps)
        self.scheduler.schedule(step)
        self._check()
        if step.n + step.B == 0:
            assert self.scheduler.loading, "a step must do something"
            self._stalled, self._boundary_ps = True, start_ps
            self._come(start_ps)
            return
        self._stalled = False
        # [W] The CPU launches one after the other: behind a step with prefill it may begin while that one runs on.
        launching_ps = start_ps if behind is None or not behind.n else behind.launched_ps
        cost, speculative = self.profile.step, self.profile.speculative
        step.launched_ps = max(start_ps, launching_ps + launch_ps(cost, step, speculative))
        step.end_ps = start_ps + step_ps(cost, step, step.launched_ps - start_ps, speculative)
        for call in self.scheduler.running:
            if call.given and call.admitted_ps is None:
                call.admitted_ps = start_ps
        # As measured: the launch of a step keeps the CPU from handing out the tokens of the one before.
        self._come(step.launched_ps)
        self.steps.append(step)
        self._step = step
        self._check()

    def _end_step(self, step: Step) -> None:
        now_ps = self._boundary_ps = step.end_ps
        ahead = self.profile.async_scheduling
        self._take_inputs(now_ps - 1 if ahead else now_ps)
        self._step = None
        self._made, complete = self.scheduler.settle(now_ps)
        self._ended += [(call, False) for call in complete]
        self._drop_cancelled()
        self.scheduler.close()
        if not ahead:
            self._come(now_ps)
            self.scheduler.join(now_ps, now_ps)
            self._leave_front_end(now_ps)
        else:
            # [W] The next step was decided as soon as this one was launched; what came in at this instant is late.
            self.scheduler.join(min(now_ps, step.launched_ps), now_ps)
            self._leave_front_end(min(now_ps, step.launched_ps))
            if self._busy():
                self._begin_step(now_ps, behind=step)
            else:
                self._come(now_ps)
        self._check()

    def _leave_front_end(self, before_ps: int) -> None:
        while self._front and self._front[0].exit_ps < before_ps:
            self._stalled = False
            self.scheduler.wait(self._front.popleft())

    # -- what comes out

    def _come(self, at_ps: int) -> None:
        """The tokens of the last step are there, and its calls that ended with it leave."""
        for call in self._made:
            call.times.append(at_ps)
        for call, cancelled in self._ended:
            end_ps = 0 if cancelled else self.profile.front_end.end_ps
            last_ps = at_ps if cancelled else self._delivered(call, None)[-1]
            self._leave(last_ps + end_ps, call, cancelled=cancelled)
        self._made, self._ended = [], []

    def _leave(self, at_ps: int, call: Call, *, cancelled: bool) -> None:
        self._sequence += 1
        heapq.heappush(self._leaving, (at_ps, self._sequence, call, cancelled))

    def _delivered(self, call: Call, end_ps: int | None) -> list[int]:
        """When its tokens reach the client: the first is late, but not behind the second or the end of the call."""
        if not call.times:
            return []
        first_ps = call.times[0] + self.profile.front_end.first_token_ps
        return [min([first_ps, *call.times[1:2], *([] if end_ps is None else [end_ps])]), *call.times[1:]]

    def _check(self) -> None:
        if self.checking:
            self.scheduler.check()
