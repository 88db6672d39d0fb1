"""From the rows of a Codex rollout to the calls of its agent as they were made.

    user message, tool outputs ...   what came in           ┐
    turn_context                     the request leaves     │ one call; its token_count is the first
    reasoning, message, tool calls   what the model made    │ that differs from the one before
    token_count                      what it counted        ┘

What the model made without a token_count (an aborted turn, a file older than those events) is a call of estimated
size: rows that follow each other until something comes in.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from workloom.session import Part, Status
from workloom.traces.agents import Input, Made, Sizes
from workloom.traces.codex import rows as rollout
from workloom.traces.codex.rows import Row, Usage, text_of
from workloom.traces.reading import Report
from workloom.traces.turns import estimate, exact

WAITING = ("wait_agent", "wait", "wait_agents")
"""Tools that return when a subagent does."""
SPAWNING = ("spawn_agent", "spawn_agents")
ROLES = ("user", "developer", "system")
REPLAY_S = 1.0
"""Within this a fork writes what it repeats of its parent."""


class _Asked(NamedTuple):
    call: int
    at_s: float
    name: str


class Log:
    """Reads rows in order; `calls` and `meta` are what they told."""

    def __init__(self, report: Report, *, text: bool) -> None:
        self.meta: rollout.SessionMeta | None = None
        self.calls: list[Made] = []
        self.forked = False
        """Whether the file begins with the calls of another session."""
        self._report = report
        self._text = text
        self._model = ""
        self._coming = Made()
        """What came in since the last call."""
        self._open: list[Made] = []
        """Runs of what the model made that no count has closed."""
        self._asked: dict[str, _Asked] = {}
        self._total: Usage | None = None
        self._counted = False
        self._late: Made | None = None
        """A call that was counted before anything it made was written down, as older versions do."""
        self._replaying = False
        self._dated = False
        """Whether turns carry ids."""
        self._since_s = 0.0

    def feed(self, row: Row) -> None:
        kind, payload, at_s = row.kind, row.payload, row.at_s
        if self._replaying and not self._dated and at_s > self._since_s + REPLAY_S:
            self._end_replay()
        if kind == "token_count":
            self._count(at_s, payload)
        elif kind == "tool":
            self._tool(at_s, payload)
        elif kind == "tool_output":
            self._output(at_s, payload)
        elif kind == "turn_context" or kind == "task_started" or kind == "turn_started":
            self._context(at_s, payload)
        elif kind == "reasoning":
            self._make(at_s, 0)
        elif kind == "message":
            self._message(at_s, payload)
        elif kind == "user_message":
            self._user(at_s)
        elif kind == "session_meta":
            self._session(at_s, payload)
        elif kind == "task_complete" or kind == "turn_complete":
            self._close("ok")
        elif kind == "turn_aborted":
            self._abort()
        elif kind == "error":
            if self._open:
                self._close("error")
            else:
                self._report.drop("errors with no answer")
        elif kind == "stream_error":
            self._report.drop("errors of a stream that was tried again")
        elif kind == "thread_rolled_back":
            self._report.merge("turns that the user took back, kept as calls")
        elif kind == "compacted" or kind == "context_compacted":
            self._compact(at_s, payload)

    def finish(self) -> None:
        """The file is at its end."""
        if self._replaying:
            self._end_replay()
        if self._counted and self._open:
            self._report.drop("answers at the end of a file that no token count closes")
            self._open.clear()
        self._close("ok")

    # ---------------------------------------------------------------------------------------------- what came in

    def _session(self, at_s: float, meta: rollout.SessionMeta) -> None:
        if self.meta is None:
            self.meta = meta
            self._replaying = meta.forked_from_id is not None or meta.spawn is not None
        elif meta.id != self.meta.id:
            self._replaying = True
        self._since_s = at_s

    def _context(self, at_s: float, context: rollout.Context) -> None:
        if context.model:
            self._model = context.model
        turn, meta = context.turn_id, self.meta
        if self._replaying and turn is not None and meta is not None and is_dated(turn) and is_dated(meta.id):
            self._dated = True
            if turn >= meta.id:  # both begin with the time they were made
                self._end_replay()
        self._coming.sent_s = at_s
        self._late = None

    def _end_replay(self) -> None:
        """All calls so far are those of the session this one was forked from."""
        self._replaying = False
        self._close("ok")
        if not self.calls:
            return
        self.forked = True
        self._report.drop("calls repeated from the session a rollout was forked from", len(self.calls))
        tokens = sum(estimate(made.characters) for made in self.calls)
        for made in (*self.calls, self._coming):
            tokens += sum(one.part.tokens for one in made.inputs)
        self._coming = Made(inputs=[Input(self._since_s, Part("injected", tokens, "forked history"))])
        self._late = None
        self.calls.clear()
        self._asked.clear()

    def _message(self, at_s: float, message: rollout.Message) -> None:
        text = text_of(message.content)
        if message.role == "assistant":
            self._make(at_s, len(text), text)
        else:
            role = message.role if message.role in ROLES else None
            part = Part("injected", estimate(len(text)), role, text=text if self._text else None)
            self._coming.inputs.append(Input(at_s, part))

    def _user(self, at_s: float) -> None:
        """The message before this event is the user's own."""
        inputs = self._coming.inputs
        for index in range(len(inputs) - 1, -1, -1):
            one = inputs[index]
            if one.part.name == "user" and one.part.kind == "injected":
                inputs[index] = one._replace(part=replace(one.part, kind="user", name=None))
                break
        self._coming.asked_s = at_s
        self._late = None

    def _output(self, at_s: float, output: rollout.ToolOutput) -> None:
        asked = self._asked.pop(output.call_id, None) if output.call_id is not None else None
        text = text_of(output.output)
        seconds = None if asked is None else exact(max(0.0, at_s - asked.at_s))
        name = None if asked is None else asked.name
        part = Part("tool", estimate(len(text)), name, seconds, text=text if self._text else None)
        self._coming.inputs.append(Input(at_s, part, None if asked is None else asked.call, name in WAITING))
        if asked is None:
            self._report.infer("tool outputs whose call is not in the file")

    def _compact(self, at_s: float, compacted: rollout.Compacted | rollout.Plain) -> None:
        self._close("ok")
        self._coming.compacted = True
        self._late = None
        if isinstance(compacted, rollout.Plain):
            return
        history = [text_of(message.content) for message in compacted.replacement_history or ()]
        text = "\n".join(history) or compacted.message or ""
        self._coming.inputs = [Input(at_s, Part("summary", estimate(len(text)), text=text if self._text else None))]

    # ------------------------------------------------------------------------------------------ what the model made

    def _make(self, at_s: float, characters: int, text: str = "") -> Made:
        if self._late is not None:
            made = self._late
        else:
            if not self._open or self._coming.inputs:
                self._coming.model = self._model
                self._open.append(self._coming)
                self._coming = Made()
            made = self._open[-1]
            made.end_s = at_s
        made.characters += characters
        if self._text and text:
            made.answer.append(text)
        return made

    def _tool(self, at_s: float, tool: rollout.Tool) -> None:
        asked = tool.asked
        text = asked.decode("utf-8", "replace") if self._text else ""
        made = self._make(at_s, len(asked), text)
        name = tool.name or tool.type.removesuffix("_call")
        if name in SPAWNING and made.spawned_s is None:
            made.spawned_s = at_s
        if tool.call_id is None:
            return
        if made is self._late:
            self._asked[tool.call_id] = _Asked(len(self.calls) - 1, made.end_s or at_s, name)
        else:
            self._asked[tool.call_id] = _Asked(len(self.calls) + len(self._open) - 1, at_s, name)

    def _count(self, at_s: float, count: rollout.TokenCount) -> None:
        info = count.info
        if info is None:
            return
        if info.total_token_usage == self._total:
            self._report.merge("token counts that repeat the one before")
            return
        self._total = info.total_token_usage
        usage = info.last_token_usage
        if not usage.input_tokens and not usage.output_tokens:
            self._report.drop("token counts of no call")
            return
        self._counted = True
        made = self._merged() or self._coming
        if made is self._coming:
            self._coming = Made()
            made.model = self._model
            made.end_s = at_s
            self._late = made
        else:
            self._late = None
        made.sizes = Sizes(
            usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_output_tokens
        )
        self.calls.append(made)

    def _merged(self) -> Made | None:
        """What is open, as one call: inputs among it are those of the next call."""
        if not self._open:
            return None
        first, *more = self._open
        self._open.clear()
        later: list[Input] = []
        for made in more:
            later += made.inputs
            first.characters += made.characters
            first.answer += made.answer
            first.end_s = made.end_s
            first.spawned_s = first.spawned_s if first.spawned_s is not None else made.spawned_s
        self._coming.inputs[:0] = later
        if more:
            index = len(self.calls)
            self._coming.inputs = [
                one if one.source is None else one._replace(source=min(one.source, index))
                for one in self._coming.inputs
            ]
            self._asked = {key: one._replace(call=min(one.call, index)) for key, one in self._asked.items()}
        return first

    def _close(self, status: Status) -> None:
        """Runs without a count become calls of estimated size; `status` is that of the last."""
        for made in self._open:
            self._report.infer("calls without a token count, their sizes estimated from texts")
            self.calls.append(made)
        if self._open:
            self._open[-1].status = status
        self._open.clear()
        self._late = None

    def _abort(self) -> None:
        if self._open:
            self._close("aborted")
        else:
            self._report.drop("turns aborted while no answer was being written: before one began, or while a tool ran")


def is_dated(name: str) -> bool:
    """Whether an id begins with the time it was made (UUID version 7)."""
    return len(name) == 36 and name[14] == "7"
