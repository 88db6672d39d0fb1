"""Numbers as people read them: three digits or so, with the unit where it belongs to the number.

Units are those of the fields: ``s`` becomes µs to days, ``share`` percent; all others are named beside the number.
"""

from __future__ import annotations

from math import isinf, isnan

Cell = str | float | None
"""What a table shows: words, a number in the unit of its column, or None where there is none."""

DURATIONS = ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h"))
"""(below, in seconds; one of it, in seconds; its name); from there on days."""


def text(value: Cell, unit: str = "") -> str:
    """A value to read."""
    if value is None:
        return "–"
    if isinstance(value, str):  # names come from traces: nothing of them is obeyed by a terminal
        return value if value.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in value)
    if isnan(value):
        return "–"
    if isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit == "s":
        return duration(value)
    return percent(value) if unit == "share" else digits(value)


def span(low: float | None, high: float | None, unit: str = "", to: str = " to ") -> str | None:
    """An interval to read, a unit of both said once: `84.0 to 130 ms`; None where there is none."""
    if low is None or high is None:
        return None
    one, other = text(low, unit), text(high, unit)
    _, space, name = other.partition(" ")
    if space and one.endswith(f" {name}"):
        one = one.removesuffix(f" {name}")
    elif other.endswith("%"):
        one = one.removesuffix("%")
    return f"{one}{to}{other}"


def heading(label: str, unit: str) -> str:
    """A label over numbers to read: durations and percent carry their unit themselves."""
    return label if unit in ("", "s", "share") or unit in label else f"{label} ({unit})"


def plain_heading(label: str, unit: str) -> str:
    """A label over plain numbers, as in CSV."""
    told = {"s": "s", "share": "share of 1"}.get(unit)
    return f"{label} ({told})" if told else heading(label, unit)


def duration(seconds: float) -> str:
    """Seconds in the unit that leaves the fewest zeros."""
    if seconds == 0:
        return "0 s"
    for below, one, name in DURATIONS:
        if abs(seconds) < below * 0.9995:
            return f"{_three(seconds / one)} {name}"
    return f"{_three(seconds / 86_400)} d"


def percent(share: float) -> str:
    """A share of 1; what is not the whole is never written as if it were."""
    per_cent = 100 * share
    if 99.95 <= per_cent < 100:
        return f"{per_cent:.2f}%" if per_cent < 99.995 else ">99.99%"
    return f"{per_cent:,.1f}%" if per_cent == 0 or abs(per_cent) >= 0.995 else f"{per_cent:.2g}%"


def digits(value: float) -> str:
    """A number with no unit of its own: whole ones in full."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return _three(value)


def _three(value: float) -> str:
    size = abs(value)
    if size < 0.0995:
        return f"{value:.3g}"
    if size >= 1e15:
        return f"{value:.3e}"
    return f"{value:,.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"
