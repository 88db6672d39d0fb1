"""From a tree of spans to calls with what each waited for: dependencies from time and parents.

An agent span is a scope: so is a tool span in which the model is called. Within a scope, time tells what waited for
what: an item waits for those that had ended when it began, but for those behind which another of these began.

    main   y0 ──► (tool) ──► y1 ──────────────► y2         y1 waits for y0 with gap tool, seconds of the tool
                              └► (task) z0 ─► z1 ┘         z0 is spawned by y1; y2 waits for y1 and for z1

Items of one scope that overlap in time are parallel.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import NamedTuple

from workloom.session import Gap
from workloom.traces.reading import Report
from workloom.traces.telemetry.observed import Dep, Node, Seen

MOST = 64
"""No call waits for more others than that: of more, for the last to end."""
JOINS = f"joins of more than {MOST} calls, kept for the last of them to end"
NONE = -1


def observe(nodes: list[Node], report: Report) -> list[Seen]:
    """The calls of a session in order of time, from the nodes of its traces."""
    tree = _Tree(nodes, report)
    return _Scopes(tree, report).seen()


class _Tree:
    """Nodes with parents that are there and go in no circle, and which scope each is in."""

    def __init__(self, nodes: list[Node], report: Report) -> None:
        index: dict[tuple[int, str], int] = {}
        self.nodes: list[Node] = []
        for node in nodes:
            if index.setdefault((node.trace, node.id), len(self.nodes)) == len(self.nodes):
                self.nodes.append(node)
        report.merge("spans that came twice", len(nodes) - len(self.nodes))
        self.parent = [
            NONE if node.parent is None else index.get((node.trace, node.parent), NONE) for node in self.nodes
        ]
        lost = sum(p == NONE and node.parent is not None for p, node in zip(self.parent, self.nodes, strict=True))
        report.infer("spans whose parent is not in the trace, taken as roots", lost)
        self.order = self._top_down(report)
        self._once(report)
        self._place()

    def _top_down(self, report: Report) -> list[int]:
        """Parents before children; spans in a circle of parents become roots."""
        children: list[list[int]] = [[] for _ in self.nodes]
        roots: list[int] = []
        for child, parent in enumerate(self.parent):
            (roots if parent == NONE else children[parent]).append(child)
        order: list[int] = []
        reached = [False] * len(self.nodes)
        starts = iter([*roots, *range(len(self.nodes))])
        circles = 0
        for start in starts:
            if reached[start]:
                continue
            if self.parent[start] != NONE:
                self.parent[start] = NONE
                circles += 1
            reached[start] = True
            queue = deque([start])
            while queue:
                node = queue.popleft()
                order.append(node)
                for child in children[node]:
                    if not reached[child]:
                        reached[child] = True
                        queue.append(child)
        report.infer("circles of spans, cut open", circles)
        return order

    def _once(self, report: Report) -> None:
        """Of model calls inside one another, one call seen by two tracers, keep the innermost that counts tokens."""
        counted = [False] * len(self.nodes)
        for node in reversed(self.order):
            mine = self.nodes[node]
            if mine.kind == "call":
                if counted[node]:
                    mine.kind = "other"
                    report.merge("spans around a model call that is a span of its own")
                counted[node] = counted[node] or mine.prompt is not None or mine.output is not None
            if counted[node] and self.parent[node] != NONE:
                counted[self.parent[node]] = True
        inside = [False] * len(self.nodes)
        for node in self.order:
            parent = self.parent[node]
            inside[node] = parent != NONE and (inside[parent] or self.nodes[parent].kind == "call")
            if inside[node] and self.nodes[node].kind == "call":
                self.nodes[node].kind = "other"
                report.merge("spans around a model call that is a span of its own")

    def _place(self) -> None:
        """Find the scopes and, for every node, its scope and the tool it runs in."""
        nearest = [NONE] * len(self.nodes)
        self.is_scope = [False] * len(self.nodes)
        for node in self.order:
            parent = self.parent[node]
            if parent != NONE:
                nearest[node] = parent if self.nodes[parent].kind in ("agent", "tool") else nearest[parent]
            if self.nodes[node].kind == "call" and nearest[node] != NONE:
                self.is_scope[nearest[node]] = True
        self.scope = [NONE] * len(self.nodes)
        self.tool = [NONE] * len(self.nodes)
        """The outermost tool span around a node, inside its scope."""
        for node in self.order:
            parent = self.parent[node]
            if parent == NONE:
                continue
            if self.is_scope[parent]:
                self.scope[node] = parent
                continue
            self.scope[node], self.tool[node] = self.scope[parent], self.tool[parent]
            if self.tool[node] == NONE and self.nodes[parent].kind == "tool":
                self.tool[node] = parent

    def carrier(self, scope: int) -> int:
        """The tool span that a scope is the work of."""
        return self.tool[scope] if self.tool[scope] != NONE or self.nodes[scope].kind != "tool" else scope


class _Item(NamedTuple):
    """A call, or a scope from its first call to its last."""

    start_ns: int
    end_ns: int
    node: int
    is_scope: bool


class _Scopes:
    def __init__(self, tree: _Tree, report: Report) -> None:
        self._tree, self._report, self._nodes = tree, report, tree.nodes
        calls = [i for i, node in enumerate(tree.nodes) if node.kind == "call"]
        self._calls = sorted(calls, key=lambda i: (tree.nodes[i].start_ns, tree.nodes[i].done_ns, i))
        self._rank = {node: rank for rank, node in enumerate(self._calls)}
        self._items: dict[int, list[_Item]] = {}
        self._tools: dict[int, list[int]] = {}
        self._carried: set[int] = set()
        self._exits: dict[int, list[int]] = {}
        self._entry: dict[int, list[Dep]] = {NONE: []}
        self._seen: dict[int, Seen] = {}
        self._collect()
        self._labels = self._named()

    def seen(self) -> list[Seen]:
        for scope in [NONE, *(node for node in self._tree.order if self._tree.is_scope[node])]:
            self._link(scope)
        out = [self._seen[node] for node in self._calls]
        for rank, call in enumerate(out):
            earlier = {dep.call: dep for dep in call.deps if dep.call < rank}
            call.deps = list(earlier.values())
            call.reports = [(last, tool_id) for last, tool_id in call.reports if last < rank]
        return out

    def _collect(self) -> None:
        """The items of every scope, from the innermost out, with the calls each scope ends with."""
        tree = self._tree
        for node in self._calls:
            item = _Item(self._nodes[node].start_ns, self._nodes[node].done_ns, node, False)
            self._items.setdefault(tree.scope[node], []).append(item)
        for node in reversed(tree.order):
            if tree.is_scope[node]:
                self._close(node)
        if NONE in self._items:
            self._items[NONE].sort()
        for node, mine in enumerate(self._nodes):
            if mine.kind == "tool" and not tree.is_scope[node] and tree.tool[node] == NONE:
                self._tools.setdefault(tree.scope[node], []).append(node)
        for tools in self._tools.values():
            tools.sort(key=lambda node: self._nodes[node].done_ns)

    def _close(self, scope: int) -> None:
        items = self._items[scope]
        items.sort()
        frontier = _Frontier()
        for item in sorted(items, key=lambda item: (item.end_ns, *item)):
            frontier.add(item)
        last: list[int] = []
        for item in self._kept(frontier):
            last += self._exits[item.node] if item.is_scope else [item.node]
        self._exits[scope] = sorted(last, key=lambda node: self._nodes[node].done_ns)[-MOST:]
        whole = _Item(items[0].start_ns, max(item.end_ns for item in items), scope, True)
        self._items.setdefault(self._tree.scope[scope], []).append(whole)
        carrier = self._tree.carrier(scope)
        if carrier != NONE:
            self._carried.add(carrier)

    def _named(self) -> dict[int, str]:
        """The agent of every scope: `main` is that of the first call or, if there is one, of calls in no scope."""
        labels: dict[int, str] = {NONE: "main"}
        tree, counts, standing = self._tree, dict[str, int](), dict[str, str]()
        loose = any(tree.scope[call] == NONE for call in self._calls)
        first = tree.scope[self._calls[0]] if self._calls else NONE
        while not loose and first != NONE and tree.scope[first] != NONE:
            first = tree.scope[first]
        for scope in sorted((s for s in self._items if s != NONE), key=lambda s: (self._items[s][0].start_ns, s)):
            node = self._nodes[scope]
            name = (node.name or node.kind).replace(":", "-")
            stands = not loose and tree.scope[scope] == NONE and node.kind == "agent"
            if stands and node.name == self._nodes[first].name:
                labels[scope] = "main"
            elif stands and name in standing:
                labels[scope] = standing[name]
            else:
                counts[name] = counts.get(name, 0) + 1
                labels[scope] = f"{name}:{counts[name]}"
                if stands:
                    standing[name] = labels[scope]
        return labels

    def _link(self, scope: int) -> None:
        """What every item of a scope waited for."""
        items = self._items.get(scope, [])
        tools = deque(node for node in self._tools.get(scope, ()) if node not in self._carried)
        ended = deque(sorted(items, key=lambda item: (item.end_ns, *item)))
        calls, all_ = _Frontier(), _Frontier()
        for item in items:
            while ended and ended[0].end_ns <= item.start_ns and ended[0] < item:
                before = ended.popleft()
                all_.add(before)
                if not before.is_scope:
                    calls.add(before)
            direct = [other.node for other in self._kept(calls)]
            joined = [other.node for other in self._kept(all_) if other.is_scope]
            if item.is_scope:
                self._entry[item.node] = self._entered(scope, item.node, direct, joined)
                continue
            ran = []
            while tools and self._nodes[tools[0]].done_ns <= item.start_ns:
                ran.append(self._nodes[tools.popleft()])
            self._seen[item.node] = self._waited(scope, item.node, direct, joined, ran)

    def _kept(self, frontier: _Frontier) -> list[_Item]:
        if len(frontier) > MOST:
            self._report.infer(JOINS)
        return frontier.latest()

    def _waited(self, scope: int, call: int, direct: list[int], joined: list[int], ran: list[Node]) -> Seen:
        node, tree = self._nodes[call], self._tree
        seen = Seen(node, self._labels[scope], [], ran)
        tool = bool(ran) or any(tree.carrier(z) != NONE for z in joined) or _last_kind(node) == "tool"
        done_ns = max((tool_node.done_ns for tool_node in ran), default=0)
        for before in direct:
            other = self._nodes[before]
            asked = other.trace != node.trace or (scope == NONE and _last_kind(node) == "user" and other.status == "ok")
            gap: Gap = "tool" if tool else "human" if asked else "orchestration"
            seen.deps.append(Dep(self._rank[before], max(other.done_ns, done_ns), gap))
        for z in joined:
            carrier = tree.carrier(z)
            seen.deps += self._ends(z, node)
            tool_id = None if carrier == NONE else self._nodes[carrier].tool_id
            if self._nodes[z].trace == node.trace:
                seen.reports += [(self._rank[last], tool_id) for last in self._exits[z]]
        if not seen.deps:
            seen.deps = list(self._entry[scope])
        if len(seen.deps) > MOST:
            self._report.infer(JOINS)
            seen.deps = sorted(seen.deps, key=lambda dep: dep.ready_ns)[-MOST:]
        seen.asked = any(dep.gap == "human" for dep in seen.deps)
        return seen

    def _ends(self, scope: int, node: Node) -> list[Dep]:
        """What `node` waits for if it waits for the end of a scope, and of the tool that it is the work of."""
        carrier = self._tree.carrier(scope)
        gap: Gap = "tool" if carrier != NONE else "orchestration"
        if self._nodes[scope].trace != node.trace:
            gap = "human"
        ready_ns = 0
        if carrier != NONE and self._nodes[carrier].done_ns <= node.start_ns:
            ready_ns = self._nodes[carrier].done_ns
        return [Dep(self._rank[last], max(ready_ns, self._nodes[last].done_ns), gap) for last in self._exits[scope]]

    def _entered(self, outer: int, scope: int, direct: list[int], joined: list[int]) -> list[Dep]:
        """What the first calls of a scope waited for: a call that spawns it, or scopes before it."""
        trace = self._nodes[scope].trace
        deps = []
        for before in direct:
            spawned: Gap = "spawn" if self._nodes[before].trace == trace else "human"
            deps.append(Dep(self._rank[before], self._nodes[before].done_ns, spawned))
        for z in joined:
            again = self._nodes[z].trace != trace or self._labels[z] == self._labels[scope]
            gap: Gap = "human" if again else "orchestration"
            deps += [Dep(self._rank[last], self._nodes[last].done_ns, gap) for last in self._exits[z]]
        return deps or list(self._entry[outer])


class _Frontier:
    """Of items that ended so far, given in that order, those behind which no other of them began."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._youngest: _Item | None = None

    def add(self, item: _Item) -> None:
        if self._youngest is None or item.start_ns >= self._youngest.start_ns:
            self._youngest = item
        self._items.append(item)
        while self._items[0].end_ns <= self._youngest.start_ns and self._items[0] is not self._youngest:
            self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)

    def latest(self) -> list[_Item]:
        """The last to end of them, MOST at most."""
        return list(islice(reversed(self._items), MOST))[::-1]


def _last_kind(node: Node) -> str | None:
    return node.messages[-1].kind if node.messages else None
