"""How many tokens the calls of a session answered, where their lines tell only what was known when the stream began.

Lines are written block by block, many before the API says how long the answer became. In the sample 100 of 217 calls
tell two counts, and the largest of those agrees with the answer's length (44 to 48 tokens for each tool call and 2.9
characters for each other token: within 35 % everywhere, 9 % on average). Of the other 117 those with less than half
of that (0 to 0.46) stand apart from those that agree (0.84 to 1.32): the former are estimated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from workloom.traces.claude_code.nodes import Call, Item
from workloom.traces.reading import Report
from workloom.traces.turns import CHARS_PER_TOKEN

TOOL_CALL_TOKENS = 45
"""Of an answer, for each tool call beside its name and arguments."""
PICTURE_TOKENS = 1500
"""Of a prompt, for each picture or document: what a picture of a megapixel costs."""
PLAUSIBLE = 0.6
"""A count below this part of the estimate is none of the whole answer."""
ENOUGH_CALLS = 10
_RATES = (1.0, 8.0)
"""Characters per token that a text can have."""


class Rate(NamedTuple):
    """Tokens of texts at so many characters for each."""

    chars_per_token: float

    def of(self, item: Item) -> int:
        """Tokens of a piece of a prompt."""
        return round(item.chars / self.chars_per_token) + PICTURE_TOKENS * item.pictures

    def answer(self, call: Call) -> int:
        """Tokens of what is visible of an answer."""
        return round(call.chars / self.chars_per_token) + TOOL_CALL_TOKENS * len(call.uses)

    def output(self, call: Call) -> tuple[int, bool]:
        """Tokens of an answer, and whether they are estimated."""
        told, visible = max(call.outputs, default=0), self.answer(call)
        return (visible, True) if told < PLAUSIBLE * visible else (told, False)


def rate(calls: Iterable[Call], report: Report) -> Rate:
    """The rate of the calls that tell how an answer began and how long it became, if there are enough of them."""
    whole = [call for call in calls if call.chars and len(set(call.outputs)) > 1]
    per_token = float(CHARS_PER_TOKEN)
    report.assume(
        f"outputs below {PLAUSIBLE:.0%} of what is visible of them are estimated: {TOOL_CALL_TOKENS} tokens a tool call"
        f" and {CHARS_PER_TOKEN} characters a token, or as many as the session's own calls have, where"
        f" {ENOUGH_CALLS} tell how their answer began and how long it became"
    )
    if len(whole) >= ENOUGH_CALLS:
        tokens = sum(max(call.outputs) - TOOL_CALL_TOKENS * len(call.uses) for call in whole)
        if tokens > 0:
            low, high = _RATES
            per_token = min(max(sum(call.chars for call in whole) / tokens, low), high)
        report.infer("sessions whose characters per token are those of their own calls")
    return Rate(per_token)
