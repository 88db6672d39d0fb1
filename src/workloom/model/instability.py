"""How stable sessions are: how often their course changes or breaks, and how many tokens that costs.

The rules are told in :mod:`workloom.model.events`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from msgspec import Struct

from workloom.model import events
from workloom.model.events import Event
from workloom.model.facts import SessionFacts
from workloom.model.links import aborted, failed, links

TELLS_ABORTS = frozenset({"claude-code", "codex", "openclaw", "openclaw-dag"})
"""Formats (beginnings of `Session.origin`) that tell when a user hung up."""
TELLS_ERRORS = TELLS_ABORTS | {"burstgpt", "langfuse", "litellm", "otel"}
"""Formats that tell when a call failed."""


class Events(Struct, frozen=True):
    """Events of one kind; everything is None where the trace does not tell (see `not_known`).

    What the two costs count is told by the rule of each kind.
    """

    count: int | None = None
    calls_share: float | None = None
    """Calls at which it shows, of all calls."""
    per_1000_calls: float | None = None
    sessions: int | None = None
    """Sessions with at least one."""
    sessions_share: float | None = None
    tokens_recomputed: int | None = None
    """Prompt tokens computed once more because of these events."""
    tokens_recomputed_p50: float | None = None
    """Median over the events."""
    tokens_lost: int | None = None
    """Tokens computed before that nothing behind the event uses."""
    tokens_lost_p50: float | None = None


class Instability(Struct, frozen=True):
    """Events that bend or break the course of sessions.

    Compactions, rewinds, resets and edits exclude each other. Rewinds are of two forms: to an earlier context of the
    agent, and to an earlier call in the graph whose continuation was there. Tokens recomputed can be added up over
    the kinds. Tokens lost cannot: a branch may be compacted before it is abandoned.
    """

    sessions: int
    calls: int
    transitions: int
    """Calls that go on from another call of their agent."""
    prompt_tokens: int
    computed_tokens: int
    """Prompt tokens that an infinite cache of prompts and answers does not hold."""
    output_tokens: int
    compactions: Events
    context_resets: Events
    history_edits: Events
    retries: Events
    failures: Events
    aborts: Events
    self_corrections_at_most: Events
    """See :func:`workloom.model.events.same_tool_again`."""
    human_corrections: Events
    replans_by_user: Events
    """A human message while subagents run: see :func:`workloom.model.events.interruptions`."""
    replans_by_rewind: Events
    abandoned_branches: Events
    tokens_recomputed: int
    """By events of all known kinds."""
    recomputed_share: float | None
    """Of `computed_tokens`: how much of the prefill that no cache saves is work done before."""
    not_known: dict[str, str]
    """For every kind that is not known the reason."""


class InstabilitySection:
    """Counts events; memory: two numbers an event."""

    def __init__(self) -> None:
        self._sessions = self._calls = self._transitions = 0
        self._prompt = self._computed = self._output = 0
        self._tallies: dict[str, _Tally] = {}
        self._tells: set[str] = set()

    def add(self, facts: SessionFacts) -> None:
        linked = links(facts)
        self._sessions += 1
        self._calls += len(facts.calls)
        self._transitions += sum(previous is not None for previous in linked.previous)
        for c in facts.calls:
            self._prompt += c.prompt_tokens
            self._computed += c.reuse.fresh_tokens
            self._output += c.call.answer_tokens
        self._tells |= told(facts)
        found: dict[str, list[Event]] = {}
        for kind, event in events.history_changes(facts, linked):
            found.setdefault(kind, []).append(event)
        found.setdefault("rewind", []).extend(events.side_branches(facts, linked))
        found["retry"] = list(events.retries(facts, linked))
        found["failure"] = list(events.failures(facts, linked))
        found["abort"] = list(events.aborts(facts, linked))
        found["same tool"] = list(events.same_tool_again(facts, linked))
        found["correction"] = list(events.human_corrections(facts, linked))
        found["interruption"] = list(events.interruptions(facts, linked))
        found["abandoned"] = list(events.abandoned(facts, linked))
        for name, those in found.items():
            self._tallies.setdefault(name, _Tally()).add(those)

    def result(self) -> Instability:
        not_known = {name: reason for name, (needs, reason) in NEEDS.items() if needs not in self._tells}
        known = {
            field: Events() if field in not_known else self._events(self._tallies.get(kind, _Tally()))
            for field, kind in FIELDS.items()
        }
        recomputed = sum(one.tokens_recomputed or 0 for one in known.values())
        return Instability(
            sessions=self._sessions,
            calls=self._calls,
            transitions=self._transitions,
            prompt_tokens=self._prompt,
            computed_tokens=self._computed,
            output_tokens=self._output,
            **known,
            tokens_recomputed=recomputed,
            recomputed_share=recomputed / self._computed if self._computed else None,
            not_known=not_known,
        )

    def _events(self, tally: _Tally) -> Events:
        count = len(tally.lost)
        share = count / self._calls if self._calls else None
        return Events(
            count=count,
            calls_share=share,
            per_1000_calls=None if share is None else 1000 * share,
            sessions=tally.sessions,
            sessions_share=tally.sessions / self._sessions if self._sessions else None,
            tokens_recomputed=sum(tally.recomputed),
            tokens_recomputed_p50=_median(tally.recomputed),
            tokens_lost=sum(tally.lost),
            tokens_lost_p50=_median(tally.lost),
        )


FIELDS = {
    "compactions": "compaction",
    "context_resets": "reset",
    "history_edits": "edit",
    "retries": "retry",
    "failures": "failure",
    "aborts": "abort",
    "self_corrections_at_most": "same tool",
    "human_corrections": "correction",
    "replans_by_user": "interruption",
    "replans_by_rewind": "rewind",
    "abandoned_branches": "abandoned",
}
"""Fields of Instability and the kinds of events in them."""

NEEDS = {
    **dict.fromkeys(
        ("compactions", "context_resets", "history_edits", "replans_by_rewind"),
        ("histories", "no call of the trace inherits from another: what prompts have in common is not told"),
    ),
    "failures": ("errors", "no call of the trace has the status error, and its format is not known to tell it"),
    "aborts": ("aborts", "no call of the trace was aborted, and its format is not known to tell it"),
    "human_corrections": ("aborts", "they follow aborts, which the trace does not tell"),
    "self_corrections_at_most": ("tools", "no tool result of the trace has a name"),
    "replans_by_user": ("gaps", "no edge of the trace says what it stands for (tool, human, spawn)"),
}
"""What a trace has to tell for a kind to be known, and what is said if it does not."""


def told(facts: SessionFacts) -> set[str]:
    """What a session shows its trace to tell: errors, aborts, tools (their names), gaps, histories."""
    format_ = (facts.session.origin or "").partition(":")[0]
    out = {name for name, those in (("errors", TELLS_ERRORS), ("aborts", TELLS_ABORTS)) if format_ in those}
    for c in facts.calls:
        if failed(c.call):
            out.add("errors")
        if aborted(c.call):
            out.add("aborts")
        if any(part.kind == "tool" and part.name is not None for part in c.call.fresh):
            out.add("tools")
        if any(edge.gap != "none" for edge in c.call.after):
            out.add("gaps")
        if c.call.inherit is not None:
            out.add("histories")
    return out


class _Tally:
    """Events of one kind."""

    def __init__(self) -> None:
        self.sessions = 0
        self.recomputed, self.lost = array("q"), array("q")

    def add(self, those: Iterable[Event]) -> None:
        before = len(self.lost)
        for event in those:
            self.recomputed.append(event.recomputed_tokens)
            self.lost.append(event.lost_tokens)
        self.sessions += len(self.lost) > before


def _median(values: array[int]) -> float | None:
    from statistics import median

    return float(median(values)) if values else None
