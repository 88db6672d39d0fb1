"""How the calls of a session lie in a WEKA file, or why they cannot. See :mod:`workloom.traces.weka.write`."""

from __future__ import annotations

from msgspec import Struct, field

from workloom.session import Session

_NESTED = "sessions left out: a subagent is launched by another subagent or by an earlier call than the last"
_WAITS = "sessions left out: a call waits for others than the one before it and the subagents launched behind that"


class Agent(Struct):
    """A chain of calls in a session. `joined`: whether a later call of the parent waits for it."""

    calls: list[int] = field(default_factory=list)
    spawner: int | None = None
    joined: bool = False


class Shape(Struct):
    """What stands in a file, in order: calls of the parent, by place in the session, and subagents."""

    entries: list[int | Agent] = field(default_factory=list)
    waits_for: dict[int, list[Agent]] = field(default_factory=dict)
    """The subagents that a call of the parent waits for."""


def shape_of(session: Session) -> Shape | str:
    """How a session lies in a file, or why it cannot."""
    agents = {call.agent for call in session.calls}
    parent = "main" if "main" in agents else session.calls[0].agent
    shape, subagents = Shape(), dict[str, Agent]()
    last: int | None = None
    launched: list[Agent] = []
    at = {call.id: place for place, call in enumerate(session.calls)}
    for place, call in enumerate(session.calls):
        before = {at[edge.call] for edge in call.after}
        if call.agent == parent:
            waits_for = [agent for agent in launched if agent.calls[-1] in before]
            if before != {*([] if last is None else [last]), *(agent.calls[-1] for agent in waits_for)}:
                return _WAITS
            for agent in waits_for:
                agent.joined = True
            shape.entries.append(place)
            shape.waits_for[place] = waits_for
            last, launched = place, []
        elif (known := subagents.get(call.agent)) is not None:
            if before != {known.calls[-1]}:
                return _WAITS
            if known.joined:
                return _WAITS
            known.calls.append(place)
        else:
            if before != ({last} if last is not None else set()):
                return _NESTED
            agent = subagents[call.agent] = Agent([place], last)
            shape.entries.append(agent)
            launched.append(agent)
    return shape
