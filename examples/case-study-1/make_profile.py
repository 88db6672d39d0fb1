"""The profile of case study 1, from its measured rows (which are not in this repository).

    python examples/case-study-1/make_profile.py FOLDER      FOLDER holds case1_cache.parquet and case1_nocache.parquet

That server is another than the one of case studies 2 and 3: it decodes 100,000 tokens of context 30.8 ms slower, where
those show 0.6 to 1.5. And its calls were alone, so that nothing can be seen of launches, queues or batches:
`workloom calibrate`, which reads stalls, says so. What lone calls show is fitted here, by least squares on relative
errors over both runs:

    TTFC        = call + prompt_token * prompt + prefill_token * computed + pair * pairs
    gap         = weights + context_token * context

with computed = the fresh tokens where the cache is on (no block size fits better than the finest; the answer was
found again), the whole prompt where it is off.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import yaml

OUT = Path(__file__).with_name("profile.yaml")
PS = 1e12


def main(folder: Path) -> None:
    design, ttfc, contexts, gaps = [], [], [], []
    for name, cached in (("case1_cache", True), ("case1_nocache", False)):
        rows = pq.read_table(folder / f"{name}.parquet")
        prompt, fresh, first = (
            rows.column(c).to_numpy().astype(float) for c in ("prompt_tokens", "fresh_tokens", "ttfc_s")
        )
        computed = fresh if cached else prompt
        design.append(np.c_[np.ones(len(prompt)), prompt, computed, computed * (prompt - computed / 2)])
        ttfc.append(first)
        contexts.append(prompt + rows.column("output_tokens").to_numpy() / 2)
        gaps.append([float(np.median(gap)) for gap in rows.column("tbc_s").to_pylist()])
    call, per_prompt, per_token, per_pair = least(np.concatenate(design), np.concatenate(ttfc))
    off = np.concatenate(design) @ np.array([call, per_prompt, per_token, per_pair]) / np.concatenate(ttfc) - 1
    line = np.c_[np.ones(sum(map(len, gaps))), np.concatenate(contexts)]
    weights, context = least(line, np.concatenate(gaps))
    decode_off = line @ np.array([weights, context]) / np.concatenate(gaps) - 1
    profile = {
        "name": "case-study-1",
        "model": "Qwen/Qwen3.5-35B-A3B",
        "gpu": "h100_sxm",
        "gpus": 1,
        "dtype": "bf16",
        "source": f"examples/case-study-1/make_profile.py, from {len(off):,} lone calls",
        "error": {
            "prefill_max": round(float(abs(off).max()), 3),
            "decode_max": round(float(abs(decode_off).max()), 3),
            "mixed_max": None,
            "mean": round(float(abs(np.r_[off, decode_off]).mean()), 3),
            "points": len(off) + len(decode_off),
        },
        "not_identified": {
            "step.launch_ps": "calls were alone; what a launch costs is part of front_end.call_ps",
            "step.sequence_ps": "batches of one only; used: nothing, so larger batches come out too fast",
            "max_batched_tokens": "used: vLLM's default",
            "max_num_seqs": "used: vLLM's default",
            "kv_tokens": "one session of up to 100k tokens always fitted; used: no limit",
            "block_tokens": "finer than can be seen; used: 16",
        },
        "step": {
            "weights_ps": round(weights * PS),
            "prefill_base_ps": 0,
            "prefill_token_ps": round(per_token * PS),
            "sequence_ps": 0,
            "pair_ps": round(per_pair * PS),
            "context_token_ps": round(context * PS),
        },
        "front_end": {"call_ps": round(call * PS), "prompt_token_ps": round(per_prompt * PS)},
        "max_model_len": 131072,
        "max_num_seqs": 1024,
        "max_batched_tokens": 8192,
        "block_tokens": 16,
        "kv_tokens": None,
    }
    head = "# Made by examples/case-study-1/make_profile.py; not to be edited.\n"
    OUT.write_text(head + yaml.safe_dump(msgspec.to_builtins(profile), sort_keys=False, width=110))


def least(columns: np.ndarray, values: np.ndarray) -> list[float]:
    """Least squares of relative errors."""
    found, *_ = np.linalg.lstsq(columns / values[:, None], np.ones(len(values)), rcond=None)
    return [float(value) for value in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
