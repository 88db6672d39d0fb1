"""Rows of hashed blocks for tests, and the check that sessions share what their hashes say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from workloom.prefix import PrefixTree, common
from workloom.prompt import Prompt, planned
from workloom.session import Session, validate

Row = dict[str, Any]


def save(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lcp(a: Sequence[int], b: Sequence[int]) -> int:
    same = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        same += 1
    return same


def check(sessions: Sequence[Session], rows: Sequence[Row], block: int) -> None:
    """Sessions are valid and have the rows' tokens; every two prompts of the file share exactly the full blocks that
    their hashes share, and an infinite cache hits as many blocks. Outputs tell rows apart."""
    prompts: list[tuple[Prompt, Row]] = []
    by_output = {row["output_length"]: row for row in rows}
    for instance, session in enumerate(sessions):
        validate(session)
        prompts += [(prompt, by_output[call.output_tokens]) for call, prompt in planned(session, instance)]
    assert len(prompts) == len(rows)
    full = [row["hash_ids"][: row["input_length"] // block] for _, row in prompts]
    for i, (prompt, row) in enumerate(prompts):
        assert prompt.tokens == row["input_length"]
        for j in range(i):
            assert common(prompt.key, prompts[j][0].key) // block == lcp(full[i], full[j]), (i, j)
    assert hits([prompt for prompt, _ in prompts], block) == hits_of(rows, block)


def hits(prompts: Sequence[Prompt], block: int) -> int:
    """Blocks of prompts that an earlier one has too; the last one, if it is not full, only where it is all shared."""
    tree, found = PrefixTree(), 0
    for prompt in prompts:
        matched = tree.add(prompt.key)
        found += -(-matched // block) if matched == prompt.tokens else matched // block
    return found


def hits_of(rows: Sequence[Row], block: int) -> int:
    """The same from the hashes: a block is known by all ids up to it, one that is not full by its end too."""
    seen: set[tuple[Any, ...]] = set()
    found = 0
    for row in rows:
        ids, full = row["hash_ids"], row["input_length"] // block
        keys: list[tuple[Any, ...]] = [tuple(ids[: n + 1]) for n in range(min(full, len(ids)))]
        if len(ids) > full:
            keys.append((*ids, row["input_length"], "end"))
        found += sum(key in seen for key in keys)
        seen.update(keys)
    return found


@st.composite
def prompts(draw: st.DrawFn, block: int) -> list[tuple[int, list[int]]]:
    """(tokens, ids) of prompts that grow from, part from and repeat each other; ids chained or not, numbered or not."""
    few = st.integers(0, draw(st.sampled_from((0, 1, 2, 50))))
    chained, known = draw(st.booleans()), dict[Any, int]()
    made: list[list[int]] = []
    out = []
    for _ in range(draw(st.integers(1, 12))):
        base = draw(st.sampled_from(made)) if made and draw(st.integers(0, 3)) else []
        kept = base[: len(base) - draw(st.integers(0, 2))] if draw(st.booleans()) else base
        ids = [*kept, *draw(st.lists(few, max_size=3))]
        made.append(ids)
        tail = draw(st.sampled_from((0, 1, block // 2, block - 1)))
        tokens = len(ids) * block + tail
        whole = [*ids, 1000 + draw(st.integers(0, 1))] if tail else ids
        if chained:
            before, numbered = -1, []
            for place, block_id in enumerate(whole):
                before = known.setdefault((before, block_id, tokens * (place == len(ids))), len(known))
                numbered.append(before)
            whole = numbered
        out.append((tokens, whole))
    return out
