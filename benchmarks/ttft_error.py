"""How far the live client's TTFT and gaps are from what the server itself recorded: TTFT 50 ms, a token every 10 ms.

    python benchmarks/ttft_error.py [--streams 1 64 256] [--calls 4] [--tokens 50] [--rounds 3]

The error is the quantile that was reported less the same quantile of the server's own record (first token written -
request read; between two writes). First the streams start evenly spread, as sessions do; then all at once, the worst
case. The bare loop stands beside both: what it misses too is the machine's or the server's doing, not the tool's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import bare_loop
import client
import uvloop

from workloom.plan import Closed, Load, Open
from workloom.records import CallRecord

TTFT_MS, GAP_MS = 50.0, 10.0


class Limits(NamedTuple):
    """Of the errors of p50 and p99, in ms, either way."""

    ttft_p50: float
    ttft_p99: float
    gap_p50: float = 0.05
    gap_p99: float = 1.0


SPREAD, AT_ONCE = Limits(0.3, 2.0), Limits(0.3, 5.0)


class Errors(NamedTuple):
    """Reported less the server's own, in ms."""

    ttft_p50: float
    ttft_p99: float
    gap_p50: float
    gap_p99: float


def errors(ttfts_ns: list[int], gaps_ns: list[int], server: client.Server) -> Errors:
    ttft, gaps = client.quantiles(ttfts_ns), client.quantiles(gaps_ns)
    sent_ttft, sent_gaps = server.sent()
    return Errors(*(told[q] - sent[q] for told, sent in ((ttft, sent_ttft), (gaps, sent_gaps)) for q in ("p50", "p99")))


def ours(server: client.Server, calls: int, load: Load, tokens: int) -> Errors:
    made: list[CallRecord] = client.run(server.port, client.plan(calls, load, tokens))[1]
    ttfts, gaps = [], []
    for call in made:
        assert call.first_ns is not None and call.sent_ns is not None
        ttfts.append(call.first_ns - call.sent_ns)
        stamps = [run.first_ns for run in call.chunks for _ in range(run.count)]
        gaps += [b - a for a, b in pairwise(stamps)]
    return errors(ttfts, gaps, server)


def bare(server: client.Server, calls: int, streams: int, tokens: int, every_s: float | None = None) -> Errors:
    """The same of the bare loop: streams start every so often, or (None) all at once."""
    if every_s is None:
        run = uvloop.run(bare_loop.drive(server.port, calls, streams, tokens))
    else:
        run = uvloop.run(spread_out(server.port, calls, streams, tokens, every_s))
    ttfts = [stamps[1] - stamps[0] for stamps in run.stamps]
    return errors(ttfts, [b - a for stamps in run.stamps for a, b in pairwise(stamps[1:])], server)


async def spread_out(port: int, calls: int, streams: int, tokens: int, every_s: float) -> bare_loop.Run:
    """The bare loop, a stream starting every so often; calls take equally long, so they stay spread."""
    loop = asyncio.get_running_loop()
    run = bare_loop.Run(calls, tokens, words=64)
    start_s, ends = loop.time(), []
    for stream in range(min(streams, calls)):
        await asyncio.sleep(start_s + stream * every_s - loop.time())
        done = loop.create_future()
        ends.append(done)
        await loop.create_connection(partial(bare_loop.Bare, run, done), "127.0.0.1", port)
    await asyncio.gather(*ends)
    return run


def show(who: str, found: Errors) -> None:
    said = "   ".join(f"{name.replace('_', ' ')} {ms:+7.3f}" for name, ms in zip(found._fields, found, strict=True))
    print(f"  {who:10} {said}", flush=True)


def compare(name: str, one: Callable[[], Errors], other: Callable[[], Errors], limits: Limits, rounds: int) -> None:
    """The bare loop and workloom in turn; the medians of their errors, and what was missed."""
    pairs = [(one(), other()) for _ in range(rounds)]
    bare_ms, ours_ms = (Errors(*map(statistics.median, zip(*found, strict=True))) for found in zip(*pairs, strict=True))
    print(f" {name}")
    show("bare loop", bare_ms)
    show("workloom", ours_ms)
    for what, ms, limit, beside in zip(ours_ms._fields, ours_ms, limits, bare_ms, strict=True):
        if abs(ms) > limit:
            too = "; the bare loop misses it too: look at the machine first" if abs(beside) > limit else ""
            print(f"    {what.replace('_', ' ')} within {limit:g} ms: NOT REACHED{too}")
    if all(abs(ms) <= limit for ms, limit in zip(ours_ms, limits, strict=True)):
        print(f"    within {', '.join(f'{limit:g}' for limit in limits)} ms: reached")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--calls", type=int, default=4, help="calls of each stream (20 where there is one)")
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    client.with_mock(parser)
    args = parser.parse_args()
    tokens = args.tokens
    call_s = (TTFT_MS + (tokens - 1) * GAP_MS) / 1e3
    with client.server(args.mock, TTFT_MS, GAP_MS) as server:
        server.sent()
        for streams in args.streams:
            calls = streams * args.calls if streams > 1 else 5 * args.calls
            print(f"{streams} streams, {calls} calls: reported less the server's own, ms")
            every_s = call_s / streams
            for name, apart_s, load, limits in (
                ("starts spread", every_s, Open(1 / every_s, "constant"), SPREAD),
                ("all at once", None, Closed(streams), AT_ONCE),
            ):
                one = partial(bare, server, calls, streams, tokens, apart_s)
                compare(name, one, partial(ours, server, calls, load, tokens), limits, args.rounds)


if __name__ == "__main__":
    main()
