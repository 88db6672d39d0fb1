"""An auditor of the simulated engine: from what it said it did, every figure of a run is worked out again.

It hears the engine's events (`Engine(..., listener=audit.hear)`) and knows the profile and what was submitted. From
these it derives when each step must have ended, who held how many blocks, what each admission must have found, and when
every token reached its client; `Audit.check` compares with what the engine reported. It does not decide who runs: the
reference model (tests/reference) does. Calls that wait for memory tiers have books of their own (tests/audit_loads.py).

What an admission finds is known exactly where eviction is in plain order (no states, time to live, pins or tiers,
copies kept, the newest preempted). Otherwise the longest prefix ever computed is its bound, and its value until the
first eviction or expiry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from audit_loads import Between, LoadBooks, Saved
from reference.call import Step
from reference.cost import launch_ps, step_ps

from workloom.engine.engine import PS, Engine, Finished, Gauges
from workloom.engine.events import Admitted, Ended, Event, Evicted, Preempted, Queued, Ran
from workloom.engine.hints import NO_HINTS, Hints
from workloom.engine.profile import Profile
from workloom.prefix import Key


@dataclass(eq=False)
class Audited:
    """A call as the audit sees it."""

    name: str
    prompt: Key
    answer: int
    outputs: int
    submitted_ps: int
    leaves_ps: int = 0
    queued: bool = False
    running: bool = False
    fresh: bool = False
    """Admitted, and nothing computed of it since."""
    computed: int = 0
    goal: int = 0
    made: int = 0
    came_ps: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    """Identities of its blocks, as far as anybody asked."""
    blocks: list[int] = field(default_factory=list)
    registered: int = 0
    cached: int | None = None
    fetched: int = 0
    """Of `cached`, tokens read from tiers."""
    ready: Between | None = None
    """It loads: it has a seat and blocks, and computes nothing before what it reads is there, that is then."""
    saved: Saved | None = None
    """What was kept of it when it was preempted."""
    admitted_ps: int | None = None
    """When the first step that computed anything of it began."""
    preemptions: int = 0
    ended: Ended | None = None

    @property
    def computes(self) -> bool:
        """It has blocks and waits for none."""
        return self.running and self.ready is None

    @property
    def decoding(self) -> bool:
        return self.computes and not self.fresh and self.computed >= self.goal


class Blocks:
    """Every block of a server by its number: free ones in the order in which they were let go, whatever is in them."""

    def __init__(self, blocks: int | None) -> None:
        self.total = blocks
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks or 0))
        self.refs: dict[int, int] = {}
        self.holds: dict[int, int] = {}
        self.copies: dict[int, list[int]] = {}
        self.evicted = 0

    def take(self) -> int:
        if self.total is None:
            block = len(self.refs)
        else:
            assert self.free, "a block was taken where none was free"
            block, _ = self.free.popitem(last=False)
        name = self.holds.pop(block, None)
        if name is not None:
            self.evicted += 1
            self.copies[name].remove(block)
        self.refs[block] = 1
        return block

    def use(self, block: int) -> None:
        if not self.refs[block]:
            self.free.pop(block, None)
        self.refs[block] += 1

    def let_go(self, blocks: list[int]) -> None:
        for block in reversed(blocks):
            self.refs[block] -= 1
            if not self.refs[block]:
                self.free[block] = None

    def find(self, name: int) -> int | None:
        return next(iter(self.copies.get(name, ())), None)

    def name(self, block: int, name: int) -> None:
        self.holds[block] = name
        self.copies.setdefault(name, []).append(block)


class Audit:
    """The books of one engine."""

    def __init__(self, profile: Profile, *, prefix_cache: bool = True) -> None:
        self.profile = profile
        self.prefix_cache = prefix_cache
        self.size = profile.block_tokens
        kept = profile.retention.ttl_ps is not None or profile.retention.pinned_tokens
        self.exact = not (profile.state_groups or kept or profile.tiers) and profile.cache == "vllm"
        self.exact = self.exact and profile.policy != "priority" and profile.mixing == "decode_first"
        self.blocks = Blocks(profile.kv_blocks if self.exact else None)
        self.ideal: set[int] = set()
        """Blocks that were ever computed to their end."""
        self.states: set[int] = set()
        """Blocks at whose end a step ended, ever."""
        self.calls: dict[str, Audited] = {}
        self.evicted = self.steps = self.generated = 0
        self.now_ps = self.launched_ps = 0
        """End of the last step, and when the CPU had launched it."""
        self._was_prefill = False
        self._free_ps = 0
        self._running: list[Audited] = []
        self._line: list[Audited] = []
        """Calls in the front end."""
        self._waiting: list[Audited] = []
        self._decided: list[Admitted | Preempted] = []
        """What was told of the step that is about to run."""
        self._ended_meanwhile: list[Ended] = []
        """Calls that were preempted for that step and cancelled while it ran."""
        self._made: list[tuple[Audited, int]] = []
        """Calls with so many tokens of the last step that may be held back."""
        self._loads = LoadBooks(profile)
        self._owed_milli = 0
        speculative = profile.speculative
        self._draft = 1 if speculative is None else speculative.step_tokens
        """Tokens of a step that a decoding call takes."""
        self._interned: dict[tuple[int | None, tuple[tuple[int, int, int], ...]], int] = {}

    # -- what goes in

    def submit(self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int) -> None:
        """The front end serves one call after the other."""
        audited = Audited(call, prompt, answer, output_tokens, at_ns * PS)
        front = self.profile.front_end
        begins = max(self._free_ps, audited.submitted_ps)
        self._free_ps = audited.leaves_ps = begins + front.call_ps + front.prompt_token_ps * prompt.tokens
        self.calls[call] = audited
        self._line.append(audited)

    def hear(self, event: Event) -> None:
        match event:
            case Queued():
                self._queue(event)
            case Admitted() | Preempted():
                self._decided.append(event)
            case Evicted():
                self.evicted += event.blocks
            case Ran():
                self._run(event)
            case Ended():
                self._end(event)

    def _queue(self, event: Queued) -> None:
        call = self.calls[event.call]
        assert (event.at_ps, event.prompt_tokens) == (call.leaves_ps, call.prompt.tokens), "the front end's time"
        assert event.output_tokens == call.outputs
        assert all(before.ended for before in self._line[: self._line.index(call)]), "the front end keeps the order"
        del self._line[: self._line.index(call) + 1]
        call.queued = True
        self._waiting.append(call)

    # -- a leap

    def _run(self, ran: Ran) -> None:
        self._take_earlier(ran.start_ps)
        idle = self._begins_idle(ran.start_ps)
        self._come(None if idle or not ran.prefills else ran.start_ps + ran.launch_ps)
        self._join(ran.start_ps if idle else self._decided_ps, ran)
        chunks = {call: (tokens, before) for call, tokens, before in ran.prefills}
        self._take_decisions(ran, chunks)
        ended, self._ended_meanwhile = self._ended_meanwhile, []
        for event in ended:
            self._end(event)
        prefills = [(self.calls[name], *chunk) for name, chunk in chunks.items()]
        decoding = [] if ran.paused else [call for call in self._running if call.decoding]
        self._check_limits(ran, prefills, decoding)
        self._check_accepted(ran, decoding)
        for call, _, _ in prefills:
            if call.admitted_ps is None:
                call.admitted_ps = ran.start_ps
        made = [(call, ran.tokens) for call in decoding]
        if ran.prefills and self.profile.async_scheduling:
            behind = self.launched_ps if self._was_prefill and not idle else None
            for i in range(ran.steps):
                if i:
                    self._come(self.launched_ps)
                self._check_step(ran, i, prefills, decoding, behind)
                self.now_ps = ran.start_ps + ran.first_ps * (i + 1) + ran.slope_ps * (i * (i + 1) // 2)
                behind = self.launched_ps
                self._made = list(made)
        else:
            # A maximum of lines is convex in i: on a line at both ends and next to one, it is that line.
            for i in sorted({0, 1, ran.steps - 1} & set(range(ran.steps))):
                self._check_step(ran, i, prefills, decoding, None)
            for i in range(ran.steps):
                if i:
                    self._come(None)
                self.now_ps = ran.start_ps + ran.first_ps * (i + 1) + ran.slope_ps * (i * (i + 1) // 2)
                self._made = list(made)
        self._made += [(call, 1) for call, n, before in prefills if before + ran.steps * n == call.goal]
        if not self.profile.async_scheduling:
            self._come(None)
        assert ran.first_step == self.steps, "steps are counted"
        self.steps += ran.steps * ran.tokens
        self._was_prefill = bool(ran.prefills)
        self._count(ran, prefills, decoding)

    def _check_step(
        self, ran: Ran, i: int, prefills: list[tuple[Audited, int, int]], decoding: list[Audited], behind: int | None
    ) -> None:
        """Step i of a leap by the form. `behind`: when the CPU had launched the one before, if that had prefill."""
        step = Step(ran.start_ps + ran.first_ps * i + ran.slope_ps * (i * (i - 1) // 2), B=len(decoding))
        step.admitted = [call.name for call, _, _ in prefills if call.fresh and not i]
        step.ctx = sum(call.computed + 1 + i for call in decoding)
        step.n = sum(tokens for _, tokens, _ in prefills)
        step.pairs = sum(n * (before + i * n) + n * n // 2 for _, n, before in prefills)
        takes = self._duration(step, behind)
        assert takes == ran.first_ps + i * ran.slope_ps, f"{ran}: step {i} takes {takes} by the form"

    def _duration(self, step: Step, behind: int | None) -> int:
        """By the form. `behind`: when the CPU had launched the step with prefill before this one."""
        cost, speculative = self.profile.step, self.profile.speculative
        takes = launch_ps(cost, step, speculative)
        begins = step.start_ps if behind is None else behind
        self.launched_ps = max(step.start_ps, begins + takes)
        return step_ps(cost, step, self.launched_ps - step.start_ps, speculative)

    @property
    def _decided_ps(self) -> int:
        """Who is there by then may be in the step that begins where the last one ended."""
        return min(self.launched_ps, self.now_ps) if self.profile.async_scheduling else self.now_ps

    def _begins_idle(self, start_ps: int) -> bool:
        """Whether nobody that could have been in the step decided ahead, or at the last boundary, was there."""
        until = self._decided_ps
        busy = any(self._may_compute(call, until) for call in self._running)
        assert start_ps >= self.now_ps, "steps do not overlap"
        assert start_ps == self.now_ps or not busy, "with work a step begins where the last one ended"
        waits = any(call.leaves_ps < until for call in self._waiting)
        if start_ps > self.now_ps:
            assert self.profile.tiers or not waits, "nobody waits while nothing runs"
            return True
        return not busy and not waits

    def _may_compute(self, call: Audited, by_ps: int) -> bool:
        return call.ready is None or (call.ready.end is not None and call.ready.end <= by_ps)

    def _check_limits(self, ran: Ran, prefills: list[tuple[Audited, int, int]], decoding: list[Audited]) -> None:
        profile = self.profile
        assert ran.decodes == len(decoding), "everybody decodes, or nobody"
        assert ran.context_tokens == sum(call.computed + 1 for call in decoding) or not decoding
        for call, tokens, before in prefills:
            assert call.computes and before == call.computed, "a prefill goes on where it was"
            assert 0 < tokens * ran.steps <= call.goal - before
        new = sum(tokens for _, tokens, _ in prefills)
        assert new + len(decoding) * self._draft <= profile.max_batched_tokens or not new
        assert new <= (profile.max_prefill_tokens or new)
        assert len(self._running) <= profile.max_num_seqs
        assert ran.admitted + ran.joined == sum(call.fresh for call, _, _ in prefills), "launched as new"

    def _check_accepted(self, ran: Ran, decoding: list[Audited]) -> None:
        """A step with prefill gives decoding calls what speculation has earned them so far, in whole tokens."""
        speculative = self.profile.speculative
        if speculative is None or not (ran.prefills and decoding) or speculative.acceptance_milli == 1000:
            assert ran.tokens == 1
            return
        assert ran.steps == 1
        self._owed_milli += speculative.acceptance_milli
        lacks = min(call.outputs - call.made for call in decoding)
        most = max(1, min(self._owed_milli // 1000, lacks))
        bound = self.profile.state_groups or self.profile.kv_tokens is not None
        assert 1 <= ran.tokens <= most and (bound or ran.tokens == most), "as many as are owed"
        self._owed_milli -= 1000 * ran.tokens

    # -- who runs

    def _take_earlier(self, before_ps: int) -> None:
        """Decisions at instants when nothing could run: calls were only sent to load."""
        while self._decided and self._decided[0].at_ps < before_ps:
            at_ps = self._decided[0].at_ps
            now, later = [], []
            for event in self._decided:
                (now if event.at_ps == at_ps else later).append(event)
            self._decided = later
            assert self.profile.tiers, "decisions are a step's"
            assert at_ps >= self.now_ps and not any(call.computes for call in self._running)
            self._join(at_ps, None)
            for one in now:
                assert isinstance(one, Admitted)
                self._admit(one, 0)

    def _join(self, by_ps: int, ran: Ran | None) -> None:
        """Calls whose load is over by then go on. Where that is an interval, the step that follows says who did."""
        loading = [call for call in self._running if call.ready is not None]
        if not loading:
            return
        seen = set() if ran is None else {name for name, _, _ in ran.prefills}
        back = [call for call in loading if call.saved is not None and call.saved.decoding]
        lacking = 0 if ran is None or ran.paused else ran.decodes - sum(call.decoding for call in self._running)
        goes_on = {id(call) for call in back[: max(0, lacking)]}  # a link is first come, first served
        for call in loading:
            assert call.ready is not None
            over = call.ready.end is not None and call.ready.end <= by_ps
            if over or call.name in seen or id(call) in goes_on:
                assert call.ready.begin <= by_ps, "nobody goes on before its blocks have come"
                self._go_on(call)

    def _go_on(self, call: Audited) -> None:
        saved, call.saved, call.ready = call.saved, None, None
        self._loads.give_back(saved)
        self._running.remove(call)
        self._running.append(call)
        if saved is not None:
            call.registered = 0
            self._note_blocks(call, saved.computed)
            call.fresh = not saved.decoding
            call.goal = saved.computed if saved.decoding else call.goal

    def _take_decisions(self, ran: Ran, chunks: dict[str, tuple[int, int]]) -> None:
        """In the order in which blocks change hands: preemptions, growth of who runs, admissions."""
        for event in self._decided:
            assert event.at_ps == ran.start_ps, "decisions are a step's"
            if isinstance(event, Preempted):
                self._preempt(event)
        for call in self._running:
            if call.computes:
                self._grow(call, call.computed + (1 if call.decoding else chunks.get(call.name, (0, 0))[0]))
        for event in self._decided:
            if isinstance(event, Admitted):
                self._admit(event, chunks.get(event.call, (0, 0))[0])
        self._decided = []

    def _preempt(self, event: Preempted) -> None:
        call = self.calls[event.call]
        assert call.running
        if call.ready is None and self.profile.preemption == "swap":
            call.saved = self._loads.save(event.at_ps, call.computed, decoding=call.decoding)
        elif call.saved is None and event.saved_tokens:  # its load was over: it joined in this very step
            call.saved = self._loads.save(event.at_ps, call.computed, decoding=False)
        kept = 0 if call.saved is None else call.saved.computed
        assert event.saved_tokens == kept, "what can be saved is"
        self._let_go(call)
        call.preemptions += 1
        self._waiting.append(call)

    def _admit(self, event: Admitted, tokens: int) -> None:
        """`tokens`: of its first chunk; none if it has to load first."""
        call = self.calls[event.call]
        assert call.queued and not call.running and call.ended is None
        if self.profile.policy == "fcfs" and not call.preemptions and not self.profile.tiers:
            first = next(waiting for waiting in self._waiting if not waiting.preemptions)
            assert call is first, "first come, first served"
        self._waiting.remove(call)
        call.running = call.fresh = True
        self._running.append(call)
        call.goal = call.prompt.tokens + call.made
        fetched = sum(count for _, count in event.fetched)
        if call.saved is not None:
            assert event.cached_tokens == call.saved.computed and not fetched, "it has what it had, of no other tier"
        else:
            self._check_hit(call, event)
        call.computed = event.cached_tokens
        if call.cached is None:
            call.cached, call.fetched = event.cached_tokens, fetched
        if not tokens:
            self._load(event, call)
        elif fetched:
            assert any(tier.prefetch for tier in self.profile.tiers), "what is read takes its time"
        call.registered = event.cached_tokens // self.size
        if self.exact:
            found = [self.blocks.find(self._name(call, index)) for index in range(call.registered)]
            call.blocks = [block for block in found if block is not None]
            for block in call.blocks:
                self.blocks.use(block)
        self._grow(call, call.computed + tokens)

    def _check_hit(self, call: Audited, event: Admitted) -> None:
        known = self._known(call)
        assert sum(count for _, count in event.fetched) <= event.cached_tokens
        assert event.cached_tokens <= known * self.size, "no more can be found than was ever computed"
        if self.exact:
            assert event.cached_tokens == known * self.size, "what is there is found"
        elif not (self.evicted or self.profile.retention.ttl_ps):
            assert event.cached_tokens == known * self.size, "nothing is lost without eviction or expiry"
            assert not event.fetched, "what is on the GPU is not read"

    def _load(self, event: Admitted, call: Audited) -> None:
        assert self.profile.tiers, "who is admitted computes"
        if call.saved is None:
            assert event.fetched or (self.profile.state_groups and event.cached_tokens), "it waits for something"
            call.ready = self._loads.asked(event.at_ps, event.fetched)
        else:
            call.ready = self._loads.read_back(event.at_ps, call.saved, self._known(call))

    def _known(self, call: Audited) -> int:
        """Blocks of a call that can be found: now, where that is known exactly, else that ever could be."""
        longest = 0
        for index in range((call.goal - 1) // self.size if self.prefix_cache else 0):
            name = self._name(call, index)
            if (self.blocks.find(name) is None) if self.exact else name not in self.ideal:
                break
            if not self.profile.state_groups or name in self.states:
                longest = index + 1
        return longest

    def _grow(self, call: Audited, tokens: int) -> None:
        if self.exact:
            call.blocks += [self.blocks.take() for _ in range(-(-tokens // self.size) - len(call.blocks))]

    def _count(self, ran: Ran, prefills: list[tuple[Audited, int, int]], decoding: list[Audited]) -> None:
        """All steps of a leap are over."""
        counted = ran.steps * ran.tokens
        for call in decoding:
            self._compute(call, call.computed + counted, edges=ran.tokens == 1)
            call.made += counted
        for call, tokens, before in prefills:
            call.fresh = False
            for i in range(ran.steps):
                self._compute(call, before + (i + 1) * tokens, edges=False)
            if call.computed == call.goal:
                call.made += 1
        self.generated += counted * len(decoding) + sum(call.computed == call.goal for call, _, _ in prefills)
        if self.exact and self.blocks.total is not None:
            used = {block for call in self._running for block in call.blocks}
            assert not used & self.blocks.free.keys() and len(used) + len(self.blocks.free) == self.blocks.total
            held = sum(-(-call.computed // self.size) for call in self._running)
            assert sum(len(call.blocks) for call in self._running) == held, "no more is held than is needed"

    def _compute(self, call: Audited, tokens: int, *, edges: bool) -> None:
        """It has so many tokens computed; `edges`: a step ended after every one of them."""
        self._grow(call, tokens)
        before, call.computed = call.computed, tokens
        assert tokens > before
        self._note_blocks(call, tokens, edges=edges)

    def _note_blocks(self, call: Audited, tokens: int, *, edges: bool = False) -> None:
        """Its full blocks among so many tokens can be found."""
        if not self.prefix_cache:
            return
        for index in range(call.registered, tokens // self.size):
            name = self._name(call, index)
            self.ideal.add(name)
            if edges or tokens == (index + 1) * self.size:
                self.states.add(name)
            if self.exact:
                self.blocks.name(call.blocks[index], name)
        call.registered = max(call.registered, tokens // self.size)

    def _come(self, at_ps: int | None) -> None:
        """The tokens of the last step come: at its end, or when the launch of the next one is over."""
        for call, tokens in self._made:
            came_ps = self.now_ps if at_ps is None or not self.profile.async_scheduling else at_ps
            call.came_ps += [came_ps] * tokens
        self._made = []

    # -- the end

    def _end(self, event: Ended) -> None:
        call = self.calls[event.call]
        decided = [type(each) for each in self._decided if each.call == call.name]
        if Preempted in decided:  # for the step under way, of which is told when it is over
            self._ended_meanwhile.append(event)
            return
        if Admitted in decided:
            self._take_earlier(event.at_ps + 1)
        assert call.ended is None, "a call ends once"
        assert event.output_tokens == call.made
        call.ended = event
        if call.running:
            at_once = call.ready is not None and event.at_ps > self.now_ps
            assert event.at_ps == self.now_ps or at_once, "a call that ran ends where a step does"
            self._let_go(call)
        elif call in self._waiting:
            self._waiting.remove(call)
        self._loads.give_back(call.saved)
        call.saved = None

    def _let_go(self, call: Audited) -> None:
        call.running = call.fresh = False
        call.ready = None
        self._running.remove(call)
        self.blocks.let_go(call.blocks)
        call.blocks, call.registered, call.computed = [], 0, 0

    def check(self, finished: list[Finished], gauges: Gauges) -> None:
        """Compare with what the engine reported. It must be empty."""
        self._come(None)
        assert sorted(end.call for end in finished) == sorted(self.calls), "every call ends in exactly one outcome"
        assert not self._running and not self._waiting
        for end in finished:
            self._check_call(end, self.calls[end.call])
        calls = self.calls.values()
        assert gauges.running == gauges.waiting == 0
        assert gauges.steps == self.steps
        assert gauges.preemptions == sum(call.preemptions for call in calls)
        assert gauges.prompt_tokens == sum(call.prompt.tokens for call in calls)
        assert gauges.hits_tokens == sum(call.cached or 0 for call in calls)
        assert gauges.generated_tokens == sum(call.made for call in calls), "tokens in = tokens out"
        if self.profile.tiers:
            hit = [call for call in calls if call.cached is not None]
            assert gauges.external_hits_tokens == sum(call.fetched for call in hit)
            lacked = sum(call.prompt.tokens - (call.cached or 0) + call.fetched for call in hit)
            assert gauges.external_queries_tokens == lacked
            if not self._loads.guessed and not self.profile.state_groups:
                assert gauges.read_bytes == self._loads.read_pages * self._loads.page_bytes
            assert not self._loads.lent
        if self.exact:
            assert self.evicted == self.blocks.evicted

    def _check_call(self, end: Finished, call: Audited) -> None:
        assert call.ended is not None and call.ended.status == end.status
        assert end.status == "cancelled" or call.made == call.outputs
        assert (end.output_tokens, end.cached_tokens, end.preemptions) == (
            call.made,
            call.cached or 0,
            call.preemptions,
        )
        assert end.queued_ns == ns(call.leaves_ps)
        assert end.admitted_ns == (None if call.admitted_ps is None else ns(call.admitted_ps))
        times = [steps.at(i) for steps in end.tokens for i in range(steps.length)]
        came = list(call.came_ps)
        assert times[1:] == came[1:] and len(times) == len(came)
        if end.status == "done":
            first = came[0] + self.profile.front_end.first_token_ps
            assert times[0] == min([first, *came[1:2]])
            assert end.done_ns == ns(times[-1] + self.profile.front_end.end_ps)
        elif came:
            assert came[0] <= times[0] <= end.done_ns * PS and came[-1] <= end.done_ns * PS

    # -- identities of blocks

    def _name(self, call: Audited, index: int) -> int:
        """A number for a call's first `index` + 1 blocks of tokens: the same for the same tokens, and only for them."""
        while len(call.names) <= index:
            begin = len(call.names) * self.size
            content = tuple(self._texts(call, begin, begin + self.size))
            key = (call.names[-1] if call.names else None, content)
            call.names.append(self._interned.setdefault(key, len(self._interned)))
        return call.names[index]

    def _texts(self, call: Audited, begin: int, end: int) -> list[tuple[int, int, int]]:
        """What stands at tokens begin..end-1: (text, from, to) each."""
        out, at = [], 0
        for text, upto in zip((*call.prompt.ids, call.answer), (*call.prompt.ends, 1 << 60), strict=True):
            if upto > begin and at < end:
                out.append((text, max(begin - at, 0), min(end, upto) - at))
            at = upto
        return out


class AuditedEngine(Engine):
    """An engine whose books are kept. `settle` checks them when all is over."""

    def __init__(self, profile: Profile, *, prefix_cache: bool = True, leap: bool = True) -> None:
        self.audit = Audit(profile, prefix_cache=prefix_cache)
        self.finished: list[Finished] = []
        self.told: list[Event] = []
        super().__init__(profile, prefix_cache=prefix_cache, leap=leap, listener=self._hear)

    def _hear(self, event: Event) -> None:
        self.told.append(event)
        self.audit.hear(event)

    def submit(
        self, at_ns: int, call: str, prompt: Key, answer: int, output_tokens: int, hints: Hints = NO_HINTS
    ) -> None:
        self.audit.submit(at_ns, call, prompt, answer, output_tokens)
        super().submit(at_ns, call, prompt, answer, output_tokens, hints)

    def advance(self, to_ns: int) -> list[Finished]:
        ends = super().advance(to_ns)
        self.finished += ends
        return ends

    def settle(self) -> None:
        self.audit.check(self.finished, self.gauges()[""])


def ns(at_ps: int) -> int:
    """Picoseconds as the nanosecond they are told at."""
    return -(-at_ps // PS)
