"""A slow reference of one vLLM-like replica: every step, every block and every token, one at a time.

It checks the fast engine (`workloom.engine`), so it shares nothing with it but the profile: no radix tree, no runs of
blocks, no leaping. It is written from the rules vLLM v1 publishes in its source (Apache-2.0), read and not copied:

    [S]  vllm/v1/core/sched/scheduler.py             the order of a step: running calls, then waiting ones; preemption
    [K]  vllm/v1/core/kv_cache_manager.py            how much of a prompt may hit, what an admission needs
    [M]  vllm/v1/core/single_type_kv_cache_manager.py   state pages of Mamba layers (mamba_cache_mode align)
    [B]  vllm/v1/core/block_pool.py                  the free queue, touching, evicting, duplicates
    [G]  sglang/srt/mem_cache/radix_cache.py         what it does otherwise
    [W]  a rule of workloom's own (DESIGN.md), where it simplifies or where leaping needs it

`call` has the nouns, `pool` the blocks, `tiers` memory below them, `holdings` who has which, `scheduler` who runs,
`cost` the time of a step, `engine` that of a call.
"""

from __future__ import annotations

from reference.call import Finished, Step
from reference.cost import step_ps
from reference.engine import ReferenceEngine
from reference.pool import Block, Pool

__all__ = ["Block", "Finished", "Pool", "ReferenceEngine", "Step", "step_ps"]
