#!/bin/sh
# Makes src/workloom/engine/profiles/qwen3.5-35b-a3b-h100.yaml from rows that others measured on one H100 (vLLM 0.17.1).
#
#   scripts/calibrate_h100.sh ROWS OUT      ROWS: the folder with case3_linear_2.0.parquet and vllm-0.17.1.prom
#
# The counts of the model and its template are not in those rows: Qwen3.5-35B-A3B has 256 experts of which 8 are taken,
# 10 layers of attention (16 heads, 2 KV heads of 256) and 30 that keep states; the template's tokens are from
# prompt_tokens_total of runs whose prompts were counted.
set -eu
exec "${WORKLOOM:-workloom}" calibrate "$1/case3_linear_2.0.parquet" -o "$2" \
    --metrics "$1/vllm-0.17.1.prom" --gpu h100_sxm \
    --experts 256 --experts-per-token 8 --state-groups 3 --kv-token-bytes 20480 --pair-flops 163840 \
    --template 17:5.67:6:rewritten
