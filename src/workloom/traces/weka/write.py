"""Sessions as WEKA (kv-cache-tester) files: one JSON file a session, named by their order.

A file is a list of the parent's requests. A subagent stands in it as a marker with a list of its own, between the
request that launched it and the one that waits for it:

    r0   marker(a0 a1)   marker(b0)   r1        r1 waits for r0, a1 and b0

Only that shape fits: one level of subagents, each a chain, waited for by the parent's next request or by none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from workloom.prompt import planned
from workloom.session import Call, Header, Session
from workloom.traces.block_ids import LONGEST_PROMPT, BlockIds
from workloom.traces.instants import Instant, instants
from workloom.traces.reading import Report
from workloom.traces.turns import exact
from workloom.traces.weka.shape import Agent, Shape, shape_of

BLOCK_TOKENS = 64
"""Where the trace has no block size of its own."""

_Row = dict[str, object]

_LONG = f"sessions left out: a prompt or answer of more than {LONGEST_PROMPT:,} tokens"
_UNEVEN = "joins whose edges wait differently, written as one wait behind the last"
_SPAWNS = "waits of subagents that their instants do not bear out, written by the instants"
_PLANNED = "instants from waits, as if calls without recorded ends took no time"
_EARLY = "instants before the start of the session, written as 0"
_HUNG_UP = "answers cut where their client hung up"
_GAPS = "waits that are neither for a tool nor for a human, written as what the prompt brings"
_FIRST = "waits of the parent's first call for subagents before it, written as none"
_GUESSED = "ends told by the wait behind them, where the trace has none"


def write(path: Path, header: Header, sessions: Iterable[Session], report: Report) -> list[int]:
    """Write every session to a file of its own in a new folder; the places of those left out are returned."""
    path.mkdir()
    block_tokens = header.block_tokens or BLOCK_TOKENS
    out: list[int] = []
    written = 0
    for place, session in enumerate(sessions):
        document = _document(session, block_tokens, report)
        if isinstance(document, str):
            report.drop(document)
            out.append(place)
            continue
        (path / f"trace_{written:08d}.json").write_bytes(msgspec.json.encode(document))
        written += 1
    return out


def _document(session: Session, block_tokens: int, report: Report) -> _Row | str:
    """A file's content, or why there is none."""
    prompts = planned(session)
    if any(max(prompt.tokens, call.output_tokens) > LONGEST_PROMPT for call, prompt in prompts):
        return _LONG
    shape = shape_of(session)
    if isinstance(shape, str):
        return shape
    if any(span.scope == "trace" for call in session.calls for span in call.spans):
        report.drop("sessions whose shared text is that file's alone: hash ids are told apart by file")
    ids = BlockIds(block_tokens, first=1, partial=False).session(prompts)
    rows = _Rows(session, shape, [prompt.tokens for _, prompt in prompts], ids, report)
    return {
        "id": session.id,
        "models": _models(session.calls[place] for place in shape.entries if isinstance(place, int)),
        "block_size": block_tokens,
        "hash_id_scope": "local",
        **rows.scaffold(next((place for place in shape.entries if isinstance(place, int)), None)),
        "requests": rows.entries(),
        "totals": rows.totals(),
    }


class _Rows:
    """The requests and markers of a session."""

    def __init__(
        self, session: Session, shape: Shape, tokens: Sequence[int], ids: Sequence[list[int]], report: Report
    ) -> None:
        self._calls = session.calls
        self._shape, self._tokens, self._ids, self._report = shape, tokens, ids, report
        self._launched = {entry.calls[0] for entry in shape.entries if isinstance(entry, Agent)}
        self._times = [self._instant(instant) for instant in instants(session).values()]
        told = sorted(exact(t.end_s - t.start_s) for t in self._times if t.end_told)
        self._typical_s = told[len(told) // 2] if told else 0.0
        """How long a call without a recorded end takes, by the reader's rule."""

    def _instant(self, instant: Instant) -> Instant:
        """As it is written: calls without a recorded start take no time, none begins before the session."""
        if not instant.told:
            self._report.infer(_PLANNED)
        if instant.start_s < 0:
            self._report.infer(_EARLY)
        start, end = max(0.0, instant.start_s), max(0.0, instant.end_s)
        return Instant(start, end, instant.told, instant.end_told or not instant.told)

    def entries(self) -> list[_Row]:
        """The parent's list."""
        out: list[_Row] = []
        places = [entry for entry in self._shape.entries if isinstance(entry, int)]
        following = dict(pairwise([None, *places]))
        last: int | None = None
        for entry in self._shape.entries:
            if isinstance(entry, int):
                after = following.get(entry)
                ended = [self._done(agent) for agent in self._shape.waits_for[entry]]
                out.append(self._request(entry, last, after, ended, 0.0))
                last = entry
            else:
                out.append(self._marker(entry, following.get(last)))
        return out

    def _marker(self, agent: Agent, resumed: int | None) -> _Row:
        """A subagent; `resumed`: the parent's next call, if there is one."""
        calls, first = self._calls, agent.calls[0]
        base, done = self._times[first].start_s, self._done(agent)
        if agent.spawner is not None:
            (edge,) = calls[first].after
            if abs(max(0.0, base - self._end(agent.spawner, resumed)) - edge.wait_s) > 1e-6:
                self._report.infer(_SPAWNS)
        waited = resumed is None or agent.joined
        kind, _, name = calls[first].agent.partition(":")
        following = dict(pairwise(agent.calls))
        before = [None, *agent.calls[:-1]]
        return {
            "t": exact(done if waited else base),
            "type": "subagent",
            "agent_id": name or "1",
            "subagent_type": kind,
            "duration_ms": _whole((done - base) * 1000) if waited else None,
            "total_tokens": self._tokens[agent.calls[-1]] + calls[agent.calls[-1]].answer_tokens if waited else None,
            "tool_use_count": len(agent.calls) - 1 if waited else None,
            "status": "completed" if waited else "async_launched",
            **self.scaffold(first),
            "requests": [
                self._request(place, previous, following.get(place), [], base)
                for place, previous in zip(agent.calls, before, strict=True)
            ],
            "models": _models(calls[place] for place in agent.calls),
        }

    def _request(
        self, place: int, previous: int | None, following: int | None, ended: list[float], base_s: float
    ) -> _Row:
        """A call behind `previous` of its agent (and behind subagents that `ended`), before `following`."""
        call, times = self._calls[place], self._times[place]
        streaming = call.recorded is not None and bool(call.recorded.streaming)
        if call.answer_tokens < call.output_tokens:
            self._report.infer(_HUNG_UP)
        if {edge.gap for edge in call.after} - {"tool", "human", "spawn"}:
            self._report.infer(_GAPS)
        row: _Row = {
            "t": exact(max(0.0, times.start_s - base_s)),
            "type": "s" if streaming else "n",
            "model": call.model,
            "in": self._tokens[place],
            "out": call.answer_tokens,
            "hash_ids": self._ids[place],
            "input_types": ["tool_result"] if self._tool(place) else ["text"],
            **_stop(following is not None and self._tool(following)),
        }
        if call.recorded is not None and call.recorded.first_s is not None:
            row["ttft"] = exact(max(0.0, call.recorded.first_s - times.start_s))
        if times.end_told:
            row["api_time"] = exact(times.end_s - times.start_s)
        think = self._think(place, previous, ended)
        if think is not None:
            row["think_time"] = think
        return row

    def _think(self, place: int, previous: int | None, ended: list[float]) -> float | None:
        """Seconds since the previous call of the agent ended, subagents included; None where it need not be said."""
        call = self._calls[place]
        if previous is None:
            if ended and self._wait(call):
                self._report.infer(_FIRST)
            return 0.0
        wait = self._wait(call)
        end = self._end(previous, place)
        span = max(0.0, max(ended, default=end) - end)
        if self._times[previous].end_told:
            return exact(wait + span)
        start = self._times[place].start_s
        if abs(exact(max(0.0, max(0.0, start - end) - span)) - wait) <= 1e-6:
            return None
        self._report.infer(_GUESSED)
        return exact(wait + span)

    def _wait(self, call: Call) -> float:
        """How long a call waits behind the last of those it waits for, once subagents are done."""
        waits = {edge.call: edge.wait_s for edge in call.after}
        least = min(waits.values())
        if len(set(waits.values())) == 1 or self._resumes(call, least):
            return least
        self._report.infer(_UNEVEN)
        at = {other.id: times.end_s for other, times in zip(self._calls, self._times, strict=True)}
        ends = [at[edge.call] for edge in call.after]
        return exact(max(at[edge.call] + edge.wait_s for edge in call.after) - max(ends))

    def _resumes(self, call: Call, least: float) -> bool:
        """Whether only subagents are waited for longer: what is more is the time until they were done."""
        last = {self._calls[agent.calls[-1]].id for agents in self._shape.waits_for.values() for agent in agents}
        return all(edge.wait_s == least or edge.call in last for edge in call.after)

    def _end(self, place: int, following: int | None) -> float:
        """When a call ended, by the reader's rule where the trace does not say it."""
        times, call = self._times[place], self._calls[place]
        if times.end_told:
            return times.end_s
        floor = times.start_s
        if call.recorded is not None and call.recorded.first_s is not None:
            floor = max(floor, call.recorded.first_s)
        guess = max(floor, times.start_s + self._typical_s)
        limit = guess if following is None else self._times[following].start_s
        return max(times.start_s, min(guess, limit))

    def _done(self, agent: Agent) -> float:
        """When a subagent was done: its call that resumes waits longer for it than for the parent's own call before."""
        end_s = max(self._end(agent.calls[-1], None), self._times[agent.calls[0]].start_s)
        name = self._calls[agent.calls[-1]].id
        for place, agents in self._shape.waits_for.items():
            call = self._calls[place]
            if agent in agents:
                least = min(edge.wait_s for edge in call.after)
                if self._resumes(call, least):
                    return end_s + max(edge.wait_s - least for edge in call.after if edge.call == name)
        return end_s

    def _tool(self, place: int) -> bool:
        """Whether a call answers a tool: by its waits, or for a subagent's first call by what it brings."""
        call = self._calls[place]
        gaps = set() if place in self._launched else {edge.gap for edge in call.after}
        if gaps == {"tool"} or gaps == {"human"}:
            return "tool" in gaps
        return any(part.kind == "tool" for part in call.fresh)

    def scaffold(self, first: int | None) -> _Row:
        """Tool definitions and system prompt of an agent, from the parts of its first call."""
        tools = system = covered = 0
        if first is not None:
            call = self._calls[first]
            parts = [part for part in call.fresh if part.kind == "definition"]
            system = sum(part.tokens for part in parts if part.name == "system")
            tools = sum(part.tokens for part in parts) - system
            covered = self._tokens[first] - call.fresh_tokens
        if tools:
            tools += covered
        elif system:
            system += covered
        return {"tool_tokens": tools, "system_tokens": system}

    def totals(self) -> _Row:
        """Tokens of the parent and of its subagents, and how many there are."""
        own = [entry for entry in self._shape.entries if isinstance(entry, int)]
        agents = [entry for entry in self._shape.entries if isinstance(entry, Agent)]
        parent, subagents = self._sum(own), self._sum([place for agent in agents for place in agent.calls])
        return {
            "parent_tokens": parent,
            "subagent_tokens": subagents,
            "combined_tokens": {name: parent[name] + subagents[name] for name in parent},
            "subagent_count": len(agents),
        }

    def _sum(self, places: Sequence[int]) -> dict[str, int]:
        return {
            "input": sum(self._tokens[place] for place in places),
            "output": sum(self._calls[place].answer_tokens for place in places),
        }


def _stop(tool_next: bool) -> _Row:
    """What the answer was, from what came behind it."""
    if tool_next:
        return {"output_types": ["text", "tool_use"], "stop": "tool_use"}
    return {"output_types": ["text"], "stop": "end_turn"}


def _models(calls: Iterable[Call]) -> list[str]:
    return list(dict.fromkeys(call.model for call in calls))


def _whole(number: float) -> int | float:
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded
