"""What a call costs in conversations that grow to 100,000 tokens over 100 turns: at most 0.4 ms of CPU, on average.

    python benchmarks/long_conversations.py [--rounds 3] [--sessions 4] [--turns 100] [--tokens 1000]

Each turn says again all that was said before, as agents do. The bare loop stands beside it: it encodes a conversation
of half the greatest length for every call, which is as many bytes in the mean.
"""

from __future__ import annotations

import argparse
import statistics

import bare_loop
import client
import uvloop

from workloom.clock import host
from workloom.plan import Closed, Plan
from workloom.session import Call, Edge, Inherit, Part, Session

GOAL_MS = 0.4
OUTPUT_TOKENS = 8


def growing(sessions: int, turns: int, tokens: int) -> Plan:
    calls = [Call("turn 0", OUTPUT_TOKENS, fresh=(Part("user", tokens - OUTPUT_TOKENS),))]
    for turn in range(1, turns):
        before = f"turn {turn - 1}"
        part = Part("user", tokens - OUTPUT_TOKENS)
        calls.append(Call(f"turn {turn}", OUTPUT_TOKENS, (Edge(before),), inherit=Inherit(before), fresh=(part,)))
    made = [Session(str(i), tuple(calls)) for i in range(sessions)]
    return client.plan_of(made, Closed(sessions), sessions)


def bare_ms(port: int, calls: int, sessions: int, words: int) -> float:
    before = host.cpu()
    uvloop.run(bare_loop.drive(port, calls, sessions, OUTPUT_TOKENS, words))
    return (host.cpu() - before) / calls * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=1000, help="that a turn adds")
    client.with_mock(parser)
    args = parser.parse_args()
    calls = args.sessions * args.turns
    bare, ours = [], []
    with client.server(args.mock) as server:
        for _ in range(args.rounds):
            bare.append(bare_ms(server.port, calls, args.sessions, args.turns * args.tokens // 2))
            cpu_s, made = client.run(server.port, growing(args.sessions, args.turns, args.tokens), correct=False)
            ours.append(cpu_s / calls * 1e3)
    longest = max(call.sent_prompt_tokens for call in made)
    sent = sum(call.bytes_sent or 0 for call in made) / calls / 1e3
    print(f"{calls} calls of up to {longest:,} tokens, {sent:.0f} kB each in the mean")
    print(f"  bare loop  {statistics.median(bare):6.3f} ms CPU a call")
    found = statistics.median(ours)
    print(
        f"  workloom   {found:6.3f} ms CPU a call (goal {GOAL_MS}): {'reached' if found <= GOAL_MS else 'NOT REACHED'}"
    )


if __name__ == "__main__":
    main()
