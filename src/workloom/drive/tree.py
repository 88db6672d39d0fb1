"""One live session of a run: which calls wait for what, which are in flight, and what became of the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from workloom.clock import Clock, Timer, to_ns
from workloom.drive.backend import Request
from workloom.errors import BackendError
from workloom.plan import Instance
from workloom.prefix import PrefixTree
from workloom.prompt import Cursors, Prompt, Prompts
from workloom.records import CallRecord, SessionRecord
from workloom.session import Call, children, prompt_tokens

if TYPE_CHECKING:
    from workloom.drive.driver import _Drive


class Tree:
    """One live session: which calls wait for what, which are in flight, and what became of the others."""

    def __init__(self, drive: _Drive, instance: Instance, due_ns: int) -> None:
        self.drive, self.instance, self.due_ns = drive, instance, due_ns
        session = instance.session
        self.start_ns = drive.clock.now()
        self.prompts = Prompts(session, instance.k)
        self.known, self.leads = Cursors(PrefixTree()), Cursors(drive.known)
        """What an infinite cache would hold of this session, gone with it, and of all that others can share."""
        self.children = children(session)
        self.missing = {call.id: len(call.after) for call in session.calls}
        self.due: dict[str, int] = {}
        self.ordinals = {call.id: i for i, call in enumerate(session.calls)}
        self.left = len(session.calls)
        self.ok = 0
        self.failed = False
        self.fault: str | None = None
        """What the first call that failed said."""
        self.censored = False
        self.closed = False
        self.planned = prompt_tokens(session)
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.timers: dict[str, Timer] = {}
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        for call in self.instance.session.calls:
            if not call.after:
                self._at(call, self.due_ns)
        self._maybe_end()

    def _at(self, call: Call, due_ns: int) -> None:
        """The call is due at an instant."""
        if self.closed:
            self.censored = True
        elif due_ns <= self.drive.clock.now():
            self._launch(call, due_ns)
        else:
            self.timers[call.id] = self.drive.clock.call_at(due_ns, self._launch, call, due_ns)

    def _launch(self, call: Call, due_ns: int) -> None:
        self.timers.pop(call.id, None)
        if not self.drive.may_start():
            self.censored = True
            self.close()
            return
        drive = self.drive
        drive.due_in_window += drive.in_window(due_ns)
        name = f"{self.instance.k}/{call.id}"
        task = asyncio.create_task(self._call(call, due_ns, name), name=name)
        self.tasks[task] = None
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.drive.fail(fault)
        self._maybe_end()

    def _maybe_end(self) -> None:
        if not self.tasks and (self.left == 0 or (self.censored and not self.timers)):
            self.settle("ok")

    async def _call(self, call: Call, due_ns: int, name: str) -> None:
        drive, clock = self.drive, self.drive.clock
        prompt = self.prompts.make(call)
        record = CallRecord(
            instance=self.instance.k,
            session=self.instance.session.id,
            call=call.id,
            agent=call.agent,
            model=call.model,
            status="ok",
            due_ns=due_ns,
            ordinal=self.ordinals[call.id],
            planned_prompt_tokens=self.planned[call.id],
            planned_output_tokens=call.answer_tokens,
            sent_prompt_tokens=prompt.tokens,
            ideal_cached_tokens=max(self.known.add(prompt), self.leads.add_lead(prompt)),
        )
        request = Request(
            name=name,
            instance=self.instance.k,
            session_key=f"{self.instance.session.id}.{self.instance.k}",
            agent=call.agent,
            model=call.model,
            prompt=prompt,
            output_tokens=call.output_tokens,
            stop_after=call.stop_after,
            recorded_s=_recorded_s(call),
        )
        progress = drive.progress
        progress.calls_live += 1
        started_ns = clock.now()
        deadline = _Deadline(clock, drive.timeout_ns)
        try:
            outcome = await drive.backend.call(request, record.chunks.append)
        except BackendError as fault:
            record.status, record.error_kind, record.error = "error", fault.kind, str(fault)
            record.sent_ns = fault.sent_ns
        except asyncio.CancelledError:
            record.status = "timeout" if deadline.passed else "censored"
            record.sent_ns = started_ns
            if not deadline.passed:
                self.censored = True
        else:
            record.sent_ns = outcome.sent_ns
            record.done_ns = outcome.done_ns
            record.prompt_tokens, record.cached_tokens = outcome.prompt_tokens, outcome.cached_tokens
            record.output_tokens, record.finish = outcome.output_tokens, outcome.finish
            record.connection_reused, record.resent = outcome.connection_reused, outcome.resent
            prompt.answer_text = outcome.answer
        finally:
            deadline.cancel()
            progress.calls_live -= 1
            drive.due_in_window -= drive.in_window(due_ns)
        self._settled(call, prompt, record)
        drive._maybe_halt()

    def _settled(self, call: Call, prompt: Prompt, record: CallRecord) -> None:
        """A call that was started has ended: write its row, release or cancel what waited for it."""
        drive, progress = self.drive, self.drive.progress
        chunks = record.chunks
        if chunks:
            record.first_ns = chunks[0].first_ns
            record.last_ns = chunks[-1].last_ns
        if record.done_ns is None:
            record.done_ns = drive.clock.now()
        elif record.last_ns is not None:
            record.last_ns = min(record.last_ns, record.done_ns)
        if record.output_tokens is None and chunks:
            record.output_tokens = sum(run.count * run.tokens_each for run in chunks)
        drive.sink.call(record)
        self.left -= 1
        if record.status == "ok":
            prompt.answer_tokens = record.output_tokens or 0
            self.known.add_answer(prompt)
            self.ok += 1
            progress.calls_done += 1
            progress.output_tokens += prompt.answer_tokens
            self._release(call, record.done_ns)
        else:
            progress.calls_failed += record.status != "censored"
            if record.status != "censored":
                self.failed = True
                self.fault = self.fault or (record.error or record.status).partition("\n")[0]
            self._cancel_dependants(call, record)

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
            error_kind=record.error_kind or record.status,
            cause=cause,
        )

    def close(self) -> None:
        """Start nothing more."""
        self.closed = True
        if self.left > len(self.tasks):
            self.censored = True
        for timer in self.timers.values():
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
                end_ns=drive.clock.now(),
                calls=len(session.calls),
                calls_ok=self.ok,
                user=session.user,
            )
        )
        drive.progress.sessions_live -= 1
        drive.progress.sessions_done += 1
        if not self.ended.done():
            self.ended.set_result(None)


def _recorded_s(call: Call) -> float | None:
    """How long the call took in the trace; None where it does not tell, or tells of no time at all."""
    recorded = call.recorded
    if recorded is None or recorded.start_s is None or recorded.end_s is None:
        return None
    return recorded.end_s - recorded.start_s if recorded.end_s > recorded.start_s else None


class _Deadline:
    """Cancels the task that made it when the total time of a call is over."""

    def __init__(self, clock: Clock, timeout_ns: int | None) -> None:
        self.passed = False
        self._task = asyncio.current_task()
        self._timer = None if timeout_ns is None else clock.call_at(clock.now() + timeout_ns, self._pass)

    def _pass(self) -> None:
        assert self._task is not None
        self.passed = True
        self._task.cancel()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
