"""What the prompts of pi and OpenClaw are made of, as far as their traces tell.

first call of an agent    [scaffold: system prompt, tool definitions] [user]        the scaffold is not in the trace
a later one               [all that was before, its answer] [tool results, messages]
shortened or compacted    [scaffold] [summary] [history that was kept, rewritten] [tool results, messages]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workloom.session import Inherit, Part, Span
from workloom.traces.reading import Report
from workloom.traces.turns import Turn, apportion, continued

SCAFFOLD = "scaffold"
HISTORY = "history"


class Prompt(NamedTuple):
    """See :mod:`workloom.session`."""

    inherit: Inherit | None
    spans: tuple[Span, ...]
    fresh: tuple[Part, ...]

    @property
    def fresh_tokens(self) -> int:
        """What is not inherited."""
        return sum(part.tokens for part in self.fresh) + sum(span.tokens for span in self.spans)


class Before(NamedTuple):
    """The last answered call of the agent.

    `scaffold`: hidden tokens of the agent's first prompt. `thought`: prompt tokens of the first call whose reasoning
    may be in the context.
    """

    turn: Turn
    scaffold: int
    thought: int | None


def hidden(prompt: int, parts: Sequence[Part]) -> int:
    """Tokens of an agent's first prompt that are not visible in its trace."""
    return max(0, prompt - sum(part.tokens for part in parts))


def first(prompt: int, cached: int, parts: Sequence[Part]) -> Prompt:
    """The first prompt of an agent; what a cache already held of it is shared with the agents beside it."""
    scaffold = hidden(prompt, parts)
    if not scaffold:
        return Prompt(None, (), apportion(prompt, parts))
    shared = min(cached, scaffold)
    spans = (Span(SCAFFOLD, shared),) if shared else ()
    own = (Part("definition", scaffold - shared, SCAFFOLD),) if scaffold > shared else ()
    return Prompt(None, spans, (*own, *(part for part in parts if part.tokens)))


def following(
    before: Before, prompt: int, cached: int, parts: Sequence[Part], report: Report, *, compacted: bool = False
) -> Prompt:
    """The prompt of the call after `before`; `compacted`: the first part is a summary in place of the history."""
    last = before.turn
    kept = continued(last, prompt, cached)
    if not compacted and not kept.reset:
        return Prompt(kept.inherit, (), apportion(prompt - kept.tokens, parts, "injected"))
    if compacted:
        known = before.scaffold or cached
    elif before.thought is not None and before.thought <= prompt and asked(parts):
        report.infer("prompts after a message that leave out earlier reasoning: shared up to the first such answer")
        known = before.thought
    else:
        report.infer("prompts shorter than the one before for no reason that is told", bool(prompt))
        known = max(before.scaffold, cached)
    tokens = min(known, prompt, last.prompt)
    inherit = Inherit(last.id, tokens) if tokens else None
    return Prompt(inherit, (), _rewritten(prompt - tokens, parts))


def asked(parts: Sequence[Part]) -> bool:
    """Whether a message from outside is among what came in."""
    return any(part.kind != "tool" for part in parts)


def thought(before: Before | None, prompt: int, parts: Sequence[Part], thinks: bool, compacted: bool) -> int | None:
    """`Before.thought` for the call that follows this one."""
    mine = prompt if thinks else None
    if before is None or compacted or asked(parts) or prompt < before.turn.prompt:
        return mine
    return mine if before.thought is None else before.thought


def _rewritten(total: int, parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts, and older text in the room they leave, behind the summary if there is one."""
    rest = total - sum(part.tokens for part in parts)
    if rest <= 0:
        return apportion(total, parts)
    at = 1 if parts and parts[0].kind == "summary" else 0
    told = [*parts[:at], Part("injected", rest, HISTORY), *parts[at:]]
    return tuple(part for part in told if part.tokens)


def explain(report: Report) -> None:
    """The assumptions made here."""
    report.assume(
        "the scaffold (system prompt and tool definitions) is not in the trace: it is taken to be the first prompt of"
        " an agent less the text that is visible, and to stay the same"
    )
    report.assume(
        "of the first prompts of a session's agents, what the provider read from its cache is taken to be one text"
        " that these agents share"
    )
    report.assume(
        "other prompts shorter than the one before share the scaffold with it, or more if the cache held more; the"
        " rest is fresh"
    )


def median(values: Sequence[int]) -> float:
    """The middle value, or the mean of the two (`statistics` is slow to import); 0 of nothing."""
    ordered, half = sorted(values), len(values) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2 if ordered else 0
