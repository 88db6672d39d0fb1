"""One live session of a run: which calls wait for what, which are in flight, and what became of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from workloom.clock import Timer, to_ns
from workloom.drive.backend import Request, Sent, UnderWay
from workloom.drive.ideal import Ideal
from workloom.errors import BackendError
from workloom.plan import Instance
from workloom.plan.start import Opening
from workloom.prompt import Prompt, Prompts
from workloom.records import CallRecord, Dependency, Outcome, Phase, SessionRecord
from workloom.session import Call, children, prompt_tokens

if TYPE_CHECKING:
    from workloom.drive.driver import _Drive


class Flight(Struct, eq=False):
    """A call in flight: its record so far, and who is to hear of it when it is whole."""

    tree: Tree
    call: Call
    prompt: Prompt
    record: CallRecord
    started_ns: int
    then: Callable[[Flight], None]
    timed_out: bool = False
    under_way: UnderWay | None = None

    def time_out(self) -> None:
        """The total time of the call is over."""
        self.timed_out = True
        self.cancel()

    def cancel(self) -> None:
        if self.under_way is not None:
            self.under_way.cancel()

    def ended(self, end: Outcome | BaseException) -> None:
        """The backend is done with it."""
        self.tree.landed(self, end)


class Tree:
    """One live session: which calls wait for what, which are in flight, and what became of the others.

    `on_end` is called, on a turn of the loop of its own, once it has drained or the run is over.
    """

    def __init__(self, drive: _Drive, instance: Instance, on_end: Callable[[], None] | None = None) -> None:
        self.drive, self.instance = drive, instance
        session = instance.session
        self.due_ns = self.start_ns = drive.clock.now()
        recipe = drive.plan.recipe
        self.prompts = Prompts(session, instance.k, recipe.isolation, recipe.share_scaffold)
        self.ideal = Ideal(drive.leads)
        self.children = children(session)
        self.missing: dict[str, int] = {}
        """Calls each still waits for; -1 once it is launched, or will never be."""
        self.due: dict[str, int] = {}
        """When each is due as far as the calls that are done say."""
        self.ordinals: dict[str, int] = {}
        for i, call in enumerate(session.calls):
            self.ordinals[call.id] = i
            self.missing[call.id] = len(call.after)
        self.left = len(session.calls)
        self.before: set[str] = set()
        """Calls that were over before the session's part of the run began."""
        self.prefill: frozenset[str] = frozenset()
        self._rest_ns: dict[str, int] = {}
        """What is left to wait, from the beginning, for what was over before."""
        self.ok = 0
        self.failed = False
        self.fault: str | None = None
        """What the first call that failed said."""
        self.censored = False
        self.closed = False
        self.last_ns = 0
        """When the last call ended that has."""
        self.planned = prompt_tokens(session)
        self.flights: dict[Flight, None] = {}
        self.timers: dict[str, tuple[int, Timer]] = {}
        self.on_end = on_end

    # -- how it begins

    def open(self, opening: Opening) -> None:
        """Begin in the middle: some calls are over, their answers as long as planned."""
        self.prefill = frozenset(opening.prefill)
        for call in self.instance.session.calls:
            if call.id in opening.before:
                self._pass_over(call)
                self._answer_as_planned(call, self.prompts.make(call))
        for name, seconds in opening.rest_s.items():
            self._rest_ns[name] = to_ns(seconds / self.drive.waits.time_scale)

    def _pass_over(self, call: Call) -> None:
        self.before.add(call.id)
        self.missing[call.id] = -1
        self.left -= 1
        for child in self.children[call.id]:
            self.missing[child.id] -= sum(edge.call == call.id for edge in child.after)

    def begin(self, due_ns: int) -> None:
        """The session's part of the run begins: what waits for nothing more becomes due."""
        self.due_ns, self.start_ns = due_ns, self.drive.clock.now()
        for name, rest in self._rest_ns.items():
            if self.missing[name] >= 0:
                self.due[name] = max(self.due.get(name, 0), due_ns + rest)
        for call in self.instance.session.calls:
            if self.missing[call.id] == 0:
                self.missing[call.id] = -1
                self._at(call, self.due.get(call.id, due_ns))
        self.drive.idle.rests(self)
        self._maybe_end()

    async def warm(self, call: Call, *, advance: bool) -> bool:
        """Send a call of one output token in the warm-up; `advance`: it is over then. False when one of the root agent
        failed: the session ends with it."""
        prompt = self.prompts.made.get(call.id) or self.prompts.make(call)
        done: asyncio.Future[Flight] = asyncio.get_running_loop().create_future()
        flight = self._send(call, prompt, self.drive.clock.now(), "warmup", done.set_result)
        cancelled = False
        while not done.done():
            try:
                await asyncio.wait((done,))
            except asyncio.CancelledError:
                cancelled = True
                flight.cancel()
        record = flight.record
        self.drive.sink.call(record)
        if cancelled or record.status == "censored":
            raise asyncio.CancelledError
        if record.status != "ok" and call.agent == self.instance.session.calls[0].agent:
            self.fault, self.failed = (record.error or record.status).partition("\n")[0], True
            for other in self.instance.session.calls:
                if self.missing[other.id] >= 0 and other is not call:
                    self.drive.sink.call(self._never_sent(other, call.id, record))
            return False
        self._answer_as_planned(call, prompt)  # of a subagent too whose prefill failed: its context is cold then
        if advance:
            self._pass_over(call)
            for child in self.children[call.id]:
                waits = [self.drive.waits.wait_ns(edge.wait_s) for edge in child.after if edge.call == call.id]
                self._rest_ns[child.id] = max(self._rest_ns.get(child.id, 0), *waits)
        return True

    def _answer_as_planned(self, call: Call, prompt: Prompt) -> None:
        """No answer of the server is to be repeated: words of our own stand for it, or the recorded ones."""
        prompt.answer_tokens, prompt.answer_text, prompt.answer_text_tokens = call.answer_tokens, None, None
        if self.drive.options.history == "text" and call.recorded is not None:
            prompt.answer_text = call.recorded.answer

    # -- timers

    def _at(self, call: Call, due_ns: int) -> None:
        """The call is due at an instant."""
        if self.closed:
            self.censored = True
        elif due_ns <= self.drive.clock.now():
            self._launch(call, due_ns)
        else:
            self.timers[call.id] = due_ns, self.drive.clock.call_at(due_ns, self._launch, call, due_ns)

    @property
    def next_due_ns(self) -> int | None:
        """When the next call that only waits is due."""
        return min((due_ns for due_ns, _ in self.timers.values()), default=None)

    def move_up(self, cap_ns: int) -> int:
        """Let the next call be due at most so long from now; by how much all of them moved."""
        first = self.next_due_ns
        excess = 0 if first is None else max(0, first - self.drive.clock.now() - cap_ns)
        if excess:
            self.shift(excess)
        return excess

    def shift(self, by_ns: int) -> None:
        """Everything that is due later is due so much earlier."""
        by_id = {call.id: call for call in self.instance.session.calls}
        for name, (due_ns, timer) in list(self.timers.items()):
            timer.cancel()
            earlier = due_ns - by_ns
            self.timers[name] = earlier, self.drive.clock.call_at(earlier, self._launch, by_id[name], earlier)
        for name, due_ns in self.due.items():
            if self.missing[name] > 0:
                self.due[name] = due_ns - by_ns

    # -- calls

    def _launch(self, call: Call, due_ns: int) -> None:
        self.timers.pop(call.id, None)
        drive = self.drive
        if not drive.may_start():
            self.censored = True
            self.close()
            return
        drive.due_in_window += drive.in_window(due_ns)
        drive.idle.launched()
        try:
            self._send(call, self.prompts.make(call), due_ns, "run", self._settled)
        except Exception as fault:
            drive.fail(fault)

    def _maybe_end(self) -> None:
        if not self.flights and (self.left == 0 or (self.censored and not self.timers)):
            self.settle("ok")

    def cancel(self) -> None:
        """Give up what is in flight."""
        for flight in list(self.flights):
            flight.cancel()

    def _send(self, call: Call, prompt: Prompt, due_ns: int, phase: Phase, then: Callable[[Flight], None]) -> Flight:
        """Hand a call to the backend; `then` hears when its record is whole, whatever became of it."""
        drive = self.drive
        served = self._served(call)
        wanted = 1 if phase == "warmup" else call.output_tokens
        record = CallRecord(
            instance=self.instance.k,
            session=self.instance.session.id,
            call=call.id,
            agent=call.agent,
            model=call.model,
            status="ok",
            due_ns=due_ns,
            ordinal=self.ordinals[call.id],
            phase=phase,
            planned_prompt_tokens=self.planned[call.id],
            planned_output_tokens=call.answer_tokens if phase == "run" else 1,
            planned_fresh_tokens=call.fresh_tokens,
            after=self._after(call),
            sent_prompt_tokens=prompt.tokens,
            ideal_cached_tokens=self.ideal.held(served, prompt),
            ideal_prompt_tokens=prompt.tokens,
        )
        request = Request(
            name=f"{self.instance.k}/{call.id}",
            instance=self.instance.k,
            session_key=f"{self.instance.session.id}.{self.instance.k}",
            agent=call.agent,
            model=call.model,
            prompt=prompt,
            output_tokens=wanted,
            stop_after=call.stop_after if phase == "run" else None,
            phase=phase,
            repeated=phase == "run" and drive.options.history == "live",
            recorded_s=_recorded_s(call),
        )
        now_ns = drive.clock.now()
        flight = Flight(self, call, prompt, record, now_ns, then)
        self.flights[flight] = None
        drive.progress.calls_live += 1
        drive.deadlines.begin(flight, now_ns)
        flight.under_way = drive.begin(request, record.chunks.append, flight.ended)
        return flight

    def landed(self, flight: Flight, end: Outcome | BaseException) -> None:
        """The backend is done with a call."""
        drive = self.drive
        drive.deadlines.end(flight)
        drive.progress.calls_live -= 1
        try:
            self._record(flight, end)
            self._stamp(flight.record)
            flight.then(flight)
        except Exception as fault:
            drive.fail(fault)
        del self.flights[flight]
        flight.under_way = None
        if flight.record.phase == "run":
            drive.idle.landed(self)
            self._maybe_end()
        drive.landed()

    def _record(self, flight: Flight, end: Outcome | BaseException) -> None:
        """What the backend says of the end of a call."""
        record = flight.record
        if isinstance(end, Outcome):
            record.sent_ns, record.admitted_ns, record.done_ns = end.sent_ns, end.admitted_ns, end.done_ns
            if end.sent_prompt_tokens is not None:
                record.sent_prompt_tokens = end.sent_prompt_tokens
            record.asked_output_tokens = end.asked_output_tokens
            record.prompt_tokens, record.cached_tokens = end.prompt_tokens, end.cached_tokens
            record.output_tokens, record.reasoning_tokens = end.output_tokens, end.reasoning_tokens
            record.finish, record.target = end.finish, end.target
            record.served_model = end.served_model
            record.connection_reused, record.resent = end.connection_reused, end.resent
            record.retries = end.retries
            record.bytes_sent, record.bytes_received = end.bytes_sent, end.bytes_received
            record.connect_ns = end.connect_ns
            flight.prompt.answer_text = end.answer
            return
        if flight.under_way is not None and (sent := getattr(flight.under_way, "sent", None)) is not None:
            told: Sent = sent()
            record.target, record.served_model, record.retries = told.target, told.served_model, told.retries
            record.sent_prompt_tokens, record.asked_output_tokens = told.prompt_tokens, told.asked_output_tokens
            record.bytes_sent = told.bytes
        if isinstance(end, BackendError):
            record.status, record.error_kind, record.error = "error", end.kind, str(end)
            if end.kind == "timeout":
                record.status, record.error_kind = "timeout", None
            record.sent_ns, record.http_status = end.sent_ns, end.status
            record.retries = max(record.retries, end.retries)
        elif isinstance(end, asyncio.CancelledError):
            record.status = "timeout" if flight.timed_out else "censored"
            record.sent_ns = flight.started_ns
            if not flight.timed_out:
                self.censored = True
        else:
            raise end

    def _after(self, call: Call) -> list[Dependency]:
        wait_ns, ordinals = self.drive.waits.wait_ns, self.ordinals
        return [Dependency(ordinals[edge.call], wait_ns(edge.wait_s), edge.gap) for edge in call.after]

    def _served(self, call: Call) -> str:
        """Which cache the call meets: ideal hits are kept by it."""
        return "" if self.drive.served is None else self.drive.served(call.agent, call.model, self.instance.k)

    def _stamp(self, record: CallRecord) -> None:
        """First, last and done, and the tokens that came, from the chunks."""
        chunks = record.chunks
        if chunks:
            record.first_ns = chunks[0].first_ns
            record.last_ns = chunks[-1].last_ns
        if record.done_ns is None:
            record.done_ns = self.drive.clock.now()
        elif record.last_ns is not None:
            record.last_ns = min(record.last_ns, record.done_ns)
        if record.output_tokens is None and chunks:
            record.output_tokens = sum(run.count * run.tokens_each for run in chunks)

    def _settled(self, flight: Flight) -> None:
        """A call that was started has ended: write its row, release or cancel what waited for it."""
        drive, progress = self.drive, self.drive.progress
        call, prompt, record = flight.call, flight.prompt, flight.record
        drive.due_in_window -= drive.in_window(record.due_ns)
        drive.sink.call(record)
        self.last_ns = max(self.last_ns, record.done_ns or 0)
        self.left -= 1
        if record.status == "ok":
            assert record.done_ns is not None
            came = record.output_tokens or 0
            if drive.options.history == "live":
                prompt.answer_tokens = came
                self.ideal.answered(self._served(call), prompt)
            else:
                self._answer_as_planned(call, prompt)
            self.ok += 1
            progress.calls_done += 1
            progress.output_tokens += came
            self._release(call, record.done_ns)
        else:
            progress.calls_failed += record.status != "censored"
            if record.status != "censored":
                self.failed = True
                self.fault = self.fault or (record.error or record.status).partition("\n")[0]
            advance = drive.options.after_error == "advance" and record.error_kind != "context_overflow"
            if advance and record.status != "censored":
                assert record.done_ns is not None
                self._answer_as_planned(call, prompt)
                self._release(call, record.done_ns)
            else:
                self._cancel_dependants(call, record)
        drive.ended(record)
        drive.maybe_halt()

    def _release(self, call: Call, done_ns: int) -> None:
        waits, progress = self.drive.waits, self.drive.progress
        for child in self.children[call.id]:
            for edge in child.after:
                if edge.call == call.id:
                    wait = waits.wait_ns(edge.wait_s)
                    progress.skipped_wait_ns += max(0, to_ns(edge.wait_s / waits.time_scale) - wait)
                    self.due[child.id] = max(self.due.get(child.id, 0), done_ns + wait)
                    self.missing[child.id] -= 1
            if self.missing[child.id] == 0:
                self.missing[child.id] = -1
                self._at(child, self.due[child.id])

    def _cancel_dependants(self, call: Call, record: CallRecord) -> None:
        """Everything below a failed call will never run; a censored one leaves no rows below it."""
        below = [call]
        while below:
            for child in self.children[below.pop().id]:
                if self.missing[child.id] < 0:
                    continue
                self.missing[child.id] = -1
                self.left -= 1
                below.append(child)
                if record.status != "censored":
                    self.drive.sink.call(self._never_sent(child, call.id, record))

    def _never_sent(self, call: Call, cause: str, record: CallRecord) -> CallRecord:
        assert record.done_ns is not None
        return CallRecord(
            instance=self.instance.k,
            session=self.instance.session.id,
            call=call.id,
            agent=call.agent,
            model=call.model,
            status="cancelled",
            due_ns=record.done_ns,
            ordinal=self.ordinals[call.id],
            planned_prompt_tokens=self.planned[call.id],
            planned_output_tokens=call.answer_tokens,
            planned_fresh_tokens=call.fresh_tokens,
            after=self._after(call),
            phase=record.phase,
            error_kind=record.error_kind or record.status,
            cause=cause,
        )

    # -- how it ends

    def close(self) -> None:
        """Start nothing more."""
        self.closed = True
        if self.timers or any(missing >= 0 for missing in self.missing.values()):
            self.censored = True
        for _, timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
        self._maybe_end()

    def settle(self, status: Literal["ok", "censored"]) -> None:
        """The tree has drained, or the run is over: one session row."""
        drive = self.drive
        if drive.trees.pop(self.instance.k, None) is None:
            return
        session = self.instance.session
        final: Literal["ok", "failed", "censored"] = "censored" if self.censored else status
        drive.sink.session(
            SessionRecord(
                instance=self.instance.k,
                session=session.id,
                status="failed" if self.failed else final,
                due_ns=self.due_ns,
                start_ns=self.start_ns,
                end_ns=self.last_ns if self.last_ns and not self.censored else drive.clock.now(),
                calls=len(session.calls) - len(self.before),
                calls_ok=self.ok,
                calls_before=len(self.before),
                user=session.user,
                workflow=session.workflow,
            )
        )
        drive.progress.sessions_live -= 1
        drive.progress.sessions_done += 1
        drive.idle.left()
        if self.on_end is not None:
            asyncio.get_running_loop().call_soon(self.on_end)


def _recorded_s(call: Call) -> float | None:
    """How long the call took in the trace; None where it does not tell, or tells of no time at all."""
    recorded = call.recorded
    if recorded is None or recorded.start_s is None or recorded.end_s is None:
        return None
    return recorded.end_s - recorded.start_s if recorded.end_s > recorded.start_s else None
