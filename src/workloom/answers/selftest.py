"""Up to which load the numbers of this tool can be trusted on this machine: it measures a server that costs nothing.

    null server (its own process)  <--  the driver, HTTP client, records and verdict that every live run uses

Two limits are looked for by bisection: calls a second (short ones, each answered in one write), and streamed tokens a
second (one write a token, 100 tokens/s a stream). The limit is the highest load whose run was judged `valid`; the rule
that broke just above it is named. Then TTFT and the gaps between tokens are put beside the server's own record.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec import Struct

from workloom.clock import host
from workloom.drive.driver import Options, Progress
from workloom.drive.targets import HttpOptions
from workloom.errors import WorkloomError
from workloom.execute import Live, execute
from workloom.metrics.stats import Stats
from workloom.metrics.summary import Summary, encode, summarize
from workloom.plan import Closed, Limits, Load, Open, Plan, Recipe, TraceRef, make
from workloom.records import CallRecord
from workloom.session import Call, Header, Part, Session
from workloom.store import Run
from workloom.store.manifest import this_host

CALL_TOKENS = 8
"""Output tokens of a short call."""
STREAM_TOKENS_PER_S = 100
STREAM_TOKENS = 100
PROMPT_TOKENS = 64
BASE = {"calls": 800.0, "tokens": 8_000.0}
"""Loads a second that every machine manages, from which the first guess is made."""
SESSIONS = 1000
"""Sessions that are told apart; their texts are unlike each other in any case."""
RESOLUTION = 1.06
"""The search ends when the lowest load that failed is so many times the highest that held."""
TRIES, TRIES_DISTURBED = 2, 4
SPARE = 0.75
"""A loop that was busy for less than this in every second had time to spare."""
MARGIN = 0.9
"""A load holds when one of its tries is valid, so the highest that holds was lucky: the limit is a tenth below it."""
SECONDS = 36.0
"""Time a selftest takes by default."""
STEPS = 15
"""Trials that this time is divided among: two searches of about 6, and what they repeat."""


class Trial(Struct, frozen=True):
    """One run at a load."""

    per_s: float
    verdict: str | None
    reasons: list[str]
    rule: str | None
    lag_p99_s: float | None
    busy_share_p95: float | None
    loop_lag_p99_s: float | None


class Limit(Struct, frozen=True):
    """How far a load can be raised: MARGIN of the highest that held.

    `per_s` None: not even the lowest was judged valid.
    """

    unit: str
    per_s: float | None
    broken_at_per_s: float | None
    """The lowest load above it that was not valid."""
    rule: str | None
    """The rule that broke there."""
    reasons: list[str]
    trials: list[Trial]


class Error(Struct, frozen=True):
    """What the tool reports less what the server recorded, seconds, over the calls of a run of `streams` at once."""

    streams: int
    calls: int
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    itl_p50_s: float | None
    """Of every gap, the one the tool saw less the one the server made."""
    itl_p99_s: float | None
    """99th percentile of its size, early or late."""


class Selftest(Struct, frozen=True, kw_only=True):
    """What the machine allows."""

    host: dict[str, str | int | None]
    calls: Limit
    tokens: Limit
    errors: list[Error]
    took_s: float


class Broken(WorkloomError):
    """The null server or a run against it did not do what it must: nothing can be said of the machine."""


def selftest(seconds: float = SECONDS, say: Callable[[str], None] = lambda words: None) -> Selftest:
    """Measure this machine. `seconds` is about how long it takes; `say` hears what is going on."""
    began = host.monotonic()
    trial_s = max(1.05, seconds / STEPS - 0.9)
    with null_server() as url:
        measure = Measure(url, trial_s)
        measure.run("calls", BASE["calls"], 1.05)  # warms up: imports, connections, caches
        calls = limit("calls", measure, say)
        tokens = limit("tokens", measure, say)
    say("TTFT and gaps between tokens beside the server's own record")
    with null_server("--stamps") as url:
        errors = [error(url, streams) for streams in (1, 64)]
    return Selftest(host=this_host(), calls=calls, tokens=tokens, errors=errors, took_s=host.monotonic() - began)


# -- limits


def limit(unit: str, measure: Measure, say: Callable[[str], None]) -> Limit:
    """The highest load that is judged valid, to within RESOLUTION."""
    trials: list[Trial] = []

    def held(per_s: float) -> Trial:
        """A load holds when one of two runs is valid: what a machine does besides is not the tool's limit.

        A run that was late although its loop had time to spare was disturbed, and is done again twice more.
        """
        for turn in range(TRIES_DISTURBED):
            found = measure.trial(unit, per_s)
            trials.append(found)
            spare = found.busy_share_p95 is not None and found.busy_share_p95 < SPARE
            if found.verdict == "valid" or turn + 1 >= (TRIES_DISTURBED if spare else TRIES):
                break
        say(f"{per_s:,.0f} {unit}/s: {found.verdict}{f' ({found.reasons[0]})' if found.reasons else ''}")
        return found

    low, high = search(held, BASE[unit])
    return Limit(
        unit=unit,
        per_s=None if low is None else low.per_s * MARGIN,
        broken_at_per_s=None if high is None else high.per_s,
        rule=None if high is None else high.rule,
        reasons=[] if high is None else high.reasons,
        trials=trials,
    )


def search(held: Callable[[float], Trial], base: float) -> tuple[Trial | None, Trial | None]:
    """The highest load that holds and the lowest above it that does not, starting from one that should.

    The first guess is what the busy share at the base says; then steps of 1.6 until there is one on either side,
    then halves on a scale of ratios.
    """
    low: Trial | None = None
    high: Trial | None = None
    at = base
    for _ in range(24):
        found = held(at)
        if found.verdict == "valid":
            low = found
        else:
            high = found
        if low is None:
            at /= 1.6
            if at < base / 16:
                break
        elif high is None:
            busy = found.busy_share_p95
            at *= 1.6 if not busy else min(8.0, max(1.15, 0.8 / busy))
        elif high.per_s / low.per_s <= RESOLUTION:
            break
        else:
            at = math.sqrt(low.per_s * high.per_s)
    return low, high


class Measure:
    """Runs against one null server."""

    def __init__(self, url: str, trial_s: float) -> None:
        self.url, self.trial_s = url, trial_s

    def trial(self, unit: str, per_s: float) -> Trial:
        summary = self.run(unit, per_s, self.trial_s)
        tool = summary.tool
        return Trial(
            per_s=per_s,
            verdict=tool.verdict,
            reasons=tool.reasons,
            rule=tool.rule_that_decided,
            lag_p99_s=summary.latency["lag_s"].p99,
            busy_share_p95=tool.busy_share_p95,
            loop_lag_p99_s=tool.loop_lag_p99_s,
        )

    def run(self, unit: str, per_s: float, seconds: float) -> Summary:
        """A run at a load; calls or streams come at random, as they do."""
        if unit == "calls":
            plan = one_call_sessions(Open(per_s), CALL_TOKENS, Limits(duration_s=seconds))
            return run(self.url, plan, f"batch={CALL_TOKENS}")[0]
        streams_per_s = per_s / STREAM_TOKENS
        full_s = STREAM_TOKENS / STREAM_TOKENS_PER_S
        # Streams last a second: the load is whole only after it.
        plan = one_call_sessions(Open(streams_per_s), STREAM_TOKENS, Limits(duration_s=full_s + seconds))
        return run(self.url, plan, f"gap_ms={1000 / STREAM_TOKENS_PER_S:g}")[0]


# -- runs


def one_call_sessions(load: Load, tokens: int, limits: Limits, seed: int = 0) -> Plan:
    """Sessions of one short call each; the trace is read when this returns, and kept nowhere."""
    from workloom.traces import native

    calls = (Call("call", tokens, fresh=(Part("user", PROMPT_TOKENS),)),)
    with TemporaryDirectory(prefix="workloom-selftest-") as folder:
        path = Path(folder, "selftest.jsonl")
        native.write(path, Header(source="selftest"), [Session(str(i), calls) for i in range(SESSIONS)])
        return make(Recipe(TraceRef((str(path),)), load, limits, seed=seed))


def run(url: str, plan: Plan, ask: str) -> tuple[Summary, list[CallRecord]]:
    """Carry out a plan as every live run is, in a directory that is gone afterwards; Broken when a call failed."""
    salt = plan.text_salt
    http = HttpOptions(urls=(url,), model="null", salt=salt, headers={"X-Null": ask}, proxy="none")
    target = Live(http=http, salt=salt, scrape=False)
    kept: list[Summary] = []

    def keep(done: Run) -> bytes:
        kept.append(summarize(done))
        return encode(kept[0])

    with TemporaryDirectory(prefix="workloom-selftest-") as folder:
        options = Options(timeout_s=60.0, drain_s=0.0)
        done = execute(
            plan, target, Path(folder, "run"), options=options, progress=Progress(), argv=["selftest"], summarize=keep
        )
        calls = list(done.calls())
    failed = [call for call in calls if call.status in ("error", "timeout")]
    if failed:
        raise Broken(
            f"{len(failed)} of {len(calls)} calls to the null server failed",
            found=failed[0].error,
            hint="look at the limits on open files (ulimit -n) and on ports",
        )
    return kept[0], calls


def error(url: str, streams: int) -> Error:
    """TTFT and gaps against the server's record: TTFT 20 ms, a token every 10 ms, `streams` sessions at once."""
    each = 6 if streams > 1 else 40
    tokens = 20 if streams > 1 else 4
    record(url)
    plan = one_call_sessions(Closed(streams), tokens, Limits(sessions=streams * each))
    _, calls = run(url, plan, "ttft_ms=20, gap_ms=10")
    return compare(calls, record(url), streams)


def compare(calls: list[CallRecord], told: list[tuple[int, int, int, list[int]]], streams: int) -> Error:
    """The errors of calls; `usage.prompt_tokens` says which entry of the server's record a call is."""
    import numpy as np

    from workloom.metrics.stats import stats

    ttft: list[int] = []
    gaps: list[int] = []
    for call in calls:
        if call.sent_ns is None or call.first_ns is None or call.prompt_tokens is None:
            continue
        read_ns, first_ns, _, stamps = told[call.prompt_tokens]
        ttft.append(call.first_ns - call.sent_ns - (first_ns - read_ns))
        seen = [chunks.at(i) for chunks in call.chunks for i in range(chunks.count)]
        if len(seen) == len(stamps):
            ours, theirs = np.diff(seen), np.diff(stamps)
            gaps.extend((ours - theirs).tolist())
    ttft_s: Stats = stats(np.array(ttft) / 1e9)
    gaps_s = np.array(gaps) / 1e9
    size: Stats = stats(np.abs(gaps_s))
    return Error(streams, len(ttft), ttft_s.p50, ttft_s.p99, stats(gaps_s).p50, size.p99)


# -- the server


@contextmanager
def null_server(*options: str) -> Iterator[str]:
    """The base URL of a null server, a process of its own, while it runs."""
    command = [sys.executable, "-m", "workloom.drive.null_server", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise Broken("the null server did not start", found=f"exit code {process.wait()}")
        yield f"http://127.0.0.1:{int(port)}/v1"
    finally:
        with suppress(OSError):
            process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def record(url: str) -> list[tuple[int, int, int, list[int]]]:
    """The null server's own record of the calls since it was last asked."""
    from urllib.request import ProxyHandler, build_opener

    with build_opener(ProxyHandler({})).open(url.removesuffix("/v1") + "/record") as answer:
        return msgspec.json.decode(answer.read(), type=list[tuple[int, int, int, list[int]]])
