"""From calls as telemetry shows them to a session: what each prompt inherits, which spans it begins with, what is new.

With recorded messages a prompt is a list of texts, and lists that begin alike share (`blocks.share`, with messages for
blocks). A call's own answer stands behind its messages, so a prompt that holds the answer of an ancestor inherits that
too:

    c0   tools system user                      ─► a0      tools and system: spans of the trace
    c1   tools system user a0 result            ─► a1      inherits all of c0, the result is fresh
    c2   tools system user a0 result' user'                an edit: inherits c0 and a0, the rest is fresh

Without messages a prompt is taken to continue the call before it of its agent and model (`turns.continued`).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from workloom.session import MOST_TOKENS, Call, Inherit, Part, PartKind, Recorded, Session, Span
from workloom.traces.blocks import Sharing, share
from workloom.traces.reading import Report
from workloom.traces.telemetry.message import MEDIA, Message, Piece
from workloom.traces.telemetry.observed import Node, Seen
from workloom.traces.telemetry.texts import numbered
from workloom.traces.turns import Done, Turn, apportion, continued, edges, estimate, exact

NO_MESSAGES = (
    "a prompt whose messages were not recorded continues the last call of its agent and model as far as its size allows"
)
BY_TEXT = (
    "what is new in a prompt is told apart by the characters of its messages; a scaffold (tools, system prompt) has a "
    "token for every 4 characters"
)
_BACK = 64
"""So many calls of an agent are looked at for the one that a prompt continues."""


def session(name: str, seen: list[Seen], nodes: list[Node], origin: str, report: Report, *, text: bool) -> Session:
    """The session of at least one call; its user and workflow are what any of its nodes names."""
    base_ns = seen[0].node.start_ns
    made = _Layout(seen, report, text).calls(base_ns)
    later = sum(not call.after and (call.recorded.start_s or 0.0) > 0.0 for call in made if call.recorded)
    report.infer("calls that began when no other had ended, due with the start of their session", later)
    if any(message.media for call in seen for message in call.node.messages):
        report.assume(MEDIA)
    user = next((node.user for node in nodes if node.user), None)
    workflow = next((node.workflow for node in nodes if node.workflow), None)
    return Session(name, made, start_s=exact(base_ns / 1e9), user=user, workflow=workflow, origin=origin)


class _Done(Struct):
    """A call that is laid out. `ends`: where each message ends in its prompt, in tokens."""

    turn: Turn
    ends: list[int]


class _Layout:
    def __init__(self, seen: list[Seen], report: Report, text: bool) -> None:
        self._seen, self._report, self._text = seen, report, text
        self._names = [f"c{i}" for i in range(len(seen))]
        self._above = _ancestors(seen)
        self._previous = self._continues()
        self._sizes()
        self._lists = numbered(seen, self._above, report)
        if any(self._lists):
            sharing = share(self._lists, self._previous, self._above, self._names)
        else:
            sharing = [Sharing(None, 0, ())] * len(seen)
        self._sharing = sharing
        self._tools = {
            tool_id: name for call in seen for m in _both(call.node) for tool_id, name in m.calls if tool_id and name
        }
        self._done: list[_Done] = []

    # ------------------------------------------------------------------------------------------------ before layout

    def _continues(self) -> list[int | None]:
        """For every call the last one of its agent and model that it came after."""
        last: dict[tuple[str, str], list[int]] = {}
        found: list[int | None] = []
        for index, call in enumerate(self._seen):
            mine = last.setdefault((call.agent, call.node.model), [])
            found.append(next((i for i in reversed(mine[-_BACK:]) if self._above[index] >> i & 1), None))
            mine.append(index)
        return found

    def _sizes(self) -> None:
        """Fill in what no count tells: from the next or last call of the agent, or an answer's text.

        A prompt with messages is left for when it is known what of them is inherited.
        """
        known: dict[tuple[str, str], int] = {}
        for call in self._seen:
            if call.node.prompt is not None:
                known[call.agent, call.node.model] = call.node.prompt
        for call in reversed(self._seen):
            node, key = call.node, (call.agent, call.node.model)
            if node.prompt is None:
                node.estimated += ("prompt_tokens",)
                if not node.messages:
                    node.prompt = known.get(key, 0)
                    self._report.infer("prompts of no known size, taken as large as the next or last of the agent's")
            if node.prompt is not None:
                known[key] = node.prompt
            if node.output is None:
                node.output = node.answer.tokens if node.answer else 0
                node.estimated += ("output_tokens",)
                what = "estimated from their text" if node.answer else "taken as 0"
                self._report.infer(f"outputs without a token count, {what}")

    # ------------------------------------------------------------------------------------------------------- layout

    def calls(self, base_ns: int) -> tuple[Call, ...]:
        """All calls; instants in seconds from `base_ns`."""
        out = []
        for index, call in enumerate(self._seen):
            node = call.node
            inherit, spans, fresh = self._prompt(index)
            start_s = exact((node.start_ns - base_ns) / 1e9)
            waited = [
                Done(
                    self._names[dep.call],
                    exact((self._seen[dep.call].node.done_ns - base_ns) / 1e9),
                    exact((dep.ready_ns - base_ns) / 1e9),
                    dep.gap,
                )
                for dep in call.deps
            ]
            estimated = node.estimated + (("spans",) if spans else ())
            out.append(
                Call(
                    id=self._names[index],
                    output_tokens=node.output or 0,
                    after=edges(start_s, waited),
                    agent=call.agent,
                    model=node.model,
                    inherit=inherit,
                    spans=spans,
                    fresh=fresh,
                    reasoning_tokens=min(node.reasoning, node.output or 0),
                    recorded=Recorded(
                        start_s=start_s,
                        first_s=None if node.first_ns is None else exact((node.first_ns - base_ns) / 1e9),
                        end_s=None if node.end_ns is None else exact((node.end_ns - base_ns) / 1e9),
                        cached_tokens=node.cached,
                        status=node.status,
                        streaming=node.streaming,
                        estimated=estimated,
                        answer=self._said(node) if self._text else None,
                    ),
                )
            )
        return tuple(out)

    def _said(self, node: Node) -> str | None:
        texts = [piece.text for piece in node.answer.pieces if piece.text] if node.answer else []
        return "\n".join(texts) or None

    def _prompt(self, index: int) -> tuple[Inherit | None, tuple[Span, ...], tuple[Part, ...]]:
        call, found = self._seen[index], self._sharing[index]
        node, before = call.node, self._previous[index]
        if node.prompt is None:
            _, ends = self._inherited(index, MOST_TOKENS, found)
            rest = sum(message.tokens for message in node.messages[len(ends) :])
            node.prompt = (ends[-1] if ends else 0) + rest
            self._report.infer("prompts without a token count, estimated from their messages")
        turn = Turn(self._names[index], node.prompt, node.output or 0, node.reasoning)
        unknown = not node.messages or (before is not None and not self._seen[before].node.messages)
        if found.ancestor is None and unknown:
            return self._by_size(index, turn, before)
        return self._by_messages(index, turn, found)

    def _by_size(
        self, index: int, turn: Turn, before: int | None
    ) -> tuple[Inherit | None, tuple[Span, ...], tuple[Part, ...]]:
        node = self._seen[index].node
        if before is None and node.messages:
            return self._by_messages(index, turn, self._sharing[index])
        inherit, tokens, again = None, 0, tuple[Part, ...]()
        if before is not None:
            self._report.assume(NO_MESSAGES)
            kept = continued(self._done[before].turn, turn.prompt, node.cached)
            inherit, tokens, again = kept.inherit, kept.tokens, kept.answer
            if kept.reset:
                self._report.infer("contexts that shrank: only what a provider's cache still held is kept of them")
        fresh, ends = self._fresh(index, turn.prompt - tokens, 0)
        self._done.append(_Done(turn, ends))
        return inherit, (), again + fresh

    def _by_messages(
        self, index: int, turn: Turn, found: Sharing
    ) -> tuple[Inherit | None, tuple[Span, ...], tuple[Part, ...]]:
        self._report.assume(BY_TEXT)
        messages = self._seen[index].node.messages
        inherit, ends = self._inherited(index, turn.prompt, found)
        begun, base = len(ends), ends[-1] if ends else 0
        names = [name for name, blocks in found.spans for _ in range(blocks)] if begun == found.blocks else []
        scaffold = next((at for at, message in enumerate(messages) if not message.scaffold), len(messages))
        spans: list[Span] = []
        named = min(max(scaffold, begun + len(names)), len(messages))
        limits = _limits(messages[begun:], named - begun, turn.prompt - base)
        for at in range(begun, named):
            tokens = limits[at - begun]
            base += tokens
            ends.append(base)
            if at < scaffold:
                spans.append(Span(messages[at].digest.hex(), tokens, "trace"))
            elif spans and spans[-1].name == names[at - begun]:
                spans[-1] = Span(spans[-1].name, spans[-1].tokens + tokens)
            else:
                spans.append(Span(names[at - begun], tokens))
        fresh, tail = self._fresh(index, turn.prompt - base, len(ends))
        ends += tail
        if ends:
            ends[-1] = turn.prompt
        self._done.append(_Done(turn, ends))
        return inherit, tuple(span for span in spans if span.tokens), fresh

    def _inherited(self, index: int, prompt: int, found: Sharing) -> tuple[Inherit | None, list[int]]:
        """What a prompt inherits by its messages, and where the inherited messages end in it."""
        if found.ancestor is None:
            return None, []
        before, other = self._done[found.ancestor], self._seen[found.ancestor].node
        ends = [min(end, prompt) for end in before.ends[: found.blocks]]
        if found.blocks <= len(before.ends):
            tokens = ends[-1]
            return (Inherit(before.turn.id, tokens) if tokens else None), ends
        message = self._seen[index].node.messages[found.blocks - 1]
        hidden = bool(before.turn.reasoning and not message.thinks)
        whole = before.turn.prompt + before.turn.output
        if prompt >= whole and not hidden:
            return Inherit(before.turn.id), [*ends, whole]
        if hidden:
            self._report.infer("answers whose reasoning was left out of the next prompt")
        elif other.output:
            self._report.infer("prompts too small for the answer that their messages hold, which is fresh text in them")
        tokens = min(before.turn.prompt, prompt)
        return (Inherit(before.turn.id, tokens) if tokens else None), ends

    def _fresh(self, index: int, total: int, at: int) -> tuple[tuple[Part, ...], list[int]]:
        """Messages from `at` on as fresh parts of `total` tokens, and where each ends in the prompt."""
        node = self._seen[index].node
        if not node.messages:
            return apportion(total, self._arrived(index), self._usual(index)), []
        messages, prompt = node.messages[at:], node.prompt or 0
        whole, done = sum(message.chars for message in messages), 0
        parts: list[Part] = []
        ends: list[int] = []
        for offset, message in enumerate(messages):
            number = self._lists[index][at + offset]
            made_by = self._names[-number - 1] if number < 0 else None
            parts += [self._part(index, piece, made_by) for piece in message.pieces]
            done += message.chars
            ends.append(prompt - total + (total * done // whole if whole else total))
        return apportion(total, parts, self._usual(index)), ends

    def _part(self, index: int, piece: Piece, made_by: str | None) -> Part:
        """A piece of a message; a tool's result with the tool's time, a subagent's as its report."""
        call = self._seen[index]
        name = piece.name or (self._tools.get(piece.tool_id) if piece.tool_id else None)
        if piece.kind != "tool":
            return Part(piece.kind, piece.tokens, piece.name, from_call=made_by, text=piece.text)
        reported = next((last for last, tool_id in call.reports if tool_id and tool_id == piece.tool_id), None)
        if reported is not None:
            return Part("report", piece.tokens, name, from_call=self._names[reported], text=piece.text)
        ran = next((tool for tool in call.tools if tool.tool_id and tool.tool_id == piece.tool_id), None)
        if ran is None and len(call.tools) == 1 and not call.tools[0].tool_id:
            ran = call.tools[0]
        seconds = None if ran is None else exact((ran.done_ns - ran.start_ns) / 1e9)
        return Part("tool", piece.tokens, name or (ran.name if ran else None), seconds, text=piece.text)

    def _arrived(self, index: int) -> list[Part]:
        """What came in before a call without messages: results of tools, reports of subagents."""
        call = self._seen[index]
        sizes = [estimate(tool.chars) for tool in call.tools if tool.chars]
        usual = max(1, sum(sizes) // len(sizes)) if sizes else 1
        parts = [
            Part(
                "tool",
                usual if tool.chars is None else estimate(tool.chars),
                tool.name,
                exact((tool.done_ns - tool.start_ns) / 1e9),
                text=tool.text,
            )
            for tool in call.tools
        ]
        for last, _ in call.reports:
            output = self._done[last].turn.output
            parts.append(Part("report", max(1, output if sizes or not parts else 1), from_call=self._names[last]))
        if call.asked and not parts:
            parts.append(Part("user", 1))
        return parts

    def _usual(self, index: int) -> PartKind:
        call = self._seen[index]
        return "tool" if any(dep.gap == "tool" for dep in call.deps) else "user"


def _limits(messages: Sequence[Message], first: int, tokens: int) -> list[int]:
    """The sizes of the first of `messages`, which have `tokens` together, as functions of their texts.

    Where that is more than their share of the tokens by characters, the last of them are cut: what two prompts begin
    with then has one size in both as far as it goes.
    """
    whole, mine = sum(message.chars for message in messages), sum(message.chars for message in messages[:first])
    left = tokens * mine // whole if whole else 0
    after = first
    out: list[int] = []
    for message in messages[:first]:
        after -= 1
        out.append(max(0, min(message.tokens, left - after)))
        left -= out[-1]
    return out


def _ancestors(seen: list[Seen]) -> list[int]:
    above: list[int] = []
    for call in seen:
        mine = 0
        for dep in call.deps:
            mine |= above[dep.call] | 1 << dep.call
        above.append(mine)
    return above


def _both(node: Node) -> tuple[Message, ...]:
    return (*node.messages, node.answer) if node.answer else node.messages
