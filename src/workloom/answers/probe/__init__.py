"""Microbenchmarks: what a server does with the simplest loads there are, each measured as an ordinary run.

    prefill     TTFT against prompt length: cold, one call at a time
    decode      TBC against batch size and context: only while all streams decode
    cache       cached against cold prefill; how long a prefix survives traffic of others, and time
    stress      throughput against load, up to the knee

A probe makes sessions, a plan of them and one run or several, live or simulated; the runs stay in a folder. What it
says of them is medians of repeats with intervals that assume nothing about the noise.
"""

from workloom.answers.probe.cache import Cache, cache
from workloom.answers.probe.decode import Decode, decode
from workloom.answers.probe.lab import Lab
from workloom.answers.probe.prefill import Prefill, prefill
from workloom.answers.probe.stress import Stress, stress

__all__ = ["Cache", "Decode", "Lab", "Prefill", "Stress", "cache", "decode", "prefill", "stress"]
