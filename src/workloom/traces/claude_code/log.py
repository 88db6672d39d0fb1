"""From lines to what happened: which lines are one call, whose it is, what it follows and what was said in between.

Lines form a tree by `parentUuid`. A call is all assistant lines with one message id and request id; its results hang
below whichever of its lines asked for them, so they are found by the id of the tool call. Everything else that a call
answers lies on its path up to the call it continues:

    call P ─┬─ result of its first tool
            └─ result of its second ── hook ── what the user wrote ── call C          C continues P

A path across the boundary of a compaction, or into nothing, begins a new context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

from workloom.errors import TraceError
from workloom.session import PartKind
from workloom.traces.claude_code.nodes import Agent, Boundary, Call, Item, Node, Result, Use
from workloom.traces.claude_code.rows import Block, Inner, Line, Message, Row, attachment, manual, outcome, task
from workloom.traces.reading import Report

ABORTED = "[Request interrupted by user]"
INTERRUPTED = (ABORTED, "[Request interrupted by user for tool use]")
SYNTHETIC = "<synthetic>"
COLLECTORS = ("TaskOutput", "AgentOutputTool")
"""Tools that fetch what a subagent in the background has to say."""
ANSWERED_BY_USER = ("AskUserQuestion", "ExitPlanMode", "EnterPlanMode")
"""Tools whose result is the user's answer: waiting for it is waiting for a human."""
_NOTIFIED = re.compile(r"<task-notification>.{0,200}?<task-id>([\w-]{1,64})</task-id>", re.DOTALL)
_PICTURES = ("image", "document")
_MOST_ITEMS = 1000
"""Of texts that a call answers beside results; what is older is counted as not visible."""
MOST_STEPS = 1 << 22
"""How many lines may be walked up in a session, from calls to those they continue: a chain takes each once."""


class Log:
    """All that the files of a session tell. `seen`: keys of calls that other sessions already told."""

    def __init__(self, report: Report, seen: set[int], keep_text: bool) -> None:
        self.main = Agent(None)
        self.agents: list[Agent] = []
        self.uses: dict[str, Use] = {}
        self.boundaries: list[Boundary] = []
        self.items: list[Item] = []
        self._by_id: dict[str, Agent] = {}
        self._calls: dict[tuple[str, str], Call] = {}
        self._nodes: dict[str, Node] = {}
        self._seen = seen
        self._report = report
        self._keep_text = keep_text
        self._file = 0
        self._walked = 0
        self._extra = 0
        """Lines of calls behind their first."""

    def read(self, rows: Iterable[Row], agent: Agent | None = None) -> None:
        """Take in a file: of the session, or of one of its agents."""
        report = self._report
        self._file += 1
        if agent is not None:
            agent = self._known(agent)
        repeated = silent = failed = invented = 0
        for line, message in rows:
            if line.uuid is not None and line.uuid in self._nodes:
                repeated += 1
                continue
            if line.uuid is None and message is None:
                silent += 1
                continue
            node = self._place(line, agent)
            if message is None:
                failed += line.subtype == "api_error"
                silent += not self._attached(line, node)
            elif line.type == "assistant":
                if line.is_api_error_message or message.model == SYNTHETIC:
                    invented += 1
                else:
                    repeated += self._answer(line, message, node)
            else:
                self._said(line, message, node)
        report.drop("lines that carry no call: progress, snapshots, notes of the program", silent - failed)
        report.drop("API errors: tries that failed and were repeated", failed)
        if failed:
            report.assume("the time of a call holds its failed tries and the pauses between them")
        report.drop("answers the client made up itself, as after API errors: no call", invented)
        report.merge("lines that other files repeat", repeated)
        report.merge("lines behind the first of their API call", self._extra)
        self._extra = 0

    def finish(self) -> None:
        """Note the keys of the calls for the sessions that follow, and what nothing became of."""
        self._seen.update(map(hash, self._calls))
        self._report.drop("texts and tool results that no call follows", sum(not item.used for item in self.items))

    def unread(self) -> list[str]:
        """The subagents that results name and no file that was read is of."""
        results = [use.result for use in self.uses.values() if use.spawns and use.result is not None]
        ids = dict.fromkeys(result.agent_id for result in results if result.agent_id)
        return [agent_id for agent_id in ids if agent_id not in self._by_id]

    def agent_of(self, agent_id: str | None) -> Agent | None:
        return None if agent_id is None else self._by_id.get(agent_id)

    def _known(self, agent: Agent) -> Agent:
        """The agent, or the one of its id that is here already."""
        if agent.id is not None:
            if agent.id in self._by_id:
                return self._by_id[agent.id]
            self._by_id[agent.id] = agent
        self.agents.append(agent)
        return agent

    # -------------------------------------------------------------------------------------------------- the tree

    def _place(self, line: Line, agent: Agent | None) -> Node:
        """The node of a line, hung below the line it follows."""
        bound = line.subtype == "compact_boundary"
        above = line.logical_parent_uuid if bound else line.parent_uuid
        parent = None if above is None else self._nodes.get(above)
        if agent is None:
            agent = self._sidechain(line, parent) if line.is_sidechain else self.main
        node = Node(agent, parent)
        if parent is None and agent.last is not None:
            node.parent = agent.last
            node.reset = above is None
            if above is not None:
                self._report.infer("lines whose parent is in no file, taken to follow the line before")
        if bound:
            node.reset = True
            at_s = 0.0 if line.timestamp is None else line.timestamp.timestamp()
            self._bound(node, at_s, manual(line))
        agent.last = node
        if line.uuid is not None:
            self._nodes[line.uuid] = node
        return node

    def _bound(self, node: Node, at_s: float, manual: bool) -> None:
        node.boundary = Boundary(node.agent, at_s, manual)
        self.boundaries.append(node.boundary)

    def _sidechain(self, line: Line, parent: Node | None) -> Agent:
        """The agent of a subagent's line inside the file of its session."""
        if line.agent_id is None and parent is not None and parent.agent is not self.main:
            return parent.agent
        return self._known(Agent(line.agent_id))

    def _context(self, call: Call, node: Node | None) -> None:
        """What a call continues and what it answers, from its first line's parent up."""
        while node is not None and node.call is None:
            self._walked += 1
            if not call.reset and not call.elsewhere and len(call.items) < _MOST_ITEMS:
                call.items.extend(reversed(node.items))
            call.reset |= node.reset
            call.boundary = call.boundary or node.boundary
            call.elsewhere |= node.elsewhere
            node = node.parent
        call.items.reverse()
        if node is not None and node.call is not None:
            call.previous = node.call
            if not call.reset:
                results = [use.result for use in node.call.uses if use.result is not None]
                forked = node.agent is not call.agent
                call.results = [r for r in results if not forked or r.item.at_s <= call.first_s]
        for item in call.items:
            item.used = True
        for result in call.results:
            result.item.used = True

    # ---------------------------------------------------------------------------------------------------- lines

    def _answer(self, line: Line, message: Message, node: Node) -> bool:
        """A line of a call; True if another file already told it."""
        assert line.timestamp is not None
        at_s = line.timestamp.timestamp()
        key = (message.id or line.request_id or line.uuid or f"#{len(self._calls)}", line.request_id or "")
        call = self._calls.get(key)
        if call is None:
            told = hash(key)
            if told in self._seen:
                node.elsewhere = True
                return True
            call = self._calls[key] = Call(node.agent, message.model or "", self._file, at_s)
            self._context(call, node.parent)
            if self._walked > MOST_STEPS + 4 * len(self._nodes):
                what, expected = "a tree is too tangled", "few calls that share a long run of lines without an answer"
                raise TraceError(what, where=f"message {key[0]}, parentUuid", expected=expected, found="too many")
            node.agent.calls.append(call)
            if node.agent.start_s is None:
                node.agent.start_s = at_s
        elif call.file != self._file:
            node.call = call
            return True
        node.call = call
        self._extra += call.lines > 0
        call.lines += 1
        call.last_s = max(call.last_s, at_s)
        usage = message.usage
        if usage is not None:
            call.cached = usage.cache_read_input_tokens or 0
            call.prompt = (usage.input_tokens or 0) + call.cached + (usage.cache_creation_input_tokens or 0)
            call.outputs.append(usage.output_tokens or 0)
        blocks = [Block("text", text=message.content)] if isinstance(message.content, str) else message.content or []
        for block in blocks:
            self._spoken(call, block, at_s)
        return False

    def _spoken(self, call: Call, block: Block, at_s: float) -> None:
        """A block of an answer."""
        if block.text:
            call.chars += len(block.text)
            if self._keep_text:
                call.answer.append(block.text)
        if block.thinking:
            call.chars += len(block.thinking)
        if block.name is None:
            return
        use = Use(call, block.name, at_s)
        call.chars += len(block.name) + len(bytes(block.input))
        call.uses.append(use)
        if self._keep_text:
            call.answer.append(f"{block.name}({bytes(block.input).decode('utf-8', 'replace')})")
        if use.spawns or use.name in COLLECTORS:
            said = task(block)
            use.type = said.subagent_type
            use.prompt = None if said.prompt is None else _digest(said.prompt)
            use.collects = None if use.spawns else said.task_id or said.agent_id
        if block.id is not None:
            self.uses.setdefault(block.id, use)

    def _said(self, line: Line, message: Message, node: Node) -> None:
        """A user line: what the user wrote, results of tools, what the program put in."""
        assert line.timestamp is not None
        at_s = line.timestamp.timestamp()
        node.said = True
        if node.agent.start_s is None:
            node.agent.start_s = at_s
        if isinstance(message.content, str):
            node.items = (self._text(message.content, line, node, at_s),)
            return
        items = []
        for block in message.content or []:
            if block.type == "tool_result":
                item = self._result(block, line, at_s)
                items += [] if item is None else [item]
            elif block.text is not None:
                items.append(self._text(block.text, line, node, at_s))
            elif block.type in _PICTURES:
                items.append(self._item("injected" if line.is_meta else "user", at_s, None, pictures=1))
        node.items = tuple(items)

    def _text(self, text: str, line: Line, node: Node, at_s: float) -> Item:
        if node.parent is None and node.agent.prompt is None:
            node.agent.prompt = _digest(text)
        if line.is_compact_summary:
            node.reset = True
            if node.parent is None or node.parent.boundary is None:
                self._bound(node, at_s, False)
            return self._item("summary", at_s, text)
        notified = _NOTIFIED.match(text)
        if notified is not None:
            item = self._item("report", at_s, text)
            item.about = notified[1]
            return item
        if line.is_meta or text in INTERRUPTED:
            if text == ABORTED:
                self._aborted(node.parent)
            return self._item("injected", at_s, text)
        item = self._item("user" if node.agent.special is None else "injected", at_s, text)
        item.human = node.agent is self.main
        return item

    def _aborted(self, node: Node | None) -> None:
        """The user hung up: on the call that was answering, or on one that had not begun to."""
        while node is not None and node.call is None and not node.said:
            node = node.parent
        if node is not None and node.call is not None:
            node.call.aborted = True
        else:
            self._report.drop("calls that were aborted before they answered: the file tells nothing of them")

    def _result(self, block: Block, line: Line, at_s: float) -> Item | None:
        """A tool's result, kept with its tool call; it stands by itself where that is not known."""
        item = self._item("tool", at_s, None)
        texts = [block.content] if isinstance(block.content, str) else block.content
        _fill(item, texts if isinstance(texts, list) else [], self._keep_text)
        use = self.uses.get(block.tool_use_id or "")
        if use is None:
            self._report.infer("tool results whose tool call is in no file")
            return item
        if use.result is not None:
            self._report.drop("tool results that are told twice")
            item.used = True
            return None
        result = use.result = Result(use, item)
        result.agent_id = use.collects
        if use.spawns and (noted := outcome(line)) is not None:
            result.agent_id = noted.agent_id
            result.launched = noted.status == "async_launched" or bool(noted.is_async)
        return None

    def _attached(self, line: Line, node: Node) -> bool:
        """A line without a message; True if it is an attachment, which is part of the prompt."""
        if line.type != "attachment" or line.timestamp is None:
            return False
        said = attachment(line)
        item = self._item("injected", line.timestamp.timestamp(), None)
        prompt = None if said is None or said.type != "queued_command" else said.prompt
        if prompt is None:
            raw = bytes(line.attachment)
            item.chars, item.text = len(raw), raw.decode("utf-8", "replace") if self._keep_text else None
        else:
            _fill(item, [prompt] if isinstance(prompt, str) else prompt, self._keep_text)
            notified = _NOTIFIED.match(prompt) if isinstance(prompt, str) else None
            item.kind = "user" if notified is None else "report"
            item.about = None if notified is None else notified[1]
        node.items = (item,)
        return True

    def _item(self, kind: PartKind, at_s: float, text: str | None, pictures: int = 0) -> Item:
        item = Item(kind, at_s)
        item.pictures = pictures
        if text is not None:
            item.chars = len(text)
            item.text = text if self._keep_text else None
        self.items.append(item)
        return item


def _fill(item: Item, pieces: Iterable[Inner | str], keep_text: bool) -> None:
    texts = [piece if isinstance(piece, str) else piece.text or "" for piece in pieces]
    item.chars = sum(map(len, texts))
    item.pictures = sum(not isinstance(piece, str) and piece.type in _PICTURES for piece in pieces)
    item.text = "".join(texts) if keep_text else None


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
