"""Sentences from numbers: one trace is told as it is, several beside each other, what is not known not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workloom.answers.characterize import Characterization
from workloom.report.units import digits, text

Found = Sequence[Characterization]
Value = Callable[[Characterization], float | None]

NAMED = 4
"""Traces that a list names one by one."""
COMPACT = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
PEOPLE = "Waits are as recorded: a wait for a tool may include people who were asked to allow it, or were away."
"""True of every trace of interactive agents: nobody stamps the moment at which a person comes back."""


def people(found: Found) -> str:
    """The caveat, where a call waits for tools."""
    tools = [told for c in found if (told := c.waits.by_gap.get("tool")) is not None]
    return PEOPLE if any(told.total_s for told in tools) else ""


def said(value: float, unit: str = "") -> str:
    """A value in a sentence; from 10,000 tokens on in k, M, G."""
    if unit == "tokens" and abs(value) >= 9_999.5:
        one, name = next((one, name) for one, name in COMPACT if abs(value) >= one * 0.9995)
        return digits(value / one) + name
    return text(value, unit)


def counted(value: float, noun: str, unit: str = "") -> str:
    """A value and what it counts: ``1 call``, ``52.5 calls``."""
    return f"{said(value, unit)} {noun if value == 1 else noun + 's'}"


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def side(found: Found, value: Value, unit: str = "", noun: str = "") -> str:
    """A number of the traces that know it; '' if none does.

    52.5 calls; 575 calls (dag) and 52.5 (weka); of more than two the ends: 575 calls (dag) down to 1 (chat).
    """
    told = [(c.label, here) for c in found if (here := value(c)) is not None]
    if not told:
        return ""

    def first(number: float) -> str:
        return counted(number, noun, unit) if noun else said(number, unit)

    if len(found) == 1:
        return first(told[0][1])
    told.sort(key=lambda pair: -pair[1])
    (most, high), (least, low) = told[0], told[-1]
    if len(told) == 1:
        return f"{first(high)} ({most})"
    if said(high, unit) == said(low, unit):
        return first(high) if len(told) == len(found) else f"{first(high)} ({listed([label for label, _ in told])})"
    return f"{first(high)} ({most}) {'and' if len(told) == 2 else 'down to'} {said(low, unit)} ({least})"


def say(*parts: str) -> str:
    """A sentence of parts; '' if one of them is missing."""
    return "".join(parts) if all(parts) else ""


def each(found: Found, told: Callable[[Characterization], str]) -> str:
    """What is told of each trace, with its name before it where there are several."""
    pairs = [(c.label, words) for c in found if (words := told(c))]
    if len(found) == 1:
        return "".join(words for _, words in pairs)
    rest = f"; and so on for {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return "; ".join(f"{label}: {words}" for label, words in pairs[:NAMED]) + rest


def lead(*sentences: str) -> str:
    """A paragraph of the sentences that can be said."""
    return " ".join(filter(None, sentences))
