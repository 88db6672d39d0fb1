"""The dag.json published with OpenClaw transcripts: nodes are calls, edges say what each waited for and continues.

    sequential         the call whose history it continues     is_history_parent
    subagent_spawn     the call that started its session
    subagent_result    the last call of a session whose result it received

One session a document: spawned sessions are its subagents. Parts of a document that no edge connects are sessions of
their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from workloom.errors import TraceError
from workloom.session import Call, Gap, Header, Part, PartKind, Recorded, Session, Status
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.lines import content
from workloom.traces.openclaw import prompt as prompts
from workloom.traces.openclaw.dag_rows import Document, Node
from workloom.traces.openclaw.order import ordered
from workloom.traces.openclaw.rows import epoch_s
from workloom.traces.reading import Intake, Report
from workloom.traces.turns import Done, Turn, edges, exact

RESULT = "subagent_result"
_STATUS: dict[str | None, Status] = {"error": "error", "aborted": "aborted"}
_GAPS: dict[str | None, Gap] = {"user": "human", "tool_result": "tool", RESULT: "orchestration"}

_decoder = msgspec.json.Decoder(Document)


class _Call(Struct, eq=False):
    """A node among its edges; instants in seconds since 1970. `after`: (call, type of edge)."""

    node: Node
    start_s: float
    end_s: float
    after: list[tuple[int, str]]
    history: int | None = None
    scaffold: int = 0
    thought: int | None = None
    id: str = ""


class Figures(Struct):
    """Counts of calls, by what is called fresh and output."""

    fresh: list[int] = []
    new: list[int] = []
    alone: list[int] = []
    output: list[int] = []

    def tell(self, report: Report) -> None:
        """Say what definition gives which figure."""
        if self.output:
            values = (self.new, self.alone, self.fresh, self.output)
            new, alone, fresh, output = (f"{prompts.median(counts):,.6g}" for counts in values)
            report.assume(
                f"medians over {len(self.output):,} calls: {new} by the document's new_tokens, which count the answer"
                f" before; {alone} without it; {fresh} fresh tokens as used here (what the prompt does not inherit,"
                f" by the provider's counts); {output} output tokens"
            )


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is such a document."""
    if re.match(rb'\s*\{\s*"(stats|sessions|nodes|edges)"\s*:', head) is None:
        return False
    keys = (rb'"timestamp_dispatched"\s*:', rb'"num_sessions"\s*:', rb'"is_history_parent"\s*:')
    return any(re.search(key, head) is not None for key in keys)


def header(path: Path) -> Header:
    """Stamps are wall-clock times."""
    return Header(source="openclaw-dag", common_clock=True)


def read(paths: Sequence[Path], intake: Intake) -> Iterator[Session]:
    """The session of each file; a bad file is one TraceError to `on_bad`. Memory: a file at a time."""
    figures = Figures()
    for path in paths:
        try:
            made = _sessions(path, intake.report, figures)
        except TraceError as error:
            intake.on_bad(error)
        else:
            yield from made
    figures.tell(intake.report)


def _sessions(path: Path, report: Report, figures: Figures) -> list[Session]:
    data = content(path)
    try:
        document = _decoder.decode(data)
    except DECODER_ERRORS as error:
        raise misfit(str(path), data, error, what="the file is not JSON") from None
    del data
    if not document.nodes:
        raise _fault(path, "nodes", "a graph has no calls", "at least one node", "none")
    calls = _linked(path, document)
    order = ordered([[before for before, _ in call.after] for call in calls], [call.start_s for call in calls])
    if order is None:
        raise _fault(path, "edges", "calls wait for each other in a circle", "a graph without circles", "a circle")
    told = {node.session_id for node in document.nodes}
    report.drop("sessions of the document without a call", sum(name not in told for name in document.sessions))
    prompts.explain(report)
    report.assume("every answer is taken to have reasoning in it: the document does not say")
    report.assume(
        "waits are taken from the stamps of the calls: the document's own leave out the subagents a call waits for"
    )
    report.assume(
        "of the document's new_tokens the previous answer is left out, since it is inherited; the other shares are"
        " scaled to what the prompt does not inherit"
    )
    return [_session(path, calls, group, report, figures) for group in _groups(calls, order)]


def _linked(path: Path, document: Document) -> list[_Call]:
    """The nodes with their edges, each once."""
    calls: list[_Call] = []
    places: dict[str, int] = {}
    for index, node in enumerate(document.nodes):
        if node.id in places:
            raise _fault(path, f"nodes[{index}].id", "two calls have one id", "ids unique in the document", node.id)
        places[node.id] = index
        start_s, end_s = epoch_s(node.timestamp_dispatched), epoch_s(node.timestamp_responded)
        assert start_s is not None and end_s is not None
        calls.append(_Call(node, start_s, max(start_s, end_s), []))
    seen: set[tuple[int, int]] = set()
    for index, link in enumerate(document.edges):
        for name, end in (("from", link.source), ("to", link.to)):
            if end not in places:
                raise _fault(path, f"edges[{index}].{name}", "an edge has an unknown end", "the id of a node", end)
        call, source = calls[places[link.to]], places[link.source]
        if link.is_history_parent:
            if call.history not in (None, source):
                where = f"edges[{index}].is_history_parent"
                raise _fault(path, where, "a call continues two others", "one history parent", link.source)
            call.history = source
        if (source, places[link.to]) not in seen:
            seen.add((source, places[link.to]))
            call.after.append((source, link.type))
    return calls


def _groups(calls: list[_Call], order: list[int]) -> list[list[int]]:
    """The calls of every part that hangs together, in order."""
    root = list(range(len(calls)))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for index, call in enumerate(calls):
        for source, _ in call.after:
            root[find(index)] = find(source)
    groups: dict[int, list[int]] = {}
    for index in order:
        groups.setdefault(find(index), []).append(index)
    return list(groups.values())


def _session(path: Path, calls: list[_Call], group: list[int], report: Report, figures: Figures) -> Session:
    agents: dict[str, str] = {}
    counts: dict[str, int] = {}
    for index in group:
        call, name = calls[index], calls[index].node.session_id
        agents.setdefault(name, f"subagent:{len(agents)}" if agents else "main")
        number = counts[name] = counts.get(name, -1) + 1
        call.id = f"c{number}" if agents[name] == "main" else f"a{agents[name].split(':')[1]}.{number}"
    zero_s = min(calls[index].start_s for index in group)
    late = sum(not calls[index].after and calls[index].start_s > zero_s for index in group)
    report.infer("calls that began later than their session and have no edge to say why: nothing holds them back", late)
    made = tuple(_call(calls[i], calls, agents[calls[i].node.session_id], zero_s, report, figures) for i in group)
    name = calls[group[0]].node.session_id or path.name.split(".")[0]
    return Session(name, made, start_s=zero_s, origin=f"openclaw-dag:{path.name}")


def _call(call: _Call, calls: list[_Call], agent: str, zero_s: float, report: Report, figures: Figures) -> Call:
    node, usage = call.node, call.node.usage
    start_s, end_s = exact(call.start_s - zero_s), exact(call.end_s - zero_s)
    waited: list[Done] = []
    for source, kind in call.after:
        gap: Gap = "spawn" if kind == "subagent_spawn" else "orchestration"
        if kind not in ("subagent_spawn", RESULT):
            gap = _GAPS.get(node.trigger, "none")
        done_s = exact(calls[source].end_s - zero_s)
        waited.append(Done(calls[source].id, done_s, done_s, gap))
    if waited and start_s < max(done.end_s for done in waited):
        report.infer("calls stamped to begin before what they wait for had ended: they wait 0 s")
    prompt = _prompt(call, calls, report)
    status = _STATUS.get(node.stop_reason, "ok")
    figures.fresh.append(prompt.fresh_tokens)
    new = node.new_tokens
    alone = new.from_tool_results + new.from_user_input + new.from_injected + new.other
    figures.alone.append(alone)
    figures.new.append(alone + new.from_previous_assistant)
    figures.output.append(usage.output)
    return Call(
        id=call.id,
        output_tokens=usage.output,
        after=edges(start_s, waited),
        agent=agent,
        model=node.model or "",
        inherit=prompt.inherit,
        spans=prompt.spans,
        fresh=prompt.fresh,
        stop_after=usage.output if status == "aborted" and usage.output else None,
        recorded=Recorded(start_s=start_s, end_s=end_s, cached_tokens=usage.cache_read, status=status),
    )


def _prompt(call: _Call, calls: list[_Call], report: Report) -> prompts.Prompt:
    usage = call.node.usage
    if call.history is None:
        parts = _parts(call, calls, ("tool", "user"))
        call.scaffold = prompts.hidden(usage.prompt, parts)
        call.thought = prompts.thought(None, usage.prompt, parts, True, False)
        report.infer("tokens of scaffold in first prompts", call.scaffold)
        return prompts.first(usage.prompt, usage.cache_read, parts)
    base = calls[call.history]
    if base.node.stop_reason in _STATUS and base.history is not None:
        call.history = base.history  # which is an answered call, if there is one: calls come in order
        base = calls[call.history]
    call.scaffold = base.scaffold
    turn = Turn(base.id, base.node.usage.prompt, base.node.usage.output)
    before = prompts.Before(turn, base.scaffold, base.thought)
    parts = _parts(call, calls, ("tool", "user", "injected"))
    call.thought = prompts.thought(before, usage.prompt, parts, True, False)
    return prompts.following(before, usage.prompt, usage.cache_read, parts, report)


def _parts(call: _Call, calls: list[_Call], kinds: Sequence[PartKind]) -> list[Part]:
    """What came in by the document's count, of these kinds; what is injected into a call with a result is that."""
    new = call.node.new_tokens
    reported = next((calls[source].id for source, kind in call.after if kind == RESULT), None)
    injected = new.from_injected + new.other
    sizes: dict[PartKind, int] = {"tool": new.from_tool_results, "user": new.from_user_input, "injected": injected}
    out = [Part(kind, sizes[kind]) for kind in kinds if sizes[kind]]
    if reported is None:
        return out
    return [Part("report", part.tokens, from_call=reported) if part.kind == "injected" else part for part in out]


def _fault(path: Path, field: str, what: str, expected: str, found: object) -> TraceError:
    return TraceError(what, where=f"{path}, {field}", expected=expected, found=found)
