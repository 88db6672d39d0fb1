"""The rule of cache-aware routing, whoever says what is cached where.

It is that of SGLang's gateway and the router of vLLM's that came from it (policy `cache_aware`), with their defaults:

1. when the busiest replica has more than 64 calls out above the idlest, and more than 1.5 times as many: the idlest;
2. else, when the longest match is more than 0.3 of the prompt: where that is, of several the least busy;
3. else the least busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from workloom.engine.routers.seen import Seen, least_loaded

R = TypeVar("R", bound=Seen)


class Thresholds(Struct, frozen=True):
    """As the gateway's options `cache-threshold`, `balance-abs-threshold` and `balance-rel-threshold`."""

    match: float = 0.3
    busier_by: int = 64
    busier_times: float = 1.5


USUAL = Thresholds()


def choose(replicas: Sequence[R], prompt_tokens: int, matched: Callable[[R], int], thresholds: Thresholds) -> R:
    """A replica by matches and load; `matched` tells the tokens of the prompt that one is thought to hold."""
    idlest = least_loaded(replicas)
    least, most = idlest.outstanding, max(replica.outstanding for replica in replicas)
    if most - least > thresholds.busier_by and most > least * thresholds.busier_times:
        return idlest
    tokens = [matched(replica) for replica in replicas]
    longest = max(tokens)
    if longest <= thresholds.match * prompt_tokens:
        return idlest
    return least_loaded(replica for replica, match in zip(replicas, tokens, strict=True) if match == longest)
