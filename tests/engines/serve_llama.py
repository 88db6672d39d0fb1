"""llama.cpp's HTTP server, from xllamacpp; runs in its environment.

python serve_llama.py MODEL PORT SLOTS CONTEXT THREADS
"""

import signal
import sys

import xllamacpp

model, port, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:6])
params = xllamacpp.CommonParams()
params.model.path = model
params.model_alias = {"tiny"}
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = slots
params.n_ctx = context * slots  # shared out among the slots
params.kv_unified = False
params.endpoint_metrics = params.endpoint_slots = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.n_gpu_layers = 0
params.ui = False
server = xllamacpp.Server(params)
signal.pause()
