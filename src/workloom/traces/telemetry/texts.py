"""The prompts of a session as lists of numbers, for :mod:`workloom.traces.blocks` to find what they share."""

from __future__ import annotations

from workloom.traces.reading import Report
from workloom.traces.telemetry.message import Message
from workloom.traces.telemetry.observed import Seen

_BACK = 64
"""So many calls with one prompt are looked at for the one whose answer comes next."""
_PARTIAL = 4
"""Messages that explain less than one in so many tokens of their prompt are not all of it."""


def numbered(seen: list[Seen], above: list[int], report: Report) -> list[list[int]]:
    """The messages of every call as numbers, equal ones for equal messages, and its answer behind them.

    `above`: for every call a bit set of its ancestors. Where a prompt holds the answer of an ancestor behind all of the
    ancestor's prompt, that has the number of the ancestor's answer, which is -1 - its index. Messages that cannot be
    all of their prompt are taken away.
    """
    numbers: dict[bytes, int] = {}
    steps: dict[tuple[int, int], int] = {}  # (a beginning of prompts, the next message) -> a longer beginning
    ending: dict[int, list[int]] = {}  # the calls whose prompt is a beginning
    held: dict[int, bytes] = {}  # for a call its answer as the first prompt to hold it has it
    lists: list[list[int]] = []
    for index, call in enumerate(seen):
        messages = call.node.messages
        if messages and _PARTIAL * sum(m.tokens for m in messages) < (call.node.prompt or 0):
            report.infer("prompts far larger than their messages, which are not all of them")
            messages = call.node.messages = ()
        mine: list[int] = []
        begun = 0
        for message in messages:
            made_by = None
            if message.kind == "answer" and begun in ending:
                made_by = _answered(seen, above[index], message, ending[begun], held)
            number = numbers.setdefault(message.digest, len(numbers)) if made_by is None else -made_by - 1
            mine.append(number)
            begun = steps.setdefault((begun, number), len(steps) + 1)
        if mine:
            ending.setdefault(begun, []).append(index)
            mine.append(-index - 1)
        lists.append(mine)
    return lists


def _answered(
    seen: list[Seen], above: int, message: Message, candidates: list[int], held: dict[int, bytes]
) -> int | None:
    """Which ancestor with the same prompt gave the answer that a prompt holds behind it.

    One answer is one text: a prompt that holds other words than an earlier one (an edit, another attempt that was not
    recorded, reasoning left out) shares what is before them.
    """
    for other in reversed(candidates[-_BACK:]):
        node = seen[other].node
        told = node.status == "ok" if node.answer is None else message.answers(node.answer)
        if told and above >> other & 1 and held.setdefault(other, message.digest) == message.digest:
            return other
    return None
