"""Numbers as people read them on a terminal, three digits or so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workloom.metrics.catalog import Unit


SCALES = ((1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"))
"""(below, in seconds; one of it, in seconds; its name); from there on hours."""


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    size = abs(seconds)
    if size == float("inf"):
        return "∞"
    if size == 0:
        return "0 s"
    for limit, unit, name in SCALES:
        if size < limit * 0.9995:
            return f"{digits(seconds / unit)} {name}"
    return f"{digits(seconds / 3600)} h"


def digits(value: float) -> str:
    """A number without a unit."""
    size = abs(value)
    if size == float("inf"):
        return "∞" if value > 0 else "-∞"
    if size < 0.0995:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def quantity(value: float | None, unit: Unit) -> str:
    """A value with its unit; a dash where there is none."""
    if value is None:
        return "-"
    if unit == "s":
        return duration(value)
    if unit == "share":
        return f"{100 * value:.2f} %" if abs(value) < 0.0995 else f"{100 * value:.1f} %"
    if unit == "ratio":
        return f"{value:.3f}" if abs(value) < 99.95 else digits(value)
    if unit == "count":
        return digits(value)
    if unit == "1/s":
        return f"{digits(value)}/s"
    return f"{digits(value)} {unit}"


def between(low: float | None, high: float | None, unit: Unit) -> str:
    """An interval, a unit of both said once; empty where there is none."""
    if low is None or high is None:
        return ""
    one, other = quantity(low, unit), quantity(high, unit)
    if unit != "1/s" and one.partition(" ")[2] == other.partition(" ")[2]:
        one = one.partition(" ")[0]
    return f"{one} to {other}"
