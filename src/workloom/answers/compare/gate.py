"""`--gate "ttft_p95:+5%"`: how much worse b may be than a before a CI job fails.

    ttft_p95:+5%               may rise by 5 % of a's
    output_tokens_per_s:-3%    may fall by 3 % of a's
    errors:+1pp                may rise by one percentage point
    ttft_p95:+50ms             may rise by 50 ms

fail: a worse change than that is shown (the whole interval lies behind it). pass: none is left (the whole interval lies
before it). Between the two there is not enough data. Where there is no interval, the test of contrast.py is asked
whether b moved by more, or by less, than what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isinf
from typing import Literal

from msgspec import Struct

from workloom.answers.compare.judge import by_test
from workloom.errors import UsageError
from workloom.metrics.figure import SECONDS, Figure, figure
from workloom.metrics.uncertainty.contrast import Contrast
from workloom.metrics.uncertainty.difference import Difference

Verdict = Literal["pass", "fail", "not enough data"]
_ALLOWED = re.compile(r"\s*(?P<sign>[+-])\s*(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[a-z%/]*)\s*")


class Gate(Struct, frozen=True):
    """`allowed`: how far b's figure may move to its worse side, 0 or more; of a's figure if `relative`, else in the
    unit of the metric. `up`: the worse side is above."""

    figure: Figure
    up: bool
    allowed: float
    relative: bool
    text: str


class Held(Struct, frozen=True):
    """What a gate says. `moved`, `low` to `high`: how far b moved to the worse side, in the terms of the gate."""

    gate: str
    figure: str
    verdict: Verdict
    allowed: float
    relative: bool
    moved: float | None
    low: float | None
    high: float | None
    why: str = ""


def gates(texts: Sequence[str]) -> list[Gate]:
    """Read gates. Raises one UsageError that tells all faults."""
    found, faults = [], []
    for text in texts:
        try:
            found.append(gate(text))
        except UsageError as fault:
            faults.append(fault)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = "\n    ".join(str(fault).replace("\n", "\n    ") for fault in faults)
        raise UsageError(f"{len(faults)} gates cannot be read", where="--gate", found=told)
    return found


def gate(text: str) -> Gate:
    """Read one gate. Raises UsageError."""
    name, colon, said = text.rpartition(":")
    match = _ALLOWED.fullmatch(said)
    if not colon or match is None:
        raise UsageError(
            "a gate is FIGURE:+ALLOWED or FIGURE:-ALLOWED",
            where="--gate",
            expected="ttft_p95:+5%, errors:+1pp, output_tokens_per_s:-3%",
            found=text,
        )
    about = figure(name, "--gate")
    up, number, unit = match["sign"] == "+", float(match["number"]), match["unit"]
    better = about.about.better
    if better != "neither" and up != (better == "lower"):
        wrong, right = ("rises", "-") if up else ("falls", "+")
        raise UsageError(
            f"nothing is lost when {about.say()} {wrong}",
            where="--gate",
            expected=f"{about.say()}:{right}{said.strip()[1:]}",
            found=text,
        )
    scale = _scale(about, unit, text)
    if about.about.unit == "share" and unit != "%" and number * scale >= 1:
        expected = f"{about.say()}:{match['sign']}{said.strip()[1:].removesuffix(unit)}pp, say"
        raise UsageError("a share moves by less than 1", where="--gate", expected=expected, found=text)
    return Gate(about, up, number * scale, unit == "%", text)


def _scale(about: Figure, unit: str, text: str) -> float:
    """What a number of this unit is in the metric's own (or as a share of a's figure)."""
    own = about.about.unit
    if unit == "%":
        return 0.01
    if unit == "pp" and own in ("share", "ratio"):
        return 0.01
    if unit in SECONDS and own == "s":
        return SECONDS[unit]
    if unit in ("", own) and own != "s":
        return 1.0
    expected = "%" + (" or pp" if own == "share" else ", ms or s" if own == "s" else f" or {own}")
    raise UsageError(f"{about.say()} does not move by this", where="--gate", expected=expected, found=text)


def held(gate: Gate, found: Difference, made: Contrast | None = None) -> Held:
    """Whether b stayed within the gate. `made`: what can be asked where `found` has no interval."""
    sign = 1.0 if gate.up else -1.0
    value, ends = found.difference, (found.low, found.high)
    if gate.relative:
        value, ends = _less_one(found.ratio), (_less_one(found.ratio_low), _less_one(found.ratio_high))
    moved = None if value is None else sign * value
    if ends[0] is not None and ends[1] is not None:
        low, high = sorted((sign * ends[0], sign * ends[1]))
        if low > gate.allowed:
            return _held(gate, "fail", moved, low, high)
        if high <= gate.allowed:
            return _held(gate, "pass", moved, low, high)
        why = "the interval holds changes on both sides of what is allowed"
        return _held(gate, "not enough data", moved, low, high, why)
    why = found.why or ("a's figure is 0: give the gate in pp or units" if gate.relative else "not enough data")
    if moved is None or found.p_value is None:
        return _held(gate, "not enough data", moved, None, None, why)
    told: Verdict = "fail" if moved > gate.allowed else "pass"
    infinite = isinf(found.difference or 0.0)
    shown = by_test(found) if infinite else made is not None and _beyond(gate, found, made, moved)
    verdict: Verdict = told if shown else "not enough data"
    return _held(
        gate,
        verdict,
        moved,
        None,
        None,
        f"by the test alone: {why.removeprefix('not enough data: ')}" if shown else why,
    )


def _beyond(gate: Gate, found: Difference, made: Contrast, moved: float) -> bool:
    """Whether a test shows that b is on its side of what is allowed, by more than the luck of a run (`within`)."""
    up = (moved > gate.allowed) == gate.up
    by = gate.allowed if gate.up else -gate.allowed
    luck = 1 + found.within if up else 1 / (1 + found.within)
    p_value, side = made.p_value(luck * (1 + by)) if gate.relative else made.p_value(luck, luck * by)
    return side == (1 if up else -1) and p_value <= 1 - found.level


def _held(
    gate: Gate, verdict: Verdict, moved: float | None, low: float | None, high: float | None, why: str = ""
) -> Held:
    return Held(gate.text, gate.figure.say(), verdict, gate.allowed, gate.relative, moved, low, high, why)


def _less_one(ratio: float | None) -> float | None:
    return None if ratio is None else ratio - 1
