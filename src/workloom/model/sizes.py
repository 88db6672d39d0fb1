"""How large calls are, and what their fresh text is: tokens by kind of part and by tool."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from msgspec import Struct

from workloom.model.distribution import Distribution, distribution
from workloom.model.facts import SessionFacts
from workloom.session import Part, PartKind

TOOLS = 20
"""Tools that are listed by name."""


class Tokens(Struct, frozen=True):
    """Tokens of one sort."""

    total: int
    per_call: Distribution


class FreshKind(Struct, frozen=True):
    """Fresh text of one kind."""

    kind: PartKind
    parts: int
    tokens: int
    share: float | None
    """Of all fresh tokens."""


class Tool(Struct, frozen=True):
    """Results of the tools of one name ('' for those without)."""

    name: str
    results: int
    tokens: int
    seconds: float
    """How long the tools ran: the sum over results that tell it."""
    timed: int
    """Results that tell how long the tool ran."""


class Sizes(Struct, frozen=True):
    """Tokens of calls.

    fresh       in parts of the call's own: neither inherited nor a span
    computed    prompt tokens that an infinite cache of prompts and answers does not hold: fresh ones, and spans where
                they come first
    reasoning   within the output
    """

    calls: int
    prompt_tokens: Tokens
    fresh_tokens: Tokens
    computed_tokens: Tokens
    output_tokens: Tokens
    reasoning_tokens: Tokens
    kinds: tuple[FreshKind, ...]
    """What fresh text is made of, most tokens first."""
    tools: tuple[Tool, ...]
    """The TOOLS names with most tokens, in that order."""
    tool_names: int
    other_tools: Tool | None
    """All tools that are not listed, as one."""


class SizesSection:
    """Tells how large calls are; memory: five numbers a call and three for every name of a tool."""

    def __init__(self) -> None:
        self._prompt, self._fresh, self._computed = array("q"), array("q"), array("q")
        self._output, self._reasoning = array("q"), array("q")
        self._kinds: dict[PartKind, list[int]] = {}
        self._tools: dict[str, Tool] = {}

    def add(self, facts: SessionFacts) -> None:
        for c in facts.calls:
            self._prompt.append(c.prompt_tokens)
            self._fresh.append(c.call.fresh_tokens)
            self._computed.append(c.reuse.fresh_tokens)
            self._output.append(c.call.output_tokens)
            self._reasoning.append(c.call.reasoning_tokens)
            for part in c.call.fresh:
                self._part(part)

    def result(self) -> Sizes:
        tools = sorted(self._tools.values(), key=lambda tool: (-tool.tokens, tool.name))
        fresh = sum(self._fresh)
        kinds = [
            FreshKind(kind, parts, tokens, tokens / fresh if fresh else None)
            for kind, (parts, tokens) in self._kinds.items()
        ]
        return Sizes(
            calls=len(self._prompt),
            prompt_tokens=_tokens(self._prompt),
            fresh_tokens=_tokens(self._fresh),
            computed_tokens=_tokens(self._computed),
            output_tokens=_tokens(self._output),
            reasoning_tokens=_tokens(self._reasoning),
            kinds=tuple(sorted(kinds, key=lambda kind: (-kind.tokens, kind.kind))),
            tools=tuple(tools[:TOOLS]),
            tool_names=len(tools),
            other_tools=together(tools[TOOLS:]) if len(tools) > TOOLS else None,
        )

    def _part(self, part: Part) -> None:
        sums = self._kinds.setdefault(part.kind, [0, 0])
        sums[0] += 1
        sums[1] += part.tokens
        if part.kind == "tool":
            name = part.name or ""
            here = Tool(name, 1, part.tokens, part.seconds or 0.0, int(part.seconds is not None))
            before = self._tools.get(name)
            self._tools[name] = here if before is None else together((before, here), name)


def together(tools: Iterable[Tool], name: str = "others") -> Tool:
    """Some tools as one."""
    results = tokens = timed = 0
    seconds = 0.0
    for tool in tools:
        results += tool.results
        tokens += tool.tokens
        seconds += tool.seconds
        timed += tool.timed
    return Tool(name, results, tokens, seconds, timed)


def _tokens(values: array[int]) -> Tokens:
    return Tokens(sum(values), distribution(values))
