"""`workloom selftest`."""

from __future__ import annotations

import sys

import msgspec

from workloom.answers.selftest import Limit, Selftest
from workloom.answers.selftest import selftest as measure
from workloom.errors import UsageError
from workloom.metrics.text import duration


def selftest(json: bool, seconds: float) -> None:
    """Measure, print."""
    if not 5 <= seconds <= 3600:
        raise UsageError("a selftest takes from 5 to 3,600 s", where="--seconds", found=seconds)
    found = measure(seconds, lambda words: print(words, file=sys.stderr))
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print("\n".join(lines(found)))


def lines(found: Selftest) -> list[str]:
    """What was found, in words."""
    calls, tokens = found.calls.per_s, found.tokens.per_s
    if calls is None or tokens is None:
        out = ["this machine, as busy as it is now, cannot be trusted with any load: try again when it is quiet"]
    else:
        out = [
            f"numbers can be trusted up to {_rounded(calls):,} calls/s and {_rounded(tokens):,} streamed tokens/s on "
            "this machine"
        ]
    out += [line for limit in (found.calls, found.tokens) if (line := _above(limit))]
    for error in found.errors:
        out.append(
            f"{error.streams} stream{'s' * (error.streams > 1)}: TTFT off by {_off(error.ttft_p50_s)} (p99 "
            f"{_off(error.ttft_p99_s)}), gaps between tokens by {_off(error.itl_p50_s)} (p99 {_off(error.itl_p99_s)})"
        )
    return out


def _above(limit: Limit) -> str:
    if limit.broken_at_per_s is None:
        return ""
    why = "; ".join(limit.reasons) or "not enough data"
    return f"at {_rounded(limit.broken_at_per_s):,} {limit.unit}/s: {why}"


def _rounded(value: float) -> int:
    """Two digits: more are not repeatable."""
    return int(float(f"{value:.2g}"))


def _off(value: float | None) -> str:
    return "-" if value is None else duration(value)
