"""The rules by which a live run is judged: limits as data, so that the documentation prints what the code does."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Verdict = Literal["valid", "degraded", "invalid"]

NEVER = float("inf")
"""The limit of a rule that alone makes no run invalid."""


class Rule(Struct, frozen=True):
    """One rule of the verdict: above `degraded` the numbers carry the tool's own cost, above `invalid` they are it."""

    name: str
    words: str
    unit: Literal["s", "share"]
    degraded: float
    invalid: float
    why: str


RULES = (
    Rule(
        "dispatch_lag",
        "dispatch lag",
        "s",
        0.005,
        0.050,
        "p99 of sent - due (of fewer than 100 calls the median). Calls that leave late make a lighter load than the "
        "one asked for, and latencies from due carry the delay: 5 ms is a tenth of a quick TTFT, and what calls that "
        "come at random wait for a tool that is 85 % busy. Without bound when the tool cannot keep up.",
    ),
    Rule(
        "loop_lag",
        "event loop lag",
        "s",
        0.002,
        0.010,
        "p99 over looks at the event loop (of fewer than 200 looks p90), worst worker. A chunk that comes waits so "
        "long for its time stamp: it is the error of TTFT and of the gaps between tokens.",
    ),
    Rule(
        "busy",
        "event loop busy",
        "share",
        0.85,
        0.97,
        "Share of the event loop's time spent serving, p95 of seconds, worst worker. Near 1 what is ready queues, and "
        "the rate measured is the tool's own. (CPU time cannot say it: timers of a live run watch the clock.)",
    ),
    Rule(
        "cpu",
        "CPU of one core",
        "share",
        0.80,
        0.97,
        "CPU seconds / wall seconds of the process. Judged only of runs that did not look at their event loop.",
    ),
    Rule(
        "handling",
        "chunk handling",
        "share",
        0.70,
        0.90,
        "Share of the time spent reading chunks, worst worker. Gaps between tokens then show our reading of other "
        "streams.",
    ),
    Rule(
        "coalesced",
        "chunks read together by a late loop",
        "share",
        0.10,
        NEVER,
        "Share of chunks that came in one read with the chunk before, where the event loop was more than 2 ms late: "
        "gaps of 0 between tokens that the server may have sent apart. It may have sent them together, so this makes "
        "no run invalid; it says what the late loop did.",
    ),
    Rule(
        "held_back",
        "in-flight time held back",
        "share",
        0.05,
        0.25,
        "Closed loops: of the time from due to done, what calls spent waiting to be sent (beyond a millisecond each). "
        "So much of the concurrency asked for was not reached, because of the tool.",
    ),
    Rule(
        "stalled",
        "time waiting for the disk",
        "share",
        0.0,
        0.20,
        "Share of the run in which nothing was read or sent because the disk was behind with the records.",
    ),
    Rule(
        "clock_resolution",
        "steps of the clock",
        "s",
        10e-6,
        1e-3,
        "The smallest step of the clock: no instant is better than that.",
    ),
)


class Fault(Struct, frozen=True):
    """A rule that was broken: which limit, and what was found."""

    rule: str
    verdict: Verdict
    limit: float
    found: float
    words: str


def broken(rule: Rule, level: str, found: float | None) -> Fault | None:
    """The fault that a figure is by a rule; None below its limits. `level`: which figure it is, in words."""
    if found is None or found <= rule.degraded:
        return None
    verdict: Verdict = "invalid" if found > rule.invalid else "degraded"
    limit = rule.invalid if verdict == "invalid" else rule.degraded
    name = f"{rule.words} {level}".strip()
    return Fault(
        rule.name, verdict, limit, found, f"{name} {_figure(rule, found)} > {_figure(rule, limit, exact=True)}"
    )


def _figure(rule: Rule, value: float, exact: bool = False) -> str:
    """A figure of a rule in words; of a limit as few digits as it has."""
    if rule.unit == "share":
        return f"{value:.1%}" if 0 < value < 0.1 and not exact else f"{value:.0%}"
    return f"{value * 1000:g} ms" if exact else f"{value * 1000:.1f} ms"


def rules_table() -> str:
    """RULES as a table of Markdown, for the documentation."""
    lines = ["| rule | degraded above | invalid above | what it is, and why |", "| --- | --- | --- | --- |"]
    for rule in RULES:
        pair = (rule.degraded, rule.invalid)
        limits = " | ".join("never" if limit == NEVER else _figure(rule, limit, exact=True) for limit in pair)
        lines.append(f"| {rule.words} | {limits} | {rule.why} |")
    return "\n".join(lines) + "\n"
