"""The only source of randomness: streams with an address.

A stream is named by a root seed and a path, for example ``(7, "arrivals")`` or ``(7, "order", 3)``. Equal
addresses give equal streams on every machine and in every process; different addresses give independent ones.
Nothing in workloom draws from a stream it was not handed.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator

Address = str | int


def number(seed: int, *path: Address) -> int:
    """A 64-bit number that belongs to the address alone."""
    key = repr((seed, *path)).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def stream(seed: int, *path: Address) -> Generator:
    """An independent numpy generator (PCG64) for the address."""
    from numpy.random import PCG64, Generator

    return Generator(PCG64(number(seed, *path)))


def fresh_seed() -> int:
    """A seed nobody chose, for ``--seed random``; the caller records it."""
    return secrets.randbits(31)


def fresh_salt() -> bytes:
    """128 bits nobody knows, to key the digests of one import; they are kept nowhere."""
    return secrets.token_bytes(16)
