"""Calls without links, brought into an order of what waited for what: by time, messages and ids of tool calls.

A call continues the one whose messages are the longest beginning of its own; calls that continue one another are a
thread. A thread that begins beside another's is a subagent of the call whose tools were running then:

    main    c0 ──── (tools of c0 run) ──► c3     c3's messages continue c0's: they hold the results
    task:1        └► c1 ─► c2 ────────────┘      c1 shares nothing with c0 but the scaffold

Any other thread begins behind what had ended before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from workloom.session import Gap
from workloom.traces.reading import Report
from workloom.traces.telemetry.message import Message
from workloom.traces.telemetry.observed import Dep, Node, Seen

MOST = 64
"""So many calls that a call may continue, or wait for, are looked at."""
OVERLAP_NS = 2_000_000_000
"""A call whose messages hold an answer may begin so long before the log says that the answer ended."""


def thread(calls: list[Node], report: Report) -> list[Seen]:
    """The calls in order of time, each once, with what they waited for."""
    once: dict[str, Node] = {}
    for call in calls:
        once.setdefault(call.id, call)
    report.merge("calls that were logged twice", len(calls) - len(once))
    nodes = sorted(once.values(), key=lambda node: (node.start_ns, node.done_ns))
    return _Threads(nodes, report).seen()


class _Threads:
    def __init__(self, nodes: list[Node], report: Report) -> None:
        self._nodes, self._report = nodes, report
        self._after: list[int | None] = []
        """The call that each continues."""
        self._thread: list[int] = []
        self._last: list[int] = []
        """The last call of each thread."""
        self._first: list[int] = []
        self._holders: dict[bytes, list[int]] = {}
        """By a beginning of messages, the latest calls that begin so."""
        self._link()

    def seen(self) -> list[Seen]:
        spawned = self._spawned()
        labels = self._labels(spawned)
        out = []
        for index, node in enumerate(self._nodes):
            call = Seen(node, labels[self._thread[index]], [])
            before = self._after[index]
            if before is not None:
                call.deps.append(Dep(before, self._nodes[before].done_ns, self._gap(node, self._nodes[before])))
            elif index in spawned:
                caller = spawned[index]
                call.deps.append(Dep(caller, self._nodes[caller].done_ns, "spawn"))
            else:
                call.deps = self._behind(index)
            call.reports = self._reports(before, self._joined.get(index, []))
            for last, _ in call.reports:
                call.deps.append(Dep(last, self._nodes[last].done_ns, "tool"))
            call.asked = any(dep.gap == "human" for dep in call.deps)
            out.append(call)
        return out

    def _labels(self, spawned: dict[int, int]) -> list[str]:
        """The main thread is the longest of those that no call spawned."""
        lengths = [0] * len(self._first)
        for mine in self._thread:
            lengths[mine] += 1
        roots = [number for number, first in enumerate(self._first) if first not in spawned]
        main = max(roots, key=lambda number: (lengths[number], -number))
        return ["main" if number == main else f"agent:{number}" for number in range(len(self._first))]

    def _reports(self, caller: int | None, joined: list[int]) -> list[tuple[int, str | None]]:
        """The last calls of subagents with the tool calls they answer, if there are as many of one as of the other."""
        answer = None if caller is None else self._nodes[caller].answer
        ids = [tool_id for tool_id, _ in answer.calls] if answer else []
        if len(ids) != len(joined):
            return [(last, None) for last in joined]
        return list(zip(joined, ids, strict=True))

    def _link(self) -> None:
        """Which call each continues, and its thread."""
        for index, node in enumerate(self._nodes):
            keys = list(_beginnings(node.messages))
            before = self._longest(node, keys) if keys else self._latest(index)
            self._after.append(before)
            if before is None:
                self._thread.append(len(self._first))
                self._first.append(index)
                self._last.append(index)
            else:
                self._thread.append(self._thread[before])
                self._last[self._thread[before]] = index
            for key in keys:
                holders = self._holders.setdefault(key, [])
                holders.append(index)
                del holders[:-MOST]

    def _longest(self, node: Node, keys: list[bytes]) -> int | None:
        """Of the calls that ended before, the one that shares most messages beyond the scaffold; the latest of them."""
        scaffold = sum(1 for message in node.messages if message.scaffold)
        shared = len(node.messages)
        for key in reversed(keys):
            if shared <= scaffold:
                break
            found = [i for i in reversed(self._holders.get(key, ())) if self._ended(i, node, shared)]
            if found:
                return next((i for i in found if self._answer_held(i, node, shared)), found[0])
            shared -= 1
        return None

    def _answer_held(self, other: int, node: Node, shared: int) -> bool:
        """Whether a call's prompt is all that `node` shares with it, and its answer comes next in `node`."""
        before = self._nodes[other]
        if shared != len(before.messages) or shared >= len(node.messages) or before.answer is None:
            return False
        held = node.messages[shared]
        return held.kind == "answer" and held.answers(before.answer)

    def _ended(self, other: int, node: Node, shared: int) -> bool:
        """Whether a call was done when `node` began; its end is set back if `node` holds its answer."""
        before = self._nodes[other]
        if before.done_ns <= node.start_ns:
            return True
        late = before.done_ns - node.start_ns <= OVERLAP_NS and before.start_ns < node.start_ns
        if not late or not self._answer_held(other, node, shared):
            return False
        before.end_ns = node.start_ns
        if before.first_ns is not None:
            before.first_ns = min(before.first_ns, before.end_ns)
        self._report.infer("ends set back to the start of a call that holds the answer")
        return True

    def _latest(self, index: int) -> int | None:
        """Without messages: the last call of the model that had ended."""
        node = self._nodes[index]
        for other in range(index - 1, max(-1, index - 1 - MOST), -1):
            if self._nodes[other].done_ns <= node.start_ns and self._nodes[other].model == node.model:
                self._report.assume("calls without messages follow the last call of their model in the session")
                return other
        return None

    def _gap(self, node: Node, before: Node) -> Gap:
        if not node.messages:
            self._report.assume("what calls without messages waited for is not known: their waits are of gap none")
            return "none"
        if before.status == "error":
            return "orchestration"
        kind = node.messages[-1].kind
        return "tool" if kind == "tool" else "human" if kind == "user" else "orchestration"

    def _spawned(self) -> dict[int, int]:
        """For first calls of threads, the call whose tools were running then; sets which calls join them."""
        self._joined: dict[int, list[int]] = {}
        spawned: dict[int, int] = {}
        open_: list[tuple[int, int]] = []  # (the call whose tools run, the call that gets their results)
        next_: dict[int, int] = {}
        for index, before in enumerate(self._after):
            if before is not None:
                next_.setdefault(before, index)
        for index, node in enumerate(self._nodes):
            if self._after[index] is None and index:
                last = self._last[self._thread[index]]
                for caller, heir in reversed(open_[-MOST:]):
                    ended = self._nodes[caller].done_ns <= node.start_ns
                    if ended and heir > last and self._nodes[last].done_ns <= self._nodes[heir].start_ns:
                        spawned[index] = caller
                        self._joined.setdefault(heir, []).append(last)
                        break
            heir = next_.get(index, -1)
            if heir >= 0 and node.answer is not None and node.answer.calls:
                open_.append((index, heir))
            open_ = [pair for pair in open_ if pair[1] > index]
        self._report.infer("subagents, found by calls that ran while a tool did and share no message", len(spawned))
        return spawned

    def _behind(self, index: int) -> list[Dep]:
        """For the first call of a thread: the last call that had ended."""
        start_ns = self._nodes[index].start_ns
        done = [i for i in range(max(0, index - MOST), index) if self._nodes[i].done_ns <= start_ns]
        if not done:
            return []
        last = max(done, key=lambda i: (self._nodes[i].done_ns, i))
        self._report.infer("calls that continue no other, put behind the last that had ended")
        return [Dep(last, self._nodes[last].done_ns, "orchestration")]


def _beginnings(messages: tuple[Message, ...]) -> Iterator[bytes]:
    """A digest of the first message, of the first two, and so on."""
    chain = blake2b(digest_size=12)
    for message in messages:
        chain.update(message.digest)
        yield chain.digest()
