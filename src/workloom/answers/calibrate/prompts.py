"""What a server had to compute of each prompt, and in which chunks.

The cached part is what the server said, or else follows from the call before it in its session and the rules of the
cache: whole blocks, and with state pages only boundaries where a step ended (:class:`workloom.engine.profile.Profile`).
Eviction is left out: where a cache is too small for its load, let the server say what it had cached.
"""

from __future__ import annotations

import numpy as np

from workloom.answers.calibrate.observed import Floats, Observed
from workloom.answers.calibrate.server import Server

Chunk = tuple[int, int]
"""Tokens of a prefill chunk, and tokens before it."""


def server_tokens(observed: Observed, server: Server) -> Floats:
    """Prompt tokens as the server counts them: what it said, or ours and the template's."""
    template = server.template
    ours = observed.prompt_tokens + np.round(template.call_tokens + template.turn_tokens * observed.level)
    return np.where(np.isnan(observed.server_tokens), ours, observed.server_tokens)


def prefills(observed: Observed, server: Server) -> list[list[Chunk]]:
    """Chunks of every call, in the order they are computed."""
    tokens = server_tokens(observed, server)
    template, size = server.template, server.block_tokens
    boundaries: list[set[int]] = []
    """By call: where a state of its session could be found when it had ended (with state pages)."""
    out: list[list[Chunk]] = []
    for index in range(len(tokens)):
        prompt, before = int(tokens[index]), int(observed.before[index])
        known: set[int] = set() if before < 0 else boundaries[before]
        said = observed.cached_tokens[index]
        if not server.prefix_cache:
            cached = 0
        elif not np.isnan(said):
            cached = int(said)
        elif before < 0:
            cached = 0
        else:
            twin = int(observed.twin[index])
            known = known if twin < 0 else boundaries[twin]
            reusable = int(tokens[before]) - template.tail_tokens
            if template.answers == "repeated":
                reusable = int(tokens[before] + observed.output_tokens[before]) - 1
            longest = min(reusable, prompt - 1) if twin < 0 else prompt - 1
            cached = (
                max((at for at in known if at <= longest), default=0) if server.state_groups else longest // size * size
            )
        chunks = _cut(prompt, cached, server)
        out.append(chunks)
        ends = {before_tokens + chunk for chunk, before_tokens in chunks}
        decoded = range(prompt // size + 1, (prompt + int(observed.output_tokens[index]) - 1) // size + 1)
        boundaries.append(known | {end for end in ends if end % size == 0} | {at * size for at in decoded})
    return out


def _cut(prompt: int, cached: int, server: Server) -> list[Chunk]:
    stops = [prompt]
    last = prompt // server.block_tokens * server.block_tokens
    if server.state_groups and cached < last < prompt:
        stops = [last, prompt]
    chunks, at = [], cached
    for stop in stops:
        while at < stop:
            chunk = min(stop - at, server.max_batched_tokens)
            chunks.append((chunk, at))
            at += chunk
    return chunks
