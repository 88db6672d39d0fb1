"""What the parts of a workload say that does not go together."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.errors import nearest
from workloom.model.families import Fixed
from workloom.model.workload.spec import MOST_CALLS, Agent, Workload


def faults(workload: Workload) -> Iterator[str]:
    """Sentences, each with the place it is about."""
    if not workload.agents:
        yield "agents: a workload has at least one"
        return
    for i, kind in enumerate(workload.sessions):
        if kind.agent not in workload.agents:
            yield f"sessions[{i}].agent: {_no_agent(kind.agent, workload)}"
        if workload.order == "random" and kind.count != 1:
            yield f"sessions[{i}].count: it belongs to order: cycle; in random order a kind has a weight"
        if workload.order == "cycle" and kind.weight != 1:
            yield f"sessions[{i}].weight: it belongs to order: random; in a cycle a kind has a count"
    for name, agent in workload.agents.items():
        yield from (f"agents.{name}.{fault}" for fault in _agent_faults(agent, workload))


def _no_agent(name: str, workload: Workload) -> str:
    close = nearest(name, list(workload.agents))
    return f"there is no agent {name}" + (f"; did you mean {close}?" if close else "")


def _agent_faults(agent: Agent, workload: Workload) -> Iterator[str]:
    dag = bool(agent.graph or agent.widths)
    yield from _dag_faults(agent) if dag else ()
    for i, delegate in enumerate(agent.delegates):
        if delegate.agent not in workload.agents:
            yield f"delegates[{i}].agent: {_no_agent(delegate.agent, workload)}"
    if (dag or agent.calls != Fixed(1.0)) and not agent.turns:
        yield "turns: an agent of more than one call needs at least one kind of turn"
    for i, (gap, turn) in enumerate(agent.turns.items()):
        if i and turn.share is None:
            yield f"turns.{gap}: every turn but the first needs a share"
        if not i and turn.share is not None:
            yield f"turns.{gap}.share: the first turn takes what the others leave"
    names = [text.name for text in agent.scaffold]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield f"scaffold[{i}].name: two texts of one agent are called {name}"
    for number in agent.pauses:
        if number < 2:
            yield f"pauses.{number}: a pause comes before the second call or a later one"
    total = sum(agent.models.values())
    if agent.models and not 0.999 <= total <= 1.001:
        yield f"models: shares sum to {total:g}, not 1"


def _dag_faults(agent: Agent) -> Iterator[str]:
    """What a DAG is not told, and what it says that no DAG can be."""
    if agent.graph and agent.widths:
        yield "graph: a DAG is told by graph or by widths, not by both"
    for key in ("calls", "opening", "history", "delegates", "retries"):
        if getattr(agent, key) != getattr(Agent(agent.first), key):
            yield f"{key}: a DAG has none; they belong to agents that are loops"
    if len(agent.turns) > 1:
        yield "turns: a DAG has one kind of turn"
    if agent.widths and agent.widths[0] != 1:
        yield "widths: a DAG begins with one call"
    if sum(agent.widths) > MOST_CALLS:
        yield f"widths: a DAG has at most {MOST_CALLS:,} calls"
    for number, parents in enumerate(agent.graph):
        if number and not parents:
            yield f"graph[{number}]: a call after the first waits for at least one"
        if any(not 0 <= parent < number for parent in parents):
            yield f"graph[{number}]: a call waits for calls before it, not {list(parents)}"
        if len(set(parents)) < len(parents):
            yield f"graph[{number}]: a call waits for another once"
        if number in agent.history_of and agent.history_of[number] not in parents:
            yield f"history_of.{number}: a call goes on from one that it waits for"
    for number in agent.history_of:
        if not 0 <= number < len(agent.graph):
            yield f"history_of.{number}: the graph has no such call"
