"""One pi session file, read into the calls it tells of: what each waited for, what it continues, what came in.

    session ─ user ─ c0 ─ result ─ result ─ c1 ─┬─ user ─ c2           a branch: c3 follows c1, not the line before it
                                                └─ user ─ c3 (aborted) ─ user ─ c4     c4 waits for c3, continues c1

Entries name their parent; a parent is always an earlier line. What stands between a call and the last answered one
above it came into its prompt; what stands between it and the last one of any fate is what it waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import UnsetType

from workloom.errors import TraceError
from workloom.session import Gap, Part, PartKind, Status
from workloom.traces.lines import rows
from workloom.traces.openclaw import rows as said
from workloom.traces.openclaw.prompt import hidden
from workloom.traces.openclaw.rows import Content, Entry, Message
from workloom.traces.openclaw.seen import Event, Observed, Piece, Spawn, Step, Transcript
from workloom.traces.reading import Intake
from workloom.traces.turns import CHARS_PER_TOKEN, estimate

MOST_STEPS = 1 << 22
"""How many entries may be walked up in a file, from calls to the answered ones above them: a chain takes each once."""
_STATUS: dict[str | None, Status] = {"error": "error", "aborted": "aborted"}


def scan(path: Path, intake: Intake, forked: Mapping[str, Step] | None = None) -> Transcript:
    """Read a file; `forked`: the entries of the file that its header names as its parent. Memory: a line and counts."""
    return _Scan(path, intake, forked or {}).run()


class _Scan:
    def __init__(self, path: Path, intake: Intake, forked: Mapping[str, Step]) -> None:
        self._path = path
        self._intake = intake
        self._report = intake.report
        self._forked = forked
        self._steps: dict[str, Step] = {}
        self._last: Step | None = None
        self._walked = 0
        self._out = Transcript("", [], [], self._steps)

    def run(self) -> Transcript:
        headed = False
        for line, entry in rows(self._path, said.decoder, self._intake):
            if entry.type == "session":
                if not headed:
                    headed, self._out.id = True, entry.id or ""
            else:
                self._entry(line, entry)
        if not headed:
            self._report.infer("files without a session header, named after their file")
        self._out.id = self._out.id or self._path.name.split(".")[0]
        if self._out.copied:
            self._report.merge("entries that a fork copied from its parent session", self._out.copied)
            self._steps.update({name: step for name, step in self._forked.items() if name not in self._steps})
        return self._out

    def _entry(self, line: int, entry: Entry) -> None:
        message = entry.message if entry.type == "message" else None
        if entry.type == "message" and message is None:
            self._intake.on_bad(said.missing(self._path, line, "message"))
            return
        above = self._parent(entry)
        at_s = said.epoch_s(entry.timestamp)
        calls = message is not None and message.role == "assistant"
        if message is not None and message.timestamp is not None and not calls:
            at_s = message.timestamp / 1000
        if at_s is None:
            at_s = above.at_s if above is not None else 0.0
        if self._copied(entry.id, at_s):
            return
        step = Step(
            above,
            at_s,
            "" if above is None else above.model,
            None if above is None else above.call,
            None if above is None else above.base,
        )
        if message is None:
            self._other(step, entry)
        elif not calls:
            self._message(step, message)
        elif message.model in said.NO_MODEL:
            self._report.drop("assistant messages that no model wrote (deliveries mirrored into the transcript)")
            step.piece = self._piece("injected", message.content)
        elif message.usage is None:
            self._intake.on_bad(said.missing(self._path, line, "message.usage"))
            return
        else:
            self._call(line, step, message, message.usage, entry.timestamp is not None)
        self._last = step
        if entry.id is not None:
            self._steps[entry.id] = step

    def _parent(self, entry: Entry) -> Step | None:
        """The entry that this one follows: the line before where it does not say, or names one that is not there."""
        named = entry.parent_id
        if named is None:
            return None
        if not isinstance(named, UnsetType):
            found = self._steps.get(named) or self._forked.get(named)
            if found is not None:
                return found
            if self._last is not None:
                self._report.infer("entries whose parent is no earlier line, taken to follow the line before")
        return self._last

    def _copied(self, name: str | None, at_s: float) -> bool:
        """Whether an entry was there before, in this file or in the one it was forked from."""
        if name is None:
            return False
        mine, theirs = self._steps.get(name), self._forked.get(name)
        if mine is not None and mine.at_s == at_s:
            self._report.merge("entries written twice")
            self._last = mine
        elif mine is None and theirs is not None and theirs.at_s == at_s:
            self._out.copied += 1
            self._last = theirs
        else:
            return False
        return True

    def _piece(
        self,
        kind: PartKind,
        content: Content,
        name: str | None = None,
        seconds: float | None = None,
        event: Event | None = None,
    ) -> Piece:
        tokens = estimate(said.characters(content, CHARS_PER_TOKEN))
        text = said.text_of(content) if self._intake.text else None
        return Piece(Part(kind, tokens, name, seconds, text=text), event)

    def _other(self, step: Step, entry: Entry) -> None:
        if entry.type == "compaction":
            self._summary(step, entry.summary)
        elif entry.type == "branch_summary":
            step.piece, step.gap = self._piece("summary", entry.summary), "human"
        elif entry.type == "custom_message":
            self._written(step, "injected", entry.content, "orchestration")
        else:
            if entry.type == "model_change" and entry.model_id is not None:
                step.model = entry.model_id
            self._report.drop("entries that are neither calls nor context (settings, labels, state)")

    def _summary(self, step: Step, summary: str | None) -> None:
        self._report.infer("compactions: what follows them begins with the scaffold and a summary")
        self._report.assume("calls that wrote summaries are not in the transcript, and are left out")
        step.piece, step.gap, step.compaction = self._piece("summary", summary), "orchestration", True

    def _message(self, step: Step, message: Message) -> None:
        role = message.role
        if role == "user":
            self._written(step, "user", message.content, "human")
        elif role == "toolResult":
            self._result(step, message)
        elif role == "compactionSummary":
            self._summary(step, message.summary)
        elif role == "branchSummary":
            step.piece, step.gap = self._piece("summary", message.summary), "human"
        elif role == "bashExecution":
            if not message.exclude_from_context:
                step.piece = self._piece("injected", f"{message.command or ''}\n{message.output or ''}")
        elif role in ("custom", "hookMessage"):
            self._written(step, "injected", message.content, "orchestration")
        else:
            self._report.drop("messages of roles that are not known")

    def _written(self, step: Step, kind: PartKind, content: Content, gap: Gap) -> None:
        """A message from outside; one that says a subagent is done brings its report."""
        names = said.completed(said.text_of(content))
        if names is None:
            step.piece, step.gap = self._piece(kind, content), gap
        else:
            step.piece = self._piece("report", content, event=Event(names, step.at_s))

    def _result(self, step: Step, message: Message) -> None:
        seconds, child = said.result_details(message)
        if seconds is None:
            self._report.infer("times of tools from the end of the call to their result (no durationMs)")
            if step.call is not None:
                seconds = round(max(0.0, step.at_s - step.call.end_s), 6)
        if child is not None:
            self._out.spawns.append(Spawn(child, step.call))
        step.piece, step.gap = self._piece("tool", message.content, message.tool_name or None, seconds), "tool"

    def _call(self, line: int, step: Step, message: Message, usage: said.Usage, ended: bool) -> None:
        calls = self._out.calls
        after, base, above = step.call, step.base, step.above
        start_s, end_s = step.at_s, step.at_s
        if message.timestamp is not None:
            start_s = message.timestamp / 1000
            if not ended:
                self._report.infer("calls without a time of response, taken to end when they began")
                end_s = start_s
        else:
            self._report.infer("calls without a time of dispatch, taken to begin when their last input was there")
            start_s = end_s if above is None else min(end_s, above.at_s)
        if end_s < start_s:
            self._report.infer("calls stamped to end before they began, taken to end then")
            end_s = start_s
        came = _inputs(above, after, base)
        self._walked += came.steps
        if self._walked > MOST_STEPS + 4 * len(self._steps):
            what, expected = "a tree is too tangled", "few calls that share a long run of entries without an answer"
            raise TraceError(what, where=f"{self._path}, line {line}, parentId", expected=expected, found="too many")
        if after is None and calls:
            self._report.infer("new beginnings inside a file, taken to follow the call before")
            after = calls[-1]
        elif calls and after is not calls[-1]:
            self._report.infer("branches: calls that follow an earlier call than the one before them in the file")
        status = _STATUS.get(message.stop_reason, "ok")
        prompt = usage.input + usage.cache_read + usage.cache_write
        call = Observed(
            after=after,
            base=base,
            start_s=start_s,
            end_s=end_s,
            prompt=prompt,
            cached=usage.cache_read,
            output=usage.output,
            reasoning=min(usage.reasoning or 0, usage.output),
            status=status,
            model=message.model or step.model,
            pieces=came.pieces,
            events=came.events,
            compacted=came.compacted,
            scaffold=hidden(prompt, [piece.part for piece in came.pieces]) if base is None else base.scaffold,
            ready_s=came.ready_s,
            gap=came.gap,
            thinks=said.thinks(message.content),
            answer=said.answer_of(message.content) if self._intake.text else None,
        )
        calls.append(call)
        step.at_s, step.call, step.own = end_s, call, True
        if status == "ok":
            step.base = call
        else:
            self._report.assume(
                "aborted and failed calls are kept with the tokens their usage says, which may be 0; the next prompt"
                " continues the last answered call"
            )


class _Inputs(NamedTuple):
    """What came in above a call; see :class:`Observed`."""

    pieces: tuple[Piece, ...]
    events: tuple[Event, ...]
    compacted: bool
    ready_s: float | None
    gap: Gap
    steps: int


def _inputs(step: Step | None, after: Observed | None, base: Observed | None) -> _Inputs:
    pieces: list[Piece] = []
    events: list[Event] = []
    compacted = passed = False
    steps = 0
    ready_s: float | None = None
    gap: Gap | None = None
    while step is not None and not (step.own and step.call is base):
        passed = passed or step.own
        if step.piece is not None and not compacted:
            pieces.append(step.piece)
            compacted = step.compaction
        if not passed:
            if step.piece is not None and step.piece.event is not None:
                events.append(step.piece.event)
            if step.gap is not None and (ready_s is None or step.at_s > ready_s):
                ready_s, gap = step.at_s, step.gap
        step = step.above
        steps += 1
    if gap is None:
        gap = "orchestration" if events or (after is not None and after.status != "ok") else "none"
    return _Inputs(tuple(reversed(pieces)), tuple(reversed(events)), compacted, ready_s, gap, steps)
