"""Who runs in a step, and which blocks that takes. Rules and their sources: see the package."""

from __future__ import annotations

from collections import Counter

from reference.call import Call, Saved, Step
from reference.holdings import Holdings
from workloom.engine.profile import Profile


class Scheduler(Holdings):
    """Waiting and running calls, and the blocks they hold."""

    def __init__(self, profile: Profile, *, prefix_cache: bool) -> None:
        super().__init__(profile, prefix_cache=prefix_cache)
        self.by_ps = 0
        """Loads that end by then are over for the step in formation."""
        self._newcomers: list[Call] = []
        """Calls that began to wait and were not looked at for a prefetch."""
        self._short: int | None = None
        """How often blocks had been freed when a prefetch found none."""
        self._owed_milli = 0
        """Thousandths of tokens that speculation has earned each decoding call in steps with prefill."""
        self._draft = 1 if profile.speculative is None else profile.speculative.step_tokens
        self.loads_ever = self.preemptions = 0
        self._arrivals = 0
        self._refused: tuple[Call, int] | None = None
        """The waiting call that found no room, and how often blocks had been freed by then."""

    # -- a step

    def wait(self, call: Call) -> None:
        """A call has left the front end."""
        self._arrivals += 1
        call.arrival = self._arrivals
        self.waiting.append(call)
        self._newcomers.append(call)

    def schedule(self, step: Step) -> None:
        """Form a step: give tokens and blocks to running calls, then to waiting ones."""
        self.pool.now_ps = step.start_ps
        for call in self.running:
            # [M] The state that a step began from is let go a step later.
            self._let_go(call.spent)
            call.spent = []
        if self.profile.mixing == "decode_first":
            self._mixed(step, self.running)
        elif not self._prefill_only(step):
            decoding = [call for call in self.running if not call.prefilling]
            self._mixed(step, decoding or self.running, admit=not decoding)
            if not any(call.given for call in self.running) and not self._prefill_only(step):  # all were preempted
                self._mixed(step, self.running)
        for call in self.running:
            if call.given and call.prefilling:
                step.n += call.given
                step.pairs += call.given * call.computed + call.given * call.given // 2
            elif call.given:
                step.B += 1
                step.ctx += call.computed + 1
        if step.n and step.B:
            self._accept()
        self._prefetch()
        self.close()

    def settle(self, at_ps: int) -> tuple[list[Call], list[Call]]:
        """A step is over: (calls that got a token, those of them that are complete now)."""
        self.pool.now_ps = at_ps
        got = []
        for call in self.running:
            call.table += [self.pool.pop() for _ in range(self._blocks(call.computed + call.given) - len(call.table))]
        for call in self.running:
            full_before = call.computed // self.block
            call.computed += call.given
            # [S] Whoever has computed all its tokens gets the next one, after prefill and decoding alike.
            if call.given and call.computed >= len(call.tokens):
                for _ in range(call.computed - len(call.tokens) + 1):
                    call.tokens.append((call.answer, call.made))
                    call.made += 1
                    got.append(call)
            self._register(call, full_before)
            call.given = call.taken = 0
        complete = [call for call in self.running if call.made == call.outputs]
        for call in complete:
            assert call.computed == call.prompt + call.outputs - 1
            self.drop(call)
        return got, complete

    def close(self) -> None:
        """All that happens at an instant has happened: tiers get what there is for them."""
        evicted, self.pool.gone = self.pool.gone, []
        self.tiers.hand_over(self.pool.now_ps, evicted)

    # -- running calls

    def _mixed(self, step: Step, calls: list[Call], *, admit: bool = True) -> None:
        """[W] Decoding calls have a token each, prefills what is left: the running in order, then who waits."""
        for call in list(calls):
            if call in self.running:
                self._serve(call, step)
        if admit and not step.preempted:  # [S] no admissions in a step that had to preempt
            self._admit_waiting(step)

    def _prefill_only(self, step: Step) -> bool:
        """[W] prefill_first: whoever can prefill does, and nobody decodes meanwhile. False: there is nobody."""
        for call in [call for call in self.running if call.prefilling]:
            new = self._chunk(call, call.computed, decoding=0)
            if new and not self.pool.has(self._lacking(call, call.computed + new)):
                break
            self._give(call, new, step)
        else:
            if not step.preempted:
                self._admit_waiting(step, decoding=0)
        return any(call.given for call in self.running)

    def _serve(self, call: Call, step: Step) -> None:
        """Its tokens and blocks of this step; who is to give way for it loses what it has."""
        while call in self.running:
            new = self._chunk(call, call.computed)
            if self.pool.has(self._lacking(call, call.computed + new) if new else 0):
                self._give(call, new, step)
                return
            if self._take_back():
                continue
            if self.loading:
                self._preempt(self.loading[-1], step)
            elif not (self.running == [call] and self.pins.let_go_oldest()):
                self._preempt(self._victim(), step)

    def _chunk(self, call: Call, computed: int, decoding: int | None = None) -> int:
        """How many tokens a call computes next.

        [M] With states a prefill stops at the last whole block it will have, before that only at whole blocks.
        """
        left = len(call.tokens) - computed
        if call in self.running and not call.prefilling:
            return 1
        new = min(left, self._budget(decoding))
        last = len(call.tokens) // self.block * self.block
        if self.groups and computed + new < last:
            new = new // self.block * self.block
        elif self.groups and computed < last:
            new = last - computed
        return new

    def _budget(self, decoding: int | None) -> int:
        """Prefill tokens that are left of the step, with so many decoding calls (None: those there are)."""
        if decoding is None:
            decoding = sum(not other.prefilling for other in self.running)
        given = sum(other.given for other in self.running if other.prefilling)
        budget = self.profile.max_batched_tokens - decoding * self._draft - given
        if self.profile.max_prefill_tokens is not None:
            budget = min(budget, self.profile.max_prefill_tokens - given)
        return max(0, budget)

    def _victim(self) -> Call:
        """[S] The newest running call makes room; under priorities the least urgent, of these the last to arrive."""
        if self.profile.policy == "priority":
            return max(self.running, key=lambda call: (call.hints.priority, call.arrival))
        return self.running[-1]

    def _preempt(self, call: Call, step: Step) -> None:
        """[S] By recomputation: it loses everything but its tokens, and is the next to be admitted."""
        if call.taken:
            self.pool.release(call.table[-call.taken :])
            del call.table[-call.taken :]
        if call.spent:
            self.pool.release(call.pages)
            call.pages, call.spent = call.spent, []
        if call not in self.loading:
            self._save(call)
        self.drop(call)
        if call.id in step.admitted:  # it had joined, and its first tokens were of this step
            step.admitted.remove(call.id)
        call.computed = call.given = call.taken = 0
        call.preemptions += 1
        self.preemptions += 1
        call.preempted_as = self.preemptions
        step.preempted.append(call.id)
        self.waiting.append(call)
        self._newcomers.insert(0, call)

    def _accept(self) -> None:
        """[W] A step with prefill gives each decoding call as many whole tokens as are owed, and can be given."""
        speculative = self.profile.speculative
        if speculative is None or speculative.acceptance_milli == 1000:
            return
        decoding = [call for call in self.running if call.given and not call.prefilling]
        self._owed_milli += speculative.acceptance_milli
        most = min(self._owed_milli // 1000, *(call.outputs - call.made for call in decoding))
        if self.groups:
            most = min(most, *(-call.computed % self.block or 1 for call in decoding))
        while most > 1 and not self.pool.has(self._more(decoding, most)):
            most -= 1
        for call in decoding:
            call.given = max(1, most)
        self._owed_milli -= 1000 * max(1, most)

    def _more(self, decoding: list[Call], tokens: int) -> int:
        """Blocks that so many tokens of each need, beside those they hold."""
        return sum(self._blocks(call.computed + tokens) - len(call.table) for call in decoding)

    # -- waiting calls

    def _head(self) -> Call:
        """Who is next, by the profile's policy."""
        return min(self.waiting, key=self._rank)

    def _rank(self, call: Call) -> tuple[float, ...]:
        if self.profile.policy == "priority":
            return (call.hints.priority, call.arrival)
        if call.preempted_as:
            return (0, -call.preempted_as)
        if self.profile.policy == "sjf":
            return (1, call.prompt + (call.hints.expected_output_tokens or 0), call.arrival)
        return (1, call.arrival)

    def _admit_waiting(self, step: Step, decoding: int | None = None) -> None:
        """[S] A head that does not fit holds up everything behind it."""
        while self.waiting and len(self.running) + len(self.loading) < self.profile.max_num_seqs:
            call = self._head()
            if self._refused == (call, self.pool.freed):
                return  # [W] not tried again before a block is freed; vLLM would, and so could never be leapt over
            self._refused = None
            if call.saved is not None:
                if not self._budget(decoding) or not self._read_back(call, call.saved, step.start_ps):
                    return
                continue
            if call in self.ahead:
                if not self._admit_fetched(call, step, decoding):
                    return
                continue
            if self._state_to_come(call):
                return  # [M] a state that this step makes can be used from the next one on
            kv, state, reads = self._search(call)
            hit = (len(kv) + sum(kind == "kv" for _, (kind, _) in reads)) * self.block
            new = self._chunk(call, hit, decoding)
            if new == 0:
                return
            read_state = any(kind == "state" for _, (kind, _) in reads)
            lacking = self._blocks(hit + new) - len(kv) + self.groups * (1 + read_state)
            # [K] Hits that nobody uses stand in the free queue: using them takes as many out of it.
            lacking += sum(block.refs == 0 for block in (*kv, *state))
            others = self.running or self.loading
            if not self.pool.has(lacking + (self.profile.watermark_blocks if others else 0)):
                if self._take_back() or (not others and self.pins.let_go_oldest()):
                    continue
                self._refused = (call, self.pool.freed)
                return
            self.waiting.remove(call)
            self._take(call, kv, state, reads)
            if call.cached is None:
                call.cached = call.computed
            if reads:
                self.loads_ever += 1
                self.loading.append(call)
                continue
            self.running.append(call)
            self._give(call, new, step)
            step.admitted.append(call.id)

    def _admit_fetched(self, call: Call, step: Step, decoding: int | None) -> bool:
        """[W] The head has the blocks of its hit already: it goes on, or loads on. False: it cannot yet."""
        new = self._chunk(call, call.computed, decoding)
        if new == 0:
            return False
        others = bool(self.running or self.loading)
        lacking = self._lacking(call, call.computed + new) + (self.profile.watermark_blocks if others else 0)
        while not self.pool.has(lacking):
            if not self._take_back(but=call) and (others or not self.pins.let_go_oldest()):
                self._refused = (call, self.pool.freed)
                return False
        self.waiting.remove(call)
        self.ahead.remove(call)
        if call.cached is None:
            call.cached = call.computed
        self.loads_ever += 1
        if call.loaded_ps > self.by_ps:
            self.loading.append(call)
            return True
        self.running.append(call)
        self._loaded(call)
        self._give(call, new, step)
        step.admitted.append(call.id)
        return True

    def _prefetch(self) -> None:
        """[W] Whoever began to wait has its blocks fetched now, if there is room for all of its hit."""
        if self._short == self.pool.freed or not any(tier.prefetch for tier in self.tiers.tiers):
            return
        self._short = None
        while self._newcomers:
            call = self._newcomers[0]
            if call in self.waiting and call not in self.ahead and call.saved is None:
                kv, state, reads = self._search(call)
                if any(tier.prefetch for tier, _ in reads):
                    decoding = [other for other in self.running if other.given and not other.prefilling]
                    lacking = sum(self.groups if kind == "state" else 1 for _, (kind, _) in reads)
                    lacking += sum(block.refs == 0 for block in (*kv, *state))
                    lacking += sum(max(0, self._more([other], other.given)) for other in decoding)
                    if not self.pool.has(lacking):
                        self._short = self.pool.freed
                        return
                    self._take(call, kv, state, reads)
                    self.ahead.append(call)
            self._newcomers.pop(0)

    def _take_back(self, but: Call | None = None) -> bool:
        """What was fetched last for a call that waits is given up. False: there is nothing."""
        fetched = [call for call in self.ahead if call is not but]
        if fetched:
            self.waiting.remove(fetched[-1])
            self.drop(fetched[-1])
            fetched[-1].computed = 0
            self.waiting.append(fetched[-1])
        return bool(fetched)

    def _read_back(self, call: Call, saved: Saved, at_ps: int) -> bool:
        """A swapped call on its turn: blocks for all it had, and what the GPU has not is read. False: no room."""
        kv, _ = self.lookup(call, len(call.tokens) - 1)
        if self.groups or len(kv) * self.block > saved.computed:
            kv = []
        others = bool(self.running or self.loading)
        below = saved.pages - len(kv)
        lacking = below + sum(block.refs == 0 for block in kv) + (self.profile.watermark_blocks if others else 0)
        if not self.pool.has(lacking):
            if self._take_back() or (not others and self.pins.let_go_oldest()):
                return self._read_back(call, saved, at_ps)
            self._refused = (call, self.pool.freed)
            return False
        self.waiting.remove(call)
        for block in kv:
            self.pool.touch(block)
        own = [self.pool.pop() for _ in range(below)]
        call.table, call.pages = [*kv, *own[: below - self.groups]], own[below - self.groups :]
        call.computed, call.told = saved.computed, len(kv)
        self.loads_ever += 1
        self.loading.append(call)
        tier = self.tiers.tiers[0]
        call.loaded_ps = tier.reading.transfer(max(at_ps, saved.ready_ps), below * tier.page_bytes)
        return True

    def join(self, by_ps: int, at_ps: int) -> None:
        """Loads that are over by then: what was read can be found, and the call goes on."""
        self.pool.now_ps, self.by_ps = at_ps, by_ps
        over = [call for call in self.loading if call.loaded_ps <= by_ps]
        for call in over:
            self.loading.remove(call)
            self.running.append(call)
            if call.saved is not None:
                self._go_on(call, call.saved)
                continue
            call.joined = True
            self._loaded(call)

    def _state_to_come(self, call: Call) -> bool:
        """Whether a prefill of this very step ends where this call, computed a step later, could begin from."""
        if not (self.groups and self.prefix_cache):
            return False
        hit = len(self.lookup(call, len(call.tokens) - 1)[0])
        for other in self.running:
            end = other.computed + other.given
            if other.prefilling and other.given and end % self.block == 0 and hit * self.block < end < len(call.tokens):
                last = end // self.block - 1
                if self.name(other, last) == self.name(call, last):
                    return True
        return False

    def _give(self, call: Call, new: int, step: Step) -> None:
        """So many tokens of this step, and the blocks they need."""
        if not new:
            return
        if call.joined:
            step.admitted.append(call.id)
        if self._crosses(call, call.computed + new):
            call.spent, call.pages = call.pages, [self.pool.pop() for _ in range(self.groups)]
        call.taken = self._blocks(call.computed + new) - len(call.table)
        call.table += [self.pool.pop() for _ in range(call.taken)]
        call.given = new
        call.joined = False

    def check(self) -> None:
        """What must hold after every step and every schedule."""
        held = Counter(block for call in self.running for block in (*call.table, *call.pages, *call.spent))
        held.update(block for call in (*self.loading, *self.ahead) for block in (*call.table, *call.pages))
        held.update(self.pins.blocks())
        self.pool.check(held)
        for call in self.running:
            new = call.given if call.prefilling else min(call.given, 1)  # what speculation gives more is taken later
            assert len(call.table) == self._blocks(call.computed + new), "a call holds what it needs, no more"
            assert len(call.pages) == self.groups and len(call.spent) in (0, self.groups)
        bare = [call for call in self.waiting if call not in self.ahead]
        assert all(not (call.table or call.pages or call.spent) for call in bare), "who waits holds nothing"
        assert len(self.running) + len(self.loading) <= self.profile.max_num_seqs
