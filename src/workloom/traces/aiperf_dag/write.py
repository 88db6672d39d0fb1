"""Sessions as AIPerf's conversation DAG (`dag_jsonl`): one conversation a line, branches by name.

A conversation is a chain of turns; AIPerf appends each turn's messages, and the answer that came, to all before. So
only what is new in a prompt is written. What does not go on where the turn before ended is a conversation of its own:

    fork     begins with all its parent had; nothing waits for it
    spawn    begins with nothing (what it shares is written again, word for word); a later turn may wait for it,
             or it stands behind its parent's last turn

Where a prompt keeps its history but not the answer that came, AIPerf's own mode cannot be right. Then the session is
written with `context_mode: deltas_with_responses`: answers are texts of the file, those of the server are thrown away.
A conversation that joins and forgets at once needs `message_array_with_responses`: all of every prompt is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.prefix import Key
from workloom.prompt import Prompt, planned
from workloom.session import Call, Header, Session
from workloom.traces.aiperf_dag.rows import ARRAYS, CANNED
from workloom.traces.aiperf_dag.shape import Conversation, shape
from workloom.traces.aiperf_dag.text import beginning, words
from workloom.traces.block_ids import LONGEST_PROMPT
from workloom.traces.instants import instants
from workloom.traces.reading import Report
from workloom.traces.turns import exact

_LONG = f"sessions left out: a prompt or answer of more than {LONGEST_PROMPT:,} tokens"
_HUGE = f"sessions left out: whole prompts would have to be written, more than {LONGEST_PROMPT:,} tokens"
_WHOLE = f"conversations written with whole prompts ({ARRAYS}): their joins fit in no other way"
_EMPTY = "prompts without text, written as one word"
_CANNED = f"sessions written with answers of their own ({CANNED}): a prompt drops an answer or part of one"
_UNEVEN = "joins whose edges wait differently, written as one delay behind the last"
_SILENT = "answers of no tokens, written as one (max_tokens)"
_HUNG_UP = "answers cut where their client hung up"

_Row = dict[str, object]


def write(path: Path, header: Header, sessions: Iterable[Session], report: Report) -> list[int]:
    """Write all sessions to one file; the places of those left out are returned."""
    out: list[int] = []
    taken: set[str] = set()
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for place, session in enumerate(sessions):
            lines = _lines(session, place, taken, report)
            if isinstance(lines, str):
                report.drop(lines)
                out.append(place)
                continue
            for line in lines:
                file.write(encode(line) + b"\n")
    report.assume(
        "the texts of the prompts are made of common words, one a token, unless the import kept what they say"
    )
    return out


def _lines(session: Session, place: int, taken: set[str], report: Report) -> Iterator[_Row] | str:
    """The conversations of a session, or why there are none."""
    prompts = planned(session, place)
    if any(max(prompt.tokens, call.output_tokens) > LONGEST_PROMPT for call, prompt in prompts):
        return _LONG
    answers = {prompt.answer_number for _, prompt in prompts}
    laid = shape(prompts, "live")
    canned = isinstance(laid, str) or _repeats(laid, prompts, answers)
    if canned:
        laid = shape(prompts, "canned")
    if isinstance(laid, str):
        laid = shape(prompts, "together")
    if isinstance(laid, str):
        return laid
    for conversation in laid:
        if conversation.whole:
            if sum(prompts[turn][1].tokens for turn in conversation.turns) > LONGEST_PROMPT:
                return _HUGE
            report.infer(_WHOLE)
    if canned:
        report.infer(_CANNED)
    return _Lines(session, prompts, laid, canned, report).rows(_names(session, laid, taken, report))


def _repeats(laid: list[Conversation], prompts: list[tuple[Call, Prompt]], answers: set[int]) -> bool:
    """Whether a conversation that begins anew begins with an answer the server gave to another."""
    return any(not answers.isdisjoint(prompts[c.turns[0]][1].key.ids) for c in laid if c.how != "fork")


def _names(session: Session, laid: list[Conversation], taken: set[str], report: Report) -> list[str]:
    """The session's id for its first conversation, and that with a number for each other."""
    root, copy = session.id or "session", 1
    while root in taken:
        root, copy = f"{session.id}#{copy}", copy + 1
    if root != session.id:
        report.infer("sessions under another id: theirs was taken or empty")
    names, number = [root], 0
    while len(names) < len(laid):
        number += 1
        if f"{root}/{number}" not in taken:
            names.append(f"{root}/{number}")
    taken.update(names)
    return names


class _Text(Struct):
    """What a text says, if that is known, and whose it is."""

    role: str
    says: str | None = None
    tokens: int = 0


class _Lines:
    def __init__(
        self,
        session: Session,
        prompts: list[tuple[Call, Prompt]],
        laid: list[Conversation],
        canned: bool,
        report: Report,
    ) -> None:
        self._prompts, self._laid, self._canned, self._report = prompts, laid, canned, report
        self._times = instants(session)
        self._texts: dict[int, _Text] = {}
        for call, prompt in prompts:
            for piece, part in zip(prompt.pieces[len(call.spans) :], call.fresh, strict=True):
                role = "system" if part.kind == "definition" else "user"
                self._texts[piece.text] = _Text(role, part.text, part.tokens)
            answer = None if call.recorded is None else call.recorded.answer
            self._texts[prompt.answer_number] = _Text("assistant", answer, call.answer_tokens)

    def rows(self, names: list[str]) -> Iterator[_Row]:
        for number, conversation in enumerate(self._laid):
            row: _Row = {"session_id": names[number]}
            if self._canned:
                row["context_mode"] = ARRAYS if conversation.whole else CANNED
            if number == 0 and (early := [names[i] for i, other in enumerate(self._laid) if other.how == "early"]):
                row["pre_session_spawns"] = early
            row["turns"] = [self._turn(number, turn, names) for turn in range(len(conversation.turns))]
            yield row

    def _turn(self, number: int, turn: int, names: list[str]) -> _Row:
        conversation = self._laid[number]
        call, prompt = self._prompts[conversation.turns[turn]]
        if call.answer_tokens < call.output_tokens:
            self._report.infer(_HUNG_UP)
        if not call.answer_tokens:
            self._report.infer(_SILENT)
        first = conversation.whole or (turn == 0 and conversation.how != "fork")
        row: _Row = {"messages": self._messages(prompt.key, self._had(number, turn), first)}
        if call.model:
            row["model"] = call.model
        row["max_tokens"] = max(1, call.answer_tokens)
        delay = self._delay(call)
        if delay:
            row["delay"] = delay
        row.update(self._branches(number, turn, names))
        return row

    def _had(self, number: int, turn: int) -> Key:
        """What stands before a turn's messages already."""
        conversation = self._laid[number]
        if conversation.whole:
            return Key()
        if turn:
            before = conversation.turns[turn - 1]
        elif conversation.how == "fork":
            before = self._laid[conversation.parent].turns[conversation.spawned_at]
        else:
            return Key()
        prompt = self._prompts[before][1]
        return prompt.key if self._canned else prompt.key_with_answer()

    def _messages(self, key: Key, had: Key, first: bool) -> list[_Row]:
        """What a prompt has behind `had`. `first`: nothing stands before it, so it may begin with a system message."""
        messages: list[_Row] = []
        for index in range(len(had.ids), len(key.ids)):
            number, tokens = key.ids[index], key.ends[index] - (key.ends[index - 1] if index else 0)
            text = self._texts.get(number, _Text("system"))
            role = "user" if text.role == "system" and (messages or not first) else text.role
            says = words(number, tokens) if text.says is None else beginning(text.says, tokens, text.tokens)
            messages.append({"role": role, "content": says})
        if not messages:
            self._report.infer(_EMPTY)
            messages.append({"role": "user", "content": words(0, 1)})
        return messages

    def _delay(self, call: Call) -> float:
        """Milliseconds behind the last of what a turn waits for."""
        waits = {edge.wait_s for edge in call.after}
        if len(waits) > 1:
            self._report.infer(_UNEVEN)
            ends = {edge.call: self._times[edge.call].end_s for edge in call.after}
            due = max(ends[edge.call] + edge.wait_s for edge in call.after)
            waits = {exact(due - max(ends.values()))}
        return round(waits.pop() * 1000, 3) if waits else 0.0

    def _branches(self, number: int, turn: int, names: list[str]) -> _Row:
        conversation = self._laid[number]
        last = turn + 1 == len(conversation.turns)
        forks: list[object] = []
        spawns: list[object] = []
        joins: dict[int, list[str]] = {}
        for child in conversation.children.get(turn, ()):
            other = self._laid[child]
            if other.how == "fork":
                forks.append(names[child] if last else {"child": names[child], "background": True})
            elif other.joined_at in (None, turn + 1):
                spawns.append(names[child])
            else:
                joins.setdefault(other.joined_at, []).append(names[child])
        spawns += [{"children": children, "join_at": at} for at, children in sorted(joins.items())]
        return {**({"forks": forks} if forks else {}), **({"spawns": spawns} if spawns else {})}
